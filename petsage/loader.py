"""From folders to checked, imported and ordered features.

Whatever is wrong with a feature becomes findings; nothing that a feature does while it is
imported escapes from here, `sys.exit()` included.
"""

import ast
import graphlib
import keyword
import re
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from petsage.errors import Finding, Severity, did_you_mean
from petsage.feature import CompiledRoute, Feature, Place, compile_feature
from petsage.signature import Flaw
from petsage.snapshot import PACKAGE, ImportedModules, Snapshot, take_snapshot

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_IGNORED: Final = re.compile(r"[._].*")


@dataclass
class Candidate:
    """A feature on its way to being served, and all that was found wrong with it.

    Attributes:
        name: the feature's name, its folder's.
        folder: the folder, None for a feature of the core.
        feature: what its `__init__.py` says, None where it could not be had.
        routes: its routes, compiled.
        settings: an instance of its settings model, None where it has none.
        findings: all that is wrong, errors and warnings.
        error: what its import raised, for the log.
        content_hash: of its snapshot.
        load_ms: how long it took to check and import, in milliseconds.
        modules: its modules, to be put back when it is no longer served.
    """

    name: str
    folder: Path | None
    feature: Feature | None = None
    routes: list[CompiledRoute] = field(default_factory=list)
    settings: BaseModel | None = None
    findings: list[Finding] = field(default_factory=list)
    error: BaseException | None = None
    content_hash: str = ""
    load_ms: float = 0.0
    modules: ImportedModules | None = None
    feature_imports: dict[str, Place] = field(default_factory=dict)

    @property
    def errors(self) -> list[Finding]:
        """The findings that set it aside."""
        return [finding for finding in self.findings if finding.level == "error"]

    def add(self, place: Place | None, flaw: Flaw, *, level: Severity = "error") -> None:
        """Adds a finding; one without a place is about the feature's `__init__.py`."""
        if place is not None and place.line:
            file, line = _shown(place.file, self.folder), place.line
        elif self.folder is not None:
            init = self.folder / "__init__.py"
            file, line = str(init if init.exists() else self.folder), 0
        else:
            file, line = self.name, 0
        self.findings.append(Finding(flaw.id, level, file, line, flaw.problem, flaw.fix))


def load_features(
    folders: Sequence[Path],
    *,
    settings: Mapping[str, Mapping[str, Any]],
    disabled: Iterable[str] = (),
    system: Mapping[str, Feature] | None = None,
    only: str | None = None,
) -> list[Candidate]:
    """Every feature found, checked, imported and put in the order of their needs.

    Args:
        folders: the folders whose packages are features.
        settings: each feature's own settings, by its name.
        disabled: features that are left out; what needs one is told so.
        system: the core's own features, by name; they come first.
        only: loads this feature and those that it needs, and no others.

    Returns:
        All of them, also those with errors; each stands behind what it needs.
    """
    candidates = [from_feature(name, feature) for name, feature in (system or {}).items()]
    left_out = set(disabled)
    found = [path for path in find_folders(folders) if path.name not in left_out]
    wanted = {path.name for path in found} if only is None else {only}
    taken: dict[str, Path] = {}
    while paths := [path for path in found if path.name in wanted]:
        found = [path for path in found if path.name not in wanted]
        for path in paths:
            candidate = load_folder(path, settings.get(path.name, {}))
            candidates.append(candidate)
            if taken.setdefault(path.name, path) is not path:
                candidate.add(None, _duplicate(path.name, taken[path.name].parent))
            if candidate.feature is not None:
                wanted.update(candidate.feature.needs)
    ordered = _in_order(candidates)
    find_clashes(ordered)
    return ordered


def _duplicate(name: str, folder: Path) -> Flaw:
    return Flaw(
        "duplicate-feature",
        f"there is a feature `{name}` in {folder}, too",
        "rename one of the two folders",
    )


def unload(candidates: Iterable[Candidate]) -> None:
    """Takes the candidates' modules out of `sys.modules`, the last loaded first."""
    for candidate in reversed(list(candidates)):
        if candidate.modules is not None:
            candidate.modules.put_back()
            candidate.modules = None


def find_folders(folders: Iterable[Path]) -> Iterator[Path]:
    """The folders that mean to be features: neither hidden nor without any source."""
    for folder in folders:
        if not folder.is_dir():
            continue
        for path in sorted(folder.iterdir()):
            if path.is_dir() and not _IGNORED.fullmatch(path.name) and _has_source(path):
                yield path


def _has_source(path: Path) -> bool:
    """Whether a folder holds any Python; git leaves empty ones behind."""
    return any("__pycache__" not in file.parts for file in path.rglob("*.py"))


def from_feature(name: str, feature: Feature) -> Candidate:
    """A candidate from a feature that is imported already."""
    candidate = Candidate(name, None, feature)
    candidate.routes, flaws = compile_feature(feature, name)
    for place, flaw in flaws:
        candidate.add(place, flaw)
    return candidate


def load_folder(folder: Path, settings: Mapping[str, Any]) -> Candidate:
    """One folder, read, checked and imported; it never raises.

    Args:
        folder: the feature's folder.
        settings: the feature's own settings.
    """
    started = time.perf_counter()
    candidate = Candidate(folder.name, folder)
    if _name_is_right(candidate):
        try:
            snapshot = take_snapshot(folder.name, folder)
        except OSError as error:
            file = _shown(str(error.filename or folder), folder)
            problem = f"{file} cannot be read: {error.strerror}"
            candidate.add(None, Flaw("unreadable", problem, "make it readable to the server"))
        else:
            _load_snapshot(candidate, snapshot, settings)
    candidate.load_ms = (time.perf_counter() - started) * 1000
    return candidate


def _name_is_right(candidate: Candidate) -> bool:
    name = candidate.name
    if _NAME.fullmatch(name) and not keyword.iskeyword(name):
        return True
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    better = plain if _NAME.fullmatch(plain) and not keyword.iskeyword(plain) else "my_feature"
    candidate.add(
        None,
        Flaw(
            "bad-name",
            f"{name!r} cannot be a feature's name: a module is named so",
            f"rename the folder, to `{better}` for example",
        ),
    )
    return False


def _load_snapshot(candidate: Candidate, snapshot: Snapshot, settings: Mapping[str, Any]) -> None:
    candidate.content_hash = snapshot.content_hash
    if "__init__.py" not in snapshot.sources:
        candidate.add(
            None,
            Flaw(
                "no-init",
                f"{snapshot.folder} has no `__init__.py`",
                "add one that ends with `feature = Feature(routes)`",
            ),
        )
        return
    _read_sources(candidate, snapshot)
    if candidate.errors:
        return
    module = _import(candidate, snapshot)
    if module is None:
        return
    feature = getattr(module, "feature", None)
    if not isinstance(feature, Feature):
        what = "no `feature`" if feature is None else f"a `feature` that is {feature!r:.100}"
        candidate.add(
            None,
            Flaw(
                "no-feature",
                f"{snapshot.folder}/__init__.py has {what}",
                "end it with `feature = Feature(routes)`",
            ),
        )
        return
    candidate.feature = feature
    candidate.routes, flaws = compile_feature(feature, candidate.name)
    for place, flaw in flaws:
        candidate.add(place, flaw)
    _find_undeclared_needs(candidate, feature)
    _fill_settings(candidate, feature, settings)


def _read_sources(candidate: Candidate, snapshot: Snapshot) -> None:
    """What can be seen without running anything: syntax, and imports in the wrong place."""
    for within, source in snapshot.sources.items():
        file = str(snapshot.folder / within)
        is_test = within.startswith("tests/")
        try:
            tree = ast.parse(source, file)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            line = getattr(error, "lineno", None) or 1
            reason = getattr(error, "msg", None) or str(error) or type(error).__name__
            candidate.add(
                Place(file, line),
                Flaw("syntax-error", f"{file} is not Python: {reason}", "mend that line"),
                level="warning" if is_test else "error",
            )
            continue
        if not is_test:
            _read_imports(candidate, file, within, tree)


def _read_imports(candidate: Candidate, file: str, within: str, tree: ast.Module) -> None:
    """Notes which features a file imports, and where it imports its own modules too late."""
    own = f"{PACKAGE}.{candidate.name}"
    package = ".".join([own, *within.split("/")[:-1]])
    inner = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        place = Place(file, node.lineno)
        for module in _imported_modules(node, package):
            parts = module.split(".")
            if parts[0] != PACKAGE or len(parts) == 1:
                continue
            if parts[1] != candidate.name:
                candidate.feature_imports.setdefault(parts[1], place)
            elif id(node) in inner:
                candidate.add(
                    place,
                    Flaw(
                        "late-import",
                        f"{module} is imported inside a function, and would be another "
                        "version's after a change",
                        "import it at the top of the file",
                    ),
                    level="warning",
                )


def _imported_modules(node: ast.Import | ast.ImportFrom, package: str) -> list[str]:
    """The modules that an import names, relative ones made absolute from `package`."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    module = node.module or ""
    if node.level:
        parts = package.split(".")
        module = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [node.module])])
    if module == PACKAGE:
        return [f"{PACKAGE}.{alias.name}" for alias in node.names]
    return [module]


def _import(candidate: Candidate, snapshot: Snapshot) -> ModuleType | None:
    candidate.modules = ImportedModules(snapshot)
    try:
        return candidate.modules.load()
    except BaseException as error:  # noqa: BLE001 - SystemExit and the like are a feature's mistake
        candidate.modules = None
        candidate.error = error
        candidate.add(_place_in(error, snapshot), _import_flaw(error, snapshot))
        return None


def _place_in(error: BaseException, snapshot: Snapshot) -> Place:
    """The last line of the feature's own that led to an error."""
    folder = str(snapshot.folder.absolute())
    place = Place(str(snapshot.folder / "__init__.py"), 1)
    for frame, line in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_filename.startswith(folder):
            place = Place(frame.f_code.co_filename, line)
    return place


def _import_flaw(error: BaseException, snapshot: Snapshot) -> Flaw:
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, ModuleNotFoundError) and error.name:
        name = error.name
        if name.startswith(f"{PACKAGE}."):
            known = [file.removesuffix(".py").replace("/", ".") for file in snapshot.sources]
            return Flaw(
                "import-failed",
                f"there is no module {name}",
                did_you_mean(name.removeprefix(f"{snapshot.module}."), known),
            )
        return Flaw(
            "missing-package",
            f"the package `{name}` is not installed",
            f"install it beside PetSage: `pip install {name.partition('.')[0]}`",
        )
    if isinstance(error, SystemExit):
        return Flaw(
            "import-failed",
            f"the import calls sys.exit({error.code!r})",
            "take that call out of the module; raise an error instead",
        )
    return Flaw("import-failed", f"the import raised {said}", "mend that line")


def _find_undeclared_needs(candidate: Candidate, feature: Feature) -> None:
    for name, place in candidate.feature_imports.items():
        if name not in feature.needs:
            candidate.add(
                place,
                Flaw(
                    "undeclared-need",
                    f"it imports from the feature `{name}` and does not need it",
                    f"write `Feature(…, needs=({name!r},))`",
                ),
            )


def _fill_settings(candidate: Candidate, feature: Feature, settings: Mapping[str, Any]) -> None:
    table = f"[{PACKAGE}.{candidate.name}]"
    model: Any = feature.settings
    if model is None:
        if settings:
            candidate.add(
                None,
                Flaw(
                    "bad-settings",
                    f"{table} is set, and the feature takes no settings",
                    "take the table out, or give the Feature a `settings` model",
                ),
                level="warning",
            )
        return
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return  # found already
    try:
        candidate.settings = model.model_validate(dict(settings))
    except ValidationError as error:
        for each in error.errors(include_input=False, include_url=False, include_context=False):
            key = ".".join(str(part) for part in each["loc"])
            fix = f"set `{key}` in {table}, or give it a default in the model"
            if each["type"] == "extra_forbidden":
                fix = did_you_mean(key, list(model.model_fields))
            candidate.add(None, Flaw("bad-settings", f"{table}: `{key}`: {each['msg']}", fix))


def _in_order(candidates: list[Candidate]) -> list[Candidate]:
    """Each behind what it needs; those in a circle, or with needs that are not there, say so."""
    by_name: dict[str, Candidate] = {}
    for candidate in candidates:
        by_name.setdefault(candidate.name, candidate)
    needs: dict[str, set[str]] = {}
    for candidate in by_name.values():
        needs[candidate.name] = set()
        for name in candidate.feature.needs if candidate.feature is not None else ():
            if name in by_name:
                needs[candidate.name].add(name)
            else:
                others = [other for other in by_name if other != candidate.name]
                candidate.add(
                    None,
                    Flaw(
                        "no-such-feature",
                        f"it needs `{name}`, and there is no such feature, or it is disabled",
                        did_you_mean(name, others),
                    ),
                )
    names = _sorted_names(by_name, needs)
    ordered = [by_name[name] for name in names]
    return ordered + [candidate for candidate in candidates if candidate not in ordered]


def _sorted_names(by_name: Mapping[str, Candidate], needs: dict[str, set[str]]) -> list[str]:
    while True:
        try:
            return list(graphlib.TopologicalSorter(needs).static_order())
        except graphlib.CycleError as error:
            # graphlib lists a circle against the direction of the needs.
            circle = list(reversed(error.args[1]))
            for name in set(circle):
                by_name[name].add(
                    None,
                    Flaw(
                        "needs-cycle",
                        f"features need each other in a circle: {' → '.join(circle)}",
                        "take one of these needs out",
                    ),
                )
                needs[name] = set()


def find_clashes(candidates: Iterable[Candidate]) -> None:
    """Finds routes that two features, or one feature twice, have; the later one is at fault."""
    taken: dict[tuple[str, tuple[str | None, ...], bool], tuple[Candidate, CompiledRoute]] = {}
    for candidate in candidates:
        if candidate.errors:
            continue
        for compiled in candidate.routes:
            path = compiled.path
            key = (compiled.route.method, path.segments, path.tail)
            if key not in taken:
                taken[key] = (candidate, compiled)
                continue
            owner, other = taken[key]
            place = other.route.place
            where = f"{_shown(place.file, owner.folder)}:{place.line}"
            candidate.add(
                compiled.route.place,
                Flaw(
                    "route-clash",
                    f"{key[0]} {path.text} is a route of `{owner.name}` already ({where})",
                    "change one of the two paths",
                ),
            )


def _shown(file: str, folder: Path | None) -> str:
    """A file's path as a person would write it: as the folder of features was named."""
    if folder is None:
        return file
    path, base = Path(file), folder.absolute()
    return str(folder / path.relative_to(base)) if path.is_relative_to(base) else file
