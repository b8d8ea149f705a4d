"""What a resource costs beside FastAPI with SQLAlchemy: `python -m benchmarks.resources`.

The pets that `petsage build` makes, in SQLite and in PostgreSQL; each server has databases of its
own with the same rows in them. In each round both servers are started on each database, taking
turns, and are asked to read one, to list by a filter, for a page far behind, and to create.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.errors import BenchmarkError
from benchmarks.pets import TITLES, Database, new_database, require_room
from benchmarks.report import markdown_table, text_table, this_machine
from benchmarks.resource_report import Run, as_json, as_report
from benchmarks.resource_rounds import SIDES, Figures, Known, Plan, measure, prepare, require_same
from tests.postgres import Cluster, PostgresError

_PACKAGES = ("sqlalchemy", "asyncpg", "aiosqlite")
_FIELDS = ("name:str", "species:dog|cat|rabbit", "born:date?", "weight_kg:float")
_BUILD_TIMEOUT_S = 300


def main() -> int:
    """Measure as the command line says; 0 where the run counts, 1 where it is void."""
    options = _options()
    try:
        with tempfile.TemporaryDirectory(prefix="petsage-bench-") as folder:
            plan = _plan(options, Path(folder))
            figures = _measure(options, plan, Path(folder))
    except (BenchmarkError, PostgresError) as error:
        print(error, file=sys.stderr)
        return 1
    run = Run(this_machine(_PACKAGES), plan, figures)
    print(as_report(run, text_table, str.upper))
    if options.json:
        options.json.write_text(as_json(run))
    if options.markdown:
        options.markdown.write_text(as_report(run, markdown_table, "## {}".format))
    return 1 if run.void else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.resources", description=__doc__)
    add = parser.add_argument
    add("--rows", type=_positive, default=1_000_000, help="rows of a table (%(default)s)")
    add(
        "--few-rows",
        type=int,
        default=10_000,
        help="rows of another, to see what their number costs; 0 for none (%(default)s)",
    )
    add("--rounds", type=_positive, default=3, help="rounds of each server (%(default)s)")
    add("--seconds", type=_positive, default=4, help="seconds of each operation (%(default)s)")
    add("--warmup", type=_positive, default=1, help="seconds of load before it (%(default)s)")
    add("--connections", type=_positive, default=64, help="wrk's connections (%(default)s)")
    add("--databases", nargs="+", choices=TITLES, default=list(TITLES), help="which (both)")
    add("--feature", type=Path, metavar="FOLDER", help="PetSage's pets (built by `petsage build`)")
    add("--json", type=Path, metavar="FILE", help="also write every figure there")
    add("--markdown", type=Path, metavar="FILE", help="also write the report there")
    return parser.parse_args()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return number


def _plan(options: argparse.Namespace, folder: Path) -> Plan:
    """What to do, on the first and the last of the cores that we may use; we stay on the first."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise BenchmarkError("only one core is there", fix="give wrk and the server one each")
    feature = options.feature or _built(folder)
    if not (feature / "store.py").is_file():
        raise BenchmarkError(f"{feature} is no feature that keeps pets", fix="leave --feature out")
    os.sched_setaffinity(0, {cores[0]})
    return Plan(
        seconds=options.seconds,
        warmup_s=options.warmup,
        connections=options.connections,
        server_core=cores[-1],
        client_core=cores[0],
        feature=feature.resolve(),
    )


def _built(folder: Path) -> Path:
    """The folder of the pets that the builder makes."""
    features = folder / "features"
    features.mkdir()
    fields = [part for field in _FIELDS for part in ("--field", field)]
    command = [sys.executable, "-m", "petsage", "build", "pets"]
    done = subprocess.run(  # noqa: S603 - PetSage, with words from here # nosec B603
        [*command, "--description", "The pets we know", *fields],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=_BUILD_TIMEOUT_S,
    )
    if done.returncode != 0:
        raise BenchmarkError(
            f"the pets were not built:\n{(done.stdout + done.stderr).strip()[-2000:]}\n",
            fix="give a folder that was built elsewhere by --feature",
        )
    return features / "pets"


def _measure(options: argparse.Namespace, plan: Plan, folder: Path) -> list[Figures]:
    """All rounds, the servers taking turns, each time the other one first."""
    sizes = sorted({options.rows, options.few_rows} - {0})
    require_room(folder, sizes)
    figures = []
    with _cluster(wanted="postgresql" in options.databases) as cluster:
        prepared = [
            _prepared(kind, rows, plan, folder, cluster)
            for kind in options.databases
            for rows in sizes
        ]
        for number in range(1, options.rounds + 1):
            for pair in prepared:
                for place in (0, 1) if number % 2 else (1, 0):
                    database, known = pair[place]
                    measured = measure(number, SIDES[place], database, known, plan)
                    figures += measured
                    _tell(measured, of=options.rounds)
    return figures


@contextmanager
def _cluster(*, wanted: bool) -> Iterator[str]:
    """The URL of a PostgreSQL cluster for this run, "" where none is wanted."""
    if not wanted:
        yield ""
        return
    cluster = Cluster()
    try:
        yield cluster.url
    finally:
        cluster.end()


def _prepared(
    kind: str, rows: int, plan: Plan, folder: Path, cluster: str
) -> list[tuple[Database, Known]]:
    """A database for each server, filled, and what to ask for there."""
    found = []
    for server in SIDES:
        began = time.perf_counter()
        database = new_database(server.name, kind, rows, folder=folder, cluster=cluster)
        found.append((database, prepare(server, database, plan)))
        took_s = time.perf_counter() - began
        print(f"{rows:,} rows in {TITLES[kind]} for {server.name}: {took_s:.0f} s", file=sys.stderr)
    (_, own), (_, peer) = found
    require_same(own, peer)
    return found


def _tell(measured: list[Figures], *, of: int) -> None:
    first = measured[0]
    costs = "  ".join(f"{each.operation} {each.cpu_us:5.0f} µs" for each in measured)
    void = "  VOID" if any(each.faults for each in measured) else ""
    print(
        f"round {first.number} of {of}  {TITLES[first.kind]:10} {first.rows:9,} rows"
        f"  {first.server:18}  {costs}{void}",
        file=sys.stderr,
    )


if __name__ == "__main__":
    sys.exit(main())
