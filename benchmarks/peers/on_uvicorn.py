"""How every peer that is an ASGI application is served: by uvicorn, on uvloop, with httptools."""

import signal
import sys
from typing import Any

import uvicorn

from benchmarks.peers.json_logs import UvicornFields, start_logs


def serve(app: Any) -> None:
    """Serve `app` on the port of the command line; uvicorn's own access logger writes a line."""
    start_logs("uvicorn.access", UvicornFields())
    # Once it has stopped, uvicorn dies of the signal that it was sent: let that be an ordinary end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        log_config=None,
    )
