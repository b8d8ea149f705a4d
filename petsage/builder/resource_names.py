"""What a resource, one of it, and its table are called, and whether two of them clash."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from petsage.builder.faults import Fault
from petsage.builder.field_names import MAX_IDENTIFIER, name_fault
from petsage.builder.words import plural_of, singular_of

Names = Mapping[int, tuple[str, str]]
"""What many and one are called, by the requirement's number."""

_LONGEST: Final = len("ix__") + len("_id")


@dataclass(frozen=True)
class ResourceNames:
    """What many and one are called, or what is wrong with that."""

    name: str
    item: str
    faults: tuple[Fault, ...] = ()


def names_of(
    feature: str, name: str | None, item: str | None, fields: Iterable[str]
) -> ResourceNames:
    """What a resource is called.

    Args:
        feature: its feature's name, which is its own where it has none.
        name: what many are called, None where nothing was said.
        item: what one is called, None where nothing was said.
        fields: the names of its fields.
    """
    many = feature if name is None else name
    fault = name_fault(many, ("name",), what="a resource's name")
    if fault is None and item is not None:
        fault = name_fault(item, ("item",), what="a resource's item")
    if fault is not None:
        return ResourceNames(many, item or "", (fault,))
    one = item or singular_of(many)
    if one is None or one == many:
        key = "name" if item is None else "item"
        problem = f"`{many}` is what one is called, so that many and one have the same name"
        fix = (
            f"call it `{plural_of(many)}`, or say by `item` (on the command line, --item) what one "
            f"of `{many}` is called"
        )
        fault = Fault((key,), problem, fix, is_value_shown=False)
        return ResourceNames(many, many, (fault,))
    if f"{one}_id" in fields:
        problem = f"`{one}_id` is what the id of a {one} is called in paths"
        fix = "call it otherwise, or set `item`"
        within = ("fields", f"{one}_id")
        return ResourceNames(many, one, (Fault(within, problem, fix, is_value_shown=False),))
    return ResourceNames(many, one)


def table_of(feature: str, name: str) -> str:
    """What its table is called; no two features can have the same, as no name has two `_`."""
    return name if name == feature else f"{feature}__{name}"


def clashes_of(feature: str, names: Names) -> list[Fault]:
    """Where two resources of a feature would be the same in some name of the code."""
    faults: list[Fault] = []
    seen: dict[str, int] = {}
    for number, (many, one) in names.items():
        for key, name in (("name", many), ("item", one)):
            code = class_of(name)
            other = seen.setdefault(code, number)
            if other != number:
                problem = f"`{name}` would be `{code}` in the code, as in requirements[{other}]"
                fix = f"choose another `{key}`"
                faults.append(Fault((number, key), problem, fix, is_value_shown=False))
    return faults


def long_names_of(feature: str, names: Names, keys: Mapping[int, Iterable[str]]) -> list[Fault]:
    """Which names of indexes are longer than PostgreSQL keeps them.

    Args:
        feature: their feature's name.
        names: of the resources.
        keys: the fields of each that are indexed or unique.
    """
    faults = []
    for number, (many, _) in names.items():
        table = table_of(feature, many)
        longest = max(("", *keys[number]), key=len)
        size = len(table) + len(longest) + _LONGEST
        if size > MAX_IDENTIFIER:
            what = f"an index of `{longest}` on" if longest else "the indexes of"
            problem = (
                f"{what} the table `{table}` has a name of {size} bytes, and PostgreSQL keeps "
                f"{MAX_IDENTIFIER}"
            )
            fix = "choose a shorter name for the resource, the feature or the field"
            faults.append(Fault((number, "name"), problem, fix, is_value_shown=False))
    return faults


def class_of(name: str) -> str:
    """A name of words as that of a class: "PetOwner" of "pet_owner"."""
    return "".join(part.capitalize() for part in name.split("_"))
