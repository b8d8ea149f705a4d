"""Python expressions as they are written: in one line where they fit, else a line for each part."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from petsage.builder.quoting import COLUMNS, literal, string, width_of

_INDENT: Final = 4


@dataclass(frozen=True)
class Name:
    """Code that stands as it is: a name, or what is short and has no text from outside."""

    code: str


@dataclass(frozen=True)
class Call:
    """A name, and what stands in parentheses behind it.

    Attributes:
        named: keyword arguments.
        brackets: "()" or, of a type's arguments, "[]".
    """

    name: str
    given: tuple[Any, ...] = ()
    named: tuple[tuple[str, Any], ...] = ()
    brackets: str = "()"


@dataclass(frozen=True)
class Either:
    """Two expressions with a `|` between them, the first of which is short."""

    first: str
    second: Any


@dataclass(frozen=True)
class Spread:
    """A dict that has all of another, and more."""

    name: str
    more: dict[str, Any]


def call(name: str, /, *given: Any, **named: Any) -> Call:
    """A call with these arguments."""
    return Call(name, given, tuple(named.items()))


def subscript(name: str, /, *given: Any) -> Call:
    """A type with these arguments."""
    return Call(name, given, brackets="[]")


def expression(value: Any, *, lead: str = "", indent: int = 0, behind: str = "") -> str:
    """The code of a value, behind `lead`.

    Args:
        value: a JSON value, a `Name`, a `Call`, an `Either`, or lists and dicts of them.
        lead: what stands before it on its line: `name = `.
        indent: how far the line is indented.
        behind: what stands behind it on its last line.
    """
    if isinstance(value, str):
        return literal(value, lead=lead, indent=indent, behind=behind)
    whole = f"{lead}{_in_one_line(value)}"
    if indent + width_of(whole) + len(behind) <= COLUMNS:
        return whole
    if isinstance(value, Either):
        return expression(
            value.second, lead=f"{lead}{value.first} | ", indent=indent, behind=behind
        )
    opening, parts, closing = _parts_of(value)
    if not parts:
        return whole
    margin = " " * (indent + _INDENT)
    lines = (
        f"{margin}{expression(part, lead=key, indent=indent + _INDENT, behind=',')},\n"
        for key, part in parts
    )
    return f"{lead}{opening}\n{''.join(lines)}{' ' * indent}{closing}"


def constant(name: str, value: dict[str, Any]) -> str:
    """The line that gives a dict its name; its type where an empty list in it leaves that open."""
    kind = ": dict[str, Any]" if "[]" in _in_one_line(value) else ""
    return expression(value, lead=f"{name}{kind} = ")


def _in_one_line(value: Any) -> str:
    if isinstance(value, str):
        return string(value)
    if isinstance(value, Either):
        return f"{value.first} | {_in_one_line(value.second)}"
    opening, parts, closing = _parts_of(value)
    inner = ", ".join(f"{key}{_in_one_line(part)}" for key, part in parts)
    return f"{opening}{inner}{closing}"


def _parts_of(value: Any) -> tuple[str, list[tuple[str, Any]], str]:
    """What stands before and behind the parts of a value; each part, and what stands before it."""
    match value:
        case Name(code):
            return code, [], ""
        case Call(name, given, named, brackets):
            parts = [("", each) for each in given]
            parts += [(f"{key}=", each) for key, each in named]
            return f"{name}{brackets[0]}", parts, brackets[1]
        case list():
            return "[", [("", each) for each in value], "]"
        case Spread(name, more):
            return "{", [("", Name(f"**{name}")), *_items_of(more)], "}"
        case tuple():
            return "(", [("", each) for each in value], ")"
        case dict():
            return "{", list(_items_of(value)), "}"
    return repr(value), [], ""


def _items_of(value: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, each in value.items():
        yield f"{_in_one_line(key)}: ", each
