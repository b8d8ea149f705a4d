"""What is kept of a candidate that does not serve: why, and what to try again; no code of its."""

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Final, NamedTuple

from petsage.candidate import Candidate
from petsage.entry import Entry, Refused, entry_of
from petsage.errors import Finding

_FOR_ANY: Final = frozenset(("dependent-fails", "duplicate-feature", "needs-cycle", "route-clash"))
"""The findings that a change of any other feature may mend."""

_WAITS: Final = frozenset(("need-failed", "no-such-feature"))


class Setback(NamedTuple):
    """A candidate that failed.

    Attributes:
        candidate: the same folder as it was read, to be tried again.
        entry: what is shown of it where nothing else of its name serves.
        rests_on: what it needs or imports, as far as that was seen.
        at: when it failed, in UTC.
    """

    candidate: Candidate
    entry: Entry
    rests_on: frozenset[str]
    at: datetime

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All that is wrong."""
        return self.entry.findings

    @property
    def refused(self) -> Refused:
        """What is shown of it where a former generation goes on."""
        return Refused(self.entry.content_hash, self.at, self.findings)

    def may_be_mended_by(self, names: Collection[str]) -> bool:
        """Whether a change of these features, or of any, may be what it waits for."""
        wrong = {finding.id for finding in self.findings if finding.level == "error"}
        return not wrong.isdisjoint(_FOR_ANY) or not self.rests_on.isdisjoint(names)


def setback_of(candidate: Candidate, serving: Collection[str]) -> Setback:
    """What is kept of a failed candidate.

    Args:
        candidate: it is let go of: neither its feature nor an error of its is kept.
        serving: the features that serve, to tell what it waits for.
    """
    rests_on = candidate.rests_on
    wrong = {finding.id for finding in candidate.errors}
    waiting_for = tuple(sorted(rests_on.difference(serving))) if wrong <= _WAITS else ()
    now = datetime.now(UTC)
    entry = entry_of(candidate)._replace(
        state="waiting" if waiting_for else "failed",
        waiting_for=waiting_for,
        since=now,
    )
    return Setback(candidate.again(), entry, rests_on, now)
