"""A feature on its way to being served, and what was found wrong with it."""

import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType

from pydantic import BaseModel

from petsage.errors import Finding, Severity, printable
from petsage.feature import CompiledRoute, Feature, Place
from petsage.inspection import Inspection
from petsage.signature import Flaw
from petsage.snapshot import ImportedModules, Snapshot


@dataclass(eq=False)
class Candidate:
    """A feature on its way to being served, and all that was found wrong with it.

    Attributes:
        name: the feature's name, its folder's.
        folder: the folder as it was named, None for a feature of the core.
        feature: what its `__init__.py` says, None where it could not be had.
        routes: its routes, compiled.
        settings: an instance of its settings model, None where it has none.
        findings: all that is wrong, errors and warnings.
        error: what its import or its lifespan raised, for the log.
        snapshot: its bytes, None before they are read and where they cannot be.
        inspection: what its sources show, None before they were looked at.
        codes: the compiled code of its files, where a check has it, by their paths within the
            folder.
        needed: what it needs, as a check found out.
        load_ms: how long it took to check and import, in milliseconds.
        modules: its modules, to be put back when it is no longer served.
        is_checked: whether it was imported elsewhere, and changed nothing of the process.
        is_inspected: whether what the inspection found is among the findings.
    """

    name: str
    folder: Path | None
    feature: Feature | None = None
    routes: list[CompiledRoute] = field(default_factory=list)
    settings: BaseModel | None = None
    findings: list[Finding] = field(default_factory=list)
    error: BaseException | None = None
    snapshot: Snapshot | None = None
    inspection: Inspection | None = None
    codes: dict[str, CodeType] = field(default_factory=dict)
    needed: tuple[str, ...] = ()
    load_ms: float = 0.0
    modules: ImportedModules | None = None
    is_checked: bool = False
    is_inspected: bool = False

    def __post_init__(self) -> None:
        # Now: a feature may change the working directory while it is imported.
        self._root = self.folder.absolute() if self.folder is not None else None

    def again(self) -> "Candidate":
        """The same folder as it was read, to be loaded once more from the same bytes."""
        fresh = Candidate(self.name, self.folder, snapshot=self.snapshot)
        fresh.inspection, fresh.codes = self.inspection, self.codes
        for place, flaw, level in self.snapshot.flaws if self.snapshot is not None else ():
            fresh.add(place, flaw, level=level)
        return fresh

    @property
    def errors(self) -> list[Finding]:
        """The findings that set it aside."""
        return [finding for finding in self.findings if finding.level == "error"]

    @property
    def needs(self) -> tuple[str, ...]:
        """The features that it needs; what is no name at all is left out."""
        named = self.feature.needs if self.feature is not None else ()
        return tuple(name for name in named if isinstance(name, str))

    @property
    def imports(self) -> Mapping[str, Place]:
        """The other features that it imports, each with the first place."""
        return self.inspection.imports if self.inspection is not None else {}

    @property
    def rests_on(self) -> frozenset[str]:
        """The features that it needs or imports, as far as that is known."""
        return frozenset((*self.needs, *self.needed, *self.imports))

    def add(self, place: Place | None, flaw: Flaw, *, level: Severity = "error") -> None:
        """Adds a finding; one without a place is about the `Feature(...)` of `__init__.py`."""
        if place is None or place.file == "?":
            place = self.argument_place()
        file, problem = printable(self.shown(place.file)), printable(flaw.problem)
        finding = Finding(flaw.id, level, file, place.line, problem, printable(flaw.fix))
        self.findings.append(finding)

    def add_to_folder(self, flaw: Flaw, file: Path | None = None) -> None:
        """Adds an error about the folder, or about a file of it, as a whole."""
        path = file if file is not None else self._root
        self.add(Place(str(path), 0), flaw)

    def argument_place(self, argument: str = "") -> Place:
        """Where `Feature(...)` is called in `__init__.py`, or that argument of it is given."""
        if self._root is None:
            return Place(self.name, 0)
        lines = self.inspection.feature_lines if self.inspection is not None else {}
        line = lines.get(argument) or lines.get("")
        if line is None and self.feature is not None and self.feature.place is not None:
            return self.feature.place  # `__init__.py` has it from another module
        return Place(str(self._root / "__init__.py"), line or 1)

    def place_in(self, error: BaseException) -> Place | None:
        """The last line of the feature's own that led to an error."""
        place = None
        for frame, line in traceback.walk_tb(error.__traceback__):
            path = Path(frame.f_code.co_filename)
            if self._root is not None and path.is_relative_to(self._root):
                place = Place(str(path), line)
        return place

    def shown(self, file: str) -> str:
        """A file's path as a person would write it: as the folder of features was named."""
        path = Path(file)
        if self.folder is None or self._root is None or not path.is_relative_to(self._root):
            return file
        return str(self.folder / path.relative_to(self._root))
