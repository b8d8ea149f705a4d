"""The process: listens, serves, and stops when it is told to."""

import asyncio
import errno
import logging
import signal
from collections.abc import Callable
from importlib.metadata import version

from aiohttp import web

from petsage.app import create_app
from petsage.catalog import CATALOG, Entry
from petsage.connection import Runner
from petsage.errors import StartError
from petsage.logs.pipeline import Pipeline
from petsage.settings import Settings

_log = logging.getLogger(__name__)


def run_server(
    settings: Settings, *, announce: Callable[[str, list[Entry]], None] | None = None
) -> None:
    """Serves until SIGINT or SIGTERM, then stops cleanly.

    Args:
        settings: all of them.
        announce: called once, when the server listens, with its address and the features.

    Raises:
        StartError: the port cannot be listened on, or a required feature does not serve.
    """
    pipeline = Pipeline(settings.logs, version=version("petsage"))
    pipeline.install()
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve(settings, announce))
    finally:
        pipeline.close()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where the platform has it."""
    try:
        import uvloop  # noqa: PLC0415 - absent on some platforms
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _serve(settings: Settings, announce: Callable[[str, list[Entry]], None] | None) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    app = create_app(settings)
    runner = Runner(app, settings.server)
    try:
        await runner.setup()
        address = await _listen(runner, settings)
        entries = app[CATALOG].entries()
        _log.info(
            "PetSage serves on %s",
            address,
            extra={
                "features_serving": [each.name for each in entries if each.state == "serving"],
                "features_set_aside": [each.name for each in entries if each.state == "failed"],
            },
        )
        if announce is not None:
            announce(address, entries)
        await stop.wait()
        _log.info("PetSage stops: it takes no new connections and ends its requests")
    finally:
        await runner.cleanup()
        _log.info("PetSage has stopped")


async def _listen(runner: Runner, settings: Settings) -> str:
    """Begins to listen; the address as a URL.

    Raises:
        StartError: the address cannot be had.
    """
    server = settings.server
    site = web.TCPSite(runner, server.host, server.port)
    try:
        await site.start()
    except (OSError, OverflowError) as error:
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            raise StartError(
                f"[server].port {server.port} on {server.host} is taken",
                fix=f"stop what listens there, or start with --port {server.port + 1}",
            ) from None
        reason = getattr(error, "strerror", None) or str(error)
        raise StartError(
            f"cannot listen on [server].host {server.host!r}, port {server.port}: {reason}",
            fix="name an address of this machine, and a port above 1023",
        ) from None
    host, port = runner.addresses[0][:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
