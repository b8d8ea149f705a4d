"""Breaks the file that a test's log goes to, for real and without being root, and mends it."""

import contextlib
import errno
import functools
import logging
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final, Literal, get_args

import pytest

from petsage.errors import did_you_mean
from petsage.logs.pipeline import Pipeline
from petsage.logs.targets import can_take

Kind = Literal[
    "full",
    "closed",
    "stalled",
    "deleted",
    "directory",
    "unwritable",
    "filtered",
    "raising",
]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

# What opening or writing says of a path that is broken in this way.
_ERRORS: Final[dict[Kind, frozenset[int]]] = {
    "full": frozenset({errno.ENOSPC}),
    "closed": frozenset({errno.ENXIO}),
    "directory": frozenset({errno.EISDIR}),
    "unwritable": frozenset({errno.EACCES, errno.EPERM, errno.EROFS}),
}
_NOT_FOR_ROOT: Final = Path("/sys")  # not even root can make a file there


@dataclass(frozen=True)
class BrokenSink:
    """A sink that takes no line, until it is mended.

    Attributes:
        kind: in which way it is broken.
        path: the file whose place something else has taken.
    """

    kind: Kind
    path: Path
    undo: list[Callable[[], None]]

    def mend(self) -> None:
        """Makes everything as it was; what the log held before is there again.

        What was logged meanwhile is for the sink to bring. A second call does nothing.
        """
        while self.undo:
            self.undo.pop()()


def break_sink(kind: Kind, path: Path, pipeline: Pipeline) -> BrokenSink:
    """Breaks the sink that writes to `path`, and makes sure that it is broken.

    Args:
        kind: `full` no space is left on the device; `closed` a pipe whose reader has gone;
            `stalled` a pipe that is full and that nobody reads; `deleted` the file is gone, and a
            sink makes it anew; `directory` a folder stands in its place; `unwritable` no file can
            be made in its folder; `filtered` a filter leaves every record out; `raising` a filter
            raises.
        path: the sink's file.
        pipeline: what the filters are put on.

    A kind that is none, or that does not break the sink on this machine, fails the test.
    """
    if kind not in KINDS:
        pytest.fail(f"no sink can be broken as {kind!r}; {did_you_mean(kind, KINDS)}")
    broken = BrokenSink(kind, path, [])
    try:
        if kind in {"filtered", "raising"}:
            _break_filter(broken, pipeline)
        elif kind == "deleted":
            pipeline.flush()  # what still waits would make it anew at once
            path.unlink(missing_ok=True)
        else:
            _take_the_place(broken)
        why_not = _why_not_broken(broken, pipeline)
    except BaseException:
        broken.mend()
        raise
    if why_not is not None:
        broken.mend()
        pytest.fail(f"the sink is not broken as {kind!r}: {why_not}", pytrace=False)
    return broken


def _break_filter(broken: BrokenSink, pipeline: Pipeline) -> None:
    raises = broken.kind == "raising"

    def refuse(_: logging.LogRecord) -> bool:
        if raises:
            raise RuntimeError("this filter is broken")
        return False

    pipeline.addFilter(refuse)
    broken.undo.append(lambda: pipeline.removeFilter(refuse))


def _take_the_place(broken: BrokenSink) -> None:
    """Moves the file aside, if it is there, and puts what breaks the sink into its place."""
    path = broken.path
    path.parent.mkdir(parents=True, exist_ok=True)
    for number in count():
        aside = path.with_name(f".{path.name}.aside{number or ''}")
        with contextlib.suppress(FileNotFoundError):
            path.rename(aside)
            broken.undo.append(functools.partial(_put_back, aside, path))
        try:
            _stand_in(broken)
        except FileExistsError:
            continue  # the sink was quicker, and has begun a file of its own
        return


def _stand_in(broken: BrokenSink) -> None:
    """Puts what breaks the sink where its file was.

    Raises:
        FileExistsError: there is a file again.
    """
    path = broken.path
    if broken.kind == "full":
        path.symlink_to("/dev/full")
        broken.undo.append(path.unlink)
    elif broken.kind == "directory":
        path.mkdir()
        broken.undo.append(path.rmdir)
    elif broken.kind == "closed":
        os.mkfifo(path)
        broken.undo.append(path.unlink)
    elif broken.kind == "stalled":
        _stall(broken)
    elif os.geteuid() == 0:
        path.symlink_to(_NOT_FOR_ROOT / path.name)
        broken.undo.append(path.unlink)
    else:
        mode = stat.S_IMODE(path.parent.stat().st_mode)
        path.parent.chmod(0o555)
        broken.undo.append(lambda: path.parent.chmod(mode))


def _stall(broken: BrokenSink) -> None:
    """Puts a FIFO there that is full, its reader asleep."""
    os.mkfifo(broken.path)
    reader = os.open(broken.path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    for size in (4096, 1):
        try:
            while True:
                os.write(reader, b"\n" * size)
        except BlockingIOError:
            pass  # nothing more goes in, which is what was wanted

    def wake() -> None:
        # First the name, so that whoever waits for room finds the file when it looks again.
        broken.path.unlink()
        _put_back(broken.path.with_name(f".{broken.path.name}.aside"), broken.path)
        try:
            while os.read(reader, 65536):
                pass
        except BlockingIOError:
            pass  # it is empty: the sink's thread goes on
        os.close(reader)

    broken.undo.append(wake)


def _put_back(aside: Path, path: Path) -> None:
    if not aside.exists():
        return
    try:
        path.hardlink_to(aside)
    except FileExistsError:
        # The sink was quicker, and has begun a file of its own: what was there goes below it.
        with path.open("ab") as file:
            file.write(aside.read_bytes())
    aside.unlink()


def _why_not_broken(broken: BrokenSink, pipeline: Pipeline) -> str | None:
    """Tries what the sink would do; None where that is not to be had."""
    if broken.kind in {"filtered", "raising"}:
        return _why_not_filtered(broken.kind, pipeline)
    if broken.kind == "deleted":
        return f"{broken.path} is still there" if broken.path.exists() else None
    try:
        descriptor = os.open(
            broken.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
        )
        try:
            if broken.kind == "stalled":
                return "the pipe has room" if can_take(descriptor, timeout_ms=0) else None
            os.write(descriptor, b"\n")
        finally:
            os.close(descriptor)
    except OSError as error:
        known = error.errno in _ERRORS[broken.kind]
        return None if known else f"writing says {error.strerror}"
    return f"{broken.path} takes a line"


def _why_not_filtered(kind: Kind, pipeline: Pipeline) -> str | None:
    record = logging.LogRecord(__name__, logging.INFO, __file__, 0, "tried", (), None)
    try:
        passes = bool(pipeline.filter(record))
    except RuntimeError:
        return None if kind == "raising" else "the filter raises"
    return "a record passes the filters" if passes or kind == "raising" else None
