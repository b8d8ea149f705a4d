"""Proofs: a line is said to be written when it is, and not before."""

import asyncio
import ctypes
import json
import logging
import os
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from petsage.logs.pipeline import Pipeline, prove, prove_sinks
from petsage.logs.proofs import OPTIONAL_WAIT_S
from petsage.logs.receipts import Receipt
from petsage.logs.sinks import Account, Sink
from petsage.logs.targets import FileTarget, Outcome
from petsage.settings import LogsSettings, SinkSettings

PATIENCE_S = 60.0
PETS = logging.getLogger("features.pets.routes")


@contextmanager
def a_log(proof_timeout_s: float = PATIENCE_S, **sinks: dict[str, Any]) -> Iterator[Pipeline]:
    """An installed pipeline; its sinks' lines wait for others longer than any test."""
    settings = LogsSettings.model_validate(
        {"flush_ms": 60_000, "proof_timeout_s": proof_timeout_s, "sinks": sinks}
    )
    pipeline = Pipeline(settings, version="1.2.3")
    pipeline.install()
    try:
        yield pipeline
    finally:
        pipeline.uninstall()


def a_file(path: Path, **more: Any) -> dict[str, Any]:
    return {"kind": "file", "path": path, "required": True, **more}


def markers_in(path: Path) -> list[str]:
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    return [line["marker"] for line in lines if "marker" in line]


def states_of(receipt: Receipt) -> list[tuple[str, str, str | None]]:
    return [(sink.name, sink.state, sink.error) for sink in receipt.sinks]


@pytest.fixture
def stuck(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A FIFO whose reader does not read and that is full, and the reader's end."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    try:
        while True:
            os.write(writer, b"\n" * 4096)
    except BlockingIOError:
        pass
    os.close(writer)
    yield path, reader
    os.close(reader)


def drain(reader: int) -> bytes:
    data = b""
    while True:
        try:
            more = os.read(reader, 65_536)
        except BlockingIOError:
            return data
        if not more:
            return data
        data += more


def let_it_stand_still(sink: Sink) -> None:
    """Has a sink begin a write, of what is queued, that does not return."""
    sink.hurry()
    deadline = time.monotonic() + PATIENCE_S
    while not sink.stands_still_for_s():
        assert time.monotonic() < deadline
        time.sleep(0.001)


# Written


async def test_a_line_is_in_the_file_when_its_proof_is_there(tmp_path):
    path = tmp_path / "log.jsonl"
    with a_log(file=a_file(path)):
        receipt = await prove(PETS, "told")
        assert markers_in(path) == [receipt.marker]
    assert states_of(receipt) == [("file", "written", None)]
    assert receipt.missing is None
    assert 0 < receipt.sinks[0].took_ms < PATIENCE_S * 1000


@pytest.fixture
def name_of_this_process() -> Iterator[Path]:
    """A file of the kernel that takes any write whole, and keeps 15 bytes of it."""
    path = Path("/proc/self/comm")
    before = path.read_bytes()
    yield path
    path.write_bytes(before)


async def test_a_line_that_cannot_be_read_back_is_not_written(name_of_this_process, capfd):
    with a_log(file=a_file(name_of_this_process)) as pipeline:
        receipt = await prove(PETS, "told")
        account = pipeline.accounts()["file"]
    assert states_of(receipt) == [("file", "failed", "What was written could not be read back")]
    assert account == Account(1, written=0, dropped=0, failed=1, filtered=0, queued=0)
    assert account.failed_by == {"EIO": 1}


async def test_a_line_that_is_another_on_the_disk_is_not_written(tmp_path, monkeypatch, capfd):
    write = os.write

    def garble(descriptor: int, data: bytes) -> int:
        """The system's, over a disk that keeps something else than it was given."""
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        return write(descriptor, bytes(len(data)) if path.name == "log.jsonl" else data)

    with a_log(file=a_file(tmp_path / "log.jsonl")):
        monkeypatch.setattr(os, "write", garble)
        receipt = await prove(PETS, "told")
        monkeypatch.undo()
    assert states_of(receipt) == [("file", "failed", "What was written could not be read back")]


async def test_a_file_that_moves_while_it_is_written_to_has_the_line_under_its_path(
    tmp_path, monkeypatch
):
    path = tmp_path / "log.jsonl"
    read_at = os.pread

    def move_then_read(descriptor: int, length: int, offset: int) -> bytes:
        """The system's, and somebody who rotates the file just before it."""
        if length > 1:
            monkeypatch.undo()
            path.rename(tmp_path / "moved.jsonl")
        return read_at(descriptor, length, offset)

    with a_log(file=a_file(path)):
        monkeypatch.setattr(os, "pread", move_then_read)
        receipt = await prove(PETS, "told")
    assert states_of(receipt) == [("file", "written", None)]
    assert markers_in(path) == [receipt.marker]
    assert markers_in(tmp_path / "moved.jsonl") == [receipt.marker]


async def test_a_file_that_is_replaced_each_time_is_given_up(tmp_path, monkeypatch, capfd):
    path = tmp_path / "log.jsonl"
    read_at = os.pread

    def remove_then_read(descriptor: int, length: int, offset: int) -> bytes:
        path.unlink(missing_ok=True)
        return read_at(descriptor, length, offset)

    with a_log(file=a_file(path)):
        monkeypatch.setattr(os, "pread", remove_then_read)
        receipt = await prove(PETS, "told")
        monkeypatch.undo()
        assert (await prove(PETS, "told")).missing is None
    assert states_of(receipt) == [
        ("file", "failed", "The file is replaced each time that it is written to")
    ]


async def test_a_line_in_a_file_that_others_append_to_is_found_at_its_own_offset(tmp_path):
    path = tmp_path / "log.jsonl"
    stop = threading.Event()

    def append() -> None:
        with path.open("ab", buffering=0) as file:
            while not stop.is_set():
                file.write(b'{"other": true}\n')

    other = threading.Thread(target=append)
    with a_log(file=a_file(path)):
        await prove(PETS, "first")
        other.start()
        receipts = [await prove(PETS, "told") for _ in range(100)]
        stop.set()
        other.join()
    assert [receipt.missing for receipt in receipts] == [None] * 100


async def test_a_line_that_somebody_tore_meanwhile_is_ended_before_the_next(tmp_path):
    path = tmp_path / "log.jsonl"
    with a_log(file=a_file(path)):
        await prove(PETS, "first")
        with path.open("ab") as file:
            file.write(b"torn by another")
        receipt = await prove(PETS, "second")
    assert receipt.missing is None
    first, torn, second = path.read_bytes().splitlines()
    assert torn == b"torn by another"
    assert json.loads(second)["marker"] == receipt.marker
    assert json.loads(first)["message"] == "first"


async def test_a_line_that_is_torn_just_before_the_next_is_not_taken_for_its_begin(
    tmp_path, monkeypatch, capfd
):
    path = tmp_path / "log.jsonl"
    write = os.write

    def tear_then_write(descriptor: int, data: bytes) -> int:
        """The system's, and somebody else who writes half a line just before it."""
        if Path(f"/proc/self/fd/{descriptor}").readlink() == path:
            monkeypatch.undo()
            with path.open("ab") as file:
                file.write(b"torn by another")
        return write(descriptor, data)

    with a_log(file=a_file(path)):
        await prove(PETS, "first")
        monkeypatch.setattr(os, "write", tear_then_write)
        receipt = await prove(PETS, "second")
    why = "Another's torn line stands before what was written"
    assert states_of(receipt) == [("file", "failed", why)]


def test_of_two_that_rotate_one_file_neither_loses_a_line_of_the_other(tmp_path):
    path = tmp_path / "log.jsonl"
    lost: list[Outcome] = []

    def write(name: str) -> None:
        target = FileTarget(path, max_bytes=2_000, backups=500)
        for number in range(500):
            outcome = target.write([b'{"name": "%s", "n": %d}\n' % (name.encode(), number)])
            if outcome != Outcome(1):
                lost.append(outcome)
        target.close()

    threads = [threading.Thread(target=write, args=(name,)) for name in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lost == []
    there = {
        (line["name"], line["n"])
        for file in tmp_path.iterdir()
        for line in map(json.loads, file.read_bytes().splitlines())
    }
    assert there == {(name, number) for name in "abc" for number in range(500)}
    assert len(list(tmp_path.iterdir())) > 3  # it was moved, though not at each moment


async def test_with_fsync_a_line_is_written_when_the_disk_has_it(tmp_path, monkeypatch):
    synced: list[int] = []
    synchronize = os.fdatasync

    def note(descriptor: int) -> None:
        synced.append(descriptor)
        synchronize(descriptor)

    monkeypatch.setattr(os, "fdatasync", note)
    with a_log(file=a_file(tmp_path / "without.jsonl")):
        await prove(PETS, "told")
        assert synced == []
    with a_log(file=a_file(tmp_path / "with.jsonl", fsync=True)):
        assert (await prove(PETS, "told")).missing is None
        assert len(synced) == 1


async def test_a_disk_that_does_not_take_what_it_is_to_sync_fails_the_line(tmp_path, monkeypatch):
    def fail(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    with a_log(file=a_file(tmp_path / "log.jsonl", fsync=True)):
        receipt = await prove(PETS, "told")
    assert states_of(receipt) == [("file", "failed", "Input/output error")]


# Together


async def test_many_proofs_at_once_share_a_write_and_each_has_its_own_line(tmp_path, monkeypatch):
    path = tmp_path / "log.jsonl"
    writes: list[int] = []
    write = FileTarget.write

    def counted(target: FileTarget, lines: list[bytes]) -> Outcome:
        writes.append(len(lines))
        return write(target, lines)

    monkeypatch.setattr(FileTarget, "write", counted)
    with a_log(file=a_file(path)):
        receipts = await asyncio.gather(*(prove(PETS, "told") for _ in range(64)))
    assert writes == [64]
    assert markers_in(path) == [receipt.marker for receipt in receipts]
    assert len(set(markers_in(path))) == 64


async def test_proofs_of_turns_that_follow_each_other_wake_a_sink_once(tmp_path, monkeypatch):
    path = tmp_path / "log.jsonl"
    woken: list[str] = []
    hurry = Sink.hurry

    def counted(sink: Sink) -> None:
        woken.append(sink.name)
        hurry(sink)

    monkeypatch.setattr(Sink, "hurry", counted)
    with a_log(file=a_file(path)):
        proofs = []
        for _ in range(4):
            proofs.append(asyncio.create_task(prove(PETS, "told")))
            await asyncio.sleep(0)
        receipts = await asyncio.gather(*proofs)
        assert woken == ["file"]
    assert markers_in(path) == [receipt.marker for receipt in receipts]


async def test_a_proof_waits_for_no_more_than_a_few_turns_that_bring_others(tmp_path):
    with a_log(file=a_file(tmp_path / "log.jsonl")):
        first = asyncio.create_task(prove(PETS, "told"))
        others = []
        async with asyncio.timeout(PATIENCE_S):
            while not first.done():
                others.append(asyncio.create_task(prove(PETS, "told")))
                await asyncio.sleep(0)
        assert {(await each).missing for each in (first, *others)} == {None}


async def test_a_caller_that_is_cancelled_takes_no_other_along(tmp_path):
    with a_log(file=a_file(tmp_path / "log.jsonl")):
        first, second = (asyncio.create_task(prove(PETS, "told")) for _ in range(2))
        await asyncio.sleep(0)  # both wait for one round
        first.cancel()
        assert (await second).missing is None
        with pytest.raises(asyncio.CancelledError):
            await first


def test_proofs_in_several_event_loops_at_once_are_all_answered(tmp_path):
    path = tmp_path / "log.jsonl"
    receipts: list[Receipt] = []

    async def prove_often() -> None:
        receipts.extend([await prove(PETS, "told") for _ in range(50)])

    with a_log(file=a_file(path)):
        threads = [threading.Thread(target=asyncio.run, args=(prove_often(),)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
    assert sorted(markers_in(path)) == sorted(receipt.marker for receipt in receipts)
    assert [receipt.missing for receipt in receipts] == [None] * 200


def test_a_loop_that_ended_before_its_round_began_holds_up_no_other(tmp_path):
    with a_log(file=a_file(tmp_path / "log.jsonl")) as pipeline:
        loop = asyncio.new_event_loop()
        loop.call_soon(pipeline.begin_proof)
        loop.call_soon(loop.stop)  # in the same turn, so that what it has begun never goes on
        loop.run_forever()
        loop.close()
        assert asyncio.run(prove(PETS, "told")).missing is None


def test_a_line_whose_loop_ended_before_its_round_began_is_written(tmp_path):
    path = tmp_path / "log.jsonl"
    with a_log(file=a_file(path)) as pipeline:
        loop = asyncio.new_event_loop()
        task = loop.create_task(prove(PETS, "told"))
        loop.call_soon(loop.stop)
        loop.run_forever()
        pipeline.flush()
        assert len(markers_in(path)) == 1
        task.cancel()
        loop.run_until_complete(asyncio.wait([task]))
        loop.close()
        assert len(markers_in(path)) == 1


async def test_what_came_before_a_warning_stands_before_it(tmp_path):
    path = tmp_path / "log.jsonl"
    with a_log(file=a_file(path)):
        task = asyncio.create_task(prove(PETS, "told"))
        await asyncio.sleep(0)
        PETS.warning("later")
        await task
    messages = [json.loads(line)["message"] for line in path.read_text().splitlines()]
    assert messages == ["told", "later"]


async def test_a_proven_record_that_comes_again_is_a_line_as_any_other(tmp_path):
    records: list[logging.LogRecord] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    path = tmp_path / "log.jsonl"
    keeper = Keeper()
    with a_log(file=a_file(path)) as pipeline:
        PETS.addHandler(keeper)
        try:
            receipt = await prove(PETS, "told")
        finally:
            PETS.removeHandler(keeper)
        (record,) = records
        threads = [threading.Thread(target=pipeline.handle, args=(record,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert (await prove(PETS, "told")).missing is None
        account = pipeline.accounts()["file"]
    assert (account.emitted, account.written) == (4, 4)
    assert markers_in(path)[:3] == [receipt.marker] * 3


# Not written


async def test_a_required_sink_that_says_nothing_is_a_timeout(stuck):
    path, reader = stuck
    with a_log(0.2, pipe=a_file(path)):
        receipt = await prove(PETS, "told")
        ((name, state, why),) = states_of(receipt)
        assert (name, state) == ("pipe", "timeout")
        assert re.fullmatch(r"not written within 0\.[2-9]\d? s", str(why))
        assert receipt.missing is receipt.sinks[0]
        drain(reader)
        assert (await prove(PETS, "told again")).missing is None


async def test_an_optional_sink_that_stands_still_is_reported_and_soon_not_waited_for(
    stuck, tmp_path
):
    path, reader = stuck
    pipe = a_file(path, required=False)
    with a_log(PATIENCE_S, file=a_file(tmp_path / "log.jsonl"), pipe=pipe) as pipeline:
        before = time.monotonic()
        receipt = await prove(PETS, "told")
        assert time.monotonic() - before < PATIENCE_S / 2
        assert [(sink.name, sink.state) for sink in receipt.sinks] == [
            ("file", "written"),
            ("pipe", "timeout"),
        ]
        assert receipt.missing is None
        assert receipt.sinks[1].took_ms >= 90
        # Its thread may have begun to write some milliseconds after the proof.
        (sink,) = (each for each in pipeline.sinks if each.name == "pipe")
        while sink.stands_still_for_s() <= OPTIONAL_WAIT_S:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
        receipt = await prove(PETS, "told again")
        assert receipt.sinks[1].state == "timeout"
        assert receipt.sinks[1].took_ms < 90
        drain(reader)
        pipeline.flush()


async def test_a_line_that_finds_the_queue_full_says_so(stuck):
    path, reader = stuck
    with a_log(0.2, pipe=a_file(path, queue_records=1)) as pipeline:
        await prove(PETS, "fills it")
        receipt = await prove(PETS, "told")
        assert states_of(receipt) == [("pipe", "dropped", "its queue is full")]
        assert pipeline.accounts()["pipe"].dropped_by == {"queue_full": 1}
        drain(reader)


async def test_a_line_that_makes_room_for_a_warning_says_so(stuck):
    path, reader = stuck
    with a_log(PATIENCE_S, pipe=a_file(path, queue_records=2)) as pipeline:
        PETS.warning("is being written")
        let_it_stand_still(pipeline.sinks[0])
        waiting = asyncio.create_task(prove(PETS, "waits"))
        await asyncio.sleep(0)
        PETS.warning("more urgent")
        receipt = await waiting
        assert states_of(receipt) == [("pipe", "dropped", "its queue is full")]
        assert pipeline.accounts()["pipe"].dropped_by == {"made_room": 1}
        drain(reader)


@pytest.mark.parametrize("swallow", ["level of the logger", "level of the sink", "filter"])
async def test_a_line_that_is_left_out_says_so(tmp_path, swallow):
    def keep_out(record: logging.LogRecord) -> bool:
        return False

    level = "ERROR" if swallow == "level of the sink" else "DEBUG"
    with a_log(file=a_file(tmp_path / "log.jsonl", level=level)):
        try:
            if swallow == "level of the logger":
                PETS.setLevel(logging.ERROR)
            if swallow == "filter":
                PETS.addFilter(keep_out)
            receipt = await prove(PETS, "told")
        finally:
            PETS.setLevel(logging.NOTSET)
            PETS.removeFilter(keep_out)
    assert states_of(receipt) == [("file", "filtered", "a level or a filter leaves the line out")]


async def test_a_filter_that_raises_fails_the_proof_and_not_the_caller(tmp_path):
    path = tmp_path / "log.jsonl"

    def break_down(record: logging.LogRecord) -> bool:
        raise ValueError("/secret/path")

    with a_log(file=a_file(path)) as pipeline:
        PETS.addFilter(break_down)
        try:
            receipt = await prove(PETS, "told")
        finally:
            PETS.removeFilter(break_down)
        pipeline.flush()
    why = "a filter raised ValueError"
    assert states_of(receipt) == [("file", "failed", why)]
    assert "/secret/path" in path.read_text()  # the traceback is in the log


class Raising(logging.Handler):
    """Somebody's handler that breaks the rule not to raise."""

    def emit(self, record: logging.LogRecord) -> None:
        raise ValueError("a fault in the handler")


@pytest.mark.parametrize("where", [logging.getLogger(), PETS])
async def test_a_handler_that_raises_keeps_neither_the_line_nor_the_answer_back(
    feature_client, log_lines, where
):
    handler = Raising()
    where.addHandler(handler)
    try:
        client = await feature_client("smoke_test")
        for _ in range(3):
            async with client.get("/api/v1/smoke-test") as answer:
                assert answer.status == 200
        assert (await prove(PETS, "told")).missing is None
    finally:
        where.removeHandler(handler)
    told = [line for line in log_lines() if line["message"].startswith("The handler Raising")]
    assert len(told) == 1
    assert "a fault in the handler" in told[0]["exc_info"][-1]
    assert sum(line["message"].startswith("GET /api/v1/smoke-test") for line in log_lines()) == 3


async def test_a_filter_on_the_pipeline_that_raises_is_counted_and_not_the_callers_fault(
    tmp_path, capfd
):
    def break_down(record: logging.LogRecord) -> bool:
        raise ValueError("a fault in the filter")

    with a_log(file=a_file(tmp_path / "log.jsonl")) as pipeline:
        pipeline.addFilter(break_down)
        PETS.info("told")
        receipt = await prove(PETS, "told")
        account = pipeline.accounts()["file"]
    assert receipt.missing is not None
    assert account == Account(2, written=0, dropped=0, failed=2, filtered=0, queued=0)
    assert account.failed_by == {"ValueError": 2}
    assert "a fault in the filter" in capfd.readouterr().err


async def test_readiness_proves_a_sink_past_levels_and_filters(tmp_path):
    path = tmp_path / "log.jsonl"
    health = logging.getLogger("petsage.health")
    with a_log(file=a_file(path, level="ERROR")):
        health.setLevel(logging.CRITICAL)
        try:
            receipt = await prove_sinks("Is it written?")
        finally:
            health.setLevel(logging.NOTSET)
        assert markers_in(path) == [receipt.marker]
    assert states_of(receipt) == [("file", "written", None)]


# The sink's thread


def kill(thread: threading.Thread) -> None:
    """Has an exception that nothing catches raised in a thread."""
    assert thread.ident is not None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit)
    )


async def test_a_thread_that_died_is_begun_anew_and_counted(tmp_path, capfd):
    with a_log(file=a_file(tmp_path / "log.jsonl")) as pipeline:
        (sink,) = pipeline.sinks
        assert (await prove(PETS, "told")).missing is None
        for deaths in range(1, 4):
            (thread,) = (t for t in threading.enumerate() if t.name == "log-sink-file")
            kill(thread)
            receipt = await prove(PETS, "told")
            while sink.restarts < deaths:
                receipt = await prove(PETS, "told")
            assert (await prove(PETS, "told")).missing is None
        assert sink.restarts == 3
        assert receipt.sinks[0].state in {"written", "failed"}
    assert "its thread died and was begun anew" in capfd.readouterr().err


class Counting:
    """A target that counts what it takes."""

    def __init__(self) -> None:
        self.count = 0

    def write(self, lines: list[bytes]) -> Outcome:
        self.count += len(lines)
        return Outcome(len(lines))

    def close(self) -> None: ...


class Deadly:
    """A target in which a thread dies, once."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.deadly = True

    def write(self, lines: list[bytes]) -> Outcome:
        if self.deadly:
            self.deadly = False
            raise SystemExit
        self.lines += lines
        return Outcome(len(lines))

    def close(self) -> None: ...


def test_what_a_dead_thread_had_in_hand_counts_as_failed(capfd):
    target = Deadly()
    sink = Sink(
        "out",
        SinkSettings(kind="stdout"),
        target,
        flush_ms=60_000,
        report_drops=lambda *_: None,
    )
    sink.put(b"1\n")
    sink.put(b"2\n")
    assert sink.flush(PATIENCE_S)
    sink.put(b"3\n")
    sink.close(PATIENCE_S)
    assert target.lines == [b"3\n"]
    account = sink.account()
    assert account == Account(3, written=1, dropped=0, failed=2, filtered=0, queued=0)
    assert account.failed_by == {"SystemExit": 2}


def test_what_waits_behind_a_dead_threads_batch_is_written_at_once(capfd):
    target = Deadly()
    settings = SinkSettings(kind="stdout", queue_records=10_000)
    sink = Sink("out", settings, target, flush_ms=60_000, report_drops=lambda *_: None)
    lines = [b"%0300d\n" % number for number in range(4_900)]  # more than one batch holds
    for line in lines:
        sink.put(line)
    started = time.monotonic()
    assert sink.flush(PATIENCE_S)
    assert time.monotonic() - started < PATIENCE_S / 2
    account = sink.account()
    sink.close(PATIENCE_S)
    assert account.failed > 0
    assert target.lines == lines[account.failed :]


def test_no_call_to_hurry_is_lost(capfd):
    """Each is heard, whatever the thread does just then: lines wait a minute for others else."""
    target = Counting()
    settings = SinkSettings(kind="stdout")
    sink = Sink("out", settings, target, flush_ms=60_000, report_drops=lambda *_: None)

    def log_and_hurry(_: int) -> None:
        for _ in range(1_000):
            sink.put(b"1\n")
            if sink.account().queued:
                sink.hurry()
            while (queued := sink.account().queued) and time.monotonic() < deadline:
                time.sleep(0)
            assert queued == 0

    deadline = time.monotonic() + PATIENCE_S / 2
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(log_and_hurry, range(2)))
    sink.close(PATIENCE_S)
    assert target.count == 2_000


# What is urgent


def test_a_full_queue_drops_what_is_below_warning_first(stuck, tmp_path):
    path, reader = stuck
    with a_log(pipe=a_file(path, queue_records=100)) as pipeline:
        (sink,) = pipeline.sinks
        PETS.info("is being written")
        let_it_stand_still(sink)
        for number in range(150):
            PETS.info("ordinary %d", number)
        for number in range(99):
            PETS.warning("urgent %d", number)
        account = sink.account()
        assert (account.emitted, account.queued + account.dropped) == (250, 250)
        drained: list[bytes] = []
        while account.queued:
            drained.append(drain(reader))
            sink.hurry()
            account = sink.account()
    text = b"".join([*drained, drain(reader)]).decode()
    lines = [json.loads(line)["message"] for line in text.splitlines() if line]
    urgent = [line for line in lines if line.startswith("urgent")]
    assert urgent == [f"urgent {number}" for number in range(99)]
    ordinary = [line for line in lines if line.startswith("ordinary")]
    assert ordinary == [f"ordinary {number}" for number in range(len(ordinary))]
    assert set(account.dropped_by) == {"queue_full", "made_room"}


# The account


class Fickle:
    """A target that takes some of each batch, none, or has a fault of its own."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.died = threading.Event()
        self._turn = 0

    def write(self, lines: list[bytes]) -> Outcome:
        self._turn += 1
        time.sleep(0.0005)  # as long as a disk may take, so that the queue fills up
        if self._turn % 7 == 0:
            self.died.set()
            raise SystemExit  # the thread dies
        if self._turn % 5 == 0:
            raise ValueError("a fault in the target")
        taken = len(lines) if self._turn % 3 else len(lines) // 2
        self.lines += lines[:taken]
        return Outcome(taken, None if taken == len(lines) else OSError(28, "No space left"))

    def close(self) -> None: ...


def test_the_account_balances_at_every_moment_of_a_flood_into_a_failing_sink(capfd):
    target, stop = Fickle(), threading.Event()
    samples: list[Account] = []
    sink = Sink(
        "out",
        SinkSettings(kind="stdout", queue_records=200),
        target,
        flush_ms=0,
        report_drops=lambda *_: None,
    )

    def sample() -> None:
        while not stop.is_set():
            samples.append(sink.account())

    def flood(seed: int) -> None:
        for number in range(20_000):
            if (number + seed) % 11 == 0:
                sink.filter()
            else:
                sink.put(b"%d\n" % number, urgent=number % 4 == 0)

    threads = [threading.Thread(target=flood, args=(seed,)) for seed in range(4)]
    sampler = threading.Thread(target=sample)
    for thread in [sampler, *threads]:
        thread.start()
    for thread in threads:
        thread.join()
    more, until = 0, time.monotonic() + PATIENCE_S
    # Fewer writes may have taken all that was not dropped.
    while not target.died.wait(0.001) and time.monotonic() < until:
        sink.put(b"more\n", urgent=True)
        more += 1
    sink.close(PATIENCE_S)
    stop.set()
    sampler.join()
    account = sink.account()
    for each in [*samples, account]:
        parts = each.written + each.dropped + each.failed + each.filtered + each.queued
        assert each.emitted == parts
        assert sum(each.dropped_by.values()) == each.dropped
        assert sum(each.failed_by.values()) == each.failed
    assert len(samples) > 20
    assert account.emitted == 80_000 + more
    assert account.written == len(target.lines)
    assert account.queued == 0
    assert min(account.dropped, account.failed, account.filtered) > 0
    assert set(account.failed_by) == {"ENOSPC", "ValueError", "SystemExit"}
    assert sink.restarts > 0
    assert len(capfd.readouterr().err.splitlines()) <= 3
