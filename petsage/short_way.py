"""Which requests may be answered straight from the parser; docs/decisions/0009 says why these.

What is looked at here is the request alone: whose route it is, and whether the server has room for
it, whoever answers asks for himself.
"""

from typing import Final, TypeGuard

from aiohttp import hdrs
from aiohttp.http import HttpVersion11, RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import _ErrInfo
from multidict import istr

from petsage.protocol import good_hosts, is_authority
from petsage.response import JSON
from petsage.routing import METHODS

_CONTENT_ENCODING: Final = istr(hdrs.CONTENT_ENCODING)
_CONTENT_LENGTH: Final = istr(hdrs.CONTENT_LENGTH)
_CONTENT_TYPE: Final = istr(hdrs.CONTENT_TYPE)
_EXPECT: Final = istr(hdrs.EXPECT)
_HOST: Final = istr(hdrs.HOST)
_TRANSFER_ENCODING: Final = istr(hdrs.TRANSFER_ENCODING)

_METHODS: Final = frozenset(METHODS)


def is_plain(
    message: RawRequestMessage | _ErrInfo, payload: StreamReader
) -> TypeGuard[RawRequestMessage]:
    """Whether a request without a body asks for an answer, and for nothing else."""
    return (
        payload is EMPTY_PAYLOAD
        and not isinstance(message, _ErrInfo)
        # Either frames no body here, and must not be what it is.
        and _CONTENT_LENGTH not in message.headers
        and _is_usual(message)
    )


def has_plain_body(
    message: RawRequestMessage | _ErrInfo, payload: StreamReader, max_bytes: int
) -> TypeGuard[RawRequestMessage]:
    """Whether a request has a body of plain JSON, all of which is here, and asks for no more.

    Args:
        message: its head.
        payload: its body.
        max_bytes: the longest body.
    """
    return (
        payload is not EMPTY_PAYLOAD
        and not isinstance(message, _ErrInfo)
        and payload.is_eof()
        and payload.total_bytes <= max_bytes
        and not message.chunked
        and message.compression is None
        and message.headers.get(_CONTENT_TYPE) == JSON
        and _is_usual(message)
    )


def _is_usual(message: RawRequestMessage) -> bool:
    headers, path = message.headers, message.path
    if (
        message.should_close
        or message.upgrade
        or message.version != HttpVersion11
        or message.method not in _METHODS
        or path[:1] != "/"
        or "#" in path
        or _EXPECT in headers
        or _TRANSFER_ENCODING in headers
        or _CONTENT_ENCODING in headers
    ):
        return False
    host = headers.get(_HOST)
    return host in good_hosts or is_authority(host or "")
