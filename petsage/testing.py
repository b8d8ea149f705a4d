"""A pytest plugin: fixtures for features and for the core, on the real application.

pytest finds it by itself where PetSage is installed; it needs pytest-asyncio beside it. Nothing
here is a stand-in: the log goes through the real pipeline into a real file, requests through real
sockets.

Longer than 300 lines: each fixture stands in one file with the type of what it gives.
"""

import asyncio
import os
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import orjson
import pytest
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, TestServer

from petsage.app import create_app
from petsage.broken_sinks import BrokenSink, Kind, break_sink
from petsage.catalog import CATALOG
from petsage.connection import Runner
from petsage.errors import StartError, did_you_mean
from petsage.feature import FEATURE_NAME
from petsage.fresh_database import fresh_database
from petsage.health import PROCESS_STATE
from petsage.logs.pipeline import Pipeline
from petsage.logs.receipts import Receipt
from petsage.proof_reading import read_proof
from petsage.settings import SQLITE, TEST_DATABASE, Settings, SinkSettings, load_settings
from petsage.shared_database import SHARED_DATABASE, SharedDatabase
from petsage.sockets import is_loopback

if TYPE_CHECKING:
    from petsage.storage import Database, Migration

try:
    from pytest_asyncio import fixture as async_fixture
except ImportError:  # pytest loads this plugin wherever PetSage is, and must not fail there
    async_fixture = pytest.fixture  # type: ignore[assignment] # as a decorator it does the same

pytest_plugins = ("petsage.leftovers",)

Client = TestClient[web.Request, web.Application]


class FeatureClient(Protocol):
    """What the fixture `feature_client` is."""

    async def __call__(
        self,
        feature: str | Path,
        *,
        settings: Mapping[str, Any] | None = None,
        values: Mapping[web.AppKey[Any], Any] | None = None,
    ) -> Client:
        """A client of an application that serves one feature and what it needs.

        Args:
            feature: its name, in the project's `features/`, or its folder.
            settings: its own settings, instead of `[features.<name>]`.
            values: what its `FromApp` arguments get, instead of what the applications have; a
                fake need not be of the annotated type.

        A feature that does not serve fails the test, and says why.
        """


class SinkBreaker(Protocol):
    """What the fixture `broken_sink` is."""

    def __call__(self, kind: Kind, sink: str | None = None) -> BrokenSink:
        """Breaks a sink of the test's log for real, until `.mend()` or the test's end.

        Args:
            kind: `break_sink` says what each is.
            sink: its name; the first required file of the settings where left out.

        One way at a time: a second call mends the sink first.
        """


class ProofReader(Protocol):
    """What the fixture `proof_of` is."""

    async def __call__(self, response: ClientResponse) -> Receipt:
        """The proof in an answer like the smoke test's; fails the test where it is not true."""


class FeatureDatabase(Protocol):
    """What the fixture `feature_database` is."""

    async def __call__(self, feature: str, migrations: "Sequence[Migration]") -> "Database":
        """The test's database with a feature's tables, for tests of a store without requests.

        Args:
            feature: the feature's name.
            migrations: its migrations, which are performed.
        """


class FeatureFolder(Protocol):
    """What the fixture `feature_folder` is."""

    def __call__(self, name: str, files: str | Mapping[str, str]) -> Path:
        """Writes a feature and says where: `<tmp_path>/features/<name>`.

        Args:
            name: the folder's name.
            files: what `__init__.py` holds, or each file by its path; indentation is taken off.
        """


@pytest.fixture
def petsage_database(tmp_path: Path) -> Iterator[str]:
    """The URL of the test's own database: a file, or on the server that the environment names.

    `PETSAGE_TEST_DATABASE=postgresql://…` names one; the database there is dropped at the end.
    """
    server = os.environ.get(TEST_DATABASE, "")
    if not server:
        yield f"{SQLITE}{tmp_path / 'petsage.db'}"
        return
    with ExitStack() as stack:
        try:
            url = stack.enter_context(fresh_database(server))
        except StartError as error:
            pytest.fail(f"{TEST_DATABASE}: {error}", pytrace=False)
        yield url


@pytest.fixture
def petsage_settings(
    request: pytest.FixtureRequest, tmp_path: Path, petsage_database: str
) -> Settings:
    """The settings of a test: those of the project's `config/default.toml`, the log in a file.

    The database is the test's own, too. Neither the environment nor `PETSAGE_ENV` counts for the
    rest. Write a fixture of this name to change them.
    """
    root = request.config.rootpath
    project = load_settings(folder=root / "config", environ={})
    sink = SinkSettings(kind="file", path=tmp_path / "petsage.jsonl", required=True)
    return project.model_copy(
        update={
            "catalog": project.catalog.model_copy(
                update={"folders": [root / folder for folder in project.catalog.folders]}
            ),
            "logs": project.logs.model_copy(
                update={"level": "DEBUG", "flush_ms": 0, "sinks": {"stdout": sink}}
            ),
            "database": project.database.model_copy(update={"url": petsage_database}),
        }
    )


@pytest.fixture
def log_pipeline(petsage_settings: Settings) -> Iterator[Pipeline]:
    """The real log pipeline, installed for the test."""
    pipeline = Pipeline(petsage_settings.logs, version=version("petsage"))
    pipeline.install()
    yield pipeline
    pipeline.uninstall()


@pytest.fixture
def log_lines(
    log_pipeline: Pipeline, petsage_settings: Settings
) -> Callable[[], list[dict[str, Any]]]:
    """Call it for every line logged so far, each parsed; it waits until they are written."""

    def read() -> list[dict[str, Any]]:
        log_pipeline.flush()
        paths = {sink.path for sink in petsage_settings.logs.sinks.values() if sink.path}
        return [
            orjson.loads(line)
            for path in sorted(paths)
            if path.exists()
            for line in path.read_bytes().splitlines()
        ]

    return read


@pytest.fixture
def broken_sink(log_pipeline: Pipeline, petsage_settings: Settings) -> Iterator[SinkBreaker]:
    """Call it to break the test's log in one of the ways that logs break in."""
    broken: list[BrokenSink] = []

    def break_it(kind: Kind, sink: str | None = None) -> BrokenSink:
        while broken:
            broken.pop().mend()
        broken.append(break_sink(kind, _path_of(petsage_settings, sink), log_pipeline))
        return broken[-1]

    yield break_it
    while broken:
        broken.pop().mend()


@pytest.fixture
def proof_of(petsage_settings: Settings) -> ProofReader:
    """Await it with an answer for its proof, which it holds against the log."""

    async def read(response: ClientResponse) -> Receipt:
        return await read_proof(response, petsage_settings.logs.sinks)

    return read


@async_fixture
async def petsage_client(
    log_pipeline: Pipeline,
    petsage_settings: Settings,
) -> AsyncIterator[Client]:
    """An aiohttp test client on the real application, with the project's features."""
    async with _client(create_app(petsage_settings), petsage_settings) as client:
        yield client


@async_fixture
async def feature_client(
    log_pipeline: Pipeline,
    petsage_settings: Settings,
) -> AsyncIterator[FeatureClient]:
    """Call it for a client of an application that serves one feature and what it needs."""
    clients: list[Client] = []

    async def start(
        feature: str | Path,
        *,
        settings: Mapping[str, Any] | None = None,
        values: Mapping[web.AppKey[Any], Any] | None = None,
    ) -> Client:
        path = Path(feature) if isinstance(feature, Path) or "/" in feature else None
        name = path.name if path is not None else str(feature)
        ours = petsage_settings
        if path is not None:
            catalog = ours.catalog.model_copy(update={"folders": [path.parent]})
            ours = ours.model_copy(update={"catalog": catalog})
        if settings is not None:
            ours = ours.model_copy(update={"features": {**ours.features, name: dict(settings)}})
        app = create_app(ours, values=values, only=name)
        client = _client(app, ours)
        await client.start_server()
        clients.append(client)
        _require_serving(app, name)
        return client

    yield start
    while clients:
        await clients.pop().close()


@async_fixture
async def feature_database(petsage_settings: Settings) -> AsyncIterator[FeatureDatabase]:
    """Await it with a feature's name and migrations for the test's database, its tables made."""
    shared = SharedDatabase(
        petsage_settings.database, start_s=petsage_settings.catalog.start_timeout_s
    )
    async with AsyncExitStack() as stack:

        async def start(feature: str, migrations: "Sequence[Migration]") -> "Database":
            from petsage.storage import DATABASE, keeps  # noqa: PLC0415 - part of an extra

            app = web.Application()
            app[SHARED_DATABASE] = shared
            app[FEATURE_NAME] = feature
            await stack.enter_async_context(asynccontextmanager(keeps(migrations))(app))
            return app[DATABASE]

        yield start


@pytest.fixture
def feature_folder(tmp_path: Path) -> FeatureFolder:
    """Call it to write a feature from strings, below the test's own folder."""

    def write(name: str, files: str | Mapping[str, str]) -> Path:
        folder = tmp_path / "features" / name
        for within, text in ({"__init__.py": files} if isinstance(files, str) else files).items():
            file = folder / within
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(textwrap.dedent(text), encoding="utf-8")
            # Features that others may write are refused, and the umask is not the test's to set.
            for path in (file, *file.parents):
                path.chmod(path.stat().st_mode & ~0o022)
                if path == tmp_path:
                    break
        return folder

    return write


def _path_of(settings: Settings, name: str | None) -> Path:
    """The file of a sink that is to be broken."""
    files = {each: sink.path for each, sink in settings.logs.sinks.items() if sink.path is not None}
    required = [each for each in files if settings.logs.sinks[each].required]
    wanted = name if name is not None else next(iter([*required, *files]), "")
    if wanted not in files:
        pytest.fail(f"no sink {wanted!r} writes to a file; {did_you_mean(wanted, list(files))}")
    return files[wanted]


class _Server(TestServer):
    """aiohttp's test server, on the connections that PetSage serves with."""

    def __init__(self, app: web.Application, settings: Settings) -> None:
        super().__init__(app)
        self._settings = settings

    async def start_server(
        self, loop: asyncio.AbstractEventLoop | None = None, **options: Any
    ) -> None:
        """Listens, and notes whether on this machine alone."""
        await super().start_server(loop, **options)
        assert self.runner is not None  # noqa: S101 - for mypy: it was made just now
        self.app[PROCESS_STATE].loopback_only = is_loopback(self.runner.addresses)

    async def _make_runner(self, **_: Any) -> Runner:
        return Runner(self.app, self._settings.server, handler_cancellation=True)


def _client(app: web.Application, settings: Settings) -> Client:
    return TestClient(_Server(app, settings))


def _require_serving(app: web.Application, name: str) -> None:
    entries = app[CATALOG].entries()
    states = [entry.state for entry in entries if entry.name == name]
    if "serving" in states:
        return
    if not states:
        names = [entry.name for entry in entries if not entry.system]
        pytest.fail(f"there is no feature {name}; {did_you_mean(name, names)}", pytrace=False)
    if "disabled" in states:
        pytest.fail(f"the feature {name} is disabled by the settings", pytrace=False)
    # Also those of what it needs, which failed before it.
    findings = [f"\n  {finding}" for entry in entries for finding in entry.findings]
    pytest.fail(f"the feature {name} does not serve:{''.join(findings)}", pytrace=False)
