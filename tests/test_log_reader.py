"""`petsage logs`, called as the command calls it. Long because what a line may hold is much."""

import contextlib
import io
import json
import os
import re
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petsage.log_reader import Counts, LineFilter, show_lines

EVERYTHING = LineFilter()
OUR_SGR = re.compile("\x1b\\[(?:0|2|31|32|33|36|1;31)m")
BIDI_CONTROLS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def a_line(**fields: Any) -> dict[str, Any]:
    return {
        "timestamp": "2026-03-04T05:06:07.891234Z",
        "level": "INFO",
        "logger": "features.pets",
        "message": "Pet fed",
        "service": "petsage",
        "version": "1.0.0",
        "feature": "pets",
        "request_id": None,
        "trace_id": None,
        "span_id": None,
        **fields,
    }


def encoded(**fields: Any) -> bytes:
    return json.dumps(a_line(**fields), ensure_ascii=False).encode() + b"\n"


def shown(
    *lines: bytes, line_filter: LineFilter = EVERYTHING, colour: bool = False, raw: bool = False
) -> str:
    out = io.StringIO()
    show_lines(lines, out, line_filter=line_filter, colour=colour, raw=raw)
    return out.getvalue()


def messages_shown(line_filter: LineFilter, *lines: bytes) -> list[str]:
    written = shown(*lines, line_filter=line_filter, raw=True)
    return [json.loads(line)["message"] for line in written.splitlines()]


# What is shown of a line


def test_a_line_shows_its_time_level_logger_and_message() -> None:
    assert shown(encoded()) == "05:06:07.891 INFO     features.pets Pet fed\n"


@pytest.mark.parametrize(
    ("timestamp", "time"),
    [
        ("2026-03-04T05:06:07.891234Z", "05:06:07.891"),
        ("2026-03-04T05:06:07.891234+05:30", "23:36:07.891"),
        ("2026-03-04T05:06:07", "05:06:07.000"),
        ("0001-01-01T00:00:00+23:00", "0001-01-01T00:00:00+23:00"),
        ("yesterday", "yesterday   "),
        (1772600767.5, "1772600767.5"),
    ],
)
def test_a_time_is_shown_in_utc_and_what_is_no_time_as_it_stands(
    timestamp: object, time: str
) -> None:
    assert shown(encoded(timestamp=timestamp)).startswith(f"{time} INFO ")


def test_extras_are_shown_as_key_and_value() -> None:
    written = shown(encoded(pet="Rex", age=3, tags=["a", "b"], owner={"name": "Zoë"}, chip=None))
    assert written.endswith(
        ' Pet fed pet=Rex age=3 tags=["a","b"] owner={"name":"Zoë"} chip=null\n'
    )


def test_an_extra_that_could_be_taken_for_several_is_quoted() -> None:
    written = shown(encoded(name="Rex age=3", empty="", **{"a key": 'say "hi"'}))
    assert written.endswith(r' name="Rex age=3" empty="" "a key"="say \"hi\""' + "\n")


def test_a_request_id_is_shortened_to_eight_characters() -> None:
    assert shown(encoded(request_id="0123456789abcdef")).endswith(" Pet fed 01234567\n")


def test_an_access_line_is_shown_as_request_and_answer() -> None:
    written = shown(
        encoded(
            logger="petsage.access",
            message="GET /api/v1/pets",
            method="GET",
            path="/api/v1/pets",
            route="/api/v1/pets",
            status=200,
            duration_ms=1.234,
            bytes=17,
            remote="127.0.0.1",
            user_agent="curl/8",
        )
    )
    assert written == "05:06:07.891 INFO     petsage.access GET /api/v1/pets 200 1.2 ms\n"


def test_an_access_line_shows_its_further_extras_and_request_id() -> None:
    fields = {"logger": "petsage.access", "method": "GET", "path": "/", "status": 503}
    written = shown(encoded(**fields, duration_ms=2, cause="draining", request_id="0123456789"))
    assert written.endswith(" GET / 503 2 ms cause=draining 01234567\n")


def test_a_path_with_spaces_cannot_pass_for_a_status() -> None:
    fields = {"logger": "petsage.access", "method": "GET", "status": 404, "duration_ms": 0.5}
    assert shown(encoded(path="/ 200 1.0 ms", **fields)).endswith('GET "/ 200 1.0 ms" 404 0.5 ms\n')


def test_an_access_line_without_a_status_shows_its_message() -> None:
    written = shown(encoded(logger="petsage.access", message="Connection lost", remote="::1"))
    assert written.endswith(" petsage.access Connection lost remote=::1\n")


def test_an_exception_is_shown_as_indented_lines_below() -> None:
    written = shown(encoded(exc_info=["Traceback:", '  File "a.py"', "ValueError: no"]))
    assert written.splitlines()[1:] == [
        "    Traceback:",
        '      File "a.py"',
        "    ValueError: no",
    ]


def test_an_exception_may_be_a_text() -> None:
    written = shown(encoded(exc_info="Traceback:\nValueError"))
    assert written.splitlines()[1:] == ["    Traceback:", "    ValueError"]


def test_an_exception_of_another_form_is_shown_as_json() -> None:
    assert shown(encoded(exc_info={"type": "E"})).splitlines()[1:] == ['    {"type":"E"}']


def test_an_object_of_another_program_is_shown_with_what_it_has() -> None:
    assert shown(b'{"msg":"hi","level":30}\n') == "-            30       -  msg=hi\n"


@pytest.mark.parametrize(
    ("level", "sgr"),
    [("INFO", "\x1b[32m"), ("WARNING", "\x1b[33m"), ("warn", "\x1b[33m"), ("ERROR", "\x1b[31m")],
)
def test_a_level_has_its_colour(level: str, sgr: str) -> None:
    assert f"{sgr}{level:<8}\x1b[0m" in shown(encoded(level=level), colour=True)


@pytest.mark.parametrize(
    ("status", "sgr"), [(200, "\x1b[32m"), (404, "\x1b[33m"), (500, "\x1b[31m")]
)
def test_a_status_has_its_colour(status: int, sgr: str) -> None:
    fields = {"logger": "petsage.access", "method": "GET", "path": "/"}
    assert f" {sgr}{status}\x1b[0m " in shown(encoded(status=status, **fields), colour=True)


def test_a_request_id_is_dimmed() -> None:
    assert shown(encoded(request_id="0123456789"), colour=True).endswith(
        " \x1b[2m01234567\x1b[0m\n"
    )


def test_without_colour_no_escape_is_written() -> None:
    assert "\x1b" not in shown(encoded(level="ERROR", request_id="1", extra=1), b"foreign\n")


# Foreign lines


@pytest.mark.parametrize(
    "line", [b"Killed", b"[1,2]", b'"text"', b"17", b'{"cut of', b"", b"[" * 9999]
)
def test_a_line_that_is_no_json_object_is_passed_through(line: bytes) -> None:
    assert shown(line + b"\n") == line.decode() + "\n"


def test_a_foreign_line_is_dimmed() -> None:
    assert shown(b"Killed\n", colour=True) == "\x1b[2mKilled\x1b[0m\n"


def test_a_foreign_line_keeps_its_indentation_by_tabs() -> None:
    assert shown(b"\tat Main.java\n") == "        at Main.java\n"


@pytest.mark.parametrize(
    "line_filter", [LineFilter(level="DEBUG"), LineFilter(logger="a"), LineFilter(request_id="1")]
)
def test_a_filter_leaves_foreign_lines_out(line_filter: LineFilter) -> None:
    assert shown(b"Killed\n", line_filter=line_filter) == ""


def test_raw_output_holds_json_alone() -> None:
    assert shown(b"Killed\n", encoded(), raw=True) == encoded().decode()


def test_each_line_is_counted_once_as_shown_hidden_or_foreign() -> None:
    source = [encoded(level="ERROR"), encoded(), encoded(), b"a\n", b"b\n", b"c\n"]
    errors = LineFilter(level="ERROR")
    assert show_lines(source, io.StringIO(), line_filter=errors, colour=False) == Counts(1, 2, 3)
    assert show_lines(source, io.StringIO(), line_filter=EVERYTHING, colour=False) == Counts(
        3, 0, 3
    )


# Filters


def test_a_filter_on_a_level_takes_that_level_and_those_more_severe() -> None:
    names = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
    lines = [encoded(level=name, message=name) for name in names]
    assert messages_shown(LineFilter(level="WARNING"), *lines) == ["WARNING", "ERROR", "CRITICAL"]


@pytest.mark.parametrize("level", ["error", "Error", "ERROR"])
def test_a_level_may_be_named_in_any_case(level: str) -> None:
    assert LineFilter(level=level).matches(a_line(level="error"))
    assert not LineFilter(level=level).matches(a_line(level="warning"))


def test_a_level_without_a_name_is_compared_by_its_number() -> None:
    assert LineFilter(level="INFO").matches(a_line(level="Level 25"))
    assert not LineFilter(level="WARNING").matches(a_line(level="Level 25"))


@pytest.mark.parametrize("level", ["LOUD", None, 40, ["ERROR"]])
def test_a_filter_on_a_level_leaves_out_a_line_of_no_known_level(level: object) -> None:
    assert not LineFilter(level="DEBUG").matches(a_line(level=level))


def test_an_unknown_level_is_refused_with_the_nearest_and_all_right_names() -> None:
    with pytest.raises(ValueError, match="'wraning' is not a log level") as refused:
        LineFilter(level="wraning")
    assert "Did you mean WARNING?" in str(refused.value)
    assert "DEBUG, INFO, WARNING, ERROR, CRITICAL" in str(refused.value)


def test_an_unknown_level_like_no_other_is_refused_without_a_guess() -> None:
    with pytest.raises(ValueError, match=r"'xyz' is not a log level\. The levels are"):
        LineFilter(level="xyz")


@pytest.mark.parametrize(
    ("logger", "taken"),
    [
        ("features.pets", True),
        ("features.pets.routes", True),
        ("features.petshop", False),
        ("features", False),
        (None, False),
    ],
)
def test_a_filter_on_a_logger_takes_those_below_it(logger: object, taken: bool) -> None:
    assert LineFilter(logger="features.pets").matches(a_line(logger=logger)) is taken


@pytest.mark.parametrize(("request_id", "taken"), [("abc", True), ("abcd", False), (None, False)])
def test_a_filter_on_a_request_takes_its_exact_id(request_id: object, taken: bool) -> None:
    assert LineFilter(request_id="abc").matches(a_line(request_id=request_id)) is taken


def test_a_line_must_satisfy_all_that_a_filter_asks() -> None:
    wanted = {"level": "ERROR", "logger": "features.pets", "request_id": "abc"}
    line_filter = LineFilter(**wanted)
    assert line_filter.matches(a_line(**wanted))
    for name in wanted:
        assert not line_filter.matches(a_line(**{**wanted, name: "other"}))


# Raw output


def test_raw_lines_are_written_unchanged() -> None:
    line = '{ "message" : "Zoë \\u001b[31m 🐈" ,"n":1.0,"big":123456789012345678901234567890}\n'
    assert shown(line.encode(), raw=True) == line


def test_a_raw_line_with_controls_keeps_its_value_and_loses_them() -> None:
    line = b'{\t"message": "a\x7f\xc2\x9b31m\xe2\x80\xae"}\r\n'
    written = shown(line, raw=True)
    assert written == '{ "message": "a\\u007f\\u009b31m\\u202e"}\n'
    assert json.loads(written) == json.loads(line)


def test_a_raw_line_shows_bytes_that_are_no_utf8_as_a_text() -> None:
    assert json.loads(shown(b'{"message": "a\xff"}\n', raw=True)) == {"message": "a\\xff"}


# What strangers write into a log


@pytest.mark.parametrize(
    ("hostile", "harmless"),
    [
        ("\x1b[2J", "\\u001b[2J"),
        ("\x9b2J", "\\u009b2J"),
        ("\x7f", "\\u007f"),
        ("a\nb\rc\td", "a\\nb\\rc\\td"),
        ("\u202etxt.exe", "\\u202etxt.exe"),
        ("\u200e\u200f\u061c", "\\u200e\\u200f\\u061c"),
        ("\u2028", "\\u2028"),
        ("\ud800", "\\ud800"),
    ],
)
def test_controls_in_a_message_are_shown_and_not_obeyed(hostile: str, harmless: str) -> None:
    line = json.dumps(a_line(message=hostile)).encode()
    assert shown(line).endswith(f" features.pets {harmless}\n")


@pytest.mark.parametrize(
    "field",
    ["timestamp", "level", "logger", "request_id", "method", "path", "status", "duration_ms"],
)
def test_controls_are_obeyed_in_no_field(field: str) -> None:
    access = {"logger": "petsage.access", "method": "GET", "path": "/", "status": 200}
    line = a_line(**{**access, "duration_ms": 1.0, field: "\x1b]0;pwned\x07"})
    written = shown(json.dumps(line).encode())
    assert "\\u001b]" in written
    assert "\x1b" not in written


def test_controls_are_obeyed_in_no_extra_key_exception_or_foreign_line() -> None:
    written = shown(
        encoded(**{"\x1bkey": {"\x9b": "\x9b"}}),
        encoded(exc_info=["\x1bin exception", {"\x9b": 1}]),
        b"\x1bin foreign\n",
    )
    assert not set(written) & {"\x1b", "\x9b"}
    assert written.count("\\u001b") == 3


def test_people_s_writing_is_left_alone() -> None:
    message = "Zoë, 猫, שלום, می‌خواهم, 👩‍👩‍👧"  # the last two hold joiners, which are no controls
    assert shown(encoded(message=message)).endswith(f" {message}\n")


def test_bytes_that_are_no_utf8_are_shown_with_backslashes() -> None:
    assert shown(b"caf\xe9 \xc3\xa9\n") == "caf\\xe9 é\n"
    assert shown(b'{"message":"caf\xe9"}\n').endswith(" caf\\xe9\n")


def test_an_output_that_cannot_encode_a_character_gets_its_escape() -> None:
    behind = io.BytesIO()
    out = io.TextIOWrapper(behind, encoding="ascii")
    show_lines([encoded(message="é🐈")] * 2, out, line_filter=EVERYTHING, colour=False, raw=True)
    lines = behind.getvalue().splitlines()
    assert [json.loads(line)["message"] for line in lines] == ["é🐈", "é🐈"]


def test_an_object_nested_too_deeply_to_read_is_foreign() -> None:
    deepest = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    assert shown(deepest, encoded()).startswith('{"a":{"a":')


def test_an_object_nested_too_deeply_to_write_does_not_end_the_reading() -> None:
    # What can be read and not written lies within a few levels of the interpreter's limit.
    limit = sys.getrecursionlimit()
    depths = range(limit - 200, limit + 10)
    lines = [b'{"a":' * depth + b"1" + b"}" * depth for depth in depths]
    assert shown(*lines).count("\n") == len(lines)


def test_a_line_of_several_megabytes_is_shown_whole() -> None:
    message = "x" * 5_000_000
    assert shown(encoded(message=message), encoded()).count("x") == 5_000_000
    assert shown(message.encode(), encoded()).splitlines()[0] == message


def test_a_number_too_long_to_read_makes_its_line_foreign() -> None:
    assert shown(b'{"n":' + b"9" * 5000 + b"}\n").startswith('{"n":999')


# Streaming


def test_a_last_line_without_a_newline_is_shown(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(encoded(message="first") + encoded(message="last").rstrip(b"\n"))
    out = io.StringIO()
    with log.open("rb") as source:
        show_lines(source, out, line_filter=EVERYTHING, colour=False)
    assert [line.split()[-1] for line in out.getvalue().splitlines()] == ["first", "last"]
    assert out.getvalue().endswith("\n")


def test_each_line_is_written_out_before_the_next_is_read(tmp_path: Path) -> None:
    written = tmp_path / "out"
    seen: list[int] = []

    def source() -> Iterator[bytes]:
        for line in (encoded(), b"foreign\n", encoded()):
            yield line
            seen.append(len(written.read_text().splitlines()))

    with written.open("w") as out:
        show_lines(source(), out, line_filter=EVERYTHING, colour=False)
    assert seen == [1, 2, 3]


def test_a_reader_that_has_gone_is_for_the_caller_to_handle() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    out = os.fdopen(writing, "w")
    with pytest.raises(BrokenPipeError):
        show_lines([encoded()], out, line_filter=EVERYTHING, colour=False)
    with contextlib.suppress(BrokenPipeError):
        out.close()


# Whatever comes in

FIELDS = (
    *("timestamp", "level", "logger", "message", "request_id", "exc_info"),
    *("method", "path", "status", "duration_ms", "user_agent"),
)
# Controls are rare among all characters: half of the texts are made of them.
HOSTILE = st.text('\x00\t\n\r\x1b\x7f\x85\x9b\u200e\u2028\u202e\u2066\ud800\udc80[31m"\\= é🐈')
TEXTS = st.text(st.characters()) | HOSTILE
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(st.sampled_from(FIELDS) | TEXTS, VALUES, max_size=8).flatmap(
    lambda line: st.sampled_from([line, {"logger": "petsage.access", "status": 200, **line}])
)
ENCODED = st.builds(
    lambda line, ascii_only: json.dumps(line, ensure_ascii=ascii_only).encode(
        "utf-8", "surrogatepass"
    ),
    OBJECTS,
    st.booleans(),
)
LINES = st.lists(
    ENCODED | st.binary() | st.builds(lambda b: b'{"message":"' + b + b'"}', st.binary())
)
FILTERS = st.builds(
    LineFilter,
    level=st.none() | st.sampled_from(["debug", "ERROR"]),
    logger=st.none() | TEXTS,
    request_id=st.none() | TEXTS,
)


def obeyed_by_a_terminal(text: str) -> set[str]:
    """By Unicode's own data, and not by the expression that the module has."""
    return {
        character
        for character in set(text) - {"\n"}
        if unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"}
        or unicodedata.bidirectional(character) in BIDI_CONTROLS
    }


@settings(deadline=None)
@given(lines=LINES, line_filter=st.just(EVERYTHING) | FILTERS, raw=st.booleans())
def test_whatever_comes_in_no_control_comes_out(
    lines: list[bytes], line_filter: LineFilter, raw: bool
) -> None:
    written = shown(*lines, line_filter=line_filter, raw=raw)
    assert obeyed_by_a_terminal(written) == set()


@settings(deadline=None)
@given(lines=LINES)
def test_whatever_comes_in_colour_adds_nothing_but_our_own_codes(lines: list[bytes]) -> None:
    assert OUR_SGR.sub("", shown(*lines, colour=True)) == shown(*lines)


@settings(deadline=None)
@given(lines=LINES, line_filter=st.just(EVERYTHING) | FILTERS)
def test_whatever_comes_in_each_line_is_counted_once(
    lines: list[bytes], line_filter: LineFilter
) -> None:
    counts = show_lines(lines, io.StringIO(), line_filter=line_filter, colour=False)
    assert counts.shown + counts.hidden + counts.foreign == len(lines)


@settings(deadline=None)
@given(line=OBJECTS)
def test_whatever_object_comes_in_raw_output_has_its_value(line: dict[str, Any]) -> None:
    # Controls beyond ASCII stand in it as they are; of surrogates, UTF-8 has none but as escapes.
    source = json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace")
    # Read again from text, since NaN equals nothing, itself included.
    expected = json.dumps(json.loads(source))
    assert json.dumps(json.loads(shown(source, raw=True))) == expected


@settings(deadline=None)
@given(lines=st.lists(OBJECTS.filter(lambda line: "exc_info" not in line), min_size=1))
def test_whatever_object_comes_in_takes_one_line(lines: list[dict[str, Any]]) -> None:
    source = [json.dumps(line).encode() for line in lines]
    assert shown(*source).count("\n") == len(lines)
