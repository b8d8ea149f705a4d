"""Each kind of finding, by a real broken folder beside a good one."""

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from petsage.catalog import CATALOG
from petsage.errors import FINDINGS
from petsage.loader import load_features, unload
from petsage.snapshot import PACKAGE

DOCS = Path(__file__).parent.parent / "docs" / "findings.md"

GOOD = """
from petsage import Feature, Routes
routes = Routes()
@routes.get("/good")
async def answer() -> dict[str, str]:
    return {"all": "well"}
feature = Feature(routes)
"""
TOP = """
from typing import Annotated, Any
from petsage import AppKey, Feature, FromApp, Routes
from pydantic import BaseModel, Field
routes = Routes()
KEY = AppKey("KEY", int)
"""
END = "\nfeature = Feature(routes)\n"


@dataclass(frozen=True)
class Case:
    """A broken folder; the comment `# HERE` marks the line of the finding.

    Attributes:
        file: where the mark is, below the folder of features; the file or folder itself where
            there is none, and the finding is about all of it.
        fix: what the finding says to do.
        files: what is written below the folder of features.
        name: which feature the finding is about.
        level: a warning leaves the feature serving.
        start_only: only a start shows it, and `petsage check` does not.
        child_only: only a check in a child process shows it.
        settings: the `[features.<name>]` tables.
        disabled: `[catalog].disabled`.
        prepare: is called with the folder of features once it is written.
    """

    id: str
    file: str
    fix: str
    files: dict[str, str]
    name: str = "broken"
    level: str = "error"
    start_only: bool = False
    child_only: bool = False
    settings: dict[str, dict[str, object]] = field(default_factory=dict)
    disabled: tuple[str, ...] = ()
    prepare: Callable[[Path], None] = lambda root: None


def share(file):
    """Makes a file writable to a group that is nobody's own."""
    if os.geteuid() == 0:
        group = 1
    else:
        group = next((each for each in os.getgroups() if each != os.getegid()), -1)
        if group == -1:
            pytest.skip("this user is in no group but its own, and only root may give files away")
    os.chown(file, -1, group)
    file.chmod(0o664)


def one_file(kind, fix, source, **options):
    """A case of one `__init__.py`."""
    init = "broken/__init__.py"
    return Case(kind, init, fix, {init: source}, **options)


def handler(kind, fix, source, **options):
    """A case of one handler."""
    return one_file(kind, fix, f"{TOP}{source}{END}", **options)


NEEDS = "from petsage import Feature, Routes\nfeature = Feature(Routes(), needs=('{}',))  # HERE\n"
LIFESPAN_END = "feature = Feature(routes, lifespan=lifespan)\n"

CASES = [
    Case(
        "bad-name",
        "my-pets",
        "rename the folder, to `my_pets` for example",
        {"my-pets/__init__.py": GOOD},
        name="my-pets",
    ),
    Case(
        "no-init",
        "broken",
        "add one that ends with `feature = Feature(routes)`",
        {"broken/routes.py": "x = 1"},
    ),
    Case(
        "duplicate-feature",
        "../more/twin",
        "rename one of the two folders",
        {"twin/__init__.py": TOP + END, "../more/twin/__init__.py": TOP + END},
        name="twin",
    ),
    Case(
        "unreadable",
        "broken/data.bin",
        "make it readable to the server",
        {"broken/__init__.py": TOP + END, "broken/data.bin": "-> data.bin"},
    ),
    Case(
        "outside-link",
        "broken/data.txt",
        "copy it in, or add <above> to [catalog].folders",
        {"broken/__init__.py": TOP + END, "broken/data.txt": "-> ../../data.txt"},
    ),
    Case(
        "too-large",
        "broken",
        "keep data that a feature reads at run time outside of its folder",
        {"broken/__init__.py": TOP + END, "broken/data.bin": ""},
        prepare=lambda root: os.truncate(root / "broken" / "data.bin", 64 * 1024**2 + 1),
    ),
    Case(
        "unsafe-permissions",
        "broken/data.txt",
        "run `chmod o-w <root>/broken/data.txt`",
        {"broken/__init__.py": TOP + END, "broken/data.txt": ""},
        prepare=lambda root: (root / "broken" / "data.txt").chmod(0o646),
    ),
    Case(
        "group-writable",
        "broken/data.txt",
        "run `chmod g-w <root>/broken/data.txt`",
        {"broken/__init__.py": TOP + END, "broken/data.txt": ""},
        level="warning",
        prepare=lambda root: share(root / "broken" / "data.txt"),
    ),
    one_file("syntax-error", "mend line 2", "\ndef answer(:  # HERE\n"),
    Case(
        "syntax-error",
        "broken/tests/test_it.py",
        "mend line 1",
        {"broken/__init__.py": TOP + END, "broken/tests/test_it.py": "def (:  # HERE"},
        level="warning",
    ),
    handler(
        "late-import",
        "import it at the top of the file",
        "def late():\n    from features.broken import routes  # HERE\n",
        level="warning",
    ),
    one_file(
        "missing-package",
        "install it beside PetSage: `pip install no_such_thing`",
        "import no_such_thing.inner  # HERE",
    ),
    one_file(
        "missing-package",
        "install it beside PetSage: `pip install scikit-learn`",
        "import sklearn  # HERE",
    ),
    one_file(
        "import-failed",
        "mend that line; the traceback is in the log",
        "\n1 / 0  # HERE",
    ),
    one_file(
        "no-feature", "end it with `feature = Feature(routes)`", "'''Nothing.'''  # HERE\nx = 1"
    ),
    one_file("no-feature", "end it with `feature = Feature(routes)`", "\nfeature = 5  # HERE"),
    one_file(
        "bad-feature",
        'write "" or a path such as "/api/v1"',
        TOP + "feature = Feature(routes, mount='api')  # HERE",
    ),
    one_file(
        "bad-feature",
        "write `async def lifespan(app): …; yield; …`",
        TOP + "feature = Feature(routes, lifespan=print)  # HERE",
    ),
    one_file(
        "bad-settings",
        "did you mean `limit`?",
        f"{TOP}class Mine(BaseModel):\n    limit: int = 1\n"
        "feature = Feature(\n    routes,\n    settings=Mine,  # HERE\n)",
        settings={"broken": {"limmit": 5}},
    ),
    one_file(
        "bad-settings",
        "take the table out, or give the Feature a `settings` model",
        f"{TOP}{END.rstrip()}  # HERE",
        settings={"broken": {"limit": 5}},
        level="warning",
    ),
    one_file("no-such-feature", "did you mean `good`?", NEEDS.format("goood")),
    one_file(
        "no-such-feature",
        "take `off` out of [catalog].disabled",
        NEEDS.format("off"),
        disabled=("off",),
    ),
    one_file(
        "undeclared-need",
        'write `Feature(…, needs=("good",))`',
        f"from features.good import answer  # HERE\n{TOP}{END}",
    ),
    Case(
        "needs-cycle",
        "broken/__init__.py",
        "take one of these needs out",
        {"broken/__init__.py": NEEDS.format("other"), "other/__init__.py": NEEDS.format("broken")},
    ),
    Case(
        "need-failed",
        "broken/__init__.py",
        "mend `other` first",
        {"broken/__init__.py": NEEDS.format("other"), "other/__init__.py": "1 / 0"},
    ),
    Case(
        "need-failed",
        "broken/__init__.py",
        "mend `other` first",
        {
            "broken/__init__.py": NEEDS.format("other"),
            "other/__init__.py": f"{TOP}async def lifespan(app):\n    1 / 0\n    yield\n"
            + LIFESPAN_END,
        },
        start_only=True,
    ),
    one_file(
        "compile-failed",
        "mend what it raises; the traceback is in the log",
        f"""{TOP}
class Odd:
    @classmethod
    def __get_pydantic_core_schema__(cls, source, handler):
        raise SystemExit("odd")  # HERE
@routes.get("/broken")
async def answer(thing: Odd) -> None: ...
{END}""",
    ),
    handler(
        "bad-path",
        "write '/broken'",
        "@routes.get('broken')  # HERE\nasync def answer() -> None: ...",
    ),
    handler(
        "route-clash",
        "change one of the two paths",
        "@routes.get('/taken/{a}')\nasync def one(a: int) -> None: ...\n"
        "@routes.get('/taken/{b}')  # HERE\nasync def two(b: int) -> None: ...",
    ),
    handler(
        "handler-not-async",
        "write `async def answer`; for blocking work, `await asyncio.to_thread(…)` inside it",
        "@routes.get('/broken')  # HERE\ndef answer() -> None: ...",
    ),
    handler(
        "bad-annotation",
        "say its type, as in `q: str`",
        "@routes.get('/broken')  # HERE\nasync def answer(q=1) -> None: ...",
    ),
    handler(
        "bad-parameter",
        "declare each argument by its name",
        "@routes.get('/broken')  # HERE\nasync def answer(**more: int) -> None: ...",
    ),
    handler(
        "slow-pattern",
        "leave out the `regex_engine`, or `re.compile`; or let no repeat stand in a repeat",
        """
class Named(BaseModel, regex_engine="python-re"):
    name: Annotated[str, Field(pattern=r"^(\\w+\\s?)*$")]

@routes.post("/named")  # HERE
async def name_it(named: Named) -> None:
    pass
""",
    ),
    handler(
        "slow-pattern",
        "take a `str`, and look for it as it is",
        """
from re import Pattern

@routes.get("/look/{expression}")  # HERE
async def look(expression: Pattern[str]) -> None:
    pass
""",
    ),
    handler(
        "path-mismatch",
        "add the argument `id`, or take `{id}` out of the path",
        "@routes.get('/broken/{id}')  # HERE\nasync def answer() -> None: ...",
    ),
    handler(
        "bad-answer",
        "use one of 200 to 599",
        "@routes.get('/broken', status=42)  # HERE\nasync def answer() -> dict[str, str]: ...",
    ),
    one_file(
        "lifespan-failed",
        "mend what it raises; the traceback is in the log",
        f"{TOP}async def lifespan(app):\n    raise OSError('no disk')  # HERE\n    yield\n"
        + LIFESPAN_END,
        start_only=True,
    ),
    one_file(
        "lifespan-timeout",
        "make it `yield` sooner, or raise [catalog].start_timeout_s",
        f"{TOP}import asyncio\nasync def lifespan(app):\n"
        f"    await asyncio.Event().wait()  # HERE\n    yield\n{LIFESPAN_END}",
        start_only=True,
    ),
    handler(
        "no-value",
        "set it in the lifespan, `app[KEY] = …`, or name in `needs` the feature that has it",
        "@routes.get('/broken')  # HERE\n"
        "async def answer(n: Annotated[int, FromApp(KEY)]) -> None: ...",
        start_only=True,
    ),
    one_file(
        "import-side-effect",
        "open files by their whole paths: `Path(__file__).parent / …`",
        f"{TOP}import os\nos.chdir('/')  # HERE\n{END}",
        level="warning",
    ),
    one_file(
        "import-side-effect",
        "open files by their whole paths: `Path(__file__).parent / …`",
        f"{TOP}import os\nos.chdir('/')  # HERE\n{END}",
        child_only=True,
    ),
    one_file(
        "check-timeout",
        "move what takes so long into the lifespan, or raise [catalog].check_timeout_s",
        f"{TOP}while True: pass  # HERE\n{END}",
        child_only=True,
    ),
    one_file(
        "check-crashed",
        "take `os._exit` out; raise an error instead",
        f"{TOP}import os\nos._exit(3)  # HERE\n{END}",
        child_only=True,
    ),
]

IN_ANY_PROCESS = [case for case in CASES if not case.child_only]
IN_A_CHILD = [case for case in CASES if case.child_only]


@pytest.fixture(
    params=IN_ANY_PROCESS,
    ids=[f"{number}-{case.id}" for number, case in enumerate(IN_ANY_PROCESS)],
)
def case(request, tmp_path):
    """A broken folder, written beside a good one."""
    write(request.param, tmp_path)
    return request.param


def write(case, folder):
    files = {"good/__init__.py": GOOD, "off/__init__.py": TOP + END, **case.files}
    for within, text in files.items():
        file = folder / "features" / within
        file.parent.mkdir(parents=True, exist_ok=True)
        if text.startswith("-> "):
            file.symlink_to(text.removeprefix("-> "))
        else:
            file.write_text(text, encoding="utf-8")
    case.prepare(folder / "features")


@pytest.fixture
def folders(case, tmp_path):
    folders = [tmp_path / "features", tmp_path / "more"]
    return [folder for folder in folders if folder.is_dir()]


@pytest.fixture
def petsage_settings(petsage_settings, case, folders):
    catalog = petsage_settings.catalog.model_copy(
        update={"folders": folders, "start_timeout_s": 0.2, "disabled": list(case.disabled)}
    )
    return petsage_settings.model_copy(update={"catalog": catalog, "features": case.settings})


def place_of(case, folder):
    """The file and line that the finding has to name."""
    file = folder / case.file
    if ".." in case.file:
        file = folder.parent / case.file.removeprefix("../")
    if file.suffix != ".py":
        return str(file), 0
    lines = file.read_text(encoding="utf-8").splitlines()
    (line,) = [number for number, text in enumerate(lines, 1) if "# HERE" in text]
    return str(file), line


def fix_of(case, folder):
    """What the finding has to say of the fix."""
    return case.fix.replace("<root>", str(folder)).replace("<above>", str(folder.parent))


def said(finding):
    return (finding.id, finding.level, finding.file, finding.line, finding.fix)


async def test_a_broken_folder_is_found_out_and_the_good_one_serves(
    case, folders, petsage_client, log_lines
):
    response = await petsage_client.get("/api/v1/good")
    assert response.status == 200

    expected = (case.id, case.level, *place_of(case, folders[0]), fix_of(case, folders[0]))
    entries = [each for each in petsage_client.app[CATALOG].entries() if each.name == case.name]
    findings = [said(finding) for entry in entries for finding in entry.findings]
    assert findings == [expected]
    waits = case.id in {"need-failed", "no-such-feature"}
    state = "waiting" if waits else "failed"
    assert entries[-1].state == ("serving" if case.level == "warning" else state)

    word = "" if case.level == "warning" else " is set aside"
    place = ":".join(str(part) for part in expected[2:4] if part)
    begin = f"Feature {case.name}{word}: {place}: {case.id}: "
    lines = [line for line in log_lines() if line["message"].startswith(begin)]
    assert [line["level"] for line in lines] == [case.level.upper()]
    assert lines[0]["message"].endswith(f"; fix: {expected[4]}")


def test_a_check_without_serving_finds_it_too_unless_only_a_start_can(case, folders):
    candidates = load_features(folders, settings=case.settings, disabled=case.disabled)
    unload(candidates)

    findings = [said(each) for found in candidates for each in found.findings]
    expected = (case.id, case.level, *place_of(case, folders[0]), fix_of(case, folders[0]))
    assert (expected in findings) is not case.start_only


@pytest.mark.parametrize("case", IN_A_CHILD, ids=lambda case: case.id)
def test_the_command_finds_what_no_process_but_a_child_can_bear(case, project, petsage):
    write(case, project)

    result = petsage("check", "--json", env={"PETSAGE_CATALOG__CHECK_TIMEOUT_S": "0.5"})

    assert result.returncode == 1
    features = {each["name"]: each for each in json.loads(result.stdout)["features"]}
    assert features["good"]["ok"]
    (finding,) = features["broken"]["findings"]
    file, line = place_of(case, project / "features")
    shown = str(Path(file).relative_to(project))
    told = [finding[key] for key in ("id", "level", "file", "line", "fix")]
    assert told == [case.id, case.level, shown, line, case.fix]


def test_every_kind_has_a_case():
    assert {case.id for case in CASES} == set(FINDINGS)


def documented():
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in DOCS.read_text(encoding="utf-8").splitlines()
        if line.startswith("| `")
    ]
    return {row[0].strip("`"): row[1:] for row in rows}


def test_the_documentation_lists_exactly_the_kinds_there_are():
    assert {kind: row[1] for kind, row in documented().items()} == FINDINGS
    assert list(documented()) == list(FINDINGS)


@pytest.mark.parametrize("kind", FINDINGS)
def test_the_documentation_says_the_level_of_a_kind_its_fix_and_what_shows_it(kind):
    level, _, shown_by, fix = documented()[kind]
    cases = [case for case in CASES if case.id == kind]
    assert {case.level for case in cases} == set(re.findall(r"error|warning", level))
    assert shown_by == ("start" if cases[0].start_only else "check")
    assert fix


def test_no_module_of_a_feature_is_left_behind(case, folders):
    import sys

    before = {name for name in sys.modules if name.split(".")[0] == PACKAGE}
    unload(load_features(folders, settings=case.settings))
    assert {name for name in sys.modules if name.split(".")[0] == PACKAGE} == before
