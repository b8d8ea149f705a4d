"""JSON logs of a peer: `docs`, python-json-logger as it is documented, or `ours`, PetSage's own."""

import atexit
import logging
import logging.config
import os
from typing import Any


class UvicornFields(logging.Filter):
    """Gives uvicorn's access records their fields, from where its AccessFormatter takes them."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Put the fields of a record, which are its arguments, under names, as `extra` would."""
        if isinstance(record.args, tuple):
            record.remote, record.method, record.path, _, record.status = record.args
        return True


class GranianFields(logging.Filter):
    """Gives Granian's access records their fields, from the mapping that they are made with."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Put the fields of a record, which are its arguments, under names, as `extra` would."""
        fields = record.args
        if isinstance(fields, dict):
            record.remote, record.method = fields["addr"], fields["method"]
            record.path, record.status = fields["path"], fields["status"]
            record.duration_ms = fields["dt_ms"]
        return True


def log_config() -> dict[str, Any]:
    """python-json-logger for `logging.config`: all lines go to the file of `BENCH_LOG_FILE`."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "json": {
                "()": "pythonjsonlogger.json.JsonFormatter",
                "fmt": "%(asctime)s %(levelname)s %(name)s %(message)s",
            },
        },
        "handlers": {
            "file": {
                "class": "logging.FileHandler",
                "filename": os.environ["BENCH_LOG_FILE"],
                "formatter": "json",
            },
        },
        "root": {"handlers": ["file"], "level": "INFO"},
    }


def start_logs(access_logger: str | None = None, fields: logging.Filter | None = None) -> None:
    """Send all records of this process to the file of `BENCH_LOG_FILE`, as `BENCH_LOGS` says.

    Args:
        access_logger: the server's own, where its records get their fields by a filter.
        fields: that filter.
    """
    if os.environ.get("BENCH_LOGS") == "ours":
        _start_ours()
    else:
        logging.config.dictConfig(log_config())
    if access_logger is not None and fields is not None:
        logging.getLogger(access_logger).addFilter(fields)


def _start_ours() -> None:
    """PetSage's pipeline on the root logger, as `petsage serve` installs it.

    It writes what is queued at Python's own end; a server that ends otherwise has to say so by
    `logging.shutdown()`.
    """
    # Only here: what is measured with python-json-logger is not to pay for importing PetSage.
    from petsage.logs.pipeline import Pipeline  # noqa: PLC0415
    from petsage.settings import LogsSettings  # noqa: PLC0415

    sink = {"kind": "file", "path": os.environ["BENCH_LOG_FILE"], "required": True}
    pipeline = Pipeline(LogsSettings.model_validate({"sinks": {"file": sink}}), version="1")
    root = logging.getLogger()
    for handler in list(root.handlers):  # Robyn has a text handler there, as `dictConfig` finds it
        root.removeHandler(handler)
    pipeline.install()
    atexit.register(pipeline.uninstall)
