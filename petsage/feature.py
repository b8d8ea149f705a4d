"""What a folder has to be: a `Feature` with its `Routes`.

Longer than 300 lines: what a feature may say stands beside what refuses the rest of it.
"""

import inspect
import re
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from functools import partial
from typing import Any, Final, NamedTuple, TypedDict, TypeVar, Unpack

from aiohttp import web
from pydantic import BaseModel

from petsage.endpoint import Endpoint, compile_endpoint
from petsage.health import Check
from petsage.path_template import PathTemplate, likely_names, parse_path
from petsage.shapes import AnswerTypes, Trust
from petsage.signature import Flaw, Signatures, name_of

SETTINGS: Final[web.AppKey[Any]] = web.AppKey("settings", object)
"""A feature's own settings in its application: an instance of its `settings` model."""

FEATURE_NAME: Final = web.AppKey("feature_name", str)
"""The feature's name, in its application."""

_CHECK_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")

Lifespan = Callable[[web.Application], AsyncIterator[None]]
Run = Callable[[web.Request], Awaitable[web.StreamResponse]]
H = TypeVar("H", bound=Callable[..., Any])


class Place(NamedTuple):
    """Where something was written."""

    file: str
    line: int


class Route(NamedTuple):
    """One route as its developer declared it."""

    method: str
    prefix: str
    path: str
    handler: Callable[..., Any]
    place: Place
    summary: str
    description: str
    tags: tuple[str, ...]
    status: int
    answers: Mapping[int, Any]
    deprecated: bool


class RouteOptions(TypedDict, total=False):
    """What a route may say of itself; `Routes.add` explains each."""

    summary: str | None
    description: str | None
    tags: Iterable[str]
    status: int
    answers: Mapping[int, Any] | None
    deprecated: bool


class Routes:
    """The routes of a feature, gathered by decorators.

    Args:
        prefix: goes before each path: "" or "/pets".
        tags: of every route, in the API's documentation.
    """

    def __init__(self, prefix: str = "", tags: Iterable[str] = ()) -> None:
        self.prefix = prefix
        self.tags = _as_tuple(tags)
        self.declared: list[Route] = []

    def get(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[H], H]:
        """Answers GET, and HEAD, on `path`; see `add` for the options."""
        return self._decorator("GET", path, options)

    def post(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[H], H]:
        """Answers POST on `path`; see `add` for the options."""
        return self._decorator("POST", path, options)

    def put(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[H], H]:
        """Answers PUT on `path`; see `add` for the options."""
        return self._decorator("PUT", path, options)

    def patch(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[H], H]:
        """Answers PATCH on `path`; see `add` for the options."""
        return self._decorator("PATCH", path, options)

    def delete(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[H], H]:
        """Answers DELETE on `path`; see `add` for the options."""
        return self._decorator("DELETE", path, options)

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

        Longer than 40 lines, for all the options that a route has.

        Args:
            method: GET, POST, PUT, PATCH or DELETE.
            path: begins with a slash; `{name}` is one segment, `{name:path}` all that is left.
            handler: an `async def`; what is wrong with it is said when the feature is checked.
            summary: of the API's documentation; the docstring's first line where left out.
            description: likewise; the rest of the docstring.
            tags: besides those of the `Routes`.
            status: the HTTP status of an ordinary answer.
            answers: the models of other statuses' bodies; `Problem` for a problem document, None
                for no body.
            deprecated: whether callers should leave it.
        """
        first, rest = _docstring_of(handler)
        place = place_of(handler)
        self.declared.append(
            Route(
                method,
                self.prefix,
                path,
                handler,
                place if place.line else _place_of_caller(),
                first if summary is None else summary,
                rest if description is None else description,
                (*self.tags, *_as_tuple(tags)),
                status,
                answers or {},
                deprecated,
            )
        )
        return handler

    def _decorator(self, method: str, path: Any, options: RouteOptions) -> Callable[[H], H]:
        if not isinstance(path, str):
            name = method.lower()
            raise TypeError(f'the path comes first: write `@routes.{name}("/…")` above the handler')

        def declare(handler: H) -> H:
            return self.add(method, path, handler, **options)

        return declare


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
        # What is wrong here is said when the feature is checked, with all else that is.
        self.routes: tuple[Routes, ...] = _as_tuple(routes)
        self.mount = mount
        self.version = version
        self.needs: tuple[str, ...] = _as_tuple(needs)
        self.settings = settings
        self.lifespan = lifespan
        self.checks: tuple[Check, ...] = _as_tuple(checks)
        self.middlewares: tuple[Any, ...] = _as_tuple(middlewares)
        self.place = _place_of_caller()


class CompiledRoute(NamedTuple):
    """A route that can be served."""

    route: Route
    path: PathTemplate
    endpoint: Endpoint
    operation_id: str
    run: Run


def compile_feature(
    feature: Feature, name: str, *, trust: Trust = "none"
) -> tuple[list[CompiledRoute], list[tuple[Place | None, Flaw]]]:
    """Every route of a feature, compiled; and all that is wrong, each with its place if it has one.

    Args:
        feature: what the folder's `__init__.py` has.
        name: the feature's name; operation ids begin with it.
        trust: what is known of its types beforehand.
    """
    wrong_arguments = _feature_flaws(feature)
    flaws: list[tuple[Place | None, Flaw]] = [(feature.place, flaw) for flaw in wrong_arguments]
    mount = feature.mount if _is_mount(feature.mount) else ""
    # A middleware that is none is said already, and cannot be composed.
    middlewares = [each for each in feature.middlewares if callable(each)]
    compiled: list[CompiledRoute] = []
    taken: set[str] = set()
    types, signatures = AnswerTypes(trust), Signatures()
    for routes in feature.routes:
        for route in routes.declared if isinstance(routes, Routes) else ():
            path = _route_path(mount, route)
            endpoint, wrong = compile_endpoint(
                route.handler,
                method=route.method,
                path_names=path.names
                if isinstance(path, PathTemplate)
                else likely_names(route.path),
                types=types,
                signatures=signatures,
                status=route.status,
                answers=route.answers,
            )
            wrong += _route_flaws(route)
            if isinstance(path, Flaw):
                wrong.insert(0, path)
            elif endpoint is not None and not wrong:
                operation_id = _operation_id(name, route, taken)
                run = _compose(endpoint, middlewares)
                compiled.append(CompiledRoute(route, path, endpoint, operation_id, run))
            flaws += [(route.place, flaw) for flaw in wrong]
    return compiled, flaws


def _route_path(mount: str, route: Route) -> PathTemplate | Flaw:
    """The whole path of a route, of which each piece has to begin with a slash."""
    prefix = route.prefix
    if prefix and (not isinstance(prefix, str) or not prefix.startswith("/")):
        return Flaw(
            "bad-path",
            f"the prefix {prefix!r} of the Routes does not begin with a slash",
            f"write {'/' + prefix!r}" if isinstance(prefix, str) else 'write it as "/pets"',
        )
    path = route.path
    if not path.startswith("/") and (path or not prefix):
        return Flaw(
            "bad-path", f"the path {path!r} does not begin with a slash", f"write {'/' + path!r}"
        )
    return parse_path(f"{mount}{prefix}{path}")


def _route_flaws(route: Route) -> list[Flaw]:
    """What is wrong with what a route says of itself for the documentation."""
    flaws: list[Flaw] = []
    texts: Any = (("summary", route.summary), ("description", route.description))
    for option, value in texts:
        if not isinstance(value, str):
            problem = f"the `{option}` of `{name_of(route.handler)}` is {value!r:.80}"
            flaws.append(Flaw("bad-answer", problem, "write a string"))
    tags: Any = route.tags
    for tag in tags:
        if not isinstance(tag, str):
            problem = f"a tag of `{name_of(route.handler)}` is {tag!r:.80}"
            flaws.append(Flaw("bad-answer", problem, 'write strings, as in tags=["Pets"]'))
    return flaws


def place_of(thing: Any) -> Place:
    """Where a function was written; of another object nothing is known, and the line is 0."""
    code = getattr(inspect.unwrap(thing), "__code__", None) if callable(thing) else None
    if code is None:
        return Place("?", 0)
    return Place(code.co_filename, code.co_firstlineno)


def _place_of_caller() -> Place:
    """Where the code stands that called into this file."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_filename == __file__:
        frame = frame.f_back
    return Place("?", 0) if frame is None else Place(frame.f_code.co_filename, frame.f_lineno)


def _as_tuple(value: Any) -> tuple[Any, ...]:
    """Several of something; of a lone one, a string among them, a tuple of one."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        return (value,)
    return tuple(value)


def _docstring_of(handler: Any) -> tuple[str, str]:
    """A docstring's first line without its full stop, and the rest of it."""
    text = inspect.getdoc(handler) or ""
    first, _, rest = text.partition("\n")
    return first.strip().removesuffix("."), rest.strip()


def _operation_id(name: str, route: Route, taken: set[str]) -> str:
    """`<feature>.<handler>`; where one name has several routes, the later ones say which."""
    operation_id = f"{name}.{name_of(route.handler)}"
    if operation_id in taken:
        path = re.sub(r"[^A-Za-z0-9]+", "_", f"{route.prefix}{route.path}").strip("_")
        operation_id = f"{operation_id}.{route.method.lower()}.{path}"
    distinct, number = operation_id, 1
    while distinct in taken:
        number += 1
        distinct = f"{operation_id}.{number}"
    taken.add(distinct)
    return distinct


def _compose(endpoint: Endpoint, middlewares: Sequence[Any]) -> Run:
    run: Run = endpoint
    for middleware in reversed(middlewares):
        run = partial(middleware, handler=run)
    return run


def _is_mount(mount: Any) -> bool:
    if not isinstance(mount, str):
        return False
    return mount == "" or (mount != "/" and isinstance(parse_path(mount), PathTemplate))


def _feature_flaws(feature: Feature) -> list[Flaw]:
    """What is wrong with the arguments of `Feature(...)`."""
    flaws = []

    def expect(right: bool, argument: str, value: Any, fix: str) -> None:
        if not right:
            flaws.append(Flaw("bad-feature", f"`{argument}` of the Feature is {value!r:.100}", fix))

    for routes in feature.routes:
        expect(isinstance(routes, Routes), "routes", routes, "give it a `Routes()`")
    expect(_is_mount(feature.mount), "mount", feature.mount, 'write "" or a path such as "/api/v1"')
    expect(isinstance(feature.version, str), "version", feature.version, 'write it as "1.0.0"')
    for name in feature.needs:
        expect(isinstance(name, str), "needs", name, 'name features, as in needs=("pets",)')
    settings, lifespan = feature.settings, feature.lifespan
    is_model = isinstance(settings, type) and issubclass(settings, BaseModel)
    fix = "give it a pydantic model, the class itself"
    expect(settings is None or is_model, "settings", settings, fix)
    fix = "write `async def lifespan(app): …; yield; …`"
    expect(lifespan is None or inspect.isasyncgenfunction(lifespan), "lifespan", lifespan, fix)
    for check, fix in _wrong_checks(feature.checks):
        expect(False, "checks", check, fix)
    for middleware in feature.middlewares:
        right = getattr(middleware, "__middleware_version__", None) == 1 and callable(middleware)
        fix = "write `@web.middleware` above `async def name(request, handler)`"
        expect(right, "middlewares", middleware, fix)
    return flaws


def _wrong_checks(checks: Iterable[Any]) -> Iterator[tuple[Any, str]]:
    """The checks that cannot be run, each with its fix."""
    names: list[Any] = []
    for check in checks:
        if not isinstance(check, Check) or not inspect.iscoroutinefunction(check.probe):
            yield check, "give it `Check(name, probe)` with an `async def probe(app)`"
            continue
        name: Any = check.name
        if not isinstance(name, str) or not name or name in names:
            yield check, "give each a name of its own"
        elif not _CHECK_NAME.fullmatch(name):
            # It stands in URLs, in lists with commas, and on a line of its own.
            yield check, "name it with letters, digits, `_`, `-` and `.` alone"
        names.append(name)
        limit: Any = check.timeout_s
        if not isinstance(limit, int | float) or not limit > 0:
            yield check, "write `timeout_s` in seconds, more than 0"
