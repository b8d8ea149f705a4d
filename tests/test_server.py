"""The process: how it starts, says what it serves, and stops."""

import fcntl
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading

import pytest

from tests.conftest import (
    HELLO,
    START_S,
    ServerProcess,
    clean_environment,
    errors_of,
    write_feature,
)

SLOW = '''
    """Answers late."""
    import asyncio
    import logging

    from petsage import Feature, Routes

    routes = Routes()
    logger = logging.getLogger(__name__)

    @routes.get("/slow")
    async def answer_late() -> dict[str, str]:
        logger.info("begun")
        await asyncio.sleep(0.4)
        return {"slow": "done"}

    feature = Feature(routes)
'''


def test_a_folder_with_one_file_serves(project, start_server):
    write_feature(project, "hello", HELLO)

    server = start_server()

    assert server.get("/api/v1/hello/Ada") == (200, {"hello": "Ada"})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_cleanly_and_every_line_is_written(project, start_server, number):
    write_feature(project, "hello", HELLO)
    server = start_server()
    for index in range(20):
        server.get(f"/api/v1/hello/{index}")

    server.signal(number)

    assert server.end() == (0, "")
    access = [line["path"] for line in server.lines if line["logger"] == "petsage.access"]
    assert access == [f"/api/v1/hello/{index}" for index in range(20)]
    assert server.lines[-1]["message"] == "PetSage has stopped"


def test_a_request_in_flight_is_answered_before_the_stop(project, start_server):
    write_feature(project, "slow", SLOW)
    server = start_server()
    answers = []
    caller = threading.Thread(target=lambda: answers.append(server.get("/api/v1/slow")))
    caller.start()
    server.wait_for(lambda line: line["message"] == "begun")

    server.signal(signal.SIGTERM)

    caller.join()
    assert answers == [(200, {"slow": "done"})]
    assert server.end()[0] == 0


def test_garbage_is_collected_when_it_serves_and_what_it_started_with_is_not_looked_through(
    project, start_server
) -> None:
    write_feature(
        project,
        "collector",
        """
        import gc
        from petsage import Feature, Routes

        routes = Routes()

        @routes.get("/collector")
        async def show_collector() -> list[bool]:
            return [gc.isenabled(), gc.get_freeze_count() > 0]

        feature = Feature(routes)
        """,
    )
    assert start_server().get("/api/v1/collector") == (200, [True, True])


def test_a_broken_feature_leaves_the_others_serving_and_is_named_at_the_start(
    project, start_server
):
    write_feature(project, "hello", HELLO)
    write_feature(project, "broken", "def oops(:\n")

    server = start_server()

    assert server.get("/api/v1/hello/Ada")[0] == 200
    (said,) = errors_of(server.lines)
    assert said["message"].startswith(
        "Feature broken is set aside: features/broken/__init__.py:1: syntax-error:"
    )
    assert server.lines[-1]["features_set_aside"] == ["broken"]


def test_a_port_that_is_taken_is_one_clear_line(project, petsage):
    (project / "features").mkdir()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        result = petsage("serve", "--port", str(port))

    assert result.returncode == 1
    assert result.stderr == (
        f"petsage: [server].port {port} on 127.0.0.1 is taken; "
        f"fix: stop what listens there, or start with --port {port + 1}\n"
    )


def test_a_host_that_is_not_this_machine_is_one_clear_line(project, petsage):
    (project / "features").mkdir()

    result = petsage("serve", "--port", "0", "--host", "192.0.2.1")

    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("petsage: cannot listen on [server].host '192.0.2.1', port 0: ")


def test_a_required_feature_that_fails_stops_the_start(project, petsage):
    write_feature(project, "broken", "import sys\nsys.exit(3)\n")

    result = petsage("serve", "--port", "0", env={"PETSAGE_CATALOG__REQUIRED": '["broken"]'})

    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("petsage: the required feature 'broken' does not serve: ")
    assert "features/broken/__init__.py:2" in line
    assert all(json.loads(each) for each in result.stdout.splitlines())


def test_on_a_terminal_one_human_line_says_what_serves_and_what_does_not(project):
    write_feature(project, "hello", HELLO)
    write_feature(project, "broken", "feature = 3\n")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "petsage", "serve", "--port", "0"],
        cwd=project,
        env=clean_environment(),
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    try:
        with os.fdopen(ours, "rb") as terminal:
            line = terminal.readline().decode()
    finally:
        process.terminate()
        process.wait()

    assert line.startswith("PetSage serves hello on http://127.0.0.1:")
    assert line.strip().endswith("; set aside: broken (`petsage check` says why)")


def test_a_terminal_that_has_gone_fails_no_start(project, unused_tcp_port):
    write_feature(project, "hello", HELLO)
    write_feature(
        project,
        "slow",
        """
        import asyncio
        from pathlib import Path
        from petsage import Feature, Routes

        async def lifespan(app):
            await asyncio.to_thread(Path("go").read_text)
            yield

        feature = Feature(Routes(), lifespan=lifespan)
        """,
    )
    os.mkfifo(project / "go")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "petsage", "serve", "--port", str(unused_tcp_port)],
        cwd=project,
        env={**clean_environment(), "XDG_RUNTIME_DIR": str(project.parent)},
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    try:
        os.close(theirs)
        assert process.stdout is not None
        with (project / "go").open("w"):  # waits until it is read from
            os.close(ours)
        for raw in process.stdout:
            if "The terminal is not told" in json.loads(raw)["message"]:
                break
        socket.create_connection(("127.0.0.1", unused_tcp_port)).close()
        process.terminate()
        out, _ = process.communicate(timeout=START_S)
        assert json.loads(out.splitlines()[-1])["message"] == "PetSage has stopped"
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    "source",
    [
        "def __getattr__(name):\n    raise SystemExit(7)\n",
        "import sys\nsys.modules[__name__] = None\n",
        "class Odd(Exception):\n    def __str__(self):\n        raise SystemExit(1)\nraise Odd\n",
    ],
    ids=["getattr", "none", "text"],
)
def test_whatever_a_module_is_the_others_serve(project, start_server, source):
    write_feature(project, "hello", HELLO)
    write_feature(project, "odd", source)

    server = start_server()

    assert server.get("/api/v1/hello/Ada")[0] == 200
    assert server.lines[-1]["features_set_aside"] == ["odd"]


@pytest.mark.parametrize(
    "setup",
    [
        "import logging\nlogging.basicConfig(force=True)\n",
        "import logging.config\nlogging.config.dictConfig({'version': 1})\n",
    ],
    ids=["basicConfig", "dictConfig"],
)
def test_a_feature_that_sets_up_logging_does_not_silence_the_log(project, start_server, setup):
    write_feature(project, "greedy", setup + "feature = 3\n")
    write_feature(project, "hello", HELLO)

    server = start_server()
    server.get("/api/v1/hello/Ada")
    server.signal(signal.SIGTERM)

    assert server.end()[0] == 0
    messages = [line["message"] for line in server.lines]
    told = [each for each in messages if "__init__.py:2: import-side-effect" in each]
    assert told
    assert all(each.startswith("Feature greedy is set aside: ") for each in told)
    assert messages.count("GET /api/v1/hello/Ada 200") == 1


def test_what_a_feature_prints_is_a_line_of_the_log(project, start_server):
    write_feature(project, "loud", f'print("one\\ntwo")\n{textwrap.dedent(HELLO)}')

    server = start_server()

    printed = [line["message"] for line in server.lines if line["logger"] == "stdout"]
    assert printed == ["one", "two"]


STUCK_IMPORT = "import time\ntime.sleep(1000)\n"


def test_an_import_that_hangs_is_set_aside_with_its_line_and_keeps_nobody(project, start_server):
    write_feature(project, "stuck", STUCK_IMPORT)
    write_feature(project, "hello", HELLO)

    server = start_server(env={"PETSAGE_CATALOG__CHECK_TIMEOUT_S": "0.3"})

    assert server.get("/api/v1/hello/Ada")[0] == 200
    (line,) = errors_of(server.lines)
    assert "features/stuck/__init__.py:2: check-timeout" in line["message"]


def test_a_signal_ends_a_start_amid_a_check_that_hangs(project, start_server):
    write_feature(project, "stuck", STUCK_IMPORT)
    server = start_server(begin="PetSage listens on ")

    server.signal(signal.SIGTERM)

    code, err = server.end()
    assert (code, err) == (0, "")
    assert server.lines[-1]["message"] == "PetSage has stopped"


def test_a_third_signal_ends_at_once_what_would_not_end(project, start_server):
    write_feature(
        project,
        "stuck",
        """
        import asyncio, logging, time
        from petsage import Feature, Routes
        routes = Routes()

        @routes.get("/stuck")
        async def stuck() -> None:
            logging.getLogger(__name__).info("begun")
            await asyncio.to_thread(time.sleep, 1000)

        feature = Feature(routes)
        """,
    )
    server = start_server()
    with socket.create_connection(("127.0.0.1", int(server.address.rpartition(":")[2]))) as caller:
        caller.sendall(b"GET /api/v1/stuck HTTP/1.1\r\nHost: x\r\n\r\n")
        server.wait_for(lambda line: line["message"] == "begun")

        server.signal(signal.SIGTERM)
        server.wait_for(lambda line: line["message"].startswith("PetSage stops"))
        server.signal(signal.SIGTERM)
        server.wait_for(lambda line: line["message"] == "PetSage has stopped")
        server.signal(signal.SIGTERM)

        assert server.end(4)[0] == 1  # sooner than what is left running may take
    assert server.lines[-1]["message"].startswith("PetSage ends, and cuts what still runs: thread")


STUBBORN = """
import asyncio, logging
from petsage import Feature, Routes

routes = Routes()

async def refuse():
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass

async def lifespan(app):
    await asyncio.to_thread(int)  # its thread has nothing to do from here on
    app["task"] = asyncio.create_task(refuse(), name="stubborn")
    yield

@routes.get("/fill")
async def fill() -> int:
    for number in range(10):
        logging.getLogger(__name__).info("%d", number, extra={"filling": "x" * 1000})
    return 1

feature = Feature(routes, lifespan=lifespan)
"""


def end_by_force(server: ServerProcess) -> str:
    """What the last line says after a stop that does not end."""
    server.signal(signal.SIGTERM)
    server.wait_for(lambda line: line["message"] == "PetSage has stopped")
    server.signal(signal.SIGTERM)
    server.signal(signal.SIGINT)  # two of a kind at one moment are one
    assert server.end()[0] == 1
    last: str = server.lines[-1]["message"]
    return last


def test_what_keeps_the_process_from_its_end_is_named_and_no_idle_thread(project, start_server):
    write_feature(project, "stuck", STUBBORN)
    place = project / "features" / "stuck" / "__init__.py"

    last = end_by_force(start_server())

    line = STUBBORN.splitlines().index("            await asyncio.Event().wait()") + 1
    assert last == (
        "PetSage ends, and cuts what still runs: "
        f"task stubborn of refuse, at {place}:{line} in refuse"
    )


def test_a_sink_whose_write_does_not_return_is_named_at_a_forced_end(
    project, start_server, tmp_path
):
    write_feature(project, "stuck", STUBBORN)
    os.mkfifo(tmp_path / "slow.fifo")
    reader = os.open(tmp_path / "slow.fifo", os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    try:
        server = start_server(
            env={
                "PETSAGE_LOGS__SINKS__SLOW__KIND": "file",
                "PETSAGE_LOGS__SINKS__SLOW__PATH": str(tmp_path / "slow.fifo"),
            }
        )
        server.get("/api/v1/fill")
        last = end_by_force(server)
    finally:
        os.close(reader)

    assert "task stubborn" in last
    assert re.search(r"; sink slow, in one write for \d+\.\d s$", last)


@pytest.mark.parametrize("closed", ["<&-", "2>&-"])
def test_a_standard_stream_that_is_closed_does_no_harm(project, closed):
    write_feature(project, "hello", HELLO)
    command = f'exec "{sys.executable}" -m petsage serve --port 0 {closed}'
    process = subprocess.Popen(
        ["/bin/sh", "-c", command], cwd=project, env=clean_environment(), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    while not json.loads(process.stdout.readline())["message"].startswith("PetSage serves on"):
        pass

    process.terminate()
    out, _ = process.communicate(timeout=20)

    assert process.returncode == 0
    assert json.loads(out.splitlines()[-1])["message"] == "PetSage has stopped"


def test_a_request_that_the_stop_cuts_off_has_its_access_line(project, start_server):
    write_feature(project, "slow", SLOW.replace("sleep(0.4)", "sleep(1000)"))
    server = start_server(env={"PETSAGE_SERVER__SHUTDOWN_S": "0.2"})
    with socket.create_connection(("127.0.0.1", int(server.address.rpartition(":")[2]))) as caller:
        caller.sendall(b"GET /api/v1/slow HTTP/1.1\r\nHost: x\r\n\r\n")
        server.wait_for(lambda line: line["message"] == "begun")

        server.signal(signal.SIGTERM)

        assert server.end()[0] == 0
    (line,) = [line for line in server.lines if line["logger"] == "petsage.access"]
    assert (line["path"], line["status"], line["bytes"]) == ("/api/v1/slow", 503, 0)
