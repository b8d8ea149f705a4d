"""From any stdlib logger to the sinks, with an account of every record, and `prove`.

A record is formatted where it was made, once for all sinks; each sink's own thread writes it.

Longer than 300 lines: what takes the process's logging over, the way of a record through it, and
the proof of one are read together.
"""

import asyncio
import atexit
import logging
import sys
import threading
import time
import warnings
from collections.abc import Callable
from random import Random
from threading import get_ident
from typing import Any, Final, Protocol
from weakref import WeakSet

from petsage.logs.cleaning import MASK
from petsage.logs.formatter import JsonFormatter
from petsage.logs.proofs import OPTIONAL_WAIT_S, Proof, Round, SinkState
from petsage.logs.receipts import Receipt, receipt_of
from petsage.logs.sinks import Account, close_sinks, open_sink
from petsage.logs.stand_ins import (
    call_handlers_with,
    handle_with,
    log_uncaught,
    log_uncaught_in_thread,
    make_record,
)
from petsage.settings import LogsSettings

SERVICE: Final = "petsage"
MARKER: Final = "marker"
_PROOF: Final = "_petsage_proof"
_CLOSE_TIMEOUT_S: Final = 5.0
# A round waits for further proofs for so many turns of the loop, while each turn brings some: who
# asks in the next turn would else have a write, and two switches between threads, of its own.
_MAX_TURNS: Final = 8
# A filter or handler that raises at each record says so this often.
_REPORT_INTERVAL_S: Final = 30.0
_FILTERED: Final[tuple[SinkState, str]] = ("filtered", "a level or a filter leaves the line out")


class Unwritten(Protocol):
    """What has lines that are yet to be put."""

    def write(self) -> None:
        """Puts them; from any thread."""


Blame = Callable[[str, BaseException, logging.LogRecord | None], str | None]

_log = logging.getLogger(__name__)
# Its own: a feature that seeds the one of everybody would have markers come again.
getrandbits = Random().getrandbits  # noqa: S311 - they are no secrets # nosec B311


class Pipeline(logging.Handler):
    """The handler on the root logger: every record of the process goes through it.

    Args:
        settings: levels, what is masked, and the sinks.
        version: the `version` of each line.

    Attributes:
        formatter: makes a line of a record.
        sinks: in the order of the settings.
        unwritten: are asked for what they have where everything is to be written.
        blame: is told of a filter or handler that raised, and which record that keeps out, if it
            does; says whose it is, None where that is not known.
    """

    def __init__(self, settings: LogsSettings, *, version: str) -> None:
        super().__init__()
        self.formatter: JsonFormatter = JsonFormatter(
            service=SERVICE,
            version=version,
            redact=settings.redact,
            max_line_bytes=settings.max_line_bytes,
        )
        self._settings = settings
        self._sinks = tuple(
            (
                logging.getLevelNamesMapping()[sink.level],
                open_sink(name, sink, flush_ms=settings.flush_ms, report_drops=_report_drops),
            )
            for name, sink in settings.sinks.items()
        )
        self.sinks: Final = tuple(sink for _, sink in self._sinks)
        self._optional = frozenset(sink.name for sink in self.sinks if not sink.required)
        self._rounds: dict[int, Round] = {}
        self.unwritten: WeakSet[Unwritten] = WeakSet()
        self.blame: Blame = _nobody
        self._next_report: dict[str, float] = {}  # by kind of handler, or logger with a filter
        self._undo: list[Callable[[], None]] = []
        self._is_over = False

    def createLock(self) -> None:  # noqa: N802 - the stdlib's name
        """Makes none: each sink has its own, and two threads may format side by side."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Formats the record and queues its line in every sink; it never raises."""
        if self.filters and not self._lets_pass(record):
            return False
        self.put(record.levelno, self.formatter.to_line(record), record.__dict__.get(_PROOF))
        return True

    def put(self, level: int, line: bytes, proof: Proof | None = None) -> None:
        """Queues a finished line in each sink whose level it has; a proven one with its round."""
        if proof is not None:
            if not proof.round.is_for(proof):
                proof = None  # a record may come twice, late, or from another thread
            elif level == logging.INFO:
                proof.round.lines.append((line, proof, False))
                return
        urgent = level >= logging.WARNING
        if urgent:
            self._put_rounds()  # for which it may need room: what came before it stands before it
        for lowest, sink in self._sinks:
            if level >= lowest:
                if sink.put(line, proof, urgent) == "queued" and proof is not None:
                    proof.round.expect(sink.name, 1)
            else:
                sink.filter()
                if proof is not None:
                    proof.settle(sink.name, *_FILTERED)

    def put_plain(self, lines: list[bytes]) -> None:
        """Queues finished lines at INFO, which nobody waits for, in each sink that takes them."""
        for lowest, sink in self._sinks:
            if lowest <= logging.INFO:
                sink.put_plain(lines)
            else:
                for _ in lines:
                    sink.filter()

    def put_everywhere(self, line: bytes, proof: Proof) -> None:
        """Queues a finished line in each sink, whatever its level."""
        for sink in self.sinks:
            if sink.put(line, proof) == "queued":
                proof.round.expect(sink.name, 1)

    def begin_proof(self) -> Proof:
        """A proof in the round that the running loop is about to write."""
        # By thread, in which one loop at most runs: to ask for that loop costs a system call.
        thread = get_ident()
        its_round = self._rounds.get(thread)
        if its_round is None or not its_round.loop.is_running():
            if its_round is not None:
                self._put_round(its_round)
            loop = asyncio.get_running_loop()
            its_round = Round(loop, self._optional, self._settings.proof_timeout_s)
            self._rounds[thread] = its_round
            loop.call_soon(self._begin_writing, thread, its_round)
        return Proof(its_round)

    def _begin_writing(self, thread: int, its_round: Round, known: int = 0, turns: int = 1) -> None:
        """A turn is over in which no proof has come: has the sinks write all of the round.

        Args:
            thread: the loop's.
            its_round: may get more while it waits for another turn.
            known: so many proofs had come when it was last looked.
            turns: so many are over.
        """
        count = len(its_round.proofs)
        if count > known and turns < _MAX_TURNS:
            its_round.loop.call_soon(self._begin_writing, thread, its_round, count, turns + 1)
            return
        if self._rounds.get(thread) is its_round:  # else the loop stopped, and another has begun
            del self._rounds[thread]
        self._put_round(its_round)
        # First what limits the waiting: a thread may be dead, and not be begun anew.
        its_round.go([s.name for s in self.sinks if s.stands_still_for_s() > OPTIONAL_WAIT_S])
        for sink in self.sinks:
            sink.hurry()

    def _put_unwritten(self) -> None:
        for each in list(self.unwritten):
            each.write()

    def _put_rounds(self) -> None:
        """Queues what is proven in this thread, and in loops that have stopped, amid a turn."""
        thread = get_ident()
        for its_round in tuple(self._rounds.values()):
            if its_round.thread == thread or not its_round.loop.is_running():
                self._put_round(its_round)

    def _put_round(self, its_round: Round) -> None:
        """Queues the lines of a round, all at INFO, by one look at each sink."""
        lines, its_round.lines = its_round.lines, []
        for lowest, sink in self._sinks:
            if lowest <= logging.INFO:
                its_round.expect(sink.name, sink.put_all(lines))
            else:
                for _, proof, _ in lines:
                    sink.filter()
                    proof.settle(sink.name, *_FILTERED)

    def _lets_pass(self, record: logging.LogRecord) -> bool:
        """Whether the filters on this handler let a record pass; one that is not, is counted."""
        try:
            if self.filter(record):
                return True
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - somebody else's filter, and no caller's fault
            for sink in self.sinks:
                sink.fail(error)
            self._fail_proof(record, error)
            return False
        for sink in self.sinks:
            sink.filter()
        return False

    def _report(self, who: str, error: BaseException, kept_out: logging.LogRecord | None) -> None:
        """Logs that a filter or handler raised, past all of them, and not for each record."""
        if kept_out is not None:
            self._fail_proof(kept_out, error)
        now = time.monotonic()
        if now < self._next_report.get(who, 0.0):
            return
        self._next_report[who] = now + _REPORT_INTERVAL_S
        message = (
            f"{who[0].upper()}{who[1:]} raised; it is told of again in {_REPORT_INTERVAL_S:g} s"
        )
        info = (type(error), error, error.__traceback__)
        record = logging.LogRecord(
            _log.name, logging.ERROR, __file__, 0, message, (), exc_info=info
        )
        name = self.blame(who, error, kept_out)
        if name is not None:
            record.failing_feature = name
        self.handle(record)

    def _fail_proof(self, record: logging.LogRecord, error: BaseException) -> None:
        """Settles the proof of a record that a filter has kept out by raising."""
        proof = record.__dict__.get(_PROOF)
        if isinstance(proof, Proof) and not proof.seen:
            proof.seen = True
            for sink in self.sinks:
                proof.settle(sink.name, "failed", f"a filter raised {type(error).__name__}")

    def accounts(self) -> dict[str, Account]:
        """Each sink's account, by its name."""
        return {sink.name: sink.account() for sink in self.sinks}

    def flush(self) -> None:
        """Waits until every line queued so far was written or failed, 5 s at the most.

        Once it is uninstalled, there is nothing to wait for: `logging.shutdown` asks whoever is
        left.
        """
        if self._is_over:
            return
        self._put_unwritten()
        self._put_rounds()
        for sink in self.sinks:
            sink.flush(_CLOSE_TIMEOUT_S)

    def install(self) -> None:
        """Takes over the process's logging; `uninstall` gives it back as it was."""
        global _installed  # noqa: PLW0603 - stdlib logging is one for the process, and so is this
        if _installed is not None:
            raise RuntimeError("a log pipeline is installed already; uninstall that one first")
        _installed = self
        root = logging.getLogger()
        root.addHandler(self)
        self._undo.append(lambda: root.removeHandler(self))
        self._set_levels(root)
        self._take(logging.Logger, "makeRecord", make_record)
        self._take(logging.Logger, "handle", handle_with(self._report))
        self._take(logging.Logger, "callHandlers", call_handlers_with(self._report))
        for name in ("logThreads", "logProcesses", "logMultiprocessing", "logAsyncioTasks"):
            # None of these is on a line, and each costs time for every record.
            self._take(logging, name, False)
        atexit.register(self.flush)
        self._undo.append(lambda: atexit.unregister(self.flush))
        self._take(sys, "excepthook", log_uncaught)
        self._take(threading, "excepthook", log_uncaught_in_thread)
        before = warnings.showwarning
        logging.captureWarnings(capture=True)
        if warnings.showwarning is not before:  # else somebody captured them already
            self._undo.append(lambda: logging.captureWarnings(capture=False))

    def close(self) -> None:
        """Does nothing: `logging.basicConfig(force=True)` closes every handler it finds."""

    def uninstall(self) -> None:
        """Gives logging back as it was, and closes each sink when its queue is written."""
        global _installed  # noqa: PLW0603 - as above
        while self._undo:
            self._undo.pop()()
        if _installed is self:
            _installed = None
        self._put_unwritten()
        self._put_rounds()
        close_sinks(self.sinks, _CLOSE_TIMEOUT_S)
        self._is_over = True
        super().close()

    def _set_levels(self, root: logging.Logger) -> None:
        for name, level in {"": self._settings.level, **self._settings.levels}.items():
            logger = root if name == "" else logging.getLogger(name)
            before = logger.level
            logger.setLevel(level)
            self._undo.append(lambda logger=logger, before=before: logger.setLevel(before))  # type: ignore[misc] # mypy cannot infer lambdas with defaults

    def _take(self, owner: Any, name: str, value: Any) -> None:
        before = getattr(owner, name, None)
        if before is None and name == "logAsyncioTasks":
            return  # Python 3.12 brought it
        setattr(owner, name, value)
        self._undo.append(lambda: setattr(owner, name, before))


def _nobody(_who: str, _error: BaseException, _kept_out: logging.LogRecord | None) -> None:
    return None


_installed: Pipeline | None = None


def _report_drops(sink: str, drops: int) -> None:
    """Called by a sink's thread when there is room again."""
    _log.warning("Sink %s dropped %d lines: its queue was full", sink, drops)


def installed_pipeline() -> Pipeline:
    """The pipeline of this process.

    Raises:
        RuntimeError: none is installed.
    """
    if _installed is None:
        raise RuntimeError("no log pipeline is installed; `petsage serve` and the fixtures do that")
    return _installed


async def prove(logger: logging.Logger, message: str) -> Receipt:
    """Logs `message` once at INFO, as an ordinary line, and says what became of that line.

    It answers when every required sink has written the line, or will not; a sink that says
    nothing for `[logs].proof_timeout_s` is `timeout`.

    Args:
        logger: any stdlib logger; its own level and filters apply.
        message: taken as it is, without `%` formatting.

    Returns:
        The marker that this very line bears, and the line's state in each sink.

    Raises:
        RuntimeError: no log pipeline is installed.
    """
    pipeline = installed_pipeline()
    marker = getrandbits(128).to_bytes(16).hex()
    proof = pipeline.begin_proof()
    log_info(logger, message, {MARKER: marker}, proof, f'"{MARKER}":"{marker}"}}')
    if not proof.seen:
        proof.seen = True
        for sink in pipeline.sinks:
            proof.settle(sink.name, *_FILTERED)
    await proof.done
    return receipt_of(marker, proof, pipeline.sinks)


async def prove_sinks(message: str) -> Receipt:
    """Logs `message` past every level and filter, and says what became of it in each sink.

    For readiness: an operator who logs from WARNING on has sinks that work.

    Raises:
        RuntimeError: no log pipeline is installed.
    """
    pipeline = installed_pipeline()
    marker = getrandbits(128).to_bytes(16).hex()
    proof = pipeline.begin_proof()
    formatter = pipeline.formatter
    timestamp = formatter.timestamp_of(time.time())
    fields = formatter.own_fields(timestamp, "INFO", "petsage.health", message)
    pipeline.put_everywhere(formatter.dump({**fields, MARKER: marker}), proof)
    await proof.done
    return receipt_of(marker, proof, pipeline.sinks)


def log_info(
    logger: logging.Logger,
    message: str,
    extra: dict[str, Any],
    proof: Proof | None = None,
    known: str | None = None,
) -> None:
    """Logs at INFO: straight to the sinks where a pipeline alone would see the record.

    A LogRecord costs more than the rest of its line; docs/decisions/0003 has the figures.

    Args:
        logger: its own level and filters apply, and those of every handler on the way.
        message: taken as it is, without `%` formatting.
        extra: plain values, under names that are no other field's.
        proof: is told what each sink makes of the line.
        known: `extra` as it ends the line, harmless JSON, where the caller knows that.
    """
    if not logger.isEnabledFor(logging.INFO):
        return
    pipeline = sole_listener(logger)
    if pipeline is None:
        logger.info("%s", message, extra={**extra, _PROOF: proof}, stacklevel=3)
        return
    formatter = pipeline.formatter
    if not formatter.plain_names.issuperset(extra):
        for name in extra:
            if formatter.is_secret(name):  # an operator may say so of any name
                extra, known = {**extra, name: MASK}, None
    pipeline.put(logging.INFO, formatter.info_line(logger.name, message, extra, known), proof)


def sole_listener(logger: logging.Logger) -> Pipeline | None:
    """The pipeline, where it alone would see a record of `logger`, and see it unchanged."""
    if logger.filters or logging.getLogRecordFactory() is not logging.LogRecord:
        return None
    each = logger
    while not (handlers := each.handlers):
        parent = each.parent
        if parent is None or not each.propagate:
            return None
        each = parent
    handler = handlers[0]
    if (
        each.parent is None  # nobody listens above it
        and len(handlers) == 1
        and type(handler) is Pipeline
        and handler.level <= logging.INFO
        and not handler.filters
    ):
        return handler
    return None
