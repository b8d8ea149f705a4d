"""What it takes long to be wrong about, and what a hostile choice of members makes slow."""

import decimal
import ipaddress
import uuid
from collections import Counter
from typing import Annotated, Any, Literal, Union

from pydantic import AfterValidator, BaseModel, create_model

from petsage import Body, Feature, Query, Routes

routes = Routes("/costly")

NUMBERS: Any = {f"a{n}": (int, ...) for n in range(100)}
Wide: Any = create_model("Wide", **NUMBERS)
MODELS: Any = [{"kind": (Literal[n], ...), "number": (int, ...)} for n in range(100)]
KINDS = tuple(create_model(f"Kind{n}", **MODELS[n]) for n in range(100))
AnyKind: Any = Union[KINDS]  # noqa: UP007 - of so many


class Tree(BaseModel):
    """Itself, again and again."""

    number: int
    left: "Tree | None" = None
    right: "Tree | None" = None


class Hashed(BaseModel):
    """All that has to be hashed, by numbers that a client chooses."""

    numbers: set[int] = set()
    addresses: frozenset[ipaddress.IPv6Address] = frozenset()
    pairs: set[tuple[int, int]] = set()
    by_key: dict[uuid.UUID, int] = {}
    prices: Counter[decimal.Decimal] = Counter()


def rounded(price: decimal.Decimal) -> decimal.Decimal:
    """The price in cents."""
    return price.quantize(decimal.Decimal("0.01"))


Price = Annotated[decimal.Decimal, AfterValidator(rounded)]


@routes.post("/wide")
async def take_wide(wide: Wide) -> int:
    return len(wide.model_fields_set)


@routes.post("/wides")
async def take_wides(wides: dict[str, list[Wide]]) -> int:
    return len(wides)


@routes.post("/kinds")
async def take_kinds(kinds: list[AnyKind]) -> int:
    return len(kinds)


@routes.post("/trees")
async def take_trees(trees: list[Tree]) -> int:
    return len(trees)


@routes.post("/hashed")
async def take_hashed(hashed: Hashed) -> list[int]:
    sizes = (hashed.numbers, hashed.addresses, hashed.pairs, hashed.by_key, hashed.prices)
    return [len(each) for each in sizes]


@routes.post("/addresses")
async def take_addresses(addresses: Annotated[list[ipaddress.IPv6Address], Body()]) -> int:
    return len(addresses)


@routes.post("/price")
async def take_price(price: Annotated[Price, Body()]) -> str:
    return str(price)


@routes.get("/price")
async def ask_price(price: Annotated[Price, Query()]) -> str:
    return str(price)


feature = Feature(routes)
