"""A feature comes to its place in one step, whatever happens, and nothing else stays.

Over 300 lines because every file operation is one at which a process may be killed.
"""

import contextlib
import fcntl
import os
import resource
import shutil
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from petsage.builder import disk
from petsage.builder.events import BuildError
from petsage.builder.workspace import open_workspace, sweep
from tests.conftest import ROOT, lines_at
from tests.workspaces import FILES, build, is_complete, tree

STRANGER = 54321
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
not_as_root = pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
HAS_NAMESPACES = (
    shutil.which("unshare") is not None
    and subprocess.run(["unshare", "-Urm", "true"], capture_output=True, check=False).returncode
    == 0
)


@pytest.fixture
def features(tmp_path):
    folder = tmp_path / "features"
    folder.mkdir()
    return folder


@pytest.fixture
def page(tmp_path):
    return tmp_path / "docs" / "features" / "hello.md"


@contextlib.contextmanager
def umask(mask):
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


# What comes to its place


def test_a_feature_and_its_page_come_to_their_places_and_nothing_else_stays(features, page):
    with open_workspace(features, "hello") as workspace:
        assert workspace.feature == workspace.root / "features" / "hello"
        assert workspace.scratch.is_dir()
        workspace.write(FILES)
        assert [path.name for path in features.iterdir() if path.name[0] != "."] == []
        assert workspace.publish(page) == features / "hello"

    assert list(features.iterdir()) == [features / "hello"]
    assert is_complete(features / "hello")
    assert list(page.parent.iterdir()) == [page]
    assert page.read_bytes() == FILES["README.md"]


@pytest.mark.parametrize("mask", [0o000, 0o002, 0o077, 0o777])
def test_nobody_else_may_write_what_comes_whatever_the_umask(tmp_path, mask):
    features, page = tmp_path / "new" / "features", tmp_path / "docs" / "features" / "hello.md"
    with umask(mask):
        place = build(features, page)

    made = [features.parent, features, place, *place.rglob("*"), page, page.parent]
    assert {path: stat.S_IMODE(path.stat().st_mode) for path in made} == {
        path: 0o755 if path.is_dir() else 0o644 for path in made
    }


def test_what_its_tests_leave_in_its_folder_does_not_come_along(features):
    with open_workspace(features, "hello") as workspace:
        workspace.write(FILES)
        cache = workspace.feature / "tests" / "__pycache__"
        cache.mkdir()
        (cache / "test_hello.cpython-311.pyc").write_bytes(b"1")
        place = workspace.publish(None)

    assert place is not None
    assert sorted(path for path in tree(place) if tree(place)[path] is not None) == sorted(FILES)


def test_a_folder_of_features_may_be_a_link(tmp_path, features, page):
    (tmp_path / "link").symlink_to(features)
    assert is_complete(build(tmp_path / "link", page))
    assert list(features.iterdir()) == [features / "hello"]
    assert page.exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda feature: (feature / "__init__.py").write_text("2"), "__init__.py was changed"),
        (lambda feature: (feature / "more.py").touch(), "more.py was added"),
        (lambda feature: (feature / "more").symlink_to("/"), "more was added"),
        (lambda feature: (feature / "README.md").unlink(), "README.md is gone"),
    ],
)
def test_what_is_not_as_it_was_written_does_not_come(features, change, told):
    with pytest.raises(BuildError, match="not what was written") as caught:
        build(features, meanwhile=lambda workspace: change(workspace.feature))

    assert caught.value.stage == "publish"
    assert caught.value.details == (told,)
    assert list(features.iterdir()) == []


# What is there already


def link_to_nothing(path):
    path.symlink_to(path.parent / "nowhere")


def link_to_a_folder(path):
    (path.parent.parent / "elsewhere").mkdir()
    path.symlink_to(path.parent.parent / "elsewhere")


def a_feature(path):
    path.mkdir()
    (path / "__init__.py").touch()


@pytest.mark.parametrize(
    ("occupy", "told"),
    [
        (Path.touch, "a file"),
        (Path.mkdir, "an empty folder"),
        (a_feature, "a feature"),
        (link_to_a_folder, "a link"),
        (link_to_nothing, "a link"),
    ],
)
@pytest.mark.parametrize("stage", ["prepare", "publish"])
def test_nothing_that_is_there_is_gone_over(tmp_path, features, occupy, told, stage):
    before = {}

    def occupied(_=None):
        occupy(features / "hello")
        before.update({path: at for path, at in tree(tmp_path).items() if "/." not in path})

    if stage == "prepare":
        occupied()
    with pytest.raises(BuildError, match=rf"there is {told} .*hello already") as caught:
        build(features, tmp_path / "docs" / "hello.md", meanwhile=occupied)

    assert caught.value.stage == stage
    assert tree(tmp_path) == before


def test_a_feature_that_was_built_is_refused_with_the_way_to_remove_it(features):
    build(features, files={**FILES, "feature.toml": b""})
    with pytest.raises(BuildError, match="--undo hello"), open_workspace(features, "hello"):
        pass


def test_a_page_that_says_something_else_is_not_gone_over(tmp_path, features, page):
    page.parent.mkdir(parents=True)
    page.write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(BuildError, match=r"a page .*hello\.md already") as caught:
        build(features, page)

    assert caught.value.stage == "publish"
    assert tree(tmp_path) == before


def test_a_page_that_says_the_same_stays(features, page):
    page.parent.mkdir(parents=True)
    page.write_bytes(FILES["README.md"])
    assert is_complete(build(features, page))
    assert page.read_bytes() == FILES["README.md"]


# What fails


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_stays_of_what_fails_nor_of_folders_made_for_it(tmp_path, error):
    def fail(workspace):
        (workspace.scratch / "cache").write_text("1")
        raise error

    with pytest.raises(error):
        build(tmp_path / "a" / "features", meanwhile=fail)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_somebody_else_put_something_in_stays(tmp_path):
    def fail(_):
        (tmp_path / "features" / "theirs").mkdir()
        raise LookupError

    with pytest.raises(LookupError):
        build(tmp_path / "features", meanwhile=fail)
    assert tree(tmp_path) == {"features": None, "features/theirs": None}


def test_where_the_page_cannot_be_the_feature_does_not_come_either(tmp_path, features):
    (tmp_path / "docs").touch()
    with pytest.raises(BuildError, match="docs: Not a directory") as caught:
        build(features, tmp_path / "docs" / "features" / "hello.md")

    assert caught.value.stage == "publish"
    assert tree(tmp_path) == {"docs": b"", "features": None}


@not_as_root
def test_what_a_test_has_made_unwritable_is_removed_too(features):
    with open_workspace(features, "hello") as workspace:
        (workspace.scratch / "sealed").mkdir()
        (workspace.scratch / "sealed" / "file").touch()
        (workspace.scratch / "sealed").chmod(0)

    assert list(features.iterdir()) == []


def unusable(tmp_path, how):
    folder = tmp_path / "features"
    if how == "a file":
        folder.touch()
    elif how == "in a file":
        (tmp_path / "file").touch()
        folder = tmp_path / "file" / "features"
    elif how == "a link to nothing":
        link_to_nothing(folder)
    elif how == "everyone's":
        folder.mkdir()
        folder.chmod(0o777)
    else:
        folder = Path("/sys/features")  # not even root can make a folder there
    return folder


@pytest.mark.parametrize(
    ("how", "told", "fix"),
    [
        ("a file", "features: Not a directory", "move the file"),
        ("in a file", "file: Not a directory", "move the file"),
        ("a link to nothing", "features: Not a directory", "move the file"),
        ("everyone's", r"everyone may write features \(mode 0777\)", "chmod o-w"),
        ("unwritable", "/sys/features: .*not permitted|.*denied|.*[Rr]ead-only", "--output"),
    ],
)
def test_a_folder_that_cannot_be_used_is_told_with_its_fix(tmp_path, how, told, fix):
    folder = unusable(tmp_path, how)
    before = tree(tmp_path)
    with pytest.raises(BuildError, match=told) as caught:
        build(folder)

    assert caught.value.stage == "prepare"
    assert fix in caught.value.fix
    assert tree(tmp_path) == before


def test_a_file_that_must_not_be_so_large_is_told_and_nothing_stays(features):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(BuildError, match=r"large\.py: File too large") as caught:
            build(features, files={**FILES, "large.py": b"#" * 2000})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert caught.value.stage == "write"
    assert "ulimit" in caught.value.fix
    assert list(features.iterdir()) == []


def run(script, *arguments, namespace=False):
    """Runs a script; where disks of its own may be mounted, if that is asked for."""
    command = ["unshare", "-Urm"] if namespace else []
    done = subprocess.run(
        [*command, sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


MOUNTS = """
    import subprocess, sys
    from pathlib import Path
    from petsage.builder.events import BuildError
    from tests.workspaces import *

    def mount(folder, size):
        folder.mkdir(parents=True)
        disk = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "none", str(folder)]
        subprocess.run(disk, check=True)

    def told(folder, page, files=FILES):
        try:
            build(folder, page, files)
        except BuildError as error:
            return f"{error.stage}: {error}"
        return "built"

    top = Path(sys.argv[1])
"""
needs_mounts = pytest.mark.skipif(not HAS_NAMESPACES, reason="it cannot mount a disk of its own")


@needs_mounts
def test_a_full_disk_is_told_and_nothing_stays(tmp_path):
    out = run(
        MOUNTS
        + """
    mount(top / "features", "64k")
    large = {**FILES, **{f"large_{number}.py": b"#" * 8192 for number in range(20)}}
    print(told(top / "features", None, large))
    assert tree(top / "features") == {}
    print(told(top / "features", None))
    """,
        tmp_path,
        namespace=True,
    )
    failed, built = out.splitlines()
    assert failed.startswith("write: ")
    assert failed.endswith("No space left on device; fix: make room on that disk")
    assert built == "built"


@needs_mounts
def test_a_disk_that_is_full_while_it_is_checked_is_told_and_no_tool_is_blamed(tmp_path):
    out = run(
        MOUNTS
        + """
    import asyncio
    from petsage.builder.building import build as build_whole
    from petsage.builder.request import FeatureRequest

    mount(top / "features", "256k")
    filler = top / "features" / ".filler"

    def tell(event):
        if event.label == "FILES":
            with filler.open("wb", buffering=0) as file:
                try:
                    while file.write(bytes(4096)):
                        pass
                except OSError:
                    pass
        elif event.label in {"STATUS", "REASON", "FIX"}:
            print(event.text)

    asyncio.run(build_whole(
        lambda: FeatureRequest(feature="hello", description="x"), folder=top / "features",
        page_folder=None, address="http://127.0.0.1:8000", tell=tell,
    ))
    assert list(tree(top / "features")) == [".filler"]
    """,
        tmp_path,
        namespace=True,
    )
    assert out.splitlines()[1:] == [
        "BUILD FAILED",
        f"{tmp_path / 'features'}: No space left on device",
        "make room on that disk",
    ]


@needs_mounts
def test_a_page_on_another_disk_comes_too_or_the_feature_does_not(tmp_path):
    out = run(
        MOUNTS
        + """
    (top / "features").mkdir()
    mount(top / "docs", "64k")
    filler = (top / "docs" / "filler").open("wb", buffering=0)
    try:
        while filler.write(b"1" * 4096):
            pass
    except OSError:
        filler.close()
    page = top / "docs" / "hello.md"
    print(told(top / "features", page))
    assert tree(top / "features") == {} and not page.exists()
    (top / "docs" / "filler").unlink()
    print(told(top / "features", page))
    assert page.read_bytes() == FILES["README.md"]
    """,
        tmp_path,
        namespace=True,
    )
    failed, built = out.splitlines()
    assert failed.startswith("publish: ")
    assert "hello.md: No space left on device" in failed
    assert built == "built"


# What a killed process leaves


KILLS = """
    import os, signal, sys
    from itertools import count
    from petsage.builder.workspace import open_removal, open_workspace, sweep
    from tests.workspaces import *

    top = Path(sys.argv[1])
    features, page = top / "features", top / "docs" / "features" / "hello.md"
    OPERATIONS = {"open", "os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir", "os.chmod",
                  "fcntl.flock"}

    def fail():
        try:
            with open_workspace(features, "hello") as workspace:
                workspace.write(FILES)
                raise ValueError
        except ValueError:
            pass

    def undo():
        with open_removal(features, "hello") as workspace:
            workspace.take_out(page)

    def killed_at(number, act):
        '''Whether a process that acts was killed at its operation of this number.'''
        pid = os.fork()
        if not pid:
            left = number
            def kill(event, arguments):
                nonlocal left
                if event in OPERATIONS and str(top) in str(arguments[0]) or event == "fcntl.flock":
                    left -= 1
                    if not left:
                        os.kill(os.getpid(), signal.SIGKILL)
            sys.addaudithook(kill)
            try:
                act()
            finally:
                os._exit(0)
        return os.WIFSIGNALED(os.waitpid(pid, 0)[1])

    ends = []
    for number in count(1):
        if sys.argv[2] == "undo":
            build(features, page)
        is_killed = killed_at(number, {"build": lambda: build(features, page), "fail": fail,
                                       "undo": undo}[sys.argv[2]])
        if features.exists():
            sweep(features, "prepare")
            assert [each for each in features.iterdir() if each.name != "hello"] == [], number
        is_there = (features / "hello").exists()
        assert page.exists() == is_there, number
        if is_there:
            assert is_complete(features / "hello"), number
            assert page.read_bytes() == FILES["README.md"], number
            undo()
        ends.append(is_there)
        if not is_killed:
            break
    print(len(ends), ends.count(True), ends[-1])
    # All at once: what is there before the one step is there until it, and not after.
    assert ends == sorted(ends, reverse=sys.argv[2] == "undo")
"""


@pytest.mark.parametrize(("act", "at_its_end"), [("build", True), ("fail", False), ("undo", False)])
def test_wherever_a_process_is_killed_the_next_leaves_all_of_a_feature_or_nothing(
    tmp_path, act, at_its_end
):
    (tmp_path / "features").mkdir()
    operations, there, last = run(KILLS, tmp_path, act).split()

    assert int(operations) > 15
    assert last == str(at_its_end)
    assert (int(there) > 3) == (act != "fail")


def test_a_sweep_touches_nothing_else(features):
    build(features)
    (features / ".petsage-build-file-0123abcd").touch()
    (features / ".petsage-build-link-0123abcd").symlink_to(features / "hello")
    for name in (".petsage-build-x", ".petsage-build-a-b-0123abcd", ".git", "_shared", "0123abcd"):
        (features / name).mkdir()
        (features / name / "file").touch()
    before = tree(features)
    (features / ".petsage-build-left-0123abcd").mkdir()

    sweep(features, "prepare")
    assert tree(features) == before


@as_root
def test_a_sweep_leaves_what_belongs_to_another_user(features):
    theirs = features / ".petsage-build-left-0123abcd"
    theirs.mkdir()
    os.chown(theirs, STRANGER, STRANGER)
    sweep(features, "prepare")
    assert theirs.is_dir()


# Two at once


def test_two_builds_of_one_name_cannot_be_and_the_other_is_told(features):
    with open_workspace(features, "hello") as first:
        first.write(FILES)
        with (
            pytest.raises(BuildError, match="hello is being built or removed by another process"),
            open_workspace(features, "hello"),
        ):
            pass
        first.publish(None)

    assert is_complete(features / "hello")


def test_builds_of_two_names_go_side_by_side(features):
    with open_workspace(features, "hello") as first, open_workspace(features, "other") as second:
        first.write(FILES)
        second.write(FILES)
        second.publish(None)
        first.publish(None)

    assert sorted(path.name for path in features.iterdir()) == ["hello", "other"]


BETWEEN = """
    import sys
    from contextlib import ExitStack
    from pathlib import Path
    from petsage.builder import disk
    from petsage.builder.workspace import open_workspace
    from tests.workspaces import *

    features = Path(sys.argv[1]) / "features"
    moments = {}

    def act(event, arguments):
        wanted = moments.get(event)
        if wanted and wanted[0] in str(arguments[0]):
            moments.clear()
            wanted[1]()
    sys.addaudithook(act)
"""


def test_a_folder_that_is_removed_while_its_lock_is_waited_for_is_made_again(tmp_path):
    script = """
    moments["fcntl.flock"] = "", features.rmdir
    build(features)
    assert moments == {}
    assert is_complete(features / "hello")
    """
    run(BETWEEN + script, tmp_path)


def test_a_build_that_fails_does_not_take_the_folder_that_it_made_from_another(tmp_path):
    script = """
    disk._WAIT_S = 0.05
    with ExitStack() as first:
        first.enter_context(open_workspace(features, "first"))
        moments["os.mkdir"] = ".petsage-build-hello", first.close
        build(features)
    assert moments == {}
    assert is_complete(features / "hello")
    """
    run(BETWEEN + script, tmp_path)


def test_a_lock_that_is_kept_for_too_long_is_told(features, monkeypatch):
    monkeypatch.setattr(disk, "_WAIT_S", 0.05)
    descriptor = os.open(features, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(BuildError, match="another process keeps"):
            build(features)
    finally:
        os.close(descriptor)

    assert list(features.iterdir()) == []


# Beside a running server


def test_a_running_server_does_not_notice_a_workspace_and_takes_the_feature_as_one_change(
    project, start_server
):
    features = project / "features"
    features.mkdir()
    server = start_server()
    with open_workspace(features, "hello") as workspace:
        workspace.write(FILES)
        (workspace.scratch / "cache").write_bytes(b"1")
        # What is written later is taken up later: it would be told first.
        (features / "marker").mkdir()
        (features / "marker" / "__init__.py").write_text("wrong")
        server.wait_for(lambda line: "marker" in str(line) and line["level"] != "INFO")
        assert not [line for line in server.lines if "hello" in str(line)]
        shutil.rmtree(features / "marker")
        workspace.publish(None)

    taken = server.wait_for(lambda line: "hello" in line["message"])
    assert server.get("/api/v1/hello/Ada") == (200, {"hello": "Ada"})
    server.kill()
    told = [line for line in server.lines if "hello" in line["message"]]
    assert told == [taken], told
    assert not [line for line in lines_at(server.lines, "ERROR") if "hello" in str(line)]
