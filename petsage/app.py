"""Settings and a catalog make an aiohttp application."""

from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Any

from aiohttp import web

from petsage.candidate import Candidate
from petsage.catalog import CATALOG, Catalog
from petsage.health import CHECKS, PROCESS_STATE, CheckRunner, ProcessState
from petsage.making import Checker
from petsage.management import GUARD, Guard, remove_token
from petsage.metrics import CONNECTIONS, REQUESTS, ConnectionCounts, RequestMetrics
from petsage.readiness import READINESS, Readiness
from petsage.settings import Settings
from petsage.shared_database import SHARED_DATABASE, SharedDatabase
from petsage.system import SYSTEM_FEATURES
from petsage.troubles import TROUBLES
from petsage.watchdog import WATCHDOG, Watchdog


def create_app(
    settings: Settings,
    *,
    values: Mapping[web.AppKey[Any], Any] | None = None,
    only: str | None = None,
    with_folders: bool = True,
    core: list[Candidate] | None = None,
    checker: Checker | None = None,
    read_settings: Callable[[], Settings] | None = None,
) -> web.Application:
    """The application; its features start and stop with it.

    Longer than 40 lines, for all that can be said of it; each part is made of those before it.

    Args:
        settings: all of them.
        values: what `FromApp` arguments get instead of what the applications have; for tests.
        only: serves this feature and those that it needs, and no others; for tests.
        with_folders: whether the features in folders start with the application, too; where not,
            they do with `start_folders`.
        core: what `load_core` has made of `SYSTEM_FEATURES`; made at the start where left out.
        checker: checks features before they are imported.
        read_settings: reads the settings again, for what they say of features.
    """
    app = web.Application(client_max_size=settings.server.max_body_bytes)
    app[REQUESTS] = requests = RequestMetrics()
    app[CONNECTIONS] = ConnectionCounts(
        settings.server.max_connections, settings.server.max_requests_in_flight
    )
    app[SHARED_DATABASE] = SharedDatabase(
        settings.database, start_s=settings.catalog.start_timeout_s
    )
    catalog = Catalog(
        settings,
        system=SYSTEM_FEATURES,
        requests=requests,
        core=core,
        values=values,
        only=only,
        checker=checker,
        read_settings=read_settings,
    )
    app[CATALOG] = catalog
    app[PROCESS_STATE] = state = ProcessState()
    app[GUARD] = Guard(settings.management, state)
    app[CHECKS] = checks = CheckRunner()
    required = settings.catalog.required if only is None else ()
    app[READINESS] = Readiness(app, state, catalog, checks, required=required, logs=settings.logs)
    app[WATCHDOG] = Watchdog(settings.server.stall_ms / 1000)
    catalog.changed = partial(_forget_absent, app)
    app.router.register_resource(catalog.resource)
    features = _all_features if with_folders else _core_features
    app.cleanup_ctx.extend((_watch, features))
    app.on_shutdown.append(_stop_checks)
    app.on_cleanup.append(remove_token)
    return app


async def start_folders(app: web.Application) -> None:
    """Loads and starts the features in folders; what is left to do then is `become_ready`.

    Raises:
        StartError: a required feature does not serve, or a folder cannot be read.
    """
    await app[CATALOG].start_folders()


def become_ready(app: web.Application) -> None:
    """Says that requests may be sent to the process, unless it stops."""
    state = app[PROCESS_STATE]
    if state.phase == "starting":
        state.phase = "ready"


def _forget_absent(app: web.Application) -> None:
    """Forgets what is known of features that are no longer there."""
    app[CHECKS].keep(app[READINESS].names())
    names = {entry.name for entry in app[CATALOG].entries()}
    app[WATCHDOG].keep(names)
    TROUBLES.keep(names)


async def _watch(app: web.Application) -> AsyncIterator[None]:
    """Watches the event loop before any feature starts, and until all have stopped."""
    app[WATCHDOG].start()
    yield
    await _stop_checks(app)  # where the start failed, nothing was shut down
    app[WATCHDOG].stop()


async def _stop_checks(app: web.Application) -> None:
    """Ends what runs of the checks: before requests in flight are waited for, which may ask."""
    await app[CHECKS].stop()


async def _all_features(app: web.Application) -> AsyncIterator[None]:
    await app[CATALOG].start(app)
    app[PROCESS_STATE].phase = "ready"
    yield
    await app[CATALOG].stop()


async def _core_features(app: web.Application) -> AsyncIterator[None]:
    try:
        await app[CATALOG].start_core(app)
        yield
    finally:
        await app[CATALOG].stop()
