"""One making of a feature, and the requests that it has in hand.

A request is in hand from `enter` to `leave`: from where its route was found until the last byte of
its answer was handed to the transport, or it was cut. What it costs is an entry in a dictionary.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from time import perf_counter
from typing import Any, Final

from aiohttp import web
from aiohttp.http import WSCloseCode

from petsage.context import RequestContext
from petsage.troubles import TROUBLES

_log = logging.getLogger(__name__)

RETIRING: Final = web.AppKey("retiring", asyncio.Event)
"""Set when whoever streams is to come to an end: the feature is replaced or removed, or PetSage
stops. It stands in each feature's application; `FromApp(RETIRING)` gives it to a handler."""

_LOOK_S: Final = 0.1
"""How often it is looked whether an answer has begun meanwhile, while any request is in hand."""

_LATE_S: Final = 1.0
"""How long an answer that begins when others are cut already may take."""

_END_S: Final = 1.0
"""How long what was cut may take to end."""


class Holder:
    """A connection that knows when the last byte of an answer is out, and lets go then."""

    __slots__ = ()

    def hold(
        self, generation: Generation, context: RequestContext, task: asyncio.Task[Any] | None
    ) -> None:
        """Enters a request, and sees to it that it leaves."""
        raise NotImplementedError


class Generation:
    """One making of a feature: the requests that it has in hand, and what it has answered.

    Args:
        feature: the feature's name.
        number: greater is later; 0 before it is served.

    Attributes:
        since: when it was made, UTC.
        served: the requests that it had in hand and has no more.
        failed: those of them that were answered 500 and above, or cut.
        is_retired: whether no request begins in it any more.
        retiring: what streams wait for, to end by themselves; `RETIRING` in the application.
    """

    def __init__(self, feature: str, number: int = 0) -> None:
        self.feature = feature
        self.number = number
        self.since = datetime.now(UTC)
        self.served = 0
        self.failed = 0
        self.is_retired = False
        self.retiring = asyncio.Event()
        self._in_hand: dict[
            RequestContext, tuple[web.RequestHandler, asyncio.Task[Any] | None]
        ] = {}
        self._cut: dict[RequestContext, float] = {}  # when; in the loop's time
        self._code: int | None = None
        self._closings: dict[RequestContext, asyncio.Task[None]] = {}
        self._has_news = asyncio.Event()  # it was told, or nothing is in hand any more

    def __repr__(self) -> str:
        return f"<Generation {self.number} of {self.feature}, {self.in_flight} in flight>"

    @property
    def in_flight(self) -> int:
        """How many requests are in hand."""
        return len(self._in_hand)

    def enter(
        self,
        context: RequestContext,
        connection: web.RequestHandler,
        task: asyncio.Task[Any] | None,
    ) -> None:
        """Takes a request in hand; whoever calls this calls `leave`, whatever happens.

        Args:
            context: the request.
            connection: where it came from.
            task: what is cancelled where it is cut.
        """
        self._in_hand[context] = connection, task

    def leave(self, context: RequestContext, status: int) -> None:
        """Lets go of a request that `enter` has taken.

        Args:
            context: the request.
            status: of its answer.
        """
        del self._in_hand[context]
        # Timers of the handler that were cancelled keep its context until they would have rung.
        context.answer = None
        self.served += 1
        if status >= 500 or context in self._cut:
            self.failed += 1
            self._cut.pop(context, None)
        if self._code is not None and not self._in_hand:
            # Not at each: a drain looks at all that is in hand, which may be thousands.
            self._has_news.set()

    def retire(self, *, replaced: bool) -> None:
        """From here on no request begins in it; streams and WebSockets are told to end.

        Its routes have to be out of the table before: who finds one there now is sent away.

        Args:
            replaced: whether another generation of the feature serves from now on.
        """
        self.is_retired = True
        self.tell(WSCloseCode.SERVICE_RESTART if replaced else WSCloseCode.GOING_AWAY)

    def tell(self, code: int) -> None:
        """Tells streams and WebSockets to end; requests begin in it as before.

        Args:
            code: what WebSockets are closed with (RFC 6455, section 7.4).
        """
        self._code = int(code)
        self.retiring.set()
        self._has_news.set()
        self._close_sockets()

    async def drained(self, drain_s: float) -> int:
        """Waits until no request is in hand, and cuts what streams for longer than it may.

        What has not begun its answer is never cut. What was cut and does not end in a second is
        named in the log and waited for no longer; it stays in hand.

        Args:
            drain_s: how long what streams may go on. An answer that begins late may take half of
                it, or a second, even so.

        Returns:
            How many were cut.
        """
        clock = asyncio.get_running_loop().time
        end = clock() + drain_s
        least_s = min(drain_s / 2, _LATE_S)
        begun: dict[RequestContext, float] = {}
        count = 0
        try:
            while True:
                self._close_sockets()
                now = clock()
                for context in [each for each in self._in_hand if each.answer is not None]:
                    since = begun.setdefault(context, now)
                    if now >= end and now - since >= least_s and context not in self._cut:
                        self._cut_off(context, now)
                        count += 1
                if all(now - self._cut.get(each, now) >= _END_S for each in self._in_hand):
                    break
                await self._wait_for_news(min(_LOOK_S, end - now) if now < end else _LOOK_S)
            self._name_the_stubborn()
            await self._end_closings()
        finally:
            self._cancel_closings()
        return count

    async def _wait_for_news(self, seconds: float) -> None:
        self._has_news.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._has_news.wait()
        except TimeoutError:
            return

    def _cut_off(self, context: RequestContext, now: float) -> None:
        connection, task = self._in_hand[context]
        self._cut[context] = now
        _log.warning(
            "Feature %s: a request of %s is cut after %.1f s, since it streams on; "
            "fix: let its handler end when RETIRING is set",
            self.feature,
            context.route,
            perf_counter() - context.started,
            extra={"cut_request_id": context.request_id},
        )
        if task is not None:
            task.cancel()
        if connection.transport is not None:
            # Not `close`, which would wait for a client that does not read.
            connection.transport.abort()

    def _name_the_stubborn(self) -> None:
        for context in self._in_hand:
            note_stubborn(context)
            _log.error(
                "Feature %s: a request of %s was cancelled, and runs on; "
                "fix: let its handler raise the CancelledError that it catches",
                self.feature,
                context.route,
                extra={"cut_request_id": context.request_id},
            )

    def _close_sockets(self) -> None:
        """Begins to close the WebSockets that are open and not being closed."""
        if self._code is None:
            return
        for context in self._in_hand:
            answer = context.answer
            if isinstance(answer, web.WebSocketResponse) and not answer.closed:
                closing = self._closings.get(context)
                if closing is None or closing.done():
                    coroutine = _close(answer, self._code)
                    task = asyncio.create_task(coroutine, name=f"close of {context.route}")
                    self._closings[context] = task

    async def _end_closings(self) -> None:
        """Waits for those who close; a handler may be through before them."""
        if self._closings:
            await asyncio.wait(self._closings.values(), timeout=_END_S)
            self._cancel_closings()
            await asyncio.wait(self._closings.values(), timeout=_END_S)
            self._closings.clear()

    def _cancel_closings(self) -> None:
        for closing in self._closings.values():
            closing.cancel()


def note_stubborn(context: RequestContext) -> None:
    """Notes for operators that a request runs on which was cancelled."""
    TROUBLES.note(
        context.feature,
        "request-runs-on",
        f"a request of {context.route} was cancelled, and runs on",
        fix="let its handler raise the CancelledError that it catches",
    )


async def _close(socket: web.WebSocketResponse, code: int) -> None:
    """Closes a WebSocket; who waits in `receive` wakes up."""
    try:
        # Undrained: a client that does not read would keep the handler from waking up.
        await socket.close(code=code, drain=False)
    except RuntimeError:
        # Its head is just on its way: the next look finds it open.
        _log.debug("A WebSocket is not open yet, and is closed later")
