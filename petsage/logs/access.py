"""One access line, and one count, for each request, also for those that do not parse.

The line is no LogRecord unless somebody besides the pipeline listens to `petsage.access`; it is
made of parts then, most of which are the same from one request to the next and kept.
"""

import logging
from collections.abc import Mapping
from functools import lru_cache
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
from petsage.logs.formatter import JsonFormatter
from petsage.logs.pipeline import log_info, sole_listener
from petsage.metrics import RequestMetrics

ACCESS_LOGGER: Final = "petsage.access"

_USER_AGENT: Final = istr("User-Agent")
_MAX_TEXT: Final = 2048
# A line of longer texts is made whole: what others send must not fill memory.
_MAX_KEPT: Final = 512


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
        user_agent = headers.get(_USER_AGENT, "")
        seen = None if origin is None else (origin.scheme, origin.host)
        pipeline = sole_listener(self.logger)
        if pipeline is not None and len(path) + len(user_agent) <= _MAX_KEPT:
            formatter = pipeline.formatter
            asked = _asked(formatter, context.feature, method, path, context.route, status)
            who = _who(formatter, remote, user_agent, seen)
            if asked is not None and who is not None:
                opening, what = asked
                rest = f'{what},"duration_ms":{seconds * 1e3:.3f},"bytes":{size},{who}}}'
                line = formatter.info_line_of(opening, context, rest)
                if line is not None:
                    pipeline.put(logging.INFO, line)
                    return
        path = path[:_MAX_TEXT]
        fields = {
            **_asked_fields(method, path, context.route, status),
            "duration_ms": round(seconds * 1e3, 3),
            "bytes": size,
            **_who_fields(remote, user_agent[:_MAX_TEXT], seen),
        }
        log_info(self.logger, f"{method} {path} {status}", fields)


def _asked_fields(method: str, path: str, route: str | None, status: int) -> dict[str, Any]:
    return {"method": method, "path": path, "route": route, "status": status}


def _who_fields(
    remote: str | None, user_agent: str, seen: tuple[str | None, str | None] | None
) -> dict[str, Any]:
    fields = {"remote": remote, "user_agent": user_agent or None}
    if seen is not None:
        fields["scheme"], fields["host"] = seen
    return fields


@lru_cache(maxsize=512)
def _asked(  # noqa: PLR0917 - what a line is kept by
    formatter: JsonFormatter,
    feature: str | None,
    method: str,
    path: str,
    route: str | None,
    status: int,
) -> tuple[str, str] | None:
    """The two parts of a line that tell what was asked; None where they cannot be made apart."""
    if formatter.is_secret("duration_ms") or formatter.is_secret("bytes"):
        return None
    try:
        return (
            formatter.opening(ACCESS_LOGGER, feature, f"{method} {path} {status}"),
            formatter.plain_fields(_asked_fields(method, path, route, status)),
        )
    except TypeError:  # a lone surrogate
        return None


@lru_cache(maxsize=512)
def _who(
    formatter: JsonFormatter,
    remote: str | None,
    user_agent: str,
    seen: tuple[str | None, str | None] | None,
) -> str | None:
    """The part of a line that tells who asked; None where there is no JSON of it."""
    try:
        return formatter.plain_fields(_who_fields(remote, user_agent, seen))
    except TypeError:  # a lone surrogate
        return None
