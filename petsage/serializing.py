"""A value as JSON, where it is of its type; where it is not, an error and never a warning.

pydantic's serializer warns of a value that is not of its type, and goes on. Warnings are filtered,
and the filters are the process's: any feature may set them, from any thread. To ask for an error
instead, by `warnings="error"`, takes as long as a small answer: pydantic first tries, by an
exception, whether that word is a boolean.

But before Python looks at any filter, it wants the registry of the module that is warned of, and
raises a `TypeError` where that is no dictionary. So the serializer is called from a module whose
registry is none.
"""

import warnings
from collections.abc import Callable
from types import FunctionType
from typing import Any, Final


def _serialize(serialize: Callable[..., bytes], value: Any, warn: Any) -> bytes:
    return serialize(value, warnings=warn, by_alias=True)


# The same, in a module of its own that nobody else can get at.
_serialize_apart: Final[Callable[..., bytes]] = FunctionType(
    _serialize.__code__, {"__warningregistry__": ()}
)


def _is_refused() -> bool:
    """Whether a warning from there is an error, whatever the filters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            _serialize_apart(lambda *_, **__: warnings.warn("of nothing", stacklevel=2), None, True)
        except TypeError:
            return True
    return False


# Where Python takes any registry, it is asked the dear way.
_WARN: Final = True if _is_refused() else "error"


def to_json(serialize: Callable[..., bytes], value: Any) -> bytes:
    """What the `to_json` of one of pydantic's serializers makes of a value.

    Raises:
        PydanticSerializationError: the value is not of the type.
    """
    try:
        return _serialize_apart(serialize, value, _WARN)
    except Exception:  # noqa: BLE001, S110 - the next line says # nosec B110
        pass
    # Of the value's own serializers, one may have warned of its caller: then nothing is wrong.
    return _serialize(serialize, value, "error")
