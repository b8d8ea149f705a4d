"""BlackSheep with a dataclass for its answer, as its own documentation writes it."""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime

from blacksheep import Application, get

from benchmarks.peers.on_uvicorn import serve
from benchmarks.peers.words import LINE, MESSAGE

logger = logging.getLogger(__name__)
app = Application()


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


if __name__ == "__main__":
    serve(app)
