"""What is wrong with a request, in the words of this house, and no value shown in full."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from petsage.builder.events import BuildError
from petsage.builder.request import FeatureRequest, Requirement
from petsage.errors import did_you_mean
from petsage.inspection import better_name, name_flaw

_TOLD: Final = 20
"""Of what is wrong, so much is told."""
_FLAGS: Final = {"description": "--description", "tags": "--tag", "version": "--version"}
_KINDS: Final[Mapping[str, type[BaseModel]]] = {
    kind: model
    for model in (get_args(Requirement) or (Requirement,))
    for kind in get_args(model.model_fields["kind"].annotation)
}

Path = tuple[str | int, ...]
"""Where in a request: ("requirements", 0, "path")."""


@dataclass(frozen=True)
class Asked:
    """What is asked for, before anybody has looked at it.

    Attributes:
        place: where it comes from.
        flags: the fields that come from flags.
    """

    place: str
    values: dict[str, Any]
    flags: frozenset[str]

    def place_of(self, field: str | int | None) -> str:
        """What a person calls the place that a field comes from."""
        flag = _FLAGS.get(str(field), self.place) if field in self.flags else self.place
        return flag if flag == self.place else f"the command line, {flag}"


def decode_error(problem: str, fix: str, details: Iterable[str] = ()) -> BuildError:
    """There is no request, or it is none."""
    return BuildError(problem, fix=fix, stage="decode", details=tuple(details))


def refuse(asked: Asked, errors: list[ErrorDetails]) -> NoReturn:
    """Says all that is wrong: requirements that nobody can build, unknown keys, all else."""
    unbuildable = dict(_unbuildable(asked))
    told = [*unbuildable.values()]
    found = [(error, _path_of(error, asked.values)) for error in errors if not _is_noise(error)]
    found = [each for each in found if each[1][1:2] == () or each[1][1] not in unbuildable]
    found.sort(key=lambda each: each[0]["type"] != "extra_forbidden")
    told += [_told(asked, *each) for each in found[:_TOLD]]
    count = len(unbuildable) + len(found)
    if count == 1:
        raise decode_error(*told[0])
    lines = [f"{problem}; fix: {fix}" for problem, fix in told[:_TOLD]]
    more = [f"and {count - _TOLD} more"] if count > _TOLD else []
    raise decode_error(
        f"{asked.place}: {count} things are wrong", "mend each of them", lines + more
    )


def _unbuildable(asked: Asked) -> Iterable[tuple[int, tuple[str, str]]]:
    """Each requirement of a kind that there is not, by its number; what is wrong, and the fix."""
    place = asked.place_of("requirements")
    requirements = asked.values.get("requirements")
    for number, each in enumerate(requirements if isinstance(requirements, list) else []):
        kind = each.get("kind") if isinstance(each, dict) else None
        if isinstance(kind, str) and kind not in _KINDS:
            article = "an" if kind[:1] in tuple("aeiou") else "a"
            problem = f"requirements[{number}]: {article} `{named(kind)}` cannot be built"
            yield number, (f"{place}: {problem}", f"ask for what can be: {', '.join(_KINDS)}")


def _is_noise(error: ErrorDetails) -> bool:
    """Whether pydantic tells of a branch of `requirements` that is not what was meant."""
    if error["loc"][:1] != ("requirements",) or len(error["loc"]) != 2:
        return False
    is_list = isinstance(error["input"], list)
    return (error["type"] == "literal_error") == is_list


def _path_of(error: ErrorDetails, values: Any) -> Path:
    """Where in the request it is; pydantic's names of types and branches are left out."""
    path: list[str | int] = []
    for part in error["loc"]:
        if _holds(values, part):
            values = values[part]
        elif error["type"] != "missing" or part is not error["loc"][-1]:
            continue
        path.append(part)
    return tuple(path)


def _holds(values: object, part: str | int) -> bool:
    if isinstance(part, int):
        return isinstance(values, list) and part < len(values)
    return isinstance(values, dict) and part in values


def _told(asked: Asked, error: ErrorDetails, path: Path) -> tuple[str, str]:
    """One thing that is wrong, with its place, and the fix."""
    place, key = asked.place_of(path[0] if path else None), _dotted(path)
    known = _model_at(path, asked.values).model_fields
    names = [part for part in path if isinstance(part, str)]
    field = known.get(names[-1]) if names else None
    meaning = f" ({field.description})" if field is not None and field.description else ""
    match error["type"]:
        case "extra_forbidden":
            return f"{place}: unknown key `{key}`", did_you_mean(str(path[-1]), list(known))
        case "missing" if asked.place == "the command line" and path[0] in _FLAGS:
            return f"{place}: `{key}` is missing", f"add {_FLAGS[str(path[0])]}{meaning}"
        case "missing":
            return f"{place}: `{key}` is missing", f"set `{key}`{meaning}"
    value = error["input"]
    if path == ("feature",) and isinstance(value, str) and (flaw := name_flaw(value)) is not None:
        problem = flaw.problem.replace(repr(value), shown(value))
        return f"{place}: {problem}", f"call it `{better_name(value)}`, for example"
    if not path:
        return f"{place}: {_fault(error)}", "mend it; `petsage build --schema` says what may be"
    return f"{place}: `{key}` is {shown(value)}: {_fault(error)}", f"change `{key}`{meaning}"


def _model_at(path: Path, values: Mapping[str, Any]) -> type[BaseModel]:
    """The model that holds the last part of a path."""
    if len(path) < 3:
        return FeatureRequest
    requirement = values["requirements"][path[1]] if path[0] == "requirements" else None
    kind = requirement.get("kind") if isinstance(requirement, dict) else None
    return _KINDS.get(kind if isinstance(kind, str) else "", next(iter(_KINDS.values())))


def _fault(error: ErrorDetails) -> str:
    """What is wrong with a value, in the words of this house."""
    context = error.get("ctx", {})
    match error["type"]:
        case "value_error":
            return str(context["error"])
        case "string_type":
            return "it has to be text"
        case "string_unicode":
            return "it has half of a surrogate pair, which is no text"
        case "list_type":
            return "it has to be a list"
        case "literal_error" if error["loc"][0] == "requirements" and len(error["loc"]) == 2:
            return "it has to be `none`, or a list"
        case "literal_error":
            return f"it has to be {context['expected']}"
        case "model_type":
            return "it has to be a table, which JSON calls an object"
        case "too_short" | "string_too_short":
            return "it is empty"
        case "string_too_long" | "too_long":
            parts = "characters" if isinstance(error["input"], str) else "entries"
            count, most = len(error["input"]), context["max_length"]
            return f"it has {count:,} {parts}, and may have {most:,} at most"
        case "string_pattern_mismatch":
            return "it has to be three numbers, such as 1.0.0"
    return error["msg"]


def _dotted(path: Path) -> str:
    """`requirements[0].path`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{named(part)}" for part in path)
    return text.removeprefix(".")


def shown(value: object, length: int = 60) -> str:
    """A value on one line that a terminal may be given: the begin of a text, and else its kind."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case str():
            quoted = repr(value[:length])
            return quoted if len(value) <= length else f"{quoted[:-1]}…{quoted[-1]}"
        case int() | float() if abs(value) < 1e15:
            return repr(value)
        case int() | float():
            return "a number"
        case list():
            return "a list"
        case dict():
            return "a table"
    return f"a {type(value).__name__}"


def named(text: str, length: int = 60) -> str:
    """As `shown`, without its quotes."""
    return shown(text, length)[1:-1]
