"""All settings: one model a table, read from TOML, the environment and flags.

The models hold every default and description; `config/default.toml` is their printed form.
Over it go `config/<PETSAGE_ENV>.toml`, environment variables `PETSAGE_<TABLE>__<KEY>`, then
flags, merged table by table. An installed package needs no file at all.

Longer than 300 lines, of which 200 are the models: a table of what can be set, read as one.
"""

import json
import re
from collections.abc import Iterator, Mapping
from ipaddress import ip_network
from os import environ as process_environment
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings.sources import DefaultSettingsSource

from petsage.errors import SettingsError, did_you_mean, nearest
from petsage.sources import (
    Flag,
    Location,
    Source,
    TomlFile,
    explain,
    require_tables,
    variables,
)

ENVIRONMENT: Final = "PETSAGE_ENV"
TEST_DATABASE: Final = "PETSAGE_TEST_DATABASE"
"""What tests are told a server by that makes their databases; a server has no use for it."""
PREFIX: Final = "PETSAGE_"

FLAGS: Final[Mapping[Location, str]] = {
    ("server", "host"): "--host",
    ("server", "port"): "--port",
    ("catalog", "folders"): "--folder",
}
"""What the command line calls the settings that it can make."""

Level = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


AnyCaseLevel = Annotated[Level, BeforeValidator(_upper)]


def _is_name(value: str) -> str:
    if not value.isidentifier():
        raise ValueError("a name is letters, digits and underscores, and begins with no digit")
    return value


Name = Annotated[str, AfterValidator(_is_name)]


def _is_network(value: str) -> str:
    try:
        return str(ip_network(value))
    except ValueError as error:
        raise ValueError(f"a network is meant, like 10.0.0.0/8 or ::1: {error}") from None


Network = Annotated[str, AfterValidator(_is_network)]


class Table(BaseModel):
    """A table of settings; a key that it does not know is an error."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True
    )

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        annotation = cls.model_fields[info.field_name].annotation if info.field_name else None
        if isinstance(value, bool) and annotation in {int, float}:
            raise ValueError("a number is meant")
        return value


class ServerSettings(Table):
    """Where the server listens, and its limits."""

    host: str = Field("127.0.0.1", min_length=1, description="The address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="The port; 0 takes a free one.")
    drain_s: float = Field(
        1.0,
        ge=0,
        description="How long a stop goes on taking requests after `/readyz` has turned to 503, "
        "in seconds.",
    )
    shutdown_s: float = Field(
        10.0, ge=0, description="How long a stop waits for requests in flight, in seconds."
    )
    stall_ms: int = Field(
        500,
        ge=0,
        description="An event loop that stands still for so many milliseconds is logged; 0 for "
        "never.",
    )
    header_timeout_s: float = Field(
        10.0,
        gt=0,
        description="How long a request's head may take to arrive, in seconds: from the connect, "
        "later from its first byte.",
    )
    body_timeout_s: float = Field(
        30.0,
        gt=0,
        description="How long a request's body may take to arrive, in seconds; longer where at "
        "least a KiB a second of it comes.",
    )
    request_timeout_s: float = Field(
        60.0,
        ge=0,
        description="How long a handler may take until its answer begins, in seconds; 0 for as "
        "long as it likes.",
    )
    write_timeout_s: float = Field(
        60.0,
        gt=0,
        description="How long a client may take less than a KiB a second of what it is sent, in "
        "seconds.",
    )
    keepalive_s: float = Field(
        75.0, gt=0, description="How long an idle connection is kept open, in seconds."
    )
    max_connections: int = Field(
        10_000, ge=1, description="The most connections; on further ones, requests get a 503."
    )
    max_requests_in_flight: int = Field(
        1_000, ge=1, description="The most requests at a time; further ones get a 503."
    )
    max_body_bytes: int = Field(
        1024**2, ge=1, description="The largest request body; a larger one is answered 413."
    )
    max_header_bytes: int = Field(
        8190,
        ge=256,
        le=1024**2,
        description="The longest request line, and the longest single header; a whole head may "
        "be four times as long.",
    )
    max_header_count: int = Field(
        128, ge=8, le=10_000, description="The most headers of one request."
    )
    trusted_proxies: list[Network] = Field(
        [],
        description="The networks of the proxies whose `Forwarded` and `X-Forwarded-...` are "
        "believed.",
    )


class CatalogSettings(Table):
    """Which features are served."""

    folders: list[Path] = Field(
        [Path("features")], description="The folders whose packages are features."
    )
    watch: bool = Field(
        True, description="Whether folders that are added, changed or removed are taken up."
    )
    settle_ms: int = Field(
        200,
        ge=0,
        description="How long a folder has to be quiet before it is taken up, in milliseconds.",
    )
    check_timeout_s: float = Field(
        10.0,
        gt=0,
        description="How long the import of a feature may take when it is checked, in seconds.",
    )
    disabled: list[Name] = Field([], description="Features that are left out.")
    required: list[Name] = Field(
        [], description="Features without which the server does not start."
    )
    start_timeout_s: float = Field(
        10.0,
        gt=0,
        description="How long a feature's lifespan may take to start, or to stop, in seconds.",
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
    fsync: bool = Field(
        False, description="Whether a line counts as written only when the disk has it."
    )

    @model_validator(mode="after")
    def _path_goes_with_file(self) -> "SinkSettings":
        if self.kind == "file" and self.path is None:
            raise ValueError("a sink of the kind `file` needs a `path`")
        if self.kind != "file" and (self.path is not None or self.max_bytes or self.fsync):
            raise ValueError("`path`, `max_bytes` and `fsync` go with the kind `file` alone")
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
    proof_timeout_s: float = Field(
        1.0, gt=0, le=60, description="How long a proof waits for the sinks, in seconds."
    )
    flush_ms: int = Field(
        20,
        ge=0,
        le=60_000,
        description="How many milliseconds a line may wait for others, to be written with them.",
    )
    sinks: dict[Name, SinkSettings] = Field(
        {"stdout": SinkSettings(kind="stdout", required=True)},
        min_length=1,
        description="Where lines go, by name.",
    )

    @field_validator("redact")
    @classmethod
    def _a_proof_can_be_found(cls, words: list[str]) -> list[str]:
        for word in words:
            letters = re.sub(r"[\W_]+", "", word).lower()
            if letters and letters in "marker":
                raise ValueError(f"{word!r} would mask `marker`, by which a proven line is found")
        return words


class ManagementSettings(Table):
    """Who may look inside, and change things."""

    token: str | None = Field(
        None,
        min_length=16,
        repr=False,
        # What can stand in a header, and is the same after it.
        pattern=r"^[!-~]+$",
        description="What `Authorization: Bearer …` has to bear; unset, a random one is made.",
    )
    open_reads: Literal["loopback", "never"] = Field(
        "loopback",
        description="Whether reads need no token where the server listens on loopback alone.",
    )


SQLITE: Final = "sqlite:///"
POSTGRESQL: Final = "postgresql://"


class DatabaseSettings(Table):
    """Where features keep their data."""

    url: str = Field(
        "sqlite:///data/petsage.db",
        repr=False,  # it may have a password
        description="The database: sqlite:///<path>, or postgresql://user:password@host/name.",
    )
    pool_size: int = Field(
        10, ge=2, le=1000, description="The most connections to the database, of one process."
    )
    timeout_s: float = Field(
        5.0,
        gt=0,
        le=3600,
        description="How long to wait for a connection, for others' locks, and for a statement, "
        "in seconds each.",
    )

    @field_validator("url")
    @classmethod
    def _is_known(cls, url: str) -> str:
        scheme, _, rest = url.partition("://")
        name, _, driver = scheme.partition("+")
        if url.startswith(SQLITE):
            if url.removeprefix(SQLITE) in {"", ":memory:"}:
                raise ValueError("nothing would be kept: name a file, as in sqlite:///data/pets.db")
            if {"?", "#"} & {*rest}:
                raise ValueError("a path alone is taken, without `?` and `#`")
            return url
        if url.startswith(POSTGRESQL):
            return url
        if name == "sqlite" and not driver:
            raise ValueError("three slashes go before the path: sqlite:///data/pets.db")
        if name in {"sqlite", "postgresql", "postgres"}:
            right = "postgresql" if name == "postgres" else name
            raise ValueError(f"write `{right}://` without anything else before the slashes")
        match = nearest(name, ["sqlite", "postgresql"]) if "://" in url else None
        raise ValueError(
            f"it begins neither with {SQLITE} nor with {POSTGRESQL}"
            + (f"; did you mean `{match}://`?" if match else "")
        )


class Settings(BaseSettings):
    """All settings of one process; made by itself, the defaults: only `load_settings` reads any."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    server: ServerSettings = ServerSettings()
    catalog: CatalogSettings = CatalogSettings()
    logs: LogsSettings = LogsSettings()
    management: ManagementSettings = ManagementSettings()
    database: DatabaseSettings = DatabaseSettings()
    features: dict[str, dict[str, Any]] = Field(
        {},
        repr=False,  # nobody here knows which of them are secrets
        description="Each feature's own settings, in a table of its name.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What it is made of where nothing else is said: its arguments, and not the environment."""
        return (init_settings,)


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
    environ = process_environment if environ is None else environ
    weakest_first: list[Source] = [
        *_files(folder, environ),
        *variables(environ, Settings, PREFIX, apart={ENVIRONMENT, TEST_DATABASE}),
        *_flags(flags or {}),
    ]
    for source in weakest_first:
        require_tables(source, Settings)
    sources = weakest_first[::-1]
    # As a source of their own they are merged, too: a key of a sink leaves its others as they are.
    defaults = DefaultSettingsSource(Settings, nested_model_default_partial_update=True)
    try:
        return Settings(_build_sources=((*sources, defaults), {}))
    except ValidationError as error:
        raise explain(
            error.errors(), sources, Settings, secret={*LogsSettings().redact, "url"}
        ) from None


def _files(folder: Path, environ: Mapping[str, str]) -> Iterator[TomlFile]:
    """The files that are read, the one that wins last."""
    yield TomlFile(Settings, folder / "default.toml", optional=True)
    name = next((environ[each] for each in environ if each.upper() == ENVIRONMENT), "")
    if name in {"", "default"}:
        return
    # It is compared with the names that are there, so it cannot lead out of the folder.
    known = sorted(path.stem for path in folder.glob("*.toml"))
    if name not in known:
        raise SettingsError(
            f"{ENVIRONMENT} is {name!r}, and {folder} has no file for it",
            fix=f"write {folder}/<name>.toml, or unset {ENVIRONMENT}"
            + (f"; {did_you_mean(name, known)}" if known else ""),
        )
    yield TomlFile(Settings, folder / f"{name}.toml")


def _flags(flags: Mapping[str, Mapping[str, Any]]) -> Iterator[Flag]:
    """What the command line says, flag by flag."""
    for table, keys in flags.items():
        for key, value in keys.items():
            flag = FLAGS.get((table, key))
            name = f"the command line, {flag}" if flag else "the command line"
            yield Flag(Settings, name, {table: {key: value}})


def to_toml() -> str:
    """All settings with their defaults and descriptions: the text of `config/default.toml`."""
    lines = [
        "# Every setting, its default and its meaning. Written from petsage/settings.py by",
        "# `make fix`; put what differs into config/<name>.toml and start with PETSAGE_ENV=<name>.",
    ]
    defaults = Settings()
    for name, known in Settings.model_fields.items():
        table = getattr(defaults, name)
        if isinstance(table, BaseModel):
            lines += _table_lines(name, table)
        else:
            lines += ["", f"# {known.description}", f"# [{name}.<name>]"]
    return "\n".join(lines) + "\n"


def _table_lines(name: str, table: BaseModel) -> Iterator[str]:
    yield ""
    if table.__doc__:
        yield f"# {table.__doc__}"
    yield f"[{name}]"
    inner: dict[str, Mapping[str, BaseModel]] = {}
    for key, known in type(table).model_fields.items():
        value = getattr(table, key)
        if isinstance(value, Mapping) and any(
            isinstance(each, BaseModel) for each in value.values()
        ):
            inner[key] = value
            continue
        yield f"# {known.description}"
        # No value in TOML means None: the key is shown, and left out.
        yield f"{key} = {_toml_value(value)}" if value is not None else f"# {key} = …"
    for key, tables in inner.items():
        for each, model in tables.items():
            yield from _table_lines(f"{name}.{key}.{each}", model)


def _toml_value(value: Any) -> str:
    """A scalar, list or empty table as TOML; for these, JSON's spelling is TOML's too."""
    return json.dumps(value, default=str, ensure_ascii=False)
