"""wrk: the load, and what it counted."""

import json
import os
import resource
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.errors import BenchmarkError

_SCRIPT = Path(__file__).with_name("wrk.lua")
_GRACE_S = 20


@dataclass(frozen=True)
class Load:
    """One run of wrk.

    `requests` are those whose answer arrived; at its end, as many more as there are connections
    may still be on their way.
    """

    requests: int
    duration_s: float
    p50_ms: float
    p99_ms: float
    bad_statuses: int
    socket_errors: int
    cpu_s: float


def run_wrk(
    url: str,
    *,
    seconds: int,
    connections: int,
    ids: int | None = None,
    body: str | None = None,
    header: str | None = None,
) -> Load:
    """The load that one thread of wrk on `connections` connections put on `url`.

    With `ids`, each request has another one from 1 to that at its path's end; with `body`, JSON,
    it is a POST; with `header`, such as "Name: value", it has that, too.
    """
    wrk = shutil.which("wrk")
    if wrk is None:
        raise BenchmarkError("`wrk` is not on PATH", fix="install it: apt-get install wrk")
    command = [wrk, "-t1", f"-c{connections}", f"-d{seconds}s", f"-s{_SCRIPT}", url]
    if header is not None:
        command[1:1] = ["-H", header]
    variables = {"BENCH_IDS": ids, "BENCH_BODY": body}
    environment = {key: str(value) for key, value in variables.items() if value is not None}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(  # noqa: S603 - wrk, with words from here # nosec B603
        command,
        capture_output=True,
        text=True,
        timeout=seconds + _GRACE_S,
        check=False,
        env=os.environ | environment,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise BenchmarkError(
            f"wrk ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-500:]}",
            fix=f"try it by hand: {' '.join(command)}",
        )
    counted = json.loads(done.stdout.splitlines()[-1])
    return Load(
        requests=counted["requests"],
        duration_s=counted["duration_us"] / 1e6,
        p50_ms=counted["p50_us"] / 1e3,
        p99_ms=counted["p99_us"] / 1e3,
        bad_statuses=counted["bad_statuses"],
        socket_errors=counted["socket_errors"],
        # wrk is the only child that is waited for in between.
        cpu_s=(after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime),
    )


def wrk_version() -> str:
    """The version that wrk itself names, such as "4.1.0"; "none" where it is not installed."""
    wrk = shutil.which("wrk")
    if wrk is None:
        return "none"
    done = subprocess.run(  # noqa: S603 - wrk, as it was found # nosec B603
        [wrk, "-v"], capture_output=True, text=True, check=False
    )
    said = done.stdout.split()
    return said[1] if len(said) > 1 else "unknown"
