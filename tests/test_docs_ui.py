"""The pages /docs and /redoc in a real browser, and the files that they are made of."""

import hashlib
import json
import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import pytest
from aiohttp.test_utils import TestClient
from playwright.async_api import Page, Request, async_playwright, expect

ASSETS = files("petsage.system") / "assets"
CHROMIUM = shutil.which("chromium")
# A machine that says it is CI has to have it: a test that is skipped there proves nothing.
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None and "CI" not in os.environ, reason="there is no Chromium on the PATH"
)

FLAGS = [
    "--no-sandbox",  # tests run as root in containers
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
KEEP_VIOLATIONS = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => {
  window.violations.push(`${event.effectiveDirective} ${event.blockedURI}`);
});
"""


@dataclass
class Visit:
    """A browser page, and what it did that it should not."""

    page: Page
    origin: str
    elsewhere: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def see_request(self, request: Request) -> None:
        local = (self.origin, f"blob:{self.origin}", "data:")
        if not request.url.startswith(local):
            self.elsewhere.append(request.url)

    async def expect_clean(self) -> None:
        assert self.elsewhere == []
        assert await self.page.evaluate("window.violations") == []
        assert self.complaints == []
        assert await self.page.context.cookies() == []


@pytest.fixture
async def visit(petsage_client: TestClient[Any, Any]) -> AsyncIterator[Visit]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = await browser.new_page()
        origin = str(petsage_client.make_url("/")).rstrip("/")
        made = Visit(page, origin)
        await page.add_init_script(KEEP_VIOLATIONS)
        page.on("request", made.see_request)
        page.on("pageerror", lambda error: made.complaints.append(str(error)))
        page.on(
            "console",
            lambda message: (
                made.complaints.append(message.text)
                if message.type in {"error", "warning"}
                else None
            ),
        )
        yield made
        await browser.close()


@needs_chromium
async def test_docs_lists_the_operations_and_asks_no_other_host(visit: Visit) -> None:
    await visit.page.goto(f"{visit.origin}/docs")

    await expect(visit.page).to_have_title("PetSage API")
    summary = visit.page.locator('.opblock-get [data-path="/api/v1/smoke_test"]')
    await expect(summary).to_be_visible()
    await visit.expect_clean()


@needs_chromium
async def test_try_it_out_calls_the_api_and_shows_its_answer(visit: Visit) -> None:
    await visit.page.goto(f"{visit.origin}/docs")

    operation = visit.page.locator(
        ".opblock-get", has=visit.page.locator('[data-path="/api/v1/smoke_test"]')
    )
    await operation.locator(".opblock-summary-control").click()
    await operation.locator(".try-out__btn").click()
    async with visit.page.expect_response("**/api/v1/smoke_test*") as answer:
        await operation.locator("button.execute").click()
    assert (await answer.value).status == 200

    shown = operation.locator(".live-responses-table tr.response")
    await expect(shown.locator(".response-col_status")).to_have_text("200")
    await expect(shown.locator(".response-col_description")).to_contain_text('"status": "ok"')
    await visit.expect_clean()


@needs_chromium
async def test_redoc_draws_an_operation_and_asks_no_other_host(visit: Visit) -> None:
    await visit.page.goto(f"{visit.origin}/redoc")

    await expect(visit.page).to_have_title("PetSage API")
    await expect(visit.page.get_by_role("heading", name="PetSage API")).to_be_visible()
    await visit.page.get_by_text("/api/v1/smoke_test", exact=True).first.click()
    heading = visit.page.get_by_role("heading", name="Perform a system smoke test")
    await expect(heading.first).to_be_visible()
    await expect(visit.page.get_by_text("Responses", exact=True).first).to_be_visible()
    await visit.expect_clean()


@needs_chromium
async def test_redoc_finds_an_operation_by_its_name(visit: Visit) -> None:
    await visit.page.goto(f"{visit.origin}/redoc")

    await visit.page.get_by_text("Search").first.click()
    await visit.page.keyboard.type("smoke")
    found = visit.page.locator('[data-component-name="Search/SearchItem"]')
    await expect(found.filter(has_text="/api/v1/smoke_test").first).to_be_visible()
    await visit.expect_clean()


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_a_page_forbids_inline_scripts_and_other_hosts(
    petsage_client: TestClient[Any, Any], path: str
) -> None:
    answer = await petsage_client.get(path)

    assert answer.status == 200
    assert answer.content_type == "text/html"
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "connect-src 'self';" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("docs.js", "text/javascript"),
        ("redoc.js", "text/javascript"),
        ("pages.css", "text/css"),
        ("swagger-ui-bundle.js", "text/javascript"),
        ("swagger-ui.css", "text/css"),
        ("redoc.standalone.js", "text/javascript"),
    ],
)
async def test_an_asset_arrives_whole_and_is_revalidated(
    petsage_client: TestClient[Any, Any], name: str, content_type: str
) -> None:
    first = await petsage_client.get(f"/docs/assets/{name}")
    assert first.status == 200
    assert first.content_type == content_type
    assert await first.read() == (ASSETS / name).read_bytes()

    again = await petsage_client.get(
        f"/docs/assets/{name}", headers={"If-None-Match": first.headers["ETag"]}
    )
    assert again.status == 304


@pytest.mark.parametrize("name", ["..%2f__init__.py", "%2e%2e/docs.py", ""])
async def test_nothing_but_an_asset_is_served_as_one(
    petsage_client: TestClient[Any, Any], name: str
) -> None:
    answer = await petsage_client.get(f"/docs/assets/{name}")
    assert answer.status == 404


def test_each_fetched_file_is_the_one_that_the_manifest_names() -> None:
    manifest = json.loads((ASSETS / "manifest.json").read_text())
    stated = {name: sha for entry in manifest.values() for name, sha in entry["files"].items()}
    actual = {name: hashlib.sha256((ASSETS / name).read_bytes()).hexdigest() for name in stated}
    assert actual == stated


def test_every_asset_is_fetched_or_written_by_hand() -> None:
    manifest = json.loads((ASSETS / "manifest.json").read_text())
    fetched = {name for entry in manifest.values() for name in entry["files"]}
    ours = {"docs.html", "docs.js", "redoc.html", "redoc.js", "pages.css", "manifest.json"}
    assert {file.name for file in ASSETS.iterdir()} == fetched | ours


def test_the_manifest_names_the_releases_that_the_files_are_of() -> None:
    manifest = json.loads((ASSETS / "manifest.json").read_text())
    swagger, redoc = manifest["swagger-ui-dist"]["version"], manifest["redoc"]["version"]
    assert swagger in (ASSETS / "swagger-ui-bundle.js").read_text(encoding="utf-8")
    assert f"Version: {redoc}\n" in (ASSETS / "redoc.standalone.js").read_text(encoding="utf-8")
    assert all(entry["integrity"].startswith("sha512-") for entry in manifest.values())


def test_what_was_taken_out_of_a_fetched_file_is_gone() -> None:
    manifest = json.loads((ASSETS / "manifest.json").read_text())
    for entry in manifest.values():
        for edit in entry["edits"]:
            text = (ASSETS / edit["file"]).read_text(encoding="utf-8")
            assert edit["removed"] not in text
