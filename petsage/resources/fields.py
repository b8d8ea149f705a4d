"""What a field of a resource may be, beyond what pydantic has.

`NO_NUL`, `EMAIL` and `URI` come last in an `Annotated`, behind pydantic's own constraints, which
the API's documentation would lose otherwise:
`Annotated[str, Field(max_length=255), NO_NUL]`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv6Address
from typing import Annotated, Any, Final

from email_validator import EmailNotValidError, validate_email
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import CoreSchema, PydanticCustomError, PydanticKnownError, core_schema

# RFC 5321, section 4.5.3.1: longer ones cannot be sent to.
_MAX_EMAIL: Final = 254

# RFC 3986, appendix A; what stands in brackets is looked at behind it. Each character is matched
# by one alternative, so that the time it takes grows with the length alone.
_SUB: Final = r"A-Za-z0-9\-._~!$&'()*+,;="
_PART: Final = rf"(?:[{_SUB}:@/]|%[0-9A-Fa-f]{{2}})*"
_TAIL: Final = rf"(?:[{_SUB}:@/?]|%[0-9A-Fa-f]{{2}})*"
_URI: Final = re.compile(
    r"[A-Za-z][A-Za-z0-9+.\-]*:"
    rf"(?://(?:(?:[{_SUB}:]|%[0-9A-Fa-f]{{2}})*@)?"
    rf"(?:\[(?P<literal>[^\[\]]*)\]|(?:[{_SUB}]|%[0-9A-Fa-f]{{2}})*)"
    r"(?::[0-9]*)?(?=[/?#]|\Z)|(?!//))"
    rf"{_PART}(?:\?{_TAIL})?(?:\#{_TAIL})?"
)
_MOMENT: Final = TypeAdapter(datetime)
_FUTURE: Final = re.compile(rf"v[0-9A-Fa-f]+\.[{_SUB}:]+")


@dataclass(frozen=True)
class TextCheck:
    """For an `Annotated[str, …]`: a look at a text, which stays as it came.

    Args:
        check: raises a `PydanticCustomError` for a text that is none.
        format: what JSON Schema calls such a text.
        pattern: what JSON Schema can say of it, where nothing else is said by one.
    """

    check: Callable[[str], None]
    format: str | None = None
    pattern: str | None = None

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Has this looked at behind pydantic's own checks."""
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """What pydantic says, and the format or pattern."""
        made = handler(schema)
        if self.format is not None:
            made["format"] = self.format
        if self.pattern is not None:
            made.setdefault("pattern", self.pattern)
        return made

    def _checked(self, text: str) -> str:
        self.check(text)
        return text


def _find_nul(text: str) -> None:
    if "\0" in text:
        raise PydanticCustomError("string_nul", "String should hold no NUL character")


def _find_no_email(text: str) -> None:
    try:
        if len(text) <= _MAX_EMAIL:
            validate_email(text, check_deliverability=False)
            return
    except EmailNotValidError:
        pass  # what it says may hold what was sent
    raise PydanticCustomError("email", "String should be an email address")


def _find_no_uri(text: str) -> None:
    match = _URI.fullmatch(text)
    if match is None or not _is_address(match["literal"]):
        raise PydanticCustomError("uri", "String should be an absolute URI (RFC 3986)")


def _is_address(literal: str | None) -> bool:
    """Whether what stands in a URI's brackets, if anything does, is an address."""
    if literal is None or _FUTURE.fullmatch(literal):
        return True
    try:
        IPv6Address(literal)
    except ValueError:
        return False
    return "%" not in literal


def _read_moment(value: Any) -> Any:
    """A text as pydantic reads it, but for numbers, which it takes for seconds since 1970.

    "20200131" would be a day in August of that year, and has no zone. What is read here is read
    once: within a model, pydantic's strict mode takes no text from a function.
    """
    if not isinstance(value, str):
        return value
    if value[4:5] != "-":
        raise PydanticCustomError("datetime_parsing", "Input should be a valid datetime")
    try:
        return _MOMENT.validate_python(value)
    except ValidationError as error:
        (wrong,) = error.errors(include_url=False)
    raise PydanticKnownError(wrong["type"], wrong.get("ctx"))  # type: ignore[arg-type] # it is one


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise PydanticCustomError(
            "datetime_range", "Datetime should be within the years 1 to 9999 in UTC"
        ) from None


NO_NUL: Final = TextCheck(_find_nul, pattern=r"^[^\u0000]*$")
"""Text without NUL, which no database keeps."""

EMAIL: Final = TextCheck(_find_no_email, "email")
"""An email address (RFC 5321), as it came: nothing is made lower case."""

URI: Final = TextCheck(_find_no_uri, "uri")
"""An absolute URI (RFC 3986), as it came."""

DateTime = Annotated[AwareDatetime, BeforeValidator(_read_moment), AfterValidator(_in_utc)]
"""A moment: a date-time with a zone, in UTC from here on."""

Integer = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
"""An integer of 64 bits; a `Field` behind it may say narrower bounds."""

Number = Annotated[float, Field(allow_inf_nan=False)]
"""A finite number."""

Id = Annotated[
    int,
    Field(
        ge=1,
        le=2**63 - 1,
        description="Given by the database; never another's.",
        examples=[7],
    ),
]
"""The id of what is kept."""
