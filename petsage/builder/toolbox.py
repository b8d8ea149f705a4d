"""The tools that a developer would use, run on a feature that was written."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from petsage.builder.children import KEPT_BYTES, Ended, environment, guarded, run
from petsage.builder.events import BuildError, Stage

AT_FAULT: Final = "report it together with the request: what the builder writes is at fault"
"""What to do about a feature that is not right, where its request was."""

BUSY: Final = "try again when the machine has less to do"
KILLED: Final = "see that the machine has memory to spare, and try again"

_FOLDERS: Final = "PETSAGE_CATALOG__FOLDERS"
# A line for each feature that is there, and for each finding.
_SURVEY_BYTES: Final = 16 * 1024**2
_MOST_LINES: Final = 200


class Toolbox:
    """Runs tools on a feature.

    Args:
        stage: that of the build, for what is raised; the others are those of `check`.

    Attributes:
        root: what the feature's name is below, as `features.<name>`; tools run in it.
    """

    def __init__(self, stage: Stage, feature: Path, scratch: Path, limit_s: float) -> None:
        self._stage: Stage = stage
        self._name = feature.name
        # Tools compare what they are given with their own folder, which has no link in it.
        self.root = feature.resolve().parent.parent
        self.scratch = scratch.absolute()
        self._limit_s = limit_s

    async def look_beside(self, beside: Sequence[Path]) -> None:
        """Requires that `petsage check` finds nothing of the feature among all that are there.

        The others are looked at as this project's settings have them: that is how they serve.
        """
        folders = [str(folder.absolute()) for folder in (*beside, self.root / "features")]
        settings = {
            name: text
            for name, text in os.environ.items()
            if name.upper().startswith("PETSAGE_") and name.upper() != _FOLDERS
        }
        settings[_FOLDERS] = json.dumps(folders)
        ended = await self._ended(
            *("petsage", "check", "--json"),
            cwd=Path.cwd(),
            settings=settings,
            kept_bytes=_SURVEY_BYTES,
        )
        try:
            surveyed = json.loads(ended.output)["features"]
        except (ValueError, KeyError, TypeError):
            raise self._told_by_itself(ended) or self._failure(ended, "petsage check") from None
        findings = list(self._findings(surveyed))
        if findings:
            lines = [f"{_place(each)}: {each['id']}: {each['problem']}" for each in findings]
            raise BuildError(
                self.told(lines)[0],
                fix=findings[0]["fix"],
                stage=self._stage,
                details=self.told(lines)[1:],
            )
        if not any(each["name"] == self._name for each in surveyed):
            raise BuildError(
                f"`petsage check` passes over the feature {self._name}",
                fix=f"take `{self._name}` out of [catalog].disabled",
                stage=self._stage,
            )

    def _findings(self, surveyed: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Those of the feature, and clashes with it that are told of others.

        Of two that clash, the one that needs less is there first, wherever its folder is.
        """
        for each in surveyed:
            for finding in each["findings"]:
                clashes = finding["id"] == "route-clash" and f"`{self._name}`" in finding["problem"]
                if each["name"] == self._name or clashes:
                    yield finding

    async def require_success(self, tool: str, *arguments: str | Path) -> None:
        """Requires that a tool has nothing to say against the feature."""
        self.require(await self.run(tool, *arguments), f"{tool} {arguments[0]}".split(" --")[0])

    def require(self, ended: Ended, tool: str, *, fine: Sequence[int] = (0,)) -> None:
        """Requires that a tool has ended with one of these codes."""
        if ended.code not in fine:
            raise self._failure(ended, tool)

    async def run(self, tool: str, *arguments: str | Path) -> Ended:
        """What became of a tool, run in the feature's root."""
        return await self._ended(tool, *arguments, cwd=self.root)

    def told(self, lines: Sequence[str]) -> tuple[str, ...]:
        """Lines for people: without the folder that the feature is only built in."""
        most = [*lines[:_MOST_LINES], *(["…"] if len(lines) > _MOST_LINES else [])]
        return tuple(line.replace(f"{self.root}{os.sep}", "") for line in most)

    async def _ended(
        self,
        tool: str,
        *arguments: str | Path,
        cwd: Path,
        settings: Mapping[str, str] | None = None,
        kept_bytes: int = KEPT_BYTES,
    ) -> Ended:
        try:
            return await run(
                guarded(tool, *arguments),
                cwd=cwd,
                environment=environment(
                    self.scratch,
                    PYTEST_DISABLE_PLUGIN_AUTOLOAD="1",
                    HYPOTHESIS_STORAGE_DIRECTORY=str(self.scratch / "hypothesis"),
                    **(settings or {}),
                ),
                limit_s=self._limit_s,
                kept_bytes=kept_bytes,
            )
        except OSError as error:
            raise BuildError(
                f"{tool} cannot be started: {error.strerror}",
                fix="look at the machine, and try again",
                stage=self._stage,
            ) from error

    def _told_by_itself(self, ended: Ended) -> BuildError | None:
        """What `petsage check` says where it can look at nothing: the settings are wrong, say."""
        problem, found, fix = (ended.lines or ("",))[-1].partition("; fix: ")
        if ended.code is None or not found:
            return None
        return BuildError(problem, fix=fix, stage=self._stage)

    def _failure(self, ended: Ended, tool: str) -> BuildError:
        lines = self.told(ended.lines)
        if ended.code is None:
            return BuildError(
                f"{tool} did not end within {self._limit_s:g} s",
                fix=BUSY,
                stage=self._stage,
                details=lines,
            )
        if ended.code < 0:
            return BuildError(
                f"{tool} {ended.how}",
                fix=KILLED,
                stage=self._stage,
                details=lines,
            )
        first = lines[0] if lines else ended.how
        return failed(self._stage, f"{tool}: {first}", lines[1:])


def _place(finding: Mapping[str, Any]) -> str:
    return f"{finding['file']}:{finding['line']}" if finding["line"] else str(finding["file"])


def failed(stage: Stage, problem: str, details: Sequence[str] = ()) -> BuildError:
    """What is raised where a feature is not right, and its request was."""
    return BuildError(problem, fix=AT_FAULT, stage=stage, details=tuple(details))
