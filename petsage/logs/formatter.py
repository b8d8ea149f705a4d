"""A log record as one line of JSON bytes; no record is lost to its content.

The formatter is python-json-logger's, subclassed to go straight to orjson's bytes. What
orjson cannot take is made plain first: each change is named in the line's own `altered`.
"""

import logging
import math
import re
import time
import traceback
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from datetime import time as clock_time
from types import TracebackType
from typing import Any, Final
from uuid import UUID

import orjson
from pythonjsonlogger.core import RESERVED_ATTRS, BaseJsonFormatter

from petsage.context import current_request

MASK: Final = "***"

# An extra of one of these names would hide the line's own field, or raise KeyError in the caller
# (`Logger.makeRecord`): the line shows it as `extra_<name>`.
OWN_FIELDS: Final = frozenset(
    (
        "timestamp",
        "level",
        "logger",
        "message",
        "service",
        "version",
        "feature",
        "request_id",
        "trace_id",
        "span_id",
        "altered",
        "truncated",
    )
)
_NOT_EXTRAS: Final = frozenset(RESERVED_ATTRS) | {"taskName"}

# Bounds on what one record may cost, whatever was put into it.
_MAX_DEPTH: Final = 12
_MAX_ITEMS: Final = 1_000
_MAX_FRAMES: Final = 60

# orjson escapes below U+0020; a terminal also obeys DEL and the C1 controls (U+0080 to U+009F).
_TERMINAL_CONTROLS: Final = re.compile(rb"\x7f|\xc2[\x80-\x9f]")

_Exception = tuple[type[BaseException], BaseException, TracebackType | None]


class JsonFormatter(BaseJsonFormatter):
    """Formats records as DESIGN's log lines.

    Args:
        service: the `service` of each line.
        version: the `version` of each line.
        redact: a value is masked when its key contains one of these, in any case.
        max_line_bytes: longer lines are cut and marked with `truncated`, their first length.
    """

    def __init__(
        self, *, service: str, version: str, redact: Iterable[str], max_line_bytes: int
    ) -> None:
        super().__init__()
        self.service = service
        self.version = version
        self._cleaner = _Cleaner(redact, max_line_bytes)
        self._max_line_bytes = max_line_bytes
        self._second = -1
        self._second_text = ""

    def format(self, record: logging.LogRecord) -> str:
        """The line without its newline, for those who use this as any stdlib formatter."""
        return self.to_line(record)[:-1].decode()

    def to_line(self, record: logging.LogRecord) -> bytes:
        """The record as UTF-8 JSON with a newline at its end. It never raises."""
        altered: list[str] = []
        fields = self.own_fields(
            self.timestamp_of(record.created),
            record.levelname,
            record.name,
            self._message(record, altered),
        )
        attributes = record.__dict__
        if len(attributes) > _PLAIN_RECORD_LENGTH:
            for key, value in attributes.items():
                if key not in _NOT_EXTRAS and not (isinstance(key, str) and key[:1] == "_"):
                    self._add_extra(fields, key, value, altered)
        if isinstance(record.msg, dict):
            for key, value in list(record.msg.items())[:_MAX_ITEMS]:
                self._add_extra(fields, key, value, altered)
        if record.exc_info:
            fields["exc_info"] = self._exception_lines(record.exc_info)
        elif record.exc_text:
            fields["exc_info"] = record.exc_text.splitlines()
        if record.stack_info:
            fields["stack_info"] = record.stack_info.splitlines()
        if altered:
            fields["altered"] = altered
        return self.dump(fields)

    def timestamp_of(self, created: float) -> str:
        """`created`, seconds since the epoch, in UTC to the microsecond: "…T12:00:00.000001Z"."""
        second = int(created)
        if second != self._second:
            # Two threads that meet here compute the same text for the same second.
            text = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
            self._second_text, self._second = text, second
            return f"{text}{int((created - second) * 1e6):06d}Z"
        return f"{self._second_text}{int((created - second) * 1e6):06d}Z"

    def own_fields(self, timestamp: str, level: str, logger: str, message: str) -> dict[str, Any]:
        """The fields that every line has, in their order; the request's are those in hand."""
        request = current_request()
        if request is None:
            return {
                "timestamp": timestamp,
                "level": level,
                "logger": logger,
                "message": message,
                "service": self.service,
                "version": self.version,
                "feature": _feature_of(logger),
                "request_id": None,
                "trace_id": None,
                "span_id": None,
            }
        return {
            "timestamp": timestamp,
            "level": level,
            "logger": logger,
            "message": message,
            "service": self.service,
            "version": self.version,
            "feature": request.feature or _feature_of(logger),
            "request_id": request.request_id,
            "trace_id": request.trace_id,
            "span_id": request.span_id,
        }

    def dump(self, fields: dict[str, Any]) -> bytes:
        """`fields` as one line of JSON, made plain where they are not, cut where they are long."""
        try:
            line = orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)
        except TypeError:
            line = orjson.dumps(self._made_plain(fields), option=orjson.OPT_APPEND_NEWLINE)
        if len(line) > self._max_line_bytes:
            line = self._cut(fields, len(line))
        if b"\x7f" in line or b"\xc2" in line:
            line = _TERMINAL_CONTROLS.sub(_escape_control, line)
        return line

    def _message(self, record: logging.LogRecord, altered: list[str]) -> str:
        if isinstance(record.msg, dict):
            return ""
        try:
            text = record.getMessage()
        except Exception as error:  # noqa: BLE001 - whatever a `%` or a __str__ raises
            altered.append("message")
            text = f"{_text_of(record.msg)} [not formatted: {type(error).__name__}]"
        # A subclass of str may bring methods of its own.
        return text if type(text) is str else str.__str__(text)

    def _add_extra(self, fields: dict[str, Any], key: Any, value: Any, altered: list[str]) -> None:
        name = key if type(key) is str else _text_of(key)
        clean = self._cleaner.clean_member(name, value)
        if name in fields or name in OWN_FIELDS:
            name = f"extra_{name}"
        fields[name] = clean.value
        if clean.altered:
            altered.append(name)

    def _made_plain(self, fields: dict[str, Any]) -> dict[str, Any]:
        """The last resort: what orjson refused in spite of all, replaced field by field."""
        plain: dict[str, Any] = {}
        altered = list(fields.get("altered", ()))
        for key, value in fields.items():
            name = _encodable(key)
            if name is not key:
                altered.append(name)
            try:
                orjson.dumps(value)
                plain[name] = value
            except TypeError:
                plain[name] = self._cleaner.clean(value).value
                altered.append(name)
        plain["altered"] = altered
        return plain

    def _cut(self, fields: dict[str, Any], length: int) -> bytes:
        """The line within its limit: long texts are shortened, then extras left out."""
        fields = self._made_plain(fields)
        if not fields["altered"]:
            del fields["altered"]
        fields["truncated"] = length
        # A character may take 6 bytes as an escape, so what is kept shrinks until it fits.
        for share in (2, 4, 16, 64):
            room = self._max_line_bytes // share
            shortened = {key: _shortened(value, room) for key, value in fields.items()}
            line = orjson.dumps(shortened, option=orjson.OPT_APPEND_NEWLINE)
            if len(line) <= self._max_line_bytes:
                return line
        kept = {key: shortened[key] for key in fields if key in OWN_FIELDS - {"altered"}}
        return orjson.dumps(kept, option=orjson.OPT_APPEND_NEWLINE)

    def _exception_lines(self, exc_info: Any) -> list[str]:
        try:
            kind, error, trace = exc_info
            if kind is None:
                return []
            # The frames nearest to the error are the last ones.
            report = traceback.TracebackException(
                kind, error, trace, limit=-_MAX_FRAMES, compact=True
            )
            lines = "".join(report.format()).splitlines()
        except Exception as failure:  # noqa: BLE001 - an exception may break its own traceback
            lines = [f"{_text_of(exc_info)} [no traceback: {type(failure).__name__}]"]
        return [_encodable(line) for line in lines]


_PLAIN_RECORD_LENGTH: Final = len(logging.makeLogRecord({}).__dict__)


class _Clean:
    """A value that orjson takes, and whether it is not what was logged."""

    __slots__ = ("altered", "value")

    def __init__(self, value: Any, altered: bool) -> None:
        self.value = value
        self.altered = altered


class _Cleaner:
    """Makes values plain: bounded in depth, items and length, secrets masked."""

    def __init__(self, redact: Iterable[str], max_text: int) -> None:
        words = [re.escape(word.lower().replace("-", "_")) for word in redact]
        self._secret = re.compile("|".join(words)) if words else None
        self._max_text = max_text
        self._secret_names: dict[str, bool] = {}

    def clean_member(self, name: str, value: Any) -> _Clean:
        """The value under `name`: masked when the name tells of a secret."""
        if self._is_secret(name):
            return _Clean(MASK, altered=False)
        kind = type(value)
        if kind is bool or value is None:
            return _Clean(value, altered=False)
        return self.clean(value)

    def clean(self, value: Any) -> _Clean:
        """The value, plain. It never raises."""
        state = _Walk()
        try:
            plain = self._plain(value, 0, state)
        except Exception as error:  # noqa: BLE001 - whatever a property or an iterator raises
            return _Clean(f"[not logged: {type(error).__name__}]", altered=True)
        return _Clean(plain, state.altered)

    def _is_secret(self, name: str) -> bool:
        known = self._secret_names.get(name)
        if known is None:
            folded = name.lower().replace("-", "_")
            known = self._secret is not None and self._secret.search(folded) is not None
            # Names come from code, mostly; those that come from data must not fill memory.
            if len(self._secret_names) < _MAX_ITEMS and len(name) < 100:
                self._secret_names[name] = known
        return known

    def _plain(self, value: Any, depth: int, walk: "_Walk") -> Any:
        kind = type(value)
        if value is None or kind is bool:
            return value
        if kind is str:
            return self._plain_text(value, walk)
        if kind is int:
            return value if -(2**63) <= value < 2**64 else walk.change(_text_of(value))
        if kind is float:
            return value if math.isfinite(value) else walk.change(repr(value))
        if kind in _SCALARS:
            return self._plain_scalar(value, walk)
        if isinstance(value, Mapping):
            return self._plain_mapping(value, depth, walk)
        if isinstance(value, list | tuple | set | frozenset):
            return self._plain_items(value, depth, walk)
        return self._plain_text(_text_of(value), walk)

    def _plain_text(self, text: str, walk: "_Walk") -> str:
        if len(text) > self._max_text:
            walk.altered = True
            text = text[: self._max_text]
        encodable = _encodable(text)
        if encodable is not text:
            walk.altered = True
        return encodable

    def _plain_scalar(self, value: Any, walk: "_Walk") -> Any:
        try:
            orjson.dumps(value)
        except TypeError:
            return walk.change(_text_of(value))
        return value

    def _plain_mapping(self, value: Mapping[Any, Any], depth: int, walk: "_Walk") -> Any:
        if not walk.enter(value, depth):
            return "[too deep]" if depth >= _MAX_DEPTH else "[circular]"
        plain: dict[str, Any] = {}
        for count, (key, each) in enumerate(value.items()):
            if count >= _MAX_ITEMS or not walk.take():
                walk.altered = True
                break
            name = self._plain_text(key if type(key) is str else _text_of(key), walk)
            if type(key) is not str:
                walk.altered = True
            secret = self._is_secret(name)
            plain[name] = MASK if secret else self._plain(each, depth + 1, walk)
        walk.leave(value)
        return plain

    def _plain_items(self, value: Iterable[Any], depth: int, walk: "_Walk") -> Any:
        if not walk.enter(value, depth):
            return "[too deep]" if depth >= _MAX_DEPTH else "[circular]"
        plain: list[Any] = []
        for count, each in enumerate(value):
            if count >= _MAX_ITEMS or not walk.take():
                walk.altered = True
                break
            plain.append(self._plain(each, depth + 1, walk))
        walk.leave(value)
        return plain


_SCALARS: Final = frozenset((datetime, date, clock_time, UUID))


class _Walk:
    """One walk through a value: what it is inside of, and how much more it may visit."""

    __slots__ = ("_left", "_path", "altered")

    def __init__(self) -> None:
        self.altered = False
        self._path: set[int] = set()
        self._left = _MAX_ITEMS

    def enter(self, container: Any, depth: int) -> bool:
        if depth >= _MAX_DEPTH or id(container) in self._path:
            self.altered = True
            return False
        self._path.add(id(container))
        return True

    def leave(self, container: Any) -> None:
        self._path.discard(id(container))

    def take(self) -> bool:
        self._left -= 1
        return self._left >= 0

    def change(self, value: Any) -> Any:
        self.altered = True
        return value


def _feature_of(logger: str) -> str | None:
    """The feature that a logger belongs to: "features.pets.routes" → "pets"."""
    return logger.split(".", 2)[1] if logger.startswith("features.") else None


def _text_of(value: Any) -> str:
    """`str(value)`, or what can be said of a value whose `__str__` raises."""
    try:
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**64:
            return hex(value)  # str() refuses more than 4,300 digits
        text = str(value)
        return text if type(text) is str else str.__str__(text)
    except Exception as error:  # noqa: BLE001 - somebody else's __str__
        return f"<{type(value).__name__}, whose text cannot be had: {type(error).__name__}>"


def _encodable(text: str) -> str:
    """`text` itself, or, where it has lone surrogates, with these as escapes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


def _shortened(value: Any, room: int) -> Any:
    if isinstance(value, str):
        return value if len(value) <= room else value[:room] + "…"
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        # Of a traceback the first line and the last ones tell most.
        kept = value if len(value) <= 12 else [value[0], "…", *value[-10:]]
        return [_shortened(each, room // 12) for each in kept]
    if isinstance(value, dict | list):
        text = orjson.dumps(value).decode()
        return value if len(text) <= room else text[:room] + "…"
    return value


def _escape_control(match: re.Match[bytes]) -> bytes:
    return b"\\u%04x" % ord(match.group().decode())
