"""The API's document: valid, whole, and stable when other features come and go.

That real answers are as it says is held by `tests/documented.py` in every test that uses it.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from petsage.catalog import CATALOG
from petsage.loader import load_features, unload
from petsage.openapi import DocumentedFeature, build_document
from petsage.routing import RouteTable
from petsage.testing import Client, FeatureClient, FeatureFolder
from tests.documented import HEAD, TAIL, Server, check_answer, find_operations

EVERYTHING = """
import dataclasses
import datetime as dt
import decimal
import enum
import uuid
from typing import Generic, TypeVar
from typing_extensions import TypedDict

T = TypeVar("T")

class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"

class Node(BaseModel):
    name: str = Field(alias="nodeName", description="What it is called.", examples=["root"])
    children: list["Node"] = []
    made: dt.datetime = Field(default_factory=lambda: dt.datetime.now(dt.UTC))

class Page(BaseModel, Generic[T]):
    items: list[T]
    total: int = 0

class Filter(BaseModel):
    kind: Literal["cat", "dog"] = Field("cat", description="Which kind.", deprecated=True)
    tags: list[str] = []
    youngest: int = Field(alias="min-age")

class Cat(BaseModel):
    kind: Literal["cat"]

class Dog(BaseModel):
    kind: Literal["dog"]

class Trouble(BaseModel):
    why: str

@dataclasses.dataclass
class Owner:
    name: str
    since: dt.date | None = None

class Visit(TypedDict):
    reason: str

@routes.get("/every/{id}/{day}", tags=["Every"], deprecated=True)
async def every_parameter(
    id: uuid.UUID,
    day: dt.date,
    x_trace: Annotated[str, Header(description="A trace.", example="abc", deprecated=True)],
    color: Color = Color.RED,
    sizes: list[int] = [1, 2],
    price: decimal.Decimal = decimal.Decimal("1.10"),
    maybe: int | None = None,
    session: Annotated[str, Cookie("Session")] = "",
    at: Annotated[dt.datetime, Query("at-time", example=dt.datetime(2026, 1, 31))] = None,
    left_out: Annotated[int, Query()] = object(),
    limit: Annotated[int, Field(ge=1, le=100)] = 20,
) -> list[Any]:
    '''Take every parameter.

    And tell what came.
    '''
    return [id, day, x_trace, color, sizes, price, maybe, session, at, limit]

@routes.get("/filtered")
async def filtered(chosen: Annotated[Filter, Query()]) -> Page[Node]:
    return Page[Node](items=[Node(nodeName=str(chosen.youngest))])

@routes.get("/free")
async def free(labels: Annotated[dict[str, str], Query()]) -> dict[str, str]:
    return labels

@routes.post("/nodes", status=201, answers={409: Problem, 503: Trouble, 303: None})
async def make_node(
    node: Annotated[Node, Body(description="The node.", example={"nodeName": "x"})]
) -> Node:
    return node

@routes.put("/animal")
async def put_animal(
    animal: Annotated[Cat | Dog, Field(discriminator="kind")]
) -> Annotated[Cat | Dog, Field(discriminator="kind")]:
    return animal

@routes.patch("/owner")
async def patch_owner(owner: Owner | None = None) -> Owner | None:
    return owner

@routes.post("/visit")
async def visit(visit: Visit) -> Visit:
    return visit

@routes.delete("/nodes/{id}")
async def delete_node(id: int) -> None:
    pass

@routes.delete("/later/{id}", status=202)
async def delete_later(id: int) -> None:
    pass

@routes.get("/reply")
async def reply(status: int = 200) -> Reply[Page[int]]:
    return Reply(Page[int](items=[1]), status=status)

@routes.get("/own", answers={422: Trouble})
async def own(n: int = 1) -> Node | web.Response | Reply[Trouble]:
    return Reply(Trouble(why="own"), status=422) if n == 1 else web.Response(text="own")

@routes.get("/stream/{rest:path}")
async def stream(request: Request, rest: str) -> StreamResponse:
    return web.Response(text=rest)

@routes.get("/plain/{one}/{two}")
async def plain(request):
    return web.Response(text="plain")

@routes.get("/any")
@routes.get("/any/again", summary="Say it again", description="Once more.", tags=["Every", "Any"])
async def anything() -> Any:
    return {"a": 1}
"""


@pytest.fixture
def serve(feature_client: FeatureClient, feature_folder: FeatureFolder) -> Server:
    return Server(feature_client, feature_folder)


def assert_valid(document: dict[str, Any]) -> None:
    errors = [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()]
    assert errors == []
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            declared = [(each["in"], each["name"]) for each in operation.get("parameters", [])]
            assert len(declared) == len(set(declared)), (method, path)
            in_path = {name for where, name in declared if where == "path"}
            assert in_path == {part[1:-1] for part in path.split("/") if part.startswith("{")}


def operation_ids(document: dict[str, Any]) -> list[str]:
    return [
        operation["operationId"]
        for operations in document["paths"].values()
        for operation in operations.values()
    ]


def parameters_of(document: dict[str, Any], path: str) -> dict[str, Any]:
    operation = find_operations(document, path)["get"]
    return {each["name"]: each for each in operation["parameters"]}


async def test_the_document_of_a_feature_that_uses_every_kind_is_valid(serve: Server) -> None:
    client = await serve(EVERYTHING)
    assert_valid(client.document)
    assert client.document["openapi"].startswith("3.1")
    assert client.document["info"] == {
        "title": "PetSage API",
        "description": "Backend services for the PetSage ecosystem.",
        "version": "1.0.0",
    }
    ids = operation_ids(client.document)
    assert len(ids) == len(set(ids))


async def test_every_answer_of_such_a_feature_is_as_the_document_says(serve: Server) -> None:
    client = await serve(EVERYTHING)  # the client checks each answer
    every = "/api/v1/every/0af76519-16cd-43dd-8448-eb211c80319c/2026-01-31"
    statuses = [
        (await client.get(every, headers={"X-Trace": "t"})).status,
        (await client.get(every)).status,
        (await client.get("/api/v1/filtered?min-age=1")).status,
        (await client.get("/api/v1/filtered")).status,
        (await client.get("/api/v1/free?a=b")).status,
        (await client.post("/api/v1/nodes", {"nodeName": "x"})).status,
        (await client.post("/api/v1/nodes", {})).status,
        (await client.send("/api/v1/nodes", b"{")).status,
        (await client.send("/api/v1/nodes", b"{", "text/plain")).status,
        (await client.request("PUT", "/api/v1/animal", json={"kind": "dog"})).status,
        (await client.request("PUT", "/api/v1/animal", json={"kind": "cow"})).status,
        (await client.request("PATCH", "/api/v1/owner", json={"name": "Ann"})).status,
        (await client.request("PATCH", "/api/v1/owner")).status,
        (await client.post("/api/v1/visit", {"reason": "flu"})).status,
        (await client.request("DELETE", "/api/v1/nodes/1")).status,
        (await client.request("DELETE", "/api/v1/later/1")).status,
        (await client.get("/api/v1/reply")).status,
        (await client.get("/api/v1/reply?status=203")).status,
        (await client.get("/api/v1/reply?status=418")).status,
        (await client.get("/api/v1/own")).status,
        (await client.get("/api/v1/own?n=x")).status,
        (await client.get("/api/v1/own?n=2")).status,
        (await client.get("/api/v1/stream/a/b")).status,
        (await client.get("/api/v1/plain/a/b")).status,
        (await client.get("/api/v1/any/again")).status,
        (await client.request("HEAD", "/api/v1/any")).status,
        (await client.request("OPTIONS", "/api/v1/any")).status,
        (await client.request("POST", "/api/v1/any")).status,
        (await client.get("/api/v1/nowhere")).status,
    ]
    assert statuses == [
        200, 422, 200, 422, 200, 201, 422, 400, 415, 200, 422, 200, 204, 200, 204, 202, 200, 203,
        418, 422, 422, 200, 200, 200, 200, 200, 204, 405, 404,
    ]  # fmt: skip


async def test_the_documents_check_finds_what_is_not_documented(serve: Server) -> None:
    client = await serve(EVERYTHING)
    answer = await client.get("/api/v1/filtered?min-age=1")
    schemas = client.document["components"]["schemas"]
    schemas["probe.Node-Output"]["required"].append("size")
    with pytest.raises(Exception, match="'size' is a required property"):
        check_answer(client.document, "GET", "/api/v1/filtered", answer)
    operation = find_operations(client.document, "/api/v1/filtered")["get"]
    operation["responses"]["200"]["content"] = {"text/plain": {}}
    with pytest.raises(AssertionError, match="the document says"):
        check_answer(client.document, "GET", "/api/v1/filtered", answer)


async def test_an_operation_tells_what_its_route_says(serve: Server) -> None:
    document = (await serve(EVERYTHING)).document
    every = find_operations(document, "/api/v1/every/a/b")["get"]
    assert every["summary"] == "Take every parameter"
    assert every["description"] == "And tell what came."
    assert every["tags"] == ["Every"]
    assert every["deprecated"] is True
    again = document["paths"]["/api/v1/any/again"]["get"]
    assert (again["summary"], again["description"]) == ("Say it again", "Once more.")
    assert again["tags"] == ["Every", "Any"]
    plain = find_operations(document, "/api/v1/plain/a/b")["get"]
    assert (plain["summary"], plain["tags"]) == ("Plain", ["probe"])
    assert "deprecated" not in plain
    assert "description" not in plain


async def test_a_parameter_tells_its_default_and_what_its_marker_says(serve: Server) -> None:
    every = parameters_of((await serve(EVERYTHING)).document, "/api/v1/every/a/b")
    trace = every["x-trace"]
    assert (trace["in"], trace["required"], trace["deprecated"]) == ("header", True, True)
    assert (trace["description"], trace["example"]) == ("A trace.", "abc")
    assert every["id"]["required"]
    assert every["id"]["schema"]["format"] == "uuid"
    defaults = {name: each["schema"].get("default") for name, each in every.items()}
    assert defaults["color"] == "red"
    assert defaults["sizes"] == [1, 2]
    assert defaults["price"] == "1.10"
    assert defaults["limit"] == 20
    assert every["limit"]["schema"]["maximum"] == 100
    assert every["at-time"]["example"] == "2026-01-31T00:00:00"
    assert "default" not in every["left_out"]["schema"], "no value of its type"
    assert every["Session"]["in"] == "cookie"
    assert not every["maybe"]["required"]


async def test_the_members_of_a_query_model_are_parameters(serve: Server) -> None:
    document = (await serve(EVERYTHING)).document
    members = parameters_of(document, "/api/v1/filtered")
    assert {name: each["required"] for name, each in members.items()} == {
        "kind": False,
        "tags": False,
        "min-age": True,
    }
    assert members["kind"]["description"] == "Which kind."
    assert members["kind"]["deprecated"] is True
    (labels,) = parameters_of(document, "/api/v1/free").values()
    assert (labels["style"], labels["explode"]) == ("form", True)


async def test_a_body_tells_its_description_and_example(serve: Server) -> None:
    document = (await serve(EVERYTHING)).document
    body = document["paths"]["/api/v1/nodes"]["post"]["requestBody"]
    assert (body["required"], body["description"]) == (True, "The node.")
    assert body["content"]["application/json"]["example"] == {"nodeName": "x"}
    assert not document["paths"]["/api/v1/owner"]["patch"]["requestBody"]["required"]


async def test_an_operation_tells_every_status_that_it_can_answer(serve: Server) -> None:
    document = (await serve(EVERYTHING)).document

    def statuses(path: str, method: str) -> set[str]:
        return set(document["paths"][f"/api/v1{path}"][method]["responses"])

    refusals = {"400", "413", "415", "422"}
    assert statuses("/nodes", "post") == {"201", "303", "409", "500", "503", "default", *refusals}
    assert statuses("/nodes/{id}", "delete") == {"204", "422", "500", "default"}
    assert statuses("/later/{id}", "delete") == {"202", "422", "500", "default"}
    assert statuses("/owner", "patch") == {"200", "204", "500", "default", *refusals}
    assert statuses("/any", "get") == {"200", "500", "default"}
    content = document["paths"]["/api/v1/own"]["get"]["responses"]["422"]["content"]
    assert set(content) == {"application/json", "application/problem+json"}


async def test_a_response_of_the_handlers_own_tells_its_content_types(serve: Server) -> None:
    client = await serve(
        """
class Pet(BaseModel):
    name: str

@routes.get("/pet", answers={200: Media({"text/plain": str, "application/json": Pet})})
async def pet(request: Request, kind: str = "text/plain") -> StreamResponse:
    text = "Rex" if kind == "text/plain" else '{"name": "Rex"}'
    return web.Response(text=text, content_type=kind)

@routes.get("/liar", answers={200: Media({"application/json": Pet})})
async def liar(request: Request) -> StreamResponse:
    return web.Response(text="Rex")
"""
    )
    content = client.document["paths"]["/api/v1/pet"]["get"]["responses"]["200"]["content"]
    assert content == {
        "text/plain": {"schema": {"type": "string"}},
        "application/json": {"schema": {"$ref": "#/components/schemas/probe.Pet"}},
    }
    await client.get("/api/v1/pet")
    await client.get("/api/v1/pet?kind=application/json")
    with pytest.raises(AssertionError, match="document says"):
        await client.get("/api/v1/liar")


async def test_what_goes_in_and_out_may_differ_within_one_model(serve: Server) -> None:
    document = (
        await serve(
            """
from pydantic import computed_field

class Pet(BaseModel):
    name: str = Field(validation_alias="given", serialization_alias="shown")

    @computed_field
    @property
    def size(self) -> int:
        return len(self.name)

@routes.post("/pets")
async def make(pet: Pet) -> Pet:
    return pet
"""
        )
    ).document
    schemas = document["components"]["schemas"]
    assert set(schemas["probe.Pet-Input"]["properties"]) == {"given"}
    assert set(schemas["probe.Pet-Output"]["properties"]) == {"shown", "size"}
    assert_valid(document)


async def test_routes_that_differ_in_their_names_alone_are_one_path(serve: Server) -> None:
    client = await serve(
        """
@routes.get("/pets/{id}")
async def show(id: int) -> int:
    return id

@routes.delete("/pets/{pet_id}")
async def delete(pet_id: int) -> int:
    return pet_id

@routes.get("/pets/{id:path}")
async def rest(id: str) -> str:
    return id
"""
    )
    assert_valid(client.document)
    paths = [path for path in client.document["paths"] if "pets" in path]
    assert paths == ["/api/v1/pets/{id_}", "/api/v1/pets/{id}"]
    assert set(client.document["paths"]["/api/v1/pets/{id}"]) == {"get", "delete"}
    assert (await client.request("DELETE", "/api/v1/pets/7")).json == 7
    refused = await client.request("DELETE", "/api/v1/pets/x")
    assert refused.json["errors"][0]["pointer"] == "/pet_id"


async def test_equal_handlers_have_their_own_operation_ids(serve: Server) -> None:
    client = await serve(
        """
@routes.get("/a-b")
@routes.get("/a_b")
@routes.get("/a.b")
async def show() -> int:
    return 1

def another():
    @routes.get("/other")
    async def show() -> int:
        return 2

another()
"""
    )
    ids = [each for each in operation_ids(client.document) if each.startswith("probe.")]
    assert sorted(ids) == [
        "probe.show",
        "probe.show.get.a_b",
        "probe.show.get.a_b.2",
        "probe.show.get.other",
    ]


async def test_an_example_that_is_no_json_costs_nobody_the_document(serve: Server) -> None:
    client = await serve(
        """
import decimal

class Pet(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": {"price": decimal.Decimal("1")}})
    price: decimal.Decimal = Field(default=object())

@routes.get("/pets")
async def show(n: Annotated[int, Query(example=object())] = 1) -> Pet:
    return Pet(price=1)
"""
    )
    schema = client.document["components"]["schemas"]["probe.Pet"]
    assert schema["example"] == {"price": "1"}
    assert_valid(client.document)


def load(folder: Path, names: tuple[str, ...]) -> dict[str, Any]:
    candidates = load_features([folder], settings={})
    try:
        assert [str(each) for candidate in candidates for each in candidate.findings] == []
        return build_document(
            DocumentedFeature(candidate.name, tuple(candidate.routes))
            for candidate in candidates
            if candidate.name in names
        )
    finally:
        unload(candidates)


def test_a_feature_keeps_its_names_when_another_comes(feature_folder: FeatureFolder) -> None:
    source = """
class Pet(BaseModel):
    {member}: int

class Box(BaseModel):
    pet: Pet

@routes.post("/{path}")
async def show(box: Box) -> Box:
    return box
"""
    names = ("aaa", "pets", "zzz")
    for number, name in enumerate(names):
        text = source.replace("{member}", f"m{number}").replace("{path}", name)
        path = feature_folder(name, f"{HEAD}{text}{TAIL}")
    alone, together = load(path.parent, ("pets",)), load(path.parent, names)
    assert_valid(together)
    schemas = together["components"]["schemas"]
    assert schemas.items() >= alone["components"]["schemas"].items()
    assert together["paths"].items() >= alone["paths"].items()
    assert {"aaa.Pet", "pets.Pet", "zzz.Pet", "pets.Box"} <= set(schemas)
    assert operation_ids(together) == ["aaa.show", "pets.show", "zzz.show"]
    assert json.dumps(together) == json.dumps(load(path.parent, names)), "the same each time"


async def test_the_documents_of_the_project_and_of_the_core_are_valid(
    petsage_client: Client,
) -> None:
    async with petsage_client.get("/openapi.json") as response:
        document = await response.json()
        assert response.headers["Content-Type"] == "application/json"
    assert_valid(document)
    assert document["paths"]["/"]["get"]["tags"] == ["Root"]
    assert document["paths"]["/api/v1/smoke-test"]["get"]["tags"] == ["System"]


async def test_who_has_the_document_is_told_so(petsage_client: Client) -> None:
    async with petsage_client.get("/openapi.json") as response:
        tag = response.headers["ETag"]
    async with petsage_client.get("/openapi.json", headers={"If-None-Match": tag}) as response:
        assert (response.status, await response.read()) == (304, b"")
        assert response.headers["ETag"] == tag
    async with petsage_client.get("/openapi.json", headers={"If-None-Match": '"x"'}) as response:
        assert response.status == 200


async def test_another_table_is_another_document(serve: Server) -> None:
    client = await serve(
        """
@routes.get("/one")
async def one() -> int:
    return 1

@routes.get("/two")
async def two() -> int:
    return 2
"""
    )
    app = client.client.app
    assert app is not None
    resource = app[CATALOG].resource
    whole = resource.table

    async def ask() -> tuple[str, set[str]]:
        async with client.client.get("/openapi.json") as response:
            return response.headers["ETag"], set((await response.json())["paths"])

    before = await ask()
    resource.table = RouteTable(each for each in whole.routes if not each.template.endswith("two"))
    tag, paths = await ask()
    assert tag != before[0]
    assert before[1] - paths == {"/api/v1/two"}
    resource.table = whole
    assert await ask() == before
