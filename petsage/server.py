"""The process: listens, serves, and stops when it is told to.

Longer than 300 lines: the stop undoes what the start did, in an order that both have to keep.
"""

import asyncio
import contextlib
import errno
import gc
import logging
import os
import socket
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Final, NamedTuple
from weakref import ref

from aiohttp.http import WSCloseCode

from petsage.accepting import ListeningSite
from petsage.app import become_ready, create_app, start_folders
from petsage.candidate import Candidate
from petsage.catalog import CATALOG
from petsage.checking import CheckProcess
from petsage.connection import Runner
from petsage.descriptors import fit_connections, make_room
from petsage.ending import Ending
from petsage.entry import ASIDE, Entry
from petsage.errors import StartError
from petsage.essentials import Essentials
from petsage.health import CHECKS, PROCESS_STATE
from petsage.loader import load_core
from petsage.logs.pipeline import Pipeline
from petsage.logs.printed import PrintedLines
from petsage.management import write_token
from petsage.metrics import CONNECTIONS
from petsage.settings import ServerSettings, Settings
from petsage.signals import StopSignals
from petsage.sockets import (
    is_loopback,
    listen,
    refuse_new_connections,
    take_inherited_sockets,
    url_of,
)
from petsage.steady import Steady, begin_steady, end_copies, kind_of_loop, steady_loop
from petsage.strays import Strays, run_to_end
from petsage.system import SYSTEM_FEATURES
from petsage.upkeep import Upkeep
from petsage.worker import in_thread, join_threads, rest

if TYPE_CHECKING:
    from petsage.watch import FolderWatch

_log = logging.getLogger(__name__)

# A connection that a client sees as made may be on its way through the kernel for this long.
_ACCEPT_S: Final = 0.05
_LOOK_S: Final = 0.02
# Who comes during a start waits so long for the answer, which is mostly there by then. It is told
# to come again where a start takes longer.
_START_PATIENCE_S: Final = 0.25
# To look at the folders once more takes a while, in which whoever has waited would wait on.
_FIRST_ANSWERS_S: Final = 0.1
_AGAIN_S: Final = 0.5
# So many objects more than before are looked through for cycles. Requests in hand are no garbage,
# and some 40 objects each: with CPython's 700, a score of them would have it look each time.
_YOUNG: Final = 10_000


def run_server(
    settings: Settings,
    *,
    announce: Callable[[str, list[Entry]], None] | None = None,
    read_settings: Callable[[], Settings] | None = None,
) -> None:
    """Serves until SIGINT or SIGTERM, then stops cleanly; the process is to end after it.

    A second signal hurries the stop: nothing is waited for any more. A third ends the process at
    once, and so does what still runs 5 s after the stop; the exit code is 1 then.

    Args:
        settings: all of them.
        announce: called once, when every feature has been looked at, with the server's address
            and the features.
        read_settings: reads the settings again, for what they say of features that change.

    Raises:
        StartError: the port cannot be listened on, or a required feature does not serve.
    """
    begun = _begin()  # before there are threads, sockets or handlers of signals
    make_room(settings.server.max_connections)
    ending = Ending()
    signals = StopSignals(ending.now)
    gc.disable()  # until it serves: what is made to start with stays
    pipeline = Pipeline(settings.logs, version=version("petsage"))
    pipeline.install()
    try:
        with (
            contextlib.redirect_stdout(PrintedLines()),
            Strays(pipeline),
            asyncio.Runner(loop_factory=steady_loop) as runner,
        ):
            process = _Process(settings, signals, ending, begun, read_settings)
            loop = runner.get_loop()
            try:
                run_to_end(loop, Steady(process.serve(announce), loop=loop, name="serve"))
            finally:
                run_to_end(loop, Steady(_end_tasks(), loop=loop, name="end"))
        join_threads()
    finally:
        # What closes the log has a limit of its own, and says what it has lost.
        ending.wait_no_more()
        pipeline.uninstall()
        ending.wait()


class _Begun(NamedTuple):
    """What is there before anything else.

    Attributes:
        core: the core's own features, loaded.
        essentials: as they are without any other feature.
        checker: checks features before they are imported; None where there can be none.
    """

    core: list[Candidate]
    essentials: Essentials
    checker: CheckProcess | None


def _begin() -> _Begun:
    """Begins the child that checks, when what touches most of the memory is done.

    A page that either process touches while both have it is copied: to take the essentials alone
    took 10 ms behind the fork, and takes 1 before it.
    """
    kind_of_loop()
    core = load_core(SYSTEM_FEATURES)
    essentials = Essentials()
    return _Begun(core, essentials, CheckProcess.begin())


async def _end_tasks() -> None:
    """Cancels all other tasks of the running loop, and waits for their ends."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left)


class _Process:
    """One run of the server, from its start to its end.

    Args:
        settings: all of them.
        signals: what tells it to stop.
        ending: is begun when everything has been told to end.
        begun: what is there already.
        read_settings: reads the settings again.
    """

    def __init__(
        self,
        settings: Settings,
        signals: StopSignals,
        ending: Ending,
        begun: _Begun,
        read_settings: Callable[[], Settings] | None,
    ) -> None:
        self._ending = ending
        self._settings = settings
        self._signals = signals
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._checker = begun.checker
        self._app = create_app(
            settings,
            with_folders=False,
            core=begun.core,
            checker=begun.checker,
            read_settings=read_settings,
        )
        snapshots = self._app[CATALOG].snapshots
        self._upkeep = Upkeep(begun.essentials, snapshots, self._look_again)
        self._watch: FolderWatch | None = None
        self._watching: asyncio.Task[None] | None = None
        self._runner = Runner(self._app, settings.server)
        self._inherited: list[socket.socket] = []
        self._site: ListeningSite | None = None
        self._address = ""

    async def serve(self, announce: Callable[[str, list[Entry]], None] | None) -> None:
        """Starts, serves until it is told to stop, and stops.

        Raises:
            StartError: it cannot start.
        """
        loop = asyncio.get_running_loop()
        self._ending.loop = loop

        def tell() -> None:
            loop.call_soon_threadsafe(self._heed)

        self._signals.listen(tell)
        drain_s = 0.0
        try:
            drain_s = await self._serve_until_told(announce)
        except StartError as error:
            _log.error("PetSage does not start: %s", error)
            raise
        finally:
            await self._stop_watch()
            self._upkeep.stop()
            await self._app[CATALOG].end_changes()
            await self._end_requests(drain_s)
            await self._runner.cut()
            if self._checker is not None:
                await self._checker.stop()
            for each in self._inherited:
                each.close()  # our descriptor of it; the parent's stays open
            self._signals.listen(None)
            _log.info("PetSage has stopped")
            self._ending.wait()

    async def _serve_until_told(self, announce: Callable[[str, list[Entry]], None] | None) -> float:
        """Starts, and serves until it is told to stop; for how many seconds it is to drain then.

        Raises:
            StartError: it cannot start.
        """
        starting = begin_steady(self._start(announce), name="start")
        stopping = begin_steady(_wait(self._stop), name="stop")
        try:
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                _log.info("PetSage stops before it has started")
                starting.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await starting
                return 0.0
            await starting
            await stopping
        finally:
            stopping.cancel()
        # At a terminal nobody balances load, and somebody waits.
        drain_s = self._settings.server.drain_s if self._signals.is_for_service else 0.0
        _log.info(
            "PetSage stops: it takes requests for %g s more, and ends those in flight", drain_s
        )
        return drain_s

    def _heed(self) -> None:
        """Does what the signals so far ask for."""
        self._app[PROCESS_STATE].phase = "draining"
        self._runner.close_after_answers()
        self._stop.set()
        if self._signals.count > 1:
            self._hurry.set()

    async def _start(self, announce: Callable[[str, list[Entry]], None] | None) -> None:
        """Starts the core's own features, listens, starts all others, then says so.

        Longer than 40 lines, since their order is what it is about.

        Sockets that are handed over are listened on already. They are served only when everything
        is there: until then the server that this one takes over from answers, or the queue holds.

        Raises:
            StartError: what is handed over cannot be used, the address cannot be had, or a
                required feature does not serve.
        """
        self._inherited = take_inherited_sockets(os.environ)
        counts = self._app[CONNECTIONS]
        counts.max_connections = fit_connections(counts.max_connections)
        await self._runner.setup()
        if not self._inherited:
            sockets = await _bind(self._settings.server)
            await self._take_from(sockets, patience_s=_START_PATIENCE_S)
            self._note_address()
            _log.info("PetSage listens on %s, and loads its features", self._address)
        gc.freeze()  # what is there by now stays, and is looked through no more; features may go
        await start_folders(self._app)
        addresses = [each.getsockname() for each in self._inherited] or self._runner.addresses
        await write_token(self._app, addresses)
        if self._inherited:
            await self._take_from(self._inherited)
        self._note_address()
        become_ready(self._app)
        if self._site is not None:
            self._site.take()
        gc.set_threshold(_YOUNG, *gc.get_threshold()[1:])
        gc.enable()
        self._upkeep.begin()
        end_copies(asyncio.get_running_loop(), partial(_descriptors_of, ref(self)))
        entries = self._app[CATALOG].entries()
        _log.info(
            "PetSage serves on %s",
            self._address,
            extra={
                "features_serving": [each.name for each in entries if each.state == "serving"],
                "features_set_aside": [each.name for each in entries if each.state in ASIDE],
            },
        )
        if announce is not None:
            try:
                announce(self._address, entries)
            except OSError as error:  # nobody looks any more, and the log has all of it
                _log.warning("The terminal is not told what PetSage serves: %s", error)
        loop = asyncio.get_running_loop()
        self._watching = begin_steady(self._begin_the_rest(loop), name="begin the rest")

    async def _take_from(self, sockets: list[socket.socket], *, patience_s: float = 0.0) -> None:
        """Serves what comes on sockets that listen, when their patience has come to its end."""
        counts = self._app[CONNECTIONS]
        self._site = ListeningSite(self._runner, sockets, counts, patience_s=patience_s)
        await self._site.start()

    async def _begin_the_rest(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begins what can wait: whoever has waited for the start is answered first."""
        await rest(loop, _FIRST_ANSWERS_S)
        while True:
            try:
                await self._begin_watch()
                break
            except Exception:  # noqa: BLE001 - a feature may have broken what it calls, for a moment
                with contextlib.suppress(Exception):  # what logs may be broken, too
                    _log.exception("The folders of features are not watched yet; it is tried again")
                await rest(loop, _AGAIN_S)
        with contextlib.suppress(Exception):  # each look does it for itself, too
            await in_thread(self._upkeep.prepare)

    async def _begin_watch(self) -> None:
        """Watches the folders of features, where that is wished; what was written is found."""
        catalog = self._settings.catalog
        if not catalog.watch:
            return
        try:
            module = await in_thread(import_module, "petsage.watch")
        except ImportError:
            _log.exception("The folders of features are not watched; fix: install PetSage anew")
            return
        served = self._app[CATALOG]
        watch: FolderWatch = module.FolderWatch(
            catalog.folders,
            served.refresh,
            settle_ms=catalog.settle_ms,
            meanwhile=served.take_away,
        )
        try:
            watch.start()
        except Exception:
            await watch.stop()
            raise
        self._watch = watch

    def _look_again(self) -> None:
        if self._watch is not None:
            self._watch.look_again()

    async def _stop_watch(self) -> None:
        if self._watching is not None and not self._watching.done():
            self._watching.cancel()
            await asyncio.wait({self._watching})
        if self._watch is not None:
            await self._watch.stop()

    def _note_address(self) -> None:
        addresses = self._runner.addresses
        # Who asks through a proxy may be anywhere.
        is_alone = is_loopback(addresses) and not self._settings.server.trusted_proxies
        self._app[PROCESS_STATE].loopback_only = is_alone
        self._address = ", ".join(map(url_of, addresses))

    async def _end_requests(self, drain_s: float) -> None:
        """Serves for a while, listens no more, and waits for the requests in flight.

        Every answer says that its connection closes, from the first moment on; idle connections
        are closed at the end of `drain_s`, and no request that has begun to come is lost.
        """
        if not self._runner.sites:
            return
        self._app[PROCESS_STATE].phase = "draining"
        if self._site is not None:
            self._site.take()  # where the stop comes amid the start, some may wait
        self._runner.close_after_answers()
        await self._pause(drain_s)
        if not self._inherited:
            self._refuse_new_connections()
        await self._pause(_ACCEPT_S)  # what has begun by now is accepted
        await _turn()
        await self._runner.stop_listening()
        await _turn()
        _log.info("PetSage takes no new connections")
        for generation in self._app[CATALOG].generations():
            generation.tell(WSCloseCode.GOING_AWAY)
        await self._app[CHECKS].stop()  # who waits for one that hangs is answered, too
        loop = asyncio.get_running_loop()
        settled = loop.time() + _ACCEPT_S
        end = loop.time() + self._settings.server.shutdown_s
        while (self._runner.close_idle() or loop.time() < settled) and loop.time() < end:
            if self._hurry.is_set():
                break
            await self._pause(_LOOK_S)

    def _refuse_new_connections(self) -> None:
        try:
            refuse_new_connections(self._runner.descriptors)
        except OSError as error:  # a sandbox may forbid it, and the stop has to go on
            _log.warning("A connection that begins as the listener closes may be reset: %s", error)

    async def _pause(self, seconds: float) -> None:
        """Waits, unless there is a hurry."""
        with contextlib.suppress(TimeoutError):
            # `wait_for` would make a task of it, which anybody may cancel.
            async with asyncio.timeout(seconds):
                await self._hurry.wait()


def _descriptors_of(process: "ref[_Process]") -> list[int]:
    """Those that a process serves on, while it is there."""
    found = process()
    return [] if found is None else found._runner.open_descriptors


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


async def _turn() -> None:
    """Lets the loop take what has come: on a busy machine, time may pass in which it does not."""
    for _ in range(10):
        await asyncio.sleep(0)


async def _bind(server: ServerSettings) -> list[socket.socket]:
    """Sockets that listen on the address of the settings.

    Raises:
        StartError: it cannot be had.
    """
    try:
        return await listen(server.host, server.port)
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
