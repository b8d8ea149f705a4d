"""What became of a feature: said in the log, and as a `Change` to whoever asked for it."""

import logging

from petsage.candidate import Candidate
from petsage.entry import Change, Step
from petsage.errors import printable
from petsage.making import Served
from petsage.setback import Setback

_log = logging.getLogger(__name__)


def tell_made(served: Served, step: Step, *, is_start: bool) -> Change:
    """That a feature serves now."""
    candidate, number = served.candidate, served.generation.number
    for finding in candidate.findings:
        _log.warning("Feature %s: %s", candidate.name, finding)
    if candidate.folder is None:
        pass  # the core's own go without saying
    elif is_start:
        _log.info("Feature %s serves %d routes", candidate.name, len(candidate.routes))
    else:
        _log.info(
            "Feature %s was %s: generation %d serves %d routes",
            candidate.name,
            step,
            number,
            len(candidate.routes),
            extra={"load_ms": round(candidate.load_ms, 1), "content_hash": hash_of(candidate)},
        )
    return change_of(candidate, step, served)


def tell_setback(candidate: Candidate, setback: Setback, goes_on: Served | None) -> Change:
    """That a candidate does not serve, and what does, if anything, in its place."""
    for number, finding in enumerate(candidate.errors):
        error = candidate.error if number == 0 else None
        if goes_on is None:
            name = printable(candidate.name)
            _log.error("Feature %s is set aside: %s", name, finding, exc_info=error)
        else:
            _log.error(
                "Feature %s goes on with generation %d; what its folder holds is refused: %s",
                candidate.name,
                goes_on.generation.number,
                finding,
                exc_info=error,
            )
    step: Step = "failed" if setback.entry.state == "failed" else "waiting"
    return change_of(candidate, "refused" if goes_on is not None else step, goes_on)


def tell_duplicate(candidate: Candidate, serves: Served | None) -> Change:
    """That a folder has the name of one in an earlier folder, and what serves under that name."""
    _log.error("Feature %s is set aside: %s", printable(candidate.name), candidate.errors[0])
    return change_of(candidate, "failed", serves)


def tell_removed(name: str) -> Change:
    """That a feature is gone."""
    _log.info("Feature %s was removed", printable(name))
    return Change(name, "removed", None, None)


def change_of(candidate: Candidate, step: Step, serves: Served | None) -> Change:
    """What to answer of a candidate, with what serves now."""
    number = serves.generation.number if serves is not None else None
    findings = tuple(candidate.findings)
    return Change(candidate.name, step, number, hash_of(candidate), findings)


def hash_of(candidate: Candidate) -> str | None:
    """The hash of what its folder held; None where it has none, or could not be read."""
    return candidate.snapshot.content_hash if candidate.snapshot is not None else None
