"""Runs a module as `python -m` does, and ends with whoever holds the other end of its input.

`python -P guard.py -m pytest …`, in a process group of its own: standard input is a pipe that the
builder alone can write to. It never does; when it ends, however that comes, the pipe ends too, and
with it this whole group. The module itself finds nothing on its standard input.

It is run as a file, because to import the package around it takes longer than many a tool, and
with `-P`, because the modules beside it are nobody's but the builder's.
"""

import _thread
import os
import runpy
import signal
import sys


def _end_with(pipe: int) -> None:
    """Waits until nobody can write to a pipe any more, then kills this process and its group."""
    try:
        while os.read(pipe, 4096):
            pass
    finally:
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)  # begun by hand: the group is somebody else's


def main() -> None:
    """Runs the module that the arguments name, with those behind it."""
    pipe = os.dup(0)  # which no program that the module starts inherits
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    # Not one of `threading`, by which modules tell whether they may fork.
    _thread.start_new_thread(_end_with, (pipe,))
    _, _, module, *arguments = sys.argv
    sys.argv[:] = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
