"""Sinks and their targets, on real files, pipes and threads.

Long because a disk and a pipe can fail in many ways.
"""

import errno
import json
import os
import socket
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from petsage.logs.sinks import Account, Sink, open_sink
from petsage.logs.targets import FileTarget, Outcome, StreamTarget
from petsage.settings import SinkSettings

PATIENCE_S = 60.0


class Gate:
    """A target that takes each batch when it is let; it stands for a disk that is slow."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.entered = threading.Event()
        self.open = threading.Event()

    def write(self, lines: list[bytes]) -> Outcome:
        self.entered.set()
        assert self.open.wait(PATIENCE_S)
        self.lines += lines
        return Outcome(len(lines))

    def close(self) -> None: ...


class Broken:
    """A target with a fault of its own, which is no OSError."""

    def __init__(self) -> None:
        self.broken = True
        self.lines: list[bytes] = []

    def write(self, lines: list[bytes]) -> Outcome:
        if self.broken:
            raise ValueError("a fault in the target")
        self.lines += lines
        return Outcome(len(lines))

    def close(self) -> None: ...


def line_of(number: int) -> bytes:
    return b'{"n": %d}\n' % number


def lines_of(*numbers: int) -> list[bytes]:
    return [line_of(number) for number in numbers]


def numbers_in(*paths: Path) -> list[int]:
    return [json.loads(line)["n"] for path in paths for line in path.read_bytes().splitlines()]


def balances(account: Account) -> bool:
    parts = account.written + account.dropped + account.failed + account.filtered + account.queued
    return account.emitted == parts


@contextmanager
def a_sink(
    target: Any,
    queue_records: int = 10_000,
    report_drops: Callable[[str, int], None] = lambda *_: None,
    flush_ms: int = 0,
) -> Iterator[Sink]:
    settings = SinkSettings(kind="stdout", queue_records=queue_records)
    sink = Sink("out", settings, target, flush_ms=flush_ms, report_drops=report_drops)
    try:
        yield sink
    finally:
        sink.close(PATIENCE_S)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for descriptor in (reader, writer):
        with suppress(OSError):
            os.close(descriptor)


def read_lines(reader: int, count: int) -> list[bytes]:
    data = b""
    while data.count(b"\n") < count:
        more = os.read(reader, 65_536)
        assert more
        data += more
    return data.splitlines(keepends=True)


# Files


def test_lines_are_appended_to_a_file_whose_folder_is_made(tmp_path):
    path = tmp_path / "deep" / "er" / "log.jsonl"
    target = FileTarget(path)
    assert target.write(lines_of(1, 2)) == Outcome(2)
    assert target.write(lines_of(3)) == Outcome(1)
    target.close()
    assert numbers_in(path) == [1, 2, 3]
    assert stat.S_IMODE(path.stat().st_mode) & 0o007 == 0


def test_a_file_that_was_deleted_is_made_anew(tmp_path):
    path = tmp_path / "log.jsonl"
    target = FileTarget(path)
    target.write(lines_of(1))
    path.unlink()
    target.write(lines_of(2))
    assert numbers_in(path) == [2]
    target.close()


def test_a_file_whose_folder_was_deleted_is_made_anew(tmp_path):
    path = tmp_path / "logs" / "log.jsonl"
    target = FileTarget(path)
    target.write(lines_of(1))
    path.unlink()
    path.parent.rmdir()
    target.write(lines_of(2))
    assert numbers_in(path) == [2]
    target.close()


def test_a_file_that_was_renamed_keeps_its_lines_and_a_new_one_gets_the_next(tmp_path):
    path, moved = tmp_path / "log.jsonl", tmp_path / "log.jsonl.old"
    target = FileTarget(path)
    target.write(lines_of(1))
    path.rename(moved)
    target.write(lines_of(2))
    assert (numbers_in(moved), numbers_in(path)) == ([1], [2])
    target.close()


def test_a_file_that_was_replaced_gets_the_next_lines(tmp_path):
    path, other = tmp_path / "log.jsonl", tmp_path / "other"
    target = FileTarget(path)
    target.write(lines_of(1))
    other.write_bytes(b'{"n": 7}\n')
    other.replace(path)
    target.write(lines_of(2))
    assert numbers_in(path) == [7, 2]
    target.close()


def test_a_file_that_was_truncated_goes_on_at_its_beginning(tmp_path):
    path = tmp_path / "log.jsonl"
    target = FileTarget(path)
    target.write(lines_of(1, 2))
    os.truncate(path, 0)
    target.write(lines_of(3))
    assert numbers_in(path) == [3]
    target.close()


@pytest.mark.parametrize("becomes", ["nothing", "a file", "a pipe"])
def test_a_descriptor_that_somebody_closed_is_opened_anew(tmp_path, pipe, becomes):
    path, other = tmp_path / "log.jsonl", tmp_path / "other"
    other.write_bytes(b"other\n")
    with closing(FileTarget(path)) as target:
        assert target.write(lines_of(1)) == Outcome(1)
        (ours,) = (
            int(each.name)
            for each in Path("/proc/self/fd").iterdir()
            if each.is_symlink() and each.readlink() == path
        )
        os.close(ours)
        if becomes != "nothing":
            stranger = os.open(other, os.O_RDWR | os.O_APPEND) if becomes == "a file" else pipe[1]
            os.dup2(stranger, ours)
        assert target.write(lines_of(2)) == Outcome(1)
        assert numbers_in(path) == [1, 2]
        assert other.read_bytes() == b"other\n"
        if becomes != "nothing":
            os.fstat(ours)  # who has it now keeps it
            os.close(ours)


def test_a_file_that_another_appends_to_between_two_writes_is_looked_at_anew(tmp_path):
    path = tmp_path / "log.jsonl"
    with closing(FileTarget(path)) as target:
        assert target.write(lines_of(1)) == Outcome(1)
        with path.open("ab") as file:
            file.write(b"torn")
        assert target.write(lines_of(2)) == Outcome(1)
        with path.open("r+b") as file:
            file.truncate(len(line_of(1)))
        assert target.write(lines_of(3)) == Outcome(1)
        assert numbers_in(path) == [1, 3]


def test_a_batch_costs_five_calls_of_the_system_where_nobody_else_writes(tmp_path, monkeypatch):
    calls: list[str] = []

    def counted(name: str) -> Callable[..., Any]:
        call = getattr(os, name)

        def count(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            return call(*args, **kwargs)

        return count

    with closing(FileTarget(tmp_path / "log.jsonl", max_bytes=1000)) as target:
        assert target.write(lines_of(1)) == Outcome(1)
        for name in ("stat", "fstat", "lseek", "pread", "read", "write", "open", "fdatasync"):
            monkeypatch.setattr(os, name, counted(name))
        for number in range(2, 5):
            assert target.write(lines_of(number, number)) == Outcome(2)
    monkeypatch.undo()
    assert calls == ["stat", "fstat", "write", "pread", "stat"] * 3


def test_a_relative_path_means_the_folder_of_the_start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    target = FileTarget(Path("log.jsonl"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    target.write(lines_of(1))
    target.close()
    assert numbers_in(tmp_path / "log.jsonl") == [1]


def test_no_descriptor_stays_open_when_files_come_and_go(tmp_path):
    path = tmp_path / "log.jsonl"
    target = FileTarget(path, max_bytes=10, backups=2)
    target.write(lines_of(0))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(50):
        target.write(lines_of(number))
        path.unlink()
    target.write(lines_of(1))
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    target.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before - 1


def test_a_line_that_somebody_left_torn_is_ended_first(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"n": 1}\n{"n": 2')
    target = FileTarget(path)
    assert target.write(lines_of(3, 4)) == Outcome(2)
    target.close()
    assert path.read_bytes() == b'{"n": 1}\n{"n": 2\n{"n": 3}\n{"n": 4}\n'


def test_a_fifo_without_a_reader_is_a_failure_and_no_wait(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    outcome = FileTarget(path).write(lines_of(1))
    assert outcome.written == 0
    assert isinstance(outcome.error, OSError)


def test_a_full_disk_is_a_failure(tmp_path):
    target = FileTarget(Path("/dev/full"))
    outcome = target.write(lines_of(1, 2))
    target.close()
    assert outcome.written == 0
    assert "No space left" in str(outcome.error)


# Rotation


def test_a_file_is_rotated_before_a_line_would_take_it_past_its_size(tmp_path):
    path = tmp_path / "log.jsonl"
    target = FileTarget(path, max_bytes=40, backups=3)
    lines = lines_of(*range(10, 21))  # of 10 bytes each
    assert target.write(lines) == Outcome(11)
    target.close()
    assert numbers_in(path) == [18, 19, 20]
    assert numbers_in(tmp_path / "log.jsonl.1") == [14, 15, 16, 17]
    assert numbers_in(tmp_path / "log.jsonl.2") == [10, 11, 12, 13]
    assert not (tmp_path / "log.jsonl.3").exists()


def test_as_many_backups_stay_as_the_settings_say(tmp_path):
    path = tmp_path / "log.jsonl"
    target = FileTarget(path, max_bytes=10, backups=2)
    for number in range(10, 20):
        assert target.write(lines_of(number)) == Outcome(1)
    target.close()
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "log.jsonl", "log.jsonl.1", "log.jsonl.2",
    ]  # fmt: skip
    assert numbers_in(tmp_path / "log.jsonl.2", tmp_path / "log.jsonl.1", path) == [17, 18, 19]


def test_with_no_backups_a_full_file_begins_anew(tmp_path):
    path = tmp_path / "log.jsonl"
    target = FileTarget(path, max_bytes=20, backups=0)
    target.write(lines_of(10, 11, 12))
    target.close()
    assert numbers_in(path) == [12]
    assert list(tmp_path.iterdir()) == [path]


def test_a_line_longer_than_a_file_may_be_gets_one_of_its_own(tmp_path):
    path = tmp_path / "log.jsonl"
    target = FileTarget(path, max_bytes=20, backups=5)
    long = b'{"n": 5, "long": "%s"}\n' % (b"x" * 100)
    assert target.write([*lines_of(1), long, *lines_of(2)]) == Outcome(3)
    target.close()
    assert numbers_in(tmp_path / "log.jsonl.2", tmp_path / "log.jsonl.1", path) == [1, 5, 2]


def test_no_line_is_lost_or_split_while_many_threads_log_and_files_rotate(tmp_path):
    path = tmp_path / "log.jsonl"
    with a_sink(FileTarget(path, max_bytes=4_000, backups=1_000)) as sink:

        def log(first: int) -> None:
            for number in range(first, first + 500):
                sink.put(line_of(number))

        threads = [threading.Thread(target=log, args=(first,)) for first in range(0, 4000, 500)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    files = list(tmp_path.iterdir())
    assert len(files) > 5
    assert all(file.stat().st_size <= 4_000 for file in files)
    assert sorted(numbers_in(*files)) == list(range(4000))


def test_a_file_that_cannot_be_rotated_grows_and_says_why(tmp_path):
    path = tmp_path / "log.jsonl"
    (tmp_path / "log.jsonl.1").mkdir()
    (tmp_path / "log.jsonl.1" / "in the way").touch()
    target = FileTarget(path, max_bytes=10, backups=1)
    outcome = target.write(lines_of(10, 11, 12))
    target.close()
    assert outcome.written == 3
    assert isinstance(outcome.error, OSError)
    assert numbers_in(path) == [10, 11, 12]


# Streams


def test_a_pipe_that_takes_a_little_at_a_time_gets_every_line_whole(pipe):
    reader, writer = pipe
    os.set_blocking(writer, False)
    lines = [b"%06d %s\n" % (number, b"x" * 3000) for number in range(400)]
    got: list[bytes] = []
    thread = threading.Thread(target=lambda: got.extend(read_lines(reader, len(lines))))
    thread.start()
    with closing(StreamTarget(writer)) as target:
        assert target.write(lines) == Outcome(len(lines))
    thread.join(PATIENCE_S)
    assert got == lines


def test_a_descriptor_past_the_first_thousand_may_be_full_for_a_while(pipe):
    import resource

    reader, writer = pipe
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limits[1] < 3000:
        pytest.skip("this system allows no descriptor as high")
    resource.setrlimit(resource.RLIMIT_NOFILE, (3000, limits[1]))
    os.dup2(writer, 2500)
    try:
        os.set_blocking(2500, False)
        got: list[bytes] = []
        lines = [b"%s\n" % (b"x" * 100_000)] * 3
        thread = threading.Thread(target=lambda: got.extend(read_lines(reader, 3)))
        thread.start()
        with closing(StreamTarget(2500)) as target:
            assert target.write(lines) == Outcome(3)
        thread.join(PATIENCE_S)
        assert got == lines
    finally:
        os.close(2500)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_closed_pipe_is_a_failure(pipe):
    reader, writer = pipe
    os.close(reader)
    with closing(StreamTarget(writer)) as target:
        outcome = target.write(lines_of(1))
    assert outcome.written == 0
    assert isinstance(outcome.error, BrokenPipeError)


def test_the_next_line_after_a_torn_one_begins_on_a_line_of_its_own(tmp_path):
    path = tmp_path / "log.jsonl"
    script = """
        import os, resource, signal, sys
        from pathlib import Path
        from petsage.logs.targets import FileTarget

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        target = FileTarget(Path(sys.argv[1]))
        lines = [b'{"n": %d}\\n' % n for n in range(10, 20)]
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (34, hard))  # within the fourth line
        outcome = target.write(lines)
        assert outcome.written == 3, outcome
        assert isinstance(outcome.error, OSError)
        assert target.write(lines).written == 0
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        assert target.write(lines[:2]).written == 2
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script), path], check=True)
    got = path.read_bytes().splitlines()
    assert got == [b'{"n": 10}', b'{"n": 11}', b'{"n": 12}', b'{"n"', b'{"n": 10}', b'{"n": 11}']


# Queues and accounts


def test_a_line_put_before_the_sinks_thread_runs_is_written(tmp_path):
    class LateSink(Sink):
        may_run = threading.Event()

        def _run(self) -> None:
            self.may_run.wait(PATIENCE_S)
            super()._run()

    written = threading.Event()

    class Target(Gate):
        def write(self, lines: list[bytes]) -> Outcome:
            written.set()
            return Outcome(len(lines))

    settings = SinkSettings(kind="stdout")
    sink = LateSink("out", settings, Target(), flush_ms=0, report_drops=lambda *_: None)
    sink.put(b"1\n")
    LateSink.may_run.set()
    assert written.wait(PATIENCE_S)
    sink.close(PATIENCE_S)


def test_a_line_is_written_without_anybody_asking_for_it(pipe):
    reader, writer = pipe
    with a_sink(StreamTarget(writer), flush_ms=1) as sink:
        for number in range(20):
            sink.put(line_of(number))
            assert read_lines(reader, 1) == lines_of(number)


def test_lines_that_come_together_are_written_together():
    batches: list[int] = []

    class Target(Gate):
        def write(self, lines: list[bytes]) -> Outcome:
            batches.append(len(lines))
            return Outcome(len(lines))

    with a_sink(Target(), flush_ms=60_000) as sink:
        for number in range(100):
            sink.put(line_of(number))
        assert sink.flush(PATIENCE_S)
    assert batches == [100]


def test_a_queue_that_is_half_full_does_not_wait_for_more():
    gate = Gate()
    with a_sink(gate, queue_records=10, flush_ms=60_000) as sink:
        for number in range(5):
            sink.put(line_of(number))
        assert gate.entered.wait(PATIENCE_S)
        gate.open.set()


def test_a_full_queue_drops_and_counts_and_says_so_when_there_is_room_again():
    gate, reported = Gate(), threading.Event()
    reports: list[tuple[str, int]] = []

    def report(name: str, drops: int) -> None:
        reports.append((name, drops))
        reported.set()

    with a_sink(gate, queue_records=3, report_drops=report) as sink:
        states = [sink.put(line) for line in lines_of(*range(10))]
        assert states == ["queued"] * 3 + ["dropped"] * 7
        account = sink.account()
        assert (account.emitted, account.dropped, account.queued) == (10, 7, 3)
        assert reports == []
        gate.open.set()
        assert reported.wait(PATIENCE_S)
        assert reports == [("out", 7)]
        assert sink.put(b"more\n") == "queued"
    assert sink.account() == Account(11, written=4, dropped=7, failed=0, filtered=0, queued=0)


def test_a_report_that_raises_does_not_end_the_sinks_thread(capfd):
    gate = Gate()

    def report(name: str, drops: int) -> None:
        raise RuntimeError("somebody's filter")

    with a_sink(gate, queue_records=1, report_drops=report) as sink:
        sink.put(b"1\n")
        sink.put(b"2\n")
        gate.open.set()
        assert sink.flush(PATIENCE_S)
        sink.put(b"3\n")
        assert sink.flush(PATIENCE_S)
    assert gate.lines == [b"1\n", b"3\n"]
    assert "somebody's filter" in capfd.readouterr().err


def test_a_target_with_a_fault_of_its_own_does_not_end_the_sinks_thread(capfd):
    target = Broken()
    with a_sink(target) as sink:
        sink.put(b"1\n")
        assert sink.flush(PATIENCE_S)
        target.broken = False
        sink.put(b"2\n")
    assert target.lines == [b"2\n"]
    assert (sink.account().failed, sink.account().written) == (1, 1)
    assert "a fault in the target" in capfd.readouterr().err


def test_the_account_balances_at_every_moment_of_a_flood(tmp_path):
    stop = threading.Event()
    samples: list[Account] = []
    with a_sink(FileTarget(tmp_path / "log.jsonl"), queue_records=50) as sink:

        def sample() -> None:
            while not stop.is_set():
                samples.append(sink.account())

        def flood() -> None:
            for number in range(5_000):
                if number % 10:
                    sink.put(line_of(number))
                else:
                    sink.filter()

        sampler = threading.Thread(target=sample)
        sampler.start()
        floods = [threading.Thread(target=flood) for _ in range(4)]
        for thread in floods:
            thread.start()
        for thread in floods:
            thread.join()
        stop.set()
        sampler.join()
    account = sink.account()
    assert len(samples) > 20
    assert all(balances(sample) for sample in [*samples, account])
    assert any(sample.queued for sample in samples)
    assert (account.emitted, account.filtered, account.queued) == (20_000, 2_000, 0)
    assert account.written == len(numbers_in(tmp_path / "log.jsonl"))


def test_a_flush_waits_for_the_lines_before_it_and_not_for_those_after_it():
    class Endless(Gate):
        """Whatever it writes causes another line, so that its queue is never empty."""

        def write(self, lines: list[bytes]) -> Outcome:
            sink.put(b"one more\n")
            return Outcome(len(lines))

    with a_sink(Endless()) as sink:
        sink.put(b"the first\n")
        assert sink.flush(PATIENCE_S)
        assert sink.account().written >= 1


def test_a_flush_does_not_wait_for_lines_that_make_room_meanwhile():
    gate = Gate()

    class Urgent(Sink):
        """Something urgent comes once it is counted what the flush waits for."""

        def hurry(self) -> None:
            super().hurry()
            self.put(b"urgent\n", urgent=True)
            gate.open.set()

    settings = SinkSettings(kind="stdout", queue_records=64)
    sink = Urgent("out", settings, gate, flush_ms=0, report_drops=lambda *_: None)
    sink.put(line_of(0))
    assert gate.entered.wait(PATIENCE_S)
    for number in range(1, 64):
        sink.put(line_of(number))
    assert sink.flush(PATIENCE_S)
    account = sink.account()
    assert (account.written, dict(account.dropped_by)) == (61, {"made_room": 4})
    sink.close(PATIENCE_S)


def test_everything_queued_is_written_on_close(tmp_path):
    path = tmp_path / "log.jsonl"
    with a_sink(FileTarget(path), flush_ms=60_000) as sink:
        for number in range(1000):
            sink.put(line_of(number))
    assert numbers_in(path) == list(range(1000))
    assert sink.put(b"late\n") == "dropped"
    assert balances(sink.account())


def test_a_line_that_a_closing_sink_took_is_written(tmp_path):
    path = tmp_path / "log.jsonl"
    taken: list[int] = []
    started = threading.Event()
    with a_sink(FileTarget(path), queue_records=1_000_000) as sink:

        def flood() -> None:
            number = 0
            while sink.put(line_of(number)) == "queued":
                taken.append(number)
                number += 1
                started.set()

        thread = threading.Thread(target=flood)
        thread.start()
        assert started.wait(PATIENCE_S)
    thread.join()
    assert numbers_in(path) == taken
    assert sink.account().dropped == 1


def test_a_sink_that_is_stalled_at_the_stop_says_how_many_lines_it_lost(capfd):
    gate = Gate()
    with a_sink(gate) as sink:
        sink.put(b"1\n")
        assert gate.entered.wait(PATIENCE_S)
        sink.put(b"2\n")
        sink.put(b"3\n")
        sink.close(0.01)
        account = sink.account()
        assert (account.dropped, account.queued) == (2, 1)
        assert "sink out: 2 lines dropped before the stop" in capfd.readouterr().err
        gate.open.set()
    assert sink.account() == Account(3, written=1, dropped=2, failed=0, filtered=0, queued=0)


def test_a_failing_sink_counts_and_says_so_once_on_stderr(capfd):
    with a_sink(FileTarget(Path("/dev/full"))) as sink:
        for number in range(50):
            sink.put(line_of(number))
            assert sink.flush(PATIENCE_S)
        assert sink.account() == Account(50, written=0, dropped=0, failed=50, filtered=0, queued=0)
    complaints = capfd.readouterr().err.splitlines()
    assert complaints == ["petsage: sink out: 1 lines failed: No space left on device"]


def test_a_failing_sink_says_so_again_after_30_seconds(capfd, monkeypatch):
    with a_sink(FileTarget(Path("/dev/full"))) as sink:
        for clock in (1000.0, 1029.9, 1030.0):
            monkeypatch.setattr("petsage.logs.sinks.time.monotonic", lambda clock=clock: clock)
            sink.put(b"1\n")
            assert sink.flush(PATIENCE_S)
            monkeypatch.undo()
    assert len(capfd.readouterr().err.splitlines()) == 2


def test_a_sink_that_works_again_is_written_to_again(tmp_path):
    path = tmp_path / "log.jsonl"
    path.mkdir()
    with a_sink(FileTarget(path)) as sink:
        sink.put(line_of(1))
        assert sink.flush(PATIENCE_S)
        path.rmdir()
        sink.put(line_of(2))
        assert sink.flush(PATIENCE_S)
        assert (sink.account().failed, sink.account().written) == (1, 1)
    assert numbers_in(path) == [2]


def test_a_stalled_pipe_holds_up_neither_the_caller_nor_another_sink(pipe, tmp_path):
    path = tmp_path / "log.jsonl"
    reader, writer = pipe
    line = b'{"n": 1, "fill": "%s"}\n' % (b"x" * 1000)
    with (
        a_sink(StreamTarget(writer), queue_records=200) as stalled,
        a_sink(FileTarget(path)) as other,
    ):
        for _ in range(1000):
            stalled.put(line)
            other.put(line)
        assert other.flush(PATIENCE_S)
        assert len(numbers_in(path)) == 1000
        account = stalled.account()
        assert account.dropped == 800
        assert account.queued == 200
        read_lines(reader, 200)


def test_a_stop_does_not_wait_for_a_stderr_that_nobody_reads():
    script = """
        import os, sys
        from petsage.logs.sinks import open_sink
        from petsage.settings import SinkSettings

        os.dup2(2, 1)
        sink = open_sink("out", SinkSettings(kind="stdout"), flush_ms=0, report_drops=print)
        for _ in range(9_000):
            sink.put(b"x" * 999 + b"\\n")
        sink.close(0.1)
        os._exit(7)
    """
    reader, writer = os.pipe()
    try:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)],
            stderr=writer, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
    finally:
        os.close(reader)
        os.close(writer)
    assert done.returncode == 7


@pytest.mark.parametrize(("kind", "descriptor"), [("stdout", 1), ("stderr", 2)])
def test_the_streams_of_the_process_are_sinks(capfd, kind, descriptor):
    settings = SinkSettings(kind=kind)
    sink = open_sink("out", settings, flush_ms=0, report_drops=lambda *_: None)
    sink.put(b"a line\n")
    sink.close(PATIENCE_S)
    assert capfd.readouterr()[descriptor - 1] == "a line\n"
    os.fstat(descriptor)  # it stays open


def test_a_socket_in_place_of_stdout_is_written_to():
    here, there = socket.socketpair()
    with here, there, a_sink(StreamTarget(here.fileno())) as sink:
        sink.put(line_of(1))
        assert there.recv(100) == lines_of(1)[0]


def test_a_forked_child_has_sinks_of_its_own(tmp_path):
    script = """
        import os, sys, threading
        from pathlib import Path
        from petsage.logs.sinks import open_sink
        from petsage.settings import SinkSettings

        path = Path(sys.argv[1])
        settings = SinkSettings(kind="file", path=path)
        sink = open_sink("out", settings, flush_ms=600_000, report_drops=print)
        sink.put(b'{"n": 1}\\n')
        with sink._lock:  # as another thread may hold it
            child = os.fork()
        if child == 0:
            sink.put(b'{"n": 2}\\n')
            sink.close(10)
            os._exit(0 if sink.account().written == 1 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        sink.close(10)
    """
    path = tmp_path / "log.jsonl"
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script), path]
    subprocess.run(command, check=True, timeout=PATIENCE_S)
    assert numbers_in(path) == [2, 1]


@pytest.mark.parametrize("becomes_file", [True, False])
def test_a_path_that_is_replaced_while_it_is_opened_is_opened_as_what_it_is(
    tmp_path, monkeypatch, becomes_file
):
    path = tmp_path / "log"
    is_file = Path.is_file

    def replace_after_the_look(self: Path) -> bool:
        found = is_file(self)
        monkeypatch.undo()
        if becomes_file:
            path.rmdir()
            path.write_bytes(b"")
        else:
            path.unlink()
            os.mkfifo(path)
        return found

    if becomes_file:
        path.mkdir()
    else:
        path.write_bytes(b"")
    monkeypatch.setattr(Path, "is_file", replace_after_the_look)
    target = FileTarget(path)
    first = target.write(lines_of(1))
    second = target.write(lines_of(1))
    target.close()

    if becomes_file:
        assert (first, second) == (Outcome(1), Outcome(1))
        assert path.read_bytes() == b"".join(lines_of(1) * 2)
    else:  # a FIFO that nobody reads; open to be read, too, it would take every line
        assert isinstance(first.error, OSError)
        assert first.error.errno == errno.ENXIO
