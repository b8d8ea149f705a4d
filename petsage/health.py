"""Health: what a feature says of its own, and which part of its life the process is in."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Literal

from aiohttp import web

Phase = Literal["starting", "ready", "draining"]


@dataclass(slots=True)
class ProcessState:
    """What is true of the process as a whole.

    Attributes:
        phase: `starting` until every feature has been looked at, `draining` from the first
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
    """What one run of a check found: `reason` is None when all is well."""

    name: str
    reason: str | None
    took_ms: float

    @property
    def passed(self) -> bool:
        """Whether all is well."""
        return self.reason is None


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
        if answer is False:
            reason = "the probe returned False"
    except (Exception, asyncio.CancelledError, SystemExit, KeyboardInterrupt) as error:
        # A probe has no right to stop the server, nor to pass for cancelled when nobody asked.
        if isinstance(error, asyncio.CancelledError) and _is_cancelled():
            raise
        if isinstance(error, TimeoutError) and limit.expired():
            reason = f"no answer within {check.timeout_s:g} s"
        else:
            reason = _told(error)
    return CheckResult(check.name, reason, (time.perf_counter() - started) * 1000)


def _told(error: BaseException) -> str:
    kind = type(error).__name__
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - an error's own text may fail; its kind is left
        text = ""
    return f"{kind}: {text}" if text else kind


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
