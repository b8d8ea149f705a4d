"""What goes in and out of the endpoints."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from petsage.resources import EMAIL, NO_NUL, URI, DateTime, Integer, Number, Page, PageQuery

Code = Annotated[str, Field(min_length=1, max_length=255), NO_NUL]
Contact = Annotated[str, Field(max_length=254), EMAIL]
Site = Annotated[str, Field(max_length=2000), URI]
Beds = Annotated[Integer, Field(description="How many it has.")]
Street = Annotated[str, Field(max_length=255), NO_NUL]
Latitude = Annotated[Number, Field(ge=-90, le=90)]
Tag = Annotated[str, Field(max_length=50), NO_NUL]
Tags = Annotated[list[Tag], Field(max_length=5)]


class Geo(BaseModel):
    """A place on earth."""

    model_config = ConfigDict(extra="forbid")

    lat: Latitude
    note: Street | None = "unknown"


class GeoUpdate(TypedDict, total=False):
    """Changes to a place on earth."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc] # pydantic looks here

    lat: Latitude
    note: Street | None


class Address(BaseModel):
    """Where it is."""

    model_config = ConfigDict(extra="forbid")

    street: Street
    geo: Geo | None = None


class AddressUpdate(TypedDict, total=False):
    """Changes to where it is."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc] # pydantic looks here

    street: Street
    geo: GeoUpdate | None


class ClinicCreate(BaseModel):
    """A clinic as it is added."""

    model_config = ConfigDict(extra="forbid")

    code: Code
    opened_at: DateTime | None = None
    reference: UUID
    contact: Contact | None = None
    site: Site | None = None
    beds: Beds = 3
    rating: Number | None = None
    is_open: bool = True
    address: Address | None = None
    tags: Tags = []


class ClinicUpdate(TypedDict, total=False):
    """Changes to a clinic, as a JSON Merge Patch."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc] # pydantic looks here

    code: Code
    opened_at: DateTime | None
    reference: UUID
    contact: Contact | None
    site: Site | None
    beds: Beds | None
    rating: Number | None
    is_open: bool | None
    address: AddressUpdate | None
    tags: Tags | None


class ClinicRead(ClinicCreate):
    """A clinic as it is kept."""

    id: int


class ClinicPage(Page[ClinicRead]):
    """Some clinics, and where the next are."""


class ClinicQuery(PageQuery):
    """Which clinics are listed, and in what order."""

    sort: Literal[
        "id",
        "-id",
        "code",
        "-code",
        "opened_at",
        "-opened_at",
        "reference",
        "-reference",
        "beds",
        "-beds",
        "rating",
        "-rating",
        "is_open",
        "-is_open",
    ] = "id"
    code: list[Code] | None = None
    opened_at_gte: DateTime | None = Field(None, alias="opened_at.gte")
    opened_at_lte: DateTime | None = Field(None, alias="opened_at.lte")
    beds: list[Beds] | None = None
    is_open: list[bool] | None = None
    rating_gte: Number | None = Field(None, alias="rating.gte")
