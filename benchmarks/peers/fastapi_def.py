"""FastAPI with a `def` handler, as its own documentation writes it."""

import logging
import sys
from datetime import UTC, datetime

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.peers.json_logs import log_config

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
    logger.info("Smoke test endpoint executed successfully. Verifying logging pipeline.")
    return SmokeTestResponse(
        status="ok",
        message="PetSage service is healthy. Log verification message generated.",
        timestamp=datetime.now(UTC),
    )


if __name__ == "__main__":
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        log_config=log_config(),
    )
