"""`petsage features`: what a running server serves, what folders hold, and taking it up by hand."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import test_utils, web

from petsage.entry import Entry
from petsage.feature_report import FeatureModel, describe_feature
from petsage.features_command import _age, _notes
from petsage.troubles import Trouble
from tests.conftest import HELLO, ServerProcess, write_feature

BROKEN = HELLO.replace("feature = Feature(routes)", "feature = Feature(routes")
OTHER = HELLO.replace("/hello/{name}", "/shop/{name}")
# What changes is asked for by hand alone.
UNWATCHED = {"PETSAGE_CATALOG__WATCH": "false"}

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def server(project, start_server) -> ServerProcess:
    write_feature(project, "hello", HELLO)
    started: ServerProcess = start_server(env=UNWATCHED)
    return started


def port_of(server: ServerProcess) -> dict[str, str]:
    """The settings by which the server is found."""
    return {"PETSAGE_SERVER__PORT": server.address.rpartition(":")[2]}


def shown(petsage: Run, server: ServerProcess) -> dict[str, FeatureModel]:
    result = petsage("features", "--json", "--url", server.address)
    assert result.returncode == 0, result.stderr
    features = [FeatureModel.model_validate(each) for each in json.loads(result.stdout)]
    return {each.name: each for each in features}


class TestShown:
    def test_it_shows_what_the_server_serves_and_not_what_the_folders_hold(
        self, server, project, petsage
    ):
        write_feature(project, "shop", OTHER)
        result = petsage("features", env=port_of(server))
        assert result.returncode == 0
        assert result.stderr == f"petsage: these are what {server.address} serves\n"
        head, row = result.stdout.splitlines()
        assert head.split() == [
            *("name", "version", "state", "generation", "hash", "since", "load", "ms", "served"),
            *("failed", "routes"),
        ]
        name, version, state, generation, digits, age, unit, load_ms, *_ = row.split()
        assert (name, version, state) == ("hello", "1.0.0", "serving")
        hello = shown(petsage, server)["hello"]
        assert hello.content_hash is not None
        assert generation == str(hello.generation)
        assert digits == hello.content_hash[:12]
        assert int(age) >= 0
        assert unit in {"s", "min"}
        assert float(load_ms) > 0
        assert row.endswith("  GET /api/v1/hello/{name}")

    def test_as_json_it_is_what_the_server_says_the_core_too(self, server, petsage):
        features = shown(petsage, server)
        assert features["system.metrics"].system
        assert features["hello"].routes == ["GET /api/v1/hello/{name}"]

    def test_what_was_refused_stands_below_its_feature_with_place_and_fix(
        self, server, project, petsage
    ):
        (project / "features" / "hello" / "__init__.py").write_text("feature = (\n")
        assert petsage("features", "reload", "--url", server.address).returncode == 1
        result = petsage("features", "--url", server.address)
        assert result.returncode == 0
        _, row, refused, why, fix = result.stdout.splitlines()
        assert row.split()[2] == "serving"
        candidate = shown(petsage, server)["hello"].refused
        assert candidate is not None
        assert candidate.content_hash is not None
        assert refused.startswith("    refused ")
        assert refused.endswith(f" ago: the folder as {candidate.content_hash[:12]}")
        assert why.startswith("        features/hello/__init__.py:1: syntax-error: ")
        assert fix.startswith("        fix: ")

    def test_why_something_does_not_serve_stands_below_it(self, project, start_server, petsage):
        write_feature(project, "broken", BROKEN)
        server = start_server(env=UNWATCHED)
        _, row, why, fix = petsage("features", "--url", server.address).stdout.splitlines()
        assert row.split()[:2] == ["broken", "failed"]
        assert why.startswith("    features/broken/__init__.py:")
        assert fix.startswith("        fix: ")

    def test_where_no_server_runs_it_shows_what_the_folders_hold_and_says_so(
        self, project, petsage, unused_tcp_port
    ):
        write_feature(project, "hello", HELLO)
        result = petsage("features", "--json", env={"PETSAGE_SERVER__PORT": str(unused_tcp_port)})
        assert result.returncode == 0
        assert [row["state"] for row in json.loads(result.stdout)] == ["ready"]
        assert result.stderr == (
            f"petsage: no PetSage answers at http://127.0.0.1:{unused_tcp_port}: "
            "Connection refused; these are what the folders hold\n"
        )

    def test_where_a_server_may_not_be_read_it_shows_what_the_folders_hold(
        self, project, start_server, petsage
    ):
        write_feature(project, "hello", HELLO)
        closed = {"PETSAGE_MANAGEMENT__OPEN_READS": "never"}
        token = {"PETSAGE_MANAGEMENT__TOKEN": "correct-horse-battery-staple"}
        server = start_server(env={**UNWATCHED, **closed, **token})
        result = petsage("features", "--json", env=port_of(server))
        assert result.returncode == 0
        assert [row["state"] for row in json.loads(result.stdout)] == ["ready"]
        assert "wants a management token, and none is known here" in result.stderr
        assert result.stderr.count("\n") == 1
        result = petsage("features", env={**port_of(server), **token})
        assert result.stdout.splitlines()[1].split()[2] == "serving"

    def test_a_named_folder_is_shown_and_no_server_asked(self, server, project, petsage):
        write_feature(project, "shop", OTHER)
        result = petsage("features", "--folder", "features", "--json", env=port_of(server))
        rows = [(row["name"], row["state"]) for row in json.loads(result.stdout)]
        assert (rows, result.stderr) == ([("hello", "ready"), ("shop", "ready")], "")

    def test_a_server_that_is_named_and_not_there_is_one_clear_line_and_exit_code_2(
        self, petsage, unused_tcp_port
    ):
        url = f"http://127.0.0.1:{unused_tcp_port}"
        result = petsage("features", "--url", url)
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr == (
            f"petsage: no PetSage answers at {url}: Connection refused; "
            "fix: start it with `petsage serve`, or name its address with --url\n"
        )

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("--folder", "features", "--url", "http://x"), "do not go together"),
            (("--url", "http://x", "reload"), "stand behind it"),
            (("--json", "reload"), "stand behind it"),
        ],
    )
    def test_options_that_do_not_go_together_are_refused(self, petsage, arguments, said):
        result = petsage("features", *arguments)
        assert result.returncode == 1
        assert said in result.stderr

    @pytest.mark.parametrize(
        ("answer", "said"),
        [
            ((200, [{"name": "pets"}]), "answers with something else than features"),
            ((200, {"message": "Welcome"}), "answers with something else than features"),
            ((500, {"detail": "\x1b[2Jgone"}), r"refuses: \u001b[2Jgone"),
        ],
    )
    async def test_a_server_that_is_no_petsage_is_one_clear_line(self, petsage, answer, said):
        async with stranger(*answer) as other:
            url = str(other.make_url(""))
            result = await asyncio.to_thread(petsage, "features", "--url", url)
        assert (result.returncode, result.stdout) == (2, "")
        assert said in result.stderr
        assert result.stderr.count("\n") == 1

    async def test_what_a_terminal_would_obey_is_written_out(self, server, petsage):
        hello = shown(petsage, server)["hello"]
        odd = hello.model_copy(update={"name": "a\x1b[2Jb", "routes": ["GET /\r\n"]})
        async with stranger(200, [odd.model_dump(mode="json")]) as other:
            url = str(other.make_url(""))
            result = await asyncio.to_thread(petsage, "features", "--url", url)
        assert "\x1b" not in result.stdout
        assert r"a\u001b[2Jb" in result.stdout
        assert result.stdout.endswith("GET /\\r\\n\n")


def stranger(status: int, body: object) -> test_utils.RawTestServer:
    """A server that answers everything in one way."""

    async def answer(_: web.BaseRequest) -> web.Response:
        return web.json_response(body, status=status)

    return test_utils.RawTestServer(answer)


class TestReload:
    def test_each_change_is_a_line_from_the_copy_to_the_removal(self, server, project, petsage):
        def reload(*names: str) -> tuple[int, list[str]]:
            result = petsage("features", "reload", *names, env=port_of(server))
            assert result.stderr == ""
            return result.returncode, result.stdout.splitlines()

        assert reload() == (0, ["nothing has changed"])

        folder = write_feature(project, "shop", OTHER)
        code, (line,) = reload("shop")
        added = shown(petsage, server)["shop"].generation
        assert (code, line) == (0, f"shop: added, generation {added}")
        assert server.get("/api/v1/shop/me") == (200, {"hello": "me"})

        source = (folder / "__init__.py").read_text()
        (folder / "__init__.py").write_text(source.replace('"hello"', '"bye"'))
        assert reload("hello") == (0, ["nothing has changed"])
        code, (line,) = reload()
        changed = shown(petsage, server)["shop"].generation
        assert (code, line) == (0, f"shop: changed, generation {changed}")
        assert server.get("/api/v1/shop/me") == (200, {"bye": "me"})

        (folder / "__init__.py").write_text("feature = (\n")
        code, (line, fix) = reload()
        assert code == 1
        assert line.startswith("shop: refused, features/shop/__init__.py:1: syntax-error: ")
        assert fix.startswith("    fix: ")
        assert server.get("/api/v1/shop/me") == (200, {"bye": "me"})
        assert reload() == (1, [line, fix])  # it was tried again
        assert reload("hello") == (0, ["nothing has changed"])

        shutil.rmtree(folder)
        assert reload() == (0, ["shop: removed"])
        assert server.get("/api/v1/shop/me")[0] == 404

    def test_what_fails_is_told_with_its_fix_and_exit_code_1_also_as_json(
        self, server, project, petsage
    ):
        write_feature(project, "shop", "feature = 3\n")
        result = petsage("features", "reload", "--json", "--url", server.address)
        assert result.returncode == 1
        answer = json.loads(result.stdout)
        (change,) = answer["changes"]
        assert (change["name"], change["step"], change["generation"]) == ("shop", "failed", None)
        assert change["findings"][0]["fix"] == "end it with `feature = Feature(routes)`"
        assert answer["took_ms"] > 0

    def test_a_wrong_name_is_one_line_with_the_nearest_and_exit_code_2(self, server, petsage):
        result = petsage("features", "reload", "helo", "--url", server.address)
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr == (
            f"petsage: {server.address} refuses: There is no feature `helo`; did you mean "
            "`hello`?; fix: `petsage features` lists what is there\n"
        )

    def test_a_wrong_token_is_one_line_and_exit_code_2(self, server, petsage):
        wrong = {"PETSAGE_MANAGEMENT__TOKEN": "this-is-not-the-token"}
        result = petsage("features", "reload", "--url", server.address, env=wrong)
        assert result.returncode == 2
        assert "does not take the management token" in result.stderr
        assert "fix: set PETSAGE_MANAGEMENT__TOKEN" in result.stderr
        assert result.stderr.count("\n") == 1

    @pytest.mark.parametrize("url", [None, "127.0.0.1:8000"])
    def test_no_server_is_one_line_with_the_fix_and_exit_code_2(
        self, petsage, unused_tcp_port, url
    ):
        named = ("--url", url) if url is not None else ()
        result = petsage(
            "features", "reload", *named, env={"PETSAGE_SERVER__PORT": str(unused_tcp_port)}
        )
        assert (result.returncode, result.stdout) == (2, "")
        said = "is no address of a server" if url is not None else "no PetSage answers at"
        assert said in result.stderr
        assert "; fix: " in result.stderr
        assert result.stderr.count("\n") == 1


def test_what_a_feature_has_done_wrong_stands_below_it_with_the_fix():
    at = datetime.now(UTC) - timedelta(seconds=300)
    troubles = (
        Trouble("loop-blocked", 3, at, "it blocked the event loop", "await it"),
        Trouble("request-failed", 1, at, "it raised", "mend it"),
    )
    entry = Entry("pets", "1.0.0", "serving", (), (), system=False, troubles=troubles)
    told = describe_feature(entry, required=False, leaked=())
    assert list(_notes(told)) == [
        "loop-blocked, 3 times, last 5 min ago: it blocked the event loop",
        "    fix: await it",
        "request-failed, 5 min ago: it raised",
        "    fix: mend it",
    ]


@pytest.mark.parametrize(
    ("age_s", "said"),
    [
        *((-5, "0 s"), (0, "0 s"), (59, "59 s"), (60, "1 min"), (3_599, "59 min"), (3_600, "1 h")),
        *((86_399, "23 h"), (86_400, "1 d"), (900_000, "10 d")),
    ],
)
def test_an_age_is_said_in_the_largest_unit_that_fits(age_s, said):
    assert _age(datetime.now(UTC) - timedelta(seconds=age_s)) == said
