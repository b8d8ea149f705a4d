"""From a request to a handler's arguments; what is wrong with its input becomes one 422."""

import re
import sys
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

from aiohttp import web
from aiohttp.web_exceptions import HTTPRequestEntityTooLarge
from pydantic import ValidationError
from pydantic_core import from_json

from petsage.binding import Came, bind
from petsage.errors import FieldProblem, Problem, invalid_input
from petsage.refusals import BEYOND, beyond, field_problems, infinite, missing, untold
from petsage.signature import BodyParameter, Signature
from petsage.texts import misread

JSON: Final = "application/json"

# Where a number may be beyond what a double has: an exponent of three digits, or many digits. Once
# all digits are one, plain bytes tell: an expression would take ten times as long. What no number
# has in it is left out, but for the letters of hexadecimal ids, which would look like one.
_ALIKE: Final = bytes.maketrans(b"123456789E", b"000000000e")
_OF_NO_NUMBER: Final = b"+ ghijklmnopqrstuvwxyzGHIJKLMNOPQRSTUVWXYZ"
_EXPONENT: Final = b"0e000"
_DIGITS: Final = b"0" * 200

# A text of nothing but these may be a number, and where they are left out nothing of it is left but
# its sign; of a day or a moment more is. An expression would take ten times as long.
_OF_NUMBERS: Final = b"0123456789.+eE"
_EMPTIED: Final = (b'""', b'"-"')
_ESCAPED: Final = re.compile(rb"\\u00[0-7]")

# A string, or a number that is not spelt as an integer.
_NUMBER: Final = re.compile(
    rb'"(?:[^"\\]|\\.)*"|((?<![0-9])-?[0-9]+(?:[.][0-9]+(?:[eE][+-]?[0-9]+)?|[eE][+-]?[0-9]+))',
    re.DOTALL,
)
_MAX_SPELT: Final = 40


async def read_arguments(
    signature: Signature, app_values: Mapping[str, Any], request: web.Request
) -> dict[str, Any]:
    """The arguments of a handler, by name, each validated.

    Args:
        signature: where each comes from.
        app_values: what its `FromApp` arguments are.
        request: what the others come from.

    Raises:
        Problem: 422 with one entry for each wrong field; 400, 413 or 415 for a body that
            cannot be read at all.
    """
    errors: list[FieldProblem] = []
    came = Came(request.match_info, request.rel_url, request.headers)
    arguments, more = bind(signature, app_values, came, errors)
    if signature.request is not None:
        arguments[signature.request] = request
    body = signature.body
    if body is not None:
        data = await _read_json(request, body.marker.media_types) if request.body_exists else b""
        more += _take_body(body, data, arguments, errors)
    if errors:
        raise invalid_input(errors, more)
    return arguments


def arguments_of(
    signature: Signature, app_values: Mapping[str, Any], came: Came, data: bytes
) -> dict[str, Any]:
    """As `read_arguments`, of a handler that does not take the request.

    Args:
        signature: where each comes from.
        app_values: what its `FromApp` arguments are.
        came: what the others come from.
        data: the body, which says that it is JSON; empty where none came.

    Raises:
        Problem: 422 with one entry for each wrong field; 400 for a body that is no JSON.
    """
    errors: list[FieldProblem] = []
    arguments, more = bind(signature, app_values, came, errors)
    if signature.body is not None:
        _require_json(data)
        more += _take_body(signature.body, data, arguments, errors)
    if errors:
        raise invalid_input(errors, more)
    return arguments


def _take_body(
    body: BodyParameter, data: bytes, arguments: dict[str, Any], errors: list[FieldProblem]
) -> int:
    """Adds a body to the arguments, or what is wrong with it to the errors; how many are left."""
    try:
        if data:
            bounded = body.bounded
            validator = body.adapter.validator if len(data) <= bounded.free_bytes else bounded
            arguments[body.argument] = value = _validated(validator.validate_json, data)
            if body.has_moments and _may_quote_a_number(data):
                errors += misread("body", "", from_json(data), value)
        elif body.required:
            errors.append(missing("body", ""))
    except ValidationError as error:
        errors += _body_problems(error, data)
        return untold(error)
    except BEYOND:
        errors.append(beyond("body", ""))
    return 0


def _may_quote_a_number(data: bytes) -> bool:
    """Whether a text in a body of JSON may be a number."""
    left = data.translate(None, _OF_NUMBERS)
    for emptied in _EMPTIED:
        if left.find(emptied) >= 0 and left.count(emptied) > data.count(emptied):
            return True
    # Its digits may be spelt in a longer way.
    return data.find(b"\\") >= 0 and _ESCAPED.search(data) is not None


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
    _require_json(data)
    return data


def _require_json(data: bytes) -> None:
    """Refuses what pydantic takes within a model and JSON does not have, or no double.

    Raises:
        Problem: 400 for `NaN`, `Infinity` and what is no JSON; 422 for a number that is too large.
    """
    # By their first letters, since to look for one byte takes a fourth. Not by `in`, which raises
    # within.
    if (data.find(b"N") >= 0 and data.find(b"NaN") >= 0) or (
        data.find(b"I") >= 0 and data.find(b"Infinity") >= 0
    ):
        try:
            from_json(data, allow_inf_nan=False)
        except ValueError as error:
            raise Problem(400, f"The body is not JSON: {error}") from None
    alike = data.translate(_ALIKE, _OF_NO_NUMBER)
    if alike.find(_EXPONENT) >= 0 or alike.find(_DIGITS) >= 0:
        _refuse_huge(data)


def _refuse_huge(data: bytes) -> None:
    """Refuses numbers that a double has not: a `float` would be infinite, and `null` when sent."""
    try:
        left: list[tuple[Any, tuple[int | str, ...]]] = [(from_json(data), ())]
    except ValueError as error:
        raise Problem(400, f"The body is not JSON: {error}") from None
    while left:
        value, place = left.pop()
        if isinstance(value, dict):
            left += [(each, (*place, name)) for name, each in value.items()]
        elif isinstance(value, list):
            left += [(each, (*place, number)) for number, each in enumerate(value)]
        elif isinstance(value, int | float) and not abs(value) <= sys.float_info.max:
            raise invalid_input([infinite("body", place)])


def _validated(validate: Callable[..., Any], data: bytes) -> Any:
    """What a body is, by its type.

    `7.0` and `1e2` are integers to JSON Schema, and so to who goes by the API's document; to
    pydantic they are none, which is found out where it is too late: so it is asked again.

    Raises:
        ValidationError: it is not what its type says.
    """
    try:
        return validate(data, strict=True)
    except ValidationError as error:
        if (
            error.error_count() == 1
            and error.errors(include_url=False)[0]["type"] == "json_invalid"
        ):
            raise  # in what is no JSON, strings without an end would be looked for again and again
        whole = _NUMBER.sub(_as_integer, data)
        if whole == data:
            raise
    return validate(whole, strict=True)


def _as_integer(token: re.Match[bytes]) -> bytes:
    """A number as an integer where it is one, however it is spelt; anything else as it is."""
    text = token[0]
    if token[1] is None or len(text) > _MAX_SPELT:
        return text
    number = Decimal(text.decode())
    if number.adjusted() > _MAX_SPELT or number != number.to_integral_value():
        return text
    return str(int(number)).encode()


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
