"""PostgreSQL: asyncpg in the event loop, below SQLAlchemy's ordinary connections.

What reads and what writes have pools of their own. Who reads is in no transaction, so that one
statement is one round trip, and is read-only by the connection's own setting.

Longer than 300 lines: what becomes of a transaction that fails is read beside what runs it.
"""

import asyncio
import importlib
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Literal

from sqlalchemy import Connection, event
from sqlalchemy import Engine as SqlEngine
from sqlalchemy.exc import DBAPIError, DisconnectionError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool
from sqlalchemy.util import greenlet_spawn

from petsage.errors import StorageError
from petsage.settings import DatabaseSettings
from petsage.storage.caches import forget_all
from petsage.storage.faults import (
    Moved,
    Taken,
    Unavailable,
    columns_in_postgresql,
    hide_values,
    not_kept,
)

if TYPE_CHECKING:
    import asyncpg

_ATTEMPTS: Final = 5
_PAUSE_S: Final = 0.01
_GRACE_S: Final = 1.0
"""A server that says nothing is given up so much later than it should have given up itself."""

Mark = tuple[int, int]
"""Which database it is: its cluster, 0 where the server does not tell, and its number there."""


class PostgresqlEngine:
    """The connections to one database.

    Args:
        settings: where it is, how many connections, and the time limits.

    Raises:
        StorageError: asyncpg is not installed.
    """

    def __init__(self, settings: DatabaseSettings) -> None:
        self._driver = _asyncpg()
        self._url = settings.url
        self._timeout_s = settings.timeout_s
        # Whose turn it is at the connections of an engine; SQLAlchemy's pool has those who come
        # take what those who wait were given, so that some would wait and wait.
        self._turns: dict[AsyncEngine, asyncio.Semaphore] = {}
        writers = max(1, settings.pool_size // 2)
        self._writers = self._make(writers, self._connect_writer, "READ COMMITTED")
        self._readers = self._make(settings.pool_size - writers, self._connect_reader, "AUTOCOMMIT")

    async def read(
        self,
        mark: Mark | None,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Any:
        """What a function of a read-only connection and these arguments returns."""
        return await self._ask(self._readers, function, args, kwargs, mark)

    async def write(
        self,
        mark: Mark | None,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Any:
        """What a function of a connection and these arguments returns, once it is committed."""
        return await self._ask(self._writers, function, args, kwargs, mark)

    async def bring_up(self, function: Callable[[Connection], None]) -> Mark:
        """Has a function change tables, for as long as it takes; the mark of their database."""

        def change(connection: Connection) -> Mark:
            function(connection)
            return _mark_of(connection)

        engine = self._make(None, self._connect_changer, "READ COMMITTED")
        try:
            mark: Mark = await self._ask(engine, change, (), {})
        finally:
            await engine.dispose()
        return mark

    async def look(self, *, also_writes: bool) -> None:
        """Asks whether the database is there.

        Args:
            also_writes: whether it can be written to, too.
        """
        if also_writes:
            await self._ask(self._writers, _write_nothing, (), {})
        else:
            await self._ask(self._readers, _read_something, (), {})

    def forget(self) -> None:
        """Lets go of what is kept of features' statements."""
        for engine in (self._readers, self._writers):
            forget_all(engine.sync_engine)

    async def close(self) -> None:
        """Closes the connections."""
        for engine in (self._readers, self._writers):
            await engine.dispose()

    def _make(
        self,
        size: int | None,
        connect: "Callable[[], Awaitable[asyncpg.Connection[Any]]]",
        isolation: Literal["READ COMMITTED", "AUTOCOMMIT"],
    ) -> AsyncEngine:
        pool: dict[str, Any] = {"poolclass": NullPool}
        if size is not None:
            pool = {
                "pool_size": size,
                "max_overflow": 0,
                "pool_use_lifo": True,  # what a lull leaves over is not held open by turns
            }
        engine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=connect,
            isolation_level=isolation,
            hide_parameters=True,
            **pool,
        )
        event.listen(engine.sync_engine, "checkout", _require_open)
        if size is not None:
            self._turns[engine] = asyncio.Semaphore(size)
        return engine

    async def _connect_reader(self) -> "asyncpg.Connection[Any]":
        return await self._connect({"default_transaction_read_only": "on"})

    async def _connect_writer(self) -> "asyncpg.Connection[Any]":
        return await self._connect({})

    async def _connect_changer(self) -> "asyncpg.Connection[Any]":
        return await self._connect({}, is_limited=False)

    async def _connect(
        self, options: Mapping[str, str], *, is_limited: bool = True
    ) -> "asyncpg.Connection[Any]":
        """A new connection.

        Args:
            options: what the server sets for it.
            is_limited: whether a statement may take `timeout_s` at the most.

        Raises:
            Unavailable: there is none to be had.
        """
        if is_limited:
            limit = str(max(1, round(self._timeout_s * 1000)))
            options = {
                **options,
                "statement_timeout": limit,
                "idle_in_transaction_session_timeout": limit,
            }
        try:
            return await self._driver.connect(
                self._url,
                timeout=self._timeout_s,
                command_timeout=self._timeout_s + _GRACE_S if is_limited else None,
                server_settings={"application_name": "petsage", **options},
            )
        except TimeoutError:
            raise Unavailable(
                "away",
                f"no connection within {self._timeout_s:g} s; fix: see whether the server of "
                "[database].url runs and can be reached",
            ) from None
        except OSError as error:
            raise Unavailable(
                "away",
                f"no connection: {error.strerror or type(error).__name__}; fix: see whether the "
                "server of [database].url runs and can be reached",
            ) from None
        except (self._driver.PostgresError, self._driver.InterfaceError, ValueError) as error:
            # What asyncpg says of a URL may hold a part of it.
            is_server = isinstance(error, self._driver.PostgresError)
            said = _first_line(error) if is_server else "[database].url cannot be understood"
            raise Unavailable(
                "away", f"no connection: {said}; fix: mend [database].url, or the server"
            ) from None

    async def _ask(
        self,
        engine: AsyncEngine,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        mark: Mark | None = None,
    ) -> Any:
        """What a function returns in one transaction, which is begun again where it could not be.

        Args:
            engine: the connections to take one of.
            function: what is called with it.
            args: what it is given besides.
            kwargs: likewise.
            mark: the database that it is for, None for any.

        Raises:
            Unavailable, Taken: and whatever the function raises.
        """
        left = _ATTEMPTS
        while True:
            left -= 1
            transaction = _Transaction()
            try:
                return await self._run(transaction, engine, function, args, kwargs)
            except (SQLAlchemyError, OSError, RuntimeError) as error:
                if not left or not transaction.may_try_again(error):
                    told = self._told(transaction, error)
                    if told is not error:
                        raise told from error
                    if mark is not None and await self._is_elsewhere(error, mark):
                        raise Moved("away", _MOVED) from None
                    if isinstance(error, DBAPIError):
                        hide_values(error)
                    raise
            await asyncio.sleep(_PAUSE_S * random.random())  # noqa: S311 - no secret # nosec B311

    async def _run(
        self,
        transaction: "_Transaction",
        engine: AsyncEngine,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Any:
        """What a function returns in one attempt, once it is its turn.

        Raises:
            Unavailable: its turn does not come in time. And whatever the attempt raises.
        """
        turns = self._turns.get(engine)
        call = transaction.run, engine.sync_engine, function, args, kwargs
        if turns is None:
            return await greenlet_spawn(*call)
        try:
            # A time limit takes longer than a turn that nobody waits for.
            async with asyncio.timeout(self._timeout_s) if turns.locked() else nullcontext():
                await turns.acquire()
        except TimeoutError:
            raise Unavailable(
                "busy",
                f"no connection was free within {self._timeout_s:g} s; fix: raise "
                "[database].pool_size, or see what takes so long",
            ) from None
        try:
            return await greenlet_spawn(*call)
        finally:
            turns.release()

    async def _is_elsewhere(self, error: Exception, mark: Mark) -> bool:
        """Whether tables are not as they should be because the database is another one by now."""
        state = getattr(getattr(error, "orig", None), "sqlstate", None)
        if state not in _NOT_AS_WAS:
            return False
        there: Mark = await self._ask(self._readers, _mark_of, (), {})
        return there != mark

    def _told(self, transaction: "_Transaction", error: Exception) -> Exception:
        """What an error means; itself where it is the function's own."""
        problem = not_kept(error)
        if problem is not None:
            return problem
        if not isinstance(error, DBAPIError):
            if not transaction.is_lost(error):
                return error
            return Unavailable("away", f"the connection was lost: {type(error).__name__}")
        state = getattr(error.orig, "sqlstate", None) or ""
        if state == _UNIQUE:
            return Taken(columns_in_postgresql(getattr(error.orig, "detail", None)))
        if state in _BUSY:
            return Unavailable("busy", _BUSY[state])
        is_standby = state == _READ_ONLY and transaction.engine is self._writers.sync_engine
        if is_standby or state in _AWAY or state[:2] in _AWAY_CLASSES:
            return Unavailable("away", _first_line(getattr(error.orig, "driver_exception", error)))
        if transaction.is_lost(error):
            return Unavailable("away", "the connection was lost")
        return error


class _Transaction:
    """One attempt at a function in a transaction of its own, and how far it has come."""

    def __init__(self) -> None:
        self.engine: SqlEngine | None = None
        self._driver: Any = None
        self._is_committing = False

    def run(
        self,
        engine: SqlEngine,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Any:
        """What the function returns, once it is committed."""
        self.engine = engine
        with engine.connect() as connection:
            self._driver = connection.connection.driver_connection
            try:
                value = function(connection, *args, **kwargs)
                self._is_committing = True
                connection.commit()
            except (OSError, RuntimeError) as error:
                if self.is_lost(error):
                    self._driver.terminate()  # a server that hangs takes no leave
                    connection.invalidate(error)  # nobody knows what it waits for
                raise
            return value

    def may_try_again(self, error: Exception) -> bool:
        """Whether nothing of it is in the database, and another attempt may well succeed."""
        if not isinstance(error, DBAPIError):
            return not isinstance(error, TimeoutError) and self._was_cut_off(error)
        if getattr(error.orig, "sqlstate", None) in _AGAIN:
            return True
        name = type(error.orig).__name__  # statements that the server has prepared are outdated
        return name == "InvalidCachedStatementError" or self._was_cut_off(error)

    def is_lost(self, error: Exception) -> bool:
        """Whether it is the connection that has failed, and not the function."""
        if self._driver is None or isinstance(error, TimeoutError):
            return isinstance(error, OSError | DBAPIError)
        return bool(self._driver.is_closed())

    def _was_cut_off(self, error: Exception) -> bool:
        """Whether the connection was lost before there was anything to be committed."""
        return self._driver is not None and not self._is_committing and self.is_lost(error)


def _require_open(connection: Any, record: object, proxy: object) -> None:
    """Has a connection that the server has closed meanwhile be replaced before it is used."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError


def _asyncpg() -> ModuleType:
    """The driver.

    Raises:
        StorageError: it is not installed.
    """
    try:
        return importlib.import_module("asyncpg")
    except ModuleNotFoundError:
        raise StorageError(
            "[database].url is one of PostgreSQL, and the package `asyncpg` is not installed",
            fix="install it beside PetSage: `pip install 'petsage[postgres]'`",
        ) from None


def _first_line(error: BaseException) -> str:
    """What the server says, without the details, which have values in them."""
    message = getattr(error, "message", None) or (error.args[0] if error.args else "")
    return f"{type(error).__name__}: {str(message).partition(chr(10))[0]}"[:300]


def _read_something(connection: Connection) -> None:
    connection.exec_driver_sql("SELECT 1")


def _mark_of(connection: Connection) -> Mark:
    # Whoever runs the server may keep its own number from ordinary users.
    cluster = 0
    if connection.exec_driver_sql(_TELLS_CLUSTER).scalar_one():
        cluster = connection.exec_driver_sql(_CLUSTER).scalar_one()
    return cluster, connection.exec_driver_sql(_NUMBER).scalar_one()


def _write_nothing(connection: Connection) -> None:
    """Takes a transaction's number, which is written to the disk, and nothing else."""
    _, is_read_only = connection.exec_driver_sql(
        "SELECT txid_current(), current_setting('transaction_read_only')::bool"
    ).one()
    if is_read_only:  # which keeps nobody from a number
        raise Unavailable(
            "away", "its transactions are read-only; fix: have [database].url name one that writes"
        )


_MOVED: Final = "it is another database than it was; its tables are looked at first"
_TELLS_CLUSTER: Final = (
    "SELECT coalesce(has_function_privilege(to_regprocedure('pg_control_system()'), 'execute'), "
    "false)"
)
_CLUSTER: Final = "SELECT system_identifier FROM pg_control_system()"
_NUMBER: Final = "SELECT oid::bigint FROM pg_database WHERE datname = current_database()"

# Source: https://www.postgresql.org/docs/current/errcodes-appendix.html
_UNIQUE: Final = "23505"
_READ_ONLY: Final = "25006"
_AGAIN: Final = frozenset(("40001", "40P01"))
_BUSY: Final = {
    "40001": "transactions get in each other's way",
    "40P01": "transactions wait for each other",
    "55P03": "a lock was not to be had",
    "57014": "a statement took too long",
    "25P03": "a transaction took too long",
}
# A table or a column is not there.
_NOT_AS_WAS: Final = frozenset(("42P01", "42703"))
_AWAY: Final = frozenset(("57P01", "57P02", "57P03", "57P05", "F0001", "XX001", "XX002"))
_AWAY_CLASSES: Final = frozenset(("08", "28", "3D", "53", "58"))
