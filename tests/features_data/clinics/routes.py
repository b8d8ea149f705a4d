"""The endpoints; a change has to say what it changes."""

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
    require_condition,
    tagged,
)
from petsage.storage import DATABASE, Database

from . import store
from .models import ClinicCreate, ClinicPage, ClinicQuery, ClinicRead, ClinicUpdate

routes = Routes("/clinics")

Clinics = Annotated[Database, FromApp(DATABASE)]


@routes.get("", answers={304: None, 503: Problem})
async def list_clinics(
    query: Annotated[ClinicQuery, Query()], database: Clinics, if_none_match: IfNoneMatch = None
) -> Listed[ClinicPage]:
    """A page of clinics."""
    page = await database.read(store.page_of_clinics, query)
    return listed(page, "/api/v1/clinics", query, if_none_match)


@routes.post("", status=201, answers={409: Problem, 503: Problem})
async def create_clinic(clinic: ClinicCreate, database: Clinics) -> Created[ClinicRead]:
    """The clinic as it is kept."""
    created = await database.write(store.add_clinic, clinic)
    return tagged(created, location=f"/api/v1/clinics/{created.id}")


@routes.get("/{clinic_id}", answers={304: None, 404: Problem, 503: Problem})
async def read_clinic(
    clinic_id: Id, database: Clinics, if_none_match: IfNoneMatch = None
) -> Found[ClinicRead]:
    """The clinic."""
    return found(await database.read(store.find_clinic, clinic_id), if_none_match)


@routes.put("/{clinic_id}", answers={404: Problem, 409: Problem, 412: Problem, 428: Problem})
async def replace_clinic(
    clinic_id: Id, clinic: ClinicCreate, database: Clinics, if_match: IfMatch = None
) -> Tagged[ClinicRead]:
    """The clinic as it is now."""
    require_condition(if_match)
    return tagged(await database.write(store.replace_clinic, clinic_id, clinic, if_match))


@routes.patch("/{clinic_id}", answers={404: Problem, 409: Problem, 412: Problem, 428: Problem})
async def update_clinic(
    clinic_id: Id,
    changes: Annotated[ClinicUpdate, Body(media_type=MERGE_PATCH)],
    database: Clinics,
    if_match: IfMatch = None,
) -> Tagged[ClinicRead]:
    """The clinic as it is now."""
    require_condition(if_match)
    return tagged(await database.write(store.update_clinic, clinic_id, changes, if_match))
