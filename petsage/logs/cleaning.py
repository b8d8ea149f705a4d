"""Any value as one that JSON has: bounded in depth, items and length, its secrets masked."""

import math
import re
from collections.abc import Iterable, Mapping
from datetime import date, datetime, time
from typing import Any, Final
from uuid import UUID

import orjson
from pydantic import BaseModel

MASK: Final = "***"
MAX_ITEMS: Final = 1_000

_MAX_DEPTH: Final = 12
_TAKEN_BY_ORJSON: Final = frozenset((datetime, date, time, UUID))
_NOT_ALNUM: Final = re.compile(r"[\W_]+")

# orjson escapes below U+0020; a terminal also obeys DEL and the C1 controls (U+0080 to U+009F).
_C1_CONTROL: Final = re.compile(rb"\xc2[\x80-\x9f]")
_C1_ESCAPES: Final = tuple((chr(code).encode(), b"\\u%04x" % code) for code in range(0x80, 0xA0))


class Cleaner:
    """Makes values plain.

    Args:
        redact: a value is masked when its key contains one of these, however that is spelt:
            `api_key` stands for `X-API-Key`, `apiKey` and `API KEY` too.
        max_text: how many characters one field may take.
    """

    def __init__(self, redact: Iterable[str], max_text: int) -> None:
        words = [re.escape(word) for word in map(_folded, redact) if word]
        self._secret = re.compile("|".join(words)) if words else None
        self._max_text = max_text
        self._known_names: dict[str, bool] = {}

    def clean(self, name: str, value: Any) -> tuple[Any, bool]:
        """The value under `name` as JSON has it, and whether it lost something; never raises.

        A masked value has lost nothing that should be there.
        """
        if self.is_secret(name):
            return MASK, False
        kind = type(value)
        if (
            value is None
            or kind is bool
            or (kind is str and len(value) <= self._max_text and value.isascii())
        ):
            return value, False
        walk = _Walk(self._max_text)
        try:
            return self._plain(value, 0, walk), walk.altered
        except BaseException as error:  # noqa: BLE001 - whatever a property or an iterator raises
            return f"[not logged: {type(error).__name__}]", True

    def is_secret(self, name: str) -> bool:
        """Whether a key tells of a secret."""
        known = self._known_names.get(name)
        if known is None:
            known = self._secret is not None and self._secret.search(_folded(name)) is not None
            # Names come from code, mostly; those that come from data must not fill memory.
            if len(self._known_names) < MAX_ITEMS and len(name) < 100:
                self._known_names[name] = known
        return known

    def _plain(self, value: Any, depth: int, walk: "_Walk") -> Any:
        kind = type(value)
        if value is None or kind is bool:
            return value
        # A subclass may bring methods of its own that raise: those of `str`, `int` do not.
        if isinstance(value, str):
            return walk.text(value if kind is str else str.__str__(value))
        if isinstance(value, int):
            number = int.__index__(value)
            return number if -(2**63) <= number < 2**64 else walk.changed(text_of(number))
        if isinstance(value, float):
            real = float.__float__(value)
            return real if math.isfinite(real) else walk.changed(repr(real))
        if isinstance(value, bytes | bytearray):
            return walk.text(bytes(value[: self._max_text + 1]).decode("utf-8", "backslashreplace"))
        if kind in _TAKEN_BY_ORJSON:
            return self._taken_by_orjson(value, walk)
        if isinstance(value, list | tuple | set | frozenset) and not hasattr(value, "_asdict"):
            return self._plain_items(value, depth, walk)
        members = _members_of(value)
        if members is not None:
            return self._plain_members(value, members, depth, walk)
        return walk.text_of(value)

    def _names_secret(self, name: Any) -> bool:
        if type(name) is bytes:
            name = name[:100].decode("latin-1")
        return isinstance(name, str) and self.is_secret(name)

    def _taken_by_orjson(self, value: Any, walk: "_Walk") -> Any:
        try:
            orjson.dumps(value)
        except TypeError:  # a time zone that it does not know
            return walk.text_of(value)
        return value

    def _plain_members(
        self, value: Any, members: Iterable[tuple[Any, Any]], depth: int, walk: "_Walk"
    ) -> Any:
        if not walk.enter(value, depth):
            return walk.why_not(depth)
        plain: dict[str, Any] = {}
        for key, each in members:
            if not walk.take():
                break
            if isinstance(key, str):
                name = walk.text(key if type(key) is str else str.__str__(key))
            else:
                name = walk.changed(walk.text_of(key))
            if name in plain:
                walk.altered = True  # a tuple and its text, the values of one header
            plain[name] = MASK if self.is_secret(name) else self._plain(each, depth + 1, walk)
        walk.leave(value)
        return plain

    def _plain_items(self, value: Iterable[Any], depth: int, walk: "_Walk") -> Any:
        if not walk.enter(value, depth):
            return walk.why_not(depth)
        plain: list[Any] = []
        for each in value:
            if not walk.take():
                break
            plain.append(self._plain(each, depth + 1, walk))
        if type(value) is tuple and len(value) == 2 and self._names_secret(value[0]):
            plain[1:] = [MASK]  # a header, as `items()` and `raw_headers` have it
        walk.leave(value)
        return plain


class _Walk:
    """One walk through a value: what it is inside of, and how much more it may take."""

    __slots__ = ("_inside", "_items_left", "_text_left", "altered")

    def __init__(self, max_text: int) -> None:
        self.altered = False
        self._inside: set[int] = set()
        self._items_left = MAX_ITEMS
        self._text_left = max_text

    def enter(self, container: Any, depth: int) -> bool:
        if depth >= _MAX_DEPTH or id(container) in self._inside:
            self.altered = True
            return False
        self._inside.add(id(container))
        return True

    def why_not(self, depth: int) -> str:
        return "[too deep]" if depth >= _MAX_DEPTH else "[circular]"

    def leave(self, container: Any) -> None:
        self._inside.discard(id(container))

    def take(self) -> bool:
        self._items_left -= 1
        if self._items_left < 0:
            self.altered = True
        return self._items_left >= 0

    def changed(self, value: Any) -> Any:
        self.altered = True
        return value

    def text(self, text: str) -> str:
        if len(text) > self._text_left:
            self.altered = True
            text = text[: self._text_left]
        self._text_left -= len(text)
        plain = encodable(text)
        if plain is not text:
            self.altered = True
        return plain

    def text_of(self, value: Any) -> str:
        try:
            text = str(value)
        except Exception:  # noqa: BLE001 - `text_of` says what it raised
            self.altered = True
            text = text_of(value)
        return self.text(text if type(text) is str else str.__str__(text))


def _members_of(value: Any) -> Iterable[tuple[Any, Any]] | None:
    """What a value has by name, None where it has nothing so: secrets are known by their names."""
    if isinstance(value, Mapping):
        return value.items()
    if isinstance(value, BaseModel):
        return iter(value)
    if isinstance(value, tuple):
        return value._asdict().items()  # type: ignore[attr-defined,no-any-return] # a named one
    names = getattr(type(value), "__dataclass_fields__", None)
    return None if names is None else ((name, getattr(value, name)) for name in names)


def _folded(name: str) -> str:
    """A key without what its spelling adds: "X-Api_Key" → "xapikey"."""
    return _NOT_ALNUM.sub("", name.casefold())


def text_of(value: Any) -> str:
    """`str(value)`, or what can be said of a value whose `__str__` raises."""
    try:
        if type(value) is int and abs(value) >= 2**64:
            return hex(value)  # str() refuses more than 4,300 digits
        text = str(value)
        return text if type(text) is str else str.__str__(text)
    except BaseException as error:  # noqa: BLE001 - somebody else's __str__
        return f"<{type(value).__name__}, whose text cannot be had: {type(error).__name__}>"


def encodable(text: str) -> str:
    """`text` itself, or, where it has lone surrogates, with these as escapes."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return text.encode("utf-8", "backslashreplace").decode()
    return text


def harmless(line: bytes) -> bytes:
    """The line with the controls that terminals obey as escapes."""
    # By number: of `bytes in bytes`, CPython 3.11 and 3.12 first try whether it is one, by raising.
    if 0x7F in line:
        line = line.replace(b"\x7f", b"\\u007f")
    if 0xC2 in line and _C1_CONTROL.search(line):
        for control, escape in _C1_ESCAPES:
            line = line.replace(control, escape)
    return line
