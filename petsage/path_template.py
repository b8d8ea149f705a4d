"""Paths as they are declared, taken apart."""

import keyword
import re
from functools import lru_cache
from sys import intern
from typing import Final, NamedTuple

from petsage.signature import Flaw

_NAME: Final = re.compile(r"\{([^{}]*)\}")
_TAIL: Final = ":path"
_LITERAL: Final = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@-]+")


class PathTemplate(NamedTuple):
    """A path taken apart: literal segments as strings, `{name}` as None.

    Attributes:
        text: the path as it was declared, the mount before it.
        segments: what stands between slashes; None where any one segment may stand.
        names: the names of those, in order, that of the tail last.
        tail: whether the last name takes all that is left.
    """

    text: str
    segments: tuple[str | None, ...]
    names: tuple[str, ...]
    tail: bool


def parse_path(text: str) -> PathTemplate | Flaw:
    """A path as a template, or what is wrong with it."""

    def flaw(problem: str, fix: str) -> Flaw:
        return Flaw("bad-path", f"the path {text!r} {problem}", fix)

    if not text.startswith("/"):
        return flaw("does not begin with a slash", f"write {'/' + text!r}")
    if text == "/":
        return PathTemplate(text, ("",), (), tail=False)
    if text.endswith("/"):
        return flaw("ends with a slash", f"write {text.rstrip('/')!r}")
    segments: list[str | None] = []
    names: list[str] = []
    tail = False
    parts = text[1:].split("/")
    for number, part in enumerate(parts, 1):
        match = _NAME.fullmatch(part)
        if match is None:
            if part in {".", ".."} or not _LITERAL.fullmatch(part):
                return flaw(
                    f"has the segment {part!r}",
                    "use letters, digits and `-._~!$&'()*+,;=:@`, or one `{name}` for all of it",
                )
            segments.append(part)
            continue
        name = match.group(1)
        if name.endswith(_TAIL):
            if number < len(parts):
                return flaw(f"goes on after {part!r}", "put what takes all that is left at the end")
            name, tail = name.removesuffix(_TAIL), True
        wrong = _wrong_name(name, names)
        if wrong is not None:
            return flaw(f"has {part!r}{wrong[0]}", wrong[1])
        names.append(intern(name))
        segments.append(None)
    return PathTemplate(text, tuple(segments), _one_for(tuple(names)), tail)


@lru_cache(maxsize=1024)
def _one_for(names: tuple[str, ...]) -> tuple[str, ...]:
    """The same object for many routes: it is in the processor's caches, then."""
    return names


def _wrong_name(name: str, before: list[str]) -> tuple[str, str] | None:
    """What is wrong with a name, and what mends it."""
    if keyword.iskeyword(name):
        return ", a word of Python's own", f"write {{{name}_}}, for example"
    if not name.isidentifier():
        pattern = "`id: Annotated[str, Field(pattern=…)]`"
        return (
            ", which is no argument's name",
            f"put a pattern into the annotation, as in {pattern}",
        )
    if name in before:
        return " twice", "give each its own name"
    return None


def likely_names(text: str) -> tuple[str, ...]:
    """The names in a path that is wrong, as far as they can be guessed."""
    likely = re.findall(r"\{(\w+)[:}]", text)
    return tuple(name for name in likely if name.isidentifier() and not keyword.iskeyword(name))
