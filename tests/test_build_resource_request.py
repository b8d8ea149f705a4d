"""Resources, as they are asked for: in documents and on the command line; and what they come to."""

import contextlib
import json
import keyword
import time
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import BaseModel, ValidationError

from petsage.builder.examples import key_of
from petsage.builder.faults import Fault
from petsage.builder.field_rules import faults_of_fields
from petsage.builder.fields import FieldSchema
from petsage.builder.patterns import flaw_of
from petsage.builder.plan import plan_of
from petsage.builder.record import read_record, write_record
from petsage.builder.request import FeatureRequest
from petsage.builder.resource_plan import (
    TAKEN_CLASSES,
    TAKEN_VARIABLES,
    PlannedField,
    PlannedResource,
)
from petsage.builder.values import look_at
from petsage.builder.words import plural_of, singular_of
from tests.test_build_request import read, read_or_refused, refusal

PETS = ("name:str", "species:dog|cat|rabbit", "born:date?", "weight_kg:float")


def asked(fields: object, feature: str = "pets", **rest: object) -> dict[str, Any]:
    """A request with one resource, as a document has it."""
    resource = {"kind": "resource", "fields": fields, **rest}
    return {"feature": feature, "description": "What we know", "requirements": [resource]}


def resource_of(fields: object, **rest: Any) -> PlannedResource:
    return plan_of(FeatureRequest.model_validate(asked(fields, **rest))).resources[0]


def field_of(schema: dict[str, Any], name: str = "value") -> PlannedField:
    return resource_of({name: schema}).fields[0]


def said(schema: dict[str, Any], name: str = "value") -> tuple[str, str]:
    """What is wrong with a field, and the fix."""
    error = refusal("-", asked({name: schema}))
    begin = f"standard input: `requirements[0].fields.{name}"
    assert error.problem.startswith(begin), error.problem
    return error.problem.removeprefix(begin), error.fix


def short(*fields: str, **flags: object) -> FeatureRequest:
    return read("pets", {"description": "x", "fields": list(fields), **flags})


class TestShortForm:
    def test_it_says_the_same_as_a_document(self):
        document = {
            "name": {},
            "species": {"enum": ["dog", "cat", "rabbit"]},
            "born": {"format": "date", "optional": True},
            "weight_kg": {"type": "number"},
        }
        assert short(*PETS).requirements == FeatureRequest(**asked(document)).requirements

    @pytest.mark.parametrize(
        ("text", "schema"),
        [
            ("value:str", {}),
            ("value:int", {"type": "integer"}),
            ("value:float", {"type": "number"}),
            ("value:bool", {"type": "boolean"}),
            ("value:date", {"format": "date"}),
            ("value:datetime", {"format": "date-time"}),
            ("value:uuid", {"format": "uuid"}),
            ("value:email", {"format": "email"}),
            ("value:uri", {"format": "uri"}),
            ("value:str[]", {"type": "array", "items": {}}),
            ("value:int[]?=[]", {"type": "array", "items": {"type": "integer"}, "default": []}),
            ("value:a|b?", {"enum": ["a", "b"]}),
            ("value:str,unique", {"unique": True}),
            (" value : int? , unique , index ", {"type": "integer", "unique": True, "index": True}),
            ("value:str=a=b,c:d?", {"default": "a=b,c:d?"}),
            ("value:str=", {"default": ""}),
            ("value:int=-7", {"type": "integer", "default": -7}),
            ("value:float=1e3", {"type": "number", "default": 1000.0}),
            ("value:bool=false", {"type": "boolean", "default": False}),
            ("value:date=2020-02-29", {"format": "date", "default": "2020-02-29"}),
            ("value:red|green=red", {"enum": ["red", "green"], "default": "red"}),
        ],
    )
    def test_each_word(self, text, schema):
        optional = {"optional": True} if "?" in text.partition("=")[0] else {}
        wanted = FieldSchema.model_validate({**schema, **optional})
        assert short(text).resources()[0].fields == {"value": wanted}

    @pytest.mark.parametrize(
        ("text", "problem", "fix"),
        [
            ("value", "it has no type", "write `name:type`"),
            (":str", "it has no name", "write `name:type`"),
            ("", "it has no name", "write `name:type`"),
            ("value:", "it has no type", "write `name:type`"),
            ("value:strr", "'strr' is no type", "did you mean `str`?"),
            ("value:string", "'string' is no type", "write `str`"),
            ("value:dog", "'dog' is no type", "choose one of `str`, "),
            ("value:json", "'json' has no short form", "describe it in a document"),
            ("value:a||b", "'a||b' has an empty value", "write a word between"),
            ("value:int|str", "'int|str' joins types", "choose one of them"),
            ("value:str,uniqe", "'uniqe' is no word for a field", "did you mean `unique`?"),
            ("value:int=x", "the default 'x' is not right", "write an integer"),
            ("value:int=٣", "the default '٣' is not right", "write an integer"),
            ("value:bool=yes", "the default 'yes' is not right", "write `true` or `false`"),
            ("value:float=nan", "the default 'nan' is not right", "write a number"),
            ("value:str[]=a", "the default 'a' is not right", "write `[]`"),
        ],
    )
    def test_what_cannot_be_read(self, text, problem, fix):
        error = refusal("pets", description="x", fields=[text])
        assert error.problem.startswith(f"the command line, --field: {text!r}: {problem}")
        assert error.fix.startswith(fix)

    def test_all_that_is_wrong_is_told_at_once(self):
        error = refusal("pets", description="x", fields=["a:strr", "b:int", "b:int", "c"])
        assert error.problem == "the command line: 3 things are wrong"
        assert "there is a field of that name already" in error.details[1]

    def test_what_is_read_and_wrong_names_the_flag_and_the_field(self):
        error = refusal("pets", description="x", fields=["age:int=99999999999999999999"])
        assert error.problem == (
            "the command line, --field: `age.default` is a number: an integer has 64 bits"
        )
        error = refusal("pets", description="x", fields=["id:int", "at:date=1.1.2020"])
        assert error.details[0].startswith("the command line, --field: `id`: `id` cannot be a fi")
        assert (
            "`at.default` is '1.1.2020': it is no value of it: text should be a date"
            in (error.details[1])
        )

    def test_a_document_that_says_nothing_of_requirements_takes_fields_and_no_other_does(self):
        head = {"feature": "pets", "description": "x"}
        flags = {"fields": ["name:str"]}
        wanted = short("name:str").requirements
        assert read("-", flags, data=json.dumps(head).encode()).requirements == wanted
        error = refusal("-", asked({"name": {}}), **flags)
        assert error.problem == (
            "standard input has `requirements` of its own, and --field makes others"
        )
        assert error.fix == "write the fields into it, or leave out --field"

    def test_one_of_many_is_called_as_item_says(self):
        error = refusal("haustiere", description="x", fields=["name:str"])
        assert "`haustiere` is what one is called" in error.problem
        assert "--item" in error.fix
        request = read(
            "haustiere", {"description": "x", "fields": ["name:str"], "item": "haustier"}
        )
        assert request.resources()[0].item == "haustier"

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.text(alphabet="ab:=|?,[]_ strindex1é\x1b", max_size=16), max_size=3))
    def test_whatever_it_is_it_is_read_or_refused(self, texts):
        read_or_refused("pets", description="x", fields=texts)


class TestNames:
    @pytest.mark.parametrize(
        ("many", "one"),
        [
            *(("pets", "pet"), ("boxes", "box"), ("categories", "category"), ("houses", "house")),
            *(("addresses", "address"), ("buses", "bus"), ("statuses", "status"), ("days", "day")),
            *(
                ("people", "person"),
                ("mice", "mouse"),
                ("analyses", "analysis"),
                ("heroes", "hero"),
            ),
            *(("movies", "movie"), ("caches", "cache"), ("sizes", "size"), ("metrics", "metric")),
            *(("schemas", "schema"), ("photos", "photo"), ("leaves", "leaf"), ("dishes", "dish")),
            *(("pet_owners", "pet_owner"), ("news", "news_item"), ("data", "data_item")),
            *(("sheep", "sheep_item"), ("pet_news", "pet_news_item"), ("archives", "archive")),
            *(("causes", "cause"), ("statistics", "statistic"), ("indices", "index")),
        ],
    )
    def test_what_one_of_many_is_called(self, many, one):
        assert singular_of(many) == one
        if not one.endswith("_item"):
            assert plural_of(one) == many

    @pytest.mark.parametrize("one", ["pet", "status", "address", "bus", "gas", "lens", "analysis"])
    def test_a_name_of_one_is_refused_with_that_of_many(self, one):
        error = refusal("-", asked({"name": {}}, feature=one))
        assert error.fix.startswith(f"call it `{plural_of(one)}`")

    @pytest.mark.parametrize(
        "name",
        [
            *("id", "created_at", "updated_at", "limit", "cursor", "sort", "xmin", "ctid"),
            *("copy", "json", "dict", "schema", "validate", "construct", "from_orm", "parse_obj"),
            *("model_config", "model_fields", "model_dump", "model_validate_all", "list", "int"),
            *(word for word in keyword.kwlist if word.islower()),
            *("Name", "weightKg", "a-b", "a__b", "_a", "a_", "1a", "", "é", "а", "a" * 41, "a.b"),  # noqa: RUF001 - that letter is meant
            *("__class__", "a b", "a\n", "\x1b[2J", "x" * 100_000),
        ],
        ids=lambda name: repr(name[:20]),
    )
    def test_a_name_that_no_field_can_have_is_refused_with_one_that_it_can(self, name):
        error = refusal("-", asked({name: {}}))
        assert "cannot be a field's name: " in error.problem
        better = error.fix.removeprefix("call it `").removesuffix("`, for example")
        assert field_of({}, better).name == better

    @pytest.mark.parametrize(
        "name",
        [
            *("field", "annotated", "literal", "page", "base_model", "type", "date", "datetime"),
            *("name", "values", "items", "keys", "next", "uuid", "o", "i", "l", "exception"),
            *("model_name", "match", "select", "order", "text", "none", "table", "a" * 40),
        ],
    )
    def test_a_name_that_the_code_uses_has_another_alias(self, name):
        field = field_of({"index": True}, name)
        assert field.alias not in TAKEN_CLASSES
        assert field.alias.isidentifier()

    def test_columns_that_a_table_calls_its_own_are_reached_by_their_keys(self):
        resource = resource_of({"values": {"index": True}, "born": {"format": "date"}})
        assert [each.column for each in resource.fields] == ['.c["values"]', ".c.born"]

    def test_parameters_of_ranges_are_no_other_fields(self):
        resource = resource_of({"born": {"format": "date"}, "born_gte": {"format": "date"}})
        names = [*(each.name for each in resource.fields)]
        names += [name for each in resource.fields for name in each.range_names]
        assert len(set(names)) == len(names)

    def test_the_id_of_the_path_is_no_field(self):
        error = refusal("-", asked({"pet_id": {}}))
        assert error.problem == (
            "standard input: `requirements[0].fields.pet_id`: "
            "`pet_id` is what the id of a pet is called in paths"
        )

    @pytest.mark.parametrize(
        ("first", "second", "key"),
        [
            ({"name": "pets"}, {"name": "pets"}, "name"),
            ({"name": "pets"}, {"name": "dogs", "item": "pet"}, "item"),
            ({"name": "pet_10s"}, {"name": "pet10s"}, "name"),
            ({"name": "pets"}, {"name": "mice", "item": "pets"}, "item"),
            ({"name": "news"}, {"name": "news_items"}, "item"),
        ],
    )
    def test_two_resources_that_would_be_the_same_in_the_code(self, first, second, key):
        parts = [{"kind": "resource", "fields": {"name": {}}, **each} for each in (first, second)]
        error = refusal("-", {**asked({}), "requirements": parts})
        told = "".join((error.problem, *error.details))
        assert f"`requirements[1].{key}`" in told
        assert "as in requirements[0]" in told

    def test_a_probe_at_a_resources_path(self):
        request = asked({"name": {}})
        request["requirements"].append({"kind": "probe"})
        assert refusal("-", request).problem == (
            "standard input: `requirements[1].path` is '/pets': "
            "it is another requirement's path already"
        )

    def test_a_table_bears_its_features_name_where_it_has_another(self):
        assert resource_of({"name": {}}).table == "pets"
        planned = resource_of({"name": {"unique": True}}, name="pet_owners")
        assert (planned.table, planned.path) == ("pets__pet_owners", "/pet-owners")
        assert planned.fields[0].unique_name == "uq_pets__pet_owners__name"

    def test_an_identifier_that_postgresql_would_cut_is_refused(self):
        long = "a" * 39 + "s"
        assert resource_of({"born": {"format": "date"}}, feature=long).table == long
        error = refusal("-", asked({"b" * 40: {"format": "date"}}, feature=long))
        assert "has a name of 87 bytes, and PostgreSQL keeps 63" in error.problem

    def test_variables_are_called_otherwise_where_the_code_needs_their_names(self):
        planned = resource_of({"name": {}}, name="rows", item="query")
        assert (planned.table_variable, planned.variable) == ("rows_", "query_")
        assert resource_of({"name": {}}, name="classes").variable == "class_"


class TestWords:
    @pytest.mark.parametrize(
        ("schema", "problem"),
        [
            ({"type": "integer", "minLength": 1}, ".minLength` is 1: it does not go with an int"),
            ({"maximum": 1}, ".maximum` is 1: it does not go with a string"),
            ({"format": "date", "pattern": "x"}, ".pattern` is 'x': it does not go with a date"),
            ({"enum": ["a"], "maxLength": 1}, ".maxLength` is 1: it does not go with an enum"),
            ({"enum": ["a"], "format": "uuid"}, ".format` is 'uuid': it does not go with `enum`"),
            ({"type": "integer", "enum": ["a"]}, ".enum` is a list: it goes with a string, and"),
            ({"type": "array"}, "`: an array without `items`"),
            ({"type": "object", "properties": {}}, "`: an object without `properties`"),
            ({"minLength": 2, "maxLength": 1}, ".minLength` is 2: it is above `maxLength`, wh"),
            ({"type": "integer", "minimum": 2, "maximum": 1}, ".minimum` is 2: it is above what"),
            ({"type": "integer", "minimum": 0.5}, ".minimum` is 0.5: of an integer it is one, to"),
            ({"type": "integer", "maximum": 2**63}, ".maximum` is a number: an integer has 64"),
            ({"type": "number", "maximum": 10**400}, ".maximum` is a number: it has to be a fin"),
            ({"type": "number", "minimum": True}, ".minimum` is true: it has to be a number"),
            (
                {"type": "number", "exclusiveMinimum": 1, "exclusiveMaximum": 1},
                "`: nothing lies within its bounds",
            ),
            (
                {"type": "number", "minimum": 1, "exclusiveMinimum": 1},
                ".exclusiveMinimum` is 1: `minimum` is there, too",
            ),
            ({"maxLength": -1}, ".maxLength` is -1: it has to be 0 to 1,000,000"),
            ({"enum": []}, ".enum`: it has 0 values, and may have 1 to 100"),
            ({"enum": ["a", "a"]}, ".enum[1]` is 'a': it is there twice"),
            ({"enum": ["\n"]}, ".enum[0]` is '\\n': it has to be printable characters"),
            ({"enum": [1]}, ".enum[0]` is 1: it has to be text"),
            ({"type": "boolean", "unique": True}, ".unique` is true: a boolean has few values"),
            ({"type": "array", "items": {}, "index": True}, ".index` is true: an array cannot be"),
            ({"unique": True, "default": "x"}, ".unique` is true: a default is the same for all"),
            ({"index": True, "maxLength": 601}, ".index` is true: a `maxLength` above 600 is"),
            ({"unique": True, "maxLength": 0}, "`: it is unique, and there are no two values"),
            ({"type": "string", "default": 1}, ".default` is 1: it is no value of it: input sh"),
            ({"default": None}, ".default` is null: it cannot be null"),
            ({"format": "date", "default": "2020-02-30"}, ".default` is '2020-02-30': it is no "),
            ({"format": "email", "default": "x@y"}, ".default` is 'x@y': it is no value of it: "),
            ({"format": "date-time", "default": "2020-01-01T00:00:00"}, ".default` is '2020-01-"),
            *(
                ({"format": "date-time", "examples": [each]}, f".examples[0]` is '{each[:9]}")
                for each in (
                    "1580428800",
                    "0001-01-01T00:00:00+14:00",
                    "2020-01-31T12:00:00.1234567Z",
                    "2020-02-30T12:00:00Z",
                )
            ),
            ({"format": "uri", "examples": ["example.com"]}, ".examples[0]` is 'example.com': it"),
            ({"format": "uuid", "examples": ["{0}"]}, ".examples[0]` is '{0}': it is no value of"),
            ({"examples": ["x" * 256]}, ".examples[0]` is 'xxx"),
            ({"examples": ["\0"]}, ".examples[0]` is '\\x00': U+0000 cannot stand in a line"),
            ({"examples": []}, ".examples` is a list: it has 0 values"),
            ({"type": "integer", "examples": [2**63]}, ".examples[0]` is a number: an integer h"),
            ({"pattern": "^[a-z]+$"}, "`: a field with a `pattern` needs an example"),
            ({"pattern": "a", "examples": ["b"]}, ".examples[0]` is 'b': it is no value of it: "),
            (
                {"pattern": "a", "examples": ["a"], "unique": True},
                "`: a field with a `pattern` needs two examples",
            ),
            (
                {"type": "array", "items": {"optional": True}},
                ".items.optional` is true: an array holds what it holds",
            ),
            (
                {"type": "array", "items": {}, "minItems": 5000},
                "`: its smallest value holds 5,001 others",
            ),
            (
                {"type": "object", "properties": {"name": {"unique": True}}},
                ".properties.name.unique` is true: what is within another field has no column",
            ),
            (
                {"type": "object", "properties": {"json": {}}},
                ".properties.json`: `json` cannot be a field's name: pydantic's models",
            ),
            ({"type": "object", "properties": {"a": {}}, "default": {"a": "x"}}, ".default` is a "),
            ({"description": "a\x1b"}, ".description` is 'a\\x1b': U+001B"),
        ],
        ids=lambda each: json.dumps(each)[:60] if isinstance(each, dict) else "",
    )
    def test_what_does_not_go_together_is_refused_by_its_place(self, schema, problem):
        told, fix = said(schema)
        assert told.startswith(problem)
        assert fix

    def test_a_misspelt_word_is_answered_with_the_right_one(self):
        error = refusal("-", asked({"name": {"maxLenght": 3}}))
        assert (
            error.problem == "standard input: unknown key `requirements[0].fields.name.maxLenght`"
        )
        assert error.fix == "did you mean `maxLength`?"
        inner = {"type": "object", "properties": {"items": {"type": "array", "items": {"tpye": 1}}}}
        error = refusal("-", asked({"fields": inner}))
        assert error.fix == "did you mean `type`?"
        error = refusal("-", asked({"name": {"type": "strin"}}))
        assert error.problem.startswith(
            "standard input: `requirements[0].fields.name.type` is 'strin': it has to be 'string',"
        )

    def test_a_document_of_toml_has_its_dates_in_quotes(self):
        text = (
            'feature = "pets"\ndescription = "x"\n[[requirements]]\nkind = "resource"\n'
            '[requirements.fields.born]\nformat = "date"\ndefault = 2020-01-31\n'
        )
        assert "dates and times stand in quotes" in refusal("-", text.encode()).problem

    def test_a_hundred_fields_are_right_and_one_more_is_not(self):
        fields = {f"field_{number}": {"type": "integer"} for number in range(99)}
        inner = {"type": "object", "properties": {"name": {}}}
        assert len(resource_of({**fields, "one": {}}).fields) == 100
        error = refusal("-", asked({**fields, "owner": inner}))
        assert "`requirements[0].fields`: it has 101 fields, and may have 100" in error.problem

    def test_four_levels_are_right_and_one_more_is_not(self):
        schema: dict[str, Any] = {"type": "integer"}
        for _ in range(3):
            schema = {"type": "array", "items": schema}
        assert field_of(schema).item is not None
        assert "it is nested 5 deep, and may be 4" in said({"type": "array", "items": schema})[0]

    def test_what_is_nested_without_end_is_refused(self):
        schema: Any = {}
        value: Any = 1
        for _ in range(300):
            schema, value = {"type": "array", "items": schema}, [value]
        refusal("-", asked({"value": schema}))
        refusal("-", asked({"value": {"type": "array", "items": {}, "examples": [value]}}))

    def test_operations_are_named_once_and_known(self):
        error = refusal("-", asked({"name": {}}, operations=["read", "read"]))
        assert "`requirements[0].operations[1]` is 'read': it is there twice" in error.problem
        error = refusal("-", asked({"name": {}}, operations=["reed"]))
        assert "`requirements[0].operations[0]` is 'reed': it has to be 'list', " in error.problem
        assert resource_of({"name": {}}, operations=["read"]).operations == {"read"}


class TestPatterns:
    @pytest.mark.parametrize(
        ("pattern", "named"),
        [
            *(("(?=a)b", "look-ahead"), ("(?!a)b", "look-ahead"), ("(?<=a)b", "look-behind")),
            *(("(?<!a)b", "look-behind"), (r"(a)\1", "back-reference"), ("(?P=n)", "back-refer")),
            *((r"(?<n>a)\k<n>", "back-reference"), ("(?P<n>a)", "Python's way"), ("(?i)a", "flag")),
            *(("(?>a)", "atomic"), ("a*+", "quantifier of a quantifier"), ("a**", "quantifier of")),
            *((r"\Aa", r"`\\A`"), (r"a\Z", r"`\\Z`"), (r"a\z", r"`\\z`"), ("(?#c)", "comment")),
            *(("[[:alpha:]]", "bracket"), ("[a&&b]", "`&&`"), ("[]a]", "`]`"), ("[^]]", "`]`")),
            *(("[a", "unclosed character class"), ("(a", "unclosed group"), ("a{2,1}", "invalid")),
            *(("(a{1000}){1000}", "too large"), ("a" * 501, "501 characters"), ("", "printable")),
            *(("a\n", "printable"), ("(" * 400, "")),
        ],
    )
    def test_what_only_one_engine_knows_is_refused_by_name(self, pattern, named):
        problem, _ = said({"pattern": pattern, "examples": ["a"]})
        assert problem.startswith(".pattern` is ")
        assert named.replace("\\\\", "\\") in problem

    @pytest.mark.parametrize(
        "pattern",
        [
            *("^[a-z]+$", r"^\d{3}-\d{4}$", "^(a+)+$", r"^(?:a|b)*?$", r"[(?=)]", r"\(?=", r"\\1"),
            *(
                "(?<year>[0-9]{4})",
                r"^\p{L}+$",
                r"[\[\]]",
                "[*+]",
                "[a-]",
                "^[^@]+@[^@]+$",
                "a{2,}",
            ),
        ],
    )
    def test_what_both_know_is_taken(self, pattern):
        assert flaw_of(pattern) is None

    def test_one_that_backtracks_elsewhere_takes_no_time_here(self):
        field = field_of({"pattern": "^(a+)+$", "examples": ["aaa"], "maxLength": 1_000_000})
        flaw = look_at(field.schema)
        begun = time.process_time()
        assert flaw("a" * 500_000 + "!") is not None
        assert flaw("a" * 500_000) is None
        assert time.process_time() - begun < 2


class TestResolved:
    @pytest.mark.parametrize(
        ("schema", "most"),
        [
            ({}, 255),
            ({"unique": True}, 255),
            ({"minLength": 300}, 300),
            ({"maxLength": 70_000}, 70_000),
            ({"format": "uri"}, 2000),
            ({"format": "uri", "index": True}, 600),
            ({"format": "email"}, 254),
            ({"format": "date"}, None),
        ],
    )
    def test_text_has_an_end(self, schema, most):
        assert field_of(schema).schema.maxLength == most

    @pytest.mark.parametrize(
        ("schema", "is_indexed"),
        [
            ({}, False),
            ({"index": True}, True),
            ({"unique": True}, True),
            ({"enum": ["a"]}, True),
            ({"enum": ["a"], "index": False}, False),
            *(({"format": each}, True) for each in ("date", "date-time", "uuid")),
            ({"format": "email"}, False),
            ({"type": "integer"}, False),
            ({"type": "object", "properties": {"on": {"format": "date"}}}, False),
        ],
    )
    def test_an_index_is_made_where_it_is_asked_for_and_of_some_kinds(self, schema, is_indexed):
        field = field_of(schema)
        assert field.is_indexed is is_indexed
        assert field.index_name == ("ix_pets__value" if is_indexed else None)
        assert not any(each.is_indexed for each in field.fields)


NAMES = st.from_regex(r"[a-z][a-z0-9]{0,8}(_[a-z0-9]{1,5}){0,2}", fullmatch=True) | st.sampled_from(
    ["field", "page", "annotated", "name", "values", "a_1", "a1", "name_gte", "owner", "read", "i"]
)
LINES = st.text(st.characters(codec="utf-8"), max_size=12).filter(str.isprintable)
INTEGERS = st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3)
FLOATS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-3, 3)
COUNTS = st.integers(0, 6)


def schemas(kind: dict[str, Any], **words: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    common: dict[str, st.SearchStrategy[Any]]
    common = {"optional": st.booleans(), "unique": st.booleans(), "index": st.booleans()}
    common |= {"description": LINES.map("d{}".format)}
    said = st.fixed_dictionaries({}, optional={**common, **words})
    return said.map(lambda words: {**kind, **words})


def numbers(values: st.SearchStrategy[Any]) -> dict[str, st.SearchStrategy[Any]]:
    keys = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "default")
    return dict.fromkeys(keys, values)


SCALARS = (
    schemas({}, minLength=COUNTS, maxLength=COUNTS, default=LINES, examples=st.lists(LINES))
    | schemas({"type": "integer"}, **numbers(INTEGERS))
    | schemas({"type": "number"}, **numbers(FLOATS))
    | schemas({"type": "boolean"}, default=st.booleans())
    | schemas({}, enum=st.lists(LINES, min_size=1, max_size=4))
    | st.sampled_from(["date", "date-time", "uuid", "email", "uri"]).flatmap(
        lambda kind: schemas({"format": kind})
    )
    | schemas({"pattern": "^[a-z]+[0-9]$"}, examples=st.just(["ab1", "b2"]))
)
FIELDS = st.recursive(
    SCALARS,
    lambda inner: (
        schemas({"type": "array"}, items=inner, minItems=COUNTS, maxItems=COUNTS)
        | schemas({"type": "object"}, properties=st.dictionaries(NAMES, inner, max_size=4))
    ),
    max_leaves=6,
)
REQUESTS = st.lists(
    st.fixed_dictionaries(
        {
            "kind": st.just("resource"),
            "fields": st.dictionaries(NAMES, FIELDS, min_size=2, max_size=6),
        },
        optional={"name": NAMES.map(lambda name: f"{name}_pets"), "item": NAMES},
    ),
    min_size=1,
    max_size=2,
).map(lambda parts: {**asked({}), "requirements": parts})


def mended_of(name: str, schema: dict[str, Any]) -> dict[str, Any] | None:
    """The schema without what is refused of it, None where that is all of it."""
    schema = json.loads(json.dumps(schema))
    for _ in range(30):
        try:
            faults = faults_of_fields({name: FieldSchema.model_validate(schema)}, ())
        except ValidationError as error:
            faults = [Fault((name, *error.errors()[0]["loc"]), "", "")]
        if not faults:
            return schema
        *above, last = faults[0].within
        if not above:
            return None
        inner: Any = {name: schema}
        for part in above:
            inner = inner[part]
        del inner[last]
    return None


def accepted(request: dict[str, Any]) -> FeatureRequest | None:
    """The request without the fields that are refused, None where even that is none."""
    parts = []
    for part in request["requirements"]:
        mended = {name: mended_of(name, schema) for name, schema in part["fields"].items()}
        fields = {name: schema for name, schema in mended.items() if schema is not None}
        parts.append({**part, "fields": fields})
    with contextlib.suppress(ValidationError):
        return FeatureRequest.model_validate({**request, "requirements": parts})
    return None


def every(fields: tuple[PlannedField, ...]) -> Iterator[PlannedField]:
    for field in fields:
        yield field
        yield from every(field.fields)
        yield from every(() if field.item is None else (field.item,))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(REQUESTS)
def test_whatever_is_accepted_has_names_of_its_own_and_examples_that_are_right(document):
    request = accepted(document)
    if request is None:
        return
    plan = plan_of(request)
    assert plan_of(request) == plan
    names: list[str] = []
    for resource in plan.resources:
        endings = ("Create", "Replace", "Update", "Read", "Page", "Query")
        names += [resource.database_alias, *(f"{resource.class_name}{each}" for each in endings)]
        for field in every(resource.fields):
            names.append(field.alias)
            if field.class_name is not None:
                names += [field.class_name, f"{field.class_name}Update"]
            flaw = look_at(field.schema)
            assert [flaw(each) for each in field.examples] == [None, None]
            first, second = (key_of(field.schema, each) for each in field.examples)
            assert not field.is_unique or first != second
        variables = {resource.variable, resource.table_variable, resource.parameter}
        assert variables.isdisjoint(TAKEN_VARIABLES | set(keyword.kwlist))
        assert resource.parameter not in {field.name for field in resource.fields}
        for field in resource.fields:
            assert len(field.index_name or field.unique_name or "") <= 63
    assert len(set(names)) == len(names)
    assert TAKEN_CLASSES.isdisjoint(names)
    assert all(name.isidentifier() for name in names)


SCHEMA = Draft202012Validator(FeatureRequest.model_json_schema())


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(REQUESTS)
def test_a_record_gives_back_what_was_asked_for(tmp_path_factory, document):
    request = accepted(document)
    if request is None:
        return
    folder = tmp_path_factory.mktemp("features") / request.feature
    folder.mkdir()
    written = write_record(request, {"routes.py": b""})
    (folder / "feature.toml").write_bytes(written)
    again = read_record(folder).request
    assert again == request
    assert write_record(again, {"routes.py": b""}) == written
    assert plan_of(again) == plan_of(request)
    assert read("-", {}, data=written) == request
    SCHEMA.validate(tomllib.loads(written.decode())["request"])


def test_a_record_says_no_more_of_a_field_than_was_said():
    fields = {
        "born": {"format": "date", "optional": True},
        "is_tame": {"type": "boolean", "default": False},
    }
    request = FeatureRequest.model_validate(asked(fields))
    part = tomllib.loads(write_record(request, {}).decode())["request"]["requirements"][0]
    assert part["fields"] == {
        "born": {"type": "string", "format": "date", "optional": True},
        "is_tame": {"type": "boolean", "default": False},
    }
    assert (part["name"], part["item"]) == ("pets", "pet")


def test_a_model_of_every_field_has_no_name_of_pydantics():
    assert {each for each in dir(BaseModel) if each.startswith("model_")} <= {
        name for name in dir(BaseModel) if "cannot" in refusal("-", asked({name: {}})).problem
    }
