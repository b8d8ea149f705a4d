"""FastAPI with SQLAlchemy's async ORM keeping pets, as their documentations write it.

A session for each request by a dependency, pydantic models in and out, keyset paging. What PetSage
does beyond it is left out: conditions, ETags, merge patches, migrations, outages.
"""

import base64
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import DateTime, Dialect, Index, String, TypeDecorator, event, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import ConnectionPoolEntry

from benchmarks.peers.on_uvicorn import serve

Species = Literal["dog", "cat", "rabbit"]

engine = create_async_engine(
    os.environ["BENCH_DATABASE_URL"],
    # As many as PetSage's `pool_size`, kept open: those beyond SQLAlchemy's default of 5 would be
    # opened and closed with each request.
    pool_size=10,
    max_overflow=0,
    # SQLite has one writer at a time: the others wait for it instead of failing after 5 s.
    connect_args={"timeout": 60} if os.environ["BENCH_DATABASE_URL"].startswith("sqlite") else {},
)
new_session = async_sessionmaker(engine, expire_on_commit=False)

if engine.dialect.name == "sqlite":

    @event.listens_for(engine.sync_engine, "connect")
    def set_pragmas(connection: Any, _record: ConnectionPoolEntry) -> None:
        """What SQLite needs to read while it writes, and to lose nothing that was answered."""
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.close()


class UtcDateTime(TypeDecorator[datetime]):
    """A date-time in UTC, with its zone on SQLite, too (SQLAlchemy's recipe `TZDateTime`)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """In UTC, without its zone where the database knows none."""
        if value is None or dialect.name != "sqlite":
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """In UTC."""
        if value is None or dialect.name != "sqlite":
            return value
        return value.replace(tzinfo=UTC)


def now() -> datetime:
    """This moment, in UTC."""
    return datetime.now(UTC)


class Base(DeclarativeBase):
    """What all tables share."""


class Pet(Base):
    """A pet as it is kept."""

    __tablename__ = "pets"
    __table_args__ = (
        Index("ix_pets_species_id", "species", "id"),
        Index("ix_pets_born_id", "born", "id"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(255))
    species: Mapped[str]
    born: Mapped[date | None]
    weight_kg: Mapped[float]
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now, onupdate=now)


class PetCreate(BaseModel):
    """A pet as it is added."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=255)
    species: Species
    born: date | None = None
    weight_kg: float


class PetRead(PetCreate):
    """A pet as it is answered."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    created_at: datetime
    updated_at: datetime


class PetPage(BaseModel):
    """Some pets, and where the next are."""

    model_config = ConfigDict(from_attributes=True)

    items: list[PetRead]
    next: str | None


class PetQuery(BaseModel):
    """Which pets are listed, and in what order."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(50, ge=1, le=500)
    cursor: str | None = None
    sort: Literal["id", "-id", "species", "-species"] = "id"
    species: list[Species] | None = None
    born: list[date] | None = None
    born_gte: date | None = Field(None, alias="born.gte")
    born_lte: date | None = Field(None, alias="born.lte")


async def get_session() -> AsyncIterator[AsyncSession]:
    """A session for one request."""
    async with new_session() as session:
        yield session


Session = Annotated[AsyncSession, Depends(get_session)]


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """The tables are there from the start."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan)


@app.get("/api/v1/pets", response_model=PetPage)
async def list_pets(
    query: Annotated[PetQuery, Query()], session: Session, request: Request, response: Response
) -> dict[str, object]:
    """A page of pets; `next` and the `Link` header lead to the one behind it."""
    column = getattr(Pet, query.sort.removeprefix("-"))
    descending = query.sort.startswith("-")
    key = (Pet.id,) if query.sort in ("id", "-id") else (column, Pet.id)
    statement = select(Pet)
    if query.species is not None:
        statement = statement.where(Pet.species.in_(query.species))
    if query.born is not None:
        statement = statement.where(Pet.born.in_(query.born))
    if query.born_gte is not None:
        statement = statement.where(Pet.born >= query.born_gte)
    if query.born_lte is not None:
        statement = statement.where(Pet.born <= query.born_lte)
    if query.cursor is not None:
        last = decode_cursor(query.cursor)
        behind = tuple_(*key) < last if descending else tuple_(*key) > last
        statement = statement.where(behind)
    order = [part.desc() if descending else part.asc() for part in key]
    found = await session.scalars(statement.order_by(*order).limit(query.limit + 1))
    pets = found.all()
    following = None
    if len(pets) > query.limit:
        pets = pets[: query.limit]
        following = encode_cursor([getattr(pets[-1], part.key) for part in key])
        url = request.url.include_query_params(cursor=following)
        response.headers["Link"] = f'<{url.path}?{url.query}>; rel="next"'
    return {"items": pets, "next": following}


@app.post("/api/v1/pets", status_code=201, response_model=PetRead)
async def create_pet(pet: PetCreate, session: Session, response: Response) -> Pet:
    """The pet as it is kept; `Location` says where."""
    created = Pet(**pet.model_dump())
    session.add(created)
    await session.commit()
    response.headers["Location"] = f"/api/v1/pets/{created.id}"
    return created


@app.get("/api/v1/pets/{pet_id}", response_model=PetRead)
async def read_pet(pet_id: int, session: Session) -> Pet:
    """The pet."""
    pet = await session.get(Pet, pet_id)
    if pet is None:
        raise HTTPException(404, f"No pet has the id {pet_id}")
    return pet


def encode_cursor(values: list[object]) -> str:
    """Where a page ends, as text for a URL."""
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode()


def decode_cursor(cursor: str) -> tuple[object, ...]:
    """Where a page ends."""
    try:
        return tuple(json.loads(base64.urlsafe_b64decode(cursor)))
    except (ValueError, TypeError) as error:
        raise HTTPException(422, "This is no cursor") from error


if __name__ == "__main__":
    serve(app)
