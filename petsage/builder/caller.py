"""A request as a caller makes it, and its answer."""

import asyncio
import http.client
import io
from dataclasses import dataclass
from typing import Any, Final

MARKER: Final = "X-Log-Marker"
"""The header that says which line of the log a call has left."""

_SHOWN_LETTERS: Final = 500


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        where: method and path.
        kind: the content type.
        marker: that of its log line; empty where it names none.
    """

    where: str
    status: int
    kind: str
    marker: str
    body: bytes

    def __str__(self) -> str:
        text = self.body.decode("utf-8", "replace")
        shown = f"{text[:_SHOWN_LETTERS]}…" if len(text) > _SHOWN_LETTERS else text
        return f"{self.where} is answered {self.status}, {self.kind}: {shown}"


async def ask(port: int, method: str, path: str) -> Answer:
    """The answer to one request on a connection of its own, to a port of this machine.

    Raises:
        OSError: there is no connection, or it breaks.
        http.client.HTTPException: what comes is no answer.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        host = f"Host: 127.0.0.1:{port}\r\nConnection: close"
        writer.write(f"{method} {path} HTTP/1.1\r\n{host}\r\n\r\n".encode("ascii"))
        received = _Received(await reader.read())
    finally:
        writer.close()
    response = http.client.HTTPResponse(received, method=method)  # type: ignore[arg-type] # it has all that is asked of a socket
    response.begin()
    # Of a body where none may be, `http.client` would say nothing.
    body = received.file.read() if method == "HEAD" else response.read()
    kind = response.headers.get("Content-Type", "of no type")
    marker = response.headers.get(MARKER, "")
    return Answer(f"{method} {path}", response.status, kind, marker, body)


def invalid_part(document: Any) -> str | None:
    """Where a document is no valid OpenAPI 3.1, and why; None where it is valid."""
    from openapi_spec_validator import OpenAPIV31SpecValidator  # noqa: PLC0415 - of an extra

    error = next(iter(OpenAPIV31SpecValidator(document).iter_errors()), None)
    if error is None:
        return None
    return f"{'/'.join(map(str, error.absolute_path)) or 'its root'}: {error.message}"


def unlike_schema(body: Any, path: str, document: Any) -> str | None:
    """What of an answer is not as the document says; None where all of it is."""
    from jsonschema import Draft202012Validator  # noqa: PLC0415 - of an extra
    from jsonschema.exceptions import best_match  # noqa: PLC0415 - of an extra

    try:
        answers = document["paths"][path]["get"]["responses"]
        schema = answers["200"]["content"]["application/json"]["schema"]
    except KeyError as missing:
        return f"/openapi.json has no {missing} on the way to its schema"
    validator = Draft202012Validator(
        {**schema, "components": document["components"]},  # what references lead to
        format_checker=Draft202012Validator.FORMAT_CHECKER,
    )
    error = best_match(validator.iter_errors(body))
    return f"{error.json_path}: {error.message}" if error is not None else None


class _Received:
    """What was received, as a socket gives it."""

    def __init__(self, data: bytes) -> None:
        self.file = io.BytesIO(data)

    def makefile(self, _: str) -> io.BytesIO:
        """It, as a file."""
        return self.file
