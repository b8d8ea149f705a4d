"""Loggers and their levels: as they are, changed for a while, and back again by themselves."""

import asyncio
import logging
import math
from dataclasses import dataclass
from typing import Final, NamedTuple

_log = logging.getLogger(__name__)

ROOT: Final = "root"
MAX_MADE: Final = 100
"""So many loggers may be made by naming them; the standard library keeps each for good."""


class TooManyLoggersError(Exception):
    """A logger would have to be made, and `MAX_MADE` were."""


class LoggerLevel(NamedTuple):
    """A logger as it is now.

    Attributes:
        name: `root` for the root logger.
        level: its own, None where it goes by its parents'.
        effective: the level from which on it logs.
        reverts_to: what its own level goes back to by itself, None where that is its parents' or
            it does not go back.
        reverts_in_s: when it goes back, None where it does not.
    """

    name: str
    level: str | None
    effective: str
    reverts_to: str | None = None
    reverts_in_s: float | None = None


@dataclass
class _Change:
    """A logger that was changed.

    Attributes:
        original: its own level before the first change.
        standing: what it goes back to when a change that is to last a while is over.
        timer: when that is, None where it lasts.
    """

    original: int
    standing: int
    timer: asyncio.TimerHandle | None = None


class LevelChanges:
    """The levels of all loggers, and the changes made to them, which end with it.

    It is used on one event loop alone.
    """

    def __init__(self) -> None:
        self._changes: dict[str, _Change] = {}
        self._made = 0

    def all(self) -> list[LoggerLevel]:
        """Every logger, the root first, then by name."""
        return [self._state(ROOT, logging.getLogger())] + [
            self._state(name, logger)
            for name, logger in sorted(logging.Logger.manager.loggerDict.copy().items())
            if isinstance(logger, logging.Logger)
        ]

    def get(self, name: str) -> LoggerLevel | None:
        """One logger, None where there is none of that name."""
        logger = _existing(name)
        return self._state(name, logger) if logger is not None else None

    def change(self, name: str, level: str | None, ttl_s: float | None) -> LoggerLevel:
        """Gives a logger a level of its own, or takes it away; the log says so.

        It takes the place of a change before it. One for a while goes back to the level before
        all that are for a while; one that lasts becomes what those after it go back to.

        Args:
            name: one that is not there is made.
            level: None for its parents'.
            ttl_s: after so long it goes back by itself; None for when the application stops.

        Raises:
            TooManyLoggersError: the logger is not there, and no more are made.
        """
        logger = _existing(name)
        if logger is None:
            if self._made >= MAX_MADE:
                raise TooManyLoggersError
            self._made += 1
            logger = logging.getLogger(name)
        number = logging.NOTSET if level is None else logging.getLevelNamesMapping()[level]
        change = self._changes.setdefault(name, _Change(logger.level, logger.level))
        if change.timer is not None:
            change.timer.cancel()
            change.timer = None
        before = logger.level
        logger.setLevel(number)
        if ttl_s is None:
            change.standing = number
        else:
            loop = asyncio.get_running_loop()
            change.timer = loop.call_later(ttl_s, self._expire, name)
        _say("was changed", name, before, number, ttl_s)
        return self._state(name, logger)

    def revert(self, name: str) -> LoggerLevel | None:
        """Undoes every change of a logger at once; None where there is no such logger."""
        logger = _existing(name)
        if logger is None:
            return None
        change = self._changes.pop(name, None)
        if change is not None:
            if change.timer is not None:
                change.timer.cancel()
            self._set_back(name, logger, change.original)
        return self._state(name, logger)

    def revert_all(self) -> None:
        """Undoes every change of every logger."""
        for name in list(self._changes):
            self.revert(name)

    def _expire(self, name: str) -> None:
        change = self._changes[name]
        change.timer = None
        if change.standing == change.original:
            del self._changes[name]
        logger = _existing(name)
        if logger is not None:
            self._set_back(name, logger, change.standing)

    def _set_back(self, name: str, logger: logging.Logger, level: int) -> None:
        before = logger.level
        logger.setLevel(level)
        if before != level:
            _say("went back", name, before, level, None)

    def _state(self, name: str, logger: logging.Logger) -> LoggerLevel:
        change = self._changes.get(name)
        level, effective = _level_name(logger.level), _level_name(logger.getEffectiveLevel())
        if change is None or change.timer is None:
            return LoggerLevel(name, level, effective or "NOTSET")
        left_s = max(0.0, change.timer.when() - asyncio.get_running_loop().time())
        return LoggerLevel(
            name,
            level,
            effective or "NOTSET",
            reverts_to=_level_name(change.standing),
            reverts_in_s=math.ceil(left_s * 1000) / 1000,
        )


def _existing(name: str) -> logging.Logger | None:
    if name == ROOT:
        return logging.getLogger()
    found = logging.Logger.manager.loggerDict.get(name)
    return found if isinstance(found, logging.Logger) else None


def _level_name(level: int) -> str | None:
    return None if level == logging.NOTSET else logging.getLevelName(level)


def _say(what: str, name: str, before: int, after: int, ttl_s: float | None) -> None:
    """A line that no level leaves out: it tells of the very change that might silence it."""
    levels = {"from_level": _level_name(before), "to_level": _level_name(after)}
    told = " to ".join(level or "its parents' level" for level in levels.values())
    until = "" if ttl_s is None else f", for {ttl_s:g} s"
    extra = {"logger_name": name, **levels, "ttl_s": ttl_s}
    message = "The level of logger %s " + what + " from %s"
    arguments = (name, told + until)
    _log.handle(
        _log.makeRecord(
            _log.name, logging.WARNING, __file__, 0, message, arguments, None, "", extra
        )
    )
