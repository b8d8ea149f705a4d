"""Numbers that a client has chosen so that a set, or a dict, of them takes minutes to fill.

Python's hash of a text is another in each process; that of a number is the number itself, modulo
2**61 - 1, and that of a UUID, a decimal, an IPv6 address or a tuple follows from the numbers in it.
Of those that have one hash, each is compared with all that are there before it: 460 kB of
addresses kept a processor busy for 50 seconds. So members are counted by their hash while they come
in, and nobody who means no harm has more than a few of one.
"""

from collections.abc import Hashable, Mapping
from typing import Any, Final

from pydantic import TypeAdapter
from pydantic_core import CoreConfig, PydanticCustomError, SchemaValidator, core_schema

_MAX_ALIKE: Final = 8
"""So many members may have one hash; two have it by Python's own doing, -1 and -2."""

# What has few values, or a hash that nobody can foretell.
_HARMLESS: Final = frozenset(
    (
        *("str", "bytes", "date", "datetime", "time", "url", "multi-host-url"),
        *("bool", "none", "literal", "enum", "float"),
    )
)
# In a schema, what is hashed, by the key that its members' schema has.
_HASHED: Final = {
    "set": "items_schema",
    "frozenset": "items_schema",
    "dict": "keys_schema",
    "counter": "keys_schema",
}

# In a schema, what holds no schema of what comes in.
_OTHER: Final = frozenset(
    ("cls", "config", "default", "expected", "members", "metadata", "ref", "serialization")
)


def guard(adapter: TypeAdapter[Any]) -> None:
    """Has an adapter refuse JSON with too many members of one hash, where that can be at all."""
    validator = made_anew(adapter.core_schema)
    if isinstance(validator, _Guarded):
        adapter.validator = validator  # type: ignore[assignment] # all of it is there


def made_anew(schema: Any) -> Any:
    """A validator of a core schema; where something in it is hashed, it counts its members.

    pydantic makes a model's validator once, and takes it for whoever holds it; this does not.
    """
    seen = _Seen()
    counted = _with(seen, schema)
    validator = SchemaValidator(
        schema if counted is None else counted,
        CoreConfig(allow_inf_nan=False),
        _use_prebuilt=False,
    )
    return validator if counted is None else _Guarded(validator, seen)


class _Seen:
    """The members of all that is hashed in one body, by their hash."""

    def __init__(self) -> None:
        self._first: dict[int, Hashable] = {}
        self._further: dict[int, list[Hashable]] = {}

    def take(self, member: Any) -> Any:
        """The member, as it is.

        Raises:
            PydanticCustomError: too many others have its hash.
        """
        try:
            key = hash(member)
        except TypeError:
            return member  # pydantic says so
        first = self._first.setdefault(key, member)
        if first is member or first == member:
            return member
        further = self._further.setdefault(key, [])
        if member not in further:
            if len(further) + 1 >= _MAX_ALIKE:
                raise PydanticCustomError("too_alike", "Too many members have one hash")
            further.append(member)
        return member

    def forget(self) -> None:
        """Makes it empty."""
        self._first.clear()
        self._further.clear()


class _Guarded:
    """A validator that counts anew for each body; all else is its own."""

    def __init__(self, validator: SchemaValidator, seen: _Seen) -> None:
        self._validator = validator
        self._seen = seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._validator, name)

    def validate_json(self, *args: Any, **kwargs: Any) -> Any:
        """As the validator's."""
        try:
            return self._validator.validate_json(*args, **kwargs)
        finally:
            self._seen.forget()


def children(node: Any) -> list[tuple[Any, Any]]:
    """What a core schema, or a part of one, is made of, by name or number."""
    if isinstance(node, list | tuple):
        return list(enumerate(node))
    if not isinstance(node, Mapping):
        return []
    is_schema = kind_of(node) is not None
    return [(name, each) for name, each in node.items() if not (is_schema and name in _OTHER)]


def kind_of(node: Any) -> str | None:
    """The `type` of a core schema; None of a part that is none.

    A mapping from names to schemas may well have one for `type`.
    """
    kind = node.get("type") if isinstance(node, Mapping) else None
    return kind if isinstance(kind, str) else None


def rebuilt(node: Any, parts: Mapping[Any, Any]) -> Any:
    """The same, of other parts."""
    if isinstance(node, list | tuple):
        return type(node)(parts[number] for number in range(len(node)))
    return {**node, **parts}


def _with(seen: _Seen, node: Any) -> Any:
    """A core schema whose hashed members are counted; None where there is nothing to count."""
    found = {name: _with(seen, each) for name, each in children(node)}
    made = {name: each for name, each in found.items() if each is not None}
    kind = kind_of(node)
    if kind in _HASHED:
        name = _HASHED[kind]
        members = node.get(name) or core_schema.any_schema()
        if members["type"] not in _HARMLESS:
            counted = made.get(name, members)
            made[name] = core_schema.no_info_after_validator_function(seen.take, counted)
    return rebuilt(node, dict(children(node)) | made) if made else None
