"""What comes on a connection, on its way through aiohttp's parser: where that falls short.

Of a packet whose end it cannot parse, the parser gives up the good requests before it, too. It
takes the trailer of a chunked body for a header of the next request. And it says of nothing that it
refuses which of HTTP's statuses it is. docs/protocol.md has what is expected.
"""

from typing import Any, Final

from aiohttp import hdrs, web
from aiohttp.http import HttpRequestParser
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import _ErrInfo

from petsage.errors import Problem
from petsage.holding import HoldingHandler
from petsage.protocol import (
    HEAD_FACTOR,
    fault,
    head_bytes,
    is_foreign,
    length_of,
    too_much,
    wrong_version,
)
from petsage.unpacking import refuse_cut_bodies

_END: Final = b"\r\n\r\n"
# So much of a chunked body may be sizes and extensions: chunks of one byte have five such.
_MAX_OVERHEAD: Final = 16
_FREE_OVERHEAD: Final = 1024**2


class StrictHandler(HoldingHandler):
    """aiohttp's handler of one connection, which takes from it what HTTP/1.1 allows and no more.

    It has to know where a request begins. It does wherever a client waits for the answer before
    its next request, or sends requests without bodies one behind another.
    """

    __slots__ = (
        *("_body", "_framing_bytes", "_is_chunked", "_is_deaf", "_left", "_max_head", "_part"),
        "_tail",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._max_head = self.max_line_size * HEAD_FACTOR
        self._body: StreamReader = EMPTY_PAYLOAD  # of the last request that was parsed
        self._is_chunked = False
        self._left: int | None = 0  # bytes of it that are to come; None where that is not known
        self._framing_bytes = 0  # of a chunked body, its contents among them
        self._tail = b""  # the last bytes of a chunked body
        self._part: bytes | None = b""  # of a head; None where its begin is not known
        self._is_deaf = False  # what still comes is not parsed any more; then it is None, too

    def data_received(self, data: bytes) -> None:
        """Parses what came."""
        if self._is_deaf:
            return
        if self._upgraded:
            super().data_received(data)
            return
        if not self._body.is_eof():
            self._receive_body(data)
            return
        count = self._request_count
        super().data_received(data)
        self._look_at(data, count)

    def _is_one(self, raw: bytes) -> bool:
        """Whether what came is no more than one request of HTTP that has no body."""
        return raw.endswith(_END) and len(raw) <= self._max_head and b" RTSP/" not in raw

    def _look_at(self, data: bytes, count: int) -> None:
        """Looks at what was parsed, where nothing of a body was to come.

        Args:
            data: what was parsed.
            count: of the requests before.
        """
        part = self._part
        raw = part + data if part else data
        new = self._request_count - count
        if new == 1 and part is not None:
            message, body = self._messages[-1]
            if body is EMPTY_PAYLOAD and not isinstance(message, _ErrInfo) and self._is_one(raw):
                self._part = b""
                return
        if new:
            self._examine(raw if part is not None else None, new)
        elif part is not None and raw.strip(b"\r\n"):
            self._part = raw
            if len(raw) > self._max_head:
                self._fail(too_much("The head"))

    # What is more than that, or less.

    def _examine(self, raw: bytes | None, new: int) -> None:
        """Looks at requests that came in one packet; `raw` begins where the first of them does."""
        messages = self._messages
        if isinstance(messages[-1][0], _ErrInfo):
            if raw is not None:
                self._mend(raw)
            self._close_ears()
            return
        if raw is not None and is_foreign(raw):
            self._drop(new)
            self._fail(wrong_version())
            return
        message: Any
        for later in range(new - 1, -1, -1):
            message, body = messages[-1 - later]
            if head_bytes(message) > self._max_head:
                self._drop(later + 1)
                self._fail(too_much("The head"))
                return
            if message.chunked and body.is_eof() and later:
                self._separate(raw, new, later)
                return
        self._begin_body(message, body, raw if new == 1 else None, raw)

    def _begin_body(
        self, message: Any, body: StreamReader, own: bytes | None, raw: bytes | None
    ) -> None:
        """Notes how the body of the last request ends; `own` is all that came of it."""
        self._body, self._is_chunked = body, message.chunked
        self._part, self._left = b"", None
        if body is EMPTY_PAYLOAD:
            # No request comes after this one: its head ends where the last one does.
            self._part = raw.rpartition(_END)[2] if raw is not None else None
        elif message.chunked:
            self._framing_bytes = 0
            self._tail = raw[-4:] if raw is not None else b""
            if body.is_eof():
                self._end_chunked(0)
        else:
            length = message.headers.get(hdrs.CONTENT_LENGTH)  # a tunnel has none
            if own is not None and length is not None:
                self._left = length_of(length) - (len(own) - own.index(_END) - len(_END))
            if body.is_eof():
                self._end_counted(own or b"")

    def _receive_body(self, data: bytes) -> None:
        body, count = self._body, self._request_count
        if self._left is not None:
            self._left -= len(data)
        super().data_received(data)
        new = self._request_count - count
        if self._is_chunked:
            self._tail = (self._tail + data)[-4:]
            self._framing_bytes += len(data)
            if body.is_eof():
                self._end_chunked(new)
            elif self._framing_bytes > _FREE_OVERHEAD + _MAX_OVERHEAD * body.total_bytes:
                body.set_exception(web.RequestPayloadError("it is chunk extensions"))
                self._close_ears()
                self.close_after_answer()
        elif new and body.is_eof():
            self._examine(None, new)
        elif body.is_eof():
            self._end_counted(data)

    def _end_counted(self, data: bytes) -> None:
        """Keeps what came behind a body that has a length."""
        left = self._left
        if left is None or -left > len(data):
            self._part = None
        else:
            self._part = data[len(data) + left :]

    def _end_chunked(self, new: int) -> None:
        """Has the next request parsed anew; where something of it is parsed, it is too late."""
        if self._upgraded:
            return
        if new or self._tail != _END:
            self._end_after(new)
        elif not self._is_deaf:
            self._parser = self._new_parser()

    def _end_after(self, new: int) -> None:
        """Answers nothing behind a chunked body: it may have a header that was its trailer.

        A client sends again what is not answered.
        """
        self._close_ears()
        if new and isinstance(self._messages[-new][0], _ErrInfo):
            return  # it has no headers
        self._drop(new)
        self.close_after_answer()
        if self._current_request is None and not self._messages:
            self._close = True  # the answer is out

    def _separate(self, raw: bytes | None, new: int, later: int) -> None:
        """Takes requests apart of which one has a chunked body, and is not the last."""
        if raw is None:
            self._end_after(later)
            return
        self._drop(new)
        rest, error = self._parse_again(raw)
        if error is not None:
            self._fail(fault(rest, error, self.max_line_size, self.max_headers))
        elif rest:
            self._end_after(0)
        elif self._body.is_eof():
            self._part = None
        else:
            self._part, self._left, self._framing_bytes, self._tail = b"", None, 0, raw[-4:]

    # What cannot be parsed.

    def _mend(self, raw: bytes) -> None:
        """Finds the good requests before what is wrong, and says what is wrong with it."""
        given: Any = self._messages.pop()[0]
        head, error = self._parse_again(raw)
        if not self._body.is_eof():
            self._messages.pop()  # it is the body of this one that is wrong
            self._body = EMPTY_PAYLOAD
        problem = fault(head, error or given.exc, self.max_line_size, self.max_headers)
        self._messages.append((_ErrInfo(problem.status, problem, problem.detail), EMPTY_PAYLOAD))

    def _parse_again(self, raw: bytes) -> tuple[bytes, BaseException | None]:
        """Queues the requests in a packet, one by one; what is left, and what is wrong.

        What ends a head ends a chunked body, too: from there on, another parser takes over.
        """
        begin = start = 0
        for _ in range(self._max_msg_queue_size):
            if self._body.is_eof():
                self._parser = self._new_parser()
            end = raw.find(_END, begin) + len(_END)
            piece = raw[begin:end] if end >= len(_END) else raw[begin:]
            assert self._parser is not None  # noqa: S101 - for mypy: the connection is open
            try:
                messages, self._upgraded, _ = self._parser.feed_data(piece)
            except HttpProcessingError as error:
                return raw[start:], error
            for message, body in messages:
                self._messages.append((message, body))
                self._body, self._is_chunked = body, message.chunked
            begin += len(piece)
            if messages:
                start = begin
            if self._upgraded:
                self._message_tail = raw[begin:]
                return b"", None
            if begin >= len(raw):
                break
        return raw[begin:], None

    def _fail(self, problem: Problem) -> None:
        """Answers what comes last with a problem, and nothing behind it."""
        error = _ErrInfo(problem.status, problem, problem.detail)
        self._messages.append((error, EMPTY_PAYLOAD))
        self._request_count += 1
        self._close_ears()
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _close_ears(self) -> None:
        self._is_deaf = True
        self._part = None

    def _drop(self, count: int) -> None:
        for _ in range(count):
            self._messages.pop()

    def _new_parser(self) -> Any:
        """A parser as aiohttp makes them."""
        return HttpRequestParser(
            self,
            self._loop,
            self._read_bufsize,
            max_line_size=self.max_line_size,
            max_field_size=self.max_field_size,
            max_headers=self.max_headers,
            payload_exception=web.RequestPayloadError,
            max_msg_queue_size=self._max_msg_queue_size,
        )


refuse_cut_bodies(StrictHandler)
