"""Routing: the rules of paths on a real server, and what a look-up costs, counted in operations.

Over 300 lines because each rule is tried from both sides, and the cost in five shapes of table.
"""

import asyncio
import gc
import itertools
import json
import sys
from collections import Counter
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from yarl import URL

from petsage.errors import Problem
from petsage.feature import Feature, Routes, compile_feature
from petsage.generation import Generation
from petsage.metrics import RequestMetrics
from petsage.path_template import PathTemplate, parse_path
from petsage.routing import Mounted, RouteClash, RouteTable, TableResource, allowed_methods
from petsage.signature import Flaw

FEATURE = '''
    """Says which handler was called, and with what."""
    from petsage import Feature, Routes

    routes = Routes()


    @routes.get("/pets/mine")
    async def mine() -> list[str]:
        """Mine."""
        return ["mine"]


    @routes.get("/pets/{id}/toys")
    async def toys(id: str) -> list[str]:
        """Toys."""
        return ["toys", id]


    @routes.get("/pets/{id}")
    async def pet(id: str) -> list[str]:
        """One."""
        return ["pet", id]


    @routes.put("/pets/{id}")
    async def put_pet(id: str) -> list[str]:
        """Put."""
        return ["put", id]


    @routes.get("/files/{rest:path}")
    async def files(rest: str) -> list[str]:
        """All that is left."""
        return ["files", rest]


    @routes.get("/files/{name}/size")
    async def size(name: str) -> list[str]:
        """Size."""
        return ["size", name]


    @routes.post("/only-post")
    async def only_post() -> list[str]:
        """Post."""
        return ["post"]


    feature = Feature(routes, mount="")
'''


@pytest.fixture
async def client(feature_client, feature_folder):
    return await feature_client(feature_folder("paths", FEATURE))


async def ask(client, path: str, method: str = "GET", **options):
    """The answer to a path sent exactly as it is written."""
    return await client.request(method, URL(path, encoded=True), **options)


async def expect_problem(response, status: int) -> dict[str, Any]:
    body: dict[str, Any] = await response.json(content_type="application/problem+json")
    assert (response.status, body["status"]) == (status, status)
    assert body["request_id"] == response.headers["X-Request-ID"]
    return body


def table(*paths: str, method: str = "GET") -> RouteTable:
    """A table of these paths; each handler answers nothing."""
    routes = Routes()
    for path in paths:
        names = ", ".join(f"{name}: str" for name in names_of(path))
        space: dict[str, Any] = {}
        exec(f"async def handler({names}) -> None: 'Nothing.'", space)
        routes.add(method, path, space["handler"])
    compiled, flaws = compile_feature(Feature(routes, mount=""), "tested")
    assert not flaws
    app = web.Application()
    generation = Generation("tested", 1)
    return RouteTable(Mounted("tested", app, each, generation) for each in compiled)


def names_of(path: str) -> tuple[str, ...]:
    parsed = parse_path(path)
    assert isinstance(parsed, PathTemplate)
    return parsed.names


def found(routes: RouteTable, path: str) -> tuple[str, tuple[str, ...]] | None:
    match = routes.find(path)
    return None if match is None else (match.routes["GET"].template, match.values)


# Which route a path is


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/pets/mine", ["mine"]),
        ("/pets/7", ["pet", "7"]),
        ("/pets/mine/toys", ["toys", "mine"]),
        ("/pets/Mine", ["pet", "Mine"]),
        ("/files/a", ["files", "a"]),
        ("/files/a/b/c", ["files", "a/b/c"]),
        ("/files/a/size", ["size", "a"]),
        ("/files/a/size/b", ["files", "a/size/b"]),
        ("/files/a//b", ["files", "a//b"]),
        ("/files/a/", ["files", "a/"]),
        ("/pets/%6dine", ["mine"]),
        ("/%70ets/mine", ["mine"]),
        ("/pets/a%2Fb", ["pet", "a/b"]),
        ("/pets/a%2fb/toys", ["toys", "a/b"]),
        ("/pets/mine%2Ftoys", ["pet", "mine/toys"]),
        ("/pets/mine%2F", ["pet", "mine/"]),
        ("/files/a%2Fb/c", ["files", "a/b/c"]),
        ("/pets/%C3%A9", ["pet", "é"]),
        ("/pets/a+b", ["pet", "a+b"]),
        ("/pets/a%20b", ["pet", "a b"]),
        ("/pets/a%2520b", ["pet", "a%20b"]),
        ("/pets/a;b=c", ["pet", "a;b=c"]),
        ("/pets/...", ["pet", "..."]),
        ("/pets/%00", ["pet", "\0"]),
        ("/pets/7?a=/x", ["pet", "7"]),
    ],
)
async def test_a_path_leads_to(client, path, answer):
    response = await ask(client, path)

    assert response.status == 200, await response.text()
    assert await response.json() == answer


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/pets",
        "/PETS/mine",
        "/Pets/mine",
        "//pets/mine",
        "/pets//mine",
        "/pets//toys",
        "/pets/.",
        "/pets/..",
        "/pets/%2e",
        "/pets/%2E%2e",
        "/pets/../pets/mine",
        "/pets/./mine",
        "/files/",
        "/files//a",
        "/files/a/../b",
        "/files/a/%2e%2E/b",
        "/files/..",
        "/pets/a/b",
        "/pets%2Fmine",
    ],
)
async def test_a_path_leads_nowhere(client, raw, path):
    # On a socket: aiohttp's client takes dots and doubled slashes out of a path.
    head, _, body = (await raw(client, f"GET {path} HTTP/1.1")).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert b"\r\nContent-Type: application/problem+json\r\n" in head
    assert f"\r\nX-Request-ID: {json.loads(body)['request_id']}\r\n".encode() in head


@pytest.mark.parametrize("path", ["/pets/mine/", "/pets/7/", "/only-post/", "/pets/7/toys//"])
async def test_a_slash_at_the_end_names_another_resource_and_the_404_says_so(client, path):
    body = await expect_problem(await ask(client, path), 404)

    assert body["detail"].endswith("without the slash at its end there is")


@pytest.mark.parametrize(
    "path",
    ["/pets/%ff", "/pets/%C3", "/%80", "/pets/%ED%A0%80", "/x/%F5%80%80%80", "/pets/%C0%AF"],
)
async def test_escapes_that_are_not_utf8_are_400(client, path):
    body = await expect_problem(await ask(client, path), 400)

    assert body["detail"] == "The path is not UTF-8"


@pytest.mark.parametrize("path", ["/pets/%", "/pets/%4", "/pets/%zz", "/pets/%u0041", "/a%%41"])
async def test_broken_escapes_are_400(client, path):
    body = await expect_problem(await ask(client, path), 400)

    assert "hexadecimal" in body["detail"]


@pytest.mark.parametrize("path", ["/pets/\udcff", "/\udc80"])
def test_a_byte_that_is_no_text_is_400(path):
    with pytest.raises(Problem, match="UTF-8"):
        table("/pets/{id}").find(path)


def test_a_literal_wins_over_a_name_and_a_name_over_the_rest():
    routes = table("/{rest:path}", "/{a}", "/a", "/{a}/b", "/a/{b}", "/a/{b:path}")

    assert found(routes, "/a") == ("/a", ())
    assert found(routes, "/b") == ("/{a}", ("b",))
    assert found(routes, "/a/b") == ("/a/{b}", ("b",))
    assert found(routes, "/b/b") == ("/{a}/b", ("b",))
    assert found(routes, "/a/b/c") == ("/a/{b:path}", ("b/c",))
    assert found(routes, "/b/b/c") == ("/{rest:path}", ("b/b/c",))


def test_a_wrong_turn_is_taken_back_with_its_values():
    routes = table("/{a}/{b}/x/y", "/{a}/{b}/{c}/z", "/a/{b}/x/w", "/{rest:path}")

    assert found(routes, "/a/2/x/y") == ("/{a}/{b}/x/y", ("a", "2"))
    assert found(routes, "/a/2/x/z") == ("/{a}/{b}/{c}/z", ("a", "2", "x"))
    assert found(routes, "/a/2/x/w") == ("/a/{b}/x/w", ("2",))
    assert found(routes, "/a/2/x/v") == ("/{rest:path}", ("a/2/x/v",))


def test_the_order_of_declaration_makes_no_difference():
    paths = ["/{r:path}", "/{a}", "/a", "/{a}/b", "/a/{b}", "/a/b"]
    asked = ["/a", "/b", "/a/b", "/b/b", "/a/c", "/b/c", "/a/b/c"]
    answers = {tuple(found(table(*order), path) for path in asked) for order in
               itertools.islice(itertools.permutations(paths), 0, 720, 37)}  # fmt: skip

    assert len(answers) == 1


@pytest.mark.parametrize("second", ["/a/{id}", "/a/{other}"])
def test_two_routes_of_one_method_and_path_clash(second):
    with pytest.raises(RouteClash) as caught:
        table("/a/{id}", second)

    assert caught.value.mine.template == second
    assert caught.value.other.template == "/a/{id}"


def test_a_pattern_in_a_path_is_refused_with_the_place_where_it_goes():
    flaw = parse_path("/items/{id:[0-9]+}")

    assert isinstance(flaw, Flaw)
    assert "Annotated[str, Field(pattern=" in flaw.fix


# Methods


async def test_head_answers_as_get_does_without_the_body(client):
    got = await ask(client, "/pets/7")
    head = await ask(client, "/pets/7", "HEAD")

    assert head.status == 200
    assert await head.read() == b""
    for name in ("Content-Type", "Content-Length"):
        assert head.headers[name] == got.headers[name]


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("/pets/7", "GET, HEAD, PUT, OPTIONS"),
        ("/pets/mine", "GET, HEAD, OPTIONS"),
        ("/only-post", "POST, OPTIONS"),
        ("*", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
    ],
)
async def test_options_says_what_is_allowed(client, raw, path, allow):
    answer = await raw(client, f"OPTIONS {path} HTTP/1.1")

    assert answer.startswith(b"HTTP/1.1 204 No Content\r\n")
    assert f"\r\nAllow: {allow}\r\n".encode() in answer
    assert b"\r\nX-Request-ID: " in answer
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE", "PROPFIND", "QUERY"])
async def test_a_method_that_a_path_has_not_is_405_and_says_which_it_has(client, method):
    response = await ask(client, "/pets/7", method)

    body = await expect_problem(response, 405)
    assert response.headers["Allow"] == "GET, HEAD, PUT, OPTIONS"
    assert body["detail"] == "This path answers GET, HEAD, PUT, OPTIONS"


async def test_head_of_what_has_no_get_is_405(client):
    response = await ask(client, "/only-post", "HEAD")

    assert (response.status, response.headers["Allow"]) == (405, "POST, OPTIONS")


@pytest.mark.parametrize("method", ["OPTIONS", "POST", "HEAD"])
async def test_what_is_not_there_is_404_by_any_method(client, method):
    assert (await ask(client, "/nothing", method)).status == 404


def test_a_method_beyond_the_usual_ones_is_allowed_where_a_feature_has_it():
    match = table("/a", method="QUERY").find("/a")

    assert match is not None
    assert allowed_methods(match.routes) == "OPTIONS, QUERY"


async def test_a_target_without_a_path_is_the_root(client, raw):
    """RFC 9110, section 4.2.3: an empty path is that of the root."""
    answer = await raw(client, "GET http://example.com HTTP/1.1")

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b'{"message":"Welcome to the PetSage API"}')


async def test_a_tunnel_is_refused_as_a_problem(client, raw):
    head = await raw(client, "CONNECT example.com:443 HTTP/1.1", until=b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 501 Not Implemented\r\n")
    assert b"\r\nContent-Type: application/problem+json\r\n" in head
    assert b"aiohttp" not in head


async def test_a_target_with_a_host_is_its_path(client, raw):
    answer = await raw(client, "GET http://example.com/pets/mine?a=b HTTP/1.1")

    assert answer.endswith(b'\r\n\r\n["mine"]')


# Expect


async def test_a_client_that_expects_to_go_on_is_told_to(client, raw):
    answer = await raw(client, "PUT /pets/7 HTTP/1.1", "Expect: 100-Continue", "Content-Length: 0")

    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")


async def test_an_expectation_in_http_1_0_is_ignored(client, raw):
    answer = await raw(client, "PUT /pets/7 HTTP/1.0", "Expect: 100-continue", "Content-Length: 0")

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("expectation", ["payment", "100-continue, payment", "101-continue"])
async def test_another_expectation_is_417(client, log_lines, expectation):
    response = await ask(client, "/pets/7", "PUT", headers={"Expect": expectation})

    body = await expect_problem(response, 417)
    assert expectation not in body["detail"].replace("`100-continue`", "")
    lines = [line for line in log_lines() if line["logger"] == "petsage.access"]
    assert [(line["status"], line["request_id"]) for line in lines] == [(417, body["request_id"])]


@pytest.fixture
def raw():
    """Call it with a request line and headers: what comes back until the connection is closed."""

    async def send(client, *lines: str, until: bytes | None = None) -> bytes:
        reader, writer = await asyncio.open_connection(client.host, client.port)
        head = [*lines, "Host: x", *([] if until else ["Connection: close"]), "", ""]
        writer.write("\r\n".join(head).encode())
        async with asyncio.timeout(10):
            answer = await (reader.readuntil(until) if until else reader.read())
        writer.close()
        await writer.wait_closed()
        return answer

    return send


# What it costs, counted

SHAPES = {
    "distinct": ("/x_{i}", "/x_{i}"),
    "mounted": ("/api/v1/x_{i}", "/api/v1/x_{i}"),
    "name before": ("/api/v1/{{id}}/x_{i}", "/api/v1/7/x_{i}"),
    "name first": ("/{{tenant}}/x_{i}", "/acme/x_{i}"),
    "name between": ("/items/{{id}}/x_{i}", "/items/7/x_{i}"),
}
"""The shape of each route, and of a path that leads to it."""


def prebuilt(template: str, count: int) -> RouteTable:
    """A table of `count` routes; one endpoint serves for all, which have the same names."""
    [model] = table(template.format(i=0)).routes
    paths = (parse_path(template.format(i=number)) for number in range(count))
    return RouteTable(
        Mounted(model.feature, model.app, model.compiled._replace(path=path), model.generation)
        for path in paths
        if isinstance(path, PathTemplate)
    )


async def operations(resource: TableResource, path: str) -> Counter[Any]:
    """Every line of Python and every call that one request's look-up takes, by place."""
    counted: Counter[Any] = Counter()

    def trace(frame, event, argument):
        counted[event, frame.f_code.co_name, frame.f_lineno] += 1
        return trace

    def profile(frame, event, argument):
        if event == "c_call":
            counted[event, argument.__name__, frame.f_lineno] += 1

    app = web.Application()
    app.router.register_resource(resource)
    request = make_mocked_request("GET", path)
    before = sys.gettrace(), sys.getprofile()
    gc.disable()  # hypothesis is called back by the collector, which comes when it comes
    sys.setprofile(profile)
    sys.settrace(trace)
    try:
        await app.router.resolve(request)
    finally:
        sys.settrace(before[0])
        sys.setprofile(before[1])
        gc.enable()
    return counted


@pytest.mark.parametrize("asked", ["first", "last", "missing", "missing in the middle"])
@pytest.mark.parametrize("shape", SHAPES)
async def test_a_look_up_costs_the_same_with_10_and_with_10_000_routes(shape, asked):
    template, path = SHAPES[shape]
    costs = []
    for count in (10, 10_000):
        resource = TableResource(RequestMetrics())
        resource.table = prebuilt(template, count)
        number = {"first": 0, "last": count - 1}.get(asked, "none")
        text = path.format(i=number)
        if asked == "missing in the middle":
            text = f"/none{text}"
        await operations(resource, text)  # what aiohttp computes once for a path is cached now
        costs.append(await operations(resource, text))

    few, many = costs
    assert sum(few.values()) > 10
    assert few == many


class Counted(dict[str, Any]):
    """Counts how often something is looked up."""

    count = 0

    def get(self, *arguments: Any) -> Any:
        Counted.count += 1
        return super().get(*arguments)


def counted(node: Any) -> Any:
    """The tree below a place, each look-up of a literal counted."""
    node.literals = Counted({name: counted(each) for name, each in node.literals.items()})
    if node.name is not None:
        counted(node.name)
    return node


def looked_up(routes: RouteTable, path: str) -> int:
    """How many places of the tree a path is looked for in, the end that it has left out."""
    Counted.count = 0
    routes.find(path)
    return Counted.count


def test_going_back_never_costs_more_than_the_places_that_there_are():
    """All 2 ** 8 ways through literals and names, and a path that leads to the end of none."""
    ways = itertools.product(*[("a", f"{{n{number}}}") for number in range(8)])
    routes = table(*("/" + "/".join(way) + "/end" for way in ways))
    counted(routes._root)

    assert looked_up(routes, "/a/a/a/a/a/a/a/a/other") == 2**9 - 1
    assert looked_up(routes, "/b/b/b/b/b/b/b/b/other") == 9
    assert looked_up(routes, "/b/a/a/a/a/a/a/a/end") == 9


@pytest.mark.parametrize("path", ["/" * 8000, "/a" * 4000, "/%61" * 2000, "/pets" + "/a" * 4000])
async def test_a_path_of_thousands_of_segments_costs_no_more_than_a_few_of_its_lengths(path):
    resource = TableResource(RequestMetrics())
    resource.table = table("/", "/pets/{id}/toys", "/a/{b}/{c}")

    counted = await operations(resource, path)

    # A decoded segment costs some lines; nothing is done for each segment and each of its parents.
    assert sum(counted.values()) < 100 * path.count("/")
    lines: Counter[Any] = Counter()
    for (event, name, _), number in counted.items():
        lines[event, name] += number
    assert lines["call", "_walk"] <= 8


def test_a_table_is_no_part_of_another_application():
    resource = TableResource(RequestMetrics())

    assert resource.canonical == "/"
    with pytest.raises(RuntimeError, match="cannot be mounted below /x"):
        resource.add_prefix("/x")
    with pytest.raises(RuntimeError, match="no names to build URLs from"):
        resource.url_for()
