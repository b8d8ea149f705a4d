"""aiohttp on uvloop with bytes that are there from the start, and no logs: nothing is made."""

import json
import sys
from datetime import UTC, datetime

import uvloop
from aiohttp import web

from benchmarks.peers.words import MESSAGE

BODY = json.dumps(
    {"status": "ok", "message": MESSAGE, "timestamp": datetime.now(UTC).isoformat()}
).encode()


async def run_smoke_test(_request: web.Request) -> web.Response:
    """Answer the same bytes each time."""
    return web.Response(body=BODY, content_type="application/json")


app = web.Application()
app.router.add_get("/api/v1/smoke-test", run_smoke_test)

if __name__ == "__main__":
    web.run_app(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        access_log=None,
        loop=uvloop.new_event_loop(),
    )
