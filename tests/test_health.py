"""Running a check: what a probe does becomes a result, whatever it does."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web

from petsage import Check
from petsage.health import run_check

NAME = web.AppKey("NAME", str)


def app() -> web.Application:
    made = web.Application()
    made[NAME] = "the feature's own"
    return made


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def raising(error: BaseException) -> Callable[[web.Application], Awaitable[None]]:
    async def probe(_: web.Application) -> None:
        raise error

    return probe


async def test_a_probe_that_returns_passes() -> None:
    seen = []

    async def probe(given: web.Application) -> None:
        seen.append(given[NAME])

    result = await run_check(Check("store", probe), app())
    assert (result.name, result.passed, result.reason) == ("store", True, None)
    assert seen == ["the feature's own"]
    assert 0 <= result.took_ms < 1000


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConnectionRefusedError("no store"), "ConnectionRefusedError: no store"),
        (ValueError(), "ValueError"),
        (TimeoutError("the store was slow"), "TimeoutError: the store was slow"),
        (asyncio.CancelledError(), "CancelledError"),
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (MuteError(), "MuteError"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
async def test_what_a_probe_raises_is_the_reason(error: BaseException, reason: str) -> None:
    result = await run_check(Check("store", raising(error)), app())
    assert (result.passed, result.reason) == (False, reason)


async def test_a_probe_that_takes_too_long_is_stopped() -> None:
    stopped = asyncio.Event()

    async def probe(_: web.Application) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    result = await run_check(Check("store", probe, timeout_s=0.01), app())
    assert result.reason == "no answer within 0.01 s"
    assert stopped.is_set()
    assert result.took_ms >= 10


async def test_a_probe_that_says_false_has_not_passed() -> None:
    async def probe(_: web.Application) -> bool:
        return False

    check = Check("store", probe)  # type: ignore[arg-type] # the mistake that is tested
    assert (await run_check(check, app())).reason == "the probe returned False"


async def test_who_runs_a_check_can_be_cancelled() -> None:
    begun = asyncio.Event()

    async def probe(_: web.Application) -> None:
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(run_check(Check("store", probe), app()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
