"""The limits of connections and requests, on raw sockets: what ends, what it is told, what stays.

Limits are small here, and what is within them takes its time in pieces: the tests say in which
order things come, and hardly ever how long they take.
"""

import asyncio
import contextlib
import json
import logging
import math
import socket
import struct
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from petsage.accepting import ListeningSite
from petsage.app import create_app
from petsage.catalog import CATALOG
from petsage.connection import Runner
from petsage.health import PROCESS_STATE
from petsage.metrics import CONNECTIONS, ConnectionCounts
from petsage.sockets import listen
from petsage.wheel import Wheel
from tests.conftest import clean_environment, errors_of

PATIENCE_S = 30.0
MIB = 1024**2

FEATURE = textwrap.dedent('''
    """Takes its time."""
    import asyncio

    from aiohttp import web

    from petsage import Feature, Routes

    routes = Routes()
    begun, go = asyncio.Event(), asyncio.Event()
    outcomes = []


    @routes.get("/quick")
    async def quick() -> dict[str, str]:
        return {"quick": "yes"}


    @routes.get("/held")
    async def held() -> dict[str, str]:
        begun.set()
        try:
            await go.wait()
        except asyncio.CancelledError:
            outcomes.append("cancelled")
            raise
        return {"held": "done"}


    @routes.get("/held/{name}")
    async def held_for(name: str) -> dict[str, str]:
        return await held()


    @routes.get("/obstinate")
    async def obstinate() -> dict[str, str]:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            outcomes.append("caught")
        await go.wait()
        return {"late": "yes"}


    @routes.get("/forgiving")
    async def forgiving() -> dict[str, str]:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            return {"late": "yes"}
        return {}


    @routes.post("/read")
    async def read(request: web.Request) -> dict[str, int]:
        try:
            return {"read": len(await request.read())}
        except Exception as error:
            outcomes.append(type(error).__name__)
            raise


    @routes.post("/typed")
    async def typed(body: dict[str, str]) -> dict[str, str]:
        return body


    @routes.post("/unread")
    async def unread(request: web.Request) -> dict[str, str]:
        return {"unread": "yes"}


    @routes.post("/later")
    async def later(request: web.Request) -> dict[str, int]:
        begun.set()
        await go.wait()
        return {"read": len(await request.read())}


    @routes.get("/huge")
    async def huge() -> str:
        return "x" * 20_000_000


    @routes.get("/large")
    async def large() -> str:
        return "x" * 12_000_000


    @routes.get("/endless")
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 50_000)
        finally:
            outcomes.append("ended")


    @routes.get("/stream")
    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"begun")
        await go.wait()
        await response.write(b" and done")
        return response


    @routes.get("/socket")
    async def open_socket(request: web.Request) -> web.StreamResponse:
        response = web.WebSocketResponse()
        await response.prepare(request)
        async for message in response:
            await response.send_str(message.data)
        return response


    feature = Feature(routes)
''')


def head(path: str, *lines: str, method: str = "GET", version: str = "1.1") -> bytes:
    more = "".join(f"{line}\r\n" for line in lines)
    return f"{method} {path} HTTP/{version}\r\nHost: localhost\r\n{more}\r\n".encode()


QUICK = head("/api/v1/quick")
HALF = QUICK[:-5]
UPGRADE = head(
    "/api/v1/socket",
    *("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"),
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


def post(path: str, length: int | None, *lines: str) -> bytes:
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return head(path, framing, "Content-Type: application/json", *lines, method="POST")


class Answer:
    """One answer, read to its end."""

    def __init__(self, raw_head: bytes, body: bytes) -> None:
        first, *lines = raw_head.decode().rstrip().split("\r\n")
        self.status = int(first.split()[1])
        self.headers = dict(line.lower().split(": ", 1) for line in lines)
        self.body = body

    def problem(self) -> dict[str, Any]:
        assert self.headers["content-type"] == "application/problem+json"
        document: dict[str, Any] = json.loads(self.body)
        assert document["status"] == self.status
        assert document["request_id"] == self.headers["x-request-id"]
        return document


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
            if "content-length" in found.headers:
                found.body = await self.reader.readexactly(int(found.headers["content-length"]))
            return found

    async def rest(self) -> bytes:
        """What comes until the server closes; a reset fails the test."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.read()


class Server:
    """What `petsage serve` listens with, in this process."""

    def __init__(self, app: Any, runner: Runner, log_lines: Any) -> None:
        self.app, self.runner, self.log_lines = app, runner, log_lines
        self.callers: list[Caller] = []

    @property
    def counts(self) -> ConnectionCounts:
        counts: ConnectionCounts = self.app[CONNECTIONS]
        return counts

    @property
    def feature(self) -> Any:
        routes = self.app[CATALOG].resource.table.routes
        found = next(each for each in routes if each.template == "/api/v1/held")
        return sys.modules[found.compiled.endpoint.handler.__module__]

    async def connect(self, data: bytes = b"", *, receive_bytes: int | None = None) -> Caller:
        raw = socket.socket()
        raw.setblocking(False)
        if receive_bytes is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        await asyncio.get_running_loop().sock_connect(raw, self.runner.addresses[0][:2])
        limit = 65536 if receive_bytes is None else receive_bytes
        caller = Caller(*await asyncio.open_connection(sock=raw, limit=limit))
        self.callers.append(caller)
        caller.writer.write(data)
        return caller

    def access(self) -> list[tuple[str, int]]:
        lines = [line for line in self.log_lines() if line["logger"] == "petsage.access"]
        return [(line["path"], line["status"]) for line in lines]

    async def close(self) -> None:
        for caller in self.callers:
            caller.writer.close()
            with contextlib.suppress(ConnectionError):
                await caller.writer.wait_closed()
        await self.runner.cleanup()


Serve = Callable[..., Awaitable[Server]]


@pytest.fixture
async def serve(
    log_pipeline, log_lines, petsage_settings, feature_folder, monkeypatch
) -> AsyncIterator[Serve]:
    # In whole seconds, each test would take as long.
    monkeypatch.setattr("petsage.wheel.TICK_S", 0.05)
    monkeypatch.setattr("petsage.timed.SURPLUS_S", 0.4)
    monkeypatch.setattr("petsage.timed._END_S", 0.3)
    servers = []

    async def start(**limits: float) -> Server:
        folder = feature_folder("slow", FEATURE)
        catalog = petsage_settings.catalog.model_copy(update={"folders": [folder.parent]})
        update = {"max_body_bytes": 20 * MIB, "shutdown_s": 2.0, **limits}
        limited = petsage_settings.server.model_copy(update=update)
        settings = petsage_settings.model_copy(update={"server": limited, "catalog": catalog})
        app = create_app(settings)
        app[PROCESS_STATE].loopback_only = True
        runner = Runner(app, settings.server)
        await runner.setup()
        await ListeningSite(runner, await listen("127.0.0.1", 0), app[CONNECTIONS]).start()
        servers.append(Server(app, runner, log_lines))
        return servers[-1]

    yield start
    for server in servers:
        await server.close()


async def until(is_so: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():  # noqa: ASYNC110 - what is looked at tells nobody that it has changed
            await asyncio.sleep(0.01)


async def trickle(caller: Caller, data: bytes, each: int, pause_s: float) -> None:
    """Sends a piece at a time, until all is sent or the server closes."""
    with contextlib.suppress(ConnectionError):
        for start in range(0, len(data), each):
            caller.writer.write(data[start : start + each])
            await caller.writer.drain()
            await asyncio.sleep(pause_s)


# Heads.


@pytest.mark.parametrize("part", [b"G", HALF, head("/", version="1.0")[:-2]])
async def test_a_head_that_stops_amid_itself_is_answered_408(serve, part):
    server = await serve(header_timeout_s=0.2)
    caller = await server.connect(part)

    answer = await caller.answer()

    assert answer.status == 408
    assert answer.headers["connection"] == "close"
    assert answer.problem()["title"] == "Request Timeout"
    assert await caller.rest() == b""
    assert server.counts.timed_out["header_timeout_s"] == 1
    assert server.access() == [("/", 408)]


async def test_a_head_that_comes_byte_by_byte_gets_no_more_time(serve):
    server = await serve(header_timeout_s=0.2)
    caller = await server.connect()
    sending = asyncio.create_task(trickle(caller, HALF * 100, 1, 0.05))
    assert (await caller.answer()).status == 408
    sending.cancel()


async def test_a_connection_on_which_nothing_is_sent_is_closed_without_a_word(serve):
    server = await serve(header_timeout_s=0.2)
    caller = await server.connect()
    assert await caller.rest() == b""
    assert server.counts.timed_out["header_timeout_s"] == 1
    assert server.access() == []


@pytest.mark.parametrize("path", ["/api/v1/quick", "/api/v1/quick?x=1"])
async def test_the_head_of_a_later_request_has_its_own_time(serve, path):
    server = await serve(header_timeout_s=0.4)
    caller = await server.connect()
    for _ in range(3):
        await asyncio.sleep(0.2)
        assert (await caller.ask(head(path))).status == 200
    caller.writer.write(HALF)
    assert (await caller.answer()).status == 408


@pytest.mark.parametrize("behind", [HALF, b"G", QUICK[:-2]])
async def test_a_head_that_begins_in_the_packet_of_another_has_its_time(serve, behind):
    server = await serve(header_timeout_s=0.4)
    caller = await server.connect(QUICK + behind)
    assert (await caller.answer()).status == 200
    assert (await caller.answer()).status == 408


async def test_what_comes_behind_a_long_request_has_its_time_from_the_answer_on(serve):
    server = await serve(header_timeout_s=0.6)
    caller = await server.connect(head("/api/v1/held") + HALF)
    await server.feature.begun.wait()
    await asyncio.sleep(0.7)
    server.feature.go.set()
    assert (await caller.answer()).status == 200
    await asyncio.sleep(0.2)  # the wheel has looked at it
    caller.writer.write(QUICK[-5:])
    assert (await caller.answer()).status == 200


async def test_a_connection_that_idles_is_closed_without_a_word(serve):
    server = await serve(keepalive_s=0.4)
    caller = await server.connect()
    assert (await caller.ask(QUICK)).status == 200
    await asyncio.sleep(0.2)
    assert (await caller.ask(QUICK + b"\r\n")).status == 200
    assert await caller.rest() == b""
    assert server.counts.timed_out["keepalive_s"] == 1
    assert server.counts.timed_out["header_timeout_s"] == 0


async def test_a_late_answer_arrives_though_the_client_goes_on_sending(serve):
    server = await serve(header_timeout_s=0.2)
    caller = await server.connect(HALF)
    await until(lambda: server.counts.timed_out["header_timeout_s"])
    for _ in range(3):  # for less than a second, or it is cut
        caller.writer.write(b"X: " + b"x" * 8192 + b"\r\n")
        await caller.writer.drain()
        await asyncio.sleep(0.01)
    assert (await caller.answer()).status == 408
    assert await caller.rest() == b""


async def test_what_does_not_parse_is_told_though_the_client_goes_on_sending(serve):
    server = await serve()
    caller = await server.connect(b"no HTTP\r\n\r\n")
    for _ in range(3):  # for less than a second, or it is cut
        caller.writer.write(b"x" * 8192)
        await caller.writer.drain()
        await asyncio.sleep(0.01)
    assert (await caller.answer()).status == 400
    assert await caller.rest() == b""


async def test_who_does_not_close_after_the_last_answer_is_closed(serve):
    server = await serve(header_timeout_s=0.2)
    raw = socket.create_connection(server.runner.addresses[0][:2])
    raw.sendall(HALF)
    await until(lambda: server.counts.timed_out["header_timeout_s"])
    assert server.counts.open == 1
    await until(lambda: server.counts.open == 0)
    raw.close()


# Bodies.


@pytest.mark.parametrize("length", [5000, None])
@pytest.mark.parametrize("expect", [(), ("Expect: 100-continue",)])
@pytest.mark.parametrize("path", ["/api/v1/read", "/api/v1/typed"])
async def test_a_body_that_stops_amid_itself_is_answered_408(serve, path, length, expect):
    server = await serve(body_timeout_s=0.2)
    caller = await server.connect(post(path, length, *expect))
    if expect:
        assert (await caller.answer()).status == 100
    caller.writer.write(b'"abc' if length else b'5\r\n"abc')

    answer = await caller.answer()

    assert answer.status == answer.problem()["status"] == 408
    assert answer.headers["connection"] == "close"
    assert await caller.rest() == b""
    assert server.counts.timed_out["body_timeout_s"] == 1
    if path == "/api/v1/read":
        assert server.feature.outcomes == ["BodyTooSlow"]
    assert not errors_of(server.log_lines())


async def test_a_body_that_comes_byte_by_byte_is_too_slow(serve):
    server = await serve(body_timeout_s=0.4)
    caller = await server.connect(post("/api/v1/read", 1000))
    sending = asyncio.create_task(trickle(caller, b"x" * 1000, 1, 0.05))
    assert (await caller.answer()).status == 408
    sending.cancel()


async def test_a_body_that_began_fast_and_stops_is_too_slow(serve):
    server = await serve(body_timeout_s=0.4)
    caller = await server.connect(post("/api/v1/read", 200_000))
    await until(lambda: server.counts.in_flight)
    caller.writer.write(b"x" * 100_000)
    assert (await caller.answer()).status == 408


async def test_a_body_that_makes_way_may_take_longer_than_the_limits(serve):
    server = await serve(body_timeout_s=0.5, request_timeout_s=0.5)
    caller = await server.connect(post("/api/v1/read", 20_000))
    sending = asyncio.create_task(trickle(caller, b"x" * 20_000, 2000, 0.15))
    answer = await caller.answer()
    assert (answer.status, answer.body) == (200, b'{"read":20000}')
    await sending


@pytest.mark.parametrize("length", [5000, None])
async def test_a_slow_body_that_nobody_reads_is_not_waited_for(serve, length):
    server = await serve(body_timeout_s=0.2)
    caller = await server.connect(post("/api/v1/unread", length))
    assert (await caller.answer()).status == 200
    assert await caller.rest() == b""
    assert not errors_of(server.log_lines())


async def test_a_client_is_not_blamed_while_nobody_reads_its_body(serve):
    server = await serve(body_timeout_s=0.4)
    caller = await server.connect(post("/api/v1/later", 16 * MIB))
    sending = asyncio.create_task(trickle(caller, b"x" * 16 * MIB, 65536, 0))
    await server.feature.begun.wait()
    await asyncio.sleep(1)
    assert not sending.done(), "the body has to be larger than what buffers take"
    server.feature.go.set()
    answer = await caller.answer()
    assert (answer.status, answer.body) == (200, b'{"read":%d}' % (16 * MIB))


# Handlers.


@pytest.mark.parametrize("path", ["/api/v1/held", "/api/v1/held/it"])
async def test_a_handler_that_takes_too_long_is_cancelled_and_answered_503(serve, path):
    server = await serve(request_timeout_s=0.2)
    caller = await server.connect(head(path))

    answer = await caller.answer()

    assert answer.status == answer.problem()["status"] == 503
    assert server.feature.outcomes == ["cancelled"]
    assert server.counts.timed_out["request_timeout_s"] == 1
    (line,) = errors_of(server.log_lines())
    assert line["message"].startswith("Feature slow: a request of /api/v1/held")
    assert "[server].request_timeout_s" in line["message"]
    assert "in held" in line["message"], "where it waits"
    assert line["cut_request_id"] == answer.headers["x-request-id"]
    assert (await caller.ask(QUICK)).status == 200, "the connection stays"
    assert server.counts.in_flight == 0


async def test_a_handler_that_answers_when_it_is_cancelled_has_answered(serve):
    server = await serve(request_timeout_s=0.2)
    caller = await server.connect(head("/api/v1/forgiving"))
    answer = await caller.answer()
    assert (answer.status, answer.body) == (200, b'{"late":"yes"}')
    assert (await caller.ask(QUICK)).status == 200


@pytest.mark.parametrize("query", ["", "?x=1"])
async def test_a_handler_that_goes_on_when_it_is_cancelled_keeps_nobody_waiting(serve, query):
    server = await serve(request_timeout_s=0.2)
    caller = await server.connect(head(f"/api/v1/obstinate{query}"))
    assert (await caller.answer()).status == 503
    assert await caller.rest() == b""
    assert server.feature.outcomes == ["caught"]
    messages = [line["message"] for line in errors_of(server.log_lines())]
    assert len(messages) == 2
    assert "was cancelled, and runs on" in messages[1]
    server.feature.go.set()
    await until(lambda: server.counts.in_flight == 0)


async def test_what_has_begun_its_answer_may_go_on(serve):
    server = await serve(request_timeout_s=0.2)
    stream = await server.connect(head("/api/v1/stream", version="1.0"))
    web_socket = await server.connect(UPGRADE)
    assert (await stream.answer()).status == 200
    assert (await web_socket.answer()).status == 101
    held = await server.connect(head("/api/v1/held"))
    assert (await held.answer()).status == 503
    server.feature.go.set()
    assert await stream.rest() == b"begun and done"
    web_socket.writer.write(b"\x81\x82\0\0\0\0hi")
    assert await web_socket.reader.readexactly(4) == b"\x81\x02hi"


async def test_no_limit_for_handlers_is_no_limit(serve):
    server = await serve(request_timeout_s=0, header_timeout_s=0.2)
    caller = await server.connect(head("/api/v1/held"))
    await server.feature.begun.wait()
    assert await (await server.connect()).rest() == b"", "meanwhile, others are too slow"
    server.feature.go.set()
    assert (await caller.answer()).status == 200


# Answers.


@pytest.mark.parametrize("path", ["/api/v1/huge", "/api/v1/huge?x=1", "/api/v1/endless"])
async def test_who_takes_nothing_of_an_answer_is_cut(serve, path):
    server = await serve(write_timeout_s=0.4)
    raw = socket.create_connection(server.runner.addresses[0][:2])
    raw.sendall(head(path))
    await until(lambda: server.counts.open == 1)
    (connection,) = server.runner.server.connections

    def buffered() -> int:
        wire = connection._wire
        return wire.get_write_buffer_size() if wire is not None else 0

    most = 0
    while server.counts.open:
        most = max(most, buffered())
        await asyncio.sleep(0.02)
    assert server.counts.timed_out["write_timeout_s"] == 1
    if "endless" in path:
        assert most < 200_000
        await until(lambda: server.feature.outcomes == ["ended"])
    await until(lambda: server.counts.in_flight == 0)
    assert not errors_of(server.log_lines())
    raw.close()


async def test_who_takes_a_byte_now_and_then_is_cut(serve):
    server = await serve(write_timeout_s=0.5)
    caller = await server.connect(head("/api/v1/huge"), receive_bytes=2048)
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(PATIENCE_S):
            while not server.counts.timed_out["write_timeout_s"]:
                await caller.reader.read(1)
                await asyncio.sleep(0.02)
    assert server.counts.timed_out["write_timeout_s"] == 1


async def test_who_takes_an_answer_slowly_gets_all_of_it(serve):
    server = await serve(write_timeout_s=0.5)
    caller = await server.connect(head("/api/v1/large"), receive_bytes=65_536)
    taken = await caller.reader.readuntil(b"\r\n\r\n")
    size = 0
    async with asyncio.timeout(PATIENCE_S):
        while size < 12_000_002:
            piece = await caller.reader.read(50_000)
            assert piece, (size, taken)
            size += len(piece)
            await asyncio.sleep(0.01)
    assert server.counts.timed_out["write_timeout_s"] == 0


async def test_a_web_socket_that_is_not_read_is_cut(serve):
    server = await serve(write_timeout_s=0.4)
    caller = await server.connect(UPGRADE, receive_bytes=4096)
    assert (await caller.answer()).status == 101
    caller.writer.transport.pause_reading()
    echoed = b"\x81\xff" + struct.pack("!Q", 60_000) + b"\0\0\0\0" + b"x" * 60_000
    sending = asyncio.create_task(trickle(caller, echoed * 500, len(echoed), 0))
    await until(lambda: server.counts.timed_out["write_timeout_s"])
    await until(lambda: server.counts.open == 0)
    sending.cancel()


async def test_a_connection_that_closes_with_bytes_that_nobody_takes_ends(serve):
    server = await serve(write_timeout_s=0.4)
    raw = socket.create_connection(server.runner.addresses[0][:2])
    await until(lambda: server.runner.server.connections)
    (connection,) = server.runner.server.connections
    connection._wire.set_write_buffer_limits(10**9)  # it is not the pause that is noticed
    raw.sendall(QUICK.replace(b"quick", b"huge"))
    await until(connection._wire.get_write_buffer_size)
    connection.force_close()
    await until(lambda: server.counts.open == 0)
    raw.close()


# Too many connections.


async def test_beyond_the_most_connections_a_request_is_answered_503(serve):
    server = await serve(max_connections=3)
    kept = [await server.connect() for _ in range(3)]
    for caller in kept:
        assert (await caller.ask(QUICK)).status == 200

    for request in (QUICK, head("/api/v1/quick?x"), head("/nowhere")):
        refused = await server.connect(request)
        answer = await refused.answer()
        assert answer.status == answer.problem()["status"] == 503
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["connection"] == "close"
        assert await refused.rest() == b""

    assert server.counts.refused["max_connections"] == 3
    for caller in kept:
        assert (await caller.ask(QUICK)).status == 200


async def test_a_request_that_is_refused_with_a_body_gets_its_answer_and_no_reset(serve):
    server = await serve(max_connections=1)
    await server.connect(QUICK)
    await until(lambda: server.counts.open == 1)
    refused = await server.connect(post("/api/v1/read", 4 * MIB))
    await until(lambda: server.counts.refused["max_connections"])
    refused.writer.write(b"x" * 3 * MIB)
    await refused.writer.drain()
    assert (await refused.answer()).status == 503
    assert await refused.rest() == b""
    refused.writer.close()
    async with asyncio.timeout(5):  # aiohttp would wait longer for the rest of the body
        while len(server.runner.server.connections) > 1:  # noqa: ASYNC110 - as in `until`
            await asyncio.sleep(0.01)
    assert not errors_of(server.log_lines())


async def test_beyond_the_most_connections_monitors_are_answered(serve):
    server = await serve(max_connections=1)
    await server.connect(QUICK)
    await until(lambda: server.counts.open == 1)
    paths = ("/livez", "/readyz", "/readyz/process", "/livez?verbose")
    for path in paths:
        caller = await server.connect(head(path))
        answer = await caller.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close"), path
        assert await caller.rest() == b""
    assert server.counts.refused["max_connections"] == 0


async def test_beyond_the_most_connections_nobody_waits_long(serve):
    server = await serve(max_connections=1)
    await server.connect(QUICK)
    await until(lambda: server.counts.open == 1)
    silent, half = await server.connect(), await server.connect(HALF)
    assert await silent.rest() == b""
    assert (await half.answer()).status == 503
    assert await half.rest() == b""


async def test_when_others_have_gone_there_is_room_again(serve):
    server = await serve(max_connections=2)
    kept = [await server.connect(QUICK) for _ in range(2)]
    for _ in range(5):
        caller = await server.connect(QUICK)
        assert (await caller.answer()).status == 503
    kept[0].writer.close()
    await until(lambda: server.counts.open == 1)
    assert (await (await server.connect(QUICK)).answer()).status == 200
    about = [line["message"] for line in server.log_lines() if "connections" in line["message"]]
    assert len(about) == 2, "one line when it begins, one when it is over"
    assert about[0].startswith("There are more than 2 connections")
    assert about[1].startswith("There is room for connections again; requests refused: 5")


async def test_there_is_an_end_to_those_who_wait_to_be_refused(serve):
    server = await serve(max_connections=1)
    await server.connect(QUICK)
    await until(lambda: server.counts.open == 1)
    crowd = [await server.connect() for _ in range(3 * server.counts.max_surplus)]
    most = 0
    last = await server.connect(QUICK)
    answering = asyncio.create_task(last.answer())
    while not answering.done():
        most = max(most, server.counts.open)
        await asyncio.sleep(0.01)
    assert answering.result().status == 503, "it waits in the kernel's queue until it is taken"
    assert most == 1 + server.counts.max_surplus
    for caller in crowd:
        assert await caller.rest() == b""


# Too many requests.


@pytest.mark.parametrize("path", ["/api/v1/quick", "/api/v1/quick?x=1"])
async def test_beyond_the_most_requests_one_is_answered_503(serve, path):
    server = await serve(max_requests_in_flight=2)
    held = [await server.connect(head(f"/api/v1/held{end}")) for end in ("", "/it")]
    await until(lambda: server.counts.in_flight == 2)
    caller = await server.connect()

    answer = await caller.ask(head(path))

    assert answer.status == answer.problem()["status"] == 503
    assert answer.headers["retry-after"] == "1"
    assert server.counts.refused["max_requests_in_flight"] == 1
    assert (await caller.ask(head("/livez"))).status == 200
    assert (await caller.ask(head("/readyz/process"))).status == 200
    server.feature.go.set()
    for each in held:
        assert (await each.answer()).status == 200
    assert (await caller.ask(head(path))).status == 200, "the connection has stayed"
    assert server.counts.in_flight == 0


async def test_so_many_at_once_as_may_be_are_answered_and_the_others_refused(serve):
    server = await serve(max_requests_in_flight=5)
    callers = [await server.connect() for _ in range(20)]
    await until(lambda: server.counts.open == 20)
    for caller in callers:  # no `await` between them: they come in one turn of the loop
        caller.writer.write(head("/api/v1/held"))
    await until(lambda: server.counts.refused["max_requests_in_flight"] == 15)
    server.feature.go.set()
    answers = [await caller.answer() for caller in callers]
    assert sorted(answer.status for answer in answers) == [200] * 5 + [503] * 15


async def test_a_web_socket_is_no_request_in_flight_and_a_stream_is(serve):
    server = await serve(max_requests_in_flight=1)
    for _ in range(3):
        caller = await server.connect(UPGRADE)
        assert (await caller.answer()).status == 101
    stream = await server.connect(head("/api/v1/stream"))
    assert (await stream.answer()).status == 200
    assert (await (await server.connect(QUICK)).answer()).status == 503
    server.feature.go.set()
    await until(lambda: server.counts.in_flight == 0)


async def test_a_client_that_leaves_leaves_nothing_counted(serve):
    server = await serve()
    for path in ("/api/v1/held", "/api/v1/held/it", "/api/v1/endless"):
        caller = await server.connect(head(path))
        await until(lambda: server.counts.in_flight == 1)
        caller.writer.transport.abort()
        server.feature.go.set()
        await until(lambda: server.counts.in_flight == server.counts.open == 0)
        server.feature.go.clear()


# The end of the process, and what is counted.


async def test_a_stop_waits_for_none_of_the_slow(serve):
    server = await serve(header_timeout_s=0.2, body_timeout_s=1000)
    raw = socket.create_connection(server.runner.addresses[0][:2])
    raw.sendall(HALF)
    await until(lambda: server.counts.timed_out["header_timeout_s"])  # it is read on
    await server.connect(HALF)
    await server.connect(post("/api/v1/read", 10))
    await until(lambda: server.counts.open == 3)
    async with asyncio.timeout(PATIENCE_S):
        await server.runner.cleanup()
    await until(lambda: server.counts.open == 0)
    raw.close()


async def test_limits_are_counted_where_metrics_are(serve):
    server = await serve(header_timeout_s=0.2, max_requests_in_flight=1)
    assert (await (await server.connect(HALF)).answer()).status == 408
    await server.connect(head("/api/v1/held"))
    await until(lambda: server.counts.in_flight == 1)
    assert (await (await server.connect(QUICK)).answer()).status == 503
    server.feature.go.set()
    await until(lambda: server.counts.in_flight == 0)
    answer = await (await server.connect(head("/metrics"))).answer()
    text = answer.body.decode()
    for line in (
        'petsage_timeouts_total{limit="header_timeout_s"} 1.0',
        'petsage_timeouts_total{limit="write_timeout_s"} 0.0',
        'petsage_requests_refused_total{limit="max_requests_in_flight"} 1.0',
        'petsage_requests_refused_total{limit="max_connections"} 0.0',
        "petsage_requests_in_flight 1.0",  # the scrape
        "petsage_connections_max 10000.0",
        "petsage_accept_failures_total 0.0",
    ):
        assert f"{line}\n" in text, line


async def test_a_name_is_listened_on_at_each_of_its_addresses_that_is_there(monkeypatch):
    loop = asyncio.get_running_loop()
    absent = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0))
    there = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))

    async def resolve(*_: Any, **__: Any) -> list[Any]:
        return addresses

    monkeypatch.setattr(loop, "getaddrinfo", resolve)  # what a name stands for is the machine's
    addresses = [absent, there, there]
    (listening,) = await listen("localhost", 0)
    assert listening.getsockname()[0] == "127.0.0.1"
    addresses = [there, (*there[:4], listening.getsockname())]
    with pytest.raises(OSError, match="in use"):
        await listen("localhost", 0)
    addresses = [absent]
    with pytest.raises(OSError, match="assign"):
        await listen("localhost", 0)
    listening.close()


# The wheel.


class Looked:
    def __init__(self, look: Callable[[float], float]) -> None:
        self.tick = 0
        self.look = look


async def test_the_wheel_looks_when_it_is_time_and_stops_when_there_is_nothing(log_pipeline):
    loop = asyncio.get_running_loop()
    wheel = Wheel(loop)
    begin, looks = loop.time(), []

    def look(now: float) -> float:
        looks.append(now - begin)
        wheel.drop(last)
        return now + 0.3

    last = Looked(lambda now: now + 1000)
    first = Looked(look)
    wheel.add(first, begin + 0.3)
    wheel.add(last, begin + 1000)
    await until(lambda: len(looks) == 3)
    assert [
        round(after - before, 3) >= 0.3 for before, after in zip([0.0, *looks], looks, strict=False)
    ] == [True] * 3
    wheel.drop(first)
    await until(lambda: wheel._handle is None)


async def test_one_that_moves_itself_while_it_is_looked_at_is_in_one_place(log_pipeline):
    loop = asyncio.get_running_loop()
    wheel = Wheel(loop)
    looks: list[float] = []

    def look(now: float) -> float:
        looks.append(now)
        wheel.move(looked, now + 100)
        return now + 0.1 if len(looks) < 3 else math.inf

    looked = Looked(look)
    wheel.add(looked, loop.time())
    await until(lambda: len(looks) == 3)
    assert not wheel._turns


async def test_one_that_cannot_be_looked_at_keeps_none_of_the_others_from_it(log_pipeline, caplog):
    loop = asyncio.get_running_loop()
    wheel = Wheel(loop)
    looks: list[float] = []

    def fail(now: float) -> float:
        raise ValueError("of the test")

    def look(now: float) -> float:
        looks.append(now)
        return now + 1000

    for _ in range(150):
        wheel.add(Looked(look), loop.time())
    wheel.add(Looked(fail), loop.time())
    await until(lambda: wheel.failures and len(looks) == 150)
    wheel.stop()
    assert [record.levelno for record in caplog.records if record.name == "petsage.wheel"] == [
        logging.ERROR
    ]


# Descriptors, and thousands of connections: processes of their own.


FIT = """
import os, resource, sys
from petsage.descriptors import fit_connections
from petsage.errors import StartError
for case in sys.argv[1:]:
    soft, hard, wanted = map(int, case.split())
    child = os.fork()
    if child:
        assert os.waitpid(child, 0)[1] == 0
        continue
    os.dup2(1, 2)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        fits = fit_connections(wanted)
        print(f"{fits} at {resource.getrlimit(resource.RLIMIT_NOFILE)[0]}")
    except StartError as error:
        print(error)
    break
"""
LOWERED = (
    "[server].max_connections 1000 needs 1378 descriptors, and the process may have {hard}: it "
    "serves {fits} connections at most; fix: raise the hard limit of open files to 1378 "
    "(LimitNOFILE=1378, ulimit -n 1378), or lower [server].max_connections\n"
)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
def test_there_are_descriptors_for_as_many_connections_as_are_taken():
    cases = {
        "400 4000 200": "200 at 400\n",  # as it is
        "300 4000 1000": "1000 at 1378\n",  # raised
        "300 1000 1000": LOWERED.format(hard=1000, fits=697) + "697 at 1000\n",
        "200 200 1000": LOWERED.format(hard=200, fits=56) + "56 at 200\n",
        "140 140 1000": LOWERED.format(hard=140, fits=0).replace(
            ": it serves 0 connections at most", ""
        ),
    }
    command = [sys.executable, "-c", FIT, *cases]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE_S)
    assert run.stdout == "".join(cases.values())


ROOM = """
import os, resource, signal, sys, threading
from petsage import server
from petsage.settings import load_settings

resource.setrlimit(resource.RLIMIT_NOFILE, 2 * (int(sys.argv[1]),))

def size():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("FDSize"))

def make_room(max_connections):
    made(max_connections)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    said = f"{threading.active_count()} {size() >= max_connections} {highest < 100}"
    os.write(2, said.encode())

def announce(address, entries):
    os.kill(os.getpid(), signal.SIGTERM)

made, server.make_room = server.make_room, make_room
settings = load_settings({"server": {"port": 0, "max_connections": 1000}})
server.run_server(settings, announce=announce)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only there its size is told")
@pytest.mark.parametrize(("limit", "is_large"), [(2000, True), (200, False)])
def test_the_table_of_descriptors_is_made_large_before_there_are_threads(project, limit, is_large):
    (project / "features").mkdir()
    run = subprocess.run(
        [sys.executable, "-c", ROOM, str(limit)],
        cwd=project,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    )
    threads, was_made, is_closed = run.stderr.split()
    assert (threads, was_made) == ("1", str(is_large))
    assert is_closed == "True", "what made it large"


def address_of(server: Any) -> tuple[str, int]:
    return "127.0.0.1", int(server.address.rpartition(":")[2])


@contextlib.contextmanager
def connections(address: tuple[str, int], count: int, data: bytes) -> Iterator[list[socket.socket]]:
    """So many raw connections, each of which has sent `data`."""
    with contextlib.ExitStack() as stack:
        made = []
        for _ in range(count):
            each = stack.enter_context(socket.create_connection(address, timeout=PATIENCE_S))
            each.sendall(data)
            made.append(each)
        yield made


@pytest.mark.skipif(sys.platform != "linux", reason="only there a process's limit can be changed")
def test_without_descriptors_one_line_says_so_and_it_recovers(project, start_server):
    import resource

    (project / "features").mkdir()
    server = start_server()
    before = len([*Path(f"/proc/{server.pid}/fd").iterdir()])
    limits = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (before + 5, limits[1]))
    with connections(address_of(server), 40, head("/livez")):
        said = server.wait_for(lambda line: "No connection can be accepted" in line["message"])
        time.sleep(1.2)  # it fails again and again
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, limits)
        over = server.wait_for(lambda line: "Connections are accepted again" in line["message"])
    failures = int(over["message"].split()[-2])
    assert 2 <= failures <= 40
    assert said["level"] == "ERROR"
    assert "Too many open files" in said["message"]
    assert "LimitNOFILE" in said["message"]
    assert server.get("/livez", Accept="application/json")[0] == 200
    server.kill()
    lines = [line for line in server.lines if line["logger"] == "petsage.accepting"]
    assert [line["level"] for line in lines] == ["ERROR", "WARNING"]
    assert not [line for line in server.lines if line["logger"] == "asyncio"]


def ask(caller: socket.socket, request: bytes = QUICK) -> bytes:
    caller.sendall(request)
    data = b""
    while b"\r\n\r\n" not in data or not data.endswith(b"}"):
        piece = caller.recv(65536)
        assert piece, data
        data += piece
    return data


def read_to_end(caller: socket.socket) -> bytes:
    data = b""
    while piece := caller.recv(65536):
        data += piece
    return data


def test_500_that_send_half_a_head_end_and_nobody_else_notices(project, start_server):
    (project / "features").mkdir()
    server = start_server(env={"PETSAGE_SERVER__HEADER_TIMEOUT_S": "2"})
    welcome = head("/")
    with (
        connections(address_of(server), 250, HALF) as half,
        connections(address_of(server), 250, b"") as silent,
        socket.create_connection(address_of(server), timeout=PATIENCE_S) as other,
    ):
        asked = 0
        half[0].setblocking(False)
        while True:
            assert ask(other, welcome).startswith(b"HTTP/1.1 200 OK\r\n")
            asked += 1
            with contextlib.suppress(BlockingIOError):
                half[0].recv(1, socket.MSG_PEEK)
                break
        half[0].settimeout(PATIENCE_S)
        assert asked > 100, "they are answered while 500 wait"
        for each in half:
            answer = read_to_end(each)
            assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
            assert ask(other, welcome).startswith(b"HTTP/1.1 200 OK\r\n")
        for each in silent:
            assert read_to_end(each) == b""
    server.kill()
    assert not errors_of(server.lines)


def resident_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"process {pid} tells nothing of its memory")


def p99_s(caller: socket.socket, seconds: float, request: bytes) -> tuple[float, int]:
    """What of a hundred answers the slowest takes, and how many there were."""
    took, end = [], time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        assert ask(caller, request).startswith(b"HTTP/1.1 200 OK\r\n")
        took.append(time.perf_counter() - began)
        time.sleep(0.001)
    return sorted(took)[len(took) * 99 // 100], len(took)


@pytest.mark.stress
def test_10_000_that_are_slow_cost_little_and_nobody_else_notices(project, start_server):
    """Half send a part of a head, half nothing; one in ten then sends a byte now and then."""
    import resource

    count, header_s = 10_000, 40.0
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 20_000), hard))
    (project / "features").mkdir()
    limits = {"HEADER_TIMEOUT_S": str(header_s), "MAX_CONNECTIONS": str(count + 10)}
    server = start_server(env={f"PETSAGE_SERVER__{key}": each for key, each in limits.items()})
    address = address_of(server)
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(socket.create_connection(address, timeout=PATIENCE_S))
        usual_s, _ = p99_s(other, 5, head("/"))
        before = resident_bytes(server.pid)
        began = time.monotonic()
        slow = stack.enter_context(connections(address, count // 2, HALF))
        slow += stack.enter_context(connections(address, count // 2, b""))
        made = time.monotonic()
        assert ask(other, head("/")), "all that has come has been read"
        each_bytes = (resident_bytes(server.pid) - before) / count
        for caller in slow[:: count // 1000]:
            caller.sendall(b"x")
        crowded_s, answers = p99_s(other, 5, head("/"))
        ends_s, ends = p99_s(
            other, header_s - (time.monotonic() - began) + (made - began) + 1, head("/")
        )
        for caller in slow:
            read_to_end(caller)
        done = time.monotonic()
        print(  # noqa: T201 - the figures are what it is run for
            f"\n{count} slow connections, {each_bytes:.0f} bytes each; p99 {usual_s * 1e3:.2f} ms "
            f"before, {crowded_s * 1e3:.2f} ms beside them ({answers} answers), {ends_s * 1e3:.2f} "
            f"ms while they end ({ends} answers); closed {done - made:.1f} s after the last"
        )
        assert each_bytes < 10_000
        assert crowded_s < 3 * usual_s
        assert ends_s < 3 * usual_s
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    server.kill()
    assert not errors_of(server.lines)
