"""The report of a run: plain text, Markdown and JSON of the same facts."""

import json
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from benchmarks.accounting import cpu_model
from benchmarks.measure import Plan, Round
from benchmarks.servers import PATH, SERVERS
from benchmarks.summary import Spread, Verdict, notes, spread, verdicts, voids
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
)
_COLUMNS: tuple[tuple[str, Callable[[Round], float], str], ...] = (
    ("CPU µs/request", lambda each: each.cpu_us, ".0f"),
    ("requests/s", lambda each: each.requests_per_s, ",.0f"),
    ("p50 ms", lambda each: each.p50_ms, ".1f"),
    ("p99 ms", lambda each: each.p99_ms, ".1f"),
    ("peak MB", lambda each: each.peak_mb, ".0f"),
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
        "plan": asdict(run.plan),
        "goals": [asdict(verdict) for verdict in verdicts(run.rounds)],
        "notes": notes(run.rounds),
        "void": voids(run.rounds),
        "rounds": [asdict(each) for each in run.rounds],
    }
    return json.dumps(document, indent=2) + "\n"


def _render(
    run: Run,
    table: Callable[[list[list[str]]], list[str]],
    heading: Callable[[str], str],
) -> str:
    machine, plan = run.machine, run.plan
    packages = ", ".join(f"{name} {number}" for name, number in machine.packages.items())
    sections = {
        "Void: these figures do not count": [f"- {why}" for why in voids(run.rounds)],
        "Servers, median (least to greatest)": table(_server_rows(run.rounds)),
        "Goals of PetSage, round by round": table(_goal_rows(verdicts(run.rounds))),
        "Notes": [f"- {note}" for note in notes(run.rounds)],
        "Conditions": [
            f"- {machine.date}; {machine.cpu}, {machine.cores} cores; {machine.system}",
            f"- {machine.python}; {packages}",
            f"- wrk {machine.wrk}, {_load(plan)}",
        ],
    }
    return "\n".join(
        "\n".join([heading(name), "", *lines, ""]) for name, lines in sections.items() if lines
    )


def _load(plan: Plan) -> str:
    return (
        f"GET {PATH} on {plan.connections} connections, {plan.rounds} rounds of {plan.seconds} s"
        f" after {plan.warmup_s} s of warm-up; servers on core {plan.server_core}, wrk on core"
        f" {plan.client_core}"
    )


def _server_rows(rounds: list[Round]) -> list[list[str]]:
    rows = [["server", *(name for name, _, _ in _COLUMNS)]]
    for name in dict.fromkeys(each.server for each in rounds):
        own = [each for each in rounds if each.server == name]
        cells = [cell(spread(map(value, own)), form) for _, value, form in _COLUMNS]
        rows.append([SERVERS[name].title, *cells])
    return rows


def _goal_rows(goals: list[Verdict]) -> list[list[str]]:
    if not goals:
        return []
    rows = [["measured", "", "wanted", "verdict"]]
    for goal in goals:
        form = ".0f" if goal.measured.median >= 20 else ".2f"
        rows.append([cell(goal.measured, form), goal.text, goal.wanted, goal.says])
    return rows


def cell(value: Spread, form: str) -> str:
    """A median, with the least and the greatest beside it."""
    return f"{value.median:{form}} ({value.least:{form}}…{value.greatest:{form}})"


def text_table(rows: list[list[str]]) -> list[str]:
    """Lines for a terminal; the first row holds the columns' names."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def markdown_table(rows: list[list[str]]) -> list[str]:
    """Lines of a table in Markdown."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return [*lines[:1], "|" + "---|" * len(rows[0]), *lines[1:]] if rows else []
