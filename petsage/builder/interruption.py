"""Ctrl-C, SIGTERM and SIGHUP during a build: it ends in order, and nothing of it stays."""

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final

_NUMBERS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_AGAIN_S: Final = 0.05


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
def raising() -> Iterator[Callable[[], None]]:
    """A signal raises `Interrupted` amid what blocks, such as reading from a terminal.

    Once what this gives is called, signals change nothing: what has begun is done to its end.
    """
    came = threading.Event()

    def take(number: int, _: FrameType | None) -> None:
        if not came.is_set():
            came.set()
            raise Interrupted(number)

    # In this order: what `take` raises is to hit nothing but what it is meant for. Amid the start
    # of a thread, that could be neither started nor joined.
    with _insisting(came), _taken(lambda number: signal.signal(number, take)):
        yield came.set


@contextlib.contextmanager
def _insisting(came: threading.Event) -> Iterator[None]:
    """Sends a signal again until Python has seen it.

    One that comes just before a system call blocks does not end it, and is not seen before that.
    """
    main = threading.current_thread()
    if main is not threading.main_thread():
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def insist() -> None:
        told = os.read(reader, 1)
        while told and not came.wait(_AGAIN_S):
            signal.pthread_kill(main.ident or 0, told[0])

    thread = threading.Thread(target=insist, name="insist", daemon=True)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        thread.start()
        yield
    finally:
        signal.set_wakeup_fd(before)
        came.set()
        os.close(writer)
        thread.join()
        os.close(reader)


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
    """Has signals taken, and puts back what took them before; one that is ignored stays so.

    After an interruption they are ignored: the process ends, and is not to be cut short.
    """
    if threading.current_thread() is not threading.main_thread():  # Python takes none elsewhere
        yield
        return
    takers = ((number, signal.getsignal(number)) for number in _NUMBERS)
    before = {number: taker for number, taker in takers if taker not in {None, signal.SIG_IGN}}
    after = before
    try:
        for number in before:
            take(number)
        yield
    except Interrupted:
        after = dict.fromkeys(before, signal.SIG_IGN)
        raise
    finally:
        for number, taker in after.items():
            with contextlib.suppress(RuntimeError):  # there is no loop
                asyncio.get_running_loop().remove_signal_handler(number)
            signal.signal(number, taker)
