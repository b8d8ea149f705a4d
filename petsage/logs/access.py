"""One access line, and one count, for each request, also for those that do not parse.

The line is no LogRecord unless somebody besides the pipeline listens to `petsage.access`; it is
made of parts then, most of which are the same from one request to the next and kept.
"""

import contextlib
import logging
import re
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
from petsage.logs.formatter import JsonFormatter
from petsage.logs.pipeline import log_info, sole_listener
from petsage.metrics import KNOWN_METHODS, MAX_SERIES, Cell, RequestMetrics, count_in

ACCESS_LOGGER: Final = "petsage.access"

_USER_AGENT: Final = istr("User-Agent")
_MAX_TEXT: Final = 2048
# So many are kept of those who asked; with one more, all are let go. A line of longer texts is
# made whole: what others send must not fill memory.
_MAX_KEPT: Final = 512
# What is the same in JSON, and harmless.
_is_plain: Final = re.compile(r"[ !#-\[\]-~]*").fullmatch
# Stand where lines differ; a path as it is sent, or declared, has none of these.
_SOME_PATH: Final = "<path>"
_SOME_ROUTE: Final = "<route>"


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
            is_cut=getattr(request.protocol, "is_cut", False),
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
        *,
        is_cut: bool = False,
    ) -> None:
        """Counts a request of which this is known, and writes its line.

        Longer than 40 lines: in one piece, since it runs for each request and a call has its price.

        `origin` is what a trusted proxy says of who asked: it has a `scheme` and a `host`.
        An answer that `is_cut` ended before its end, whatever status its head has told.
        """
        seconds = perf_counter() - context.started
        logger, counted = self.logger, self._requests
        if not logger.isEnabledFor(logging.INFO):
            counted.observe(method, context.route, status, seconds)
            return
        user_agent = headers.get(_USER_AGENT, "")
        seen = None if origin is None else (origin.scheme, origin.host)
        pipeline = sole_listener(logger)
        if (
            pipeline is not None
            and not is_cut
            and len(path) + len(user_agent) <= _MAX_KEPT
            and (path == context.route or _is_plain(path))
        ):
            formatter, route = pipeline.formatter, context.route
            kept = counted.kept.get((status, method, context.feature))
            if kept is None or kept[0] is not formatter or (cell := kept[1].get(route)) is None:
                kept, cell = _keep(counted, formatter, context, method, status)
            who = formatter.kept.get((remote, user_agent, seen))
            if who is None:
                who = _who(formatter, remote, user_agent, seen)
            if cell is not None and who:
                _, _, opening, before, after, between, end = kept
                told = "null" if route is None else f'"{route}"'
                line = formatter.info_line_of(
                    f"{opening}{path}{before}",
                    context,
                    f"{after}{path}{between}{told}{end}"
                    f'"duration_ms":{seconds * 1e3:.3f},"bytes":{size},{who}}}',
                )
                if line is not None:
                    count_in(cell, seconds)
                    pipeline.put(logging.INFO, line)
                    return
        counted.observe(method, context.route, status, seconds)
        path = path[:_MAX_TEXT]
        fields = {
            **_asked_fields(method, path, context.route, status),
            "duration_ms": round(seconds * 1e3, 3),
            "bytes": size,
            **_who_fields(remote, user_agent[:_MAX_TEXT], seen),
        }
        if is_cut:
            fields["cut"] = True
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


_Kept = tuple[JsonFormatter, dict[str | None, Cell], str, str, str, str, str]
"""Of requests that differ by their routes and paths alone: whose lines they are, and where those of
each route are counted; what stands before and behind the path in the message, before it in its own
field, between that and the route, and behind the route."""


def _keep(
    counted: RequestMetrics,
    formatter: JsonFormatter,
    context: RequestContext,
    method: str,
    status: int,
) -> tuple[_Kept, Cell | None]:
    """What lines and counts that differ by routes and paths alone have in common.

    And where those of this route are counted; None where its lines cannot be made of parts.
    """
    if counted.kept_cells >= MAX_SERIES:
        counted.forget_kept()
    # By routes, which come from features; a method may be any word.
    may_stay, key, route = method in KNOWN_METHODS, (status, method, context.feature), context.route
    kept: _Kept | None = counted.kept.get(key)
    if kept is None or kept[0] is not formatter:
        kept = formatter, {}, *_parts_of(formatter, context.feature, method, status)
        if may_stay:
            counted.kept[key] = kept
    if not kept[2] or not (route is None or (len(route) <= _MAX_KEPT and _is_plain(route))):
        return kept, None
    cell = counted.cell(method, route, status)
    if may_stay:
        counted.kept_cells += 1
        kept[1][route] = cell
    return kept, cell


def _parts_of(
    formatter: JsonFormatter, feature: str | None, method: str, status: int
) -> tuple[str, str, str, str, str]:
    """The texts of a `_Kept`, all empty where lines cannot be made of parts."""
    fields = _asked_fields(method, _SOME_PATH, _SOME_ROUTE, status)
    with contextlib.suppress(
        TypeError,  # there is no JSON of a lone surrogate
        ValueError,  # a field is masked
    ):
        if not formatter.is_secret("duration_ms") and not formatter.is_secret("bytes"):
            message = f"{method} {_SOME_PATH} {status}"
            opening, before = formatter.opening(ACCESS_LOGGER, feature, message).split(_SOME_PATH)
            after, rest = f"{formatter.plain_fields(fields)},".split(_SOME_PATH)
            between, end = rest.split(f'"{_SOME_ROUTE}"')
            return opening, before, after, between, end
    return "", "", "", "", ""


def _who(
    formatter: JsonFormatter,
    remote: str | None,
    user_agent: str,
    seen: tuple[str | None, str | None] | None,
) -> str:
    """The part of a line that tells who asked; empty where there is no JSON of it."""
    try:
        who = formatter.plain_fields(_who_fields(remote, user_agent, seen))
    except TypeError:  # a lone surrogate
        who = ""
    if len(formatter.kept) >= _MAX_KEPT:
        formatter.kept.clear()
    formatter.kept[remote, user_agent, seen] = who
    return who
