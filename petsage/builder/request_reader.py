"""A request from a file, standard input or flags; whatever they are, else a `BuildError`."""

import json
import os
import re
import stat
import sys
import tomllib
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from pydantic import ValidationError

from petsage.builder.request import FeatureRequest
from petsage.builder.request_faults import Asked, decode_error, named, refuse, shown
from petsage.builder.short_form import fields_of

MAX_BYTES: Final = 1_000_000
STANDARD_INPUT: Final = "-"

# A key of TOML, `a.b.c`. The parser's time goes by the square of the number of its parts.
_KEY: Final = re.compile(
    r"""(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')(?:[ \t]*+\.[ \t]*+(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+'))*+"""
)
_MAX_PARTS: Final = 600
_MAX_SAID: Final = 120
_MAX_PATH: Final = 300
_WHERE: Final = re.compile(r" \(at (?:line \d+, column \d+|end of document)\)$")


def is_document(source: str) -> bool:
    """Whether a source is a document, and no feature's name."""
    return source == STANDARD_INPUT or source.lower().endswith((".toml", ".json"))


def read_request(source: str | None, flags: Mapping[str, Any]) -> FeatureRequest:
    """The request that is asked for.

    Args:
        source: `-` for standard input, a path that ends in `.toml` or `.json`, or the name of
            the feature; None where flags say all.
        flags: fields of the request; they go over what the source says.

    TOML and JSON have the request at their top, or under `request`, beside other tables. Standard
    input is JSON where it begins with a brace.

    Of flags, `fields` are in their short form, and with `item` they are those of one resource
    named after the feature, which go with no requirements of a document.

    Raises:
        BuildError: there is none, it is no request, or nobody can build it; stage `decode`.
    """
    flags = _with_requirements(flags)
    if source is None:
        asked = Asked("the command line", {**flags}, frozenset(flags))
    elif source == STANDARD_INPUT:
        data = _read_input()
        asked = _decoded("standard input", data, _is_json(data), flags)
    elif source.lower().endswith((".toml", ".json")):
        data = _read_file(source)
        asked = _decoded(named(source, _MAX_PATH), data, source.lower().endswith(".json"), flags)
    else:
        asked = Asked("the command line", {"feature": source, **flags}, frozenset(flags))
    try:
        request = FeatureRequest.model_validate(asked.values)
    except ValidationError as error:
        refuse(asked, error.errors(include_url=False))
    return request


def _with_requirements(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Flags, of which those of a resource are made one."""
    others = {key: value for key, value in flags.items() if key not in {"fields", "item"}}
    if "fields" not in flags:
        return others
    asked = Asked("the command line", {}, frozenset({"requirements"}))
    resource = {"kind": "resource", "fields": fields_of(flags["fields"], asked)}
    if "item" in flags:
        resource["item"] = flags["item"]
    return {**others, "requirements": [resource]}


def _read_input() -> bytes:
    """What stands on standard input, up to a byte more than a request may have."""
    try:
        return sys.stdin.buffer.read(MAX_BYTES + 1)
    except OSError as error:
        raise decode_error(
            f"standard input cannot be read: {error.strerror}", "pipe the request into it"
        ) from None


def _read_file(path: str) -> bytes:
    """What a file holds, up to a byte more than a request may have; a pipe is not waited for."""
    place = named(path, _MAX_PATH)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        try:
            mode = os.fstat(descriptor).st_mode
            if stat.S_ISDIR(mode):
                raise decode_error(f"{place} is a folder", "name the file of a request in it")
            if not stat.S_ISREG(mode):
                raise decode_error(
                    f"{place} is no ordinary file",
                    "pipe what is none into standard input: `petsage build -`",
                )
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return file.read(MAX_BYTES + 1)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise decode_error(
            f"{place} is not there", "name a file that is, `-` for standard input, or a feature"
        ) from None
    except (OSError, ValueError) as error:  # a ValueError is a NUL in the path
        reason = getattr(error, "strerror", None) or "it is no path"
        raise decode_error(
            f"{place} cannot be read: {reason}", "name a file that you may read"
        ) from None


def _is_json(data: bytes) -> bool:
    return data.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{"


def _decoded(place: str, data: bytes, is_json: bool, flags: Mapping[str, Any]) -> Asked:
    """What a document says, flags over it."""
    if len(data) > MAX_BYTES:
        raise decode_error(
            f"{place} is larger than {MAX_BYTES // 1000:,} kB", "leave out what is no request"
        )
    try:
        text = data.decode("utf-8-sig")  # some editors begin a file with U+FEFF
    except UnicodeDecodeError as error:
        raise decode_error(
            f"{place} is not UTF-8: {error.reason} at byte {error.start}", "save it as UTF-8"
        ) from None
    if not text.strip():
        raise decode_error(
            f"{place} is empty", "`petsage build --schema` says what may stand there"
        )
    language = "JSON" if is_json else "TOML"
    try:
        values = _parse_json(place, text) if is_json else _parse_toml(place, text)
    except (tomllib.TOMLDecodeError, json.JSONDecodeError) as error:
        raise decode_error(
            f"{place} is not {language}: {_reason(error)}", "mend that line"
        ) from None
    except RecursionError:
        raise decode_error(
            f"{place} is nested too deeply", "a request needs a few levels; leave out the rest"
        ) from None
    except ValueError:  # Python turns no text of more than 4300 digits into a number
        raise decode_error(f"{place} has a number of thousands of digits", "leave it out") from None
    if not isinstance(values, dict):
        raise decode_error(f"{place} is {shown(values)} and no object", "begin it with a brace")
    request = _request_in(place, values)
    if "requirements" in flags and request.get("requirements", "none") != "none":
        raise decode_error(
            f"{place} has `requirements` of its own, and --field makes others",
            "write the fields into it, or leave out --field",
        )
    return Asked(place, {**request, **flags}, frozenset(flags))


def _parse_json(place: str, text: str) -> Any:
    def refuse_constant(name: str) -> NoReturn:
        raise decode_error(f"{place} is not JSON: it has {name}", "write a number, or leave it out")

    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, value in pairs:
            if key in values:
                raise decode_error(
                    f"{place}: an object has the key {shown(key)} twice", "leave one of them out"
                )
            values[key] = value
        return values

    return json.loads(text, parse_constant=refuse_constant, object_pairs_hook=distinct)


def _parse_toml(place: str, text: str) -> dict[str, Any]:
    if text.count(".") > _MAX_PARTS and any(
        key[0].count(".") > _MAX_PARTS for key in _KEY.finditer(text)
    ):
        raise decode_error(f"{place} has a key of more than {_MAX_PARTS} parts", "leave it out")
    return tomllib.loads(text)


def _reason(error: ValueError) -> str:
    """What a parser says; TOML's quotes keys in full."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} (at line {error.lineno}, column {error.colno})"
    said = str(error)
    where = _WHERE.search(said)
    return _begin_of(said[: where.start()] if where else said) + (where[0] if where else "")


def _request_in(place: str, values: dict[str, Any]) -> dict[str, Any]:
    """The request in a document: its `request`, with nothing but other tables beside it; or it."""
    if "request" not in values:
        return values
    request = values["request"]
    if not isinstance(request, dict):
        raise decode_error(
            f"{place}: `request` is {shown(request)} and no table", "write [request]"
        )
    for key, value in values.items():
        if not isinstance(value, dict):
            raise decode_error(
                f"{place}: {shown(key)} stands outside of [request]", "move it into that"
            )
    return request


def _begin_of(text: str) -> str:
    return text if len(text) <= _MAX_SAID else f"{text[:_MAX_SAID]}…"
