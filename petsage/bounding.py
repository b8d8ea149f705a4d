"""Bodies that are wrong in so many ways that to say how would take too long, or all of the memory.

pydantic tells all that is wrong at once, and with each thing what it was found in: 1 MB in which
100 fields lack took 16 seconds and 4.7 GB, and a list of 500,000 numbers where one of 100 models
has to be took more than there is. So a body that may be that wrong is validated up to the first
thing that is wrong in it, and its sender is told no more than that there is one.
"""

from typing import Any, Final, NoReturn

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError, core_schema

from petsage.collisions import children, kind_of, made_anew, rebuilt

MAX_TOLD: Final = 300_000
"""So many errors, or values within them, may be told of; it takes a fifth of a second."""

_MAX_TRIED: Final = 5_000_000
"""So many values may be tried as one member of a union or another; it takes half a second."""

_MAX_COPIED: Final = 64 * 1024**2
"""So many bytes may be copied for errors; and four times as many for what is tried."""

# In these a part may be wrong, and the whole is right.
_TRIALS: Final = frozenset(("union", "function-wrap", "function-plain"))
# What pydantic calls Python for takes ten times as long to be wrong as what it does itself.
_SLOW: Final = frozenset(("function-before", "function-after", "function-wrap", "function-plain"))
_SLOW_WEIGHT: Final = 10
# What stands within itself is told of at each depth.
_RECURSIVE_WEIGHT: Final = 8
_FIELDS: Final = frozenset(("model-fields", "typed-dict", "dataclass-args"))
_FIELD: Final = frozenset(("model-field", "typed-dict-field", "dataclass-field"))
_MANY: Final = frozenset(("list", "set", "frozenset", "tuple"))


class _WrongError(Exception):
    """Something is wrong; no `ValueError`, which pydantic would go on after."""


def _end() -> NoReturn:
    raise _WrongError


class Bounded:
    """A validator of JSON that takes no longer than it may, however wrong it is.

    Attributes:
        free_bytes: a body that is no longer than this may be validated by the adapter itself.
    """

    def __init__(self, adapter: TypeAdapter[Any]) -> None:
        self._adapter = adapter
        schema: Any = adapter.core_schema
        self._weight = _weight(schema)
        self._trials = _trials(schema)
        self._strict: Any = None
        # Each value takes two bytes at the least.
        self.free_bytes = 2 * MAX_TOLD // self._weight

    def validate_json(self, data: bytes, *, strict: bool) -> Any:
        """As the adapter's.

        Raises:
            ValidationError: it is wrong; where more would take too long, it says no more.
        """
        count = data.count(b",") + data.count(b"[") + data.count(b"{")
        size = len(data)
        if count * self._weight <= MAX_TOLD and size * self._weight <= _MAX_COPIED:
            return self._adapter.validate_json(data, strict=strict)
        if count * self._trials > _MAX_TRIED or size * self._trials > 4 * _MAX_COPIED:
            raise _told("The body has too many values for the many kinds that each may be of")
        if self._strict is None:
            schema = _ending(self._adapter.core_schema)
            self._strict = made_anew(schema)
        try:
            return self._strict.validate_json(data, strict=strict)
        except _WrongError:
            raise _told("Something in the body is wrong, and it is too large to say what") from None


def _told(text: str) -> ValidationError:
    wrong = PydanticCustomError("too_many_errors", text)
    return ValidationError.from_exception_data("body", [{"type": wrong, "loc": (), "input": None}])


def _weight(schema: Any) -> int:
    """In how many ways one value may be wrong, at the most, each about the value and all in it."""
    kind = kind_of(schema)
    if kind == "union":
        return sum(map(_weight, schema["choices"]))
    most = max((_weight(each) for _, each in children(schema)), default=1)
    if kind == "definitions":
        return most * _RECURSIVE_WEIGHT
    if kind in _FIELDS:
        return max(most, 1 + len(schema["fields"]))
    if kind in _SLOW:
        return max(most, _SLOW_WEIGHT)
    if kind == "tuple":
        return max(most, 1 + len(schema["items_schema"]))
    return most


def _trials(schema: Any) -> int:
    """The weight of the heaviest part that may be wrong where the whole is right."""
    if kind_of(schema) in _TRIALS:
        return _weight(schema)
    return max((_trials(each) for _, each in children(schema)), default=0)


def _has_reference(schema: Any, *, is_trial: bool = False) -> bool:
    """Whether a part that may be wrong has what is defined elsewhere, too."""
    kind = kind_of(schema)
    is_trial = is_trial or _is_trial(schema)
    if kind == "definition-ref":
        return is_trial
    return any(_has_reference(each, is_trial=is_trial) for _, each in children(schema))


def _is_trial(schema: Any) -> bool:
    kind = kind_of(schema)
    return kind in _TRIALS or (kind is not None and schema.get("on_error", "raise") != "raise")


def _ending(schema: Any) -> Any:
    """A core schema that ends at the first thing that is wrong."""
    return _ended(_with_ends(schema, may_end=True, in_definitions=not _has_reference(schema)))


def _with_ends(node: Any, *, may_end: bool, in_definitions: bool) -> Any:
    """A part of it; it ends by itself only where no other part might do in its place."""
    kind = kind_of(node)
    may_end = may_end and not _is_trial(node)
    parts = {}
    for name, each in children(node):
        may_part = may_end and (in_definitions or (kind, name) != ("definitions", "definitions"))
        parts[name] = _with_ends(each, may_end=may_part, in_definitions=in_definitions)
    if not parts:
        return node
    made = rebuilt(node, parts)
    if kind in _MANY:
        made["fail_fast"] = True
    if not may_end:
        return made
    if kind in {"list", "set", "frozenset", "dict", "counter"}:
        for name in ("items_schema", "keys_schema", "values_schema"):
            if name in made:
                made[name] = _ended(made[name])
    elif kind in _FIELD and made["schema"]["type"] != "default" and node.get("required", True):
        # What lacks is told with all that is beside it: it must not come to that.
        made["schema"] = core_schema.with_default_schema(made["schema"], default_factory=_end)
        if kind == "typed-dict-field":
            made["required"] = False
    return made


def _ended(schema: Any) -> Any:
    return core_schema.with_default_schema(schema, default_factory=_end, on_error="default")
