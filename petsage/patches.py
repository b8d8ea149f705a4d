"""What an import has put in the place of something of somebody else's, and put back.

`asyncio.sleep = None` in one feature is so for all others and for the server. What is assigned by a
name that the source shows is looked at, in modules that were there before: to compare whatever
stands in them would take longer than most imports. What is set by another way, such as a variable
that holds the module, is not found.
"""

import ast
import atexit
import importlib.util
import re
import sys
import threading
from collections.abc import Iterator
from typing import Any, Final, NamedTuple, Self

from petsage.feature import Place
from petsage.snapshot import PACKAGE, Snapshot, is_test

# Whether a source may have such a line at all: most have none, and are not parsed.
_LIKELY: Final = re.compile(
    rb"""
      ^[ \t]* (?!self\.|cls\.) [^\W\d]\w* (?:\.\w+)+ [ \t]* (?: [-+*/%&|^:,] | =[^=] )
    | \b (?: setattr | delattr | del ) \b
    """,
    re.MULTILINE | re.VERBOSE,
)
FIX: Final = "take it out; the process is every feature's"
ABSENT: Final = object()
"""What stands where there is nothing."""


class Target(NamedTuple):
    """Something of a module that a source assigns.

    Attributes:
        name: "asyncio.sleep", "pydantic.BaseModel.__init__".
        place: the line.
        before: what stood there when this was made.
    """

    name: str
    place: Place
    owner: Any
    before: Any

    @property
    def now(self) -> Any:
        """What stands there now."""
        return value_in(self.owner, self.name.rpartition(".")[2])

    @property
    def is_changed(self) -> bool:
        """Whether something else stands there now."""
        return self.now is not self.before

    @property
    def is_broken(self) -> bool:
        """Whether it could be called, and can no more."""
        return callable(self.before) and not callable(self.now)

    def put_back(self) -> None:
        """Puts in what stood there before."""
        setattr(self.owner, self.name.rpartition(".")[2], self.before)


ORIGINALS: Final[dict[str, tuple[Any, Any]]] = {}
"""What sources assign that can be called: in what it stands, and what it was before they ran.

It is `ABSENT` where a class inherits it.
"""


def find_targets(snapshot: Snapshot) -> list[Target]:
    """What a feature's sources assign of modules that are imported already, and not a feature's.

    What of it can be called is in `ORIGINALS` from then on.
    """
    found = []
    for full, place in find_assigned(snapshot).items():
        owner = _owner(full)
        before = value_in(owner, full.rpartition(".")[2])
        if owner is None or not _is_there(owner, full):
            continue  # what is added is in nobody's way
        if before is not ABSENT:
            found.append(Target(full, place, owner, before))
        if before is ABSENT or callable(before):
            ORIGINALS.setdefault(full, (owner, before))
    return found


def _is_there(owner: Any, full: str) -> bool:
    """Whether something stands in it by the last part of a name, or in what it inherits from."""
    owners = owner.__mro__ if isinstance(owner, type) else (owner,)
    return any(value_in(each, full.rpartition(".")[2]) is not ABSENT for each in owners)


def find_assigned(snapshot: Snapshot) -> dict[str, Place]:
    """What a feature's sources assign of what they import, by its whole name, and where."""
    found: dict[str, Place] = {}
    for within, source in snapshot.sources.items():
        if is_test(within) or _LIKELY.search(source) is None:
            continue
        try:
            tree = ast.parse(importlib.util.decode_source(source))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue  # told elsewhere
        imports = dict(_imports(tree))
        for node, path in _assigned(tree):
            root, *rest = path
            if root not in imports:
                continue
            full = ".".join((imports[root], *rest))
            place = Place(str(snapshot.folder / within), getattr(node, "lineno", 1))
            found.setdefault(full, place)
    return found


def _imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """What each imported name stands for: "aio" → "asyncio", "BaseModel" → "pydantic.BaseModel"."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for each in node.names:
                name = each.name if each.asname else each.name.partition(".")[0]
                yield each.asname or name, name
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for each in node.names:
                yield each.asname or each.name, f"{node.module}.{each.name}"


def _assigned(tree: ast.Module) -> Iterator[tuple[ast.AST, list[str]]]:
    """Each attribute that is set or deleted by a name: ["asyncio", "sleep"]."""
    for node in ast.walk(tree):
        path: list[str] = []
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            path = _path(node)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            match node.args:
                case [owner, ast.Constant(value=str(name)), *_] if node.func.id in _SETTERS:
                    path = [*_path(owner), name]
        if len(path) > 1:
            yield node, path


_SETTERS: Final = ("setattr", "delattr")


def _path(node: ast.AST) -> list[str]:
    """`a.b.c` as its parts; none where it is of something else than a name."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return [node.id, *reversed(parts)] if isinstance(node, ast.Name) else []


def _owner(full: str) -> Any:
    """What the last part of a dotted name is an attribute of; None where it is not there."""
    parts = full.split(".")[:-1]
    if not parts or parts[0] == PACKAGE:
        return None
    count = len(parts)
    while count and ".".join(parts[:count]) not in sys.modules:
        count -= 1
    owner: Any = sys.modules.get(".".join(parts[:count])) if count else None
    for part in parts[count:]:
        owner = value_in(owner, part)
    return None if owner is ABSENT else owner


def value_in(owner: Any, attribute: str) -> Any:
    """What stands in it under a name; no code of anybody's is run for it."""
    try:
        return vars(owner).get(attribute, ABSENT)
    except TypeError:  # it has no place for any
        return ABSENT


class ExitCallbacks:
    """What this thread has `atexit` call while this is entered; it can be taken back."""

    def __enter__(self) -> Self:
        self._thread = threading.get_ident()
        self._calls: list[Any] = []
        self._is_over = False
        self._register: Any = atexit.register
        vars(atexit)["register"] = self._note
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        if vars(atexit)["register"] == self._note:
            vars(atexit)["register"] = self._register

    def take_back(self) -> None:
        """Has none of it called."""
        for call in self._calls:
            atexit.unregister(call)
        self._calls.clear()

    def _note(self, call: Any, *args: Any, **kwargs: Any) -> Any:
        if not self._is_over and threading.get_ident() == self._thread:
            self._calls.append(call)
        return self._register(call, *args, **kwargs)
