"""Where lines go: each sink has a bounded queue and a writer thread of its own.

A sink that stalls or fails holds up no other sink and never the thread that logs. At every
moment `emitted = written + dropped + failed + filtered + queued`, lines in flight counting
as queued.

Longer than 300 lines: whatever changes a count or the queue, a thread's death and a fork among it,
does so under one lock, and is read together.
"""

import contextlib
import errno
import os
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal
from weakref import WeakSet

from petsage.logs.proofs import Entry, Proof, ProvenEntry, settle_lines
from petsage.logs.targets import FileTarget, Outcome, StreamTarget, Target, can_take
from petsage.settings import SinkSettings

# A sink that stays broken says so this often, on stderr, and not for each line.
_COMPLAINT_INTERVAL_S = 30.0
# One write takes no more than this, so that a stop waits for one write at the most.
_MAX_BATCH_BYTES = 1024 * 1024
_MAX_BATCH_LINES = 1024
# A child of `multiprocessing` waits this long for each sink before it ends.
_END_OF_CHILD_S = 5.0
# A full queue that has to make room for what is urgent gives up this part of itself at once, so
# that looking for what can be given up costs each urgent line little.
_ROOM_SHARE = 16

DropReason = Literal["queue_full", "made_room", "closed", "left_at_stop"]


@dataclass(frozen=True)
class Account:
    """What became of every record that one sink was given, as one consistent snapshot.

    Attributes:
        dropped_by: the dropped ones by reason: `queue_full`, `made_room` for what is urgent,
            `closed` before they came, `left_at_stop`.
        failed_by: the failed ones by reason: the system's name of the error, `ENOSPC`, or the
            exception's.
    """

    emitted: int
    written: int
    dropped: int
    failed: int
    filtered: int
    queued: int
    dropped_by: Mapping[str, int] = field(default_factory=dict, compare=False)
    failed_by: Mapping[str, int] = field(default_factory=dict, compare=False)


class Sink:
    """A bounded queue, and a thread that writes it to a target, a batch at a time.

    Args:
        name: its name in the settings.
        settings: its level, whether it is required, and how long its queue is.
        target: where the lines go.
        flush_ms: how long a line may wait for others.
        report_drops: called with the name and a count by the sink's thread, once there is
            room again after lines were dropped.

    Attributes:
        capacity: how many lines may wait.
        restarts: how often its thread died and was begun anew.
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
        self.capacity = settings.queue_records
        self._hurry_length = (settings.queue_records + 1) // 2
        self._target = target
        self._flush_s = flush_ms / 1000
        self._report_drops = report_drops
        self._closing = False
        self._begin()
        _sinks.add(self)

    def _begin(self) -> None:
        """Begins with an empty queue, an empty account and a thread."""
        # Both may be asked for again by who has them: garbage may be collected amid, and log.
        self._lock = threading.RLock()
        # An ordinary line is its bytes alone.
        self._queue: deque[bytes | Entry] = deque()
        self._emitted = self._written = self._dropped = self._failed = self._filtered = 0
        self._dropped_by: Counter[str] = Counter()
        self._failed_by: Counter[str] = Counter()
        self._in_flight: list[bytes | Entry] = []
        self._write_began = 0.0
        self._unreported_drops = 0
        self._next_complaint = 0.0
        self._progress = threading.Condition(self._lock)
        self._flushes = 0
        # Released it wakes the thread. A lock, for an Event is a lock and much Python around it.
        self._bell = threading.Lock()
        self._bell.acquire()
        self._is_rung = self._is_sleeping = self._is_hurried = False
        self.restarts = 0
        self._revival = threading.RLock()
        self._start_thread()

    def _start_thread(self) -> None:
        self._thread = threading.Thread(target=self._run, name=f"log-sink-{self.name}", daemon=True)
        self._thread.start()

    def begin_in_child(self) -> None:
        """Begins anew in a forked child: it has no thread, and what is queued is its parent's."""
        if not self._closing:
            self._begin()

    def put(
        self, line: bytes, proof: Proof | None = None, urgent: bool = False
    ) -> Literal["queued", "dropped"]:
        """Queues one line; one that finds the queue full, or the sink closed, is dropped.

        Args:
            line: ends in a newline.
            proof: is told what becomes of it; who proves a line calls `hurry` when all are put.
            urgent: where the queue is full, others are dropped for it.
        """
        entry = line if proof is None and not urgent else (line, proof, urgent)
        given_up: list[Proof] | None = None
        # Not `acquire` and `try`: an exception that a signal raises can come between these two.
        with self._lock:
            self._emitted += 1
            if self._closing:
                return self._refuse("closed", proof)
            queue = self._queue
            length = len(queue)
            if length + len(self._in_flight) >= self.capacity:
                given_up = self._make_room() if urgent else None
                if given_up is None:
                    return self._refuse("queue_full", proof)
                length = len(queue)
            queue.append(entry)
            if length + 1 == self._hurry_length:
                self._is_hurried = True
                self._ring()
            elif self._is_sleeping and proof is None:
                self._ring()
        if given_up:
            settle_lines(self.name, given_up, "dropped", _QUEUE_IS_FULL)
        return "queued"

    def put_all(self, entries: list[ProvenEntry]) -> int:
        """Queues proven lines, as `put` does each; how many are queued."""
        with self._lock:
            total = len(self._queue) + len(entries)
            if not self._closing and total + len(self._in_flight) <= self.capacity:
                self._emitted += len(entries)
                self._queue.extend(entries)
                return len(entries)
        return [self.put(*entry) for entry in entries].count("queued")

    def put_plain(self, lines: list[bytes]) -> None:
        """Queues lines that nobody waits for, as `put` does each."""
        with self._lock:
            length = len(self._queue)
            total = length + len(lines)
            if not self._closing and total + len(self._in_flight) <= self.capacity:
                self._emitted += len(lines)
                self._queue.extend(lines)
                if length < self._hurry_length <= total:
                    self._is_hurried = True
                    self._ring()
                elif self._is_sleeping:
                    self._ring()
                return
        for line in lines:
            self.put(line)

    def _ring(self) -> None:
        """Wakes the thread; under the lock.

        A bell that was rung is not rung again before the thread has looked at what there is to do.
        """
        self._is_sleeping = False
        if not self._is_rung:
            self._is_rung = True
            self._bell.release()

    def _refuse(self, reason: DropReason, proof: Proof | None) -> Literal["dropped"]:
        self._drop(1, reason)
        if proof is not None:
            proof.settle(self.name, "dropped", _IS_CLOSED if self._closing else _QUEUE_IS_FULL)
        return "dropped"

    def _drop(self, count: int, reason: DropReason) -> None:
        if not count:
            return
        self._dropped += count
        self._unreported_drops += count
        self._dropped_by[reason] += count

    def _make_room(self) -> list[Proof] | None:
        """Drops the newest of what is not urgent; the proofs among it, None if there is none."""
        given_up: list[Proof] = []
        kept: list[bytes | Entry] = []
        wanted = max(1, self.capacity // _ROOM_SHARE)
        count = 0
        while self._queue and count < wanted:
            entry = self._queue.pop()
            _, proof, urgent = (entry, None, False) if isinstance(entry, bytes) else entry
            if urgent:
                kept.append(entry)
                continue
            count += 1
            if proof is not None:
                given_up.append(proof)
        self._queue.extend(reversed(kept))
        self._drop(count, "made_room")
        return given_up if count else None

    def filter(self) -> None:
        """Counts a record that is below this sink's level, or that a filter leaves out."""
        with self._lock:
            self._emitted += 1
            self._filtered += 1

    def fail(self, error: BaseException) -> None:
        """Counts a record that could not be made a line of."""
        with self._lock:
            self._emitted += 1
            self._failed += 1
            self._failed_by[_name_of(error)] += 1
        self._complain(error, 1)

    def hurry(self) -> None:
        """Has what is queued written now, and not after `flush_ms`."""
        with self._lock:
            self._is_hurried = True
            self._ring()
        if not self._thread.is_alive():
            self._revive()

    def _revive(self) -> None:
        """Begins a thread for one that went past `_run`: two blows at once."""
        with self._revival:
            if not self._thread.is_alive() and not self._closing:
                self._account_for_death(RuntimeError("the thread ended"))
                self._start_thread()

    def account(self) -> Account:
        """What became of every record so far."""
        with self._lock:
            return Account(
                emitted=self._emitted,
                written=self._written,
                dropped=self._dropped,
                failed=self._failed,
                filtered=self._filtered,
                queued=len(self._queue) + len(self._in_flight),
                dropped_by=dict(self._dropped_by),
                failed_by=dict(self._failed_by),
            )

    def stands_still_for_s(self) -> float:
        """How long the present write has taken, in seconds; 0.0 where there is none."""
        began = self._write_began
        return time.monotonic() - began if began else 0.0

    def flush(self, timeout_s: float) -> bool:
        """Waits until every line queued so far was written or failed; whether that was in time."""
        with self._progress:
            self._flushes += 1
            goal = self._written + self._failed + len(self._queue) + len(self._in_flight)
        self.hurry()
        with self._progress:
            try:
                # Lines that make room for urgent ones meanwhile are never written: then it runs
                # empty.
                return self._progress.wait_for(
                    lambda: (
                        self._written + self._failed >= goal or not (self._queue or self._in_flight)
                    ),
                    timeout_s,
                )
            finally:
                self._flushes -= 1

    def close(self, timeout_s: float) -> None:
        """Takes no more lines, and writes what is queued, for `timeout_s` at the most.

        What is left then counts as dropped.
        """
        self.refuse_more()
        self.flush(timeout_s)
        with self._lock:
            left = list(self._queue)
            self._drop(len(left), "left_at_stop")
            self._queue.clear()
            stalled = len(self._in_flight)
        settle_lines(self.name, _proofs_of(left), "dropped", _IS_CLOSED)
        # The thread has nothing to write any more, unless one write never returns.
        self._thread.join(0 if stalled else timeout_s)
        drops, self._unreported_drops = self._unreported_drops, 0
        if drops or stalled:
            rest = f", {stalled} more in a write that has not returned" if stalled else ""
            _complain(f"sink {self.name}: {drops} lines dropped before the stop{rest}")
        if not self._thread.is_alive():
            self._target.close()

    def refuse_more(self) -> None:
        """Takes no more lines."""
        with self._lock:
            self._closing = True

    def _run(self) -> None:
        """The thread: it writes until the sink is closed, whatever befalls it."""
        while True:
            try:
                self._write_until_closed()
            except BaseException as error:  # noqa: BLE001 - a thread that died would lose every later line
                self._account_for_death(error)
            else:
                return

    def _account_for_death(self, error: BaseException) -> None:
        """Counts what a thread had in hand when it died as failed: nobody knows of it."""
        with self._lock:
            self.restarts += 1
            lost, self._in_flight, self._write_began = self._in_flight, [], 0.0
            self._failed += len(lost)
            if lost:
                self._failed_by[_name_of(error)] += len(lost)
            self._is_hurried = True  # who asked for that may have been the dead one's to heed
            self._progress.notify_all()
        settle_lines(self.name, _proofs_of(lost), "failed", "the sink's thread died")
        self._complain(error, len(lost), "its thread died and was begun anew: ")

    def _write_until_closed(self) -> None:
        while self._wait_for_lines():
            while self._write_batch():
                pass

    def _wait_for_lines(self) -> bool:
        """Waits until lines are to be written; False where none will be, the sink being closed.

        They wait for others. Once that time is over and none has come, the next one has to wake
        this thread; before, it does not, for that would take the processor from who logs.
        """
        is_over = False
        while True:
            with self._lock:
                if self._is_rung:
                    self._bell.acquire(blocking=False)  # it may be that nobody has heard it
                    self._is_rung = False
                # Before it looks what there is to do: it may itself log amid these lines.
                self._is_sleeping = is_over
                if not self._queue and self._closing:
                    return False
                if self._is_hurried or (is_over and self._queue):
                    self._is_sleeping = False
                    return True
            is_over = not self._bell.acquire(timeout=-1 if is_over else self._flush_s)

    def _write_batch(self) -> bool:
        """Writes what is queued, up to one batch; whether that was a full one, and more waits.

        Lines that came meanwhile wait for others, as the first did: under load this thread would
        else never rest, write a line or two at a time, and contend with those that log.
        """
        with self._lock:
            batch = list(islice(self._queue, _MAX_BATCH_LINES))
            lines = [entry if isinstance(entry, bytes) else entry[0] for entry in batch]
            size = sum(map(len, lines))
            while size > _MAX_BATCH_BYTES and len(lines) > 1:
                batch.pop()
                size -= len(lines.pop())
            queue = self._queue
            rest = deque(islice(queue, len(batch), None))
            count = len(batch) + len(rest)
            # In one step: an exception in this thread finds each line here or there.
            self._in_flight, self._queue = batch, rest
            rest.extend(islice(queue, count, None))  # what this thread itself has logged amid it
            self._is_hurried = False
        if not batch:
            return False
        self._write_began = time.monotonic()
        try:
            outcome = self._target.write(lines)
        except Exception as error:  # noqa: BLE001 - a target's own fault fails its lines, and no more
            outcome = Outcome(0, error)
        self._settle(batch, outcome)
        return bool(rest)

    def _settle(self, batch: list[bytes | Entry], outcome: Outcome) -> None:
        """Accounts for a batch, and tells those who wait for lines of it."""
        failed = len(batch) - outcome.written
        if outcome.error is not None:
            self._complain(outcome.error, failed)  # first: who flushes may end the process then
        with self._lock:
            self._in_flight, self._write_began = [], 0.0
            self._written += outcome.written
            self._failed += failed
            if failed and outcome.error is not None:
                self._failed_by[_name_of(outcome.error)] += failed
            if self._flushes:
                self._progress.notify_all()
            drops = 0
            if not self._queue and not self._closing:
                drops, self._unreported_drops = self._unreported_drops, 0
        written = batch[: outcome.written] if failed else batch
        settle_lines(self.name, _proofs_of(written), "written")
        if failed and outcome.error is not None:
            why = _words_of(outcome.error)
            settle_lines(self.name, _proofs_of(batch[outcome.written :]), "failed", why)
        if drops:
            try:
                self._report_drops(self.name, drops)
            except Exception as error:  # noqa: BLE001 - it goes through anybody's handlers and filters
                self._complain(error, 0)

    def _complain(self, error: BaseException, failed: int, before: str = "") -> None:
        now = time.monotonic()
        if now >= self._next_complaint:
            self._next_complaint = now + _COMPLAINT_INTERVAL_S
            what = f"{failed} lines failed: " if failed else ""
            why = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
            _complain(f"sink {self.name}: {before}{what}{why}")


_QUEUE_IS_FULL = "its queue is full"
_IS_CLOSED = "the log is closed"


def _words_of(error: BaseException) -> str:
    """What an error says that may be told to anybody: the system's words, and never a path."""
    return getattr(error, "strerror", None) or type(error).__name__


def _name_of(error: BaseException) -> str:
    """The kind of an error, for counting: the system's name of it, else the exception's."""
    number = getattr(error, "errno", None)
    return errno.errorcode.get(number, type(error).__name__) if number else type(error).__name__


def _proofs_of(entries: Iterable[bytes | Entry]) -> list[Proof]:
    return [entry[1] for entry in entries if not isinstance(entry, bytes) and entry[1] is not None]


def close_sinks(sinks: Iterable[Sink], timeout_s: float) -> None:
    """Closes all of them, with one deadline: one that takes nothing costs no other its time."""
    deadline = time.monotonic() + timeout_s
    for sink in sinks:
        sink.refuse_more()
        sink.hurry()
    for sink in sinks:
        sink.close(max(0.0, deadline - time.monotonic()))


_sinks: WeakSet[Sink] = WeakSet()


def _begin_in_child() -> None:
    for sink in _sinks:
        sink.begin_in_child()
    multiprocessing = sys.modules.get("multiprocessing.util")
    if multiprocessing is not None:
        # Its children end past `atexit`, and forget what was to be done at the end of their parent.
        multiprocessing.register_after_fork(
            _sinks, lambda _: multiprocessing.Finalize(None, _flush_all, exitpriority=0)
        )


def _flush_all() -> None:
    for sink in list(_sinks):
        sink.flush(_END_OF_CHILD_S)


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
        target = FileTarget(
            settings.path,
            max_bytes=settings.max_bytes,
            backups=settings.backups,
            fsync=settings.fsync,
        )
    else:
        target = StreamTarget(2 if settings.kind == "stderr" else 1)
    return Sink(name, settings, target, flush_ms=flush_ms, report_drops=report_drops)
