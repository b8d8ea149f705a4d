"""What features that serve have done wrong while they ran: for operators, and bounded.

A line of the log tells of each case as it comes; here stands what is left to be mended. It goes
when the feature changes: what serves from then on has done nothing yet.
"""

import threading
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

TroubleKind = Literal[
    "request-failed",
    "request-overdue",
    "request-runs-on",
    "loop-blocked",
    "loop-ended",
    "stray-failed",
    "cancels-others",
    "stop-failed",
    "left-running",
    "process-changed",
]
"""What may be wrong; docs/management.md says what each means."""

_MAX_TEXT: Final = 500
# More than there are features; a name that nobody forgets is not to fill memory.
_MAX_NAMES: Final = 10_000


@dataclass(frozen=True, slots=True)
class Trouble:
    """What a feature has done wrong, once or again and again.

    Attributes:
        count: how often, since the feature last changed.
        at: when it was the last time, UTC.
        problem: what happened then; without what an error says, which may be anybody's data.
        fix: what mends it.
    """

    kind: TroubleKind
    count: int
    at: datetime
    problem: str
    fix: str


class Troubles:
    """What each feature of this process has done wrong, by its name; one entry a kind."""

    def __init__(self) -> None:
        # One thread may hold it twice: a finalizer that fails may run amid a line of this.
        self._lock = threading.RLock()
        self._by_name: dict[str, dict[TroubleKind, Trouble]] = {}

    def note(
        self, name: str | None, kind: TroubleKind, problem: str, *, fix: str, again: bool = True
    ) -> None:
        """Notes a trouble; whose feature is not known has none.

        Args:
            name: the feature.
            kind: it is counted by this.
            problem: what happened.
            fix: what mends it.
            again: whether it happened once more, and not only went on.
        """
        if name is None:
            return
        with self._lock:
            if name not in self._by_name and len(self._by_name) >= _MAX_NAMES:
                return
            known = self._by_name.setdefault(name, {})
            before = known.get(kind)
            count = (before.count if before is not None else 0) + (again or before is None)
            now = datetime.now(UTC)
            known[kind] = Trouble(kind, count, now, problem[:_MAX_TEXT], fix[:_MAX_TEXT])

    def of(self, name: str) -> tuple[Trouble, ...]:
        """What a feature has done wrong since it last changed, the latest first."""
        with self._lock:
            known = list(self._by_name.get(name, {}).values())
        return tuple(sorted(known, key=lambda each: each.at, reverse=True))

    def forget(self, names: Collection[str]) -> None:
        """Forgets what these features have done: they are not what they were."""
        with self._lock:
            for name in names:
                self._by_name.pop(name, None)

    def keep(self, names: Collection[str]) -> None:
        """Forgets all features but these."""
        with self._lock:
            self.forget(self._by_name.keys() - {*names})


TROUBLES: Final = Troubles()
"""Those of this process: what fails where nobody waits for it belongs to no application."""


def place_in(error: BaseException, name: str | None) -> str:
    """The innermost line of a feature's own that an error came through, "" where there is none."""
    found, trace = "", error.__traceback__
    while trace is not None:
        module = trace.tb_frame.f_globals.get("__name__")
        if type(module) is str and f"{module}.".startswith(f"features.{name}."):
            code = trace.tb_frame.f_code
            found = f" at {code.co_filename}:{trace.tb_lineno} in {code.co_qualname}"
        trace = trace.tb_next
    return found
