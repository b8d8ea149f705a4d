"""Settings, from real files and given environments: what wins, and what each mistake is told.

Over 300 lines because every kind of mistake is tried in every place that it can be made in.
"""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from petsage.commands import app
from petsage.errors import SettingsError
from petsage.settings import FLAGS, Settings, load_settings, to_toml

ROOT = Path(__file__).parent.parent


@pytest.fixture
def config(tmp_path):
    """Call it with the text of each file in `config/`; it says where that is."""
    folder = tmp_path / "config"
    folder.mkdir()

    def write(**files):
        for name, text in files.items():
            (folder / f"{name}.toml").write_text(text, encoding="utf-8")
        return folder

    return write


def load(folder, environ=None, flags=None):
    return load_settings(flags, folder=folder, environ=environ or {})


def refusal(folder, environ=None, flags=None) -> str:
    """What the one error says: problem and fix, on one line."""
    with pytest.raises(SettingsError) as caught:
        load(folder, environ, flags)
    text = str(caught.value)
    assert "\n" not in text
    assert "; fix: " in text
    assert caught.value.__cause__ is None
    return text


# What holds when nobody says anything


def test_the_defaults_are_these(tmp_path):
    settings = load(tmp_path / "nowhere")

    assert settings.model_dump() == {
        "server": {
            "host": "127.0.0.1",
            "port": 8000,
            "drain_s": 1.0,
            "shutdown_s": 10.0,
            "stall_ms": 500,
            "header_timeout_s": 10.0,
            "body_timeout_s": 30.0,
            "request_timeout_s": 60.0,
            "write_timeout_s": 60.0,
            "keepalive_s": 75.0,
            "max_connections": 10_000,
            "max_requests_in_flight": 1_000,
            "max_body_bytes": 1_048_576,
            "max_header_bytes": 8190,
            "max_header_count": 128,
            "trusted_proxies": [],
        },
        "catalog": {
            "folders": [Path("features")],
            "watch": True,
            "settle_ms": 200,
            "check_timeout_s": 10.0,
            "disabled": [],
            "required": [],
            "start_timeout_s": 10.0,
        },
        "logs": {
            "level": "INFO",
            "levels": {},
            "redact": [
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
            "max_line_bytes": 32_768,
            "proof_timeout_s": 1.0,
            "flush_ms": 20,
            "sinks": {
                "stdout": {
                    "kind": "stdout",
                    "path": None,
                    "level": "DEBUG",
                    "required": True,
                    "queue_records": 10_000,
                    "max_bytes": 0,
                    "backups": 5,
                    "fsync": False,
                }
            },
        },
        "management": {"token": None, "open_reads": "loopback"},
        "database": {"url": "sqlite:///data/petsage.db", "pool_size": 10, "timeout_s": 5.0},
        "features": {},
    }


def test_default_toml_is_the_printed_form_of_the_models():
    printed = (ROOT / "config" / "default.toml").read_text(encoding="utf-8")

    assert printed == to_toml(), "run `make fix`"


def test_the_printed_form_read_back_gives_the_defaults(config, tmp_path):
    assert load(config(default=to_toml())) == load(tmp_path / "nowhere")


def test_the_printed_form_shows_and_explains_every_key():
    printed = to_toml()

    for table in Settings.model_fields.values():
        for key, field in getattr(table.annotation, "model_fields", {}).items():
            if key != "sinks":
                shown = f"{key} = " if field.default is not None else f"# {key} = …"
                assert f"# {field.description}\n{shown}" in printed
    assert "[logs.sinks.stdout]" in printed


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.toml")), ids=lambda it: it.stem)
def test_every_file_in_config_is_valid(path):
    load(path.parent, {"PETSAGE_ENV": path.stem})


@pytest.mark.parametrize("word", ["marker", "Mark", "mar_k", "k-e"])
def test_what_a_proven_line_is_found_by_cannot_be_masked(config, word):
    text = refusal(config(default=f'[logs]\nredact = ["{word}"]'))
    assert "would mask `marker`" in text


def test_settings_cannot_be_changed(tmp_path):
    with pytest.raises(ValueError, match="frozen"):
        load(tmp_path).server.port = 1


# What goes over what


def test_a_named_file_goes_over_the_default_one_and_drops_nothing_of_it(config):
    folder = config(
        default='[server]\nhost = "::1"\nport = 1\n[catalog]\ndisabled = ["a"]',
        test="[server]\nport = 2",
    )

    settings = load(folder, {"PETSAGE_ENV": "test"})

    assert (settings.server.host, settings.server.port) == ("::1", 2)
    assert settings.catalog.disabled == ["a"]


def test_the_environment_goes_over_files_and_flags_over_all(config):
    folder = config(default='[server]\nhost = "a"\nport = 1\nkeepalive_s = 1')

    settings = load(
        folder,
        {"PETSAGE_SERVER__PORT": "2", "PETSAGE_SERVER__KEEPALIVE_S": "2"},
        {"server": {"port": 3}},
    )

    assert settings.server.host == "a"
    assert settings.server.keepalive_s == 2
    assert settings.server.port == 3


def test_sinks_are_merged_by_name_with_and_without_a_default_file(config, tmp_path):
    text = '[logs.sinks.file]\nkind = "file"\npath = "x.jsonl"\n[logs.sinks.stdout]\nbackups = 1'
    with_default = load(config(default=to_toml(), test=text), {"PETSAGE_ENV": "test"})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "test.toml").write_text(text)
    without = load(tmp_path / "other", {"PETSAGE_ENV": "test"})

    assert with_default == without
    assert list(without.logs.sinks) == ["stdout", "file"]
    assert without.logs.sinks["stdout"].required
    assert without.logs.sinks["stdout"].backups == 1


def test_a_list_is_replaced_and_not_joined(config):
    folder = config(default='[catalog]\nrequired = ["a", "b"]', test='[catalog]\nrequired = ["c"]')

    assert load(folder, {"PETSAGE_ENV": "test"}).catalog.required == ["c"]


def test_an_empty_environment_name_is_none(config):
    assert load(config(default="[server]\nport = 1"), {"PETSAGE_ENV": ""}).server.port == 1


def test_the_default_file_may_be_named(config):
    assert load(config(default="[server]\nport = 1"), {"PETSAGE_ENV": "default"}).server.port == 1


def test_a_file_may_begin_with_a_byte_order_mark(config):
    assert load(config(default="\ufeff[server]\nport = 1")).server.port == 1


# The environment


def test_a_variable_is_read_in_any_case(tmp_path):
    settings = load(tmp_path, {"petsage_server__port": "1", "Petsage_Logs__Level": "debug"})

    assert (settings.server.port, settings.logs.level) == (1, "DEBUG")


def test_lists_and_tables_are_json_and_a_single_key_goes_over_its_table(tmp_path):
    settings = load(
        tmp_path,
        {
            "PETSAGE_LOGS__LEVEL": "ERROR",
            "PETSAGE_LOGS": '{"level": "DEBUG", "flush_ms": 7}',
            "PETSAGE_CATALOG__FOLDERS": '["a", "b"]',
            "PETSAGE_LOGS__LEVELS": '{"features.pets": "debug"}',
            "PETSAGE_LOGS__SINKS__FILE": '{"kind": "file"}',
            "PETSAGE_LOGS__SINKS__FILE__PATH": "x.jsonl",
        },
    )

    assert (settings.logs.level, settings.logs.flush_ms) == ("ERROR", 7)
    assert settings.catalog.folders == [Path("a"), Path("b")]
    assert settings.logs.levels == {"features.pets": "DEBUG"}
    assert settings.logs.sinks["file"].path == Path("x.jsonl")
    assert "stdout" in settings.logs.sinks


def test_a_features_own_table_comes_from_the_environment_too(config):
    folder = config(default='[features.pets]\nname = "a"\nlimit = 1')

    settings = load(
        folder,
        {
            "PETSAGE_FEATURES__PETS__LIMIT": "2",
            "PETSAGE_FEATURES__PETS__TAGS": '["x"]',
            "PETSAGE_FEATURES__PETS__OWNER__ID": "007",
        },
    )

    assert settings.features["pets"] == {
        "name": "a",
        "limit": "2",
        "tags": ["x"],
        "owner": {"id": "007"},
    }


def test_other_variables_are_nobodys_business(tmp_path):
    assert load(tmp_path, {"PATH": "/bin", "PETSAGER": "x", "XPETSAGE_SERVER": "x"}) == Settings()


# What reads them


def test_settings_made_by_themselves_are_the_defaults_whatever_the_environment(monkeypatch):
    for name in ("PETSAGE_SERVER__PORT", "SERVER__PORT", "port"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("SERVER", '{"port": 1}')

    assert Settings().server.port == 8000
    assert load_settings(folder=Path("nowhere"), environ={}).server.port == 8000


def test_where_nothing_else_is_given_the_environment_is_that_of_the_process(monkeypatch):
    monkeypatch.setenv("PETSAGE_SERVER__PORT", "1")

    assert load_settings(folder=Path("nowhere")).server.port == 1


def test_a_key_of_a_sink_leaves_its_other_defaults_as_they_are(tmp_path):
    environ = {"PETSAGE_LOGS__SINKS__STDOUT__BACKUPS": "1"}

    assert load(tmp_path, environ).logs.sinks["stdout"].model_dump(exclude_defaults=True) == {
        "kind": "stdout",
        "required": True,
        "backups": 1,
    }


def test_what_looks_like_json_is_json_however_deep_in_a_features_settings(tmp_path):
    environ = {
        "PETSAGE_FEATURES__PETS__OWNER__TAGS": ' ["x"]',
        "PETSAGE_FEATURES__PETS__OWNER__HOME": '{"no": 7}',
        "PETSAGE_FEATURES__PETS__OWNER__NO": "7",
        "PETSAGE_FEATURES__PETS__OWNER__SURE": "true",
    }

    assert load(tmp_path, environ).features["pets"] == {
        "owner": {"tags": ["x"], "home": {"no": 7}, "no": "7", "sure": "true"}
    }


def test_what_looks_like_json_deep_in_a_features_settings_and_is_none_is_refused(tmp_path):
    text = refusal(tmp_path, {"PETSAGE_FEATURES__PETS__OWNER__TAGS": "[1,"})

    assert text.startswith(
        "the environment, PETSAGE_FEATURES__PETS__OWNER__TAGS: it has to be JSON"
    )


def test_the_keys_of_a_table_in_a_variable_are_read_in_any_case_and_checked(tmp_path):
    assert load(tmp_path, {"PETSAGE_SERVER": '{"PORT": 1}'}).server.port == 1
    assert "unknown key `server.PROT`" in refusal(tmp_path, {"PETSAGE_SERVER": '{"PROT": 1}'})


@pytest.mark.parametrize("variable", ["PETSAGE_SERVER", "PETSAGE_LOGS__SINKS", "PETSAGE_FEATURES"])
def test_nothing_in_place_of_a_table_is_refused(tmp_path, variable):
    for text in ("", "null"):
        assert refusal(tmp_path, {variable: text}).startswith(f"the environment, {variable}: ")


def test_no_table_within_a_table_is_refused_where_another_variable_would_hide_it(tmp_path):
    text = refusal(
        tmp_path,
        {"PETSAGE_LOGS": '{"sinks": []}', "PETSAGE_LOGS__SINKS__OUT__KIND": "stdout"},
    )

    assert text.startswith("the environment, PETSAGE_LOGS: `logs.sinks` is a list and no table")


def test_of_two_variables_the_one_that_is_wrong_is_named(tmp_path):
    environ = {"PETSAGE_SERVER": '{"host": "a", "port": "x"}', "PETSAGE_SERVER__HOST": "b"}

    assert refusal(tmp_path, environ).startswith("the environment, PETSAGE_SERVER: `server.port`")


def test_what_is_no_regular_file_is_read_all_the_same(config):
    path = config() / "test.toml"
    path.symlink_to("/dev/null")
    assert load(path.parent, {"PETSAGE_ENV": "test"}) == Settings()

    path.unlink()
    reader, writer = os.pipe()
    os.write(writer, b"[server]\nport = 1")
    os.close(writer)
    path.symlink_to(f"/dev/fd/{reader}")
    try:
        assert load(path.parent, {"PETSAGE_ENV": "test"}).server.port == 1
    finally:
        os.close(reader)


# Mistakes: each message names the place, the key, the value and the fix

WRONG = [
    ("server", "port", '"x"', "'x'"),
    ("server", "port", "65536", "65536"),
    ("server", "port", "-1", "-1"),
    ("server", "port", "true", "True"),
    ("server", "port", "1.5", "1.5"),
    ("server", "host", '""', "''"),
    ("server", "host", "1", "1"),
    ("server", "keepalive_s", "0", "0"),
    ("server", "keepalive_s", "nan", "nan"),
    ("server", "keepalive_s", "inf", "inf"),
    ("server", "keepalive_s", "true", "True"),
    ("server", "shutdown_s", "-1", "-1"),
    ("server", "max_header_bytes", "10_000_000", "10000000"),
    ("server", "max_header_count", "0", "0"),
    ("catalog", "folders", '"features"', "'features'"),
    ("catalog", "disabled", '["no-name"]', "'no-name'"),
    ("catalog", "required", "[1]", "1"),
    ("logs", "level", '"LOUD"', "'LOUD'"),
    ("logs", "levels", '{ a = "LOUD" }', "'LOUD'"),
    ("logs", "sinks", "{ x = { kind = 'pipe' } }", "'pipe'"),
    ("logs", "sinks", "{ x = { kind = 'file' } }", "needs a `path`"),
    ("logs", "sinks", "{ x = { kind = 'stderr', path = 'a' } }", "`file` alone"),
    ("logs", "sinks", "{ x-y = { kind = 'stderr' } }", "'x-y'"),
    ("logs", "sinks", "{ x = {} }", "`logs.sinks.x.kind` is missing"),
]


@pytest.mark.parametrize(("table", "key", "value", "shown"), WRONG)
def test_a_wrong_value_in_a_file_names_file_key_and_value(config, table, key, value, shown):
    folder = config(test=f"[{table}]\n{key} = {value}")

    text = refusal(folder, {"PETSAGE_ENV": "test"})

    assert text.startswith(f"{folder / 'test.toml'}: `{table}.{key}")
    assert shown in text


@pytest.mark.parametrize(
    ("variable", "value", "key", "shown"),
    [
        ("PETSAGE_SERVER__PORT", "x", "server.port", "'x'"),
        ("PETSAGE_SERVER__PORT", "", "server.port", "''"),
        ("PETSAGE_SERVER__PORT", "70000", "server.port", "'70000'"),
        ("petsage_server__port", "x", "server.port", "'x'"),
        ("PETSAGE_SERVER", '{"port": "x"}', "server.port", "'x'"),
        ("PETSAGE_LOGS__LEVEL", "loud", "logs.level", "'LOUD'"),
        ("PETSAGE_CATALOG__DISABLED", '["a", "b-c"]', "catalog.disabled.1", "'b-c'"),
        ("PETSAGE_LOGS__SINKS__X__KIND", "file", "logs.sinks.x", "needs a `path`"),
    ],
)
def test_a_wrong_value_in_the_environment_names_the_variable(tmp_path, variable, value, key, shown):
    text = refusal(tmp_path, {variable: value})

    assert text.startswith(f"the environment, {variable}: `{key}` is ")
    assert shown in text


@pytest.mark.parametrize(("location", "flag"), FLAGS.items())
def test_a_wrong_value_on_the_command_line_names_the_flag(tmp_path, location, flag):
    table, key = location

    text = refusal(tmp_path, flags={table: {key: {}}})

    assert text.startswith(f"the command line, {flag}: `{table}.{key}` is ")


def test_the_command_line_has_each_flag_that_is_named():
    usage = re.sub("\x1b\\[[0-9;]*m", "", CliRunner().invoke(app, ["serve", "--help"]).output)

    assert all(flag in usage for flag in FLAGS.values())


def test_of_two_places_the_one_that_wins_is_named(config):
    text = refusal(config(default="[server]\nport = 1"), {"PETSAGE_SERVER__PORT": "x"})

    assert text.startswith("the environment, PETSAGE_SERVER__PORT: ")


@pytest.mark.parametrize(
    ("text", "key", "fix"),
    [
        ("[sever]\nport = 1", "unknown table `sever`", "did you mean `server`?"),
        ("port = 1", "unknown table `port`", "choose one of `catalog`, `database`, `features`"),
        ("[server]\nprot = 1", "unknown key `server.prot`", "did you mean `port`?"),
        ("[logs]\nlevle = 1", "unknown key `logs.levle`", "did you mean `level`?"),
        (
            '[logs.sinks.x]\nknd = "stderr"',
            "unknown key `logs.sinks.x.knd`",
            "did you mean `kind`?",
        ),
        ('[server]\n"a\\nb" = 1', 'unknown key `server."a\\nb"`', "choose one of "),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest_right_one(config, text, key, fix):
    folder = config(default=text)

    said = refusal(folder)

    assert said.startswith(f"{folder / 'default.toml'}: {key}; fix: {fix}")


@pytest.mark.parametrize(
    ("variable", "problem", "fix"),
    [
        ("PETSAGE_SERVER__PROT", "unknown key `server.prot`", "`port`?"),
        ("PETSAGE_LOGS__SINKS__STDOUT__KNID", "unknown key `logs.sinks.stdout.knid`", "`kind`?"),
        ("PETSAGE_SEVER__PORT", "there is no table `sever`", "`server`?"),
        ("PETSAGE_SERVER_PORT", "there is no table `server_port`", "PETSAGE_SERVER__PORT?"),
        ("PETSAGE_EVN", "there is no table `evn`", "choose one of "),
        ("PETSAGE_", "there is no table ``", "choose one of "),
        ("petsage_sever__port", "there is no table `sever`", "`server`?"),
    ],
)
def test_an_unknown_variable_is_answered_with_the_nearest_right_name(
    tmp_path, variable, problem, fix
):
    text = refusal(tmp_path, {variable: "1"})

    assert text.startswith(f"the environment, {variable}: {problem}")
    assert fix in text.partition("; fix: ")[2]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PETSAGE_SERVER", "port=1"),
        ("PETSAGE_CATALOG__FOLDERS", "features"),
        ("PETSAGE_LOGS__LEVELS", "{'a': 'INFO'}"),
        ("PETSAGE_LOGS__SINKS__STDOUT", ""),
        ("PETSAGE_FEATURES__PETS__TAGS", "[1,"),
        ("PETSAGE_CATALOG__FOLDERS", "[" * 100_000),
    ],
)
def test_a_list_or_table_that_is_no_json_names_the_variable(tmp_path, variable, value):
    text = refusal(tmp_path, {variable: value})

    assert text.startswith(f"the environment, {variable}: it has to be JSON, and is not; fix: ")


@pytest.mark.parametrize("value", ["[]", "1", '"x"', "null"])
def test_json_of_the_wrong_kind_names_the_variable(tmp_path, value):
    assert refusal(tmp_path, {"PETSAGE_SERVER": value}).startswith(
        "the environment, PETSAGE_SERVER: `server` is "
    )


def test_one_setting_spelt_twice_is_refused(tmp_path):
    text = refusal(tmp_path, {"PETSAGE_SERVER__PORT": "1", "petsage_server__port": "2"})

    assert text.startswith(
        "the environment has PETSAGE_SERVER__PORT and petsage_server__port, which are the same"
    )


@pytest.mark.parametrize(
    ("environ", "flags", "said"),
    [
        (
            {"PETSAGE_SERVER": "5"},
            {"server": {"port": 1}},
            "the environment, PETSAGE_SERVER: `server`",
        ),
        (
            {"PETSAGE_SERVER": "5", "PETSAGE_SERVER__PORT": "1"},
            None,
            "the environment, PETSAGE_SERVER: `server`",
        ),
        (
            {"PETSAGE_LOGS__SINKS": "[]", "PETSAGE_LOGS__SINKS__OUT__KIND": "stdout"},
            None,
            "the environment, PETSAGE_LOGS__SINKS: `logs.sinks`",
        ),
        ({"PETSAGE_ENV": "odd", "PETSAGE_SERVER__PORT": "1"}, None, "config/odd.toml: `server`"),
    ],
)
def test_what_stands_for_a_table_is_refused_also_where_something_over_it_would_hide_it(
    config, monkeypatch, environ, flags, said
):
    folder = config(odd="server = 5")
    monkeypatch.chdir(folder.parent)

    text = refusal(Path("config"), environ, flags)

    assert text.startswith(f"{said} is a ")
    assert "and no table; fix: " in text


@pytest.mark.parametrize(
    "name", ["prodction", "../x", "..", "/etc/passwd", "a/b", ".", "*", "a\nb", "test.toml"]
)
def test_an_unknown_environment_never_leads_out_of_the_folder(config, tmp_path, name):
    folder = config(default="", production="")
    (tmp_path / "x.toml").write_text("[server]\nport = 1")

    text = refusal(folder, {"PETSAGE_ENV": name})

    assert text.startswith(f"PETSAGE_ENV is {name!r}, and {folder} has no file for it; fix: ")


def test_an_unknown_environment_is_answered_with_the_nearest_name(config):
    text = refusal(config(production=""), {"petsage_env": "prodction"})

    assert text.endswith("did you mean `production`?")


@pytest.mark.parametrize("name", ["default", "test"])
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"[server\nport = 1", "is not TOML: Expected ']'"),
        (b"[server]\nport = 1\nport = 2", "is not TOML: Cannot overwrite a value (at "),
        (b"[server]\nhost = '\xff'", "is not UTF-8: invalid start byte at byte 17"),
        (None, "cannot be read: Is a directory"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(config, name, content, problem):
    path = config() / f"{name}.toml"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)

    assert refusal(path.parent, {"PETSAGE_ENV": name}).startswith(f"{path} {problem}")


def test_a_link_to_nothing_is_no_file(config):
    path = config() / "test.toml"
    path.symlink_to("nowhere")

    text = refusal(path.parent, {"PETSAGE_ENV": "test"})

    assert text.startswith(f"{path} cannot be read: No such file or directory")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(config):
    path = config(default="") / "default.toml"
    path.chmod(0)

    assert refusal(path.parent).startswith(f"{path} cannot be read: Permission denied")


@pytest.mark.parametrize(
    "environ",
    [
        {"PETSAGE_SERVER": "hunter2"},
        {"PETSAGE_SERVER": '"hunter2"'},
        {"PETSAGE_LOGS": '{"redact": "hunter2"'},
        {"PETSAGE_FEATURES__PETS": '"hunter2"'},
        {"PETSAGE_FEATURES": '{"token": "hunter2"}'},
        {"PETSAGE_SERVER__TOKEN": "hunter2"},
        {"PETSAGE_LOGS__LEVELS": '{"token": "hunter2"}'},
        {"PETSAGE_LOGS__LEVELS": '{"database.url": "hunter2"}'},
    ],
)
def test_what_may_be_a_secret_is_never_shown(tmp_path, environ):
    assert "hunter2" not in refusal(tmp_path, environ).lower()


def test_a_long_value_is_cut(tmp_path):
    assert len(refusal(tmp_path, {"PETSAGE_SERVER__PORT": "9" * 5000})) < 500


# A real process


def serve(folder, *arguments, **environ):
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PETSAGE_")}
    return subprocess.run(
        [sys.executable, "-m", "petsage", "serve", *arguments],
        cwd=folder,
        env={**ours, **environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize(
    ("files", "arguments", "environ", "said"),
    [
        ({"default": "[server]\nprot = 1"}, [], {}, "config/default.toml: unknown key"),
        ({}, [], {"PETSAGE_SERVER__PORT": "x"}, "the environment, PETSAGE_SERVER__PORT: "),
        ({}, ["--port", "70000"], {}, "the command line, --port: `server.port` is 70000"),
        ({}, [], {"PETSAGE_ENV": "../x"}, "PETSAGE_ENV is '../x'"),
    ],
)
def test_a_bad_setting_stops_the_start_with_one_line(config, files, arguments, environ, said):
    done = serve(config(**files).parent, *arguments, **environ)

    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"petsage: {said}")
    assert done.stderr.count("\n") == 1


def test_the_printed_form_is_toml_with_every_value_of_the_defaults():
    printed = tomllib.loads(to_toml())
    defaults = json.loads(Settings().model_dump_json(exclude_none=True))

    assert {**printed, "features": {}} == defaults


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("mysql://hunter2@host/x", "begins neither with sqlite:/// nor with postgresql://"),
        ("postgresq://hunter2@host/x", "did you mean `postgresql://`?"),
        ("postgres://hunter2@host/x", "write `postgresql://`"),
        ("postgresql+asyncpg://hunter2@host/x", "write `postgresql://`"),
        ("sqlite+aiosqlite:///hunter2", "write `sqlite://`"),
        ("sqlite://hunter2", "three slashes"),
        ("sqlite:///", "name a file"),
        ("sqlite:///:memory:", "name a file"),
        ("sqlite:///hunter2?mode=ro", "a path alone is taken"),
        ("hunter2", "begins neither with sqlite:/// nor with postgresql://"),
    ],
)
def test_a_database_that_is_none_is_told_without_its_password(config, url, told):
    text = refusal(config(default=f'[database]\nurl = "{url}"'))

    assert "default.toml" in text
    assert "`database.url`" in text
    assert told in text
    assert "hunter2" not in text


@pytest.mark.parametrize(
    "url", ["sqlite:////var/lib/pets.db", "postgresql://a:b@host:5432/pets?sslmode=require"]
)
def test_a_database_is_taken_as_it_is_written(config, url):
    settings = load(config(default=f'[database]\nurl = "{url}"'))

    assert settings.database.url == url
    assert url not in repr(settings)
