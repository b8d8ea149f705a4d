"""A feature's bytes, read once, and its modules made of just these."""

import contextlib
import importlib
import inspect
import os
import pickle
import py_compile
import socket
import stat
import subprocess
import sys
import threading
import traceback
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from petsage.snapshot import PACKAGE, ImportedModules, take_snapshot


@pytest.fixture
def load(feature_folder):
    """Call it to write a feature and import it; what was imported is taken out at the end."""
    loaded = []

    def load(files, name="pets"):
        modules = ImportedModules(take_snapshot(name, feature_folder(name, files)))
        loaded.append(modules)
        return modules.load()

    yield load
    for modules in loaded:
        modules.put_back()
        modules.forget_sources()


def state():
    """What an import may leave behind."""
    names = {name for name in sys.modules if name.partition(".")[0] == PACKAGE}
    return names, list(sys.path)


def test_a_change_after_the_snapshot_is_neither_imported_nor_shown(feature_folder):
    folder = feature_folder("pets", "def fail():\n    raise ValueError('old')\n")
    modules = ImportedModules(take_snapshot("pets", folder))
    (folder / "__init__.py").write_text("\n\n\ndef fail():\n    raise ValueError('new')\n")

    module = modules.load()
    with pytest.raises(ValueError, match="old") as caught:
        module.fail()

    assert "raise ValueError('old')" in "".join(traceback.format_exception(caught.value))
    assert "'old'" in inspect.getsource(module)
    modules.put_back()


def test_a_stale_pyc_is_never_used_and_none_is_written(feature_folder, monkeypatch):
    monkeypatch.setattr(sys, "pycache_prefix", None)  # where one lies beside its file
    folder = feature_folder("pets", "value = 'old'")
    file = folder / "__init__.py"
    cached = Path(py_compile.compile(str(file)) or "")
    before = file.stat()
    file.write_text("value = 'new'")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    planted = cached.read_bytes()

    modules = ImportedModules(take_snapshot("pets", folder))
    assert modules.load().value == "new"
    modules.put_back()

    assert cached.read_bytes() == planted
    assert list(folder.rglob("*.pyc")) == [cached]


def test_the_hash_is_of_every_file_and_of_no_cache(feature_folder):
    folder = feature_folder("pets", {"__init__.py": "", "data/names.txt": "Rex"})
    first = take_snapshot("pets", folder).content_hash
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "x.pyc").write_bytes(b"x")
    assert take_snapshot("pets", folder).content_hash == first

    (folder / "data" / "names.txt").write_text("Max")
    assert take_snapshot("pets", folder).content_hash != first


def test_relative_imports_and_sub_packages_work(load):
    module = load(
        {
            "__init__.py": "from .routes import value\nfrom . import deep",
            "routes.py": "from .deep.inner import value",
            "deep/__init__.py": "from ..words import word",
            "deep/inner.py": "from ..words import word\nvalue = word * 2",
            "words.py": "word = 'ha'",
        }
    )

    assert module.value == "haha"
    assert module.deep.__package__ == "features.pets.deep"


def test_a_folder_without_init_is_a_package_too(load):
    module = load({"__init__.py": "from .deep.inner import value", "deep/inner.py": "value = 7"})

    assert module.value == 7


def test_data_files_are_found_as_in_any_package(load):
    module = load({"__init__.py": "", "data/names.txt": "Rex"})

    assert resources.files(module).joinpath("data/names.txt").read_text() == "Rex"


def test_classes_can_be_pickled_and_dataclasses_and_models_resolve_their_names(load):
    module = load(
        """
        from __future__ import annotations
        from dataclasses import dataclass, fields
        from pydantic import BaseModel
        from typing import ClassVar

        @dataclass
        class Owner:
            kind: ClassVar[str] = "person"
            name: str = "Ann"

        class Pet(BaseModel):
            owner: Owner
        """
    )

    pet = module.Pet(owner=module.Owner("Bob"))
    assert pickle.loads(pickle.dumps(pet)) == pet
    assert [field.name for field in module.fields(module.Owner)] == ["name"]


def test_a_source_in_another_encoding_is_shown_as_it_is(feature_folder):
    folder = feature_folder("pets", "")
    text = "# -*- coding: latin-1 -*-\nname = 'Zoë'\ndef fail():\n    raise ValueError('Zoë')\n"
    (folder / "__init__.py").write_bytes(text.encode("latin-1"))
    modules = ImportedModules(take_snapshot("pets", folder))
    module = modules.load()

    with pytest.raises(ValueError, match="Zoë") as caught:
        module.fail()
    assert "raise ValueError('Zoë')" in "".join(traceback.format_exception(caught.value))
    modules.put_back()


@pytest.mark.parametrize("source", ["value = 1", "from . import inner\n1 / 0"])
def test_everything_is_put_back_as_it_was(feature_folder, source):
    folder = feature_folder("pets", {"__init__.py": source, "inner.py": ""})
    before = state()
    modules = ImportedModules(take_snapshot("pets", folder))

    try:
        modules.load()
    except ZeroDivisionError:
        assert state() == before
    modules.put_back()
    modules.put_back()

    assert state() == before


def test_what_stood_there_before_is_put_back_with_its_attribute(feature_folder, monkeypatch):
    package: Any
    package, before = ModuleType(PACKAGE), ModuleType(f"{PACKAGE}.pets")
    package.__path__ = []
    package.pets = before
    monkeypatch.setitem(sys.modules, PACKAGE, package)
    monkeypatch.setitem(sys.modules, f"{PACKAGE}.pets", before)
    modules = ImportedModules(take_snapshot("pets", feature_folder("pets", "")))

    assert modules.load() is package.pets is not before
    modules.put_back()

    assert sys.modules[f"{PACKAGE}.pets"] is package.pets is before


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (1, 0, 2)])
def test_generations_may_go_in_any_order_and_the_newest_left_stays(feature_folder, order):
    before = state()
    generations, loaded = [], []
    for number in range(3):
        files = {"__init__.py": "from .inner import value", "inner.py": f"value = {number}"}
        modules = ImportedModules(take_snapshot("pets", feature_folder("pets", files)))
        generations.append(modules)
        loaded.append(modules.load())
    assert [module.value for module in loaded] == [0, 1, 2]

    left = [0, 1, 2]
    for number in order:
        generations[number].put_back()
        left.remove(number)
        if left:
            assert sys.modules[f"{PACKAGE}.pets"] is loaded[left[-1]]
            assert sys.modules[f"{PACKAGE}.pets.inner"].value == left[-1]
            package: Any = importlib.import_module(PACKAGE)
            assert package.pets is loaded[left[-1]]
    assert state() == before


def test_features_of_like_names_are_left_alone(load):
    longer = load("value = 1", name="pets_extra")
    short = ImportedModules(take_snapshot("pets", Path(longer.__file__).parent))
    short.load()
    short.put_back()

    assert sys.modules[f"{PACKAGE}.pets_extra"] is longer


def test_a_missing_module_of_a_feature_is_looked_for_nowhere_else(load, tmp_path):
    load("")

    with pytest.raises(ModuleNotFoundError, match=r"features\.pets\.json"):
        importlib.import_module("features.pets.json")


def test_pipes_and_broken_links_are_left_out(feature_folder):
    folder = feature_folder("pets", "")
    os.mkfifo(folder / "pipe.py")
    (folder / "gone.py").symlink_to(folder / "nowhere.py")

    assert list(take_snapshot("pets", folder).sources) == ["__init__.py"]


# Links, kinds of files, and what is written meanwhile


def kinds(snapshot):
    return [(flaw.id, Path(place.file).name) for place, flaw, _ in snapshot.flaws]


def test_links_inside_the_folders_of_features_are_followed_and_those_that_lead_out_refused(
    feature_folder, tmp_path
):
    folder = feature_folder("pets", {"__init__.py": "", "a/b.py": "v = 1"})
    shared = feature_folder("_shared", {"words.py": "v = 2", "deep/c.py": "v = 3"})
    outside = feature_folder("../outside", {"secret.py": "v = 4"})
    (folder / "words.py").symlink_to("../_shared/words.py")
    (folder / "deep").symlink_to(shared / "deep")
    (folder / "secret.py").symlink_to(outside / "secret.py")
    (folder / "out").symlink_to(outside)
    (folder / "up.py").symlink_to("../../outside/secret.py")
    (folder / "twice.py").symlink_to("out/secret.py")

    snapshot = take_snapshot("pets", folder, [tmp_path / "features"])
    assert sorted(snapshot.sources) == ["__init__.py", "a/b.py", "deep/c.py", "words.py"]
    names = ["out", "secret.py", "twice.py", "up.py"]
    assert sorted(kinds(snapshot)) == [("outside-link", name) for name in names]

    both = take_snapshot("pets", folder, [tmp_path / "features", tmp_path / "outside"])
    assert both.sources["out/secret.py"] == b"v = 4"
    assert kinds(both) == []


def test_a_features_folder_that_leads_out_is_not_read(feature_folder, tmp_path):
    outside = feature_folder("../outside", "v = 1")
    (tmp_path / "features" / "pets").symlink_to(outside)

    snapshot = take_snapshot("pets", tmp_path / "features" / "pets")
    assert (kinds(snapshot), snapshot.sources) == ([("outside-link", "pets")], {})


def test_links_in_a_circle_are_followed_once(feature_folder):
    folder = feature_folder("pets", {"__init__.py": "", "a/b.py": ""})
    (folder / "a" / "up").symlink_to("..")
    (folder / "here").symlink_to(".")
    (folder / "all").symlink_to("../../features")

    assert "all/pets/a/b.py" not in take_snapshot("pets", folder).sources
    assert {"__init__.py", "a/b.py"} <= set(take_snapshot("pets", folder).sources)


def test_sockets_and_devices_are_left_out(feature_folder, monkeypatch):
    folder = feature_folder("pets", "")
    monkeypatch.chdir(folder)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.py")
        if os.geteuid() == 0:
            os.mknod("zero.py", 0o600 | stat.S_IFCHR, os.makedev(1, 5))
        assert list(take_snapshot("pets", folder).sources) == ["__init__.py"]


def test_too_many_files_are_found_before_any_is_read(feature_folder, monkeypatch):
    folder = feature_folder("pets", {f"{number}.txt": "" for number in range(30)})
    monkeypatch.setattr("petsage.listing.MAX_FILES", 20)

    snapshot = take_snapshot("pets", folder)
    assert (kinds(snapshot), snapshot.sources) == ([("too-large", "pets")], {})


def test_the_hash_is_the_same_whatever_the_order_and_names_are_part_of_it(feature_folder):
    files = {"b.txt": "1", "a/c.txt": "2", "a.txt": "3", "__init__.py": ""}
    one = feature_folder("one", files)
    other = feature_folder("other", dict(reversed(files.items())))
    before = take_snapshot("pets", one).content_hash
    assert take_snapshot("pets", other).content_hash == before

    (other / "b.txt").rename(other / "c.txt")
    assert take_snapshot("pets", other).content_hash != before


def test_a_snapshot_is_of_one_moment_though_the_folder_is_written_to(feature_folder):
    """Both files always say the same, `a` first: a snapshot never has a newer `b`, nor half."""
    folder = feature_folder("pets", {"a.py": "0" * 5000, "b.py": "0" * 5000})
    ended = threading.Event()

    def keep_writing():
        number = 0
        while not ended.wait(0.01):
            number = (number + 1) % 10
            for name in ("a.py", "b.py"):
                (folder / ".draft").write_text(str(number) * 5000)
                (folder / ".draft").replace(folder / name)

    writer = threading.Thread(target=keep_writing)
    writer.start()
    taken: list[dict[str, bytes]] = []
    try:
        while len(taken) < 100:
            with contextlib.suppress(OSError):
                taken.append(take_snapshot("pets", folder).sources)
    finally:
        ended.set()
        writer.join()
    for sources in taken:
        first, second = sources["a.py"], sources["b.py"]
        assert (len(first), len(second)) == (5000, 5000)
        assert int(first[:1]) - int(second[:1]) in {0, 1, -9}


def test_a_file_that_is_written_to_all_the_time_is_named(feature_folder):
    folder = feature_folder("pets", {"__init__.py": "", "log.txt": ""})
    writing = "while :; do echo x; done >> log.txt"
    with subprocess.Popen(["sh", "-c", writing], cwd=folder) as writer:
        try:
            with pytest.raises(OSError, match="it changes while it is read") as caught:  # noqa: PT012 - in the end
                while True:  # until it writes
                    take_snapshot("pets", folder)
        finally:
            writer.kill()
    assert caught.value.filename == str(folder / "log.txt")


def test_a_file_that_is_moved_meanwhile_is_neither_missing_nor_there_twice(feature_folder):
    folder = feature_folder("pets", {"__init__.py": "", "a/x.py": "", "b/y.py": "", "a/f.py": ""})
    moving = "import os, time\nwhile True:\n    for a, b in ('ab', 'ba'):\n"
    moving += "        os.rename(f'{a}/f.py', f'{b}/f.py')\n        time.sleep(0.001)\n"
    with subprocess.Popen([sys.executable, "-c", moving], cwd=folder) as mover:
        try:
            for _ in range(2_000):
                with contextlib.suppress(OSError):
                    sources = take_snapshot("pets", folder).sources
                    assert len(sources) == 4
        finally:
            mover.kill()
