"""From features to a route table, and from a request to its endpoint.

The table is immutable and replaced in one assignment. A request costs a look-up for each
segment of its path, however many routes there are; docs/routing.md has the rules of paths.

Over 300 lines because the table, the resource that answers from it and the one handler are read
together: what a request comes by between aiohttp and its endpoint is here, and nothing else.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple, NoReturn
from urllib.parse import unquote

from aiohttp import web
from aiohttp.web_urldispatcher import (
    AbstractResource,
    AbstractRoute,
    MatchedSubAppResource,
    UrlMappingMatchInfo,
)
from yarl import URL

from petsage.answers import begin, fail, in_place_of, is_unstored, must_pass, respond_to
from petsage.context import RequestContext
from petsage.errors import NOTHING_HERE, Problem, is_a
from petsage.feature import CompiledRoute, Run
from petsage.generation import Generation, Holder
from petsage.metrics import RequestMetrics, active_name
from petsage.openapi import DocumentedFeature
from petsage.response import JsonResponse

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

_DOTS: Final = frozenset((".", ".."))
_BROKEN_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


class Mounted:
    """A route in a table: whose it is, and the application under it, which has started.

    Attributes:
        endpoint: what answers.
        names: those in the path, in its order.
        template: the path with its names, as it is documented, logged and counted.
        is_direct: whether it can be answered without a request: its handler does not take it, and
            nobody else on the way to its endpoint, and back, looks at it.
    """

    __slots__ = (
        *("app", "compiled", "endpoint", "feature", "generation", "is_direct", "names"),
        "template",
    )

    def __init__(
        self, feature: str, app: web.Application, compiled: CompiledRoute, generation: Generation
    ) -> None:
        self.feature = feature
        self.app = app
        self.compiled = compiled
        self.generation = generation
        # Worked out once: every request asks for these, here and at few places more.
        self.endpoint = endpoint = compiled.endpoint
        self.names = compiled.path.names
        self.template = compiled.path.text
        is_alone = compiled.run is endpoint and not app.on_response_prepare
        self.is_direct = is_alone and not endpoint.takes_request


class _Node:
    """A place in the tree of paths.

    Of thousands, few are in the processor's caches, and fewer of their dictionaries. So most need
    not be looked into: `got` is the route of `routes` that answers GET, and what is empty is one
    for all, which nobody adds to.
    """

    __slots__ = ("got", "literals", "name", "routes", "tail")

    def __init__(self) -> None:
        self.literals = _NO_LITERALS
        self.name: _Node | None = None
        self.got: Mounted | None = None
        self.routes = self.tail = _NO_ROUTES

    def literal(self, segment: str) -> _Node:
        """The place that a segment leads to, made where there is none."""
        if not self.literals:
            self.literals = {}
        return self.literals.setdefault(segment, _Node())

    def add(self, route: Mounted) -> dict[str, Mounted]:
        """Adds a route that ends here, whatever is left of the path where it has a tail.

        Returns:
            All that end here in the same way.

        Raises:
            RouteClash: another one has its method.
        """
        method, is_tail = route.compiled.route.method, route.compiled.path.tail
        routes = (self.tail if is_tail else self.routes) or {}
        if method in routes:
            raise RouteClash(route, routes[method])
        routes[method] = route
        if method == "GET":
            routes["HEAD"] = route  # nobody declares one
        if is_tail:
            self.tail = routes
        else:
            self.routes, self.got = routes, routes.get("GET")
        return routes


_NO_LITERALS: Final[dict[str, _Node]] = {}
_NO_ROUTES: Final[dict[str, Mounted]] = {}


class Match(NamedTuple):
    """A path's routes by method, HEAD too, the values of its names, and the route of GET."""

    routes: dict[str, Mounted]
    values: tuple[str, ...]
    got: Mounted | None

    def route_for(self, method: str) -> Mounted | None:
        """The route that answers a method, None where none does."""
        return self.got if method == "GET" else self.routes.get(method)

    def values_of(self, mounted: Mounted) -> dict[str, str]:
        """What the path has for the names of one of the routes."""
        return dict(zip(mounted.names, self.values, strict=True))


class Refusal(NamedTuple):
    """Why nothing answers a request, and a route of its path, None where it has none."""

    problem: Problem
    mounted: Mounted | None


class RouteClash(Exception):  # noqa: N818 - named for what it is
    """Two routes have the same method and path."""

    def __init__(self, mine: Mounted, other: Mounted) -> None:
        super().__init__(mine, other)
        self.mine = mine
        self.other = other


class RouteTable:
    """All routes, found by path; it does not change once it is built.

    Args:
        routes: in the order in which they were declared.

    Raises:
        RouteClash: two of them have the same method and path.
    """

    def __init__(self, routes: Iterable[Mounted] = ()) -> None:
        self._root = _Node()
        self._literal: dict[str, Match] = {}
        self.routes: tuple[Mounted, ...] = tuple(routes)
        for route in self.routes:
            self._add(route)

    def find(self, path: str) -> Match | None:
        """What a path as it stands in the request leads to, None where to nothing.

        Raises:
            Problem: 400, its percent-encoding is broken, or not UTF-8.
        """
        found = self._literal.get(path)
        if found is not None:
            return found
        segments = path.removeprefix("/").split("/")
        is_spelt = "%" in path or not path.isascii()
        if is_spelt:
            segments = [_decode(segment) for segment in segments]
        if (is_spelt or "/." in path) and not _DOTS.isdisjoint(segments):
            # No literal is one of these, and no name takes one.
            return None
        return _walk(self._root, segments)

    def _add(self, route: Mounted) -> None:
        node = self._root
        path = route.compiled.path
        steps = path.segments[:-1] if path.tail else path.segments
        for segment in steps:
            if segment is None:
                if node.name is None:
                    node.name = _Node()
                node = node.name
            else:
                node = node.literal(segment)
        routes = node.add(route)
        if not path.names:
            self._literal[path.text] = Match(routes, (), routes.get("GET"))


def _walk(root: _Node, segments: list[str]) -> Match | None:
    """What the segments of a path lead to: by literals where they do, then by names, then by tails.

    It goes back where a literal was the wrong turn, and never comes to a node twice, because one
    way leads to each. So n segments cost n look-ups where no literal stands beside a name, at most
    as many as there are nodes that the segments fit, and never more than 2 ** n.
    """
    values: list[str] = []
    # Where something else would have done, too: the place, how many values there were, and the
    # node of a name that has not been tried.
    turns: list[tuple[_Node, int, int, _Node | None]] = []
    node, index, end = root, 0, len(segments)
    while True:
        other = None
        if index < end:
            literal = node.literals.get(segments[index])
            if literal is not None:
                if node.name is not None or node.tail:
                    turns.append((node, index, len(values), node.name))
                node, index = literal, index + 1
                continue
            other = node.name
        elif node.got is not None or node.routes:
            return Match(node.routes, tuple(values), node.got)
        while index == end or not segments[index] or (other is None and not node.tail):
            if not turns:
                return None
            node, index, count, other = turns.pop()
            del values[count:]
        if other is None:
            rest = "/".join(segments[index:])
            return Match(node.tail, (*values, rest), node.tail.get("GET"))
        if node.tail:
            turns.append((node, index, len(values), None))
        values.append(segments[index])
        node, index = other, index + 1


def _decode(segment: str) -> str:
    if _BROKEN_ESCAPE.search(segment):
        raise Problem(400, "The path has a `%` without two hexadecimal digits after it")
    try:
        decoded = unquote(segment, errors="strict")
        decoded.encode()
    except UnicodeError:
        raise Problem(400, "The path is not UTF-8") from None
    return decoded


def documented(table: RouteTable) -> list[DocumentedFeature]:
    """What of a table the API's document shows: all of it, by feature."""
    features: dict[str, list[CompiledRoute]] = {}
    for route in table.routes:
        features.setdefault(route.feature, []).append(route.compiled)
    return [DocumentedFeature(name, tuple(routes)) for name, routes in features.items()]


def allowed_methods(routes: dict[str, Mounted]) -> str:
    """The `Allow` of a path: its methods, HEAD where there is GET, and OPTIONS."""
    allowed = {*routes, "OPTIONS"}
    usual = [method for method in METHODS if method in allowed]
    return ", ".join([*usual, *sorted(allowed.difference(METHODS))])


class RequestMatch(UrlMappingMatchInfo):
    """What a request leads to; aiohttp asks it for the handler and the applications."""

    __slots__ = ("feature", "generation", "resource", "run", "template")
    resource: TableResource  # given by itself: whose table it was found in

    def __init__(
        self,
        values: dict[str, str],
        run: Run,
        mounted: Mounted | None = None,
    ) -> None:
        super().__init__(values, _ROUTE)
        self.run = run
        self.feature: str | None = None
        self.template: str | None = None
        self.generation: Generation | None = None
        if mounted is not None:
            self.feature = mounted.feature
            self.generation = mounted.generation
            self.template = mounted.template
            self.add_app(mounted.app)

    @property
    def expect_handler(self) -> Callable[[web.Request], Awaitable[web.StreamResponse | None]]:
        """Answers `Expect`; aiohttp calls it before the handler."""
        return _answer_expect


class TableResource(MatchedSubAppResource):
    """The one resource of the root application: it answers from whatever table is current.

    It is of this kind because aiohttp asks those first. Another it would only ask after it has
    looked for the path and for each of its parents: 9 ms for 8,000 slashes, in square of their
    number, and never at all where the path is empty (`CONNECT`, `GET http://host`). Nothing else
    is inherited: there is no sub-application.

    Args:
        requests: where requests in hand are counted.
    """

    def __init__(self, requests: RequestMetrics) -> None:
        AbstractResource.__init__(self)
        self.table = RouteTable()
        self.is_starting = False
        """Whether the table is yet to hold most of what it will: then nothing is said not to be."""
        self.active = requests.active
        """What counts the requests whose handlers run."""

    @property
    def canonical(self) -> str:
        """The place in aiohttp's index at which every path ends up."""
        return "/"

    async def resolve(self, request: web.Request) -> tuple[RequestMatch, set[str]]:
        """What the request leads to; a path that is not there leads to a 404 of ours."""
        return self.match(request), set()

    def match(self, request: web.Request) -> RequestMatch:
        """What the request leads to now."""
        found = self._find(request)
        found.resource = self
        return found

    def _find(self, request: web.Request) -> RequestMatch:
        table = self.table
        method = request.method
        path = request.rel_url.raw_path
        try:
            match = table.find(path)
        except Problem as problem:
            return RequestMatch({}, _raiser(problem))
        if match is None:
            if self.is_starting:
                return RequestMatch({}, _raiser(_not_yet()))
            if method == "OPTIONS" and path == "*":
                return RequestMatch({}, _options(", ".join(METHODS)))
            return RequestMatch({}, _raiser(Problem(404, _detail_of(table, path))))
        mounted = match.route_for(method)
        if mounted is None:
            return _wrong_method(match, method)
        return RequestMatch(match.values_of(mounted), mounted.compiled.run, mounted)

    def refusal(self, method: str, path: str, match: Match | None) -> Refusal | None:
        """Why nothing answers a request; None where more has to be known of it.

        Args:
            method: one of `METHODS`.
            path: as it stands in the request.
            match: what the path leads to, where none is of the method.
        """
        if self.is_starting or method == "OPTIONS":
            return None
        if match is not None:
            return _not_allowed(match)
        detail = _detail_of(self.table, path)
        return _NOTHING if detail is NOTHING_HERE else Refusal(Problem(404, detail), None)

    def url_for(self, *_: str, **__: str) -> NoReturn:
        """Refuses: routes have no names here."""
        raise RuntimeError("PetSage's routes have no names to build URLs from")

    def add_prefix(self, prefix: str) -> NoReturn:
        """Refuses: the table is the root application's alone."""
        raise RuntimeError(f"PetSage's application cannot be mounted below {prefix}")

    def get_info(self) -> Any:
        """What aiohttp shows of a resource."""
        return {"path": "/"}

    def raw_match(self, path: str) -> bool:
        """Whether a path literally is this resource's: it has none of its own."""
        return False

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[AbstractRoute]:
        return iter((_ROUTE,))


async def serve(request: web.Request) -> web.StreamResponse:
    """The one handler that aiohttp knows: the request begins in the generation that it matched."""
    match = request._match_info  # `match_info` keeps what it has said once
    assert isinstance(match, RequestMatch)  # noqa: S101 - for mypy: `resolve` makes no other
    if match.generation is not None and match.generation.is_retired:
        match = _match_again(request, match)
    generation = match.generation
    context = begin(request)
    context.feature, context.route = match.feature, match.template
    if generation is None:
        return await _answer(request, match, context)
    connection = request.protocol
    if isinstance(connection, Holder):
        connection.hold(generation, context, request.task)
        return await _answer(request, match, context)
    # One of aiohttp's own, under a runner of somebody else's: nobody says when the answer begins,
    # nor when it is out.
    generation.enter(context, connection, request.task)
    status = 500
    try:
        answer = await _answer(request, match, context)
        status = answer.status
    finally:
        generation.leave(context, status)
    return answer


async def _answer(
    request: web.Request, match: RequestMatch, context: RequestContext
) -> web.StreamResponse:
    """The endpoint's answer; errors are answered, and logged where they are failures."""
    active, method = match.resource.active, active_name(request.method)
    active[method] += 1
    try:
        answer = await match.run(request)
        if answer.__class__ is not JsonResponse:
            _require_answer(answer)
    except BaseException as raised:
        error = in_place_of(raised, context) if context.is_overdue else raised
        # SystemExit and KeyboardInterrupt would stop the server; a handler has no right to.
        if must_pass(error, context, request.protocol):
            if is_a(error, asyncio.CancelledError):
                # It is cut: no answer follows, and so no access line but this one.
                begun: Any = context.answer or web.Response(status=503)
                request.protocol.log_access(request, begun, 0.0)
            raise
        return respond_to(error, request, context)
    finally:
        active[method] -= 1
    if context.answer is not None and context.answer is not answer:
        return fail(request, RuntimeError("the handler began one answer and returned another"))
    return answer


def _match_again(request: web.Request, match: RequestMatch) -> RequestMatch:
    """What a request leads to now, where it was resolved and its route has gone before it began.

    Between the two it may have waited: aiohttp tells a client with `Expect` to go on.
    """
    found = match.resource.match(request)
    if found.generation is not None and found.generation.is_retired:
        detail = "What answers here is being changed"
        found = RequestMatch({}, _raiser(Problem(503, detail, headers={"Retry-After": "1"})))
    _put_in_place(request, found, match)
    return found


def _put_in_place(request: web.Request, found: RequestMatch, former: RequestMatch) -> None:
    """Lets a request lead elsewhere, as aiohttp does when it has resolved one."""
    found.resource = former.resource
    found.add_app(former.apps[0])  # the root application
    found.freeze()
    request._match_info = found
    request._cache.pop("match_info", None)


def _require_answer(value: object) -> None:
    """Refuses what a middleware must not return.

    Raises:
        TypeError: it is no response.
        web.HTTPException: it is one, and is handled as if it had been raised.
    """
    if isinstance(value, web.HTTPException):
        raise value
    if not isinstance(value, web.StreamResponse):
        raise TypeError(f"a middleware returned {type(value).__name__}, and not a response")


def _raiser(problem: Problem) -> Run:
    async def answer(_: web.Request) -> web.StreamResponse:
        raise problem

    return answer


def _not_yet() -> Problem:
    return Problem(503, "PetSage is starting", headers={"Retry-After": "1"})


def _detail_of(table: RouteTable, path: str) -> str:
    """What is said of a path at which there is nothing."""
    if path.endswith("/") and path.strip("/") and table.find(path.rstrip("/")) is not None:
        return f"{NOTHING_HERE}; without the slash at its end there is"
    return NOTHING_HERE


def _not_allowed(match: Match) -> Refusal:
    allow = allowed_methods(match.routes)
    mounted = next(iter(match.routes.values()))
    headers = {"Allow": allow}
    if is_unstored(mounted.compiled.run):
        headers["Cache-Control"] = "no-store"
    return Refusal(Problem(405, f"This path answers {allow}", headers=headers), mounted)


def _wrong_method(match: Match, method: str) -> RequestMatch:
    if method == "OPTIONS":
        return RequestMatch({}, _options(allowed_methods(match.routes)))
    problem, mounted = _not_allowed(match)
    found = RequestMatch({}, _raiser(problem))
    if mounted is not None:
        # It counts for the path, and so is in the hands of whoever has it.
        found.template, found.generation = mounted.template, mounted.generation
    return found


def _options(allow: str) -> Run:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=204, headers={"Allow": allow})

    return answer


async def _answer_expect(request: web.Request) -> web.StreamResponse | None:
    """Tells a client to go on, where it asks for just that (RFC 9110, section 10.1.1)."""
    if request.headers.get("Expect", "").lower() == "100-continue":
        if request.version >= (1, 1):
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            # These bytes are no part of the answer, whose own size is counted from here.
            request.writer.output_size = 0
        return None
    problem = Problem(417, "The only expectation that can be met is `100-continue`")
    match = request._match_info
    assert isinstance(match, RequestMatch)  # noqa: S101 - for mypy: `resolve` makes no other
    # No feature has begun it, nor hears of its answer.
    _put_in_place(request, RequestMatch({}, _raiser(problem)), match)
    return None


class _ServeRoute(AbstractRoute):
    """The one route that aiohttp sees."""

    def __init__(self) -> None:
        super().__init__("*", serve)

    @property
    def name(self) -> str | None:
        """None: it has no name."""
        return None

    def get_info(self) -> Any:
        """What aiohttp shows of a route."""
        return {"path": "/"}

    def url_for(self, *_: str, **__: str) -> URL:
        """Refuses: routes have no names here."""
        raise RuntimeError("PetSage's routes have no names to build URLs from")


_ROUTE: Final = _ServeRoute()
_NOTHING: Final = Refusal(Problem(404, NOTHING_HERE), None)
