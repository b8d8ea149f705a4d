"""PetSage's log lines, made readable for people: the engine behind `petsage logs`.

Every value in a log may come from a stranger, and a terminal obeys what is printed on it. So
nothing of a line's content reaches the output before `_harmless` (or, for JSON, `_harmless_json`)
has seen it.
"""

import difflib
import json
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, TextIO

LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
SEVERITIES: Final = {name: logging.getLevelNamesMapping()[name] for name in LEVELS}
ALIASES: Final = {"WARN": "WARNING", "FATAL": "CRITICAL"}  # as `logging` has them
ACCESS_LOGGER: Final = "petsage.access"
REQUEST_ID_LENGTH: Final = 8

# Shown in a place of their own, or the same on every line and left to `--json`.
_NOT_EXTRAS: Final = frozenset(
    {"timestamp", "level", "logger", "message", "service", "version", "feature"}
    | {"request_id", "trace_id", "span_id", "exc_info"}
)
_NOT_EXTRAS_OF_ACCESS: Final = _NOT_EXTRAS | {
    *("method", "path", "route", "status", "duration_ms", "bytes", "remote", "user_agent")
}

# C0, DEL and C1; marks, embeddings, overrides and isolates of bidirectional text; line and
# paragraph separators; surrogates, among them the bytes that were no UTF-8 (U+DC80..U+DCFF).
_HARMFUL: Final = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_NOT_ASCII: Final = re.compile(r"[^\x00-\x7f]")
_PLAIN: Final = re.compile(r'[^\s"=\\]+')
_UNNAMED_LEVEL: Final = re.compile(r"LEVEL ([0-9]{1,9})")  # `logging` writes "Level 25"


@dataclass(frozen=True)
class Counts:
    """What became of the lines: each one read counts under exactly one of these."""

    shown: int
    """PetSage's lines that were written."""
    hidden: int
    """PetSage's lines that the filter held back."""
    foreign: int
    """Lines that are no JSON objects, whether written or not."""


@dataclass(frozen=True)
class LineFilter:
    """Which lines to show: those that satisfy everything given here.

    Args:
        level: the name of the least severe level to show, in upper or lower case.
        logger: this logger and those below it.
        request_id: this request alone, its id in full.

    Raises:
        ValueError: `level` is no level's name.
    """

    level: str | None = None
    logger: str | None = None
    request_id: str | None = None

    def __post_init__(self) -> None:
        if self.level is not None and _severity(self.level) is None:
            near = difflib.get_close_matches(self.level.upper(), LEVELS, n=1)
            meant = f" Did you mean {near[0]}?" if near else ""
            raise ValueError(
                f"{self.level!r} is not a log level.{meant} The levels are {', '.join(LEVELS)}."
            )

    def matches(self, line: dict[str, Any]) -> bool:
        """Whether `line`, a log line read as JSON, is one to show.

        A line whose level has no known severity is not among those of "a level or more severe".
        """
        if self.request_id is not None and line.get("request_id") != self.request_id:
            return False
        if self.logger is not None:
            name = line.get("logger")
            below = f"{self.logger}."
            if not isinstance(name, str) or not (name == self.logger or name.startswith(below)):
                return False
        if self.level is not None:
            least, severity = _severity(self.level), _severity(line.get("level"))
            return least is not None and severity is not None and severity >= least
        return True


# A handful of SGR codes (ECMA-48, 8.3.117) instead of `rich`, whose import alone takes 100 ms.
@dataclass(frozen=True)
class _Palette:
    dim: str = ""
    logger: str = ""
    off: str = ""
    levels: Mapping[str, str] = field(default_factory=dict)
    statuses: Mapping[str, str] = field(default_factory=dict)  # by a status's first digit


_RED, _GREEN, _YELLOW, _CYAN = "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[36m"
_COLOURED: Final = _Palette(
    dim="\x1b[2m",
    logger=_CYAN,
    off="\x1b[0m",
    levels={"INFO": _GREEN, "WARNING": _YELLOW, "ERROR": _RED, "CRITICAL": "\x1b[1;31m"},
    statuses={"2": _GREEN, "4": _YELLOW, "5": _RED},
)
_UNCOLOURED: Final = _Palette()


def show_lines(
    source: Iterable[bytes],
    out: TextIO,
    *,
    line_filter: LineFilter,
    colour: bool,
    raw: bool = False,
) -> Counts:
    r"""Writes those lines of `source` that pass the filter, each as soon as it comes.

    Args:
        source: lines, each with or without its newline; a binary file is one such source.
        out: where to; it is flushed after each line.
        line_filter: which lines to write.
        colour: whether to write SGR codes; no other terminal control is ever written.
        raw: write JSON as it came, controls alone turned into JSON's escapes: the same values.

    Lines that are no JSON objects are written as they are, dimmed and made harmless, unless a
    filter is set or `raw` promises JSON to whoever reads on.

    Raises:
        BrokenPipeError: whoever read `out` has gone.
    """
    palette = _COLOURED if colour else _UNCOLOURED
    with_foreign = line_filter == LineFilter() and not raw
    shown = hidden = foreign = 0
    for item in source:
        text = item.decode("utf-8", "surrogateescape").rstrip("\r\n")
        line = parse_line(text)
        if line is None:
            foreign += 1
            if with_foreign:
                # Stack traces of other languages are indented with tabs.
                _write(out, f"{palette.dim}{_harmless(text.expandtabs())}{palette.off}\n")
        elif line_filter.matches(line):
            shown += 1
            _write(out, _harmless_json(text) + "\n" if raw else _render(line, palette))
        else:
            hidden += 1
    return Counts(shown, hidden, foreign)


def _write(out: TextIO, text: str) -> None:
    """Writes and flushes; what `out` cannot encode is written as JSON writes it in ASCII."""
    try:
        out.write(text)
    except UnicodeEncodeError:
        out.write(_NOT_ASCII.sub(lambda found: json.dumps(found[0])[1:-1], text))
    out.flush()


def parse_line(text: str) -> dict[str, Any] | None:
    """The JSON object that `text` is, or None where it is none, or one nested past reading.

    The standard library's reader, since it takes what orjson refuses and a log may hold: lone
    surrogates, NaN, and bytes that are no UTF-8.
    """
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) else None


def _severity(level: object) -> int | None:
    """The number of a level's name, upper or lower case, or None where it has none."""
    if not isinstance(level, str):
        return None
    name = _level_name(level)
    unnamed = _UNNAMED_LEVEL.fullmatch(name)
    return int(unnamed[1]) if unnamed else SEVERITIES.get(name)


def _level_name(level: str) -> str:
    name = level.upper()
    return ALIASES.get(name, name)


def _render(line: dict[str, Any], palette: _Palette) -> str:
    """`line` for people, with its newline: one line, and below it those of its exception."""
    dim, off = palette.dim, palette.off
    logger = line.get("logger")
    is_access = logger == ACCESS_LOGGER and "status" in line
    level = _text(line.get("level", "-"))
    parts = [
        f"{dim}{_time(line.get('timestamp', '-')):<12}{off}",
        f"{palette.levels.get(_level_name(level), dim)}{level:<8}{off}",
        f"{palette.logger}{_text(logger) if logger is not None else '-'}{off}",
        _access(line, palette) if is_access else _text(line.get("message", "")),
    ]
    known = _NOT_EXTRAS_OF_ACCESS if is_access else _NOT_EXTRAS
    parts += [
        f"{dim}{_value(key)}={off}{_value(value)}"
        for key, value in line.items()
        if key not in known
    ]
    request_id = line.get("request_id")
    if request_id is not None:
        short = request_id[:REQUEST_ID_LENGTH] if isinstance(request_id, str) else request_id
        parts.append(f"{dim}{_text(short)}{off}")
    below = [f"    {dim}{_text(entry)}{off}\n" for entry in _exception(line.get("exc_info"))]
    return " ".join(parts) + "\n" + "".join(below)


def _exception(exc_info: object) -> list[object]:
    """The lines of an exception: PetSage writes an array, other programs a text."""
    if isinstance(exc_info, str):
        return [*exc_info.splitlines()]
    if isinstance(exc_info, list):
        return exc_info
    return [] if exc_info is None else [exc_info]


def _access(line: dict[str, Any], palette: _Palette) -> str:
    """A request and its answer: `GET /path 200 1.2 ms`."""
    method, path = _value(line.get("method", "-")), _value(line.get("path", "-"))
    status = _value(line["status"])
    colour = palette.statuses.get(status[:1], "")
    took_ms = line.get("duration_ms", "-")
    took = f"{took_ms:.1f}" if isinstance(took_ms, float) else _value(took_ms)
    return f"{method} {path} {colour}{status}{palette.off} {took} ms"


def _time(timestamp: object) -> str:
    """HH:MM:SS.mmm in UTC, wherever it is read; a timestamp that is none, as it stands."""
    if not isinstance(timestamp, str):
        return _text(timestamp)
    try:
        moment = datetime.fromisoformat(timestamp)
        in_utc = moment.astimezone(UTC) if moment.tzinfo else moment
    except (ValueError, OverflowError):
        return _harmless(timestamp)
    return in_utc.time().isoformat("milliseconds")


def _text(value: object) -> str:
    """A string as it is, anything else as compact JSON; harmless."""
    return _harmless(value) if isinstance(value, str) else _compact(value)


def _value(value: object) -> str:
    """As `_text`, but a string that could be taken for more than one value is quoted."""
    if isinstance(value, str) and _PLAIN.fullmatch(value):
        return _harmless(value)
    return _compact(value)


def _compact(value: object) -> str:
    try:
        written = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        return "(nested too deeply to show here: see --json)"
    return _harmless(written)


def _harmless(text: str) -> str:
    r"""`text` with its controls as JSON writes them (`\u001b`), and stray bytes as `\xff`."""
    # Whatever `_HARMFUL` finds is unprintable, and asking for that is ten times as fast.
    return text if text.isprintable() else _HARMFUL.sub(_escape, text)


def _harmless_json(text: str) -> str:
    """The JSON text `text` without controls, of the same value.

    JSON allows C0 between tokens alone, where a space says the same, and all others within
    strings alone, where an escape does. A byte that was no UTF-8 turns into a text of four.
    """
    if text.isprintable():
        return text
    return _HARMFUL.sub(
        lambda found: " " if found[0] < " " else _escape(found).replace("\\x", "\\\\x"), text
    )


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was no UTF-8: PEP 383
        return f"\\x{code - 0xDC00:02x}"
    return json.dumps(found[0])[1:-1]  # \n, \t, \u001b
