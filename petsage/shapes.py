"""Types as JSON sees them: how one comes in and goes out, and whether it is a scalar or more."""

from collections.abc import Callable, Mapping
from functools import cache, cached_property
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, PydanticUserError, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaWarningKind
from pydantic_core import PydanticSerializationError, core_schema

from petsage.serializing import to_json

Shape = Literal["scalar", "list", "document"]
Mode = Literal["validation", "serialization"]

_SCALARS: Final = frozenset(("string", "integer", "number", "boolean"))


class SchemaGenerator(GenerateJsonSchema):
    """pydantic's generator; a default that is not JSON is left out, and not warned of."""

    ignored_warning_kinds: set[JsonSchemaWarningKind] = {  # noqa: RUF012 - as pydantic has it
        "skipped-choice",
        "non-serializable-default",
    }

    def decimal_schema(self, schema: core_schema.DecimalSchema) -> dict[str, Any]:
        """A decimal as a number or, where it comes in or goes out as text, what that has to be.

        JSON Schema has no word for a bound of what a text says; the sign alone can be told.
        """
        made = super().decimal_schema(schema)
        least = schema.get("ge", schema.get("gt"))
        sign = "[+]?" if least is not None and least >= 0 else "[+-]?"
        pattern = rf"^{sign}([0-9]+([.][0-9]*)?|[.][0-9]+)([eE][+-]?[0-9]{{1,6}})?$"
        for each in made.get("anyOf", [made]):
            if each.get("type") == "string":
                each.setdefault("pattern", pattern)
        return made

    def set_schema(self, schema: core_schema.SetSchema) -> dict[str, Any]:
        """A set; one that comes in may have a member twice, which is taken once."""
        return self._taken(super().set_schema(schema))

    def frozenset_schema(self, schema: core_schema.FrozenSetSchema) -> dict[str, Any]:
        """As a set."""
        return self._taken(super().frozenset_schema(schema))

    def _taken(self, made: dict[str, Any]) -> dict[str, Any]:
        if self.mode == "validation":
            made.pop("uniqueItems", None)
        return made

    def build_schema_type_to_method(self) -> dict[Any, Callable[[Any], dict[str, Any]]]:
        """The method for each kind of schema, looked up when it is wanted: few are, of sixty."""
        return _Methods(self)


class _Methods(dict[Any, Callable[[Any], dict[str, Any]]]):
    """A generator's methods, by the kind of schema; they are named after it."""

    def __init__(self, generator: SchemaGenerator) -> None:
        super().__init__()
        self._generator = generator

    def __missing__(self, kind: str) -> Callable[[Any], dict[str, Any]]:
        method: Callable[[Any], dict[str, Any]]
        method = getattr(self._generator, f"{kind.replace('-', '_')}_schema")
        self[kind] = method
        return method


class UnusableType(Exception):  # noqa: N818 - said of the type, not of what went wrong
    """A type that cannot be validated, or has no JSON schema; its text says why in a line."""


class JsonType:
    """A type that JSON can mean.

    Args:
        annotation: the type as it was written.
        mode: which of its two schemas has to be there: that of what goes in, or out.

    Raises:
        UnusableType: it cannot be compiled, or has no JSON schema.
    """

    def __init__(self, annotation: Any, mode: Mode = "validation") -> None:
        try:
            # `is`: what only equals one of them may have a hash that raises.
            plain = next((each for each in _PLAIN if annotation is each), None)
            compiled = _compile(annotation, mode) if plain is None else _compile_plain(plain, mode)
            self.adapter, self.schema = compiled
        except Exception as error:
            # A type's own hooks run here, and may raise anything.
            raise UnusableType(_first_line(error)) from error
        self._definitions: Mapping[str, Any] = self.schema.get("$defs", {})

    @cached_property
    def shape(self) -> Shape:
        """Whether it is a scalar, a list of scalars (or one or the other), or more."""
        branches = self._branches(self.schema)
        if self._is_scalar(self.schema):
            return "scalar"
        if branches and all(self._is_list(each) or self._is_scalar(each) for each in branches):
            return "list"
        return "document"

    @property
    def has_moments(self) -> bool:
        """Whether a day, or a day and time, may be in it."""
        return "'format': 'date" in str(self.schema)

    @property
    def has_expressions(self) -> bool:
        """Whether a regular expression may be in it."""
        return "'format': 'regex'" in str(self.schema)

    @cached_property
    def list_names(self) -> frozenset[str] | None:
        """Of a type that can take all of a query, the names that may stand several times.

        None where it is no object, or a member is neither a scalar nor a list of scalars.
        """
        branches = self._branches(self.schema)
        if len(branches) != 1 or branches[0].get("type") != "object":
            return None
        names = set()
        for name, member in branches[0].get("properties", {}).items():
            if self._is_scalar(member):
                continue
            if not all(
                self._is_list(each) or self._is_scalar(each) for each in self._branches(member)
            ):
                return None
            names.add(name)
        return frozenset(names)

    def _branches(self, schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """The alternatives of a schema, `null` left out, references followed."""
        if "$ref" in schema:
            return self._branches(self._definitions.get(schema["$ref"].rpartition("/")[2], {}))
        alternatives = schema.get("anyOf") or schema.get("oneOf")
        if not alternatives:
            return [] if schema.get("type") == "null" else [schema]
        return [branch for each in alternatives for branch in self._branches(each)]

    def _is_scalar(self, schema: Mapping[str, Any]) -> bool:
        branches = self._branches(schema)
        return bool(branches) and all(
            branch.get("type") in _SCALARS
            or (("enum" in branch or "const" in branch) and "type" not in branch)
            for branch in branches
        )

    def _is_list(self, schema: Mapping[str, Any]) -> bool:
        return schema.get("type") == "array" and self._is_scalar(schema.get("items", {}))


class JsonAnswer:
    """What becomes a JSON body.

    Args:
        annotation: its type.
        adapter: that type's; one that is deferred is made at the first answer.

    Attributes:
        model: the pydantic model that it is; None where it is anything else.
    """

    def __init__(self, annotation: Any, adapter: TypeAdapter[Any]) -> None:
        self.adapter = adapter
        is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
        self.model: type[BaseModel] | None = annotation if is_model else None
        self._field_count = len(annotation.model_fields) if is_model else 0

    @cached_property
    def _validate(self) -> Callable[..., Any]:
        return self.adapter.validator.validate_python

    @cached_property
    def _serialize(self) -> Callable[..., bytes]:
        return self.adapter.serializer.to_json

    def prepare(self) -> None:
        """Makes now what the first answer would take longer for."""
        self._validate, self._serialize  # noqa: B018 - kept from here on

    def to_json(self, value: Any) -> bytes:
        """The body.

        Raises:
            ValidationError, PydanticSerializationError: the value is not of the type.
        """
        # The serializer alone takes None, and models of another class, for anything. Validation
        # is cheap, since it does not look into models, and makes one of a dict.
        value = self._validate(value, by_alias=True, by_name=True)
        # What `model_construct` made, or `del` took from, would go out as it is.
        if self._field_count and len(value.__dict__) < self._field_count:
            raise PydanticSerializationError("a field of it has no value")
        return to_json(self._serialize, value)


Trust = Literal["none", "checked", "own"]
"""What is known of a feature's types beforehand: nothing; that all of them have been compiled in
a check, so each has a JSON schema; or that they are the core's, and its tests say so."""


class AnswerTypes:
    """The types that one feature answers with, each compiled once however many routes name it.

    Args:
        trust: what is known of them. To look for a JSON schema takes longer than all the rest, and
            is left out where there is one; what the core's own answers take is made at the first.
    """

    def __init__(self, trust: Trust = "none") -> None:
        self._trust = trust
        # By identity: what is merely equal may mean something else, `int | str` and `str | int`.
        self._compiled: dict[int, tuple[Any, JsonAnswer]] = {}

    def compile(self, annotation: Any) -> JsonAnswer:
        """What goes out as `annotation`.

        Raises:
            UnusableType: as `JsonType`.
        """
        if id(annotation) not in self._compiled:
            # The annotation is kept, and no other has its id meanwhile.
            answer = JsonAnswer(annotation, self._adapter(annotation))
            if self._trust != "own":
                answer.prepare()
            self._compiled[id(annotation)] = annotation, answer
        return self._compiled[id(annotation)][1]

    def _adapter(self, annotation: Any) -> TypeAdapter[Any]:
        if self._trust == "none":
            return JsonType(annotation, "serialization").adapter
        try:
            return _make_adapter(annotation, is_deferred=self._trust == "own")
        except Exception as error:
            raise UnusableType(_first_line(error)) from error


_Compiled = tuple[TypeAdapter[Any], Mapping[str, Any]]

_PLAIN: Final = (str, int, float, bool)


def _compile(annotation: Any, mode: Mode) -> _Compiled:
    adapter = _make_adapter(annotation)
    return adapter, adapter.json_schema(mode=mode, schema_generator=SchemaGenerator)


@cache
def _compile_plain(annotation: type, mode: Mode) -> _Compiled:
    """As `_compile`, once for all features: most arguments are of these, which are nobody's."""
    return _compile(annotation, mode)


def _make_adapter(annotation: Any, *, is_deferred: bool = False) -> TypeAdapter[Any]:
    """The adapter for a type, NaN and infinities refused: JSON has none.

    Args:
        annotation: the type.
        is_deferred: whether it is made when it is used; a model says that for itself.
    """
    config = ConfigDict(allow_inf_nan=False, defer_build=is_deferred)
    try:
        return TypeAdapter(annotation, config=config)
    except PydanticUserError as error:
        if error.code != "type-adapter-config-unused":
            raise
        return TypeAdapter(annotation)  # a model, which has a config of its own


def _first_line(error: Exception) -> str:
    """The first line of what an error says, or its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
