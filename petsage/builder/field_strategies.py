"""What tests send for a field: the strategies of hypothesis that they draw it from."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from petsage.builder.expressions import Call, Either, Name, Spread, call, expression
from petsage.builder.field_code import constant_name, may_be_left_out, may_be_null
from petsage.builder.resource_plan import PlannedField

_INTEGERS: Final = (-(2**63), 2**63 - 1)
# So long a text, and so many things, are enough for a test.
_LONG: Final = 50
_MANY: Final = 4


def strategy(field: PlannedField) -> Any:
    """The expression of a hypothesis strategy for what it may hold, as it is answered, too."""
    values = _values(field)
    return Either("st.none()", values) if may_be_null(field) else values


def _values(field: PlannedField) -> Any:
    schema = field.schema
    match field.kind:
        case "text" if schema.pattern is None:
            sizes = _sizes(schema.minLength, schema.maxLength, _LONG)
            return call("st.text", Name("TEXT"), **sizes)
        case "text" | "email" | "uri":
            return call("st.sampled_from", schema.examples or [field.example])
        case "enum":
            return call("st.sampled_from", schema.enum)
        case "integer":
            return call("st.integers", *_bounds_of_integers(field))
        case "number":
            return _floats(field)
        case "boolean":
            return call("st.booleans")
        case "date":
            return Name("st.dates().map(str)")
        case "datetime":
            return Name("MOMENTS")
        case "uuid":
            return Name("st.uuids().map(str)")
        case "array" if field.item is not None:
            sizes = _sizes(schema.minItems, schema.maxItems, _MANY)
            return call("st.lists", strategy(field.item), **sizes)
    return call("st.fixed_dictionaries", Name(strategies_name(field)))


def strategies_name(field: PlannedField) -> str:
    """The constant that has the strategies of what an object holds."""
    return f"{constant_name(field.alias)}_FIELDS"


def changes(field: PlannedField) -> Any:
    """The strategy of what a merge patch may have for a field; None where it is `strategy`'s."""
    if field.kind == "object":
        partial = call("st.fixed_dictionaries", {}, optional=Name(strategies_name(field)))
        return Either("st.none()", partial) if may_be_left_out(field) else partial
    if may_be_left_out(field) and not may_be_null(field):
        return Name(f'st.none() | FIELDS["{field.name}"]')
    return None


def objects_in(fields: Iterable[PlannedField]) -> Iterator[PlannedField]:
    """Every object among fields and in them, those first that others hold."""
    for field in fields:
        yield from objects_in((*field.fields, *((field.item,) if field.item is not None else ())))
        if field.kind == "object":
            yield field


def strategies_in(fields: Sequence[PlannedField]) -> str:
    """The constants that have the strategies of fields, and of the objects in them."""
    named = [(strategies_name(each), each.fields) for each in objects_in(fields)]
    return "\n".join(
        expression({each.name: strategy(each) for each in held}, lead=f"{name} = ")
        for name, held in (*named, ("FIELDS", fields))
    )


def changes_of(fields: Sequence[PlannedField]) -> Any:
    """The strategies of what a merge patch may have, by the names of the fields."""
    other = {each.name: changes(each) for each in fields}
    return Spread("FIELDS", {name: each for name, each in other.items() if each is not None})


def _sizes(least: int | None, most: int | None, usual: int) -> dict[str, int]:
    """How long what is tried may be: as it is asked for, and without need no longer than usual."""
    longest = max(usual, least or 0)
    if most is not None:
        longest = min(longest, most)
    return {**({"min_size": least} if least else {}), "max_size": longest}


def _bounds_of_integers(field: PlannedField) -> tuple[Any, Any]:
    schema = field.schema
    low = [_INTEGERS[0], *([schema.minimum] if schema.minimum is not None else [])]
    high = [_INTEGERS[1], *([schema.maximum] if schema.maximum is not None else [])]
    if schema.exclusiveMinimum is not None:
        low.append(schema.exclusiveMinimum + 1)
    if schema.exclusiveMaximum is not None:
        high.append(schema.exclusiveMaximum - 1)
    least, most = max(low), min(high)
    return (
        Name("-(2**63)") if least == _INTEGERS[0] else int(least),
        Name("2**63 - 1") if most == _INTEGERS[1] else int(most),
    )


def _floats(field: PlannedField) -> Call:
    schema = field.schema
    bounds: dict[str, Any] = {}
    low = [each for each in (schema.minimum, schema.exclusiveMinimum) if each is not None]
    high = [each for each in (schema.maximum, schema.exclusiveMaximum) if each is not None]
    if low:
        bounds["min_value"] = max(low)
        if schema.exclusiveMinimum == max(low):
            bounds["exclude_min"] = True
    if high:
        bounds["max_value"] = min(high)
        if schema.exclusiveMaximum == min(high):
            bounds["exclude_max"] = True
    return call("st.floats", **bounds, allow_nan=False, allow_infinity=False)
