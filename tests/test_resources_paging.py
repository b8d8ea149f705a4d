"""Pages of a table, on both databases: what is read for each, and in what order."""

import itertools
import json
import random
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, column, create_engine, event, func, insert, select, text
from sqlalchemy.ext.asyncio import create_async_engine

from petsage.errors import Problem
from petsage.resources import PageQuery, between, one_of, page_of
from petsage.resources.cursors import Place, read_cursor, write_cursor
from petsage.resources.paging import Wanted
from tests.features_data.pets.store import metadata, pets

Ask = Callable[..., Awaitable[Any]]
ROWS = 4_000
SPECIES = ("cat", "dog", "rabbit")


@pytest.fixture
async def ask(database_url: str) -> AsyncIterator[Ask]:
    """Calls a function with a connection to a database that has the table, and is empty."""
    if database_url.startswith("sqlite"):
        plain = create_engine(database_url)
        with plain.connect() as connection:
            metadata.create_all(connection)

            async def call(function: Callable[..., Any], *args: Any) -> Any:
                return function(connection, *args)

            yield call
        plain.dispose()
        return
    engine = create_async_engine(database_url.replace("postgresql:", "postgresql+asyncpg:", 1))
    async with engine.connect() as asynchronous:
        await asynchronous.run_sync(metadata.create_all)

        async def run(function: Callable[..., Any], *args: Any) -> Any:
            return await asynchronous.run_sync(function, *args)

        yield run
    await engine.dispose()


def fill(connection: Connection, count: int) -> list[dict[str, Any]]:
    """Adds so many pets, and gives all of them."""
    drawn = random.Random(count)
    now = date(2020, 1, 1)
    moment = "2020-01-01 00:00:00.000000"
    rows = [
        {
            "name": f"{drawn.random()}",
            "species": drawn.choice(SPECIES),
            "born": drawn.choice([None, *(now.replace(day=day) for day in range(1, 29))]),
            "weight_kg": 1.0,
        }
        for _ in range(count)
    ]
    template = insert(pets).values(created_at=text(f"'{moment}'"), updated_at=text(f"'{moment}'"))
    connection.execute(template, rows)
    connection.execute(text("ANALYZE"))
    return [dict(row) for row in connection.execute(select(pets)).mappings()]


def ordered(rows: list[dict[str, Any]], sort: str) -> list[dict[str, Any]]:
    """Rows as a list has them: what is empty last, backwards in ids, too."""
    name, backwards = sort.removeprefix("-"), sort.startswith("-")
    full = [row for row in rows if row[name] is not None]
    full.sort(key=lambda row: (row[name], row["id"]), reverse=backwards)
    empty = [row for row in rows if row[name] is None]
    return [*full, *sorted(empty, key=lambda row: int(row["id"]), reverse=backwards)]


SORTS = ("id", "-id", "species", "-species", "born", "-born")
FILTERS: list[dict[str, Any]] = [
    {"species": species, "born": born, "low": low, "high": high}
    for species, born, (low, high) in itertools.product(
        (None, ["dog"], ["rabbit", "cat", "cat"], ["fish"], []),
        (None, [date(2020, 1, 3)], [date(2020, 1, day) for day in (9, 3, 5)]),
        ((None, None), (date(2020, 1, 4), None), (date(2020, 1, 3), date(2020, 1, 9))),
    )
] + [
    {
        "species": None,
        "born": [date(2020, 1, day) for day in range(1, 21)],
        "low": None,
        "high": None,
    }
]


def wanted_of(chosen: dict[str, Any]) -> list[Wanted]:
    return [
        *one_of(pets.c.species, chosen["species"]),
        *one_of(pets.c.born, chosen["born"]),
        *between(pets.c.born, chosen["low"], chosen["high"]),
    ]


def matches(row: dict[str, Any], chosen: dict[str, Any]) -> bool:
    born, low, high = row["born"], chosen["low"], chosen["high"]
    return (
        (chosen["species"] is None or row["species"] in chosen["species"])
        and (chosen["born"] is None or born in chosen["born"])
        and (low is None or (born is not None and born >= low))
        and (high is None or (born is not None and born <= high))
    )


def all_pages(connection: Connection, sort: str, limit: int, wanted: Sequence[Wanted]) -> list[Any]:
    found: list[Any] = []
    cursor = None
    while True:
        query = PageQuery(sort=sort, limit=limit, cursor=cursor)
        rows, cursor = page_of(connection, pets, query, wanted)
        assert len(rows) == limit or cursor is None
        found += rows
        assert len(found) <= ROWS, "the pages come round again"
        if cursor is None:
            return found


async def test_the_pages_of_any_list_are_the_list(ask: Ask) -> None:
    rows = await ask(fill, 120)

    def check(connection: Connection) -> None:
        for sort, chosen in itertools.product(SORTS, FILTERS):
            right = [row for row in ordered(rows, sort) if matches(row, chosen)]
            limit = max(1, len(right) // 3)
            found = all_pages(connection, sort, limit, wanted_of(chosen))
            assert found == right, (sort, chosen)

    await ask(check)


async def test_any_condition_may_be_wanted_and_cursors_are_bound_to_it(ask: Ask) -> None:
    rows = await ask(fill, 60)

    def check(connection: Connection) -> None:
        light = [pets.c.name > "0.5", *one_of(pets.c.species, ["dog", "cat"])]
        right = [row for row in rows if row["name"] > "0.5" and row["species"] != "rabbit"]
        assert all_pages(connection, "id", 4, light) == right
        assert all_pages(connection, "-species", 4, light) == ordered(right, "-species")
        _, cursor = page_of(connection, pets, PageQuery(limit=1), light)
        for other in ([pets.c.name > "0.4", *light[1:]], light[1:]):
            with pytest.raises(Problem) as raised:
                page_of(connection, pets, PageQuery(cursor=cursor), other)
            assert raised.value.status == 422

    await ask(check)


@contextmanager
def noted(connection: Connection) -> Iterator[list[tuple[str, Any]]]:
    """The statements that are executed meanwhile."""
    statements: list[tuple[str, Any]] = []

    def note(_: Any, __: Any, statement: str, values: Any, *rest: Any) -> None:
        statements.append((statement, values))

    event.listen(connection, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(connection, "before_cursor_execute", note)


def nodes_of(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The nodes of a PostgreSQL plan, from the top."""
    yield plan
    for each in plan.get("Plans", ()):
        yield from nodes_of(each)


# What PostgreSQL reckons with: as it comes, it may well look through rows that are none of the
# page's where that seems cheaper to it, by its statistics. Where nothing costs but rows that are
# looked at, it looks at the page alone, if the statement lets it.
BY_ROWS = {"cpu_tuple_cost": "1000", "cpu_index_tuple_cost": "1000"}
PLAIN = {"cpu_tuple_cost": "0.01", "cpu_index_tuple_cost": "0.005"}


def check_plan(connection: Connection, statement: str, values: Any, *, is_first: bool) -> None:
    """Fails where more is read than the page, or anything is sorted but some pages' rows."""
    if connection.dialect.name == "sqlite":
        steps = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all()
        for _, _, _, step in steps:
            assert "TEMP B-TREE" not in step or "UNION ALL" in statement, (statement, steps)
            if step.startswith("SCAN pets"):
                assert is_first, (statement, steps)
                assert step == "SCAN pets" or "USING INDEX" in step
        return
    for settings, most in ((PLAIN, ROWS // 4), (BY_ROWS, 10 * 11)):
        for name, value in settings.items():
            connection.execute(select(func.set_config(name, value, True)))
        explained = connection.exec_driver_sql(
            f"EXPLAIN (ANALYZE, FORMAT JSON, TIMING OFF) {statement}", values
        ).scalar_one()
        (whole,) = explained if isinstance(explained, list) else json.loads(explained)
        for node in nodes_of(whole["Plan"]):
            assert node["Node Type"] != "Seq Scan", whole
            looked_at = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
            assert looked_at <= most, (looked_at, whole)


PLANNED: list[tuple[str, dict[str, Any]]] = [
    *((sort, {}) for sort in SORTS),
    *((sort, {"species": ["dog"]}) for sort in ("id", "-id", "species", "-species")),
    *((sort, {"species": ["dog", "cat"]}) for sort in ("id", "-id", "species", "-species")),
    *((sort, {"born": [date(2020, 1, 3), date(2020, 1, 9)]}) for sort in ("id", "born", "-born")),
    *((sort, {"low": date(2020, 1, 3)}) for sort in ("born", "-born")),
    *((sort, {"high": date(2020, 1, 9)}) for sort in ("born", "-born")),
    *((sort, {"low": date(2020, 1, 2), "high": date(2020, 1, 9)}) for sort in ("born", "-born")),
]


async def test_a_page_is_a_range_of_an_index_and_nothing_is_sorted(ask: Ask) -> None:
    rows = await ask(fill, ROWS)

    def check(connection: Connection) -> None:
        for sort, said in PLANNED:
            chosen = {"species": None, "born": None, "low": None, "high": None, **said}
            right = [row for row in ordered(rows, sort) if matches(row, chosen)]
            listing = read_listing(connection, sort, chosen)
            # The first page, one in the middle, one where empty values begin, and the last.
            full = sum(row[sort.removeprefix("-")] is not None for row in right)
            for start in {0, len(right) // 2, full - 5, full, len(right) - 4} - {len(right)}:
                cursor = None
                if start:
                    last = right[start - 1]
                    place = Place(last[sort.removeprefix("-")], last["id"])
                    cursor = write_cursor(place, listing)
                query = PageQuery(sort=sort, limit=10, cursor=cursor)
                with noted(connection) as statements:
                    page, _ = page_of(connection, pets, query, wanted_of(chosen))
                assert page == right[start : start + 10]
                assert len(statements) <= 3
                for statement, values in statements:
                    check_plan(connection, statement, values, is_first=not start)

    await ask(check)


def read_listing(connection: Connection, sort: str, chosen: dict[str, Any]) -> bytes:
    from petsage.resources.paging import _Listing

    return _Listing(pets, sort, wanted_of(chosen)).identity


async def test_a_page_costs_the_same_however_many_rows_there_are(sqlite_url: str) -> None:
    engine = create_engine(sqlite_url)
    costs: dict[Any, list[int]] = {}
    with engine.connect() as connection:
        metadata.create_all(connection)
        driver: Any = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        for count in (400, 4_000):
            rows = fill(connection, count)
            for sort, said in PLANNED:
                chosen = {"species": None, "born": None, "low": None, "high": None, **said}
                right = [row for row in ordered(rows, sort) if matches(row, chosen)]
                last = right[len(right) // 2]
                place = Place(last[sort.removeprefix("-")], last["id"])
                cursor = write_cursor(place, read_listing(connection, sort, chosen))
                query = PageQuery(sort=sort, limit=10, cursor=cursor)
                steps: list[None] = []
                driver.set_progress_handler(partial(steps.append, None), 1)
                page_of(connection, pets, query, wanted_of(chosen))
                driver.set_progress_handler(None, 1)
                costs.setdefault((sort, str(said)), []).append(len(steps))
    engine.dispose()
    for kind, (few, many) in costs.items():
        assert many < 2 * few, (kind, few, many)


def test_a_list_is_sorted_by_what_has_an_index_and_nothing_else() -> None:
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        metadata.create_all(connection)
        for sort in ("name", "weight_kg", "nothing", "", "--id"):
            with pytest.raises(Problem) as raised:
                page_of(connection, pets, PageQuery(sort=sort))
            (error,) = raised.value.extensions["errors"]
            assert (raised.value.status, error["pointer"]) == (422, "/sort")
        with pytest.raises(TypeError, match="is no column of pets"):
            page_of(connection, pets, PageQuery(), one_of(column("species"), ["a"]))
    engine.dispose()


MISPLACED: list[tuple[str, dict[str, Any], Any]] = [
    ("species", {}, None),
    ("species", {}, date(2020, 1, 3)),
    ("born", {}, "x"),
    ("born", {"low": date(2020, 1, 3)}, None),
    ("born", {"low": date(2020, 1, 3)}, date(2020, 1, 2)),
    ("-born", {"born": [date(2020, 1, 3)]}, None),
    ("id", {}, 8),
    ("id", {}, None),
    ("-id", {}, "7"),
]


async def test_a_place_that_its_list_cannot_have_is_refused(ask: Ask) -> None:
    def check(connection: Connection) -> None:
        for sort, said, value in MISPLACED:
            chosen = {"species": None, "born": None, "low": None, "high": None, **said}
            cursor = write_cursor(Place(value, 7), read_listing(connection, sort, chosen))
            with pytest.raises(Problem) as raised:
                page_of(connection, pets, PageQuery(sort=sort, cursor=cursor), wanted_of(chosen))
            assert raised.value.status == 422, (sort, said, value)

    await ask(check)


def test_a_cursor_that_was_made_up_is_refused_and_never_an_error() -> None:
    listing = b"pets"
    for value in (None, "ü\n", 2**63 - 1, True, 0.1, -0.0, 5e-324, date(1, 1, 1), UUID(int=7)):
        place = Place(value, 7)
        read = read_cursor(write_cursor(place, listing), listing)
        assert repr(read) == repr(place)
    with pytest.raises(TypeError, match="sorted by dict"):
        write_cursor(Place({}, 7), listing)
    good = write_cursor(Place("x", 7), listing)
    for wrong in (
        "",
        "=",
        good + "=",
        good[:-1],
        good + "A",
        "ü",
        "\0",
        "A" * 8_000,
        good.swapcase(),
    ):
        with pytest.raises(Problem) as raised:
            read_cursor(wrong, listing)
        assert raised.value.status == 422
    with pytest.raises(Problem):
        read_cursor(good, b"dogs")


def test_a_cursor_with_a_right_check_and_wrong_content_is_refused() -> None:
    from base64 import urlsafe_b64encode

    from petsage.resources.cursors import _check_of

    for payload in (
        *(b"", b"{}", b"[]", b'["s","x"]', b'["s",5,1]', b'["s","a\\u0000",1]', b'["i","1",1]'),
        *(b'["i",1.5,1]', b'["f",1.5,1]', b'["f","x",1]', b'["f","0x1p99999",1]', b'["f","nan",1]'),
        *(b'["d","x",1]', b'["d",1,1]', b'["t",1,1]', b'["u",1,1]', b'["x",1,1]', b"[[],1,1]"),
        *(b'["i",9223372036854775808,1]', b'["i",1,true]', b'["b",1,1]', b'["-",1,1]', b"\xff"),
        *(b'["t","2020-01-01T00:00:00",1]', b'["t","0001-01-01T00:00:00+01:00",1]'),
    ):
        raw = _check_of(payload, b"pets") + payload
        text_ = urlsafe_b64encode(raw).rstrip(b"=").decode()
        with pytest.raises(Problem) as raised:
            read_cursor(text_, b"pets")
        assert raised.value.status == 422, payload
