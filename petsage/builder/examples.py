"""Values that a field may have, made from its name and bounds: the same ones each time."""

import json
import math
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from petsage.builder.fields import HIGHEST, LOWEST, FieldSchema
from petsage.builder.values import look_at

_FIXED: Final[dict[str, tuple[Any, ...]]] = {
    "boolean": (True, False),
    "date": ("2020-01-31", "2021-02-28"),
    "datetime": ("2020-01-31T12:00:00Z", "2021-02-28T08:30:00Z"),
    "uuid": ("6f1c1d2e-3b4a-4c5d-8e6f-7a8b9c0d1e2f", "0b9f3c56-1d2e-4f3a-9b4c-5d6e7f8091a2"),
    "email": ("someone@example.com", "another@example.com"),
    "uri": ("https://example.com/", "https://example.org/"),
}


def examples_of(name: str, schema: FieldSchema) -> list[Any]:
    """Two values that a field may have, two different ones where there are two.

    Args:
        name: the field's, which texts are made of.
        schema: resolved, and right.
    """
    found: dict[str, Any] = {}
    flaw_of = look_at(schema)
    for value in candidates(name, schema):
        key = key_of(schema, value)
        if key not in found and flaw_of(value) is None:
            found[key] = value
        if len(found) == 2:
            break
    values = list(found.values())
    return [values[0], values[-1]]


def key_of(schema: FieldSchema, value: Any) -> str:
    """A value as the database tells it from others: 1 and 1.0 are the same number."""
    if schema.kind == "number":
        return repr(float(value) + 0.0)
    return json.dumps(value, sort_keys=True)


def candidates(name: str, schema: FieldSchema) -> Iterator[Any]:
    """Values that a field may well have, those first that were named as examples."""
    yield from schema.examples or ()
    match schema.kind:
        case "text":
            if schema.pattern is None:
                yield from _texts(name, schema)
        case "enum":
            yield from schema.enum or ()
        case "integer":
            yield from _integers(schema)
        case "number":
            yield from _numbers(schema)
        case "array":
            yield from _arrays(name, schema)
        case "object":
            pairs = {key: examples_of(key, each) for key, each in (schema.properties or {}).items()}
            yield from ({key: pair[number] for key, pair in pairs.items()} for number in (0, 1))
        case kind:
            yield from _FIXED[kind]


def _texts(name: str, schema: FieldSchema) -> Iterator[str]:
    # A name that is refused is looked at, too.
    words = " ".join("".join(filter(str.isalnum, part)) for part in name.split("_"))
    for first in ("Some", "Another"):
        text = f"{first} {words}"[: schema.maxLength].rstrip()
        yield text.ljust(schema.minLength or 0, "x")


def _integers(schema: FieldSchema) -> Iterator[int]:
    low, high = _ends(schema)
    least = LOWEST if low is None else math.ceil(low)
    most = HIGHEST if high is None else math.floor(high)
    least += low is not None and schema.minimum is None and least == low
    most -= high is not None and schema.maximum is None and most == high
    yield from (each for each in (1, 2, least, least + 1, most, most - 1) if least <= each <= most)


def _numbers(schema: FieldSchema) -> Iterator[float]:
    low, high = _ends(schema)
    yield from (1.5, 2.5)
    if low is not None:
        yield from (low + 0.5, low + 1.5)
    if high is not None:
        yield from (high - 0.5, high - 1.5)
    if low is not None and high is not None:
        yield from (low / 2 + high / 2, low / 4 * 3 + high / 4)
    for end, other in ((low, math.inf), (high, -math.inf)):
        if end is not None:
            after = math.nextafter(end, other)
            yield from (end, after, math.nextafter(after, other))


def _ends(schema: FieldSchema) -> tuple[float | int | None, float | int | None]:
    low = schema.exclusiveMinimum if schema.minimum is None else schema.minimum
    high = schema.exclusiveMaximum if schema.maximum is None else schema.maximum
    if schema.kind == "integer":
        return low, high
    return None if low is None else float(low), None if high is None else float(high)


def _arrays(name: str, schema: FieldSchema) -> Iterator[list[Any]]:
    inner = schema.items or FieldSchema()
    most = schema.maxItems if schema.maxItems is not None else 1
    count = max(schema.minItems or 0, min(1, most))
    for first, second in (pair := examples_of(name, inner), pair[::-1]):
        yield list(islice([first, second] * (count // 2 + 1), count))
