"""Texts of a request: one line of printable characters each, and nothing but text."""

import unicodedata
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, Field


def fold(value: object) -> object:
    """A text with its white space folded, and all else as it is."""
    return " ".join(value.split()) if isinstance(value, str) else value


def require_line(value: str) -> str:
    """Refuses what could be more than text where it ends up: control and direction characters."""
    if not value.strip():
        raise ValueError("it is empty")
    for letter in value:
        if not letter.isprintable():
            name = unicodedata.name(letter, "a character without a name")
            raise ValueError(f"U+{ord(letter):04X}, {name}, cannot stand in a line of text")
    return value


SEEN: Final = {
    "minLength": 1,
    "pattern": r"\S",
}
"""Of what a line may not hold, what a schema knows."""

LINE: Final = AfterValidator(require_line)

Line200 = Annotated[str, BeforeValidator(fold), Field(max_length=200, json_schema_extra=SEEN), LINE]
