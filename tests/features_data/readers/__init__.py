"""Handlers that take the request, and read its body themselves."""

from aiohttp import BodyPartReader

from petsage import Feature, Request, Routes

routes = Routes("/readers")


@routes.post("/read")
async def read_bytes(request: Request) -> int:
    return len(await request.read())


@routes.post("/text")
async def read_text(request: Request) -> int:
    return len(await request.text())


@routes.post("/json")
async def read_json(request: Request) -> bool:
    return bool(await request.json())


@routes.post("/form")
async def read_form(request: Request) -> int:
    return len(await request.post())


@routes.post("/parts")
async def read_parts(request: Request) -> int:
    count = 0
    async for part in await request.multipart():
        if isinstance(part, BodyPartReader):
            await part.read()
        count += 1
    return count


feature = Feature(routes)
