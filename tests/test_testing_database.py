"""A database for each test, by the pytest plugin, in projects of others."""

import textwrap
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from petsage.settings import load_settings
from tests.conftest import clean_environment
from tests.warm import WarmCommand

PYTEST_INI = """
[pytest]
addopts = --import-mode=importlib -p no:cacheprovider
consider_namespace_packages = true
pythonpath = .
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings = error
"""
KEEPER = {
    "features/words/__init__.py": '''
        """Keeps words."""
        from typing import Annotated

        from sqlalchemy import Connection, text

        from petsage import Feature, FromApp, Routes
        from petsage.storage import DATABASE, Database, Migration, keeps

        from . import m0001_create_words

        routes = Routes()

        def keep(connection: Connection, word: str) -> list[str]:
            connection.execute(text("INSERT INTO words VALUES (:word)"), {"word": word})
            return list(connection.scalars(text("SELECT word FROM words")))

        @routes.post("/words/{word}")
        async def add(word: str, database: Annotated[Database, FromApp(DATABASE)]) -> list[str]:
            """All words, this one too."""
            return await database.write(keep, word)

        MIGRATIONS = (Migration.of(m0001_create_words),)
        feature = Feature(routes, lifespan=keeps(MIGRATIONS))
    ''',
    "features/words/m0001_create_words.py": """
        from alembic import op
        from sqlalchemy import Column
        from petsage.storage import Text

        def upgrade() -> None:
            op.create_table("words", Column("word", Text, nullable=False))

        def downgrade() -> None:
            op.drop_table("words")
    """,
    "tests/test_words.py": """
        import pytest
        from sqlalchemy import Column, MetaData, Table

        from features.words import MIGRATIONS, keep
        from petsage.storage import Text
        from petsage.storage.comparing import difference

        metadata = MetaData()
        Table("words", metadata, Column("word", Text, nullable=False))

        @pytest.mark.parametrize("word", ["dog", "cat"])
        async def test_a_word_is_alone(word, feature_client, petsage_settings):
            client = await feature_client("words")
            assert await (await client.post(f"/api/v1/words/{word}")).json() == [word]
            print(petsage_settings.database.url)

        async def test_the_store_and_the_requests_have_one_database(
            feature_client, feature_database
        ):
            database = await feature_database("words", MIGRATIONS)
            await database.write(keep, "rabbit")
            client = await feature_client("words")
            words = await (await client.post("/api/v1/words/dog")).json()
            assert words == ["rabbit", "dog"]
            assert await database.read(difference, metadata) == []
    """,
    "pytest.ini": PYTEST_INI,
}
PLAIN = {
    "tests/test_plain.py": """
        import sys

        async def test_plain(petsage_client):
            assert (await petsage_client.get("/")).status == 200
            found = {"sqlalchemy", "alembic", "asyncpg", "petsage.storage"} & {*sys.modules}
            assert found == set()
    """,
    "pytest.ini": PYTEST_INI,
}


RunPytest = Callable[..., str]


@pytest.fixture
def run_pytest(project: Path, warm_pytest: WarmCommand) -> RunPytest:
    """Call it with files for what pytest prints in a project of them."""

    def run(files: dict[str, str], **environment: str) -> str:
        for within, written in files.items():
            file = project / within
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(textwrap.dedent(written), encoding="utf-8")
        done = warm_pytest.run(
            ("-q", "-rP", "-p", "no:xdist"),
            cwd=project,
            env={**clean_environment(), **environment},
            stdin="",
            timeout_s=60,
        )
        return done.stdout + done.stderr

    return run


def urls(output: str) -> list[str]:
    return [line for line in output.splitlines() if "://" in line]


async def databases(server: str) -> set[str]:
    connection = await asyncpg.connect(server)
    try:
        rows = await connection.fetch("SELECT datname FROM pg_database")
    finally:
        await connection.close()
    return {row["datname"] for row in rows}


def test_each_test_has_a_file_of_its_own(run_pytest: RunPytest) -> None:
    said = run_pytest(KEEPER)
    assert "3 passed" in said, said
    one, other = urls(said)
    assert one.startswith("sqlite:////")
    assert one != other


async def test_each_test_has_a_database_of_its_own_on_the_server_that_is_named(
    run_pytest: RunPytest, postgres_server
) -> None:
    before = await databases(postgres_server)
    said = run_pytest(KEEPER, PETSAGE_TEST_DATABASE=postgres_server)
    assert "3 passed" in said, said
    made = {url.partition("?")[0].rpartition("/")[2] for url in urls(said)}
    assert len(made) == 2
    assert all(name.startswith("petsage_test_") for name in made)
    assert not made & (before | await databases(postgres_server))


def test_who_keeps_no_data_imports_nothing_of_it(run_pytest: RunPytest) -> None:
    said = run_pytest(PLAIN)
    assert "1 passed" in said, said


def test_a_server_that_makes_no_database_fails_the_test_and_says_why(run_pytest: RunPytest) -> None:
    server = "postgresql://rex:secret@/pets?host=/nowhere"
    said = run_pytest(PLAIN, PETSAGE_TEST_DATABASE=server)
    assert "1 error" in said, said
    assert "PETSAGE_TEST_DATABASE: CREATE DATABASE " in said
    assert " failed on postgresql://rex:…@/pets?host=/nowhere: " in said
    assert "fix: name a server that is up" in said
    assert "secret" not in said


def test_a_server_of_petsage_has_no_use_for_the_one_of_tests(project) -> None:
    settings = load_settings(folder=project, environ={"PETSAGE_TEST_DATABASE": "postgresql://x"})
    assert settings == load_settings(folder=project, environ={})
