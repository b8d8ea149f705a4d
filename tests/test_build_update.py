"""What an update may add to a feature, which files it writes, and how tables grow."""

import re
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web
from sqlalchemy import Column, Integer, MetaData, Table, inspect, text

from petsage.builder.amendment import amendment_of
from petsage.builder.building import draft
from petsage.builder.data import _apart, migrations_of
from petsage.builder.events import BuildError
from petsage.builder.record import RECORD, Record, read_record
from petsage.builder.request_reader import read_request
from petsage.builder.update_reader import read_update
from petsage.builder.updating import show_update
from petsage.errors import StorageError
from petsage.feature import FEATURE_NAME
from petsage.settings import DatabaseSettings
from petsage.shared_database import SHARED_DATABASE, SharedDatabase
from petsage.storage import DATABASE, keeps
from petsage.storage.comparing import difference
from petsage.storage.dropping import drop_data
from petsage.storage.migrating import bring_up_to_date, drop_tables, require_tables
from petsage.worker import in_thread
from tests.migrations import Performer

PETS = ("name:str,unique", "species:dog|cat", "weight_kg:float", "note:str?")
WIDE = (
    "color:str=red",
    "legs:int=4",
    "height:float=1.5",
    "tame:bool=true",
    "kind:a|b|c=b",
    "met:date=2020-02-03",
    "seen:datetime=2020-01-02T03:04:05Z",
    "code:uuid=6f1c1d2e-3b4a-4c5d-8e6f-7a8b9c0d1e2f",
    "mail:email=a@example.com",
    "words:str[]=[]",
    "site:uri?",
    "place:str?,index",
)


def write(feature, files):
    for within, data in files.items():
        path = feature / within
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


@pytest.fixture
def pets(tmp_path):
    """A feature as a build leaves it."""
    feature = tmp_path / "features" / "pets"
    request = read_request("pets", {"description": "The pets we know", "fields": [*PETS]})
    write(feature, draft(request))
    return feature


def update(feature, *fields, **flags):
    """What becomes of a feature's files, and the amendment that does it."""
    flags |= {"fields": [*fields]} if fields else {}
    asked = read_update(feature.name, flags, feature.parent)
    amendment = amendment_of(feature, asked.record, asked.request, asked.growths)
    write(feature, amendment.files)
    return amendment


def refused(feature, *fields, source=None, **flags):
    flags |= {"fields": [*fields]} if fields else {}
    with pytest.raises(BuildError) as caught:
        read_update(source or feature.name, flags, feature.parent)
    assert caught.value.stage == "decode"
    return caught.value


def document(feature, **changes):
    """A document of the feature's request, in which each text is another."""
    text = (feature / RECORD).read_text().partition("[files]")[0]
    for old, new in changes.values():
        assert old in text
        text = text.replace(old, new)
    path = feature.parent.parent / "request.toml"
    path.write_text(text)
    return str(path)


# What may be asked for


@pytest.mark.parametrize(
    ("field", "problem", "fix"),
    [
        ("color:str", "has to be there, and what is kept already has none", "color:…?"),
        ("name:int?", "there is a field `name` already", "migration by hand: features/pets/"),
        ("copy:str?", "`copy` cannot be a field's name", "`copy_number`"),
        ("code:str,unique=a", "`code.unique` is true", "leave out `default`"),
        ("color:strr?", "is no type", "`str`"),
    ],
)
def test_a_field_that_cannot_be_added_is_refused(pets, field, problem, fix):
    error = refused(pets, field)
    assert problem in error.problem.replace("requirements[0].", "")
    assert fix in error.fix


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('[request.requirements.fields.note]\ntype = "string"\noptional = true\n', "",
         "the field `note` is gone"),
        ("fields.note", "fields.remark", "the field `note` is gone"),
        ('fields.weight_kg]\ntype = "number"', 'fields.weight_kg]\ntype = "integer"',
         "`weight_kg` is another in `type`"),
        ("unique = true", "unique = false", "`name` is another in `unique`"),
        ("optional = true", "optional = true\nmaxLength = 300", "`note` is another in `maxLength`"),
        ('"dog"', '"dog", "cow"', "`species` is another in `enum`"),
        ("optional = true", 'optional = true\ndefault = "a"', "`note` is another in `default`"),
        ('"cat"', '"cat"]\nindex = false\nexamples = ["cat"', "`species` is another in `index`"),
        ('item = "pet"', 'item = "animal"', "item: 'animal' was 'pet'"),
        ('name = "pets"', 'name = "animals"', "2 things are wrong"),
        ("[[request.req",
         '[[request.requirements]]\nkind = "probe"\npath = "/alive"\n\n[[request.req',
         "probe /alive is new"),
    ],
)  # fmt: skip
def test_what_only_a_migration_by_hand_can_change_is_refused_by_name(pets, old, new, problem):
    error = refused(pets, source=document(pets, it=(old, new)))
    assert problem in "\n".join((error.problem, *error.details)), error.problem


def test_what_holds_nothing_to_anything_may_change_and_what_is_said_anew_changes_nothing(pets):
    asked = read_update(
        document(
            pets,
            text=("The pets we know", "All pets"),
            said=("optional = true", 'optional = true\nmaxLength = 255\ndescription = "Any"'),
            operations=('    "delete",\n', ""),
            condition=("require_if_match = false", "require_if_match = true"),
            index=('type = "number"', 'type = "number"\nindex = true'),
        ),
        {"version": "1.1.0", "tags": ["Pets"]},
        pets.parent,
    )

    assert [(each.fields, each.indexed) for each in asked.growths] == [((), ("weight_kg",))]
    assert (asked.request.version, asked.request.tags) == ("1.1.0", ["Pets"])


@pytest.mark.parametrize("name", ["cats", "../pets", "petz"])
def test_a_feature_that_is_not_there_is_told(pets, name):
    assert refused(pets, "a:str?", source=name).fix


def test_a_link_and_what_was_not_built_are_told(pets):
    (pets.parent / "linked").symlink_to(pets)
    assert "is a link" in refused(pets, source="linked").problem
    (pets.parent / "own").mkdir()
    assert "change the folder by hand" in refused(pets, source="own").fix


def test_a_field_needs_one_resource_to_go_to(tmp_path):
    probe = tmp_path / "features" / "watch"
    write(probe, draft(read_request("watch", {"description": "a"})))
    assert "watch has no resource" in refused(probe, "a:str?").problem
    assert update(probe, description="b").files.keys() > {RECORD, "README.md"}


# Which files are written


def test_files_that_were_not_edited_are_what_a_build_would_make_and_migrations_stay(pets):
    amendment = update(pets, "color:str?")

    added = "migrations/m0002_add_color_to_pets.py"
    assert amendment.added == (added,)
    assert (amendment.left, amendment.missing, amendment.gone) == ((), (), ())
    wanted = draft(
        read_request("pets", {"description": "The pets we know", "fields": [*PETS, "color:str?"]})
    )
    for within, data in wanted.items():
        if "migrations" not in within and within != RECORD:
            assert (pets / within).read_bytes() == data, within
    assert "migrations/m0001_create_pets.py" not in amendment.files
    record = read_record(pets)
    assert record.request == read_record_of(wanted, pets).request
    assert added in record.hashes
    assert not update(pets).files


def read_record_of(files: dict[str, bytes], pets: Any) -> Record:
    other = pets.parent.parent / "other" / "pets"
    write(other, files)
    return read_record(other)


def test_an_edited_file_is_left_with_what_the_builder_would_change(pets):
    path = pets / "store.py"
    edited = path.read_bytes() + b"\n# mine\n"
    path.write_bytes(edited)

    amendment = update(pets, "color:str?")

    assert path.read_bytes() == edited
    (left,) = amendment.left
    assert left.path == "store.py"
    lines = left.difference.splitlines()
    assert '+    Column("color", Text(255)),' in lines
    assert "mine" not in left.difference  # it is what the builder makes otherwise
    assert lines[0] == "--- a/store.py"
    # Its hash is what the builder makes now: it still counts as edited.
    assert update(pets, "size:int?").left[0].path == "store.py"


def test_what_was_done_by_hand_already_is_not_told(pets):
    amendment = update(pets, "color:str?")
    made = dict(amendment.files)
    request = read_request("pets", {"description": "The pets we know", "fields": [*PETS]})
    for step in (pets / "migrations").glob("m0002*"):
        step.unlink()
    write(pets, draft(request))
    (pets / "store.py").write_bytes(made["store.py"])

    assert update(pets, "color:str?").left == ()


def test_where_what_was_built_is_not_known_the_difference_is_to_what_is_there(pets):
    path = pets / RECORD
    path.write_text(re.sub(r'"store.py" = "sha256:\w+"', f'"store.py" = "sha256:{"0" * 64}"',
                           path.read_text()))  # fmt: skip
    with (pets / "store.py").open("a") as file:
        file.write("# mine\n")

    assert "-# mine" in update(pets, "color:str?").left[0].difference


def test_what_was_deleted_stays_so_and_what_is_the_owners_stays(pets):
    (pets / "tests" / "test_pets.py").unlink()
    (pets / "own.py").write_text("own")

    amendment = update(pets, "color:str?")

    assert amendment.missing == ("tests/test_pets.py",)
    assert not (pets / "tests" / "test_pets.py").exists()
    assert (pets / "own.py").read_text() == "own"
    assert "own.py" not in read_record(pets).hashes


def test_a_migration_by_hand_counts_and_is_named(pets):
    (pets / "migrations" / "m0002_by_hand.py").write_text('"""By hand."""\n')
    (pets / "migrations" / "__init__.py").write_text(
        '"""The steps in which the tables came about, the oldest first."""\n'
        "from petsage.storage import Migration\n"
        "from . import m0001_create_pets, m0002_by_hand\n"
        "MIGRATIONS = (Migration.of(m0001_create_pets), Migration.of(m0002_by_hand))\n"
    )

    amendment = update(pets, "color:str?")

    assert amendment.added == ("migrations/m0003_add_color_to_pets.py",)
    index = (pets / "migrations" / "__init__.py").read_text()
    assert re.findall(r"Migration\.of\((\w+)\)", index) == [
        "m0001_create_pets", "m0002_by_hand", "m0003_add_color_to_pets",
    ]  # fmt: skip


def test_migrations_named_in_a_way_of_ones_own_are_left(pets):
    path = pets / "migrations" / "__init__.py"
    path.write_text(path.read_text() + "\nprint('mine')\n")
    assert [each.path for each in update(pets, "color:str?").left] == ["migrations/__init__.py"]


def test_many_fields_make_one_migration_with_a_name_that_fits(pets):
    names = [f"a_rather_long_name_{number}" for number in range(60)]
    amendment = update(
        pets,
        *(f"{name}:date?" for name in names[2:]),
        *(f"{name}:str?,unique" for name in names[:2]),
    )
    assert amendment.added == ("migrations/m0002_add_60_fields_to_pets.py",)


def test_a_dry_run_tells_all_of_it_and_writes_nothing(pets):
    (pets / "store.py").write_text("# mine\n")
    before = {path: path.read_bytes() for path in pets.rglob("*") if path.is_file()}
    told: list[Any] = []

    asked = read_update("pets", {"fields": ["color:str?"]}, pets.parent)
    show_update(asked, pets.parent, None, told.append)

    assert {path: path.read_bytes() for path in pets.rglob("*") if path.is_file()} == before
    labels = [event.label for event in told]
    assert labels[:2] == ["ADDED", "LEFT"]
    assert labels[-1] == "STATUS"
    assert any(event.label == "FILE" and "m0002_" in event.text for event in told)


# How tables grow


def metadata_of(feature) -> MetaData:
    """What the store of a feature describes."""
    import importlib

    with _apart(feature):
        metadata: MetaData = importlib.import_module(f"features.{feature.name}.store").metadata
        return metadata


HOSTILE = 'it\'s 100% \\"so\\" :here \\\\ %(x)s'


def test_rows_that_are_there_have_the_default_and_the_code_before_goes_on_writing(
    pets, database_url
):
    perform = Performer(database_url)
    perform(bring_up_to_date, "pets", migrations_of(pets))
    insert = text(
        "INSERT INTO pets (name, species, weight_kg, created_at, updated_at)"
        " VALUES (:name, 'dog', 1, '2020-01-01 00:00:00', '2020-01-01 00:00:00')"
    )
    perform(lambda connection: connection.execute(insert, {"name": "before"}).rowcount)
    update(pets, *WIDE)
    perform(bring_up_to_date, "pets", migrations_of(pets))
    perform(lambda connection: connection.execute(insert, {"name": "behind"}).rowcount)

    metadata = metadata_of(pets)
    rows = perform(
        lambda connection: [
            dict(row) for row in connection.execute(metadata.tables["pets"].select()).mappings()
        ]
    )
    assert [row["id"] for row in rows] == [1, 2]
    for row in rows:
        assert row | {
            "color": "red", "legs": 4, "height": 1.5, "tame": True, "kind": "b",
            "met": date(2020, 2, 3), "seen": datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC),
            "code": UUID("6f1c1d2e-3b4a-4c5d-8e6f-7a8b9c0d1e2f"), "mail": "a@example.com",
            "words": [], "site": None, "place": None,
        } == row  # fmt: skip
    assert perform(difference, metadata) == []
    perform(drop_tables, "pets", migrations_of(pets))
    assert perform(lambda connection: inspect(connection).has_table("pets")) is False


def test_what_is_unique_or_indexed_grows_too_and_ids_are_never_given_twice(pets, database_url):
    perform = Performer(database_url)
    perform(bring_up_to_date, "pets", migrations_of(pets))
    insert = text(
        "INSERT INTO pets (name, species, weight_kg, created_at, updated_at)"
        " VALUES (:name, 'dog', 1, '2020-01-01 00:00:00', '2020-01-01 00:00:00')"
    )
    for name in ("a", "b", "c"):
        perform(lambda connection, name=name: connection.execute(insert, {"name": name}).rowcount)
    perform(lambda connection: connection.execute(text("DELETE FROM pets WHERE id = 3")).rowcount)
    update(pets, "tag:str?,unique")
    asked = read_update(
        document(pets, it=('type = "number"', 'type = "number"\nindex = true')), {}, pets.parent
    )
    amendment = amendment_of(pets, asked.record, asked.request, asked.growths)
    write(pets, amendment.files)
    assert amendment.added == ("migrations/m0003_index_weight_kg_of_pets.py",)
    perform(bring_up_to_date, "pets", migrations_of(pets))

    assert perform(difference, metadata_of(pets)) == []
    perform(lambda connection: connection.execute(insert, {"name": "d"}).rowcount)
    ids = perform(lambda connection: [*connection.scalars(text("SELECT id FROM pets"))])
    assert sorted(ids) == [1, 2, 4]
    perform(drop_tables, "pets", migrations_of(pets))


def test_a_default_of_any_text_is_the_text(pets, database_url):
    perform = Performer(database_url)
    perform(bring_up_to_date, "pets", migrations_of(pets))
    insert = text(
        "INSERT INTO pets (name, species, weight_kg, created_at, updated_at)"
        " VALUES ('a', 'dog', 1, '2020-01-01 00:00:00', '2020-01-01 00:00:00')"
    )
    perform(lambda connection: connection.execute(insert).rowcount)
    note = "[request.requirements.fields.note]"
    fields = (
        f'[request.requirements.fields.word]\ndefault = "{HOSTILE}"\n\n'
        "[request.requirements.fields.words]\n"
        'type = "array"\ndefault = ["A\'s", "%s"]\nitems = {type = "string"}\n\n'
    )
    path = document(pets, it=(note, f"{fields}{note}"))
    asked = read_update(path, {}, pets.parent)
    write(pets, amendment_of(pets, asked.record, asked.request, asked.growths).files)
    perform(bring_up_to_date, "pets", migrations_of(pets))

    table = metadata_of(pets).tables["pets"]
    (row,) = perform(
        lambda connection: [dict(each) for each in connection.execute(table.select()).mappings()]
    )
    assert row["word"] == asked.request.resources()[0].fields["word"].default
    assert row["words"] == ["A's", "%s"]


# Tables that are left of another


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        (PETS, None),
        ((*PETS, "color:str?"), "the table `pets` lacks color"),
        (PETS[:2], "the table `pets` wants what nobody writes: weight_kg"),
        (PETS[:3], None),
    ],
)
def test_tables_of_another_feature_of_the_same_name_are_told(pets, sqlite_url, fields, problem):
    perform = Performer(sqlite_url)
    perform(bring_up_to_date, "pets", migrations_of(pets))
    again = draft(read_request("pets", {"description": "Other pets", "fields": [*fields]}))
    write(pets, again)
    assert perform(bring_up_to_date, "pets", migrations_of(pets)) == ()

    if problem is None:
        perform(require_tables, "pets", metadata_of(pets))
    else:
        with pytest.raises(StorageError, match=problem) as caught:
            perform(require_tables, "pets", metadata_of(pets))
        assert "--undo pets" in caught.value.fix


async def test_a_feature_whose_tables_are_anothers_does_not_start(pets, database_url):
    await InThread(database_url)(bring_up_to_date, "pets", migrations_of(pets))
    other = MetaData()
    Table("pets", other, Column("size", Integer))
    shared = SharedDatabase(DatabaseSettings(url=database_url), start_s=30)
    app = web.Application()
    app[SHARED_DATABASE], app[FEATURE_NAME] = shared, "pets"
    lifespan = asynccontextmanager(keeps(migrations_of(pets), other))
    with pytest.raises(StorageError, match="lacks size"):
        async with lifespan(app):
            raise AssertionError("it started")
    async with asynccontextmanager(keeps(migrations_of(pets), metadata_of(pets)))(app):
        await app[DATABASE].check()


# What is dropped


async def test_what_a_feature_keeps_is_dropped_with_its_migrations_or_by_name(pets, database_url):
    settings = DatabaseSettings(url=database_url)
    assert await drop_data(settings, "pets") == ()
    perform = InThread(database_url)
    await perform(bring_up_to_date, "pets", migrations_of(pets))
    for table in ("pets__toys", "pets__of__others", "petshop"):
        sql = text(f'CREATE TABLE "{table}" (id INTEGER PRIMARY KEY)')
        await perform(lambda connection, sql=sql: connection.execute(sql).rowcount)
    other = text("INSERT INTO petsage_revisions VALUES ('pets__of', '0001', '2020-01-01 00:00:00')")
    await perform(lambda connection: connection.execute(other).rowcount)

    assert await drop_data(settings, "pet") == ()
    assert await drop_data(settings, "pets") == ("pets", "pets__toys")
    left = await perform(lambda connection: {*inspect(connection).get_table_names()})
    assert left - {"sqlite_sequence"} == {"petsage_revisions", "pets__of__others", "petshop"}
    await perform(bring_up_to_date, "pets", migrations_of(pets))
    assert await drop_data(settings, "pets", migrations_of(pets)) == ("pets",)


class InThread:
    """A `Performer` for tests that run in a loop."""

    def __init__(self, url: str) -> None:
        self._perform = Performer(url)

    async def __call__(self, *arguments: Any) -> Any:
        return await in_thread(self._perform, *arguments)
