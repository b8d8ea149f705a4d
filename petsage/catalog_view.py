"""What is asked of the features being served; it changes nothing."""

from collections.abc import Mapping
from pathlib import Path

from aiohttp import web

from petsage.current import Current
from petsage.entry import Draining, Entry, entry_of
from petsage.errors import StartError, did_you_mean
from petsage.folder_reader import FolderReader
from petsage.generation import Generation
from petsage.health import Check
from petsage.ledger import Ledger
from petsage.making import Served
from petsage.routing import RouteTable, TableResource
from petsage.settings import Settings
from petsage.snapshot import Snapshot
from petsage.troubles import TROUBLES


class CatalogView:
    """Shows every feature: what serves, and why the others do not.

    Args:
        settings: which folders, what is disabled or required.
        current: what serves.
        ledger: what became of the others.
        reader: what the folders hold.
    """

    def __init__(
        self, settings: Settings, current: Current, ledger: Ledger, reader: FolderReader
    ) -> None:
        self._settings = settings
        self._current = current
        self._ledger = ledger
        self._reader = reader

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
        serving, ledger = self._serving, self._ledger
        draining = self._draining()
        entries = [
            self._serving_entry(served, draining.get(name, ()))
            for name, served in serving.items()
            if name not in self._current.leaving
        ]
        shown = {entry.name for entry in entries}
        aside = (setback.entry for name, setback in ledger.setbacks.items() if name not in serving)
        ending = (Entry(name, None, "draining", (), (), system=False) for name in draining)
        for entry in (*aside, *ledger.starting.values(), *ending):
            if entry.name not in shown:
                entries.append(entry._replace(draining=draining.get(entry.name, ())))
                shown.add(entry.name)
        entries += [setback.entry for setback in ledger.duplicates]
        disabled = self._reader.disabled
        return entries + [Entry(each, None, "disabled", (), (), system=False) for each in disabled]

    def checks(self) -> list[tuple[str, Check, web.Application]]:
        """Each check of what serves, with its feature's name and application; not to be kept."""
        return [
            (served.name, check, served.running.app)
            for served in self._serving.values()
            if served.candidate.feature is not None and served.name not in self._current.leaving
            for check in served.candidate.feature.checks
        ]

    def snapshots(self) -> list[Snapshot]:
        """The sources of the features that serve; not to be kept."""
        found = (served.candidate.snapshot for served in self._serving.values())
        return [each for each in found if each is not None]

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

    @property
    def _serving(self) -> Mapping[str, Served]:
        return self._current.serving

    def _draining(self) -> dict[str, tuple[Draining, ...]]:
        """What has not ended, by feature."""
        found: dict[str, tuple[Draining, ...]] = {}
        leaving = [self._serving[name].generation for name in self._current.leaving]
        for each in (*leaving, *self._current.retirement.draining()):
            left = Draining(each.number, each.in_flight)
            found[each.feature] = (*found.get(each.feature, ()), left)
        return found

    def _serving_entry(self, served: Served, draining: tuple[Draining, ...]) -> Entry:
        setback = self._ledger.setbacks.get(served.name)
        generation = served.generation
        return entry_of(served.candidate)._replace(
            state="serving",
            generation=generation.number,
            since=generation.since,
            served=generation.served,
            failed=generation.failed,
            in_flight=generation.in_flight,
            refused=setback.refused if setback is not None else None,
            draining=draining,
            troubles=TROUBLES.of(served.name),
        )

    def _require_serving(self) -> None:
        """Sees that what has to serve does.

        Raises:
            StartError: a feature in `[catalog].required` does not serve.
        """
        entries: dict[str, Entry] = {}
        for entry in self.entries():
            entries.setdefault(entry.name, entry)  # the first of two of a name is the one to serve
        for name in self._settings.catalog.required:
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
