"""One measured round of one server: started, warmed up, loaded, stopped, its lines counted."""

import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from benchmarks import accounting
from benchmarks.lines import Lines, count_lines
from benchmarks.peers.words import MESSAGE
from benchmarks.running import Answer, Running, running
from benchmarks.servers import PATH, Server
from benchmarks.wrk import Load, run_wrk


@dataclass(frozen=True)
class Plan:
    """How a run measures; the same for every server."""

    rounds: int
    seconds: int
    warmup_s: int
    connections: int
    server_core: int
    client_core: int


@dataclass(frozen=True)
class Round:
    """What one round of one server measured.

    Memory is in MB (10^6 bytes). A `…_share` is a part of the measured time on one core, 0 to 1;
    `others_share` and `wrk_others_share` are those of everything else on the server's core and on
    wrk's; `children_share` is that part of the server's CPU which its child processes used.
    `faults` make the run void.
    """

    server: str
    number: int
    requests: int
    cpu_us: float
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    peak_mb: float
    children_peak_mb: float
    first_200_ms: float
    first_200_cpu_ms: float
    server_share: float
    children_share: float
    wrk_share: float
    others_share: float
    wrk_others_share: float
    app_lines: int
    access_lines: int
    app_fields: tuple[str, ...]
    access_fields: tuple[str, ...]
    faults: tuple[str, ...]

    @property
    def serves_in_children(self) -> bool:
        """Whether child processes do the work, and the server's own process looks after them."""
        return self.children_share > 0.5

    @property
    def noise(self) -> float:
        """What others used of the busier of the two cores, as a part of the measured time."""
        return max(self.others_share, self.wrk_others_share)

    @property
    def memory_mb(self) -> float:
        """The peak of the processes that serve: with the children, where they do the work."""
        return self.peak_mb + (self.children_peak_mb if self.serves_in_children else 0.0)


@dataclass(frozen=True)
class _Usage:
    """What a server and both cores have used up to now, in seconds."""

    at: float
    server: float
    server_itself: float
    server_core: float
    client_core: float


def rehearse(server: Server, plan: Plan) -> None:
    """Start and stop `server` once, so that bytecode is compiled and files are cached."""
    with (
        tempfile.TemporaryDirectory(prefix="petsage-bench-") as folder,
        running(server, core=plan.server_core, folder=Path(folder)) as started,
    ):
        started.first_answer()


def measure_round(server: Server, number: int, plan: Plan) -> Round:
    """One round of `server`, whose process is started for it and stopped after it.

    Longer than 40 lines: a round in its order, then its figures by their names.
    """
    with tempfile.TemporaryDirectory(prefix="petsage-bench-") as folder:
        start = time.perf_counter()
        with running(server, core=plan.server_core, folder=Path(folder)) as started:
            first, too_early = started.first_answer()
            answers = [first]
            first_200_ms = (time.perf_counter() - start) * 1e3
            first_200_cpu_ms = accounting.cpu_s(started.pid) * 1e3
            warm_up = run_wrk(started.url, seconds=plan.warmup_s, connections=plan.connections)
            before = _usage(started, plan)
            load = run_wrk(started.url, seconds=plan.seconds, connections=plan.connections)
            after = _usage(started, plan)
            answers.append(started.ask())
            peak_mb = accounting.peak_rss_mb(started.pid)
            children_peak_mb = sum(map(accounting.peak_rss_mb, accounting.descendants(started.pid)))
            cores = accounting.cores_of(started.pid)
            stopped = started.stop()
        faults = _faults(server, answers, (warm_up, load))
        if cores != {plan.server_core}:
            faults.append(f"its threads may run on the cores {sorted(cores)}")
        if not stopped:
            faults.append(f"it did not stop on {server.stop_signal.name} and was killed")
        lines = Lines(app=0, access=0, invalid=0, not_200=0)
        if server.access_logger is not None:
            lines = count_lines(started.logs, access_logger=server.access_logger, path=PATH)
            faults += lines.faults(
                answered=len(answers) + warm_up.requests + load.requests,
                too_early=too_early,
                slack=2 * plan.connections,
            )
    took_s = after.at - before.at
    cpu_s = after.server - before.server
    return Round(
        server=server.name,
        number=number,
        requests=load.requests,
        cpu_us=cpu_s * 1e6 / max(load.requests, 1),
        requests_per_s=load.requests / load.duration_s,
        p50_ms=load.p50_ms,
        p99_ms=load.p99_ms,
        peak_mb=peak_mb,
        children_peak_mb=children_peak_mb,
        first_200_ms=first_200_ms,
        first_200_cpu_ms=first_200_cpu_ms,
        server_share=cpu_s / took_s,
        children_share=1 - (after.server_itself - before.server_itself) / cpu_s if cpu_s else 0.0,
        wrk_share=load.cpu_s / took_s,
        others_share=max(0.0, after.server_core - before.server_core - cpu_s) / took_s,
        wrk_others_share=max(0.0, after.client_core - before.client_core - load.cpu_s) / took_s,
        app_lines=lines.app,
        access_lines=lines.access,
        app_fields=lines.app_fields,
        access_fields=lines.access_fields,
        faults=tuple(faults),
    )


def _usage(started: Running, plan: Plan) -> _Usage:
    return _Usage(
        at=time.perf_counter(),
        server=accounting.cpu_s(started.pid),
        server_itself=accounting.own_cpu_s(started.pid),
        server_core=accounting.core_busy_s(plan.server_core),
        client_core=accounting.core_busy_s(plan.client_core),
    )


def _faults(server: Server, answers: list[Answer], loads: tuple[Load, ...]) -> list[str]:
    """Why these were not the answers that the comparison is about."""
    faults = []
    for answer in answers:
        if answer.status != 200:
            faults.append(f"answered {answer.status}")
        elif answer.body is None or answer.body.keys() != server.body_fields:
            faults.append(f"its body's fields are {sorted(answer.body or ())}")
        elif (
            answer.body["status"] != "ok"
            or answer.body["message"] != MESSAGE
            or not _has_zone(answer.body["timestamp"])
        ):
            faults.append(f"its body is {answer.body}")
    for load in loads:
        if load.requests == 0:
            faults.append("answered none of wrk's requests")
        if load.bad_statuses:
            faults.append(f"{load.bad_statuses} answers to wrk were no 2xx or 3xx")
        if load.socket_errors:
            faults.append(f"wrk had {load.socket_errors} socket errors")
    return faults


def _has_zone(timestamp: object) -> bool:
    try:
        return datetime.fromisoformat(str(timestamp)).tzinfo is not None
    except ValueError:
        return False
