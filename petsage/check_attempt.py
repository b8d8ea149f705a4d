"""One attempt at a check, in a process that is forked for it: features are imported here."""

import contextlib
import faulthandler
import fcntl
import gc
import logging
import math
import os
import re
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

from petsage.candidate import Candidate
from petsage.check_messages import (
    CLIENT,
    LARGE,
    Failure,
    Kind,
    decode_job,
    encode_answer,
    encode_sources,
    frame,
)
from petsage.client_side import is_postponed
from petsage.feature import Place
from petsage.inspection import Inspection
from petsage.loader import inspect_candidate, load_candidates
from petsage.ordering import failed_need
from petsage.side_effects import find_words
from petsage.signature import Flaw
from petsage.snapshot import Snapshot

# By the server, for all of its children: each of them would take longer.
try:
    import ctypes
except ImportError:  # Python was built without it
    ctypes = None  # type: ignore[assignment]

# An accident (`os.write(3, …)`) is to hit nothing of ours.
_HIGH: Final = 200
_PR_SET_PDEATHSIG: Final = 1
PR_SET_CHILD_SUBREAPER: Final = 36
# The other one of an import that forked stays so long, for the first one to find it.
_LINGER_S: Final = 1.0
# The limit is set anew at most so often, since that makes a thread: the next few share it.
_LEEWAY_S: Final = 0.1
# The exit code of a child whose descriptors an import has closed.
MUTE: Final = 117


def set_process_option(option: int, value: int) -> None:
    """Linux's; elsewhere, and without `ctypes`, the group is killed all the same."""
    if sys.platform == "linux" and ctypes is not None:
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


class Attempt:
    """A child of the warm one: it runs what features have in them.

    Args:
        token: begins each message, so that nothing else is taken for one.
        report: the descriptor of a socket, to write messages to.
        dump: the descriptor that `faulthandler` writes to.
        timeout_s: how long the check of one feature may take.
        warm: the parent's process id.
    """

    def __init__(self, token: bytes, report: int, dump: int, timeout_s: float, warm: int) -> None:
        self._token = token
        self._report = report
        self._dump = dump
        self._timeout_s = timeout_s
        self._warm = warm
        self._is_careful = False
        self._armed = -math.inf
        self._pid = os.getpid()

    def run(self, job: bytes, failures: Sequence[Failure], *, is_careful: bool) -> NoReturn:
        """Checks, says what came of it, and ends the process."""
        self._is_careful = is_careful
        try:
            self._leave_home()
            # In a thread, as the server does: some things cannot be done there.
            thread = threading.Thread(target=self._check, args=(job, failures), daemon=True)
            thread.start()
            thread.join()
        finally:
            os._exit(0)

    def _leave_home(self) -> None:
        os.setsid()
        set_process_option(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # What an import starts stays a child of this one, and is found.
        set_process_option(PR_SET_CHILD_SUBREAPER, 1)
        if os.getppid() != self._warm:
            os._exit(0)
        self._report, report = fcntl.fcntl(self._report, fcntl.F_DUPFD_CLOEXEC, _HIGH), self._report
        os.close(report)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        _limit_memory()
        gc.enable()
        if not logging.getLogger().handlers and logging.lastResort is not None:
            # As in a server, whose log is set up: without one, the first line sets logging up.
            logging.getLogger().addHandler(logging.lastResort)

    def _check(self, data: bytes, failures: Sequence[Failure]) -> None:
        try:
            # Here: each thread has its own stack for what has overflown the ordinary one.
            faulthandler.enable(file=self._dump)
            before = _large()
            answer = self._answer(data, failures)
            self._begin("")
            for name in _large() - before:
                self._say(b"C", name.encode())
            self._say(b"A", answer)
        except BaseException:  # noqa: BLE001 - whatever it is, the server logs it
            self._say(b"X", traceback.format_exc().encode("utf-8", "backslashreplace"))

    def _answer(self, data: bytes, failures: Sequence[Failure]) -> bytes:
        job = decode_job(data)
        with contextlib.suppress(OSError):  # it was removed
            os.chdir(job.folder)
        found: dict[str, Candidate] = {}
        for snapshot, folder in job.snapshots:
            found[snapshot.name] = Candidate(snapshot.name, folder, snapshot=snapshot)
        for name, candidate in found.items():
            self._begin(name)
            if sum(failure.name == name for failure in failures) > 1:
                candidate.inspection = Inspection()  # already to look at it is too much
            inspect_candidate(candidate)
        codes = encode_sources(found)
        for failure in {failure.name: failure for failure in failures}.values():
            _add_failure(found[failure.name], failure, self._timeout_s)
        load_candidates(
            found,
            job.names,
            settings=job.settings,
            disabled=job.disabled,
            begins=self._begin,
            strict=True,
        )
        _add_failed_needs(found)
        return encode_answer(found, codes)

    def _begin(self, name: str) -> None:
        self._end_if_forked()  # it would wait for a thread that is only in the first one
        now = time.monotonic()
        if now - self._armed > _LEEWAY_S:
            limit_s = self._timeout_s + _LEEWAY_S
            faulthandler.dump_traceback_later(limit_s, exit=True, file=self._dump)
            self._armed = now
        self._say(b"B", name.encode())
        if self._is_careful:
            os.read(self._report, 1)

    def _end_if_forked(self) -> None:
        """Ends the other one, where an import has forked: it is not to answer as well."""
        if os.getpid() != self._pid:
            time.sleep(_LINGER_S)
            os._exit(0)

    def _say(self, kind: Kind, payload: bytes) -> None:
        self._end_if_forked()
        message = memoryview(self._token + frame(kind, payload))
        try:
            while message:
                message = message[os.write(self._report, message) :]
        except OSError:
            os._exit(MUTE)


def _large() -> set[str]:
    """What of `LARGE` is imported."""
    client = set() if is_postponed() else {CLIENT}
    return client | {name for name in LARGE if name in sys.modules}


def _limit_memory() -> None:
    """Keeps an import from taking the machine's memory; the server could not import that either."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):  # else whoever is larger goes first
        Path("/proc/self/oom_score_adj").write_text("1000")
    with contextlib.suppress(OSError, ValueError, IndexError):
        text = Path("/proc/meminfo").read_text()
        available = int(text.partition("MemAvailable:")[2].split()[0]) * 1024
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit = available // 5 * 4
        if hard == resource.RLIM_INFINITY or hard > limit:
            resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def _add_failure(candidate: Candidate, failure: Failure, timeout_s: float) -> None:
    snapshot = candidate.snapshot
    place = _place_in(failure.dump, snapshot) if snapshot is not None else None
    if failure.how == "timeout":
        flaw = Flaw(
            "check-timeout",
            f"its check did not end within {timeout_s:g} s",
            "move what takes so long into the lifespan, or raise [catalog].check_timeout_s",
        )
    else:
        fix = "mend that line, or what it calls"
        if "exit code" in failure.what:
            fix = "take `os._exit` out; raise an error instead"
        elif "SIGKILL" in failure.what:
            fix = "take less memory, or load what is large in the lifespan"
        flaw = Flaw("check-crashed", f"its import {failure.what}", fix)
        if place is None and snapshot is not None:
            place = find_words(snapshot, ("os._exit", "_exit", "closerange", "kill", "killpg"))
    if place is None:
        place = Place(candidate.argument_place().file, 0)
    candidate.add(place, flaw)


_FRAME: Final = re.compile(r'^  File "(.*)", line (\d+) in ', re.MULTILINE)


def _place_in(dump: str, snapshot: Snapshot) -> Place | None:
    """The feature's own line that what `faulthandler` wrote shows, the innermost one."""
    files = {}
    for within in snapshot.sources:
        file = str(snapshot.folder / within)
        files[file.encode("ascii", "backslashreplace").decode()] = file
    # Of several threads, the one that imports is the one that the loader is in.
    blocks = sorted(dump.split("\n\n"), key=lambda block: "petsage/loader.py" not in block)
    for block in blocks:
        for file, line in _FRAME.findall(block):
            if file in files:
                return Place(files[file], int(line))
    return None


def _add_failed_needs(found: dict[str, Candidate]) -> None:
    """Sets aside what needs one that was set aside, directly or not."""
    waiting = [candidate for candidate in found.values() if not candidate.errors]
    while waiting:
        failed = [
            (candidate, name)
            for candidate in waiting
            for name in candidate.needs
            if name in found and found[name].errors
        ]
        for candidate, name in failed:
            if not candidate.errors:
                candidate.add(candidate.argument_place("needs"), failed_need(name))
        waiting = [candidate for candidate in waiting if not candidate.errors] if failed else []
