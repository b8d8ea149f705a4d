"""What changes in one folder of features: told by the kernel, or found by looking again and again.

Longer than 300 lines: all of it runs in one thread a folder, and the two ways give the same.
"""

import contextlib
import logging
import os
import re
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from watchfiles import Change
from watchfiles._rust_notify import RustNotify  # documented: watchfiles' Rust backend

from petsage.listing import is_ignored, is_inside, is_noise

_log = logging.getLogger(__name__)

# Events are handed on when none came for one step, and after so long at the latest.
_STEP_MS: Final = 20
_GROUP_MS: Final = 60
# How often it is looked whether the folder itself is still the same.
_LOOK_S: Final = 0.2
# How often a folder is looked through that tells no events; a large one in which nothing happens
# more rarely, so that looking takes no more than 1 / _POLL_SHARE of a core.
_POLL_S: Final = 0.5
_POLL_SHARE: Final = 25
# The kernel's queue holds 16,384 events, and watchfiles does not say when it ran over: after so
# many at a time, any folder may have changed.
_MANY: Final = 1_000

_EVENTLESS: Final = re.compile(
    r"nfs4?|cifs|smb\w*|9p|afs|ceph|lustre|gpfs|ncpfs|vboxsf|vmhgfs|prl_fs|virtiofs"
    r"|osxfs|fakeowner|fuse|fuse\..+"
)
# The kernel follows so many links on the way to one file.
_LINKS: Final = 40
_OCTAL: Final = re.compile(r"\\([0-7]{3})")

# How long watchfiles' own thread is waited for.
_CLOSE_S: Final = 0.5
_OPENING: Final = threading.Lock()
# What a folder was like whose events may have been lost: like nothing that it can be.
_LOST: Final = (-1,)
_UNTOLD: Final = "Changes in %s are looked for, since the kernel does not tell of them: %s; fix: "
_RAISE: Final = (
    "raise the limit, `sysctl -w fs.inotify.max_user_watches=524288` (or "
    "fs.inotify.max_user_instances)"
)
_ALLOW: Final = "make it readable to the server"

Looks = dict[str, tuple[int, ...]]


class Noticed(NamedTuple):
    """What has changed.

    Attributes:
        names: the folders, right below the folder of features, in which something was written.
        others: those that may have changed, because events may have been lost.
        is_all: whether anything at all may have changed: the folder itself is another, or gone, or
            it is only watched from now on.
        quiet_s: how long nothing else may come before it is known that nothing else happened, in
            seconds.
    """

    names: frozenset[str]
    others: frozenset[str] = frozenset()
    is_all: bool = False
    quiet_s: float = 0.0


def eventless_mount(path: str, mounts: str) -> str | None:
    """The type of a file system at or below a path whose changes the kernel does not tell of.

    Others may write there, on another machine: NFS, SMB, FUSE, folders shared with a virtual one.

    Args:
        path: resolved.
        mounts: the text of `/proc/self/mounts`.
    """
    holder, found = "", None
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = _OCTAL.sub(lambda code: chr(int(code[1], 8)), fields[1])
        kind = fields[2] if _EVENTLESS.fullmatch(fields[2]) else None
        if is_inside(path, [point]):
            if len(point) >= len(holder):  # the last of those mounted on one point is seen
                holder, found = point, kind
        elif kind is not None and is_inside(point, [path]):
            return kind
    return found


def find_links(folder: str) -> frozenset[str]:
    """Where the links in a folder lead, and those in the folders that they lead to; resolved.

    Each link on the way there is one of them by its own path, since another may take its place.
    """
    found: set[str] = set()
    waiting, seen = [folder], set()
    while waiting:
        path = waiting.pop()
        real = os.path.realpath(path)
        if real != path:
            found.update((real, *_links_on(path)))
        if real in seen:
            continue
        seen.add(real)
        # A file, or nothing, leads no further; what may not be looked into is a finding elsewhere.
        with contextlib.suppress(OSError), os.scandir(real) as entries:
            waiting += [each.path for each in entries if _leads_on(each)]
    return frozenset(found)


def _links_on(path: str) -> Iterator[str]:
    """Each link on the way to where a path leads, the folders above it resolved."""
    place, count = os.sep, 0
    parts = path.split("/")[::-1]
    while parts:
        part = parts.pop()
        if part == "..":
            place = os.path.dirname(place)  # noqa: PTH120 - strings
        if part in {"", ".", ".."}:
            continue
        deeper = os.path.join(place, part)  # noqa: PTH118 - strings
        try:
            target = os.readlink(deeper)  # noqa: PTH115 - strings
        except OSError:  # no link, or nothing
            place = deeper
            continue
        count += 1
        if count > _LINKS:
            return
        yield deeper
        if target.startswith(os.sep):
            place = os.sep
        parts += target.split("/")[::-1]


def _leads_on(entry: os.DirEntry[str]) -> bool:
    return not is_noise(entry.name) and (entry.is_symlink() or entry.is_dir(follow_symlinks=False))


def _is_beside(entry: os.DirEntry[str]) -> bool:
    """Whether what lies among features is none: `_shared`, noise, or a file."""
    if is_ignored(entry.name):
        return True
    try:
        return entry.is_file()
    except OSError:  # nobody knows; who reads it says what is wrong with it
        return False


class FolderChanges(threading.Thread):
    """Notices what changes in one folder, be it there or not, from its start until `end`.

    Args:
        folder: it may be missing, and come, go, or be replaced.
        tell: is called in this thread with what was noticed.
        siblings: the threads of all folders, this one's too: a change in one of them is one of
            each feature that links there.

    Attributes:
        links: where the links in each feature's folder lead, by its name.
        is_watching: set once the first change will be noticed.
    """

    def __init__(
        self,
        folder: Path,
        tell: Callable[[Noticed], None],
        siblings: Sequence["FolderChanges"],
    ) -> None:
        # A folder on a server that does not answer holds up no end of the process.
        super().__init__(name=f"petsage-watch {folder}", daemon=True)
        self.links: Mapping[str, frozenset[str]] = {}
        self.is_watching = threading.Event()
        self._folder = folder
        self._root = ""
        self._tell = tell
        self._siblings = siblings
        self._ended = threading.Event()
        self._names: set[str] = set()
        self._was: tuple[int, ...] | None = None
        self._above: tuple[str, int] | None = None
        self._refused: tuple[int, ...] | None = None
        self._said: set[str] = set()

    def end(self) -> None:
        """Lets the thread end, within moments."""
        self._ended.set()

    def run(self) -> None:
        """Watches until `end`, whatever happens to the folder."""
        while not self._ended.is_set():
            try:
                self._follow(_identity(self._folder))
            except Exception as error:  # noqa: BLE001 - nothing ends the watch, and it is logged
                self._was = _LOST
                self.is_watching.set()
                # What a feature has broken, until it is put back, may be what logs this, too.
                with contextlib.suppress(Exception):
                    fix = f"; fix: {_ALLOW}" if isinstance(error, PermissionError) else ""
                    self._say(f"Watching %s fails, and is tried again: %s{fix}", error)
                self._ended.wait(_LOOK_S)
        self.is_watching.set()

    def _follow(self, state: tuple[int, ...] | None) -> None:
        """Watches the folder for as long as it is the same."""
        self._root = os.path.realpath(self._folder)
        if state is None:
            above = _look_above(self._folder)
            if above != self._above:
                # It may have come, been read by somebody, and gone, all between two looks.
                self._above, self._was = above, _LOST
            self._begin(state)
            self._ended.wait(_LOOK_S)
        elif state == self._refused or self._has_to_poll():
            self._poll(state)
        else:
            self._listen(state)

    def _begin(self, state: tuple[int, ...] | None) -> None:
        """Tells that all may have changed, at first and where the folder is another than before."""
        names: set[str] = set()
        if state is not None:
            with os.scandir(self._root) as entries:
                names = {each.name for each in entries if not _is_beside(each)}
        if state != self._was or not self.is_watching.is_set():
            # From here on nothing is missed: whoever looks now, or later, has seen it all.
            self._tell(Noticed(frozenset(), frozenset(names | self._names), is_all=True))
        if state is None or state != self._was:
            self._names, self.links = names, {}
            self._find_links(names)
        self._was = state
        self.is_watching.set()

    def _listen(self, state: tuple[int, ...]) -> None:
        """Hands on what the kernel tells."""
        try:
            with _notify(self._root) as notify:
                self._begin(state)
                while _identity(self._folder) == state:
                    events = notify.watch(_GROUP_MS, _STEP_MS, int(_LOOK_S * 1000), self._ended)
                    if isinstance(events, set):
                        self._take(events)
                        if (Change.deleted, self._root) in events:
                            # The next one may get the number that this one had.
                            self._was = _LOST
                            return
                    elif events != "timeout":
                        return
        except FileNotFoundError:  # it went between two looks, and the next one says so
            self._was = _LOST
        except (OSError, RuntimeError) as error:
            self._was, self._refused = _LOST, state
            fix = _ALLOW if isinstance(error, PermissionError) else _RAISE
            self._say(_UNTOLD + fix, error)

    def _take(self, events: Iterable[tuple[int, str]]) -> None:
        """Tells of events; what was added may have links, and folders that are not watched."""
        paths: set[str] = set()
        moved: set[str] = set()
        for kind, path in events:
            paths.add(path)
            if kind != Change.modified:
                moved.add(path)
        self._tell_of(paths, moved)
        added = next((path for path in moved if os.path.isdir(path)), None)  # noqa: PTH112 - strings
        if added is not None:
            # The limit on watches is kept silently where it is reached later on; this says so.
            with contextlib.suppress(FileNotFoundError), _notify(added, recursive=False):
                pass

    def _poll(self, state: tuple[int, ...]) -> None:
        """Looks for changes, again and again."""
        looks, took_s = self._look()
        self._begin(state)
        paths: set[str] = set()
        while _identity(self._folder) == state:
            pause_s = _POLL_S if paths else max(_POLL_S, took_s * _POLL_SHARE)
            if self._ended.wait(pause_s):
                return
            before = looks
            looks, took_s = self._look()
            paths = {path for path, _ in before.items() ^ looks.items()}
            if paths:
                # Quiet is what the next look, too, finds as it is now.
                self._tell_of(paths, paths, quiet_s=_POLL_S + 2 * took_s + _LOOK_S / 4)

    def _look(self) -> tuple[Looks, float]:
        """What every file and folder looks like, and how long that took."""
        began = time.perf_counter()
        looks = dict(_looks(self._root))
        for path in {path for paths in self.links.values() for path in paths} - looks.keys():
            # Noise that a link leads to, or through: `..data`, as Kubernetes has it.
            with contextlib.suppress(OSError):
                looks[path] = _look_of(os.lstat(path))
        return looks, time.perf_counter() - began

    def _tell_of(self, paths: set[str], moved: set[str], *, quiet_s: float = 0.0) -> None:
        names = {name for path in paths for name in self._names_of(path)}
        if not names:
            return
        own = {name for path in moved if (name := self._own_name(path)) is not None}
        self._names |= own
        if moved:
            self._find_links(own | (names & self.links.keys()))
        is_many = len(paths) > _MANY
        others = self._names - names if is_many else set()
        self._tell(Noticed(frozenset(names), frozenset(others), is_many, quiet_s))

    def _own_name(self, path: str) -> str | None:
        """The feature's folder that a path is in; None where it does not count."""
        if not path.startswith(self._root + os.sep):
            return None
        first, *parts = path[len(self._root) + 1 :].split("/")
        if is_ignored(first) or any(map(is_noise, parts)):
            return None
        if not parts and first not in self._names and os.path.isfile(path):  # noqa: PTH113 - strings
            return None  # `features/README.md`, where no folder was
        return first

    def _names_of(self, path: str) -> Iterator[str]:
        """The feature whose file this is, and those that link to it."""
        own = self._own_name(path)
        if own is not None:
            yield own
        if not any(each.links for each in self._siblings):
            return
        folder, name = os.path.split(path)
        real = os.path.join(os.path.realpath(folder), name)  # noqa: PTH118 - strings
        for each in self._siblings:
            # The kernel tells of a file that links lead to by one of its paths.
            own = each._own_name(real)
            if own is not None:
                yield own
            for linking, targets in each.links.items():
                if is_inside(real, targets) or any(is_inside(target, [real]) for target in targets):
                    yield linking

    def _find_links(self, names: Iterable[str]) -> None:
        links = dict(self.links)
        for name in names:
            links[name] = find_links(os.path.join(self._root, name))  # noqa: PTH118 - strings
        # One step: other threads read it.
        self.links = {name: targets for name, targets in links.items() if targets}

    def _say(self, text: str, why: object) -> None:
        """Warns of what keeps events away; the same again is no news."""
        if str(why) not in self._said:
            _log.warning(text, self._folder, why)
            self._said.add(str(why))

    def _has_to_poll(self) -> bool:
        """Whether the kernel would not tell of each change, or somebody wants it so."""
        wish = os.environ.get("WATCHFILES_FORCE_POLLING", "")
        if wish:
            return wish.lower() not in {"false", "disable", "disabled"}
        try:
            mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace")
        except OSError:  # no Linux; watchfiles knows what to do there
            return False
        kind = eventless_mount(os.path.realpath(self._folder), mounts)
        if kind is not None:
            _log.info("Changes in %s are looked for: it is on %s", self._folder, kind)
        return kind is not None


@contextlib.contextmanager
def _notify(folder: str, *, recursive: bool = True) -> Iterator[RustNotify]:
    """What the kernel tells of a folder; its thread and descriptors are gone in the end.

    Raises:
        FileNotFoundError: there is no such folder.
        OSError: the limit on watches is reached, or a folder may not be read.
        RuntimeError: anything else, such as too many open files.
    """
    with _OPENING:
        before = _native_threads()
        notify = RustNotify([folder], False, False, 0, recursive, False)
        own = _native_threads() - before
    try:
        yield notify
    finally:
        notify.close()
        # It tells its thread to end, and does not wait for that.
        deadline = time.monotonic() + _CLOSE_S
        while own & _native_threads() and time.monotonic() < deadline:
            time.sleep(0.001)


def _native_threads() -> set[str]:
    """The threads of this process, Python's and others; nothing where the system does not say."""
    try:
        return set(os.listdir("/proc/self/task"))  # noqa: PTH208 - names
    except OSError:  # no Linux
        return set()


def _identity(folder: Path) -> tuple[int, ...] | None:
    """What tells a folder, links followed, from another one; who may write it is part of it."""
    try:
        state = folder.stat()
    except OSError:
        return None
    if not stat.S_ISDIR(state.st_mode):
        return None
    return state.st_dev, state.st_ino, state.st_mode, state.st_uid, state.st_gid


def _look_above(folder: Path) -> tuple[str, int]:
    """What differs once something came or went where a folder is missing: the nearest above it."""
    for parent in folder.parents:
        with contextlib.suppress(OSError):
            return str(parent), parent.stat().st_mtime_ns
    return "", 0


def _looks(folder: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """What every file and folder below one looks like; a link as itself, not followed."""
    waiting = [folder]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if is_noise(entry.name):
                        continue
                    state = entry.stat(follow_symlinks=False)
                    yield entry.path, _look_of(state)
                    if stat.S_ISDIR(state.st_mode):
                        waiting.append(entry.path)
        except OSError as error:  # it went meanwhile, or cannot be looked into
            yield error.filename or folder, (error.errno or 0,)


def _look_of(state: os.stat_result) -> tuple[int, ...]:
    if stat.S_ISDIR(state.st_mode):
        # Not its times: they tell of what is in it, noise too.
        return state.st_ino, state.st_mode, state.st_uid, state.st_gid
    return state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns
