"""What a start does before its first answer, and what it leaves for later."""

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import BaseModel, ConfigDict

from petsage import Feature, Routes
from petsage.accepting import ListeningSite
from petsage.essentials import Essentials
from petsage.feature import compile_feature
from petsage.metrics import ConnectionCounts
from petsage.serve_command import read_plain_words
from petsage.sockets import listen
from tests.conftest import clean_environment, write_feature

LOADED = """
    import sys
    from petsage import Feature, Routes

    routes = Routes()
    LOADED = sorted(sys.modules)

    @routes.get("/loaded")
    async def loaded() -> list[str]:
        '''What was imported before this feature.'''
        return LOADED

    feature = Feature(routes)
"""
# Of what stands in modules, all that the server has put there since it took it for what is to be.
SERVED = """
import os, signal
from petsage import server
from petsage.settings import load_settings

taken = []

class Taken(server.Essentials):
    def __init__(self):
        super().__init__()
        taken.append(self)

def announce(*_):
    [essentials] = taken
    others = [each for _ in range(32) for each in next(essentials._parts)]
    looked_at = [*essentials._always, *others]
    for each in looked_at:
        each.replaced()
        for name, before in zip(each._names, each._values, strict=True):
            if each.module.__dict__.get(name) is not before:
                os.write(2, f"{each.name}.{name} is another\\n".encode())
    os.write(2, f"{len(looked_at)} modules".encode())
    os.kill(os.getpid(), signal.SIGTERM)

server.Essentials = Taken
server.run_server(load_settings({"server": {"port": 0}}), announce=announce)
"""
# What its lifespan does would keep the server from starting, or the watch from beginning. Of what
# it assigns, the source tells; the last is over after a while.
BREAKS = """
    import asyncio, sys, types

    from petsage import Feature, Routes

    async def lifespan(app):
        {line}
        yield

    feature = Feature(Routes(), lifespan=lifespan)
"""
NO_LOOP = "asyncio.get_running_loop = None"
NO_SLEEP = 'vars(asyncio)["sleep"] = None'
NO_WATCH = """name = "petsage.watch"
        sys.modules[name] = types.ModuleType(name)
        asyncio.get_running_loop().call_later(0.7, sys.modules.pop, name)"""
FIRST = {"host": "::1", "port": 8001}
LATE_S = 0.2


class Odd(BaseModel):
    """A model that can be answered with, and has no JSON schema."""

    @classmethod
    def __get_pydantic_json_schema__(cls, *_: Any) -> Any:
        raise ValueError("it has none")


def _compiled(model: type[BaseModel], trust: Any) -> tuple[Any, list[str]]:
    routes = Routes()

    async def odd() -> Any:
        """Something odd."""

    odd.__annotations__["return"] = model
    routes.get("/odd")(odd)
    compiled, flaws = compile_feature(Feature(routes), "odd", trust=trust)
    return (compiled[0].endpoint if compiled else None), [flaw.id for _, flaw in flaws]


def test_a_server_imports_no_command_and_no_watch_before_its_features(project, start_server):
    write_feature(project, "hello", LOADED)
    loaded = set(start_server().get("/api/v1/loaded")[1])
    assert "petsage.server" in loaded
    unwanted = {"typer", "rich", "petsage.commands", "petsage.watch", "watchfiles"}
    assert not loaded & unwanted


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (NO_LOOP, "has changed asyncio.get_running_loop as it started, which was put back"),
        (NO_SLEEP, "has changed asyncio.sleep while PetSage serves, which was put back"),
        (NO_WATCH, "The folders of features are not watched yet"),
    ],
)
def test_folders_are_watched_whatever_a_feature_breaks_as_it_starts(
    project, start_server, line, told
):
    write_feature(project, "breaks", BREAKS.format(line=line))
    server = start_server()
    write_feature(project, "late", LOADED)
    wanted, seen = {"Feature late was added": "INFO", told: "ERROR"}, {}

    def has_both(each):
        seen.update({text: each["level"] for text in wanted if text in each["message"]})
        return seen == wanted

    if not any(map(has_both, [*server.lines])):  # what came as it started
        server.wait_for(has_both)
    assert server.get("/api/v1/loaded")[0] == 200


def test_what_the_server_itself_sets_is_not_taken_for_a_feature_s_doing(project):
    write_feature(project, "hello", LOADED)
    done = subprocess.run(
        [sys.executable, "-c", SERVED], cwd=project, env=clean_environment(),
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert re.fullmatch(r"\d{3,} modules", done.stderr), done.stderr


def test_what_is_picked_out_beforehand_is_found_broken_all_the_same(monkeypatch):
    essentials = Essentials()
    essentials.pick()
    assert all(each._before is None for each in essentials._kept)
    monkeypatch.setattr(asyncio, "sleep", None)
    assert [each.name for each in essentials.looks[0]()] == ["asyncio.sleep"]


@pytest.mark.parametrize(
    ("words", "server", "folders"),
    [
        ("serve", {}, None),
        ("serve --port 8001 --host ::1", FIRST, None),
        ("serve --host=::1 --port=8001", FIRST, None),
        ("serve --port 1 --port 2", {"port": 2}, None),
        ("serve --folder a --folder=b", {}, ["a", "b"]),
    ],
)
def test_plain_words_are_read_as_they_are_meant(words, server, folders):
    catalog = {"folders": [Path(each) for each in folders]} if folders else {}
    assert read_plain_words(words.split()) == {"server": server, "catalog": catalog}


@pytest.mark.parametrize(
    "words",
    [
        "",
        "check",
        "--help",
        "serve --help",
        "serve -h",
        "serve more",
        "serve --port",
        "serve --port=",
        "serve --port x",
        "serve --port -1",
        "serve --port ²",
        "serve --host --port 1",
        "serve --ports 1",
        "serve --folder",
    ],
)
def test_words_that_may_mean_anything_else_are_left_to_typer(words):
    assert read_plain_words(words.split()) is None


async def test_what_comes_amid_a_start_waits_until_it_is_taken():
    async def answer(_: web.BaseRequest) -> web.Response:
        return web.Response(text="now")

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    sockets = await listen("127.0.0.1", 0)
    port = sockets[0].getsockname()[1]
    counts = ConnectionCounts(10, 10)
    site = ListeningSite(runner, sockets, counts, patience_s=3600)
    await site.start()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(LATE_S):
                await reader.read(1)
        site.take()
        async with asyncio.timeout(30):
            assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        writer.close()
    finally:
        await runner.cleanup()


async def test_patience_comes_to_an_end():
    async def answer(_: web.BaseRequest) -> web.Response:
        return web.Response(text="now")

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    sockets = await listen("127.0.0.1", 0)
    port = sockets[0].getsockname()[1]
    await ListeningSite(runner, sockets, ConnectionCounts(10, 10), patience_s=0.01).start()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(30):
            assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        writer.close()
    finally:
        await runner.cleanup()


def test_a_schema_is_looked_for_unless_a_check_has_seen_it():
    assert _compiled(Odd, "none") == (None, ["bad-answer"])
    endpoint, flaws = _compiled(Odd, "checked")
    assert endpoint is not None
    assert flaws == []


def test_an_answer_of_the_core_is_made_ready_when_it_is_first_given():
    class Late(BaseModel):
        model_config = ConfigDict(defer_build=True)
        name: str = "Ada"

    endpoint, flaws = _compiled(Late, "own")
    assert flaws == []
    assert not endpoint.answer.adapter.pydantic_complete
    assert json.loads(endpoint.answer.to_json({"name": "Bo"})) == {"name": "Bo"}
    assert endpoint.answer.adapter.pydantic_complete
