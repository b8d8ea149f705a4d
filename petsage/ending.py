"""The end of a process that does not end by itself, and what keeps it from that."""

import asyncio
import concurrent.futures.thread
import contextlib
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from petsage.logs.pipeline import installed_pipeline
from petsage.stacks import frames_of, told_task, told_thread

_log = logging.getLogger(__name__)

# What a feature left running may take this long to end, once everything else has stopped.
_TIMEOUT_S: Final = 5.0
# A write that takes longer is said to keep the process from its end.
_STALLED_S: Final = 0.1
# What waits in the server waits for the others.
_SERVER: Final = Path(__file__).with_name("server.py")


class Ending:
    """Ends the process when a thread or a task of it never does.

    Attributes:
        loop: the event loop whose tasks are named, None before there is one.
    """

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._timer: threading.Timer | None = None

    def wait(self) -> None:
        """Ends the process 5 s from now, unless it has ended by then."""
        self.wait_no_more()
        self._timer = threading.Timer(_TIMEOUT_S, self.now)
        self._timer.daemon = True
        self._timer.start()

    def wait_no_more(self) -> None:
        """Lets the process take its time again."""
        if self._timer is not None:
            self._timer.cancel()

    def now(self) -> None:
        """Ends the process at once: what still runs is named, and what is logged is written."""
        running = "; ".join(self._still_running()) or "?"
        _log.error("PetSage ends, and cuts what still runs: %s", running)
        with contextlib.suppress(RuntimeError):  # it was uninstalled: everything is written
            installed_pipeline().flush()
        os._exit(1)

    def _still_running(self) -> Iterator[str]:
        """Each thread, task and sink that keeps the process from its end, and where it is."""
        for thread in threading.enumerate():
            if not (thread.daemon or thread is threading.main_thread() or _waits_for_work(thread)):
                yield told_thread(thread)
        if self.loop is not None and not self.loop.is_closed():
            yield from _told_tasks(self.loop)
        with contextlib.suppress(RuntimeError):  # it was uninstalled, and waits for no sink
            for sink in installed_pipeline().sinks:
                seconds = sink.stands_still_for_s()
                if seconds >= _STALLED_S:
                    yield f"sink {sink.name}, in one write for {seconds:.1f} s"


def _told_tasks(loop: asyncio.AbstractEventLoop) -> Iterator[str]:
    """The tasks of a loop that are not done, asked for from any thread."""
    running = asyncio.current_task(loop)
    for task in asyncio.all_tasks(loop):
        frames = frames_of(threading.main_thread()) if task is running else None
        told = told_task(task, frames)
        if f" at {_SERVER}:" not in told:
            yield told


def _waits_for_work(thread: threading.Thread) -> bool:
    """Whether it is a pool's thread that has nothing to do, or waits for such threads to end."""
    for frame in frames_of(thread):
        if frame.f_code.co_filename == concurrent.futures.thread.__file__:
            return frame.f_code.co_name in {"_worker", "shutdown"}
    return False
