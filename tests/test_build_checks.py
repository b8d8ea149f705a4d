"""What has to be true of a feature before it is said to be built, and the processes that find out.

The feature is the smoke test as it is; each fault is one edit of it. That it passes without one,
whatever is around it, a whole build shows (`test_build.py`).

Over 300 lines because every fault is made once, and every way in which a process may end.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Callable, Coroutine, Iterator
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest

from petsage.builder import children, probing, verification
from petsage.builder.caller import ask
from petsage.builder.children import Ended, environment, guarded, run, running, side_by_side
from petsage.builder.events import BuildError
from petsage.builder.plan import Plan, plan_of
from petsage.builder.request import FeatureRequest
from petsage.builder.toolbox import AT_FAULT, Toolbox
from tests.conftest import HELLO, ROOT, write_feature

pytestmark = pytest.mark.usefixtures("bytecode_of_tools")

TOOLS = Path(children.__file__).parent / "tools"
WAIT_S = 30.0
"""How long what has to come is waited for."""


class Staged:
    """A feature where the builder puts it: `<folder>/.petsage-build-…/features/<name>`."""

    def __init__(self, project: Path) -> None:
        self.features = project / "features"
        self.root = self.features / ".petsage-build-smoke_test-0123abcd"
        self.scratch = self.root / "scratch"
        self.scratch.mkdir(parents=True)
        self.feature = self.root / "features" / "smoke_test"
        noise = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "features" / "smoke_test", self.feature, ignore=noise)
        self.plan: Plan = plan_of(FeatureRequest(feature="smoke_test", description="verify logs"))

    def edit(self, within: str, old: str, new: str) -> None:
        file = self.feature / within
        text = file.read_text(encoding="utf-8")
        assert old in text
        file.write_text(text.replace(old, new, 1), encoding="utf-8")

    def write_tests(self, text: str) -> None:
        file = self.feature / "tests" / "test_smoke_test.py"
        file.write_text(textwrap.dedent(text), encoding="utf-8")

    def files(self) -> dict[str, bytes]:
        return {
            str(file.relative_to(self.root)): file.read_bytes()
            for file in sorted((self.root / "features").rglob("*"))
            if file.is_file()
        }

    async def check(self, **options: Any) -> verification.Checked:
        beside = [self.features]
        return await verification.check(
            self.feature, beside=beside, scratch=self.scratch, **options
        )

    async def look_beside(self) -> None:
        """`petsage check` alone, which spares what mypy begins."""
        tools = Toolbox("check", self.feature, self.scratch, WAIT_S)
        await tools.look_beside([self.features])

    async def test(self, **options: Any) -> verification.Tested:
        return await verification.test(self.feature, scratch=self.scratch, **options)

    async def probe(self, **options: Any) -> probing.Probed:
        return await probing.probe(self.plan, self.feature, scratch=self.scratch, **options)


@pytest.fixture
def staged(project: Path) -> Staged:
    return Staged(project)


async def failure(work: Any) -> BuildError:
    with pytest.raises(BuildError) as raised:
        await work
    return raised.value


# Each fault is found by whom it concerns.


async def test_a_folder_that_is_reached_by_a_link_makes_no_difference(staged, tmp_path):
    (tmp_path / "link").symlink_to(staged.features)
    within = staged.feature.relative_to(staged.features)
    feature, scratch = tmp_path / "link" / within, staged.scratch
    beside = [tmp_path / "link"]

    checked = await verification.check(feature, beside=beside, scratch=scratch)

    assert checked.files == 4
    assert (await verification.test(feature, scratch=scratch)).tests == 4


async def test_what_petsage_check_finds_is_told_with_its_place_and_fix(staged):
    staged.edit("routes.py", "async def get_receipt", "def get_receipt")

    error = await failure(staged.look_beside())

    assert error.stage == "check"
    assert error.problem.startswith("features/smoke_test/routes.py:")
    assert "handler-not-async" in error.problem
    assert "async def get_receipt" in error.fix


@pytest.mark.parametrize(
    ("needs", "told"),
    [
        ("", "GET /api/v1/smoke-test is a route of `other` already"),
        # One that needs another comes behind those that need nothing, the new one among them.
        (', needs=("hello",)', "GET /api/v1/smoke-test is a route of `smoke_test` already"),
    ],
    ids=["told of it", "told of the other"],
)
async def test_a_clash_with_a_feature_that_is_there_is_found(staged, project, needs, told):
    other = HELLO.replace("/hello/{name}", "/smoke-test").replace("name: str", "")
    other = other.replace(": name}", ": 'x'}").replace("(routes)", f"(routes{needs})")
    write_feature(project, "hello", HELLO)
    write_feature(project, "other", other)

    error = await failure(staged.look_beside())

    assert "route-clash" in error.problem
    assert told in error.problem
    assert error.fix == "change one of the two paths"


async def test_a_feature_that_the_settings_leave_out_is_not_passed_over(staged, monkeypatch):
    monkeypatch.setenv("PETSAGE_CATALOG__DISABLED", '["smoke_test"]')

    error = await failure(staged.look_beside())

    assert error.fix == "take `smoke_test` out of [catalog].disabled"


async def test_settings_that_are_wrong_are_told_as_petsage_check_tells_them(staged, monkeypatch):
    monkeypatch.setenv("PETSAGE_CATALOG__SETTLE_MS", "soon")

    error = await failure(staged.look_beside())

    assert "PETSAGE_CATALOG__SETTLE_MS" in error.problem
    assert error.fix != AT_FAULT


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (("SUMMARY = ", "SUMMARY  = "), "ruff format: "),
        (("import logging\n", "import logging\nimport os\n"), "F401"),
    ],
)
async def test_what_ruff_finds_is_told(staged, edit, words):
    staged.edit("routes.py", *edit)

    error = await failure(staged.check())

    assert "features/smoke_test/routes.py" in error.problem
    assert words in error.problem
    assert error.fix == AT_FAULT


async def test_no_name_has_ruff_pass_over_a_feature(staged):
    staged.edit("routes.py", "import logging\n", "import logging\nimport os\n")
    staged.feature = staged.feature.rename(staged.feature.with_name("build"))

    error = await failure(staged.check())

    assert "features/build/routes.py" in error.problem
    assert "F401" in error.problem


# It names the core to itself alone: of what is imported by name, mypy reads all, for seconds.
UNTYPED = '''"""Says nothing."""

from importlib import import_module

petsage = import_module("petsage")
routes = petsage.Routes()
feature = petsage.Feature(routes)


def same(x):
    """It."""
    return x
'''


async def test_what_mypy_finds_strictly_is_told(staged):
    shutil.rmtree(staged.feature)
    staged.feature.mkdir()
    (staged.feature / "__init__.py").write_text(UNTYPED)

    error = await failure(staged.check())

    assert error.problem.startswith("mypy: features/smoke_test/__init__.py:10:")
    assert "[no-untyped-def]" in error.problem


async def test_a_check_that_takes_too_long_is_ended(staged):
    error = await failure(staged.check(limit_s=0.01))

    assert "did not end within 0.01 s" in error.problem


async def test_tests_that_fail_or_warn_are_told_by_name_with_their_tracebacks(staged):
    staged.write_tests("""
        import warnings

        def test_right(): pass

        def test_wrong():
            assert [1, 2] == [1, 3]

        def test_loud():
            warnings.warn("look at this", stacklevel=1)
        """)
    (staged.feature / "tests" / "test_none.py").write_text("import no_such_package_anywhere\n")

    error = await failure(staged.test())

    assert error.stage == "test"
    none, smoke_test = (f"features.smoke_test.tests.test_{x}" for x in ("none", "smoke_test"))
    wrong, loud = f"{smoke_test}::test_wrong", f"{smoke_test}::test_loud"
    assert error.problem == f"of its tests, {none}, {wrong}, {loud} failed"
    details = "\n".join(error.details)
    assert f"{wrong}\n" in details
    assert "features/smoke_test/tests/test_smoke_test.py:7: in test_wrong" in details
    assert "assert [1, 2] == [1, 3]" in details
    assert "UserWarning: look at this" in details
    assert "No module named 'no_such_package_anywhere'" in details
    assert str(staged.root) not in details


async def test_a_feature_without_a_test_that_runs_is_not_tested(staged):
    staged.write_tests("import pytest\n\n@pytest.mark.skip\ndef test_it(): pass\n")

    error = await failure(staged.test())

    assert error.problem == "features/smoke_test has no test that passed"


async def test_a_test_that_hangs_is_named_and_ended_with_what_it_has_started(staged, alive):
    staged.write_tests(f"""
        import subprocess, sys

        def test_it_hangs():
            subprocess.run([sys.executable, {str(alive.module)!r}], check=True)
        """)
    error = await failure(alive.at_its_limit(lambda limit_s: staged.test(limit_s=limit_s)))

    assert alive.is_gone()
    assert error.problem.startswith("pytest did not end within ")
    assert "test_it_hangs" in error.details[-1]


PROBE_FAULTS = {
    "an endpoint that fails": (
        ("routes.py", "    missing = receipt.missing\n", "    missing = receipt.missing / 0\n"),
        "GET /api/v1/smoke-test is answered 500",
        "ERROR ",
    ),
    "a message other than the planned": (
        ("routes.py", '"Smoke test endpoint executed', '"The endpoint was executed'),
        "GET /api/v1/smoke-test: `message` of its log line is 'The endpoint was executed",
        "",
    ),
    "a line that is logged twice": (
        (
            "routes.py",
            "    receipt = await",
            "    await prove(logger, LOG_MESSAGE)\n    receipt = await",
        ),
        "2 calls leave 4 lines with a marker",
        "",
    ),
    "an answer that is not as documented": (
        ("models.py", '"A human-readable', 'json_schema_extra={"maxLength": 3}, description="A'),
        "GET /api/v1/smoke_test is not answered as documented: $.message: ",
        "",
    ),
    "a document that is no OpenAPI": (
        ("models.py", '"A human-readable', 'json_schema_extra={"type": "text"}, description="A'),
        "/openapi.json is not valid at ",
        "",
    ),
    "another receipt": (
        ("routes.py", '"PetSage Backend is operational."', '"PetSage is operational."'),
        "GET /api/v1/smoke_test is answered 200, application/json: ",
        "",
    ),
    "a warning": (
        (
            "routes.py",
            "    return Reply(RECEIPT",
            '    logger.warning("look")\n    return Reply(RECEIPT',
        ),
        "the server logs what somebody would have to look at: WARNING features.smoke_test.routes",
        "WARNING features.smoke_test.routes: look",
    ),
    "a feature that does not come up": (
        ("__init__.py", "feature = ", "1 / 0\nfeature = "),
        "the server ends before it serves",
        "ZeroDivisionError",
    ),
}


@pytest.mark.parametrize(("edit", "words", "detail"), PROBE_FAULTS.values(), ids=PROBE_FAULTS)
async def test_a_probe_finds(staged, edit, words, detail):
    file, old, new = edit
    if "description" in new:
        old = f"description={old}"
    staged.edit(file, old, new)

    error = await failure(staged.probe())

    assert error.stage == "probe"
    assert error.problem.startswith(words)
    assert detail in "\n".join(error.details)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_server_that_somebody_ends_is_told_as_such(staged, number):
    staged.edit("routes.py", "import logging\n", "import logging, os\n")
    staged.edit("routes.py", "    receipt =", f"    os.kill(os.getpid(), {number})\n    receipt =")

    error = await failure(staged.probe())

    if number == signal.SIGKILL:
        assert error.problem == "the server was ended by SIGKILL"
        assert "memory" in error.fix
    else:  # it ends in order, amid the questions
        assert error.problem != "the server was ended by SIGTERM"


async def test_what_a_sandbox_forbids_the_server_is_no_fault_of_the_feature(staged):
    told = 'logging.getLogger("petsage.server").{}("may be reset")\n    receipt ='
    staged.edit("routes.py", "receipt =", told.format("warning"))
    assert (await staged.probe()).endpoints == 2

    staged.edit("routes.py", ".warning(", ".error(")
    assert "ERROR petsage.server: may be reset" in (await failure(staged.probe())).problem


async def test_a_server_that_does_not_come_up_in_time_is_ended(staged, alive):
    hang = f"async def lifespan(app):\n    runpy.run_path({str(alive.module)!r})\n    yield\n"
    staged.edit("__init__.py", "from petsage", "import runpy\n\nfrom petsage")
    staged.edit(
        "__init__.py",
        "feature = Feature(routes)",
        f"{hang}\nfeature = Feature(routes, lifespan=lifespan)",
    )

    error = await failure(alive.at_its_limit(lambda limit_s: staged.probe(limit_s=limit_s)))

    assert alive.is_gone()
    assert error.problem.startswith("the server did not come up, answer and stop within ")
    assert error.fix == "try again when the machine has less to do"


async def test_a_body_in_the_answer_to_head_is_seen():
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n"
        writer.write(head + (b"" if b"/right" in request else b"{}"))
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        right, wrong = await ask(port, "HEAD", "/right"), await ask(port, "HEAD", "/wrong")

    assert (right.status, right.kind, right.body) == (200, "application/json", b"")
    assert wrong.body == b"{}"


# Processes: what is begun is ended, however that comes.

HANGS = """
import os, signal, subprocess, sys, threading, time
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.write(os.open({path!r}, os.O_WRONLY), b"x")
if "child" not in sys.argv:
    subprocess.Popen([sys.executable, {file!r}, "child"])
    if "leaves" in sys.argv:
        print("has left a child")
        sys.exit(3)
time.sleep(600)
"""


class Alive:
    """Tells which processes live that have run a module: two, that have one end of a pipe.

    Neither ends when it is told to, and one of them is the other's child.
    """

    def __init__(self, folder: Path) -> None:
        pipe = folder / "alive"
        os.mkfifo(pipe)
        self.module = folder / "hangs.py"
        text = HANGS.format(path=str(pipe), file=str(self.module))
        self.module.write_text(text, encoding="utf-8")
        self.descriptor = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        seen = asyncio.Event()
        loop.add_reader(self.descriptor, seen.set)
        try:
            async with asyncio.timeout(WAIT_S):
                await seen.wait()
        finally:
            loop.remove_reader(self.descriptor)

    async def began(self, count: int) -> None:
        """Waits until so many have begun."""
        while count:
            await self._readable()
            with contextlib.suppress(BlockingIOError):
                count -= len(os.read(self.descriptor, count))

    async def at_its_limit(self, start: Callable[[float], Coroutine[Any, Any, Any]]) -> Any:
        """What comes of something that hangs, once its limit was long enough for it to begin."""
        for limit_s in (2.5, 10.0, 40.0):
            task, began = asyncio.create_task(start(limit_s)), asyncio.create_task(self.began(2))
            await asyncio.wait({task, began}, return_when=asyncio.FIRST_COMPLETED)
            if began.done():
                break
            began.cancel()  # the machine has much to do
            await asyncio.wait({task, began})
            assert self.is_gone()
        return await task

    def is_gone(self) -> bool:
        """Whether none is left of those that began."""
        try:
            while os.read(self.descriptor, 100):
                pass
        except BlockingIOError:
            return False
        return True

    async def gone(self) -> None:
        """Waits until none is left."""
        while not self.is_gone():
            await self._readable()


@pytest.fixture
def alive(tmp_path: Path) -> Iterator[Alive]:
    made = Alive(tmp_path)
    yield made
    os.close(made.descriptor)


@pytest.fixture
def run_module(tmp_path: Path) -> Callable[..., Any]:
    """Runs a module of the test's folder, guarded."""

    async def start(module: str, *arguments: str, limit_s: float = WAIT_S) -> Ended:
        return await run(
            guarded(module, *arguments),
            cwd=tmp_path,
            environment=environment(tmp_path, PYTHONPATH=str(tmp_path)),
            limit_s=limit_s,
        )

    return start


def own_children() -> set[str]:
    tasks = Path("/proc/self/task").glob("*/children")
    return {child for each in tasks for child in each.read_text().split()}


async def test_a_module_runs_as_with_python_m_and_finds_nothing_on_its_input(tmp_path, run_module):
    (tmp_path / "told.py").write_text(
        "import os, sys\n"
        "print(__name__, sys.argv[1:], repr(sys.stdin.read()), sys.argv[0] == __file__)\n"
        "print(any(path.endswith('builder') for path in sys.path), os.getcwd())\n"
        "print('aside', file=sys.stderr)\n"
        "sys.exit(7)\n"
    )

    ended = await run_module("told", "-m", "x y")

    lines = ("__main__ ['-m', 'x y'] '' True", f"False {tmp_path}", "aside")
    assert (ended.code, ended.lines, ended.how) == (7, lines, "ended with exit code 7")


async def test_of_what_a_child_prints_the_end_is_kept(tmp_path, run_module):
    (tmp_path / "loud.py").write_text("print('first' + '.' * 5_000_000 + 'last')")

    ended = await run_module("loud")

    assert len(ended.output) == 1 + children.KEPT_BYTES
    assert ended.output.startswith("….")
    assert ended.output.endswith("last\n")


async def test_a_child_that_is_killed_is_told_by_the_signal(tmp_path, run_module):
    (tmp_path / "dies.py").write_text("import os\nos.kill(os.getpid(), 9)")

    assert (await run_module("dies")).how == "was ended by SIGKILL"


async def test_what_a_child_leaves_behind_is_ended(alive, run_module):
    before = own_children()

    ended = await run_module("hangs", "leaves")

    assert (ended.code, ended.lines) == (3, ("has left a child",))
    assert alive.is_gone()
    assert own_children() == before


async def test_at_its_time_limit_a_child_is_ended_with_all_that_it_started(alive, run_module):
    before = own_children()

    ended = await alive.at_its_limit(lambda limit_s: run_module("hangs", limit_s=limit_s))

    assert ended.how == "did not end in time"

    assert alive.is_gone()
    assert own_children() == before


@pytest.mark.parametrize("times", [1, 2], ids=["once", "again while it ends"])
async def test_a_cancellation_ends_a_child_before_it_goes_on(alive, run_module, times):
    before = own_children()
    task = asyncio.create_task(run_module("hangs"))
    await alive.began(2)

    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task

    assert alive.is_gone()
    assert own_children() == before


async def test_a_builder_that_is_killed_takes_its_children_with_it(alive, tmp_path):
    script = (
        "import asyncio, os; from pathlib import Path\n"
        "from petsage.builder.children import guarded, run\n"
        "asyncio.run(run(guarded('hangs'), cwd=Path('.'), environment={**os.environ}, limit_s=600))"
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    builder = subprocess.Popen(  # noqa: ASYNC220 - nobody else is to wait for it
        [sys.executable, "-c", script], env=env, cwd=tmp_path
    )
    try:
        await alive.began(2)
    finally:
        builder.send_signal(signal.SIGKILL)
        builder.wait()

    await alive.gone()


async def test_lines_are_told_as_they_come(tmp_path):
    (tmp_path / "talks.py").write_text(
        "import time\n"
        "for word in ('one', 'tw\\u00f6'):\n    print(word, flush=True)\n"
        "time.sleep(600)\n"
    )
    lines: list[str] = []
    both = asyncio.Event()

    def take(line: bytes) -> None:
        lines.append(line.decode())
        if len(lines) == 2:
            both.set()

    env = environment(tmp_path, PYTHONPATH=str(tmp_path))
    async with running(guarded("talks"), cwd=tmp_path, environment=env, on_line=take):
        async with asyncio.timeout(WAIT_S):
            await both.wait()

    assert lines == ["one", "twö"]


async def test_of_works_side_by_side_the_first_failure_ends_the_others_and_is_raised():
    ended = []

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("waiting")

    async def fail() -> None:
        raise LookupError("first")

    with pytest.raises(LookupError, match="first"):
        await side_by_side(wait(), fail(), wait())
    assert ended == ["waiting"] * 2


def test_a_tool_is_given_no_setting_of_others_and_the_ways_to_its_modules(tmp_path, monkeypatch):
    for name in (
        "PETSAGE_ENV",
        "petsage_logs__level",
        "PYTEST_ADDOPTS",
        "MYPYPATH",
        "RUFF_CACHE_DIR",
    ):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    monkeypatch.setenv("PYTHONHASHSEED", "1")
    monkeypatch.setenv("PYTHONPATH", f"sub{os.pathsep}/elsewhere")
    monkeypatch.setenv("VIRTUAL_ENV", "/venv")
    monkeypatch.chdir(tmp_path)

    given = environment(tmp_path, PETSAGE_LOGS="{}")

    assert {name for name in given if name.upper().startswith("PETSAGE_")} == {"PETSAGE_LOGS"}
    assert {name for name in given if name.startswith(("PYTEST", "MYPY", "RUFF"))} == set()
    assert given["PYTHONPATH"] == f"{tmp_path / 'sub'}{os.pathsep}/elsewhere"
    assert given["VIRTUAL_ENV"] == "/venv"
    assert given["PATH"] == os.environ["PATH"]
    assert given["TMPDIR"] == str(tmp_path)
    python = {name for name in given if name.startswith("PYTHON")}
    assert python == {"PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUTF8"}


# What it needs, and what its tools are told.


def project_settings() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_tools_are_there_where_they_are():
    verification.require_tools()


def test_tools_that_are_not_installed_are_named_in_one_line(monkeypatch):
    for module in ("mypy", "ruff", "pytest_asyncio"):
        monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(BuildError) as raised:
        verification.require_tools()

    assert raised.value.stage == "prepare"
    assert str(raised.value) == (
        "petsage build needs mypy, pytest-asyncio and ruff, which are not installed; "
        "fix: pip install 'petsage[build]'"
    )


def test_a_folder_that_is_called_like_a_tool_is_none(tmp_path, monkeypatch):
    (tmp_path / "tomli_w").mkdir()
    for module in [each for each in sys.modules if each.partition(".")[0] == "tomli_w"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])

    with pytest.raises(BuildError, match="tomli-w"):
        verification.require_tools()


def test_the_extra_has_all_tools_and_the_group_for_developers_has_the_extra():
    project = project_settings()
    extra = project["project"]["optional-dependencies"]["build"]
    assert set(extra) <= set(project["dependency-groups"]["dev"])
    names = {each.partition(">")[0] for each in extra}
    of_resources = set(verification._NEEDED_BY_RESOURCES.values())
    assert names == {*verification._NEEDED.values(), "hypothesis"}
    database = project["project"]["optional-dependencies"]["db"]
    assert of_resources == {"hypothesis", *(each.partition(">")[0] for each in database)}


def test_what_is_built_is_linted_as_the_projects_own_sources_are():
    ours = tomllib.loads((TOOLS / "ruff.toml").read_text(encoding="utf-8"))
    theirs = project_settings()["tool"]["ruff"]
    for key in ("line-length", "target-version"):
        assert ours[key] == theirs[key]
    for key in ("select", "ignore", "pydocstyle"):
        assert ours["lint"][key] == theirs["lint"][key]
    tests = "**/tests/**"
    assert ours["lint"]["per-file-ignores"] == {tests: theirs["lint"]["per-file-ignores"][tests]}


def test_what_is_built_is_checked_and_tested_as_the_projects_own_features_are():
    theirs = project_settings()["tool"]
    for tool, file in (("mypy", "mypy.ini"), ("pytest", "pytest.ini")):
        parser = ConfigParser()
        parser.read(TOOLS / file, encoding="utf-8")
        for section in parser.sections():
            expected = theirs["pytest"]["ini_options"] if tool == "pytest" else theirs["mypy"]
            if section.startswith("mypy-") and set(parser[section]) != {"follow_imports"}:
                named = section.removeprefix("mypy-")
                (expected,) = (
                    each for each in theirs["mypy"]["overrides"] if named in each["module"]
                )
            for key, value in parser[section].items():
                if key in {"addopts", "norecursedirs", "follow_imports"}:
                    continue
                other = expected[key]
                text = " ".join(other) if isinstance(other, list) else str(other)
                assert value.lower() == text.lower(), (file, section, key)
