"""`petsage loggers`: levels of loggers, asked of a running server and changed there."""

import contextlib
import json
import os
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, Final
from urllib.parse import quote, urlsplit

import typer

from petsage.errors import NOTHING_HERE, PetSageError, StartError
from petsage.settings import Settings, load_settings
from petsage.token_file import TokenFileError, read_token_file

INHERIT: Final = "inherit"
_TIMEOUT_S: Final = 10.0
_PORTS: Final = {"http": 80, "https": 443}
_LOCAL: Final = frozenset({"127.0.0.1", "::1", "localhost"})


class ServerRefusedError(PetSageError):
    """The running server does not do what it was asked for, or there is none."""


@dataclass(frozen=True)
class RunningServer:
    """A server that is asked over HTTP; nothing is asked of a proxy, and no redirect is followed.

    Attributes:
        url: where it listens.
        token: what it is to be convinced with, None where none is known.
    """

    url: str
    token: str | None

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """What it answers, JSON.

        Raises:
            ServerRefusedError: it cannot be reached, or answers that it will not.
        """
        status, said = self._exchange(method, path, body)
        try:
            answer = json.loads(said)
        except ValueError:
            answer = {"detail": f"{status}, and no JSON"}
        if status == HTTPStatus.OK:
            self._require_loggers(answer)
            return answer
        detail = answer.get("detail") if isinstance(answer, dict) else None
        if status == HTTPStatus.NOT_FOUND and detail == NOTHING_HERE:
            raise self._not_let_in()
        errors = answer.get("errors") if isinstance(answer, dict) else None
        if errors and isinstance(errors, list) and all(isinstance(each, dict) for each in errors):
            detail = "; ".join(f"{each.get('pointer')}: {each.get('detail')}" for each in errors)
        raise ServerRefusedError(
            f"{self.url} refuses: {detail or status}",
            fix="`petsage loggers` lists what is there, `petsage loggers --help` what can be asked",
        )

    def _require_loggers(self, answer: Any) -> None:
        for each in answer if isinstance(answer, list) else [answer]:
            if not isinstance(each, dict) or "effective_level" not in each:
                raise ServerRefusedError(
                    f"{self.url} answers with something else than loggers",
                    fix="name the address of a PetSage with --url",
                )

    def _exchange(self, method: str, path: str, body: Any) -> tuple[int, bytes]:
        import http.client  # noqa: PLC0415 - every other command does without

        parts = urlsplit(self.url)
        kind = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        connection = kind(parts.hostname or "", parts.port, timeout=_TIMEOUT_S)
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        try:
            sent = None if body is None else json.dumps(body)
            connection.request(method, parts.path.rstrip("/") + path, sent, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise ServerRefusedError(
                f"no PetSage answers at {self.url}: {reason}",
                fix="start it with `petsage serve`, or name its address with --url",
            ) from None
        finally:
            connection.close()

    def _not_let_in(self) -> ServerRefusedError:
        if self.token is None:
            return ServerRefusedError(
                f"{self.url} wants a management token, and none is known here",
                fix="run this as the user that PetSage runs as, or set PETSAGE_MANAGEMENT__TOKEN",
            )
        return ServerRefusedError(
            f"{self.url} does not take the management token, or is no PetSage",
            fix="set PETSAGE_MANAGEMENT__TOKEN to the one that it was started with",
        )


def find_server(settings: Settings, url: str | None) -> RunningServer:
    """The server at a URL, else where the settings say; with its token, if that can be found.

    Raises:
        StartError: the URL is none, or the file of the token is not to be trusted.
    """
    if url is None:
        host = settings.server.host
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - a name to ask
        url = f"http://{f'[{host}]' if ':' in host else host}:{settings.server.port}"
    host, port = _address(url)
    token = settings.management.token
    if token is None and host in _LOCAL:  # the file's is nobody else's business
        try:
            token = read_token_file(port, os.environ)
        except TokenFileError as error:
            raise StartError(
                f"the management token cannot be read: {error}",
                fix="delete that file and start PetSage anew",
            ) from None
    return RunningServer(url, token)


def _address(url: str) -> tuple[str, int]:
    """Host and port of a URL.

    Raises:
        StartError: it is none.
    """
    host, port = None, None
    # What is not printable would end up in the request's own head.
    if url.isprintable() and " " not in url:
        with contextlib.suppress(ValueError):
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port or _PORTS.get(parts.scheme)
            port = port if parts.scheme in _PORTS else None
    if not host or port is None:
        raise StartError(
            f"--url {url!r} is no address of a server", fix="write it as http://127.0.0.1:8000"
        )
    return host, port


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
    url: Annotated[
        str | None, typer.Option(help="Where PetSage listens; else as the settings say.")
    ] = None,
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
        answer = server.ask("PUT", path, {"level": wanted, "ttl_s": ttl})
    else:
        answer = server.ask("DELETE" if undo else "GET", path)
    if as_json:
        typer.echo(json.dumps(answer, indent=2))
        return
    for each in answer if isinstance(answer, list) else [answer]:
        typer.echo(_line(each))


def _line(logger: dict[str, Any]) -> str:
    """One logger, for people."""
    name = str(logger.get("name"))
    if not name.isprintable():
        name = json.dumps(name)[1:-1]
    own = "" if logger.get("level") is None else ", its own level"
    line = f"{logger.get('effective_level')!s:8} {name}{own}"
    left_s = logger.get("reverts_in_s")
    if left_s is not None:
        line += f"; back to {logger.get('reverts_to') or 'its parents'} in {left_s:.0f} s"
    return line
