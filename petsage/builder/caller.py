"""A request as a caller makes it, and its answer."""

import asyncio
import http.client
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from petsage.builder.toolbox import AT_FAULT

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
        location: where something is that was added; empty where it is not said.
        tag: its `ETag`; empty where it has none.
    """

    where: str
    status: int
    kind: str
    marker: str
    body: bytes
    location: str = ""
    tag: str = ""

    def __str__(self) -> str:
        text = self.body.decode("utf-8", "replace")
        shown = f"{text[:_SHOWN_LETTERS]}…" if len(text) > _SHOWN_LETTERS else text
        return f"{self.where} is answered {self.status}, {self.kind}: {shown}"


class Fault(Exception):  # noqa: N818 - said of the feature
    """Something is not as planned; the words say what, and `fix` what to do."""

    def __init__(self, words: str, fix: str = AT_FAULT) -> None:
        super().__init__(words)
        self.fix = fix


def require(holds: bool, otherwise: str) -> None:
    """Requires that something is as planned; the words say what it is otherwise.

    Raises:
        Fault: it is not.
    """
    if not holds:
        raise Fault(otherwise)


def parsed(answer: Answer) -> Any:
    """The JSON of an answer.

    Raises:
        Fault: it is none.
    """
    try:
        return json.loads(answer.body)
    except ValueError:
        raise Fault(f"{answer}, which is no JSON") from None


async def ask(
    port: int,
    method: str,
    path: str,
    *,
    body: Any = None,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> Answer:
    """The answer to one request on a connection of its own, to a port of this machine.

    Args:
        port: the server's.
        method: in capitals.
        path: plain ASCII.
        body: what is sent as JSON; nothing where it is None.
        headers: what is said besides.

    Raises:
        OSError: there is no connection, or it breaks.
        http.client.HTTPException: what comes is no answer.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        data = b"" if body is None else json.dumps(body).encode()
        said = {"Host": f"127.0.0.1:{port}", "Connection": "close"}
        if body is not None:
            said |= {"Content-Type": "application/json", "Content-Length": str(len(data))}
        lines = "".join(f"{name}: {text}\r\n" for name, text in {**said, **headers}.items())
        writer.write(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode("ascii") + data)
        received = _Received(await reader.read())
    finally:
        writer.close()
    response = http.client.HTTPResponse(received, method=method)  # type: ignore[arg-type] # it has all that is asked of a socket
    response.begin()
    # Of a body where none may be, `http.client` would say nothing.
    received_body = received.file.read() if method == "HEAD" else response.read()
    kind = response.headers.get("Content-Type", "of no type")
    marker = response.headers.get(MARKER, "")
    location, tag = (response.headers.get(name, "") for name in ("Location", "ETag"))
    return Answer(f"{method} {path}", response.status, kind, marker, received_body, location, tag)


def invalid_part(document: Any) -> str | None:
    """Where a document is no valid OpenAPI 3.1, and why; None where it is valid."""
    from openapi_spec_validator import OpenAPIV31SpecValidator  # noqa: PLC0415 - of an extra

    error = next(iter(OpenAPIV31SpecValidator(document).iter_errors()), None)
    if error is None:
        return None
    return f"{'/'.join(map(str, error.absolute_path)) or 'its root'}: {error.message}"


def unlike_schema(
    body: Any, path: str, document: Any, *, method: str = "GET", status: int = 200
) -> str | None:
    """What of an answer is not as the document says; None where all of it is.

    Args:
        body: the answer's.
        path: as the document has it, with names of parameters.
        document: OpenAPI's.
        method: of the request.
        status: of the answer.
    """
    from jsonschema import Draft202012Validator  # noqa: PLC0415 - of an extra
    from jsonschema.exceptions import best_match  # noqa: PLC0415 - of an extra

    try:
        answers = document["paths"][path][method.lower()]["responses"]
        content = answers[str(status)]["content"]
        schema = content["application/json" if status < 400 else "application/problem+json"][
            "schema"
        ]
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
