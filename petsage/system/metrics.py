"""What PetSage counts, for Prometheus and whatever reads its formats."""

import asyncio
import gzip
import platform
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any, Final, get_args

from aiohttp import hdrs, web

from petsage import Feature, FromApp, Media, Request, Routes, StreamResponse
from petsage.catalog import CATALOG, Catalog
from petsage.entry import State
from petsage.health import CHECKS, PROCESS_STATE, CheckRunner, Phase, ProcessState
from petsage.logs.pipeline import installed_pipeline
from petsage.logs.sinks import Account
from petsage.management import guarded
from petsage.metrics import (
    ACTIVE_REQUESTS,
    BUCKETS,
    BUILD,
    CHECK_AGE,
    CHECK_STATE,
    FEATURE_STATE,
    LOG_EMITTED,
    LOG_LOST,
    LOG_QUEUE,
    LOG_QUEUE_CAPACITY,
    LOG_RECORDS,
    LOG_RESTARTS,
    LOOP_LAG,
    LOOP_LAG_MAX,
    LOOP_STALLED,
    LOOP_STALLS,
    PHASE,
    REQUEST_DURATION,
    REQUESTS,
    WATCHDOG_FAILURES,
    Metric,
    Observed,
    RequestMetrics,
)
from petsage.openapi import VERSION
from petsage.readiness import READINESS, Readiness
from petsage.watchdog import WATCHDOG, Watchdog

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric as Family

# prometheus-client is imported when somebody asks for the first time: it costs 25 ms, which
# every start would pay.
# ruff: noqa: PLC0415

Sample = tuple[Metric, tuple[str, ...], float]

routes = Routes(tags=("Management",))


@dataclass(frozen=True)
class Snapshot:
    """All that is shown, as it was at one moment of the event loop.

    Attributes:
        observed: the requests.
        samples: everything else: each metric, the values of its labels, and its number.
    """

    observed: tuple[Observed, ...]
    samples: tuple[Sample, ...]

    def collect(self) -> "Iterator[Family]":
        """The metrics as prometheus-client has them."""
        from prometheus_client import metrics_core as core

        kinds = {"counter": core.CounterMetricFamily, "gauge": core.GaugeMetricFamily}
        durations = core.HistogramMetricFamily(
            REQUEST_DURATION.name, REQUEST_DURATION.help, labels=REQUEST_DURATION.labels
        )
        for each in self.observed:
            labels = _texts((each.method, each.route, each.status))
            durations.add_metric(labels, _cumulative(each.counts), each.seconds)
        yield durations
        build = core.InfoMetricFamily(BUILD.name, BUILD.help)
        build.add_metric((), dict(zip(BUILD.labels, _texts(_BUILD), strict=True)))
        yield build
        families: dict[str, Any] = {}
        for metric, values, number in self.samples:
            family = families.get(metric.name)
            if family is None:
                made = kinds[metric.kind](metric.name, metric.help, labels=metric.labels)
                family = families[metric.name] = made
            family.add_metric(_texts(values), number)
        yield from families.values()


_BUILD: Final = (
    *(version("petsage"), VERSION, platform.python_version(), platform.python_implementation()),
    version("aiohttp"),
)


def _texts(values: Iterable[str]) -> list[str]:
    """Labels that are UTF-8, whatever a feature's developer put into a name."""
    return [value.encode(errors="backslashreplace").decode() for value in values]


def _cumulative(counts: tuple[float, ...]) -> list[tuple[str, float]]:
    bounds = [*(str(bound) for bound in BUCKETS), "+Inf"]
    total, buckets = 0.0, []
    for bound, count in zip(bounds, counts, strict=True):
        total += count
        buckets.append((bound, total))
    return buckets


@dataclass(frozen=True)
class Sources:
    """Who knows what is shown: the owners of the facts, in the root application."""

    requests: RequestMetrics
    catalog: Catalog
    state: ProcessState
    checks: CheckRunner
    readiness: Readiness
    watchdog: Watchdog

    def snapshot(self) -> Snapshot:
        """What is counted and known now; nothing is run or asked for it."""
        active = self.requests.active.items()
        samples = [
            *((ACTIVE_REQUESTS, (method,), count) for method, count in active),
            *((PHASE, (phase,), phase == self.state.phase) for phase in get_args(Phase)),
            *_feature_samples(self.catalog),
            *_check_samples(self.checks, self.readiness),
            *_loop_samples(self.watchdog),
            *_log_samples(),
        ]
        return Snapshot(tuple(self.requests.observed()), tuple(samples))


def _feature_samples(catalog: Catalog) -> Iterator[Sample]:
    states: dict[str, State] = {}
    for entry in catalog.entries():
        states.setdefault(entry.name, entry.state)  # of two of a name, the first is the one
    for name, state in states.items():
        for each in get_args(State):
            yield FEATURE_STATE, (name, each), each == state


def _check_samples(checks: CheckRunner, readiness: Readiness) -> Iterator[Sample]:
    facts = {result.name: result for result in readiness.facts()}
    for name, result in {**checks.results(), **facts}.items():
        yield CHECK_STATE, (name,), result.passed
        yield CHECK_AGE, (name,), result.age_s


def _loop_samples(watchdog: Watchdog) -> Iterator[Sample]:
    yield LOOP_LAG, (), watchdog.lag_s
    yield LOOP_LAG_MAX, (), watchdog.max_lag_s
    # A copy: the watchdog's thread goes on counting. Nobody's code is "", and always shown.
    for feature, count in {"": 0, **watchdog.stalls_by_feature}.items():
        yield LOOP_STALLS, (feature,), count
    yield LOOP_STALLED, (), watchdog.stalled_s_total
    yield WATCHDOG_FAILURES, (), watchdog.failures


def _log_samples() -> Iterator[Sample]:
    try:
        sinks = installed_pipeline().sinks
    except RuntimeError:
        return  # who serves without a pipeline has no sinks to tell of
    for sink in sinks:
        account, name = sink.account(), sink.name
        yield LOG_EMITTED, (name,), account.emitted
        for outcome in ("written", "dropped", "failed", "filtered"):
            yield LOG_RECORDS, (name, outcome), getattr(account, outcome)
        for outcome, reasons in _reasons(account):
            for reason, count in reasons.items():
                yield LOG_LOST, (name, outcome, reason), count
        yield LOG_QUEUE, (name,), account.queued
        yield LOG_QUEUE_CAPACITY, (name,), sink.capacity
        yield LOG_RESTARTS, (name,), sink.restarts


def _reasons(account: Account) -> Iterable[tuple[str, Mapping[str, int]]]:
    return ("dropped", account.dropped_by), ("failed", account.failed_by)


class Exposition:
    """Snapshots as text, together with what the process and the interpreter tell of themselves."""

    def __init__(self) -> None:
        self._own: list[Any] | None = None

    def render(self, snapshot: Snapshot, accept: str, *, compress: bool) -> web.Response:
        """The answer to one scrape; it takes a while, and no event loop.

        Args:
            snapshot: what is shown.
            accept: the `Accept` of the scrape: OpenMetrics where it is wanted, else text.
            compress: whether the scrape takes gzip.
        """
        from prometheus_client.exposition import choose_encoder

        encode, content_type = choose_encoder(_understood(accept))
        body = encode(self._registry(snapshot))
        headers = {
            hdrs.CONTENT_TYPE: content_type,
            hdrs.VARY: "Accept, Accept-Encoding",
            "X-Content-Type-Options": "nosniff",
        }
        if compress:
            body = gzip.compress(body, 1, mtime=0)
            headers[hdrs.CONTENT_ENCODING] = "gzip"
        return web.Response(body=body, headers=headers)

    def _registry(self, snapshot: Snapshot) -> "CollectorRegistry":
        """A registry of this scrape alone, so that two at once do not see each other's."""
        import prometheus_client as client

        if self._own is None:
            made = client.CollectorRegistry(auto_describe=False)
            self._own = [
                client.ProcessCollector(registry=None),
                client.PlatformCollector(registry=None),
                client.GCCollector(registry=made),
            ]
        registry = client.CollectorRegistry(auto_describe=False)
        for collector in (snapshot, *self._own):
            registry.register(collector)
        return registry


def _understood(accept: str) -> str:
    """What of an `Accept` is wanted, and of a version that is written: 1.0.0.

    prometheus-client looks at neither `q=0` nor whether a version is one.
    """
    kept = []
    for each in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in each.split(";"))
        given = dict(part.partition("=")[::2] for part in parameters)
        if given.get("version", "1.0.0") == "1.0.0" and not _is_zero(given.get("q", "1")):
            kept.append(";".join((kind, *parameters)))
    return ",".join(kept)


def takes_gzip(accepted: str) -> bool:
    """Whether an `Accept-Encoding` takes gzip (RFC 9110, section 12.5.3)."""
    weights = {}
    for each in accepted.lower().split(","):
        coding, _, weight = each.partition(";")
        weights[coding.strip()] = weight.strip().removeprefix("q=") or "1"
    wanted = weights.get("gzip", weights.get("x-gzip", weights.get("*", "0")))
    return not _is_zero(wanted)


def _is_zero(weight: str) -> bool:
    try:
        return float(weight) == 0
    except ValueError:
        return True  # what cannot be read is not wanted


EXPOSITION: Final = web.AppKey("exposition", Exposition)


async def lifespan(app: web.Application) -> AsyncIterator[None]:
    """Makes what keeps the collectors between scrapes."""
    app[EXPOSITION] = Exposition()
    yield


_TEXTS: Final = Media({"text/plain": str, "application/openmetrics-text": str})


@routes.get("/metrics", summary="Show the metrics", answers={200: _TEXTS})
async def get_metrics(  # noqa: PLR0917 - each owner of facts is an argument
    request: Request,
    exposition: Annotated[Exposition, FromApp(EXPOSITION)],
    requests: Annotated[RequestMetrics, FromApp(REQUESTS)],
    catalog: Annotated[Catalog, FromApp(CATALOG)],
    state: Annotated[ProcessState, FromApp(PROCESS_STATE)],
    checks: Annotated[CheckRunner, FromApp(CHECKS)],
    readiness: Annotated[Readiness, FromApp(READINESS)],
    watchdog: Annotated[Watchdog, FromApp(WATCHDOG)],
) -> StreamResponse:
    """Everything that is counted, in Prometheus' text format, or OpenMetrics by `Accept`."""
    sources = Sources(requests, catalog, state, checks, readiness, watchdog)
    return await asyncio.to_thread(
        exposition.render,
        sources.snapshot(),
        ",".join(request.headers.getall(hdrs.ACCEPT, ())),
        compress=takes_gzip(",".join(request.headers.getall(hdrs.ACCEPT_ENCODING, ()))),
    )


feature = Feature(routes, mount="", lifespan=lifespan, middlewares=(guarded,))
