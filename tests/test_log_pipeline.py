"""The pipeline: every logger of the process, one line of JSON in each sink."""

import asyncio
import json
import logging
import os
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from petsage.logs.pipeline import Pipeline, installed_pipeline, prove
from petsage.settings import LogsSettings

PATIENCE_S = 60.0
PETS = logging.getLogger("features.pets.routes")


def logs_settings(path: Path, **more: Any) -> LogsSettings:
    sinks = more.pop("sinks", {"file": {"kind": "file", "path": path, "required": True}})
    return LogsSettings.model_validate({"flush_ms": 0, "sinks": sinks, **more})


def lines_in(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@contextmanager
def installed(settings: LogsSettings) -> Iterator[Pipeline]:
    pipeline = Pipeline(settings, version="1.2.3")
    pipeline.install()
    try:
        yield pipeline
    finally:
        pipeline.uninstall()


def run_script(script: str, *arguments: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs `script` in a process of its own, a pipeline on stdout installed before it."""
    begin = """
        import asyncio, logging, sys, threading, time, warnings
        from petsage.logs.pipeline import Pipeline
        from petsage.settings import LogsSettings

        pipeline = Pipeline(LogsSettings(), version="1.2.3")
        pipeline.install()
        log = logging.getLogger("features.pets")
    """
    code = textwrap.dedent(begin) + textwrap.dedent(script)
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True, text=True, timeout=PATIENCE_S, check=False, **options,
    )  # fmt: skip


# Every logger


def test_every_logger_of_the_process_is_written_to_each_sink(log_lines):
    for name in ("aiohttp.server", "asyncio", "features.pets.routes", "somebody.else"):
        logging.getLogger(name).warning("from %s", name)
    names = [line["logger"] for line in log_lines()]
    assert names == ["aiohttp.server", "asyncio", "features.pets.routes", "somebody.else"]
    assert [line["feature"] for line in log_lines()] == [None, None, "pets", None]


def test_what_asyncio_says_of_a_lost_exception_is_a_line(log_lines):
    async def fail() -> None:
        loop = asyncio.get_running_loop()
        loop.call_exception_handler({"message": "lost", "exception": ValueError("in a task")})

    asyncio.run(fail())
    line = next(line for line in log_lines() if line["logger"] == "asyncio" and "exc_info" in line)
    assert line["message"] == "lost"
    assert line["exc_info"][-1] == "ValueError: in a task"


def test_levels_are_the_settings_also_of_single_loggers(tmp_path):
    path = tmp_path / "log.jsonl"
    levels = {"features.pets": "DEBUG", "noisy": "ERROR"}
    with installed(logs_settings(path, level="WARNING", levels=levels)):
        for name in ("features.pets.routes", "noisy", "other"):
            for level in (logging.DEBUG, logging.WARNING, logging.ERROR):
                logging.getLogger(name).log(level, "told")
    assert [(line["logger"], line["level"]) for line in lines_in(path)] == [
        ("features.pets.routes", "DEBUG"),
        ("features.pets.routes", "WARNING"),
        ("features.pets.routes", "ERROR"),
        ("noisy", "ERROR"),
        ("other", "WARNING"),
        ("other", "ERROR"),
    ]


def test_a_sink_leaves_out_what_is_below_its_level_and_counts_it(tmp_path):
    sinks = {
        "all": {"kind": "file", "path": tmp_path / "all"},
        "errors": {"kind": "file", "path": tmp_path / "errors", "level": "ERROR"},
    }
    with installed(logs_settings(tmp_path, sinks=sinks)) as pipeline:
        PETS.info("one")
        PETS.error("two")
        pipeline.flush()
        accounts = pipeline.accounts()
    assert [line["message"] for line in lines_in(tmp_path / "all")] == ["one", "two"]
    assert [line["message"] for line in lines_in(tmp_path / "errors")] == ["two"]
    assert (accounts["errors"].emitted, accounts["errors"].filtered) == (2, 1)
    assert (accounts["errors"].written, accounts["all"].written) == (1, 2)


def test_caplog_sees_the_records_too(log_lines, caplog):
    PETS.info("Pet %s fed", "Rex", extra={"pet": "Rex"})
    (record,) = caplog.records
    assert (record.getMessage(), record.pet) == ("Pet Rex fed", "Rex")
    assert log_lines()[0]["message"] == "Pet Rex fed"


# Nothing that is logged raises in the caller


@pytest.mark.parametrize(
    "name", ["message", "name", "asctime", "level", "timestamp", "args", "msg", "exc_info"]
)
def test_an_extra_of_a_reserved_name_is_kept_under_another(log_lines, name):
    PETS.info("fed", extra={f"extra_{name}": "other", name: "mine", "pet": "Rex"})
    (line,) = log_lines()
    assert line["message"] == "fed"
    assert line["logger"] == "features.pets.routes"
    assert line[f"extra_{name}"] == "other"
    assert line[f"extra_extra_{name}"] == "mine"
    assert line["pet"] == "Rex"


class BadMapping(dict[str, Any]):
    def _refuse(self, *_: object) -> Any:
        raise RuntimeError("bad mapping")

    __len__ = __bool__ = __iter__ = __getitem__ = __str__ = __repr__ = items = _refuse


@pytest.mark.parametrize("make", [lambda: BadMapping(pet=1), lambda: [1], lambda: 5])
def test_an_extra_that_is_no_mapping_loses_no_line(log_lines, make):
    PETS.info("fed", extra=make())
    (line,) = log_lines()
    assert line["message"] == "fed"
    assert line["extra_unreadable"]


def test_a_lone_argument_that_misbehaves_loses_no_line():
    done = run_script(
        """
        class BadMapping(dict):
            def _refuse(self, *_): raise RuntimeError("bad mapping")
            __len__ = __bool__ = __iter__ = __getitem__ = __str__ = __repr__ = _refuse

        log.info("fed %s", BadMapping(pet=1))
        log.info("fed %s", {"pet": 1})
        """
    )
    assert done.stderr == ""
    first, second = map(json.loads, done.stdout.splitlines())
    assert first["message"] == "fed %s [not formatted: RuntimeError]"
    assert first["altered"] == ["message"]
    assert second["message"] == "fed {'pet': 1}"


def test_lines_of_many_threads_are_all_there_and_whole(log_lines):
    def log(thread: int) -> None:
        for number in range(200):
            PETS.info("fed", extra={"thread_number": thread, "number": number})

    threads = [threading.Thread(target=log, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pairs = [(line["thread_number"], line["number"]) for line in log_lines()]
    assert sorted(pairs) == [(thread, number) for thread in range(8) for number in range(200)]
    for wanted in range(8):
        assert [number for each, number in pairs if each == wanted] == list(range(200))


# Requests

ECHO = '''
    """Logs from where it can."""
    import asyncio
    import logging

    from petsage import Feature, Routes

    routes = Routes()
    log = logging.getLogger(__name__)


    @routes.get("/log/{name}")
    async def log_everywhere(name: str) -> None:
        """Log."""
        log.info("handler %s", name)
        await asyncio.to_thread(log.info, "thread %s", name)
        await asyncio.create_task(in_task(name))
        logging.getLogger("somebody.else").info("library %s", name)


    async def in_task(name: str) -> None:
        log.info("task %s", name)


    feature = Feature(routes)
'''


async def test_every_line_of_a_request_names_it_also_those_of_threads_and_tasks(
    feature_client, feature_folder, log_lines
):
    client = await feature_client(feature_folder("diary", ECHO))

    async def ask(name: str) -> None:
        headers = {"X-Request-ID": f"id-{name}", "traceparent": f"00-{name * 32}-{'1' * 16}-01"}
        async with client.get(f"/api/v1/log/{name}", headers=headers) as response:
            assert response.status == 204

    await asyncio.gather(*(ask(name) for name in "abc"))
    lines = [line for line in log_lines() if line["request_id"]]
    for name in "abc":
        ours = [line for line in lines if line["request_id"] == f"id-{name}"]
        assert [line["message"].split()[0] for line in ours] == [
            "handler", "thread", "task", "library", "GET",
        ]  # fmt: skip
        assert {line["trace_id"] for line in ours} == {name * 32}
        assert {line["feature"] for line in ours} == {"diary"}
        assert len({line["span_id"] for line in ours}) == 1
    assert len({line["span_id"] for line in lines}) == 3


def test_a_line_outside_of_every_request_names_none(log_lines):
    PETS.info("told")
    assert log_lines()[0]["request_id"] is None


# Sinks together


def test_a_failing_sink_holds_up_no_other_and_says_so_once(tmp_path, capfd):
    sinks = {
        "full": {"kind": "file", "path": Path("/dev/full")},
        "file": {"kind": "file", "path": tmp_path / "log.jsonl"},
    }
    with installed(logs_settings(tmp_path, sinks=sinks)) as pipeline:
        for number in range(100):
            PETS.info("fed %d", number)
            if number % 20 == 0:
                pipeline.flush()
        pipeline.flush()
        accounts = pipeline.accounts()
    assert (accounts["full"].failed, accounts["full"].written) == (100, 0)
    assert (accounts["file"].failed, accounts["file"].written) == (0, 100)
    assert len(lines_in(tmp_path / "log.jsonl")) == 100
    assert len(capfd.readouterr().err.splitlines()) == 1


def test_one_line_says_how_many_were_dropped(tmp_path):
    fifo, path = tmp_path / "fifo", tmp_path / "log.jsonl"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    sinks = {
        "slow": {"kind": "file", "path": fifo, "queue_records": 20},
        "file": {"kind": "file", "path": path},
    }
    said = threading.Event()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.name == "petsage.logs.pipeline":
                said.set()

    listener = Listener()
    try:
        with installed(logs_settings(tmp_path, sinks=sinks)) as pipeline:
            logging.getLogger().addHandler(listener)  # after the pipeline, which has it then
            for _ in range(50):
                PETS.info("x" * 20_000)
            assert not said.is_set()
            dropped = pipeline.accounts()["slow"].dropped
            assert dropped >= 25
            os.set_blocking(reader, True)
            while not said.is_set():
                os.read(reader, 65_536)
            pipeline.flush()
    finally:
        logging.getLogger().removeHandler(listener)
        os.close(reader)
    reports = [line for line in lines_in(path) if line["logger"] == "petsage.logs.pipeline"]
    assert [(line["level"], line["message"]) for line in reports] == [
        ("WARNING", f"Sink slow dropped {dropped} lines: its queue was full")
    ]


def test_a_closed_stdout_stops_neither_the_process_nor_the_other_sink(tmp_path):
    script = """
        import os
        sinks = {"out": {"kind": "stdout"}, "file": {"kind": "file", "path": sys.argv[1]}}
        pipeline.uninstall()
        reader, writer = os.pipe()
        os.dup2(writer, 1)
        pipeline = Pipeline(LogsSettings.model_validate({"sinks": sinks}), version="1")
        pipeline.install()
        os.close(reader)
        log.info("told")
        pipeline.flush()
        assert pipeline.accounts()["out"].failed == 1
    """
    done = run_script(script, tmp_path / "log.jsonl")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == ["petsage: sink out: 1 lines failed: Broken pipe"]
    assert [line["message"] for line in lines_in(tmp_path / "log.jsonl")] == ["told"]


# Ends of processes


def test_every_line_is_written_when_a_process_ends_without_closing_its_pipeline():
    done = run_script("for number in range(5_000): log.info('fed', extra={'number': number})")
    assert done.returncode == 0
    assert done.stderr == ""
    assert [json.loads(line)["number"] for line in done.stdout.splitlines()] == list(range(5_000))


def test_an_uncaught_exception_is_a_line_after_all_others():
    done = run_script(
        """
        for number in range(1_000): log.info("fed")
        raise ValueError("uncaught")
        """
    )
    assert done.returncode == 1
    assert done.stderr == ""
    *others, last = map(json.loads, done.stdout.splitlines())
    assert len(others) == 1_000
    assert (last["level"], last["message"]) == ("CRITICAL", "Uncaught exception: ValueError")
    assert last["exc_info"][-1] == "ValueError: uncaught"


def test_an_uncaught_exception_in_a_thread_is_a_line_and_an_exit_of_one_is_none():
    done = run_script(
        """
        def fail(error): raise error
        for error in (ValueError("uncaught"), SystemExit(3)):
            thread = threading.Thread(target=fail, args=(error,), name="worker")
            thread.start()
            thread.join()
        """
    )
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = map(json.loads, done.stdout.splitlines())
    assert line["message"] == "Uncaught exception in thread worker: ValueError"
    assert line["exc_info"][-1] == "ValueError: uncaught"


def test_ctrl_c_leaves_no_traceback():
    done = run_script("raise KeyboardInterrupt")
    assert (done.stdout, done.stderr) == ("", "")
    assert done.returncode != 0


def test_warnings_and_asyncio_debug_are_lines_of_a_process():
    done = run_script(
        """
        warnings.warn("old name", UserWarning)
        async def lose():
            async def fail(): raise ValueError("in a task")
            task = asyncio.create_task(fail())
            await asyncio.sleep(0)
            del task
        asyncio.run(lose())
        """
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, done.stderr) == (0, "")
    assert [line["logger"] for line in lines] == ["py.warnings", "asyncio"]
    assert "UserWarning: old name" in lines[0]["message"]
    assert lines[1]["exc_info"][-1] == "ValueError: in a task"


# Install and close


def state_of_logging() -> dict[str, Any]:
    root = logging.getLogger()
    switches = ("logThreads", "logProcesses", "logMultiprocessing", "logAsyncioTasks")
    return {
        "handlers": list(root.handlers),
        "levels": [logging.getLogger(name).level for name in ("", "features.pets", "noisy")],
        "makeRecord": logging.Logger.makeRecord,
        "excepthook": sys.excepthook,
        "thread hook": threading.excepthook,
        "showwarning": warnings.showwarning,
        **{name: getattr(logging, name, None) for name in switches},
    }


def test_close_gives_logging_back_as_it_was(tmp_path):
    logging.getLogger("noisy").setLevel(logging.INFO)
    before = state_of_logging()
    settings = logs_settings(
        tmp_path / "log.jsonl", level="ERROR", levels={"features.pets": "DEBUG", "noisy": "ERROR"}
    )
    try:
        with installed(settings) as pipeline:
            during = state_of_logging()
            assert pipeline in during["handlers"]
            assert all(during[name] != before[name] for name in before if before[name] is not None)
        assert state_of_logging() == before
    finally:
        logging.getLogger("noisy").setLevel(logging.NOTSET)


def test_close_leaves_warnings_captured_where_they_were_before(tmp_path):
    logging.captureWarnings(capture=True)
    before = warnings.showwarning
    try:
        with installed(logs_settings(tmp_path / "log.jsonl")):
            pass
        assert warnings.showwarning is before
    finally:
        logging.captureWarnings(capture=False)


def test_a_closed_pipeline_gets_no_more_lines_and_may_be_closed_again(tmp_path):
    with installed(logs_settings(tmp_path / "log.jsonl")) as pipeline:
        PETS.info("one")
    PETS.info("two")
    pipeline.uninstall()
    assert [line["message"] for line in lines_in(tmp_path / "log.jsonl")] == ["one"]


def test_a_second_pipeline_is_refused(log_pipeline, tmp_path):
    second = Pipeline(logs_settings(tmp_path / "second"), version="1")
    try:
        with pytest.raises(RuntimeError, match="installed already"):
            second.install()
    finally:
        second.uninstall()
    assert installed_pipeline() is log_pipeline


def test_no_pipeline_is_named_where_none_is_installed():
    with pytest.raises(RuntimeError, match="no log pipeline is installed"):
        installed_pipeline()


def test_what_a_child_of_multiprocessing_logs_last_is_written():
    script = """
        import multiprocessing

        child = multiprocessing.get_context("fork").Process(target=log.warning, args=("in it",))
        child.start()
        child.join()
        assert child.exitcode == 0
    """
    done = run_script(script)
    assert [json.loads(line)["message"] for line in done.stdout.splitlines()] == ["in it"]


def test_what_is_logged_last_is_written_at_the_interpreters_end():
    done = run_script('log.warning("the last")')
    assert [json.loads(line)["message"] for line in done.stdout.splitlines()] == ["the last"]


def test_pipelines_leave_no_thread_and_no_descriptor_behind(tmp_path):
    def left() -> tuple[int, int]:
        return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))

    before = left()
    for _ in range(5):
        with installed(logs_settings(tmp_path / "log.jsonl")):
            PETS.warning("told")
    assert left() == before


# Proof


async def test_a_proof_bears_the_marker_of_its_line(log_pipeline, log_lines):
    receipt = await prove(PETS, "100 % sure")
    (line,) = (line for line in log_lines() if line["message"] == "100 % sure")
    assert line["marker"] == receipt.marker
    assert (line["level"], line["logger"]) == ("INFO", "features.pets.routes")
    assert [(sink.name, sink.state) for sink in receipt.sinks] == [("stdout", "written")]
    assert receipt.missing is None


async def test_a_proof_says_what_kept_the_line_from_a_sink(tmp_path):
    sinks = {"file": {"kind": "file", "path": tmp_path / "x", "required": True, "level": "ERROR"}}
    with installed(logs_settings(tmp_path, sinks=sinks)):
        receipt = await prove(PETS, "told")
    assert receipt.missing is not None
    assert (receipt.missing.name, receipt.missing.state) == ("file", "filtered")


async def test_a_proof_of_a_logger_that_is_silent_says_so(log_pipeline):
    def keep_out(record: logging.LogRecord) -> bool:
        return False

    PETS.addFilter(keep_out)
    try:
        receipt = await prove(PETS, "told")
    finally:
        PETS.removeFilter(keep_out)
    assert receipt.missing is not None
    assert receipt.missing.state == "filtered"


def test_a_finalizer_that_logs_while_a_line_is_queued_hangs_nobody(log_pipeline, log_lines):
    (sink,) = log_pipeline.sinks

    def log() -> None:
        with sink._lock:  # as it is held when garbage is collected amid `put`
            logging.getLogger("features.pets").warning("a finalizer logs")

    thread = threading.Thread(target=log, daemon=True)
    thread.start()
    thread.join(5)

    assert not thread.is_alive()
    assert [line["message"] for line in log_lines()] == ["a finalizer logs"]
