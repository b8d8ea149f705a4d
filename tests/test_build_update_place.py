"""How an updated feature takes its place: in one step, whatever happens at any moment."""

import os
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from petsage.builder import exchange as exchanging
from petsage.builder import workspace as workspaces
from petsage.builder.events import BuildError
from petsage.builder.exchange import contents, exchange
from petsage.builder.workspace import open_removal
from tests.workspaces import FILES, build, tree

NEW = {"README.md": b"# Hello again\n", "more.py": b'"""More."""\n'}


@pytest.fixture(params=["at once", "by two renames"])
def way(request, monkeypatch):
    """Each way for two folders to change places."""
    if request.param == "by two renames":
        monkeypatch.setattr(exchanging, "_renameat2", lambda: None)
    return request.param


@pytest.fixture
def page(tmp_path):
    return tmp_path / "docs" / "hello.md"


@pytest.fixture
def feature(tmp_path, page):
    return build(tmp_path / "features", page)


def update(feature, page=None, meanwhile=lambda workspace: None):
    with open_removal(feature.parent, feature.name, "prepare") as workspace:
        workspace.copy()
        workspace.amend(NEW, ["tests/test_hello.py"])
        meanwhile(workspace)
        return workspace.replace(page, NEW["README.md"])


def refused(feature, match, **options):
    before = tree(feature.parent.parent)
    with pytest.raises(BuildError, match=match):
        update(feature, **options)
    return before


@pytest.mark.usefixtures("way")
def test_two_folders_change_places(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    exchange(tmp_path / "one", tmp_path / "other", tmp_path / "spare")
    assert [*tree(tmp_path)] == ["one", "one/other", "other", "other/one"]

    with pytest.raises(FileNotFoundError):
        exchange(tmp_path / "one", tmp_path / "gone", tmp_path / "spare")
    assert [*tree(tmp_path)] == ["one", "one/other", "other", "other/one"]


@pytest.mark.usefixtures("way")
def test_what_is_there_but_was_not_written_anew_stays_as_it_is(feature, page):
    (feature / "own").mkdir(mode=0o750)
    (feature / "own" / ".env").write_text("secret")
    (feature / "own" / ".env").chmod(0o600)
    (feature / "run.sh").write_text("true")
    (feature / "run.sh").chmod(0o755)
    (feature / "README.md").chmod(0o600)
    (feature / "link").symlink_to("run.sh")
    (feature / "__pycache__").mkdir()
    os.utime(feature / "run.sh", (1, 1))
    before = contents(feature)

    assert update(feature, page) == feature

    after = contents(feature)
    assert {path for path in {*before, *after} if before.get(path) != after.get(path)} == {
        "README.md", "more.py", "tests/test_hello.py",
    }  # fmt: skip
    assert stat.S_IMODE((feature / "README.md").stat().st_mode) == 0o600
    assert (feature / "run.sh").stat().st_mtime == 1
    assert page.read_bytes() == (feature / "README.md").read_bytes() == NEW["README.md"]
    assert [each.name for each in feature.parent.iterdir()] == ["hello"]


@pytest.mark.parametrize(
    "edit",
    [
        lambda feature: (feature / "README.md").write_text("mine"),
        lambda feature: (feature / "own.py").touch(),
        lambda feature: (feature / "tests" / "test_hello.py").unlink(),
        lambda feature: (feature / "__init__.py").chmod(0o600),
        lambda feature: feature.rename(feature.with_name("other")),
    ],
    ids=["changed", "added", "deleted", "mode", "moved"],
)
def test_what_was_edited_meanwhile_is_not_lost(feature, page, edit):
    with pytest.raises(BuildError, match="was edited while this went on"):
        update(feature, page, lambda _: edit(feature))
    assert NEW["README.md"] not in tree(feature.parent).values()
    assert page.read_bytes() == FILES["README.md"]
    assert not list(feature.parent.glob(".petsage*"))


def test_what_its_checks_have_changed_is_refused(feature):
    before = refused(
        feature,
        "is not what was written any more",
        meanwhile=lambda workspace: (workspace.feature / "left").touch(),
    )
    assert tree(feature.parent.parent) == before


@pytest.mark.usefixtures("way")
def test_where_the_page_cannot_be_written_the_feature_is_as_before(feature, page, monkeypatch):
    def fail(source: Path, page: Path) -> None:
        raise OSError(28, "No space left on device", str(page))

    monkeypatch.setattr(workspaces, "_replace_page", fail)
    before = refused(feature, "No space left", page=page)
    assert tree(feature.parent.parent) == before


def test_a_pipe_in_the_folder_is_told(feature):
    os.mkfifo(feature / "pipe")
    with pytest.raises(BuildError, match="neither file, folder nor link"):
        update(feature)


def test_of_two_updates_at_once_one_is_refused(feature):
    with pytest.raises(BuildError, match="is being built or removed by another process"):
        update(feature, None, lambda _: update(feature))


KILLS = """
    import os, signal, sys
    from itertools import count
    from petsage.builder import exchange
    from petsage.builder.workspace import sweep
    from tests.test_build_update_place import NEW, update
    from tests.workspaces import *

    top = Path(sys.argv[1])
    features, page = top / "features", top / "docs" / "features" / "hello.md"
    feature = features / "hello"
    OPERATIONS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod",
                  "fcntl.flock"}
    if sys.argv[2] == "by two renames":
        exchange._renameat2 = lambda: None

    def killed_at(number):
        '''Whether a process that updates was killed at its operation of this number.'''
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
                update(feature, page)
            finally:
                os._exit(0)
        return os.WIFSIGNALED(os.waitpid(pid, 0)[1])

    build(features, page)
    before = tree(top)
    ends, new = [], None
    for number in count(1):
        is_killed = killed_at(number)
        if not feature.exists():
            assert sys.argv[2] == "by two renames"
        sweep(features, "prepare")
        assert [each.name for each in features.iterdir()] == ["hello"], number
        now = tree(top)
        is_new = now != before
        new = new or (now if is_new else None)
        assert now in (before, new), number
        ends.append(is_new)
        if is_new:
            assert page.read_bytes() == (feature / "README.md").read_bytes() == NEW["README.md"]
            assert "more.py" in os.listdir(feature)
            for path in (page, *feature.rglob("*")):
                path.is_file() and path.unlink()
            (feature / "tests").rmdir(), feature.rmdir()
            build(features, page)
        if not is_killed:
            break
    print(len(ends), ends.count(True))
    assert ends == sorted(ends)
"""


@pytest.mark.parametrize("how", ["at once", "by two renames"])
def test_wherever_an_update_is_killed_the_next_run_leaves_the_old_or_the_new_whole(tmp_path, how):
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLS), tmp_path, how],
        cwd=Path(__file__).parent.parent, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    operations, new = ended.stdout.split()
    assert int(operations) > 30
    assert int(new) > 3
