"""A field as it is written: its type, its default and its column."""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, Final
from uuid import UUID

from pydantic import TypeAdapter

from petsage.builder.expressions import Call, Name, call, expression, subscript
from petsage.builder.quoting import raw
from petsage.builder.resource_plan import PlannedField

_TYPES: Final[Mapping[str, str]] = {
    "text": "str",
    "integer": "Integer",
    "number": "Number",
    "boolean": "bool",
    "date": "date",
    "datetime": "DateTime",
    "uuid": "UUID",
    "email": "str",
    "uri": "str",
}
# What looks at a text last.
_CHECKS: Final[Mapping[str, str]] = {"text": "NO_NUL", "email": "EMAIL", "uri": "URI"}
_OF_TEXT: Final = frozenset({"text", "enum", "email", "uri", "uuid"})
_COLUMNS: Final[Mapping[str, str]] = {
    "integer": "BigInteger",
    "number": "Double",
    "boolean": "Boolean",
    "date": "Date",
    "datetime": "UtcDateTime",
    "uuid": "Uuid",
    "object": "Json",
    "array": "Json",
}
_DATETIME: Final = TypeAdapter(datetime)


def may_be_null(field: PlannedField) -> bool:
    """Whether a caller may say null."""
    return field.schema.optional


def may_be_left_out(field: PlannedField) -> bool:
    """Whether a caller may leave it out."""
    return field.schema.optional or field.schema.default is not None


# Its type


def alias(field: PlannedField) -> str:
    """The line that gives its type a name."""
    constraints = call("Field", **dict(_constraints(field)))
    checks = [Name(_CHECKS[field.kind])] if field.kind in _CHECKS else []
    annotated = subscript("Annotated", _plain_type(field), constraints, *checks)
    return expression(annotated, lead=f"{field.alias} = ")


def _plain_type(field: PlannedField) -> Any:
    match field.kind:
        case "enum":
            return subscript("Literal", *(field.schema.enum or ()))
        case "object":
            return Name(field.class_name or "")
        case "array" if field.item is not None:
            return subscript("list", Name(field.item.alias))
    return Name(_TYPES[field.kind])


def _constraints(field: PlannedField) -> Iterator[tuple[str, Any]]:
    schema = field.schema
    is_array = field.kind == "array"
    asked = {
        "min_length": schema.minItems if is_array else schema.minLength,
        "max_length": schema.maxItems if is_array else schema.maxLength,
        "pattern": Name(raw(schema.pattern)) if schema.pattern is not None else None,
        "ge": schema.minimum,
        "gt": schema.exclusiveMinimum,
        "le": schema.maximum,
        "lt": schema.exclusiveMaximum,
        "description": schema.description,
    }
    yield from ((name, value) for name, value in asked.items() if value is not None)
    yield "examples", schema.examples or [field.example]


def in_model(field: PlannedField, beside: Sequence[PlannedField] = ()) -> str:
    """Its line in a model.

    Args:
        field: what the line is of.
        beside: all fields of the model.
    """
    null = " | None" if may_be_null(field) else ""
    if not may_be_left_out(field):
        return f"{field.name}: {field.alias}"
    is_apart = field in set_apart(beside)
    value = Name(_default_name(field)) if is_apart else value_of(field, field.schema.default)
    return expression(value, lead=f"{field.name}: {field.alias}{null} = ", indent=4)


def set_apart(fields: Sequence[PlannedField]) -> list[PlannedField]:
    """Those whose default cannot be written in the model, where a field hides a class."""
    hidden = {each.name for each in fields} & {"date", "datetime"}
    return [
        each
        for each in fields
        if any(f"{name}(" in expression(value_of(each, each.schema.default)) for name in hidden)
        and each.kind not in _OF_TEXT
    ]


def default_apart(field: PlannedField) -> str:
    """The line that gives a default its name, above the model."""
    return expression(value_of(field, field.schema.default), lead=f"{_default_name(field)} = ")


def _default_name(field: PlannedField) -> str:
    return f"{constant_name(field.alias)}_DEFAULT"


def constant_name(name: str) -> str:
    """The name of a type as that of a constant: "WEIGHT_KG"."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).upper()


def in_update(field: PlannedField) -> str:
    """Its line among the changes: null takes away what may be left out."""
    kind = f"{field.class_name}Update" if field.kind == "object" else field.alias
    return f"{field.name}: {kind}{' | None' if may_be_left_out(field) else ''}"


def value_of(field: PlannedField, value: Any) -> Any:
    """A value as the expression that a model has, from a JSON value."""
    match field.kind, value:
        case _, None:
            return None
        case "number", _:
            return float(value)
        case "date", _:
            day = date.fromisoformat(value)
            return call("date", day.year, day.month, day.day)
        case "datetime", _:
            return _datetime(_DATETIME.validate_python(value).astimezone(UTC))
        case "uuid", _:
            return call("UUID", value)
        case "array", _ if field.item is not None:
            return [value_of(field.item, each) for each in value]
    return value


def _datetime(moment: datetime) -> Call:
    parts = [moment.year, moment.month, moment.day, moment.hour, moment.minute]
    if moment.second or moment.microsecond:
        parts += [moment.second]
    if moment.microsecond:
        parts += [moment.microsecond]
    return call("datetime", *parts, tzinfo=Name("UTC"))


def answered(field: PlannedField, value: Any) -> Any:
    """A JSON value as it is answered, which it is in another spelling where it was sent so."""
    match field.kind, value:
        case _, None:
            return None
        case "number", _:
            return float(value)
        case "datetime", _:
            moment = _DATETIME.validate_python(value).astimezone(UTC)
            return moment.isoformat().replace("+00:00", "Z")
        case "uuid", _:
            return str(UUID(value))
        case "array", _ if field.item is not None:
            return [answered(field.item, each) for each in value]
        case "object", _:
            return {each.name: answered(each, _inner(each, value)) for each in field.fields}
    return value


def _inner(field: PlannedField, value: Mapping[str, Any]) -> Any:
    return value.get(field.name, field.schema.default)


# Its column


def column(field: PlannedField) -> str:
    """Its column in a table."""
    null = "" if may_be_null(field) else ", nullable=False"
    return f'Column("{field.name}", {kind_of_column(field)}{null})'


def kind_of_column(field: PlannedField) -> str:
    """The type of its column."""
    kind = _COLUMNS.get(field.kind, "Text")
    if kind == "Text" and field.kind != "enum" and field.schema.maxLength is not None:
        kind = f"Text({field.schema.maxLength})"
    return kind
