"""A pipe that is drained no faster than it is told to: a sink that is slow."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.errors import BenchmarkError

_MOST = 1 << 16
_LITTLE = 1 << 12
_END_S = 30


class Drain:
    """Reads a pipe in a thread until its other end is closed.

    Args:
        descriptor: the end that is read; it is closed at the end.
        bytes_per_s: how fast; None for as fast as it comes.

    Attributes:
        lines: how many have come so far.
    """

    def __init__(self, descriptor: int, bytes_per_s: int | None) -> None:
        self.lines = 0
        self._descriptor = descriptor
        self._bytes_per_s = bytes_per_s
        self._hurry = threading.Event()
        if bytes_per_s is None:
            self._hurry.set()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def hurry(self) -> None:
        """From now on it reads as fast as it comes, so that the writer can end."""
        self._hurry.set()

    def _run(self) -> None:
        while data := os.read(self._descriptor, self._room()):
            self.lines += data.count(b"\n")
            if self._bytes_per_s is not None and not self._hurry.is_set():
                self._hurry.wait(len(data) / self._bytes_per_s)
        os.close(self._descriptor)

    def _room(self) -> int:
        """How much is read at once: little where it is slow, so that it is slow at all times."""
        return _MOST if self._hurry.is_set() else _LITTLE


@contextmanager
def drained_pipe(bytes_per_s: int | None) -> Iterator[tuple[int, Drain]]:
    """The end to write to, which the caller has to be the last to hold, and what drains the other.

    It ends when all that were given the writing end are gone.
    """
    read_end, write_end = os.pipe()
    drain = Drain(read_end, bytes_per_s)
    try:
        yield write_end, drain
    finally:
        os.close(write_end)
        drain.hurry()
        drain.thread.join(_END_S)
        if drain.thread.is_alive():
            raise BenchmarkError("somebody still holds the pipe", fix="end what was left behind")
