"""The lines that a server left, counted: a figure counts only where its log is complete."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

APP_MESSAGE = "Smoke test endpoint executed successfully. Verifying logging pipeline."


@dataclass(frozen=True)
class Lines:
    """What stands in a server's log: `invalid` lines are no JSON, `not_200` access lines differ."""

    app: int
    access: int
    invalid: int
    not_200: int

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
            faults.append(f"{self.invalid} lines that are no JSON object")
        if self.not_200 != too_early:
            faults.append(
                f"{self.not_200} access lines with a status other than 200, for {too_early} answers"
            )
        return faults


def count_lines(
    folder: Path, *, access_logger: str, answered: frozenset[int] = frozenset({200})
) -> Lines:
    """The lines of all files in `folder`, those of rotated files included.

    An access line whose status is none of `answered` is counted apart.
    """
    counts: Counter[str] = Counter()
    for file in sorted(folder.iterdir()):
        with file.open("rb") as lines:
            counts.update(_kind(line, access_logger, answered) for line in lines)
    return Lines(
        app=counts["app"],
        access=counts["access"],
        invalid=counts["invalid"],
        not_200=counts["not_200"],
    )


def _kind(line: bytes, access_logger: str, answered: frozenset[int]) -> str:
    try:
        record = json.loads(line)
    except ValueError:
        return "invalid"
    if not isinstance(record, dict) or not line.endswith(b"\n"):
        return "invalid"
    # python-json-logger calls the logger `name`.
    if record.get("logger", record.get("name")) == access_logger:
        return "access" if record.get("status") in answered else "not_200"
    return "app" if record.get("message") == APP_MESSAGE else "other"
