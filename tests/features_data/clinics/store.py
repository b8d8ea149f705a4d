"""Where clinics are kept."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Double,
    Index,
    MetaData,
    Table,
    Uuid,
    bindparam,
    insert,
    select,
    update,
)

from petsage import Problem
from petsage.resources import between, merged, one_of, page_of, require_match
from petsage.storage import NAMING, Json, Key, Text, UtcDateTime

from .models import ClinicCreate, ClinicPage, ClinicQuery, ClinicRead, ClinicUpdate

metadata = MetaData(naming_convention=NAMING)

clinics = Table(
    "clinics",
    metadata,
    Column("id", Key, primary_key=True),
    Column("code", Text(255), nullable=False, unique=True),
    Column("opened_at", UtcDateTime),
    Column("reference", Uuid, nullable=False),
    Column("contact", Text(254)),
    Column("site", Text),
    Column("beds", BigInteger, nullable=False),
    Column("rating", Double),
    Column("is_open", Boolean, nullable=False),
    Column("address", Json),
    Column("tags", Json, nullable=False),
    *(Index(None, name, "id") for name in ("opened_at", "reference", "beds", "rating", "is_open")),
    sqlite_autoincrement=True,
)

_by_id = clinics.c.id == bindparam("clinic_id")
FIND = select(clinics).where(_by_id)
FIND_TO_WRITE = FIND.with_for_update()
ADD = insert(clinics).returning(clinics)
CHANGE = update(clinics).where(_by_id).returning(clinics)


def page_of_clinics(connection: Connection, query: ClinicQuery) -> ClinicPage:
    """The clinics that are asked for."""
    wanted = [
        *one_of(clinics.c.code, query.code),
        *between(clinics.c.opened_at, query.opened_at_gte, query.opened_at_lte),
        *one_of(clinics.c.beds, query.beds),
        *one_of(clinics.c.is_open, query.is_open),
        *between(clinics.c.rating, query.rating_gte, None),
    ]
    rows, following = page_of(connection, clinics, query, wanted)
    return ClinicPage.model_validate({"items": rows, "next": following})


def find_clinic(connection: Connection, clinic_id: int, *, to_write: bool = False) -> ClinicRead:
    """The clinic."""
    statement = FIND_TO_WRITE if to_write else FIND
    row = connection.execute(statement, {"clinic_id": clinic_id}).mappings().one_or_none()
    if row is None:
        raise Problem(404, f"No clinic has the id {clinic_id}")
    return ClinicRead.model_validate(row)


def add_clinic(connection: Connection, clinic: ClinicCreate) -> ClinicRead:
    """The clinic as it is kept."""
    row = connection.execute(ADD, clinic.model_dump()).mappings().one()
    return ClinicRead.model_validate(row)


def replace_clinic(
    connection: Connection, clinic_id: int, clinic: ClinicCreate, if_match: str | None
) -> ClinicRead:
    """The clinic as it is now."""
    require_match(find_clinic(connection, clinic_id, to_write=True), if_match)
    return _changed(connection, clinic_id, clinic)


def update_clinic(
    connection: Connection, clinic_id: int, changes: ClinicUpdate, if_match: str | None
) -> ClinicRead:
    """The clinic as it is now."""
    current = find_clinic(connection, clinic_id, to_write=True)
    require_match(current, if_match)
    return _changed(connection, clinic_id, merged(ClinicCreate, current, changes))


def _changed(connection: Connection, clinic_id: int, clinic: ClinicCreate) -> ClinicRead:
    values = {"clinic_id": clinic_id, **clinic.model_dump()}
    return ClinicRead.model_validate(connection.execute(CHANGE, values).mappings().one())
