"""One access line for each request, also for those that do not parse.

The line is no LogRecord unless somebody besides the pipeline listens to `petsage.access`:
that saves a third of a request's time.
"""

import logging
import time
from typing import Final

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger

from petsage.context import (
    RequestContext,
    current_request,
    new_request_context,
    set_current_request,
)
from petsage.logs.pipeline import Pipeline, installed_pipeline

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
        pipeline = installed_pipeline()
        if _is_sole_listener(pipeline, self.logger):
            formatter = pipeline.formatter
            line = formatter.own_fields(
                formatter.timestamp_of(_now()), "INFO", ACCESS_LOGGER, _message(fields)
            )
            line.update(fields)
            pipeline.put(logging.INFO, formatter.dump(line))
        else:
            self.logger.info("%s", _message(fields), extra=fields)


_now = time.time


def access_fields(
    request: web.BaseRequest, response: web.StreamResponse, context: RequestContext
) -> dict[str, object]:
    """What an access line says besides the fields of every line."""
    return {
        "method": request.method,
        "path": request.rel_url.raw_path[:_MAX_TEXT],
        "route": context.route,
        "status": response.status,
        "duration_ms": round((time.perf_counter() - context.started) * 1000, 3),
        "bytes": response.body_length,
        "remote": request.remote,
        "user_agent": request.headers.get("User-Agent", "")[:_MAX_TEXT] or None,
    }


def _message(fields: dict[str, object]) -> str:
    return f"{fields['method']} {fields['path']} {fields['status']}"


def _is_sole_listener(pipeline: Pipeline, logger: logging.Logger) -> bool:
    """Whether nobody but the pipeline would see a record of `logger`: no handler, no filter."""
    if logger.handlers or logger.filters or not logger.propagate:
        return False
    parent = logger.parent
    while parent is not None:
        if parent.handlers and parent.handlers != [pipeline]:
            return False
        parent = parent.parent
    return True
