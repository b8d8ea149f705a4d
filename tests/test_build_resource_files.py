"""The files that the builder makes of a resource: what stands in them, and what never can."""

import ast
import asyncio
import itertools
import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from petsage.builder import probing, verification
from petsage.builder.building import build, draft
from petsage.builder.events import BuildError, Event
from petsage.builder.expressions import Either, Name, call, expression, subscript
from petsage.builder.formatting import formatted
from petsage.builder.importing import HERE, with_imports
from petsage.builder.plan import plan_of
from petsage.builder.quoting import COLUMNS, width_of
from petsage.builder.rendering import render
from petsage.builder.request import OPERATIONS, FeatureRequest
from tests.conftest import ROOT, clean_environment
from tests.test_build_files import INI, MARKDOWN, NASTY, modules, nasty_texts, strings_of, write
from tests.test_build_resource_request import REQUESTS, accepted

pytestmark = pytest.mark.usefixtures("bytecode_of_tools")

PETS_FIELDS: dict[str, Any] = {
    "name": {"type": "string"},
    "species": {"enum": ["dog", "cat", "rabbit"]},
    "born": {"format": "date", "optional": True},
    "weight_kg": {"type": "number"},
}
WIDE_FIELDS: dict[str, Any] = {
    "title": {"unique": True, "maxLength": 100, "description": 'It\'s "it"\\ `a`; """ # noqa'},
    "code": {"pattern": r"^[A-Z]{2}-\"\d+'$", "examples": ["AB-\"12'", "XY-\"1'"], "unique": True,
             "maxLength": 20, "optional": True},
    "status": {"enum": ["new", '"""; import os #', "a'b"], "default": "new"},
    "level": {"type": "integer", "minimum": 1, "maximum": 10, "default": 3, "index": True},
    "big": {"type": "integer", "optional": True},
    "ratio": {"type": "number", "exclusiveMinimum": 0, "maximum": 1, "index": True},
    "active": {"type": "boolean", "default": True, "index": True},
    "date": {"format": "date", "default": "2026-01-31"},
    "day": {"format": "date", "default": "2026-01-31"},
    "datetime": {"format": "date-time", "optional": True, "default": "2026-01-31T12:00:00+02:00"},
    "at": {"format": "date-time", "default": "2026-01-31T12:00:00.5Z"},
    "key": {"format": "uuid", "default": "6f1c1d2e-3b4a-4c5d-8e6f-7a8b9c0d1e2f"},
    "mail": {"format": "email", "unique": True},
    "link": {"format": "uri", "optional": True},
    "items": {"enum": ["x", "y"]},
    "password": {"default": "secret"},
    "l": {"type": "integer", "optional": True},
    "tags": {"type": "array", "items": {"type": "string", "maxLength": 20}, "default": []},
    "owner": {"type": "object", "properties": {
        "name": {}, "born": {"format": "date", "optional": True},
        "kind": {"enum": ["a", "b"], "default": "a"},
        "home": {"type": "object", "optional": True, "properties": {
            "street": {}, "number": {"type": "integer", "default": 1},
            "since": {"format": "date-time", "optional": True}}}}},
    "visits": {"type": "array", "maxItems": 3, "optional": True, "items": {
        "type": "object", "properties": {"at": {"format": "date-time"}, "note": {"default": ""}}}},
    "grid": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
}  # fmt: skip


def resource(fields: dict[str, Any], **rest: Any) -> dict[str, Any]:
    return {"kind": "resource", "fields": fields, **rest}


def request_of(feature: str, *requirements: dict[str, Any], **rest: Any) -> FeatureRequest:
    return FeatureRequest.model_validate(
        {"feature": feature, "description": "The pets we know", **rest}
        | {"requirements": list(requirements)}
    )


PETS = request_of("pets", resource(PETS_FIELDS))
WIDE = request_of(
    "wide",
    resource(WIDE_FIELDS, name="tests", item="test", require_if_match=True),
    {"kind": "probe", "path": "/health"},
    resource({"name": {}}, name="stores", operations=["list", "create"]),
    resource({"type": {"unique": True}}, name="wide", item="one_wide", operations=["create", "read",
             "update"]),
    resource({"datetime": {"format": "date-time", "optional": True}}, name="logs", item="log",
             operations=["list", "read"]),
    version="1.2.0",
    description='Wide """ \\ things',
)  # fmt: skip
LONG = "n" * 40


# What is made of an ordinary request


def test_a_resource_alone_has_the_files_of_a_feature():
    assert sorted(draft(PETS)) == [
        "README.md",
        "__init__.py",
        "feature.toml",
        "migrations/__init__.py",
        "migrations/m0001_create_pets.py",
        "models.py",
        "routes.py",
        "store.py",
        "tests/test_pets.py",
    ]


def test_resources_beside_others_have_a_folder_each():
    files = draft(WIDE)
    for folder in ("tests_", "stores", "wide", "logs"):
        assert {f"{folder}/{name}.py" for name in ("models", "routes", "store")} <= set(files)
        assert f"tests/test_{folder}.py" in files
    assert {"routes.py", "models.py", "tests/test_probes.py"} <= set(files)
    assert sorted(each for each in files if "/m0" in each) == [
        "migrations/m0001_create_wide__tests.py",
        "migrations/m0002_create_wide__stores.py",
        "migrations/m0003_create_wide.py",
        "migrations/m0004_create_wide__logs.py",
    ]


def test_the_same_request_makes_the_same_bytes():
    assert draft(WIDE) == draft(FeatureRequest.model_validate(WIDE.model_dump(exclude_none=True)))


def test_an_ordinary_resource_needs_no_comment_for_ruff():
    for name, text in modules(draft(PETS)).items():
        assert "noqa" not in text, name
        assert "\n\n\n\n" not in text, name


def test_a_migration_of_many_indexes_is_a_few_statements():
    days = {f"day{number}": {"type": "string", "format": "date"} for number in range(60)}
    files = draft(request_of("diaries", resource(days)))
    source = files["migrations/m0001_create_diaries.py"].decode()
    upgrade = next(each for each in ast.parse(source).body if isinstance(each, ast.FunctionDef))
    assert len(upgrade.body) == 3
    assert all(f'"ix_diaries__{name}"' in source for name in days)


def test_what_only_a_name_or_a_text_can_break_is_allowed_in_its_row():
    rows = [
        line.strip()
        for text in modules(draft(WIDE)).values()
        for line in text.splitlines()
        if "# noqa:" in line
    ]
    reason = "the text is as it was asked for"
    assert rows == [
        f'password: Password = "secret"  # noqa: S105 - {reason}',
        f"l: L | None = None  # noqa: E741 - {reason}",
        f"l: L | None  # noqa: E741 - {reason}",
    ]


def test_a_default_that_a_field_would_hide_stands_above_its_model():
    models = draft(WIDE)["tests_/models.py"].decode()
    assert "DAY_DEFAULT = date(2026, 1, 31)\n" in models
    assert "    day: Day = DAY_DEFAULT\n" in models


@pytest.mark.parametrize(
    "operations",
    [
        each
        for number in range(1, len(OPERATIONS) + 1)
        for each in itertools.combinations(OPERATIONS, number)
    ],
)
def test_only_the_operations_that_are_asked_for_are_there(operations):
    request = request_of("pets", resource(PETS_FIELDS, operations=list(operations)))
    files = modules(render(plan_of(request)))
    methods = {"list": "get", "create": "post", "read": "get", "replace": "put",
               "update": "patch", "delete": "delete"}  # fmt: skip
    assert sorted(
        line.partition("(")[0].removeprefix("@routes.")
        for line in files["routes.py"].splitlines()
        if line.startswith("@routes.")
    ) == sorted(methods[each] for each in operations)
    for name, source in files.items():
        compile(source, name, "exec", dont_inherit=True)
        must_use_what_it_imports(source, name)


def must_use_what_it_imports(source: str, name: str) -> None:
    tree = ast.parse(source)
    imported = {
        each.asname or each.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for each in node.names
    }
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert imported <= used | {"routes"}, (name, imported - used)


@pytest.mark.parametrize("operations", [["list"], ["create", "delete"], ["read", "replace"]])
def test_ruff_finds_nothing_in_some_of_the_operations_and_long_names(operations):
    fields = {"f" * 39: {"format": "date", "optional": True, "index": False}, **PETS_FIELDS}
    for name in (operations, OPERATIONS):
        request = request_of(
            "pets",
            resource(fields, name=f"{LONG[:-1]}s", item=LONG, operations=list(name)),
        )
        formatted(render(plan_of(request)), "pets")


def test_names_that_differ_by_their_zeros_are_imported_in_the_order_that_ruff_wants():
    names = ("a_00_pets", "a_0_pets")
    named = (resource({"name": {}}, name=name, item=f"{name}_one") for name in names)
    source = draft(request_of("pets", *named))["__init__.py"].decode()
    assert source.index("from .a_0_pets.routes") < source.index("from .a_00_pets.routes")


def test_what_may_hold_nothing_is_tried_with_nothing():
    fields = {
        "none": {"type": "array", "items": {}, "maxItems": 0},
        "empty": {"type": "string", "maxLength": 0},
    }
    source = render(plan_of(request_of("pets", resource(fields))))["tests/test_pets.py"]
    assert '"none": st.lists(st.text(TEXT, max_size=50), max_size=0)' in source
    assert '"empty": st.text(TEXT, max_size=0)' in source


# Text from outside


@settings(max_examples=10, deadline=None)
@given(text=nasty_texts.map(lambda text: text[:200]).filter(str.strip))
def test_a_text_of_a_field_is_a_string_to_the_letter(text):
    must_hold(text)


def test_each_nasty_text_of_a_field_is_a_string_to_the_letter():
    for text in NASTY:
        if text[:200].strip():
            must_hold(text[:200])


def files_with(text: str) -> dict[str, str]:
    fields = {
        "name": {"description": text, "default": text, "examples": [text]},
        "kind": {"enum": [text, "other"], "default": text},
        "more": {"type": "array", "items": {"examples": [text]}, "examples": [[text]]},
    }
    return render(plan_of(request_of("pets", resource(fields))))


@cache
def plain_ones() -> tuple[dict[str, list[str]], list[str]]:
    files = files_with("plain")
    shapes = {name: shape_of(source) for name, source in modules(files).items()}
    return shapes, [token.type for token in MARKDOWN.parse(files["README.md"])]


def must_hold(text: str) -> None:
    shapes, tokens = plain_ones()
    files = files_with(text)
    assert [token.type for token in MARKDOWN.parse(files["README.md"])] == tokens
    for name, source in modules(files).items():
        assert shape_of(source) == shapes[name], name
    assert strings_of(files["models.py"]).count(text) >= 4


def shape_of(source: str) -> list[str]:
    """Every kind of node of a module but those of its strings, in order."""
    return [
        type(node).__name__
        for node in ast.walk(ast.parse(source))
        if not (isinstance(node, ast.Constant) and isinstance(node.value, str))
    ]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | nasty_texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(nasty_texts, inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(value=values, indent=st.sampled_from([0, 4, 8]))
def test_an_expression_is_its_value_and_fits_into_its_lines(value, indent):
    written = expression(value, lead="x = ", indent=indent)
    assert ast.literal_eval(written.removeprefix("x = ")) == value
    longest = max(width_of(line) for line in written.split("\n"))
    deepest = json.dumps(value)
    assert longest <= COLUMNS or any(mark in deepest for mark in '"{')  # a long key stays whole


def test_calls_and_types_are_broken_where_they_do_not_fit():
    assert expression(subscript("list", Name("Pet")), lead="Pets = ") == "Pets = list[Pet]"
    long = call("f", Either("st.none()", call("g", "x" * 60)), name=["y" * 60])
    assert expression(long) == (
        "f(\n"
        f'    st.none() | g("{"x" * 60}"),\n'
        f'    name=["{"y" * 60}"],\n'
        ")"
    )  # fmt: skip


def test_imports_are_those_of_the_names_that_are_used():
    source = f"{HERE}\nA = date(2026, 1, 31)\nB = [op, st, json, store, UTC]\ndef select(): ...\n"
    assert with_imports(source, {".": ["store"]}).startswith(
        "import json\nfrom datetime import UTC, date\n\nfrom alembic import op\n"
        "from hypothesis import strategies as st\n\nfrom . import store\n\nA ="
    )


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(document=REQUESTS)
def test_whatever_is_accepted_is_written_as_python(document):
    request = accepted(document)
    if request is None:
        return
    for name, source in modules(render(plan_of(request))).items():
        compile(source, name, "exec", dont_inherit=True)


# What was made runs


def test_what_a_resource_needs_is_named_before_anything_is_written(monkeypatch):
    for module in ("sqlalchemy", "hypothesis"):
        monkeypatch.setitem(sys.modules, module, None)
    verification.require_tools()
    with pytest.raises(BuildError) as raised:
        verification.require_tools(for_resources=True)
    assert str(raised.value) == (
        "petsage build needs hypothesis and sqlalchemy, which are not installed; "
        "fix: pip install 'petsage[build,db]'"
    )


async def test_an_endpoint_that_is_not_as_planned_is_found(tmp_path):
    feature = write(draft(PETS), tmp_path / "features" / "pets")
    routes = feature / "routes.py"
    source = routes.read_text()
    left_out = 'tagged(created, location=f"/api/v1/pets/{created.id}")'
    assert left_out in source
    routes.write_text(source.replace(left_out, "tagged(created)"))

    with pytest.raises(BuildError, match="POST /api/v1/pets is answered without Location"):
        await probing.probe(plan_of(PETS), feature, scratch=tmp_path)


def test_a_resource_is_built_and_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told: list[Event] = []
    folder = tmp_path / "features"
    building = build(lambda: PETS, folder=folder, page_folder=tmp_path / "docs",
                     address="http://127.0.0.1:8000", tell=told.append)  # fmt: skip
    assert asyncio.run(building), [f"{event.label}: {event.text}" for event in told]
    texts = {event.label: event.text for event in told}
    assert texts["REQUIREMENTS"] == "resource /pets: 4 fields"
    assert texts["PROBED"].startswith("6 endpoints answered, OpenAPI valid (")
    tries = [event.text for event in told if event.label == "TRY"]
    assert tries[0].startswith('curl -i http://127.0.0.1:8000/api/v1/pets --json \'{"name": ')
    assert tries[1] == "curl -i http://127.0.0.1:8000/api/v1/pets"
    assert sorted(each.name for each in folder.iterdir()) == ["pets"]
    assert not (tmp_path / "data").exists()
    page, readme = tmp_path / "docs" / "pets.md", folder / "pets" / "README.md"
    assert page.read_bytes() == readme.read_bytes()


@pytest.mark.stress
def test_a_wide_request_is_built_and_right_by_the_types_of_sqlalchemy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told: list[Event] = []
    folder = tmp_path / "features"
    building = build(lambda: WIDE, folder=folder, page_folder=None, address="http://x",
                     tell=told.append)  # fmt: skip
    assert asyncio.run(building), [f"{event.label}: {event.text}" for event in told]
    assert must_pass_mypy(tmp_path) == "Success"


def must_pass_mypy(root: Path) -> str:
    """What mypy says of features with the project's own settings, which skip no types."""
    ini = root / "mypy.ini"
    ini.write_text(
        "[mypy]\nstrict = true\nexplicit_package_bases = true\nnamespace_packages = true\n"
        "plugins = pydantic.mypy\nfollow_imports = silent\nwarn_unreachable = true\n"
        "[mypy-features.*.tests.*]\nignore_errors = true\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(ini), "features"],
        cwd=root, env=clean_environment() | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout.partition(":")[0]


@pytest.mark.stress
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(document=REQUESTS)
def test_whatever_is_accepted_serves_and_passes_its_tests(tmp_path_factory, warm_pytest, document):
    request = accepted(document)
    if request is None:
        return
    root = tmp_path_factory.mktemp("made")
    write(draft(request), root / "features" / request.feature)
    (root / "pytest.ini").write_text(INI)
    done = warm_pytest.run(
        ("-q", "-c", "pytest.ini", f"features/{request.feature}"),
        cwd=root, env=clean_environment(), stdin="", timeout_s=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
