"""Fails a test that leaves something behind: a task, a thread, an open file, a logger's setting.

Part of the pytest plugin, and measured by difference: what is there after a test's teardown and
was not before its setup. What fixtures of a wider scope set up and take away is taken out of that.
docs/testing.md says how to allow what a test has to leave.
"""

import asyncio
import gc
import threading
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final
from weakref import WeakSet

import pytest

from petsage.errors import did_you_mean
from petsage.stacks import told_task
from petsage.surroundings import (
    GRACE_S,
    KINDS,
    Surroundings,
    find_pools,
    look,
    unfinished,
    what_came,
)

INI: Final = "petsage_leftovers"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declares the ini option."""
    parser.addini(
        INI,
        f"what no test may leave behind: {', '.join(KINDS)} (the default is all), or `off`",
        type="args",
        default=list(KINDS),
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declares the marker, and begins to look."""
    config.addinivalue_line(
        "markers", f"leaves(*kinds): the test may leave these behind: {', '.join(KINDS)}"
    )
    kinds = config.getini(INI)
    if kinds != ["off"]:
        _require_kinds(kinds, f"the ini option {INI}")
        config.pluginmanager.register(LeftoverCheck(frozenset(kinds)), "petsage-leftovers")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuses a marker that allows what there is not, before any test runs."""
    for item in items:
        _require_kinds(sorted(_allowed(item)), f"@pytest.mark.leaves of {item.nodeid}")


class LeftoverCheck:
    """Looks around before each test and after it.

    Args:
        kinds: what to look for.
    """

    def __init__(self, kinds: frozenset[str]) -> None:
        self._wanted = kinds
        self._kinds = kinds
        self._before: Surroundings | None = None
        self._loops: WeakSet[asyncio.AbstractEventLoop] = WeakSet()
        # Those of wider fixtures and of modules, which start a thread when they first need it.
        self._pools: WeakSet[ThreadPoolExecutor] = WeakSet()
        self._has_begun = False
        self._ending: dict[pytest.FixtureDef[Any], Surroundings] = {}
        self._tasks: list[str] = []
        self._failed = False

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, None, None]:
        """Looks around before anything of the test is there."""
        self._kinds = self._wanted - _allowed(item)
        self._tasks, self._failed = [], False
        if not self._has_begun:
            self._has_begun = True
            self._find_pools()
        self._before = self._look()
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any]
    ) -> Generator[None, object, object]:
        """Takes what fixtures of a wider scope bring out of the account; gets to know loops."""
        is_wider = fixturedef.scope != "function"
        before = self._look() if is_wider else None
        value = yield
        if before is not None and self._before is not None:
            self._before.add_what_came(before, self._look())
            self._find_pools()
        if is_wider:  # runs before the fixture's own teardown
            fixturedef.addfinalizer(lambda: self._look_before_end(fixturedef))
        loop = value.get_loop() if isinstance(value, asyncio.Runner) else value
        if isinstance(loop, asyncio.AbstractEventLoop):
            if is_wider:
                self._loops.add(loop)
            else:  # runs before the fixture closes its loop, and after all that used it has ended
                fixturedef.addfinalizer(lambda: self._look_into(loop))
        return value

    def pytest_fixture_post_finalizer(self, fixturedef: pytest.FixtureDef[Any]) -> None:
        """Takes what the teardown of a wider scope's fixture has changed out of the account."""
        before = self._ending.pop(fixturedef, None)
        if before is not None and self._before is not None:
            self._before.add_what_came(before, self._look())

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Notes that the test has failed: its traceback keeps what it had open."""
        report = yield
        self._failed |= report.failed and call.when != "teardown"
        return report

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, None, None]:
        """Fails the test when something is there that was not before it."""
        yield
        before, self._before = self._before, None
        if before is None or self._failed:
            return
        left = self._tasks
        if left or any(what_came(before, self._look())):
            self._wait(before)
            left = [*left, *what_came(before, self._look())]
        if left:
            listed = "\n".join(f"  {each}" for each in left)
            found = dict.fromkeys(each.partition(" ")[0] for each in left)
            kinds = ", ".join(f'"{kind}"' for kind in found)
            pytest.fail(
                f"{item.nodeid} left behind:\n{listed}\n"
                "fix: end or restore it in the test, or in the teardown of its fixture; where it "
                f"has to stay, mark the test with @pytest.mark.leaves({kinds})",
                pytrace=False,
            )

    def _look(self) -> Surroundings:
        return look(self._kinds, self._loops, self._pools)

    def _find_pools(self) -> None:
        if "thread" in self._wanted:
            self._pools.update(find_pools())

    def _look_before_end(self, fixturedef: pytest.FixtureDef[Any]) -> None:
        self._ending[fixturedef] = self._look()

    def _look_into(self, loop: asyncio.AbstractEventLoop) -> None:
        """Notes the tasks of a loop that is about to be closed, and would cancel them."""
        if "task" in self._kinds and not self._failed:
            self._tasks += [told_task(task) for task in unfinished(loop)]

    def _wait(self, before: Surroundings) -> None:
        """Lets end what is about to: garbage, threads and tasks."""
        gc.collect()
        deadline = time.monotonic() + GRACE_S
        for thread in self._look().threads - before.threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
        for loop in self._loops if "task" in self._kinds else ():
            unfinished(loop, before.tasks)


def _allowed(item: pytest.Item) -> set[str]:
    """What the markers of a test allow it to leave."""
    return {str(kind) for marker in item.iter_markers("leaves") for kind in marker.args}


def _require_kinds(kinds: Sequence[str], place: str) -> None:
    for kind in kinds:
        if kind not in KINDS:
            raise pytest.UsageError(f"{place} names {kind!r}; {did_you_mean(kind, KINDS)}")
