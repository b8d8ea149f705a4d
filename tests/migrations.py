"""Migrations from strings, and databases to perform them on."""

import asyncio
import textwrap
from collections.abc import Callable
from types import ModuleType
from typing import Any

from sqlalchemy import create_engine, event
from sqlalchemy.ext.asyncio import create_async_engine

from petsage.storage.migrating import Migration

HEAD = """
from alembic import op
from sqlalchemy import Column, Date, Double, Integer, text
from petsage.storage.columns import Json, Key, Text, UtcDateTime
"""


def migration(name: str, source: str, feature: str = "pets") -> Migration:
    """The migration of a module of this name; it finds imported what it may need."""
    module = ModuleType(f"features.{feature}.migrations.{name}")
    exec(textwrap.dedent(source), module.__dict__)
    exec(HEAD, module.__dict__)
    return Migration.of(module)


class Performer:
    """Calls functions with a connection of a database, each within one transaction."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __call__(self, do: Callable[..., Any], *arguments: Any) -> Any:
        if self._url.startswith("sqlite"):
            return self._on_sqlite(do, *arguments)
        return asyncio.run(self.on_postgresql(do, *arguments))

    def _on_sqlite(self, do: Callable[..., Any], *arguments: Any) -> Any:
        options = {"isolation_level": None, "timeout": 30}
        engine = create_engine(self._url, connect_args=options)
        keys = "PRAGMA foreign_keys = ON"
        event.listen(engine, "connect", lambda connection, _: connection.execute(keys))
        event.listen(engine, "begin", lambda each: each.exec_driver_sql("BEGIN IMMEDIATE"))
        try:
            with engine.begin() as connection:
                return do(connection, *arguments)
        finally:
            engine.dispose()

    async def on_postgresql(self, do: Callable[..., Any], *arguments: Any) -> Any:
        """What a function returns, in the loop that runs."""
        url = self._url.replace("postgresql:", "postgresql+asyncpg:")
        engine = create_async_engine(url)
        try:
            async with engine.begin() as connection:
                return await connection.run_sync(do, *arguments)
        finally:
            await engine.dispose()
