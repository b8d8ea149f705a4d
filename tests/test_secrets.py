"""Secrets, each with a mark of its own, and all that PetSage says: no mark is in any of it.

One server is given every secret, and everything that might tell one is provoked. What it and the
commands say is searched: the log on standard output and in a file, standard error, answers with
their headers, and the arguments of every process.
"""

import contextlib
import http.client
import json
import os
import signal
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from pydantic import BaseModel, ValidationError
from sqlalchemy import CheckConstraint, Column, Integer, MetaData, String, Table, insert, text
from sqlalchemy.exc import DBAPIError

from petsage.builder.children import environment, guarded, run
from petsage.errors import words_of
from petsage.fresh_database import fresh_database
from petsage.loader import load_features, unload
from petsage.logs.tracebacks import exception_lines
from petsage.settings import DatabaseSettings, ManagementSettings, Settings, load_settings
from petsage.storage.postgresql import PostgresqlEngine
from petsage.token_file import TokenFileError, read_token_file, write_token_file
from tests.conftest import ServerProcess, clean_environment

ROOT = Path(__file__).parent.parent

SECRETS = {
    "management token": "kestrel-management",
    "wrong token": "kestrel-unmanaged",
    "database password": "kestrel-database",
    "database password behind the ?": "kestrel-query",
    "password of a feature": "kestrel-password",
    "token of a feature": "kestrel-token",
    "SecretStr of a feature": "kestrel-sealed",
    "environment of a feature": "kestrel-environ",
    "setting that a lifespan refuses": "kestrel-lifespan",
    "setting that a validator quotes": "kestrel-quoted",
    "setting that is a tag": "kestrel-tag",
    "setting that a validator raises with": "kestrel-raised",
    "setting of nobody": "kestrel-nobody",
    "Authorization": "kestrel-authorization",
    "Cookie": "kestrel-cookie",
    "Set-Cookie": "kestrel-baked",
    "X-Api-Key": "kestrel-key",
    "query": "kestrel-asked",
    "body": "kestrel-body",
}
SPOKEN = "kestrel-spoken"
"""What a feature says in plain words; that it is found shows that the search finds."""

LEAKY = '''
    """Has secrets."""
    import logging
    from typing import Annotated, Literal

    from aiohttp import web
    from petsage import SETTINGS, Check, Feature, FromApp, Routes
    from pydantic import BaseModel, Field, SecretStr

    log = logging.getLogger(__name__)
    routes = Routes()


    class Own(BaseModel):
        password: str
        api_token: str
        sealed: SecretStr


    class Cat(BaseModel):
        kind: Literal["cat"]
        lives: int


    class Dog(BaseModel):
        kind: Literal["dog"]


    class Wanted(BaseModel):
        pet: Annotated[Cat | Dog, Field(discriminator="kind")]


    @routes.get("/leaky/log")
    async def tell(request: web.Request, own: Annotated[Own, FromApp(SETTINGS)]) -> web.Response:
        """Logs all that it has."""
        answer = web.json_response({})
        answer.set_cookie("session", "kestrel-baked")
        told = {
            "own": own,
            "asked": request.headers,
            "answered": answer.headers,
            "pairs": list(request.headers.items()),
            "raw": request.raw_headers,
            "cookies": answer.cookies,
            "sealed_is": own.sealed,
        }
        log.warning("Told", extra=told)
        log.warning(told)
        log.warning("Sealed is %s of %s", own.sealed, request)
        log.warning("kestrel-spoken")
        return answer


    @routes.get("/leaky/boom")
    async def fail(own: Annotated[Own, FromApp(SETTINGS)]) -> dict[str, str]:
        """Fails with a secret at hand."""
        raise RuntimeError("boom")


    @routes.post("/leaky/refuse")
    async def refuse(request: web.Request, own: Annotated[Own, FromApp(SETTINGS)]) -> None:
        """Fails on what it was sent, and on what it was given."""
        try:
            Cat.model_validate_json(await request.read())
        except ValueError as error:
            raise ExceptionGroup("both", [error, *_refusals(own)]) from error


    def _refusals(own: Own) -> list[Exception]:
        try:
            Cat.model_validate({"kind": own.password, "lives": own.api_token})
        except ValueError as error:
            return [error]
        return []


    @routes.post("/leaky/take")
    async def take(body: Wanted) -> None:
        """Takes a body."""


    async def probe(app: web.Application) -> None:
        Cat.model_validate({"kind": app[SETTINGS].password})


    feature = Feature(routes, settings=Own, checks=[Check("own", probe)])
'''
TOP = '''
    """Is set aside."""
    import ctypes
    from typing import Annotated, Literal

    from petsage import SETTINGS, Feature, Routes
    from pydantic import BaseModel, Field, field_validator
    from pydantic_settings import BaseSettings
'''
FAULTY = {
    "starts": """
        class Lives(BaseModel):
            lives: int


        class Own(BaseModel):
            password: str


        async def lifespan(app):
            Lives.model_validate({"lives": app[SETTINGS].password})
            yield


        feature = Feature(Routes(), settings=Own, lifespan=lifespan)
    """,
    "imports": """
        class Own(BaseSettings):
            own_env_password: int


        Own()
        feature = Feature(Routes())
    """,
    "quotes": """
        class One(BaseModel):
            kind: Literal["one"]


        class Two(BaseModel):
            kind: Literal["two"]


        class Own(BaseModel):
            password: str
            other: Annotated[One | Two, Field(discriminator="kind")]

            @field_validator("password")
            @classmethod
            def _refuse(cls, value):
                raise ValueError(f"{value} is no good")


        feature = Feature(Routes(), settings=Own)
    """,
    "raises": """
        class Own(BaseModel):
            password: str

            @field_validator("password")
            @classmethod
            def _refuse(cls, value):
                raise RuntimeError(f"{value} is no good")


        feature = Feature(Routes(), settings=Own)
    """,
    "crashes": """
        ctypes.string_at(0)
        feature = Feature(Routes())
    """,
}
ENVIRONMENT = {
    "PETSAGE_MANAGEMENT__TOKEN": SECRETS["management token"],
    "PETSAGE_DATABASE__URL": "postgresql://rex:kestrel-database%2F%40@127.0.0.1:1/pets"
    "?password=kestrel-query",
    "PETSAGE_FEATURES__LEAKY__PASSWORD": SECRETS["password of a feature"],
    "PETSAGE_FEATURES__LEAKY__API_TOKEN": SECRETS["token of a feature"],
    "PETSAGE_FEATURES__LEAKY__SEALED": SECRETS["SecretStr of a feature"],
    "PETSAGE_FEATURES__STARTS__PASSWORD": SECRETS["setting that a lifespan refuses"],
    "PETSAGE_FEATURES__QUOTES__PASSWORD": SECRETS["setting that a validator quotes"],
    "PETSAGE_FEATURES__QUOTES__OTHER__KIND": SECRETS["setting that is a tag"],
    "PETSAGE_FEATURES__RAISES__PASSWORD": SECRETS["setting that a validator raises with"],
    "PETSAGE_FEATURES__NOBODY__PASSWORD": SECRETS["setting of nobody"],
    "OWN_ENV_PASSWORD": SECRETS["environment of a feature"],
    "PETSAGE_LOGS__SINKS__FILE__KIND": "file",
    "PETSAGE_LOGS__SINKS__FILE__PATH": "all.jsonl",
    "PETSAGE_LOGS__FLUSH_MS": "0",
    "PETSAGE_CATALOG__WATCH": "false",
}
HEADERS = {
    "Authorization": f"Bearer {SECRETS['Authorization']}",
    "Cookie": f"theme={SECRETS['Cookie']}",
    "X-Api-Key": SECRETS["X-Api-Key"],
    "Accept": "application/json",
}
BEARER = {"Authorization": f"Bearer {SECRETS['management token']}"}
JSON = {"Content-Type": "application/json"}
BODY = json.dumps({"kind": SECRETS["body"], "lives": SECRETS["body"]})


@dataclass
class Told:
    """All that was said.

    Attributes:
        texts: by where it was said.
        statuses: of the answers, by what was asked.
        lines: of the log.
    """

    texts: dict[str, str] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    lines: list[dict[str, Any]] = field(default_factory=list)


def ask(
    told: Told, address: str, what: str, headers: dict[str, str], body: str | None = None
) -> None:
    """Notes an answer, with its headers but for the cookies, which are for who asked."""
    method, _, target = what.partition(" ")
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=30)
    with contextlib.closing(connection):
        connection.request(method, target, body, {**HEADERS, **headers})
        answer = connection.getresponse()
        named = [f"{name}: {each}" for name, each in answer.getheaders() if name != "Set-Cookie"]
        told.statuses[what] = answer.status
        told.texts[f"answer to {what}"] = "\n".join([*named, answer.read().decode()])


def processes(pid: int) -> list[int]:
    """A process and all that descend from it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in processes(int(child)))]


def arguments(pid: int) -> str:
    return "\n".join(
        Path(f"/proc/{each}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        for each in processes(pid)
    )


def provoke(told: Told, server: ServerProcess) -> None:
    """Asks for everything that might tell a secret."""
    for path in (*("/leaky/log", "/leaky/boom", "/nothing-is-here", "/leaky/log/?", "/%zz"),):
        ask(told, server.address, f"GET /api/v1{path}?token={SECRETS['query']}", {})
    for path in ("/features", "/features/leaky", "/features/quotes", "/loggers", "/metrics"):
        ask(told, server.address, f"GET {path}", {})
    for path in ("/docs", "/api/v1/pets"):
        ask(told, server.address, f"GET {path}", {})
    for path in (
        "/readyz?verbose",
        "/readyz/leaky.own",
        "/livez?verbose",
        "/openapi.json",
        "/docs",
    ):
        ask(told, server.address, f"GET {path}", {})
    ask(told, server.address, "POST /api/v1/leaky/refuse", JSON, BODY)
    ask(told, server.address, "POST /api/v1/leaky/take", JSON, f'{{"pet": {BODY}}}')
    ask(told, server.address, "PUT /api/v1/leaky/take", JSON, BODY)
    ask(told, server.address, "POST /api/v1/leaky/take?broken", JSON, f'{{"pet": {BODY}')
    wrong = {"Authorization": f"Bearer {SECRETS['wrong token']}"}
    ask(told, server.address, "POST /features/reload", wrong)
    ask(told, server.address, "PUT /loggers/root", {**JSON, **BEARER}, BODY)


def write_features(project: Path, sources: dict[str, str]) -> None:
    for name, source in sources.items():
        folder = project / "features" / name
        folder.mkdir(parents=True)
        top = "" if name == "leaky" else textwrap.dedent(TOP)
        (folder / "__init__.py").write_text(top + textwrap.dedent(source), encoding="utf-8")


@pytest.fixture(scope="module")
def told(
    tmp_path_factory: pytest.TempPathFactory, bytecode_apart: None, tokens_apart: None
) -> Told:
    told = Told()
    project = tmp_path_factory.mktemp("secrets") / "project"
    write_features(project, {"leaky": LEAKY, **FAULTY})
    keeper = ROOT / "tests" / "features_data" / "pets"
    (project / "features" / "pets").mkdir()
    for file in keeper.rglob("*.py"):
        copy = project / "features" / "pets" / file.relative_to(keeper)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(file.read_bytes())
    server = ServerProcess(project, (), ENVIRONMENT)
    try:
        told.texts["arguments"] = arguments(server.pid)
        provoke(told, server)
        # The next checker is begun as a program, which has arguments of its own.
        os.kill(processes(server.pid)[1], signal.SIGKILL)
        (project / "features" / "leaky" / "late.py").write_text("")
        ask(told, server.address, "POST /features/reload", {**BEARER, **JSON}, "{}")
        told.texts["arguments of the second checker"] = arguments(server.pid)
        server.signal(signal.SIGTERM)
        told.statuses["the end"], told.texts["standard error"] = server.end()
    finally:
        server.kill()
    told.lines = server.lines
    told.texts["standard output"] = json.dumps(server.lines)
    told.texts["file"] = (project / "all.jsonl").read_text(encoding="utf-8")
    return told


def places(told: Told, mark: str) -> list[str]:
    """Where a mark stands, with what is around it."""
    found = []
    for place, said in told.texts.items():
        begin = said.find(mark)
        if begin >= 0:
            found.append(f"{place}: …{said[max(0, begin - 150) : begin + 80]}…")
    return found


def test_no_secret_is_told(told):
    found = {secret: places(told, mark) for secret, mark in SECRETS.items()}
    assert {secret: where for secret, where in found.items() if where} == {}


def test_what_is_said_in_plain_words_is_found(told):
    assert {each.partition(":")[0] for each in places(told, SPOKEN)} == {"standard output", "file"}


def test_all_that_might_tell_a_secret_has_happened(told):
    asked = f"?token={SECRETS['query']}"
    statuses = {what.removesuffix(asked): status for what, status in told.statuses.items()}
    assert statuses == {
        "GET /api/v1/leaky/log": 200,
        "GET /api/v1/leaky/boom": 500,
        "GET /api/v1/pets": 503,
        "GET /api/v1/nothing-is-here": 404,
        "GET /api/v1/leaky/log/?": 404,
        "GET /api/v1/%zz": 400,
        "GET /features": 200,
        "GET /features/leaky": 200,
        "GET /features/quotes": 200,
        "GET /loggers": 200,
        "GET /metrics": 200,
        "GET /readyz?verbose": 503,
        "GET /readyz/leaky.own": 503,
        "GET /livez?verbose": 200,
        "GET /openapi.json": 200,
        "GET /docs": 200,
        "POST /api/v1/leaky/refuse": 500,
        "POST /api/v1/leaky/take": 422,
        "PUT /api/v1/leaky/take": 405,
        "POST /api/v1/leaky/take?broken": 400,
        "POST /features/reload": 200,
        "PUT /loggers/root": 422,
        "the end": 0,
    }
    features = json.loads(told.texts["answer to GET /features"].rpartition("\n")[2])
    found = {each["name"]: {one["id"] for one in each["findings"]} for each in features}
    assert {name: found[name] for name in FAULTY} == {
        "starts": {"lifespan-failed"},
        "imports": {"import-failed"},
        "quotes": {"bad-settings"},
        "raises": {"bad-settings"},
        "crashes": {"check-crashed"},
    }
    logged = [line["message"] for line in told.lines if line["level"] != "INFO"]
    for begin in ("The database cannot be", "Check leaky.own fails", "Unhandled exception in"):
        assert any(each.startswith(begin) for each in logged), begin
    assert any(each.startswith("The settings have a table [features.nobody]") for each in logged)
    assert told.texts["arguments of the second checker"].count("petsage.check_process") >= 1


def test_what_is_masked_stands_there_as_masked(told):
    line = next(line for line in told.lines if line["message"] == "Told")
    assert line["own"] == {"password": "***", "api_token": "***", "sealed": "**********"}
    assert {line["asked"][name] for name in ("Authorization", "Cookie", "X-Api-Key")} == {"***"}
    assert ["Authorization", "***"] in line["pairs"]
    assert ["X-Api-Key", "***"] in line["raw"]
    assert line["cookies"] == "***"


def test_no_command_tells_a_secret(project, petsage):
    sources = {"leaky": LEAKY, **{name: FAULTY[name] for name in ("quotes", "raises", "imports")}}
    write_features(project, sources)
    env = {**ENVIRONMENT, "PETSAGE_SERVER__PORT": "1"}
    for command in (("features",), ("features", "--json"), ("check",), ("openapi",)):
        said = petsage(*command, env=env)
        assert ("/leaky/boom" if command == ("openapi",) else "quotes") in said.stdout
        assert "kestrel" not in said.stdout + said.stderr


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PETSAGE_MANAGEMENT__TOKEN", "kestrel short"),
        ("PETSAGE_MANAGEMENT__TOKEN", "kestrel"),
        ("PETSAGE_MANAGEMENT__TOKENS", "kestrel-management"),
        ("PETSAGE_MANAGEMENT_TOKEN", "kestrel-management"),
        ("PETSAGE_MANAGEMENT", "kestrel-management"),
        ("PETSAGE_MANAGEMENT", '{"token": ["kestrel"]}'),
        ("PETSAGE_DATABASE__URL", "postgres://rex:kestrel@localhost/pets"),
        ("PETSAGE_DATABASE__URL", "postgresql+asyncpg://rex:kestrel@localhost/pets"),
        ("PETSAGE_DATABASE__URL", "rex:kestrel@localhost"),
        ("PETSAGE_DATABASE__URL", "sqlite:///?password=kestrel"),
        ("PETSAGE_DATABASE", "postgresql://rex:kestrel@localhost/pets"),
        ("PETSAGE_DATABASE__URL__PASSWORD", "kestrel"),
        ("PETSAGE_FEATURES__PETS", "kestrel"),
    ],
)
def test_settings_that_are_refused_are_not_repeated(project, variable, value):
    with pytest.raises(Exception, match="PETSAGE_") as raised:
        load_settings(folder=project, environ={variable: value})
    assert "kestrel" not in str(raised.value)
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


def test_a_file_of_settings_that_is_refused_is_not_repeated(project, petsage):
    (project / "config").mkdir()
    (project / "config" / "default.toml").write_text(
        '[management]\ntoken = "kestrel"\n[database]\nurl = "postgres://rex:kestrel@localhost"\n'
    )
    for command in ("serve", "check", "features", "openapi"):
        said = petsage(command)
        assert said.returncode == 1
        assert "kept from this message" in said.stderr
        assert "kestrel" not in said.stdout + said.stderr


def test_what_a_validator_raises_is_told_without_the_settings(tmp_path):
    """In this process, as where there is no checker: the log would show what was raised."""
    write_features(tmp_path, {"raises": FAULTY["raises"]})
    settings = {"raises": {"password": SECRETS["setting that a validator raises with"]}}
    candidates = load_features([tmp_path / "features"], settings=settings)
    try:
        (candidate,) = candidates
        error = candidate.error
        assert error is not None
        lines = "\n".join(exception_lines((type(error), error, error.__traceback__)))
        assert "in _refuse" in lines
        assert "the model raised RuntimeError: … is no good" in str(candidate.findings)
        assert "kestrel" not in lines + str(candidate.findings)
    finally:
        unload(candidates)


def test_settings_that_are_shown_show_no_secret():
    settings = Settings(
        management=ManagementSettings(token=SECRETS["management token"]),
        database=DatabaseSettings(url="postgresql://rex:kestrel@localhost/pets"),
        features={"pets": {"password": "kestrel"}},
    )
    for shown in (settings, settings.management, settings.database):
        assert "kestrel" not in f"{shown!r} {shown}"
    for table, wrong in (
        (ManagementSettings, {"token": "kestrel"}),
        (DatabaseSettings, {"url": "kestrel"}),
    ):
        with pytest.raises(ValidationError) as raised:
            table(**wrong)
        assert "kestrel" not in str(raised.value)


def test_a_url_with_a_password_is_refused_and_not_repeated(petsage):
    said = petsage("features", "--url", "http://rex:kestrel@127.0.0.1:x")
    assert said.returncode != 0
    assert "--url names a user or a password" in said.stderr
    assert "kestrel" not in said.stdout + said.stderr


@pytest.mark.parametrize("token", ["kestrel\nkestrel", "kestrel\x7f", "kestrel ü", ""])
def test_a_file_that_holds_no_token_is_refused_and_not_repeated(tmp_path, token):
    environ = {"XDG_RUNTIME_DIR": str(tmp_path)}
    write_token_file(8000, "x", environ).path.write_text(token)
    with pytest.raises(TokenFileError, match="it holds no token") as raised:
        read_token_file(8000, environ)
    assert "kestrel" not in str(raised.value)


class Lives(BaseModel):
    """What is refused below."""

    lives: int


def refused(which: str) -> ValidationError:
    """What pydantic says of a mark, which stands in no line of a source."""
    with pytest.raises(ValidationError) as raised:
        Lives.model_validate({"lives": SECRETS[which]})
    return raised.value


def test_what_pydantic_was_given_is_in_no_traceback():
    cause, member, last = (refused(each) for each in ("body", "query", "Cookie"))
    group = ExceptionGroup("both", [member])
    group.__cause__, last.__context__ = cause, group

    lines = exception_lines((type(last), last, last.__traceback__))

    assert "kestrel" not in "\n".join(lines)
    assert sum("[type=int_parsing]" in line for line in lines) == 3
    for _ in range(60):  # more than a traceback tells of
        last, last.__context__ = refused("body"), last
    assert "kestrel" not in "\n".join(exception_lines((type(last), last, last.__traceback__)))
    assert words_of(last).splitlines()[:2] == ["1 validation error for Lives", "lives"]


async def test_what_postgresql_says_of_a_row_loses_its_values(postgres_url):
    metadata = MetaData()
    table = Table(
        "lives",
        metadata,
        Column("number", Integer, CheckConstraint("number > 0")),
        Column("name", String(30), nullable=False),
    )
    engine = PostgresqlEngine(DatabaseSettings(url=postgres_url))
    wrong = [
        insert(table).values(number=-1, name="kestrel"),
        insert(table).values(number="kestrel", name="x"),
        text("SELECT CAST(CAST(:a AS TEXT) AS INTEGER)").bindparams(a='kestrel" and\n"kestrel'),
    ]
    try:
        await engine.bring_up(metadata.create_all)
        for statement in wrong:
            with pytest.raises(DBAPIError) as raised:
                await engine.write(
                    None, lambda connection, it=statement: connection.execute(it), (), {}
                )
            lines = "\n".join(exception_lines((raised.type, raised.value, raised.tb)))
            assert "direct cause" in lines
            assert "'kestrel'" not in lines.replace("values(number", "")
            assert "Failing row" not in lines
            assert lines.count("kestrel") == lines.count("bindparams")
    finally:
        await engine.close()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://rex:kestrel@127.0.0.1:1/pets",
        "postgresql://rex@127.0.0.1:1/pets?password=kestrel&sslpassword=kestrel",
        "postgresql://rex@127.0.0.1:1/pets?p%61ssword=kestrel",
        "postgresql://rex:kes/trel@127.0.0.1:1/pets",
        "mysql://rex:kestrel@127.0.0.1/pets",
    ],
)
def test_a_server_for_tests_that_is_refused_is_named_without_its_password(url):
    with pytest.raises(Exception, match="postgresql") as raised, fresh_database(url):
        pass
    assert type(raised.value).__name__ == "StartError"
    assert "kestrel" not in str(raised.value)
    assert "trel" not in str(raised.value)


async def test_a_tool_of_a_build_is_given_no_secret(tmp_path, monkeypatch):
    for name, value in {**ENVIRONMENT, "petsage_management__token": "kestrel"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("OWN_ENV_PASSWORD")  # no setting of PetSage's: it is the user's own
    tool = tmp_path / "tool.py"
    tool.write_text(
        "import os, pathlib\n"
        "parent = pathlib.Path(f'/proc/{os.getppid()}/cmdline').read_bytes()\n"
        "print(dict(os.environ), pathlib.Path('/proc/self/cmdline').read_bytes(), parent)\n"
    )
    given = environment(tmp_path, PYTHONPATH=str(tmp_path))
    ended = await run(guarded("tool"), cwd=tmp_path, environment=given, limit_s=30)
    assert ended.code == 0, ended.errors
    assert "TMPDIR" in ended.output
    assert "kestrel" not in ended.output


def test_a_file_that_tells_a_token_is_this_users_alone(tmp_path):
    umask = os.umask(0)
    try:
        written = write_token_file(8000, "x" * 43, {"XDG_RUNTIME_DIR": str(tmp_path)})
    finally:
        os.umask(umask)
    assert written.path.stat().st_mode & 0o777 == 0o600
    assert "PETSAGE_MANAGEMENT__TOKEN" not in clean_environment()
