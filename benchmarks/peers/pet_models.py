"""The models of the further measurements: what PetSage and FastAPI both take and answer."""

from datetime import UTC, date, datetime, timedelta
from typing import Literal

from pydantic import BaseModel, Field


class Visit(BaseModel):
    """A visit to the vet."""

    on: date
    reason: str = Field(max_length=200)
    cost: float = Field(ge=0)


class NewPet(BaseModel):
    """A pet as it is sent."""

    name: str = Field(min_length=1, max_length=100)
    species: Literal["dog", "cat", "rabbit"]
    born: date | None = None
    weight_kg: float = Field(gt=0)
    tags: list[str] = []
    visits: list[Visit] = []


class Summary(BaseModel):
    """What is answered to a pet that was sent."""

    name: str
    visits: int
    spent: float


class Pet(BaseModel):
    """A pet as it is listed."""

    id: int
    name: str
    species: Literal["dog", "cat", "rabbit"]
    born: date | None
    weight_kg: float
    tags: list[str]
    created_at: datetime


def summary_of(pet: NewPet) -> Summary:
    """The answer to `pet`."""
    spent = sum(visit.cost for visit in pet.visits)
    return Summary(name=pet.name, visits=len(pet.visits), spent=spent)


PETS = [
    Pet(
        id=number,
        name=f"Pet {number}",
        species="dog",
        born=date(2015, 1, 1) + timedelta(days=number),
        weight_kg=number / 4,
        tags=["friendly", "chipped"],
        created_at=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number),
    )
    for number in range(1, 101)
]

# What is sent: 1 KB of JSON.
NEW_PET = NewPet(
    name="Rex",
    species="dog",
    born=date(2020, 1, 31),
    weight_kg=12.5,
    tags=["friendly", "chipped", "vaccinated"],
    visits=[
        Visit(on=date(2024, 1, number), reason=f"Look number {number} at the left paw", cost=40.5)
        for number in range(1, 14)
    ],
).model_dump_json()
