"""The guard at the door of what is meant for operators: nobody else learns that it is there."""

from typing import Any

from aiohttp import hdrs, web

from petsage import Problem
from petsage.management import GUARD

_READS = frozenset((hdrs.METH_GET, hdrs.METH_HEAD))


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
    try:
        answer: web.StreamResponse = await handler(request)
    except Problem as problem:
        problem.headers.setdefault(hdrs.CACHE_CONTROL, "no-store")
        raise
    answer.headers[hdrs.CACHE_CONTROL] = "no-store"
    return answer
