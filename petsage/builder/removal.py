"""The way back: a built feature is taken out of its place, unless somebody has made it theirs."""

import ast
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from petsage.builder.built import record_of, require_name
from petsage.builder.comparison import differences, features_in, holds
from petsage.builder.data import Data, migrations_of
from petsage.builder.disk import as_build_error, remove_empty
from petsage.builder.events import BuildError, Event, Tell
from petsage.builder.migration_code import steps_in
from petsage.builder.record import RECORD, Record, hash_of, write_record
from petsage.builder.workspace import README, open_removal, sweep
from petsage.inspection import inspect_sources
from petsage.snapshot import take_snapshot


def remove_feature(
    folder: Path,
    name: str,
    *,
    page_folder: Path | None,
    force: bool,
    tell: Tell,
    beside: Sequence[Path] = (),
    begin: Callable[[], None] = lambda: None,
    data: Data | None = None,
) -> None:
    """Removes a feature that the builder made, and its page.

    Longer than 40 lines, for all that can be said of it, and because what is looked at and what is
    removed have to be the same.

    Args:
        folder: the folder of features that it is in.
        name: the feature's.
        page_folder: where its page is; None where there is none.
        force: whether it is removed though files were edited, or others need it.
        tell: is called with each event.
        beside: the other folders of features, whose features may need it.
        begin: is called before anything changes; from then on it is not to be interrupted.
        data: where it keeps what is to be dropped, too; None where all of that is kept.

    Raises:
        BuildError: it was not built, is not there or is a link; or, without `force`, a file is not
            as it was built, or another feature needs it; or what it keeps cannot be dropped.
            Nothing has changed then.
    """
    folder = folder.absolute()
    require_name(name, "undo")
    sweep(folder, "undo")
    feature = folder / name
    page = None if page_folder is None else page_folder / f"{name}.md"
    if (
        data is not None
        and not os.path.lexists(feature)
        and _drop_what_is_left(name, data, begin, tell)
    ):
        return
    record = record_of(feature, "undo")
    keeps = bool(steps_in(feature))
    # Held from here on, so that what is looked at is what is removed.
    with open_removal(folder, name) as workspace:
        if not force:
            _require_unused(name, [folder, *beside])
            _require_unedited(feature, record, page)
        count = sum(len(files) for _, _, files in os.walk(feature))
        dropped: tuple[str, ...] = ()

        def drop() -> None:
            nonlocal dropped
            if data is not None and keeps:
                data.require_unserved(name)
                dropped = data.drop(name, migrations)

        migrations = migrations_of(feature) if data is not None and keeps else ()
        begin()
        workspace.take_out(page, drop)
        if page is not None:
            remove_empty([page.parent.parent, page.parent])
    tell(Event("STATUS", "UNDO COMPLETE"))
    tell(Event("FEATURE", f"{name} is removed", {"feature": name, "folder": str(feature)}))
    tell(Event("REMOVED", f"{count} files from {feature}", {"files": count}))
    if data is not None:
        tell(_dropped(dropped))
    elif keeps:
        command = f"petsage build --undo {name} --drop-data"
        text = f"what {name} keeps in the database stays there; `{command}` drops it"
        tell(Event("KEPT", text, {"command": command}))


def _drop_what_is_left(name: str, data: Data, begin: Callable[[], None], tell: Tell) -> bool:
    """Drops what a feature has kept whose folder is gone; whether there was any."""
    begin()
    data.require_unserved(name)
    tables = data.drop(name, ())
    if tables:
        tell(Event("STATUS", "UNDO COMPLETE"))
        tell(_dropped(tables))
    return bool(tables)


def _dropped(tables: Sequence[str]) -> Event:
    told = f"tables of the database: {', '.join(tables)}" if tables else "no table was there"
    return Event("DROPPED", told, {"tables": [*tables]})


def _require_unedited(feature: Path, record: Record, page: Path | None) -> None:
    """Refuses where anything is not as it was built: it would be lost."""
    with as_build_error("undo", feature):
        found = list(_edits(feature, record, page))
    if found:
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        raise BuildError(
            f"{feature} is not as it was built: {found[0]}{more}",
            fix="keep what you need of it; --force removes it as it is",
            stage="undo",
            details=tuple(found),
        )


def _edits(feature: Path, record: Record, page: Path | None) -> Iterator[str]:
    kept = (feature / RECORD).read_bytes()
    found = differences(feature, {**record.hashes, RECORD: hash_of(kept)})
    yield from found
    if not found:
        files = {within: (feature / within).read_bytes() for within in record.hashes}
        if write_record(record.request, files) != kept:
            yield f"{RECORD} was changed"
    if page is not None and os.path.lexists(page):
        readme = feature / README
        if not readme.is_file() or not holds(page, readme.read_bytes()):
            yield f"{page} is not what {README} says"


def _require_unused(name: str, folders: Sequence[Path]) -> None:
    """Refuses where another feature needs it, as far as sources tell without being run."""
    for other in features_in(folders, "undo"):
        if other.name != name and name in _needed_by(other):
            raise BuildError(
                f"{other} needs {name}, and would serve no more",
                fix=f"remove {other.name} first; --force removes {name} all the same",
                stage="undo",
            )


def _needed_by(feature: Path) -> set[str]:
    """The features that one imports, or names in `needs`; none where it cannot be read."""
    try:
        snapshot = take_snapshot(feature.name, feature)
        needed = set(inspect_sources(snapshot).imports)
        tree = ast.parse(snapshot.sources.get("__init__.py", b""))
    except (OSError, SyntaxError, ValueError, RecursionError):  # then it does not serve
        return set()
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        for keyword in call.keywords:
            if keyword.arg == "needs":
                names = (node for node in ast.walk(keyword.value) if isinstance(node, ast.Constant))
                needed |= {node.value for node in names if isinstance(node.value, str)}
    return needed
