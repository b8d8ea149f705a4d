"""Whether the process may open as many descriptors as its connections need."""

import contextlib
import logging
import os
import sys
from typing import Final

from petsage.errors import StartError
from petsage.metrics import surplus_above

try:
    import resource
except ImportError:  # a platform without such a limit

    def _allowed(wanted: int) -> int:
        return wanted

else:

    def _allowed(wanted: int) -> int:
        """How many descriptors may be open: `wanted`, where the soft limit is or can be as high."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY or soft >= wanted:
            return wanted
        higher = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (higher, hard))
        except (OSError, ValueError):  # there may be another one above it: macOS has OPEN_MAX
            return soft
        return higher


OTHERS: Final = 128
"""What all else may have open: logs, watched folders, databases, files that are sent."""

_LEAST: Final = 16

_log = logging.getLogger(__name__)


def make_room(max_connections: int) -> None:
    """Has Linux make its table of descriptors as large as so many connections need.

    It is made twice as large whenever it is full: at 64 descriptors, 128, 256 and so on. In a
    process of several threads, who opens that one waits until no processor reads the old table any
    more, and the event loop with it: for 10 to 20 ms. So this is for before there are threads.

    Args:
        max_connections: `[server].max_connections`.
    """
    if sys.platform != "linux":
        return
    import fcntl  # noqa: PLC0415 - not on every platform

    highest = _allowed(_wanted(max_connections)) - 1
    with (
        contextlib.suppress(OSError),  # there is less room: it grows as it is filled
        open(os.devnull, "rb") as nothing,  # noqa: PTH123 - a descriptor, any
    ):
        os.close(fcntl.fcntl(nothing, fcntl.F_DUPFD_CLOEXEC, highest))


def fit_connections(max_connections: int) -> int:
    """How many connections there may be: so many, or as many as the process may have open.

    The soft limit of descriptors is raised as far as it has to be.

    Args:
        max_connections: `[server].max_connections`.

    Raises:
        StartError: there is no room for even a few.
    """
    wanted = _wanted(max_connections)
    allowed = _allowed(wanted)
    if allowed >= wanted:
        return max_connections
    fits = max((allowed - OTHERS) * 4 // 5, allowed - OTHERS - surplus_above(max_connections))
    while fits + surplus_above(fits) + OTHERS > allowed:
        fits -= 1
    fix = (
        f"raise the hard limit of open files to {wanted} (LimitNOFILE={wanted}, "
        f"ulimit -n {wanted}), or lower [server].max_connections"
    )
    said = (
        f"[server].max_connections {max_connections} needs {wanted} descriptors, and the process "
        f"may have {allowed}"
    )
    if fits < _LEAST and fits < max_connections:
        raise StartError(said, fix=fix)
    _log.warning("%s: it serves %d connections at most; fix: %s", said, fits, fix)
    return fits


def _wanted(max_connections: int) -> int:
    return max_connections + surplus_above(max_connections) + OTHERS
