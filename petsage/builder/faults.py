"""What is wrong with a part of a request, with its place in it."""

from dataclasses import dataclass
from typing import Any

Within = tuple[str | int, ...]
"""Where below the part that is looked at: ("fields", "name", "pattern")."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        within: where.
        problem: what is wrong there, as half a sentence.
        fix: what to do about it.
        value: what stands there.
        is_value_shown: whether the value says anything that the place does not.
    """

    within: Within
    problem: str
    fix: str
    value: Any = None
    is_value_shown: bool = True


class FaultsError(ValueError):
    """All that is wrong with a part of a request; pydantic makes it one error of that part."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        told = (f"{dotted(each.within)}: {each.problem}; fix: {each.fix}" for each in faults)
        super().__init__("; ".join(told))
        self.faults = faults


def dotted(within: Within) -> str:
    """`requirements[0].path`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in within)
    return text.removeprefix(".")
