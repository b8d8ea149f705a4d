"""Readiness: everything that has to be well before requests are sent here, asked side by side."""

import asyncio
import time
from collections.abc import Collection
from typing import Final, NamedTuple

from aiohttp import web

from petsage.catalog import Catalog
from petsage.health import Check, CheckResult, CheckRunner, ProcessState
from petsage.logs.pipeline import prove_sinks
from petsage.logs.receipts import Receipt
from petsage.settings import LogsSettings

PROCESS: Final = "process"
"""The check that fails while the process starts and while it stops."""

_SHARED_S: Final = 0.5
"""How long a line that was proven speaks for every sink that is asked about."""

_Question = tuple[str, Check, web.Application]


class Report(NamedTuple):
    """What was found.

    Attributes:
        results: of what was asked, in the order in which it is shown.
        excluded: what was left out because the caller wished it.
        unknown: what the caller wished to leave out, and is not there.
    """

    results: tuple[CheckResult, ...]
    excluded: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether all that was asked is well."""
        return all(result.passed for result in self.results)


class Readiness:
    """Asks whether requests may be sent here.

    Args:
        app: the root application, which the core's own probes get.
        state: the phase of the process.
        catalog: the features.
        checks: runs the probes.
        required: the features that have to serve.
        logs: which sinks have to write.
    """

    def __init__(
        self,
        app: web.Application,
        state: ProcessState,
        catalog: Catalog,
        checks: CheckRunner,
        *,
        required: Collection[str],
        logs: LogsSettings,
    ) -> None:
        self._app = app
        self._state = state
        self._catalog = catalog
        self._checks = checks
        self._required = tuple(required)
        proofs = _SharedProof()
        self._sinks = [
            _sink_check(name, proofs, logs.proof_timeout_s)
            for name, sink in logs.sinks.items()
            if sink.required
        ]

    async def report(self, exclude: Collection[str] = (), *, whole: bool = True) -> Report:
        """What every check finds, but those that are excluded; they run side by side.

        Args:
            exclude: the names of checks to leave out.
            whole: False where the outcome alone matters: what is known to have failed without
                running anything is then answered at once.
        """
        facts = self.facts()
        questions = self._questions()
        names = [*(fact.name for fact in facts), *(name for name, _, _ in questions)]
        self._checks.keep({name for name, _, _ in questions})
        excluded = tuple(name for name in names if name in exclude)
        unknown = tuple(sorted(set(exclude).difference(names)))
        found = [fact for fact in facts if fact.name not in exclude]
        if whole or all(fact.passed for fact in found):
            asked = [question for question in questions if question[0] not in exclude]
            found += await asyncio.gather(*(self._checks.ask(*question) for question in asked))
        return Report(tuple(found), excluded, unknown)

    async def report_one(self, name: str) -> Report | None:
        """What one check finds; None where there is none of this name."""
        for fact in self.facts():
            if fact.name == name:
                return Report((fact,))
        for question in self._questions():
            if question[0] == name:
                return Report((await self._checks.ask(*question),))
        return None

    def names(self) -> list[str]:
        """Every check's name, in the order in which they are shown."""
        return [fact.name for fact in self.facts()] + [name for name, _, _ in self._questions()]

    def facts(self) -> list[CheckResult]:
        """What is known without running anything: the process, and the required features."""
        phase = self._state.phase
        process = CheckResult(PROCESS, None if phase == "ready" else phase, 0.0)
        features = [
            CheckResult(f"feature.{name}", self._catalog.why_absent(name), 0.0)
            for name in self._required
        ]
        return [process, *features]

    def _questions(self) -> list[_Question]:
        """What has to be run; looked up each time, so that no feature is kept by it."""
        sinks = [(check.name, check, self._app) for check in self._sinks]
        features = [
            (f"{feature}.{check.name}", check, app)
            for feature, check, app in self._catalog.checks()
        ]
        return sinks + features


class _SharedProof:
    """One line to every sink, for all who ask about one of them at the same time."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._receipt: Receipt | None = None
        self._proven = 0.0

    async def receipt(self) -> Receipt:
        """What became of a line, `_SHARED_S` ago at the most."""
        async with self._lock:
            if self._receipt is None or time.monotonic() - self._proven >= _SHARED_S:
                self._receipt = None
                self._receipt = await prove_sinks("Readiness proves the log's sinks")
                self._proven = time.monotonic()
            return self._receipt


def _sink_check(name: str, proofs: _SharedProof, timeout_s: float) -> Check:
    async def probe(_: web.Application) -> None:
        for sink in (await proofs.receipt()).sinks:
            if sink.name == name:
                if sink.state != "written":
                    raise RuntimeError(f"a line was not written ({sink.state}): {sink.error}")
                return
        raise LookupError("the log that is installed has no such sink")

    # The proof has a time limit itself, and names the cause; this one is for what that forgets.
    return Check(f"sink.{name}", probe, timeout_s=timeout_s + 1)


READINESS: Final = web.AppKey("readiness", Readiness)
"""Readiness in the root application."""
