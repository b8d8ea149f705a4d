"""JSON logs for a FastAPI application: uvicorn's log configuration with python-json-logger."""

import logging
import os
from typing import Any

from pythonjsonlogger.json import JsonFormatter


class AccessJsonFormatter(JsonFormatter):
    """Also gives an access line its fields, from where uvicorn's own AccessFormatter takes them."""

    def add_fields(
        self,
        log_data: dict[str, Any],
        record: logging.LogRecord,
        message_dict: dict[str, Any],
    ) -> None:
        """Fill `log_data` from `record`, whose arguments are those of uvicorn's access log."""
        super().add_fields(log_data, record, message_dict)
        if isinstance(record.args, tuple):
            _, log_data["method"], log_data["path"], _, log_data["status"] = record.args


def log_config() -> dict[str, Any]:
    """What uvicorn takes as `log_config`: all lines go to the file that `BENCH_LOG_FILE` names."""
    log_file = os.environ["BENCH_LOG_FILE"]
    fields = "%(asctime)s %(levelname)s %(name)s %(message)s"
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "default": {"()": JsonFormatter, "fmt": fields},
            "access": {"()": AccessJsonFormatter, "fmt": fields},
        },
        "handlers": {
            "default": {
                "class": "logging.FileHandler",
                "filename": log_file,
                "formatter": "default",
            },
            "access": {
                "class": "logging.FileHandler",
                "filename": log_file,
                "formatter": "access",
            },
        },
        "root": {"handlers": ["default"], "level": "INFO"},
        "loggers": {
            "uvicorn": {"handlers": ["default"], "level": "INFO", "propagate": False},
            "uvicorn.access": {"handlers": ["access"], "level": "INFO", "propagate": False},
        },
    }
