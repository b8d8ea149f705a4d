"""The process of a measured server: started on its core, asked, and stopped."""

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

from benchmarks.errors import BenchmarkError
from benchmarks.servers import HOST, PATH, REPOSITORY, Server

_START_TIMEOUT_S = 90
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
class Answer:
    """One answer; `body` is None where `text` is no JSON object."""

    status: int
    body: dict[str, object] | None
    text: bytes
    headers: http.client.HTTPMessage


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
            response.headers,
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
