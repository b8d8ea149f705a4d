"""What runs in a thread holds up the loop as little as can be."""

import asyncio
import sys
import threading

import pytest

from petsage.worker import in_thread


@pytest.fixture(autouse=True)
def usual_interval():
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.005)
    yield
    sys.setswitchinterval(before)


async def test_turns_are_short_until_the_last_of_several_threads_is_through():
    going = threading.Event()
    first = asyncio.create_task(in_thread(going.wait))
    assert await in_thread(sys.getswitchinterval) == pytest.approx(0.0005)
    assert sys.getswitchinterval() == pytest.approx(0.0005)
    going.set()
    await first
    assert sys.getswitchinterval() == pytest.approx(0.005)


async def test_turns_are_as_before_where_what_runs_fails():
    with pytest.raises(ZeroDivisionError):
        await in_thread(lambda: 1 / 0)
    assert sys.getswitchinterval() == pytest.approx(0.005)


async def test_a_wish_for_longer_or_shorter_turns_is_kept():
    sys.setswitchinterval(0.0001)
    short = sys.getswitchinterval()
    assert await in_thread(sys.getswitchinterval) == short == sys.getswitchinterval()
    await in_thread(sys.setswitchinterval, 0.02)
    assert sys.getswitchinterval() == pytest.approx(0.02)
