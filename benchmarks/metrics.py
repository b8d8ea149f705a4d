"""What metrics cost: `python -m benchmarks.metrics`, on one core, without a server.

Each figure is the least of several rounds: what the work costs when nothing disturbs it.
"""

import argparse
import asyncio
import timeit
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Histogram

from petsage.app import create_app
from petsage.catalog import CATALOG
from petsage.health import CHECKS, PROCESS_STATE
from petsage.metrics import (
    BUCKETS,
    CONNECTIONS,
    REQUEST_DURATION,
    REQUESTS,
    RequestMetrics,
    active_name,
)
from petsage.readiness import READINESS
from petsage.settings import Settings
from petsage.shared_database import SHARED_DATABASE
from petsage.system.metrics import Exposition
from petsage.system.samples import Sources
from petsage.watchdog import WATCHDOG

_CALLS = 200_000
_LABELS = ("GET", "/api/v1/smoke-test", "200")


def main() -> None:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--series", type=int, nargs="+", default=[10, 1_000, 10_000])
    arguments = parser.parse_args()
    print("| for each request | ns |\n|---|---|")
    for title, call in _per_request().items():
        best = min(timeit.repeat(call, number=_CALLS, repeat=arguments.rounds)) / _CALLS
        print(f"| {title} | {best * 1e9:,.0f} |")
    print("\n| for each scrape | on the event loop, ms | in a thread, ms | KB | KB in gzip |")
    print("|---|---|---|---|---|")
    for count in arguments.series:
        print(f"| {count:,} methods, routes and statuses | {_scrape(count, arguments.rounds)} |")


def _per_request() -> dict[str, Callable[[], object]]:
    metrics = RequestMetrics()
    metrics.observe("GET", _LABELS[1], 200, 0.004)
    histogram = Histogram(
        "peer_duration_seconds",
        REQUEST_DURATION.help,
        REQUEST_DURATION.labels,
        buckets=BUCKETS,
        registry=CollectorRegistry(),
    )
    child = histogram.labels(*_LABELS)
    active = metrics.active

    def count_active() -> None:
        method = active_name("GET")
        active[method] += 1
        active[method] -= 1

    return {
        "PetSage: the histogram": lambda: metrics.observe("GET", _LABELS[1], 200, 0.004),
        "PetSage: requests in flight": count_active,
        "prometheus-client: the histogram": lambda: histogram.labels(*_LABELS).observe(0.004),
        "prometheus-client: the histogram, its labels kept": lambda: child.observe(0.004),
        "(a call that does nothing)": lambda: None,
    }


def _scrape(count: int, rounds: int) -> str:
    app = create_app(Settings())
    requests = app[REQUESTS]
    for number in range(count):
        requests.observe("GET", f"/api/v1/route-{number}", 200, 0.004)
    sources = Sources(
        *(requests, app[CATALOG], app[PROCESS_STATE], app[CHECKS], app[READINESS], app[WATCHDOG]),
        *(app[CONNECTIONS], app[SHARED_DATABASE].counts),
    )
    exposition, snapshot = Exposition(), sources.snapshot()
    on_loop = min(timeit.repeat(sources.snapshot, number=1, repeat=rounds))

    def render(*, compress: bool = True) -> int:
        body = exposition.render(snapshot, "", compress=compress).body
        return len(body) if isinstance(body, bytes) else 0

    in_thread = min(timeit.repeat(render, number=1, repeat=rounds))
    sizes = " | ".join(f"{render(compress=each) / 1000:,.1f}" for each in (False, True))
    return f"{on_loop * 1000:.2f} | {in_thread * 1000:.1f} | {sizes}"


async def _run() -> None:
    main()


if __name__ == "__main__":
    asyncio.run(_run())  # the checks of an application are made on an event loop
