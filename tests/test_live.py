"""Folders dropped into, changed in and taken from a running server, as people and tools do it."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.conftest import ServerProcess, lines_at

SAYS = '''"""Says something."""
from petsage import Feature, Routes
from .words import WORD
from .more.deep import DEEP

routes = Routes()

@routes.get("/{name}")
async def say() -> dict[str, str]:
    """Say it."""
    return {{"word": WORD, "deep": DEEP}}

feature = Feature(routes)
'''


def write(folder: Path, word: str, name: str = "") -> Path:
    """A feature of three files, in steps, as `cp -r` writes them."""
    (folder / "more").mkdir(parents=True, exist_ok=True)
    (folder / "__init__.py").write_text(SAYS.format(name=name or folder.name), encoding="utf-8")
    (folder / "words.py").write_text(f'WORD = "{word}"\n', encoding="utf-8")
    (folder / "more" / "deep.py").write_text(f'DEEP = "{word}"\n', encoding="utf-8")
    return folder


class Server:
    """A server whose log is read to its end all the time, so that any line can be waited for."""

    def __init__(self, process: ServerProcess, features: Path) -> None:
        self.features = features
        self.process = process
        self.address = process.address
        self.lines: list[dict[str, Any]] = list(process.lines)
        self._more = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(AssertionError):
            while True:
                line = self.process.wait_for(lambda _: True)
                with self._more:
                    self.lines.append(line)
                    self._more.notify_all()
        with self._more:
            self._ended = True
            self._more.notify_all()

    def wait_for(self, *words: str, since: int = 0, timeout_s: float = 30) -> dict[str, Any]:
        """The first line from the index `since` on that has all these words in its message."""

        def found() -> dict[str, Any] | None:
            lines = self.lines[since:]
            return next((x for x in lines if all(w in x["message"] for w in words)), None)

        with self._more:
            self._more.wait_for(lambda: found() is not None or self._ended, timeout_s)
            line = found()
        assert line is not None, [x["message"] for x in self.lines[since:]]
        return line

    @contextlib.contextmanager
    def expect(self, *words: str) -> Iterator[None]:
        """Waits, behind what is done within, for a line with these words."""
        since = len(self.lines)
        yield
        self.wait_for(*words, since=since)

    def get(self, path: str, **headers: str) -> tuple[int, Any]:
        return self.process.get(path, **headers)

    def kill(self) -> None:
        """Ends the process, and then the thread that reads what it says."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGKILL)
        self._reader.join()

    def word(self, name: str) -> Any:
        """What a feature says, both of it the same; the status where that is not 200."""
        status, body = self.get(f"/api/v1/{name}")
        if status != 200:
            return status
        assert body["word"] == body["deep"]
        return body["word"]

    def feature(self, name: str) -> dict[str, Any]:
        _, found = self.get("/features")
        return next((each for each in found if each["name"] == name), {})


StartLive = Callable[..., Server]


@pytest.fixture
def start_live(project, start_server) -> Iterator[StartLive]:
    """Starts a server whose features' folder is watched."""

    servers: list[Server] = []

    def start(*arguments: str, env: dict[str, str] | None = None) -> Server:
        settings = {"PETSAGE_CATALOG__SETTLE_MS": "60", "PETSAGE_LOGS__FLUSH_MS": "0"}
        process = start_server(*arguments, env={**settings, **(env or {})})
        servers.append(Server(process, project / "features"))
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


@pytest.fixture
def live(project, start_live):
    """A running server with the features `pets` and `owners`."""
    write(project / "features" / "pets", "one")
    write(project / "features" / "owners", "hello")
    return start_live()


# As people and tools write


def test_a_folder_that_is_copied_in_is_served(live, tmp_path):
    source = write(tmp_path / "source", "copied", name="cats")
    with live.expect("Feature cats was added"):
        subprocess.run(["cp", "-r", source, live.features / "cats"], check=True)
    assert live.word("cats") == "copied"
    assert "/api/v1/cats" in live.get("/openapi.json")[1]["paths"]
    assert live.word("pets") == "one"


def test_a_folder_that_is_moved_out_is_gone_and_moved_in_is_back(live, tmp_path):
    with live.expect("Feature pets was removed"):
        subprocess.run(["mv", live.features / "pets", tmp_path / "away"], check=True)
    assert live.word("pets") == 404
    assert "/api/v1/pets" not in live.get("/openapi.json")[1]["paths"]
    assert live.feature("pets") == {}
    with live.expect("Feature pets was added"):
        subprocess.run(["mv", tmp_path / "away", live.features / "pets"], check=True)
    assert live.word("pets") == "one"


def test_a_file_that_is_saved_as_editors_do_is_served(live):
    file = live.features / "pets" / "words.py"
    with live.expect("Feature pets was changed"):  # a new file takes the name of the old one
        new = file.with_name(".words.py.swp")
        new.write_text('WORD = "two"\n', encoding="utf-8")
        new.replace(file)
        (live.features / "pets" / "more" / "deep.py").write_text('DEEP = "two"\n')
    assert live.word("pets") == "two"
    with live.expect("Feature pets was changed"):  # the old one is moved away first
        file.rename(file.with_name("words.py~"))
        file.write_text('WORD = "six"\n', encoding="utf-8")
        (live.features / "pets" / "more" / "deep.py").write_text('DEEP = "six"\n')
        file.with_name("words.py~").unlink()
    assert live.word("pets") == "six"


def test_edits_of_the_same_size_are_each_served(live):
    folder = live.features / "pets"
    for number in range(10, 20):
        with live.expect("Feature pets was changed"):
            write(folder, f"{number}")
        assert live.word("pets") == f"{number}"


def test_a_whole_folder_is_replaced_by_another(live, tmp_path):
    new = write(tmp_path / "new", "new", name="pets")
    with live.expect("Feature pets was changed"):
        (live.features / "pets").rename(tmp_path / "old")
        new.rename(live.features / "pets")
    assert live.word("pets") == "new"


def test_a_checkout_of_another_branch_is_served(live):
    def git(*arguments: str) -> None:
        config = (
            "-c",
            "user.name=a",
            "-c",
            "user.email=a@example.org",
            "-c",
            "init.defaultBranch=m",
        )
        subprocess.run(
            ["git", *config, *arguments], cwd=live.features, check=True, capture_output=True
        )

    git("init")
    git("add", ".")
    git("commit", "-m", "one")
    git("checkout", "-b", "other")
    with live.expect("Feature cats was added"):
        write(live.features / "pets", "two")
        write(live.features / "cats", "miaow")
    git("add", ".")
    git("commit", "-m", "two")
    with (
        live.expect("Feature cats was removed"),
        live.expect("Feature pets was changed: generation"),
    ):
        git("checkout", "m")
    assert (live.word("pets"), live.word("cats"), live.word("owners")) == ("one", 404, "hello")
    with live.expect("Feature cats was added"):
        git("checkout", "other")
    assert (live.word("pets"), live.word("cats")) == ("two", "miaow")


def test_what_changes_no_content_changes_nothing(live):
    since = len(live.lines)
    before = live.feature("pets")
    folder = live.features / "pets"
    (folder / "__init__.py").touch()
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "x.cpython-311.pyc").write_bytes(b"x")
    (folder / ".words.py.swp").write_bytes(b"x")
    with live.expect("Feature cats was added"):  # what was done before it was looked at by then
        write(live.features / "cats", "miaow")
    after = live.feature("pets")
    assert (after["generation"], after["since"]) == (before["generation"], before["since"])
    assert [x for x in live.lines[since:] if "Feature pets" in x["message"]] == []


def test_a_folder_that_is_written_slowly_is_never_served_in_part(project, start_live):
    live = start_live(env={"PETSAGE_CATALOG__SETTLE_MS": "400"})
    since = len(live.lines)
    folder = live.features / "slow"
    write(folder.with_name(".slow"), "whole", name="slow")
    whole = {
        file.relative_to(folder.with_name(".slow")): file.read_bytes()
        for file in folder.with_name(".slow").rglob("*.py")
    }
    for within in sorted(whole):
        (folder / within).parent.mkdir(parents=True, exist_ok=True)
        for end in range(0, len(whole[within]) + 1, 40):
            (folder / within).write_bytes(whole[within][:end])
            time.sleep(0.02)  # slowly: that is what is tried
        (folder / within).write_bytes(whole[within])
    live.wait_for("Feature slow was added", since=since)
    assert live.word("slow") == "whole"
    assert lines_at(live.lines[since:], "ERROR", "WARNING") == []


def test_the_folder_of_features_may_come_late_go_and_come_back(project, start_live):
    live = start_live()
    with live.expect("Feature pets was added"):
        write(live.features / "pets", "one")
    with live.expect("Feature pets was removed"):
        shutil.rmtree(live.features)
    assert live.word("pets") == 404
    with live.expect("Feature pets was added"):
        write(live.features / "pets", "two")
    assert live.word("pets") == "two"
    with live.expect("Feature pets was changed"):
        write(live.features / "pets", "three")
    assert live.word("pets") == "three"


def test_a_link_to_a_feature_follows_what_it_leads_to(live):
    with live.expect("Feature same was added"):
        write(live.features / "_shared", "shared", name="same")
        (live.features / "same").symlink_to("_shared")
    assert live.word("same") == "shared"
    with live.expect("Feature same was changed"):
        write(live.features / "_shared", "other", name="same")
    assert live.word("same") == "other"


def test_a_link_out_of_the_folders_is_refused(live, tmp_path):
    write(tmp_path / "outside", "outside", name="out")
    with live.expect("Feature out is set aside", "outside-link"):
        (live.features / "out").symlink_to(tmp_path / "outside")
    assert live.word("out") == 404


def test_what_everybody_may_write_is_refused_with_the_command_that_mends_it(live):
    folder = live.features / "pets"
    with live.expect("Feature pets goes on", "unsafe-permissions"):
        write(folder, "two")
        (folder / "words.py").chmod(0o666)
    assert live.word("pets") == "one"
    fix = live.feature("pets")["refused"]["findings"][0]["fix"]
    command = next(part for part in fix.split("`") if part.startswith("chmod"))
    with live.expect("Feature pets was changed"):
        subprocess.run(command, shell=True, check=True, cwd=live.features.parent)
        (folder / "words.py").touch()
    assert live.word("pets") == "two"


# Without a watch


def test_without_a_watch_nothing_changes_until_it_is_asked_for(project, start_live, petsage):
    write(project / "features" / "pets", "one")
    live = start_live(env={"PETSAGE_CATALOG__WATCH": "false"})
    write(live.features / "pets", "two")
    write(live.features / "cats", "miaow")
    assert (live.word("pets"), live.word("cats")) == ("one", 404)

    done = petsage("features", "reload", "--url", live.address)
    assert done.returncode == 0, done.stderr
    assert "pets: changed" in done.stdout
    assert "cats: added" in done.stdout
    assert (live.word("pets"), live.word("cats")) == ("two", "miaow")

    again = petsage("features", "reload", "--url", live.address)
    assert (again.returncode, again.stdout.strip()) == (0, "nothing has changed")


# What is broken

PLAIN = "from petsage import Feature, Routes\nroutes = Routes()\nfeature = Feature(routes)\n"
BREAKS = {
    "syntax-error": "def",
    "import-failed": "import sys\nsys.exit(3)",
    "missing-package": "import no_such_package_anywhere",
    "check-crashed": "import os\nos.abort()",
    "check-timeout": "while True:\n    pass",
    "import-side-effect": f"import os\nos.chdir('/')\n{PLAIN}",
    "handler-not-async": "from petsage import Feature, Routes\nroutes = Routes()\n"
    "@routes.get('/x')\ndef x() -> None:\n    pass\nfeature = Feature(routes)\n",
    "route-clash": "from petsage import Feature, Routes\nroutes = Routes()\n"
    "@routes.get('/owners')\nasync def x() -> None:\n    pass\nfeature = Feature(routes)\n",
    "lifespan-failed": "from petsage import Feature, Routes\nroutes = Routes()\n"
    "async def life(app):\n    1 / 0\n    yield\nfeature = Feature(routes, lifespan=life)\n",
}


class Poller:
    """Asks one path again and again, and notes what is not a 200 and how long it was without."""

    def __init__(self, address: str, path: str) -> None:
        self._url = f"{address}{path}"
        self._stopping = threading.Event()
        self.failed: list[str] = []
        self.count = 0
        self.longest_s = 0.0
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        last = time.monotonic()
        while not self._stopping.is_set():
            try:
                with urllib.request.urlopen(self._url, timeout=5) as answer:
                    answer.read()
            except (OSError, urllib.error.HTTPError) as error:
                self.failed.append(repr(error))
            now = time.monotonic()
            self.longest_s, last = max(self.longest_s, now - last), now
            self.count += 1
            self._stopping.wait(0.005)  # others want a core, too

    def __enter__(self) -> "Poller":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()


def test_whatever_is_broken_the_others_serve_on_and_mending_takes_it_up(project, start_live):
    write(project / "features" / "pets", "one")
    write(project / "features" / "owners", "hello")
    live = start_live(env={"PETSAGE_CATALOG__CHECK_TIMEOUT_S": "3"})
    with (
        Poller(live.address, "/api/v1/owners") as owners,
        Poller(live.address, "/api/v1/pets") as pets,
    ):
        for kind, source in BREAKS.items():
            with live.expect("Feature new is set aside", kind):
                (live.features / "new").mkdir()
                (live.features / "new" / "__init__.py").write_text(source, encoding="utf-8")
            with live.expect("Feature pets goes on", kind):
                (live.features / "pets" / "__init__.py").write_text(source, encoding="utf-8")
            refused = live.feature("pets")["refused"]
            assert [each["id"] for each in refused["findings"]] == [kind]
            assert refused["findings"][0]["fix"]
            with live.expect("Feature new was removed"):
                shutil.rmtree(live.features / "new")
            with live.expect("Feature pets was changed"):
                write(live.features / "pets", kind)
            assert live.word("pets") == kind
            assert live.feature("pets")["refused"] is None
    assert owners.failed == pets.failed == []
    # Who waited for the check that hangs would wait for 3 s; a busy machine takes some of it.
    assert max(owners.longest_s, pets.longest_s) < 2.5
    assert Path(f"/proc/{live.process.pid}/cwd").readlink() == project


# What goes while something else hangs


@pytest.mark.parametrize("where", ["import", "lifespan"])
def test_what_is_removed_is_gone_at_once_while_another_hangs(project, start_live, where):
    for name in ("pets", "owners", "shops"):
        write(project / "features" / name, "one")
    # Longer than the test takes: who waits for them fails.
    limits = {"PETSAGE_CATALOG__CHECK_TIMEOUT_S": "60", "PETSAGE_CATALOG__START_TIMEOUT_S": "60"}
    live = start_live(env=limits)
    gate = project / "hangs"
    os.mkfifo(gate)
    begins = f"open({str(gate)!r}, 'w').close()\n"
    hangs = {
        "import": f"{begins}while True:\n    pass\n",
        "lifespan": "import asyncio\nfrom petsage import Feature, Routes\n"
        f"async def life(app):\n    {begins}    await asyncio.sleep(60)\n    yield\n"
        "feature = Feature(Routes(), lifespan=life)\n",
    }
    (live.features / "new").mkdir()
    (live.features / "new" / "__init__.py").write_text(hangs[where], encoding="utf-8")
    gate.read_text()  # until it is there

    def gone_s(*names: str) -> float:
        began = time.monotonic()
        while any(live.word(name) != 404 for name in names):
            assert time.monotonic() - began < 30
            time.sleep(0.01)
        return time.monotonic() - began

    with live.expect("Feature pets was removed"):
        shutil.rmtree(live.features / "pets")
        times = [gone_s("pets")]
    assert live.word("owners") == "one"
    assert live.feature("pets") == {}
    with live.expect("Feature owners was removed"):
        (live.features / "owners").rename(project / "owners")
        times.append(gone_s("owners"))
    (project / "owners").rename(live.features / "owners")  # which waits, and is forgotten
    with live.expect("Feature shops was removed"):
        live.features.rename(project / "elsewhere")
        times.append(gone_s("shops"))
    # 60 ms to settle, 150 for the change before; the rest is for a machine that is busy. That one
    # of three is quick says that none has waited.
    assert min(times) < 1
    assert max(times) < 15
    assert live.feature("new")["state"] == "starting"


# What is in hand

SLOW = """
import asyncio
import logging
from pathlib import Path
from aiohttp import web
from petsage import Feature, Routes

routes = Routes()
log = logging.getLogger(__name__)

@routes.get("/slow")
async def slow() -> dict[str, str]:
    log.info("slow waits")
    while not Path("go").exists():
        await asyncio.sleep(0.01)
    return {"word": WORD}

@routes.get("/socket")
async def socket(request: web.Request) -> web.StreamResponse:
    answer = web.WebSocketResponse()
    await answer.prepare(request)
    async for message in answer:
        await answer.send_str(f"{WORD} {message.data}")
    return answer

async def lifespan(app):
    yield
    log.info("slow has stopped")

WORD = "one"
feature = Feature(routes, lifespan=lifespan)
"""


async def test_what_is_in_hand_ends_where_it_began(project, start_live):
    folder = project / "features" / "slow"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(SLOW, encoding="utf-8")
    live = start_live(env={"PETSAGE_SERVER__DRAIN_S": "20"})
    base = f"{live.address}/api/v1"
    async with aiohttp.ClientSession() as session:
        socket = await session.ws_connect(f"{base}/socket")
        await socket.send_str("hello")
        assert await socket.receive_str() == "one hello"
        waiting = asyncio.create_task(session.get(f"{base}/slow"))
        await asyncio.to_thread(live.wait_for, "slow waits")

        with live.expect("Feature slow was changed"):
            (folder / "__init__.py").write_text(SLOW.replace('"one"', '"two"'), encoding="utf-8")

        closed = await socket.receive()
        assert (closed.type, closed.data) == (aiohttp.WSMsgType.CLOSE, 1012)
        (draining,) = (await asyncio.to_thread(live.feature, "slow"))["draining"]
        assert draining["requests"] == 1
        assert not waiting.done()
        (project / "go").touch()
        answer = await waiting
        assert await answer.json() == {"word": "one"}
        await asyncio.to_thread(live.wait_for, "slow has stopped")


async def test_a_stop_closes_websockets_and_waits_for_none(project, start_live):
    folder = project / "features" / "slow"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(SLOW, encoding="utf-8")
    live = start_live(env={"PETSAGE_SERVER__SHUTDOWN_S": "300"})
    async with aiohttp.ClientSession() as session:
        socket = await session.ws_connect(f"{live.address}/api/v1/socket")
        live.process.signal(signal.SIGTERM)
        closed = await socket.receive()
        assert (closed.type, closed.data) == (aiohttp.WSMsgType.CLOSE, 1001)
    await asyncio.to_thread(live._reader.join, 15)
    assert live.process.end() == (0, "")


WAITS = """
import asyncio
import logging
from pathlib import Path
from petsage import Feature, Routes

async def lifespan(app):
    logging.getLogger(__name__).info("waits to start")
    while not Path("go").exists():
        await asyncio.sleep(0.01)
    yield

feature = Feature(Routes(), lifespan=lifespan)
"""


def test_a_server_that_is_told_to_stop_amid_a_change_stops(live):
    with live.expect("waits to start"):
        (live.features / "pets" / "__init__.py").write_text(WAITS, encoding="utf-8")
    assert live.word("pets") == "one"
    began = time.monotonic()
    live.process.signal(signal.SIGTERM)
    live._reader.join(timeout=15)
    assert live.process.end() == (0, "")
    assert time.monotonic() - began < 5
    assert not any("Feature pets was changed" in line["message"] for line in live.lines)


def test_a_killed_server_leaves_no_process_behind(live):
    children = subprocess.run(
        ["ps", "--ppid", str(live.process.pid), "-o", "pid="],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split()
    assert children  # the one that checks features
    os.kill(live.process.pid, signal.SIGKILL)
    live._reader.join(timeout=15)
    deadline = time.monotonic() + 5
    while any(Path(f"/proc/{pid}").exists() for pid in children) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [pid for pid in children if Path(f"/proc/{pid}").exists()] == []


def test_what_a_change_logs_is_json_with_the_feature_and_its_generation(live):
    with live.expect("Feature pets was changed"):
        write(live.features / "pets", "two")
    line = live.wait_for("Feature pets was changed")
    assert json.dumps(line)
    assert line["load_ms"] > 0
    assert line["content_hash"] == live.feature("pets")["content_hash"]
