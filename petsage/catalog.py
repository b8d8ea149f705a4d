"""The features being served: their states, their start and stop, and the table of their routes."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_origin

from aiohttp import web

from petsage.errors import Finding, StartError, did_you_mean
from petsage.feature import SETTINGS, Feature, place_of
from petsage.loader import Candidate, load_features, unload
from petsage.routing import Mounted, RouteTable, TableResource
from petsage.settings import Settings
from petsage.signature import AppParameter, Flaw

State = Literal["serving", "failed", "disabled"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """A feature as the catalog shows it.

    Attributes:
        state: whether it serves; `disabled` is the operator's wish.
        routes: method and path of each.
        findings: all that is wrong with it; the errors are why it does not serve.
    """

    name: str
    version: str | None
    state: State
    routes: tuple[str, ...]
    findings: tuple[Finding, ...]
    system: bool

    @property
    def why(self) -> str:
        """Why it does not serve, in one line; empty where it does."""
        return next((str(each) for each in self.findings if each.level == "error"), "")


class Catalog:
    """Loads, starts, serves and stops features.

    Args:
        settings: which folders, what is disabled or required, each feature's own settings.
        system: the core's own features, by name.
        values: what `FromApp` arguments get instead of what the applications have.
        only: serves this feature and those that it needs, and no others.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        system: Mapping[str, Feature],
        values: Mapping[web.AppKey[Any], Any] | None = None,
        only: str | None = None,
    ) -> None:
        self.resource = TableResource()
        self._settings = settings
        self._system = dict(system)
        self._values = dict(values or {})
        self._only = only
        self._candidates: list[Candidate] = []
        self._apps: dict[str, web.Application] = {}

    @property
    def table(self) -> RouteTable:
        """The routes being served."""
        return self.resource.table

    def feature(self, name: str) -> Feature:
        """A feature that is being served.

        Raises:
            KeyError: there is none of this name.
        """
        for candidate in self._candidates:
            if candidate.name == name and candidate.name in self._apps and candidate.feature:
                return candidate.feature
        raise KeyError(name)

    def entries(self) -> list[Entry]:
        """Every feature: those that serve, those set aside with their reasons, those disabled."""
        entries = [entry_of(candidate) for candidate in self._candidates]
        disabled = [
            Entry(name, None, "disabled", (), (), system=False)
            for name in self._settings.catalog.disabled
        ]
        return entries + disabled

    async def start(self, core: web.Application) -> None:
        """Loads every feature and starts those that can be; the others are set aside and logged.

        Args:
            core: the root application; `FromApp` looks there last.

        Raises:
            StartError: a feature in `[catalog].required` does not serve.
        """
        catalog = self._settings.catalog
        self._warn_of_tables_without_folder()
        self._candidates = await asyncio.to_thread(
            load_features,
            catalog.folders,
            settings=self._settings.features,
            disabled=catalog.disabled,
            system=self._system,
            only=self._only,
        )
        try:
            for candidate in self._candidates:
                await self._start(candidate, core)
            self._require(catalog.required)
        except BaseException:
            await self.stop()
            raise
        self.resource.table = self._table()
        self._warn_of_lost_settings()

    async def stop(self) -> None:
        """Serves nothing any more, and ends each feature's lifespan, the last started first."""
        self.resource.table = RouteTable()
        for name in reversed(list(self._apps)):
            await self._stop_app(name, self._apps.pop(name))
        await asyncio.to_thread(unload, self._candidates)

    async def _start(self, candidate: Candidate, core: web.Application) -> None:
        self._find_failed_needs(candidate)
        for finding in candidate.findings:
            if finding.level == "warning":
                _log.warning("Feature %s: %s", candidate.name, finding)
        if not candidate.errors and candidate.feature is not None:
            app = await self._start_app(candidate, candidate.feature)
            if app is not None:
                self._apps[candidate.name] = app
                self._bind(candidate, candidate.feature, core)
                if candidate.errors:
                    await self._stop_app(candidate.name, self._apps.pop(candidate.name))
        if candidate.errors:
            for number, finding in enumerate(candidate.errors):
                error = candidate.error if number == 0 else None
                _log.error("Feature %s is set aside: %s", candidate.name, finding, exc_info=error)
        elif candidate.folder is not None:
            _log.info("Feature %s serves %d routes", candidate.name, len(candidate.routes))

    def _find_failed_needs(self, candidate: Candidate) -> None:
        needs = candidate.feature.needs if candidate.feature is not None else ()
        for name in needs:
            known = any(other.name == name for other in self._candidates)
            if known and name not in self._apps and not candidate.errors:
                candidate.add(
                    None,
                    Flaw(
                        "need-failed",
                        f"it needs `{name}`, which was set aside",
                        f"mend `{name}` first",
                    ),
                )

    async def _start_app(self, candidate: Candidate, feature: Feature) -> web.Application | None:
        """The feature's application, its lifespan begun; None, and findings, where it failed."""
        app = web.Application()
        if candidate.settings is not None:
            app[SETTINGS] = candidate.settings
        for key, value in self._values.items():
            app[key] = value
        if feature.lifespan is not None:
            app.cleanup_ctx.append(feature.lifespan)
        limit_s = self._settings.catalog.start_timeout_s
        try:
            app.on_startup.freeze()
            async with asyncio.timeout(limit_s) as limit:
                await app.startup()
            app.freeze()
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and _is_cancelled():
                raise
            await self._stop_app(candidate.name, app)
            candidate.error = error
            timed_out = isinstance(error, TimeoutError) and limit.expired()
            candidate.add(*_lifespan_flaw(feature, error, limit_s if timed_out else None))
            return None
        return app

    def _bind(self, candidate: Candidate, feature: Feature, core: web.Application) -> None:
        """Looks up what `FromApp` arguments ask for: own application, needed ones, the core's."""
        apps = [self._apps[candidate.name], *(self._apps[name] for name in feature.needs), core]
        for compiled in candidate.routes:
            values = {}
            for parameter in compiled.endpoint.signature.apps:
                flaw = _value_flaw(parameter, apps, overridden=parameter.key in self._values)
                if flaw is not None:
                    candidate.add(compiled.route.place, flaw)
                    continue
                values[parameter.argument] = _look_up(parameter, apps)
            compiled.endpoint.use_app_values(values)

    async def _stop_app(self, name: str, app: web.Application) -> None:
        limit_s = self._settings.catalog.start_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                if app.frozen:
                    await app.shutdown()
                await app.cleanup()
        except (Exception, SystemExit, KeyboardInterrupt):  # noqa: BLE001 - logged just below
            _log.exception("Feature %s did not stop cleanly", name)

    def _table(self) -> RouteTable:
        return RouteTable(
            Mounted(candidate.name, self._apps[candidate.name], compiled)
            for candidate in self._candidates
            if candidate.name in self._apps and not candidate.errors
            for compiled in candidate.routes
        )

    def _require(self, required: Iterable[str]) -> None:
        entries = {entry.name: entry for entry in self.entries()}
        for name in required:
            entry = entries.get(name)
            if entry is None:
                raise StartError(
                    f"[catalog].required names {name!r}, and there is no such feature",
                    fix=did_you_mean(name, list(entries)),
                )
            if entry.state != "serving":
                raise StartError(
                    f"the required feature {name!r} does not serve: {entry.why or entry.state}",
                    fix=f"mend it, or take {name!r} out of [catalog].required",
                )

    def _warn_of_tables_without_folder(self) -> None:
        for folder in self._settings.catalog.folders:
            if not folder.is_dir():
                _log.warning("There is no folder %s to find features in", folder)

    def _warn_of_lost_settings(self) -> None:
        names = {candidate.name for candidate in self._candidates}
        names.update(self._settings.catalog.disabled)
        for table in self._settings.features:
            if table not in names:
                _log.warning(
                    "The settings have a table [features.%s], and there is no such feature", table
                )


def entry_of(candidate: Candidate) -> Entry:
    """A candidate as the catalog shows it."""
    return Entry(
        candidate.name,
        candidate.feature.version if candidate.feature is not None else None,
        "failed" if candidate.errors else "serving",
        tuple(f"{each.route.method} {each.path.text}" for each in candidate.routes),
        tuple(candidate.findings),
        system=candidate.folder is None,
    )


def _lifespan_flaw(feature: Feature, error: BaseException, limit_s: float | None) -> Any:
    place = place_of(feature.lifespan)
    if limit_s is not None:
        flaw = Flaw(
            "lifespan-timeout",
            f"the lifespan did not start within {limit_s:g} s",
            "make it `yield` sooner, or raise [catalog].start_timeout_s",
        )
    else:
        flaw = Flaw(
            "lifespan-failed",
            f"the lifespan raised {type(error).__name__}: {error}",
            "mend what it raises; the traceback is in the log",
        )
    return place, flaw


_ABSENT: Final = object()


def _look_up(parameter: AppParameter, apps: list[web.Application]) -> Any:
    for app in apps:
        if parameter.key in app:
            return app[parameter.key]
    return _ABSENT


def _value_flaw(
    parameter: AppParameter, apps: list[web.Application], *, overridden: bool
) -> Flaw | None:
    value = _look_up(parameter, apps)
    if value is _ABSENT:
        return Flaw(
            "no-value",
            f"no application has a value under {parameter.key!r}, which `{parameter.argument}` "
            "asks for",
            "set it in the lifespan, `app[KEY] = …`, or name in `needs` the feature that has it",
        )
    kind = get_origin(parameter.type) or parameter.type
    if overridden or not isinstance(kind, type) or getattr(kind, "_is_protocol", False):
        return None
    if isinstance(value, kind):
        return None
    return Flaw(
        "no-value",
        f"the value under {parameter.key!r} is a {type(value).__name__}, and "
        f"`{parameter.argument}` wants a {kind.__name__}",
        "make the annotation and the value agree",
    )


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


CATALOG: Final = web.AppKey("catalog", Catalog)
"""The catalog in the root application, for the core's own features."""
