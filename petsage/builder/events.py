"""What is told of a build while it goes on, and what ends it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from petsage.errors import PetSageError

Stage = Literal["decode", "prepare", "write", "check", "test", "probe", "publish", "undo"]
"""Where a build stands: the request is read, the tools are looked for, files are written, …"""


@dataclass(frozen=True)
class Event:
    """One thing that has happened; a line for people, an object for machines.

    Attributes:
        label: what the line begins with, in capitals: "STATUS", "FEATURE REQUEST".
        text: what stands behind the colon; a line without one where it is empty.
        data: the same, and more, as JSON values, for machines.
    """

    label: str
    text: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


Tell = Callable[[Event], None]


class BuildError(PetSageError):
    """A feature is not built, or not taken back; nothing of it is left behind.

    Args:
        problem: one line that names the place and shows the value.
        fix: the next step, as an imperative.
        stage: where it happened.
        details: further lines: what a tool has printed.
    """

    def __init__(
        self, problem: str, *, fix: str, stage: Stage, details: tuple[str, ...] = ()
    ) -> None:
        super().__init__(problem, fix=fix)
        self.stage = stage
        self.details = details


def tell_failure(what: str, error: BuildError, tell: Tell) -> None:
    """Tells why something has failed, and what to do.

    Args:
        what: what has failed: "BUILD".
        error: why.
        tell: is called with each event; the first has all of it for machines.
    """
    details = [line for text in error.details for line in text.splitlines()]
    data = {"stage": error.stage, "reason": error.problem, "fix": error.fix, "details": details}
    tell(Event("STATUS", f"{what} FAILED", data))
    tell(Event("STAGE", error.stage))
    tell(Event("REASON", error.problem))
    tell(Event("FIX", error.fix))
    for line in details:
        tell(Event("DETAIL", line))
