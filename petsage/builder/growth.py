"""What an update adds to what is kept; what it may not change is refused, by name."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from petsage.builder.fields import FieldSchema
from petsage.builder.request import FeatureRequest, Probe, Requirement, Resource
from petsage.builder.request_faults import Asked, refuse_all, shown

Said = tuple[str, str]
"""What is wrong, and the fix."""

_TEXTS: Final = frozenset({"description", "examples"})
"""What of a field is said, and holds nothing to anything."""

_ANEW: Final = "build what is new as a feature of its own"


@dataclass(frozen=True)
class Growth:
    """What comes to the table of a resource.

    Attributes:
        resource: its name.
        fields: the names of its new fields.
        indexed: the names of those that had no index before, and have one now.
    """

    resource: str
    fields: tuple[str, ...]
    indexed: tuple[str, ...]


def growth_of(before: FeatureRequest, after: FeatureRequest, asked: Asked) -> tuple[Growth, ...]:
    """What an update adds, a growth for each resource that grows.

    Args:
        before: what the feature was built from.
        after: what it is to be.
        asked: where that comes from.

    Raises:
        BuildError: it changes what only a migration by hand can; all of it is told.
    """
    faults = list(_faults(before, after, asked.place_of("requirements")))
    if faults:
        refuse_all(asked, faults)
    grown = [_growth(*pair) for pair in _pairs(before, after)]
    return tuple(each for each in grown if each.fields or each.indexed)


def _pairs(before: FeatureRequest, after: FeatureRequest) -> Iterator[tuple[Resource, Resource]]:
    those = {each.name: each for each in after.resources()}
    return ((each, those[each.name]) for each in before.resources() if each.name in those)


def _growth(before: Resource, after: Resource) -> Growth:
    old = before.fields
    return Growth(
        after.name or "",
        tuple(name for name in after.fields if name not in old),
        tuple(
            name
            for name, each in after.fields.items()
            if name in old and each.is_indexed and not old[name].is_indexed
        ),
    )


def _faults(before: FeatureRequest, after: FeatureRequest, place: str) -> Iterator[Said]:
    was, names = _named(before), _named(after)
    for name in was.keys() - names.keys():
        fix = f"leave it in; to be rid of {after.feature}, take it back with --undo"
        yield f"{place}: {name} is no more, and an update takes nothing away", fix
    for name in names.keys() - was.keys():
        yield f"{place}: {name} is new, and an update adds fields alone", _ANEW
    for old, new in _pairs(before, after):
        where = f"{place}: {new.name}"
        if old.item != new.item:
            problem = f"{where}: item: {shown(new.item)} was {shown(old.item)}"
            yield problem, "leave it as it was: paths and names come of it"
        yield from _faults_of_fields(old.fields, new.fields, where, _folder_of(after))


def _named(request: FeatureRequest) -> dict[str, Requirement]:
    """Each requirement by what it is called in a message."""
    if request.requirements == "none":
        return {"the probe and its receipt": Probe(kind="probe")}
    return {
        f"{each.kind} {each.path_in(request)}": each
        for each in request.requirements
    }  # fmt: skip


def _folder_of(request: FeatureRequest) -> str:
    return f"features/{request.feature}/migrations"


def _faults_of_fields(
    before: Mapping[str, FieldSchema], after: Mapping[str, FieldSchema], place: str, folder: str
) -> Iterator[Said]:
    by_hand = f"write a migration by hand: {folder}/, and change the code with it"
    for name in before:
        if name not in after:
            yield f"{place}: the field `{name}` is gone", by_hand
    for name, schema in after.items():
        where = f"{place}: the field `{name}`"
        if name in before:
            changed = list(_changed(before[name], schema))
            if changed:
                yield f"{where} is another in {', '.join(f'`{each}`' for each in changed)}", by_hand
        elif schema.default is None and not schema.optional:
            fix = f"make it optional (`{name}:…?`), or give it a default (`{name}:…=…`)"
            yield f"{where} has to be there, and what is kept already has none", fix


def _changed(before: FieldSchema, after: FieldSchema) -> Iterator[str]:
    """The keywords in which a field is another than it was."""
    old, new = _bound(before), _bound(after)
    yield from sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
    if before.is_indexed and not after.is_indexed:
        yield "index"


def _bound(schema: FieldSchema) -> dict[str, Any]:
    """What a field holds its values to, with what it holds them to where nothing is said."""
    said = schema.resolved().model_dump(mode="json", exclude_none=True)
    plain: dict[str, Any] = _without(said, (*_TEXTS, "index"))
    return plain


def _without(value: Any, keys: Iterable[str]) -> Any:
    """A schema without some keywords, on every level; the names of properties are none."""
    found = {key: each for key, each in value.items() if key not in keys}
    if "items" in found:
        found["items"] = _without(found["items"], keys)
    if "properties" in found:
        inner = found["properties"].items()
        found["properties"] = {name: _without(each, keys) for name, each in inner}
    return found
