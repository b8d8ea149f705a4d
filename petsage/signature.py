"""What a handler's signature may say, and what it is taken for once `signature_reader` read it."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from aiohttp import web
from multidict import istr
from pydantic import TypeAdapter

from petsage.bounding import Bounded

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


class Header(Query):
    """Takes an argument from a header; its name has dashes where the argument's has `_`."""


class Cookie(Query):
    """Takes an argument from a cookie."""


@dataclass(frozen=True)
class Body:
    """Takes an argument from the JSON body, on any method.

    Args:
        description: for the API's documentation.
        example: for the API's documentation.
        media_type: the only content type that is taken, a kind of JSON such as
            `application/merge-patch+json`, or several, the best of them first; where left out,
            JSON by any of its names.
    """

    description: str | None = None
    example: Any = None
    media_type: str | tuple[str, ...] | None = None

    @property
    def media_types(self) -> tuple[str, ...]:
        """The content types that are taken; none where JSON is by any of its names."""
        named = self.media_type
        return (named,) if isinstance(named, str) else named or ()


@dataclass(frozen=True)
class FromApp:
    """Takes an argument from the application: what stands under `key`.

    Looked up once, after start: in the feature's own application, then in those of the
    features it needs, then in the core's. The value's type has to be the argument's.
    """

    key: web.AppKey[Any]


@dataclass(slots=True)  # not frozen, which makes it half as dear again, and answers make many
class Reply(Generic[T]):
    """An answer with a status or headers of its own.

    Args:
        value: what becomes the body; None for none.
        status: the HTTP status, 200 to 599; the route's where left out.
        headers: further headers.
        json: what pydantic's serializer of the value's own model has made of it already, where
            it has; it is not made a second time where that model is what the handler answers with.

    Raises:
        ValueError: the status is another one, which no answer of its own can have.
    """

    value: T
    status: int | None = None
    headers: Mapping[str, str] | None = None
    json: bytes | None = None

    # As a dataclass's own, which would always call `__post_init__`.
    def __init__(
        self,
        value: T,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        json: bytes | None = None,
    ) -> None:
        self.value = value
        self.status = status
        self.headers = headers
        self.json = json
        if status is not None:
            self.__post_init__()

    def __post_init__(self) -> None:
        """Refuses a status that would leave the client without an answer."""
        if self.status is not None and not is_status(self.status):
            raise ValueError(
                f"a `Reply` has the status {self.status!r:.80}; fix: use one of 200 to 599"
            )


def is_status(status: Any) -> bool:
    """Whether an answer may have this status: one below 200 only announces the answer."""
    return isinstance(status, int) and not isinstance(status, bool) and 200 <= status <= 599


@dataclass(frozen=True)
class Media:
    """For `answers`: the content types of a response of the handler's own making.

    Args:
        types: what each content type holds, `str` for text; documented, and not checked.
    """

    types: Mapping[str, Any]


@dataclass(frozen=True)
class AnswerHeader:
    """For a return annotation, `Annotated[Reply[T], AnswerHeader("ETag", "…")]`, any number of it.

    Args:
        name: of a header that ordinary answers have, and 304 too where it is documented.
        description: for the API's documentation, what it says.
    """

    name: str
    description: str


class Flaw(NamedTuple):
    """Something that a signature, a path or an answer cannot mean, and what mends it."""

    id: str
    problem: str
    fix: str


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
        validator: the adapter's own, without what stands before it.
        key: its name as multidicts of headers compare it: made so once, and not at each look.
    """

    __slots__ = (
        *("adapter", "argument", "default", "key", "list_names", "many", "marker", "name"),
        *("required", "validator", "where"),
    )

    def __init__(
        self,
        argument: str,
        where: Where,
        name: str,
        adapter: TypeAdapter[Any],
        *,
        required: bool,
        many: bool = False,
        default: Any = None,
        marker: Query = Query(),
        list_names: frozenset[str] | None = None,
    ) -> None:
        self.argument = argument
        self.where = where
        self.name = name
        self.adapter = adapter
        self.required = required
        self.many = many
        self.default = default
        self.marker = marker
        self.list_names = list_names
        self.validator: Any = adapter.validator
        self.key = istr(name) if where == "header" else name


class BodyParameter(NamedTuple):
    """The argument that comes from the JSON body.

    Attributes:
        adapter: validates it.
        bounded: validates one that is longer than its `free_bytes`.
        has_moments: whether a day, or a day and time, may be in it.
    """

    argument: str
    adapter: TypeAdapter[Any]
    bounded: Bounded
    required: bool
    marker: Body
    has_moments: bool = False


class AppParameter(NamedTuple):
    """An argument that comes from an application, and the type that it must have."""

    argument: str
    key: web.AppKey[Any]
    type: Any


class Returns(NamedTuple):
    """What a return annotation says, taken apart.

    Attributes:
        kind: the type of what becomes JSON; None where nothing does.
        nothing: whether there may be no body at all.
        raw: whether it may be a response of the handler's own making.
        reply: whether it may be a `Reply`, which says its own status.
        headers: what is documented of an answer's headers, by name.
    """

    kind: Any = None
    nothing: bool = False
    raw: bool = False
    reply: bool = False
    headers: Mapping[str, str] = MappingProxyType({})


class Signature(NamedTuple):
    """Where each of a handler's arguments comes from."""

    parameters: tuple[Parameter, ...]
    body: BodyParameter | None
    request: str | None
    apps: tuple[AppParameter, ...]


class Signatures:
    """Those of one feature; what says the same is one.

    Of thousands of routes few are in the processor's caches, but what they have in common is.
    """

    def __init__(self) -> None:
        self._of_paths: dict[tuple[tuple[str, int], ...], Signature] = {}

    def one_for(self, signature: Signature) -> Signature:
        """The one that says the same as `signature`, which may be it.

        Only of those that read the path alone: elsewhere there are defaults, and what is equal,
        as `1` and `True` are, need not be the same.
        """
        if signature.body or signature.request or signature.apps:
            return signature
        if any(each.where != "path" for each in signature.parameters):
            return signature
        # What is kept keeps its adapters, and no other has their ids meanwhile.
        key = tuple((each.name, id(each.adapter)) for each in signature.parameters)
        return self._of_paths.setdefault(key, signature)


def name_of(handler: Any) -> str:
    """A handler's name, for people."""
    return getattr(handler, "__name__", repr(handler))
