"""Features → an OpenAPI 3.1 document.

Each feature's models are named in a space of its own (`pets.Pet`), so that they keep their
names when another feature comes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Literal

from pydantic import TypeAdapter

from petsage.endpoint import JSON, Endpoint
from petsage.errors import PROBLEM_TYPE, ProblemDocument
from petsage.feature import CompiledRoute
from petsage.signature import Parameter

TITLE: Final = "PetSage API"
DESCRIPTION: Final = "Backend services for the PetSage ecosystem."
VERSION: Final = "1.0.0"
"""The API's version, which is not the package's."""

_REF: Final = "#/components/schemas/"
_PROBLEM: Final = "Problem"

Mode = Literal["validation", "serialization"]
_Key = tuple[str, Mode]


@dataclass(frozen=True)
class DocumentedFeature:
    """A feature's part of the document: its name and its routes."""

    name: str
    routes: tuple[CompiledRoute, ...]


def build_document(features: Iterable[DocumentedFeature]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of every route of `features`."""
    paths: dict[str, dict[str, Any]] = {}
    schemas: dict[str, Any] = {}
    for feature in features:
        part = _FeaturePart(feature)
        schemas.update(part.schemas)
        for compiled in feature.routes:
            path = _documented_path(compiled)
            paths.setdefault(path, {})[compiled.route.method.lower()] = part.operation(compiled)
    problems, definitions = _problem_schema()
    schemas.update(definitions)
    schemas[_PROBLEM] = problems
    return {
        "openapi": "3.1.0",
        "info": {"title": TITLE, "description": DESCRIPTION, "version": VERSION},
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "responses": {_PROBLEM: _problem_response("An error, as RFC 9457 describes it")},
            "headers": {
                "RequestId": {
                    "description": "The id under which the log tells about the request.",
                    "schema": {"type": "string"},
                }
            },
        },
    }


def _documented_path(compiled: CompiledRoute) -> str:
    """The path as OpenAPI writes it, without `:path`."""
    return compiled.path.text.replace(":path}", "}")


def _problem_schema() -> tuple[dict[str, Any], dict[str, Any]]:
    schema = TypeAdapter(ProblemDocument).json_schema(
        mode="serialization", ref_template=f"{_REF}{_PROBLEM}.{{model}}", by_alias=True
    )
    definitions = schema.pop("$defs", {})
    return schema, {f"{_PROBLEM}.{name}": definition for name, definition in definitions.items()}


def _problem_response(description: str) -> dict[str, Any]:
    return {
        "description": description,
        "headers": {"X-Request-ID": {"$ref": "#/components/headers/RequestId"}},
        "content": {PROBLEM_TYPE: {"schema": {"$ref": f"{_REF}{_PROBLEM}"}}},
    }


class _FeaturePart:
    """The schemas of one feature, made in one pass, and its operations."""

    def __init__(self, feature: DocumentedFeature) -> None:
        inputs: list[tuple[str, Mode, TypeAdapter[Any]]] = []
        for compiled in feature.routes:
            key = compiled.operation_id
            endpoint = compiled.endpoint
            inputs += [
                (f"{key}#{parameter.argument}", "validation", parameter.adapter)
                for parameter in endpoint.signature.parameters
            ]
            if endpoint.signature.body is not None:
                inputs.append((f"{key}#", "validation", endpoint.signature.body.adapter))
            if endpoint.answer is not None:
                inputs.append((f"{key}#200", "serialization", endpoint.answer))
            inputs += [
                (f"{key}#={status}", "serialization", adapter)
                for status, adapter in endpoint.answers.items()
            ]
        self._feature = feature
        by_key, definitions = TypeAdapter.json_schemas(
            inputs, ref_template=f"{_REF}{feature.name}.{{model}}", by_alias=True
        )
        self._by_key: Mapping[_Key, Any] = by_key
        self.schemas = {
            f"{feature.name}.{name}": schema
            for name, schema in definitions.get("$defs", {}).items()
        }

    def operation(self, compiled: CompiledRoute) -> dict[str, Any]:
        route, endpoint = compiled.route, compiled.endpoint
        operation: dict[str, Any] = {
            "operationId": compiled.operation_id,
            "summary": route.summary or route.handler.__name__.replace("_", " ").capitalize(),
        }
        if route.description:
            operation["description"] = route.description
        operation["tags"] = list(dict.fromkeys(route.tags)) or [self._feature.name]
        if route.deprecated:
            operation["deprecated"] = True
        parameters = self._parameters(compiled)
        if parameters:
            operation["parameters"] = parameters
        if endpoint.signature.body is not None:
            operation["requestBody"] = self._body(compiled)
        operation["responses"] = self._responses(compiled)
        return operation

    def _parameters(self, compiled: CompiledRoute) -> list[dict[str, Any]]:
        parameters: list[dict[str, Any]] = []
        declared = set()
        for parameter in compiled.endpoint.signature.parameters:
            schema = self._by_key[f"{compiled.operation_id}#{parameter.argument}", "validation"]
            if parameter.list_names is not None:
                parameters += self._model_parameters(schema)
                continue
            declared.add(parameter.name)
            parameters.append(_parameter(parameter, schema))
        # A plain handler takes names from the path by itself: they are strings.
        parameters += [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in compiled.path.names
            if name not in declared
        ]
        return parameters

    def _model_parameters(self, schema: dict[str, Any]) -> list[dict[str, Any]]:
        """Of a model that takes all of the query, each member as a parameter."""
        while "$ref" in schema:
            schema = self.schemas[schema["$ref"].removeprefix(_REF)]
        required = schema.get("required", [])
        return [
            {
                "name": name,
                "in": "query",
                "required": name in required,
                **({"description": member["description"]} if "description" in member else {}),
                "schema": member,
            }
            for name, member in schema.get("properties", {}).items()
        ]

    def _body(self, compiled: CompiledRoute) -> dict[str, Any]:
        body = compiled.endpoint.signature.body
        assert body is not None  # noqa: S101 - the caller looked
        content: dict[str, Any] = {
            "schema": self._by_key[f"{compiled.operation_id}#", "validation"]
        }
        if body.marker.example is not None:
            content["example"] = body.marker.example
        documented: dict[str, Any] = {"content": {JSON: content}, "required": body.required}
        if body.marker.description:
            documented["description"] = body.marker.description
        return documented

    def _responses(self, compiled: CompiledRoute) -> dict[str, Any]:
        endpoint, key = compiled.endpoint, compiled.operation_id
        responses: dict[str, Any] = {}
        if endpoint.answer is not None:
            schema = self._by_key[f"{key}#200", "serialization"]
            responses[str(endpoint.status)] = _json_response(endpoint.status, schema)
        if endpoint.nothing or (endpoint.answer is None and not endpoint.raw):
            responses["204"] = {"description": "Nothing more to say", "headers": _HEADERS}
        if endpoint.raw:
            responses[str(endpoint.status)] = {
                "description": "Whatever the handler writes",
                "headers": _HEADERS,
            }
        for status in endpoint.answers:
            schema = self._by_key[f"{key}#={status}", "serialization"]
            responses[str(status)] = _json_response(status, schema)
        for status in sorted(endpoint.problems):
            responses[str(status)] = _problem_response(_phrase(status))
        for status, description in _refusals(endpoint).items():
            responses.setdefault(str(status), _problem_response(description))
        responses.setdefault("default", {"$ref": f"#/components/responses/{_PROBLEM}"})
        return responses


_HEADERS: Final = {"X-Request-ID": {"$ref": "#/components/headers/RequestId"}}


def _json_response(status: int, schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "description": _phrase(status),
        "headers": _HEADERS,
        "content": {JSON: {"schema": schema}},
    }


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase if status in set(HTTPStatus) else f"Status {status}"


def _refusals(endpoint: Endpoint) -> dict[int, str]:
    """The problems that the core answers before, or instead of, the handler."""
    refusals = {}
    if endpoint.signature.body is not None:
        refusals[400] = "The body is not JSON, or cannot be read"
        refusals[413] = "The body is too large"
        refusals[415] = "The body is of another type than JSON"
    if endpoint.may_refuse:
        refusals[422] = "A value is wrong; `errors` names each"
    refusals[500] = "The server failed"
    return refusals


def _parameter(parameter: Parameter, schema: dict[str, Any]) -> dict[str, Any]:
    marker = parameter.marker
    documented: dict[str, Any] = {
        "name": parameter.name,
        "in": parameter.where,
        "required": parameter.required,
        "schema": schema,
    }
    if not parameter.required and parameter.default is not None and "$ref" not in schema:
        default = TypeAdapter(Any).dump_python(parameter.default, mode="json")
        documented["schema"] = {**schema, "default": default}
    if marker.description:
        documented["description"] = marker.description
    if marker.example is not None:
        documented["example"] = marker.example
    if marker.deprecated:
        documented["deprecated"] = True
    return documented
