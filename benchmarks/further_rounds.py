"""One round of what is asked beside the smoke test, and what each answer used."""

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import accounting
from benchmarks.errors import BenchmarkError
from benchmarks.further_sessions import SESSIONS, Operation, Session
from benchmarks.lines import count_lines
from benchmarks.measure import Plan
from benchmarks.pipe import Drain, drained_pipe
from benchmarks.running import Answer, Running, running
from benchmarks.servers import HOST
from benchmarks.wrk import Load, run_wrk

_CHECK_TIMEOUT_S = 60


@dataclass(frozen=True)
class Reading:
    """What one operation in one round measured; `faults` make the run void.

    A `…_share` is a part of the measured time on one core, 0 to 1. `lost_lines` are those that a
    pipe was too slow for, over the whole session.
    """

    number: int
    session: str
    operation: str
    requests: int
    cpu_us: float
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    others_share: float
    wrk_others_share: float
    lost_lines: int
    faults: tuple[str, ...]

    @property
    def noise(self) -> float:
        """What others used of the busier of the two cores, as a part of the measured time."""
        return max(self.others_share, self.wrk_others_share)


class _Started:
    """The server of a session, once all that it is asked for is there; its answers are counted."""

    def __init__(self, session: Session, server: Running, drain: Drain | None, plan: Plan) -> None:
        self.server = server
        self.answered = 0
        self.runs = 0  # of wrk, each of which may leave as many requests as it has connections
        self._session = session
        self._drain = drain
        self._plan = plan
        first = session.operations[0]
        server.first_answer(f"{first.path}{first.ids or ''}")
        self.answered += 1

    def ask(self, operation: Operation, headers: Mapping[str, str] | None = None) -> Answer:
        """The answer to one request."""
        self.answered += 1
        return self.server.ask(f"{operation.path}{operation.ids or ''}", operation.body, headers)

    def load(self, operation: Operation, seconds: int, tag: str | None = None) -> Load:
        """What wrk counted."""
        load = run_wrk(
            f"http://{HOST}:{self.server.port}{operation.path}",
            seconds=seconds,
            connections=operation.connections or self._plan.connections,
            ids=operation.ids,
            body=operation.body,
            header=None if tag is None else f"If-None-Match: {tag}",
        )
        if load.requests == 0:
            raise BenchmarkError(
                f"{operation.path} was answered not once in {seconds} s",
                fix="repeat on a quieter machine, or with more --seconds",
            )
        self.answered += load.requests
        self.runs += 1
        return load

    def measure(self, operation: Operation, number: int) -> Reading:
        """What an operation used."""
        faults, tag = self._rehearse(operation)
        before = self._used()
        load = self.load(operation, self._plan.seconds, tag)
        took_s, cpu_s, server_core_s, client_core_s, own_s = (
            now - then for now, then in zip(self._used(), before, strict=True)
        )
        if load.bad_statuses != (load.requests if operation.status >= 400 else 0):
            faults.append(f"{load.bad_statuses} of {load.requests} answers were 400 or more")
        if load.socket_errors:
            faults.append(f"wrk had {load.socket_errors} socket errors")
        return Reading(
            number=number,
            session=self._session.title,
            operation=operation.name,
            requests=load.requests,
            cpu_us=cpu_s * 1e6 / load.requests,
            requests_per_s=load.requests / load.duration_s,
            p50_ms=load.p50_ms,
            p99_ms=load.p99_ms,
            others_share=max(0.0, server_core_s - cpu_s) / took_s,
            wrk_others_share=max(0.0, client_core_s - load.cpu_s - own_s) / took_s,
            lost_lines=0,
            faults=tuple(faults),
        )

    def stop(self) -> list[str]:
        """Stop it; why its lines are not those of what it answered, nothing where they are."""
        if self._drain is not None:
            self._drain.hurry()
        faults = [] if self.server.stop() else ["it did not stop on its signal and was killed"]
        logger = self._session.server.access_logger
        if logger is None or self._session.pipe is not None:
            return faults
        statuses = frozenset(operation.status for operation in self._session.operations)
        lines = count_lines(self.server.logs, access_logger=logger, answered=statuses)
        most = self.answered + self.runs * self._plan.connections
        if not self.answered <= lines.access <= most:
            faults.append(f"{lines.access} access lines for {self.answered} answers")
        if lines.invalid:
            faults.append(f"{lines.invalid} lines are no JSON object or lack what they are to say")
        if lines.warnings:
            faults.append(f"{lines.warnings} lines are warnings, or worse")
        return faults

    def lost_lines(self) -> int:
        """How many lines of answers did not come out of the pipe, once it has ended."""
        return max(0, self.answered - self._drain.lines) if self._drain is not None else 0

    def _rehearse(self, operation: Operation) -> tuple[list[str], str | None]:
        """Ask once; what is wrong with the answer, and the tag that goes with each request."""
        tag = None
        if operation.known is not None:
            tag = self.ask(operation).headers["ETag"] if operation.known else '"another"'
        answer = self.ask(operation, None if tag is None else {"If-None-Match": tag})
        if answer.status != operation.status:
            return [f"answered {answer.status}: {answer.text!r}"], tag
        return [], tag

    def _used(self) -> tuple[float, float, float, float, float]:
        """The time; CPU seconds: the server's, those of the busy cores, and our own, of a drain."""
        return (
            time.perf_counter(),
            accounting.cpu_s(self.server.pid),
            accounting.core_busy_s(self._plan.server_core),
            accounting.core_busy_s(self._plan.client_core),
            time.process_time(),
        )


def require_same(plan: Plan) -> None:
    """Refuse to compare PetSage and FastAPI where they do not answer the same."""
    compared = {"post", "list", "fastapi_post", "fastapi_list"}
    said = []
    for session in SESSIONS:
        operations = [each for each in session.operations if each.name in compared]
        if operations:
            with _started(session, plan) as started:
                said.append([started.ask(operation).text for operation in operations])
    if said[0] != said[1]:
        raise BenchmarkError(
            f"the servers answer differently: {said}", fix="only what answers alike is compared"
        )


def measure_session(session: Session, number: int, plan: Plan) -> list[Reading]:
    """Each operation in turn, on a server started for this round."""
    with _started(session, plan) as started:
        started.load(session.operations[0], plan.warmup_s)
        readings = [started.measure(operation, number) for operation in session.operations]
        faults = started.stop()
    lost = started.lost_lines()
    # The last one tells what is wrong with the whole session.
    last = replace(readings[-1], faults=(*readings[-1].faults, *faults), lost_lines=lost)
    return [*readings[:-1], last]


@contextmanager
def _started(session: Session, plan: Plan) -> Iterator[_Started]:
    """The server of a session, on the servers' core, in a folder of its own."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="petsage-bench-"))
        write_end = drain = None
        if session.pipe is not None:
            write_end, drain = stack.enter_context(drained_pipe(session.pipe or None))
        server = stack.enter_context(
            running(
                session.server,
                core=plan.server_core,
                folder=Path(folder),
                features=session.features,
                environment={
                    "BENCH_ROUTES": str(session.routes),
                    # On a busy machine, 10,000 routes are not checked within the default.
                    "PETSAGE_CATALOG__CHECK_TIMEOUT_S": str(_CHECK_TIMEOUT_S),
                },
                stdout=write_end,
            )
        )
        yield _Started(session, server, drain, plan)
