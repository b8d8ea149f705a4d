"""Which files of a feature an update writes anew, and which it leaves to who has edited them."""

import ast
import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from petsage.builder.formatting import formatted
from petsage.builder.growth import Growth
from petsage.builder.migration_code import STEPS, steps_in
from petsage.builder.plan import Plan, plan_of
from petsage.builder.record import RECORD, Record, hash_of, write_hashes
from petsage.builder.rendering import INDEX, is_step, render_index, render_update
from petsage.builder.request import FeatureRequest

_STEP_NAMED: Final = re.compile(r"\bm\d{4}_[a-z0-9_]+\b")


@dataclass(frozen=True)
class Edited:
    """A file that was edited, and that the builder would make otherwise now.

    Attributes:
        path: within the feature.
        difference: what the builder makes otherwise than before, as a unified difference; where
            what it made before is not known, otherwise than what is there.
    """

    path: str
    difference: str


@dataclass(frozen=True)
class Amendment:
    """What an update does to a feature's files.

    Attributes:
        plan: the feature as it is to be.
        files: what is written, by path; the record is among it.
        gone: what is removed, since the builder makes it no more.
        left: what was edited.
        missing: what was deleted, and stays so.
        added: the new migrations among `files`.
    """

    plan: Plan
    files: dict[str, bytes]
    gone: tuple[str, ...]
    left: tuple[Edited, ...]
    missing: tuple[str, ...]
    added: tuple[str, ...]


def amendment_of(
    feature: Path, record: Record, request: FeatureRequest, growths: tuple[Growth, ...]
) -> Amendment:
    """What an update does; blocks for tens of milliseconds, and writes nothing.

    Args:
        feature: the folder as it is.
        record: what it was built from.
        request: what it is to be.
        growths: what that adds to what is kept.

    Raises:
        BuildError: a file cannot be formatted.
        OSError: one cannot be read.
    """
    plan, steps = plan_of(request), steps_in(feature)
    texts, names = render_update(plan, growths, steps)
    now = formatted(texts, request.feature)
    then = formatted(render_update(plan_of(record.request), (), steps)[0], request.feature)
    added = tuple(f"{STEPS}/{name}.py" for name in names[len(steps) :])
    found = {within: _bytes_of(feature / within) for within in now}
    changed = {within: data for within, data in now.items() if found[within] != data}
    fates = {within: _fate_of(within, found[within], record) for within in changed}
    left = (
        _edited(within, found[within] or b"", then.get(within), data, record)
        for within, data in changed.items()
        if fates[within] == "left"
    )
    kept = {name: value for name, value in record.hashes.items() if is_step(name)}
    hashes = {**kept, **{within: hash_of(data) for within, data in now.items()}}
    gone = tuple(
        within
        for within, value in record.hashes.items()
        if within not in hashes and _hash_at(feature / within) == value
    )
    made = {within: data for within, data in changed.items() if fates[within] == "made"}
    made[RECORD] = write_hashes(request, hashes)
    if made[RECORD] == _bytes_of(feature / RECORD):
        del made[RECORD]
    missing = tuple(within for within in changed if fates[within] == "missing")
    return Amendment(
        plan, made, gone, tuple(each for each in left if each.difference), missing, added
    )


def _fate_of(
    within: str, there: bytes | None, record: Record
) -> Literal["made", "missing", "left"]:
    """What becomes of a file that the builder makes otherwise than it is there."""
    recorded = record.hashes.get(within)
    if there is None:
        return "made" if recorded is None else "missing"
    is_ours = hash_of(there) == recorded
    if is_ours or (within == INDEX and _is_index(there, record.request.feature)):
        return "made"
    return "left"


def _is_index(there: bytes, name: str) -> bool:
    """Whether a module names migrations and does nothing else, in whatever lines."""
    try:
        text = there.decode()
        steps = sorted(set(_STEP_NAMED.findall(text)))
        wanted = formatted({INDEX: render_index(steps)}, name)[INDEX]
        return ast.dump(ast.parse(text)) == ast.dump(ast.parse(wanted))
    except (ValueError, SyntaxError, RecursionError):
        return False


def _edited(
    within: str, there: bytes, before: bytes | None, after: bytes, record: Record
) -> Edited:
    """A file that is left, with the difference in what the builder makes."""
    if before is None or hash_of(before) != record.hashes.get(within):
        before = there  # what was made then, nobody knows
    return Edited(within, _difference(within, before, after))


def _difference(within: str, before: bytes, after: bytes) -> str:
    old, new = (data.decode(errors="replace").splitlines(keepends=True) for data in (before, after))
    return "".join(_ended(difflib.unified_diff(old, new, f"a/{within}", f"b/{within}")))


def _ended(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


def _bytes_of(path: Path) -> bytes | None:
    """What a file holds; None where there is nothing. What is no file was edited: it holds b""."""
    if not path.is_symlink() and path.is_file():
        return path.read_bytes()
    return b"" if path.is_symlink() or path.exists() else None


def _hash_at(path: Path) -> str | None:
    data = _bytes_of(path)
    return None if data is None else hash_of(data)
