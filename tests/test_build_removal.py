"""What was built can be taken back, and nothing is lost that somebody has made of it."""

import os
import shutil
import signal
import subprocess
import sys
import threading

import pytest

from petsage.builder.events import BuildError, Event
from petsage.builder.interruption import Interrupted, raising
from petsage.builder.record import RECORD, write_record
from petsage.builder.removal import remove_feature
from petsage.builder.request import FeatureRequest
from petsage.builder.workspace import open_workspace
from tests.workspaces import FILES, build, tree


@pytest.fixture
def place(tmp_path):
    """A feature that was built, with its page."""
    files = {**FILES, RECORD: write_record(FeatureRequest(feature="hello", description="a"), FILES)}
    return build(tmp_path / "features", tmp_path / "docs" / "hello.md", files)


@pytest.fixture(autouse=True)
def taking_signals():
    """Lets signals have their takers again: a process that was interrupted ignores them."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, taker in before.items():
        signal.signal(number, taker)


@pytest.fixture
def page(tmp_path):
    return tmp_path / "docs" / "hello.md"


def remove(place, *, force=False, **options):
    """Removes a feature; each label that was told."""
    told: list[Event] = []
    options = {"page_folder": place.parent.parent / "docs", **options}
    remove_feature(place.parent, place.name, force=force, tell=told.append, **options)
    return [(event.label, event.text) for event in told]


def refused(place, match, *, force=False, **options):
    """The error of a removal that changes nothing."""
    before = tree(place.parent.parent)
    with pytest.raises(BuildError, match=match) as caught:
        remove(place, force=force, **options)
    assert caught.value.stage == "undo"
    assert tree(place.parent.parent) == before
    return caught.value


def test_a_signal_ends_a_removal_before_it_has_begun_and_not_after(place, page):
    before = tree(place.parent.parent)
    with pytest.raises(Interrupted), raising():
        remove(place, begin=lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert tree(place.parent.parent) == before

    with raising() as finish:

        def begin():
            finish()
            os.kill(os.getpid(), signal.SIGTERM)

        assert remove(place, begin=begin)[0] == ("STATUS", "UNDO COMPLETE")
    assert not place.exists()
    assert not page.exists()


@pytest.fixture
def often_switched():
    """Has threads take turns as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_a_signal_at_any_moment_is_an_interruption_or_its_earlier_takers(often_switched):
    earlier: list[int] = []
    interrupted = 0
    before = signal.getsignal(signal.SIGTERM)
    here = threading.get_ident()

    def send(turns: int) -> None:
        for _ in range(turns):
            pass
        signal.pthread_kill(here, signal.SIGTERM)

    for turns in range(0, 12_000, 40):
        signal.signal(signal.SIGTERM, lambda number, _: earlier.append(number))
        sender = threading.Thread(target=send, args=(turns,))
        sender.start()
        try:
            with raising():
                sender.join()
        except Interrupted:
            interrupted += 1
            sender.join()
    signal.signal(signal.SIGTERM, before)
    assert interrupted + len(earlier) == 300


def test_a_feature_and_its_page_are_removed_and_nothing_else(place, page):
    (page.parent / "other.md").touch()
    (place.parent / "other").mkdir()
    told = remove(place)

    assert told == [
        ("STATUS", "UNDO COMPLETE"),
        ("FEATURE", "hello is removed"),
        ("REMOVED", f"4 files from {place}"),
    ]
    assert list(place.parent.iterdir()) == [place.parent / "other"]
    assert list(page.parent.iterdir()) == [page.parent / "other.md"]


def test_what_python_and_editors_leave_is_no_edit(place):
    (place / "tests" / "__pycache__").mkdir()
    (place / "tests" / "__pycache__" / "test_hello.cpython-311.pyc").touch()
    (place / ".routes.py.swp").touch()
    (place / "README.md~").touch()
    remove(place)
    assert list(place.parent.iterdir()) == []


def change(place, page):
    (place / "__init__.py").write_bytes(b"1")


def add(place, page):
    (place / "tests" / "test_more.py").touch()


def take_away(place, page):
    (place / "tests" / "test_hello.py").unlink()


def link(place, page):
    (place / "__init__.py").rename(place.parent / "there.py")
    (place / "__init__.py").symlink_to(place.parent / "there.py")


def link_a_folder(place, page):
    (place / "more").symlink_to(place.parent)


def change_the_record(place, page):
    (place / RECORD).write_bytes(b"# mine\n" + (place / RECORD).read_bytes())


def change_the_page(place, page):
    page.write_text("mine")


EDITS = {
    change: "__init__.py was changed",
    add: "tests/test_more.py was added",
    take_away: "tests/test_hello.py is gone",
    link: "__init__.py is no file any more",
    link_a_folder: "more was added",
    change_the_record: "feature.toml was changed",
    change_the_page: "hello.md is not what README.md says",
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_is_refused_by_name_and_lost_only_where_that_is_asked_for(place, page, edit):
    edit(place, page)
    error = refused(place, EDITS[edit])
    assert "--force" in error.fix
    assert len(error.details) == 1

    outside = {path for path in place.parent.iterdir() if path != place}
    remove(place, force=True)
    assert set(place.parent.iterdir()) == outside
    assert not page.exists()


def test_all_edits_are_named(place, page):
    for edit in (change, add, take_away):
        edit(place, page)
    error = refused(place, r"__init__\.py was changed, and 2 more")
    assert error.details == (
        "__init__.py was changed",
        "tests/test_hello.py is gone",
        "tests/test_more.py was added",
    )


def test_a_page_that_is_gone_already_is_no_hindrance(place, page):
    page.unlink()
    remove(place)
    assert list(place.parent.iterdir()) == []


@pytest.mark.parametrize("force", [False, True])
def test_what_was_not_built_is_never_removed(place, force):
    (place / RECORD).unlink()
    assert "by hand" in refused(place, "hello has no feature.toml", force=force).fix


@pytest.mark.parametrize("force", [False, True])
def test_a_link_is_never_removed_nor_what_it_leads_to(tmp_path, place, force):
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    refused(place, "hello is a link to .*elsewhere", force=force)


@pytest.mark.parametrize("name", ["../features/hello", "/etc", ".", "", "hello/", "HELLO", "a\0b"])
def test_a_name_that_leads_elsewhere_is_refused(place, name):
    before = tree(place.parent.parent)
    with pytest.raises(BuildError, match="cannot be a feature's name"):
        remove_feature(place.parent, name, page_folder=None, force=True, tell=print)
    assert tree(place.parent.parent) == before


def test_a_feature_that_is_not_there_is_told_with_the_nearest_that_is(place):
    assert refused(place.parent / "helo", "no feature helo").fix == "did you mean `hello`?"
    shutil.rmtree(place.parent)
    with pytest.raises(BuildError, match="no feature hello"):
        remove(place)


def test_it_is_not_removed_while_it_is_being_built_or_removed(place):
    with (
        open_workspace(place.parent, "other"),
        pytest.raises(BuildError, match="no feature other"),
    ):
        remove(place.parent / "other")
    place.rename(place.parent / ".aside")
    with open_workspace(place.parent, "hello"):
        (place.parent / ".aside").rename(place)
        refused(place, "hello is being built or removed")


@pytest.mark.parametrize(
    "source",
    [
        "from petsage import Feature, Routes\nfeature = Feature(Routes(), needs=('hello',))\n",
        "from features.hello import routes\n",
        "import features.hello.models\n",
    ],
)
@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_feature_that_another_needs_is_removed_only_where_that_is_asked_for(
    tmp_path, place, source, elsewhere
):
    other = (tmp_path / "more" if elsewhere else place.parent) / "other"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text(source)
    error = refused(place, "other needs hello", beside=[tmp_path / "more"])
    assert "remove other first" in error.fix

    remove(place, force=True)
    assert not place.exists()
    assert other.is_dir()


def test_a_feature_that_only_speaks_of_it_or_cannot_be_read_is_no_hindrance(place):
    for name, source in {"speaks": "HELLO = 'hello'\n", "broken": "import (\n"}.items():
        (place.parent / name).mkdir()
        (place.parent / name / "__init__.py").write_text(source)
    remove(place)
    assert not place.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a folder immutable")
def test_a_folder_that_cannot_be_changed_is_told(place, page):
    if subprocess.run(["chattr", "+i", place], check=False).returncode:
        pytest.skip("this disk knows no such files")
    try:
        error = refused(place, "hello: Operation not permitted")
        assert "chmod" in error.fix
        assert "--output" not in error.fix
    finally:
        subprocess.run(["chattr", "-i", place], check=True)
