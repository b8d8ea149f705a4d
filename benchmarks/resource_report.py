"""The report of a run with resources: both servers side by side, the goals, and how flat it is."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass

from benchmarks.pets import TITLES
from benchmarks.report import Machine, cell
from benchmarks.resource_rounds import (
    OPERATIONS,
    PEER,
    SIDES,
    Figures,
    Operation,
    Plan,
    page_number,
)
from benchmarks.servers import Server
from benchmarks.summary import NOISY_OTHERS, SATURATED, judged, spread

_Table = Callable[[list[list[str]]], list[str]]
_COLUMNS: tuple[tuple[str, Callable[[Figures], float], str], ...] = (
    ("CPU µs", lambda each: each.cpu_us, ".0f"),
    ("p50 ms", lambda each: each.p50_ms, ".1f"),
    ("p99 ms", lambda each: each.p99_ms, ".1f"),
)
# A request is flat in the number of rows where it costs at most so many times as much.
_FLAT = 1.25


@dataclass(frozen=True)
class Run:
    """A whole run: everything that the report is made of."""

    machine: Machine
    plan: Plan
    figures: list[Figures]

    def of(self, server: Server, kind: str, rows: int, operation: Operation) -> list[Figures]:
        """One operation on one database, round by round."""
        wanted = (server.name, kind, rows, operation.name)
        return sorted(
            (
                each
                for each in self.figures
                if (each.server, each.kind, each.rows, each.operation) == wanted
            ),
            key=lambda each: each.number,
        )

    @property
    def sizes(self) -> list[int]:
        """The numbers of rows, the smallest first."""
        return sorted({each.rows for each in self.figures})

    @property
    def kinds(self) -> list[str]:
        """The kinds of databases."""
        return list(dict.fromkeys(each.kind for each in self.figures))

    @property
    def void(self) -> list[str]:
        """Why the run is void; nothing where it counts."""
        return [
            f"{each.server} on {TITLES[each.kind]}, {each.rows:,} rows, {each.operation},"
            f" round {each.number}: {fault}"
            for each in self.figures
            for fault in each.faults
        ]


def as_report(run: Run, table: _Table, heading: Callable[[str], str]) -> str:
    """The report; `table` and `heading` say in what form."""
    machine, plan = run.machine, run.plan
    packages = ", ".join(f"{name} {number}" for name, number in machine.packages.items())
    sections = {"Void: these figures do not count": [f"- {why}" for why in run.void]}
    for kind in run.kinds:
        for rows in run.sizes:
            sections[f"{TITLES[kind]}, {rows:,} rows"] = table(_side_by_side(run, kind, rows))
    if len(run.sizes) > 1:
        least, most = run.sizes[0], run.sizes[-1]
        title = f"Times the CPU of a request among {least:,} rows that one among {most:,} uses"
        sections[title] = table(_flatness(run, least, most))
    sections["Notes"] = [f"- {note}" for note in _notes(run)]
    sections["Conditions"] = [
        f"- {machine.date}; {machine.cpu}, {machine.cores} cores; {machine.system}",
        f"- {machine.python}; {packages}",
        f"- wrk {machine.wrk}, {_load(plan)}; PostgreSQL with fsync off",
    ]
    return "\n".join(
        "\n".join([heading(name), "", *lines, ""]) for name, lines in sections.items() if lines
    )


def _load(plan: Plan) -> str:
    return (
        f"{plan.connections} connections, {plan.seconds} s of each operation after"
        f" {plan.warmup_s} s of warm-up; servers on core {plan.server_core}, wrk and PostgreSQL on"
        f" core {plan.client_core}"
    )


def as_json(run: Run) -> str:
    """The report for programs: every round's figures."""
    document = {
        "machine": asdict(run.machine),
        "plan": asdict(run.plan) | {"feature": str(run.plan.feature)},
        "void": run.void,
        "figures": [asdict(each) for each in run.figures],
    }
    return json.dumps(document, indent=2) + "\n"


def _side_by_side(run: Run, kind: str, rows: int) -> list[list[str]]:
    """A row for each operation: what both use, and whether that is what was wanted."""
    columns = [f"{side} {figure}" for figure, _, _ in _COLUMNS for side in ("PetSage", "FastAPI")]
    table = [["", *columns, "times less CPU", "wanted", "verdict"]]
    for operation in OPERATIONS:
        own, peer = (run.of(server, kind, rows, operation) for server in SIDES)
        cells = [
            cell(spread(map(value, figures)), form)
            for _, value, form in _COLUMNS
            for figures in (own, peer)
        ]
        ratios = [two.cpu_us / one.cpu_us for one, two in zip(own, peer, strict=True)]
        wanted = operation.wanted
        verdict = judged(ratios, lambda ratio, wanted=wanted: ratio >= wanted)  # type: ignore[misc] # bound now
        cells += [cell(spread(ratios), ".2f"), f"at least {wanted:g}", verdict]
        table.append([_title(operation, rows), *cells])
    return table


def _title(operation: Operation, rows: int) -> str:
    return f"page {page_number(rows):,}" if operation.name == "page" else operation.title


def _flatness(run: Run, least: int, most: int) -> list[list[str]]:
    """A row for each operation: what it uses among many rows beside what it uses among few."""
    table = [["", *(f"{side.title}, {TITLES[kind]}" for kind in run.kinds for side in SIDES)]]
    for operation in OPERATIONS:
        cells = [operation.title]
        for kind in run.kinds:
            for server in SIDES:
                few, many = (run.of(server, kind, rows, operation) for rows in (least, most))
                ratios = [two.cpu_us / one.cpu_us for one, two in zip(few, many, strict=True)]
                verdict = "" if server is PEER else f" {judged(ratios, _is_flat)}"
                cells.append(cell(spread(ratios), ".2f") + verdict)
        table.append(cells)
    return table


def _is_flat(ratio: float) -> bool:
    return ratio <= _FLAT


def _notes(run: Run) -> list[str]:
    """What a reader must know of this machine before believing the figures."""
    notes = [f"flat is what costs at most {_FLAT:g} times as much among the most rows"]
    others = max(each.others_share for each in run.figures)
    if others > NOISY_OTHERS:
        notes.append(
            f"noisy: other processes took up to {others:.0%} of the servers' core; times suffer"
            " from that first, CPU a request last"
        )
    for kind in run.kinds:
        for server in SIDES:
            waited = [
                operation.title
                for operation in OPERATIONS
                if any(
                    each.server_share < SATURATED
                    for rows in run.sizes
                    for each in run.of(server, kind, rows, operation)
                )
            ]
            if waited:
                notes.append(
                    f"{server.title}, {TITLES[kind]}: waited for the database, the disk or wrk, so"
                    f" that p50 and p99 are more of theirs than of its own ({', '.join(waited)})"
                )
    return notes
