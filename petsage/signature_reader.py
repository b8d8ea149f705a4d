"""A handler's signature, read once: where each argument comes from.

What a signature cannot mean becomes a `Flaw` with its fix, all of them at once.

Longer than 300 lines: one rule after another, each a few lines and the text of its flaw.
"""

import inspect
import typing
from collections.abc import Callable, Iterable
from types import NoneType, SimpleNamespace, UnionType
from typing import Annotated, Any, Final, Never, NoReturn, get_args, get_origin

from aiohttp import web
from pydantic.fields import FieldInfo

from petsage.backtracking import slow_patterns
from petsage.bounding import Bounded
from petsage.collisions import guard
from petsage.shapes import JsonType, UnusableType
from petsage.signature import (
    AnswerHeader,
    AppParameter,
    Body,
    BodyParameter,
    Cookie,
    Flaw,
    FromApp,
    Header,
    Parameter,
    Query,
    Reply,
    Returns,
    Signature,
    Where,
    name_of,
)

BODY_METHODS: Final = frozenset(("POST", "PUT", "PATCH"))


def read_signature(
    handler: Callable[..., Any], method: str, path_names: tuple[str, ...]
) -> tuple[Signature, Returns | None, list[Flaw]]:
    """Where each argument of `handler` comes from, and all that its declaration cannot mean.

    Args:
        handler: an `async def`.
        method: the HTTP method that it answers.
        path_names: the names in braces in its path.

    Returns:
        That, what it returns, None where it is not annotated, and what is wrong.
    """
    reader = _Reader(handler, method, path_names)
    reader.read()
    signature = Signature(tuple(reader.parameters), reader.body, reader.request, tuple(reader.apps))
    return signature, reader.returns, reader.flaws


class _Reader:
    """Reads one signature, and gathers what it finds."""

    def __init__(
        self, handler: Callable[..., Any], method: str, path_names: tuple[str, ...]
    ) -> None:
        self._handler = handler
        self._name = name_of(handler)
        self._method = method
        self._path_names = path_names
        self.parameters: list[Parameter] = []
        self.body: BodyParameter | None = None
        self.request: str | None = None
        self.apps: list[AppParameter] = []
        self.returns: Returns | None = None
        self.flaws: list[Flaw] = []

    def read(self) -> None:
        declared = inspect.signature(self._handler)
        hints = self._read_hints()
        for name, parameter in declared.parameters.items():
            if parameter.annotation is parameter.empty or name in hints:
                self._read_argument(parameter, hints.get(name, parameter.empty))
        self._find_doubles()
        for name in self._path_names:
            # Who takes the request can take its path's names out of it.
            if name not in declared.parameters and self.request is None:
                self._flaw(
                    "path-mismatch",
                    f"the path has `{{{name}}}`, and `{self._name}` has no argument of that name",
                    f"add the argument `{name}`, or take `{{{name}}}` out of the path",
                )
        if "return" in hints:
            self.returns = split_returns(hints["return"])
        elif declared.return_annotation is not declared.empty:
            self.returns = Returns(raw=True)  # it cannot be resolved, which was said already

    def _read_hints(self) -> dict[str, Any]:
        """The annotations, resolved one by one where one of them cannot be."""
        try:
            return typing.get_type_hints(self._handler, include_extras=True)
        except Exception:  # noqa: BLE001 - an annotation may be any expression; told just below
            plain = inspect.unwrap(self._handler)
        hints: dict[str, Any] = {}
        for name, annotation in plain.__annotations__.items():
            alone = SimpleNamespace(__annotations__={name: annotation})
            try:
                hints |= typing.get_type_hints(alone, plain.__globals__, include_extras=True)
            except Exception as error:  # noqa: BLE001 - an annotation may be any expression
                where = "return annotation" if name == "return" else f"annotation of `{name}`"
                self._flaw(
                    "bad-annotation",
                    f"the {where} of `{self._name}` cannot be resolved: {error}",
                    "import what it names at the top of the file",
                )
        return hints

    def _flaw(self, kind: str, problem: str, fix: str) -> None:
        self.flaws.append(Flaw(kind, problem, fix))

    def _read_argument(self, parameter: inspect.Parameter, annotation: Any) -> None:
        """Enters an argument: where it comes from.

        Longer than 40 lines: the places are asked in an order, which is what it says.
        """
        name = parameter.name
        annotation = _unaliased(annotation)
        markers, plain = _markers_of(annotation)
        if self._cannot_be_given(parameter) or self._has_odd_marker(parameter, markers):
            return
        if _is_request(plain) or (annotation is parameter.empty and name == "request"):
            if self.request is not None:
                self._flaw(
                    "bad-parameter",
                    f"`{self.request}` and `{name}` of `{self._name}` both are the request",
                    "take one of them out",
                )
            self.request = name
            return
        if annotation is parameter.empty:
            self._flaw(
                "bad-annotation",
                f"the argument `{name}` of `{self._name}` has no annotation",
                f"say its type, as in `{name}: str`",
            )
            return
        marker = markers[0] if markers else None
        if isinstance(marker, FromApp):
            self._take_app(name, marker, plain)
            return
        try:
            kind = JsonType(annotation)
        except UnusableType as error:
            self._flaw(
                "bad-annotation",
                f"the type of `{name}` of `{self._name}` is none that JSON can mean: {error}",
                "use a type that pydantic knows, or `Annotated[…, FromApp(KEY)]` for an object",
            )
            return
        for pattern in slow_patterns(kind.adapter.core_schema):
            self._flaw(
                "slow-pattern",
                f"`{name}` of `{self._name}` has to match `{pattern:.80}` by Python's engine, and "
                "a text can keep that busy for ever",
                "leave out the `regex_engine`, or `re.compile`; or let no repeat stand in a repeat",
            )
        if kind.has_expressions:
            self._flaw(
                "slow-pattern",
                f"`{name}` of `{self._name}` is a regular expression that its client writes, and "
                "to compile one alone can take minutes",
                "take a `str`, and look for it as it is",
            )
        self._place(parameter, kind, marker)

    def _cannot_be_given(self, parameter: inspect.Parameter) -> bool:
        """Finds arguments that cannot be given by name."""
        name = parameter.name
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            stars = "*" if parameter.kind is parameter.VAR_POSITIONAL else "**"
            self._flaw(
                "bad-parameter",
                f"`{self._name}` takes `{stars}{name}`, and a request has no such thing",
                "declare each argument by its name",
            )
            return True
        if parameter.kind is parameter.POSITIONAL_ONLY:
            self._flaw(
                "bad-parameter",
                f"the argument `{name}` of `{self._name}` can be given by position only",
                "take the `/` out of the signature",
            )
            return True
        return False

    def _has_odd_marker(self, parameter: inspect.Parameter, markers: list[Any]) -> bool:
        """Finds a marker that is too many, in the wrong place, or without its key."""
        name = parameter.name
        if len(markers) > 1:
            said = " and ".join(f"`{type(marker).__name__}`" for marker in markers)
            self._flaw(
                "bad-parameter",
                f"`{name}` of `{self._name}` comes from {said} at once",
                "keep one of them",
            )
            return True
        if markers and isinstance(markers[0], FromApp):
            key: Any = markers[0].key
            if isinstance(key, web.AppKey):
                return False
            self._flaw(
                "bad-parameter",
                f"`{name}` of `{self._name}` asks for {key!r:.80}, and that is no key",
                'write `FromApp(KEY)`, with `KEY = AppKey("…", …)` at the top of a file',
            )
            return True
        if isinstance(parameter.default, Query | Body | FromApp | FieldInfo):
            said = type(parameter.default).__name__.removesuffix("Info")
            self._flaw(
                "bad-parameter",
                f"the default of `{name}` of `{self._name}` is a `{said}(…)`, and would be its "
                "value",
                f"write `{name}: Annotated[…, {said}(…)] = default`",
            )
            return True
        return False

    def _place(self, parameter: inspect.Parameter, kind: JsonType, marker: Any) -> None:
        """Decides where an argument comes from; the rules are in docs/handlers.md."""
        name = parameter.name
        if name in self._path_names:
            self._take_path(parameter, kind, marker)
        elif parameter.default is parameter.empty and kind.adapter.get_default_value() is not None:
            self._flaw(
                "bad-parameter",
                f"the default of `{name}` of `{self._name}` stands in its annotation",
                f"write it behind: `{name}: Annotated[…] = default`",
            )
        elif isinstance(marker, Query):
            self._take_query(parameter, kind, marker)
        elif isinstance(marker, Body) or (
            kind.shape == "document" and self._method in BODY_METHODS
        ):
            self._take_body(parameter, kind, marker if isinstance(marker, Body) else Body())
        elif kind.shape == "document":
            self._flaw(
                "bad-parameter",
                f"a {self._method} has no body, and `{name}` of `{self._name}` is no scalar",
                f"write `{name}: Annotated[…, Query()]` to take the query, or `Body()` for a body",
            )
        elif parameter.default is parameter.empty:
            place = f"put `{{{name}}}` into the path, " if kind.shape == "scalar" else ""
            body = ", or `Body()` for the body" if self._method in BODY_METHODS else ""
            self._flaw(
                "bad-parameter",
                f"`{name}` of `{self._name}` is not in the path and has no default",
                f"{place}give it a default, or write `{name}: Annotated[…, Query()]` for one that "
                f"a query must have{body}",
            )
        else:
            self._take_query(parameter, kind, Query())

    def _take_app(self, name: str, marker: FromApp, kind: Any) -> None:
        if name in self._path_names:
            self._flaw(
                "bad-parameter",
                f"`{name}` of `{self._name}` stands in the path, and is taken from an application",
                "call one of the two otherwise",
            )
        self.apps.append(AppParameter(name, marker.key, kind))

    def _take_path(self, parameter: inspect.Parameter, kind: JsonType, marker: Any) -> None:
        if kind.shape != "scalar" or marker is not None:
            self._flaw(
                "bad-parameter",
                f"`{parameter.name}` of `{self._name}` stands in the path, which has one string "
                "for it",
                "annotate it with a scalar such as `int`, `UUID` or `Literal[…]`, and no marker",
            )
            return
        self.parameters.append(
            Parameter(parameter.name, "path", parameter.name, kind.adapter, required=True)
        )

    def _take_query(self, parameter: inspect.Parameter, kind: JsonType, marker: Query) -> None:
        where: Where = "query"
        name = marker.name or parameter.name
        if isinstance(marker, Header):
            where, name = "header", marker.name or parameter.name.replace("_", "-")
        elif isinstance(marker, Cookie):
            where = "cookie"
        list_names = None
        if kind.shape == "document":
            list_names = kind.list_names
            if where != "query" or list_names is None:
                self._flaw(
                    "bad-parameter",
                    f"`{parameter.name}` of `{self._name}` is no scalar, nor a list of them",
                    "use a scalar, or a model of scalars with `Query()` for all of the query",
                )
                return
            name = ""
        if where == "cookie" and kind.shape == "list":
            self._flaw(
                "bad-parameter",
                f"`{parameter.name}` of `{self._name}` is a list, and a cookie has one value",
                "use a scalar",
            )
            return
        required = parameter.default is parameter.empty
        self.parameters.append(
            Parameter(
                parameter.name,
                where,
                name,
                kind.adapter,
                required=required,
                many=kind.shape == "list",
                default=None if required else parameter.default,
                marker=marker,
                list_names=list_names,
            )
        )

    def _take_body(self, parameter: inspect.Parameter, kind: JsonType, marker: Body) -> None:
        if self.body is not None:
            self._flaw(
                "bad-parameter",
                f"`{self.body.argument}` and `{parameter.name}` of `{self._name}` both want the "
                "body",
                "make them one model",
            )
            return
        guard(kind.adapter)
        required = parameter.default is parameter.empty
        self.body = BodyParameter(
            parameter.name,
            kind.adapter,
            Bounded(kind.adapter),
            required,
            marker,
            has_moments=kind.has_moments,
        )

    def _find_doubles(self) -> None:
        """Finds two arguments that want the same value; a query model wants all of the query."""
        taken: dict[tuple[str, str], str] = {}
        for parameter in self.parameters:
            name = "" if self._is_shared_query(parameter) else parameter.name
            key = (parameter.where, name.lower() if parameter.where == "header" else name)
            if taken.setdefault(key, parameter.argument) == parameter.argument:
                continue
            what = f"the {parameter.where}'s {parameter.name!r}" if name else "all of the query"
            self._flaw(
                "bad-parameter",
                f"`{taken[key]}` and `{parameter.argument}` of `{self._name}` both want {what}",
                "give one another name" if name else "make the one a member of the other",
            )

    def _is_shared_query(self, parameter: Parameter) -> bool:
        """Whether it comes from a query that another argument takes all of."""
        return parameter.where == "query" and any(
            each.list_names is not None for each in self.parameters
        )


def _is_request(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, web.BaseRequest)


def _unaliased(annotation: Any) -> Any:
    """What stands behind `type Name = …`."""
    while hasattr(annotation, "__value__"):
        annotation = annotation.__value__
    return annotation


def _markers_of(annotation: Any) -> tuple[list[Any], Any]:
    """The markers in an `Annotated`, and the type without any."""
    if get_origin(annotation) is not Annotated:
        return [], annotation
    plain, *extras = get_args(annotation)
    markers = [
        extra() if isinstance(extra, type) and issubclass(extra, Query | Body) else extra
        for extra in extras
    ]
    if FromApp in markers:  # the class itself: the key is left out
        markers.append(FromApp(None))  # type: ignore[arg-type] # found as a flaw
    return [each for each in markers if isinstance(each, Query | Body | FromApp)], plain


def split_returns(annotation: Any) -> Returns:
    """A return annotation, taken apart; `Reply[T]` counts as `T` with a status of its own."""
    annotation = _unaliased(annotation)
    origin, parts = get_origin(annotation), get_args(annotation)
    if annotation is None or annotation is NoneType:
        return Returns(nothing=True)
    if annotation in {NoReturn, Never}:
        return Returns(raw=True)
    if annotation is Reply:
        return Returns(Any, nothing=True, reply=True)
    if origin is Reply:
        return _joined([split_returns(parts[0]), Returns(reply=True)])
    if origin in {typing.Union, UnionType}:
        return _joined([split_returns(part) for part in parts])
    if origin is Annotated:
        inner = split_returns(parts[0])
        # What an `Annotated` says of JSON is kept with it.
        if inner == Returns(parts[0]):
            return Returns(annotation)
        headers = dict(inner.headers)
        for part in parts[1:]:
            if isinstance(part, AnswerHeader):
                headers[part.name] = part.description
        return inner._replace(headers=headers)
    if isinstance(annotation, type) and issubclass(annotation, web.StreamResponse):
        return Returns(raw=True)
    return Returns(annotation)


def _joined(parts: Iterable[Returns]) -> Returns:
    parts = list(parts)
    kinds = [part.kind for part in parts if part.kind is not None]
    return Returns(
        typing.Union[tuple(kinds)] if kinds else None,  # noqa: UP007 - built at run time
        nothing=any(part.nothing for part in parts),
        raw=any(part.raw for part in parts),
        reply=any(part.reply for part in parts),
        headers={name: text for part in parts for name, text in part.headers.items()},
    )
