"""aiohttp's `RequestHandler`, subclassed once: what does not parse is answered as a problem."""

import logging
from functools import partial
from http import HTTPStatus
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestHandler, _ErrInfo

from petsage.answers import begin, fail, must_pass, problem_response, stamp, stamp_answer
from petsage.context import current_request
from petsage.errors import Problem
from petsage.logs.access import ACCESS_LOGGER, AccessLogger
from petsage.metrics import REQUESTS
from petsage.settings import ServerSettings

_BODY_ERRORS = (web.RequestPayloadError, HttpProcessingError, ConnectionError)


class Connection(RequestHandler):
    """One connection from a client."""

    __slots__ = ("_body",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._body: StreamReader = EMPTY_PAYLOAD

    def data_received(self, data: bytes) -> None:
        """Parses what came; a body that breaks is told to whoever reads it.

        aiohttp would queue the error as a request behind this one, and its handler would wait for
        a body that never ends. Its queue is no public part of it; a test holds us to this.
        """
        super().data_received(data)
        if not self._messages:
            return
        message, body = self._messages[-1]
        if not isinstance(message, _ErrInfo):
            self._body = body
        elif not self._body.is_eof():
            self._messages.pop()
            if self._body.exception() is None:
                self._body.set_exception(web.RequestPayloadError("it is not well-formed"))

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
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            response = fail(request, exc or TimeoutError("outside of every handler"))
        else:
            response = problem_response(
                Problem(status, "The request is not well-formed HTTP"), context
            )
        if not response.prepared:
            # What aiohttp could not parse comes to no application, whose signal would stamp it.
            stamp(response, context)
        response.force_close()
        return response

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Sends an answer and writes its access line; whether the client went away meanwhile.

        An answer that cannot be sent, because of a header that is none or a body that raises, is
        a failure like any other of a handler.
        """
        try:
            return await super().finish_response(request, resp, start_time)
        except BaseException as error:
            if must_pass(error):
                raise
            resp = fail(request, error)
            if not resp.prepared:
                return await super().finish_response(request, resp, start_time)
            self.log_access(request, resp, start_time)
            return resp, True

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Logs what aiohttp could not handle, but no traceback of a body that nobody read."""
        if isinstance(kw.get("exc_info"), _BODY_ERRORS):
            self.logger.debug("The rest of a body could not be read: %r", kw["exc_info"])
        else:
            super().log_exception(*args, **kw)


class ConnectionServer(web.Server):
    """aiohttp's server, making `Connection`s.

    Args:
        server: the one that aiohttp made of an application.
        options: the keyword arguments of each `Connection`.
    """

    def __init__(self, server: web.Server, options: dict[str, Any]) -> None:
        super().__init__(
            server.request_handler,
            request_factory=server.request_factory,
            handler_cancellation=server.handler_cancellation,
        )
        self._options = options

    def __call__(self) -> RequestHandler:
        """A connection, about to begin."""
        return Connection(self, loop=self._loop, **self._options)


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
            "access_log": logging.getLogger(ACCESS_LOGGER),
            "keepalive_timeout": settings.keepalive_s,
            "max_line_size": settings.max_header_bytes,
            "max_field_size": settings.max_header_bytes,
            "max_headers": settings.max_header_count,
        }

    async def _make_server(self) -> web.Server:
        return ConnectionServer(await super()._make_server(), self._options)
