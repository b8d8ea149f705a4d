"""All settings: one model a table, read from TOML, the environment and flags.

The models hold every default and description; `config/default.toml` is their printed form.
Over it go `config/<PETSAGE_ENV>.toml`, environment variables `PETSAGE_<TABLE>__<KEY>`, then
flags. An installed package needs no file at all.
"""

import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings import (
    SettingsError as SourceError,
)

from petsage.errors import SettingsError, did_you_mean

ENVIRONMENT = "PETSAGE_ENV"
PREFIX = "PETSAGE_"

Level = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


AnyCaseLevel = Annotated[Level, BeforeValidator(_upper)]


def _is_name(value: str) -> str:
    if not value.isidentifier():
        raise ValueError("a name is letters, digits and underscores, and begins with no digit")
    return value


Name = Annotated[str, AfterValidator(_is_name)]


class Table(BaseModel):
    """A table of settings; a key that it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerSettings(Table):
    """Where the server listens, and its limits."""

    host: str = Field("127.0.0.1", min_length=1, description="The address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="The port; 0 takes a free one.")
    shutdown_s: float = Field(
        10.0, ge=0, description="How long a stop waits for requests in flight, in seconds."
    )
    keepalive_s: float = Field(
        75.0, gt=0, description="How long an idle connection is kept open, in seconds."
    )
    max_body_bytes: int = Field(
        1024**2, ge=1, description="The largest request body; a larger one is answered 413."
    )
    max_header_bytes: int = Field(
        8190, ge=256, description="The longest request line, and the longest single header."
    )
    max_header_count: int = Field(128, ge=8, description="The most headers of one request.")


class CatalogSettings(Table):
    """Which features are served."""

    folders: list[Path] = Field(
        [Path("features")], description="The folders whose packages are features."
    )
    disabled: list[Name] = Field([], description="Features that are left out.")
    required: list[Name] = Field(
        [], description="Features without which the server does not start."
    )
    start_timeout_s: float = Field(
        10.0, gt=0, description="How long a feature's lifespan may take to start, or to stop."
    )


class SinkSettings(Table):
    """One place that log lines go to."""

    kind: Literal["stdout", "stderr", "file"] = Field(description="What it writes to.")
    path: Path | None = Field(None, description="The file, for the kind `file`.")
    level: AnyCaseLevel = Field("DEBUG", description="Records below this level are left out.")
    required: bool = Field(False, description="Whether a smoke test fails when it does.")
    queue_records: int = Field(
        10_000, ge=1, description="How many lines may wait; more are dropped and counted."
    )
    max_bytes: int = Field(
        0, ge=0, description="A file of this size is rotated; 0 leaves that to others."
    )
    backups: int = Field(5, ge=0, description="How many rotated files are kept.")

    @model_validator(mode="after")
    def _path_goes_with_file(self) -> "SinkSettings":
        if self.kind == "file" and self.path is None:
            raise ValueError("a sink of the kind `file` needs a `path`")
        if self.kind != "file" and (self.path is not None or self.max_bytes):
            raise ValueError("`path` and `max_bytes` go with the kind `file` alone")
        return self


class LogsSettings(Table):
    """What is logged, and where to."""

    level: AnyCaseLevel = Field("INFO", description="Records below this level are not made.")
    levels: dict[str, AnyCaseLevel] = Field(
        {}, description='Levels of single loggers: { "features.pets" = "DEBUG" }.'
    )
    redact: list[str] = Field(
        [
            "api_key",
            "apikey",
            "authorization",
            "cookie",
            "credential",
            "passphrase",
            "passwd",
            "password",
            "private_key",
            "secret",
            "session",
            "token",
        ],
        description="A value is masked when its key contains one of these.",
    )
    max_line_bytes: int = Field(
        32_768, ge=1024, description="A longer line is cut, and says so in itself."
    )
    flush_ms: int = Field(
        20, ge=0, description="How long a line may wait for others, to be written with them."
    )
    sinks: dict[Name, SinkSettings] = Field(
        {"stdout": SinkSettings(kind="stdout", required=True)},
        min_length=1,
        description="Where lines go, by name.",
    )


class Settings(BaseSettings):
    """All settings of one process."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        nested_model_default_partial_update=True,
    )

    server: ServerSettings = ServerSettings()
    catalog: CatalogSettings = CatalogSettings()
    logs: LogsSettings = LogsSettings()
    features: dict[str, dict[str, Any]] = Field(
        {}, description="Each feature's own settings, in a table of its name."
    )


@dataclass(frozen=True)
class _Source:
    """One place that settings come from, by the name that a person calls it."""

    name: str
    values: Mapping[str, Any]


def load_settings(
    flags: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    folder: Path = Path("config"),
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """The settings of this process.

    Args:
        flags: what the command line says, by table and key; it goes over everything.
        folder: where `default.toml` and `<PETSAGE_ENV>.toml` are.
        environ: the environment; that of the process where left out.

    Raises:
        SettingsError: a file that cannot be read, an unknown key or `PETSAGE_ENV`, a value of
            the wrong type; it names the place, the key, the value and the fix.
    """
    environ = os.environ if environ is None else environ
    sources = [
        _Source("the command line", dict(flags or {})),
        _Source("the environment", _from_environment(environ)),
        *(_Source(str(path), _from_file(path)) for path in _files(folder, environ)),
    ]

    class _Loaded(Settings):
        """`Settings` from exactly these sources; pydantic-settings merges them, first over last."""

        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], *_: object, **__: object
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return tuple(
                InitSettingsSource(settings_cls, dict(source.values)) for source in sources
            )

    try:
        loaded = _Loaded()
    except ValidationError as error:
        raise _explain(error.errors()[0], sources) from None
    return Settings.model_construct(
        **{name: getattr(loaded, name) for name in Settings.model_fields}
    )


def _files(folder: Path, environ: Mapping[str, str]) -> Iterator[Path]:
    """The files that are read, the one that wins first."""
    name = environ.get(ENVIRONMENT)
    if name is not None:
        known = sorted(path.stem for path in folder.glob("*.toml"))
        if name not in known:
            raise SettingsError(
                f"{ENVIRONMENT} is {name!r}, and there is no {folder / (name + '.toml')}",
                fix=f"write that file, or unset {ENVIRONMENT}"
                + (f"; {did_you_mean(name, known)}" if known else ""),
            )
        yield folder / f"{name}.toml"
    if name != "default" and (folder / "default.toml").is_file():
        yield folder / "default.toml"


def _from_file(path: Path) -> dict[str, Any]:
    try:
        return TomlConfigSettingsSource(Settings, path)()
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is not TOML: {error}", fix="mend that line") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is not UTF-8: {error}", fix="save it as UTF-8") from None
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be read: {error.strerror}", fix="make it a file that you may read"
        ) from None


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """What `PETSAGE_<TABLE>__<KEY>` variables say; a table that is not known is an error."""
    for name in environ:
        if not name.startswith(PREFIX) or name == ENVIRONMENT:
            continue
        table = name.removeprefix(PREFIX).partition("__")[0].lower()
        if table not in Settings.model_fields:
            raise SettingsError(
                f"the environment variable {name} names no table of settings",
                fix=did_you_mean(table, list(Settings.model_fields)),
            )

    class _Environment(EnvSettingsSource):
        def _load_env_vars(self) -> Mapping[str, str]:
            return {name.lower(): value for name, value in environ.items()}

    try:
        return _Environment(Settings)()
    except SourceError as error:
        raise SettingsError(
            f"an environment variable cannot be read: {error}",
            fix="write tables and lists as JSON, and single keys as PETSAGE_<TABLE>__<KEY>",
        ) from None


def _explain(error: ErrorDetails, sources: list[_Source]) -> SettingsError:
    """The first thing wrong, with its place, key, value and fix."""
    location = _plain(error["loc"])
    place = next((source for source in sources if _holds(source.values, location)), None)
    name = place.name if place is not None else "the settings"
    key = ".".join(location)
    if error["type"] == "extra_forbidden":
        right = _keys_beside(location)
        return SettingsError(f"{name}: unknown key `{key}`", fix=did_you_mean(location[-1], right))
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        return SettingsError(f"{name}: `{key}` is missing", fix=f"set `{key}`")
    return SettingsError(
        f"{name}: `{key}` is {_shown(location, error['input'])}: {message}",
        fix=f"change `{key}`{_meaning(location)}",
    )


def _plain(location: tuple[int | str, ...]) -> list[str]:
    """The location as keys; pydantic adds "[key]" where a key itself is wrong."""
    return [str(part) for part in location if part != "[key]"]


def _holds(values: Any, location: list[str]) -> bool:
    for key in location:
        if isinstance(values, list) and key.isdigit() and int(key) < len(values):
            values = values[int(key)]
        elif isinstance(values, Mapping) and key in values:
            values = values[key]
        else:
            return False
    return True


def _model_at(location: list[str]) -> type[BaseModel] | None:
    """The table that `location` names, through dicts of tables too."""
    model: Any = Settings
    for key in location:
        if isinstance(model, type) and issubclass(model, BaseModel):
            field = model.model_fields.get(key)
            model = field.annotation if field is not None else None
        else:
            arguments = get_args(model)
            model = arguments[-1] if arguments else None
    return model if isinstance(model, type) and issubclass(model, BaseModel) else None


def _keys_beside(location: list[str]) -> list[str]:
    model = _model_at(location[:-1])
    return list(model.model_fields) if model is not None else []


def _meaning(location: list[str]) -> str:
    model = _model_at(location[:-1])
    field = model.model_fields.get(location[-1]) if model is not None else None
    return f" ({field.description})" if field is not None and field.description else ""


def _shown(location: list[str], value: Any) -> str:
    """The value as it was written, unless its key tells of a secret."""
    if any(
        word in part.lower() for part in location for word in ("token", "password", "secret", "url")
    ):
        return "set to a value that is kept from this message"
    text = repr(value) if not isinstance(value, BaseModel) else "this table"
    return text if len(text) <= 200 else text[:200] + "…"


def to_toml() -> str:
    """All settings with their defaults and descriptions: the text of `config/default.toml`."""
    lines = [
        "# Every setting, its default and its meaning. Written from petsage/settings.py by",
        "# `make fix`; put what differs into config/<name>.toml and start with PETSAGE_ENV=<name>.",
    ]
    defaults = Settings.model_construct()
    for name, field in Settings.model_fields.items():
        table = getattr(defaults, name)
        if isinstance(table, BaseModel):
            lines += _table_lines(name, table)
        else:
            lines += ["", f"# {field.description}", f"# [{name}.<name>]"]
    return "\n".join(lines) + "\n"


def _table_lines(name: str, table: BaseModel) -> Iterator[str]:
    yield ""
    if table.__doc__:
        yield f"# {table.__doc__}"
    yield f"[{name}]"
    inner: dict[str, Mapping[str, BaseModel]] = {}
    for key, field in type(table).model_fields.items():
        value = getattr(table, key)
        if isinstance(value, Mapping) and any(
            isinstance(each, BaseModel) for each in value.values()
        ):
            inner[key] = value
            continue
        yield f"# {field.description}"
        # No value in TOML means None: the key is shown, and left out.
        yield f"{key} = {_toml_value(value)}" if value is not None else f"# {key} = …"
    for key, tables in inner.items():
        for each, model in tables.items():
            yield from _table_lines(f"{name}.{key}.{each}", model)


def _toml_value(value: Any) -> str:
    """A scalar, list or empty table as TOML; for these, JSON's spelling is TOML's too."""
    return json.dumps(value, default=str, ensure_ascii=False)
