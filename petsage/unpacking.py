"""Bodies that come packed have to come whole.

aiohttp notices of `deflate` alone that it ends too early; what came of a cut `gzip` until then was
a body like any other. It has no place to say otherwise, so this stands in one of its methods, for
our connections and no others: what features fetch by aiohttp's client is as it was.
"""

import gzip
from typing import Any, Final

from aiohttp.http_exceptions import ContentEncodingError
from aiohttp.http_parser import DeflateBuffer

# A whole member: only what waits for a new one makes of it what it says.
_TEXT: Final = b"x"
_MEMBERS: Final = {
    "gzip": gzip.compress(_TEXT, mtime=0),
    # RFC 8878, section 3.1.1: the magic number, a frame of one byte, and a last block that is raw.
    "zstd": bytes.fromhex("28b52ffd 2001 090000") + _TEXT,
}


def refuse_cut_bodies(connection: type) -> None:
    """Makes an error of a packed body that ends too early, on connections of this class."""
    given: Any = DeflateBuffer.feed_eof

    def feed_eof(buffer: Any) -> None:
        # Where nothing came, there is no one that it comes to.
        is_ours = buffer.size > 0 and isinstance(buffer.out._protocol, connection)
        if is_ours and not _is_whole(buffer):
            raise ContentEncodingError(f"{buffer.encoding} ends too early")
        given(buffer)

    DeflateBuffer.feed_eof = feed_eof  # type: ignore[assignment,method-assign] # no other


def _is_whole(buffer: Any) -> bool:
    """Whether what was unpacked is at an end; it cannot be fed after this."""
    unpacker = buffer.decompressor
    if buffer.encoding == "br":
        return bool(unpacker._obj.is_finished())
    member = _MEMBERS.get(buffer.encoding)
    if member is None:
        return True  # aiohttp looks by itself
    decompress = unpacker._decompressor.decompress
    try:
        # In two parts: zstd takes a whole member for one that begins, amid the head of another.
        return bool(decompress(member[:1]) + decompress(member[1:]) == _TEXT)
    except Exception as error:
        # Each library has errors of its own, and this is what they say of a member within another.
        raise ContentEncodingError(f"{buffer.encoding} ends too early") from error
