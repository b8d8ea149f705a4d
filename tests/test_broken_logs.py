"""The fixtures `broken_sink` and `proof_of`: both fail where what they promise is not so.

Over 300 lines because every way of breaking, and every lie, is tried.
"""

import contextlib
import errno
import os
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from petsage.broken_sinks import KINDS, break_sink
from tests.conftest import clean_environment

SMOKE = "/api/v1/smoke-test"
BREAKING = [kind for kind in KINDS if kind != "deleted"]  # a deleted file is made anew
CAUSES = {
    "full": ("failed", "No space left on device"),
    "closed": ("failed", "No such device or address"),
    "stalled": ("timeout", r"not written within .* s"),
    "directory": ("failed", "Is a directory"),
    "unwritable": ("failed", r"Permission denied|Read-only file system|Operation not permitted"),
    "filtered": ("filtered", ".*filter.*"),
    "raising": ("failed", "a filter raised RuntimeError"),
}


@pytest.fixture
def petsage_settings(petsage_settings):
    # What is broken by stalling alone takes this long; the rest is known at once.
    logs = petsage_settings.logs.model_copy(update={"proof_timeout_s": 1.0})
    return petsage_settings.model_copy(update={"logs": logs})


# broken_sink


@pytest.mark.parametrize("kind", ["directory", "full", "closed"])
def test_a_sink_is_broken_though_it_makes_its_file_anew_meanwhile(tmp_path, log_pipeline, kind):
    path = tmp_path / "busy.jsonl"
    is_done = threading.Event()

    def make() -> None:
        while not is_done.is_set():
            with contextlib.suppress(OSError):
                os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK))

    busy = threading.Thread(target=make)
    busy.start()
    try:
        for _ in range(100):
            break_sink(kind, path, log_pipeline).mend()
    finally:
        is_done.set()
        busy.join()


@pytest.mark.parametrize("kind", BREAKING)
async def test_a_broken_sink_fails_a_proof_and_a_mended_one_passes_it(
    petsage_client, broken_sink, proof_of, kind
):
    await proof_of(await petsage_client.get(SMOKE))
    sink = broken_sink(kind)

    broken = await petsage_client.get(SMOKE)
    receipt = await proof_of(broken)
    state, cause = CAUSES[kind]
    assert broken.status == 503
    assert receipt.missing is not None
    assert receipt.missing.state == state
    assert re.fullmatch(cause, str(receipt.missing.error)), receipt.missing.error

    sink.mend()
    mended = await petsage_client.get(SMOKE)
    assert mended.status == 200
    assert (await proof_of(mended)).missing is None


@pytest.mark.parametrize("kind", KINDS)
async def test_what_the_log_held_is_there_again_when_it_is_mended(
    broken_sink, petsage_client, petsage_settings, log_lines, kind
):
    await petsage_client.get("/")
    before = log_lines()

    broken_sink(kind).mend()
    await petsage_client.get("/")

    after = log_lines()
    if kind == "deleted":
        assert after[0] not in before
    else:
        assert after[: len(before)] == before
        assert len(after) > len(before)
    assert list(petsage_settings.logs.sinks["stdout"].path.parent.glob(".*")) == []


async def test_a_file_that_was_deleted_is_made_anew_and_has_the_line(
    petsage_client, broken_sink, proof_of
):
    await petsage_client.get(SMOKE)
    broken_sink("deleted")

    assert (await proof_of(await petsage_client.get(SMOKE))).missing is None


def test_a_sink_is_mended_when_another_way_is_asked_for(broken_sink, petsage_settings):
    path = petsage_settings.logs.sinks["stdout"].path
    full = broken_sink("full")
    assert path.is_symlink()
    broken_sink("directory")
    assert path.is_dir()
    full.mend()  # once more changes nothing
    assert path.is_dir()


async def test_a_file_that_the_sink_has_begun_meanwhile_keeps_its_lines(
    petsage_client, broken_sink, log_lines
):
    await petsage_client.get("/")
    before = log_lines()
    sink = broken_sink("full")
    sink.path.unlink()
    sink.path.write_text('{"message": "quicker"}\n')
    sink.undo.pop()  # what would have taken the link away

    sink.mend()

    assert [line["message"] for line in log_lines()] == [
        "quicker",
        *(line["message"] for line in before),
    ]


def write_nothing(*_):
    raise BlockingIOError(errno.EAGAIN, "as if the pipe were full")


def test_a_sink_that_is_not_broken_after_all_fails_the_test(broken_sink, log_pipeline, monkeypatch):
    """The system does other than it was told, as on a machine where a way does not work."""
    ways = {
        "full": (Path, "symlink_to", lambda path, target: path.touch()),
        "closed": (os, "mkfifo", lambda path: Path(path).touch()),
        "stalled": (os, "write", write_nothing),
        "directory": (Path, "mkdir", lambda path, **_: path.exists() or path.touch()),
        "unwritable": (Path, "symlink_to", lambda path, target: path.touch()),
        "filtered": (log_pipeline, "addFilter", lambda _: None),
        "raising": (log_pipeline, "addFilter", lambda _: None),
    }
    if os.geteuid() != 0:
        ways["unwritable"] = (Path, "chmod", lambda path, mode: None)
    assert list(ways) == BREAKING
    for kind, sabotage in ways.items():
        with monkeypatch.context() as patched:
            patched.setattr(*sabotage)
            patched.setattr(Path, "rmdir", Path.unlink)
            with pytest.raises(pytest.fail.Exception, match=f"is not broken as '{kind}'"):
                broken_sink(kind)


def test_a_kind_or_a_sink_that_is_not_there_fails_the_test_with_the_right_name(broken_sink):
    with pytest.raises(pytest.fail.Exception, match="did you mean `full`"):
        broken_sink("fulll")
    with pytest.raises(pytest.fail.Exception, match="did you mean `stdout`"):
        broken_sink("full", "stdot")


@pytest.mark.parametrize("fixtures", ["petsage_client, broken_sink", "broken_sink, petsage_client"])
def test_what_a_test_breaks_is_mended_at_its_end_whatever_the_order_of_fixtures(
    tmp_path, warm_pytest, fixtures
):
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -p no:cacheprovider\n")
    (tmp_path / "test_it.py").write_text(
        f"""
import pytest

@pytest.fixture(autouse=True)
def mended(petsage_settings):
    yield  # the last to be torn down but for the settings
    path = petsage_settings.logs.sinks["stdout"].path
    assert path.is_file() and not path.is_symlink()
    assert b"petsage.access" in path.read_bytes()

@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["full", "stalled", "directory"])
async def test_it({fixtures}, kind, log_lines):
    await petsage_client.get("/")
    assert log_lines()
    broken_sink(kind)
    await petsage_client.get("/")
"""
    )
    done = warm_pytest.run(("-q",), cwd=tmp_path, env=clean_environment(), stdin="", timeout_s=60)

    assert "3 passed" in done.stdout, done.stdout
    assert done.returncode == 0


# proof_of


@pytest.fixture
async def answering(log_pipeline):
    """Call it with an answer's parts for that answer, from a real server that may lie."""
    served: dict[str, Any] = {}

    async def handle(request):
        return web.json_response(served["body"], status=served["status"], headers=served["headers"])

    app = web.Application()
    app.router.add_get("/probe", handle)
    async with TestClient(TestServer(app)) as client:

        async def answer(body, status=200, headers=None):
            served.update(body=body, status=status, headers=headers or {})
            return await client.get("/probe")

        yield answer


@pytest.fixture
async def true(petsage_client):
    """Body and headers of an answer that is true."""
    response = await petsage_client.get(SMOKE)
    return await response.json(), {"X-Log-Marker": response.headers["X-Log-Marker"]}


async def test_an_answer_that_is_true_gives_its_receipt(answering, proof_of, true):
    body, headers = true
    receipt = await proof_of(await answering(body, headers=headers))

    assert receipt.marker == body["proof"]["marker"]
    assert [(sink.name, sink.state) for sink in receipt.sinks] == [("stdout", "written")]


def with_sink(body, **changes):
    (sink,) = body["proof"]["sinks"]
    return {**body, "proof": {**body["proof"], "sinks": [{**sink, **changes}]}}


LIES = {
    "no proof": (lambda body: {"status": "ok"}, 200, "it has no `proof`"),
    "no object": (lambda body: [1], 200, "it has no `proof`"),
    "no marker": (lambda body: {**body, "proof": {"sinks": []}}, 200, "`proof.marker`"),
    "another marker": (
        lambda body: {**body, "proof": {**body["proof"], "marker": "f" * 32}},
        200,
        "X-Log-Marker",
    ),
    "no such state": (lambda body: with_sink(body, state="sent"), 200, "`proof.sinks.0.state`"),
    "a sink left out": (
        lambda body: {**body, "proof": {**body["proof"], "sinks": []}},
        200,
        "its sinks",
    ),
    "a sink said to be optional": (lambda body: with_sink(body, required=False), 200, "its sinks"),
    "ok while a sink failed": (lambda body: with_sink(body, state="failed"), 200, "it is 200 'ok'"),
    "fail while all is written": (lambda body: {**body, "status": "fail"}, 503, "it is 503 'fail'"),
    "503 that says ok": (lambda body: with_sink(body, state="failed"), 503, "it is 503 'ok'"),
    "a sink that is not named": (
        lambda body: {**with_sink(body, state="failed"), "status": "fail", "message": "no"},
        503,
        "does not name the sink stdout",
    ),
    "filtered, and there all the same": (
        lambda body: {
            **with_sink(body, state="filtered"),
            "status": "fail",
            "message": "stdout",
        },
        503,
        "has the line 1 times and not 0",
    ),
}


@pytest.mark.parametrize("lie", LIES)
async def test_an_answer_that_lies_fails_the_test_and_says_where(answering, proof_of, true, lie):
    body, headers = true
    change, status, said = LIES[lie]

    with pytest.raises(pytest.fail.Exception, match="the answer of /probe does not hold") as failed:
        await proof_of(await answering(change(body), status, headers))

    assert said in str(failed.value)


@pytest.mark.parametrize(
    "tampering",
    [
        (lambda lines, marker: [line for line in lines if marker not in line], 0),
        (lambda lines, marker: [*lines, *(line for line in lines if marker in line)], 2),
        (lambda lines, marker: [line.replace(marker, f"x{marker}") for line in lines], 0),
        (lambda lines, marker: [line[:-9] if marker in line else line for line in lines], 0),
    ],
    ids=["gone", "twice", "another", "torn"],
)
async def test_a_line_that_is_not_in_the_file_exactly_once_fails_the_test(
    answering, proof_of, true, petsage_settings, tampering
):
    (body, headers), (change, times) = true, tampering
    path = petsage_settings.logs.sinks["stdout"].path
    lines = change(path.read_text().splitlines(keepends=True), body["proof"]["marker"])
    path.write_text("".join(lines))

    with pytest.raises(pytest.fail.Exception, match=f"has the line {times} times and not 1"):
        await proof_of(await answering(body, headers=headers))


async def test_a_line_that_was_rotated_away_meanwhile_is_there(
    answering, proof_of, true, petsage_settings
):
    body, headers = true
    path = petsage_settings.logs.sinks["stdout"].path
    path.rename(f"{path}.1")

    assert (await proof_of(await answering(body, headers=headers))).missing is None


async def test_the_answer_to_a_head_has_no_proof_to_be_read(petsage_client, proof_of):
    with pytest.raises(pytest.fail.Exception, match="it has no `proof`"):
        await proof_of(await petsage_client.head(SMOKE))
