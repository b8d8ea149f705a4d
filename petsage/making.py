"""From candidates to features that run, beside what serves: checked, imported and started.

Longer than 300 lines: what comes of an attempt, and how all of it is undone, stands beside what
makes it.
"""

import logging
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Final, Protocol, Union, get_args, get_origin

from aiohttp import web

from petsage.candidate import Candidate
from petsage.check_messages import Checked
from petsage.errors import PetSageError
from petsage.explanation import said
from petsage.feature import FEATURE_NAME, SETTINGS, Feature, place_of
from petsage.generation import RETIRING, Generation
from petsage.leavings import Leavings
from petsage.lifespan import RunningApp
from petsage.loader import load_candidates, unload, use_inspection
from petsage.ordering import find_failed_need, put_in_order
from petsage.patches import FIX, Target, find_targets
from petsage.settings import CatalogSettings
from petsage.shared_database import SHARED_DATABASE
from petsage.signature import AppParameter, Flaw
from petsage.snapshot import Snapshot
from petsage.strays import tell
from petsage.worker import in_thread

_log = logging.getLogger(__name__)

Tables = Mapping[str, Mapping[str, Any]]


class Checker(Protocol):
    """Imports features where it can do no harm."""

    async def check(
        self,
        snapshots: Sequence[tuple[Snapshot, Path]],
        names: Sequence[str],
        *,
        settings: Tables,
        disabled: Collection[str],
        timeout_s: float,
    ) -> Mapping[str, Checked]:
        """What is wrong with each of `names`, which are among the snapshots."""


@dataclass(eq=False)
class Served:
    """A feature that runs.

    Attributes:
        generation: what its requests are counted by.
        running: its application, started.
    """

    candidate: Candidate
    generation: Generation
    running: RunningApp

    @property
    def name(self) -> str:
        """The feature's name."""
        return self.candidate.name

    @property
    def rests_on(self) -> frozenset[str]:
        """The features that it needs or imports."""
        return self.candidate.rests_on


@dataclass(eq=False)
class Attempt:
    """What came of making several features at once.

    Attributes:
        found: all that was to be made, by name.
        made: those that run now, each behind what it needs.
        failed: those with errors.
        spoilt: the failed ones that must not fail; nothing runs where there are any.
        loaded: whatever was imported for it.
    """

    found: Mapping[str, Candidate]
    made: dict[str, Served] = field(default_factory=dict)
    failed: list[Candidate] = field(default_factory=list)
    spoilt: list[Candidate] = field(default_factory=list)
    loaded: list[Candidate] = field(default_factory=list)

    @property
    def touched(self) -> set[str]:
        """What was to be made, and what that rests on, as far as it is known."""
        return {*self.found}.union(*(each.rests_on for each in self.found.values()))

    async def undo(self) -> None:
        """Ends what was started, the last first, and puts back the modules that were before."""
        while self.made:
            _, served = self.made.popitem()
            await served.running.stop()
        await _let_go(self.loaded)
        self.loaded.clear()


class Maker:
    """Makes features run that are found.

    Args:
        settings: what is disabled, and the time limits.
        core: the root application; `FromApp` looks there last.
        values: what `FromApp` arguments get instead of what the applications have, by the key's
            name.
        checker: checks before anything is imported; None where the import alone is the check.

    Attributes:
        is_first: whether nothing serves yet that a feature could disturb: then what cannot be
            checked is imported all the same.
    """

    def __init__(
        self,
        settings: CatalogSettings,
        core: web.Application,
        *,
        values: Mapping[str, Any],
        checker: Checker | None,
    ) -> None:
        self._settings = settings
        self._core = core
        self._values = values
        self._checker = checker
        self.is_first = True

    async def make(
        self,
        found: Mapping[str, Candidate],
        names: Sequence[str],
        *,
        beside: Mapping[str, Served],
        aside: Collection[str],
        must_stand: Collection[str],
        tables: Tables,
    ) -> Attempt:
        """Makes what can be made of `names`; all or nothing of what must stand.

        Args:
            found: the candidates; those of `names` are wanted, and whatever they need.
            names: what is wanted.
            beside: what serves, and stays as it is.
            aside: names of features that are there, and do not serve.
            must_stand: names whose failure spoils the attempt: nothing runs then that did not.
            tables: each feature's own settings, by its name.
        """
        attempt = Attempt(found)
        try:
            await self._check(found, names, beside, tables)
            _judge(attempt, found.values(), must_stand)
            if attempt.spoilt:
                return attempt
            attempt.loaded = list(found.values())  # also where it is cut before it is known
            attempt.loaded = await in_thread(
                self._load, found, names, beside, aside=aside, first=must_stand, tables=tables
            )
            await self._start_all(attempt, attempt.loaded, beside, must_stand)
            if not attempt.spoilt:
                await _let_go([each for each in attempt.loaded if each.errors])
        except BaseException:
            await attempt.undo()
            raise
        if attempt.spoilt:
            await attempt.undo()
        return attempt

    async def start(self, loaded: Sequence[Candidate]) -> Attempt:
        """Starts what is loaded and in order already, beside nothing."""
        attempt = Attempt({candidate.name: candidate for candidate in loaded})
        await self._start_all(attempt, loaded, {}, ())
        return attempt

    async def _start_all(
        self,
        attempt: Attempt,
        loaded: Sequence[Candidate],
        beside: Mapping[str, Served],
        must_stand: Collection[str],
    ) -> None:
        """Starts what stands, one behind another, until one spoils the attempt."""
        _judge(attempt, loaded, must_stand)
        for candidate in loaded:
            if attempt.spoilt:
                return
            await self._start(attempt, candidate, beside)
            _judge(attempt, (candidate,), must_stand)

    async def _check(
        self,
        found: Mapping[str, Candidate],
        names: Sequence[str],
        beside: Mapping[str, Served],
        tables: Tables,
    ) -> None:
        """Checks elsewhere whatever can be read; what is wrong is added to the findings."""
        wanted = {name: found[name] for name in names if not found[name].errors}
        if self._checker is None or not wanted:
            return
        others = await in_thread(_likely_needs, wanted, beside)
        started = time.perf_counter()
        try:
            checked = await self._checker.check(
                [
                    (each.snapshot, each.folder)
                    for each in (*wanted.values(), *others)
                    if each.snapshot is not None and each.folder is not None
                ],
                list(wanted),
                settings=tables,
                disabled=self._settings.disabled,
                timeout_s=self._settings.check_timeout_s,
            )
        except PetSageError as error:
            if not self.is_first:
                raise  # what serves is not to be risked
            _log.warning("Features are imported without a check: %s", error)
            return
        took_ms = (time.perf_counter() - started) * 1000 / len(wanted)
        for name, candidate in wanted.items():
            candidate.load_ms += took_ms
            _use(checked[name], candidate)

    def _load(
        self,
        found: Mapping[str, Candidate],
        names: Sequence[str],
        beside: Mapping[str, Served],
        *,
        aside: Collection[str],
        first: Collection[str],
        tables: Tables,
    ) -> list[Candidate]:
        """Imports what has no errors yet, and puts all of it in the order of its needs."""
        standing = {name: served.candidate for name, served in beside.items()}
        disabled = self._settings.disabled
        loaded = load_candidates(
            found, names, settings=tables, disabled=disabled, standing=standing, aside=aside
        )
        return put_in_order(
            loaded, disabled=disabled, beside=standing.values(), aside=aside, first=first
        )

    async def _start(
        self, attempt: Attempt, candidate: Candidate, beside: Mapping[str, Served]
    ) -> None:
        """Starts one candidate's lifespan; findings, and nothing that runs, where that fails."""
        find_failed_need(candidate, {*beside, *attempt.made})
        if candidate.errors or candidate.feature is None:
            return
        started = time.perf_counter()
        generation = Generation(candidate.name)
        app = web.Application()
        app[RETIRING] = generation.retiring
        app[FEATURE_NAME] = candidate.name
        app[SHARED_DATABASE] = self._core[SHARED_DATABASE]
        if candidate.settings is not None:
            app[SETTINGS] = candidate.settings
        targets: list[Target] = []
        if candidate.feature.lifespan is not None:
            app.cleanup_ctx.append(candidate.feature.lifespan)
            if candidate.snapshot is not None:
                targets = await in_thread(find_targets, candidate.snapshot)
        running = RunningApp(candidate.name, app, self._settings.start_timeout_s)
        error, was_cut = await running.started()
        _put_back(targets, candidate.name)
        if error is not None:
            candidate.error = error
            place = candidate.place_in(error) or place_of(candidate.feature.lifespan)
            limit_s = self._settings.start_timeout_s if was_cut else None
            candidate.add(place, _lifespan_flaw(error, limit_s))
            return
        served = Served(candidate, generation, running)
        try:
            self._bind(served, candidate.feature, {**beside, **attempt.made})
        except BaseException:
            await running.stop()
            raise
        candidate.load_ms += (time.perf_counter() - started) * 1000
        if candidate.errors:
            await running.stop()
        else:
            attempt.made[candidate.name] = served

    def _bind(self, served: Served, feature: Feature, others: Mapping[str, Served]) -> None:
        """Looks up what `FromApp` arguments ask for: own application, needed ones, the core's."""
        needed = [others[name].running.app for name in feature.needs]
        apps = [served.running.app, *needed, self._core]
        for compiled in served.candidate.routes:
            values = {}
            for parameter in compiled.endpoint.signature.apps:
                if repr(parameter.key) in self._values:
                    values[parameter.argument] = self._values[repr(parameter.key)]
                    continue
                value = next((app[parameter.key] for app in apps if parameter.key in app), _ABSENT)
                flaw = _value_flaw(parameter, value)
                if flaw is not None:
                    served.candidate.add(compiled.route.place, flaw)
                values[parameter.argument] = value
            compiled.endpoint.use_app_values(values)


def _use(checked: Checked, candidate: Candidate) -> None:
    """Gives a candidate what its check has found out."""
    candidate.codes, candidate.needed = checked.codes, checked.needs
    candidate.is_checked = True
    if any(finding.level == "error" for finding in checked.findings):
        candidate.inspection, candidate.is_inspected = checked.inspection, True
        candidate.findings[:] = checked.findings
    elif checked.inspection is not None:
        use_inspection(candidate, checked.inspection)


def _judge(
    attempt: Attempt, candidates: Collection[Candidate], must_stand: Collection[str]
) -> None:
    """Notes which candidates have failed, each once."""
    for candidate in candidates:
        if candidate.errors and candidate not in attempt.failed:
            attempt.failed.append(candidate)
            if candidate.name in must_stand:
                attempt.spoilt.append(candidate)


def _put_back(targets: Sequence[Target], name: str) -> None:
    """Puts back at once what a lifespan has broken, and the rest of a change may need."""
    for each in targets:
        if each.is_broken:
            each.put_back()
            changed = f"has changed {each.name} as it started, which was put back"
            where = f"{each.place.file}:{each.place.line}"
            tell(name, f"{changed}; it may be {where}", None, fix=FIX, kind="process-changed")


async def _let_go(loaded: Sequence[Candidate]) -> None:
    """Ends what the code of these has left running, and puts back the modules that were before."""
    await Leavings(loaded).end()
    await in_thread(unload, loaded)


def _likely_needs(wanted: Mapping[str, Candidate], beside: Mapping[str, Served]) -> list[Candidate]:
    """What serves and may be needed by what is to be checked, and all that rests on.

    What is needed shows only when it is imported; what is not even written is not needed.
    """
    sources = [
        source
        for candidate in wanted.values()
        if candidate.snapshot is not None
        for source in candidate.snapshot.sources.values()
    ]
    waiting = [name for name in beside if any(name.encode() in source for source in sources)]
    likely: dict[str, Candidate] = {}
    while waiting:
        name = waiting.pop()
        served = beside.get(name)
        if served is not None and name not in likely and name not in wanted:
            likely[name] = served.candidate
            waiting += served.rests_on
    return list(likely.values())


def _lifespan_flaw(error: BaseException, limit_s: float | None) -> Flaw:
    if limit_s is not None:
        return Flaw(
            "lifespan-timeout",
            f"the lifespan did not start within {limit_s:g} s; it waited here",
            "make it `yield` sooner, or raise [catalog].start_timeout_s",
        )
    return Flaw(
        "lifespan-failed",
        f"the lifespan raised {type(error).__name__}: {said(error)}",
        "mend what it raises; the traceback is in the log",
    )


_ABSENT: Final = object()


def _value_flaw(parameter: AppParameter, value: Any) -> Flaw | None:
    """What is wrong with the value that an argument gets, None where nothing is."""
    if value is _ABSENT:
        return Flaw(
            "no-value",
            f"no application has a value under {parameter.key!r}, which `{parameter.argument}` "
            "asks for",
            "set it in the lifespan, `app[KEY] = …`, or name in `needs` the feature that has it",
        )
    if _may_be(value, parameter.type):
        return None
    wanted = getattr(parameter.type, "__name__", str(parameter.type))
    return Flaw(
        "no-value",
        f"the value under {parameter.key!r} is a {type(value).__name__}, and "
        f"`{parameter.argument}` wants a {wanted}",
        "make the annotation and the value agree",
    )


def _may_be(value: Any, annotation: Any) -> bool:
    """Whether a value is of a type, as far as `isinstance` can say."""
    origin = get_origin(annotation) or annotation
    if origin in {Union, UnionType}:
        return any(_may_be(value, each) for each in get_args(annotation))
    try:
        return isinstance(value, NoneType if origin is None else origin)
    except Exception:  # noqa: BLE001 - Any, a Literal, a Protocol; or a metaclass of the feature's
        return True
