"""What a built feature keeps in the database, dropped with it where that is asked for."""

import asyncio
import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from petsage.builder.events import BuildError
from petsage.builder.migration_code import STEPS
from petsage.errors import PetSageError, StorageError
from petsage.settings import DatabaseSettings

if TYPE_CHECKING:
    from petsage.storage.migrating import Migration

# Who keeps no data has no database installed.
# ruff: noqa: PLC0415

_FEATURES: Final = "features"


class Data:
    """Where features keep data.

    Args:
        settings: the database.
        require_unserved: returns once no server serves the feature of a name any more; raises a
            BuildError where one goes on.
    """

    def __init__(self, settings: DatabaseSettings, require_unserved: Callable[[str], None]) -> None:
        self._settings = settings
        self.require_unserved = require_unserved

    def drop(self, name: str, migrations: "Sequence[Migration]") -> tuple[str, ...]:
        """Drops what a feature keeps; the names of the tables that are gone.

        Args:
            name: the feature's.
            migrations: its own; none where they are gone with it.

        Raises:
            BuildError: it cannot be dropped; all of it is there then.
        """
        try:
            from petsage.storage.dropping import drop_data
        except ModuleNotFoundError as error:
            raise BuildError(str(error), fix="pip install 'petsage[db]'", stage="undo") from None
        try:
            return asyncio.run(drop_data(self._settings, name, migrations))
        except StorageError as error:
            raise BuildError(error.problem, fix=error.fix, stage="undo") from None


def migrations_of(feature: Path) -> "tuple[Migration, ...]":
    """The migrations that a feature's folder has; nothing else of it is run.

    Raises:
        BuildError: they cannot be imported.
    """
    place = f"{feature.name}/{STEPS}"
    with _apart(feature):
        try:
            module = importlib.import_module(f"{_FEATURES}.{feature.name}.{STEPS}")
            return tuple(module.MIGRATIONS)
        except Exception as error:  # whatever a module may raise
            told = error.problem if isinstance(error, PetSageError) else error
            raise BuildError(
                f"{place} cannot be imported: {type(error).__name__}: {told}",
                fix="mend it; or leave --drop-data out, and what it keeps stays",
                stage="undo",
            ) from error


@contextmanager
def _apart(feature: Path) -> Iterator[None]:
    """Has a feature's modules be imported under their own names, and forgotten behind that."""
    before = {name: module for name, module in sys.modules.items() if _is_feature(name)}
    writes = sys.dont_write_bytecode
    for name in before:
        del sys.modules[name]
    try:
        sys.dont_write_bytecode = True
        for name, folder in (
            (_FEATURES, feature.parent),
            (f"{_FEATURES}.{feature.name}", feature),
        ):
            package: Any = ModuleType(name)
            package.__path__ = [str(folder)]
            sys.modules[name] = package
        yield
    finally:
        sys.dont_write_bytecode = writes
        for name in [each for each in sys.modules if _is_feature(each)]:
            del sys.modules[name]
        sys.modules.update(before)


def _is_feature(name: str) -> bool:
    return name == _FEATURES or name.startswith(f"{_FEATURES}.")
