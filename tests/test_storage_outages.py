"""A database that goes away, and comes back; and one that cannot be used to begin with."""

import asyncio
import contextlib
import gc
import resource
import shutil
import sqlite3
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from petsage.app import create_app
from petsage.catalog import CATALOG
from petsage.fresh_database import fresh_database
from petsage.settings import DatabaseSettings
from petsage.shared_database import SHARED_DATABASE
from petsage.storage import DATABASE
from petsage.storage.faults import Unavailable
from petsage.storage.postgresql import PostgresqlEngine
from petsage.testing import _client
from tests.keeping import FILES, note

URL = "/api/v1/notes"
READY = "/readyz/notes.database"
SECRET = "hunter2"


@pytest.fixture
def begin(petsage_settings, feature_folder, log_pipeline):
    """Serves the feature `notes` on a database, which has to be quick."""

    def client(url: str, timeout_s: float = 5.0):
        folders = [feature_folder("notes", FILES).parent]
        settings = petsage_settings.model_copy(
            update={
                "catalog": petsage_settings.catalog.model_copy(update={"folders": folders}),
                "database": petsage_settings.database.model_copy(
                    update={"url": url, "timeout_s": timeout_s}
                ),
            }
        )
        return _client(create_app(settings), settings)

    return client


@pytest.fixture
def path(sqlite_url) -> Path:
    return Path(sqlite_url.removeprefix("sqlite:///"))


async def _status(client, path=URL):
    async with client.get(path) as answer:
        if answer.status == 503 and path == URL:
            assert answer.headers["Retry-After"] == "1"
            assert answer.headers["Content-Type"] == "application/problem+json"
        return answer.status


async def _add(client, name, place):
    async with client.post(URL, json=note(name, place)) as answer:
        return answer.status


async def _until(client, status, path=URL):
    async with asyncio.timeout(20):
        while await _status(client, path) != status:  # noqa: ASYNC110 - nobody else tells
            await asyncio.sleep(0.02)


async def _order(url, statement):
    """Has a server perform a statement, beside whoever else is connected."""
    connection = await asyncpg.connect(url)
    await connection.execute(statement)
    await connection.close()


def _replace(path):
    """Puts an empty database there."""
    for end in ("", "-wal", "-shm"):
        Path(f"{path}{end}").unlink()
    path.touch()


def _log_of(path) -> int:
    """How long the write-ahead log of a database is."""
    return Path(f"{path}-wal").stat().st_size


def _told(log_lines):
    """What the log says of the database, without what differs from time to time."""
    lines = [line for line in log_lines() if line["logger"] == "petsage.shared_database"]
    return [" ".join(line["message"].split()[:5]) for line in lines]


async def test_a_server_that_is_restarted_costs_no_request(begin, stoppable_postgres):
    async with begin(stoppable_postgres.url) as client:
        assert await _add(client, "a", 1) == 201
        await asyncio.gather(*(_status(client) for _ in range(20)))
        for end in (stoppable_postgres.cluster.stop, stoppable_postgres.cluster.crash):
            # In the loop's own thread: it has seen nothing of it when the next requests come.
            end()
            stoppable_postgres.cluster.start()
            calls = [_status(client) for _ in range(10)]
            counts = [client.post(f"{URL}/1/count") for _ in range(10)]
            assert await asyncio.gather(*calls) == [200] * 10
            assert [each.status for each in await asyncio.gather(*counts)] == [200] * 10
        assert client.app[SHARED_DATABASE].counts.outages == 0


async def test_a_server_that_is_away_is_503_until_it_is_back(begin, stoppable_postgres, log_lines):
    async with begin(stoppable_postgres.url) as client:
        assert await _add(client, "a", 1) == 201
        assert await _status(client, READY) == 200
        stoppable_postgres.cluster.stop()
        for place in range(3):
            assert await _status(client) == 503
            assert await _add(client, "b", place) == 503
        assert await _status(client, "/api/v1/smoke-test") in {200, 404}
        await _until(client, 503, READY)
        stoppable_postgres.cluster.start()
        assert await _status(client) == 200
        assert await _add(client, "b", 2) == 201
        await _until(client, 200, READY)
    assert _told(log_lines) == ["The database cannot be used:", "The database can be used"]


async def test_a_feature_starts_without_its_server(begin, stoppable_postgres, log_lines):
    stoppable_postgres.cluster.stop()
    async with begin(stoppable_postgres.url) as client:
        assert await _status(client) == 503
        assert await _status(client, READY) == 503
        stoppable_postgres.cluster.start()
        await _until(client, 200)
        assert await _add(client, "a", 1) == 201
        await _until(client, 200, READY)
    assert _told(log_lines) == ["The database cannot be written", "The database can be used"]


async def test_a_password_is_told_to_nobody(begin, postgres_url, log_lines, petsage_settings):
    for url in (
        f"postgresql://petsage:{SECRET}@127.0.0.1:1/none",
        f"postgresql://petsage:{SECRET}@127.0.0.1:{SECRET}/none",
        f"postgresql://petsage:{SECRET}@/none?host=/nowhere&sslmode={SECRET}",
    ):
        async with begin(url) as client:
            async with client.get("/readyz?verbose") as answer:
                assert SECRET not in await answer.text()
            assert await _status(client) == 503
            assert SECRET not in repr(client.app[SHARED_DATABASE].settings)
    assert SECRET not in str(log_lines())


async def test_a_file_that_is_gone_is_503_until_it_is_back(begin, sqlite_url, path, log_lines):
    async with begin(sqlite_url) as client:
        assert await _add(client, "a", 1) == 201
        aside = path.with_name("aside")
        path.rename(aside)
        assert await _status(client) == 503
        assert await _add(client, "b", 2) == 503
        await _until(client, 503, READY)
        assert not path.exists()
        aside.rename(path)
        assert await _status(client) == 200
        assert await _add(client, "b", 2) == 201
        await _until(client, 200, READY)
    assert _told(log_lines) == ["The database cannot be used:", "The database can be used"]


async def test_another_file_in_its_place_is_brought_up_to_date(begin, sqlite_url, path):
    async with begin(sqlite_url) as client:
        assert await _add(client, "a", 1) == 201
        _replace(path)
        assert await _status(client) == 503
        await _until(client, 200)
        assert await _add(client, "a", 1) == 201
        async with client.get(URL) as answer:
            assert await answer.json() == ["a"]


async def test_another_database_of_the_name_is_brought_up_to_date(
    begin, postgres_server, log_lines
):
    with fresh_database(postgres_server) as url:
        name = urlsplit(url).path[1:]
        async with begin(url) as client:
            assert await _add(client, "a", 1) == 201
            await _order(postgres_server, f'DROP DATABASE "{name}" WITH (FORCE)')
            assert await _add(client, "b", 2) == 503
            await _order(postgres_server, f'CREATE DATABASE "{name}"')
            assert await _status(client) == 503  # nobody knows its tables
            await _until(client, 200)
            assert await _add(client, "a", 1) == 201
            async with client.get(URL) as answer:
                assert await answer.json() == ["a"]
    assert _told(log_lines) == ["The database cannot be written", "The database can be used"]


async def test_a_table_that_somebody_drops_is_not_made_anew(begin, postgres_url, log_lines):
    async with begin(postgres_url) as client:
        await _order(postgres_url, "ALTER TABLE notes RENAME TO aside")
        assert await _status(client) == 500
        assert await _add(client, "a", 1) == 500
        await _order(postgres_url, "ALTER TABLE aside RENAME TO notes")
        assert await _add(client, "a", 1) == 201
    assert _told(log_lines) == []


async def test_a_database_that_is_read_only_is_red_until_it_writes_again(
    begin, postgres_url, log_lines
):
    name = urlsplit(postgres_url).path[1:]
    cut_off = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        f"WHERE datname = '{name}' AND pid <> pg_backend_pid()"
    )
    async with begin(postgres_url) as client:
        assert await _add(client, "a", 1) == 201
        await _order(
            postgres_url, f'ALTER DATABASE "{name}" SET default_transaction_read_only = on'
        )
        await _order(postgres_url, cut_off)
        assert await _add(client, "b", 2) == 503
        assert await _status(client) == 200
        await _until(client, 503, READY)
        assert await _add(client, "b", 2) == 503
        mend = f'ALTER DATABASE "{name}" RESET default_transaction_read_only'
        await _order(postgres_url, f"BEGIN READ WRITE; {mend}; COMMIT")
        await _order(postgres_url, cut_off)
        assert await _add(client, "b", 2) == 201
        await _until(client, 200, READY)
    assert _told(log_lines) == ["The database cannot be written", "The database can be used"]


async def test_a_look_that_is_not_waited_for_is_no_error(begin, stoppable_postgres, caplog):
    async with begin(stoppable_postgres.url) as client:
        assert await _status(client) == 200
        served = client.app[CATALOG]._current.serving["notes"]
        database = served.running.app[DATABASE]
        stoppable_postgres.cluster.stop()
        asking = asyncio.create_task(database.check())
        await asyncio.sleep(0)  # it looks
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.wait({database._look})
        await _until(client, 503, READY)  # another look, of which nothing is left of the first
    gc.collect()
    assert [each for each in caplog.records if each.name == "asyncio" and each.levelno > 10] == []


@pytest.mark.parametrize("what", ["no database", "a folder"])
async def test_what_cannot_be_used_is_told_and_mended(begin, sqlite_url, path, log_lines, what):
    if what == "a folder":
        path.mkdir()
    else:
        path.write_bytes(b"not a database" * 100)
    async with begin(sqlite_url) as client:
        assert await _status(client) == 503
        line = next(each for each in log_lines() if each["logger"] == "petsage.shared_database")
        assert str(path) in line["message"]
        assert "; fix: " in line["message"]
        if what == "a folder":
            path.rmdir()
        else:
            path.unlink()
        await _until(client, 200)
        assert await _add(client, "a", 1) == 201


async def test_it_tries_on_whatever_a_feature_breaks_and_cancels(
    begin, sqlite_url, path, monkeypatch
):
    path.mkdir()
    tries, again = [], asyncio.Event()
    async with begin(sqlite_url) as client:
        database = client.app[CATALOG]._current.serving["notes"].running.app[DATABASE]
        bring_up = database._engine.bring_up

        async def look(function):
            tries.append(function)
            if len(tries) == 2:
                again.set()
            return await bring_up(function)

        with monkeypatch.context() as patched:
            patched.setattr(database._engine, "bring_up", look)
            patched.setattr(asyncio, "sleep", None)
            database._task.cancel()
            async with asyncio.timeout(20):
                await again.wait()
        path.rmdir()
        await _until(client, 200)


async def test_a_disk_that_is_full_is_503_for_who_writes(begin, sqlite_url, path, log_lines):
    async with begin(sqlite_url) as client:
        assert await _add(client, "a", 1) == 201
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (_log_of(path) + 4096, before[1]))
        try:
            assert await _add(client, "b", 2) == 503
            assert await _status(client) == 200
            await _until(client, 503, READY)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        await _until(client, 200, READY)
        assert await _add(client, "b", 2) == 201
        async with client.get(URL) as answer:
            assert await answer.json() == ["a", "b"]
    assert _told(log_lines) == ["The database cannot be written", "The database can be used"]


async def test_who_writes_waits_for_another_process_no_longer_than_it_may(begin, sqlite_url, path):
    async with begin(sqlite_url, timeout_s=0.3) as client:
        assert await _add(client, "a", 1) == 201
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            writes = asyncio.gather(*(_add(client, f"n{i}", 10 + i) for i in range(20)))
            assert await _status(client) == 200
            async with asyncio.timeout(2):  # not each behind the other
                assert await writes == [503] * 20
            other.execute("ROLLBACK")
        assert await _add(client, "b", 2) == 201
        async with client.get(URL) as answer:
            assert await answer.json() == ["a", "b"]
        assert client.app[SHARED_DATABASE].counts.outages == 0


async def test_tables_that_are_newer_than_the_code_keep_a_feature_from_starting(
    begin, sqlite_url, path
):
    async with begin(sqlite_url):
        pass
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("UPDATE petsage_revisions SET revision = '0002'")
        other.commit()
    async with begin(sqlite_url) as client:
        entry = next(each for each in client.app[CATALOG].entries() if each.name == "notes")
        assert [finding.id for finding in entry.findings] == ["lifespan-failed"]
        assert "0002" in entry.findings[0].problem


async def test_the_file_is_for_nobody_else_to_read(begin, tmp_path):
    folder = tmp_path / "new" / "data"
    async with begin(f"sqlite:///{folder / 'p e#t.db'}") as client:
        assert await _add(client, "a", 1) == 201
        modes = {each.name: each.stat().st_mode & 0o777 for each in folder.iterdir()}
        assert modes.pop("p e#t.db") == 0o600
        assert set(modes.values()) == {0o600}
        assert folder.stat().st_mode & 0o777 == 0o700
    # The last to go tidies up.
    assert [each.name for each in folder.iterdir()] == ["p e#t.db"]
    shutil.rmtree(folder)


async def test_who_waits_for_a_connection_has_it_before_who_comes_later(postgres_url):
    engine = PostgresqlEngine(DatabaseSettings(url=postgres_url, pool_size=2))
    counts = dict.fromkeys(range(20), 0)
    most_apart = 0

    async def read_on(number: int) -> None:
        nonlocal most_apart
        for _ in range(20):
            await engine.read(
                None, lambda connection: connection.exec_driver_sql("SELECT 1"), (), {}
            )
            counts[number] += 1
            most_apart = max(most_apart, max(counts.values()) - min(counts.values()))

    try:
        await asyncio.gather(*map(read_on, counts))
    finally:
        await engine.close()
    assert most_apart <= 2


async def test_who_waits_too_long_for_a_connection_is_told_that_it_is_busy(postgres_url):
    engine = PostgresqlEngine(DatabaseSettings(url=postgres_url, pool_size=2, timeout_s=0.2))
    try:
        await engine.read(None, _sleep, (0.0,), {})
        first = asyncio.create_task(engine.read(None, _sleep, (0.15,), {}))
        rest = [asyncio.create_task(engine.read(None, _sleep, (0.15,), {})) for _ in range(3)]
        ended = await asyncio.gather(first, *rest, return_exceptions=True)
        busy = [each for each in ended if isinstance(each, Unavailable)]
        assert busy
        assert {each.kind for each in busy} == {"busy"}
        assert "no connection was free within 0.2 s" in busy[-1].reason
        await engine.read(None, _sleep, (0.0,), {})
    finally:
        await engine.close()


def _sleep(connection, seconds):
    connection.exec_driver_sql(f"SELECT pg_sleep({seconds})")
