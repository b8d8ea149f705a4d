"""aiohttp on uvloop with `json_response` and no logs: the floor that PetSage stands on."""

import sys
from datetime import UTC, datetime

import uvloop
from aiohttp import web

from benchmarks.peers.words import MESSAGE


async def run_smoke_test(_request: web.Request) -> web.Response:
    """Answer what PetSage's smoke test answers, without its proof."""
    return web.json_response(
        {"status": "ok", "message": MESSAGE, "timestamp": datetime.now(UTC).isoformat()}
    )


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
