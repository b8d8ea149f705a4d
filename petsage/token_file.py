"""The file that tells the management token to who may read it: this user, on this machine.

The server writes it when it listens, and the commands that ask a running server read it. It lies in
a folder of this user alone (0700), readable for this user alone (0600), and is named by the port.
"""

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

_FOLDER: Final = "petsage"
# A token has 43 characters; whatever is longer than this is no token.
_MAX_BYTES: Final = 4096
# As `[management].token`: what can stand in a header. Of anything else, an error might quote it.
_TOKEN: Final = re.compile(r"[!-~]+")


class TokenFileError(OSError):
    """The file cannot be written: which one, and why."""


class TokenFile(NamedTuple):
    """A file that was written.

    Attributes:
        path: where it is.
        token: what it holds.
    """

    path: Path
    token: str

    def remove(self) -> None:
        """Removes the file; one that holds another server's token by now is left.

        Raises:
            OSError: it cannot be removed.
        """
        with contextlib.suppress(FileNotFoundError), _opened_folder(self.path.parent) as folder:
            if _read(folder, self.path.name) == self.token:
                os.unlink(self.path.name, dir_fd=folder)


def write_token_file(port: int, token: str, environ: Mapping[str, str]) -> TokenFile:
    """Writes `token` into the first folder that takes it.

    The file is this user's alone from its first moment on, and complete when it has its name;
    one of a server that was killed is replaced.

    Raises:
        TokenFileError: no folder takes it; it names each with its reason.
    """
    reasons = []
    for parent in _parents(environ):
        path = parent / _FOLDER / _name(port)
        try:
            # A folder of the user's home may have to be made; one of the system's is there.
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _opened_folder(path.parent) as folder:
                _write(folder, path.name, token)
        except OSError as error:
            reasons.append(f"{path}: {error.strerror or error}")
        else:
            return TokenFile(path, token)
    raise TokenFileError("; ".join(reasons) or "neither XDG_RUNTIME_DIR nor HOME is set")


def read_token_file(port: int, environ: Mapping[str, str]) -> str | None:
    """The token of the server on a port of this machine, None where no file tells it.

    Where several are left, it is the one written last.

    Raises:
        TokenFileError: there is a file, and it is not this user's alone or cannot be read.
    """
    found: list[tuple[float, str]] = []
    for parent in _parents(environ):
        path = parent / _FOLDER / _name(port)
        try:
            with _opened_folder(path.parent) as folder:
                written = os.stat(path.name, dir_fd=folder, follow_symlinks=False).st_mtime
                found.append((written, _read_token(folder, path.name)))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise TokenFileError(f"{path}: {error.strerror or error}") from None
    return max(found)[1] if found else None


def _name(port: int) -> str:
    return f"{port}.token"


def _parents(environ: Mapping[str, str]) -> Iterator[Path]:
    """The folders to look in; a path that is not absolute counts as none (XDG specification)."""
    for name, below in (("XDG_RUNTIME_DIR", ""), ("XDG_CACHE_HOME", ""), ("HOME", ".cache")):
        path = Path(environ.get(name, ""))
        if path.is_absolute():
            yield path / below


@contextlib.contextmanager
def _opened_folder(path: Path) -> Iterator[int]:
    """A folder's descriptor, once it is sure that it is this user's alone.

    Raises:
        OSError: it is a link, somebody else's, or open to others and stays so.
    """
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        state = os.fstat(folder)
        if state.st_uid != os.geteuid():
            raise OSError(f"the folder belongs to user {state.st_uid}")
        if state.st_mode & 0o077:
            os.fchmod(folder, 0o700)
        yield folder
    finally:
        os.close(folder)


def _write(folder: int, name: str, token: str) -> None:
    draft = f".{name}.{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(draft, flags, 0o600, dir_fd=folder)
    try:
        with os.fdopen(file, "wb") as opened:
            opened.write(f"{token}\n".encode())
        os.replace(draft, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft, dir_fd=folder)
        raise


def _read_token(folder: int, name: str) -> str:
    token = _read(folder, name)
    if not _TOKEN.fullmatch(token):
        raise OSError("it holds no token")
    return token


def _read(folder: int, name: str) -> str:
    # Without waiting: a pipe of that name would hold up who opens it.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, dir_fd=folder), "rb") as opened:
        state = os.fstat(opened.fileno())
        if not stat.S_ISREG(state.st_mode):
            raise OSError("it is no file")
        if state.st_uid != os.geteuid() or state.st_mode & 0o077:
            raise OSError("others than you may read or write it")
        return opened.read(_MAX_BYTES).decode(errors="replace").strip()
