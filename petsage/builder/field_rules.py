"""What is wrong with the fields of a resource: words that do not go together, and values.

It is long because each rule says in its own words what is wrong, and what to do.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from petsage.builder.examples import candidates, key_of
from petsage.builder.faults import Fault, Within
from petsage.builder.field_names import field_name_fault
from petsage.builder.fields import HIGHEST, LOWEST, MAX_KEY, FieldSchema, Kind
from petsage.builder.patterns import flaw_of
from petsage.builder.values import look_at

MAX_FIELDS: Final = 100
MAX_DEPTH: Final = 4
_MAX_ENUM: Final = 100
_MAX_ENUM_VALUE: Final = 200
_MAX_EXAMPLES: Final = 10
_MAX_MIN_LENGTH: Final = 1000
_MAX_IN_EXAMPLE: Final = 1000
_MIN_URI: Final = 50

# What goes with each kind alone, by the keyword; all else goes with every kind.
_KINDS: Final[Mapping[str, frozenset[Kind]]] = {
    "pattern": frozenset({"text"}),
    "minLength": frozenset({"text"}),
    "maxLength": frozenset({"text", "uri"}),
    "minimum": frozenset({"integer", "number"}),
    "maximum": frozenset({"integer", "number"}),
    "exclusiveMinimum": frozenset({"integer", "number"}),
    "exclusiveMaximum": frozenset({"integer", "number"}),
    "items": frozenset({"array"}),
    "minItems": frozenset({"array"}),
    "maxItems": frozenset({"array"}),
    "properties": frozenset({"object"}),
}
_SCALARS: Final[frozenset[Kind]] = frozenset({"text", "enum", "integer", "number", "boolean"})
_CALLED: Final[Mapping[Kind, str]] = {
    "text": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "a boolean",
    "enum": "an enum",
    "date": "a date",
    "datetime": "a date-time",
    "uuid": "a uuid",
    "email": "an email",
    "uri": "a uri",
    "object": "an object",
    "array": "an array",
}


def faults_of_fields(fields: Mapping[str, FieldSchema], within: Within) -> list[Fault]:
    """All that is wrong with the fields of a resource.

    Args:
        fields: as they were asked for, by name.
        within: where they stand.
    """
    faults = list(_faults_of_names(fields, within, is_inner=False))
    count = sum(map(_count, fields.values()))
    if count > MAX_FIELDS:
        problem = f"it has {count} fields, and may have {MAX_FIELDS}, those within others included"
        faults.append(Fault(within, problem, "leave some out", is_value_shown=False))
    for name, schema in fields.items():
        faults += _faults_of(name, schema, (*within, name), depth=1)
    return faults


def _count(schema: FieldSchema) -> int:
    inner = [*(schema.properties or {}).values(), *filter(None, [schema.items])]
    return (0 if schema.type == "array" else 1) + sum(map(_count, inner))


def _faults_of_names(fields: Iterable[str], within: Within, *, is_inner: bool) -> Iterator[Fault]:
    for name in fields:
        fault = field_name_fault(name, (*within, name), is_inner=is_inner)
        if fault is not None:
            yield fault


def _faults_of(name: str, schema: FieldSchema, within: Within, *, depth: int) -> list[Fault]:
    """All that is wrong with a field and what is in it; of its values, where all else is right."""
    if depth > MAX_DEPTH:
        problem = f"it is nested {depth} deep, and may be {MAX_DEPTH}"
        fix = "make what is inside a resource of its own"
        return [Fault(within, problem, fix, is_value_shown=False)]
    faults = [*_faults_of_words(schema, within), *_faults_of_bounds(schema, within)]
    if schema.pattern is not None and (flaw := flaw_of(schema.pattern)) is not None:
        fix = "say it in what JavaScript and Rust's `regex` share"
        faults.append(Fault((*within, "pattern"), flaw, fix, schema.pattern))
    if depth > 1:
        faults += _faults_of_inner(schema, within)
    if schema.items is not None:
        place = (*within, "items")
        faults += _faults_of_items(schema.items, place)
        faults += _faults_of(name, schema.items, place, depth=depth + 1)
    place = (*within, "properties")
    faults += _faults_of_names(schema.properties or (), place, is_inner=True)
    for inner, each in (schema.properties or {}).items():
        faults += _faults_of(inner, each, (*place, inner), depth=depth + 1)
    return faults or list(_faults_of_values(name, schema.resolved(), within))


def _faults_of_words(schema: FieldSchema, within: Within) -> Iterator[Fault]:
    """Words that do not go with what the field is, or that it needs."""
    kind = schema.kind
    if schema.type != "string":
        for key in ("enum", "format"):
            if getattr(schema, key) is not None:
                problem = f"it goes with a string, and this is {_CALLED[_plain(schema)]}"
                yield _fault(schema, within, key, problem, 'leave it out, or set `type = "string"`')
        if schema.enum is not None or schema.format is not None:
            return
    if schema.enum is not None and schema.format is not None:
        yield _fault(
            schema, within, "format", "it does not go with `enum`", "leave one of them out"
        )
    for key, kinds in _KINDS.items():
        if getattr(schema, key) is not None and kind not in kinds:
            problem = f"it does not go with {_CALLED[kind]}"
            goes = " or ".join(_CALLED[each] for each in sorted(kinds))
            yield _fault(schema, within, key, problem, f"leave it out; it goes with {goes}")
    if kind == "array" and schema.items is None:
        fix = 'add `items`: what it holds, `{type = "string"}` for example'
        yield Fault(within, "an array without `items`", fix, is_value_shown=False)
    if kind == "object" and not schema.properties:
        fix = "add `properties`: what it holds, by name"
        yield Fault(within, "an object without `properties`", fix, is_value_shown=False)
    if schema.enum is not None:
        yield from _faults_of_enum(schema.enum, (*within, "enum"))
    yield from _faults_of_keys(schema, within)


def _plain(schema: FieldSchema) -> Kind:
    return schema.model_copy(update={"enum": None, "format": None}).kind


def _faults_of_enum(values: list[str], within: Within) -> Iterator[Fault]:
    if not 1 <= len(values) <= _MAX_ENUM:
        problem = f"it has {len(values)} values, and may have 1 to {_MAX_ENUM}"
        yield Fault(within, problem, "name each value that there may be", is_value_shown=False)
        return
    for number, value in enumerate(values):
        place = (*within, number)
        if value in values[:number]:
            yield Fault(place, "it is there twice", "leave one of them out", value)
        if not value.strip() or not value.isprintable():
            yield Fault(
                place, "it has to be printable characters on one line", "write another word", value
            )
        elif len(value) > _MAX_ENUM_VALUE:
            problem = f"it has {len(value):,} characters, and may have {_MAX_ENUM_VALUE} at most"
            yield Fault(place, problem, "write a shorter word", value)


def _faults_of_keys(schema: FieldSchema, within: Within) -> Iterator[Fault]:
    """What cannot be unique or indexed."""
    kind = schema.kind
    for key in ("unique", "index"):
        if not getattr(schema, key):
            continue
        if kind in {"object", "array"}:
            fix = "make what is inside a resource of its own, or leave it out"
            yield _fault(schema, within, key, f"{_CALLED[kind]} cannot be", fix)
        elif kind in {"text", "uri"} and (schema.maxLength or 0) > MAX_KEY:
            problem = f"a `maxLength` above {MAX_KEY} is more than an index of PostgreSQL holds"
            yield _fault(schema, within, key, problem, f"set `maxLength` to {MAX_KEY} or less")
    if schema.unique and kind in {"boolean", "enum"}:
        problem = f"{_CALLED[kind]} has few values, and no two could have the same"
        yield _fault(schema, within, "unique", problem, "leave it out")
    if schema.unique and schema.default is not None:
        problem = "a default is the same for all who leave it out"
        yield _fault(schema, within, "unique", problem, "leave out `default`, or this")


def _faults_of_bounds(schema: FieldSchema, within: Within) -> Iterator[Fault]:
    for low, high in (("minLength", "maxLength"), ("minItems", "maxItems")):
        least, most = getattr(schema, low), getattr(schema, high)
        if least is not None and most is not None and least > most:
            yield _crossed(schema, within, low, f"it is above `{high}`, which is {most}")
    if schema.minLength is not None and schema.minLength > _MAX_MIN_LENGTH:
        problem = f"it may be {_MAX_MIN_LENGTH:,} at most"
        yield _fault(schema, within, "minLength", problem, "say less")
    if schema.kind == "uri" and schema.maxLength is not None and schema.maxLength < _MIN_URI:
        yield _fault(schema, within, "maxLength", f"a uri needs {_MIN_URI} at least", "say more")
    if schema.kind in {"integer", "number"}:
        yield from _faults_of_numbers(schema, within)


def _faults_of_numbers(schema: FieldSchema, within: Within) -> Iterator[Fault]:
    keys = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
    given = {key: getattr(schema, key) for key in keys if getattr(schema, key) is not None}
    for low, high in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if {low, high} <= given.keys():
            yield _fault(schema, within, high, f"`{low}` is there, too", "leave one of them out")
    if schema.kind == "integer":
        for key, value in given.items():
            if not isinstance(value, int):
                yield _fault(
                    schema, within, key, "of an integer it is one, too", "leave out the dot"
                )
            elif not LOWEST <= value <= HIGHEST:
                yield _fault(schema, within, key, "an integer has 64 bits", "leave it out")
    least = given.get("minimum", given.get("exclusiveMinimum"))
    most = given.get("maximum", given.get("exclusiveMaximum"))
    if least is not None and most is not None and least > most:
        low = "minimum" if "minimum" in given else "exclusiveMinimum"
        yield _crossed(schema, within, low, f"it is above what the other bound is, {most}")


def _faults_of_inner(schema: FieldSchema, within: Within) -> Iterator[Fault]:
    for key in ("unique", "index"):
        if getattr(schema, key):
            problem = "what is within another field has no column of its own"
            yield _fault(schema, within, key, problem, "leave it out, or move the field out")


def _faults_of_items(items: FieldSchema, within: Within) -> Iterator[Fault]:
    if items.optional:
        problem = "an array holds what it holds, and no null"
        yield _fault(items, within, "optional", problem, "leave it out")
    if items.default is not None:
        problem = "nothing is left out of an array"
        yield _fault(items, within, "default", problem, "leave it out")


def _faults_of_values(name: str, schema: FieldSchema, within: Within) -> Iterator[Fault]:
    """What is wrong with the values that a field names, or those that it needs and has not."""
    if schema.default is not None:
        yield from _faults_of_default(schema, within)
    elif "default" in schema.model_fields_set and not schema.optional:
        fix = "leave it out, or set `optional = true`"
        yield _fault(schema, within, "default", "it cannot be null", fix)
    examples = schema.examples or []
    if len(examples) > _MAX_EXAMPLES or schema.examples == []:
        problem = f"it has {len(examples)} values, and may have 1 to {_MAX_EXAMPLES}"
        yield _fault(schema, within, "examples", problem, "name a few")
        return
    flaw_of = look_at(schema)
    flawed = False
    for number, value in enumerate(examples):
        flaw = flaw_of(value)
        if flaw is not None:
            flawed = True
            place = (*within, "examples", number)
            yield Fault(place, flaw, "name a value that the field may have", value)
    if not flawed:
        yield from _faults_of_examples(name, schema, within)


def _faults_of_default(schema: FieldSchema, within: Within) -> Iterator[Fault]:
    flaw = look_at(schema)(schema.default)
    if flaw is not None:
        yield _fault(schema, within, "default", flaw, "name a value that the field may have")
    elif schema.kind == "object":
        fix = "give its properties theirs, or leave it out"
        yield _fault(schema, within, "default", "an object has none", fix)
    elif (
        schema.kind == "array"
        and schema.default
        and schema.items is not None
        and schema.items.kind not in _SCALARS
    ):
        problem = f"of an array of {schema.items.kind}s it can only be empty"
        yield _fault(schema, within, "default", problem, "write [], or leave it out")


def _faults_of_examples(name: str, schema: FieldSchema, within: Within) -> Iterator[Fault]:
    """Whether there are examples, as many as it takes."""
    size = _size(schema)
    if size > _MAX_IN_EXAMPLE:
        problem = f"its smallest value holds {size:,} others, and may hold {_MAX_IN_EXAMPLE:,}"
        yield Fault(within, problem, "say less `minItems`", is_value_shown=False)
        return
    flaw_of = look_at(schema)
    right = (value for value in candidates(name, schema) if flaw_of(value) is None)
    needed = 2 if schema.unique else 1
    if len({key_of(schema, value) for value in right}) >= needed:
        return
    if schema.pattern is not None:
        many = "two examples" if schema.unique else "an example"
        fix = f"add {many} to `examples` that match it"
        problem = f"a field with a `pattern` needs {many}"
        yield Fault(within, problem, fix, is_value_shown=False)
    elif schema.unique:
        fix = "widen its bounds, or leave out `unique`"
        problem = "it is unique, and there are no two values for it"
        yield Fault(within, problem, fix, is_value_shown=False)
    else:
        problem = "nothing lies within its bounds"
        yield Fault(within, problem, "widen them", is_value_shown=False)


def _size(schema: FieldSchema) -> int:
    """How many values the smallest one holds."""
    if schema.items is not None:
        return 1 + (schema.minItems or 0) * _size(schema.items)
    return 1 + sum(map(_size, (schema.properties or {}).values()))


def _fault(schema: FieldSchema, within: Within, key: str, problem: str, fix: str) -> Fault:
    return Fault((*within, key), problem, fix, getattr(schema, key))


def _crossed(schema: FieldSchema, within: Within, key: str, problem: str) -> Fault:
    return _fault(schema, within, key, problem, "swap them, or leave one out")
