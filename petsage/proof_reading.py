"""Holds an answer's proof against the log: is it true what the answer says?"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NoReturn

import pytest
from aiohttp import ClientResponse
from pydantic import TypeAdapter, ValidationError

from petsage.log_search import MarkerSearch, SearchError, neighbours_of
from petsage.logs.receipts import Receipt, SinkReceipt
from petsage.settings import SinkSettings

_RECEIPT: Final = TypeAdapter(Receipt)


async def read_proof(response: ClientResponse, sinks: dict[str, SinkSettings]) -> Receipt:
    """The proof in an answer, when all of it is true.

    Args:
        response: of an endpoint that answers with a `proof`, as the smoke test does.
        sinks: the settings of every sink.

    Fails the test where the answer has no proof, where body, header and status disagree, where it
    leaves a sink out, or where a file does not hold the line as often as the answer says: once
    where it is written, never where it was dropped or filtered. Streams are not looked into.
    """
    fields = await _fields_of(response)
    try:
        receipt = _RECEIPT.validate_python(fields["proof"])
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        _fail(response, f"its `proof.{place}` is {first['input']!r}: {first['msg']}")
    for lie in _lies(response, fields, receipt, sinks):
        _fail(response, lie)
    return receipt


async def _fields_of(response: ClientResponse) -> dict[str, Any]:
    body = await response.read()
    try:
        fields = await response.json()
    except ValueError:
        fields = None
    if not isinstance(fields, dict) or "proof" not in fields:
        _fail(response, f"it has no `proof`: {body[:200]!r}")
    return fields


def _lies(
    response: ClientResponse,
    fields: dict[str, Any],
    receipt: Receipt,
    sinks: dict[str, SinkSettings],
) -> Iterator[str]:
    header = response.headers.get("X-Log-Marker")
    if header != receipt.marker:
        yield f"its header X-Log-Marker is {header!r}, and `proof.marker` {receipt.marker!r}"
    expected = {name: sink.required for name, sink in sinks.items()}
    told = {sink.name: sink.required for sink in receipt.sinks}
    if told != expected or len(told) != len(receipt.sinks):
        yield f"its sinks (and whether they are required) are {told}, and those there {expected}"
    missing = receipt.missing
    right = (200, "ok") if missing is None else (503, "fail")
    if (response.status, fields.get("status")) != right:
        why = "every required sink has the line" if missing is None else _told(missing)
        yield f"it is {response.status} {fields.get('status')!r}, while {why}"
    if missing is not None and missing.name not in str(fields.get("message")):
        yield f"its message does not name the sink {missing.name}: {fields.get('message')!r}"
    yield from _lies_about_lines(receipt, sinks)


def _lies_about_lines(receipt: Receipt, sinks: dict[str, SinkSettings]) -> Iterator[str]:
    """Counts the lines in each file: two sinks of one file have a line each."""
    try:
        search = MarkerSearch(receipt.marker)
    except SearchError as error:
        yield str(error)
        return
    by_file: dict[Path, list[SinkReceipt]] = {}
    for sink in receipt.sinks:
        path = sinks[sink.name].path
        if path is not None:
            by_file.setdefault(path.absolute(), []).append(sink)
    for path, told in by_file.items():
        if not {sink.state for sink in told} <= {"written", "dropped", "filtered"}:
            continue  # what failed in part, or in time, may be there or not
        written = sum(sink.state == "written" for sink in told)
        found = sum(search.count_in(file.read_bytes()) for file in _files_of(path))
        if found != written:
            states = "; ".join(_told(sink) for sink in told)
            yield f"{path} has the line {found} times and not {written}, while {states}"


def _files_of(path: Path) -> list[Path]:
    """The file and its rotated neighbours; a device or a pipe holds nothing to be read."""
    return [each for each in (path, *neighbours_of(path)) if each.is_file()]


def _told(sink: SinkReceipt) -> str:
    return f"the sink {sink.name} is said to be `{sink.state}`"


def _fail(response: ClientResponse, lie: str) -> NoReturn:
    pytest.fail(f"the answer of {response.url.path} does not hold: {lie}", pytrace=False)
