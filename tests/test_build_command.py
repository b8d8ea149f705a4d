"""`petsage build`, as people and machines run it."""

import contextlib
import fcntl
import io
import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import pytest
from jsonschema import Draft202012Validator

from petsage.builder.building import draft
from petsage.builder.fields import FieldSchema
from petsage.builder.request import FeatureRequest, Probe, Resource
from petsage.builder.request_reader import read_request
from petsage.builder.workspace import open_workspace
from petsage.cli import main
from tests.conftest import ROOT, clean_environment

DOCS = (ROOT / "docs" / "building.md").read_text(encoding="utf-8")
LIMIT_S = 60
Call = Callable[..., "Called"]
ASKED = ("queue_watch", "--description", "Watch the queue")
BAD = "\x1b[2J[red]x[/red]\u202e"
EXTRA = ("mypy", "openapi_spec_validator", "pytest", "pytest_aiohttp", "ruff", "tomli_w")


def run(
    folder: Path,
    *arguments: str,
    stdin: str = "",
    env: Mapping[str, str] | None = None,
    before: str = "",
    **options: Any,
) -> subprocess.CompletedProcess[str]:
    """`petsage build` in a folder; `before` is Python that runs first."""
    main = f"{before}\nfrom petsage.cli import main\nmain()"
    how = ("-c", main) if before else ("-m", "petsage")
    settings: dict[str, Any] = {"stdout": subprocess.PIPE, **options}
    return subprocess.run(
        [sys.executable, *how, "build", *arguments],
        cwd=folder,
        env={**clean_environment(), **(env or {})},
        input=stdin,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        timeout=LIMIT_S,
        check=False,
        **settings,
    )


@dataclass(frozen=True)
class Called:
    """A command that has ended, in this process."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Calls `petsage build` in a folder, where it does not matter what its output is."""
    for name in [each for each in os.environ if each.startswith("PETSAGE_")]:
        monkeypatch.delenv(name)

    def call(folder: Path, *arguments: str, stdin: str = "") -> Called:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        with pytest.raises(SystemExit) as ended:
            main(["build", *arguments])
        out, err = capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        return Called(code, out, err)

    return call


def events(result: Called | subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert result.stderr == ""
    return [json.loads(line) for line in result.stdout.splitlines()]


def files_in(folder: Path) -> dict[str, bytes]:
    """Every file below a folder; noise is none."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


class TestUse:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ((), "nothing says what to build"),
            (("--description", "x"), "nothing says what to build"),
            (("x", "--force"), "--force goes with --undo alone"),
            (("x", "--undo", "y"), "--undo does not go with REQUEST"),
            (("--undo", "y", "--dry-run"), "--undo does not go with --dry-run"),
            (
                ("--undo", "y", "--description", "x", "--tag", "z", "--version", "1.0.0"),
                "--undo does not go with --description, --tag, --version",
            ),
            (("--schema", "x"), "--schema does not go with REQUEST"),
            (("--schema", "--output", "x"), "--schema does not go with --output"),
            (("--schema", "--undo", "x"), "--schema does not go with --undo"),
        ],
    )
    def test_what_does_not_go_together_is_refused_in_one_line(self, call, project, arguments, said):
        result = call(project, *arguments)
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr.startswith(f"petsage: {said}")
        assert "; fix: " in result.stderr
        assert result.stderr.count("\n") == 1

    def test_an_option_that_there_is_not_is_wrong_use(self, call, project):
        assert call(project, "--nothing").returncode == 2

    def test_its_help_imports_no_builder(self, project):
        at_exit = (
            "import atexit, sys\n"
            "atexit.register(lambda: print(sorted(sys.modules), file=sys.stderr))"
        )
        result = run(project, "--help", before=at_exit, env={"COLUMNS": "200"})
        imported = set(re.findall(r"'([\w.]+)'", result.stderr))
        assert result.returncode == 0
        for option in ("--description", "--tag", "--version", "--output", "--dry-run", "--undo"):
            assert option in result.stdout
        assert "petsage.cli" in imported
        assert imported.isdisjoint({*EXTRA, "jinja2"})
        builder = {each for each in imported if each.startswith("petsage.builder.")}
        assert builder == {"petsage.builder.events"}

    def test_the_schema_is_one_and_needs_no_extra(self, project):
        result = run(project, "--schema", before=without(*EXTRA))
        schema = json.loads(result.stdout)
        Draft202012Validator.check_schema(schema)
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        assert schema["title"] == "FeatureRequest"
        right = {"feature": "a", "description": "x", "tags": ["x"]}
        probe = {"kind": "probe", "message": "x", "summary": "x", "tags": ["x"]}
        assert Draft202012Validator(schema).is_valid({**right, "requirements": [probe]})
        for wrong in (
            *({**right, key: value} for key, value in (("description", " "), ("tags", [" "]))),
            *({**right, "requirements": [{**probe, key: " "}]} for key in ("message", "summary")),
        ):
            assert not Draft202012Validator(schema).is_valid(wrong)
        assert schema["description"]
        assert schema["$defs"]["Probe"]["properties"]["kind"]["const"] == "probe"
        for fields in (schema["properties"], schema["$defs"]["Probe"]["properties"]):
            assert all("title" in each for each in fields.values())
        assert all("description" in each for each in schema["properties"].values())

    def test_without_the_extra_it_says_so_in_one_line(self, project):
        result = run(project, *ASKED, before=without("mypy", "ruff"))
        assert result.returncode == 1
        status, stage, reason, fix = result.stdout.splitlines()
        assert (status, stage) == ("STATUS: BUILD FAILED", "STAGE: prepare")
        assert "mypy" in reason
        assert "ruff" in reason
        assert fix == "FIX: pip install 'petsage[build]'"

    def test_settings_that_cannot_be_used_are_one_line(self, call, project, monkeypatch):
        monkeypatch.setenv("PETSAGE_CATALOG__FOLDERS", "[]")
        result = call(project, *ASKED)
        assert result.returncode == 1
        assert result.stderr.startswith("petsage: [catalog].folders is empty")


def without(*modules: str) -> str:
    """Python after which these cannot be imported."""
    return f"import sys\nsys.modules.update(dict.fromkeys({modules!r}))"


class TestRefused:
    def test_a_request_that_cannot_be_met_writes_nothing(self, call, project):
        asked = {"feature": "pets", "description": "x", "requirements": [{"kind": "report"}]}
        result = call(project, "-", stdin=json.dumps(asked))
        assert (result.returncode, result.stderr) == (1, "")
        assert result.stdout.splitlines() == [
            "STATUS: PROCESSING PAYLOAD",
            "AGENT: PetSage Backend Feature Builder",
            "ACTION: DECODING MESSAGE",
            "STATUS: BUILD FAILED",
            "STAGE: decode",
            "REASON: standard input: requirements[0]: a `report` cannot be built",
            "FIX: ask for what can be: probe, resource",
        ]
        assert list(project.iterdir()) == []

    def test_as_json_it_is_an_object_a_line(self, call, project):
        told = events(call(project, "Bad-Name", "--json"))
        assert [each["event"] for each in told[:4]] == ["status", "agent", "action", "status"]
        failed = told[3]
        assert (failed["text"], failed["stage"]) == ("BUILD FAILED", "decode")
        assert failed["reason"] == "the command line: 2 things are wrong"
        assert failed["details"] == [each["text"] for each in told if each["event"] == "detail"]
        assert len(failed["details"]) == 2
        assert list(project.iterdir()) == []

    @pytest.mark.parametrize("as_json", [False, True])
    def test_what_a_terminal_would_obey_is_written_out(self, call, project, as_json):
        (project / "a.toml").write_text(f'feature = "x"\n{json.dumps(BAD)} = 1\n')
        for asked in (("x", "--description", BAD), (BAD,), ("a.toml",), (f"{BAD}.json",)):
            result = call(project, *asked, *["--json"] * as_json)
            assert result.returncode == 1
            assert "\x1b" not in result.stdout
            assert "\u202e" not in result.stdout
            assert "[red]x[/red]" in result.stdout

    @pytest.mark.parametrize("way", [("--dry-run",), ("--dry-run", "--json")], ids=" ".join)
    def test_a_dry_run_is_refused_alike(self, call, project, way):
        result = call(project, "Bad", "--description", "x", *way)
        assert result.returncode == 1
        assert "DRY RUN FAILED" in result.stdout.splitlines()[0]
        assert "call it `bad`" in result.stdout

    @pytest.mark.parametrize(
        ("folder", "page"),
        [(".", "../docs/features/a.md"), ("..", "../../docs/features/a.md")],
    )
    def test_its_page_stands_beside_the_folder_of_features(
        self, call, project, monkeypatch, folder, page
    ):
        monkeypatch.setenv("PETSAGE_CATALOG__FOLDERS", json.dumps([folder]))
        told = events(call(project, "a", "--description", "x", "--dry-run", "--json"))
        assert [event["path"] for event in told if event["event"] == "page"] == [page]

    def test_an_undo_of_what_is_not_there_is_refused(self, call, project):
        told = events(call(project, "--undo", "nowhere", "--json"))
        assert (told[0]["text"], told[0]["stage"]) == ("UNDO FAILED", "undo")
        assert list(project.iterdir()) == []

    def test_a_signal_ends_an_undo_that_waits_for_another_process(self, project):
        features = project / "features"
        features.mkdir()
        lock = os.open(features, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        with subprocess.Popen(
            [sys.executable, "-m", "petsage", "build", "--undo", "hello"],
            cwd=project,
            env=clean_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            while not catches(process.pid, signal.SIGHUP):  # which imports do not
                assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=LIMIT_S)
        os.close(lock)
        assert (process.returncode, err) == (143, "")
        assert out.startswith("STATUS: UNDO FAILED\nSTAGE: undo\nREASON: it was interrupted by ")
        assert list(project.iterdir()) == [features]

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGHUP, 129)])
    def test_a_signal_ends_it_while_it_waits_for_its_request(self, project, number, code):
        with subprocess.Popen(
            [sys.executable, "-m", "petsage", "build", "-"],
            cwd=project,
            env=clean_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            lines = iter(process.stdout.readline, "")
            assert "ACTION: DECODING MESSAGE\n" in lines
            process.send_signal(number)
            out, err = process.communicate(timeout=LIMIT_S)
        assert process.returncode == code
        assert out.startswith("STATUS: BUILD FAILED\n")
        assert err == ""
        assert list(project.iterdir()) == []


def catches(pid, number):
    """Whether a process has a handler of its own for a signal."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


class TestOutput:
    def test_a_reader_that_has_gone_does_not_end_it(self, project):
        told = f"import sys\n{SHOWN}\nprint('went on', file=sys.stderr)"
        command = f"{sys.executable} -c {shlex.quote(told)} | head -1"
        result = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert result.stdout == "STATUS: PROCESSING PAYLOAD\n"
        assert result.stderr == "went on\n"

    def test_a_full_disk_behind_its_output_is_one_line(self, project):
        with Path("/dev/full").open("w") as full:
            result = run(project, *ASKED, "--dry-run", stdout=full)
        assert result.returncode == 1
        assert result.stderr == (
            "petsage: standard output cannot be written: No space left on device; "
            "fix: make room, or name another file\n"
        )


SHOWN = """
import sys
from petsage.build_display import Output, open_display
from petsage.builder.events import Event
paths = ("a.py", "tests/deep/b.py", "tests/c.py", "z.md")
files = [{"path": path, "bytes": 9, "lines": 1 + number} for number, path in enumerate(paths)]
with open_display(Output(), as_json="--json" in sys.argv) as display:
    display.tell(Event("STATUS", "PROCESSING PAYLOAD"))
    display.tell(Event("DESCRIPTION", "[red]x[/red] :smile: \\x1b[2J \\u00e9 \\udcff" + " y" * 60))
    display.tell(Event("ACTION", "INITIATING FEATURE BUILD"))
    display.tell(Event("FILES", "4 files", {"folder": "q", "files": files}))
    display.tell(Event("CHECKED", "nothing found"))
    display.tell(Event("TESTED", "3 passed"))
    display.tell(Event("STATUS", "BUILD FAILED", {"details": ["a"]}))
    display.tell(Event("DETAIL", "\\tindented"))
"""
DESCRIBED = r"DESCRIPTION: [red]x[/red] :smile: \u001b[2J é \udcff" + " y" * 60
LINES = [
    "STATUS: PROCESSING PAYLOAD",
    DESCRIBED,
    "ACTION: INITIATING FEATURE BUILD",
    "FILES: 4 files",
    "q/",
    "├── a.py  1 line",
    "├── tests/",
    "│   ├── deep/",
    "│   │   └── b.py  2 lines",
    "│   └── c.py  3 lines",
    "└── z.md  4 lines",
    "CHECKED: nothing found",
    "TESTED: 3 passed",
    "STATUS: BUILD FAILED",
    "            indented",
]


def show(out: IO[str], *arguments: str, **env: str) -> None:
    """Runs it with another standard output, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "argv", ["show", *arguments])
        for key, text in {"NO_COLOR": "", "COLUMNS": "100", **env}.items():
            patch.setenv(key, text) if text else patch.delenv(key, raising=False)
        exec(SHOWN, {})
        out.flush()


def shown(*arguments: str, encoding: str = "utf-8", **env: str) -> str:
    """What a display writes into a file."""
    written = io.BytesIO()
    with io.TextIOWrapper(written, encoding=encoding) as out:
        show(out, *arguments, **env)
        return written.getvalue().decode(encoding)


def typed(**env: str) -> str:
    """What a display writes on a terminal."""
    master, slave = pty.openpty()
    with ThreadPoolExecutor() as pool:
        written = pool.submit(read_to_end, master)
        with os.fdopen(slave, "w", encoding="utf-8") as out:
            show(out, **{"TERM": "xterm-256color", **env})
    os.close(master)
    return written.result().decode()


def read_to_end(master: int) -> bytes:
    written = b""
    with contextlib.suppress(OSError):  # the other end is shut
        while True:
            written += os.read(master, 65536)
    return written


def screen(written: str) -> list[str]:
    """The lines that a terminal shows in the end; longer ones than its width are not folded."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[?0-9;]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", written):
        if part == "\r":
            column = 0
        elif part == "\n":
            row += 1
            lines += [""] * (row == len(lines))
            column = 0
        elif part == "\x1b[2K":
            lines[row] = ""
        elif part.startswith("\x1b[") and part.endswith("A"):
            row -= int(part[2:-1])
        elif part.startswith("\x1b"):
            assert part[-1] in "mhl", part
        else:
            lines[row] = lines[row][:column] + part
            column = len(lines[row])
    return [line for line in lines if line]


class TestDisplay:
    def test_elsewhere_it_writes_plain_lines(self):
        assert shown(FORCE_COLOR="1", TERM="xterm").splitlines() == LINES

    def test_what_the_encoding_has_not_is_written_as_what_it_has(self):
        lines = shown(encoding="ascii").splitlines()
        assert lines[1] == DESCRIBED.replace("é", "\\xe9")
        assert lines[4:11] == [
            "q/",
            "|-- a.py  1 line",
            "|-- tests/",
            "|   |-- deep/",
            "|   |   `-- b.py  2 lines",
            "|   `-- c.py  3 lines",
            "`-- z.md  4 lines",
        ]

    def test_for_machines_it_writes_an_object_a_line_in_ascii(self):
        written = shown("--json")
        assert written.isascii()
        told = [json.loads(line) for line in written.splitlines()]
        assert told[0] == {"event": "status", "text": "PROCESSING PAYLOAD"}
        assert told[1]["text"].startswith("[red]x[/red] :smile: \x1b[2J é \\udcff y")
        assert told[3]["files"][1] == {"path": "tests/deep/b.py", "bytes": 9, "lines": 2}
        assert told[-2] == {"event": "status", "text": "BUILD FAILED", "details": ["a"]}

    def test_a_terminal_is_left_with_the_same_lines(self):
        written = typed()
        assert screen(written) == LINES
        assert written.count("\x1b[?25l") == written.count("\x1b[?25h")  # the cursor is back
        assert "\x1b[2K" not in written.partition("INITIATING")[0]  # somebody may be typing

    def test_a_terminal_shows_what_is_running_until_it_is_done(self):
        written = typed()
        assert re.search(r"writing its files, \d+\.\d s", written)
        checked = written.index("CHECKED")
        for words in ("checking: petsage check, ruff, mypy, 0.", "testing, 0.", "probing: "):
            assert words in written[:checked]
        assert "checking: " not in written[checked:]
        assert "testing, " in written[checked:]
        assert "testing, " not in written[written.index("TESTED") :]
        assert "probing: " not in written[written.index("BUILD FAILED") :]

    def test_colours_are_for_who_wants_them(self):
        assert "\x1b[1;31mBUILD FAILED" in typed()
        assert "\x1b[1m" not in typed(NO_COLOR="1")
        assert screen(typed(NO_COLOR="1")) == LINES

    def test_a_dumb_terminal_gets_plain_lines(self):
        assert typed(TERM="dumb").splitlines() == LINES


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A project with a feature that was made by the builder and put in its place."""
    project = tmp_path / "built"
    asked = read_request(
        ASKED[0], {"description": ASKED[2], "tags": ["Queues"], "version": "1.2.0"}
    )
    with open_workspace(project / "features", asked.feature) as workspace:
        workspace.write(draft(asked))
        workspace.publish(project / "docs" / "features" / f"{asked.feature}.md")
    return project


class TestBuilt:
    def test_a_dry_run_of_its_record_or_flags_shows_the_same_files_and_writes_nothing(
        self, call, built
    ):
        before = files_in(built)
        record = str(built / "features" / "queue_watch" / "feature.toml")
        for asked in ((record,), (*ASKED, "--tag", "Queues", "--version", "1.2.0")):
            told = events(call(built, *asked, "--dry-run", "--json"))
            assert {
                each["path"]: each["content"].encode() for each in told if each["event"] == "file"
            } == {path: data for path, data in before.items() if path.startswith("features")}
            assert [each["path"] for each in told if each["event"] == "page"] == [
                "docs/features/queue_watch.md"
            ]
            assert told[-1] == {"event": "status", "text": "DRY RUN COMPLETE"}
            assert files_in(built) == before

    def test_a_dry_run_shows_people_each_file_as_it_would_be(self, call, built, tmp_path):
        where = tmp_path / "elsewhere"
        record = str(built / "features" / "queue_watch" / "feature.toml")
        out = call(tmp_path, record, "--dry-run", "--output", str(where)).stdout
        assert "PAGE: " not in out
        for path, data in files_in(built / "features" / "queue_watch").items():
            assert f"FILE: {where}/queue_watch/{path}\n{data.decode()}" in out
        assert list(tmp_path.iterdir()) == [built]

    def test_it_is_not_built_again(self, call, built):
        before = files_in(built)
        told = events(call(built, *ASKED, "--json"))
        assert told[-1]["event"] in {"fix", "detail"}
        (failed,) = (each for each in told if each["text"] == "BUILD FAILED")
        assert failed["stage"] == "prepare"
        assert files_in(built) == before

    def test_an_undo_refuses_what_was_edited_and_removes_what_was_not(self, call, built):
        routes = built / "features" / "queue_watch" / "routes.py"
        source = routes.read_bytes()
        routes.write_bytes(source + b"\n")
        refused = call(built, "--undo", "queue_watch")
        assert refused.returncode == 1
        assert refused.stdout.startswith("STATUS: UNDO FAILED\nSTAGE: undo\nREASON: ")
        assert "routes.py" in refused.stdout
        routes.write_bytes(source)

        told = events(call(built, "--undo", "queue_watch", "--json"))
        assert told[0] == {"event": "status", "text": "UNDO COMPLETE"}
        assert files_in(built) == {}


class TestFields:
    def test_item_goes_with_fields_alone(self, call, project):
        result = call(project, *ASKED, "--item", "watch")
        assert result.returncode == 2
        assert result.stderr.startswith("petsage: --item goes with --field")

    @pytest.mark.parametrize("option", ["--undo=queue_watch", "--schema"])
    def test_fields_go_with_a_build_alone(self, call, project, option):
        result = call(project, option, "--field", "name:str")
        assert result.returncode == 2
        assert "does not go with --field" in result.stderr

    def test_what_cannot_be_read_of_them_is_told_at_once(self, call, project):
        words = ("--field", "name:strr", "--field", "born:date,uniq")
        result = call(project, "pets", "--description", "x", *words)
        assert (result.returncode, result.stderr) == (1, "")
        assert "REASON: the command line: 2 things are wrong\n" in result.stdout
        assert "the command line, --field: 'name:strr': 'strr' is no type; fix: " in result.stdout
        assert files_in(project) == {}


class TestGuide:
    def rows(self, head: str) -> list[str]:
        """The first column of a table of the guide."""
        table = DOCS.partition(f"\n{head}\n")[2].partition("\n\n")[0]
        assert table, head
        return [line.split("|")[1].strip() for line in table.splitlines()[1:]]

    def test_it_has_every_field(self):
        for head, model in (
            ("field", FeatureRequest),
            ("field of a probe", Probe),
            ("field of a resource", Resource),
        ):
            rows = self.rows(f"| {head} | holds | where left out |")
            assert rows == [f"`{name}`" for name in model.model_fields]

    def test_it_has_every_keyword_of_a_field(self):
        table = DOCS.partition("\n| keyword | goes with | says |\n")[2].partition("\n\n")[0]
        cells = "".join(line.split("|")[1] for line in table.splitlines()[1:])
        assert sorted(re.findall(r"`(\w+)`", cells)) == sorted(FieldSchema.model_fields)

    def test_its_examples_are_requests(self, tmp_path):
        queue, pets = re.findall(r"```toml\n(.*?)```", DOCS, re.DOTALL)
        path = tmp_path / "queue.toml"
        path.write_text(queue, encoding="utf-8")
        asked = read_request(str(path), {})
        assert asked.model_dump(exclude_none=True) == tomllib.loads(queue)
        path.write_text(pets, encoding="utf-8")
        assert len(read_request(str(path), {}).resources()[0].fields) == 7

    def test_its_short_example_is_a_request(self):
        (example,) = re.findall(r"```\n(petsage build pets .*?)```", DOCS, re.DOTALL)
        words = shlex.split(example)
        fields = [word for before, word in pairwise(words) if before == "--field"]
        asked = read_request(words[2], {"description": "x", "fields": fields})
        assert len(asked.resources()[0].fields) == len(fields) == 6
