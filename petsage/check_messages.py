"""What the server and the child that checks features tell each other, as bytes.

It goes over a socket that nobody else has, as numbers, texts and bytes (`marshal`), and is made
into objects where it arrives: a feature that failed its check has run in the child, and nothing of
it gets into the server.
"""

import marshal
import struct
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from pathlib import Path
from types import CodeType
from typing import Any, Final, Literal, NamedTuple

from petsage.candidate import Candidate
from petsage.errors import Finding, Severity
from petsage.feature import Place
from petsage.inspection import Inspection
from petsage.listing import PlacedFlaw
from petsage.signature import Flaw
from petsage.snapshot import Snapshot

Kind = Literal[b"J", b"F", b"B", b"C", b"A", b"X"]
"""Job · forked, with the process group · begins, with a name · has imported one of `LARGE` ·
answer · what went wrong."""

CLIENT: Final = "aiohttp's client side"
LARGE: Final = (CLIENT, "petsage.storage", "petsage.resources")
"""What takes long to import, and not every feature needs: imported once one does, and then kept."""

_MOMENTS: Final = (datetime, date, time)

HEADER: Final = struct.Struct("!cQ")


class Checked(NamedTuple):
    """What a check found out about one feature.

    Attributes:
        findings: all that is wrong with it, errors and warnings.
        inspection: what its sources show, None where they could not be looked at.
        codes: what its files were compiled to, tests left out, by their paths in the folder.
        needs: the features that it needs.
    """

    findings: tuple[Finding, ...]
    inspection: Inspection | None
    codes: dict[str, CodeType]
    needs: tuple[str, ...]


class Failure(NamedTuple):
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


class Job(NamedTuple):
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
    """A job, for a child, which trusts the server.

    Raises:
        ValueError: the settings have a value that neither TOML nor JSON has.
    """
    snapshots = [
        (each.name, str(each.folder), each.sources, each.content_hash, _flaws(each), str(named))
        for each, named in job.snapshots
    ]
    settings = {name: _plain_setting(table) for name, table in job.settings.items()}
    return marshal.dumps((snapshots, list(job.names), settings, job.disabled, job.folder))


def decode_job(data: bytes | memoryview) -> Job:
    """What `encode_job` was given."""
    plain = marshal.loads(data)  # noqa: S302 - the server made it # nosec B302
    snapshots, names, settings, disabled, folder = plain
    return Job(
        [
            (Snapshot(name, Path(where), sources, digest, _placed(flaws)), Path(named))
            for name, where, sources, digest, flaws, named in snapshots
        ],
        names,
        {name: _setting(table) for name, table in settings.items()},
        disabled,
        folder,
    )


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
    timeout_s, is_careful, told, job = marshal.loads(data)  # noqa: S302 - the server made it # nosec B302
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
    plain = marshal.loads(data)  # noqa: S302 - plain values; see above # nosec B302
    return {
        name: Checked(
            tuple(Finding(*each) for each in findings),
            _inspection(inspection) if inspection is not None else None,
            marshal.loads(codes) if codes else {},  # noqa: S302 - taken before anything ran # nosec B302
            tuple(needs),
        )
        for name, (findings, inspection, codes, needs) in plain.items()
    }


def _flaws(of: Snapshot | Inspection) -> list[tuple[str, int, str, str, str, Severity]]:
    return [
        (place.file, place.line, flaw.id, flaw.problem, flaw.fix, level)
        for place, flaw, level in of.flaws
    ]


def _placed(plain: Sequence[Any]) -> tuple[PlacedFlaw, ...]:
    return tuple(
        (Place(file, line), Flaw(kind, problem, fix), level)
        for file, line, kind, problem, fix, level in plain
    )


def _plain_setting(value: Any) -> Any:
    """A value as TOML has it; moments, which `marshal` has not, as a tuple, which TOML has not."""
    if isinstance(value, Mapping):
        return {str(key): _plain_setting(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_setting(each) for each in value]
    for kind in _MOMENTS:
        if type(value) is kind:
            return kind.__name__, value.isoformat()
    return value


def _setting(plain: Any) -> Any:
    if isinstance(plain, dict):
        return {key: _setting(each) for key, each in plain.items()}
    if isinstance(plain, list):
        return [_setting(each) for each in plain]
    if isinstance(plain, tuple):
        kind, text = plain
        return next(each for each in _MOMENTS if each.__name__ == kind).fromisoformat(text)
    return plain


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
        _flaws(inspection),
        [(name, place.file, place.line) for name, place in inspection.imports.items()],
        inspection.feature_lines,
    )


def _inspection(plain: tuple[Any, ...]) -> Inspection:
    flaws, imports, feature_lines = plain
    return Inspection(
        list(_placed(flaws)),
        {name: Place(file, line) for name, file, line in imports},
        feature_lines,
    )


def _text(text: str) -> str:
    """The text itself: a feature may have put a class of its own there."""
    return str.__str__(text)
