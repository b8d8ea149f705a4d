"""Values of a field, as a request gives them: whether the built server would take them."""

import json
import math
import re
from collections.abc import Callable
from datetime import UTC, date
from typing import Annotated, Any, Final, Literal, Required
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from petsage.builder.faults import dotted
from petsage.builder.fields import HIGHEST, LOWEST, FieldSchema

_DEEPEST: Final = 8
"""More than any field may be."""

# Of what the server takes, what every server takes: a part of RFC 5321 and of RFC 3986.
_EMAIL: Final = re.compile(
    r"(?=.{3,254}$)(?=[^@]{1,64}@)[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*@"
    r"(?:(?!..--)[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,63}"
)
_NO_MAIL: Final = frozenset({"arpa", "invalid", "local", "localhost", "onion", "test"})
_MOMENT: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?(?:Z|[+-][0-9]{2}:[0-9]{2})"
)
_PART: Final = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*"
_TAIL: Final = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*"
_URI: Final = re.compile(
    rf"[A-Za-z][A-Za-z0-9+.-]*:(?://[A-Za-z0-9.-]+(?::[0-9]+)?(?:/{_PART})?|(?!//){_PART})"
    rf"(?:\?{_TAIL})?(?:#{_TAIL})?"
)


def look_at(schema: FieldSchema) -> Callable[[Any], str | None]:
    """What says why a field cannot hold a value, as half a sentence; None of one that it can.

    Args:
        schema: resolved.

    The value that is looked at is as JSON or TOML has it, of any depth.
    """
    adapter = adapter_of(schema)

    def flaw_of(value: Any) -> str | None:
        flaw = _flaw_of_json(value, 0)
        if flaw is not None:
            return flaw
        try:
            adapter.validate_json(json.dumps(value), strict=True)
        except ValidationError as error:
            return f"it is no value of it: {_first(error)}"
        return None

    return flaw_of


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    place = f"`{dotted(first['loc'])}`: " if first["loc"] else ""
    message = first["msg"].removeprefix("Value error, ")
    return f"{place}{message[:1].lower()}{message[1:]}"


def _flaw_of_json(value: Any, depth: int) -> str | None:
    """What neither JSON nor TOML nor a line of code could have."""
    match value:
        case bool():
            return None
        case None:
            return "null is left out instead: a table of TOML has none"
        case str():
            return _flaw_of_text(value)
        case int():
            return None if LOWEST <= value <= HIGHEST else "an integer has 64 bits"
        case float():
            return None if math.isfinite(value) else "a number is finite"
        case list() | dict() if depth == _DEEPEST:
            return "it is nested too deeply"
        case list():
            flaws = (_flaw_of_json(each, depth + 1) for each in value)
        case dict():
            flaws = (_flaw_of_json(each, depth + 1) for each in [*value, *value.values()])
        case _:
            return "it has to be text: dates and times stand in quotes"
    return next((each for each in flaws if each is not None), None)


def _flaw_of_text(text: str) -> str | None:
    odd = next((each for each in text if not each.isprintable()), None)
    return None if odd is None else f"U+{ord(odd):04X} cannot stand in a line of text"


def adapter_of(schema: FieldSchema) -> TypeAdapter[Any]:
    """What takes the values that the built server takes, but for emails and URIs of rare forms."""
    return TypeAdapter(_type_of(schema))


def _type_of(schema: FieldSchema) -> Any:
    bounds: dict[str, Any] = {"ge": schema.minimum, "le": schema.maximum}
    bounds |= {"gt": schema.exclusiveMinimum, "lt": schema.exclusiveMaximum}
    match schema.kind:
        case "text":
            text = Field(
                min_length=schema.minLength, max_length=schema.maxLength, pattern=schema.pattern
            )
            return Annotated[str, text]
        case "enum":
            return Literal[tuple(schema.enum or ())]
        case "integer":
            return Annotated[int, Field(ge=LOWEST, le=HIGHEST), Field(**bounds)]
        case "number":
            return Annotated[float, Field(allow_inf_nan=False, **bounds)]
        case "object":
            return _object_type_of(schema)
        case "array":
            sizes = Field(min_length=schema.minItems, max_length=schema.maxItems)
            return Annotated[list[_type_of(schema.items or FieldSchema())], sizes]  # type: ignore[misc] # made of what was asked
        case "email" | "uri":
            check = _require_email if schema.kind == "email" else _require_uri
            return Annotated[str, Field(max_length=schema.maxLength), AfterValidator(check)]
    return _PLAIN[schema.kind]


def _object_type_of(schema: FieldSchema) -> Any:
    members = {}
    for name, each in (schema.properties or {}).items():
        inner = _type_of(each)
        is_required = not each.optional and each.default is None
        members[name] = Required[inner] if is_required else inner
    make: Any = TypedDict  # by a name that mypy does not follow: the members are asked for
    made = make("Object", members, total=False)
    made.__pydantic_config__ = ConfigDict(extra="forbid")
    return made


def _require_email(text: str) -> str:
    if _EMAIL.fullmatch(text) is None or text.rpartition(".")[2].lower() in _NO_MAIL:
        raise ValueError("text should be an email address such as someone@example.com")
    return text


def _require_uri(text: str) -> str:
    if _URI.fullmatch(text) is None:
        raise ValueError("text should be a URI such as https://example.com/")
    return text


def _require_plain_date(text: str) -> str:
    try:
        is_plain = date.fromisoformat(text).isoformat() == text
    except ValueError:
        is_plain = False
    if not is_plain:
        raise ValueError("text should be a date such as 2020-01-31")
    return text


def _require_moment(text: str) -> str:
    try:
        if _MOMENT.fullmatch(text):
            moment = TypeAdapter(AwareDatetime).validate_json(json.dumps(text), strict=True)
            _ = moment.astimezone(UTC)
            return text
    except (ValidationError, OverflowError):
        pass  # told below, in one way
    raise ValueError("text should be a date-time with its zone, such as 2020-01-31T12:00:00Z")


def _require_uuid(text: str) -> str:
    try:
        is_plain = str(UUID(text)) == text
    except ValueError:
        is_plain = False
    if not is_plain:
        raise ValueError(
            "text should be a UUID such as 6f1c1d2e-3b4a-4c5d-8e6f-7a8b9c0d1e2f, in small letters"
        )
    return text


_PLAIN: Final[dict[str, Any]] = {
    "boolean": bool,
    "date": Annotated[str, AfterValidator(_require_plain_date)],
    "datetime": Annotated[str, AfterValidator(_require_moment)],
    "uuid": Annotated[str, AfterValidator(_require_uuid)],
}
