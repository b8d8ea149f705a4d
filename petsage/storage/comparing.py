"""Whether migrations make the tables that a store describes."""

from typing import Any

from alembic.autogenerate import compare_metadata
from sqlalchemy import Connection, MetaData

from petsage.storage.operations import migration_context


def difference(connection: Connection, metadata: MetaData) -> list[str]:
    """In what the tables of a database are not what a store describes; empty where nowhere.

    Tables that the store does not know are not looked at.
    """
    context = migration_context(
        connection,
        target_metadata=metadata,
        include_name=lambda name, kind, _: kind != "table" or name in metadata.tables,
    )
    return [_told_difference(each) for each in compare_metadata(context, metadata)]


def _told_difference(found: Any) -> str:
    """One finding of alembic's: a tuple, or a list of what differs in a column."""
    if isinstance(found, list):
        return "; ".join(_told_difference(each) for each in found)
    kind, *about = found
    if kind.startswith("modify_"):
        _, table, column, _, there, wanted = about
        return f"{kind} of {table}.{column}: it is {there!r}, and the store says {wanted!r}"
    if kind in {"add_column", "remove_column"}:
        _, table, column = about
        return f"{kind} {table}.{column.name}"
    table = getattr(about[0], "table", None)
    return f"{kind} {about[0].name}" + (f" of {table.name}" if table is not None else "")
