"""The clauses of docs/protocol.md, each tried on raw sockets against a server of its own."""

import json
import re
import socket
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ServerProcess
from tests.protocol_cases import CASES, END, Case

ROOT = Path(__file__).parent.parent
PATIENCE_S = 20
PIECES = 3

FEATURE = '''
    """Says what came."""
    from aiohttp import web

    from petsage import Feature, Routes

    routes = Routes()


    @routes.get("/plain")
    async def plain() -> dict[str, str]:
        """One."""
        return {"a": "one"}


    @routes.get("/names/{name}")
    async def named(name: str) -> dict[str, str]:
        """It."""
        return {"name": name}


    @routes.get("/look")
    async def look(request: web.Request) -> dict[str, str]:
        """What it sees."""
        return {"url": str(request.url), "headers": str(list(request.headers.items()))}


    @routes.get("/stream")
    async def stream(request: web.Request) -> web.StreamResponse:
        """A stream."""
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"streamed")
        return response


    @routes.post("/read")
    async def read(request: web.Request) -> dict[str, int]:
        """How much."""
        return {"count": len(await request.read())}


    @routes.put("/put")
    async def put(request: web.Request) -> dict[str, int]:
        """How much."""
        return {"count": len(await request.read())}


    @routes.post("/unread")
    async def unread() -> dict[str, int]:
        """Nothing."""
        return {}


    feature = Feature(routes, mount="")
'''


@dataclass
class Answer:
    """One answer, as it came."""

    status: int
    head: bytes
    headers: dict[str, str]
    body: bytes


class Wire:
    """A connection, byte by byte."""

    def __init__(self, address: str) -> None:
        host, _, port = address.removeprefix("http://").partition(":")
        self._socket = socket.create_connection((host, int(port)), PATIENCE_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._read = self._socket.makefile("rb")

    def send(self, data: bytes, pieces: int = 1) -> None:
        """Sends it; the server may have closed before the last of it."""
        size = -(-len(data) // pieces)
        try:
            for begin in range(0, len(data), size):
                self._socket.sendall(data[begin : begin + size])
        except ConnectionError:
            return

    def answer(self, *, bodiless: bool = False) -> Answer:
        """The next answer."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            more = self._read.readline()
            assert more, f"closed instead of an answer, after {head!r}"
            head += more
        first, *lines = head.decode().removesuffix("\r\n\r\n").split("\r\n")
        headers = {name.lower(): value for name, value in (each.split(": ", 1) for each in lines)}
        assert len(headers) == len(lines), f"a header twice: {head!r}"
        assert first.startswith("HTTP/1.1 "), "the only version that the server speaks"
        status = int(first.split()[1])
        body = b""
        if not (bodiless or status in {100, 204}):
            body = self._body(headers)
        return Answer(status, head.lower(), headers, body)

    def _body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(self._read.readline(), 16):
                body += self._read.read(size + 2)[:-2]
            self._read.readline()
            return body
        if "content-length" not in headers:
            return self._read.read()
        return self._read.read(int(headers["content-length"]))

    def shut(self) -> None:
        """Says that nothing more will be sent."""
        self._socket.shutdown(socket.SHUT_WR)

    def is_closed(self) -> bool:
        """Whether the server closes, and sends nothing more; waits until it does."""
        return self._read.read() == b""

    def close(self) -> None:
        self._read.close()
        self._socket.close()


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, bytecode_apart: None, tokens_apart: None
) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("protocol") / "project"
    feature = folder / "features" / "seen"
    feature.mkdir(parents=True)
    (feature / "__init__.py").write_text(textwrap.dedent(FEATURE), encoding="utf-8")
    env = {"PETSAGE_LOGS__FLUSH_MS": "0", "PETSAGE_SERVER__DRAIN_S": "0"}
    server = ServerProcess(folder, (), env)
    yield server
    server.kill()


@pytest.fixture
def wire(server: ServerProcess) -> Iterator[Wire]:
    wire = Wire(server.address)
    yield wire
    wire.close()


ALL = [
    pytest.param(case, id=f"{clause}: {name}")
    for clause, cases in CASES.items()
    for name, case in cases.items()
]
IN_PIECES = [each for each in ALL if isinstance(each.values[0], Case) and each.values[0].in_pieces]


def check(wire: Wire, case: Case) -> list[Answer]:
    """The answers of a case, all of them as they have to be."""
    answers: list[Answer] = []
    if not case.statuses:
        assert wire.is_closed()
        return answers
    for number, status in enumerate(case.statuses):
        is_last = number == len(case.statuses) - 1
        answers.append(wire.answer(bodiless=case.bodiless and is_last))
        assert answers[-1].status == status, answers[-1]
        assert case.hides not in answers[-1].body
        if status != 100:
            assert answers[-1].headers["x-content-type-options"] == "nosniff"
            assert answers[-1].headers["server"] == "PetSage"
        if status >= 400 and answers[-1].body:
            problem = json.loads(answers[-1].body)
            assert answers[-1].headers["content-type"] == "application/problem+json"
            assert answers[-1].headers["cache-control"] == "no-store"
            assert problem["status"] == status
            assert problem["request_id"] == answers[-1].headers["x-request-id"]
    assert case.says in answers[-1].body
    assert case.head in answers[-1].head
    assert not case.lacks or case.lacks not in answers[-1].head
    if case.goes_on:
        wire.send(b"GET /names/next HTTP/1.1\r\nHost: x\r\n\r\n")
        assert wire.answer().body == b'{"name":"next"}'
    elif case.goes_on is not None:
        assert wire.is_closed()
        if b"HTTP/1.0\r\n" not in case.sent:
            assert answers[-1].headers["connection"] == "close"
    return answers


def lines_of(server: ServerProcess, answer: Answer) -> list[dict[str, Any]]:
    """What was logged until the line of this answer."""
    known = len(server.lines)
    wanted = answer.headers["x-request-id"]
    server.wait_for(lambda line: line["request_id"] == wanted)
    return server.lines[known:]


@pytest.mark.parametrize("case", ALL)
def test_each_clause_is_kept_to(server, wire, case):
    wire.send(case.sent)
    if case.shuts:
        wire.shut()

    answers = check(wire, case)
    if not answers:
        return

    lines = lines_of(server, [each for each in answers if each.status != 100][-1])
    assert {line["logger"] for line in lines} == {"petsage.access"}, "no word but the access line"
    assert max(map(len, map(json.dumps, lines))) < 1000
    if case.statuses[-1] >= 400 and case.goes_on is False:
        told = [line for line in lines if line["status"] == case.statuses[-1]]
        assert len(told) == 1
        assert "SECRET" not in json.dumps(told)


@pytest.mark.parametrize("case", IN_PIECES)
def test_it_is_the_same_in_pieces(wire, case):
    wire.send(case.sent, PIECES)
    if case.shuts:
        wire.shut()

    check(wire, case)


@pytest.mark.parametrize("path", [b"/plain", b"/look", b"/names/a", b"/nowhere", b"/livez", b"/"])
def test_head_has_the_fields_of_get(wire, path):
    heads = []
    for method in (b"GET", b"HEAD"):
        wire.send(method + b" " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = wire.answer(bodiless=method == b"HEAD")
        heads.append(answer.headers)
        assert answer.headers["date"]
    own = {"date", "x-request-id", "traceparent"}
    get, head = ({name: each[name] for name in each if name not in own} for each in heads)
    assert get == head


PLAIN = b"GET /plain HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /plain HTTP/1.1\r\nHost: SECRET@a\r\n\r\n", 400),
        (b"GET /plain HTTP/1.1\r\nHost:\r\n\r\n", 400),
        (b"GET /plain HTTP/1.1\r\n\r\n", 400),
        (b"GET /plain#SECRET HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /plain RTSP/1.1\r\nHost: x\r\n\r\n", 505),
        (b"GET /plain HTTP/1.0\r\nHost: a b\r\n\r\n", 400),
        (b"GET /plain HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n\r\n", 501),
        (b"GET /plain HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551615\r\n\r\n", 413),
        (b"GET /plain HTTP/1.1\r\nHost: x\r\n" + b"X: " + b"a" * 5000 + END, 200),
        (b"GET /plain HTTP/1.1\r\nHost: x\r\n" + (b"X: " + b"a" * 5000 + END) * 8 + END, 431),
    ],
    ids=[
        "user",
        "empty",
        "none",
        "fragment",
        "RTSP",
        "1.0",
        "coding",
        "length",
        "long",
        "too long",
    ],
)
def test_what_is_answered_directly_is_held_to_the_same(wire, sent, status):
    for _ in range(2):  # from the second on, a connection waits for requests
        wire.send(PLAIN)
        assert wire.answer().status == 200
    wire.send(sent if sent.endswith(END * 2) else sent + END)

    assert wire.answer().status == status
    if status == 200:
        wire.send(PLAIN)
        assert wire.answer().status == 200
    else:
        assert wire.is_closed()


def test_the_list_and_the_tests_are_one():
    text = (ROOT / "docs/protocol.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| [^|]+ \| [^|]+ \| `([a-z0-9.-]+)` \|$", text, re.MULTILINE)

    assert len(listed) == len(set(listed))
    assert set(listed) == set(CASES), "each clause has its cases, and no case is without a clause"
    assert all(CASES.values())
