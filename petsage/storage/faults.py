"""What a database's errors mean to who has asked, and to who operates it."""

import re
from collections.abc import Sequence
from typing import Final

from petsage.errors import FieldProblem, Problem
from petsage.shared_database import Reason

RETRY_AFTER: Final = {"Retry-After": "1"}


FIX: Final = "; fix: "
"""Stands in a reason before what mends it."""


_ARGUMENT: Final = re.compile(r"(query argument \$\d+:).*", re.DOTALL)
"""What asyncpg says of one that it cannot send: "…: 'Rex' (…)"."""

_QUOTED: Final = re.compile(r'(?<=: )".*"', re.DOTALL)
"""What PostgreSQL says of a value that it cannot read (the class 22): "…: "Rex""."""


_NO_TEXT: Final = frozenset(("22021", "22P05"))
"""PostgreSQL's states `character_not_in_repertoire` and `untranslatable_character`."""

_SURROGATES: Final = "surrogates not allowed"
_MAX_CAUSES: Final = 5


class Unavailable(Exception):  # noqa: N818 - named for what it is
    """The database cannot be used now.

    Args:
        kind: whether it is away, or there and too slow.
        reason: for operators, with what mends it; nothing secret.
    """

    def __init__(self, kind: Reason, reason: str) -> None:
        super().__init__(kind, reason)
        self.kind = kind
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class Moved(Unavailable):
    """Where the database was there is another, whose tables nobody has looked at."""


class Taken(Exception):  # noqa: N818 - named for what it is
    """Something has to be unique, and is there already.

    Args:
        columns: which columns hold it; none where that is not known.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        super().__init__(columns)
        self.columns = tuple(columns)


def hide_values(error: BaseException) -> None:
    """Takes out of what PostgreSQL and asyncpg say what was to be stored: it is not for the log.

    Args:
        error: SQLAlchemy's; those that led to it are looked at as well.
    """
    is_of_value = str(getattr(getattr(error, "orig", None), "sqlstate", None)).startswith("22")
    each: BaseException | None = error
    while each is not None:
        if getattr(each, "detail", None):
            each.detail = None  # type: ignore[attr-defined] # "Failing row contains (1, Rex, …)."
        if each.args and isinstance(each.args[0], str):
            text = _ARGUMENT.sub(r"\1 …", each.args[0])
            each.args = (_QUOTED.sub("…", text) if is_of_value else text, *each.args[1:])
        each = each.__cause__


def unavailable(kind: Reason) -> Problem:
    """What a caller is told while the database cannot be used."""
    if kind == "away":
        detail = "The database is not to be reached now; nothing is wrong with the request"
    else:
        detail = "The database is overloaded; nothing is wrong with the request"
    return Problem(503, detail, headers=RETRY_AFTER)


def not_kept(error: BaseException) -> Problem | None:
    """What a caller is told of a text that the database cannot keep; None where it is not that.

    PostgreSQL keeps no NUL in a text; and half of a surrogate pair is no UTF-8 for either.
    """
    each: BaseException | None = error
    for _ in range(_MAX_CAUSES):
        if each is None:
            return None
        is_half = isinstance(each, UnicodeEncodeError) and each.reason == _SURROGATES
        if is_half or getattr(each, "sqlstate", None) in _NO_TEXT:
            return Problem(422, "A text holds a NUL or half a surrogate pair: none is to be kept")
        each = getattr(each, "orig", None) or each.__cause__
    return None


def taken(columns: Sequence[str]) -> Problem:
    """What a caller is told whose values another has already."""
    if not columns:
        return Problem(409, "Something that has to be unique is taken already")
    named = " and ".join(f"`{column}`" for column in columns)
    together = " together" if len(columns) > 1 else ""
    errors = [
        FieldProblem(
            where="body",
            pointer=f"/{column}",
            detail=f"Taken already{together and ', together with the others'}",
            type="unique",
        ).model_dump(by_alias=True)
        for column in columns
    ]
    return Problem(409, f"Another has the same {named}{together} already", errors=errors)


def columns_in_sqlite(message: str) -> list[str]:
    """The columns that SQLite names: "UNIQUE constraint failed: pets.name, pets.owner"."""
    _, _, listed = message.partition(": ")
    return [
        name.rpartition(".")[2] for name in listed.split(", ") if re.fullmatch(r"\w+\.\w+", name)
    ]


def columns_in_postgresql(detail: str | None) -> list[str]:
    """The columns that PostgreSQL names, in any language: "Key (name, owner)=(…) …"."""
    match = re.search(r"\((.*?)\)=\(", detail or "")
    names = [name.strip('"') for name in match.group(1).split(", ")] if match else []
    return [name for name in names if re.fullmatch(r"\w+", name)]
