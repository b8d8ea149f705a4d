"""aiohttp on uvloop, `json_response` and its own access log, as its documentation writes it."""

import logging
import sys
from datetime import UTC, datetime

import uvloop
from aiohttp import web

from benchmarks.peers.json_logs import start_logs
from benchmarks.peers.words import LINE, MESSAGE

logger = logging.getLogger(__name__)


async def run_smoke_test(_request: web.Request) -> web.Response:
    """Log one record and say so."""
    logger.info(LINE)
    return web.json_response(
        {"status": "ok", "message": MESSAGE, "timestamp": datetime.now(UTC).isoformat()}
    )


app = web.Application()
app.router.add_get("/api/v1/smoke-test", run_smoke_test)

if __name__ == "__main__":
    start_logs()
    web.run_app(
        app, host="127.0.0.1", port=int(sys.argv[1]), loop=uvloop.new_event_loop(), print=None
    )
