"""Running checks: what a probe does becomes a result, whatever it does and however many ask."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from weakref import ref

import pytest
from aiohttp import web

from petsage import Check
from petsage.context import current_request, new_request_context, set_current_request
from petsage.health import CheckRunner, run_check

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


# The runner


def waiting(
    check_name: str = "store", *, timeout_s: float = 5.0
) -> tuple[Check, list[int], asyncio.Event]:
    """A check whose probe waits for an event; and how often it was begun."""
    runs: list[int] = []
    released = asyncio.Event()

    async def probe(_: web.Application) -> None:
        runs.append(len(runs))
        await released.wait()

    return Check(check_name, probe, timeout_s), runs, released


@pytest.fixture
async def runner() -> AsyncIterator[CheckRunner]:
    runner = CheckRunner()
    yield runner
    await runner.stop()


async def test_however_many_ask_a_check_runs_once(runner: CheckRunner) -> None:
    check, runs, released = waiting()
    given = app()
    asking = [asyncio.create_task(runner.ask("pets.store", check, given)) for _ in range(50)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    released.set()
    results = await asyncio.gather(*asking)
    assert runs == [0]
    assert {result.passed for result in results} == {True}


async def test_who_asks_and_goes_away_cuts_nothing(runner: CheckRunner) -> None:
    check, runs, released = waiting()
    given = app()
    first = asyncio.create_task(runner.ask("pets.store", check, given))
    second = asyncio.create_task(runner.ask("pets.store", check, given))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    released.set()
    assert (await second).passed
    assert runs == [0]


async def test_an_answer_serves_until_it_is_no_longer_fresh() -> None:
    for fresh_s, expected in ((60.0, 1), (0.0, 2)):
        runner = CheckRunner(fresh_s=fresh_s)
        check, runs, released = waiting()
        released.set()
        given = app()
        first = await runner.ask("pets.store", check, given)
        second = await runner.ask("pets.store", check, given)
        assert len(runs) == expected
        assert (second is first) == (expected == 1)
        assert second.age_s >= 0


async def test_a_failure_is_logged_when_it_comes_and_when_it_goes(caplog) -> None:
    caplog.set_level("INFO")
    runner = CheckRunner(fresh_s=0)
    broken: list[Exception | None] = [None, ValueError("a\nb"), ValueError("c"), None, None]

    async def probe(_: web.Application) -> None:
        error = broken.pop(0)
        if error is not None:
            raise error

    check, given = Check("store", probe), app()
    reasons = [(await runner.ask("pets.store", check, given)).reason for _ in range(5)]
    assert reasons == [None, "ValueError: a b", "ValueError: c", None, None]
    assert [(each.levelname, each.getMessage()) for each in caplog.records] == [
        ("WARNING", "Check pets.store fails: ValueError: a b"),
        ("INFO", "Check pets.store passes again"),
    ]


async def test_a_probe_that_will_not_be_cancelled_is_answered_and_not_begun_again(caplog) -> None:
    runner = CheckRunner(fresh_s=0)
    runs, released = [], asyncio.Event()

    async def probe(_: web.Application) -> None:
        runs.append(1)
        while not released.is_set():
            with suppress(asyncio.CancelledError):
                await released.wait()

    check, given = Check("store", probe, timeout_s=0.02), app()
    first = await runner.ask("pets.store", check, given)
    second = await asyncio.wait_for(runner.ask("pets.store", check, given), 1)
    assert first.reason is not None
    assert first.reason.startswith("no answer; the probe ignores its time limit")
    assert second.took_ms >= first.took_ms >= 20
    assert len(runs) == 1
    assert not runner.results()["pets.store"].passed
    released.set()
    running = [task for task in asyncio.all_tasks() if task.get_name() == "check pets.store"]
    await asyncio.wait(running)
    assert runner.results()["pets.store"].reason == "no answer within 0.02 s"

    await runner.ask("pets.store", check, given)
    assert len(runs) == 2


class RudeError(BaseException):
    """Neither an Exception nor one that asyncio knows."""


@pytest.mark.parametrize("error", [RudeError("out"), SystemExit(3)], ids=["rude", "exit"])
async def test_whatever_a_probe_raises_its_run_is_answered(
    runner: CheckRunner, error: BaseException
) -> None:
    result = await runner.ask("pets.store", Check("store", raising(error)), app())
    assert result.reason == f"{type(error).__name__}: {error}"


async def test_a_probe_that_cancels_its_own_run_is_answered(runner: CheckRunner) -> None:
    async def probe(_: web.Application) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    result = await runner.ask("pets.store", Check("store", probe), app())
    assert result.reason == "the run was cancelled"


async def test_a_reason_is_one_line_of_bounded_length(runner: CheckRunner) -> None:
    error = ValueError("no\x1b[31m\ud800\r\n" + "x" * 10_000)
    result = await runner.ask("pets.store", Check("store", raising(error)), app())
    assert result.reason is not None
    assert result.reason.startswith("ValueError: no\ufffd[31m\ufffd xxx")
    assert len(result.reason) < 600


async def test_a_run_belongs_to_no_request(runner: CheckRunner) -> None:
    seen = []

    async def probe(_: web.Application) -> None:
        seen.append(current_request())

    set_current_request(new_request_context())
    await runner.ask("pets.store", Check("store", probe), app())
    assert seen == [None]


async def test_a_feature_that_was_replaced_is_asked_anew_and_not_kept(runner: CheckRunner) -> None:
    kept: list[ref[Check] | ref[web.Application]] = []

    async def ask_one() -> None:
        check, _, released = waiting()
        released.set()
        given = app()
        kept.extend((ref(check), ref(given)))
        assert (await runner.ask("pets.store", check, given)).passed

    await ask_one()
    gc.collect()
    assert [each() for each in kept] == [None, None]
    check = Check("store", raising(ValueError("the new one")))
    assert (await runner.ask("pets.store", check, app())).reason == "ValueError: the new one"


async def test_what_is_no_longer_asked_is_cut_and_forgotten(runner: CheckRunner) -> None:
    check, _, _ = waiting()
    given = app()
    asking = asyncio.create_task(runner.ask("pets.store", check, given))
    await asyncio.sleep(0)
    runner.keep({"cats.store"})
    assert (await asking).reason == "the run was cancelled"
    assert runner.results() == {}


async def test_a_stop_leaves_no_run_and_begins_none() -> None:
    runner = CheckRunner()
    check, runs, _ = waiting()
    given = app()
    asking = asyncio.create_task(runner.ask("pets.store", check, given))
    await asyncio.sleep(0)
    await runner.stop()
    assert not (await asking).passed
    assert (await runner.ask("pets.store", check, given)).reason == (
        "the process stops, and runs no checks any more"
    )
    assert runs == []
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
