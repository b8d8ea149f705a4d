"""The watchdog: a thread that notices when the event loop stands still, and who is to blame."""

import asyncio
import logging
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from types import FrameType
from typing import Final, NamedTuple

from aiohttp import web

from petsage.context import RequestContext, set_current_request
from petsage.troubles import TROUBLES

try:
    from resource import RUSAGE_THREAD, getrusage
except ImportError:  # only Linux counts for each thread

    def _count_waits() -> int:
        return 0

else:

    def _count_waits() -> int:
        """How often this thread has given the processor up so far, to wait for something."""
        return getrusage(RUSAGE_THREAD).ru_nvcsw


_log = logging.getLogger(__name__)

_INTERVAL_S: Final = 0.1
"""How long the watchdog rests between two questions."""

_OVERSLEPT_S: Final = 0.02
"""What a thread may oversleep without anything being wrong."""

_PAUSE_S: Final = 1.0
"""How long it rests after a failure of its own, so as not to fill the log."""

_JOIN_S: Final = 2.0
_MAX_STACK: Final = 40
_FEATURES: Final = "features."
# The functions that call a handler, by module; each has the request's context in hand.
_SERVING: Final = frozenset((("petsage.routing", "serve"), ("petsage.direct", "_answer")))


class Culprit(NamedTuple):
    """What the event loop's thread was doing while it stood still.

    Attributes:
        request: the request in hand, None outside of one.
        feature: the feature whose code, or whose handler, was running.
        place: the innermost line of a feature's, or of anybody's where none was running.
        stack: "file:line in function", the innermost last.
    """

    request: RequestContext | None
    feature: str | None
    place: str
    stack: list[str]


class _Slept(NamedTuple):
    """How much longer a sleep took than it was to.

    Attributes:
        held_s: while a thread held the interpreter, as one did when the process used the
            processor, or the watchdog woke again and again to ask for its turn.
        missed_s: while everything stood still, because the machine slept, or the process was
            stopped or had to wait for others.
        seen: what the loop's thread was doing at its end.
    """

    held_s: float = 0.0
    missed_s: float = 0.0
    seen: Culprit | None = None


class Watchdog:
    """Asks the event loop ten times a second to answer, from a thread of its own.

    A loop that does not answer for `stall_s` is logged once, with the stack and the feature that
    blocks it, and once more when it goes on. What the whole process missed, because the machine
    slept or somebody stopped it, is not held against the loop; off Linux that is also what a call
    misses that holds the interpreter without using the processor.

    Args:
        stall_s: how long the loop may stand still, in seconds; 0 to watch nothing.

    Attributes:
        stalls: how often it stood still.
        stalled_s_total: for how long in all, in seconds.
        lag_s: how long the last answer took, in seconds; while the loop stands still, so far.
        max_lag_s: the longest that one took.
        stalls_by_feature: how often each feature was to blame, "" where none was.
        failures: how often the watch itself failed.
    """

    def __init__(self, stall_s: float) -> None:
        self.stalls = 0
        self.stalled_s_total = 0.0
        self.lag_s = 0.0
        self.max_lag_s = 0.0
        self.stalls_by_feature: Counter[str] = Counter()
        self.failures = 0
        self._stall_s = stall_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self._thread: threading.Thread | None = None
        self._pid = 0
        # Set by the loop's answer, and by a stop: what the thread sleeps on.
        self._wake = threading.Event()
        self._stopping = threading.Event()

    def start(self) -> None:
        """Begins to watch the running loop; called on its thread."""
        if not self._stall_s or self._thread is not None:
            return
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._pid = os.getpid()
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the watch; the thread is gone when it returns."""
        thread, self._thread = self._thread, None
        if thread is None or os.getpid() != self._pid:
            return  # a forked child has no such thread, and locks that nobody opens again
        self._stopping.set()
        self._wake.set()
        thread.join(_JOIN_S)
        if thread.is_alive():
            _log.error("The watchdog's thread did not end within %g s", _JOIN_S)

    def keep(self, features: Collection[str]) -> None:
        """Forgets how often features were to blame that are not among these."""
        for name in self.stalls_by_feature.keys() - {"", *features}:
            del self.stalls_by_feature[name]

    def _run(self) -> None:
        while True:
            try:
                slept = self._sleep(self._stopping, _INTERVAL_S)
                if self._stopping.is_set():
                    return
                self._ask(slept)
            except Exception:  # noqa: BLE001 - logged, unless there is no loop left to watch
                if self._loop is None or self._loop.is_closed():
                    return
                self.failures += 1
                with suppress(Exception):  # it is counted; a filter of somebody's may raise again
                    _log.exception("The watchdog failed, and goes on in %g s", _PAUSE_S)
                self._stopping.wait(_PAUSE_S)

    def _ask(self, slept: "_Slept") -> None:
        """Asks the loop once, and waits for its answer, however long it takes.

        Args:
            slept: the sleep before it. As long as somebody held the interpreter, the loop has not
                run, either.
        """
        assert self._loop is not None  # noqa: S101 - for mypy: `start` sets it
        self._wake.clear()
        answers: list[float] = []
        asked = time.monotonic() - slept.held_s
        missed_s = 0.0
        self.lag_s = slept.held_s
        culprit = self._report(slept.seen) if slept.held_s >= self._stall_s else None
        self._loop.call_soon_threadsafe(self._answer, answers)
        while not answers and not self._stopping.is_set():
            slept = self._sleep(self._wake, min(_INTERVAL_S, self._stall_s))
            missed_s += slept.missed_s
            self.lag_s = max(time.monotonic() - asked - missed_s, 0.0)
            if culprit is None and not answers and self.lag_s >= self._stall_s:
                culprit = self._report(slept.seen)
        if not answers:
            return  # it is stopping
        took_s = self.lag_s = max(answers[0] - asked - missed_s, 0.0)
        self.max_lag_s = max(self.max_lag_s, took_s)
        if culprit is None and took_s >= self._stall_s:
            culprit = self._report(slept.seen)  # it went on just before it could be looked at
        if culprit is not None:
            self.stalled_s_total += took_s
            self._report_end(culprit, took_s)

    def _answer(self, answers: list[float]) -> None:
        """Called by the loop."""
        answers.append(time.monotonic())
        self._wake.set()

    def _report(self, seen: Culprit | None) -> Culprit:
        """Counts a stall that goes on, and logs it.

        Args:
            seen: who was seen at it already.
        """
        culprit = seen or _look_at(self._loop_thread)
        self.stalls += 1
        self.stalls_by_feature[culprit.feature or ""] += 1
        request = culprit.request
        _note(culprit, self.lag_s, again=True)
        # The line is about that request, and bears its id and its feature as its own lines do.
        set_current_request(request)
        try:
            _log.error(
                "The event loop has stood still for %.1f s: %s at %s",
                self.lag_s,
                _blame(culprit),
                culprit.place,
                extra={
                    "blocking_feature": culprit.feature,
                    "route": request.route if request is not None else None,
                    "stack": culprit.stack,
                },
            )
        finally:
            set_current_request(None)
        return culprit

    def _report_end(self, culprit: Culprit, took_s: float) -> None:
        _note(culprit, took_s, again=False)
        set_current_request(culprit.request)
        try:
            _log.warning(
                "The event loop goes on after %.1f s: %s at %s",
                took_s,
                _blame(culprit),
                culprit.place,
                extra={"blocking_feature": culprit.feature, "stalled_s": round(took_s, 3)},
            )
        finally:
            set_current_request(None)

    def _sleep(self, wake: threading.Event, seconds: float) -> "_Slept":
        """Sleeps until `wake` is set, `seconds` at most, and says what made it longer."""
        began, used, turns = time.monotonic(), time.process_time(), _count_waits()
        wake.wait(seconds)
        overslept = time.monotonic() - began - seconds
        if overslept < _OVERSLEPT_S:
            return _Slept()
        # Before anything else: who held the interpreter goes on as soon as this thread lets it.
        seen = _look_at(self._loop_thread)
        # Who waits for the interpreter asks once a switch interval; in a stopped process, never.
        asked_s = (_count_waits() - turns) * sys.getswitchinterval()
        held_s = min(max(time.process_time() - used, asked_s), overslept)
        return _Slept(held_s, overslept - held_s, seen)


def _note(culprit: Culprit, seconds: float, *, again: bool) -> None:
    said = f"it blocked the event loop, and so every request, for {seconds:.1f} s"
    fix = "await what takes time: `await asyncio.to_thread(…)`"
    problem = f"{said} at {culprit.place}"
    TROUBLES.note(culprit.feature, "loop-blocked", problem, fix=fix, again=again)


def _blame(culprit: Culprit) -> str:
    name = culprit.feature
    return "it was blocked" if name is None else f"feature {name} blocked it"


def _look_at(thread: int) -> Culprit:
    """What a thread is doing now; no frame is kept, since each keeps its locals alive."""
    request: RequestContext | None = None
    feature: str | None = None
    place: str | None = None
    stack: list[str] = []
    frame: FrameType | None = sys._current_frames().get(thread)
    while frame is not None:
        line = f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"
        if len(stack) < _MAX_STACK:
            stack.append(line)
        module = frame.f_globals.get("__name__")
        if not isinstance(module, str):
            module = ""
        if place is None and module.startswith(_FEATURES):
            place, feature = line, module.split(".", 2)[1]
        if (module, frame.f_code.co_name) in _SERVING:
            found = frame.f_locals.get("context")
            request = found if isinstance(found, RequestContext) else None
            break
        frame = frame.f_back
    del frame
    if request is not None and request.feature is not None:
        feature = request.feature
    return Culprit(request, feature, place or (stack[0] if stack else "unknown"), stack[::-1])


WATCHDOG: Final = web.AppKey("watchdog", Watchdog)
"""The watchdog in the root application."""
