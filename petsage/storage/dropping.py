"""What a feature keeps in the database, dropped once the feature is gone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, MetaData, delete, inspect, select

from petsage.errors import StorageError
from petsage.settings import SQLITE, DatabaseSettings
from petsage.storage.database import open_engine
from petsage.storage.faults import Unavailable
from petsage.storage.migrating import REVISIONS, Migration, drop_tables

_BETWEEN: Final = "__"
"""Between a feature's name and a table's, where the table is not called as the feature."""


async def drop_data(
    settings: DatabaseSettings, feature: str, migrations: Sequence[Migration] = ()
) -> tuple[str, ...]:
    """Drops what a feature keeps, in one transaction; the names of the tables that are gone.

    Args:
        settings: where the database is.
        feature: its name.
        migrations: those of the feature, which know the way back; where there are none any more,
            the tables that are called as the feature, or begin with its name and `__`, are dropped.

    Raises:
        StorageError: the database is away, its tables are newer than the migrations, or one of
            these fails; nothing is dropped then.
    """
    if settings.url.startswith(SQLITE) and not _is_there(settings.url.removeprefix(SQLITE)):
        return ()  # to look into it would make it
    dropped: list[str] = []

    def drop(connection: Connection) -> None:
        before = set(inspect(connection).get_table_names())
        if migrations:
            drop_tables(connection, feature, migrations)
        else:
            _drop_by_name(connection, feature, before)
        dropped[:] = sorted(before - set(inspect(connection).get_table_names()))

    engine = await open_engine(settings)
    try:
        await engine.bring_up(drop)
    except Unavailable as error:
        raise StorageError(error.reason, fix="see that the database is there") from None
    finally:
        await engine.close()
    return tuple(dropped)


def _is_there(file: str) -> bool:
    return Path(file).exists()


def _drop_by_name(connection: Connection, feature: str, tables: set[str]) -> None:
    """Drops the tables of a feature whose migrations are gone."""
    if REVISIONS.name not in tables:
        return
    features = set(connection.scalars(select(REVISIONS.c.feature)))
    if feature not in features:
        return  # they are not a feature's
    names = [each for each in tables if _is_of(each, feature)]
    # A table whose name two features could have given is the longer name's.
    others = [each for each in features if _is_of(each, feature) and each != feature]
    own = [each for each in names if not any(_is_of(each, other) for other in others)]
    metadata = MetaData()
    metadata.reflect(connection, only=own)
    metadata.drop_all(connection, tables=[metadata.tables[each] for each in own])
    connection.execute(delete(REVISIONS).where(REVISIONS.c.feature == feature))


def _is_of(table: str, feature: str) -> bool:
    return table == feature or table.startswith(f"{feature}{_BETWEEN}")
