"""The measured servers: how each is started on its core, asked, and stopped."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.errors import BenchmarkError

REPOSITORY = Path(__file__).resolve().parent.parent
PATH = "/api/v1/smoke-test"
HOST = "127.0.0.1"

_START_TIMEOUT_S = 30
_ANSWER_TIMEOUT_S = 5
_STOP_TIMEOUT_S = 30
_TO_FILE = """\
[logs.sinks.stdout]
kind = "file"
path = {log_file}
"""
_TO_STDOUT = """\
[logs.sinks.stdout]
kind = "stdout"
"""


@dataclass(frozen=True)
class Server:
    """One measured server: what follows `python -m`, and what it is expected to leave.

    Attributes:
        logs: what writes its lines: "docs", python-json-logger as its documentation shows; "ours",
            PetSage's pipeline; None where there are none.
        stop_signal: what ends it as its documentation says.
    """

    name: str
    title: str
    arguments: tuple[str, ...]
    access_logger: str | None
    body_fields: frozenset[str]
    logs: Literal["docs", "ours"] | None = None
    stop_signal: signal.Signals = signal.SIGTERM

    @property
    def label(self) -> str:
        """The title, with what writes its lines where that may be either."""
        return self.title if self.name == "petsage" else f"{self.title}, {LOGS[self.logs]}"


LOGS = {"docs": "python-json-logger", "ours": "PetSage's logs", None: "no logs"}
_FIELDS = frozenset({"status", "message", "timestamp"})


def _both(
    name: str,
    title: str,
    access_logger: str,
    *options: str,
    stop_signal: signal.Signals = signal.SIGTERM,
) -> Iterator[Server]:
    """A peer of the module of that name, with either way of logging."""
    module = f"benchmarks.peers.{name}"
    settings: tuple[Literal["docs", "ours"], ...] = ("docs", "ours")
    for logs in settings:
        yield Server(
            name=f"{name.removesuffix('_app')}_{logs}",
            title=title,
            arguments=(module, *options),
            access_logger=access_logger,
            body_fields=_FIELDS,
            logs=logs,
            stop_signal=stop_signal,
        )


def _bare(name: str, title: str) -> Server:
    """A peer that logs nothing."""
    return Server(name, title, (f"benchmarks.peers.{name}",), None, _FIELDS)


SERVERS = {
    server.name: server
    for server in (
        Server(
            name="petsage",
            title="PetSage",
            arguments=("petsage", "serve", "--port"),
            access_logger="petsage.access",
            body_fields=_FIELDS | {"proof"},
            logs="ours",
        ),
        *_both("fastapi_def", "FastAPI, def handler", "uvicorn.access"),
        *_both("fastapi_async", "FastAPI, async def", "uvicorn.access"),
        *_both("starlette_app", "Starlette", "uvicorn.access"),
        *_both("litestar_app", "Litestar", "uvicorn.access"),
        *_both("blacksheep_app", "BlackSheep", "uvicorn.access"),
        *_both("sanic_app", "Sanic", "sanic.access"),
        # In one process, SIGTERM ends what listens and not the process; Ctrl-C ends both.
        *_both(
            *("robyn_app", "Robyn", "robyn.access", "--log-level", "WARN"),
            stop_signal=signal.SIGINT,
        ),
        *_both("granian_rsgi", "Granian, RSGI, no framework", "granian.access"),
        *_both("aiohttp_app", "aiohttp, idiomatic", "aiohttp.access"),
        _bare("aiohttp_bare", "aiohttp, bare json_response"),
        _bare("aiohttp_bytes", "aiohttp, bare bytes"),
    )
}
QUICK = ("petsage", "fastapi_def_docs", "fastapi_async_docs", "aiohttp_bare")


@dataclass(frozen=True)
class Answer:
    """One answer; `body` is None where `text` is no JSON object."""

    status: int
    body: dict[str, object] | None
    text: bytes
    headers: Mapping[str, str]


class Running:
    """A server's process, from its start until it has been stopped."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        command: list[str],
        port: int,
        folder: Path,
        stop_signal: signal.Signals,
    ) -> None:
        self.process = process
        self._stop_signal = stop_signal
        self.port = port
        self.logs = folder / "logs"
        self.url = f"http://{HOST}:{port}{PATH}"
        self._command = " ".join(command)
        self._output = folder / "output.txt"

    @property
    def pid(self) -> int:
        """The process's id."""
        return self.process.pid

    def ask(
        self, path: str = PATH, body: str | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """The answer to one GET, or POST of `body`, on a connection of its own.

        Raises OSError where there is none.
        """
        connection = http.client.HTTPConnection(HOST, self.port, timeout=_ANSWER_TIMEOUT_S)
        try:
            all_headers = dict(headers or {})
            if body is not None:
                all_headers["Content-Type"] = "application/json"
            connection.request("GET" if body is None else "POST", path, body, all_headers)
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        try:
            document = json.loads(text)
        except ValueError:
            document = None
        return Answer(
            response.status,
            document if isinstance(document, dict) else None,
            text,
            dict(response.headers.items()),
        )

    def first_answer(self, path: str = PATH) -> tuple[Answer, int]:
        """The first answer that is no 503, asked for until it comes; and how many 503 came before.

        A server that listens before it is ready says so by a 503.
        """
        too_early = 0
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise self._failure(f"it ended with {self.process.returncode}")
            try:
                answer = self.ask(path)
                if answer.status != 503:
                    return answer, too_early
                too_early += 1
            except (OSError, http.client.HTTPException):
                pass  # it does not listen yet
            time.sleep(0.002)
        raise self._failure(f"no answer within {_START_TIMEOUT_S} s")

    def stop(self) -> bool:
        """Stop the server by its signal; False where it had to be killed."""
        if self.process.poll() is None:
            self.process.send_signal(self._stop_signal)
        try:
            self.process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return False
        return True

    def _failure(self, what: str) -> BenchmarkError:
        said = self._output.read_text(errors="replace").strip()[-2000:]
        return BenchmarkError(
            f"`{self._command}` did not start: {what}. It said:\n{said}\n",
            fix="install what is missing by `make bench`, or run the command by hand",
        )


@contextmanager
def running(
    server: Server,
    *,
    core: int,
    folder: Path,
    features: Mapping[str, str | Path] | None = None,
    environment: Mapping[str, str] | None = None,
    stdout: int | None = None,
) -> Iterator[Running]:
    """`server`, started in the empty `folder` on `core` alone, and stopped at the end.

    What it logs goes to a file in `folder`/logs. `features` are further ones of PetSage's, the
    text of each, or its folder, by its name; `environment` holds further variables; `stdout` is a
    descriptor for PetSage's lines instead of the file.
    """
    log_file = folder / "logs" / "lines.jsonl"
    log_file.parent.mkdir()
    if server.name == "petsage":
        # A JSON string without escapes beyond ASCII is a TOML string, too.
        to_file = _TO_FILE.format(log_file=json.dumps(str(log_file)))
        _furnish(folder, to_file if stdout is None else _TO_STDOUT)
        for name, content in (features or {}).items():
            _add_feature(folder / "features" / name, content)
    port = _free_port()
    command = [sys.executable, "-m", *server.arguments, str(port)]
    with (folder / "output.txt").open("wb") as output, _on_core(core):
        process = subprocess.Popen(  # noqa: S603 - a server, named here # nosec B603
            command,
            cwd=folder,
            env=_environment(log_file, server) | dict(environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=output if stdout is None else stdout,
            stderr=output,
        )
    server_running = Running(process, command, port, folder, server.stop_signal)
    try:
        yield server_running
    finally:
        server_running.stop()


def _furnish(folder: Path, settings: str) -> None:
    """Give PetSage what it serves and settings."""
    _add_feature(folder / "features" / "smoke_test", REPOSITORY / "features" / "smoke_test")
    config = folder / "config" / "bench.toml"
    config.parent.mkdir()
    config.write_text(settings)


def _add_feature(target: Path, content: str | Path) -> None:
    if isinstance(content, Path):
        shutil.copytree(content, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        target.mkdir()
        (target / "__init__.py").write_text(content)


def _environment(log_file: Path, server: Server) -> dict[str, str]:
    """Ours, without settings that were meant for another PetSage, and with what a server needs.

    Bytecode is kept, as it is of what is installed: else the peers have theirs from their wheels,
    and PetSage, which runs from its sources here, is compiled anew at each start.
    """
    ours = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("PETSAGE_") and key != "PYTHONDONTWRITEBYTECODE"
    }
    return ours | {
        "BENCH_LOG_FILE": str(log_file),
        "BENCH_LOGS": server.logs or "",
        "PETSAGE_ENV": "bench",
        "PYTHONPATH": str(REPOSITORY),
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _on_core(core: int) -> Iterator[None]:
    """What is started meanwhile runs on `core`, with all its threads, for good."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
