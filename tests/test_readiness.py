"""`/livez` and `/readyz`, through HTTP: who is asked, what is told, and to whom."""

import asyncio
import contextlib
import shutil
import signal
import time
import urllib.request

import pytest
from aiohttp import ClientSession, web

from petsage.catalog import CATALOG
from petsage.health import CHECKS, PROCESS_STATE, ProcessState
from petsage.system.health import HEALTH_JSON, JSON, TEXT, choose_type
from petsage.testing import Client
from tests.conftest import ServerProcess, write_feature
from tests.documented import Answer, DocumentedClient

TOKEN = "a-token-of-enough-characters"
BEARER = {"Authorization": f"Bearer {TOKEN}"}

FEATURE = """
import asyncio
from petsage import AppKey, Check, Feature, Routes

routes = Routes()
BROKEN: AppKey = AppKey("BROKEN", list)
RUNS: AppKey = AppKey("RUNS", list)
HELD: AppKey = AppKey("HELD", asyncio.Event)
BEGUN: AppKey = AppKey("BEGUN", asyncio.Event)

async def lifespan(app):
    app[BROKEN], app[RUNS], app[HELD] = [], [], asyncio.Event()
    app[HELD].set()
    app[BEGUN] = asyncio.Event()
    yield
    app[RUNS].append("stopped")

async def store(app):
    app[RUNS].append(1)
    app[BEGUN].set()
    try:
        await app[HELD].wait()
    except asyncio.CancelledError:
        app[RUNS].append("cut")
        raise
    if app[BROKEN]:
        raise app[BROKEN][0]

async def other(app):
    pass

checks = [Check("store", store, timeout_s=0.3), Check("other", other)]
feature = Feature(routes, lifespan=lifespan, checks=checks)
"""


@pytest.fixture
def petsage_settings(petsage_settings, tmp_path):
    """The settings, with a token, a required feature, and two required sinks."""
    management = petsage_settings.management.model_copy(update={"token": TOKEN})
    catalog = petsage_settings.catalog.model_copy(update={"required": ["pets"]})
    sinks = petsage_settings.logs.sinks
    audit = sinks["stdout"].model_copy(update={"path": tmp_path / "audit.jsonl"})
    logs = petsage_settings.logs.model_copy(update={"sinks": {**sinks, "audit": audit}})
    return petsage_settings.model_copy(
        update={"management": management, "catalog": catalog, "logs": logs}
    )


class Pets:
    """A served feature `pets`, with its application at hand."""

    def __init__(self, client: DocumentedClient) -> None:
        self.client = client
        root = client.client.app
        assert isinstance(root, web.Application)
        self.root = root
        (_, check, self.app), _ = root[CATALOG].checks()
        keys = check.probe.__globals__
        self.broken: list[BaseException] = self.app[keys["BROKEN"]]
        self.runs: list[object] = self.app[keys["RUNS"]]
        self.held: asyncio.Event = self.app[keys["HELD"]]
        self.begun: asyncio.Event = self.app[keys["BEGUN"]]
        self.state: ProcessState = root[PROCESS_STATE]
        self.state.loopback_only = False  # who bears no token is a stranger

    async def get(self, path: str, accept: str | None = None, **headers: str) -> Answer:
        """An answer for one who may look inside."""
        accepted = {"Accept": accept} if accept else {}
        return await self.client.get(path, headers={**BEARER, **accepted, **headers})

    async def text(self, path: str) -> list[str]:
        return (await self.get(path)).body.decode().splitlines()


@pytest.fixture
async def pets(petsage_settings, feature_folder, tmp_path, log_pipeline, feature_client):
    """The feature is not alone: what is required counts as it does when everything is served."""
    from petsage.app import create_app
    from petsage.testing import _client

    feature_folder("pets", FEATURE)
    catalog = petsage_settings.catalog.model_copy(update={"folders": [tmp_path / "features"]})
    settings = petsage_settings.model_copy(update={"catalog": catalog})
    async with _client(create_app(settings), settings) as client:
        document = await (await client.get("/openapi.json")).json()
        yield Pets(DocumentedClient(client, document))


# What is asked


async def test_all_is_well(pets):
    answer = await pets.client.get("/readyz")
    assert (answer.status, answer.kind, answer.body) == (200, TEXT, b"ok")
    assert await pets.text("/readyz?verbose") == [
        "[+]process ok",
        "[+]feature.pets ok",
        "[+]sink.stdout ok",
        "[+]sink.audit ok",
        "[+]pets.store ok",
        "[+]pets.other ok",
        "readyz check passed",
    ]


@pytest.mark.parametrize("phase", ["starting", "draining"])
async def test_a_process_that_starts_or_stops_is_not_ready_whatever_hangs(pets, phase):
    pets.held.clear()
    pets.state.phase = phase
    began = time.monotonic()
    answer = await pets.get("/readyz")
    assert time.monotonic() - began < 0.3
    assert answer.status == 503
    assert answer.body.decode().splitlines()[0] == f"[-]process failed: {phase}"
    assert pets.runs == []
    assert (await pets.client.get("/livez")).status == 200


async def test_a_required_feature_that_no_longer_serves_fails(pets, tmp_path):
    shutil.rmtree(tmp_path / "features" / "pets")
    await pets.root[CATALOG].refresh()
    answer = await pets.get("/readyz?verbose")
    assert answer.status == 503
    assert b"[-]feature.pets failed: there is no such feature" in answer.body


async def test_a_required_sink_that_does_not_write_fails(pets, petsage_settings):
    path = petsage_settings.logs.sinks["stdout"].path
    while not path.is_dir():  # a line that comes in between makes the file anew
        path.unlink(missing_ok=True)
        with contextlib.suppress(FileExistsError):
            path.mkdir()
    answer = await pets.get("/readyz?verbose")
    assert answer.status == 503
    (line,) = [line for line in answer.body.decode().splitlines() if "sink.stdout" in line]
    assert line.startswith("[-]sink.stdout failed: RuntimeError: a line was not written (failed): ")
    assert "directory" in line
    assert b"[+]sink.audit ok" in answer.body
    assert (await pets.client.get("/livez")).status == 200
    path.rmdir()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConnectionRefusedError("no store"), "ConnectionRefusedError: no store"),
        (SystemExit(3), "SystemExit: 3"),
    ],
    ids=["error", "exit"],
)
async def test_a_check_that_raises_fails_with_its_reason(pets, log_lines, error, reason):
    pets.broken.append(error)
    answer = await pets.get("/readyz?verbose")
    assert answer.status == 503
    assert f"[-]pets.store failed: {reason}\n" in answer.body.decode()
    assert "[+]pets.other ok\n" in answer.body.decode()
    assert [
        (line["level"], line["request_id"])
        for line in log_lines()
        if line["message"] == f"Check pets.store fails: {reason}"
    ] == 2 * [("WARNING", None)]  # one in each sink


async def test_a_hung_check_holds_up_neither_the_others_nor_livez(pets):
    pets.held.clear()
    asking = asyncio.create_task(pets.get("/readyz?verbose"))
    await pets.begun.wait()
    assert (await pets.get("/livez?verbose")).status == 200
    assert (await pets.get("/readyz/pets.other")).status == 200
    assert not asking.done()
    lines = (await asking).body.decode().splitlines()
    assert "[-]pets.store failed: no answer within 0.3 s" in lines
    assert any(line.startswith("[+]pets.other ok") for line in lines)


async def test_fifty_who_ask_at_once_are_one_run(pets):
    pets.held.clear()
    asking = [asyncio.create_task(pets.client.get("/readyz")) for _ in range(50)]
    await pets.begun.wait()
    pets.held.set()
    assert {answer.status for answer in await asyncio.gather(*asking)} == {200}
    assert len(pets.runs) == 1


async def test_an_answer_is_kept_for_a_while_and_tells_its_age(pets):
    first = await pets.get("/readyz", JSON)
    second = await pets.get("/readyz", JSON)
    ages = [answer.json["checks"]["pets.store"][0]["age_s"] for answer in (first, second)]
    assert ages[1] > ages[0]
    assert len(pets.runs) == 1


async def test_readiness_proves_the_sinks_with_one_line_for_all_who_ask(pets, log_lines):
    await asyncio.gather(*(pets.get("/readyz") for _ in range(10)))
    markers = [
        line["marker"]
        for line in log_lines()
        if line["message"] == "Readiness proves the log's sinks"
    ]
    assert len(markers) == 2  # one line, in each of two sinks
    assert len(set(markers)) == 1


async def test_a_check_is_found_under_its_own_path(pets):
    pets.broken.append(ValueError("broken"))
    assert (await pets.get("/readyz/process")).body == b"ok"
    assert (await pets.get("/readyz/feature.pets")).status == 200
    assert (await pets.get("/readyz/sink.stdout")).status == 200
    answer = await pets.get("/readyz/pets.store")
    assert answer.status == 503
    assert await pets.text("/readyz/pets.store?verbose") == [
        answer.body.decode().splitlines()[0].partition(" (")[0],
        "readyz/pets.store check failed",
    ]
    assert pets.root[CHECKS].results()["pets.store"].reason == "ValueError: broken"
    missing = await pets.get("/readyz/pets.stor")
    assert missing.status == 404
    assert missing.json["detail"] == "There is no such check; did you mean `pets.store`?"


# What is left out


@pytest.mark.parametrize(
    "query",
    ["exclude=pets.store&exclude=nope", "exclude=nope,%20pets.store", "exclude=,pets.store,"],
)
async def test_what_is_excluded_is_not_asked(pets, query):
    pets.broken.append(ValueError("broken"))
    assert (await pets.client.get(f"/readyz?{query}")).status == 200
    lines = await pets.text(f"/readyz?verbose&{query}")
    assert "[+]pets.store excluded: ok" in lines
    note = "warn: no check is called 'nope', which is to be left out"
    assert (note in lines) == ("nope" in query)
    assert pets.runs == []
    document = (await pets.get(f"/readyz?{query}", JSON)).json
    assert "pets.store" not in document["checks"]
    assert ("notes" in document) == ("nope" in query)


async def test_other_checks_count_though_one_is_excluded(pets):
    pets.broken.append(ValueError("broken"))
    assert (await pets.client.get("/readyz?exclude=pets.other")).status == 503


# Who is told


async def test_strangers_are_told_the_outcome_alone(pets):
    pets.state.loopback_only = False
    for broken in (False, True):
        if broken:
            pets.broken.append(ValueError("broken"))
            pets.root[CHECKS].keep(())
        for query in ("", "?verbose", "?verbose&exclude=nope"):
            answer = await pets.client.get(f"/readyz{query}")
            expected = (503, b"readyz check failed") if broken else (200, b"ok")
            assert (answer.status, answer.body) == expected
            for kind in (JSON, HEALTH_JSON):
                answer = await pets.client.get(f"/readyz{query}", headers={"Accept": kind})
                assert answer.json == {"status": "fail" if broken else "pass"}
    assert (await pets.client.get("/livez?verbose")).body == b"ok"
    assert (await pets.client.get("/livez", headers={"Accept": JSON})).json == {"status": "pass"}


async def test_strangers_cannot_tell_which_checks_there_are(pets):
    pets.state.loopback_only = False
    there = await pets.client.get("/readyz/pets.store")
    nowhere = await pets.client.get("/readyz/nope")
    assert there.status == nowhere.status == 404
    assert there.json["detail"] == nowhere.json["detail"]
    assert pets.runs == []


async def test_reads_are_open_on_loopback(pets):
    pets.state.loopback_only = True
    assert b"[+]process ok" in (await pets.client.get("/readyz?verbose")).body
    assert (await pets.client.get("/readyz/pets.store")).status == 200
    forwarded = {"X-Forwarded-For": "192.0.2.1"}
    answer = await pets.client.get("/readyz?verbose", headers=forwarded)
    assert answer.body == b"ok"


@pytest.mark.parametrize("value", ["0", "false", "No"])
async def test_verbose_can_be_declined(pets, value):
    assert (await pets.get(f"/readyz?verbose={value}")).body == b"ok"


# How it is told


async def test_liveness_shows_what_the_watchdog_saw(pets):
    lines = await pets.text("/livez?verbose")
    assert [line.partition(" ")[0] for line in lines[:2]] == ["[+]event_loop", "[+]stalls"]
    assert lines[-1] == "livez check passed"
    checks = (await pets.get("/livez", HEALTH_JSON)).json["checks"]
    assert checks["event_loop:stalls"][0]["observedValue"] == 0
    assert checks["event_loop:lag"][0]["observedUnit"] == "ms"


@pytest.mark.parametrize("kind", [JSON, HEALTH_JSON])
async def test_a_document_tells_of_each_check(pets, kind):
    pets.broken.append(ValueError("broken"))
    answer = await pets.get("/readyz", kind)
    assert (answer.status, answer.headers["Content-Type"]) == (503, kind)
    assert answer.json["status"] == "fail"
    checks = answer.json["checks"]
    names = "process feature.pets sink.stdout sink.audit pets.store pets.other"
    assert list(checks) == names.split()
    (failed,) = checks["pets.store"]
    assert (failed["status"], failed["output"]) == ("fail", "ValueError: broken")
    assert failed["observedUnit"] == "ms"
    assert "output" not in checks["pets.other"][0]


async def test_head_answers_as_get_does_without_the_body(pets):
    for broken in (False, True):
        if broken:
            pets.broken.append(ValueError("broken"))
            pets.root[CHECKS].keep(())
        for path in ("/livez", "/readyz", "/readyz/pets.store"):
            got = await pets.get(path)
            head = await pets.client.request("HEAD", path, headers=BEARER)
            assert (head.status, head.headers["Content-Type"], head.body) == (
                got.status, got.headers["Content-Type"], b"",
            )  # fmt: skip


async def test_no_answer_is_kept_on_the_way(pets):
    for path in ("/livez", "/readyz", "/readyz/process"):
        answer = await pets.get(path)
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Vary"] == "Accept"
    for path, status in [
        ("/readyz?verbose=1&verbose=2", 422),
        ("/livez?verbose=1&verbose=2", 422),
        ("/readyz/nowhere", 404),
    ]:
        answer = await pets.get(path)
        assert (answer.status, answer.headers["Cache-Control"]) == (status, "no-store")
    for path in ("/livez", "/readyz", "/readyz/process", "/metrics", "/features"):
        refused = await pets.client.request("DELETE", path)
        assert (refused.status, refused.headers["Cache-Control"]) == (405, "no-store"), path
    assert "Cache-Control" not in (await pets.client.request("GET", "/")).headers
    stranger = await pets.client.get("/readyz/process")
    assert (stranger.status, stranger.headers["Cache-Control"]) == (404, "no-store")


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ([], TEXT),
        ([""], TEXT),
        (["*/*"], TEXT),
        (["text/*"], TEXT),
        (["application/json"], JSON),
        (["Application/JSON; charset=utf-8"], JSON),
        (["application/*"], JSON),
        (["application/health+json"], HEALTH_JSON),
        (["application/health+json, application/json;q=0.9"], HEALTH_JSON),
        (["application/json;q=0.2, application/health+json;q=0.9"], HEALTH_JSON),
        (["application/json, text/plain, */*"], JSON),
        (["text/plain;q=0.5, application/json;q=0.4"], TEXT),
        (["*/*, application/json"], JSON),
        (["*/*;q=0.1", "application/json;q=0.5"], JSON),
        (["text/plain;q=0, */*"], JSON),
        (["application/json;q=0"], TEXT),
        (["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"], TEXT),
        (["image/png"], TEXT),
        (["application/json;q=nonsense"], JSON),
        ([", ;q=, /,;;"], TEXT),
    ],
)
def test_the_content_type_is_what_the_client_likes_best(accept, chosen):
    assert choose_type(accept) == chosen


# From start to stop


async def test_a_stop_ends_a_run_before_its_feature(pets):
    pets.held.clear()
    asking = asyncio.create_task(pets.get("/readyz/pets.store"))
    await pets.begun.wait()
    (running,) = [task for task in asyncio.all_tasks() if task.get_name() == "check pets.store"]
    client: Client = pets.client.client
    await client.close()
    assert running.cancelled()
    assert pets.runs == [1, "cut", "stopped"]
    asking.cancel()


HANGS = """
import asyncio
from petsage import Check, Feature, Routes

async def hang(app):
    await asyncio.Event().wait()

feature = Feature(Routes(), checks=[Check("hung", hang, timeout_s=60)])
"""


def test_a_server_is_ready_only_when_its_token_can_be_read(project, unused_tcp_port):
    write_feature(
        project,
        "held",
        """
        import logging
        import os
        import threading
        from petsage import Feature, Routes

        routes = Routes()
        go = threading.Event()
        log = logging.getLogger(__name__)

        @routes.get("/go")
        async def let_go() -> None:
            go.set()

        async def lifespan(app):
            replace = os.replace

            def late(source, target, **folders):  # a stand-in for a slow disk
                log.info("wanted")
                go.wait()
                return replace(source, target, **folders)

            os.replace = late
            yield
            os.replace = replace
            go.set()

        feature = Feature(routes, lifespan=lifespan)
        """,
    )
    server = ServerProcess(
        project, ("--port", str(unused_tcp_port)), {}, begin="PetSage listens on "
    )
    try:
        server.wait_for(lambda line: line["message"] == "wanted")
        token = project.parent / "petsage" / f"{unused_tcp_port}.token"
        kind = {"Accept": JSON}
        assert server.get("/readyz/process", **kind)[0] == 503
        assert not token.exists()

        with urllib.request.urlopen(f"{server.address}/api/v1/go") as answer:
            assert answer.status == 204

        server.wait_for(lambda line: line["message"].startswith("PetSage serves on"))
        assert server.get("/readyz/process", **kind)[0] == 200
        assert token.exists()
        server.signal(signal.SIGTERM)
        assert server.end()[0] == 0
    finally:
        server.kill()


async def test_who_waits_for_a_hung_check_does_not_hold_up_the_stop(project, start_server):
    write_feature(project, "pets", HANGS)
    server = start_server(env={"PETSAGE_SERVER__DRAIN_S": "0", "PETSAGE_SERVER__SHUTDOWN_S": "30"})
    async with ClientSession() as session:
        asking = asyncio.create_task(session.get(f"{server.address}/readyz"))
        marker = "Readiness proves the log's sinks"
        await asyncio.to_thread(server.wait_for, lambda line: line["message"] == marker)
        server.signal(signal.SIGTERM)
        code, _ = await asyncio.to_thread(server.end, 10)
        assert code == 0
        assert (await asking).status == 503
