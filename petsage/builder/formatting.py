"""A feature's files as ruff formats them, by settings of ours and whatever the project's say."""

import json
import os
import subprocess
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from petsage.builder.events import BuildError

SETTINGS: Final = Path(__file__).parent / "tools" / "ruff.toml"

# What a text or a name may break and a template cannot: letters that look like others, an address,
# a folder, a default that is taken for a password, a field called `l`.
_OF_TEXTS: Final = frozenset({"E741", "RUF001", "RUF002", "S104", "S105", "S106", "S108"})
_IMPORTS: Final = "I001"
# What would have ruff behave otherwise, and what is none of its business.
_LEFT_OUT: Final = ("RUFF_", "PETSAGE_")
_REASON: Final = "the text is as it was asked for"
_REPORT: Final = "report it with the request that it was built from: a template is at fault"
_TIMEOUT_S: Final = 30


@dataclass(frozen=True)
class _Found:
    """A finding of ruff.

    Attributes:
        row: the row that a comment has to stand in to allow it, from 1.
    """

    rule: str
    row: int
    message: str


def formatted(files: Mapping[str, str], name: str) -> dict[str, bytes]:
    """The files as they are written; blocks for some tens of milliseconds, and writes nothing.

    A line whose text breaks one of a few rules is given a comment that allows it.

    Args:
        files: what a feature's folder holds, by the paths in it.
        name: the feature's.

    Raises:
        BuildError: ruff cannot be run, or finds what is no text's fault.
    """
    ruff = _ruff()
    modules = [within for within in files if within.endswith(".py")]
    with ThreadPoolExecutor(len(modules) or 1) as threads:
        texts = threads.map(
            lambda within: _formatted(ruff, f"features/{name}/{within}", files[within]), modules
        )
        done = {**files, **dict(zip(modules, texts, strict=True))}
    return {within: text.encode() for within, text in done.items()}


def _ruff() -> str:
    try:
        # It is of the extra `build`, and has no types.
        from ruff import find_ruff_bin  # type: ignore[import-untyped]  # noqa: PLC0415

        return str(find_ruff_bin())
    except (ImportError, FileNotFoundError):
        raise BuildError(
            "ruff is not installed", fix="pip install 'petsage[build]'", stage="write"
        ) from None


def _formatted(ruff: str, file: str, text: str) -> str:
    text = _run(ruff, "format", file, text)
    found = _check(ruff, file, text)
    if any(each.rule == _IMPORTS for each in found):
        # Names are sorted by the numbers in them, `a_0_b` before `a_00_b`: ruff knows how.
        text = _run(ruff, "check", file, text, "--select", _IMPORTS, "--fix-only")
        found = _check(ruff, file, text)
    if found and all(each.rule in _OF_TEXTS for each in found):
        # A comment may have the formatter break a line at another place.
        text = _run(ruff, "format", file, _allowing(text, found))
        found = _check(ruff, file, text)
    if found:
        lines = [f"{file}:{each.row}: {each.rule} {each.message}" for each in found]
        raise BuildError(f"ruff finds {lines[0]}", fix=_REPORT, stage="write", details=tuple(lines))
    return text


def _check(ruff: str, file: str, text: str) -> list[_Found]:
    return [
        _Found(
            rule=each["code"] or "",
            row=each["noqa_row"] or each["location"]["row"],
            message=each["message"],
        )
        for each in json.loads(_run(ruff, "check", file, text, "--output-format", "json"))
    ]


def _allowing(text: str, found: list[_Found]) -> str:
    """The text with a comment in each row that needs one."""
    rules: defaultdict[int, set[str]] = defaultdict(set)
    for each in found:
        rules[each.row].add(each.rule)
    lines = text.split("\n")
    for row, named in rules.items():
        lines[row - 1] += f"  # noqa: {', '.join(sorted(named))} - {_REASON}"
    return "\n".join(lines)


def _run(ruff: str, command: str, file: str, text: str, *options: str) -> str:
    """What ruff makes of a text that it takes for that file's, or says of it."""
    arguments = ("--no-cache", "--config", str(SETTINGS), "--stdin-filename", file, *options)
    try:
        done = subprocess.run(  # noqa: S603 - ruff, on a text of ours # nosec B603
            [ruff, command, *arguments, "-"],
            cwd=SETTINGS.parent,
            env={
                name: value for name, value in os.environ.items() if not name.startswith(_LEFT_OUT)
            },
            input=text.encode(),
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(
            f"{file} cannot be formatted: {error}",
            fix="look whether `ruff --version` runs",
            stage="write",
        ) from error
    if done.returncode > (command == "check"):  # 1 says that there are findings
        raise BuildError(
            f"ruff {command} of {file} ended with {done.returncode}",
            fix=_REPORT,
            stage="write",
            details=tuple(done.stderr.decode(errors="replace").splitlines()),
        )
    return done.stdout.decode()
