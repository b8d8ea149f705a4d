"""What PetSage is meant to reach beside its peers, judged round with round."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.measure import Round
from benchmarks.summary import Bound, Verdict, at_least, at_most, is_noisy, verdict


@dataclass(frozen=True)
class Goal:
    """What PetSage is meant to reach in each round, beside `peer` where there is one.

    Attributes:
        least: what it has to reach.
        goal: what it is to reach; None where there is no more than the least.
        decides: False where the figure is shown beside another that counts.
        timed: whether it is a time, which others on the machine make longer at once.
    """

    text: str
    peer: str | None
    value: Callable[[Round, Round], float]
    least: Bound
    goal: Bound | None = None
    decides: bool = True
    timed: bool = False


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
    yield Goal(
        f"{text}, python-json-logger", f"{peer}_docs", _times_less_cpu, *bounds, decides=False
    )


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
        timed=True,
    ),
    Goal(
        "times sooner at the first 200 than FastAPI with `def`",
        *("fastapi_def_docs", _times_sooner, at_least(1)),
        timed=True,
    ),
    Goal(
        "times sooner at the first 200 than FastAPI with `async def`",
        *("fastapi_async_docs", _times_sooner, at_least(1)),
        timed=True,
    ),
    Goal(
        "times as long to the first 200 as bare aiohttp",
        *("aiohttp_bare", _times_as_late, at_most(1.6)),
        timed=True,
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
        pairs = [(petsage[n], peers[n]) for n in sorted(petsage.keys() & peers.keys())]
        if pairs:
            found.append(
                verdict(
                    goal.text,
                    [goal.value(*pair) for pair in pairs],
                    goal.least,
                    goal.goal,
                    decides=goal.decides,
                    noisy=goal.timed and is_noisy(each.noise for pair in pairs for each in pair),
                )
            )
    return found
