"""Sanic on its own server in one process, with its own access log, as its documentation says."""

import logging
import sys
from datetime import UTC, datetime

from sanic import HTTPResponse, Request, Sanic, json

from benchmarks.peers.json_logs import start_logs
from benchmarks.peers.words import LINE, MESSAGE

logger = logging.getLogger(__name__)
app = Sanic("smoke", configure_logging=False)


@app.get("/api/v1/smoke-test")
async def run_smoke_test(_request: Request) -> HTTPResponse:
    """Log one record and say so."""
    logger.info(LINE)
    return json({"status": "ok", "message": MESSAGE, "timestamp": datetime.now(UTC).isoformat()})


if __name__ == "__main__":
    start_logs()
    app.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        single_process=True,
        access_log=True,
        motd=False,
    )
