"""Health: what a feature says of its own, and which part of its life the process is in."""

import asyncio
import contextvars
import logging
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Literal
from weakref import ref

from aiohttp import web

from petsage.errors import is_a, words_of

_log = logging.getLogger(__name__)

_FRESH_S: Final = 1.0
"""How long an answer serves those who ask after it."""

_CANCEL_S: Final = 0.1
"""How long a probe may take to end once its time is over and it was cancelled."""

_STOP_S: Final = 1.0
"""How long a stop waits for probes to end."""

_MAX_REASON: Final = 500

Phase = Literal["starting", "ready", "draining"]


@dataclass(slots=True)
class ProcessState:
    """What is true of the process as a whole.

    Attributes:
        phase: `starting` until every feature has been looked at and the management token has its
            file, `draining` from the first
            signal to stop; readiness goes by it.
        loopback_only: whether every socket that is listened on has an address of this machine
            alone; False until something is listened on.
    """

    phase: Phase = "starting"
    loopback_only: bool = False


PROCESS_STATE: Final = web.AppKey("process_state", ProcessState)
"""The state in the root application."""


@dataclass(frozen=True)
class Check:
    """A question that a feature can be asked: is what you depend on there?

    Args:
        name: what it is called, within its feature.
        probe: an `async def` that takes the feature's application, returns when all is well
            and raises when it is not; what it raises is the reason.
        timeout_s: how long the probe may take.
    """

    name: str
    probe: Callable[[web.Application], Awaitable[None]]
    timeout_s: float = 5.0


@dataclass(frozen=True)
class CheckResult:
    """What one run of a check found.

    Attributes:
        reason: why it failed, in one line; None when all is well.
        took_ms: how long the run took, or has taken so far.
        at: `time.monotonic()` when it was found.
    """

    name: str
    reason: str | None
    took_ms: float
    at: float = field(default_factory=time.monotonic)

    @property
    def passed(self) -> bool:
        """Whether all is well."""
        return self.reason is None

    @property
    def age_s(self) -> float:
        """How long ago it was found, in seconds."""
        return time.monotonic() - self.at


async def run_check(check: Check, app: web.Application) -> CheckResult:
    """Runs one check, within its time limit; whatever the probe raises becomes the reason.

    Raises:
        asyncio.CancelledError: the caller is being cancelled, and the probe with it.
    """
    started = time.perf_counter()
    reason: str | None = None
    try:
        async with asyncio.timeout(check.timeout_s) as limit:
            answer: object = await check.probe(app)  # type: ignore[func-returns-value] # may lie
        if limit.expired():  # the probe did not let itself be cancelled
            reason = f"no answer within {check.timeout_s:g} s"
        elif answer is False:
            reason = "the probe returned False"
    except (Exception, asyncio.CancelledError, SystemExit, KeyboardInterrupt) as error:
        # A probe has no right to stop the server, nor to pass for cancelled when nobody asked.
        if is_a(error, asyncio.CancelledError) and _is_cancelled():
            raise
        if is_a(error, TimeoutError) and limit.expired():
            reason = f"no answer within {check.timeout_s:g} s"
        else:
            reason = _told(error)
    return CheckResult(check.name, reason, (time.perf_counter() - started) * 1000)


def _told(error: BaseException) -> str:
    """What an error says, in one line of bounded length."""
    kind = type(error).__name__
    try:
        words = " ".join(words_of(error)[: 2 * _MAX_REASON].split())
        text = "".join(each if each.isprintable() else "\ufffd" for each in words)
    except BaseException:  # noqa: BLE001 - an error's own text may fail; its kind is left
        text = ""
    told = f"{kind}: {text}" if text else kind
    return told if len(told) <= _MAX_REASON else f"{told[:_MAX_REASON]}…"


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class _Slot:
    """What is known of one check: its last result, and the run that goes on.

    The check and its application are known by weak references: a feature that is no longer
    served must not live on in its results.
    """

    def __init__(self, name: str, check: Check, app: web.Application) -> None:
        self.name = name
        self.result: CheckResult | None = None
        self.task: asyncio.Task[CheckResult] | None = None
        self.began = 0.0
        self.late = False
        self.answered = asyncio.Event()
        self.timer: asyncio.TimerHandle | None = None
        self._check = ref(check)
        self._app = ref(app)

    def is_of(self, check: Check, app: web.Application) -> bool:
        """Whether this is what is known of `check`, asked of `app`."""
        return self._check() is check and self._app() is app

    def overdue(self) -> CheckResult:
        """What is said of a run that goes on, though its time is over and it was cancelled."""
        took_s = time.monotonic() - self.began
        reason = f"no answer; the probe ignores its time limit, and runs since {took_s:.1f} s"
        return CheckResult(self.name, reason, took_s * 1000)


class CheckRunner:
    """Runs checks: each at most once at a time, however many ask, and not again too soon.

    Args:
        fresh_s: how long a result answers those who ask after it, in seconds.
    """

    def __init__(self, *, fresh_s: float = _FRESH_S) -> None:
        self._fresh_s = fresh_s
        self._slots: dict[str, _Slot] = {}
        self._tasks: set[asyncio.Task[CheckResult]] = set()
        self._stopped = False

    async def ask(self, name: str, check: Check, app: web.Application) -> CheckResult:
        """What a check finds: now, or less than `fresh_s` ago; it comes within its time limit.

        Who asks while it runs gets that run's answer, and may go away without cutting it. A
        probe that outlives its time limit is not started again before it has ended.

        Args:
            name: the check's whole name, "<feature>.<check>"; results are kept under it.
            check: what to run.
            app: the application that its probe gets.
        """
        if self._stopped:
            return CheckResult(name, "the process stops, and runs no checks any more", 0.0)
        slot = self._slots.get(name)
        if slot is None or not slot.is_of(check, app):
            if slot is not None:
                self._drop(slot)
            slot = self._slots[name] = _Slot(name, check, app)
        if slot.task is None:
            if slot.result is not None and slot.result.age_s < self._fresh_s:
                return slot.result
            self._begin(slot, check, app)
        await slot.answered.wait()
        return slot.overdue() if slot.late or slot.result is None else slot.result

    def results(self) -> dict[str, CheckResult]:
        """The last result of each check that has one, by its whole name; nothing is run."""
        return {slot.name: slot.result for slot in self._slots.values() if slot.result is not None}

    def keep(self, names: Collection[str]) -> None:
        """Forgets every check but those of these names, and cuts what still runs of them."""
        for name in [name for name in self._slots if name not in names]:
            self._drop(self._slots.pop(name))

    async def stop(self) -> None:
        """Cuts what runs, and runs nothing any more; what will not end is named and left."""
        self._stopped = True
        self.keep(())
        if not self._tasks:
            return
        _, left = await asyncio.wait(self._tasks, timeout=_STOP_S)
        for task in left:
            _log.error("The %s was cancelled, and runs on", task.get_name())

    def _begin(self, slot: _Slot, check: Check, app: web.Application) -> None:
        slot.began, slot.late = time.monotonic(), False
        slot.answered.clear()
        # In a context of its own: the run is everybody's, and not the request's that came first.
        context = contextvars.Context()
        slot.task = asyncio.create_task(
            run_check(check, app), name=f"check {slot.name}", context=context
        )
        self._tasks.add(slot.task)
        slot.task.add_done_callback(partial(self._end, slot), context=context)
        slot.timer = asyncio.get_running_loop().call_later(
            check.timeout_s + _CANCEL_S, self._say_overdue, slot, context=context
        )

    def _end(self, slot: _Slot, task: "asyncio.Task[CheckResult]") -> None:
        """Called when a run is over."""
        self._tasks.discard(task)
        if slot.timer is not None:
            slot.timer.cancel()
        took_ms = (time.monotonic() - slot.began) * 1000
        if task.cancelled():
            found = CheckResult(slot.name, "the run was cancelled", took_ms)
        elif (error := task.exception()) is not None:
            found = CheckResult(slot.name, _told(error), took_ms)
        else:
            ended = task.result()
            found = CheckResult(slot.name, ended.reason, ended.took_ms, ended.at)
        slot.task, slot.late = None, False
        self._note(slot, found)

    def _say_overdue(self, slot: _Slot) -> None:
        """Called when a run should have ended."""
        slot.late = True
        self._note(slot, slot.overdue())

    def _note(self, slot: _Slot, found: CheckResult) -> None:
        """Keeps a result, tells those who wait, and logs it where the check has changed."""
        before = slot.result
        slot.result = found
        slot.answered.set()
        if self._slots.get(slot.name) is not slot:
            return  # nobody asks for it any more
        passed_before = before is None or before.passed
        if passed_before and not found.passed:
            _log.warning("Check %s fails: %s", slot.name, found.reason)
        elif found.passed and not passed_before:
            _log.info("Check %s passes again", slot.name)

    def _drop(self, slot: _Slot) -> None:
        """Cuts the run of a check that nobody asks for any more."""
        if slot.task is not None:
            slot.task.cancel()


CHECKS: Final = web.AppKey("checks", CheckRunner)
"""The runner in the root application; `results` says what was found last."""
