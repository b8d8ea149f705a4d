"""Management: who may look inside and change things, and what they find there."""

import asyncio
import contextlib
import logging
import os
import re
import shutil
import signal
import stat
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import test_utils, web
from openapi_spec_validator import validate

from petsage.entry import Draining, Entry, Refused
from petsage.errors import Finding
from petsage.feature_report import describe_feature
from petsage.health import PROCESS_STATE
from petsage.logs.levels import MAX_MADE
from petsage.management import guarded
from petsage.openapi import GUARDED
from petsage.system import SYSTEM_FEATURES
from petsage.testing import Client, FeatureClient, FeatureFolder
from petsage.token_file import (
    TokenFile,
    TokenFileError,
    read_token_file,
    write_token_file,
)
from petsage.troubles import Trouble
from tests.conftest import HELLO, lines_at, write_feature
from tests.documented import DocumentedClient

PATIENCE_S = 60.0
TOKEN = "correct-horse-battery-staple"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
READS = ["/metrics", "/features", "/features/pets", "/loggers", "/loggers/root"]
CHANGED = "features.pets.changed"
FEATURE = '''
    """Talks."""
    import logging
    from petsage import Feature, Routes

    routes = Routes()
    feature = Feature(routes)
    log = logging.getLogger("features.pets.changed")


    @routes.get("/talk")
    async def talk() -> None:
        """Log at each level."""
        log.debug("a detail")
        log.warning("a warning")
'''

LogLines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def petsage_settings(petsage_settings):
    management = petsage_settings.management.model_copy(update={"token": TOKEN})
    logs = petsage_settings.logs.model_copy(update={"level": "INFO"})
    return petsage_settings.model_copy(update={"management": management, "logs": logs})


@pytest.fixture(autouse=True)
def no_loggers_left() -> Iterator[None]:
    """Takes away the loggers that a test made: the standard library keeps them for good."""
    known = logging.Logger.manager.loggerDict
    before = set(known)
    yield
    for name in set(known) - before:
        if name.partition(".")[0] in {"made", "features"}:
            del known[name]


@pytest.fixture
async def client(feature_client: FeatureClient, feature_folder: FeatureFolder) -> Client:
    return await feature_client(feature_folder("pets", FEATURE))


def app(client: Client) -> Any:
    return client.app


async def status(client: Client, path: str, headers: Any = None, method: str = "GET") -> int:
    async with client.request(method, path, headers=headers) as response:
        return response.status


async def exchange(client: Client, head: str) -> bytes:
    """What is answered to a request of one's own making."""
    reader, writer = await asyncio.open_connection(client.host, client.port)
    try:
        writer.write(f"{head}\r\nConnection: close\r\n\r\n".encode("latin-1"))
        return await asyncio.wait_for(reader.read(), PATIENCE_S)
    finally:
        writer.close()
        await writer.wait_closed()


async def put(client: Client, name: str, change: Any, headers: Any = BEARER) -> tuple[int, Any]:
    async with client.put(f"/loggers/{name}", json=change, headers=headers) as response:
        return response.status, await response.json()


async def line_of(log_lines: LogLines, message: str) -> dict[str, Any]:
    """Waits for a line whose message holds `message`; it comes when a timer has run out."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            for line in await asyncio.to_thread(log_lines):
                if message in line["message"]:
                    return line


class TestReads:
    @pytest.mark.parametrize("path", READS)
    async def test_reads_are_open_on_loopback(self, client, path):
        assert await status(client, path) == 200
        assert await status(client, path, method="HEAD") == 200

    @pytest.mark.parametrize("path", READS)
    async def test_reads_want_the_token_where_others_can_connect(self, client, path):
        app(client)[PROCESS_STATE].loopback_only = False
        assert await status(client, path) == 404
        assert await status(client, path, BEARER) == 200

    @pytest.mark.parametrize(
        "name",
        [
            *("Forwarded", "Via", "X-Forwarded-For", "x-forwarded-host", "X-Forwarded-Whatever"),
            *("X-Real-IP", "X-Original-Forwarded-For", "True-Client-IP", "CF-Connecting-IP"),
            *("X-Forwarded", "X_Forwarded_For", "X_Real_IP", "Client-IP", "X-Azure-ClientIP"),
            *("X-Originating-IP", "X-Remote-Addr", "X-Remote-IP", "CDN-Loop", "CF-Ray"),
            *("X-Envoy-External-Address", "Fastly-Client-IP", "X-Original-URL"),
        ],
    )
    async def test_a_request_that_a_proxy_passed_on_needs_the_token(self, client, name):
        assert await status(client, "/features", {name: "127.0.0.1"}) == 404
        assert await status(client, "/features", {name: ""}) == 404
        assert await status(client, "/features", {name: "127.0.0.1", **BEARER}) == 200

    @pytest.mark.parametrize(
        "host", ["localhost", "LOCALHOST:8000", "127.0.0.1:8000", "127.9.9.9", "[::1]:8000"]
    )
    async def test_a_host_that_is_this_machine_may_read(self, client, host):
        assert b" 200 " in await exchange(client, f"GET /features HTTP/1.1\r\nHost: {host}")

    @pytest.mark.parametrize(
        "host",
        [
            *("evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "10.0.0.1", ""),
            *("localhost:99999999", "2130706433", "localhost, evil.example", "\xe4\xff"),
        ],
    )
    async def test_a_strangers_name_made_to_point_here_reads_nothing(self, client, host):
        answer = await exchange(client, f"GET /features HTTP/1.1\r\nHost: {host}")
        assert answer.split(b" ")[1] in {b"404", b"400"}

    async def test_a_whole_url_counts_for_its_host(self, client):
        rest = "HTTP/1.1\r\nHost: localhost"
        assert b" 404 " in await exchange(client, f"GET http://evil.example/features {rest}")
        assert b" 200 " in await exchange(client, f"GET http://localhost/features {rest}")

    async def test_a_whole_url_counts_where_no_host_is_beside_it(self, client):
        assert b" 404 " in await exchange(client, "GET http://evil.example/features HTTP/1.0")
        assert b" 200 " in await exchange(client, "GET http://[::1]:8000/features HTTP/1.0")
        assert b" 200 " in await exchange(client, "GET /features HTTP/1.0")

    async def test_what_strangers_are_answered_is_what_nothing_answers(self, client):
        app(client)[PROCESS_STATE].loopback_only = False
        answers = []
        for path in ("/features", "/nowhere"):
            async with client.get(path) as response:
                body = await response.json()
                del body["request_id"]
                kept = {
                    name: value
                    for name, value in response.headers.items()
                    if name not in {"X-Request-ID", "traceparent", "Date"}
                }
                answers.append((response.status, body, kept))
        assert answers[0] == answers[1]

    async def test_what_is_read_is_not_to_be_kept(self, client):
        for path in [*READS, "/loggers/made.nowhere"]:
            async with client.get(path) as response:
                assert response.headers["Cache-Control"] == "no-store"


class TestClosedReads:
    @pytest.fixture
    def petsage_settings(self, petsage_settings):
        closed = petsage_settings.management.model_copy(update={"open_reads": "never"})
        return petsage_settings.model_copy(update={"management": closed})

    async def test_never_means_that_each_read_wants_the_token(self, client):
        assert await status(client, "/features") == 404
        assert await status(client, "/features", BEARER) == 200


class TestToken:
    @pytest.mark.parametrize(
        "given",
        [
            *(TOKEN, "Bearer", "Bearer ", f"Basic {TOKEN}", f"Bearer {TOKEN[:-1]}", "Bearer x"),
            *(f"Bearer {TOKEN}x", f"Bearer {TOKEN.upper()}", f"Bearer\t{TOKEN}", f"{TOKEN} Bearer"),
            *(f"Bearer {TOKEN}, Bearer {TOKEN}", "Bearer \xe4\xf6\xff", f"Bearer x {TOKEN}"),
        ],
    )
    async def test_a_wrong_token_changes_nothing(self, client, given):
        head = f"DELETE /loggers/root HTTP/1.1\r\nHost: localhost\r\nAuthorization: {given}"
        assert b" 404 " in await exchange(client, head)

    @pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer "])
    async def test_the_right_one_does_however_its_scheme_is_written(self, client, scheme):
        head = (
            f"DELETE /loggers/root HTTP/1.1\r\nHost: localhost\r\nAuthorization: {scheme} {TOKEN}"
        )
        assert b" 200 " in await exchange(client, head)

    @pytest.mark.parametrize("given", [(TOKEN, "wrong"), ("wrong", TOKEN), (TOKEN, TOKEN)])
    async def test_two_authorizations_are_none(self, client, given):
        both = "".join(f"\r\nAuthorization: Bearer {each}" for each in given)
        answer = await exchange(client, f"DELETE /loggers/root HTTP/1.1\r\nHost: localhost{both}")
        assert b" 404 " in answer

    async def test_a_change_wants_the_token_on_loopback_too(self, client):
        assert (await put(client, "root", {"level": "DEBUG"}, {}))[0] == 404
        assert logging.getLogger().level == logging.INFO
        assert await status(client, "/loggers/root", method="DELETE") == 404

    @pytest.mark.parametrize("body", [b"{", b"", b"\xff", b'{"level": 7}'])
    async def test_who_may_not_change_learns_nothing_from_what_is_wrong(self, client, body):
        async with client.put("/loggers/root", data=body) as response:
            assert response.status == 404


class TestNoToken:
    @pytest.fixture
    def petsage_settings(self, petsage_settings):
        unset = petsage_settings.management.model_copy(update={"token": None})
        return petsage_settings.model_copy(update={"management": unset})

    @pytest.mark.parametrize("given", ["Bearer", "Bearer ", "Bearer None", ""])
    async def test_where_there_is_no_token_nobody_bears_it(self, client, given):
        headers = {"Authorization": given}
        assert await status(client, "/loggers/root", headers, "DELETE") == 404

    async def test_a_token_that_is_made_is_told_in_its_file_alone(
        self, client, monkeypatch, tmp_path, log_lines
    ):
        from petsage.management import GUARD, remove_token, write_token

        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        await write_token(app(client), [("127.0.0.1", 4711), ("::1", 4711, 0, 0), "/a/socket"])
        token = read_token_file(4711, os.environ)
        assert token is not None
        assert (
            await status(client, "/loggers/root", {"Authorization": f"Bearer {token}"}, "DELETE")
            == 200
        )
        assert token not in orjson.dumps(log_lines()).decode()
        (file,) = app(client)[GUARD].files
        await remove_token(app(client))
        assert not file.path.exists()

    async def test_a_port_without_a_file_does_not_hide_the_token_of_another(
        self, client, monkeypatch, tmp_path, log_lines
    ):
        from petsage.management import remove_token, write_token

        for name in ("XDG_CACHE_HOME", "HOME"):
            monkeypatch.setenv(name, "/dev/null")
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        (tmp_path / "petsage" / "4711.token").mkdir(mode=0o700, parents=True)
        await write_token(app(client), [("127.0.0.1", 4711), ("127.0.0.1", 4712)])
        token = read_token_file(4712, {"XDG_RUNTIME_DIR": str(tmp_path)})
        right = {"Authorization": f"Bearer {token}"}
        assert await status(client, "/loggers/root", right, "DELETE") == 200
        (warning,) = [line["message"] for line in log_lines() if line["level"] == "WARNING"]
        assert warning.startswith("The management token is told for some ports alone: ")
        assert "4711.token" in warning
        assert "4712.token" not in warning
        await remove_token(app(client))

    async def test_a_stop_while_the_file_is_written_leaves_none(
        self, client, monkeypatch, tmp_path
    ):
        from petsage.management import GUARD, remove_token, write_token

        begun, go = threading.Event(), threading.Event()

        class Held(dict[str, str]):
            """An environment that is looked into slowly."""

            def get(self, name: str, default: Any = None) -> Any:
                begun.set()
                go.wait(PATIENCE_S)
                return super().get(name, default)

        held = Held(XDG_RUNTIME_DIR=str(tmp_path))
        monkeypatch.setattr("petsage.management.process_environment", held)
        writing = asyncio.create_task(write_token(app(client), [("127.0.0.1", 4711)]))
        await asyncio.to_thread(begun.wait, PATIENCE_S)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        removing = asyncio.create_task(remove_token(app(client)))
        await asyncio.sleep(0)
        go.set()
        await removing
        await app(client)[GUARD].writing
        assert list((tmp_path / "petsage").iterdir()) == []


class TestTokenFile:
    def test_it_is_this_users_alone(self, tmp_path):
        written = write_token_file(8000, "a" * 43, {"XDG_RUNTIME_DIR": str(tmp_path)})
        assert written.path == tmp_path / "petsage" / "8000.token"
        assert stat.S_IMODE(written.path.stat().st_mode) == 0o600
        assert stat.S_IMODE(written.path.parent.stat().st_mode) == 0o700
        assert [each.name for each in written.path.parent.iterdir()] == ["8000.token"]

    def test_no_umask_opens_it_and_a_folder_that_was_open_is_closed(self, tmp_path):
        (tmp_path / "petsage").mkdir(mode=0o777)
        (tmp_path / "petsage").chmod(0o777)
        before = os.umask(0)
        try:
            written = write_token_file(8000, "a" * 43, {"XDG_RUNTIME_DIR": str(tmp_path)})
        finally:
            os.umask(before)
        assert stat.S_IMODE(written.path.stat().st_mode) == 0o600
        assert stat.S_IMODE(written.path.parent.stat().st_mode) == 0o700

    def test_what_a_killed_server_left_is_replaced(self, tmp_path):
        environ = {"XDG_RUNTIME_DIR": str(tmp_path)}
        write_token_file(8000, "old" * 10, environ)
        write_token_file(8000, "new" * 10, environ)
        assert read_token_file(8000, environ) == "new" * 10

    def test_two_servers_have_a_file_each(self, tmp_path):
        environ = {"XDG_RUNTIME_DIR": str(tmp_path)}
        for port in (8000, 8001):
            write_token_file(port, f"token-of-{port}", environ)
        assert read_token_file(8000, environ) == "token-of-8000"
        assert read_token_file(8001, environ) == "token-of-8001"
        assert read_token_file(8002, environ) is None

    def test_a_link_in_its_place_is_not_followed(self, tmp_path):
        target = tmp_path / "elsewhere"
        target.write_text("kept")
        (tmp_path / "petsage").mkdir(mode=0o700)
        (tmp_path / "petsage" / "8000.token").symlink_to(target)
        environ = {"XDG_RUNTIME_DIR": str(tmp_path)}
        with pytest.raises(TokenFileError):
            read_token_file(8000, environ)
        write_token_file(8000, "a" * 43, environ)
        assert target.read_text() == "kept"
        assert read_token_file(8000, environ) == "a" * 43

    def test_a_folder_that_is_a_link_is_refused(self, tmp_path):
        (tmp_path / "other").mkdir()
        (tmp_path / "petsage").symlink_to(tmp_path / "other")
        with pytest.raises(TokenFileError, match=r"petsage/8000\.token"):
            write_token_file(8000, "a" * 43, {"XDG_RUNTIME_DIR": str(tmp_path)})
        assert list((tmp_path / "other").iterdir()) == []

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
    def test_a_folder_of_another_user_is_refused(self, tmp_path):
        (tmp_path / "petsage").mkdir(mode=0o700)
        os.chown(tmp_path / "petsage", 65534, 65534)
        with pytest.raises(TokenFileError, match="belongs to user 65534"):
            write_token_file(8000, "a" * 43, {"XDG_RUNTIME_DIR": str(tmp_path)})

    def test_a_file_that_others_may_read_is_not_taken(self, tmp_path):
        environ = {"XDG_RUNTIME_DIR": str(tmp_path)}
        write_token_file(8000, "a" * 43, environ).path.chmod(0o644)
        with pytest.raises(TokenFileError, match="others than you"):
            read_token_file(8000, environ)

    def test_a_pipe_in_its_place_holds_up_nobody(self, tmp_path):
        (tmp_path / "petsage").mkdir(mode=0o700)
        os.mkfifo(tmp_path / "petsage" / "8000.token", 0o600)
        with pytest.raises(TokenFileError, match="no file"):
            read_token_file(8000, {"XDG_RUNTIME_DIR": str(tmp_path)})

    def test_the_home_folder_is_taken_where_no_other_is_there(self, tmp_path):
        environ = {"XDG_RUNTIME_DIR": "relative", "HOME": str(tmp_path)}
        written = write_token_file(8000, "a" * 43, environ)
        assert written.path == tmp_path / ".cache" / "petsage" / "8000.token"
        assert read_token_file(8000, environ) == "a" * 43

    def test_without_any_folder_it_says_what_is_missing(self):
        with pytest.raises(TokenFileError, match="neither XDG_RUNTIME_DIR nor HOME is set"):
            write_token_file(8000, "a" * 43, {})

    def test_a_stop_leaves_the_file_of_the_server_that_came_after(self, tmp_path):
        environ = {"XDG_RUNTIME_DIR": str(tmp_path)}
        first = write_token_file(8000, "first" * 8, environ)
        second = write_token_file(8000, "second" * 8, environ)
        first.remove()
        assert read_token_file(8000, environ) == "second" * 8
        second.remove()
        assert not second.path.exists()
        second.remove()
        TokenFile(Path("/nowhere/at/all"), "x").remove()


def test_a_server_tells_its_token_in_a_file_and_takes_it_away(project, start_server):
    write_feature(project, "hello", HELLO)
    server = start_server()
    port = int(server.address.rpartition(":")[2])
    file = project.parent / "petsage" / f"{port}.token"
    token = file.read_text().strip()
    assert len(token) >= 43
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert server.get("/features", Authorization=f"Bearer {token}")[0] == 200

    server.signal(signal.SIGTERM)

    code, err = server.end()
    assert code == 0
    assert not file.exists()
    assert token not in err
    assert token not in orjson.dumps(server.lines).decode()


def test_a_server_whose_token_has_no_place_warns_and_serves(project, start_server):
    write_feature(project, "hello", HELLO)
    nowhere = dict.fromkeys(("XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "HOME"), "/dev/null")
    server = start_server(env=nowhere)
    (warning,) = lines_at(server.lines, "WARNING")
    assert "/dev/null/petsage/" in warning["message"]
    assert "fix: set [management].token" in warning["message"]
    assert server.get("/api/v1/hello/Ada")[0] == 200


class TestFeatures:
    async def test_each_feature_says_how_it_is_doing(self, client):
        async with client.get("/features") as response:
            features = {each["name"]: each for each in await response.json()}
        pets = features["pets"]
        assert pets["state"] == "serving"
        assert pets["routes"] == ["GET /api/v1/talk"]
        assert (pets["required"], pets["system"], pets["findings"]) == (False, False, [])
        assert features["system.metrics"]["system"] is True

    async def test_what_is_wrong_is_said_with_its_place_and_fix(
        self, petsage_settings, log_pipeline, tmp_path
    ):
        from petsage.app import create_app
        from petsage.testing import _client

        folder = tmp_path / "features" / "broken"
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("def oops(:\n")
        catalog = petsage_settings.catalog.model_copy(update={"folders": [folder.parent]})
        settings = petsage_settings.model_copy(update={"catalog": catalog})
        async with (
            _client(create_app(settings), settings) as client,
            client.get("/features", headers=BEARER) as response,
        ):
            features = {each["name"]: each for each in await response.json()}
        broken = features["broken"]
        assert (broken["state"], broken["version"], broken["routes"]) == ("failed", None, [])
        (finding,) = broken["findings"]
        assert (finding["id"], finding["level"], finding["line"]) == ("syntax-error", "error", 1)
        assert finding["file"].endswith("broken/__init__.py")
        assert finding["fix"]


class TestLoggers:
    async def test_a_level_that_is_changed_takes_effect_on_lines(self, client, log_lines):
        assert await status(client, "/api/v1/talk") == 204
        changed, answer = await put(client, CHANGED, {"level": "debug"})
        assert changed == 200
        assert answer["level"] == answer["effective_level"] == "DEBUG"
        assert await status(client, "/api/v1/talk") == 204
        await put(client, CHANGED, {"level": "ERROR"})
        assert await status(client, "/api/v1/talk") == 204
        said = [line["message"] for line in log_lines() if line["logger"] == CHANGED]
        assert said == ["a warning", "a detail", "a warning"]

    async def test_null_makes_it_go_by_its_parents_again(self, client):
        await put(client, CHANGED, {"level": "ERROR"})
        _, answer = await put(client, CHANGED, {"level": None})
        assert answer["level"] is None
        assert answer["effective_level"] == "INFO"

    async def test_each_logger_is_listed_the_root_first(self, client):
        await put(client, CHANGED, {"level": "ERROR"})
        async with client.get("/loggers") as response:
            listed = await response.json()
        assert listed[0]["name"] == "root"
        assert listed[0]["level"] == "INFO"
        names = [each["name"] for each in listed]
        assert names[1:] == sorted(names[1:])
        (own,) = [each for each in listed if each["name"] == CHANGED]
        assert own == {
            "name": CHANGED,
            "level": "ERROR",
            "effective_level": "ERROR",
            "reverts_to": None,
            "reverts_in_s": None,
        }

    async def test_a_change_for_a_while_goes_back_by_itself_and_both_are_lines(
        self, client, log_lines
    ):
        _, answer = await put(client, CHANGED, {"level": "DEBUG", "ttl_s": 0.05})
        assert 0 < answer["reverts_in_s"] <= 0.05
        back = await line_of(log_lines, f"{CHANGED} went back")
        assert logging.getLogger(CHANGED).level == logging.NOTSET
        (change,) = [line for line in log_lines() if f"{CHANGED} was changed" in line["message"]]
        assert change["level"] == "WARNING"
        assert (change["logger_name"], change["from_level"]) == (CHANGED, None)
        assert (change["to_level"], change["ttl_s"]) == ("DEBUG", 0.05)
        assert (back["from_level"], back["to_level"]) == ("DEBUG", None)
        access = [line for line in log_lines() if line.get("method") == "PUT"]
        assert change["request_id"] == access[0]["request_id"] == back["request_id"]

    async def test_of_two_changes_the_second_counts_and_goes_back_to_what_was_before_both(
        self, client, log_lines
    ):
        await put(client, CHANGED, {"level": "ERROR"})
        await put(client, CHANGED, {"level": "DEBUG", "ttl_s": 0.05})
        _, second = await put(client, CHANGED, {"level": "CRITICAL", "ttl_s": 600})
        assert second["reverts_to"] == "ERROR"
        assert 590 < second["reverts_in_s"] <= 600
        await put(client, "made.other", {"level": "DEBUG", "ttl_s": 0.1})
        await line_of(log_lines, "made.other went back")  # the first's time is over, too
        assert logging.getLogger(CHANGED).level == logging.CRITICAL
        await put(client, CHANGED, {"level": "INFO", "ttl_s": 0.01})
        await line_of(log_lines, f"{CHANGED} went back")
        assert logging.getLogger(CHANGED).level == logging.ERROR

    async def test_what_had_a_level_of_its_own_goes_back_to_it(self, client, log_lines):
        _, answer = await put(client, "root", {"level": "DEBUG", "ttl_s": 0.05})
        assert answer["reverts_to"] == "INFO"
        await line_of(log_lines, "root went back")
        assert logging.getLogger().level == logging.INFO

    async def test_a_change_that_lasts_ends_the_one_for_a_while(self, client, log_lines):
        await put(client, CHANGED, {"level": "DEBUG", "ttl_s": 0.05})
        _, answer = await put(client, CHANGED, {"level": "ERROR"})
        assert answer["reverts_in_s"] is None
        await put(client, "made.other", {"level": "DEBUG", "ttl_s": 0.1})
        await line_of(log_lines, "made.other went back")
        assert logging.getLogger(CHANGED).level == logging.ERROR

    async def test_delete_undoes_every_change_at_once(self, client):
        await put(client, CHANGED, {"level": "ERROR"})
        await put(client, CHANGED, {"level": "DEBUG", "ttl_s": 600})
        for _ in range(2):
            async with client.delete(f"/loggers/{CHANGED}", headers=BEARER) as response:
                assert response.status == 200
                assert (await response.json())["level"] is None
        assert logging.getLogger(CHANGED).level == logging.NOTSET

    async def test_a_stop_gives_every_level_back(self, client, log_pipeline):
        await put(client, CHANGED, {"level": "DEBUG", "ttl_s": 600})
        await put(client, "root", {"level": "ERROR"})
        await client.close()
        assert logging.getLogger(CHANGED).level == logging.NOTSET
        assert logging.getLogger().level == logging.INFO

    async def test_the_line_of_a_change_is_written_even_where_it_silences_the_log(
        self, client, log_lines
    ):
        await put(client, "root", {"level": "CRITICAL"})
        await put(client, "petsage", {"level": "CRITICAL"})
        await put(client, CHANGED, {"level": "DEBUG"})
        said = [line["logger_name"] for line in log_lines() if "was changed" in line["message"]]
        assert said == ["root", "petsage", CHANGED]

    @pytest.mark.parametrize(
        "change",
        [
            *({}, {"level": "LOUD"}, {"level": 10}, {"level": "DEBUG", "ttl": 60}),
            *({"level": "DEBUG", "ttl_s": bad} for bad in (0, -1, 1e9, "60", True)),
        ],
    )
    async def test_a_change_that_cannot_be_meant_is_refused_and_changes_nothing(
        self, client, change
    ):
        refused, problem = await put(client, CHANGED, change)
        assert refused == 422
        assert problem["errors"]
        assert logging.getLogger(CHANGED).level == logging.NOTSET

    async def test_not_a_number_is_no_json(self, client):
        assert (await put(client, CHANGED, {"level": "DEBUG", "ttl_s": float("nan")}))[0] == 400
        assert logging.getLogger(CHANGED).level == logging.NOTSET

    async def test_the_root_has_no_parents_to_go_by(self, client):
        refused, problem = await put(client, "root", {"level": None})
        assert (refused, problem["detail"]) == (
            422,
            "The root logger has no parents whose level it could have",
        )
        assert logging.getLogger().level == logging.INFO

    @pytest.mark.parametrize("name", ["made.%0a", "made..x", "made.%1b", "x" * 201, "made%20x"])
    async def test_a_name_that_is_no_loggers_makes_none(self, client, name):
        before = set(logging.Logger.manager.loggerDict)
        assert (await put(client, name, {"level": "DEBUG"}))[0] == 422
        assert set(logging.Logger.manager.loggerDict) == before

    async def test_looking_at_a_logger_makes_none(self, client):
        before = set(logging.Logger.manager.loggerDict)
        assert await status(client, "/loggers/made.nowhere") == 404
        assert await status(client, "/loggers/made.nowhere", BEARER, "DELETE") == 404
        assert set(logging.Logger.manager.loggerDict) == before

    async def test_no_more_loggers_are_made_than_so_many(self, client):
        for number in range(MAX_MADE):
            assert (await put(client, f"made.{number}", {"level": "DEBUG"}))[0] == 200
        assert (await put(client, "made.more", {"level": "DEBUG"}))[0] == 409
        assert (await put(client, "made.0", {"level": "INFO"}))[0] == 200
        assert "made.more" not in logging.Logger.manager.loggerDict


BROKEN = FEATURE.replace("feature = Feature(routes)", "feature = Feature(routes")
GATED = """
    import asyncio
    from collections.abc import AsyncIterator
    from aiohttp import web
    from petsage import Feature, Routes

    routes = Routes()


    async def lifespan(app: web.Application) -> AsyncIterator[None]:
        # Up when the test lets it.
        reader, writer = await asyncio.open_connection("127.0.0.1", {port})
        await reader.read()
        writer.close()
        await writer.wait_closed()
        yield


    feature = Feature(routes, lifespan=lifespan)


    @routes.get("/gated")
    async def gated() -> None:
        '''Answer.'''
"""


class Gate:
    """A port on which a lifespan waits for the test."""

    def __init__(self) -> None:
        self.port = 0
        self._waiting: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator["Gate"]:
        server = await asyncio.start_server(self._arrive, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self

    async def _arrive(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._waiting.put_nowait(writer)

    async def arrived(self) -> asyncio.StreamWriter:
        """Waits for a lifespan; it goes on when what is returned is closed."""
        return await asyncio.wait_for(self._waiting.get(), PATIENCE_S)


@pytest.fixture
async def gate() -> AsyncIterator[Gate]:
    async with Gate().opened() as opened:
        yield opened


async def show(client: Client, name: str) -> Any:
    async with client.get(f"/features/{name}") as response:
        assert response.status == 200
        return await response.json()


async def reload(client: Client, body: Any = None) -> tuple[int, Any]:
    async with client.post("/features/reload", json=body, headers=BEARER) as response:
        return response.status, await response.json()


class TestOneFeature:
    async def test_a_feature_is_told_with_all_that_is_known_of_it(self, client):
        shown = await show(client, "pets")
        async with client.get("/features") as response:
            (listed,) = [each for each in await response.json() if each["name"] == "pets"]
        assert set(listed) == set(shown)
        assert (shown["name"], shown["version"]) == ("pets", "1.0.0")
        assert (shown["state"], shown["state_text"]) == ("serving", "serving")
        assert shown["generation"] >= 0
        assert re.fullmatch("[0-9a-f]{64}", shown["content_hash"])
        assert re.fullmatch(r"20\d\d-\d\d-\d\dT[\d:.]+Z", shown["since"])
        assert shown["routes"] == ["GET /api/v1/talk"]
        assert shown["load_ms"] > 0
        assert set(shown["requests"]) == {"served", "failed", "in_flight"}
        assert shown["refused"] is shown["last_error"] is None
        assert shown["findings"] == shown["waiting_for"] == shown["draining"] == []
        assert (shown["required"], shown["system"], shown["leaked"]) == (False, False, [])

    async def test_a_name_that_is_not_there_is_answered_with_the_nearest(self, client):
        async with client.get("/features/pet") as response:
            assert response.status == 404
            problem = await response.json()
        assert problem["detail"] == "There is no feature `pet`; did you mean `pets`?"
        async with client.get("/features/elephants") as response:
            problem = await response.json()
        assert problem["detail"] == "There is no feature `elephants`; GET /features has all"

    async def test_a_feature_may_be_called_reload(self, feature_client, feature_folder):
        client = await feature_client(feature_folder("reload", FEATURE))
        assert (await show(client, "reload"))["state"] == "serving"
        assert await reload(client, {"names": ["reload"]})

    def test_every_fact_of_an_entry_is_told(self):
        at = datetime(2026, 3, 1, 12, tzinfo=UTC)
        finding = Finding("bad-path", "error", "features/pets/routes.py", 3, "no", "yes")
        entry = Entry(
            "pets",
            "1.2.0",
            "waiting",
            ("GET /pets",),
            (),
            system=False,
            waiting_for=("cats", "owners"),
            generation=7,
            content_hash="a" * 64,
            since=at,
            load_ms=1.5,
            served=3,
            failed=2,
            in_flight=1,
            refused=Refused("b" * 64, at, (finding,)),
            draining=(Draining(6, 4),),
            troubles=(Trouble("loop-blocked", 2, at, "for 1 s", "await it"),),
        )
        leaked = [("pets", 5, "a module"), ("other", 4, "an application")]
        told = describe_feature(entry, required=True, leaked=leaked).model_dump(mode="json")
        assert told["state_text"] == "waiting for cats, owners"
        assert told["waiting_for"] == ["cats", "owners"]
        assert told["requests"] == {"served": 3, "failed": 2, "in_flight": 1}
        assert told["since"] == "2026-03-01T12:00:00Z"
        assert told["last_error"] == finding._asdict()
        assert told["refused"] == {
            "content_hash": "b" * 64,
            "at": "2026-03-01T12:00:00Z",
            "findings": [finding._asdict()],
        }
        assert told["draining"] == [{"generation": 6, "requests": 4}]
        assert told["leaked"] == [{"generation": 5, "what": "a module"}]
        assert told["troubles"] == [
            {
                "kind": "loop-blocked",
                "count": 2,
                "at": "2026-03-01T12:00:00Z",
                "problem": "for 1 s",
                "fix": "await it",
            }
        ]
        assert (told["required"], told["generation"], told["load_ms"]) == (True, 7, 1.5)


class TestReload:
    async def test_where_nothing_changed_it_says_so(self, client):
        before = await show(client, "pets")
        for body in (None, {}, {"names": None}, {"names": ["pets"]}):
            code, answer = await reload(client, body)
            assert (code, answer["changes"]) == (200, [])
            assert answer["generation"] >= before["generation"]
            assert answer["took_ms"] > 0
        assert await show(client, "pets") == before

    async def test_it_answers_when_what_changed_is_current(self, client, feature_folder):
        before = await show(client, "pets")
        feature_folder("pets", FEATURE.replace("/talk", "/walk"))
        code, answer = await reload(client)
        assert code == 200
        (change,) = answer["changes"]
        after = await show(client, "pets")
        assert (change["name"], change["step"], change["findings"]) == ("pets", "changed", [])
        assert change["generation"] == after["generation"] == answer["generation"]
        assert change["generation"] > before["generation"]
        assert change["content_hash"] == after["content_hash"] != before["content_hash"]
        assert after["routes"] == ["GET /api/v1/walk"]
        assert await status(client, "/api/v1/walk") == 204
        assert await status(client, "/api/v1/talk") == 404

    async def test_what_is_refused_is_told_and_what_served_goes_on(self, client, feature_folder):
        before = await show(client, "pets")
        feature_folder("pets", BROKEN)
        code, answer = await reload(client)
        assert code == 200
        (change,) = answer["changes"]
        assert (change["step"], change["generation"]) == ("refused", before["generation"])
        (finding,) = change["findings"]
        assert (finding["id"], finding["level"]) == ("syntax-error", "error")
        after = await show(client, "pets")
        assert (after["state"], after["generation"]) == ("serving", before["generation"])
        assert after["content_hash"] == before["content_hash"]
        assert after["refused"]["content_hash"] == change["content_hash"]
        assert after["refused"]["at"].endswith("Z")
        assert after["refused"]["findings"] == [finding]
        assert after["last_error"] == finding
        assert await status(client, "/api/v1/talk") == 204
        assert (await reload(client))[1]["changes"] == [change]  # it was tried again

        feature_folder("pets", FEATURE.replace("/talk", "/walk"))
        assert [each["step"] for each in (await reload(client))[1]["changes"]] == ["changed"]
        after = await show(client, "pets")
        assert after["refused"] is after["last_error"] is None

    async def test_a_name_that_is_wrong_changes_nothing(self, client, feature_folder):
        before = await show(client, "pets")
        feature_folder("pets", FEATURE.replace("/talk", "/walk"))
        code, problem = await reload(client, {"names": ["pets", "pest"]})
        assert code == 404
        assert problem["detail"] == "There is no feature `pest`; did you mean `pets`?"
        assert await show(client, "pets") == before
        assert (await reload(client, {"names": ["system.metrics"]}))[0] == 404

    @pytest.mark.parametrize("body", [{"name": "pets"}, {"names": []}, {"names": "pets"}, ["pets"]])
    async def test_a_body_that_cannot_be_meant_is_refused(self, client, feature_folder, body):
        feature_folder("pets", FEATURE.replace("/talk", "/walk"))
        assert (await reload(client, body))[0] == 422
        assert await status(client, "/api/v1/talk") == 204

    async def test_it_wants_the_token_on_loopback_too(self, client, feature_folder):
        feature_folder("pets", FEATURE.replace("/talk", "/walk"))
        assert await status(client, "/features/reload", method="POST") == 404
        assert await status(client, "/api/v1/talk") == 204

    @pytest.mark.parametrize("phase", ["starting", "draining"])
    async def test_nothing_is_changed_while_it_starts_or_stops(self, client, phase):
        app(client)[PROCESS_STATE].phase = phase
        async with client.post("/features/reload", headers=BEARER) as response:
            assert (response.status, response.headers["Retry-After"]) == (503, "1")
            assert f"PetSage is {phase}" in (await response.json())["detail"]

    async def test_a_client_that_goes_away_does_not_cut_the_change(
        self, client, feature_folder, log_lines, gate
    ):
        feature_folder("pets", GATED.format(port=gate.port))
        _, writer = await asyncio.open_connection(client.host, client.port)
        head = f"POST /features/reload HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}"
        writer.write(f"{head}\r\n\r\n".encode())
        waiting = await gate.arrived()
        writer.close()
        await line_of(log_lines, "POST /features/reload")  # nobody waits for the answer
        waiting.close()
        _, answer = await reload(client)  # which waits for the first
        assert answer["changes"] == []
        assert await status(client, "/api/v1/gated") == 204

    async def test_of_two_reloads_the_second_waits_for_the_first(
        self, client, feature_folder, gate
    ):
        feature_folder("pets", GATED.format(port=gate.port))
        first = asyncio.create_task(reload(client))
        waiting = await gate.arrived()
        second = asyncio.create_task(reload(client))
        async with client.get("/features/pets") as response:  # meanwhile others are answered
            assert response.status == 200
        assert await status(client, "/api/v1/talk") == 204
        assert not first.done()
        assert not second.done()
        waiting.close()
        (code, answer), (other_code, other) = await asyncio.gather(first, second)
        assert (code, other_code) == (200, 200)
        assert [each["step"] for each in answer["changes"]] == ["changed"]
        assert other["changes"] == []
        assert other["generation"] == answer["generation"]

    async def test_the_log_says_who_asked_and_for_what(self, client, log_lines):
        async with client.post(
            "/features/reload", json={"names": ["pets"]}, headers=BEARER
        ) as response:
            request_id = response.headers["X-Request-ID"]
        line = await line_of(log_lines, "Folders are looked at by hand: pets")
        assert (line["level"], line["request_id"]) == ("INFO", request_id)


class TestFolders:
    @pytest.fixture
    def petsage_settings(self, petsage_settings, feature_folder):
        folders = [feature_folder("pets", FEATURE).parent]
        catalog = petsage_settings.catalog.model_copy(
            update={"folders": folders, "required": ["pets"]}
        )
        return petsage_settings.model_copy(update={"catalog": catalog})

    async def test_readiness_says_nothing_of_what_was_refused(self, petsage_client, feature_folder):
        async def ready() -> tuple[int, str]:
            async with petsage_client.get("/readyz?verbose") as response:
                # How old what a check found is, is told where it is not fresh.
                return response.status, re.sub(r" \([\d.]+ s ago\)", "", await response.text())

        before = await ready()
        feature_folder("pets", BROKEN)
        _, answer = await reload(petsage_client)
        assert [each["step"] for each in answer["changes"]] == ["refused"]
        assert await ready() == before
        assert before[0] == 200
        assert "feature.pets" in before[1]
        shown = await show(petsage_client, "pets")
        assert shown["required"] is True
        assert shown["refused"] is not None

    async def test_a_folder_is_asked_for_by_its_name_when_it_is_new_and_when_it_is_gone(
        self, petsage_client, feature_folder
    ):
        folder = feature_folder("cats", FEATURE.replace("/talk", "/purr"))
        _, answer = await reload(petsage_client, {"names": ["cats"]})
        assert [(each["name"], each["step"]) for each in answer["changes"]] == [("cats", "added")]
        assert await status(petsage_client, "/api/v1/purr") == 204
        shutil.rmtree(folder)
        _, answer = await reload(petsage_client, {"names": ["cats"]})
        (change,) = answer["changes"]
        assert (change["name"], change["step"]) == ("cats", "removed")
        assert change["generation"] is change["content_hash"] is None
        assert await status(petsage_client, "/api/v1/purr") == 404
        assert (await reload(petsage_client, {"names": ["cats"]}))[0] == 404

    async def test_names_that_are_no_utf_8_are_told(self, petsage_client, feature_folder):
        name = os.fsdecode(b"\xff")
        feature_folder(name, FEATURE.replace("/talk", "/purr"))
        feature_folder("pets", {f"{name}.py": "def oops(:\n"})
        code, answer = await reload(petsage_client)
        assert code == 200
        assert {each["name"]: each["step"] for each in answer["changes"]} == {
            "\\udcff": "failed",
            "pets": "refused",
        }
        assert (await show(petsage_client, "pets"))["last_error"]["file"].endswith(
            "pets/\\udcff.py"
        )
        async with petsage_client.get("/features") as response:
            assert response.status == 200
            assert "\\udcff" in {each["name"] for each in await response.json()}


class TestDocument:
    @pytest.fixture
    async def documented(self, client) -> DocumentedClient:
        async with client.get("/openapi.json") as response:
            return DocumentedClient(client, await response.json())

    async def test_every_answer_is_as_the_document_says(self, documented):
        validate(documented.document)
        for path in READS:
            assert (await documented.get(path)).status == 200
        for name, change, wanted in [
            (CHANGED, {"level": "DEBUG", "ttl_s": 60}, 200),
            ("root", {"level": None}, 422),
            (CHANGED, {"level": "LOUD"}, 422),
        ]:
            answer = await documented.request(
                "PUT", f"/loggers/{name}", json=change, headers=BEARER
            )
            assert answer.status == wanted
        bodies: list[tuple[Any, int]] = [
            (None, 200),
            ({"names": ["pets"]}, 200),
            ({"names": ["pet"]}, 404),
            ({"names": []}, 422),
        ]
        for body, wanted in bodies:
            answer = await documented.request("POST", "/features/reload", json=body, headers=BEARER)
            assert answer.status == wanted
        assert (await documented.get("/features/pet")).status == 404
        path = f"/loggers/{CHANGED}"
        assert (await documented.request("DELETE", path, headers=BEARER)).status == 200
        assert (await documented.get("/loggers/made.nowhere")).status == 404
        assert (await documented.request("PUT", path, json={"level": "DEBUG"})).status == 404

    async def test_what_wants_the_token_says_so(self, documented):
        document = documented.document
        scheme = document["components"]["securitySchemes"]["bearerAuth"]
        assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
        secured = {
            (method, path): operation["security"]
            for path, operations in document["paths"].items()
            for method, operation in operations.items()
            if "security" in operation
        }
        wanted: list[dict[str, list[str]]] = [{"bearerAuth": []}]
        assert secured == {
            ("get", "/metrics"): [*wanted, {}],
            ("get", "/features"): [*wanted, {}],
            ("get", "/features/{name}"): [*wanted, {}],
            ("get", "/features/reload"): [*wanted, {}],
            ("post", "/features/reload"): wanted,
            ("get", "/loggers"): [*wanted, {}],
            ("get", "/loggers/{name}"): [*wanted, {}],
            ("put", "/loggers/{name}"): wanted,
            ("delete", "/loggers/{name}"): wanted,
        }

    def test_what_is_documented_as_guarded_is_guarded_and_the_other_way_round(self):
        behind = {name for name, each in SYSTEM_FEATURES.items() if guarded in each.middlewares}
        assert behind == set(GUARDED)


class TestCommand:
    @pytest.fixture
    def server(self, project, start_server):
        write_feature(project, "hello", HELLO)
        return start_server()

    def test_it_lists_and_changes_the_levels_of_a_running_server(self, server, petsage):
        url = ("--url", server.address)
        listed = petsage("loggers", *url)
        assert listed.returncode == 0, listed.stderr
        assert listed.stdout.startswith("INFO     root, its own level\n")

        changed = petsage("loggers", "petsage.access", "warning", "--ttl", "60", *url)
        assert changed.returncode == 0, changed.stderr
        assert changed.stdout in {
            f"WARNING  petsage.access, its own level; back to its parents in {left} s\n"
            for left in (59, 60)
        }
        shown = petsage("loggers", "petsage.access", "--json", *url)
        assert orjson.loads(shown.stdout)["level"] == "WARNING"

        undone = petsage("loggers", "petsage.access", "--undo", *url)
        assert undone.stdout == "INFO     petsage.access\n"
        inherits = petsage("loggers", "petsage.access", "inherit", *url)
        assert inherits.stdout == "INFO     petsage.access\n"

    def test_it_finds_the_server_by_the_settings(self, server, petsage):
        port = server.address.rpartition(":")[2]
        result = petsage("loggers", "root", env={"PETSAGE_SERVER__PORT": port})
        assert result.stdout == "INFO     root, its own level\n"

    def test_a_wrong_token_is_one_clear_line(self, server, petsage):
        wrong = {"PETSAGE_MANAGEMENT__TOKEN": "this-is-not-the-token"}
        result = petsage("loggers", "root", "DEBUG", "--url", server.address, env=wrong)
        assert result.returncode == 1
        assert result.stderr == (
            f"petsage: {server.address} does not take the management token, or is no PetSage; "
            "fix: set PETSAGE_MANAGEMENT__TOKEN to the one that it was started with\n"
        )
        assert "this-is-not-the-token" not in result.stdout + result.stderr

    def test_no_token_is_one_clear_line(self, server, petsage, tmp_path):
        port = server.address.rpartition(":")[2]
        (tmp_path / "petsage" / f"{port}.token").unlink()
        result = petsage("loggers", "root", "DEBUG", "--url", server.address)
        assert result.returncode == 1
        assert "wants a management token, and none is known here" in result.stderr

    def test_a_level_or_a_logger_that_is_not_there_is_one_clear_line(self, server, petsage):
        result = petsage("loggers", "root", "LOUD", "--url", server.address)
        assert result.returncode == 1
        assert result.stderr.startswith(f"petsage: {server.address} refuses: /level: Input should")
        result = petsage("loggers", "no.such", "--url", server.address)
        assert "refuses: There is no logger of this name" in result.stderr
        assert result.stderr.count("\n") == 1

    def test_no_server_is_one_clear_line(self, petsage, unused_tcp_port):
        url = f"http://127.0.0.1:{unused_tcp_port}"
        result = petsage("loggers", "--url", url)
        assert result.returncode == 1
        assert result.stderr == (
            f"petsage: no PetSage answers at {url}: Connection refused; "
            "fix: start it with `petsage serve`, or name its address with --url\n"
        )

    @pytest.mark.parametrize(
        ("status", "body", "said"),
        [
            (200, b'["a"]', "answers with something else than loggers"),
            (200, b"{}", "answers with something else than loggers"),
            (422, b'{"errors": "all"}', "refuses: 422"),
            (500, b"oops", "refuses: 500, and no JSON"),
        ],
    )
    async def test_a_server_that_is_no_petsage_is_one_clear_line(self, petsage, status, body, said):
        async def answer(_: web.BaseRequest) -> web.Response:
            return web.Response(status=status, body=body)

        async with test_utils.RawTestServer(answer) as other:
            result = await asyncio.to_thread(petsage, "loggers", "--url", str(other.make_url("")))
        assert result.returncode == 1
        assert said in result.stderr
        assert result.stderr.count("\n") == 1

    @pytest.mark.parametrize(
        "url", ["ftp://x", "127.0.0.1:8000", "http://", "http://x:y", "http://a\n"]
    )
    def test_an_url_that_is_none_is_one_clear_line(self, petsage, url):
        result = petsage("loggers", "--url", url)
        assert result.returncode == 1
        assert "is no address of a server; fix: write it as http://" in result.stderr
        assert result.stderr.count("\n") == 1

    @pytest.mark.parametrize("arguments", [("--undo",), ("--ttl", "5"), ("root", "INFO", "--undo")])
    def test_options_that_do_not_go_together_are_refused(self, petsage, arguments):
        result = petsage("loggers", *arguments)
        assert result.returncode == 1
        assert "--undo goes with" in result.stderr

    def test_the_files_token_goes_to_no_other_machine(self, petsage, tmp_path):
        from petsage.running_server import find_server
        from petsage.settings import Settings

        write_token_file(8000, "a" * 43, {"XDG_RUNTIME_DIR": str(tmp_path)})
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
            assert find_server(Settings(), "http://127.0.0.1:8000").token == "a" * 43
            assert find_server(Settings(), "http://petsage.example:8000").token is None
