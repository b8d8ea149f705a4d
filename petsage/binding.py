"""What a request says besides its body, as a handler's arguments."""

from collections.abc import Mapping
from typing import Any, Final

from aiohttp import hdrs
from aiohttp._cookie_helpers import parse_cookie_header
from multidict import MultiMapping, istr
from pydantic import ValidationError
from yarl import URL

from petsage.errors import FieldProblem
from petsage.refusals import BEYOND, beyond, field_problems, missing, not_unicode, untold
from petsage.signature import Parameter, Signature
from petsage.texts import AS_IT_SAYS, is_text, misread

_COOKIE: Final = istr(hdrs.COOKIE)


class Came:
    """What came of a request besides its body: all that arguments are taken from.

    Whoever answers a request makes one, and nothing about arguments is decided anywhere else.

    Args:
        values: those of the path's names, by name, decoded.
        url: has the query.
        headers: have the cookies, too.
    """

    __slots__ = ("_cookies", "headers", "url", "values")

    def __init__(self, values: Mapping[str, str], url: URL, headers: MultiMapping[str]) -> None:
        self.values = values
        self.url = url
        self.headers = headers
        self._cookies: dict[str, str] | None = None

    @property
    def cookies(self) -> Mapping[str, str]:
        """As `web.Request.cookies`: of several with a name, the last."""
        if self._cookies is None:
            parsed = parse_cookie_header(self.headers.get(_COOKIE, ""))
            self._cookies = {name: each.value for name, each in parsed}
        return self._cookies


def bind(
    signature: Signature, app_values: Mapping[str, Any], came: Came, errors: list[FieldProblem]
) -> tuple[dict[str, Any], int]:
    """The arguments that are no body, each validated; adds what is wrong to `errors`.

    Args:
        signature: where each comes from.
        app_values: what its `FromApp` arguments are.
        came: what the others come from.
        errors: one entry for each wrong field.

    Returns:
        The arguments, and how many errors there are that `errors` has not got.
    """
    arguments = dict(app_values)
    more = 0
    for parameter in signature.parameters:
        raw = _raw_value(parameter, came)
        if raw is None:
            if parameter.required:
                errors.append(missing(parameter.where, parameter.name))
            else:
                arguments[parameter.argument] = parameter.default
            continue
        if not is_text(raw, parameter, came.url):
            errors.append(not_unicode(parameter))
            continue
        try:
            arguments[parameter.argument] = value = parameter.validator.validate_python(raw)
            if type(value) not in AS_IT_SAYS:
                errors += misread(parameter.where, parameter.name, raw, value)
        except ValidationError as error:
            errors += field_problems(parameter.where, parameter.name, error, raw)
            more += untold(error)
        except BEYOND:
            errors.append(beyond(parameter.where, parameter.name))
    return arguments, more


def _raw_value(parameter: Parameter, came: Came) -> Any:
    """What a request has for a parameter, to be validated; None where it has nothing."""
    where = parameter.where
    if where == "path":
        return came.values[parameter.name]
    if where == "cookie":
        return came.cookies.get(parameter.name)
    if parameter.list_names is not None:
        return _query_members(parameter.list_names, came.url.query, required=parameter.required)
    if where == "query":
        values = came.url.query.getall(parameter.name, None)
    else:
        values = came.headers.getall(parameter.key, None)
        if values is not None and parameter.many:
            # Lines of one name are one list, and a comma separates too (RFC 9110, section 5.3).
            pieces = (piece.strip(" \t") for line in values for piece in line.split(","))
            values = [piece for piece in pieces if piece]
    if values is None or parameter.many or len(values) > 1:
        # A name given twice for one value stays a list, and so is refused: never a guess.
        return values
    return values[0]


def _query_members(
    list_names: frozenset[str], query: MultiMapping[str], *, required: bool
) -> dict[str, Any] | None:
    """All of the query, as what a query model is validated from."""
    members: dict[str, Any] = {}
    for name in query:
        values = query.getall(name)
        members[name] = values if name in list_names or len(values) > 1 else values[0]
    return members if members or required else None
