"""The stop: readiness first, no request lost, then everything in reverse order."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time

import pytest

from tests.clients import Load
from tests.conftest import HELLO, ROOT, clean_environment, write_feature

GET = b"GET /api/v1/hello/Ada HTTP/1.1\r\nHost: x\r\n\r\n"
DRAIN = {"PETSAGE_SERVER__DRAIN_S": "20"}

HELD = '''
    """Answers when it is told to."""
    import asyncio
    import logging

    from aiohttp import web
    from petsage import Feature, Routes

    routes = Routes()
    logger = logging.getLogger(__name__)
    go = asyncio.Event()

    @routes.get("/held")
    async def held() -> dict[str, str]:
        logger.info("begun")
        await go.wait()
        return {"held": "done"}

    @routes.get("/go")
    async def let_go() -> dict[str, str]:
        go.set()
        return {}

    @routes.get("/stream")
    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"whole")
        return response

    @routes.get("/fails")
    async def fails() -> None:
        raise RuntimeError

    @routes.get("/never")
    async def never() -> None:
        logger.info("begun")
        await asyncio.sleep(1000)

    feature = Feature(routes)
'''


def port_of(server) -> int:
    return int(server.address.rpartition(":")[2])


@contextlib.contextmanager
def connected(server):
    with socket.create_connection(("127.0.0.1", port_of(server)), timeout=20) as connection:
        yield connection


def asked(connection: socket.socket, request: bytes = GET) -> tuple[int, dict[str, str], bytes]:
    """One request on a raw connection: status, headers, and all until its body's end."""
    connection.sendall(request)
    return answer_on(connection)


def answer_on(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        data += received(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    while len(body) < int(headers.get("content-length", 0)):
        body += received(connection)
    return int(status.split()[1]), headers, body


def received(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    assert data, "the connection was closed, and the answer is not whole"
    return data


def begin_stop(server, number: signal.Signals = signal.SIGTERM) -> None:
    server.signal(number)
    server.wait_for(lambda line: line["message"].startswith("PetSage stops"))


def has_stopped(server) -> bool:
    message: str = server.lines[-1]["message"]
    return message == "PetSage has stopped"


def test_while_it_drains_every_answer_says_that_its_connection_closes(project, start_server):
    write_feature(project, "hello", HELLO)
    write_feature(project, "held", HELD)
    server = start_server(env=DRAIN)
    with contextlib.ExitStack() as stack:
        kept = [stack.enter_context(connected(server)) for _ in range(5)]
        for connection in kept:
            assert "connection" not in asked(connection)[1]

        begin_stop(server)

        requests = {
            GET: 200,
            b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n": 404,
            b"GET /api/v1/stream HTTP/1.1\r\nHost: x\r\n\r\n": 200,
            b"GET /api/v1/fails HTTP/1.1\r\nHost: x\r\n\r\n": 500,
            b"no HTTP\r\n\r\n": 400,
        }
        for old, (request, status) in zip(kept, requests.items(), strict=True):
            for connection in (old, stack.enter_context(connected(server))):
                found, headers, body = asked(connection, request)
                assert (found, headers["connection"]) == (status, "close"), request
                while data := connection.recv(65536):
                    body += data
                assert body
        server.signal(signal.SIGTERM)
    assert server.end() == (0, "")


READY = b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n"
LIVE = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"


def test_readiness_ends_at_once_and_requests_are_still_served(project, start_server):
    write_feature(project, "hello", HELLO)
    server = start_server(env=DRAIN)
    with contextlib.ExitStack() as stack:
        kept = stack.enter_context(connected(server))
        assert asked(kept, READY)[0] == 200

        server.signal(signal.SIGTERM)

        limit = time.monotonic() + 0.3
        while asked(stack.enter_context(connected(server)), READY)[0] != 503:
            assert time.monotonic() < limit
        assert asked(stack.enter_context(connected(server)), LIVE)[0] == 200
        assert asked(stack.enter_context(connected(server)))[0] == 200
        assert asked(kept)[0] == 200
        server.signal(signal.SIGTERM)
    assert server.end() == (0, "")


def test_a_request_in_flight_is_told_that_its_connection_closes(project, start_server):
    write_feature(project, "held", HELD)
    server = start_server(env=DRAIN)
    with connected(server) as caller, connected(server) as other:
        caller.sendall(b"GET /api/v1/held HTTP/1.1\r\nHost: x\r\n\r\n")
        server.wait_for(lambda line: line["message"] == "begun")
        begin_stop(server)

        assert asked(other, b"GET /api/v1/go HTTP/1.1\r\nHost: x\r\n\r\n")[0] == 200

        status, headers, body = answer_on(caller)
        assert (status, headers["connection"], body) == (200, "close", b'{"held":"done"}')
        assert caller.recv(1) == b""
        server.signal(signal.SIGTERM)
        assert server.end() == (0, "")


def test_requests_one_behind_another_are_all_answered_and_the_last_says_close(
    project, start_server
):
    write_feature(project, "hello", HELLO)
    server = start_server(env=DRAIN)
    with connected(server) as caller:
        assert asked(caller)[0] == 200
        begin_stop(server)

        caller.sendall(GET * 3)

        data = b""
        while part := caller.recv(65536):
            data += part
    assert data.count(b"HTTP/1.1 200 OK\r\n") == 3
    assert data.count(b"Connection: close\r\n") == 1
    server.signal(signal.SIGTERM)
    assert server.end() == (0, "")


def test_a_drain_lasts_drain_s_and_a_ctrl_c_has_none(project, start_server):
    write_feature(project, "hello", HELLO)
    took = {}
    for number in (signal.SIGTERM, signal.SIGINT):
        server = start_server(env={"PETSAGE_SERVER__DRAIN_S": "2"})
        started = time.monotonic()
        server.signal(number)
        assert server.end() == (0, "")
        took[number] = time.monotonic() - started

    assert took[signal.SIGTERM] > 2
    assert took[signal.SIGINT] < 2


def test_an_idle_connection_is_closed_at_the_end_of_the_drain(project, start_server):
    write_feature(project, "hello", HELLO)
    server = start_server(env={"PETSAGE_SERVER__SHUTDOWN_S": "100"})
    with connected(server) as caller:
        asked(caller)

        server.signal(signal.SIGTERM)

        assert caller.recv(1) == b""  # an end, and no reset
        assert server.end() == (0, "")


def test_a_request_that_has_begun_to_arrive_is_answered(project, start_server):
    write_feature(project, "hello", HELLO)
    server = start_server()
    with connected(server) as used, connected(server) as new, connected(server) as other:
        asked(used)
        for caller in (used, new):
            caller.sendall(GET[:20])
        asked(other)  # the server has read what was sent before
        begin_stop(server)
        assert other.recv(1) == b""  # idle connections are closed by now

        for caller in (used, new):
            status, headers, _ = asked(caller, GET[20:])
            assert (status, headers["connection"]) == (200, "close")
            assert caller.recv(1) == b""
    assert server.end() == (0, "")


def test_a_connection_that_was_just_made_or_used_may_send_a_request(project, start_server):
    write_feature(project, "hello", HELLO)
    server = start_server()
    with connected(server) as idle:
        asked(idle)
        with connected(server) as caller:
            server.signal(signal.SIGTERM)
            server.wait_for(lambda line: line["message"] == "PetSage takes no new connections")

            for connection in (caller, idle):
                assert asked(connection)[0] == 200
    assert server.end() == (0, "")


def test_a_second_signal_hurries_the_stop_and_lifespans_still_end(project, start_server):
    write_feature(project, "never", HELD)
    order = """
        import logging
        from petsage import Feature, Routes
        logger = logging.getLogger(__name__)

        async def lifespan(app):
            yield
            logger.info("ended")

        feature = Feature(Routes(), lifespan=lifespan, needs=({needs}))
    """
    for name, needs in {"first": "", "second": '"first",', "third": '"second",'}.items():
        write_feature(project, name, order.format(needs=needs))
    server = start_server(env={**DRAIN, "PETSAGE_SERVER__SHUTDOWN_S": "1000"})
    with connected(server) as caller:
        caller.sendall(b"GET /api/v1/never HTTP/1.1\r\nHost: x\r\n\r\n")
        server.wait_for(lambda line: line["message"] == "begun")
        begin_stop(server)

        server.signal(signal.SIGTERM)

        assert server.end() == (0, "")
    ended = [line["logger"] for line in server.lines if line["message"] == "ended"]
    assert ended == ["features.third", "features.second", "features.first"]
    assert has_stopped(server)
    (access,) = [line for line in server.lines if line["logger"] == "petsage.access"]
    assert access["status"] == 503


def test_a_signal_is_heard_while_a_handler_blocks_the_loop(project, start_server):
    write_feature(
        project,
        "blocks",
        """
        import logging, time
        from petsage import Feature, Routes
        routes = Routes()

        @routes.get("/blocks")
        async def block() -> None:
            logging.getLogger(__name__).info("begun")
            time.sleep(1000)

        feature = Feature(routes)
        """,
    )
    server = start_server()
    with connected(server) as caller:
        caller.sendall(b"GET /api/v1/blocks HTTP/1.1\r\nHost: x\r\n\r\n")
        server.wait_for(lambda line: line["message"] == "begun")

        # Two of a kind at one moment are one: the kernel does not count, and each is heard first.
        for _ in range(2):
            server.signal(signal.SIGTERM)
            time.sleep(0.5)
        server.signal(signal.SIGTERM)

        assert server.end()[0] == 1
    assert server.lines[-1]["message"].startswith("PetSage ends, and cuts what still runs")


async def stop_under_load(start_server, drain_s: float) -> Load:
    server = await asyncio.to_thread(
        start_server,
        env={
            "PETSAGE_SERVER__DRAIN_S": str(drain_s),
            "PETSAGE_LOGS__SINKS__STDOUT__QUEUE_RECORDS": "1000000",
        },
    )
    ended = asyncio.create_task(asyncio.to_thread(server.end))  # it reads the log
    async with Load("127.0.0.1", port_of(server)).running() as load:
        await load.until(300)
        server.signal(signal.SIGTERM)
        assert await ended == (0, "")
    paths = [line["path"] for line in server.lines if line["logger"] == "petsage.access"]
    assert sorted(paths) == sorted(load.outcome.answered), "an access line for each answer"
    assert has_stopped(server)
    return load


@pytest.mark.parametrize(
    ("stops", "drain_s"),
    [(3, 0.3), (3, 0), pytest.param(50, 0.3, marks=pytest.mark.stress)],
)
async def test_a_stop_under_load_fails_no_request(project, start_server, stops, drain_s):
    write_feature(project, "hello", HELLO)
    for _ in range(stops):
        load = await stop_under_load(start_server, drain_s)

        assert load.outcome.failed == []
        assert load.outcome.refused > 0
        assert load.outcome.closed_on_say > 0


STARTS = {
    "module": [sys.executable, "-m", "petsage", "serve", "--port", "0"],
    "run.py": [sys.executable, f"{ROOT}/run.py"],
    "command": [sys.executable, f"{sys.prefix}/bin/petsage", "serve", "--port", "0"],
    "what is not done then": [sys.executable, "-m", "petsage", "build", "serve"],
}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_amid_imports_ends_it_without_a_word(project, start, number):
    # A stand-in for a slow disk: the first module that the package imports waits for us.
    (project / "aiohttp.py").write_text(
        "print('importing', flush=True)\nimport time\ntime.sleep(99)"
    )
    process = subprocess.Popen(
        STARTS[start],
        cwd=project,
        env={**clean_environment(), "PYTHONPATH": f"{project}:{ROOT}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"importing\n"

    process.send_signal(number)

    assert process.communicate(timeout=20) == (b"", b"")
    assert process.returncode == (
        130 if number == signal.SIGINT else 143 if "build" in STARTS[start] else 0
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -15)])
def test_a_signal_ends_other_commands_as_any_other_program(project, number, code):
    begun = project / "begun"
    os.mkfifo(begun)
    source = f"open({str(begun)!r}, 'w').write('importing')\nimport time\ntime.sleep(1000)\n"
    write_feature(project, "stuck", source)
    process = subprocess.Popen(
        [sys.executable, "-m", "petsage", "check"],
        cwd=project,
        env=clean_environment(),
        stderr=subprocess.PIPE,
    )
    assert begun.read_text() == "importing"  # waits until the import opens it

    process.send_signal(number)

    process.communicate(timeout=20)
    assert process.returncode == code


@pytest.mark.parametrize("moments", [10, pytest.param(100, marks=pytest.mark.stress)])
def test_a_stop_at_any_moment_of_the_start_is_clean(project, moments):
    write_feature(project, "hello", HELLO)
    write_feature(project, "slow", "import time\ntime.sleep(0.3)\nfeature = 3\n")
    codes: list[int] = []
    for step in range(moments):
        process = subprocess.Popen(
            STARTS["module"],
            cwd=project,
            env=clean_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        time.sleep(1.5 * step / moments)  # moments are what it is about
        process.terminate()
        out, err = process.communicate(timeout=20)

        lines = [json.loads(line) for line in out.splitlines()]
        assert out == b"" or out.endswith(b"\n")
        assert not [line for line in lines if "exc_info" in line]
        assert not lines or lines[-1]["message"] == "PetSage has stopped"
        if process.returncode == -signal.SIGTERM:
            # The interpreter itself was not up, and no line of ours had run.
            assert (out, err) == (b"", b"")
        else:
            codes.append(process.returncode)
            assert err == b""
    assert len(codes) > moments / 2
    assert set(codes) == {0}


def test_while_features_are_loaded_what_is_not_there_yet_is_told_to_come_again(project):
    write_feature(project, "gate", gated(project))
    process = subprocess.Popen(
        STARTS["module"], cwd=project, env=clean_environment(), stdout=subprocess.PIPE
    )
    try:
        port = listening_port(process)
        with socket.create_connection(("127.0.0.1", port), timeout=20) as caller:
            status, headers, body = asked(caller)
            assert (status, headers["retry-after"]) == (503, "1")
            assert headers["content-type"] == "application/problem+json"
            assert json.loads(body)["detail"] == "PetSage is starting"
            assert asked(caller, READY)[0] == 503
            assert asked(caller, LIVE)[0] == 200

            (project / "open").touch()
            wait_for_message(process, "PetSage serves on")

            assert asked(caller)[0] == 404
            assert asked(caller, READY)[0] == 200
            assert asked(caller, b"GET /api/v1/gate HTTP/1.1\r\nHost: x\r\n\r\n")[0] == 200
    finally:
        process.terminate()
        process.communicate(timeout=20)


def test_readiness_ends_when_a_start_is_stopped(project):
    # Its lifespan takes a second to be cut; until then the server listens and says so.
    write_feature(project, "holds", HOLDS)
    process = subprocess.Popen(
        STARTS["module"], cwd=project, env=clean_environment(), stdout=subprocess.PIPE
    )
    port = listening_port(process)
    wait_for_message(process, "holding")

    process.terminate()

    wait_for_message(process, "PetSage stops before it has started")
    with socket.create_connection(("127.0.0.1", port), timeout=20) as caller:
        verbose = b"GET /readyz?verbose HTTP/1.1\r\nHost: localhost\r\n\r\n"
        status, headers, body = asked(caller, verbose)
        assert (status, headers["connection"]) == (503, "close")
        assert b"process" in body
        assert b"starting" not in body
    process.communicate(timeout=20)
    assert process.returncode == 0


def test_a_stop_while_features_are_loaded_does_not_drain(project):
    write_feature(project, "gate", gated(project))
    process = subprocess.Popen(
        STARTS["module"],
        cwd=project,
        env={**clean_environment(), "PETSAGE_SERVER__DRAIN_S": "1000"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    port = listening_port(process)
    with socket.create_connection(("127.0.0.1", port), timeout=20) as caller:
        assert asked(caller)[0] == 503

        process.terminate()

        assert caller.recv(1) == b""
        (project / "open").touch()
        out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, b"")
    assert json.loads(out.splitlines()[-1])["message"] == "PetSage has stopped"


def test_a_taken_port_is_found_before_any_feature_is_loaded(project, petsage):
    write_feature(project, "loud", 'print("loaded")\nfeature = 3\n')
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = petsage("serve", "--port", str(taken.getsockname()[1]))

    assert result.returncode == 1
    assert "loaded" not in result.stdout


HOLDS = """
    import asyncio, logging
    from petsage import Feature, Routes

    async def lifespan(app):
        logging.getLogger(__name__).info("holding")
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            await asyncio.sleep(0.5)
            raise
        yield

    feature = Feature(Routes(), lifespan=lifespan)
"""


def gated(project) -> str:
    """A feature whose import waits for the file `open` in the project."""
    return textwrap.dedent(f"""
        import pathlib, time
        while not pathlib.Path({str(project / "open")!r}).exists():
            time.sleep(0.01)
        from petsage import Feature, Routes
        routes = Routes()

        @routes.get("/gate")
        async def gate() -> dict[str, str]:
            return {{}}

        feature = Feature(routes)
    """)


def wait_for_message(process: subprocess.Popen[bytes], begin: str) -> str:
    assert process.stdout is not None
    for raw in process.stdout:
        message: str = json.loads(raw)["message"]
        if message.startswith(begin):
            return message
    raise AssertionError(f"it ended without the line {begin!r}")


def listening_port(process: subprocess.Popen[bytes]) -> int:
    message = wait_for_message(process, "PetSage listens on ")
    return int(message.partition(",")[0].rpartition(":")[2])


def test_a_sink_that_nobody_reads_neither_fails_a_stop_nor_hides_what_it_lost(
    project, start_server, tmp_path
):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    server = start_server(
        env={
            "PETSAGE_LOGS__SINKS__UNREAD__KIND": "file",
            "PETSAGE_LOGS__SINKS__UNREAD__PATH": str(path),
        }
    )
    for _ in range(200):  # more than a pipe holds
        server.get(f"/{'x' * 2000}")
    server.signal(signal.SIGTERM)
    code, err = server.end()
    os.close(reader)
    assert code == 0, err
    assert "sink unread: " in err
    assert "lines dropped before the stop" in err
