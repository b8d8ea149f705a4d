"""`JsonFormatter.to_line`: whatever a record holds, it is one line of JSON.

Long because there is no end to what people log.
"""

import dataclasses
import json
import logging
import math
import re
import sys
import time
from collections import OrderedDict, namedtuple
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import StrEnum
from http import HTTPStatus
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict
from pydantic import BaseModel

from petsage.context import new_request_context, set_current_request
from petsage.logs.formatter import JsonFormatter

LIMIT = 4096
REDACT = ["api_key", "authorization", "cookie", "password", "private_key", "token"]
OWN = ["timestamp", "level", "logger", "message", "service", "version"]
OWN += ["feature", "request_id", "trace_id", "span_id"]


def a_formatter(max_line_bytes: int = LIMIT, redact: list[str] = REDACT) -> JsonFormatter:
    return JsonFormatter(
        service="petsage", version="1.2.3", redact=redact, max_line_bytes=max_line_bytes
    )


FORMATTER = a_formatter()


def a_record(message: Any = "Pet fed", *args: Any, **attributes: Any) -> logging.LogRecord:
    record = logging.LogRecord("features.pets.routes", logging.INFO, __file__, 1, message, (), None)
    record.args = args
    record.__dict__.update(attributes)
    return record


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def parsed(line: bytes, limit: int = LIMIT) -> dict[str, Any]:
    """The line's fields, once it is what every line must be."""
    assert len(line) <= limit
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    text = line[:-1].decode()
    assert not re.search("[\x00-\x1f\x7f-\x9f]", text)
    fields = json.loads(text, parse_constant=refuse)
    assert isinstance(fields, dict)
    assert list(fields)[:10] == OWN
    return fields


def fields_of(message: Any = "Pet fed", *args: Any, **attributes: Any) -> dict[str, Any]:
    return parsed(FORMATTER.to_line(a_record(message, *args, **attributes)))


class RaisesInText:
    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


class BadText(str):
    """A str whose every method raises."""

    def _refuse(self, *_: object) -> Any:
        raise RuntimeError("bad text")

    __str__ = __repr__ = __getitem__ = _refuse
    __format__ = __mod__ = __len__ = lower = casefold = isascii = _refuse
    encode = _refuse  # type: ignore[assignment] # whoever breaks a method breaks its types


class BadMapping(dict[str, Any]):
    """A dict whose every method raises."""

    def _refuse(self, *_: object) -> Any:
        raise RuntimeError("bad mapping")

    __iter__ = __len__ = __bool__ = __getitem__ = __str__ = __repr__ = _refuse
    items = keys = values = get = _refuse


class BadList(list[Any]):
    def __iter__(self) -> Any:
        raise RuntimeError("bad list")


class LyingNumber(int):
    def __index__(self) -> int:
        raise RuntimeError("bad number")

    __int__ = __abs__ = __str__ = __repr__ = __index__  # type: ignore[assignment]


class Shy:
    @property
    def __class__(self) -> Any:
        raise RuntimeError("no class")

    @__class__.setter
    def __class__(self, _: Any) -> None: ...


class Colour(StrEnum):
    RED = "red"


class Account(BaseModel):
    owner: str
    password: str


@dataclasses.dataclass
class Login:
    owner: str
    api_key: str


Pair = namedtuple("Pair", ["owner", "token"])


def nested(depth: int, make: Any) -> Any:
    value: Any = "the end"
    for _ in range(depth):
        value = make(value)
    return value


SHARED = [1]


def circular_dict() -> dict[str, Any]:
    value: dict[str, Any] = {"name": "Rex"}
    value["self"] = value
    return value


def circular_list() -> list[Any]:
    value: list[Any] = [1]
    value.append(value)
    return value


# The fields and their order


def test_a_line_has_the_fields_of_every_line_in_their_order():
    fields = fields_of()
    assert list(fields) == OWN
    assert fields["level"] == "INFO"
    assert fields["logger"] == "features.pets.routes"
    assert fields["message"] == "Pet fed"
    assert fields["service"] == "petsage"
    assert fields["version"] == "1.2.3"
    assert fields["feature"] == "pets"
    assert fields["request_id"] is fields["trace_id"] is fields["span_id"] is None


def test_extras_follow_the_fields_of_every_line_and_what_went_wrong_comes_last():
    record = caught(raise_surrogate)
    record.__dict__.update(pet="Rex", weight=math.nan, stack_info="Stack:\n  line", count=2)
    assert list(parsed(FORMATTER.to_line(record))) == [
        *OWN, "pet", "weight", "count", "exc_info", "stack_info", "altered",
    ]  # fmt: skip


def test_a_line_written_in_a_request_names_its_ids_and_its_feature():
    context = new_request_context("my-id", f"00-{'a' * 32}-{'b' * 16}-01")
    context.feature = "shops"
    set_current_request(context)
    try:
        fields = fields_of()
    finally:
        set_current_request(None)
    assert fields["request_id"] == "my-id"
    assert fields["trace_id"] == "a" * 32
    assert fields["span_id"] == context.span_id != "b" * 16
    assert fields["feature"] == "shops"


@pytest.mark.parametrize(
    ("created", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000000Z"),
        (1_700_000_000.25, "2023-11-14T22:13:20.250000Z"),
        (1_700_000_000.9999998, "2023-11-14T22:13:20.999999Z"),
        (-0.5, "1969-12-31T23:59:59.500000Z"),
    ],
)
def test_a_timestamp_is_utc_to_the_microsecond(created, text):
    assert FORMATTER.timestamp_of(created) == text


def test_the_timestamp_of_a_record_is_the_time_it_was_made():
    before = datetime.now(UTC)
    made = datetime.fromisoformat(fields_of()["timestamp"])
    assert timedelta(microseconds=-1) <= made - before < timedelta(seconds=5)


def test_the_formatter_serves_any_stdlib_handler_with_the_line_without_its_newline():
    text = FORMATTER.format(a_record())
    assert "\n" not in text
    assert json.loads(text)["message"] == "Pet fed"


# Messages


def test_percent_arguments_are_in_the_message():
    assert fields_of("Pet %s weighs %.1f kg", "Rex", 12.345)["message"] == "Pet Rex weighs 12.3 kg"


@pytest.mark.parametrize(
    ("message", "args"),
    [
        ("Pet %s and %s", ("Rex",)),
        ("Pet", ("Rex",)),
        ("Pet %d", ("Rex",)),
        ("Pet %(name)s", ("Rex",)),
        ("Pet %y", ("Rex",)),
        ("Pet %s", (RaisesInText(),)),
        ("Pet %s", (BadMapping(),)),
        ("Pet %d", (10**5000,)),
        ("Pet %s", (10**5000,)),
        (BadText("Pet"), ("Rex",)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_message_whose_arguments_do_not_fit_is_written_without_them_and_marked(message, args):
    fields = fields_of(message, *args)
    if fields.get("altered") != ["message"]:
        assert fields["message"].startswith("Pet 1000")  # %d takes any number, %s does not
        return
    assert "[not formatted: " in fields["message"]


def test_a_message_whose_text_cannot_be_had_is_a_line_that_says_so():
    fields = fields_of(RaisesInText())
    assert "RaisesInText" in fields["message"]
    assert fields["altered"] == ["message"]


def test_a_message_that_is_a_str_subclass_is_written_without_its_methods():
    assert fields_of(BadText("Pet fed"))["altered"] == ["message"]

    class Quiet(str):
        encode = lower = None  # type: ignore[assignment]

    assert fields_of(Quiet("Pet fed"))["message"] == "Pet fed"


def test_a_dict_as_message_becomes_fields_its_secrets_masked():
    fields = fields_of({"pet": "Rex", "level": 3, "exc_info": 1, "_id": 7, "token": "t0p"})
    assert fields["message"] == ""
    assert fields["pet"] == "Rex"
    assert fields["level"] == "INFO"
    assert (fields["extra_level"], fields["extra_exc_info"], fields["_id"]) == (3, 1, 7)
    assert fields["token"] == "***"


def test_a_dict_as_message_that_raises_is_a_line_still():
    assert fields_of(BadMapping(pet="Rex"))["altered"] == ["message"]


@pytest.mark.parametrize("character", ["x", "é", "\x7f", "\x85", "\x1b", "\U0001f415", "\ud800"])
@pytest.mark.parametrize("limit", [1024, 32_768])
def test_a_message_of_a_million_characters_is_cut_and_says_how_long_it_was(character, limit):
    line = a_formatter(limit).to_line(a_record(character * 1_000_000, pet="Rex"))
    fields = parsed(line, limit)
    assert fields["truncated"] > 1_000_000
    assert fields["message"].endswith("…")
    assert len(line) > limit / 12
    assert fields["pet"] == "Rex"


def test_a_line_just_within_the_limit_is_left_whole_and_one_byte_more_is_cut():
    spare = LIMIT - len(FORMATTER.to_line(a_record("")))
    whole = FORMATTER.to_line(a_record("x" * spare))
    assert len(whole) == LIMIT
    assert parsed(whole)["message"] == "x" * spare
    assert parsed(FORMATTER.to_line(a_record("x" * (spare + 1))))["truncated"] == LIMIT + 1


def test_a_cut_line_keeps_its_time_and_the_ids_of_its_request_whole():
    context = new_request_context("r" * 128, f"00-{'a' * 32}-{'b' * 16}-01")
    set_current_request(context)
    try:
        line = a_formatter(1024).to_line(
            a_record("\x9b" * 5000, **{f"extra{n}": "\x9b" * 500 for n in range(500)})
        )
    finally:
        set_current_request(None)
    fields = parsed(line, 1024)
    assert fields["request_id"] == "r" * 128
    assert fields["trace_id"] == "a" * 32
    assert fields["span_id"] == context.span_id
    assert len(fields["timestamp"]) == 27
    assert fields["truncated"] > 1024


def test_newlines_and_terminal_escapes_are_escapes_of_json():
    text = "a\nb\r\x1b[31mred\x07\x00\x7f\x9b31m\x85\u2028c"
    line = FORMATTER.to_line(a_record(text, **{"k\x9b\n": text, "data": {"\x1b\x9d": [text]}}))
    fields = parsed(line)
    assert b"\\u009b31m" in line
    assert b"\\u007f" in line
    assert fields["message"] == fields["k\x9b\n"] == text
    assert fields["data"] == {"\x1b\x9d": [text]}
    assert "altered" not in fields


def test_a_letter_whose_bytes_begin_like_those_of_a_control_is_left_alone():
    line = FORMATTER.to_line(a_record("30 °C, £5, Ân"))
    assert "30 °C, £5, Ân".encode() in line


# Extras


@pytest.mark.parametrize(
    ("value", "shown", "altered"),
    [
        ("text", "text", False),
        (7, 7, False),
        (True, True, False),
        (None, None, False),
        (1.5, 1.5, False),
        (2**64 - 1, 2**64 - 1, False),
        (-(2**63), -(2**63), False),
        (2**64, hex(2**64), True),
        (-(2**63) - 1, str(-(2**63) - 1), True),
        (math.nan, "nan", True),
        (math.inf, "inf", True),
        (-math.inf, "-inf", True),
        ("\ud83d lone", "\\ud83d lone", True),
        (b"bytes \xff", "bytes \\xff", False),
        (bytearray(b"bytes"), "bytes", False),
        (Decimal("1.10"), "1.10", False),
        (Path("a/b"), "a/b", False),
        (Colour.RED, "red", False),
        (HTTPStatus.OK, 200, False),
        (UUID(int=1), str(UUID(int=1)), False),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00", False),
        ((1, (2,)), [1, [2]], False),
        ({5}, [5], False),
        (frozenset("a"), ["a"], False),
        ({1: "a"}, {"1": "a"}, True),
        ({(1, 2): "a"}, {"(1, 2)": "a"}, True),
        ({None: "a"}, {"None": "a"}, True),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}, False),
        (CIMultiDict(Accept="json"), {"Accept": "json"}, False),
        ({"a\ud800": 1}, {"a\\ud800": 1}, True),
        ([2**70, {"deep": math.nan}], [hex(2**70), {"deep": "nan"}], True),
        (circular_dict(), {"name": "Rex", "self": "[circular]"}, True),
        (circular_list(), [1, "[circular]"], True),
        ([SHARED, {"again": SHARED}], [[1], {"again": [1]}], False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_extra_is_shown_as_json_has_it_and_named_where_it_was_altered(value, shown, altered):
    fields = fields_of(extra_value=value)
    assert fields["extra_value"] == shown
    assert fields.get("altered") == (["extra_value"] if altered else None)


def test_a_number_of_thousands_of_digits_is_shown_in_full():
    line = a_formatter(32_768).to_line(a_record(number=10**5000))
    fields = parsed(line, 32_768)
    assert int(fields["number"], 16) == 10**5000
    assert fields["altered"] == ["number"]


@pytest.mark.parametrize(
    "make",
    [
        RaisesInText,
        lambda: BadMapping(pet="Rex"),
        lambda: BadList([1]),
        Shy,
        lambda: {"deep": [RaisesInText()]},
        lambda: {RaisesInText(): 1},
        lambda: datetime(1, 1, 1, tzinfo=timezone(timedelta(seconds=1))),
    ],
)
def test_an_extra_that_raises_loses_neither_the_line_nor_the_other_extras(make):
    fields = fields_of(pet="Rex", broken=make(), count=2)
    assert (fields["message"], fields["pet"], fields["count"]) == ("Pet fed", "Rex", 2)
    assert fields["broken"] is not None


def test_subclasses_of_plain_types_are_taken_by_value_whatever_their_methods_do():
    fields = fields_of(text=BadText("Rex"), number=LyingNumber(7), nested=[LyingNumber(7)])
    assert (fields["text"], fields["number"], fields["nested"]) == ("Rex", 7, [7])


def test_an_object_without_a_form_in_json_is_shown_as_its_text():
    fields = fields_of(thing=object(), function=len, kind=int)
    assert fields["thing"].startswith("<object object at")
    assert fields["function"] == "<built-in function len>"
    assert fields["kind"] == "<class 'int'>"


@pytest.mark.parametrize("make", [lambda value: [value], lambda value: {"in": value}])
def test_data_nested_3000_deep_is_shown_to_a_depth_and_marked(make):
    fields = fields_of(data=nested(3000, make))
    assert "[too deep]" in json.dumps(fields["data"])
    assert fields["altered"] == ["data"]


def test_a_value_of_a_million_items_costs_no_more_than_a_line():
    started = time.thread_time()
    fields = parsed(
        a_formatter(32_768).to_line(
            a_record(items=list(range(1_000_000)), tree=[[0] * 1000] * 1000, text=["x" * 9000] * 90)
        ),
        32_768,
    )
    assert time.thread_time() - started < 0.5
    assert set(fields["altered"]) == {"items", "tree", "text"}


def test_more_than_a_thousand_extras_are_left_out_and_the_line_says_so():
    line = a_formatter(1_000_000).to_line(a_record(**{f"extra{n}": n for n in range(1500)}))
    fields = parsed(line, 1_000_000)
    assert "extra999" in fields
    assert "extra1000" not in fields
    assert fields["altered"] == ["extras"]


@pytest.mark.parametrize("name", ["timestamp", "level", "logger", "service", "version", "feature"])
def test_an_extra_of_a_lines_own_name_is_shown_beside_the_lines_own_field(name):
    fields = fields_of(**{name: "mine", f"extra_{name}": "other"})
    assert fields[name] != "mine"
    assert {fields[f"extra_{name}"], fields[f"extra_extra_{name}"]} == {"mine", "other"}


@pytest.mark.parametrize("name", ["request_id", "trace_id", "span_id", "altered", "truncated"])
def test_an_extra_cannot_pretend_to_be_what_the_line_says_of_itself(name):
    fields = fields_of(**{name: "mine"})
    assert fields.get(name) is None
    assert fields[f"extra_{name}"] == "mine"


def test_extras_whose_names_are_no_text_or_no_utf_8_are_shown():
    record = a_record()
    record.__dict__.update({1: "one", (2,): "two", "a\udfff": "three"})  # type: ignore[dict-item]
    fields = parsed(FORMATTER.to_line(record))
    assert (fields["1"], fields["(2,)"], fields["a\\udfff"]) == ("one", "two", "three")


def test_extras_with_an_underscore_before_their_name_are_for_code_alone():
    assert list(fields_of(_private=1)) == OWN


# Secrets


@pytest.mark.parametrize(
    "name",
    [
        *("password", "PASSWORD", "db_password", "passwordHash", "My-Token", "X_API_KEY"),
        *("x-api-key", "apiKey", "API KEY", "api.key", "Set-Cookie", "Authorization"),
        *("privateKey", "PRIVATE-KEY", "pa\u017f\u017fword"),
    ],
)
def test_a_value_under_a_secret_looking_name_is_masked_wherever_it_stands(name):
    fields = fields_of(
        **{
            name: "s3cret",
            "data": {"list": [{name: {"inner": "s3cret"}}], "tuple": ({name: 5},)},
            "headers": CIMultiDict({name: "s3cret"}),
        }
    )
    assert fields[name] == "***"
    assert fields["data"] == {"list": [{name: "***"}], "tuple": [{name: "***"}]}
    assert fields["headers"] == {name: "***"}
    assert "s3cret" not in json.dumps(fields)
    assert "altered" not in fields


@pytest.mark.parametrize(
    "value",
    [
        Account(owner="Ann", password="s3cret"),
        Login(owner="Ann", api_key="s3cret"),
        Pair(owner="Ann", token="s3cret"),
        [Account(owner="Ann", password="s3cret")],
        {("password",): "s3cret", "owner": "Ann"},
        {b"token": "s3cret", "owner": "Ann"},
    ],
    ids=lambda value: type(value).__name__,
)
def test_secrets_are_masked_in_models_dataclasses_and_named_tuples_too(value):
    line = FORMATTER.to_line(a_record(value=value))
    assert b"s3cret" not in line
    assert b"Ann" in line


def test_names_that_only_resemble_a_secret_are_shown():
    assert fields_of(passenger="Ann", keyboard="qwerty")["passenger"] == "Ann"


def test_nothing_is_masked_where_the_settings_name_nothing():
    for redact in ([], ["", "-"]):
        line = a_formatter(redact=redact).to_line(a_record(password="seen"))
        assert parsed(line)["password"] == "seen"


# Exceptions


def caught(make: Any) -> logging.LogRecord:
    try:
        make()
    except BaseException:  # noqa: BLE001 - a SystemExit among them
        record = a_record("failed")
        record.exc_info = sys.exc_info()
        return record
    raise AssertionError("it did not raise")


def raise_from_cycle() -> None:
    first, second = ValueError("first"), KeyError("second")
    first.__cause__, second.__cause__ = second, first
    first.__context__, second.__context__ = second, first
    raise first


def raise_chain(length: int) -> None:
    last: Exception = ValueError("the first")
    for number in range(length):
        try:
            raise KeyError(number) from last  # noqa: TRY301 - a chain is what is wanted
        except KeyError as error:
            last = error
    raise last


def raise_recursion() -> None:
    raise_recursion()


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class CauselessError(Exception):
    @property
    def __cause__(self) -> Any:  # type: ignore[override] # that it cannot be read is its point
        raise RuntimeError("no cause")


def raise_unspeakable() -> None:
    raise UnspeakableError


def raise_causeless() -> None:
    raise CauselessError("told")


def raise_group() -> None:
    raise ExceptionGroup("many", [ValueError(number) for number in range(10_000)])


def raise_exit() -> None:
    raise SystemExit(3)


def raise_surrogate() -> None:
    raise ValueError("lone \ud800\n\x9b31m")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (raise_from_cycle, "ValueError: first"),
        (lambda: raise_chain(10), "KeyError: 9"),
        (lambda: raise_chain(10_000), "KeyError: 9999"),
        (raise_recursion, "RecursionError"),
        (raise_unspeakable, "UnspeakableError"),
        (raise_causeless, "CauselessError"),
        (raise_group, "many"),
        (raise_exit, "SystemExit: 3"),
        (raise_surrogate, "ValueError: lone \\ud800"),
        (lambda: compile("a b\n" * 100_000, "x", "exec"), "SyntaxError"),
    ],
)
def test_an_exception_is_an_array_of_lines_that_names_it(make, words):
    record = caught(make)
    started = time.thread_time()
    fields = parsed(FORMATTER.to_line(record))
    assert time.thread_time() - started < 0.2
    assert isinstance(fields["exc_info"], list)
    assert all(isinstance(line, str) and "\n" not in line for line in fields["exc_info"])
    assert words in "\n".join(fields["exc_info"])


def test_a_traceback_shows_the_frames_nearest_to_the_error():
    lines = fields_of_error(raise_surrogate)
    assert lines[0] == "Traceback (most recent call last):"
    assert any("in raise_surrogate" in line for line in lines)


def fields_of_error(make: Any) -> list[str]:
    lines = parsed(FORMATTER.to_line(caught(make)))["exc_info"]
    assert isinstance(lines, list)
    return lines


def test_causes_are_in_the_traceback():
    text = "\n".join(fields_of_error(lambda: raise_chain(2)))
    assert "ValueError: the first" in text
    assert "direct cause" in text


def test_exc_info_without_an_exception_adds_nothing():
    assert "exc_info" not in fields_of(exc_info=(None, None, None))


@pytest.mark.parametrize("exc_info", [True, "text", (1, 2), ValueError("bare")])
def test_exc_info_that_is_none_says_so(exc_info):
    assert "[no traceback: " in fields_of(exc_info=exc_info)["exc_info"][0]


def test_a_traceback_that_arrives_as_text_is_lines():
    assert fields_of(exc_text="Traceback:\n  here")["exc_info"] == ["Traceback:", "  here"]


# Records that are none


@pytest.mark.parametrize(
    "attributes",
    [
        {"created": math.nan},
        {"created": "yesterday"},
        {"created": 1e300},
        {"name": None},
        {"name": 5},
        {"name": "a\ud800"},
        {"levelname": None},
        {"levelname": RaisesInText()},
        {"levelname": "x" * 100_000, "name": "features." + "y" * 100_000},
        {"exc_text": 5},
        {"stack_info": 5},
        {"stack_info": "a\ud800\nb"},
        {"msg": None},
        {"args": 5},
    ],
    ids="-".join,
)
def test_a_record_with_impossible_attributes_is_a_line_still(attributes):
    record = a_record("Pet fed")
    record.__dict__.update({key: value[:] if isinstance(value, str) else value
                            for key, value in attributes.items()})  # fmt: skip
    assert parsed(FORMATTER.to_line(record))["timestamp"].endswith("Z")


# Everything

TEXT = st.text(st.characters(), max_size=60)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), TEXT, st.binary(max_size=20),
    st.datetimes(timezones=st.just(UTC)), st.decimals(), st.uuids(), st.builds(object),
    st.builds(RaisesInText), st.builds(Shy),
)  # fmt: skip
KEYS = st.one_of(TEXT, st.integers(), st.tuples(TEXT), st.sampled_from(["password", "level"]))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5), st.dictionaries(KEYS, inner, max_size=5), st.tuples(inner)
    ),
    max_leaves=20,
)


@settings(max_examples=250, deadline=None)
@given(
    message=st.one_of(VALUES, st.builds(lambda text, n: text * n, TEXT, st.integers(0, 100))),
    args=st.lists(SCALARS, max_size=3),
    extras=st.dictionaries(KEYS, VALUES, max_size=6),
    names=st.tuples(TEXT, TEXT),
    limit=st.sampled_from([1024, 4096, 32_768]),
)
def test_any_record_is_one_line_of_json_within_the_limit(message, args, extras, names, limit):
    record = a_record(message, *args)
    record.name, record.levelname = names
    for key, value in extras.items():
        if key not in record.__dict__:
            record.__dict__[key] = value
    fields = parsed(a_formatter(limit).to_line(record), limit)
    for key, value in fields.items():
        assert "password" not in key or value == "***"
