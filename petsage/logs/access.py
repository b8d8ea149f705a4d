"""One access line, and one count, for each request, also for those that do not parse.

The line is no LogRecord unless somebody besides the pipeline listens to `petsage.access`.
"""

import logging
from collections.abc import Mapping
from time import perf_counter
from typing import Any, Final

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from multidict import istr

from petsage.context import (
    RequestContext,
    current_request,
    new_request_context,
    set_current_request,
)
from petsage.logs.pipeline import log_info
from petsage.metrics import RequestMetrics

ACCESS_LOGGER: Final = "petsage.access"

_USER_AGENT: Final = istr("User-Agent")
_MAX_TEXT: Final = 2048


class AccessLogger(AbstractAccessLogger):
    """aiohttp's access logger: called once a request, when its answer is out.

    Args:
        logger: the logger of the lines.
        log_format: aiohttp's, which is not looked at.
        requests: where requests are counted, whether or not they have lines.
    """

    def __init__(self, logger: logging.Logger, log_format: str, requests: RequestMetrics) -> None:
        super().__init__(logger, log_format)
        self._requests = requests

    @property
    def enabled(self) -> bool:
        """True: aiohttp asks once a connection, and requests are counted whatever the level."""
        return True

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Counts one request, and writes its line."""
        context = current_request()
        if context is None:
            context = new_request_context()
            set_current_request(context)
        self.note(
            context,
            request.method,
            request.rel_url.raw_path,
            response.status,
            request.writer.output_size,
            request.remote,
            request.headers,
            getattr(request.protocol, "origin", None),
        )

    def note(  # noqa: PLR0917 - each is a field of the line, in its order
        self,
        context: RequestContext,
        method: str,
        path: str,
        status: int,
        size: int,
        remote: str | None,
        headers: Mapping[str, str],
        origin: Any = None,
    ) -> None:
        """Counts a request of which this is known, and writes its line.

        `origin` is what a trusted proxy says of who asked: it has a `scheme` and a `host`.
        """
        seconds = perf_counter() - context.started
        self._requests.observe(method, context.route, status, seconds)
        if not self.logger.isEnabledFor(logging.INFO):
            return
        path = path[:_MAX_TEXT]
        fields = {
            "method": method,
            "path": path,
            "route": context.route,
            "status": status,
            "duration_ms": int(seconds * 1e6) / 1e3,
            "bytes": size,
            "remote": remote,
            "user_agent": headers.get(_USER_AGENT, "")[:_MAX_TEXT] or None,
        }
        if origin is not None:
            fields["scheme"], fields["host"] = origin.scheme, origin.host
        log_info(self.logger, f"{method} {path} {status}", fields)
