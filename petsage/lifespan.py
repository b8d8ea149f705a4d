"""A feature's application from its start to its stop."""

import asyncio
import logging
from typing import Final

from aiohttp import web

from petsage.steady import begin_steady
from petsage.troubles import TROUBLES, place_in

_log = logging.getLogger(__name__)

_CANCEL_TIMEOUT_S: Final = 1.0
"""How long a lifespan may take to end after it was cancelled."""


class RunningApp:
    """A feature's application, and the one task that starts it and stops it.

    One task, because what a lifespan opens around its `yield`, such as a task group or a
    timeout, has to be closed in the task that opened it.

    Args:
        name: the feature's name.
        app: its application, the lifespan in its `cleanup_ctx`.
        limit_s: how long a start, and a stop, may take, in seconds.
    """

    def __init__(self, name: str, app: web.Application, limit_s: float) -> None:
        self.app = app
        self._name = name
        self._limit_s = limit_s
        self._is_up: asyncio.Future[BaseException | None] = (
            asyncio.get_running_loop().create_future()
        )
        self._stop = asyncio.Event()
        self._task = begin_steady(self._run(), name=f"lifespan of {name}")

    async def started(self) -> tuple[BaseException | None, bool]:
        """Waits until the application has started, or has failed to.

        Returns:
            What its start raised, None where it is up; and whether it took too long, in which
            case the error tells where it was cut.
        """
        try:
            await asyncio.wait({self._is_up}, timeout=self._limit_s)
        except asyncio.CancelledError:
            await self._cancel()
            raise
        if self._is_up.done():
            return self._is_up.result(), False
        await self._cancel()
        error = self._is_up.result() if self._is_up.done() else None
        return error if error is not None else TimeoutError(), True

    async def stop(self) -> None:
        """Stops the application; what goes wrong is logged, and what hangs is cut."""
        self._stop.set()
        await asyncio.wait({self._task}, timeout=self._limit_s)
        if not self._task.done():
            _log.error(
                "Feature %s did not stop within %g s, and was cut", self._name, self._limit_s
            )
            self._note_trouble(f"did not stop within {self._limit_s:g} s, and was cut")
            await self._cancel()

    async def _run(self) -> None:
        try:
            self.app.on_startup.freeze()
            await self.app.startup()
            self.app.freeze()
        except BaseException as error:  # noqa: BLE001 - SystemExit would end the process from here
            self._is_up.set_result(error)
            return
        self._is_up.set_result(None)
        try:
            await self._stop.wait()
        finally:
            await self._end()

    async def _end(self) -> None:
        for step in (self.app.shutdown, self.app.cleanup):
            try:
                await step()
            except BaseException as error:  # noqa: BLE001 - one that does not stop keeps no other from it
                _log.exception("Feature %s did not stop cleanly", self._name)
                place = place_in(error, self._name)
                self._note_trouble(f"did not stop cleanly: {type(error).__name__}{place}")

    async def _cancel(self) -> None:
        """Cuts what runs, and waits for its end; what will not end is named and left behind."""
        self._stop.set()
        self._task.cancel()
        await asyncio.wait({self._task}, timeout=_CANCEL_TIMEOUT_S)
        if not self._task.done():
            _log.error("The lifespan of feature %s was cancelled, and runs on", self._name)
            self._note_trouble("was cancelled, and runs on")

    def _note_trouble(self, said: str) -> None:
        fix = "mend what stands behind the `yield` of its lifespan"
        TROUBLES.note(self._name, "stop-failed", f"what served before {said}", fix=fix)
