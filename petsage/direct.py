"""Requests that need nothing of a web request are answered straight from the parser.

Most of what aiohttp does for a request serves those that ask for something: a request object, a
writer, a chain of applications and signals. A typed handler asks for none of it: what it takes is
in the path, the query, the headers and the body, and what it answers is JSON, or a problem;
docs/decisions/0009 says what that saves and what it rests on.
What nothing answers needs no request either, and is refused here. Whatever else comes goes
aiohttp's way, and so does most of what goes wrong here.

Longer than 300 lines: the ways that a request can go, and what each must leave behind on its
connection, are read together.
"""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Mapping
from typing import Any, Final

from aiohttp import hdrs, web
from aiohttp.http import RawRequestMessage, StreamWriter
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestHandler

from petsage.answers import begin, in_place_of, must_pass, problem_content, respond_to
from petsage.binding import Came
from petsage.context import RequestContext, set_current_request
from petsage.endpoint import Endpoint
from petsage.errors import PROBLEM_TYPE, Problem
from petsage.heads import Heads
from petsage.holding import CUT, Unmade
from petsage.logs.access import AccessLogger
from petsage.metrics import CONNECTIONS, REQUESTS
from petsage.parsing import StrictHandler
from petsage.response import JSON, Content, JsonResponse, in_one_piece
from petsage.routing import Mounted, Refusal, RequestMatch, TableResource
from petsage.short_way import has_plain_body, is_plain
from petsage.steady import RequestTask

_log = logging.getLogger(__name__)


# A route that answers a request, and what the path has for its names. No class: to make one of a
# named tuple's takes longer than to find the route.
Found = tuple[Mounted, Mapping[str, str]]
_NO_VALUES: Final[Mapping[str, str]] = {}


class DirectHandler(StrictHandler):
    """aiohttp's handler of one connection, with a short way for what needs no request.

    aiohttp's own loop, `start`, waits on a future for requests. While a request is answered here,
    that future is out of its sight; so it goes on waiting, and what comes meanwhile is queued for
    it. The names are private to aiohttp; test_direct.py holds us to them.

    Args:
        app: the root application.
        resource: has the table of routes; None where `app` looks at every request, and none may
            go past it.
        heads: of requests that came before, on whatever connection of the server.
    """

    __slots__ = (
        *("_access", "_counts", "_direct", "_heads", "_is_in_flight", "_remote", "_requests"),
        "_resource",
    )

    def __init__(
        self,
        *args: Any,
        app: web.Application,
        resource: TableResource | None,
        heads: Heads,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, app=app, **kwargs)
        self._resource = resource
        self._heads = heads
        self._requests = app[REQUESTS]
        self._counts = app[CONNECTIONS]
        self._is_in_flight = False
        self._remote: str | None = None
        assert isinstance(self.access_logger, AccessLogger)  # noqa: S101 - for mypy: `Runner` gives it
        self._access: AccessLogger = self.access_logger
        self._direct: RequestTask[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins, and notes who is there: a transport that is closed does not say."""
        super().connection_made(transport)
        peer = self.peername
        if peer is not None:
            self._remote = str(peer[0] if isinstance(peer, list | tuple) else peer)
        if self._proxies is not None and not self._proxies.trusts(self._remote):
            self._proxies = None

    def _is_known(self, data: bytes) -> bool:
        """Whether what came is a request that has come before, and can be answered directly.

        Then it is begun here: the same bytes parse the same. What depends on the moment is asked
        as for any other.
        """
        waiter, body = self._waiter, b""
        if waiter is None or waiter.done() or self._part != b"":
            return False
        message = self._heads.find(data)
        if message is None:
            known = self._heads.find_with_body(data)
            if known is None:
                return False
            message, body = known
        if self._upgraded or self._close or self._force_close or not self._may_answer():
            return False
        found = self._route_of(message)
        if found is None:
            return False
        if isinstance(found, Refusal):
            if body or self._paused:
                return False
            self._request_count += 1
            self._refuse(message, found)
            return True
        if body and not found[0].endpoint.takes_json:
            return False
        self._request_count += 1
        self._begin_direct(message, found, waiter, body)
        return True

    def data_received(self, data: bytes) -> None:
        """Parses what came, and answers it or wakes aiohttp's loop to."""
        waiter = self._waiter
        # Where something of a request has come before, aiohttp's loop is woken when it is whole.
        if waiter is None or waiter.done() or self._part != b"":
            super().data_received(data)
            return
        self._waiter = None  # so that nothing wakes the loop but the lines below
        found, count = None, self._request_count
        try:
            RequestHandler.data_received(self, data)  # past what `_look_at` is for
            found = self._find_direct(data)
            if found is None:
                self._look_at(data, count)
                found = self._find_with_body()
        finally:
            self._waiter = waiter
            if found is not None:
                self._take_up(data, found, waiter)
            elif self._messages:
                waiter.set_result(None)

    def _take_up(self, data: bytes, found: Found | Refusal, waiter: asyncio.Future[None]) -> None:
        """Answers the one request that has come."""
        message: Any
        message, payload = self._messages.popleft()
        assert self._parser is not None  # noqa: S101 - for mypy: it parsed this
        self._parser.message_consumed()
        is_refused = isinstance(found, Refusal)
        body = b"" if payload is EMPTY_PAYLOAD else payload.read_nowait()
        # A query may be a secret, and names would drive out the heads that come again.
        if "?" not in message.path and (is_refused or found[1] is _NO_VALUES):
            self._heads.keep(data, message, body, is_refused=is_refused)
        if isinstance(found, Refusal):
            self._refuse(message, found)
        else:
            self._begin_direct(message, found, waiter, body)

    def _refuse(self, message: RawRequestMessage, refusal: Refusal) -> None:
        """Answers what nothing answers: at once, since no handler has a part in it."""
        assert self._manager is not None  # noqa: S101 - for mypy: the connection is open
        self._manager.requests_count += 1
        problem, mounted = refusal
        context = begin(message)
        try:
            if mounted is not None:
                # It counts for the path, and so is in the hands of whoever has it.
                context.route = mounted.template
                self.hold(mounted.generation, context, None)
            content = problem_content(problem, context)
            is_head = message.method == hdrs.METH_HEAD
            data = in_one_piece(
                content, context, keep_alive=True, is_head=is_head, kind=PROBLEM_TYPE
            )
            assert data is not None  # noqa: S101 - for mypy: neither refusal has such a header
            context.answer = content
            transport, size = self.transport, 0
            if transport is not None and not transport.is_closing():
                transport.write(data)
                size = len(data)
            self._note(message, context, problem.status, size)
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        finally:
            self._let_go()
            set_current_request(None)  # what comes next on this connection is another's

    def _may_answer(self) -> bool:
        """Whether a request that comes now may be answered directly.

        Where there are too many, it is refused the other way, unless it is one that never is.
        """
        counts = self._counts
        return (
            self._resource is not None
            and not self._is_last
            and counts.in_flight < counts.max_requests
        )

    def _find_direct(self, data: bytes) -> Found | Refusal | None:
        """What answers the one request that has come, where it can be answered directly."""
        if len(self._messages) != 1:
            return None
        message, payload = self._messages[0]
        if not is_plain(message, payload) or not self._is_one(data) or not self._may_answer():
            return None
        found = self._route_of(message)
        # Who does not read what it is answered waits until it has.
        return None if self._paused and isinstance(found, Refusal) else found

    def _find_with_body(self) -> Found | None:
        """What answers the one request that has come, where it is all there with its body.

        Nothing has come behind it.
        """
        if len(self._messages) != 1 or self._part != b"":
            return None
        message, payload = self._messages[0]
        max_bytes = self._app._client_max_size
        if not has_plain_body(message, payload, max_bytes) or not self._may_answer():
            return None
        found = self._route_of(message)
        if found is None or isinstance(found, Refusal):
            return None
        return found if found[0].endpoint.takes_json else None

    def _route_of(self, message: RawRequestMessage) -> Found | Refusal | None:
        """What answers a request directly, or why nothing answers it; None where neither."""
        assert self._resource is not None  # noqa: S101 - for mypy: nothing is answered otherwise
        path = message.url.raw_path
        try:
            match = self._resource.table.find(path)
        except Problem:
            return None
        mounted = match and match.route_for(message.method)
        if match is None or mounted is None:
            return self._resource.refusal(message.method, path, match)
        if not mounted.is_direct:
            return None
        return mounted, match.values_of(mounted) if match.values else _NO_VALUES

    def _begin_direct(
        self,
        message: RawRequestMessage,
        found: Found,
        waiter: asyncio.Future[None],
        body: bytes,
    ) -> None:
        assert self._manager is not None  # noqa: S101 - for mypy: the connection is open
        self._waiter = None  # out of the sight of whatever comes meanwhile
        self._manager.requests_count += 1
        self._request_in_progress = True
        self._take_off()
        # A task of its own, so that no request sees the context variables of another.
        answer = self._answer(message, found, waiter, body)
        # With a name, since to make one up takes longer.
        self._direct = task = RequestTask(answer, loop=self._loop, name="request")
        task.feature = found[0].feature

    async def _answer(  # noqa: PLR0912, PLR0915 - in one piece, as is said below
        self,
        message: RawRequestMessage,
        found: Found,
        waiter: asyncio.Future[None],
        body: bytes,
    ) -> None:
        """Answers one request, and waits for the next.

        Longer than 40 lines: in one piece, since each coroutine has its price at each step.
        """
        goes_on, (mounted, values) = False, found
        try:
            if mounted.generation.is_retired:
                goes_on = await self._answer_anew(message, body)
                return
            context = begin(message)
            context.feature, context.route = mounted.feature, mounted.template
            self.hold(mounted.generation, context, self._direct)
            endpoint, active, data = mounted.endpoint, self._requests.active, None
            active[message.method] += 1
            kind = JSON
            try:
                try:
                    answer = endpoint.content(await _call(endpoint, message, values, body))
                except Problem as problem:
                    if context.is_overdue:
                        raise
                    answer, kind = problem_content(problem, context), PROBLEM_TYPE
                finally:
                    active[message.method] -= 1
                if isinstance(answer, tuple):
                    keep_alive = not self._is_last or bool(self._messages)
                    is_head = message.method == hdrs.METH_HEAD
                    data = in_one_piece(
                        answer, context, keep_alive=keep_alive, is_head=is_head, kind=kind
                    )
            except BaseException as raised:  # noqa: BLE001 - what must pass is raised there
                goes_on = await self._finish_raised(message, found, context, raised)
                return
            if data is None or not isinstance(answer, tuple):
                goes_on = await self._finish(message, found, context, answer, kind)
                return
            context.answer = answer
            transport, status = self.transport, answer[1]
            if transport is None or transport.is_closing():
                self._note(message, context, status, 0)
                return
            transport.write(data)
            try:
                if self._paused:
                    await self._drain_helper()
            finally:
                self._note(message, context, status, len(data))
            goes_on = keep_alive
        except asyncio.CancelledError:
            self._status = CUT
            raise
        except ConnectionError:
            _log.debug("The client of %s %s went away", message.method, mounted.template)
        except Exception as error:  # noqa: BLE001 - logged, as aiohttp's loop does
            self.log_exception("Unhandled exception", exc_info=error)
        finally:
            self._let_go()
            self._land()
            self._wait_again(waiter, goes_on=goes_on)

    def _wait_again(self, waiter: asyncio.Future[None], *, goes_on: bool) -> None:
        """Waits for the next request as aiohttp's loop does, or closes the connection."""
        self._direct = None
        self._request_in_progress = False
        if not waiter.cancelled():  # else nothing waits any more
            self._waiter = waiter
        if self._handler_waiter is not None and not self._handler_waiter.done():
            self._handler_waiter.set_result(None)  # the stop waits for this answer
        if not goes_on or self._close or self._force_close:
            self.force_close()
            return
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if self._messages and not waiter.done():
            waiter.set_result(None)  # one has come meanwhile

    def _take_off(self) -> None:
        """Counts the request in hand as in flight."""
        if not self._is_in_flight:
            self._is_in_flight = True
            self._counts.in_flight += 1

    def _land(self) -> None:
        """Counts it no more."""
        if self._is_in_flight:
            self._is_in_flight = False
            self._counts.in_flight -= 1

    def _cancel_direct(self) -> None:
        """Cancels what is answered directly, if anything is."""
        if self._direct is not None:
            self._direct.cancel()
            coroutine: Any = self._direct.get_coro()
            if inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
                self._land()  # what has not begun never comes to its end

    async def _answer_anew(self, message: RawRequestMessage, body: bytes) -> bool:
        """Answers one request whose route has gone before it began; whether it goes on."""
        payload = EMPTY_PAYLOAD
        if body:
            payload = StreamReader(self, self._read_bufsize, loop=self._loop)
            payload.feed_data(body)
            payload.feed_eof()
        writer = StreamWriter(self, self._loop)
        unmade = Unmade(message, payload, self, writer, self._direct)
        handler: Any = self._app._handle
        outcome, was_cut = await self._handle_request(unmade, self._loop.time(), handler)
        return not was_cut and outcome.keep_alive

    async def _finish_raised(
        self,
        message: RawRequestMessage,
        found: Found,
        context: RequestContext,
        raised: BaseException,
    ) -> bool:
        """Answers a request whose handler raised; whether the connection goes on."""
        error = in_place_of(raised, context) if context.is_overdue else raised
        if must_pass(error, context, self):
            # The stop cuts it: no answer follows, and so no access line but this one.
            self._note(message, context, 503, 0)
            raise raised
        return await self._finish(message, found, context, error)

    async def _finish(
        self,
        message: RawRequestMessage,
        found: Found,
        context: RequestContext,
        outcome: Content | web.StreamResponse | BaseException,
        kind: str = JSON,
    ) -> bool:
        """Answers aiohttp's way, with a response or because of an error; whether it goes on."""
        writer = StreamWriter(self, self._loop)
        request = self._make(message, EMPTY_PAYLOAD, writer, self._direct)
        mounted, values = found
        match = RequestMatch(dict(values), mounted.compiled.run, mounted)
        match.add_app(self._app)
        match.freeze()
        request._match_info = match
        if isinstance(outcome, BaseException):
            outcome = respond_to(outcome, request, context)
        elif isinstance(outcome, tuple):
            outcome = JsonResponse(*outcome, kind)
        answer, was_cut = await self.finish_response(request, outcome, self._loop.time())
        return not was_cut and bool(answer.keep_alive)

    def _note(
        self, message: RawRequestMessage, context: RequestContext, status: int, size: int
    ) -> None:
        """Counts a request, and writes its access line."""
        self._status = status
        remote, origin, headers = self._remote, None, message.headers
        if self._proxies is not None:
            origin = self._proxies.origin(headers)
            remote = (origin and origin.remote) or remote
        self._access.note(
            context, message.method, message.url.raw_path, status, size, remote, headers, origin
        )

    def connection_lost(self, exc: BaseException | None) -> None:
        """Ends what waits for the client; what runs for it ends where that is wished."""
        super().connection_lost(exc)
        if self._was_left:
            self._cancel_direct()

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109 - aiohttp's signature
        """Waits for the answer under way, as long as `timeout` allows, and closes."""
        await super().shutdown(timeout)
        self._cancel_direct()


def _call(
    endpoint: Endpoint, message: RawRequestMessage, values: Mapping[str, str], body: bytes
) -> Awaitable[Any]:
    """Calls a handler with what came.

    Raises:
        Problem: that is not what the handler declares.
    """
    if endpoint.takes_nothing:
        return endpoint.handler()
    came = Came(values, message.url, message.headers)
    return endpoint.handler(**endpoint.arguments_of(came, body))
