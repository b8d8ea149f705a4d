"""What a server calls of modules, as it was before any feature came, and where it is no more so.

`asyncio.sleep = None` in a handler is so for the server and for all features. To look at whatever
stands in all modules would take 1.5 ms; so few are looked at each time, and the others in turn.
"""

import builtins
import operator
import sys
from abc import ABCMeta
from collections.abc import Callable, Iterator
from enum import EnumType
from itertools import cycle
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, Final, NamedTuple

from petsage.patches import ABSENT, ORIGINALS, value_in

# By other names, since what stands in `builtins` is looked at with them.
_all, _callable, _delattr, _is, _map, _setattr, _type, _zip = (
    *(all, callable, delattr, operator.is_, map, setattr, type, zip),
)

_KINDS: Final = frozenset((ABCMeta, BuiltinFunctionType, EnumType, FunctionType, ModuleType, type))
_ALWAYS: Final = frozenset(("asyncio", "builtins", "json", "logging", "os", "threading", "time"))
_OWN: Final = "petsage"
# The core puts hooks of its own into these when it begins to serve.
_HOOKED: Final = frozenset(("sys", "threading", "warnings"))
_PARTS: Final = 32
"""The other modules are looked at in so many parts, one after another, and two each time."""


class Replaced(NamedTuple):
    """Something that stands where something else was.

    Attributes:
        name: "asyncio.sleep".
    """

    name: str
    owner: Any
    before: Any

    @property
    def is_well(self) -> bool:
        """Whether it is there again."""
        return value_in(self.owner, self.name.rpartition(".")[2]) is self.before

    def put_back(self) -> None:
        """Puts it there again."""
        attribute = self.name.rpartition(".")[2]
        if self.before is ABSENT:
            _delattr(self.owner, attribute)
        else:
            _setattr(self.owner, attribute, self.before)


class _Kept:
    """A module, and what stood in it when this was made.

    A copy is soon made, and this at each start; what matters of it is picked out later, at the
    latest when it is first looked at.
    """

    __slots__ = ("_before", "_names", "_values", "module", "name")

    def __init__(self, name: str, module: ModuleType) -> None:
        self.name = name
        self.module = module
        self._before: dict[str, Any] | None = None
        self._names: tuple[str, ...] = ()
        self._values: tuple[Any, ...] = ()
        self.take()

    def take(self) -> None:
        """Takes what stands in it now for what is to stand in it."""
        self._before = self.module.__dict__.copy()

    def pick(self) -> None:
        """Picks out what is looked at; two threads at once do the same."""
        before = self._before
        if before is None:
            return
        values = {name: value for name, value in before.items() if _type(value) in _KINDS}
        self._names, self._values = (*values,), (*values.values(),)
        self._before = None

    def replaced(self) -> list[Replaced]:
        """What of its functions, classes and modules is broken; of the core, what is another."""
        self.pick()
        get: Callable[..., Any] = self.module.__dict__.get
        found: list[Replaced] = []
        if _all(_map(_is, _map(get, self._names), self._values)):
            return found
        is_own = f"{self.name}.".startswith(f"{_OWN}.")
        for name, before in _zip(self._names, self._values, strict=True):
            now = get(name, ABSENT)
            if now is before:
                continue
            wants_module = _type(before) is ModuleType
            is_broken = _type(now) is not ModuleType if wants_module else not _callable(now)
            if is_broken or is_own:
                found.append(Replaced(f"{self.name}.{name}", self.module, before))
        return found


class Essentials:
    """The functions, classes and modules that stand in the modules which are imported now.

    Attributes:
        looks: each finds some of what is broken: that is what can be called no more; of the core,
            whatever is another; and what a source assigns by its name. What a library puts around
            a function of another is let be.
    """

    def __init__(self) -> None:
        self._kept = kept = [
            _Kept(name, module)
            for name, module in sys.modules.copy().items()
            if type(module) is ModuleType and name not in {"__main__", "__mp_main__"}
        ]
        self._names = frozenset(each.name for each in kept)
        self._builtins = _Kept("builtins", builtins)
        self._builtins.replaced()  # nothing could be picked out of it when it is broken
        self._hooked = [each for each in kept if each.name in _HOOKED]
        self._always = [each for each in kept if each.name in _ALWAYS]
        others = [each for each in kept if each.name not in _ALWAYS]
        self._parts = cycle([others[number::_PARTS] for number in range(_PARTS)])
        others_too = self._look_at_others
        self.looks = (self._look_at_some, others_too, self._look_at_assigned, others_too)

    def take_hooks(self) -> None:
        """Takes what the core has put into a few modules meanwhile for what is to stand there."""
        for each in self._hooked:
            each.take()

    def pick(self) -> None:
        """Picks out what is looked at of all modules, from any thread: else the first looks do."""
        for each in self._kept:
            each.pick()

    def forget(self) -> None:
        """Keeps nothing of any module, and finds nothing any more."""
        self._kept, self._hooked, self._always, self._parts = [], [], [], cycle([[]])

    def mend_builtins(self) -> list[Replaced]:
        """What was broken of what each line needs, and is there again: nothing else could mend."""
        found = self._builtins.replaced()
        for each in found:
            each.put_back()
        return found

    def _look_at_some(self) -> Iterator[Replaced]:
        """What is broken of the modules that are looked at each time."""
        for each in self._always:
            yield from each.replaced()

    def _look_at_others(self) -> Iterator[Replaced]:
        """What is broken of a part of the others, of another part each time."""
        for each in next(self._parts):
            yield from each.replaced()

    def _look_at_assigned(self) -> Iterator[Replaced]:
        """What is not as it was, of what a source assigns by its name."""
        for name, (owner, before) in ORIGINALS.copy().items():
            module = owner.__name__ if type(owner) is ModuleType else owner.__module__
            if module in self._names and value_in(owner, name.rpartition(".")[2]) is not before:
                yield Replaced(name, owner, before)
