"""What a command prints, and what happens when nobody can take it."""

import errno
import json
import os
import sys
from pathlib import Path
from typing import Final

from petsage.errors import Finding, printable

# A server prints nothing: it needs no typer.
# ruff: noqa: PLC0415

_WRITE_ERRORS: Final = frozenset(
    {errno.EBADF, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC, errno.EPIPE}
)


def open_what_is_closed() -> None:
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


def output_error() -> OSError | None:
    """What keeps standard output from taking what was printed, None where it has all of it."""
    try:
        sys.stdout.flush()
    except OSError as error:
        return error
    return None


def is_of_output(error: OSError) -> bool:
    """Whether standard output has raised this: no command writes to anything else.

    What raises where a file is opened or read bears its name.
    """
    return error.filename is None and error.errno in _WRITE_ERRORS


def give_up_output(error: OSError) -> bool:
    """Prints no more; says why in one line, unless the reader has seen enough (`| head`).

    Returns:
        Whether something was lost that somebody wanted.
    """
    # The interpreter flushes once more at its end, and would print a traceback.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
    if isinstance(error, BrokenPipeError):
        return False
    print_error(
        f"standard output cannot be written: {error.strerror}; fix: make room, or name another file"
    )
    return True


def print_error(text: str) -> None:
    """One line on standard error, which may be as full as standard output is."""
    import typer

    try:
        typer.echo(f"petsage: {text}", err=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the exit code is all that is left to say it


def print_finding(finding: Finding) -> None:
    """A finding for people: its place, level, kind and problem, and its fix below."""
    import typer

    place = f"{finding.file}:{finding.line}" if finding.line else finding.file
    colour = typer.colors.RED if finding.level == "error" else typer.colors.YELLOW
    level = typer.style(finding.level, fg=colour)
    typer.echo(
        printable(f"{place}: {level} {finding.id}: {finding.problem}\n    fix: {finding.fix}")
    )


def counted(count: int, noun: str) -> str:
    """`1 feature`, `2 features`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def harmless(text: str) -> str:
    r"""Text of one line, what a terminal would obey written as JSON does (`\u001b`)."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in text)


def plain(text: str) -> str:
    """Text with nothing that rich would take for markup."""
    from rich.markup import escape  # rich takes 100 ms, and tables alone need it

    return escape(text)
