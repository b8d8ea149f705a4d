"""Litestar with a dataclass for its answer, as its own documentation writes it first."""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime

from litestar import Litestar, get

from benchmarks.peers.on_uvicorn import serve
from benchmarks.peers.words import LINE, MESSAGE

logger = logging.getLogger(__name__)


@dataclass
class SmokeTestResponse:
    """What the smoke test answers."""

    status: str
    message: str
    timestamp: datetime


@get("/api/v1/smoke-test")
async def run_smoke_test() -> SmokeTestResponse:
    """Log one record and say so."""
    logger.info(LINE)
    return SmokeTestResponse(status="ok", message=MESSAGE, timestamp=datetime.now(UTC))


# Litestar would configure logging anew at its start: the records go where those of the others go.
app = Litestar([run_smoke_test], logging_config=None)

if __name__ == "__main__":
    serve(app)
