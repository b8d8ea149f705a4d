"""`feature.toml`: what a feature was built from, and each of its files as it was built."""

import hashlib
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import tomli_w
from pydantic import ValidationError

from petsage.builder.events import BuildError, Stage
from petsage.builder.request import FeatureRequest

RECORD: Final = "feature.toml"
"""The record's file in a feature's folder."""

_HEAD: Final = """\
# What this feature was built from, and its files as they were built, by which
# `petsage build --undo` knows what was edited since.

"""
_MAX_BYTES: Final = 4_000_000  # a request of 1 MB, and what TOML needs beside
_HASH: Final = re.compile(r"sha256:[0-9a-f]{64}")
_BY_HAND_FIX: Final = "change the folder by hand: it is its owner's alone"
_NO_RECORD_FIX: Final = "delete the folder by hand if you no longer want it"


@dataclass(frozen=True)
class Record:
    """What `feature.toml` says.

    Attributes:
        request: what the feature was built from.
        hashes: of each other file, by its path in the folder: "sha256:<hex>".
    """

    request: FeatureRequest
    hashes: dict[str, str]


def hash_of(content: bytes) -> str:
    """What a record says of a file's content."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def write_record(request: FeatureRequest, files: Mapping[str, bytes]) -> bytes:
    """The record of a feature; the same request and files make the same bytes.

    Args:
        request: written whole, defaults too, so that a later release makes the same of it.
        files: every other file by its path in the folder.
    """
    return write_hashes(request, {within: hash_of(data) for within, data in files.items()})


def write_hashes(request: FeatureRequest, hashes: Mapping[str, str]) -> bytes:
    """The record of a feature whose files have these hashes, by path; else as `write_record`."""
    tables = {
        "request": request.model_dump(mode="json", exclude_none=True),
        "files": {within: hashes[within] for within in sorted(hashes)},
    }
    return (_HEAD + tomli_w.dumps(tables)).encode()


def read_record(folder: Path, stage: Stage = "undo") -> Record:
    """What the record in a feature's folder says.

    Args:
        folder: the feature's.
        stage: that of what is raised.

    Raises:
        BuildError: there is none, or it is not as the builder wrote it.
    """
    try:
        return _read(folder)
    except BuildError as error:
        fix = error.fix if stage == "undo" or error.fix != _NO_RECORD_FIX else _BY_HAND_FIX
        raise BuildError(error.problem, fix=fix, stage=stage) from None


def _read(folder: Path) -> Record:
    place = f"{folder.name}/{RECORD}"
    try:
        tables = tomllib.loads(_content_of(folder / RECORD).decode())
    except FileNotFoundError:
        raise BuildError(
            f"{folder.name} has no {RECORD}: it was not built by `petsage build`",
            fix=_NO_RECORD_FIX,
            stage="undo",
        ) from None
    except OSError as error:
        raise BuildError(
            f"{place} cannot be read: {error.strerror}", fix=_NO_RECORD_FIX, stage="undo"
        ) from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise _broken(place, f"it is no TOML: {error}") from None
    unknown = sorted(tables.keys() - {"request", "files"})
    if unknown:
        raise _broken(place, f"`{unknown[0]:.50}` is no table of a record")
    request = _request_of(place, tables.get("request"))
    if request.feature != folder.name:
        raise _broken(place, f"it is the record of `{request.feature}`")
    return Record(request, _hashes_of(place, tables.get("files")))


def _content_of(path: Path) -> bytes:
    """A file's bytes; of a link, a pipe or too large a file an OSError."""
    # A pipe would be waited for, and a link may lead to what is somebody else's.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(0, "it is no ordinary file")
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(_MAX_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(content) > _MAX_BYTES:
        raise OSError(0, f"it holds more than {_MAX_BYTES:,} bytes")
    return content


def _request_of(place: str, table: Any) -> FeatureRequest:
    try:
        return FeatureRequest.model_validate(table)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, ("request", *first["loc"])))
        raise _broken(place, f"`{where:.100}`: {first['msg']}") from None


def _hashes_of(place: str, table: Any) -> dict[str, str]:
    if not isinstance(table, dict) or not table:
        raise _broken(place, "it has no table `[files]`")
    for within, value in table.items():
        parts = within.split("/")
        if not within.isprintable() or "\\" in within or {"", ".", ".."} & set(parts):
            raise _broken(place, f"files: {within!r:.100} is no path within the folder")
        if not isinstance(value, str) or not _HASH.fullmatch(value):
            raise _broken(place, f"files.{within:.100}: {value!r:.80} is no hash")
    return dict(table)


def _broken(place: str, problem: str) -> BuildError:
    return BuildError(
        f"{place} is not as the builder wrote it: {problem}",
        fix="restore it from version control, or delete the folder by hand",
        stage="undo",
    )
