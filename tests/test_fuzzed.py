"""Any record, any request, any name: a little of it in the suite, and much in `make stress`."""

import json
import keyword
import re
import shutil
import string
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import Field, TypeAdapter, ValidationError

from petsage.builder.building import draft
from petsage.builder.request import FeatureRequest
from petsage.loader import load_features, unload
from petsage.logs.cleaning import MASK, encodable, text_of
from petsage.logs.formatter import OWN_FIELDS
from tests.conftest import ServerProcess, errors_of, reading
from tests.features_data.kinds.models import Color, Filter
from tests.test_findings import GOOD
from tests.test_hostile_input import Target, refused
from tests.test_log_formatter import KEYS, TEXT, VALUES, a_formatter, a_record, parsed

KINDS = "/api/v1/kinds"
SECRET = re.compile("password|secret|token|authorization|cookie|apikey|session", re.IGNORECASE)
NUMBERS = [pytest.param(100, id="100"), pytest.param(10_000, id="10000", marks=pytest.mark.stress)]


def many(examples: int, test: Callable[[], None]) -> None:
    """Runs a test of hypothesis's so often: the same each time where it is short."""
    is_stress = examples > 100
    settings(
        max_examples=examples,
        derandomize=not is_stress,
        print_blob=is_stress,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )(test)()


@pytest.mark.parametrize("examples", NUMBERS)
def test_of_any_record_a_line_has_everything_or_says_what_it_has_not(examples):
    limit = 1 << 20
    formatter = a_formatter(limit)
    own = {*OWN_FIELDS, *a_record().__dict__}

    @given(message=TEXT, extras=st.dictionaries(KEYS, VALUES, max_size=6))
    def attempt(message: str, extras: dict[Any, Any]) -> None:
        record = a_record(message)
        record.args = ()
        for key, value in extras.items():
            record.__dict__.setdefault(key, value)
        fields = parsed(formatter.to_line(record), limit)

        assert fields["message"] == encodable(message)
        assert (fields["level"], fields["logger"]) == ("INFO", "features.pets.routes")
        assert (fields["feature"], fields["service"]) == ("pets", "petsage")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", fields["timestamp"])
        shown = [name for name in fields if name.removeprefix("extra_") not in own]
        sent = [key for key in extras if key not in own and text_of(key)[:1] != "_"]
        assert len(shown) >= len([each for each in sent if text_of(each) not in own])
        for key in sent:
            value, name = extras[key], encodable(text_of(key))
            if type(value) is str and name in fields and isinstance(key, str):
                plain = encodable(value)
                masked = fields[name] == MASK and SECRET.search(name)
                assert masked or fields[name] == plain or name in fields["altered"]

    many(examples, attempt)


# What a handler answers with what it was given, by its path.
TAKEN: dict[str, Any] = {
    "query": tuple[int, list[int], Annotated[float, Field(gt=0, lt=1)], bool, Color, Any,
                   Annotated[str, Field(pattern="^[a-z]{1,5}$")]],
    "filter": Filter,
    "labels": dict[str, str],
    "headers": tuple[int, list[str], Annotated[str, Field(max_length=20)]],
    "cookies": tuple[str, int],
    "path": tuple[str, Annotated[int, Field(ge=0, le=9)], str, Color],
    "text": str,
}  # fmt: skip
NEAR = st.sampled_from([each.encode() for each in (
    *("1", "0", "-1", "1.5", "1e5", "inf", "nan", "true", "yes", "red", "RED", "cat", "a", "abc"),
    *("null", "[]", "{}", "2026-01-31", "2026-13-01", "12:00", "2026-01-31T12:00:00Z", "1_0", " "),
    *("6f1c1d2e-3b4a-4c5d-8e6f-7a8b9c0d1e2f", "99999999999999999999", "\u0663"),
)])  # fmt: skip
BYTES = st.one_of(
    NEAR, st.binary(max_size=30), st.text(max_size=20).map(lambda each: each.encode())
)
NAMES = st.sampled_from(
    b"needed sizes ratio flag color at code kind tags min-age born x %5B".split()
)
QUERY = st.lists(st.tuples(st.one_of(NAMES, BYTES), BYTES), max_size=6)
FIELD = BYTES.map(lambda each: bytes(byte for byte in each if byte > 31 and byte != 127))


@pytest.fixture(scope="module")
def target(
    tmp_path_factory: pytest.TempPathFactory, bytecode_apart: None, tokens_apart: None
) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("arguments") / "project"
    data = Path(__file__).parent / "features_data" / "kinds"
    shutil.copytree(data, folder / "features" / "kinds")
    server = ServerProcess(folder, (), {})
    with reading(server):
        yield Target(server)


@pytest.mark.parametrize("examples", NUMBERS)
def test_any_arguments_are_what_is_declared_or_refused(target: Target, examples: int) -> None:
    statuses: dict[str, set[int]] = {where: set() for where in TAKEN}

    @given(
        where=st.sampled_from(list(TAKEN)),
        query=QUERY,
        fields=st.tuples(FIELD, FIELD, FIELD),
        steps=st.lists(BYTES, min_size=4, max_size=4),
    )
    def attempt(
        where: str, query: list[tuple[bytes, bytes]], fields: tuple[bytes, ...], steps: list[bytes]
    ) -> None:
        path = f"{KINDS}/{where}"
        headers: list[bytes] = []
        if where in {"path", "text"}:
            count = 4 if where == "path" else 1
            path += "".join("/" + quote_from_bytes(each, safe="") for each in steps[:count])
        elif where == "headers":
            names = (b"X-Count", b"X-Tags", b"X-Text")
            headers = [name + b": " + each for name, each in zip(names, fields, strict=True)]
        elif where == "cookies":
            headers = [b"Cookie: session=" + fields[0] + b"; seen=" + fields[1]]
        written = "&".join(f"{quote_from_bytes(name)}={quote_from_bytes(each)}"
                           for name, each in query)  # fmt: skip
        answer = target.ask("GET", f"{path}?{written}", b"", *headers)
        statuses[where].add(answer.status)
        if answer.status == 200:
            TypeAdapter(TAKEN[where]).validate_python(json.loads(answer.body))
        else:
            refused(answer, 400, 404, 422)

    many(examples, attempt)
    assert 200 in statuses["text"]
    assert statuses["labels"] >= {200, 422}
    assert all(422 in each for where, each in statuses.items() if where != "text")
    assert not errors_of(target.server.lines)


FOLDERS = st.one_of(
    st.text(string.ascii_lowercase + string.digits + "_", min_size=1, max_size=70),
    st.text(min_size=1, max_size=60),
    st.sampled_from([*keyword.kwlist, "sink", "feature", "..", ".", "a/b", "../a", "a\\b", "A", "é",
                     "features", "petsage", "tests", "con", "a.b", "__init__", "a\n", "json",
                     "\uff41"]),
)  # fmt: skip
RIGHT = re.compile(r"[a-z][a-z0-9_]*")


@pytest.mark.parametrize("examples", NUMBERS)
def test_any_name_of_a_folder_is_served_or_refused_and_nothing_else(tmp_path, examples):
    features = tmp_path / "features"
    outside = tmp_path / "outside.txt"
    outside.write_text("as it was")

    @given(name=FOLDERS)
    def attempt(name: str) -> None:
        assume("/" not in name and "\0" not in name and name not in {".", ".."})
        try:
            assume(len(name.encode()) <= 255)
        except UnicodeEncodeError:
            assume(False)  # no folder can be made of it
        features.mkdir()
        (features / name).mkdir()
        (features / name / "__init__.py").write_text(GOOD, encoding="utf-8")
        try:
            candidates = load_features([features], settings={})
            try:
                found = [
                    (each.name, [finding.id for finding in each.findings]) for each in candidates
                ]
            finally:
                unload(candidates)
        finally:
            shutil.rmtree(features)
        if name.startswith((".", "_")) or not found:
            assert not found or found[0][1], "nobody's folder, or refused"
        elif found[0][1]:
            assert found == [(name, ["bad-name"])]
        else:
            assert found == [(name, [])]
            assert RIGHT.fullmatch(name)
            assert not keyword.iskeyword(name)
        assert outside.read_text() == "as it was"
        assert [each.name for each in tmp_path.iterdir()] == ["outside.txt"]

    many(examples, attempt)


@pytest.mark.parametrize("examples", NUMBERS)
def test_the_builder_takes_the_names_that_a_folder_may_have(examples):
    @given(name=FOLDERS)
    def attempt(name: str) -> None:
        document = {
            "feature": name,
            "description": "Some.",
            "requirements": [{"kind": "probe", "path": "/some"}],
        }
        wrong, request = [], None
        try:
            request = FeatureRequest.model_validate(document)
        except ValidationError as error:
            wrong = [each["loc"] for each in error.errors()]
        if request is None:
            assert wrong == [("feature",)]
            return
        assert RIGHT.fullmatch(name)
        assert request.feature == name
        for within in draft(request) if examples <= 100 else ():
            assert not within.startswith("/")
            assert ".." not in Path(within).parts

    many(examples, attempt)
