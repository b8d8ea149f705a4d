"""The file of a SQLite database: made, opened, known again, and what its errors mean."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from sqlalchemy import create_engine
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from petsage.storage.faults import Taken, Unavailable, columns_in_sqlite, not_kept

_CACHED_STATEMENTS: Final = 512

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


class File:
    """Where a database is kept, and connections to it.

    Args:
        path: of the file.
        timeout_s: how long other processes' locks are waited for, in seconds.

    Attributes:
        engines: by whether they write, what SQLAlchemy makes connections with.
    """

    def __init__(self, path: Path, timeout_s: float) -> None:
        self.path = path
        self._timeout_s = timeout_s
        self._was_there = False
        self.engines = {
            is_writer: create_engine(
                "sqlite+petsage://",
                creator=self._connect_writer if is_writer else self._connect_reader,
                poolclass=NullPool,
                hide_parameters=True,
            )
            for is_writer in (True, False)
        }

    def told(self, error: BaseException, *, is_writer: bool) -> BaseException:
        """What an error means; itself where it is the function's own."""
        cause = error.orig if isinstance(error, DBAPIError) else error
        if not isinstance(cause, sqlite3.Error):
            return not_kept(error) or error
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
        with self._connected(_Driver) as driver:
            driver.execute("PRAGMA query_only = ON")
        return driver

    def _connect_writer(self) -> sqlite3.Connection:
        if not self._was_there:
            self._make_file()
        with self._connected(_Writer) as driver:
            mode = driver.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            if mode != "wal":
                raise Unavailable(
                    "away",
                    f"{self.path} cannot have a write-ahead log; fix: put it on a local disk",
                )
        self._was_there = True
        return driver

    @contextlib.contextmanager
    def _connected(self, factory: type[_Driver]) -> Iterator[sqlite3.Connection]:
        """A connection, which is closed where something is wrong with it."""
        driver = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=self._timeout_s,
            isolation_level=None,
            check_same_thread=False,  # the loop interrupts
            cached_statements=_CACHED_STATEMENTS,
            factory=factory,
        )
        try:
            driver.execute("PRAGMA foreign_keys = ON")
            # What was acknowledged survives a power failure; NORMAL would lose the last of it.
            driver.execute("PRAGMA synchronous = FULL")
            yield driver
        except BaseException:
            driver.close()
            raise

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


def mark_of(path: Path) -> Mark:
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
