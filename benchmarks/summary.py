"""Rounds judged: medians with their spread, the goals, and whether the machine let us tell."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
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
class Bound:
    """What a figure has to keep to, and how that is said."""

    text: str
    holds: Callable[[float], bool]


def at_least(number: float) -> Bound:
    """A bound from below."""
    return Bound(f"≥ {number:g}", lambda value: value >= number)


def at_most(number: float) -> Bound:
    """A bound from above."""
    return Bound(f"≤ {number:g}", lambda value: value <= number)


@dataclass(frozen=True)
class Goal:
    """What PetSage is meant to reach in each round, beside `peer` where there is one.

    Attributes:
        least: what it has to reach.
        goal: what it is to reach; None where there is no more than the least.
        decides: False where the figure is shown beside another that counts.
    """

    text: str
    peer: str | None
    value: Callable[[Round, Round], float]
    least: Bound
    goal: Bound | None = None
    decides: bool = True


@dataclass(frozen=True)
class Verdict:
    """A goal, what was measured round by round, and whether its least and itself were met."""

    text: str
    measured: Spread
    least: str
    least_is: str
    goal: str
    goal_is: str


def _times_less_cpu(petsage: Round, peer: Round) -> float:
    return peer.cpu_us / petsage.cpu_us


def _times_sooner(petsage: Round, peer: Round) -> float:
    return peer.first_200_ms / petsage.first_200_ms


def _times_as_late(petsage: Round, peer: Round) -> float:
    return petsage.first_200_ms / peer.first_200_ms


def _times_the_p99(petsage: Round, peer: Round) -> float:
    return petsage.p99_ms / peer.p99_ms


def _memory_mb(petsage: Round, _: Round) -> float:
    return petsage.memory_mb


def _less_cpu(name: str, peer: str, least: float, goal: float) -> Iterator[Goal]:
    """Times less CPU than a peer: with the same logs, which decides, and as it is documented."""
    text = f"times less CPU a request than {name}"
    bounds = at_least(least), at_least(goal)
    yield Goal(f"{text}, same logs", f"{peer}_ours", _times_less_cpu, *bounds)
    yield Goal(f"{text}, python-json-logger", f"{peer}_docs", _times_less_cpu, *bounds, False)


GOALS = (
    *_less_cpu("FastAPI with `def`", "fastapi_def", 6, 10),
    *_less_cpu("FastAPI with `async def`", "fastapi_async", 4, 7),
    *_less_cpu("Granian's RSGI without a framework", "granian_rsgi", 1.5, 3),
    Goal(
        "times less CPU a request than bare aiohttp's `json_response`, which logs nothing",
        *("aiohttp_bare", _times_less_cpu, at_least(0.9), at_least(1.2)),
    ),
    Goal(
        "times less CPU a request than bare aiohttp with bytes made before, which logs nothing",
        *("aiohttp_bytes", _times_less_cpu, at_least(0.6), at_least(0.9)),
    ),
    Goal(
        "times the p99 of bare aiohttp",
        *("aiohttp_bare", _times_the_p99, at_most(1)),
    ),
    Goal(
        "times sooner at the first 200 than FastAPI with `def`",
        *("fastapi_def_docs", _times_sooner, at_least(1)),
    ),
    Goal(
        "times sooner at the first 200 than FastAPI with `async def`",
        *("fastapi_async_docs", _times_sooner, at_least(1)),
    ),
    Goal(
        "times as long to the first 200 as bare aiohttp",
        *("aiohttp_bare", _times_as_late, at_most(1.6)),
    ),
    Goal("MB of peak memory", None, _memory_mb, at_most(65)),
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
            found.append(verdict(goal.text, values, goal.least, goal.goal, decides=goal.decides))
    return found


def verdict(
    text: str, values: list[float], least: Bound, goal: Bound | None = None, *, decides: bool = True
) -> Verdict:
    """What one value a round says of a goal; in brackets where another one decides."""
    form = "{}" if decides else "({})"
    return Verdict(
        text,
        spread(values),
        least.text,
        form.format(judged(values, least.holds)),
        goal.text if goal else "",
        form.format(judged(values, goal.holds)) if goal else "",
    )


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
        if any(each.serves_in_children for each in own):
            found.append(
                f"{server} serves in child processes: its memory is theirs, {children:.0f} MB, and"
                " that of the process which looks after them"
            )
        elif children:
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
