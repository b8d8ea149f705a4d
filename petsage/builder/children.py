"""Tools and servers as child processes; none outlives what is done with it, or the builder."""

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, cast

T = TypeVar("T")

KEPT_BYTES: Final = 64 * 1024
"""So much of the end of what a child prints is kept."""

_GUARD: Final = Path(__file__).absolute().with_name("guard.py")
# To end by itself, and to be gone when it is killed, a child has so long each.
_GRACE_S: Final = 1.0
_LOOK_S: Final = 0.005
_LONGEST_LINE_BYTES: Final = 1 << 20
# What would have a tool behave otherwise than it is told to. Of Python's own variables only those
# stay that say where its modules are, so that a virtual environment works as it does.
_LEFT_OUT: Final = re.compile(
    r"PETSAGE_.*|PYTEST_.*|MYPY.*|RUFF_.*|FORCE_COLOR|CLICOLOR_FORCE|PY_COLORS"
    r"|PYTHON(?!(PATH|HOME|PLATLIBDIR|PYCACHEPREFIX|NOUSERSITE|USERBASE)$).*",
    re.IGNORECASE | re.DOTALL,
)


def guarded(module: str, *arguments: str | Path) -> list[str]:
    """The command that runs a module, and ends it when this process ends, even when killed."""
    return [sys.executable, "-P", str(_GUARD), "-m", module, *map(str, arguments)]


def environment(scratch: Path, **further: str) -> dict[str, str]:
    """What tools are given of this process's environment.

    Args:
        scratch: where temporary files are to be.
        further: variables on top; those of PetSage, for one, are not handed on by themselves.
    """
    kept = {name: text for name, text in os.environ.items() if not _LEFT_OUT.fullmatch(name)}
    if "PYTHONPATH" in kept:  # the child may work in another folder
        parts = kept["PYTHONPATH"].split(os.pathsep)
        kept["PYTHONPATH"] = os.pathsep.join(str(Path(part).absolute()) for part in parts)
    # No bytecode comes beside the sources; text is UTF-8, and without colours.
    ours = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1", "NO_COLOR": "1", "COLUMNS": "100"}
    return {**kept, **ours, "TMPDIR": str(scratch.absolute()), **further}


@dataclass(frozen=True)
class Ended:
    """A child that has ended.

    Attributes:
        code: its exit code, negative for a signal; None where its time was up.
        output: the end of what it has printed.
        errors: the end of what it has printed to standard error.
    """

    code: int | None
    output: str
    errors: str

    @property
    def lines(self) -> tuple[str, ...]:
        """All that it has printed, without empty lines at both ends."""
        return tuple(f"{self.output.strip()}\n{self.errors.strip()}".strip().splitlines())

    @property
    def how(self) -> str:
        """How it has ended, in words."""
        if self.code is None:
            return "did not end in time"
        if self.code >= 0:
            return f"ended with exit code {self.code}"
        try:
            return f"was ended by {signal.Signals(-self.code).name}"
        except ValueError:
            return f"was ended by signal {-self.code}"


class Child(asyncio.SubprocessProtocol):
    """A child that runs; `running` makes it."""

    def __init__(self, kept_bytes: int, on_line: Callable[[bytes], None] | None) -> None:
        loop = asyncio.get_running_loop()
        self._kept_bytes = kept_bytes
        self._on_line = on_line
        self._printed = {1: bytearray(), 2: bytearray()}
        self._line = b""
        self._transport: asyncio.SubprocessTransport | None = None
        self._exited: asyncio.Future[None] = loop.create_future()
        self._closed: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It runs."""
        self._transport = cast("asyncio.SubprocessTransport", transport)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """It has printed something."""
        printed = self._printed[fd]
        printed += data
        if len(printed) > 2 * self._kept_bytes:
            del printed[: -self._kept_bytes - 1]  # one more, which shows that there was more
        if fd == 1 and self._on_line is not None:
            *lines, self._line = (self._line + data).split(b"\n")
            self._line = self._line[:_LONGEST_LINE_BYTES]
            for line in lines:
                self._on_line(line)

    def process_exited(self) -> None:
        """It has ended; what it started may still run, and print."""
        self._exited.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """It has ended, and nobody has its pipes any more."""
        self._closed.set_result(None)

    async def wait(self) -> None:
        """Returns when it has ended."""
        await asyncio.wait({self._exited})

    async def ends_within(self, seconds: float) -> bool:
        """Whether it has ended by then."""
        return bool((await asyncio.wait({self._exited}, timeout=seconds))[0])

    def terminate(self) -> None:
        """Tells it, and all that it has started, to end."""
        self._signal(signal.SIGTERM)

    async def end(self) -> None:
        """Ends it, and all that it has started; returns when they are gone."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if not self._exited.done():
                self._signal(number)
                await asyncio.wait({self._exited}, timeout=_GRACE_S)
        await self._end_what_is_left()
        await asyncio.wait({self._closed}, timeout=_GRACE_S)
        if self._transport is not None:
            self._transport.close()

    def result(self, *, in_time: bool = True) -> Ended:
        """What became of it; to be asked when it was ended."""
        code = self._transport.get_returncode() if self._transport is not None else None
        return Ended(code if in_time else None, self._text(1), self._text(2))

    def _text(self, descriptor: int) -> str:
        printed = self._printed[descriptor]
        text = printed[-self._kept_bytes :].decode("utf-8", "replace")
        return f"…{text}" if len(printed) > self._kept_bytes else text

    async def _end_what_is_left(self) -> None:
        """Ends what it has started and left; nobody else gets the group's number while it has any.

        Whoever writes into a folder is to have ended before that is removed, and nothing else
        tells when somebody else's child has.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + _GRACE_S
        while self._signal(signal.SIGKILL) and loop.time() < end:  # noqa: ASYNC110 - as told above
            await asyncio.sleep(_LOOK_S)

    def _signal(self, number: signal.Signals) -> bool:
        """Signals its group; whether there is anybody left in it."""
        if self._transport is None:
            return False
        try:
            os.killpg(self._transport.get_pid(), number)
        except (ProcessLookupError, PermissionError):  # macOS's, where all have ended
            return False
        return True


@contextlib.asynccontextmanager
async def running(
    command: Sequence[str],
    *,
    cwd: Path,
    environment: dict[str, str],
    on_line: Callable[[bytes], None] | None = None,
    kept_bytes: int = KEPT_BYTES,
) -> AsyncIterator[Child]:
    """A child that runs for as long as the context; at its end, it and its whole group are gone.

    Args:
        command: what `guarded` makes.
        cwd: its working directory.
        environment: all of it.
        on_line: is given each line of its standard output as it comes.
        kept_bytes: how much of the end of each of its outputs is kept.

    Raises:
        OSError: it cannot be started.
    """
    _, child = await asyncio.get_running_loop().subprocess_exec(
        lambda: Child(kept_bytes, on_line),
        *command,
        cwd=cwd,
        env=environment,
        start_new_session=True,  # a Ctrl-C is the builder's, which ends its children itself
    )
    try:
        yield child
    finally:
        await _to_its_end(child.end())


async def run(
    command: Sequence[str],
    *,
    cwd: Path,
    environment: dict[str, str],
    limit_s: float,
    kept_bytes: int = KEPT_BYTES,
) -> Ended:
    """What became of a command, which has so long; the other arguments are those of `running`.

    Raises:
        OSError: it cannot be started.
    """
    in_time = True
    async with running(command, cwd=cwd, environment=environment, kept_bytes=kept_bytes) as child:
        try:
            async with asyncio.timeout(limit_s):
                await child.wait()
        except TimeoutError:
            in_time = False
    return child.result(in_time=in_time)


async def side_by_side(*works: Coroutine[Any, Any, T]) -> list[T]:
    """What each of these returns; the first that raises ends the others, and that is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
    except BaseExceptionGroup as raised:
        first = raised.exceptions[0]
    else:
        return [task.result() for task in tasks]
    raise first


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Waits for `work`, also where whoever waits is cancelled; it is, when that is done."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
