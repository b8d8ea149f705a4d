"""One access line, and one count, for each request, also for those that do not parse.

The line is no LogRecord unless somebody besides the pipeline listens to `petsage.access`.
"""

import logging
from time import perf_counter
from typing import Any, Final

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger

from petsage.context import (
    RequestContext,
    current_request,
    new_request_context,
    set_current_request,
)
from petsage.logs.pipeline import log_info
from petsage.metrics import RequestMetrics

ACCESS_LOGGER: Final = "petsage.access"

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
        seconds = perf_counter() - context.started
        self._requests.observe(request.method, context.route, response.status, seconds)
        if not self.logger.isEnabledFor(logging.INFO):
            return
        fields = access_fields(request, response, context, seconds)
        message = f"{request.method} {fields['path']} {response.status}"
        log_info(self.logger, message, fields)


def access_fields(
    request: web.BaseRequest,
    response: web.StreamResponse,
    context: RequestContext,
    seconds: float,
) -> dict[str, Any]:
    """What an access line says besides the fields of every line, in this order."""
    return {
        "method": request.method,
        "path": request.rel_url.raw_path[:_MAX_TEXT],
        "route": context.route,
        "status": response.status,
        "duration_ms": round(seconds * 1000, 3),
        "bytes": request.writer.output_size,
        "remote": request.remote,
        "user_agent": request.headers.get("User-Agent", "")[:_MAX_TEXT] or None,
    }
