"""A handler's signature, read once: where each argument comes from.

What a signature cannot mean becomes a `Flaw` with its fix, all of them at once.
"""

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Generic, Literal, TypeVar, get_args, get_origin

from aiohttp import web
from pydantic import ConfigDict, PydanticUserError, TypeAdapter
from pydantic.errors import PydanticSchemaGenerationError

BODY_METHODS: Final = frozenset(("POST", "PUT", "PATCH"))

T = TypeVar("T")
Where = Literal["path", "query", "header", "cookie"]


@dataclass(frozen=True)
class Query:
    """Takes an argument from the query string; a model takes all of it.

    Args:
        name: its name there; the argument's own where left out.
        description: for the API's documentation.
        example: for the API's documentation.
        deprecated: for the API's documentation.
    """

    name: str | None = None
    description: str | None = None
    example: Any = None
    deprecated: bool = False


@dataclass(frozen=True)
class Header(Query):
    """Takes an argument from a header; its name has dashes where the argument's has `_`."""


@dataclass(frozen=True)
class Cookie(Query):
    """Takes an argument from a cookie."""


@dataclass(frozen=True)
class Body:
    """Takes an argument from the JSON body, on any method.

    Args:
        description: for the API's documentation.
        example: for the API's documentation.
    """

    description: str | None = None
    example: Any = None


@dataclass(frozen=True)
class FromApp:
    """Takes an argument from the application: what stands under `key`.

    Looked up once, after start: in the feature's own application, then in those of the
    features it needs, then in the core's. The value's type has to be the argument's.
    """

    key: web.AppKey[Any]


@dataclass(frozen=True)
class Reply(Generic[T]):
    """An answer with a status or headers of its own.

    Args:
        value: what becomes the body; None for none.
        status: the HTTP status; the route's where left out.
        headers: further headers.
    """

    value: T
    status: int | None = None
    headers: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Flaw:
    """Something that a signature, a path or an answer cannot mean, and what mends it."""

    id: str
    problem: str
    fix: str


@dataclass(frozen=True)
class Parameter:
    """An argument that comes from the path, the query, a header or a cookie.

    Attributes:
        argument: the handler's name for it.
        where: what it comes from.
        name: its name there; for a query model, which takes all names, empty.
        adapter: validates it, from a string or, where `many`, a list of strings.
        required: whether the request must have it; otherwise the handler's default is used.
        many: whether the name may stand several times.
        marker: what its declaration says for the documentation.
        list_names: of a query model, the names that may stand several times.
    """

    argument: str
    where: Where
    name: str
    adapter: TypeAdapter[Any]
    required: bool
    many: bool = False
    default: Any = None
    marker: Query = Query()
    list_names: frozenset[str] | None = None


@dataclass(frozen=True)
class BodyParameter:
    """The argument that comes from the JSON body."""

    argument: str
    adapter: TypeAdapter[Any]
    required: bool
    marker: Body


@dataclass(frozen=True)
class AppParameter:
    """An argument that comes from an application, and the type that it must have."""

    argument: str
    key: web.AppKey[Any]
    type: Any


@dataclass(frozen=True)
class Signature:
    """Where each of a handler's arguments comes from, and what it returns."""

    parameters: tuple[Parameter, ...]
    body: BodyParameter | None
    request: str | None
    apps: tuple[AppParameter, ...]
    returns: Any


def read_signature(
    handler: Callable[..., Any], method: str, path_names: tuple[str, ...]
) -> tuple[Signature, list[Flaw]]:
    """Where each argument of `handler` comes from, and all that its declaration cannot mean.

    Args:
        handler: an `async def`.
        method: the HTTP method that it answers.
        path_names: the names in braces in its path.
    """
    reader = _Reader(handler, method, path_names)
    reader.read()
    return (
        Signature(
            tuple(reader.parameters),
            reader.body,
            reader.request,
            tuple(reader.apps),
            reader.returns,
        ),
        reader.flaws,
    )


class _Reader:
    """Reads one signature, and gathers what it finds."""

    def __init__(
        self, handler: Callable[..., Any], method: str, path_names: tuple[str, ...]
    ) -> None:
        self._handler = handler
        self._method = method
        self._path_names = path_names
        self.parameters: list[Parameter] = []
        self.body: BodyParameter | None = None
        self.request: str | None = None
        self.apps: list[AppParameter] = []
        self.returns: Any = inspect.Signature.empty
        self.flaws: list[Flaw] = []

    def read(self) -> None:
        try:
            hints = typing.get_type_hints(self._handler, include_extras=True)
        except Exception as error:  # noqa: BLE001 - an annotation may be any expression
            self._flaw(
                "bad-annotation",
                f"an annotation of `{self._name}` cannot be resolved: {error}",
                "import what it names at the top of the file",
            )
            return
        declared = inspect.signature(self._handler).parameters
        for name, parameter in declared.items():
            self._read_argument(parameter, hints.get(name, inspect.Parameter.empty))
        for name in self._path_names:
            if name not in declared:
                self._flaw(
                    "path-mismatch",
                    f"the path has `{{{name}}}`, and `{self._name}` has no argument of that name",
                    f"add the argument `{name}`, or take `{{{name}}}` out of the path",
                )
        self.returns = hints.get("return", inspect.Signature.empty)

    @property
    def _name(self) -> str:
        return getattr(self._handler, "__name__", repr(self._handler))

    def _flaw(self, kind: str, problem: str, fix: str) -> None:
        self.flaws.append(Flaw(kind, problem, fix))

    def _read_argument(self, parameter: inspect.Parameter, annotation: Any) -> None:
        name = parameter.name
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            self._flaw(
                "bad-parameter",
                f"`{self._name}` takes `*{name}`, and a request has no such thing",
                "declare each argument by its name",
            )
            return
        if _is_request(annotation) or (annotation is parameter.empty and name == "request"):
            self.request = name
            return
        if annotation is parameter.empty:
            self._flaw(
                "bad-annotation",
                f"the argument `{name}` of `{self._name}` has no annotation",
                f"say its type, as in `{name}: str`",
            )
            return
        marker, plain = _marker_of(annotation)
        if isinstance(marker, FromApp):
            self.apps.append(AppParameter(name, marker.key, plain))
            return
        adapter = self._adapter(name, annotation)
        if adapter is None:
            return
        if parameter.kind is parameter.POSITIONAL_ONLY:
            self._flaw(
                "bad-parameter",
                f"the argument `{name}` of `{self._name}` can be given by position only",
                "take the `/` out of the signature",
            )
            return
        self._place(parameter, adapter, marker)

    def _place(self, parameter: inspect.Parameter, adapter: TypeAdapter[Any], marker: Any) -> None:
        """Decides where an argument comes from; the rules are in docs/handlers.md."""
        name = parameter.name
        shape = _shape_of(adapter)
        if name in self._path_names:
            self._take_path(parameter, adapter, marker, shape)
        elif isinstance(marker, Query):
            self._take_query(parameter, adapter, marker, shape)
        elif isinstance(marker, Body) or (shape == "document" and self._method in BODY_METHODS):
            self._take_body(parameter, adapter, marker if isinstance(marker, Body) else Body())
        elif shape == "document":
            self._flaw(
                "bad-parameter",
                f"a {self._method} has no body, and `{name}` of `{self._name}` is no scalar",
                f"write `{name}: Annotated[…, Query()]` to take the query, or `Body()` for a body",
            )
        elif parameter.default is parameter.empty:
            self._flaw(
                "bad-parameter",
                f"`{name}` of `{self._name}` is not in the path and has no default",
                f"put `{{{name}}}` into the path, give it a default, or write "
                f"`{name}: Annotated[…, Query()]` for one that a query must have",
            )
        else:
            self._take_query(parameter, adapter, Query(), shape)

    def _take_path(
        self, parameter: inspect.Parameter, adapter: TypeAdapter[Any], marker: Any, shape: str
    ) -> None:
        if shape != "scalar" or marker is not None:
            self._flaw(
                "bad-parameter",
                f"`{parameter.name}` of `{self._name}` stands in the path, which has one string "
                "for it",
                "annotate it with a scalar such as `int`, `UUID` or `Literal[…]`, and no marker",
            )
            return
        self.parameters.append(
            Parameter(parameter.name, "path", parameter.name, adapter, required=True)
        )

    def _take_query(
        self, parameter: inspect.Parameter, adapter: TypeAdapter[Any], marker: Query, shape: str
    ) -> None:
        where: Where = "query"
        name = marker.name or parameter.name
        if isinstance(marker, Header):
            where, name = "header", marker.name or parameter.name.replace("_", "-")
        elif isinstance(marker, Cookie):
            where = "cookie"
        list_names = None
        if shape == "document":
            list_names = _list_names(adapter)
            if where != "query" or list_names is None:
                self._flaw(
                    "bad-parameter",
                    f"`{parameter.name}` of `{self._name}` is no scalar, nor a list of them",
                    "use a scalar, or a model with `Query()` for all of the query",
                )
                return
            name = ""
        if where == "cookie" and shape == "list":
            self._flaw(
                "bad-parameter",
                f"`{parameter.name}` of `{self._name}` is a list, and a cookie has one value",
                "use a scalar",
            )
            return
        required = parameter.default is parameter.empty
        default = None if required else parameter.default
        self.parameters.append(
            Parameter(
                parameter.name,
                where,
                name,
                adapter,
                required,
                many=shape == "list",
                default=default,
                marker=marker,
                list_names=list_names,
            )
        )

    def _take_body(
        self, parameter: inspect.Parameter, adapter: TypeAdapter[Any], marker: Body
    ) -> None:
        if self.body is not None:
            self._flaw(
                "bad-parameter",
                f"`{self.body.argument}` and `{parameter.name}` of `{self._name}` both want the "
                "body",
                "make them one model",
            )
            return
        self.body = BodyParameter(
            parameter.name, adapter, parameter.default is parameter.empty, marker
        )

    def _adapter(self, name: str, annotation: Any) -> TypeAdapter[Any] | None:
        try:
            return make_adapter(annotation)
        except (PydanticUserError, PydanticSchemaGenerationError, TypeError, ValueError) as error:
            self._flaw(
                "bad-annotation",
                f"the type of `{name}` of `{self._name}` is none that JSON can mean: "
                f"{first_line(error)}",
                "use a type that pydantic knows, or `Annotated[…, FromApp(KEY)]` for an object",
            )
            return None


def make_adapter(annotation: Any) -> TypeAdapter[Any]:
    """The adapter for a type, NaN and infinities refused: JSON has none.

    Raises:
        PydanticUserError, PydanticSchemaGenerationError, TypeError, ValueError: it cannot be
            compiled, or has no JSON schema.
    """
    try:
        adapter = TypeAdapter(annotation, config=ConfigDict(allow_inf_nan=False))
    except PydanticUserError as error:
        if error.code != "type-adapter-config-unused":
            raise
        adapter = TypeAdapter(annotation)  # a model, which has a config of its own
    adapter.json_schema()
    return adapter


def first_line(error: Exception) -> str:
    """The first line of what an error says, or its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _is_request(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, web.BaseRequest)


def _marker_of(annotation: Any) -> tuple[Any, Any]:
    """The marker in an `Annotated`, None where there is none; and the type without any."""
    if get_origin(annotation) is not Annotated:
        return None, annotation
    plain, *extras = get_args(annotation)
    for extra in extras:
        if isinstance(extra, Query | Body | FromApp):
            return extra, plain
        if isinstance(extra, type) and issubclass(extra, Query | Body):
            return extra(), plain
    return None, plain


Shape = Literal["scalar", "list", "document"]


def _shape_of(adapter: TypeAdapter[Any]) -> Shape:
    """Whether a type is a scalar, a list of scalars, or more: by its JSON schema."""
    schema = adapter.json_schema()
    definitions = schema.get("$defs", {})
    if _is_scalar(schema, definitions):
        return "scalar"
    for branch in _branches(schema, definitions):
        if branch.get("type") == "array" and _is_scalar(branch.get("items", {}), definitions):
            return "list"
    return "document"


def _branches(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The alternatives of a schema, `null` left out, references followed."""
    if "$ref" in schema:
        return _branches(definitions.get(schema["$ref"].rpartition("/")[2], {}), definitions)
    alternatives = schema.get("anyOf") or schema.get("oneOf") or [schema]
    if alternatives == [schema]:
        return [] if schema.get("type") == "null" else [schema]
    return [branch for each in alternatives for branch in _branches(each, definitions)]


def _is_scalar(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> bool:
    branches = _branches(schema, definitions)
    return bool(branches) and all(
        branch.get("type") in {"string", "integer", "number", "boolean"}
        or (("enum" in branch or "const" in branch) and "type" not in branch)
        for branch in branches
    )


def _list_names(adapter: TypeAdapter[Any]) -> frozenset[str] | None:
    """Of a query model, the names that may stand several times; None where it is no object.

    Also None where a member is neither a scalar nor a list of scalars.
    """
    schema = adapter.json_schema()
    definitions = schema.get("$defs", {})
    branches = _branches(schema, definitions)
    if len(branches) != 1 or branches[0].get("type") != "object":
        return None
    names = set()
    for name, member in branches[0].get("properties", {}).items():
        if _is_scalar(member, definitions):
            continue
        for branch in _branches(member, definitions):
            if branch.get("type") != "array" or not _is_scalar(
                branch.get("items", {}), definitions
            ):
                return None
        names.add(name)
    return frozenset(names)


def split_answer(annotation: Any) -> tuple[Any, bool]:
    """A return annotation as the type that becomes JSON, and whether None is among it.

    The type is None itself where nothing becomes JSON. `Reply[T]` counts as `T`, a stream
    response as nothing.
    """
    if annotation is None or annotation is NoneType:
        return None, True
    if annotation is Reply:
        return Any, True
    if get_origin(annotation) is Reply:
        return split_answer(get_args(annotation)[0])
    if get_origin(annotation) in {typing.Union, UnionType}:
        parts = [split_answer(part) for part in get_args(annotation)]
        kept = [part for part, _ in parts if part is not None]
        joined = typing.Union[tuple(kept)] if kept else None  # noqa: UP007 - built at run time
        return joined, any(nothing for _, nothing in parts)
    if isinstance(annotation, type) and issubclass(annotation, web.StreamResponse):
        return None, False
    return annotation, False
