"""The commands: `petsage serve · check · features · build · openapi · logs · loggers`."""

import contextlib
import gc
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from petsage.build_command import build
from petsage.errors import Finding, StartError, printable
from petsage.features_command import app as features
from petsage.logger_command import loggers
from petsage.serve_command import flags_of, serve_features
from petsage.settings import load_settings
from petsage.signals import end_as_usual, is_command
from petsage.terminal import counted, give_up_output, print_error, print_finding

if TYPE_CHECKING:
    from petsage.candidate import Candidate
    from petsage.log_reader import LineFilter

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
            gc.freeze()  # what is imported stays; to look through it at the end would take 0.1 s
            gc.enable()


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="The address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="The port; 0 takes a free one.")] = None,
    folders: Folders = None,
) -> None:
    """Serves the features until it is told to stop."""
    serve_features(flags_of(host=host, port=port, folders=folders))


@app.command()
def check(
    folder: Annotated[
        Path | None,
        typer.Argument(help="A folder of features, or one feature's; else those of the settings."),
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Says everything that is wrong with every feature, without serving; exit code 1 if any is.

    What the settings say of features that are not there is said, too.
    """
    from petsage.survey import survey, survey_settings

    settings = load_settings()
    candidates = survey(settings, folder)
    unmatched = survey_settings(settings) if folder is None else []
    findings = [finding for candidate in candidates for finding in candidate.findings]
    findings += unmatched
    errors = sum(finding.level == "error" for finding in findings)
    if as_json:
        summary = {
            "features": [_checked(candidate) for candidate in candidates],
            "settings": [_told(finding) for finding in unmatched],
            "errors": errors,
            "warnings": len(findings) - errors,
        }
        typer.echo(json.dumps(summary, indent=2))
    else:
        for finding in findings:
            print_finding(finding)
        failed = sum(bool(candidate.errors) for candidate in candidates)
        typer.echo(
            f"{counted(len(candidates), 'feature')}: {len(candidates) - failed} right, "
            f"{failed} wrong ({counted(errors, 'error')}, "
            f"{counted(len(findings) - errors, 'warning')})"
        )
    if errors:
        raise typer.Exit(1)


@app.command()
def openapi(folders: Folders = None) -> None:
    """Prints the OpenAPI document of every feature that can be served."""
    from petsage.openapi import DocumentedFeature, build_document
    from petsage.survey import survey

    settings = load_settings({"catalog": {"folders": folders} if folders else {}})
    document = build_document(
        DocumentedFeature(candidate.name, tuple(candidate.routes))
        for candidate in survey(settings, None, core=True)
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
    marker: Annotated[
        str | None,
        typer.Option(
            help="The one line of this marker, in FILE or its rotated neighbours: "
            "exit code 0 if it is there, 1 if not, 2 if that cannot be said."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the lines as they are, for machines.")
    ] = False,
) -> None:
    """Shows log lines to people: coloured, filtered, and safe for a terminal."""
    from petsage.log_reader import show_lines
    from petsage.log_search import SearchError

    line_filter = _line_filter(level, logger, request_id, searches=marker is not None)
    with _opened(file) if marker is None else _found(file, marker, line_filter) as source:
        try:
            show_lines(
                source,
                sys.stdout,
                line_filter=line_filter,
                colour=sys.stdout.isatty() and "NO_COLOR" not in os.environ,
                raw=as_json,
            )
        except OSError as error:
            if marker is None or not give_up_output(error):
                raise
            raise typer.Exit(SearchError.exit_code) from None


app.add_typer(features, name="features")
app.command()(loggers)
app.command()(build)


def _checked(candidate: "Candidate") -> dict[str, Any]:
    """What `petsage check --json` says of one feature."""
    return {
        "name": printable(candidate.name),
        "ok": not candidate.errors,
        "findings": [_told(finding) for finding in candidate.findings],
    }


def _told(finding: Finding) -> dict[str, Any]:
    return {
        key: printable(value) if isinstance(value, str) else value
        for key, value in finding._asdict().items()
    }


def _line_filter(
    level: str | None, logger: str | None, request_id: str | None, *, searches: bool
) -> "LineFilter":
    """Which lines are wanted.

    Raises:
        StartError: there is no such level; a SearchError where a marker is looked for.
    """
    from petsage.log_reader import LineFilter
    from petsage.log_search import SearchError

    try:
        return LineFilter(level, logger, request_id)
    except ValueError as error:
        kind = SearchError if searches else StartError
        raise kind(f"--level {level}: {error}", fix="name one of these") from None


@contextlib.contextmanager
def _found(
    file: Path | None, marker: str, line_filter: "LineFilter"
) -> "Iterator[Iterable[bytes]]":
    """The one line that bears the marker; else ends the command with exit code 1."""
    from petsage.log_search import MarkerSearch

    search = MarkerSearch(marker, line_filter)
    found = search.in_stream(sys.stdin.buffer) if file is None else search.in_file(file)
    if found is None:
        print_error(f"no line with the marker {marker} in {file or 'standard input'}")
        raise typer.Exit(1)
    if found.file != file:
        print_error(f"the line is in {found.file}")
    yield [found.line]


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
