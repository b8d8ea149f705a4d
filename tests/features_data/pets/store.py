"""Where pets are kept: a table, and what is asked of it, each within one transaction."""

from datetime import UTC, datetime

from sqlalchemy import (
    Column,
    Connection,
    Date,
    Double,
    Index,
    MetaData,
    Table,
    bindparam,
    delete,
    insert,
    select,
    update,
)

from petsage.resources import between, merged, one_of, page_of, require_match
from petsage.storage import NAMING, Key, Text, UtcDateTime

from .models import PetCreate, PetPage, PetQuery, PetRead, PetReplace, PetUpdate

metadata = MetaData(naming_convention=NAMING)

pets = Table(
    "pets",
    metadata,
    Column("id", Key, primary_key=True),
    Column("name", Text(255), nullable=False),
    Column("species", Text, nullable=False),
    Column("born", Date),
    Column("weight_kg", Double, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Index(None, "species", "id"),
    Index(None, "born", "id"),
    sqlite_autoincrement=True,  # an id is never another's, not even a deleted one's
)

_by_id = pets.c.id == bindparam("_id")
FIND = select(pets).where(_by_id)
FIND_TO_WRITE = FIND.with_for_update()
ADD = insert(pets).returning(pets)
CHANGE = update(pets).where(_by_id).returning(pets)
DELETE = delete(pets).where(_by_id)


def page_of_pets(connection: Connection, query: PetQuery) -> PetPage:
    """The pets that are asked for, as many as a page holds."""
    wanted = [
        *one_of(pets.c.species, query.species),
        *one_of(pets.c.born, query.born),
        *between(pets.c.born, query.born_gte, query.born_lte),
    ]
    rows, following = page_of(connection, pets, query, wanted)
    return PetPage.model_validate({"items": rows, "next": following})


def find_pet(connection: Connection, pet_id: int, *, to_write: bool = False) -> PetRead | None:
    """The pet, None where there is none; one that is to be written is kept from other writers."""
    statement = FIND_TO_WRITE if to_write else FIND
    row = connection.execute(statement, {"_id": pet_id}).mappings().one_or_none()
    return PetRead.model_validate(row) if row is not None else None


def add_pet(connection: Connection, pet: PetCreate) -> PetRead:
    """The pet as it is kept."""
    now = datetime.now(UTC)
    values = {**pet.model_dump(), "created_at": now, "updated_at": now}
    return PetRead.model_validate(connection.execute(ADD, values).mappings().one())


def replace_pet(
    connection: Connection, pet_id: int, pet: PetReplace, if_match: str | None
) -> PetRead | None:
    """The pet as it is now, None where there is none."""
    current = find_pet(connection, pet_id, to_write=True)
    if current is None:
        return None
    require_match(current, if_match)
    return _changed(connection, current, pet)


def update_pet(
    connection: Connection, pet_id: int, changes: PetUpdate, if_match: str | None
) -> PetRead | None:
    """The pet as it is now, None where there is none."""
    current = find_pet(connection, pet_id, to_write=True)
    if current is None:
        return None
    require_match(current, if_match)
    return _changed(connection, current, merged(PetReplace, current, changes))


def delete_pet(connection: Connection, pet_id: int, if_match: str | None) -> bool:
    """Whether there was one."""
    current = find_pet(connection, pet_id, to_write=True)
    if current is None:
        return False
    require_match(current, if_match)
    connection.execute(DELETE, {"_id": pet_id})
    return True


def _changed(connection: Connection, current: PetRead, pet: PetReplace) -> PetRead:
    values = pet.model_dump()
    if values == current.model_dump(include=set(values)):
        return current  # so that a second time changes nothing, not even when it was updated
    values["updated_at"] = datetime.now(UTC)
    row = connection.execute(CHANGE, {"_id": current.id, **values}).mappings().one()
    return PetRead.model_validate(row)
