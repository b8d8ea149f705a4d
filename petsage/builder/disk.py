"""What a build does to a disk: written through, locked, removed; and what a disk says, told."""

import contextlib
import errno
import fcntl
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from petsage.builder.events import BuildError, Stage

# A lock is held for milliseconds; a system that is stuck is not waited for.
_WAIT_S: Final = 10.0
_LOOK_S: Final = 0.02
# A tool that has ended may have given back so much of what it did not get more of.
_SOME_BYTES: Final = 64 * 1024

_ELSEWHERE: Final = "name another folder with --output"
_ROOM: Final[Mapping[int, str]] = {
    errno.ENOSPC: "make room on that disk",
    errno.EDQUOT: "make room within your quota",
    errno.EFBIG: "raise the limit of a file's size (`ulimit -f`)",
}
_RIGHT: Final = "make it yours to read and write (`chmod u+rwx`)"
_PLACE: Final[Mapping[int, str]] = {
    errno.EACCES: _RIGHT,
    errno.EPERM: _RIGHT,
    errno.EROFS: "mount that disk for writing",
    errno.ENOTDIR: "move the file out of the way",
    errno.EBADF: "use a disk that knows locks on folders",
    errno.ENOLCK: "use a disk that knows locks on folders",
}


@contextlib.contextmanager
def as_build_error(stage: Stage, folder: Path) -> Iterator[None]:
    """Tells what the system says, with its place, and what to do."""
    try:
        yield
    except OSError as error:
        raise BuildError(
            f"{error.filename or folder}: {error.strerror or error}",
            fix=_fix(error.errno or 0, stage),
            stage=stage,
        ) from error


def _fix(number: int, stage: Stage) -> str:
    if number in _ROOM:
        return _ROOM[number]
    mend = _PLACE.get(number, "mend that")
    # What is to be removed is where it is.
    return f"{mend}, and try again" if stage == "undo" else f"{mend}, or {_ELSEWHERE}"


@contextlib.contextmanager
def locked(folder: Path, stage: Stage, made: list[Path] | None = None) -> Iterator[None]:
    """Holds the lock of a folder of features; makes the folder first where `made` is a list.

    Raises:
        BuildError: another process keeps it for seconds.
    """
    until = time.monotonic() + _WAIT_S
    with as_build_error(stage, folder):
        while True:
            if made is not None:
                made += make_missing(folder)
            lock = try_lock(folder, follow=True)
            if lock is not None:
                # Whoever had it may have removed the folder, which was empty.
                if _is_same(folder, lock):
                    break
                os.close(lock)
            elif time.monotonic() > until:
                raise BuildError(
                    f"another process keeps {folder} locked for more than {_WAIT_S:g} s",
                    fix="end it (`fuser` names it), and try again",
                    stage=stage,
                )
            time.sleep(_LOOK_S)
    try:
        yield
    finally:
        os.close(lock)


def try_lock(folder: Path, *, follow: bool = False) -> int | None:
    """A descriptor that holds a folder's lock until it is closed; None where another holds it."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    descriptor = os.open(folder, flags)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError as error:
        os.close(descriptor)
        raise OSError(error.errno, error.strerror, str(folder)) from None
    return descriptor


def _is_same(folder: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(folder.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def write_new(path: Path, data: bytes) -> None:
    """Writes a new file; nothing of it stays where that fails."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o644)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o644)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
    except BaseException as error:
        path.unlink()
        if isinstance(error, OSError):  # what fails in the middle of a file names none
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def require_room(folder: Path) -> None:
    """Returns where a disk takes a file of some size.

    Raises:
        OSError: it does not.
    """
    path = folder / "room"
    try:
        write_new(path, bytes(_SOME_BYTES))
    except OSError as error:
        raise OSError(error.errno, error.strerror) from error  # its place is the disk
    path.unlink()


def sync(folder: Path) -> None:
    """Sees to it that a folder's names are on the disk, where the disk knows of that."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
            raise OSError(error.errno, error.strerror, str(folder)) from error
    finally:
        os.close(descriptor)


def make_missing(folder: Path) -> list[Path]:
    """Makes a folder with those above it, 0755 each; those that were missing, the deepest last."""
    if folder.is_dir():
        return []
    made = make_missing(folder.parent)
    try:
        folder.mkdir()
    except FileExistsError:
        if folder.is_dir():  # another process was quicker
            return made
        remove_empty(made)
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None
    except BaseException:
        remove_empty(made)
        raise
    folder.chmod(0o755)
    return [*made, folder]


def remove_empty(folders: list[Path]) -> None:
    """Removes folders from the last to the first; one that is not empty stays, and those above."""
    with contextlib.suppress(OSError):
        for folder in reversed(folders):
            folder.rmdir()


def remove_tree(path: Path) -> None:
    """Removes a file or a folder, and what a test has made unwritable in it, too."""
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    try:
        shutil.rmtree(path)
    except PermissionError:
        path.chmod(0o700)
        for folder, folders, _ in os.walk(path):
            for each in (Path(folder, name) for name in folders):
                if not each.is_symlink():
                    each.chmod(0o700)
        shutil.rmtree(path)
