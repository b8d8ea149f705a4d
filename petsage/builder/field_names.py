"""What fields and resources may be called: names of Python, of a table and of JSON in one."""

import keyword
import re
import unicodedata
from typing import Final

from pydantic import BaseModel

from petsage.builder.faults import Fault, Within

MAX_NAME: Final = 40
MAX_IDENTIFIER: Final = 63
"""How many bytes of an identifier PostgreSQL keeps."""

NAME: Final = r"^[a-z][a-z0-9]*(_[a-z0-9]+)*$"
_NAME: Final = re.compile(NAME.strip("^$"))

_OF_RESOURCES: Final = {
    **dict.fromkeys(("id", "created_at", "updated_at"), "each resource has it already"),
    **dict.fromkeys(("limit", "cursor", "sort"), "lists are asked for pages by it"),
    **dict.fromkeys(
        ("tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"),
        "each table of PostgreSQL has such a column of its own",
    ),
}
_OF_MODELS: Final = frozenset(each for each in dir(BaseModel) if not each.startswith("_"))
_OF_TYPES: Final = frozenset({"bool", "dict", "float", "int", "list", "str"})
# pydantic keeps these beginnings for what it may come to have.
_PROTECTED: Final = ("model_dump", "model_validate")
_BETTER: Final = {
    "class": "category",
    "copy": "copy_number",
    "created_at": "made_at",
    "cursor": "position",
    "dict": "entries",
    "from": "origin",
    "global": "worldwide",
    "id": "number",
    "import": "imported",
    "json": "document",
    "limit": "most",
    "list": "entries",
    "return": "returned",
    "schema": "structure",
    "sort": "sort_order",
    "updated_at": "changed_at",
    "validate": "is_checked",
}


def field_name_fault(name: str, within: Within, *, is_inner: bool) -> Fault | None:
    """What is wrong with a field's name; None where it can be called so.

    Args:
        name: anything.
        within: where the field is.
        is_inner: whether it is one of an object's, of which no column is made.
    """
    fault = name_fault(name, within, what="a field's name")
    if fault is not None:
        return fault
    reason = None if is_inner else _OF_RESOURCES.get(name)
    if name in _OF_MODELS or name.startswith(_PROTECTED):
        reason = "pydantic's models have something of that name already"
    elif name in _OF_TYPES:
        reason = "a type of Python's has that name, and the code needs it"
    if reason is None:
        return None
    return _fault(within, f"`{name}` cannot be a field's name: {reason}", _better(name))


def name_fault(name: str, within: Within, *, what: str) -> Fault | None:
    """What is wrong with a name of a field or a resource, whatever it is; None where nothing is."""
    if _NAME.fullmatch(name) and len(name) <= MAX_NAME and not keyword.iskeyword(name):
        return None
    problem = (
        f"{_shown(name)} cannot be {what}: it is words of a-z and 0-9 with a single `_` between "
        f"them, a letter first, of {MAX_NAME} characters at most"
    )
    if keyword.iskeyword(name):
        problem = f"`{name}` cannot be {what}: it is a word of Python's own"
    odd = next((letter for letter in name if not letter.isascii()), None)
    if odd is not None:
        # It may look just like an ordinary letter.
        problem += (
            f"; U+{ord(odd):04X} is {unicodedata.name(odd, 'a character without a name').lower()}"
        )
    return _fault(within, problem, _better(name))


def _fault(within: Within, problem: str, better: str) -> Fault:
    fix = f"call it `{better}`, for example"
    return Fault(within, problem, fix, is_value_shown=False)


def _shown(name: str) -> str:
    begin = "".join(each if each.isprintable() else "?" for each in name[:60])
    return f"`{begin}{'…' if len(name) > 60 else ''}`"


def _better(name: str) -> str:
    """A name that is near and allowed; `weightKg` becomes `weight_kg`."""
    if name in _BETTER:
        return _BETTER[name]
    letters = unicodedata.normalize("NFKD", name[:200]).encode("ascii", "ignore").decode()
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", letters).lower()
    plain = re.sub(r"[^a-z0-9]+", "_", spaced).strip("_")[: MAX_NAME - 6].strip("_")
    if not plain:
        return "name"
    if plain[0].isdigit():
        return f"n{plain}"
    is_taken = plain in _OF_RESOURCES or plain in _OF_MODELS or plain in _OF_TYPES
    if is_taken or keyword.iskeyword(plain) or plain.startswith(_PROTECTED):
        return f"{plain}_value" if not plain.startswith("model_") else f"the_{plain}"
    return plain
