"""Whole builds: what is told, what is left, and what a running server makes of it.

A whole build takes seconds, so most is asked of one, which runs beside a server and beside other
builds, where builds were killed before, and where everything else is wrong.

Over 300 lines because what is asked of one build is in one place.
"""

import asyncio
import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from petsage.builder.building import build, draft
from petsage.builder.events import BuildError, Event
from petsage.builder.removal import remove_feature
from petsage.builder.request import FeatureRequest
from tests.conftest import ROOT, ServerProcess, clean_environment, write_feature
from tests.workspaces import FILES, tree

pytestmark = pytest.mark.usefixtures("bytecode_of_tools")

ADDRESS = "http://127.0.0.1:8000"
LONG_S = 120.0

RUN = """
import asyncio, json, sys
from pathlib import Path
from typing import Any
from petsage.builder.building import build
from petsage.builder.request import FeatureRequest

def tell(event):
    told = {"label": event.label, "text": event.text, "data": dict(event.data)}
    told["left"] = sorted(path.name for path in Path("features").glob(".*"))
    print(json.dumps(told), flush=True)

def read():
    return FeatureRequest.model_validate_json(sys.stdin.read())

done = asyncio.run(
    build(read, folder=Path("features"), page_folder=Path("docs/features"),
          address="http://127.0.0.1:8000", tell=tell)
)
sys.exit(not done)
"""
HOSTILE = {
    "PETSAGE_SERVER__HOST": "192.0.2.1",
    "petsage_logs__level": "ERROR",
    "PYTEST_ADDOPTS": "--no-such-option",
    "MYPYPATH": "/nowhere",
    "RUFF_OUTPUT_FORMAT": "github",
    "PYTHONOPTIMIZE": "2",
    "PYTHONWARNINGS": "error",
    "FORCE_COLOR": "1",
}
"""An environment that no tool is to go by."""
COMMAND = f"""
import json, os, sys
from pathlib import Path
from petsage.cli import main

def look(event, arguments):
    'Notes what the folder holds before each lock, the last of which is that for its move.'
    if event == "fcntl.flock":
        built = next(Path("features").glob(".petsage-build-smoke_test-*/features/smoke_test"), None)
        if built is not None:
            held = sorted(str(path.relative_to(built)) for path in built.rglob("*"))
            Path("held.json").write_text(json.dumps(held))

sys.addaudithook(look)
os.environ.update({HOSTILE!r})
os.environ.pop("PYTHONPYCACHEPREFIX", None)  # bytecode, if any is written, comes beside the sources
main(["build", "smoke_test", "--description", "verify logs", "--json"])
"""
SMOKE_TEST: dict[str, Any] = {"feature": "smoke_test", "description": "verify logs"}


def start_builder(project, code) -> Any:
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=project, env=clean_environment(), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


class Builder:
    """A build in a process of its own, in `project`; each event that it has told is in `told`."""

    def __init__(self, project, request, code=RUN):
        self.told = []
        self._process = start_builder(project, code)
        # One that does not end fails its test, and does not keep it for ever.
        self._timer = threading.Timer(LONG_S, self._process.kill)
        self._timer.start()
        if request is not None:
            self.ask(request)

    def ask(self, request):
        """Tells it what to build."""
        self._process.stdin.write(json.dumps(request))
        self._process.stdin.close()

    def until(self, label):
        """Reads what it tells until that is told."""
        for line in self._process.stdout:
            self.told.append(event_of(line))
            if self.told[-1]["label"] == label:
                return self.told[-1]
        raise AssertionError(f"it ended before {label}: {self._process.stderr.read()}")

    def until_children(self):
        """Waits until it runs a tool, a test or a server; a descriptor for each process of it."""
        end = time.monotonic() + LONG_S
        while len(found := descendants(self._process.pid)) < 3:
            assert self._process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.01)
        opened = []
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                opened.append(os.pidfd_open(pid))
        return opened

    def send(self, number):
        self._process.send_signal(number)

    def end(self):
        """Its exit code, once it has ended."""
        self.told += [event_of(line) for line in self._process.stdout]
        errors = self._process.stderr.read()
        assert errors == "", errors
        return self._process.wait(LONG_S)

    def kill(self):
        self._timer.cancel()
        self._process.kill()
        self._process.wait(LONG_S)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            pipe.close()

    def texts(self, label):
        return [event["text"] for event in self.told if event["label"] == label]


def event_of(line):
    """An event as `RUN` tells it, of a line of it or of the command."""
    told = json.loads(line)
    if "event" not in told:
        return told
    name, text = told.pop("event"), told.pop("text")
    return {"label": name.upper().replace("_", " "), "text": text, "data": told}


def descendants(pid):
    found, waiting = [], [pid]
    while waiting:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for task in Path(f"/proc/{waiting.pop()}/task").iterdir():
                children = [int(each) for each in (task / "children").read_text().split()]
                found += children
                waiting += children
    return found


def all_end(processes):
    """Whether each of these processes ends."""
    ended = []
    for descriptor in processes:
        ended += select.select([descriptor], [], [], LONG_S)[0]
        os.close(descriptor)
    return len(ended) == len(processes)


@pytest.fixture
def start(tmp_path):
    """Starts builds; they are ended with the test."""
    builders = []

    def started(request, project=tmp_path):
        builders.append(Builder(project, request))
        return builders[-1]

    yield started
    for builder in builders:
        builder.kill()


TAKEN = '''"""Has a path already."""

from petsage import Feature, Routes

routes = Routes()


@routes.get("/taken")
async def say() -> dict[str, str]:
    """Say it."""
    return {"taken": "yes"}


feature = Feature(routes)
'''


def tells_of_a_change(line):
    return "smoke_test" in line["message"] and line["logger"] != "petsage.access"


class Built:
    """What became of the builds that ran beside a server."""

    def __init__(self, project):
        self.project = project
        self.features = project / "features"
        write_feature(project, "taken", TAKEN)
        write_feature(project, "broken", "import no_such_package_anywhere")
        for folder in (project, self.features):
            (folder / "conftest.py").write_text("raise SystemExit('of the project')")
        (project / "ruff.toml").write_text("line-length = 20\nexclude = ['*']")
        (project / "mypy.ini").write_text("[mypy]\nno_such_option = true")
        (project / ".gitignore").write_text("*")
        self.server = ServerProcess(project, (), {})
        self.killed = [
            Builder(project, {"feature": "smoke_test", "description": "killed early"}),
            Builder(project, {"feature": "killed", "description": "killed while it is checked"}),
        ]
        for each in self.killed:  # both are there before one is killed: each sweeps as it begins
            each.until("FILES")
        self.killed[0].kill()
        self.orphans = self.killed[1].until_children()
        self.killed[1].kill()
        self.left = self.names()
        self.build()

    def names(self):
        """What is in the folder of features, other than what was there before all."""
        there = {"broken", "conftest.py", "taken"}
        return sorted({path.name for path in self.features.iterdir()} - there)

    def build(self):
        """Runs the good one; another of the same name, and one that fails, while it runs."""
        self.good = Builder(self.project, None, COMMAND)
        self.same = Builder(self.project, None)  # it has begun when it is asked
        self.good.until("FILES")
        self.same.ask(SMOKE_TEST)
        probe = {"kind": "probe", "path": "/taken"}
        self.clashing = Builder(
            self.project,
            {"feature": "taken_too", "description": "clashes", "requirements": [probe]},
        )
        self.codes = {"same": self.same.end(), "clashing": self.clashing.end()}
        self.good.until("STATUS")
        completed = time.monotonic()
        self.server.wait_for(tells_of_a_change)
        self.served_s = time.monotonic() - completed
        self.codes["good"] = self.good.end()

    def close(self):
        for builder in (*self.killed, self.good, self.clashing, self.same):
            builder.kill()
        self.server.kill()


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    made = Built(tmp_path_factory.mktemp("beside") / "project")
    yield made
    made.close()


def test_a_good_build_tells_each_step_in_its_order(built):
    assert built.codes["good"] == 0, built.good.texts("REASON")
    told = [(event["label"], event["text"]) for event in built.good.told]
    assert told[:8] == [
        ("STATUS", "PROCESSING PAYLOAD"),
        ("AGENT", "PetSage Backend Feature Builder"),
        ("ACTION", "DECODING MESSAGE"),
        ("DECODING COMPLETE", ""),
        ("FEATURE REQUEST", "smoke_test"),
        ("DESCRIPTION", "verify logs"),
        ("REQUIREMENTS", "none"),
        ("ACTION", "INITIATING FEATURE BUILD"),
    ]
    assert [label for label, _ in told[8:]] == [
        *("FILES", "CHECKED", "TESTED", "PROBED"),
        *("STATUS", "FEATURE", "ASSESSMENT", "TIME", "TRY", "TRY"),
    ]
    assert told[12:14] == [
        ("STATUS", "BUILD COMPLETE"),
        ("FEATURE", "smoke_test in features/smoke_test"),
    ]
    urls = [
        "http://192.0.2.1:8000/api/v1/smoke-test",
        "http://192.0.2.1:8000/api/v1/smoke_test",
    ]
    assert built.good.texts("TRY") == [f"curl -i {url}" for url in urls]
    assert [each["data"]["url"] for each in built.good.told if each["label"] == "TRY"] == urls


def test_the_figures_that_it_tells_are_those_of_what_it_has_built(built):
    events = {event["label"]: event for event in built.good.told}
    files = {within: data for within, data in tree(built.features / "smoke_test").items() if data}
    assert {each["path"]: each["bytes"] for each in events["FILES"]["data"]["files"]} == {
        within: len(data) for within, data in files.items()
    }
    lines = sum(data.count(b"\n") for data in files.values())
    assert events["FILES"]["text"] == f"{len(files)} files, {lines} lines"
    for label in ("CHECKED", "TESTED", "PROBED"):
        assert events[label]["text"] in events["ASSESSMENT"]["text"]
        assert events["ASSESSMENT"]["data"][label.lower()] == events[label]["data"]
    checked, tested, probed = (events[name]["data"] for name in ("CHECKED", "TESTED", "PROBED"))
    sources = [data for within, data in files.items() if within.endswith(".py")]
    rows = sum(data.count(b"\n") for data in sources)
    assert (checked["files"], checked["lines"]) == (len(sources), rows) == (4, rows)
    assert events["CHECKED"]["text"] == (
        f"4 Python files, {rows} lines: `petsage check`, ruff and mypy find nothing "
        f"({checked['took_s']:.1f} s)"
    )
    tests = files["tests/test_smoke_test.py"].count(b"async def test_")
    assert tested["tests"] == tests >= 3
    assert events["TESTED"]["text"] == f"{tests} tests passed ({tested['took_s']:.1f} s)"
    assert (probed["endpoints"], probed["lines"]) == (2, 2)
    assert events["PROBED"]["text"] == (
        "2 endpoints answered, 2 log lines found by marker, OpenAPI valid "
        f"({probed['took_s']:.1f} s)"
    )
    times = events["TIME"]["data"]
    assert 0 < times["own_s"] < times["took_s"]


def test_what_it_builds_is_the_feature_that_this_repository_has_to_the_byte(built):
    assert tree(built.features / "smoke_test") == {
        within: data
        for within, data in tree(ROOT / "features" / "smoke_test").items()
        if "__pycache__" not in within
    }
    assert tree(built.project / "docs") == {
        "features": None,
        "features/smoke_test.md": (ROOT / "docs/features/smoke_test.md").read_bytes(),
    }


def test_no_tool_leaves_anything_in_the_folder(built):
    held = json.loads((built.project / "held.json").read_text())
    assert held == sorted(tree(built.features / "smoke_test"))


def test_the_guide_has_every_event_that_is_told_and_shows_what_is_said(built):
    guide = (ROOT / "docs" / "building.md").read_text(encoding="utf-8")
    labels = [event["label"] for event in built.good.told]
    table = guide.partition("\n| event | when | and has |\n")[2].partition("\n\n")[0]
    named = {
        name.upper().replace("_", " ")
        for row in table.splitlines()[1:]
        for name in re.findall(r"`(\w+)`", row.split("|")[1])
    }
    assert set(labels) <= named
    shown = guide.partition("STATUS: PROCESSING")[2].partition("```")[0]
    lines = [line.partition(":")[0] for line in shown.splitlines()[1:] if line[:1].isupper()]
    assert lines == labels[1:]


def test_what_killed_builds_left_is_swept_and_their_children_have_ended(built):
    assert [name.rpartition("-")[0] for name in built.left] == [
        ".petsage-build-killed",
        ".petsage-build-smoke_test",
    ]
    assert built.names() == ["smoke_test"]
    assert len(built.orphans) >= 3
    assert all_end(built.orphans)


def test_it_is_served_at_once_by_a_server_that_runs_which_has_noticed_nothing_else(built):
    assert built.served_s < 5
    status, answer = built.server.get("/api/v1/smoke-test")
    assert (status, answer["status"]) == (200, "ok")
    assert built.server.get("/api/v1/smoke_test")[1]["feature_generated"] == "smoke_test"
    assert built.server.get("/api/v1/taken") == (200, {"taken": "yes"})
    told = [line for line in built.server.lines if "petsage-build" in str(line)]
    assert told == []
    assert len([line for line in built.server.lines if tells_of_a_change(line)]) == 1


def test_of_two_builds_of_one_name_at_once_the_other_is_told(built):
    assert built.codes["same"] == 1
    assert built.same.texts("STAGE") == ["prepare"]
    assert "smoke_test is being built" in built.same.texts("REASON")[0]


def test_a_build_that_fails_says_where_and_why_and_leaves_nothing(built):
    assert built.codes["clashing"] == 1
    told = [event["label"] for event in built.clashing.told]
    assert told[8:13] == ["FILES", "STATUS", "STAGE", "REASON", "FIX"]
    failed = built.clashing.told[9]
    assert failed["text"] == "BUILD FAILED"
    assert built.clashing.texts("STAGE") == ["check"] == [failed["data"]["stage"]]
    assert "/taken" in str(failed["data"])
    assert built.clashing.texts("DETAIL") == failed["data"]["details"]
    # What is told, is told when nothing is left: that of the good build is still there.
    assert [name for name in failed["left"] if "taken_too" in name] == []
    assert not (built.features / "taken_too").exists()


def test_what_was_built_is_taken_back_and_served_no_more(built):
    """The last that is asked of these builds."""
    told: list[Event] = []
    remove_feature(
        built.features, "smoke_test",
        page_folder=built.project / "docs" / "features", force=False, tell=told.append,
    )  # fmt: skip
    assert told[0].text == "UNDO COMPLETE"
    assert built.names() == []
    built.server.wait_for(tells_of_a_change)
    assert built.server.get("/api/v1/smoke-test")[0] == 404


# Interrupted


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_all_that_it_runs_and_leaves_nothing(tmp_path, start, number, code):
    builder = start(SMOKE_TEST)
    builder.until("FILES")
    # At once, or amid its checks.
    children = builder.until_children() if number == signal.SIGTERM else []
    builder.send(number)
    builder.send(number)  # once more changes nothing
    builder.until("REASON")
    builder.send(number)  # nor when it ends

    assert builder.end() == code
    assert all_end(children)
    assert builder.texts("STATUS")[-1] == "BUILD FAILED"
    assert builder.texts("REASON") == [f"it was interrupted by {number.name}"]
    assert builder.told[-1]["left"] == []
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_ends_a_build_that_waits_for_its_request(tmp_path, start, number, code):
    builder = start(None)
    builder.until("ACTION")
    builder.send(number)
    assert builder.end() == code
    assert builder.texts("STAGE") == ["decode"]
    assert tree(tmp_path) == {}


# What fails before anything is checked


def built_here(folder, read=lambda: FeatureRequest(**SMOKE_TEST), **options):
    """Whether a build in this process is successful, and what it has told."""
    told: list[Event] = []
    arguments: dict[str, Any] = {
        "page_folder": None,
        "address": ADDRESS,
        "tell": told.append,
        **options,
    }
    done = asyncio.run(build(read, folder=folder, **arguments))
    return done, told


def reason(told):
    return [event.text for event in told if event.label in {"STAGE", "REASON", "FIX"}]


def test_what_cannot_be_read_is_told_with_its_fix(tmp_path):
    def read():
        raise BuildError("it is no TOML", fix="mend it", stage="decode", details=("line 1",))

    done, told = built_here(tmp_path / "features", read)
    assert not done
    assert [(event.label, event.text) for event in told[3:]] == [
        ("STATUS", "BUILD FAILED"),
        ("STAGE", "decode"),
        ("REASON", "it is no TOML"),
        ("FIX", "mend it"),
        ("DETAIL", "line 1"),
    ]
    assert tree(tmp_path) == {}


def test_a_fault_of_ours_is_told_as_such(tmp_path):
    done, told = built_here(tmp_path / "features", lambda: 1 / 0)
    assert not done
    assert reason(told)[1] == "a fault in PetSage itself: ZeroDivisionError: division by zero"
    assert any("test_build.py" in event.text for event in told if event.label == "DETAIL")


@pytest.mark.parametrize("beside", [False, True])
def test_a_feature_that_is_there_is_refused_before_anything_is_written(tmp_path, beside):
    there = tmp_path / ("more" if beside else "features") / "smoke_test"
    there.mkdir(parents=True)
    (there / "__init__.py").touch()
    before = tree(tmp_path)
    done, told = built_here(tmp_path / "features", beside=[tmp_path / "more"])

    assert not done
    assert reason(told)[:2] == ["prepare", f"there is a feature {there} already"]
    assert tree(tmp_path) == before


def test_a_page_that_is_somebody_s_is_refused(tmp_path):
    (tmp_path / "smoke_test.md").write_text("mine")
    done, told = built_here(tmp_path / "features", page_folder=tmp_path)
    assert not done
    assert reason(told)[0] == "prepare"
    assert tree(tmp_path) == {"smoke_test.md": b"mine"}


def test_what_comes_beside_it_while_it_is_checked_is_looked_at_before_it_is_published(tmp_path):
    rival = tmp_path / "features" / "rival"
    told: list[Event] = []

    def tell(event):
        told.append(event)
        if event.label == "PROBED":  # the last check has ended
            rival.mkdir()
            source = FILES["__init__.py"].replace(b"/hello/{name}", b"/smoke-test")
            source = source.replace(b"name: str", b"").replace(b": name}", b": ''}")
            (rival / "__init__.py").write_bytes(source)

    done, _ = built_here(tmp_path / "features", tell=tell)
    assert not done
    assert "`rival`" in reason(told)[1] or "`smoke_test`" in reason(told)[1]
    assert reason(told)[::2] == ["check", "change one of the two paths"]
    assert [path.name for path in (tmp_path / "features").iterdir()] == ["rival"]


def test_a_folder_that_takes_nothing_is_told(tmp_path):
    done, told = built_here(Path("/sys/features"))
    assert not done
    assert reason(told)[0] == "prepare"
    assert "--output" in reason(told)[2]


def test_nothing_is_left_where_nobody_can_be_told_any_more(tmp_path):
    closed: list[Event] = []

    def tell(event):
        if event.label == "FILES" or closed:
            closed.append(event)
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        asyncio.run(
            build(
                lambda: FeatureRequest(**SMOKE_TEST), folder=tmp_path / "features",
                page_folder=None, address=ADDRESS, tell=tell,
            )
        )  # fmt: skip
    assert tree(tmp_path) == {}


async def test_a_build_that_its_caller_cancels_leaves_nothing(tmp_path):
    told: list[Event] = []
    task = asyncio.current_task()
    assert task is not None

    def tell(event):
        told.append(event)
        if event.label == "FILES":
            task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await build(
            lambda: FeatureRequest(**SMOKE_TEST), folder=tmp_path / "features",
            page_folder=None, address=ADDRESS, tell=tell,
        )  # fmt: skip
    assert reason(told)[1] == "it was cancelled"
    assert tree(tmp_path) == {}


def test_a_draft_is_what_a_build_writes():
    files = tree(ROOT / "features" / "smoke_test")
    assert draft(FeatureRequest(**SMOKE_TEST)) == {
        within: data
        for within, data in files.items()
        if data is not None and "__pycache__" not in within
    }


# Each stage


@pytest.mark.stress
@pytest.mark.parametrize(
    "label", ["REQUIREMENTS", "ACTION", "FILES", "CHECKED", "TESTED", "PROBED"]
)
def test_a_build_that_is_killed_at_any_step_is_swept_by_the_next(tmp_path, start, label):
    first = start(SMOKE_TEST)
    first.until(label)
    if label == "ACTION":
        first.until(label)  # the second, behind which things are written
    first.kill()
    second = start(SMOKE_TEST)
    assert second.end() == 0
    assert [path.name for path in (tmp_path / "features").iterdir()] == ["smoke_test"]


@pytest.mark.stress
def test_builds_of_two_names_at_once_are_both_successful(tmp_path, start):
    builders = [start({**SMOKE_TEST, "feature": name}) for name in ("one", "another_one")]
    assert [builder.end() for builder in builders] == [0, 0]
    names = sorted(path.name for path in (tmp_path / "features").iterdir())
    assert names == ["another_one", "one"]
