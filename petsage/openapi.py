"""Features → an OpenAPI 3.1 document.

Each feature's models are named in a space of its own (`pets.Pet`), so that they keep their
names when another feature comes.

Longer than 300 lines: it follows the document from its top to its leaves, one part a function.
"""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final, NamedTuple

from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python

from petsage.arguments import JSON
from petsage.endpoint import Endpoint
from petsage.errors import PROBLEM_TYPE, ProblemDocument
from petsage.feature import CompiledRoute
from petsage.path_template import PathTemplate
from petsage.shapes import Mode, SchemaGenerator
from petsage.signature import Parameter

TITLE: Final = "PetSage API"
DESCRIPTION: Final = "Backend services for the PetSage ecosystem."
VERSION: Final = "1.0.0"
"""The API's version, which is not the package's."""

GUARDED: Final = frozenset({"system.management", "system.metrics"})
"""The core's features that are meant for operators: `Authorization: Bearer <management.token>`."""

_BEARER: Final = "bearerAuth"
_REF: Final = "#/components/schemas/"
_PROBLEM: Final = "Problem"
_PROBLEM_CONTENT: Final = {PROBLEM_TYPE: {"schema": {"$ref": f"{_REF}{_PROBLEM}"}}}
_HEADERS: Final = {"X-Request-ID": {"$ref": "#/components/headers/RequestId"}}
_PATCH_HEADERS: Final = {
    "Accept-Patch": {
        "description": "The content types that a patch may have.",
        "schema": {"type": "string"},
    }
}
_RETRY_HEADERS: Final = {
    "Retry-After": {
        "description": "The seconds after which another try makes sense.",
        "schema": {"type": "integer"},
    }
}

# What every document's operations refer to, but the schemas.
_COMPONENTS: Final = {
    "responses": {
        _PROBLEM: {
            "description": "An error, as RFC 9457 describes it",
            "headers": _HEADERS,
            "content": _PROBLEM_CONTENT,
        }
    },
    "securitySchemes": {
        _BEARER: {
            "type": "http",
            "scheme": "bearer",
            "description": "`[management].token`; without it these answer 404.",
        }
    },
    "headers": {
        "RequestId": {
            "description": "The id under which the log tells about the request.",
            "schema": {"type": "string"},
        }
    },
}

_Key = tuple[str, Mode]


class DocumentedFeature(NamedTuple):
    """A feature's part of the document: its name and its routes."""

    name: str
    routes: tuple[CompiledRoute, ...]


def build_document(features: Iterable[DocumentedFeature]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of every route of `features`."""
    paths: dict[str, dict[str, Any]] = {}
    schemas: dict[str, Any] = {}
    templates = _Templates()
    for feature in features:
        part = _FeaturePart(feature)
        schemas.update(part.schemas)
        for compiled in feature.routes:
            path, names = templates.write(compiled.path)
            operation = part.operation(compiled, names)
            paths.setdefault(path, {})[compiled.route.method.lower()] = operation
    problems, definitions = _problem_schema()
    schemas.update(definitions)
    schemas[_PROBLEM] = problems
    document = {
        "openapi": "3.1.0",
        "info": {"title": TITLE, "description": DESCRIPTION, "version": VERSION},
        "paths": dict(sorted(paths.items())),
        "components": {"schemas": dict(sorted(schemas.items())), **_COMPONENTS},
    }
    # An example may be any object; one that is not JSON must not cost everybody the document.
    plain: dict[str, Any] = to_jsonable_python(document, serialize_unknown=True)
    return plain


class _Templates:
    """Paths as OpenAPI writes them: one for each shape, whatever each route calls its names.

    Two templates that differ in names alone are not allowed (OpenAPI 3.1, section 4.8.8.1). It
    has no word for `{name:path}`, which is written `{name}`, or `{name_}` where that is taken.
    """

    def __init__(self) -> None:
        self._written: dict[tuple[tuple[str | None, ...], bool], tuple[str, list[str]]] = {}
        self._taken: set[str] = set()

    def write(self, path: PathTemplate) -> tuple[str, dict[str, str]]:
        """The path's text, and what its names are called in it."""
        shape = (path.segments, path.tail)
        if shape not in self._written:
            names = list(path.names)
            text = _filled(path, names)
            while text in self._taken:
                names[-1] += "_"
                text = _filled(path, names)
            self._taken.add(text)
            self._written[shape] = text, names
        text, names = self._written[shape]
        return text, dict(zip(path.names, names, strict=True))


def _filled(path: PathTemplate, names: list[str]) -> str:
    left = iter(names)
    segments = (f"{{{next(left)}}}" if each is None else each for each in path.segments)
    return "/" + "/".join(segments)


def _problem_schema() -> tuple[dict[str, Any], dict[str, Any]]:
    schema = TypeAdapter(ProblemDocument).json_schema(
        mode="serialization", ref_template=f"{_REF}{_PROBLEM}.{{model}}", by_alias=True
    )
    definitions = schema.pop("$defs", {})
    return schema, {f"{_PROBLEM}.{name}": definition for name, definition in definitions.items()}


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
                inputs.append((f"{key}#200", "serialization", endpoint.answer.adapter))
            inputs += [
                (f"{key}#={status}", "serialization", answer.adapter)
                for status, answer in endpoint.answers.items()
            ]
            inputs += [
                (f"{key}#={status} {content_type}", "serialization", answer.adapter)
                for status, answers in endpoint.media.items()
                for content_type, answer in answers.items()
            ]
        self._feature = feature
        by_key, definitions = TypeAdapter.json_schemas(
            inputs,
            ref_template=f"{_REF}{feature.name}.{{model}}",
            by_alias=True,
            schema_generator=SchemaGenerator,
        )
        self._by_key: Mapping[_Key, Any] = by_key
        self.schemas = {
            f"{feature.name}.{name}": schema
            for name, schema in definitions.get("$defs", {}).items()
        }

    def operation(self, compiled: CompiledRoute, path_names: Mapping[str, str]) -> dict[str, Any]:
        """What the document says of one route; `path_names` are its path's, as written there."""
        route, endpoint = compiled.route, compiled.endpoint
        operation: dict[str, Any] = {
            "operationId": compiled.operation_id,
            "summary": route.summary or endpoint.name.replace("_", " ").capitalize(),
        }
        if route.description:
            operation["description"] = route.description
        operation["tags"] = list(dict.fromkeys(route.tags)) or [self._feature.name]
        if route.deprecated:
            operation["deprecated"] = True
        if self._feature.name in GUARDED:
            # Reads may need none: `[management].open_reads`.
            needs_none: list[dict[str, Any]] = [{}] if route.method == "GET" else []
            operation["security"] = [{_BEARER: []}, *needs_none]
        parameters = self._parameters(compiled, path_names)
        if parameters:
            operation["parameters"] = parameters
        if endpoint.signature.body is not None:
            operation["requestBody"] = self._body(compiled)
        operation["responses"] = self._responses(compiled)
        return operation

    def _parameters(
        self, compiled: CompiledRoute, path_names: Mapping[str, str]
    ) -> list[dict[str, Any]]:
        parameters: list[dict[str, Any]] = []
        declared = set()
        for parameter in compiled.endpoint.signature.parameters:
            schema = self._by_key[f"{compiled.operation_id}#{parameter.argument}", "validation"]
            if parameter.list_names is not None:
                parameters += self._members(parameter, schema)
                continue
            documented = _parameter(parameter, schema)
            if parameter.where == "path":
                declared.add(parameter.name)
                documented["name"] = path_names[parameter.name]
            parameters.append(documented)
        # Who takes the request takes names from the path by itself: they are strings.
        parameters += [
            {"name": written, "in": "path", "required": True, "schema": {"type": "string"}}
            for name, written in path_names.items()
            if name not in declared
        ]
        return parameters

    def _members(self, parameter: Parameter, schema: dict[str, Any]) -> list[dict[str, Any]]:
        """What takes all of the query, each member as a parameter."""
        while "properties" not in schema and ("$ref" in schema or "anyOf" in schema):
            if "$ref" in schema:
                schema = self.schemas[schema["$ref"].removeprefix(_REF)]
            else:
                schema = next(each for each in schema["anyOf"] if each.get("type") != "null")
        required = schema.get("required", []) if parameter.required else []
        members = schema.get("properties", {})
        if not members:
            # A mapping of any names: `form` and `explode` are what write them side by side.
            whole = {"name": parameter.argument, "in": "query", "schema": schema}
            return [whole | {"style": "form", "explode": True}]
        return [
            {
                "name": name,
                "in": "query",
                "required": name in required,
                **{key: member[key] for key in ("description", "deprecated") if key in member},
                "schema": _of_text(member),
            }
            for name, member in members.items()
        ]

    def _body(self, compiled: CompiledRoute) -> dict[str, Any]:
        body = compiled.endpoint.signature.body
        assert body is not None  # noqa: S101 - the caller looked
        content: dict[str, Any] = {
            "schema": self._by_key[f"{compiled.operation_id}#", "validation"]
        }
        if body.marker.example is not None:
            content["example"] = body.marker.example
        kinds = body.marker.media_types or (JSON,)
        documented: dict[str, Any] = {
            "content": dict.fromkeys(kinds, content),
            "required": body.required,
        }
        if body.marker.description:
            documented["description"] = body.marker.description
        return documented

    def _responses(self, compiled: CompiledRoute) -> dict[str, Any]:
        endpoint, key = compiled.endpoint, compiled.operation_id
        responses: dict[str, Any] = {}
        answer: dict[str, Any] = {}
        if endpoint.answer is not None:
            answer[JSON] = {"schema": self._by_key[f"{key}#200", "serialization"]}
        if endpoint.raw:
            answer["*/*"] = {}
        if answer:
            _add(responses, endpoint.status, _phrase(endpoint.status), answer)
        if endpoint.empty_status is not None:
            _add(responses, endpoint.empty_status, "Nothing more to say")
        for status in endpoint.answers:
            # What stands in `answers` is what is answered, also for the ordinary status.
            responses.pop(str(status), None)
            schema = self._by_key[f"{key}#={status}", "serialization"]
            _add(responses, status, _phrase(status), {JSON: {"schema": schema}})
        for status, answers in endpoint.media.items():
            responses.pop(str(status), None)
            content = {
                each: {"schema": self._by_key[f"{key}#={status} {each}", "serialization"]}
                for each in answers
            }
            _add(responses, status, _phrase(status), content)
        for status in sorted(endpoint.bare):
            _add(responses, status, _phrase(status))
        for status in sorted(endpoint.problems):
            _add(responses, status, _phrase(status), _PROBLEM_CONTENT)
        for status, description in _refusals(endpoint).items():
            _add(responses, status, description, _PROBLEM_CONTENT)
        if answer and (endpoint.reply or endpoint.raw):
            # A `Reply`, or a response of the handler's own, may have any other status.
            description = "An answer of another status, or an error"
            _add(responses, "default", description, {**answer, **_PROBLEM_CONTENT})
        else:
            responses["default"] = {"$ref": f"#/components/responses/{_PROBLEM}"}
        _add_headers(responses, compiled)
        return responses


def _add(
    responses: dict[str, Any],
    status: int | str,
    description: str,
    content: Mapping[str, Any] | None = None,
) -> None:
    """Adds a response; where the status has one already, what else it may hold."""
    response = responses.setdefault(str(status), {"description": description, "headers": _HEADERS})
    if content:
        response["content"] = {**response.get("content", {}), **content}


def _add_headers(responses: dict[str, Any], compiled: CompiledRoute) -> None:
    """Adds what is known of the headers of each response, besides those that all have."""
    endpoint = compiled.endpoint
    body = endpoint.signature.body
    is_patch = compiled.route.method == "PATCH" and body is not None and body.marker.media_types
    own = {
        name: {"description": text, "schema": {"type": "string"}}
        for name, text in endpoint.headers.items()
    }
    by_status = {
        endpoint.status: own,
        # RFC 9110, section 15.4.5: what the whole answer would have had.
        304: own,
        415: _PATCH_HEADERS if is_patch else {},
        503: _RETRY_HEADERS,
    }
    for status, headers in by_status.items():
        response = responses.get(str(status))
        if response is not None and headers:
            response["headers"] = {**response["headers"], **headers}


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


def _of_text(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter's schema without `null`: none of them has a text for that, it is left out."""
    kinds = schema.get("anyOf", [])
    left = [each for each in kinds if each != {"type": "null"}]
    if len(left) == len(kinds) or not left:
        return schema
    rest = {key: value for key, value in schema.items() if key != "anyOf"}
    if rest.get("default", ...) is None:
        del rest["default"]
    return {**left[0], **rest} if len(left) == 1 else {"anyOf": left, **rest}


def _parameter(parameter: Parameter, schema: dict[str, Any]) -> dict[str, Any]:
    marker = parameter.marker
    documented: dict[str, Any] = {
        "name": parameter.name,
        "in": parameter.where,
        "required": parameter.required,
        "schema": _of_text(schema),
    }
    if not parameter.required and parameter.default is not None:
        try:
            default = parameter.adapter.dump_python(
                parameter.default, mode="json", warnings="error"
            )
        except (TypeError, ValueError):
            pass  # not a value of its type: an object that says "left out"
        else:
            documented["schema"] = {**documented["schema"], "default": default}
    if marker.description:
        documented["description"] = marker.description
    if marker.example is not None:
        documented["example"] = marker.example
    if marker.deprecated:
        documented["deprecated"] = True
    return documented
