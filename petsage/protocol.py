"""What of HTTP/1.1 the parser does not see to: which requests are refused, and with which status.

The parser refuses most of what is not well-formed, but always with a 400, and it lets through what
RFC 9110 and RFC 9112 forbid an origin server to. docs/protocol.md has each of their clauses.
"""

import re
from ipaddress import IPv6Address
from typing import Final

from aiohttp import hdrs
from aiohttp.http import HttpVersion10, HttpVersion11, RawRequestMessage
from aiohttp.http_exceptions import BadHttpMethod, ContentEncodingError, LineTooLong
from multidict import istr
from yarl import URL

from petsage.errors import Problem

HEAD_FACTOR: Final = 4
"""A whole head may be so many times as long as its longest line."""

_HOST: Final = istr(hdrs.HOST)
_CONTENT_LENGTH: Final = istr(hdrs.CONTENT_LENGTH)
_TRANSFER_ENCODING: Final = istr(hdrs.TRANSFER_ENCODING)
_CONTENT_ENCODING: Final = istr(hdrs.CONTENT_ENCODING)
_CONTENT_RANGE: Final = istr(hdrs.CONTENT_RANGE)

_NAME: Final = re.compile(r"(?:[A-Za-z0-9._~-]|%[0-9A-Fa-f]{2}){1,255}(?::([0-9]{0,5}))?")
_ADDRESS: Final = re.compile(r"\[([0-9A-Fa-f:.]{2,45})\](?::([0-9]{0,5}))?")
_LINE: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) +([^\s]+) HTTP/([0-9])\.([0-9])")
_FOREIGN: Final = re.compile(rb"[\r\n]*[A-Z_]+ +[^\s]+ (?:RTSP|ICE)/")
# The last of these is Icecast's, and comes with a version of its own.
_NO_CODING: Final = frozenset(("", "identity"))
_NEVER: Final = frozenset(("CONNECT", "TRACE", "SOURCE"))
_HTTP: Final = frozenset(("http", "https"))

_MANY_DIGITS: Final = 1_000
_MAX_GOOD: Final = 512
good_hosts: Final[set[str | None]] = set()
"""Values of `Host` that have been found to be good: mostly, there is one."""


def is_authority(value: str) -> bool:
    """Whether a `Host` is one: a name or an address, and perhaps a port; no user, list or path.

    The grammar of URIs would allow a list (`a,b`) as a name; no name in use is one.
    """
    if value in good_hosts:
        return True
    match = _NAME.fullmatch(value)
    if match is not None:
        port = match[1]
    else:
        match = _ADDRESS.fullmatch(value)
        if match is None:
            return False
        port = match[2]
        try:
            IPv6Address(match[1])
        except ValueError:
            return False
    if port and int(port) > 65535:
        return False
    if len(good_hosts) >= _MAX_GOOD:
        good_hosts.clear()
    good_hosts.add(value)
    return True


def refusal(
    message: RawRequestMessage, max_body_bytes: int, *, is_from_proxy: bool = False
) -> Problem | None:
    """Why a request that was parsed is not answered; the connection ends with the refusal.

    Longer than 40 lines: a list of reasons, one after another.

    Args:
        message: what the parser has made of it.
        max_body_bytes: the longest body.
        is_from_proxy: whether a proxy that is trusted says it.
    """
    version, headers, path = message.version, message.headers, message.path
    coding = headers.get(_TRANSFER_ENCODING)
    if version != HttpVersion11:
        if version != HttpVersion10:
            return wrong_version()
        if coding is not None:
            return Problem(400, "HTTP/1.0 has no `Transfer-Encoding`")
    host = headers.get(_HOST)
    # HTTP/1.1 without one does not come through the parser.
    if host is not None and not is_authority(host):
        return Problem(400, "The `Host` names no host")
    if message.method in _NEVER:
        return Problem(501, "No resource here answers this method")
    if path[:1] != "/" or "#" in path:
        wrong = _wrong_target(message, is_from_proxy=is_from_proxy)
        if wrong is not None:
            return wrong
    if coding is not None and coding.lower() != "chunked":
        return Problem(501, "The only transfer coding that is understood is `chunked`")
    encoding = headers.get(_CONTENT_ENCODING)
    if encoding is not None and not _is_decoded(message, encoding):
        return wrong_encoding()
    length = headers.get(_CONTENT_LENGTH)
    if length is not None and length_of(length) > max_body_bytes:
        return Problem(413, f"The body may have {max_body_bytes} bytes at most")
    if message.method == "PUT" and _CONTENT_RANGE in headers:
        return Problem(400, "A part of a resource cannot be PUT")
    return None


def _wrong_target(message: RawRequestMessage, *, is_from_proxy: bool) -> Problem | None:
    """Why a target that is no mere path is refused."""
    path = message.path
    if path[:1] != "/" and path != "*":
        if not _is_absolute(message.url):
            return Problem(400, "The request's target is none that a server has")
        if message.url.scheme == "https" and not is_from_proxy:
            return Problem(421, "What is asked for by https is not answered without TLS")
    if "#" in path:
        return Problem(400, "The request's target has a fragment, which is the client's own")
    return None


def length_of(value: str) -> int:
    """What a `Content-Length` says that the parser let through: digits, and any number of zeros.

    Python refuses to read a number of 4,300 digits, be they zeros.
    """
    return int(value if len(value) < _MANY_DIGITS else value.lstrip("0") or "0")


def keeps_alive(message: RawRequestMessage) -> bool:
    """Whether a request of HTTP/1.0 asks that its connection goes on.

    `close` beats whatever is beside it, and what a client means for its proxy counts for nothing:
    one that knows neither passes it on (RFC 9112, appendix C.2.2). The parser takes the first of
    `keep-alive, close`, and `Proxy-Connection` for `Connection`.
    """
    lines = message.headers.getall(hdrs.CONNECTION, ())
    asked = {each.strip(" \t").lower() for line in lines for each in line.split(",")}
    return "keep-alive" in asked and "close" not in asked


def wrong_version() -> Problem:
    """The answer to what is spoken in another protocol, or version of it."""
    return Problem(505, "The server speaks HTTP/1.1")


def wrong_encoding() -> Problem:
    """The answer to a body in a content coding that is not taken off it."""
    return Problem(
        415,
        "The body's content coding is none that is understood, or there are several",
        headers={hdrs.ACCEPT_ENCODING: "gzip, deflate"},
    )


def _is_decoded(message: RawRequestMessage, encoding: str) -> bool:
    """Whether a body comes to its handler without what its `Content-Encoding` says was done to it.

    The parser takes one coding off, and gives a body in others for what it is not.
    """
    if len(message.headers.getall(_CONTENT_ENCODING)) > 1:
        return False
    return message.compression is not None or encoding.strip(", ").lower() in _NO_CODING


def is_foreign(head: bytes) -> bool:
    """Whether a request begins as one of RTSP or ICE, which the parser takes for HTTP/1.0."""
    return _FOREIGN.match(head) is not None


def head_bytes(message: RawRequestMessage) -> int:
    """How long a request's head was, but for its first line's method and version."""
    return len(message.path) + sum(
        len(name) + len(value) + 4 for name, value in message.raw_headers
    )


def fault(head: bytes, error: BaseException, max_line: int, max_count: int) -> Problem:
    """What is wrong with a request that could not be parsed; nothing of it is echoed.

    Args:
        head: what came of it, from its first byte on.
        error: what the parser says.
        max_line: how long one line may be, in bytes.
        max_count: how many headers there may be.
    """
    line, has_end, fields = head.lstrip(b"\r\n").partition(b"\r\n")
    if isinstance(error, LineTooLong):
        if has_end and len(line) <= max_line:
            return too_much("A header")
        return Problem(414, "The request's target is too long")
    match = _LINE.fullmatch(line)
    if match is not None:
        if (match[3], match[4]) not in {(b"1", b"0"), (b"1", b"1")}:
            return wrong_version()
        if isinstance(error, ContentEncodingError):
            return wrong_encoding()
        if isinstance(error, BadHttpMethod):
            return Problem(501, "No resource here answers this method")
        if fields.partition(b"\r\n\r\n")[0].count(b"\r\n") >= max_count:
            return too_much("The head")
    return Problem(400, "The request is not well-formed HTTP")


def too_much(what: str) -> Problem:
    """The answer to a head that is too long, or has too many lines."""
    return Problem(431, f"{what} is larger than the server takes")


def _is_absolute(url: URL) -> bool:
    """Whether a target in absolute form is one of a web server, and no more than that."""
    if url.scheme not in _HTTP or url.raw_user is not None or url.raw_password is not None:
        return False
    return is_authority(url.raw_authority)
