"""One access line, and one count, for each request, also for those that do not parse.

The line is no LogRecord unless somebody besides the pipeline listens to `petsage.access`; it is
made of parts then, most of which are the same from one request to the next and kept, and with those
of other requests that end in the same turn of the loop.

A little over 300 lines: the parts of a line, and what it is made of them, are read together.
"""

import contextlib
import logging
import re
from asyncio import get_running_loop
from collections import deque
from collections.abc import Mapping
from contextvars import Context
from time import perf_counter
from time import time as now
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
from petsage.logs.pipeline import Pipeline, log_info, sole_listener
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
        """Counts a request of which this is known, and writes its line, by the end of this turn.

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
        noted = (context, method, path, status, size, remote, user_agent, seen, seconds, now())
        if (
            not is_cut
            and len(path) + len(user_agent) <= _MAX_KEPT
            and (path == context.route or _is_plain(path))
        ):
            notes: _Notes | None = counted.notes
            if notes is None or not notes.is_due:
                notes = _begin_notes(logger, counted)
            if notes is not None:
                notes.noted.append(noted)
                if not notes.is_due:  # there is no loop, and so no end of a turn
                    notes.write()
                return
        counted.observe(method, context.route, status, seconds)
        _log_whole(logger, noted, is_cut=is_cut)


_Seen = tuple[str | None, str | None]
_Noted = tuple[RequestContext, str, str, int, int, str | None, str, _Seen | None, float, float]
"""A request: its context, method, path, status and size, who asked for it, as what, and how it was
seen from outside, how many seconds it took and when that was."""


class _Notes:
    """Requests of one turn of the loop, which are counted and have their lines made at its end.

    One behind another they take half the time: what it needs is in the processor's caches then.

    Args:
        logger: the access logger.
        pipeline: alone sees its records.
        counted: where requests are counted.

    Attributes:
        noted: the requests.
        is_due: whether the loop comes to them by itself.
    """

    def __init__(self, logger: logging.Logger, pipeline: Pipeline, counted: RequestMetrics) -> None:
        self.logger = logger
        self.pipeline = pipeline
        self.counted = counted
        self.noted: deque[_Noted] = deque()
        self.is_due = False
        pipeline.unwritten.add(self)

    def write_due(self) -> None:
        """Writes what came in a turn that is over."""
        self.is_due = False
        self.write()

    def write(self) -> None:
        """Counts what is noted, and puts its lines; from any thread."""
        lines: list[bytes] = []
        try:
            while True:
                try:
                    noted = self.noted.popleft()
                except IndexError:
                    break
                line = self._line_of(noted)
                if line is not None:
                    lines.append(line)
                    continue
                self.pipeline.put_plain(lines)
                lines = []
                token = set_current_request(noted[0])  # which is over
                try:
                    _log_whole(self.logger, noted)
                finally:
                    token.var.reset(token)
        finally:
            self.pipeline.put_plain(lines)

    def _line_of(self, noted: _Noted) -> bytes | None:
        """Counts a request, and makes its line; None where it cannot be made of parts."""
        context, method, path, status, size, remote, user_agent, seen, seconds, created = noted
        counted, formatter, route = self.counted, self.pipeline.formatter, context.route
        kept = counted.kept.get((status, method, context.feature))
        if kept is None or kept[0] is not formatter or (cell := kept[1].get(route)) is None:
            kept, cell = _keep(counted, formatter, context, method, status)
        count_in(cell, seconds)
        who = formatter.kept.get((remote, user_agent, seen))
        if who is None:
            who = _who(formatter, remote, user_agent, seen)
        _, _, opening, before, after, between, end = kept
        if not opening or not who:
            return None
        told = "null" if route is None else f'"{route}"'
        return formatter.info_line_of(
            f"{opening}{path}{before}",
            context,
            f"{after}{path}{between}{told}{end}"
            f'"duration_ms":{seconds * 1e3:.3f},"bytes":{size},{who}}}',
            created,
        )


def _begin_notes(logger: logging.Logger, counted: RequestMetrics) -> _Notes | None:
    """Where requests are noted until this turn is over; None where others listen to `logger`."""
    pipeline = sole_listener(logger)
    if pipeline is None:
        return None
    notes: _Notes | None = counted.notes
    if notes is None or notes.pipeline is not pipeline or notes.logger is not logger:
        notes = counted.notes = _Notes(logger, pipeline, counted)
    with contextlib.suppress(RuntimeError):
        get_running_loop().call_soon(notes.write_due, context=Context())
        notes.is_due = True
    return notes


def _log_whole(logger: logging.Logger, noted: _Noted, *, is_cut: bool = False) -> None:
    """Logs a request of which nothing is known beforehand."""
    context, method, path, status, size, remote, user_agent, seen, seconds, _ = noted
    path = path[:_MAX_TEXT]
    fields = {
        **_asked_fields(method, path, context.route, status),
        "duration_ms": round(seconds * 1e3, 3),
        "bytes": size,
        **_who_fields(remote, user_agent[:_MAX_TEXT], seen),
    }
    if is_cut:
        fields["cut"] = True
    log_info(logger, f"{method} {path} {status}", fields)


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
field, between that and the route, and behind the route.

The texts are empty where lines cannot be made of parts.
"""

_NO_PARTS: Final = ("", "", "", "", "")


def _keep(
    counted: RequestMetrics,
    formatter: JsonFormatter,
    context: RequestContext,
    method: str,
    status: int,
) -> tuple[_Kept, Cell]:
    """What lines and counts that differ by routes and paths alone have in common.

    And where those of this route are counted.
    """
    if counted.kept_cells >= MAX_SERIES:
        counted.forget_kept()
    route = context.route
    # What lines are made of has to be harmless JSON as it is.
    is_plain = route is None or (len(route) <= _MAX_KEPT and _is_plain(route) is not None)
    # By routes, which come from features; a method may be any word.
    may_stay, key = is_plain and method in KNOWN_METHODS, (status, method, context.feature)
    kept: _Kept | None = counted.kept.get(key)
    if kept is None or kept[0] is not formatter or not is_plain:
        parts = _parts_of(formatter, context.feature, method, status) if is_plain else _NO_PARTS
        kept = formatter, {}, *parts
        if may_stay:
            counted.kept[key] = kept
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
    return _NO_PARTS


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
