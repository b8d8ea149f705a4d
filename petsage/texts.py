"""Texts of a request: whether they are whole, and were read as they were meant."""

import math
from collections.abc import Iterator
from datetime import date
from types import NoneType
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from yarl import URL

from petsage.errors import FieldProblem
from petsage.refusals import infinite, no_date
from petsage.signature import Parameter

AS_IT_SAYS: Final = frozenset((str, int, bool, NoneType))
"""What pydantic makes of a text only where the text says so."""

# What comes in these may be any bytes; path and query have been decoded by now.
_BYTES: Final = frozenset(("header", "cookie"))

# What stands in a text where its bytes were no UTF-8, unless it was sent so.
_REPLACED: Final = "\ufffd"

_Pair = tuple[list[int | str], Any, Any]


def is_text(raw: Any, parameter: Parameter, url: URL) -> bool:
    """Whether what aiohttp made of bytes is text; a path that is no UTF-8 is refused before."""
    if parameter.where in _BYTES:
        return _is_unicode(raw)
    if parameter.where == "path" or not _holds_replaced(raw):
        return True
    try:
        unquote_to_bytes(url.raw_query_string).decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_unicode(raw: str | list[str]) -> bool:
    """Whether the text is whole; what is no UTF-8 aiohttp hides in surrogates."""
    try:
        for text in [raw] if isinstance(raw, str) else raw:
            text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _holds_replaced(raw: Any) -> bool:
    if isinstance(raw, str):
        return _REPLACED in raw
    if isinstance(raw, dict):
        return any(_REPLACED in name or _holds_replaced(each) for name, each in raw.items())
    return any(_REPLACED in each for each in raw)


def misread(where: str, name: str, sent: Any, value: Any) -> Iterator[FieldProblem]:
    """The entries for texts that pydantic takes for what nobody means by them.

    A number is seconds since 1970 to it where a day or a moment is declared, as a text too, and a
    model takes `inf` and `nan`, which are no numbers of JSON.

    Args:
        where: the part of the request that it came in.
        name: its name there, empty where it is all of that part.
        sent: what came.
        value: what was made of it.
    """
    for place, text, each in _pairs([name] if name else [], sent, value):
        if isinstance(each, float) and not math.isfinite(each):
            yield infinite(where, place)
        elif isinstance(each, date) and isinstance(text, str) and _is_number(text):
            yield no_date(where, place)


def _pairs(place: list[int | str], sent: Any, value: Any) -> Iterator[_Pair]:
    """What was sent, and what was made of it, as far as can be told; with its place."""
    if isinstance(sent, dict):
        for name, each in sent.items():
            yield from _pairs([*place, name], each, _member(value, name))
    elif isinstance(sent, list) and isinstance(value, list | tuple) and len(sent) == len(value):
        for number, (text, each) in enumerate(zip(sent, value, strict=True)):
            yield from _pairs([*place, number], text, each)
    else:
        yield place, sent, value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _member(whole: Any, name: str) -> Any:
    """What a model has for a name of what was sent; None where that cannot be said."""
    if isinstance(whole, dict):
        return whole.get(name)
    for member, field in getattr(type(whole), "model_fields", {}).items():
        if name in {field.validation_alias, field.alias, member}:
            return getattr(whole, member)
    return getattr(whole, name, None)
