"""A request belongs to one generation, to its end; and what has ended holds none alive.

Real connections, and tables that are replaced amid requests, as a change does it.
"""

import asyncio
import contextlib
import gc
import itertools
import weakref
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import aiohttp
import pytest
from aiohttp import WSCloseCode, WSMsgType, web
from aiohttp.test_utils import TestClient, TestServer

from petsage.app import create_app
from petsage.catalog import CATALOG
from petsage.connection import Runner
from petsage.context import RequestContext
from petsage.feature import Feature, compile_feature
from petsage.generation import RETIRING, Generation
from petsage.routing import Mounted, RouteTable
from tests.conftest import errors_of
from tests.test_direct import PATIENCE_S, Caller, alone, connection_tasks, head, until

__all__ = ["alone"]  # a fixture

SOURCE = '''
import asyncio
import contextvars
from typing import Annotated
from aiohttp import web
from petsage import FromApp, Problem, RETIRING, Reply, Routes

routes = Routes()
begun, go = asyncio.Event(), asyncio.Event()
outcomes = []
seen = contextvars.ContextVar("seen")


class Own:
    """Something of the feature."""


class OwnStream(web.StreamResponse):
    """A response of the feature."""


@routes.get("/quick")
async def quick() -> int:
    seen.set(Own())
    return NUMBER


@routes.get("/held")
async def held() -> int:
    begun.set()
    await go.wait()
    return NUMBER


@routes.get("/large")
async def large() -> str:
    begun.set()
    return "x" * 8_000_000


@routes.post("/upload")
async def upload(request: web.Request, when: str = "now") -> int:
    begun.set()
    seen.set(Own())
    if when == "late":
        await go.wait()
    outcomes.append(len(await request.read()))
    return NUMBER


@routes.get("/stream")
async def stream(
    request: web.Request, retiring: Annotated[asyncio.Event, FromApp(RETIRING)], how: str = "told"
) -> web.StreamResponse:
    if how == "late":
        begun.set()
        await go.wait()
    response = OwnStream()
    await response.prepare(request)
    await response.write(b"begun ")
    begun.set()
    if how == "told":
        await retiring.wait()
        await response.write(b"told")
    elif how == "stubborn":
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                outcomes.append("cancelled")
    elif how == "ends":
        pass
    else:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            outcomes.append("cancelled")
            raise
    return response


async def pieces():
    yield b"begun "
    begun.set()
    await go.wait()
    yield b"ended"
    outcomes.append("written")


@routes.get("/payload")
async def payload() -> web.Response:
    return web.Response(body=pieces())


@routes.get("/file")
async def file() -> web.StreamResponse:
    return web.FileResponse(FILE)


@routes.get("/socket")
async def socket(
    request: web.Request, how: str = "receives", heartbeat: float | None = None
) -> web.WebSocketResponse:
    response = web.WebSocketResponse(heartbeat=heartbeat)
    if how == "late":
        begun.set()
        await go.wait()
    await response.prepare(request)
    begun.set()
    if how == "sends":
        while True:
            await response.send_str("again")
            await asyncio.sleep(0.01)
    elif how == "busy":
        await go.wait()
    elif how == "deaf":
        await asyncio.sleep(1000)
    filling = asyncio.create_task(response.send_bytes(bytes(8_000_000))) if how == "fills" else None
    async for message in response:
        await response.send_str(message.data)
    if filling is not None:
        filling.cancel()
    outcomes.append("woken")
    return response


@routes.get("/refuses")
async def refuses() -> int:
    raise Problem(404, "no")


@routes.get("/fails")
async def fails(request: web.Request) -> int:
    local = Own()
    raise ValueError(local)


@routes.get("/fails-directly")
async def fails_directly() -> int:
    local = Own()
    raise ValueError(local)


@routes.get("/fails-late")
async def fails_late() -> web.Response:
    async def broken():
        yield b"begun "
        raise ValueError(Own())
    return web.Response(body=broken())


@routes.get("/exits")
async def exits(request: web.Request) -> int:
    raise SystemExit(3)


@routes.get("/garbage")
async def garbage(request):
    return Own()


async def listens(request, response):
    outcomes.append(response.status)


@web.middleware
async def looks(request, handler):
    return await handler(request)
'''


class Making:
    """A feature, made from `SOURCE` as a change makes it; nothing here keeps what it consists of.

    Attributes:
        space: its module's names.
    """

    def __init__(
        self, number: int, file: str = "", *, middlewares: bool = False, listens: bool = False
    ) -> None:
        self.space: dict[str, Any] = {"NUMBER": number, "FILE": file, "__name__": "features.probe"}
        exec(SOURCE, self.space)
        chosen = [self.space["looks"]] if middlewares else []
        feature = Feature(self.space["routes"], middlewares=chosen)
        compiled, flaws = compile_feature(feature, "probe")
        assert not flaws
        self.generation = Generation("probe", number)
        self.app = web.Application()
        self.app[RETIRING] = self.generation.retiring
        if listens:
            self.app.on_response_prepare.append(self.space["listens"])
        self.app.freeze()
        for each in compiled:
            apps = each.endpoint.signature.apps
            each.endpoint.use_app_values({one.argument: self.app[one.key] for one in apps})
        self.routes = [Mounted("probe", self.app, each, self.generation) for each in compiled]

    @property
    def begun(self) -> asyncio.Event:
        return self.space["begun"]  # type: ignore[no-any-return] # it is one

    def go(self) -> None:
        self.space["go"].set()

    @property
    def outcomes(self) -> list[Any]:
        return self.space["outcomes"]  # type: ignore[no-any-return] # it is one

    def weak(self) -> dict[str, weakref.ref[Any]]:
        """A reference to each part of it."""
        parts = {name: each for name, each in self.space.items() if callable(each)}
        parts = {name: each for name, each in parts.items() if each.__module__ == "features.probe"}
        parts |= {"generation": self.generation, "app": self.app}
        return {name: weakref.ref(each) for name, each in parts.items()}


class House:
    """A server, and the feature that it serves."""

    def __init__(self, app: web.Application, runner: Runner, file: str, log_lines: Any) -> None:
        self.app, self.runner, self._file, self._log_lines = app, runner, file, log_lines
        self.resource = app[CATALOG].resource
        self._core = self.resource.table.routes
        self._callers: list[Caller] = []
        self._numbers = itertools.count(1)

    def make(self, **options: Any) -> Making:
        """A feature that serves from now on, in the place of whichever did."""
        making = Making(next(self._numbers), self._file, **options)
        self.resource.table = RouteTable([*self._core, *making.routes])
        return making

    def remove(self) -> None:
        self.resource.table = RouteTable(self._core)

    async def connect(self, **options: Any) -> Caller:
        host, port = self.runner.addresses[0][:2]
        caller = Caller(*await asyncio.open_connection(host, port, **options))
        self._callers.append(caller)
        return caller

    @property
    def url(self) -> str:
        host, port = self.runner.addresses[0][:2]
        return f"http://{host}:{port}/api/v1"

    @property
    def connections(self) -> list[Any]:
        return self.runner.server.connections if self.runner.server else []

    def lines(self) -> list[dict[str, Any]]:
        return list(self._log_lines())

    def access(self) -> list[tuple[str, int]]:
        lines = [line for line in self.lines() if line["logger"] == "petsage.access"]
        return [(line["path"].removeprefix("/api/v1/"), line["status"]) for line in lines]

    async def close(self) -> None:
        for caller in self._callers:
            await caller.close()
        await self.runner.cleanup()


Start = Callable[..., Any]


@pytest.fixture
async def start(petsage_settings, log_pipeline, log_lines, tmp_path) -> AsyncIterator[Start]:
    """Call it for a server without features of its own."""
    houses: list[House] = []
    file = tmp_path / "file.txt"
    file.write_text("a file")

    async def start(
        *, cancels: bool = False, middlewares: Iterable[Any] = (), **options: Any
    ) -> House:
        server = petsage_settings.server.model_copy(update=options)
        settings = petsage_settings.model_copy(update={"server": server})
        app = create_app(settings, with_folders=False)
        app.middlewares.extend(middlewares)
        runner = Runner(app, server, handler_cancellation=cancels)
        await runner.setup()
        app[CATALOG].resource.is_starting = False
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        houses.append(House(app, runner, str(file), log_lines))
        return houses[-1]

    yield start
    for house in houses:
        await house.close()
    await until(lambda: not connection_tasks())


@pytest.fixture
async def house(start) -> House:
    made: House = await start()
    return made


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def drained(generation: Generation, drain_s: float = PATIENCE_S) -> int:
    async with asyncio.timeout(PATIENCE_S):
        return await generation.drained(drain_s)


def counts(generation: Generation) -> tuple[int, int, int]:
    return generation.served, generation.failed, generation.in_flight


# --- One generation, to the end -------------------------------------------------------------------


@pytest.mark.parametrize("path", ["held", "held?x=1"])
async def test_a_request_in_hand_ends_in_the_generation_it_began_in(house, path):
    old = house.make()
    caller = await house.connect()
    caller.writer.write(head(path))
    await old.begun.wait()
    new = house.make()
    old.generation.retire(replaced=True)
    ending = asyncio.create_task(drained(old.generation, 0))

    assert (await (await house.connect()).ask(head("quick"))).body == b"2"
    assert counts(old.generation) == (0, 0, 1)
    assert not ending.done()
    old.go()

    assert (await caller.answer()).body == b"1"
    assert await ending == 0
    assert counts(old.generation) == (1, 0, 0)
    assert (await caller.ask(head("quick?x=1"))).body == b"2"
    assert (await caller.ask(head("quick"))).body == b"2"
    assert counts(new.generation) == (3, 0, 0)


async def test_a_body_that_is_still_sent_is_read_by_the_generation_it_began_in(house):
    old = house.make()
    caller = await house.connect()
    caller.writer.write(head("upload", "Content-Length: 5", method="POST") + b"12")
    await old.begun.wait()
    house.make()
    old.generation.retire(replaced=True)
    ending = asyncio.create_task(drained(old.generation, 0))
    await asyncio.sleep(0.05)  # as long as it lasts
    assert not ending.done()

    assert (await caller.ask(b"345")).body == b"1"

    assert await ending == 0
    assert old.outcomes == [5]


@pytest.mark.parametrize("path", ["payload", "stream?how=late"])
async def test_what_is_written_when_the_handler_has_returned_counts_to_the_last_byte(house, path):
    old = house.make()
    caller = await house.connect()
    caller.writer.write(head(path))
    await old.begun.wait()
    house.make()
    old.generation.retire(replaced=True)
    drain_s = PATIENCE_S if path == "payload" else 0.2
    ending = asyncio.create_task(drained(old.generation, drain_s))
    await asyncio.sleep(0)
    assert counts(old.generation) == (0, 0, 1)
    old.go()
    if path == "payload":
        assert (await caller.answer()).body.endswith(b"ended\r\n0\r\n\r\n")
        assert await ending == 0
        assert old.outcomes == ["written"]
    else:
        assert await ending == 1


class Window:
    """Runs what is given between resolving a request and its beginning."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, change: Callable[[], Any]) -> None:
        original = aiohttp.http.StreamWriter.drain

        async def drain(writer: Any) -> None:
            monkeypatch.undo()
            change()
            await original(writer)

        monkeypatch.setattr(aiohttp.http.StreamWriter, "drain", drain)


@pytest.mark.parametrize("follows", [True, False])
async def test_a_request_that_is_told_to_go_on_begins_in_what_serves_then(
    house, monkeypatch, follows
):
    old = house.make()

    def change() -> None:
        if follows:
            house.make()
        else:
            house.remove()
        old.generation.retire(replaced=follows)

    Window(monkeypatch, change)
    caller = await house.connect()
    caller.writer.write(head("upload", "Content-Length: 1", "Expect: 100-continue", method="POST"))
    assert await caller.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"

    answer = await caller.ask(b"1")

    assert (answer.status, answer.body[:1]) == ((200, b"2") if follows else (404, b"{"))
    assert counts(old.generation) == (0, 0, 0)
    assert await drained(old.generation) == 0


@pytest.mark.parametrize("follows", [True, False])
async def test_a_direct_request_whose_route_goes_before_it_begins_is_answered_by_what_serves(
    house, monkeypatch, follows
):
    old = house.make()
    caller = await house.connect()
    assert (await caller.ask(head("quick"))).body == b"1"
    (connection,) = house.connections
    original = type(connection)._begin_direct

    def begin(self: Any, *arguments: Any) -> None:
        monkeypatch.undo()
        original(self, *arguments)
        if follows:
            house.make()
        else:
            house.remove()
        old.generation.retire(replaced=follows)

    monkeypatch.setattr(type(connection), "_begin_direct", begin)

    answer = await caller.ask(head("quick"))

    assert (answer.status, answer.body[:1]) == ((200, b"2") if follows else (404, b"{"))
    assert counts(old.generation) == (1, 0, 0)
    assert [line[1] for line in house.access()] == [200, answer.status]
    assert (await caller.ask(head("quick"))).status == answer.status


async def test_no_request_begins_in_a_retired_generation_that_the_table_still_has(house):
    old = house.make()
    old.generation.retire(replaced=True)
    caller = await house.connect()
    for path in ("quick", "quick?x=1"):
        answer = await caller.ask(head(path))
        assert (answer.status, answer.header("retry-after")) == (503, "1")
    assert counts(old.generation) == (0, 0, 0)


async def test_another_expectation_is_refused_without_the_feature(house):
    made = house.make(listens=True)
    caller = await house.connect()
    for expectation, status in (("payment", 417), ("100-continue", 100)):
        answer = await caller.ask(
            head("upload", f"Expect: {expectation}", "Content-Length: 0", method="POST")
        )
        assert answer.status == status
    await until(lambda: made.generation.served == 1)
    assert made.outcomes == [0, 200]


# --- Streams and WebSockets -----------------------------------------------------------------------


async def not_asked(request: web.BaseRequest) -> web.StreamResponse:
    raise NotImplementedError


class Looked(RequestContext):
    """A request that counts how often it is looked whether its answer has begun."""

    looks = 0

    def __getattribute__(self, name: str) -> Any:
        if name == "answer":
            Looked.looks += 1
        return super().__getattribute__(name)


async def test_a_drain_does_not_look_at_all_that_is_in_hand_each_time_that_one_leaves(
    monkeypatch,
):
    monkeypatch.setattr("petsage.generation._LOOK_S", 2 * PATIENCE_S)
    Looked.looks = 0
    generation = Generation("pets", 1)
    connection = web.RequestHandler(web.Server(not_asked), loop=asyncio.get_running_loop())
    contexts = [Looked(str(number), "", "", "", 0.0) for number in range(1000)]
    for context in contexts:
        generation.enter(context, connection, None)
    generation.retire(replaced=True)
    draining = asyncio.create_task(drained(generation))
    for context in contexts:
        await asyncio.sleep(0)
        generation.leave(context, 200)
    assert await draining == 0  # long before the next look
    assert Looked.looks < 10 * len(contexts)


async def test_a_stream_that_waits_to_be_told_ends_by_itself(house):
    old = house.make()
    caller = await house.connect()
    caller.writer.write(head("stream"))
    await old.begun.wait()

    old.generation.retire(replaced=True)

    assert await drained(old.generation) == 0
    assert (await caller.answer()).body.endswith(b"told\r\n0\r\n\r\n")
    assert counts(old.generation) == (1, 0, 0)


@pytest.mark.parametrize("cancels", [False, True])
async def test_a_stream_that_goes_on_is_cut_counted_and_named(start, cancels):
    house = await start(cancels=cancels)
    old = house.make()
    caller = await house.connect()
    caller.writer.write(head("stream?how=deaf"))
    await old.begun.wait()
    house.make()
    old.generation.retire(replaced=True)

    assert await drained(old.generation, 0.1) == 1

    assert not (await caller.rest()).endswith(b"0\r\n\r\n")
    assert old.outcomes == ["cancelled"]
    assert counts(old.generation) == (1, 1, 0)
    assert house.access() == [("stream", 200)]
    (line,) = [line for line in house.lines() if line["level"] == "WARNING"]
    assert line["message"].startswith("Feature probe: a request of /api/v1/stream is cut after 0.")
    await until(lambda: not house.connections)


@pytest.mark.parametrize("path", ["large", "large?x=1", "payload"])
async def test_an_answer_that_nobody_reads_is_cut(house, path):
    old = house.make()
    caller = await house.connect(limit=1000)
    caller.writer.transport.pause_reading()
    caller.writer.write(head(path))
    await old.begun.wait()
    await until(lambda: path == "payload" or any(each._paused for each in house.connections))
    house.make()
    old.generation.retire(replaced=True)

    assert await drained(old.generation, 0) == 1

    assert counts(old.generation) == (1, 1, 0)
    assert house.access() == [(path.partition("?")[0], 200)]
    transports = [each.transport for each in house.connections if each.transport is not None]
    assert transports == []
    await until(lambda: not house.connections)
    caller.reset()


async def test_a_handler_that_will_not_be_cancelled_is_named_and_left(house):
    old = house.make()
    caller = await house.connect()
    caller.writer.write(head("stream?how=stubborn"))
    await old.begun.wait()
    house.make()
    old.generation.retire(replaced=True)

    assert await drained(old.generation, 0) == 1

    assert old.outcomes == ["cancelled"]
    assert counts(old.generation) == (0, 0, 1)
    (line,) = errors_of(house.lines())
    assert "/api/v1/stream was cancelled, and runs on" in line["message"]
    old.go()
    await until(lambda: not old.generation.in_flight)
    assert counts(old.generation) == (1, 1, 0)
    assert house.access() == [("stream", 200)]


async def test_what_begins_its_answer_when_others_are_cut_has_time_to_end(house):
    old = house.make()
    caller, other = await house.connect(), await house.connect()
    caller.writer.write(head("payload"))
    await old.begun.wait()
    old.begun.clear()
    other.writer.write(head("stream?how=late"))
    await old.begun.wait()
    house.make()
    old.generation.retire(replaced=True)
    old.space["asyncio"] = type("Soon", (), {"sleep": lambda *_: asyncio.sleep(0.15)})

    ending = asyncio.create_task(drained(old.generation, 1))
    await until(lambda: old.generation.failed == 1)
    old.go()

    assert await ending == 1
    assert (await other.answer()).body.endswith(b"0\r\n\r\n")


HANDSHAKE = (
    *("Connection: upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
    "Sec-WebSocket-Key: MTIzNDU2Nzg5MDEyMzQ1Ng==",
)


@pytest.mark.parametrize("replaced", [True, False])
@pytest.mark.parametrize("options", [{}, {"compress": 15}])
@pytest.mark.parametrize("query", ["", "?heartbeat=0.2"])
async def test_a_web_socket_is_closed_with_its_code_and_its_handler_wakes_up(
    house, session, replaced, options, query
):
    old = house.make()
    async with session.ws_connect(f"{house.url}/socket{query}", **options) as socket:
        await socket.send_str("hello")
        assert await socket.receive_str() == "hello"

        old.generation.retire(replaced=replaced)

        assert (await socket.receive()).type == WSMsgType.CLOSE
        assert socket.close_code == (1012 if replaced else 1001)
        assert await drained(old.generation) == 0
    assert old.outcomes == ["woken"]
    assert counts(old.generation) == (1, 0, 0)
    assert house.access() == [("socket", 101)]
    assert errors_of(house.lines()) == []


async def test_a_web_socket_that_only_sends_is_closed_and_no_failure(house, session):
    old = house.make()
    async with session.ws_connect(f"{house.url}/socket?how=sends") as socket:
        assert await socket.receive_str() == "again"
        old.generation.retire(replaced=True)
        async for _ in socket:
            pass
        assert socket.close_code == 1012
    assert await drained(old.generation) == 0
    assert counts(old.generation) == (1, 0, 0)
    assert errors_of(house.lines()) == []


async def test_a_web_socket_that_sends_to_a_client_that_does_not_answer_is_no_failure(house):
    old = house.make()
    caller = await house.connect()
    caller.writer.write(head("socket?how=sends", *HANDSHAKE))
    await old.begun.wait()
    old.generation.retire(replaced=False)
    assert await drained(old.generation) == 0
    assert b"\x88\x02\x03\xe9" in await caller.rest()
    assert counts(old.generation) == (1, 0, 0)
    assert house.access() == [("socket", 101)]
    assert errors_of(house.lines()) == []


async def test_a_web_socket_that_opens_when_others_were_told_is_told_too(house, session):
    old = house.make()
    opening = asyncio.create_task(session.ws_connect(f"{house.url}/socket?how=late"))
    await old.begun.wait()
    house.make()
    old.generation.retire(replaced=True)
    ending = asyncio.create_task(drained(old.generation))
    await asyncio.sleep(0)
    old.go()
    socket = await opening
    assert (await socket.receive()).data == 1012
    await socket.close()
    assert await ending == 0
    assert old.outcomes == ["woken"]


@pytest.mark.parametrize("how", ["receives", "busy"])
async def test_a_client_that_never_answers_the_close_holds_it_no_longer_than_allowed(house, how):
    old = house.make()
    caller = await house.connect()
    caller.writer.write(head(f"socket?how={how}", *HANDSHAKE))
    await old.begun.wait()
    house.make()
    old.generation.retire(replaced=True)

    cut = await drained(old.generation, 0.2)

    assert cut == (1 if how == "busy" else 0)
    assert (await caller.rest()).endswith(b"\x88\x02\x03\xf4")
    assert counts(old.generation) == (1, cut, 0)


async def test_a_handler_that_receives_wakes_up_though_its_client_reads_nothing(house):
    old = house.make()
    caller = await house.connect(limit=1000)
    caller.writer.transport.pause_reading()
    caller.writer.write(head("socket?how=fills", *HANDSHAKE))
    await until(lambda: any(each._paused for each in house.connections))
    old.generation.retire(replaced=True)
    assert await drained(old.generation) == 0
    assert old.outcomes == ["woken"]
    caller.reset()


async def test_a_web_socket_whose_client_reads_nothing_is_cut_in_time(house):
    old = house.make()
    caller = await house.connect(limit=1000)
    caller.writer.transport.pause_reading()
    caller.writer.write(head("socket?how=deaf", *HANDSHAKE))
    await old.begun.wait()
    house.make()
    old.generation.retire(replaced=True)
    assert await drained(old.generation, 0.2) == 1
    assert counts(old.generation) == (1, 1, 0)
    assert house.access() == [("socket", 101)]
    caller.reset()


async def test_streams_are_told_of_a_stop_and_the_generation_goes_on(house, session):
    made = house.make()
    async with session.ws_connect(f"{house.url}/socket") as socket:
        made.generation.tell(WSCloseCode.GOING_AWAY)
        assert (await socket.receive()).data == 1001
    assert not made.generation.is_retired
    assert made.generation.retiring.is_set()
    async with session.get(f"{house.url}/quick") as answer:
        assert answer.status == 200
    assert await drained(made.generation) == 0


# --- It leaves exactly once -----------------------------------------------------------------------

ENDS = {
    "direct": (head("quick"), 200),
    "aiohttp's way": (head("quick?x=1"), 200),
    "HEAD": (head("quick", method="HEAD"), 200),
    "HEAD of a stream": (head("stream?how=ends", method="HEAD"), 200),
    "405": (head("quick", method="DELETE"), 405),
    "422": (head("stream?how=ends&how=ends"), 422),
    "problem": (head("refuses"), 404),
    "problem, aiohttp's way": (head("refuses?x=1"), 404),
    "exception": (head("fails"), 500),
    "direct exception": (head("fails-directly"), 500),
    "exit": (head("exits"), 500),
    "garbage": (head("garbage"), 500),
    "stream": (head("stream?how=ends"), 200),
    "file": (head("file"), 200),
    "body": (head("upload", "Content-Length: 900000", method="POST") + b"x" * 900_000, 200),
    "Expect": (
        head("upload", "Content-Length: 1", "Expect: 100-continue", method="POST") + b"x",
        100,
    ),
    "broken payload": (head("fails-late"), 200),
}


@pytest.mark.parametrize("middlewares", [False, True])
@pytest.mark.parametrize("kind", ENDS)
async def test_every_end_of_a_request_is_counted_once(house, kind, middlewares):
    made = house.make(middlewares=middlewares)
    data, status = ENDS[kind]
    caller = await house.connect()
    caller.writer.write(data)
    first = await caller.reader.readuntil(b"\r\n\r\n")
    assert int(first.split()[1]) == status
    await until(lambda: made.generation.served and not made.generation.in_flight)
    await until(lambda: len(house.access()) == 1)
    assert counts(made.generation) == (1, int(status == 500 or kind == "broken payload"), 0)
    await caller.close()


async def test_a_middleware_of_the_root_that_calls_twice_leaves_no_count_behind(start):
    @web.middleware
    async def twice(request: web.Request, handler: Any) -> web.StreamResponse:
        await handler(request)
        response: web.StreamResponse = await handler(request)
        return response

    house = await start(middlewares=[twice])
    made = house.make()
    assert (await (await house.connect()).ask(head("quick"))).status == 200
    assert counts(made.generation) == (2, 0, 0)


async def test_a_body_that_breaks_is_counted_once_and_is_no_failure(house):
    made = house.make()
    caller = await house.connect()
    caller.writer.write(head("upload", "Transfer-Encoding: chunked", method="POST"))
    await made.begun.wait()
    assert (await caller.ask(b"x\r\n\r\n")).status == 400
    await until(lambda: not made.generation.in_flight)
    assert counts(made.generation) == (1, 0, 0)


async def test_requests_one_behind_another_are_each_counted(house):
    made = house.make()
    caller = await house.connect()
    paths = ["quick", "quick?x=1", "refuses", "fails", "quick"] * 5
    caller.writer.write(b"".join(map(head, paths)))
    for _ in paths:
        await caller.answer()
    assert counts(made.generation) == (25, 5, 0)


@pytest.mark.parametrize("cancels", [True, False])
@pytest.mark.parametrize("kind", ["held", "held?x=1", "payload", "stream?how=late", "socket"])
async def test_a_client_that_leaves_lets_go_and_is_no_failure(start, kind, cancels):
    house = await start(cancels=cancels)
    made = house.make()
    caller = await house.connect()
    caller.writer.write(head(kind, *(HANDSHAKE if kind == "socket" else ())))
    await made.begun.wait()
    caller.reset()
    await until(lambda: all(each.transport is None for each in house.connections))
    made.go()
    await until(lambda: not made.generation.in_flight)
    assert counts(made.generation) == (1, 0, 0)


@pytest.mark.parametrize("cancels", [True, False])
async def test_clients_that_leave_at_once_leave_no_count_behind(start, cancels):
    house = await start(cancels=cancels)
    made = house.make()
    for number in range(60):
        caller = await house.connect()
        caller.writer.write(head("quick" if number % 2 else "quick?x=1"))
        for _ in range(number % 6):
            await asyncio.sleep(0)
        caller.reset()
    await until(lambda: not house.connections and not connection_tasks())
    assert made.generation.in_flight == made.generation.failed == 0


async def test_a_stop_that_cuts_lets_go(start):
    house = await start(shutdown_s=0.2)
    made = house.make()
    callers = [await house.connect() for _ in range(3)]
    for caller, path in zip(callers, ["held", "held?x=1", "stream?how=deaf"], strict=True):
        made.begun.clear()
        caller.writer.write(head(path))
        await made.begun.wait()
    await house.runner.cleanup()
    await until(lambda: not made.generation.in_flight)
    assert counts(made.generation) == (3, 3, 0)
    assert sorted(house.access()) == [("held", 503), ("held", 503), ("stream", 200)]


async def test_under_aiohttps_own_connections_a_request_leaves_when_its_handler_returns(
    petsage_settings, log_pipeline
):
    app = create_app(petsage_settings, with_folders=False)
    async with TestClient(TestServer(app)) as client:
        resource = app[CATALOG].resource
        made = Making(1)
        resource.table = RouteTable(made.routes)
        resource.is_starting = False
        for path, status in (("quick", 200), ("refuses", 404), ("fails", 500)):
            async with client.get(f"/api/v1/{path}") as answer:
                assert answer.status == status
        assert counts(made.generation) == (3, 1, 0)
        async with client.get("/api/v1/stream") as answer:
            made.generation.retire(replaced=False)
            assert await drained(made.generation) == 0
            assert await answer.read() == b"begun told"
        assert counts(made.generation) == (4, 1, 0)


# --- What has ended dies --------------------------------------------------------------------------


async def expect_death(parts: dict[str, weakref.ref[Any]]) -> None:
    for _ in range(5):
        await asyncio.sleep(0)  # tasks that let go of it end
    with contextlib.suppress(TimeoutError):
        # A thread that has read a file for it lets go of it a moment after it has said so.
        await until(lambda: gc.collect() >= 0 and all(each() is None for each in parts.values()))
    living = {name: each() for name, each in parts.items() if each() is not None}
    told = {
        name: [f"{type(one).__name__} {str(one)[:200]}" for one in gc.get_referrers(each)]
        for name, each in living.items()
    }
    assert not living, told


KEPT = [kind for kind in ENDS if kind not in {"broken payload", "Expect"}]


@pytest.mark.parametrize("middlewares", [False, True])
@pytest.mark.parametrize("kind", [*KEPT, "no such path"])
async def test_an_idle_connection_keeps_nothing_of_a_generation_that_it_asked(
    alone, house, kind, middlewares
):
    making = house.make(middlewares=middlewares)
    parts = making.weak()
    caller = await house.connect()
    data, status = ENDS.get(kind, (head("nowhere"), 404))
    caller.writer.write(data)
    raw = await caller.reader.readuntil(b"\r\n\r\n")
    assert int(raw.split()[1]) == status
    house.remove()
    making.generation.retire(replaced=False)
    await drained(making.generation)
    del making

    await expect_death(parts)

    assert [each.transport is not None for each in house.connections] == [True]


@pytest.mark.parametrize("cancels", [False, True])
@pytest.mark.parametrize(
    ("path", "drain_s"),
    [
        *(("held", 1), ("held?x=1", 1), ("stream", 1), ("stream?how=deaf", 0), ("payload", 0)),
        *(("socket", 1), ("socket?how=deaf", 0), ("socket?how=sends", 1), ("fails-late", 1)),
        ("large", 0),
    ],
)
async def test_nothing_is_kept_of_a_generation_whose_requests_were_told_or_cut(
    alone, start, path, drain_s, cancels
):
    house = await start(cancels=cancels)
    making = house.make()
    parts = making.weak()
    caller = await house.connect(limit=1000)
    caller.writer.transport.pause_reading()
    caller.writer.write(head(path, *(HANDSHAKE if "socket" in path else ())))
    if path == "fails-late":
        generation = making.generation
        await until(lambda: generation.served)
        del generation
    else:
        await making.begun.wait()
    house.remove()
    making.generation.retire(replaced=False)
    if path.startswith("held"):
        making.go()
    await drained(making.generation, drain_s)
    del making
    await expect_death(parts)
    caller.reset()


async def test_a_connection_that_reads_on_for_a_handler_keeps_nothing_of_its_context(alone, house):
    making = house.make()
    parts = making.weak()
    caller = await house.connect()
    size = 900_000
    caller.writer.write(head("upload?when=late", f"Content-Length: {size}", method="POST"))
    caller.writer.write(b"x" * size)
    await making.begun.wait()
    await until(lambda: house.connections[0]._reading_paused)
    making.go()
    assert (await caller.answer()).status == 200
    house.remove()
    making.generation.retire(replaced=False)
    await drained(making.generation)
    del making

    await expect_death(parts)


async def test_a_timer_that_a_handler_has_cancelled_keeps_nothing_of_its_answer(alone, house):
    # asyncio drops a cancelled timer, and its context, when no other is due before it.
    other = asyncio.get_running_loop().call_later(500, house.remove)
    making = house.make()
    parts = making.weak()
    caller = await house.connect()
    caller.writer.write(head("stream?how=deaf"))
    await making.begun.wait()
    house.remove()
    making.generation.retire(replaced=False)
    await drained(making.generation, 0)
    del making

    await expect_death(parts)
    other.cancel()


@pytest.mark.parametrize("path", ["held", "held?x=1", "payload", "stream?how=deaf", "socket"])
async def test_nothing_is_kept_of_a_generation_whose_clients_left(alone, start, path):
    house = await start(cancels=True)
    making = house.make()
    parts = making.weak()
    caller = await house.connect()
    caller.writer.write(head(path, *(HANDSHAKE if path == "socket" else ())))
    await making.begun.wait()
    caller.reset()
    await until(lambda: not house.connections)
    house.remove()
    making.generation.retire(replaced=False)
    await drained(making.generation)
    del making

    await expect_death(parts)


async def test_a_request_longer_than_keep_alive_leaves_no_timer_that_keeps_it(alone, start):
    house = await start(keepalive_s=0.05)
    making = house.make()
    parts = making.weak()
    caller = await house.connect()
    caller.writer.write(head("held"))
    await making.begun.wait()
    (connection,) = house.connections
    making.space["seen"].set("the test's")
    making.go()
    await caller.answer()
    assert connection._keepalive_handle.cancelled(), "a wheel looks after all connections"
    handle = house.runner.server._wheel._handle
    house.remove()
    making.generation.retire(replaced=False)
    await drained(making.generation)
    assert dict(handle._context) == {}
    del making, handle
    await expect_death(parts)
