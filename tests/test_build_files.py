"""The files that the builder makes of a request: what stands in them, and what never can.

Over 300 lines because every kind of text is tried at every place that it comes to.
"""

import ast
import asyncio
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from petsage.builder import quoting
from petsage.builder.building import build, draft
from petsage.builder.events import BuildError, Event
from petsage.builder.formatting import SETTINGS, formatted
from petsage.builder.plan import plan_of
from petsage.builder.record import RECORD, hash_of, read_record, write_record
from petsage.builder.rendering import render
from petsage.builder.request import FeatureRequest
from tests.conftest import ROOT, clean_environment
from tests.workspaces import tree

OURS = ROOT / "petsage" / "builder"
MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])
LONG = "n" + "ame" * 20 + "_x"
PROBES = [
    {"kind": "probe", "path": "/health/queue"},
    {"kind": "probe", "path": "/Health-queue", "message": "Still here.", "summary": "Look again"},
    {"kind": "probe", "path": "/deep/a.b/~c", "tags": ["Queue", "Watch"]},
]
NASTY = [
    '"""',
    "'''",
    '"',
    "'",
    "\\",
    "\\\\'\"",
    '\\"; import os; os.system("x") #',
    "{{ plan }} {% raw %} {# no #}",
    "{missing.name} %s %(x)d",
    "# type: ignore",
    "# noqa",
    "# ruff: noqa",
    "# mypy: ignore-errors",
    "# fmt: off",
    "0.0.0.0",
    "/tmp/x",
    "password",
    "SELECT * FROM pets WHERE name = ",
    "-*- coding: latin-1 -*-",
    "<script>alert(1)</script>",
    "<!-- -->",
    "![x](http://x/y.png)",
    "[x](javascript:alert(1))",
    "[x]: http://x",
    "<http://x.y>",
    "http://x.y www.x.y a@b.c",
    "&amp; &#35; &copy;",
    "`code` ``` ~~~ ``````",
    "*a* **b** _c_ __d__ ~~e~~ $f$",
    "a | b \\| c |",
    "|---|",
    "# a",
    "- a",
    "+ a",
    "1. a",
    "23) a",
    "> a",
    "=== ---",
    "a === ---",
    ":-- :--",
    "  two  spaces  ",
    "Args:",
    "Returns",
    "Примеры а с",  # noqa: RUF001 - letters that look like others
    "ℝ𝒆ﬁ ß İ ı ΐ",  # noqa: RUF001 - as above
    "🦆🏳️👩 é" + "́" * 5,
    "៘" * 60,
    "x" * 700,
    "🦆" * 300,
    "'\"" * 200,
    "\\" * 201,
    "a b" * 100,
    "🦆 ab " * 60,
    "`" * 7,
    *(f"{'x' * 99} {mark} {'y' * 99}" for mark in ("===", "---", ":--", "1.", "#", "```", ">")),
    "مرحبا שלום",
]
nasty_texts = (
    st.lists(
        st.sampled_from(NASTY) | st.text(st.characters().filter(str.isprintable), max_size=30),
        min_size=1,
        max_size=4,
    )
    .map(" ".join)
    .map(lambda text: text[:1000])
    .filter(str.strip)
)
"""What a request takes for a line of text."""


def short(length: int) -> st.SearchStrategy[str]:
    return nasty_texts.map(lambda text: text[-length:]).filter(str.strip)


PATHS = ["/a", "/A", "/a/b.c", "/health/queue", "/~", "/" + "x" * 199, "/" + "x/" * 80 + "y"]
names = st.sampled_from(["a", "queue", "dist", "queue_watch2", "x_", LONG])
tags = st.lists(short(50), min_size=1, max_size=3)
probes = st.fixed_dictionaries(
    {"kind": st.just("probe"), "path": st.sampled_from(PATHS)},
    optional={"message": nasty_texts, "summary": short(120), "tags": tags},
)


def requests_called(names: st.SearchStrategy[str]) -> st.SearchStrategy[FeatureRequest]:
    return st.fixed_dictionaries(
        {
            "feature": names,
            "description": nasty_texts.map(lambda text: " ".join(text.split())),
            "requirements": st.one_of(
                st.just("none"),
                probes.map(lambda probe: [probe]),
                st.lists(probes, min_size=2, max_size=3, unique_by=lambda probe: probe["path"]),
            ),
        },
        optional={"tags": tags, "version": st.sampled_from(["1.0.0", "0.12.3"])},
    ).map(FeatureRequest.model_validate)


requests = requests_called(names)


def request_of(**fields: Any) -> FeatureRequest:
    return FeatureRequest.model_validate({"description": "verify logs", **fields})


SMOKE_TEST = request_of(feature="smoke_test", requirements="none")
NASTY_ONES = [
    request_of(feature="a", description=text, requirements=[{"kind": "probe", "message": text}])
    for text in NASTY
]
"""A text each, of one probe."""
NASTY_PROBES = [
    {"kind": "probe", "path": f"/n{n}", "message": text, "summary": text[:120], "tags": [text[:50]]}
    for n, text in enumerate(NASTY)
]
NASTY_SEVERAL = [
    request_of(feature="a", requirements=NASTY_PROBES[first : first + 50])
    for first in range(0, len(NASTY), 50)
]
"""All of them, of many probes."""
QUEUE = request_of(feature="queue_watch2", version="1.2.0", requirements=PROBES)
ONE = request_of(feature="one_probe", requirements=[{"kind": "probe"}])


def write(files: Mapping[str, bytes], folder: Path) -> Path:
    for within, content in files.items():
        path = folder / within
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def modules(files: Mapping[str, bytes | str]) -> dict[str, str]:
    """The Python of a feature."""
    texts = {name: each if isinstance(each, str) else each.decode() for name, each in files.items()}
    return {name: text for name, text in texts.items() if name.endswith(".py")}


# What is made of an ordinary request


def test_the_smoke_test_is_to_the_byte_what_the_builder_makes_of_its_request():
    folder = ROOT / "features" / "smoke_test"
    there = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    made = draft(SMOKE_TEST)
    assert sorted(there) == sorted(made)
    assert [name for name in made if made[name] != there[name]] == []


def test_no_template_knows_a_features_name():
    for template in (OURS / "templates").rglob("*.jinja"):
        assert "smoke" not in template.read_text(encoding="utf-8").lower(), template.name


def test_a_name_without_an_underscore_has_no_receipt_and_nothing_that_speaks_of_one():
    files = draft(request_of(feature="a"))
    for name, text in modules(files).items():
        assert "AReceipt" not in text, name
        assert "ConfigDict" not in text, name
        assert "RECEIPT" not in text, name
    assert b"a receipt" not in files["README.md"]
    assert b"the_receipt" not in files["tests/test_a.py"]


def test_one_probe_that_is_asked_for_has_no_receipt():
    files = draft(ONE)
    assert b"OneProbeReceipt" not in files["models.py"]
    assert files["routes.py"].count(b"@routes.get") == 1
    assert b"DESCRIPTION" not in files["routes.py"]


def test_several_probes_share_one_model_and_one_function():
    files = draft(QUEUE)
    routes = files["routes.py"].decode()
    assert re.findall(r"^async def (\w+)", routes, re.MULTILINE) == [
        "run_health_queue",
        "run_health_queue_2",
        "run_deep_a_b_c",
        "verify",
    ]
    assert routes.count("prove(") == 1
    assert routes.count("DESCRIPTION = ") == 1
    assert 'return await verify("Still here.")' in routes
    assert 'summary="Look again"' in routes
    assert 'tags=["Queue", "Watch"]' in routes
    assert files["models.py"].count(b"class ") == 1
    readme = files["README.md"].decode()
    for probe in plan_of(QUEUE).probes:
        assert f"| GET, HEAD | `/api/v1{probe.path}` | {probe.summary} |" in readme
        assert f"| `/api/v1{probe.path}` | {probe.message} |" in readme
        assert f"curl -i http://127.0.0.1:8000/api/v1{probe.path}\n" in readme


def test_a_version_is_written_where_it_is_not_the_ordinary_one():
    assert b'Feature(routes, version="1.2.0")' in draft(QUEUE)["__init__.py"]
    assert b"Feature(routes)" in draft(SMOKE_TEST)["__init__.py"]


@pytest.mark.parametrize("request_", [SMOKE_TEST, QUEUE, ONE, request_of(feature="logging")])
def test_an_ordinary_request_needs_no_comment_for_ruff(request_):
    for name, text in modules(draft(request_)).items():
        assert "#" not in text, name


@pytest.mark.parametrize(
    ("description", "docstring"),
    [
        ("verify logs", "Verify logs."),
        ("Is it up?", "Is it up?"),
        ("éclairs, 2 a day (at most)", "Éclairs, 2 a day (at most)."),
        ("x" * 93, "X" + "x" * 92 + "."),
        ("x" * 94, None),
        ("ends with a colon:", None),
        ('says "hello', None),
        ("a\\b", None),
        ("`code`", None),
        ("дом", "Дом."),
    ],
)
def test_a_description_is_the_docstring_where_it_can_stand_in_one_line(description, docstring):
    source = draft(request_of(feature="a", description=description))["__init__.py"].decode()
    written = ast.get_docstring(ast.parse(source), clean=False)
    general = "Proves on each call that the service answers and that its log is written."
    assert written == (docstring or general)


def test_what_only_a_text_can_break_is_allowed_in_its_row_with_the_reason():
    request = request_of(
        feature="a",
        description="verify а log",  # noqa: RUF001 - it looks like an `a`
        requirements=[{"kind": "probe", "message": "0.0.0.0", "summary": "/tmp/x"}],
    )
    files = modules(draft(request))
    rows = [line for text in files.values() for line in text.splitlines() if "#" in line]
    reason = "the text is as it was asked for"
    assert rows == [
        f'"""Verify а log."""  # noqa: RUF002 - {reason}',  # noqa: RUF001 - as above
        f'LOG_MESSAGE = "0.0.0.0"  # noqa: S104 - {reason}',
        f'    summary="/tmp/x",  # noqa: S108 - {reason}',
    ]


def test_what_a_template_broke_is_refused_and_names_the_row():
    files = {"__init__.py": '"""It."""\n\nimport os\n'}
    with pytest.raises(BuildError, match=r"features/a/__init__\.py:3: F401 ") as error:
        formatted(files, "a")
    assert error.value.stage == "write"
    with pytest.raises(
        BuildError, match=r"ruff format of features/a/__init__\.py ended with 2"
    ) as error:
        formatted({"__init__.py": "def\n"}, "a")
    assert any("__init__.py:1:4" in line for line in error.value.details)


def test_nothing_is_allowed_beside_what_a_template_broke():
    files = {"__init__.py": '"""It."""\n\nimport os\n\nHOST = "0.0.0.0"\n'}
    with pytest.raises(BuildError, match="F401"):
        formatted(files, "a")


def test_a_literal_is_as_long_as_ruff_lets_a_line_be():
    settings_of_ruff = tomllib.loads(SETTINGS.read_text(encoding="utf-8"))
    assert settings_of_ruff["line-length"] == quoting.COLUMNS


def test_the_settings_of_the_user_change_nothing_and_nothing_is_written(tmp_path, monkeypatch):
    (tmp_path / "ruff.toml").write_text('line-length = 40\n[format]\nquote-style = "single"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RUFF_OUTPUT_FILE", str(tmp_path / "found"))
    before = (ROOT / "features" / "smoke_test" / "routes.py").read_bytes()
    assert draft(SMOKE_TEST)["routes.py"] == before
    assert [path.name for path in tmp_path.iterdir()] == ["ruff.toml"]


# Whatever is asked for


def strings_of(source: str) -> list[str]:
    return [
        node.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


def shape_of(source: str) -> str:
    """A module's syntax tree, its strings left out."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value = ""
    return ast.dump(tree)


def harmless(request: FeatureRequest) -> FeatureRequest:
    """The same request with plain texts."""
    fields = request.model_dump(exclude_none=True)
    for holder in (fields, *(fields["requirements"] if request.requirements != "none" else ())):
        holder.update({key: "x" for key in ("description", "message", "summary") if key in holder})
        if "tags" in holder:
            holder["tags"] = ["x"] * len(holder["tags"])
    return FeatureRequest.model_validate(fields)


@settings(max_examples=60, deadline=None)
@given(request=requests)
def test_a_text_is_a_string_to_the_letter_and_adds_nothing_to_the_code(request):
    must_hold_the_texts(request)


def test_each_nasty_text_is_a_string_and_adds_nothing_to_the_code():
    for request in (*NASTY_ONES, *NASTY_SEVERAL):
        must_hold_the_texts(request)


def must_hold_the_texts(request: FeatureRequest) -> None:
    plan = plan_of(request)
    files = modules(render(plan))
    plain = modules(render(plan_of(harmless(request))))
    for name, source in files.items():
        compile(source, name, "exec", dont_inherit=True)
        assert shape_of(source) == shape_of(plain[name]), name
        # Nothing from outside begins a line, where it could be read as a comment for a tool.
        assert all(re.match(r" *[\w\"'@()\[\]{}*]|$", line) for line in source.split("\n")), name
    for name in ("routes.py", f"tests/test_{plan.name}.py"):
        strings = strings_of(files[name])
        assert {probe.message for probe in plan.probes} <= set(strings), name
    if len(plan.probes) == 1:
        assert assigned(files["routes.py"], "LOG_MESSAGE") == plan.probes[0].message
        assert assigned(files[f"tests/test_{plan.name}.py"], "MESSAGE") == plan.probes[0].message
    else:
        texts = {f"/api/v1{probe.path}": probe.message for probe in plan.probes}
        assert assigned(files[f"tests/test_{plan.name}.py"], "PROBES") == texts
    for probe in plan.probes:
        there = set(strings_of(files["routes.py"]))
        assert {probe.path, probe.summary, *probe.tags} <= there


def assigned(source: str, name: str) -> Any:
    """The value of a constant of a module."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"there is no {name}")


@settings(max_examples=6, deadline=None)  # each starts ruff eight times
@given(request=requests)
@example(request=NASTY_SEVERAL[0])
@example(request=NASTY_SEVERAL[1])
@example(request=request_of(feature="a", tags=["៘" * 30 + " a", "🦆 a" * 12]))
@example(request=request_of(feature=LONG))
@example(request=request_of(feature="n" * 63))
@example(request=request_of(feature="a", requirements=[{"kind": "probe", "path": "/" + "x" * 199}]))
def test_formatting_leaves_the_strings_and_ruff_finds_nothing(request):
    plan = plan_of(request)
    before = modules(render(plan))
    files = modules(formatted(render(plan), plan.name))  # it looks for itself what ruff finds
    for name, source in files.items():
        assert sorted(strings_of(source)) == sorted(strings_of(before[name])), name
        assert shape_of(source) == shape_of(before[name]), name


def test_each_path_fits_before_its_message_however_long_the_two_are():
    probes = [
        {"kind": "probe", "path": f"/{length:0>{length}}", "message": "m" * (n * 60 + 10)}
        for length in range(74, 86)
        for n in range(3)
    ]
    for part in (probes[::3], probes[1::3], probes[2::3]):
        plan = plan_of(request_of(feature="a", requirements=part))
        formatted(render(plan), "a")  # it looks for itself what ruff finds


@settings(max_examples=150, deadline=None)
@given(
    text=nasty_texts,
    lead=st.sampled_from(["", "x = ", "summary=", "print(", '"key": ']),
    indent=st.sampled_from([0, 4, 8, 16]),
)
def test_a_literal_is_the_text_and_fits_into_its_lines(text, lead, indent):
    written = quoting.literal(text, lead=lead, indent=indent)
    expression = written.removeprefix(lead)
    if lead == "print(":
        expression = f"({expression}"
    assert ast.literal_eval(expression) == text
    first, *others = written.split("\n")
    assert all(
        quoting.width_of(line) <= quoting.COLUMNS for line in [" " * indent + first, *others]
    )


def inline(token: Token) -> str:
    """The text that Markdown shows of a token; other than text there is none."""
    shown = []
    for child in token.children or ():
        assert child.type in {"text", "text_special", "softbreak"}, child
        shown.append(" " if child.type == "softbreak" else child.content)
    return "".join(shown)


@settings(max_examples=150, deadline=None)
@given(text=nasty_texts.map(lambda text: " ".join(text.split())))
def test_a_paragraph_shows_the_text_and_nothing_else(text):
    must_show(text)


def test_a_paragraph_shows_each_nasty_text_and_nothing_else():
    for text in (" ".join(text.split()) for text in NASTY):
        must_show(text)
        must_show(f"{'x' * quoting.COLUMNS} {text}")


def must_show(text: str) -> None:
    written = quoting.paragraph(text)
    tokens = MARKDOWN.parse(f"{written}\n\nAfter.\n")
    assert [token.type for token in tokens] == ["paragraph_open", "inline", "paragraph_close"] * 2
    assert inline(tokens[1]) == text
    assert not re.search(r"(?i)(?<!\\)://|(?<!\\)@|www\.", written), "some make links of these"
    for line in written.split("\n"):
        assert " " not in line or quoting.width_of(line) <= quoting.COLUMNS


@settings(max_examples=150, deadline=None)
@given(text=nasty_texts)
def test_a_cell_shows_the_text_and_nothing_else(text):
    tokens = MARKDOWN.parse(f"| a | b |\n|---|---|\n| {quoting.cell(text)} | c |\n\nAfter.\n")
    cells = [token for token in tokens if token.type == "inline"]
    assert [inline(each) for each in cells] == ["a", "b", text, "c", "After."]


@settings(max_examples=100, deadline=None)
@given(text=nasty_texts)
@example(text="`" * 7)
def test_a_block_of_code_holds_the_text_to_the_letter(text):
    tokens = MARKDOWN.parse(f"{quoting.fenced(text)}\n\nAfter.\n")
    assert [token.type for token in tokens][:2] == ["fence", "paragraph_open"]
    assert tokens[0].content == f"{text}\n"


def test_prose_is_left_as_it_is():
    prose = 'Watches the queue (snake_case, 5% a day); it\'s fast: 2 + 2 = 4, A&B, C-D, "so".'
    assert quoting.paragraph(prose) == prose


@settings(max_examples=60, deadline=None)
@given(request=requests)
@example(request=NASTY_SEVERAL[0])
@example(request=NASTY_SEVERAL[1])
def test_the_readme_begins_with_the_description_and_is_built_as_any_other(request):
    readme = render(plan_of(request))["README.md"]
    tokens = MARKDOWN.parse(readme)
    plain = MARKDOWN.parse(render(plan_of(harmless(request)))["README.md"])
    assert [token.type for token in tokens] == [token.type for token in plain]
    assert [each.type for each in children(tokens)] == [each.type for each in children(plain)]
    first = tokens[[token.content for token in tokens].index("Overview") + 3]
    assert inline(first) in {request.description, quoting.sentence(request.description)}
    shown = {token.content.rstrip("\n") for token in tokens if token.type == "fence"}
    shown |= {shown_by(token) for token in tokens if token.type == "inline"}
    assert {probe.message for probe in plan_of(request).probes} <= shown


def children(tokens: list[Token]) -> Iterator[Token]:
    for token in tokens:
        yield from (
            each
            for each in token.children or ()
            # Where it is broken, and what was escaped, is not what it is.
            if each.type not in {"text", "text_special", "softbreak"}
        )


def shown_by(token: Token) -> str:
    return "".join(child.content for child in token.children or ())


# The record


@settings(max_examples=100, deadline=None)
@given(request=requests)
def test_a_record_reads_back_as_the_request_and_the_hashes(tmp_path_factory, request):
    folder = tmp_path_factory.mktemp("record") / request.feature
    files = {"b.py": b"1", "a/c.md": b"2", "__init__.py": b""}
    record = write_record(request, files)
    read = read_record(write({RECORD: record}, folder))
    assert read.request == request
    assert read.hashes == {within: hash_of(content) for within, content in files.items()}
    assert write_record(request, dict(reversed(files.items()))) == record
    # It can be asked for again.
    assert FeatureRequest.model_validate(tomllib.loads(record.decode())["request"]) == request


GOOD = write_record(SMOKE_TEST, {"__init__.py": b""}).decode()
HASH = hash_of(b"")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\xff", "it is no TOML"),
        ("a = ", "it is no TOML"),
        (f"a = {'[' * 100_000}", "it is no TOML"),
        ("", "`request`"),
        ("request = 1", "`request`"),
        (GOOD.replace('"verify logs"', '""'), "`request.description`"),
        (GOOD.replace("[request]", "[request]\nnew = 1"), "`request.new`"),
        (GOOD.replace("smoke_test", "other"), "it is the record of `other`"),
        (GOOD + "\n[more]\n", "`more` is no table"),
        (GOOD.replace(HASH, "md5:1"), "'md5:1' is no hash"),
        (GOOD.replace(f'"{HASH}"', "1"), "1 is no hash"),
        (GOOD.replace('"__init__.py"', '"../x"'), "'../x' is no path"),
        (GOOD.replace('"__init__.py"', '"/x"'), "'/x' is no path"),
        (GOOD.replace('"__init__.py"', '"a\\nb"'), r"'a\nb' is no path"),
        (GOOD.partition("[files]")[0], "no table `[files]`"),
        (GOOD.partition('"__init__.py"')[0], "no table `[files]`"),
        ("#" * 4_000_001, "it holds more than 4,000,000 bytes"),
    ],
)
def test_a_record_that_the_builder_did_not_write_is_refused(tmp_path, content, problem):
    folder = tmp_path / "smoke_test"
    write({RECORD: content if isinstance(content, bytes) else content.encode()}, folder)
    with pytest.raises(BuildError) as error:
        read_record(folder)
    assert error.value.stage == "undo"
    assert problem in error.value.problem
    assert len(error.value.problem) < 400


def test_a_folder_without_a_record_or_with_something_else_in_its_place_is_refused(tmp_path):
    folder = tmp_path / "smoke_test"
    folder.mkdir()
    with pytest.raises(BuildError, match="was not built by `petsage build`"):
        read_record(folder)
    (tmp_path / "elsewhere").write_text(GOOD)
    (folder / RECORD).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BuildError, match="cannot be read"):
        read_record(folder)
    (folder / RECORD).unlink()
    (folder / RECORD).mkdir()
    with pytest.raises(BuildError, match="cannot be read"):
        read_record(folder)


# What was made runs


INI = """[pytest]
addopts = --import-mode=importlib -p no:cacheprovider
consider_namespace_packages = true
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
asyncio_default_test_loop_scope = function
filterwarnings = error
"""


def pass_their_tests(made, folder, warm_pytest):
    """Whether the tests of all these features pass, each of which serves its feature."""
    folders = [write(draft(request), folder / "features" / request.feature) for request in made]
    (folder / "pytest.ini").write_text(INI)
    done = warm_pytest.run(
        ("-q", "-c", "pytest.ini", *map(str, folders)),
        cwd=folder, env=clean_environment(), stdin="", timeout_s=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    receipts = sum(plan_of(request).receipt_path is not None for request in made)
    tests = 3 * sum(len(plan_of(request).probes) for request in made) + receipts
    return f"{tests} passed" in done.stdout


def test_the_tests_of_what_was_made_pass_whatever_its_texts_are(tmp_path, warm_pytest):
    several = [PROBES[1], PROBES[2], *NASTY_PROBES[:2], NASTY_PROBES[31]]
    made = [
        request_of(feature="dist", description=" ".join(NASTY)[:1000].strip()),
        request_of(feature=LONG, description=NASTY[-1]),
        request_of(feature="n" * 63, requirements=PROBES[:1]),
        request_of(feature="nasty", tags=["'\"\\"], requirements=NASTY_PROBES[9:10]),
        request_of(feature="x_", version="1.2.0", description=NASTY[6], requirements=several),
    ]
    assert pass_their_tests(made, tmp_path, warm_pytest)


# The same ones each time: it takes so few that chance may find none that is accepted, three times.
@settings(max_examples=2, deadline=None, derandomize=True, database=None)
@given(made=st.tuples(*(requests_called(st.just(name)) for name in ("a", "queue_watch2", LONG))))
def test_whatever_is_accepted_serves_and_passes_its_tests(tmp_path_factory, warm_pytest, made):
    assert pass_their_tests(made, tmp_path_factory.mktemp("made"), warm_pytest)


@pytest.mark.stress
@settings(max_examples=25, deadline=None)
@given(request=requests)
def test_whatever_is_accepted_is_built(tmp_path_factory, request):
    told: list[Event] = []
    folder = tmp_path_factory.mktemp("built") / "features"
    building = build(
        lambda: request, folder=folder, page_folder=None, address="http://x", tell=told.append
    )
    assert asyncio.run(building), [f"{event.label}: {event.text}" for event in told]
    again = write(draft(request), tmp_path_factory.mktemp("again"))
    assert tree(folder / request.feature) == tree(again)
