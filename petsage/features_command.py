"""`petsage features`: what a running server serves, else what the folders hold; and reloads."""

import json
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

import typer
from pydantic import BaseModel, TypeAdapter

from petsage.errors import PetSageError, StartError, printable
from petsage.feature_report import ChangeModel, ChangesModel, FeatureModel, FindingModel
from petsage.running_server import RunningServer, ServerRefusedError, Url, Wanted, find_server
from petsage.settings import Settings, load_settings
from petsage.terminal import harmless, plain, print_error

# Commands import what they need themselves: a running server is asked without loading features.
# ruff: noqa: PLC0415

_RELOAD_S: Final = 600.0
_FEATURES: Final = Wanted[list[FeatureModel]](
    TypeAdapter(list[FeatureModel]),
    called="features",
    fix="`petsage features --folder features` shows what a folder holds, without a server",
)
_CHANGES: Final = Wanted[ChangesModel](
    TypeAdapter(ChangesModel),
    called="changes of features",
    fix="`petsage features` lists what is there",
)
_COLOURS: Final = {"serving": "green", "ready": "green", "failed": "red", "waiting": "red"}

app = typer.Typer(invoke_without_command=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]


class NotAskedError(PetSageError):
    """What a server serves, or would take up, cannot be said: another code than "it refused"."""

    exit_code: ClassVar[int] = 2


@app.callback()
def features(
    context: typer.Context,
    folders: Annotated[
        list[Path] | None,
        typer.Option(
            "--folder", help="What this folder holds, and no server; may be given several times."
        ),
    ] = None,
    *,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Shows what a running PetSage serves; where none runs, what the folders hold.

    Of each feature: whether it serves, since when, what it was asked, and why not; below it, what
    lies in its folder and was refused.
    """
    if context.invoked_subcommand is not None:
        if folders or url or as_json:
            raise StartError(
                f"options of `features {context.invoked_subcommand}` stand behind it",
                fix=f"write `petsage features {context.invoked_subcommand} --url …`",
            )
        return
    if folders and url:
        raise StartError(
            "--folder and --url do not go together: a server has folders of its own",
            fix="leave one of them out",
        )
    settings = load_settings({"catalog": {"folders": folders} if folders else {}})
    if folders:
        _show_folders(settings, as_json=as_json)
    else:
        _ask_or_look(settings, url, as_json=as_json)


def _ask_or_look(settings: Settings, url: str | None, *, as_json: bool) -> None:
    """Shows what a server serves, or what the folders hold where none runs and none was named.

    Raises:
        NotAskedError: the one that was named cannot be asked.
    """
    try:
        server = find_server(settings, url)
        served = server.ask("GET", "/features", wanted=_FEATURES)
    except (ServerRefusedError, StartError) as error:
        if url is not None:
            raise NotAskedError(error.problem, fix=error.fix) from None
        print_error(f"{error.problem}; these are what the folders hold")
        _show_folders(settings, as_json=as_json)
        return
    print_error(f"these are what {server.url} serves")
    _show_served(served, as_json=as_json)


@app.command()
def reload(
    names: Annotated[
        list[str] | None, typer.Argument(help="The features to look at; all if left out.")
    ] = None,
    *,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Has a running PetSage take up what changed in its folders, and says what that was.

    Exit code 1 if anything was refused or does not serve, 2 if it cannot be asked.
    """
    try:
        server = find_server(load_settings(), url)
        answer = _reload(server, names)
    except PetSageError as error:
        raise NotAskedError(error.problem, fix=error.fix) from None
    if as_json:
        _print_json(answer)
    else:
        for change in answer.changes:
            for line in _change_lines(change):
                typer.echo(harmless(line))
        if not answer.changes:
            typer.echo("nothing has changed")
    if any(change.step in {"refused", "failed", "waiting"} for change in answer.changes):
        raise typer.Exit(1)


def _reload(server: RunningServer, names: list[str] | None) -> ChangesModel:
    body = {"names": names} if names else None
    return server.ask("POST", "/features/reload", body, wanted=_CHANGES, timeout_s=_RELOAD_S)


def _change_lines(change: ChangeModel) -> Iterator[str]:
    """A change for people: a line, or one for each thing that is wrong and one for its fix."""
    number = f", generation {change.generation}" if change.generation is not None else ""
    errors = [each for each in change.findings if each.level == "error"]
    if not errors:
        yield f"{change.name}: {change.step}{number}"
    for each in errors:
        yield f"{change.name}: {change.step}, {_said(each)}"
        yield f"    fix: {each.fix}"


def _said(finding: FindingModel) -> str:
    return f"{finding.place}: {finding.id}: {finding.problem}"


def _print_json(value: BaseModel | Sequence[BaseModel]) -> None:
    dumped: Any = (
        value.model_dump(mode="json")
        if isinstance(value, BaseModel)
        else [each.model_dump(mode="json") for each in value]
    )
    typer.echo(json.dumps(dumped, indent=2))


def _show_served(served: list[FeatureModel], *, as_json: bool) -> None:
    """What a server serves; for people, without the core's own where nothing is wrong with it."""
    if as_json:
        _print_json(served)
        return
    shown = [x for x in served if not x.system or x.state != "serving" or x.troubles]
    head = ("name", "version", "state", "generation", "hash", "since", "load ms", "served")
    rows = [(*head, "failed", "routes"), *(_row(each) for each in shown)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    notes = [[], *([*_notes(each)] for each in shown)]
    for number, (row, below) in enumerate(zip(rows, notes, strict=True)):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        if number:
            colour = _COLOURS.get(shown[number - 1].state, "yellow")
            cells[2] = typer.style(cells[2], fg=colour)
        typer.echo("  ".join(cells).rstrip())
        for line in below:
            typer.echo(f"    {harmless(line)}")


def _row(feature: FeatureModel) -> tuple[str, ...]:
    cells = (
        feature.name,
        feature.version or "",
        feature.state_text,
        "" if feature.generation is None else str(feature.generation),
        (feature.content_hash or "")[:12],
        _age(feature.since) if feature.since is not None else "",
        "" if feature.load_ms is None else f"{feature.load_ms:.1f}",
        str(feature.requests.served),
        str(feature.requests.failed),
        ", ".join(feature.routes),
    )
    return tuple(map(harmless, cells))


def _notes(feature: FeatureModel) -> Iterator[str]:
    """What stands below a feature's row: why it does not serve, what was refused, what is left."""
    for each in feature.findings:
        if each.level == "error":
            yield _said(each)
            yield f"    fix: {each.fix}"
    if feature.refused is not None:
        digits = (feature.refused.content_hash or "")[:12] or "that cannot be read"
        yield f"refused {_age(feature.refused.at)} ago: the folder as {digits}"
        for each in feature.refused.findings:
            if each.level == "error":
                yield f"    {_said(each)}"
                yield f"    fix: {each.fix}"
    for former in feature.draining:
        yield f"generation {former.generation} drains, {former.requests} requests in hand"
    for left in feature.leaked:
        yield f"generation {left.generation} stays in memory: {left.what}"
    for trouble in feature.troubles:
        times = f"{trouble.count} times, last " if trouble.count > 1 else ""
        yield f"{trouble.kind}, {times}{_age(trouble.at)} ago: {trouble.problem}"
        yield f"    fix: {trouble.fix}"


def _age(since: datetime) -> str:
    """How long ago that was, in the largest unit that fits: `12 s`, `5 min`, `3 h`, `2 d`.

    What is ahead of this machine's clock, as another machine's may be, counts as now.
    """
    zone = since if since.tzinfo is not None else since.replace(tzinfo=UTC)
    age_s = max(0, int((datetime.now(UTC) - zone).total_seconds()))
    for unit, seconds in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if age_s >= seconds:
            return f"{age_s // seconds} {unit}"
    return f"{age_s} s"


def _show_folders(settings: Settings, *, as_json: bool) -> None:
    """What the folders hold, and whether it could be served."""
    from petsage.entry import entry_of
    from petsage.loader import find_folders
    from petsage.survey import survey

    entries = [entry_of(candidate) for candidate in survey(settings, None)]
    rows = [
        (
            printable(entry.name),
            printable(entry.version or ""),
            "failed" if entry.state == "failed" else "ready",
            printable(", ".join(entry.routes)),
            printable(entry.why),
        )
        for entry in entries
    ]
    names = {path.name for path in find_folders(settings.catalog.folders)}
    rows += [
        (name, "", "disabled", "", "[catalog].disabled")
        for name in settings.catalog.disabled
        if name in names
    ]
    columns = ("name", "version", "state", "routes", "why")
    if as_json:
        typer.echo(json.dumps([dict(zip(columns, row, strict=True)) for row in rows], indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, box=None, pad_edge=False)
    for name, version, state, routes, why in rows:
        colour = _COLOURS.get(state, "yellow")
        table.add_row(name, version, f"[{colour}]{state}[/]", plain(routes), plain(why))
    Console(width=None if sys.stdout.isatty() else 200).print(table)
