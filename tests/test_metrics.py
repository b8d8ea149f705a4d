"""Metrics: every request is counted once, the text is valid, and strangers add no series."""

import asyncio
import gzip
import http.client
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import Any, get_args

import pytest
from prometheus_client import Metric as Family
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from petsage.catalog import CATALOG
from petsage.entry import State, Step
from petsage.health import CHECKS, PROCESS_STATE
from petsage.metrics import (
    BUCKETS,
    CONNECTIONS,
    KNOWN_METHODS,
    MAX_SERIES,
    METRICS,
    OTHER,
    REQUESTS,
    RequestMetrics,
    active_name,
)
from petsage.shared_database import SHARED_DATABASE
from petsage.testing import Client, FeatureClient, FeatureFolder
from petsage.watchdog import WATCHDOG
from tests.conftest import ROOT

PATIENCE_S = 60.0
COUNT = "http_server_request_duration_seconds_count"
SUM = "http_server_request_duration_seconds_sum"
BUCKET = "http_server_request_duration_seconds_bucket"
ACTIVE = "http_server_active_requests"
OPENMETRICS = "application/openmetrics-text;version=1.0.0"
# What Prometheus 3 sends.
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)

FEATURE = '''
    """Answers in several ways."""
    import asyncio
    import time
    from aiohttp import web
    from petsage import Check, Feature, Problem, Routes

    routes = Routes()
    hungry, asked = False, 0


    async def probe(app: web.Application) -> None:
        global asked
        asked += 1
        if hungry:
            raise RuntimeError("hungry")


    feature = Feature(routes, checks=[Check("fed", probe)])
    inside, go_on = asyncio.Event(), asyncio.Event()


    @routes.get("/pets/{pet_id}")
    async def get_pet(pet_id: int) -> dict[str, int]:
        """Get."""
        return {"pet_id": pet_id}


    @routes.get("/fails")
    async def fail() -> None:
        """Fail."""
        raise ValueError("not told to clients")


    @routes.get("/blocks")
    async def block() -> None:
        """Block the event loop: well above the limit, of which a busy machine takes some."""
        time.sleep(1.5)


    @routes.get("/waits")
    async def wait() -> None:
        """Wait for the test."""
        inside.set()
        await go_on.wait()
        raise Problem(418, "No tea")


    @routes.get("/status/{code}")
    async def answer(request: web.Request) -> web.StreamResponse:
        """Answer as asked."""
        return web.Response(status=int(request.match_info["code"]))
'''

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
LogLines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
async def client(feature_client: FeatureClient, feature_folder: FeatureFolder) -> Client:
    return await feature_client(feature_folder("pets", FEATURE))


def app(client: Client) -> Any:
    return client.app  # what aiohttp says of its type leaves out what keys it has


def events(client: Client) -> Any:
    return sys.modules["features.pets"]


def by_name(families: Iterable[Family]) -> Samples:
    samples: Samples = {}
    for family in families:
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            assert key not in samples, f"{key} is there twice"
            samples[key] = sample.value
    return samples


async def scrape(client: Client, accept: str = "text/plain") -> Samples:
    async with client.get("/metrics", headers={"Accept": accept}) as response:
        assert response.status == 200
        text = await response.text()
    return by_name(parse_openmetrics(text) if "openmetrics" in accept else parse_text(text))


def of(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, tuple(sorted(labels.items()))]


def requests(samples: Samples, method: str, route: str, status: str) -> float:
    labels = (
        ("http_request_method", method),
        ("http_response_status_code", status),
        ("http_route", route),
    )
    return samples.get((COUNT, labels), 0)


async def exchange(client: Client, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(client.host, client.port)
    try:
        writer.write(data)
        return await asyncio.wait_for(reader.read(), PATIENCE_S)
    finally:
        writer.close()
        await writer.wait_closed()


async def until(come: Callable[[], bool]) -> None:
    """Lets the event loop turn until something has come; nobody tells of it."""
    async with asyncio.timeout(PATIENCE_S):
        while not come():  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0)


async def test_a_request_is_counted_by_method_route_template_and_status(client):
    for path in ("/api/v1/pets/1", "/api/v1/pets/2", "/api/v1/pets/x", "/nowhere", "/api/v1/fails"):
        async with client.get(path):
            pass
    async with client.delete("/api/v1/pets/1"):
        pass
    samples = await scrape(client)
    assert requests(samples, "GET", "/api/v1/pets/{pet_id}", "200") == 2
    assert requests(samples, "GET", "/api/v1/pets/{pet_id}", "422") == 1
    assert requests(samples, "DELETE", "/api/v1/pets/{pet_id}", "405") == 1
    assert requests(samples, "GET", "/api/v1/fails", "500") == 1
    assert requests(samples, "GET", "", "404") == 1


@pytest.mark.parametrize("accept", ["text/plain", OPENMETRICS, PROMETHEUS])
async def test_what_is_shown_is_valid_and_each_count_is_that_of_its_last_bucket(client, accept):
    for path in ("/api/v1/pets/1", "/nowhere"):
        async with client.get(path):
            pass
    samples = await scrape(client, accept)
    counts = {labels: value for (name, labels), value in samples.items() if name == COUNT}
    assert counts
    for labels, count in counts.items():
        buckets = {
            float(dict(each)["le"]): value
            for (name, each), value in samples.items()
            if name == BUCKET and set(labels) < set(each)
        }
        assert list(buckets) == [*BUCKETS, float("inf")]
        assert list(buckets.values()) == sorted(buckets.values())
        assert buckets[float("inf")] == count


def test_a_duration_falls_into_the_first_bucket_that_is_as_long():
    metrics = RequestMetrics()
    for seconds in (0.0, 0.005, 0.0051, 10.0, 10.1):
        metrics.observe("GET", "/", 200, seconds)
    (observed,) = metrics.observed()
    assert observed.counts[0] == 2
    assert observed.counts[1] == 1
    assert observed.counts[len(BUCKETS) - 1] == 1
    assert observed.counts[len(BUCKETS)] == 1
    assert observed.seconds == pytest.approx(20.1101)


def test_the_buckets_are_those_that_opentelemetry_advises():
    assert (
        *(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10),
    ) == BUCKETS


async def test_strange_methods_and_paths_add_no_series(client):
    # Those that aiohttp's parser lets through; it refuses a method of one's own invention.
    methods = ("PROPFIND", "MKCOL", "LOCK", "SEARCH", "REPORT", "PURGE", "MERGE", "SUBSCRIBE")
    lines = []
    for number in range(1_000):
        method = methods[number % len(methods)]
        lines.append(f"GET /stranger/{number}?q={number} HTTP/1.1\r\nHost: x\r\n\r\n")
        lines.append(f"{method} /api/v1/pets/{number} HTTP/1.1\r\nHost: x\r\n\r\n")
        lines.append(f"GET /{number}/% HTTP/1.1\r\nHost: x\r\n\r\n")
    last = "GET /end HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answers = await exchange(client, "".join([*lines, last]).encode())
    assert answers.count(b"HTTP/1.1 4") == 3_001
    for number in range(20):
        await exchange(client, f"M{number} / HTTP/1.1\r\nHost: x\r\n\r\n".encode())

    samples = await scrape(client)
    seen = {labels for name, labels in samples if name == COUNT}
    assert {dict(labels)["http_route"] for labels in seen} == {"", "/api/v1/pets/{pet_id}"}
    assert len(seen) == 4
    assert requests(samples, OTHER, "/api/v1/pets/{pet_id}", "405") == 1_000
    assert requests(samples, OTHER, "", "501") == 20


def test_thousands_of_methods_are_one():
    metrics = RequestMetrics()
    for number in range(5_000):
        metrics.observe(f"M{number}", None, 404, 0.1)
    assert [(each.method, each.route) for each in metrics.observed()] == [(OTHER, "")]


def test_a_feature_that_answers_with_any_status_cannot_add_series_without_end():
    metrics = RequestMetrics()
    for status in range(100, 600):
        for route in range(40):
            metrics.observe("GET", f"/{route}", status, 0.1)
    observed = list(metrics.observed())
    assert len(observed) <= MAX_SERIES + 901
    assert sum(sum(each.counts) for each in observed) == 500 * 40
    assert any(each.route == OTHER for each in observed)


@pytest.mark.parametrize("status", [7, 1000, 123456])
def test_a_status_has_three_digits_or_is_none(status):
    metrics = RequestMetrics()
    metrics.observe("GET", "/", status, 0.1)
    assert [each.status for each in metrics.observed()] == [OTHER]


def test_what_is_forgotten_has_no_series_and_begins_anew_where_it_comes_back():
    metrics = RequestMetrics()
    for route in ("/gone", "/gone-too", "/stays", None):
        for status in (200, 500):
            metrics.observe("GET", route, status, 0.1)
            metrics.observe("BREW", route, status, 0.1)  # never looked up directly
    metrics.forget({"/gone", "/gone-too"})
    assert {each.route for each in metrics.observed()} == {"/stays", ""}
    assert sum(sum(each.counts) for each in metrics.observed()) == 8

    metrics.observe("GET", "/gone", 200, 0.1)

    (observed,) = (each for each in metrics.observed() if each.route == "/gone")
    assert sum(observed.counts) == 1


async def test_each_access_line_is_one_count_and_the_other_way_round(client, log_lines):
    kinds = [
        b"GET /api/v1/pets/1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"HEAD /api/v1/pets/1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /api/v1/pets/1 HTTP/1.1\r\nHost: x\r\n\r\nGET /none HTTP/1.0\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"GET /api/v1/fails HTTP/1.1\r\nHost: x\r\nExpect: nothing\r\nConnection: close\r\n\r\n",
        b"POST /api/v1/pets/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nGET / HTTP/9\r\n\r\n",
    ]
    for kind in kinds * 3:
        await exchange(client, kind)
    lines = [line for line in log_lines() if line["logger"] == "petsage.access"]
    counted = {
        (each.method, each.route, each.status): sum(each.counts)
        for each in app(client)[REQUESTS].observed()
    }
    expected: dict[tuple[str, str, str], int] = {}
    for line in lines:
        method = line["method"] if line["method"] in KNOWN_METHODS else OTHER
        key = method, line["route"] or "", str(line["status"])
        expected[key] = expected.get(key, 0) + 1
    assert counted == expected
    assert sum(expected.values()) >= 24


async def test_requests_are_counted_where_the_access_log_is_off(client, log_lines):
    logger = logging.getLogger("petsage.access")
    logger.setLevel(logging.WARNING)
    try:
        async with client.get("/api/v1/pets/7"):
            pass
        samples = await scrape(client)
    finally:
        logger.setLevel(logging.NOTSET)
    assert requests(samples, "GET", "/api/v1/pets/{pet_id}", "200") == 1
    assert not [line for line in log_lines() if line["logger"] == "petsage.access"]


async def test_what_does_not_parse_after_a_good_request_is_not_counted_for_its_route(client):
    good = b"GET /api/v1/pets/1 HTTP/1.1\r\nHost: x\r\n\r\n"
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(good)
    await asyncio.wait_for(reader.readuntil(b"}"), PATIENCE_S)
    writer.write(b"nonsense\r\n\r\n")
    assert b" 400 " in await asyncio.wait_for(reader.read(), PATIENCE_S)
    writer.close()
    await writer.wait_closed()
    samples = await scrape(client)
    assert requests(samples, "GET", "/api/v1/pets/{pet_id}", "200") == 1
    assert requests(samples, OTHER, "", "400") == 1


async def test_a_request_is_active_while_its_handler_runs(client):
    waiting = asyncio.create_task(client.get("/api/v1/waits"))
    await asyncio.wait_for(events(client).inside.wait(), PATIENCE_S)
    during = await scrape(client)
    events(client).go_on.set()
    assert (await waiting).status == 418
    after = await scrape(client)
    assert of(during, ACTIVE, http_request_method="GET") == 2  # the scrape is one
    assert of(after, ACTIVE, http_request_method="GET") == 1


async def test_a_handler_that_raises_or_is_cut_is_active_no_more(client):
    async with client.get("/api/v1/fails"):
        pass
    waiting = asyncio.create_task(client.get("/api/v1/waits"))
    await asyncio.wait_for(events(client).inside.wait(), PATIENCE_S)
    waiting.cancel()  # the connection closes, and with it the handler is cancelled
    with pytest.raises(asyncio.CancelledError):
        await waiting
    counts = app(client)[REQUESTS].active
    await until(lambda: not counts["GET"])
    assert set(counts.values()) == {0}


async def test_a_request_that_a_stop_cut_is_counted(client):
    waiting = asyncio.create_task(client.get("/api/v1/waits"))
    await asyncio.wait_for(events(client).inside.wait(), PATIENCE_S)
    counts = app(client)[REQUESTS]
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await until(lambda: any(counts.observed()))
    (observed,) = counts.observed()
    assert (observed.route, observed.status) == ("/api/v1/waits", "503")


async def test_two_applications_in_one_process_count_apart(client, feature_client, feature_folder):
    other = await feature_client(feature_folder("cats", FEATURE.replace("/pets", "/cats")))
    async with client.get("/api/v1/pets/1"):
        pass
    assert list(app(other)[REQUESTS].observed()) == []
    assert len(list(app(client)[REQUESTS].observed())) == 1


async def test_log_records_are_accounted_for(client, log_pipeline):
    (sink,) = log_pipeline.sinks
    for _ in range(20):
        logging.getLogger("features.pets").info("fed")
    log_pipeline.flush()
    samples = await scrape(client)
    emitted = of(samples, "petsage_log_records_emitted_total", sink=sink.name)
    outcomes = [
        of(samples, "petsage_log_records_total", sink=sink.name, outcome=outcome)
        for outcome in ("written", "dropped", "failed", "filtered")
    ]
    assert emitted >= 20
    queued = of(samples, "petsage_log_queue_records", sink=sink.name)
    assert sum(outcomes) + queued == emitted
    capacity = of(samples, "petsage_log_queue_capacity_records", sink=sink.name)
    assert capacity == sink.capacity
    assert of(samples, "petsage_log_writer_restarts_total", sink=sink.name) == 0


class TestBroken:
    @pytest.fixture
    def petsage_settings(self, petsage_settings, tmp_path):
        from petsage.settings import SinkSettings

        broken = SinkSettings(kind="file", path=tmp_path, required=False)  # it is a folder
        logs = petsage_settings.logs
        logs = logs.model_copy(update={"sinks": {**logs.sinks, "broken": broken}})
        return petsage_settings.model_copy(update={"logs": logs})

    async def test_a_sink_that_fails_shows_how_many_lines_and_why(
        self, client, log_pipeline, capfd
    ):
        logging.getLogger("features.pets").info("fed")
        log_pipeline.flush()
        samples = await scrape(client)
        reasons = {
            dict(labels)["reason"]: value
            for (name, labels), value in samples.items()
            if name == "petsage_log_records_lost_total" and dict(labels)["sink"] == "broken"
        }
        assert list(reasons) == ["EISDIR"]
        failed = of(samples, "petsage_log_records_total", sink="broken", outcome="failed")
        assert reasons["EISDIR"] == failed > 0


async def test_each_feature_is_in_exactly_one_state_also_where_two_have_one_name(
    petsage_settings, log_pipeline, tmp_path
):
    from petsage.app import create_app
    from petsage.readiness import READINESS
    from petsage.system.metrics import Exposition
    from petsage.system.samples import Sources

    folders = []
    for place in ("one", "two"):
        folder = tmp_path / place / "twin"
        folder.mkdir(parents=True)
        source = "from petsage import Feature, Routes\nfeature = Feature(Routes())\n"
        (folder / "__init__.py").write_text(source)
        folders.append(folder.parent)
    (tmp_path / "one" / "broken").mkdir()
    (tmp_path / "one" / "broken" / "__init__.py").write_text("def oops(:\n")
    catalog = petsage_settings.catalog.model_copy(update={"folders": folders})
    core = create_app(petsage_settings.model_copy(update={"catalog": catalog}))
    await core[CATALOG].start(core)
    try:
        keys = (REQUESTS, CATALOG, PROCESS_STATE, CHECKS, READINESS, WATCHDOG, CONNECTIONS)
        owners = [*(core[key] for key in keys), core[SHARED_DATABASE].counts]
        sources = Sources(*owners)  # type: ignore[arg-type] # each is of its own type
        body = Exposition().render(sources.snapshot(), "", compress=False).body
    finally:
        await core[CATALOG].stop()
    assert isinstance(body, bytes)
    samples = by_name(parse_text(body.decode()))
    states = {
        name: [
            state
            for state in get_args(State)
            if of(samples, "petsage_feature_state", feature=name, state=state)
        ]
        for name in ("twin", "broken")
    }
    assert states == {"twin": ["serving"], "broken": ["failed"]}


class TestChanges:
    @pytest.fixture
    def petsage_settings(self, petsage_settings, feature_folder):
        folders = [feature_folder("pets", FEATURE).parent]
        catalog = petsage_settings.catalog.model_copy(update={"folders": folders})
        return petsage_settings.model_copy(update={"catalog": catalog})

    async def test_each_feature_tells_what_it_serves_and_what_was_refused(
        self, petsage_client, feature_folder
    ):
        catalog = app(petsage_client)[CATALOG]
        before = await scrape(petsage_client)
        assert of(before, "petsage_feature_refused", feature="pets") == 0
        assert of(before, "petsage_feature_load_seconds", feature="pets") > 0
        assert of(before, "petsage_feature_requests_in_flight", feature="pets") == 0
        assert of(before, "petsage_generation") == catalog.generation
        for outcome in get_args(Step):
            assert of(before, "petsage_changes_total", outcome=outcome) == catalog.changes[outcome]
        for name in ("petsage_generations_draining", "petsage_generations_leaked"):
            assert of(before, name) == 0

        feature_folder("pets", FEATURE.replace("routes = Routes()", "routes = Routes("))
        await catalog.refresh()
        refused = await scrape(petsage_client)
        assert of(refused, "petsage_feature_refused", feature="pets") == 1
        assert of(refused, "petsage_feature_state", feature="pets", state="serving") == 1
        name = "petsage_feature_generation"
        assert of(refused, name, feature="pets") == of(before, name, feature="pets")

        feature_folder("pets", FEATURE.replace("No tea", "No coffee"))
        await catalog.refresh()
        mended = await scrape(petsage_client)
        assert of(mended, "petsage_feature_refused", feature="pets") == 0
        assert of(mended, name, feature="pets") > of(before, name, feature="pets")
        assert of(mended, name, feature="pets") == of(mended, "petsage_generation")
        for outcome in get_args(Step):
            more = outcome in {"refused", "changed"}
            was = of(before, "petsage_changes_total", outcome=outcome)
            assert of(mended, "petsage_changes_total", outcome=outcome) == was + more
        name = "petsage_change_seconds_total"
        assert of(mended, name) > of(before, name)

    async def test_no_series_bears_the_name_of_a_feature_that_is_gone(
        self, petsage_client, feature_folder
    ):
        async with petsage_client.get("/readyz/pets.fed") as response:
            assert response.status == 200
        async with petsage_client.get("/api/v1/blocks"):
            pass
        watchdog = app(petsage_client)[WATCHDOG]
        await until(lambda: watchdog.stalls_by_feature["pets"] > 0)
        there = named(await scrape(petsage_client), "pets")
        assert {"petsage_check_state", "petsage_event_loop_stalls_total"} <= there
        assert "petsage_feature_generation" in there
        folder = feature_folder("pets", {})
        shutil.rmtree(folder)
        catalog = app(petsage_client)[CATALOG]
        await catalog.refresh()
        await until(lambda: not [each for each in catalog.entries() if each.name == "pets"])
        assert named(await scrape(petsage_client), "pets") == set()

    async def test_a_feature_that_does_not_serve_has_no_generation(
        self, petsage_client, feature_folder
    ):
        feature_folder("cats", "feature = 3\n")
        await app(petsage_client)[CATALOG].refresh()
        samples = await scrape(petsage_client)
        assert of(samples, "petsage_feature_state", feature="cats", state="failed") == 1
        assert "petsage_feature_generation" not in named(samples, "cats")


def named(samples: Samples, feature: str) -> set[str]:
    """The metrics that have a series of a feature, or of one of its checks."""
    return {
        name
        for name, labels in samples
        for label, value in labels
        if label in {"feature", "check"} and value.partition(".")[0] == feature
    }


async def test_checks_are_shown_as_they_were_found_last_and_none_is_run(client):
    name = "petsage_check_state"
    before = await scrape(client)
    assert of(before, name, check="process") == 1
    ran = {dict(labels)["check"] for each, labels in before if each == name}
    assert "pets.fed" not in ran
    for passing in (1.0, 0.0):
        events(client).hungry = not passing
        app(client)[CHECKS].keep(())  # else it is as fresh as can be
        async with client.get("/readyz/pets.fed") as response:
            assert response.status == (200 if passing else 503)
        asked = events(client).asked
        after = await scrape(client)
        assert of(after, name, check="pets.fed") == passing
        assert 0 <= of(after, "petsage_check_age_seconds", check="pets.fed") < 10
        assert events(client).asked == asked


async def test_a_stall_of_the_event_loop_is_counted_for_the_feature_whose_code_ran(client):
    before = await scrape(client)
    assert of(before, "petsage_event_loop_stalls_total", feature="") == 0
    async with client.get("/api/v1/blocks"):
        pass
    watchdog = app(client)[WATCHDOG]
    await until(lambda: watchdog.stalled_s_total > 0)
    after = await scrape(client)
    assert of(after, "petsage_event_loop_stalls_total", feature="pets") == 1
    assert of(after, "petsage_event_loop_stalled_seconds_total") >= 0.5
    assert of(after, "petsage_event_loop_lag_max_seconds") >= 0.5
    assert of(after, "petsage_event_loop_lag_seconds") < 10


async def test_phase_build_and_process_are_shown(client):
    app(client)[PROCESS_STATE].phase = "draining"
    samples = await scrape(client)
    assert of(samples, "petsage_phase", phase="draining") == 1
    assert of(samples, "petsage_phase", phase="ready") == 0
    (build,) = (labels for name, labels in samples if name == "petsage_build_info")
    assert dict(build)["python_version"] == sys.version.split()[0]
    assert of(samples, "process_resident_memory_bytes") > 10_000_000
    assert of(samples, "process_open_fds") > 3


async def test_it_is_compressed_for_who_takes_gzip_and_for_nobody_else(client):
    for accepted, encoding in [
        ("gzip", "gzip"),
        ("GZIP;q=0.5, br", "gzip"),
        ("gzip;q=0", None),
        ("br", None),
        ("gzip;q=what", None),
        ("", None),
    ]:
        async with client.get("/metrics", headers={"Accept-Encoding": accepted}) as response:
            assert response.headers.get("Content-Encoding") == encoding, accepted
            assert response.headers["Vary"] == "Accept, Accept-Encoding"
            list(parse_text(await response.text()))
    raw = await exchange(
        client,
        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\n"
        b"Connection: close\r\n\r\n",
    )
    list(parse_text(gzip.decompress(raw.partition(b"\r\n\r\n")[2]).decode()))


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "text/plain; version=0.0.4"),
        ("*/*", "text/plain; version=0.0.4"),
        ("text/html,application/xml;q=0.9", "text/plain; version=0.0.4"),
        (OPENMETRICS, "application/openmetrics-text; version=1.0.0"),
        (PROMETHEUS, "application/openmetrics-text; version=1.0.0"),
        ("application/openmetrics-text;q=0, text/plain", "text/plain; version=0.0.4"),
        ("application/openmetrics-text;version=abc", "text/plain; version=0.0.4"),
        ("application/openmetrics-text;version=9.9.9;x", "text/plain; version=0.0.4"),
        (";;;=,,,q=;version", "text/plain; version=0.0.4"),
    ],
)
async def test_the_format_goes_by_accept_whatever_it_holds(client, accept, kind):
    async with client.get("/metrics", headers={"Accept": accept}) as response:
        assert response.status == 200
        assert response.headers["Content-Type"].startswith(kind)
        assert response.headers["Cache-Control"] == "no-store"
        text = await response.text()
    list(parse_openmetrics(text) if "openmetrics" in kind else parse_text(text))


async def test_a_scrape_while_requests_come_in_is_one_moment_of_them(client):
    async def ask() -> None:
        for number in range(50):
            async with client.get(f"/api/v1/pets/{number}"):
                pass

    asking = asyncio.create_task(ask())
    while not asking.done():
        samples = await scrape(client)
        pets = {
            dict(labels)["le"]: value
            for (name, labels), value in samples.items()
            if name == BUCKET and dict(labels)["http_route"] == "/api/v1/pets/{pet_id}"
        }
        if pets:
            assert pets["+Inf"] == requests(samples, "GET", "/api/v1/pets/{pet_id}", "200")
    await asking


def test_prometheus_client_is_imported_by_no_start():
    code = (
        "import sys, petsage.server, petsage.cli, petsage.system.metrics; "
        "print([name for name in sys.modules if name.startswith('prometheus_client')])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.strip() == "[]"


async def test_whatever_is_shown_is_declared_once_and_stands_in_its_page(client):
    async with client.get("/api/v1/pets/1"):
        pass
    async with client.get("/metrics") as response:
        families = list(parse_text(await response.text()))
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    foreign = ("process_", "python_")
    shown = {each.name: each for each in families if not each.name.startswith(foreign)}
    for name, family in shown.items():
        declared = METRICS[name.removesuffix("_info")]
        assert family.documentation == declared.help
        for sample in family.samples:
            labels = set(sample.labels) - {"le"}
            assert labels == set(declared.labels)
    for declared in METRICS.values():
        suffix = {"counter": "_total", "info": "_info"}.get(declared.kind, "")
        assert f"`{declared.name}{suffix}`" in page
        assert all(f"`{label}`" in page for label in declared.labels)


def test_a_server_shows_its_metrics_on_loopback_and_to_nobody_elsewhere(start_server, project):
    (project / "features").mkdir()
    for host, status in (("127.0.0.1", 200), ("0.0.0.0", 404)):
        server = start_server("--host", host)
        port = server.address.rpartition(":")[2]
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=PATIENCE_S)
        connection.request("GET", "/metrics", headers={"Accept": OPENMETRICS})
        answer = connection.getresponse()
        body = answer.read().decode()
        connection.close()
        assert answer.status == status, host
        if status == 200:
            samples = by_name(parse_openmetrics(body))
            assert of(samples, "petsage_phase", phase="ready") == 1


def test_every_method_has_a_place_to_be_counted_in():
    active = RequestMetrics().active
    for method in ("GET", "BREW", "get", ""):
        active[active_name(method)] += 1
    assert (active["GET"], active[OTHER]) == (1, 3)
