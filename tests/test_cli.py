"""The command line, as a developer runs it."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from openapi_spec_validator import validate

from tests.conftest import HELLO, ROOT, clean_environment, write_feature

PLAIN_DEF = '''
    """A handler that blocks."""
    from petsage import Feature, Routes

    routes = Routes()

    @routes.get("/plain")
    def plain() -> dict[str, str]:
        return {}

    feature = Feature(routes)
'''

# Whatever listens on this machine where the settings say.
FOLDER = ("--folder", "features")


def test_a_command_collects_garbage_but_not_among_what_it_has_imported(project, petsage) -> None:
    source = """
        import gc
        from petsage import Feature, Routes

        assert gc.isenabled()
        assert gc.get_freeze_count()
        feature = Feature(Routes())
        """
    write_feature(project, "collector", source)
    ended = petsage("check", env={"PYTHONUTF8": "1"})  # in a process that nobody has prepared
    assert ended.returncode == 0, ended.stdout


def test_check_of_good_features_says_so_and_exits_0(project, petsage):
    write_feature(project, "hello", HELLO)

    result = petsage("check")

    assert result.returncode == 0
    assert result.stdout == "1 feature: 1 right, 0 wrong (0 errors, 0 warnings)\n"


def test_check_prints_place_id_and_fix_of_each_finding_and_exits_1(project, petsage):
    write_feature(project, "hello", HELLO)
    write_feature(project, "plain", PLAIN_DEF)

    result = petsage("check")

    assert result.returncode == 1
    place, fix, summary = result.stdout.splitlines()
    assert place == (
        "features/plain/__init__.py:7: error handler-not-async: `plain` is no `async def`"
    )
    assert fix.startswith("    fix: write `async def plain`; for blocking work, ")
    assert summary == "2 features: 1 right, 1 wrong (1 error, 0 warnings)"


def test_the_readmes_example_says_what_the_readme_says(project, petsage):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    source = readme.partition("```python\n")[2].partition("```")[0]
    right, broken = (
        shown.partition("\n$ ")[0].partition("\n```")[0]
        for shown in readme.split("$ petsage check\n")[1:]
    )
    shutil.copytree(ROOT / "features" / "smoke_test", project / "features" / "smoke_test")
    folder = write_feature(project, "hello", source)
    assert petsage("check").stdout == f"{right}\n"

    source = source.replace("async def hello", "def hello")
    (folder / "__init__.py").write_text(source, encoding="utf-8")
    assert petsage("check").stdout == f"{broken}\n"


def test_check_as_json_has_each_finding_in_full(project, petsage):
    write_feature(project, "plain", PLAIN_DEF)

    result = petsage("check", "--json")

    assert result.returncode == 1
    report = json.loads(result.stdout)
    assert report["errors"] == 1
    (feature,) = report["features"]
    assert feature["name"] == "plain"
    assert feature["ok"] is False
    (finding,) = feature["findings"]
    assert set(finding) == {"id", "level", "file", "line", "problem", "fix"}
    assert (finding["id"], finding["level"], finding["line"]) == ("handler-not-async", "error", 7)


def test_names_that_are_no_utf_8_are_told_on_any_terminal(project, petsage):
    folder = project / "features" / os.fsdecode(b"\xff")
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    strict = {"PYTHONIOENCODING": "utf-8:strict"}

    said = petsage("check", env=strict)
    assert said.stdout.startswith("features/\\udcff: "), said.stderr
    assert "Traceback" not in said.stderr
    report = json.loads(petsage("check", "--json", env=strict).stdout)
    (feature,) = report["features"]
    (finding,) = feature["findings"]
    assert (feature["name"], finding["file"]) == ("\\udcff", "features/\\udcff")
    listed = ("features", "--folder", "features")
    assert "\\udcff  " in petsage(*listed, env=strict).stdout
    (row,) = json.loads(petsage("features", "--json", *listed[1:], env=strict).stdout)
    assert row["name"] == "\\udcff"


UNMATCHED = {
    "PETSAGE_FEATURES__HELO__GREETING": "hi",
    "PETSAGE_CATALOG__DISABLED": '["helo"]',
}


def test_check_warns_of_settings_for_features_that_are_not_there(project, petsage):
    write_feature(project, "hello", HELLO)

    result = petsage("check", env=UNMATCHED)

    assert result.returncode == 0
    assert result.stdout.splitlines() == [
        (
            "[features.helo]: warning no-such-feature: "
            "the settings have a table [features.helo], and there is no such feature"
        ),
        "    fix: did you mean `hello`?",
        (
            "[catalog].disabled: warning no-such-feature: "
            "the settings have 'helo' in [catalog].disabled, and there is no such feature"
        ),
        "    fix: did you mean `hello`?",
        "1 feature: 1 right, 0 wrong (0 errors, 2 warnings)",
    ]


def test_check_calls_a_required_feature_that_is_not_there_an_error(project, petsage):
    write_feature(project, "hello", HELLO)

    result = petsage("check", "--json", env={"PETSAGE_CATALOG__REQUIRED": '["helo"]'})

    assert result.returncode == 1
    report = json.loads(result.stdout)
    assert (report["errors"], report["warnings"]) == (1, 0)
    assert report["settings"] == [
        {
            "id": "no-such-feature",
            "level": "error",
            "file": "[catalog].required",
            "line": 0,
            "problem": "the settings have 'helo' in [catalog].required, "
            "and there is no such feature",
            "fix": "did you mean `hello`?",
        }
    ]


def test_check_of_one_folder_says_nothing_of_the_settings_of_others(project, petsage):
    write_feature(project, "hello", HELLO)

    result = petsage("check", "features/hello", env=UNMATCHED)

    assert result.stdout == "1 feature: 1 right, 0 wrong (0 errors, 0 warnings)\n"


@pytest.mark.parametrize("folder", ["features", "features/plain"])
def test_check_takes_a_folder_of_features_or_one_feature(project, petsage, folder):
    write_feature(project, "plain", PLAIN_DEF)
    write_feature(project, "hello", HELLO)

    result = petsage("check", folder)

    assert result.returncode == 1
    assert "features/plain/__init__.py:7" in result.stdout
    count = 2 if folder == "features" else 1
    assert result.stdout.splitlines()[-1].startswith(f"{count} feature")


def test_check_of_a_folder_that_is_not_there_is_one_clear_line(petsage):
    result = petsage("check", "nowhere")

    assert result.returncode == 1
    assert result.stderr == (
        "petsage: nowhere is no folder; fix: name a folder of features, or one's own\n"
    )


def test_what_a_feature_prints_is_kept_out_of_the_json(project, petsage):
    write_feature(project, "loud", 'print("hello from the import")\n' + "feature = 3\n")

    result = petsage("check", "--json")

    assert json.loads(result.stdout)["errors"] == 1
    assert "hello from the import" in result.stderr


def test_no_feature_can_keep_a_command_from_its_end(project, petsage):
    write_feature(project, "endless", "while True: pass\n")
    write_feature(project, "exits", "import os\nos._exit(0)\n")
    write_feature(
        project,
        "threads",
        "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,)).start()\n"
        "from petsage import Feature, Routes\nfeature = Feature(Routes())\n",
    )
    needs = "from petsage import Feature, Routes\nfeature = Feature(Routes(), needs=('endless',))\n"
    write_feature(project, "needs", needs)
    write_feature(project, "hello", HELLO)
    limit = {"PETSAGE_CATALOG__CHECK_TIMEOUT_S": "0.5"}

    said = petsage("check", env=limit)
    assert said.returncode == 1
    assert [line.split(": ")[:2] for line in said.stdout.splitlines()[:-1:2]] == [
        ["features/endless/__init__.py:1", "error check-timeout"],
        ["features/exits/__init__.py:2", "error check-crashed"],
        ["features/threads/__init__.py:2", "error import-side-effect"],
        ["features/needs/__init__.py:2", "error need-failed"],
    ]
    assert said.stdout.splitlines()[-1].startswith("5 features: 1 right, 4 wrong (4 errors")

    listed = petsage("features", "--json", env=limit)
    states = {each["name"]: each["state"] for each in json.loads(listed.stdout)}
    assert states == {
        **dict.fromkeys(("endless", "exits", "needs", "threads"), "failed"),
        "hello": "ready",
    }

    one = petsage("check", "features/needs", env=limit)
    assert "features/endless/__init__.py:1: error check-timeout" in one.stdout
    assert one.stdout.splitlines()[-1].startswith("2 features: 0 right, 2 wrong")


def test_check_ends_where_what_is_needed_cannot_be_read(project, petsage):
    folder = write_feature(project, "owners", "")
    (folder / "words.py").symlink_to(project / "pyproject.toml")
    write_feature(
        project,
        "pets",
        "from petsage import Feature, Routes\nfeature = Feature(Routes(), needs=('owners',))\n",
    )

    said = petsage("check", "features/pets")

    assert "features/owners/words.py: error outside-link" in said.stdout
    assert "features/pets/__init__.py:2: error need-failed" in said.stdout


def test_what_sets_up_logging_without_force_is_right(project, petsage):
    write_feature(project, "hello", "import logging\nlogging.basicConfig(level=10)\n")
    with (project / "features" / "hello" / "__init__.py").open("a") as file:
        file.write("logging.info('loaded')\nfrom petsage import Feature, Routes\n")
        file.write("feature = Feature(Routes())\n")

    assert petsage("check").returncode == 0


def test_features_lists_name_version_state_routes_and_why(project, petsage):
    write_feature(project, "hello", HELLO)
    write_feature(project, "plain", PLAIN_DEF)
    write_feature(project, "shop", HELLO)

    result = petsage(
        "features", *FOLDER, "--json", env={"PETSAGE_CATALOG__DISABLED": '["shop", "ghost"]'}
    )

    rows = {row["name"]: row for row in json.loads(result.stdout)}
    assert rows["hello"] == {
        "name": "hello",
        "version": "1.0.0",
        "state": "ready",
        "routes": "GET /api/v1/hello/{name}",
        "why": "",
    }
    assert rows["plain"]["state"] == "failed"
    assert rows["plain"]["why"].startswith("features/plain/__init__.py:7: handler-not-async")
    assert rows["shop"]["state"] == "disabled"
    assert set(rows) == {"hello", "plain", "shop"}


def test_features_shows_a_table_to_people(project, petsage):
    write_feature(project, "hello", HELLO)

    lines = petsage("features", *FOLDER).stdout.splitlines()

    assert lines[0].split() == ["name", "version", "state", "routes", "why"]
    assert lines[1].split() == ["hello", "1.0.0", "ready", "GET", "/api/v1/hello/{name}"]


def test_openapi_prints_a_valid_document_of_what_can_be_served(project, petsage):
    write_feature(project, "hello", HELLO)
    write_feature(project, "plain", PLAIN_DEF)

    document = json.loads(petsage("openapi").stdout)

    validate(document)
    assert "/api/v1/hello/{name}" in document["paths"]
    assert "/api/v1/plain" not in document["paths"]


LINE = (
    '{"timestamp":"2026-01-01T05:06:07.891000Z","level":"INFO","logger":"features.pets",'
    '"message":"Pet fed","request_id":"0123456789abcdef","age":3}\n'
)


def test_logs_shows_lines_from_standard_input(petsage):
    result = petsage("logs", stdin=LINE)

    assert result.returncode == 0
    assert result.stdout == "05:06:07.891 INFO     features.pets Pet fed age=3 01234567\n"


def test_logs_filters_a_file_by_level_logger_and_request_id(project, petsage):
    (project / "petsage.jsonl").write_text(LINE)

    assert petsage("logs", "petsage.jsonl", "--level", "info").stdout.count("\n") == 1
    assert petsage("logs", "petsage.jsonl", "--level", "error").stdout == ""
    assert petsage("logs", "petsage.jsonl", "--logger", "features").stdout.count("\n") == 1
    assert petsage("logs", "petsage.jsonl", "--logger", "feat").stdout == ""
    wanted = petsage("logs", "petsage.jsonl", "--json", "--request-id", "0123456789abcdef")
    assert wanted.stdout == LINE
    assert petsage("logs", "petsage.jsonl", "--request-id", "fedc").stdout == ""


def test_logs_refuses_a_wrong_level_and_a_missing_file_in_one_line(petsage):
    wrong = petsage("logs", "--level", "inof")
    assert wrong.returncode == 1
    assert wrong.stderr.count("\n") == 1
    assert "INFO" in wrong.stderr

    missing = petsage("logs", "nowhere.jsonl")
    assert missing.returncode == 1
    assert missing.stderr == (
        "petsage: nowhere.jsonl cannot be read: No such file or directory; "
        "fix: name a file that you may read\n"
    )


MARKED = LINE.replace("}", ',"marker":"0af7651916cd43dd"}')


def test_logs_prints_the_line_of_a_marker_or_says_that_it_is_not_there(project, petsage):
    (project / "petsage.jsonl").write_text(LINE + MARKED + LINE)

    there = petsage("logs", "--json", "--marker", "0af7651916cd43dd", "petsage.jsonl")
    assert (there.returncode, there.stdout, there.stderr) == (0, MARKED, "")
    piped = petsage("logs", "--marker", "0af7651916cd43dd", stdin=LINE + MARKED)
    assert (piped.returncode, piped.stdout.count("Pet fed")) == (0, 1)

    gone = petsage("logs", "--marker", "0af7651916cd43de", "petsage.jsonl")
    assert (gone.returncode, gone.stdout) == (1, "")
    assert gone.stderr == "petsage: no line with the marker 0af7651916cd43de in petsage.jsonl\n"


def test_logs_says_in_which_rotated_file_the_line_of_a_marker_is(project, petsage):
    (project / "petsage.jsonl").write_text(LINE)
    (project / "petsage.jsonl.1").write_text(MARKED)

    result = petsage("logs", "--json", "--marker", "0af7651916cd43dd", "petsage.jsonl")

    assert (result.returncode, result.stdout) == (0, MARKED)
    assert result.stderr == "petsage: the line is in petsage.jsonl.1\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--marker", "abc", "nowhere.jsonl"), "nowhere.jsonl cannot be read"),
        (("--marker", "abc", "."), "cannot be read: Is a directory"),
        (("--marker", ""), "--marker '' is no marker"),
        (("--marker", "abc", "--level", "inof"), "'inof' is not a log level"),
    ],
)
def test_logs_exits_2_in_one_line_where_it_cannot_be_said_whether_a_marker_is_there(
    petsage, arguments, said
):
    result = petsage("logs", *arguments)

    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert said in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [("check",), ("check", "--json"), ("features", *FOLDER), ("openapi",), ("logs",), ("--help",)],
    ids=" ".join,
)
def test_a_standard_output_that_is_full_is_one_clear_line_and_exit_code_1(project, arguments):
    write_feature(project, "hello", HELLO)

    code, said = printed_to(project, os.open("/dev/full", os.O_WRONLY), *arguments)

    assert code == 1
    assert said == (
        "petsage: standard output cannot be written: No space left on device; "
        "fix: make room, or name another file\n"
    )


def test_a_found_line_that_cannot_be_printed_is_not_called_missing(project):
    code, said = printed_to(
        project, os.open("/dev/full", os.O_WRONLY), "logs", "--marker", "0af7651916cd43dd"
    )

    assert code == 2
    assert said.count("\n") == 1


@pytest.mark.parametrize("arguments", [("openapi",), ("check",), ("logs",)], ids=" ".join)
def test_a_reader_that_has_gone_hears_nothing_more(project, arguments):
    write_feature(project, "hello", HELLO)
    reader, writer = os.pipe()
    os.close(reader)

    _, said = printed_to(project, writer, *arguments)

    assert said == ""


def printed_to(project, out, *arguments):
    """Exit code and standard error of a command that prints to `out`."""
    try:
        run = subprocess.run(
            [sys.executable, "-m", "petsage", *arguments],
            cwd=project,
            env=clean_environment(),
            input=MARKED.encode(),
            stdout=out,
            stderr=subprocess.PIPE,
            timeout=20,
            check=False,
        )
    finally:
        os.close(out)
    return run.returncode, run.stderr.decode()


def test_help_names_every_command(petsage):
    text = petsage("--help").stdout
    for command in ("serve", "check", "features", "build", "openapi", "logs"):
        assert command in text
