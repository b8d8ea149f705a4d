"""The heads of requests that came before, so that the same bytes are not parsed again and again.

A client that asks often, or a monitor, sends the same head each time: a quarter of what it costs
to answer one is to take it apart.
"""

from typing import Final

from aiohttp.http import RawRequestMessage

MAX_HEADS: Final = 512
"""So many are kept; with one more, all are let go."""

MAX_HEAD_BYTES: Final = 1024
"""A longer one is not kept."""

_HARMLESS: Final = frozenset(
    (
        *(b"accept", b"accept-charset", b"accept-encoding", b"accept-language", b"cache-control"),
        *(b"connection", b"dnt", b"host", b"pragma", b"priority", b"sec-fetch-dest"),
        *(b"sec-fetch-mode", b"sec-fetch-site", b"sec-fetch-user", b"sec-gpc", b"te"),
        *(b"upgrade-insecure-requests", b"user-agent", b"via"),
    )
)
"""The names of headers that tell no secret, and no person; a head with another is not kept."""


class Heads(dict[bytes, RawRequestMessage]):
    """What the parser made of heads, by their bytes, for all connections of a server."""

    def keep(self, data: bytes, message: RawRequestMessage) -> None:
        """Keeps one, unless it is long, or has what may be a secret, or new each time.

        Args:
            data: all of a packet, which was one whole request without a query and a body.
            message: what the parser made of it.
        """
        if len(data) > MAX_HEAD_BYTES:
            return
        for name, _ in message.raw_headers:
            if name.lower() not in _HARMLESS:
                return
        if len(self) >= MAX_HEADS:
            self.clear()
        self[data] = message
