"""The measured servers: what each is started with, and what it is to leave."""

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

REPOSITORY = Path(__file__).resolve().parent.parent
PATH = "/api/v1/smoke-test"
HOST = "127.0.0.1"


@dataclass(frozen=True)
class Server:
    """One measured server: what follows `python -m`, and what it is expected to leave.

    Attributes:
        logs: what writes its lines: "docs", python-json-logger as its documentation shows; "ours",
            PetSage's pipeline; None where there are none.
        stop_signal: what ends it as its documentation says.
    """

    name: str
    title: str
    arguments: tuple[str, ...]
    access_logger: str | None
    body_fields: frozenset[str]
    logs: Literal["docs", "ours"] | None = None
    stop_signal: signal.Signals = signal.SIGTERM

    @property
    def label(self) -> str:
        """The title, with what writes its lines where that may be either."""
        return self.title if self.name == "petsage" else f"{self.title}, {LOGS[self.logs]}"


LOGS = {"docs": "python-json-logger", "ours": "PetSage's logs", None: "no logs"}
_FIELDS = frozenset({"status", "message", "timestamp"})


def _both(
    name: str,
    title: str,
    access_logger: str,
    *options: str,
    stop_signal: signal.Signals = signal.SIGTERM,
) -> Iterator[Server]:
    """A peer of the module of that name, with either way of logging."""
    module = f"benchmarks.peers.{name}"
    settings: tuple[Literal["docs", "ours"], ...] = ("docs", "ours")
    for logs in settings:
        yield Server(
            name=f"{name.removesuffix('_app')}_{logs}",
            title=title,
            arguments=(module, *options),
            access_logger=access_logger,
            body_fields=_FIELDS,
            logs=logs,
            stop_signal=stop_signal,
        )


def _bare(name: str, title: str) -> Server:
    """A peer that logs nothing."""
    return Server(name, title, (f"benchmarks.peers.{name}",), None, _FIELDS)


SERVERS = {
    server.name: server
    for server in (
        Server(
            name="petsage",
            title="PetSage",
            arguments=("petsage", "serve", "--port"),
            access_logger="petsage.access",
            body_fields=_FIELDS | {"proof"},
            logs="ours",
        ),
        *_both("fastapi_def", "FastAPI, def handler", "uvicorn.access"),
        *_both("fastapi_async", "FastAPI, async def", "uvicorn.access"),
        *_both("starlette_app", "Starlette", "uvicorn.access"),
        *_both("litestar_app", "Litestar", "uvicorn.access"),
        *_both("blacksheep_app", "BlackSheep", "uvicorn.access"),
        *_both("sanic_app", "Sanic", "sanic.access"),
        # In one process, SIGTERM ends what listens and not the process; Ctrl-C ends both.
        *_both(
            *("robyn_app", "Robyn", "robyn.access", "--log-level", "WARN"),
            stop_signal=signal.SIGINT,
        ),
        *_both("granian_rsgi", "Granian, RSGI, no framework", "granian.access"),
        *_both("aiohttp_app", "aiohttp, idiomatic", "aiohttp.access"),
        _bare("aiohttp_bare", "aiohttp, bare json_response"),
        _bare("aiohttp_bytes", "aiohttp, bare bytes"),
    )
}
QUICK = ("petsage", "fastapi_def_docs", "fastapi_async_docs", "aiohttp_bare")
