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
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from petsage.candidate import Candidate
from petsage.entry import Change, Draining, Entry, Step, entry_of
from petsage.errors import PetSageError, StartError, did_you_mean, printable
from petsage.feature import Feature
from petsage.generation import Generation
from petsage.health import Check
from petsage.loader import find_features, find_folders, load_core, unload
from petsage.making import Attempt, Checker, Maker, Served
from petsage.metrics import RequestMetrics
from petsage.retirement import Retirement
from petsage.routing import Mounted, RouteTable, TableResource
from petsage.setback import Setback, setback_of
from petsage.settings import Settings
from petsage.signature import Flaw
from petsage.unmatched import find_unmatched
from petsage.worker import in_thread

_log = logging.getLogger(__name__)

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
        generation: the number of changes that were made current, the start among them.
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
        self.resource = TableResource(requests)
        self.changed: Callable[[], None] = lambda: None
        self.generation = 0
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
        self._retirement = Retirement(
            requests, lambda: self._serving, settings.server.drain_s, ended=self._tell_changed
        )
        self._serving: dict[str, Served] = {}  # each behind what it needs
        self._setbacks: dict[str, Setback] = {}
        self._duplicates: list[Setback] = []
        self._seen: dict[str, Key] = {}  # of what was tried last
        self._served_keys: dict[str, Key] = {}  # of what serves, where it was tried for itself
        self._starting: dict[str, Entry] = {}
        self._disabled: list[str] = []
        self._lock = asyncio.Lock()
        self._refreshes: set[asyncio.Task[list[Change]]] = set()
        self._is_closing = False

    @property
    def table(self) -> RouteTable:
        """The routes being served."""
        return self.resource.table

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
        return self._retirement.leaked

    def generations(self) -> list[Generation]:
        """All that have, or may get, requests in hand; not to be kept."""
        current = [served.generation for served in self._serving.values()]
        return [*current, *self._retirement.draining()]

    def entries(self) -> list[Entry]:
        """Every feature: those that serve, those set aside with their reasons, those disabled."""
        draining = self._draining()
        entries = [
            self._serving_entry(served, draining.get(name, ()))
            for name, served in self._serving.items()
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
            if served.candidate.feature is not None
            for check in served.candidate.feature.checks
        ]

    def why_absent(self, name: str) -> str | None:
        """Why a feature does not serve; None where it does."""
        if name in self._serving:
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
        self.generation = 1
        self.resource.is_starting = True
        attempt = await self._maker.start(loaded, number=self.generation)
        await self._make_current(attempt, [], (), self._system, ())

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

        One goes on at a time; whoever waits for it may go away without cutting it.
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
        self.resource.table = RouteTable()
        await self._retirement.stop()
        stopped = [served.candidate for served in self._serving.values()]
        while self._serving:
            _, served = self._serving.popitem()
            await served.running.stop()
        await in_thread(unload, stopped)

    async def _refresh(self, names: Collection[str] | None, *, again: bool) -> list[Change]:
        async with self._lock:
            started = time.perf_counter()
            await in_thread(self._read_tables, must=again)
            found, duplicates = await in_thread(self._find, names)
            changes = self._note_duplicates(duplicates, names)
            for name in self._setbacks.keys() & found.keys() if again else ():
                self._seen[name] = ()
            asked = self._seen.keys() if names is None else self._seen.keys() & set(names)
            gone = {name for name in asked if name not in found}
            differing = {
                name: candidate
                for name, candidate in found.items()
                if self._key(candidate) != self._seen.get(name)
            }
            for name in [name for name in differing if self._is_what_serves(differing[name])]:
                self._note_restored(differing.pop(name))
            if differing or gone:
                changes += await self._take_up(differing, gone)
            elif not changes:
                return []
            self.changes.update(change.step for change in changes)
            self.change_seconds += time.perf_counter() - started
            return changes

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
                changes.append(self._change(candidate, "failed"))
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
        seen = dict(self._seen)
        for name, candidate in differing.items():
            self._seen[name] = self._key(candidate)
            if name not in self._serving:
                self._starting[name] = Entry(name, None, "starting", (), (), system=False)
        for name in gone:
            del self._seen[name]
        try:
            changes = await self._apply(differing, gone)
        except BaseException:
            self._seen = seen  # nothing of it is current: it is to be tried again
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
        """Tries all of it, and less of it each time that something which serves would fail."""
        refused = {name: each for name, each in differing.items() if each.errors}
        tried = {name: each for name, each in differing.items() if not each.errors}
        changing = {*differing, *gone}
        tried |= self._retries(changing)
        while True:
            attempt = await self._try(tried, gone)
            if not attempt.spoilt:
                break
            refused |= self._give_up(attempt, tried, changing)
        return await self._make_current(attempt, [*refused.values()], tried, changing, gone)

    def _retries(self, changing: Collection[str]) -> dict[str, Candidate]:
        """What failed before and may be mended by this change, or by what that mends."""
        retries: dict[str, Candidate] = {}
        touched = {*changing, *self._resting_on(changing)}
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
        restarted = self._resting_on({*tried, *gone}) - tried.keys()
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
            must_stand=self._serving.keys() - self._resting_on(gone) - set(gone),
            tables=self._tables,
            number=self.generation if self.resource.is_starting else self.generation + 1,
        )

    def _resting_on(self, names: Collection[str]) -> set[str]:
        """What serves and rests on one of these, directly or not."""
        found: set[str] = set()
        for name, served in self._serving.items():  # each behind what it needs
            if not served.rests_on.isdisjoint({*names, *found}):
                found.add(name)
        return found

    def _give_up(
        self, attempt: Attempt, tried: dict[str, Candidate], changing: Collection[str]
    ) -> dict[str, Candidate]:
        """Takes out of what is tried whatever spoilt an attempt; at least one.

        What failed before, and is tried once more, is taken out ahead of what changes now.
        """
        spoilt = [candidate for candidate in attempt.spoilt if candidate.name in tried]
        before = [candidate for candidate in spoilt if candidate.name not in changing]
        if spoilt:
            refused = {candidate.name: candidate for candidate in before or spoilt}
            for name in refused:
                del tried[name]
            return refused
        # What is at its last good fails with what is new below it: what it names itself, or else
        # one after another.
        victim = attempt.spoilt[0]
        suspects = [name for name in tried if victim.name in self._resting_on([name])]
        if not suspects:
            raise RuntimeError(f"{victim.name} fails, and nothing was changed: {victim.errors[0]}")
        problem = victim.errors[0].problem
        named = (name for name in suspects if re.search(rf"\bfeatures\.{name}\b", problem))
        name = next(named, suspects[0])
        culprit = tried.pop(name).again()
        culprit.add(culprit.argument_place(), _spoils(victim))
        return {name: culprit}

    async def _make_current(
        self,
        attempt: Attempt,
        refused: list[Candidate],
        tried: Collection[str],
        changing: Collection[str],
        gone: Collection[str],
    ) -> list[Change]:
        """Serves what was made, in one assignment, and retires what it takes the place of."""
        before = self._serving
        failed = [each for each in attempt.failed if each.name in before]  # what is gone took them
        left_out = {*attempt.made, *gone, *(each.name for each in failed)}
        after = {name: served for name, served in before.items() if name not in left_out}
        after |= attempt.made
        retired = [served for name, served in before.items() if name in left_out]
        if attempt.made or retired:
            try:
                table = await in_thread(_table_of, after)
            except BaseException:
                await attempt.undo()
                raise
            now = datetime.now(UTC)
            for served in attempt.made.values():
                served.generation.since = now
            self._serving = after
            self.resource.table = table
            if not self.resource.is_starting:
                self.generation += 1
        for name in (*gone, *(name for name in attempt.made if name in tried)):
            self._setbacks.pop(name, None)
            self._served_keys[name] = self._seen.get(name, ())
        for name in gone:
            del self._served_keys[name]
        changes = self._note(attempt, refused, changing, gone, before)
        self._retirement.begin(retired, attempt.made)
        self._tell_changed()
        return changes

    def _tell_changed(self) -> None:
        self.changed()  # who is to be told is said later than this is handed on

    def _note(
        self,
        attempt: Attempt,
        refused: list[Candidate],
        changing: Collection[str],
        gone: Collection[str],
        before: Mapping[str, Served],
    ) -> list[Change]:
        """Remembers and logs what became of each feature."""
        changes = []
        for name in gone:
            _log.info("Feature %s was removed", printable(name))
            changes.append(Change(name, "removed", None, None))
        for served in attempt.made.values():
            step: Step = "added"
            if served.name in before:
                was = _hash_of(before[served.name].candidate)
                is_same = served.name not in changing and _hash_of(served.candidate) == was
                step = "restarted" if is_same else "changed"
            self._log_made(served, step)
            changes.append(self._change(served.candidate, step))
        for candidate in [*refused, *attempt.failed]:
            setback = setback_of(candidate, self._serving)
            former = self._setbacks.get(candidate.name)
            if candidate.name in changing or former is None or former.findings != setback.findings:
                self._setbacks[candidate.name] = setback
                self._log_setback(candidate)
                step = "failed" if setback.entry.state == "failed" else "waiting"
                step = "refused" if candidate.name in self._serving else step
                changes.append(self._change(candidate, step))
            candidate.error = None  # its traceback holds on to everything that it passed
        return changes

    def _change(self, candidate: Candidate, step: Step) -> Change:
        served = self._serving.get(candidate.name)
        number = served.generation.number if served is not None else None
        findings = tuple(candidate.findings)
        return Change(candidate.name, step, number, _hash_of(candidate), findings)

    def _log_setback(self, candidate: Candidate) -> None:
        goes_on = self._serving.get(candidate.name)
        for number, finding in enumerate(candidate.errors):
            error = candidate.error if number == 0 else None
            if goes_on is None:
                name = printable(candidate.name)
                _log.error("Feature %s is set aside: %s", name, finding, exc_info=error)
            else:
                _log.error(
                    "Feature %s goes on with generation %d; what its folder holds is refused: %s",
                    candidate.name,
                    goes_on.generation.number,
                    finding,
                    exc_info=error,
                )

    def _log_made(self, served: Served, step: Step) -> None:
        candidate = served.candidate
        for finding in candidate.findings:
            _log.warning("Feature %s: %s", candidate.name, finding)
        if candidate.folder is None:
            return
        if self.resource.is_starting:
            _log.info("Feature %s serves %d routes", candidate.name, len(candidate.routes))
            return
        _log.info(
            "Feature %s was %s: generation %d serves %d routes",
            candidate.name,
            step,
            served.generation.number,
            len(candidate.routes),
            extra={"load_ms": round(candidate.load_ms, 1), "content_hash": _hash_of(candidate)},
        )

    def _draining(self) -> dict[str, tuple[Draining, ...]]:
        """What has not ended, by feature."""
        found: dict[str, tuple[Draining, ...]] = {}
        for each in self._retirement.draining():
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


def _table_of(serving: Mapping[str, Served]) -> RouteTable:
    return RouteTable(
        Mounted(served.name, served.running.app, compiled, served.generation)
        for served in serving.values()
        for compiled in served.candidate.routes
    )


def _spoils(victim: Candidate) -> Flaw:
    """The flaw of a change that what rests on it does not stand."""
    return Flaw(
        "dependent-fails",
        f"with it `{victim.name}`, which needs it, would fail: {victim.errors[0]}",
        f"change both so that `{victim.name}` stands, or undo this change",
    )


def _hash_of(candidate: Candidate) -> str | None:
    return candidate.snapshot.content_hash if candidate.snapshot is not None else None


CATALOG: Final = web.AppKey("catalog", Catalog)
"""The catalog in the root application, for the core's own features."""
