"""A feature's tables, brought to where its code expects them, step by step.

Longer than 300 lines: each way in which steps and tables do not go together is told by itself.
"""

import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from inspect import iscoroutinefunction
from itertools import pairwise
from types import ModuleType
from typing import Final

from sqlalchemy import (
    Column,
    Connection,
    MetaData,
    Table,
    delete,
    insert,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateTable

from petsage.errors import StorageError, words_of
from petsage.storage.columns import NAMING, Text, UtcDateTime
from petsage.storage.faults import hide_values
from petsage.storage.operations import operating

_NAME: Final = re.compile(r"m(\d{4})_([a-z0-9_]+)")
_NONE: Final = "0000"
"""How far tables are that are not there."""

_LOCK: Final = int.from_bytes(b"petsage")
"""PostgreSQL's advisory lock that whoever migrates holds."""

_OF_SERVER: Final = frozenset({"08", "40", "53", "55", "57", "58", "XX"})
"""Classes of PostgreSQL's error codes that say how the server is: away, full, busy, stopped."""

_OF_STATEMENT: Final = frozenset(
    {
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_TOOBIG,
    }
)
"""SQLite's error codes that say what is wrong with a statement, or the data."""

_metadata: Final = MetaData(naming_convention=NAMING)

REVISIONS: Final = Table(
    "petsage_revisions",
    _metadata,
    Column("feature", Text, primary_key=True),
    Column("revision", Text, nullable=False),
    Column("applied_at", UtcDateTime, nullable=False),
)
"""How far the tables of each feature are."""


@dataclass(frozen=True)
class Migration:
    """One step in which a feature's tables came about.

    Attributes:
        revision: its number among the feature's, four digits from "0001" on.
        title: what it does, in a line.
        place: its module.
        upgrade: does it, by `alembic.op`.
        downgrade: takes it back.
    """

    revision: str
    title: str
    place: str
    upgrade: Callable[[], None]
    downgrade: Callable[[], None]

    @classmethod
    def of(cls, module: ModuleType) -> "Migration":
        """The migration that a module is: `m0001_create_pets.py`, its docstring the title.

        Raises:
            StorageError: the module has another name, or lacks a plain function.
        """
        name = module.__name__.rpartition(".")[2]
        match = _NAME.fullmatch(name)
        if match is None or match[1] == _NONE:
            raise StorageError(
                f"{_shown(module.__name__)} is no name of a migration",
                fix="call it m0001_<what it does>, the next one m0002_…",
            )
        functions = [getattr(module, each, None) for each in ("upgrade", "downgrade")]
        for function, wanted in zip(functions, ("upgrade", "downgrade"), strict=True):
            if not callable(function):
                raise StorageError(
                    f"the migration {_shown(module.__name__)} has no function `{wanted}`",
                    fix=f"write `def {wanted}() -> None:`",
                )
            if iscoroutinefunction(function):
                raise StorageError(
                    f"`{wanted}` of the migration {_shown(module.__name__)} is `async`, and nobody "
                    "would await it",
                    fix=f"write `def {wanted}() -> None:`",
                )
        lines = (module.__doc__ or "").strip().splitlines()
        title = lines[0].strip() if lines else match[2].replace("_", " ")
        upgrade, downgrade = functions
        return cls(match[1], title, module.__name__, upgrade, downgrade)  # type: ignore[arg-type] # both were found


def require_line(migrations: Sequence[Migration]) -> None:
    """Sees that migrations are a line from the first to the last, without a gap.

    Raises:
        StorageError: there are none, two of a number, one is missing, or they are out of order.
    """
    if not migrations:
        raise StorageError(
            "there is no migration, so that no table would be made",
            fix="write one: migrations/m0001_<what it does>.py, and name it in MIGRATIONS",
        )
    for one, other in pairwise(sorted(migrations, key=lambda each: each.revision)):
        if one.revision == other.revision:
            raise StorageError(
                f"{_shown(one.place)} and {_shown(other.place)} have the same number",
                fix="give the later one the next number",
            )
    for number, migration in enumerate(migrations, 1):
        if migration.revision == f"{number:04}":
            continue
        if any(each.revision == f"{number:04}" for each in migrations):
            raise StorageError(
                f"{_shown(migration.place)} stands before m{number:04} in MIGRATIONS",
                fix="list them by their numbers",
            )
        raise StorageError(
            f"{_shown(migration.place)} comes without m{number:04} before it",
            fix=f"put m{number:04} back, or into MIGRATIONS; numbers have no gaps",
        )


def pending(
    connection: Connection, feature: str, migrations: Sequence[Migration]
) -> tuple[Migration, ...]:
    """The migrations that a feature's tables lack, the next one first.

    It reads alone, so that a start where nothing lacks waits for no lock.

    Raises:
        StorageError: the tables are newer than these migrations.
    """
    if not inspect(connection).has_table(REVISIONS.name):
        return tuple(migrations)
    return tuple(migrations[_done(connection, feature, migrations) :])


def bring_up_to_date(
    connection: Connection, feature: str, migrations: Sequence[Migration]
) -> tuple[Migration, ...]:
    """Performs what a feature's tables lack, and says what that was.

    Args:
        connection: within a transaction that may write; on SQLite it has the write lock already
            (`BEGIN IMMEDIATE`). All of it takes place in this transaction, or nothing.
        feature: the feature's name.
        migrations: all of them, as `require_line` wants them.

    Raises:
        StorageError: the tables are newer than these migrations, a table of the same name is
            there, or a migration failed.
    """
    require_line(migrations)
    _lock(connection)
    connection.execute(CreateTable(REVISIONS, if_not_exists=True))
    lacking = pending(connection, feature, migrations)
    for migration in lacking:
        with _told(feature, migration, "failed"), operating(connection, f"features/{feature}"):
            migration.upgrade()
    if lacking:
        _note(connection, feature, lacking[-1].revision)
    return lacking


def require_tables(connection: Connection, feature: str, metadata: MetaData) -> None:
    """Returns where the tables of a store are there, and can take what it writes.

    It knows tables of the same name that another code has made, by other columns; types and
    indexes are not looked at.

    Raises:
        StorageError: a column is missing, or one is there that has to be written and is not known.
    """
    inspector = inspect(connection)
    for table in metadata.sorted_tables:
        there = inspector.get_columns(table.name) if inspector.has_table(table.name) else []
        missing = {*table.columns.keys()} - {column["name"] for column in there}
        unknown = {
            column["name"]
            for column in there
            if not column["nullable"] and column["default"] is None
        } - {*table.columns.keys()}
        for names, problem in ((missing, "lacks"), (unknown, "wants what nobody writes:")):
            if names:
                raise StorageError(
                    f"the table `{table.name}` {problem} {', '.join(sorted(names))}, so that it is "
                    f"not the one that features/{feature} describes",
                    fix="write a migration; or, where it is left of another feature of this name "
                    f"and nobody needs it, take `{feature}` back by `petsage build --undo "
                    f"{feature}`, drop the table by the same with --drop-data, and build it again",
                )


def drop_tables(
    connection: Connection, feature: str, migrations: Sequence[Migration]
) -> tuple[Migration, ...]:
    """Takes back every migration of a feature, the last one first: its data is lost.

    Args:
        connection: as for `bring_up_to_date`.
        feature: the feature's name.
        migrations: all of them.

    Returns:
        What was taken back; nothing where the feature has no tables.

    Raises:
        StorageError: the tables are newer than these migrations, or one could not be taken back.
    """
    require_line(migrations)
    _lock(connection)
    if not inspect(connection).has_table(REVISIONS.name):
        return ()
    taken = tuple(migrations[: _done(connection, feature, migrations)])[::-1]
    for migration in taken:
        with (
            _told(feature, migration, "could not be taken back"),
            operating(connection, f"features/{feature}"),
        ):
            migration.downgrade()
    connection.execute(delete(REVISIONS).where(REVISIONS.c.feature == feature))
    return taken


def _done(connection: Connection, feature: str, migrations: Sequence[Migration]) -> int:
    """How many of the migrations a feature's tables have behind them."""
    revision = connection.scalar(select(REVISIONS.c.revision).where(REVISIONS.c.feature == feature))
    if revision is None:
        return 0
    known = [migration.revision for migration in migrations]
    if revision not in known:
        raise StorageError(
            f"the tables of `{feature}` are at {revision} and features/{feature} knows up to "
            f"{known[-1]}",
            fix=f"serve the newer features/{feature} again, whose migrations go that far, or "
            "another database",
        )
    return known.index(revision) + 1


def _lock(connection: Connection) -> None:
    """Waits until nobody else migrates; SQLite's write transaction is lock enough."""
    if connection.dialect.name == "postgresql":
        # To copy a large table, and to wait for who does, may take longer than a request may.
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SET LOCAL lock_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})


def _note(connection: Connection, feature: str, revision: str) -> None:
    values = {"revision": revision, "applied_at": datetime.now(UTC)}
    changed = connection.execute(
        update(REVISIONS).where(REVISIONS.c.feature == feature).values(values)
    )
    if not changed.rowcount:
        connection.execute(insert(REVISIONS).values(feature=feature, **values))


@contextmanager
def _told(feature: str, migration: Migration, what: str) -> Iterator[None]:
    """Says of an error which migration it was; what the database did stays its cause."""
    try:
        yield
    except DBAPIError as error:
        if not _is_of_statement(error):
            raise  # the database is away or busy, which is no fault of the migration
        hide_values(error)
        raise _failed(feature, migration, f"{what}: {error.orig}") from error
    except (ConnectionError, TimeoutError):
        raise
    except StorageError as error:
        raise StorageError(
            f"the migration {migration.revision} of `{feature}` {what}: {error.problem}",
            fix=error.fix,
        ) from error
    except Exception as error:
        raise _failed(
            feature, migration, f"{what}: {type(error).__name__}: {words_of(error)}"
        ) from error


def _is_of_statement(error: DBAPIError) -> bool:
    """Whether the statement was at fault, or the data; the database itself is well."""
    state: str | None = getattr(error.orig, "sqlstate", None)
    if state is not None:
        return state[:2] not in _OF_SERVER
    code: int | None = getattr(error.orig, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _OF_STATEMENT


def _failed(feature: str, migration: Migration, what: str) -> StorageError:
    return StorageError(
        f"the migration {migration.revision} of `{feature}` {what}",
        fix=f"mend {_shown(migration.place)}; the tables are as they were before",
    )


def _shown(module: str) -> str:
    """A module as the file that it is."""
    return f"{module.replace('.', '/')}.py"
