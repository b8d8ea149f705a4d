"""What PetSage must know of aiohttp's inside, all of it, looked at once before the server starts.

aiohttp's public names let nobody end a connection in time, or answer straight from the parser. So
connections rest on private ones, which another version may rename without a word. Here that
becomes one line at the start, and not a fault in the middle of the night.
"""

import inspect
from collections.abc import Iterator
from importlib.metadata import version
from types import ModuleType
from typing import Any, Final

import aiohttp._cookie_helpers
import aiohttp.compression_utils
import aiohttp.http_parser
import aiohttp.http_writer
import aiohttp.streams
import aiohttp.web
import aiohttp.web_protocol
from aiohttp.http import HttpVersion10
from aiohttp.http_exceptions import BadHttpMethod, HttpProcessingError, LineTooLong

from petsage.errors import StartError

# What a connection has: `RequestHandler` and what it inherits from.
_OF_A_CONNECTION: Final = (
    *("_buffer_paused", "_close", "_current_request", "_drain_helper", "_force_close"),
    *("_handle_request", "_handler_waiter", "_keepalive_handle", "_keepalive_timeout", "_loop"),
    *("_manager", "_max_msg_queue_size", "_message_tail", "_messages"),
    *("_next_keepalive_close_time", "_parser", "_pause_transport_reading", "_paused"),
    *("_payload_parser", "_process_keepalive", "_read_bufsize", "_reading_paused"),
    *("_request_count", "_request_factory", "_request_in_progress"),
    *("_resume_transport_reading", "_upgraded"),
    *(
        "_task_handler",
        "_tcp_keepalive",
        "_waiter",
        "access_logger",
        "close",
        "data_received",
        "finish_response",
        "force_close",
    ),
    *("handle_error", "log_access", "log_exception", "max_field_size", "max_headers"),
    *("max_line_size", "peername", "set_parser", "shutdown", "start", "transport"),
)
# What the methods that are overridden, or called, take.
_SIGNATURES: Final = {
    "_handle_request": ("self", "request", "start_time", "request_handler"),
    "finish_response": ("self", "request", "resp", "start_time"),
    "handle_error": ("self", "request", "status", "exc", "message"),
    "log_access": ("self", "request", "response", "time"),
}
# What the methods of aiohttp's own look at: overriding them would have no effect where not.
_CALLS: Final = {
    # It is done again, in another task.
    "connection_made": (
        *("_keepalive_handle", "_keepalive_timeout", "_manager", "_next_keepalive_close_time"),
        *("_process_keepalive", "_task_handler", "connection_made", "start", "tcp_keepalive"),
    ),
    "connection_lost": ("_task_handler",),
    "shutdown": ("_task_handler",),
    "data_received": ("_messages", "_request_count", "_waiter", "_upgraded", "_force_close"),
    "start": ("_waiter", "_messages", "_request_factory", "_handle_request", "message_consumed"),
    "pause_reading": ("_pause_transport_reading",),
    "resume_reading": ("_resume_transport_reading",),
    "_handle_request": ("_current_request", "_handler_waiter", "finish_response"),
}
_OF_UNPACKING: Final = ("decompressor", "encoding", "feed_eof", "out", "size")
_OF_A_REQUEST: Final = (
    *("_cache", "_match_info", "_message", "_task", "content", "protocol", "rel_url", "remote"),
    *("task", "transport", "writer"),
)
_OF_A_RESPONSE: Final = (
    *("_chunked", "_compression", "_cookies", "_eof_sent", "_keep_alive", "_must_be_empty_body"),
    *("_payload_writer", "_req", "_set_status", "_start", "_write_headers", "write_eof"),
)
_OF_AN_APPLICATION: Final = ("_client_max_size", "_handle", "_make_request")
_OF_A_RUNNER: Final = ("_make_server", "_shutdown_timeout")
_OF_A_MESSAGE: Final = (
    *(
        "_replace",
        "chunked",
        "compression",
        "headers",
        "method",
        "path",
        "raw_headers",
        "should_close",
    ),
    *("upgrade", "url", "version"),
)
_OF_A_BODY: Final = (
    "_protocol",
    "exception",
    "is_eof",
    "read_nowait",
    "set_exception",
    "total_bytes",
)


def require_known_aiohttp() -> None:
    """Holds the aiohttp that is installed to all that the server rests on; it takes a millisecond.

    Raises:
        StartError: it lacks something, or parses in Python.
    """
    installed = f"aiohttp {version('aiohttp')}"
    if aiohttp.http_parser.HttpRequestParser is aiohttp.http_parser.HttpRequestParserPy:
        raise StartError(
            f"{installed} parses in Python: slowly, and letting through what it must not",
            fix="unset AIOHTTP_NO_EXTENSIONS, or install a build with its C extensions: "
            "pip install --force-reinstall --only-binary aiohttp aiohttp",
        )
    fault = next(_faults(), None)
    if fault is not None:
        raise StartError(
            f"{installed} is none that PetSage can serve with: {fault}",
            fix="install one that it allows: pip install --upgrade petsage",
        )


def _faults() -> Iterator[str]:
    """What is wrong; each depends on what was looked at before."""
    protocol = aiohttp.web_protocol
    yield from _absent(protocol, ("ERROR", "RequestHandler", "_ErrInfo"))
    connection = protocol.RequestHandler
    yield from _absent(connection, _OF_A_CONNECTION)
    yield from _absent(protocol._ErrInfo, ("exc", "message", "status"))
    yield from _absent(aiohttp.web.Request, _OF_A_REQUEST)
    yield from _absent(aiohttp.web.Response, _OF_A_RESPONSE)
    yield from _absent(aiohttp.web.Application, _OF_AN_APPLICATION)
    yield from _absent(aiohttp.web.AppRunner, _OF_A_RUNNER)
    yield from _absent(aiohttp.streams.StreamReader, _OF_A_BODY)
    yield from _absent(aiohttp.http_parser.RawRequestMessage, _OF_A_MESSAGE)
    yield from _absent(aiohttp.http_parser.DeflateBuffer, _OF_UNPACKING)
    yield from _absent(aiohttp.compression_utils.ZLibDecompressor, ("_decompressor",))
    yield from _absent(aiohttp._cookie_helpers, ("parse_cookie_header",))
    yield from _absent(aiohttp.http_writer.StreamWriter, ("output_size", "write_headers"))
    for name, wanted in _SIGNATURES.items():
        taken = tuple(inspect.signature(getattr(connection, name)).parameters)
        if taken != wanted:
            yield f"RequestHandler.{name} takes {', '.join(taken)}, not {', '.join(wanted)}"
    for name, wanted in _CALLS.items():
        known = getattr(connection, name).__code__.co_names
        for each in wanted:
            if each not in known:
                yield f"RequestHandler.{name} knows nothing of {each}"
    yield from _parsing_faults(aiohttp.http_parser.HttpRequestParser)


def _absent(owner: type | ModuleType, names: tuple[str, ...]) -> Iterator[str]:
    # What an object has by itself is only found in the code that gives it that.
    own = () if isinstance(owner, ModuleType) else _given_at_start(owner)
    for name in names:
        if not hasattr(owner, name) and name not in own:
            yield f"{owner.__name__} has no {name}"


def _given_at_start(owner: type) -> set[str]:
    """The names that the `__init__` of a class, and of what it inherits from, speak of."""
    inits = (vars(each).get("__init__") for each in owner.__mro__)
    return {name for init in inits if inspect.isfunction(init) for name in init.__code__.co_names}


class _Reader:
    """What a parser says to its connection."""

    _reading_paused = False

    def pause_reading(self) -> None:
        """Not wanted here: nothing is so long."""

    def resume_reading(self, *_: Any) -> None:
        """Not wanted here, either."""


def _parsing_faults(make: Any) -> Iterator[str]:
    """Has a parser take a few requests, as `parsing.py` and `protocol.py` rely on it."""

    def feed(data: bytes) -> Any:
        parser = make(_Reader(), None, 2**16, max_line_size=64, max_field_size=64, max_headers=8)
        messages, is_upgraded, tail = parser.feed_data(data)
        parser.message_consumed()
        return messages, is_upgraded, tail

    def refuses(data: bytes) -> BaseException | None:
        try:
            feed(data)
        except HttpProcessingError as error:
            return error
        return None

    messages, is_upgraded, _ = feed(b"GET /a HTTP/1.0\r\nHost: x\r\n\r\n")
    message, body = messages[0]
    if body is not aiohttp.streams.EMPTY_PAYLOAD or not body.is_eof() or is_upgraded:
        yield "a request without a body has one"
    if message.path != "/a" or message.version is not HttpVersion10:
        yield "a request's path and version are not as they came"
    if not isinstance(refuses(b"GETX / HTTP/1.1\r\nHost: x\r\n\r\n"), BadHttpMethod):
        yield "it has no error of its own for an unknown method"
    if not isinstance(refuses(b"GET /" + b"a" * 99 + b" HTTP/1.1\r\n"), LineTooLong):
        yield "it has no error of its own for a line that is too long"
    for data in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n",
    ):
        if refuses(data) is None:
            yield f"its parser lets through {data!r}"
