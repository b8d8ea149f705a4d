"""Changes on disk: which features' folders were written to, once they have been quiet."""

import asyncio
import logging
import math
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from petsage.changes import FolderChanges, Noticed
from petsage.steady import begin_steady
from petsage.worker import in_thread, rest

_log = logging.getLogger(__name__)

# A thread that looks at a file system which does not answer is not waited for any longer.
_END_S: Final = 1.0
# A refresh that takes no longer is waited for by what comes next.
_PATIENCE_S: Final = 0.15
# What could not be refreshed is tried again after so long, then after twice as long, and so on.
_AGAIN_S: Final = 1.0
_AGAIN_MOST_S: Final = 60.0

# A feature that is refreshed more often than this, within so long, each time because of what was
# written right behind the refresh before, may well write there itself. It is told of, and no more:
# somebody who tries things out, or a script, is not to wait for it.
_OFTEN: Final = 5
_OFTEN_S: Final = 10.0
_BEHIND_S: Final = 1.0
_TELL_S: Final = 60.0

Refresh = Callable[[frozenset[str] | None], Awaitable[object]]


class _Pace:
    """How often one feature is refreshed right behind its refresh before."""

    def __init__(self) -> None:
        self._refreshed = -math.inf  # when the last refresh ended; ahead while one runs
        self._told = -math.inf
        self._is_behind = False
        self._times: list[float] = []

    def note(self, now: float) -> None:
        """Something was written in its folder."""
        self._is_behind = self._is_behind or now - self._refreshed <= _BEHIND_S

    def begin(self, now: float) -> bool:
        """It is refreshed; whether it is to be told of."""
        is_behind, self._is_behind = self._is_behind, False
        self._times = [each for each in self._times if is_behind and now - each < _OFTEN_S]
        self._times.append(now)
        self._refreshed = math.inf
        tells = len(self._times) > _OFTEN and now - self._told > _TELL_S
        if tells:
            self._told = now
        return tells

    def end(self, now: float) -> None:
        """The refresh is over."""
        self._refreshed = now

    def is_past(self, now: float) -> bool:
        """Whether nothing of it matters any more."""
        return now - self._refreshed > _TELL_S


class FolderWatch:
    """Watches folders of features, and has refreshed what was written to in them.

    Each feature's folder settles by itself: one that is written to without pause delays no other.

    Args:
        folders: the folders of features; they may be missing, and come and go.
        refresh: is awaited, one call at a time, with the names of the features' folders that were
            written to and have been quiet since, be they still there or not; with None where
            anything may have changed, and nothing is being written. A call too many is possible.
        meanwhile: is awaited with such names while a call of `refresh` goes on, which may be long;
            `refresh` is called with them all the same, behind that.
        settle_ms: how long a folder has to be quiet, in milliseconds.

    Attributes:
        failures: how many calls of `refresh` raised, which is logged; they are made again, later.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        refresh: Refresh,
        *,
        settle_ms: int,
        meanwhile: Refresh | None = None,
    ) -> None:
        self.failures = 0
        self._folders = list(dict.fromkeys(folder.absolute() for folder in folders))
        self._refresh = refresh
        self._meanwhile = meanwhile
        self._settle_s = settle_ms / 1000
        self._threads: list[FolderChanges] = []
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop
        self._noted = asyncio.Event()
        self._due: dict[str, float] = {}
        self._all_due: float | None = None
        self._again_s = _AGAIN_S
        self._paces: defaultdict[str, _Pace] = defaultdict(_Pace)

    def start(self) -> None:
        """Begins to watch, on the running loop; a second call does nothing.

        Everything is refreshed once each folder is watched: what changed before is not lost.
        """
        if self._task is not None:
            return
        self._loop = loop = asyncio.get_running_loop()

        def tell(noticed: Noticed) -> None:
            # A loop that was closed without `stop` has nobody to tell.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._note, noticed)

        for folder in self._folders:
            self._threads.append(FolderChanges(folder, tell, self._threads))
        for thread in self._threads:
            thread.start()
        self._task = begin_steady(self._run(), name="petsage-watch")

    async def wait_until_watching(self) -> None:
        """Returns once every change from now on will be noticed."""
        for thread in self._threads:
            await in_thread(thread.is_watching.wait)

    async def stop(self) -> None:
        """Ends the watch within moments; a refresh that is running is cancelled."""
        task, self._task = self._task, None
        threads, self._threads = self._threads, []
        for thread in threads:
            thread.end()
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        for thread in threads:
            await in_thread(thread.join, _END_S)
            if thread.is_alive():
                _log.warning("The thread %s does not end: its folder does not answer", thread.name)

    def look_again(self) -> None:
        """Has all folders refreshed: they may not have been where they were looked for."""
        self._all_due = time.monotonic()
        self._noted.set()

    def _note(self, noticed: Noticed) -> None:
        now = time.monotonic()
        due = now + max(self._settle_s, noticed.quiet_s)
        for name in noticed.names:
            self._paces[name].note(now)
            self._due[name] = due
        for name in noticed.others:
            self._due.setdefault(name, due)
        if noticed.is_all and self._all_due is None:
            self._all_due = due
        self._noted.set()

    async def _run(self) -> None:
        while True:
            self._noted.clear()
            try:
                names, wait_s = self._take(time.monotonic())
                if names is None or names:
                    await self._refresh_and_watch(names)
                else:
                    await self._wait(wait_s)
            except Exception:  # noqa: BLE001 - a feature may have broken what it calls, for a moment
                self._all_due = 0.0  # whatever was lost is found when it has rested
                with suppress(Exception):  # what logs may be broken, too
                    _log.exception("The watch of the features' folders failed, and goes on")
                await rest(self._loop, _AGAIN_S)

    async def _wait(self, wait_s: float | None) -> None:
        """Until something is noted, or for so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._noted.wait()

    async def _refresh_and_watch(self, names: frozenset[str] | None) -> None:
        """Has these refreshed, and meanwhile looks at what else has settled, once each time."""
        looked: dict[str | None, float] = {}
        call = begin_steady(self._call(names), name="petsage-watch-refresh")
        call.add_done_callback(lambda _: self._noted.set())
        try:
            while not call.done():
                self._noted.clear()
                dues = dict[str | None, float](self._due.items())
                if self._all_due is not None:
                    dues[None] = max((self._all_due, *self._due.values()))
                dues = {each: due for each, due in dues.items() if looked.get(each) != due}
                late = time.monotonic() - _PATIENCE_S
                ready = {each: due for each, due in dues.items() if due <= late}
                looked |= ready
                if ready:
                    await self._look(ready)
                else:
                    await self._wait(min((due - late for due in dues.values()), default=None))
            call.result()  # raises where not even its failure could be dealt with
        finally:
            call.cancel()
            await asyncio.wait([call])

    async def _look(self, names: Collection[str | None]) -> None:
        if self._meanwhile is None:
            return
        wanted = frozenset(name for name in names if name is not None)
        try:
            await self._meanwhile(None if None in names else wanted)
        except Exception:  # noqa: BLE001 - it is logged, and `refresh` comes to it, too
            _log.exception("A change on disk was not looked at ahead of the one that goes on")

    def _take(self, now: float) -> tuple[frozenset[str] | None, float | None]:
        """The names to refresh now, or how long to wait for some; None is all, and for ever."""
        ready = frozenset(name for name, due in self._due.items() if due <= now)
        if len(ready) == len(self._due) and self._all_due is not None and self._all_due <= now:
            self._due.clear()
            self._all_due = None
            return None, None
        for name in ready:
            del self._due[name]
        # What is being written would be read half-way where all is looked at: that waits.
        due = min(self._due.values(), default=self._all_due)
        return ready, None if due is None else max(0.0, due - now)

    async def _call(self, names: frozenset[str] | None) -> None:
        now = time.monotonic()
        for name in [name for name, pace in self._paces.items() if pace.is_past(now)]:
            del self._paces[name]
        for name in names or ():
            if self._paces[name].begin(time.monotonic()):
                _log.warning(
                    "Feature %s is written to each time that it is taken up, again and again; fix: "
                    "if it does so itself, let it keep what it writes outside of its folder",
                    name,
                )
        try:
            await self._refresh(names)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            self._failed(names)
        except Exception:  # noqa: BLE001 - whatever a feature's code raises; it is logged
            self._failed(names)
        else:
            self._again_s = _AGAIN_S
        finally:
            for name in names or ():
                self._paces[name].end(time.monotonic())

    def _failed(self, names: frozenset[str] | None) -> None:
        """Puts the names back, for nothing else may ever be written there, and logs it."""
        self.failures += 1
        wait_s = self._again_s
        due = time.monotonic() + wait_s
        self._again_s = min(wait_s * 2, _AGAIN_MOST_S)
        if names is None:
            self._all_due = due if self._all_due is None else self._all_due
        for name in names or ():
            self._due.setdefault(name, due)
        told = "all features" if names is None else ", ".join(sorted(names))
        _log.exception(
            "A change on disk was not taken up: %s; it is tried again in %g s", told, wait_s
        )
