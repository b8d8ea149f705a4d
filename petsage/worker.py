"""A function that blocks, run in a thread of its own and to its end; and a while without work."""

import asyncio
import contextlib
import contextvars
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_ABANDON_S: Final = 1.0
"""How long whoever is cancelled waits for the end of what runs."""

_TURN_S: Final = 0.0005
"""How long what runs in a thread keeps the interpreter to itself while the loop waits for it.

The loop gives it away with each look for what has come, and would get it back only after Python's
own 5 ms each time.
"""

_running: Final[set[threading.Thread]] = set()


class _ShortTurns:
    """Shortens the turns of threads for as long as any of ours runs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._before = self._ours = 0.0

    def __enter__(self) -> None:
        with self._lock:
            self._count += 1
            if self._count == 1:
                self._before = sys.getswitchinterval()
                if self._before > _TURN_S:
                    sys.setswitchinterval(_TURN_S)
                self._ours = sys.getswitchinterval()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._count -= 1
            # Somebody else may have had a wish meanwhile.
            if not self._count and sys.getswitchinterval() == self._ours != self._before:
                sys.setswitchinterval(self._before + 5e-7)  # it cuts off parts of a microsecond


_short_turns: Final = _ShortTurns()


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `function` returns, or raises; it runs to its end even where its caller is cancelled.

    What comes after may rely on that: modules are half replaced while features are imported. One
    that does not end for a second after the cancellation is left.

    The loop's own threads are every feature's: one that fills them with what blocks would hold up
    every change of another.

    Longer than 40 lines: what the thread, the loop and a cancellation do is read together.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type] # None is then what T is

    call = [partial(function, *args, **kwargs)]

    def run() -> None:
        result, error = None, None
        try:
            with _short_turns:
                result = call.pop()()
        except BaseException as raised:  # noqa: BLE001 - raised again where it is waited for
            error = raised
        settling = partial(settle, result, error)
        del result, error  # when the caller goes on, nothing of it is kept by a thread that ends
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settling)
        del settling
        _running.discard(threading.current_thread())

    thread = threading.Thread(target=contextvars.copy_context().run, args=(run,), name="worker")
    _running.add(thread)
    try:
        thread.start()
    except RuntimeError:  # there can be no more threads
        _running.discard(thread)
        raise
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        await asyncio.wait({done}, timeout=_ABANDON_S)
        done.cancel()
        raise


def join_threads() -> None:
    """Waits for whatever still runs, for however long it takes."""
    for thread in list(_running):
        thread.join()


async def rest(loop: asyncio.AbstractEventLoop, seconds: float) -> None:
    """As `asyncio.sleep`, by nothing of `asyncio` that a feature can break for all."""
    rested = loop.create_future()
    timer = loop.call_later(seconds, rested.set_result, None)
    try:
        await rested
    finally:
        timer.cancel()
