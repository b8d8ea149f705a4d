"""What PetSage counts, for Prometheus and whatever reads its formats."""

import gzip
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any, Final

from aiohttp import hdrs, web

from petsage import Feature, FromApp, Media, Request, Routes, StreamResponse
from petsage.catalog import CATALOG, Catalog
from petsage.health import CHECKS, PROCESS_STATE, CheckRunner, ProcessState
from petsage.management import guarded
from petsage.metrics import CONNECTIONS, REQUESTS, ConnectionCounts, RequestMetrics
from petsage.readiness import READINESS, Readiness
from petsage.shared_database import SHARED_DATABASE, SharedDatabase
from petsage.system.samples import Snapshot, Sources
from petsage.watchdog import WATCHDOG, Watchdog
from petsage.worker import in_thread

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

# prometheus-client is imported when somebody asks for the first time: it costs 25 ms, which
# every start would pay.
# ruff: noqa: PLC0415

routes = Routes(tags=("Management",))


class Exposition:
    """Snapshots as text, together with what the process and the interpreter tell of themselves."""

    def __init__(self) -> None:
        self._own: list[Any] | None = None

    def render(self, snapshot: Snapshot, accept: str, *, compress: bool) -> web.Response:
        """The answer to one scrape; it takes a while, and no event loop.

        Args:
            snapshot: what is shown.
            accept: the `Accept` of the scrape: OpenMetrics where it is wanted, else text.
            compress: whether the scrape takes gzip.
        """
        from prometheus_client.exposition import choose_encoder

        encode, content_type = choose_encoder(_understood(accept))
        body = encode(self._registry(snapshot))
        headers = {
            hdrs.CONTENT_TYPE: content_type,
            hdrs.VARY: "Accept, Accept-Encoding",
            "X-Content-Type-Options": "nosniff",
        }
        if compress:
            body = gzip.compress(body, 1, mtime=0)
            headers[hdrs.CONTENT_ENCODING] = "gzip"
        return web.Response(body=body, headers=headers)

    def _registry(self, snapshot: Snapshot) -> "CollectorRegistry":
        """A registry of this scrape alone, so that two at once do not see each other's."""
        import prometheus_client as client

        if self._own is None:
            made = client.CollectorRegistry(auto_describe=False)
            self._own = [
                client.ProcessCollector(registry=None),
                client.PlatformCollector(registry=None),
                client.GCCollector(registry=made),
            ]
        registry = client.CollectorRegistry(auto_describe=False)
        for collector in (snapshot, *self._own):
            registry.register(collector)
        return registry


def _understood(accept: str) -> str:
    """What of an `Accept` is wanted, and of a version that is written: 1.0.0.

    prometheus-client looks at neither `q=0` nor whether a version is one.
    """
    kept = []
    for each in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in each.split(";"))
        given = dict(part.partition("=")[::2] for part in parameters)
        if given.get("version", "1.0.0") == "1.0.0" and not _is_zero(given.get("q", "1")):
            kept.append(";".join((kind, *parameters)))
    return ",".join(kept)


def takes_gzip(accepted: str) -> bool:
    """Whether an `Accept-Encoding` takes gzip (RFC 9110, section 12.5.3)."""
    weights = {}
    for each in accepted.lower().split(","):
        coding, _, weight = each.partition(";")
        weights[coding.strip()] = weight.strip().removeprefix("q=") or "1"
    wanted = weights.get("gzip", weights.get("x-gzip", weights.get("*", "0")))
    return not _is_zero(wanted)


def _is_zero(weight: str) -> bool:
    try:
        return float(weight) == 0
    except ValueError:
        return True  # what cannot be read is not wanted


EXPOSITION: Final = web.AppKey("exposition", Exposition)


async def lifespan(app: web.Application) -> AsyncIterator[None]:
    """Makes what keeps the collectors between scrapes."""
    app[EXPOSITION] = Exposition()
    yield


_TEXTS: Final = Media({"text/plain": str, "application/openmetrics-text": str})


@routes.get("/metrics", summary="Show the metrics", answers={200: _TEXTS})
async def get_metrics(  # noqa: PLR0917 - each owner of facts is an argument
    request: Request,
    exposition: Annotated[Exposition, FromApp(EXPOSITION)],
    requests: Annotated[RequestMetrics, FromApp(REQUESTS)],
    catalog: Annotated[Catalog, FromApp(CATALOG)],
    state: Annotated[ProcessState, FromApp(PROCESS_STATE)],
    checks: Annotated[CheckRunner, FromApp(CHECKS)],
    readiness: Annotated[Readiness, FromApp(READINESS)],
    watchdog: Annotated[Watchdog, FromApp(WATCHDOG)],
    connections: Annotated[ConnectionCounts, FromApp(CONNECTIONS)],
    database: Annotated[SharedDatabase, FromApp(SHARED_DATABASE)],
) -> StreamResponse:
    """Everything that is counted, in Prometheus' text format, or OpenMetrics by `Accept`."""
    sources = Sources(
        *(requests, catalog, state, checks, readiness, watchdog, connections, database.counts)
    )
    return await in_thread(
        exposition.render,
        sources.snapshot(),
        ",".join(request.headers.getall(hdrs.ACCEPT, ())),
        compress=takes_gzip(",".join(request.headers.getall(hdrs.ACCEPT_ENCODING, ()))),
    )


feature = Feature(routes, mount="", lifespan=lifespan, middlewares=(guarded,))
