"""A connection's limits: how long what may take, and what its client is told.

docs/decisions/0013-limits.md says which limit begins where. Nothing here runs for a request that
keeps to them, but for what notes that one is in flight.

Longer than 300 lines: the states of a connection and the limits of each are read together.
"""

import asyncio
import logging
import math
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from time import perf_counter
from typing import Any, Final, NamedTuple, cast

from aiohttp import hdrs, web
from aiohttp.http import HttpVersion11
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import ERROR, _ErrInfo

from petsage.answers import begin, problem_message, problem_response, stamp, took_too_long
from petsage.arguments import BodyTooSlow
from petsage.context import RequestContext, new_request_context, set_current_request
from petsage.direct import DirectHandler
from petsage.errors import Problem
from petsage.generation import note_stubborn
from petsage.holding import Unmade
from petsage.metrics import CountLimit, TimeLimit
from petsage.protocol import refusal
from petsage.settings import ServerSettings
from petsage.stacks import told_task
from petsage.troubles import TROUBLES
from petsage.wheel import Wheel

try:
    from fcntl import ioctl
    from termios import TIOCOUTQ
except ImportError:  # where the kernel does not tell, what it holds counts as taken

    def _held_by_kernel(descriptor: int) -> int:
        return 0

else:

    def _held_by_kernel(descriptor: int) -> int:
        """How many bytes that were sent the other side has not taken."""
        held: tuple[int] = struct.unpack("i", ioctl(descriptor, TIOCOUTQ, b"\0" * 4))
        return held[0]


LEAST_BYTES_PER_S: Final = 1024
"""What sends or takes less for as long as a limit allows is too slow."""

SURPLUS_S: Final = 1.0
"""How long a connection that is one too many may take to say what it wants."""

_LINGER_S: Final = 1.0
"""How long it is read on after our side is shut."""

_END_S: Final = 1.0
"""How long a handler may take to end that was cancelled."""

# What is asked of a process that has too much to do, so as to know that it lives.
_ALWAYS: Final = frozenset(("/livez", "/readyz"))
_ALWAYS_BELOW: Final = "/readyz/"

_log = logging.getLogger(__name__)


class TimeLimits(NamedTuple):
    """How long what may take, in seconds.

    Attributes:
        shortest_s: the shortest of them: nothing that begins now is over before.
    """

    header_s: float
    body_s: float
    request_s: float
    write_s: float
    shortest_s: float


def time_limits(server: ServerSettings) -> TimeLimits:
    """The limits that the settings say."""
    header_s, body_s = server.header_timeout_s, server.body_timeout_s
    request_s, write_s = server.request_timeout_s or math.inf, server.write_timeout_s
    shortest_s = min(header_s, body_s, request_s, write_s, server.keepalive_s)
    return TimeLimits(header_s, body_s, request_s, write_s, shortest_s)


class TimedHandler(DirectHandler):
    """aiohttp's handler of one connection, ended where it takes too long or is one too many.

    The names of aiohttp's that it looks at are private; test_limits.py holds us to them.

    Args:
        limits: how long what may take.
        wheel: looks at this connection.
    """

    __slots__ = (
        *("_body_bytes", "_body_ended", "_body_since", "_ends", "_header_s", "_is_late"),
        *("_is_surplus", "_limits", "_lingers", "_max_body", "_overdue_since", "_part_since"),
        *("_running", "_unread_since", "_wheel", "_wire", "_write_left", "_write_since", "tick"),
    )

    def __init__(self, *args: Any, limits: TimeLimits, wheel: Wheel, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.tick = 0  # the wheel's
        self._limits = limits
        self._max_body = self._app._client_max_size
        self._wheel = wheel
        self._header_s = limits.header_s
        self._wire: asyncio.Transport | None = None  # also when aiohttp's is None
        # Each is in the loop's time, and 0 where there is no such moment.
        self._part_since = self._body_since = self._body_ended = 0.0
        self._unread_since = self._write_since = self._overdue_since = 0.0
        self._body_bytes = self._write_left = 0
        self._is_late = False  # the body
        self._is_surplus = False
        self._ends = False  # with the answer in hand
        self._lingers = False
        self._running: asyncio.Task[Any] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins, and sees whether this is one too many."""
        super().connection_made(transport)
        # The wheel does it, and knows of a request that has begun to arrive.
        if self._keepalive_handle is not None:
            self._keepalive_handle.cancel()
        self._wire = cast(asyncio.Transport, transport)  # uvloop's are none by name
        counts = self._counts
        counts.open += 1
        if counts.open > counts.max_connections:
            self._is_surplus = True
            self._is_last = True
            self._header_s = SURPLUS_S
            if not counts.is_crowded:
                counts.is_crowded = True
                _log.warning(
                    "There are more than %d connections, and further ones are refused; fix: raise "
                    "[server].max_connections, or let a proxy keep fewer open",
                    counts.max_connections,
                )
        wait_s = min(self._limits.shortest_s, self._header_s)
        self._wheel.add(self, self._loop.time() + wait_s)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Ends; whoever is kept out by too many may come in."""
        if self._wire is not None:
            self._wire = None
            self._wheel.drop(self)
            counts = self._counts
            counts.open -= 1
            if counts.is_crowded and counts.open <= counts.max_connections * 0.9:
                counts.is_crowded = False
                refused = counts.refused["max_connections"]
                _log.info("There is room for connections again; requests refused: %d", refused)
        super().connection_lost(exc)

    def _process_keepalive(self) -> None:
        """Nothing: the wheel looks after connections that idle."""

    # What comes in.

    def data_received(self, data: bytes) -> None:
        """Parses what came; a body that breaks is told to whoever reads it.

        aiohttp would queue the error as a request behind this one, and its handler would wait for
        a body that never ends. Its queue is no public part of it; a test holds us to this.
        """
        if self._is_known(data):
            return
        was_whole, count = self._body.is_eof(), self._request_count
        if not was_whole:
            self._body_bytes += len(data)
        super().data_received(data)
        if self._request_count == count:
            if not was_whole:
                if self._body.is_eof():
                    self._body_ended = self._loop.time()
            # Some clients send a line's end too many after a request.
            elif not self._part_since and not self._upgraded and data.strip(b"\r\n"):
                self._part_since = self._loop.time()
            return
        self._part_since = 0.0
        if self._messages:
            message, body = self._messages[-1]
            if isinstance(message, _ErrInfo):
                self._tell_reader()
                return
            if body is not EMPTY_PAYLOAD:
                self._body_since = self._loop.time()
                self._body_ended = self._body_since if body.is_eof() else 0.0
                self._body_bytes = len(data)
                self._is_late = False
                return
        # The end of a head is the end of the data, or else another one has begun.
        if self._part != b"" and not data.endswith(b"\r\n\r\n") and data.strip(b"\r\n"):
            self._part_since = self._loop.time()

    def _tell_reader(self) -> None:
        """Takes an error out of the queue that is one of the body before it."""
        if not self._body.is_eof():
            self._messages.pop()
            if self._body.exception() is None:
                self._body.set_exception(web.RequestPayloadError("it is not well-formed"))

    def _pause_transport_reading(self) -> None:
        if not self._unread_since:
            self._unread_since = self._loop.time()
        super()._pause_transport_reading()

    def _resume_transport_reading(self) -> None:
        if self._unread_since:
            # While nobody read, the client could not send.
            self._body_since += self._loop.time() - self._unread_since
            self._unread_since = 0.0
        super()._resume_transport_reading()

    # What goes out.

    def pause_writing(self) -> None:
        """Called when more waits to be taken than is good."""
        super().pause_writing()
        if self._wire is not None:
            self._begin_write_period(self._wire)

    def resume_writing(self) -> None:
        """Called when most of it was taken."""
        self._write_since = 0.0
        super().resume_writing()

    def _begin_write_period(self, wire: asyncio.Transport) -> None:
        self._write_since = self._loop.time()
        self._write_left = _untaken(wire)

    # One request.

    async def _handle_request(
        self,
        request: Any,
        start_time: float | None,
        request_handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
    ) -> Any:
        """Answers a request, or refuses it where there are too many."""
        unmade: Unmade = request
        limit = self._exceeded(unmade)
        if limit is not None:
            self._counts.refused[limit] += 1
            self._ends = self._is_surplus
            request_handler = partial(_refuse, _too_many(limit))
        elif unmade.message is not ERROR:
            is_from_proxy = self._proxies is not None
            problem = refusal(unmade.message, self._max_body, is_from_proxy=is_from_proxy)
            if problem is not None:
                unmade.message = unmade.message._replace(version=HttpVersion11, should_close=True)
                self._ends = True
                request_handler = partial(_refuse, problem)
            elif unmade.message.upgrade and not self._upgraded:
                # The parser has given up what came behind it in the same packet.
                unmade.message = unmade.message._replace(should_close=True)
                self._ends = True
        self._take_off()
        self._running = asyncio.current_task()
        try:
            return await super()._handle_request(request, start_time, request_handler)
        finally:
            self._running = None
            self._land()
            if self._ends or self._is_surplus or (self._is_deaf and not self._messages):
                if not unmade.payload.is_eof():
                    unmade.payload.set_exception(web.RequestPayloadError("it is not waited for"))
                self._linger()

    def _exceeded(self, unmade: Unmade) -> CountLimit | None:
        """The limit that a request is above, None where it may be answered."""
        counts = self._counts
        if not self._is_surplus and counts.in_flight < counts.max_requests:
            return None
        path = unmade.message.path.partition("?")[0]
        if unmade.message is ERROR or path in _ALWAYS or path.startswith(_ALWAYS_BELOW):
            return None
        return "max_connections" if self._is_surplus else "max_requests_in_flight"

    def set_parser(self, *args: Any, **kwargs: Any) -> None:
        """Called when a WebSocket opens, which is no request in flight any more."""
        self._land()
        super().set_parser(*args, **kwargs)

    # What is too slow.

    def look(self, now: float) -> float:
        """Ends what has taken too long; when to look again, inf for never."""
        wire = self._wire
        if wire is None:
            return math.inf
        task = self._task_handler
        if self._lingers or (task is not None and task.done()):  # nobody answers here any more
            wire.abort()
            return now + _LINGER_S
        again = now + self._limits.shortest_s
        if self._paused or wire.is_closing():
            return min(again, self._look_at_writing(wire, now))
        if self._payload_parser is not None:
            return again
        if self._waiter is not None and not self._waiter.done() and not self._messages:
            return min(again, self._look_at_waiting(now))
        return min(again, self._look_at_body(now), self._look_at_handler(now))

    def _look_at_waiting(self, now: float) -> float:
        """Waits for a request, or for the rest of its head."""
        idle_since = self._next_keepalive_close_time - self._keepalive_timeout
        limit: TimeLimit = "header_timeout_s"
        if not self._request_count:
            due = idle_since + self._header_s
        elif self._part_since:
            due = max(idle_since, self._part_since) + self._header_s
        else:
            due, limit = self._next_keepalive_close_time, "keepalive_s"
        if now < due:
            return due
        if self._is_surplus and self._part_since:
            self._counts.refused["max_connections"] += 1
            self._end_with(_too_many("max_connections"))
            return now + _LINGER_S
        self._counts.timed_out[limit] += 1
        if self._part_since:
            self._end_with(Problem(408, "The request's head did not arrive in time"))
        else:
            self.force_close()
        return now + _LINGER_S

    def _look_at_body(self, now: float) -> float:
        """Waits for a body, if it is no fault of ours that nothing comes."""
        body = self._body
        if body.is_eof() or self._is_late or self._unread_since or body.exception() is not None:
            return math.inf
        due = self._body_since + self._limits.body_s
        if now < due:
            return due
        if self._body_bytes >= LEAST_BYTES_PER_S * (now - self._body_since):
            self._body_since, self._body_bytes = now, 0
            return now + self._limits.body_s
        self._counts.timed_out["body_timeout_s"] += 1
        self._is_late = True
        self._body_ended = now
        self.close_after_answer()
        body.set_exception(BodyTooSlow("it did not arrive in time"))
        return math.inf

    def _look_at_handler(self, now: float) -> float:
        """Waits for an answer to begin; while the body comes, that is what is waited for."""
        if self._held is None:
            return math.inf
        context = self._held[1]
        if self._overdue_since:
            return self._look_at_overdue(context, now)
        if context.answer is not None or self._limits.request_s == math.inf:
            return math.inf
        since = self._body_ended
        if not (self._body.is_eof() or self._is_late):
            if not self._unread_since:
                return math.inf
            since = self._unread_since
        took_s = min(perf_counter() - context.started, now - since)
        if took_s < self._limits.request_s:
            return now + self._limits.request_s - took_s
        return self._end_handler(context, now)

    def _end_handler(self, context: RequestContext, now: float) -> float:
        task = self._direct or self._running
        if task is None:
            return math.inf
        self._counts.timed_out["request_timeout_s"] += 1
        waits = told_task(task)
        TROUBLES.note(
            context.feature,
            "request-overdue",
            f"a request of {context.route} took longer than {self._limits.request_s:g} s, and was "
            f"cancelled: {waits}",
            fix="answer sooner, or raise [server].request_timeout_s",
        )
        _log.error(
            "Feature %s: a request of %s took longer than %g s, and is cancelled: %s; "
            "fix: answer sooner, or raise [server].request_timeout_s",
            context.feature,
            context.route,
            self._limits.request_s,
            waits,
            extra={"cut_request_id": context.request_id},
        )
        context.is_overdue = True
        self._overdue_since = now
        task.cancel()
        return now + _END_S

    def _look_at_overdue(self, context: RequestContext, now: float) -> float:
        """Cuts a client whose handler was cancelled and goes on."""
        if not context.is_overdue:  # another request: that one has ended
            self._overdue_since = 0.0
            return now
        due = self._overdue_since + _END_S
        if now < due or context.answer is not None:
            return due if now < due else math.inf
        note_stubborn(context)
        _log.error(
            "Feature %s: a request of %s was cancelled, and runs on; "
            "fix: let its handler raise the CancelledError that it catches",
            context.feature,
            context.route,
            extra={"cut_request_id": context.request_id},
        )
        if self._wire is not None:
            self._wire.write(problem_message(took_too_long(), context))
            self._linger()
        return math.inf

    def _look_at_writing(self, wire: asyncio.Transport, now: float) -> float:
        """Waits for the client to take what it is sent."""
        if not self._write_since:
            self._begin_write_period(wire)
        due = self._write_since + self._limits.write_s
        if now < due:
            return due
        taken = self._write_left - _untaken(wire)
        if taken >= LEAST_BYTES_PER_S * (now - self._write_since):
            self._begin_write_period(wire)
            return now + self._limits.write_s
        self._counts.timed_out["write_timeout_s"] += 1
        wire.abort()
        return math.inf

    # The end.

    def _end_with(self, problem: Problem) -> None:
        """Answers a request of which not all has come, and ends."""
        context = new_request_context()
        data = problem_message(problem, context)
        if self._wire is not None:
            self._wire.write(data)
        set_current_request(context)
        try:
            status = problem.status
            self._access.note(context, "UNKNOWN", "/", status, len(data), self._remote, {})
        finally:
            set_current_request(None)
        if self._waiter is not None:
            self._waiter.cancel()
        self._linger()

    def _linger(self) -> None:
        """Shuts our side, and reads for a moment what still comes, so that the answer arrives."""
        wire = self._wire
        self._close = True  # nothing is parsed any more
        if wire is None or wire.is_closing() or self._lingers:
            return
        with suppress(OSError, RuntimeError):  # the client has gone meanwhile
            wire.write_eof()
        with suppress(RuntimeError):
            wire.resume_reading()
        self._lingers = True
        self.transport = None  # aiohttp's loop would close it
        self._wheel.move(self, self._loop.time() + _LINGER_S)

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109 - aiohttp's signature
        """Waits for the answer under way, as long as `timeout` allows, and closes."""
        await super().shutdown(timeout)
        if self._lingers and self._wire is not None:
            self._wire.close()


def _untaken(wire: asyncio.Transport) -> int:
    """How many bytes the client has not taken, with us and in the kernel."""
    descriptor = wire.get_extra_info("socket").fileno()
    with suppress(OSError, ValueError):  # it is closed already
        return wire.get_write_buffer_size() + _held_by_kernel(descriptor)
    return wire.get_write_buffer_size()


def _too_many(limit: CountLimit) -> Problem:
    what = "connections" if limit == "max_connections" else "requests"
    return Problem(
        503, f"The server has too many {what} at the moment", headers={hdrs.RETRY_AFTER: "1"}
    )


async def _refuse(problem: Problem, request: web.BaseRequest) -> web.StreamResponse:
    """Answers without looking at a route; so no application's signal stamps it."""
    context = begin(request)
    response = problem_response(problem, context)
    stamp(response, context)
    return response
