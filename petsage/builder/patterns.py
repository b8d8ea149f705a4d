"""Which regular expressions a field may have: those that mean the same to all who read them.

The server matches by the engine of pydantic, which is Rust's: its time goes by the length of the
text, whatever the expression, and so it knows neither look-around nor back-references. The API's
document has the expression as JSON Schema's, which is JavaScript's dialect: what only one of the
two knows, or reads otherwise, is refused.
"""

import re
from typing import Annotated, Final

from pydantic import Field, TypeAdapter
from pydantic_core import SchemaError

MAX_PATTERN: Final = 500
"""How many characters an expression may have."""

_ENGINE: Final = "the server's engine, whose time is bounded whatever it is asked, knows none"

# Read from the left: an escape or a bracket is one token, so that none begins within another.
_TOKEN: Final = re.compile(
    r"\\[pP]\{\w*\}|\\.|\(\?<[=!]|\(\?P?<|\(\?P?.|\[\^?\]?|[*+?}][+*]|.", re.DOTALL
)
_GROUPS: Final = {
    "(?=": f"look-ahead: {_ENGINE}",
    "(?!": f"look-ahead: {_ENGINE}",
    "(?<=": f"look-behind: {_ENGINE}",
    "(?<!": f"look-behind: {_ENGINE}",
    "(?>": f"an atomic group: {_ENGINE}",
    "(?#": "a comment, which is Python's",
    "(?P<": "a group named in Python's way; write `(?<name>…)`",
    "(?P=": f"a back-reference: {_ENGINE}",
    "(?P>": f"a group that is called again: {_ENGINE}",
}
_ESCAPES: Final = {
    "A": "`\\A`, which JSON Schema has not; write `^`",
    "Z": "`\\Z`, which is Python's; write `$`",
    "z": "`\\z`, which JSON Schema has not; write `$`",
    "k": f"a back-reference: {_ENGINE}",
    "x": "`\\x`; write the character itself",
    "u": "`\\u`; write the character itself",
    "U": "`\\U`; write the character itself",
    "a": "`\\a`, which JSON Schema has not",
    "<": "`\\<`, which JSON Schema has not",
    ">": "`\\>`, which JSON Schema has not",
}
_IN_CLASS: Final = {"[": "a bracket within brackets; write `\\[`"}
_SET_MARKS: Final = ("&&", "--", "~~")


def flaw_of(pattern: str) -> str | None:
    """Why an expression is refused, as half a sentence; None where it is not."""
    if len(pattern) > MAX_PATTERN:
        return f"it has {len(pattern):,} characters, and may have {MAX_PATTERN} at most"
    if not pattern or not pattern.isprintable():
        return "it has to be printable characters on one line"
    foreign = _foreign(pattern)
    if foreign is not None:
        return f"it has {foreign}"
    try:
        TypeAdapter(Annotated[str, Field(pattern=pattern)])
    except SchemaError as error:
        return f"it is no regular expression: {_reason(str(error))}"
    return None


def _reason(said: str) -> str:
    """The engine's own words, without the drawing of where."""
    last = said.strip().splitlines()[-1].strip()
    if "size limit" in last:
        return "it is too large once its repetitions are written out"
    return last.removeprefix("error: ")


def _foreign(pattern: str) -> str | None:
    """What only one of both dialects knows, or each in its own way."""
    is_class = False
    before = ""
    for token in _TOKEN.findall(pattern):
        flaw = _foreign_in_class(token, before) if is_class else _foreign_outside(token)
        if flaw is not None:
            return flaw
        if token[0] == "[" and not is_class:
            if token.endswith("]"):
                return "a `]` at the begin of brackets; write `\\]`"
            is_class = True
        elif token == "]":  # noqa: S105 - a bracket # nosec B105
            is_class = False
        before = token
    return None


def _foreign_outside(token: str) -> str | None:
    if token in _GROUPS:
        return _GROUPS[token]
    if token.startswith("(?") and token not in {"(?:", "(?<"}:
        return "a flag, `(?…)`, which JSON Schema has not; write it out, as in `[Aa]`"
    if len(token) == 2 and token[0] in "*+?}" and token[1] in "*+":
        return f"a quantifier of a quantifier, `{token}`, which JSON Schema has not"
    return _foreign_escape(token)


def _foreign_in_class(token: str, before: str) -> str | None:
    if token[0] == "[":
        return _IN_CLASS["["]
    if f"{before}{token}"[-2:] in _SET_MARKS:
        return f"`{token}{token}` within brackets, which is Rust's; leave one out, or escape it"
    return _foreign_escape(token)


def _foreign_escape(token: str) -> str | None:
    if len(token) != 2 or token[0] != "\\":
        return None
    if token[1].isdigit() and token[1] != "0":
        return f"a back-reference: {_ENGINE}"
    return _ESCAPES.get(token[1])
