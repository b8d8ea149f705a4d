"""Where lines go: each sink has a bounded queue and a writer thread of its own.

A sink that stalls or fails holds up no other sink and never the thread that logs. At every
moment `emitted = written + dropped + failed + filtered + queued`, lines in flight counting
as queued.
"""

import contextlib
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal
from weakref import WeakSet

from petsage.logs.targets import FileTarget, Outcome, StreamTarget, Target, can_take
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
        self._closing = False
        self._begin()
        _sinks.add(self)

    def _begin(self) -> None:
        """Begins with an empty queue, an empty account and a thread."""
        self._lock = threading.Lock()
        self._queue: deque[bytes] = deque()
        self._emitted = self._written = self._dropped = self._failed = self._filtered = 0
        self._in_flight = 0
        self._unreported_drops = 0
        self._next_complaint = 0.0
        self._awake = threading.Event()
        self._hurry = threading.Event()
        self._progress = threading.Condition(self._lock)
        self._sleeping = False
        self._thread = threading.Thread(target=self._run, name=f"log-sink-{self.name}", daemon=True)
        self._thread.start()

    def begin_in_child(self) -> None:
        """Begins anew in a forked child: it has no thread, and what is queued is its parent's."""
        if not self._closing:
            self._begin()

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
        with self._progress:
            goal = self._written + self._failed + len(self._queue) + self._in_flight
            self._hurry.set()
            self._awake.set()
            return self._progress.wait_for(lambda: self._written + self._failed >= goal, timeout_s)

    def close(self, timeout_s: float) -> None:
        """Takes no more lines, and writes what is queued, for `timeout_s` at the most.

        What is left then counts as dropped.
        """
        with self._lock:
            self._closing = True
        self.flush(timeout_s)
        with self._lock:
            left = len(self._queue)
            self._dropped += left
            self._unreported_drops += left
            self._queue.clear()
            stalled = self._in_flight
        # The thread has nothing to write any more, unless one write never returns.
        self._thread.join(0 if stalled else timeout_s)
        drops, self._unreported_drops = self._unreported_drops, 0
        if drops:
            _complain(f"sink {self.name}: {drops} lines dropped before the stop")
        if not self._thread.is_alive():
            self._target.close()

    def _run(self) -> None:
        while True:
            with self._lock:
                idle = not self._queue
                if idle and self._closing:
                    return
                if idle:
                    self._sleeping = True
                    self._awake.clear()
            if idle:
                self._awake.wait()
            # Others may come within this time, and are written with the first.
            self._hurry.wait(self._flush_s)
            self._hurry.clear()
            while self._write_batch():
                pass

    def _write_batch(self) -> bool:
        """Writes what is queued, up to one batch; whether that was a full one, and more waits.

        Lines that came meanwhile wait for others, as the first did: under load this thread would
        else never rest, write a line or two at a time, and contend with those that log.
        """
        with self._lock:
            batch: list[bytes] = []
            size = 0
            while self._queue and size < _MAX_BATCH_BYTES:
                line = self._queue.popleft()
                size += len(line)
                batch.append(line)
            self._in_flight = len(batch)
            more = bool(self._queue)
        if not batch:
            return False
        try:
            outcome = self._target.write(batch)
        except Exception as error:  # noqa: BLE001 - a thread that died would lose every later line
            outcome = Outcome(0, error)
        failed = len(batch) - outcome.written
        with self._lock:
            self._in_flight = 0
            self._written += outcome.written
            self._failed += failed
            self._progress.notify_all()
            drops = 0
            if not self._queue and not self._closing:
                drops, self._unreported_drops = self._unreported_drops, 0
        if outcome.error is not None:
            self._complain(outcome.error, failed)
        if drops:
            try:
                self._report_drops(self.name, drops)
            except Exception as error:  # noqa: BLE001 - it goes through anybody's handlers and filters
                self._complain(error, 0)
        return more

    def _complain(self, error: Exception, failed: int) -> None:
        now = time.monotonic()
        if now >= self._next_complaint:
            self._next_complaint = now + _COMPLAINT_INTERVAL_S
            why = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
            what = f"{failed} lines failed: " if failed else ""
            _complain(f"sink {self.name}: {what}{why}")


_sinks: WeakSet[Sink] = WeakSet()


def _begin_in_child() -> None:
    for sink in _sinks:
        sink.begin_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_child)


def _complain(text: str) -> None:
    """One short line on stderr, the last place left to speak of a sink; nothing if that is shut.

    Nothing either where nobody reads it: a stop must not wait for that.
    """
    with contextlib.suppress(OSError, ValueError, AttributeError):
        descriptor = sys.__stderr__.fileno()  # type: ignore[union-attr] # AttributeError: it may be None
        if can_take(descriptor, timeout_ms=0):
            os.write(descriptor, f"petsage: {text[:1000]}\n".encode())


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
