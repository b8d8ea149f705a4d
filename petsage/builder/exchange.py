"""Two folders change places in one step, where the system knows one; and a folder is copied whole.

Linux has `renameat2` with RENAME_EXCHANGE, which most file systems know. Elsewhere it takes two
renames, and what is killed between them is put right by the next run.
"""

import contextlib
import ctypes
import errno
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Final

from petsage.builder.disk import sync
from petsage.builder.record import hash_of

_HERE: Final = -100
"""AT_FDCWD: paths are as they are everywhere."""

_EXCHANGE: Final = 2
"""RENAME_EXCHANGE."""

_UNKNOWN: Final = frozenset({errno.ENOSYS, errno.EINVAL, errno.ENOTSUP})
"""What a kernel, a file system or a sandbox says that knows no exchange."""

_CACHES: Final = ("__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache")
"""What Python and its tools make anew."""


def exchange(one: Path, other: Path, spare: Path) -> None:
    """Has two folders of one disk change places.

    Args:
        one: it is where `other` was when this returns.
        other: it is where `one` was.
        spare: nothing is there; where one step is not to be had, `other` is there for a moment,
            and stays there if the process is killed in that moment.

    Raises:
        OSError: it cannot be done; everything is as before then.
    """
    if _exchange_at_once(one, other):
        return
    other.rename(spare)
    try:
        one.rename(other)
    except BaseException:
        spare.rename(other)
        raise
    spare.rename(one)


def _exchange_at_once(one: Path, other: Path) -> bool:
    """Whether two paths have changed places in one step, which not every system knows."""
    function = _renameat2()
    if function is None:
        return False
    sys.audit("os.rename", one, other, _HERE, _HERE)
    if not function(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE):
        return True
    number = ctypes.get_errno()
    if number in _UNKNOWN:
        return False
    raise OSError(number, os.strerror(number), str(other))


@cache
def _renameat2() -> Callable[..., int] | None:
    """The C library's function; None where it has none."""
    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return None
    function.argtypes = [
        *(ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    ]
    function.restype = ctypes.c_int
    return function


def contents(folder: Path) -> dict[str, str]:
    """What everything in a folder is, by its path within it: two that hold the same are equal.

    Caches do not count.

    Raises:
        OSError: something cannot be read, or is neither file, folder nor link.
    """
    return {path.relative_to(folder).as_posix(): _told(path) for path in _within(folder)}


def _told(path: Path) -> str:
    state = path.lstat()
    mode = stat.S_IMODE(state.st_mode)
    if stat.S_ISLNK(state.st_mode):
        return f"link {path.readlink()}"
    if stat.S_ISDIR(state.st_mode):
        return f"folder {mode:o}"
    if not stat.S_ISREG(state.st_mode):
        raise OSError(errno.EINVAL, "it is neither file, folder nor link", str(path))
    return f"file {mode:o} {hash_of(path.read_bytes())}"


def _within(folder: Path) -> Iterator[Path]:
    """Everything in a folder, each folder before what is in it."""
    for place, folders, files in os.walk(folder, onerror=_raise):
        folders[:] = sorted(name for name in folders if name not in _CACHES)
        yield from (Path(place, name) for name in (*folders, *sorted(files)))


def _raise(error: OSError) -> None:
    raise error


def copy_folder(source: Path, target: Path) -> None:
    """Makes a folder what another is: bytes, modes, times, links and owners, on the disk at once.

    Args:
        source: the folder; its caches are left out.
        target: an empty folder.

    Raises:
        OSError: something cannot be read or written, or is neither file, folder nor link.
    """
    folders = [(source, target)]
    for path in _within(source):
        copy = target / path.relative_to(source)
        if path.is_symlink():
            copy.symlink_to(path.readlink())
        elif path.is_dir():
            copy.mkdir()
            folders.append((path, copy))
        else:
            _copy_file(path, copy)
        _copy_owner(path, copy)
    for path, copy in reversed(folders):  # what is in it has changed its times
        sync(copy)
        shutil.copystat(path, copy)
        _copy_owner(path, copy)


def _copy_file(source: Path, copy: Path) -> None:
    if not stat.S_ISREG(source.lstat().st_mode):  # to open a pipe would wait for who writes
        raise OSError(errno.EINVAL, "it is neither file, folder nor link", str(source))
    shutil.copy2(source, copy, follow_symlinks=False)
    with copy.open("rb") as file:
        os.fsync(file.fileno())


def _copy_owner(source: Path, copy: Path) -> None:
    """Gives a copy to whom the original belongs, as far as that is anybody's to give."""
    wanted, there = source.lstat(), copy.lstat()
    if (wanted.st_uid, wanted.st_gid) != (there.st_uid, there.st_gid):
        with contextlib.suppress(PermissionError):
            os.chown(copy, wanted.st_uid, wanted.st_gid, follow_symlinks=False)
