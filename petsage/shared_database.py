"""The one database of the process, as far as it is known to who does not use it.

Nothing here imports SQLAlchemy: whoever keeps no data pays nothing for it.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal, Protocol, get_args

from aiohttp import web

from petsage.settings import DatabaseSettings

_log = logging.getLogger(__name__)

Kind = Literal["read", "write"]
Reason = Literal["away", "busy"]

_SAY_BUSY_S: Final = 60.0
"""That the database is overloaded is logged so often at the most."""


class Engine(Protocol):
    """What holds the connections."""

    async def close(self) -> None:
        """Ends what runs, and closes all of them."""


class DatabaseCounts:
    """What was asked of the database, and what became of it.

    Attributes:
        is_open: whether any feature keeps data.
        done: reads and writes that the database has answered, with errors of the caller's, too.
        seconds: how long these took together, the wait for a turn included.
        refused: those that were answered 503, because the database was away or busy.
        waiting: how many wait for a turn, or run.
        outages: how often it went away.
        away: why it cannot be read from, or written to, where it cannot.
    """

    def __init__(self) -> None:
        self.is_open = False
        self.done: dict[Kind, int] = dict.fromkeys(get_args(Kind), 0)
        self.seconds: dict[Kind, float] = dict.fromkeys(get_args(Kind), 0.0)
        self.refused: dict[Reason, int] = dict.fromkeys(get_args(Reason), 0)
        self.waiting = 0
        self.outages = 0
        self.away: dict[Kind, str] = {}
        self._since = 0.0
        self._said_busy = float("-inf")

    def note_away(self, kind: Kind, reason: str) -> None:
        """Notes that the database cannot be read from, or written to; it is logged once."""
        if not self.away:
            self.outages += 1
            self._since = time.monotonic()
            what = "used" if kind == "read" else "written to"
            _log.error("The database cannot be %s: %s", what, reason)
        self.away[kind] = reason

    def note_busy(self, reason: str) -> None:
        """Notes that the database is there, and too slow; it is logged once a minute."""
        now = time.monotonic()
        if now - self._said_busy >= _SAY_BUSY_S:
            self._said_busy = now
            _log.warning("The database is overloaded: %s", reason)

    def note_back(self, kind: Kind) -> None:
        """Notes that the database was read from, or written to, as wished."""
        was_away = bool(self.away)
        self.away.pop(kind, None)
        if kind == "write":
            self.away.pop("read", None)  # who can write there can read there
        if was_away and not self.away:
            _log.info(
                "The database can be used again, after %.1f s", time.monotonic() - self._since
            )


class SharedDatabase:
    """Opened by the first feature that keeps data, and closed behind the last.

    Args:
        settings: where it is.
        start_s: how long a feature's start may wait for it, in seconds.

    Attributes:
        counts: what was asked of it.
    """

    def __init__(self, settings: DatabaseSettings, *, start_s: float) -> None:
        self.settings = settings
        self.start_s = start_s
        self.counts = DatabaseCounts()
        self._engine: Any = None
        self._users = 0
        self._lock = asyncio.Lock()

    async def enter(self, open_engine: Callable[[DatabaseSettings], Awaitable[Any]]) -> Any:
        """The engine, opened where it is not; whoever has it calls `leave`.

        Args:
            open_engine: opens it; what it raises is raised here.
        """
        async with self._lock:
            if self._engine is None:
                self._engine = await open_engine(self.settings)
                self.counts.is_open = True
            self._users += 1
            return self._engine

    async def leave(self) -> None:
        """Lets go of the engine; it is closed where nobody has it any more."""
        async with self._lock:
            self._users -= 1
            if not self._users:
                engine, self._engine = self._engine, None
                self.counts.is_open = False
                self.counts.away.clear()
                await engine.close()


SHARED_DATABASE: Final = web.AppKey("shared_database", SharedDatabase)
"""The database in the root application, and in each feature's."""
