"""Who may look inside and change things: reads on loopback, everything with the token."""

import asyncio
import hmac
import logging
import secrets
from collections.abc import Iterable
from ipaddress import ip_address
from os import environ as process_environment
from typing import Any, Final

from aiohttp import hdrs, web
from yarl import URL

from petsage.answers import leaves_unstored
from petsage.errors import NOTHING_HERE, Problem
from petsage.health import ProcessState
from petsage.settings import ManagementSettings
from petsage.token_file import TokenFile, TokenFileError, write_token_file
from petsage.worker import in_thread

_log = logging.getLogger(__name__)

_READS: Final = frozenset((hdrs.METH_GET, hdrs.METH_HEAD))

# A request with one of these was passed on by a proxy, and may come from anywhere.
_FORWARDING: Final = frozenset(
    (
        *("cdn-loop", "proxy-connection", "via", "x-amzn-trace-id", "x-original-host"),
        *("x-original-url", "x-rewrite-url", "x-varnish"),
    )
)
# So was one with a header that tells who asked the proxy: `X-Real-IP`, `X-Forwarded-For`, …
_FORWARDING_BEGINS: Final = ("cf-", "x-azure-", "x-envoy-")
_FORWARDING_ENDS: Final = ("-ip", "-clientip", "-addr", "-address")


class Guard:
    """Says who may use what is meant for operators.

    Args:
        settings: the token, and whether reads are open on loopback.
        state: whether loopback alone is listened on.

    Attributes:
        wants_token: whether the settings leave the token to be made at start; until it is made,
            nobody bears it.
        files: those that tell the token which was made.
        writing: what writes them, None where nothing does or did.
    """

    def __init__(self, settings: ManagementSettings, state: ProcessState) -> None:
        self._open_reads = settings.open_reads == "loopback"
        self._state = state
        self._token: bytes | None = None
        self.files: list[TokenFile] = []
        self.writing: asyncio.Task[None] | None = None
        self.wants_token = settings.token is None
        if settings.token is not None:
            self.take(settings.token)

    def take(self, token: str) -> None:
        """Makes `token` the one that changes need."""
        self._token = token.encode()
        self.wants_token = False

    def may_read(self, request: web.BaseRequest) -> bool:
        """Whether a request may see the inside."""
        return self.may_change(request) or (
            self._open_reads
            and self._state.loopback_only
            and not any(map(_tells_of_a_proxy, request.headers))
            and _names_this_machine(request)
        )

    def may_change(self, request: web.BaseRequest) -> bool:
        """Whether a request bears the token."""
        given = request.headers.getall(hdrs.AUTHORIZATION, ())
        if self._token is None or len(given) != 1:
            return False  # of two, a proxy before us may have looked at the other
        scheme, _, token = given[0].partition(" ")
        # In constant time: how long a comparison takes must not tell how much of it was right.
        right = hmac.compare_digest(token.strip(" ").encode(errors="surrogateescape"), self._token)
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
    return Problem(404, NOTHING_HERE)


def _tells_of_a_proxy(name: str) -> bool:
    name = name.lower().replace("_", "-")  # what stands behind a proxy may take both for one
    return (
        name in _FORWARDING
        or "forwarded" in name
        or name.startswith(_FORWARDING_BEGINS)
        or name.endswith(_FORWARDING_ENDS)
    )


def _names_this_machine(request: web.BaseRequest) -> bool:
    """Whether what the request is for, in its target and its `Host`, are names of loopback.

    Another name may be a stranger's that was made to point here, for a browser on this machine to
    read with a page's own rights (DNS rebinding). No browser leaves out both.
    """
    named = [*request.headers.getall(hdrs.HOST, ())]
    # A request for `http://name/path` means that name, whatever its `Host` says (RFC 9112, 3.2.2).
    target = request._message.url.host_subcomponent
    if target is not None:
        named.append(target)
    return all(map(_is_loopback, named))


def _is_loopback(authority: str) -> bool:
    try:
        host = URL.build(scheme="http", authority=authority).host or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


GUARD: Final = web.AppKey("guard", Guard)
"""The guard in the root application."""


@leaves_unstored
@web.middleware
async def unstored(request: web.Request, handler: Any) -> web.StreamResponse:
    """Lets no cache keep an answer, nor a refusal."""
    try:
        answer: web.StreamResponse = await handler(request)
    except Problem as problem:
        problem.headers.setdefault(hdrs.CACHE_CONTROL, "no-store")
        raise
    answer.headers[hdrs.CACHE_CONTROL] = "no-store"
    return answer


@leaves_unstored
@web.middleware
async def guarded(request: web.Request, handler: Any) -> web.StreamResponse:
    """Lets operators in, before anything of the request but its head is looked at.

    Raises:
        Problem: 404, who asks may not see this, or may not change it.
    """
    guard = request.config_dict[GUARD]
    if request.method in _READS:
        guard.require_reader(request)
    else:
        guard.require_changer(request)
    return await unstored(request, handler)


async def write_token(app: web.Application, addresses: Iterable[Any]) -> None:
    """Makes the token where the settings have none, and writes its file; readiness waits for it.

    Where it cannot be written, a warning says so, and changes stay closed: nobody could know it.

    Args:
        app: the root application.
        addresses: what is served, each as a socket has it; a file is named by its port.
    """
    guard = app[GUARD]
    ports = {address[1] for address in addresses if isinstance(address, tuple)}
    if guard.wants_token and ports:
        writing = in_thread(_write_files, guard, sorted(ports))
        guard.writing = asyncio.create_task(writing, name="token")
        # A thread cannot be cancelled: who removes the files waits for it.
        await asyncio.shield(guard.writing)


def _write_files(guard: Guard, ports: Iterable[int]) -> None:
    token = secrets.token_urlsafe(32)
    refused = []
    for port in ports:
        try:
            guard.files.append(write_token_file(port, token, process_environment))
        except TokenFileError as error:
            refused.append(str(error))
    if guard.files:
        guard.take(token)
    if refused:
        _log.warning(
            "%s: it has no file (%s); fix: set [management].token, or XDG_RUNTIME_DIR to a folder "
            "of this user's own",
            "The management token is told for some ports alone"
            if guard.files
            else "Nobody learns the management token, and so nothing can be changed",
            "; ".join(refused),
        )


async def remove_token(app: web.Application) -> None:
    """Removes what `write_token` wrote: a receiver of the application's `on_cleanup`."""
    guard = app[GUARD]
    if guard.writing is not None:
        await guard.writing
    while guard.files:
        file = guard.files.pop()
        try:
            await in_thread(file.remove)
        except OSError as error:
            _log.warning("%s cannot be removed: %s; fix: delete it", file.path, error)
