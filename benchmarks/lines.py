"""The lines that a server left, counted: a figure counts only where its log is complete."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.peers.words import LINE

APP_MESSAGE = LINE

# What each line has to say; a server may say it under any of these names, which are those that its
# own access logger or python-json-logger gives it, and may say more.
_COMMON: Final[dict[str, tuple[str, ...]]] = {
    "timestamp": ("timestamp", "asctime"),
    "level": ("level", "levelname"),
    "logger": ("logger", "name"),
    "message": ("message",),
}
_ACCESS: Final[dict[str, tuple[str, ...]]] = {
    **_COMMON,
    # aiohttp and Sanic have method and path in one field.
    "method": ("method", "first_request_line", "request"),
    "path": ("path", "first_request_line", "request"),
    "status": ("status", "response_status"),
    "remote": ("remote", "remote_address", "host"),
}
APP_FACTS: Final = tuple(_COMMON)
ACCESS_FACTS: Final = tuple(_ACCESS)
_WORSE: Final = frozenset({"WARNING", "ERROR", "CRITICAL"})


@dataclass(frozen=True)
class Lines:
    """What stands in a server's log.

    `invalid` lines are no JSON, or lack a fact of their kind; `not_200` access lines differ in
    their status; `warnings` are further lines that tell of something worse, such as lines that a
    full queue has dropped. The names of fields are those of one line of each kind.
    """

    app: int
    access: int
    invalid: int
    not_200: int
    warnings: int = 0
    app_fields: tuple[str, ...] = ()
    access_fields: tuple[str, ...] = ()

    def faults(self, *, answered: int, too_early: int, slack: int) -> list[str]:
        """Why these are not the lines of `answered` requests; nothing where they are.

        Args:
            answered: the answers that clients received.
            too_early: further ones, 503, of a server that was not ready.
            slack: the requests that may have been under way when wrk closed its connections.
        """
        faults = []
        for kind, count in (("app", self.app), ("access", self.access)):
            if not answered <= count <= answered + slack:
                faults.append(
                    f"{count} {kind} lines for {answered} answers (up to {slack} more allowed)"
                )
        if self.invalid:
            faults.append(
                f"{self.invalid} lines are no JSON object or lack one of: {', '.join(ACCESS_FACTS)}"
            )
        if self.not_200 != too_early:
            faults.append(
                f"{self.not_200} access lines with a status other than 200, for {too_early} answers"
            )
        if self.warnings:
            faults.append(f"{self.warnings} lines of it are warnings, or worse")
        return faults


def count_lines(
    folder: Path,
    *,
    access_logger: str,
    answered: frozenset[int] = frozenset({200}),
    path: str | None = None,
) -> Lines:
    """The lines of all files in `folder`, those of rotated files included.

    An access line whose status is none of `answered` is counted apart. With `path`, one that is
    not of a GET of that path is invalid.
    """
    counts: Counter[str] = Counter()
    fields: dict[str, tuple[str, ...]] = {}
    request = None if path is None else ("GET", path)
    for file in sorted(folder.iterdir()):
        with file.open("rb") as lines:
            for line in lines:
                kind, record = _kind(line, access_logger, answered, request)
                counts[kind] += 1
                if kind not in fields:
                    fields[kind] = tuple(record)
    return Lines(
        app=counts["app"],
        access=counts["access"],
        invalid=counts["invalid"],
        not_200=counts["not_200"],
        warnings=counts["warning"],
        app_fields=fields.get("app", ()),
        access_fields=fields.get("access", ()),
    )


def _kind(
    line: bytes, access_logger: str, answered: frozenset[int], request: tuple[str, str] | None
) -> tuple[str, dict[str, object]]:
    """What a line is, and its fields."""
    try:
        record = json.loads(line)
    except ValueError:
        return "invalid", {}
    if not isinstance(record, dict) or not line.endswith(b"\n"):
        return "invalid", {}
    if _fact(record, "logger") == access_logger:
        if any(_fact(record, fact) is None for fact in _ACCESS):
            return "invalid", record
        said = (str(_fact(record, "method")), str(_fact(record, "path")))
        if request is not None and not all(map(str.__contains__, said, request)):
            return "invalid", record
        return ("access" if _fact(record, "status") in answered else "not_200"), record
    if record.get("message") != APP_MESSAGE:
        return ("warning" if _fact(record, "level") in _WORSE else "other"), record
    return ("invalid" if any(_fact(record, fact) is None for fact in _COMMON) else "app"), record


def _fact(record: dict[str, object], fact: str) -> object:
    """What a line says of `fact`, under whichever name; None where it says nothing."""
    return next((record[name] for name in _ACCESS[fact] if name in record), None)
