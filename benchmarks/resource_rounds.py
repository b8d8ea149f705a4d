"""What is asked of a server that keeps pets, and what it used for it.

Longer than 300 lines: set-up and rounds ask in the same ways, and are read as one.
"""

import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import accounting
from benchmarks.errors import BenchmarkError
from benchmarks.lines import count_lines
from benchmarks.pets import NEW_PET, TITLES, Database, count, fill
from benchmarks.running import Running, running
from benchmarks.servers import HOST, SERVERS, Server
from benchmarks.wrk import Load, run_wrk

PETS = "/api/v1/pets"
PEER = Server(
    name="fastapi_sqlalchemy",
    title="FastAPI, SQLAlchemy async ORM",
    arguments=("benchmarks.peers.fastapi_resources",),
    access_logger="uvicorn.access",
    body_fields=frozenset(),
    logs="docs",
)
SIDES = (SERVERS["petsage"], PEER)
PAGE = 10_000

_ITEMS = 50
_MOST_ITEMS = 500
_NEXT = re.compile(r'<([^>]*)>; *rel="next"')


@dataclass(frozen=True)
class Operation:
    """What is asked; `wanted` is how many times less CPU than the peer PetSage is to use.

    `with_id` asks for another pet with each request.
    """

    name: str
    title: str
    wanted: float
    status: int = 200
    with_id: bool = False
    body: str | None = None


OPERATIONS = (
    Operation("read", "read one", 2, with_id=True),
    Operation("list", "filtered list", 2),
    Operation("page", "page far behind", 2),
    Operation("create", "create", 1.5, status=201, body=NEW_PET),
)


@dataclass(frozen=True)
class Plan:
    """How a run measures; the same for both servers. `feature` is PetSage's folder of pets."""

    seconds: int
    warmup_s: int
    connections: int
    server_core: int
    client_core: int
    feature: Path


@dataclass(frozen=True)
class Known:
    """The path of each operation on one database, and what is answered to samples there."""

    paths: Mapping[str, str]
    samples: Mapping[str, object]


@dataclass(frozen=True)
class Figures:
    """What one operation in one round measured; `faults` make the run void.

    A `…_share` is a part of the measured time on one core, 0 to 1.
    """

    number: int
    server: str
    kind: str
    rows: int
    operation: str
    requests: int
    cpu_us: float
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    server_share: float
    others_share: float
    faults: tuple[str, ...]


class _Session:
    """A started server, asked so that each answer is counted."""

    def __init__(self, server: Running) -> None:
        self.running = server
        answer, self.too_early = server.first_answer(f"{PETS}?limit=1")
        self.answered = 1
        if answer.status != 200:
            said = (*server.logs.glob("*"), server.logs.parent / "output.txt")
            raise BenchmarkError(
                f"its pets are answered with {answer.status}: {answer.body}. It said:\n"
                + "".join(each.read_text(errors="replace")[-2000:] for each in said),
                fix="serve its folder by hand",
            )

    def ask(self, path: str, body: str | None = None, *, status: int = 200) -> dict[str, object]:
        """The body of the answer, which has to have that status."""
        answer = self.running.ask(path, body)
        self.answered += 1
        if answer.status != status or answer.body is None:
            raise BenchmarkError(
                f"{path} was answered with {answer.status}: {answer.body}",
                fix="ask by hand; the server's own lines say more",
            )
        return answer.body

    def follow(self, path: str, times: int) -> str:
        """The path of the page so many pages behind that at `path`."""
        for _ in range(times):
            answer = self.running.ask(path)
            self.answered += 1
            link = _NEXT.search(answer.headers.get("Link", ""))
            if link is None:
                raise BenchmarkError(
                    f"{path} ({answer.status}) has no link to a next page",
                    fix="ask by hand; the server's own lines say more",
                )
            path = link[1]
        return path


@contextmanager
def _started(server: Server, database: Database, plan: Plan) -> Iterator[_Session]:
    """`server` on `database`, from its first answer until it has stopped."""
    with (
        tempfile.TemporaryDirectory(prefix="petsage-bench-") as folder,
        running(
            server,
            core=plan.server_core,
            folder=Path(folder),
            features={"pets": plan.feature},
            environment={
                "PETSAGE_DATABASE__URL": database.url,
                "BENCH_DATABASE_URL": database.async_url,
            },
        ) as process,
    ):
        yield _Session(process)


def page_number(rows: int) -> int:
    """Which page is asked for as the one far behind: the 10,000th, or that in the middle."""
    return min(PAGE, rows // _ITEMS // 2 + 1)


def prepare(server: Server, database: Database, plan: Plan) -> Known:
    """Have `server` make its table, fill it, and find out what to ask for."""
    with _started(server, database, plan):
        pass
    fill(database)
    with _started(server, database, plan) as session:
        pages, rest = divmod(page_number(database.rows) - 1, _MOST_ITEMS // _ITEMS)
        far = session.follow(f"{PETS}?limit={_MOST_ITEMS}", pages)
        far = session.follow(far.replace(f"limit={_MOST_ITEMS}", f"limit={_ITEMS}"), rest)
        paths = {
            "read": f"{PETS}/",
            "list": f"{PETS}?species=rabbit",
            "page": far,
            "create": PETS,
        }
        ids = (1, database.rows // 2, database.rows)
        samples: dict[str, object] = {
            f"pet {number}": session.ask(f"{PETS}/{number}") for number in ids
        }
        for name in ("list", "page"):
            samples[name] = session.ask(paths[name])["items"]
        return Known(paths, samples)


def require_same(one: Known, other: Known) -> None:
    """Refuse to compare servers that do not answer the same."""
    for name, sample in one.samples.items():
        if sample != other.samples[name]:
            raise BenchmarkError(
                f"the servers answer differently to {name}:\n{sample}\n{other.samples[name]}\n",
                fix="only what answers the same can be compared",
            )


@dataclass(frozen=True)
class _Loaded:
    """A warm-up and the measured load, and the CPU seconds that the latter cost the server."""

    warm_up: Load
    measured: Load
    took_s: float
    server_s: float
    core_s: float

    @property
    def requests(self) -> int:
        """How many were answered."""
        return self.warm_up.requests + self.measured.requests


def measure(
    number: int, server: Server, database: Database, known: Known, plan: Plan
) -> list[Figures]:
    """Each operation in turn, on a server started for this round."""
    before = count(database)
    with _started(server, database, plan) as session:
        loads = []
        for operation in OPERATIONS:
            _check(session, operation, known)
            loads.append(_load(session, operation, known.paths[operation.name], database, plan))
        faults = [] if session.running.stop() else ["it did not stop on SIGTERM and was killed"]
        faults += _faults_of_lines(session, server, sum(each.requests for each in loads), plan)
    created, slack = loads[-1].requests + 1, 2 * plan.connections
    if not created <= (kept := count(database) - before) <= created + slack:
        faults.append(f"{kept} pets were kept of {created} that were answered as created")
    last = OPERATIONS[-1]  # which tells what is wrong with the whole round
    return [
        _figures(number, database, operation, loaded, faults if operation is last else [])
        for operation, loaded in zip(OPERATIONS, loads, strict=True)
    ]


def _faults_of_lines(session: _Session, server: Server, requests: int, plan: Plan) -> list[str]:
    """Why the server's lines are not those of what it answered; nothing where they are."""
    lines = count_lines(
        session.running.logs,
        access_logger=server.access_logger or "",
        answered=frozenset(operation.status for operation in OPERATIONS),
    )
    faults = []
    answered = session.answered + requests
    if not answered <= lines.access <= answered + len(OPERATIONS) * 2 * plan.connections:
        faults.append(f"{lines.access} access lines for {answered} answers")
    if lines.invalid or lines.not_200 != session.too_early:
        faults.append(f"{lines.invalid} lines that are no JSON, {lines.not_200} of another status")
    return faults


def _check(session: _Session, operation: Operation, known: Known) -> None:
    """Refuse to measure what is not answered as it was found before."""
    path = known.paths[operation.name] + ("1" if operation.with_id else "")
    answer = session.ask(path, operation.body, status=operation.status)
    sample = known.samples.get("pet 1" if operation.with_id else operation.name)
    if operation.body is None and answer.get("items", answer) != sample:
        raise BenchmarkError(
            f"{path} is answered otherwise than before: {answer}",
            fix="ask by hand; the server's own lines say more",
        )


def _load(
    session: _Session, operation: Operation, path: str, database: Database, plan: Plan
) -> _Loaded:
    pid = session.running.pid
    url = f"http://{HOST}:{session.running.port}{path}"
    ids = database.rows if operation.with_id else None

    def load(seconds: int) -> Load:
        found = run_wrk(
            url, seconds=seconds, connections=plan.connections, ids=ids, body=operation.body
        )
        if found.requests == 0:
            raise BenchmarkError(
                f"{database.server} answered none of the requests to {operation.title} on"
                f" {TITLES[database.kind]} within {seconds} s",
                fix="repeat on a quieter machine, or with more --seconds",
            )
        return found

    warm_up = load(plan.warmup_s)
    began = time.perf_counter()
    server, core = accounting.cpu_s(pid), accounting.core_busy_s(plan.server_core)
    measured = load(plan.seconds)
    return _Loaded(
        warm_up,
        measured,
        took_s=time.perf_counter() - began,
        server_s=accounting.cpu_s(pid) - server,
        core_s=accounting.core_busy_s(plan.server_core) - core,
    )


def _figures(
    number: int, database: Database, operation: Operation, loaded: _Loaded, faults: list[str]
) -> Figures:
    load = loaded.measured
    own = list(faults)
    if load.bad_statuses:
        own.append(f"{load.bad_statuses} answers to wrk were no 2xx or 3xx")
    if load.socket_errors:
        own.append(f"wrk had {load.socket_errors} socket errors")
    return Figures(
        number=number,
        server=database.server,
        kind=database.kind,
        rows=database.rows,
        operation=operation.name,
        requests=load.requests,
        cpu_us=loaded.server_s * 1e6 / load.requests,
        requests_per_s=load.requests / load.duration_s,
        p50_ms=load.p50_ms,
        p99_ms=load.p99_ms,
        server_share=loaded.server_s / loaded.took_s,
        others_share=max(0.0, loaded.core_s - loaded.server_s) / loaded.took_s,
        faults=tuple(own),
    )
