"""What is said of input that is wrong: one short entry for each place, and never the value."""

import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import InvalidOperation
from typing import Any, Final, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails, core_schema

from petsage.errors import FieldProblem
from petsage.signature import Parameter

# An answer to wrong input stays short, however large the input was.
_MAX_POINTER: Final = 200
_MAX_DETAIL: Final = 500
# pydantic lists all errors or none; 10,000 take some 10 ms.
_MAX_LISTED: Final = 10_000
# Several of pydantic's errors may be about one place.
_MAX_READ: Final = 200
_MAX_LEAVES: Final = 1_000

BEYOND: Final = (OverflowError, InvalidOperation, RecursionError)
"""What a validator that computes with its input raises where that is too large, and pydantic does
not take for the input's fault."""


def missing(where: str, name: str) -> FieldProblem:
    """The entry for what the request has to have, and has not."""
    pointer = _pointer([name] if name else [])
    return FieldProblem(where=where, pointer=pointer, detail="Field required", type="missing")


def not_unicode(parameter: Parameter) -> FieldProblem:
    """The entry for bytes that are no UTF-8."""
    pointer = _pointer([parameter.name] if parameter.name else [])
    detail = "Input should be UTF-8"
    return FieldProblem(
        where=parameter.where, pointer=pointer, detail=detail, type="string_unicode"
    )


def infinite(where: str, place: Sequence[int | str]) -> FieldProblem:
    """The entry for a number that JSON has not."""
    detail = "Input should be a finite number"
    return FieldProblem(where=where, pointer=_pointer(place), detail=detail, type="finite_number")


def beyond(where: str, name: str) -> FieldProblem:
    """The entry for what cannot be computed with, such as a decimal of a billion digits."""
    pointer = _pointer([name] if name else [])
    detail = "The value is larger than can be computed with"
    return FieldProblem(where=where, pointer=pointer, detail=detail, type="too_large")


def no_date(where: str, place: Sequence[int | str]) -> FieldProblem:
    """The entry for digits where a day or a moment has to be."""
    detail = "Input should be a valid date, or date and time, and not a number"
    return FieldProblem(where=where, pointer=_pointer(place), detail=detail, type="date_parsing")


def untold(error: ValidationError) -> int:
    """How many errors there are that `field_problems` does not look at."""
    count = error.error_count()
    return 0 if count > _MAX_LISTED else max(0, count - _MAX_READ)


def field_problems(where: str, name: str, error: ValidationError, raw: Any) -> list[FieldProblem]:
    """One entry for each wrong place in `raw`; where several types might do, it says them all.

    Args:
        where: the part of the request that it came in.
        name: its name there, empty where it is all of that part.
        error: what pydantic says of it.
        raw: what was validated.
    """
    prefix = [name] if name else []
    if error.error_count() > _MAX_LISTED:
        detail = f"{error.error_count()} values are wrong, which is too many to list"
        pointer = _pointer(prefix)
        return [FieldProblem(where=where, pointer=pointer, detail=detail, type="too_many_errors")]
    found: dict[str, FieldProblem] = {}
    for each in error.errors(include_url=False)[:_MAX_READ]:
        pointer = _pointer([*prefix, *_place_in(raw, each)])
        detail = _detail(each)[:_MAX_DETAIL]
        if pointer in found:
            first = found[pointer]
            if detail not in first.detail and len(first.detail) < _MAX_DETAIL:
                detail = f"{first.detail}; or: {detail}"
                found[pointer] = first.model_copy(update={"detail": detail})
        else:
            found[pointer] = FieldProblem(
                where=where, pointer=pointer, detail=detail, type=each["type"]
            )
    return list(found.values())


def _place_in(raw: Any, error: ErrorDetails) -> Iterator[int | str]:
    """The steps from `raw` to what is wrong.

    pydantic's location also names the members of unions, which the input does not have.
    """
    here, steps = raw, error["loc"]
    for number, step in enumerate(steps, 1):
        if isinstance(here, dict) and str(step) in here:
            here = here[str(step)]
        elif isinstance(here, list) and isinstance(step, int) and step < len(here):
            here = here[step]
        elif not (number == len(steps) and error["type"].startswith("missing")):
            continue
        yield step


def _pointer(steps: Sequence[int | str]) -> str:
    """Steps as a JSON Pointer (RFC 6901), cut where a client's own keys make it long."""
    parts = (str(step).replace("~", "~0").replace("/", "~1") for step in steps)
    text = "".join(f"/{part}" for part in parts)
    return text if len(text) <= _MAX_POINTER else text[:_MAX_POINTER] + "…"


# pydantic's own texts that hold a piece of the input, and what is said instead.
_SILENT: Final[Mapping[str, str]] = {
    "bytes_invalid_encoding": "Data should be valid {encoding}",
    "timezone_offset": "Timezone offset of {tz_expected} required",
    "union_tag_invalid": "The tag {discriminator} does not match any of: {expected_tags}",
    "uuid_parsing": "Input should be a valid UUID",
}
_PYDANTICS: Final = frozenset(get_args(core_schema.ErrorType)) - {"value_error", "assertion_error"}


def _detail(error: ErrorDetails) -> str:
    """What is wrong, without the value.

    A text that a developer wrote is told as it is, unless the input stands in it.
    """
    silent = _SILENT.get(error["type"])
    if silent is not None:
        return silent.format_map(error["ctx"])
    if error["type"] not in _PYDANTICS and _holds(error["msg"].casefold(), error["input"]):
        return "The value is not valid"
    return error["msg"]


def _holds(message: str, value: Any) -> bool:
    """Whether a message holds a value, or a part of one, as a word; when in doubt, it does."""
    for number, leaf in enumerate(_leaves(value)):
        word = str(leaf).strip().casefold()
        if number >= _MAX_LEAVES:
            return True
        # The first half is for speed: a pattern has to be compiled.
        if word and word in message and re.search(rf"(?<!\w){re.escape(word)}(?!\w)", message):
            return True
    return False


def _leaves(value: Any) -> Iterator[Any]:
    """The values in a value; the keys of a mapping are places, and no values."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple | set | frozenset):
        yield value
        return
    for member in value:
        yield from _leaves(member)
