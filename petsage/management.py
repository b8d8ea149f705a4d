"""Who may look inside and change things: reads on loopback, everything with the token."""

import hmac
from ipaddress import ip_address
from typing import Final

from aiohttp import hdrs, web
from multidict import istr
from yarl import URL

from petsage.errors import Problem
from petsage.health import ProcessState
from petsage.settings import ManagementSettings

# A request with one of these was passed on by a proxy, and may come from anywhere.
_FORWARDING: Final = tuple(
    map(
        istr,
        (
            *("Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"),
            *("X-Forwarded-Server", "X-Real-IP", "True-Client-IP", "CF-Connecting-IP"),
        ),
    )
)


class Guard:
    """Says who may use what is meant for operators.

    Args:
        settings: the token, and whether reads are open on loopback.
        state: whether loopback alone is listened on.
    """

    def __init__(self, settings: ManagementSettings, state: ProcessState) -> None:
        self._open_reads = settings.open_reads == "loopback"
        self._state = state
        self.token = settings.token

    def may_read(self, request: web.BaseRequest) -> bool:
        """Whether a request may see the inside."""
        return self.may_change(request) or (
            self._open_reads
            and self._state.loopback_only
            and not any(name in request.headers for name in _FORWARDING)
            and _names_this_machine(request)
        )

    def may_change(self, request: web.BaseRequest) -> bool:
        """Whether a request bears the token."""
        if self.token is None:
            return False
        scheme, _, given = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        # In constant time: how long a comparison takes must not tell how much of it was right.
        right = hmac.compare_digest(
            given.strip().encode(errors="surrogateescape"), self.token.encode()
        )
        return right and scheme.lower() == "bearer"

    def require_reader(self, request: web.BaseRequest) -> None:
        """Refuses who may not see the inside.

        Raises:
            Problem: 404, the same as where there is nothing.
        """
        if not self.may_read(request):
            raise _nothing_here()

    def require_changer(self, request: web.BaseRequest) -> None:
        """Refuses who may not change anything.

        Raises:
            Problem: 404, the same as where there is nothing.
        """
        if not self.may_change(request):
            raise _nothing_here()


def _nothing_here() -> Problem:
    return Problem(404, "There is nothing at this path")


def _names_this_machine(request: web.BaseRequest) -> bool:
    """Whether `Host` is a name of loopback, or absent.

    Another name may be a stranger's that was made to point here, for a browser on this machine to
    read with a page's own rights (DNS rebinding).
    """
    named = request.headers.get(hdrs.HOST)
    if named is None:
        return True
    try:
        host = URL.build(scheme="http", authority=named).host or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


GUARD: Final = web.AppKey("guard", Guard)
"""The guard in the root application."""
