"""Finds the one line that bears a marker, in files of any size: `petsage logs --marker`.

Bytes are searched first and only lines that hold the marker somewhere are parsed; a file is read
from its end, where what is asked for mostly stands.
"""

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Final

from petsage.errors import PetSageError
from petsage.log_reader import LineFilter, parse_line

_CHUNK_BYTES: Final = 4 * 1024 * 1024
_LONGEST_LINE_BYTES: Final = 64 * 1024 * 1024
# What JSON writes as it is, so that the bytes of a line can be searched for it.
_MARKER: Final = re.compile(r"[!#-\[\]-~]{1,200}")


class SearchError(PetSageError):
    """Whether the line is there cannot be said: as with `grep`, another code than "it is not"."""

    exit_code: ClassVar[int] = 2


@dataclass(frozen=True)
class Found:
    """The newest line that bears the marker, and the file it stands in; None: standard input."""

    line: bytes
    file: Path | None = None


class MarkerSearch:
    """Looks for lines whose field `marker` is exactly this, and that pass a filter.

    Args:
        marker: as an answer's `proof.marker` has it.
        line_filter: what else has to be true of the line.

    Raises:
        SearchError: it can be no marker: empty, or with a space, a quote or what is not ASCII.
    """

    def __init__(self, marker: str, line_filter: LineFilter | None = None) -> None:
        if not _MARKER.fullmatch(marker):
            raise SearchError(
                f"--marker {marker!r} is no marker",
                fix="give an answer's `proof.marker`, or its header X-Log-Marker",
            )
        self._marker = marker
        self._needle = marker.encode("ascii")
        self._filter = line_filter or LineFilter()

    def in_stream(self, stream: BinaryIO) -> Found | None:
        """The first such line of a stream, as soon as it comes; reads no further."""
        for line in iter(lambda: stream.readline(_LONGEST_LINE_BYTES), b""):
            if self._is_it(line):
                return Found(line)
        return None

    def in_file(self, path: Path) -> Found | None:
        """The newest such line of a file, or else of its rotated neighbours, `<path>.1` first.

        Raises:
            SearchError: the file cannot be read, or a neighbour cannot and no other has the line.
        """
        seen: set[tuple[int, int]] = set()
        errors: dict[Path, OSError] = {}
        # Files may be rotated while they are looked at: the names are gone through again until
        # everything that bears one of them has been seen.
        while True:
            before = len(seen)
            for each in (path, *neighbours_of(path)):
                try:
                    line = self._line_of_unseen(each, seen)
                except OSError as error:
                    errors[each] = error
                    continue
                if line is not None:
                    return Found(line, each)
            if len(seen) == before:
                break
        for each, why in errors.items():
            if not seen or not isinstance(why, FileNotFoundError):
                raise SearchError(
                    f"{each} cannot be read: {why.strerror}", fix="name a file that you may read"
                )
        return None

    def count_in(self, data: bytes) -> int:
        """How many lines of `data` are such lines."""
        return sum(self._is_it(line) for line in data.splitlines())

    def _line_of_unseen(self, path: Path, seen: set[tuple[int, int]]) -> bytes | None:
        """The newest such line of a file that is not among those seen; it then is."""
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            identity = (status.st_dev, status.st_ino)
            if identity in seen:
                return None
            seen.add(identity)
            if not stat.S_ISREG(status.st_mode):  # a pipe, as `<(…)` makes it
                found = self.in_stream(file)
                return found.line if found is not None else None
            return next((line for line in self._candidates(file) if self._is_it(line)), None)

    def _candidates(self, file: BinaryIO) -> Iterator[bytes]:
        """Each line that holds the marker anywhere, the last one first."""
        descriptor = file.fileno()
        overlap = len(self._needle) - 1
        end = os.fstat(descriptor).st_size
        while end > 0:
            start = max(0, end - _CHUNK_BYTES)
            chunk = os.pread(descriptor, end - start + overlap, start)
            # The last place where the marker may begin is just before `end`.
            at = chunk.rfind(self._needle)
            end = start
            while at >= 0:
                first, line = _line_around(descriptor, start + at)
                yield line
                if first <= start:
                    end = first
                    break
                at = chunk.rfind(self._needle, 0, first - start)

    def _is_it(self, line: bytes) -> bool:
        if self._needle not in line:
            return False
        # A power cut, or a file that was cut while it was written to, leaves NULs before a line.
        text = line.strip(b"\0\r\n").decode("utf-8", "surrogateescape")
        fields: dict[str, Any] | None = parse_line(text)
        if fields is None or fields.get("marker") != self._marker:
            return False
        return self._filter.matches(fields)


def neighbours_of(path: Path) -> list[Path]:
    """`<path>.1`, `<path>.2`, … as far as they are files, the newest first."""
    try:
        names = [each.name for each in path.parent.iterdir()]
    except OSError:
        return []  # the file itself may be readable in a folder that is not
    numbers = sorted(
        int(number)
        for name in names
        if name.startswith(f"{path.name}.")
        and (number := name.removeprefix(f"{path.name}.")).isascii()
        and number.isdecimal()
    )
    numbered = (path.with_name(f"{path.name}.{number}") for number in numbers)
    return [each for each in numbered if each.is_file()]


def _line_around(descriptor: int, offset: int) -> tuple[int, bytes]:
    """The line that holds the byte at `offset`, and where it begins."""
    first = _after_newline_before(descriptor, offset)
    line = bytearray()
    step = 64 * 1024
    while len(line) < _LONGEST_LINE_BYTES:
        piece = os.pread(descriptor, step, first + len(line))
        if not piece:
            break
        newline = piece.find(b"\n")
        if newline >= 0:
            line += piece[:newline]
            break
        line += piece
        step = _CHUNK_BYTES
    return first, bytes(line) + b"\n"


def _after_newline_before(descriptor: int, offset: int) -> int:
    """Where the line begins that holds the byte at `offset`."""
    step = 64 * 1024
    stop = max(0, offset - _LONGEST_LINE_BYTES)
    while offset > stop:
        start = max(stop, offset - step)
        newline = os.pread(descriptor, offset - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        offset = start
        step = _CHUNK_BYTES
    return stop
