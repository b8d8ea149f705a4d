"""A feature that was written, served and asked as a caller would."""

import asyncio
import importlib
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final

from petsage.builder.caller import (
    MARKER,
    Answer,
    Fault,
    ask,
    invalid_part,
    parsed,
    require,
    unlike_schema,
)
from petsage.builder.children import Child, environment, guarded, running, side_by_side
from petsage.builder.events import BuildError
from petsage.builder.plan import Plan, PlannedProbe
from petsage.builder.resource_probing import ask_resource
from petsage.builder.toolbox import BUSY, KILLED
from petsage.log_reader import parse_line
from petsage.log_search import MarkerSearch, SearchError
from petsage.worker import in_thread

PROBE_S: Final = 30.0
"""How long the server may take to come up, to answer everything, and to stop."""

_SERVES: Final = "PetSage serves on http://127.0.0.1:"
_JSON: Final = "application/json"
_METHODS: Final = ("GET", "HEAD")
_TROUBLE: Final = frozenset(("WARNING", "ERROR", "CRITICAL"))
# What it warns of is this machine's: a sandbox forbids something that it can do without.
_OF_MACHINE: Final = ("WARNING", "petsage.server")
_SHOWN_LINES: Final = 50
# That a server has ended is heard of a little later than that it does not answer.
_HEARD_S: Final = 0.2


@dataclass(frozen=True)
class Probed:
    """A feature that is served, and answers as planned.

    Attributes:
        endpoints: how many were asked; those of GET by HEAD, too.
        lines: how many log lines were found by their markers; None where none has one.
    """

    endpoints: int
    lines: int | None
    took_s: float

    def __str__(self) -> str:
        endpoints = f"{self.endpoints} endpoint{'' if self.endpoints == 1 else 's'}"
        found = f"{self.lines} log line{'' if self.lines == 1 else 's'} found by marker, "
        lines = found if self.lines is not None else ""
        return f"{endpoints} answered, {lines}OpenAPI valid ({self.took_s:.1f} s)"


async def probe(plan: Plan, feature: Path, *, scratch: Path, limit_s: float = PROBE_S) -> Probed:
    """Serves a feature on a free port of this machine, and asks everything that it has.

    Each endpoint by GET and HEAD, each answer against its own schema, each log line by its marker;
    the OpenAPI document; that nothing is logged that anybody would have to look at; the stop.

    Args:
        plan: what it is to have.
        feature: its folder, `<root>/features/<name>`.
        scratch: a folder for the server's log.
        limit_s: how long all of it may take.

    Raises:
        BuildError: something is not as planned.
    """
    started = time.perf_counter()
    probing = _Probing(plan, feature, scratch)
    try:
        async with running(
            guarded("petsage", "serve"),
            cwd=probing.folder,
            environment=probing.environment,
            on_line=probing.read_line,
        ) as server:
            fault = await _fault_of(probing, server, limit_s)
            was_ended = fault is not None and await server.ends_within(_HEARD_S)
    except OSError as error:
        raise BuildError(
            f"petsage serve cannot be started: {error.strerror}",
            fix="look at the machine, and try again",
            stage="probe",
        ) from error
    ended = server.result()
    trouble = probing.trouble()
    if was_ended and (ended.code or 0) < 0:  # whatever it was asked then: somebody has killed it
        fault = Fault(f"the server {ended.how}", KILLED)
    elif fault is None and ended.code != 0:
        fault = Fault(f"the server {ended.how} when it was told to stop")
    elif fault is None and trouble:
        fault = Fault(f"the server logs what somebody would have to look at: {trouble[0]}")
    if fault is not None:
        details = (*trouble, *ended.errors.splitlines()[-_SHOWN_LINES:])
        raise BuildError(str(fault), fix=fault.fix, stage="probe", details=details)
    count = len(plan.probes) + (plan.receipt_path is not None)
    count += sum(len(resource.operations) for resource in plan.resources)
    lines = probing.found if plan.probes else None
    return Probed(count, lines, time.perf_counter() - started)


async def _fault_of(probing: "_Probing", server: Child, limit_s: float) -> Fault | None:
    """What is not as planned when a server is asked everything and told to stop, None if all is."""
    try:
        async with asyncio.timeout(limit_s):
            await probing.ask_all(server)
            server.terminate()
            await server.wait()
    except TimeoutError:
        words = f"the server did not come up, answer and stop within {limit_s:g} s"
        return Fault(words, BUSY)
    except Fault as fault:
        return fault
    except SearchError as error:
        return Fault(str(error))
    except (OSError, HTTPException) as error:
        return Fault(f"the server cannot be asked: {type(error).__name__}: {error}")
    return None


class _Probing:
    """One run of the server; the arguments are those of `probe`.

    Attributes:
        folder: where the server works.
        found: how many log lines were found by their markers.
    """

    def __init__(self, plan: Plan, feature: Path, scratch: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="probe-", dir=scratch)).absolute()
        self.found = 0
        self._plan = plan
        self._feature = feature.absolute()
        self._log = self.folder / "log.jsonl"
        self._port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._document: Any = None

    @property
    def environment(self) -> dict[str, str]:
        """What the server is told: this feature alone, its lines also in a file, a quick stop.

        What depends on how busy the machine is has so much time that it is no matter here.
        """
        settings: dict[str, dict[str, Any]] = {
            "server": {
                "host": "127.0.0.1",
                "port": 0,
                "drain_s": 0,
                "stall_ms": 0,
                "max_connections": 16,  # the machine need not have descriptors for more
            },
            "catalog": {
                "folders": [str(self._feature.parent)],
                "watch": False,
                "required": [self._feature.name],
                "check_timeout_s": PROBE_S,
            },
            "logs": {
                "sinks": {
                    "stdout": {"kind": "stdout", "required": False},
                    "file": {"kind": "file", "path": str(self._log), "required": True},
                },
                "flush_ms": 0,
                "proof_timeout_s": PROBE_S,
            },
        }
        variables = {f"PETSAGE_{name.upper()}": json.dumps(keys) for name, keys in settings.items()}
        if self._plan.resources:
            settings["database"] = {"url": f"sqlite:///{self.folder}/kept.db"}
        # Where it tells its token: not among this user's own servers.
        return environment(self.folder, XDG_RUNTIME_DIR=str(self.folder), **variables)

    def read_line(self, line: bytes) -> None:
        """Learns from a line of the log where the server is."""
        if _SERVES.encode() in line and not self._port.done():
            message: str = json.loads(line)["message"]
            self._port.set_result(int(message.removeprefix(_SERVES)))

    async def ask_all(self, server: Child) -> None:
        """Makes every request.

        Raises:
            Fault: something is not as planned.
        """
        # What validates takes as long to be imported as the server to come up.
        await side_by_side(self._until_it_serves(server), in_thread(_import_validators))
        ready = await self._ask("GET", "/readyz")
        require(ready.status == 200, str(ready))
        self._document = parsed(await self._ask("GET", "/openapi.json"))
        wrong = await in_thread(invalid_part, self._document)
        require(wrong is None, f"/openapi.json is not valid at {wrong}")
        for planned in self._plan.probes:
            for method in _METHODS:
                self._require_line(planned, await self._ask_endpoint(method, planned.path))
        for method in _METHODS if self._plan.receipt_path is not None else ():
            answer = await self._ask_endpoint(method, self._plan.receipt_path or "")
            require(method == "HEAD" or answer.body == _receipt(self._plan.name), str(answer))
        for resource in self._plan.resources:
            await ask_resource(resource, partial(ask, self._port.result()), self._document)
        mine = [line for line in self._lines() if line.get("feature") == self._plan.name]
        proven = sum("marker" in line for line in mine)
        require(proven == self.found, f"{self.found} calls leave {proven} lines with a marker")

    def trouble(self) -> list[str]:
        """What the log has at WARNING or above, with the tracebacks."""
        told: list[str] = []
        for line in self._lines():
            if line["level"] in _TROUBLE and (line["level"], line["logger"]) != _OF_MACHINE:
                told.append(f"{line['level']} {line['logger']}: {line['message']}")
                told += [f"    {each}" for each in line.get("exc_info") or ()]
        return told[:_SHOWN_LINES]

    async def _until_it_serves(self, server: Child) -> None:
        ended = asyncio.ensure_future(server.wait())
        either: set[asyncio.Future[Any]] = {ended, self._port}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
        require(self._port.done(), "the server ends before it serves")

    async def _ask_endpoint(self, method: str, path: str) -> Answer:
        """The answer, once it is sure that it is what the document says."""
        answer = await self._ask(method, f"/api/v1{path}")
        require(answer.status == 200 and answer.kind == _JSON, str(answer))
        if method == "HEAD":
            require(not answer.body, str(answer))
        else:
            body = parsed(answer)
            wrong = await in_thread(unlike_schema, body, f"/api/v1{path}", self._document)
            require(wrong is None, f"{answer.where} is not answered as documented: {wrong}")
        return answer

    def _require_line(self, planned: PlannedProbe, answer: Answer) -> None:
        """Requires that the line of an answer's marker is in the log, and is what was planned."""
        where, marker = answer.where, answer.marker
        require(marker != "", f"{where} is answered without {MARKER}")
        require(
            answer.body == b"" or f'"{marker}"'.encode() in answer.body,
            f"{where} has another proof in its body than in {MARKER}, {marker}",
        )
        found = MarkerSearch(marker).in_file(self._log)
        line = parse_line(found.line.decode()) if found is not None else None
        if line is None:
            raise Fault(f"{where}: no line of the log has the marker {marker}")
        logger = f"features.{self._plan.name}.routes"
        wanted = {"level": "INFO", "logger": logger, "feature": self._plan.name}
        for key, value in {**wanted, "message": planned.message}.items():
            require(
                line.get(key) == value,
                f"{where}: `{key}` of its log line is {line.get(key)!r}, and not {value!r}",
            )
        self.found += 1

    async def _ask(self, method: str, path: str) -> Answer:
        return await ask(self._port.result(), method, path)

    def _lines(self) -> Iterator[dict[str, Any]]:
        if self._log.exists():
            for raw in self._log.read_bytes().splitlines():
                line = parse_line(raw.decode("utf-8", "replace"))
                if line is not None:
                    yield line


def _receipt(name: str) -> bytes:
    """The receipt of a build, to the byte."""
    receipt = {
        "status": "ok",
        "message": "PetSage Backend is operational.",
        "agent": "PetSage Backend Feature Builder Agent",
        "feature_generated": name,
    }
    return json.dumps(receipt, separators=(",", ":")).encode()


def _import_validators() -> None:
    for name in ("jsonschema", "openapi_spec_validator"):
        importlib.import_module(name)
