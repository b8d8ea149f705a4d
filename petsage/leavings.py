"""What a feature's code has begun and not ended, found by whose names it runs among."""

import asyncio
import logging
import threading
from collections.abc import Iterable
from typing import Any

from petsage.candidate import Candidate
from petsage.stacks import awaited, told_task
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
        left = []
        for task in asyncio.all_tasks():
            name = self._owner_of(task)
            if name is None:
                continue
            left.append(task)
            told = told_task(task)
            _log.warning(
                "Feature %s has left %s, which is cancelled; fix: end it in the lifespan",
                name,
                told,
            )
            _note(name, told)
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=_CANCEL_S)
        self._tell_threads()

    def _owner_of(self, task: "asyncio.Task[Any]") -> str | None:
        """The feature whose code a task runs or waits for, though a library's runs it."""
        for frame in awaited(task.get_coro()):
            space = self._spaces.get(id(frame.f_globals))
            if space is not None:
                return space[0]
            if str(frame.f_globals.get("__name__")).startswith("petsage."):
                return None  # a request, a check or a lifespan, which others end
        return None

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
