"""What live change costs: `python -m benchmarks.live`, on the real server as a process.

The features that change and those who ask are those of `tests/test_live_load.py`.

Longer than 300 lines: each of its measurements is short, and all of them use one server.
"""

import argparse
import asyncio
import contextlib
import http.client
import multiprocessing
import os
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import uvloop

from benchmarks import accounting
from benchmarks.servers import REPOSITORY
from tests.asking import Asked, Asking
from tests.changing import BREAKS, Changes, Told, furnish, write
from tests.conftest import ServerProcess
from tests.inside import INSIDE, Inside, look_inside

# A round counts as calm where all else on the machine used less than this share of one core.
_CALM = 0.1
_SMALL = '''"""Answers with its number."""
from petsage import Feature, Routes

routes = Routes()

@routes.get("/small{number}/{{name}}")
async def greet(name: str) -> dict[str, str]:
    """Greet somebody."""
    return {{"small{number}": name}}

feature = Feature(routes)
'''
_ORDINARY = {
    "models": """from pydantic import BaseModel, Field

class Pet(BaseModel):
    name: str = Field(min_length=1, description="What it is called.")
    age: int = Field(ge=0, description="In years.")
    tags: list[str] = []

class Said(BaseModel):
    word: str
    pet: Pet | None = None
""",
    "routes": """from petsage import Routes
from .models import Pet, Said

WORD = "{word}"
routes = Routes()

@routes.get("/{name}")
async def say() -> Said:
    return Said(word=WORD)

@routes.get("/{name}/{{pet}}")
async def find(pet: str, age: int = 0) -> Said:
    return Said(word=WORD, pet=Pet(name=pet, age=age))

@routes.post("/{name}")
async def add(pet: Pet) -> Said:
    return Said(word=WORD, pet=pet)
""",
    "__init__": '''"""An ordinary feature."""
from petsage import Feature
from .routes import routes

feature = Feature(routes)
''',
}


def _ordinary(name: str, word: str) -> dict[str, str]:
    return {**_ORDINARY, "routes": _ORDINARY["routes"].format(name=name, word=word)}


@dataclass
class _Started:
    """A server, with how long its start took, in seconds."""

    told: Told
    features: Path
    first_200_s: float
    serves_s: float

    @property
    def pid(self) -> int:
        """The server's process."""
        return self.told.process.pid

    def memory(self) -> tuple[int, int, int, int]:
        """RSS and PSS of the server, and of the child that checks, in KB."""
        (child,) = accounting.descendants(self.pid)
        return *_memory_kb(self.pid), *_memory_kb(child)


def _memory_kb(pid: int) -> tuple[int, int]:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    rss, pss = (re.search(rf"^{name}: +(\d+) kB", text, re.MULTILINE) for name in ("Rss", "Pss"))
    if rss is None or pss is None:
        raise SystemExit(f"the system does not say what process {pid} holds")
    return int(rss[1]), int(pss[1])


@contextlib.contextmanager
def _server(
    small: int, furnish_it: Callable[[Path], None] = lambda _: None, **env: str
) -> Iterator[_Started]:
    """A server with `smoke_test`, so many small features, and whatever else is put there."""
    with tempfile.TemporaryDirectory(prefix="petsage-bench-") as folder:
        features = Path(folder) / "project" / "features"
        smoke_test = REPOSITORY / "features" / "smoke_test"
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(smoke_test, features / "smoke_test", ignore=ignore)
        for number in range(small):
            write(features / f"small{number}", {"__init__": _SMALL.format(number=number)})
        furnish_it(features)
        began = time.perf_counter()
        env = {"PETSAGE_SERVER__DRAIN_S": "5", **env}
        process = ServerProcess(features.parent, (), env, begin="PetSage listens on ")
        told = Told(process)
        try:
            with told.expect_from_the_start("PetSage serves on"):
                _until(process.address, "smoke-test", lambda status, _: status == 200)
                first_200_s = time.perf_counter() - began
            yield _Started(told, features, first_200_s, time.perf_counter() - began)
        finally:
            process._process.kill()
            told.join()
            process.end()


def _until(address: str, path: str, is_it: Callable[[int, bytes], bool]) -> None:
    """Asks, on one connection, until the answer is the one that is waited for."""
    host, _, port = address.removeprefix("http://").partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    deadline = time.monotonic() + 60
    with contextlib.closing(connection):
        while time.monotonic() < deadline:
            connection.request("GET", f"/api/v1/{path}")
            answer = connection.getresponse()
            if is_it(answer.status, answer.read()):
                return
            time.sleep(0.002)
    raise SystemExit(f"{path} does not answer as it should after 60 s")


def _row(*cells: object) -> None:
    print("|", " | ".join(map(str, cells)), "|", flush=True)


def _head(*cells: str) -> None:
    print()
    _row(*cells)
    _row(*("---" for _ in cells))


def _ms(seconds: list[float]) -> tuple[str, str]:
    return f"{statistics.median(seconds) * 1e3:.0f}", f"{max(seconds) * 1e3:.0f}"


def measure_times(edits: int) -> None:
    """From the last write to the first new answer."""
    _head("small features", "change", "times", "median ms", "worst ms")
    for small in (0, 100, 1000):
        with _server(small) as server:
            count = edits if small < 1000 else max(5, edits // 5)
            for kind, times in _times(server, count).items():
                _row(small, kind, count, *_ms(times))


def _times(server: _Started, count: int) -> dict[str, list[float]]:
    address, folder = server.told.process.address, server.features / "pets"
    times: dict[str, list[float]] = {"added": [], "edited": [], "removed": []}

    def note(kind: str, is_it: Callable[[int, bytes], bool]) -> None:
        began = time.perf_counter()
        _until(address, "pets", is_it)
        times[kind].append(time.perf_counter() - began)

    for number in range(count):
        write(folder, _ordinary("pets", f"added{number}"))
        note("added", lambda status, _: status == 200)
        routes = _ordinary("pets", f"edited{number}")["routes"]
        write(folder, {"routes": routes})
        word = f"edited{number}".encode()
        note("edited", lambda _, body, word=word: word in body)  # type: ignore[misc]
        shutil.rmtree(folder)
        note("removed", lambda status, _: status == 404)
    return times


def measure_removals(count: int) -> None:
    """From the removal of a folder to its 404, while the import of another does not end."""
    _head("small features", "change", "times", "median ms", "worst ms")
    for small in (count, 1000):
        with _server(small, PETSAGE_CATALOG__CHECK_TIMEOUT_S="600") as server:
            address, times = server.told.process.address, []
            begun = server.features.parent / "begun"
            os.mkfifo(begun)
            source = f"open({str(begun)!r}, 'w').close()\nwhile True:\n    pass\n"
            write(server.features / "hangs", {"__init__": source})
            begun.read_bytes()
            for number in range(count):
                shutil.rmtree(server.features / f"small{number}")
                began = time.perf_counter()
                _until(address, f"small{number}/x", lambda status, _: status == 404)
                times.append(time.perf_counter() - began)
            _row(small, "removed while one hangs", count, *_ms(times))


def measure_starts(rounds: int) -> None:
    """How long a start takes, and what it holds then."""
    _head("features", "first 200 s", "serves s", "server RSS MB", "KB each by PSS (RSS)", "child")
    first: tuple[int, int, int, int] | None = None
    for small in (0, 99, 999):
        starts = []
        for _ in range(rounds):
            with _server(small) as server:
                time.sleep(1)  # what the start has left is collected by then
                starts.append((server.first_200_s, server.serves_s, server.memory()))
        first_200s, serves, memories = zip(*starts, strict=True)
        memory = memories[-1]
        first = first or memory
        each = [(now - then) / max(small, 1) for now, then in zip(memory, first, strict=True)]
        _row(
            small + 1,
            f"{statistics.median(first_200s):.2f}",
            f"{statistics.median(serves):.2f}",
            f"{memory[0] / 1e3:.1f}",
            f"{each[1]:.1f} ({each[0]:.1f})",
            f"{each[3]:.1f} ({each[2]:.1f}); RSS {memory[2] / 1e3:.1f} MB",
        )


def _ask(address: str, seconds: float, per_s: float | None) -> Asked:
    """What becomes of a load of so many seconds; in a process of its own."""

    async def ask() -> Asked:
        async with Asking(address, None, quick=8, long=0, per_s=per_s).running() as asked:
            await asyncio.sleep(seconds)
        return asked

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(ask())


def _p99_ms(asked: Asked) -> float:
    if asked.failed or asked.mixed:
        raise SystemExit(f"failed: {asked.failed[:5]}, mixed: {asked.mixed[:5]}")
    return statistics.quantiles(asked.late_s, n=100)[98] * 1e3


def _used_s() -> tuple[float, float]:
    """The CPU seconds of this process and all below it, and those of everything on the machine."""
    while True:
        try:
            own = accounting.cpu_s(os.getpid())
        except (FileNotFoundError, ProcessLookupError):  # one has just ended
            continue
        return own, sum(map(accounting.core_busy_s, os.sched_getaffinity(0)))


def _others_s(before: tuple[float, float]) -> float:
    own, everything = (now - then for now, then in zip(_used_s(), before, strict=True))
    return max(0.0, everything - own)


def measure_p99(rounds: int, seconds: float) -> None:
    """The p99 at half load, with changes and without; and what others used meanwhile."""
    context = multiprocessing.get_context("spawn")
    with (
        _server(0, furnish, PETSAGE_CATALOG__CHECK_TIMEOUT_S="2") as server,
        ProcessPoolExecutor(1, mp_context=context) as pool,
    ):
        address = server.told.process.address
        flat_out = pool.submit(_ask, address, seconds, None).result()
        per_s = flat_out.counts.total() / seconds / 2
        changes = Changes(server.features, server.told)
        figures = (
            "p99 ms quiet",
            "changing",
            "rise",
            "worst ms quiet",
            "changing",
            "CPU s of others",
        )
        _head("round", "requests/s", "changes", *figures)
        rises = []
        for number in range(1, rounds + 1):
            before, made = _used_s(), sum(changes.made.values())
            quiet = pool.submit(_ask, address, seconds, per_s).result()
            asking: Future[Asked] = pool.submit(_ask, address, seconds, per_s)
            while not asking.done():
                changes.make(1)
            changing = asking.result()
            others_s = _others_s(before)
            p99s = _p99_ms(quiet), _p99_ms(changing)
            rises.append((p99s[1] - p99s[0], others_s))
            worst = max(quiet.late_s) * 1e3, max(changing.late_s) * 1e3
            shown = (f"{each:.1f}" for each in (*p99s, rises[-1][0], *worst, others_s))
            _row(number, f"{per_s:.0f}", sum(changes.made.values()) - made, *shown)
        calm = [rise for rise, others_s in rises if others_s < _CALM * 2 * seconds]
        print(f"\nmedian rise of p99: {statistics.median(rise for rise, _ in rises):.1f} ms")
        if calm:
            print(f"of the {len(calm)} calm rounds: {statistics.median(calm):.1f} ms")


def measure_what_is_left(count: int) -> None:
    """What a server holds after so many changes, beside what it held before."""

    def furnish_it(features: Path) -> None:
        furnish(features)
        write(features / "inside", INSIDE)

    # What hangs takes its time, and leaves no more than what crashes.
    quick = sorted(BREAKS.keys() - {"check-timeout"})
    with _server(0, furnish_it, PETSAGE_CATALOG__SETTLE_MS="20") as server:
        changes = Changes(server.features, server.told, quick)
        _head("changes", *Inside.__annotations__)
        done = 0
        for wanted in (0, 50, *(count * part // 4 for part in range(1, 5))):
            if wanted < done or (wanted == 50 and count < 50):
                continue
            changes.make(wanted - done)
            done = wanted
            _row(done, *vars(look_inside(server.told.process)).values())


def main() -> None:
    """Measures, and prints tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", help="of: times removals starts p99 left (all)")
    parser.add_argument("--edits", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--changes", type=int, default=500)
    options = parser.parse_args()
    wanted = options.what or ["times", "removals", "starts", "p99", "left"]
    print(f"{accounting.cpu_model()}, {len(os.sched_getaffinity(0))} cores")
    if "times" in wanted:
        measure_times(options.edits)
    if "removals" in wanted:
        measure_removals(min(options.edits, 20))
    if "starts" in wanted:
        measure_starts(options.rounds)
    if "p99" in wanted:
        measure_p99(options.rounds, options.seconds)
    if "left" in wanted:
        measure_what_is_left(options.changes)


if __name__ == "__main__":
    main()
