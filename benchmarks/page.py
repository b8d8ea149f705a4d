"""The page of a run: Markdown, with its picture beside it."""

from pathlib import Path
from string import Template

from benchmarks.chart import chart
from benchmarks.further import further_rows, further_verdicts
from benchmarks.goals import verdicts
from benchmarks.lines import ACCESS_FACTS, APP_FACTS
from benchmarks.measure import Round
from benchmarks.report import Run, cell, conditions, goal_rows, markdown_table, server_rows
from benchmarks.servers import SERVERS

_TEMPLATE = Template(Path(__file__).with_name("page.md").read_text(encoding="utf-8"))


def write_page(run: Run, page: Path) -> None:
    """Write the page of a run that is not void, and its picture, of the same name."""
    picture = page.with_suffix(".svg")
    picture.write_text(chart(run.rounds), encoding="utf-8")
    page.write_text(page_of(run, picture.name), encoding="utf-8")


def page_of(run: Run, picture: str) -> str:
    """The page, which shows the picture of that name."""
    same = [each for each in run.rounds if SERVERS[each.server].logs != "docs"]
    documented = [
        each
        for each in run.rounds
        if each.server == "petsage" or SERVERS[each.server].logs != "ours"
    ]
    tables = {
        "goals": goal_rows(verdicts(run.rounds)),
        "same_logs": server_rows(same),
        "documented": server_rows(documented),
        "further_goals": goal_rows(further_verdicts(run.further)),
        "further": further_rows(run.further, cell),
        "fields": _field_rows(run.rounds),
    }
    return _TEMPLATE.substitute(
        {name: "\n".join(markdown_table(rows)) for name, rows in tables.items()},
        picture=picture,
        app_facts=", ".join(APP_FACTS),
        access_facts=", ".join(ACCESS_FACTS),
        notes="\n".join(f"- {note}" for note in run.notes),
        conditions="\n".join([*conditions(run), f"- `{run.command}`"]),
    )


def _field_rows(rounds: list[Round]) -> list[list[str]]:
    """What stood in a line of each kind, and in whose."""
    labels: dict[tuple[tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for name, server in SERVERS.items():
        last = next((each for each in reversed(rounds) if each.server == name), None)
        if last is not None and last.app_fields:
            labels.setdefault((last.app_fields, last.access_fields), []).append(server.label)
    rows = [["server", "fields of an app line", "fields of an access line"]]
    rows += [["; ".join(who), *map(", ".join, fields)] for fields, who in labels.items()]
    return rows
