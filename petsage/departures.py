"""What is gone: it loses its routes ahead of the change that it belongs to, and waits for none."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Final

from petsage.candidate import Candidate
from petsage.current import Current
from petsage.entry import Step
from petsage.folder_reader import FolderReader
from petsage.ledger import Ledger
from petsage.news import hash_of, tell_removed
from petsage.steady import begin_steady
from petsage.worker import in_thread

_log = logging.getLogger(__name__)

# What takes the place of something that is gone comes in one swap with its end, where it is ready
# so soon; where a new folder holds the same, it is waited for a while longer.
_TOGETHER_S: Final = 0.3
_RENAMED_S: Final = 3.0


class Departures:
    """Ends the routes of what is gone; what else its removal asks for is left to its change.

    Args:
        current: what serves, and is changed.
        ledger: forgets what does not run any more, and keeps what is to be told of it.
        reader: tells which folders are there.
        steps: counts what was removed.
    """

    def __init__(
        self, current: Current, ledger: Ledger, reader: FolderReader, steps: Counter[Step]
    ) -> None:
        self._current = current
        self._ledger = ledger
        self._reader = reader
        self._steps = steps

    async def look(self, names: Collection[str] | None) -> None:
        """Looks which of the folders that were tried are gone, of all or of these.

        Raises:
            StartError: a folder cannot be read.
        """
        asked = self._ledger.asked(names)
        if asked:
            there = await in_thread(self._reader.find_names, None if names is None else asked)
            await self.take_away(asked - there, asked & there)

    async def take_away(self, gone: Collection[str], back: Collection[str] = ()) -> None:
        """Takes the routes of what is gone, and all of it where nothing that stays rests on it.

        Args:
            gone: the names of features whose folders are not there.
            back: those whose folders are there: what has only lost its routes gets them again.
        """
        for served in await self._current.take_away(gone, back):
            self._ledger.forget(served.name)
            self._ledger.ahead[served.name] = tell_removed(served.name)
            self._steps["removed"] += 1

    @asynccontextmanager
    async def in_time(
        self, gone: Collection[str], differing: Mapping[str, Candidate]
    ) -> AsyncIterator[None]:
        """Takes away what is gone where the body, which is to do so, takes too long.

        Args:
            gone: the names of what is not there any more.
            differing: what may take its place in the body.
        """
        serving = self._current.serving
        there = {hash_of(candidate) for candidate in differing.values()} - {None}
        renamed = [
            name for name in gone if name in serving and hash_of(serving[name].candidate) in there
        ]
        others = [name for name in gone if name not in renamed]
        ahead = begin_steady(self._take_away_late(others, renamed), name="take away")
        try:
            with self._current.retirement.held():
                yield
        finally:
            ahead.cancel()
            await asyncio.wait([ahead])
            if not ahead.cancelled() and (error := ahead.exception()) is not None:
                _log.error("What is gone was not taken away in time", exc_info=error)

    async def _take_away_late(self, gone: Collection[str], renamed: Collection[str]) -> None:
        await asyncio.sleep(_TOGETHER_S)
        await self.take_away(gone)
        await asyncio.sleep(_RENAMED_S)
        await self.take_away(renamed)
