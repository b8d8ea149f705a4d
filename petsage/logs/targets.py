"""What a sink's thread writes to: a stream of the process, or a file that is rotated."""

import os
import select
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Outcome:
    """How many lines of a batch were written whole, and what went wrong."""

    written: int
    error: Exception | None = None


class Target(Protocol):
    """What a sink's thread writes to; used by that thread alone."""

    def write(self, lines: list[bytes]) -> "Outcome":
        """Writes `lines`, each ending in a newline, and says how far it came; it never raises."""

    def close(self) -> None:
        """Lets go of what it opened."""


class _LineWriter:
    """Writes lines to a descriptor, and never a line onto the end of a torn one."""

    def __init__(self, *, torn: bool = False) -> None:
        self._torn = torn

    def write_lines(self, descriptor: int, lines: list[bytes]) -> Outcome:
        data = b"".join(lines)
        start = 1 if self._torn else 0
        view = memoryview(b"\n" + data if self._torn else data)
        done = 0
        try:
            while done < len(view):
                try:
                    done += os.write(descriptor, view[done:])
                except BlockingIOError:
                    # Somebody set the other end of our stdout to non-blocking.
                    can_take(descriptor)
        except OSError as error:
            if done:
                self._torn = view[done - 1] != ord("\n")
            whole = bytes(view[start:done]).count(b"\n") if done > start else 0
            return Outcome(whole, error)
        self._torn = False
        return Outcome(len(lines))


class StreamTarget:
    """One of the process's own streams, by its descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._output = _LineWriter()

    def write(self, lines: list[bytes]) -> Outcome:
        """Writes `lines` and says how far it came."""
        return self._output.write_lines(self._descriptor, lines)

    def close(self) -> None:
        """Leaves the stream open: it is the process's."""


class FileTarget:
    """A file that is appended to, and opened anew when it was moved, deleted or replaced.

    Args:
        path: the file; its folder is made when it is missing.
        max_bytes: the size past which no line takes it; it is rotated first. 0 for never.
        backups: how many rotated files stay, `<name>.1` the newest.
    """

    def __init__(self, path: Path, *, max_bytes: int = 0, backups: int = 5) -> None:
        self._path = path.absolute()  # a feature may change the working directory
        self._max_bytes = max_bytes
        self._backups = backups
        self._descriptor: int | None = None
        self._output = _LineWriter()

    def write(self, lines: list[bytes]) -> Outcome:
        """Writes `lines` and says how far it came."""
        written = 0
        rotation_error: OSError | None = None
        try:
            while written < len(lines):
                descriptor = self._current()
                count = self._fitting(descriptor, lines, written)
                if count == 0 and rotation_error is None:
                    rotation_error = self._rotate()
                    continue
                # A file that cannot be rotated grows: that is better than lines lost.
                end = written + count if count else len(lines)
                outcome = self._output.write_lines(descriptor, lines[written:end])
                written += outcome.written
                if outcome.error is not None:
                    return Outcome(written, outcome.error)
        except OSError as error:
            return Outcome(written, error)
        return Outcome(written, rotation_error)

    def close(self) -> None:
        """Closes the file."""
        # First None: a descriptor is gone even where closing it says that the disk failed.
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _current(self) -> int:
        """The descriptor of what the path names now."""
        if self._descriptor is not None:
            try:
                named = self._path.stat()
                opened = os.fstat(self._descriptor)
                if (named.st_ino, named.st_dev) == (opened.st_ino, opened.st_dev):
                    return self._descriptor
            except FileNotFoundError:
                pass  # moved or deleted: it is made anew below
            self.close()
        return self._open()

    def _open(self) -> int:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # O_NONBLOCK so that a FIFO without a reader is an error instead of a wait without end.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(self._path, flags, 0o640)
        self._descriptor = descriptor
        regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        if regular:
            os.set_blocking(descriptor, True)
        self._output = _LineWriter(torn=regular and _ends_torn(self._path))
        return descriptor

    def _fitting(self, descriptor: int, lines: list[bytes], start: int) -> int:
        """How many of `lines` from `start` go into the file; an empty one takes any line."""
        if not self._max_bytes:
            return len(lines) - start
        size = os.fstat(descriptor).st_size
        count = 0
        for line in lines[start:]:
            if size and size + len(line) > self._max_bytes:
                break
            size += len(line)
            count += 1
        return count

    def _rotate(self) -> OSError | None:
        """Moves the file away, for `_current` to make it anew; what kept it from that."""
        try:
            if not self._backups:
                self._path.unlink()
                return None
            for number in range(self._backups - 1, 0, -1):
                older = self._numbered(number)
                if older.exists():
                    older.replace(self._numbered(number + 1))
            self._path.replace(self._numbered(1))
        except OSError as error:
            return error
        return None

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


def _ends_torn(path: Path) -> bool:
    """Whether a file ends within a line: whoever wrote it last died or found the disk full."""
    try:
        with path.open("rb") as file:
            if file.seek(0, os.SEEK_END) == 0:
                return False
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except OSError:
        return False  # it may be appended to, but not read


def can_take(descriptor: int, *, timeout_ms: int | None = None) -> bool:
    """Waits until a write to the descriptor would not block; whether that was in time."""
    # `select` refuses descriptors from 1024 on; a server with many connections has them.
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(timeout_ms))
