"""An event loop that stands still is noticed, and who is to blame is named."""

import asyncio
import logging
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

import pytest

from petsage.health import CHECKS
from petsage.watchdog import WATCHDOG, Watchdog
from tests.conftest import write_feature

LOGGER = "petsage.watchdog"
STANDS = "The event loop has stood still"
GOES_ON = "The event loop goes on"

BLOCKS = """
import asyncio
import ctypes
import time
from petsage import Check, Feature, Routes

routes = Routes()

@routes.get("/sleep")
async def sleep(seconds: float = 0) -> int:
    time.sleep(seconds)
    return 1

@routes.get("/nap")
async def nap() -> int:
    time.sleep(0.6)
    return 1

@routes.get("/nested")
async def nested() -> int:
    async def inner():
        time.sleep(0.6)
    await asyncio.create_task(inner())
    return 1

@routes.get("/count")
async def count(numbers: int = 0) -> int:
    total = sum(range(numbers))  # in C, with the interpreter held
    time.sleep(0.1)  # it can be looked at from here on
    return total

@routes.get("/hold")
async def hold() -> int:
    ctypes.PyDLL(None).usleep(900_000)  # held as well, and the processor is idle
    time.sleep(0.1)
    return 1

async def block(app):
    time.sleep(0.6)

async def lifespan(app):
    LIFESPAN
    yield

feature = Feature(routes, lifespan=lifespan, checks=[Check("slow", block)])
"""


@pytest.fixture
def petsage_settings(petsage_settings):
    """The settings, with a loop that may stand still for 250 ms."""
    server = petsage_settings.server.model_copy(update={"stall_ms": 250})
    return petsage_settings.model_copy(update={"server": server})


class Lines(logging.Handler):
    """Waits for lines of the watchdog's."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._texts: list[str] = []
        self._more = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self._texts.append(record.getMessage())
        self._loop.call_soon_threadsafe(self._more.set)

    async def wait_for(self, text: str) -> None:
        async with asyncio.timeout(60):
            while not any(text in each for each in self._texts):
                self._more.clear()
                await self._more.wait()


@pytest.fixture
async def lines(log_pipeline) -> AsyncIterator[Lines]:
    """The watchdog's lines, from here on; each after it is in the log."""
    handler = Lines()
    handler.addFilter(logging.Filter(LOGGER))
    root = logging.getLogger()
    assert log_pipeline in root.handlers  # they are called in the order in which they came
    root.addHandler(handler)
    yield handler
    root.removeHandler(handler)


@pytest.fixture
def serve(feature_folder, feature_client):
    """Call it to serve a feature that blocks."""

    async def serve(lifespan: str = "pass"):
        folder = feature_folder("sleepy", BLOCKS.replace("LIFESPAN", lifespan))
        return await feature_client(folder)

    return serve


def told(log_lines, text):
    return [
        line
        for line in log_lines()
        if line["logger"] == LOGGER and line["message"].startswith(text)
    ]


def line_of(source: str) -> int:
    return BLOCKS.splitlines().index(source) + 1


async def test_a_handler_without_arguments_that_blocks_is_named_with_its_request(
    serve, lines, log_lines
):
    client = await serve()
    await client.get("/api/v1/nap", headers={"X-Request-ID": "me"})
    await lines.wait_for(GOES_ON)

    (stands,) = told(log_lines, STANDS)
    assert (stands["route"], stands["request_id"]) == ("/api/v1/nap", "me")
    assert (stands["feature"], stands["blocking_feature"]) == ("sleepy", "sleepy")


async def test_a_handler_that_blocks_is_named_while_it_does(serve, lines, log_lines):
    client = await serve()
    began = time.time()
    answer = await client.get("/api/v1/sleep?seconds=0.8", headers={"X-Request-ID": "me"})
    assert answer.status == 200
    await lines.wait_for(GOES_ON)

    (stands,) = told(log_lines, STANDS)
    (goes_on,) = told(log_lines, GOES_ON)
    assert stands["level"] == "ERROR"
    assert (stands["feature"], stands["request_id"]) == ("sleepy", "me")
    assert (stands["route"], stands["blocking_feature"]) == ("/api/v1/sleep", "sleepy")
    place = f"sleepy/__init__.py:{line_of('    time.sleep(seconds)')} in sleep"
    assert "feature sleepy blocked it at" in stands["message"]
    assert stands["message"].endswith(place)
    assert stands["stack"][-1].endswith(place)
    assert len(stands["stack"]) <= 40
    assert goes_on["level"] == "WARNING"
    assert goes_on["request_id"] == "me"
    assert 0.4 <= goes_on["stalled_s"] <= time.time() - began
    assert stands["timestamp"] < goes_on["timestamp"]

    watchdog = client.app[WATCHDOG]
    assert watchdog.stalls == 1
    assert watchdog.stalls_by_feature == {"sleepy": 1}
    assert watchdog.stalled_s_total == pytest.approx(goes_on["stalled_s"], abs=0.01)
    assert watchdog.max_lag_s >= watchdog.stalled_s_total - 0.01


async def test_a_task_of_a_handlers_own_is_found_by_its_code(serve, lines, log_lines):
    client = await serve()
    await client.get("/api/v1/nested")
    await lines.wait_for(GOES_ON)
    (stands,) = told(log_lines, STANDS)
    assert stands["blocking_feature"] == "sleepy"
    assert stands["request_id"] is None
    assert stands["message"].endswith("in nested.<locals>.inner")


async def test_who_calls_what_blocks_is_to_blame(feature_folder, feature_client, lines, log_lines):
    feature_folder("slow", BLOCKS.replace("LIFESPAN", "pass"))
    caller = """
        from features.slow.work import work
        from petsage import Feature, Routes

        routes = Routes()

        @routes.get("/call")
        async def call() -> int:
            return work()

        feature = Feature(routes, needs=["slow"])
    """
    feature_folder(
        "slow", {"work.py": "import time\ndef work():\n    time.sleep(0.6)\n    return 1"}
    )
    client = await feature_client(feature_folder("caller", caller))
    await client.get("/api/v1/call")
    await lines.wait_for(GOES_ON)
    (stands,) = told(log_lines, STANDS)
    assert stands["feature"] == stands["blocking_feature"] == "caller"
    assert stands["message"].endswith("slow/work.py:3 in work")


async def test_code_that_holds_the_interpreter_is_noticed(serve, lines, log_lines):
    client = await serve()
    await client.get("/api/v1/count?numbers=200000000")
    await lines.wait_for(GOES_ON)
    assert client.app[WATCHDOG].stalls == 1
    (stands,) = told(log_lines, STANDS)
    assert stands["blocking_feature"] == "sleepy"


@pytest.mark.skipif(sys.platform != "linux", reason="nobody else counts a thread's waits")
async def test_code_that_holds_the_interpreter_and_sleeps_is_noticed(serve, lines, log_lines):
    client = await serve()
    await client.get("/api/v1/hold")
    await lines.wait_for(GOES_ON)
    (stands,) = told(log_lines, STANDS)
    assert stands["blocking_feature"] == "sleepy"
    assert client.app[WATCHDOG].stalls == 1


async def test_a_lifespan_that_blocks_is_named(serve, lines, log_lines):
    await serve(lifespan="time.sleep(0.6)")
    await lines.wait_for(GOES_ON)
    (stands,) = told(log_lines, STANDS)
    assert (stands["blocking_feature"], stands["feature"]) == ("sleepy", None)
    assert stands["message"].endswith(f":{line_of('    LIFESPAN')} in lifespan")


async def test_a_check_that_blocks_is_named(serve, lines, log_lines):
    client = await serve()
    await client.get("/readyz")
    await lines.wait_for(GOES_ON)
    (stands,) = told(log_lines, STANDS)
    assert stands["blocking_feature"] == "sleepy"
    assert stands["message"].endswith("in block")
    assert client.app[CHECKS].results()["sleepy.slow"].passed


async def test_what_is_short_is_no_stall_and_counts_as_lag(serve, lines):
    client = await serve()
    watchdog = client.app[WATCHDOG]
    while watchdog.max_lag_s < 0.02:
        await client.get("/api/v1/sleep?seconds=0.1")
    assert watchdog.stalls == 0


async def test_a_stall_is_logged_once_for_as_long_as_it_lasts(serve, lines, log_lines):
    client = await serve()
    for number in (1, 2):
        await client.get("/api/v1/sleep?seconds=1")
        await lines.wait_for(GOES_ON)
        lines._texts.clear()
        assert len(told(log_lines, STANDS)) == len(told(log_lines, GOES_ON)) == number


async def test_the_thread_ends_with_the_application(serve):
    client = await serve()
    (thread,) = [each for each in threading.enumerate() if each.name == "watchdog"]
    assert thread.daemon
    await client.close()
    assert not thread.is_alive()


async def test_nothing_is_watched_where_the_limit_is_0():
    watchdog = Watchdog(0)
    watchdog.start()
    assert not [each for each in threading.enumerate() if each.name == "watchdog"]
    watchdog.stop()


async def test_a_stop_in_the_middle_of_a_stall_does_not_wait_for_it(lines):
    watchdog = Watchdog(0.05)
    watchdog.start()
    time.sleep(0.4)  # noqa: ASYNC251 - the stall
    began = time.monotonic()
    watchdog.stop()
    assert time.monotonic() - began < 1
    assert watchdog.stalls == 1


async def test_a_failure_of_its_own_does_not_end_the_watch(serve, lines, monkeypatch):
    client = await serve()
    watchdog = client.app[WATCHDOG]
    raised = threading.Event()

    def refuse() -> NoReturn:
        raised.set()
        raise RuntimeError("no frames to look at")

    with monkeypatch.context() as patched:
        patched.setattr(sys, "_current_frames", refuse)
        await client.get("/api/v1/sleep?seconds=0.6")
        assert await asyncio.to_thread(raised.wait, 10)
    await client.get("/api/v1/sleep?seconds=1.6")  # longer than it pauses after a failure
    await lines.wait_for(GOES_ON)
    assert watchdog.failures == 1
    assert watchdog.stalls == 1  # the one that it could look at
    metrics = await (await client.get("/metrics")).text()
    assert "petsage_watchdog_failures_total 1" in metrics


def test_a_process_that_was_stopped_blames_nobody(project, start_server):
    write_feature(project, "sleepy", BLOCKS.replace("LIFESPAN", "pass"))
    token = "a-token-of-enough-characters"
    server = start_server(
        env={"PETSAGE_SERVER__STALL_MS": "500", "PETSAGE_MANAGEMENT__TOKEN": token}
    )
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}

    def stalls() -> float:
        _, document = server.get("/livez", **headers)
        counted: float = document["checks"]["event_loop:stalls"][0]["observedValue"]
        return counted

    for seconds in (0, 0.25):  # between two questions of the watchdog's, and in one
        with ThreadPoolExecutor() as pool:
            call = pool.submit(server.get, f"/api/v1/sleep?seconds={seconds}")
            time.sleep(0.15)
            server.signal(signal.SIGSTOP)
            time.sleep(1)  # the time that must not count
            server.signal(signal.SIGCONT)
            assert call.result()[0] == 200
    assert stalls() == 0

    server.get("/api/v1/sleep?seconds=0.9")
    line = server.wait_for(lambda line: line["message"].startswith(GOES_ON))
    assert line["feature"] == "sleepy"
    assert stalls() == 1
    server.signal(signal.SIGTERM)
    assert server.end()[0] == 0
