"""From a request to a feature that serves: each step, told as it happens.

Longer than 300 lines: what is told of each step stands beside the step.
"""

import asyncio
import dataclasses
import shlex
import time
import traceback
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from petsage.builder import probing, verification
from petsage.builder.comparison import features_in, require_free, require_no_page
from petsage.builder.disk import as_build_error, require_room
from petsage.builder.events import BuildError, Event, Stage, Tell, tell_failure
from petsage.builder.formatting import formatted
from petsage.builder.interruption import Interrupted, cancelling, raising
from petsage.builder.plan import Plan, plan_of
from petsage.builder.record import RECORD, write_record
from petsage.builder.rendering import render
from petsage.builder.request import FeatureRequest
from petsage.builder.resource_words import commands
from petsage.builder.workspace import README, Workspace, open_workspace
from petsage.worker import in_thread

AGENT: Final = "PetSage Backend Feature Builder"
_MOUNT: Final = "/api/v1"


def draft(request: FeatureRequest) -> dict[str, bytes]:
    """Every file of the feature that a request comes to, by its path within the folder.

    Raises:
        BuildError: a file cannot be formatted.
    """
    files = formatted(render(plan_of(request)), request.feature)
    return {**files, RECORD: write_record(request, files)}


def show(
    request: FeatureRequest,
    folder: Path,
    page_folder: Path | None,
    tell: Tell,
    *,
    beside: Sequence[Path] = (),
) -> None:
    """Tells each file as it would be built; the arguments are those of `build`.

    That its name is taken is told, too: its files can be looked at all the same.

    Raises:
        BuildError: a file cannot be formatted.
    """
    files = draft(request)
    page = None if page_folder is None else page_folder / f"{request.feature}.md"
    try:
        for place in (folder, *beside):
            require_free(place / request.feature, "prepare")
        if page is not None:
            require_no_page(page, files[README], "prepare")
    except BuildError as error:
        tell(Event("TAKEN", f"{error.problem}; fix: {error.fix}", {"fix": error.fix}))
    told = listed(files)
    tell(Event("FILES", _amount(told), {"folder": request.feature, "files": told}))
    for each in told:
        path, content = str(folder / request.feature / each["path"]), files[each["path"]]
        tell(Event("FILE", path, {**each, "path": path, "content": content.decode()}))
    if page is not None:
        tell(Event("PAGE", f"{page}, the same as README.md", {"path": str(page)}))
    tell(Event("STATUS", "DRY RUN COMPLETE"))


async def build(
    read: Callable[[], FeatureRequest],
    *,
    folder: Path,
    page_folder: Path | None,
    address: str,
    tell: Tell,
    beside: Sequence[Path] = (),
) -> bool:
    """Whether the feature is built: checked, tested, served and in its place.

    Everything is told, a failure too; of a feature that is not built, nothing is left by then.

    Args:
        read: gives the request; it may block.
        folder: the folder of features.
        page_folder: where its README is to be as a page, `<name>.md`; None for nowhere.
        address: of the server that will serve it, for the commands to try.
        tell: is called with each event, in this task.
        beside: the other folders of features that this server has.

    Raises:
        SystemExit: Ctrl-C, SIGTERM or SIGHUP has ended it, with 128 and the signal's number.
    """
    return await carried_out(Making(folder, page_folder, address, tell, beside), read)


async def carried_out(making: "Making", read: Callable[[], FeatureRequest]) -> bool:
    """Whether a build, or what is like one, has come to its end; everything is told.

    Raises:
        SystemExit: as `build`.
    """
    try:
        with raising():
            request = making.decode(read)
        with cancelling():
            await making.make(request)
    except BuildError as error:
        making.tell_failure(error)
    except Interrupted as interrupted:
        making.tell_end(f"it was interrupted by {interrupted.name}")
        raise SystemExit(interrupted.exit_code) from None
    except asyncio.CancelledError:
        making.tell_end("it was cancelled")
        raise
    except Exception as error:  # noqa: BLE001 - a fault of ours; it is told with its traceback
        making.tell_fault(error)
    else:
        return True
    return False


class Making:
    """One build; the arguments are those of `build`."""

    what = "BUILD"

    def __init__(
        self,
        folder: Path,
        page_folder: Path | None,
        address: str,
        tell: Tell,
        beside: Sequence[Path],
    ) -> None:
        self._folder = folder.absolute()
        self._page_folder = page_folder
        self._address = address.rstrip("/")
        self._tell = tell
        self._beside = [each.absolute() for each in beside if each.absolute() != self._folder]
        self._stage: Stage = "decode"
        self._began = time.perf_counter(), time.process_time()

    def decode(self, read: Callable[[], FeatureRequest]) -> FeatureRequest:
        """The request, once it is read."""
        self._tell(Event("STATUS", "PROCESSING PAYLOAD"))
        self._tell(Event("AGENT", AGENT))
        self._tell(Event("ACTION", "DECODING MESSAGE"))
        request = read()
        asked = request.model_dump(mode="json", exclude_none=True)["requirements"]
        told = asked if isinstance(asked, str) else ", ".join(_told_of(request))
        self._tell(Event("DECODING COMPLETE"))
        self._tell(Event("FEATURE REQUEST", request.feature, {"feature": request.feature}))
        self._tell(Event("DESCRIPTION", request.description, {"description": request.description}))
        self._tell(Event("REQUIREMENTS", told, {"requirements": asked}))
        return request

    async def make(self, request: FeatureRequest) -> None:
        """Builds it; nothing is left where that raises."""
        self._stage = "prepare"
        self._tell(Event("ACTION", f"INITIATING FEATURE {self.what}"))
        plan = plan_of(request)
        verification.require_tools(for_resources=bool(plan.resources))
        for each in self._beside:
            require_free(each / plan.name, "prepare")
        page = None if self._page_folder is None else self._page_folder / f"{plan.name}.md"
        with open_workspace(self._folder, plan.name) as workspace:
            files = await self._write(request, workspace, page)
            seen = self._neighbours()
            results = await self._verify(plan, workspace)
            place = await self._publish(workspace, page, seen)
        self._tell_success(plan, place, files, results)

    async def _write(
        self, request: FeatureRequest, workspace: Workspace, page: Path | None
    ) -> list[dict[str, Any]]:
        """Writes the files; what machines are told of each."""
        self._stage = "write"
        files = await in_thread(draft, request)
        if page is not None:
            require_no_page(page, files[README], "prepare")
        workspace.write(files)
        return self._tell_files(request, files)

    def _tell_files(
        self, request: FeatureRequest, files: Mapping[str, bytes]
    ) -> list[dict[str, Any]]:
        """Tells what was written; what machines are told of each file."""
        told = listed(files)
        self._tell(Event("FILES", _amount(told), {"folder": request.feature, "files": told}))
        return told

    async def _verify(self, plan: Plan, workspace: Workspace) -> dict[str, Any]:
        """Checks, tests and serves it at once; each result by its label, told in this order.

        The first that fails ends the others.
        """
        feature, scratch = workspace.feature, workspace.scratch
        beside = self._served_beside(workspace)
        ways: dict[Stage, tuple[str, Callable[[Path], Coroutine[Any, Any, object]]]] = {
            "check": (
                "CHECKED",
                lambda own: verification.check(feature, beside=beside, scratch=own),
            ),
            "test": ("TESTED", lambda own: verification.test(feature, scratch=own)),
            "probe": ("PROBED", lambda own: probing.probe(plan, feature, scratch=own)),
        }
        self._stage = "check"
        for stage in ways:
            (scratch / stage).mkdir()
        results: dict[str, Any] = {}
        try:
            async with asyncio.TaskGroup() as group:
                tasks = {
                    stage: group.create_task(way(scratch / stage), name=f"build-{stage}")
                    for stage, (_, way) in ways.items()
                }
                for stage, task in tasks.items():
                    self._stage = stage
                    label, result = ways[stage][0], await task
                    results[label] = result
                    self._tell(Event(label, str(result), _figures(result)))
        except BaseExceptionGroup as errors:
            with as_build_error(self._stage, self._folder):  # each tool tells it in its own way
                require_room(workspace.root)
            raise errors.exceptions[0] from None  # the others were ended for its sake
        return results

    async def _publish(self, workspace: Workspace, page: Path | None, seen: list[Path]) -> Path:
        """Puts it in its place; what has come beside it since it was checked is looked at first."""
        while True:
            self._stage = "publish"
            place = self._place(workspace, page, partial(self._is_among, seen))
            if place is not None:
                return place
            self._stage, seen = "check", self._neighbours()
            await verification.look_beside(
                workspace.feature,
                beside=self._served_beside(workspace),
                scratch=workspace.scratch / "check",
            )

    def _served_beside(self, _: Workspace) -> list[Path]:
        """The folders of the features that it is checked with."""
        return self._folders()

    def _place(
        self, workspace: Workspace, page: Path | None, is_up_to_date: Callable[[], bool]
    ) -> Path | None:
        """Where it is; None where what it was checked with is not so any more."""
        return workspace.publish(page, is_up_to_date)

    def _neighbours(self) -> list[Path]:
        """The features that it will serve with."""
        return features_in(self._folders(), self._stage)

    def _is_among(self, seen: list[Path]) -> bool:
        """Whether it will serve with these, and no others."""
        return self._neighbours() == seen

    def _folders(self) -> list[Path]:
        """The folders of features that are there."""
        return [each for each in (self._folder, *self._beside) if each.is_dir()]

    def _tell_success(
        self, plan: Plan, place: Path, files: list[dict[str, Any]], results: Mapping[str, Any]
    ) -> None:
        took_s, own_s = time.perf_counter() - self._began[0], time.process_time() - self._began[1]
        where = _shown(place)
        self._tell(Event("STATUS", f"{self.what} COMPLETE"))
        self._tell(
            Event("FEATURE", f"{plan.name} in {where}", {"feature": plan.name, "folder": where})
        )
        figures = {label.lower(): _figures(result) for label, result in results.items()}
        assessed = "; ".join((_amount(files), *(str(result) for result in results.values())))
        self._tell(Event("ASSESSMENT", assessed, figures))
        self._tell(
            Event(
                "TIME",
                f"{took_s:.1f} s, of which {own_s:.1f} s of the builder's own work",
                {"took_s": round(took_s, 3), "own_s": round(own_s, 3)},
            )
        )
        for command, url in _to_try(plan, self._address):
            self._tell(Event("TRY", command, {"url": url}))

    def tell_end(self, problem: str) -> None:
        """Tells that it was ended from outside."""
        self.tell_failure(BuildError(problem, fix="run it again", stage=self._stage))

    def tell_fault(self, error: Exception) -> None:
        """Tells of what must not happen, with all that helps to mend it."""
        self.tell_failure(
            BuildError(
                f"a fault in PetSage itself: {type(error).__name__}: {error}",
                fix="report it with these lines",
                stage=self._stage,
                details=tuple(traceback.format_exception(error)),
            )
        )

    def tell_failure(self, error: BuildError) -> None:
        """Tells why it is not built, and what to do."""
        tell_failure(self.what, error, self._tell)


def _told_of(request: FeatureRequest) -> Iterator[str]:
    """What is required, in a few words each."""
    for each in request.requirements if request.requirements != "none" else ():
        path = each.path_in(request)
        if each.kind == "resource":
            number = len(each.fields)
            yield f"{each.kind} {path}: {number} field{'' if number == 1 else 's'}"
        else:
            yield f"{each.kind} {path}"


def _to_try(plan: Plan, address: str) -> Iterator[tuple[str, str]]:
    """Commands that ask what was built, each with the URL that it asks."""
    for path in (*(probe.path for probe in plan.probes), plan.receipt_path):
        if path is not None:
            url = f"{address}{_MOUNT}{path}"
            yield f"curl -i {shlex.quote(url)}", url
    for resource in plan.resources:
        url = f"{address}{_MOUNT}{resource.path}"
        for name, command in commands(resource, address).items():
            if name in {"create", "list"}:
                yield command, url


def listed(files: Mapping[str, bytes]) -> list[dict[str, Any]]:
    """What machines are told of files, given each one's bytes by its path."""
    return [
        {"path": within, "bytes": len(files[within]), "lines": files[within].count(b"\n")}
        for within in sorted(files)
    ]


def _amount(files: Sequence[Mapping[str, Any]]) -> str:
    return f"{len(files)} files, {sum(each['lines'] for each in files)} lines"


def _figures(result: Any) -> dict[str, Any]:
    return dataclasses.asdict(result)


def _shown(path: Path) -> str:
    """A path as it is named from where the command was called."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
