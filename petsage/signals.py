"""SIGINT and SIGTERM, from the first line of ours to the end of the process."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Final

_NUMBERS: Final = (signal.SIGINT, signal.SIGTERM)

# As a shell counts it: 128 and SIGINT's number.
INTERRUPTED: Final = 130


def end_quietly() -> None:
    """Lets a signal end the process at once, for as long as nothing has begun.

    Most of a start is imports, and a signal amid them would be a traceback or a death by signal:
    it ends with 130 at Ctrl-C, and where it is told to stop, with 0 if it is to serve, which it
    does no more, and with 143 if it is to do something, which it has not done. What somebody else
    has set stays, and so does everything where Python runs no more than a library of ours.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _end)


def end_as_usual() -> None:
    """Takes `end_quietly` back: a Ctrl-C raises KeyboardInterrupt, SIGTERM kills."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGTERM) is _end:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def is_command() -> bool:
    """Whether the process is `petsage`, `python -m petsage` or `run.py`.

    It is asked while the package is imported, which is before any of their own lines.
    """
    if "-m" in sys.orig_argv[:-1]:
        return sys.orig_argv[sys.orig_argv.index("-m") + 1] == "petsage"
    folder, name = os.path.split(getattr(sys.modules.get("__main__"), "__file__", None) or "")
    # Somebody's own `run.py` may merely use the package; ours stands beside it.
    return name == "petsage" or (name == "run.py" and __file__.startswith(f"{folder}{os.sep}"))


def _end(number: int, _: FrameType | None) -> None:
    os._exit(0 if number == signal.SIGTERM and _is_service() else 128 + number)


def _is_service() -> bool:
    """Whether the command is `serve`; `run.py` knows no other."""
    words = (word for word in sys.argv[1:] if not word.startswith("-"))
    return Path(sys.argv[0]).name == "run.py" or next(words, None) == "serve"


class StopSignals:
    """Counts the signals to stop, and tells of each; none is lost, whenever it comes.

    They are the interpreter's own handlers and not the event loop's, which come late, go early,
    and are not called at all while a handler blocks the loop.

    Args:
        give_up: called in a thread of its own at the third, to end the process at once.
    """

    def __init__(self, give_up: Callable[[], None]) -> None:
        self.count = 0
        self.is_for_service = True
        """Whether the first was SIGTERM, which a service manager sends, and no Ctrl-C."""
        self._give_up = give_up
        self._listener: Callable[[], None] | None = None
        for number in _NUMBERS:
            signal.signal(number, self._take)

    def listen(self, listener: Callable[[], None] | None) -> None:
        """Calls `listener` at each further signal, amid whatever runs; now if one has come."""
        self._listener = listener
        if listener is not None and self.count:
            listener()

    def _take(self, number: int, _: FrameType | None) -> None:
        self.count += 1
        if self.count == 1:
            self.is_for_service = number == signal.SIGTERM
        if self.count == 3:
            # Not here: what runs in this thread may hold the lock that the log wants.
            threading.Thread(target=self._give_up, name="end now", daemon=True).start()
        elif self._listener is not None:
            self._listener()
