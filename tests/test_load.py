"""Many at once: every request is answered, and every answer has left its lines."""

import asyncio
import collections
import signal

import pytest
from aiohttp import ClientSession, TCPConnector

from tests.conftest import HELLO, write_feature

PATIENCE_S = 240


@pytest.mark.parametrize(
    ("connections", "requests"),
    [(50, 20), pytest.param(1_000, 50, marks=pytest.mark.stress)],
)
async def test_every_request_of_many_connections_is_answered_and_logged(
    project, start_server, connections, requests
):
    write_feature(project, "hello", HELLO)
    server = start_server(env={"PETSAGE_LOGS__SINKS__STDOUT__QUEUE_RECORDS": "1000000"})
    ended = asyncio.create_task(asyncio.to_thread(server.end, PATIENCE_S))  # it reads the log
    statuses: collections.Counter[int] = collections.Counter()

    async def call(session: ClientSession, caller: int) -> None:
        for number in range(requests):
            async with session.get(f"{server.address}/api/v1/hello/{caller}-{number}") as answer:
                assert await answer.json() == {"hello": f"{caller}-{number}"}
                statuses[answer.status] += 1

    async with ClientSession(connector=TCPConnector(limit=0)) as session:
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*(call(session, caller) for caller in range(connections)))

    assert statuses == {200: connections * requests}
    server.signal(signal.SIGTERM)
    assert await ended == (0, "")
    paths = [line["path"] for line in server.lines if line["logger"] == "petsage.access"]
    assert len(paths) == len(set(paths)) == connections * requests
