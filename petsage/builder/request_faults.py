"""What is wrong with a request, in the words of this house, and no value shown in full."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from petsage.builder.events import BuildError
from petsage.builder.faults import Fault, FaultsError
from petsage.builder.fields import MAX_COUNT, FieldSchema
from petsage.builder.request import FeatureRequest, Requirement, Resource
from petsage.errors import did_you_mean
from petsage.inspection import better_name, name_flaw

_MAX_KEY: Final = 240
_TOLD: Final = 20
"""Of what is wrong, so much is told."""
_FLAGS: Final = {
    "description": "--description",
    "tags": "--tag",
    "version": "--version",
    "requirements": "--field",
}
_FAULTS: Final = {
    "bool_type": "it has to be true or false",
    "dict_type": "it has to be a table, which JSON calls an object",
    "greater_than_equal": f"it has to be 0 to {MAX_COUNT:,}",
    "int_type": "it has to be an integer",
    "less_than_equal": f"it has to be 0 to {MAX_COUNT:,}",
    "list_type": "it has to be a list",
    "model_attributes_type": "it has to be a table, which JSON calls an object",
    "model_type": "it has to be a table, which JSON calls an object",
    "recursion_loop": "it is nested too deeply",
    "string_pattern_mismatch": "it has to be three numbers, such as 1.0.0",
    "string_too_short": "it is empty",
    "string_type": "it has to be text",
    "string_unicode": "it has half of a surrogate pair, which is no text",
    "too_short": "it is empty",
}
"""By pydantic's name of the error, what it is in the words of this house."""
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
    for error, path in found:
        told += _all_told(asked, error, path)
    refuse_all(asked, told)


def refuse_all(asked: Asked, told: Sequence[tuple[str, str]]) -> NoReturn:
    """Says all of what is wrong, each with its fix; of very much, the begin."""
    count = len(told)
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


def _all_told(asked: Asked, error: ErrorDetails, path: Path) -> Iterator[tuple[str, str]]:
    """What an error says: one thing, or each of those that were found at once."""
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, FaultsError):
        yield from (_told_of(asked, fault, (*path, *fault.within)) for fault in cause.faults)
    elif error["type"] == "union_tag_not_found":
        yield _told(asked, {**error, "type": "missing"}, (*path, "kind"))
    elif error["type"] == "union_tag_invalid":
        kind = error["input"]["kind"]
        yield _told(asked, {**error, "type": "literal_error", "input": kind}, (*path, "kind"))
    else:
        yield _told(asked, error, path)


def _told_of(asked: Asked, fault: Fault, path: Path) -> tuple[str, str]:
    key = _key_of(asked, path)
    value = f" is {shown(fault.value)}" if fault.is_value_shown else ""
    where = f"`{key}`{value}: " if key else ""
    return f"{asked.place_of(path[0])}: {where}{fault.problem}", fault.fix


def _key_of(asked: Asked, path: Path) -> str:
    """What a person calls a part of the request; of flags, they know no requirement's number."""
    if path[:1] == ("requirements",) and "requirements" in asked.flags:
        return _dotted(path[3:] if path[2:3] == ("fields",) else path[2:])
    return _dotted(path)


def _told(asked: Asked, error: ErrorDetails, path: Path) -> tuple[str, str]:
    """One thing that is wrong, with its place, and the fix."""
    place, key = asked.place_of(path[0] if path else None), _key_of(asked, path)
    model = _model_at(path, asked.values)
    known = model.model_fields if model is not None else {}
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


def _model_at(path: Path, values: Mapping[str, Any]) -> type[BaseModel] | None:
    """The model that holds the last part of a path; None where no model does."""
    if len(path) < 3 or path[0] != "requirements":
        return FeatureRequest
    requirement = values["requirements"][path[1]]
    kind = requirement.get("kind") if isinstance(requirement, dict) else None
    model = _KINDS.get(kind if isinstance(kind, str) else "", next(iter(_KINDS.values())))
    parts = [part for part in path[2:-1] if isinstance(part, str)]
    while parts:
        match parts:
            case ["fields", _, *rest] if model is Resource:
                model, parts = FieldSchema, rest
            case ["properties", _, *rest] if model is FieldSchema:
                parts = rest
            case ["items", *rest] if model is FieldSchema:
                parts = rest
            case ["fields" | "properties"]:
                return None
            case _:
                return model
    return model


def _fault(error: ErrorDetails) -> str:
    """What is wrong with a value, in the words of this house."""
    context = error.get("ctx", {})
    match error["type"]:
        case "value_error":
            return str(context["error"])
        case "literal_error" if error["loc"] == ("requirements", "literal['none']"):
            return "it has to be `none`, or a list"
        case "literal_error":
            return f"it has to be {context.get('expected') or context['expected_tags']}"
        case "string_too_long" | "too_long":
            parts = "characters" if isinstance(error["input"], str) else "entries"
            count, most = len(error["input"]), context["max_length"]
            return f"it has {count:,} {parts}, and may have {most:,} at most"
    return _FAULTS.get(error["type"], error["msg"])


def _dotted(path: Path) -> str:
    """`requirements[0].path`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{named(part)}" for part in path)
    text = text.removeprefix(".")
    return text if len(text) <= _MAX_KEY else f"{text[:_MAX_KEY]}…"


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
