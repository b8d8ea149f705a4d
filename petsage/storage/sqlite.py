"""SQLite: one thread that writes, a few that read, each with a connection of its own.

A thread has its connection for good: taking one out of a pool for each request costs more than most
of what is asked. What they have done is handed back to the event loop in one go where several
are done at once.

Longer than 300 lines: a job's way from the loop to a thread and back is read as one.
"""

import asyncio
import contextlib
import contextvars
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final

from sqlalchemy import Connection

from petsage.settings import SQLITE, DatabaseSettings
from petsage.storage.caches import forget_all
from petsage.storage.faults import Unavailable
from petsage.storage.sqlite_file import File, Mark, mark_of
from petsage.storage.sqlite_seat import Job, NotBegun, Seat

_log = logging.getLogger(__name__)

_READERS: Final = 4
_LOOK_S: Final = 0.25
_HELP_S: Final = 0.01
"""A reader that takes so long for one thing is helped by another."""

_GRACE_S: Final = 1.0
"""How long what was interrupted may take to end."""

_PATIENCE: Final = 5
"""Nobody waits for longer than so many times what a job may run."""
_MOST_AT_ONCE: Final = 64
"""How many writes share a transaction, and so the disk's time, where as many wait."""


class SqliteEngine:
    """The connections to one file, and the threads that use them.

    Args:
        settings: where the file is, and the time limits.

    It is made in the event loop that uses it.
    """

    def __init__(self, settings: DatabaseSettings) -> None:
        self._file = File(Path(settings.url.removeprefix(SQLITE)), settings.timeout_s)
        self.timeout_s = settings.timeout_s
        self._loop = asyncio.get_running_loop()
        self._jobs: dict[Job, None] = {}
        self._done: deque[tuple[Job, Any, BaseException | None]] = deque()
        self._is_told = False
        self._timer: asyncio.TimerHandle | None = None
        self._reads: SimpleQueue[Job | None] = SimpleQueue()
        self._writes: SimpleQueue[Job | None] = SimpleQueue()
        self._ended = self._loop.create_future()
        self._threads: list[threading.Thread] = []
        self._running = 0
        self._taken = 0
        self._seen = 0
        self._calling: asyncio.TimerHandle | None = None
        self._calls: SimpleQueue[bool] = SimpleQueue()
        self._begin_thread(self._write_on, is_writer=True)
        self._begin_thread(self._read_on, is_writer=False)
        for _ in range(min(_READERS, settings.pool_size - 1) - 1):
            self._begin_thread(self._help_on, is_writer=False)

    def read(
        self,
        mark: Mark | None,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> asyncio.Future[Any]:
        """What a function of a read-only connection and these arguments returns."""
        return self._put(self._reads, mark, function, args, kwargs, limit_s=self.timeout_s)

    def write(
        self,
        mark: Mark | None,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> asyncio.Future[Any]:
        """What a function of a connection and these arguments returns, once the disk has it."""
        # It may have to wait for another process as long before it begins.
        return self._put(self._writes, mark, function, args, kwargs, limit_s=2 * self.timeout_s)

    async def bring_up(self, function: Callable[[Connection], None]) -> Mark:
        """Has a function change tables, for as long as it takes; the mark of their database."""

        def change(connection: Connection) -> Mark:
            function(connection)
            return mark_of(self._file.path)

        mark: Mark = await self._put(self._writes, None, change, (), {}, limit_s=None)
        return mark

    async def look(self, *, also_writes: bool) -> None:
        """Asks whether the database is there.

        Args:
            also_writes: whether to write something, too: what was there already.
        """
        if also_writes:
            await self._put(self._writes, None, _write_nothing, (), {}, limit_s=self.timeout_s)
        else:
            await self._put(self._reads, None, _read_something, (), {}, limit_s=self.timeout_s)

    def forget(self) -> None:
        """Lets go of what is kept of features' statements."""
        for engine in self._file.engines.values():
            forget_all(engine)

    async def close(self) -> None:
        """Waits for what runs, and closes the file."""
        self._reads.put(None)
        for _ in self._threads[2:]:
            self._calls.put(False)
        try:
            async with asyncio.timeout(self.timeout_s + _GRACE_S):
                await self._ended
        except TimeoutError:
            _log.error("The database is not closed: what runs there does not end")
        else:
            for thread in self._threads:
                thread.join()
        for timer in (self._timer, self._calling):
            if timer is not None:
                timer.cancel()
        for job in self._jobs:
            job.future.cancel()

    def _put(
        self,
        queue: "SimpleQueue[Job | None]",
        mark: Mark | None,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        limit_s: float | None,
    ) -> asyncio.Future[Any]:
        future = self._loop.create_future()
        job = Job(function, args, kwargs, mark=mark, limit_s=limit_s, future=future)
        self._jobs[job] = None
        if self._timer is None:
            self._look_later()
        if self._calling is None and queue is self._reads:
            self._call_later()
        queue.put(job)
        return future

    # In the event loop: what is done, and what takes too long.

    def _deliver(self) -> None:
        self._is_told = False
        while self._done:
            job, value, error = self._done.popleft()
            self._jobs.pop(job, None)
            if job.future.done():
                continue  # whoever has waited for it has gone
            if error is None:
                job.future.set_result(value)
            elif isinstance(error, StopIteration):  # a future takes none
                job.future.set_exception(RuntimeError("the function raised StopIteration"))
            else:
                job.future.set_exception(error)
        job = value = error = None  # type: ignore[assignment] # nothing is kept

    def _look_later(self) -> None:
        # In a context of its own, which is nobody's request.
        self._timer = self._loop.call_later(
            min(_LOOK_S, self.timeout_s / 4), self._look_at_jobs, context=contextvars.Context()
        )

    def _look_at_jobs(self) -> None:
        """Gives up what has waited for too long, and interrupts what runs for too long."""
        self._timer = None
        now = time.monotonic()
        for job in list(self._jobs):
            if job.began:
                self._look_at_running(job, now - job.began)
            elif now - job.put >= self.timeout_s and job.take():
                self._give_up(job, f"no turn within {self.timeout_s:g} s")
            elif job.limit_s is not None and now - job.put >= _PATIENCE * job.limit_s:
                self._give_up(job, "the disk does not take what is written")
        if self._jobs:
            self._look_later()

    def _look_at_running(self, job: Job, ran_s: float) -> None:
        if job.limit_s is None or ran_s < job.limit_s or job.seat is None:
            return
        if ran_s < job.limit_s + _GRACE_S:
            job.seat.interrupt(job)
        else:
            self._give_up(job, f"a function runs for more than {job.limit_s:g} s")

    def _call_later(self) -> None:
        self._seen = self._taken
        self._calling = self._loop.call_later(
            _HELP_S, self._call_for_help, context=contextvars.Context()
        )

    def _call_for_help(self) -> None:
        """Calls a further reader where reads wait, and nothing has been begun for a while."""
        self._calling = None
        if not self._reads.empty():
            if self._taken == self._seen:
                self._calls.put(True)
            self._call_later()

    def _give_up(self, job: Job, reason: str) -> None:
        del self._jobs[job]
        if not job.future.done():
            job.future.set_exception(Unavailable("busy", reason))

    # In the threads.

    def _begin_thread(self, work: "Callable[[Seat], None]", *, is_writer: bool) -> None:
        name = "database-writer" if is_writer else f"database-reader-{len(self._threads)}"
        seat = Seat(self._file, is_writer=is_writer)
        thread = threading.Thread(target=self._run, args=(work, seat), name=name, daemon=True)
        self._running += 1
        self._threads.append(thread)
        thread.start()

    def _run(self, work: "Callable[[Seat], None]", seat: "Seat") -> None:
        work(seat)
        seat.close()
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._note_end)

    def _note_end(self) -> None:
        self._running -= 1
        if self._running == 1:  # the writer's connection is closed last, and tidies up
            self._writes.put(None)
        if not self._running and not self._ended.done():
            self._ended.set_result(None)

    def _write_on(self, seat: "Seat") -> None:
        """What the writer does."""
        is_open = True
        while is_open:
            job = self._writes.get()
            if job is None:
                break
            jobs, is_open = _those_waiting(self._writes, job)
            del job
            jobs = [each for each in jobs if self._takes(each)]
            if len(jobs) == 1 or not self._write_together(seat, jobs):
                for each in jobs:
                    self._perform(seat, each)
                    del each
            jobs.clear()

    def _read_on(self, seat: "Seat") -> None:
        """What the first reader does: one that is never idle is better than several in turns."""
        while (job := self._reads.get()) is not None:
            if self._takes(job):
                self._perform(seat, job)
            del job

    def _help_on(self, seat: "Seat") -> None:
        """What further readers do: they help when they are called, until nothing waits."""
        while self._calls.get():
            with contextlib.suppress(Empty):
                while (job := self._reads.get_nowait()) is not None:
                    if self._takes(job):
                        self._perform(seat, job)
                    del job
                self._reads.put(None)  # the end, which is the first reader's

    def _takes(self, job: Job) -> bool:
        """Whether a job is to be done: somebody waits for it."""
        if job.future.cancelled():
            self._tell(job, None, None)
            return False
        self._taken += 1
        return job.take()

    def _perform(self, seat: "Seat", job: Job) -> None:
        """Does one job, in a transaction of its own."""
        value, error = None, None
        seat.begin(job)
        try:
            value = job.context.run(seat.perform, job)
        except BaseException as raised:  # noqa: BLE001 - it is raised where it is waited for
            error = self._file.told(raised, is_writer=seat.is_writer)
        seat.end()
        self._tell(job, value, error)

    def _write_together(self, seat: "Seat", jobs: Sequence[Job]) -> bool:
        """Does several jobs in one transaction, so that the disk is waited for once.

        Returns:
            Whether they are done. Else nothing is written, and each is to be tried by itself.
        """
        if any(job.limit_s is None for job in jobs):
            return False
        try:
            ended = seat.perform_together(jobs)
        except NotBegun as raised:  # nor would it for each of them, one after another
            for job in jobs:
                self._tell(job, None, Unavailable(raised.kind, raised.reason))
            return True
        except BaseException:  # noqa: BLE001 - each tells by itself what is wrong
            return False
        for job, (value, error) in zip(jobs, ended, strict=True):
            self._tell(job, value, error and self._file.told(error, is_writer=True))
        return True

    def _tell(self, job: Job, value: Any, error: BaseException | None) -> None:
        self._done.append((job, value, error))
        if not self._is_told:
            self._is_told = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                self._loop.call_soon_threadsafe(self._deliver)


def _those_waiting(queue: "SimpleQueue[Job | None]", first: Job) -> tuple[list[Job], bool]:
    """The first job and those that wait behind it; and whether there may be more to come."""
    jobs = [first]
    while len(jobs) < _MOST_AT_ONCE:
        try:
            job = queue.get_nowait()
        except Empty:
            return jobs, True
        if job is None:
            return jobs, False
        jobs.append(job)
    return jobs, True


def _read_something(connection: Connection) -> None:
    connection.exec_driver_sql("SELECT count(*) FROM sqlite_master")


def _write_nothing(connection: Connection) -> None:
    version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    connection.exec_driver_sql(f"PRAGMA user_version = {int(version)}")
