"""What is known of aiohttp's inside is asserted at the start, and is all that is used."""

import ast
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import aiohttp
import pytest
from aiohttp import http_parser, web, web_protocol

from petsage import aiohttp_inside
from petsage.aiohttp_inside import require_known_aiohttp
from petsage.errors import StartError

ROOT = Path(__file__).parent.parent
CONNECTIONS = ("holding", "parsing", "direct", "timed", "connection")
LISTED = {
    name for names in vars(aiohttp_inside).values() if isinstance(names, tuple) for name in names
}


def test_the_aiohttp_that_is_installed_is_known():
    require_known_aiohttp()


def test_a_server_refuses_to_start_on_the_parser_in_python(project):
    ended = subprocess.run(
        [sys.executable, "-m", "petsage", "serve", "--port", "0"],
        cwd=project,
        env={**os.environ, "AIOHTTP_NO_EXTENSIONS": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == 1
    assert "parses in Python" in ended.stderr
    assert "unset AIOHTTP_NO_EXTENSIONS" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (web_protocol.RequestHandler, "_process_keepalive"),
        (web_protocol.RequestHandler, "_handle_request"),
        (web_protocol, "_ErrInfo"),
        (web.Application, "_make_request"),
        (web.AppRunner, "_make_server"),
        (web.Response, "_start"),
    ],
)
def test_a_name_that_is_no_more_is_told(monkeypatch, owner, name):
    for each in getattr(owner, "__mro__", (owner,)):
        if name in vars(each):
            monkeypatch.delattr(each, name)

    with pytest.raises(StartError, match=f"{owner.__name__} has no {name}"):
        require_known_aiohttp()


def test_a_method_that_takes_something_else_is_told(monkeypatch):
    async def _handle_request(self, request, other):
        del self, request, other

    monkeypatch.setattr(web_protocol.RequestHandler, "_handle_request", _handle_request)

    with pytest.raises(StartError, match=r"_handle_request takes self, request, other, not self,"):
        require_known_aiohttp()


def test_a_method_that_aiohttp_calls_no_more_is_told(monkeypatch):
    def resume_reading(self):
        self.transport.resume_reading()

    monkeypatch.setattr(web_protocol.RequestHandler, "resume_reading", resume_reading)

    with pytest.raises(
        StartError, match="resume_reading knows nothing of _resume_transport_reading"
    ):
        require_known_aiohttp()


def test_a_parser_that_lets_more_through_is_told(monkeypatch):
    class Lax:
        def __init__(self, *args, **kwargs):
            self._strict = http_parser_of_aiohttp(*args, **kwargs)

        def feed_data(self, data):
            return self._strict.feed_data(data.replace(b"A : b", b"A: b"))

        def message_consumed(self):
            self._strict.message_consumed()

    http_parser_of_aiohttp = http_parser.HttpRequestParser
    monkeypatch.setattr(http_parser, "HttpRequestParser", Lax)

    with pytest.raises(StartError, match=r"its parser lets through .*A : b"):
        require_known_aiohttp()


@pytest.mark.parametrize("module", CONNECTIONS)
def test_a_connection_uses_nothing_of_aiohttp_that_is_not_asserted(module):
    tree = ast.parse((ROOT / f"petsage/{module}.py").read_text(encoding="utf-8"))
    known = {name for name in dir(web_protocol.RequestHandler) if name[0] == "_" != name[1]}
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in known
    } | {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name in known
    }

    assert used
    assert used <= LISTED


def test_it_is_the_oldest_where_that_is_wished():
    wished = os.environ.get("PETSAGE_TESTS_AIOHTTP", version("aiohttp"))

    assert aiohttp.__version__ == version("aiohttp") == wished
