"""Fields in their short form, as a command line gives them: `name:type?,unique=default`."""

import re
from collections.abc import Iterable
from typing import Any, Final

from petsage.builder.request_faults import Asked, refuse_all, shown
from petsage.errors import nearest

_TYPES: Final[dict[str, dict[str, Any]]] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "date": {"format": "date"},
    "datetime": {"format": "date-time"},
    "uuid": {"format": "uuid"},
    "email": {"format": "email"},
    "uri": {"format": "uri"},
}
_CALLED_OTHERWISE: Final = {
    "string": "str",
    "text": "str",
    "integer": "int",
    "number": "float",
    "decimal": "float",
    "double": "float",
    "boolean": "bool",
    "date-time": "datetime",
    "timestamp": "datetime",
    "time": "datetime",
    "url": "uri",
}
_OPTIONS: Final = ("unique", "index")
_FORM: Final = "write `name:type`, `name:type?` where it may be left out, `name:type=default`"
_INTEGER: Final = re.compile(r"-?[0-9]{1,20}")
_NUMBER: Final = re.compile(r"-?[0-9]{1,400}(?:\.[0-9]{1,400})?(?:[eE][+-]?[0-9]{1,4})?")
_TRUTHS: Final = {"true": True, "false": False}

Said = tuple[str, str]
"""What is wrong, and the fix."""


def fields_of(texts: Iterable[str], asked: Asked) -> dict[str, dict[str, Any]]:
    """What some fields come to in a document, by name, not yet looked at.

    Args:
        texts: `name:type[?][,unique][,index][=default]` each; the type is a word, that word and
            `[]`, or what an enum may be, `dog|cat`.
        asked: what is asked for beside them.

    Raises:
        BuildError: some of them cannot be read; all of these are told.
    """
    place = asked.place_of("requirements")
    fields: dict[str, dict[str, Any]] = {}
    faults: list[Said] = []
    for text in texts:
        name, found = _field_of(text)
        if isinstance(found, tuple):
            faults.append((f"{place}: {shown(text)}: {found[0]}", found[1]))
        elif name in fields:
            problem = f"{place}: {shown(text)}: there is a field of that name already"
            faults.append((problem, "leave one of them out"))
        else:
            fields[name] = found
    if faults:
        refuse_all(asked, faults)
    return fields


def _field_of(text: str) -> tuple[str, dict[str, Any] | Said]:
    name, colon, rest = text.partition(":")
    spec, equals, default = rest.partition("=")
    word, *options = [part.strip() for part in spec.split(",")]
    name = name.strip()
    if not colon or not word or not name:
        return name, ("it has no type" if name else "it has no name", _FORM)
    field: dict[str, Any] = {}
    if word.endswith("?"):
        word, field["optional"] = word[:-1], True
    kind = _type_of(word)
    if isinstance(kind, tuple):
        return name, kind
    field = {**kind, **field}
    for option in options:
        if option not in _OPTIONS:
            return name, _unknown(option, "is no word for a field", _OPTIONS)
        field[option] = True
    if not equals:
        return name, field
    value = _value_of(kind, default)
    if isinstance(value, tuple):
        return name, value
    return name, {**field, "default": value}


def _type_of(word: str) -> dict[str, Any] | Said:
    if word.endswith("[]"):
        inner = _type_of(word[:-2])
        return inner if isinstance(inner, tuple) else {"type": "array", "items": inner}
    if word in _TYPES:
        return dict(_TYPES[word])
    values = word.split("|")
    if len(values) == 1:
        if word in {"json", "object", "dict", "array", "list"}:
            return (
                f"{shown(word)} has no short form",
                "describe it in a document, by `properties` or `items`; `str[]` is a list of texts",
            )
        if word in _CALLED_OTHERWISE:
            return f"{shown(word)} is no type", f"write `{_CALLED_OTHERWISE[word]}`"
        return _unknown(word, "is no type", _TYPES)
    if all(value in _TYPES for value in values):
        return f"{shown(word)} joins types, and a field has one", "choose one of them"
    if not all(value.strip() for value in values):
        return f"{shown(word)} has an empty value", "write a word between all `|`"
    return {"enum": values}


def _unknown(word: str, problem: str, right: Iterable[str]) -> Said:
    known = list(right)
    match = nearest(word, known)
    others = ", ".join(f"`{each}`" for each in known)
    fix = f"did you mean `{match}`?" if match is not None else f"choose one of {others}"
    if match is None and "is no type" in problem:
        fix += ", or name the values that there may be: `dog|cat`"
    return f"{shown(word)} {problem}", fix


def _value_of(kind: dict[str, Any], text: str) -> Any:
    """A default as JSON has it, or what is wrong with it."""
    match kind.get("type"):
        case "integer":
            is_right, said = _INTEGER.fullmatch(text) is not None, "an integer, such as 7"
            value: Any = int(text) if is_right else None
        case "number":
            is_right, said = _NUMBER.fullmatch(text) is not None, "a number, such as 1.5"
            value = float(text) if is_right else None
        case "boolean":
            is_right, said = text in _TRUTHS, "`true` or `false`"
            value = _TRUTHS.get(text)
        case "array":
            is_right, said, value = text == "[]", "`[]`; a document can say others", []
        case _:
            return text
    return value if is_right else (f"the default {shown(text)} is not right", f"write {said}")
