"""An answer of JSON that goes out in one piece."""

from collections.abc import Mapping
from functools import cached_property
from typing import Final

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import HttpVersion11
from multidict import CIMultiDict

from petsage.context import RequestContext, current_request

SERVER: Final = "PetSage"
"""The `Server` of every answer; it tells no versions."""

# A header of one of these names is aiohttp's to handle.
_HANDLED: Final = frozenset(
    (
        *("connection", "content-encoding", "content-length", "content-type", "date", "server"),
        *("traceparent", "transfer-encoding", "x-content-type-options", "x-request-id"),
    )
)
_BODILESS: Final = frozenset((204, 205, 304))


class JsonResponse(web.Response):
    """aiohttp's response, with a short way out for what nobody changes.

    aiohttp keeps headers in a dictionary and serialises it in five coroutines; that is a fifth of
    a small request. Here the head is written straight to bytes, unless somebody has looked at
    `headers`, set a cookie, asked for compression, or listens to `on_response_prepare`: then
    aiohttp does it all. What arrives is the same but for the order of headers.

    Args:
        body: JSON.
        status: the HTTP status.
        given: further headers.
    """

    def __init__(self, body: bytes, status: int, given: Mapping[str, str]) -> None:
        # aiohttp's constructor would make the dictionary of headers; whatever else it sets has
        # its default on the class, or stands here.
        self._state = {}
        self._body = body
        self._given = given
        self._message: bytes | None = None
        self._set_status(status, None)

    _zlib_executor = None
    _zlib_executor_size = 1024

    @cached_property
    def _headers(self) -> CIMultiDict[str]:  # type: ignore[override] # made when it is first looked at
        headers = CIMultiDict({"Content-Type": "application/json"})
        headers.update(self._given)
        return headers

    @property
    def is_plain(self) -> bool:
        """Whether nobody has said anything of the head but what was given to the constructor."""
        return (
            "_headers" not in self.__dict__
            and isinstance(self._body, bytes)
            and not (self._cookies or self._compression or self._chunked)
            and self._status not in _BODILESS
            and (not self._given or _HANDLED.isdisjoint(map(str.lower, self._given)))
        )

    def message(self, context: RequestContext, *, keep_alive: bool, body: bool = True) -> bytes:
        """The whole answer as it goes out, where it is plain; from now on it has begun.

        Args:
            context: the request that it answers.
            keep_alive: whether the connection stays open after it.
            body: False leaves the body out, and its length in.

        Raises:
            ValueError: a header's name or value would end its line.
        """
        content = self._body
        assert isinstance(content, bytes)  # noqa: S101 - for mypy: it is plain
        extra = _lines_of(self._given) if self._given else ""
        context.answer = self
        head = (
            f"HTTP/1.1 {self._status} {self._reason}\r\n"
            "Content-Type: application/json\r\n"
            f"Content-Length: {len(content)}\r\n"
            f"Date: {rfc822_formatted_time()}\r\n"
            f"Server: {SERVER}\r\n"
            f"X-Request-ID: {context.request_id}\r\n"
            f"traceparent: {context.traceparent}\r\n"
            "X-Content-Type-Options: nosniff\r\n"
            f"{extra}{'' if keep_alive else _CLOSE}\r\n"
        ).encode()
        return head + content if body else head

    async def _start(self, request: web.BaseRequest) -> AbstractStreamWriter:
        context = current_request()
        if (
            not isinstance(request, web.Request)
            or context is None
            or request.version != HttpVersion11
            or not self.is_plain
            # One receiver is ours: it stamps answers with what this head has anyway.
            or sum(len(app.on_response_prepare) for app in request.match_info.apps) != 1
        ):
            return await super()._start(request)
        keep_alive = self._keep_alive
        if keep_alive is None:
            keep_alive = self._keep_alive = request.keep_alive
        self._message = self.message(
            context, keep_alive=keep_alive, body=not self._must_be_empty_body
        )
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


def _lines_of(headers: Mapping[str, str]) -> str:
    """Headers as lines.

    Raises:
        ValueError: a name or value would end its line.
    """
    lines = ""
    for name, value in headers.items():
        lines += f"{name}: {value}\r\n"
    count = len(headers)
    if lines.count("\n") != count or lines.count("\r") != count or "\0" in lines:
        raise ValueError("a header's name or value holds a line break or a NUL")
    return lines


_CLOSE: Final = "Connection: close\r\n"
