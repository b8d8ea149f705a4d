"""SQLite: one thread that writes, a few that read, each with a connection of its own.

A thread has its connection for good: taking one out of a pool for each request costs more than most
of what is asked. What they have done is handed back to the event loop in one go where several
are done at once.

Longer than 300 lines: a job's way from the loop to a thread and back is read as one.
"""

import asyncio
import contextlib
import contextvars
import logging
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final

from sqlalchemy import Connection, RootTransaction, create_engine
from sqlalchemy import Engine as SqlEngine
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from petsage.settings import SQLITE, DatabaseSettings
from petsage.shared_database import DatabaseCounts
from petsage.storage.caches import forget_all
from petsage.storage.faults import Moved, Taken, Unavailable, columns_in_sqlite

_log = logging.getLogger(__name__)

_READERS: Final = 4
_LOOK_S: Final = 0.25
_HELP_S: Final = 0.01
"""A reader that takes so long for one thing is helped by another."""

_GRACE_S: Final = 1.0
"""How long what was interrupted may take to end."""

_PATIENCE: Final = 5
"""Nobody waits for longer than so many times what a job may run."""
_CACHED_STATEMENTS: Final = 512
_MOST_AT_ONCE: Final = 64
"""How many writes share a transaction, and so the disk's time, where as many wait."""

_Ended = tuple[Any, BaseException | None]
Mark = tuple[int, int]
"""Which file it is: its device and number."""


class _Driver(sqlite3.Connection):
    """A connection that knows how its transactions begin."""

    begin = "BEGIN"


class _Writer(_Driver):
    """One whose transactions take the lock at once: none fails in its midst for want of it."""

    begin = "BEGIN IMMEDIATE"


class Dialect(SQLiteDialect_pysqlite):
    """SQLite whose transactions begin where SQLAlchemy's do; the driver begins none by itself."""

    supports_statement_cache = True

    def do_begin(self, dbapi_connection: Any) -> None:
        """Begins a transaction."""
        driver = dbapi_connection.dbapi_connection
        driver.execute(driver.begin)


registry.register("sqlite.petsage", __name__, "Dialect")


class _Job:
    """Something to be done in a thread.

    Attributes:
        mark: the file that it is for, None for any.
        limit_s: how long it may run, None for as long as it takes.
        turn: one who takes what is in it has the job: the thread that does it, or the loop that
            gives it up.
    """

    __slots__ = (
        *("args", "began", "context", "future", "function", "kwargs", "limit_s", "mark"),
        *("put", "seat", "turn"),
    )

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        mark: Mark | None,
        limit_s: float | None,
        future: asyncio.Future[Any],
    ) -> None:
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.mark = mark
        self.limit_s = limit_s
        self.future = future
        self.context = contextvars.copy_context()
        self.turn = [True]
        self.put = time.monotonic()
        self.began = 0.0
        self.seat: _Seat | None = None

    def take(self) -> bool:
        """Whether whoever asks has the job now."""
        try:
            return self.turn.pop()
        except IndexError:
            return False


class SqliteEngine:
    """The connections to one file, and the threads that use them.

    Args:
        settings: where the file is, and the time limits.
        counts: what is told of it.

    It is made in the event loop that uses it.
    """

    needs_threads = True

    def __init__(self, settings: DatabaseSettings, counts: DatabaseCounts) -> None:
        self.path = Path(settings.url.removeprefix(SQLITE))
        self.timeout_s = settings.timeout_s
        self._counts = counts
        self._loop = asyncio.get_running_loop()
        self._had_file = False
        self._jobs: dict[_Job, None] = {}
        self._done: deque[tuple[_Job, Any, BaseException | None]] = deque()
        self._is_told = False
        self._timer: asyncio.TimerHandle | None = None
        self._reads: SimpleQueue[_Job | None] = SimpleQueue()
        self._writes: SimpleQueue[_Job | None] = SimpleQueue()
        self._engines = {
            is_writer: create_engine(
                "sqlite+petsage://",
                creator=self._connect_writer if is_writer else self._connect_reader,
                poolclass=NullPool,
                hide_parameters=True,
            )
            for is_writer in (True, False)
        }
        self._ended = self._loop.create_future()
        self._threads: list[threading.Thread] = []
        self._running = 0
        self._taken = 0
        self._seen = 0
        self._calling: asyncio.TimerHandle | None = None
        self._calls: SimpleQueue[bool] = SimpleQueue()
        self._begin_thread(self._write_on, is_writer=True)
        self._begin_thread(self._read_on, is_writer=False)
        for _ in range(min(_READERS, settings.pool_size - 1) - 1):
            self._begin_thread(self._help_on, is_writer=False)

    def read(
        self,
        mark: Mark | None,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> asyncio.Future[Any]:
        """What a function of a read-only connection and these arguments returns."""
        return self._put(self._reads, mark, function, args, kwargs, limit_s=self.timeout_s)

    def write(
        self,
        mark: Mark | None,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> asyncio.Future[Any]:
        """What a function of a connection and these arguments returns, once the disk has it."""
        # It may have to wait for another process as long before it begins.
        return self._put(self._writes, mark, function, args, kwargs, limit_s=2 * self.timeout_s)

    async def bring_up(self, function: Callable[[Connection], None]) -> Mark:
        """Has a function change tables, for as long as it takes; the mark of their database."""

        def change(connection: Connection) -> Mark:
            function(connection)
            return _mark_of(self.path)

        mark: Mark = await self._put(self._writes, None, change, (), {}, limit_s=None)
        return mark

    async def look(self, *, also_writes: bool) -> None:
        """Asks whether the database is there.

        Args:
            also_writes: whether to write something, too: what was there already.
        """
        if also_writes:
            await self._put(self._writes, None, _write_nothing, (), {}, limit_s=self.timeout_s)
        else:
            await self._put(self._reads, None, _read_something, (), {}, limit_s=self.timeout_s)

    def forget(self) -> None:
        """Lets go of what is kept of features' statements."""
        for engine in self._engines.values():
            forget_all(engine)

    async def close(self) -> None:
        """Waits for what runs, and closes the file."""
        self._reads.put(None)
        for _ in self._threads[2:]:
            self._calls.put(False)
        try:
            async with asyncio.timeout(self.timeout_s + _GRACE_S):
                await self._ended
        except TimeoutError:
            _log.error("The database is not closed: what runs there does not end")
        else:
            for thread in self._threads:
                thread.join()
        for timer in (self._timer, self._calling):
            if timer is not None:
                timer.cancel()
        for job in self._jobs:
            job.future.cancel()

    def _put(
        self,
        queue: "SimpleQueue[_Job | None]",
        mark: Mark | None,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        limit_s: float | None,
    ) -> asyncio.Future[Any]:
        future = self._loop.create_future()
        job = _Job(function, args, kwargs, mark=mark, limit_s=limit_s, future=future)
        self._jobs[job] = None
        if self._timer is None:
            self._look_later()
        if self._calling is None and queue is self._reads:
            self._call_later()
        queue.put(job)
        return future

    # In the event loop: what is done, and what takes too long.

    def _deliver(self) -> None:
        self._is_told = False
        while self._done:
            job, value, error = self._done.popleft()
            self._jobs.pop(job, None)
            if job.future.done():
                continue  # whoever has waited for it has gone
            if error is None:
                job.future.set_result(value)
            elif isinstance(error, StopIteration):  # a future takes none
                job.future.set_exception(RuntimeError("the function raised StopIteration"))
            else:
                job.future.set_exception(error)
        job = value = error = None  # type: ignore[assignment] # nothing is kept

    def _look_later(self) -> None:
        # In a context of its own, which is nobody's request.
        self._timer = self._loop.call_later(
            min(_LOOK_S, self.timeout_s / 4), self._look_at_jobs, context=contextvars.Context()
        )

    def _look_at_jobs(self) -> None:
        """Gives up what has waited for too long, and interrupts what runs for too long."""
        self._timer = None
        now = time.monotonic()
        for job in list(self._jobs):
            if job.began:
                self._look_at_running(job, now - job.began)
            elif now - job.put >= self.timeout_s and job.take():
                self._give_up(job, f"no turn within {self.timeout_s:g} s")
            elif job.limit_s is not None and now - job.put >= _PATIENCE * job.limit_s:
                self._give_up(job, "the disk does not take what is written")
        if self._jobs:
            self._look_later()

    def _look_at_running(self, job: _Job, ran_s: float) -> None:
        if job.limit_s is None or ran_s < job.limit_s or job.seat is None:
            return
        if ran_s < job.limit_s + _GRACE_S:
            job.seat.interrupt(job)
        else:
            self._give_up(job, f"a function runs for more than {job.limit_s:g} s")

    def _call_later(self) -> None:
        self._seen = self._taken
        self._calling = self._loop.call_later(
            _HELP_S, self._call_for_help, context=contextvars.Context()
        )

    def _call_for_help(self) -> None:
        """Calls a further reader where reads wait, and nothing has been begun for a while."""
        self._calling = None
        if not self._reads.empty():
            if self._taken == self._seen:
                self._calls.put(True)
            self._call_later()

    def _give_up(self, job: _Job, reason: str) -> None:
        del self._jobs[job]
        if not job.future.done():
            job.future.set_exception(Unavailable("busy", reason))

    # In the threads.

    def _begin_thread(self, work: "Callable[[_Seat], None]", *, is_writer: bool) -> None:
        name = "database-writer" if is_writer else f"database-reader-{len(self._threads)}"
        seat = _Seat(self, self._engines[is_writer], is_writer=is_writer)
        thread = threading.Thread(target=self._run, args=(work, seat), name=name, daemon=True)
        self._running += 1
        self._threads.append(thread)
        thread.start()

    def _run(self, work: "Callable[[_Seat], None]", seat: "_Seat") -> None:
        work(seat)
        seat.close()
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._note_end)

    def _note_end(self) -> None:
        self._running -= 1
        if self._running == 1:  # the writer's connection is closed last, and tidies up
            self._writes.put(None)
        if not self._running and not self._ended.done():
            self._ended.set_result(None)

    def _write_on(self, seat: "_Seat") -> None:
        """What the writer does."""
        is_open = True
        while is_open:
            job = self._writes.get()
            if job is None:
                break
            jobs, is_open = _those_waiting(self._writes, job)
            del job
            jobs = [each for each in jobs if self._takes(each)]
            if len(jobs) == 1 or not self._write_together(seat, jobs):
                for each in jobs:
                    self._perform(seat, each)
                    del each
            jobs.clear()

    def _read_on(self, seat: "_Seat") -> None:
        """What the first reader does: one that is never idle is better than several in turns."""
        while (job := self._reads.get()) is not None:
            if self._takes(job):
                self._perform(seat, job)
            del job

    def _help_on(self, seat: "_Seat") -> None:
        """What further readers do: they help when they are called, until nothing waits."""
        while self._calls.get():
            with contextlib.suppress(Empty):
                while (job := self._reads.get_nowait()) is not None:
                    if self._takes(job):
                        self._perform(seat, job)
                    del job
                self._reads.put(None)  # the end, which is the first reader's

    def _takes(self, job: _Job) -> bool:
        """Whether a job is to be done: somebody waits for it."""
        if job.future.cancelled():
            self._tell(job, None, None)
            return False
        self._taken += 1
        return job.take()

    def _perform(self, seat: "_Seat", job: _Job) -> None:
        """Does one job, in a transaction of its own."""
        value, error = None, None
        seat.begin(job)
        try:
            value = job.context.run(seat.perform, job)
        except BaseException as raised:  # noqa: BLE001 - it is raised where it is waited for
            error = self.told(raised, is_writer=seat.is_writer)
        seat.end()
        self._tell(job, value, error)

    def _write_together(self, seat: "_Seat", jobs: Sequence[_Job]) -> bool:
        """Does several jobs in one transaction, so that the disk is waited for once.

        Returns:
            Whether they are done. Else nothing is written, and each is to be tried by itself.
        """
        if any(job.limit_s is None for job in jobs):
            return False
        try:
            ended = seat.perform_together(jobs)
        except _NotBegun as raised:  # nor would it for each of them, one after another
            for job in jobs:
                self._tell(job, None, Unavailable(raised.kind, raised.reason))
            return True
        except BaseException:  # noqa: BLE001 - each tells by itself what is wrong
            return False
        for job, (value, error) in zip(jobs, ended, strict=True):
            self._tell(job, value, error and self.told(error, is_writer=True))
        return True

    def _tell(self, job: _Job, value: Any, error: BaseException | None) -> None:
        self._done.append((job, value, error))
        if not self._is_told:
            self._is_told = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                self._loop.call_soon_threadsafe(self._deliver)

    def told(self, error: BaseException, *, is_writer: bool) -> BaseException:
        """What an error means; itself where it is the function's own."""
        cause = error.orig if isinstance(error, DBAPIError) else error
        if not isinstance(cause, sqlite3.Error):
            return error
        code = getattr(cause, "sqlite_errorcode", 0)
        if code in {sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY}:
            return Taken(columns_in_sqlite(str(cause)))
        primary = code & 0xFF
        if primary == sqlite3.SQLITE_READONLY and not is_writer:
            return error  # a function that reads has tried to write
        if primary in _BUSY:
            return Unavailable("busy", _BUSY[primary])
        if primary in _AWAY:
            return Unavailable("away", f"{self.path}: {cause}; fix: {_AWAY[primary]}")
        return error

    # Connections.

    def _connect_reader(self) -> sqlite3.Connection:
        driver = self._connect(_Driver)
        driver.execute("PRAGMA query_only = ON")
        return driver

    def _connect_writer(self) -> sqlite3.Connection:
        if not self._had_file:
            self._make_file()
        driver = self._connect(_Writer)
        mode = driver.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            driver.close()
            raise Unavailable(
                "away", f"{self.path} cannot have a write-ahead log; fix: put it on a local disk"
            )
        self._had_file = True
        return driver

    def _connect(self, factory: type[_Driver]) -> sqlite3.Connection:
        driver = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=self.timeout_s,
            isolation_level=None,
            check_same_thread=False,  # the loop interrupts
            cached_statements=_CACHED_STATEMENTS,
            factory=factory,
        )
        driver.execute("PRAGMA foreign_keys = ON")
        # What was acknowledged survives a power failure; NORMAL would lose the last of it.
        driver.execute("PRAGMA synchronous = FULL")
        return driver

    def _make_file(self) -> None:
        """Makes the file, and its folder, for nobody else to read, where they are not there."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except OSError as error:
            raise Unavailable(
                "away",
                f"{self.path} cannot be made: {error.strerror}; fix: make its folder writable to "
                "the server, or set [database].url",
            ) from None


class _NotBegun(Unavailable):
    """No transaction can begin now."""


class _Seat:
    """A thread's connection, opened when it is needed."""

    def __init__(self, owner: SqliteEngine, engine: SqlEngine, *, is_writer: bool) -> None:
        self.is_writer = is_writer
        self._owner = owner
        self._path = owner.path
        self._engine = engine
        self._lock = threading.Lock()
        self._job: _Job | None = None
        self._connection: Connection | None = None
        self._driver: Any = None
        self._mark: Mark | None = None

    def begin(self, job: _Job) -> None:
        """Notes what runs from now on."""
        job.seat = self
        job.began = time.monotonic()
        with self._lock:
            self._job = job

    def end(self) -> None:
        """Notes that nothing runs."""
        with self._lock:
            if self._job is not None:
                self._job.began = 0.0
            self._job = None

    def interrupt(self, job: _Job) -> None:
        """Has a job's statement fail, where that still runs."""
        with self._lock:
            if self._job is job and self._driver is not None:
                self._driver.interrupt()

    def perform(self, job: _Job) -> Any:
        """What a job's function returns, in one transaction."""
        connection = self._connection_for(job)
        try:
            value = job.function(connection, *job.args, **job.kwargs)
            if self.is_writer:
                connection.commit()
            else:
                connection.rollback()
        except BaseException:
            self._undo(connection)
            raise
        if self.is_writer and self._mark != _mark_of(self._path):
            raise self._moved()  # while it was written: the new one has nothing of it
        return value

    def perform_together(self, jobs: Sequence[_Job]) -> list[_Ended]:
        """What the jobs' functions return, or raise, in one transaction for all of them.

        What one has done before it raised is undone.

        Raises:
            Exception: the whole is undone.
        """
        connection = self._connection_for(jobs[0])
        if any(job.mark != self._mark for job in jobs):
            raise self._moved()
        try:
            transaction = self._begun(connection)
            ended = [self._perform_within(job, connection) for job in jobs]
            transaction.commit()
        except BaseException:
            self._undo(connection)
            raise
        if self._mark != _mark_of(self._path):
            raise self._moved()
        return ended

    def _begun(self, connection: Connection) -> RootTransaction:
        """A transaction that has the lock.

        Raises:
            _NotBegun: it is not to be had.
        """
        try:
            return connection.begin()
        except DBAPIError as error:
            told = self._owner.told(error, is_writer=True)
            if isinstance(told, Unavailable):
                raise _NotBegun(told.kind, told.reason) from None
            raise

    def _perform_within(self, job: _Job, connection: Connection) -> _Ended:
        self._driver.execute("SAVEPOINT job")
        value, error = None, None
        self.begin(job)
        try:
            value = job.context.run(job.function, connection, *job.args, **job.kwargs)
        except Exception as raised:  # noqa: BLE001 - it is raised where it is waited for
            error = raised
        self.end()
        if error is not None:
            # Some errors have undone the whole: then there is no such savepoint, and this fails.
            self._driver.execute("ROLLBACK TO job")
        self._driver.execute("RELEASE job")
        return value, error

    def close(self) -> None:
        """Closes the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with self._lock:
                self._driver = None
            with contextlib.suppress(DBAPIError, sqlite3.Error):
                connection.close()

    def _undo(self, connection: Connection) -> None:
        try:
            connection.rollback()
        except (DBAPIError, sqlite3.Error):  # nobody knows how it is: the next job has another
            self.close()

    def _connection_for(self, job: _Job) -> Connection:
        if self._connection is not None and self._mark != _mark_of(self._path):
            self.close()
        if self._connection is None:
            self._connection = self._engine.connect()
            self._driver = self._connection.connection.driver_connection
            self._mark = _mark_of(self._path)
        if job.mark is not None and job.mark != self._mark:
            raise self._moved()
        return self._connection

    def _moved(self) -> Moved:
        return Moved(
            "away", f"{self._path} is another file than it was; its tables are looked at first"
        )


def _mark_of(path: Path) -> Mark:
    """Which file stands at a path.

    Raises:
        Unavailable: none does.
    """
    try:
        status = os.stat(path)  # noqa: PTH116 - for each request
    except OSError as error:
        raise Unavailable(
            "away",
            f"{path}: {error.strerror}; fix: put it back, or start anew without it",
        ) from None
    return status.st_dev, status.st_ino


def _those_waiting(queue: "SimpleQueue[_Job | None]", first: _Job) -> tuple[list[_Job], bool]:
    """The first job and those that wait behind it; and whether there may be more to come."""
    jobs = [first]
    while len(jobs) < _MOST_AT_ONCE:
        try:
            job = queue.get_nowait()
        except Empty:
            return jobs, True
        if job is None:
            return jobs, False
        jobs.append(job)
    return jobs, True


def _read_something(connection: Connection) -> None:
    connection.exec_driver_sql("SELECT count(*) FROM sqlite_master")


def _write_nothing(connection: Connection) -> None:
    version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    connection.exec_driver_sql(f"PRAGMA user_version = {int(version)}")


_BUSY: Final = {
    sqlite3.SQLITE_BUSY: "another process has it locked",
    sqlite3.SQLITE_LOCKED: "it is locked",
    sqlite3.SQLITE_INTERRUPT: "a statement took too long",
}
_AWAY: Final = {
    sqlite3.SQLITE_FULL: "make room on its disk",
    sqlite3.SQLITE_IOERR: "look after its disk",
    sqlite3.SQLITE_CANTOPEN: "let the server read and write it and its folder",
    sqlite3.SQLITE_READONLY: "let the server write it and its folder",
    sqlite3.SQLITE_PERM: "let the server read and write it and its folder",
    sqlite3.SQLITE_NOTADB: "put a SQLite database there, or set [database].url",
    sqlite3.SQLITE_CORRUPT: "put a backup in its place",
    sqlite3.SQLITE_NOMEM: "give the server more memory",
}
