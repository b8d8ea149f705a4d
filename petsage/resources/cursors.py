"""Where a page ends, as text for whoever asks for the next one."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from hashlib import blake2b
from math import isfinite
from typing import Any, Final
from uuid import UUID

import orjson

from petsage.errors import FieldProblem, Problem, invalid_input

_CHECK_BYTES: Final = 8
_WRONG: Final = "Cursor should be the `next` of a page of the same order and filters"


def wrong_cursor() -> Problem:
    """What a caller is told whose cursor is none, or another list's."""
    wrong = FieldProblem(where="query", pointer="/cursor", detail=_WRONG, type="cursor")
    return invalid_input([wrong])


@dataclass(frozen=True)
class Place:
    """The last row of a page.

    Attributes:
        value: of the column that the list is sorted by; None where it is empty there.
        id: the row's.
    """

    value: Any
    id: int


def write_cursor(place: Place, listing: bytes) -> str:
    """A place as text.

    Args:
        place: where a page ends.
        listing: which list it is of; no other takes it.

    Raises:
        TypeError: the value is of a type that cannot be kept exactly.
    """
    # asyncpg's is a subclass.
    kind = UUID if isinstance(place.value, UUID) else type(place.value)
    if kind not in KINDS:
        raise TypeError(f"a list cannot be sorted by {kind.__name__}; fix: leave it out of `sort`")
    tag, write, _ = KINDS[kind]
    payload = orjson.dumps([tag, write(place.value), place.id])
    return urlsafe_b64encode(_check_of(payload, listing) + payload).rstrip(b"=").decode()


def read_cursor(text: str, listing: bytes) -> Place:
    """The place that a cursor says.

    The check in it tells mistakes, and is no secret: whoever makes one up sees no more than
    without a cursor, so what it holds is looked at as any input.

    Raises:
        Problem: 422, it is none, or another list's.
    """
    try:
        data = text.encode("ascii")
        raw = urlsafe_b64decode(data + b"=" * (-len(data) % 4))
        # Of several spellings of the same bytes one is right.
        if urlsafe_b64encode(raw).rstrip(b"=") != data:
            raise wrong_cursor()
        check, payload = raw[:_CHECK_BYTES], raw[_CHECK_BYTES:]
        if check != _check_of(payload, listing):
            raise wrong_cursor()
        tag, written, number = orjson.loads(payload)
        return Place(_READ[tag](written), _integer(number))
    except (ValueError, TypeError, KeyError, OverflowError, Base64Error):
        raise wrong_cursor() from None


def _check_of(payload: bytes, listing: bytes) -> bytes:
    check = blake2b(listing, digest_size=_CHECK_BYTES)
    check.update(b"\0" + payload)
    return check.digest()


def _same(value: Any) -> Any:
    return value


def _of(kind: type) -> Callable[[Any], Any]:
    def read(written: Any) -> Any:
        if type(written) is not kind:
            raise TypeError
        return written

    return read


def _integer(written: Any) -> int:
    if type(written) is not int or not -(2**63) <= written < 2**63:
        raise TypeError
    return written


def _text(written: Any) -> str:
    if type(written) is not str or "\0" in written:
        raise TypeError
    return written


def _number(written: Any) -> float:
    number = float.fromhex(written)
    if not isfinite(number):
        raise ValueError
    return number


def _uuid(written: Any) -> UUID:
    return UUID(_text(written))


def _moment(written: str) -> datetime:
    moment = datetime.fromisoformat(written)
    if moment.tzinfo is None:
        raise ValueError
    return moment.astimezone(UTC)


# How a value of each type is written, and read again as exactly that value.
KINDS: Final[Mapping[type, tuple[str, Callable[[Any], Any], Callable[[Any], Any]]]] = {
    type(None): ("-", _same, _of(type(None))),
    str: ("s", _same, _text),
    int: ("i", _same, _integer),
    bool: ("b", _same, _of(bool)),
    float: ("f", float.hex, _number),
    date: ("d", date.isoformat, date.fromisoformat),
    datetime: ("t", datetime.isoformat, _moment),
    UUID: ("u", str, _uuid),
}
_READ: Final = {tag: read for tag, _, read in KINDS.values()}
