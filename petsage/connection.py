"""The connections that PetSage serves on: parse errors as problems, an end without loss."""

import asyncio
import logging
import select
import sys
from functools import partial
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestHandler

from petsage.answers import (
    begin,
    fail,
    must_pass,
    problem_response,
    stamp,
    stamp_answer,
)
from petsage.catalog import CATALOG
from petsage.context import current_request
from petsage.errors import Problem, is_a
from petsage.framing import require_whole
from petsage.heads import Heads
from petsage.holding import CUT
from petsage.logs.access import ACCESS_LOGGER, AccessLogger
from petsage.metrics import REQUESTS
from petsage.proxies import Proxies
from petsage.settings import ServerSettings
from petsage.steady import Begun
from petsage.timed import TimedHandler, time_limits
from petsage.wheel import Wheel

# How long after its begin, or its last answer, a connection may be about to send a request.
_NEXT_REQUEST_S: Final = 1.0
# What is left when nothing more is waited for may take this long to notice that it is cut.
_CUT_S: Final = 0.05

# How long the rest of a body is read when its request is answered.
_UNREAD_S: Final = 10.0

_SENT_BEFORE: Final = (
    "a response was sent before, and cannot be again; fix: make one for each request"
)

_BODY_ERRORS = (web.RequestPayloadError, HttpProcessingError, ConnectionError)


class Connection(TimedHandler):
    """One connection from a client: what `TimedHandler` does not say of it."""

    __slots__ = ()

    if sys.version_info < (3, 12):

        def _handle_request(self, *args: Any) -> Any:
            """Answers a request, whose task somebody may cancel before it has begun.

            From Python 3.12 on aiohttp's tasks begin at once.
            """
            answering = super()._handle_request(*args)
            return Begun(answering, self._is_over)  # type: ignore[abstract] # slots are none

    def _is_over(self) -> bool:
        transport = self.transport
        return transport is None or transport.is_closing() or self._force_close

    def close_if_idle(self) -> None:
        """Closes it when it waits for a request of which nothing has come, and none is likely.

        A client that has just connected, or had an answer, is about to send one, and one that is
        sent as we close is lost. What the kernel has received and we have not read is asked for
        just before the close, which would reset it.
        """
        waiter, transport = self._waiter, self.transport
        if waiter is None or waiter.done() or self._messages or self._part_since:
            return
        if transport is None or transport.is_closing():
            return
        idle_since = self._next_keepalive_close_time - self._keepalive_timeout
        if self._loop.time() - idle_since < _NEXT_REQUEST_S:
            return
        poll = select.poll()
        poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        if not poll.poll(0):
            self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what cannot be parsed, or failed outside of every handler.

        Nothing of the request is echoed; the connection is closed after it.
        """
        context = current_request() or begin(request)
        response: web.StreamResponse
        if is_a(exc, Problem):
            response = problem_response(exc, context)
        elif status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            response = fail(request, exc or TimeoutError("outside of every handler"))
        else:
            response = problem_response(
                Problem(status, "The request is not well-formed HTTP"), context
            )
        if not response.prepared:
            # What aiohttp could not parse comes to no application, whose signal would stamp it.
            stamp(response, context)
        response.force_close()
        self._ends = True
        return response

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Sends an answer and writes its access line; whether the client went away meanwhile.

        An answer that cannot be sent, because of a header that is none or a body that raises, is
        a failure like any other of a handler; so is one that was sent before, and one that ends
        before its end.
        """
        context = current_request()
        if resp.prepared and (context is None or context.answer is not resp):
            resp = fail(request, RuntimeError(_SENT_BEFORE))
        try:
            answer, was_cut = await super().finish_response(request, resp, start_time)
        except BaseException as error:
            if must_pass(error, context, self):
                if is_a(error, asyncio.CancelledError):
                    self.log_access(request, resp, start_time)  # the stop cuts what has begun
                raise
            resp = fail(request, error)
            if not resp.prepared:
                return await super().finish_response(request, resp, start_time)
            self.log_access(request, resp, start_time)
            self._status = CUT
            return resp, True
        try:
            if not was_cut:
                require_whole(request, answer)
        except ValueError as error:
            self._status = CUT
            return fail(request, error), True
        return answer, was_cut

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Logs what aiohttp could not handle, but no traceback of a body that nobody read."""
        if is_a(kw.get("exc_info"), _BODY_ERRORS):
            self.logger.debug("The rest of a body could not be read: %r", kw["exc_info"])
        else:
            super().log_exception(*args, **kw)


class ConnectionServer(web.Server):
    """aiohttp's server, making `Connection`s.

    Args:
        server: the one that aiohttp made of an application.
        options: the keyword arguments of each `Connection`.

    Attributes:
        heads: of requests that came before.
    """

    def __init__(self, server: web.Server, options: dict[str, Any]) -> None:
        super().__init__(
            server.request_handler,
            request_factory=server.request_factory,
            handler_cancellation=server.handler_cancellation,
        )
        self._wheel = Wheel(self._loop)
        self.heads = Heads()
        self._options = {**options, "wheel": self._wheel, "heads": self.heads}
        self._is_closing = False

    def __call__(self) -> RequestHandler:
        """A connection, about to begin."""
        connection = Connection(self, loop=self._loop, **self._options)
        if self._is_closing:
            connection.close_after_answer()
        return connection

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - aiohttp's signature
        """Ends all connections; requests in flight may take `timeout`."""
        await super().shutdown(timeout)
        self._wheel.stop()

    def close_after_answers(self) -> None:
        """Lets every answer from now on be its connection's last."""
        if self._is_closing:
            return
        self._is_closing = True
        for connection in self.connections:
            if isinstance(connection, Connection):
                connection.close_after_answer()

    def close_idle(self) -> bool:
        """Closes connections that wait for nothing that has begun; whether any are left."""
        for connection in self.connections:
            if isinstance(connection, Connection):
                connection.close_if_idle()
        return bool(self.connections)


class Runner(web.AppRunner):
    """aiohttp's runner of an application, with `Connection`s; every answer is stamped.

    Args:
        app: the application that `create_app` made; nothing has started it yet.
        settings: the limits of each connection.
        handler_cancellation: whether a handler is cancelled when its client goes away.
    """

    __slots__ = ("_options",)

    def __init__(
        self,
        app: web.Application,
        settings: ServerSettings,
        *,
        handler_cancellation: bool = False,
    ) -> None:
        super().__init__(
            app,
            # aiohttp waits this long twice: for the handler, then for its task.
            shutdown_timeout=settings.shutdown_s / 2,
            handler_cancellation=handler_cancellation,
        )
        app.on_response_prepare.append(stamp_answer)
        self._options: dict[str, Any] = {
            "access_log_class": partial(AccessLogger, requests=app[REQUESTS]),
            "app": app,
            "access_log": logging.getLogger(ACCESS_LOGGER),
            "keepalive_timeout": settings.keepalive_s,
            "limits": time_limits(settings),
            # For the rest of a body that nobody reads; it has a limit of its own, too.
            "lingering_time": min(settings.body_timeout_s, _UNREAD_S),
            "max_line_size": settings.max_header_bytes,
            "max_field_size": settings.max_header_bytes,
            "max_headers": settings.max_header_count,
            "proxies": Proxies(settings.trusted_proxies) if settings.trusted_proxies else None,
        }

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        app = self.app
        # A middleware or a listener of somebody else's has to see every request.
        is_alone = not app.middlewares and len(app.on_response_prepare) == 1
        resource = app[CATALOG].resource if is_alone else None
        return ConnectionServer(server, {**self._options, "resource": resource})

    @property
    def descriptors(self) -> list[int]:
        """Those of the sockets that are listened on."""
        servers = [site._server for site in self.sites]  # it has no public name
        return [each.fileno() for server in servers for each in getattr(server, "sockets", ())]

    @property
    def open_descriptors(self) -> list[int]:
        """Those of the sockets that are listened on, and of all connections."""
        connections = self.server.connections if self.server is not None else []
        wires = [each._wire for each in connections if isinstance(each, Connection)]
        sockets = [each.get_extra_info("socket") for each in wires if each is not None]
        return [*self.descriptors, *(each.fileno() for each in sockets)]

    def close_after_answers(self) -> None:
        """Lets every answer from now on be its connection's last; connections are still taken."""
        if isinstance(self.server, ConnectionServer):
            self.server.close_after_answers()

    def close_idle(self) -> bool:
        """Closes connections that wait for nothing that has begun; whether any are left."""
        return isinstance(self.server, ConnectionServer) and self.server.close_idle()

    async def stop_listening(self) -> None:
        """Closes the listening sockets; connections that have been taken stay."""
        for site in self.sites:
            await site.stop()

    async def cut(self) -> None:
        """Cleans up without waiting: requests still in flight are cancelled."""
        self._shutdown_timeout = _CUT_S
        await self.cleanup()
