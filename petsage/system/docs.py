"""The API's documentation: `/openapi.json`, and pages over it that ask no other machine."""

import asyncio
import gzip
import hashlib
import mimetypes
from collections.abc import AsyncIterator
from functools import cached_property
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Annotated, Final, NamedTuple
from weakref import ref

import orjson
from aiohttp import web

from petsage import Feature, FromApp, Problem, Request, Routes, StreamResponse
from petsage.catalog import CATALOG, Catalog
from petsage.errors import NOTHING_HERE
from petsage.openapi import build_document
from petsage.routing import RouteTable, documented
from petsage.worker import in_thread

routes = Routes(tags=("Documentation",))

_EVERYWHERE: Final = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; worker-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# `data:` is for icons in the style sheet, `blob:` for trying out what answers an image.
DOCS_POLICY: Final = f"{_EVERYWHERE}; style-src 'self'; img-src 'self' data: blob:"
# The hash is that of nothing: Redoc fills an empty <style> by script, which needs no more.
REDOC_POLICY: Final = (
    f"{_EVERYWHERE}; style-src 'self' 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='; "
    "img-src 'self' data:; font-src data:"
)


class Content(NamedTuple):
    """Bytes to be served, with their gzip and their name for caches."""

    body: bytes
    compressed: bytes
    content_type: str
    etag: str

    @classmethod
    def of(cls, body: bytes, content_type: str) -> "Content":
        """The content of `body`."""
        digest = hashlib.sha256(body).hexdigest()[:32]
        return cls(body, gzip.compress(body, 6, mtime=0), content_type, digest)

    def respond(self, request: Request, headers: dict[str, str] | None = None) -> web.Response:
        """The answer to a request: 304 where the client has it already, gzip where it takes it."""
        common = {
            "ETag": f'W/"{self.etag}"',
            "Cache-Control": "no-cache",
            "Vary": "Accept-Encoding",
            "X-Content-Type-Options": "nosniff",
            **(headers or {}),
        }
        known = request.if_none_match or ()
        if any(tag.value in {self.etag, "*"} for tag in known):
            return web.Response(status=304, headers=common)
        common["Content-Type"] = self.content_type
        if "gzip" in request.headers.get("Accept-Encoding", "").lower():
            return web.Response(body=self.compressed, headers=common | {"Content-Encoding": "gzip"})
        return web.Response(body=self.body, headers=common)


class LiveDocument:
    """The document of whatever table is current, made once for each."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._table: ref[RouteTable] | None = None  # what was served is not kept by its document
        self._content: Content | None = None

    async def content(self, catalog: Catalog) -> Content:
        """The document of what `catalog` serves now."""
        async with self._lock:
            table = catalog.table
            if self._content is None or self._table is None or self._table() is not table:
                self._content = await in_thread(_document_of, table)
                self._table = ref(table)
            return self._content


def _document_of(table: RouteTable) -> Content:
    return Content.of(orjson.dumps(build_document(documented(table))), "application/json")


class Assets:
    """The files of the pages; looked for, read and compressed when they are first asked for."""

    _SERVED: Final = (".css", ".html", ".js", ".txt")

    def __init__(self) -> None:
        self._contents: dict[str, Content] = {}

    @cached_property
    def _files(self) -> dict[str, Traversable]:
        folder = resources.files("petsage.system") / "assets"
        return {file.name: file for file in folder.iterdir() if file.name.endswith(self._SERVED)}

    async def content(self, name: str) -> Content:
        """The content of one file.

        Raises:
            Problem: 404, there is none of this name.
        """
        if name not in self._files:
            raise Problem(404, NOTHING_HERE)
        if name not in self._contents:
            self._contents[name] = await in_thread(self._read, name)
        return self._contents[name]

    def _read(self, name: str) -> Content:
        kind = mimetypes.types_map[f".{name.rpartition('.')[2]}"]
        return Content.of(self._files[name].read_bytes(), f"{kind}; charset=utf-8")


DOCUMENT: Final = web.AppKey("document", LiveDocument)
ASSETS: Final = web.AppKey("assets", Assets)


async def lifespan(app: web.Application) -> AsyncIterator[None]:
    """Makes the keepers of the document and of the pages' files."""
    app[DOCUMENT] = LiveDocument()
    app[ASSETS] = Assets()
    yield


@routes.get("/openapi.json")
async def get_document(
    request: Request,
    document: Annotated[LiveDocument, FromApp(DOCUMENT)],
    catalog: Annotated[Catalog, FromApp(CATALOG)],
) -> StreamResponse:
    """The API as an OpenAPI 3.1 document."""
    return (await document.content(catalog)).respond(request)


@routes.get("/docs")
async def show_docs(request: Request, assets: Annotated[Assets, FromApp(ASSETS)]) -> StreamResponse:
    """A page on which the API can be read and tried out, by Swagger UI."""
    return (await assets.content("docs.html")).respond(request, _page_headers(DOCS_POLICY))


@routes.get("/redoc")
async def show_redoc(
    request: Request, assets: Annotated[Assets, FromApp(ASSETS)]
) -> StreamResponse:
    """A page on which the API can be read, by Redoc."""
    return (await assets.content("redoc.html")).respond(request, _page_headers(REDOC_POLICY))


@routes.get("/docs/assets/{name}")
async def get_asset(
    request: Request, name: str, assets: Annotated[Assets, FromApp(ASSETS)]
) -> StreamResponse:
    """A file of the two pages."""
    return (await assets.content(name)).respond(request)


def _page_headers(policy: str) -> dict[str, str]:
    return {"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer"}


feature = Feature(routes, mount="", lifespan=lifespan)
