"""From folders to checked, imported and ordered features.

Whatever is wrong with a feature becomes findings; nothing that a feature does while it is
imported escapes from here, `sys.exit()` included.

Longer than 300 lines: each step from a folder to a feature, from looking for it to filling its
settings, adds to the same candidate, and they are read in the order in which they are taken.
"""

import errno
import os
import time
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from petsage.candidate import Candidate
from petsage.errors import StartError
from petsage.explanation import import_flaw, said, settings_flaw, without_values
from petsage.feature import Feature, compile_feature
from petsage.inspection import Inspection, inspect_sources, name_flaw
from petsage.listing import is_folder, is_ignored
from petsage.ordering import failed_need, put_in_order, sort_by_needs, unknown_need
from petsage.patches import ExitCallbacks, find_targets
from petsage.shapes import Trust
from petsage.side_effects import ProcessState
from petsage.signature import Flaw
from petsage.snapshot import PACKAGE, ImportedModules, Snapshot, take_snapshot


def load_core(system: Mapping[str, Feature]) -> list[Candidate]:
    """The core's own features, by name, checked and put in the order of their needs."""
    core = [Candidate(name, None, feature) for name, feature in system.items()]
    for candidate, feature in zip(core, system.values(), strict=True):
        _compile(candidate, feature, "own")
    return put_in_order(core, disabled=())


def load_features(
    folders: Sequence[Path],
    *,
    settings: Mapping[str, Mapping[str, Any]],
    disabled: Iterable[str] = (),
    core: Sequence[Candidate] = (),
    only: str | None = None,
    strict: bool = False,
    check: Callable[[Mapping[str, Candidate], Sequence[str]], None] | None = None,
) -> list[Candidate]:
    """Every feature found, checked, imported and put in the order of their needs.

    Args:
        folders: the folders whose packages are features.
        settings: each feature's own settings, by its name.
        disabled: features that are left out; what needs one is told so.
        core: what `load_core` made of the core's own features; they come first.
        only: loads this feature and those that it needs, and no others.
        strict: as in `load_candidates`.
        check: is given what was found, and the names of what is wanted of it, before any of it
            is run; it may add findings, and what the sources show.

    Returns:
        All of them, also those with errors; each stands behind what it needs.

    Raises:
        StartError: one of the folders cannot be read.
    """
    left_out = frozenset(disabled)
    found, others = find_features(folders, disabled=left_out, only=only)
    names = list(found) if only is None else [only]
    if check is not None:
        check(found, names)
    loaded = load_candidates(
        found, names, settings=settings, disabled=left_out, strict=strict, within=folders
    )
    return [*put_in_order([*core, *loaded], disabled=left_out), *others]


def find_features(
    folders: Sequence[Path],
    *,
    disabled: Collection[str] = (),
    names: Collection[str] | None = None,
    only: str | None = None,
) -> tuple[dict[str, Candidate], list[Candidate]]:
    """A candidate for each feature's folder, by name, read unless `only` one is wanted.

    Args:
        folders: the folders whose packages are features.
        disabled: features that are left out.
        names: looks for these alone.
        only: reads nothing yet, and says nothing of others that are there twice.

    Returns:
        The candidates, and those that have the name of one in an earlier folder, with a finding.

    Raises:
        StartError: one of the folders cannot be read.
    """
    found: dict[str, Candidate] = {}
    others = []
    for path in find_folders(folders, names):
        if path.name in disabled:
            continue
        candidate = Candidate(path.name, path)
        first = found.setdefault(path.name, candidate)
        if first is not candidate:
            if first.folder is not None and only in {None, path.name}:
                candidate.add_to_folder(_duplicate(path.name, first.folder.parent))
                others.append(candidate)
        elif only is None:
            started = time.perf_counter()
            read_folder(candidate, folders)
            candidate.load_ms = (time.perf_counter() - started) * 1000
    return found, others


def load_candidates(
    found: Mapping[str, Candidate],
    names: Sequence[str],
    *,
    settings: Mapping[str, Mapping[str, Any]],
    disabled: Collection[str] = (),
    standing: Mapping[str, Candidate] | None = None,
    aside: Container[str] = (),
    begins: Callable[[str], None] | None = None,
    strict: bool = False,
    within: Sequence[Path] = (),
) -> list[Candidate]:
    """Imports features and those that they import or need, each behind those that it imports.

    Args:
        found: what there is to load, by name; a folder that was not read yet is read now.
        names: what is wanted of it.
        settings: each feature's own settings, by its name.
        disabled: features that are left out, to tell those that need one.
        standing: features that are imported already, by name; they stay as they are.
        aside: features that are there, and do not serve.
        begins: is told each name just before the feature is imported.
        strict: whether an import that changes something of the process is an error, and not only
            a warning; for a process that does nothing else meanwhile.
        within: the folders of features, inside of which links are followed.

    Returns:
        Those of `found` that were wanted, also with errors; needs and clashes are not looked at.
    """
    loading = _Loading(
        found, settings, disabled, standing or {}, begins, aside=aside, strict=strict, within=within
    )
    loading.load(names)
    return loading.loaded


def unload(candidates: Iterable[Candidate]) -> None:
    """Takes the candidates' modules out of `sys.modules`, the last loaded first."""
    for candidate in reversed(list(candidates)):
        if candidate.modules is not None:
            candidate.modules.put_back()
            candidate.modules.forget_sources()
            candidate.modules = None


def find_folders(folders: Iterable[Path], names: Collection[str] | None = None) -> Iterator[Path]:
    """The folders that mean to be features: neither hidden nor without any source.

    One that cannot be looked at counts: what is wrong with it is said where it is read.

    Args:
        folders: where they are; one that is named twice counts once.
        names: looks for these alone.

    Raises:
        StartError: one of `folders` cannot be read.
    """
    seen = set()
    for folder in folders:
        try:
            paths = sorted(folder.iterdir()) if is_folder(folder) else []
            real = folder.resolve()
        except OSError as error:
            raise StartError(
                f"the folder of features {folder} cannot be read: {error.strerror}",
                fix="make it readable to the server, or take it out of [catalog].folders",
            ) from None
        if real in seen:
            continue
        seen.add(real)
        for path in paths:
            if is_ignored(path.name) or (names is not None and path.name not in names):
                continue
            try:
                is_meant = is_folder(path) and _has_source(path)
            except OSError:
                is_meant = True  # nobody knows; `read_folder` says what is wrong with it
            if is_meant:
                yield path


def _has_source(path: Path) -> bool:
    """Whether a folder holds any Python; git leaves empty ones behind.

    Raises:
        OSError: a folder in it cannot be read, and none that can be has any.
    """

    def fail(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):  # gone meanwhile
            raise error

    for _, folders, files in os.walk(path, onerror=fail):
        if any(file.endswith(".py") for file in files):
            return True
        folders[:] = [folder for folder in folders if folder != "__pycache__"]
    return False


def _duplicate(name: str, folder: Path) -> Flaw:
    return Flaw(
        "duplicate-feature",
        f"there is a feature `{name}` in {folder}, too",
        "rename one of the two folders",
    )


class _Loading:
    """Reads and imports features, each behind those that it imports from.

    The arguments are those of `load_candidates`.
    """

    def __init__(
        self,
        found: Mapping[str, Candidate],
        settings: Mapping[str, Mapping[str, Any]],
        disabled: Collection[str],
        standing: Mapping[str, Candidate],
        begins: Callable[[str], None] | None,
        *,
        aside: Container[str],
        strict: bool,
        within: Sequence[Path],
    ) -> None:
        self._found = found
        self._settings = settings
        self._disabled = disabled
        self._known: Mapping[str, Candidate] = {**standing, **found}
        self._begins = begins
        self._aside = aside
        self._strict = strict
        self._within = within
        self._before: ProcessState | None = None
        self.loaded: list[Candidate] = []

    def load(self, names: Sequence[str]) -> None:
        """Loads these features and those that they import or need; it never raises."""
        done: set[str] = set()
        while batch := self._read(names, done):
            imports = {each: self._imports(self._found[each]) & {*batch} for each in batch}
            needed: list[str] = []
            for name in sort_by_needs(self._found, imports):
                candidate = self._found[name]
                self._import(candidate)
                self.loaded.append(candidate)
                needed += candidate.needs
            names = needed

    def _read(self, names: Sequence[str], done: set[str]) -> list[str]:
        """Reads what was not read before; the names of these features and of those they import."""
        batch: list[str] = []
        waiting = list(reversed(names))
        while waiting:
            name = waiting.pop()
            if name in done or name not in self._found:
                continue
            done.add(name)
            batch.append(name)
            candidate = self._found[name]
            started = time.perf_counter()
            read_folder(candidate, self._within)
            inspect_candidate(candidate)
            candidate.load_ms += (time.perf_counter() - started) * 1000
            waiting += self._imports(candidate)
        return batch

    def _imports(self, candidate: Candidate) -> set[str]:
        return {name for name in candidate.imports if name in self._found}

    def _import(self, candidate: Candidate) -> None:
        for name, place in candidate.imports.items():
            if name not in self._known:
                others = self._known.keys() - {candidate.name}
                flaw = unknown_need(name, others, self._disabled)
                candidate.add(place, failed_need(name) if name in self._aside else flaw)
            elif self._known[name].errors and not candidate.errors:
                candidate.add(place, failed_need(name))
        if candidate.errors or candidate.snapshot is None:
            return
        if self._begins is not None:
            self._begins(candidate.name)
        started = time.perf_counter()
        # What a check has let pass changes nothing, and what differs is the doing of others.
        looks = self._strict or not candidate.is_checked
        state = (self._before or ProcessState(strict=self._strict)) if looks else None
        if state is not None:
            state.expect(candidate.snapshot)
        else:
            find_targets(candidate.snapshot)  # it notes what stands there, for when it serves
        module = _import_module(candidate, candidate.snapshot, self._known)
        if not candidate.errors:
            _read_feature(candidate, module)
        if candidate.feature is not None:
            _find_undeclared_needs(candidate)
            _compile(candidate, candidate.feature, "checked" if candidate.is_checked else "none")
            _fill_settings(candidate, self._settings.get(candidate.name, {}))
        if state is not None:
            for changed, flaw in state.undo(candidate.snapshot):
                candidate.add(changed, flaw, level="error" if self._strict else "warning")
            # A server does other things between two imports.
            self._before = state.following() if self._strict else None
        candidate.load_ms += (time.perf_counter() - started) * 1000


def read_folder(candidate: Candidate, within: Sequence[Path] = ()) -> None:
    """Takes a folder's snapshot, unless it has been taken; nothing is run.

    Args:
        candidate: gets the snapshot, or what is wrong with the folder.
        within: the folders of features, inside of which links are followed; the folder that holds
            the candidate's where there are none.
    """
    folder = candidate.folder
    if folder is None or candidate.snapshot is not None or candidate.errors:
        return
    flaw = name_flaw(candidate.name)
    if flaw is not None:
        candidate.add_to_folder(flaw)
        return
    try:
        candidate.snapshot = take_snapshot(candidate.name, folder, within)
    except OSError as error:
        file = Path(error.filename or folder)
        problem = f"{file.name} cannot be read: {error.strerror}"
        fix = "make it readable to the server"
        if error.errno == errno.EBUSY:
            fix = "let what writes it come to its end, or write it outside of the feature's folder"
        candidate.add_to_folder(Flaw("unreadable", problem, fix), file)
        return
    for place, flaw, level in candidate.snapshot.flaws:
        candidate.add(place, flaw, level=level)


def inspect_candidate(candidate: Candidate) -> None:
    """Looks at a snapshot's sources, unless that was done or it was refused; nothing is run."""
    snapshot = candidate.snapshot
    if snapshot is None or candidate.is_inspected or candidate.errors:
        return
    candidate.is_inspected = True
    if "__init__.py" not in snapshot.sources:
        problem = f"the folder {snapshot.folder.name} has no `__init__.py`"
        fix = "add one that ends with `feature = Feature(routes)`"
        candidate.add_to_folder(Flaw("no-init", problem, fix))
        return
    use_inspection(candidate, candidate.inspection or inspect_sources(snapshot, candidate.codes))


def use_inspection(candidate: Candidate, inspection: Inspection) -> None:
    """Gives a candidate what its sources show, with the findings of it."""
    candidate.is_inspected = True
    candidate.inspection = inspection
    for place, flaw, level in inspection.flaws:
        candidate.add(place, flaw, level=level)


def _import_module(candidate: Candidate, snapshot: Snapshot, features: Container[str]) -> object:
    """What stands in `sys.modules` after the import; a finding, and None, where it raised."""
    candidate.modules = ImportedModules(snapshot, candidate.codes)
    exits = ExitCallbacks()
    try:
        with exits:
            return candidate.modules.load()
    except BaseException as error:  # noqa: BLE001 - SystemExit and the like are a feature's mistake
        exits.take_back()
        candidate.error = error
        candidate.add(candidate.place_in(error), import_flaw(error, snapshot, features))
        return None


def _read_feature(candidate: Candidate, module: object) -> None:
    # What stands in the module itself: its `__getattr__` is code of the feature's, and may raise.
    feature = vars(module).get("feature") if isinstance(module, ModuleType) else None
    if issubclass(type(feature), Feature):
        candidate.feature = feature
        return
    what = "no `feature`" if feature is None else f"a `feature` that is a {type(feature).__name__}"
    fix = "end it with `feature = Feature(routes)`"
    candidate.add(None, Flaw("no-feature", f"__init__.py has {what}", fix))


def _compile(candidate: Candidate, feature: Feature, trust: Trust) -> None:
    try:
        candidate.routes, flaws = compile_feature(feature, candidate.name, trust=trust)
    except BaseException as error:  # noqa: BLE001 - types of the feature's own take part in it
        candidate.error = error
        problem = f"its routes cannot be compiled: {type(error).__name__}: {said(error)}"
        fix = "mend what it raises; the traceback is in the log"
        candidate.add(candidate.place_in(error), Flaw("compile-failed", problem, fix))
        return
    for place, flaw in flaws:
        candidate.add(place, flaw)


def _find_undeclared_needs(candidate: Candidate) -> None:
    for name, place in candidate.imports.items():
        if name not in candidate.needs:
            problem = f"it imports from the feature `{name}` and does not need it"
            fix = f'write `Feature(…, needs=("{name}",))`'
            candidate.add(place, Flaw("undeclared-need", problem, fix))


class _Quoting(Exception):  # noqa: N818 - named for what it is
    """Stands for an error whose words quote a feature's settings."""

    def __str__(self) -> str:
        return "its words quote the settings, and are left out"


def _fill_settings(candidate: Candidate, settings: Mapping[str, Any]) -> None:
    model: Any = candidate.feature.settings if candidate.feature is not None else None
    place = candidate.argument_place("settings")
    table = f"[{PACKAGE}.{candidate.name}]"
    if model is None:
        if settings:
            problem = f"{table} is set, and the feature takes no settings"
            fix = "take the table out, or give the Feature a `settings` model"
            candidate.add(place, Flaw("bad-settings", problem, fix), level="warning")
        return
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return  # found already
    # A key that a model does not know is a typo, unless the model says otherwise.
    extra: Literal["forbid"] | None = None if "extra" in model.model_config else "forbid"
    try:
        candidate.settings = model.model_validate(dict(settings), extra=extra)
    except ValidationError as error:
        details = error.errors(include_input=False, include_url=False, include_context=False)
        for each in details:
            candidate.add(place, settings_flaw(each, table, model, settings))
    except BaseException as error:  # noqa: BLE001 - validators of the feature's own take part in it
        words = without_values(said(error), settings)
        # The log shows what is raised, too: where that quotes a value, only what led to it.
        candidate.error = (
            error if words == said(error) else _Quoting().with_traceback(error.__traceback__)
        )
        problem = f"{table}: the model raised {type(error).__name__}: {words}"
        flaw = Flaw("bad-settings", problem, "raise ValueError where a value is wrong")
        candidate.add(candidate.place_in(error) or place, flaw)
