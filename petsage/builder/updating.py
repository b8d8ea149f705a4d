"""From a feature that serves to what it is to be: each step, told as it happens."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from petsage.builder import verification
from petsage.builder.amendment import Amendment, amendment_of
from petsage.builder.building import Making, carried_out, listed
from petsage.builder.comparison import differences, holds
from petsage.builder.disk import as_build_error, remove_tree
from petsage.builder.events import BuildError, Event, Tell
from petsage.builder.record import RECORD, hash_of, read_record
from petsage.builder.request import FeatureRequest
from petsage.builder.toolbox import AT_FAULT
from petsage.builder.update_reader import Update
from petsage.builder.workspace import README, Workspace, open_removal
from petsage.worker import in_thread


async def update(
    read: Callable[[], Update],
    *,
    folder: Path,
    page_folder: Path | None,
    address: str,
    tell: Tell,
    beside: Sequence[Path] = (),
) -> bool:
    """Whether a feature that was built is what it is to be; where it is not, it is as before.

    What was edited since it was built is left as it is, and told. The arguments are those of
    `build`, but for `read`, which gives the update.

    Raises:
        SystemExit: Ctrl-C, SIGTERM or SIGHUP has ended it, with 128 and the signal's number.
    """
    updating = Updating(folder, page_folder, address, tell, beside)
    return await carried_out(updating, lambda: updating.read(read))


def show_update(asked: Update, folder: Path, page_folder: Path | None, tell: Tell) -> None:
    """Tells each file as an update would write it, and what it would leave.

    Raises:
        BuildError: a file cannot be read, or formatted.
    """
    feature = folder / asked.request.feature
    with as_build_error("prepare", folder):
        amendment = amendment_of(feature, asked.record, asked.request, asked.growths)
    files = listed(amendment.files)
    for event in _events(asked, amendment):
        tell(event)
    for each in files:
        content = amendment.files[each["path"]].decode()
        path = str(feature / each["path"])
        tell(Event("FILE", path, {**each, "path": path, "content": content}))
    if page_folder is not None and README in amendment.files:
        page = page_folder / f"{feature.name}.md"
        _, told = _page_of(page, feature, amendment.files[README], asked.record.hashes)
        tell(told or Event("PAGE", f"{page}, the same as README.md", {"path": str(page)}))
    tell(Event("STATUS", "DRY RUN COMPLETE"))


class Updating(Making):
    """One update; the arguments are those of `update`."""

    what = "UPDATE"
    _asked: Update
    _text: bytes = b""

    def read(self, read: Callable[[], Update]) -> FeatureRequest:
        """What the feature is to be."""
        self._asked = read()
        return self._asked.request

    async def make(self, request: FeatureRequest) -> None:
        """Makes it; all is as before where that raises."""
        self._stage = "prepare"
        self._tell(Event("ACTION", f"INITIATING FEATURE {self.what}"))
        resources = request.resources()
        verification.require_tools(for_resources=bool(resources))
        with open_removal(self._folder, request.feature, "prepare") as workspace:
            workspace.copy()
            self._require_same(workspace.feature)
            with as_build_error("prepare", self._folder):
                asked = self._asked
                amendment = await in_thread(
                    amendment_of, workspace.feature, asked.record, request, asked.growths
                )
                edits = _edits(workspace.feature, asked)
            for event in _events(asked, amendment):
                self._tell(event)
            if not amendment.files and not amendment.gone:
                self._tell(Event("STATUS", "NOTHING TO UPDATE"))
                text = f"{request.feature} is what was asked for"
                self._tell(Event("FEATURE", text, {"feature": request.feature}))
                return
            self._stage = "write"
            page = self._page(workspace, amendment)
            workspace.amend(amendment.files, amendment.gone)
            files = self._tell_files(request, amendment.files)
            seen = self._neighbours()
            try:
                results = await self._verify(amendment.plan, workspace)
            except BuildError as error:
                raise _explained(error, amendment, edits) from None
            place = await self._publish(workspace, page, seen)
        self._tell_success(amendment.plan, place, files, results)

    def _require_same(self, feature: Path) -> None:
        """Refuses where another update has come between."""
        if read_record(feature, "prepare") != self._asked.record:
            raise BuildError(
                f"{feature.name} has become another while this was read",
                fix="run it again",
                stage="prepare",
            )

    def _page(self, workspace: Workspace, amendment: Amendment) -> Path | None:
        """The page, where it is to say something else from now on."""
        if self._page_folder is None or README not in amendment.files:
            return None
        page = self._page_folder / f"{amendment.plan.name}.md"
        self._text = amendment.files[README]
        with as_build_error("prepare", self._folder):
            is_ours, told = _page_of(page, workspace.feature, self._text, self._asked.record.hashes)
        if told is not None:
            self._tell(told)
        return page if is_ours else None

    def _place(
        self, workspace: Workspace, page: Path | None, is_up_to_date: Callable[[], bool]
    ) -> Path | None:
        return workspace.replace(page, self._text, is_up_to_date)

    def _served_beside(self, workspace: Workspace) -> list[Path]:
        """Folders that link to all features but the one whose place it takes."""
        mirrors = workspace.scratch / "beside"
        with as_build_error("check", self._folder):
            remove_tree(mirrors)
            for number, folder in enumerate(self._folders()):
                mirror = mirrors / str(number)
                mirror.mkdir(parents=True)
                for feature in self._neighbours():
                    is_it = feature == workspace.folder / workspace.feature.name
                    if feature.parent == folder and not is_it:
                        (mirror / feature.name).symlink_to(feature)
            return sorted(mirrors.iterdir())


def _events(asked: Update, amendment: Amendment) -> list[Event]:
    """What an update does, beside writing files."""
    events = []
    for growth, path in zip(asked.growths, amendment.added, strict=True):
        added = {"resource": growth.resource, "fields": [*growth.fields]}
        indexed = [*growth.indexed]
        words = [", ".join(growth.fields)] * bool(growth.fields)
        words += [f"an index of {', '.join(indexed)}"] * bool(indexed)
        text = f"{' and '.join(words)} to {growth.resource}, by {path}"
        events.append(Event("ADDED", text, {**added, "indexed": indexed, "migration": path}))
    for path in amendment.gone:
        text = f"{path}, which the builder makes no more"
        events.append(Event("GONE", text, {"path": path}))
    events += [
        Event("MISSING", f"{path} was deleted, and stays so", {"path": path})
        for path in amendment.missing
    ]
    for each in amendment.left:
        text = f"{each.path} was edited; the builder would change"
        events.append(Event("LEFT", text, {"path": each.path, "difference": each.difference}))
    return events


def _edits(feature: Path, asked: Update) -> list[str]:
    """In what a feature is not as it was built."""
    kept = {**asked.record.hashes, RECORD: hash_of((feature / RECORD).read_bytes())}
    return differences(feature, kept)


def _explained(error: BuildError, amendment: Amendment, edits: list[str]) -> BuildError:
    """What does not go, with what to do where somebody has edited the feature."""
    if error.fix != AT_FAULT or not edits:
        return error
    if amendment.left:
        names = ", ".join(each.path for each in amendment.left)
        fix = f"make the changes that are shown above in {names} yourself, and run it again"
    else:
        more = f", and {len(edits) - 1} more" if len(edits) > 1 else ""
        fix = f"see that what was edited goes with the update: {edits[0]}{more}"
    return BuildError(error.problem, fix=fix, stage=error.stage, details=error.details)


def _page_of(
    page: Path, feature: Path, text: bytes, hashes: Mapping[str, str]
) -> tuple[bool, Event | None]:
    """Whether a page is to say a text from now on; what is told where it is left.

    Args:
        page: where it is.
        feature: the folder before it is amended.
        text: what the README says from now on.
        hashes: those of the record.
    """
    about: dict[str, Any] = {"path": str(page)}
    if not page.is_file():
        return False, Event("MISSING", f"{page} was deleted, and stays so", about)
    there = page.read_bytes()
    if there == text:
        return False, None
    if hash_of(there) == hashes.get(README) or holds(feature / README, there):
        return True, None
    told = f"{page} was edited; it is not what README.md says"
    return False, Event("LEFT", told, {**about, "difference": ""})
