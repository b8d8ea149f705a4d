"""Under load, while folders change: nothing fails, nothing is mixed, and nothing is left behind."""

import asyncio
import signal
from collections import Counter
from collections.abc import Callable, Collection, Iterator

import pytest

from tests.asking import Asking
from tests.changing import BREAKS, Changes, Told, furnish, write
from tests.inside import INSIDE, Inside, look_inside

SETTINGS = {
    "PETSAGE_CATALOG__CHECK_TIMEOUT_S": "3",
    "PETSAGE_LOGS__FLUSH_MS": "0",
    "PETSAGE_SERVER__DRAIN_S": "5",  # streams come to their end
}
STEADY = ("threads", "children", "series", "leaked", "tasks", "loggers", "modules")
MOST_KB = 5_000
VISITORS = ("guest", "lodger")
Start = Callable[..., tuple[Told, Changes]]


@pytest.fixture
def start(project, start_server) -> Iterator[Start]:
    """Starts a server whose features can be changed."""
    started: list[Told] = []

    def begin(settle_ms: int = 60, breaks: Collection[str] = tuple(BREAKS)) -> tuple[Told, Changes]:
        furnish(project / "features")
        write(project / "features" / "inside", INSIDE)
        told = Told(start_server(env={**SETTINGS, "PETSAGE_CATALOG__SETTLE_MS": f"{settle_ms}"}))
        started.append(told)
        return told, Changes(project / "features", told, breaks)

    yield begin
    for told in started:
        told.process.signal(signal.SIGKILL)
        told.join()
        told.process.end()


@pytest.mark.parametrize("count", [33, pytest.param(200, marks=pytest.mark.stress)])
async def test_while_features_change_no_request_fails_and_no_answer_is_mixed(start, count):
    told, changes = await asyncio.to_thread(start)
    async with Asking(told.process.address, changes, per_s=400).running() as asked:
        await asyncio.to_thread(changes.make, count)

    print(changes.made, dict(asked.counts), len(asked.failed), len(asked.mixed))  # noqa: T201 - the figures
    assert asked.failed == []
    assert asked.mixed == []
    assert sum(changes.made.values()) == count
    assert len([kind for kind in changes.made if kind.startswith("broken")]) > 6
    assert min(asked.counts[kind] for kind in ("slow", "stream", "visitor", "still")) > 0
    assert min(asked.counts[kind] for kind in ("get", "argument", "post", "head", "needed")) > 0


# Eleven changes in a row end with the features that they began with.
@pytest.mark.parametrize(
    ("first", "more"), [(22, 55), pytest.param(55, 451, marks=pytest.mark.stress)]
)
def test_many_changes_leave_nothing_behind(start, first, more):
    quick = BREAKS.keys() - {"check-timeout"}
    told, changes = start(settle_ms=20, breaks=sorted(quick))

    def make(count: int) -> Inside:
        for _ in range(count):
            changes.make(1)
            asked = [told.process.get(f"/api/v1/{path}")[0] for path in ("above", *VISITORS)]
            assert asked[0] == 200
            statuses.update(asked)
        return look_inside(told.process)

    statuses: Counter[int] = Counter()
    told.process.get("/api/v1/above")
    told.process.get("/api/v1/guest")
    # Of one change first: who watches the folder has its threads, then.
    before, warm, after = make(1), make(first), make(more)
    assert statuses.keys() == {200, 404}

    print(before, warm, after, sep="\n")  # noqa: T201 - the figures
    assert after.rss_kb - warm.rss_kb < MOST_KB
    assert after.child_rss_kb - warm.child_rss_kb < MOST_KB
    steady = {name: (getattr(before, name), getattr(after, name)) for name in STEADY}
    assert {name: pair for name, pair in steady.items() if pair[1] > pair[0]} == {}
    assert after.descriptors <= before.descriptors + 1  # an idle connection of ours
