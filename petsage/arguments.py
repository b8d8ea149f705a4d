"""From a request to a handler's arguments; what is wrong with its input becomes one 422.

Longer than 300 lines: what is read stands beside what is said where it is wrong.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, get_args

from aiohttp import web
from aiohttp.web_exceptions import HTTPRequestEntityTooLarge
from pydantic import ValidationError
from pydantic_core import ErrorDetails, core_schema, from_json

from petsage.errors import FieldProblem, Problem, invalid_input
from petsage.signature import Parameter, Signature

JSON: Final = "application/json"

# What comes in these may be any bytes; path and query have been decoded by now.
_BYTES: Final = frozenset(("header", "cookie"))

# An answer to wrong input stays short, however large the input was.
_MAX_ERRORS: Final = 50
_MAX_POINTER: Final = 200
# pydantic lists all errors or none; 10,000 take some 10 ms.
_MAX_LISTED: Final = 10_000
# Several of pydantic's errors may be about one place.
_MAX_READ: Final = 4 * _MAX_ERRORS
_MAX_LEAVES: Final = 1_000


async def read_arguments(
    signature: Signature, app_values: Mapping[str, Any], request: web.Request
) -> dict[str, Any]:
    """The arguments of a handler, by name, each validated.

    Longer than 40 lines: in one piece, since every request comes by and a call is not free.

    Args:
        signature: where each comes from.
        app_values: what its `FromApp` arguments are.
        request: what the others come from.

    Raises:
        Problem: 422 with one entry for each wrong field; 400, 413 or 415 for a body that
            cannot be read at all.
    """
    arguments = dict(app_values)
    errors: list[FieldProblem] = []
    if signature.request is not None:
        arguments[signature.request] = request
    for parameter in signature.parameters:
        raw = _raw_value(parameter, request)
        if raw is None:
            if parameter.required:
                errors.append(_missing(parameter.where, parameter.name))
            else:
                arguments[parameter.argument] = parameter.default
            continue
        if parameter.where in _BYTES and not _is_unicode(raw):
            errors.append(_not_unicode(parameter))
            continue
        try:
            arguments[parameter.argument] = parameter.adapter.validate_python(raw)
        except ValidationError as error:
            errors += field_problems(parameter.where, parameter.name, error, raw)
    body = signature.body
    if body is not None:
        data = await _read_json(request, body.marker.media_types) if request.body_exists else b""
        try:
            if data:
                arguments[body.argument] = body.adapter.validate_json(data, strict=True)
            elif body.required:
                errors.append(_missing("body", ""))
        except ValidationError as error:
            errors += _body_problems(error, data)
    if errors:
        raise invalid_input(errors[:_MAX_ERRORS])
    return arguments


def _raw_value(parameter: Parameter, request: web.Request) -> Any:
    """What the request has for a parameter, to be validated; None where it has nothing."""
    if parameter.where == "path":
        return request.match_info[parameter.name]
    if parameter.where == "cookie":
        return request.cookies.get(parameter.name)
    if parameter.list_names is not None:
        return _query_members(parameter.list_names, request, required=parameter.required)
    if parameter.where == "query":
        values = request.query.getall(parameter.name, None)
    else:
        values = request.headers.getall(parameter.name, None)
        if values is not None and parameter.many:
            # Lines of one name are one list, and a comma separates too (RFC 9110, section 5.3).
            pieces = (piece.strip(" \t") for line in values for piece in line.split(","))
            values = [piece for piece in pieces if piece]
    if values is None or parameter.many or len(values) > 1:
        # A name given twice for one value stays a list, and so is refused: never a guess.
        return values
    return values[0]


def _is_unicode(raw: str | list[str]) -> bool:
    """Whether what aiohttp made of bytes is text; what is no UTF-8 it hides in surrogates."""
    try:
        for text in [raw] if isinstance(raw, str) else raw:
            text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _query_members(
    list_names: frozenset[str], request: web.Request, *, required: bool
) -> dict[str, Any] | None:
    """All of the query, as what a query model is validated from."""
    members: dict[str, Any] = {}
    for name in request.query:
        values = request.query.getall(name)
        members[name] = values if name in list_names or len(values) > 1 else values[0]
    return members if members or required else None


class BodyTooSlow(web.RequestPayloadError):
    """A body did not arrive within `[server].body_timeout_s`."""


def unreadable_body(error: BaseException) -> Problem:
    """What the client is told whose body cannot be read, because of `error`.

    Where the body ends cannot be known, nor where another request begins: so it is the last.
    """
    headers = {"Connection": "close"}
    if isinstance(error, BodyTooSlow):
        return Problem(408, "The body did not arrive in time", headers=headers)
    return Problem(400, f"The body cannot be read: {type(error).__name__}", headers=headers)


async def _read_json(request: web.Request, media_types: tuple[str, ...]) -> bytes:
    """The body, whole, where it says that it is JSON: as `media_types`, by any name where none.

    Raises:
        Problem: 415 where it says that it is something else, 413 where it is larger than
            `[server].max_body_bytes`, 408 where it is too slow, 400 where it cannot be read: cut
            short, or not in the encoding that it says.
    """
    kind = request.content_type
    is_right = kind in media_types if media_types else kind == JSON or kind.endswith("+json")
    wanted = media_types or (JSON,)
    # RFC 5789, section 2.2: the kinds of a patch have a header of their own.
    is_patch = request.method == "PATCH" and bool(media_types)
    accept = {"Accept-Patch" if is_patch else "Accept": ", ".join(wanted)}
    if "Content-Type" not in request.headers or not is_right:
        named = " or ".join(f"`{each}`" for each in wanted)
        raise Problem(415, f"The body has to be {named}", headers=accept)
    charset = request.charset
    if charset is not None and charset.lower().replace("-", "") not in {"utf8", "usascii"}:
        raise Problem(
            415,
            "JSON is UTF-8 (RFC 8259), and the `charset` says another encoding",
            headers=accept,
        )
    try:
        data = await request.read()
    except HTTPRequestEntityTooLarge as error:
        raise Problem(413, error.text or "The body is too large") from None
    except (web.RequestPayloadError, ValueError, LookupError) as error:
        raise unreadable_body(error) from None
    if data.find(b"NaN") >= 0 or data.find(b"Infinity") >= 0:  # not `in`, which raises within
        _refuse_constants(data)
    return data


def _refuse_constants(data: bytes) -> None:
    """Refuses `NaN` and `Infinity`, which pydantic takes within a model and JSON does not have."""
    try:
        from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise Problem(400, f"The body is not JSON: {error}") from None


def _body_problems(error: ValidationError, data: bytes) -> list[FieldProblem]:
    """The entries for a body that is not what it has to be.

    Raises:
        Problem: 400, it is no JSON at all.
    """
    try:
        document = from_json(data)
    except ValueError as reason:
        raise Problem(400, f"The body is not JSON: {reason}") from None
    return field_problems("body", "", error, document)


def _missing(where: str, name: str) -> FieldProblem:
    pointer = _pointer([name] if name else [])
    return FieldProblem(where=where, pointer=pointer, detail="Field required", type="missing")


def _not_unicode(parameter: Parameter) -> FieldProblem:
    pointer = _pointer([parameter.name])
    detail = "Input should be UTF-8"
    return FieldProblem(
        where=parameter.where, pointer=pointer, detail=detail, type="string_unicode"
    )


def field_problems(where: str, name: str, error: ValidationError, raw: Any) -> list[FieldProblem]:
    """One entry for each wrong place in `raw`; where several types might do, it says them all.

    Args:
        where: the part of the request that it came in.
        name: its name there, empty where it is all of that part.
        error: what pydantic says of it.
        raw: what was validated.
    """
    prefix = [name] if name else []
    if error.error_count() > _MAX_LISTED:
        detail = f"{error.error_count()} values are wrong, which is too many to list"
        pointer = _pointer(prefix)
        return [FieldProblem(where=where, pointer=pointer, detail=detail, type="too_many_errors")]
    found: dict[str, FieldProblem] = {}
    for each in error.errors(include_url=False)[:_MAX_READ]:
        pointer = _pointer([*prefix, *_place_in(raw, each)])
        detail = _detail(each)
        if pointer in found:
            first = found[pointer]
            if detail not in first.detail:
                detail = f"{first.detail}; or: {detail}"
                found[pointer] = first.model_copy(update={"detail": detail})
        else:
            found[pointer] = FieldProblem(
                where=where, pointer=pointer, detail=detail, type=each["type"]
            )
    return list(found.values())


def _place_in(raw: Any, error: ErrorDetails) -> Iterator[int | str]:
    """The steps from `raw` to what is wrong.

    pydantic's location also names the members of unions, which the input does not have.
    """
    here, steps = raw, error["loc"]
    for number, step in enumerate(steps, 1):
        if isinstance(here, dict) and str(step) in here:
            here = here[str(step)]
        elif isinstance(here, list) and isinstance(step, int) and step < len(here):
            here = here[step]
        elif not (number == len(steps) and error["type"].startswith("missing")):
            continue
        yield step


def _pointer(steps: Sequence[int | str]) -> str:
    """Steps as a JSON Pointer (RFC 6901), cut where a client's own keys make it long."""
    parts = (str(step).replace("~", "~0").replace("/", "~1") for step in steps)
    text = "".join(f"/{part}" for part in parts)
    return text if len(text) <= _MAX_POINTER else text[:_MAX_POINTER] + "…"


# pydantic's own texts that hold a piece of the input, and what is said instead.
_SILENT: Final[Mapping[str, str]] = {
    "bytes_invalid_encoding": "Data should be valid {encoding}",
    "timezone_offset": "Timezone offset of {tz_expected} required",
    "union_tag_invalid": "The tag {discriminator} does not match any of: {expected_tags}",
    "uuid_parsing": "Input should be a valid UUID",
}
_PYDANTICS: Final = frozenset(get_args(core_schema.ErrorType)) - {"value_error", "assertion_error"}


def _detail(error: ErrorDetails) -> str:
    """What is wrong, without the value.

    A text that a developer wrote is told as it is, unless the input stands in it.
    """
    silent = _SILENT.get(error["type"])
    if silent is not None:
        return silent.format_map(error["ctx"])
    if error["type"] not in _PYDANTICS and _holds(error["msg"].casefold(), error["input"]):
        return "The value is not valid"
    return error["msg"]


def _holds(message: str, value: Any) -> bool:
    """Whether a message holds a value, or a part of one, as a word; when in doubt, it does."""
    for number, leaf in enumerate(_leaves(value)):
        word = str(leaf).strip().casefold()
        if number >= _MAX_LEAVES:
            return True
        # The first half is for speed: a pattern has to be compiled.
        if word and word in message and re.search(rf"(?<!\w){re.escape(word)}(?!\w)", message):
            return True
    return False


def _leaves(value: Any) -> Iterator[Any]:
    """The values in a value; the keys of a mapping are places, and no values."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple | set | frozenset):
        yield value
        return
    for member in value:
        yield from _leaves(member)
