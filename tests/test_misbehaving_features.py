"""Features that misbehave in a running server: it stays up, names them, and serves the others."""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import misbehaving
from tests.conftest import ServerProcess

LONGEST_GAP_S = 1.0
PATIENCE_S = 20.0
ENV = {
    "PETSAGE_CATALOG__CHECK_TIMEOUT_S": "10",
    "PETSAGE_CATALOG__SETTLE_MS": "50",
    "PETSAGE_CATALOG__START_TIMEOUT_S": "1",
    "PETSAGE_LOGS__FLUSH_MS": "0",
    "PETSAGE_LOGS__SINKS__STDOUT__QUEUE_RECORDS": "100000",
    "PETSAGE_SERVER__REQUEST_TIMEOUT_S": "1",
    "PETSAGE_SERVER__SHUTDOWN_S": "1",  # a body that hangs is not told that its client has left
}


class Server:
    """A server whose log is read all the time, and which is asked for `steady` all the time."""

    def __init__(self, project: Path) -> None:
        self.features = project / "features"
        self.write("steady", misbehaving.STEADY)
        self.process = ServerProcess(project, (), ENV)
        self.pid = self.process.pid
        self.host = self.process.address.removeprefix("http://")
        self.prober = misbehaving.Prober(self.host)

    def write(self, name: str, source: str) -> None:
        """A feature of one file."""
        (self.features / name).mkdir(parents=True)
        (self.features / name / "__init__.py").write_text(source, encoding="utf-8")

    def drop_in(self, name: str, source: str) -> None:
        """The same, and waits until it serves."""
        self.write(name, source)
        self.until(lambda line: f"Feature {name} was added" in line["message"])

    def until(self, wanted: Any) -> dict[str, Any]:
        """Reads the log until a line that is wanted comes."""
        return self.process.wait_for(wanted)

    def ask(self, path: str) -> tuple[int, bytes]:
        """Status and body; 0 where the connection was closed without an answer, or amid one."""
        connection = http.client.HTTPConnection(self.host, timeout=PATIENCE_S)
        with contextlib.closing(connection):
            connection.request("GET", path)
            try:
                answer = connection.getresponse()
                return answer.status, answer.read()
            except http.client.HTTPException:
                return 0, b""

    def feature(self, name: str) -> dict[str, Any]:
        """What is told of a feature."""
        _, body = self.ask("/features")
        found: dict[str, Any] = next(each for each in json.loads(body) if each["name"] == name)
        return found

    def end(self) -> list[dict[str, Any]]:
        """Stops it, and says all that it has logged; it has to be the same process, and well."""
        gap_s, failures = self.prober.stop()
        assert os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        self.process.signal(signal.SIGTERM)
        code, _ = self.process.end()
        assert (code, failures) == (0, [])
        assert gap_s < LONGEST_GAP_S
        return self.process.lines


@pytest.fixture
def server(project) -> Iterator[Server]:
    """A running server with one feature that behaves."""
    started = Server(project)
    yield started
    started.prober.stop()
    started.process.kill()


@dataclass(frozen=True)
class Asked:
    """What was answered, by path; what was logged; what is told of the feature, by kind."""

    answers: dict[str, tuple[int, bytes]]
    lines: list[dict[str, Any]]
    troubles: dict[str, dict[str, Any]]

    def errors_of(self, path: str) -> list[dict[str, Any]]:
        """The errors of the requests of one path."""
        ids = {
            line["request_id"]
            for line in self.lines
            if line["logger"] == "petsage.access" and line["path"] == f"/api/v1/{path}"
        }
        return [x for x in self.lines if x["level"] == "ERROR" and x["request_id"] in ids]


def kinds(source: str, table: str = "KINDS") -> list[str]:
    """The keys of a table in a feature's source."""
    found = re.search(rf"^{table} = \{{(.*?)^\}}", source, re.MULTILINE | re.DOTALL)
    assert found is not None
    return re.findall(r'^    "([a-z0-9-]+)": ', found[1], re.MULTILINE)


def ask_all(server: Server, name: str, source: str, paths: list[str]) -> Asked:
    """Drops a feature in, asks for all of these, and stops the server."""
    if not (server.features / name).exists():
        server.drop_in(name, source)
    answers = {path: server.ask(f"/api/v1/{path}") for path in paths}
    troubles = {each["kind"]: each for each in server.feature(name)["troubles"]}
    return Asked(answers, server.end(), troubles)


def test_whatever_a_handler_raises_is_500_in_its_name_and_ends_nothing(server):
    source = misbehaving.RAISES
    ways = ("raises", "direct-raises")
    paths = [f"{w}/{k}" for w in ways for k in kinds(source)]
    server.drop_in("raises", source)
    # What comes later on a connection is answered another way than what comes with it.
    kept = http.client.HTTPConnection(server.host, timeout=PATIENCE_S)
    for path in paths:
        kept.request("GET", f"/api/v1/{path}")
        answer = kept.getresponse()
        answer.read()
        assert answer.status == 500, path
    kept.close()
    asked = ask_all(server, "raises", source, paths)

    wrong = {path: answer for path, answer in asked.answers.items() if answer[0] != 500}
    assert wrong == {}
    for path in asked.answers:
        assert json.loads(asked.answers[path][1])["status"] == 500
        assert b"the inside" not in asked.answers[path][1]
        assert [line["feature"] for line in asked.errors_of(path) if "exc_info" in line], path
    ended = [line for line in asked.lines if "ended the event loop" in line["message"]]
    assert len(ended) == 2 * 2 * len(("task-group", "exit", "interrupt", "callback", "stop"))
    assert {line["failing_feature"] for line in ended} == {"raises"}
    assert asked.troubles.keys() == {"request-failed", "loop-ended"}
    failed = asked.troubles["request-failed"]
    assert failed["count"] == 2 * len(asked.answers)
    assert re.search(
        r"GET /api/v1/direct-raises/\S+ raised RuntimeError at /\S+:\d+ in", failed["problem"]
    )
    assert "the inside" not in json.dumps(asked.troubles)
    assert asked.troubles["loop-ended"]["count"] == len(ended)


RIGHT = {
    # What JSON has no word for becomes what is next to it.
    **dict.fromkeys(("nan", "infinite", "deep", "set", "many-digits", "tuple-keys"), 200),
    **dict.fromkeys(("generator", "raising-dict", "million"), 200),
}
RAW = {
    **dict.fromkeys(("kept", "stream-kept", "unprepared", "sent", "two", "lies-long"), 200),
    **dict.fromkeys(("header-surrogate", "cookie-crlf"), 200),
    # Something of them is out, or has no end.
    **dict.fromkeys(("lies-short", "body-midway", "body-texts"), 0),
    **dict.fromkeys(("header-many", "status-0"), 0),
    "status-100": 101,
    "file-missing": 404,
    "file-folder": 403,
}


def test_whatever_a_handler_returns_is_answered_at_once_and_never_in_part(server):
    source = misbehaving.RETURNS
    wanted = {
        **{f"{way}typed/{k}": 500 for way in ("", "direct-") for k in kinds(source, "TYPED")},
        **{
            f"{way}loose/{k}": RIGHT.get(k, 500)
            for way in ("", "direct-")
            for k in kinds(source, "LOOSE")
        },
        **{f"raw/{k}": RAW.get(k, 500) for k in kinds(source, "RAW")},
    }
    headers = {"crlf": 500, "name": 500, "length": 500, "wide": 500, "number": 200}
    wanted |= {f"{w}reply-header/{k}": headers[k] for w in ("", "direct-") for k in headers}

    wanted["direct-raw/kept"] = 500  # it was sent for `raw/kept`
    asked = ask_all(server, "returns", source, list(wanted))

    got = {path: status for path, (status, _) in asked.answers.items()}
    assert {p: (s, wanted[p]) for p, s in got.items() if s != wanted[p]} == {}
    for path in (path for path, status in wanted.items() if status == 500):
        assert {line["feature"] for line in asked.errors_of(path)} == {"returns"}, path
    assert asked.errors_of("raw/lies-short")
    access = [line for line in asked.lines if line["logger"] == "petsage.access"]
    assert {line["path"] for line in access if line.get("cut")} == {
        *("/api/v1/raw/body-midway", "/api/v1/raw/body-texts"),
    }
    took_ms = [x["duration_ms"] for x in asked.lines if x["logger"] == "petsage.access"]
    assert max(took_ms) < 1000


def test_an_endless_answer_ends_when_its_client_leaves(server):
    server.drop_in("returns", misbehaving.RETURNS)
    for path in ("body-endless", "body-hangs"):
        connection = http.client.HTTPConnection(server.host, timeout=PATIENCE_S)
        connection.request("GET", f"/api/v1/raw/{path}")
        assert connection.getresponse().read(5)
        connection.close()

    server.end()


def test_what_fails_when_its_handler_has_answered_is_named(server):
    source = misbehaving.LEAVES
    without = {"thread-exit", "unawaited", "finalizer-logs", "never", "job", "stubborn", "jobs"}
    named = [kind for kind in kinds(source) if kind not in without and kind != "future"]

    paths = [f"leaves/{kind}" for kind in [*named, "finalizer-logs", "unawaited", "never"]]
    asked = ask_all(server, "leaves", source, paths)

    assert {status for status, _ in asked.answers.values()} == {200}
    found = [line for line in asked.lines if line.get("failing_feature") == "leaves"]
    assert all("Feature leaves" in line["message"] for line in found)
    assert len(found) == len(named) - 1 + 1000  # those of `storm`
    told = asked.troubles["stray-failed"], asked.troubles["loop-ended"]
    assert sum(each["count"] for each in told) == len(found) + 1
    assert told[0]["problem"] == "it never awaited the coroutine never"
    assert [x for x in asked.lines if "coroutine 'never' was never awaited" in x["message"]]
    assert [x for x in asked.lines if x["message"] == "a finalizer logs"]


def test_what_cannot_be_logged_is_a_line_all_the_same(server):
    source = misbehaving.LOGS
    refused = {"level-text", "record-bare", "printed-bytes"}  # the stdlib's own errors
    paths = [f"logs/{kind}" for kind in kinds(source)]

    asked = ask_all(server, "logs", source, paths)

    got = {path: status for path, (status, _) in asked.answers.items() if status != 200}
    assert got == {f"logs/{kind}": 500 for kind in refused}
    told = [line["message"] for line in asked.lines if line["logger"].startswith("features.logs")]
    # A filter that raises keeps its line out, and is told of.
    kept_out = [x for x in asked.lines if "A filter of the logger features.logs" in x["message"]]
    assert [line["failing_feature"] for line in kept_out] == ["logs"]
    # One is told of each kind of handler, and of each logger with a filter.
    failed = asked.troubles["stray-failed"]
    assert failed["count"] == 3
    assert re.fullmatch(
        r"its log fails: a filter of the logger \S+ raised \w+ at \S+/logs/__init__\.py:\d+ in \S+",
        failed["problem"],
    )
    assert sum(each.startswith("it is logged") for each in told) >= 20_000 + 20
    access = [line for line in asked.lines if line["logger"] == "petsage.access"]
    assert {line["path"] for line in access} >= {f"/api/v1/{path}" for path in paths}


def test_a_feature_that_fills_the_loops_threads_holds_up_neither_operators_nor_the_stop(server):
    server.drop_in("leaves", misbehaving.LEAVES)
    assert server.ask("/api/v1/leaves/jobs")[0] == 200

    began = time.monotonic()
    for path in ("/metrics", "/openapi.json", "/docs", "/features", "/readyz"):
        assert server.ask(path)[0] == 200
    assert time.monotonic() - began < LONGEST_GAP_S * 2

    server.prober.stop()
    server.process.signal(signal.SIGTERM)
    server.until(lambda line: line["message"] == "PetSage has stopped")
    server.process.signal(signal.SIGTERM)
    server.process.signal(signal.SIGINT)
    assert server.process.end()[0] == 1  # what runs is named, and cut
    assert "cuts what still runs: thread" in server.process.lines[-1]["message"]


def test_whatever_a_lifespan_or_a_check_does_the_others_serve(server):
    ignores = {"ignores_its_limit", "blocks_at_start", "leaves_stubborn", "ignores_its_cut"}
    lifespans = {k: v for k, v in misbehaving.LIFESPANS.items() if k not in ignores}
    failing = {name for name in lifespans if "start" in name or name == "never_yields"}
    for name, source in {**lifespans, **misbehaving.CHECKS}.items():
        if name not in {"check_stubborn", "check_blocks"}:
            server.write(name, misbehaving.feature_with(name, source))
    ended: set[str] = set()

    def is_last(line: dict[str, Any]) -> bool:
        found = re.match(r"Feature (\w+) (was added|is set aside)", line["message"])
        ended.update([found[1]] if found else [])
        return ended >= {*lifespans, "check_hangs", "check_no_coroutine", "check_odd"}

    server.until(is_last)
    for name in lifespans:
        status, _ = server.ask(f"/api/v1/{name}")
        state = server.feature(name)["state"]
        assert (status, state) == ((404, "failed") if name in failing else (200, "serving")), name
    for name in (
        "check_exits",
        "check_odd",
        "check_shy",
        "check_ends",
        "check_cancels",
        "check_hangs",
    ):
        status, body = server.ask(f"/readyz/{name}.own")
        assert status == 503
        assert body.startswith(f"[-]{name}.own failed".encode()), body
        assert b"the inside" not in body or name == "check_exits", body

    changed = "raises_at_stop"
    with (server.features / changed / "__init__.py").open("a") as file:
        file.write("# It is another.\n")
    server.until(lambda line: f"Feature {changed} did not stop cleanly" in line["message"])
    (trouble,) = server.feature(changed)["troubles"]
    assert trouble["kind"] == "stop-failed"
    assert re.match("what served before did not stop cleanly: Odd at ", trouble["problem"])

    for name in lifespans.keys() - failing:
        shutil.rmtree(server.features / name)
    left = {"yields_twice", "hangs_at_stop", "raises_at_stop", "exits_at_stop", "ends_at_stop"}
    left |= {"swallows_its_end", "shy_at_stop"}

    def is_told(line: dict[str, Any]) -> bool:
        found = re.match(r"Feature (\w+) did not stop cleanly", line["message"])
        left.difference_update([found[1]] if found else [])
        return not left

    server.until(is_told)
    server.end()


NEVER = '''"""Its handlers do not come to an end."""
import asyncio
import time
from petsage import Feature, Routes

routes = Routes()

@routes.get("/never")
async def never() -> dict[str, str]:
    """Waits."""
    await asyncio.Event().wait()
    return {}

@routes.get("/stubborn")
async def stubborn() -> dict[str, str]:
    """Waits on when it is cancelled."""
    end = time.monotonic() + 4
    while time.monotonic() < end:
        try:
            await asyncio.sleep(0.5)
        except asyncio.CancelledError:
            continue
    return {}

feature = Feature(routes)
'''


def test_what_never_ends_is_answered_503_and_named(server):
    server.drop_in("never", NEVER)
    began = time.monotonic()

    answers = [server.ask("/api/v1/never"), server.ask("/api/v1/stubborn")]

    assert time.monotonic() - began < 2 * 3.5
    assert [(status, json.loads(body)["status"]) for status, body in answers] == [(503, 503)] * 2
    troubles = {each["kind"]: each["count"] for each in server.feature("never")["troubles"]}
    assert troubles == {"request-overdue": 2, "request-runs-on": 1}
    lines = server.end()
    told = [line["message"] for line in lines if line["message"].startswith("Feature never: a ")]
    assert [re.findall("is cancelled|runs on", each) for each in told] == [
        ["is cancelled"],
        ["is cancelled"],
        ["runs on"],
    ]


BLOCKS = misbehaving.STEADY.replace("/steady", "/blocks").replace(
    'return {"is": "there"}', "import time\n    time.sleep(1.2)\n    return {}"
)


def test_who_blocks_the_loop_is_named_while_it_does_and_all_is_well_at_once_after_it(server):
    server.drop_in("blocks", BLOCKS)
    asking = threading.Thread(target=server.ask, args=("/api/v1/blocks",))
    began = time.monotonic()
    asking.start()

    line = server.until(lambda each: "stood still" in each["message"])
    named_s = time.monotonic() - began
    assert server.ask("/livez")[0] == 200
    recovered_s = time.monotonic() - began
    asking.join()

    assert "feature blocks blocked it at" in line["message"]
    assert line["blocking_feature"] == "blocks"
    assert named_s < 1.2 <= recovered_s < 1.2 + LONGEST_GAP_S
    gap_s, failures = server.prober.stop()
    assert failures == []
    assert 1.0 < gap_s < 1.2 + LONGEST_GAP_S  # one loop has one thread: the block itself, no more
    assert b'petsage_event_loop_stalls_total{feature="blocks"} 1.0' in server.ask("/metrics")[1]
    (trouble,) = server.feature("blocks")["troubles"]
    assert (trouble["kind"], trouble["count"]) == ("loop-blocked", 1)
    assert re.search(r"for 1\.\d s at \S+/blocks/__init__\.py:\d+ in steady$", trouble["problem"])
    (server.features / "blocks" / "__init__.py").write_text(BLOCKS.replace("1.2", "0"))
    server.until(lambda each: "Feature blocks was changed" in each["message"])
    assert server.feature("blocks")["troubles"] == []  # it is another now


def test_a_feature_that_meddles_with_the_loop_ends_nothing_and_is_named(server):
    source = misbehaving.MEDDLES
    server.drop_in("meddles", source)
    idle = http.client.HTTPConnection(server.host, timeout=PATIENCE_S)
    statuses = {}
    for kind in kinds(source, "LOOP"):
        statuses[kind] = server.ask(f"/api/v1/meddles/{kind}")[0]
        # On a connection whose own task was cancelled meanwhile, too.
        idle.request("GET", "/api/v1/steady")
        assert idle.getresponse().read() == b'{"is":"there"}', kind
    idle.close()
    server.drop_in("late", misbehaving.STEADY.replace("/steady", "/late"))

    assert server.ask("/api/v1/late")[0] == 200
    refused = {"cancels-all", "ends-generators", "ends-threads"}
    assert statuses == {kind: 500 if kind in refused else 200 for kind in statuses}
    troubles = {each["kind"] for each in server.feature("meddles")["troubles"]}
    assert troubles == {
        *("request-failed", "cancels-others", "loop-ended", "process-changed", "stray-failed"),
    }
    lines = server.end()
    told = [line["message"] for line in lines if line.get("failing_feature") == "meddles"]
    for said in (
        "would have cancelled tasks that are not its own, which go on",
        "would have ended the event loop, which goes on",
        "has set a task factory that makes no task",
        "has set an exception handler that raised",
        "failed outside of its handlers: Task exception was never retrieved",
    ):
        assert any(f"Feature meddles {said}" in each for each in told), said


def test_amid_a_storm_of_cancellations_each_request_of_others_is_answered(server):
    server.drop_in("meddles", misbehaving.MEDDLES)
    server.drop_in("waits", misbehaving.WAITS)
    outcomes: dict[str, Counter[int | str]] = {}

    def ask(path: str, *, is_new: bool = False, in_pieces: bool = False) -> None:
        found = outcomes[f"{path} {is_new} {in_pieces}"] = Counter()
        connection = http.client.HTTPConnection(server.host, timeout=PATIENCE_S)
        # The first may go aiohttp's way.
        connection.request("GET", "/api/v1/steady")
        connection.getresponse().read()
        is_ready.wait()
        while time.monotonic() < end:
            if is_new:
                connection.close()
            try:
                if in_pieces:  # another way than what comes at once
                    if connection.sock is None:
                        connection.connect()
                    connection.sock.send(b"GET ")
                    time.sleep(0.001)
                    connection.sock.send(f"{path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
                    answer = http.client.HTTPResponse(connection.sock, method="GET")
                    answer.begin()
                else:
                    connection.request("GET", path)
                    answer = connection.getresponse()
                answer.read()
                found[answer.status] += 1
            except (OSError, http.client.HTTPException) as error:
                found[type(error).__name__] += 1
                connection.close()
        connection.close()

    is_ready = threading.Barrier(6)
    asking = [
        threading.Thread(target=ask, args=("/api/v1/steady",)),
        threading.Thread(target=ask, args=("/api/v1/steady",), kwargs={"is_new": True}),
        threading.Thread(target=ask, args=("/api/v1/steady",), kwargs={"in_pieces": True}),
        threading.Thread(target=ask, args=("/api/v1/waits",)),
        threading.Thread(target=ask, args=("/readyz",)),
    ]
    for each in asking:
        each.start()
    # It cancels all that it finds at each turn of the loop: no moment of a request is left out.
    assert server.ask("/api/v1/meddles/on-and-on")[0] == 200
    end = time.monotonic() + 0.7
    is_ready.wait()
    for each in asking:
        each.join()

    # Of what goes aiohttp's way, that is cancelled which waits for something; none is closed.
    waits = [outcomes.pop(f"/{path} False False") for path in ("api/v1/waits", "readyz")]
    assert {*waits[0], *waits[1]} <= {200, 500}
    assert waits[0][200] > 5
    assert {tuple(found) for found in outcomes.values()} == {(200,)}, outcomes
    assert min(found[200] for found in outcomes.values()) > 5
    (trouble,) = server.feature("meddles")["troubles"]
    assert trouble["kind"] == "cancels-others"
    server.end()


def test_what_a_server_needs_of_the_process_is_put_back(server):
    source = misbehaving.MEDDLES
    server.drop_in("meddles", source)
    paths = [f"/api/v1/meddles/{kind}" for kind in kinds(source, "PROCESS")]
    assert [server.ask(path)[0] for path in paths] == [200] * len(paths)
    wanted = len(paths) + 3  # `hooks` are four
    put_back: set[str] = set()

    def is_last(line: dict[str, Any]) -> bool:
        found = re.match(
            r"Feature meddles has changed (.+) while PetSage serves, which was put back; "
            r"it may be \S+/meddles/__init__\.py:\d+; fix: ",
            line["message"],
        )
        put_back.update([found[1]] if found else [])
        return len(put_back) == wanted

    server.until(is_last)
    for path in ("/metrics", "/openapi.json", "/features", "/readyz"):
        assert server.ask(path)[0] == 200
    server.drop_in("late", misbehaving.STEADY.replace("/steady", "/late"))
    (trouble,) = server.feature("meddles")["troubles"]
    assert (trouble["kind"], trouble["count"]) == ("process-changed", wanted)
    server.end()  # SIGTERM is heeded


MUTES = """
import asyncio
import logging
import os
from petsage import Feature, Routes
routes = Routes()

@routes.get("/mutes")
async def mutes() -> None:
    os.chdir("/")
    # Between two looks: when the folder is put back, the log is not yet.
    asyncio.get_running_loop().call_later(0.25, logging.disable)

feature = Feature(routes)
"""


def test_what_is_put_back_while_the_log_is_off_is_told_when_it_is_on(server):
    server.drop_in("mutes", MUTES)
    assert server.ask("/api/v1/mutes")[0] == 204
    wanted = {"the working directory", "logging.disable()"}

    def is_last(line: dict[str, Any]) -> bool:
        found = re.match(r"Feature mutes has changed (.+) while PetSage serves", line["message"])
        wanted.difference_update([found[1]] if found else [])
        return not wanted

    server.until(is_last)
    server.end()


def test_what_a_handler_puts_in_the_place_of_what_the_server_calls_is_put_back(server):
    server.drop_in("meddles", misbehaving.MEDDLES)
    server.prober.stop()  # what is asked amid it may fail
    told = {
        "builtins": ["builtins.isinstance"],
        "answers": ["aiohttp.web.Response.prepare"],
        "core": ["petsage.answers.stamp"],
        "computed": ["asyncio.create_task", "asyncio.timeout"],
    }
    assert kinds(misbehaving.MEDDLES, "CALLED") == [*told]
    for kind, names in told.items():
        with contextlib.suppress(OSError):
            server.ask(f"/api/v1/meddles/{kind}")
        for name in names:
            line = server.until(lambda line, name=name: f"has changed {name} " in line["message"])
            assert "which was put back" in line["message"]
            # Who has done it is known where a source says so.
            by = None if kind == "computed" else "meddles"
            assert (line["failing_feature"], line["level"]) == (by, "ERROR")
        assert server.ask("/api/v1/steady") == (200, b'{"is":"there"}')
        assert server.ask("/readyz")[0] == 200
    server.drop_in("late", misbehaving.STEADY.replace("/steady", "/late"))
    troubles = {each["kind"]: each["count"] for each in server.feature("meddles")["troubles"]}
    assert troubles["process-changed"] == 3
    server.process.signal(signal.SIGTERM)
    assert server.process.end()[0] == 0
    assert sum("has changed" in line["message"] for line in server.process.lines) == 5


IMPORTS = {
    "closes_all": "import os\nos.closerange(0, 100)",
    "ends_by_alarm": "import signal\nsignal.setitimer(signal.ITIMER_REAL, 0.05)",
    "exits": "import os\nos._exit(3)",
    "kills": "import os\nos.kill(os.getpid(), 9)",
    "limits_descriptors": "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (8, 8))",
    "patches": "import asyncio\nasyncio.sleep = None",
    "patches_models": "import pydantic\npydantic.BaseModel.__init__ = None",
    "replaces_modules": "import sys, types\nsys.modules['petsage.routing'] = types.ModuleType('x')",
    "silences": "import logging\nlogging.getLogger('petsage').setLevel(60)",
    "small_stacks": "import threading\nthreading.stack_size(65536)",
}


def test_no_import_reaches_the_process_that_serves(server):
    for name, source in IMPORTS.items():
        server.write(name, f"{source}\n{misbehaving.feature_with(name, GOOD)}")
    aside: set[str] = set()

    def is_last(line: dict[str, Any]) -> bool:
        found = re.match(r"Feature (\w+) is set aside", line["message"])
        aside.update([found[1]] if found else [])
        return aside == IMPORTS.keys()

    server.until(is_last)
    for name in IMPORTS:
        assert server.feature(name)["state"] == "failed"
        assert server.feature(name)["last_error"]["id"] in {"import-side-effect", "check-crashed"}
    server.end()


GOOD = "async def check(app):\n    pass\n"
