"""Which expressions a text can keep Python's engine busy with, held against that engine."""

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field, StringConstraints, TypeAdapter

from petsage.backtracking import may_hang, slow_patterns

# Each with a text that shows it.
SLOW = [
    (r"(a+)+$", "a" * 40 + "!"),
    (r"(a*)*$", "a" * 40 + "!"),
    (r"(a|aa)+$", "a" * 60 + "!"),
    (r"([a-z]+)*[0-9]", "a" * 40),
    (r"(\w+\s?)*$", "a" * 40 + "!"),
    (r"(a?a)*$", "a" * 60 + "!"),
    (r"(a{1,3})*$", "a" * 60 + "!"),
    (r"(?i)(a+A?)+$", "a" * 40 + "!"),
    (r"(.*,)*x", "," * 40),
    (r"(?=(a+)+$)a", "a" * 40 + "!"),
    (r"([^@\s]+\.)+[a-z]{2,}$", "a." * 40 + "!"),
    (r"(a|b|ab)*c", "ab" * 40),
    (r'(?:[^"\\]+|\\.)*"', "a" * 40),
]
FAST = [
    r"^[a-z]+$", r"(a+b)+$", r"(\w+\.)+com", r'(?:[^"\\]|\\.)*"', r"^\d{4}-\d{2}$", r"(?>a+)+b",
    r"(a++b?)+$", r"(foo|far|bar)*x", r"^(?=.*\d)(?=.*[a-z]).{8,}$", r"(ab|cd)+$", r"(\d{3}-)*x",
    r"^(\+\d{1,3} )?\d+$", r"(\d|\w)*x", r"(a+)?b", r"(a+){2}b", r"^(a|b)(?(1)c|d)\1*$",
]  # fmt: skip


class TooLongError(Exception):
    pass


@contextmanager
def within(limit_s: float) -> Iterator[None]:
    """Ends what takes more of a processor's time."""

    def end(*_: Any) -> None:
        raise TooLongError

    before = signal.signal(signal.SIGPROF, end)
    signal.setitimer(signal.ITIMER_PROF, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@pytest.mark.parametrize(("pattern", "text"), SLOW, ids=[each[0] for each in SLOW])
def test_an_expression_that_can_hang_is_found(pattern, text):
    assert may_hang(pattern)
    assert may_hang(re.compile(pattern))
    with pytest.raises(TooLongError), within(0.2):
        re.search(pattern, text)


@pytest.mark.parametrize("pattern", FAST)
def test_one_that_cannot_is_left_alone(pattern):
    assert not may_hang(pattern)
    with within(1):
        for piece in ("a", "a.", "1", "aA", '"', "\\", "foo", "ab", "-", "123-", "a "):
            re.search(pattern, piece * 500 + "!")


class Checked(BaseModel, regex_engine="python-re"):
    name: Annotated[str, Field(pattern=r"(a+)+$")]
    other: Annotated[str, Field(pattern=r"^a+$")] = "a"


class Unchecked(BaseModel):
    name: Annotated[str, Field(pattern=r"(a+)+$")]
    members: list[Checked] = []


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        (Checked, [r"(a+)+$"]),
        (Unchecked, [r"(a+)+$"]),
        (dict[str, list[Checked | None]], [r"(a+)+$"]),
        (Annotated[str, Field(pattern=r"(a+)+$")], []),
        (Annotated[str, StringConstraints(pattern=re.compile(r"(a|aa)+$"))], [r"(a|aa)+$"]),
        (Annotated[str, StringConstraints(pattern=re.compile(r"^a+$"))], []),
    ],
    ids=["model", "model in one", "mapping", "pydantic's engine", "compiled", "compiled, fast"],
)
def test_only_what_pythons_engine_matches_is_looked_at(kind, found):
    assert list(slow_patterns(TypeAdapter(kind).core_schema)) == found


def test_pydantics_own_engine_cannot_be_kept_busy():
    with within(1), pytest.raises(ValueError, match="string_pattern_mismatch"):
        TypeAdapter(Annotated[str, Field(pattern=r"(a+)+$")]).validate_python("a" * 100_000 + "!")
