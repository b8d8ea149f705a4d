"""What fails where nobody waits for it: a feature's own tasks, callbacks, threads and finalizers.

Each is a line of the log that names the feature, and none ends the process: a `sys.exit()` in a
task would else end the event loop, and all others with it.
"""

import asyncio
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from petsage.errors import is_a
from petsage.logs.pipeline import Pipeline
from petsage.snapshot import PACKAGE
from petsage.stacks import told_coroutine
from petsage.troubles import TROUBLES, TroubleKind, place_in

T = TypeVar("T")

_log = logging.getLogger(__name__)

_FEATURES: Final = f"{PACKAGE}."
# So many members of groups of errors are looked into.
_MAX_ERRORS: Final = 50
# What either event loop raises when somebody has called its `stop`.
_STOPPED: Final = "Event loop stopped before"
_UNRETRIEVED: Final = "Task exception was never retrieved"
_UNAWAITED: Final = "_warn_unawaited_coroutine"


class Strays:
    """Has what fails in this process told while it is entered.

    That is in threads, in finalizers, in filters and handlers of the log, and by coroutines that
    nobody awaits.

    Args:
        pipeline: of the log.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def __enter__(self) -> Self:
        self._before = threading.excepthook, sys.unraisablehook, self._pipeline.blame
        threading.excepthook, sys.unraisablehook = _tell_thread, _tell_unraisable
        self._pipeline.blame = _blame_for_log
        # Python asks for it by this name; what it hands on to `showwarning` lacks the coroutine.
        self._warn = getattr(warnings, _UNAWAITED, None)
        if self._warn is not None:
            setattr(warnings, _UNAWAITED, partial(_note_unawaited, self._warn))
        return self

    def __exit__(self, *_: object) -> None:
        threading.excepthook, sys.unraisablehook, self._pipeline.blame = self._before
        if self._warn is not None:
            setattr(warnings, _UNAWAITED, self._warn)


def run_to_end(loop: asyncio.AbstractEventLoop, main: "asyncio.Task[T]") -> T:
    """What `main` returns or raises; whatever else would end the loop is logged, and it goes on.

    Args:
        loop: it does not run yet; what fails in it is logged from now on.
        main: a task of it.
    """
    loop.set_exception_handler(_tell_loop)
    while True:
        try:
            return loop.run_until_complete(main)
        except (SystemExit, KeyboardInterrupt, RuntimeError) as error:
            if main.done() or not _is_stray(error):
                raise
            tell(
                feature_behind(error),
                "ended the event loop, which goes on",
                error,
                fix="raise something else; a task or callback has no right to end the process",
                kind="loop-ended",
            )


def feature_behind(error: BaseException | None) -> str | None:
    """The feature whose code raised an error or was on the way, the innermost; None where none."""
    return next((name for each in _members(error) for name in _features_in(each)), None)


def _is_stray(error: BaseException) -> bool:
    # Either loop raises its very own; what a feature calls one may say nothing.
    return type(error) is not RuntimeError or str(error).startswith(_STOPPED)


def _members(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it is a group of."""
    waiting, count = [error], 0
    while waiting and count < _MAX_ERRORS:
        each, count = waiting.pop(), count + 1
        if each is not None:
            yield each
        if is_a(each, BaseExceptionGroup):
            waiting += each.exceptions[:_MAX_ERRORS]


def _features_in(error: BaseException) -> list[str]:
    """The features among the frames of a traceback, the innermost first."""
    found = []
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        found.append(feature_of(trace.tb_frame.f_globals.get("__name__")))
        trace = trace.tb_next
    return [name for name in reversed(found) if name is not None]


def feature_of(module: object) -> str | None:
    """The feature that a module's name is of: "features.pets.routes" → "pets"."""
    if type(module) is str and module.startswith(_FEATURES):
        return module.split(".", 2)[1]
    return None


def _feature_with(thing: Any) -> str | None:
    """The feature that a function, a coroutine or an object is of."""
    while isinstance(thing, partial):
        thing = thing.func
    frame = getattr(thing, "cr_frame", None) or getattr(thing, "ag_frame", None)
    if frame is not None:
        return feature_of(frame.f_globals.get("__name__"))
    return feature_of(
        getattr(thing, "__module__", None) or getattr(type(thing), "__module__", None)
    )


def _tell_loop(_: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
    """The loop's exception handler."""
    error = context.get("exception")
    said = context.get("message") or "Unhandled exception in the event loop"
    if is_a(error, (SystemExit, KeyboardInterrupt)) and said == _UNRETRIEVED:
        return  # it was told when it would have ended the loop
    task = context.get("task") or context.get("future")
    coroutine = task.get_coro() if isinstance(task, asyncio.Task) else context.get("asyncgen")
    name = feature_behind(error)
    for thing in (coroutine, context.get("protocol")):
        name = name or _feature_with(thing)
    if isinstance(task, asyncio.Task):
        said = f"{said}: task {task.get_name()} of {told_coroutine(coroutine)}"
    tell(
        name, f"failed outside of its handlers: {said}", error, fix="await it, or catch that there"
    )


def _tell_thread(args: threading.ExceptHookArgs) -> None:
    """`threading.excepthook`."""
    if args.exc_value is None or issubclass(args.exc_type, SystemExit):
        return
    thread = args.thread.name if args.thread is not None else "?"
    said = f"failed in a thread that nobody waits for: {thread}: {args.exc_type.__name__}"
    tell(feature_behind(args.exc_value), said, args.exc_value, fix="catch it in the thread")


def _tell_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    """`sys.unraisablehook`: what a finalizer raised, or a callback of C."""
    error = unraisable.exc_value
    thing = unraisable.object
    told = getattr(thing, "__qualname__", None) or type(thing).__name__
    said = f"{unraisable.err_msg or 'Exception ignored in'}: {told}"
    name = feature_behind(error) or _feature_with(thing)
    tell(name, f"raised where nobody can catch it: {said}", error, fix="catch it there")


def _blame_for_log(
    who: str, error: BaseException, kept_out: logging.LogRecord | None
) -> str | None:
    """Notes that a filter or handler of the log raised; the feature whose it is."""
    name = feature_behind(error) or (feature_of(kept_out.name) if kept_out is not None else None)
    said = f"its log fails: {who} raised {type(error).__name__}{place_in(error, name)}"
    TROUBLES.note(name, "stray-failed", said, fix="mend it, or take it out")
    return name


def _note_unawaited(warn: Callable[[Any], None], coroutine: Any) -> None:
    """Notes that nobody has awaited a coroutine; the warning is a line of the log."""
    said = f"it never awaited the coroutine {told_coroutine(coroutine)}"
    TROUBLES.note(_feature_with(coroutine), "stray-failed", said, fix="await it")
    warn(coroutine)


def tell(
    name: str | None,
    said: str,
    error: BaseException | None,
    *,
    fix: str,
    kind: TroubleKind = "stray-failed",
) -> None:
    """Logs what a feature has done where nobody waits for it, and notes it for operators.

    Args:
        name: the feature, None where it is not known.
        said: what it did, after its name.
        error: what was raised, if anything was.
        fix: what mends it.
        kind: of trouble.
    """
    raised = "" if error is None else f"; {type(error).__name__}{place_in(error, name)}"
    TROUBLES.note(name, kind, f"it {said}{raised}", fix=fix)
    _log.error(
        "%s %s; fix: %s",
        f"Feature {name}" if name is not None else "Something",
        said,
        fix,
        exc_info=error,
        extra={"failing_feature": name},
    )
