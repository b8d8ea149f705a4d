"""A typed handler, compiled once: its arguments' way in, and its answer's way out to bytes.

A little over 300 lines: what makes an endpoint and what it does then are read together.
"""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from aiohttp import web
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from petsage.arguments import JSON, arguments_of, read_arguments
from petsage.binding import Came
from petsage.errors import Problem
from petsage.response import BODILESS, Content, JsonResponse
from petsage.shapes import AnswerTypes, JsonAnswer, UnusableType
from petsage.signature import (
    Flaw,
    Media,
    Reply,
    Returns,
    Signature,
    Signatures,
    is_status,
    name_of,
)
from petsage.signature_reader import read_signature

# One for all that have none: it is looked at for each request.
_NONE: Final[Mapping[Any, Any]] = {}

Handler = Callable[..., Awaitable[Any]]


# What `answers` may say of a status: a model, several content types, a problem, or no body.
Other = JsonAnswer | dict[str, JsonAnswer] | type[Problem] | None


class _Asked:
    """What each request asks of its endpoint.

    Apart, so that it lies together: of thousands of endpoints, few are in the processor's caches,
    and members of one class lie in the order of their names.
    """

    __slots__ = (
        *("_app_values", "answer", "answers", "empty_status", "handler", "signature", "status"),
        "takes_nothing",
    )


class Endpoint(_Asked):
    """A handler that can be called with a request.

    Attributes:
        handler: what the developer wrote.
        signature: where its arguments come from.
        status: the HTTP status of an ordinary answer.
        answer: the JSON it answers with, None where it has none.
        answers: that of other statuses.
        problems: the statuses that its developer says it raises problems with.
        media: what its own responses of a status hold, by content type.
        bare: the statuses that its developer says it answers without a body.
        empty_status: the status where it returns None; None where it never does.
        raw: whether it may answer with a response of its own making.
        reply: whether it may answer with a `Reply`.
        headers: what is documented of an ordinary answer's headers, by name.
        takes_nothing: whether its handler has no arguments.
        takes_request: whether its handler asks for the request itself.
        takes_json: whether it takes a body that is plain JSON.
    """

    __slots__ = (
        *("_bodiless", "bare", "headers", "media", "name", "problems", "raw", "reply"),
        *("takes_json", "takes_request"),
    )

    def __init__(
        self,
        handler: Handler,
        signature: Signature,
        returns: Returns,
        *,
        status: int,
        answer: JsonAnswer | None,
        others: Mapping[int, Other],
    ) -> None:
        self.handler = handler
        self.name = name_of(handler)
        self.signature = signature
        self.status = int(status)
        self.answer = answer
        self.answers: Mapping[int, JsonAnswer] = {
            key: each for key, each in others.items() if isinstance(each, JsonAnswer)
        } or _NONE
        self.media = {key: each for key, each in others.items() if isinstance(each, dict)}
        self.problems = frozenset(key for key, each in others.items() if each is Problem)
        self.bare = frozenset(key for key, each in others.items() if each is None)
        self.empty_status: int | None = None
        if returns.nothing:
            # Who declares 202 and returns nothing means 202; 200 is what nobody declared.
            self.empty_status = 204 if answer is not None or status == 200 else status
        self.raw = returns.raw
        self.reply = returns.reply
        self.headers = returns.headers
        self._bodiless = BODILESS | self.bare if self.bare else BODILESS
        self._app_values: Mapping[str, Any] = _NONE
        self.takes_nothing = not (
            signature.parameters or signature.body or signature.request or signature.apps
        )

        self.takes_request = signature.request is not None
        body = signature.body
        self.takes_json = body is not None and (
            not body.marker.media_types or JSON in body.marker.media_types
        )

    @property
    def may_refuse(self) -> bool:
        """Whether some input is wrong for it, and answered 422."""
        return bool(self.signature.parameters or self.signature.body)

    def use_app_values(self, values: Mapping[str, Any]) -> None:
        """Gives it what its `FromApp` arguments are, by argument."""
        self._app_values = dict(values) or _NONE

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        """Calls the handler with what the request says, and answers with what it returns.

        Raises:
            Problem: the input is not what the handler declares, or the handler raised it.
            Exception: whatever else the handler raises.
        """
        if self.takes_nothing:
            return self.respond(await self.handler())
        arguments = await read_arguments(self.signature, self._app_values, request)
        return self.respond(await self.handler(**arguments))

    def arguments_of(self, came: Came, data: bytes) -> dict[str, Any]:
        """The handler's arguments, where it does not take the request.

        Args:
            came: what a request has besides its body.
            data: the body, which says that it is JSON; empty where none came.

        Raises:
            Problem: the input is not what the handler declares.
        """
        return arguments_of(self.signature, self._app_values, came, data)

    def respond(self, value: Any) -> web.StreamResponse:
        """What a handler returned, as a response.

        Raises:
            TypeError: it is not what the handler's return annotation says.
        """
        content = self.content(value)
        return JsonResponse(*content) if isinstance(content, tuple) else content

    def content(self, value: Any) -> Content | web.StreamResponse:
        """What a handler returned, as what goes out, or as its own response.

        Raises:
            TypeError: it is not what the handler's return annotation says.
        """
        status, empty_status, headers = self.status, self.empty_status, _NONE
        if isinstance(value, Reply):
            if value.status is not None:
                status = int(value.status)  # it may be an `HTTPStatus`
                if status != self.status and empty_status is not None:
                    empty_status = status
            headers = value.headers or _NONE
            json, value = value.json, value.value
            if json is not None and self._is_own_json(value, status):
                return json, status, headers
        answer = self.answers.get(status, self.answer) if self.answers else self.answer
        if answer is not None and type(value) is answer.model:
            return self._to_json(answer, value, status), status, headers
        if value is None and (empty_status is not None or status in self._bodiless):
            return None, empty_status or status, headers
        # Not by `isinstance`, which for this class takes longer than all the rest.
        if web.StreamResponse in type(value).__mro__:
            response: web.StreamResponse = value
            return response
        return self._to_json(answer, value, status), status, headers

    def _is_own_json(self, value: Any, status: int) -> bool:
        """Whether the JSON that a value's own model makes is what this answers with."""
        answer = self.answers.get(status, self.answer)
        return answer is not None and type(value) is answer.model and status not in self._bodiless

    def _to_json(self, answer: JsonAnswer | None, value: Any, status: int) -> bytes:
        if answer is None:
            raise TypeError(
                f"`{self.name}` returned {type(value).__name__}, and its return annotation says "
                "that it answers with no JSON"
            )
        try:
            return answer.to_json(value)
        except (PydanticSerializationError, ValidationError) as error:
            raise TypeError(
                f"`{self.name}` returned {type(value).__name__}, which is not what it says that "
                f"it answers with for {status}"
            ) from error


def compile_endpoint(
    handler: Handler,
    *,
    method: str,
    path_names: tuple[str, ...],
    types: AnswerTypes,
    signatures: Signatures,
    status: int = 200,
    answers: Mapping[int, Any] | None = None,
) -> tuple[Endpoint | None, list[Flaw]]:
    """The endpoint that calls `handler`, or None and all that it cannot mean.

    Args:
        handler: an `async def`.
        method: the HTTP method that it answers.
        path_names: the names in braces in its path.
        types: those that the feature's other handlers answer with.
        signatures: those of the feature's other handlers.
        status: the HTTP status of an ordinary answer.
        answers: the models of other statuses' bodies; `Problem` for a problem document, None
            for no body.
    """
    if not inspect.iscoroutinefunction(handler) or not hasattr(handler, "__name__"):
        return None, [_not_async(handler)]
    signature, returns, flaws = read_signature(handler, method, path_names)
    returns = returns or _unannotated(handler, signature, flaws)
    answer = _compile_answer(handler, returns, types, flaws)
    others = _compile_answers(handler, answers, types, flaws)
    _find_wrong_status(handler, status, returns, flaws)
    if not returns.raw and any(isinstance(other, dict) for other in others.values()):
        problem = f"`answers` of `{name_of(handler)}` has a `Media`, and it makes no response"
        flaws.append(Flaw("bad-answer", problem, "return a `web.Response`, or give a model"))
    if flaws:
        return None, flaws
    signature = signatures.one_for(signature)
    return Endpoint(handler, signature, returns, status=status, answer=answer, others=others), []


def _not_async(handler: Any) -> Flaw:
    name = name_of(handler)
    if inspect.isasyncgenfunction(handler):
        return Flaw(
            "handler-not-async",
            f"`{name}` is a generator, and a handler returns once",
            "return a `web.StreamResponse` and write to it, or return a list",
        )
    if not inspect.isfunction(handler):
        return Flaw(
            "handler-not-async",
            f"{name:.100} is no function",
            "write an `async def` that calls it",
        )
    return Flaw(
        "handler-not-async",
        f"`{name}` is no `async def`",
        f"write `async def {name}`; for blocking work, `await asyncio.to_thread(…)` inside it",
    )


def _unannotated(handler: Handler, signature: Signature, flaws: list[Flaw]) -> Returns:
    """What a handler without a return annotation returns: a plain one a response."""
    if signature.request is None or signature.parameters or signature.body:
        name = name_of(handler)
        flaws.append(
            Flaw(
                "bad-annotation",
                f"`{name}` has no return annotation, and the answer goes by it",
                f"say what it returns: `async def {name}(…) -> dict[str, str]`",
            )
        )
    return Returns(raw=True)


def _compile_answer(
    handler: Handler, returns: Returns, types: AnswerTypes, flaws: list[Flaw]
) -> JsonAnswer | None:
    if returns.kind is None:
        return None
    try:
        return types.compile(returns.kind)
    except UnusableType as error:
        raised = isinstance(returns.kind, type) and issubclass(returns.kind, Exception)
        flaws.append(
            Flaw(
                "bad-answer",
                f"what `{name_of(handler)}` returns is nothing that JSON can mean: {error}",
                f"raise the {returns.kind.__name__}, and leave it out of the annotation"
                if raised
                else "return a model, dataclass, dict, list or scalar, or a `web.StreamResponse`",
            )
        )
        return None


def _compile_answers(
    handler: Handler, answers: Any, types: AnswerTypes, flaws: list[Flaw]
) -> dict[int, Other]:
    compiled: dict[int, Other] = {}
    name = name_of(handler)
    if not isinstance(answers or {}, Mapping):
        problem = f"`answers` of `{name}` is {answers!r:.80}"
        flaws.append(Flaw("bad-answer", problem, "write `answers={503: Model}`"))
        return compiled
    for status, kind in (answers or {}).items():
        if not is_status(status):
            problem = f"`answers` of `{name}` has the status {status!r:.80}"
            flaws.append(Flaw("bad-answer", problem, "use one of 200 to 599"))
        elif kind is Problem and status < 400:
            problem = f"`answers[{status}]` of `{name}` is a problem, and {status} is no error"
            flaws.append(Flaw("bad-answer", problem, "give a problem a status of 400 to 599"))
        elif kind is Problem or kind is None:
            compiled[status] = kind
        else:
            try:
                compiled[status] = _compile_other(kind, types)
            except UnusableType as error:
                problem = f"`answers[{status}]` of `{name}`: {error}"
                fix = "give a model, `Media`, `Problem` for a problem document, or None for no body"
                flaws.append(Flaw("bad-answer", problem, fix))
    return compiled


def _compile_other(kind: Any, types: AnswerTypes) -> JsonAnswer | dict[str, JsonAnswer]:
    """A model that `answers` names, or those of a `Media`.

    Raises:
        UnusableType: one of them is nothing that JSON can mean.
    """
    if not isinstance(kind, Media):
        return types.compile(kind)
    models: Any = kind.types
    if not isinstance(models, Mapping):
        raise UnusableType("`Media` takes models by content type")
    return {each: types.compile(model) for each, model in models.items()}


def _find_wrong_status(handler: Handler, status: Any, returns: Returns, flaws: list[Flaw]) -> None:
    name = name_of(handler)
    if not is_status(status):
        problem = f"`{name}` answers with the status {status!r:.80}"
        flaws.append(Flaw("bad-answer", problem, "use one of 200 to 599"))
    elif status in BODILESS and returns.kind is not None:
        problem = f"`{name}` answers with the status {status}, which has no body, and returns one"
        flaws.append(Flaw("bad-answer", problem, "return None, or use another status"))
