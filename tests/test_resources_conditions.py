"""Conditional requests: entity tags, and what has to match them, through HTTP."""

import re

import pytest
from pydantic import BaseModel

from petsage.errors import Problem
from petsage.resources.conditions import require_match, tag_of, tagged
from petsage.testing import FeatureClient, FeatureFolder
from tests.documented import DocumentedClient, Server, validate

SOURCE = """
from petsage.resources import (
    Created, Found, IfMatch, IfNoneMatch, Tagged, found, require_condition, require_match, tagged,
)

class Pet(BaseModel):
    name: str = Field(alias="petName")
    age: int = 0

rex = Pet(petName="Rex ü")

@routes.get("/pet", answers={304: None})
async def read(if_none_match: IfNoneMatch = None) -> Found[Pet]:
    return found(rex, if_none_match)

@routes.put("/pet", answers={412: Problem, 428: Problem})
async def replace(pet: Pet, if_match: IfMatch = None, *, careful: bool = False) -> Tagged[Pet]:
    if careful:
        require_condition(if_match)
    require_match(rex, if_match)
    return tagged(pet)

@routes.post("/pets", status=201)
async def create(pet: Pet) -> Created[Pet]:
    return tagged(pet, location="/api/v1/pet")

@routes.get("/dict", answers={304: None})
async def read_dict() -> Reply[dict[str, int]]:
    return Reply({"age": 1}, json=b"not what is answered")

class Cat(Pet):
    claws: int = 18

@routes.get("/other", answers={304: None})
async def read_other() -> Found[Pet]:
    return found(Cat(petName="Tom"))
"""


class Pet(BaseModel):
    name: str


@pytest.fixture
def serve(feature_client: FeatureClient, feature_folder: FeatureFolder) -> Server:
    return Server(feature_client, feature_folder)


@pytest.fixture
async def client(serve: Server) -> DocumentedClient:
    return await serve(SOURCE)


async def test_an_answer_has_a_tag_that_is_a_hash_of_its_body(client: DocumentedClient) -> None:
    answer = await client.get("/api/v1/pet")
    assert answer.json == {"petName": "Rex ü", "age": 0}
    assert answer.headers["ETag"] == tag_of(answer.body)
    assert re.fullmatch(r'"[0-9a-f]{24}"', answer.headers["ETag"])
    head = await client.request("HEAD", "/api/v1/pet")
    assert (head.status, head.headers["ETag"]) == (200, answer.headers["ETag"])
    replaced = await client.request("PUT", "/api/v1/pet", json={"petName": "Mia"})
    assert replaced.headers["ETag"] == tag_of(replaced.body) != answer.headers["ETag"]


async def test_what_was_created_says_where_it_is(client: DocumentedClient) -> None:
    answer = await client.post("/api/v1/pets", {"petName": "Mia"})
    assert (answer.status, answer.headers["Location"]) == (201, "/api/v1/pet")
    assert answer.headers["ETag"] == tag_of(answer.body)


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("{}", 304),
        ("W/{}", 304),
        ("*", 304),
        (' "x" ,, {} ,', 304),
        ('"x",\t{}', 304),
        ('"x"', 200),
        ('"x,y", W/"ü"', 200),
        ('""', 200),
    ],
)
async def test_who_has_it_already_is_told_so_and_no_more(
    client: DocumentedClient, header: str, status: int
) -> None:
    tag = (await client.get("/api/v1/pet")).headers["ETag"]
    headers = {"If-None-Match": header.format(tag)}
    for method in ("GET", "HEAD"):
        answer = await client.request(method, "/api/v1/pet", headers=headers)
        assert (answer.status, answer.headers["ETag"]) == (status, tag)
        assert bool(answer.body) == (status == 200 and method == "GET")
        assert ("Content-Type" in answer.headers) == (status == 200)


@pytest.mark.parametrize(
    ("header", "status"),
    [("{}", 200), ("*", 200), ('"x", {}', 200), ('"x"', 412), ("W/{}", 412), ('W/"x", "y"', 412)],
)
async def test_only_what_the_caller_has_is_changed(
    client: DocumentedClient, header: str, status: int
) -> None:
    tag = (await client.get("/api/v1/pet")).headers["ETag"]
    answer = await client.request(
        "PUT", "/api/v1/pet", json={"petName": "Mia"}, headers={"If-Match": header.format(tag)}
    )
    assert answer.status == status


async def test_several_lines_of_a_header_are_one_list(client: DocumentedClient) -> None:
    tag = (await client.get("/api/v1/pet")).headers["ETag"]
    lines = [("If-Match", '"x"'), ("If-Match", tag)]
    answer = await client.request("PUT", "/api/v1/pet", json={"petName": "Mia"}, headers=lines)
    assert answer.status == 200
    answer = await client.request("PUT", "/api/v1/pet", json={"petName": "M"}, headers=lines[:1])
    assert answer.status == 412


MALFORMED = [
    "",
    " ",
    ",",
    "x",
    '"x',
    'x"',
    '"a" "b"',
    '"a""b"',
    'w/"a"',
    '"a", *',
    '* , "a"',
    '"a b"',
]


async def test_a_condition_that_cannot_be_read_is_refused(client: DocumentedClient) -> None:
    for header in MALFORMED:
        answer = await client.request(
            "PUT", "/api/v1/pet", json={"petName": "Mia"}, headers={"If-Match": header}
        )
        assert (answer.status, "If-Match" in answer.json["detail"]) == (400, True), header
        answer = await client.get("/api/v1/pet", headers={"If-None-Match": header})
        assert (answer.status, "If-None-Match" in answer.json["detail"]) == (400, True), header


async def test_a_change_without_its_condition_is_refused_where_one_is_asked_for(
    client: DocumentedClient,
) -> None:
    path = "/api/v1/pet?careful=true"
    answer = await client.request("PUT", path, json={"petName": "Mia"})
    assert (answer.status, "`ETag`" in answer.json["detail"]) == (428, True)
    headers = {"If-Match": "*"}
    answer = await client.request("PUT", path, json={"petName": "Mia"}, headers=headers)
    assert answer.status == 200


def test_a_long_condition_is_read_in_no_time() -> None:
    reply = tagged(Pet(name="x"))
    for text in ('"a",' * 50_000 + " " * 50_000 + "x", " " * 100_000 + "x", ", " * 50_000 + "x"):
        with pytest.raises(Problem) as raised:
            require_match(reply.value, text)
        assert raised.value.status == 400


async def test_json_that_was_made_is_sent_only_where_the_answer_is_of_that_model(
    client: DocumentedClient,
) -> None:
    assert (await client.get("/api/v1/dict")).json == {"age": 1}
    # A subclass is answered as what the handler says, and so is its tag's body another one.
    assert (await client.get("/api/v1/other")).json == {"petName": "Tom", "age": 0}


async def test_the_document_tells_headers_and_what_is_not_modified(
    client: DocumentedClient,
) -> None:
    paths = client.document["paths"]
    read = paths["/api/v1/pet"]["get"]["responses"]
    assert "ETag" in read["200"]["headers"]
    assert "ETag" in read["304"]["headers"]
    assert "content" not in read["304"]
    assert "ETag" not in read["400" if "400" in read else "500"]["headers"]
    created = paths["/api/v1/pets"]["post"]["responses"]["201"]["headers"]
    assert {"ETag", "Location", "X-Request-ID"} == set(created)
    parameters = paths["/api/v1/pet"]["put"]["parameters"]
    (condition,) = [each for each in parameters if each["name"] == "If-Match"]
    assert (condition["in"], condition["required"]) == ("header", False)
    validate(client.document, condition["schema"], '"abc"')
