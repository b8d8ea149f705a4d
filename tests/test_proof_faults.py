"""The smoke test while its log is broken: what it says in each case, and that it recovers.

Over 300 lines because logs break in many ways, and each is had for real.
"""

import asyncio
import contextlib
import ctypes
import fcntl
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from petsage.log_search import MarkerSearch
from tests.conftest import ROOT, clean_environment

SMOKE = "/api/v1/smoke-test"
LOGGER = "features.smoke_test.routes"
HEALTHY = "PetSage service is healthy. Log verification message generated."
PROOF_TIMEOUT_S = 0.3
QUICK_S = 0.25
DEADLINE_S = 20


class Server:
    """`petsage serve` as a process whose standard output is given; it tells its address on stderr.

    Args:
        sinks: the settings of sinks beside `told`, which is stderr and not required.
        stdout: what the process gets as its standard output; None for a closed one.
    """

    def __init__(self, folder: Path, sinks: dict[str, Any], stdout: int | None = None) -> None:
        sinks = {"told": {"kind": "stderr"}, "stdout": {"kind": "stdout"}, **sinks}
        command = [sys.executable, "-m", "petsage", "serve", "--port", "0"]
        if stdout is None:
            command = ["sh", "-c", 'exec "$@" >&-', "sh", *command]
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env={
                **clean_environment(),
                "PETSAGE_CATALOG__FOLDERS": json.dumps([str(ROOT / "features")]),
                "PETSAGE_LOGS__SINKS": json.dumps(sinks),
                "PETSAGE_LOGS__PROOF_TIMEOUT_S": str(PROOF_TIMEOUT_S),
                "PETSAGE_SERVER__DRAIN_S": "0",
            },
            stdout=stdout,
            stderr=subprocess.PIPE,
        )
        assert self.process.stderr is not None
        said = []
        for line in self.process.stderr:
            said.append(line)
            found = re.search(rb"PetSage serves on (http://[\d.:]+)", line)
            if found is not None:
                self.address = found[1].decode()
                break
        else:
            raise AssertionError(f"it does not serve: {said}")
        # Somebody has to read on, or stderr stalls as well.
        self._reader = threading.Thread(target=self.process.stderr.read, daemon=True)
        self._reader.start()

    def get(self, path: str = SMOKE) -> tuple[int, dict[str, Any]]:
        try:
            with urllib.request.urlopen(f"{self.address}{path}", timeout=DEADLINE_S) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())

    def end(self) -> None:
        self.process.kill()
        self.process.wait(DEADLINE_S)
        self._reader.join(DEADLINE_S)
        assert self.process.stderr is not None
        self.process.stderr.close()


@contextlib.contextmanager
def serving(
    folder: Path, sinks: dict[str, Any], stdout: int | None = subprocess.DEVNULL
) -> Iterator[Server]:
    server = Server(folder, sinks, stdout)
    try:
        yield server
    finally:
        server.end()


def a_file(path: Path, **options: Any) -> dict[str, Any]:
    return {"file": {"kind": "file", "path": str(path), "required": True, **options}}


def must_be_whole(case: str, answer: tuple[int, dict[str, Any]], log: Path | None = None) -> None:
    """The answer says that all is well, and the line is in the file exactly once."""
    status, body = answer
    assert (status, body["status"], body["message"]) == (200, "ok", HEALTHY), (case, body)
    assert {sink["state"] for sink in body["proof"]["sinks"] if sink["required"]} == {"written"}
    if log is not None:
        assert MarkerSearch(body["proof"]["marker"]).count_in(log.read_bytes()) == 1, case


def must_be_broken(
    case: str, answer: tuple[int, dict[str, Any]], sink: str, state: str, cause: str
) -> None:
    """The answer says that one sink does not have the line, and why."""
    status, body = answer
    assert (status, body["status"]) == (503, "fail"), (case, body)
    (told,) = [each for each in body["proof"]["sinks"] if each["name"] == sink]
    assert told["state"] == state, (case, body)
    assert re.search(cause, told["error"]), (case, body)
    assert sink in body["message"], (case, body)
    assert told["error"] in body["message"], (case, body)


# The file, under a server of its own


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 128 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system wants root")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(path: Path) -> None:
    """Takes all the space that is left, to the last byte of the last page."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)


def test_a_disk_that_is_full_is_told_until_there_is_room_again(small_disk, tmp_path):
    log = small_disk / "petsage.jsonl"
    with serving(tmp_path, a_file(log)) as server:
        must_be_whole("full disk: before", server.get(), log)
        fill(small_disk / "filler")
        answers = [server.get() for _ in range(12)]  # the file's last page has some room
        must_be_broken("full disk", answers[-1], "file", "failed", "No space left on device")

        (small_disk / "filler").unlink()

        must_be_whole("full disk: room again", server.get(), log)
        lines = log.read_bytes().splitlines()
        assert sum(b"disk" in line for line in lines) == 0
        whole = [line for line in lines if line.endswith(b"}")]
        assert len(lines) - len(whole) <= 1  # what was torn is ended before the next line
        for line in whole:
            json.loads(line)


def test_a_file_on_dev_full_is_told_until_it_is_another(tmp_path):
    log = tmp_path / "petsage.jsonl"
    log.symlink_to("/dev/full")
    with serving(tmp_path, a_file(log)) as server:
        must_be_broken("/dev/full", server.get(), "file", "failed", "No space left on device")
        log.unlink()
        must_be_whole("/dev/full: another file", server.get(), log)


def test_a_file_that_is_deleted_or_moved_is_made_anew_at_once(tmp_path):
    log = tmp_path / "logs" / "petsage.jsonl"
    with serving(tmp_path, a_file(log)) as server:
        server.get()
        log.unlink()
        must_be_whole("file deleted", server.get(), log)

        moved = log.rename(log.with_name("elsewhere.jsonl"))
        status, body = server.get()
        must_be_whole("file moved", (status, body), log)
        assert MarkerSearch(body["proof"]["marker"]).count_in(moved.read_bytes()) == 0

        log.parent.rename(tmp_path / "gone")
        must_be_whole("folder moved", server.get(), log)


def test_a_folder_in_the_place_of_the_file_is_told_until_it_is_gone(tmp_path):
    log = tmp_path / "petsage.jsonl"
    with serving(tmp_path, a_file(log)) as server:
        server.get()
        log.unlink()
        log.mkdir()
        must_be_broken("a directory", server.get(), "file", "failed", "Is a directory")
        log.rmdir()
        must_be_whole("a directory: gone", server.get(), log)


def test_a_folder_that_nothing_can_be_made_in_is_told_until_it_can(tmp_path):
    folder = tmp_path / "logs"
    log = folder / "petsage.jsonl"
    with serving(tmp_path, a_file(log)) as server:
        server.get()
        folder.rename(tmp_path / "before")
        if os.geteuid() == 0:
            folder.symlink_to("/sys")  # root may write wherever a file system lets it
        else:
            folder.mkdir(mode=0o555)
        must_be_broken(
            "folder unwritable",
            server.get(),
            "file",
            "failed",
            "Permission denied|Read-only file system|Operation not permitted",
        )
        folder.unlink() if os.geteuid() == 0 else folder.rmdir()
        must_be_whole("folder unwritable: writable again", server.get(), log)


# Standard output, under a server of its own


def test_a_standard_output_that_was_closed_from_the_start_is_told(tmp_path):
    with serving(tmp_path, {"stdout": {"kind": "stdout", "required": True}}, None) as server:
        must_be_broken("stdout closed", server.get(), "stdout", "failed", "Bad file descriptor")
        status, _ = server.get("/")
        assert status == 200


def test_a_standard_output_whose_reader_has_gone_is_told_and_the_file_has_the_line(tmp_path):
    log = tmp_path / "petsage.jsonl"
    reader, writer = os.pipe()
    sinks = {"stdout": {"kind": "stdout", "required": True}, **a_file(log)}
    with serving(tmp_path, sinks, writer) as server:
        os.close(writer)
        os.close(reader)
        status, body = server.get()
        must_be_broken("stdout's reader gone", (status, body), "stdout", "failed", "Broken pipe")
        assert [each["state"] for each in body["proof"]["sinks"] if each["name"] == "file"] == [
            "written"
        ]
        assert MarkerSearch(body["proof"]["marker"]).count_in(log.read_bytes()) == 1


def test_a_reader_that_sleeps_holds_up_neither_file_nor_loop_nor_other_routes(tmp_path):
    log = tmp_path / "petsage.jsonl"
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    sinks = {"stdout": {"kind": "stdout", "required": True}, **a_file(log)}
    with serving(tmp_path, sinks, writer) as server:
        os.close(writer)
        for _ in range(20):  # more than the pipe holds; the server must not mind
            assert server.get("/")[0] == 200
        status, body = server.get()
        must_be_broken("stdout not read", (status, body), "stdout", "timeout", "not written within")
        (file,) = [each for each in body["proof"]["sinks"] if each["name"] == "file"]
        assert file["state"] == "written"
        assert file["took_ms"] < QUICK_S * 1000
        assert MarkerSearch(body["proof"]["marker"]).count_in(log.read_bytes()) == 1

        asking = threading.Thread(target=server.get)
        asking.start()  # a smoke test waits in the server, and others are answered meanwhile
        took_s = {path: sorted(took(server, path) for _ in range(10)) for path in ("/", "/livez")}
        asking.join(DEADLINE_S)
        assert max(times[5] for times in took_s.values()) < QUICK_S

        awake = threading.Thread(target=drain, args=(reader,))
        awake.start()
        recovered = until_whole(server)
        must_be_whole("stdout not read: read again", recovered, log)
        server.process.kill()
        awake.join(DEADLINE_S)
    os.close(reader)


def test_a_server_that_is_killed_loses_no_proven_line_and_tears_none(tmp_path):
    log = tmp_path / "petsage.jsonl"
    with serving(tmp_path, a_file(log)) as server:
        for _ in range(20):
            server.get("/")
        written = server.get()
        server.process.kill()  # SIGKILL: nobody can do anything more
        server.process.wait(DEADLINE_S)
    must_be_whole("killed", written, log)
    lines = [json.loads(line) for line in log.read_bytes().splitlines()]
    # What came before the proof was written with it; the proof's own access line may be lost.
    assert sum(line["message"] == "GET / 200" for line in lines) == 20
    assert log.read_bytes().endswith(b"\n")


def test_a_server_that_is_killed_loses_what_flush_ms_holds_at_most(tmp_path):
    log = tmp_path / "petsage.jsonl"
    with serving(tmp_path, a_file(log)) as server:
        server.get("/")
        deadline = time.monotonic() + DEADLINE_S
        while b'"GET / 200"' not in (log.read_bytes() if log.exists() else b""):
            assert time.monotonic() < deadline  # it is written without anybody's asking for it
            time.sleep(0.005)
        server.process.kill()
        server.process.wait(DEADLINE_S)
    assert b'"GET / 200"' in log.read_bytes()


def took(server: Server, path: str) -> float:
    started = time.monotonic()
    with urllib.request.urlopen(f"{server.address}{path}", timeout=DEADLINE_S) as answer:
        assert answer.status == 200
    return time.monotonic() - started


def drain(reader: int) -> None:
    while os.read(reader, 65536):
        pass


def until_whole(server: Server) -> tuple[int, dict[str, Any]]:
    """Asks until what waited has been written; each answer is an event of its own."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        answer = server.get()
        if answer[0] == 200 or time.monotonic() > deadline:
            return answer


# What swallows the line before any sink


@pytest.fixture
def log(petsage_settings):
    return petsage_settings.logs.sinks["stdout"].path


@pytest.fixture
def ask(petsage_client):
    async def get() -> tuple[int, dict[str, Any]]:
        response = await petsage_client.get(SMOKE)
        return response.status, await response.json()

    return get


@pytest.mark.parametrize("name", [LOGGER, "features", "root"])
async def test_a_level_that_leaves_the_line_out_is_told_until_it_lets_it_pass(ask, log, name):
    logger = logging.getLogger(None if name == "root" else name)
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        must_be_broken(f"level of {name}", await ask(), "stdout", "filtered", "level or a filter")
    finally:
        logger.setLevel(before)
    must_be_whole(f"level of {name}: back", await ask(), log)


class TestASinkOfItsOwnLevel:
    @pytest.fixture
    def petsage_settings(self, petsage_settings):
        sink = petsage_settings.logs.sinks["stdout"].model_copy(update={"level": "WARNING"})
        logs = petsage_settings.logs.model_copy(update={"sinks": {"stdout": sink}})
        return petsage_settings.model_copy(update={"logs": logs})

    async def test_the_sinks_level_is_told(self, ask):
        must_be_broken("level of the sink", await ask(), "stdout", "filtered", "level or a filter")


@pytest.mark.parametrize("kind", ["logger", "handler"])
@pytest.mark.parametrize("raises", [False, True], ids=["refuses", "raises"])
async def test_a_filter_that_refuses_or_raises_is_told_until_it_is_gone(
    ask, log, log_pipeline, kind, raises
):
    def swallow(record):
        if raises:
            raise RuntimeError("this filter is broken")
        return False

    owner = logging.getLogger(LOGGER) if kind == "logger" else log_pipeline
    owner.addFilter(swallow)
    try:
        answer = await ask()
    finally:
        owner.removeFilter(swallow)
    case = f"a filter on the {kind} {'raises' if raises else 'refuses'}"
    if raises:
        must_be_broken(case, answer, "stdout", "failed", "a filter raised RuntimeError")
    else:
        must_be_broken(case, answer, "stdout", "filtered", "a level or a filter")
    must_be_whole(f"{case}: gone", await ask(), log)


# The process itself


async def test_a_writer_thread_that_dies_is_told_or_replaced_and_the_next_line_is_whole(ask, log):
    must_be_whole("writer thread: before", await ask(), log)
    (thread,) = [each for each in threading.enumerate() if each.name == "log-sink-stdout"]
    assert thread.ident is not None
    killed = ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit)
    )
    assert killed == 1

    first = await ask()  # wakes it, and so ends it
    if first[0] == 200:
        must_be_whole("writer thread died", first, log)
    else:
        must_be_broken("writer thread died", first, "stdout", "failed", ".")
    must_be_whole("writer thread died: another one", await ask(), log)


@pytest.mark.parametrize("by_s", [-3600.0, 3600.0])
async def test_a_clock_that_is_set_changes_timestamps_and_nothing_else(ask, log, monkeypatch, by_s):
    must_be_whole("clock: before", await ask(), log)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + by_s)

    status, body = await ask()

    must_be_whole(f"clock set by {by_s:.0f} s", (status, body), log)
    (sink,) = body["proof"]["sinks"]
    assert 0 <= sink["took_ms"] < PROOF_TIMEOUT_S * 1000


async def test_a_thousand_calls_at_once_have_a_line_of_their_own_each(petsage_client, log):
    async def call() -> str:
        async with petsage_client.get(SMOKE) as response:
            assert response.status == 200
            marker: str = (await response.json())["proof"]["marker"]
            return marker

    markers = await asyncio.gather(*(call() for _ in range(1000)))

    assert len(set(markers)) == 1000
    told = [json.loads(line).get("marker") for line in log.read_bytes().splitlines()]
    assert sorted(marker for marker in told if marker is not None) == sorted(markers)
