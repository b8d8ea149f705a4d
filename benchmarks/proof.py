"""What a proof costs: `python -m benchmarks.proof`, three endpoints of one running server.

They answer the same: one logs nothing of its own, one logs a line, one proves it. Each request also
has its access line and its metrics.
"""

import argparse
import os
import statistics
import tempfile
from pathlib import Path

from benchmarks import accounting
from benchmarks.running import Running, running
from benchmarks.servers import HOST, SERVERS
from benchmarks.wrk import run_wrk

_FEATURE = '''"""Answers the same, with and without a line."""
import logging
from petsage import Feature, Routes, prove

routes = Routes()
log = logging.getLogger(__name__)
ANSWER = {"status": "ok"}

@routes.get("/bench/nothing")
async def log_nothing() -> dict[str, str]:
    return ANSWER

@routes.get("/bench/line")
async def log_line() -> dict[str, str]:
    log.info("A line")
    return ANSWER

@routes.get("/bench/proof")
async def prove_line() -> dict[str, str]:
    assert (await prove(log, "A line")).missing is None
    return ANSWER

feature = Feature(routes)
'''
_PATHS = {"logs nothing": "nothing", "logs a line": "line", "proves a line": "proof"}


def main() -> None:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[0]})
    print("| the handler | connections | CPU µs/request | requests/s | p50 ms | p99 ms |")
    print("|---|---|---|---|---|---|")
    with (
        tempfile.TemporaryDirectory(prefix="petsage-bench-") as folder,
        running(
            SERVERS["petsage"], core=cores[-1], folder=Path(folder), features={"bench": _FEATURE}
        ) as server,
    ):
        server.first_answer()
        for connections in (64, 1):
            rows = _measure(server, connections, options.rounds, options.seconds)
            for title, figures in rows.items():
                cpu_us, rate, p50_ms, p99_ms = (
                    statistics.median(column) for column in zip(*figures, strict=True)
                )
                print(
                    f"| {title} | {connections} | {cpu_us:.0f} | {rate:,.0f} "
                    f"| {p50_ms:.2f} | {p99_ms:.2f} |"
                )


def _measure(
    server: Running, connections: int, rounds: int, seconds: int
) -> dict[str, list[tuple[float, float, float, float]]]:
    """By title, each round's CPU µs a request, requests/s, p50 and p99; they take turns."""
    rows: dict[str, list[tuple[float, float, float, float]]] = {title: [] for title in _PATHS}
    for _ in range(rounds):
        for title, path in _PATHS.items():
            url = f"http://{HOST}:{server.port}/api/v1/bench/{path}"
            before = accounting.cpu_s(server.pid)
            load = run_wrk(url, seconds=seconds, connections=connections)
            cpu_us = (accounting.cpu_s(server.pid) - before) * 1e6 / load.requests
            if load.bad_statuses or load.socket_errors:
                raise SystemExit(f"{url}: {load.bad_statuses} bad, {load.socket_errors} errors")
            rows[title].append((cpu_us, load.requests / load.duration_s, load.p50_ms, load.p99_ms))
    return rows


if __name__ == "__main__":
    main()
