"""`petsage loggers`: levels of loggers, asked of a running server and changed there."""

import json
from typing import Annotated, Final
from urllib.parse import quote

import typer
from pydantic import BaseModel, ConfigDict, TypeAdapter

from petsage.errors import StartError
from petsage.running_server import Url, Wanted, find_server
from petsage.settings import load_settings
from petsage.terminal import harmless

INHERIT: Final = "inherit"


class _Logger(BaseModel):
    """What a line tells of a logger; with --json, all that the server said."""

    model_config = ConfigDict(extra="allow")

    name: str
    level: str | None
    effective_level: str
    reverts_to: str | None
    reverts_in_s: float | None


_LOGGERS: Final = Wanted[_Logger | list[_Logger]](
    TypeAdapter(_Logger | list[_Logger]),
    called="loggers",
    fix="`petsage loggers` lists what is there, `petsage loggers --help` what can be asked",
)


def loggers(
    name: Annotated[
        str | None, typer.Argument(help="One logger; `root` is the root logger.")
    ] = None,
    level: Annotated[
        str | None,
        typer.Argument(help=f"The level it is to have; `{INHERIT}` for that of its parents."),
    ] = None,
    *,
    ttl: Annotated[
        float | None, typer.Option(help="Seconds after which it goes back by itself.")
    ] = None,
    undo: Annotated[
        bool, typer.Option("--undo", help="Undo every change of that logger at once.")
    ] = False,
    url: Url = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Shows the loggers of a running PetSage and their levels, or changes the level of one."""
    if (undo and (name is None or level is not None)) or (ttl is not None and level is None):
        raise StartError(
            "--undo goes with a logger's name alone, and --ttl with a name and a level",
            fix="write `petsage loggers NAME LEVEL --ttl 60`, or `petsage loggers NAME --undo`",
        )
    server = find_server(load_settings(), url)
    path = "/loggers" if name is None else f"/loggers/{quote(name, safe='')}"
    if level is not None:
        wanted = None if level.lower() == INHERIT else level
        answer = server.ask("PUT", path, {"level": wanted, "ttl_s": ttl}, wanted=_LOGGERS)
    else:
        answer = server.ask("DELETE" if undo else "GET", path, wanted=_LOGGERS)
    listed = answer if isinstance(answer, list) else [answer]
    if as_json:
        shown = [each.model_dump() for each in listed]
        typer.echo(json.dumps(shown if isinstance(answer, list) else shown[0], indent=2))
        return
    for each in listed:
        typer.echo(_line(each))


def _line(logger: _Logger) -> str:
    """One logger, for people."""
    own = "" if logger.level is None else ", its own level"
    line = f"{logger.effective_level:8} {logger.name}{own}"
    if logger.reverts_in_s is not None:
        line += f"; back to {logger.reverts_to or 'its parents'} in {logger.reverts_in_s:.0f} s"
    return harmless(line)
