"""A field of a resource as it is asked for: a part of JSON Schema, and what a table needs."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Scalar = str | int | float | bool


class FieldSchema(BaseModel):
    """What a field may hold, in JSON Schema's words (2020-12), as far as it can be built."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    type: Literal["string", "integer", "number", "boolean", "object", "array"] = Field(
        "string", description="What kind of value it is."
    )
    description: str | None = Field(None, description="What it is, for the API's documentation.")
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
    minLength: int | None = Field(None, description="Of a string, in code points.")  # noqa: N815 - JSON Schema's name
    maxLength: int | None = Field(None, description="Of a string, in code points.")  # noqa: N815 - JSON Schema's name
    minimum: int | float | None = Field(None, description="Of a number.")
    maximum: int | float | None = Field(None, description="Of a number.")
    exclusiveMinimum: int | float | None = Field(None, description="Of a number.")  # noqa: N815 - JSON Schema's name
    exclusiveMaximum: int | float | None = Field(None, description="Of a number.")  # noqa: N815 - JSON Schema's name
    items: "FieldSchema | None" = Field(None, description="What an array holds.")
    minItems: int | None = Field(None, description="Of an array.")  # noqa: N815 - JSON Schema's name
    maxItems: int | None = Field(None, description="Of an array.")  # noqa: N815 - JSON Schema's name
    properties: "dict[str, FieldSchema] | None" = Field(
        None, description="What an object holds, by name."
    )
    unique: bool = Field(False, description="Whether no two may have the same value.")
    index: bool | None = Field(
        None,
        description="Whether lists are filtered and sorted by it; where left out, enums, dates, "
        "date-times and uuids are.",
    )
