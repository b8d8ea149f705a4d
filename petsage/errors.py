"""Every error: what is wrong and how to mend it.

Two kinds live here. `PetSageError` and its children stop a start or set a feature aside, and
carry a fix for the developer. `Problem` is what a caller of the API gets: RFC 9457.

Longer than 300 lines: both kinds, and how an error is read, are looked up in one place.
"""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, ClassVar, Final, Literal, NamedTuple, TypeGuard, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

E = TypeVar("E", bound=BaseException)

_log = logging.getLogger(__name__)

PROBLEM_TYPE: Final = "application/problem+json"

_MAX_ERRORS: Final = 50
_MAX_ERRORS_BYTES: Final = 8_000
_PHRASES: Final = {int(each): each.phrase for each in HTTPStatus}

NOTHING_HERE: Final = "There is nothing at this path"
"""What a 404 says, and a guard, too, so that it tells nobody what is behind it."""


class PetSageError(Exception):
    """Something that stops PetSage or a feature, and what mends it.

    Args:
        problem: one line that names the place and shows the value.
        fix: the next step, as an imperative.

    Attributes:
        exit_code: what a command ends with that ends with this.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, problem: str, *, fix: str) -> None:
        super().__init__(problem, fix)
        self.problem = problem
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.problem}; fix: {self.fix}"


class SettingsError(PetSageError):
    """The settings cannot be used."""


class StartError(PetSageError):
    """The process cannot start: a port that is taken, a required feature that failed."""


class StorageError(PetSageError):
    """The database cannot be used as it is, or by this code."""


def is_a(error: BaseException | None, kind: type[E] | tuple[type[E], ...]) -> TypeGuard[E]:
    """`isinstance` by the type alone: what an error says is its class may be code that raises."""
    return issubclass(type(error), kind)


def words_of(error: BaseException) -> str:
    """What an error says; of pydantic's, not what it was given: a body, a password.

    Raises:
        BaseException: whatever the error's own `__str__` raises.
    """
    if not is_a(error, ValidationError):
        return str(error)
    count = error.error_count()
    lines = [f"{count} validation error{'' if count == 1 else 's'} for {error.title}"]
    for each in error.errors(include_url=False, include_context=False, include_input=False):
        where = ".".join(map(str, each["loc"]))
        lines += [where] if where else []
        lines.append(f"  {each['msg']} [type={each['type']}]")
    return "\n".join(lines)


def printable(text: str) -> str:
    r"""The text, its lone surrogates as escapes (`\udcff`); a name of a file may be no UTF-8.

    The same as in the log and in metrics.
    """
    return text.encode("utf-8", "backslashreplace").decode()


def nearest(name: str, right: Iterable[str]) -> str | None:
    """The right name that `name` was most likely meant to be, None where none is near."""
    import difflib  # noqa: PLC0415 - only where something is wrong

    matches = difflib.get_close_matches(name, list(right), n=1, cutoff=0.6)
    return matches[0] if matches else None


def did_you_mean(name: str, right: Sequence[str]) -> str:
    """A fix for a wrong name: the nearest right one, else all of them."""
    match = nearest(name, right)
    if match is not None:
        return f"did you mean `{match}`?"
    if not right:
        return "there is none to choose from; leave it out"
    return "choose one of " + ", ".join(f"`{each}`" for each in sorted(right))


class FieldProblem(BaseModel):
    """One thing that is wrong with what was sent; never the value itself."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, defer_build=True)

    where: str = Field(
        alias="in",
        description="The part of the request: path, query, header, cookie or body.",
        examples=["body"],
    )
    pointer: str = Field(
        description="The place in that part, as a JSON Pointer (RFC 6901).",
        examples=["/owner/name"],
    )
    detail: str = Field(description="What is wrong there.", examples=["Field required"])
    type: str = Field(description="The kind of error, stable for machines.", examples=["missing"])


class ProblemDocument(BaseModel):
    """An error, as RFC 9457 describes it."""

    model_config = ConfigDict(extra="allow", defer_build=True)

    type: str = Field("about:blank", description="A URI that names the kind of problem.")
    title: str = Field(description="What the status means.", examples=["Not Found"])
    status: int = Field(description="The HTTP status.", examples=[404])
    detail: str = Field(description="What went wrong this time.", examples=["No pet has the id 7"])
    request_id: str = Field(
        description="The id under which the log tells about this request.",
        examples=["0af7651916cd43dd8448eb211c80319c"],
    )
    errors: list[FieldProblem] | None = Field(
        None, description="Each wrong field, where the input was refused."
    )


class Problem(Exception):  # noqa: N818 - RFC 9457 calls it a problem
    """Raised by a handler, or a middleware, to answer with an error.

    Args:
        status: the HTTP status, 400 to 599.
        detail: what went wrong this time, for the caller; nothing of the inside.
        title: what this kind of problem is called; the status's phrase where left out.
        type: a URI that names the kind of problem.
        headers: further headers of the answer.
        extensions: further members of the document, JSON values.

    Raises:
        ValueError: the status is not one of an error, or an extension's name is taken.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        title: str | None = None,
        type: str = "about:blank",  # noqa: A002 - the RFC's name
        headers: Mapping[str, str] | None = None,
        **extensions: Any,
    ) -> None:
        if not 400 <= status <= 599:
            raise ValueError(f"a problem's status is 400 to 599, not {status}")
        if "request_id" in extensions:
            raise ValueError("`request_id` is the server's to say; name the extension otherwise")
        super().__init__(status, detail)
        self.status = status
        self.detail = detail
        self.title = title if title is not None else _PHRASES.get(status, "Error")
        self.type = type
        self.headers = dict(headers or {})
        self.extensions = extensions

    def document(self, request_id: str) -> bytes:
        """The answer's body, JSON.

        An extension that is not JSON is answered as its `str`, and a lone surrogate as its
        escape; where even that fails, extensions are left out, so that an error about an error
        never hides the first.
        """
        members = {
            "type": self.type,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "request_id": request_id,
        }
        whole = {**members, **self.extensions} if self.extensions else members
        try:
            return orjson.dumps(whole, default=str, option=orjson.OPT_NON_STR_KEYS)
        except orjson.JSONEncodeError:
            pass  # a lone surrogate, an int over 64 bits: the standard library writes them
        try:
            return json.dumps(whole, default=str, skipkeys=True, allow_nan=False).encode()
        except Exception:  # noqa: BLE001 - a `__str__` may raise anything
            _log.exception(
                "The extensions of a problem are no JSON: %s", ", ".join(self.extensions)
            )
            return json.dumps(members, default=str).encode()


def invalid_input(errors: Sequence[FieldProblem], more: int = 0) -> Problem:
    """The 422 that names each wrong field, as many as are read: it is short, whatever was sent.

    Args:
        errors: what is wrong, in the order in which it is told.
        more: how many there are besides.
    """
    told: list[dict[str, Any]] = []
    left = _MAX_ERRORS_BYTES
    for error in errors[:_MAX_ERRORS]:
        entry = {
            "in": error.where,
            "pointer": error.pointer,
            "detail": error.detail,
            "type": error.type,
        }
        if len(errors) > 1:  # the first is told, however long it is
            left -= len(json.dumps(entry))
            if told and left < 0:
                break
        told.append(entry)
    count = len(errors) + more
    said = f"{count} {'field is' if count == 1 else 'fields are'} wrong; "
    return Problem(
        422,
        said + ("see `errors`" if count == len(told) else f"`errors` has {len(told)} of them"),
        title="Unprocessable Content",
        errors=told,
    )


Severity = Literal["error", "warning"]


class Finding(NamedTuple):
    """One thing that is wrong with a feature.

    Attributes:
        id: its kind, one of `FINDINGS`.
        level: an error sets the feature aside, a warning does not.
        file: the file, as it was named to the loader.
        line: the line in it, from 1; 0 where it is about the file or folder as a whole.
    """

    id: str
    level: Severity
    file: str
    line: int
    problem: str
    fix: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.id}: {self.problem}; fix: {self.fix}"


FINDINGS: Final[Mapping[str, str]] = {
    "bad-name": "The folder's name cannot be a feature's",
    "no-init": "The folder has no `__init__.py`",
    "duplicate-feature": "Another folder of features has one of this name",
    "unreadable": "A file of the feature cannot be read",
    "outside-link": "A link leads out of the folders of features",
    "too-large": "The folder holds more than a feature may",
    "unsafe-permissions": "A file or folder is everyone's to write, or a stranger's",
    "group-writable": "A file or folder is a group's to write",
    "syntax-error": "A file is not Python",
    "late-import": "A module of a feature is imported inside a function",
    "missing-package": "A package that is imported is not installed",
    "import-failed": "The import raised",
    "import-side-effect": "The import changed something of the process",
    "check-timeout": "The check did not end in time",
    "check-crashed": "The check ended the process that it runs in",
    "no-feature": "`__init__.py` has no `feature`, or it is no `Feature`",
    "bad-feature": "An argument of `Feature(...)` is not what it has to be",
    "bad-settings": "The settings model, or what the settings say, is wrong",
    "no-such-feature": "`needs` or the settings name a feature that is not there",
    "undeclared-need": "Another feature is imported that `needs` does not name",
    "needs-cycle": "Features need each other in a circle",
    "need-failed": "A feature that this one needs was set aside",
    "compile-failed": "Compiling the routes raised",
    "bad-path": "A path cannot be a route's",
    "route-clash": "Another route has the same method and path",
    "handler-not-async": "A handler is no `async def`",
    "bad-annotation": "An annotation is missing, or cannot be resolved or compiled",
    "bad-parameter": "It cannot be said where a parameter comes from",
    "slow-pattern": "A text can keep the server busy with a regular expression for ever",
    "path-mismatch": "A name in the path is no parameter of the handler",
    "bad-answer": "The return annotation, `status` or `answers` cannot be answered",
    "lifespan-failed": "The lifespan raised at its start",
    "lifespan-timeout": "The lifespan did not start in time",
    "no-value": "No app has the value that `FromApp` asks for, or it is of another type",
}
"""Every kind of finding; docs/findings.md says more about each."""
