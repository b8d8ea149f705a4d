"""Regular expressions that a hostile text can keep a server busy with for ever.

pydantic matches by an engine whose time goes by the text's length, and which nobody can slow down.
Where a model asks for Python's own, or gives it a compiled expression, that one tries every way in
which a text can be divided among repeats: (a+)+$ takes twice as long for each further "a".

What is found is a repeat within a repeat, or alternatives in one, that may take the same character
where either could go on. It is an estimate by first characters: it finds some that would end soon,
and does not look for what is merely quadratic. No kept library does this for Python.
"""

import itertools
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

# `re` has them as submodules, under no public name.
sre: Final[Any] = sys.modules["re._constants"]
sre_parser: Final[Any] = sys.modules["re._parser"]

_MANY: Final = 3
"""A repeat of so many is divided in few ways."""

# Characters that stand for all: two of a kind behave alike.
_ALPHABET: Final = frozenset([*range(256), 0x101, 0x3B1, 0x661, 0x2003, 0x4E2D, 0x1F600])
_CATEGORIES: Final = {
    sre.CATEGORY_DIGIT: r"\d",
    sre.CATEGORY_NOT_DIGIT: r"\D",
    sre.CATEGORY_SPACE: r"\s",
    sre.CATEGORY_NOT_SPACE: r"\S",
    sre.CATEGORY_WORD: r"\w",
    sre.CATEGORY_NOT_WORD: r"\W",
}
_REPEATS: Final = (sre.MAX_REPEAT, sre.MIN_REPEAT)

_PLACES: Final = frozenset((sre.LITERAL, sre.NOT_LITERAL, sre.ANY, sre.IN))


class _First(NamedTuple):
    """What something may begin with, and whether it may be nothing at all."""

    characters: frozenset[int]
    is_optional: bool


_NOTHING: Final = _First(frozenset(), is_optional=True)


def slow_patterns(schema: Any, engine: str = "rust-regex") -> Iterator[str]:
    """The expressions in a core schema of pydantic's that Python's engine could hang on."""
    seen: set[int] = set()
    left: list[tuple[Any, str]] = [(schema, engine)]
    while left:
        node, engine = left.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, list | tuple):
            left += [(each, engine) for each in node]
        elif isinstance(node, Mapping):
            config = node.get("config")
            if isinstance(config, Mapping):
                engine = config.get("regex_engine", "rust-regex")
            pattern = node.get("pattern")
            if node.get("type") == "str" and pattern is not None:
                is_compiled = isinstance(pattern, re.Pattern)
                engine = node.get("regex_engine") or engine
                if (is_compiled or engine == "python-re") and may_hang(pattern):
                    yield pattern.pattern if is_compiled else pattern
            left += [
                (each, engine) for each in node.values() if isinstance(each, dict | list | tuple)
            ]


def may_hang(pattern: str | re.Pattern[str]) -> bool:
    """Whether an expression may take time that grows by a power, or worse, with the text."""
    flags, text = 0, pattern
    if isinstance(pattern, re.Pattern):
        flags, text = pattern.flags, pattern.pattern
    tree = sre_parser.parse(text, flags & ~re.DEBUG)
    return _hangs(tree, bool(tree.state.flags & re.IGNORECASE))


def _hangs(sequence: Any, fold: bool) -> bool:
    """Whether a repeat in it, at any depth, is one that hangs."""
    for operation, argument in sequence:
        if operation in _REPEATS and argument[1] > _MANY:
            body = argument[2]
            if _is_ambiguous(body, _first(body, fold), fold):
                return True
        if any(_hangs(each, fold) for each in _parts(operation, argument)):
            return True
    return False


def _is_ambiguous(sequence: Any, behind: _First, fold: bool) -> bool:
    """Whether a repeated body, or a part of it, can take the same text in two ways.

    Args:
        sequence: the body, or a part.
        behind: what may come after it: the body again, at its end.
        fold: whether case counts for nothing.
    """
    items = list(sequence)
    for number, (operation, argument) in enumerate(items):
        after = _join(_first(items[number + 1 :], fold), behind)
        is_open = operation in _REPEATS and argument[0] != argument[1]
        if is_open and _first(argument[2], fold).characters & after.characters:
            return True
        if operation is sre.BRANCH and any(
            _is_shared(one, other, after, fold)
            for one, other in itertools.combinations(argument[1], 2)
        ):
            return True
        if operation in {sre.ATOMIC_GROUP, sre.POSSESSIVE_REPEAT}:
            continue  # what these have taken, they never give back
        if any(_is_ambiguous(each, after, fold) for each in _parts(operation, argument)):
            return True
    return False


def _is_shared(one: Any, other: Any, after: _First, fold: bool) -> bool:
    """Whether a text may be either of two alternatives, as far as their places are fixed."""
    for (operation, argument), (other_operation, other_argument) in zip(one, other, strict=False):
        if operation not in _PLACES or other_operation not in _PLACES:
            break
        mine = _characters(operation, argument, fold)
        if not mine & _characters(other_operation, other_argument, fold):
            return False
    mine = _join(_first(one, fold), after).characters
    return bool(mine & _join(_first(other, fold), after).characters)


def _parts(operation: Any, argument: Any) -> list[Any]:
    """The sequences within an operation."""
    if operation in {*_REPEATS, sre.POSSESSIVE_REPEAT}:
        return [argument[2]]
    if operation is sre.SUBPATTERN:
        return [argument[3]]
    if operation is sre.ATOMIC_GROUP:
        return [argument]
    if operation is sre.BRANCH:
        return list(argument[1])
    if operation in {sre.ASSERT, sre.ASSERT_NOT}:
        return [argument[1]]
    if operation is sre.GROUPREF_EXISTS:
        return [each for each in argument[1:] if each is not None]
    return []


def _first(sequence: Any, fold: bool) -> _First:
    found = _NOTHING
    for operation, argument in sequence:
        found = _join(found, _first_of(operation, argument, fold))
        if not found.is_optional:
            break
    return found


def _join(first: _First, then: _First) -> _First:
    if not first.is_optional:
        return first
    return _First(first.characters | then.characters, then.is_optional)


def _first_of(operation: Any, argument: Any, fold: bool) -> _First:
    if operation in {sre.AT, sre.ASSERT, sre.ASSERT_NOT}:
        return _NOTHING
    if operation is sre.GROUPREF:
        return _First(_ALPHABET, is_optional=True)
    if operation in {*_REPEATS, sre.POSSESSIVE_REPEAT}:
        inner = _first(argument[2], fold)
        return _First(inner.characters, inner.is_optional or argument[0] == 0)
    parts = [_first(each, fold) for each in _parts(operation, argument)]
    if parts:
        characters = frozenset().union(*(each.characters for each in parts))
        return _First(characters, any(each.is_optional for each in parts))
    return _First(_characters(operation, argument, fold), is_optional=False)


def _characters(operation: Any, argument: Any, fold: bool) -> frozenset[int]:
    """What one place in a text may hold."""
    if operation is sre.LITERAL:
        return _folded({argument}, fold)
    if operation is sre.NOT_LITERAL:
        return _ALPHABET - _folded({argument}, fold)
    if operation is sre.RANGE:
        low, high = argument
        return _folded({each for each in _ALPHABET if low <= each <= high} | {low, high}, fold)
    if operation is sre.CATEGORY:
        of_it = re.compile(_CATEGORIES[argument])
        return frozenset(each for each in _ALPHABET if of_it.match(chr(each)))
    if operation is sre.IN:
        members = [
            _characters(kind, each, fold) for kind, each in argument if kind is not sre.NEGATE
        ]
        found: frozenset[int] = frozenset().union(*members)
        return _ALPHABET - found if argument[0][0] is sre.NEGATE else found
    return _ALPHABET


def _folded(characters: set[int], fold: bool) -> frozenset[int]:
    if not fold:
        return frozenset(characters)
    both = {ord(each) for code in characters for each in (chr(code).lower(), chr(code).upper())
            if len(each) == 1}  # fmt: skip
    return frozenset(characters | both)
