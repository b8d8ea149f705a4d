"""The command line: reads which command it is, and ends the process with its exit code."""

import sys
from collections.abc import Sequence

from petsage.errors import PetSageError
from petsage.serve_command import read_plain_words, serve_features
from petsage.signals import INTERRUPTED
from petsage.terminal import (
    give_up_output,
    is_of_output,
    open_what_is_closed,
    output_error,
    print_error,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command, and ends the process with its exit code.

    A PetSageError becomes one line on stderr and exit code 1; so does a standard output that
    takes nothing, unless its reader has gone and wants no more.
    """
    open_what_is_closed()
    code: int | str | None = 0
    lost: OSError | None = None
    try:
        _run(list(sys.argv[1:] if arguments is None else arguments))
    except SystemExit as end:
        code = end.code
    except PetSageError as error:
        print_error(str(error))
        code = error.exit_code
    except KeyboardInterrupt:
        code = INTERRUPTED
    except OSError as error:
        if not is_of_output(error):
            raise
        lost = error
    lost = lost or output_error()
    if lost is not None and give_up_output(lost):
        code = code or 1
    sys.exit(code)


def _run(words: list[str]) -> None:
    flags = read_plain_words(words)
    if flags is not None:
        serve_features(flags)
        return
    from petsage.commands import app  # noqa: PLC0415 - who merely serves needs no typer

    app(args=words)
