"""Data that a feature keeps, on both databases, with requests and without."""

import asyncio
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from petsage import Problem
from petsage.app import create_app
from petsage.catalog import CATALOG
from petsage.shared_database import SHARED_DATABASE
from petsage.storage import DATABASE, Database
from petsage.testing import Client, _client
from tests.conftest import errors_of
from tests.keeping import FILES, note

PETS = Path(__file__).parent / "features_data" / "pets"
URL = "/api/v1/notes"
AT = datetime(2026, 1, 31, 10, 0, 0, 123456, tzinfo=UTC)


@pytest.fixture
def petsage_database(database_url):
    return database_url


@dataclass
class Notes:
    """The feature `notes`, served, and its way to the database."""

    client: Client

    @property
    def database(self) -> Database:
        served = self.client.app[CATALOG]._current.serving["notes"]
        return served.running.app[DATABASE]

    @property
    def store(self) -> Any:
        return sys.modules["features.notes.store"]

    def note(self, name: str, place: int = 1, **more: Any) -> Any:
        return self.store.NoteCreate(name=name, place=place, at=AT, **more)

    async def names(self) -> list[str]:
        return await self.database.read(self.store.names)


@pytest.fixture
async def notes(feature_client, feature_folder):
    return Notes(await feature_client(feature_folder("notes", FILES)))


@pytest.fixture
def quick(petsage_settings):
    """The test's settings, with a database that has to be quick."""
    database = petsage_settings.database.model_copy(update={"timeout_s": 0.3})
    return petsage_settings.model_copy(update={"database": database})


async def test_what_is_written_is_read_again_as_it_was(notes):
    more = {"list": [1, None, 1.5, True], "text": "é🐇\u0001", "nothing": {}}
    async with notes.client.post(URL, json=note("Ünï 🐇", 2**63 - 1, more=more)) as answer:
        assert answer.status == 201
        created = await answer.json()
    assert created["at"] == "2026-01-31T10:00:00Z"
    async with notes.client.get(f"{URL}/{created['id']}") as answer:
        assert (answer.status, await answer.json()) == (200, created)
    assert (created["name"], created["place"], created["more"]) == ("Ünï 🐇", 2**63 - 1, more)

    found = await notes.database.write(notes.store.add, notes.note("exact", 7))
    assert (await notes.database.read(notes.store.find, found.id)).at == AT


async def test_json_keeps_what_pydantic_dumps_as_it_writes_it(notes):
    more = {"at": AT, "of": (1, 2)}
    found = await notes.database.write(notes.store.add, notes.note("a", more=more))
    assert found.more == {"at": "2026-01-31T10:00:00.123456Z", "of": [1, 2]}


async def test_text_is_ordered_by_code_point(notes):
    names = ["Zoe", "aardvark", "Äffchen", "zebra", "école", "🐇", "\ufffd", "_"]
    for place, name in enumerate(names):
        await notes.database.write(notes.store.add, notes.note(name, place))
    assert await notes.names() == sorted(names)


async def test_a_moment_without_a_zone_is_none(notes):
    naive = notes.note("a").model_copy(update={"at": AT.replace(tzinfo=None)})
    with pytest.raises(Exception, match="has no zone"):
        await notes.database.write(notes.store.add, naive)
    assert await notes.names() == []


@pytest.mark.parametrize(
    "text", ["2026-01-31T12:00:00.123456+02:00", "2026-01-31 10:00:00.123456Z"]
)
async def test_a_moment_that_another_program_wrote_is_in_utc(notes, text):
    def write_as_text(connection):
        connection.exec_driver_sql(f"UPDATE notes SET at = '{text}'")

    added = await notes.database.write(notes.store.add, notes.note("a"))
    await notes.database.write(write_as_text)
    moment = (await notes.database.read(notes.store.find, added.id)).at
    assert (moment, moment.tzinfo) == (AT, UTC)


@pytest.mark.parametrize(
    ("second", "fields"),
    [(note("a", 2), ["/name"]), (note("b", 1), ["/shelf", "/place"])],
)
async def test_what_is_taken_is_409_and_named(notes, second, fields):
    async with notes.client.post(URL, json=note("a", 1)) as answer:
        assert answer.status == 201
    async with notes.client.post(URL, json=second) as answer:
        problem = await answer.json()
    assert problem["status"] == 409
    assert [each["pointer"] for each in problem["errors"]] == fields
    assert {(each["in"], each["type"]) for each in problem["errors"]} == {("body", "unique")}
    async with notes.client.get(URL) as answer:
        assert await answer.json() == ["a"]


async def test_a_text_that_the_database_cannot_keep_is_422(notes, database_url, log_lines):
    keeps_nul = database_url.startswith("sqlite")
    for place, text in enumerate(("a\0b", "\0", "\ud800", "a\udfff")):
        is_kept = keeps_nul and "\0" in text
        model = notes.store.NoteCreate.model_construct
        values = {"name": "x", "shelf": "y", "place": place, "at": AT, "more": None}
        for field, value in (("name", text), ("shelf", text), ("more", {text: 1})):
            made = model(**{**values, field: value})
            if is_kept or (field == "more" and "\0" in text):
                added = await notes.database.write(notes.store.add, made)
                assert getattr(added, field) == value
                await notes.database.write(notes.store.empty)
            else:
                with pytest.raises(Problem) as raised:
                    await notes.database.write(notes.store.add, made)
                assert raised.value.status == 422
    body = note("a\0b")
    async with notes.client.post(URL, json=body) as answer:
        assert answer.status == (201 if keeps_nul else 422)
    assert errors_of(log_lines()) == []


async def test_another_broken_rule_is_a_failure_of_the_code(notes, log_lines):
    async with notes.client.post(f"{URL}/lack") as answer:
        assert answer.status == 500
    line = next(each for each in log_lines() if each["level"] == "ERROR")
    assert "IntegrityError" in "".join(line["exc_info"])
    assert notes.client.app[SHARED_DATABASE].counts.outages == 0


async def test_who_reads_cannot_write(notes):
    async with notes.client.post(f"{URL}/wrong-read", json=note("a")) as answer:
        assert answer.status == 500
    assert await notes.names() == []
    assert notes.client.app[SHARED_DATABASE].counts.outages == 0
    async with notes.client.post(URL, json=note("a")) as answer:
        assert answer.status == 201


@pytest.mark.parametrize("error", [Problem(412, "no"), ValueError("no"), SystemExit(3)])
async def test_what_raises_has_written_nothing(notes, error):
    add, fail = notes.store.add, notes.store.add_and_fail

    async def attempt(place: int) -> None:
        with pytest.raises(type(error)):
            await notes.database.write(fail, notes.note(f"failed {place}", place), error)

    # Among others that are written together with it, too.
    good = [notes.database.write(add, notes.note(f"n{i}", i)) for i in range(8)]
    await asyncio.gather(*good[:4], *(attempt(100 + i) for i in range(4)), *good[4:])
    assert await notes.names() == [f"n{i}" for i in range(8)]


async def test_a_function_may_raise_stop_iteration(notes):
    with pytest.raises(RuntimeError):
        await notes.database.read(lambda _: next(iter(())))
    assert await notes.names() == []


async def test_fifty_writers_at_once_lose_nothing(notes):
    found = await notes.database.write(notes.store.add, notes.note("a"))
    answers = await asyncio.gather(
        *(notes.client.post(f"{URL}/{found.id}/count") for _ in range(50))
    )
    assert [answer.status for answer in answers] == [200] * 50
    counted = [await answer.json() for answer in answers]
    assert sorted(counted) == list(range(1, 51))
    assert (await notes.database.read(notes.store.find, found.id)).count == 50


async def test_lines_of_a_store_belong_to_their_request(notes, log_lines):
    await notes.client.get(f"{URL}/7", headers={"X-Request-ID": "seven"})
    line = next(each for each in log_lines() if each["message"] == "Looks for 7")
    assert (line["request_id"], line["feature"]) == ("seven", "notes")


async def test_who_goes_away_leaves_nothing_half_done(notes):
    found = await notes.database.write(notes.store.add, notes.note("a"))
    ended = 0
    for steps in range(40):
        tasks = [
            asyncio.create_task(call)
            for call in (
                notes.database.write(notes.store.count, found.id),
                notes.database.read(notes.store.find, found.id),
            )
        ]
        for _ in range(steps):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(
            isinstance(each, asyncio.CancelledError) or not isinstance(each, BaseException)
            for each in results
        )
        ended += not isinstance(results[0], BaseException)
    # Each connection serves as before, and what was counted is whole.
    counted = await asyncio.gather(
        *(notes.database.write(notes.store.count, found.id) for _ in range(30))
    )
    first = min(counted)
    assert sorted(counted) == list(range(first, first + 30))
    assert ended <= first - 1 <= 40


async def test_what_takes_too_long_is_cut_and_others_go_on(quick, feature_folder, log_pipeline):
    catalog = quick.catalog.model_copy(update={"folders": [feature_folder("notes", FILES).parent]})
    settings = quick.model_copy(update={"catalog": catalog})
    async with _client(create_app(settings), settings) as client:
        notes = Notes(client)
        slow = [
            asyncio.create_task(notes.database.read(notes.store.be_slow)),
            asyncio.create_task(notes.database.write(notes.store.be_slow)),
        ]
        await asyncio.sleep(0)
        assert await notes.names() == []
        for task in slow:
            with pytest.raises(Problem) as caught:
                await task
            assert (caught.value.status, caught.value.headers) == (503, {"Retry-After": "1"})
        await notes.database.write(notes.store.add, notes.note("a"))
        assert await notes.names() == ["a"]
        counts = client.app[SHARED_DATABASE].counts
        assert (counts.refused["busy"], counts.outages) == (2, 0)


async def test_a_feature_that_comes_again_and_again_leaves_nothing(
    petsage_settings, feature_folder, log_pipeline
):
    folder = feature_folder("notes", FILES)
    catalog = petsage_settings.catalog.model_copy(update={"folders": [folder.parent]})
    settings = petsage_settings.model_copy(update={"catalog": catalog})
    app = create_app(settings)
    async with _client(app, settings) as client:
        for number in range(5):
            async with client.post(URL, json=note(f"n{number}", number)) as answer:
                assert answer.status == 201
            async with client.post(URL, json=note(f"n{number}", number)) as answer:
                assert answer.status == 409
            for path in (URL, f"{URL}/1", "/readyz/notes.database"):
                async with client.get(path) as answer:
                    assert answer.status == 200
            (folder / "models.py").write_text(f"{FILES['models.py']}\nNUMBER = {number}\n")
            assert [each.step for each in await app[CATALOG].refresh()] == ["changed"]
            retirement = app[CATALOG]._current.retirement
            while tasks := list(retirement._leaving):
                await asyncio.wait(tasks)
            async with client.get(URL) as answer:
                assert len(await answer.json()) == number + 1
        retirement._collect()
        assert app[CATALOG].leaked == ()


async def test_one_look_finds_that_models_within_models_are_gone(
    petsage_settings, tmp_path, log_pipeline
):
    folder = tmp_path / "features" / "pets"
    shutil.copytree(PETS, folder, ignore=shutil.ignore_patterns("tests", "__pycache__"))
    catalog = petsage_settings.catalog.model_copy(update={"folders": [folder.parent]})
    settings = petsage_settings.model_copy(update={"catalog": catalog})
    app = create_app(settings)
    async with _client(app, settings) as client:
        pet = {"name": "Rex", "species": "dog", "weight_kg": 1.5}
        async with client.post("/api/v1/pets", json=pet) as answer:
            assert answer.status == 201
        async with client.get("/api/v1/pets") as answer:
            assert answer.status == 200
        (folder / "extra.py").write_text("")
        assert [each.step for each in await app[CATALOG].refresh()] == ["changed"]
        retirement = app[CATALOG]._current.retirement
        while tasks := list(retirement._leaving):
            await asyncio.wait(tasks)
        async with client.get("/api/v1/pets") as answer:
            assert answer.status == 200
        assert retirement._traces
        retirement._collect()
        assert app[CATALOG].leaked == ()


PLAIN = """
import asyncio, sys
from aiohttp import web
from petsage.app import create_app
from petsage.settings import Settings

async def main():
    runner = web.AppRunner(create_app(Settings()))
    await runner.setup()
    await runner.cleanup()

asyncio.run(main())
print([name for name in ("sqlalchemy", "alembic", "asyncpg", "sqlite3") if name in sys.modules])
"""


def test_who_keeps_no_data_imports_nothing_for_it(tmp_path):
    told = subprocess.run(
        [sys.executable, "-c", PLAIN], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert told.stdout == "[]\n"


LACKING = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {package!r}:
            raise ModuleNotFoundError("no", name=name)
sys.meta_path.insert(0, Absent())
from petsage.cli import main
sys.argv = ["petsage", "check"]
main()
"""


@pytest.mark.parametrize("package", ["sqlalchemy", "alembic"])
def test_an_extra_that_is_not_there_is_named(feature_folder, tmp_path, package):
    feature_folder("notes", FILES)
    told = subprocess.run(
        [sys.executable, "-c", LACKING.format(package=package)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 1
    assert f"`{package}` is not installed" in " ".join(told.stdout.split())
    assert "pip install 'petsage[db]'" in " ".join(told.stdout.split())


async def test_the_import_of_the_storage_is_no_side_effect(notes):
    entry = next(each for each in notes.client.app[CATALOG].entries() if each.name == "notes")
    assert entry.findings == ()


async def test_what_is_asked_of_the_database_is_counted(notes):
    async with notes.client.post(URL, json=note("a")) as answer:
        assert answer.status == 201
    assert await notes.names() == ["a"]
    async with notes.client.get("/metrics") as answer:
        lines = dict(
            line.rsplit(" ", 1) for line in (await answer.text()).splitlines() if line[:1] != "#"
        )
    found = {name.removeprefix("petsage_database_"): value for name, value in lines.items()}
    assert found['up{kind="read"}'] == found['up{kind="write"}'] == "1.0"
    assert found['calls_total{kind="read"}'] == found['calls_total{kind="write"}'] == "1.0"
    assert 0 < float(found['seconds_total{kind="write"}']) < 5
    assert found['refused_total{reason="away"}'] == found["outages_total"] == "0.0"
    assert found["calls_in_hand"] == "0.0"


async def test_statements_that_the_server_has_prepared_are_prepared_again(
    notes, database_url, request
):
    if database_url.startswith("sqlite"):
        return  # its statements are prepared again by themselves
    import asyncpg

    found = await notes.database.write(notes.store.add, notes.note("a"))
    for _ in range(2):
        await notes.database.read(notes.store.find, found.id)
        await notes.database.write(notes.store.count, found.id)
    connection = await asyncpg.connect(database_url)
    await connection.execute("ALTER TABLE notes ALTER COLUMN name TYPE text")
    await connection.close()
    assert (await notes.database.read(notes.store.find, found.id)).name == "a"
    assert await notes.database.write(notes.store.count, found.id) == 3


async def test_who_waits_for_each_other_is_tried_again(notes):
    for name, place in (("a", 1), ("b", 2)):
        await notes.database.write(notes.store.add, notes.note(name, place))

    def count_both(connection, first, second):
        notes.store.count(connection, first)
        if connection.dialect.name == "postgresql":  # so that the other one has its first, too
            connection.exec_driver_sql("SELECT pg_sleep(0.1)")
        return notes.store.count(connection, second)

    await asyncio.gather(
        notes.database.write(count_both, 1, 2), notes.database.write(count_both, 2, 1)
    )
    for each in (1, 2):
        assert (await notes.database.read(notes.store.find, each)).count == 2
