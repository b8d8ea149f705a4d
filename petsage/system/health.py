"""Whether the process lives, and whether requests may be sent to it: `/livez` and `/readyz`."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Literal

from aiohttp import hdrs, web
from pydantic import BaseModel, ConfigDict, Field

from petsage import Feature, FromApp, Media, Problem, Query, Request, Routes, StreamResponse
from petsage.errors import did_you_mean
from petsage.health import CheckResult
from petsage.management import GUARD, Guard, unstored
from petsage.readiness import READINESS, Readiness, Report
from petsage.watchdog import WATCHDOG, Watchdog

routes = Routes(tags=("Health",))

Status = Literal["pass", "fail"]

TEXT: Final = "text/plain"
JSON: Final = "application/json"
HEALTH_JSON: Final = "application/health+json"
# In the order of our own preference, where a client has none.
OFFERED: Final = (TEXT, JSON, HEALTH_JSON)

_QUALITY: Final = re.compile(r"\s*q\s*=\s*(0(?:\.\d*)?|1(?:\.0*)?)\s*", re.IGNORECASE)
_MAX_RANGES: Final = 32


class CheckDocument(BaseModel):
    """One check, as draft-inadarei-api-health-check-06 (section 4) writes it."""

    model_config = ConfigDict(populate_by_name=True, defer_build=True)

    status: Status = Field(description="Whether all is well.")
    time: datetime = Field(description="When that was found.")
    output: str | None = Field(None, description="Why it failed; left out where it passed.")
    observed_value: float | None = Field(
        None, alias="observedValue", description="What was measured; of a check, how long it took."
    )
    observed_unit: str | None = Field(None, alias="observedUnit", examples=["ms"])
    age_s: float | None = Field(None, description="How long ago that was found, in seconds.")


class HealthDocument(BaseModel):
    """An answer about health, as draft-inadarei-api-health-check-06 writes it."""

    model_config = ConfigDict(defer_build=True)

    status: Status = Field(description="Whether all is well.")
    checks: dict[str, list[CheckDocument]] | None = Field(
        None, description="Each check by its name; for those who may look inside."
    )
    notes: list[str] | None = Field(None, description="What was wrong with the question.")


ANSWERS: Final = Media({TEXT: str, JSON: HealthDocument, HEALTH_JSON: HealthDocument})

Verbose = Annotated[
    str | None, Query(description="Shows each check, to those who may look inside.", example="1")
]


@routes.get("/livez", answers={200: ANSWERS})
async def get_liveness(
    request: Request,
    guard: Annotated[Guard, FromApp(GUARD)],
    watchdog: Annotated[Watchdog, FromApp(WATCHDOG)],
    verbose: Verbose = None,
) -> StreamResponse:
    """Whether the process lives.

    That it answers is the whole proof: no disk, no database and no feature is asked.
    """
    kind = choose_type(request.headers.getall(hdrs.ACCEPT, ()))
    may_read = guard.may_read(request)
    if kind == TEXT:
        lines = _liveness_lines(watchdog) if may_read and _is_on(verbose) else []
        return _text("livez", passed=True, lines=lines)
    return _json(kind, "pass", checks=_liveness_checks(watchdog) if may_read else None)


@routes.get("/readyz", answers={200: ANSWERS, 503: ANSWERS})
async def get_readiness(
    request: Request,
    guard: Annotated[Guard, FromApp(GUARD)],
    readiness: Annotated[Readiness, FromApp(READINESS)],
    verbose: Verbose = None,
    exclude: Annotated[
        list[str], Query(description="Checks to leave out; several times, or with commas.")
    ] = [],  # noqa: B006 - a default of a handler, which nobody changes
) -> StreamResponse:
    """Whether requests may be sent here.

    The process has started and does not stop, the required features serve, the required sinks
    write, and every check of every feature passes. 503 where one of them does not.
    """
    kind = choose_type(request.headers.getall(hdrs.ACCEPT, ()))
    may_read = guard.may_read(request)
    names = {name.strip() for each in exclude for name in each.split(",")} - {""}
    whole = may_read and (kind != TEXT or _is_on(verbose))
    report = await readiness.report(names, whole=whole)
    # Who fails is asked why at once; what is well needs no words unless they are wanted.
    show = may_read and (whole or not report.passed)
    return _answer("readyz", kind, report, show=show)


@routes.get("/readyz/{check}", answers={200: ANSWERS, 503: ANSWERS, 404: Problem})
async def get_check(
    check: str,
    request: Request,
    guard: Annotated[Guard, FromApp(GUARD)],
    readiness: Annotated[Readiness, FromApp(READINESS)],
    verbose: Verbose = None,
) -> StreamResponse:
    """What one check of readiness finds; for those who may look inside."""
    guard.require_reader(request)
    report = await readiness.report_one(check)
    if report is None:
        raise Problem(404, f"There is no such check; {did_you_mean(check, readiness.names())}")
    kind = choose_type(request.headers.getall(hdrs.ACCEPT, ()))
    show = kind != TEXT or _is_on(verbose) or not report.passed
    return _answer(f"readyz/{check}", kind, report, show=show)


def choose_type(accept: Iterable[str]) -> str:
    """The content type of an answer: what a client likes best of what is offered.

    Args:
        accept: the lines of its `Accept`; none for a client that takes anything.

    Of several it likes as much, the one that it names most exactly, then first. One that takes
    nothing of what is offered gets text: monitors go by the status (RFC 9110, section 12.5.1).
    """
    ranges = [each for line in accept for each in line.split(",")][:_MAX_RANGES]
    best: dict[str, tuple[int, float, int]] = {}  # how exactly it is named, its q, how early
    for position, each in enumerate(ranges):
        name, *parameters = each.split(";")
        named = name.strip().lower()
        quality = next((float(q[1]) for one in parameters if (q := _QUALITY.fullmatch(one))), 1.0)
        for offered in OFFERED:
            family = f"{offered.partition('/')[0]}/*"
            if named not in {offered, family, "*/*"}:
                continue
            exactness = 2 if named == offered else int(named == family)
            if offered not in best or exactness > best[offered][0]:
                best[offered] = (exactness, quality, -position)
    liked = [offered for offered in OFFERED if offered in best and best[offered][1] > 0]
    return max(liked, key=lambda each: (best[each][1], best[each][0], best[each][2]), default=TEXT)


def _is_on(verbose: str | None) -> bool:
    return verbose is not None and verbose.lower() not in {"0", "false", "no", "off"}


def _answer(path: str, kind: str, report: Report, *, show: bool) -> web.Response:
    notes = [f"no check is called {name!r}, which is to be left out" for name in report.unknown]
    if kind == TEXT:
        lines = [_line(result) for result in report.results]
        lines += [f"[+]{name} excluded: ok" for name in report.excluded]
        lines += [f"warn: {note}" for note in notes]
        return _text(path, passed=report.passed, lines=lines if show else [])
    checks = {result.name: [_check_document(result)] for result in report.results}
    return _json(
        kind,
        "pass" if report.passed else "fail",
        checks=checks if show else None,
        notes=notes if show else None,
    )


def _line(result: CheckResult) -> str:
    """A check as Kubernetes writes it, with its age where it was not found just now."""
    age_s = result.age_s
    age = f" ({age_s:.1f} s ago)" if age_s >= 0.05 else ""
    if result.passed:
        return f"[+]{result.name} ok{age}"
    return f"[-]{result.name} failed: {result.reason}{age}"


def _check_document(result: CheckResult) -> CheckDocument:
    age_s = result.age_s
    return CheckDocument(
        status="pass" if result.passed else "fail",
        time=datetime.now(UTC) - timedelta(seconds=age_s),
        output=result.reason,
        observed_value=round(result.took_ms, 3),
        observed_unit="ms",
        age_s=round(age_s, 3),
    )


def _liveness_lines(watchdog: Watchdog) -> list[str]:
    lag_ms, max_lag_ms = watchdog.lag_s * 1000, watchdog.max_lag_s * 1000
    lines = [
        f"[+]event_loop ok: it lags {lag_ms:.1f} ms, {max_lag_ms:.1f} ms at the most",
        f"[+]stalls ok: {watchdog.stalls}, {watchdog.stalled_s_total:.1f} s in all",
    ]
    blamed = watchdog.stalls_by_feature.most_common()
    return lines + [f"    {count} by {feature or 'nobody known'}" for feature, count in blamed]


def _liveness_checks(watchdog: Watchdog) -> dict[str, list[CheckDocument]]:
    def measured(value: float, unit: str) -> list[CheckDocument]:
        now = datetime.now(UTC)
        document = CheckDocument(status="pass", time=now, observed_value=value, observed_unit=unit)
        return [document]

    return {
        "event_loop:lag": measured(round(watchdog.lag_s * 1000, 3), "ms"),
        "event_loop:max_lag": measured(round(watchdog.max_lag_s * 1000, 3), "ms"),
        "event_loop:stalls": measured(watchdog.stalls, "stalls"),
        "event_loop:stalled": measured(round(watchdog.stalled_s_total, 3), "s"),
    }


def _text(path: str, *, passed: bool, lines: list[str]) -> web.Response:
    end = f"{path} check {'passed' if passed else 'failed'}"
    body = "".join(f"{line}\n" for line in [*lines, end]) if lines else "ok" if passed else end
    return _respond(f"{TEXT}; charset=utf-8", body, passed=passed)


def _json(
    kind: str,
    status: Status,
    *,
    checks: dict[str, list[CheckDocument]] | None = None,
    notes: list[str] | None = None,
) -> web.Response:
    document = HealthDocument(status=status, checks=checks, notes=notes or None)
    body = document.model_dump_json(exclude_none=True, by_alias=True)
    return _respond(kind, body, passed=status == "pass")


def _respond(content_type: str, body: str, *, passed: bool) -> web.Response:
    return web.Response(
        body=body.encode(errors="backslashreplace"),
        status=200 if passed else 503,
        headers={
            "Content-Type": content_type,
            "Vary": "Accept",
        },
    )


feature = Feature(routes, mount="", middlewares=(unstored,))
