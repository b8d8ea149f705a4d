"""Settings and a catalog make an aiohttp application."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from aiohttp import web

from petsage.catalog import CATALOG, Catalog
from petsage.health import PROCESS_STATE, ProcessState
from petsage.management import GUARD, Guard, remove_token
from petsage.metrics import REQUESTS, RequestMetrics
from petsage.settings import Settings
from petsage.system import SYSTEM_FEATURES

API_VERSION = "1.0.0"


def create_app(
    settings: Settings,
    *,
    values: Mapping[web.AppKey[Any], Any] | None = None,
    only: str | None = None,
) -> web.Application:
    """The application; its features start and stop with it.

    Args:
        settings: all of them.
        values: what `FromApp` arguments get instead of what the applications have; for tests.
        only: serves this feature and those that it needs, and no others; for tests.
    """
    app = web.Application(client_max_size=settings.server.max_body_bytes)
    app[REQUESTS] = requests = RequestMetrics()
    catalog = Catalog(settings, system=SYSTEM_FEATURES, requests=requests, values=values, only=only)
    app[CATALOG] = catalog
    app[PROCESS_STATE] = state = ProcessState()
    app[GUARD] = Guard(settings.management, state)
    app.router.register_resource(catalog.resource)
    app.on_cleanup.append(remove_token)
    app.cleanup_ctx.append(_features)
    return app


async def _features(app: web.Application) -> AsyncIterator[None]:
    await app[CATALOG].start(app)
    app[PROCESS_STATE].phase = "ready"
    yield
    await app[CATALOG].stop()
