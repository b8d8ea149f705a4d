"""What is measured beside the smoke test."""

from datetime import UTC, datetime

from pydantic import BaseModel

from benchmarks.peers.pet_models import PETS, NewPet, Pet, Summary, summary_of
from benchmarks.peers.words import MESSAGE
from petsage import Feature, Routes
from petsage.resources import Found, IfNoneMatch, found

routes = Routes("/further")


class State(BaseModel):
    """What the smoke test answers, without a proof."""

    status: str
    message: str
    timestamp: datetime


@routes.get("/nothing")
async def prove_nothing() -> State:
    """Answer as the smoke test does, and prove nothing."""
    return State(status="ok", message=MESSAGE, timestamp=datetime.now(UTC))


@routes.get("/known")
async def find_known(if_none_match: IfNoneMatch = None) -> Found[Pet]:
    """Answer with a pet, or say that the caller has it already."""
    return found(PETS[0], if_none_match)


@routes.get("/pets")
async def list_pets() -> list[Pet]:
    """Answer with a hundred pets."""
    return PETS


@routes.post("/pets", status=200)
async def take_pet(pet: NewPet) -> Summary:
    """Take a pet, and answer with little."""
    return summary_of(pet)


feature = Feature(routes)
