"""When connections are to be looked at: one timer for all of them, however many there are."""

import asyncio
import logging
import math
from contextvars import Context
from typing import Final, Protocol

TICK_S: Final = 0.25
"""How often the wheel turns; what is due is looked at two turns later at the latest."""

# So many are looked at in one go; then the loop has its turn.
_SLICE: Final = 10

_log = logging.getLogger(__name__)


class Looked(Protocol):
    """What a wheel looks at.

    Attributes:
        tick: the turn in which it is looked at; the wheel's to set.
    """

    tick: int

    def look(self, now: float) -> float:
        """Ends what is over; when to look again, in the loop's time, or inf for never.

        Args:
            now: the loop's time.
        """


class Wheel:
    """Looks at each of many when its time comes; moving one costs nothing that shows.

    Args:
        loop: whose time is meant.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._turns: dict[int, set[Looked]] = {}
        self._handle: asyncio.Handle | None = None
        self._present = 0
        self.failures = 0

    def add(self, looked: Looked, at: float) -> None:
        """Looks at it once `at` has come, and from then on as often as it says.

        Args:
            looked: is in no turn.
            at: in the loop's time.
        """
        looked.tick = tick = max(int(at / TICK_S) + 1, self._present + 1)
        turn = self._turns.get(tick)
        if turn is None:
            turn = self._turns[tick] = set()
        turn.add(looked)
        if self._handle is None:
            # Nobody's context: it is kept for as long as there are connections.
            self._handle = self._loop.call_later(TICK_S, self._turn, context=Context())

    def move(self, looked: Looked, at: float) -> None:
        """Looks at it at another time."""
        self.drop(looked)
        self.add(looked, at)

    def drop(self, looked: Looked) -> None:
        """Looks at it no more."""
        turn = self._turns.get(looked.tick)
        if turn is not None:
            turn.discard(looked)
            if not turn:
                del self._turns[looked.tick]

    def stop(self) -> None:
        """Looks at nothing any more."""
        self._turns.clear()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _turn(self) -> None:
        """Looks at what is due, some of it at a time."""
        now = self._loop.time()
        self._present = present = int(now / TICK_S)
        left = _SLICE
        while self._turns and (tick := min(self._turns)) <= present:
            turn = self._turns[tick]
            while turn and left:
                left -= 1
                self._look_at(turn.pop(), now)
            if turn:
                self._handle = self._loop.call_soon(self._turn)
                return
            self._turns.pop(tick, None)
        self._handle = self._loop.call_later(TICK_S, self._turn) if self._turns else None

    def _look_at(self, looked: Looked, now: float) -> None:
        try:
            at = looked.look(now)
        except Exception:  # noqa: BLE001 - logged and counted; the others are to be looked at
            self.failures += 1
            _log.exception("The limits of a connection cannot be kept; failures: %d", self.failures)
            at = now + 1
        self.drop(looked)  # it may have moved itself
        if at != math.inf:
            self.add(looked, at)
