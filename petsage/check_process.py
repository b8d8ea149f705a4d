"""The child that checks features: warm, and forked again for each attempt at a job.

The warm one never runs anything of a feature. What it forks does, in a session of its own, and is
killed at the end with all that it started. It ends when the server does, however that comes.

Longer than 300 lines: what is forked, listened to and ended here is known to nobody else.
"""

import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import tempfile
import time
from typing import IO, Final, NoReturn

from petsage.check_attempt import MUTE, PR_SET_CHILD_SUBREAPER, Attempt, set_process_option
from petsage.check_messages import CLIENT, HEADER, LARGE, Failure, Kind, decode_order, frame
from petsage.client_side import import_client
from petsage.side_effects import running_children

# To take a job in takes so long at the most, with a thousand features on a busy machine.
_BEGIN_S: Final = 30.0
# Who hangs ends itself, and shows where; who cannot is ended so much later.
_GRACE_S: Final = 0.5
_LOOK_S: Final = 0.05
_END_S: Final = 2.0
_CHUNK: Final = 1 << 20
_TOKEN: Final = 16
# Linux's, and that of macOS.
_DESCRIPTORS: Final = ("/proc/self/fd", "/dev/fd")
# Where nothing lists them: as many are closed at the most, which takes some milliseconds.
_MANY: Final = 1 << 16
_BY_SIGNAL: Final = "ended the process by "
_KILLED: Final = f"{_BY_SIGNAL}SIGKILL"


def serve(server: socket.socket) -> NoReturn:
    """Checks what the server sends, until its end of the socket is closed; then ends."""
    try:
        _become_warm(server)
        while (order := _receive(server)) is not None:
            attempts = _Attempts(server, *decode_order(order))
            attempts.run()
            if attempts.large:
                for name in attempts.large:  # now, and not again for each check
                    _import_large(name)
                gc.freeze()
            del order, attempts
    except BaseException as error:  # noqa: BLE001 - the server has gone, or begins another
        os._exit(not isinstance(error, OSError))
    os._exit(0)


def _import_large(name: str) -> None:
    if name == CLIENT:
        import_client()
        return
    with contextlib.suppress(Exception):  # who imports it is told what is wrong with it
        importlib.import_module(name)


def serve_standard_input() -> NoReturn:
    """`serve`, where standard input is the socket: for a child that was not forked."""
    serve(socket.socket(fileno=os.dup(0)))


def _become_warm(server: socket.socket) -> None:
    """Gives up all that was inherited but the core's modules."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # those go to the whole group; the server decides
    server.setblocking(True)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nowhere, descriptor)
    _close_all_but(server.fileno())
    set_process_option(PR_SET_CHILD_SUBREAPER, 1)
    gc.freeze()


def _close_all_but(kept: int) -> None:
    highest = _highest_descriptor(kept)
    os.closerange(3, kept)
    os.closerange(kept + 1, highest + 1)


def _highest_descriptor(known: int) -> int:
    """A number that no open descriptor is above.

    Args:
        known: one that is open: a folder that does not list it does not list all, as on FreeBSD.
    """
    for folder in _DESCRIPTORS:
        with contextlib.suppress(OSError):
            numbers = [int(name) for name in os.listdir(folder)]  # noqa: PTH208 - numbers
            if known in numbers:
                return max(numbers)
    limit = os.sysconf("SC_OPEN_MAX")  # below 0, or more than a C int, where there is none
    return limit if 0 <= limit <= _MANY else _MANY


def _receive(server: socket.socket) -> bytearray | None:
    """The next order; None where the server has gone."""
    header = _exactly(server, HEADER.size)
    return None if header is None else _exactly(server, HEADER.unpack(header)[1])


def _exactly(server: socket.socket, size: int) -> bytearray | None:
    data = bytearray(size)
    view, got = memoryview(data), 0
    while got < size:
        count = server.recv_into(view[got:])
        if not count:
            return None
        got += count
    return data


class _Attempts:
    """One job: tried until an attempt answers, without those that an earlier one died of.

    Where SIGKILL ended one, that may have come from outside: only a second time counts.

    Args:
        server: where to answer to.
        timeout_s: how long the check of one feature may take.
        is_careful: whether nothing of a feature is run before the server knows that it begins.
        failures: how earlier attempts ended.
        job: what is to be checked.

    Attributes:
        large: what of `LARGE` a feature has imported.
    """

    def __init__(
        self,
        server: socket.socket,
        timeout_s: float,
        is_careful: bool,
        failures: list[Failure],
        job: bytes,
    ) -> None:
        self._server = server
        self._timeout_s = timeout_s
        self._is_careful = is_careful
        self._failures = failures
        self._job = job
        self.large: set[str] = set()
        self._name = ""
        self._deadline = 0.0
        self._token = b""
        self._killed: set[str] = set()

    def run(self) -> None:
        """Sends an answer, or why there is none.

        Raises:
            OSError: the server has gone.
        """
        while True:
            with _open_dump() as dump:
                how, what = self._attempt(dump.fileno())
                dump.seek(0)
                text = dump.read(_CHUNK).decode("ascii", "backslashreplace")
            if how == "answer":
                return
            if what == _KILLED and self._name not in self._killed:
                self._killed.add(self._name)  # it may have been an operator, or want of memory
                continue
            if text.startswith("Timeout ("):
                how = "timeout"
            if not self._name:
                reason = f"the check ended before it began: it {what}\n{text}"
                self._server.sendall(frame(b"X", reason.encode("utf-8", "replace")))
                return
            self._failures.append(Failure(self._name, how, what, text))

    def _attempt(self, dump: int) -> tuple[str, str]:
        """Has one child try; how that ended, and what there is to say of it."""
        self._name, self._token = "", os.urandom(_TOKEN)
        self._deadline = time.monotonic() + _BEGIN_S
        ours, theirs = socket.socketpair()
        warm = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            ours.close()
            theirs.close()
            return "crash", f"cannot be forked: {error.strerror}"
        if pid == 0:
            self._server.close()
            ours.close()
            attempt = Attempt(self._token, theirs.detach(), dump, self._timeout_s, warm)
            attempt.run(self._job, self._failures, is_careful=self._is_careful)
        theirs.close()
        try:
            self._server.sendall(frame(b"F", str(pid).encode()))
            how, what, kind, answer = self._listen(pid, ours)
            _kill(pid)
            if answer is not None:
                self._server.sendall(frame(kind, answer))
        finally:
            ours.close()
            _end(pid)
        return how, what

    def _listen(self, pid: int, child: socket.socket) -> tuple[str, str, Kind, bytes | None]:
        """Waits for the child's answer, its end, or the end of its time."""
        child.setblocking(False)
        heard = bytearray()
        while True:
            ready, _, _ = select.select([self._server, child], [], [], _LOOK_S)
            if self._server in ready and not self._server.recv(1, socket.MSG_PEEK):
                raise ConnectionResetError
            # Before it is read from: what it wrote before its end is all there then.
            status = _status(pid, 0.0)
            is_open = True
            while is_open and (chunk := _read(child)) is not None:
                heard += chunk
                is_open = bool(chunk)
            try:
                kind, answer = self._take(heard, child)
            except ValueError as error:
                return "crash", str(error), b"X", None
            if kind is not None:
                return "answer", "", kind, answer
            if not is_open and status is None:
                status = _status(pid, _GRACE_S)  # it is about to end, or has closed everything
            if status is not None:
                return "crash", _told_end(status), b"X", None
            if not is_open:
                return "crash", "closed descriptors that are not its own", b"X", None
            if time.monotonic() > self._deadline:
                return "timeout", "did not end", b"X", None

    def _take(self, heard: bytearray, child: socket.socket) -> tuple[Kind | None, bytes | None]:
        """Takes whole messages off what was heard; the answer, once it is there.

        Raises:
            ValueError: somebody else wrote there.
        """
        start = _TOKEN + HEADER.size
        while len(heard) >= start:
            if heard[:_TOKEN] != self._token:
                raise ValueError("wrote into a descriptor that is not its own")
            kind, size = HEADER.unpack(heard[_TOKEN:start])
            if kind in {b"A", b"X"} and len(heard) >= start + size:
                return kind, bytes(memoryview(heard)[start : start + size])
            if len(heard) < start + size:
                break
            name = bytes(heard[start : start + size])
            del heard[: start + size]
            if kind == b"C":
                self.large |= {name.decode(errors="replace")} & {*LARGE}
                continue
            self._name = name.decode() or self._name
            self._deadline = time.monotonic() + self._timeout_s + _GRACE_S
            self._server.sendall(frame(b"B", name))
            if self._is_careful:
                with contextlib.suppress(OSError):  # it has ended, and that is seen next
                    child.send(b"+")
        return None, None


def _open_dump() -> IO[bytes]:
    """A file for what `faulthandler` writes; in a container, no folder may be there to write to."""
    if hasattr(os, "memfd_create"):
        with contextlib.suppress(OSError):  # a sandbox may forbid it
            return os.fdopen(os.memfd_create("petsage-check"), "w+b")
    return tempfile.TemporaryFile()


def _read(child: socket.socket) -> bytes | None:
    """What there is to read; empty at its end, None where there is nothing yet."""
    try:
        return child.recv(_CHUNK)
    except BlockingIOError:
        return None
    except ConnectionResetError:  # it ended without having read everything
        return b""


def _status(pid: int, limit_s: float) -> int | None:
    """How a child ended; None where it does not within this time."""
    deadline = time.monotonic() + limit_s
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status
        if time.monotonic() >= deadline:
            return None
        select.select([], [], [], 0.001)


def _told_end(status: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        with contextlib.suppress(ValueError):
            return _BY_SIGNAL + signal.Signals(number).name
        return f"{_BY_SIGNAL}signal {number}"
    if os.WEXITSTATUS(status) == MUTE:
        return "closed descriptors that are not its own"
    return f"ended the process with exit code {os.waitstatus_to_exitcode(status)}"


def _kill(pid: int) -> None:
    """Kills a child with its group; it has none yet where it has only just begun."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def _end(pid: int) -> None:
    """Kills a child with its group, and whatever left that and was inherited by us."""
    _kill(pid)
    deadline = time.monotonic() + _END_S
    with contextlib.suppress(ChildProcessError):  # its end was seen before
        _status(pid, _END_S)  # alone, as it mostly is: to look for others takes a while
    while time.monotonic() < deadline:
        try:
            ended, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not ended:
            for child in running_children():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(child, signal.SIGKILL)
            select.select([], [], [], 0.001)
