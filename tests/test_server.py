"""The process: how it starts, says what it serves, and stops."""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading

import pytest

from tests.conftest import HELLO, clean_environment, write_feature

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


def test_a_broken_feature_leaves_the_others_serving_and_is_named_at_the_start(
    project, start_server
):
    write_feature(project, "hello", HELLO)
    write_feature(project, "broken", "def oops(:\n")

    server = start_server()

    assert server.get("/api/v1/hello/Ada")[0] == 200
    (said,) = [line for line in server.lines if line["level"] == "ERROR"]
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
