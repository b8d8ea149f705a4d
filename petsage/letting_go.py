"""A running server lets go of a feature whose folder is gone."""

import time
from typing import Final

from pydantic import BaseModel, TypeAdapter

from petsage.builder.events import BuildError
from petsage.running_server import NoServerError, ServerRefusedError, Wanted, find_server
from petsage.settings import Settings

_WAIT_S: Final = 10.0
"""So long may a server take for it: what is in hand is answered first."""

_LOOK_S: Final = 0.1


class _Served(BaseModel):
    name: str


_LIST: Final = Wanted[list[_Served]](
    TypeAdapter(list[_Served]), called="features", fix="stop it, and run it again"
)


def require_unserved(settings: Settings, name: str) -> None:
    """Returns once no server where the settings say serves a feature any more.

    Raises:
        BuildError: one goes on serving it, or does not say.
    """
    server = find_server(settings, None)
    until = time.monotonic() + _WAIT_S
    while True:
        try:
            served = server.ask("GET", "/features", wanted=_LIST)
        except NoServerError:
            return
        except ServerRefusedError as error:
            raise BuildError(
                f"{error.problem}, so that it may serve {name}", fix=error.fix, stage="undo"
            ) from None
        if not any(each.name == name for each in served):
            return
        if time.monotonic() > until:
            raise BuildError(
                f"{server.url} still serves {name}, {_WAIT_S:g} s after its folder was gone",
                fix="stop that server, and run it again",
                stage="undo",
            )
        time.sleep(_LOOK_S)
