"""aiohttp's `RequestHandler`, subclassed once: what does not parse is answered as a problem."""

import logging
from http import HTTPStatus
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from petsage.context import current_request
from petsage.errors import Problem
from petsage.logs.access import ACCESS_LOGGER, AccessLogger
from petsage.routing import begin, problem_response, stamp
from petsage.settings import ServerSettings

_log = logging.getLogger(__name__)


class Connection(RequestHandler):
    """One connection from a client."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what cannot be parsed, or failed outside of every handler.

        Nothing of the request is echoed; the connection is closed after it.

        Raises:
            ConnectionError: an answer has begun already.
        """
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun, and cannot be followed by another")
        context = current_request() or begin(request)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            _log.error("Unhandled exception outside of a handler", exc_info=exc)
            detail = "The server failed; its log tells more under this request id"
        else:
            detail = "The request is not well-formed HTTP"
        response = problem_response(Problem(status, detail), context)
        stamp(response, context)
        response.force_close()
        return response


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
    """aiohttp's runner of an application, with `Connection`s.

    Args:
        app: the application.
        settings: the limits of each connection.
        handler_cancellation: whether a handler is cancelled when its client goes away.
    """

    def __init__(
        self,
        app: web.Application,
        settings: ServerSettings,
        *,
        handler_cancellation: bool = False,
    ) -> None:
        super().__init__(
            app,
            shutdown_timeout=settings.shutdown_s,
            handler_cancellation=handler_cancellation,
        )
        self._options: dict[str, Any] = {
            "access_log_class": AccessLogger,
            "access_log": logging.getLogger(ACCESS_LOGGER),
            "keepalive_timeout": settings.keepalive_s,
            "max_line_size": settings.max_header_bytes,
            "max_field_size": settings.max_header_bytes,
            "max_headers": settings.max_header_count,
        }

    __slots__ = ("_options",)

    async def _make_server(self) -> web.Server:
        return ConnectionServer(await super()._make_server(), self._options)
