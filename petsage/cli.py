"""The command line: `petsage serve · check · features · openapi · logs · loggers`."""

import contextlib
import dataclasses
import gc
import json
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from petsage.errors import Finding, PetSageError, StartError
from petsage.logger_command import loggers
from petsage.settings import Settings, load_settings
from petsage.signals import INTERRUPTED, end_as_usual, is_command

if TYPE_CHECKING:
    from petsage.candidate import Candidate
    from petsage.catalog import Entry

# Commands import what they need themselves: `petsage logs` needs no web server.
# ruff: noqa: PLC0415

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Folders = Annotated[
    list[Path] | None,
    typer.Option("--folder", help="A folder of features; may be given several times."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]


@app.callback()
def petsage(context: typer.Context) -> None:
    """PetSage: a feature is a folder, and the health check tells the truth."""
    if context.invoked_subcommand != "serve":  # which does so when it serves
        end_as_usual()
        if is_command():
            gc.enable()


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="The address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="The port; 0 takes a free one.")] = None,
    folders: Folders = None,
) -> None:
    """Serves the features until it is told to stop."""
    from petsage.server import run_server

    server = {"host": host, "port": port}
    flags: dict[str, dict[str, Any]] = {
        "server": {key: value for key, value in server.items() if value is not None},
        "catalog": {"folders": folders} if folders else {},
    }
    run_server(load_settings(flags), announce=_announce if sys.stderr.isatty() else None)


@app.command()
def check(
    folder: Annotated[
        Path | None,
        typer.Argument(help="A folder of features, or one feature's; else those of the settings."),
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Says everything that is wrong with every feature, without serving; exit code 1 if any is."""
    candidates = _load(load_settings(), folder)
    findings = [finding for candidate in candidates for finding in candidate.findings]
    errors = sum(finding.level == "error" for finding in findings)
    failed = sum(bool(candidate.errors) for candidate in candidates)
    if as_json:
        features = [
            {
                "name": candidate.name,
                "ok": not candidate.errors,
                "findings": [dataclasses.asdict(finding) for finding in candidate.findings],
            }
            for candidate in candidates
        ]
        summary = {"features": features, "errors": errors, "warnings": len(findings) - errors}
        typer.echo(json.dumps(summary, indent=2))
    else:
        for finding in findings:
            _print_finding(finding)
        typer.echo(
            f"{_counted(len(candidates), 'feature')}: {len(candidates) - failed} right, "
            f"{failed} wrong ({_counted(errors, 'error')}, "
            f"{_counted(len(findings) - errors, 'warning')})"
        )
    if errors:
        raise typer.Exit(1)


@app.command()
def features(folders: Folders = None, *, as_json: AsJson = False) -> None:
    """Shows every feature: what it is called, whether it can be served, its routes, and why not."""
    from petsage.catalog import entry_of

    settings = load_settings({"catalog": {"folders": folders} if folders else {}})
    entries = [entry_of(candidate) for candidate in _load(settings, None)]
    rows = [
        (
            entry.name,
            entry.version or "",
            "failed" if entry.state == "failed" else "ready",
            ", ".join(entry.routes),
            entry.why,
        )
        for entry in entries
    ]
    rows += [(name, "", "disabled", "", "[catalog].disabled") for name in settings.catalog.disabled]
    columns = ("name", "version", "state", "routes", "why")
    if as_json:
        typer.echo(json.dumps([dict(zip(columns, row, strict=True)) for row in rows], indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, box=None, pad_edge=False)
    colours = {"ready": "green", "failed": "red", "disabled": "yellow"}
    for name, version, state, routes, why in rows:
        table.add_row(name, version, f"[{colours[state]}]{state}[/]", _plain(routes), _plain(why))
    Console(width=None if sys.stdout.isatty() else 200).print(table)


@app.command()
def openapi(folders: Folders = None) -> None:
    """Prints the OpenAPI document of every feature that can be served."""
    from petsage.openapi import DocumentedFeature, build_document

    settings = load_settings({"catalog": {"folders": folders} if folders else {}})
    document = build_document(
        DocumentedFeature(candidate.name, tuple(candidate.routes))
        for candidate in _load(settings, None, core=True)
        if not candidate.errors
    )
    typer.echo(json.dumps(document, indent=2))


@app.command()
def logs(
    file: Annotated[
        Path | None, typer.Argument(help="A file of log lines; standard input if left out.")
    ] = None,
    *,
    level: Annotated[str | None, typer.Option(help="This level, and those more severe.")] = None,
    logger: Annotated[str | None, typer.Option(help="This logger, and those below it.")] = None,
    request_id: Annotated[
        str | None, typer.Option(help="The lines of one request, by its whole id.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the lines as they are, for machines.")
    ] = False,
) -> None:
    """Shows log lines to people: coloured, filtered, and safe for a terminal."""
    from petsage.log_reader import LineFilter, show_lines

    try:
        line_filter = LineFilter(level, logger, request_id)
    except ValueError as error:
        raise StartError(f"--level {level}: {error}", fix="name one of these") from None
    try:
        with _opened(file) as source:
            show_lines(
                source,
                sys.stdout,
                line_filter=line_filter,
                colour=sys.stdout.isatty() and "NO_COLOR" not in os.environ,
                raw=as_json,
            )
    except BrokenPipeError:
        # The reader has seen enough (`| head`); the interpreter must not flush into it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


app.command()(loggers)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command; a PetSageError becomes one line on stderr and exit code 1."""
    _open_what_is_closed()
    try:
        app(args=list(arguments) if arguments is not None else None)
    except PetSageError as error:
        typer.echo(f"petsage: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _open_what_is_closed() -> None:
    """Opens standard descriptors that are shut: the next file opened would take their numbers.

    For reading alone, so that what is written to them fails, and is counted as failed.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDONLY)
    nowhere = Path(os.devnull)
    sys.stdout = sys.stdout or nowhere.open("w", encoding="utf-8")
    sys.stderr = sys.stderr or nowhere.open("w", encoding="utf-8")


def _load(settings: Settings, folder: Path | None, *, core: bool = False) -> "list[Candidate]":
    """Every feature found, checked and imported; those of the core only where asked for."""
    from petsage.loader import load_core, load_features
    from petsage.system import SYSTEM_FEATURES

    folders, only = _wanted(settings, folder)
    candidates: list[Candidate] = []
    errors: list[Exception] = []

    def load() -> None:
        try:
            candidates[:] = load_features(
                folders,
                settings=settings.features,
                disabled=settings.catalog.disabled,
                core=load_core(SYSTEM_FEATURES),
                only=only,
            )
        except Exception as error:  # noqa: BLE001 - raised again by the thread that waits
            errors.append(error)

    # In a thread, as the server does: some things cannot be done there, and a Ctrl-C is for this
    # command and not for the feature. What a feature prints is no part of this command's output.
    with contextlib.redirect_stdout(sys.stderr):
        thread = threading.Thread(target=load, daemon=True)
        thread.start()
        thread.join()
    for error in errors:
        raise error
    return [each for each in candidates if core or each.folder is not None]


def _wanted(settings: Settings, folder: Path | None) -> tuple[list[Path], str | None]:
    """The folders to look in, and the one feature that is asked for, None for all of them."""
    if folder is None:
        for each in settings.catalog.folders:
            if not each.is_dir():
                typer.echo(f"petsage: there is no folder {each} to find features in", err=True)
        return settings.catalog.folders, None
    if not folder.is_dir():
        raise StartError(f"{folder} is no folder", fix="name a folder of features, or one's own")
    if any(folder.glob("*.py")):
        folder = folder.absolute()
        return [Path(os.path.relpath(folder.parent))], folder.name
    return [folder], None


def _announce(address: str, entries: "list[Entry]") -> None:
    """One line for the person at the terminal; the log has all of it, too."""
    serving = [each.name for each in entries if each.state == "serving" and not each.system]
    failed = [each.name for each in entries if each.state == "failed"]
    aside = f"; set aside: {', '.join(failed)} (`petsage check` says why)" if failed else ""
    typer.echo(f"PetSage serves {', '.join(serving) or 'no feature'} on {address}{aside}", err=True)


def _print_finding(finding: Finding) -> None:
    place = f"{finding.file}:{finding.line}" if finding.line else finding.file
    colour = typer.colors.RED if finding.level == "error" else typer.colors.YELLOW
    level = typer.style(finding.level, fg=colour)
    typer.echo(f"{place}: {level} {finding.id}: {finding.problem}\n    fix: {finding.fix}")


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _plain(text: str) -> str:
    """Text with nothing that rich would take for markup."""
    from rich.markup import escape

    return escape(text)


@contextlib.contextmanager
def _opened(file: Path | None) -> Iterator[BinaryIO]:
    if file is None:
        yield sys.stdin.buffer
        return
    try:
        source = file.open("rb")
    except OSError as error:
        raise StartError(
            f"{file} cannot be read: {error.strerror}", fix="name a file that you may read"
        ) from None
    with source:
        yield source
