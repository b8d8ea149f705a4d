"""Folders of features, watched while they are written to as editors, `cp` and git do it."""

import asyncio
import contextlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from petsage.changes import eventless_mount
from petsage.snapshot import take_snapshot
from petsage.watch import FolderWatch

SETTLE_MS = 60
PATIENCE_S = 10


class Watched:
    """A watch on folders, and what it has had refreshed."""

    def __init__(self, *folders, settle_ms=SETTLE_MS):
        self.root = folders[0]
        self.calls = []
        self.watch = FolderWatch(folders, self.refresh, settle_ms=settle_ms)
        self._came = asyncio.Event()

    async def refresh(self, names):
        self.calls.append(names)
        self._came.set()

    async def until(self, *names):
        """Waits until just these have been refreshed, or all, and forgets them."""
        expected = {*names}
        async with asyncio.timeout(PATIENCE_S):
            while not self._names() >= expected:
                self._came.clear()
                await self._came.wait()
        assert self._names() == expected
        self.calls.clear()

    async def until_all(self):
        """Waits until all has been refreshed, whatever came before it, and forgets it."""
        async with asyncio.timeout(PATIENCE_S):
            while None not in self.calls:
                self._came.clear()
                await self._came.wait()
        self.calls.clear()

    async def until_begun(self):
        """Waits until every folder is watched, and all has been refreshed for that."""
        await self.watch.wait_until_watching()
        async with asyncio.timeout(PATIENCE_S):
            while self.watch._all_due is not None:
                self._came.clear()
                await self._came.wait()
        assert None in self.calls
        self.calls.clear()

    def _names(self):
        return {name for call in self.calls for name in ([None] if call is None else call)}


@contextlib.asynccontextmanager
async def watching(*folders, **options):
    watched = Watched(*folders, **options)
    watched.watch.start()
    await watched.until_begun()
    try:
        yield watched
    finally:
        await watched.watch.stop()


@pytest.fixture
def root(tmp_path):
    """A folder with the features `pets` and `owners`."""
    root = tmp_path / "features"
    for name in ("pets", "owners"):
        write(root / name / "__init__.py", "v = 1\n")
        write(root / name / "sub" / "deep.py", "v = 1\n")
    return root


@pytest.fixture
async def watched(root):
    async with watching(root) as watched:
        yield watched


def write(file, text="v = 2\n"):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def save_as_editors_do(file):
    draft = file.with_name(f".{file.name}.swp")
    draft.write_text("v = 3\n")
    draft.replace(file)


def edit_and_hide_it(file):
    """Same size, same times: only the kernel's own time tells."""
    before = file.stat()
    write(file, "v = 9\n")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def copy(root):
    subprocess.run(["cp", "-r", root / "pets", root / "more"], check=True)


def move_in(root):
    write(root.parent / "apart" / "more" / "__init__.py")
    (root.parent / "apart" / "more").rename(root / "more")


WAYS = {
    "an edit": (lambda root: write(root / "pets" / "__init__.py"), ["pets"]),
    "an edit of the same size at the same time": (
        lambda root: edit_and_hide_it(root / "pets" / "__init__.py"),
        ["pets"],
    ),
    "an edit deep down": (lambda root: write(root / "pets" / "sub" / "deep.py"), ["pets"]),
    "an editor's save": (
        lambda root: save_as_editors_do(root / "pets" / "__init__.py"),
        ["pets"],
    ),
    "touch": (lambda root: (root / "pets" / "__init__.py").touch(), ["pets"]),
    "chmod of a file": (lambda root: (root / "pets" / "__init__.py").chmod(0o600), ["pets"]),
    "chmod of the folder": (lambda root: (root / "pets").chmod(0o700), ["pets"]),
    "cp -r": (copy, ["more"]),
    "mv in": (move_in, ["more"]),
    "mv out": (lambda root: (root / "pets").rename(root.parent / "pets"), ["pets"]),
    "a new name": (lambda root: (root / "pets").rename(root / "cats"), ["pets", "cats"]),
    "rm -r": (lambda root: shutil.rmtree(root / "pets"), ["pets"]),
    "a removed file": (lambda root: (root / "pets" / "sub" / "deep.py").unlink(), ["pets"]),
}


@pytest.mark.parametrize("way", WAYS)
async def test_whatever_changes_a_folder_has_it_refreshed_and_no_other(watched, way):
    change, names = WAYS[way]
    change(watched.root)
    await watched.until(*names)


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")
async def test_what_git_checks_out_is_refreshed_and_what_it_keeps_for_itself_is_not(root):
    def git(*arguments):
        names = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", *names, *arguments], cwd=root, check=True, capture_output=True)

    git("init", "-b", "main")
    git("add", ".")
    git("commit", "-m", "one")
    git("checkout", "-b", "other")
    write(root / "pets" / "__init__.py", "v = 'other'\n")
    git("commit", "-a", "-m", "two")
    async with watching(root) as watched:
        git("checkout", "main")
        await watched.until("pets")


async def test_what_came_by_a_move_or_a_new_name_is_watched_as_anything_else(watched):
    (watched.root / "pets").rename(watched.root / "cats")
    move_in(watched.root)
    await watched.until("pets", "cats", "more")

    write(watched.root / "cats" / "sub" / "deep.py")
    write(watched.root / "more" / "new" / "deep.py")
    await watched.until("cats", "more")


async def test_what_the_hash_leaves_out_is_no_change_and_everything_else_is(watched):
    names = ["a.py", "a.txt", "a~b", "_a.py", "swp", "a.pyc", "a.pyo", "a.py~", ".a.py.swp"]
    names += ["4913", ".#a.py", "#a.py#", ".hidden", "__pycache__/a.py", ".git/a", "4914"]
    names += [".mypy_cache/a", ".ruff_cache/a", ".pytest_cache/a", "sub/__pycache__/a", "sub/a"]
    folders = {}
    for number, name in enumerate(names):
        folders[f"f{number}"] = name
        write(watched.root / f"f{number}" / "__init__.py")
        write(watched.root / f"f{number}" / name, "1")
    await watched.until(*folders)

    differs = []
    for folder, name in folders.items():
        before = take_snapshot("pets", watched.root / folder).content_hash
        write(watched.root / folder / name, "2")
        if take_snapshot("pets", watched.root / folder).content_hash != before:
            differs.append(folder)
    left_in = ["a.py", "a.txt", "a~b", "_a.py", "swp", "4914", "sub/a"]
    assert [folders[each] for each in differs] == left_in
    await watched.until(*differs)


async def test_files_beside_the_folders_are_no_features(watched):
    write(watched.root / "README.md")
    write(watched.root / "_shared" / "a.py")
    write(watched.root / "pets" / "a.py")
    await watched.until("pets")


async def test_a_file_where_a_features_folder_was_is_a_change(watched):
    (watched.root / "pets").rename(watched.root.parent / "away")
    (watched.root / "pets").write_text("x")
    await watched.until("pets")


async def test_a_folder_is_refreshed_once_and_only_when_it_has_been_quiet(root):
    # So long that even on a machine with much to do the writes are no such pause apart.
    async with watching(root, settle_ms=500) as watched:
        for number in range(5):
            write(root / "pets" / f"{number}.py")
            await asyncio.sleep(0.02)
        last = time.monotonic()
        assert watched.calls == []
        await watched.until("pets")
        assert time.monotonic() - last >= 0.45


@contextlib.contextmanager
def written_without_pause(file):
    ended = threading.Event()

    def keep_writing():
        while not ended.wait(SETTLE_MS / 6000):
            write(file, str(time.monotonic_ns()))

    thread = threading.Thread(target=keep_writing)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


async def test_a_folder_that_is_written_to_without_pause_delays_no_other(root):
    # So long that even on a machine with much to do the writer makes no such pause.
    async with watching(root, settle_ms=1000) as watched:
        with written_without_pause(root / "pets" / "log.txt"):
            for number in range(2):
                write(root / "owners" / f"{number}.py")
                await watched.until("owners")
        await watched.until("pets")


async def test_a_change_during_a_refresh_waits_for_its_end_and_is_refreshed_then(root):
    running, may_end, calls = asyncio.Event(), asyncio.Event(), []
    first: asyncio.Queue[None] = asyncio.Queue()

    async def refresh(names):
        if names is None:
            first.put_nowait(None)
            return
        calls.append(names)
        running.set()
        await may_end.wait()

    watch = FolderWatch([root], refresh, settle_ms=SETTLE_MS)
    watch.start()
    watch.start()
    await first.get()
    write(root / "pets" / "a.py")
    await running.wait()
    write(root / "pets" / "b.py")
    write(root / "owners" / "b.py")
    await asyncio.sleep(SETTLE_MS / 1000 * 3)
    assert calls == [{"pets"}]

    running.clear()
    may_end.set()
    await running.wait()
    assert calls == [{"pets"}, {"pets", "owners"}]
    await watch.stop()


async def test_what_settles_during_a_refresh_is_looked_at_meanwhile_and_refreshed_then(
    root, caplog, monkeypatch
):
    monkeypatch.setattr("petsage.watch._PATIENCE_S", 0.01)
    calls: asyncio.Queue[object] = asyncio.Queue()
    looks: asyncio.Queue[object] = asyncio.Queue()
    may_end = asyncio.Event()

    async def refresh(names):
        calls.put_nowait(names)
        if names is not None:
            await may_end.wait()

    async def meanwhile(names):
        looks.put_nowait(names)
        raise OSError("cannot look")

    watch = FolderWatch([root], refresh, settle_ms=SETTLE_MS, meanwhile=meanwhile)
    watch.start()
    async with asyncio.timeout(PATIENCE_S):
        assert await calls.get() is None
        write(root / "pets" / "a.py")
        assert await calls.get() == {"pets"}

        write(root / "owners" / "b.py")
        assert await looks.get() == {"owners"}
        write(root / "owners" / "c.py")
        assert await looks.get() == {"owners"}  # once each time; one that fails ends nothing
        shutil.rmtree(root)
        while await looks.get() is not None:
            pass
        assert "cannot look" in caplog.text
        assert calls.empty()

        may_end.set()
        while await calls.get() is not None:
            pass
    await watch.stop()
    assert looks.empty()


@pytest.mark.parametrize("error", [ValueError("odd"), asyncio.CancelledError()], ids=type)
async def test_what_a_refresh_raises_is_logged_and_counted_and_it_is_tried_again_and_again(
    root, caplog, monkeypatch, error
):
    monkeypatch.setattr("petsage.watch._AGAIN_S", 0.2)
    monkeypatch.setattr("petsage.watch._AGAIN_MOST_S", 0.5)
    failures = [None, frozenset({"pets"}), frozenset({"pets"}), frozenset({"pets"})]
    calls: asyncio.Queue[tuple[frozenset[str] | None, float]] = asyncio.Queue()

    async def refresh(names):
        calls.put_nowait((names, time.monotonic()))
        if names in failures:
            failures.remove(names)
            raise error

    async def call():
        async with asyncio.timeout(PATIENCE_S):
            return await calls.get()

    watch = FolderWatch([root], refresh, settle_ms=SETTLE_MS)
    watch.start()
    assert [(await call())[0] for _ in range(2)] == [None, None]
    write(root / "pets" / "a.py")
    made = [await call() for _ in range(4)]
    await watch.stop()

    assert {names for names, _ in made} == {frozenset({"pets"})}
    times = [when for _, when in made]
    for number, again_s in enumerate([0.2, 0.4, 0.5]):
        assert times[number + 1] - times[number] >= again_s * 0.95
    assert watch.failures == 4
    first, *others = [each for each in caplog.records if each.name == "petsage.watch"]
    told = "A change on disk was not taken up: {}; it is tried again in {} s"
    assert first.message == told.format("all features", 0.2)
    assert [each.message for each in others] == [
        told.format("pets", again_s) for again_s in (0.2, 0.4, 0.5)
    ]
    assert first.exc_info[1] is error


async def test_a_refresh_that_fails_holds_up_no_other_feature(root):
    calls: asyncio.Queue[Any] = asyncio.Queue()

    async def refresh(names):
        calls.put_nowait(names)
        if names == {"pets"}:
            raise ValueError("odd")

    watch = FolderWatch([root], refresh, settle_ms=SETTLE_MS)
    watch.start()
    assert await calls.get() is None
    write(root / "pets" / "a.py")
    assert await calls.get() == {"pets"}
    write(root / "owners" / "a.py")
    while "owners" not in await calls.get():
        pass
    await watch.stop()


def unable(*_, **__):
    raise TypeError("it is a feature's")


@pytest.mark.parametrize("logs", [True, False], ids=["logged", "and what logs"])
async def test_what_is_broken_for_a_moment_ends_no_watch(root, monkeypatch, caplog, logs):
    calls: asyncio.Queue[Any] = asyncio.Queue()

    async def refresh(names):
        calls.put_nowait(names)

    watch = FolderWatch([root], refresh, settle_ms=SETTLE_MS)
    watch.start()
    assert await calls.get() is None
    failed = asyncio.Event()

    def broken(_):
        failed.set()
        unable()

    monkeypatch.setattr(asyncio, "timeout", broken)
    if not logs:
        monkeypatch.setattr(logging.Logger, "exception", unable)
    write(root / "pets" / "a.py")
    await failed.wait()
    monkeypatch.undo()

    async with asyncio.timeout(PATIENCE_S):
        while await calls.get() is not None:
            pass  # what was written, or all that may have been
    assert ("failed, and goes on" in caplog.text) is logs
    write(root / "owners" / "a.py")
    assert await calls.get() == {"owners"}
    await watch.stop()


async def test_a_watch_that_ends_amid_its_rest_leaves_no_timer(root, monkeypatch):
    monkeypatch.setattr("petsage.watch._AGAIN_S", 0.02)
    loop, failed, faults = asyncio.get_running_loop(), asyncio.Event(), []
    loop.set_exception_handler(lambda _, context: faults.append(context))

    def broken(*_, **__):
        failed.set()

    monkeypatch.setattr(FolderWatch, "_take", unable)
    monkeypatch.setattr(logging.Logger, "exception", broken)
    watch = FolderWatch([root], lambda _: failed.wait(), settle_ms=SETTLE_MS)
    watch.start()
    await failed.wait()
    await watch.stop()
    is_past = asyncio.Event()
    loop.call_later(0.05, is_past.set)
    await is_past.wait()
    assert not faults


@pytest.mark.parametrize("broken", ["log", "wait"])
async def test_what_is_broken_as_a_refresh_ends_loses_nothing_and_ends_no_watch(
    root, monkeypatch, broken
):
    calls: asyncio.Queue[Any] = asyncio.Queue()

    async def refresh(names):
        calls.put_nowait(names)
        if names == {"pets"}:
            # As where `isinstance` is none: both would call it.
            monkeypatch.setattr(logging.Logger, "exception", unable)
            if broken == "wait":
                monkeypatch.setattr(asyncio, "wait", unable)
            asyncio.get_running_loop().call_later(0.1, monkeypatch.undo)
            raise ValueError

    watch = FolderWatch([root], refresh, settle_ms=SETTLE_MS)
    watch.start()
    assert await calls.get() is None
    write(root / "pets" / "a.py")

    async with asyncio.timeout(PATIENCE_S):
        assert await calls.get() == {"pets"}
        assert await calls.get() is None
        write(root / "owners" / "a.py")
        while "owners" not in (await calls.get() or ()):
            pass
    assert watch.failures
    await watch.stop()


async def test_a_feature_that_writes_to_its_own_folder_is_told_of_once(root, caplog):
    count = 0
    begun, often = asyncio.Event(), asyncio.Event()

    async def refresh(names):
        nonlocal count
        if names is None:
            begun.set()
        elif "pets" in names:
            count += 1
            if count == 12:
                often.set()
            else:
                write(root / "pets" / "state.json", str(count))

    def warnings():
        return [each.message for each in caplog.records if each.name == "petsage.watch"]

    watch = FolderWatch([root], refresh, settle_ms=20)
    watch.start()
    await begun.wait()
    write(root / "pets" / "a.py")
    async with asyncio.timeout(PATIENCE_S):
        await often.wait()
    await watch.stop()

    (warning,) = warnings()
    assert warning == (
        "Feature pets is written to each time that it is taken up, again and again; fix: "
        "if it does so itself, let it keep what it writes outside of its folder"
    )


async def test_a_feature_that_others_write_to_often_is_refreshed_as_ever(root, caplog, monkeypatch):
    monkeypatch.setattr("petsage.watch._BEHIND_S", 0.1)
    async with watching(root, settle_ms=20) as watched:
        for number in range(8):
            await asyncio.sleep(0.2)
            write(root / "pets" / f"{number}.py")
            await watched.until("pets")
    assert [each.message for each in caplog.records if each.name == "petsage.watch"] == []


@pytest.mark.parametrize("is_polled", [False, True], ids=["told", "looked for"])
async def test_what_is_written_while_the_watch_begins_is_refreshed(root, monkeypatch, is_polled):
    monkeypatch.setenv("WATCHFILES_FORCE_POLLING", "1" if is_polled else "false")
    for number in range(1000):  # so that a first look takes a while
        (root / "owners" / f"{number}.txt").touch()
    file = root / "pets" / "__init__.py"
    for number in range(6):
        read: asyncio.Queue[str] = asyncio.Queue()

        async def refresh(names, read=read):
            read.put_nowait(file.read_text())

        watch = FolderWatch([root], refresh, settle_ms=1)
        watch.start()
        await asyncio.sleep(number * 0.004)
        write(file, f"v = 'at {number}'\n")
        async with asyncio.timeout(PATIENCE_S):
            while await read.get() != f"v = 'at {number}'\n":
                pass
        await watch.stop()


async def test_a_folder_that_is_missing_when_the_watch_begins_has_all_refreshed(tmp_path):
    # It may have been there, and gone since it was read.
    watched = Watched(tmp_path / "features")
    watched.watch.start()
    await watched.until(None)
    await watched.watch.stop()


# The folder of features itself


async def test_a_folder_that_came_and_went_between_two_looks_has_all_refreshed(tmp_path):
    os.utime(tmp_path, (1, 1))  # times move in steps of milliseconds
    async with watching(tmp_path / "features") as watched:
        (tmp_path / "features").mkdir()
        (tmp_path / "features").rmdir()
        await watched.until_all()  # somebody may have read it meanwhile


async def test_a_folder_that_comes_and_goes_has_all_refreshed_and_is_watched_again(tmp_path):
    root = tmp_path / "features"
    async with watching(root) as watched:
        root.mkdir()
        await watched.until(None)
        write(root / "pets" / "a.py")
        await watched.until("pets")

        shutil.rmtree(root)
        await watched.until_all()
        write(root / "cats" / "a.py")
        await watched.until(None)
        write(root / "cats" / "a.py", "v = 5\n")
        await watched.until("cats")


async def test_a_folder_that_is_made_anew_at_once_is_watched_again(watched):
    for _ in range(5):
        shutil.rmtree(watched.root)
        write(watched.root / "pets" / "a.py")
        await watched.until_all()
        write(watched.root / "pets" / "a.py", "v = 3\n")
        await watched.until("pets")


async def test_a_folder_whose_place_is_taken_by_another_or_by_a_link_is_watched_there(
    watched, tmp_path
):
    write(tmp_path / "other" / "cats" / "a.py")
    watched.root.rename(tmp_path / "old")
    watched.root.symlink_to(tmp_path / "other")
    await watched.until(None)

    write(tmp_path / "old" / "pets" / "a.py")
    write(tmp_path / "other" / "cats" / "a.py")
    await watched.until("cats")

    write(tmp_path / "third" / "dogs" / "a.py")
    (tmp_path / "link").symlink_to(tmp_path / "third")
    (tmp_path / "link").replace(watched.root)
    await watched.until(None)
    write(tmp_path / "third" / "dogs" / "b.py")
    await watched.until("dogs")


async def test_who_may_write_the_folder_itself_is_a_change_of_all(watched):
    watched.root.chmod(0o777)
    await watched.until(None)


async def test_all_is_not_looked_at_while_a_folder_is_written_to(root):
    async with watching(root, settle_ms=1000) as watched:
        with written_without_pause(root / "pets" / "log.txt"):
            root.chmod(0o700)
            await watched.until("owners")
        await watched.until_all()


async def test_so_many_changes_that_some_may_be_lost_have_all_refreshed(watched, monkeypatch):
    monkeypatch.setattr("petsage.changes._MANY", 20)
    for number in range(200):
        (watched.root / "pets" / f"{number}").touch()
    await watched.until_all()


# Links


async def test_a_change_of_what_a_link_leads_to_is_one_of_who_links_there(tmp_path):
    first, second = tmp_path / "features", tmp_path / "more"
    write(first / "_shared" / "pets" / "routes.py")
    write(first / "_shared" / "words.py")
    write(second / "owners" / "sub" / "a.py")
    (first / "pets").symlink_to("_shared/pets")
    write(first / "cats" / "__init__.py")
    (first / "cats" / "words.py").symlink_to("../_shared/words.py")
    (first / "dogs").symlink_to(second / "owners")
    write(second / "birds" / "__init__.py")
    (second / "birds" / "sub").symlink_to(second / "owners" / "sub")
    (first / "_shared" / "pets" / "words.py").symlink_to("../words.py")
    write(second / "alone" / "__init__.py")
    async with watching(first, second) as watched:
        write(first / "_shared" / "pets" / "routes.py", "v = 3\n")
        await watched.until("pets")
        save_as_editors_do(first / "_shared" / "words.py")
        await watched.until("cats", "pets")
        write(second / "owners" / "sub" / "a.py", "v = 3\n")
        await watched.until("owners", "dogs", "birds")
        shutil.rmtree(second / "owners")
        await watched.until("owners", "dogs", "birds")


async def test_a_link_that_is_made_later_counts_and_one_that_led_nowhere(watched):
    (watched.root / "pets" / "words.py").symlink_to(watched.root / "_shared" / "words.py")
    (watched.root / "linked").symlink_to("owners")
    await watched.until("pets", "linked")

    write(watched.root / "_shared" / "words.py")
    write(watched.root / "owners" / "a.py")
    await watched.until("pets", "linked", "owners")


def link_anew(link, target):
    subprocess.run(["ln", "-sfn", target, link], check=True)


@pytest.mark.parametrize("is_polled", [False, True], ids=["told", "polled"])
async def test_a_link_on_the_way_that_comes_to_lead_elsewhere_is_a_change(
    root, monkeypatch, is_polled
):
    if is_polled:
        monkeypatch.setenv("WATCHFILES_FORCE_POLLING", "1")
    for version in ("v1", "v2"):
        write(root / "_shared" / version / "a.py")
        write(root / "_whole" / version / "cats" / "__init__.py")
        write(root / "map" / f"..{version}" / "__init__.py")
    for link in (root / "_shared" / "current", root / "_whole" / "current"):
        link.symlink_to("v1")
    (root / "pets" / "a.py").symlink_to("../_shared/current/a.py")
    (root / "cats").symlink_to("_whole/current/cats")
    (root / "map" / "..data").symlink_to("..v1")
    (root / "map" / "__init__.py").symlink_to("..data/__init__.py")
    async with watching(root) as watched:
        link_anew(root / "_shared" / "current", "v2")
        link_anew(root / "_whole" / "current", "v2")
        # As Kubernetes does with a ConfigMap.
        (root / "map" / "..data_tmp").symlink_to("..v2")
        (root / "map" / "..data_tmp").rename(root / "map" / "..data")
        await watched.until("pets", "cats", "map")

        write(root / "_shared" / "v2" / "a.py", "v = 3\n")
        write(root / "_shared" / "v1" / "a.py", "v = 3\n")
        await watched.until("pets")


async def test_links_in_a_circle_do_not_keep_it_from_watching(root):
    (root / "pets" / "sub" / "up").symlink_to("..")
    (root / "pets" / "self").symlink_to("self")
    (root / "owners" / "all").symlink_to(root)
    async with watching(root) as watched:
        write(root / "pets" / "a.py")
        await watched.until("pets", "owners")


# Its end


def descriptors():
    return sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names


async def test_the_end_of_the_watch_leaves_nothing_and_comes_at_once(root):
    tasks, opened = asyncio.all_tasks(), descriptors()
    for _ in range(3):
        async with watching(root, root.parent / "missing") as watched:
            assert len([each for each in threading.enumerate() if "watch" in each.name]) == 2
            write(root / "pets" / "a.py", str(time.monotonic_ns()))
            await watched.until("pets")
            began = time.monotonic()
        assert time.monotonic() - began < 1
    await watched.watch.stop()

    assert [each for each in threading.enumerate() if "watch" in each.name] == []
    assert asyncio.all_tasks() == tasks
    deadline = time.monotonic() + PATIENCE_S
    while len(descriptors()) > len(opened) and time.monotonic() < deadline:
        time.sleep(0.005)  # noqa: ASYNC251 - watchfiles' own thread closes the kernel's side
    assert len(descriptors()) <= len(opened)


async def test_the_end_of_the_watch_cancels_a_refresh_that_runs(root):
    running, cancelled = asyncio.Event(), []
    first: asyncio.Queue[None] = asyncio.Queue()

    async def refresh(names):
        if names is None:
            first.put_nowait(None)
            return
        running.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(names)
            raise

    watch = FolderWatch([root], refresh, settle_ms=SETTLE_MS)
    watch.start()
    await first.get()
    write(root / "pets" / "a.py")
    await running.wait()
    await watch.stop()
    assert cancelled == [{"pets"}]


def test_a_loop_that_ends_without_the_watch_being_stopped_ends_the_process_all_the_same(root):
    program = """
    import asyncio, sys
    from pathlib import Path
    from petsage.watch import FolderWatch
    async def refresh(names): ...
    async def main():
        watch = FolderWatch([Path(sys.argv[1])], refresh, settle_ms=10)
        watch.start()
        await watch.wait_until_watching()
    asyncio.run(main())
    """
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), root], check=True, timeout=PATIENCE_S
    )


# Where no events come


async def test_where_no_events_come_changes_are_looked_for(root, monkeypatch):
    monkeypatch.setenv("WATCHFILES_FORCE_POLLING", "1")
    for name in ("edited", "opened", "gone", "renamed", "cached", "saved"):
        write(root / name / "__init__.py", "v = 1\n")
    async with watching(root) as watched:
        edit_and_hide_it(root / "edited" / "__init__.py")
        save_as_editors_do(root / "saved" / "__init__.py")
        (root / "opened" / "__init__.py").chmod(0o666)
        shutil.rmtree(root / "gone")
        (root / "renamed").rename(root / "named")
        write(root / "cached" / "__pycache__" / "a.pyc")
        copy(root)
        await watched.until("edited", "saved", "opened", "gone", "renamed", "named", "more")

        root.rename(root.with_name("old"))
        write(root / "pets" / "a.py")
        await watched.until_all()


async def test_where_changes_are_looked_for_a_folder_has_to_be_quiet_for_two_looks(
    root, monkeypatch
):
    monkeypatch.setenv("WATCHFILES_FORCE_POLLING", "1")
    async with watching(root) as watched:
        for number in range(8):
            write(root / "pets" / f"{number}.py")
            await asyncio.sleep(0.2)
        assert watched.calls == []
        await watched.until("pets")
        assert watched.watch.failures == 0


def test_polling_that_is_forbidden_is_not_done(root, monkeypatch):
    monkeypatch.setenv("WATCHFILES_FORCE_POLLING", "false")

    async def main():
        async with watching(root) as watched:
            assert _inotify_descriptors()
            write(root / "pets" / "a.py")
            await watched.until("pets")

    with asyncio.Runner() as runner:
        runner.run(main())


def _inotify_descriptors():
    links = [Path("/proc/self/fd", each) for each in descriptors()]
    return [each for each in links if each.is_symlink() and "inotify" in str(each.readlink())]


LIMITED = """
import asyncio, logging, sys
from pathlib import Path
from petsage.watch import FolderWatch

logging.basicConfig(format="%(levelname)s %(message)s")
root, at_start, later = Path(sys.argv[1]), *sys.argv[2:]
limit = Path("/proc/sys/user/max_inotify_watches")

async def main():
    limit.write_text(at_start)
    calls = asyncio.Queue()
    async def refresh(names):
        calls.put_nowait(names)
    watch = FolderWatch([root], refresh, settle_ms=50)
    watch.start()
    assert await calls.get() is None
    limit.write_text(later)
    for number in range(9):
        (root / f"f{number}").mkdir()
    while True:
        names = await calls.get()
        if names is None or "f8" in names:
            break
    # Only now, when there is no room for a watch on it.
    names = None
    while names is None or "f8" not in names:
        (root / "f8" / "a.py").write_text(str(asyncio.get_running_loop().time()))
        try:
            names = await asyncio.wait_for(calls.get(), 2)
        except TimeoutError:
            pass
    await watch.stop()

asyncio.run(main())
"""


@pytest.mark.parametrize("limits", [("2", "2"), ("8", "8")], ids=["at the start", "later on"])
def test_a_limit_on_watches_has_changes_looked_for_and_the_fix_named(root, limits):
    """In a user namespace, whose limits are its own."""
    enter = ["unshare", "--user", "--map-root-user"]
    limit = "/proc/sys/user/max_inotify_watches"
    allowed = shutil.which("unshare") and subprocess.run(
        [*enter, "sh", "-c", f"echo 9 > {limit}"], capture_output=True, check=False
    )
    if not allowed or allowed.returncode:
        pytest.skip("this user may make no namespace")
    ended = subprocess.run(
        [*enter, sys.executable, "-c", LIMITED, root, *limits],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S * 2,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"WARNING Changes in {root} are looked for, since the kernel does not")
    assert "watch limit" in line
    assert "fix: raise the limit, `sysctl -w fs.inotify.max_user_watches=524288`" in line


FORBIDDEN = """
import logging, os, sys, threading
from pathlib import Path
from petsage.changes import FolderChanges

logging.basicConfig(format="%(levelname)s %(message)s")
os.seteuid(65534)
told = threading.Event()
siblings = []
siblings.append(FolderChanges(Path(sys.argv[1]), lambda _: told.set(), siblings))
siblings[0].start()
siblings[0].is_watching.wait()
os.seteuid(0)
Path(sys.argv[1], "pets").chmod(0o755)
told.clear()
Path(sys.argv[1], "pets", "a.py").touch()
assert told.wait(10)
siblings[0].end()
siblings[0].join()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user to watch as")
@pytest.mark.parametrize("name", [".", "pets"], ids=["itself", "a feature's"])
def test_a_folder_that_may_not_be_read_is_told_with_another_fix(name):
    # Not below the test's own folder: that one is nobody's to enter.
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "pets").mkdir()
        Path(folder).chmod(0o755)
        (Path(folder) / name).chmod(0)
        ended = subprocess.run(
            [sys.executable, "-c", FORBIDDEN, folder],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S * 2,
            check=False,
        )
    assert ended.returncode == 0, ended.stderr
    for line in ended.stderr.splitlines():
        assert "Permission denied" in line
        assert line.endswith("; fix: make it readable to the server")
    assert ended.stderr.startswith(f"WARNING Changes in {folder} are looked for")


MOUNTS = r"""
/dev/vda / ext4 rw 0 0
proc /proc proc rw 0 0
host:/srv /srv nfs4 rw 0 0
tmpfs /srv/fast tmpfs rw 0 0
share /srv/my\040share fuse.sshfs rw 0 0
odd
tmpfs /twice tmpfs rw 0 0
//host/x /twice cifs rw 0 0
//host/y /again cifs rw 0 0
tmpfs /again tmpfs rw 0 0
team /home/a/features/pets virtiofs rw 0 0
drive /mnt/c 9p rw 0 0
disk /media/disk vboxsf rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/b/features", None),
        ("/srv/features", "nfs4"),
        ("/srv", "fuse.sshfs"),
        ("/srvx", None),
        ("/srv/fast/features", None),
        ("/srv/my share/features", "fuse.sshfs"),
        ("/twice/features", "cifs"),
        ("/again/features", None),
        ("/home/a/features", "virtiofs"),
        ("/home/a/features/owners", None),
        ("/mnt/c/x", "9p"),
        ("/media/disk", "vboxsf"),
        ("/", "nfs4"),  # below it
    ],
)
def test_a_file_system_that_others_write_to_is_known_by_its_mount(path, kind):
    assert eventless_mount(path, MOUNTS) == kind


async def test_watchfiles_itself_logs_nothing_of_a_change(watched, caplog):
    caplog.set_level(logging.DEBUG)
    write(watched.root / "pets" / "a.py")
    await watched.until("pets")
    assert [each.name for each in caplog.records if "watchfiles" in each.name] == []
