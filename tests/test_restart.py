"""Sockets that a parent hands over: what is taken, and restarts without a lost connection."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from petsage.sockets import is_loopback, refuse_new_connections
from tests.clients import Load
from tests.conftest import HELLO, START_S, clean_environment, write_feature

# A process's own id is what LISTEN_PID has to say, so the variables are set by what becomes it.
HAND_OVER = """
import fcntl, os, sys
descriptors = [int(each) for each in sys.argv[1].split(",")]
copies = [fcntl.fcntl(each, fcntl.F_DUPFD, 100) for each in descriptors]
for number, copy in enumerate(copies):
    os.dup2(copy, 3 + number, inheritable=True)
os.environ.setdefault("LISTEN_PID", str(os.getpid()))
os.environ.setdefault("LISTEN_FDS", str(len(copies)))
os.execv(sys.executable, [sys.executable, "-m", "petsage", "serve", *sys.argv[2:]])
"""


class Child:
    """`petsage serve` on sockets of this process."""

    def __init__(self, folder: Path, sockets: list[socket.socket], **env: str) -> None:
        descriptors = [each.fileno() for each in sockets]
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-c", HAND_OVER, ",".join(map(str, descriptors))),
                *("--port", "1"),  # nobody may listen there: that it is not tried shows
            ],
            cwd=folder,
            env={**clean_environment(), **env},
            pass_fds=descriptors,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def wait_for(self, begin: str) -> str:
        assert self.process.stdout is not None
        for raw in self.process.stdout:
            message: str = json.loads(raw)["message"]
            if message.startswith(begin):
                return message
        raise AssertionError(self.process.communicate()[1].decode())

    def stop(self) -> list[dict[str, Any]]:
        """Ends it; the lines that were not read before."""
        self.process.send_signal(signal.SIGTERM)
        out, err = self.process.communicate(timeout=START_S)
        assert (self.process.returncode, err) == (0, b"")
        return [json.loads(line) for line in out.splitlines()]

    def refusal(self) -> str:
        """What it says when it does not start."""
        _, err = self.process.communicate(timeout=START_S)
        assert self.process.returncode == 1
        return err.decode()

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


@pytest.fixture
def serve_on(project: Path) -> Iterator[Any]:
    """Starts a server on sockets; each is ended with the test."""
    children: list[Child] = []

    def start(*sockets: socket.socket, **env: str) -> Child:
        children.append(Child(project, list(sockets), **env))
        return children[-1]

    yield start
    for child in children:
        child.kill()


def ask(connection: socket.socket) -> bytes:
    with connection:
        connection.settimeout(START_S)
        request = b"GET /api/v1/hello/Ada HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        connection.sendall(request)
        return connection.makefile("rb").read()


def test_a_socket_that_is_handed_over_is_served_and_outlives_the_stop(project, serve_on):
    write_feature(project, "hello", HELLO)
    with socket.create_server(("127.0.0.1", 0)) as parent:
        address = parent.getsockname()
        child = serve_on(parent)

        said = child.wait_for("PetSage serves on ")

        assert said == f"PetSage serves on http://127.0.0.1:{address[1]}"
        assert ask(socket.create_connection(address)).endswith(b'{"hello":"Ada"}')
        child.stop()
        waiting = socket.create_connection(address)  # nobody serves, and it is not refused
        serve_on(parent)
        assert ask(waiting).endswith(b'{"hello":"Ada"}')


def test_a_unix_socket_and_a_tcp_socket_are_served_together(project, serve_on, tmp_path):
    write_feature(project, "hello", HELLO)
    path = str(tmp_path / "s")
    with (
        socket.socket(socket.AF_UNIX) as local,
        socket.create_server(("127.0.0.1", 0)) as tcp,
    ):
        local.bind(path)
        local.listen()
        child = serve_on(local, tcp)

        said = child.wait_for("PetSage serves on ")

        port = tcp.getsockname()[1]
        assert said == f"PetSage serves on unix:{path}, http://127.0.0.1:{port}"
        caller = socket.socket(socket.AF_UNIX)
        caller.connect(path)
        for connection in (caller, socket.create_connection(("127.0.0.1", port))):
            assert ask(connection).endswith(b'{"hello":"Ada"}')
        child.stop()


def test_what_a_feature_starts_gets_neither_the_sockets_nor_the_variables(project, serve_on):
    write_feature(
        project,
        "starts",
        """
        import subprocess, sys
        from petsage import Feature, Routes
        code = "import os; print([n for n in os.environ if n.startswith('LISTEN_')], "
        code += "os.path.exists('/proc/self/fd/3') and os.readlink('/proc/self/fd/3'))"

        async def lifespan(app):
            out = subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, close_fds=False
            )
            print("child:", out.stdout, out.stderr)
            yield

        feature = Feature(Routes(), lifespan=lifespan)
        """,
    )
    with socket.create_server(("127.0.0.1", 0)) as parent:
        child = serve_on(parent, LISTEN_FDNAMES="http")

        said = child.wait_for("child:")

    assert said.startswith("child: [] ")
    assert "socket:" not in said


def test_sockets_that_are_meant_for_another_process_are_left_alone(project, serve_on):
    with socket.create_server(("127.0.0.1", 0)) as parent:
        child = serve_on(parent, LISTEN_PID=str(os.getpid()), PETSAGE_SERVER__HOST="192.0.2.1")

        # It binds what the settings say, which cannot be had.
        assert "cannot listen on [server].host '192.0.2.1'" in child.refusal()


@pytest.mark.parametrize("name", ["LISTEN_FDS", "LISTEN_PID"])
@pytest.mark.parametrize("text", ["", "three", "-1", "0", "٣", "99999999999"])
def test_a_variable_that_is_no_number_is_one_clear_line(project, serve_on, name, text):
    with socket.create_server(("127.0.0.1", 0)) as parent:
        child = serve_on(parent, **{name: text})

        line = child.refusal()

    assert line == (
        f"petsage: the environment variable {name} is {text!r}, and no number above 0; fix: let "
        "the parent set LISTEN_FDS and LISTEN_PID as sd_listen_fds(3) says, or neither\n"
    )


def datagrams() -> list[socket.socket]:
    return [socket.socket(socket.AF_INET, socket.SOCK_DGRAM)]


def bound_only() -> list[socket.socket]:
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    return [bound]


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (datagrams, "is of the kind AF_INET, SOCK_DGRAM"),
        (bound_only, "does not listen"),
        (socket.socketpair, "does not listen"),
    ],
)
def test_what_is_no_listening_socket_is_one_clear_line(project, serve_on, make, problem):
    wrong = make()

    line = serve_on(wrong[0]).refusal()

    for each in wrong:
        each.close()
    assert line == (
        f"petsage: LISTEN_FDS hands over descriptor 3, which {problem}; fix: hand over stream "
        "sockets (TCP or AF_UNIX) that listen, or unset LISTEN_FDS\n"
    )


def test_what_is_no_socket_at_all_is_one_clear_line(project, serve_on, tmp_path):
    with (tmp_path / "file").open("w") as file:
        line = serve_on(file).refusal()

    assert "LISTEN_FDS hands over descriptor 3, which is no socket" in line


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_when_new_connections_are_refused_those_that_have_begun_are_still_there(host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listening:
        address = listening.getsockname()[:2]
        with socket.create_connection(address) as begun:
            refuse_new_connections([listening.fileno()])

            with pytest.raises(TimeoutError):
                socket.create_connection(address, timeout=0.1)
            accepted, _ = listening.accept()
            with accepted:
                begun.sendall(b"hello")
                assert accepted.recv(5) == b"hello"


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        ([("127.0.0.1", 80)], True),
        ([("127.9.9.9", 80), ("::1", 80, 0, 0), "/run/petsage"], True),
        (["\0abstract"], True),
        ([("127.0.0.1", 80), ("0.0.0.0", 80)], False),
        ([("::", 80, 0, 0)], False),
        ([("fe80::1%eth0", 80, 0, 2)], False),
        ([], False),
    ],
)
def test_only_addresses_of_this_machine_are_loopback(addresses, expected):
    assert is_loopback(addresses) is expected


@pytest.mark.parametrize("restarts", [4, pytest.param(100, marks=pytest.mark.stress)])
async def test_restarts_on_one_socket_under_load_fail_no_request(project, serve_on, restarts):
    write_feature(project, "hello", HELLO)
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as parent:
        port = parent.getsockname()[1]
        env = {
            "PETSAGE_SERVER__DRAIN_S": "0.2",
            "PETSAGE_LOGS__SINKS__STDOUT__QUEUE_RECORDS": "1000000",
        }
        served = []
        child, reading = await started(serve_on, parent, env)
        async with Load("127.0.0.1", port).running() as load:
            for _ in range(restarts):
                with load.eased():
                    successor, reading_next = await started(serve_on, parent, env)
                await load.until(50)
                child.process.send_signal(signal.SIGTERM)
                served.append(await ended(child, reading))
                child, reading = successor, reading_next
            await load.until(50)
        child.process.send_signal(signal.SIGTERM)
        served.append(await ended(child, reading))

    assert load.outcome.failed == []
    assert load.outcome.refused == 0
    assert load.outcome.closed_on_say > 0
    assert all(served), "each of them has served"
    paths = [path for each in served for path in each]
    assert sorted(paths) == sorted(load.outcome.answered), "an access line for each answer"


Reading = asyncio.Task[list[dict[str, Any]]]


async def started(
    serve_on: Any, parent: socket.socket, env: dict[str, str]
) -> tuple[Child, Reading]:
    """A server that is ready, and the task that reads its log."""
    child: Child = serve_on(parent, **env)
    ready = asyncio.Event()
    loop = asyncio.get_running_loop()

    def read() -> list[dict[str, Any]]:
        lines = []
        assert child.process.stdout is not None
        for raw in child.process.stdout:
            lines.append(json.loads(raw))
            if lines[-1]["message"].startswith("PetSage serves on "):
                loop.call_soon_threadsafe(ready.set)
        return lines

    reading = asyncio.create_task(asyncio.to_thread(read))
    await asyncio.wait_for(ready.wait(), START_S)
    return child, reading


async def ended(child: Child, reading: Reading) -> list[str]:
    """The paths that it has answered; it has ended as it should."""
    lines = await asyncio.wait_for(reading, START_S)
    code = await asyncio.to_thread(child.process.wait, START_S)
    _, err = child.process.communicate()
    assert (code, err) == (0, b"")
    assert lines[-1]["message"] == "PetSage has stopped"
    return [line["path"] for line in lines if line["logger"] == "petsage.access"]
