"""Commands without a start each: one process has imported what they need, and forks for each.

What a command does is all its own: arguments, environment, folder, streams, exit code and end. What
a start itself does (signals amid the imports, streams that are closed, encodings) is tried by tests
that start processes of their own.
"""

import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

_ORDER_BYTES = 1 << 20


class WarmCommand:
    """Runs `python -m <module>`, one at a time, each in a process that is forked for it.

    Args:
        module: what is run.
        imports: the modules that it finds imported.
    """

    def __init__(self, module: str, *imports: str) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno()), module, *imports],
                pass_fds=[theirs.fileno()],
            )

    def run(
        self,
        arguments: tuple[str, ...],
        *,
        cwd: Path,
        env: Mapping[str, str],
        stdin: str,
        timeout_s: float,
    ) -> subprocess.CompletedProcess[str]:
        """Runs one command to its end, as `subprocess.run` would."""
        order = {"arguments": arguments, "cwd": str(cwd), "env": dict(env)}
        pipes = [os.pipe() for _ in range(3)]
        theirs = [pipes[0][0], pipes[1][1], pipes[2][1]]
        ours = [pipes[0][1], pipes[1][0], pipes[2][0]]
        try:
            socket.send_fds(self._channel, [json.dumps(order).encode()], theirs)
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        with ThreadPoolExecutor(3) as pool:
            writing = pool.submit(_write, ours[0], stdin)
            reading = [pool.submit(_read, descriptor) for descriptor in ours[1:]]
            code = self._wait(timeout_s)
        writing.result()
        out, err = (each.result() for each in reading)
        return subprocess.CompletedProcess(arguments, code, out, err)

    def _wait(self, timeout_s: float) -> int:
        self._channel.settimeout(timeout_s)
        pid = int(self._channel.recv(64))
        try:
            return int(self._channel.recv(64))
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            self._channel.recv(64)
            raise

    def end(self) -> None:
        """Ends the process that forks."""
        self._channel.close()
        self._process.wait()


def _write(descriptor: int, text: str) -> None:
    try:
        with open(descriptor, "w", encoding="utf-8") as pipe:
            pipe.write(text)
    except BrokenPipeError:
        pass  # a command need not read what it is given


def _read(descriptor: int) -> str:
    with open(descriptor, encoding="utf-8") as pipe:
        return pipe.read()


def _serve(channel: socket.socket) -> dict[str, Any] | None:
    """Forks for each order, and says how it ended; the order in the child, None at the end."""
    while True:
        data, descriptors, _, _ = socket.recv_fds(channel, _ORDER_BYTES, 3)
        if not data:
            return None
        pid = os.fork()
        if pid == 0:
            channel.close()
            for number, descriptor in enumerate(descriptors):
                os.dup2(descriptor, number)
                os.close(descriptor)
            order: dict[str, Any] = json.loads(data)
            return order
        for descriptor in descriptors:
            os.close(descriptor)
        channel.send(str(pid).encode())
        _, status = os.waitpid(pid, 0)
        channel.send(str(os.waitstatus_to_exitcode(status)).encode())


def _become(order: dict[str, Any]) -> None:
    """Takes over what a new process would have been started with."""
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    sys.argv[1:] = order["arguments"]
    sys.orig_argv[3:] = order["arguments"]
    sys.path[0] = order["cwd"]


if __name__ == "__main__":
    number, name, *imported = sys.argv[1:]
    own = socket.socket(fileno=int(number))
    sys.orig_argv[:] = [sys.executable, "-m", name]  # it is one, for all that it imports
    sys.path[0] = ""
    for each in imported:
        importlib.import_module(each)
    gc.collect()
    gc.freeze()  # to look through all of it at its end takes a command longer than most of them do
    if (asked := _serve(own)) is not None:
        _become(asked)
        runpy.run_module(name, run_name="__main__", alter_sys=True)
