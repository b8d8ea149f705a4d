"""What stands in the stdlib logging's place while a pipeline is installed: nothing that is logged
raises in the caller, and what nobody catches is a line.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from petsage.logs.cleaning import text_of
from petsage.logs.formatter import OWN_FIELDS

_log = logging.getLogger("petsage.logs")

Report = Callable[[str, BaseException, logging.LogRecord | None], None]
"""Is told who raised, what, and which record is kept out by that, if it is."""


def handle_with(report: Report) -> Callable[[logging.Logger, logging.LogRecord], None]:
    """`logging.Logger.handle`, but a filter that raises is reported, and keeps its record out."""

    def handle(self: logging.Logger, record: logging.LogRecord) -> None:
        try:
            passed: object = not self.disabled and self.filter(record)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - somebody else's, and no fault of who logs
            report(f"a filter of the logger {self.name}", error, record)
            return
        if passed:  # from Python 3.12 on, a filter may give another record
            self.callHandlers(passed if isinstance(passed, logging.LogRecord) else record)

    return handle


def call_handlers_with(report: Report) -> Callable[[logging.Logger, logging.LogRecord], None]:
    """`logging.Logger.callHandlers`, but a handler that raises keeps no other from the record."""

    def call_handlers(self: logging.Logger, record: logging.LogRecord) -> None:
        logger: logging.Logger | None = self
        is_heard = False
        while logger is not None:
            for handler in logger.handlers:
                is_heard = True
                if record.levelno >= handler.level:
                    try:
                        handler.handle(record)
                    except KeyboardInterrupt:
                        raise
                    except BaseException as error:  # noqa: BLE001 - as above
                        report(f"the handler {type(handler).__qualname__}", error, None)
            logger = logger.parent if logger.propagate else None
        last = logging.lastResort
        if not is_heard and last is not None and record.levelno >= last.level:
            last.handle(record)

    return call_handlers


def make_record(  # noqa: PLR0917 - `logging.Logger.makeRecord`, whose signature this is
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
    """`logging.Logger.makeRecord`, but nothing that is logged raises in the caller.

    An extra of a reserved name is kept as `extra_<name>`, where the stdlib raises KeyError;
    arguments and extras of a mapping that misbehaves end up on the line as far as they can.
    """
    make = logging.getLogRecordFactory()
    try:
        record = make(name, level, fn, lno, msg, args, exc_info, func, sinfo)
    except Exception:  # noqa: BLE001 - LogRecord asks a lone mapping; a factory may do anything
        record = logging.LogRecord(name, level, fn, lno, msg, (), exc_info, func, sinfo)
        record.args = args
    if extra is not None:
        _add_extras(record.__dict__, extra)
    return record


def _add_extras(attributes: dict[str, Any], extra: Mapping[str, object]) -> None:
    try:
        for key, value in extra.items():
            name = key
            while name in attributes or name in OWN_FIELDS or name == "asctime":
                name = f"extra_{name}"
            attributes[name] = value
    except Exception as error:  # noqa: BLE001 - somebody else's mapping
        attributes["extra_unreadable"] = f"{type(error).__name__}: {text_of(error)}"


def log_uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """`sys.excepthook`: what ends the process is a line of the log, too."""
    if not issubclass(kind, KeyboardInterrupt):
        _log.critical("Uncaught exception: %s", kind.__name__, exc_info=(kind, error, trace))


def log_uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    """`threading.excepthook`: a thread that dies is a line of the log."""
    if args.exc_value is not None and not issubclass(args.exc_type, SystemExit):
        name = args.thread.name if args.thread is not None else "?"
        _log.error(
            "Uncaught exception in thread %s: %s",
            name,
            args.exc_type.__name__,
            exc_info=(args.exc_type, args.exc_value, args.exc_traceback),
        )
