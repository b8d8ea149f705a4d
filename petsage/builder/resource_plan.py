"""Every name and value of a resource that is to be built, derived from its request once.

A third of it is the names that are taken already, which is why it is long.
"""

import builtins
import keyword
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from petsage.builder.examples import examples_of
from petsage.builder.fields import FieldSchema, Kind
from petsage.builder.request import FeatureRequest, Resource
from petsage.builder.resource_names import class_of, table_of

_MODELS: Final = ("", "Create", "Replace", "Update", "Read", "Page", "Query")
"""What is put behind the name of a class."""

# What the built modules import or call their own; a list, for it may not depend on releases.
_CLASSES: Final = """
    Annotated Any AwareDatetime BaseModel BigInteger Body Boolean Column ConfigDict Connection
    DATABASE Database Date DateTime Double EMAIL Feature Field FromApp HealthCheck I Id IfMatch
    IfNoneMatch Index Integer Json Key Literal MERGE_PATCH MIGRATIONS MetaData Migration NAMING
    NO_NUL NotRequired Number O Page PageQuery Path Problem Query Receipt Reply Required Routes
    Storage Table Text TypedDict URI UTC UUID UniqueConstraint UtcDateTime Uuid
    ADD CHANGE DELETE FIND FIND_TO_WRITE
    ArithmeticError AssertionError AttributeError BaseException BaseExceptionGroup BlockingIOError
    BrokenPipeError BufferError BytesWarning ChildProcessError ConnectionAbortedError
    ConnectionError ConnectionRefusedError ConnectionResetError DeprecationWarning EOFError
    Ellipsis EncodingWarning EnvironmentError Exception ExceptionGroup False FileExistsError
    FileNotFoundError FloatingPointError FutureWarning GeneratorExit IOError ImportError
    ImportWarning IndentationError IndexError InterruptedError IsADirectoryError KeyError
    KeyboardInterrupt LookupError MemoryError ModuleNotFoundError NameError None
    NotADirectoryError NotImplemented NotImplementedError OSError OverflowError
    PendingDeprecationWarning PermissionError ProcessLookupError PythonFinalizationError
    RecursionError ReferenceError ResourceWarning RuntimeError RuntimeWarning StopAsyncIteration
    StopIteration SyntaxError SyntaxWarning SystemError SystemExit TabError TimeoutError True
    TypeError UnboundLocalError UnicodeDecodeError UnicodeEncodeError UnicodeError
    UnicodeTranslateError UnicodeWarning UserWarning ValueError Warning ZeroDivisionError
"""
_VARIABLES: Final = """
    alembic answer asyncio between bindparam body caller changed changes client column columns
    connection create_engine created current cursor database date datetime deleted delete difference
    downgrade entry etag example examples feature feature_client following found given headers
    hypothesis if_match if_none_match insert items json keeps kept limit listed location logger
    logging made merged metadata migrations models name new none now number old one one_of op
    other page page_of parameters pathlib patch patched path petsage prove pydantic pytest query
    read receipt replaced reply require_condition require_match response result rest routes row rows
    select self sent settings sort sqlalchemy st statement status store tagged tests typing update
    updated upgrade url uuid values verify wanted written
"""
_METHODS_OF_COLUMNS: Final = """
    add as_readonly clear compare contains_column corresponding_column extend get items keys remove
    update values
"""
TAKEN_CLASSES: Final = frozenset(_CLASSES.split())
"""Names in capitals that no alias or model of a feature has."""

TAKEN_VARIABLES: Final = frozenset(_VARIABLES.split())
"""Names that no variable which is called after a resource has."""

_COLUMNS_OWN: Final = frozenset(_METHODS_OF_COLUMNS.split())
_PLAIN_BUILTINS: Final = frozenset(each for each in dir(builtins) if each.islower())


@dataclass(frozen=True)
class PlannedField:
    """A field of a resource, one within it, or what an array holds.

    Attributes:
        name: "weight_kg"; of what an array holds, the array's own.
        alias: what its type is called, "WeightKg"; no two of a feature's have the same.
        schema: what it may hold, bounds and all.
        index_name: of its index, "ix_pets__born"; None where it has none.
        unique_name: of its constraint, "uq_pets__name"; None where it has none.
        range_names: the parameters of a model for `born.gte` and `born.lte`.
        examples: two values that it may have; two different ones, where it is unique.
        fields: of an object, what it holds.
        class_name: of an object, what its models' names begin with, "PetOwner".
        item: of an array, what it holds.
    """

    name: str
    alias: str
    schema: FieldSchema
    kind: Kind
    is_indexed: bool
    is_unique: bool
    index_name: str | None
    unique_name: str | None
    range_names: tuple[str, str]
    examples: tuple[Any, Any]
    fields: tuple["PlannedField", ...] = ()
    class_name: str | None = None
    item: "PlannedField | None" = None

    @property
    def words(self) -> str:
        """What its name says: "weight kg"."""
        return self.name.replace("_", " ")

    @property
    def example(self) -> Any:
        """A JSON value that it may have."""
        return self.examples[0]

    @property
    def column(self) -> str:
        """How its column is reached behind a table's name: `.c.born`."""
        return f'.c["{self.name}"]' if self.name in _COLUMNS_OWN else f".c.{self.name}"


@dataclass(frozen=True)
class PlannedResource:
    """One resource.

    Attributes:
        name: "pet_owners".
        item: "pet_owner".
        words: what its name says, "pet owners".
        noun: what one is called, "pet owner".
        article: which stands before the noun, "a" or "an".
        class_name: what its models' names begin with, "PetOwner".
        path: below `/api/v1`, "/pet-owners".
        table: the table's name in the database; no two features have the same.
        table_variable: what the table is called in code, "pet_owners".
        variable: what one of it is called in code, "pet_owner".
        database_alias: what the type of the handlers' database is called, "PetOwners".
        parameter: what an id is called in paths and code, "pet_owner_id".
        operations: what can be done with it.
    """

    name: str
    item: str
    words: str
    noun: str
    article: str
    class_name: str
    path: str
    table: str
    table_variable: str
    variable: str
    database_alias: str
    parameter: str
    operations: frozenset[str]
    require_if_match: bool
    tags: tuple[str, ...]
    fields: tuple[PlannedField, ...]

    @property
    def example(self) -> dict[str, Any]:
        """A JSON object with each of its fields."""
        return {field.name: field.examples[0] for field in self.fields}

    @property
    def other_example(self) -> dict[str, Any]:
        """Another, which differs in each field that is unique, and where it can in others."""
        return {field.name: field.examples[1] for field in self.fields}


def planned_resources(request: FeatureRequest, taken: Iterable[str]) -> tuple[PlannedResource, ...]:
    """Each resource that is asked for.

    Args:
        request: which names its resources.
        taken: names of classes that the feature has beside them.
    """
    names = _ClassNames({*TAKEN_CLASSES, *taken})
    resources = request.resources()
    classes = {each.name: names.claim_models(class_of(each.item or "")) for each in resources}
    # Aliases that two resources would share are each called after theirs.
    seen = [class_of(name) for each in resources for name in each.fields]
    shared = {each for each in seen if seen.count(each) > 1}
    return tuple(
        _planned(request, each, _Fields(names, shared, classes[each.name])) for each in resources
    )


def _planned(request: FeatureRequest, resource: Resource, fields: "_Fields") -> PlannedResource:
    name, item = resource.name or request.feature, resource.item or request.feature
    table = table_of(request.feature, name)
    noun = item.replace("_", " ")
    return PlannedResource(
        name=name,
        item=item,
        words=name.replace("_", " "),
        noun=noun,
        article="an" if noun[0] in "aeiou" else "a",
        class_name=fields.class_name,
        path=resource.path_in(request),
        table=table,
        table_variable=variable_of(name),
        variable=variable_of(item),
        database_alias=fields.names.claim(class_of(name), f"{class_of(name)}Database"),
        parameter=f"{item}_id",
        operations=frozenset(resource.operations),
        require_if_match=resource.require_if_match,
        tags=tuple(resource.tags or request.tags),
        fields=tuple(fields.planned(resource.fields, table)),
    )


def variable_of(name: str) -> str:
    """A name as that of a variable: one that the code needs for something else has a `_` behind."""
    is_taken = name in TAKEN_VARIABLES or name in _PLAIN_BUILTINS
    return (
        f"{name}_" if is_taken or keyword.iskeyword(name) or keyword.issoftkeyword(name) else name
    )


class _ClassNames:
    """The names of classes and aliases of a feature, none of which is there twice."""

    def __init__(self, taken: set[str]) -> None:
        self._taken = taken

    def claim(self, *names: str) -> str:
        """The first of some names that is free, numbered where none is."""
        return self._claim(names, ("",))

    def claim_models(self, *names: str) -> str:
        """The first of some names that all models which begin with it can have."""
        return self._claim(names, _MODELS)

    def _claim(self, names: Iterable[str], endings: tuple[str, ...]) -> str:
        for name in _numbered(tuple(names)):
            claimed = {f"{name}{ending}" for ending in endings}
            if claimed.isdisjoint(self._taken):
                self._taken |= claimed
                return name
        raise AssertionError("numbers do not end")


def _numbered(names: tuple[str, ...]) -> Iterator[str]:
    yield from names
    number = 2
    while True:
        yield f"{names[-1]}{'_' if names[-1][-1].isdigit() else ''}{number}"
        number += 1


class _Fields:
    """Plans the fields of a resource."""

    def __init__(self, names: _ClassNames, shared: set[str], class_name: str) -> None:
        self.names = names
        self.class_name = class_name
        self._shared = shared

    def planned(self, fields: Mapping[str, FieldSchema], table: str) -> Iterator[PlannedField]:
        """The fields of the resource itself."""
        parameters = set(fields)
        for name, schema in fields.items():
            alias, whole = class_of(name), f"{self.class_name}{class_of(name)}"
            names = (whole,) if alias in self._shared else (alias, whole)
            ranges = _range_names(name, parameters)
            yield self._field(name, schema.resolved(), names, table=table, range_names=ranges)

    def _field(
        self,
        name: str,
        schema: FieldSchema,
        names: tuple[str, ...],
        *,
        table: str | None = None,
        range_names: tuple[str, str] = ("", ""),
    ) -> PlannedField:
        is_indexed = table is not None and schema.is_indexed
        is_unique = table is not None and schema.unique
        alias = self.names.claim(*names)
        first, second = examples_of(name, schema)
        inner: dict[str, Any] = {}
        if schema.properties is not None:
            whole = f"{self.class_name}{alias.removeprefix(self.class_name)}"
            inner["class_name"] = self.names.claim_models(whole, f"{whole}Value")
            pairs = schema.properties.items()
            inner["fields"] = tuple(
                self._field(key, each, (f"{alias}{class_of(key)}",)) for key, each in pairs
            )
        if schema.items is not None:
            inner["item"] = self._field(name, schema.items, (f"{alias}Item",))
        return PlannedField(
            name=name,
            alias=alias,
            schema=schema,
            kind=schema.kind,
            is_indexed=is_indexed,
            is_unique=is_unique,
            index_name=f"ix_{table}__{name}" if is_indexed else None,
            unique_name=f"uq_{table}__{name}" if is_unique else None,
            range_names=range_names,
            examples=(first, second),
            **inner,
        )


def _range_names(name: str, parameters: set[str]) -> tuple[str, str]:
    """The names for `name.gte` and `name.lte`, which no other parameter of a model has."""
    found = []
    for end in ("gte", "lte"):
        parameter = f"{name}_{end}"
        while parameter in parameters:
            parameter += "_"
        parameters.add(parameter)
        found.append(parameter)
    return found[0], found[1]
