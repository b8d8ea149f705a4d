"""Checks: what a feature says of its own health."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web


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
    """Runs one check, within its time limit; whatever the probe raises becomes the reason."""
    started = time.perf_counter()
    reason: str | None = None
    try:
        async with asyncio.timeout(check.timeout_s):
            await check.probe(app)
    except TimeoutError:
        reason = f"no answer within {check.timeout_s:g} s"
    except Exception as error:  # noqa: BLE001 - the reason is what the check is for
        reason = f"{type(error).__name__}: {error}"
    return CheckResult(check.name, reason, (time.perf_counter() - started) * 1000)
