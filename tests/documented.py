"""A client for tests that holds each answer against the API's own document."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator
from multidict import CIMultiDictProxy

from petsage.testing import Client, FeatureClient, FeatureFolder

PROBLEM = "application/problem+json"
HEAD = """
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal, NewType
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field
from petsage import (
    SETTINGS, AppKey, Body, Check, Cookie, Feature, FromApp, Header, Media, Problem, Query, Reply,
    Request, Routes, StreamResponse,
)
routes = Routes()
"""
TAIL = "\nfeature = Feature(routes)\n"


@dataclass(frozen=True)
class Answer:
    """An answer, read whole."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def kind(self) -> str:
        return self.headers.get("Content-Type", "").partition(";")[0]


class DocumentedClient:
    """Sends requests, and fails where an answer is not as `/openapi.json` says."""

    def __init__(self, client: Client, document: dict[str, Any]) -> None:
        self.client = client
        self.document = document

    async def request(self, method: str, path: str, **options: Any) -> Answer:
        async with self.client.request(method, path, allow_redirects=False, **options) as response:
            answer = Answer(response.status, response.headers, await response.read())
        check_answer(self.document, method, path, answer)
        return answer

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.request("GET", path, **options)

    async def post(self, path: str, body: Any = None, **options: Any) -> Answer:
        return await self.request("POST", path, json=body, **options)

    async def send(
        self, path: str, data: bytes, kind: str = "application/json", method: str = "POST"
    ) -> Answer:
        """Sends a body as it is."""
        return await self.request(method, path, data=data, headers={"Content-Type": kind})


class Server:
    """Writes a feature and serves it; the usual imports stand at its top."""

    def __init__(self, client: FeatureClient, folder: FeatureFolder) -> None:
        self._client = client
        self._folder = folder

    async def __call__(
        self, source: str, *, name: str = "probe", tail: str = TAIL, **options: Any
    ) -> DocumentedClient:
        client = await self._client(self._folder(name, f"{HEAD}{source}{tail}"), **options)
        async with client.get("/openapi.json") as response:
            return DocumentedClient(client, await response.json())


def check_answer(document: dict[str, Any], method: str, path: str, answer: Answer) -> None:
    """Fails where an answer is not one that the document tells of."""
    assert answer.headers["X-Request-ID"]
    if answer.kind == PROBLEM and answer.body:
        problem = answer.json
        assert problem["status"] == answer.status
        assert problem["request_id"] == answer.headers["X-Request-ID"]
    operations = find_operations(document, path.partition("?")[0])
    operation = operations.get("get" if method == "HEAD" else method.lower())
    if operation is None:
        assert answer.kind == PROBLEM or method in {"HEAD", "OPTIONS"}, (method, path)
        assert answer.status == (405 if operations else 404) or method == "OPTIONS"
        return
    responses = operation["responses"]
    response = responses.get(str(answer.status), responses["default"])
    if "$ref" in response:
        response = document["components"]["responses"][response["$ref"].rpartition("/")[2]]
    content = response.get("content", {})
    if method == "HEAD" or 300 <= answer.status < 400:
        return  # what is sent along with a redirect is for people
    where = f"{method} {path} answered {answer.status} {answer.kind}: {answer.body[:500]!r}"
    if not answer.body:
        assert not content or "*/*" in content or answer.status not in {200, 201}, where
        return
    media = content.get(answer.kind, content.get("*/*"))
    assert media is not None, f"{where}, and the document says {sorted(content)}"
    if "schema" in media:
        is_json = answer.kind.endswith(("/json", "+json"))
        validate(document, media["schema"], answer.json if is_json else answer.body.decode())


def validate(document: Mapping[str, Any], schema: Mapping[str, Any], value: Any) -> None:
    """Fails where a value is not what a schema of the document says."""
    whole = {**schema, "components": document["components"]}
    checker = Draft202012Validator.FORMAT_CHECKER
    Draft202012Validator(whole, format_checker=checker).validate(value)


def find_operations(document: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The operations of a path, by method; those of a literal path before those with names."""
    templates = sorted(document["paths"], key=lambda text: (text.count("{"), len(text)))
    for last in ("[^/]+", ".+"):  # the document cannot say that a name takes all that is left
        operations: dict[str, Any] = {}
        for template in templates:
            *parts, end = re.split(r"\{[^}]*\}", template)
            pattern = "[^/]+".join(map(re.escape, parts)) + (last if parts else "") + re.escape(end)
            if re.fullmatch(pattern, path):
                operations = {**document["paths"][template], **operations}
        if operations:
            return operations
    return {}
