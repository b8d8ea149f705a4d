"""A value that is not of its type is an error, whatever the process does with warnings."""

import unittest
import warnings
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter, field_serializer
from pydantic_core import PydanticSerializationError

from petsage.serializing import to_json

ACTIONS = ("default", "error", "ignore", "always", "once", "module")


class Pet(BaseModel):
    """What is made JSON of."""

    name: str


class Loud(BaseModel):
    """One whose own serializer warns of who calls it."""

    name: str

    @field_serializer("name")
    def _shout(self, name: str) -> str:
        warnings.warn("shouting is old", DeprecationWarning, stacklevel=2)
        return name.upper()


serialize = TypeAdapter(Pet).serializer.to_json


def _wrong() -> Pet:
    return Pet.model_construct(name=7)  # type: ignore[arg-type] # as a handler might


def test_a_value_of_its_type_is_json():
    assert to_json(serialize, Pet(name="Rex")) == b'{"name":"Rex"}'


@pytest.mark.parametrize("action", ACTIONS)
def test_a_value_of_another_type_is_an_error_whatever_the_filters_say(action: Any):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter(action)
        for _ in range(2):  # what has been warned of is not shown again
            with pytest.raises(PydanticSerializationError, match="name") as raised:
                to_json(serialize, _wrong())
            assert raised.value.__context__ is None
    assert not seen


def test_a_filter_that_is_set_while_it_serializes_lets_nothing_pass():
    class Hushing(BaseModel):
        first: str
        second: int

        @field_serializer("first")
        def _hush(self, first: str) -> str:
            warnings.simplefilter("ignore")
            return first

    value = Hushing(first="a", second=1)
    value.second = "b"  # type: ignore[assignment] # as a handler might
    with warnings.catch_warnings(), pytest.raises(PydanticSerializationError, match="second"):
        to_json(TypeAdapter(Hushing).serializer.to_json, value)


def test_a_test_that_wants_every_warning_again_lets_nothing_pass():
    with unittest.TestCase().assertWarns(UserWarning):
        warnings.warn("seen", stacklevel=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(PydanticSerializationError):
            to_json(serialize, _wrong())


def test_a_serializer_that_warns_of_its_caller_still_answers():
    with pytest.warns(DeprecationWarning, match="shouting is old"):
        body = to_json(TypeAdapter(Loud).serializer.to_json, Loud(name="Rex"))
    assert body == b'{"name":"REX"}'


def test_pydantic_is_not_asked_the_dear_way():
    asked: list[object] = []

    def ask(_value: object, *, warnings: object, by_alias: bool) -> bytes:
        asked.append((warnings, by_alias))
        return b"{}"

    assert to_json(ask, Pet(name="Rex")) == b"{}"
    assert asked == [(True, True)]
