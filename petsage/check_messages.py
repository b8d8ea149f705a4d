"""What the server and the child that checks features tell each other, as bytes.

What a child answers is numbers, texts and bytes (`marshal`), and is made into objects here: a
feature that failed its check has run in there, and nothing of it gets into the server.
"""

import marshal
import pickle
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType
from typing import Any, Final, Literal

from petsage.candidate import Candidate
from petsage.errors import Finding
from petsage.feature import Place
from petsage.inspection import Inspection
from petsage.signature import Flaw
from petsage.snapshot import Snapshot

Kind = Literal[b"J", b"F", b"B", b"C", b"A", b"X"]
"""Job · forked, with the process group · begins, with a name · has imported one of `LARGE` ·
answer · what went wrong."""

CLIENT: Final = "aiohttp's client side"
LARGE: Final = (CLIENT, "petsage.storage", "petsage.resources")
"""What takes long to import, and not every feature needs: imported once one does, and then kept."""

HEADER: Final = struct.Struct("!cQ")


@dataclass(frozen=True)
class Checked:
    """What a check found out about one feature.

    Attributes:
        findings: all that is wrong with it, errors and warnings.
        inspection: what its sources show, None where they could not be looked at.
        codes: what its files were compiled to, tests left out, by their paths in the folder.
        needs: the features that it needs.
    """

    findings: tuple[Finding, ...]
    inspection: Inspection | None
    codes: dict[str, CodeType] = field(default_factory=dict)
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failure:
    """A feature in whose hands a check came to its end.

    Attributes:
        how: `timeout`, or `crash`.
        what: of a crash, how the process ended, as a sentence goes on after "the import".
        dump: what `faulthandler` wrote of it; empty where it could not.
    """

    name: str
    how: str
    what: str
    dump: str


@dataclass(frozen=True)
class Job:
    """What is to be checked.

    Attributes:
        snapshots: what there is, each with its folder as it was named.
        names: what is wanted of it.
        folder: the working directory that names of folders start from.
    """

    snapshots: Sequence[tuple[Snapshot, Path]]
    names: Sequence[str]
    settings: Mapping[str, Mapping[str, Any]]
    disabled: frozenset[str]
    folder: str


def frame(kind: Kind, payload: bytes = b"") -> bytes:
    """One message: its kind, its length, itself."""
    return HEADER.pack(kind, len(payload)) + payload


def encode_job(job: Job) -> bytes:
    """A job, for a child, which trusts the server."""
    return pickle.dumps(job, protocol=pickle.HIGHEST_PROTOCOL)


def decode_job(data: bytes | memoryview) -> Job:
    """What `encode_job` was given."""
    job: Job = pickle.loads(data)  # noqa: S301 - the server made it
    return job


def encode_order(
    timeout_s: float, is_careful: bool, failures: Sequence[Failure], job: bytes
) -> bytes:
    """A job with its limit, and what is to be left out of it because of how it ended before.

    Args:
        timeout_s: how long the check of one feature may take.
        is_careful: whether nothing of a feature is run before the server knows that it begins.
        failures: what is to be left out.
        job: what `encode_job` made.
    """
    told = [(each.name, each.how, each.what, each.dump) for each in failures]
    return marshal.dumps((timeout_s, is_careful, told, job))


def decode_order(data: bytes | bytearray) -> tuple[float, bool, list[Failure], bytes]:
    """What `encode_order` was given."""
    timeout_s, is_careful, told, job = marshal.loads(data)  # noqa: S302 - the server made it
    return timeout_s, is_careful, [Failure(*each) for each in told], job


def encode_sources(candidates: Mapping[str, Candidate]) -> dict[str, bytes]:
    """The code of each feature's files, to be taken before any of it has run."""
    return {name: marshal.dumps(candidate.codes) for name, candidate in candidates.items()}


def encode_answer(candidates: Mapping[str, Candidate], codes: Mapping[str, bytes]) -> bytes:
    """What was found out about each; plain values alone, whatever a feature made of the rest."""
    return marshal.dumps(
        {
            name: (
                [_plain_finding(each) for each in candidate.findings],
                _plain_inspection(candidate.inspection),
                codes.get(name, b""),
                [_text(each) for each in candidate.needs],
            )
            for name, candidate in candidates.items()
        }
    )


def decode_answer(data: bytes | bytearray) -> dict[str, Checked]:
    """What was found out, by the feature's name.

    Raises:
        ValueError, EOFError, TypeError: it is no answer.
    """
    plain = marshal.loads(data)  # noqa: S302 - plain values; see above
    return {
        name: Checked(
            tuple(Finding(*each) for each in findings),
            _inspection(inspection) if inspection is not None else None,
            marshal.loads(codes) if codes else {},  # noqa: S302 - taken before anything ran
            tuple(needs),
        )
        for name, (findings, inspection, codes, needs) in plain.items()
    }


def _plain_finding(finding: Finding) -> tuple[str, str, str, int, str, str]:
    return (
        _text(finding.id),
        _text(finding.level),
        _text(finding.file),
        int(finding.line),
        _text(finding.problem),
        _text(finding.fix),
    )


def _plain_inspection(inspection: Inspection | None) -> tuple[Any, ...] | None:
    if inspection is None:
        return None
    return (
        [
            (place.file, place.line, flaw.id, flaw.problem, flaw.fix, level)
            for place, flaw, level in inspection.flaws
        ],
        [(name, place.file, place.line) for name, place in inspection.imports.items()],
        inspection.feature_lines,
    )


def _inspection(plain: tuple[Any, ...]) -> Inspection:
    flaws, imports, feature_lines = plain
    return Inspection(
        [
            (Place(file, line), Flaw(kind, problem, fix), level)
            for file, line, kind, problem, fix, level in flaws
        ],
        {name: Place(file, line) for name, file, line in imports},
        feature_lines,
    )


def _text(text: str) -> str:
    """The text itself: a feature may have put a class of its own there."""
    return str.__str__(text)
