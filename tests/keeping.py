"""A feature that keeps data, written by hand, for tests of what keeps it."""

INIT = '''
"""Notes."""
from petsage import Feature
from petsage.storage import DATABASE_CHECK, keeps
from .migrations import MIGRATIONS
from .routes import routes

feature = Feature(routes, lifespan=keeps(MIGRATIONS), checks=[DATABASE_CHECK])
'''
MIGRATIONS = """
from petsage.storage import Migration
from . import m0001_create_notes

MIGRATIONS = (Migration.of(m0001_create_notes),)
"""
CREATE = '''
"""Creates the table."""
from alembic import op
from sqlalchemy import BigInteger, Column, UniqueConstraint
from petsage.storage import Json, Key, Text, UtcDateTime

def upgrade() -> None:
    op.create_table(
        "notes",
        Column("id", Key, primary_key=True),
        Column("name", Text(100), nullable=False, unique=True),
        Column("shelf", Text, nullable=False),
        Column("place", BigInteger, nullable=False),
        Column("count", BigInteger, nullable=False),
        Column("at", UtcDateTime, nullable=False),
        Column("more", Json),
        UniqueConstraint("shelf", "place"),
        sqlite_autoincrement=True,
    )

def downgrade() -> None:
    op.drop_table("notes")
'''
STORE = """
import logging
from sqlalchemy import (
    BigInteger, Column, Connection, MetaData, Table, UniqueConstraint, bindparam, insert, select,
    text, update,
)
from sqlalchemy.types import TypeDecorator
from petsage.storage import NAMING, Json, Key, Text, UtcDateTime
from .models import Note, NoteCreate

class Shelf(TypeDecorator):
    '''A type of the feature's own.'''
    impl = Text
    cache_ok = True

    def process_result_value(self, value, dialect):
        return value

log = logging.getLogger(__name__)
metadata = MetaData(naming_convention=NAMING)
notes = Table(
    "notes",
    metadata,
    Column("id", Key, primary_key=True),
    Column("name", Text(100), nullable=False, unique=True),
    Column("shelf", Shelf, nullable=False),
    Column("place", BigInteger, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("more", Json),
    UniqueConstraint("shelf", "place"),
    sqlite_autoincrement=True,
)
by_id = notes.c.id == bindparam("note_id")
FIND = select(notes).where(by_id)
TO_WRITE = FIND.with_for_update()
ADD = insert(notes).returning(notes)
COUNT = update(notes).where(by_id).values(count=bindparam("counted"))

def find(connection: Connection, note_id: int) -> Note | None:
    log.info("Looks for %d", note_id)
    row = connection.execute(FIND, {"note_id": note_id}).mappings().one_or_none()
    return Note.model_validate(row) if row is not None else None

def add(connection: Connection, note: NoteCreate) -> Note:
    values = {**note.model_dump(), "count": 0}
    return Note.model_validate(connection.execute(ADD, values).mappings().one())

def add_and_fail(connection: Connection, note: NoteCreate, error: BaseException) -> None:
    add(connection, note)
    raise error

def count(connection: Connection, note_id: int) -> int:
    row = connection.execute(TO_WRITE, {"note_id": note_id}).one()
    counted = row._mapping["count"] + 1
    connection.execute(COUNT, {"note_id": note_id, "counted": counted})
    return counted

def names(connection: Connection) -> list[str]:
    return list(connection.scalars(select(notes.c.name).order_by(notes.c.name)))

def empty(connection: Connection) -> None:
    connection.execute(notes.delete())

def lack_a_name(connection: Connection) -> None:
    connection.execute(text("INSERT INTO notes (count) VALUES (1)"))

SLOW = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
    " SELECT max(i) FROM n",
    "postgresql": "SELECT pg_sleep(30)",
}

def be_slow(connection: Connection) -> None:
    connection.exec_driver_sql(SLOW[connection.dialect.name]).all()
"""
MODELS = """
from datetime import datetime
from typing import Any
from pydantic import BaseModel

class NoteCreate(BaseModel):
    name: str
    shelf: str = "one"
    place: int
    at: datetime
    more: Any = None

class Note(NoteCreate):
    id: int
    count: int
"""
ROUTES = """
from typing import Annotated
from petsage import FromApp, Problem, Routes
from petsage.storage import DATABASE, Database
from . import store
from .models import Note, NoteCreate

routes = Routes("/notes")
Notes = Annotated[Database, FromApp(DATABASE)]

@routes.get("")
async def list_notes(database: Notes) -> list[str]:
    return await database.read(store.names)

@routes.get("/{note_id}")
async def read_note(note_id: int, database: Notes) -> Note:
    found = await database.read(store.find, note_id)
    if found is None:
        raise Problem(404, "There is none")
    return found

@routes.post("", status=201)
async def add_note(note: NoteCreate, database: Notes) -> Note:
    return await database.write(store.add, note)

@routes.post("/{note_id}/count")
async def count_note(note_id: int, database: Notes) -> int:
    return await database.write(store.count, note_id)

@routes.post("/wrong-read")
async def write_while_reading(note: NoteCreate, database: Notes) -> Note:
    return await database.read(store.add, note)

@routes.post("/lack")
async def lack(database: Notes) -> None:
    await database.write(store.lack_a_name)
"""
FILES = {
    "__init__.py": INIT,
    "migrations/__init__.py": MIGRATIONS,
    "migrations/m0001_create_notes.py": CREATE,
    "store.py": STORE,
    "models.py": MODELS,
    "routes.py": ROUTES,
}
"""The files of the feature `notes`."""


def note(name: str, place: int = 1, **more: object) -> dict[str, object]:
    """A note as it is added through HTTP."""
    return {"name": name, "place": place, "at": "2026-01-31T12:00:00+02:00", **more}
