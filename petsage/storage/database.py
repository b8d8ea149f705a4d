"""A feature's way to the database: its tables brought up to date, then reads and writes.

Longer than 300 lines, of which many say what may be raised.
"""

import asyncio
import contextlib
import contextvars
import logging
from asyncio import sleep  # by a name that no feature can break for it
from collections.abc import AsyncIterator, Callable, Sequence
from time import perf_counter
from typing import Any, Concatenate, Final, NoReturn, ParamSpec, Protocol, TypeVar

from aiohttp import web
from sqlalchemy import Connection, MetaData

from petsage import Check
from petsage.errors import StorageError, words_of
from petsage.feature import FEATURE_NAME, Lifespan
from petsage.settings import SQLITE, DatabaseSettings
from petsage.shared_database import SHARED_DATABASE, DatabaseCounts, Kind, SharedDatabase
from petsage.storage.faults import FIX, Moved, Taken, Unavailable, taken, unavailable
from petsage.storage.migrating import (
    Migration,
    bring_up_to_date,
    require_line,
    require_tables,
)

_log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_PAUSE_S: Final = 0.25
_LONGEST_PAUSE_S: Final = 5.0
_START_SHARE: Final = 0.8
"""How much of its time a feature's start waits for tables that take long."""


class Engine(Protocol):
    """Connections to a database, and how a function gets one."""

    def read(self, mark: Any, function: Any, args: Any, kwargs: Any) -> "asyncio.Future[Any]":
        """What a function of a read-only connection and these arguments returns."""

    def write(self, mark: Any, function: Any, args: Any, kwargs: Any) -> "asyncio.Future[Any]":
        """What a function of a connection and these arguments returns, in one transaction."""

    async def bring_up(self, function: Callable[[Connection], None]) -> Any:
        """Has a function change tables; a mark of their database, by which it is known again."""

    async def look(self, *, also_writes: bool) -> None:
        """Asks whether the database is there."""

    def forget(self) -> None:
        """Lets go of what is kept of features' statements."""

    async def close(self) -> None:
        """Ends what runs, and closes the connections."""


class Database:
    """The database, for one feature.

    Args:
        engine: the connections.
        counts: what is told of them.
        feature: the feature's name.
        migrations: the steps to its tables.
        metadata: what its tables have to be behind these steps.
    """

    def __init__(
        self,
        engine: Engine,
        counts: DatabaseCounts,
        *,
        feature: str,
        migrations: Sequence[Migration],
        metadata: Sequence[MetaData] = (),
    ) -> None:
        self._engine = engine
        self._counts = counts
        self._feature = feature
        self._migrations = tuple(migrations)
        self._metadata = tuple(metadata)
        self._mark: Any = None
        self._reason = "its tables are being brought up to date"
        self._task: asyncio.Task[None] | None = None
        self._look: asyncio.Task[None] | None = None
        self._is_over = False

    async def read(
        self, ask: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """What `ask` returns, given a read-only connection and these arguments.

        Args:
            ask: a plain function; it may run in a thread, and more than once.
            *args: what it is given besides.
            **kwargs: likewise.

        Raises:
            Problem: 503, the database is away or overloaded; 422, a text is none that it keeps.
                And whatever `ask` raises.
        """
        mark, counts = self._mark, self._counts
        if mark is None:
            self._refuse("read", Unavailable("away", self._reason))
        started = perf_counter()
        counts.waiting += 1
        try:
            answer: T = await self._engine.read(mark, ask, args, kwargs)
        except (Unavailable, Taken) as error:
            self._refuse("read", error)
        finally:
            counts.waiting -= 1
        counts.done["read"] += 1
        counts.seconds["read"] += perf_counter() - started
        if counts.away:
            counts.note_back("read")
        return answer

    async def write(
        self, do: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """What `do` returns, given a connection and these arguments, once the disk has it all.

        Args:
            do: a plain function; it may run in a thread, and more than once, of which one counts.
                Where it raises, nothing is written.
            *args: what it is given besides.
            **kwargs: likewise.

        Raises:
            Problem: 503, the database is away or overloaded; 409, something that has to be unique
                is taken, `errors` says which; 422, a text is none that it keeps. And whatever
                `do` raises.
        """
        mark, counts = self._mark, self._counts
        if mark is None:
            self._refuse("write", Unavailable("away", self._reason))
        started = perf_counter()
        counts.waiting += 1
        try:
            answer: T = await self._engine.write(mark, do, args, kwargs)
        except (Unavailable, Taken) as error:
            self._refuse("write", error)
        finally:
            counts.waiting -= 1
        counts.done["write"] += 1
        counts.seconds["write"] += perf_counter() - started
        if counts.away:
            counts.note_back("write")
        return answer

    async def check(self) -> None:
        """Returns where the database can be used.

        Raises:
            StorageError: it cannot; who asks at the same time is told the same.
        """
        if self._look is None or self._look.done():
            self._look = asyncio.create_task(
                self._look_now(), name="look at the database", context=contextvars.Context()
            )
            # Whoever asked may have gone by the time that it is known.
            self._look.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(self._look)

    async def start(self, limit_s: float) -> None:
        """Begins to bring the tables up to date, and waits for it, within limits.

        Where the database is away, or the tables take longer, that goes on behind it.

        Raises:
            StorageError: the tables are newer than the code.
            Exception: whatever a migration raises.
        """
        self._begin()
        task = self._task
        if task is None:
            return
        first = asyncio.create_task(self._tried.wait())
        try:
            await asyncio.wait({task, first}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            first.cancel()
        if task.done() and not task.cancelled():
            task.result()

    async def stop(self) -> None:
        """Ends what goes on behind, and lets go of what is kept of statements."""
        self._is_over = True
        for task in (self._task, self._look):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task
        self._task = self._look = None
        self._mark = None
        self._engine.forget()

    def _refuse(self, kind: Kind, error: Unavailable | Taken) -> NoReturn:
        """Answers for the database."""
        if isinstance(error, Taken):
            if self._counts.away:
                self._counts.note_back(kind)
            raise taken(error.columns) from None
        counts = self._counts
        counts.refused[error.kind] += 1
        if error.kind == "busy":
            counts.note_busy(error.reason)
        elif self._mark is not None:
            counts.note_away(kind, error.reason)
        if isinstance(error, Moved):
            self._begin()
        raise unavailable(error.kind) from None

    def _begin(self) -> None:
        """Begins to bring the tables up to date; nothing is asked of them meanwhile."""
        self._mark = None
        if not self._is_over and (self._task is None or self._task.done()):
            self._tried = asyncio.Event()
            self._task = asyncio.create_task(
                self._bring_up(),
                name=f"tables of {self._feature}",
                context=contextvars.Context(),
            )
            self._task.add_done_callback(self._note_end)

    def _note_end(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled():
            self._begin()  # unless it is over, a feature has done it, to whatever tasks there are
        elif (error := task.exception()) is not None:
            self._reason = f"its tables cannot be brought up to date: {words_of(error)}"
            if self._tried.is_set():  # else whoever started it is told
                _log.error("The tables of feature %s: %s", self._feature, error, exc_info=error)

    async def _bring_up(self) -> None:
        """Brings the tables up to date, as soon as the database is there."""
        pause_s = _PAUSE_S
        while True:
            try:
                self._mark = await self._engine.bring_up(self._migrate)
            except Unavailable as error:
                self._reason = error.reason
                self._counts.note_away("write", error.reason)
                self._tried.set()
            else:
                if self._counts.away:
                    self._counts.note_back("write")
                return
            await sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _migrate(self, connection: Connection) -> None:
        bring_up_to_date(connection, self._feature, self._migrations)
        for each in self._metadata:
            require_tables(connection, self._feature, each)

    async def _look_now(self) -> None:
        if self._mark is None:
            raise _told(self._reason)
        also_writes = "write" in self._counts.away
        try:
            await self._engine.look(also_writes=also_writes)
        except Unavailable as error:
            if error.kind == "away":
                self._counts.note_away("write" if also_writes else "read", error.reason)
            raise _told(error.reason) from None
        if self._counts.away:
            self._counts.note_back("write" if also_writes else "read")


def _told(reason: str) -> StorageError:
    """A reason as an error."""
    problem, _, fix = reason.partition(FIX)
    return StorageError(problem, fix=fix or "wait, or see the log")


DATABASE: Final = web.AppKey("database", Database)
"""The database in the application of a feature that keeps data."""


async def _probe(app: web.Application) -> None:
    await app[DATABASE].check()


DATABASE_CHECK: Final = Check("database", _probe)
"""Whether the database can be used, for the `checks` of a feature that keeps data."""


def keeps(migrations: Sequence[Migration], *metadata: MetaData) -> Lifespan:
    """The lifespan of a feature that keeps data: its tables are brought up to date at its start.

    Args:
        migrations: the steps to its tables, the oldest first.
        metadata: what its stores describe, which is looked for once the steps are done.

    A database that is away keeps no feature from starting: it answers 503 until the database is
    there. Tables that are newer than the code do, and those that have other columns.

    Raises:
        StorageError: the migrations are no line.
    """
    require_line(migrations)

    async def lifespan(app: web.Application) -> AsyncIterator[None]:
        shared: SharedDatabase = app[SHARED_DATABASE]
        engine = await shared.enter(open_engine)
        try:
            database = Database(
                engine,
                shared.counts,
                feature=app[FEATURE_NAME],
                migrations=migrations,
                metadata=metadata,
            )
            try:
                await database.start(shared.start_s * _START_SHARE)
                app[DATABASE] = database
                yield
            finally:
                await database.stop()
        finally:
            await shared.leave()

    return lifespan


async def open_engine(settings: DatabaseSettings) -> Engine:
    """The engine that a URL asks for; the other one is not imported."""
    # ruff: noqa: PLC0415
    if settings.url.startswith(SQLITE):
        from petsage.storage.sqlite import SqliteEngine

        return SqliteEngine(settings)
    from petsage.storage.postgresql import PostgresqlEngine

    return PostgresqlEngine(settings)  # type: ignore[return-value] # awaited all the same
