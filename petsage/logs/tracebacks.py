"""An exception as lines of a traceback, of bounded cost, whatever the exception is."""

import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Final

from pydantic import ValidationError

from petsage.errors import is_a, words_of
from petsage.logs.cleaning import encodable, text_of

# Bounds on what one traceback may cost: frames of each error, errors that led to one another.
_MAX_FRAMES: Final = 60
_MAX_ERRORS: Final = 50


def exception_lines(exc_info: Any) -> list[str]:
    """The traceback, a line each; none where `exc_info` was asked for and there is no error."""
    try:
        kind, error, trace = exc_info
        if kind is None:
            return []
        text = _traceback_of(kind, error, trace)
    except BaseException as failure:  # noqa: BLE001 - an exception may break its own traceback
        text = f"{text_of(exc_info)} [no traceback: {type(failure).__name__}]"
    return [encodable(line) for line in text.splitlines()]


def _traceback_of(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> str:
    # The frames nearest to the error are the last ones.
    if not _has_many_errors(error):
        report = traceback.TracebackException(kind, error, trace, limit=-_MAX_FRAMES, compact=True)
        for each, told in _reports_in(report, error):
            if is_a(each, ValidationError):
                told._str = words_of(each)  # type: ignore[attr-defined] # what it was made of
        return "".join(report.format())
    frames = traceback.format_list(traceback.extract_tb(trace, limit=-_MAX_FRAMES))
    return (
        f"[the last of more than {_MAX_ERRORS} errors that led to one another]\n"
        f"Traceback (most recent call last):\n{''.join(frames)}{kind.__name__}: "
        + (words_of(error) if is_a(error, ValidationError) else text_of(error))
    )


def _reports_in(
    report: traceback.TracebackException, error: BaseException
) -> Iterator[tuple[BaseException, traceback.TracebackException]]:
    """Each error of a traceback, causes and members of groups too, with what is told of it."""
    yield error, report
    parts = [(error.__cause__, report.__cause__), (error.__context__, report.__context__)]
    if is_a(error, BaseExceptionGroup):
        parts += zip(error.exceptions, report.exceptions or (), strict=False)
    for inner, told in parts:
        if inner is not None and told is not None:
            yield from _reports_in(told, inner)


def _has_many_errors(error: BaseException | None) -> bool:
    """Whether a traceback would hold too many errors: causes, contexts and members of groups."""
    seen: set[int] = set()
    to_see = [error]
    while to_see and len(seen) <= _MAX_ERRORS:
        each = to_see.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            to_see += [each.__cause__, each.__context__]
            if is_a(each, BaseExceptionGroup):
                to_see += each.exceptions
    return len(seen) > _MAX_ERRORS
