"""Migrations of features: what their checks find, and where their tables are."""

import importlib

import pytest

from petsage.storage.comparing import difference
from petsage.storage.migrating import drop_tables

STEP = """
    from alembic import op
    from sqlalchemy import Column
    from petsage.storage import Key, Text

    def upgrade() -> None:
        {upgrade}

    def downgrade() -> None:
        {downgrade}
"""
FIRST = STEP.format(
    upgrade='op.create_table("pets", Column("id", Key, primary_key=True))',
    downgrade='op.drop_table("pets")',
)
SECOND = STEP.format(
    upgrade='op.add_column("pets", Column("name", Text))',
    downgrade='op.drop_column("pets", "name")',
)
INIT = '''
    """Keeps pets."""
    from petsage import Feature, Routes
    from petsage.storage import DATABASE_CHECK, Migration, keeps

    from . import {modules}

    routes = Routes()

    @routes.get("/pets")
    async def list_pets() -> list[str]:
        """None yet."""
        return []

    feature = Feature(
        routes, lifespan=keeps([Migration.of(each) for each in ({modules},)])
    )
'''


def files(*modules: str, **sources: str) -> dict[str, str]:
    return {
        "__init__.py": INIT.format(modules=", ".join(modules)),
        **{f"{name}.py": sources.get(name[:5], SECOND) for name in modules},
    }


async def test_a_gap_is_found_before_anything_is_performed(feature_client, feature_folder) -> None:
    folder = feature_folder("pets", files("m0001_create", "m0003_name", m0001=FIRST))
    with pytest.raises(pytest.fail.Exception) as failed:
        await feature_client(folder)
    assert f"{folder}/__init__.py:16: import-failed: " in str(failed.value)
    assert "features/pets/m0003_name.py comes without m0002 before it; fix: put m0002 back" in str(
        failed.value
    )


async def test_code_that_is_older_than_its_tables_does_not_serve(
    feature_client, feature_folder, database_url
) -> None:
    folder = feature_folder("pets", files("m0001_create", "m0002_name", m0001=FIRST))
    client = await feature_client(folder)
    assert (await client.get("/api/v1/pets")).status == 200
    feature_folder("pets", files("m0001_create", m0001=FIRST))
    with pytest.raises(pytest.fail.Exception) as failed:
        await feature_client(folder)
    assert "the tables of `pets` are at 0002 and features/pets knows up to 0001" in str(
        failed.value
    )


async def test_a_migration_that_fails_is_named_and_can_be_mended(
    feature_client, feature_folder, database_url
) -> None:
    wrong = SECOND.replace('"pets", Column', '"toys", Column')
    folder = feature_folder("pets", files("m0001_create", "m0002_name", m0001=FIRST, m0002=wrong))
    with pytest.raises(pytest.fail.Exception) as failed:
        await feature_client(folder)
    assert "the migration 0002 of `pets` failed: " in str(failed.value)
    assert "toys" in str(failed.value)
    assert "fix: mend features/pets/m0002_name.py" in str(failed.value)
    feature_folder("pets", files("m0001_create", "m0002_name", m0001=FIRST))
    client = await feature_client(folder)
    assert (await client.get("/api/v1/pets")).status == 200


@pytest.fixture
def petsage_database(database_url: str) -> str:
    return database_url


@pytest.mark.parametrize("name", ["pets", "clinics"])
async def test_migrations_make_the_tables_that_a_store_describes_and_take_them_back(
    name, feature_database, database_url
) -> None:
    feature = importlib.import_module(f"tests.features_data.{name}.migrations")
    store = importlib.import_module(f"tests.features_data.{name}.store")
    database = await feature_database(name, feature.MIGRATIONS)
    assert await database.read(difference, store.metadata) == []
    assert await database.write(drop_tables, name, feature.MIGRATIONS)
    found = await database.read(difference, store.metadata)
    assert {each for each in found if each.startswith("add_table ")} == {
        f"add_table {table}" for table in store.metadata.tables
    }
