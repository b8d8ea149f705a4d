"""What no test may leave behind: suites that do, run by a pytest of their own."""

import re
import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import clean_environment
from tests.warm import WarmCommand

INI = """
[pytest]
addopts = -p no:cacheprovider
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings = error
"""
TOP = """
import asyncio, logging, os, socket, threading
import pytest

KEPT = []
OPENED_BEFORE = os.open(os.devnull, os.O_RDONLY)
FOREVER = threading.Event()

def leave_a_thread():
    threading.Thread(target=FOREVER.wait, name="left-thread", daemon=True).start()
"""


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path, warm_pytest: WarmCommand) -> Run:
    """Runs a test file with pytest."""

    def run(source: str, ini: str = INI) -> subprocess.CompletedProcess[str]:
        (tmp_path / "pytest.ini").write_text(ini, encoding="utf-8")
        (tmp_path / "test_it.py").write_text(TOP + textwrap.dedent(source), encoding="utf-8")
        return warm_pytest.run(
            ("-q",), cwd=tmp_path, env=clean_environment(), stdin="", timeout_s=60
        )

    return run


def left_by(output: str) -> dict[str, list[str]]:
    """What each test is said to have left, by the test's name."""
    found: dict[str, list[str]] = {}
    for match in re.finditer(
        r"^test_it\.py::(\S+) left behind:\n((?:  .*\n)+)", output, re.MULTILINE
    ):
        found[match[1]] = [line.strip() for line in match[2].splitlines()]
    return found


LEAVING = """
    async def test_task():
        async def inner():
            await asyncio.Event().wait()
        async def outer():
            await inner()
        asyncio.create_task(outer(), name="left-task")
        await asyncio.sleep(0)

    def test_thread():
        leave_a_thread()

    def test_file(tmp_path):
        KEPT.append((tmp_path / "left.txt").open("w"))

    def test_another_file_under_the_number_of_one_that_was_there(tmp_path):
        with (tmp_path / "other.txt").open("w") as file:
            os.dup2(file.fileno(), OPENED_BEFORE)

    def test_socket():
        KEPT.append(socket.create_server(("127.0.0.1", 0)))

    def test_descriptors_that_nothing_refers_to():
        os.pipe()

    def test_level():
        logging.getLogger("left.logger").setLevel("DEBUG")

    def test_level_taken_away():
        logging.getLogger("left.logger").setLevel("NOTSET")

    def test_handler():
        logging.getLogger().addHandler(logging.StreamHandler())

    def test_disabled():
        logging.getLogger("asyncio").disabled = True

    def test_filter():
        logging.getLogger("left.filter").addFilter(lambda record: True)

    def test_all_logging_disabled():
        logging.disable(logging.INFO)

    def test_two_kinds():
        leave_a_thread()
        KEPT.append(open(os.devnull))

    def test_what_a_fixture_leaves(leaving):
        pass

    @pytest.fixture
    def leaving():
        yield
        leave_a_thread()
"""


def test_whatever_a_test_leaves_behind_fails_it_and_is_named(run):
    done = run(LEAVING)

    left = left_by(done.stdout)
    assert done.returncode == 1
    expected = {
        "test_task": [r"task left-task of test_task.<locals>.outer, at \S+test_it.py:14 in inner"],
        "test_thread": [r"thread left-thread \(daemon\), at \S+:\d+ in wait"],
        "test_file": [r"file \d+: \S+left.txt"],
        "test_another_file_under_the_number_of_one_that_was_there": [r"file \d+: \S+other.txt"],
        "test_socket": [r"file \d+: socket:\[\d+\] at \('127.0.0.1', \d+\)"],
        "test_descriptors_that_nothing_refers_to": [r"file \d+: pipe:\[\d+\]"] * 2,
        "test_level": ["logger left.logger: level 10 instead of 0"],
        "test_level_taken_away": ["logger left.logger: level 0 instead of 10"],
        "test_handler": [r"logger root: handlers \(<StreamHandler .*>,\) instead of \(\)"],
        "test_disabled": ["logger asyncio: disabled True instead of False"],
        "test_filter": [r"logger left.filter: filters .* instead of \(\)"],
        "test_all_logging_disabled": [r"logger logging.disable\(\): level 20 instead of 0"],
        "test_two_kinds": [r"thread left-thread .*", r"file \d+: /dev/null"],
        "test_what_a_fixture_leaves": [r"thread left-thread \(daemon\), at \S+:\d+ in wait"],
    }
    assert left.keys() == expected.keys(), done.stdout
    for name, patterns in expected.items():
        assert len(left[name]) == len(patterns)
        for said, pattern in zip(left[name], patterns, strict=True):
            assert re.fullmatch(pattern, said)
    assert f"{len(expected)} passed, {len(expected)} errors" in done.stdout
    assert '@pytest.mark.leaves("task")' in done.stdout
    assert '@pytest.mark.leaves("thread", "file")' in done.stdout


TIDY = """
    import concurrent.futures

    async def test_tasks_that_end():
        await asyncio.create_task(asyncio.sleep(0))

    async def test_a_task_that_is_about_to_end():
        asyncio.create_task(asyncio.sleep(0.05))

    @pytest.fixture
    async def server():
        serving = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        task = asyncio.create_task(asyncio.Event().wait())
        yield serving.sockets[0].getsockname()
        task.cancel()
        serving.close()

    async def test_what_fixtures_of_the_loop_run_and_end(server):
        reader, writer = await asyncio.open_connection(*server)
        await reader.read()
        writer.close()
        await writer.wait_closed()

    async def test_the_loop_s_own_threads():
        await asyncio.to_thread(int)

    def test_a_thread_that_is_about_to_end():
        threading.Thread(target=lambda: FOREVER.wait(0.05)).start()

    def test_an_executor_that_nobody_refers_to():
        concurrent.futures.ThreadPoolExecutor().submit(int)

    def test_a_loop_of_its_own():
        asyncio.run(asyncio.sleep(0))

    def test_a_file_in_a_cycle_of_garbage():
        class Owner:
            def __init__(self):
                self.descriptor = os.open(os.devnull, os.O_RDONLY)
                self.itself = self

            def __del__(self):
                os.close(self.descriptor)

        Owner()

    def test_what_pytest_itself_puts_up(caplog, capfd, monkeypatch, tmp_path):
        caplog.set_level("DEBUG")
        logging.getLogger("new.but.untouched").info("hello")

    def test_a_library_that_sets_up_its_loggers_when_it_is_imported(tmp_path, monkeypatch):
        (tmp_path / "noisy_library.py").write_text(
            "import logging; logging.getLogger('noisy_library.x').setLevel('INFO')"
        )
        monkeypatch.syspath_prepend(tmp_path)
        import noisy_library

    @pytest.fixture(scope="module")
    def wide():
        leave_a_thread()
        logging.getLogger("wide").setLevel("INFO")
        reader, writer = os.pipe()
        yield
        os.close(reader)
        os.close(writer)

    def test_what_a_wider_fixture_has(wide):
        pass

    def test_what_a_wider_fixture_has_that_is_asked_for_late(request):
        request.getfixturevalue("late")

    @pytest.fixture(scope="module")
    def late():
        leave_a_thread()
"""


def test_what_ends_in_time_or_belongs_to_somebody_else_fails_no_test(run):
    done = run(TIDY)

    assert re.search(r"^12 passed", done.stdout, re.MULTILINE), done.stdout


def test_what_the_teardown_of_a_wider_fixture_puts_back_fails_no_test(run):
    source = """
        @pytest.fixture(scope="module")
        def loud():
            logging.getLogger("loud").setLevel("DEBUG")
            logging.getLogger("loud").addHandler(logging.StreamHandler())
            yield
            logging.getLogger("loud").setLevel("NOTSET")
            logging.getLogger("loud").handlers.clear()

        @pytest.fixture(scope="class")
        def louder(loud):
            logging.getLogger("loud").setLevel("INFO")
            yield
            logging.getLogger("loud").setLevel("DEBUG")

        class TestIt:
            def test_first(self, louder):
                pass

            def test_last_of_its_class(self):
                pass

        def test_leaving(loud):
            logging.getLogger("left").setLevel("INFO")
            logging.getLogger("loud").setLevel("WARNING")

        def test_last_of_its_module():
            pass
    """

    done = run(source)

    assert left_by(done.stdout) == {
        "test_leaving": [
            "logger loud: level 30 instead of 10",
            "logger left: level 20 instead of 0",
        ]
    }, done.stdout


SHARED_POOLS = """
    from concurrent.futures import ThreadPoolExecutor

    AT_IMPORT = ThreadPoolExecutor(1)

    class Service:
        def __init__(self):
            self.pool = ThreadPoolExecutor(2, "service")

    @pytest.fixture(scope="session")
    def service():
        service = Service()
        yield service
        service.pool.shutdown()

    def test_of_a_fixture(service):
        service.pool.submit(int).result()

    def test_of_the_module():
        AT_IMPORT.submit(int).result()

    @pytest.mark.asyncio(loop_scope="module")
    async def test_of_a_loop():
        await asyncio.to_thread(int)

    @pytest.fixture(scope="module")
    def other_loop():
        uvloop = pytest.importorskip("uvloop")
        loop = uvloop.new_event_loop()
        yield loop
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()

    def test_of_a_loop_in_c(other_loop):
        other_loop.run_until_complete(other_loop.run_in_executor(None, int))

    def test_leaving():
        KEPT.append(ThreadPoolExecutor(1, "left-pool"))
        KEPT[0].submit(int).result()
"""


def test_the_threads_of_a_pool_that_was_there_before_fail_no_test(run):
    done = run(SHARED_POOLS)

    left = left_by(done.stdout)
    assert [*left] == ["test_leaving"], done.stdout
    assert re.match("thread left-pool_0,", left["test_leaving"][0])
    assert "5 passed, 1 error" in done.stdout


def test_what_multiprocessing_keeps_for_the_process_fails_no_test(run):
    source = """
        import multiprocessing

        @pytest.mark.parametrize("method", ["spawn", "forkserver"])
        def test_it(method):
            context = multiprocessing.get_context(method)
            context.Event().set()
            child = context.Process(target=int)
            child.start()
            child.join()
            child.close()
    """

    done = run(source)

    assert "2 passed" in done.stdout, done.stdout
    assert "error" not in done.stdout


def test_tasks_in_a_loop_that_many_tests_share_are_found(run):
    source = """
        pytestmark = pytest.mark.asyncio(loop_scope="module")

        async def test_before():
            pass

        async def test_leaving():
            KEPT.append(asyncio.create_task(asyncio.Event().wait(), name="shared"))

        async def test_after():
            assert not KEPT[0].done()
    """

    done = run(source)

    assert [*left_by(done.stdout)] == ["test_leaving"], done.stdout
    assert "3 passed, 1 error" in done.stdout


def test_a_mark_allows_what_it_names_and_nothing_else(run):
    source = """
        @pytest.mark.leaves("thread")
        def test_allowed():
            leave_a_thread()

        @pytest.mark.leaves("file", "logger")
        def test_not_allowed():
            leave_a_thread()
            KEPT.append(os.open(os.devnull, os.O_RDONLY))
    """

    left = left_by(run(source).stdout)

    assert [*left] == ["test_not_allowed"]
    assert [said.partition(" ")[0] for said in left["test_not_allowed"]] == ["thread"]


def test_a_mark_or_an_option_that_names_no_kind_is_refused_with_the_right_name(run):
    marked = run('@pytest.mark.leaves("thraed")\ndef test_it():\n    pass\n')
    assert marked.returncode == 4
    assert "test_it names 'thraed'; did you mean `thread`?" in marked.stderr + marked.stdout

    optional = run("def test_it():\n    pass\n", f"{INI}petsage_leftovers = flie\n")
    assert optional.returncode == 4
    assert "did you mean `file`?" in optional.stderr


@pytest.mark.parametrize(("option", "failed"), [("off", []), ("file", ["test_file"])])
def test_the_option_says_what_is_looked_for(run, option, failed):
    source = """
        def test_thread():
            leave_a_thread()
        def test_file():
            os.pipe()
    """

    done = run(source, f"{INI}petsage_leftovers = {option}\n")

    assert [*left_by(done.stdout)] == failed


def test_a_test_that_fails_is_told_so_and_no_more(run):
    done = run("def test_it():\n    leave_a_thread()\n    assert False\n")

    assert "1 failed" in done.stdout
    assert "left behind" not in done.stdout
