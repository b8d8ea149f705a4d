"""What is answered straight from the parser is answered as aiohttp's way would, and no way else.

A target in absolute form sends the same request aiohttp's way: `/api/v1/it` is direct, and
`http://x/api/v1/it` is not. `LONG` before a path says so.
"""

import asyncio
import contextlib
import gc
import inspect
import itertools
import json
import logging
import random
import re
import signal
import socket
import struct
import sys
import textwrap
import time
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_request import BaseRequest
from aiohttp.web_urldispatcher import UrlMappingMatchInfo

from petsage.app import create_app
from petsage.catalog import CATALOG
from petsage.connection import Connection, Runner
from petsage.context import current_request
from petsage.heads import MAX_HEADS
from petsage.metrics import REQUESTS
from tests.conftest import errors_of, write_feature

PATIENCE_S = 5.0

FEATURE = textwrap.dedent('''
    """Answers what asks for nothing."""
    import asyncio
    import contextvars
    import logging
    import time

    from aiohttp import web
    from pydantic import BaseModel

    from petsage import Feature, Problem, Reply, Routes

    routes = Routes()
    logger = logging.getLogger(__name__)
    begun, go, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
    seen = contextvars.ContextVar("seen", default=0)
    outcomes = []


    class Pet(BaseModel):
        name: str = "Rex"


    @routes.get("/quick")
    async def quick() -> dict[str, str]:
        logger.info("quick")
        return {"quick": "yes"}


    @routes.get("/quick/{name}")
    async def slow(name: str) -> dict[str, str]:
        return {"slow": name}


    @routes.post("/quick")
    async def post(request: web.Request) -> dict[str, int]:
        return {"read": len(await request.read())}


    @routes.get("/held")
    async def held() -> dict[str, str]:
        begun.set()
        logger.info("begun")
        try:
            await go.wait()
            outcomes.append("done")
        except asyncio.CancelledError:
            outcomes.append("cancelled")
            raise
        finally:
            ended.set()
        return {"held": "done"}


    @routes.get("/held-and-fails")
    async def held_and_fails() -> dict[str, str]:
        begun.set()
        await go.wait()
        raise ValueError("held")


    @routes.get("/held-and-refuses")
    async def held_and_refuses() -> dict[str, str]:
        begun.set()
        await go.wait()
        raise Problem(409, "no")


    @routes.get("/held-and-empty")
    async def held_and_empty() -> None:
        begun.set()
        await go.wait()


    @routes.get("/go")
    async def let_go() -> dict[str, str]:
        go.set()
        return {}


    @routes.get("/count")
    async def count() -> int:
        seen.set(seen.get() + 1)
        return seen.get()


    @routes.get("/huge")
    async def huge() -> str:
        return "x" * 5_000_000


    @routes.get("/never")
    async def never() -> None:
        logger.info("begun")
        await asyncio.sleep(1000)


    @routes.get("/blocks")
    async def blocks() -> int:
        time.sleep(1)
        return 1


    async def break_off():
        raise asyncio.CancelledError


    HANDLERS


    feature = Feature(routes)
''')

KINDS = {
    "dict": ("dict[str, int]", 'return {"a": 1}'),
    "model": ("Pet", "return Pet()"),
    "list": ("list[Pet]", "return [Pet(), Pet()]"),
    "scalar": ("int", "return 3"),
    "text beyond ASCII": ("str", 'return "Grüße \\N{PILE OF POO}"'),
    "huge": ("str", 'return "x" * 5_000_000'),
    "reply": ("Reply[Pet]", 'return Reply(Pet(), status=201, headers={"X-Own": "1", "ETag": "2"})'),
    "unknown status": ("Reply[int]", "return Reply(1, status=599)"),
    "status without a body": ("Reply[int]", "return Reply(None, status=304)"),
    "status of no answer": ("Reply[int]", "return Reply(1, status=100)"),
    "none": ("None", "return None"),
    "none with headers": ("Reply[None]", 'return Reply(None, headers={"X-Own": "1"})'),
    "problem": ("Pet", 'raise Problem(409, "no", headers={"Retry-After": "1"}, pet=1)'),
    "aiohttp's not found": ("Pet", 'raise web.HTTPNotFound(text="nowhere")'),
    "aiohttp's redirect": ("Pet", 'raise web.HTTPFound("/elsewhere")'),
    "aiohttp's exception returned": ("web.Response", "return web.HTTPNotFound()"),
    "error": ("Pet", 'raise ValueError("secret")'),
    "time-out": ("Pet", "raise TimeoutError"),
    "reset of another connection": ("Pet", "raise ConnectionResetError"),
    "exit": ("Pet", "raise SystemExit(3)"),
    "interrupt": ("Pet", "raise KeyboardInterrupt"),
    "stray cancellation": ("Pet", "raise asyncio.CancelledError"),
    "inner task cancelled": ("Pet", "await asyncio.create_task(break_off())"),
    "wrong type": ("Pet", "return 3"),
    "what is no JSON": ("dict[str, object]", 'return {"a": object()}'),
    "line break in a header": ("Reply[int]", 'return Reply(1, headers={"X-A": "1\\r\\nX-B: 2"})'),
    "line break in a name": ("Reply[int]", 'return Reply(1, headers={"X-A: 1\\r\\nX-B": "2"})'),
    "NUL in a header": ("Reply[int]", 'return Reply(1, headers={"X-A": "\\0"})'),
    "surrogate in a header": ("Reply[int]", 'return Reply(1, headers={"X-A": "\\ud800"})'),
    "number in a header": ("Reply[int]", 'return Reply(1, headers={"X-A": 1})'),
    "close": ("Reply[int]", 'return Reply(1, headers={"Connection": "close"})'),
    "length": ("Reply[int]", 'return Reply(1, headers={"Content-Length": "1"})'),
    "wrong length": ("Reply[int]", 'return Reply(11, headers={"content-length": "1"})'),
    "own type": ("Reply[int]", 'return Reply(1, headers={"Content-Type": "text/x"})'),
    "own id": ("Reply[int]", 'return Reply(1, headers={"X-Request-ID": "mine"})'),
    "response": ("web.Response", 'return web.Response(text="plain", headers={"X-Own": "1"})'),
    "compressed": (
        "web.Response",
        'it = web.Response(text="x" * 5000); it.enable_compression(); return it',
    ),
    "cookie": (
        "web.Response",
        'it = web.json_response(1); it.set_cookie("a", "b"); return it',
    ),
    "stream": ("web.StreamResponse", "return web.StreamResponse()"),
    "file": ("web.StreamResponse", "return web.FileResponse(__file__)"),
    "file that is not there": ("web.StreamResponse", 'return web.FileResponse("/nowhere")'),
    "web socket": ("web.StreamResponse", "return web.WebSocketResponse()"),
    "closed response": (
        "web.Response",
        "it = web.Response(); it.force_close(); return it",
    ),
}
IDS = {kind: f"kind-{number}" for number, kind in enumerate(KINDS)}
HANDLERS = "\n\n".join(
    f'@routes.get("/{IDS[kind]}")\nasync def kind_{number}() -> {returns}:\n    {body}'
    for number, (kind, (returns, body)) in enumerate(KINDS.items())
)


LONG = "long way: "


def head(path: str, *more: str, method: str = "GET", version: str = "1.1") -> bytes:
    origin = "http://x" if path.startswith(LONG) else ""
    target = f"{origin}/api/v1/{path.removeprefix(LONG)}"
    lines = [f"{method} {target} HTTP/{version}", "Host: x", *more]
    return "\r\n".join([*lines, "", ""]).encode()


QUICK = head("quick")


class Answer:
    """One answer, taken to pieces.

    Attributes:
        size: of it all, in bytes.
    """

    def __init__(self, raw_head: bytes, body: bytes) -> None:
        self.size = len(raw_head) + len(body)
        first, *lines = raw_head.decode().rstrip("\r\n").split("\r\n")
        self.first = first
        self.status = int(first.split()[1])
        self.headers = sorted(tuple(line.split(": ", 1)) for line in lines)
        self.body = body

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)

    @property
    def comparable(self) -> Any:
        """All of it but what is another's each time."""
        own = {"date", "x-request-id", "traceparent"}
        headers = [(key, value) for key, value in self.headers if key.lower() not in own]
        names = sorted(key for key, _ in self.headers)
        body = re.sub(rb'"request_id":"\w+"', b"", self.body)
        return self.first, headers, names, body


class Caller:
    """A raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, data: bytes) -> Answer:
        self.writer.write(data)
        return await self.answer()

    async def answer(self) -> Answer:
        async with asyncio.timeout(PATIENCE_S):
            raw = await self.reader.readuntil(b"\r\n\r\n")
            found = Answer(raw, b"")
            if found.header("transfer-encoding") == "chunked":
                body = await self.reader.readuntil(b"0\r\n\r\n")
            elif found.status in {204, 304}:
                body = b""
            else:
                body = await self.reader.readexactly(int(found.header("content-length") or 0))
            return Answer(raw, body)

    async def rest(self) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.read()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()

    def reset(self) -> None:
        """Goes away without a word: an RST."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class Server:
    """A runner as `petsage serve` has it, on a port of its own."""

    def __init__(self, app: web.Application, runner: Runner, log_lines: Any) -> None:
        self.app, self.runner, self._log_lines = app, runner, log_lines
        self._callers: list[Caller] = []

    @property
    def feature(self) -> Any:
        """The module of the feature that is served."""
        (mounted,) = (
            route
            for route in self.app[CATALOG].resource.table.routes
            if route.template == "/api/v1/held"
        )
        return sys.modules[mounted.compiled.endpoint.handler.__module__]

    async def connect(self, **options: Any) -> Caller:
        host, port = self.runner.addresses[0][:2]
        caller = Caller(*await asyncio.open_connection(host, port, **options))
        self._callers.append(caller)
        return caller

    @property
    def connections(self) -> list[Any]:
        return self.runner.server.connections if self.runner.server else []

    @property
    def active(self) -> int:
        return sum(self.app[REQUESTS].active.values())

    def counts(self) -> dict[tuple[str, str, str], float]:
        """How many requests were counted, by method, route and status."""
        return {seen[:3]: sum(seen.counts) for seen in self.app[REQUESTS].observed()}

    def lines(self) -> list[dict[str, Any]]:
        return list(self._log_lines())

    def access(self) -> list[dict[str, Any]]:
        return [line for line in self._log_lines() if line["logger"] == "petsage.access"]

    def errors(self) -> list[dict[str, Any]]:
        return errors_of(self._log_lines())

    async def close(self) -> None:
        for caller in self._callers:
            await caller.close()
        await self.runner.cleanup()


Start = Callable[..., Any]


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - what the server does has no event to tell
            await asyncio.sleep(0.002)


def connection_tasks() -> list[str]:
    names = [getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()]
    return [name for name in names if name.startswith(("RequestHandler.", "DirectHandler."))]


@pytest.fixture
async def start(petsage_settings, log_pipeline, log_lines, feature_folder) -> AsyncIterator[Start]:
    """Call it for a server; it is checked that nothing of it is left behind."""
    servers: list[Server] = []

    async def start(
        *,
        cancels: bool = False,
        source: str = FEATURE,
        change: Callable[[web.Application], None] = lambda _: None,
        **options: Any,
    ) -> Server:
        folder = feature_folder("probe", source.replace("HANDLERS", HANDLERS))
        catalog = petsage_settings.catalog.model_copy(update={"folders": [folder.parent]})
        server = petsage_settings.server.model_copy(update=options)
        settings = petsage_settings.model_copy(update={"catalog": catalog, "server": server})
        app = create_app(settings, only="probe")
        change(app)
        runner = Runner(app, settings.server, handler_cancellation=cancels)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        servers.append(Server(app, runner, log_lines))
        return servers[-1]

    yield start
    for server in servers:
        await server.close()
        assert server.active == 0
    await until(lambda: not connection_tasks())
    servers.clear()
    gc.collect()
    assert not [
        line for line in log_lines() if line["logger"] == "asyncio" and line["level"] != "DEBUG"
    ]


@pytest.fixture
def made(monkeypatch) -> list[str]:
    """The path of each request that aiohttp makes."""
    paths: list[str] = []
    original = BaseRequest.__init__

    def note(self: BaseRequest, message: Any, *args: Any, **kwargs: Any) -> None:
        paths.append(message.path)
        original(self, message, *args, **kwargs)

    monkeypatch.setattr(BaseRequest, "__init__", note)
    return paths


# --- The same answer -----------------------------------------------------------------------------


async def outcome_of(server: Server, path: str) -> tuple[Any, Any, Any, bool, list[str]]:
    """Answer, access line, count, whether the connection goes on, and what else was logged."""
    before, counts = len(server.access()), server.counts()
    errors = len(server.errors())
    caller = await server.connect()
    answer = await caller.ask(head(path, "User-Agent: me", "Connection: keep-alive"))
    try:
        goes_on = (await caller.ask(QUICK)).status == 200
    except (OSError, EOFError):
        goes_on = False
    line = server.access()[before]
    left = {"timestamp", "request_id", "trace_id", "span_id", "duration_ms"}
    shown = {key: value for key, value in line.items() if key not in left}
    assert line["request_id"] == answer.header("x-request-id")
    counted = {
        key: count - counts.get(key, 0)
        for key, count in server.counts().items()
        if count != counts.get(key) and key[1] != "/api/v1/quick"
    }
    raised = [each["message"] for each in server.errors()[errors:]]
    return answer.comparable, shown, counted, goes_on, raised


@pytest.mark.parametrize("kind", KINDS)
async def test_the_answer_is_the_one_that_aiohttps_way_gives(start, kind):
    server = await start()

    direct = await outcome_of(server, IDS[kind])
    slow = await outcome_of(server, f"{LONG}{IDS[kind]}")

    for one, other in zip(direct, slow, strict=True):
        assert one == other


# --- Which way -----------------------------------------------------------------------------------


async def test_the_smoke_test_makes_no_request(petsage_client, made):
    for path in ("/api/v1/smoke-test", "/api/v1/smoke_test"):
        async with petsage_client.get(path) as response:
            assert response.status == 200
    assert made == []


OTHERS = {
    "an absolute target": QUICK.replace(b"/api", b"http://x/api", 1),
    "Expect": head("quick", "Expect: 100-continue"),
    "HTTP/1.0": head("quick", "Connection: keep-alive", version="1.0"),
    "Connection: close": head("quick", "Connection: close"),
    "an upgrade": head("quick", "Connection: upgrade", "Upgrade: websocket"),
    "a body": head("quick", "Content-Length: 1") + b"x",
    "chunks": head("quick", "Transfer-Encoding: chunked") + b"1\r\nx\r\n0\r\n\r\n",
    "another method": head("quick", "Content-Length: 2", method="POST") + b"xx",
}


@pytest.mark.parametrize("data", OTHERS.values(), ids=OTHERS)
async def test_what_asks_for_more_goes_aiohttps_way(start, made, data):
    server = await start()
    caller = await server.connect()
    caller.writer.write(data)
    await caller.reader.readuntil(b"HTTP/1.1 200 OK\r\n" if b"1.0" not in data else b"200 OK\r\n")
    assert len(made) == 1
    await until(lambda: len(server.access()) == 1)


async def test_a_request_in_the_plain_makes_none(start, made):
    caller = await (await start()).connect()
    assert (await caller.ask(QUICK)).status == 200
    assert made == []


HEARD = {
    "middleware": (
        """
    @web.middleware
    async def look(request, handler):
        return await handler(request)
    """,
        "feature = Feature(routes, middlewares=[look])",
    ),
    "listener": (
        """
    async def look(app):
        async def sign(request, response):
            response.headers["X-Signed"] = request.path
        app.on_response_prepare.append(sign)
        yield
    """,
        "feature = Feature(routes, lifespan=look)",
    ),
}


@pytest.mark.parametrize("how", HEARD)
async def test_a_feature_that_looks_at_every_request_sees_them_all(start, made, how):
    code, feature = HEARD[how]
    source = FEATURE.replace("feature = Feature(routes)", f"{textwrap.dedent(code)}\n\n{feature}")
    caller = await (await start(source=source)).connect()
    answer = await caller.ask(QUICK)
    assert answer.status == 200
    assert made == ["/api/v1/quick"]
    if how == "listener":
        assert answer.header("x-signed") == "/api/v1/quick"


async def test_a_middleware_of_the_root_application_sees_every_request(start):
    @web.middleware
    async def refuse(request: web.Request, handler: Any) -> web.StreamResponse:
        raise web.HTTPUnauthorized

    server = await start(change=lambda app: app.middlewares.append(refuse))
    assert (await (await server.connect()).ask(QUICK)).status == 401


async def test_a_listener_of_the_root_application_hears_every_answer(start):
    async def sign(request: web.Request, response: web.StreamResponse) -> None:
        response.headers["X-Signed"] = "yes"

    server = await start(change=lambda app: app.on_response_prepare.append(sign))
    assert (await (await server.connect()).ask(QUICK)).header("x-signed") == "yes"


async def test_a_client_that_is_told_of_no_way_sees_no_difference_in_the_context(start, log_lines):
    server = await start()
    caller = await server.connect()
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    answer = await caller.ask(head("quick", "X-Request-ID: mine", f"traceparent: {trace}"))

    assert answer.header("x-request-id") == "mine"
    assert (answer.header("traceparent") or "")[:36] == trace[:36]
    own = [line for line in log_lines() if line.get("request_id") == "mine"]
    assert [line["message"] for line in own] == ["quick", "GET /api/v1/quick 200"]
    assert {(line["feature"], line["trace_id"]) for line in own} == {("probe", trace[3:35])}


async def test_no_request_sees_the_context_variables_of_another(start):
    caller = await (await start()).connect()
    for path in ("count", f"{LONG}count", "count", "count"):
        assert (await caller.ask(head(path))).body == b"1"
    caller.writer.write(head("count") * 3)
    assert [(await caller.answer()).body for _ in range(3)] == [b"1"] * 3


# --- Arguments -----------------------------------------------------------------------------------

ARGUMENTS = """
from datetime import date
from enum import Enum
from typing import Annotated, Literal

from petsage import Body, Cookie, Header, Query


class Sort(BaseModel):
    by: Literal["name", "age"] = "name"
    tags: list[str] = []


@routes.get("/pets/{id}")
async def pet(id: int, verbose: bool = False) -> dict[str, object]:
    if id == 7:
        raise Problem(404, "No pet has the id 7", headers={"X-Own": "1"}, id=7)
    if id == 8:
        raise Problem(409, "no", headers={"X-Own": "1\\r\\nX-Other: 2"})
    if id == 9:
        raise Problem(409, "no", headers={"Server": "own"})
    return {"id": id, "verbose": verbose}


@routes.delete("/pets/{id}")
async def drop(id: int) -> None:
    logger.info("dropped %d", id)


@routes.put("/pets/{id}")
async def put(id: int, pet: Pet, force: bool = False) -> dict[str, object]:
    return {"id": id, "pet": pet, "force": force}


@routes.patch("/pets/{id}")
async def patch(
    id: int, pet: Annotated[Pet, Body(media_type="application/merge-patch+json")]
) -> Pet:
    return pet


@routes.get("/text/{one}/{two}")
async def text(one: str, two: str) -> list[str]:
    return [one, two]


@routes.get("/text/{one}/literal")
async def literal(one: str) -> list[str]:
    return ["literal", one]


@routes.get("/files/{name:path}")
async def file(name: str) -> str:
    return name


@routes.get("/query")
async def query(
    name: Annotated[str, Query()], tags: list[str] = [], day: date | None = None, many: float = 0
) -> dict[str, object]:
    return {"name": name, "tags": tags, "day": day, "many": many}


@routes.get("/sort")
async def sort(sort: Annotated[Sort, Query()]) -> Sort:
    return sort


@routes.get("/headers")
async def headers(
    x_one: Annotated[int, Header()],
    x_list: Annotated[list[str], Header()] = [],
    user: Annotated[str, Cookie()] = "nobody",
    other: Annotated[str, Cookie(name="o")] = "none",
) -> dict[str, object]:
    return {"one": x_one, "list": x_list, "user": user, "other": other}


@routes.post("/empty")
async def empty() -> dict[str, str]:
    return {}


@routes.get("/whole/{id}")
async def whole(id: int, request: web.Request) -> dict[str, str]:
    return {"id": request.match_info["id"], "query": request.query_string}
"""
PET = b'{"name":"Rex"}'
ONE = "X-One: 1"


def put(path: str, body: bytes, method: str = "PUT") -> tuple[str, str, tuple[str, ...], bytes]:
    return method, path, ("Content-Type: application/json", f"Content-Length: {len(body)}"), body


def get(path: str, *lines: str) -> tuple[str, str, tuple[str, ...], bytes]:
    return "GET", path, lines, b""


# By what is asked: the status, and whether a request is made for it all the same.
ASKED: dict[tuple[str, str, tuple[str, ...], bytes], tuple[int, bool]] = {
    get("pets/1"): (200, False),
    get("pets/1?"): (200, False),
    get("pets/1?x=1&verbose"): (422, False),
    get("pets/1?verbose=yes&verbose=no"): (422, False),
    get("pets/1?VERBOSE=x"): (200, False),
    get("pets/%31"): (200, False),
    get("pe%74s/1"): (200, False),
    get("pets/x"): (422, False),
    get("pets/%00"): (422, False),
    get("pets/"): (404, False),
    get("pets/1/"): (404, False),
    get("pets//1"): (404, False),
    get("pets/../pets/1"): (404, False),
    get("pets/%2e%2e/1"): (404, False),
    get("pets/..%2f1"): (422, False),
    get("pets/1%"): (400, True),
    get("pets/%c3"): (400, True),
    get("pets/7"): (404, False),
    get("pets/8"): (500, True),
    get("pets/9"): (409, True),
    get(f"pets/{'9' * 5000}"): (422, False),
    ("HEAD", "pets/1", (), b""): (200, False),
    ("HEAD", "pets/x?verbose=1", (), b""): (422, False),
    ("HEAD", "pets/7", (), b""): (404, False),
    ("DELETE", "pets/1", (), b""): (204, False),
    ("DELETE", "pets/x", (), b""): (422, False),
    ("DELETE", "pets/1", ("Content-Length: 2",), b"{}"): (204, True),
    ("POST", "pets/1", (), b""): (405, False),
    ("POST", "pets/1?x=1", (), b""): (405, False),
    ("OPTIONS", "pets/1", (), b""): (204, True),
    put("pets/1", PET): (200, False),
    put("pets/1?force=1", PET): (200, False),
    put("pets/x?force=x", b'{"name":3}'): (422, False),
    put("pets/x", b'{"name":'): (400, False),
    put("pets/x", b"NaN"): (400, False),
    put("pets/1", b""): (422, True),
    put("nothing/1", PET): (404, True),
    ("PUT", "pets/1", (), b""): (422, False),
    ("PUT", "pets/x", ("Content-Type: text/plain", "Content-Length: 2"), b"{}"): (415, True),
    put("pets/1", PET, "PATCH"): (415, True),
    ("PATCH", "pets/1", (), b""): (422, False),
    get("text/a/b"): (200, False),
    get("text/a/literal"): (200, False),
    get("text/a%2Fb/%C3%BC%20+"): (200, False),
    get("text/literal/literal"): (200, False),
    get("text/a:b/c;d=e"): (200, False),
    get("text/a//"): (404, False),
    get("text//b"): (404, False),
    get("files/a/b//c"): (200, False),
    get("files/a%2F..%2Fb"): (200, False),
    get("files/a/../b"): (404, False),
    get("query"): (422, False),
    get("query?name="): (200, False),
    get("query?name=a+b%20c%2B%26&tags=1&tags=2"): (200, False),
    get("query?name=a&name=b"): (422, False),
    get("query?name=%ff"): (422, False),
    get("query?name=%EF%BF%BD"): (200, False),
    get("query?name=%zz&day=1"): (422, False),
    get("query?name=a&day=2024-02-30&many=nan"): (422, False),
    get("query?name=a&day=2024-02-29&many=1e2&tags"): (200, False),
    get("query?name=a;day=2024-02-29"): (200, False),
    get("query?name=a?b=c"): (200, False),
    get("query#name=a"): (400, True),
    get("sort?by=age&tags=1&tags=2"): (200, False),
    get("sort?by=size&other=1"): (422, False),
    get("sort"): (200, False),
    get("headers"): (422, False),
    get("headers", ONE): (200, False),
    get("headers", "x-ONE:   2 "): (200, False),
    get("headers", ONE, "X-One: 2"): (422, False),
    get("headers", ONE, "X-List: a, b,,c", "X-List: d"): (200, False),
    get("headers", ONE, "X-List: \xff"): (422, False),
    get("headers", ONE, 'Cookie: user=me; o="a b"; user=you'): (200, False),
    get("headers", ONE, "Cookie: user=\xff; o"): (422, False),
    get("headers", ONE, "Content-Encoding: gzip"): (200, True),
    get("headers", ONE, "Content-Encoding: strange"): (415, True),
    ("POST", "empty", (), b""): (200, False),
    ("POST", "empty", ("Content-Length: 0",), b""): (200, True),
    get("whole/1?x=1"): (200, True),
    get("nothing?x=1"): (404, False),
    get("nothing/%C3%BC"): (404, False),
}


async def answered(server: Server, asked: Any) -> tuple[Any, ...]:
    """Answer, access line, further lines, counts, and whether the connection goes on."""
    method, path, lines, body = asked
    before, counts = len(server.lines()), server.counts()
    caller = await server.connect()
    data = head(path, *lines, "User-Agent: me", method=method)
    caller.writer.write(data.decode().encode("latin-1") + body)
    raw = await caller.reader.readuntil(b"\r\n\r\n")
    answer = Answer(raw, b"")
    if method != "HEAD":
        body = await caller.reader.readexactly(int(answer.header("content-length") or 0))
        answer = Answer(raw, body)
    if answer.header("connection") == "close":
        assert await caller.rest() == b""
    else:
        assert (await caller.ask(QUICK)).status == 200
    await caller.close()
    own = {"timestamp", "request_id", "trace_id", "span_id", "duration_ms", "exc_info"}
    await until(lambda: any(each["logger"] == "petsage.access" for each in server.lines()[before:]))
    said = [{key: line[key] for key in line if key not in own} for line in server.lines()[before:]]
    (line, *_) = (each for each in said if each["logger"] == "petsage.access")
    assert (line["bytes"], line["status"]) == (answer.size, answer.status)
    new = {key: n - counts.get(key, 0) for key, n in server.counts().items()}
    return answer.status, answer.comparable, said, {key: n for key, n in new.items() if n}


async def test_arguments_are_taken_as_on_aiohttps_way(start, made):
    server = await start(source=FEATURE.replace("HANDLERS", ARGUMENTS))
    for asked, (status, is_made) in ASKED.items():
        method, path, lines, body = asked
        made.clear()
        direct = await answered(server, asked)
        assert direct[0] == status, (asked, direct)
        assert len(made) == is_made, (asked, made)
        slow = await answered(server, (method, f"{LONG}{path}", lines, body))
        assert slow == direct, asked
        assert len(made) == is_made + 1


# --- One after another ----------------------------------------------------------------------------

MIX = ["quick", "quick/1", "count", f"{LONG}count", "quick", "kind-0", "quick/2", "count"]
BODIES = {"quick": b'{"quick":"yes"}', "count": b"1", f"{LONG}count": b"1", "kind-0": b'{"a":1}'}
BODIES |= {f"quick/{name}": b'{"slow":"%d"}' % name for name in (1, 2)}


async def bodies(caller: Caller, paths: list[str]) -> list[bytes]:
    return [(await caller.answer()).body for _ in paths]


async def test_direct_and_other_requests_take_turns_on_one_connection(start):
    server = await start()
    caller = await server.connect()
    for path in MIX * 2:
        answer = await caller.ask(head(path))
        assert answer.body == BODIES[path]
        line = server.access()[-1]
        assert (line["path"], line["bytes"]) == (f"/api/v1/{path.removeprefix(LONG)}", answer.size)
    assert len(server.access()) == len(MIX * 2)


async def test_requests_one_behind_another_are_answered_in_order_however_they_are_cut(start):
    server = await start()
    data = b"".join(map(head, MIX))
    for cut in range(0, len(data), 3):
        caller = await server.connect()
        before = sum(server.counts().values())
        caller.writer.write(data[:cut])
        whole = data[:cut].count(b"\r\n\r\n")
        # What has come whole is answered before the rest comes.
        assert await bodies(caller, MIX[:whole]) == [BODIES[path] for path in MIX[:whole]]
        caller.writer.write(data[cut:])
        assert await bodies(caller, MIX[whole:]) == [BODIES[path] for path in MIX[whole:]]
        assert sum(server.counts().values()) - before == len(MIX)
        await caller.close()


async def test_a_request_that_comes_a_byte_at_a_time_is_answered(start):
    caller = await (await start()).connect()
    for path in MIX:
        for byte in head(path):
            caller.writer.write(bytes([byte]))
            await asyncio.sleep(0)
        assert (await caller.answer()).body == BODIES[path]


async def test_two_hundred_requests_in_one_packet_are_answered_in_order(start):
    server = await start()
    caller = await server.connect()
    paths = ["quick", "count"] * 100
    ids = [f"id-{number}" for number in range(200)]
    caller.writer.write(
        b"".join(head(path, f"X-Request-ID: {id_}") for path, id_ in zip(paths, ids, strict=True))
    )
    assert [(await caller.answer()).header("x-request-id") for _ in ids] == ids
    await until(lambda: len(server.access()) == 200)
    assert [line["request_id"] for line in server.access()] == ids


async def test_what_comes_while_one_is_answered_waits_for_its_turn(start):
    server = await start()
    caller, other = await server.connect(), await server.connect()
    caller.writer.write(head("held"))
    await server.feature.begun.wait()
    for path in MIX * 8:  # more than aiohttp queues
        caller.writer.write(head(path))
    assert (await other.ask(QUICK)).status == 200
    assert len(server.access()) == 1

    server.feature.go.set()

    assert (await caller.answer()).body == b'{"held":"done"}'
    assert await bodies(caller, MIX * 8) == [BODIES[path] for path in MIX * 8]
    assert len(server.access()) == 2 + len(MIX * 8)


async def test_a_body_after_a_direct_answer_is_read(start, made):
    server = await start()
    caller = await server.connect()
    for size in (0, 5, 300_000):
        assert (await caller.ask(QUICK)).status == 200
        post = head("quick", f"Content-Length: {size}", method="POST")
        caller.writer.write(post[:30])
        await asyncio.sleep(0)
        assert (await caller.ask(post[30:] + b"x" * size)).body == b'{"read":%d}' % size
    assert len(made) == 3


@pytest.mark.parametrize("when", ["in the next packet", "while it is answered"])
async def test_garbage_behind_a_direct_request_is_answered_once_and_closed(start, when):
    server = await start()
    caller = await server.connect()
    if when == "in the next packet":
        assert (await caller.ask(QUICK)).status == 200
        caller.writer.write(b"SECRET\r\n\r\n")
    else:
        caller.writer.write(head("held"))
        await server.feature.begun.wait()
        caller.writer.write(b"SECRET\r\n\r\n")
        await (await server.connect()).ask(head("go"))
        assert (await caller.answer()).body == b'{"held":"done"}'
    assert (await caller.answer()).status == 400
    assert await caller.rest() == b""
    assert [line["status"] for line in server.access()][-1] == 400


async def test_garbage_in_the_same_packet_ends_the_connection_as_ever(start):
    server = await start()
    caller = await server.connect()
    caller.writer.write(QUICK + b"SECRET\r\n\r\n")
    answers = await caller.rest()
    assert answers.endswith(b"}")
    assert answers.count(b" 400 Bad Request\r\n") == 1
    assert len(server.access()) == answers.count(b"HTTP/1.")


# --- Heads that came before ----------------------------------------------------------------------


@pytest.fixture
def parsed(monkeypatch) -> list[bytes]:
    """What aiohttp's parser is given, packet by packet."""
    packets: list[bytes] = []
    original = RequestHandler.data_received

    def note(self: RequestHandler, data: bytes) -> None:
        packets.append(data)
        original(self, data)

    monkeypatch.setattr(RequestHandler, "data_received", note)
    return packets


def replace_in(file: Path, old: str, new: str) -> None:
    file.write_text(file.read_text("utf-8").replace(old, new), "utf-8")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_head_that_came_before_is_answered_as_the_first_was(start, parsed, method):
    server = await start()
    data = head("quick", "User-Agent: me", "Connection: keep-alive", method=method)
    caller, other = await server.connect(), await server.connect()
    answers = []
    for each in (caller, caller, other, caller):
        each.writer.write(data)
        raw = await each.reader.readuntil(b"\r\n\r\n")
        body = b"" if method == "HEAD" else await each.reader.readexactly(15)
        answers.append(Answer(raw, body))
    assert parsed == [data]
    assert len({repr(answer.comparable) for answer in answers}) == 1
    assert len({answer.header("x-request-id") for answer in answers}) == 4
    lines = server.access()
    assert [line["request_id"] for line in lines] == [
        answer.header("x-request-id") for answer in answers
    ]
    shown = ("method", "path", "route", "status", "bytes", "user_agent", "feature")
    assert {tuple(line[key] for key in shown) for line in lines} == {
        (method, "/api/v1/quick", "/api/v1/quick", 200, answers[0].size, "me", "probe")
    }
    assert server.counts() == {(method, "/api/v1/quick", "200"): 4}
    assert server.runner.server is not None
    assert server.runner.server.requests_count == 4


async def test_a_head_that_came_before_leads_to_what_is_served_now(start, parsed):
    server = await start()
    caller = await server.connect()
    assert (await caller.ask(QUICK)).body == b'{"quick":"yes"}'
    file = Path(server.feature.__file__)
    replace_in(file, '"yes"', '"now"')
    await server.app[CATALOG].refresh()
    assert (await caller.ask(QUICK)).body == b'{"quick":"now"}'
    replace_in(file, '"/quick"', '"/slow"')
    await server.app[CATALOG].refresh()
    assert (await caller.ask(QUICK)).status == 404
    replace_in(file, '"/slow"', '"/quick"')
    await server.app[CATALOG].refresh()
    assert (await caller.ask(QUICK)).body == b'{"quick":"now"}'
    assert parsed == [QUICK]


async def test_a_head_that_nothing_answered_before_is_refused_as_the_first_was(start, parsed, made):
    server = await start()
    caller, other = await server.connect(), await server.connect()
    answers = {}
    for method, path, status in (("GET", "nothing", 404), ("DELETE", "quick", 405)):
        parsed.clear()
        data = head(path, "User-Agent: me", method=method)
        answers[status] = [await each.ask(data) for each in (caller, caller, other)]
        assert parsed == [data]
        assert {answer.status for answer in answers[status]} == {status}
        assert len({repr(answer.comparable) for answer in answers[status]}) == 1
        assert len({answer.header("x-request-id") for answer in answers[status]}) == 3
        lines = server.access()[-3:]
        assert {(line["method"], line["status"]) for line in lines} == {(method, status)}
        assert [line["request_id"] for line in lines] == [
            answer.header("x-request-id") for answer in answers[status]
        ]
    assert server.runner.server.requests_count == 6
    assert made == []

    parsed.clear()
    replace_in(Path(server.feature.__file__), '"/go"', '"/nothing"')
    await server.app[CATALOG].refresh()
    assert (await caller.ask(head("nothing", "User-Agent: me"))).status == 200
    assert parsed == []


async def test_a_known_head_in_pieces_or_with_more_behind_it_is_parsed(start, parsed):
    server = await start()
    caller = await server.connect()
    assert (await caller.ask(QUICK)).status == 200
    for data in ((QUICK[:20], QUICK[20:]), (QUICK + QUICK,), (QUICK + QUICK[:9], QUICK[9:])):
        parsed.clear()
        expected = b"".join(data).count(b"\r\n\r\n")
        for piece in data:
            caller.writer.write(piece)
            await until(lambda: parsed and parsed[-1] == piece)  # noqa: B023 - called at once
        assert await bodies(caller, ["quick"] * expected) == [BODIES["quick"]] * expected
        assert parsed == list(data)
        assert (await caller.ask(QUICK)).status == 200
        assert parsed == list(data)


async def test_a_known_head_behind_others_waits_for_its_turn(start, parsed):
    server = await start()
    caller, other = await server.connect(), await server.connect()
    assert (await caller.ask(QUICK)).status == 200
    caller.writer.write(head("held"))
    await server.feature.begun.wait()
    caller.writer.write(QUICK)
    await until(lambda: len(parsed) == 3)  # it is not looked up while another is in hand
    await other.ask(head("go"))
    assert (await caller.answer()).body == b'{"held":"done"}'
    assert (await caller.answer()).body == BODIES["quick"]


@pytest.mark.parametrize("is_apart", [True, False])
async def test_garbage_behind_a_known_head_is_refused(start, is_apart):
    server = await start()
    caller = await server.connect()
    assert (await caller.ask(QUICK)).status == 200
    if is_apart:
        assert (await caller.ask(QUICK)).status == 200
    else:
        caller.writer.write(QUICK)
    caller.writer.write(b"SECRET\r\n\r\n")
    if not is_apart:
        assert (await caller.answer()).status == 200
    assert (await caller.answer()).status == 400
    assert await caller.rest() == b""


async def test_a_known_head_is_refused_where_there_are_too_many(start):
    server = await start(max_requests_in_flight=1)
    caller, other = await server.connect(), await server.connect()
    assert (await caller.ask(QUICK)).status == 200
    other.writer.write(head("held"))
    await server.feature.begun.wait()
    assert (await caller.ask(QUICK)).status == 503
    server.feature.go.set()
    assert (await other.answer()).status == 200
    assert (await caller.ask(QUICK)).status == 200


async def test_a_known_head_is_a_connections_last_where_it_is_to_close(start):
    server = await start()
    caller = await server.connect()
    assert (await caller.ask(QUICK)).header("connection") is None
    server.runner.close_after_answers()
    assert (await caller.ask(QUICK)).header("connection") == "close"
    assert await caller.rest() == b""


@pytest.mark.parametrize(
    "line",
    [
        *("Authorization: Bearer s3cret", "authorization: Basic s3cret", "Cookie: a=s3cret"),
        *("Proxy-Authorization: Basic s3cret", "X-Api-Key: s3cret", "X-Request-ID: s3cret"),
        *("traceparent: s3cret", "X-Forwarded-For: 192.0.2.1", f"User-Agent: {'x' * 1024}"),
    ],
)
async def test_a_head_with_what_may_be_secret_or_is_long_is_not_kept(start, parsed, line):
    server = await start()
    caller = await server.connect()
    data = head("quick", line)
    for count in (1, 2):
        assert (await caller.ask(data)).status == 200
        assert parsed == [data] * count
    assert (await caller.ask(head("nothing", line))).status == 404
    assert server.runner.server.heads == server.runner.server.heads.refused == {}


@pytest.mark.parametrize("path", ["quick?token=s3cret", "quick?", "quick/me"])
async def test_a_head_with_a_query_or_a_name_in_its_path_is_not_kept(start, parsed, made, path):
    server = await start()
    caller = await server.connect()
    for count in (1, 2):
        assert (await caller.ask(head(path))).status == 200
        assert parsed == [head(path)] * count
    assert (await caller.ask(head("nothing?token=s3cret"))).status == 404
    assert server.runner.server.heads == server.runner.server.heads.refused == {}
    assert made == []


async def test_no_more_heads_are_kept_than_a_bound(start):
    server = await start()
    caller = await server.connect()
    heads = server.runner.server.heads
    for number in range(MAX_HEADS + 2):
        assert (await caller.ask(head("quick", f"User-Agent: {number}"))).status == 200
        assert (await caller.ask(head("nothing", f"User-Agent: {number}"))).status == 404
        assert max(len(heads), len(heads.refused)) <= MAX_HEADS
    assert len(heads) == len(heads.refused) == 2
    for number in range(MAX_HEADS):
        assert (await caller.ask(head("nothing", f"User-Agent: other {number}"))).status == 404
    assert len(heads) == 2  # who looks for holes drives out no head that is answered


@pytest.mark.parametrize(
    "kind", ["dict", "reply", "none", "status without a body", "problem", "error", "cookie"]
)
async def test_the_answer_to_a_head_is_the_one_that_aiohttps_way_gives(start, kind):
    server = await start()
    found = []
    for path in (IDS[kind], f"{LONG}{IDS[kind]}"):
        caller = await server.connect()
        caller.writer.write(head(path, method="HEAD"))
        raw = await caller.reader.readuntil(b"\r\n\r\n")
        assert (await caller.ask(QUICK)).status == 200  # no body was between
        line = server.access()[-2]
        found.append((Answer(raw, b"").comparable, line["bytes"] - len(raw), line["status"]))
    assert found[0] == found[1]
    assert found[0][1] == 0


# --- What nothing answers ------------------------------------------------------------------------

REFUSED = {
    "nothing": ("GET", "nothing"),
    "nothing for HEAD": ("HEAD", "nothing"),
    "nothing by another method": ("DELETE", "nothing"),
    "a slash too many": ("GET", "quick/"),
    "dots": ("GET", "../quick"),
    "doubled slashes": ("GET", "/quick//x"),
    "another method": ("DELETE", "quick"),
    "another method below a name": ("DELETE", "quick/me"),
    "HEAD of what has no GET": ("HEAD", "only-put"),
}


@pytest.mark.parametrize(("method", "path"), REFUSED.values(), ids=REFUSED)
async def test_a_refusal_is_the_one_that_aiohttps_way_gives(start, made, method, path):
    put = '@routes.put("/only-put")\nasync def put() -> int:\n    return 1'
    server = await start(source=FEATURE.replace("HANDLERS", f"HANDLERS\n\n\n{put}"))
    (generation,) = {
        route.generation
        for route in server.app[CATALOG].resource.table.routes
        if route.feature == "probe"
    }
    found = []
    for each in (path, f"{LONG}{path}"):
        made.clear()
        served, counts = generation.served, server.counts()
        caller = await server.connect()
        caller.writer.write(head(each, "User-Agent: me", "X-Request-ID: own", method=method))
        raw = await caller.reader.readuntil(b"\r\n\r\n")
        answer = Answer(raw, b"")
        if method != "HEAD":
            body = await caller.reader.readexactly(int(answer.header("content-length") or 0))
            answer = Answer(raw, body)
        line = server.access()[-1]
        assert line["request_id"] == answer.header("x-request-id") == "own"
        assert line["bytes"] == answer.size
        assert line["path"] == f"/api/v1/{path}"
        own = {"timestamp", "trace_id", "span_id", "duration_ms"}
        shown = {key: value for key, value in line.items() if key not in own}
        new = {key: n - counts.get(key, 0) for key, n in server.counts().items()}
        counted = {key: n for key, n in new.items() if n}
        found.append((answer.comparable, shown, counted, generation.served - served))
        assert len(made) == (0 if each == path else 1)
        assert (await caller.ask(QUICK)).status == 200
    assert found[0] == found[1]
    assert generation.in_flight == 0


async def test_a_refusal_leaves_no_request_behind_on_its_connection(start, monkeypatch):
    contexts: list[Any] = []
    original = RequestHandler.data_received

    def note(self: RequestHandler, data: bytes) -> None:
        contexts.append(current_request())
        original(self, data)

    monkeypatch.setattr(RequestHandler, "data_received", note)
    server = await start()
    caller = await server.connect()
    for path in ("nothing", "nothing", "missing", "quick"):  # the second is not parsed
        await caller.ask(head(path))
    (connection,) = server.connections
    assert connection._held is None
    assert contexts == [None, None, None]


async def test_refusals_wait_where_their_reader_does_not_read(start, made):
    server = await start()
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, server.runner.addresses[0][:2])
    caller = Caller(*await asyncio.open_connection(sock=raw))
    await caller.ask(QUICK)
    own: Any = caller.writer.transport
    own.pause_reading()
    (connection,) = server.connections
    taken = connection.transport.get_extra_info("socket")
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
    connection.transport.set_write_buffer_limits(high=1)
    count = 0
    while not made and count < 500:
        count += 1
        caller.writer.write(head("nothing"))
        await until(lambda: made or len(server.access()) > count)  # noqa: B023 - called at once
    assert made
    own.resume_reading()
    for _ in range(count):
        assert (await caller.answer()).status == 404
    await caller.close()


async def test_a_refusal_is_counted_among_what_a_server_was_asked(start):
    server = await start()
    caller = await server.connect()
    assert (await caller.ask(head("nothing"))).status == 404
    assert server.runner.server.requests_count == 1
    server.runner.close_after_answers()
    assert (await caller.ask(head("nothing"))).header("connection") == "close"
    assert await caller.rest() == b""


# --- Bodies ---------------------------------------------------------------------------------------

TAKES = """
class Order(BaseModel):
    name: str
    count: int = 1


@routes.post("/order")
async def order(it: Order) -> Order:
    return it


@routes.put("/order")
async def maybe(it: Order | None = None) -> Order | None:
    return it
"""
TAKING = FEATURE.replace("HANDLERS", f"HANDLERS\n\n\n{TAKES}")
JSON_LINE = "Content-Type: application/json"


def sent(body: bytes, *more: str, path: str = "order", method: str = "POST") -> bytes:
    return head(path, f"Content-Length: {len(body)}", *more, method=method) + body


# Each with whether a request is made for it, if only for its problem.
BODIES_SENT: dict[str, tuple[bytes, bool, dict[str, Any]]] = {
    "good": (b'{"name":"x","count":3}', False, {}),
    "a put": (b'{"name":"x"}', False, {"method": "PUT"}),
    "null for what may be left out": (b"null", False, {"method": "PUT"}),
    "wrong fields": (b'{"count":"3"}', False, {}),
    "no JSON": (b'{"name":', False, {}),
    "what is no UTF-8": (b'{"name":"\xff"}', False, {}),
    "NaN": (b'{"name":"x","count":NaN}', False, {}),
    "empty": (b"", True, {}),
    "empty where it may be left out": (b"", True, {"method": "PUT"}),
    "another type": (b'{"name":"x"}', True, {"lines": ("Content-Type: text/plain",)}),
    "no type": (b'{"name":"x"}', True, {"lines": ()}),
    "a charset": (b'{"name":"x"}', True, {"lines": (f"{JSON_LINE}; charset=utf-16",)}),
    "an encoding": (zlib.compress(b'{"name":"x"}'), True, {"coding": "deflate"}),
    "Expect": (b'{"name":"x"}', True, {"lines": (JSON_LINE, "Expect: 200-ok")}),
    "too large": (b'{"name":"%s"}' % (b"x" * 5000), True, {}),
}


@pytest.mark.parametrize(("body", "is_made", "options"), BODIES_SENT.values(), ids=BODIES_SENT)
async def test_a_body_is_answered_as_aiohttps_way_does(start, made, body, is_made, options):
    server = await start(source=TAKING, max_body_bytes=4096)
    lines = options.get("lines", (JSON_LINE,))
    if "coding" in options:
        lines = (*lines, f"Content-Encoding: {options['coding']}")
    found = []
    for path in ("order", f"{LONG}order"):
        made.clear()
        counts = server.counts()
        caller = await server.connect()
        data = sent(body, *lines, path=path, method=options.get("method", "POST"))
        answer = await caller.ask(data)
        line = server.access()[-1]
        assert line["request_id"] == answer.header("x-request-id")
        counted = {key: n for key, n in server.counts().items() if n != counts.get(key, 0)}
        shown = {key: line.get(key) for key in ("method", "path", "route", "status", "bytes")}
        found.append((answer.comparable, shown, list(counted)))
        assert len(made) == (1 if is_made or path != "order" else 0)
        if answer.header("connection") is None:
            assert (await caller.ask(QUICK)).status == 200
    assert found[0] == found[1]


async def test_a_body_in_pieces_or_with_more_behind_it_is_read(start, made):
    server = await start(source=TAKING)
    caller = await server.connect()
    data = sent(b'{"name":"x","count":3}', JSON_LINE)
    for cut in range(1, len(data), 7):
        caller.writer.write(data[:cut])
        await asyncio.sleep(0.001)
        caller.writer.write(data[cut:])
        assert (await caller.answer()).body == b'{"name":"x","count":3}'
    made.clear()
    caller.writer.write(data + QUICK + data + QUICK[:9])
    for body in (b'{"name":"x","count":3}', BODIES["quick"], b'{"name":"x","count":3}'):
        assert (await caller.answer()).body == body
    caller.writer.write(QUICK[9:])
    assert (await caller.answer()).body == BODIES["quick"]
    caller = await server.connect()
    made.clear()
    for _ in range(3):
        assert (await caller.ask(data)).body == b'{"name":"x","count":3}'
        assert (await caller.ask(QUICK)).body == BODIES["quick"]
    assert made == []


async def test_a_body_in_chunks_goes_aiohttps_way(start, made):
    server = await start(source=TAKING)
    caller = await server.connect()
    chunks = b'c\r\n{"name":"x"}\r\n0\r\n\r\n'
    begin = head("order", JSON_LINE, "Transfer-Encoding: chunked", method="POST")
    assert (await caller.ask(begin + chunks)).body == b'{"name":"x","count":1}'
    assert made == ["/api/v1/order"]


async def test_a_body_is_not_taken_for_the_begin_of_the_next_head(start):
    server = await start(source=TAKING, header_timeout_s=0.3)
    caller = await server.connect()
    assert (await caller.ask(sent(b'{"name":"x"}', JSON_LINE))).status == 200
    await asyncio.sleep(0.8)  # longer than a head may take
    assert (await caller.ask(QUICK)).status == 200


async def test_a_body_whose_route_has_gone_meanwhile_is_refused_whole(start, made, parsed):
    server = await start(source=TAKING)
    caller = await server.connect()
    data = sent(b'{"name":"x"}', JSON_LINE)
    (route,) = (
        each
        for each in server.app[CATALOG].resource.table.routes
        if each.template == "/api/v1/order" and each.compiled.route.method == "POST"
    )
    for count in (1, 2):
        route.generation.is_retired = True
        try:
            assert (await caller.ask(data)).status == 503
        finally:
            route.generation.is_retired = False
        assert made == ["/api/v1/order"] * count
        assert (await caller.ask(data)).body == b'{"name":"x","count":1}'
        assert parsed == [data]  # its head has been known since the first


async def test_a_body_behind_a_head_that_came_before_is_read_as_the_first_was(start, parsed):
    server = await start(source=TAKING)
    caller, other = await server.connect(), await server.connect()
    data = sent(b'{"name":"x"}', JSON_LINE)
    assert (await caller.ask(data)).body == b'{"name":"x","count":1}'
    for name in (b"y", b"z"):
        for each in (caller, other):
            answer = await each.ask(data.replace(b'"x"', b'"%s"' % name))
            assert answer.body == b'{"name":"%s","count":1}' % name
    wrong = await caller.ask(data.replace(b'"x"', b"123"))
    assert (wrong.status, len(json.loads(wrong.body)["errors"])) == (422, 1)
    assert (await caller.ask(QUICK)).body == BODIES["quick"]
    assert parsed == [data, QUICK]
    assert [line["status"] for line in server.access()] == [*[200] * 5, 422, 200]
    assert server.counts()["POST", "/api/v1/order", "200"] == 5


async def test_a_body_behind_a_head_that_came_before_is_as_long_as_that_says(start, parsed):
    server = await start(source=TAKING)
    caller = await server.connect()
    data = sent(b'{"name":"x"}', JSON_LINE)
    only_head, body = data[: data.index(b"{")], data[data.index(b"{") :]
    assert (await caller.ask(data)).status == 200
    for pieces in ((only_head, body), (data[:-1], data[-1:]), (data + b"\r\n",), (data + QUICK,)):
        parsed.clear()
        for piece in pieces:
            caller.writer.write(piece)
            await until(lambda: parsed and parsed[-1] == piece)  # noqa: B023 - called at once
        assert (await caller.answer()).body == b'{"name":"x","count":1}'
    assert (await caller.answer()).body == BODIES["quick"]
    # No body is longer than its head says: what follows is another request, and this is none.
    caller.writer.write(data + b"x\r\n\r\n")
    assert [(await caller.answer()).status for _ in range(2)] == [200, 400]
    assert await caller.rest() == b""


async def test_a_body_behind_a_known_head_is_refused_where_there_are_too_many(start):
    server = await start(source=TAKING, max_requests_in_flight=1)
    caller, other = await server.connect(), await server.connect()
    data = sent(b'{"name":"x"}', JSON_LINE)
    assert (await caller.ask(data)).status == 200
    other.writer.write(head("held"))
    await server.feature.begun.wait()
    assert (await caller.ask(data)).status == 503
    server.feature.go.set()
    assert (await other.answer()).status == 200


async def test_a_body_behind_a_known_head_goes_to_what_is_served_now(start, made):
    server = await start(source=TAKING)
    caller = await server.connect()
    data = sent(b'{"name":"x"}', JSON_LINE)
    assert (await caller.ask(data)).status == 200
    file = Path(server.feature.__file__)
    replace_in(
        file,
        "from petsage import Feature",
        "from typing import Annotated\n\nfrom petsage import Body, Feature",
    )
    replace_in(
        file,
        '@routes.post("/order")\nasync def order(it: Order) -> Order:\n    return it',
        '@routes.post("/order")\nasync def order(request: web.Request) -> str:\n'
        "    return await request.text()",
    )
    await server.app[CATALOG].refresh()
    assert (await caller.ask(data)).body == rb'"{\"name\":\"x\"}"'
    assert made == ["/api/v1/order"]
    replace_in(
        file,
        "(request: web.Request) -> str:\n    return await request.text()",
        '(it: Annotated[Order, Body(media_type="application/vnd.x+json")]) -> Order:\n'
        "    return it",
    )
    await server.app[CATALOG].refresh()
    assert (await caller.ask(data)).status == 415
    replace_in(file, '@routes.post("/order")', '@routes.post("/elsewhere")')
    await server.app[CATALOG].refresh()
    assert (await caller.ask(data)).status == 405


@pytest.mark.parametrize("line", ["X-Api-Key: s3cret", f"User-Agent: {'x' * 1024}"])
async def test_a_head_of_a_body_with_what_may_be_secret_or_is_long_is_not_kept(start, line):
    server = await start(source=TAKING)
    caller = await server.connect()
    for data in (
        sent(b'{"name":"x"}', JSON_LINE, line),
        sent(b'{"name":"x"}', JSON_LINE, path="order?token=s3cret"),
    ):
        assert (await caller.ask(data)).status == 200
    assert server.runner.server.heads.with_bodies == {}


async def test_no_more_heads_of_bodies_are_kept_than_a_bound(start):
    server = await start(source=TAKING)
    caller = await server.connect()
    assert (await caller.ask(QUICK)).status == 200
    heads = server.runner.server.heads
    for number in range(MAX_HEADS + 2):
        data = sent(b'{"name":"x"}', JSON_LINE, f"User-Agent: {number}")
        assert (await caller.ask(data)).status == 200
        assert len(heads.with_bodies) <= MAX_HEADS
    assert len(heads.with_bodies) == 2
    assert list(heads) == [QUICK]  # neither drives out the other


# --- Clients that go away -------------------------------------------------------------------------


class ClosedList(list[logging.Handler]):
    """Takes no more: pytest adds its handlers again when a test begins."""

    def append(self, _: logging.Handler) -> None: ...


@pytest.fixture
def alone(log_pipeline, monkeypatch) -> None:
    """pytest keeps the records that it is shown, and with them tracebacks and connections."""
    monkeypatch.setattr(logging.getLogger(), "handlers", ClosedList([log_pipeline]))


def alive() -> int:
    gc.collect()
    return sum(isinstance(each, Connection) for each in gc.get_objects())


@pytest.mark.parametrize("how", ["RST", "FIN"])
@pytest.mark.parametrize("cancels", [True, False])
@pytest.mark.parametrize(
    ("path", "status", "errors"),
    [
        ("held", 200, 0),
        ("held-and-empty", 204, 0),
        ("held-and-refuses", 409, 0),
        ("held-and-fails", 500, 1),
        (f"{LONG}held", 200, 0),
        (f"{LONG}held-and-empty", 204, 0),
        (f"{LONG}held-and-refuses", 409, 0),
        (f"{LONG}held-and-fails", 500, 1),
    ],
)
async def test_a_client_that_leaves_amid_its_request_has_one_line(  # noqa: PLR0917 - a table
    alone, start, how, cancels, path, status, errors
):
    server = await start(cancels=cancels)
    before = alive()
    caller = await server.connect()
    caller.writer.write(head(path))
    await server.feature.begun.wait()
    if how == "RST":
        caller.reset()
    else:
        await caller.close()
    await until(lambda: all(each.transport is None for each in server.connections))
    if not cancels:
        assert server.active == 1
        server.feature.go.set()
    await until(lambda: not server.connections)
    await until(lambda: not connection_tasks())

    assert server.active == 0
    (line,) = server.access()
    assert line["status"] == (503 if cancels else status)
    assert line["remote"] == "127.0.0.1"
    assert len(server.errors()) == (0 if cancels else errors)
    if path.removeprefix(LONG) == "held":
        assert server.feature.outcomes == (["cancelled"] if cancels else ["done"])
    del caller
    server._callers.clear()
    assert alive() == before


@pytest.mark.parametrize("cancels", [True, False])
async def test_clients_that_leave_at_once_leave_nothing_behind(start, cancels):
    server = await start(cancels=cancels)
    before = alive()
    for number in range(60):
        caller = await server.connect()
        caller.writer.write(QUICK)
        for _ in range(number % 6):
            await asyncio.sleep(0)
        caller.reset()
    await until(lambda: not server.connections and not connection_tasks())
    assert server.active == 0
    assert sum(server.counts().values()) == len(server.access())
    assert {line["status"] for line in server.access()} <= {200, 503}
    server._callers.clear()
    del caller
    assert alive() == before


async def test_an_answered_connection_is_garbage_when_its_client_has_left(alone, start):
    server = await start()
    before = alive()
    caller = await server.connect()
    for path in ("quick", "kind-11", "kind-15", "quick"):
        await caller.ask(head(path))
    await caller.close()
    await until(lambda: not server.connections)
    server._callers.clear()
    del caller
    assert alive() == before


async def test_a_slow_reader_holds_up_nobody_and_gets_it_all(start):
    server = await start()
    slow = await server.connect(limit=1000)
    slow.writer.write(head("huge") * 20)
    slow.writer.transport.pause_reading()
    other = await server.connect()
    await until(lambda: server.active == 0 and any(each._paused for each in server.connections))
    for _ in range(20):
        assert (await other.ask(QUICK)).status == 200
    sizes = [each.transport.get_write_buffer_size() for each in server.connections]
    assert max(sizes) < 11_000_000, "one answer at a time"
    assert "/api/v1/huge" not in [line["path"] for line in server.access()]
    slow.writer.transport.resume_reading()
    for _ in range(20):
        assert len((await slow.answer()).body) == 5_000_002
    await until(lambda: len(server.access()) == 40)


async def test_a_reader_that_leaves_amid_a_large_answer_has_one_line(start):
    server = await start()
    for path in ("huge", f"{LONG}huge"):
        caller = await server.connect(limit=1000)
        caller.writer.transport.pause_reading()
        caller.writer.write(head(path))
        await until(lambda: any(each._paused for each in server.connections))
        assert server.access() == [] or path != "huge"
        caller.reset()
        await until(lambda: not server.connections and not connection_tasks())
    assert [line["status"] for line in server.access()] == [200, 200]


# --- Keep-alive and the stop ----------------------------------------------------------------------


async def test_an_idle_connection_is_closed_after_a_direct_answer_and_no_sooner(start):
    server = await start(keepalive_s=0.6)
    caller = await server.connect()
    loop = asyncio.get_running_loop()
    began = loop.time()
    while loop.time() - began < 1.5:
        last = loop.time()
        assert (await caller.ask(QUICK)).status == 200
        await asyncio.sleep(0.2)  # the clock is what it is about
    assert await caller.rest() == b""
    assert 0.55 < loop.time() - last < 2


async def test_a_request_that_takes_longer_than_keep_alive_is_answered(start):
    server = await start(keepalive_s=0.05)
    caller = await server.connect()
    caller.writer.write(head("held"))
    await server.feature.begun.wait()
    await asyncio.sleep(0.15)  # the clock is what it is about
    server.feature.go.set()
    assert (await caller.answer()).status == 200
    assert await caller.rest() == b""


@pytest.mark.parametrize("path", ["held", "held-and-empty", "held-and-fails"])
async def test_a_stop_waits_for_what_is_answered_and_it_says_close(start, path):
    server = await start()
    caller, idle = await server.connect(), await server.connect()
    await idle.ask(QUICK)
    caller.writer.write(head(path))
    await server.feature.begun.wait()
    server.runner.close_after_answers()
    stopping = asyncio.create_task(server.runner.cleanup())
    assert await idle.rest() == b""
    server.feature.go.set()
    answer = await caller.answer()
    assert answer.header("connection") == "close"
    assert await caller.rest() == b""
    async with asyncio.timeout(2):
        await stopping
    assert len(server.access()) == 2


@pytest.mark.parametrize("path", ["held", f"{LONG}held"])
async def test_what_takes_longer_than_the_stop_allows_is_cut_in_time(start, path):
    server = await start(shutdown_s=0.6)
    caller = await server.connect()
    caller.writer.write(head(path))
    feature = server.feature
    await feature.begun.wait()
    began = time.monotonic()
    await server.runner.cleanup()
    assert 0.5 < time.monotonic() - began < 1.2
    assert await caller.rest() == b""
    await until(server.access)
    assert [line["status"] for line in server.access()] == [503]
    assert feature.outcomes == ["cancelled"]


@pytest.mark.parametrize("path", ["huge", f"{LONG}huge"])
async def test_an_answer_that_is_cut_as_it_goes_out_has_one_line(start, path):
    server = await start(shutdown_s=0.2)
    caller = await server.connect(limit=1000)
    caller.writer.transport.pause_reading()
    caller.writer.write(head(path))
    await until(lambda: any(each._paused for each in server.connections))
    await server.runner.cleanup()
    await until(server.access)
    caller.reset()
    await until(lambda: not connection_tasks())
    assert [line["status"] for line in server.access()] == [200]


async def test_idle_connections_after_direct_answers_are_closed_at_once(start, monkeypatch):
    monkeypatch.setattr("petsage.connection._NEXT_REQUEST_S", 0)
    server = await start()
    caller = await server.connect()
    await caller.ask(QUICK)
    server.runner.close_idle()
    assert await caller.rest() == b""


async def test_a_part_of_a_request_after_a_direct_answer_keeps_a_connection(start, monkeypatch):
    monkeypatch.setattr("petsage.connection._NEXT_REQUEST_S", 0)
    server = await start()
    caller = await server.connect()
    await caller.ask(QUICK)
    caller.writer.write(QUICK[:10])
    (connection,) = server.connections
    await until(lambda: connection._part_since)
    assert server.runner.close_idle()
    assert (await caller.ask(QUICK[10:])).status == 200


def connected(server: Any) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(server.address.rpartition(":")[2])), 10)


def test_a_process_that_stops_cuts_what_never_ends_and_exits_with_0(project, start_server):
    write_feature(project, "probe", FEATURE.replace("HANDLERS", ""))
    server = start_server(env={"PETSAGE_SERVER__SHUTDOWN_S": "1"})
    with connected(server) as caller:
        caller.sendall(head("never"))
        server.wait_for(lambda line: line["message"] == "begun")
        began = time.monotonic()
        server.signal(signal.SIGTERM)
        assert server.end() == (0, "")
        assert time.monotonic() - began < 3
    (line,) = [line for line in server.lines if line["logger"] == "petsage.access"]
    assert (line["status"], line["route"]) == (503, "/api/v1/never")


def test_a_process_with_idle_connections_stops_without_waiting(project, start_server):
    write_feature(project, "probe", FEATURE.replace("HANDLERS", ""))
    server = start_server(env={"PETSAGE_SERVER__SHUTDOWN_S": "100"})
    with connected(server) as caller:
        caller.sendall(QUICK)
        assert caller.recv(65536).startswith(b"HTTP/1.1 200")
        server.signal(signal.SIGTERM)
        assert caller.recv(1) == b""
        assert server.end(timeout_s=8) == (0, "")


def test_the_watchdog_names_who_blocks(project, start_server):
    write_feature(project, "probe", FEATURE.replace("HANDLERS", ""))
    server = start_server(env={"PETSAGE_SERVER__STALL_MS": "250"})
    assert server.get("/api/v1/blocks") == (200, 1)
    line = server.wait_for(lambda line: line["message"].startswith("The event loop has stood"))
    assert (line["blocking_feature"], line["route"]) == ("probe", "/api/v1/blocks")


# --- What it rests on -----------------------------------------------------------------------------

NAMES = {
    RequestHandler: """_buffer_paused _close _force_close _handler_waiter _keepalive_handle
        _keepalive_timeout _manager _messages _next_keepalive_close_time _parser _paused
        _process_keepalive _request_count _request_factory _request_in_progress _task_handler
        _waiter _drain_helper _handle_request _resume_transport_reading finish_response
        force_close log_access peername""",
    web.Application: "_make_request _handle",
    web.Request: "_match_info task",
    UrlMappingMatchInfo: "add_app freeze",
}
# What `start` does to each request, and `_answer_directly` does as well.
DOES = {
    RequestHandler.start: """self._waiter = loop.create_future()|self._messages.popleft()
        |self._parser.message_consumed()|manager.requests_count += 1
        |self._next_keepalive_close_time = close_time|if self._keepalive_handle is None
        |request = self._request_factory(
        |coro = self._handle_request(request, start, request_handler)
        |self._keepalive = bool(resp.keep_alive)|request._task = None""",
    RequestHandler._handle_request: """self._request_in_progress = True
        |self._request_in_progress = False|self._handler_waiter.set_result(None)""",
    RequestHandler.data_received: "waiter = self._waiter|self._messages.append((msg, payload))",
}


def test_aiohttp_has_every_private_name_that_the_direct_way_rests_on():
    for owner, names in NAMES.items():
        gone = [name for name in names.split() if not hasattr(owner, name)]
        assert not gone, f"aiohttp {aiohttp.__version__}'s {owner.__name__} has no {gone}"
    function: Any
    for function, lines in DOES.items():
        source = inspect.getsource(function)
        gone = [line for line in map(str.strip, lines.split("|")) if line not in source]
        assert not gone, (
            f"aiohttp {aiohttp.__version__}'s {function.__qualname__} no longer does {gone}: "
            "read it beside petsage/direct.py, which does the same (docs/decisions/0009)"
        )


# --- Whatever comes, in whatever pieces -----------------------------------------------------------

LAST = head("quick", "Connection: close")


def some_request(chance: random.Random) -> bytes:
    """One request, of few enough kinds that most heads come again."""
    method = chance.choice(["GET", "GET", "HEAD", "POST", "POST", "PUT", "DELETE", "OPTIONS"])
    path = chance.choice(["quick", "quick/me", "order", "order", "order?x=1", "nothing", "count/"])
    lines, body = [], b""
    if method in {"POST", "PUT"} and chance.random() < 0.9:
        body = chance.choice([b'{"name":"x"}', b'{"name":"y"}', b'{"name":1}', b"nope", b""])
        lines += [f"Content-Length: {len(body)}", chance.choice([JSON_LINE] * 4 + ["X-Own: 1"])]
    elif method == "POST":
        body = b'c\r\n{"name":"x"}\r\n0\r\n\r\n'
        lines += ["Transfer-Encoding: chunked", JSON_LINE]
    if chance.random() < 0.2:
        lines.append(chance.choice(['If-None-Match: "a"', "Expect: 100-continue"]))
    return head(path, *lines, method=method) + body


def in_pieces(requests: list[bytes], chance: random.Random) -> list[bytes]:
    """One packet for each, one of them in two, one for all, or cut anywhere."""
    raw, way = b"".join(requests), chance.random()
    if way < 0.3:
        return requests
    if way < 0.7:
        *before, last = requests
        cut = len(last) - chance.randint(1, 12)
        return [*before, last[:cut], last[cut:]]
    cuts = [] if way < 0.85 else sorted(chance.sample(range(1, len(raw)), 3))
    return [raw[begin:end] for begin, end in itertools.pairwise([0, *cuts, len(raw)])]


@pytest.mark.parametrize("count", [100, pytest.param(10_000, marks=pytest.mark.stress)])
async def test_whatever_comes_is_answered_as_if_no_head_had_come_before(start, count):
    known, new = await start(source=TAKING), await start(source=TAKING)
    new.runner.server.heads.keep = lambda *_, **__: None
    chance = random.Random(count)

    async def ask(server: Server, pieces: list[bytes]) -> list[tuple[str, ...]] | None:
        caller = await server.connect()
        try:
            for piece in pieces:
                caller.writer.write(piece)
                await asyncio.sleep(0.001)  # so that it is a packet of its own, as a rule
            raw = await caller.rest()
        except ConnectionError:
            return None  # it was closed amid the pieces: what had come is not all
        finally:
            await caller.close()
            server._callers.remove(caller)
        own = rb'(?m)^(date|x-request-id|traceparent):.*|(?<="request_id":")\w+'
        shown = re.sub(own, b"", raw, flags=re.IGNORECASE).decode()
        return [tuple(sorted(answer.split("\r\n"))) for answer in shown.split("HTTP/1.1 ")]

    compared = 0
    for _ in range(count):
        requests = [some_request(chance) for _ in range(chance.randint(1, 4))]
        pieces = [*in_pieces(requests, chance), LAST]
        one, other = await ask(known, pieces), await ask(new, pieces)
        if one is not None and other is not None:
            compared += 1
            assert one == other, pieces
    assert compared > 0.9 * count
    heads = known.runner.server.heads
    assert heads
    assert heads.refused
    assert heads.with_bodies
