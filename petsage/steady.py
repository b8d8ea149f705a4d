"""What is the server's own and no feature's to end: its tasks, and its event loop.

A feature shares both with all others: `for task in asyncio.all_tasks(): task.cancel()` in one of
its handlers would end the server, and `loop.stop()`, or a task factory that raises, as well.
"""

import asyncio
import inspect
import math
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping
from contextvars import Context
from types import FrameType
from typing import Any, Final, TypeVar

from petsage.context import current_request
from petsage.strays import feature_of, run_to_end, tell

T = TypeVar("T")

# So long after a line that tells of a feature, no other tells the same of it.
_QUIET_S: Final = 1.0
_told: Final[dict[str, float]] = {}

_FORK: Final = "use `subprocess`, or `multiprocessing` with `spawn`"
_TASKS: Final = "cancel only tasks that the feature has begun itself"
# What calls that which was left to the loop, without anything of Python's between.
_CALLED_BY_LOOP: Final = (run_to_end.__code__, asyncio.Handle._run.__code__)
_LOOP: Final = "take it out: the event loop is the server's, and every feature's"


class Steady(asyncio.Task[T]):
    """A task of the server's own, which features cannot cancel but from inside it."""

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancels it, unless a feature asks for that, which is told."""
        caller = sys._getframe(1)
        # The server has no task cancelled by the loop: `call_soon(task.cancel)` is a feature's.
        is_left = caller.f_code in _CALLED_BY_LOOP
        name = _feature_of_request() if is_left else feature_on_stack()
        if not (is_left or name is not None) or self._may_cancel(name):
            return super().cancel(msg)
        now = time.monotonic()
        told = name or "?"
        if now - _told.get(told, -math.inf) > _QUIET_S:  # who cancels one cancels them all
            _told[told] = now
            said = "would have cancelled tasks that are not its own, which go on"
            tell(name, f"{said}: {self.get_name()}", None, fix=_TASKS, kind="cancels-others")
        return False

    def _may_cancel(self, name: str | None) -> bool:
        """Whether a feature may end it; None is one that is not known."""
        del name
        return _current_task() is self  # a lifespan may end itself


class RequestTask(Steady[T]):
    """A task that answers a request: its own feature may cancel it, once it has begun.

    One that is cancelled before it has run at all never knows of it, and its client would never
    be answered.

    Attributes:
        feature: whose request it is.
    """

    __slots__ = ("feature",)

    feature: str

    def _may_cancel(self, name: str | None) -> bool:
        coroutine: Any = self.get_coro()
        has_begun = inspect.getcoroutinestate(coroutine) != inspect.CORO_CREATED
        return has_begun and (name == self.feature or super()._may_cancel(name))


def begin_steady(
    coroutine: Coroutine[Any, Any, T], *, name: str, context: Context | None = None
) -> Steady[T]:
    """`asyncio.create_task`, for what is to run on whatever a feature does."""
    return Steady(coroutine, loop=asyncio.get_running_loop(), name=name, context=context)


class Begun(Coroutine[Any, Any, T]):
    """A coroutine that begins even where its task is cancelled before it has run at all.

    Args:
        coroutine: one that has not begun.
        is_over: whether nobody waits for it any more, and it need not.
    """

    __slots__ = ("_coroutine", "_is_over", "close", "send")

    def __init__(self, coroutine: Coroutine[Any, Any, T], is_over: Callable[[], bool]) -> None:
        self._coroutine: Any = coroutine
        self._is_over = is_over
        self.send = coroutine.send  # type: ignore[method-assign] # what it does, sooner
        self.close = coroutine.close  # type: ignore[method-assign] # as above

    def __await__(self) -> Generator[Any, Any, T]:
        return self._coroutine.__await__()  # type: ignore[no-any-return] # as typed

    def throw(self, *raised: Any) -> Any:
        """Raises it inside, where that has begun; else begins."""
        is_new = inspect.getcoroutinestate(self._coroutine) == inspect.CORO_CREATED
        if is_new and not self._is_over():
            task = asyncio.current_task()
            while task is not None and task.uncancel():
                pass
            return self._coroutine.send(None)
        return self._coroutine.throw(*raised)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._coroutine, name)  # its name, and where it waits


def _feature_of_request() -> str | None:
    request = current_request()
    return None if request is None else request.feature


def feature_on_stack() -> str | None:
    """The feature whose code calls, directly or not, the innermost; None where none does."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = feature_of(frame.f_globals.get("__name__"))
        if name is not None:
            return name
        frame = frame.f_back
    return None


def end_copies(loop: asyncio.AbstractEventLoop, descriptors: Callable[[], Iterable[int]]) -> None:
    """Has a copy of this process end that a feature forks, where it comes back to the loop.

    It would answer what this process is asked. One that never comes back, as those of
    `multiprocessing` do not, runs on. Called on the loop's thread, once a process.

    Args:
        loop: runs, or will.
        descriptors: those of the sockets that are served; the copy has none of them.
    """
    thread = threading.get_ident()

    def end_copy() -> None:
        if threading.get_ident() != thread or not loop.is_running():
            return
        name = feature_on_stack() or "?"
        nowhere = os.open(os.devnull, os.O_RDWR)
        for each in descriptors():
            os.dup2(nowhere, each)
        _poll_nothing(loop)
        told = f"petsage: feature {name} has forked the server; the copy ends; fix: {_FORK}\n"
        loop.call_soon(lambda: (os.write(2, told.encode()), os._exit(1)))

    os.register_at_fork(after_in_child=end_copy)


def _poll_nothing(loop: Any) -> None:
    """Has the loop of a copy wait for nothing: what wakes both would be taken by either.

    The one it was meant for would then never be woken by a thread again.
    """
    if sys.platform == "linux":
        selector = getattr(loop, "_selector", None)
        own = loop._get_backend_id() if selector is None else selector.fileno()
        with select.epoll() as nothing:
            os.dup2(nothing.fileno(), own)


def _current_task() -> "asyncio.Task[Any] | None":
    try:
        return asyncio.current_task()
    except RuntimeError:  # it is another thread's doing
        return None


def steady_loop() -> asyncio.AbstractEventLoop:
    """A new event loop, uvloop's where the platform has it, that no feature ends or takes over."""
    made: Any = type("SteadyLoop", (_SteadyLoop, kind_of_loop()), {})
    loop: asyncio.AbstractEventLoop = made()
    return loop


def kind_of_loop() -> type[asyncio.AbstractEventLoop]:
    """What `steady_loop` makes one of; imported by it, or before."""
    try:
        from uvloop import Loop  # noqa: PLC0415 - absent on some platforms
    except ImportError:
        return asyncio.SelectorEventLoop
    return Loop


class _SteadyLoop(asyncio.AbstractEventLoop):
    """What a loop does not do for features, or does with care."""

    _own_handler: Any = None

    def stop(self) -> None:
        """Stops it, unless a feature asks for that, or a callback that it has left."""
        name = feature_on_stack() or _feature_of_request()
        if name is None:
            super().stop()
            return
        said = "would have ended the event loop, which goes on: it called `loop.stop()`"
        tell(name, said, None, fix=_LOOP, kind="loop-ended")

    def set_task_factory(self, factory: Any) -> None:
        """Has tasks made by `factory`; a feature's, only for as long as it makes some."""
        name = feature_on_stack()
        if name is not None and factory is not None:
            factory = _CarefulFactory(factory, name)
        super().set_task_factory(factory)

    def set_exception_handler(self, handler: Any) -> None:
        """Has failures told to `handler`; what a feature gives is told after the log."""
        name = feature_on_stack()
        if name is None:
            self._own_handler = handler
        else:
            handler = _both(self._own_handler, handler, name)
        super().set_exception_handler(handler)

    def shutdown_asyncgens(self) -> Coroutine[Any, Any, None]:
        """Closes all asynchronous generators: those of the server, too.

        Raises:
            RuntimeError: a feature asks for that.
        """
        _refuse("loop.shutdown_asyncgens()")
        return super().shutdown_asyncgens()

    def shutdown_default_executor(self, *args: Any) -> Coroutine[Any, Any, None]:
        """Ends the threads of all.

        Raises:
            RuntimeError: a feature asks for that.
        """
        _refuse("loop.shutdown_default_executor()")
        return super().shutdown_default_executor(*args)


def _refuse(what: str) -> None:
    if feature_on_stack() is not None:
        raise RuntimeError(f"`{what}` is the server's to call; fix: {_LOOP}")


class _CarefulFactory:
    """A feature's task factory, asked until it fails: without tasks no request is answered."""

    def __init__(self, factory: Any, name: str) -> None:
        self._factory = factory
        self._name = name

    def __call__(
        self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any
    ) -> "asyncio.Future[Any]":
        error: BaseException | None = None
        if self._factory is not None:
            try:
                task = self._factory(loop, coroutine, **options)
                if isinstance(task, asyncio.Task):
                    return task
            except BaseException as raised:  # noqa: BLE001 - somebody else's request must not pay
                error = raised
            self._factory = None
            said = "has set a task factory that makes no task, and is not asked any more"
            tell(self._name, said, error, fix=_LOOP, kind="process-changed")
            # Kept here it would keep itself, its callers and the task, of which none would be told.
            error = None
        return asyncio.Task(coroutine, loop=loop, **options)


def _both(own: Any, other: Any, name: str) -> Callable[..., None] | None:
    """An exception handler of the server's, and a feature's after it."""
    if other is None or own is None:
        return own or other  # type: ignore[no-any-return] # either is what a loop takes

    def handle(loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
        own(loop, context)
        try:
            other(loop, context)
        except BaseException as error:  # noqa: BLE001 - it was told what failed, and fails itself
            said = "has set an exception handler that raised"
            tell(name, said, error, fix=_LOOP, kind="process-changed")

    return handle
