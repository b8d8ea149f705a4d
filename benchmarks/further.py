"""What the smoke test does not show, measured and judged.

One connection alone, a sink that is slow, a typed body, many models, many routes, 304 and 404.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.further_rounds import Reading, measure_session, require_same
from benchmarks.further_sessions import SESSIONS
from benchmarks.measure import Plan
from benchmarks.summary import (
    NOISY_OTHERS,
    Bound,
    Spread,
    Verdict,
    at_least,
    at_most,
    is_noisy,
    spread,
    verdict,
)


@dataclass(frozen=True)
class Goal:
    """What the figure of one operation is to be in terms of that of another, in each round."""

    text: str
    operation: str
    over: str
    figure: Callable[[Reading], float]
    bound: Bound

    @property
    def timed(self) -> bool:
        """Whether it is a time, which others on the machine make longer at once."""
        return self.figure is not _cpu_us


def _cpu_us(reading: Reading) -> float:
    return reading.cpu_us


def _p50_ms(reading: Reading) -> float:
    return reading.p50_ms


def _p99_ms(reading: Reading) -> float:
    return reading.p99_ms


GOALS = (
    Goal(
        "times the p50 of bare aiohttp, one connection, an endpoint that proves nothing",
        *("nothing_one", "aiohttp_one", _p50_ms, at_most(1.3)),
    ),
    Goal(
        "times the p50 of bare aiohttp, one connection, the smoke test with its proof",
        *("smoke_one", "aiohttp_one", _p50_ms, at_most(2.5)),
    ),
    Goal(
        "times the p99 of what proves nothing, with stdout read at 1 MB/s and not at once",
        *("slow_sink", "quick_sink", _p99_ms, at_most(1.1)),
    ),
    Goal(
        "times less CPU for a POST of 1 KB than FastAPI with `async def`, same logs",
        *("fastapi_post", "post", _cpu_us, at_least(3)),
    ),
    Goal(
        "times less CPU for 100 models than FastAPI with `async def`, same logs",
        *("fastapi_list", "list", _cpu_us, at_least(3)),
    ),
    Goal(
        "times the CPU of a request among 10,000 routes, beside 10",
        *("many_routes", "few_routes", _cpu_us, at_most(1.2)),
    ),
    Goal("times the CPU of a 200 for a 304", *("known", "fresh", _cpu_us, at_most(1))),
    Goal("times the CPU of a 200 for a 404", *("missing", "nothing", _cpu_us, at_most(1))),
)


def measure_further(plan: Plan) -> list[Reading]:
    """All rounds, the servers taking turns, each time another one first."""
    require_same(plan)
    readings = []
    for number in range(1, plan.rounds + 1):
        first = (number - 1) % len(SESSIONS)
        for session in SESSIONS[first:] + SESSIONS[:first]:
            measured = measure_session(session, number, plan)
            readings += measured
            costs = "  ".join(f"{each.operation} {each.cpu_us:.0f} µs" for each in measured)
            void = "  VOID" if any(each.faults for each in measured) else ""
            print(f"round {number} of {plan.rounds}  {costs}{void}", file=sys.stderr)
    return readings


def further_verdicts(readings: list[Reading]) -> list[Verdict]:
    """Every goal, judged pair by pair, round with round."""
    found = []
    for goal in GOALS:
        own, other = (
            {each.number: each for each in readings if each.operation == name}
            for name in (goal.operation, goal.over)
        )
        pairs = [(own[number], other[number]) for number in sorted(own.keys() & other.keys())]
        if pairs:
            values = [goal.figure(one) / goal.figure(two) for one, two in pairs]
            noisy = goal.timed and is_noisy(each.noise for pair in pairs for each in pair)
            found.append(verdict(goal.text, values, goal.bound, noisy=noisy))
    return found


def further_voids(readings: list[Reading]) -> list[str]:
    """Why the run is void; nothing where it counts."""
    return [
        f"{each.session}, {each.operation}, round {each.number}: {fault}"
        for each in readings
        for fault in each.faults
    ]


def further_notes(readings: list[Reading]) -> list[str]:
    """What a reader must know of this machine before believing the figures."""
    return [*_others(readings), *_lost(readings)]


def _others(readings: list[Reading]) -> list[str]:
    server = max((each.others_share for each in readings), default=0.0)
    wrk = max((each.wrk_others_share for each in readings), default=0.0)
    if max(server, wrk) <= NOISY_OTHERS:
        return []
    note = (
        f"noisy: beside the smoke test, other processes took up to {server:.0%} of the servers'"
        f" core and {wrk:.0%} of wrk's"
    )
    return [note]


def _lost(readings: list[Reading]) -> list[str]:
    """Whether the slow pipe was slow, and the quick one quick."""
    quick, slow = (
        [each.lost_lines for each in readings if each.operation == name]
        for name in ("quick_sink", "slow_sink")
    )
    found = []
    if slow:
        found.append(
            f"to the pipe that is read at 1 MB/s, {min(slow):,} to {max(slow):,} lines of a round"
            " were dropped, and counted"
            if min(slow)
            else "the pipe that is read at 1 MB/s was not too slow in each round: it tells nothing"
        )
    if any(quick):
        found.append(
            f"noisy: the pipe that is read at once lost up to {max(quick):,} lines of a round: do"
            " not read what compares it with the slow one"
        )
    return found


def further_rows(readings: list[Reading], cell: Callable[[Spread, str], str]) -> list[list[str]]:
    """A row for each operation, the columns' names before them; nothing where none was measured."""
    rows = [["server", "asked for", "connections", "CPU µs/request", "p50 ms", "p99 ms"]]
    for session in SESSIONS:
        for operation in session.operations:
            own = [each for each in readings if each.operation == operation.name]
            if own:
                figures = (
                    cell(spread(map(figure, own)), form)
                    for figure, form in ((_cpu_us, ".0f"), (_p50_ms, ".2f"), (_p99_ms, ".2f"))
                )
                connections = "1" if operation.connections else "all"
                rows.append([session.title, operation.title, connections, *figures])
    return rows if len(rows) > 1 else []
