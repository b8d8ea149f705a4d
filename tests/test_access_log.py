"""The access line: exactly one for each request, whatever becomes of it."""

import asyncio
import itertools
import json
import logging
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextvars import copy_context
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import pytest
from aiohttp import web

from petsage.context import RequestContext, current_request, set_current_request
from petsage.logs.access import AccessLogger
from petsage.logs.pipeline import Pipeline
from petsage.metrics import RequestMetrics
from petsage.testing import Client, FeatureClient, FeatureFolder

PATIENCE_S = 60.0
OWN = ["timestamp", "level", "logger", "message", "service", "version"]
OWN += ["feature", "request_id", "trace_id", "span_id"]
ACCESS_FIELDS = ["method", "path", "route", "status", "duration_ms", "bytes", "remote"]
ACCESS_FIELDS += ["user_agent"]

FEATURE = '''
    """Answers in several ways."""
    import asyncio
    from aiohttp import web
    from petsage import Feature, Problem, Routes

    routes = Routes()
    feature = Feature(routes)


    @routes.get("/pets/{pet_id}")
    async def get_pet(pet_id: int) -> dict[str, int]:
        """Get."""
        return {"pet_id": pet_id}


    @routes.get("/fails")
    async def fail() -> None:
        """Fail."""
        raise ValueError("not told to clients")


    @routes.get("/refuses")
    async def refuse() -> None:
        """Refuse."""
        raise Problem(409, "No")


    @routes.get("/stream")
    async def stream(request: web.Request) -> web.StreamResponse:
        """Stream."""
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(3):
            await response.write(b"x" * 1000)
        return response


    @routes.get("/slow")
    async def be_slow() -> None:
        """Wait."""
        await asyncio.sleep(0.02)
'''

LogLines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
async def client(feature_client: FeatureClient, feature_folder: FeatureFolder) -> Client:
    return await feature_client(feature_folder("pets", FEATURE))


def access_lines(log_lines: LogLines) -> list[dict[str, Any]]:
    return [line for line in log_lines() if line["logger"] == "petsage.access"]


async def exchange(client: Client, data: bytes) -> bytes:
    """What the server sends back until it closes."""
    reader, writer = await asyncio.open_connection(client.host, client.port)
    try:
        writer.write(data)
        return await asyncio.wait_for(reader.read(), PATIENCE_S)
    finally:
        writer.close()
        await writer.wait_closed()


class ClosedList(list[logging.Handler]):
    """Takes no more: pytest adds its handlers again when a test begins."""

    def append(self, _: logging.Handler) -> None: ...


@pytest.fixture
def alone(log_pipeline: Pipeline) -> Iterator[None]:
    """pytest listens to every record; without it, an access line takes its short way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging.getLogger(), "handlers", ClosedList([log_pipeline]))
        yield


@pytest.fixture(params=["as a record", "as bytes"])
def both_ways(request: pytest.FixtureRequest) -> None:
    if request.param == "as bytes":
        request.getfixturevalue("alone")


async def test_a_request_has_one_line_with_these_fields_in_this_order(both_ways, client, log_lines):
    headers = {"User-Agent": "curl/8", "X-Request-ID": "mine", "Cookie": "secret=1"}
    async with client.get("/api/v1/pets/7?token=s3cret", headers=headers) as response:
        assert response.status == 200
    (line,) = access_lines(log_lines)
    assert list(line) == [*OWN, *ACCESS_FIELDS]
    assert line["level"] == "INFO"
    assert line["message"] == "GET /api/v1/pets/7 200"
    assert line["feature"] == "pets"
    assert line["request_id"] == response.headers["X-Request-ID"] == "mine"
    assert line["method"] == "GET"
    assert line["path"] == "/api/v1/pets/7"
    assert line["route"] == "/api/v1/pets/{pet_id}"
    assert line["status"] == 200
    assert line["remote"] == "127.0.0.1"
    assert line["user_agent"] == "curl/8"
    assert "s3cret" not in json.dumps(line)


@pytest.mark.parametrize(
    ("method", "path", "status", "route", "feature"),
    [
        ("GET", "/api/v1/pets/7", 200, "/api/v1/pets/{pet_id}", "pets"),
        ("HEAD", "/api/v1/pets/7", 200, "/api/v1/pets/{pet_id}", "pets"),
        ("OPTIONS", "/api/v1/pets/7", 204, None, None),
        ("GET", "/api/v1/pets/seven", 422, "/api/v1/pets/{pet_id}", "pets"),
        ("GET", "/nowhere", 404, None, None),
        ("DELETE", "/api/v1/pets/7", 405, "/api/v1/pets/{pet_id}", None),
        ("GET", "/api/v1/fails", 500, "/api/v1/fails", "pets"),
        ("GET", "/api/v1/refuses", 409, "/api/v1/refuses", "pets"),
        ("GET", "/api/v1/stream", 200, "/api/v1/stream", "pets"),
    ],
)
async def test_whatever_the_answer_there_is_one_line(  # noqa: PLR0917 - they make a table
    client, log_lines, method, path, status, route, feature
):
    async with client.request(method, path) as response:
        await response.read()
        assert response.status == status
    (line,) = access_lines(log_lines)
    assert (line["method"], line["path"], line["status"]) == (method, path, status)
    assert (line["route"], line["feature"]) == (route, feature)
    assert line["request_id"] == response.headers["X-Request-ID"]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n", 400),
        (b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: minus\r\n\r\n", 400),
    ],
    ids=["nonsense", "version", "header", "long", "length"],
)
async def test_a_request_that_does_not_parse_has_one_line(
    both_ways, client, log_lines, data, status
):
    answer = await exchange(client, data)
    assert int(answer.split(b" ")[1]) == status
    (line,) = access_lines(log_lines)
    assert list(line) == [*OWN, *ACCESS_FIELDS]
    assert line["status"] == status
    assert line["route"] is None
    assert f"X-Request-ID: {line['request_id']}".encode() in answer
    assert line["bytes"] == len(answer)


async def test_bytes_are_all_that_were_sent_headers_included(client, log_lines):
    asked = (b"GET /api/v1/stream", b"GET /api/v1/pets/7", b"HEAD /api/v1/pets/7", b"GET /none")
    rest = b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    sizes = [len(await exchange(client, each + rest)) for each in asked]
    assert [line["bytes"] for line in access_lines(log_lines)] == sizes
    assert sizes[0] > 3000
    assert sizes[1] == sizes[2] + len(b'{"pet_id":7}')


async def test_requests_on_one_connection_have_a_line_and_an_id_each(client, log_lines):
    one = b"GET /api/v1/pets/1 HTTP/1.1\r\nHost: x\r\n\r\n"
    last = one.replace(b"Host: x", b"Host: x\r\nConnection: close").replace(b"pets/1", b"pets/x")
    await exchange(client, one * 4 + last)
    lines = access_lines(log_lines)
    assert [line["status"] for line in lines] == [200, 200, 200, 200, 422]
    assert len({line["request_id"] for line in lines}) == 5


async def test_the_duration_is_that_of_the_request(client, log_lines):
    async with client.get("/api/v1/slow"):
        pass
    (line,) = access_lines(log_lines)
    assert 15 <= line["duration_ms"] < 5_000


async def test_what_a_client_sends_cannot_break_its_line(both_ways, client, log_lines):
    hostile = [
        b'GET /%0a%1b[31m/\x80\xff?q=\x9b HTTP/1.1\r\nHost: x\r\nUser-Agent: \xff\x9b31m"}\r\n',
        b"GET /" + b"p" * 6_000 + b" HTTP/1.1\r\nHost: x\r\nUser-Agent: " + b"u" * 6_000 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Request-ID: \x1b[31m" + b"i" * 500 + b"\r\n",
    ]
    for head in hostile:
        await exchange(client, head + b"Connection: close\r\n\r\n")
    lines = access_lines(log_lines)
    assert len(lines) == 3
    assert all(len(json.dumps(line)) < 8_000 for line in lines)
    assert all(len(line["request_id"]) == 32 for line in lines)


class Origin(NamedTuple):
    scheme: str | None
    host: str | None


Known = tuple[str, int, int, str | None, Origin | None]
"""The path, the status, the bytes, and who asked."""


def line_of(pipeline: Pipeline, path: Path, known: Known, headers: dict[str, str]) -> bytes:
    """The line of a request of which this is known."""
    pipeline.flush()
    before = path.stat().st_size if path.exists() else 0
    context = RequestContext("mine", "a" * 32, "b" * 16, "00", perf_counter(), "pets", "/r/{x}")
    logger = AccessLogger(logging.getLogger("petsage.access"), "", RequestMetrics())

    def note() -> None:
        set_current_request(context)
        logger.note(context, "GET", *known[:4], headers, known[4])

    copy_context().run(note)
    pipeline.flush()
    line = path.read_bytes()[before:]
    assert line.count(b"\n") == 1
    return line


KNOWN: dict[str, Known] = {
    "plain": ("/r/1", 200, 500, "127.0.0.1", None),
    "another path": ("/r/2", 200, 500, "127.0.0.1", None),
    "another status": ("/r/1", 404, 0, None, None),
    "from a proxy": ("/r/1", 200, 500, "10.0.0.1", Origin("https", "pets.example")),
    "from another proxy": ("/r/1", 200, 500, "10.0.0.1", Origin("http", None)),
    "hostile": ('/"\\\x7f\x9b%41/é', 200, 500, "127.0.0.1", None),
    "no text": ("/r/\udcff", 200, 500, "127.0.0.1", None),
    "long": ("/r/" + "x" * 900, 200, 500, "127.0.0.1", None),
    "too long": ("/r/" + "x" * 450, 200, 500, "127.0.0.1", None),
}


class TestParts:
    @pytest.fixture(params=[[], ["remote", "scheme"], ["bytes"], ["duration"], ["path"]], ids=str)
    def petsage_settings(self, request, petsage_settings):
        changed = {"redact": request.param, "max_line_bytes": 1024}
        logs = petsage_settings.logs.model_copy(update=changed)
        return petsage_settings.model_copy(update={"logs": logs})

    def test_a_line_made_of_parts_is_that_of_the_record_but_for_its_time(
        self, alone, log_pipeline, petsage_settings, monkeypatch
    ):
        (path,) = (sink.path for sink in petsage_settings.logs.sinks.values())
        logger = logging.getLogger("petsage.access")
        agents = [{}, {"User-Agent": "curl/8"}, {"User-Agent": '\x7f\x85"\\é'}]
        for known, headers in itertools.product(KNOWN.values(), agents):
            # Each twice: the first makes the parts, the second finds them.
            made = [line_of(log_pipeline, path, known, headers) for _ in range(2)]
            with monkeypatch.context() as patch:
                patch.setattr(logger, "filters", [lambda _: True])
                record = line_of(log_pipeline, path, known, headers)
            expected = json.loads(record)
            for line in made:
                assert len(line) <= 1024
                assert b"\x7f" not in line
                assert not re.search(rb"\xc2[\x80-\x9f]", line)
                got = json.loads(line)
                assert list(got) == list(json.loads(record))
                for name in {"timestamp", "duration_ms", "truncated"} & set(got):
                    assert type(got[name]) is type(expected[name])
                    got[name] = expected[name]
                for each in (got, expected):
                    each["altered"] = sorted(each.get("altered", []))
                assert got == expected


class TestKept:
    @pytest.fixture
    def requests(self):
        return RequestMetrics()

    @pytest.fixture
    def note(self, alone, log_pipeline, requests):
        logger = AccessLogger(logging.getLogger("petsage.access"), "", requests)

        def note(path: str, agent: str = "", *, method: str = "GET", route: str = "/r/{x}") -> None:
            context = RequestContext("mine", "a" * 32, "b" * 16, "00", perf_counter(), "pets")
            context.route = route
            logger.note(context, method, path, 200, 5, "127.0.0.1", {"User-Agent": agent})

        return note

    def test_the_paths_of_a_route_have_their_parts_in_common(self, note, requests, log_lines):
        for number in range(5):
            note(f"/r/{number}")
        assert len(requests.kept) == 1
        assert [line["path"] for line in access_lines(log_lines)] == [f"/r/{n}" for n in range(5)]

    async def test_the_lines_of_a_turn_are_written_at_its_end(
        self, alone, log_pipeline, requests, log_lines
    ):
        logger = AccessLogger(logging.getLogger("petsage.access"), "", requests)
        (account,) = log_pipeline.accounts().values()
        # One has no parts: it is logged as a whole, and names its own request.
        routes = ["/r/{x}", "/r/{x}", "/größe/{x}", None]
        for number, route in enumerate(routes):
            context = RequestContext(f"mine-{number}", "a" * 32, "b" * 16, "00", perf_counter())
            context.route = route
            logger.note(context, "GET", f"/r/{number}", 200, number, "::1", {})
        told = current_request()

        assert requests.notes.is_due
        assert list(requests.observed()) == []
        assert log_pipeline.accounts() == {log_pipeline.sinks[0].name: account}
        await asyncio.sleep(0)
        assert not requests.notes.is_due
        assert current_request() is told
        assert sum(sum(observed.counts) for observed in requests.observed()) == 4
        lines = access_lines(log_lines)
        assert [line["request_id"] for line in lines] == ["mine-0", "mine-1", "mine-2", "mine-3"]
        assert [line["route"] for line in lines] == routes
        assert [line["bytes"] for line in lines] == [0, 1, 2, 3]

    async def test_who_flushes_the_log_amid_a_turn_has_its_lines_written(
        self, note, log_pipeline, requests, log_lines
    ):
        (before,) = log_pipeline.accounts().values()
        note("/r/1")
        log_pipeline.flush()
        (after,) = log_pipeline.accounts().values()
        assert after.written - before.emitted == 1
        assert [line["path"] for line in access_lines(log_lines)] == ["/r/1"]
        await asyncio.sleep(0)
        (observed,) = requests.observed()
        assert sum(observed.counts) == 1

    def test_what_clients_send_does_not_fill_memory(self, note, requests, log_pipeline, log_lines):
        for number in range(1200):
            note("/r/1", f"agent {number}")
            note("/r/1", method=f"METHOD{number}")
        assert len(log_pipeline.formatter.kept) <= 512
        assert len(requests.kept) == 1
        assert len(access_lines(log_lines)) == 2400

    def test_of_thousands_of_routes_none_drives_out_another(self, note, requests):
        for number in range(2000):
            note(f"/r/{number}/1", route=f"/r/{number}/{{x}}")
        assert requests.kept_cells == 2000
        (kept,) = requests.kept.values()
        assert len(kept[1]) == 2000

    def test_routes_that_come_and_go_do_not_fill_memory(
        self, note, requests, log_lines, monkeypatch
    ):
        monkeypatch.setattr("petsage.logs.access.MAX_SERIES", 10)
        for number in range(35):
            note(f"/r/{number}/1", route=f"/r/{number}/{{x}}")
        assert requests.kept_cells == 5
        assert [len(kept[1]) for kept in requests.kept.values()] == [5]
        assert len(access_lines(log_lines)) == 35

    @pytest.mark.parametrize("route", [None, "/größe/{x}", "/r/" + "long" * 200 + "/{x}"])
    def test_a_route_that_stands_in_no_parts_is_told_and_counted(
        self, note, requests, log_lines, route
    ):
        for _ in range(2):
            note("/r/1", route=route)
        assert [line["route"] for line in access_lines(log_lines)] == [route, route]
        (observed,) = requests.observed()
        assert sum(observed.counts) == 2

    def test_a_request_after_its_route_was_forgotten_counts_anew(self, note, requests):
        note("/r/1")
        requests.forget(["/r/{x}"])
        note("/r/2")
        (observed,) = requests.observed()
        assert sum(observed.counts) == 1


async def test_a_user_agent_that_is_not_sent_is_null(client, log_lines):
    await exchange(client, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert access_lines(log_lines)[0]["user_agent"] is None


async def test_a_client_that_leaves_before_its_answer_has_no_more_than_one_line(client, log_lines):
    _, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(b"GET /api/v1/slow HTTP/1.1\r\nHost: x\r\n\r\n")
    await writer.drain()
    writer.transport.abort()
    async with client.get("/api/v1/slow"):
        pass
    assert len(access_lines(log_lines)) in {1, 2}


async def test_caplog_sees_access_lines_as_records(client, caplog):
    async with client.get("/api/v1/pets/7"):
        pass
    (record,) = (record for record in caplog.records if record.name == "petsage.access")
    assert (record.getMessage(), record.status) == ("GET /api/v1/pets/7 200", 200)


async def test_a_handler_on_the_access_logger_gets_its_records(
    alone, client, log_lines, monkeypatch
):
    seen: list[logging.LogRecord] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record)

    logger = logging.getLogger("petsage.access")
    monkeypatch.setattr(logger, "handlers", [Listener()])
    async with client.get("/api/v1/pets/7"):
        pass
    assert [record.getMessage() for record in seen] == ["GET /api/v1/pets/7 200"]
    assert len(access_lines(log_lines)) == 1


async def test_a_filter_on_the_access_logger_leaves_lines_out(
    alone, client, log_lines, monkeypatch
):
    logger = logging.getLogger("petsage.access")
    monkeypatch.setattr(logger, "filters", [lambda record: record.status != 200])
    for path in ("/api/v1/pets/7", "/nowhere"):
        async with client.get(path):
            pass
    assert [line["status"] for line in access_lines(log_lines)] == [404]


async def test_the_level_of_the_access_logger_turns_its_lines_off(client, log_lines):
    logger = logging.getLogger("petsage.access")
    logger.setLevel(logging.WARNING)
    try:
        async with client.get("/api/v1/pets/7"):
            pass
    finally:
        logger.setLevel(logging.NOTSET)
    assert access_lines(log_lines) == []


class TestMasking:
    @pytest.fixture
    def petsage_settings(self, petsage_settings):
        logs = petsage_settings.logs.model_copy(update={"redact": ["remote", "user_agent"]})
        return petsage_settings.model_copy(update={"logs": logs})

    async def test_an_operator_may_mask_fields_of_the_access_line(
        self, both_ways, client, log_lines
    ):
        async with client.get("/api/v1/pets/7"):
            pass
        (line,) = access_lines(log_lines)
        assert (line["remote"], line["user_agent"], line["status"]) == ("***", "***", 200)


async def test_without_a_pipeline_a_request_is_a_record_of_the_stdlib(
    petsage_settings, caplog, log_pipeline: Pipeline
):
    from petsage.app import create_app
    from petsage.connection import Runner

    log_pipeline.uninstall()
    caplog.set_level(logging.INFO)
    runner = Runner(create_app(petsage_settings), petsage_settings.server)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), PATIENCE_S)
        writer.close()
    finally:
        await runner.cleanup()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert "GET / 200" in [record.getMessage() for record in caplog.records]


async def test_a_served_process_writes_one_line_a_request(tmp_path, unused_tcp_port):
    (tmp_path / "features").mkdir()
    command = [sys.executable, "-m", "petsage", "serve", "--port", str(unused_tcp_port)]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        while b"PetSage serves on" not in await asyncio.wait_for(
            process.stdout.readline(), PATIENCE_S
        ):
            pass
        for head in [b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close"] * 50 + [b"nonsense"]:
            reader, writer = await asyncio.open_connection("127.0.0.1", unused_tcp_port)
            writer.write(head + b"\r\n\r\n")
            await asyncio.wait_for(reader.read(), PATIENCE_S)
            writer.close()
    finally:
        process.send_signal(signal.SIGTERM)
        out, err = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    lines = [json.loads(line) for line in out.splitlines()]
    statuses = [line["status"] for line in lines if line["logger"] == "petsage.access"]
    assert statuses == [200] * 50 + [400]
    assert process.returncode == 0
    assert err == b""
