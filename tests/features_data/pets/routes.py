"""The endpoints."""

from typing import Annotated

from petsage import Body, FromApp, Problem, Query, Routes
from petsage.resources import (
    MERGE_PATCH,
    Created,
    Found,
    Id,
    IfMatch,
    IfNoneMatch,
    Listed,
    Tagged,
    found,
    listed,
    tagged,
)
from petsage.storage import DATABASE, Database

from . import store
from .models import PetCreate, PetPage, PetQuery, PetRead, PetReplace, PetUpdate

routes = Routes("/pets", tags=["System"])

Storage = Annotated[Database, FromApp(DATABASE)]


@routes.get("", summary="List pets", answers={304: None, 503: Problem})
async def list_pets(
    query: Annotated[PetQuery, Query()], database: Storage, if_none_match: IfNoneMatch = None
) -> Listed[PetPage]:
    """A page of pets; `next` and the `Link` header lead to the one behind it."""
    page = await database.read(store.page_of_pets, query)
    return listed(page, "/api/v1/pets", query, if_none_match)


@routes.post("", summary="Add a pet", status=201, answers={409: Problem, 503: Problem})
async def create_pet(pet: PetCreate, database: Storage) -> Created[PetRead]:
    """The pet as it is kept; `Location` says where."""
    created = await database.write(store.add_pet, pet)
    return tagged(created, location=f"/api/v1/pets/{created.id}")


@routes.get("/{pet_id}", summary="Read a pet", answers={304: None, 404: Problem, 503: Problem})
async def read_pet(
    pet_id: Id, database: Storage, if_none_match: IfNoneMatch = None
) -> Found[PetRead]:
    """The pet, or 304 where the caller has it already as it is."""
    pet = await database.read(store.find_pet, pet_id)
    if pet is None:
        raise no_pet(pet_id)
    return found(pet, if_none_match)


@routes.put(
    "/{pet_id}",
    summary="Replace a pet",
    answers={404: Problem, 409: Problem, 412: Problem, 503: Problem},
)
async def replace_pet(
    pet_id: Id, pet: PetReplace, database: Storage, if_match: IfMatch = None
) -> Tagged[PetRead]:
    """The pet as it is now; with `If-Match`, only where nobody has changed it meanwhile."""
    replaced = await database.write(store.replace_pet, pet_id, pet, if_match)
    if replaced is None:
        raise no_pet(pet_id)
    return tagged(replaced)


@routes.patch(
    "/{pet_id}",
    summary="Update a pet",
    answers={404: Problem, 409: Problem, 412: Problem, 503: Problem},
)
async def update_pet(
    pet_id: Id,
    changes: Annotated[PetUpdate, Body(media_type=MERGE_PATCH)],
    database: Storage,
    if_match: IfMatch = None,
) -> Tagged[PetRead]:
    """The pet as it is now; what the JSON Merge Patch (RFC 7396) leaves out stays as it was."""
    updated = await database.write(store.update_pet, pet_id, changes, if_match)
    if updated is None:
        raise no_pet(pet_id)
    return tagged(updated)


@routes.delete(
    "/{pet_id}",
    summary="Delete a pet",
    status=204,
    answers={404: Problem, 412: Problem, 503: Problem},
)
async def delete_pet(pet_id: Id, database: Storage, if_match: IfMatch = None) -> None:
    """Nothing; a second time it is 404, and the pet is as gone as before."""
    if not await database.write(store.delete_pet, pet_id, if_match):
        raise no_pet(pet_id)


def no_pet(pet_id: int) -> Problem:
    """What a caller is told who asks for a pet that is not there."""
    return Problem(404, f"No pet has the id {pet_id}")
