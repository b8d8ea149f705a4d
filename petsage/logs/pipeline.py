"""From any stdlib logger to the sinks, with an account of every record, and `prove`.

A record is formatted where it was made, once for all sinks; each sink's own thread writes it.
"""

import logging
import secrets
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Literal

from petsage.logs.formatter import OWN_FIELDS, JsonFormatter
from petsage.logs.sinks import Account, Sink, open_sink
from petsage.settings import LogsSettings

SERVICE: Final = "petsage"
MARKER: Final = "marker"
_PROOF: Final = "_petsage_proof"
_CLOSE_TIMEOUT_S: Final = 5.0

SinkState = Literal["queued", "written", "failed", "dropped", "filtered", "timeout"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SinkReceipt:
    """What became of one line in one sink.

    Attributes:
        state: `queued` when the sink took it, `dropped` when its queue was full, `filtered`
            when the line is below its level or a filter swallowed it.
        error: what went wrong, in the system's words; None where nothing did.
        took_ms: from the call to this state, in milliseconds.
    """

    name: str
    required: bool
    state: SinkState
    error: str | None
    took_ms: float


@dataclass(frozen=True)
class Receipt:
    """What became of one line: its marker, and its state in each sink."""

    marker: str
    sinks: tuple[SinkReceipt, ...]

    @property
    def missing(self) -> SinkReceipt | None:
        """The first required sink that does not have the line, None where all have it."""
        return next(
            (
                sink
                for sink in self.sinks
                if sink.required and sink.state not in {"queued", "written"}
            ),
            None,
        )


class Pipeline(logging.Handler):
    """The handler on the root logger: every record of the process goes through it.

    Args:
        settings: levels, what is masked, and the sinks.
        version: the `version` of each line.
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
        self._undo: list[Callable[[], None]] = []

    @property
    def sinks(self) -> tuple[Sink, ...]:
        """The sinks, in the order of the settings."""
        return tuple(sink for _, sink in self._sinks)

    def createLock(self) -> None:  # noqa: N802 - the stdlib's name
        """Makes none: each sink has its own, and two threads may format side by side."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Formats the record and queues its line in every sink; it never raises."""
        self.put(record.levelno, self.formatter.to_line(record), record.__dict__.get(_PROOF))
        return True

    def put(self, level: int, line: bytes, proof: "_Proof | None" = None) -> None:
        """Queues a finished line in each sink whose level it has."""
        for lowest, sink in self._sinks:
            if level < lowest:
                sink.filter()
                state: SinkState = "filtered"
            else:
                state = sink.put(line)
            if proof is not None:
                proof.note(sink, state)

    def accounts(self) -> dict[str, Account]:
        """Each sink's account, by its name."""
        return {sink.name: sink.account() for sink in self.sinks}

    def flush(self) -> None:
        """Waits until every line queued so far was written or failed, 5 s at the most."""
        for sink in self.sinks:
            sink.flush(_CLOSE_TIMEOUT_S)

    def install(self) -> None:
        """Takes over the process's logging; `close` gives it back as it was."""
        global _installed  # noqa: PLW0603 - stdlib logging is one for the process, and so is this
        if _installed is not None:
            raise RuntimeError("a log pipeline is installed already; close that one first")
        _installed = self
        root = logging.getLogger()
        root.addHandler(self)
        self._undo.append(lambda: root.removeHandler(self))
        self._set_levels(root)
        self._take(logging.Logger, "makeRecord", _make_record)
        for name in ("logThreads", "logProcesses", "logMultiprocessing", "logAsyncioTasks"):
            # None of these is on a line, and each costs time for every record.
            self._take(logging, name, False)
        self._take(sys, "excepthook", _log_uncaught)
        self._take(threading, "excepthook", _log_uncaught_in_thread)
        logging.captureWarnings(capture=True)
        self._undo.append(lambda: logging.captureWarnings(capture=False))

    def close(self) -> None:
        """Gives logging back as it was, and closes each sink when its queue is written."""
        global _installed  # noqa: PLW0603 - as above
        while self._undo:
            self._undo.pop()()
        if _installed is self:
            _installed = None
        for sink in self.sinks:
            sink.close(_CLOSE_TIMEOUT_S)
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


class _Proof:
    """Collects what the sinks make of one record."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.states: dict[str, tuple[SinkState, float]] = {}

    def note(self, sink: Sink, state: SinkState) -> None:
        self.states[sink.name] = (state, (time.perf_counter() - self.started) * 1000)

    def receipt(self, marker: str, sinks: tuple[Sink, ...]) -> Receipt:
        receipts = []
        for sink in sinks:
            # A record that no sink has seen was swallowed by a level or a filter before.
            state, took_ms = self.states.get(sink.name, ("filtered", 0.0))
            receipts.append(
                SinkReceipt(sink.name, sink.required, state, _CAUSES.get(state), round(took_ms, 3))
            )
        return Receipt(marker, tuple(receipts))


_CAUSES: Final[Mapping[SinkState, str]] = {
    "dropped": "its queue is full",
    "filtered": "a level or a filter leaves the line out",
}


async def prove(logger: logging.Logger, message: str) -> Receipt:
    """Logs `message` once at INFO, as an ordinary record, and says what became of that line.

    Args:
        logger: any stdlib logger; its own level and filters apply.
        message: taken as it is, without `%` formatting.

    Returns:
        The marker that this very line bears, and the line's state in each sink.

    Raises:
        RuntimeError: no log pipeline is installed.
    """
    pipeline = installed_pipeline()
    marker = secrets.token_hex(16)
    proof = _Proof()
    logger.info("%s", message, extra={MARKER: marker, _PROOF: proof}, stacklevel=2)
    return proof.receipt(marker, pipeline.sinks)


def _make_record(  # noqa: PLR0917 - `logging.Logger.makeRecord`, whose signature this is
    self: logging.Logger,
    name: str,
    level: int,
    fn: str,
    lno: int,
    msg: object,
    args: Any,
    exc_info: Any,
    func: str | None = None,
    extra: Mapping[str, object] | None = None,
    sinfo: str | None = None,
) -> logging.LogRecord:
    """`logging.Logger.makeRecord`, but an extra of a reserved name is kept as `extra_<name>`.

    The stdlib raises KeyError in the caller instead, and its line is lost.
    """
    record = logging.getLogRecordFactory()(name, level, fn, lno, msg, args, exc_info, func, sinfo)
    if extra is not None:
        own = record.__dict__
        for key, value in extra.items():
            reserved = key in own or key in OWN_FIELDS or key == "asctime"
            own[f"extra_{key}" if reserved else key] = value
    return record


def _log_uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """`sys.excepthook`: what ends the process is a line of the log, too."""
    if not issubclass(kind, KeyboardInterrupt):
        _log.critical("Uncaught exception: %s", kind.__name__, exc_info=(kind, error, trace))


def _log_uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    """`threading.excepthook`: a thread that dies is a line of the log."""
    if args.exc_value is not None and not issubclass(args.exc_type, SystemExit):
        name = args.thread.name if args.thread is not None else "?"
        _log.error(
            "Uncaught exception in thread %s: %s",
            name,
            args.exc_type.__name__,
            exc_info=(args.exc_type, args.exc_value, args.exc_traceback),
        )
