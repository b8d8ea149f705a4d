"""Where settings come from: files, the environment, flags; and what is wrong with what they say.

Nothing here knows a particular setting: the model that is to be filled is an argument. It is not
pydantic-settings: its import takes 45 ms of a start, it passes over a file that is a folder, and
its errors name neither file nor variable.
"""

import json
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from petsage.errors import SettingsError, did_you_mean

Location = tuple[str, ...]
Model = type[BaseModel]


@dataclass(frozen=True)
class Source:
    """One place that settings come from.

    Attributes:
        name: what a person calls it.
        values: what it says, by table and key.
        spelled: how it spells the keys that it does not call by their names.
    """

    name: str
    values: Mapping[str, Any]
    spelled: Mapping[Location, str] = field(default_factory=dict)


def merged(below: Any, above: Any) -> Any:
    """One value over another: tables key by key, everything else as a whole."""
    if not (isinstance(below, Mapping) and isinstance(above, Mapping)):
        return above
    both = {key: merged(below[key], above[key]) for key in above if key in below}
    return {**below, **above, **both}


def file_source(path: Path, *, optional: bool = False) -> Source:
    """What a TOML file says.

    Args:
        path: the file.
        optional: whether one that is not there says nothing.

    Raises:
        SettingsError: it cannot be read.
    """
    try:
        # Some editors begin a file with U+FEFF, which TOML does not know.
        return Source(str(path), tomllib.loads(path.read_bytes().decode("utf-8-sig")))
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is not TOML: {error}", fix="mend that line") from None
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"{path} is not UTF-8: {error.reason} at byte {error.start}", fix="save it as UTF-8"
        ) from None
    except OSError as error:
        if optional and isinstance(error, FileNotFoundError | NotADirectoryError):
            return Source(str(path), {})
        raise SettingsError(
            f"{path} cannot be read: {error.strerror}", fix="make it a file that you may read"
        ) from None


def environment_source(
    environ: Mapping[str, str], model: Model, prefix: str, *, apart: Collection[str] = ()
) -> Source:
    """What variables `<prefix><TABLE>__<KEY>` say, in upper case or not.

    Args:
        environ: the environment.
        model: what is to be filled; its fields are the tables.
        prefix: what the names of its variables begin with.
        apart: names that begin so and are no settings.

    Raises:
        SettingsError: a variable names no table, has to be JSON and is not, or is there twice.
    """
    values: Any = {}
    spelled: dict[Location, str] = {}
    # A variable for a single key goes over one for its whole table.
    for name in sorted(environ, key=lambda each: (each.count("__"), each)):
        if not name.upper().startswith(prefix) or name.upper() in apart:
            continue
        location = tuple(name[len(prefix) :].lower().split("__"))
        if location[0] not in model.model_fields:
            raise SettingsError(
                f"the environment, {name}: there is no table `{location[0]}`",
                fix=_right_variable(name, model, prefix),
            )
        if location in spelled:
            raise SettingsError(
                f"the environment has {spelled[location]} and {name}, which are the same setting",
                fix="unset one of them",
            )
        spelled[location] = name
        value = _parsed(name, environ[name], _annotation_at(model, location))
        for key in reversed(location):
            value = {key: value}
        require_tables(Source("the environment", value, spelled), model)
        values = merged(values, value)
    return Source("the environment", values, spelled)


def require_tables(source: Source, model: Model) -> None:
    """Refuses a value that stands for a table and is none.

    Merged with others first, it would be hidden by whoever sets a key of that table after it.

    Raises:
        SettingsError: there is one.
    """
    _require_tables(source, source.values, model, ())


def _require_tables(
    source: Source, values: Mapping[str, Any], model: Model, above: Location
) -> None:
    for key, value in values.items():
        location = (*above, str(key))
        if isinstance(value, Mapping):
            _require_tables(source, value, model, location)
        elif _is_table(_annotation_at(model, location)):
            raise SettingsError(
                f"{_place(location, [source])}: `{_dotted(location)}` is "
                f"a {type(value).__name__} and no table",
                fix="set its keys one by one",
            )


def _is_table(annotation: Any) -> bool:
    kind = get_origin(annotation) or annotation
    return kind is dict or _is_model(kind)


def explain(
    errors: list[ErrorDetails], sources: list[Source], model: Model, *, secret: Collection[str]
) -> SettingsError:
    """One thing that is wrong, with its place, key, value and fix.

    Args:
        errors: all that is wrong; a misspelt key explains the one that is missing, so it is first.
        sources: the one that wins first.
        model: what was to be filled.
        secret: a value is not shown when its key contains one of these.
    """
    error = next((each for each in errors if each["type"] == "extra_forbidden"), errors[0])
    # pydantic adds "[key]" where a key itself is wrong.
    location = tuple(str(part) for part in error["loc"] if part != "[key]")
    table = _annotation_at(model, location[:-1])
    fields = table.model_fields if _is_model(table) else {}
    place, key = _place(location, sources), _dotted(location)
    if error["type"] == "extra_forbidden":
        kind = "key" if len(location) > 1 else "table"
        fix = did_you_mean(location[-1], list(fields))
        return SettingsError(f"{place}: unknown {kind} `{key}`", fix=fix)
    known = fields.get(location[-1])
    meaning = f" ({known.description})" if known is not None and known.description else ""
    if error["type"] == "missing":
        return SettingsError(f"{place}: `{key}` is missing", fix=f"set `{key}`{meaning}")
    message = error["msg"].removeprefix("Value error, ")
    return SettingsError(
        f"{place}: `{key}` is {_shown(location, error, secret)}: {message}",
        fix=f"change `{key}`{meaning}",
    )


def _right_variable(name: str, model: Model, prefix: str) -> str:
    """What a variable that names no table was meant to be: often an underscore is missing."""
    rest = name[len(prefix) :].lower()
    for table in model.model_fields:
        if rest.startswith(f"{table}_"):
            key = rest.removeprefix(table).strip("_")
            return f"did you mean {prefix}{table.upper()}__{key.upper()}?"
    return did_you_mean(rest.partition("__")[0], list(model.model_fields))


def _parsed(name: str, text: str, annotation: Any) -> Any:
    """The value of a variable: text for a scalar, JSON for a list or a table.

    A feature's own settings are known to that feature alone: there JSON is what looks like it.
    """
    kind = get_origin(annotation) or annotation
    must_be_json = kind in {list, dict} or _is_model(kind)
    if not must_be_json and not (annotation is Any and text.lstrip()[:1] in {"[", "{"}):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise SettingsError(
            f"the environment, {name}: it has to be JSON, and is not",
            fix='write a list as ["a", "b"] and a table as {"key": 1}, or set its keys one by one, '
            f"as {name}__<KEY>",
        ) from None


def _is_model(kind: Any) -> TypeGuard[Model]:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _annotation_at(model: Model, location: Location) -> Any:
    """The type that a setting is declared with, through dicts and lists too; None if unknown."""
    kind: Any = model
    for key in location:
        if _is_model(kind):
            known = kind.model_fields.get(key)
            kind = known.annotation if known is not None else None
        else:
            kind = next(iter(get_args(kind)[-1:]), None)
    return kind


def _place(location: Location, sources: list[Source]) -> str:
    """The source that says what is wrong, and how it spells it if not by its name."""
    for length in range(len(location), 0, -1):
        for source in sources:
            if _holds(source.values, location[:length]):
                name = _spelling(location[:length], source.spelled)
                return f"{source.name}, {name}" if name else source.name
    return "the settings"


def _spelling(location: Location, spelled: Mapping[Location, str]) -> str | None:
    """How a setting was spelt: itself, a table around it, or else the first thing in it."""
    for length in range(len(location), 0, -1):
        if location[:length] in spelled:
            return spelled[location[:length]]
    within = (name for place, name in spelled.items() if place[: len(location)] == location)
    return next(within, None)


def _holds(values: Any, location: Location) -> bool:
    for key in location:
        if isinstance(values, list) and key.isdecimal() and int(key) < len(values):
            values = values[int(key)]
        elif isinstance(values, Mapping) and key in values:
            values = values[key]
        else:
            return False
    return True


def _dotted(location: Location) -> str:
    """A key as TOML spells it, on one line whatever is in it."""
    bare = (part.replace("_", "a").replace("-", "a") for part in location)
    return ".".join(
        part if plain.isascii() and plain.isalnum() else json.dumps(part)
        for part, plain in zip(location, bare, strict=True)
    )


def _shown(location: Location, error: ErrorDetails, secret: Collection[str]) -> str:
    """The value as it was written, unless it may be a secret."""
    value = error["input"]
    if isinstance(value, Mapping | BaseModel):
        return "this table"
    if any(word in part.lower() for part in location for word in secret):
        return "set to a value that is kept from this message"
    if error["type"] in {"model_type", "dict_type"}:
        # What stands for a whole table may be one of its secrets.
        return f"a {type(value).__name__} and no table"
    text = repr(value)
    return text if len(text) <= 200 else text[:200] + "…"
