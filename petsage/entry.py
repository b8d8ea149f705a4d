"""What is shown of a feature, and of a change: plain facts, which hold on to nothing that runs."""

from datetime import datetime
from typing import Final, Literal, NamedTuple

from petsage.candidate import Candidate
from petsage.errors import Finding
from petsage.troubles import Trouble

State = Literal["serving", "starting", "draining", "waiting", "failed", "disabled"]

ASIDE: Final[frozenset[State]] = frozenset(("failed", "waiting"))
"""The states of features that are wanted and do not serve."""

Step = Literal["added", "changed", "restarted", "removed", "refused", "failed", "waiting"]


class Refused(NamedTuple):
    """A candidate that was not made current, while what served before goes on.

    Attributes:
        content_hash: of the folder as it was then; None where it could not be read.
        at: when that was, in UTC.
        findings: why.
    """

    content_hash: str | None
    at: datetime
    findings: tuple[Finding, ...]


class Draining(NamedTuple):
    """A generation that was replaced or removed, and has not ended.

    Attributes:
        requests: how many it has in hand; 0 where its lifespan is ending.
    """

    generation: int
    requests: int


class Entry(NamedTuple):
    """A feature as the catalog shows it.

    Attributes:
        version: its own, None where it could not be read.
        state: whether it serves; `starting` is one that never did, on its way; `draining` one that
            is removed and has requests in hand; `waiting` one that needs features which do not
            serve; `failed` one that was set aside; `disabled` is the operator's wish.
        routes: method and path of each that is served; of one that failed, of those that would be.
        findings: all that is wrong with what serves, or with what does not: its errors are why.
        system: whether it is a part of the core.
        waiting_for: what it needs and does not serve.
        generation: the number of the change that made it current; None where it does not serve.
        content_hash: 64 hex digits over the folder's files, as they are served, or were tried.
        since: when it came into this state, in UTC.
        load_ms: how long it took to read, check, import and start it, in milliseconds.
        served: requests that its present generation has answered, failed ones too.
        failed: those of them that were answered 5xx, or cut.
        in_flight: requests that its present generation has in hand.
        refused: the last candidate, where it was not made current.
        draining: its former generations that have not ended.
        troubles: what it has done wrong since it serves, the latest first.
    """

    name: str
    version: str | None
    state: State
    routes: tuple[str, ...]
    findings: tuple[Finding, ...]
    system: bool
    waiting_for: tuple[str, ...] = ()
    generation: int | None = None
    content_hash: str | None = None
    since: datetime | None = None
    load_ms: float | None = None
    served: int = 0
    failed: int = 0
    in_flight: int = 0
    refused: Refused | None = None
    draining: tuple[Draining, ...] = ()
    troubles: tuple[Trouble, ...] = ()

    @property
    def why(self) -> str:
        """Why it does not serve, in one line; empty where it does."""
        return next((str(each) for each in self.findings if each.level == "error"), "")

    @property
    def last_error(self) -> Finding | None:
        """The last thing that kept what its folder holds from being served; None where nothing."""
        findings = (*(self.refused.findings if self.refused is not None else ()), *self.findings)
        return next((each for each in findings if each.level == "error"), None)


class Change(NamedTuple):
    """What a refresh did about one feature; what stayed as it was has none.

    Attributes:
        step: `restarted` is one whose folder is the same, and that needs one which changed;
            `refused` goes on with what served before; `failed` and `waiting` serve nothing.
        generation: the number of what serves now; None where nothing does.
        content_hash: of the folder as it was read; None where it is gone or cannot be read.
        findings: what is wrong.
    """

    name: str
    step: Step
    generation: int | None
    content_hash: str | None
    findings: tuple[Finding, ...] = ()


def entry_of(candidate: Candidate) -> Entry:
    """A candidate that does not run, as it is shown."""
    return Entry(
        candidate.name,
        candidate.feature.version if candidate.feature is not None else None,
        "failed" if candidate.errors else "serving",
        tuple(f"{each.route.method} {each.path.text}" for each in candidate.routes),
        tuple(candidate.findings),
        system=candidate.folder is None,
        content_hash=candidate.snapshot.content_hash if candidate.snapshot is not None else None,
        load_ms=candidate.load_ms,
    )
