"""What `python -m benchmarks` makes of its figures; that they are right, only a run can show."""

import json
import os
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.chart import chart
from benchmarks.further import further_verdicts
from benchmarks.further_rounds import Reading
from benchmarks.goals import verdicts
from benchmarks.lines import APP_MESSAGE, count_lines
from benchmarks.measure import Plan, Round
from benchmarks.page import write_page
from benchmarks.pipe import drained_pipe
from benchmarks.report import Run, as_json, this_machine
from benchmarks.servers import PATH, SERVERS
from benchmarks.summary import at_least, at_most, notes, verdict

ROUND = Round(
    server="petsage",
    number=1,
    requests=1000,
    cpu_us=50.0,
    requests_per_s=20_000.0,
    p50_ms=3.0,
    p99_ms=6.0,
    peak_mb=60.0,
    children_peak_mb=0.0,
    first_200_ms=300.0,
    first_200_cpu_ms=280.0,
    server_share=1.0,
    children_share=0.0,
    wrk_share=0.4,
    others_share=0.0,
    wrk_others_share=0.0,
    app_lines=1001,
    access_lines=1001,
    app_fields=("timestamp", "level", "logger", "message"),
    access_fields=("timestamp", "level", "logger", "message", "status"),
    faults=(),
)
READING = Reading(1, "PetSage", "post", 1000, 50.0, 20_000.0, 3.0, 6.0, 0.0, 0.0, 0, ())
PLAN = Plan(rounds=1, seconds=1, warmup_s=1, connections=64, server_core=1, client_core=0)
APP = {"asctime": "now", "levelname": "INFO", "name": "app", "message": APP_MESSAGE}
ACCESS = {
    "timestamp": "now",
    "level": "INFO",
    "logger": "server.access",
    "message": "",
    "first_request_line": f"GET {PATH} HTTP/1.1",
    "response_status": 200,
    "remote_address": "127.0.0.1",
}


def of_all_servers(number=1):
    return [
        replace(ROUND, server=name, number=number, cpu_us=50.0 * place)
        for place, name in enumerate(SERVERS, 1)
    ]


def counted(folder, *records):
    (folder / "lines.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return count_lines(folder, access_logger="server.access", path=PATH)


def test_lines_count_under_the_names_that_a_server_gives_their_fields(tmp_path):
    lines = counted(tmp_path, APP, ACCESS)
    assert (lines.app, lines.access, lines.invalid) == (1, 1, 0)
    assert lines.faults(answered=1, too_early=0, slack=0) == []
    assert lines.access_fields == tuple(ACCESS)


@pytest.mark.parametrize("record", [APP, ACCESS])
def test_a_line_that_lacks_any_fact_makes_a_run_void(tmp_path, record):
    for missing in record.keys() - {"message", "name", "logger"}:
        one_less = {name: value for name, value in record.items() if name != missing}
        lines = counted(tmp_path, APP, ACCESS, one_less)
        assert lines.invalid == 1, missing
        assert lines.faults(answered=1, too_early=0, slack=0), missing


def test_an_access_line_of_another_path_makes_a_run_void(tmp_path):
    other = ACCESS | {"first_request_line": "GET / HTTP/1.1"}
    assert counted(tmp_path, APP, ACCESS, other).invalid == 1


def test_a_line_that_is_missing_makes_a_run_void(tmp_path):
    (fault,) = counted(tmp_path, APP, ACCESS, ACCESS).faults(answered=2, too_early=0, slack=0)
    assert fault == "1 app lines for 2 answers (up to 0 more allowed)"


def test_a_warning_such_as_of_dropped_lines_makes_a_run_void(tmp_path):
    dropped = APP | {"levelname": "WARNING", "message": "Sink file dropped 7 lines"}
    (fault,) = counted(tmp_path, APP, ACCESS, dropped).faults(answered=1, too_early=0, slack=0)
    assert fault == "1 lines of it are warnings, or worse"


def test_the_memory_of_a_server_is_that_of_the_processes_that_serve():
    keeps_one = replace(ROUND, peak_mb=40.0, children_peak_mb=30.0, children_share=0.1)
    assert keeps_one.memory_mb == 40
    assert replace(keeps_one, children_share=0.9).memory_mb == 70


def test_a_verdict_says_whether_the_least_and_the_goal_were_met():
    said = verdict("times", [6.5, 7.0, 7.5], at_least(6), at_least(7))
    assert (said.least, said.least_is) == ("≥ 6", "met")
    assert (said.goal, said.goal_is) == ("≥ 7", "met (met in 2 of 3 rounds)")
    assert verdict("times", [1.2, 1.3], at_most(1)).least_is == "missed"
    noisy = verdict("times", [4.0, 6.0, 8.0], at_least(6)).least_is
    assert noisy == "too noisy to tell (2 of 3 rounds met it)"


def test_the_same_logs_decide_and_the_others_are_shown_in_brackets():
    peer = replace(ROUND, cpu_us=350.0)
    rounds = [ROUND, *(replace(peer, server=f"fastapi_def_{each}") for each in ("docs", "ours"))]
    same, documented, *_ = verdicts(rounds)
    assert (same.measured.median, same.least_is, same.goal_is) == (7, "met", "missed")
    assert (documented.least_is, documented.goal_is) == ("(met)", "(missed)")


def test_goals_are_judged_round_with_round():
    rounds = [
        replace(ROUND, server=name, number=number, cpu_us=cpu_us)
        for name, costs in {"petsage": (50.0, 100.0), "aiohttp_bare": (50.0, 200.0)}.items()
        for number, cpu_us in enumerate(costs, 1)
    ]
    said = next(each for each in verdicts(rounds) if "json_response" in each.text)
    assert (said.measured.least, said.measured.greatest) == (1, 2)


def test_further_goals_compare_two_operations_of_one_round():
    readings = [READING, replace(READING, operation="fastapi_post", cpu_us=100.0)]
    (said,) = further_verdicts(readings)
    assert (said.measured.median, said.least_is) == (2, "missed")


def test_a_picture_shows_each_server_and_is_the_same_for_the_same_rounds():
    rounds = of_all_servers()
    picture = chart(rounds)
    assert picture == chart(rounds)
    root = ElementTree.fromstring(picture)
    name = "{http://www.w3.org/2000/svg}"
    bars = [each for each in root.iter(f"{name}rect") if each.get("x") == "250"]
    assert len(bars) == len(SERVERS)
    assert sum(each.get("class") == "petsage" for each in bars) == 1
    texts = {each.text for each in root.iter(f"{name}text")}
    assert {server.title for server in SERVERS.values()} <= texts
    widths = sorted(float(each.get("width", 0)) for each in bars)
    assert widths[-1] == pytest.approx(widths[0] * len(SERVERS), rel=0.02)


def test_a_page_holds_both_ways_of_logging_the_goals_and_its_command(tmp_path):
    run = Run(this_machine(), PLAN, of_all_servers(), [READING], "python -m benchmarks --help")
    write_page(run, tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text()
    assert (tmp_path / "page.svg").read_text() == chart(run.rounds)
    assert "](page.svg)" in page
    assert "`python -m benchmarks --help`" in page
    _, same, rest = page.split("\n## All ")
    documented = rest.split("\n## ")[0]
    assert "Litestar, PetSage's logs" in same
    assert "Litestar, python-json-logger" not in same
    assert "Litestar, python-json-logger" in documented
    assert "Litestar, PetSage's logs" not in documented
    assert "| PetSage |" in same
    assert "| PetSage |" in documented
    assert json.loads(as_json(run))["void"] == []


def test_every_peer_is_a_module_that_is_there():
    for server in SERVERS.values():
        if server.name != "petsage":
            module = Path(*server.arguments[0].split(".")).with_suffix(".py")
            assert (Path(__file__).parent.parent / module).is_file(), server.name


def test_a_time_tells_nothing_where_others_were_busy_and_cpu_does():
    peer = replace(ROUND, server="aiohttp_bare", p99_ms=12.0, cpu_us=100.0)
    quiet = {each.text: each for each in verdicts([ROUND, peer])}
    busy = [replace(each, wrk_others_share=0.5) for each in (ROUND, peer)]
    for said in verdicts(busy):
        before = quiet[said.text].least_is
        timed = "p99" in said.text or "first 200" in said.text
        assert said.least_is == (f"too noisy to tell ({before})" if timed else before)


def test_a_further_time_tells_nothing_where_others_were_busy():
    one = replace(READING, operation="nothing_one")
    readings = [one, replace(one, operation="aiohttp_one")]
    assert further_verdicts(readings)[0].least_is == "met"
    busy = [replace(each, others_share=0.5) for each in readings]
    assert further_verdicts(busy)[0].least_is == "too noisy to tell (met)"


def test_a_note_names_all_servers_that_were_held_up_by_one_cause():
    rounds = [
        replace(ROUND, server=name, server_share=0.5, wrk_share=0.95)
        for name in ("petsage", "aiohttp_bare")
    ]
    (note,) = notes(rounds)
    assert note.startswith("wrk was the limit: ")
    assert note.endswith("(petsage 1 of 1, aiohttp_bare 1 of 1)")


def test_a_slow_pipe_is_drained_at_once_when_its_writer_is_to_end():
    with drained_pipe(1_000) as (write_end, drain):
        os.write(write_end, b"four\n" * 12_000)  # a minute's worth
        assert drain.lines < 12_000
        drain.hurry()
    assert drain.lines == 12_000
