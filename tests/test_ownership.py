"""Who may write a feature, by real modes and owners."""

import getpass
import os
import shlex
import subprocess
from pathlib import Path

import pytest

from petsage.loader import load_features, unload
from petsage.snapshot import take_snapshot

STRANGER = 54321
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")


@pytest.fixture
def folder(feature_folder):
    files = {"__init__.py": "", "data/a b.txt": "1", "data/c.txt": "2"}
    return feature_folder("pets", files)


def findings(folder, *within):
    snapshot = take_snapshot("pets", folder, within)
    return [(level, flaw.id, place.file, flaw.fix) for place, flaw, level in snapshot.flaws]


def run(fix):
    subprocess.run(shlex.split(fix.removeprefix("run `").removesuffix("`")), check=True)


def test_what_only_this_user_may_write_is_safe(folder):
    assert findings(folder) == []


@pytest.mark.parametrize("within", ["data/a b.txt", "data", ""])
@pytest.mark.parametrize("mode", [0o002, 0o1002])
def test_what_everyone_may_write_is_refused_with_the_command_that_mends_it(folder, within, mode):
    path = folder / within
    path.chmod(path.stat().st_mode | mode)

    fix = f"run `chmod o-w {shlex.quote(str(path))}`"
    assert findings(folder) == [("error", "unsafe-permissions", str(path), fix)]
    run(fix)
    assert findings(folder) == []


def test_many_are_told_at_once_and_mended_at_once(folder):
    for name in ("a b.txt", "c.txt"):
        (folder / "data" / name).chmod(0o646)

    (found,) = take_snapshot("pets", folder).flaws
    assert found[1].problem == "everyone may write a b.txt (mode 0646), and 1 more"
    run(found[1].fix)
    assert findings(folder) == []


def test_a_mended_mode_makes_another_hash(folder):
    before = take_snapshot("pets", folder).content_hash
    (folder / "__init__.py").chmod(0o646)
    refused = take_snapshot("pets", folder).content_hash
    (folder / "__init__.py").chmod(0o600)

    assert take_snapshot("pets", folder).content_hash == before != refused


def test_a_folder_of_features_that_is_open_has_all_in_it_refused(folder, feature_folder):
    feature_folder("owners", "")
    root = folder.parent
    root.chmod(0o777)

    candidates = load_features([root], settings={})
    unload(candidates)
    assert [each.name for each in candidates] == ["owners", "pets"]
    for candidate in candidates:
        (found,) = candidate.findings
        assert (found.id, found.file) == ("unsafe-permissions", str(root))
        assert found.fix == f"run `chmod o-w {root}`"


@as_root
@pytest.mark.parametrize("within", ["data/c.txt", "data", ""])
def test_what_belongs_to_a_stranger_is_refused(folder, within):
    os.chown(folder / within, STRANGER, -1)

    fix = f"run `chown {getpass.getuser()} {folder / within}`"
    assert findings(folder) == [("error", "unsafe-permissions", str(folder / within), fix)]
    run(fix)
    assert findings(folder) == []


@as_root
def test_a_group_is_a_warning_and_a_private_one_is_none(folder):
    for name in ("a b.txt", "c.txt"):
        (folder / "data" / name).chmod(0o664)
    assert findings(folder) == []  # root's own

    for name in ("a b.txt", "c.txt"):
        os.chown(folder / "data" / name, -1, STRANGER)
    (found,) = findings(folder)
    assert found[:3] == ("warning", "group-writable", str(folder / "data" / "a b.txt"))
    run(found[3])
    assert findings(folder) == []


def test_of_a_link_what_it_leads_to_counts_and_the_folders_that_hold_that(
    folder, feature_folder, tmp_path
):
    shared = feature_folder("_shared", {"deep/words.py": ""})
    (folder / "words.py").symlink_to(shared / "deep" / "words.py")
    assert findings(folder) == []

    (shared / "deep" / "words.py").chmod(0o646)
    shared.chmod(0o777)
    found = findings(folder, tmp_path / "features")
    assert [Path(each[2]) for each in found] == [shared, folder / "words.py"]
    for each in found:
        run(each[3])
    assert findings(folder) == []
