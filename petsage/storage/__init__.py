"""Data that features keep: one database for the process, and each feature's tables in it."""

import logging

try:
    # It tells at INFO what it sets up, which dialect it has found, and of SQLite what is not true
    # of this use; and it begins with that when it is imported.
    if logging.getLogger("alembic").level == logging.NOTSET:
        logging.getLogger("alembic").setLevel(logging.WARNING)
    import alembic
    import sqlalchemy
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"petsage.storage needs the package `{error.name}`; fix: pip install 'petsage[db]'",
        name=error.name,
    ) from None

from petsage.storage.columns import NAMING, Json, Key, Text, UtcDateTime
from petsage.storage.database import DATABASE, DATABASE_CHECK, Database, keeps
from petsage.storage.migrating import Migration

__all__ = [
    "DATABASE",
    "DATABASE_CHECK",
    "NAMING",
    "Database",
    "Json",
    "Key",
    "Migration",
    "Text",
    "UtcDateTime",
    "keeps",
]

del alembic, logging, sqlalchemy
