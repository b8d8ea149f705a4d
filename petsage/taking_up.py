"""One change: from what differs in the folders to what of it is current.

How it goes, and why attempts come to an end, is in docs/decisions/0011, from its step 2 to 6.
"""

import re
from collections.abc import Collection, Mapping

from petsage.candidate import Candidate
from petsage.current import Current
from petsage.entry import Change
from petsage.ledger import Ledger
from petsage.making import Attempt, Maker, Served, Tables
from petsage.outcome import Outcome
from petsage.setback import setback_of
from petsage.signature import Flaw


class TakingUp:
    """Makes current what can be of what differs, without what is gone; to be run once.

    Args:
        differing: what is found different, by name.
        gone: the names of what is not there any more.
        current: what serves, and is changed.
        ledger: what failed before, and is told what fails now; what differs is `trying` there.
        maker: makes what is tried.
        tables: `[features.<name>]` by name.
        only: makes this feature and those that it needs, and no others.
    """

    def __init__(
        self,
        differing: Mapping[str, Candidate],
        gone: Collection[str],
        *,
        current: Current,
        ledger: Ledger,
        maker: Maker,
        tables: Tables,
        only: str | None = None,
    ) -> None:
        self._current = current
        self._ledger = ledger
        self._maker = maker
        self._tables = tables
        self._only = only
        self._gone = {*gone}
        self._changing = {*differing, *gone}
        self._refused = {name: each for name, each in differing.items() if each.errors}
        self._tried = {name: each for name, each in differing.items() if not each.errors}
        self._tried |= self._retries()
        self._tried_again: set[str] = set()

    async def run(self) -> list[Change]:
        """What changed, and what was refused; it is current then.

        All of it is tried, and less of it each time that something which serves would fail. What
        goes meanwhile is left out, and what was made of it, or beside it, is made anew.

        Raises:
            PetSageError: features cannot be checked; nothing changes.
        """
        while True:
            attempt = await self._try()
            lost = self._current.lost(attempt.touched - self._gone)
            if not attempt.spoilt and not lost:
                before = self._current.serving
                lost = await self._make_current(attempt)
                if not lost:
                    return self._note(attempt, before)
            if lost:
                await attempt.undo()
                self._leave_out(lost, attempt)
            else:
                self._give_up(attempt)

    def _retries(self) -> dict[str, Candidate]:
        """What failed before and may be mended by this change, or by what that mends."""
        retries: dict[str, Candidate] = {}
        touched = {*self._changing, *self._current.resting_on(self._changing)}
        waiting = {
            name: setback
            for name, setback in self._ledger.setbacks.items()
            if name not in self._changing
        }
        while mended := {
            name: setback.candidate
            for name, setback in waiting.items()
            if setback.may_be_mended_by(touched)
        }:
            retries |= mended
            touched |= mended.keys()
            waiting = {name: each for name, each in waiting.items() if name not in mended}
        return retries

    async def _try(self) -> Attempt:
        """Makes what is tried, and restarts what rests on it or on what is gone."""
        tried, gone, serving = self._tried, self._gone, self._current.serving
        restarted = self._current.resting_on({*tried, *gone}) - tried.keys()
        batch = {name: candidate.again() for name, candidate in tried.items()}
        batch |= {
            name: served.candidate.again()
            for name, served in serving.items()
            if name in restarted and name not in gone
        }
        return await self._maker.make(
            batch,
            list(batch) if self._only is None else [*{self._only} & batch.keys()],
            beside={
                name: served
                for name, served in serving.items()
                if name not in batch and name not in gone
            },
            aside=self._ledger.setbacks.keys() - gone,
            # What rests on what is gone cannot go on as it is.
            must_stand=serving.keys() - self._current.resting_on(gone) - gone,
            tables=self._tables,
        )

    async def _make_current(self, attempt: Attempt) -> set[str]:
        """Serves what was made, and not what is gone or fails for that; what of it has gone now."""
        failed = {each.name for each in attempt.failed}  # what is gone took them
        try:
            lost = await self._current.replace(
                attempt.made, self._gone | failed, touched=attempt.touched - self._gone
            )
        except BaseException:
            await attempt.undo()
            raise
        if not lost:
            self._ledger.note_serving(attempt.made.keys() & self._tried.keys())
        return lost

    def _note(self, attempt: Attempt, before: Mapping[str, Served]) -> list[Change]:
        # What went before this change began may have come back, and be wrong now.
        went = self._ledger.ahead.keys() & self._current.vanished
        outcome = Outcome(
            attempt,
            self._changing,
            tried=self._tried,
            refused=[each for name, each in self._refused.items() if name not in went],
            gone=self._gone,
            before=before,
        )
        current = self._current
        return outcome.note(self._ledger, current.serving, is_start=current.resource.is_starting)

    def _leave_out(self, lost: set[str], attempt: Attempt) -> None:
        """Counts what has gone meanwhile as gone; what failed by itself is not tried again."""
        self._gone |= lost
        self._changing |= lost
        out = _failed_without(attempt, lost, self._tried)
        self._refused = {name: each for name, each in self._refused.items() if name not in lost}
        self._tried = {name: self._tried[name] for name in self._tried.keys() - lost - out.keys()}
        retries = self._retries()
        self._tried |= {name: retries[name] for name in retries.keys() - {*self._refused, *out}}
        self._refuse(out, mended=_mended(self._refused, lost))

    def _give_up(self, attempt: Attempt) -> None:
        """Refuses at least one of what is tried, so that an attempt may come out right."""
        out = self._at_fault(attempt)
        for name in out:
            del self._tried[name]
        # What it was tried with may have failed it: once more, without that.
        mended = _mended(self._refused, out) - self._tried_again
        self._tried_again |= mended
        self._refuse(out, mended=mended)

    def _refuse(self, out: Mapping[str, Candidate], *, mended: Collection[str]) -> None:
        """Refuses what is out, and tries once more what was refused and may be mended by that."""
        self._tried |= {name: self._refused.pop(name) for name in mended}
        self._refused |= out

    def _at_fault(self, attempt: Attempt) -> dict[str, Candidate]:
        """Whatever of what is tried spoilt an attempt; at least one.

        What failed before, and is tried once more, is taken out ahead of what changes now, and
        what has only failed with what it needs stays in until that is out.
        """
        spoilt = [candidate for candidate in attempt.spoilt if candidate.name in self._tried]
        before = [candidate for candidate in spoilt if candidate.name not in self._changing]
        if spoilt:
            failed = before or spoilt
            first = [each for each in failed if {one.id for one in each.errors} != {"need-failed"}]
            return {candidate.name: candidate for candidate in first or failed}
        # What is at its last good fails with what is new below it: what it names itself, or else
        # one after another.
        victim = attempt.spoilt[0]
        suspects = [name for name in self._tried if victim.name in self._current.resting_on([name])]
        if not suspects:
            raise RuntimeError(f"{victim.name} fails, and nothing was changed: {victim.errors[0]}")
        problem = victim.errors[0].problem
        named = (name for name in suspects if re.search(rf"\bfeatures\.{name}\b", problem))
        name = next(named, suspects[0])
        culprit = self._tried[name].again()
        culprit.add(culprit.argument_place(), _spoils(victim))
        return {name: culprit}


def _failed_without(
    attempt: Attempt, lost: Collection[str], tried: Collection[str]
) -> dict[str, Candidate]:
    """What of what is tried has failed by itself, and not for what is gone meanwhile."""
    below = {*lost}
    while more := {
        name
        for name, each in attempt.found.items()
        if name not in below and not each.rests_on.isdisjoint(below)
    }:
        below |= more
    failed = {each.name: each for each in attempt.failed if each.name in tried}
    return {name: failed[name] for name in failed.keys() - below - _mended(failed, lost)}


def _mended(failed: Mapping[str, Candidate], without: Collection[str]) -> set[str]:
    """What of what has failed may stand where these are left out."""
    return {
        name
        for name, candidate in failed.items()
        if setback_of(candidate, ()).may_be_mended_by(without)
    }


def _spoils(victim: Candidate) -> Flaw:
    """The flaw of a change that what rests on it does not stand."""
    return Flaw(
        "dependent-fails",
        f"with it `{victim.name}`, which needs it, would fail: {victim.errors[0]}",
        f"change both so that `{victim.name}` stands, or undo this change",
    )
