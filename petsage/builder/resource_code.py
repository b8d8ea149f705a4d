"""A resource as templates are given it: which classes, functions and queries it comes to."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from petsage.builder.field_code import answered, may_be_left_out, may_be_null
from petsage.builder.plan import Plan
from petsage.builder.resource_plan import PlannedField, PlannedResource

_FOLDERS: Final = frozenset(
    ["feature", "migrations", "models", "probes", "routes", "store", "tests"]
)
_ORDERED: Final[Mapping[str, tuple[str, str]]] = {
    "integer": ("This or more.", "This or less."),
    "number": ("This or more.", "This or less."),
    "date": ("This or later.", "This or earlier."),
    "datetime": ("This or later.", "This or earlier."),
}
_WRITES: Final = ("replace", "update", "delete")
_METHODS: Final[Mapping[str, str]] = {"replace": "PUT", "update": "PATCH", "delete": "DELETE"}


@dataclass(frozen=True)
class Range:
    """A condition of a list: so much at least, or at most.

    Attributes:
        attribute: its name in the query's model.
        parameter: its name in a URL.
    """

    attribute: str
    parameter: str
    description: str


class ResourceCode:
    """A resource as it is written.

    Attributes:
        package: what its modules are called by, where it is not the feature's only one.
        folder: where its modules are within the feature's: "" or "pets/".
        item: what a variable is called that holds one: "pet".
        table: what the variable of its table is called: "pets".
        base: the model that has its fields; the other models are made of it.
    """

    def __init__(self, plan: Plan, resource: PlannedResource) -> None:
        self.resource = resource
        self.feature = plan.name
        self.name = resource.name
        self.operations = resource.operations
        self.words = resource.words
        self.noun = resource.noun
        self.a_noun = f"{resource.article} {resource.noun}"
        self.identifier = resource.item
        self.item = resource.variable
        self.table = resource.table_variable
        self.fields = resource.fields
        self.package = f"{self.name}_" if self.name in _FOLDERS else self.name
        self.is_alone = len(plan.resources) == 1 and not plan.probes
        self.folder = "" if self.is_alone else f"{self.package}/"
        self.module = "" if self.is_alone else f".{self.package}"
        self.writes = [each for each in _WRITES if each in self.operations]
        self.has_items = bool({"read", *_WRITES} & self.operations)
        self.base = next(name for name, is_there in self._models if is_there)

    @property
    def _models(self) -> Iterator[tuple[str, bool]]:
        """Each model that may hold the fields, and whether it is there."""
        name = self.resource.class_name
        yield f"{name}Create", "create" in self.operations
        yield f"{name}Replace", bool({"replace", "update"} & self.operations)
        yield f"{name}Read", True

    def has(self, *operations: str) -> bool:
        """Whether any of these is asked for."""
        return bool({*operations} & self.operations)

    @property
    def indexed(self) -> list[PlannedField]:
        """The fields that lists are filtered and sorted by."""
        return [field for field in self.fields if field.is_indexed or field.is_unique]

    @property
    def unique(self) -> list[PlannedField]:
        """The fields that no two have the same of."""
        return [field for field in self.fields if field.is_unique]

    @property
    def indexes(self) -> list[tuple[PlannedField, str]]:
        """The fields that need an index, and its name; what is unique and always there has one."""
        table = self.resource.table
        return [
            (field, field.index_name or f"ix_{table}__{field.name}")
            for field in self.indexed
            if not field.is_unique or may_be_null(field)
        ]

    def ranges(self, field: PlannedField) -> list[Range]:
        """What may be said of the order of a field's values."""
        words = _ORDERED.get(field.kind, ())
        ends = zip(field.range_names, ("gte", "lte"), words, strict=False)
        return [Range(name, f"{field.name}.{end}", word) for name, end, word in ends]

    @property
    def sorts(self) -> list[str]:
        """Every order of a list."""
        return [f"{minus}{name}" for name in ("id", *(each.name for each in self.indexed))
                for minus in ("", "-")]  # fmt: skip

    def answers(self, *statuses: int) -> str:
        """What a route may answer beside what it is for."""
        further = (428,) if self.resource.require_if_match and 412 in statuses else ()
        all_of_them = sorted({*statuses, *further, 503})
        inner = ", ".join(f"{each}: {'None' if each == 304 else 'Problem'}" for each in all_of_them)
        return f"{{{inner}}}"

    @property
    def conflicts(self) -> tuple[int, ...]:
        """What is answered where something has to be unique and is not."""
        return (409,) if self.unique else ()

    # What its tests send

    @property
    def example(self) -> dict[str, Any]:
        """One, as it is sent and answered."""
        return self._answered(self.resource.example)

    @property
    def other(self) -> dict[str, Any]:
        """Another."""
        return self._answered(self.resource.other_example)

    def _answered(self, example: Mapping[str, Any]) -> dict[str, Any]:
        return {each.name: answered(each, example.get(each.name)) for each in self.fields}

    @property
    def answer(self) -> dict[str, Any]:
        """One, as it is answered with what the server adds."""
        moment = "2026-01-01T12:00:00.000000Z"
        return {**self.example, "id": 1, "created_at": moment, "updated_at": moment}

    @property
    def required(self) -> list[str]:
        """The fields that have to be given."""
        return [field.name for field in self.fields if not may_be_left_out(field)]

    @property
    def left_out(self) -> dict[str, Any]:
        """What each field is that is not given."""
        return dict(_left_out(self.fields))

    @property
    def filters(self) -> list[tuple[str, str]]:
        """Each condition of a list that the example fulfils, by its name in a URL."""
        return [
            (parameter, _in_url(self.example[field.name]))
            for field in self.indexed
            for parameter in (field.name, *(each.parameter for each in self.ranges(field)))
        ]

    @property
    def methods(self) -> list[str]:
        """The methods that change one that is there."""
        return [_METHODS[each] for each in self.writes]


def _left_out(fields: tuple[PlannedField, ...], within: str = "") -> Iterator[tuple[str, Any]]:
    for field in fields:
        if may_be_left_out(field):
            yield f"{within}{field.name}", answered(field, field.schema.default)
        yield from _left_out(field.fields, f"{within}{field.name}.")


def _in_url(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
