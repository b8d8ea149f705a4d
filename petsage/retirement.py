"""What was served before: its requests end, then its lifespan, and then it has to be garbage."""

import asyncio
import contextlib
import gc
import logging
import time
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any, Final, NamedTuple
from weakref import ref

from petsage.generation import Generation
from petsage.leavings import Leavings
from petsage.loader import unload
from petsage.making import Served
from petsage.metrics import RequestMetrics
from petsage.snapshot import PACKAGE
from petsage.steady import begin_steady
from petsage.worker import in_thread

_log = logging.getLogger(__name__)

# Whoever looks at once sees what is being collected anyway.
_COLLECT_AFTER_S: Final = 1.0
# A collection holds up every request: it may take this share of the time at the most.
_COLLECT_SHARE: Final = 0.005
_STOP_S: Final = 5.0

# Without a logger of its own, logging would note each one below it here, for good.
logging.getLogger(PACKAGE)


class _Trace(NamedTuple):
    """Something of a retired generation that is to die, by a weak reference."""

    feature: str
    generation: int
    what: str
    thing: "ref[Any]"


@dataclass(eq=False)
class _Leaving:
    """A generation on its way out.

    Attributes:
        served: None once it is over.
        is_followed: whether another of its name has taken its place.
        leavings: what its code may have left running; None where that is over.
    """

    served: Served | None
    is_followed: bool
    leavings: Leavings | None
    traces: list[_Trace]


class Retirement:
    """Ends what is no longer served, and sees to it that nothing of it stays.

    Args:
        requests: forgets the routes that nobody has any more.
        serving: what serves now, by name.
        drain_s: how long streams and WebSockets may go on, in seconds.
        ended: is called each time that something has ended.
    """

    def __init__(
        self,
        requests: RequestMetrics,
        serving: Callable[[], Mapping[str, Served]],
        drain_s: float,
        *,
        ended: Callable[[], None],
    ) -> None:
        self._requests = requests
        self._serving = serving
        self._drain_s = drain_s
        self._ended = ended
        self._loggers: set[str] = set()
        self._leaving: dict[asyncio.Task[None], _Leaving] = {}
        self._traces: list[_Trace] = []
        self._leaked: dict[tuple[str, int], str] = {}
        self._collecting: asyncio.TimerHandle | None = None
        self._collect_at = 0.0
        self._holders = 0

    @property
    def leaked(self) -> tuple[tuple[str, int, str], ...]:
        """Retired generations that are still in memory: feature, number, and what of it."""
        self._drop_dead()
        return tuple((*key, what) for key, what in self._leaked.items())

    def begin(self, retired: Sequence[Served], followers: Mapping[str, Served]) -> None:
        """Retires generations; no request begins in them from here on.

        Args:
            retired: each behind what it needs.
            followers: what has taken their places, by name.
        """
        for served in reversed(retired):
            follower = followers.get(served.name)
            served.generation.retire(replaced=follower is not None)
            leaving = _Leaving(
                served, follower is not None, Leavings([served.candidate]), _traces_of(served)
            )
            old, new = served.candidate.modules, follower.candidate.modules if follower else None
            if old is not None and new is not None:
                new.replace(old)
            # What rests on it goes first: of this change, and of those before it.
            before = [
                task
                for task, other in self._leaving.items()
                if other.served is not None and served.name in other.served.rests_on
            ]
            name = f"retire {served.name}"
            task = begin_steady(self._end(leaving, before), name=name)
            self._leaving[task] = leaving
            task.add_done_callback(self._note_end)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Meanwhile a change goes on that knows what served when it began: nothing need be garbage.

        What ends ahead of it is looked for behind it.
        """
        self._holders += 1
        try:
            yield
        finally:
            self._holders -= 1
            if self._traces or self._loggers:
                self._collect_soon()

    def draining(self) -> list[Generation]:
        """The generations that have not ended."""
        leaving = [each.served for each in self._leaving.values()]
        return [served.generation for served in leaving if served is not None]

    async def stop(self) -> None:
        """Waits until everything retired has ended; what does not is left."""
        if self._collecting is not None:
            self._collecting.cancel()
        if self._leaving:
            _, left = await asyncio.wait(list(self._leaving), timeout=self._drain_s + _STOP_S)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    def _note_end(self, task: "asyncio.Task[None]") -> None:
        leaving = self._leaving.pop(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            name = leaving.served.name if leaving.served is not None else "?"
            _log.error("What was served before of %s did not end cleanly", name, exc_info=error)
        self._ended()

    async def _end(self, leaving: _Leaving, before: Sequence["asyncio.Task[None]"]) -> None:
        served = leaving.served
        if served is None or leaving.leavings is None:
            return
        await served.generation.drained(self._drain_s)
        if before:
            await asyncio.wait(before)
        await served.running.stop()
        await leaving.leavings.end()
        leaving.leavings = None
        await in_thread(unload, [served.candidate])
        self._forget(served, is_followed=leaving.is_followed)
        leaving.served = None
        self._traces += leaving.traces
        self._collect_soon()

    def _forget(self, served: Served, *, is_followed: bool) -> None:
        """Lets go of whatever is kept by the name of something that is gone."""
        templates = {
            compiled.path.text
            for other in self._serving().values()
            for compiled in other.candidate.routes
        }
        routes = {compiled.path.text for compiled in served.candidate.routes}
        self._requests.forget(routes - templates)
        if not is_followed:
            self._loggers.add(served.name)
        # typing keeps `Annotated[Model, …]` and the like, with all that the model's module has.
        for clear in getattr(typing, "_cleanups", ()):
            clear()

    def _collect_soon(self) -> None:
        if self._collecting is None:
            loop = asyncio.get_running_loop()
            at = max(loop.time() + _COLLECT_AFTER_S, self._collect_at)
            self._collecting = loop.call_at(at, self._collect)

    def _collect(self) -> None:
        """Collects garbage, and tells of what is none."""
        self._collecting = None
        self._drop_dead()
        if self._holders or not (self._traces or self._loggers):
            return
        started = time.perf_counter()
        before = None
        # What pydantic's own parts hold is found only once they are gone: by another round.
        while before is None or 0 < len(self._traces) < before:
            before = len(self._traces)
            gc.collect()
            self._drop_dead()
        took_s = time.perf_counter() - started
        self._collect_at = asyncio.get_running_loop().time() + took_s / _COLLECT_SHARE
        for name in self._loggers - self._serving().keys():
            _forget_loggers(f"{PACKAGE}.{name}")
        self._loggers.clear()
        known = set(self._leaked)
        for trace in reversed(self._traces):  # the feature and its application come first
            self._leaked.setdefault((trace.feature, trace.generation), trace.what)
        for name, number in self._leaked.keys() - known:
            _log.warning(
                "Generation %d of feature %s is still in memory: %s is held by something; fix: let "
                "go in the lifespan of what outlives the feature: callbacks, threads, registries",
                number,
                name,
                self._leaked[name, number],
            )

    def _drop_dead(self) -> None:
        self._traces = [trace for trace in self._traces if trace.thing() is not None]
        alive = {(trace.feature, trace.generation) for trace in self._traces}
        self._leaked = {key: what for key, what in self._leaked.items() if key in alive}


def _traces_of(served: Served) -> list[_Trace]:
    """What is to die: the feature, its application, its functions and classes."""
    traces: list[_Trace] = []

    def note(what: str, thing: object) -> None:
        with contextlib.suppress(TypeError):  # some things cannot be referred to weakly
            traces.append(_Trace(served.name, served.generation.number, what, ref(thing)))

    note("its Feature", served.candidate.feature)
    note("its application", served.running.app)
    modules = served.candidate.modules
    for module in modules.all() if modules is not None else ():
        for key, thing in _own_things(module):
            note(f"{module.__name__}.{key}", thing)
    return traces


def _own_things(module: ModuleType) -> Iterator[tuple[str, object]]:
    """The functions and classes that a module defines."""
    for key, thing in list(vars(module).items()):
        is_own = getattr(thing, "__module__", None) == module.__name__
        if isinstance(thing, FunctionType | type) and is_own:
            yield key, thing


def _forget_loggers(name: str) -> None:
    """Takes a logger and those below it out of logging, where nobody has them or set them up."""
    known = logging.Logger.manager.loggerDict
    keys = sorted(key for key in list(known) if f"{key}.".startswith(f"{name}."))
    there = [known[key] for key in keys]
    places = [each for each in there if isinstance(each, logging.PlaceHolder)]
    del there
    for key in reversed(keys):  # what is below first: it holds on to what is above
        logger = known.pop(key)
        if isinstance(logger, logging.PlaceHolder):
            if logger.loggerMap:
                known[key] = logger
            continue
        trace, is_set_up = ref(logger), logger.level != logging.NOTSET
        noted = [place for place in places if place.loggerMap.pop(logger, key) is None]
        kept = logger if is_set_up else None
        del logger
        kept = kept or trace()  # somebody has it, and what is set for it has to reach it
        if kept is not None:
            known[key] = kept
            for place in noted:
                place.loggerMap[kept] = None
