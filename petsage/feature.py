"""What a folder has to be: a `Feature` with its `Routes`."""

import inspect
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

from aiohttp import web
from pydantic import BaseModel

from petsage.endpoint import Endpoint, compile_endpoint
from petsage.health import Check
from petsage.signature import Flaw

SETTINGS: Final[web.AppKey[Any]] = web.AppKey("settings", object)
"""A feature's own settings in its application: an instance of its `settings` model."""

Lifespan = Callable[[web.Application], AsyncIterator[None]]
Run = Callable[[web.Request], Awaitable[web.StreamResponse]]
H = TypeVar("H", bound=Callable[..., Any])

_NAME: Final = re.compile(r"\{([^{}]*)\}")
_TAIL: Final = ":path"
_LITERAL: Final = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@-]+")


@dataclass(frozen=True)
class Place:
    """Where something was written."""

    file: str
    line: int


@dataclass(frozen=True)
class Route:
    """One route as its developer declared it."""

    method: str
    path: str
    handler: Callable[..., Any]
    place: Place
    summary: str
    description: str
    tags: tuple[str, ...]
    status: int
    answers: Mapping[int, Any]
    deprecated: bool


class Routes:
    """The routes of a feature, gathered by decorators.

    Args:
        prefix: goes before each path: "" or "/pets".
        tags: of every route, in the API's documentation.
    """

    def __init__(self, prefix: str = "", tags: Iterable[str] = ()) -> None:
        self.prefix = prefix
        self.tags = tuple(tags)
        self.declared: list[Route] = []

    def get(self, path: str, **options: Any) -> Callable[[H], H]:
        """Answers GET, and HEAD, on `path`; see `add` for the options."""
        return partial(self.add, "GET", path, **options)

    def post(self, path: str, **options: Any) -> Callable[[H], H]:
        """Answers POST on `path`; see `add` for the options."""
        return partial(self.add, "POST", path, **options)

    def put(self, path: str, **options: Any) -> Callable[[H], H]:
        """Answers PUT on `path`; see `add` for the options."""
        return partial(self.add, "PUT", path, **options)

    def patch(self, path: str, **options: Any) -> Callable[[H], H]:
        """Answers PATCH on `path`; see `add` for the options."""
        return partial(self.add, "PATCH", path, **options)

    def delete(self, path: str, **options: Any) -> Callable[[H], H]:
        """Answers DELETE on `path`; see `add` for the options."""
        return partial(self.add, "DELETE", path, **options)

    def add(
        self,
        method: str,
        path: str,
        handler: H,
        *,
        summary: str | None = None,
        description: str | None = None,
        tags: Iterable[str] = (),
        status: int = 200,
        answers: Mapping[int, Any] | None = None,
        deprecated: bool = False,
    ) -> H:
        """Declares one route and gives the handler back as it was.

        Args:
            method: GET, POST, PUT, PATCH or DELETE.
            path: begins with a slash; `{name}` is one segment, `{name:path}` all that is left.
            handler: an `async def`; what is wrong with it is said when the feature is checked.
            summary: of the API's documentation; the docstring's first line where left out.
            description: likewise; the rest of the docstring.
            tags: besides those of the `Routes`.
            status: the HTTP status of an ordinary answer.
            answers: the models of other statuses' bodies; `Problem` for a problem document.
            deprecated: whether callers should leave it.
        """
        first, rest = _docstring_of(handler)
        self.declared.append(
            Route(
                method,
                f"{self.prefix}{path}",
                handler,
                place_of(handler),
                first if summary is None else summary,
                rest if description is None else description,
                (*self.tags, *tags),
                status,
                dict(answers or {}),
                deprecated,
            )
        )
        return handler


class Feature:
    """What the folder's `__init__.py` ends with: `feature = Feature(routes)`.

    Args:
        routes: the routes, or several of them.
        mount: goes before each path.
        version: the feature's own version.
        needs: names of features that have to be up before this one.
        settings: a pydantic model, filled from `[features.<name>]` and kept in the feature's
            application under `SETTINGS`.
        lifespan: an async generator function over the feature's application: start, `yield`,
            stop.
        checks: what the feature says of its own health.
        middlewares: aiohttp middlewares around each handler, the first outermost.
    """

    def __init__(
        self,
        routes: Routes | Sequence[Routes],
        *,
        mount: str = "/api/v1",
        version: str = "1.0.0",
        needs: Iterable[str] = (),
        settings: type[BaseModel] | None = None,
        lifespan: Lifespan | None = None,
        checks: Iterable[Check] = (),
        middlewares: Iterable[Any] = (),
    ) -> None:
        self.routes = (routes,) if isinstance(routes, Routes) else tuple(routes)
        self.mount = mount
        self.version = version
        # A lone string would be taken for the names of its letters.
        self.needs = (needs,) if isinstance(needs, str) else tuple(needs)
        self.settings = settings
        self.lifespan = lifespan
        self.checks = tuple(checks)
        self.middlewares = tuple(middlewares)


@dataclass(frozen=True)
class PathTemplate:
    """A path taken apart: literal segments as strings, `{name}` as None.

    Attributes:
        text: the path as it was declared, the mount before it.
        segments: what stands between slashes; None where any one segment may stand.
        names: the names of those, in order, that of the tail last.
        tail: whether the last name takes all that is left.
    """

    text: str
    segments: tuple[str | None, ...]
    names: tuple[str, ...]
    tail: bool


@dataclass(frozen=True)
class CompiledRoute:
    """A route that can be served."""

    route: Route
    path: PathTemplate
    endpoint: Endpoint
    operation_id: str
    run: Run = field(repr=False)


def compile_feature(
    feature: Feature, name: str
) -> tuple[list[CompiledRoute], list[tuple[Place | None, Flaw]]]:
    """Every route of a feature, compiled; and all that is wrong, each with its place if it has one.

    Args:
        feature: what the folder's `__init__.py` has.
        name: the feature's name; operation ids begin with it.
    """
    flaws: list[tuple[Place | None, Flaw]] = [(None, flaw) for flaw in _feature_flaws(feature)]
    compiled: list[CompiledRoute] = []
    taken: set[str] = set()
    declared = [
        route
        for routes in feature.routes
        if isinstance(routes, Routes)
        for route in routes.declared
    ]
    for route in declared:
        path = parse_path(f"{feature.mount}{route.path}" if feature.mount else route.path)
        if isinstance(path, Flaw):
            flaws.append((route.place, path))
            continue
        endpoint, wrong = compile_endpoint(
            route.handler,
            method=route.method,
            path_names=path.names,
            status=route.status,
            answers=route.answers,
        )
        flaws += [(route.place, flaw) for flaw in wrong]
        if endpoint is not None:
            operation_id = _operation_id(name, route, taken)
            run = _compose(endpoint, feature.middlewares)
            compiled.append(CompiledRoute(route, path, endpoint, operation_id, run))
    return compiled, flaws


def parse_path(text: str) -> PathTemplate | Flaw:
    """A path as a template, or what is wrong with it."""

    def flaw(problem: str, fix: str) -> Flaw:
        return Flaw("bad-path", f"the path {text!r} {problem}", fix)

    if not text.startswith("/"):
        return flaw("does not begin with a slash", f"write {'/' + text!r}")
    if text == "/":
        return PathTemplate(text, ("",), (), tail=False)
    if text.endswith("/"):
        return flaw("ends with a slash", f"write {text.rstrip('/')!r}")
    segments: list[str | None] = []
    names: list[str] = []
    tail = False
    parts = text[1:].split("/")
    for number, part in enumerate(parts, 1):
        match = _NAME.fullmatch(part)
        if match is None:
            if part in {".", ".."} or not _LITERAL.fullmatch(part):
                return flaw(
                    f"has the segment {part!r}",
                    "use letters, digits and `-._~!$&'()*+,;=:@`, or one `{name}` for all of it",
                )
            segments.append(part)
            continue
        name = match.group(1)
        if name.endswith(_TAIL) and number == len(parts):
            name, tail = name.removesuffix(_TAIL), True
        if not name.isidentifier():
            return flaw(
                f"has {part!r}, which is no argument's name",
                "put a pattern into the annotation, as in `id: Annotated[str, Field(pattern=…)]`",
            )
        if name in names:
            return flaw(f"has {part!r} twice", "give each its own name")
        names.append(name)
        segments.append(None)
    return PathTemplate(text, tuple(segments), tuple(names), tail)


def place_of(thing: Any) -> Place:
    """Where a function was written; of another object, where its class was."""
    code = getattr(inspect.unwrap(thing), "__code__", None) if callable(thing) else None
    if code is None:
        return Place("?", 0)
    return Place(code.co_filename, code.co_firstlineno)


def _docstring_of(handler: Any) -> tuple[str, str]:
    """A docstring's first line without its full stop, and the rest of it."""
    text = inspect.getdoc(handler) or ""
    first, _, rest = text.partition("\n")
    return first.strip().removesuffix("."), rest.strip()


def _operation_id(name: str, route: Route, taken: set[str]) -> str:
    """`<feature>.<handler>`; where one handler has several routes, the later ones say which."""
    handler = getattr(route.handler, "__name__", "handler")
    operation_id = f"{name}.{handler}"
    if operation_id in taken:
        path = re.sub(r"[^A-Za-z0-9]+", "_", route.path).strip("_")
        operation_id = f"{operation_id}.{route.method.lower()}.{path}"
    taken.add(operation_id)
    return operation_id


def _compose(endpoint: Endpoint, middlewares: Sequence[Any]) -> Run:
    run: Run = endpoint
    for middleware in reversed(middlewares):
        run = partial(middleware, handler=run)
    return run


def _feature_flaws(feature: Feature) -> list[Flaw]:
    """What is wrong with the arguments of `Feature(...)`."""
    flaws = []

    def expect(right: bool, argument: str, value: Any, fix: str) -> None:
        if not right:
            flaws.append(Flaw("bad-feature", f"`{argument}` of the Feature is {value!r}", fix))

    for routes in feature.routes:
        expect(isinstance(routes, Routes), "routes", routes, "give it a `Routes()`")
    mount = feature.mount
    expect(
        isinstance(mount, str) and (mount == "" or isinstance(parse_path(mount), PathTemplate)),
        "mount",
        mount,
        'write "" or a path such as "/api/v1"',
    )
    expect(isinstance(feature.version, str), "version", feature.version, 'write it as "1.0.0"')
    for name in feature.needs:
        expect(isinstance(name, str), "needs", name, 'name features, as in needs=("pets",)')
    settings = feature.settings
    expect(
        settings is None or (isinstance(settings, type) and issubclass(settings, BaseModel)),
        "settings",
        settings,
        "give it a pydantic model, the class itself",
    )
    expect(
        feature.lifespan is None or inspect.isasyncgenfunction(feature.lifespan),
        "lifespan",
        feature.lifespan,
        "write `async def lifespan(app): …; yield; …`",
    )
    for check in feature.checks:
        expect(
            isinstance(check, Check) and inspect.iscoroutinefunction(check.probe),
            "checks",
            check,
            "give it `Check(name, probe)` with an `async def probe(app)`",
        )
    for middleware in feature.middlewares:
        expect(
            getattr(middleware, "__middleware_version__", None) == 1,
            "middlewares",
            middleware,
            "write `@web.middleware` above `async def name(request, handler)`",
        )
    return flaws
