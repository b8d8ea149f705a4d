"""What migrations ask `alembic.op` for, wherever several of them run at once in one process."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from alembic import op as alembic_op
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, MetaData, Table, inspect, text

from petsage.errors import StorageError
from petsage.storage.columns import NAMING

if TYPE_CHECKING:
    from alembic.operations import BatchOperations

_SEQUENCE_OF: Final = text("SELECT seq FROM sqlite_sequence WHERE name = :name")
_DROP_SEQUENCE: Final = text("DELETE FROM sqlite_sequence WHERE name = :name")
_ADD_SEQUENCE: Final = text("INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :seq)")
_DEFINITION_OF: Final = text(
    "SELECT sql FROM sqlite_master WHERE type = 'table' AND lower(name) = lower(:name)"
)
_REFERRING: Final = text(
    "SELECT DISTINCT m.name FROM sqlite_master AS m, pragma_foreign_key_list(m.name) AS f "
    "WHERE m.type = 'table' AND lower(f.\"table\") = lower(:name) AND lower(m.name) <> lower(:name)"
)


@contextmanager
def operating(connection: Connection, owner: str) -> Iterator[None]:
    """Has the functions of `alembic.op` work on a connection, for this thread or task alone.

    Args:
        connection: within a transaction, which is not ended here.
        owner: who makes the tables, for errors.
    """
    operations = _Operations(migration_context(connection), owner)
    # The functions are a module's, and go by what stands under this name there.
    alembic_op._proxy = _CURRENT  # type: ignore[attr-defined] # there is no other way for two
    token = _OPERATIONS.set(operations)
    try:
        yield
    finally:
        _OPERATIONS.reset(token)


def migration_context(connection: Connection, **options: Any) -> MigrationContext:
    """Alembic's context of a connection; indexes and constraints are named as anywhere here."""
    named = MetaData(naming_convention=NAMING)
    return MigrationContext.configure(connection, opts={"target_metadata": named, **options})


class _Operations(Operations):
    """alembic's operations, which spoil neither a table of somebody else's nor ids."""

    def __init__(self, context: MigrationContext, owner: str) -> None:
        super().__init__(context)
        self._owner = owner

    def create_table(self, table_name: str, *columns: Any, **options: Any) -> Table:
        """A new table.

        Raises:
            StorageError: there is one of this name.
        """
        there = inspect(self.get_bind()).has_table(table_name, options.get("schema"))
        if there and not options.get("if_not_exists"):
            raise StorageError(
                f"there is a table `{table_name}` already, which {self._owner} did not make",
                fix="rename it or drop it, or set `[database].url` to a database of PetSage's own",
            )
        return super().create_table(table_name, *columns, **options)

    @contextmanager
    def batch_alter_table(self, table_name: str, **options: Any) -> "Iterator[BatchOperations]":  # type: ignore[override] # all but the name goes by keyword
        """Changes to a table, which SQLite may have to copy for it.

        The copy gives no id that the table has given, not even a deleted one's.

        Raises:
            StorageError: rows of other tables would go with the one that is copied.
        """
        bind = self.get_bind()
        if bind.dialect.name == "sqlite" and options.get("recreate") != "never":
            _require_no_references(bind, table_name)
        if bind.dialect.name != "sqlite" or not _counts_ids(bind, table_name):
            with super().batch_alter_table(table_name, **options) as batch:
                yield batch
            return
        last = bind.scalar(_SEQUENCE_OF, {"name": table_name})
        kept = {"sqlite_autoincrement": True, **options.pop("table_kwargs", {})}
        with super().batch_alter_table(table_name, table_kwargs=kept, **options) as batch:
            yield batch
        if last is not None:
            bind.execute(_DROP_SEQUENCE, {"name": table_name})
            bind.execute(_ADD_SEQUENCE, {"name": table_name, "seq": last})


def _require_no_references(connection: Connection, table_name: str) -> None:
    """Sees that no other table refers to one that SQLite is to copy, and then drop."""
    referring = list(connection.scalars(_REFERRING, {"name": table_name}))
    if referring and connection.exec_driver_sql("PRAGMA foreign_keys").scalar():
        raise StorageError(
            f"SQLite may have to copy `{table_name}`, to which `{referring[0]}` refers, and rows "
            "would be deleted there",
            fix='use `op.add_column` and the like, or `recreate="never"`, which need no copy; or '
            f"drop what refers to `{table_name}` before it, and add it behind it",
        )


def _counts_ids(connection: Connection, table_name: str) -> bool:
    """Whether a table of SQLite remembers the last id that it gave."""
    definition: str | None = connection.scalar(_DEFINITION_OF, {"name": table_name})
    return definition is not None and "AUTOINCREMENT" in definition.upper()


class _Current:
    """The operations of whoever asks: threads and tasks have their own."""

    def __getattr__(self, name: str) -> Any:
        operations = _OPERATIONS.get(None)
        if operations is None:
            raise StorageError(
                f"`alembic.op.{name}` is for migrations alone, and none runs here",
                fix="call it in `upgrade` or `downgrade` of a migration",
            )
        return getattr(operations, name)


_OPERATIONS: Final[ContextVar[_Operations]] = ContextVar("operations")
_CURRENT: Final = _Current()
