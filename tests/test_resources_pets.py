"""A resource as its clients see it, on both databases: every operation, every status."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from petsage.settings import DatabaseSettings, Settings
from petsage.testing import FeatureClient
from tests.documented import Answer, DocumentedClient

PETS = Path(__file__).parent / "features_data" / "pets"
REX = {"name": "Rex", "species": "dog", "born": "2020-01-31", "weight_kg": 1.5}
MIA = {"name": "Mia", "species": "cat", "born": None, "weight_kg": 0.1}
PATCH = "application/merge-patch+json"
LIST = "/api/v1/pets"


@pytest.fixture
def petsage_settings(petsage_settings: Settings, database_url: str) -> Settings:
    return petsage_settings.model_copy(update={"database": DatabaseSettings(url=database_url)})


class Pets(DocumentedClient):
    """A client of the pets."""

    async def add(self, **members: Any) -> dict[str, Any]:
        answer = await self.post(LIST, {**REX, **members})
        assert answer.status == 201, answer.body
        return dict(answer.json)

    async def patch(self, path: str, changes: Any, **headers: str) -> Answer:
        headers = {"Content-Type": PATCH, **headers}
        return await self.request("PATCH", path, data=json.dumps(changes), headers=headers)

    async def put(self, path: str, pet: Any, **headers: str) -> Answer:
        return await self.request("PUT", path, json=pet, headers=headers)

    async def names(self, query: str) -> list[str]:
        """The names in all pages of a list."""
        names = []
        path: str | None = f"{LIST}?{query}"
        while path is not None:
            answer = await self.get(path)
            assert answer.status == 200, answer.body
            names += [item["name"] for item in answer.json["items"]]
            assert len(names) <= 1_000, "the pages come round again"
            link = answer.headers.get("Link")
            assert (link is None) == (answer.json["next"] is None)
            path = link and link.removeprefix("<").removesuffix('>; rel="next"')
        return names


@pytest.fixture
async def pets(feature_client: FeatureClient) -> Pets:
    client = await feature_client(PETS)
    async with client.get("/openapi.json") as response:
        return Pets(client, await response.json())


def pointers(answer: Answer) -> list[tuple[str, str]]:
    assert answer.status == 422, answer.body
    return [(each["in"], each["pointer"]) for each in answer.json["errors"]]


async def test_the_document_is_valid_and_tells_every_header(pets: Pets) -> None:
    OpenAPIV31SpecValidator(pets.document).validate()
    paths = pets.document["paths"]
    listing, one = paths[LIST], paths[f"{LIST}/{{pet_id}}"]
    assert set(listing["get"]["responses"]["200"]["headers"]) == {"ETag", "Link", "X-Request-ID"}
    assert "Location" in listing["post"]["responses"]["201"]["headers"]
    assert list(one["patch"]["requestBody"]["content"]) == [PATCH, "application/json"]
    assert "Accept-Patch" in one["patch"]["responses"]["415"]["headers"]
    assert "Retry-After" in one["get"]["responses"]["503"]["headers"]
    assert set(one) == {"get", "put", "patch", "delete"}
    statuses = {method: set(operation["responses"]) for method, operation in one.items()}
    assert {"200", "304", "404", "422", "503"} <= statuses["get"]
    assert {"200", "404", "409", "412", "415", "422", "503"} <= statuses["patch"]
    assert {"204", "404", "412", "503"} <= statuses["delete"]
    names = {each["name"] for each in listing["get"]["parameters"]}
    assert names == {
        *("limit", "cursor", "sort", "species", "born", "born.gte", "born.lte", "If-None-Match")
    }
    update = pets.document["components"]["schemas"]["pets.PetUpdate"]
    assert (update["type"], update["additionalProperties"]) == ("object", False)
    assert "required" not in update


async def test_a_pet_is_added_read_replaced_changed_and_deleted(pets: Pets) -> None:
    added = await pets.post(LIST, REX)
    assert (added.status, added.headers["Location"]) == (201, f"{LIST}/{added.json['id']}")
    path = added.headers["Location"]
    kept = added.json
    assert {name: kept[name] for name in REX} == REX
    assert set(kept) == {*REX, "id", "created_at", "updated_at"}
    assert kept["created_at"] == kept["updated_at"]
    assert kept["created_at"].endswith("Z")

    read = await pets.get(path)
    assert (read.status, read.json) == (200, kept)
    assert read.headers["ETag"] == added.headers["ETag"]
    head = await pets.request("HEAD", path)
    assert (head.status, head.headers["ETag"], head.body) == (200, read.headers["ETag"], b"")
    again = await pets.get(path, headers={"If-None-Match": read.headers["ETag"]})
    assert (again.status, again.body) == (304, b"")

    replaced = await pets.put(path, MIA)
    assert (replaced.status, replaced.json["name"], replaced.json["born"]) == (200, "Mia", None)
    assert replaced.json["created_at"] == kept["created_at"]
    assert replaced.json["updated_at"] > kept["updated_at"]
    twice = await pets.put(path, MIA)
    assert (twice.json, twice.headers["ETag"]) == (replaced.json, replaced.headers["ETag"])

    changed = await pets.patch(path, {"born": "2021-02-28", "weight_kg": 2})
    assert (changed.status, changed.json["born"], changed.json["weight_kg"]) == (
        *(200, "2021-02-28"),
        2.0,
    )
    taken = await pets.patch(path, {"born": None})
    assert (taken.json["born"], taken.json["name"]) == (None, "Mia")
    nothing = await pets.patch(path, {})
    assert (nothing.status, nothing.json) == (200, taken.json)

    gone = await pets.request("DELETE", path)
    assert (gone.status, gone.body) == (204, b"")
    for method in ("GET", "DELETE", "HEAD"):
        assert (await pets.request(method, path)).status == 404
    assert (await pets.put(path, REX)).status == 404
    assert (await pets.patch(path, {"name": "Tom"})).status == 404


def test_the_guide_shows_what_is_tested() -> None:
    guide = (Path(__file__).parent.parent / "docs" / "resources.md").read_text(encoding="utf-8")
    shown = re.findall(r"```python\n(.*?)\n```", guide, re.DOTALL)
    files = [file.read_text(encoding="utf-8") for file in sorted(PETS.glob("*.py"))]
    assert len(shown) == 5
    for each in shown:
        assert any(each in file for file in files), each


async def test_an_id_is_never_given_twice(pets: Pets) -> None:
    first = await pets.add()
    await pets.request("DELETE", f"{LIST}/{first['id']}")
    assert (await pets.add())["id"] > first["id"]


async def test_what_no_id_can_be_is_refused(pets: Pets) -> None:
    for number in ("0", "-1", str(2**63), "x", "1.5", "%00", "1e400"):
        for method in ("GET", "DELETE"):
            answer = await pets.request(method, f"{LIST}/{number}")
            assert pointers(answer) == [("path", "/pet_id")], number
    assert (await pets.get(f"{LIST}/{2**63 - 1}")).status == 404


async def test_what_has_changed_meanwhile_is_not_overwritten(pets: Pets) -> None:
    pet = await pets.add()
    path = f"{LIST}/{pet['id']}"
    old = (await pets.get(path)).headers["ETag"]
    new = (await pets.patch(path, {"name": "Tom"}, **{"If-Match": old})).headers["ETag"]
    stale = {"If-Match": old}
    for answer in (
        await pets.put(path, MIA, **stale),
        await pets.patch(path, {"name": "Mia"}, **stale),
        await pets.request("DELETE", path, headers=stale),
        await pets.request("DELETE", path, headers={"If-Match": f"W/{new}"}),
    ):
        assert (answer.status, answer.kind) == (412, "application/problem+json")
    answer = await pets.put(path, MIA, **{"If-Match": "what"})
    assert answer.status == 400
    kept = await pets.get(path)
    assert (kept.json["name"], kept.headers["ETag"]) == ("Tom", new)
    answer = await pets.request("DELETE", path, headers={"If-Match": f'"x", {new}'})
    assert answer.status == 204
    # What is not there has no tag: there is nothing to match.
    assert (await pets.put(path, MIA, **{"If-Match": "*"})).status == 404


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"name": None}, "/name"),
    ({"name": 5}, "/name"),
    ({"name": "x" * 256}, "/name"),
    ({"name": "a\0b"}, "/name"),
    ({"species": "fish"}, "/species"),
    ({"born": "2020-13-01"}, "/born"),
    ({"born": 0}, "/born"),
    ({"born": "2020-01-31T00:00:00Z"}, "/born"),
    ({"weight_kg": "1"}, "/weight_kg"),
    ({"weight_kg": True}, "/weight_kg"),
    ({"weight_kg": 10**400}, "/weight_kg"),
    ({"weight": 1}, "/weight"),
    ({"id": 7}, "/id"),
    ({"created_at": "2020-01-31T00:00:00Z"}, "/created_at"),
]


async def test_what_is_no_pet_is_refused_with_its_place(pets: Pets) -> None:
    path = f"{LIST}/{(await pets.add())['id']}"
    before = (await pets.get(path)).json
    for members, pointer in WRONG:
        for answer in (
            await pets.post(LIST, {**REX, **members}),
            await pets.put(path, {**REX, **members}),
            await pets.patch(path, members),
        ):
            assert pointers(answer) == [("body", pointer)]
    for data in (b'{"weight_kg": 1e999}', b'{"name": 1, "name": "a"}'):
        answer = await pets.send(path, data, PATCH, "PATCH")
        assert answer.status in {200, 422}
        assert answer.status == 200 or pointers(answer) == [("body", "/weight_kg")]
    for data in (b'{"weight_kg": NaN}', b"{", b'{"name": "\\ud800"}', b"\xff"):
        answer = await pets.send(path, data, PATCH, "PATCH")
        assert answer.status == 400
    assert {**(await pets.get(path)).json, "name": before["name"], "updated_at": 0} == {
        **before,
        "updated_at": 0,
    }


async def test_a_pet_lacks_nothing_that_it_has_to_have(pets: Pets) -> None:
    path = f"{LIST}/{(await pets.add())['id']}"
    for answer in (await pets.post(LIST, {}), await pets.put(path, {})):
        assert pointers(answer) == [
            ("body", f"/{name}") for name in ("name", "species", "weight_kg")
        ]
    answer = await pets.put(path, {key: REX[key] for key in ("name", "species", "weight_kg")})
    assert answer.json["born"] is None
    values: list[Any] = [[], "x", 5, None]
    for value in values:
        assert pointers(await pets.patch(path, value)) == [("body", "")]


async def test_a_patch_of_another_kind_is_told_the_right_one(pets: Pets) -> None:
    path = f"{LIST}/{(await pets.add())['id']}"
    wrong = ("application/vnd.pets+json", "application/json-patch+json", "text/plain")
    for kind in (*wrong, f"{PATCH}; charset=latin-1"):
        answer = await pets.send(path, b"{}", kind, "PATCH")
        assert answer.status == 415
        assert answer.headers["Accept-Patch"] == f"{PATCH}, application/json"


async def test_a_patch_comes_as_plain_json_too(pets: Pets) -> None:
    pet = await pets.add(born="2020-01-03")
    for name, kind in (("Max", f"{PATCH}; charset=utf-8"), ("Bo", "application/json")):
        patch = json.dumps({"name": name, "born": None}).encode()
        answer = await pets.send(f"{LIST}/{pet['id']}", patch, kind, "PATCH")
        assert (answer.status, answer.json["name"], answer.json["born"]) == (200, name, None)


async def test_a_list_is_filtered_sorted_and_paged(pets: Pets) -> None:
    for name, species, born in [
        *(("a", "dog", "2020-01-03"), ("b", "cat", None), ("c", "dog", None)),
        *(("d", "rabbit", "2020-01-01"), ("e", "cat", "2020-01-03"), ("f", "dog", "2020-01-02")),
    ]:
        await pets.add(name=name, species=species, born=born)
    for limit in (1, 2, 3, 5, 6, 7):

        async def names(query: str, limit: int = limit) -> str:
            return "".join(await pets.names(f"limit={limit}&{query}"))

        assert await names("") == "abcdef"
        assert await names("sort=-id") == "fedcba"
        assert await names("sort=species") == "beacfd"
        assert await names("sort=-species") == "dfcaeb"
        assert await names("sort=born") == "dfaebc"
        assert await names("sort=-born") == "eafdcb"
        assert await names("species=dog") == "acf"
        assert await names("species=dog&species=rabbit") == "acdf"
        assert await names("species=dog&species=rabbit&sort=-species") == "dfca"
        assert await names("species=dog&sort=-born") == "afc"
        assert await names("born.gte=2020-01-02") == "aef"
        assert await names("born.gte=2020-01-02&born.lte=2020-01-02") == "f"
        assert await names("born.lte=2020-01-02&sort=-born") == "fd"
        assert await names("born.gte=2020-01-02&sort=born") == "fae"
        assert await names("born=2020-01-03&born=2020-01-01&sort=-born") == "ead"
        assert await names("born=2020-01-03&born.lte=2020-01-01") == ""


async def test_a_page_says_what_it_is_and_whether_it_is_new(pets: Pets) -> None:
    for number in range(3):
        await pets.add(name=str(number))
    first = await pets.get(f"{LIST}?limit=2&species=dog&species=cat&sort=-species")
    assert [item["name"] for item in first.json["items"]] == ["2", "1"]
    link = first.headers["Link"]
    assert link == (
        f"<{LIST}?limit=2&sort=-species&species=dog&species=cat&cursor={first.json['next']}>; "
        'rel="next"'
    )
    condition = {"If-None-Match": first.headers["ETag"]}
    again = await pets.get(
        f"{LIST}?limit=2&species=cat&species=dog&sort=-species", headers=condition
    )
    assert (again.status, again.headers["ETag"]) == (304, first.headers["ETag"])
    await pets.patch(f"{LIST}/2", {"name": "new"})
    changed = await pets.get(f"{LIST}?limit=2&species=dog&sort=-species", headers=condition)
    assert changed.status == 200
    plain = await pets.get(f"{LIST}?limit=2")
    assert plain.headers["Link"] == f'<{LIST}?limit=2&cursor={plain.json["next"]}>; rel="next"'
    head = await pets.request("HEAD", f"{LIST}?limit=2")
    assert (head.status, "Link" in head.headers, head.body) == (200, True, b"")


UNLISTABLE = [
    ("specie=dog", "/specie"),
    ("species=fish", "/species/0"),
    ("species=", "/species/0"),
    ("sort=name", "/sort"),
    ("sort=", "/sort"),
    ("limit=0", "/limit"),
    ("limit=501", "/limit"),
    ("limit=x", "/limit"),
    ("born.gte=yesterday", "/born.gte"),
    ("born.gte=2020-01-01&born.gte=2020-01-02", "/born.gte"),
    ("born_gte=2020-01-01", "/born_gte"),
    ("cursor=", "/cursor"),
    ("cursor=x", "/cursor"),
    ("cursor=%00", "/cursor"),
    ("cursor=%F0%9F%90%88", "/cursor"),
    ("cursor=AAAAAAAAAAAAAAAA", "/cursor"),
]


async def test_a_list_that_cannot_be_meant_is_refused(pets: Pets) -> None:
    for query, pointer in UNLISTABLE:
        answer = await pets.get(f"{LIST}?{query}")
        assert pointers(answer) == [("query", pointer)], query


async def test_a_cursor_is_of_its_list_alone(pets: Pets) -> None:
    for number in range(3):
        await pets.add(name=str(number))
    cursor = (await pets.get(f"{LIST}?limit=1&species=dog&sort=born")).json["next"]
    own = await pets.get(f"{LIST}?limit=2&species=dog&sort=born&cursor={cursor}")
    assert [item["name"] for item in own.json["items"]] == ["1", "2"]
    for query in (
        "",
        "sort=born",
        "species=dog",
        "species=cat&sort=born",
        "species=dog&sort=-born",
    ):
        answer = await pets.get(f"{LIST}?{query}&cursor={cursor}")
        assert pointers(answer) == [("query", "/cursor")]
    other = "B" if cursor[20] == "A" else "A"
    for wrong in (f"{cursor[:20]}{other}{cursor[21:]}", cursor[:-1], f"{cursor}A", f"{cursor}="):
        answer = await pets.get(f"{LIST}?species=dog&sort=born&cursor={wrong}")
        assert pointers(answer) == [("query", "/cursor")]


async def test_what_comes_and_goes_between_pages_neither_repeats_nor_hides(pets: Pets) -> None:
    for number in range(6):
        await pets.add(name=str(number), born=f"2020-01-{number + 10}")
    first = await pets.get(f"{LIST}?limit=2&sort=born")
    await pets.request("DELETE", f"{LIST}/2")  # the last of the page
    await pets.patch(f"{LIST}/3", {"name": "three"})
    await pets.add(name="early", born="2020-01-01")
    await pets.add(name="late", born="2020-01-31")
    second = await pets.get(f"{LIST}?sort=born&limit=10&cursor={first.json['next']}")
    assert [item["name"] for item in second.json["items"]] == ["three", "3", "4", "5", "late"]


async def test_fifty_writers_at_once_lose_nothing(pets: Pets) -> None:
    path = f"{LIST}/{(await pets.add(weight_kg=0))['id']}"

    async def increment() -> None:
        while True:  # without a look at the document, which would take longer than the answers
            async with pets.client.get(path) as read:
                weight, tag = (await read.json())["weight_kg"], read.headers["ETag"]
            headers = {"Content-Type": PATCH, "If-Match": tag}
            changes = json.dumps({"weight_kg": weight + 1})
            async with pets.client.patch(path, data=changes, headers=headers) as answer:
                if answer.status == 200:
                    return
                assert answer.status == 412, await answer.text()

    await asyncio.gather(*(increment() for _ in range(50)))
    assert (await pets.get(path)).json["weight_kg"] == 50


async def test_writers_of_different_fields_keep_each_others_changes(pets: Pets) -> None:
    path = f"{LIST}/{(await pets.add())['id']}"
    changes: dict[str, list[Any]] = {
        "name": [f"name {number}" for number in range(17)],
        "born": [f"2021-01-{number + 1:02}" for number in range(17)],
        "weight_kg": [float(number) for number in range(16)],
    }
    asked = [(name, value) for name, values in changes.items() for value in values]
    assert len(asked) == 50
    last: dict[str, Any] = {}

    async def change(name: str, value: Any) -> None:
        answer = await pets.patch(path, {name: value})
        assert (answer.status, answer.json[name]) == (200, value)
        last.setdefault(answer.json["updated_at"], answer.json)

    await asyncio.gather(*(change(*each) for each in asked))
    final = (await pets.get(path)).json
    assert final == last[max(last)]
    assert all(final[name] in values for name, values in changes.items())


async def test_a_list_is_whole_while_others_write(pets: Pets) -> None:
    stay = [f"stay {number}" for number in range(20)]
    for name in stay:
        await pets.add(name=name)
    done = asyncio.Event()

    async def write(writer: int) -> None:
        number = 0
        while not done.is_set():
            number += 1
            pet = await pets.add(name=f"new {writer}.{number}", species="cat")
            await pets.patch(f"{LIST}/{pet['id']}", {"weight_kg": number})
            if number % 2:
                await pets.request("DELETE", f"{LIST}/{pet['id']}")

    async with asyncio.TaskGroup() as group:
        for writer in range(3):
            group.create_task(write(writer))
        for sort in ("id", "-id", "born", "-species"):
            names = await pets.names(f"limit=3&sort={sort}")
            assert len(set(names)) == len(names)
            found = [name for name in names if name.startswith("stay")]
            assert sorted(found, key=stay.index) == stay
        done.set()
