"""A log record as one line of JSON bytes; no record is lost to its content.

The formatter is python-json-logger's, subclassed to go straight to orjson's bytes. What
orjson cannot take is made plain first: each change is named in the line's own `altered`.

Longer than 300 lines: a line is made of a record or of finished parts, and both are the same line.
"""

import logging
import time
from collections.abc import Iterable
from math import floor
from time import time as now
from typing import Any, Final

import orjson
from pythonjsonlogger.core import RESERVED_ATTRS, BaseJsonFormatter

from petsage.context import RequestContext, current_request
from petsage.logs.cleaning import MASK, MAX_ITEMS, Cleaner, encodable, harmless, text_of
from petsage.logs.tracebacks import exception_lines

# The fields that every line has, and those that a line has where there is something to say.
_ALWAYS: Final = (
    *("timestamp", "level", "logger", "message", "service", "version"),
    *("feature", "request_id", "trace_id", "span_id"),
)
_AT_TIMES: Final = ("exc_info", "stack_info", "altered", "truncated")

# An extra of one of these names would hide the line's own field, or raise KeyError in the caller
# (`Logger.makeRecord`): the line shows it as `extra_<name>`.
OWN_FIELDS: Final = frozenset((*_ALWAYS, *_AT_TIMES))
_NOT_EXTRAS: Final = frozenset(RESERVED_ATTRS) | {"taskName"}
_PLAIN_RECORD_LENGTH: Final = len(logging.makeLogRecord({}).__dict__)

# A cut leaves these whole: they are short, and what a line is looked for by.
_NEVER_CUT: Final = frozenset(
    ("timestamp", "service", "version", "request_id", "trace_id", "span_id")
)

_THREE_DIGITS: Final = tuple(f"{number:03}" for number in range(1000))

# What lines begin with is kept of so many, none of which has a longer message; with one more, all
# are let go.
_MAX_KEPT: Final = 512


class JsonFormatter(BaseJsonFormatter):
    """Formats records as DESIGN's log lines.

    Args:
        service: the `service` of each line.
        version: the `version` of each line.
        redact: a value is masked when its key contains one of these, however it is spelt.
        max_line_bytes: longer lines are cut and marked with `truncated`, their bytes before.

    Attributes:
        kept: what others keep of `plain_fields`, by what they like.
        plain_names: some of the names of which `is_secret` has said that they are not.
    """

    def __init__(
        self, *, service: str, version: str, redact: Iterable[str], max_line_bytes: int
    ) -> None:
        super().__init__()
        self.service = service
        self.version = version
        self._cleaner = Cleaner(redact, max_line_bytes)
        self._max_line_bytes = max_line_bytes
        self._second = self._millisecond = (-1, "")
        self.kept: dict[Any, str] = {}
        self.plain_names: set[str] = set()
        self._openings: dict[tuple[str, str, str | None], str] = {}

    def format(self, record: logging.LogRecord) -> str:
        """The line without its newline, for those who use this as any stdlib formatter."""
        return self.to_line(record)[:-1].decode()

    def to_line(self, record: logging.LogRecord) -> bytes:
        """The record as UTF-8 JSON with a newline at its end. It never raises."""
        try:
            return self._line_of(record)
        except BaseException as error:  # noqa: BLE001 - a record is an open object, anything may be in it
            return self._line_of_broken(record, error)

    def timestamp_of(self, created: float) -> str:
        """`created`, seconds since the epoch, in UTC to the microsecond: "…T12:00:00.000001Z"."""
        moment = created * 1e3
        millisecond = floor(moment)
        # One tuple: of two names, another thread could set the first between our two looks.
        known, text = self._millisecond
        if millisecond != known:
            second, thousandths = divmod(millisecond, 1000)
            known_second, so_far = self._second
            if second != known_second:
                so_far = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
                self._second = second, so_far
            text = so_far + _THREE_DIGITS[thousandths]
            self._millisecond = millisecond, text
        return f"{text}{_THREE_DIGITS[floor((moment - millisecond) * 1e3)]}Z"

    def own_fields(self, timestamp: str, level: str, logger: str, message: str) -> dict[str, Any]:
        """The fields that every line has, in their order; the request's are those in hand."""
        request = current_request()
        feature = request_id = trace_id = span_id = None
        if request is not None:
            feature, request_id = request.feature, request.request_id
            trace_id, span_id = request.trace_id, request.span_id
        return {
            "timestamp": timestamp,
            "level": level,
            "logger": logger,
            "message": message,
            "service": self.service,
            "version": self.version,
            "feature": feature or _feature_of(logger),
            "request_id": request_id,
            "trace_id": trace_id,
            "span_id": span_id,
        }

    def info_line(
        self, logger: str, message: str, extras: dict[str, Any], known: str | None = None
    ) -> bytes:
        """A line at INFO with extras of plain values, under names that are no other field's.

        The same as `dump` makes of `own_fields` and them, for half the price: what one line has
        in common with the next is put together once. `known` is the extras as they end the line,
        where the caller knows that.
        """
        request = current_request()
        if request is not None:
            try:
                opening = self._openings.get((message, logger, request.feature)) or self.opening(
                    logger, request.feature, message
                )
                rest = known or harmless(orjson.dumps(extras))[1:].decode()
            except TypeError:
                pass  # a lone surrogate: made plain below
            else:
                line = self.info_line_of(opening, request, rest, now())
                if line is not None:
                    return line
        timestamp = self.timestamp_of(time.time())
        return self.dump({**self.own_fields(timestamp, "INFO", logger, message), **extras})

    def info_line_of(
        self, opening: str, request: RequestContext, rest: str, created: float
    ) -> bytes | None:
        """A line at INFO of finished parts; None where it is too long.

        Args:
            opening: what `opening` gave.
            request: its ids stand between quotes as they are: `context` made, or looked at, them.
            rest: the extras, harmless JSON from behind the brace that opens it.
            created: in seconds since the epoch.
        """
        line = (
            f'{{"timestamp":"{self.timestamp_of(created)}{opening}{request.request_id}'
            f'","trace_id":"{request.trace_id}","span_id":"{request.span_id}",{rest}\n'
        ).encode()
        return line if len(line) <= self._max_line_bytes else None

    def opening(self, logger: str, feature: str | None, message: str) -> str:
        """What stands in a line at INFO from behind its timestamp to before its request's id.

        Raises:
            TypeError: there is no JSON of the message: it has lone surrogates.
        """
        known = self._openings.get((message, logger, feature))
        return self._opening(logger, feature, message) if known is None else known

    def _opening(self, logger: str, feature: str | None, message: str) -> str:
        fields = {
            "level": "INFO",
            "logger": logger,
            "message": message,
            "service": self.service,
            "version": self.version,
            "feature": feature or _feature_of(logger),
        }
        opening = f'",{harmless(orjson.dumps(fields))[1:-1].decode()},"request_id":"'
        if len(message) <= _MAX_KEPT:  # messages that come from data must not fill memory
            if len(self._openings) >= _MAX_KEPT:
                self._openings.clear()
            self._openings[message, logger, feature] = opening
        return opening

    def plain_fields(self, fields: dict[str, Any]) -> str:
        """Fields of plain values as they stand within a line, those masked that tell of secrets.

        Raises:
            TypeError: there is no JSON of a text: it has lone surrogates.
        """
        shown = {name: MASK if self.is_secret(name) else fields[name] for name in fields}
        return harmless(orjson.dumps(shown))[1:-1].decode()

    def is_secret(self, name: str) -> bool:
        """Whether the value of a field of this name is masked."""
        is_secret = self._cleaner.is_secret(name)
        if not is_secret and len(self.plain_names) < _MAX_KEPT:
            self.plain_names.add(name)
        return is_secret

    def dump(self, fields: dict[str, Any]) -> bytes:
        """`fields` as one line of JSON, made plain where they are not, cut where they are long."""
        try:
            line = orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)
        except TypeError:
            fields = self._made_plain(fields)
            line = orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)
        length = len(line)
        if length <= self._max_line_bytes:
            line = harmless(line)
            if len(line) <= self._max_line_bytes:
                return line
        return self._cut(fields, length)

    def _line_of(self, record: logging.LogRecord) -> bytes:
        altered: list[str] = []
        message = record.msg
        fields = self.own_fields(
            self.timestamp_of(record.created),
            record.levelname,
            record.name,
            "" if isinstance(message, dict) else _message_of(record, altered),
        )
        if len(record.__dict__) > _PLAIN_RECORD_LENGTH:
            self._add_extras(fields, _extras_of(record), altered)
        if isinstance(message, dict):
            self._add_extras(fields, message.items(), altered)
        if record.exc_info:
            lines = exception_lines(record.exc_info)
            if lines:
                fields["exc_info"] = lines
        elif record.exc_text:
            fields["exc_info"] = record.exc_text.splitlines()
        if record.stack_info:
            fields["stack_info"] = record.stack_info.splitlines()
        if altered:
            fields["altered"] = altered
        return self.dump(fields)

    def _line_of_broken(self, record: logging.LogRecord, error: BaseException) -> bytes:
        """What can be said of a record that is none: a name that is no text, a time that is NaN."""
        fields = self.own_fields(
            self.timestamp_of(time.time()),
            text_of(getattr(record, "levelname", None)),
            text_of(getattr(record, "name", None)),
            f"{text_of(getattr(record, 'msg', None))} [not formatted: {type(error).__name__}]",
        )
        return self.dump({**fields, "altered": ["message"]})

    def _add_extras(
        self, fields: dict[str, Any], extras: Iterable[tuple[Any, Any]], altered: list[str]
    ) -> None:
        for count, (key, value) in enumerate(extras):
            if count == MAX_ITEMS:
                altered.append("extras")
                break
            text = key if type(key) is str else text_of(key)
            plain, lossy = self._cleaner.clean(text, value)
            name = _free_name(encodable(text), fields)
            fields[name] = plain
            if lossy:
                altered.append(name)

    def _made_plain(self, fields: dict[str, Any]) -> dict[str, Any]:
        """The last resort: what orjson refused of the line's own fields, replaced one by one."""
        plain: dict[str, Any] = {}
        altered = dict.fromkeys(fields.get("altered", ()))
        for name, value in fields.items():
            try:
                orjson.dumps(value)
                plain[name] = value
            except TypeError:
                whole = isinstance(value, str)  # a long one is cut later, when its length is known
                plain[name] = encodable(value) if whole else self._cleaner.clean(name, value)[0]
                altered[name] = None
        plain["altered"] = list(altered)
        return plain

    def _cut(self, fields: dict[str, Any], length: int) -> bytes:
        """The line within its limit: long texts are shortened, then extras left out."""
        fields["truncated"] = length
        # A character may take 6 bytes as an escape, so what is kept shrinks until it fits.
        for share in (2, 4, 16, 64):
            room = self._max_line_bytes // share
            shortened = {
                name: value if name in _NEVER_CUT else _shortened(value, room)
                for name, value in fields.items()
            }
            line = harmless(orjson.dumps(shortened, option=orjson.OPT_APPEND_NEWLINE))
            if len(line) <= self._max_line_bytes:
                return line
        kept = {name: shortened[name] for name in (*_ALWAYS, "truncated")}
        return harmless(orjson.dumps(kept, option=orjson.OPT_APPEND_NEWLINE))


def _free_name(name: str, taken: Iterable[str]) -> str:
    """The name that an extra gets: its own, or `extra_<name>` where that is a field's already."""
    while name in OWN_FIELDS or name in taken:
        name = f"extra_{name}"
    return name


def _feature_of(logger: str) -> str | None:
    """The feature that a logger belongs to: "features.pets.routes" → "pets"."""
    return logger.split(".", 2)[1] if logger.startswith("features.") else None


def _extras_of(record: logging.LogRecord) -> list[tuple[Any, Any]]:
    """What `extra` put on the record; names with a `_` before them are for code alone."""
    return [
        (key, value)
        for key, value in record.__dict__.items()
        if key not in _NOT_EXTRAS and text_of(key)[:1] != "_"
    ]


def _message_of(record: logging.LogRecord, altered: list[str]) -> str:
    try:
        text = record.getMessage()
    except BaseException as error:  # noqa: BLE001 - whatever a `%` or a __str__ raises
        altered.append("message")
        text = f"{text_of(record.msg)} [not formatted: {type(error).__name__}]"
    # A subclass of str may bring methods of its own.
    return text if type(text) is str else str.__str__(text)


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
