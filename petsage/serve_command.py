"""`petsage serve`: serves the features, with what its words say over the settings."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petsage.settings import FLAGS, load_settings

if TYPE_CHECKING:
    from petsage.entry import Entry

Flags = dict[str, dict[str, Any]]
"""What the command line says of the settings, by table and key."""


def flags_of(
    *, host: str | None = None, port: int | None = None, folders: Sequence[Path] | None = None
) -> Flags:
    """What the options say of the settings; nothing, of those that were left out."""
    server = {"host": host, "port": port}
    return {
        "server": {key: value for key, value in server.items() if value is not None},
        "catalog": {"folders": list(folders)} if folders else {},
    }


def read_plain_words(words: Sequence[str]) -> Flags | None:
    """What plain words of `petsage serve` say; None where they may mean anything else.

    A server that starts anew is waited for, and typer with all other commands is a tenth of a
    start. So the words that everybody uses are read here: options with their values, each right.
    Whatever else is said, a request for help or a mistake among it, is for typer to answer.
    """
    if words[:1] != ["serve"]:
        return None
    host, port = None, None
    folders: list[Path] = []
    rest = iter(words[1:])
    for word in rest:
        option, equals, value = word.partition("=")
        value = value if equals else next(rest, "")
        if not value or (value.startswith("-") and not equals):
            return None
        if option == FLAGS["server", "host"]:
            host = value
        elif option == FLAGS["server", "port"] and value.isascii() and value.isdecimal():
            port = int(value)
        elif option == FLAGS["catalog", "folders"]:
            folders.append(Path(value))
        else:
            return None
    return flags_of(host=host, port=port, folders=folders)


def serve_features(flags: Flags) -> None:
    """Serves until it is told to stop.

    Raises:
        SettingsError: the settings cannot be used.
        StartError: the server cannot start.
    """
    # A mistake in the words needs none of these.
    from petsage.aiohttp_inside import require_known_aiohttp  # noqa: PLC0415

    require_known_aiohttp()  # before anything is imported that rests on it
    from petsage.server import run_server  # noqa: PLC0415

    run_server(
        load_settings(flags),
        announce=_announce if sys.stderr.isatty() else None,
        read_settings=lambda: load_settings(flags),
    )


def _announce(address: str, entries: "list[Entry]") -> None:
    """One line for the person at the terminal; the log has all of it, too."""
    from petsage.entry import ASIDE  # noqa: PLC0415 - is imported by now

    serving = [each.name for each in entries if each.state == "serving" and not each.system]
    failed = [each.name for each in entries if each.state in ASIDE]
    aside = f"; set aside: {', '.join(failed)} (`petsage check` says why)" if failed else ""
    line = f"PetSage serves {', '.join(serving) or 'no feature'} on {address}{aside}\n"
    # Past the buffer: what a terminal that has gone leaves there would fail the end of the process.
    os.write(sys.stderr.fileno(), line.encode(sys.stderr.encoding, "backslashreplace"))
