"""What every answer has: the request's id and trace, and for each failure a problem document.

Longer than 300 lines: which failure becomes which answer is one table, and read together.
"""

import asyncio
import logging
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

from aiohttp import hdrs, web
from aiohttp.client_exceptions import ClientConnectionResetError
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import HttpVersion11, RawRequestMessage, StreamWriter
from aiohttp.http_exceptions import HttpProcessingError
from multidict import istr

from petsage.arguments import unreadable_body
from petsage.context import (
    RequestContext,
    current_request,
    new_request_context,
    set_current_request,
)
from petsage.errors import PROBLEM_TYPE, Problem, is_a
from petsage.framing import ends_with_connection, require_framing
from petsage.response import SERVER, Content, JsonResponse
from petsage.troubles import TROUBLES, place_in

_log = logging.getLogger(__name__)

_REQUEST_ID: Final = istr("X-Request-ID")
_TRACEPARENT: Final = istr("traceparent")

_CONTENT_TYPE_OPTIONS: Final = istr("X-Content-Type-Options")

_UNSTORED: Final = "petsage_unstored"
# What is not there, or not allowed, may be at the next change of a feature.
_UNSTORED_HEADERS: Final = {"Cache-Control": "no-store"}

# What the parsers of aiohttp, `json` and codecs raise at what is none of theirs.
_PARSERS_RAISE: Final = (
    *(ValueError, LookupError, RuntimeError, AssertionError, HttpProcessingError),
)
_REQUEST_MODULE: Final = "aiohttp.web_request"
_READS_A_BODY: Final = frozenset(("text", "json", "post", "multipart"))
_MULTIPART_MODULE: Final = "aiohttp.multipart"

M = TypeVar("M", bound=Callable[..., Any])


def begin(request: web.BaseRequest | RawRequestMessage) -> RequestContext:
    """Makes the context of a request, and makes it the running task's."""
    headers = request.headers
    traceparent = headers.get(_TRACEPARENT)
    if traceparent is not None and len(headers.getall(_TRACEPARENT)) > 1:
        traceparent = None  # which of them is meant cannot be said
    context = new_request_context(headers.get(_REQUEST_ID), traceparent)
    set_current_request(context)
    return context


async def stamp_answer(request: web.Request, response: web.StreamResponse) -> None:
    """Stamps an answer, and notes that it begins: a receiver of aiohttp's `on_response_prepare`.

    The signal comes just before the headers are written, whoever answers: for streams and
    WebSockets that a handler prepares, too.
    """
    context = current_request() or begin(request)
    context.answer = response
    require_framing(request, response)
    stamp(response, context)
    if request.version < HttpVersion11 and ends_with_connection(response):
        response.force_close()
    writer = request.writer
    if (
        request.method == hdrs.METH_HEAD
        and not isinstance(response, web.Response)
        and isinstance(writer, StreamWriter)
    ):
        # A handler that writes a stream by itself need not know that nothing may follow the head.
        writer.length = 0
        writer.set_eof()


def stamp(response: web.StreamResponse, context: RequestContext) -> None:
    """Puts the request's id and trace on its answer, and a name that tells no versions.

    Nor is anybody to guess at what it is: a browser might take a text for a script.
    """
    headers = response.headers
    headers[hdrs.SERVER] = SERVER
    headers[_REQUEST_ID] = context.request_id
    headers[_TRACEPARENT] = context.traceparent
    headers[_CONTENT_TYPE_OPTIONS] = "nosniff"


def problem_response(problem: Problem, context: RequestContext) -> web.Response:
    """A problem as the answer to a request."""
    return JsonResponse(*problem_content(problem, context), PROBLEM_TYPE)


def problem_content(problem: Problem, context: RequestContext) -> Content:
    """A problem as what goes out, of the type `PROBLEM_TYPE`."""
    headers = problem.headers
    if not headers:
        return problem.document(context.request_id), problem.status, _UNSTORED_HEADERS
    names = [name.lower() for name in headers]
    if "content-type" in names:
        headers = {name: headers[name] for name in headers if name.lower() != "content-type"}
    if "cache-control" not in names:
        headers = {**headers, **_UNSTORED_HEADERS}
    return problem.document(context.request_id), problem.status, headers


def problem_message(problem: Problem, context: RequestContext) -> bytes:
    """A problem as all that goes out on a connection that ends, where there is no request."""
    body = problem.document(context.request_id)
    given = {
        hdrs.CONTENT_TYPE: PROBLEM_TYPE,
        hdrs.CONTENT_LENGTH: str(len(body)),
        hdrs.DATE: rfc822_formatted_time(),
        hdrs.SERVER: SERVER,
        _REQUEST_ID: context.request_id,
        _TRACEPARENT: context.traceparent,
        _CONTENT_TYPE_OPTIONS: "nosniff",
        hdrs.CACHE_CONTROL: "no-store",
        **problem.headers,
        hdrs.CONNECTION: "close",
    }
    lines = "".join([f"{name}: {value}\r\n" for name, value in given.items()])
    return f"HTTP/1.1 {problem.status} {problem.title}\r\n{lines}\r\n".encode() + body


def in_place_of(error: BaseException, context: RequestContext) -> BaseException:
    """What a request is to end with: `error`, or the problem that its handler took too long.

    A stop may cut it as well; then it is cut.
    """
    task = asyncio.current_task()
    if not context.is_overdue or task is None or task.uncancel():
        return error
    return took_too_long()


def took_too_long() -> Problem:
    """What a client is told whose request took longer than `[server].request_timeout_s`."""
    return Problem(503, "The answer took longer than the server allows")


def respond_to(
    error: BaseException, request: web.BaseRequest, context: RequestContext
) -> web.StreamResponse:
    """The answer to what a handler raised: what it means to say, or a failure, which is logged."""
    if context.answer is None:
        if is_a(error, Problem):
            return problem_response(error, context)
        if is_a(error, web.HTTPException):
            return http_exception_response(error, context)
    return fail(request, error)


def fail(request: web.BaseRequest, error: BaseException) -> web.StreamResponse:
    """The answer to a request whose handler raised `error`, which is logged.

    Where an answer has begun, it is broken off and returned: the client must not take it for
    whole. A client that went away, or sent a body that cannot be read, is no failure of ours.
    """
    context = current_request() or begin(request)
    if error is request.content.exception():
        problem = unreadable_body(error)
    elif _is_of_a_body(error, request):
        problem = Problem(400, f"The body cannot be read: {type(error).__name__}")
        _log.debug("A body is not what it says", exc_info=error)
    else:
        problem = Problem(500, "The server failed; its log tells more under this request id")
        if is_a(error, ClientConnectionResetError) and _is_over(request, context.answer):
            _log.debug("The client of %s %s went away", request.method, context.route)
        else:
            _log.error(
                "Unhandled exception in %s %s", request.method, context.route, exc_info=error
            )
            raised = f"{type(error).__name__}{place_in(error, context.feature)}"
            TROUBLES.note(
                context.feature,
                "request-failed",
                f"{request.method} {context.route} raised {raised}; request {context.request_id}",
                fix="mend what it raises; the log tells more under the request's id",
            )
    begun = context.answer
    if not isinstance(begun, web.StreamResponse) or _can_be_replaced(begun, request):
        return problem_response(problem, context)
    writer: Any = request.writer
    if isinstance(begun, web.Response) and writer.output_size == 0:
        # Its head waits for the first of its body: another writer knows nothing of either.
        request._payload_writer = type(writer)(request.protocol, asyncio.get_running_loop())
        return problem_response(problem, context)
    begun.force_close()
    if request.transport is not None:
        request.transport.close()
    return begun


def _is_of_a_body(error: BaseException, request: web.BaseRequest) -> bool:
    """Whether aiohttp raised `error` because a body is not what its headers say that it is.

    A handler that takes the request, and reads its text, JSON, form or parts, gets whatever their
    parsers raise: errors of any kind, which tell only by where they were raised whose fault it is.
    """
    if not is_a(error, _PARSERS_RAISE):
        return False
    is_ours, module = False, None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        module = frame.f_globals.get("__name__")
        if module == _REQUEST_MODULE and frame.f_code.co_name in _READS_A_BODY:
            is_ours |= frame.f_locals.get("self") is request
        elif module == _MULTIPART_MODULE:
            # The reader of an answer that the handler asked somebody else for is none of this.
            reader = frame.f_locals.get("self")
            is_ours |= getattr(reader, "_content", None) is request.content
    # Any other is a handler's that reads a body twice at a time.
    is_theirs = type(error) is not RuntimeError or module == _MULTIPART_MODULE
    return is_ours and is_theirs


def leaves_unstored(middleware: M) -> M:
    """Marks a middleware that lets no cache keep an answer, for answers that it does not see."""
    setattr(middleware, _UNSTORED, True)
    return middleware


def is_unstored(run: Any) -> bool:
    """Whether a composed handler has a middleware that `leaves_unstored`."""
    while isinstance(run, partial):
        if hasattr(run.func, _UNSTORED):
            return True
        run = run.keywords.get("handler")
    return False


def must_pass(error: BaseException, context: RequestContext | None, connection: Any) -> bool:
    """Whether an exception is the end of a request's own task, and no handler's failure.

    A task that nobody but a feature has cancelled goes on, and is not cancelled any more.

    Args:
        error: what was raised.
        context: the request's.
        connection: that it came on, aiohttp's handler; None where it is gone.
    """
    if is_a(error, asyncio.CancelledError):
        # A handler may merely say so: an inner task of its own was cancelled.
        task = asyncio.current_task()
        if task is None or not task.cancelling():
            return False
        # The server cancels what it answers on a connection that it closes, or its client has.
        transport = getattr(connection, "transport", None)
        if transport is None or transport.is_closing() or connection._force_close:
            return True
        while task.uncancel():
            pass
        return False
    # A coroutine that is closed, since nobody has it any more, runs among others' variables.
    return is_a(error, GeneratorExit) and current_request() is not context


def _is_over(request: web.BaseRequest, begun: object) -> bool:
    """Whether nobody listens any more: the client has gone, or its WebSocket was closed."""
    if request.transport is None or request.transport.is_closing():
        return True
    return isinstance(begun, web.WebSocketResponse) and begun.closed


def _can_be_replaced(begun: web.StreamResponse, request: web.BaseRequest) -> bool:
    """Whether nothing of an answer is out, and the writer is not set up for its kind of body."""
    return (
        request.writer.output_size == 0
        and isinstance(begun, web.Response)
        and not begun.chunked
        and (begun.body is None or isinstance(begun.body, bytes | bytearray))
    )


def http_exception_response(raised: web.HTTPException, context: RequestContext) -> web.Response:
    """What aiohttp or a plain handler raised: errors as problems, redirects as they are."""
    if raised.status < 400 or raised.content_type == PROBLEM_TYPE:
        answer = web.Response(status=raised.status, reason=raised.reason, body=raised.body)
        answer.headers.clear()
        kept = set()
    else:
        default = f"{raised.status}: {raised.reason}"
        detail = raised.text if raised.text and raised.text != default else raised.reason
        answer = problem_response(Problem(raised.status, detail), context)
        kept = {"content-type", "content-length"}
    for name, value in raised.headers.items():
        if name.lower() not in kept:
            answer.headers.add(name, value)
    answer.cookies.update(raised.cookies)
    return answer
