"""What is true of the request in hand: its id, its trace and the feature that answers it.

One `RequestContext` is made for each request and kept in a context variable, so that every
log line written on the way, also from `asyncio.to_thread`, names the request it belongs to.
"""

import re
import time
from contextvars import ContextVar
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

# What a client may choose as its request id: printable, short, and harmless in a log or a shell.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._~:@/+=-]{1,128}")
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
# Its own: a feature that seeds the one of everybody would have ids come again.
getrandbits = Random().getrandbits  # noqa: S311 - they are no secrets # nosec B311
_KNOWN_FLAGS = 0b11
# An id of zeros is invalid (W3C Trace Context, 3.2.2): one bit of each is always set.
_NO_ZERO_IDS = 1 << 64 | 1


class TraceContext(NamedTuple):
    """A position in a distributed trace, as W3C Trace Context names its parts."""

    trace_id: str
    span_id: str
    flags: str


@dataclass(slots=True, eq=False)
class RequestContext:
    """The request in hand; equal to itself alone.

    Attributes:
        request_id: the client's `X-Request-ID` where it is well-formed, else 32 hex digits.
        trace_id: 32 hex digits, the caller's where it sent a `traceparent`.
        span_id: 16 hex digits, this request's own.
        trace_flags: 2 hex digits, the caller's, else "00": nobody has decided to record it.
        started: `time.perf_counter()` when the request was taken up, in seconds.
        feature: the name of the feature that answers, None before a route is found.
        route: the path template that matched, None where none did.
        answer: the response whose headers are on their way, None before; aiohttp's, and untyped
            because this module knows no web server.
        is_overdue: whether its handler was cancelled because it took too long.
    """

    request_id: str
    trace_id: str
    span_id: str
    trace_flags: str
    started: float
    feature: str | None = None
    route: str | None = None
    answer: object | None = None
    is_overdue: bool = False

    @property
    def traceparent(self) -> str:
        """This request as the `traceparent` of what it calls, and of its answer."""
        return f"00-{self.trace_id}-{self.span_id}-{self.trace_flags}"


_current: ContextVar[RequestContext | None] = ContextVar("petsage_request", default=None)

current_request = _current.get
"""The context of the request in hand, None outside of one."""

set_current_request = _current.set
"""Makes a context that of the running task; each request runs in a task of its own."""


def parse_traceparent(header: str) -> TraceContext | None:
    """The trace context that `header` carries, or None where it carries none.

    Args:
        header: a W3C `traceparent`, 55 ASCII characters ("00-<32 hex>-<16 hex>-<2 hex>");
            versions after 00 may be longer.

    A malformed header counts as none: the request starts a trace of its own.
    Of its flags only those that have a meaning are kept: sampled (1) and random (2).
    Source: W3C Trace Context Level 2, section 3.2.
    """
    match = _TRACEPARENT.fullmatch(header)
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if version == "ff" or (version == "00" and rest is not None):
        return None
    if trace_id == "0" * 32 or span_id == "0" * 16:
        return None
    return TraceContext(trace_id, span_id, f"{int(flags, 16) & _KNOWN_FLAGS:02x}")


def new_request_context(
    request_id: str | None = None, traceparent: str | None = None
) -> RequestContext:
    """The context of a request that begins now.

    Args:
        request_id: the `X-Request-ID` header; one that is not well-formed (1 to 128 letters,
            digits or `._~:@/+=-`) is replaced.
        traceparent: the header of that name; a malformed one counts as none.
    """
    # One draw for all three: it costs as much as one of them.
    drawn = (getrandbits(320) | _NO_ZERO_IDS).to_bytes(40).hex()
    if request_id is None or _REQUEST_ID.fullmatch(request_id) is None:
        request_id = drawn[:32]
    trace_id, span_id, flags = drawn[32:64], drawn[64:], "00"
    if traceparent is not None:
        trace = parse_traceparent(traceparent)
        if trace is not None:
            trace_id, flags = trace.trace_id, trace.flags
    return RequestContext(request_id, trace_id, span_id, flags, time.perf_counter())
