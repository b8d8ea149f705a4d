"""Folders become checked, imported and ordered features; whatever is wrong becomes findings."""

import calendar
import os
import subprocess
import sys
from pathlib import Path

import pytest

from petsage.errors import StartError
from petsage.loader import find_folders, load_features, unload
from petsage.snapshot import PACKAGE

FEATURE = "from petsage import Feature, Routes\nfeature = Feature(Routes(){})\n"


@pytest.fixture
def load(tmp_path):
    """Call it to load every feature in `<tmp_path>/features`; all is unloaded at the end."""
    loaded = []

    def load(folder=None, *, settings=None, **options):
        folders = folder if isinstance(folder, list) else [folder or tmp_path / "features"]
        candidates = load_features(folders, settings=settings or {}, **options)
        loaded.extend(candidates)
        return candidates

    yield load
    unload(loaded)


@pytest.fixture
def load_one(feature_folder, load):
    """Call it to load one feature, written from strings."""

    def load_one(files, name="pets", **options):
        feature_folder(name, files)
        (candidate,) = [each for each in load(**options) if each.name == name]
        return candidate

    return load_one


def needing(*names, imports=()):
    lines = "".join(f"from features.{name} import feature as {name}\n" for name in imports)
    return lines + FEATURE.format(f", needs={names!r}")


def found(candidate):
    return [(each.id, Path(each.file).name, each.line) for each in candidate.findings]


def problem(candidate):
    (finding,) = candidate.findings
    return finding.problem


# What can be seen without running anything


def test_syntax_errors_of_several_files_are_told_at_once_and_nothing_is_run(load_one):
    candidate = load_one(
        {
            "__init__.py": "raise SystemExit('was run')",
            "models.py": "x = 1\nreturn x\n",
            "routes.py": "\n\ndef (:\n",
            "store.py": "x = b'\xe9'",
            "deep/words.py": "await later()",
        }
    )

    assert sorted(found(candidate)) == [
        ("syntax-error", "models.py", 2),
        ("syntax-error", "routes.py", 3),
        ("syntax-error", "store.py", 1),
        ("syntax-error", "words.py", 1),
    ]
    assert candidate.error is None


@pytest.mark.parametrize(
    "source", [b"x = '\xff'", b"# -*- coding: no-such -*-", b"x = 1\0", b"(" * 5000, b"-" * 200000]
)
def test_a_file_that_no_parser_can_read_is_a_syntax_error(load_one, feature_folder, source):
    folder = feature_folder("pets", FEATURE.format(""))
    (folder / "odd.py").write_bytes(source)

    assert found(load_one({})) == [("syntax-error", "odd.py", 1)]


def test_a_thousand_elifs_are_read(load_one):
    branches = "".join(f"elif x == {number}:\n    pass\n" for number in range(1000))

    assert found(load_one("x = 0\nif x:\n    pass\n" + branches + FEATURE.format(""))) == []


@pytest.mark.parametrize(
    ("name", "better"),
    [
        ("my-pets", "my_pets"),
        ("Pets", "pets"),
        ("class", "class_"),
        ("sink", "sink_"),
        ("feature", "feature_"),
        ("2fast", "n2fast"),
        ("my pets", "my_pets"),
        ("café", "cafe"),
        ("x" * 64, "x" * 60),
        ("猫", "my_feature"),
        ("pets.v2", "pets_v2"),
    ],
)
def test_a_name_that_no_module_can_have_is_refused_with_a_better_one(load_one, name, better):
    (finding,) = load_one(FEATURE.format(""), name=name).findings

    assert finding.id == "bad-name"
    assert finding.fix == f"rename the folder, to `{better}` for example"


def test_a_letter_that_only_looks_right_is_named(load_one):
    candidate = load_one(FEATURE.format(""), name="pеts")  # noqa: RUF001 - that is the point

    assert "CYRILLIC SMALL LETTER IE" in problem(candidate)


def test_a_feature_may_have_the_name_of_a_standard_module(load_one):
    candidate = load_one("import calendar\n" + FEATURE.format(""), name="calendar")

    assert found(candidate) == []
    assert sys.modules["calendar"] is calendar is sys.modules["features.calendar"].calendar


def test_imports_inside_functions_are_warned_of_and_those_for_types_are_not_needs(load_one):
    candidate = load_one(
        "from typing import TYPE_CHECKING\nimport typing\n"
        "if TYPE_CHECKING:\n    from features.other import x\n"
        "if typing.TYPE_CHECKING:\n    import features.third\nelse:\n    import json\n"
        "class A:\n    async def f(self):\n        from . import words\n" + FEATURE.format("")
    )

    assert found(candidate) == [("late-import", "__init__.py", 11)]


# What an import may do


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("import sys; sys.exit(3)", "the import calls sys.exit(3)"),
        ("raise KeyboardInterrupt", "it raised KeyboardInterrupt"),
        ("raise GeneratorExit", "it raised GeneratorExit"),
        ("import asyncio; raise asyncio.CancelledError", "it raised CancelledError"),
        (
            "class Mine(BaseException):\n    def __str__(self): 1 / 0\nraise Mine",
            "the import raised Mine: (its text cannot be had: ZeroDivisionError)",
        ),
        ("open('/no/such')", "the import raised FileNotFoundError: [Errno 2] No such file or"),
    ],
)
def test_whatever_an_import_raises_sets_the_feature_aside_and_no_other(
    load, feature_folder, statement, said
):
    feature_folder("pets", {"__init__.py": "from .inner import x", "inner.py": statement})
    feature_folder("good", FEATURE.format(""))

    good, pets = load()

    assert found(good) == []
    assert found(pets) == [("import-failed", "inner.py", 1 + statement.count("\n"))]
    assert problem(pets).startswith(said)


@pytest.mark.parametrize(
    ("statement", "kind", "fix"),
    [
        ("import models", "import-failed", "write `from .models import …`"),
        ("from pets.models import x", "import-failed", "write `from .models import …`"),
        ("from owners import x", "import-failed", "write `from features.owners import …`, and"),
        ("from . import modls", "import-failed", "mend that line"),
        ("from .modls import x", "import-failed", "did you mean `models`?"),
        (
            "import importlib as i; i.import_module('features.owners.x')",
            "import-failed",
            "`owners`",
        ),
        ("import json.nothing", "import-failed", "look its name up"),
        ("import no_such.inner", "missing-package", "`pip install no_such`"),
        ("import yaml_not, json", "missing-package", "`pip install yaml_not`"),
    ],
)
def test_a_module_that_is_not_there_is_answered_with_what_was_meant(
    load_one, feature_folder, statement, kind, fix
):
    feature_folder("owners", FEATURE.format(""))
    files = {"__init__.py": f"from . import routes\n{FEATURE.format('')}"}
    candidate = load_one({**files, "routes.py": f"\n{statement}", "models.py": ""})

    assert found(candidate) == [(kind, "routes.py", 2)]
    assert fix in candidate.findings[0].fix


def test_the_line_is_the_features_own_and_not_that_of_what_it_called(load_one):
    assert found(load_one("import json\n\njson.loads('{')")) == [
        ("import-failed", "__init__.py", 3)
    ]


def test_the_line_is_not_one_of_a_feature_whose_name_begins_alike(load, feature_folder):
    feature_folder("pet", needing("pets", imports=["pets"]) + "pets.fail()\n")
    feature_folder(
        "pets",
        "from petsage import Feature, Routes\nclass F(Feature):\n    def fail(self):\n"
        "        raise ValueError('no')\nfeature = F(Routes())\n",
    )

    _, pet = load()

    assert found(pet) == [("import-failed", "__init__.py", 4)]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("x = 1", "__init__.py has no `feature`"),
        ("feature = None", "__init__.py has no `feature`"),
        ("feature = 'pets'", "__init__.py has a `feature` that is a str"),
        ("from petsage import Feature as feature", "__init__.py has a `feature` that is a type"),
    ],
)
def test_an_init_without_a_feature_is_found(load_one, source, said):
    assert problem(load_one(source)) == said


def test_a_feature_made_in_another_file_is_found_there(load_one):
    candidate = load_one(
        {
            "__init__.py": "from .made import feature",
            "made.py": FEATURE.format(", version=1"),
        }
    )

    assert found(candidate) == [("bad-feature", "made.py", 2)]


def test_arguments_of_any_type_are_findings_and_never_end_the_load(load, feature_folder):
    feature_folder("odd", FEATURE.format(", needs=(5, [], None), mount=7, checks=3, settings=dict"))
    feature_folder("good", FEATURE.format(""))

    good, odd = load()

    assert found(good) == []
    assert {each.id for each in odd.findings} == {"bad-feature"}


def test_a_feature_that_changes_the_working_directory_disturbs_no_other(
    load, feature_folder, monkeypatch, tmp_path
):
    feature_folder("a_first", f"import os; os.chdir('/')\n{FEATURE.format('')}")
    feature_folder("second", f"\n1 / 0\n{FEATURE.format('')}")
    monkeypatch.chdir(tmp_path)

    first, second = load(Path("features"))

    assert found(first) == [("import-side-effect", "__init__.py", 1)]
    assert first.errors == []
    assert Path.cwd() == tmp_path
    assert [str(each).split(": ")[0] for each in second.findings] == [
        "features/second/__init__.py:2"
    ]


@pytest.mark.parametrize("named", ["features", "./features", "../{name}/features", "{path}"])
def test_files_are_shown_as_the_folder_was_named(
    load, feature_folder, monkeypatch, tmp_path, named
):
    feature_folder("pets", {"__init__.py": "from .inner import x", "inner.py": "1 / 0"})
    feature_folder("bad", "def (:")
    monkeypatch.chdir(tmp_path)
    folder = Path(named.format(name=tmp_path.name, path=tmp_path / "features"))

    bad, pets = load(folder)

    assert bad.findings[0].file == str(folder / "bad/__init__.py")
    assert pets.findings[0].file == str(folder / "pets/inner.py")


def test_a_feature_may_log_warn_and_start_a_thread_while_it_is_imported(load_one, caplog):
    candidate = load_one(
        """
        import logging, threading, warnings
        from petsage import Feature, Routes
        logging.getLogger(__name__).warning("hello from the import")
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("always")
            warnings.warn("old", DeprecationWarning)
        done = threading.Thread(target=lambda: None)
        done.start()
        done.join()
        feature = Feature(Routes())
        """
    )

    assert found(candidate) == []
    assert ("features.pets", "hello from the import") in [
        (record.name, record.message) for record in caplog.records
    ]


# Needs


def test_features_stand_behind_what_they_need(load, feature_folder):
    for name, needs in {"a": ("c",), "b": ("a", "c"), "c": ("d",), "d": ()}.items():
        feature_folder(name, needing(*needs))

    assert [each.name for each in load()] == ["d", "c", "a", "b"]


def test_a_feature_imports_from_one_that_it_needs_whatever_their_names(load, feature_folder):
    feature_folder("a", needing("b", imports=["b"]) + "assert b.version == '1.0.0'")
    feature_folder("b", needing("c", imports=["c"]))
    feature_folder("c", FEATURE.format(""))

    c, b, a = load()

    assert [found(each) for each in (a, b, c)] == [[], [], []]
    assert sys.modules["features.a"].b is b.feature


def test_only_loads_a_feature_and_all_that_it_needs_or_imports(load, feature_folder):
    feature_folder("a", needing("b", "d", imports=["b"]))
    for name, needs in {"b": ("c",), "c": (), "d": ("e",), "e": (), "z": ("a",)}.items():
        feature_folder(name, needing(*needs))

    assert {each.name for each in load(only="a")} == {"a", "b", "c", "d", "e"}
    assert [each.name for each in load(only="nobody")] == []


def test_circles_are_named_to_each_member_and_the_others_load(load, feature_folder):
    needs = {"a": ("b",), "b": ("c",), "c": ("a",), "own": ("own",), "out": ("a",), "ok": ()}
    for name, names in needs.items():
        feature_folder(name, needing(*names))

    by_name = {each.name: each for each in load()}

    assert found(by_name["ok"]) == []
    assert found(by_name["out"]) == [("need-failed", "__init__.py", 2)]
    assert problem(by_name["own"]) == "features need each other in a circle: own → own"
    (circle,) = {problem(by_name[name]) for name in "abc"}
    assert circle.split(": ")[1] in {"a → b → c → a", "b → c → a → b", "c → a → b → c"}


def test_features_that_import_each_other_are_a_circle_too_and_neither_is_run(load, feature_folder):
    feature_folder("a", "raise SystemExit\n" + needing("b", imports=["b"]))
    feature_folder("b", "raise SystemExit\n" + needing("a", imports=["a"]))
    feature_folder("good", FEATURE.format(""))

    by_name = {each.name: each for each in load()}

    assert found(by_name["good"]) == []
    assert found(by_name["a"]) == found(by_name["b"]) == [("needs-cycle", "__init__.py", 4)]


def test_a_chain_behind_a_failed_feature_is_set_aside_and_says_so(load, feature_folder):
    feature_folder("a", "1 / 0")
    feature_folder("b", needing("a"))
    feature_folder("c", needing("b", imports=["b"]))
    feature_folder("d", needing("c"))
    feature_folder("e", FEATURE.format(""))

    problems = {each.name: [one.problem for one in each.findings] for each in load()}

    assert problems["b"] == ["it needs `a`, which was set aside"]
    assert problems["c"] == ["it needs `b`, which was set aside"]
    assert problems["d"] == ["it needs `c`, which was set aside"]
    assert problems["e"] == []


def test_a_thousand_features_each_needing_the_next_are_loaded(load, feature_folder):
    for number in range(1000):
        following = f"f{number + 1}"
        needs = [following] if number < 999 else []
        feature_folder(f"f{number}", needing(*needs, imports=needs))

    candidates = load()

    assert [each.name for each in candidates] == [f"f{number}" for number in range(999, -1, -1)]
    assert not any(each.findings for each in candidates)


def test_the_loser_of_a_clash_takes_no_route_and_fails_those_that_need_it(load, feature_folder):
    route = '@routes.get("/x")\nasync def x() -> None: ...\n'
    other = '@routes.get("/y")\nasync def y() -> None: ...\n'
    top = "from petsage import Feature, Routes\nroutes = Routes()\n"
    feature_folder("a", f"{top}{route}feature = Feature(routes)")
    feature_folder("b", f"{top}{other}{route}feature = Feature(routes)")
    feature_folder("c", f"{top}{other}feature = Feature(routes)")
    feature_folder("d", needing("b"))

    by_name = {each.name: each for each in load()}

    assert found(by_name["a"]) == found(by_name["c"]) == []
    assert found(by_name["b"]) == [("route-clash", "__init__.py", 5)]
    assert "`a` already" in problem(by_name["b"])
    assert found(by_name["d"]) == [("need-failed", "__init__.py", 2)]


# Settings


MODEL = """
from petsage import Feature, Routes
from pydantic import BaseModel, ConfigDict, Field, field_validator
class Inner(BaseModel):
    depth: int = 0
class Mine(BaseModel):
    {config}
    limit: int
    names: list[str] = []
    inner: Inner = Inner()
    @field_validator("names")
    @classmethod
    def check(cls, names):
        if "crash" in names:
            raise KeyError("no such name")
        return names
feature = Feature(Routes(), settings=Mine)
"""


def test_settings_are_filled_from_the_features_table(load_one):
    candidate = load_one(
        MODEL.format(config=""), settings={"pets": {"limit": "5", "inner": {"depth": 2}}}
    )

    assert candidate.settings.model_dump() == {"limit": 5, "names": [], "inner": {"depth": 2}}


@pytest.mark.parametrize(
    ("values", "problems"),
    [
        ({}, ["[features.pets] lacks `limit`"]),
        (
            {"limit": [99], "names": "Rex"},
            [
                "[features.pets]: `limit`: Input should be a valid integer",
                "[features.pets]: `names`: Input should be a valid list",
            ],
        ),
        ({"limit": 1, "limits": 2}, ["[features.pets] has no key `limits`"]),
        ({"limit": 1, "inner": {"dept": 2}}, ["[features.pets] has no key `inner.dept`"]),
        (
            {"limit": 1, "names": ["crash"]},
            ["[features.pets]: the model raised KeyError: 'no such name'"],
        ),
    ],
)
def test_wrong_settings_are_findings_that_show_no_value(load_one, values, problems):
    candidate = load_one(MODEL.format(config=""), settings={"pets": values})

    assert [each.problem for each in candidate.findings] == problems
    assert {each.id for each in candidate.findings} == {"bad-settings"}


def test_a_model_that_takes_any_key_gets_it(load_one):
    source = MODEL.format(config='model_config = ConfigDict(extra="allow")')

    candidate = load_one(source, settings={"pets": {"limit": 1, "more": 2}})

    assert candidate.settings.more == 2


# Folders


def test_what_is_no_package_is_left_alone(feature_folder, tmp_path, load):
    for name in (".hidden", "_private", "__pycache__"):
        feature_folder(name, "1 / 0")
    feature_folder("only_cache", {"__pycache__/x.py": "1 / 0"})
    feature_folder("only_text", {"README.md": "# Nothing"})
    (tmp_path / "features" / "single.py").write_text("1 / 0")
    (tmp_path / "features" / "empty").mkdir()

    assert load() == []


def test_a_symlinked_folder_is_a_feature_under_its_own_name(feature_folder, tmp_path, load):
    feature_folder("_shared/real", FEATURE.format(""))
    (tmp_path / "features" / "linked").symlink_to(tmp_path / "features" / "_shared" / "real")

    (candidate,) = load()

    assert (candidate.name, found(candidate)) == ("linked", [])


def test_several_folders_are_read_and_of_one_name_the_first_is_taken(
    feature_folder, tmp_path, load
):
    first = feature_folder("twin", f"which = 1\n{FEATURE.format('')}").parent
    second = feature_folder("../more/twin", f"which = 2\n{FEATURE.format('')}").parent.resolve()
    feature_folder("../more/third", FEATURE.format(""))

    candidates = load([first, second, tmp_path / "missing", first])

    assert [each.name for each in candidates] == ["twin", "third", "twin"]
    assert sys.modules["features.twin"].which == 1
    assert candidates[2].findings[0].file == str(second / "twin")
    assert problem(candidates[2]) == f"there is a feature `twin` in {first}, too"


def test_a_folder_named_twice_counts_once(feature_folder, tmp_path):
    folder = feature_folder("pets", "").parent
    (tmp_path / "link").symlink_to(folder)

    assert list(find_folders([folder, tmp_path / "link", folder])) == [folder / "pets"]


def test_disabled_features_are_not_even_read(feature_folder, load):
    feature_folder("off", "def (:")

    assert load(disabled=["off"]) == []


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that fails to read")
def test_a_file_that_cannot_be_read_is_named(feature_folder, load):
    folder = feature_folder("pets", {"__init__.py": FEATURE.format("")})
    (folder / "deep").mkdir()
    (folder / "deep" / "words.py").symlink_to(
        "words.py"
    )  # root may read any file; a link to itself leads nowhere

    (candidate,) = load()

    assert candidate.findings[0].file == str(folder / "deep" / "words.py")
    assert problem(candidate).startswith("words.py cannot be read: ")


def test_what_cannot_even_be_looked_at_is_a_finding_and_the_others_load(
    feature_folder, tmp_path, load
):
    feature_folder("pets", FEATURE.format(""))
    root = tmp_path / "features"
    (root / "long").symlink_to("x" * 300)
    (root / "later").mkdir()
    (root / "later" / "sub").symlink_to("x" * 300)  # no source, and none is asked of it

    found_there = {each.name: each for each in load()}

    assert list(found_there) == ["long", "pets"]
    assert found(found_there["pets"]) == []
    (finding,) = found_there["long"].findings
    assert (finding.id, finding.file) == ("unreadable", str(root / "long"))
    assert finding.problem == "long cannot be read: File name too long"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user to read as")
def test_a_folder_that_may_not_be_looked_into_is_a_finding_and_not_gone(feature_folder, tmp_path):
    feature_folder("pets", FEATURE.format("")).chmod(0)
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom petsage.loader import load_features\n"
        "os.seteuid(65534)\n"
        "print([each.findings[0].id for each in load_features([Path('.')], settings={})])\n"
    )
    root = os.open(tmp_path / "features", os.O_RDONLY)
    try:
        # By its descriptor: the folders above are nobody's to enter.
        told = subprocess.run(
            [sys.executable, "-c", program],
            preexec_fn=lambda: os.fchdir(root),
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    finally:
        os.close(root)
    assert told.stdout == "['unreadable']\n", told.stderr


def test_a_folder_of_features_that_cannot_be_looked_at_is_told_from_one_that_is_missing(
    feature_folder, tmp_path, load
):
    feature_folder("pets", FEATURE.format(""))
    file = tmp_path / "file"
    file.touch()

    missing = [tmp_path / "missing", file, file / "below"]
    assert [each.name for each in load([*missing, tmp_path / "features"])] == ["pets"]
    with pytest.raises(StartError, match="x cannot be read: File name too long") as raised:
        load([tmp_path / ("x" * 300)])
    assert "take it out of" in raised.value.fix


# Afterwards


def test_nothing_is_left_on_the_path_or_among_the_modules(feature_folder, load):
    feature_folder(
        "good", {"__init__.py": "from . import inner\n" + FEATURE.format(""), "inner.py": ""}
    )
    feature_folder("bad", {"__init__.py": "from . import inner\n1 / 0", "inner.py": ""})
    path, modules = list(sys.path), set(sys.modules)

    candidates = load()

    assert sys.path == path
    ours = {name for name in sys.modules if name.partition(".")[0] == PACKAGE}
    assert ours >= {"features.good", "features.good.inner"}
    assert not any(name.startswith("features.bad") for name in ours)
    unload(candidates)
    assert set(sys.modules) == modules
