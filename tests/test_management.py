"""Management: who may look inside and change things, and what they find there."""

import asyncio
import logging
import os
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import test_utils, web
from openapi_spec_validator import validate

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
from tests.conftest import HELLO, lines_at, write_feature
from tests.documented import DocumentedClient

PATIENCE_S = 10.0
TOKEN = "correct-horse-battery-staple"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
READS = ["/metrics", "/features", "/loggers", "/loggers/root"]
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
        from petsage.logger_command import find_server
        from petsage.settings import Settings

        write_token_file(8000, "a" * 43, {"XDG_RUNTIME_DIR": str(tmp_path)})
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
            assert find_server(Settings(), "http://127.0.0.1:8000").token == "a" * 43
            assert find_server(Settings(), "http://petsage.example:8000").token is None
