"""Every feature looked at without serving: what `petsage check`, `features` and `openapi` show."""

import asyncio
import contextlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from petsage.candidate import Candidate
from petsage.checking import Checked, CheckProcess
from petsage.errors import Finding, StartError
from petsage.listing import is_folder
from petsage.loader import (
    find_folders,
    load_core,
    load_features,
    read_folder,
    use_inspection,
)
from petsage.settings import Settings
from petsage.system import SYSTEM_FEATURES
from petsage.terminal import print_error
from petsage.unmatched import find_unmatched

_UNBEARABLE: Final = frozenset(("check-crashed", "check-timeout", "import-side-effect"))
"""What is found of a feature that this process had better not import as well."""


def survey(settings: Settings, folder: Path | None, *, core: bool = False) -> list[Candidate]:
    """Every feature found, checked and imported; those of the core only where asked for.

    They are checked in a child process first, so that whatever one does ends no command.

    Args:
        settings: which folders, what is disabled, each feature's own settings.
        folder: a folder of features, or one feature's, instead of those of the settings.
        core: whether those of the core are wanted as well.

    Raises:
        StartError: a folder is not there or cannot be read.
        CheckFailed: there can be no child process.
    """
    process = CheckProcess.begin()  # ahead of the thread
    folders, only = _wanted(settings, folder)

    def check(found: Mapping[str, Candidate], names: Sequence[str]) -> None:
        if process is not None:
            asyncio.run(_check(process, settings, found, names))

    def load() -> list[Candidate]:
        return load_features(
            folders,
            settings=settings.features,
            disabled=settings.catalog.disabled,
            core=load_core(SYSTEM_FEATURES),
            only=only,
            strict=True,
            check=check if process is not None else None,
        )

    return [each for each in _run_as_a_server(load) if core or each.folder is not None]


def _run_as_a_server(load: Callable[[], list[Candidate]]) -> list[Candidate]:
    """What `load` returns, or raises.

    It runs in a thread, as the server does: some things cannot be done there, and a Ctrl-C is for
    this command and not for the feature. What a feature prints is no part of the output.
    """
    candidates: list[Candidate] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            candidates[:] = load()
        except Exception as error:  # noqa: BLE001 - raised again by the thread that waits
            errors.append(error)

    with contextlib.redirect_stdout(sys.stderr), _logging_set_up():
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join()
    for error in errors:
        raise error
    return candidates


async def _check(
    process: CheckProcess,
    settings: Settings,
    found: Mapping[str, Candidate],
    names: Sequence[str],
) -> None:
    """Has features checked, and those that they turn out to need; notes what was found out."""
    wanted = {name for name in names if name in found}
    asked: set[str] = set()
    checked: dict[str, Checked] = {}
    try:
        while wanted != asked:
            asked = {*wanted}
            for name in wanted:
                read_folder(found[name])
            snapshots = [
                (candidate.snapshot, candidate.folder)
                for candidate in (found[name] for name in sorted(wanted))
                if candidate.snapshot is not None and candidate.folder is not None
            ]
            checked = await process.check(
                snapshots,
                [snapshot.name for snapshot, _ in snapshots],
                settings=settings.features,
                disabled=settings.catalog.disabled,
                timeout_s=settings.catalog.check_timeout_s,
            )
            for each in checked.values():
                imports = each.inspection.imports if each.inspection is not None else {}
                wanted.update(name for name in (*each.needs, *imports) if name in found)
    finally:
        await process.stop()
    for name, each in checked.items():
        _note(found[name], each)


def _note(candidate: Candidate, checked: Checked) -> None:
    candidate.codes = checked.codes
    if any(finding.id in _UNBEARABLE for finding in checked.findings):
        candidate.inspection = checked.inspection
        candidate.findings = list(checked.findings)
    elif checked.inspection is not None:
        use_inspection(candidate, checked.inspection)


@contextlib.contextmanager
def _logging_set_up() -> Iterator[None]:
    """Has logging set up as a server has: without that, the first line of a feature does it."""
    root = logging.getLogger()
    last = logging.lastResort
    if root.handlers or last is None:
        yield
        return
    root.addHandler(last)
    try:
        yield
    finally:
        root.removeHandler(last)


def survey_settings(settings: Settings) -> list[Finding]:
    """What the settings say of features that no folder has."""
    return find_unmatched(settings, {path.name for path in find_folders(settings.catalog.folders)})


def _wanted(settings: Settings, folder: Path | None) -> tuple[list[Path], str | None]:
    """The folders to look in, and the one feature that is asked for, None for all of them."""
    if folder is None:
        for each in settings.catalog.folders:
            if not _is_folder(each):
                print_error(f"there is no folder {each} to find features in")
        return settings.catalog.folders, None
    if not _is_folder(folder):
        raise StartError(f"{folder} is no folder", fix="name a folder of features, or one's own")
    if any(folder.glob("*.py")):
        folder = folder.absolute()
        return [Path(os.path.relpath(folder.parent))], folder.name
    return [folder], None


def _is_folder(path: Path) -> bool:
    try:
        return is_folder(path)
    except OSError as error:
        raise StartError(
            f"{path} cannot be looked at: {error.strerror}",
            fix="name a folder that this user may read",
        ) from None
