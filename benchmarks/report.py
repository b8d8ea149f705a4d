"""The report of a run: plain text, Markdown and JSON of the same facts."""

import json
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from benchmarks.accounting import cpu_model
from benchmarks.further import further_notes, further_rows, further_verdicts, further_voids
from benchmarks.further_rounds import Reading
from benchmarks.goals import verdicts
from benchmarks.measure import Plan, Round
from benchmarks.servers import PATH, SERVERS
from benchmarks.summary import Spread, Verdict, notes, spread, voids
from benchmarks.wrk import wrk_version

_PACKAGES = (
    "petsage",
    "aiohttp",
    "fastapi",
    "starlette",
    "uvicorn",
    "httptools",
    "uvloop",
    "pydantic",
    "python-json-logger",
    "orjson",
    "litestar",
    "msgspec",
    "blacksheep",
    "sanic",
    "robyn",
    "granian",
)
_COLUMNS: tuple[tuple[str, Callable[[Round], float], str], ...] = (
    ("CPU µs/request", lambda each: each.cpu_us, ".0f"),
    ("requests/s", lambda each: each.requests_per_s, ",.0f"),
    ("p50 ms", lambda each: each.p50_ms, ".1f"),
    ("p99 ms", lambda each: each.p99_ms, ".1f"),
    ("peak MB", lambda each: each.memory_mb, ".0f"),
    ("first 200 ms", lambda each: each.first_200_ms, ".0f"),
    ("its CPU ms", lambda each: each.first_200_cpu_ms, ".0f"),
)


@dataclass(frozen=True)
class Machine:
    """Where and when a run was made, and with which versions."""

    date: str
    cpu: str
    cores: int
    system: str
    python: str
    wrk: str
    packages: dict[str, str]


@dataclass(frozen=True)
class Run:
    """A whole run: everything that a report is made of."""

    machine: Machine
    plan: Plan
    rounds: list[Round]
    further: list[Reading]
    command: str

    @property
    def void(self) -> list[str]:
        """Why the run is void; nothing where it counts."""
        return voids(self.rounds) + further_voids(self.further)

    @property
    def notes(self) -> list[str]:
        """What a reader must know of this machine before believing the figures."""
        return notes(self.rounds) + further_notes(self.further)


def this_machine(packages: tuple[str, ...] = ()) -> Machine:
    """The facts of this machine, now, with the versions of `packages`, too."""
    return Machine(
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        cpu=cpu_model(),
        cores=os.cpu_count() or 0,
        system=f"{platform.system()} {platform.release()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        wrk=wrk_version(),
        packages={name: _version(name) for name in (*_PACKAGES, *packages)},
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def as_text(run: Run) -> str:
    """The report for a terminal."""
    return _render(run, text_table, str.upper)


def as_markdown(run: Run) -> str:
    """The report as a Markdown page."""
    return _render(run, markdown_table, "## {}".format)


def as_json(run: Run) -> str:
    """The report for programs: every round, and what was made of them."""
    document = {
        "machine": asdict(run.machine),
        "command": run.command,
        "plan": asdict(run.plan),
        "goals": [asdict(verdict) for verdict in verdicts(run.rounds)],
        "further_goals": [asdict(verdict) for verdict in further_verdicts(run.further)],
        "notes": run.notes,
        "void": run.void,
        "rounds": [asdict(each) for each in run.rounds],
        "further": [asdict(each) for each in run.further],
    }
    return json.dumps(document, indent=2) + "\n"


def _render(
    run: Run,
    table: Callable[[list[list[str]]], list[str]],
    heading: Callable[[str], str],
) -> str:
    sections = {
        "Void: these figures do not count": [f"- {why}" for why in run.void],
        "Servers, median (least to greatest)": table(server_rows(run.rounds)),
        "Goals of PetSage, round by round; in brackets, what another row decides": table(
            goal_rows(verdicts(run.rounds))
        ),
        "Further, median (least to greatest)": table(further_rows(run.further, cell)),
        "Further goals, round by round": table(goal_rows(further_verdicts(run.further))),
        "Notes": [f"- {note}" for note in run.notes],
        "Conditions": conditions(run),
    }
    return "\n".join(
        "\n".join([heading(name), "", *lines, ""]) for name, lines in sections.items() if lines
    )


def conditions(run: Run) -> list[str]:
    """Where, when, with what and how it was measured, as lines of a list."""
    machine = run.machine
    packages = ", ".join(f"{name} {number}" for name, number in machine.packages.items())
    return [
        f"- {machine.date}; {machine.cpu}, {machine.cores} cores; {machine.system}",
        f"- {machine.python}; {packages}",
        f"- wrk {machine.wrk}, {_load(run.plan)}",
    ]


def _load(plan: Plan) -> str:
    return (
        f"GET {PATH} on {plan.connections} connections, {plan.rounds} rounds of {plan.seconds} s"
        f" after {plan.warmup_s} s of warm-up; servers on core {plan.server_core}, wrk on core"
        f" {plan.client_core}"
    )


def server_rows(rounds: list[Round]) -> list[list[str]]:
    """A row for each server, the columns' names before them; nothing where none was measured."""
    rows = [["server", *(name for name, _, _ in _COLUMNS)]]
    for name in dict.fromkeys(each.server for each in rounds):
        own = [each for each in rounds if each.server == name]
        cells = [cell(spread(map(value, own)), form) for _, value, form in _COLUMNS]
        rows.append([SERVERS[name].label, *cells])
    return rows if len(rows) > 1 else []


def goal_rows(goals: list[Verdict]) -> list[list[str]]:
    """A row for each goal, the columns' names before them."""
    if not goals:
        return []
    rows = [["measured", "", "at least", "", "goal", ""]]
    for goal in goals:
        form = ".0f" if goal.measured.median >= 20 else ".2f"
        measured = cell(goal.measured, form)
        rows.append([measured, goal.text, goal.least, goal.least_is, goal.goal, goal.goal_is])
    return rows


def cell(value: Spread, form: str) -> str:
    """A median, with the least and the greatest beside it."""
    return f"{value.median:{form}} ({value.least:{form}}…{value.greatest:{form}})"


def text_table(rows: list[list[str]]) -> list[str]:
    """Lines for a terminal; the first row holds the columns' names."""
    if not rows:
        return []
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def markdown_table(rows: list[list[str]]) -> list[str]:
    """Lines of a table in Markdown."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return [*lines[:1], "|" + "---|" * len(rows[0]), *lines[1:]] if rows else []
