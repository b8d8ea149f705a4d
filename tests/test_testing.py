"""The pytest plugin: what a feature's author writes tests with."""

import asyncio
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.conftest import clean_environment

ECHO = """
import logging
from typing import Annotated
from petsage import AppKey, Feature, FromApp, Routes, SETTINGS
from pydantic import BaseModel

class Mine(BaseModel):
    word: str = "plain"

class Store:
    def load(self) -> str:
        return "real"

STORE = AppKey("STORE", Store)
routes = Routes()
log = logging.getLogger(__name__)

async def lifespan(app):
    app[STORE] = Store()
    yield

@routes.get("/echo")
async def echo(
    store: Annotated[Store, FromApp(STORE)], settings: Annotated[Mine, FromApp(SETTINGS)]
) -> list[str]:
    log.info("echoed")
    return [store.load(), settings.word]

feature = Feature(routes, settings=Mine, lifespan=lifespan)
"""


class FakeStore:
    def load(self):
        return "fake"


@pytest.fixture
def echo(feature_folder):
    return feature_folder("echo", ECHO)


async def test_a_feature_is_served_by_its_folder_with_settings(feature_client, echo):
    client = await feature_client(echo, settings={"word": "given"})

    assert await (await client.get("/api/v1/echo")).json() == ["real", "given"]


async def test_a_path_may_be_a_string_and_relative(feature_client, echo, monkeypatch):
    monkeypatch.chdir(echo.parent.parent)

    for path in ("features/echo", "./features/echo/", str(echo)):
        client = await feature_client(path)
        assert (await client.get("/api/v1/echo")).status == 200


async def test_a_feature_of_the_project_is_served_by_its_name(feature_client):
    client = await feature_client("smoke_test")

    assert (await client.get("/api/v1/smoke_test")).status == 200


async def test_a_fake_stands_in_for_a_value_even_under_a_key_of_another_import(
    feature_client, echo
):
    # As in a test file, whose own import of the feature is not the one that is served.
    namespace = {"__name__": "features.echo"}
    exec(compile(ECHO, "echo", "exec"), namespace)

    client = await feature_client(echo, values={namespace["STORE"]: FakeStore()})

    assert await (await client.get("/api/v1/echo")).json() == ["fake", "plain"]


async def test_two_clients_of_one_feature_serve_side_by_side(feature_client, echo):
    first = await feature_client(echo, settings={"word": "one"})
    second = await feature_client(echo, settings={"word": "two"})

    assert (await (await first.get("/api/v1/echo")).json())[1] == "one"
    assert (await (await second.get("/api/v1/echo")).json())[1] == "two"


async def test_a_feature_that_does_not_serve_fails_the_test_and_says_why(
    feature_client, feature_folder
):
    feature_folder("other", "1 / 0")
    feature_folder("unasked", "1 / 0")
    source = "from petsage import Feature, Routes\nfeature = Feature(Routes(), needs=('other',))"
    bad = feature_folder("bad", source)

    with pytest.raises(pytest.fail.Exception) as failed:
        await feature_client(bad)

    first, *findings = str(failed.value).splitlines()
    assert first == "the feature bad does not serve:"
    assert [finding.split(": ")[:2] for finding in findings] == [
        [f"  {bad.parent}/other/__init__.py:1", "import-failed"],
        [f"  {bad}/__init__.py:2", "need-failed"],
    ]


async def test_a_feature_that_is_not_there_fails_the_test_and_says_so(feature_client, echo):
    with pytest.raises(pytest.fail.Exception, match="there is no feature ecco"):
        await feature_client(echo.parent / "ecco")


async def test_log_lines_are_of_the_real_pipeline_and_caplog_has_the_records(
    feature_client, echo, log_lines, caplog
):
    client = await feature_client(echo)
    await client.get("/api/v1/echo", headers={"X-Request-ID": "r-1"})

    (line,) = [line for line in log_lines() if line["message"] == "echoed"]
    assert (line["logger"], line["feature"], line["request_id"]) == ("features.echo", "echo", "r-1")
    assert "echoed" in caplog.messages


def test_a_feature_is_written_from_one_string_or_from_several_files(feature_folder, tmp_path):
    one = feature_folder("one", "\n    x = 1\n")
    two = feature_folder("two", {"__init__.py": "", "deep/words.py": "    y = 2\n"})

    assert one == tmp_path / "features" / "one"
    assert (one / "__init__.py").read_text() == "\nx = 1\n"
    assert (two / "deep" / "words.py").read_text() == "y = 2\n"


async def test_the_client_speaks_to_the_real_connection(petsage_client):
    reader, writer = await asyncio.open_connection(petsage_client.host, petsage_client.port)
    writer.write(b"GET / HTTP/9\r\nno colon\r\n\r\n")
    answer = await reader.read()
    writer.close()

    assert b"400 Bad Request" in answer
    assert b"application/problem+json" in answer


class TestWithSettingsOfItsOwn:
    @pytest.fixture
    def petsage_settings(self, petsage_settings, echo):
        catalog = petsage_settings.catalog.model_copy(update={"folders": [echo.parent]})
        return petsage_settings.model_copy(
            update={"catalog": catalog, "features": {"echo": {"word": "overridden"}}}
        )

    async def test_the_whole_application_has_them(self, petsage_client):
        assert await (await petsage_client.get("/api/v1/echo")).json() == ["real", "overridden"]
        assert (await petsage_client.get("/api/v1/smoke_test")).status == 404

    async def test_one_feature_has_them(self, feature_client):
        client = await feature_client("echo")
        assert await (await client.get("/api/v1/echo")).json() == ["real", "overridden"]

    async def test_a_disabled_feature_is_called_so(self, petsage_settings, feature_client):
        petsage_settings.catalog.disabled.append("echo")
        with pytest.raises(pytest.fail.Exception, match="echo is disabled by the settings"):
            await feature_client("echo")
        petsage_settings.catalog.disabled.remove("echo")


# Elsewhere


OUTSIDE = {
    "features/echo/__init__.py": ECHO,
    "config/default.toml": '[features.echo]\nword = "from the file"\n',
    "features/echo/tests/test_echo.py": """
        from features.echo import STORE

        class Fake:
            def load(self):
                return "fake"

        async def test_real(feature_client, log_lines, caplog):
            client = await feature_client("echo")
            assert await (await client.get("/api/v1/echo")).json() == ["real", "from the file"]
            assert [x for x in log_lines() if x["message"] == "echoed"]
            assert "echoed" in caplog.messages

        async def test_fake(feature_client):
            client = await feature_client("echo", values={STORE: Fake()}, settings={"word": "w"})
            assert await (await client.get("/api/v1/echo")).json() == ["fake", "w"]
        """,
    "tests/test_all.py": """
        async def test_all(petsage_client):
            assert (await petsage_client.get("/api/v1/echo")).status == 200
            problem = await petsage_client.get("/nothing")
            assert problem.content_type == "application/problem+json"

        async def test_written(feature_client, feature_folder):
            folder = feature_folder("bad", "1 / 0")
            await feature_client(folder)
        """,
}
PYTEST_INI = """
[pytest]
addopts = --import-mode=importlib -p no:cacheprovider
consider_namespace_packages = true
pythonpath = .
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings = error
"""


def run_pytest(folder: Path, files, *arguments):
    for within, text in files.items():
        file = folder / within
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text), encoding="utf-8")
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_plugin_works_in_a_project_without_a_conftest(tmp_path):
    run = run_pytest(tmp_path, {**OUTSIDE, "pytest.ini": PYTEST_INI}, "-m", "pytest", "-q")

    assert "1 failed, 3 passed" in run.stdout, run.stdout + run.stderr
    assert "the feature bad does not serve:" in run.stdout
    assert "__init__.py:1: import-failed: the import raised ZeroDivisionError" in run.stdout


def test_without_pytest_asyncio_pytest_itself_still_runs(tmp_path):
    code = """if True:
        import sys, pytest
        class Refuse:
            def find_spec(self, name, path=None, target=None):
                if name == "pytest_asyncio":
                    raise ModuleNotFoundError(name)
        sys.meta_path.insert(0, Refuse())
        pytest.main(["-q"])"""
    files = {"test_plain.py": "def test_plain(feature_folder):\n    assert feature_folder"}

    run = run_pytest(
        tmp_path,
        {**files, "pytest.ini": "[pytest]\naddopts = -p no:asyncio -p no:aiohttp\n"},
        "-c",
        code,
    )

    assert "1 passed" in run.stdout, run.stdout + run.stderr
