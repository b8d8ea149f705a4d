"""What schemathesis makes of the API's document, right and wrong, against a real server.

Every check of it runs. What it is wrong about is in `is_mistaken`, each with its reason. Of the
core a tenth is tried: most of its operations take nothing.
"""

import random
import re
import shutil
from collections.abc import Iterator
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import requests
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode, openapi
from schemathesis.core.failures import AcceptedNegativeData, FailureGroup
from schemathesis.core.result import Ok
from schemathesis.core.transport import Response
from schemathesis.openapi.checks import RejectedPositiveData

from petsage.builder.building import draft
from tests.conftest import ServerProcess, reading
from tests.test_build_files import write
from tests.test_build_resource_files import PETS

# The connection of all tests is one test's to make, and another's where the server has closed it.
pytestmark = pytest.mark.leaves("file")

DATA = Path(__file__).parent / "features_data"
ROOT = Path(__file__).parent.parent

KINDS = """
GET /path/{key}/{count}/{day}/{color}
GET /text/{text}
GET /rest/{rest}
GET /query
GET /filter
GET /labels
GET /headers
GET /cookies
POST /everything
PUT /owner
PATCH /owner
PUT /visit
PUT /animal/{animal_id}
PUT /union
POST /nodes
POST /any
DELETE /ids
PATCH /merge
GET /reply/{number}
GET /media
"""
RESOURCE = """
GET
POST
GET /{pet_id}
PUT /{pet_id}
PATCH /{pet_id}
DELETE /{pet_id}
"""
OPERATIONS = [
    f"{line.partition(' ')[0]} /api/v1/{feature}{line.partition(' ')[2]}"
    for feature, lines in (("kinds", KINDS), ("pets", RESOURCE))
    for line in lines.split("\n")
    if line
]

NUMBERS = [pytest.param(100, id="100"), pytest.param(2_000, id="2000", marks=pytest.mark.stress)]


class Api:
    """A server, its document, and one connection to it."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.document = server.get("/openapi.json")[1]
        schema = openapi.from_dict(self.document)
        found = [each.ok() for each in schema.get_all_operations() if isinstance(each, Ok)]
        self.operations = {each.label: each for each in found}
        self.session = requests.Session()

    def check(self, case: Case[Any]) -> None:
        """Sends a case, and fails where anything is wrong about the answer."""
        answer = case.call(base_url=self.server.address, session=self.session)
        try:
            case.validate_response(answer)
        except FailureGroup as group:
            wrong = [each for each in group.exceptions if not is_mistaken(each, case, answer)]
            if wrong:
                raise ExceptionGroup(group.message, wrong) from None


def is_mistaken(failure: Exception, case: Case[Any], answer: Response) -> bool:
    """Whether schemathesis is wrong about an answer."""
    if isinstance(failure, AcceptedNegativeData):
        # What is too long is refused, with statuses that are none of its list.
        return (
            answer.status_code in {413, 414, 431}
            or is_right_as_text(case)
            or are_right_cookies(case, str(answer.request.headers.get("Cookie") or ""))
            or is_right_count(case, str(answer.request.headers.get("x-count") or ""))
        )
    if isinstance(failure, RejectedPositiveData) and answer.status_code == 412:
        # Whether a condition holds is the state's to say, and no schema's: 412 is none of its list.
        return "If-Match" in (case.headers or {})
    if isinstance(failure, RejectedPositiveData) and answer.status_code == 422:
        # A cursor is any text to its schema, and right is what an answer before has said.
        return {each["type"] for each in answer.json()["errors"]} == {"cursor"}
    return False


def is_right_as_text(case: Case[Any]) -> bool:
    """Whether a case that is meant to be wrong is right once it is sent.

    In a query all is text: to be of another type than a text is nothing that is left of it there,
    be it a number, an object, or a list of one. Where all of a query may be any text, none can be
    wrong; other parts, and other types, are not forgiven.
    """
    assert case.meta is not None
    wrong = [part for part, info in case.meta.components.items() if info.mode.is_negative]
    declared = {each.name: each.definition["schema"] for each in case.operation.query}
    sent = [declared.get(name) or free(declared) for name in case.query or {}]
    return [part.value for part in wrong] == ["query"] and all(map(is_any_text, sent))


def are_right_cookies(case: Case[Any], header: str) -> bool:
    """Whether cookies that are meant to be wrong are right in the header that was sent.

    A list of one is written as its member is, and an empty one not at all.
    """
    assert case.meta is not None
    wrong = [part.value for part, info in case.meta.components.items() if info.mode.is_negative]
    sent = {name: morsel.value for name, morsel in SimpleCookie(header).items()}
    return wrong == ["cookie"] and all(
        is_right_text(each.definition["schema"], sent[each.name])
        if each.name in sent
        else not each.is_required
        for each in case.operation.cookies
    )


def is_right_count(case: Case[Any], text: str) -> bool:
    """Whether one thing is wrong of a case, and `x-count` right as it was sent.

    A list of one is written as its member is.
    """
    assert case.meta is not None
    wrong = [part.value for part, info in case.meta.components.items() if info.mode.is_negative]
    return wrong == ["header"] and is_right_text({"type": "integer"}, text)


def is_right_text(schema: dict[str, Any], text: str) -> bool:
    """Whether a text is right for a cookie of `kinds`: an integer, or a UUID."""
    if schema["type"] == "integer":
        return re.fullmatch("-?[0-9]+([.]0+)?", text) is not None
    return schema.get("format") == "uuid" and re.fullmatch("[0-9a-f-]{36}", text) is not None


def free(declared: dict[str, Any]) -> dict[str, Any]:
    """What a name may hold that is not declared: it belongs to what takes all of the query."""
    wholes = [each for each in declared.values() if "additionalProperties" in each]
    return wholes[0]["additionalProperties"] if wholes else {"type": "undeclared"}


def is_any_text(schema: dict[str, Any]) -> bool:
    """Whether each text is right, by a schema, on a query."""
    kinds = [each for each in schema.get("anyOf", [schema]) if each.get("type") != "null"]
    members = [each["items"] if each.get("type") == "array" else each for each in kinds]
    return all(
        each.get("type") == "string" and not {"enum", "pattern", "format", "maxLength"} & set(each)
        for each in members
    )


@pytest.fixture(scope="module")
def api(
    tmp_path_factory: pytest.TempPathFactory, bytecode_apart: None, tokens_apart: None
) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("fuzzed") / "project"
    shutil.copytree(DATA / "kinds", folder / "features" / "kinds")
    shutil.copytree(ROOT / "features" / "smoke_test", folder / "features" / "smoke_test")
    write(draft(PETS), folder / "features" / "pets")
    server = ServerProcess(folder, (), {})
    with reading(server):
        api = Api(server)
        yield api
        api.session.close()


def try_cases(api: Api, label: str, mode: GenerationMode, examples: int) -> int:
    """Tries so many cases of an operation; how many there were: some have few, or none."""
    count = 0
    is_stress = examples not in {10, 50}

    @settings(
        max_examples=examples,
        derandomize=not is_stress,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink] if is_stress else [Phase.generate],
    )
    @given(case=api.operations[label].as_strategy(generation_mode=mode))
    def attempt(case: Case[Any]) -> None:
        nonlocal count
        count += 1
        api.check(case)

    if is_stress:
        seed = random.randrange(2**32)
        print(f"{label}: seed {seed}")  # noqa: T201 - a failed test shows it
        attempt = hypothesis.seed(seed)(attempt)
    try:
        attempt()
    except Unsatisfiable:
        assert count == 0
    return count


@pytest.mark.parametrize("examples", NUMBERS)
@pytest.mark.parametrize("label", OPERATIONS)
def test_whatever_is_sent_is_answered_as_the_document_says(
    api: Api, label: str, examples: int
) -> None:
    half = examples // 2
    right = try_cases(api, label, GenerationMode.POSITIVE, half)
    wrong = try_cases(api, label, GenerationMode.NEGATIVE, half)
    takes = api.operations[label].definition.raw
    assert right >= 1
    # Where any text will do, or any JSON, nothing can be wrong.
    assert wrong >= half or label.endswith(("/{text}", "/{rest}", "/any")), takes


@pytest.mark.parametrize("examples", NUMBERS)
def test_the_core_and_the_smoke_test_answer_as_the_document_says(api: Api, examples: int) -> None:
    for label in set(api.operations) - set(OPERATIONS):
        try_cases(api, label, GenerationMode.POSITIVE, examples // 10)
        try_cases(api, label, GenerationMode.NEGATIVE, examples // 10)


def test_every_operation_of_the_features_is_tried(api: Api) -> None:
    ours = {label for label in api.operations if "/kinds" in label or "/pets" in label}
    assert ours == set(OPERATIONS)
    assert {"GET /api/v1/smoke-test", "GET /livez"} < set(api.operations)
