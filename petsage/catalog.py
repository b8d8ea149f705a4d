"""The features being served, and how they change.

How a change goes is in docs/decisions/0011.
"""

import asyncio
import contextvars
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from aiohttp import web

from petsage.candidate import Candidate
from petsage.catalog_view import CatalogView
from petsage.current import Current
from petsage.departures import Departures
from petsage.entry import Change, Step
from petsage.feature import Feature
from petsage.folder_reader import FolderReader
from petsage.ledger import Ledger
from petsage.loader import load_core, unload
from petsage.making import Checker, Maker
from petsage.metrics import RequestMetrics
from petsage.news import tell_duplicate
from petsage.outcome import Outcome
from petsage.settings import Settings
from petsage.steady import begin_steady
from petsage.taking_up import TakingUp
from petsage.worker import in_thread

_log = logging.getLogger(__name__)


class Catalog(CatalogView):
    """Loads, starts, serves, changes and stops features.

    Args:
        settings: which folders, what is disabled or required, each feature's own settings.
        system: the core's own features, by name.
        core: what `load_core` has made of them; made at the start where left out.
        requests: where requests in hand are counted.
        values: what `FromApp` arguments get instead of what the applications have. A key counts
            as the one of the same name: a test's import of a feature makes keys of its own.
        only: serves this feature and those that it needs, and no others; what the settings say
            of the rest is not looked at.
        checker: checks features before they are imported; None where the import is the check.
        read_settings: reads the settings again at each change, for `[features.<name>]`; None
            where they stay.

    Attributes:
        changed: is called after each change; what is kept by a feature's name can be forgotten.
        changes: what became of features since the start, by step.
        change_seconds: how long the changes took together.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        system: Mapping[str, Feature],
        requests: RequestMetrics,
        core: list[Candidate] | None = None,
        values: Mapping[web.AppKey[Any], Any] | None = None,
        only: str | None = None,
        checker: Checker | None = None,
        read_settings: Callable[[], Settings] | None = None,
    ) -> None:
        self.changed: Callable[[], None] = lambda: None
        self.changes: Counter[Step] = Counter()
        self.change_seconds = 0.0
        reader = FolderReader(settings, only=only, read_settings=read_settings)
        current = Current(requests, settings.server.drain_s, changed=self._tell_changed)
        super().__init__(settings, current, Ledger(), reader)
        self._departures = Departures(current, self._ledger, reader, self.changes)
        self._system = dict(system)
        self._core = core
        self._values = {repr(key): value for key, value in (values or {}).items()}
        self._only = only
        self._checker = checker
        self._maker: Maker | None = None
        self._lock = asyncio.Lock()
        self._refreshes: set[asyncio.Task[list[Change]]] = set()
        self._is_closing = False

    async def start(self, core: web.Application) -> None:
        """Starts the core's own features, then those in folders; nothing runs where that fails.

        Args:
            core: the root application; `FromApp` looks there last.

        Raises:
            StartError: a feature in `[catalog].required` does not serve, or a folder of
                features cannot be read.
        """
        try:
            await self.start_core(core)
            await self.start_folders()
        except BaseException:
            await self.stop()
            raise

    async def start_core(self, core: web.Application) -> None:
        """Starts the core's own features and serves them; other paths are told to come again."""
        self._maker = Maker(
            self._settings.catalog, core, values=self._values, checker=self._checker
        )
        loaded = self._core
        if loaded is None:
            loaded = await in_thread(load_core, self._system)
        self._current.generation = 1
        self.resource.is_starting = True
        attempt = await self._maker.start(loaded)
        await self._current.replace(attempt.made, (), touched=())
        outcome = Outcome(attempt, self._system)
        outcome.note(self._ledger, self._serving, is_start=True)
        self._tell_changed()

    async def start_folders(self) -> None:
        """Loads the features in folders and starts those that can be, then serves all of them.

        The others are set aside and logged. What has been started when this fails runs on until
        `stop`: the core's own features are still asked.

        Raises:
            StartError: as `start`.
        """
        await in_thread(self._reader.compare_settings)
        async with self._lock:
            found, duplicates = await self._find(None)
            self._note_duplicates(duplicates, None)
            await self._take_up(found, ())
        if self._only is None:
            self._require_serving()
        self.resource.is_starting = False
        if self._maker is not None:
            self._maker.is_first = False

    async def refresh(
        self, names: Collection[str] | None = None, *, again: bool = False
    ) -> list[Change]:
        """Looks at folders of features, and takes up what differs from what was tried last.

        Args:
            names: which; None for all. A name that no folder has is one that was removed.
            again: tries what was refused or set aside once more, though it does not differ: its
                cause may have been elsewhere.

        Returns:
            What changed, and what was refused; nothing where no folder differs. It is current
            then; what it replaced may still have requests in hand.

        Raises:
            PetSageError: a folder cannot be read, or features cannot be checked; nothing changes.

        One goes on at a time; whoever waits for it may go away without cutting it. What is gone
        has no routes any more before anything else of it is done, and waits for nothing.
        """
        if self._is_closing:
            return []
        # In a context of its own: what is started lives longer than the request that asks for it.
        task = begin_steady(
            self._refresh(names, again=again), name="refresh", context=contextvars.Context()
        )
        self._refreshes.add(task)
        task.add_done_callback(self._refreshes.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_log_failure)  # nobody else hears of it
            raise

    async def end_changes(self) -> None:
        """Cuts the change that goes on, and makes no other; what serves goes on."""
        self._is_closing = True
        for task in self._refreshes:
            task.cancel()
        await asyncio.gather(*self._refreshes, return_exceptions=True)

    async def stop(self) -> None:
        """Serves nothing any more, and ends each feature's lifespan, the last started first."""
        await self.end_changes()
        stopped = [served.candidate for served in self._serving.values()]
        await self._current.stop()
        await in_thread(unload, stopped)

    async def take_away(self, names: Collection[str] | None = None) -> None:
        """Ends the routes of features whose folders are gone, while another change goes on.

        What else their removal asks for is done by the `refresh` of these names that has to follow.

        Args:
            names: which to look at; None for all.

        Raises:
            StartError: a folder cannot be read.
        """
        if not self._is_closing:
            await self._departures.look(names)

    async def _refresh(self, names: Collection[str] | None, *, again: bool) -> list[Change]:
        if self._lock.locked():
            await self.take_away(names)
        async with self._lock:
            started = time.perf_counter()
            self._current.vanished.clear()
            await in_thread(self._reader.read_tables, must=again)
            found, duplicates = await self._find(names)
            changes = self._note_duplicates(duplicates, names)
            if again:
                self._ledger.try_again(found)
            if self._current.leaving:
                await self._departures.take_away((), found)
            known_ahead = self._ledger.ahead
            ahead = {name for name in known_ahead if names is None or name in names}
            gone = (self._ledger.asked(names) | ahead) - found.keys()
            differing = self._differing(found)
            if differing or gone:
                async with self._departures.in_time(gone, differing):
                    changes += await self._take_up(differing, gone)
            self.changes.update(change.step for change in changes)
            removed = [known_ahead.pop(name) for name in ahead | gone if name in known_ahead]
            if removed or changes:
                self.change_seconds += time.perf_counter() - started
            return removed + changes

    async def _find(
        self, names: Collection[str] | None
    ) -> tuple[dict[str, Candidate], list[Candidate]]:
        known = None if self.resource.is_starting else self._ledger.asked(None)
        return await in_thread(self._reader.find, names, known=known)

    def _note_duplicates(
        self, duplicates: list[Candidate], names: Collection[str] | None
    ) -> list[Change]:
        return [
            tell_duplicate(candidate, self._serving.get(candidate.name))
            for candidate in self._ledger.note_duplicates(duplicates, names)
        ]

    def _differing(self, found: Mapping[str, Candidate]) -> dict[str, Candidate]:
        """What is neither as it was tried last, nor what serves."""
        differing: dict[str, Candidate] = {}
        for name, candidate in found.items():
            key = self._reader.key(candidate)
            if key == self._ledger.seen.get(name):
                continue
            if name not in self._serving or not self._ledger.is_served_key(name, key):
                differing[name] = candidate
            elif self._ledger.note_restored(name, key):
                _log.info("Feature %s: its folder holds again what serves", name)
        return differing

    async def _take_up(
        self, differing: Mapping[str, Candidate], gone: Collection[str]
    ) -> list[Change]:
        """Makes current what can be of what differs, without what is gone."""
        assert self._maker is not None  # noqa: S101 - for mypy: the core was started first
        ledger, key_of = self._ledger, self._reader.key
        keys = {name: key_of(candidate) for name, candidate in differing.items()}
        with ledger.trying(keys, gone, serving=self._serving):
            change = TakingUp(
                differing,
                gone,
                current=self._current,
                ledger=ledger,
                maker=self._maker,
                tables=self._reader.tables,
                only=self._only,
            )
            changes = await change.run()
            self._tell_changed()
        if self._only is not None:  # what was read is known only now
            tried = [each.candidate for each in self._serving.values()]
            tried += [each.candidate for each in ledger.setbacks.values()]
            ledger.seen = {each.name: key_of(each) for each in tried if each.folder is not None}
        return changes

    def _tell_changed(self) -> None:
        self.changed()  # who is to be told is said later than this is handed on


def _log_failure(task: "asyncio.Task[list[Change]]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("A change was not taken up; the next one is tried", exc_info=error)


CATALOG: Final = web.AppKey("catalog", Catalog)
"""The catalog in the root application, for the core's own features."""
