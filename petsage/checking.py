"""Features checked in a child process, so that nothing that they do touches the server.

A little over 300 lines: what the child may do wrong, and what is made of it, is read together.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from petsage import check_process
from petsage.check_messages import (
    HEADER,
    Checked,
    Failure,
    Job,
    decode_answer,
    encode_job,
    encode_order,
    frame,
)
from petsage.errors import PetSageError
from petsage.snapshot import Snapshot
from petsage.worker import in_thread

__all__ = ["CheckFailed", "CheckProcess", "Checked"]

_log = logging.getLogger(__name__)

# The child keeps the limits; where it says nothing for so much longer, it is ended.
_SILENCE_S: Final = 40.0
_END_S: Final = 1.0
# A child that ends so often in a row, and not while it is at a feature, does so for another reason.
_NAMELESS: Final = 3
_CHUNK: Final = 1 << 18
_SCRIPT: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from petsage.check_process import serve_standard_input; serve_standard_input()"
)


class CheckFailed(PetSageError):  # noqa: N818 - said of the check, not of what went wrong
    """Nothing can be said of the features, for no fault of theirs."""


class _Lost(Exception):  # noqa: N818 - said of the child
    """The child has gone, or is deaf; `name` is the feature that it was at."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class CheckProcess:
    """Checks features in a child process, one job at a time.

    It is made by `begin`, or by `launch` in a process that has threads already.

    Attributes:
        restarts: how often a child was lost and another begun.
        checking: the feature that it is at, as far as it has said; "" where it has not.
    """

    def __init__(self, pid: int, connection: socket.socket) -> None:
        self.restarts = 0
        self.checking = ""
        self._pid = pid
        self._connection: socket.socket | None = connection
        connection.setblocking(False)
        self._group = 0
        self._gone: list[tuple[int, int]] = []
        self._stopped = asyncio.Event()
        self._lock = asyncio.Lock()

    @classmethod
    def begin(cls) -> "CheckProcess | None":
        """Forks the child, which has all that this process has imported; None where none can be.

        To be called before there are threads, an event loop or sockets; with threads, it launches.
        """
        if not (hasattr(os, "fork") and hasattr(os, "setsid")):
            return None
        if threading.active_count() > 1:
            return cls.launch()
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            ours.close()
            check_process.serve(theirs)
        theirs.close()
        return cls(pid, ours)

    @classmethod
    def launch(cls) -> "CheckProcess | None":
        """Begins the child as a new program, which imports the core first."""
        if not (hasattr(os, "fork") and hasattr(os, "posix_spawn")):
            return None
        return cls(*_launch())

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._pid

    async def check(
        self,
        snapshots: Sequence[tuple[Snapshot, Path]],
        names: Sequence[str],
        *,
        settings: Mapping[str, Mapping[str, Any]],
        disabled: Collection[str],
        timeout_s: float,
    ) -> dict[str, Checked]:
        """What is wrong with features, and what their sources show.

        Args:
            snapshots: of `names` and of all that they import or need, each with its folder as it
                was named.
            names: what is to be checked.
            settings: each feature's own settings, by its name.
            disabled: features that are left out, to tell those that need one.
            timeout_s: how long the check of one feature may take.

        Raises:
            CheckFailed: the child cannot be had, or says something else.
        """
        async with self._lock:
            job = Job(snapshots, names, settings, frozenset(disabled), _folder())
            data = await in_thread(encode_job, job)
            answer = await self._try(data, timeout_s, len(snapshots))
            try:
                checked = await in_thread(decode_answer, answer)
            except (ValueError, EOFError, TypeError) as error:
                raise _failed(f"it answered what is no answer: {error}") from error
            return {name: checked[name] for name in names}

    async def stop(self) -> None:
        """Ends the child, and whatever it runs; a check in hand fails."""
        self._stopped.set()
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)
        async with self._lock:
            self._drop()
            await in_thread(self._reap)

    async def _try(self, job: bytes, timeout_s: float, count: int) -> bytearray:
        """The answer to a job, of the child that is there or of those that come after it."""
        failures: list[Failure] = []
        is_careful, nameless = False, 0
        for _ in range(count + 2):
            if self._stopped.is_set():
                raise _failed("it was stopped")
            if self._connection is None:
                await self._begin_another()
            try:
                order = await in_thread(encode_order, timeout_s, is_careful, failures, job)
                return await self._ask(order, timeout_s)
            except _Lost as lost:
                self._drop()
                if self._stopped.is_set():
                    continue
                _log.warning(
                    "The process that checks features was lost%s; another is begun",
                    f" while it checked {lost.name}" if lost.name else "",
                )
                if lost.name and is_careful:
                    what = "ended the process that checks it"
                    failures.append(Failure(lost.name, "crash", what, ""))
                nameless = 0 if lost.name else nameless + 1
                if nameless == _NAMELESS:
                    what = f"was lost {nameless} times in a row, before it had come to any"
                    raise _failed(f"the process that does it {what}") from None
                is_careful = True  # it may have been an operator, or chance
            except CheckFailed:
                raise
            except BaseException:
                self._drop()  # it goes on with what nobody waits for
                raise
        raise _failed("it was lost time and again")

    async def _ask(self, order: bytes, timeout_s: float) -> bytearray:
        connection, loop = self._connection, asyncio.get_running_loop()
        self.checking = ""
        if connection is None:
            raise _Lost(self.checking)
        try:
            async with asyncio.timeout(timeout_s + _SILENCE_S):
                await loop.sock_sendall(connection, frame(b"J", order))
            while True:
                async with asyncio.timeout(timeout_s + _SILENCE_S):
                    kind, size = HEADER.unpack(await self._exactly(connection, HEADER.size))
                    payload = await self._exactly(connection, size)
                if kind in {b"A", b"X"}:
                    self._group = 0  # it was ended
                if kind == b"A":
                    return payload
                if kind == b"X":
                    raise _failed(payload.decode("utf-8", "replace"))
                if kind == b"F":
                    self._group = int(payload)
                else:
                    self.checking = payload.decode() or self.checking
        except (OSError, TimeoutError):
            raise _Lost(self.checking) from None

    async def _exactly(self, connection: socket.socket, size: int) -> bytearray:
        loop = asyncio.get_running_loop()
        data = bytearray(size)
        view, got = memoryview(data), 0
        while got < size:
            count = await loop.sock_recv_into(connection, view[got : got + _CHUNK])
            if not count:
                raise ConnectionResetError
            got += count
        return data

    async def _begin_another(self) -> None:
        try:
            await in_thread(self._reap)
            self._pid, connection = await in_thread(_launch)
        except OSError as error:
            raise _failed(f"it cannot be begun: {error.strerror}") from error
        connection.setblocking(False)
        self._connection = connection
        self.restarts += 1

    def _drop(self) -> None:
        """Lets go of the child: it ends when it sees that, and `_reap` sees to it that it does."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            self._gone.append((self._pid, self._group))
            self._group = 0

    def _reap(self) -> None:
        """Waits until the children that were let go have ended, and kills what does not."""
        while self._gone:
            pid, group = self._gone.pop()
            if not _has_ended(pid, _END_S):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                _has_ended(pid, _END_S)
            if group:  # what it ran, where it could not see to that itself
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(group, signal.SIGKILL)


def _launch() -> tuple[int, socket.socket]:
    ours, theirs = socket.socketpair()
    try:
        actions = [
            (os.POSIX_SPAWN_DUP2, theirs.fileno(), 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        # -O, -X, -W, -I: as this one, so that what is found there is true here; multiprocessing
        # asks for them in this way. -P: else the working directory comes first on the path, and a
        # `json.py` there is what the script imports.
        flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined] # private
        arguments = [sys.executable, *flags, "-P", "-c", _SCRIPT, json.dumps(sys.path)]
        pid = os.posix_spawn(sys.executable, arguments, os.environ, file_actions=actions)
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return pid, ours


def _has_ended(pid: int, limit_s: float) -> bool:
    """Whether a child ends within this time; it is reaped then."""
    deadline = time.monotonic() + limit_s
    while True:
        try:
            if os.waitpid(pid, os.WNOHANG)[0]:
                return True
        except ChildProcessError:  # somebody else waited for it
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)


def _folder() -> str:
    try:
        return str(Path.cwd())
    except OSError:  # it was removed, and names of folders are whole paths if any
        return "/"


def _failed(reason: str) -> CheckFailed:
    return CheckFailed(
        f"features cannot be checked: {reason.strip()}", fix="look at the machine, and try again"
    )
