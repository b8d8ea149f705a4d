"""Rounds judged: medians with their spread, the goals, and whether the machine let us tell."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median

from benchmarks.measure import Round

# From here on, rounds that lie on both sides of a goal tell nothing.
NOISY_SPREAD = 0.25
NOISY_OTHERS = 0.10
# A core this busy is saturated.
SATURATED = 0.9


@dataclass(frozen=True)
class Spread:
    """The median of one figure over the rounds, with its least and greatest."""

    median: float
    least: float
    greatest: float

    @property
    def relative(self) -> float:
        """How far the rounds lie apart, as a part of the median."""
        return (self.greatest - self.least) / self.median if self.median else 0.0


def spread(values: Iterable[float]) -> Spread:
    """The spread of one or more values."""
    values = list(values)
    return Spread(median(values), min(values), max(values))


@dataclass(frozen=True)
class Goal:
    """What PetSage is meant to reach in each round, beside `peer` where there is one."""

    text: str
    wanted: str
    peer: str | None
    value: Callable[[Round, Round], float]
    holds: Callable[[float], bool]


@dataclass(frozen=True)
class Verdict:
    """A goal, what was measured round by round, and whether it was met."""

    text: str
    wanted: str
    measured: Spread
    says: str


def _times_less_cpu(petsage: Round, peer: Round) -> float:
    return peer.cpu_us / petsage.cpu_us


def _times_sooner(petsage: Round, peer: Round) -> float:
    return peer.first_200_ms / petsage.first_200_ms


def _peak_mb(petsage: Round, _: Round) -> float:
    return petsage.peak_mb


GOALS = (
    Goal(
        "times less CPU a request than FastAPI with `def`",
        "at least 4",
        "fastapi_def_docs",
        _times_less_cpu,
        lambda ratio: ratio >= 4,
    ),
    Goal(
        "times less CPU a request than FastAPI with `async def`",
        "at least 2.5",
        "fastapi_async_docs",
        _times_less_cpu,
        lambda ratio: ratio >= 2.5,
    ),
    Goal(
        "times less CPU a request than bare aiohttp without logs",
        "at least 0.6",
        "aiohttp_bare",
        _times_less_cpu,
        lambda ratio: ratio >= 0.6,
    ),
    Goal(
        "times sooner at the first 200 than FastAPI with `def`",
        "more than 1",
        "fastapi_def_docs",
        _times_sooner,
        lambda ratio: ratio > 1,
    ),
    Goal(
        "times sooner at the first 200 than FastAPI with `async def`",
        "more than 1",
        "fastapi_async_docs",
        _times_sooner,
        lambda ratio: ratio > 1,
    ),
    Goal("MB of peak memory", "under 70", None, _peak_mb, lambda megabytes: megabytes < 70),
)


def verdicts(rounds: list[Round]) -> list[Verdict]:
    """Every goal whose servers were measured, judged pair by pair, round with round."""
    by_server: dict[str, dict[int, Round]] = {}
    for each in rounds:
        by_server.setdefault(each.server, {})[each.number] = each
    petsage = by_server.get("petsage", {})
    found = []
    for goal in GOALS:
        peers = by_server.get(goal.peer or "petsage", {})
        values = [goal.value(petsage[n], peers[n]) for n in sorted(petsage.keys() & peers.keys())]
        if values:
            found.append(
                Verdict(goal.text, goal.wanted, spread(values), judged(values, goal.holds))
            )
    return found


def judged(values: list[float], holds: Callable[[float], bool]) -> str:
    """Whether a goal is met, by one value a round."""
    held = sum(map(holds, values))
    if held == len(values):
        return "met"
    if held == 0:
        return "missed"
    if spread(values).relative > NOISY_SPREAD:
        return f"too noisy to tell ({held} of {len(values)} rounds met it)"
    return f"{'met' if holds(median(values)) else 'missed'} (met in {held} of {len(values)} rounds)"


def voids(rounds: list[Round]) -> list[str]:
    """Why the run is void; nothing where it counts."""
    return [f"{each.server}, round {each.number}: {why}" for each in rounds for why in each.faults]


def notes(rounds: list[Round]) -> list[str]:
    """What a reader must know of this machine before believing the figures."""
    found = _others(rounds)
    for server in dict.fromkeys(each.server for each in rounds):
        own = [each for each in rounds if each.server == server]
        cpu = spread(each.cpu_us for each in own)
        if cpu.relative > NOISY_SPREAD:
            found.append(
                f"noisy: {server}'s CPU a request lies {cpu.relative:.0%} of its median apart"
                f" between rounds (over {NOISY_SPREAD:.0%}); repeat on a quieter machine"
            )
        found += _limits(server, own)
        children = max(each.children_peak_mb for each in own)
        if children:
            found.append(
                f"{server} keeps child processes, up to {children:.0f} MB more, much of it shared;"
                " their CPU is counted, their memory is not in the table"
            )
    return found


def _others(rounds: list[Round]) -> list[str]:
    """Whether other processes shared our cores too much."""
    on_server_core = max((each.others_share for each in rounds), default=0.0)
    on_wrk_core = max((each.wrk_others_share for each in rounds), default=0.0)
    if max(on_server_core, on_wrk_core) <= NOISY_OTHERS:
        return []
    note = (
        f"noisy: other processes took up to {on_server_core:.0%} of the servers' core and"
        f" {on_wrk_core:.0%} of wrk's; times suffer from that first, CPU a request last"
    )
    return [note]


def _limits(server: str, own: list[Round]) -> list[str]:
    """What held up `server` in the rounds in which its core was not saturated."""
    causes = Counter(_limit(each) for each in own if each.server_share < SATURATED)
    return [
        f"{cause} in {times} of {server}'s {len(own)} rounds: do not read its requests/s, p50, p99"
        for cause, times in causes.items()
    ]


def _limit(each: Round) -> str:
    if each.wrk_share >= SATURATED:
        return "wrk was the limit"
    if each.wrk_share + each.wrk_others_share >= SATURATED - NOISY_OTHERS:
        return "noisy: others on wrk's core were the limit"
    return "neither core was saturated, the server or the machine waited"
