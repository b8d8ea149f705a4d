"""Clients of a load test: they count what becomes of each request, and forgive nothing."""

import asyncio
import collections
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field

PATIENCE_S = 600  # a hundred restarts take minutes


@dataclass
class Outcome:
    """What became of the requests.

    Attributes:
        answered: how often each path was answered 200.
        failed: each request that was neither answered nor refused before it began.
        closed_on_say: how often an answer said that its connection closes.
        refused: connections that were refused: nobody listened any more.
    """

    answered: collections.Counter[str] = field(default_factory=collections.Counter)
    failed: list[str] = field(default_factory=list)
    closed_on_say: int = 0
    refused: int = 0


Connect = Callable[[], "asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]]"]


class Load:
    """Constant load: half the callers keep their connections, half make one for each request.

    Args:
        host: where to.
        port: where to.
        callers: how many ask at the same time.
    """

    def __init__(self, host: str, port: int, callers: int = 16) -> None:
        self.outcome = Outcome()
        self._address = (host, port)
        self._callers = callers
        self._number = 0
        self._is_over = False
        self._pause_s = 0.0
        self._waiting: list[tuple[int, asyncio.Event]] = []

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Load"]:
        """Asks until the end of the block, or until connections are refused."""
        callers = [
            asyncio.create_task(self._call(keeps=bool(number % 2)))
            for number in range(self._callers)
        ]
        try:
            async with asyncio.timeout(PATIENCE_S):
                yield self
        finally:
            self._is_over = True
            await asyncio.wait_for(asyncio.gather(*callers), PATIENCE_S)

    @contextlib.contextmanager
    def eased(self) -> Iterator[None]:
        """Has each caller pause between its requests, for the block; what starts gets a core."""
        self._pause_s = 0.03
        yield
        self._pause_s = 0.0

    async def until(self, answers: int) -> None:
        """Waits for so many further answers."""
        reached = asyncio.Event()
        self._waiting.append((self.outcome.answered.total() + answers, reached))
        await reached.wait()

    async def _call(self, *, keeps: bool) -> None:
        while not self._is_over:
            try:
                reader, writer = await asyncio.open_connection(*self._address)
            except ConnectionRefusedError:
                self.outcome.refused += 1
                return
            except OSError as error:
                self.outcome.failed.append(f"connect: {error!r}")
                return
            try:
                while await self._ask(reader, writer, keeps=keeps) and not self._is_over:
                    if self._pause_s:
                        await asyncio.sleep(self._pause_s)
                if self._pause_s and not keeps:
                    await asyncio.sleep(self._pause_s)
            finally:
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, keeps: bool
    ) -> bool:
        """Sends one request; whether the connection may be used again."""
        self._number += 1
        path = f"/api/v1/hello/{self._number}"
        close = "" if keeps else "Connection: close\r\n"
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n{close}\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
            await reader.readexactly(length)
            says_close = "\r\nconnection: close\r\n" in head
            if says_close and await reader.read():
                self.outcome.failed.append(f"{path}: more than one answer")
        except (OSError, EOFError) as error:
            self.outcome.failed.append(f"{path}: {error!r}")
            return False
        if not head.startswith("http/1.1 200 "):
            self.outcome.failed.append(f"{path}: {head.splitlines()[0]}")
            return False
        self.outcome.answered[path] += 1
        self.outcome.closed_on_say += says_close and keeps
        total = self.outcome.answered.total()
        for wanted, reached in self._waiting:
            if total >= wanted:
                reached.set()
        return not says_close
