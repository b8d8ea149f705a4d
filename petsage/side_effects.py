"""What an import changed of the process, put back, and told with the line that did it.

A feature shares its process with all others and with the server: what it sets for itself, it sets
for them. Warnings' filters that are no errors everywhere, loggers of its own, `atexit`, and what
stands inside of modules but is assigned by no name are not looked at.

Longer than 300 lines: one thing of the process after another, each looked at and put back.
"""

import ast
import asyncio
import builtins
import contextlib
import gc
import importlib.util
import locale
import logging
import operator
import os
import resource
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Final, NamedTuple

from petsage.feature import Place
from petsage.patches import Target, find_targets
from petsage.signature import Flaw
from petsage.snapshot import PACKAGE, Snapshot, is_test
from petsage.stacks import told_thread

_Values = Mapping[str, Any]

_PLAIN: Final = frozenset((bool, bytes, float, int, str))
_LISTED: Final = 5
# A thread or process that the import started and that is about to end may take this long for it.
_GRACE_S: Final = 0.1
_LOOK_S: Final = 0.01
_ROOT_LEVEL: Final = "the root logger's level"


class _Aspect(NamedTuple):
    """One thing of the process that an import is to leave as it was.

    Attributes:
        what: what it is called in a sentence; empty where the names of its values say that.
        fix: what is to be done instead.
        words: how a source spells what changes it.
        look: its values now, by their names.
        put_back: given those of before, and the names of those that differ.
        known_only: whether what was not there before, or is there no more, does not count.
        lasting: whether what was not there before does not count, and what is there no more does.
        strict_only: whether it is looked at only where the process does nothing else.
    """

    what: str
    fix: str
    words: tuple[str, ...]
    look: Callable[[], _Values]
    put_back: Callable[[_Values, Collection[str]], None]
    known_only: bool = False
    lasting: bool = False
    strict_only: bool = False


class ProcessState:
    """The process as it is before an import; `undo` puts it back so, and says what differed.

    It is made and undone in the thread that imports, since traces are each thread's own.

    Args:
        strict: whether this process does nothing else meanwhile, so that whatever differs is the
            import's doing. Else what an operator or another thread may well change is let be.
        known: what has just been seen of it.
    """

    def __init__(
        self, *, strict: bool, known: "list[tuple[_Aspect, _Values]] | None" = None
    ) -> None:
        self._strict = strict
        self._threads = set(sys._current_frames())
        self._children = running_children() if strict else set()
        self._before = known or [
            (aspect, _look(aspect)) for aspect in _ASPECTS if strict or not aspect.strict_only
        ]
        self._following: list[tuple[_Aspect, _Values]] | None = None
        self._targets: list[Target] = []

    def expect(self, snapshot: Snapshot) -> None:
        """Looks at what the sources assign of others' modules, just before they are imported."""
        self._targets = find_targets(snapshot)

    def undo(self, snapshot: Snapshot) -> list[tuple[Place | None, Flaw]]:
        """Each kind of change, with the line of the feature's own that made it, where one shows.

        Args:
            snapshot: the feature that was imported.
        """
        found = []
        after = [(aspect, _look(aspect)) for aspect, _ in self._before]
        for (aspect, before), (_, now) in zip(self._before, after, strict=True):
            names = _changed(aspect, before, now)
            if not names or (not self._strict and names == [_ROOT_LEVEL]):
                continue  # of a live process, the level is an operator's to change
            problem = f"{_told(aspect.what, names)} changed while it was imported"
            try:
                aspect.put_back(before, names)
                problem += ", and was put back"
            except Exception as error:  # noqa: BLE001 - an import may have put anything there
                problem += f", and cannot be put back: {type(error).__name__}"
            flaw = Flaw("import-side-effect", problem, aspect.fix)
            found.append((find_words(snapshot, aspect.words, names), flaw))
        told = " ".join(flaw.problem for _, flaw in found)
        found += [
            *self._patches(told),
            *self._new_threads(snapshot),
            *self._new_processes(snapshot),
        ]
        self._following = None if found else after
        return found

    def following(self) -> "ProcessState":
        """The state before the next import, where nothing of a feature has run since `undo`.

        Where that has found nothing, what it has seen is not looked at once more.
        """
        return ProcessState(strict=self._strict, known=self._following)

    def _patches(self, told: str) -> Iterator[tuple[Place | None, Flaw]]:
        """What stands for something of somebody else's, which is put back; `told` is not again."""
        for each in self._targets:
            if not each.is_changed:
                continue
            each.put_back()
            if each.name not in told:
                problem = f"{each.name} changed while it was imported, and was put back"
                fix = "take it out, and call what is to be another by a name of the feature's own"
                yield each.place, Flaw("import-side-effect", problem, fix)

    def _new_threads(self, snapshot: Snapshot) -> Iterator[tuple[Place | None, Flaw]]:
        """What the import started and runs on; it cannot be ended from outside."""
        if not sys._current_frames().keys() - self._threads:
            return
        for thread in threading.enumerate():
            if thread.ident not in self._threads and not _ends(thread):
                yield from self._new_thread(thread.ident, told_thread(thread), snapshot)
        known = {thread.ident for thread in threading.enumerate()}
        for ident in sys._current_frames().keys() - self._threads - known:
            # Such a thread may have been begun by an earlier import, and run only now.
            if _place_of(ident, snapshot) is not None:
                yield from self._new_thread(ident, "one of `_thread`", snapshot)

    def _new_thread(
        self, ident: int | None, told: str, snapshot: Snapshot
    ) -> Iterator[tuple[Place | None, Flaw]]:
        place = _place_of(ident, snapshot)
        if place is None and not self._strict:
            return  # a server begins threads of its own at any time
        problem = f"the import started a thread that runs on: {told}"
        fix = "start it in the lifespan, and end it there"
        where = place or find_words(snapshot, _STARTERS)
        yield where, Flaw("import-side-effect", problem, fix)

    def _new_processes(self, snapshot: Snapshot) -> Iterator[tuple[Place | None, Flaw]]:
        """What the import started and runs on, ended here; a server's own are not looked for."""
        if not self._strict:
            return
        deadline = time.monotonic() + _GRACE_S
        while (new := running_children() - self._children) and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
        for pid in sorted(new - {_tracker()}):
            # By its name alone: arguments may be secrets.
            problem = f"the import started a process that runs on: {_name_of(pid)}"
            fix = "start it in the lifespan, and end it there"
            yield find_words(snapshot, _FORKERS), Flaw("import-side-effect", problem, fix)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def running_children() -> set[int]:
    """The processes that have this one for a parent, without those that have ended."""
    if sys.platform != "linux":
        return set()
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:  # none at all, which is soon said
        return set()
    own, found = str(os.getpid()), set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError):
            state, parent = status.read_text(errors="replace").rpartition(")")[2].split()[:2]
            if parent == own and state != "Z":
                found.add(int(status.parent.name))
    return found


def _name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    except OSError:  # it has ended just now
        return "one that has ended since"


def _tracker() -> int | None:
    """The one that `multiprocessing` keeps for the whole process, however often it is asked."""
    module = sys.modules.get("multiprocessing.resource_tracker")
    return getattr(getattr(module, "_resource_tracker", None), "_pid", None)


def find_words(
    snapshot: Snapshot, words: Collection[str], hints: Collection[str] = ()
) -> Place | None:
    """The line that most likely did it: one that has a hint, at the top level, the first.

    Args:
        snapshot: where to look, tests left out.
        words: dotted names, or what they end with ("os.chdir", "environ").
        hints: what else may stand on the line, such as a variable's name.
    """
    found = []
    for order, (within, source) in enumerate(snapshot.sources.items()):
        if is_test(within) or not any(word.rpartition(".")[2].encode() in source for word in words):
            continue
        try:
            tree = ast.parse(source)
            lines = importlib.util.decode_source(source).splitlines()
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        for line, inside in _lines_with(tree, words):
            hinted = any(hint in text for text in lines[line - 1 : line] for hint in hints)
            found.append((not hinted, inside, order, line, within))
    if not found:
        return None
    *_, line, within = min(found)
    return Place(str(snapshot.folder / within), line)


def _lines_with(tree: ast.Module, words: Collection[str]) -> Iterator[tuple[int, bool]]:
    """The lines that have one of the words, and whether each stands inside a function."""
    waiting: list[tuple[ast.AST, bool]] = [(tree, False)]
    while waiting:
        node, inside = waiting.pop()
        name = _dotted(node)
        if name and any(f".{name}".endswith(f".{word}") for word in words):
            yield getattr(node, "lineno", 1), inside
        inside = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        waiting += [(child, inside) for child in ast.iter_child_nodes(node)]


def _dotted(node: ast.AST) -> str:
    """`a.b.c` of an attribute, its last part alone where it is of something else than a name."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if isinstance(node, ast.Name):
        parts.append(node.id)
    return ".".join(reversed(parts))


def _look(aspect: _Aspect) -> _Values:
    try:
        return aspect.look()
    except Exception as error:  # noqa: BLE001 - an import may have put anything there
        return {aspect.what or aspect.words[0]: type(error).__name__}


def _changed(aspect: _Aspect, before: _Values, now: _Values) -> list[str]:
    if _are_identical(before, now):
        return []
    if aspect.lasting:
        return [name for name in before if not _same(before[name], now.get(name, _ABSENT))]
    return [
        name
        for name in (before.keys() & now.keys() if aspect.known_only else {**before, **now})
        if not _same(before.get(name, _ABSENT), now.get(name, _ABSENT))
    ]


def _are_identical(before: _Values, now: _Values) -> bool:
    """Whether it is all the very same: so it is for nearly each feature, and soon seen."""
    return (
        len(before) == len(now)
        and all(map(operator.is_, before.values(), now.values()))
        and all(map(operator.is_, before, now))
    )


def _same(one: Any, other: Any) -> bool:
    """Whether they are the same; a feature's own `__eq__` is not asked."""
    if type(one) is tuple and type(other) is tuple:
        return len(one) == len(other) and all(map(_same, one, other))
    return one is other or (type(one) is type(other) and type(one) in _PLAIN and one == other)


def _told(what: str, names: Sequence[str]) -> str:
    """What changed, by its names alone: values may be secrets."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    listed = ", ".join(names[:_LISTED]) + more
    return f"{what} ({listed})" if what else listed


def _ends(thread: threading.Thread) -> bool:
    """Whether it is about to end."""
    if thread is threading.current_thread():
        return True  # the import is done
    with contextlib.suppress(RuntimeError):  # it has not begun yet
        thread.join(_GRACE_S)
    return not thread.is_alive()


def _place_of(ident: int | None, snapshot: Snapshot) -> Place | None:
    """The feature's own line that a thread is in, None where it is in none."""
    frame = sys._current_frames().get(ident or 0)
    while frame is not None:
        if _is_own(frame, snapshot.folder):
            return Place(frame.f_code.co_filename, frame.f_lineno)
        frame = frame.f_back
    return None


def _is_own(frame: FrameType, folder: Path) -> bool:
    return frame.f_code.co_filename.startswith(f"{folder}{os.sep}")


_ABSENT: Final = object()


def _attributes(*names: str) -> Callable[[], _Values]:
    """Reads attributes of modules, `sys.stdout` or the like; one that is not there has none."""
    pairs = [(name, *name.rsplit(".", 1)) for name in names]
    return lambda: {
        name: getattr(sys.modules[module], each, _ABSENT)
        for name, module, each in pairs
        if module in sys.modules
    }


def _set_attributes(before: _Values, names: Collection[str]) -> None:
    for name in names:
        module, _, attribute = name.rpartition(".")
        if before.get(name, _ABSENT) is not _ABSENT:
            setattr(sys.modules[module], attribute, before[name])


def _look_at_path() -> _Values:
    return {"sys.path": tuple(sys.path)}


def _put_path_back(before: _Values, _: Collection[str]) -> None:
    sys.path[:] = before["sys.path"]


def _look_at_finders() -> _Values:
    # A library may well add one when it is imported, and `six` does: it would not work without.
    return {
        f"sys.{name}": tuple(each for each in getattr(sys, name) if _counts(each))
        for name in ("meta_path", "path_hooks")
    }


def _put_finders_back(before: _Values, names: Collection[str]) -> None:
    for name in names:
        finders = getattr(sys, name.removeprefix("sys."))
        left = [each for each in finders if not _is_of_feature(each)]
        finders[:] = [*left, *(each for each in before[name] if each not in left)]


def _counts(finder: Any) -> bool:
    return _is_of_feature(finder) or str(getattr(finder, "__module__", "")).startswith(_PYTHONS)


def _is_of_feature(finder: Any) -> bool:
    return str(getattr(finder, "__module__", "")).startswith(f"{PACKAGE}.")


_PYTHONS: Final = ("_frozen_importlib", "importlib.", "zipimport")


def _look_at_folder() -> _Values:
    try:
        return {"the working directory": os.getcwd()}  # noqa: PTH109 - a text, to be compared
    except OSError:  # it was removed
        return {"the working directory": ""}


def _put_folder_back(before: _Values, _: Collection[str]) -> None:
    os.chdir(before["the working directory"])


def _put_environ_back(before: _Values, names: Collection[str]) -> None:
    for name in names:
        if name in before:
            os.environ[name] = before[name]
        else:
            os.environ.pop(name, None)


def look_at_umask() -> _Values:
    """The process's umask by a name of it; nothing where that cannot be had."""
    # Read where it can be: to ask the system is to set it, and another thread may make a file.
    try:
        with open("/proc/self/status", "rb", buffering=0) as status:  # noqa: PTH123 - often
            words = status.read(_STATUS_BYTES).partition(b"Umask:")[2].split(None, 1)
    except OSError:
        return {}
    return {"the umask": int(words[0], 8)} if words else {}


# The umask stands at its begin.
_STATUS_BYTES: Final = 1024


def _put_umask_back(before: _Values, _: Collection[str]) -> None:
    os.umask(before["the umask"])


def _look_at_signals() -> _Values:
    return {_SIGNALS[number]: signal.getsignal(number) for number in _SIGNALS}


def _put_signals_back(before: _Values, names: Collection[str]) -> None:
    for number, name in _SIGNALS.items():
        if name in names and before[name] is not None:
            signal.signal(number, before[name])  # ValueError in any thread but the main one


_SIGNALS: Final = {
    number: number.name if isinstance(number, signal.Signals) else f"signal {number}"
    for number in sorted(signal.valid_signals())
}


def _look_at_logging() -> _Values:
    root = logging.getLogger()
    return {
        "the root logger's handlers": tuple(root.handlers),
        "the root logger's filters": tuple(root.filters),
        _ROOT_LEVEL: root.level,
        "logging.disable()": logging.Logger.manager.disable,
        "the class of loggers": logging.getLoggerClass(),
        "the factory of records": logging.getLogRecordFactory(),
        "logging.raiseExceptions": logging.raiseExceptions,
    }


def _put_logging_back(before: _Values, names: Collection[str]) -> None:
    root = logging.getLogger()
    setters: Mapping[str, Callable[[Any], object]] = {
        "the root logger's handlers": lambda handlers: root.handlers.__setitem__(_ALL, handlers),
        "the root logger's filters": lambda filters: root.filters.__setitem__(_ALL, filters),
        _ROOT_LEVEL: root.setLevel,
        "logging.disable()": logging.disable,
        "the class of loggers": logging.setLoggerClass,
        "the factory of records": logging.setLogRecordFactory,
        "logging.raiseExceptions": lambda value: setattr(logging, "raiseExceptions", value),
    }
    for name in names:
        setters[name](before[name])


def _look_at_loggers() -> _Values:
    return {
        name: logger.disabled
        for name, logger in logging.Logger.manager.loggerDict.copy().items()
        if isinstance(logger, logging.Logger)
    }


def _put_loggers_back(before: _Values, names: Collection[str]) -> None:
    for name in names:
        logging.getLogger(name).disabled = before[name]


def _look_at_modules() -> _Values:
    return {name: module for name, module in sys.modules.copy().items() if not _is_features(name)}


def _is_features(name: str) -> bool:
    return name == PACKAGE or name.startswith(f"{PACKAGE}.")


def _put_modules_back(before: _Values, names: Collection[str]) -> None:
    for name in names:
        sys.modules[name] = before[name]


def _look_at_core_loggers() -> _Values:
    """The core's loggers that are set up."""
    states = {
        name: (each.level, each.propagate, tuple(each.handlers), tuple(each.filters))
        for name, each in logging.Logger.manager.loggerDict.copy().items()
        if isinstance(each, logging.Logger) and name.partition(".")[0] == "petsage"
    }
    return {name: state for name, state in states.items() if state != _NOT_SET_UP}


_NOT_SET_UP: Final = (logging.NOTSET, True, (), ())


def _put_core_loggers_back(before: _Values, names: Collection[str]) -> None:
    for name in names:
        logger = logging.getLogger(name)
        level, logger.propagate, handlers, filters = before.get(name, _NOT_SET_UP)
        logger.setLevel(level)
        logger.handlers[:], logger.filters[:] = handlers, filters


def _look_at_streams() -> _Values:
    """What the descriptors from 0 to 2 are open on."""
    found: dict[str, Any] = {}
    for number in range(3):
        with contextlib.suppress(OSError):
            status = os.fstat(number)
            found[f"descriptor {number}"] = (status.st_dev, status.st_ino)
    return found


def _refuse_to_put_back(_: _Values, __: Collection[str]) -> None:
    raise OSError("what was closed is not to be had again")


def _look_at_errors() -> _Values:
    everywhere = [each for each in warnings.filters if each[:2] == ("error", None) and not each[3]]
    return {"warnings that are errors everywhere": tuple(everywhere)}


def _put_errors_back(before: _Values, _: Collection[str]) -> None:
    kept = before["warnings that are errors everywhere"]
    now = _look_at_errors()["warnings that are errors everywhere"]
    filters: Any = warnings.filters
    for each in now:
        if each not in kept:
            filters.remove(each)


def _look_at_process() -> _Values:
    values: dict[str, Any] = {
        "threading.stack_size()": threading.stack_size(),
        "tracemalloc": _is_tracing(),
        "sys.set_int_max_str_digits()": sys.get_int_max_str_digits(),
    }
    for name in ("ITIMER_REAL", "ITIMER_VIRTUAL", "ITIMER_PROF"):
        values[f"the timer {name}"] = signal.getitimer(getattr(signal, name)) != (0.0, 0.0)
    for name, number in _LIMITS.items():
        values[f"the limit {name}"] = resource.getrlimit(number)
    return values


def _is_tracing() -> bool:
    tracing: Any = sys.modules.get("tracemalloc")
    return tracing is not None and bool(tracing.is_tracing())


def _put_process_back(before: _Values, names: Collection[str]) -> None:
    for name in names:
        last = name.rpartition(" ")[2]
        if name == "threading.stack_size()":
            threading.stack_size(before[name])
        elif name == "tracemalloc":
            sys.modules["tracemalloc"].stop()
        elif name == "sys.set_int_max_str_digits()":
            sys.set_int_max_str_digits(before[name])
        elif last.startswith("ITIMER"):
            signal.setitimer(getattr(signal, last), 0)
        else:
            resource.setrlimit(_LIMITS[last], before[name])


_LIMITS: Final = {
    name: getattr(resource, name)
    for name in dir(resource)
    if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE"  # another name of RLIMIT_NOFILE
}


def _look_at_limits() -> _Values:
    return {
        "sys.setrecursionlimit()": sys.getrecursionlimit(),
        "sys.setswitchinterval()": sys.getswitchinterval(),
        "socket.setdefaulttimeout()": socket.getdefaulttimeout(),
        "the locale": locale.setlocale(locale.LC_ALL),
        "garbage collection": (gc.isenabled(), gc.get_threshold(), gc.get_debug()),
    }


def _put_limits_back(before: _Values, names: Collection[str]) -> None:
    setters: Mapping[str, Callable[[Any], object]] = {
        "sys.setrecursionlimit()": sys.setrecursionlimit,
        "sys.setswitchinterval()": sys.setswitchinterval,
        "socket.setdefaulttimeout()": socket.setdefaulttimeout,
        "the locale": lambda value: locale.setlocale(locale.LC_ALL, value),
        "garbage collection": _set_collection,
    }
    for name in names:
        setters[name](before[name])


def _set_collection(before: tuple[bool, tuple[int, int, int], int]) -> None:
    is_enabled, threshold, debug = before
    gc.set_debug(debug)
    gc.set_threshold(*threshold)
    (gc.enable if is_enabled else gc.disable)()


def _look_at_traces() -> _Values:
    return {
        "sys.settrace()": sys.gettrace(),
        "sys.setprofile()": sys.getprofile(),
        "threading.settrace()": threading.gettrace(),
        "threading.setprofile()": threading.getprofile(),
    }


def _put_traces_back(before: _Values, names: Collection[str]) -> None:
    for name in names:
        module, _, setter = name.removesuffix("()").partition(".")
        getattr(sys.modules[module], setter)(before[name])


def _look_at_policy() -> _Values:
    # To ask for it makes one, which is no change, and is deprecated from Python 3.14 on.
    policy = getattr(asyncio.events, "_event_loop_policy", None)
    is_usual = type(policy).__module__.startswith("asyncio.")
    return {"the event loop's policy": None if is_usual else policy}


def _put_policy_back(before: _Values, _: Collection[str]) -> None:
    vars(asyncio.events)["_event_loop_policy"] = before["the event loop's policy"]


def _put_builtins_back(before: _Values, names: Collection[str]) -> None:
    for name in names:
        if name in before:
            setattr(builtins, name, before[name])
        else:
            vars(builtins).pop(name, None)


_ALL: Final = slice(None)
_STARTERS: Final = ("Thread", "Timer", "ThreadPoolExecutor", "start_new_thread")
_FORKERS: Final = (
    *("Popen", "fork", "forkpty", "posix_spawn", "posix_spawnp", "os.system", "os.popen"),
    *("spawnl", "spawnlp", "spawnv", "spawnvp", "Process", "Pool", "ProcessPoolExecutor"),
    *("subprocess.run", "create_subprocess_exec", "create_subprocess_shell"),
)
_STREAMS: Final = ("sys.stdin", "sys.stdout", "sys.stderr")
_HOOKS: Final = ("sys.excepthook", "sys.unraisablehook", "sys.displayhook", "threading.excepthook")
_ELSEWHERE: Final = "take it out; where a library needs it, set it before PetSage starts"

_ASPECTS: Final = (
    _Aspect(
        "",
        "write `from .name import …` for its own modules, and install others beside PetSage",
        ("sys.path",),
        _look_at_path,
        _put_path_back,
    ),
    _Aspect(
        "",
        "take it out: a feature is imported as all others are",
        ("meta_path", "path_hooks"),
        _look_at_finders,
        _put_finders_back,
    ),
    _Aspect(
        "",
        "open files by their whole paths: `Path(__file__).parent / …`",
        ("chdir", "fchdir"),
        _look_at_folder,
        _put_folder_back,
    ),
    _Aspect(
        "the environment",
        "give the Feature a `settings` model; what a library needs, set before PetSage starts",
        ("environ", "putenv", "unsetenv", "load_dotenv"),
        lambda: dict(os.environ),
        _put_environ_back,
    ),
    _Aspect(
        "",
        "give the mode where a file is made",
        ("umask",),
        look_at_umask,
        _put_umask_back,
    ),
    _Aspect(
        "the handlers of signals",
        "take it out: signals are the server's; end what runs in the lifespan",
        ("signal.signal", "signal"),
        _look_at_signals,
        _put_signals_back,
    ),
    _Aspect(
        "",
        "take it out, and use `logging.getLogger(__name__)`; levels are set in [logs].levels",
        (
            *("basicConfig", "dictConfig", "fileConfig", "addHandler", "removeHandler", "setLevel"),
            *("logging.disable", "setLoggerClass", "setLogRecordFactory", "raiseExceptions"),
            *("handlers", "addFilter"),
        ),
        _look_at_logging,
        _put_logging_back,
    ),
    _Aspect(
        "whether these loggers are disabled",
        "take it out, or say `disable_existing_loggers: False`",
        ("dictConfig", "fileConfig", "disabled"),
        _look_at_loggers,
        _put_loggers_back,
        known_only=True,
    ),
    _Aspect(
        "",
        "use `logging.getLogger(__name__)`, or `print`, which is logged",
        ("sys.stdin", "sys.stdout", "sys.stderr", "stdout", "stderr", "init"),
        _attributes(*_STREAMS),
        _set_attributes,
    ),
    _Aspect(
        "",
        "take it out: what nobody catches is logged",
        ("excepthook", "unraisablehook", "displayhook", "install"),
        _attributes(*_HOOKS),
        _set_attributes,
    ),
    _Aspect(
        "",
        _ELSEWHERE,
        (
            *("setrecursionlimit", "setswitchinterval", "setdefaulttimeout", "setlocale"),
            *("gc.disable", "gc.enable", "gc.set_threshold"),
        ),
        _look_at_limits,
        _put_limits_back,
    ),
    _Aspect(
        "",
        _ELSEWHERE,
        ("settrace", "setprofile"),
        _look_at_traces,
        _put_traces_back,
    ),
    _Aspect(
        "",
        "take it out: the loop is the server's",
        ("set_event_loop_policy", "install"),
        _look_at_policy,
        _put_policy_back,
    ),
    _Aspect(
        "the modules that others use",
        "take it out; keep what is to be another in a module of the feature",
        ("sys.modules", "modules"),
        _look_at_modules,
        _put_modules_back,
        lasting=True,
        strict_only=True,
    ),
    _Aspect(
        "the loggers of the core",
        "take it out: levels are set in [logs].levels, and sinks in [logs.sinks]",
        ("getLogger", "setLevel", "addHandler", "addFilter", "propagate"),
        _look_at_core_loggers,
        _put_core_loggers_back,
        strict_only=True,
    ),
    _Aspect(
        "what is open",
        "close what the feature has opened, and nothing else",
        ("os.close", "closerange", "dup2"),
        _look_at_streams,
        _refuse_to_put_back,
        lasting=True,
        strict_only=True,
    ),
    _Aspect(
        "",
        "name the category or the module: `warnings.filterwarnings('error', module=…)`",
        ("simplefilter", "filterwarnings"),
        _look_at_errors,
        _put_errors_back,
    ),
    _Aspect(
        "",
        _ELSEWHERE,
        (
            *("setrlimit", "stack_size", "alarm", "setitimer", "tracemalloc.start"),
            *("set_int_max_str_digits", "prlimit"),
        ),
        _look_at_process,
        _put_process_back,
    ),
    _Aspect(
        "builtins",
        "define it in a module of the feature, and import it from there",
        ("builtins", "__builtins__", "install"),
        lambda: dict(vars(builtins)),
        _put_builtins_back,
    ),
)
