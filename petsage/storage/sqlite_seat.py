"""What a thread that works on a SQLite database has: its jobs, and a connection for good."""

import asyncio
import contextlib
import contextvars
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, RootTransaction
from sqlalchemy.exc import DBAPIError

from petsage.storage.faults import Moved, Unavailable
from petsage.storage.sqlite_file import File, Mark, mark_of

Ended = tuple[Any, BaseException | None]
"""What a job's function has returned, or raised."""


class Job:
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
        self.seat: Seat | None = None

    def take(self) -> bool:
        """Whether whoever asks has the job now."""
        try:
            return self.turn.pop()
        except IndexError:
            return False


class NotBegun(Unavailable):
    """No transaction can begin now."""


class Seat:
    """A thread's connection, opened when it is needed."""

    def __init__(self, file: File, *, is_writer: bool) -> None:
        self.is_writer = is_writer
        self._file = file
        self._path = file.path
        self._engine = file.engines[is_writer]
        self._lock = threading.Lock()
        self._job: Job | None = None
        self._connection: Connection | None = None
        self._driver: Any = None
        self._mark: Mark | None = None

    def begin(self, job: Job) -> None:
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

    def interrupt(self, job: Job) -> None:
        """Has a job's statement fail, where that still runs."""
        with self._lock:
            if self._job is job and self._driver is not None:
                self._driver.interrupt()

    def perform(self, job: Job) -> Any:
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
        if self.is_writer and self._mark != mark_of(self._path):
            raise self._moved()  # while it was written: the new one has nothing of it
        return value

    def perform_together(self, jobs: Sequence[Job]) -> list[Ended]:
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
        if self._mark != mark_of(self._path):
            raise self._moved()
        return ended

    def _begun(self, connection: Connection) -> RootTransaction:
        """A transaction that has the lock.

        Raises:
            NotBegun: it is not to be had.
        """
        try:
            return connection.begin()
        except DBAPIError as error:
            told = self._file.told(error, is_writer=True)
            if isinstance(told, Unavailable):
                raise NotBegun(told.kind, told.reason) from None
            raise

    def _perform_within(self, job: Job, connection: Connection) -> Ended:
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

    def _connection_for(self, job: Job) -> Connection:
        if self._connection is not None and self._mark != mark_of(self._path):
            self.close()
        if self._connection is None:
            self._connection = self._engine.connect()
            self._driver = self._connection.connection.driver_connection
            self._mark = mark_of(self._path)
        if job.mark is not None and job.mark != self._mark:
            raise self._moved()
        return self._connection

    def _moved(self) -> Moved:
        return Moved(
            "away", f"{self._path} is another file than it was; its tables are looked at first"
        )
