"""Fixtures that only the core's own tests need: PetSage as a process of its own."""

import compileall
import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import urllib.request
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from petsage.fresh_database import fresh_database
from tests.postgres import Cluster, PostgresError, shared_cluster
from tests.warm import WarmCommand

ROOT = Path(__file__).parent.parent
START_S = 60
LONG_S = 120
_file_of_tests = [""]

# Tests that do not say how many values they try: so many are enough each time, for they are others
# each time.
settings.register_profile("petsage", max_examples=50)
settings.load_profile("petsage")

# A shell has what runs in the background ignore it, and each process that a test starts would, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class ServerProcess:
    """`petsage serve` on a free port, in a folder of its own; it has said `begin` an address."""

    def __init__(
        self,
        folder: Path,
        arguments: tuple[str, ...],
        env: Mapping[str, str],
        *,
        begin: str = "PetSage serves on ",
    ) -> None:
        self.lines: list[dict[str, Any]] = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "petsage", "serve", "--port", "0", *arguments],
            cwd=folder,
            # Not where servers of this user's own leave their tokens.
            env={**clean_environment(), "XDG_RUNTIME_DIR": str(folder.parent), **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        started = self.wait_for(lambda line: line["message"].startswith(begin))
        self.address = started["message"].removeprefix(begin).partition(",")[0]

    @property
    def pid(self) -> int:
        return self._process.pid

    def get(self, path: str, **headers: str) -> tuple[int, Any]:
        """Status and JSON body."""
        request = urllib.request.Request(f"{self.address}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=START_S) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def wait_for(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Reads the log until a line that is wanted comes."""
        # One that says nothing of it fails its test, and does not keep it for ever.
        limit = threading.Timer(LONG_S, self._process.kill)
        limit.start()
        try:
            for line in self.log():
                if wanted(line):
                    return line
        finally:
            limit.cancel()
            limit.join()  # or a look around after the test finds it, and waits for its end
        raise AssertionError(f"the process ended: {self._process.communicate()[1].decode()}")

    def log(self) -> Iterator[dict[str, Any]]:
        """Each further line of the log, as it comes, until the process ends."""
        assert self._process.stdout is not None
        for raw in self._process.stdout:
            line: dict[str, Any] = json.loads(raw)
            self.lines.append(line)
            yield line

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self, timeout_s: float = START_S) -> tuple[int, str]:
        """Waits for the end: exit code and stderr; what was logged until then is in `lines`."""
        out, err = self._process.communicate(timeout=timeout_s)
        self.lines += [json.loads(raw) for raw in out.splitlines()]
        return self._process.returncode, err.decode()

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


@contextlib.contextmanager
def reading(server: ServerProcess) -> Iterator[None]:
    """Reads what a server logs, however long the block takes; ends the server after it."""

    def read() -> None:
        for _ in server.log():  # it is kept in `lines`
            pass
        server.end()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(read)
        try:
            yield
        finally:
            server.signal(signal.SIGKILL)


StartServer = Callable[..., ServerProcess]


@dataclass(frozen=True)
class StoppablePostgres:
    """A database, and the cluster whose `stop`, `crash` and `start` decide whether it is there."""

    url: str
    cluster: Cluster


def lines_at(lines: Iterable[dict[str, Any]], *levels: str) -> list[dict[str, Any]]:
    """The lines of these levels, those of the watchdog left out.

    On a machine that has much to do, a loop may get no turn for so long that it is a stall.
    """
    return [
        line for line in lines if line["level"] in levels and line["logger"] != "petsage.watchdog"
    ]


def errors_of(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines that are errors, those of the watchdog left out."""
    return lines_at(lines, "ERROR", "CRITICAL")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Two test processes more than cores: so many tests wait that these keep the cores busy."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return cores + 2


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Spares the collector what is imported meanwhile: nearly all of it stays."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish() -> None:
    """Lets the collector pass over what stays: many tests have it look through everything."""
    gc.collect()
    gc.freeze()


def pytest_runtest_logfinish(nodeid: str, location: tuple[str, int | None, str]) -> None:
    """Lets it pass over what the tests of a file leave, too: what they have imported, above all."""
    if location[0] != _file_of_tests[-1]:
        _file_of_tests[:] = [location[0]]
        gc.collect()
        gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def written_for_this_user() -> Iterator[None]:
    """Has tests write features that no one else may write, whatever the umask they run under."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture(scope="session", autouse=True)
def bytecode_apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Has the processes that tests start compile the core once, and not each of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        if sys.pycache_prefix is None:  # `make test` has a place that lasts
            patch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path_factory.mktemp("bytecode")))
        yield


@pytest.fixture(scope="module")
def bytecode_of_tools(bytecode_apart: None) -> Iterator[None]:
    """Has tools that a build runs find the bytecode of what is installed, for they write none.

    The core's is made here, as an installation makes it: it is most of what a tool would compile.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "pycache_prefix", None)
        compileall.compile_dir(ROOT / "petsage", quiet=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTHONPYCACHEPREFIX")
        yield


@pytest.fixture(scope="session", autouse=True)
def tokens_apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps what servers tell their tokens in out of this user's own folders."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
        yield


@pytest.fixture(scope="session")
def postgres_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The URL of a PostgreSQL server that all tests share; `postgres_url` is a database there."""
    own = tmp_path_factory.getbasetemp()
    with contextlib.ExitStack() as stack:
        try:  # one for all processes of xdist, whose folders lie in one
            folder = own.parent if hasattr(request.config, "workerinput") else own
            url = stack.enter_context(shared_cluster(folder))
        except PostgresError as error:
            pytest.fail(str(error), pytrace=False)
        yield url


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """The URL of an empty PostgreSQL database of the test's own."""
    with fresh_database(postgres_server) as url:
        yield url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of a SQLite database of the test's own, which is not there yet."""
    return f"sqlite:///{tmp_path / 'petsage.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database of the test's own, on each database that PetSage keeps to."""
    fixtures = {"sqlite": "sqlite_url", "postgresql": "postgres_url"}
    url: str = request.getfixturevalue(fixtures[request.param])
    return url


@pytest.fixture(scope="session")
def own_cluster() -> Iterator[Cluster]:
    """A PostgreSQL server of this process's own, for `stoppable_postgres`."""
    try:
        cluster = Cluster()
    except PostgresError as error:
        pytest.fail(str(error), pytrace=False)
    yield cluster
    cluster.end()


@pytest.fixture
def stoppable_postgres(own_cluster: Cluster) -> Iterator[StoppablePostgres]:
    """A PostgreSQL database of the test's own whose server can be stopped and started again."""
    own_cluster.start()
    with fresh_database(own_cluster.url) as url:
        yield StoppablePostgres(url, own_cluster)
        own_cluster.start()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """An empty folder, as a stranger would begin in."""
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


@pytest.fixture
def start_server(project: Path) -> Iterator[StartServer]:
    """Starts servers in `project`; they are ended with the test."""
    servers: list[ServerProcess] = []

    def start(
        *arguments: str, env: Mapping[str, str] | None = None, **options: str
    ) -> ServerProcess:
        servers.append(ServerProcess(project, arguments, env or {}, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


@pytest.fixture(scope="session")
def warm_command(bytecode_apart: None) -> Iterator[WarmCommand]:
    """A process that has `petsage` imported, for all tests."""
    imports = ("petsage.commands", "petsage.survey", "petsage.log_search", "rich.table")
    command = WarmCommand("petsage", *imports)
    yield command
    command.end()


@pytest.fixture(scope="session")
def warm_pytest(bytecode_apart: None) -> Iterator[WarmCommand]:
    """A process that has pytest imported, and what the plugin rests on, for all tests."""
    command = WarmCommand("pytest", "pytest", "aiohttp.test_utils", "pydantic")
    yield command
    command.end()


@pytest.fixture
def petsage(
    project: Path, warm_command: WarmCommand
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a command of `petsage` in `project` to its end, in a process of its own.

    It is started anew where the environment has what counts at a start: `PYTHON...`.
    """

    def run(
        *arguments: str, env: Mapping[str, str] | None = None, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        whole = {**clean_environment(), "XDG_RUNTIME_DIR": str(project.parent), **(env or {})}
        if not any(name.startswith("PYTHON") for name in env or ()):
            return warm_command.run(
                arguments, cwd=project, env=whole, stdin=stdin, timeout_s=START_S
            )
        return subprocess.run(
            [sys.executable, "-m", "petsage", *arguments],
            cwd=project,
            env=whole,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=START_S,
            check=False,
        )

    return run


def clean_environment() -> dict[str, str]:
    """This process's environment, without settings of PetSage; a stop does not drain."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PETSAGE_")}
    # What pytest's processes need of it is said in their files; none needs schemathesis' plugin.
    return {**kept, "PETSAGE_SERVER__DRAIN_S": "0", "PYTEST_ADDOPTS": "-p no:schemathesis"}


def write_feature(project: Path, name: str, source: str, **files: str) -> Path:
    """Writes a feature into `project`'s `features/`; `files` are modules beside `__init__.py`."""
    folder = project / "features" / name
    folder.mkdir(parents=True)
    for module, text in {"__init__": source, **files}.items():
        (folder / f"{module}.py").write_text(textwrap.dedent(text), encoding="utf-8")
    return folder


HELLO = '''
    """Says hello."""
    from petsage import Feature, Routes

    routes = Routes()

    @routes.get("/hello/{name}")
    async def hello(name: str) -> dict[str, str]:
        """Greet somebody."""
        return {"hello": name}

    feature = Feature(routes)
'''
