"""FastAPI with what is measured beside the smoke test, as its own documentation writes it."""

from fastapi import FastAPI

from benchmarks.peers.on_uvicorn import serve
from benchmarks.peers.pet_models import PETS, NewPet, Pet, Summary, summary_of

app = FastAPI()


@app.get("/api/v1/further/pets")
async def list_pets() -> list[Pet]:
    """Answer with a hundred pets."""
    return PETS


@app.post("/api/v1/further/pets")
async def take_pet(pet: NewPet) -> Summary:
    """Take a pet, and answer with little."""
    return summary_of(pet)


if __name__ == "__main__":
    serve(app)
