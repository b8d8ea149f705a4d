"""A connection's request, from when it is made until the last byte of its answer is out.

A connection holds its request for the generation that answers it, and keeps nothing of it when it
waits for the next: an idle one would keep the feature alive, and its code.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Any, Final, cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpVersion10, HttpVersion11, RawRequestMessage, StreamWriter
from aiohttp.streams import StreamReader
from aiohttp.tcp_helpers import tcp_keepalive
from aiohttp.web_protocol import ERROR, RequestHandler
from multidict import CIMultiDict

from petsage.context import RequestContext
from petsage.generation import Generation, Holder
from petsage.protocol import keeps_alive
from petsage.proxies import Origin, Proxies
from petsage.steady import Steady

# What a request counts as that its client has cut: no failure of whoever answers it.
_CLIENT_GONE: Final = 499
# What one counts as that was cut, whatever its answer began with.
CUT: Final = 503


class Unmade:
    """A request that is yet to be made.

    aiohttp's loop holds the last request of a connection until the next one comes: this is what it
    holds, and not the request, which leads to its feature.
    """

    __slots__ = ("_task", "message", "payload", "writer")

    def __init__(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        _connection: RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[Any] | None,
    ) -> None:
        self.message = message
        self.payload = payload
        self.writer = writer
        self._task = task  # aiohttp sets it to None when it is through


class _Outcome:
    """All that aiohttp's loop looks at of an answer, which it holds as long."""

    __slots__ = ("keep_alive",)

    def __init__(self, *, keep_alive: bool) -> None:
        self.keep_alive = keep_alive


_GOES_ON: Final = _Outcome(keep_alive=True)
_IS_OVER: Final = _Outcome(keep_alive=False)


class _NewerWriter(StreamWriter):
    """Answers requests of HTTP/1.0 as what the server speaks (RFC 9110, section 2.5)."""

    async def write_headers(self, status_line: str, headers: CIMultiDict[str]) -> None:
        """Writes the head of an answer."""
        rest = status_line.removeprefix("HTTP/1.0 ")
        await super().write_headers(f"HTTP/1.1 {rest}", headers)


class HoldingHandler(RequestHandler, Holder):
    """aiohttp's handler of one connection, which lets go of each request when it is through.

    The names are private to aiohttp; test_direct.py holds us to them.

    Args:
        app: the root application.
        proxies: who is believed about others.
    """

    __slots__ = (
        *("_app", "_held", "_is_last", "_proxies", "_status", "_was_left"),
        *("is_cut", "origin"),
    )

    def __init__(
        self,
        *args: Any,
        app: web.Application,
        proxies: Proxies | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._proxies = proxies  # None, too, once the client is known to be none of them
        self.origin: Origin | None = None
        """Who asked, as a trusted proxy says of the request in hand."""
        self._app = app
        self._request_factory: Any = Unmade
        self._held: tuple[Generation, RequestContext] | None = None
        self._is_last = False
        self._status = 0
        self._was_left = False
        self.is_cut = False
        """Whether the answer whose access line is written ended before its end."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins, as aiohttp does, but in a task that no feature ends.

        aiohttp makes a task like any other, which everybody may cancel before it has begun: then
        nobody would ever answer on this connection.
        """
        BaseProtocol.connection_made(self, transport)
        real_transport = cast(asyncio.Transport, transport)  # uvloop's are none by name
        if self._tcp_keepalive:
            tcp_keepalive(real_transport)
        manager, loop = self._manager, self._loop
        assert manager is not None  # noqa: S101 - for mypy: it made this
        manager.connection_made(self, real_transport)
        close_time = loop.time() + self._keepalive_timeout
        self._next_keepalive_close_time = close_time
        self._keepalive_handle = loop.call_at(close_time, self._process_keepalive)
        self._task_handler = Steady(self.start(), loop=loop, name="connection")

    def hold(
        self, generation: Generation, context: RequestContext, task: asyncio.Task[Any] | None
    ) -> None:
        """Enters the request in hand into a generation; it leaves when this is through with it.

        What it counts as is the status of its access line, of which each request has one.
        """
        if self._held is not None:  # a middleware calls what is below it twice
            self._status = 0
            self._let_go()
        self._held = generation, context
        self._status = 500
        generation.enter(context, self, task)

    def _let_go(self) -> None:
        """Says that a request is no more in hand, if one is."""
        if self._held is not None:
            generation, context = self._held
            self._held = None
            generation.leave(context, _CLIENT_GONE if self._was_left else self._status)

    async def _handle_request(  # type: ignore[override] # of an answer, only this is looked at
        self,
        request: Any,
        start_time: float | None,
        request_handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
    ) -> tuple[_Outcome, bool]:
        """Makes a request, and answers it to the last byte."""
        unmade: Unmade = request
        request = self._make(unmade.message, unmade.payload, unmade.writer, unmade._task)
        try:
            answer, was_cut = await super()._handle_request(request, start_time, request_handler)
        except asyncio.CancelledError:
            self._status = CUT
            raise
        else:
            return _GOES_ON if answer.keep_alive else _IS_OVER, was_cut
        finally:
            request._task = None  # as aiohttp's loop does
            self._let_go()

    def _make(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        writer: AbstractStreamWriter,
        task: asyncio.Task[Any] | None,
    ) -> web.Request:
        """A request, as the application makes them; the last one of a connection says so."""
        if message.version is HttpVersion10:
            if message is ERROR:
                message = message._replace(version=HttpVersion11)
            else:
                writer = _NewerWriter(self, self._loop)
                if not keeps_alive(message):
                    message = message._replace(should_close=True)
        if self._is_last and not self._messages:
            message = message._replace(should_close=True)
        make: Any = self._app._make_request
        made: web.Request = make(message, payload, self, writer, task)
        return made if self._proxies is None else self._told(made, self._proxies)

    def _told(self, request: web.Request, proxies: Proxies) -> web.Request:
        """A request as its proxy says that it was made."""
        self.origin = origin = proxies.origin(request.headers)
        if origin is None:
            return request
        told = {name: value for name, value in origin._asdict().items() if value is not None}
        target = request._message.url
        if target.absolute:
            told.pop("host", None)  # it says itself which host is meant
            if not target.scheme:
                told.pop("scheme", None)
        return request.clone(**told)

    def close_after_answer(self) -> None:
        """Lets the next answer say `Connection: close`, and closes after it.

        Where further requests have come already, one behind another, it is the last of them. An
        answer that is under way keeps the head that it has.

        It is done to the request, which is where every kind of answer looks: requests of before
        pay nothing for it. The names are private to aiohttp; test_stop.py holds us to them.
        """
        self._is_last = True
        current = self._current_request
        if current is not None and not self._messages:
            current._message = current._message._replace(should_close=True)

    def log_access(
        self, request: web.BaseRequest, response: web.StreamResponse, time: float | None
    ) -> None:
        """Writes the access line of a request, and notes how it ended."""
        self._status = response.status
        # What aiohttp has sent to its end says so; a WebSocket has none that is awaited.
        self.is_cut = response.prepared and not (
            response._eof_sent or isinstance(response, web.WebSocketResponse)
        )
        super().log_access(request, response, time)

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Goes on to read, where that was paused: a stream asks for it at each of its reads."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def _resume_transport_reading(self) -> None:
        # asyncio keeps the context of whoever reads on, for all that is read from then on: it has
        # the context variables of one request, which others must not see nor keep.
        Context().run(super()._resume_transport_reading)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Ends, and notes whether what runs for the client ends with it."""
        if self._manager is not None and self._manager.handler_cancellation:
            self._was_left = True
        super().connection_lost(exc)
