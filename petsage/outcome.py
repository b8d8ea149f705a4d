"""What became of all that was changed together: remembered, logged, and answered."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from petsage.candidate import Candidate
from petsage.entry import Change, Step
from petsage.ledger import Ledger
from petsage.making import Attempt, Served
from petsage.news import hash_of, tell_made, tell_removed, tell_setback
from petsage.setback import setback_of


@dataclass(eq=False)
class Outcome:
    """A change, once it is current.

    Attributes:
        attempt: the one that was made current.
        changing: the names of what differed, or was gone.
        tried: the names of those that were made for themselves, and not for what they rest on.
        refused: what was not tried any more, because it failed, or something else with it.
        gone: the names of what is not there any more.
        before: what served until then.
    """

    attempt: Attempt
    changing: Collection[str]
    tried: Collection[str] = ()
    refused: Collection[Candidate] = ()
    gone: Collection[str] = ()
    before: Mapping[str, Served] = field(default_factory=dict)

    def note(
        self, ledger: Ledger, serving: Mapping[str, Served], *, is_start: bool
    ) -> list[Change]:
        """What to answer of each feature; what is to be known later stands in the ledger.

        Args:
            ledger: knows what failed, and what was removed ahead of this.
            serving: what serves now.
            is_start: whether nothing served before.
        """
        changes = [
            *self._note_gone(ledger),
            *self._tell_made(is_start=is_start),
            *self._note_failed(ledger, serving),
        ]
        for candidate in [*self.refused, *self.attempt.failed]:
            candidate.error = None  # its traceback holds on to everything that it passed
        return changes

    def _note_gone(self, ledger: Ledger) -> Iterator[Change]:
        for name in self.gone:
            ledger.forget(name)
            if name not in ledger.ahead:
                yield tell_removed(name)

    def _tell_made(self, *, is_start: bool) -> Iterator[Change]:
        for served in self.attempt.made.values():
            step: Step = "added"
            if served.name in self.before:
                was = hash_of(self.before[served.name].candidate)
                is_same = served.name not in self.changing and hash_of(served.candidate) == was
                step = "restarted" if is_same else "changed"
            yield tell_made(served, step, is_start=is_start)

    def _note_failed(self, ledger: Ledger, serving: Mapping[str, Served]) -> Iterator[Change]:
        # What could not go on as it was, for what is gone, is what its folder holds all the same.
        names = {candidate.name for candidate in self.refused}
        failed = (each for each in self.attempt.failed if each.name not in names)
        for candidate in [*self.refused, *failed]:
            name = candidate.name
            setback, former = setback_of(candidate, serving), ledger.setbacks.get(name)
            if name in self.changing or former is None or former.findings != setback.findings:
                if former is None or name in {*self.tried, *names}:
                    ledger.setbacks[name] = setback
                yield tell_setback(candidate, setback, serving.get(name))
