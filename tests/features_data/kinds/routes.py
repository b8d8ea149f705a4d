"""One handler for each kind of thing that is declared."""

import datetime as dt
import uuid
from typing import Annotated, Any

from aiohttp import web
from pydantic import Field

from petsage import Body, Cookie, Header, Media, Problem, Query, Reply, Routes

from .models import Animal, Color, Everything, Filter, Node, Owner, Trouble, Visit

routes = Routes("/kinds")

Text = Annotated[str, Field(max_length=20)]


@routes.get("/path/{key}/{count}/{day}/{color}")
async def take_path(
    key: uuid.UUID, count: Annotated[int, Field(ge=0, le=9)], day: dt.date, color: Color
) -> list[Any]:
    return [key, count, day, color]


@routes.get("/text/{text}")
async def take_text(text: str) -> str:
    return text


@routes.get("/rest/{rest:path}")
async def take_rest(rest: str) -> str:
    return rest


@routes.get("/query")
async def take_query(  # noqa: PLR0917 - one of each
    needed: Annotated[int, Query()],
    sizes: list[int] = [],  # noqa: B006 - a default is never changed
    ratio: Annotated[float, Field(gt=0, lt=1)] = 0.5,
    flag: bool = False,
    color: Color = Color.RED,
    at: dt.datetime | None = None,
    code: Annotated[str, Field(pattern="^[a-z]{1,5}$")] = "a",
) -> list[Any]:
    return [needed, sizes, ratio, flag, color, at, code]


@routes.get("/filter")
async def take_filter(chosen: Annotated[Filter, Query()]) -> Filter:
    return chosen


@routes.get("/labels")
async def take_labels(labels: Annotated[dict[str, str], Query()]) -> dict[str, str]:
    return labels


@routes.get("/headers")
async def take_headers(
    x_count: Annotated[int, Header()],
    x_tags: Annotated[list[str], Header()] = [],  # noqa: B006 - a default is never changed
    x_text: Annotated[Text, Header()] = "",
) -> list[Any]:
    return [x_count, x_tags, x_text]


@routes.get("/cookies")
async def take_cookies(
    session: Annotated[uuid.UUID, Cookie()], seen: Annotated[int, Cookie()] = 0
) -> list[Any]:
    return [session, seen]


@routes.post("/everything", status=201)
async def take_everything(thing: Everything) -> Everything:
    return thing


@routes.put("/owner")
async def take_owner(owner: Owner) -> Owner:
    return owner


@routes.put("/visit")
async def take_visit(visit: Visit) -> Visit:
    return visit


@routes.patch("/owner")
async def take_owner_or_none(owner: Owner | None = None) -> Owner | None:
    return owner


@routes.put("/animal/{animal_id}")
async def take_animal(animal_id: int, animal: Animal, loud: bool = False) -> Animal:
    return animal


@routes.put("/union")
async def take_union(value: Annotated[int | Owner | list[int] | None, Body()]) -> Any:
    return value


@routes.post("/nodes")
async def take_nodes(nodes: Annotated[list[Node], Field(max_length=3)]) -> int:
    return len(nodes)


@routes.post("/any")
async def take_any(value: Annotated[Any, Body()]) -> bool:
    return value is None


@routes.delete("/ids")
async def take_ids(ids: Annotated[list[int], Body()]) -> None:
    pass


@routes.patch("/merge")
async def take_merge(
    changes: Annotated[dict[str, int], Body(media_type="application/merge-patch+json")],
) -> dict[str, int]:
    return changes


@routes.get("/reply/{number}", answers={404: Problem, 409: Trouble})
async def reply(number: Annotated[int, Field(ge=0)]) -> Reply[Owner] | Reply[Trouble]:
    if number % 3 == 0:
        return Reply(Trouble(why="asleep"), status=409)
    if number % 3 == 1:
        raise Problem(404, "There is none")
    return Reply(Owner("Mia"), headers={"X-Mood": "good"})


@routes.get("/media", answers={200: Media({"text/plain": str, "application/json": Owner})})
async def show_media(as_text: bool = False) -> web.Response:
    return web.Response(text="Mia") if as_text else web.json_response({"name": "Mia"})
