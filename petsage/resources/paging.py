"""Pages of a table, each as quick as the first, however many rows there are.

A page begins behind the last row of the one before (keyset paging), by an index on the column that
the list is sorted by and the id. So rows that come or go in between neither repeat nor hide others.
What is empty comes last in either order, as a range of its own: databases differ in where they
have it in an index.

Longer than 300 lines: what is asked for and the ranges that answer it are read together.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, Connection, Table, UniqueConstraint

from petsage.errors import FieldProblem, did_you_mean, invalid_input
from petsage.resources.cursors import KINDS, Place, read_cursor, write_cursor, wrong_cursor
from petsage.resources.pages import PageQuery
from petsage.resources.scans import Comparison, Row, Scan, read_rows

# So many values of a filter are looked up each by itself; more are compared row by row.
_MAX_RANGES: Final = 16


@dataclass(frozen=True)
class OneOf:
    """A column that has to have one of these values."""

    column: ColumnElement[Any]
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Between:
    """A column that has to have a value from `low` to `high`, each left open where None."""

    column: ColumnElement[Any]
    low: Any
    high: Any


Wanted = OneOf | Between | ColumnElement[bool]


def one_of(column: ColumnElement[Any], values: Iterable[Any] | None) -> tuple[Wanted, ...]:
    """For `page_of`: rows whose `column` has one of `values`; any where None."""
    return () if values is None else (OneOf(column, tuple(values)),)


def between(column: ColumnElement[Any], low: Any, high: Any) -> tuple[Wanted, ...]:
    """For `page_of`: rows whose `column` is from `low` to `high`, each left open where None."""
    return () if low is None and high is None else (Between(column, low, high),)


def page_of(
    connection: Connection, table: Table, query: PageQuery, wanted: Sequence[Wanted] = ()
) -> tuple[list[Row], str | None]:
    """The rows of a page, and the cursor of the next; None where this is the last.

    Args:
        connection: where to ask.
        table: with one column as its key; each column that it is sorted by leads an index, with
            the key behind it.
        query: how many, behind which, in what order.
        wanted: what rows have to be: `one_of`, `between`, or any condition of SQLAlchemy's.

    Raises:
        Problem: 422, the cursor is another list's, or it cannot be sorted so.
    """
    listing = _Listing(table, query.sort, wanted)
    place = None if query.cursor is None else read_cursor(query.cursor, listing.identity)
    rows: list[Row] = []
    # SQLite takes the first of two columns alone to find where a range begins where the second is
    # the table's key: it would read all rows of the same value anew for each page.
    by_both = connection.dialect.name != "sqlite"
    for scans in listing.ranges(place, by_both=by_both):
        left = query.limit + 1 - len(rows)
        rows += read_rows(connection, table, scans, listing.further, left)
        if len(rows) > query.limit:
            del rows[query.limit :]
            last = Place(rows[-1][listing.sort], rows[-1][listing.key])
            return rows, write_cursor(last, listing.identity)
    return rows, None


@dataclass
class _Filter:
    """What a column has to be, all that is said of it taken together."""

    values: set[Any] | None = None
    lows: list[Any] = field(default_factory=list)
    highs: list[Any] = field(default_factory=list)

    @property
    def chosen(self) -> list[Any] | None:
        """The values that it may have, ordered; None where it is a range."""
        if self.values is None:
            return None
        values = [value for value in self.values if self.has(value)]
        try:
            return sorted(values)
        except TypeError:  # members of an enum, for one, have no order of their own
            return sorted(values, key=repr)

    def has(self, value: Any) -> bool:
        """Whether a value is within the range."""
        return all(value >= low for low in self.lows) and all(value <= high for high in self.highs)


class _Listing:
    """One list: its order and its filters, without the page that is asked for.

    Attributes:
        key: the table's key.
        sort: the column that it is sorted by.
        further: conditions that are taken as they are.
        identity: the same for the same list, for its cursors.
    """

    def __init__(self, table: Table, order: str, wanted: Sequence[Wanted]) -> None:
        (key,) = table.primary_key.columns
        self._table = table
        self.key = key.name
        self.sort = order.removeprefix("-")
        self._descending = order.startswith("-")
        self._is_unique = _check_order(table, self.key, self.sort)
        self._filters: dict[str, _Filter] = {}
        self.further: list[ColumnElement[bool]] = []
        for each in wanted:
            self._take(each)
        said = [
            (name, sorted(map(repr, each.values or ())), each.values is None, each.lows, each.highs)
            for name, each in sorted(self._filters.items())
        ]
        conditions = [_text_of(each) for each in self.further]
        self.identity = repr((table.name, order, said, conditions)).encode()

    def _take(self, wanted: Wanted) -> None:
        if isinstance(wanted, OneOf):
            one = self._filter_of(wanted.column)
            values = set(wanted.values)
            one.values = values if one.values is None else one.values & values
        elif isinstance(wanted, Between):
            one = self._filter_of(wanted.column)
            one.lows += [] if wanted.low is None else [wanted.low]
            one.highs += [] if wanted.high is None else [wanted.high]
        else:
            self.further.append(wanted)

    def _filter_of(self, column: ColumnElement[Any]) -> _Filter:
        if not isinstance(column, Column) or column.table is not self._table:
            raise TypeError(f"{column} is no column of {self._table.name}")
        return self._filters.setdefault(column.name, _Filter())

    def ranges(self, place: Place | None, *, by_both: bool) -> Iterator[list[Scan]]:
        """What has to be read, one after the other, each as scans that are read together.

        Args:
            place: where the page before ended.
            by_both: whether a range may begin behind a value and an id at once.

        Raises:
            Problem: 422, the place cannot be one of this list.
        """
        if place is not None:
            self._check(place)
        if any(each.chosen == [] for each in self._filters.values()):
            return  # a value cannot be in the list and out of the range at once
        split = self._split_column()
        if split is not None:
            yield list(self._each_value(split, place))
        elif self.sort == self.key:
            behind = self._behind(place, self.key)
            yield [self._scan([self.key], [*self._compared(), *behind])]
        else:
            yield from self._by_value(place, by_both=by_both)

    def _check(self, place: Place) -> None:
        """Finds a place whose value this list's column cannot have."""
        column = self._table.c[self.sort]
        one = self._filters.get(self.sort)
        if place.value is None:
            is_right = column.nullable and one is None
        else:
            kind = getattr(column.type, "impl_instance", column.type).python_type
            is_right = type(place.value) is kind and (one is None or one.has(place.value))
        if not is_right or (self.sort == self.key and place.value != place.id):
            raise wrong_cursor()

    def _split_column(self) -> str | None:
        """The column of which each value is a range of its own, in the order of the list."""
        names = self._filters if self.sort == self.key else {self.sort}
        for name in names:
            one = self._filters.get(name)
            chosen = one.chosen if one is not None else None
            if (
                chosen is not None
                and len(chosen) <= _MAX_RANGES
                and all(type(value) in KINDS for value in chosen)
                and name != self.key
                and _leads(self._table, name, self.key)
            ):
                return name
        return None

    def _each_value(self, name: str, place: Place | None) -> Iterator[Scan]:
        """A scan for each value of a column, by id; by their value, too, where several are."""
        for value in self._filters[name].chosen or ():
            behind = self._behind(place, self.key)
            if name == self.sort and place is not None:
                if (value > place.value) if self._descending else (value < place.value):
                    continue
                if value != place.value:
                    behind = []
            order = [name, self.key] if name == self.sort else [self.key]
            equal = Comparison(name, "=", (value,))
            yield self._scan(order, [equal, *self._compared(but=name), *behind])

    def _by_value(self, place: Place | None, *, by_both: bool) -> Iterator[list[Scan]]:
        """Those that have a value, by it and the id, and then those that have none, by the id."""
        one = self._filters.get(self.sort)
        may_be_empty = bool(self._table.c[self.sort].nullable) and one is None
        order = [self.sort] if self._is_unique else [self.sort, self.key]
        if place is None or place.value is not None:
            compared = list(self._compared())
            if place is not None:
                # Where the page begins is the narrower bound; with both, a database may take
                # the wider one and read all before the page again.
                wider = "<=" if self._descending else ">="
                compared = [
                    each for each in compared if (each.column, each.operator) != (self.sort, wider)
                ]
                if self._is_unique or not by_both:
                    if not self._is_unique:
                        same = [Comparison(self.sort, "=", (place.value,)), *compared]
                        yield [self._scan(order, [*same, *self._behind(place, self.key)])]
                    operator = "<" if self._descending else ">"
                    compared.append(Comparison(self.sort, operator, (place.value,)))
                else:
                    edge = (place.value, place.id)
                    compared.append(Comparison(self.sort, "behind", edge))
            elif may_be_empty:
                compared.append(Comparison(self.sort, "not null"))
            yield [self._scan(order, compared)]
        if may_be_empty:
            rest = place if place is not None and place.value is None else None
            empty = Comparison(self.sort, "null")
            behind = self._behind(rest, self.key)
            yield [self._scan([self.sort, self.key], [empty, *self._compared(), *behind])]

    def _behind(self, place: Place | None, name: str) -> list[Comparison]:
        """Where a page begins, by the id alone."""
        operator = "<" if self._descending else ">"
        return [] if place is None else [Comparison(name, operator, (place.id,))]

    def _compared(self, *, but: str | None = None) -> Iterator[Comparison]:
        """The filters as comparisons, those of one column left out."""
        for name, one in self._filters.items():
            if name == but:
                continue
            chosen = one.chosen
            if chosen is not None:
                yield Comparison(name, "=" if len(chosen) == 1 else "in", tuple(chosen))
                continue
            for low in one.lows:
                yield Comparison(name, ">=", (low,))
            for high in one.highs:
                yield Comparison(name, "<=", (high,))

    def _scan(self, order: list[str], comparisons: Iterable[Comparison]) -> Scan:
        return Scan(tuple(order), self._descending, tuple(comparisons))


def _check_order(table: Table, key: str, sort: str) -> bool:
    """Whether the column that a list is to be sorted by is unique and never empty.

    Raises:
        Problem: 422, no index is in that order.
    """
    column = table.c.get(sort)
    if column is None or not (sort == key or _leads(table, sort, key) or _unique(table, sort)):
        right = [each.name for each in table.c if each.name == key or _leads(table, each.name, key)]
        detail = f"It cannot be sorted so: {did_you_mean(sort, right)}"
        wrong = FieldProblem(where="query", pointer="/sort", detail=detail, type="sort")
        raise invalid_input([wrong])
    return not column.nullable and not _leads(table, sort, key)


def _leads(table: Table, name: str, key: str) -> bool:
    """Whether an index has a column first, and then the key."""
    return any([each.name for each in index.columns][:2] == [name, key] for index in table.indexes)


def _unique(table: Table, name: str) -> bool:
    """Whether no two rows have the same value of a column."""
    alone = [each for each in table.constraints if isinstance(each, UniqueConstraint)]
    return (
        bool(table.c[name].unique)
        or any(each.columns.keys() == [name] for each in alone)
        or any(each.unique and each.columns.keys() == [name] for each in table.indexes)
    )


def _text_of(condition: ColumnElement[bool]) -> tuple[str, str]:
    compiled = condition.compile()
    return str(compiled), repr(sorted(compiled.params.items()))
