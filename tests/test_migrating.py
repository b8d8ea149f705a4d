import asyncio
import re
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alembic import op
from sqlalchemy import (
    Column,
    Connection,
    Date,
    Double,
    Index,
    Integer,
    MetaData,
    Table,
    inspect,
    text,
)
from sqlalchemy.exc import DBAPIError, IntegrityError

from petsage.errors import StorageError
from petsage.fresh_database import fresh_database
from petsage.storage.columns import NAMING, Json, Key, Text, UtcDateTime
from petsage.storage.comparing import difference
from petsage.storage.migrating import (
    REVISIONS,
    bring_up_to_date,
    drop_tables,
    pending,
    require_line,
)
from tests.migrations import Performer, migration

ROOT = Path(__file__).parent.parent
CREATE = '''
    """Creates the table of pets; what has run somewhere is not edited any more."""

    def upgrade() -> None:
        op.create_table(
            "pets",
            Column("id", Key, primary_key=True),
            Column("name", Text(255), nullable=False, unique=True),
            Column("species", Text, nullable=False),
            Column("born", Date),
            Column("weight_kg", Double, nullable=False),
            Column("tags", Json, nullable=False),
            Column("created_at", UtcDateTime, nullable=False),
            sqlite_autoincrement=True,
        )
        op.create_index("ix_pets_species_id", "pets", ["species", "id"])

    def downgrade() -> None:
        op.drop_table("pets")
'''
COLOUR = '''
    """Adds a colour."""

    def upgrade() -> None:
        op.add_column("pets", Column("colour", Text, nullable=False, server_default="brown"))

    def downgrade() -> None:
        op.drop_column("pets", "colour")
'''
HALF = '''
    """Does half of it."""

    def upgrade() -> None:
        op.create_table("toys", Column("id", Key, primary_key=True))
        op.add_column("pets", Column("weird", Integer))
        op.execute("INSERT INTO nowhere VALUES (1)")

    def downgrade() -> None:
        op.drop_table("toys")
'''


FIRST = migration("m0001_create_pets", CREATE)
SECOND = migration("m0002_add_colour", COLOUR)

metadata = MetaData(naming_convention=NAMING)
pets = Table(
    "pets",
    metadata,
    Column("id", Key, primary_key=True),
    Column("name", Text(255), nullable=False, unique=True),
    Column("species", Text, nullable=False),
    Column("born", Date),
    Column("weight_kg", Double, nullable=False),
    Column("tags", Json, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Index(None, "species", "id"),
    sqlite_autoincrement=True,
)


@pytest.fixture
def perform(database_url: str) -> Performer:
    return Performer(database_url)


def tables(connection: Connection) -> set[str]:
    return {*inspect(connection).get_table_names()} - {"sqlite_sequence"}


def revisions(connection: Connection) -> dict[str, str]:
    return {row.feature: row.revision for row in connection.execute(REVISIONS.select())}


def columns(connection: Connection) -> set[str]:
    return {column["name"] for column in inspect(connection).get_columns("pets")}


def test_tables_are_made_once_and_brought_on_from_where_they_are(perform) -> None:
    assert perform(pending, "pets", [FIRST]) == (FIRST,)
    assert perform(bring_up_to_date, "pets", [FIRST]) == (FIRST,)
    assert perform(bring_up_to_date, "pets", [FIRST]) == ()
    assert perform(revisions) == {"pets": "0001"}
    assert perform(pending, "pets", [FIRST, SECOND]) == (SECOND,)
    assert perform(bring_up_to_date, "pets", [FIRST, SECOND]) == (SECOND,)
    assert perform(revisions) == {"pets": "0002"}
    assert "colour" in perform(columns)
    assert perform(pending, "pets", [FIRST, SECOND]) == ()


def test_each_feature_is_where_it_is(perform) -> None:
    toys = migration("m0001_create_toys", CREATE.replace("pets", "toys"), feature="toys")
    perform(bring_up_to_date, "pets", [FIRST, SECOND])
    perform(bring_up_to_date, "toys", [toys])
    assert perform(revisions) == {"pets": "0002", "toys": "0001"}
    assert perform(drop_tables, "pets", [FIRST, SECOND]) == (SECOND, FIRST)
    assert perform(revisions) == {"toys": "0001"}
    assert perform(tables) == {"toys", "petsage_revisions"}


def test_tables_that_are_newer_than_the_code_are_refused(perform) -> None:
    perform(bring_up_to_date, "pets", [FIRST, SECOND])
    for ask in (pending, bring_up_to_date, drop_tables):
        with pytest.raises(StorageError) as told:
            perform(ask, "pets", [FIRST])
        assert str(told.value).startswith(
            "the tables of `pets` are at 0002 and features/pets knows up to 0001; fix: serve the "
        )
    assert perform(revisions) == {"pets": "0002"}


def test_a_migration_that_fails_half_way_leaves_all_as_it_was(perform) -> None:
    half = migration("m0003_do_half", HALF)
    with pytest.raises(StorageError) as told:
        perform(bring_up_to_date, "pets", [FIRST, SECOND, half])
    assert "the migration 0003 of `pets` failed: " in str(told.value)
    assert "nowhere" in str(told.value)
    assert "fix: mend features/pets/migrations/m0003_do_half.py; " in str(told.value)
    assert perform(tables) == set()
    perform(bring_up_to_date, "pets", [FIRST, SECOND])
    with pytest.raises(StorageError):
        perform(bring_up_to_date, "pets", [FIRST, SECOND, half])
    assert perform(tables) == {"pets", "petsage_revisions"}
    assert "weird" not in perform(columns)
    assert perform(revisions) == {"pets": "0002"}


def test_a_table_that_is_there_already_is_let_alone(perform) -> None:
    perform(lambda connection: connection.execute(text("CREATE TABLE pets (rex int)")) and None)
    with pytest.raises(StorageError) as told:
        perform(bring_up_to_date, "pets", [FIRST])
    assert "there is a table `pets` already, which features/pets did not make; fix: " in str(
        told.value
    )
    assert perform(columns) == {"rex"}


def test_dropped_tables_are_gone_and_can_come_again(perform) -> None:
    assert perform(drop_tables, "pets", [FIRST]) == ()
    perform(bring_up_to_date, "pets", [FIRST, SECOND])
    perform(drop_tables, "pets", [FIRST, SECOND])
    assert perform(tables) == {"petsage_revisions"}
    assert perform(drop_tables, "pets", [FIRST, SECOND]) == ()
    perform(bring_up_to_date, "pets", [FIRST, SECOND])
    assert perform(revisions) == {"pets": "0002"}


def test_the_tables_are_what_a_store_describes_or_it_is_said_where_not(perform) -> None:
    perform(bring_up_to_date, "pets", [FIRST])
    assert perform(difference, metadata) == []
    perform(bring_up_to_date, "pets", [FIRST, SECOND])
    assert perform(difference, metadata) == ["remove_column pets.colour"]


def test_what_a_store_says_of_a_column_is_compared_too(perform) -> None:
    perform(bring_up_to_date, "pets", [FIRST])
    other = MetaData(naming_convention=NAMING)
    Table(
        "pets",
        other,
        Column("id", Key, primary_key=True),
        Column("name", Text(20), unique=True),
        Column("species", Text, nullable=False),
        Column("weight_kg", Integer, nullable=False, index=True),
    )
    Table("toys", other, Column("id", Key, primary_key=True))
    found = perform(difference, other)
    assert "add_table toys" in found
    assert "remove_column pets.born" in found
    assert "add_index ix_pets_weight_kg of pets" in found
    assert "remove_index ix_pets_species_id of pets" in found
    of_name = next(each for each in found if "pets.name" in each)
    assert "modify_nullable of pets.name: it is False, and the store says True" in of_name
    assert "modify_type of pets.name: it is VARCHAR(length=255" in of_name
    assert any(each.startswith("modify_type of pets.weight_kg") for each in found)


# What other processes run; pytest is not imported there, which would take longer than all else.
WAITS = """
    import sys
    from tests.migrations import Performer, migration
    from petsage.storage.migrating import bring_up_to_date

    def wait(connection, *arguments):
        done = bring_up_to_date(connection, *arguments)
        print("has done", len(done), flush=True)
        sys.stdin.read(1)

    FIRST = migration("m0001_create_pets", sys.argv[2])
    Performer(sys.argv[1])(wait, "pets", [FIRST])
"""


def test_of_two_processes_at_once_one_does_it_and_the_other_waits(database_url) -> None:
    code = [sys.executable, "-c", textwrap.dedent(WAITS), database_url, CREATE]
    other = subprocess.Popen(code, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdin is not None
    assert other.stdout is not None
    assert other.stdout.readline() == b"has done 1\n"  # and holds the lock
    perform = Performer(database_url)
    with ThreadPoolExecutor(1) as pool:
        ours = pool.submit(perform, bring_up_to_date, "pets", [FIRST, SECOND])
        with pytest.raises(TimeoutError):
            ours.result(timeout=0.3)
        other.communicate(b"\n", timeout=60)
        assert ours.result(timeout=60) == (SECOND,)
    assert other.returncode == 0


def test_a_wait_for_who_migrates_is_not_cut_by_the_limits_of_requests(postgres_url) -> None:
    perform = Performer(postgres_url)
    with ThreadPoolExecutor(1) as pool:
        began, go_on = threading.Event(), threading.Event()

        def slowly(connection: Connection) -> None:
            bring_up_to_date(connection, "pets", [FIRST])
            began.set()
            assert go_on.wait(60)

        def soon_cut(connection: Connection) -> Any:
            connection.execute(text("SET statement_timeout = 50"))
            connection.execute(text("SET lock_timeout = 50"))
            threading.Timer(0.2, go_on.set).start()
            return bring_up_to_date(connection, "pets", [FIRST, SECOND])

        slow = pool.submit(perform, slowly)
        assert began.wait(60)
        assert perform(soon_cut) == (SECOND,)
        slow.result()


def test_threads_migrate_databases_of_their_own_at_once(tmp_path) -> None:
    both = threading.Barrier(2)

    def meet() -> None:
        both.wait(30)
        FIRST.upgrade()
        both.wait(30)
        SECOND.upgrade()

    meeting = replace(FIRST, upgrade=meet)
    performers = [Performer(f"sqlite:///{tmp_path / name}") for name in ("one", "other")]
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(each, bring_up_to_date, "pets", [meeting]) for each in performers]
        assert [each.result() for each in running] == [(meeting,), (meeting,)]
    for each in performers:
        assert each(columns) == {*pets.columns.keys(), "colour"}


async def test_tasks_of_one_loop_migrate_at_once(postgres_server) -> None:
    with fresh_database(postgres_server) as one, fresh_database(postgres_server) as other:
        toys = migration("m0001_create_toys", CREATE.replace("pets", "toys"), feature="toys")
        of_pets, of_toys, of_others = await asyncio.gather(
            Performer(one).on_postgresql(bring_up_to_date, "pets", [FIRST, SECOND]),
            Performer(one).on_postgresql(bring_up_to_date, "toys", [toys]),
            Performer(other).on_postgresql(bring_up_to_date, "pets", [FIRST]),
        )
        assert (of_pets, of_toys, of_others) == ((FIRST, SECOND), (toys,), (FIRST,))
        assert await Performer(one).on_postgresql(revisions) == {"pets": "0002", "toys": "0001"}
        assert await Performer(other).on_postgresql(revisions) == {"pets": "0001"}


ALTER = 'alter_column("species", nullable=True)'
COPY = """
    def upgrade() -> None:
        with op.batch_alter_table("pets") as pets:
            pets.alter_column("species", nullable=True)

    def downgrade() -> None:
        with op.batch_alter_table("pets") as pets:
            pets.alter_column("species", nullable=False)
"""
ADD = text(
    "INSERT INTO pets (name, species, weight_kg, tags, created_at) "
    "VALUES (:name, 'dog', 1, '[]', '2020-01-01') RETURNING id"
)


def add(connection: Connection, name: str) -> int:
    key: int = connection.execute(ADD, {"name": name}).scalar_one()
    return key


def test_a_table_that_is_copied_keeps_its_rows_and_gives_no_id_again(perform) -> None:
    copying = migration("m0002_let_species_be_empty", COPY)
    perform(bring_up_to_date, "pets", [FIRST])
    assert [perform(add, name) for name in ("Rex", "Tom", "Kit")] == [1, 2, 3]
    perform(lambda connection: connection.execute(text("DELETE FROM pets WHERE id > 1")) and None)
    perform(bring_up_to_date, "pets", [FIRST, copying])
    assert perform(add, "Mia") == 4
    perform(lambda connection: connection.execute(text("DELETE FROM pets WHERE id = 4")) and None)
    assert perform(add, "Mia") == 5  # the copy counts as the first one did
    with pytest.raises(IntegrityError):
        perform(add, "Rex")
    found = perform(difference, metadata)
    assert found == ["modify_nullable of pets.species: it is True, and the store says False"]


def test_a_table_is_not_copied_where_rows_that_refer_to_it_would_go(sqlite_url) -> None:
    perform = Performer(sqlite_url)
    copying = migration("m0002_let_species_be_empty", COPY)
    adding = migration(
        "m0002_add_colour", COPY.replace(ALTER, 'add_column(Column("colour", Text))')
    )

    def refer(connection: Connection) -> None:
        connection.execute(text("CREATE TABLE toys (pet int REFERENCES Pets ON DELETE CASCADE)"))
        connection.execute(text("INSERT INTO toys VALUES (:pet)"), {"pet": add(connection, "Rex")})

    def toys(connection: Connection) -> int:
        return len(connection.execute(text("SELECT * FROM toys")).all())

    perform(bring_up_to_date, "pets", [FIRST])
    perform(refer)
    for wrong in (copying, adding):
        with pytest.raises(StorageError, match="copy `pets`, to which `toys` refers, and rows"):
            perform(bring_up_to_date, "pets", [FIRST, wrong])
    perform(bring_up_to_date, "pets", [FIRST, SECOND])
    assert perform(toys) == 1


def test_what_the_database_does_is_no_fault_of_a_migration(stoppable_postgres) -> None:
    def stop() -> None:
        stoppable_postgres.cluster.stop()
        FIRST.upgrade()

    with pytest.raises(DBAPIError):
        Performer(stoppable_postgres.url)(bring_up_to_date, "pets", [replace(FIRST, upgrade=stop)])


def test_operations_are_for_migrations_alone(sqlite_url) -> None:
    Performer(sqlite_url)(bring_up_to_date, "pets", [FIRST])
    with pytest.raises(StorageError, match=r"`alembic\.op\.drop_table` is for migrations alone"):
        op.drop_table("pets")


def test_what_alembic_finds_is_not_logged(sqlite_url, caplog) -> None:
    caplog.set_level("INFO", logger="")
    Performer(sqlite_url)(bring_up_to_date, "pets", [FIRST])
    Performer(sqlite_url)(difference, MetaData())
    assert [each for each in caplog.records if each.name.startswith("alembic")] == []


def test_what_alembic_sets_up_is_not_logged() -> None:
    code = "import logging; logging.basicConfig(level=20); import petsage.storage"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_migration_is_what_its_module_says() -> None:
    assert (FIRST.revision, FIRST.place) == ("0001", "features.pets.migrations.m0001_create_pets")
    assert (
        FIRST.title == "Creates the table of pets; what has run somewhere is not edited any more."
    )
    assert migration("m0002_let_species_be_empty", COPY).title == "let species be empty"


@pytest.mark.parametrize("name", ["create_pets", "m1_create", "m0000_nothing", "m0001", "m0001_A"])
def test_a_module_of_another_name_is_no_migration(name) -> None:
    with pytest.raises(StorageError, match=rf"features/pets/migrations/{name}.py is no name of"):
        migration(name, CREATE)


def test_a_migration_needs_both_its_functions() -> None:
    with pytest.raises(StorageError, match=r"m0001_go.py has no function `downgrade`; fix: write"):
        migration("m0001_go", "def upgrade() -> None: ...")


def test_a_migration_is_no_coroutine() -> None:
    source = "def upgrade() -> None: ...\nasync def downgrade() -> None: ..."
    with pytest.raises(
        StorageError, match=r"`downgrade` of the migration .*m0001_go.py is `async`"
    ):
        migration("m0001_go", source)


def test_migrations_are_a_line() -> None:
    third = migration("m0003_more", COPY)
    twice = migration("m0002_other", COPY)
    require_line([FIRST, SECOND, third])
    for wrong, told in (
        ([], "there is no migration, "),
        ([FIRST, third], "m0003_more.py comes without m0002 before it; fix: put m0002 back"),
        ([SECOND], "m0002_add_colour.py comes without m0001 before it"),
        ([SECOND, FIRST], "m0002_add_colour.py stands before m0001 in MIGRATIONS; fix: list"),
        (
            [FIRST, SECOND, twice],
            "m0002_add_colour.py and features/pets/migrations/m0002_other.py have the same number",
        ),
    ):
        with pytest.raises(StorageError, match=re.escape(told)):
            require_line(wrong)
