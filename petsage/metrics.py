"""Every metric, declared once; and the counting of requests, which costs next to nothing.

Nothing here knows prometheus-client: a request adds to plain numbers, and `system/metrics.py`
makes text of them when somebody asks.

Longer than 300 lines, of which half are the declarations: a table of what can be shown.
"""

from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, MutableSequence
from typing import Any, Final, Literal, NamedTuple, get_args

from aiohttp import web

Kind = Literal["counter", "gauge", "histogram", "info"]


class Metric(NamedTuple):
    """A metric as it is declared.

    Attributes:
        name: without the `_total` of a counter and the `_info` of an info, which their kinds add.
        kind: what its numbers mean.
        help: one sentence for who reads a dashboard.
        labels: the names of its labels; the values of each come from a bounded set.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()


REQUEST_DURATION: Final = Metric(
    "http_server_request_duration_seconds",
    "histogram",
    "How long requests took, from the first look at one to the last byte of its answer.",
    ("http_request_method", "http_route", "http_response_status_code"),
)
ACTIVE_REQUESTS: Final = Metric(
    "http_server_active_requests",
    "gauge",
    "Requests whose handlers run now.",
    ("http_request_method",),
)
CONNECTIONS_OPEN: Final = Metric(
    "petsage_connections_open", "gauge", "Connections that are open, refused ones among them."
)
CONNECTIONS_MAX: Final = Metric(
    "petsage_connections_max",
    "gauge",
    "How many may be open: [server].max_connections, less where there are too few descriptors.",
)
IN_FLIGHT: Final = Metric(
    "petsage_requests_in_flight",
    "gauge",
    "Requests whose answers are not out yet; WebSockets count until they are open.",
)
REFUSED: Final = Metric(
    "petsage_requests_refused",
    "counter",
    "Requests answered 503 because there were too many, by the setting that says so.",
    ("limit",),
)
TIMED_OUT: Final = Metric(
    "petsage_timeouts",
    "counter",
    "Connections and requests that took too long, by the setting that says so.",
    ("limit",),
)
ACCEPT_FAILURES: Final = Metric(
    "petsage_accept_failures",
    "counter",
    "Times that no connection could be accepted, for want of descriptors or memory.",
)
LOG_EMITTED: Final = Metric(
    "petsage_log_records_emitted",
    "counter",
    "Log records that came to a sink; as many as all outcomes and the queue hold.",
    ("sink",),
)
LOG_RECORDS: Final = Metric(
    "petsage_log_records", "counter", "Log records by what became of them.", ("sink", "outcome")
)
LOG_LOST: Final = Metric(
    "petsage_log_records_lost",
    "counter",
    "Log records that were dropped or failed, by the reason.",
    ("sink", "outcome", "reason"),
)
LOG_QUEUE: Final = Metric(
    "petsage_log_queue_records", "gauge", "Log records that wait to be written.", ("sink",)
)
LOG_QUEUE_CAPACITY: Final = Metric(
    "petsage_log_queue_capacity_records",
    "gauge",
    "Log records that may wait; more are dropped.",
    ("sink",),
)
LOG_RESTARTS: Final = Metric(
    "petsage_log_writer_restarts",
    "counter",
    "Times that a sink's writer thread was begun anew.",
    ("sink",),
)
DATABASE_UP: Final = Metric(
    "petsage_database_up",
    "gauge",
    "1 where the database was last there for who reads, or writes, 0 where it was not.",
    ("kind",),
)
DATABASE_CALLS: Final = Metric(
    "petsage_database_calls",
    "counter",
    "Reads and writes of features that the database has answered.",
    ("kind",),
)
DATABASE_SECONDS: Final = Metric(
    "petsage_database_seconds",
    "counter",
    "How long these took together, the wait for a connection included.",
    ("kind",),
)
DATABASE_REFUSED: Final = Metric(
    "petsage_database_refused",
    "counter",
    "Reads and writes answered 503, since the database was away, or busy.",
    ("reason",),
)
DATABASE_WAITING: Final = Metric(
    "petsage_database_calls_in_hand",
    "gauge",
    "Reads and writes that wait for the database, or for their turn.",
)
DATABASE_OUTAGES: Final = Metric(
    "petsage_database_outages", "counter", "Times that the database went away."
)
FEATURE_STATE: Final = Metric(
    "petsage_feature_state",
    "gauge",
    "1 for the state that a feature is in, 0 for the others.",
    ("feature", "state"),
)
FEATURE_GENERATION: Final = Metric(
    "petsage_feature_generation",
    "gauge",
    "The number of the change that made current what a feature serves.",
    ("feature",),
)
FEATURE_LOAD: Final = Metric(
    "petsage_feature_load_seconds",
    "gauge",
    "How long it took to read, check, import and start a feature.",
    ("feature",),
)
FEATURE_IN_FLIGHT: Final = Metric(
    "petsage_feature_requests_in_flight",
    "gauge",
    "Requests that a feature's present generation has in hand.",
    ("feature",),
)
FEATURE_REFUSED: Final = Metric(
    "petsage_feature_refused",
    "gauge",
    "1 while a feature's folder holds what was refused, and what served before goes on.",
    ("feature",),
)
CHANGES: Final = Metric(
    "petsage_changes", "counter", "Features found different, by what came of it.", ("outcome",)
)
CHANGE_SECONDS: Final = Metric(
    "petsage_change_seconds", "counter", "How long taking up what differs took together."
)
GENERATION: Final = Metric(
    "petsage_generation", "gauge", "How many changes were made current, the start among them."
)
DRAINING: Final = Metric(
    "petsage_generations_draining", "gauge", "Former generations that have not ended."
)
LEAKED: Final = Metric(
    "petsage_generations_leaked", "gauge", "Former generations that ended and stay in memory."
)
CHECK_STATE: Final = Metric(
    "petsage_check_state",
    "gauge",
    "1 where a check passed when it last ran, 0 where it failed.",
    ("check",),
)
CHECK_AGE: Final = Metric(
    "petsage_check_age_seconds", "gauge", "How long ago a check last ran.", ("check",)
)
LOOP_LAG: Final = Metric(
    "petsage_event_loop_lag_seconds",
    "gauge",
    "How long the event loop took to answer the watchdog; while it stands still, so far. "
    "Time in which the whole process stood still is left out.",
)
LOOP_LAG_MAX: Final = Metric(
    "petsage_event_loop_lag_max_seconds", "gauge", "The longest that it ever took."
)
LOOP_STALLS: Final = Metric(
    "petsage_event_loop_stalls",
    "counter",
    "Times that the event loop stood still for longer than [server].stall_ms, by whose code ran.",
    ("feature",),
)
LOOP_STALLED: Final = Metric(
    "petsage_event_loop_stalled_seconds", "counter", "How long those stalls were together."
)
WATCHDOG_FAILURES: Final = Metric(
    "petsage_watchdog_failures", "counter", "Times that the watch over the event loop failed."
)
PHASE: Final = Metric(
    "petsage_phase",
    "gauge",
    "1 for the part of its life that the process is in, 0 for the others.",
    ("phase",),
)
BUILD: Final = Metric(
    "petsage_build",
    "info",
    "What runs.",
    ("version", "api_version", "python_version", "python_implementation", "aiohttp_version"),
)

METRICS: Final[Mapping[str, Metric]] = {
    metric.name: metric
    for metric in (
        *(REQUEST_DURATION, ACTIVE_REQUESTS, CONNECTIONS_OPEN, CONNECTIONS_MAX, IN_FLIGHT),
        *(REFUSED, TIMED_OUT, ACCEPT_FAILURES, LOG_EMITTED, LOG_RECORDS, LOG_LOST, LOG_QUEUE),
        *(LOG_QUEUE_CAPACITY, LOG_RESTARTS, FEATURE_STATE, FEATURE_GENERATION, FEATURE_LOAD),
        *(FEATURE_IN_FLIGHT, FEATURE_REFUSED, CHANGES, CHANGE_SECONDS, GENERATION),
        *(DATABASE_UP, DATABASE_CALLS, DATABASE_SECONDS, DATABASE_REFUSED, DATABASE_WAITING),
        DATABASE_OUTAGES,
        *(DRAINING, LEAKED, CHECK_STATE, CHECK_AGE, LOOP_LAG),
        *(LOOP_LAG_MAX, LOOP_STALLS, LOOP_STALLED, WATCHDOG_FAILURES, PHASE, BUILD),
    )
}
"""All of them by name; docs/metrics.md has each."""

BUCKETS: Final = (
    *(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
)
"""The upper bounds of durations, in seconds.

Source: OpenTelemetry semantic conventions, `http.server.request.duration`.
"""

OTHER: Final = "_OTHER"
"""A label's value for whatever is not in its set; OpenTelemetry's word for it."""

KNOWN_METHODS: Final = frozenset(
    (*("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"),)
)
"""The methods that are counted by their names."""

MAX_SERIES: Final = 10_000
"""So many methods, routes and statuses are told apart; further ones count for the route `_OTHER`.

Routes come from features and are few, but a feature may answer with any status that it is asked
for, and features come and go while the process runs.
"""

_FIRST_BOUND: Final = BUCKETS[0]

_Key = tuple[str, str, str]

Cell = MutableSequence[float]
"""The sum of seconds, a count for each bucket, and one for what is longer than all."""


class Observed(NamedTuple):
    """The requests of one method, route and status.

    Attributes:
        counts: how many took at most as long as each of `BUCKETS`, and not as little as the one
            before it; the last is of those that took longer than all.
        seconds: how long they took together.
    """

    method: str
    route: str
    status: str
    counts: tuple[float, ...]
    seconds: float


class RequestMetrics:
    """The requests of one application.

    Attributes:
        active: the requests whose handlers run now, by method; every key is there, so that
            counting is an addition.
        kept: what somebody else keeps of requests, with the cells that they are counted in;
            emptied when cells are dropped.
        kept_cells: how many cells that holds.
        notes: what somebody else has noted of requests that are yet to be counted.
    """

    __slots__ = ("_cells", "_series", "active", "kept", "kept_cells", "notes")

    def __init__(self) -> None:
        self.active: dict[str, int] = dict.fromkeys((*sorted(KNOWN_METHODS), OTHER), 0)
        self._series: dict[_Key, Cell] = {}
        # What requests are looked up by: as they come, so that nothing is converted.
        self._cells: dict[tuple[str, str | None, int], Cell] = {}
        self.kept: dict[Any, Any] = {}
        self.kept_cells = 0
        self.notes: Any = None

    def observe(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """Counts one request.

        Args:
            method: as sent; one that is not known counts as `_OTHER`.
            route: the template that matched, None where none did; never the path as sent.
            status: of the answer.
            seconds: how long it took.
        """
        count_in(self.cell(method, route, status), seconds)

    def cell(self, method: str, route: str | None, status: int) -> Cell:
        """Where requests of a method, route and status are counted, by `count_in`.

        Whoever keeps one keeps it in `kept`.
        """
        return self._cells.get((method, route, status)) or self._cell(method, route, status)

    def observed(self) -> Iterator[Observed]:
        """All requests so far; call it on the event loop, and it is one moment's."""
        for (method, route, status), cell in self._series.items():
            yield Observed(method, route, status, tuple(cell[1:]), cell[0])

    def forget(self, routes: Collection[str]) -> None:
        """Drops the requests of routes that are no more.

        A request that ends later brings its series back: call it when none is in hand.

        Args:
            routes: their templates.
        """
        for key in [key for key in self._series if key[1] in routes]:
            del self._series[key]
        for found in [found for found in self._cells if found[1] in routes]:
            del self._cells[found]
        self.forget_kept()

    def forget_kept(self) -> None:
        """Drops what somebody else keeps."""
        self.kept.clear()
        self.kept_cells = 0

    def _cell(self, method: str, route: str | None, status: int) -> Cell:
        """The numbers of a method, route and status that are new, or never looked up directly."""
        known = method in KNOWN_METHODS
        code = str(status) if 100 <= status <= 999 else OTHER
        key = (method if known else OTHER, route or "", code)
        if key not in self._series and len(self._series) >= MAX_SERIES:
            # Of these there are at most eleven methods and 901 statuses.
            return self._series.setdefault((key[0], OTHER, code), _new_cell())
        cell = self._series.setdefault(key, _new_cell())
        if known and code is not OTHER:
            self._cells[method, route, status] = cell
        return cell


def count_in(cell: Cell, seconds: float) -> None:
    """Counts one request, which took so long, in its cell."""
    cell[0] += seconds
    # Few take longer than the first bound.
    cell[1 if seconds <= _FIRST_BOUND else bisect_left(BUCKETS, seconds) + 1] += 1


def _new_cell() -> Cell:
    # Numbers side by side, and no objects: of thousands of cells few are in the processor's caches.
    return array("d", bytes(8 * (len(BUCKETS) + 2)))


def active_name(method: str) -> str:
    """What a request of a method counts as in `RequestMetrics.active`."""
    return method if method in KNOWN_METHODS else OTHER


REQUESTS: Final = web.AppKey("requests", RequestMetrics)
"""The counts in the root application."""

TimeLimit = Literal[
    "header_timeout_s", "body_timeout_s", "request_timeout_s", "write_timeout_s", "keepalive_s"
]
CountLimit = Literal["max_connections", "max_requests_in_flight"]


class ConnectionCounts:
    """The connections of one process and what is in flight on them, and how many there may be.

    Args:
        max_connections: how many may be open; above them there may be some that are refused.
        max_requests: how many requests may be in flight.

    Attributes:
        open: connections, those that are refused among them.
        in_flight: requests whose answers are not out yet.
        refused: requests that were answered 503, by the limit that they were above.
        timed_out: what took too long, by the limit that it took longer than.
        accept_failures: how often no connection could be accepted.
        is_crowded: whether connections are being refused; until there is room again.
    """

    __slots__ = (
        *("accept_failures", "in_flight", "is_crowded", "max_connections", "max_requests"),
        *("open", "refused", "timed_out"),
    )

    def __init__(self, max_connections: int, max_requests: int) -> None:
        self.max_connections = max_connections
        self.max_requests = max_requests
        self.open = 0
        self.in_flight = 0
        self.refused: dict[CountLimit, int] = dict.fromkeys(get_args(CountLimit), 0)
        self.timed_out: dict[TimeLimit, int] = dict.fromkeys(get_args(TimeLimit), 0)
        self.accept_failures = 0
        self.is_crowded = False

    @property
    def max_surplus(self) -> int:
        """How many connections may be open above the most, to be told that they are too many."""
        return surplus_above(self.max_connections)


def surplus_above(max_connections: int) -> int:
    """How many connections there may be above the most: a quarter, and 256 at the most."""
    return min(256, max(16, max_connections // 4))


CONNECTIONS: Final = web.AppKey("connections", ConnectionCounts)
"""The counts of connections in the root application."""
