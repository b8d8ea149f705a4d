"""A feature's bytes, read once, and its modules made of just these."""

import importlib
import inspect
import os
import pickle
import py_compile
import sys
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


def test_a_stale_pyc_is_never_used_and_none_is_written(feature_folder):
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
