"""A running server as commands find it and ask it: by its address and its management token."""

import contextlib
import json
import os
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, Final, Generic, TypeVar
from urllib.parse import urlsplit

import typer
from pydantic import TypeAdapter, ValidationError

from petsage.errors import NOTHING_HERE, PetSageError, StartError
from petsage.settings import Settings
from petsage.terminal import harmless
from petsage.token_file import TokenFileError, read_token_file

_PORTS: Final = {"http": 80, "https": 443}
_LOCAL: Final = frozenset({"127.0.0.1", "::1", "localhost"})

_Answer = TypeVar("_Answer")

Url = Annotated[
    str | None, typer.Option("--url", help="Where PetSage listens; else as the settings say.")
]


class ServerRefusedError(PetSageError):
    """The running server does not do what it was asked for, or there is none."""


class NoServerError(ServerRefusedError):
    """Nobody listens where it was looked for."""


@dataclass(frozen=True)
class Wanted(Generic[_Answer]):
    """What an answer has to be.

    Attributes:
        type: what its JSON is read as.
        called: what a person would call it.
        fix: what helps where the server will not.
    """

    type: TypeAdapter[_Answer]
    called: str
    fix: str


@dataclass(frozen=True)
class RunningServer:
    """A server that is asked over HTTP; nothing is asked of a proxy, and no redirect is followed.

    Attributes:
        url: where it listens.
        token: what it is to be convinced with, None where none is known.
    """

    url: str
    token: str | None

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        wanted: Wanted[_Answer],
        timeout_s: float = 10.0,
    ) -> _Answer:
        """What it answers.

        Args:
            method: of the request.
            path: of the request.
            body: what is sent as JSON; None for nothing.
            wanted: what the answer has to be.
            timeout_s: how long to wait for it.

        Raises:
            ServerRefusedError: it cannot be reached, will not, or answers something else.
        """
        status, said = self._exchange(method, path, body, timeout_s)
        if status == HTTPStatus.OK:
            try:
                return wanted.type.validate_json(said)
            except ValidationError:
                raise ServerRefusedError(
                    f"{self.url} answers with something else than {wanted.called}",
                    fix="name the address of a PetSage with --url",
                ) from None
        raise self._refusal(status, said, wanted)

    def _refusal(self, status: int, said: bytes, wanted: "Wanted[Any]") -> ServerRefusedError:
        try:
            answer = json.loads(said)
        except ValueError:
            answer = {"detail": f"{status}, and no JSON"}
        detail = answer.get("detail") if isinstance(answer, dict) else None
        if status == HTTPStatus.NOT_FOUND and detail == NOTHING_HERE:
            return self._not_let_in()
        errors = answer.get("errors") if isinstance(answer, dict) else None
        if errors and isinstance(errors, list) and all(isinstance(each, dict) for each in errors):
            detail = "; ".join(f"{each.get('pointer')}: {each.get('detail')}" for each in errors)
        return ServerRefusedError(
            f"{self.url} refuses: {harmless(str(detail or status))}", fix=wanted.fix
        )

    def _exchange(self, method: str, path: str, body: Any, timeout_s: float) -> tuple[int, bytes]:
        import http.client  # noqa: PLC0415 - every other command does without

        parts = urlsplit(self.url)
        kind = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        connection = kind(parts.hostname or "", parts.port, timeout=timeout_s)
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
            kind_of_error = (
                NoServerError if isinstance(error, ConnectionRefusedError) else ServerRefusedError
            )
            raise kind_of_error(
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
    url = listening_url(settings) if url is None else url
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


def listening_url(settings: Settings) -> str:
    """Where a server with these settings is asked from this machine."""
    host = settings.server.host
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - a name to ask
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.server.port}"


def _address(url: str) -> tuple[str, int]:
    """Host and port of a URL.

    Raises:
        StartError: it is none.
    """
    host, port = None, None
    if "@" in url.partition("//")[2].partition("/")[0]:
        raise StartError(
            "--url names a user or a password, which nobody asks for",
            fix="write it as http://127.0.0.1:8000; a token is PETSAGE_MANAGEMENT__TOKEN",
        )
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
