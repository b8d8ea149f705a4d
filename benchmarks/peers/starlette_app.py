"""Starlette with `JSONResponse`, as its own documentation writes it; it has no typed answers."""

import logging
from datetime import UTC, datetime

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from benchmarks.peers.on_uvicorn import serve
from benchmarks.peers.words import LINE, MESSAGE

logger = logging.getLogger(__name__)


async def run_smoke_test(_request: Request) -> JSONResponse:
    """Log one record and say so."""
    logger.info(LINE)
    return JSONResponse(
        {"status": "ok", "message": MESSAGE, "timestamp": datetime.now(UTC).isoformat()}
    )


app = Starlette(routes=[Route("/api/v1/smoke-test", run_smoke_test)])

if __name__ == "__main__":
    serve(app)
