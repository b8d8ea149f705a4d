"""Proofs: what the sinks' threads make of single lines, told to those who wait for it.

docs/decisions/0007 says how it fits together.
"""

import asyncio
import contextlib
from collections.abc import Iterable
from math import floor
from threading import get_ident
from time import perf_counter
from typing import Final, Literal

SinkState = Literal["written", "failed", "dropped", "filtered", "timeout"]

OPTIONAL_WAIT_S: Final = 0.1
"""How long a proof waits for sinks that are not required, and how long a write of theirs may
stand still before it waits for them no more."""


Entry = tuple[bytes, "Proof | None", bool]
"""A line as a sink queues it, its proof, and whether it is urgent."""


ProvenEntry = tuple[bytes, "Proof", bool]
"""The same of one that has a proof."""


Outcome = tuple[SinkState, str | None, float]
"""A line's state in one sink, what went wrong, and the milliseconds until then."""


Told = tuple[SinkState, str | None, float]
"""A line's state in one sink, what went wrong, and when that was, by `perf_counter`."""


class Proof:
    """What the sinks make of one line; it begins when it is made.

    Args:
        its_round: the round that it is written in, which has it from now on.

    Attributes:
        round: that round.
        seen: whether the line came as far as the sinks.
        told: what each sink has made of it by now; a sink's own thread sets its entry.
        done: is set when nothing more is waited for.
    """

    __slots__ = ("_started", "done", "round", "seen", "told")

    def __init__(self, its_round: "Round") -> None:
        self._started = perf_counter()
        self.round = its_round
        its_round.proofs.append(self)
        self.told: dict[str, Told] = {}
        self.seen = False
        self.done: asyncio.Future[None] = its_round.loop.create_future()

    def settle(self, sink: str, state: SinkState, error: str | None) -> None:
        """Notes what one sink has made of the line; from any thread."""
        self.told[sink] = state, error, perf_counter()

    def outcome(self, sink: str) -> Outcome:
        """What one sink has made of the line by now; `timeout` where nothing was heard of it."""
        told = self.told.get(sink)
        if told is not None:
            state, error, at = told
            # To the microsecond, in a third of the time that `round` takes.
            return state, error, floor((at - self._started) * 1e6) / 1e3
        took_ms = floor((perf_counter() - self._started) * 1e6) / 1e3
        return "timeout", f"not written within {took_ms / 1000:.2g} s", took_ms


class Round:
    """The proofs of a few turns of an event loop: written together, waited for together.

    Args:
        loop: the loop, in whose thread everything here runs.
        optional: the names of sinks that are waited for but shortly.
        timeout_s: how long the others are waited for, in seconds.

    Attributes:
        loop: the loop.
        thread: the number of its thread.
        lines: at INFO, to be queued when it goes.
        proofs: all of them, until they are waited for no more.
    """

    __slots__ = (
        *("_is_over", "_optional", "_timeout_s", "_timer", "_waiting"),
        *("lines", "loop", "proofs", "thread"),
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop, optional: frozenset[str], timeout_s: float
    ) -> None:
        self.loop = loop
        self.thread = get_ident()
        self.lines: list[ProvenEntry] = []
        self.proofs: list[Proof] = []
        self._optional = optional
        self._timeout_s = timeout_s
        self._waiting: dict[str, int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._is_over = False

    def is_for(self, proof: Proof) -> bool:
        """Whether the line of a proof comes now, once, in this thread, before it goes."""
        if proof.seen or self._is_over or get_ident() != self.thread:
            return False
        proof.seen = True
        return True

    def expect(self, sink: str, count: int) -> None:
        """Waits for so many more lines in a sink."""
        if count:
            self._waiting[sink] = self._waiting.get(sink, 0) + count

    def go(self, stalled: Iterable[str]) -> None:
        """Begins to wait; no line joins any more.

        Args:
            stalled: sinks that have stood still for so long that waiting is no use; it is only
                spared for those that are optional.
        """
        self._is_over = True
        for sink in self._optional.intersection(stalled):
            self._waiting.pop(sink, None)
        if not self._waiting:
            self._finish()
            return
        wait_s, expired = self._timeout_s, self._finish
        if not self._optional.isdisjoint(self._waiting):
            wait_s, expired = min(OPTIONAL_WAIT_S, wait_s), self._forgo_optional
        self._timer = self.loop.call_later(wait_s, expired)

    def acknowledge(self, sink: str, count: int) -> None:
        """Is told that so many of its lines are settled in a sink."""
        left = self._waiting.get(sink)
        if left is None:
            return  # it was given up
        if left > count:
            self._waiting[sink] = left - count
            return
        del self._waiting[sink]
        if not self._waiting:
            self._finish()

    def _forgo_optional(self) -> None:
        for sink in self._optional:
            self._waiting.pop(sink, None)
        if not self._waiting:
            self._finish()
            return
        self._timer = self.loop.call_later(self._timeout_s - OPTIONAL_WAIT_S, self._finish)

    def _finish(self) -> None:
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
        for proof in self.proofs:
            if not proof.done.done():  # who waited may have been cancelled
                proof.done.set_result(None)
        self.proofs.clear()


def settle_lines(
    sink: str, proofs: Iterable[Proof], state: SinkState, error: str | None = None
) -> None:
    """Settles one line of each of `proofs` in a sink, and tells their rounds; from any thread."""
    told = state, error, perf_counter()
    rounds: dict[Round, int] = {}
    for proof in proofs:
        proof.told[sink] = told
        rounds[proof.round] = rounds.get(proof.round, 0) + 1
    loops: dict[asyncio.AbstractEventLoop, list[tuple[Round, int]]] = {}
    for its_round, count in rounds.items():
        loops.setdefault(its_round.loop, []).append((its_round, count))
    for loop, counts in loops.items():
        with contextlib.suppress(RuntimeError):  # it is closed, and who waited gone with it
            loop.call_soon_threadsafe(_acknowledge, sink, counts)


def _acknowledge(sink: str, counts: list[tuple[Round, int]]) -> None:
    for its_round, count in counts:
        its_round.acknowledge(sink, count)
