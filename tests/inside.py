"""What a server holds: asked of the system, and of a feature that looks at its process."""

import contextlib
import re
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ServerProcess

SETTLE_S = 30.0

INSIDE = {
    "__init__": '''"""Looks at the process that it runs in."""
import asyncio
import gc
import logging
import sys
from petsage import Feature, Routes

routes = Routes()

@routes.get("/inside")
async def look(collect: bool = False) -> dict[str, int]:
    if collect:
        gc.collect()
    return {
        "tasks": len(asyncio.all_tasks()),
        "loggers": len(logging.Logger.manager.loggerDict),
        "modules": len(sys.modules),
    }

feature = Feature(routes)
''',
}


@dataclass(frozen=True)
class Inside:
    """What a server holds, in numbers; memory in KB.

    Attributes:
        rss_kb: what of the server is in memory.
        child_rss_kb: what of the child that checks features is.
        series: the metrics' lines.
        leaked: the generations that ended and stay in memory.
    """

    rss_kb: int
    child_rss_kb: int
    threads: int
    descriptors: int
    children: int
    series: int
    leaked: int
    tasks: int
    loggers: int
    modules: int


def look_inside(process: ServerProcess) -> Inside:
    """What a server holds once it has nothing to do: two looks in a row that are the same."""
    deadline = time.monotonic() + SETTLE_S
    before = _look(process)
    while time.monotonic() < deadline:
        time.sleep(0.25)  # what was replaced ends, a collection comes: no event says so
        now = _look(process)
        counts = [{**vars(each), "rss_kb": 0, "child_rss_kb": 0} for each in (before, now)]
        if counts[0] == counts[1] and not now.leaked:
            return now
        before = now
    return before


def _look(process: ServerProcess) -> Inside:
    proc = Path(f"/proc/{process.pid}")
    _, inside = process.get("/api/v1/inside?collect=true")
    status = (proc / "status").read_text()  # before the metrics, which a thread of its own reads
    with urllib.request.urlopen(f"{process.address}/metrics") as answer:
        lines = [line for line in answer.read().decode().splitlines() if line[:1] not in {"", "#"}]
    metrics = dict(line.rsplit(" ", 1) for line in lines)
    children: list[int] = []
    for task in (proc / "task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # that thread has ended
            children += map(int, (task / "children").read_text().split())
    return Inside(
        rss_kb=_kb(proc),
        child_rss_kb=sum(_kb(Path(f"/proc/{child}")) for child in children),
        threads=int(status.partition("Threads:")[2].split()[0]),
        descriptors=len(list((proc / "fd").iterdir())),
        children=len(children),
        series=len(lines),
        leaked=int(float(metrics["petsage_generations_leaked"])),
        **inside,
    )


def _kb(proc: Path) -> int:
    found = re.search(r"VmRSS:\s+(\d+)", (proc / "status").read_text())
    return int(found[1]) if found is not None else 0
