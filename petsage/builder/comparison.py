"""What stands where a feature is to be, and whether what was built is as it was."""

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from petsage.builder.events import BuildError, Stage
from petsage.builder.record import RECORD, hash_of
from petsage.errors import StartError
from petsage.listing import is_noise
from petsage.loader import find_folders


def features_in(folders: Iterable[Path], stage: Stage) -> list[Path]:
    """The features that are there.

    Raises:
        BuildError: one of the folders cannot be read.
    """
    try:
        return list(find_folders(folders))
    except StartError as error:
        raise BuildError(error.problem, fix=error.fix, stage=stage) from None


def holds(path: Path, data: bytes) -> bool:
    """Whether a path is a file with these bytes."""
    try:
        return stat.S_ISREG(path.lstat().st_mode) and path.read_bytes() == data
    except FileNotFoundError:
        return False


def differences(feature: Path, hashes: Mapping[str, str]) -> list[str]:
    """A line for each file of a feature's folder that is not as it was; noise does not count.

    Args:
        feature: its folder.
        hashes: the hash of each file that belongs there, by its path within.

    Raises:
        OSError: something cannot be read.
    """
    found, seen = [], set()
    for folder, folders, files in os.walk(feature, onerror=_raise):
        folders[:] = [name for name in folders if not is_noise(name)]
        links = [name for name in folders if Path(folder, name).is_symlink()]
        for path in (Path(folder, name) for name in (*files, *links) if not is_noise(name)):
            within = path.relative_to(feature).as_posix()
            seen.add(within)
            if within not in hashes:
                found.append(f"{within} was added")
            elif not stat.S_ISREG(path.lstat().st_mode):
                found.append(f"{within} is no file any more")
            elif hash_of(path.read_bytes()) != hashes[within]:
                found.append(f"{within} was changed")
    return sorted([*found, *(f"{within} is gone" for within in hashes if within not in seen)])


def _raise(error: OSError) -> None:
    raise error


def require_free(target: Path, stage: Stage) -> None:
    """Refuses where anything is in a feature's place, be it empty or a link that leads nowhere.

    Raises:
        BuildError: something is there.
    """
    if not os.path.lexists(target):
        return
    # On a disk that knows no case, it may be spelt otherwise.
    alike = (each for each in target.parent.iterdir() if each.name.casefold() == target.name)
    there = next(alike, target)
    fix = "choose another name, or remove it"
    if (there / RECORD).is_file():
        fix = f"choose another name, or remove it with `petsage build --undo {target.name}`"
    what = "a link" if there.is_symlink() else "a feature" if there.is_dir() else "a file"
    if what == "a feature" and not any(there.iterdir()):
        what = "an empty folder"
    raise BuildError(f"there is {what} {there} already", fix=fix, stage=stage)


def require_no_page(page: Path, text: bytes, stage: Stage) -> None:
    """Refuses where a page is there that says something else than it is to say.

    Raises:
        BuildError: it does.
    """
    if os.path.lexists(page) and not holds(page, text):
        raise BuildError(
            f"there is a page {page} already, which is not the feature's",
            fix="move it away, or choose another name for the feature",
            stage=stage,
        )
