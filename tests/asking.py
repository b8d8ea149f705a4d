"""Clients of what changes: they hold each answer to one generation, and forgive nothing."""

import asyncio
import collections
import contextlib
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from tests.changing import Changes

PATIENCE_S = 900.0
REST_S = 0.002  # between two questions that have no pace: without it they take all of a core


@dataclass
class Answer:
    """One answer, read to its end."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


@dataclass
class Asked:
    """What became of the requests.

    Attributes:
        counts: the answers, by what was asked for.
        failed: each that was not as expected: another status, a connection's error.
        mixed: each that carried more than one word, or one that it must not carry.
        late_s: how long each took, from when it was due.
    """

    counts: collections.Counter[str] = field(default_factory=collections.Counter)
    failed: list[str] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)
    late_s: list[float] = field(default_factory=list)


class Connection:
    """One connection, kept for all its requests."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def ask(self, method: str, path: str, body: bytes = b"") -> Answer:
        """Sends one request, and reads its answer to the end.

        Raises:
            OSError, EOFError: the connection broke.
        """
        more = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
        head = f"{method} /api/v1/{path} HTTP/1.1\r\nHost: x\r\n{more}\r\n"
        self.writer.write(head.encode() + body)
        first, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in lines)
        }
        answer = Answer(int(first.split()[1]), headers, b"")
        if method == "HEAD":
            return answer
        if headers.get("transfer-encoding") == "chunked":
            while size := int(await self._reader.readuntil(b"\r\n"), 16):
                answer.body += (await self._reader.readexactly(size + 2))[:-2]
            await self._reader.readexactly(2)
        else:
            answer.body = await self._reader.readexactly(int(headers.get("content-length", "0")))
        return answer


Judge = Callable[[Answer], list[list[str]]]


def _said(answer: Answer) -> list[list[str]]:
    said = answer.json()
    return [[said["word"], *said["own"]], said["base"]]


QUICK: dict[str, tuple[str, str, bytes, Judge]] = {
    "get": ("GET", "above", b"", _said),
    "argument": ("GET", "above/some", b"", _said),
    "post": ("POST", "above", b'{"text": "some"}', _said),
    "head": ("HEAD", "above", b"", lambda answer: [[answer.headers["x-word"]]]),
    "needed": ("GET", "base", b"", lambda answer: [answer.json()["words"]]),
}
"""What is answered at once: method, path, body, and the words that have to be the same."""

LONG: dict[str, tuple[str, str, bytes, Judge]] = {
    "slow": ("GET", "slow", b"", _said),
    "stream": ("GET", "stream", b"", lambda answer: [answer.body.decode().split()]),
}
"""What takes so long that changes come between its beginning and its end."""


class Asking:
    """Constant load on connections that are kept.

    Args:
        address: the server's, `http://host:port`.
        changes: who changes what is asked for; None where nobody does.
        quick: how many connections ask for what is answered at once.
        long: how many ask for what takes a while, of each kind.
        per_s: how many quick requests are due in a second; None for as many as can be.
    """

    def __init__(
        self,
        address: str,
        changes: Changes | None = None,
        *,
        quick: int = 4,
        long: int = 2,
        per_s: float | None = None,
    ) -> None:
        self.asked = Asked()
        self._host, _, port = address.removeprefix("http://").partition(":")
        self._port = int(port)
        self._changes = changes
        self._quick = quick
        self._long = long
        self._per_s = per_s
        self._token = ""
        self._is_over = False

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Asked]:
        """Asks until the end of the block."""
        asking = [self._ask_all(QUICK, number) for number in range(self._quick)]
        asking += [self._ask_all({kind: LONG[kind]}) for kind in LONG for _ in range(self._long)]
        if self._changes is not None:
            asking += [self._ask_visitors(self._changes), self._ask_others()]
        tasks = [asyncio.create_task(each) for each in asking]
        try:
            yield self.asked
        finally:
            self._is_over = True
            await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE_S)

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        reader, writer = await asyncio.open_connection(self._host, self._port)
        try:
            yield Connection(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _ask_all(
        self, kinds: dict[str, tuple[str, str, bytes, Judge]], number: int | None = None
    ) -> None:
        """Asks for one kind after another; a word never goes back to a former one."""
        is_paced = self._per_s is not None and number is not None
        pause_s = self._quick / self._per_s if is_paced and self._per_s else 0.0
        due = time.perf_counter() + pause_s * (number or 0) / self._quick
        latest: dict[str, int] = {}
        async with self._connection() as connection:
            for kind in itertools.cycle(kinds):
                if self._is_over:
                    return
                if is_paced:
                    due += pause_s
                    await asyncio.sleep(due - time.perf_counter())
                began = due if is_paced else time.perf_counter()
                method, path, body, judge = kinds[kind]
                answer = await self._try(connection, kind, method, path, body)
                if answer is None:
                    return
                if number is not None:
                    self.asked.late_s.append(time.perf_counter() - began)
                if answer.status != 200:
                    self.asked.failed.append(f"{kind}: {answer.status} {answer.body!r}")
                else:
                    self._judge(kind, judge(answer), latest)

    async def _try(
        self, connection: Connection, kind: str, method: str, path: str, body: bytes = b""
    ) -> Answer | None:
        """An answer, counted; None, and a failure, where there is none."""
        try:
            answer = await connection.ask(method, path, body)
        except (OSError, EOFError) as error:
            self.asked.failed.append(f"{kind}: {error!r}")
            return None
        if answer.headers.get("connection") == "close":
            self.asked.failed.append(f"{kind}: the connection is closed")
            return None
        self.asked.counts[kind] += 1
        return answer

    def _judge(self, kind: str, groups: list[list[str]], latest: dict[str, int]) -> None:
        allowed = self._changes.words if self._changes is not None else None
        for place, words in enumerate(groups):
            if len(set(words)) != 1 or (allowed is not None and words[0] not in allowed):
                self.asked.mixed.append(f"{kind}: {groups}")
                return
            # `needed` speaks of `base`, as the second group of the others does.
            whose = "base" if place or kind == "needed" else "own"
            number = int(words[0].removeprefix("w"))
            if number < latest.get(whose, 0):
                self.asked.mixed.append(f"{kind}: {words[0]} after w{latest[whose]}")
            latest[whose] = max(number, latest.get(whose, 0))

    async def _ask_visitors(self, changes: Changes) -> None:
        """Asks for what comes and goes: a 404 is right only where it is not there."""
        async with self._connection() as connection:
            for name in itertools.cycle(("guest", "lodger")):
                if self._is_over:
                    return
                await asyncio.sleep(REST_S)
                moves, served = changes.moves, changes.visiting[name]
                answer = await self._try(connection, "visitor", "GET", name)
                if answer is None:
                    return
                if moves != changes.moves or served is None:
                    right = {200, 404}
                else:
                    right = {200} if served else {404}
                if answer.status not in right:
                    self.asked.failed.append(f"{name}: {answer.status}, and served is {served}")
                elif answer.status == 200 and answer.json()["word"] not in changes.words:
                    self.asked.mixed.append(f"{name}: {answer.body!r}")

    async def _ask_others(self) -> None:
        """Asks for what is never changed, and for what is never there."""
        async with self._connection() as connection:
            while not self._is_over:
                await asyncio.sleep(REST_S)
                still = await self._try(connection, "still", "GET", "still/some")
                nobody = await self._try(connection, "nobody", "GET", "nobody/at/all")
                if still is None or nobody is None:
                    return
                if still.status != 200 or nobody.status != 404:
                    self.asked.failed.append(f"still {still.status}, nobody {nobody.status}")
                    continue
                token = still.json()["token"]
                self._token = self._token or token
                if token != self._token:
                    self.asked.mixed.append(f"still was started again: {token}")
