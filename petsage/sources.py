"""Where settings come from: files, the environment, flags; and what is wrong with what they say.

pydantic-settings reads each of them and puts one over another. Here each source has the name by
which a person finds it (a file, a variable, a flag) and is asked by itself, so that a mistake has a
place. Nothing here knows a particular setting: the model that is to be filled is an argument.
"""

import json
import tomllib
from collections.abc import Collection, Iterator, Mapping
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeGuard, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    TomlConfigSettingsSource,
)

from petsage.errors import SettingsError, did_you_mean

Location = tuple[str, ...]
Model = type[BaseModel]


class TomlFile(TomlConfigSettingsSource):
    """What a TOML file says; nothing, where it is optional and not there.

    Raises:
        SettingsError: it cannot be read.
    """

    def __init__(self, model: type[BaseSettings], path: Path, *, optional: bool = False) -> None:
        self.name = str(path)
        try:
            super().__init__(model, path)
            if not path.is_file():
                # The library has passed over it: what is no file is read, or named as a mistake.
                self.init_kwargs = self._read_file(path)
        except tomllib.TOMLDecodeError as error:
            raise SettingsError(f"{path} is not TOML: {error}", fix="mend that line") from None
        except UnicodeDecodeError as error:
            raise SettingsError(
                f"{path} is not UTF-8: {error.reason} at byte {error.start}", fix="save it as UTF-8"
            ) from None
        except OSError as error:
            if optional and isinstance(error, FileNotFoundError | NotADirectoryError):
                return
            raise SettingsError(
                f"{path} cannot be read: {error.strerror}", fix="make it a file that you may read"
            ) from None

    def _read_file(self, file_path: Path | Traversable) -> dict[str, Any]:
        # Some editors begin a file with U+FEFF, which TOML does not know.
        return tomllib.loads(file_path.read_bytes().decode("utf-8-sig"))


class Variable(EnvSettingsSource):
    """What the environment variable `<prefix><TABLE>__<KEY>` says, in upper case or not.

    Args:
        model: what is to be filled.
        prefix: what the names of its variables begin with.
        variable: its name.
        text: its value.

    Attributes:
        location: the setting that it means.

    Asked for what it says, it raises a SettingsError where that has to be JSON and is not.
    """

    def __init__(self, model: type[BaseSettings], prefix: str, variable: str, text: str) -> None:
        super().__init__(model, env_prefix=prefix, env_nested_delimiter="__")
        # It alone, so that what is wrong has a name; the library would read the whole environment.
        self.env_vars = {variable.lower(): text}
        self.name = f"the environment, {variable}"
        self.location: Location = tuple(variable[len(prefix) :].lower().split("__"))
        self._variable = variable
        self._text = text

    def __call__(self) -> dict[str, Any]:
        """The value, in the tables around it."""
        if not self._text and _is_json(_annotation_at(self.settings_cls, self.location)):
            # The library asks for JSON only where there is a text.
            raise self._no_json()
        # To it `null` is nothing said; but it stands for a table, and is refused as such.
        return super().__call__() or {self.location[0]: None}

    def next_field(
        self, field: FieldInfo | Any | None, key: str, case_sensitive: bool | None = None
    ) -> Any:
        """The declaration of a key, or its type alone.

        A feature's own settings are known to that feature alone: there JSON is what looks like it.
        """
        found: Any = Any if field is Any else super().next_field(field, key, case_sensitive)
        return dict[str, Any] if found is Any and self._text.lstrip()[:1] in {"[", "{"} else found

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """The value of a list or a table."""
        try:
            return super().decode_complex_value(field_name, field, value)
        except (ValueError, RecursionError):
            raise self._no_json() from None

    def _no_json(self) -> SettingsError:
        return SettingsError(
            f"{self.name}: it has to be JSON, and is not",
            fix='write a list as ["a", "b"] and a table as {"key": 1}, or set its keys one by one, '
            f"as {self._variable}__<KEY>",
        )


class Flag(InitSettingsSource):
    """What one flag of the command line says: a value, by table and key."""

    def __init__(self, model: type[BaseSettings], name: str, values: dict[str, Any]) -> None:
        super().__init__(model, values)
        self.name = name


Source = TomlFile | Variable | Flag


def variables(
    environ: Mapping[str, str], model: type[BaseSettings], prefix: str, *, apart: Collection[str]
) -> Iterator[Variable]:
    """Our variables, the one that wins last: one for a single key goes over one for its table.

    The library would pass over those that are refused here.

    Args:
        environ: the environment.
        model: what is to be filled; its fields are the tables.
        prefix: what the names of its variables begin with.
        apart: names that begin so and are no settings.

    Raises:
        SettingsError: a variable names no table, or is there twice.
    """
    spelled: dict[Location, str] = {}
    for name in sorted(environ, key=lambda each: (each.count("__"), each)):
        if not name.upper().startswith(prefix) or name.upper() in apart:
            continue
        variable = Variable(model, prefix, name, environ[name])
        table = variable.location[0]
        if table not in model.model_fields:
            raise SettingsError(
                f"{variable.name}: there is no table `{table}`",
                fix=_right_variable(name, model, prefix),
            )
        other = spelled.setdefault(variable.location, name)
        if other != name:
            raise SettingsError(
                f"the environment has {other} and {name}, which are the same setting",
                fix="unset one of them",
            )
        yield variable


def require_tables(source: Source, model: Model) -> None:
    """Refuses a value that stands for a table and is none.

    Merged with others first, it would be hidden by whoever sets a key of that table after it.

    Raises:
        SettingsError: there is one.
    """
    for location, value in _leaves(source(), ()):
        if _is_table(_annotation_at(model, location)):
            raise SettingsError(
                f"{source.name}: `{_dotted(location)}` is a {type(value).__name__} and no table",
                fix="set its keys one by one",
            )


def _leaves(values: Mapping[str, Any], above: Location) -> Iterator[tuple[Location, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*above, str(key)))
        else:
            yield (*above, str(key)), value


def _is_table(annotation: Any) -> bool:
    kind = get_origin(annotation) or annotation
    return kind is dict or _is_model(kind)


def _is_json(annotation: Any) -> bool:
    """Whether a variable for this is JSON: a list or a table."""
    return _is_table(annotation) or (get_origin(annotation) or annotation) is list


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
    """The source that says what is wrong."""
    for length in range(len(location), 0, -1):
        for source in sources:
            if _holds(source(), location[:length]):
                return source.name
    return "the settings"


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
