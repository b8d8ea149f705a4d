"""Features are checked in a child process: whatever they do there, the server goes on."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from petsage.check_messages import Job, decode_job, encode_job
from petsage.checking import CheckFailed, CheckProcess
from petsage.feature import Place
from petsage.loader import load_features, unload
from petsage.signature import Flaw
from petsage.snapshot import Snapshot, take_snapshot
from tests.conftest import clean_environment

END = "\nfrom petsage import Feature, Routes\nfeature = Feature(Routes(){})\n"
GOOD = END.format("")
TIMEOUT_S = 1.0
PATIENT_S = 20.0


@pytest.fixture(scope="module")
def shared_process():
    # By a program of its own: pytest has threads, and must not fork.
    child = CheckProcess.launch()
    assert child is not None
    yield child
    asyncio.run(child.stop())
    assert child.restarts == 0


@pytest.fixture
async def process():
    """A child for a test that ends it."""
    child = CheckProcess.launch()
    assert child is not None
    yield child
    await child.stop()
    assert not is_there(child.pid)


@pytest.fixture
def check(shared_process, feature_folder):
    """Call it with features, as texts, to have all of them checked."""
    return checker(shared_process, feature_folder)


@pytest.fixture
def check_there(process, feature_folder):
    """As `check`, by `process`."""
    return checker(process, feature_folder)


def checker(process, feature_folder):
    async def check(features, *, names=None, settings=None, timeout_s=PATIENT_S):
        folders = [feature_folder(name, files) for name, files in features.items()]
        return await process.check(
            [(take_snapshot(folder.name, folder), folder) for folder in folders],
            list(features) if names is None else names,
            settings=settings or {},
            disabled=(),
            timeout_s=timeout_s,
        )

    return check


def found(checked):
    return [(each.id, Path(each.file).name, each.line) for each in checked.findings]


def is_there(pid):
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


async def gone(*pids):
    """Waits until processes have ended; what never does fails the test by its time."""
    async with asyncio.timeout(PATIENT_S):
        while any(map(is_there, pids)):  # noqa: ASYNC110 - another process ends
            await asyncio.sleep(0.01)


async def said_in(file):
    """What a feature has written, as soon as it has."""
    async with asyncio.timeout(PATIENT_S):
        while not (file.exists() and file.read_text().endswith("\n")):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return [int(each) for each in file.read_text().split()]


# What a check answers


async def test_a_good_feature_comes_back_with_what_a_server_needs_to_import_it(
    check, feature_folder
):
    files = {
        "__init__.py": "from .inner import VALUE\n" + END.format(", needs=('owners',)"),
        "inner.py": "VALUE = 7\n",
        "tests/test_it.py": "def test(): pass\n",
    }
    result = await check({"pets": files, "owners": GOOD})

    pets = result["pets"]
    assert pets.findings == ()
    assert pets.needs == ("owners",)
    assert set(pets.codes) == {"__init__.py", "inner.py"}
    folder = feature_folder("pets", {})
    assert pets.codes["inner.py"].co_filename == str(folder / "inner.py")
    values: dict[str, object] = {}
    exec(pets.codes["inner.py"], values)
    assert values["VALUE"] == 7
    assert pets.inspection is not None
    assert pets.inspection.feature_lines[""] == 4


async def test_the_findings_are_those_of_a_load_in_the_process_itself(
    check, feature_folder, tmp_path
):
    features = {
        "broken": "def (:\n",
        "late": "def f():\n    from . import x\n" + GOOD,
        "raises": "\n1 / 0\n",
        "uses": "from features.owners import feature as o\n" + GOOD,
        "owners": GOOD,
        "odd": END.format(", version=3"),
        "keyed": GOOD,
        "missing": "import no_such_package\n" + GOOD,
    }
    settings = {"keyed": {"a": 1}}
    result = await check(features, settings=settings)

    candidates = load_features([tmp_path / "features"], settings=settings)
    unload(candidates)
    assert {each.name: tuple(each.findings) for each in candidates} == {
        name: checked.findings for name, checked in result.items()
    }
    assert [each.inspection for each in candidates] == [
        result[each.name].inspection for each in candidates
    ]


async def test_a_feature_that_imports_another_is_checked_with_it(check):
    result = await check(
        {
            "pets": "from features.owners import NAME\n" + END.format(", needs=('owners',)"),
            "owners": "NAME = 'Ada'\n" + GOOD,
        },
        names=["pets"],
    )

    assert list(result) == ["pets"]
    assert found(result["pets"]) == []


async def test_settings_of_any_kind_come_through(check):
    import datetime

    source = (
        "import datetime\nfrom pydantic import BaseModel\nfrom petsage import Feature, Routes\n"
        "class Own(BaseModel):\n    day: datetime.date\n"
        "feature = Feature(Routes(), settings=Own)\n"
    )
    right = await check({"pets": source}, settings={"pets": {"day": datetime.date(2026, 1, 2)}})
    assert found(right["pets"]) == []
    wrong = await check({"pets": source}, settings={"pets": {"day": "soon"}})
    assert found(wrong["pets"]) == [("bad-settings", "__init__.py", 6)]


def test_settings_come_through_as_they_were():
    from datetime import UTC, date, datetime, time

    moments = [date(2026, 1, 2), time(3, 4, 5, 6), datetime(2026, 1, 2, 3, tzinfo=UTC)]
    plain = {"text": "\udcff ü", "whole": 2**70, "real": 0.5, "flag": True, "nothing": None}
    settings = {"pets": {**plain, "moments": moments, "table": {"list": [{"at": moments[2]}, []]}}}
    snapshot = Snapshot(
        "pets",
        Path("/a/\udcff"),
        {"__init__.py": b"\x00"},
        "0" * 64,
        ((Place("a", 1), Flaw("bad-name", "p", "f"), "warning"),),
    )
    job = Job([(snapshot, Path("features/pets"))], ["pets"], settings, frozenset({"off"}), "/")

    assert decode_job(encode_job(job)) == job
    assert [type(each) for each in decode_job(encode_job(job)).settings["pets"]["moments"]] == [
        date,
        time,
        datetime,
    ]


async def test_two_jobs_at_once_are_done_one_after_the_other(check_there):
    first, second = await asyncio.gather(
        check_there({"pets": GOOD}), check_there({"owners": "1 / 0\n"})
    )

    assert found(first["pets"]) == []
    assert found(second["owners"]) == [("import-failed", "__init__.py", 1)]


# What an import may do to its process


@pytest.mark.parametrize(
    "statement",
    ["while True: pass", "sum(iter(int, 1))", "import time; time.sleep(1000)"],
    ids=["python", "c", "sleep"],
)
async def test_an_import_that_never_ends_is_cut_and_the_others_are_checked(check, statement):
    result = await check(
        {
            "hangs": {"__init__.py": "from . import inner\n" + GOOD, "inner.py": f"\n{statement}"},
            "imports": "from features.hangs import inner\n" + END.format(", needs=('hangs',)"),
            "needs": END.format(", needs=('hangs',)"),
            "good": GOOD,
        },
        timeout_s=2,  # a slow machine may take one to come to it
    )

    assert found(result["hangs"]) == [("check-timeout", "inner.py", 2)]
    assert "within 2 s" in result["hangs"].findings[0].problem
    assert set(result["hangs"].codes) == {"__init__.py", "inner.py"}
    assert found(result["imports"]) == [("need-failed", "__init__.py", 1)]
    assert found(result["needs"]) == [("need-failed", "__init__.py", 3)]
    assert found(result["good"]) == []


async def test_a_file_that_takes_too_long_to_compile_is_left_out_too(check):
    files = {"__init__.py": GOOD, "large.py": "x = 1\n" * 1_000_000}
    result = await check({"large": files, "good": GOOD}, timeout_s=0.5)

    assert found(result["large"]) == [("check-timeout", "__init__.py", 0)]
    assert found(result["good"]) == []


# This thread: were it told to the process, another one might take it, and this one go on meanwhile.
STOPS = """
import signal, threading
signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
"""


async def test_an_import_that_stops_its_process_is_cut(check):
    result = await check(
        {"stops": f"{STOPS}{GOOD}"},
        timeout_s=2 * TIMEOUT_S,  # on a busy machine, it has to come so far within it
    )

    assert found(result["stops"]) == [("check-timeout", "__init__.py", 0)]


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("import os\nos._exit(3)", "ended the process with exit code 3"),
        ("import os\nos.abort()", "ended the process by SIGABRT"),
        ("import ctypes\nctypes.string_at(0)", "ended the process by SIGSEGV"),
        ("import os\nos.kill(os.getpid(), 9)", "ended the process by SIGKILL"),
        ("import os\nos.closerange(3, 1000)", "closed descriptors that are not its own"),
    ],
)
async def test_an_import_that_ends_the_process_is_named_with_its_line(check, statement, said):
    result = await check({"ends": f"{statement}\n{GOOD}", "good": GOOD})

    assert found(result["ends"]) == [("check-crashed", "__init__.py", 2)]
    assert result["ends"].findings[0].problem == f"its import {said}"
    assert found(result["good"]) == []


async def test_an_attempt_that_was_killed_from_outside_is_made_again(check, tmp_path, caplog):
    notes = tmp_path / "pids"
    waits = f"""
        import os, time
        if not os.path.exists({str(notes)!r}):
            with open({str(notes)!r}, "w") as file:
                print(os.getpid(), file=file)
            time.sleep(100)
        """
    running = asyncio.create_task(check({"pets": textwrap.dedent(waits) + GOOD, "good": GOOD}))
    (attempt,) = await said_in(notes)
    os.kill(attempt, signal.SIGKILL)

    assert [found(each) for each in (await running).values()] == [[], []]
    assert caplog.records == []


async def test_each_of_several_that_end_the_process_is_named(check):
    ends = "import os\nos._exit(3)\n"
    result = await check({"one": ends, "two": ends, "three": ends, "good": GOOD})

    assert {name: [each[0] for each in found(result[name])] for name in result} == {
        **{name: ["check-crashed"] for name in ("one", "two", "three")},
        "good": [],
    }


@pytest.mark.parametrize(
    "statement",
    ["import sys; sys.exit(3)", "def f(): f()\nf()", "x = bytearray(1 << 45)"],
    ids=["exit", "recursion", "memory"],
)
async def test_what_python_itself_can_catch_is_an_import_that_failed(check, statement):
    result = await check({"pets": statement})

    assert [each[0] for each in found(result["pets"])] == ["import-failed"]


async def test_an_import_can_have_no_more_memory_than_there_is_and_goes_first(check):
    result = await check(
        {
            "pets": "import resource, pathlib\n"
            "limit = resource.getrlimit(resource.RLIMIT_DATA)[0]\n"
            "text = pathlib.Path('/proc/meminfo').read_text()\n"
            "total = int(text.split('MemTotal:')[1].split()[0]) * 1024\n"
            "assert 0 < limit < total, limit\n"
            "assert pathlib.Path('/proc/self/oom_score_adj').read_text() == '1000\\n'\n" + GOOD
        }
    )

    assert found(result["pets"]) == []


async def test_an_import_has_a_session_of_its_own_so_that_no_group_is_the_servers(check):
    source = "import os\nassert os.getsid(0) == os.getpgid(0) == os.getpid()\n"
    result = await check({"pets": source + GOOD})

    assert found(result["pets"]) == []


async def test_a_thread_that_runs_on_is_named_with_its_line(check):
    source = "import threading, time\ndef run():\n    time.sleep(100)\n"
    start = "threading.Thread(target=run, name='clock').start()\n"
    result = await check({"pets": source + start + GOOD, "good": GOOD})

    assert found(result["pets"]) == [("import-side-effect", "__init__.py", 3)]
    assert "thread clock" in result["pets"].findings[0].problem
    assert found(result["good"]) == []


async def test_what_an_import_forks_is_gone_when_the_check_is_over(check, tmp_path):
    notes = tmp_path / "pids"
    source = f"""
        import os, time
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.setpgid(0, 0)
                with open({str(notes)!r}, "w") as file:
                    print(os.getpid(), file=file)
                os.write(writer, b"x")
                while True:
                    time.sleep(100)
            os._exit(0)
        os.read(reader, 1)
        """
    result = await check({"daemon": textwrap.dedent(source) + GOOD})

    assert found(result["daemon"]) == [("import-side-effect", "__init__.py", 4)]
    await gone(*await said_in(notes))


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        ("import subprocess\nsubprocess.Popen(['sleep', '99'], start_new_session=True)", "sleep"),
        ("import os\nos.system('sleep 99 &')", "sleep"),
        ("import os\nos.fork()", ""),
    ],
    ids=["Popen", "orphan", "fork"],
)
async def test_a_process_that_runs_on_is_named_with_its_line(check, statement, name):
    result = await check({"starts": f"{statement}\n{GOOD}", "good": GOOD})

    assert found(result["starts"]) == [("import-side-effect", "__init__.py", 2)]
    (finding,) = result["starts"].findings
    assert finding.problem.startswith(f"the import started a process that runs on: {name}")
    assert found(result["good"]) == []


async def test_a_process_that_has_ended_is_no_finding(check):
    source = "import subprocess\nsubprocess.run(['true'], check=True)\nsubprocess.Popen(['true'])\n"
    tracker = "from multiprocessing import resource_tracker\nresource_tracker.ensure_running()\n"
    result = await check({"pets": source + GOOD, "owners": tracker + GOOD})

    assert [found(each) for each in result.values()] == [[], []]


async def test_the_other_one_of_an_import_that_forks_says_nothing(check):
    source = "import os\npid = os.fork()\nif not pid: raise ValueError\nos.waitpid(pid, 0)\n"
    result = await check({"pets": source + GOOD, "good": GOOD})

    assert [found(each) for each in result.values()] == [[], []]


async def test_what_an_import_prints_neither_blocks_it_nor_is_taken_for_an_answer(check):
    source = """
        import os, sys
        for stream in (sys.stdout, sys.stderr, sys.__stdout__):
            print("x" * 1_000_000, file=stream, flush=True)
        for descriptor in range(1, 100):
            try:
                os.write(descriptor, b"A" * 100)
            except OSError:
                pass
        assert sys.stdin.read() == ""
        """
    result = await check({"loud": textwrap.dedent(source) + GOOD})

    assert found(result["loud"]) == []


async def test_a_server_keeps_its_own_state_whatever_an_import_changes(check):
    def state():
        return Path.cwd(), dict(os.environ), list(sys.path), logging.getLogger().level

    before = state()
    result = await check(
        {
            "rude": "import logging, os, sys\nos.chdir('/')\nos.environ['RUDE'] = 'secret'\n"
            "sys.path.append('/x')\nlogging.getLogger().setLevel(1)\n" + GOOD,
            "good": "import os, sys\nassert 'RUDE' not in os.environ and '/x' not in sys.path\n"
            + GOOD,
        }
    )

    assert state() == before
    assert sorted(found(result["rude"])) == [
        ("import-side-effect", "__init__.py", line) for line in (2, 3, 4, 5)
    ]
    assert "secret" not in str(result["rude"].findings)
    assert found(result["good"]) == []


# The child itself


async def test_a_child_that_was_killed_amid_a_job_is_begun_anew_and_the_job_goes_on(
    process, check_there, tmp_path, caplog
):
    notes = tmp_path / "pids"
    waits = f"""
        import os, time
        if not os.path.exists({str(notes)!r}):
            with open({str(notes)!r}, "w") as file:
                print(os.getpid(), os.getppid(), file=file)
            time.sleep(100)
        """
    running = asyncio.create_task(check_there({"pets": textwrap.dedent(waits) + GOOD}))
    child, warm = await said_in(notes)
    assert warm == process.pid
    async with asyncio.timeout(PATIENT_S):
        while process.checking != "pets":  # noqa: ASYNC110 - the child says so, about now
            await asyncio.sleep(0.01)
    os.kill(warm, signal.SIGKILL)

    assert found((await running)["pets"]) == []
    assert process.restarts == 1
    assert process.pid != warm
    assert any("was lost while it checked pets" in each.message for each in caplog.records)
    await gone(child, warm)


async def test_an_import_that_kills_the_child_each_time_is_named(process, check_there):
    result = await check_there(
        {"pets": "import os\nos.kill(os.getppid(), 9)\n" + GOOD, "good": GOOD}
    )

    assert found(result["pets"]) == [("check-crashed", "__init__.py", 2)]
    assert found(result["good"]) == []
    assert process.restarts == 2


async def test_a_child_that_is_lost_before_it_comes_to_a_feature_is_not_begun_for_each_of_them(
    check_there, process, tmp_path, monkeypatch
):
    begun = tmp_path / "begun"
    broken = tmp_path / "python"
    broken.write_text(f"#!/bin/sh\necho begun >> {begun}\nexit 1\n", encoding="utf-8")
    broken.chmod(0o700)
    os.kill(process.pid, signal.SIGKILL)
    monkeypatch.setattr(sys, "executable", str(broken))

    with pytest.raises(CheckFailed, match="was lost 3 times in a row, before it had come to any"):
        await check_there({f"pets{number}": GOOD for number in range(11)})

    assert begun.read_text().split() == ["begun"] * 2  # and once before them


async def test_a_check_that_is_given_up_leaves_nothing_and_the_next_is_right(
    process, check_there, tmp_path
):
    notes = tmp_path / "pids"
    source = f"import os, time\nprint(os.getpid(), os.getppid(), file=open({str(notes)!r}, 'w'))\n"
    running = asyncio.create_task(check_there({"pets": source + "time.sleep(100)\n" + GOOD}))
    pids = await said_in(notes)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert found((await check_there({"owners": GOOD}))["owners"]) == []
    await gone(*pids)


async def test_a_stop_ends_a_check_in_hand(process, check_there, tmp_path):
    notes = tmp_path / "pids"
    source = f"import os, time\nprint(os.getpid(), os.getppid(), file=open({str(notes)!r}, 'w'))\n"
    running = asyncio.create_task(check_there({"pets": source + "time.sleep(100)\n" + GOOD}))
    pids = await said_in(notes)
    await process.stop()

    with pytest.raises(CheckFailed, match="it was stopped"):
        await running
    await gone(*pids)
    with pytest.raises(CheckFailed, match="it was stopped"):
        await check_there({"owners": GOOD})


# In a process that forks, as the server does

SERVER = """
import asyncio, json, os, signal, socket, sys, threading
import petsage.server
from pathlib import Path
from petsage.checking import CheckProcess
from petsage.snapshot import take_snapshot

listener = socket.create_server(("127.0.0.1", 0))
listener.set_inheritable(True)
signal.signal(signal.SIGTERM, lambda *_: None)
process = CheckProcess.begin()
folder = Path(sys.argv[1])

async def main():
    while True:
        result = await process.check(
            [(take_snapshot(folder.name, folder), folder)], [folder.name],
            settings={}, disabled=(), timeout_s=20,
        )
        findings = [str(each) for each in result[folder.name].findings]
        print(json.dumps([process.pid, process.restarts, findings]), flush=True)
        if sys.stdin.readline() == "stop\\n":
            await process.stop()
            print("stopped", flush=True)
            sys.stdin.readline()

asyncio.run(main())
"""


@contextlib.contextmanager
def server(folder):
    """A process with a child that it has forked; it answers with the child's id first."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=clean_environment(),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for_the_end_of(*pids):
    deadline = time.monotonic() + PATIENT_S
    while any(map(is_there, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def open_files(pid):
    files = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            files.append(str(link.readlink()).partition(":")[0])
    return sorted(files)


def test_a_forked_child_has_no_descriptor_of_the_servers_and_no_signal_ends_it(feature_folder):
    with server(feature_folder("pets", "1 / 0\n")) as process:
        pid, restarts, (finding,) = json.loads(process.stdout.readline())
        assert restarts == 0
        assert "import-failed" in finding
        deadline = time.monotonic() + PATIENT_S
        while open_files(pid) != ["/dev/null"] * 3 + ["socket"]:  # it may still be tidying up
            assert time.monotonic() < deadline, open_files(pid)
            time.sleep(0.01)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(pid, number)
        process.stdin.write("again\nstop\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline()) == [pid, 0, [finding]]
        assert process.stdout.readline() == "stopped\n"
        assert not Path(f"/proc/{pid}").exists()  # reaped, too


def test_a_server_that_is_killed_leaves_no_process_behind(feature_folder, tmp_path):
    notes = tmp_path / "pids"
    source = f"import os, time\nprint(os.getpid(), os.getppid(), file=open({str(notes)!r}, 'w'))\n"
    with server(feature_folder("pets", source + "while True: pass\n")) as process:
        pids = asyncio.run(said_in(notes))
        assert all(map(is_there, pids))
        process.kill()
        wait_for_the_end_of(*pids)


COMMAND = """
import asyncio, sys
from pathlib import Path
from petsage.checking import CheckProcess
from petsage.client_side import is_postponed
from petsage.snapshot import take_snapshot

process = CheckProcess.begin()
folder = Path(sys.argv[1])

async def main():
    for _ in range(2):
        result = await process.check(
            [(take_snapshot(folder.name, folder), folder)], [folder.name],
            settings={}, disabled=(), timeout_s=20,
        )
        print(result[folder.name].findings[0].problem)
    await process.stop()

asyncio.run(main())
print(is_postponed())
"""


def test_the_client_side_of_aiohttp_is_imported_once_and_not_for_each_check(
    feature_folder, tmp_path
):
    source = (
        "import aiohttp\nfrom petsage.client_side import is_postponed\nwas = is_postponed()\n"
        "aiohttp.ClientSession\nraise ValueError(was)\n"
    )
    command = tmp_path / "petsage"  # by this name, for it is commands that postpone it
    command.write_text(COMMAND, encoding="utf-8")

    told = subprocess.run(
        [sys.executable, str(command), str(feature_folder("pets", source))],
        capture_output=True,
        text=True,
        env=clean_environment(),
        check=False,
        timeout=20,
    )

    assert told.stdout.splitlines() == [
        "the import raised ValueError: True",
        "the import raised ValueError: False",
        "True",
    ], told.stderr


def test_features_are_checked_where_python_was_built_without_ctypes(feature_folder, tmp_path):
    program = f"import sys\nsys.modules['ctypes'] = None\n{COMMAND}print(process.restarts)\n"
    script = tmp_path / "checks.py"
    script.write_text(program, encoding="utf-8")
    told = run(script, feature_folder("pets", "raise ValueError(1)"))
    assert told.splitlines() == [*["the import raised ValueError: 1"] * 2, "False", "0"]


def test_a_process_with_threads_does_not_fork(feature_folder):
    program = (
        "import asyncio, threading, warnings\nwarnings.simplefilter('error')\n"
        "from petsage.checking import CheckProcess\n"
        "go = threading.Event()\nthreading.Thread(target=go.wait).start()\n"
        "process = CheckProcess.begin()\n"
        "while not (cmd := open(f'/proc/{process.pid}/cmdline').read()): pass\n"
        "asyncio.run(process.stop())\ngo.set()\nprint('json.loads' in cmd)\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=20
    )
    assert told.stdout == "True\n"


def run(script, *arguments, options=(), folder=None):
    """What a program prints, run from its own file."""
    told = subprocess.run(
        [sys.executable, *options, str(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        env=clean_environment(),
        cwd=folder,
        check=False,
        timeout=20,
    )
    assert told.returncode == 0, told.stderr
    return told.stdout


ONCE = """
import asyncio, resource, sys
from pathlib import Path
from petsage.checking import CheckProcess
from petsage.snapshot import take_snapshot

if sys.argv[2] == "nowhere to write":
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
process = CheckProcess.launch()
folder = Path(sys.argv[1])

async def main():
    result = await process.check(
        [(take_snapshot(folder.name, folder), folder)], [folder.name],
        settings={}, disabled=(), timeout_s=20,
    )
    print("found", *[each.problem for each in result[folder.name].findings])
    await process.stop()

asyncio.run(main())
"""


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="needs a file without a folder")
def test_features_are_checked_where_no_folder_can_be_written_to(feature_folder, tmp_path):
    script = tmp_path / "once.py"
    script.write_text(ONCE, encoding="utf-8")
    assert run(script, feature_folder("pets", GOOD), "nowhere to write") == "found\n"


def test_a_child_that_is_launched_is_the_same_interpreter_and_runs_nothing_that_lies_about(
    feature_folder, tmp_path
):
    script = tmp_path / "scripts" / "once.py"
    script.parent.mkdir()
    script.write_text(ONCE, encoding="utf-8")
    (tmp_path / "json.py").write_text("open('was_run', 'w')\n", encoding="utf-8")
    source = (
        "import sys\nraise ValueError(sys.flags.optimize, sys._xoptions.get('utf8'), "
        "sys.warnoptions)\n"
    )
    options = ["-OO", "-X", "utf8=1", "-W", "ignore::FutureWarning"]

    told = run(script, feature_folder("pets", source), "", options=options, folder=tmp_path)

    assert "ValueError: (2, '1', ['ignore::FutureWarning'])" in told
    assert not (tmp_path / "was_run").exists()


CLOSES = """
import os, sys
from petsage import check_process

kept = os.dup2(os.open(os.devnull, os.O_RDONLY), 60)
for number in (40, 300):
    os.dup2(kept, number)
os.sysconf = lambda name: int(sys.argv[1])
check_process._DESCRIPTORS = sys.argv[2:]
print(check_process._highest_descriptor(kept), end=" ")
check_process._close_all_but(kept)
print(*[number for number in (40, 60, 300) if os.path.exists(f"/proc/self/fd/{number}")])
"""


@pytest.mark.parametrize(
    ("limit", "folders", "highest"),
    [
        (-1, ["/missing", "/dev/fd"], 300),
        (2**63 - 1, ["/missing"], 1 << 16),
        (-1, [], 1 << 16),
        (512, ["few"], 512),
    ],
)
def test_descriptors_are_closed_wherever_the_system_lists_them_or_does_not(
    tmp_path, limit, folders, highest
):
    script = tmp_path / "closes.py"
    script.write_text(CLOSES, encoding="utf-8")
    for number in range(3):  # as FreeBSD lists them
        (tmp_path / "few" / str(number)).mkdir(parents=True)
    assert run(script, limit, *folders, folder=tmp_path) == f"{highest} 60\n"


def test_what_keeps_data_is_imported_once_and_not_for_each_check(feature_folder, tmp_path):
    source = (
        "import sys\nwas = 'sqlalchemy' in sys.modules\nimport petsage.storage\n"
        "raise ValueError(was)\n"
    )
    command = tmp_path / "petsage"
    command.write_text(COMMAND, encoding="utf-8")

    told = subprocess.run(
        [sys.executable, str(command), str(feature_folder("pets", source))],
        capture_output=True,
        text=True,
        env=clean_environment(),
        check=False,
        timeout=20,
    )

    assert told.stdout.splitlines()[:2] == [
        "the import raised ValueError: False",
        "the import raised ValueError: True",
    ], told.stderr
