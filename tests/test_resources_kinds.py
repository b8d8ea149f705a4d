"""Fields of every kind, on both databases: what goes in comes out, in a body and in a cursor."""

import asyncio
import copy
import itertools
import json
from base64 import urlsafe_b64encode
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from petsage import Problem
from petsage.resources.cursors import _check_of, read_cursor
from petsage.settings import DatabaseSettings, Settings
from petsage.testing import FeatureClient
from tests.documented import Answer, DocumentedClient

CLINICS = Path(__file__).parent / "features_data" / "clinics"
LIST = "/api/v1/clinics"
PATCH = "application/merge-patch+json"
ANY = {"If-Match": "*"}
START = datetime(1900, 1, 1, tzinfo=UTC)
ID = "00000000-0000-0000-0000-000000000001"


@pytest.fixture
def petsage_settings(petsage_settings: Settings, database_url: str) -> Settings:
    return petsage_settings.model_copy(update={"database": DatabaseSettings(url=database_url)})


@pytest.fixture
async def clinics(feature_client: FeatureClient) -> DocumentedClient:
    client = await feature_client(CLINICS)
    async with client.get("/openapi.json") as response:
        return DocumentedClient(client, await response.json())


def pointers(answer: Answer, status: int = 422) -> list[str]:
    assert answer.status == status, answer.body
    return [each["pointer"] for each in answer.json["errors"]]


async def patch(client: DocumentedClient, path: str, changes: Any) -> Answer:
    headers = {"Content-Type": PATCH, **ANY}
    return await client.request("PATCH", path, data=json.dumps(changes), headers=headers)


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
INTEGERS = st.integers(-(2**63), 2**63 - 1)
ZONES = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
MOMENTS = st.builds(
    lambda micros, zone: (START + timedelta(microseconds=micros)).astimezone(zone),
    st.integers(0, 7 * 10**15),
    ZONES,
)
GEO = st.fixed_dictionaries({"lat": st.floats(-90, 90)}, optional={"note": st.none() | TEXT})
ADDRESS = st.fixed_dictionaries({"street": TEXT}, optional={"geo": st.none() | GEO})
SITES = st.sampled_from(
    ["https://a.example/%20?q=ü".replace("ü", "u"), "urn:x:Y", "http://[::1]:80/"]
)
MEMBERS: dict[str, st.SearchStrategy[Any]] = {
    "opened_at": st.none() | MOMENTS.map(datetime.isoformat),
    "contact": st.none() | st.sampled_from(["Rex@Example.COM", "a.b+c@example.org"]),
    "site": st.none() | SITES,
    "beds": INTEGERS,
    "rating": st.none() | FLOATS,
    "is_open": st.booleans(),
    "address": st.none() | ADDRESS,
    "tags": st.lists(TEXT, max_size=5),
}
DEFAULTS: dict[str, Any] = {
    **dict.fromkeys(("opened_at", "contact", "site", "rating", "address")),
    "beds": 3,
    "is_open": True,
    "tags": [],
}
CREATES = st.fixed_dictionaries(
    {"code": TEXT.map("x".__add__), "reference": st.uuids().map(str)}, optional=MEMBERS
)
GEO_PATCH = st.fixed_dictionaries(
    {}, optional={"lat": st.floats(-90, 90), "note": st.none() | TEXT}
)
ADDRESS_PATCH = st.fixed_dictionaries({}, optional={"street": TEXT, "geo": st.none() | GEO_PATCH})
PATCHES = st.fixed_dictionaries(
    {},
    optional={
        **{name: st.none() | values for name, values in MEMBERS.items()},
        "reference": st.uuids().map(str),
        "address": st.none() | ADDRESS_PATCH,
    },
)


def merge(target: Any, changes: Any) -> Any:
    """The pseudo code of RFC 7396, section 2."""
    if not isinstance(changes, dict):
        return changes
    target = dict(target) if isinstance(target, dict) else {}
    for name, value in changes.items():
        if value is None:
            target.pop(name, None)
        else:
            target[name] = merge(target.get(name), value)
    return target


def kept(clinic: dict[str, Any]) -> dict[str, Any]:
    """What a clinic comes back as: its defaults filled in, its moment in UTC."""
    whole = {**DEFAULTS, **copy.deepcopy(clinic)}
    if whole["address"] is not None:
        whole["address"] = {"geo": None, **whole["address"]}
        if whole["address"]["geo"] is not None:
            whole["address"]["geo"] = {"note": "unknown", **whole["address"]["geo"]}
    if whole["opened_at"] is not None:
        whole["opened_at"] = datetime.fromisoformat(whole["opened_at"]).astimezone(UTC)
    return whole


def read(answer: Answer) -> dict[str, Any]:
    clinic = dict(answer.json)
    del clinic["id"]
    if clinic["opened_at"] is not None:
        assert clinic["opened_at"].endswith("Z")
        clinic["opened_at"] = datetime.fromisoformat(clinic["opened_at"])
    return clinic


def gaps(clinic: dict[str, Any]) -> list[str]:
    """The places that have to be there, and are not."""
    address = clinic.get("address")
    if address is None:
        return []
    found = [] if "street" in address else ["/address/street"]
    geo = address.get("geo")
    return found if geo is None or "lat" in geo else [*found, "/address/geo/lat"]


async def hold(
    examples: int, check: Callable[..., Coroutine[Any, Any, None]], **strategies: Any
) -> None:
    """Has hypothesis try a coroutine function, which runs in this loop."""
    loop = asyncio.get_running_loop()

    @settings(max_examples=examples, deadline=None, derandomize=True, database=None)
    @given(**strategies)
    def run(**drawn: Any) -> None:
        asyncio.run_coroutine_threadsafe(check(**drawn), loop).result(30)

    await asyncio.to_thread(run)


async def test_any_clinic_comes_back_as_it_was_given(clinics: DocumentedClient) -> None:
    numbers = itertools.count()

    async def check(clinic: dict[str, Any], other: dict[str, Any]) -> None:
        clinic = {**clinic, "code": f"{next(numbers)}{clinic['code']}"}
        created = await clinics.post(LIST, clinic)
        assert created.status == 201, created.body
        assert read(created) == kept(clinic)
        path = created.headers["Location"]
        found = await clinics.get(path)
        assert (found.body, found.headers["ETag"]) == (created.body, created.headers["ETag"])
        other = {**other, "code": f"{next(numbers)}{other['code']}"}
        for _ in range(2):
            replaced = await clinics.request("PUT", path, json=other, headers=ANY)
            assert replaced.status == 200, replaced.body
            assert read(replaced) == kept(other)

    await hold(40, check, clinic=CREATES, other=CREATES)


async def test_any_patch_does_what_the_rfc_says(clinics: DocumentedClient) -> None:
    numbers = itertools.count()

    async def check(clinic: dict[str, Any], changes: dict[str, Any]) -> None:
        clinic = {**clinic, "code": f"{next(numbers)}{clinic['code']}"}
        created = await clinics.post(LIST, clinic)
        before = {**created.json}
        del before["id"]
        wanted = merge(before, changes)
        answer = await patch(clinics, created.headers["Location"], changes)
        if gaps(wanted):
            assert pointers(answer) == gaps(wanted)
            wanted = before
        else:
            assert answer.status == 200, answer.body
        assert read(await clinics.get(created.headers["Location"])) == kept(wanted)

    await hold(60, check, clinic=CREATES, changes=PATCHES)


async def test_a_nested_object_is_merged_and_its_places_are_named(
    clinics: DocumentedClient,
) -> None:
    address = {"street": "Elm", "geo": {"lat": 1.5, "note": "here"}}
    clinic = {"code": "a", "reference": ID, "address": address, "beds": 7}
    path = (await clinics.post(LIST, clinic)).headers["Location"]

    async def after(changes: Any) -> Any:
        answer = await patch(clinics, path, changes)
        assert answer.status == 200, answer.body
        return answer.json

    assert (await after({"address": {"geo": {"lat": 2}}}))["address"] == {
        "street": "Elm",
        "geo": {"lat": 2.0, "note": "here"},
    }
    assert (await after({"address": {"geo": {"note": None}}}))["address"]["geo"][
        "note"
    ] == "unknown"
    assert (await after({"address": {"geo": None}}))["address"] == {"street": "Elm", "geo": None}
    assert (await after({"beds": None}))["beds"] == 3
    assert (await after({"address": None}))["address"] is None
    refused = {
        "/address/street": {"address": {"geo": {"lat": 1}}},
        "/address/geo/lat": {"address": {"street": "Oak", "geo": {"lat": 91}}},
        "/address/geo/lon": {"address": {"street": "Oak", "geo": {"lat": 1, "lon": 2}}},
        "/address": {"address": []},
        "/code": {"code": None},
        "/tags/1": {"tags": ["a", "b\0"]},
        "/tags": {"tags": ["a"] * 6},
        "/tag": {"tag": None},
    }
    for pointer, changes in refused.items():
        assert pointers(await patch(clinics, path, changes)) == [pointer]
    assert (await clinics.get(path)).json["address"] is None


async def test_what_has_to_be_unique_is_named_where_it_is_not(clinics: DocumentedClient) -> None:
    for code in ("a", "b"):
        assert (await clinics.post(LIST, {"code": code, "reference": ID})).status == 201
    for answer in (
        await clinics.post(LIST, {"code": "a", "reference": ID}),
        await clinics.request("PUT", f"{LIST}/2", json={"code": "a", "reference": ID}, headers=ANY),
        await patch(clinics, f"{LIST}/2", {"code": "a"}),
    ):
        assert pointers(answer, 409) == ["/code"]
    assert (await clinics.get(f"{LIST}/2")).json["code"] == "b"
    answer = await clinics.request(
        "PUT", f"{LIST}/1", json={"code": "a", "reference": ID}, headers=ANY
    )
    assert answer.status == 200


async def test_a_change_has_to_say_what_it_changes(clinics: DocumentedClient) -> None:
    created = await clinics.post(LIST, {"code": "a", "reference": ID})
    path = created.headers["Location"]
    for method, kind in (("PUT", "application/json"), ("PATCH", PATCH)):
        body = json.dumps({"code": "b", "reference": ID}).encode()
        assert (await clinics.send(path, body, kind, method)).status == 428
        headers = {"Content-Type": kind, "If-Match": '"old"'}
        answer = await clinics.request(method, path, data=body, headers=headers)
        assert answer.status == 412
    assert (await clinics.get(path)).body == created.body


REFUSED: dict[str, list[Any]] = {
    "beds": [2**63, -(2**63) - 1, 1.5, "1", True],
    "rating": [10**400, "1"],
    "opened_at": [
        *("2020-01-31", "2020-01-31T00:00:00", 0, "0001-01-01T00:00:00+01:00"),
        *("0", "20200131", "1577836800", "-1577836800", "1577836800.5", ""),
        *("9999-12-31T23:59:59-01:00", "x"),
    ],
    "reference": ["x", 1, f"{ID}0"],
    "contact": [
        *("x", "a@b", "a@b.c d", "Rex <rex@example.org>", "a\0@example.org", " a@example.org"),
        *("a@@example.org", f"{'a' * 250}@example.org", "@example.org"),
    ],
    "site": [
        *("x", "/a", "http://a b", "http://[::1", "http://[x]/", "http://a:x/", "a\0:b", ""),
        *("http://ü.example/", "http://[fe80::1%25eth0]/", "1a:b", "http://a/%zz", "http://a\n"),
    ],
    "is_open": [0, "true"],
    "tags": ["x", [1], ["x" * 51]],
}
TAKEN: dict[str, list[str]] = {
    "contact": ["Rex@Example.COM", "a.b+c@example.org", "ü@example.org"],
    "site": [
        *("HTTP://Example.COM:80/%7e?a=b&c#d", "mailto:a@b.c", "urn:isbn:0", "file:///a", "a:"),
        *("http://u:p@[::1]:8/", "http://[v7.a:b]/", "tel:+1-2", "x://", "http://a//b?/?#?/"),
    ],
}


async def test_what_is_not_of_its_kind_is_refused_and_what_is_stays_as_it_came(
    clinics: DocumentedClient,
) -> None:
    clinic = {"code": "a", "reference": ID}
    for name, values in REFUSED.items():
        for value in values:
            answer = await clinics.post(LIST, {**clinic, name: value})
            place = f"/{name}/0" if isinstance(value, list) else f"/{name}"
            assert pointers(answer) == [place], value
    path = (await clinics.post(LIST, clinic)).headers["Location"]
    for name, texts in TAKEN.items():
        for text in texts:
            answer = await patch(clinics, path, {name: text})
            assert (answer.status, answer.json.get(name)) == (200, text), text


MOMENT_TEXTS = [
    *("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "2020-01-31T12:00:00.000001Z"),
    *("2020-01-31T12:00:00Z", "1969-12-31T23:59:59.999999Z"),
]
CODES = [*("a", "A", "ä", "a\u0308", "😺", "&=+%", "\\x", "\x01", "𐀀", "\uffff", "'\"", "z" * 255)]
EXTREMES: dict[str, list[Any]] = {
    "code": CODES,
    "opened_at": [*MOMENT_TEXTS, None, None],
    "reference": [f"{number:032x}" for number in (0, 1, 2**127, 2**128 - 1, 2**64)],
    "beds": [-(2**63), 2**63 - 1, 0, -1, 2**53 + 1, 7, 7],
    "rating": [5e-324, -5e-324, 0.1 + 0.2, 0.3, 1.7976931348623157e308, -1e308, 0, -0.0, None],
    "is_open": [True, False],
}


async def test_a_cursor_keeps_a_value_of_any_kind_exactly(clinics: DocumentedClient) -> None:
    rows: list[dict[str, Any]] = []
    for number, code in enumerate(CODES):
        clinic = {name: values[number % len(values)] for name, values in EXTREMES.items()}
        answer = await clinics.post(LIST, {**clinic, "code": code})
        assert answer.status == 201, answer.body
        rows.append(answer.json)
    for name in EXTREMES:
        full = sorted((row for row in rows if row[name] is not None), key=lambda row: row["id"])
        full.sort(key=lambda row: order_of(name, row[name]))
        empty = [row for row in rows if row[name] is None]
        for limit in (1, 4):
            assert await pages(clinics, f"sort={name}&limit={limit}") == [*full, *empty]
            # Backwards, ids too go backwards.
            assert await pages(clinics, f"sort=-{name}&limit={limit}") == [
                *reversed(full),
                *reversed(empty),
            ]
    found = await pages(clinics, "is_open=true&sort=-rating&limit=1")
    assert {row["id"] for row in found} == {row["id"] for row in rows if row["is_open"]}
    (found,) = await pages(clinics, "code=%26%3D%2B%25")
    assert found["code"] == "&=+%"
    assert await pages(clinics, "opened_at.lte=0001-01-01T00:00:00Z") == [rows[0], rows[7]]


def order_of(name: str, value: Any) -> Any:
    """What a value is ordered by: the text of a moment is short where its fraction is 0."""
    return datetime.fromisoformat(value) if name == "opened_at" else value


async def pages(clinics: DocumentedClient, query: str) -> list[Any]:
    rows: list[Any] = []
    path: str | None = f"{LIST}?{query}"
    while path is not None:
        answer = await clinics.get(path)
        assert answer.status == 200, answer.body
        rows += answer.json["items"]
        assert len(rows) <= 100, "the pages come round again"
        link = answer.headers.get("Link")
        path = link and link.removeprefix("<").removesuffix('>; rel="next"')
    return rows


BAD_TEXTS = ("a\0b", "\0", "\ud800", "x\udfffy")
BAD_QUERIES = ("a%00b", "%00", "%ED%A0%80", "%ud800", "%EF%BF%BE%00")


async def test_what_is_no_text_is_refused_wherever_it_stands(clinics: DocumentedClient) -> None:
    good = {"code": "a", "reference": ID}
    assert (await clinics.post(LIST, good)).status == 201
    for bad in BAD_TEXTS:
        places: list[dict[str, Any]] = [
            *({"code": bad}, {"contact": f"{bad}@a.example"}, {"site": f"urn:x:{bad}"}),
            *({"tags": ["b", bad]}, {"address": {"street": bad}}, {bad: 1}, {"reference": bad}),
            {"address": {"street": "b", "geo": {"lat": 1, "note": bad}}},
            {"address": {"street": "b", "geo": {"lat": 1, bad: 1}}},
        ]
        # What JSON spells as half a surrogate pair is none, says its parser.
        wanted = 422 if "\0" in bad else 400
        for changes in places:
            body = json.dumps({**good, "code": "b", **changes})
            for method, path, data in (
                *(("POST", LIST, body), ("PUT", f"{LIST}/1", body)),
                ("PATCH", f"{LIST}/1", json.dumps(changes)),
            ):
                kind = PATCH if method == "PATCH" else "application/json"
                headers = {"Content-Type": kind, **ANY}
                answer = await clinics.request(method, path, data=data, headers=headers)
                assert answer.status == wanted, (method, changes, answer.body)
    for bad in BAD_QUERIES:
        for name in ("code", "beds", "opened_at.gte", "is_open", "sort", "cursor", "limit", bad):
            async with clinics.client.get(URL(f"{LIST}?{name}={bad}", encoded=True)) as got:
                is_code = name == "code" and bad == "%ud800"  # a text like any other
                assert got.status == (200 if is_code else 422), (name, bad)
        async with clinics.client.get(URL(f"{LIST}/{bad}", encoded=True)) as got:
            assert got.status in {400, 404, 422}, bad
    for text in ("a\0b", "\ud800"):
        listing = b"made up"
        payload = json.dumps(["s", text, 1]).encode()
        made_up = urlsafe_b64encode(_check_of(payload, listing) + payload).rstrip(b"=").decode()
        with pytest.raises(Problem):
            read_cursor(made_up, listing)
    assert (await clinics.get(f"{LIST}/1")).json["code"] == "a"
