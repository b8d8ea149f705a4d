"""The process: listens, serves, and stops when it is told to."""

import asyncio
import contextlib
import errno
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Final

from aiohttp import web

from petsage.app import create_app
from petsage.catalog import CATALOG, Entry
from petsage.connection import Runner
from petsage.errors import StartError
from petsage.logs.pipeline import Pipeline, installed_pipeline
from petsage.logs.printed import PrintedLines
from petsage.management import write_token
from petsage.settings import Settings

_log = logging.getLogger(__name__)

# What a feature left running may take this long to end, once everything else has stopped.
_END_TIMEOUT_S: Final = 5.0


def run_server(
    settings: Settings, *, announce: Callable[[str, list[Entry]], None] | None = None
) -> None:
    """Serves until SIGINT or SIGTERM, then stops cleanly; the process is to end after it.

    A second signal ends the process at once, and so does what still runs 5 s after the stop.

    Args:
        settings: all of them.
        announce: called once, when the server listens, with its address and the features.

    Raises:
        StartError: the port cannot be listened on, or a required feature does not serve.
    """
    gc.disable()  # until it serves: what is made to start with stays
    pipeline = Pipeline(settings.logs, version=version("petsage"))
    pipeline.install()
    try:
        with (
            contextlib.redirect_stdout(PrintedLines()),
            asyncio.Runner(loop_factory=_loop_factory()) as runner,
        ):
            runner.run(_serve(settings, announce))
    finally:
        pipeline.uninstall()


def _end_within(seconds: float) -> None:
    """Ends the process when it has not ended by then: a thread or a task may never end."""
    timer = threading.Timer(seconds, _end_now)
    timer.daemon = True
    timer.start()


def _end_now() -> None:
    """Ends the process at once: what still runs is named, and what is logged is written."""
    _log.error("PetSage ends, and cuts what still runs: %s", "; ".join(_still_running()) or "?")
    with contextlib.suppress(RuntimeError):  # it was uninstalled: everything is written
        installed_pipeline().flush()
    os._exit(1)


def _still_running() -> Iterator[str]:
    """Each thread that keeps the process from its end, with the line that it is at."""
    frames = sys._current_frames()
    for thread in threading.enumerate():
        frame = frames.get(thread.ident or 0)
        if thread.daemon or thread is threading.main_thread() or frame is None:
            continue
        yield f"thread {thread.name} in {frame.f_code.co_filename}:{frame.f_lineno}"


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

    def take_signal() -> None:
        if stop.is_set():
            _end_now()  # asked twice
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, take_signal)
    app = create_app(settings)
    runner = Runner(app, settings.server)
    stopping = asyncio.create_task(stop.wait(), name="stop")
    starting = asyncio.create_task(_start(runner, settings, announce), name="start")
    try:
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            _log.info("PetSage stops before it has started")
            _end_within(_END_TIMEOUT_S)
            starting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await starting
            await stopping
            _log.info("PetSage stops: it takes no new connections and ends its requests")
    except StartError as error:
        _log.error("PetSage does not start: %s", error)
        raise
    finally:
        stopping.cancel()
        await runner.cleanup()
        _log.info("PetSage has stopped")
        _end_within(_END_TIMEOUT_S)


async def _start(
    runner: Runner, settings: Settings, announce: Callable[[str, list[Entry]], None] | None
) -> None:
    """Starts the features, then listens, then says so."""
    await runner.setup()
    address = await _listen(runner, settings)
    await write_token(runner.app, address)
    gc.freeze()  # what stays is looked through no more
    gc.enable()
    entries = runner.app[CATALOG].entries()
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
