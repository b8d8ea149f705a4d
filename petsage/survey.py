"""Every feature looked at without serving: what `petsage check`, `features` and `openapi` show."""

import contextlib
import os
import sys
import threading
from pathlib import Path

from petsage.candidate import Candidate
from petsage.errors import Finding, StartError
from petsage.loader import find_folders, load_core, load_features
from petsage.settings import Settings
from petsage.system import SYSTEM_FEATURES
from petsage.terminal import print_error
from petsage.unmatched import find_unmatched


def survey(settings: Settings, folder: Path | None, *, core: bool = False) -> list[Candidate]:
    """Every feature found, checked and imported; those of the core only where asked for.

    Args:
        settings: which folders, what is disabled, each feature's own settings.
        folder: a folder of features, or one feature's, instead of those of the settings.
        core: whether those of the core are wanted as well.

    Raises:
        StartError: a folder is not there or cannot be read.
    """
    folders, only = _wanted(settings, folder)
    candidates: list[Candidate] = []
    errors: list[Exception] = []

    def load() -> None:
        try:
            candidates[:] = load_features(
                folders,
                settings=settings.features,
                disabled=settings.catalog.disabled,
                core=load_core(SYSTEM_FEATURES),
                only=only,
            )
        except Exception as error:  # noqa: BLE001 - raised again by the thread that waits
            errors.append(error)

    # In a thread, as the server does: some things cannot be done there, and a Ctrl-C is for this
    # command and not for the feature. What a feature prints is no part of this command's output.
    with contextlib.redirect_stdout(sys.stderr):
        thread = threading.Thread(target=load, daemon=True)
        thread.start()
        thread.join()
    for error in errors:
        raise error
    return [each for each in candidates if core or each.folder is not None]


def survey_settings(settings: Settings) -> list[Finding]:
    """What the settings say of features that no folder has."""
    return find_unmatched(settings, {path.name for path in find_folders(settings.catalog.folders)})


def _wanted(settings: Settings, folder: Path | None) -> tuple[list[Path], str | None]:
    """The folders to look in, and the one feature that is asked for, None for all of them."""
    if folder is None:
        for each in settings.catalog.folders:
            if not each.is_dir():
                print_error(f"there is no folder {each} to find features in")
        return settings.catalog.folders, None
    if not folder.is_dir():
        raise StartError(f"{folder} is no folder", fix="name a folder of features, or one's own")
    if any(folder.glob("*.py")):
        folder = folder.absolute()
        return [Path(os.path.relpath(folder.parent))], folder.name
    return [folder], None
