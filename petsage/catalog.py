"""The features being served: how they change, and the table of their routes.

Longer than 300 lines: what holds the features answers what is asked about them, too. How a change
goes is in docs/decisions/0011.
"""

import asyncio
import contextvars
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from petsage.candidate import Candidate
from petsage.current import Current
from petsage.entry import Change, Draining, Entry, Step, entry_of
from petsage.errors import PetSageError, StartError, did_you_mean, printable
from petsage.feature import Feature
from petsage.generation import Generation
from petsage.health import Check
from petsage.loader import find_features, find_folders, load_core, unload
from petsage.making import Attempt, Checker, Maker, Served
from petsage.metrics import RequestMetrics
from petsage.news import change_of, hash_of, tell_made, tell_removed, tell_setback
from petsage.routing import RouteTable, TableResource
from petsage.setback import Setback, setback_of
from petsage.settings import Settings
from petsage.signature import Flaw
from petsage.unmatched import find_unmatched
from petsage.worker import in_thread

_log = logging.getLogger(__name__)

# What takes the place of something that is gone comes in one swap with its end, where it is ready
# so soon; where a new folder holds the same, it is waited for a while longer.
_TOGETHER_S: Final = 0.3
_RENAMED_S: Final = 3.0

Key = tuple[object, ...]


class Catalog:
    """Loads, starts, serves, changes and stops features.

    Args:
        settings: which folders, what is disabled or required, each feature's own settings.
        system: the core's own features, by name.
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
        values: Mapping[web.AppKey[Any], Any] | None = None,
        only: str | None = None,
        checker: Checker | None = None,
        read_settings: Callable[[], Settings] | None = None,
    ) -> None:
        self.changed: Callable[[], None] = lambda: None
        self.changes: Counter[Step] = Counter()
        self.change_seconds = 0.0
        self._settings = settings
        self._tables: Mapping[str, Mapping[str, Any]] = settings.features
        self._read_settings = read_settings
        self._system = dict(system)
        self._values = {repr(key): value for key, value in (values or {}).items()}
        self._only = only
        self._checker = checker
        self._maker: Maker | None = None
        self._current = Current(requests, settings.server.drain_s, changed=self._tell_changed)
        self._setbacks: dict[str, Setback] = {}
        self._duplicates: list[Setback] = []
        self._seen: dict[str, Key] = {}  # of what was tried last
        self._served_keys: dict[str, Key] = {}  # of what serves, where it was tried for itself
        self._starting: dict[str, Entry] = {}
        self._ahead: dict[str, Change] = {}  # removed ahead of what goes on, and no more than that
        self._disabled: list[str] = []
        self._lock = asyncio.Lock()
        self._refreshes: set[asyncio.Task[list[Change]]] = set()
        self._is_closing = False

    @property
    def resource(self) -> TableResource:
        """What resolves requests, for the root application."""
        return self._current.resource

    @property
    def table(self) -> RouteTable:
        """The routes being served."""
        return self.resource.table

    @property
    def generation(self) -> int:
        """The number of changes that were made current, the start among them."""
        return self._current.generation

    @property
    def _serving(self) -> Mapping[str, Served]:
        return self._current.serving

    @property
    def required(self) -> frozenset[str]:
        """The features that have to serve, as the settings name them."""
        return frozenset(self._settings.catalog.required)

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders whose packages are features, as the settings name them."""
        return tuple(self._settings.catalog.folders)

    @property
    def leaked(self) -> tuple[tuple[str, int, str], ...]:
        """Retired generations that are still in memory: name, number, and what of it."""
        return self._current.retirement.leaked

    def generations(self) -> list[Generation]:
        """All that have, or may get, requests in hand; not to be kept."""
        return self._current.generations()

    def entries(self) -> list[Entry]:
        """Every feature: those that serve, those set aside with their reasons, those disabled."""
        draining = self._draining()
        entries = [
            self._serving_entry(served, draining.get(name, ()))
            for name, served in self._serving.items()
            if name not in self._current.leaving
        ]
        entries += [
            setback.entry for name, setback in self._setbacks.items() if name not in self._serving
        ]
        shown = {entry.name for entry in entries}
        ending = (
            Entry(name, None, "draining", (), (), system=False, draining=left)
            for name, left in draining.items()
        )
        for entry in (*self._starting.values(), *ending):
            if entry.name not in shown:
                entries.append(entry)
                shown.add(entry.name)
        entries += [setback.entry for setback in self._duplicates]
        disabled = [Entry(name, None, "disabled", (), (), system=False) for name in self._disabled]
        return entries + disabled

    def checks(self) -> list[tuple[str, Check, web.Application]]:
        """Each check of what serves, with its feature's name and application; not to be kept."""
        return [
            (served.name, check, served.running.app)
            for served in self._serving.values()
            if served.candidate.feature is not None and served.name not in self._current.leaving
            for check in served.candidate.feature.checks
        ]

    def why_absent(self, name: str) -> str | None:
        """Why a feature does not serve; None where it does."""
        if name in self._serving and name not in self._current.leaving:
            return None
        if self.resource.is_starting or not self._serving:
            return "it is not loaded yet"
        entry = next((each for each in self.entries() if each.name == name), None)
        if entry is None or entry.state == "draining":
            return "there is no such feature"
        return entry.why or ("disabled" if entry.state == "disabled" else "it does not run")

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
        loaded = await in_thread(load_core, self._system)
        self._current.generation = 1
        self.resource.is_starting = True
        attempt = await self._maker.start(loaded)
        await self._current.replace(attempt.made, (), touched=())
        self._note(attempt, [], self._system, (), {})

    async def start_folders(self) -> None:
        """Loads the features in folders and starts those that can be, then serves all of them.

        The others are set aside and logged. What has been started when this fails runs on until
        `stop`: the core's own features are still asked.

        Raises:
            StartError: as `start`.
        """
        await in_thread(self._compare_settings)
        async with self._lock:
            found, duplicates = await in_thread(self._find, None)
            self._note_duplicates(duplicates, None)
            await self._take_up(found, ())
        if self._only is None:
            self._require(self._settings.catalog.required)
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
        task = asyncio.create_task(
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
        asked = self._asked(names)
        if asked and not self._is_closing:
            there = await in_thread(self._find_names, None if names is None else asked)
            await self._take_away(asked - there, asked & there)

    async def _refresh(self, names: Collection[str] | None, *, again: bool) -> list[Change]:
        if self._lock.locked():
            await self.take_away(names)
        async with self._lock:
            started = time.perf_counter()
            self._current.vanished.clear()
            await in_thread(self._read_tables, must=again)
            found, duplicates = await in_thread(self._find, names)
            changes = self._note_duplicates(duplicates, names)
            for name in self._setbacks.keys() & found.keys() if again else ():
                self._seen[name] = ()
            if self._current.leaving:
                await self._take_away((), found)
            ahead = {name for name in self._ahead if names is None or name in names}
            gone = (self._asked(names) | ahead) - found.keys()
            differing = {
                name: candidate
                for name, candidate in found.items()
                if self._key(candidate) != self._seen.get(name)
            }
            for name in [name for name in differing if self._is_what_serves(differing[name])]:
                self._note_restored(differing.pop(name))
            if differing or gone:
                changes += await self._take_up_in_time(differing, gone)
            self.changes.update(change.step for change in changes)
            removed = [self._ahead.pop(name) for name in ahead | gone if name in self._ahead]
            if removed or changes:
                self.change_seconds += time.perf_counter() - started
            return removed + changes

    async def _take_up_in_time(
        self, differing: Mapping[str, Candidate], gone: Collection[str]
    ) -> list[Change]:
        """As `_take_up`; what is gone waits only so long for what is to take its place."""
        there = {hash_of(candidate) for candidate in differing.values()} - {None}
        renamed = [
            name
            for name in gone
            if name in self._serving and hash_of(self._serving[name].candidate) in there
        ]

        async def take_away() -> None:
            await asyncio.sleep(_TOGETHER_S)
            await self._take_away([name for name in gone if name not in renamed], ())
            await asyncio.sleep(_RENAMED_S)
            await self._take_away(renamed, ())

        ahead = asyncio.create_task(take_away(), name="take away")
        try:
            with self._current.retirement.held():
                return await self._take_up(differing, gone)
        finally:
            ahead.cancel()
            await asyncio.wait([ahead])
            if not ahead.cancelled() and (error := ahead.exception()) is not None:
                _log.error("What is gone was not taken away in time", exc_info=error)

    def _asked(self, names: Collection[str] | None) -> set[str]:
        return {*self._seen} if names is None else self._seen.keys() & {*names}

    def _find_names(self, names: Collection[str] | None) -> set[str]:
        return {path.name for path in find_folders(self._settings.catalog.folders, names)}

    async def _take_away(self, gone: Collection[str], back: Collection[str]) -> None:
        """Takes the routes of what is gone, and all of it where nothing that stays rests on it."""
        for served in await self._current.take_away(gone, back):
            self._forget(served.name)
            self._ahead[served.name] = tell_removed(served.name)
            self.changes["removed"] += 1

    def _forget(self, name: str) -> None:
        for known in (self._seen, self._served_keys, self._setbacks, self._starting):
            known.pop(name, None)

    def _find(self, names: Collection[str] | None) -> tuple[dict[str, Candidate], list[Candidate]]:
        """What the folders hold now, and what is there once more under a name that is taken."""
        catalog = self._settings.catalog
        only = self._only
        if only is not None and not self.resource.is_starting:
            # By now it is known what the one needs: those are looked at as all are elsewhere.
            names, only = self._seen.keys() & (self._seen if names is None else names), None
        return find_features(catalog.folders, disabled=catalog.disabled, names=names, only=only)

    def _is_what_serves(self, candidate: Candidate) -> bool:
        """Whether a folder holds again what serves, though something else was tried since."""
        served = self._served_keys.get(candidate.name)
        return candidate.name in self._serving and self._key(candidate) == served

    def _note_restored(self, candidate: Candidate) -> None:
        self._seen[candidate.name] = self._key(candidate)
        if self._setbacks.pop(candidate.name, None) is not None:
            _log.info("Feature %s: its folder holds again what serves", candidate.name)

    def _note_duplicates(
        self, duplicates: list[Candidate], names: Collection[str] | None
    ) -> list[Change]:
        """Remembers and logs what is there twice, of all names or of these; what is new of it."""
        changes = []
        known = {setback.candidate.folder: setback for setback in self._duplicates}
        kept = [
            setback
            for setback in self._duplicates
            if names is not None and setback.candidate.name not in names
        ]
        for candidate in duplicates:
            setback = known.get(candidate.folder)
            if setback is None:
                setback = setback_of(candidate, ())
                _log.error(
                    "Feature %s is set aside: %s", printable(candidate.name), candidate.errors[0]
                )
                changes.append(change_of(candidate, "failed", self._serving.get(candidate.name)))
            kept.append(setback)
        self._duplicates = kept
        return changes

    def _key(self, candidate: Candidate) -> Key:
        """What tells whether a folder is as it was when it was tried last."""
        content = candidate.snapshot.content_hash if candidate.snapshot is not None else None
        wrong = tuple(map(str, candidate.findings))
        return str(candidate.folder), content, wrong, repr(self._tables.get(candidate.name))

    def _read_tables(self, *, must: bool) -> None:
        """Reads `[features.<name>]` again; what was read last stays where that fails.

        Raises:
            PetSageError: it must not fail, and does.
        """
        catalog = self._settings.catalog
        paths = ((name, folder / name) for name in catalog.disabled for folder in catalog.folders)
        self._disabled = sorted({name for name, path in paths if path.is_dir()})
        if self._read_settings is None:
            return
        try:
            self._tables = self._read_settings().features
        except PetSageError as error:
            if must:
                raise
            _log.error("The settings of features stay as they were read last: %s", error)

    async def _take_up(
        self, differing: Mapping[str, Candidate], gone: Collection[str]
    ) -> list[Change]:
        """Makes current what can be of what differs, without what is gone."""
        seen = {name: key for name, key in self._seen.items() if name in differing or name in gone}
        for name, candidate in differing.items():
            self._seen[name] = self._key(candidate)
            if name not in self._serving:
                self._starting[name] = Entry(name, None, "starting", (), (), system=False)
        for name in gone:
            self._seen.pop(name, None)
        try:
            changes = await self._apply(differing, gone)
        except BaseException:
            # Nothing of it is current: it is to be tried again.
            for name in differing:
                self._seen.pop(name, None)
            self._seen |= {name: key for name, key in seen.items() if name not in self._ahead}
            raise
        finally:
            self._starting.clear()
        if self._only is not None:  # what was read is known only now
            tried = [each.candidate for each in self._serving.values()]
            tried += [each.candidate for each in self._setbacks.values()]
            self._seen = {each.name: self._key(each) for each in tried if each.folder is not None}
        return changes

    async def _apply(
        self, differing: Mapping[str, Candidate], gone: Collection[str]
    ) -> list[Change]:
        """Tries all of it, and less of it each time that something which serves would fail.

        What goes meanwhile is left out, and what was made of it, or beside it, is made anew.
        """
        refused = {name: each for name, each in differing.items() if each.errors}
        tried = {name: each for name, each in differing.items() if not each.errors}
        gone, changing = {*gone}, {*differing, *gone}
        tried |= self._retries(changing)
        tried_again: set[str] = set()
        while True:
            attempt = await self._try(tried, gone)
            lost = self._current.lost(attempt.touched - gone)
            if not attempt.spoilt and not lost:
                before = self._serving
                lost = await self._make_current(attempt, tried, gone)
                if not lost:
                    # What went before this change began may have come back, and be wrong now.
                    went = self._ahead.keys() & self._current.vanished
                    left = [each for name, each in refused.items() if name not in went]
                    return self._note(attempt, left, changing, gone, before, tried=tried)
            if lost:
                await attempt.undo()
                gone |= lost
                changing |= lost
                out = _failed_without(attempt, lost, tried)
                refused = {name: each for name, each in refused.items() if name not in lost}
                tried = {name: tried[name] for name in tried.keys() - lost - out.keys()}
                retries = self._retries(changing)
                tried |= {name: retries[name] for name in retries.keys() - {*refused, *out}}
                mended = _mended(refused, lost)
            else:
                out = self._give_up(attempt, tried, changing)
                # What it was tried with may have failed it: once more, without that.
                mended = _mended(refused, out) - tried_again
                tried_again |= mended
            tried |= {name: refused.pop(name) for name in mended}
            refused |= out

    def _retries(self, changing: Collection[str]) -> dict[str, Candidate]:
        """What failed before and may be mended by this change, or by what that mends."""
        retries: dict[str, Candidate] = {}
        touched = {*changing, *self._current.resting_on(changing)}
        waiting = {name: each for name, each in self._setbacks.items() if name not in changing}
        while mended := {
            name: setback.candidate
            for name, setback in waiting.items()
            if setback.may_be_mended_by(touched)
        }:
            retries |= mended
            touched |= mended.keys()
            waiting = {name: each for name, each in waiting.items() if name not in mended}
        return retries

    async def _try(self, tried: Mapping[str, Candidate], gone: Collection[str]) -> Attempt:
        """Makes what is tried, and restarts what rests on it or on what is gone."""
        assert self._maker is not None  # noqa: S101 - for mypy: the core was started first
        restarted = self._current.resting_on({*tried, *gone}) - tried.keys()
        batch = {name: candidate.again() for name, candidate in tried.items()}
        batch |= {
            name: served.candidate.again()
            for name, served in self._serving.items()
            if name in restarted and name not in gone
        }
        return await self._maker.make(
            batch,
            list(batch) if self._only is None else [*{self._only} & batch.keys()],
            beside={
                name: served
                for name, served in self._serving.items()
                if name not in batch and name not in gone
            },
            aside=self._setbacks.keys() - set(gone),
            # What rests on what is gone cannot go on as it is.
            must_stand=self._serving.keys() - self._current.resting_on(gone) - set(gone),
            tables=self._tables,
        )

    def _give_up(
        self, attempt: Attempt, tried: dict[str, Candidate], changing: Collection[str]
    ) -> dict[str, Candidate]:
        """Takes out of what is tried whatever spoilt an attempt; at least one.

        What failed before, and is tried once more, is taken out ahead of what changes now, and
        what has only failed with what it needs stays in until that is out.
        """
        spoilt = [candidate for candidate in attempt.spoilt if candidate.name in tried]
        before = [candidate for candidate in spoilt if candidate.name not in changing]
        if spoilt:
            failed = before or spoilt
            first = [each for each in failed if {one.id for one in each.errors} != {"need-failed"}]
            refused = {candidate.name: candidate for candidate in first or failed}
            for name in refused:
                del tried[name]
            return refused
        # What is at its last good fails with what is new below it: what it names itself, or else
        # one after another.
        victim = attempt.spoilt[0]
        suspects = [name for name in tried if victim.name in self._current.resting_on([name])]
        if not suspects:
            raise RuntimeError(f"{victim.name} fails, and nothing was changed: {victim.errors[0]}")
        problem = victim.errors[0].problem
        named = (name for name in suspects if re.search(rf"\bfeatures\.{name}\b", problem))
        name = next(named, suspects[0])
        culprit = tried.pop(name).again()
        culprit.add(culprit.argument_place(), _spoils(victim))
        return {name: culprit}

    async def _make_current(
        self, attempt: Attempt, tried: Collection[str], gone: set[str]
    ) -> set[str]:
        """Serves what was made, and not what is gone or fails for that; what of it has gone now."""
        failed = {each.name for each in attempt.failed}  # what is gone took them
        try:
            lost = await self._current.replace(
                attempt.made, gone | failed, touched=attempt.touched - gone
            )
        except BaseException:
            await attempt.undo()
            raise
        if not lost:
            for name in attempt.made.keys() & {*tried}:
                self._setbacks.pop(name, None)
                self._served_keys[name] = self._seen.get(name, ())
        return lost

    def _tell_changed(self) -> None:
        self.changed()  # who is to be told is said later than this is handed on

    def _note(
        self,
        attempt: Attempt,
        refused: list[Candidate],
        changing: Collection[str],
        gone: Collection[str],
        before: Mapping[str, Served],
        *,
        tried: Collection[str] = (),
    ) -> list[Change]:
        """Remembers and logs what became of each feature."""
        changes = []
        for name in gone:
            self._forget(name)
            if name not in self._ahead:
                changes.append(tell_removed(name))
        for served in attempt.made.values():
            step: Step = "added"
            if served.name in before:
                was = hash_of(before[served.name].candidate)
                is_same = served.name not in changing and hash_of(served.candidate) == was
                step = "restarted" if is_same else "changed"
            changes.append(tell_made(served, step, is_start=self.resource.is_starting))
        # What could not go on as it was, for what is gone, is what its folder holds all the same.
        names = {candidate.name for candidate in refused}
        for candidate in [*refused, *(each for each in attempt.failed if each.name not in names)]:
            setback = setback_of(candidate, self._serving)
            former = self._setbacks.get(candidate.name)
            if candidate.name in changing or former is None or former.findings != setback.findings:
                if former is None or candidate.name in {*tried, *names}:
                    self._setbacks[candidate.name] = setback
                goes_on = self._serving.get(candidate.name)
                changes.append(tell_setback(candidate, setback, goes_on))
        for candidate in [*refused, *attempt.failed]:
            candidate.error = None  # its traceback holds on to everything that it passed
        self._tell_changed()
        return changes

    def _draining(self) -> dict[str, tuple[Draining, ...]]:
        """What has not ended, by feature."""
        found: dict[str, tuple[Draining, ...]] = {}
        leaving = [self._serving[name].generation for name in self._current.leaving]
        for each in (*leaving, *self._current.retirement.draining()):
            left = Draining(each.number, each.in_flight)
            found[each.feature] = (*found.get(each.feature, ()), left)
        return found

    def _serving_entry(self, served: Served, draining: tuple[Draining, ...]) -> Entry:
        setback = self._setbacks.get(served.name)
        generation = served.generation
        return replace(
            entry_of(served.candidate),
            state="serving",
            generation=generation.number,
            since=generation.since,
            served=generation.served,
            failed=generation.failed,
            in_flight=generation.in_flight,
            refused=setback.refused if setback is not None else None,
            draining=draining,
        )

    def _require(self, required: Iterable[str]) -> None:
        entries: dict[str, Entry] = {}
        for entry in self.entries():
            entries.setdefault(entry.name, entry)  # the first of two of a name is the one to serve
        for name in required:
            if name not in entries:
                raise StartError(
                    f"[catalog].required names {name!r}, and there is no such feature",
                    fix=did_you_mean(name, [each for each in entries if "." not in each]),
                )
            entry = entries[name]
            if entry.state != "serving":
                raise StartError(
                    f"the required feature {name!r} does not serve: {entry.why or entry.state}",
                    fix=f"mend it, or take {name!r} out of [catalog].required",
                )

    def _compare_settings(self) -> None:
        """Warns of what the settings name and is not there: folders and features."""
        catalog = self._settings.catalog
        names = {path.name for path in find_folders(catalog.folders)}
        self._disabled = [name for name in catalog.disabled if name in names]
        if self._only is not None:
            return
        for folder in catalog.folders:
            if not folder.is_dir():
                _log.warning("There is no folder %s to find features in", folder)
        for finding in find_unmatched(self._settings, names):
            if finding.level == "warning":  # an error ends the start, and says so there
                problem = f"{finding.problem[:1].upper()}{finding.problem[1:]}"
                _log.warning("%s; %s", problem, finding.fix)


def _log_failure(task: "asyncio.Task[list[Change]]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("A change was not taken up; the next one is tried", exc_info=error)


def _failed_without(
    attempt: Attempt, lost: Collection[str], tried: Collection[str]
) -> dict[str, Candidate]:
    """What of what is tried has failed by itself, and not for what is gone meanwhile."""
    below = {*lost}
    while more := {
        name
        for name, each in attempt.found.items()
        if name not in below and not each.rests_on.isdisjoint(below)
    }:
        below |= more
    failed = {each.name: each for each in attempt.failed if each.name in tried}
    return {name: failed[name] for name in failed.keys() - below - _mended(failed, lost)}


def _mended(failed: Mapping[str, Candidate], without: Collection[str]) -> set[str]:
    """What of what has failed may stand where these are left out."""
    return {
        name
        for name, candidate in failed.items()
        if setback_of(candidate, ()).may_be_mended_by(without)
    }


def _spoils(victim: Candidate) -> Flaw:
    """The flaw of a change that what rests on it does not stand."""
    return Flaw(
        "dependent-fails",
        f"with it `{victim.name}`, which needs it, would fail: {victim.errors[0]}",
        f"change both so that `{victim.name}` stands, or undo this change",
    )


CATALOG: Final = web.AppKey("catalog", Catalog)
"""The catalog in the root application, for the core's own features."""
