"""A typed handler, compiled once: each argument's way in, and the answer's way out to bytes."""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from aiohttp import web
from aiohttp.web_exceptions import HTTPRequestEntityTooLarge
from pydantic import PydanticUserError, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError
from pydantic_core import PydanticSerializationError

from petsage.errors import FieldProblem, Problem, invalid_input
from petsage.signature import (
    Flaw,
    Parameter,
    Reply,
    Signature,
    first_line,
    make_adapter,
    read_signature,
    split_answer,
)

JSON: Final = "application/json"
_JSON_HEADERS: Final = {"Content-Type": JSON}

# An answer to wrong input stays short, however large the input was.
_MAX_ERRORS: Final = 50
_MAX_POINTER: Final = 200

Handler = Callable[..., Awaitable[Any]]


class Endpoint:
    """A handler that can be called with a request.

    Attributes:
        handler: what the developer wrote.
        signature: where its arguments come from.
        status: the HTTP status of an ordinary answer.
        answer: the adapter of the JSON it answers with, None where it has none.
        answers: the adapters of other statuses' bodies.
        problems: the statuses that its developer says it raises problems with.
        nothing: whether it may answer with no body (204).
        raw: whether it answers with a response of its own making.
    """

    def __init__(
        self,
        handler: Handler,
        signature: Signature,
        *,
        status: int,
        answer: TypeAdapter[Any] | None,
        answers: Mapping[int, TypeAdapter[Any]],
        problems: frozenset[int],
        nothing: bool,
        raw: bool,
    ) -> None:
        self.handler = handler
        self.signature = signature
        self.status = status
        self.answer = answer
        self.answers = answers
        self.problems = problems
        self.nothing = nothing
        self.raw = raw
        self._app_values: dict[str, Any] = {}
        self._takes_nothing = not (
            signature.parameters or signature.body or signature.request or signature.apps
        )

    @property
    def may_refuse(self) -> bool:
        """Whether some input is wrong for it, and answered 422."""
        return bool(self.signature.parameters or self.signature.body)

    def use_app_values(self, values: Mapping[str, Any]) -> None:
        """Gives it what its `FromApp` arguments are, by argument."""
        self._app_values = dict(values)

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        """Calls the handler with what the request says, and answers with what it returns.

        Raises:
            Problem: the input is not what the handler declares, or the handler raised it.
            Exception: whatever else the handler raises.
        """
        if self._takes_nothing:
            return self.respond(await self.handler())
        return self.respond(await self.handler(**await self._arguments(request)))

    def respond(self, value: Any) -> web.StreamResponse:
        """What a handler returned, as a response.

        Raises:
            TypeError: it is not what the handler's return annotation says.
        """
        status, headers = self.status, _JSON_HEADERS
        if isinstance(value, Reply):
            status = self.status if value.status is None else value.status
            if value.headers:
                headers = {**_JSON_HEADERS, **value.headers}
            value = value.value
        if isinstance(value, web.StreamResponse):
            return value
        if value is None and self._is_empty(status):
            extra = {name: text for name, text in headers.items() if name != "Content-Type"}
            return web.Response(status=204 if status == self.status else status, headers=extra)
        return web.Response(body=self._to_json(value, status), status=status, headers=headers)

    def _is_empty(self, status: int) -> bool:
        return self.nothing or self.answer is None or status == 204

    def _to_json(self, value: Any, status: int) -> bytes:
        adapter = self.answers.get(status, self.answer)
        if adapter is None:
            raise TypeError(
                f"`{self.name}` returned {type(value).__name__}, and its return annotation says "
                "that it answers with no JSON"
            )
        try:
            return adapter.serializer.to_json(value, warnings="error", by_alias=True)
        except PydanticSerializationError as error:
            # A dict for a model is welcome if it validates: one more step, only when needed.
            try:
                value = adapter.validate_python(value)
            except ValidationError:
                raise TypeError(
                    f"`{self.name}` returned {type(value).__name__}, which is not what its "
                    f"return annotation says: {first_line(error)}"
                ) from error
            return adapter.serializer.to_json(value, by_alias=True)

    @property
    def name(self) -> str:
        """The handler's name."""
        return getattr(self.handler, "__name__", repr(self.handler))

    async def _arguments(self, request: web.Request) -> dict[str, Any]:
        signature = self.signature
        arguments: dict[str, Any] = dict(self._app_values)
        errors: list[FieldProblem] = []
        if signature.request is not None:
            arguments[signature.request] = request
        for parameter in signature.parameters:
            try:
                arguments[parameter.argument] = _take(parameter, request)
            except _Missing:
                errors.append(
                    FieldProblem(
                        where=parameter.where,
                        pointer=_pointer((parameter.name,)),
                        detail="Field required",
                        type="missing",
                    )
                )
            except ValidationError as error:
                prefix = (parameter.name,) if parameter.name else ()
                errors += _field_problems(parameter.where, prefix, error)
        if signature.body is not None:
            try:
                arguments[signature.body.argument] = await self._read_body(request)
            except _NoBody:
                pass  # the handler's own default is used
            except ValidationError as error:
                errors += _field_problems("body", (), error)
        if errors:
            raise invalid_input(errors[:_MAX_ERRORS])
        return arguments

    async def _read_body(self, request: web.Request) -> Any:
        body = self.signature.body
        assert body is not None  # noqa: S101 - the caller looked
        if not request.body_exists and not body.required:
            raise _NoBody
        _require_json(request)
        data = await read_body(request)
        try:
            return body.adapter.validate_json(data, strict=True)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False, include_context=False)[0]
            if first["type"] == "json_invalid" and first["loc"] == ():
                raise Problem(400, f"The body is not JSON: {first['msg']}") from None
            raise


class _Missing(Exception):  # noqa: N818 - a signal to the caller, not an error
    """The request does not have a parameter that it must have."""


class _NoBody(Exception):  # noqa: N818 - a signal to the caller, not an error
    """The request has no body, and needs none."""


async def read_body(request: web.Request) -> bytes:
    """The body, whole.

    Raises:
        Problem: 413 where it is larger than `[server].max_body_bytes`, 400 where it cannot be
            read: cut short, or not in the encoding that it says.
    """
    try:
        return await request.read()
    except HTTPRequestEntityTooLarge as error:
        raise Problem(413, error.text or "The body is too large") from None
    except (web.RequestPayloadError, ValueError, LookupError) as error:
        raise Problem(400, f"The body cannot be read: {type(error).__name__}") from None


def _require_json(request: web.Request) -> None:
    kind = request.content_type
    if "Content-Type" not in request.headers or not (kind == JSON or kind.endswith("+json")):
        raise Problem(415, f"The body has to be `{JSON}`", headers={"Accept": JSON})
    charset = request.charset
    if charset is not None and charset.lower().replace("-", "") not in {"utf8", "usascii"}:
        raise Problem(415, "JSON is UTF-8 (RFC 8259), and the `charset` says another encoding")


def _take(parameter: Parameter, request: web.Request) -> Any:
    """The value of one parameter, validated; the handler's default where it may be left out."""
    raw: Any
    if parameter.where == "path":
        raw = request.match_info[parameter.name]
    elif parameter.where == "query":
        if parameter.list_names is not None:
            return parameter.adapter.validate_python(_query_members(parameter, request))
        raw = request.query.getall(parameter.name, None)
    elif parameter.where == "header":
        raw = request.headers.getall(parameter.name, None)
    else:
        raw = request.cookies.get(parameter.name)
    if raw is None:
        if parameter.required:
            raise _Missing
        return parameter.default
    if isinstance(raw, list) and not parameter.many:
        # A name given twice for one value stays a list, and so is refused: never a guess.
        raw = raw[0] if len(raw) == 1 else raw
    return parameter.adapter.validate_python(raw)


def _query_members(parameter: Parameter, request: web.Request) -> dict[str, Any]:
    """All of the query, as what a query model is validated from."""
    members: dict[str, Any] = {}
    names = parameter.list_names or frozenset()
    for name in request.query:
        values = request.query.getall(name)
        members[name] = values if name in names or len(values) > 1 else values[0]
    return members


def _field_problems(
    where: str, prefix: tuple[str, ...], error: ValidationError
) -> list[FieldProblem]:
    found = error.errors(include_input=False, include_url=False, include_context=False)
    return [
        FieldProblem(
            where=where,
            pointer=_pointer((*prefix, *each["loc"])),
            detail=each["msg"],
            type=each["type"],
        )
        for each in found[:_MAX_ERRORS]
    ]


def _pointer(location: tuple[int | str, ...]) -> str:
    """A location as a JSON Pointer (RFC 6901), cut where a client's own keys make it long."""
    parts = (str(part).replace("~", "~0").replace("/", "~1") for part in location)
    text = "".join(f"/{part}" for part in parts)
    return text if len(text) <= _MAX_POINTER else text[:_MAX_POINTER] + "…"


def compile_endpoint(
    handler: Handler,
    *,
    method: str,
    path_names: tuple[str, ...],
    status: int = 200,
    answers: Mapping[int, Any] | None = None,
) -> tuple[Endpoint | None, list[Flaw]]:
    """The endpoint that calls `handler`, or None and all that it cannot mean.

    Args:
        handler: an `async def`.
        method: the HTTP method that it answers.
        path_names: the names in braces in its path.
        status: the HTTP status of an ordinary answer.
        answers: the models of other statuses' bodies; `Problem` for a problem document.
    """
    if not inspect.iscoroutinefunction(handler):
        return None, [_not_async(handler)]
    signature, flaws = read_signature(handler, method, path_names)
    answer, nothing, raw, answer_flaws = _compile_answer(handler, signature)
    others, other_flaws = _compile_answers(handler, answers or {})
    flaws = [*flaws, *answer_flaws, *other_flaws]
    if not 200 <= status <= 599:
        flaws.append(
            Flaw(
                "bad-answer",
                f"`{handler.__name__}` answers with the status {status!r}",
                "use one of 200 to 599",
            )
        )
    if flaws:
        return None, flaws
    endpoint = Endpoint(
        handler,
        signature,
        status=status,
        answer=answer,
        answers=others,
        problems=frozenset(status for status, kind in (answers or {}).items() if kind is Problem),
        nothing=nothing,
        raw=raw,
    )
    return endpoint, []


def _not_async(handler: Any) -> Flaw:
    name = getattr(handler, "__name__", repr(handler))
    if inspect.isasyncgenfunction(handler):
        return Flaw(
            "handler-not-async",
            f"`{name}` is a generator, and a handler returns once",
            "return a `web.StreamResponse` and write to it, or return a list",
        )
    return Flaw(
        "handler-not-async",
        f"`{name}` is no `async def`",
        f"write `async def {name}`; for blocking work, `await asyncio.to_thread(…)` inside it",
    )


def _compile_answer(
    handler: Handler, signature: Signature
) -> tuple[TypeAdapter[Any] | None, bool, bool, list[Flaw]]:
    """The adapter of the answer; whether it may be empty; whether it may be a raw response."""
    returns = signature.returns
    if returns is inspect.Signature.empty:
        if signature.request is not None and not signature.parameters and not signature.body:
            return None, False, True, []
        return (
            None,
            False,
            False,
            [
                Flaw(
                    "bad-annotation",
                    f"`{handler.__name__}` has no return annotation, and the answer goes by it",
                    f"say what it returns: `async def {handler.__name__}(…) -> dict[str, str]`",
                )
            ],
        )
    kind, nothing = split_answer(returns)
    if kind is None:
        return None, nothing, not nothing, []
    try:
        return make_adapter(kind), nothing, False, []
    except (PydanticUserError, PydanticSchemaGenerationError, TypeError, ValueError) as error:
        return (
            None,
            False,
            False,
            [
                Flaw(
                    "bad-answer",
                    f"what `{handler.__name__}` returns is nothing that JSON can mean: "
                    f"{first_line(error)}",
                    "return a model, dataclass, dict, list or scalar, or a `web.StreamResponse`",
                )
            ],
        )


def _compile_answers(
    handler: Handler, answers: Mapping[int, Any]
) -> tuple[dict[int, TypeAdapter[Any]], list[Flaw]]:
    compiled: dict[int, TypeAdapter[Any]] = {}
    flaws = []
    for status, kind in answers.items():
        if not isinstance(status, int) or not 200 <= status <= 599:
            problem = f"`answers` of `{handler.__name__}` has the status {status!r}"
            flaws.append(Flaw("bad-answer", problem, "use one of 200 to 599"))
            continue
        if kind is Problem:
            continue
        try:
            compiled[status] = make_adapter(kind)
        except (PydanticUserError, PydanticSchemaGenerationError, TypeError, ValueError) as error:
            flaws.append(
                Flaw(
                    "bad-answer",
                    f"`answers[{status}]` of `{handler.__name__}`: {first_line(error)}",
                    "give a model, or `Problem` for a problem document",
                )
            )
    return compiled, flaws
