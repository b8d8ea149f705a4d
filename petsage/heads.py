"""The heads of requests that came before, so that the same bytes are not parsed again and again.

A client that asks often, or a monitor, sends the same head each time: a quarter of what it costs
to answer one is to take it apart.
"""

from typing import Any, Final

from aiohttp.http import RawRequestMessage

MAX_HEADS: Final = 512
"""So many of a kind are kept; with one more, all of that kind are let go."""

MAX_HEAD_BYTES: Final = 1024
"""A longer one is not kept."""

_END: Final = b"\r\n\r\n"

_HARMLESS: Final = frozenset(
    (
        *(b"accept", b"accept-charset", b"accept-encoding", b"accept-language", b"cache-control"),
        *(b"connection", b"content-length", b"content-type", b"dnt", b"host", b"pragma"),
        *(b"if-none-match", b"priority", b"sec-fetch-dest", b"sec-fetch-mode", b"sec-fetch-site"),
        *(b"sec-fetch-user", b"sec-gpc", b"te", b"upgrade-insecure-requests", b"user-agent"),
        b"via",
    )
)
"""The names of headers that tell no secret, and no person; a head with another is not kept."""


class Heads(dict[bytes, RawRequestMessage]):
    """What the parser made of heads, by their bytes, for all connections of a server.

    Three kinds are kept, so that none drives out another.

    Attributes:
        refused: of requests that nothing answers: whoever looks for holes sends many.
        with_bodies: of requests with bodies, and how many bytes follow.
    """

    def __init__(self) -> None:
        self.refused: dict[bytes, RawRequestMessage] = {}
        self.with_bodies: dict[bytes, tuple[RawRequestMessage, int]] = {}

    def find(self, data: bytes) -> RawRequestMessage | None:
        """What a whole request without a body was made of; None where it is not known.

        Args:
            data: all of a packet.
        """
        if len(data) > MAX_HEAD_BYTES:
            return None
        return self.get(data) or self.refused.get(data)

    def find_with_body(self, data: bytes) -> tuple[RawRequestMessage, bytes] | None:
        """What a whole request with a body was made of, and that body; None where it is not known.

        Args:
            data: all of a packet.
        """
        end = data.find(_END, 0, MAX_HEAD_BYTES) + len(_END)
        known = self.with_bodies.get(data[:end])
        if known is None or len(data) - end != known[1]:
            return None
        return known[0], data[end:]

    def keep(
        self, data: bytes, message: RawRequestMessage, body: bytes, *, is_refused: bool
    ) -> None:
        """Keeps one, unless it is long, or has what may be a secret, or new each time.

        Args:
            data: all of a packet, which was one whole request without a query.
            message: what the parser made of its head.
            body: what follows that.
            is_refused: whether nothing answers it.
        """
        head = data.removesuffix(body)
        if len(head) > MAX_HEAD_BYTES:
            return
        for name, _ in message.raw_headers:
            if name.lower() not in _HARMLESS:
                return
        if not body:
            kept = self.refused if is_refused else self
            self._make_room(kept)
            kept[head] = message
        elif head.endswith(_END):
            self._make_room(self.with_bodies)
            self.with_bodies[head] = message, len(body)

    @staticmethod
    def _make_room(kept: dict[bytes, Any]) -> None:
        if len(kept) >= MAX_HEADS:
            kept.clear()
