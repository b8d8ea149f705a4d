"""What every feature in `features/` has to be, whoever wrote it."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest
from aiohttp import web

from petsage.catalog import CATALOG
from petsage.loader import find_folders
from petsage.testing import Client

ROOT = Path(__file__).parent.parent
FOLDERS = list(find_folders([ROOT / "features"]))
HEADINGS = [
    "Overview",
    "API Endpoint(s)",
    "Authentication",
    "Success Response",
    "Log Verification",
    "How to Run Tests",
]

each_feature = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


@pytest.fixture
async def client(folder: Path, feature_client: Any) -> Client:
    served: Client = await feature_client(folder)
    return served


def plain_gets(client: Client, feature: str) -> list[str]:
    """The paths of a feature's GETs that need nothing but their path."""
    assert isinstance(client.app, web.Application)
    return [
        route.template
        for route in client.app[CATALOG].table.routes
        if route.feature == feature
        and route.compiled.route.method == "GET"
        and not any(each.required for each in route.compiled.endpoint.signature.parameters)
    ]


@each_feature
def test_its_readme_has_the_headings_in_their_order(folder):
    readme = folder / "README.md"
    assert readme.exists(), f"write {readme} with the headings {', '.join(HEADINGS)}"
    lines = readme.read_text(encoding="utf-8").splitlines()
    assert [line[3:] for line in lines if line.startswith("## ")] == HEADINGS


@each_feature
def test_its_page_in_docs_is_its_readme(folder):
    page = ROOT / "docs" / "features" / f"{folder.name}.md"
    assert page.exists(), "write the README, and run `make fix`"
    assert page.read_text(encoding="utf-8") == (folder / "README.md").read_text(encoding="utf-8"), (
        "run `make fix`"
    )


@each_feature
def test_its_tests_travel_with_it(folder):
    assert list((folder / "tests").glob("test_*.py"))


@each_feature
async def test_head_answers_as_get_does_without_the_body(folder, client):
    for path in plain_gets(client, folder.name):
        got = await client.get(path)
        head = await client.head(path)
        assert (head.status, head.content_type) == (got.status, got.content_type)
        assert await head.read() == b""


@each_feature
async def test_each_request_leaves_one_access_line_that_names_the_feature(
    folder, client, log_lines
):
    paths = plain_gets(client, folder.name)
    for path in paths:
        await client.get(path)

    lines = [line for line in log_lines() if line["logger"] == "petsage.access"]
    assert [(line["feature"], line["route"]) for line in lines] == [
        (folder.name, path) for path in paths
    ]


@each_feature
async def test_what_it_answers_is_what_the_document_says(folder, client):
    document = await (await client.get("/openapi.json")).json()
    for path in plain_gets(client, folder.name):
        got = await client.get(path)
        documented = document["paths"][path]["get"]["responses"][str(got.status)]
        if "content" not in documented:
            continue
        schema = documented["content"][got.content_type]["schema"]
        jsonschema.validate(await got.json(), {**schema, "components": document["components"]})


@each_feature
async def test_each_operation_is_documented_with_a_summary_a_tag_and_an_id(folder, client):
    document = await (await client.get("/openapi.json")).json()
    for route in client.app[CATALOG].table.routes:
        operation = document["paths"][route.template.replace(":path}", "}")][
            route.compiled.route.method.lower()
        ]
        assert operation["summary"]
        assert operation["tags"]
        assert operation["operationId"].startswith(f"{route.feature}.")


@each_feature
async def test_a_method_that_it_does_not_have_is_refused_as_a_problem(folder, client):
    for path in plain_gets(client, folder.name):
        refused = await client.request("QUERY", path)
        assert refused.status == 405
        assert refused.content_type == "application/problem+json"
        problem = await refused.json()
        assert problem["status"] == 405
        assert problem["request_id"] == refused.headers["X-Request-ID"]
