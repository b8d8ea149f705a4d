"""What does not parse, on raw sockets: answered once as a problem, closed, and logged in one line.

The secret in each request must come back neither to the client nor in the log.
"""

import asyncio
import json
from http import HTTPStatus
from typing import Any

import pytest

from tests.conftest import errors_of

FEATURE = '''
    """Takes bodies."""
    from aiohttp import web

    from petsage import Feature, Routes

    routes = Routes()


    @routes.post("/read")
    async def read(request: web.Request) -> web.StreamResponse:
        """Reads it."""
        return web.json_response(len(await request.read()))


    @routes.post("/unread")
    async def unread() -> dict[str, str]:
        """Does not."""
        return {}


    feature = Feature(routes, mount="")
'''

GET = b"GET / HTTP/1.1\r\nHost: x\r\n"
CHUNKED = b" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"

UNPARSED = {
    "no HTTP at all": b"SECRET\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00SECRET",
    "unknown method": b"SECRET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "target without a slash": b"GET SECRET HTTP/1.1\r\nHost: x\r\n\r\n",
    "bytes in the target": b"GET /\xffSECRET HTTP/1.1\r\nHost: x\r\n\r\n",
    "port that is none": b"GET http://x:SECRET/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "version": b"GET / HTTP/SECRET\r\nHost: x\r\n\r\n",
    "header without a colon": GET + b"SECRET\r\n\r\n",
    "space in a header's name": GET + b"SEC RET: x\r\n\r\n",
    "NUL in a header": GET + b"X: \0SECRET\r\n\r\n",
    "folded header": GET + b"X: a\r\n SECRET\r\n\r\n",
    "two lengths": GET + b"Content-Length: 1\r\nContent-Length: 2\r\nX: SECRET\r\n\r\n",
    "length that is no number": GET + b"Content-Length: SECRET\r\n\r\n",
    "length and chunks": GET + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\nSECRET",
    "oversized line": b"GET /" + b"SECRET" * 3000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "oversized header": GET + b"X: " + b"SECRET" * 3000 + b"\r\n\r\n",
    "oversized header name": GET + b"X" + b"SECRET" * 3000 + b": x\r\n\r\n",
    "too many headers": GET + b"X: SECRET\r\n" * 300 + b"\r\n",
    "bad chunk size": b"POST /read" + CHUNKED + b"SECRET\r\n",
    "bad chunk size, not read": b"POST /unread" + CHUNKED + b"SECRET\r\n",
    "bad chunk end": b"POST /read" + CHUNKED + b"1\r\naSECRET\r\n",
}
# Which of HTTP's statuses it is; what is not here is a 400.
STATUSES = {
    "unknown method": 501,
    "oversized line": 414,
    "oversized header": 431,
    "oversized header name": 431,
    "too many headers": 431,
}


@pytest.fixture
async def client(feature_client, feature_folder):
    return await feature_client(feature_folder("bodies", FEATURE))


async def send(client, *parts: bytes) -> bytes:
    """What comes back until the server closes; each part is sent when the server has the last."""
    reader, writer = await asyncio.open_connection(client.host, client.port)
    answer = b""
    async with asyncio.timeout(10):
        for number, part in enumerate(parts):
            if number:
                answer += await reader.readuntil(b"\r\n\r\n")
            writer.write(part)
        answer += await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


def parsed(answer: bytes) -> tuple[int, dict[str, str], dict[str, Any]]:
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    assert int(headers["content-length"]) == len(body), "one answer, and nothing behind it"
    return int(status.split()[1]), headers, json.loads(body)


@pytest.mark.parametrize("what", UNPARSED)
async def test_what_does_not_parse_is_answered_once_and_closed(client, log_lines, what):
    before, right = len(log_lines()), STATUSES.get(what, 400)

    status, headers, body = parsed(await send(client, UNPARSED[what]))

    assert status == body["status"] == right
    assert headers["content-type"] == "application/problem+json"
    assert headers["server"] == "petsage"
    assert headers["x-request-id"] == body["request_id"]
    assert body["title"] == HTTPStatus(right).phrase
    assert "SECRET" not in json.dumps([headers, body])
    lines = log_lines()[before:]
    assert [(line["logger"], line["status"], line["request_id"]) for line in lines] == [
        ("petsage.access", right, body["request_id"])
    ]
    assert "SECRET" not in json.dumps(lines)


async def test_a_good_request_is_answered_before_what_does_not_parse(client):
    answer = await send(client, GET + b"\r\nSECRET\r\n\r\n")

    good, _, bad = answer.partition(b'"}')
    assert good.startswith(b"HTTP/1.1 200 OK\r\n")
    assert parsed(bad)[0] == 400


@pytest.mark.parametrize("bad", [b"SECRET\r\n", b"1\r\naSECRET\r\n"])
async def test_a_body_that_breaks_while_it_is_read_is_answered_once(client, log_lines, bad):
    before = len(log_lines())
    head = b"POST /read HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"

    answer = await send(client, head + b"Transfer-Encoding: chunked\r\n\r\n", bad)

    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
    rest = answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert rest.count(b"HTTP/1.") == 1
    assert rest.split()[1] == b"400"
    assert b"SECRET" not in rest
    lines = log_lines()[before:]
    assert not errors_of(lines)
    assert "SECRET" not in json.dumps(lines)


async def test_a_body_that_nobody_reads_leaves_no_traceback(client, log_lines):
    head = b"POST /unread HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Encoding: gzip\r\n"

    answer = await send(client, head + b"Content-Length: 7\r\n\r\nno gzip")

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert not [line for line in log_lines() if "exc_info" in line]


async def test_a_connection_that_ends_amid_its_headers_is_nothing_to_log(client, log_lines):
    before = len(log_lines())
    _, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(GET + b"X: SEC")
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert (await client.get("/")).status == 200

    assert [line["path"] for line in log_lines()[before:]] == ["/"]


async def test_requests_one_behind_another_are_answered_in_order(client):
    answer = await send(
        client, GET + b"\r\n" + GET + b"X-Request-ID: second\r\nConnection: close\r\n\r\n"
    )

    assert answer.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert b"X-Request-ID: second" in answer.partition(b'"}')[2]


async def test_a_request_that_has_arrived_and_was_not_read_yet_keeps_a_connection_open(
    client, monkeypatch
):
    monkeypatch.setattr("petsage.connection._NEXT_REQUEST_S", 0)
    runner = client.server.runner
    reader, writer = await asyncio.open_connection(client.host, client.port)
    async with asyncio.timeout(10):
        for _ in range(2):
            # No `await` between them: the request is in the kernel, and nobody has read it.
            writer.write(GET + b"\r\n")
            assert runner.close_idle()

            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"Welcome" in await reader.readuntil(b"}")
            await asyncio.sleep(0)  # the connection waits for the next
        runner.close_idle()
        assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
