"""Where a feature is built, and from where it is put in its place, or taken out of it, in one step.

A workspace is a folder `.petsage-build-<name>-<8 hex>` inside the folder of features: a rename is
one step on one file system only, and a name with a dot is no feature to anybody. Its process holds
a lock on it; one whose lock nobody holds is what a killed process has left, and is swept by the
next. The folder of features is locked while one is made, published or swept, so that two processes
see each other. Both locks are on the folders themselves, so that no file stays.

Longer than 300 lines: what a killed process can leave, and what the next makes of it, is one
promise.
"""

import contextlib
import json
import logging
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from petsage.builder.comparison import (
    differences,
    holds,
    require_free,
    require_no_page,
)
from petsage.builder.disk import (
    as_build_error,
    locked,
    make_missing,
    remove_empty,
    remove_tree,
    sync,
    try_lock,
    write_new,
)
from petsage.builder.events import BuildError, Stage
from petsage.builder.exchange import contents, copy_folder, exchange
from petsage.builder.record import hash_of
from petsage.listing import Listing, is_noise
from petsage.ownership import find_unsafe

_log = logging.getLogger(__name__)

README: Final = "README.md"

_NAME: Final = re.compile(r"\.petsage-build-([a-z][a-z0-9_]{0,62})-[0-9a-f]{8}")
# Where the folder of a feature is that was taken out, so that its rename tells that it was.
_TAKEN_OUT: Final = "taken_out"
# What is to become of the page once the rename is done, and the page itself.
_INTENT: Final = "intent.json"
_PAGE: Final = "page.md"
# Where a feature is for a moment whose place another takes, where that takes two renames.
_REPLACED: Final = "replaced"


class Workspace:
    """A workspace of this process.

    Attributes:
        root: the workspace; nothing of it stays.
        feature: where the feature is written and checked: `<root>/features/<name>`.
        scratch: for whatever a check writes.
        folder: the folder of features that it is in.
    """

    def __init__(self, folder: Path, root: Path, name: str) -> None:
        self.folder = folder
        self.root = root
        self.feature = root / "features" / name
        self.scratch = root / "scratch"
        self._name = name
        self._hashes: dict[str, str] = {}
        self._original: dict[str, str] = {}
        self._amended: dict[str, str] = {}
        self._kept: frozenset[Path] = frozenset()

    def write(self, files: Mapping[str, bytes]) -> None:
        """Writes the feature; each file is on the disk when this returns.

        Files are 0644 and folders 0755 whatever the umask: PetSage refuses what others may write.

        Args:
            files: each file's bytes, by its path within the feature.

        Raises:
            BuildError: the disk is full, or the like.
        """
        with as_build_error("write", self.folder):
            folders = {self.feature.parent, self.feature}
            for within, data in files.items():
                path = self.feature / within
                make_missing(path.parent)
                write_new(path, data)
                folders.add(path.parent)
            for each in folders:
                sync(each)
        self._hashes = {within: hash_of(data) for within, data in files.items()}

    def publish(
        self, page: Path | None, is_up_to_date: Callable[[], bool] = lambda: True
    ) -> Path | None:
        """Puts the feature in its place, and its README where its page is to be: both or neither.

        Args:
            page: where its page is to be; None for nowhere.
            is_up_to_date: whether what was checked is still so; asked where nobody else publishes.

        Returns:
            Where the feature is; None where it is not up to date, and everything is as before.

        Raises:
            BuildError: something is in its place or the page's, it is not what was written, the
                disk is full, or the like; then everything is as before.
        """
        target = self.folder / self._name
        made: list[Path] = []
        with locked(self.folder, "publish"), as_build_error("publish", self.folder):
            self._require_unchanged()
            require_free(target, "publish")
            if not is_up_to_date():
                return None
            if page is not None:
                self._keep_page(page)
            try:
                if page is not None:
                    made = make_missing(page.parent)
                self.feature.rename(target)
                self._settle(target, page)
            except BaseException:
                remove_empty(made)
                raise
        return target

    def copy(self) -> None:
        """Makes the feature what it is in its place, whatever that holds.

        Raises:
            BuildError: it cannot be read or written, or somebody edits it at this moment.
        """
        target = self.folder / self._name
        with as_build_error("prepare", self.folder):
            self._original = contents(target)
            copy_folder(target, self.feature)
            if contents(self.feature) != self._original:
                raise _edited(target, "prepare")
            self._kept = frozenset(
                self.feature / within for within in self._original if is_noise(Path(within).name)
            )

    def amend(self, files: Mapping[str, bytes], gone: Iterable[str] = ()) -> None:
        """Changes files of the copy, which keep the modes that they have.

        Args:
            files: each file's bytes, by its path within the feature.
            gone: the files that are removed.

        Raises:
            BuildError: the disk is full, or the like.
        """
        with as_build_error("write", self.folder):
            for within in gone:
                (self.feature / within).unlink()
            for within, data in files.items():
                path = self.feature / within
                mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else None
                path.unlink(missing_ok=True)
                make_missing(path.parent)
                write_new(path, data)
                if mode is not None:
                    path.chmod(mode)
                sync(path.parent)
            sync(self.feature)
            self._amended = contents(self.feature)

    def replace(
        self,
        page: Path | None,
        text: bytes = b"",
        is_up_to_date: Callable[[], bool] = lambda: True,
    ) -> Path | None:
        """Puts the feature in the place of what it was copied from, in one step.

        Args:
            page: the page that is to say something else from now on; None for none.
            text: what it is to say.
            is_up_to_date: whether what was checked is still so; asked where nobody else publishes.

        Returns:
            Where the feature is; None where it is not up to date, and everything is as before.

        Raises:
            BuildError: what is in its place was edited since, it is not what was written, the disk
                is full, or the like; then everything is as before.
        """
        target = self.folder / self._name
        with locked(self.folder, "publish"), as_build_error("publish", self.folder):
            self._require_unchanged()
            if not is_up_to_date():
                return None
            if page is not None:
                self._keep_new_page(page, text)
            if not target.is_dir() or contents(target) != self._original:
                raise _edited(target, "publish")
            exchange(self.feature, target, self.root / _REPLACED)
            try:
                sync(self.folder)
                if page is not None:
                    _replace_page(self.root / _PAGE, page)
            except BaseException:
                exchange(self.feature, target, self.root / _REPLACED)
                raise
        return target

    def _keep_new_page(self, page: Path, text: bytes) -> None:
        """Keeps what the next run needs to complete an exchange that is killed behind its step."""
        write_new(self.root / _PAGE, text)
        state = self.feature.stat()
        _write_intent(
            self.root,
            {
                "page": str(page.absolute()),
                "replaces": hash_of(page.read_bytes()),
                "folder": [state.st_dev, state.st_ino],
            },
        )

    def _settle(self, target: Path, page: Path | None) -> None:
        """Does what follows the rename; where it fails, the feature is moved back."""
        try:
            sync(self.folder)
            if page is not None:
                _place(self.root / _PAGE, page)
        except BaseException:
            target.rename(self.feature)
            raise

    def take_out(self, page: Path | None, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Takes the feature of this name out of its place, and removes its page.

        Args:
            page: its page; None for none.
            meanwhile: is called once it is out; where that raises, it is put back.

        Raises:
            BuildError: it cannot be moved, or the page cannot be removed.
        """
        target = self.folder / self._name
        with locked(self.folder, "undo"), as_build_error("undo", self.folder):
            if page is not None and not page.is_file():
                page = None
            if page is not None:
                _keep_intent(self.root, page, removes=hash_of(page.read_bytes()))
            taken_out = self.root / _TAKEN_OUT
            target.rename(taken_out)
            try:
                meanwhile()
                if page is not None:
                    page.unlink()
            except BaseException:
                taken_out.rename(target)
                raise
            sync(self.folder)

    def _require_unchanged(self) -> None:
        """Removes what running it has left, and refuses if anything else is not as it was."""
        for folder, folders, files in os.walk(self.feature):
            kept = {name for name in (*folders, *files) if Path(folder, name) in self._kept}
            for name in filter(is_noise, {*folders, *files} - kept):
                remove_tree(Path(folder, name))
            folders[:] = [name for name in folders if not is_noise(name)]
        if self._amended:
            found = _differing(contents(self.feature), self._amended)
        else:
            found = differences(self.feature, self._hashes)
        if found:
            raise BuildError(
                f"{self._name} is not what was written any more: its checks have changed it",
                fix="see what of it writes into its own folder",
                stage="publish",
                details=tuple(found),
            )

    def _keep_page(self, page: Path) -> None:
        """Keeps what the next run needs to complete a publication that is killed half way."""
        require_no_page(page, (self.feature / README).read_bytes(), "publish")
        write_new(self.root / _PAGE, (self.feature / README).read_bytes())
        _keep_intent(self.root, page)


@contextlib.contextmanager
def open_workspace(folder: Path, name: str) -> Iterator[Workspace]:
    """A workspace for a feature that is to be built, removed with whatever is in it at the end.

    What killed processes have left is swept first. The folder of features is made where it is
    missing, and removed again where it stays empty.

    Args:
        folder: the folder of features.
        name: a feature's name; nothing in the folder has it.

    Raises:
        BuildError: there is something of that name, or another process builds it; the folder cannot
            be written; the server would not take a feature from it.
    """
    folder = folder.absolute()
    made: list[Path] = []
    try:
        with _opened(folder, name, "prepare", made) as workspace:
            yield workspace
    finally:
        if made:
            # What cannot be removed has something in it by now.
            with contextlib.suppress(OSError, BuildError), locked(folder, "prepare"):
                remove_empty(made)


@contextlib.contextmanager
def open_removal(folder: Path, name: str, stage: Stage = "undo") -> Iterator[Workspace]:
    """A workspace for a feature that is to be taken out, or whose place another is to take.

    What killed processes left is swept.

    Raises:
        BuildError: another process builds or removes that feature; the folder cannot be written.
    """
    with _opened(folder.absolute(), name, stage, None) as workspace:
        yield workspace


def sweep(folder: Path, stage: Stage) -> None:
    """Removes what killed processes have left in a folder of features, and completes the rest.

    Raises:
        BuildError: the folder cannot be read.
    """
    if folder.is_dir():
        with locked(folder.absolute(), stage), as_build_error(stage, folder):
            _sweep(folder.absolute())


@contextlib.contextmanager
def _opened(folder: Path, name: str, stage: Stage, made: list[Path] | None) -> Iterator[Workspace]:
    root = folder / f".petsage-build-{name}-{secrets.token_hex(4)}"
    with contextlib.ExitStack() as kept:
        with locked(folder, stage, made), as_build_error(stage, folder):
            if name in _sweep(folder):
                raise BuildError(
                    f"{name} is being built or removed by another process in {folder}",
                    fix="wait until that has ended",
                    stage=stage,
                )
            if made is not None:
                require_free(folder / name, stage)
                _require_safe(folder)
            try:
                root.mkdir(mode=0o700)
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(folder)) from error
            kept.callback(_clean_up, root)
            root.chmod(0o700)
            lock = try_lock(root)
            if lock is not None:  # nobody else knows of it
                kept.callback(os.close, lock)
                kept.callback(_clean_up, root)  # before that: what is not locked may be swept
            make_missing(root / "features" / name)
            make_missing(root / "scratch")
        yield Workspace(folder, root, name)


def _sweep(folder: Path) -> set[str]:
    """Removes the workspaces that are nobody's; the features whose workspaces are somebody's."""
    busy = set()
    with os.scandir(folder) as entries:
        found = [(entry, match) for entry in entries if (match := _NAME.fullmatch(entry.name))]
    for entry, match in found:
        try:
            state = entry.stat(follow_symlinks=False)
            # A link, or a stranger's folder, is none of ours.
            if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.geteuid():
                continue
            lock = try_lock(Path(entry.path))
        except FileNotFoundError:  # its own process has just removed it
            continue
        if lock is None:
            busy.add(match[1])
            continue
        try:
            _complete(Path(entry.path), match[1])
            _clean_up(Path(entry.path))
        except OSError as error:
            _log.warning("The page of %s is not as it is to be: %s; fix: mend it", match[1], error)
        finally:
            os.close(lock)
    return busy


def _complete(root: Path, name: str) -> None:
    """Does with a page what was to be done, where its process was killed behind the rename.

    Raises:
        OSError: it cannot be done.
    """
    target = root.parent / name
    if (root / _REPLACED).exists() and not os.path.lexists(target):
        (root / _REPLACED).rename(target)
    try:
        intent = json.loads((root / _INTENT).read_bytes())
        if "replaces" in intent:
            _complete_exchange(root, target, intent)
            return
        text = (root / _PAGE).read_bytes() if intent["makes"] else b""
    except (FileNotFoundError, ValueError):  # it was killed before it had written what it meant
        return
    page = Path(intent["page"])
    if (root / _TAKEN_OUT).exists():
        if page.is_file() and hash_of(page.read_bytes()) == intent["removes"]:
            page.unlink()
    elif intent["makes"] and not (root / "features" / name).exists():
        # Somebody may have gone on with the feature, or without it.
        if not holds(target / README, text):
            return
        if page.is_file() and text.startswith(page.read_bytes()):
            page.unlink()  # on another disk it is written, and may be so in part
        if not os.path.lexists(page):
            _place(root / _PAGE, page)


def _complete_exchange(root: Path, target: Path, intent: Mapping[str, Any]) -> None:
    """Has a page say what the feature that has come into its place says of it.

    Where it has not come there, or somebody has changed the page since, the page stays.

    Raises:
        OSError: it cannot be done.
    """
    page = Path(intent["page"])
    try:
        state = target.stat()
        there = hash_of(page.read_bytes())
    except FileNotFoundError:
        return
    finally:
        _beside(page).unlink(missing_ok=True)
    if [state.st_dev, state.st_ino] == intent["folder"] and there == intent["replaces"]:
        _replace_page(root / _PAGE, page)


def _keep_intent(root: Path, page: Path, *, removes: str | None = None) -> None:
    """Writes what is to become of a page: it is made, or removed where its hash is `removes`."""
    intent = {"page": str(page.absolute()), "makes": removes is None, "removes": removes}
    _write_intent(root, intent)


def _write_intent(root: Path, intent: Mapping[str, Any]) -> None:
    write_new(root / _INTENT, json.dumps(intent).encode())
    sync(root)


def _replace_page(source: Path, page: Path) -> None:
    """Has a page say what a file says, as a whole.

    Raises:
        OSError: it cannot be written; it says what it said then.
    """
    new = _beside(page)
    new.unlink(missing_ok=True)
    try:
        write_new(new, source.read_bytes())  # the file may be on another disk
        new.chmod(stat.S_IMODE(page.stat().st_mode))
        new.replace(page)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    sync(page.parent)


def _beside(page: Path) -> Path:
    """Where a page is written that is to take the place of another."""
    return page.with_name(f".{page.name}.petsage-build")


def _differing(found: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """The paths at which two folders do not hold the same."""
    paths = sorted({*found, *wanted})
    return [f"{path} was changed" for path in paths if found.get(path) != wanted.get(path)]


def _edited(feature: Path, stage: Stage) -> BuildError:
    return BuildError(
        f"{feature} was edited while this went on, and is left as it is now",
        fix="try again when nobody edits it",
        stage=stage,
    )


def _place(source: Path, page: Path) -> None:
    """Makes a page of a file, as a whole; one that is there, and the same, is left.

    Raises:
        OSError: there is another, or it cannot be written.
    """
    if holds(page, source.read_bytes()):
        return
    try:
        page.hardlink_to(source)
    except FileExistsError:
        raise
    except OSError:  # it is on another disk, or this one knows no links
        write_new(page, source.read_bytes())
    try:
        sync(page.parent)
    except BaseException:
        page.unlink()
        raise


def _clean_up(root: Path) -> None:
    """Removes a workspace; says so where that does not work, since the next run tries again."""
    try:
        # First, since what it says is not so any more as soon as anything else is gone.
        (root / _INTENT).unlink(missing_ok=True)
        remove_tree(root)
    except OSError as error:
        _log.warning(
            "%s is left, and cannot be removed: %s; fix: remove it", root, error.strerror or error
        )


def _require_safe(folder: Path) -> None:
    """Refuses a folder of features that a server would take nothing from."""
    listing = Listing(files={}, folders={"": folder.stat()}, links={}, flaws=[])
    for _, flaw, level in find_unsafe(folder, listing, {os.path.realpath(folder): folder}):
        if level == "error":
            raise BuildError(
                f"{folder}: {flaw.problem}, and a server refuses features in such a folder",
                fix=flaw.fix,
                stage="prepare",
            )
