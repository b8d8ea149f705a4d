"""Connections taken from listening sockets: as many as there is room for, and no more.

asyncio's own way takes whatever comes, and where there are no descriptors left it writes a
traceback to the log each time; uvloop's closes what comes, and says nothing.
"""

import asyncio
import errno
import logging
import os
import socket
import time
from collections.abc import Sequence
from typing import Any, Final

from aiohttp import web

from petsage.metrics import ConnectionCounts
from petsage.sockets import url_of
from petsage.steady import Steady

# So many are taken in one go; then the loop has its turn.
_AT_ONCE: Final = 64
# How long nothing is taken when there is no room.
_REST_S: Final = 0.05
# How long nothing is taken when it failed.
_FAILED_REST_S: Final = 0.25
# It is over when something was taken, and nothing has failed for so long.
_CALM_S: Final = 1.0

_log = logging.getLogger(__name__)


class _Listener:
    """What aiohttp calls the server of a site, which it closes and asks for its sockets.

    Args:
        make: makes a connection.
        sockets: that listen; they are closed in the end.
        counts: of the connections.
    """

    def __init__(
        self, make: Any, sockets: Sequence[socket.socket], counts: ConnectionCounts
    ) -> None:
        self.sockets = list(sockets)
        self._make = make
        self._counts = counts
        self._loop = asyncio.get_running_loop()
        self._coming: set[asyncio.Task[None]] = set()
        self._rest: asyncio.TimerHandle | None = None
        self._failing_since = self._failed_at = 0.0
        self._failures = 0
        self._taken_since = False  # the last failure
        self._calm: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Takes connections, from now on or again."""
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        for each in self.sockets:
            each.setblocking(False)
            self._loop.add_reader(each.fileno(), self._take, each)

    def close(self) -> None:
        """Takes what has come, and listens no more."""
        if self._rest is None:
            for each in self.sockets:
                self._take(each)
        self._pause()
        if self._calm is not None:
            self._calm.cancel()
        for each in self.sockets:
            each.close()
        self.sockets = []

    def _pause(self) -> None:
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        for each in self.sockets:
            self._loop.remove_reader(each.fileno())

    def rest_for(self, seconds: float) -> None:
        """Takes nothing for a while; what comes waits in the kernel's queue."""
        self._pause()
        self._rest = self._loop.call_later(seconds, self.begin)

    def _take(self, listening: socket.socket) -> None:
        """Takes what has come on one socket, some of it at a time."""
        counts = self._counts
        most = counts.max_connections + counts.max_surplus
        for _ in range(_AT_ONCE):
            if counts.open + len(self._coming) >= most:
                self.rest_for(_REST_S)
                return
            try:
                taken, _ = listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue  # it has gone again
            except OSError as error:
                self._note_failure(error)
                self.rest_for(_FAILED_REST_S)
                return
            self._taken_since = True
            task = Steady(self._adopt(taken), loop=self._loop, name="adopt")
            self._coming.add(task)
            task.add_done_callback(self._coming.discard)

    async def _adopt(self, taken: socket.socket) -> None:
        try:
            taken.setblocking(False)
            await self._loop.connect_accepted_socket(self._make, taken)
        except OSError as error:
            _log.debug("A connection was gone before it began: %s", error)
            taken.close()

    def _note_failure(self, error: OSError) -> None:
        """Counts a failure; the first of several is logged."""
        self._counts.accept_failures += 1
        self._failures += 1
        self._taken_since = False
        self._failed_at = time.monotonic()
        if self._calm is not None:
            self._calm.cancel()
        self._calm = self._loop.call_later(_CALM_S, self._look_whether_it_is_over)
        if self._failures > 1:
            return
        self._failing_since = self._failed_at
        fix = "look at what the system says of the network"
        if error.errno in {errno.EMFILE, errno.ENFILE}:
            fix = (
                "raise the limit of open files (LimitNOFILE=, ulimit -n), or lower "
                "[server].max_connections; what a feature opens, it has to close"
            )
        _log.error(
            "No connection can be accepted: %s, with %d open; it is tried again every %g s, and "
            "said when it is over; fix: %s",
            os.strerror(error.errno or 0),
            self._counts.open,
            _FAILED_REST_S,
            fix,
        )

    def _look_whether_it_is_over(self) -> None:
        """Says that connections are accepted again, once that is so."""
        if not self._taken_since:
            self._calm = self._loop.call_later(_CALM_S, self._look_whether_it_is_over)
            return
        self._calm = None
        _log.warning(
            "Connections are accepted again, after %.1f s and %d failures",
            self._failed_at - self._failing_since,
            self._failures,
        )
        self._failures = 0


class ListeningSite(web.BaseSite):
    """A site of aiohttp's that takes connections by itself.

    Args:
        runner: of the application.
        sockets: that listen; they are the site's from now on.
        counts: of the application's connections.
        patience_s: so long, or until `take`, what comes waits in the kernel's queue.
    """

    def __init__(
        self,
        runner: web.BaseRunner,
        sockets: Sequence[socket.socket],
        counts: ConnectionCounts,
        *,
        patience_s: float = 0.0,
    ) -> None:
        super().__init__(runner)
        self._patience_s = patience_s
        self._listener = _Listener(runner.server, sockets, counts)
        self._name = ", ".join(url_of(each.getsockname()) for each in sockets)

    @property
    def name(self) -> str:
        """Where it listens."""
        return self._name

    async def start(self) -> None:
        """Begins to take connections, at once or when the patience has come to its end."""
        await super().start()
        self._server: Any = self._listener
        if self._patience_s:
            self._listener.rest_for(self._patience_s)
        else:
            self._listener.begin()

    def take(self) -> None:
        """Takes connections, also those that wait."""
        self._listener.begin()
