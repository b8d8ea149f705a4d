"""Robyn in one process, as its documentation writes it.

It has no access log: a hook of it, in Python, writes the line.
"""

import logging
import sys
from datetime import UTC, datetime

from pydantic import BaseModel
from robyn import Request, Response, Robyn

from benchmarks.peers.json_logs import start_logs
from benchmarks.peers.words import LINE, MESSAGE

logger = logging.getLogger(__name__)
access_logger = logging.getLogger("robyn.access")
app = Robyn(__file__)


class SmokeTestResponse(BaseModel):
    """What the smoke test answers."""

    status: str
    message: str
    timestamp: datetime


@app.get("/api/v1/smoke-test")  # type: ignore[untyped-decorator] # it has no types
async def run_smoke_test() -> SmokeTestResponse:
    """Log one record and say so."""
    logger.info(LINE)
    return SmokeTestResponse(status="ok", message=MESSAGE, timestamp=datetime.now(UTC))


@app.after_request()
async def log_request(request: Request, response: Response) -> Response:
    """Log the access line."""
    method, path, status = request.method, request.url.path, response.status_code
    access_logger.info(
        "%s %s %s",
        method,
        path,
        status,
        extra={"remote": request.ip_addr, "method": method, "path": path, "status": status},
    )
    return response


@app.shutdown_handler
def stop_logs() -> None:
    """Write what is still queued: Robyn ends the process without Python's own end."""
    logging.shutdown()


if __name__ == "__main__":
    start_logs()
    app.start(host="127.0.0.1", port=int(sys.argv[-1]))
