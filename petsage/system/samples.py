"""What PetSage counts and knows, gathered from its owners at one moment."""

import platform
from collections.abc import Collection, Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, NamedTuple, get_args

from petsage.catalog import Catalog
from petsage.entry import Entry, State, Step
from petsage.health import CheckRunner, Phase, ProcessState
from petsage.logs.pipeline import installed_pipeline
from petsage.logs.sinks import Account
from petsage.metrics import (
    ACCEPT_FAILURES,
    ACTIVE_REQUESTS,
    BUCKETS,
    BUILD,
    CHANGE_SECONDS,
    CHANGES,
    CHECK_AGE,
    CHECK_STATE,
    CONNECTIONS_MAX,
    CONNECTIONS_OPEN,
    DATABASE_CALLS,
    DATABASE_OUTAGES,
    DATABASE_REFUSED,
    DATABASE_SECONDS,
    DATABASE_UP,
    DATABASE_WAITING,
    DRAINING,
    FEATURE_GENERATION,
    FEATURE_IN_FLIGHT,
    FEATURE_LOAD,
    FEATURE_REFUSED,
    FEATURE_STATE,
    GENERATION,
    IN_FLIGHT,
    LEAKED,
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
    REFUSED,
    REQUEST_DURATION,
    TIMED_OUT,
    WATCHDOG_FAILURES,
    ConnectionCounts,
    Metric,
    Observed,
    RequestMetrics,
)
from petsage.openapi import VERSION
from petsage.readiness import Readiness
from petsage.shared_database import DatabaseCounts, Kind
from petsage.watchdog import Watchdog

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric as Family

# prometheus-client is imported when somebody asks for the first time: it costs 25 ms, which
# every start would pay.
# ruff: noqa: PLC0415

Sample = tuple[Metric, tuple[str, ...], float]


class Snapshot(NamedTuple):
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


class Sources(NamedTuple):
    """Who knows what is shown: the owners of the facts, in the root application."""

    requests: RequestMetrics
    catalog: Catalog
    state: ProcessState
    checks: CheckRunner
    readiness: Readiness
    watchdog: Watchdog
    connections: ConnectionCounts
    database: DatabaseCounts

    def snapshot(self) -> Snapshot:
        """What is counted and known now; nothing is run or asked for it."""
        active = self.requests.active.items()
        features: dict[str, Entry] = {}
        for entry in self.catalog.entries():
            features.setdefault(entry.name, entry)  # of two of a name, the first is the one
        samples = [
            *((ACTIVE_REQUESTS, (method,), count) for method, count in active),
            *_connection_samples(self.connections),
            *_database_samples(self.database),
            *((PHASE, (phase,), phase == self.state.phase) for phase in get_args(Phase)),
            *_feature_samples(features.values()),
            *_change_samples(self.catalog, features.values()),
            *_check_samples(self.checks, self.readiness),
            *_loop_samples(self.watchdog, features),
            *_log_samples(),
        ]
        return Snapshot(tuple(self.requests.observed()), tuple(samples))


def _connection_samples(counts: ConnectionCounts) -> Iterator[Sample]:
    yield CONNECTIONS_OPEN, (), counts.open
    yield CONNECTIONS_MAX, (), counts.max_connections
    yield IN_FLIGHT, (), counts.in_flight
    yield ACCEPT_FAILURES, (), counts.accept_failures
    yield from ((REFUSED, (limit,), count) for limit, count in counts.refused.items())
    yield from ((TIMED_OUT, (limit,), count) for limit, count in counts.timed_out.items())


def _database_samples(counts: DatabaseCounts) -> Iterator[Sample]:
    if not counts.is_open:
        return  # no feature keeps data
    for kind in get_args(Kind):
        yield DATABASE_UP, (kind,), kind not in counts.away
        yield DATABASE_CALLS, (kind,), counts.done[kind]
        yield DATABASE_SECONDS, (kind,), counts.seconds[kind]
    yield from ((DATABASE_REFUSED, (reason,), count) for reason, count in counts.refused.items())
    yield DATABASE_WAITING, (), counts.waiting
    yield DATABASE_OUTAGES, (), counts.outages


def _feature_samples(entries: Iterable[Entry]) -> Iterator[Sample]:
    for entry in entries:
        name = (entry.name,)
        for state in get_args(State):
            yield FEATURE_STATE, (entry.name, state), entry.state == state
        yield FEATURE_REFUSED, name, entry.refused is not None
        if entry.load_ms is not None:
            yield FEATURE_LOAD, name, entry.load_ms / 1000
        if entry.generation is not None:
            yield FEATURE_GENERATION, name, entry.generation
            yield FEATURE_IN_FLIGHT, name, entry.in_flight


def _change_samples(catalog: Catalog, entries: Iterable[Entry]) -> Iterator[Sample]:
    for outcome in get_args(Step):
        yield CHANGES, (outcome,), catalog.changes[outcome]
    yield CHANGE_SECONDS, (), catalog.change_seconds
    yield GENERATION, (), catalog.generation
    yield DRAINING, (), sum(len(entry.draining) for entry in entries)
    yield LEAKED, (), len({(name, generation) for name, generation, _ in catalog.leaked})


def _check_samples(checks: CheckRunner, readiness: Readiness) -> Iterator[Sample]:
    facts = {result.name: result for result in readiness.facts()}
    there = set(readiness.names())  # what ran of a feature that is gone is kept until one asks
    for name, result in {**checks.results(), **facts}.items():
        if name in there:
            yield CHECK_STATE, (name,), result.passed
            yield CHECK_AGE, (name,), result.age_s


def _loop_samples(watchdog: Watchdog, features: Collection[str]) -> Iterator[Sample]:
    yield LOOP_LAG, (), watchdog.lag_s
    yield LOOP_LAG_MAX, (), watchdog.max_lag_s
    # A copy: the watchdog's thread goes on counting. Nobody's code is "", and always shown.
    for feature, count in {"": 0, **watchdog.stalls_by_feature}.items():
        if not feature or feature in features:
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
