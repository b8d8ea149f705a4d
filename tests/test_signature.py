"""Where a handler's arguments come from, through HTTP with real feature folders."""

import asyncio
import json
import urllib.parse
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from yarl import URL

from petsage.testing import FeatureClient, FeatureFolder
from tests.documented import Answer, Server, find_operations

KINDS = """
import datetime as dt
import decimal
import enum
import uuid

class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"

class Size(enum.IntEnum):
    SMALL = 1
    LARGE = 2

PetId = NewType("PetId", int)
Age = Annotated[int, Field(ge=0, le=30)]
Code = Annotated[str, Field(pattern="^[a-z]{3}$")]
Few = Annotated[list[int], Field(max_length=2)]
"""

# The type, what comes in, what the handler got, and what is no such thing.
SCALARS = [
    ("int", "7", 7, "seven"),
    ("int", "-7", -7, "1.5"),
    ("float", "1.5", 1.5, "nan"),
    ("float", "1e3", 1000.0, "inf"),
    ("bool", "true", True, "maybe"),
    ("bool", "0", False, ""),
    ("str", "a b/ü&=?", "a b/ü&=?", None),
    ("uuid.UUID", "0af76519-16cd-43dd-8448-eb211c80319c", None, "0af7-secret"),
    ("dt.date", "2026-01-31", None, "2026-02-31"),
    ("dt.datetime", "2026-01-31T12:00:00Z", None, "yesterday"),
    ("dt.time", "12:30:00", None, "25:00"),
    ("dt.timedelta", "PT1H", None, "soon"),
    ("decimal.Decimal", "1.10", "1.10", "NaN"),
    ("Color", "red", "red", "green"),
    ("Size", "2", 2, "3"),
    ('Literal["a", "b"]', "b", "b", "c"),
    ("int | None", "7", 7, "none"),
    ("int | dt.date", "2026-01-31", "2026-01-31", "x"),
    ("Age", "30", 30, "31"),
    ("Code", "abc", "abc", "abcd"),
    ("PetId", "7", 7, "x"),
]
LISTS = [
    ("list[int]", ["1", "2"], [1, 2], ["1", "x"]),
    ("list[Color]", ["red", "blue"], ["red", "blue"], ["green"]),
    ("set[int]", ["1", "1"], [1], ["x"]),
    ("tuple[str, ...]", ["a"], ["a"], None),
    ("list[int] | None", ["1"], [1], ["x"]),
    ("Few", ["1", "2"], [1, 2], ["1", "2", "3"]),
    ("list[int | bool]", ["5"], [5], ["x"]),
]


@pytest.fixture
def serve(feature_client: FeatureClient, feature_folder: FeatureFolder) -> Server:
    return Server(feature_client, feature_folder)


def echoes(path: str, types: list[str], declaration: str) -> str:
    """A handler for each type, which answers with what it got."""
    return KINDS + "".join(
        f"""
@routes.get("/{path.format(number=number)}")
async def echo_{number}(value: {declaration.format(kind=kind)}) -> dict[str, Any]:
    return {{"value": value, "type": type(value).__name__}}
"""
        for number, kind in enumerate(types)
    )


def entries(answer: Answer) -> list[tuple[str, str, str]]:
    """What a 422 names: the part of the request, the place in it and the kind of error."""
    assert answer.status == 422, answer
    assert answer.json["title"] == "Unprocessable Content"
    return [(each["in"], each["pointer"], each["type"]) for each in answer.json["errors"]]


async def expect_echoes(
    cases: list[tuple[str, Any, Any, Any]],
    ask: Callable[[int, Any], Any],
    pointer: Callable[[Any], set[str]],
) -> None:
    for number, (kind, given_, expected, wrong) in enumerate(cases):
        answer = await ask(number, given_)
        assert answer.status == 200, (kind, answer)
        if expected is not None:
            assert answer.json["value"] == expected, kind
        if wrong is not None:
            refused = await ask(number, wrong)
            assert {place for _, place, _ in entries(refused)} <= pointer(wrong), kind
            if wrong and isinstance(wrong, str) and len(wrong) > 3:
                # Its own words may be pydantic's ("Input should be a valid number"); no more.
                assert wrong not in json.dumps(refused.json["errors"]), kind


async def test_a_name_in_the_path_comes_from_the_path_as_any_kind_of_scalar(serve: Server) -> None:
    cases = [case for case in SCALARS if case[3] != ""]
    client = await serve(echoes("{number}/{{value}}", [case[0] for case in cases], "{kind}"))

    def ask(number: int, value: str) -> Any:
        quoted = urllib.parse.quote(value, safe="")
        return client.get(f"/api/v1/{number}/{quoted}")

    await expect_echoes(cases, ask, lambda _: {"/value"})


async def test_a_scalar_with_a_default_comes_from_the_query(serve: Server) -> None:
    client = await serve(echoes("{number}", [case[0] for case in SCALARS], "{kind} = None"))

    def ask(number: int, value: str) -> Any:
        return client.get(f"/api/v1/{number}", params={"value": value})

    await expect_echoes(SCALARS, ask, lambda _: {"/value"})
    left_out = await client.get("/api/v1/0")
    assert left_out.json == {"value": None, "type": "NoneType"}


async def test_a_list_of_scalars_comes_from_a_name_that_stands_several_times_in_the_query(
    serve: Server,
) -> None:
    client = await serve(echoes("{number}", [case[0] for case in LISTS], "{kind} = []"))

    def ask(number: int, values: list[str]) -> Any:
        return client.get(f"/api/v1/{number}", params=[("value", each) for each in values])

    await expect_echoes(
        LISTS, ask, lambda wrong: {"/value", *(f"/value/{n}" for n in range(len(wrong)))}
    )
    assert (await client.get("/api/v1/0")).json["value"] == []


async def test_a_header_comes_under_its_name_with_dashes(serve: Server) -> None:
    client = await serve(
        """
@routes.get("/it")
async def it(
    x_pet_name: Annotated[str, Header()],
    age: Annotated[int, Header("X-Age")] = 3,
    x_tag: Annotated[list[int], Header] = [],
) -> list[Any]:
    return [x_pet_name, age, x_tag]
"""
    )
    answer = await client.get("/api/v1/it", headers={"x-PET-name": "Rex", "X-Age": "4"})
    assert answer.json == ["Rex", 4, []]
    refused = await client.get("/api/v1/it", headers={"X-Age": "old"})
    assert entries(refused) == [
        ("header", "/x-pet-name", "missing"),
        ("header", "/X-Age", "int_parsing"),
    ]


async def test_a_list_of_headers_takes_several_lines_and_commas(serve: Server) -> None:
    client = await serve(
        """
@routes.get("/it")
async def it(x_tag: Annotated[list[int], Header()]) -> list[int]:
    return x_tag
"""
    )
    answer = await client.get("/api/v1/it", headers=[("X-Tag", "1, 2,,"), ("X-Tag", "3")])
    assert answer.json == [1, 2, 3]
    refused = await client.get("/api/v1/it", headers=[("X-Tag", "1, x")])
    assert entries(refused) == [("header", "/x-tag/1", "int_parsing")]


async def test_a_cookie_comes_under_its_name(serve: Server) -> None:
    client = await serve(
        """
@routes.get("/it")
async def it(
    session_id: Annotated[int, Cookie()], theme: Annotated[str, Cookie("Theme")] = "light"
) -> list[Any]:
    return [session_id, theme]
"""
    )
    answer = await client.get("/api/v1/it", headers={"Cookie": "session_id=7; Theme=dark"})
    assert answer.json == [7, "dark"]
    assert (await client.get("/api/v1/it", headers={"Cookie": "session_id=7"})).json == [7, "light"]
    assert entries(await client.get("/api/v1/it")) == [("cookie", "/session_id", "missing")]


async def test_a_query_parameter_may_be_required_and_have_another_name(serve: Server) -> None:
    client = await serve(
        """
@routes.get("/it")
async def it(kind: Annotated[str, Query("type")], page: Annotated[int, Query()] = 1) -> list[Any]:
    return [kind, page]
"""
    )
    assert (await client.get("/api/v1/it?type=dog&page=2")).json == ["dog", 2]
    assert entries(await client.get("/api/v1/it?kind=dog")) == [("query", "/type", "missing")]


@pytest.mark.parametrize("where", ["query", "header"])
async def test_a_name_that_stands_twice_for_one_value_is_refused(serve: Server, where: str) -> None:
    client = await serve(
        f"""
@routes.get("/it")
async def it(page: Annotated[int, {where.title()}()] = 1) -> int:
    return page
"""
    )
    twice = [("page", "1"), ("page", "2")]
    options: dict[str, Any] = {"params": twice} if where == "query" else {"headers": twice}
    assert entries(await client.get("/api/v1/it", **options)) == [(where, "/page", "int_type")]


QUERY_MODEL = """
class Filter(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["cat", "dog"]
    tags: list[str] = []
    youngest: int = Field(0, alias="min-age", ge=0)

@routes.get("/it")
async def it(chosen: Annotated[Filter, Query()]) -> Filter:
    return chosen
"""


async def test_a_query_model_takes_all_of_the_query(serve: Server) -> None:
    client = await serve(QUERY_MODEL)
    answer = await client.get("/api/v1/it?kind=cat&tags=a&tags=b&min-age=3")
    assert answer.json == {"kind": "cat", "tags": ["a", "b"], "min-age": 3}
    one = await client.get("/api/v1/it?kind=cat&tags=a")
    assert one.json["tags"] == ["a"]


async def test_each_wrong_member_of_a_query_model_is_named(serve: Server) -> None:
    client = await serve(QUERY_MODEL)
    refused = await client.get("/api/v1/it?tags=a&min-age=-1&colour=red&kind=cat&kind=dog")
    assert entries(refused) == [
        ("query", "/kind", "literal_error"),
        ("query", "/min-age", "greater_than_equal"),
        ("query", "/colour", "extra_forbidden"),
    ]
    assert entries(await client.get("/api/v1/it")) == [("query", "/kind", "missing")]


async def test_a_query_model_with_a_default_may_be_left_out(serve: Server) -> None:
    client = await serve(
        """
class Filter(BaseModel):
    kind: str

@routes.get("/it")
async def it(chosen: Annotated[Filter | None, Query()] = None) -> str:
    return chosen.kind if chosen else "all"
"""
    )
    assert (await client.get("/api/v1/it")).json == "all"
    assert (await client.get("/api/v1/it?kind=cat")).json == "cat"
    assert entries(await client.get("/api/v1/it?x=1")) == [("query", "/kind", "missing")]


async def test_a_mapping_takes_all_of_the_query(serve: Server) -> None:
    client = await serve(
        """
@routes.get("/it")
async def it(labels: Annotated[dict[str, int], Query()]) -> dict[str, int]:
    return labels
"""
    )
    assert (await client.get("/api/v1/it?a=1&b=2")).json == {"a": 1, "b": 2}
    assert entries(await client.get("/api/v1/it?a=1&b=x")) == [("query", "/b", "int_parsing")]


BODIES = """
import dataclasses
import datetime as dt
from typing_extensions import TypedDict

class Pet(BaseModel):
    name: str = Field(alias="petName")
    age: int = 0
    born: dt.date | None = None

@dataclasses.dataclass
class Owner:
    name: str
    pets: list[str]

class Visit(TypedDict):
    reason: str

class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int

class Dog(BaseModel):
    kind: Literal["dog"]
    tricks: list[str]

Animal = Annotated[Cat | Dog, Field(discriminator="kind")]
"""


@pytest.mark.parametrize(
    ("kind", "body", "wrong", "places"),
    [
        ("Pet", {"petName": "Rex", "age": 3}, {"age": "3"}, ["/petName", "/age"]),
        ("Pet", {"petName": "Rex", "born": "2026-01-31"}, {"petName": "R", "born": 0}, ["/born"]),
        ("Owner", {"name": "Ann", "pets": ["Rex"]}, {"name": "Ann", "pets": [1]}, ["/pets/0"]),
        ("Owner", {"name": "Ann", "pets": []}, {"pets": []}, ["/name"]),
        ("Visit", {"reason": "flu"}, {"reason": 1}, ["/reason"]),
        ("list[Pet]", [{"petName": "Rex"}], [{"petName": "Rex"}, {}], ["/1/petName"]),
        ("list[int]", [1, 2], [1, "2"], ["/1"]),
        ("Pet | list[Pet]", [{"petName": "Rex"}], [{"petName": 5}], ["", "/0/petName"]),
        ("Cat | Dog", {"kind": "cat", "lives": 9}, {"kind": "cat"}, ["/lives", "/kind", "/tricks"]),
        ("Animal", {"kind": "dog", "tricks": []}, {"kind": "dog"}, ["/tricks"]),
        ("Animal", {"kind": "dog", "tricks": []}, {"kind": "cow-secret"}, [""]),
        ("dict[str, Pet]", {"a": {"petName": "Rex"}}, {"a": {}}, ["/a/petName"]),
        ("dict[str, int]", {"a/b~c": 1}, {"a/b~c": "1"}, ["/a~1b~0c"]),
    ],
)
async def test_a_document_comes_from_the_body(
    serve: Server, kind: str, body: Any, wrong: Any, places: list[str]
) -> None:
    marked = f"Annotated[{kind}, Body()]" if kind == "list[int]" else kind
    client = await serve(
        f"""{BODIES}
@routes.post("/it")
async def it(body: {marked}) -> {kind}:
    return body
"""
    )
    answer = await client.post("/api/v1/it", body)
    assert answer.status == 200
    if isinstance(body, dict):
        assert answer.json.keys() >= body.keys()
    refused = await client.post("/api/v1/it", wrong)
    assert [place for _, place, _ in entries(refused)] == places
    assert "secret" not in refused.body.decode()


@pytest.mark.parametrize("method", ["GET", "DELETE", "POST", "PUT", "PATCH"])
async def test_a_marked_body_is_taken_on_any_method(serve: Server, method: str) -> None:
    client = await serve(
        f"""{BODIES}
@routes.{method.lower()}("/it")
async def it(pet: Annotated[Pet, Body()], scale: int = 1) -> int:
    return pet.age * scale
"""
    )
    answer = await client.request(method, "/api/v1/it?scale=2", json={"petName": "Rex", "age": 3})
    assert answer.json == 6


async def test_a_scalar_may_be_the_body(serve: Server) -> None:
    client = await serve(
        """
@routes.put("/it")
async def it(name: Annotated[str, Body()]) -> str:
    return name
"""
    )
    assert (await client.request("PUT", "/api/v1/it", json="Rex")).json == "Rex"
    assert entries(await client.request("PUT", "/api/v1/it", json=5)) == [
        ("body", "", "string_type")
    ]


async def test_a_body_with_a_default_may_be_left_out(serve: Server) -> None:
    client = await serve(
        f"""{BODIES}
@routes.post("/it")
async def it(pet: Pet | None = None) -> str:
    return pet.name if pet else "nobody"
"""
    )
    assert (await client.request("POST", "/api/v1/it")).json == "nobody"

    async def nothing() -> AsyncIterator[bytes]:
        empty: tuple[bytes, ...] = ()
        for piece in empty:
            yield piece

    kind = {"Content-Type": "application/json"}
    chunked = await client.request("POST", "/api/v1/it", data=nothing(), headers=kind)
    assert chunked.json == "nobody"
    assert (await client.send("/api/v1/it", b"null")).json == "nobody"
    assert (await client.post("/api/v1/it", {"petName": "Rex"})).json == "Rex"
    assert entries(await client.post("/api/v1/it", {})) == [("body", "/petName", "missing")]


async def test_a_body_that_has_to_be_there_is_missed(serve: Server) -> None:
    client = await serve(
        f"""{BODIES}
@routes.post("/it")
async def it(pet: Pet) -> None:
    pass
"""
    )
    assert entries(await client.request("POST", "/api/v1/it")) == [("body", "", "missing")]


async def test_the_body_is_strict_where_path_and_query_are_lax(serve: Server) -> None:
    client = await serve(
        """
import datetime as dt
import decimal
import uuid

class All(BaseModel):
    number: int
    flag: bool
    day: dt.date

class Texts(BaseModel):
    at: dt.datetime
    id: uuid.UUID
    price: decimal.Decimal
    colors: set[str]
    ratio: float

@routes.post("/query/{number}")
async def query(number: int, flag: bool, day: dt.date = dt.date.min) -> All:
    return All(number=number, flag=flag, day=day)

@routes.post("/body")
async def body(all: All) -> All:
    return all

@routes.post("/texts")
async def texts(texts: Texts) -> Texts:
    return texts
""".replace("flag: bool, day", "flag: Annotated[bool, Query()], day")
    )
    lax = await client.request("POST", "/api/v1/query/7?flag=yes&day=2026-01-31")
    assert lax.json == {"number": 7, "flag": True, "day": "2026-01-31"}
    strict = await client.post("/api/v1/body", {"number": "7", "flag": 1, "day": 0})
    assert entries(strict) == [
        ("body", "/number", "int_type"),
        ("body", "/flag", "bool_type"),
        ("body", "/day", "date_type"),
    ]
    # What JSON has no type for is a string in it, strict or not.
    answer = await client.post(
        "/api/v1/texts",
        {
            "at": "2026-01-31T12:00:00Z",
            "id": "0af76519-16cd-43dd-8448-eb211c80319c",
            "price": "1.10",
            "colors": ["red"],
            "ratio": 1,
        },
    )
    assert answer.status == 200
    assert answer.json["price"] == "1.10"


async def test_the_request_comes_as_it_is(serve: Server) -> None:
    client = await serve(
        """
@routes.post("/typed/{id}")
async def typed(id: int, request: Request, page: int = 1) -> list[Any]:
    return [id, page, (await request.read()).decode()]

@routes.get("/plain/{id}")
async def plain(request) -> web.Response:
    return web.Response(text=request.match_info["id"])

@routes.get("/rest/{rest:path}")
async def rest(r: web.Request, rest: str) -> str:
    return rest
"""
    )
    answer = await client.send("/api/v1/typed/7?page=2", b"raw", kind="text/plain")
    assert answer.json == [7, 2, "raw"]
    assert (await client.get("/api/v1/plain/rex")).body == b"rex"
    operation = find_operations(client.document, "/api/v1/plain/rex")["get"]
    assert [each["name"] for each in operation["parameters"]] == ["id"]


FROM_APP = """
OWN = AppKey("OWN", str)
NUMBER = AppKey("NUMBER", int)

class Store:
    name = "own"

STORE = AppKey("STORE", Store)

async def lifespan(app: web.Application) -> AsyncIterator[None]:
    app[OWN] = "mine"
    app[STORE] = Store()
    yield

@routes.get("/it/{id}")
async def it(
    id: int,
    own: Annotated[str, FromApp(OWN)],
    store: Annotated[Store, FromApp(STORE)],
    settings: Annotated["Knobs", FromApp(SETTINGS)],
) -> list[Any]:
    return [id, own, store.name, settings.greeting]

class Knobs(BaseModel):
    greeting: str = "hi"

feature = Feature(routes, lifespan=lifespan, settings=Knobs)
"""


async def test_a_value_of_the_own_application_is_handed_over(serve: Server) -> None:
    client = await serve(FROM_APP, tail="", settings={"greeting": "hello"})
    assert (await client.get("/api/v1/it/7")).json == [7, "mine", "own", "hello"]
    parameters = find_operations(client.document, "/api/v1/it/7")["get"]["parameters"]
    assert [each["name"] for each in parameters] == ["id"], "what the app has is no one's to send"


async def test_a_value_comes_from_a_needed_feature_and_from_the_core(
    feature_client: FeatureClient, feature_folder: FeatureFolder
) -> None:
    feature_folder(
        "keeper",
        """
        from petsage import AppKey, Feature, Routes
        KEY = AppKey("KEY", str)
        async def lifespan(app):
            app[KEY] = "kept"
            yield
        feature = Feature(Routes(), lifespan=lifespan)
        """,
    )
    path = feature_folder(
        "asker",
        """
        from typing import Annotated
        from petsage import Feature, FromApp, Routes
        from petsage.catalog import CATALOG, Catalog
        from features.keeper import KEY
        routes = Routes()
        @routes.get("/it")
        async def it(
            kept: Annotated[str, FromApp(KEY)], catalog: Annotated[Catalog, FromApp(CATALOG)]
        ) -> list[str]:
            return [kept, type(catalog).__name__]
        feature = Feature(routes, needs=("keeper",))
        """,
    )
    client = await feature_client(path)
    async with client.get("/api/v1/it") as response:
        assert await response.json() == ["kept", "Catalog"]


async def test_a_test_may_put_a_value_in_the_place_of_the_applications(
    feature_client: FeatureClient, feature_folder: FeatureFolder
) -> None:
    path = feature_folder(
        "asker",
        """
        from typing import Annotated
        from petsage import Feature, FromApp, Routes
        from petsage.catalog import CATALOG, Catalog
        routes = Routes()
        @routes.get("/it")
        async def it(catalog: Annotated[Catalog, FromApp(CATALOG)]) -> str:
            return str(catalog)
        feature = Feature(routes)
        """,
    )
    from petsage.catalog import CATALOG

    client = await feature_client(path, values={CATALOG: "a stand-in"})
    async with client.get("/api/v1/it") as response:
        assert await response.json() == "a stand-in"


async def test_annotations_may_be_strings(serve: Server) -> None:
    client = await serve(
        """
@routes.get("/it/{id}")
async def it(id: "int", later: "Later | None" = None) -> "list[Later]":
    return [id]

Later = int
"""
    )
    assert (await client.get("/api/v1/it/7")).json == [7]


async def test_a_type_alias_is_what_it_stands_for(serve: Server) -> None:
    client = await serve(
        """
from typing_extensions import TypeAliasType
Page = TypeAliasType("Page", Annotated[int, Query("p")])
Said = TypeAliasType("Said", Reply[int])

@routes.get("/it")
async def it(page: Page) -> Said:
    return Reply(page, status=201)
"""
    )
    answer = await client.get("/api/v1/it?p=7")
    assert (answer.status, answer.json) == (201, 7)


async def test_all_that_is_wrong_with_a_request_is_told_at_once(serve: Server) -> None:
    client = await serve(
        f"""{BODIES}
@routes.put("/it/{{id}}")
async def it(
    id: int, pet: Pet, x_trace: Annotated[str, Header()], s: Annotated[int, Cookie()], page: int = 1
) -> None:
    pass
"""
    )
    refused = await client.request("PUT", "/api/v1/it/x?page=y", json={"age": "z"})
    assert entries(refused) == [
        ("path", "/id", "int_parsing"),
        ("header", "/x-trace", "missing"),
        ("cookie", "/s", "missing"),
        ("query", "/page", "int_parsing"),
        ("body", "/petName", "missing"),
        ("body", "/age", "int_type"),
    ]
    assert refused.json["detail"] == "6 fields are wrong; see `errors`"
    assert refused.json["errors"][0]["detail"].startswith("Input should be a valid integer")


async def test_an_answer_to_wrong_input_stays_short(serve: Server) -> None:
    client = await serve(
        """
@routes.post("/it")
async def it(numbers: Annotated[dict[str, int], Body()]) -> None:
    pass
"""
    )
    some = await client.post("/api/v1/it", {f"{n}-" + "k" * 300: "x" for n in range(500)})
    told = len(entries(some))
    assert some.json["detail"] == f"500 fields are wrong; `errors` has {told} of them"
    assert 20 < told < 50
    assert len(some.body) < 10_240
    short = await client.post("/api/v1/it", {str(n): "x" for n in range(500)})
    assert short.json["detail"] == "500 fields are wrong; `errors` has 50 of them"
    many = await client.post("/api/v1/it", dict.fromkeys(map(str, range(10_001)), "x"))
    assert entries(many) == [("body", "", "too_many_errors")]


NASTY = [
    "", " ", "\x00", "\n", "-", "+", "e", "0x10", "1_000", "٣", "½", "\U0001f600", "null", "{}",
    "[]", "9" * 4000, "-" * 4000, "1e999", "1e-999", "1e99999999999", "-0", "nan", "sNaN", "-inf",
    "Infinity", "0001-01-01", "9999-12-31T23:59:60Z", "99999999999999999999", "-1e18",
    "P" + "9" * 300 + "D", "-P1Y", "24:00", "12:00+99:99", "urn:uuid:", "%", "%ff",
]  # fmt: skip


async def test_whatever_a_text_is_it_is_taken_or_refused_and_never_an_error(serve: Server) -> None:
    kinds = [case[0] for case in SCALARS if "None" not in case[0]] + ["bytes", "Size | Color"]
    client = await serve(
        KINDS
        + "".join(
            f"""
@routes.get("/{number}")
async def take_{number}(value: Annotated[{kind}, Query()]) -> dict[str, Any]:
    return {{"value": value}}
"""
            for number, kind in enumerate(kinds)
        )
    )
    for number, kind in enumerate(kinds):
        for text in NASTY:
            answer = await client.get(f"/api/v1/{number}", params={"value": text})
            assert answer.status in {200, 422}, (kind, text)


@pytest.mark.parametrize("line", [b"X: \xff", b"X: a,\xff", b"Cookie: y=\xff", b"X: \xed\xa0\x80"])
async def test_a_header_that_is_not_utf_8_is_refused(serve: Server, line: bytes) -> None:
    client = await serve(
        """
@routes.get("/it")
async def it(
    x: Annotated[list[str], Header()] = [], y: Annotated[str, Cookie()] = "",
) -> list[str]:
    return [*x, y]
"""
    )
    assert (await client.get("/api/v1/it", headers={"X": "ü"})).json == ["ü", ""]
    reader, writer = await asyncio.open_connection(client.client.host, client.client.port)
    writer.write(b"GET /api/v1/it HTTP/1.0\r\nHost: x\r\n" + line + b"\r\n\r\n")
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 422 ")
    (error,) = json.loads(answer.partition(b"\r\n\r\n")[2])["errors"]
    assert error["type"] == "string_unicode"


async def test_what_is_not_utf_8_in_a_query_is_refused_and_a_replacement_character_is_not(
    serve: Server,
) -> None:
    client = await serve(
        """
class All(BaseModel):
    x: str = ""
    y: list[str] = []

@routes.get("/one")
async def one(x: str = "") -> str:
    return x

@routes.get("/all")
async def all_of_it(all: Annotated[All, Query()]) -> str:
    return all.x
"""
    )

    async def ask(path: str, query: str) -> tuple[int, Any]:
        url = client.client.make_url(path)
        async with client.client.session.get(URL(f"{url}?{query}", encoded=True)) as response:
            return response.status, await response.json()

    assert await ask("/api/v1/one", "x=%EF%BF%BD") == (200, "\N{REPLACEMENT CHARACTER}")
    assert await ask("/api/v1/one", "x=a&y=%ff") == (200, "a"), "nobody reads what is wrong"
    for path, query, pointer in [
        ("/api/v1/one", "x=%ff", "/x"),
        ("/api/v1/one", "x=%ed%a0%80", "/x"),
        ("/api/v1/all", "x=%ff", ""),
        ("/api/v1/all", "y=a&y=%ff", ""),
        ("/api/v1/all", "%ff=a", ""),
    ]:
        status, problem = await ask(path, query)
        assert status == 422
        assert [(each["pointer"], each["type"]) for each in problem["errors"]] == [
            (pointer, "string_unicode")
        ]


async def test_fields_may_have_the_names_that_schemas_are_made_of(serve: Server) -> None:
    """pydantic's core schema of a model, which is walked, has these words for its own."""
    words = ("type", "fields", "choices", "items_schema", "definitions", "ref", "on_error")
    members = "\n".join(f"    {word}: set[int]" for word in words)
    client = await serve(
        f"""
class Words(BaseModel):
{members}

@routes.post("/it")
async def it(words: list[Words]) -> int:
    return len(words)
"""
    )
    right = {key: [1, 2] for key in words}
    assert (await client.post("/api/v1/it", [right])).json == 1
    wrong = await client.post("/api/v1/it", [right, right | {"type": ["x"], "ref": 1}])
    assert entries(wrong) == [
        ("body", "/1/type/0", "int_type"),
        ("body", "/1/ref", "set_type"),
    ]
    large: list[dict[str, Any]]
    large = [{word: list(range(20)) for word in words} for _ in range(500)]
    assert (await client.post("/api/v1/it", large)).json == 500
    large[-1]["type"] = ["x"]
    assert entries(await client.post("/api/v1/it", large)) == [("body", "", "too_many_errors")]
