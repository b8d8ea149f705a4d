"""What a feature's code has begun and not ended, found by whose names it runs among."""

import asyncio
import logging
import threading
from collections.abc import Iterable
from typing import Any

from petsage.candidate import Candidate
from petsage.stacks import told_task
from petsage.troubles import TROUBLES

_log = logging.getLogger(__name__)

_CANCEL_S = 1.0


class Leavings:
    """The tasks and threads that run code of these candidates' modules.

    It keeps the modules' namespaces alive, by whose identity code is known: let go of it.

    Args:
        candidates: imported, and not put back yet.
    """

    def __init__(self, candidates: Iterable[Candidate]) -> None:
        self._spaces: dict[int, tuple[str, dict[str, Any]]] = {
            id(vars(module)): (candidate.name, vars(module))
            for candidate in candidates
            if candidate.modules is not None
            for module in candidate.modules.all()
        }

    async def end(self) -> None:
        """Cancels the tasks and names the threads: their code is served no more."""
        left = [task for task in asyncio.all_tasks() if _space_of(task) in self._spaces]
        for task in left:
            _log.warning(
                "Feature %s has left %s, which is cancelled; fix: end it in the lifespan",
                self._spaces[_space_of(task)][0],
                told_task(task),
            )
            _note(self._spaces[_space_of(task)][0], told_task(task))
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=_CANCEL_S)
        self._tell_threads()

    def _tell_threads(self) -> None:
        """Names the threads; nobody else can end them."""
        for thread in threading.enumerate():
            space = self._spaces.get(_space_of_thread(thread))
            if space is not None:
                _log.warning(
                    "Feature %s has left thread %s; fix: end it in the lifespan",
                    space[0],
                    thread.name,
                )
                _note(space[0], f"thread {thread.name}")


def _note(name: str, told: str) -> None:
    problem = f"what served before has left {told}"
    TROUBLES.note(name, "left-running", problem, fix="end it in the lifespan")


def _space_of(task: "asyncio.Task[Any]") -> int:
    frame = getattr(task.get_coro(), "cr_frame", None)
    return id(frame.f_globals) if frame is not None else 0


def _space_of_thread(thread: threading.Thread) -> int:
    """Where the function is from that a thread runs, 0 where that is not to be had.

    It is not looked for among the frames: to walk those of a thread that runs crashes CPython.
    """
    function: Any = getattr(thread, "_target", None) or type(thread).run
    while (
        inner := getattr(function, "func", None) or getattr(function, "__func__", None)
    ) is not None:
        function = inner
    return id(getattr(function, "__globals__", None))
