"""What people read of a resource: what its fields hold, and commands that try it."""

import json
import shlex
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

from petsage.builder.field_code import answered, may_be_left_out
from petsage.builder.quoting import COLUMNS
from petsage.builder.resource_plan import PlannedField, PlannedResource

_KINDS = {
    "text": "text",
    "integer": "an integer",
    "number": "a number",
    "boolean": "`true` or `false`",
    "date": "a date",
    "datetime": "a date and time, with its zone",
    "uuid": "a UUID",
    "email": "an email address",
    "uri": "a URI",
    "object": "an object",
}
_MOUNT = "/api/v1"


def in_words(names: Iterable[str]) -> str:
    """Names as they stand in a sentence: "owners, pets and visits"."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def kind_of(field: PlannedField) -> str:
    """What a field holds, in a few words; plain text."""
    if field.kind == "array" and field.item is not None:
        what = f"a list, each {kind_of(field.item)}"
    elif field.kind == "enum":
        *others, last = field.schema.enum or [""]
        what = f"{', '.join(others)} or {last}" if others else last
    else:
        what = _KINDS[field.kind].replace("`", "")
    return ", ".join((what, *_limits(field)))


def _limits(field: PlannedField) -> Iterator[str]:
    schema = field.schema
    things = "things" if field.kind == "array" else "letters"
    for words, value in (
        (f"{things} at least", schema.minItems if field.kind == "array" else schema.minLength),
        (f"{things} at most", schema.maxItems if field.kind == "array" else schema.maxLength),
    ):
        if value is not None:
            yield f"{value} {words}"
    for words, limit in (
        ("at least", schema.minimum),
        ("more than", schema.exclusiveMinimum),
        ("at most", schema.maximum),
        ("less than", schema.exclusiveMaximum),
    ):
        if limit is not None:
            yield f"{words} {limit:,}"
    if schema.pattern is not None:
        yield f"like {schema.pattern}"
    if field.is_unique:
        yield "unique"
    if schema.default is not None:
        yield f"{to_json(answered(field, schema.default))} where left out"
    elif may_be_left_out(field):
        yield "may be left out"


def wrapped(text: str) -> str:
    """Words in lines of an ordinary length."""
    return textwrap.fill(
        " ".join(text.split()), COLUMNS, break_long_words=False, break_on_hyphens=False
    )


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON of printable letters."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    if all(line.isprintable() for line in text.split("\n")):
        return text
    return json.dumps(value, indent=indent)


def json_block(value: Any) -> str:
    """JSON in a block of Markdown; no line of it can end the block, each begins with a mark."""
    return f"```json\n{to_json(value, 2)}\n```"


def commands(resource: PlannedResource, address: str) -> dict[str, str]:
    """A command for each operation, by its name, in the order in which they can be tried.

    Args:
        resource: what is tried.
        address: of the server: "http://127.0.0.1:8000".
    """
    url = f"{address}{_MOUNT}{resource.path}"
    example, other = _sent(resource, resource.example), _sent(resource, resource.other_example)
    first = next(iter(other.items()))
    condition = ("-H", "If-Match: *") if resource.require_if_match else ()
    patch = ("-H", "Content-Type: application/merge-patch+json", "-d", to_json(dict([first])))
    every = {
        "create": (url, "--json", to_json(example)),
        "list": (url,),
        "read": (f"{url}/1",),
        "replace": ("-X", "PUT", f"{url}/1", *condition, "--json", to_json(other)),
        "update": ("-X", "PATCH", f"{url}/1", *condition, *patch),
        "delete": ("-X", "DELETE", f"{url}/1", *condition),
    }
    return {
        name: shlex.join(("curl", "-i", *arguments))
        for name, arguments in every.items()
        if name in resource.operations
    }


def _sent(resource: PlannedResource, example: dict[str, Any]) -> dict[str, Any]:
    return {field.name: answered(field, example.get(field.name)) for field in resource.fields}
