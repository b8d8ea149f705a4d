"""One access line, and one count, for each request, also for those that do not parse.

The line is no LogRecord unless somebody besides the pipeline listens to `petsage.access`; it is
made of parts then, most of which are the same from one request to the next and kept.
"""

import contextlib
import logging
import re
from collections.abc import Mapping
from sys import intern
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
# Stands where lines differ; a path as it is sent has none of these.
_SOME_PATH: Final = "<path>"


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
            formatter = pipeline.formatter
            kept = counted.kept.get((context.route, status, method, context.feature))
            if kept is None or kept[0] is not formatter:
                kept = _keep(counted, formatter, context, method, status)
            _, cell, opening, before, after, end = kept
            who = formatter.kept.get((remote, user_agent, seen))
            if who is None:
                who = _who(formatter, remote, user_agent, seen)
            if opening and who:
                line = formatter.info_line_of(
                    f"{opening}{path}{before}",
                    context,
                    f'{after}{path}{end}"duration_ms":{seconds * 1e3:.3f},"bytes":{size},{who}}}',
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


_Kept = tuple[JsonFormatter, Cell, str, str, str, str]
"""Of lines and counts that differ by their paths alone: whose lines they are, where they are
counted, and what stands before and behind the path in the message and in its own field.

The texts are empty where they cannot be made apart.
"""

_NO_PARTS: Final = ("", "", "", "")


def _keep(
    counted: RequestMetrics,
    formatter: JsonFormatter,
    context: RequestContext,
    method: str,
    status: int,
) -> _Kept:
    """What lines and counts that differ by their paths alone have in common."""
    route, parts = context.route, _NO_PARTS
    if not formatter.is_secret("duration_ms") and not formatter.is_secret("bytes"):
        message = f"{method} {_SOME_PATH} {status}"
        fields = _asked_fields(method, _SOME_PATH, route, status)
        with contextlib.suppress(
            TypeError,  # there is no JSON of a lone surrogate
            ValueError,  # the path is masked, or the route has the same words
        ):
            opening, before = formatter.opening(ACCESS_LOGGER, context.feature, message).split(
                _SOME_PATH
            )
            after, end = f"{formatter.plain_fields(fields)},".split(_SOME_PATH)
            # Most are the same for many routes: those are in the processor's caches, then.
            parts = intern(opening), intern(before), intern(after), end
    kept = formatter, counted.cell(method, route, status), *parts
    # By routes, which come from features; a method may be any word.
    if method in KNOWN_METHODS:
        if len(counted.kept) >= MAX_SERIES:
            counted.kept.clear()
        counted.kept[route, status, method, context.feature] = kept
    return kept


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
