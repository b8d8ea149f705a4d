"""Where lines go: each sink has a bounded queue and a writer thread of its own.

A sink that stalls or fails holds up no other sink and never the thread that logs. At every
moment `emitted = written + dropped + failed + filtered + queued`, lines in flight counting
as queued.
"""

import contextlib
import os
import select
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from petsage.settings import SinkSettings

# A sink that stays broken says so this often, on stderr, and not for each line.
_COMPLAINT_INTERVAL_S = 30.0
# One write takes no more than this, so that a stop waits for one write at the most.
_MAX_BATCH_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Account:
    """What became of every record that one sink was given, as one consistent snapshot."""

    emitted: int
    written: int
    dropped: int
    failed: int
    filtered: int
    queued: int


@dataclass(frozen=True)
class Outcome:
    """How many lines of a batch were written whole, and what stopped the others."""

    written: int
    error: OSError | None = None


class Target(Protocol):
    """What a sink's thread writes to; used by that thread alone."""

    def write(self, lines: list[bytes]) -> "Outcome":
        """Writes `lines`, each ending in a newline, and says how far it came; it never raises."""

    def close(self) -> None:
        """Lets go of what it opened."""


class Sink:
    """A bounded queue, and a thread that writes it to a target, a batch at a time.

    Args:
        name: its name in the settings.
        settings: its level, whether it is required, and how long its queue is.
        target: where the lines go.
        flush_ms: how long a line may wait for others.
        report_drops: called with the name and a count by the sink's thread, once there is
            room again after lines were dropped.
    """

    def __init__(
        self,
        name: str,
        settings: SinkSettings,
        target: Target,
        *,
        flush_ms: int,
        report_drops: Callable[[str, int], None],
    ) -> None:
        self.name = name
        self.required = settings.required
        self._capacity = settings.queue_records
        self._hurry_length = (settings.queue_records + 1) // 2
        self._target = target
        self._flush_s = flush_ms / 1000
        self._report_drops = report_drops
        self._lock = threading.Lock()
        self._queue: deque[bytes] = deque()
        self._emitted = self._written = self._dropped = self._failed = self._filtered = 0
        self._in_flight = 0
        self._unreported_drops = 0
        self._next_complaint = 0.0
        self._awake = threading.Event()
        self._hurry = threading.Event()
        self._idle = threading.Condition(self._lock)
        self._closing = False
        self._sleeping = False
        self._thread = threading.Thread(target=self._run, name=f"log-sink-{name}", daemon=True)
        self._thread.start()

    def put(self, line: bytes) -> Literal["queued", "dropped"]:
        """Queues one line; one that finds the queue full, or the sink closed, is dropped."""
        with self._lock:
            self._emitted += 1
            if self._closing or len(self._queue) + self._in_flight >= self._capacity:
                self._dropped += 1
                self._unreported_drops += 1
                return "dropped"
            self._queue.append(line)
            wake = self._sleeping
            self._sleeping = False
            half_full = len(self._queue) == self._hurry_length
        if wake:
            self._awake.set()
        if half_full:
            self._hurry.set()
        return "queued"

    def filter(self) -> None:
        """Counts a record that is below this sink's level."""
        with self._lock:
            self._emitted += 1
            self._filtered += 1

    def account(self) -> Account:
        """What became of every record so far."""
        with self._lock:
            return Account(
                emitted=self._emitted,
                written=self._written,
                dropped=self._dropped,
                failed=self._failed,
                filtered=self._filtered,
                queued=len(self._queue) + self._in_flight,
            )

    def flush(self, timeout_s: float) -> bool:
        """Waits until every line queued so far was written or failed; whether that was in time."""
        self._hurry.set()
        self._awake.set()
        with self._idle:
            return self._idle.wait_for(lambda: not self._queue and not self._in_flight, timeout_s)

    def close(self, timeout_s: float) -> None:
        """Writes what is queued, for `timeout_s` at the most; what is left counts as dropped."""
        whole = self.flush(timeout_s)
        with self._lock:
            self._closing = True
            left = len(self._queue)
            self._dropped += left
            self._queue.clear()
        self._hurry.set()
        self._awake.set()
        self._thread.join(timeout_s if whole else 0.1)
        if left:
            _complain(f"sink {self.name}: {left} lines could not be written before the stop")
        if not self._thread.is_alive():
            self._target.close()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._queue:
                    if self._closing:
                        return
                    self._sleeping = True
                    self._awake.clear()
            self._awake.wait()
            # Others may come within this time, and are written with the first.
            self._hurry.wait(self._flush_s)
            self._hurry.clear()
            while self._write_batch():
                pass

    def _write_batch(self) -> bool:
        """Writes what is queued, up to one batch; whether there was anything."""
        with self._lock:
            batch: list[bytes] = []
            size = 0
            while self._queue and size < _MAX_BATCH_BYTES:
                line = self._queue.popleft()
                size += len(line)
                batch.append(line)
            self._in_flight = len(batch)
        if not batch:
            return False
        outcome = self._target.write(batch)
        failed = len(batch) - outcome.written
        with self._lock:
            self._in_flight = 0
            self._written += outcome.written
            self._failed += failed
            drops = 0
            if not self._queue:
                self._idle.notify_all()
                drops, self._unreported_drops = self._unreported_drops, 0
        if outcome.error is not None:
            self._complain(outcome.error, failed)
        if drops:
            self._report_drops(self.name, drops)
        return True

    def _complain(self, error: OSError, lines: int) -> None:
        now = time.monotonic()
        if now >= self._next_complaint:
            self._next_complaint = now + _COMPLAINT_INTERVAL_S
            _complain(f"sink {self.name}: {lines} lines failed: {error.strerror or error}")


def _complain(text: str) -> None:
    """One short line on stderr, the last place left to speak of a sink; nothing if that is shut."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.write(sys.__stderr__.fileno(), f"petsage: {text}\n".encode())  # type: ignore[union-attr] # AttributeError: it may be None


class _Descriptor:
    """Writes lines to a descriptor, and never a line onto the end of a torn one."""

    def __init__(self) -> None:
        self._torn = False

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
                    select.select([], [descriptor], [])
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
        self._output = _Descriptor()

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
        self._path = path
        self._max_bytes = max_bytes
        self._backups = backups
        self._descriptor: int | None = None
        self._output = _Descriptor()

    def write(self, lines: list[bytes]) -> Outcome:
        """Writes `lines` and says how far it came."""
        written = 0
        try:
            while written < len(lines):
                descriptor = self._current()
                count = self._fitting(descriptor, lines, written)
                if count == 0:
                    self._rotate()
                    continue
                outcome = self._output.write_lines(descriptor, lines[written : written + count])
                written += outcome.written
                if outcome.error is not None:
                    return Outcome(written, outcome.error)
        except OSError as error:
            return Outcome(written, error)
        return Outcome(written)

    def close(self) -> None:
        """Closes the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

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
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.set_blocking(descriptor, True)
        self._descriptor = descriptor
        self._output = _Descriptor()
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

    def _rotate(self) -> None:
        self.close()
        if not self._backups:
            self._path.unlink()
            return
        for number in range(self._backups - 1, 0, -1):
            older = self._numbered(number)
            if older.exists():
                older.replace(self._numbered(number + 1))
        self._path.replace(self._numbered(1))

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


def open_sink(
    name: str,
    settings: SinkSettings,
    *,
    flush_ms: int,
    report_drops: Callable[[str, int], None],
) -> Sink:
    """The sink that `settings` describe, its thread running."""
    target: Target
    if settings.kind == "file" and settings.path is not None:
        target = FileTarget(settings.path, max_bytes=settings.max_bytes, backups=settings.backups)
    else:
        target = StreamTarget(2 if settings.kind == "stderr" else 1)
    return Sink(name, settings, target, flush_ms=flush_ms, report_drops=report_drops)
