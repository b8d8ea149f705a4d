"""A feature's folder as it was at one moment: hash, check, import and tracebacks use these bytes.

`__pycache__` is never read or written: an edit of the same size within a second would be served
stale from it.

Longer than 300 lines: what reads the bytes, and what sees to it that no others are run, is one
promise.
"""

import errno
import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import linecache
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import CodeType, ModuleType
from typing import Final, NamedTuple

from petsage.client_side import import_client_for
from petsage.listing import ChangedError, Listing, PlacedFlaw, list_folder, read_files
from petsage.ownership import find_unsafe

PACKAGE: Final = "features"
"""Features are modules below this name, whatever folder they are found in."""

# A folder that differs between this many looks in a row is being written to.
_LOOKS: Final = 5


class Snapshot(NamedTuple):
    """One feature's folder, read once.

    Attributes:
        name: the feature's name.
        folder: where it was, absolute.
        sources: each Python file's bytes, by its path within the folder ("tests/test_a.py").
        content_hash: 64 hex digits over each file's path and bytes, and over the errors in
            `flaws`; the README and the tests are left out, since a server runs neither.
        flaws: what keeps it from being served, or may do so, each with its place and level.
    """

    name: str
    folder: Path
    sources: dict[str, bytes]
    content_hash: str
    flaws: tuple[PlacedFlaw, ...] = ()

    @property
    def module(self) -> str:
        """The feature's module name."""
        return f"{PACKAGE}.{self.name}"

    def file_of(self, module: str) -> str | None:
        """The path within the folder of a module's source, None where it has none."""
        path = self._path_of(module)
        for candidate in (f"{path}/__init__.py" if path else "__init__.py", f"{path}.py"):
            if candidate in self.sources:
                return candidate
        return None

    def folder_of(self, module: str) -> str | None:
        """The path of a folder that holds sources and no `__init__.py`, None where it is none."""
        path = self._path_of(module)
        return path if any(file.startswith(f"{path}/") for file in self.sources) else None

    def modules(self) -> list[str]:
        """The names of its modules within the feature, tests left out: "routes", "sub.models"."""
        files = [file for file in self.sources if not is_test(file)]
        names = [file.removesuffix(".py").removesuffix("/__init__") for file in files]
        return [name.replace("/", ".") for name in names if name != "__init__"]

    def _path_of(self, module: str) -> str:
        return module.removeprefix(self.module).removeprefix(".").replace(".", "/")


def is_test(within: str) -> bool:
    """Whether a path within a feature's folder is of its tests, which the server never runs."""
    return within.startswith("tests/")


def take_snapshot(name: str, folder: Path, within: Sequence[Path] = ()) -> Snapshot:
    """A feature's folder as it was at one moment.

    What it promises: every file that it holds, and no other that counts, was there with these very
    bytes at the same time. The folder is listed, read, and listed again, and begun anew where
    something was added, taken away or written meanwhile. Whether what was there is complete, no
    look can say: a copy that pauses half-way is a folder like any other. For that, a folder is
    taken up only after it has been quiet, and once more when it changes again.

    What is not to be read is in `flaws`: a link that leads out of the folders of features, more
    than a feature may hold (then nothing was read), what a stranger may write.

    Args:
        name: the feature's name.
        folder: where it is.
        within: the folders of features, inside of which links are followed; the folder that holds
            this one where there are none.

    Raises:
        OSError: a file cannot be read, or changes all the time; its `filename` says which.
    """
    named, folder = folder, folder.absolute()
    roots = {os.path.realpath(each): each for each in within or (named.parent,)}
    changing = folder
    for _ in range(_LOOKS):
        try:
            listing = list_folder(folder, list(roots))
            data = {} if _is_too_large(listing) else read_files(folder, listing)
            again = list_folder(folder, list(roots))
            unsafe = find_unsafe(named, again, roots)
        except (FileNotFoundError, NotADirectoryError, ChangedError) as error:
            if not folder.is_dir():
                raise
            changing = Path(error.filename or folder)
            continue
        changed = listing.looks().items() ^ again.looks().items()
        if not changed:
            return _snapshot(name, folder, data, (*again.flaws, *unsafe))
        changing = folder / min(changed)[0]
    raise OSError(errno.EBUSY, "it changes while it is read", str(changing))


def _snapshot(
    name: str, folder: Path, data: Mapping[str, bytes], flaws: tuple[PlacedFlaw, ...]
) -> Snapshot:
    digest = hashlib.sha256()
    for within, content in data.items():
        if within != "README.md" and not is_test(within):
            digest.update(f"{within}\0{len(content)}\0".encode("utf-8", "surrogateescape"))
            digest.update(content)
    for place, flaw, level in flaws:
        # A folder whose mode was mended is another one, though its bytes are the same.
        if level == "error":
            digest.update(f"\0{flaw.id}\0{place.file}\0".encode("utf-8", "surrogateescape"))
    sources = {within: data[within] for within in data if within.endswith(".py")}
    return Snapshot(name, folder, sources, digest.hexdigest(), flaws)


def _is_too_large(listing: Listing) -> bool:
    return any(flaw.id == "too-large" for _, flaw, _ in listing.flaws)


class _SnapshotLoader(importlib.machinery.SourceFileLoader):
    """Imports from a snapshot's bytes; the stdlib's loader does the rest.

    Args:
        code: what the bytes were compiled to already, None where they were not.
    """

    def __init__(self, fullname: str, path: str, source: bytes, code: CodeType | None) -> None:
        super().__init__(fullname, path)
        self._source = source
        self._code = code

    def get_code(self, fullname: str) -> CodeType | None:
        """The code of the source as it was when the snapshot was taken."""
        return self._code if self._code is not None else super().get_code(fullname)

    def get_data(self, path: str) -> bytes:
        """The source as it was when the snapshot was taken; other files from disk."""
        return self._source if path == self.path else super().get_data(path)

    def path_stats(self, path: str) -> dict[str, float]:
        """Refuses: without a file's times there is no `__pycache__`, read or written."""
        raise OSError(f"{path} is imported from a snapshot")


class _SnapshotFinder(importlib.abc.MetaPathFinder):
    """Finds the modules of features in their snapshots, ahead of every path."""

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
        generations = _generations.get(fullname.split(".")[1])
        if not generations:
            return None
        snapshot, codes = generations[-1].snapshot, generations[-1].codes
        within = snapshot.file_of(fullname)
        if within is None:
            return _folder_spec(fullname, snapshot)
        file = str(snapshot.folder / within)
        is_package = within.endswith("__init__.py")
        return importlib.util.spec_from_file_location(
            fullname,
            file,
            loader=_SnapshotLoader(fullname, file, snapshot.sources[within], codes.get(within)),
            submodule_search_locations=[str(Path(file).parent)] if is_package else None,
        )


def _folder_spec(fullname: str, snapshot: Snapshot) -> importlib.machinery.ModuleSpec:
    """The spec of a folder without an `__init__.py`, which is a package all the same (PEP 420)."""
    within = snapshot.folder_of(fullname)
    if within is None:
        raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)
    spec = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
    spec.submodule_search_locations = [str(snapshot.folder / within)]
    return spec


class ImportedModules:
    """A feature's modules in `sys.modules`: one generation of them.

    Several may be there at a time, of one name; `sys.modules` has those that were loaded last.

    Args:
        snapshot: what is imported.
        codes: what its files were compiled to already, by their paths within the folder.
    """

    def __init__(self, snapshot: Snapshot, codes: Mapping[str, CodeType] | None = None) -> None:
        self.snapshot = snapshot
        self.codes = codes or {}
        self._covered: dict[str, ModuleType] = {}

    def load(self) -> ModuleType:
        """Imports the feature from its snapshot; on failure all is put back as it was.

        Raises:
            BaseException: whatever the feature's code raises, SystemExit too.
        """
        if _finder not in sys.meta_path:
            sys.meta_path.insert(0, _finder)
        if PACKAGE not in sys.modules:
            sys.modules[PACKAGE] = _package
        # Where there are none, which is so for each at the start, not all names are looked through.
        is_there = self.snapshot.module in sys.modules
        self._covered = _take_modules(self.snapshot.module) if is_there else {}
        _generations.setdefault(self.snapshot.name, []).append(self)
        self._prime_sources()
        last = next(reversed(sys.modules))
        try:
            module = importlib.import_module(self.snapshot.module)
            import_client_for(map(sys.modules.get, _names_behind(last)))
        except BaseException:
            self.put_back()
            raise
        return module

    def put_back(self) -> None:
        """Takes these modules out, and puts in what they took the place of; once is enough.

        Where others of the same name were loaded after them, those stay.
        """
        name = self.snapshot.name
        generations = _generations.get(name, [])
        if self not in generations:
            return
        place = generations.index(self)
        generations.remove(self)
        if place < len(generations):
            generations[place]._covered = self._covered
        else:
            _take_modules(self.snapshot.module)
            sys.modules.update(self._covered)
            _set_attribute(name, self._covered.get(self.snapshot.module))
        self._covered = {}
        if not generations:
            _generations.pop(name, None)
        if not _generations and sys.modules.get(PACKAGE) is _package:
            del sys.modules[PACKAGE]

    def all(self) -> list[ModuleType]:
        """These modules; none where they were put back."""
        generations = _generations.get(self.snapshot.name, [])
        if self not in generations:
            return []
        place = generations.index(self) + 1
        if place < len(generations):
            return list(generations[place]._covered.values())
        return [sys.modules[name] for name in _names_below(self.snapshot.module)]

    def replace(self, former: "ImportedModules") -> None:
        """Lets go of the modules of the generation that these took the place of, for good."""
        generations = _generations.get(self.snapshot.name, [])
        if self not in generations or former not in generations:
            return
        following = generations[generations.index(former) + 1]
        following._covered = former._covered
        former._covered = {}
        generations.remove(former)

    def forget_sources(self) -> None:
        """Takes the sources out of `linecache`; those of a generation that stays are put in."""
        for within in self.snapshot.sources:
            linecache.cache.pop(str(self.snapshot.folder / within), None)
        for generation in _generations.get(self.snapshot.name, []):
            generation._prime_sources()

    def _prime_sources(self) -> None:
        for within, source in self.snapshot.sources.items():
            if not is_test(within):
                _prime_source(str(self.snapshot.folder / within), source)


_generations: Final[dict[str, list[ImportedModules]]] = {}
"""What is loaded, by the feature's name; the last of each list is in `sys.modules`."""

_finder: Final = _SnapshotFinder()

_package: Final = ModuleType(PACKAGE, "Features are modules below this name.")
_package.__path__ = []  # what makes it a package; nothing is looked for there


def _take_modules(module: str) -> dict[str, ModuleType]:
    """Takes a module and those below it out of `sys.modules`."""
    return {name: sys.modules.pop(name) for name in _names_below(module)}


def _names_behind(last: str) -> Iterator[str]:
    """The names that came into `sys.modules` after `last`; all where that has gone."""
    names = list(sys.modules)
    while names and (name := names.pop()) != last:
        yield name


def _names_below(module: str) -> list[str]:
    """The names in `sys.modules` of a module and of those below it."""
    # Another thread may import meanwhile: `list` takes all names in one step.
    return [name for name in list(sys.modules) if f"{name}.".startswith(f"{module}.")]


def _set_attribute(name: str, module: ModuleType | None) -> None:
    """Makes `features.<name>` the given module, or nothing."""
    package = sys.modules.get(PACKAGE)
    if package is None:
        return
    if module is not None:
        setattr(package, name, module)
    elif hasattr(package, name):
        delattr(package, name)


def _prime_source(file: str, source: bytes) -> None:
    """Gives tracebacks the very source that runs, so that none is read from disk for a log line."""
    try:
        text = importlib.util.decode_source(source)
    except (SyntaxError, UnicodeDecodeError):  # no Python, and so in no traceback
        return
    # A time of None tells linecache not to look at the file again.
    linecache.cache[file] = (len(source), None, text.splitlines(keepends=True), file)
