"""The root of the API, for a first look and for connectivity checks."""

from pydantic import BaseModel, Field

from petsage import Feature, Routes

routes = Routes()


class Welcome(BaseModel):
    """The greeting at the root."""

    message: str = Field(
        description="A greeting, always the same.", examples=["Welcome to the PetSage API"]
    )


WELCOME = Welcome(message="Welcome to the PetSage API")


@routes.get(
    "/",
    summary="Say welcome",
    description="A default root endpoint for basic connectivity checks.",
    tags=["Root"],
)
async def say_welcome() -> Welcome:
    """Say welcome."""
    return WELCOME


feature = Feature(routes, mount="")
