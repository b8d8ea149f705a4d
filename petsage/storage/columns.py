"""Columns that are the same on both databases, and names for what stands in them."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from pydantic_core import to_jsonable_python
from sqlalchemy import JSON, BigInteger, DateTime, Dialect, Integer, String
from sqlalchemy.types import TypeDecorator, TypeEngine

NAMING: Final = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
"""What indexes and constraints are called, so that a migration can name them."""

Key: Final = BigInteger().with_variant(Integer(), "sqlite")
"""An id that the database gives; SQLite gives ids to its own kind of integer alone."""


class Text(TypeDecorator[str]):
    """Text, ordered and compared by code point.

    Args:
        length: the most characters, None for any number; SQLite does not look at it.
    """

    impl = String
    cache_ok = True

    def __init__(self, length: int | None = None) -> None:
        super().__init__(length)
        self.length = length

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """The type of a database; SQLite compares the bytes of UTF-8, which is the same order."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(String(self.length, collation="C"))
        return dialect.type_descriptor(String(self.length))


class UtcDateTime(TypeDecorator[datetime]):
    """A moment: goes in with any zone, is kept and comes out in UTC, to the microsecond."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """What is kept of a moment.

        Raises:
            ValueError: it has no zone.
        """
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no zone, so that it is no moment; give it one")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """A moment from asyncpg: in UTC, but for the first and the last, which have no zone."""
        return value if value is None or value.tzinfo is not None else value.replace(tzinfo=UTC)

    def result_processor(
        self, dialect: Dialect, coltype: object
    ) -> Callable[[Any], datetime | None] | None:
        """What makes a moment of what a driver gives."""
        if dialect.name == "sqlite":
            return _read_moment
        return super().result_processor(dialect, coltype)


def _read_moment(text: str | None) -> datetime | None:
    """A moment from SQLite; to add a zone to its text takes a fourth of adding it afterwards."""
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text + "+00:00")
    except ValueError:  # it has one, given by another program
        return datetime.fromisoformat(text).astimezone(UTC)


class Json(TypeDecorator[Any]):
    """Any JSON value, or what pydantic makes of one: dates and the like are kept as it writes them.

    None is kept as NULL.
    """

    impl = JSON(none_as_null=True)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """Plain JSON values, which the driver can write."""
        return to_jsonable_python(value)
