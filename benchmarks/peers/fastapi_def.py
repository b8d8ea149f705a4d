"""FastAPI with a `def` handler, as its own documentation writes it."""

import logging
from datetime import UTC, datetime

from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.peers.on_uvicorn import serve
from benchmarks.peers.words import LINE, MESSAGE

logger = logging.getLogger(__name__)
app = FastAPI()


class SmokeTestResponse(BaseModel):
    """What the smoke test answers."""

    status: str
    message: str
    timestamp: datetime


@app.get("/api/v1/smoke-test")
def run_smoke_test() -> SmokeTestResponse:
    """Log one record and say so."""
    logger.info(LINE)
    return SmokeTestResponse(status="ok", message=MESSAGE, timestamp=datetime.now(UTC))


if __name__ == "__main__":
    serve(app)
