"""What a handler may answer, and what wrong input is answered, through HTTP."""

import asyncio
import gzip
import io
import json
import re
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from petsage.testing import FeatureClient, FeatureFolder
from tests.documented import PROBLEM, TAIL, Server

LogLines = Callable[[], list[dict[str, Any]]]

MODELS = """
import dataclasses
import datetime as dt
import decimal
import enum
import uuid
from typing_extensions import TypedDict

class Color(enum.Enum):
    RED = "red"

class Pet(BaseModel):
    name: str = Field(alias="petName")
    age: int = 0

@dataclasses.dataclass
class Owner:
    name: str
    pets: list[str] = dataclasses.field(default_factory=list)

class Visit(TypedDict):
    reason: str

class Trouble(BaseModel):
    why: str
"""


@pytest.fixture
def serve(feature_client: FeatureClient, feature_folder: FeatureFolder) -> Server:
    return Server(feature_client, feature_folder)


def handler(returns: str, value: str, route: str = '@routes.get("/it")') -> str:
    return f"""{MODELS}
{route}
async def it() -> {returns}:
    return {value}
"""


@pytest.mark.parametrize(
    ("returns", "value", "body"),
    [
        ("Pet", 'Pet(petName="Rex", age=3)', {"petName": "Rex", "age": 3}),
        ("Pet", '{"petName": "Rex"}', {"petName": "Rex", "age": 0}),
        ("Pet", '{"name": "Rex"}', {"petName": "Rex", "age": 0}),
        ("Owner", 'Owner("Ann", ["Rex"])', {"name": "Ann", "pets": ["Rex"]}),
        ("Owner", '{"name": "Ann"}', {"name": "Ann", "pets": []}),
        ("Visit", '{"reason": "flu"}', {"reason": "flu"}),
        ("dict[str, int]", '{"a": 1}', {"a": 1}),
        ("dict[str, Any]", '{"a": [1, None]}', {"a": [1, None]}),
        ("list[Pet]", '[Pet(petName="Rex"), {"petName": "Mia"}]', None),
        ("list[int]", "(n for n in [1, 2])", [1, 2]),
        ("Pet | Trouble", 'Trouble(why="x")', {"why": "x"}),
        ("int", "7", 7),
        ("float", "1", 1.0),
        ("bool", "False", False),
        ("str", '"ü"', "ü"),
        ("int | None", "7", 7),
        ("Any", '{"any": "thing"}', {"any": "thing"}),
        ('Literal["a", "b"]', '"a"', "a"),
        ("Color", "Color.RED", "red"),
        ("dt.datetime", "dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC)", "2026-01-31T12:00:00Z"),
        ("dt.date", "dt.date(2026, 1, 31)", "2026-01-31"),
        ("dt.timedelta", "dt.timedelta(hours=1)", "PT1H"),
        ("decimal.Decimal", 'decimal.Decimal("1.10")', "1.10"),
        ("uuid.UUID", "uuid.UUID(int=1)", "00000000-0000-0000-0000-000000000001"),
        ("bytes", 'b"abc"', "abc"),
        ("tuple[int, str]", '(1, "a")', [1, "a"]),
        ("Annotated[int, Field(ge=0)]", "7", 7),
    ],
)
async def test_what_a_handler_returns_is_answered_as_json(
    serve: Server, returns: str, value: str, body: Any
) -> None:
    client = await serve(handler(returns, value))
    answer = await client.get("/api/v1/it")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    if body is not None:
        assert answer.json == body
    head = await client.request("HEAD", "/api/v1/it")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["Content-Length"] == str(len(answer.body))


@pytest.mark.parametrize("returns", ["None", "Pet | None", "Reply[Pet | None]", "Reply[None]"])
async def test_none_is_answered_204(serve: Server, returns: str) -> None:
    value = "Reply(None)" if "Reply" in returns else "None"
    client = await serve(handler(returns, value))
    answer = await client.get("/api/v1/it")
    assert (answer.status, answer.body) == (204, b"")
    assert "Content-Type" not in answer.headers


@pytest.mark.parametrize(
    ("returns", "value", "status"),
    [
        ("Pet", 'Pet(petName="Rex")', 201),
        ("None", "None", 202),
        ("None", "None", 204),
        ("Pet | None", 'Pet(petName="Rex")', 201),
    ],
)
async def test_a_route_may_say_its_status(
    serve: Server, returns: str, value: str, status: int
) -> None:
    client = await serve(handler(returns, value, f'@routes.post("/it", status={status})'))
    assert (await client.request("POST", "/api/v1/it")).status == status


async def test_none_beside_a_model_is_204_whatever_the_status(serve: Server) -> None:
    client = await serve(handler("Pet | None", "None", '@routes.post("/it", status=201)'))
    assert (await client.request("POST", "/api/v1/it")).status == 204


@pytest.mark.parametrize(
    ("returns", "reply", "status", "body"),
    [
        ("Reply[Pet]", 'Pet(petName="Rex"), status=201', 201, {"petName": "Rex", "age": 0}),
        ("Reply[Pet]", '{"petName": "Rex"}', 200, {"petName": "Rex", "age": 0}),
        ("Pet | Reply[Pet]", 'Pet(petName="R"), status=203', 203, {"petName": "R", "age": 0}),
        ("Reply", '{"any": 1}, status=418', 418, {"any": 1}),
        ("Reply[dict[str, int]]", '{"a": 1}, status=409', 409, {"a": 1}),
        ("Reply[Pet | None]", "None, status=410", 410, None),
        ("Reply[Pet]", "None, status=304", 304, None),
    ],
)
async def test_a_reply_has_its_own_status_and_headers(
    serve: Server, returns: str, reply: str, status: int, body: Any
) -> None:
    client = await serve(handler(returns, f'Reply({reply}, headers={{"X-Mood": "good"}})'))
    answer = await client.get("/api/v1/it")
    assert (answer.status, answer.headers["X-Mood"]) == (status, "good")
    assert answer.body == b"" if body is None else answer.json == body


@pytest.mark.parametrize("query", ["", "?x=1"], ids=["direct", "aiohttp"])
@pytest.mark.parametrize("status", ["100", "199", "600", "1000", "0", "-1", "True", "'200'"])
async def test_a_reply_with_a_status_of_no_answer_is_a_500_that_names_it(
    serve: Server, log_lines: LogLines, status: str, query: str
) -> None:
    client = await serve(handler("Reply[int]", f"Reply(7, status={status})"))
    assert (await client.get(f"/api/v1/it{query}")).status == 500
    (said,) = [line for line in log_lines() if line["level"] == "ERROR"]
    told = f"a `Reply` has the status {status}; fix: use one of 200 to 599"
    assert told in json.dumps(said, ensure_ascii=False)


async def test_a_reply_may_say_another_content_type(serve: Server) -> None:
    kind = "application/vnd.pet+json"
    client = await serve(
        handler("Reply[int] | web.Response", f'Reply(7, headers={{"Content-Type": "{kind}"}})')
    )
    answer = await client.get("/api/v1/it")
    assert (answer.headers["Content-Type"], answer.json) == (kind, 7)


async def test_another_status_may_have_another_model(serve: Server) -> None:
    client = await serve(
        handler(
            "Pet | Reply[Trouble]",
            'Reply(Trouble(why="flea"), status=503)',
            '@routes.get("/it", answers={503: Trouble, 404: Problem, 304: None})',
        )
    )
    answer = await client.get("/api/v1/it")
    assert (answer.status, answer.json) == (503, {"why": "flea"})


async def test_a_reply_that_is_not_of_its_statuses_model_is_a_500(serve: Server) -> None:
    client = await serve(
        handler(
            "Pet | Reply[Pet]",
            'Reply(Pet(petName="Rex"), status=503)',
            '@routes.get("/it", answers={503: Trouble})',
        )
    )
    assert (await client.get("/api/v1/it")).status == 500


@pytest.mark.parametrize(
    ("returns", "value"),
    [
        ("int", '"seven-inside"'),
        ("int", "None"),
        ("Pet", "None"),
        ("Pet", 'Trouble(why="inside")'),
        ("list[Pet]", "[None]"),
        ("float", 'float("nan")'),
        ("Pet", '{"age": "inside"}'),
        ("Pet", 'Owner("inside")'),
        ("Owner", '{"name": "inside", "pets": 1}'),
        ("Pet", 'changed("inside")'),
        ("list[int]", '[1, "inside"]'),
        ("dict[str, int]", '{"a": "inside"}'),
        ("Visit", "{}"),
        ('Literal["a"]', '"inside"'),
        ('list[Literal["a"]]', '["inside"]'),
        ("Annotated[int, Field(ge=0)]", "-1"),
        ("str", r'"\ud800inside"'),
        ("Any", "object()"),
        ("Any", "endless()"),
        ("None", '"inside"'),
        ("web.Response", '{"inside": 1}'),
        ("web.Response", "None"),
        ("Reply[Pet]", "Reply(7)"),
        ("Color", '"inside"'),
    ],
)
async def test_a_wrong_value_is_a_500_that_tells_nothing_and_a_traceback_in_the_log(
    serve: Server, log_lines: LogLines, returns: str, value: str
) -> None:
    client = await serve(
        MODELS
        + """
def changed(age):
    pet = Pet(petName="Rex")
    pet.age = age
    return pet

def endless():
    value = []
    value.append(value)
    return value
"""
        + handler(returns, value)
    )
    answer = await client.get("/api/v1/it")
    assert answer.status == 500
    assert answer.json["detail"] == "The server failed; its log tells more under this request id"
    assert "inside" not in answer.body.decode()
    (line,) = [each for each in log_lines() if each.get("exc_info") and each["level"] == "ERROR"]
    assert line["request_id"] == answer.json["request_id"]
    assert any("TypeError: `it` returned" in each for each in line["exc_info"])


async def test_what_a_handler_raises_is_a_500_and_no_fault_of_the_caller(
    serve: Server, log_lines: LogLines
) -> None:
    client = await serve(
        f"""{MODELS}
@routes.get("/own/{{n}}")
async def own(n: int) -> int:
    raise RuntimeError("inside")

@routes.get("/validation/{{n}}")
async def validation(n: int) -> int:
    Pet(petName=5)
    return n
"""
    )
    for path in ("own", "validation"):
        answer = await client.get(f"/api/v1/{path}/1")
        assert answer.status == 500, "an error of pydantic's in a handler is the handler's"
        assert "inside" not in answer.body.decode()
    raised = [each["exc_info"][-1] for each in log_lines() if each.get("exc_info")]
    assert raised[0] == "RuntimeError: inside"


async def test_a_problem_carries_its_members_and_headers(serve: Server) -> None:
    client = await serve(
        """
@routes.get("/it/{id}", answers={404: Problem})
async def it(id: int) -> int:
    raise Problem(
        404, f"No pet has the id {id}", type="https://example.org/no-pet", title="No pet",
        headers={"Retry-After": "5"}, nearest=[6, 8],
    )
"""
    )
    answer = await client.get("/api/v1/it/7")
    assert (answer.status, answer.kind, answer.headers["Retry-After"]) == (404, PROBLEM, "5")
    request_id = answer.headers["X-Request-ID"]
    assert answer.json == {
        "type": "https://example.org/no-pet",
        "title": "No pet",
        "status": 404,
        "detail": "No pet has the id 7",
        "request_id": request_id,
        "nearest": [6, 8],
    }


async def test_aiohttps_exceptions_are_redirects_and_problems(serve: Server) -> None:
    client = await serve(
        """
from typing import NoReturn

@routes.get("/moved", answers={302: None})
async def moved() -> NoReturn:
    raise web.HTTPFound("/api/v1/there")

@routes.get("/gone")
async def gone() -> str:
    raise web.HTTPGone(reason="Gone", text="It moved out")

@routes.get("/raised")
async def raised(request) -> web.Response:
    raise web.HTTPForbidden
"""
    )
    moved = await client.get("/api/v1/moved")
    assert (moved.status, moved.headers["Location"]) == (302, "/api/v1/there")
    gone = await client.get("/api/v1/gone")
    assert (gone.status, gone.kind, gone.json["detail"]) == (410, PROBLEM, "It moved out")
    assert (await client.get("/api/v1/raised")).json["status"] == 403


async def test_a_handler_may_make_its_own_response(serve: Server) -> None:
    client = await serve(
        """
@routes.get("/text/{name}")
async def text(name: str) -> web.Response:
    return web.Response(text=f"hello {name}", status=203)

@routes.get("/either")
async def either(own: bool = False) -> int | web.Response:
    return web.Response(text="own") if own else 7

@routes.get("/lines")
async def lines(request: Request) -> StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for number in range(3):
        await response.write(f"{number}\\n".encode())
    return response
"""
    )
    answer = await client.get("/api/v1/text/rex")
    assert (answer.status, answer.body) == (203, b"hello rex")
    assert (await client.get("/api/v1/either")).json == 7
    assert (await client.get("/api/v1/either?own=1")).body == b"own"
    assert (await client.get("/api/v1/lines")).body == b"0\n1\n2\n"


async def test_a_websocket_is_served(serve: Server) -> None:
    client = await serve(
        """
@routes.get("/echo/{name}")
async def echo(request: Request, name: str) -> web.WebSocketResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        await socket.send_str(f"{name}: {message.data}")
    return socket
"""
    )
    async with client.client.ws_connect("/api/v1/echo/rex") as socket:
        await socket.send_str("sit")
        assert await socket.receive_str() == "rex: sit"
    assert (await client.get("/api/v1/echo/rex")).status == 400, "it asks for no upgrade"


SAVE = f"""{MODELS}
@routes.post("/it")
async def it(pet: Pet) -> Pet:
    return pet
"""


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"petName": "Re',
        b'{"petName": "Rex"}}',
        b"{'petName': 'Rex'}",
        b'{"petName": "Rex",}',
        b'{"petName": NaN}',
        b'{"petName": "Rex", "age": Infinity}',
        b'{"petName": "Rex", "more": [-Infinity]}',
        b'{"petName": "\xff"}',
        b'\xff\xfe{"petName": "Rex"}',
        b'{"petName": "\\ud800"}',
        b"\x00",
        b"[" * 100_000,
        b'{"petName":' * 50_000,
    ],
)
async def test_a_body_that_is_no_json_is_a_400(serve: Server, body: bytes) -> None:
    client = await serve(SAVE)
    answer = await client.send("/api/v1/it", body)
    if body:
        assert (answer.status, answer.kind) == (400, PROBLEM)
        assert answer.json["detail"].startswith("The body is not JSON: ")
        assert len(answer.body) < 500
    else:
        assert answer.json["errors"][0]["type"] == "missing"


async def test_a_name_or_text_may_say_nan(serve: Server) -> None:
    client = await serve(SAVE)
    answer = await client.post("/api/v1/it", {"petName": "NaN Infinity", "age": 3})
    assert answer.json["petName"] == "NaN Infinity"


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonx",
        "application/json; charset=utf-16",
        "application/json; charset=nonsense",
        "nonsense",
    ],
)
async def test_a_body_of_another_type_is_a_415(serve: Server, kind: str) -> None:
    client = await serve(SAVE)
    answer = await client.send("/api/v1/it", b'{"petName": "Rex"}', kind)
    assert (answer.status, answer.headers["Accept"]) == (415, "application/json")


@pytest.mark.parametrize(
    "kind",
    [
        "application/json; charset=utf-8",
        'application/json; charset="UTF8"',
        "APPLICATION/JSON",
        "application/merge-patch+json",
    ],
)
async def test_json_goes_by_several_names(serve: Server, kind: str) -> None:
    client = await serve(SAVE)
    assert (await client.send("/api/v1/it", b'{"petName": "Rex"}', kind)).status == 200


STAY = """
import datetime as dt

class Stay(BaseModel):
    day: dt.date
    at: dt.datetime
    note: str = ""

@routes.post("/it")
async def it(stay: Stay) -> None:
    pass
"""


@pytest.mark.parametrize("name", ["day", "at"])
async def test_no_text_that_is_a_number_is_a_moment(serve: Server, name: str) -> None:
    client = await serve(STAY)
    stay = {"day": '"2026-01-31"', "at": '"2026-01-31T12:00:00+01:00"'}
    texts = ["0", "86400", "1577836800", "-1577836800", "+86400", "86400.0", "86400.", ".5",
             "-.5", "1e5", "1E+5", "-1e5", " 86400 ", "\\u0038\\u00366400",
             "\\u002d86400"]  # fmt: skip
    besides = ['""', '"-"', '"a \\" \\"\\""', '"\\n"']
    for beside, text in [*[(each, "") for each in besides], *zip(cycle(besides), texts)]:
        given = {**stay, "note": beside}
        if text:
            given[name] = f'"{text}"'
        body = ",".join(f'"{key}":{each}' for key, each in given.items())
        answer = await client.send("/api/v1/it", f"{{{body}}}".encode())
        assert (text, answer.status) == (text, 422 if text else 204)
        if text:
            assert [each["pointer"] for each in answer.json["errors"]] == [f"/{name}"]


async def test_a_body_without_a_type_is_a_415(serve: Server) -> None:
    client = await serve(SAVE)
    answer = await client.request(
        "POST", "/api/v1/it", data=b'{"petName": "Rex"}', skip_auto_headers=["Content-Type"]
    )
    assert answer.status == 415


async def test_a_body_that_is_too_large_is_a_413(serve: Server) -> None:
    client = await serve(SAVE)
    large = io.BytesIO(b'{"petName": "' + b"x" * 1024**2 + b'"}')
    kind = {"Content-Type": "application/json"}
    answer = await client.request("POST", "/api/v1/it", data=large, headers=kind)
    assert (answer.status, answer.kind) == (413, PROBLEM)
    bomb = gzip.compress(b'{"petName": "' + b"x" * 2 * 1024**2 + b'"}')
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    inflated = await client.request("POST", "/api/v1/it", data=bomb, headers=headers)
    assert inflated.status == 413


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_body_that_is_not_in_its_encoding_is_a_400(serve: Server, encoding: str) -> None:
    client = await serve(SAVE)
    headers = {"Content-Encoding": encoding, "Content-Type": "application/json"}
    answer = await client.request("POST", "/api/v1/it", data=b"garbage" * 9, headers=headers)
    assert (answer.status, answer.kind) == (400, PROBLEM)
    assert (await client.post("/api/v1/it", {"petName": "Rex"})).status == 200


async def test_a_compressed_body_is_taken(serve: Server) -> None:
    client = await serve(SAVE)
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    data = gzip.compress(b'{"petName": "Rex"}')
    answer = await client.request("POST", "/api/v1/it", data=data, headers=headers)
    assert answer.json["petName"] == "Rex"


async def test_a_body_that_ends_too_soon_leaves_the_server_well(serve: Server) -> None:
    client = await serve(SAVE)
    reader, writer = await asyncio.open_connection(client.client.host, client.client.port)
    writer.write(
        b"POST /api/v1/it HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b'Content-Length: 50\r\n\r\n{"petName"'
    )
    writer.write_eof()
    await reader.read()
    writer.close()
    await writer.wait_closed()
    assert (await client.post("/api/v1/it", {"petName": "Rex"})).status == 200


SECRET = "s3cret-v4lue"
LEAKS = """
import enum
import uuid
from pydantic import AfterValidator, field_validator, model_validator
from pydantic_core import PydanticCustomError

class Color(enum.Enum):
    RED = "red"

class Cat(BaseModel):
    kind: Literal["cat"]

class Dog(BaseModel):
    kind: Literal["dog"]

def complain(value: str) -> str:
    raise ValueError(f"{value!r} is no good")

def custom(value: str) -> str:
    raise PydanticCustomError("own", "what is {value}?", {"value": value})

def claim(value: str) -> str:
    assert not value, value.upper()
    return value

class Period(BaseModel):
    start: str
    end: str

    @model_validator(mode="after")
    def check(self):
        raise ValueError(f"end {self.end} is before start {self.start}")
"""


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("int", SECRET),
        ("Color", SECRET),
        ('Literal["a"]', SECRET),
        ("uuid.UUID", SECRET),
        ("int | Color", SECRET),
        ('Annotated[Cat | Dog, Field(discriminator="kind")]', {"kind": SECRET}),
        ("Annotated[str, AfterValidator(complain)]", SECRET),
        ("list[Annotated[str, AfterValidator(complain)]]", ["a", SECRET]),
        ("Annotated[str, AfterValidator(custom)]", SECRET),
        ("Annotated[str, AfterValidator(claim)]", SECRET),
        ("Period", {"start": SECRET, "end": "2"}),
        ("list[Period]", [{"start": "1", "end": SECRET}]),
        ("dict[str, Period]", {"a": {"start": "1", "end": SECRET, "rest": [1, None]}}),
    ],
)
@pytest.mark.parametrize("where", ["body", "query"])
async def test_a_refusal_never_tells_the_value(
    serve: Server, where: str, kind: str, body: Any
) -> None:
    if where == "query" and not isinstance(body, str):
        kind, body = "Annotated[str, AfterValidator(complain)]", SECRET
    marker = "Body()" if where == "body" else "Query()"
    client = await serve(
        f"""{LEAKS}
@routes.post("/it")
async def it(value: Annotated[{kind}, {marker}]) -> None:
    pass
"""
    )
    if where == "body":
        answer = await client.post("/api/v1/it", body)
    else:
        answer = await client.request("POST", "/api/v1/it", params={"value": body})
    assert answer.status == 422
    assert SECRET not in answer.body.decode().lower()
    assert all(each["detail"] for each in answer.json["errors"])


async def test_what_a_validator_says_is_told_where_the_value_is_not_in_it(serve: Server) -> None:
    client = await serve(
        """
from pydantic import AfterValidator, model_validator

def even(value: int) -> int:
    if value % 2:
        raise ValueError("it has to be even")
    return value

class Period(BaseModel):
    start: int
    end: int

    @model_validator(mode="after")
    def check(self):
        if self.end < self.start:
            raise ValueError("the end is before the start")
        return self

@routes.post("/it")
async def it(period: Period, number: Annotated[int, AfterValidator(even)] = 0) -> None:
    pass
"""
    )
    answer = await client.post("/api/v1/it?number=7", {"start": 2, "end": 1})
    details = [(each["pointer"], each["detail"]) for each in answer.json["errors"]]
    assert details == [
        ("/number", "Value error, it has to be even"),
        ("", "Value error, the end is before the start"),
    ]


async def test_a_place_that_several_types_refuse_is_named_once(serve: Server) -> None:
    client = await serve(
        """
import datetime as dt

@routes.post("/it")
async def it(value: Annotated[list[int | dt.date], Body()]) -> None:
    pass
"""
    )
    (error,) = (await client.post("/api/v1/it", [1, "x"])).json["errors"]
    assert error["pointer"] == "/1"
    first, _, second = error["detail"].partition("; or: ")
    assert first == "Input should be a valid integer"
    assert second.startswith("Input should be a valid date")


async def test_a_500_costs_the_connection_nothing(serve: Server) -> None:
    client = await serve(handler("int", '"x"'))
    connector = aiohttp.TCPConnector(limit=1)
    async with aiohttp.ClientSession(connector=connector) as session:
        url = client.client.make_url("/api/v1/it")
        for _ in range(3):
            async with session.get(url) as response:
                assert response.status == 500
                assert json.loads(await response.read())["status"] == 500
                assert response.headers.get("Connection") != "close"


GUIDE = Path(__file__).parent.parent / "docs" / "handlers.md"
BLOCKS = re.findall(
    r"^```(python|text|json)\n(.*?)^```", GUIDE.read_text("utf-8"), re.MULTILINE | re.DOTALL
)
TOP = BLOCKS[0][1]
EXAMPLES = [
    (code, BLOCKS[number + 1][1])
    for number, (kind, code) in enumerate(BLOCKS)
    if kind == "python" and number
]
EXCHANGE = re.compile(
    r"(?P<method>[A-Z]+) (?P<path>\S+)(?: \[(?P<headers>[A-Z].*)\])?(?: (?P<body>[{\[].*?))?"
    r" +→ (?P<status>\d+)(?: (?P<answer>.+))?"
)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda each: each[1].split("\n")[0][:40])
async def test_the_guides_examples_answer_as_it_says(
    serve: Server, example: tuple[str, str]
) -> None:
    code, exchanges = example
    client = await serve(TOP + code, tail="" if "\nfeature = " in code else TAIL)
    for line in exchanges.splitlines():
        match = EXCHANGE.fullmatch(line)
        assert match is not None, line
        headers = dict(each.split(": ") for each in (match["headers"] or "").split(", ") if each)
        body = {"json": json.loads(match["body"])} if match["body"] else {}
        answer = await client.request(match["method"], match["path"], headers=headers, **body)
        assert answer.status == int(match["status"]), line
        if match["answer"] is not None and match["answer"] != "…":
            assert answer.json == json.loads(match["answer"]), line


async def test_the_guides_422_is_the_one_that_is_answered(serve: Server) -> None:
    ((_, shown),) = [block for block in BLOCKS if block[0] == "json"]
    (code,) = [code for code, exchanges in EXAMPLES if '{"name": 5}' in exchanges]
    client = await serve(TOP + code)
    answer = await client.post("/api/v1/pets/x", {"name": 5})
    assert answer.json["errors"] == json.loads(shown)


async def test_head_of_a_stream_that_a_handler_writes_has_no_body(feature_client, feature_folder):
    folder = feature_folder(
        "streams",
        """
        from aiohttp import web
        from petsage import Feature, Routes

        routes = Routes()

        @routes.get("/stream")
        async def stream(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(b"x" * 3000)
            await response.write_eof(b"end")
            return response

        feature = Feature(routes)
        """,
    )
    client = await feature_client(folder)
    reader, writer = await asyncio.open_connection(client.host, client.port)
    head = b"HEAD /api/v1/stream HTTP/1.1\r\nHost: x\r\n"

    writer.write(head + b"\r\n" + head + b"Connection: close\r\n\r\n")
    answers = await reader.read()
    writer.close()

    assert answers.count(b"HTTP/1.1 200 OK") == 2
    assert b"xxx" not in answers
    assert b"end" not in answers
