"""A field of a resource as it is asked for: a part of JSON Schema, and what a table needs."""

import math
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from petsage.builder.lines import Line200

Kind = Literal[
    "text",
    "integer",
    "number",
    "boolean",
    "enum",
    "date",
    "datetime",
    "uuid",
    "email",
    "uri",
    "object",
    "array",
]
"""What a field is, one word for `type`, `format` and `enum` together."""

LOWEST: Final = -(2**63)
HIGHEST: Final = 2**63 - 1
MAX_COUNT: Final = 1_000_000
"""How many characters or entries may be spoken of."""
MAX_KEY: Final = 600
"""How long what is indexed may be: PostgreSQL's rows of an index hold 2,704 bytes."""

_TEXT: Final = 255
_EMAIL: Final = 254
_URI: Final = 2000
_ITEMS: Final = 100

_OF_FORMATS: Final[dict[str, Kind]] = {
    "date": "date",
    "date-time": "datetime",
    "uuid": "uuid",
    "email": "email",
    "uri": "uri",
}
_OF_TYPES: Final[dict[str, Kind]] = {
    "string": "text",
    "integer": "integer",
    "number": "number",
    "boolean": "boolean",
    "object": "object",
    "array": "array",
}
_INDEXED: Final[frozenset[Kind]] = frozenset({"enum", "date", "datetime", "uuid"})


def _require_number(value: object) -> object:
    """Refuses what is no number, once, where a union would tell of each of its branches."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("it has to be a number")  # noqa: TRY004 - what pydantic takes for an error
    try:
        is_finite = math.isfinite(value)
    except OverflowError:
        is_finite = False
    if not is_finite:
        raise ValueError("it has to be a finite number")
    return value


_Number = Annotated[int | float, BeforeValidator(_require_number)]
_Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]


class FieldSchema(BaseModel):
    """What a field may hold, in JSON Schema's words (2020-12), as far as it can be built."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    type: Literal["string", "integer", "number", "boolean", "object", "array"] = Field(
        "string", description="What kind of value it is."
    )
    description: Line200 | None = Field(
        None, description="What it is, for the API's documentation."
    )
    examples: list[Any] | None = Field(
        None, description="Values as they may be; a field with a `pattern` needs one."
    )
    default: Any = Field(None, description="What it is where it is left out.")
    optional: bool = Field(
        False, description="Whether it may be left out, or null; it is null then."
    )
    enum: list[str] | None = Field(None, description="The only values of a string.")
    format: Literal["date", "date-time", "uuid", "email", "uri"] | None = Field(
        None, description="What a string is."
    )
    pattern: str | None = Field(None, description="A regular expression that a string matches.")
    minLength: _Count | None = Field(None, description="Of a string, in code points.")  # noqa: N815 - JSON Schema's name
    maxLength: _Count | None = Field(None, description="Of a string, in code points.")  # noqa: N815 - JSON Schema's name
    minimum: _Number | None = Field(None, description="Of a number.")
    maximum: _Number | None = Field(None, description="Of a number.")
    exclusiveMinimum: _Number | None = Field(None, description="Of a number.")  # noqa: N815 - JSON Schema's name
    exclusiveMaximum: _Number | None = Field(None, description="Of a number.")  # noqa: N815 - JSON Schema's name
    items: "FieldSchema | None" = Field(None, description="What an array holds.")
    minItems: _Count | None = Field(None, description="Of an array.")  # noqa: N815 - JSON Schema's name
    maxItems: _Count | None = Field(None, description="Of an array.")  # noqa: N815 - JSON Schema's name
    properties: "dict[str, FieldSchema] | None" = Field(
        None, description="What an object holds, by name."
    )
    unique: bool = Field(False, description="Whether no two may have the same value.")
    index: bool | None = Field(
        None,
        description="Whether lists are filtered and sorted by it; where left out, enums, dates, "
        "date-times and uuids are.",
    )

    @property
    def kind(self) -> Kind:
        """What it is, in one word."""
        if self.enum is not None:
            return "enum"
        return _OF_FORMATS[self.format] if self.format is not None else _OF_TYPES[self.type]

    @property
    def is_indexed(self) -> bool:
        """Whether lists are filtered and sorted by it."""
        if self.index is not None:
            return self.index
        return self.unique or self.kind in _INDEXED

    def resolved(self) -> Self:
        """The same with the bounds that a field has where nothing is said, inner fields too."""
        changes: dict[str, Any] = {}
        is_key = self.is_indexed or self.unique
        longest = {"text": _TEXT, "email": _EMAIL, "uri": MAX_KEY if is_key else _URI}.get(
            self.kind
        )
        if longest is not None and self.maxLength is None:
            changes["maxLength"] = max(longest, self.minLength or 0)
        if self.kind == "array" and self.maxItems is None:
            changes["maxItems"] = max(_ITEMS, self.minItems or 0)
        if self.items is not None:
            changes["items"] = self.items.resolved()
        if self.properties is not None:
            inner = self.properties.items()
            changes["properties"] = {name: each.resolved() for name, each in inner}
        return self.model_copy(update=changes)

    @model_serializer(mode="wrap")
    def _without_defaults(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What was said alone: a hundred fields of twenty keywords each are nobody's to read."""
        said: dict[str, Any] = dump(self)
        default = {"optional": False, "unique": False}
        return {
            key: value
            for key, value in said.items()
            if value is not None and (key not in default or value != default[key])
        }
