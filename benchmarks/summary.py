"""Rounds judged: medians with their spread, bounds, and whether the machine let us tell."""

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
_NOISY = "too noisy to tell"


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
class Verdict:
    """A goal, what was measured round by round, and whether its least and itself were met."""

    text: str
    measured: Spread
    least: str
    least_is: str
    goal: str
    goal_is: str


def is_noisy(shares: Iterable[float]) -> bool:
    """Whether others used so much of a core, in most of these rounds, that times tell nothing."""
    return median(shares) > NOISY_OTHERS


def verdict(
    text: str,
    values: list[float],
    least: Bound,
    goal: Bound | None = None,
    *,
    decides: bool = True,
    noisy: bool = False,
) -> Verdict:
    """What one value a round says of a goal; in brackets where another one decides.

    Where it is `noisy`, nothing can be told, and what would be told stands behind that.
    """

    def says(bound: Bound) -> str:
        said = judged(values, bound.holds)
        if noisy and not said.startswith(_NOISY):
            said = f"{_NOISY} ({said})"
        return said if decides else f"({said})"

    return Verdict(
        text,
        spread(values),
        least.text,
        says(least),
        goal.text if goal else "",
        says(goal) if goal else "",
    )


def judged(values: list[float], holds: Callable[[float], bool]) -> str:
    """Whether a goal is met, by one value a round."""
    held = sum(map(holds, values))
    if held == len(values):
        return "met"
    if held == 0:
        return "missed"
    if spread(values).relative > NOISY_SPREAD:
        return f"{_NOISY} ({held} of {len(values)} rounds met it)"
    return f"{'met' if holds(median(values)) else 'missed'} (met in {held} of {len(values)} rounds)"


def voids(rounds: list[Round]) -> list[str]:
    """Why the run is void; nothing where it counts."""
    return [f"{each.server}, round {each.number}: {why}" for each in rounds for why in each.faults]


def notes(rounds: list[Round]) -> list[str]:
    """What a reader must know of this machine before believing the figures."""
    by_server: dict[str, list[Round]] = {}
    for each in rounds:
        by_server.setdefault(each.server, []).append(each)
    return [
        *_others(rounds),
        *_apart(by_server),
        *_limits(by_server),
        *_children(by_server),
    ]


def _apart(by_server: dict[str, list[Round]]) -> list[str]:
    """Whose rounds differ too much to be believed."""
    spreads = {name: spread(each.cpu_us for each in own) for name, own in by_server.items()}
    apart = [
        f"{name} {cpu.relative:.0%}" for name, cpu in spreads.items() if cpu.relative > NOISY_SPREAD
    ]
    if not apart:
        return []
    note = (
        f"noisy: CPU a request lies over {NOISY_SPREAD:.0%} of its median apart between rounds;"
        f" repeat on a quieter machine ({', '.join(apart)})"
    )
    return [note]


def _children(by_server: dict[str, list[Round]]) -> list[str]:
    """Whose memory is not all in the server's own process."""
    found = []
    for name, own in by_server.items():
        children = max(each.children_peak_mb for each in own)
        if any(each.serves_in_children for each in own):
            found.append(
                f"{name} serves in child processes: its memory is theirs, {children:.0f} MB, and"
                " that of the process which looks after them"
            )
        elif children:
            found.append(
                f"{name} keeps child processes, up to {children:.0f} MB more, much of it shared;"
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


def _limits(by_server: dict[str, list[Round]]) -> list[str]:
    """What held up servers in the rounds in which their core was not saturated."""
    found: dict[str, list[str]] = {}
    for name, own in by_server.items():
        causes = Counter(_limit(each) for each in own if each.server_share < SATURATED)
        for cause, times in causes.items():
            found.setdefault(cause, []).append(f"{name} {times} of {len(own)}")
    return [
        f"{cause}: do not read requests/s, p50 and p99 of these rounds ({', '.join(servers)})"
        for cause, servers in found.items()
    ]


def _limit(each: Round) -> str:
    if each.wrk_share >= SATURATED:
        return "wrk was the limit"
    if each.wrk_share + each.wrk_others_share >= SATURATED - NOISY_OTHERS:
        return "noisy: others on wrk's core were the limit"
    return "neither core was saturated, the server or the machine waited"
