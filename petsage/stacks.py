"""What a task or a thread is, and where it waits, in words."""

import asyncio
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Final

_LIBRARY: Final = f"{Path(os.__file__).parent}{os.sep}"


def told_task(task: asyncio.Task[Any], frames: list[FrameType] | None = None) -> str:
    """A task's name, what it runs, and where that waits.

    Args:
        task: one that is not done.
        frames: those of its thread, where the task runs at this moment; a coroutine that runs
            does not tell what it awaits.
    """
    coroutine: Any = task.get_coro()
    if frames is None:
        frames = [*awaited(coroutine)][::-1]
    return f"task {task.get_name()} of {told_coroutine(coroutine)}{_place(frames)}"


def told_coroutine(coroutine: Any) -> str:
    """What a task runs, by its name."""
    return str(getattr(coroutine, "__qualname__", None) or repr(coroutine))


def told_thread(thread: threading.Thread) -> str:
    """A thread's name, and where it is."""
    daemon = " (daemon)" if thread.daemon else ""
    return f"thread {thread.name}{daemon}{_place(frames_of(thread))}"


def frames_of(thread: threading.Thread) -> list[FrameType]:
    """What a thread is in, the innermost first; each frame keeps its locals alive."""
    frames: list[FrameType] = []
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return frames


def awaited(coroutine: Any) -> Iterator[FrameType]:
    """The frames of a coroutine and of what it awaits, the innermost last."""
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "ag_frame", None)
        if frame is not None:
            yield frame
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "ag_await", None)


def _place(frames: list[FrameType]) -> str:
    """Where the innermost frame is that is not the standard library's, if there is one."""
    own = (
        frame
        for frame in frames
        if not frame.f_code.co_filename.startswith((_LIBRARY, "<"))
        or "site-packages" in frame.f_code.co_filename
    )
    frame = next(own, frames[0] if frames else None)
    if frame is None:
        return ""
    return f", at {frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
