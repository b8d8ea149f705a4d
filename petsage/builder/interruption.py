"""Ctrl-C, SIGTERM and SIGHUP during a build: it ends in order, and nothing of it stays."""

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final

_NUMBERS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal has ended it.

    Attributes:
        number: which one.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    @property
    def name(self) -> str:
        """The signal's name: "SIGINT"."""
        return signal.Signals(self.number).name

    @property
    def exit_code(self) -> int:
        """What a shell is told by: 128 and the signal's number."""
        return 128 + self.number


@contextlib.contextmanager
def raising() -> Iterator[None]:
    """A signal raises `Interrupted` amid what blocks, such as reading from a terminal."""

    def take(number: int, _: FrameType | None) -> None:
        raise Interrupted(number)

    with _taken(lambda number: signal.signal(number, take)):
        yield


@contextlib.contextmanager
def cancelling() -> Iterator[None]:
    """The first signal cancels this task, and `Interrupted` is raised once it has ended.

    Further ones change nothing: what has begun to end is not to be cut short.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    came: list[int] = []

    def take(number: int) -> None:
        came.append(number)
        if len(came) == 1 and task is not None:
            task.cancel()

    with _taken(lambda number: loop.add_signal_handler(number, take, number)):
        try:
            yield
        except BaseException as error:
            if came:
                raise Interrupted(came[0]) from error
            raise


@contextlib.contextmanager
def _taken(take: Callable[[signal.Signals], Any]) -> Iterator[None]:
    """Has signals taken, and puts back what took them before; one that is ignored stays so."""
    if threading.current_thread() is not threading.main_thread():  # Python takes none elsewhere
        yield
        return
    takers = ((number, signal.getsignal(number)) for number in _NUMBERS)
    before = {number: taker for number, taker in takers if taker not in {None, signal.SIG_IGN}}
    try:
        for number in before:
            take(number)
        yield
    finally:
        for number, taker in before.items():
            with contextlib.suppress(RuntimeError):  # there is no loop
                asyncio.get_running_loop().remove_signal_handler(number)
            signal.signal(number, taker)
