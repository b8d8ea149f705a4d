"""What a test finds around it: tasks, threads, open files, loggers; and what came since."""

import asyncio
import gc
import logging
import os
import socket
import stat
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from weakref import WeakSet

from petsage.stacks import told_task, told_thread

KINDS: Final = ("task", "thread", "file", "logger")
GRACE_S: Final = 1.0
"""How long what is about to end may take for it."""

_DESCRIPTORS: Final = Path("/proc/self/fd")  # where there is none, files are not looked at
_LoggerState = tuple[int, bool, bool, tuple[Any, ...], tuple[Any, ...]]
_UNTOUCHED: Final[_LoggerState] = (logging.NOTSET, False, True, (), ())
_ASPECTS: Final = ("level", "disabled", "propagate", "handlers", "filters")
Task = asyncio.Task[Any]


@dataclass
class Surroundings:
    """What a test finds, and is to leave as it was.

    Attributes:
        tasks: those of event loops that outlive a test.
        files: device and inode of what each descriptor has open.
        loggers: level, disabled, propagate, handlers and filters, by name.
        modules: what was imported.
    """

    tasks: set[Task] = field(default_factory=set)
    threads: set[threading.Thread] = field(default_factory=set)
    files: dict[int, tuple[int, int]] = field(default_factory=dict)
    loggers: dict[str, _LoggerState] = field(default_factory=dict)
    modules: set[str] = field(default_factory=set)

    def add_what_came(self, before: "Surroundings", after: "Surroundings") -> None:
        """Takes over what changed between two looks: somebody else's doing, and not the test's."""
        self.tasks |= after.tasks - before.tasks
        self.threads |= after.threads - before.threads
        self.files.update(dict(after.files.items() - before.files.items()))
        for name in {**before.loggers, **after.loggers}:
            state = after.loggers.get(name, _UNTOUCHED)
            if before.loggers.get(name, _UNTOUCHED) != state:
                self.loggers[name] = state


def look(
    kinds: frozenset[str],
    loops: WeakSet[asyncio.AbstractEventLoop],
    pools: WeakSet[ThreadPoolExecutor],
) -> Surroundings:
    """What is there now, of these kinds.

    Args:
        kinds: of `KINDS`.
        loops: the event loops whose tasks are looked for; their executors are added to `pools`.
        pools: the executors whose threads are not looked for.
    """
    now = Surroundings()
    if "task" in kinds:
        now.tasks = {task for loop in loops for task in _tasks_of(loop)}
    if "thread" in kinds:
        now.threads = {
            thread for thread in threading.enumerate() if not _is_of(thread, pools, loops)
        }
    if "file" in kinds:
        now.files = dict(_open_files())
    if "logger" in kinds:
        now.loggers = dict(_logger_states())
        now.modules = set(sys.modules)
    return now


def what_came(before: Surroundings, now: Surroundings) -> Iterator[str]:
    """A line for each thing that is there and was not, its kind first."""
    for task in now.tasks - before.tasks:
        yield told_task(task)
    for thread in now.threads - before.threads:
        yield told_thread(thread)
    for descriptor, identity in now.files.items():
        if before.files.get(descriptor) != identity:
            yield _told_file(descriptor)
    for name in {**before.loggers, **now.loggers}:
        was, state = before.loggers.get(name), now.loggers.get(name, _UNTOUCHED)
        if was is None and name.partition(".")[0] in now.modules - before.modules:
            continue  # a library sets its loggers up when it is imported
        if state != (was or _UNTOUCHED):
            yield _told_logger(name, was or _UNTOUCHED, state)


def find_pools() -> Iterator[ThreadPoolExecutor]:
    """Every thread pool that there is; it looks at every object, and takes some milliseconds."""
    for each in gc.get_objects():
        if issubclass(type(each), ThreadPoolExecutor):  # a proxy answers `isinstance` as it likes
            yield each


def _is_of(
    thread: threading.Thread,
    pools: WeakSet[ThreadPoolExecutor],
    loops: WeakSet[asyncio.AbstractEventLoop],
) -> bool:
    """Whether a thread works for one of these pools, or for an executor of these loops."""
    target, arguments = getattr(thread, "_target", None), getattr(thread, "_args", ())
    if getattr(target, "__module__", None) != "concurrent.futures.thread" or not arguments:
        return False
    pool = arguments[0]()  # a thread knows its pool by a weak reference, so that it may be garbage
    if pool is None or pool in pools:
        return pool is not None
    # uvloop's loops tell their executor to nobody but the garbage collector.
    if any(getattr(loop, "_default_executor", None) is pool for loop in loops) or any(
        holder is loop for holder in (gc.get_referrers(pool) if loops else ()) for loop in loops
    ):
        pools.add(pool)
        return True
    return False


def _tasks_of(loop: asyncio.AbstractEventLoop) -> set[Task]:
    return set() if loop.is_closed() else asyncio.all_tasks(loop)


def unfinished(
    loop: asyncio.AbstractEventLoop, known: set[Task] | frozenset[Task] = frozenset()
) -> set[Task]:
    """The tasks of a loop that do not end by themselves, those that are known left out."""
    tasks = _tasks_of(loop) - known
    if tasks and not loop.is_running():
        loop.run_until_complete(asyncio.wait(tasks, timeout=GRACE_S))
    return {task for task in tasks if not task.done()}


def _open_files() -> Iterator[tuple[int, tuple[int, int]]]:
    try:
        names = os.listdir(_DESCRIPTORS)  # noqa: PTH208 - a Path for each is dear, for each test
    except OSError:
        return
    lasting = set(_lasting_descriptors())
    for name in names:
        if int(name) in lasting:
            continue
        try:
            status = os.fstat(int(name))
        except OSError:
            continue  # the descriptor that has listed them
        yield int(name), (status.st_dev, status.st_ino)


def _lasting_descriptors() -> Iterator[int | None]:
    """What multiprocessing opens when it is first needed, and keeps as long as the process."""
    tracker: Any = sys.modules.get("multiprocessing.resource_tracker")
    server: Any = sys.modules.get("multiprocessing.forkserver")
    if tracker is not None:
        yield getattr(tracker._resource_tracker, "_fd", None)
    if server is not None:
        yield getattr(server._forkserver, "_forkserver_alive_fd", None)


def _logger_states() -> Iterator[tuple[str, _LoggerState]]:
    manager = logging.Logger.manager
    yield "logging.disable()", (manager.disable, False, True, (), ())
    yield "root", _state_of(logging.getLogger())
    for name, logger in manager.loggerDict.copy().items():
        if isinstance(logger, logging.Logger):
            state = _state_of(logger)
            if state != _UNTOUCHED:
                yield name, state


def _state_of(logger: logging.Logger) -> _LoggerState:
    handlers = logger.handlers and tuple(each for each in logger.handlers if _counts(each))
    filters = tuple(logger.filters)
    return logger.level, logger.disabled, logger.propagate, tuple(handlers), filters


def _counts(handler: logging.Handler) -> bool:
    """Whether a handler is a test's doing: pytest adds its own, and libraries add idle ones."""
    module = type(handler).__module__
    return module != "_pytest.logging" and not isinstance(handler, logging.NullHandler)


def _told_file(descriptor: int) -> str:
    try:
        target = str((_DESCRIPTORS / str(descriptor)).readlink())
        if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            with socket.socket(fileno=os.dup(descriptor)) as opened:
                target += f" at {opened.getsockname()}"
    except OSError as error:
        target = f"closed meanwhile: {error.strerror}"
    return f"file {descriptor}: {target}"


def _told_logger(name: str, was: _LoggerState, state: _LoggerState) -> str:
    changes = [
        f"{aspect} {now!r} instead of {before!r}"
        for aspect, before, now in zip(_ASPECTS, was, state, strict=True)
        if before != now
    ]
    return f"logger {name}: {', '.join(changes)}"
