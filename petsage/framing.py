"""Whether an answer is as long as it says: else its client waits, or takes the rest for another."""

from typing import Any

from aiohttp import hdrs, web

from petsage.response import NO_LENGTH


def require_framing(request: web.Request, response: web.StreamResponse) -> None:
    """Refuses what a client would take for more, or less, than it is, or for two answers.

    Raises:
        ValueError: the headers say of the body what it is not.
    """
    headers = response.headers
    declared = headers.get(hdrs.CONTENT_LENGTH)
    if declared is None:
        return
    if hdrs.TRANSFER_ENCODING in headers or len(headers.getall(hdrs.CONTENT_LENGTH)) > 1:
        raise ValueError("an answer says in two ways how long it is; fix: leave both to the server")
    if not (declared.isascii() and declared.isdigit()):
        raise ValueError(f"an answer's Content-Length is {declared!r:.80}, and no number of bytes")
    body = response.body if isinstance(response, web.Response) else None
    if not isinstance(body, bytes | bytearray) or request.method == hdrs.METH_HEAD:
        return
    compressed: Any = getattr(response, "_compressed_body", None)  # it has no public name
    length = len(body if compressed is None else compressed)
    if int(declared) != length:
        raise ValueError(
            f"an answer of {length} bytes says {declared} in its Content-Length; fix: leave it out"
        )


def ends_with_connection(response: web.StreamResponse) -> bool:
    """Whether the end of an answer to HTTP/1.0 can be told by the connection's alone."""
    return hdrs.CONTENT_LENGTH not in response.headers and not response._must_be_empty_body


def require_whole(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Refuses an answer that has ended before its end; what is one piece was looked at before.

    Raises:
        ValueError: its client still waits for bytes of it.
    """
    # The writer counts what is written, and not what ends it; nor what the kernel takes of a file.
    if not getattr(request.writer, "length", None) or isinstance(response, web.FileResponse):
        return
    if isinstance(response, web.Response) and isinstance(response.body, bytes | bytearray):
        return
    if request.method == hdrs.METH_HEAD or response.status in NO_LENGTH:
        return
    if request.transport is None or request.transport.is_closing():
        return  # it was broken off, and its client does not wait
    lines = [f"{name}: {value}\r\n" for name, value in response.headers.items()]
    head = f"HTTP/1.1 {response.status} {response.reason}\r\n{''.join(lines)}\r\n"
    declared = int(response.headers.get(hdrs.CONTENT_LENGTH, 0))
    sent = request.writer.output_size - len(head.encode())
    if sent < declared:
        raise ValueError(f"an answer says {declared} in its Content-Length, and ended after {sent}")
