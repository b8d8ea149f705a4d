"""An answer of JSON, or of nothing, that goes out in one piece."""

from collections.abc import Mapping
from functools import cached_property
from http import HTTPStatus
from time import time
from typing import Final

from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import HttpVersion11
from multidict import CIMultiDict

from petsage.context import RequestContext, current_request

SERVER: Final = "PetSage"
"""The `Server` of every answer; it tells no versions."""

JSON: Final = "application/json"

# A header of one of these names is aiohttp's to handle.
_HANDLED: Final = frozenset(
    (
        *("connection", "content-encoding", "content-length", "content-type", "date", "server"),
        *("traceparent", "transfer-encoding", "x-content-type-options", "x-request-id"),
    )
)
# Of these, no body goes out; of the first two, no length either (RFC 9110, section 8.6).
NO_LENGTH: Final = frozenset((204, 304))
BODILESS: Final = frozenset((*NO_LENGTH, 205))
_REASONS: Final = {int(each): each.phrase for each in HTTPStatus}
_CLOSE: Final = "Connection: close\r\n"

Content = tuple[bytes | None, int, Mapping[str, str]]
"""A body, None for none, a status, and further headers."""


class _Beginnings(dict[tuple[int, str | None], str]):
    """What heads begin with, by status and kind of body: it is the same for a second."""

    begun_at = ends_at = 0.0

    def __missing__(self, key: tuple[int, str | None]) -> str:
        status, kind = key
        beginning = (
            f"HTTP/1.1 {int(status)} {_REASONS.get(status, '')}\r\n"
            f"Date: {rfc822_formatted_time()}\r\n"
            f"Server: {SERVER}\r\n"
            "X-Content-Type-Options: nosniff\r\n"
        )
        if kind is not None:
            beginning += f"Content-Type: {kind}\r\n"
        self[key] = beginning
        return beginning


class _Names(dict[str, str]):
    """What the lines of headers begin with, by name; empty where one is aiohttp's to handle."""

    _most = 256

    def __missing__(self, name: str) -> str:
        if len(self) >= self._most:
            self.clear()
        self[name] = beginning = "" if name.lower() in _HANDLED else f"{name}: "
        return beginning


_beginnings: Final = _Beginnings()
_names: Final = _Names()


def in_one_piece(
    content: Content,
    context: RequestContext,
    *,
    keep_alive: bool,
    is_head: bool = False,
    kind: str = JSON,
) -> bytes | None:
    """A whole answer of HTTP/1.1 as it goes out, None where aiohttp has to write it.

    Args:
        content: the answer.
        context: the request that it answers.
        keep_alive: whether the connection stays open after it.
        is_head: leaves the body out, and its length in.
        kind: the body's content type.

    Raises:
        ValueError: a header's name or value would end its line.
    """
    body, status, given = content
    lines = _lines_of(given) if given else ""
    if lines is None or (body is not None and status in BODILESS):
        return None
    now = time()
    if not _beginnings.begun_at <= now < _beginnings.ends_at:
        _beginnings.clear()
        _beginnings.begun_at = now // 1
        _beginnings.ends_at = _beginnings.begun_at + 1
    if body is not None:
        beginning = _beginnings[status, kind]
        length = f"Content-Length: {len(body)}\r\n"
    else:
        beginning = _beginnings[status, None]
        length = "" if is_head or status in NO_LENGTH else "Content-Length: 0\r\n"
    head = (
        f"{beginning}{length}"
        f"X-Request-ID: {context.request_id}\r\n"
        f"traceparent: 00-{context.trace_id}-{context.span_id}-{context.trace_flags}\r\n"
        f"{lines}{'' if keep_alive else _CLOSE}\r\n"
    ).encode()
    return head if is_head or body is None else head + body


def _lines_of(headers: Mapping[str, str]) -> str | None:
    """Headers as lines, None where one of them is aiohttp's to handle.

    Raises:
        ValueError: a name or value would end its line.
    """
    lines = ""
    for name, value in headers.items():
        beginning = _names[name]
        if not beginning:
            return None
        line = f"{beginning}{value}"
        # Not by `count`, which takes longer than all the rest.
        if "\n" in line or "\r" in line or "\0" in line:
            raise ValueError("a header's name or value holds a line break or a NUL")
        lines += f"{line}\r\n"
    return lines


class JsonResponse(web.Response):
    """aiohttp's response, with a short way out for what nobody changes.

    aiohttp keeps headers in a dictionary and serialises it in five coroutines; that is a fifth of
    a small request. Here the head is written straight to bytes, unless somebody has looked at
    `headers`, set a cookie, asked for compression, or listens to `on_response_prepare`: then
    aiohttp does it all. What arrives is the same but for the order of headers.

    Args:
        body: JSON, None for none.
        status: the HTTP status.
        given: further headers.
        kind: the body's content type.
    """

    def __init__(
        self, body: bytes | None, status: int, given: Mapping[str, str], kind: str = JSON
    ) -> None:
        # aiohttp's constructor would make the dictionary of headers; whatever else it sets has
        # its default on the class, or stands here.
        self._state = {}
        self._body = body
        self._given = given
        self._kind = kind
        self._message: bytes | None = None
        self._set_status(status, None)

    _zlib_executor = None
    _zlib_executor_size = 1024

    @cached_property
    def _headers(self) -> CIMultiDict[str]:  # type: ignore[override] # made when it is first looked at
        headers: CIMultiDict[str] = CIMultiDict()
        if self._body is not None:
            headers["Content-Type"] = self._kind
        headers.update(self._given)
        return headers

    def _whole(self, context: RequestContext, *, keep_alive: bool, is_head: bool) -> bytes | None:
        """All of it as it goes out, None where more was said than to the constructor."""
        body = self._body
        if (
            "_headers" in self.__dict__
            or self._cookies
            or self._compression
            or self._chunked
            or self._reason != _REASONS.get(self._status, "")
            or not (body is None or isinstance(body, bytes))
        ):
            return None
        content = body, self._status, self._given
        return in_one_piece(
            content, context, keep_alive=keep_alive, is_head=is_head, kind=self._kind
        )

    async def _start(self, request: web.BaseRequest) -> AbstractStreamWriter:
        context = current_request()
        if (
            not isinstance(request, web.Request)
            or request._match_info is None  # it could not be parsed
            or context is None
            or context.answer is not None  # the head of another waits, and is replaced
            or request.version != HttpVersion11
            # One receiver is ours: it stamps answers with what this head has anyway.
            or sum(len(app.on_response_prepare) for app in request.match_info.apps) != 1
        ):
            return await super()._start(request)
        keep_alive = request.keep_alive if self._keep_alive is None else self._keep_alive
        is_head = request.method == hdrs.METH_HEAD
        self._message = self._whole(context, keep_alive=keep_alive, is_head=is_head)
        if self._message is None:
            return await super()._start(request)
        self._keep_alive = keep_alive
        context.answer = self
        self._req = request
        self._payload_writer = request.writer
        return request.writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Sends it, and ends it."""
        writer = self._payload_writer
        if self._message is None or writer is None:
            await super().write_eof(data)
            return
        await writer.write(self._message)
        await writer.write_eof()
        self._eof_sent = True
        self._body_length = writer.output_size
        self._req = None
        self._payload_writer = None
