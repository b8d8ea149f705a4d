"""What of the process a server needs, put back where something has changed it while it serves.

An import is looked at when it is over; what runs later, a handler, a task or a thread, may change
the process as well. Looked at is what would keep the server from being stopped, from logging or
from answering; what else features set for themselves and for all is theirs.

A little over 300 lines: what is needed, one thing after another, is read in one place.
"""

import asyncio
import gc
import locale
import logging
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextvars import Context
from functools import partial
from typing import Any, Final, NamedTuple

from petsage.essentials import Essentials, Replaced
from petsage.patches import FIX, find_assigned
from petsage.side_effects import find_words, look_at_umask
from petsage.snapshot import Snapshot
from petsage.strays import tell

_log = logging.getLogger(__name__)

_LOOK_S: Final = 0.25
"""How often each thing is looked at; what is still so at the next look is put back."""

_PUT_BACK: Final = "was put back"
_OWN_VARIABLES: Final = "PETSAGE_"


class _Need(NamedTuple):
    """One thing that a server needs of its process.

    Attributes:
        what: what it is called in a sentence.
        words: how a source spells what changes it.
        is_well: whether it is as it was, or so that nobody is kept from anything.
        mend: puts it back.
        is_assigned: whether it is changed where a source assigns it, and the words are its name.
    """

    what: str
    words: tuple[str, ...]
    is_well: Callable[[], bool]
    mend: Callable[[], object]
    is_assigned: bool = False


class _Look:
    """A look at some of what is needed.

    Args:
        find: finds what of it is amiss.

    Attributes:
        amiss: what was, at the last look, and not at the one before.
    """

    def __init__(self, find: Callable[[], Iterable[_Need]]) -> None:
        self.find = find
        self.amiss: dict[str, _Need] = {}


class Upkeep:
    """Looks four times a second whether the process is as its server needs it, and puts it back.

    Not at all at once, which takes up to a millisecond: a request would wait for that.

    Args:
        essentials: as they are before features come, who may well change them when they start.
        snapshots: the sources of what serves, to find who has done it.
        moved: is called when the working directory was another for a while.
    """

    def __init__(
        self,
        essentials: Essentials,
        snapshots: Callable[[], Iterable[Snapshot]],
        moved: Callable[[], None],
    ) -> None:
        self._essentials = essentials
        essentials.take_hooks()
        self._snapshots = snapshots
        self._moved = moved
        self._for_all = tuple(_for_all())
        self._of_log: tuple[_Need, ...] = ()
        self._looks: tuple[_Look, ...] = ()
        self._untold: list[tuple[_Need, str]] = []
        self._handle: asyncio.Handle | None = None

    def begin(self) -> None:
        """Takes the process as it is for what is needed, and begins to look; on the main thread."""
        self._of_log = tuple(_of_the_log())
        needs = (*self._for_all, *self._of_log, *_needs(self._moved))
        half = len(needs) // 2
        self._looks = (
            _Look(lambda: _not_well(needs[:half])),
            _Look(lambda: _not_well(needs[half:])),
            *(_Look(partial(_needs_of, find)) for find in self._essentials.looks),
        )
        loop = asyncio.get_running_loop()
        self._look_later(loop, 0, Context())

    def prepare(self) -> None:
        """Does in a thread what the first looks, which hold up requests, would do otherwise."""
        self._essentials.pick()

    def stop(self) -> None:
        """Looks no more."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        # They hold the log's handlers, which are to be gone when logging ends.
        self._looks, self._of_log = (), ()
        self._untold.clear()
        self._essentials.forget()

    def _look_later(
        self, loop: asyncio.AbstractEventLoop, number: int, context: Context | None = None
    ) -> None:
        wait_s = _LOOK_S / len(self._looks)
        self._handle = loop.call_later(wait_s, self._look, loop, number, context=context)

    def _look(self, loop: asyncio.AbstractEventLoop, number: int) -> None:
        self._look_later(loop, (number + 1) % len(self._looks))
        look = self._looks[number]
        broken = self._essentials.mend_builtins()
        # What is set only for a moment is put back by whoever sets it.
        lasting = _not_well(look.amiss.values())
        look.amiss = {each.what: each for each in look.find() if each.what not in look.amiss}
        self._untold += [(need, _mended(need)) for need in lasting]
        self._untold += [(_need_of(each), _PUT_BACK) for each in broken]
        if self._untold and all(map(_is_well, self._of_log)):  # else it would be lost
            untold, self._untold = self._untold, []
            for need, outcome in untold:
                self._tell(need, outcome)

    def _tell(self, need: _Need, outcome: str) -> None:
        places = {}
        for snapshot in self._snapshots():
            if need.is_assigned:
                place = find_assigned(snapshot).get(need.what)
            else:
                place = find_words(snapshot, need.words)
            if place is not None:
                places[snapshot.name] = f"{place.file}:{place.line}"
        name = next(iter(places)) if len(places) == 1 else None
        said = f"has changed {need.what} while PetSage serves, which {outcome}"
        if places:
            said += f"; it may be {', '.join(places.values())}"
        tell(name, said, None, fix=FIX, kind="process-changed")


def _mended(need: _Need) -> str:
    """Puts back what is needed; what came of it."""
    try:
        need.mend()
    except (OSError, ValueError) as error:
        return f"cannot be put back: {type(error).__name__}"
    return _PUT_BACK


def _is_well(need: _Need) -> bool:
    try:
        return need.is_well()
    except Exception:  # noqa: BLE001 - what it looks at may be anybody's; it is put back
        return False


def _not_well(needs: Iterable[_Need]) -> list[_Need]:
    return [need for need in needs if not _is_well(need)]


def _needs(moved: Callable[[], None]) -> Iterable[_Need]:
    """What is needed, as it is now."""
    yield from _of_the_system(moved)
    recursion = sys.getrecursionlimit()
    yield _Need(
        "sys.setrecursionlimit()",
        ("setrecursionlimit",),
        lambda: sys.getrecursionlimit() >= recursion,
        lambda: sys.setrecursionlimit(recursion),
    )
    if gc.isenabled():
        yield _Need("garbage collection", ("gc.disable",), gc.isenabled, gc.enable)
    # Python begins no thread where one of these is not there.
    for owner, attribute in (
        *((sys, "excepthook"), (sys, "unraisablehook"), (threading, "excepthook")),
        *((sys, "stdout"), (sys, "stderr")),
    ):
        yield _there(owner, attribute)


def _needs_of(find: Callable[[], Iterable[Replaced]]) -> Iterable[_Need]:
    return map(_need_of, find())


def _need_of(replaced: Replaced) -> _Need:
    name = replaced.name
    return _Need(name, (), lambda: replaced.is_well, replaced.put_back, is_assigned=True)


def _for_all() -> Iterable[_Need]:
    """What no feature sets for itself, since it is so for all."""
    before = locale.setlocale(locale.LC_ALL)
    yield _Need(
        "the locale",
        ("setlocale",),
        lambda: locale.setlocale(locale.LC_ALL) == before,
        lambda: locale.setlocale(locale.LC_ALL, before),
    )
    zone, names = os.environ.get("TZ"), time.tzname
    yield _Need(
        "the time zone",
        ("tzset", "environ"),
        lambda: os.environ.get("TZ") == zone and time.tzname == names,
        lambda: (_put_variables({"TZ": zone}), time.tzset()),  # type: ignore[func-returns-value] # both are done
    )
    own = _own_variables()
    yield _Need(
        "variables of the environment that are PetSage's",
        ("environ", "putenv", "unsetenv"),
        lambda: _own_variables() == own,
        lambda: _put_variables({**dict.fromkeys(_own_variables()), **own}),
    )


def _own_variables() -> dict[str, str | None]:
    return {name: value for name, value in os.environ.items() if name.startswith(_OWN_VARIABLES)}


def _put_variables(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _there(owner: Any, attribute: str) -> _Need:
    before = getattr(owner, attribute)
    return _Need(
        f"{owner.__name__}.{attribute}",
        (f"{owner.__name__}.{attribute}",),
        lambda: getattr(owner, attribute) is not None or before is None,
        lambda: setattr(owner, attribute, before),
    )


def _of_the_system(moved: Callable[[], None]) -> Iterable[_Need]:
    folder, umask = os.getcwd(), look_at_umask()  # noqa: PTH109 - as `chdir` takes it
    yield _Need(
        "the working directory",
        ("chdir", "fchdir"),
        lambda: os.getcwd() == folder,  # noqa: PTH109 - as above
        lambda: (os.chdir(folder), moved()),  # type: ignore[func-returns-value] # both are done
    )
    for mask in umask.values():
        yield _Need(
            "the umask",
            ("umask",),
            lambda: look_at_umask() in (umask, {}),
            lambda mask=mask: os.umask(mask),  # type: ignore[misc] # mypy infers no default
        )
    for number in (signal.SIGINT, signal.SIGTERM):
        yield _of_signal(number, signal.getsignal(number))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield _Need(
        "the limit RLIMIT_NOFILE",
        ("setrlimit", "prlimit"),
        lambda: resource.getrlimit(resource.RLIMIT_NOFILE) >= limits,
        lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limits),
    )


def _of_signal(number: signal.Signals, handler: Any) -> _Need:
    return _Need(
        f"the handler of {number.name}",
        ("signal.signal", "signal", "add_signal_handler"),
        # Bound methods are made anew each time.
        lambda: signal.getsignal(number) == handler,
        lambda: signal.signal(number, handler),
    )


def _of_the_log() -> Iterable[_Need]:
    core = _core_loggers()
    root = logging.getLogger()
    handlers = list(root.handlers)
    disabled = logging.Logger.manager.disable
    yield _Need(
        "the root logger's handlers",
        ("basicConfig", "dictConfig", "fileConfig", "removeHandler", "handlers"),
        lambda: all(each in root.handlers for each in handlers),
        lambda: root.handlers.extend(each for each in handlers if each not in root.handlers),
    )
    yield _Need(
        "logging.disable()",
        ("logging.disable", "disable"),
        lambda: logging.Logger.manager.disable <= disabled,
        lambda: logging.disable(disabled),
    )
    yield _Need(
        "whether the core's loggers are disabled",
        ("dictConfig", "fileConfig", "disabled"),
        lambda: not any(each.disabled for each in core),
        partial(_enable, core),
    )


def _enable(loggers: Iterable[logging.Logger]) -> None:
    for each in loggers:
        each.disabled = False


def _core_loggers() -> list[logging.Logger]:
    known = logging.Logger.manager.loggerDict.copy()
    return [
        each
        for name, each in known.items()
        if isinstance(each, logging.Logger) and f"{name}.".startswith("petsage.")
    ]
