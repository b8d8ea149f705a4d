"""What goes in and out of the endpoints."""

from datetime import date, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from petsage.resources import NO_NUL, Number, Page, PageQuery

Name = Annotated[str, Field(max_length=255, description="Its name.", examples=["Rex"]), NO_NUL]
Species = Annotated[Literal["dog", "cat", "rabbit"], Field(examples=["dog"])]
Born = Annotated[date, Field(examples=["2020-01-31"])]
WeightKg = Annotated[Number, Field(examples=[1.5])]


class PetCreate(BaseModel):
    """A pet as it is added."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    species: Species
    born: Born | None = None
    weight_kg: WeightKg


class PetReplace(PetCreate):
    """A pet as it takes the place of another: what is left out becomes its default."""


class PetUpdate(TypedDict, total=False):
    """Changes to a pet, as a JSON Merge Patch: what is left out stays, null takes away."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc] # pydantic looks here

    name: Name
    species: Species
    born: Born | None
    weight_kg: WeightKg


class PetRead(PetCreate):
    """A pet as it is kept."""

    id: int = Field(description="Given when it is added; never another's.", examples=[7])
    created_at: datetime = Field(description="When it was added, in UTC.")
    updated_at: datetime = Field(description="When it last changed, in UTC.")


class PetPage(Page[PetRead]):
    """Some pets, and where the next are."""


class PetQuery(PageQuery):
    """Which pets are listed, and in what order."""

    sort: Literal["id", "-id", "species", "-species", "born", "-born"] = Field(
        "id", description="The field to go by; descending with a minus."
    )
    species: list[Species] | None = Field(None, description="Any of these.")
    born: list[Born] | None = Field(None, description="Any of these.")
    born_gte: Born | None = Field(None, alias="born.gte", description="This or later.")
    born_lte: Born | None = Field(None, alias="born.lte", description="This or earlier.")
