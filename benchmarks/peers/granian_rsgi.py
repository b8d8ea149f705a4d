"""Granian with an RSGI application and no framework: one worker, and its own access log."""

import asyncio
import logging
import sys
from datetime import UTC, datetime
from typing import Any

import orjson
from granian import Granian
from granian.constants import Interfaces, Loops

from benchmarks.peers.json_logs import GranianFields, start_logs
from benchmarks.peers.words import LINE, MESSAGE

logger = logging.getLogger(__name__)


class App:
    """An RSGI application, called in Granian's worker process."""

    def __rsgi_init__(self, _loop: asyncio.AbstractEventLoop) -> None:
        """Start the logs of the worker."""
        start_logs("granian.access", GranianFields())

    def __rsgi_del__(self, _loop: asyncio.AbstractEventLoop) -> None:
        """Write what is still queued: a worker ends without Python's own end."""
        logging.shutdown()

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        """Log one record and say so."""
        if scope.method != "GET" or scope.path != "/api/v1/smoke-test":
            protocol.response_empty(404, [])
            return
        logger.info(LINE)
        body = {"status": "ok", "message": MESSAGE, "timestamp": datetime.now(UTC)}
        protocol.response_bytes(200, [("content-type", "application/json")], orjson.dumps(body))


app = App()

if __name__ == "__main__":
    Granian(
        "benchmarks.peers.granian_rsgi:app",
        address="127.0.0.1",
        port=int(sys.argv[1]),
        interface=Interfaces.RSGI,
        loop=Loops.uvloop,
        workers=1,
        blocking_threads=1,
        log_access=True,
        log_dictconfig={
            "loggers": {"granian.access": {}}
        },  # no handler: its lines go to the root's
    ).serve()
