"""What goes in and out, of every kind that JSON has."""

import dataclasses
import datetime as dt
import decimal
import enum
import uuid
from typing import Annotated, Literal

from pydantic import BaseModel, Field
from typing_extensions import TypedDict


class Color(enum.Enum):
    """Some colours."""

    RED = "red"
    BLUE = "blue"


class Place(BaseModel, extra="forbid"):
    """Where something is; nothing else may be said of it."""

    street: str = Field(min_length=1, max_length=50)
    number: int = Field(1, ge=1, le=9_999)


class Cat(BaseModel):
    """A member of a union that says its kind."""

    kind: Literal["cat"]
    lives: int = Field(9, ge=0, le=9)


class Dog(BaseModel):
    """Another member of it."""

    kind: Literal["dog"]
    tricks: list[str] = []


Animal = Annotated[Cat | Dog, Field(discriminator="kind")]


class Everything(BaseModel):
    """A member of every type."""

    text: str
    short: str = Field(min_length=1, max_length=5)
    code: str = Field(pattern="^[A-Z]{2}-[0-9]{1,4}$")
    whole: int
    bounded: int = Field(ge=0, lt=100)
    even: int = Field(multiple_of=2)
    real: float
    share: float = Field(gt=0, le=1)
    yes: bool
    color: Color
    one_of: Literal["a", "b", 3]
    day: dt.date
    at: dt.datetime
    aware: Annotated[dt.datetime, Field(description="Any.")] | None = None
    time: dt.time
    key: uuid.UUID
    price: decimal.Decimal = Field(ge=0)
    maybe: str | None
    left_out: int = 7
    words: list[str] = Field([], max_length=5)
    set_of: set[int] = set()
    pair: tuple[int, str] = (1, "a")
    counts: dict[str, int] = {}
    home: Place
    others: list[Place] = []
    animal: Animal
    either: int | str | None = None


class Node(BaseModel):
    """A tree of itself."""

    name: str
    children: Annotated[list["Node"], Field(max_length=2)] = []


@dataclasses.dataclass
class Owner:
    """A dataclass."""

    name: str
    since: dt.date | None = None


class Visit(TypedDict):
    """A dict whose names are known."""

    reason: str
    cost: float


class Filter(BaseModel, extra="forbid"):
    """All of a query."""

    kind: Literal["cat", "dog"] = "cat"
    tags: list[str] = []
    youngest: int = Field(ge=0, alias="min-age")
    born: dt.date | None = None


class Trouble(BaseModel):
    """What another status answers."""

    why: str
