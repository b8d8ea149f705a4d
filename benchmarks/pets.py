"""The pets that are kept: rows that are the same in every run, and databases filled with them."""

import asyncio
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from sqlalchemy import Column, Date, DateTime, MetaData, Table, create_engine, insert
from sqlalchemy.types import TypeEngine

from benchmarks.errors import BenchmarkError
from petsage.storage import UtcDateTime

TITLES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
SPECIES = ("dog", "cat", "rabbit")
NEW_PET = '{"name": "Rex", "species": "dog", "born": "2020-01-31", "weight_kg": 12.5}'

_COLUMNS = ("name", "species", "born", "weight_kg", "created_at", "updated_at")
_BATCH = 20_000
_EPOCH = datetime(2025, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Database:
    """One server's own database of so many rows; `url` is as PetSage's settings take it."""

    server: str
    kind: str
    rows: int
    url: str

    @property
    def async_url(self) -> str:
        """The same, as SQLAlchemy's `create_async_engine` takes it."""
        scheme, _, rest = self.url.partition("://")
        return f"{scheme}+{'aiosqlite' if self.kind == 'sqlite' else 'asyncpg'}://{rest}"


def new_database(server: str, kind: str, rows: int, *, folder: Path, cluster: str) -> Database:
    """A database that is empty yet: a file in `folder`, or one of the cluster at that URL."""
    name = f"bench_{server}_{rows}"
    if kind == "sqlite":
        return Database(server, kind, rows, f"sqlite:///{folder}/{name}.db")
    asyncio.run(_renew(cluster, name))
    return Database(server, kind, rows, urlunsplit(urlsplit(cluster)._replace(path=f"/{name}")))


async def _renew(cluster: str, name: str) -> None:
    connection = await asyncpg.connect(cluster)
    try:
        await connection.execute(f'DROP DATABASE IF EXISTS "{name}"')
        await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE template0')
    finally:
        await connection.close()


def fill(database: Database) -> None:
    """Put its rows into the empty table of pets that its server has made."""
    if database.kind == "sqlite":
        # The peer's type keeps what stands on the clock, which is UTC here.
        _fill_sqlite(database, UtcDateTime() if database.server == "petsage" else DateTime())
    else:
        asyncio.run(_fill_postgresql(database))


def _fill_sqlite(database: Database, type_: TypeEngine[datetime]) -> None:
    types: dict[str, TypeEngine[Any]]
    types = {"born": Date(), "created_at": type_, "updated_at": type_}
    columns: list[Column[Any]] = [Column(name, types.get(name)) for name in _COLUMNS]
    pets = Table("pets", MetaData(), *columns)
    engine = create_engine(database.url)
    with engine.begin() as connection:
        all_rows = (dict(zip(_COLUMNS, row, strict=True)) for row in _rows(database.rows))
        while batch := list(islice(all_rows, _BATCH)):
            connection.execute(insert(pets), batch)
    engine.dispose()


async def _fill_postgresql(database: Database) -> None:
    connection = await asyncpg.connect(database.url)
    try:
        await connection.copy_records_to_table(
            "pets", records=_rows(database.rows), columns=_COLUMNS
        )
        # What PostgreSQL does by itself, but at a moment of its choice.
        await connection.execute("VACUUM (ANALYZE) pets")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()


def count(database: Database) -> int:
    """How many pets are there now."""
    if database.kind == "postgresql":
        return asyncio.run(_count_postgresql(database))
    engine = create_engine(database.url)
    with engine.connect() as connection:
        number: int = connection.exec_driver_sql("SELECT count(*) FROM pets").scalar_one()
    engine.dispose()
    return number


async def _count_postgresql(database: Database) -> int:
    connection = await asyncpg.connect(database.url)
    try:
        number: int = await connection.fetchval("SELECT count(*) FROM pets")
    finally:
        await connection.close()
    return number


def _rows(count: int) -> Iterator[tuple[str, str, date | None, float, datetime, datetime]]:
    """Ten names in ten thousand pets are alike; each tenth pet has no birthday."""
    for number in range(1, count + 1):
        at = _EPOCH + timedelta(seconds=number, microseconds=number % 1_000_000)
        born = None if number % 10 == 0 else date(2000, 1, 1) + timedelta(days=number % 9_000)
        yield (
            f"Pet {number % 10_000}",
            SPECIES[number % 3],
            born,
            (number % 4_000) / 100,
            at,
            at,
        )


def require_room(folder: Path, rows: list[int]) -> None:
    """Refuse where the databases would fill the disk."""
    needed = sum(rows) * 2 * 600
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise BenchmarkError(
            f"{folder} has {free / 1e9:.1f} GB free, and {needed / 1e9:.1f} GB may be needed",
            fix="choose a smaller number by --rows, or another folder by TMPDIR",
        )
