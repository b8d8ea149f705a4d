"""A database for one test alone, on a PostgreSQL server that is there; gone with the test."""

import asyncio
import os
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import unquote, urlsplit, urlunsplit

from petsage.errors import StartError
from petsage.settings import POSTGRESQL

_TIMEOUT_S: Final = 15


@contextmanager
def fresh_database(server: str) -> Iterator[str]:
    """The URL of an empty database, which is dropped at the end, whoever is connected to it.

    Args:
        server: the URL of a database on the server, `postgresql://…`, whose user may make others.

    Raises:
        StartError: it is none of PostgreSQL's, is not to be reached, or makes none.
    """
    if not server.startswith(POSTGRESQL):
        raise StartError(
            f"{_without_password(server)} does not begin with {POSTGRESQL}",
            fix="name a database on the server that is to make others: "
            f"{POSTGRESQL}user:password@host/postgres",
        )
    name = f"petsage_test_{os.getpid()}_{secrets.token_hex(4)}"
    _run(server, f'CREATE DATABASE "{name}" TEMPLATE template0', is_new=True)
    try:
        yield at_database(server, name)
    finally:
        _run(server, f'DROP DATABASE "{name}" WITH (FORCE)')


def at_database(url: str, name: str) -> str:
    """The URL of another database of the same server."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def _run(server: str, statement: str, *, is_new: bool = False) -> None:
    """Has the server perform one statement, outside of any transaction."""
    # A loop may be running in this thread; this way it matters to nobody which one is its own.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: asyncio.run(_perform(server, statement, is_new=is_new))).result()


async def _perform(server: str, statement: str, *, is_new: bool) -> None:
    asyncpg = _driver()
    try:
        connection = await asyncpg.connect(server, timeout=_TIMEOUT_S)
        try:
            if is_new and await _copies_files(connection):
                statement += " STRATEGY FILE_COPY"
            await connection.execute(statement, timeout=_TIMEOUT_S)
        finally:
            await connection.close(timeout=_TIMEOUT_S)
    except (OSError, asyncpg.PostgresError) as error:
        raise StartError(
            f"{statement} failed on {_without_password(server)}: {error or type(error).__name__}",
            fix="name a server that is up, and a user who may make databases (CREATEDB)",
        ) from error
    except (asyncpg.InterfaceError, ValueError):
        # What is said of a URL may hold a part of it, and Python would show what led to this.
        raise StartError(
            f"{statement} failed: the URL of the server cannot be understood",
            fix=f"write it as {POSTGRESQL}user:password@host:5432/postgres, "
            "with %40 for an @ in a password, and the like",
        ) from None


async def _copies_files(connection: Any) -> bool:
    """Whether a new database is made faster by copying files than by way of the log.

    It takes half as long, but for a checkpoint; that costs nothing where nothing has to last.
    """
    can: bool = connection.get_server_version().major >= 15
    return can and await connection.fetchval("SHOW fsync") == "off"


def _driver() -> Any:
    """asyncpg, which is needed only where PostgreSQL is."""
    try:
        import asyncpg  # noqa: PLC0415 - part of an extra
    except ImportError as error:
        raise StartError(
            "tests on PostgreSQL need asyncpg, which is not installed",
            fix="pip install 'petsage[postgres]'",
        ) from error
    return asyncpg


def _without_password(url: str) -> str:
    """A URL to be shown: a password may stand before its host, and behind its `?`."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    name, colon, _ = user.partition(":")
    shown = f"{name}{colon and ':…'}{at}{host}"
    pairs = [each.partition("=") for each in parts.query.split("&")]
    query = "&".join(
        f"{key}=…" if "pass" in unquote(key).lower() else f"{key}{equals}{value}"
        for key, equals, value in pairs
    )
    return urlunsplit(parts._replace(netloc=shown, query=query))
