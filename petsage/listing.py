"""What is in a feature's folder, what of it counts, and the bytes of what does."""

import errno
import os
import re
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from petsage.errors import Severity
from petsage.feature import Place
from petsage.signature import Flaw

PlacedFlaw = tuple[Place, Flaw, Severity]

MAX_BYTES: Final = 64 * 1024**2
MAX_FILES: Final = 10_000

_NOISE: Final = re.compile(
    r"""
      __pycache__ | .*\.py[co]  # Python's caches
    | \..*                      # hidden: .git, .mypy_cache, .routes.py.swp, .#routes.py
    | .*~ | \#.*\#              # backups of editors
    | 4913                      # what Vim tries out whether it may write a folder
    """,
    re.VERBOSE | re.DOTALL,
)


class ChangedError(OSError):
    """A file is not as it was listed."""


def is_noise(name: str) -> bool:
    """Whether a file or folder of this name is no part of a feature.

    It is in no snapshot and in no hash, and what happens to it is no change.
    """
    return _NOISE.fullmatch(name) is not None


def is_ignored(name: str) -> bool:
    """Whether a folder of this name, among features, is none: `_shared` and noise."""
    return name.startswith("_") or is_noise(name)


def is_folder(path: Path) -> bool:
    """Whether there is a folder, links followed.

    Raises:
        OSError: it cannot be said. `Path.is_dir` answers False there from Python 3.14 on.
    """
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


class Listing(NamedTuple):
    """What is in a folder; paths are those within it ("sub/routes.py"), "" is the folder itself.

    Attributes:
        files: each regular file, sorted; a link counts as what it leads to.
        folders: each folder, linked ones too.
        links: each link that leads inside, and where to in the end, though nothing be there.
        flaws: links that lead out, or that there is too much; then the rest is not there.
    """

    files: dict[str, os.stat_result]
    folders: dict[str, os.stat_result]
    links: dict[str, str]
    flaws: list[PlacedFlaw]

    def looks(self) -> dict[str, tuple[int, ...]]:
        """What tells each file and folder from how it was before, as `look` does.

        Folders, too: a file that is moved to where was looked already shows in nothing else.
        """
        return {within: look(each) for within, each in (*self.folders.items(), *self.files.items())}


def look(state: os.stat_result) -> tuple[int, ...]:
    """What tells a file from how it was before: inode, size, times of its last changes.

    Both times: to move a file changes the second alone, and one that is moved to and fro would else
    be found in two places, or in none.
    """
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns


def resolved(folders: Iterable[Path]) -> list[str]:
    """Where folders are, links resolved; they need not be there."""
    return [os.path.realpath(folder) for folder in folders]


def is_inside(path: str, folders: Iterable[str]) -> bool:
    """Whether a resolved path is one of the folders, or below one."""
    return any(path == each or path.startswith(each.rstrip(os.sep) + os.sep) for each in folders)


def list_folder(folder: Path, roots: Sequence[str]) -> Listing:
    """What is in a folder, no file opened; pipes, sockets and devices are left out.

    Args:
        folder: absolute.
        roots: resolved folders; a link is followed where it leads to one of them, or below.

    Raises:
        OSError: something cannot be looked at, or vanished meanwhile; its `filename` says what.
    """
    listing = Listing(files={}, folders={}, links={}, flaws=[])
    walk = _Walk(folder, roots, listing)
    if walk.leads_out("", os.path.realpath(folder)):
        return listing
    listing.folders[""] = top = folder.stat()
    waiting = [("", frozenset({(top.st_dev, top.st_ino)}))]
    while waiting:
        within, above = waiting.pop()
        for deeper, state in walk.read(within):
            identity = (state.st_dev, state.st_ino)
            if identity not in above:  # else a link leads back to a folder that it is in
                listing.folders[deeper] = state
                waiting.append((deeper, above | {identity}))
        if walk.is_too_large():
            break
    files = dict(sorted(listing.files.items()))
    listing.files.clear()
    listing.files.update(files)
    return listing


class _Walk:
    """One walk through a folder; the arguments are those of `list_folder`, and what it fills."""

    def __init__(self, folder: Path, roots: Sequence[str], listing: Listing) -> None:
        self._folder = folder
        self._roots = roots
        self._listing = listing
        self._bytes = 0

    def read(self, within: str) -> list[tuple[str, os.stat_result]]:
        """Puts a folder's files into the listing; the folders in it."""
        folders = []
        with os.scandir(self._folder / within) as entries:
            for entry in entries:
                if is_noise(entry.name):
                    continue
                path = f"{within}/{entry.name}" if within else entry.name
                state = self._state(path, entry)
                if state is None:
                    continue
                if stat.S_ISDIR(state.st_mode):
                    folders.append((path, state))
                elif stat.S_ISREG(state.st_mode):
                    self._listing.files[path] = state
                    self._bytes += state.st_size
                if len(self._listing.files) + len(folders) > MAX_FILES:
                    break
        return folders

    def _state(self, within: str, entry: os.DirEntry[str]) -> os.stat_result | None:
        """What an entry is, links followed; None for a link that leads out, or nowhere."""
        if not entry.is_symlink():
            return entry.stat()
        target = os.path.realpath(entry.path)
        if self.leads_out(within, target):
            return None
        self._listing.links[within] = target
        try:
            return entry.stat()
        except FileNotFoundError:  # it leads nowhere, and may be mended by what comes to be there
            return None

    def leads_out(self, within: str, target: str) -> bool:
        """Whether a resolved path is outside of all roots, which is a flaw."""
        if is_inside(target, self._roots):
            return False
        place = self._folder / within
        flaw = Flaw(
            "outside-link",
            f"{place.name} leads to {target}, which is in no folder of features",
            f"copy it in, or add {Path(target).parent} to [catalog].folders",
        )
        self._listing.flaws.append((Place(str(place), 0), flaw, "error"))
        return True

    def is_too_large(self) -> bool:
        """Whether there is more than a feature may have, which is a flaw."""
        if self._bytes > MAX_BYTES:
            much = f"more than {MAX_BYTES // 1024**2} MB"
        elif len(self._listing.files) + len(self._listing.folders) > MAX_FILES:
            much = f"more than {MAX_FILES:,} files and folders"
        else:
            return False
        flaw = Flaw(
            "too-large",
            f"the folder {self._folder.name} holds {much}",
            "keep data that a feature reads at run time outside of its folder",
        )
        self._listing.flaws.append((Place(str(self._folder), 0), flaw, "error"))
        return True


def read_files(folder: Path, listing: Listing) -> dict[str, bytes]:
    """The bytes of each file of a listing, by its path within the folder.

    Raises:
        ChangedError: a file is not as it was listed.
        OSError: a file cannot be read; its `filename` says which.
    """
    return {within: _read(folder / within, state) for within, state in listing.files.items()}


def _read(path: Path, listed: os.stat_result) -> bytes:
    """The bytes of a file that is as it was listed."""
    try:
        # Without waiting: a pipe may have taken the file's place.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            is_same = look(os.fstat(descriptor)) == look(listed)
            data = file.read(listed.st_size + 1) if is_same else b""
    except FileNotFoundError:
        raise
    except OSError as error:
        # What fails in the middle of a file names none.
        raise OSError(error.errno, error.strerror, str(path)) from error
    if not is_same or len(data) != listed.st_size:
        raise ChangedError(errno.EBUSY, "it changes while it is read", str(path))
    return data
