"""What a sink's thread writes to: a stream of the process, or a file that is rotated.

A target says `written` of a line only when it is: of a file, when it was read back.

Longer than 300 lines: a file that others write to and rotate, too, has that many cases, and each
line is counted in one of them.
"""

import contextlib
import errno
import fcntl
import os
import select
import stat
import sys
import time
from pathlib import Path
from typing import NamedTuple, Protocol

# How often a batch is written anew because the path named another file when it was done.
_MAX_MOVES = 3
# A write of another process that has begun is over by then.
_AMID_A_WRITE_S = 0.005
_LOOKS = 20
_REPLACED = "The file is replaced each time that it is written to"


class Outcome(NamedTuple):
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
    """Writes lines to a descriptor, and never a line onto the end of a torn one.

    Attributes:
        is_torn: whether what is there ends within a line.
    """

    def __init__(self) -> None:
        self.is_torn = False

    def write_lines(self, descriptor: int, lines: list[bytes]) -> tuple[bytes, Outcome]:
        """What went out, and how many of the lines are whole in it."""
        data = b"".join(lines)
        start = 1 if self.is_torn else 0
        if start:
            data = b"\n" + data
        view = memoryview(data)
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
                self.is_torn = view[done - 1] != ord("\n")
            out = data[:done]
            return out, Outcome(out.count(b"\n", start), error)
        self.is_torn = False
        return data, Outcome(len(lines))


class StreamTarget:
    """One of the process's own streams: a line is written when the system took all of it.

    Args:
        descriptor: 1 or 2.

    A stream that is closed already stays so: its number may be another file's by now.
    """

    def __init__(self, descriptor: int) -> None:
        self._output = _LineWriter()
        self._descriptor: int | None = None
        stream = sys.__stdout__ if descriptor == 1 else sys.__stderr__
        if stream is not None:  # Python found it open
            with contextlib.suppress(OSError):  # somebody closed it since: each write says so
                self._descriptor = os.dup(descriptor)

    def write(self, lines: list[bytes]) -> Outcome:
        """Writes `lines` and says how far it came."""
        if self._descriptor is None:
            return Outcome(0, OSError(errno.EBADF, os.strerror(errno.EBADF)))
        _, outcome = self._output.write_lines(self._descriptor, lines)
        return outcome

    def close(self) -> None:
        """Leaves the stream open: it is the process's."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


class FileTarget:
    """A file that is appended to, and opened anew when it was moved, deleted or replaced.

    A line is written when it was read back at its offset, and the path still names that file.

    Args:
        path: the file; its folder is made when it is missing.
        max_bytes: the size past which no line takes it; it is rotated first. 0 for never.
        backups: how many rotated files stay, `<name>.1` the newest.
        fsync: whether the disk has to have a line before it counts as written.
    """

    def __init__(
        self, path: Path, *, max_bytes: int = 0, backups: int = 5, fsync: bool = False
    ) -> None:
        self._path = path.absolute()  # a feature may change the working directory
        self._name = str(self._path)
        self._max_bytes = max_bytes
        self._backups = backups
        self._fsync = fsync
        self._descriptor: int | None = None
        self._identity = (0, 0)
        self._regular = False
        self._output = _LineWriter()
        # Where the last write has ended, if that ended a line: a file as long needs no look.
        self._end = -1

    def write(self, lines: list[bytes]) -> Outcome:
        """Writes `lines` and says how far it came."""
        written = moves = 0
        stays = False
        rotation_error: OSError | None = None
        try:
            while written < len(lines):
                descriptor, size = self._current()
                count = self._fitting(size, lines, written)
                if count == 0 and not stays:
                    try:
                        stays = not self._rotate(descriptor)
                    except OSError as error:
                        stays, rotation_error = True, error
                    continue
                # A file that cannot be rotated grows: that is better than lines lost.
                end = written + count if count else len(lines)
                outcome = self._append(descriptor, size, lines[written:end])
                if self._size() is None:
                    # Who looks at the path finds none of these lines: better twice than nowhere.
                    moves += 1
                    if moves > _MAX_MOVES:
                        return Outcome(written, OSError(errno.ESTALE, _REPLACED))
                    continue
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

    def _append(self, descriptor: int, size: int, lines: list[bytes]) -> Outcome:
        """Writes lines that fit, and looks whether they are there.

        Each call of the system lets other threads run and waits for them: where nobody else
        writes to the file, one reads back all that there is to know.
        """
        if not self._regular:  # a device or a FIFO is a stream: it took every byte
            return self._output.write_lines(descriptor, lines)[1]
        self._output.is_torn = size != self._end and _ends_torn(descriptor)  # by whoever wrote last
        self._end = -1
        out, outcome = self._output.write_lines(descriptor, lines)
        if not out:
            return outcome
        if self._fsync:
            os.fdatasync(descriptor)
        before = b"\n" if size and out[:1] != b"\n" else b""
        expected = before + out
        if os.pread(descriptor, len(expected), size - len(before)) != expected:
            return self._found(descriptor, out, outcome)
        if not self._output.is_torn:
            self._end = size + len(out)
        return outcome

    def _found(self, descriptor: int, out: bytes, outcome: Outcome) -> Outcome:
        """Looks where the bytes are that others' came before; the outcome of their lines."""
        # Where our bytes begin: appending leaves the offset at their end, whoever else appends.
        start = os.lseek(descriptor, 0, os.SEEK_CUR) - len(out)
        if start < 0 or os.pread(descriptor, len(out), start) != out:
            return Outcome(0, OSError(errno.EIO, "What was written could not be read back"))
        if start and out[:1] != b"\n" and os.pread(descriptor, 1, start - 1) != b"\n":
            # Somebody tore the file just before we wrote, and our first line is no line there.
            return Outcome(
                0, OSError(errno.EIO, "Another's torn line stands before what was written")
            )
        return outcome

    def _current(self) -> tuple[int, int]:
        """The descriptor of what the path names now, and its size."""
        if self._descriptor is not None:
            size = self._size()
            if not _is(self._descriptor, self._identity):
                # Who closes what it did not open has closed it, and its number may be another's.
                self._descriptor = None
            elif size is not None:
                return self._descriptor, size
            self.close()
        descriptor = self._open()
        return descriptor, os.fstat(descriptor).st_size

    def _size(self) -> int | None:
        """The size of the file that is open; None where the path does not name it any more."""
        try:
            named = os.stat(self._name)  # noqa: PTH116 - a Path costs as much as the call
        except (FileNotFoundError, NotADirectoryError):
            return None  # moved or deleted, or its folder was
        return named.st_size if (named.st_ino, named.st_dev) == self._identity else None

    def _open(self) -> int:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor, opened = _open_for_lines(self._path)
        self._identity = opened.st_ino, opened.st_dev
        self._regular = stat.S_ISREG(opened.st_mode)
        self._output, self._end = _LineWriter(), -1
        if self._fsync and self._regular:
            _sync_folder(self._path.parent)  # else the disk may have the file, and not its name
        return self._descriptor

    def _fitting(self, size: int, lines: list[bytes], start: int) -> int:
        """How many of `lines` from `start` go into a file of this size; any line into an empty."""
        if not self._max_bytes:
            return len(lines) - start
        count = 0
        for line in lines[start:]:
            if size and size + len(line) > self._max_bytes:
                break
            size += len(line)
            count += 1
        return count

    def _rotate(self, descriptor: int) -> bool:
        """Moves the file away, for `_current` to make it anew; False where it stays for now.

        One process alone moves a file, the one that has locked it: of two, the second would move
        the new file over the old one, and both of their `.1` over each other.

        Raises:
            OSError: it cannot be moved.
        """
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until it is closed
        except BlockingIOError:
            return False  # another moves it now; what is written meanwhile is written anew
        except OSError:
            pass  # a file system without locks
        if self._size() is None:
            return True  # another has moved it
        if not self._backups:
            self._path.unlink()
            return True
        for number in range(self._backups - 1, 0, -1):
            older = self._numbered(number)
            if older.exists():
                older.replace(self._numbered(number + 1))
        self._path.replace(self._numbered(1))
        return True

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


def _is(descriptor: int, identity: tuple[int, int]) -> bool:
    """Whether a descriptor is open, and that of the file whose inode and device these are."""
    try:
        opened = os.fstat(descriptor)
    except OSError:
        return False
    return (opened.st_ino, opened.st_dev) == identity


def _open_for_lines(path: Path) -> tuple[int, os.stat_result]:
    """Opens what the path names, or makes a file; its descriptor, and what it is.

    Raises:
        OSError: it cannot be opened, or is another thing each time that it is looked at.
    """
    for _ in range(_MAX_MOVES + 1):
        expects_file = path.is_file() or not path.exists()
        # What is written to a file is read back. A FIFO without a reader is to be an error, and
        # neither a wait nor its own reader.
        flags = os.O_RDWR if expects_file else os.O_WRONLY | os.O_NONBLOCK
        descriptor = os.open(path, flags | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        opened = os.fstat(descriptor)
        if stat.S_ISREG(opened.st_mode) == expects_file:
            return descriptor, opened
        os.close(descriptor)  # it was replaced in between, and is not open as it has to be
    raise OSError(errno.ESTALE, _REPLACED)


def _ends_torn(descriptor: int) -> bool:
    """Whether a file ends within a line: whoever wrote it last died or found the disk full.

    Another process may be amid a write; its line ends within moments, and is not torn.
    """
    size = -1
    for _ in range(_LOOKS):
        before, size = size, os.fstat(descriptor).st_size
        if size == 0 or os.pread(descriptor, 1, size - 1) in {b"\n", b""}:
            return False
        if size == before:
            break
        time.sleep(_AMID_A_WRITE_S)
    return True


def _sync_folder(folder: Path) -> None:
    """Waits until the disk has the names in a folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def can_take(descriptor: int, *, timeout_ms: int | None = None) -> bool:
    """Waits until a write to the descriptor would not block; whether that was in time."""
    # `select` refuses descriptors from 1024 on; a server with many connections has them.
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(timeout_ms))
