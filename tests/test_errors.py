"""Errors of handlers, on a real server: every one is a problem document, and the log has it all.

Over 300 lines because each way a handler can fail is written out as one.
"""

import asyncio
import io
import json
import sys
from http import HTTPStatus
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from petsage.app import create_app
from petsage.connection import Runner
from petsage.errors import Problem, SettingsError, did_you_mean, nearest
from tests.conftest import errors_of

FEATURE = '''
    """Fails in every way."""
    import asyncio

    from aiohttp import web

    from petsage import Feature, Problem, Routes

    routes = Routes(prefix="/fails")
    started = asyncio.Event()
    let_go = asyncio.Event()


    class Odd(BaseException):
        """No Exception."""


    KINDS = {
        "exception": RuntimeError("the inside"),
        "timeout": TimeoutError("the inside"),
        "connection": ConnectionResetError("the inside"),
        "exit": SystemExit("the inside"),
        "interrupt": KeyboardInterrupt("the inside"),
        "cancelled": asyncio.CancelledError("the inside"),
        "odd": Odd("the inside"),
        "group": BaseExceptionGroup("the inside", [KeyboardInterrupt()]),
        "stop": StopAsyncIteration("the inside"),
    }


    @routes.get("/raise/{kind}")
    async def raise_(kind: str) -> dict[str, str]:
        """Raises."""
        raise KINDS[kind]


    @routes.get("/typed/{kind}")
    async def typed(kind: str, request: web.Request) -> web.StreamResponse:
        """Raises too."""
        raise KINDS[kind]


    @routes.get("/problem")
    async def problem() -> dict[str, str]:
        """A problem of its own."""
        raise Problem(
            409,
            "No",
            title="Out of stock",
            type="https://example.com/stock",
            headers={"Retry-After": "5", "content-type": "text/plain"},
            left=0,
        )


    @routes.get("/http/{status}")
    async def http(status: int, how: str = "raise", text: str | None = None) -> web.StreamResponse:
        """Every exception of aiohttp."""
        kind = next(each for each in leaves(web.HTTPException) if each.status_code == status)
        arguments = {}
        if issubclass(kind, web.HTTPMove):
            arguments["location"] = "/there"
        elif status == 405:
            arguments |= {"method": "GET", "allowed_methods": ["POST"]}
        elif status == 413:
            arguments |= {"max_size": 1, "actual_size": 2}
        elif status == 451:
            arguments["link"] = "https://example.com/law"
        error = kind(**arguments, text=text) if text else kind(**arguments)
        error.headers.add("X-Kept", "one")
        error.headers.add("X-Kept", "two")
        error.set_cookie("kept", "yes")
        if how == "return":
            return error
        raise error


    def leaves(kind):
        for each in kind.__subclasses__():
            yield each
            yield from leaves(each)


    @routes.get("/begun/{how}")
    async def begun(request: web.Request, how: str) -> web.StreamResponse:
        """Fails when the answer has begun."""
        response = web.StreamResponse()
        if how == "length":
            response.content_length = 100
        else:
            response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(b"begun")
        if how == "problem":
            raise Problem(404, "the inside")
        if how == "redirect":
            raise web.HTTPFound("/there")
        if how == "another":
            return web.Response(text="another")
        if how == "fine":
            return response
        raise RuntimeError("the inside")


    @routes.get("/unsent/{how}")
    async def unsent(request: web.Request, how: str) -> web.StreamResponse:
        """Fails when the answer is made and nothing of it is out, or cannot be sent."""

        async def raising():
            yield b"begun"
            raise SystemExit("the inside")

        if how == "header":
            return web.Response(text="x", headers={"X-Bad": "a\\r\\nthe: inside"})
        if how == "chunked":
            response = web.Response(text="x", headers={"X-Bad": "a\\nb"})
            response.enable_chunked_encoding()
            return response
        if how == "body":
            return web.Response(body=raising())
        response = web.Response(text="x")
        await response.prepare(request)
        raise RuntimeError("the inside")


    @routes.get("/socket")
    async def socket(request: web.Request) -> web.StreamResponse:
        """A WebSocket."""
        answer = web.WebSocketResponse()
        await answer.prepare(request)
        await answer.send_str("hello")
        if request.query:
            raise RuntimeError("the inside")
        await answer.close()
        return answer


    @routes.post("/read")
    async def read(request: web.Request) -> web.StreamResponse:
        """Reads the body."""
        started.set()
        return web.json_response(len(await request.read()))


    @routes.post("/json")
    async def read_json(body: dict[str, int]) -> dict[str, int]:
        """Reads JSON."""
        return body


    @routes.get("/slow")
    async def slow(request: web.Request) -> web.StreamResponse:
        """Streams until its client goes."""
        response = web.StreamResponse()
        await response.prepare(request)
        started.set()
        while True:
            await response.write(b"x" * 65536)
            await asyncio.sleep(0)


    feature = Feature(routes, mount="")
'''

MIDDLEWARES = '''
    """Its middlewares are wrong."""
    from aiohttp import web

    from petsage import Feature, Routes

    routes = Routes()


    @routes.get("/wrapped")
    async def wrapped() -> dict[str, str]:
        """Wrapped."""
        return {}


    @web.middleware
    async def lost(request, handler):
        answer = await handler(request)
        if request.query_string == "raise":
            raise web.HTTPForbidden()
        return {"": None, "text": "text", "return": web.HTTPForbidden(), "fine": answer}[
            request.query_string
        ]


    feature = Feature(routes, mount="", middlewares=(lost,))
'''


@pytest.fixture
async def client(feature_client, feature_folder):
    return await feature_client(feature_folder("fails", FEATURE))


async def expect_problem(response, status: int) -> dict[str, Any]:
    text = await response.text()
    assert response.status == status, text
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["Server"] == "PetSage"
    body: dict[str, Any] = json.loads(text)
    assert body["status"] == status
    assert body["request_id"] == response.headers["X-Request-ID"]
    assert response.headers["traceparent"].startswith("00-")
    assert "the inside" not in text
    assert "Traceback" not in text
    return body


def of_request(
    lines: list[dict[str, Any]], request_id: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A request's access lines and its errors."""
    mine = [line for line in lines if line["request_id"] == request_id]
    return (
        [line for line in mine if line["logger"] == "petsage.access"],
        errors_of(mine),
    )


# What a handler raises


@pytest.mark.parametrize("way", ["raise", "typed"])
@pytest.mark.parametrize(
    "kind",
    ["exception", "timeout", "connection", "exit", "interrupt", "cancelled", "odd", "group",
     "stop"],
)  # fmt: skip
async def test_whatever_a_handler_raises_is_500_and_the_log_has_it(client, log_lines, way, kind):
    response = await client.get(f"/fails/{way}/{kind}")

    body = await expect_problem(response, 500)
    access, errors = of_request(log_lines(), body["request_id"])
    assert [line["status"] for line in access] == [500]
    assert len(errors) == 1
    assert errors[0]["message"] == f"Unhandled exception in GET /fails/{way}/{{kind}}"
    assert errors[0]["feature"] == "fails"
    assert any("the inside" in line for line in errors[0]["exc_info"])
    assert (await client.get("/")).status == 200, "the server goes on"


async def test_a_problem_is_answered_as_it_was_raised(client, log_lines):
    response = await client.get("/fails/problem")

    body = await expect_problem(response, 409)
    del body["request_id"]
    assert body == {
        "type": "https://example.com/stock",
        "title": "Out of stock",
        "status": 409,
        "detail": "No",
        "left": 0,
    }
    assert response.headers["Retry-After"] == "5"
    assert response.headers.getall("Content-Type") == ["application/problem+json"]
    assert not errors_of(log_lines())


def raisable() -> list[int]:
    def leaves(kind):
        for each in kind.__subclasses__():
            yield each
            yield from leaves(each)

    return sorted({each.status_code for each in leaves(web.HTTPException) if each.status_code > 0})


@pytest.mark.parametrize("how", ["raise", "return"])
@pytest.mark.parametrize("status", [status for status in raisable() if status >= 400])
async def test_an_error_of_aiohttp_is_a_problem_with_its_headers(client, how, status):
    response = await client.get(f"/fails/http/{status}?how={how}")

    body = await expect_problem(response, status)
    assert body["title"] == HTTPStatus(status).phrase
    assert response.headers.getall("X-Kept") == ["one", "two"]
    assert response.cookies["kept"].value == "yes"
    assert response.headers.get("Allow") == ("POST" if status == 405 else None)


@pytest.mark.parametrize("how", ["raise", "return"])
@pytest.mark.parametrize("status", [status for status in raisable() if status < 400])
async def test_a_redirect_or_success_of_aiohttp_is_kept(client, how, status):
    response = await client.get(f"/fails/http/{status}?how={how}", allow_redirects=False)

    assert response.status == status
    assert response.headers.getall("X-Kept") == ["one", "two"]
    assert response.cookies["kept"].value == "yes"
    if status in {301, 302, 303, 307, 308}:
        assert response.headers["Location"] == "/there"
    assert len(response.headers["X-Request-ID"]) == 32
    assert response.headers["Server"] == "PetSage"
    assert "problem" not in response.headers.get("Content-Type", "")


async def test_what_an_error_of_aiohttp_says_is_the_detail(client):
    body = await expect_problem(await client.get("/fails/http/404?text=No+pet"), 404)

    assert body["detail"] == "No pet"


@pytest.mark.parametrize("query", ["", "text"])
async def test_a_middleware_that_returns_no_response_is_500(
    feature_client, feature_folder, log_lines, query
):
    client = await feature_client(feature_folder("wrapping", MIDDLEWARES))

    body = await expect_problem(await client.get(f"/wrapped?{query}"), 500)

    _, errors = of_request(log_lines(), body["request_id"])
    assert errors[0]["exc_info"][-1].startswith("TypeError: a middleware returned ")


@pytest.mark.parametrize(("query", "status"), [("raise", 403), ("return", 403)])
async def test_an_error_that_a_middleware_answers_with_is_a_problem(
    feature_client, feature_folder, query, status
):
    client = await feature_client(feature_folder("wrapping", MIDDLEWARES))

    await expect_problem(await client.get(f"/wrapped?{query}"), status)
    assert (await client.get("/wrapped?fine")).status == 200


# When the answer has begun, or cannot be sent


@pytest.mark.parametrize("how", ["chunked", "length", "problem", "redirect", "another"])
async def test_an_answer_that_has_begun_is_broken_off(client, log_lines, how):
    response = await client.get(f"/fails/begun/{how}")
    with pytest.raises(aiohttp.ClientPayloadError):
        await response.read()

    access, errors = of_request(log_lines(), response.headers["X-Request-ID"])
    assert [line["status"] for line in access] == [200]
    assert [line["message"] for line in errors] == ["Unhandled exception in GET /fails/begun/{how}"]


async def test_a_stream_carries_the_ids_of_its_request(client):
    response = await client.get("/fails/begun/fine", headers={"X-Request-ID": "mine"})

    assert await response.text() == "begun"
    assert response.headers["X-Request-ID"] == "mine"
    assert response.headers["Server"] == "PetSage"
    assert response.headers["traceparent"].startswith("00-")


@pytest.mark.parametrize("how", ["header", "prepared"])
async def test_an_answer_of_which_nothing_is_out_is_replaced(client, log_lines, how):
    body = await expect_problem(await client.get(f"/fails/unsent/{how}"), 500)

    access, errors = of_request(log_lines(), body["request_id"])
    assert [line["status"] for line in access] == [500]
    assert len(errors) == 1


async def test_a_body_that_raises_is_broken_off(client, log_lines):
    response = await client.get("/fails/unsent/body")
    with pytest.raises(aiohttp.ClientPayloadError):
        await response.read()

    access, errors = of_request(log_lines(), response.headers["X-Request-ID"])
    assert (len(access), len(errors)) == (1, 1)
    assert access[0]["cut"] is True
    assert errors[0]["exc_info"][-1] == "SystemExit: the inside"


async def test_an_answer_that_is_set_up_for_chunks_and_cannot_be_sent_is_replaced(
    client, log_lines
):
    answer = await client.get("/fails/unsent/chunked", headers={"X-Request-ID": "chunked"})
    await expect_problem(answer, 500)

    access, errors = of_request(log_lines(), "chunked")
    assert (len(access), len(errors)) == (1, 1)
    assert "cut" not in access[0]


async def test_a_websocket_carries_the_ids_of_its_request(client):
    async with client.ws_connect("/fails/socket", headers={"X-Request-ID": "mine"}) as socket:
        assert await socket.receive_str() == "hello"
        headers = socket._response.headers

    assert headers["X-Request-ID"] == "mine"
    assert headers["Server"] == "PetSage"
    assert headers["traceparent"].startswith("00-")


async def test_a_websocket_whose_handler_fails_is_closed_and_logged(client, log_lines):
    async with client.ws_connect("/fails/socket?fail", headers={"X-Request-ID": "ws"}) as socket:
        assert await socket.receive_str() == "hello"
        assert (await socket.receive()).type in {
            aiohttp.WSMsgType.CLOSED,
            aiohttp.WSMsgType.CLOSE,
            aiohttp.WSMsgType.ERROR,
        }

    access, errors = of_request(log_lines(), "ws")
    assert ([line["status"] for line in access], len(errors)) == ([101], 1)


# What the server itself refuses


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("DELETE", "/fails/problem", 405), ("GET", "/%ff", 400)],
)
async def test_what_no_handler_answers_is_a_problem_with_one_access_line(
    client, log_lines, method, path, status
):
    body = await expect_problem(await client.request(method, URL(path, encoded=True)), status)

    access, errors = of_request(log_lines(), body["request_id"])
    assert [line["status"] for line in access] == [status]
    assert not errors


@pytest.mark.parametrize("path", ["/fails/read", "/fails/json"])
async def test_a_body_that_is_too_large_is_413(client, path):
    data = b'{"a": ' + b"1" * (1024**2 + 1) + b"}"

    response = await client.post(
        path, data=io.BytesIO(data), headers={"Content-Type": "application/json"}
    )

    await expect_problem(response, 413)


@pytest.mark.parametrize("path", ["/fails/read", "/fails/json"])
async def test_a_body_in_another_encoding_than_it_says_is_400(client, log_lines, path):
    response = await client.post(
        path,
        data=b"no gzip",
        headers={"Content-Encoding": "gzip", "Content-Type": "application/json"},
    )

    body = await expect_problem(response, 400)
    assert "no gzip" not in body["detail"]
    assert not errors_of(log_lines())


@pytest.mark.parametrize(
    "line",
    [
        "int(await request.text())",
        "float(await request.text())",
        "(await request.text()) and request['nothing']",
        "[][0] if await request.json() else 1",
    ],
)
async def test_what_a_handler_makes_of_a_body_is_its_own_fault(
    feature_client, feature_folder, log_lines, line
):
    source = f"""
from petsage import Feature, Request, Routes
routes = Routes()
@routes.post("/it")
async def it(request: Request) -> int:
    return {line}
feature = Feature(routes)
"""
    client = await feature_client(feature_folder("own", source))

    await expect_problem(await client.post("/api/v1/it", data=b'"no number"'), 500)
    assert len(errors_of(log_lines())) == 1
    await expect_problem(await client.post("/api/v1/it", data=b"\xff"), 400)


# Request ids and traces


async def test_a_well_formed_request_id_is_echoed_and_logged(client, log_lines):
    response = await client.get("/", headers={"X-Request-ID": "abc-1"})

    assert response.headers["X-Request-ID"] == "abc-1"
    assert [line["path"] for line in of_request(log_lines(), "abc-1")[0]] == ["/"]


@pytest.mark.parametrize("sent", ["x" * 129, "a b", "é", "a;b", "<script>"])
async def test_a_malformed_request_id_is_replaced_everywhere(client, log_lines, sent):
    response = await client.get("/", headers={"X-Request-ID": sent})

    made = response.headers["X-Request-ID"]
    assert len(made) == 32
    assert not of_request(log_lines(), sent)[0]
    assert len(of_request(log_lines(), made)[0]) == 1


async def test_a_trace_goes_on_through_answer_and_log(client, log_lines):
    trace = "0af7651916cd43dd8448eb211c80319c"

    response = await client.get("/", headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"})

    version, trace_id, span_id, flags = response.headers["traceparent"].split("-")
    assert (version, trace_id, flags) == ("00", trace, "01")
    [line] = of_request(log_lines(), response.headers["X-Request-ID"])[0]
    assert (line["trace_id"], line["span_id"]) == (trace, span_id)


async def test_two_traceparents_are_none(client):
    trace = "0af7651916cd43dd8448eb211c80319c"
    header = ("traceparent", f"00-{trace}-b7ad6b7169203331-01")

    response = await client.get("/", headers=[header, header])

    assert trace not in response.headers["traceparent"]


# A client that goes away


async def settled(log_lines, request_id: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A request's lines once its access line is there."""
    async with asyncio.timeout(10):
        while True:
            access, errors = of_request(await asyncio.to_thread(log_lines), request_id)
            if access:
                return access, errors
            await asyncio.sleep(0)


@pytest.fixture
async def kept(feature_folder, petsage_settings, log_pipeline):
    """The port of a server that does not cancel handlers: what `petsage serve` is."""
    folder = feature_folder("fails", FEATURE)
    catalog = petsage_settings.catalog.model_copy(update={"folders": [folder.parent]})
    app = create_app(petsage_settings.model_copy(update={"catalog": catalog}))
    runner = Runner(app, petsage_settings.server)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


@pytest.mark.parametrize(("line", "status"), [("POST /fails/read", 400), ("GET /fails/slow", 200)])
async def test_a_client_that_goes_away_leaves_one_access_line_and_no_traceback(
    kept, log_lines, line, status
):
    _, writer = await asyncio.open_connection("127.0.0.1", kept)
    rest = "\r\n" if line.startswith("GET") else "Content-Length: 100\r\n\r\nabc"
    writer.write(f"{line} HTTP/1.1\r\nHost: x\r\nX-Request-ID: gone\r\n{rest}".encode())
    async with asyncio.timeout(10):
        await sys.modules["features.fails"].started.wait()
    writer.transport.abort()

    access, errors = await settled(log_lines, "gone")
    assert [line["status"] for line in access] == [status]
    assert not errors
    assert not errors_of(log_lines())


# The errors themselves


@pytest.mark.parametrize("status", [200, 399, 600, 0, -1])
def test_a_problem_is_an_error(status):
    with pytest.raises(ValueError, match="400 to 599"):
        Problem(status, "x")


def test_the_request_id_of_a_problem_is_the_servers():
    with pytest.raises(ValueError, match="request_id"):
        Problem(400, "x", request_id="mine")


def test_a_status_without_a_phrase_has_a_title_all_the_same():
    assert Problem(499, "x").title == "Error"


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no text")


def nested() -> list[Any]:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    return deep


@pytest.mark.parametrize(
    ("value", "answered"),
    [
        (2**70, 2**70),
        ("\ud800", "\ud800"),
        (float("nan"), None),
        ({1: "a"}, {"1": "a"}),
        (b"bytes", "b'bytes'"),
        (object, "<class 'object'>"),
    ],
)
def test_an_extension_that_is_hardly_json_is_answered(value, answered):
    assert json.loads(Problem(400, "x", value=value).document("id"))["value"] == answered


@pytest.mark.parametrize(
    "value", [Unprintable(), nested(), [float("nan"), 2**70]], ids=["unprintable", "deep", "nan"]
)
def test_an_extension_that_is_no_json_at_all_is_left_out(value, caplog):
    document = json.loads(Problem(400, "the first", value=value).document("id"))

    assert document["detail"] == "the first"
    assert "value" not in document
    assert "The extensions of a problem are no JSON: value" in caplog.text


def test_an_error_says_its_fix():
    assert str(SettingsError("a is wrong", fix="mend it")) == "a is wrong; fix: mend it"


def test_the_nearest_right_name_is_offered_and_else_all_of_them():
    assert nearest("prot", ["host", "port"]) == "port"
    assert did_you_mean("prot", ["host", "port"]) == "did you mean `port`?"
    assert did_you_mean("zzz", ["host", "port"]) == "choose one of `host`, `port`"
    assert did_you_mean("zzz", []) == "there is none to choose from; leave it out"
