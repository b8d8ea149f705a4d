"""What is served at this moment: the features that run, the table of their routes, and the swap."""

import asyncio
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime

from petsage.generation import Generation
from petsage.making import Served
from petsage.metrics import RequestMetrics
from petsage.retirement import Retirement
from petsage.routing import Mounted, RouteTable, TableResource
from petsage.troubles import TROUBLES
from petsage.worker import in_thread


class Current:
    """The features that run, and the table that requests are resolved in; one swap at a time.

    Args:
        requests: where requests in hand are counted.
        drain_s: how long streams and WebSockets of what is replaced may go on, in seconds.
        changed: is called after each swap, and each time that something replaced has ended.

    Attributes:
        resource: resolves requests.
        retirement: ends what was replaced or removed.
        generation: the number of swaps, the start among them.
        serving: what runs, each behind what it needs.
        leaving: those of it whose folders are gone, and that run on for what rests on them: they
            have no routes any more.
        vanished: what was found gone since this was cleared, be it served or not.
    """

    def __init__(
        self, requests: RequestMetrics, drain_s: float, *, changed: Callable[[], None]
    ) -> None:
        self.resource = TableResource(requests)
        self.retirement = Retirement(requests, lambda: self.serving, drain_s, ended=changed)
        self.generation = 0
        self.serving: Mapping[str, Served] = {}
        self.leaving: frozenset[str] = frozenset()
        self.vanished: set[str] = set()
        self._changed = changed
        self._swapping = asyncio.Lock()

    def generations(self) -> list[Generation]:
        """All that have, or may get, requests in hand; not to be kept."""
        current = [served.generation for served in self.serving.values()]
        return [*current, *self.retirement.draining()]

    def resting_on(self, names: Collection[str]) -> set[str]:
        """What serves and rests on one of these, directly or not."""
        found: set[str] = set()
        for name, served in self.serving.items():  # each behind what it needs
            if not served.rests_on.isdisjoint({*names, *found}):
                found.add(name)
        return found

    def lost(self, names: Collection[str]) -> set[str]:
        """Those of `names` that nothing is to be made of, or to rest on: they are gone."""
        return {*names} & (self.vanished | self.leaving)

    async def replace(
        self, made: Mapping[str, Served], out: Collection[str], *, touched: Collection[str]
    ) -> set[str]:
        """Serves what was made, in one assignment, and retires what it takes the place of.

        Args:
            made: what runs from now on, each behind what it needs.
            out: the names of what does not serve any more.
            touched: what it was made of, and what it rests on.

        Returns:
            Those of `touched` that are gone; nothing is replaced where there are any.
        """
        async with self._swapping:
            lost = self.lost(touched)
            retired = [each for name, each in self.serving.items() if name in made or name in out]
            if lost or not (made or retired):
                return lost
            after = {
                name: each
                for name, each in self.serving.items()
                if name not in made and name not in out
            }
            await self._swap({**after, **made}, self.leaving.difference(out, made))
            TROUBLES.forget({*made, *out})
            now = datetime.now(UTC)
            for served in made.values():
                served.generation.since, served.generation.number = now, self.generation
            self.retirement.begin(retired, made)
        self._changed()
        return set()

    async def take_away(self, gone: Collection[str], back: Collection[str] = ()) -> list[Served]:
        """Ends the routes of what is gone; its lifespan too, where nothing that stays rests on it.

        Args:
            gone: the names of features whose folders are not there.
            back: those whose folders are there: what has only lost its routes gets them again.

        Returns:
            What does not run any more.
        """
        async with self._swapping:
            self.vanished |= {*gone}
            self.vanished -= self.leaving & {*back}
            here = self.serving.keys() & {*gone}
            ending = {name for name in here if self.resting_on([name]) <= here}
            leaving = (self.leaving - {*back} | here) - ending
            if not ending and leaving == self.leaving:
                return []
            ended = [each for name, each in self.serving.items() if name in ending]
            after = {name: each for name, each in self.serving.items() if name not in ending}
            await self._swap(after, frozenset(leaving), counts=bool(ending))
            TROUBLES.forget(ending)
            self.retirement.begin(ended, {})
        self._changed()
        return ended

    async def _swap(
        self, after: Mapping[str, Served], leaving: frozenset[str], *, counts: bool = True
    ) -> None:
        routed = [served for name, served in after.items() if name not in leaving]
        table = await in_thread(_table_of, routed)
        self.serving, self.leaving = after, leaving
        self.resource.table = table
        if counts and not self.resource.is_starting:
            self.generation += 1

    async def stop(self) -> None:
        """Serves nothing any more, and ends each feature's lifespan, the last started first."""
        async with self._swapping:
            self.resource.table = RouteTable()
            await self.retirement.stop()
            serving, self.serving, self.leaving = [*self.serving.values()], {}, frozenset()
            for served in reversed(serving):
                await served.running.stop()


def _table_of(serving: Collection[Served]) -> RouteTable:
    return RouteTable(
        Mounted(served.name, served.running.app, compiled, served.generation)
        for served in serving
        for compiled in served.candidate.routes
    )
