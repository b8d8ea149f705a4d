"""One access line for each request, also for those that do not parse.

The line is no LogRecord unless somebody besides the pipeline listens to `petsage.access`.
"""

import logging
import time
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

ACCESS_LOGGER: Final = "petsage.access"

_MAX_TEXT: Final = 2048


class AccessLogger(AbstractAccessLogger):
    """aiohttp's access logger: called once a request, when its answer is out."""

    @property
    def enabled(self) -> bool:
        """Whether access lines are wanted at all."""
        return self.logger.isEnabledFor(logging.INFO)

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Writes the line of one request."""
        if not self.logger.isEnabledFor(logging.INFO):
            return
        context = current_request()
        if context is None:
            context = new_request_context()
            set_current_request(context)
        fields = access_fields(request, response, context)
        message = f"{request.method} {fields['path']} {response.status}"
        log_info(self.logger, message, fields)


def access_fields(
    request: web.BaseRequest, response: web.StreamResponse, context: RequestContext
) -> dict[str, Any]:
    """What an access line says besides the fields of every line, in this order."""
    return {
        "method": request.method,
        "path": request.rel_url.raw_path[:_MAX_TEXT],
        "route": context.route,
        "status": response.status,
        "duration_ms": round((time.perf_counter() - context.started) * 1000, 3),
        "bytes": request.writer.output_size,
        "remote": request.remote,
        "user_agent": request.headers.get("User-Agent", "")[:_MAX_TEXT] or None,
    }
