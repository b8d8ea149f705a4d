"""Ranges of an index as statements, each kind of which is made once for a table.

Making a statement costs more than SQLite takes to answer it; so a table keeps those that it was
asked with, in its `info`, and they go with it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    CompoundSelect,
    Connection,
    Select,
    Table,
    bindparam,
    select,
    tuple_,
    union_all,
)

Row = dict[str, Any]
Statement = Select[Any] | CompoundSelect[Any]

# A table's statements: one for each kind of query.
_MAX_STATEMENTS: Final = 256
_STATEMENTS: Final = "petsage.resources"
_LIMIT: Final = bindparam("limit", type_=BigInteger())


@dataclass(frozen=True)
class Comparison:
    """What a row has to be.

    Attributes:
        operator: `=`, `in`, `>`, `<`, `>=` or `<=` the values; `behind` them in the scan's order,
            a value for each column of it; `null` or `not null`, without values.
    """

    column: str
    operator: str
    values: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Scan:
    """One range of an index, in its order.

    Attributes:
        order: the columns to go by.
        descending: whether all of them are gone by the other way.
    """

    order: tuple[str, ...]
    descending: bool
    comparisons: tuple[Comparison, ...]


def read_rows(
    connection: Connection,
    table: Table,
    scans: Sequence[Scan],
    further: Sequence[ColumnElement[bool]],
    limit: int,
) -> list[Row]:
    """The first rows of some scans of the same order, taken together.

    Args:
        connection: where to ask.
        table: whose rows.
        scans: one or several; several are one statement.
        further: what a row has to be besides; its statement is made for this one time.
        limit: how many rows at most.
    """
    if further:
        statement = _statement(table, scans, further)
    else:
        kind = tuple(_kind(scan) for scan in scans)
        statements: dict[Any, Statement] = table.info.setdefault(_STATEMENTS, {})
        found = statements.get(kind)
        if found is None:
            if len(statements) >= _MAX_STATEMENTS:
                statements.clear()  # other threads may read it: what they found they have
            found = statements[kind] = _statement(table, scans, ())
        statement = found
    values = (
        value for scan in scans for comparison in scan.comparisons for value in comparison.values
    )
    asked = {f"p{number}": value for number, value in enumerate(values)}
    result = connection.execute(statement, {**asked, "limit": limit})
    names = tuple(result.keys())
    # All rows at once: a result that is iterated asks its driver for each. And a look at whether
    # both are as long as the other takes longer than all the rest of it.
    return [dict(zip(names, row, strict=False)) for row in result.all()]


def _kind(scan: Scan) -> tuple[Any, ...]:
    """What a scan is, without its values: equal ones have the same statement."""
    return (
        scan.order,
        scan.descending,
        *((each.column, each.operator, len(each.values)) for each in scan.comparisons),
    )


def _statement(
    table: Table, scans: Sequence[Scan], further: Sequence[ColumnElement[bool]]
) -> Statement:
    names = (f"p{number}" for number in count())
    made = [_select(table, scan, names).where(*further) for scan in scans]
    if len(made) == 1:
        return made[0]
    # Each gives as many rows as are wanted at most, so few are sorted.
    whole = union_all(*(select(each.subquery()) for each in made))
    columns = whole.selected_columns
    order = (columns[name] for name in scans[0].order)
    return whole.order_by(*_directed(order, descending=scans[0].descending)).limit(_LIMIT)


def _select(table: Table, scan: Scan, names: Iterator[str]) -> Select[Any]:
    conditions = [_condition(table, scan, each, names) for each in scan.comparisons]
    order = _directed((table.c[name] for name in scan.order), descending=scan.descending)
    return select(table).where(*conditions).order_by(*order).limit(_LIMIT)


def _directed(
    columns: Iterator[ColumnElement[Any]], *, descending: bool
) -> list[ColumnElement[Any]]:
    return [column.desc() if descending else column.asc() for column in columns]


def _condition(
    table: Table, scan: Scan, comparison: Comparison, names: Iterator[str]
) -> ColumnElement[bool]:
    if comparison.operator == "behind":
        columns = [table.c[name] for name in scan.order]
        left, right = tuple_(*columns), tuple_(*(_parameter(column, names) for column in columns))
        return left < right if scan.descending else left > right
    column = table.c[comparison.column]
    values = [_parameter(column, names) for _ in comparison.values]
    return _OPERATORS[comparison.operator](column, values)


def _parameter(column: ColumnElement[Any], names: Iterator[str]) -> BindParameter[Any]:
    return bindparam(next(names), type_=column.type)


_OPERATORS: Final[dict[str, Callable[[Any, Any], ColumnElement[bool]]]] = {
    "=": lambda column, values: column == values[0],
    "in": lambda column, values: column.in_(values),
    ">": lambda column, values: column > values[0],
    "<": lambda column, values: column < values[0],
    ">=": lambda column, values: column >= values[0],
    "<=": lambda column, values: column <= values[0],
    "null": lambda column, _: column.is_(None),
    "not null": lambda column, _: column.is_not(None),
}
