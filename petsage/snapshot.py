"""A feature's folder as it was at one moment: hash, check, import and tracebacks use these bytes.

`__pycache__` is never read or written: an edit of the same size within a second would be served
stale from it.
"""

import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import linecache
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Final

PACKAGE: Final = "features"
"""Features are modules below this name, whatever folder they are found in."""

_SKIPPED_FOLDERS: Final = frozenset(("__pycache__", ".git", ".mypy_cache", ".ruff_cache"))


@dataclass(frozen=True)
class Snapshot:
    """One feature's folder, read once.

    Attributes:
        name: the feature's name.
        folder: where it was, as it was named.
        sources: each Python file's bytes, by its path within the folder ("tests/test_a.py").
        content_hash: 64 hex digits over every file's path and bytes.
    """

    name: str
    folder: Path
    sources: dict[str, bytes]
    content_hash: str

    @property
    def module(self) -> str:
        """The feature's module name."""
        return f"{PACKAGE}.{self.name}"

    def file_of(self, module: str) -> str | None:
        """The path within the folder of a module's source, None where it has none."""
        parts = module.removeprefix(self.module).removeprefix(".")
        path = parts.replace(".", "/")
        for candidate in (f"{path}/__init__.py" if path else "__init__.py", f"{path}.py"):
            if candidate in self.sources:
                return candidate
        return None


def take_snapshot(name: str, folder: Path) -> Snapshot:
    """Reads every file of a feature's folder, symlinked folders left out.

    Raises:
        OSError: a file cannot be read.
    """
    sources: dict[str, bytes] = {}
    digest = hashlib.sha256()
    for base, folders, files in os.walk(folder, onerror=_raise):
        folders[:] = sorted(set(folders) - _SKIPPED_FOLDERS)
        for file in sorted(files):
            path = Path(base, file)
            within = path.relative_to(folder).as_posix()
            if file.endswith((".pyc", ".pyo")) or not path.is_file():
                continue
            data = path.read_bytes()
            digest.update(f"{within}\0{len(data)}\0".encode("utf-8", "surrogateescape"))
            digest.update(data)
            if file.endswith(".py"):
                sources[within] = data
    return Snapshot(name, folder, sources, digest.hexdigest())


def _raise(error: OSError) -> None:
    raise error


class _SnapshotLoader(importlib.machinery.SourceFileLoader):
    """Imports from a snapshot's bytes; the stdlib's loader does the rest."""

    def __init__(self, fullname: str, path: str, source: bytes) -> None:
        super().__init__(fullname, path)
        self._source = source

    def get_data(self, path: str) -> bytes:
        """The source as it was when the snapshot was taken; other files from disk."""
        return self._source if path == self.path else super().get_data(path)

    def path_stats(self, path: str) -> dict[str, float]:
        """Refuses: without a file's times there is no `__pycache__`, read or written."""
        raise OSError(f"{path} is imported from a snapshot")


class _SnapshotFinder(importlib.abc.MetaPathFinder):
    """Finds the modules of features in their snapshots, ahead of every path."""

    def __init__(self) -> None:
        self.snapshots: dict[str, Snapshot] = {}

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec of a module in a snapshot, None for every other module.

        Raises:
            ModuleNotFoundError: the feature has a snapshot, and no such module in it.
        """
        if not fullname.startswith(f"{PACKAGE}."):
            return None
        snapshot = self.snapshots.get(fullname.split(".")[1])
        if snapshot is None:
            return None
        within = snapshot.file_of(fullname)
        if within is None:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)
        file = str(snapshot.folder.absolute() / within)
        loader = _SnapshotLoader(fullname, file, snapshot.sources[within])
        is_package = within.endswith("__init__.py")
        spec = importlib.util.spec_from_file_location(
            fullname,
            file,
            loader=loader,
            submodule_search_locations=[str(Path(file).parent)] if is_package else None,
        )
        prime_source(file, snapshot.sources[within])
        return spec


_finder: Final = _SnapshotFinder()


class ImportedModules:
    """A feature's modules in `sys.modules`, and what stood there before.

    Args:
        snapshot: what is imported.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._before_snapshot = _finder.snapshots.get(snapshot.name)
        self._before = _take_modules(snapshot.module)

    def load(self) -> ModuleType:
        """Imports the feature from its snapshot; on failure all is put back as it was.

        Raises:
            BaseException: whatever the feature's code raises, SystemExit too.
        """
        if _finder not in sys.meta_path:
            sys.meta_path.insert(0, _finder)
        if PACKAGE not in sys.modules:
            package = ModuleType(PACKAGE, "Features are modules below this name.")
            package.__path__ = []
            sys.modules[PACKAGE] = package
        _finder.snapshots[self._snapshot.name] = self._snapshot
        try:
            return importlib.import_module(self._snapshot.module)
        except BaseException:
            self.put_back()
            raise

    def put_back(self) -> None:
        """Takes the feature's modules out, and puts in what stood there before."""
        _take_modules(self._snapshot.module)
        parent = sys.modules.get(PACKAGE)
        if self._before_snapshot is None:
            _finder.snapshots.pop(self._snapshot.name, None)
        else:
            _finder.snapshots[self._snapshot.name] = self._before_snapshot
        sys.modules.update(self._before)
        before = self._before.get(self._snapshot.module)
        if parent is not None:
            if before is not None:
                setattr(parent, self._snapshot.name, before)
            elif hasattr(parent, self._snapshot.name):
                delattr(parent, self._snapshot.name)
        self._before = {}


def _take_modules(module: str) -> dict[str, ModuleType]:
    """Takes a module and those below it out of `sys.modules`."""
    names = [name for name in sys.modules if name == module or name.startswith(f"{module}.")]
    return {name: sys.modules.pop(name) for name in names}


def prime_source(file: str, source: bytes) -> None:
    """Gives tracebacks the very source that runs, so that none is read from disk for a log line."""
    text = source.decode(errors="replace")
    # A time of None tells linecache not to look at the file again.
    linecache.cache[file] = (len(source), None, text.splitlines(keepends=True), file)
