"""A step in which tables grow, as it is written."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from petsage.builder.expressions import Name, call, expression
from petsage.builder.field_code import column, kind_of_column, value_of
from petsage.builder.growth import Growth
from petsage.builder.quoting import COLUMNS, width_of
from petsage.builder.resource_code import ResourceCode
from petsage.builder.resource_plan import PlannedField

STEPS: Final = "migrations"
"""The folder of a feature's migrations."""

_STEP: Final = re.compile(r"(m\d{4}_[a-z0-9_]+)\.py")
_MAX_NAME: Final = 60
_TEXTS: Final = frozenset({"text", "enum", "email", "uri"})


@dataclass(frozen=True)
class Step:
    """A migration that is added.

    Attributes:
        name: its module's, "m0002_add_color_to_pets".
        title: what it does, its docstring: "Adds color to the pets."
        columns: the fields that come to the table.
        indexed: those that have an index from now on, and its name.
        unique: those of which no two may have the same.
    """

    name: str
    title: str
    table: str
    columns: tuple[PlannedField, ...]
    indexed: tuple[tuple[PlannedField, str], ...]
    unique: tuple[PlannedField, ...]

    def column(self, field: PlannedField) -> str:
        """A new column; rows that are there, and those of the code before, have its default."""
        default = field.schema.default
        written = column(field)
        if default is None:
            return written
        value = default
        if field.kind == "array":
            value = json.dumps(default)
        elif field.kind not in _TEXTS:
            value = call("literal", value_of(field, default), Name(kind_of_column(field)))
        return f"{written[:-1]}, {expression(value, lead='server_default=', indent=8)})"


def steps_in(feature: Path) -> list[str]:
    """The names of the migrations that a feature's folder has, the first one first."""
    folder = feature / STEPS
    if not folder.is_dir():
        return []
    found = (_STEP.fullmatch(path.name) for path in folder.iterdir())
    return sorted(match[1] for match in found if match is not None)


def added_steps(
    codes: Sequence[ResourceCode], growths: Iterable[Growth], steps: Sequence[str]
) -> Iterator[Step]:
    """A migration for each table that grows, behind those that there are.

    Args:
        codes: the feature's resources as they are to be.
        growths: what comes to each.
        steps: the names of the migrations that there are.
    """
    named = {code.resource.name: code for code in codes}
    last = int(steps[-1][1:5]) if steps else 0
    for number, growth in enumerate(growths, last + 1):
        code = named[growth.resource]
        fields = {field.name: field for field in code.fields}
        new = tuple(fields[name] for name in growth.fields)
        name, title = _called(code, growth)
        indexed = {*growth.fields, *growth.indexed}
        yield Step(
            f"m{number:04}_{name}",
            title,
            code.resource.table,
            new,
            tuple(each for each in code.indexes if each[0].name in indexed),
            tuple(field for field in new if field.is_unique),
        )


def _called(code: ResourceCode, growth: Growth) -> tuple[str, str]:
    """The name of a migration behind its number, and its title."""
    table = code.resource.table
    verb, names = ("add", growth.fields) if growth.fields else ("index", growth.indexed)
    link = "to" if growth.fields else "of"
    name = f"{verb}_{'_and_'.join(names)}_{link}_{table}"
    if len(name) > _MAX_NAME:
        name = f"{verb}_{len(names)}_fields_{link}_{table}"
    there = f"to the {code.words}"
    if not growth.fields:
        whole = f"Adds an index of {_listed(names)} {there}"
    elif growth.indexed:
        whole = f"Adds {_listed(names)} {there}, and an index of {_listed(growth.indexed)}"
    else:
        whole = f"Adds {_listed(names)} {there}"
    titles = (f"{whole}; what has run somewhere is not edited any more.", f"{whole}.")
    fitting = (each for each in titles if width_of(each) <= COLUMNS - len('""""""'))
    return name, next(fitting, "Lets the table grow.")


def _listed(names: Sequence[str]) -> str:
    """Names for people: some of them where there are many."""
    if len(names) > 3:
        return f"{len(names)} fields"
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
