"""What may be asked of the builder, from files, standard input and flags."""

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from petsage.builder.events import BuildError
from petsage.builder.request import FeatureRequest, Probe
from petsage.builder.request_reader import MAX_BYTES, read_request

ASKED: dict[str, Any] = {"feature": "queue_watch", "description": "Watch the queue"}
TOML = 'feature = "queue_watch"\ndescription = "Watch the queue"\n'
PROBE: dict[str, Any] = {"kind": "probe", "path": "/health/queue", "message": "Queue seen"}


def read(
    source: str | None, flags: Mapping[str, Any], *, data: bytes | None = None
) -> FeatureRequest:
    """What is read; data is what stands on standard input."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data or b"")))
        return read_request(source, flags)


def refusal(source: str | None, data: object = None, **flags: object) -> BuildError:
    """What is said of a source; data is JSON, or bytes, of standard input."""
    with pytest.raises(BuildError) as raised:
        read(
            source,
            flags,
            data=data if isinstance(data, bytes | None) else json.dumps(data).encode(),
        )
    error = raised.value
    assert error.stage == "decode"
    for line in (error.problem, error.fix, *error.details):
        assert line.isprintable(), line
        assert len(line) < 700
    return error


def said(data: object, **flags: object) -> str:
    return refusal("-", data, **flags).problem.removeprefix("standard input: ")


class TestRead:
    def test_toml_json_and_flags_say_the_same(self, tmp_path):
        wanted = FeatureRequest(**ASKED, tags=["Queues"], version="1.2.0")
        toml = tmp_path / "asked.toml"
        toml.write_text(f'{TOML}tags = ["Queues"]\nversion = "1.2.0"\n')
        data = tmp_path / "asked.JSON"
        data.write_text(json.dumps({**ASKED, "tags": ["Queues"], "version": "1.2.0"}))
        flags = {"description": "Watch the queue", "tags": ["Queues"], "version": "1.2.0"}
        assert read(str(toml), {}) == wanted
        assert read(str(data), {}) == wanted
        assert read("queue_watch", flags) == wanted
        assert read(None, {"feature": "queue_watch", **flags}) == wanted

    def test_standard_input_is_json_where_it_begins_with_a_brace_and_else_toml(self):
        wanted = FeatureRequest(**ASKED)
        assert read("-", {}, data=TOML.encode()) == wanted
        assert read("-", {}, data=b" \r\n\t" + json.dumps(ASKED).encode()) == wanted
        assert read("-", {}, data=b"\xef\xbb\xbf" + TOML.encode()) == wanted
        assert read("-", ASKED, data=b"\xef\xbb\xbf{}") == wanted

    def test_standard_input_is_read(self):
        script = (
            "from petsage.builder.request_reader import read_request\n"
            "print(read_request('-', {}).feature)"
        )
        run = [sys.executable, "-c", script]
        done = subprocess.run(run, input=TOML, capture_output=True, text=True, check=True)
        assert done.stdout == "queue_watch\n"

    def test_a_byte_order_mark_is_passed_over(self, tmp_path):
        for name, text in (("a.toml", TOML), ("a.json", json.dumps(ASKED))):
            (tmp_path / name).write_text(text, encoding="utf-8-sig")
            assert read(str(tmp_path / name), {}) == FeatureRequest(**ASKED)

    def test_a_flag_goes_over_what_the_file_says(self):
        asked = read(
            "-", {"description": "Other", "tags": ["Mine"]}, data=json.dumps(ASKED).encode()
        )
        assert (asked.feature, asked.description, asked.tags) == ("queue_watch", "Other", ["Mine"])

    def test_what_the_builder_wrote_can_be_given_again(self):
        record = f'[request]\n{TOML}\n[files]\n"routes.py" = "sha256:00"\n'
        assert read("-", {}, data=record.encode()) == FeatureRequest(**ASKED)
        probes = [{"kind": "probe"}, PROBE]
        data = {"request": {**ASKED, "requirements": probes}, "files": {}}
        asked = read("-", {"version": "2.0.0"}, data=json.dumps(data).encode())
        assert (asked.probes(), asked.version) == ([Probe(**each) for each in probes], "2.0.0")

    def test_nothing_but_tables_stands_beside_a_request(self):
        assert said({"request": ASKED, "feature": "x"}) == "'feature' stands outside of [request]"
        assert said({"request": "x"}) == "`request` is 'x' and no table"
        assert said({**ASKED, "files": {}}) == "unknown key `files`"


class TestFile:
    def test_one_that_is_not_there(self, tmp_path):
        path = str(tmp_path / "nowhere.toml")
        error = refusal(path)
        assert error.problem == f"{path} is not there"
        assert error.fix == "name a file that is, `-` for standard input, or a feature"

    def test_a_folder(self, tmp_path):
        (tmp_path / "a.json").mkdir()
        assert refusal(str(tmp_path / "a.json")).problem.endswith("a.json is a folder")

    def test_a_pipe_is_not_waited_for(self, tmp_path):
        os.mkfifo(tmp_path / "a.toml")
        error = refusal(str(tmp_path / "a.toml"))
        assert error.problem.endswith("a.toml is no ordinary file")
        assert "petsage build -" in error.fix

    def test_one_that_is_too_large_is_not_read_to_its_end(self, tmp_path):
        path = tmp_path / "large.json"
        with path.open("wb") as file:
            file.truncate(2**40)  # more than any memory, and no block of a disk
        assert refusal(str(path)).problem == f"{path} is larger than 1,000 kB"
        data = json.dumps(ASKED).encode().ljust(MAX_BYTES)
        assert read("-", {}, data=data) == FeatureRequest(**ASKED)
        assert "larger than" in refusal("-", data + b" ").problem

    @pytest.mark.parametrize("path", ["a\0.toml", "\udcff\x1b[2J.json", f"{'x' * 5000}.toml"])
    def test_a_path_that_is_none(self, path):
        refusal(path)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_one_that_may_not_be_read(self, tmp_path):
        (tmp_path / "a.toml").touch(mode=0o000)
        assert refusal(str(tmp_path / "a.toml")).problem.endswith("Permission denied")

    @pytest.mark.parametrize(
        ("data", "problem"),
        [
            (b"", "is empty"),
            (b" \n", "is empty"),
            (b"\xef\xbb\xbf", "is empty"),
            (b"a = '\xff'", "is not UTF-8: invalid start byte at byte 5"),
            (b'a = "x"\nb = ', "is not TOML: Invalid value (at end of document)"),
            (b'a = "x"\nb = c\n', "is not TOML: Invalid value (at line 2, column 5)"),
            (b'{"a": 1\n "b"}', "is not JSON: Expecting ',' delimiter (at line 2, column 2)"),
            (b"{a: 1}", "is not JSON: Expecting property name enclosed in double quotes (at "),
            (b'{"a": NaN}', "is not JSON: it has NaN"),
            (b'{"a": -Infinity}', "is not JSON: it has -Infinity"),
            (b'{"a": {"b": 1, "b": 2}}', ": an object has the key 'b' twice"),
            (b'{"a": ' + b"1" * 5000 + b"}", "has a number of thousands of digits"),
            (b"a = " + b"1" * 5000, "has a number of thousands of digits"),
            (b'{"a": ' + b"[" * 100_000, "is nested too deeply"),
            (b'{"a":' * 100_000, "is nested too deeply"),
            (b"a = " + b"[" * 100_000, "is nested too deeply"),
            (b"a = " + b"{a=" * 100_000, "is nested too deeply"),
            (b"a" + b".a" * 400_000 + b" = 1", "has a key of more than 600 parts"),
            (b"x" * 9000, "is not TOML: Expected '=' after a key"),
            (b'"' + b"x" * 9000 + b'" = 1\n"' + b"x" * 9000 + b'" = 1', "is not TOML: "),
        ],
        ids=lambda each: repr(each[:20]) if isinstance(each, bytes) else "",
    )
    def test_what_is_no_document(self, data, problem):
        begun = time.process_time()
        assert refusal("-", data).problem.startswith(f"standard input {problem}".replace(" :", ":"))
        assert time.process_time() - begun < 5

    def test_json_that_is_no_object(self, tmp_path):
        path = tmp_path / "a.json"
        for text, kind in (("[]", "a list"), ('"x"', "'x'"), ("null", "null"), ("1e999", "a num")):
            path.write_text(text)
            assert f" is {kind}" in refusal(str(path)).problem


class TestFields:
    def test_what_is_missing_names_the_flag_or_the_key(self):
        error = refusal("queue_watch")
        assert error.problem == "the command line: `description` is missing"
        assert error.fix == "add --description (What it is for.)"
        error = refusal("-", {"description": "x"})
        assert error.problem == "standard input: `feature` is missing"
        assert error.fix.startswith("set `feature` (The feature's name")

    @pytest.mark.parametrize(
        ("name", "better"),
        [
            ("Queue-Watch", "queue_watch"),
            ("class", "class_"),
            ("queue.yaml", "queue_yaml"),
            ("../x", "x"),
            ("", "my_feature"),
            ("x" * 100_000, "x" * 60),
            ("\x1b[2Jа", "2j"),  # noqa: RUF001 - that letter is meant
        ],
    )
    def test_a_name_that_cannot_be_is_answered_with_one_that_can(self, name, better):
        error = refusal(name, description="x")
        assert "cannot be a feature's name" in error.problem
        assert error.fix == f"call it `{'n' if better[:1].isdigit() else ''}{better}`, for example"

    def test_a_wrong_flag_is_named_as_it_is_written(self):
        error = refusal("queue_watch", description="x", version="1.2")
        assert error.problem == (
            "the command line, --version: `version` is '1.2': "
            "it has to be three numbers, such as 1.0.0"
        )
        assert said(ASKED, tags=[""]).startswith("the command line, --tag: `tags[0]` is '': ")

    def test_an_unknown_key_is_answered_with_the_nearest(self):
        error = refusal("-", {**ASKED, "tag": ["x"]})
        assert (error.problem, error.fix) == (
            "standard input: unknown key `tag`",
            "did you mean `tags`?",
        )
        error = refusal("-", {**ASKED, "requirements": [{**PROBE, "paths": "/x"}]})
        assert (error.problem, error.fix) == (
            "standard input: unknown key `requirements[0].paths`",
            "did you mean `path`?",
        )

    @pytest.mark.parametrize(
        ("field", "value", "problem"),
        [
            ("feature", 3, "`feature` is 3: it has to be text"),
            ("feature", ["x"], "`feature` is a list: it has to be text"),
            ("description", "", "`description` is '': it is empty"),
            ("description", " \n", "`description` is ' \\n': it is empty"),
            ("description", None, "`description` is null: it has to be text"),
            ("description", "a\x1b[2J", "`description` is 'a\\x1b[2J': U+001B, "),
            ("description", "\ud800", "`description` is '\\ud800': U+D800, a character without"),
            ("tags", "x", "`tags` is 'x': it has to be a list"),
            ("tags", [], "`tags` is a list: it is empty"),
            ("tags", ["x"] * 11, "`tags` is a list: it has 11 entries, and may have 10 at most"),
            ("tags", [True], "`tags[0]` is true: it has to be text"),
            ("tags", ["\ud800"], "`tags[0]` is '\\ud800': it has half of a surrogate pair"),
            ("version", "v1", "`version` is 'v1': it has to be three numbers"),
            ("requirements", "all", "`requirements` is 'all': it has to be `none`, or a list"),
            ("requirements", {}, "`requirements` is a table: it has to be `none`, or a list"),
            ("requirements", [], "`requirements` is a list: it is empty"),
            ("requirements", [3], "`requirements[0]` is 3: it has to be a table, which JSON"),
            ("requirements", [{}], "`requirements[0].kind` is missing"),
            (
                "requirements",
                [{"kind": 3}],
                "`requirements[0].kind` is 3: it has to be 'probe', 'res",
            ),
            (
                "requirements",
                [{"kind": "probe"}, {**PROBE, "path": "../x"}],
                "`requirements[1].path` is '../x': a path is segments of ",
            ),
            (
                "requirements",
                [{"kind": "probe", "tags": ["x", 5e300]}],
                "`requirements[0].tags[1]` is a number: it has to be text",
            ),
            (
                "requirements",
                [PROBE, PROBE],
                "`requirements[1].path` is '/health/queue': it is another requirement's path",
            ),
            ("\x1b[2J", 1, "unknown key `\\x1b[2J`"),
        ],
        ids=repr,
    )
    def test_each_is_refused_with_its_path_and_value(self, field, value, problem):
        assert said({**ASKED, field: value}).startswith(problem)

    def test_no_value_is_shown_in_full(self):
        error = refusal("-", {**ASKED, "description": "x" * 100_000})
        assert error.problem == (
            f"standard input: `description` is '{'x' * 60}…': "
            "it has 100,000 characters, and may have 1,000 at most"
        )
        assert said({**ASKED, "y" * 100_000: 1}) == f"unknown key `{'y' * 60}…`"
        assert said(f"feature = 0x{'f' * 9000}\ndescription = 'x'".encode()).startswith(
            "`feature` is a number: "
        )
        assert said(b"feature = 1979-05-27\ndescription = 'x'").startswith("`feature` is a date: ")

    def test_all_that_is_wrong_is_told_at_once_misspelt_keys_first(self):
        error = refusal("-", {"feature": "X", "descripton": "x", "tags": []}, version="1")
        assert (error.problem, error.fix) == (
            "standard input: 5 things are wrong",
            "mend each of them",
        )
        begins = ["standard input: unknown key `descripton`; fix: did you mean `description`?"]
        begins += ["standard input: 'X' cannot be a feature's name: "]
        begins += ["standard input: `description` is missing; fix: set `description` (What it"]
        begins += ["standard input: `tags` is a list: it is empty; fix: change `tags` (The tags"]
        begins += ["the command line, --version: `version` is '1': it has to be three numbers"]
        for line, begin in zip(error.details, begins, strict=True):
            assert line.startswith(begin)

    def test_of_very_much_that_is_wrong_the_rest_is_counted(self):
        error = refusal("-", {**ASKED, **{f"key{number}": 1 for number in range(5000)}})
        assert error.problem == "standard input: 5000 things are wrong"
        assert len(error.details) == 21
        assert error.details[-1] == "and 4980 more"


class TestKinds:
    def test_one_that_nobody_can_build_is_refused_by_name(self):
        report = {"kind": "report", "name": "pets", "fields": [{"name": "age"}]}
        error = refusal("-", {**ASKED, "requirements": [report]})
        assert error.problem == ("standard input: requirements[0]: a `report` cannot be built")
        assert error.fix == "ask for what can be: probe, resource"

    def test_several_are_told_beside_what_else_is_wrong(self):
        kinds = ["report", "probe", "endpoint", "\x1b" * 100_000]
        requirements = [{"kind": kind, "x": 1} for kind in kinds]
        error = refusal("-", {**ASKED, "requirements": requirements})
        assert error.problem == "standard input: 4 things are wrong"
        told = [
            line.partition("; fix: ")[0].removeprefix("standard input: ") for line in error.details
        ]
        assert told[:2] == [
            "requirements[0]: a `report` cannot be built",
            "requirements[2]: an `endpoint` cannot be built",
        ]
        assert told[3] == "unknown key `requirements[1].x`"

    def test_every_kind_that_can_be_built_is_in_the_schema(self):
        schema = json.dumps(FeatureRequest.model_json_schema())
        assert '"const": "probe"' in schema
        assert '"const": "resource"' in schema


NAMES = [*FeatureRequest.model_fields, *Probe.model_fields, "request", "files", "x"]
TEXTS = st.text(max_size=8) | st.sampled_from(["none", "probe", "/x", "a", "1.0.0", "\ud800"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(NAMES) | TEXTS, inner, max_size=6)
    ),
    max_leaves=20,
)
ANYTHING = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def read_or_refused(source: str, data: bytes | None = None, **flags: object) -> None:
    """Fails where anything comes out but a request or a BuildError of this stage."""
    try:
        request: FeatureRequest | BuildError = read(source, flags, data=data)
    except BuildError as error:
        request = error
    if isinstance(request, BuildError):
        assert request.stage == "decode"
        assert request.problem
        assert request.fix
        assert f"{request}{''.join(request.details)}".isprintable()


class TestWhateverItIs:
    @ANYTHING
    @given(st.binary(max_size=200))
    @example(b"\xff")
    @example(b"{")
    def test_bytes(self, data):
        read_or_refused("-", data)

    @ANYTHING
    @given(st.text(alphabet="[]{}=.,'\"\\\n #ab1:-_", max_size=60))
    def test_text_that_is_nearly_toml_or_json(self, text):
        read_or_refused("-", text.encode())

    @settings(ANYTHING, max_examples=60)  # each takes many draws
    @given(st.dictionaries(st.sampled_from(NAMES) | TEXTS, VALUES, max_size=6))
    def test_json(self, value):
        read_or_refused("-", json.dumps(value).encode())

    @ANYTHING
    @given(st.sampled_from(NAMES), VALUES)
    def test_a_good_request_with_one_field_of_anything(self, field, value):
        read_or_refused("-", json.dumps({**ASKED, field: value}).encode())
        requirements = [{**PROBE, field: value}]
        read_or_refused("-", json.dumps({**ASKED, "requirements": requirements}).encode())

    @ANYTHING
    @given(st.text(), st.text(), st.lists(st.text(), max_size=3))
    def test_flags(self, name, description, tags):
        read_or_refused(f"{name}x", description=description, tags=tags)


def test_the_schema_says_what_may_be_asked():
    schema = FeatureRequest.model_json_schema()
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    assert validator.is_valid({**ASKED, "requirements": [{"kind": "probe"}, PROBE]})
    for wrong in (
        {"feature": "x"},
        *({**ASKED, "feature": name} for name in ("X", "", "1a", "a-b", "x" * 64, "../x")),
        {**ASKED, "tag": "x"},
        {**ASKED, "version": "1.0"},
        {**ASKED, "requirements": [{}]},
        *({**ASKED, "requirements": [{**PROBE, "path": path}]} for path in ("x", "/../x", "/x/")),
    ):
        assert not validator.is_valid(wrong), wrong
        refusal("-", wrong)


@ANYTHING
@given(st.sampled_from(NAMES), VALUES)
def test_what_is_accepted_is_right_by_the_schema(field, value):
    asked = {**ASKED, field: value}
    try:
        read("-", {}, data=json.dumps(asked).encode())
    except BuildError:
        return
    Draft202012Validator(FeatureRequest.model_json_schema()).validate(asked)
