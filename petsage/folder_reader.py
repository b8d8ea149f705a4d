"""What the folders of features hold, and what the settings say of each, as it is now."""

import logging
from collections.abc import Callable, Collection, Mapping
from typing import Any

from petsage.candidate import Candidate
from petsage.errors import PetSageError
from petsage.ledger import Key
from petsage.loader import find_features, find_folders
from petsage.settings import Settings
from petsage.unmatched import warn_of_unmatched

_log = logging.getLogger(__name__)


class FolderReader:
    """Reads folders and tables of features; all of it may take a while, and belongs in a thread.

    Args:
        settings: which folders, and what in them is disabled.
        only: reads this feature and those that it needs, and no others.
        read_settings: reads the settings again, for `[features.<name>]`; None where they stay.

    Attributes:
        tables: `[features.<name>]` by name, as they were read last.
        disabled: those that are disabled, and are there.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        only: str | None = None,
        read_settings: Callable[[], Settings] | None = None,
    ) -> None:
        self.tables: Mapping[str, Mapping[str, Any]] = settings.features
        self.disabled: list[str] = []
        self._settings = settings
        self._only = only
        self._read_settings = read_settings

    def find(
        self, names: Collection[str] | None, *, known: Collection[str] | None
    ) -> tuple[dict[str, Candidate], list[Candidate]]:
        """What the folders hold now, and what is there once more under a name that is taken.

        Args:
            names: which to look at; None for all.
            known: the features that were tried; None at the start, where it is not known yet
                what the only one needs.

        Raises:
            StartError: a folder cannot be read.
        """
        catalog = self._settings.catalog
        only = self._only
        if only is not None and known is not None:
            # What the one needs is looked at as all are elsewhere.
            names, only = {*known}.intersection(known if names is None else names), None
        return find_features(catalog.folders, disabled=catalog.disabled, names=names, only=only)

    def find_names(self, names: Collection[str] | None) -> set[str]:
        """Those of `names`, or of all, that have a folder.

        Raises:
            StartError: a folder cannot be read.
        """
        return {path.name for path in find_folders(self._settings.catalog.folders, names)}

    def key(self, candidate: Candidate) -> Key:
        """What tells whether a folder, and what the settings say of it, are as they were before."""
        content = candidate.snapshot.content_hash if candidate.snapshot is not None else None
        wrong = tuple(map(str, candidate.findings))
        return str(candidate.folder), content, wrong, repr(self.tables.get(candidate.name))

    def read_tables(self, *, must: bool) -> None:
        """Reads `[features.<name>]` again; what was read last stays where that fails.

        Raises:
            PetSageError: it must not fail, and does.
        """
        catalog = self._settings.catalog
        paths = ((name, folder / name) for name in catalog.disabled for folder in catalog.folders)
        self.disabled = sorted({name for name, path in paths if path.is_dir()})
        if self._read_settings is None:
            return
        try:
            self.tables = self._read_settings().features
        except PetSageError as error:
            if must:
                raise
            _log.error("The settings of features stay as they were read last: %s", error)

    def compare_settings(self) -> None:
        """Warns of what the settings name and is not there: folders and features.

        Raises:
            StartError: a folder cannot be read.
        """
        names = self.find_names(None)
        self.disabled = [name for name in self._settings.catalog.disabled if name in names]
        if self._only is None:
            warn_of_unmatched(self._settings, names)
