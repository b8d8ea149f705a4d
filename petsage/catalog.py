"""The features being served: their states, their start and stop, and the table of their routes.

Longer than 300 lines: what holds the features answers what is asked about them, too.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from types import NoneType, UnionType
from typing import Any, Final, Union, get_args, get_origin

from aiohttp import web

from petsage.candidate import Candidate
from petsage.entry import Entry, entry_of
from petsage.errors import StartError, did_you_mean
from petsage.explanation import said
from petsage.feature import SETTINGS, Feature, place_of
from petsage.health import Check
from petsage.lifespan import RunningApp
from petsage.loader import find_folders, load_core, load_features, unload
from petsage.metrics import RequestMetrics
from petsage.ordering import find_failed_need
from petsage.routing import Mounted, RouteTable, TableResource
from petsage.settings import Settings
from petsage.signature import AppParameter, Flaw
from petsage.unmatched import find_unmatched

_log = logging.getLogger(__name__)


class Catalog:
    """Loads, starts, serves and stops features.

    Args:
        settings: which folders, what is disabled or required, each feature's own settings.
        system: the core's own features, by name.
        requests: where requests in hand are counted.
        values: what `FromApp` arguments get instead of what the applications have. A key counts
            as the one of the same name: a test's import of a feature makes keys of its own.
        only: serves this feature and those that it needs, and no others; what the settings say
            of the rest is not looked at.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        system: Mapping[str, Feature],
        requests: RequestMetrics,
        values: Mapping[web.AppKey[Any], Any] | None = None,
        only: str | None = None,
    ) -> None:
        self.resource = TableResource(requests)
        self._settings = settings
        self._system = dict(system)
        self._values = {repr(key): value for key, value in (values or {}).items()}
        self._only = only
        self._candidates: list[Candidate] = []
        self._running: dict[str, RunningApp] = {}
        self._disabled: list[str] = []

    @property
    def table(self) -> RouteTable:
        """The routes being served."""
        return self.resource.table

    @property
    def required(self) -> frozenset[str]:
        """The features that have to serve, as the settings name them."""
        return frozenset(self._settings.catalog.required)

    def entries(self) -> list[Entry]:
        """Every feature: those that serve, those set aside with their reasons, those disabled."""
        entries = [entry_of(candidate) for candidate in self._candidates]
        disabled = [Entry(name, None, "disabled", (), (), system=False) for name in self._disabled]
        return entries + disabled

    def checks(self) -> list[tuple[str, Check, web.Application]]:
        """Each check of what serves, with its feature's name and application; not to be kept."""
        return [
            (each.name, check, self._running[each.name].app)
            for each in self._candidates
            if each.name in self._running and each.feature is not None and not each.errors
            for check in each.feature.checks
        ]

    def why_absent(self, name: str) -> str | None:
        """Why a feature does not serve; None where it does."""
        if name in self._running:
            return None
        if self.resource.is_starting or not self._candidates:
            return "it is not loaded yet"
        entry = next((each for each in self.entries() if each.name == name), None)
        if entry is None:
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
            await self.start_folders(core)
        except BaseException:
            await self.stop()
            raise

    async def start_core(self, core: web.Application) -> None:
        """Starts the core's own features and serves them; other paths are told to come again."""
        self._candidates = await asyncio.to_thread(load_core, self._system)
        for candidate in self._candidates:
            await self._start(candidate, core)
        self.resource.is_starting = True
        self.resource.table = self._table()

    async def start_folders(self, core: web.Application) -> None:
        """Loads the features in folders and starts those that can be, then serves all of them.

        The others are set aside and logged. What has been started when this fails runs on until
        `stop`: the core's own features are still asked.

        Raises:
            StartError: as `start`.
        """
        catalog = self._settings.catalog
        await asyncio.to_thread(self._compare_settings)
        self._candidates = await asyncio.to_thread(
            load_features,
            catalog.folders,
            settings=self._settings.features,
            disabled=catalog.disabled,
            core=self._candidates,
            only=self._only,
        )
        for candidate in self._candidates:
            if candidate.folder is not None:
                await self._start(candidate, core)
        if self._only is None:
            self._require(catalog.required)
        self.resource.table = self._table()
        self.resource.is_starting = False

    async def stop(self) -> None:
        """Serves nothing any more, and ends each feature's lifespan, the last started first."""
        self.resource.table = RouteTable()
        while self._running:
            _, running = self._running.popitem()
            await running.stop()
        await asyncio.to_thread(unload, self._candidates)

    async def _start(self, candidate: Candidate, core: web.Application) -> None:
        find_failed_need(candidate, self._running)
        for finding in candidate.findings:
            if finding.level == "warning":
                _log.warning("Feature %s: %s", candidate.name, finding)
        if not candidate.errors and candidate.feature is not None:
            await self._start_app(candidate, candidate.feature, core)
        if candidate.errors:
            for number, finding in enumerate(candidate.errors):
                error = candidate.error if number == 0 else None
                _log.error("Feature %s is set aside: %s", candidate.name, finding, exc_info=error)
            candidate.error = None  # its traceback holds on to everything that it passed
        elif candidate.folder is not None:
            _log.info("Feature %s serves %d routes", candidate.name, len(candidate.routes))

    async def _start_app(
        self, candidate: Candidate, feature: Feature, core: web.Application
    ) -> None:
        """Begins the feature's lifespan; findings, and nothing that runs, where that fails."""
        app = web.Application()
        if candidate.settings is not None:
            app[SETTINGS] = candidate.settings
        if feature.lifespan is not None:
            app.cleanup_ctx.append(feature.lifespan)
        limit_s = self._settings.catalog.start_timeout_s
        running = RunningApp(candidate.name, app, limit_s)
        error, was_cut = await running.started()
        if error is not None:
            candidate.error = error
            place = candidate.place_in(error) or place_of(feature.lifespan)
            candidate.add(place, _lifespan_flaw(error, limit_s if was_cut else None))
            return
        self._running[candidate.name] = running
        self._bind(candidate, feature, core)
        if candidate.errors:
            await self._running.pop(candidate.name).stop()

    def _bind(self, candidate: Candidate, feature: Feature, core: web.Application) -> None:
        """Looks up what `FromApp` arguments ask for: own application, needed ones, the core's."""
        names = (candidate.name, *feature.needs)
        apps = [*(self._running[name].app for name in names), core]
        for compiled in candidate.routes:
            values = {}
            for parameter in compiled.endpoint.signature.apps:
                if repr(parameter.key) in self._values:
                    values[parameter.argument] = self._values[repr(parameter.key)]
                    continue
                value = next((app[parameter.key] for app in apps if parameter.key in app), _ABSENT)
                flaw = _value_flaw(parameter, value)
                if flaw is not None:
                    candidate.add(compiled.route.place, flaw)
                values[parameter.argument] = value
            compiled.endpoint.use_app_values(values)

    def _table(self) -> RouteTable:
        return RouteTable(
            Mounted(candidate.name, self._running[candidate.name].app, compiled)
            for candidate in self._candidates
            if candidate.name in self._running and not candidate.errors
            for compiled in candidate.routes
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
    except TypeError:  # Any, a Protocol, a TypedDict, a Literal
        return True


CATALOG: Final = web.AppKey("catalog", Catalog)
"""The catalog in the root application, for the core's own features."""
