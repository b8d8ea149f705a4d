"""A feature that was written, checked and tested by the tools that a developer would use."""

import importlib.util
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from petsage.builder.children import side_by_side
from petsage.builder.events import BuildError
from petsage.builder.toolbox import Toolbox, failed

LIMIT_S: Final = 120.0
"""How long each check, and all tests together, may take: fifty probes on a machine in use."""

_TOOLS: Final = Path(__file__).absolute().with_name("tools")
# What the extra `build` installs, by the modules that it is known by.
_NEEDED: Final[Mapping[str, str]] = {
    "mypy": "mypy",
    "openapi_spec_validator": "openapi-spec-validator",
    "pytest": "pytest",
    "pytest_aiohttp": "pytest-aiohttp",
    "pytest_asyncio": "pytest-asyncio",
    "ruff": "ruff",
    "tomli_w": "tomli-w",
}
# What a resource needs besides: of the extra `db`, and of `build` what its tests need.
_NEEDED_BY_RESOURCES: Final[Mapping[str, str]] = {
    "alembic": "alembic",
    "email_validator": "email-validator",
    "hypothesis": "hypothesis",
    "sqlalchemy": "sqlalchemy",
}
_MYPY: Final = ("--config-file", _TOOLS / "mypy.ini", "--no-color-output", "--no-error-summary")
# Its plugins are named: to import every one that is installed takes longer than most tests.
_PYTEST: Final = (
    *("-p", "pytest_asyncio.plugin", "-p", "pytest_aiohttp.plugin", "-p", "petsage.testing"),
    *("-p", "no:cacheprovider", "--verbose", "--tb=short", "--continue-on-collection-errors"),
)
_RUFF: Final = ("--config", _TOOLS / "ruff.toml", "--no-cache", "--quiet")


@dataclass(frozen=True)
class Checked:
    """A feature of which no check finds anything.

    Attributes:
        files: how many Python files it has.
        lines: how many lines they have.
    """

    files: int
    lines: int
    took_s: float

    def __str__(self) -> str:
        files = f"{self.files} Python file{'' if self.files == 1 else 's'}"
        tools = "`petsage check`, ruff and mypy find nothing"
        return f"{files}, {self.lines} lines: {tools} ({self.took_s:.1f} s)"


@dataclass(frozen=True)
class Tested:
    """A feature whose own tests pass.

    Attributes:
        tests: how many have passed.
    """

    tests: int
    took_s: float

    def __str__(self) -> str:
        tests = f"{self.tests} test{'' if self.tests == 1 else 's'} passed"
        return f"{tests} ({self.took_s:.1f} s)"


def require_tools(*, for_resources: bool = False) -> None:
    """Returns where everything is installed that a build needs beyond the core.

    Args:
        for_resources: whether the feature keeps data.

    Raises:
        BuildError: something is not; all that is missing is named.
    """
    needed = {**_NEEDED, **(_NEEDED_BY_RESOURCES if for_resources else {})}
    missing = sorted(name for module, name in needed.items() if not _is_installed(module))
    if missing:
        *others, last = missing
        names = f"{', '.join(others)} and {last}" if others else last
        verb = "are" if others else "is"
        raise BuildError(
            f"petsage build needs {names}, which {verb} not installed",
            fix=f"pip install 'petsage[{'build,db' if for_resources else 'build'}]'",
            stage="prepare",
        )


def _is_installed(module: str) -> bool:
    spec = importlib.util.find_spec(module)
    # A folder of this name that is merely on the path has no origin.
    return spec is not None and spec.origin is not None


async def check(
    feature: Path, *, beside: Sequence[Path], scratch: Path, limit_s: float = LIMIT_S
) -> Checked:
    """Looks at a feature with `petsage check`, ruff and mypy, side by side.

    Args:
        feature: its folder, `<root>/features/<name>`.
        beside: the folders of features that are there, which it must not clash with.
        scratch: a folder for what tools write.
        limit_s: how long each may take.

    Raises:
        BuildError: one of them finds something, or fails.
    """
    started = time.perf_counter()
    sources, lines = _read_sources(feature)
    if not sources:
        raise failed("check", f"there is no Python file in features/{feature.name}")
    tools = Toolbox("check", feature, scratch, limit_s)
    await side_by_side(
        tools.look_beside(beside),
        # A cache would help nobody: it is written once and never read.
        tools.require_success("mypy", "--cache-dir", os.devnull, *_MYPY, *sources),
        tools.require_success("ruff", "format", "--diff", *_RUFF, *sources),
        tools.require_success("ruff", "check", "--output-format", "concise", *_RUFF, *sources),
    )
    return Checked(len(sources), lines, time.perf_counter() - started)


async def look_beside(feature: Path, *, beside: Sequence[Path], scratch: Path) -> None:
    """Looks at a feature anew among those that are there; the arguments are those of `check`.

    Raises:
        BuildError: it clashes with one of them.
    """
    await Toolbox("check", feature, scratch, LIMIT_S).look_beside(beside)


async def test(
    feature: Path,
    *,
    scratch: Path,
    limit_s: float = LIMIT_S,  # noqa: PT028 - the function is none of pytest's
) -> Tested:
    """Runs a feature's own tests, in a process of their own.

    Args:
        feature: its folder, `<root>/features/<name>`.
        scratch: a folder for what tests write.
        limit_s: how long they may take together.

    Raises:
        BuildError: one fails, warns or leaves something behind, or there is none.
    """
    started = time.perf_counter()
    tools = Toolbox("test", feature, scratch, limit_s)
    report = tools.scratch / "tests.xml"
    ended = await tools.run(
        *("pytest", "-c", _TOOLS / "pytest.ini", *_PYTEST, "--junitxml", report),
        *("--rootdir", tools.root, "--confcutdir", tools.root),
        *("--basetemp", tools.scratch / "pytest", tools.root / "features" / feature.name),
    )
    passed, failures = _read_report(report)
    if failures:
        lines = tuple(line for name, text in failures for line in (name, *text))
        names = ", ".join(name for name, _ in failures[:3])
        more = f" and {len(failures) - 3} more" if len(failures) > 3 else ""
        raise failed("test", f"of its tests, {names}{more} failed", tools.told(lines))
    tools.require(ended, "pytest", fine=(0, 5))  # 5: there was none
    if not passed:
        raise failed("test", f"features/{feature.name} has no test that passed", ended.lines)
    return Tested(passed, time.perf_counter() - started)


def _read_sources(feature: Path) -> tuple[list[Path], int]:
    """A feature's Python files, and how many lines they have."""
    sources = sorted(feature.resolve().rglob("*.py"))
    return sources, sum(len(source.read_bytes().splitlines()) for source in sources)


def _read_report(report: Path) -> tuple[int, list[tuple[str, list[str]]]]:
    """How many tests have passed, and the name of each that failed, with what was said of it."""
    try:
        tree = ElementTree.parse(report)  # noqa: S314 - pytest wrote it # nosec B314
    except (OSError, ElementTree.ParseError):
        return 0, []  # it did not come so far
    passed, failures = 0, []
    for case in tree.iter("testcase"):
        faults = [each for each in case if each.tag in {"failure", "error"}]
        name = "::".join(filter(None, (case.get("classname"), case.get("name"))))
        if faults:
            text = [line for fault in faults for line in (fault.text or "").splitlines()]
            failures.append((name, [f"    {line}" for line in text]))
        elif case.find("skipped") is None:
            passed += 1
    return passed, failures
