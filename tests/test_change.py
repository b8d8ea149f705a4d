"""What a change of folders does to what is served: taken up, refused, restarted, retired."""

import asyncio
import builtins
import gc
import linecache
import logging
import os
import random
import shutil
import sys
import textwrap
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final
from weakref import ref

import pytest

from petsage import current as current_module
from petsage import departures
from petsage.app import create_app
from petsage.catalog import CATALOG, Catalog
from petsage.checking import CheckFailed, CheckProcess
from petsage.testing import _client

SAYS = """
from petsage import Feature, Routes
routes = Routes()

@routes.get("/{path}")
async def say() -> dict[str, str]:
    return {{"says": "{text}"}}

feature = Feature(routes{more})
"""


@pytest.fixture
def petsage_settings(petsage_settings, tmp_path):
    catalog = petsage_settings.catalog.model_copy(
        update={"folders": [tmp_path / "features"], "start_timeout_s": 0.5}
    )
    server = petsage_settings.server.model_copy(update={"drain_s": 0.2})
    return petsage_settings.model_copy(update={"catalog": catalog, "server": server})


class Live:
    """A served application, and the folder of its features."""

    def __init__(self, client: Any, folder: Path) -> None:
        self.client = client
        self.folder = folder
        self.catalog: Catalog = client.app[CATALOG]

    def write(self, name: str, source: str, **files: str) -> None:
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        for module, text in {"__init__": source, **files}.items():
            (folder / f"{module}.py").write_text(textwrap.dedent(text), encoding="utf-8")

    def says(self, name: str, text: str, more: str = "") -> None:
        self.write(name, SAYS.format(path=name, text=text, more=more))

    def remove(self, name: str) -> None:
        shutil.rmtree(self.folder / name)

    async def steps(self, *names: str) -> dict[str, str]:
        """What a look at the folders has changed."""
        changes = await self.catalog.refresh(names or None)
        return {change.name: change.step for change in changes}

    async def get(self, path: str) -> Any:
        async with self.client.get(f"/api/v1/{path}") as answer:
            return (await answer.json())["says"] if answer.status == 200 else answer.status

    def entry(self, name: str) -> Any:
        return next(each for each in self.catalog.entries() if each.name == name)

    def why(self, name: str) -> list[str]:
        entry = self.entry(name)
        findings = entry.refused.findings if entry.refused is not None else entry.findings
        return [finding.id for finding in findings]


@pytest.fixture
async def live(petsage_settings, log_pipeline, tmp_path):
    """An application that serves the feature `pets`."""
    folder = tmp_path / "features"
    folder.mkdir()
    app = create_app(petsage_settings)
    async with _client(app, petsage_settings) as client:
        found = Live(client, folder)
        found.says("pets", "one")
        assert await found.steps() == {"pets": "added"}
        yield found


async def test_nothing_differs_and_nothing_is_done(live):
    (live.folder / "pets" / "__pycache__").mkdir()
    (live.folder / "pets" / "__init__.py").touch()
    generation = live.catalog.generation

    assert await live.steps() == {}
    assert await live.steps("pets", "nobody") == {}
    assert live.catalog.generation == generation


async def test_a_change_is_served_and_has_the_next_number(live):
    before = live.entry("pets")
    live.says("pets", "two")
    assert await live.steps("pets") == {"pets": "changed"}
    assert await live.get("pets") == "two"
    after = live.entry("pets")
    assert after.generation == before.generation + 1 == live.catalog.generation
    assert after.content_hash != before.content_hash
    assert after.since > before.since


async def test_a_new_folder_is_served_and_others_are_not_touched(live):
    before = live.entry("pets")
    live.says("owners", "hello")
    assert await live.steps() == {"owners": "added"}
    assert await live.get("owners") == "hello"
    assert live.entry("pets").generation == before.generation


async def test_a_removed_folder_is_gone_at_once(live):
    live.remove("pets")
    assert await live.steps() == {"pets": "removed"}
    assert await live.get("pets") == 404
    assert [each for each in live.catalog.entries() if not each.system and not each.draining] == []
    # What was removed is listed a moment longer, until its last request and its lifespan ended, and
    # its modules leave with it.
    async with asyncio.timeout(10):
        while any(each.draining for each in live.catalog.entries()):  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
    assert "features.pets" not in sys.modules
    assert [each for each in live.catalog.entries() if not each.system] == []


BREAKS = {
    "syntax-error": "def",
    "import-failed": "1 / 0",
    "no-feature": "feature = 1",
    "handler-not-async": SAYS.format(path="pets", text="x", more="").replace("async ", ""),
    "lifespan-failed": SAYS.format(path="pets", text="x", more=", lifespan=life").replace(
        "feature =", "async def life(app):\n    raise OSError('no')\n    yield\nfeature ="
    ),
    "lifespan-timeout": SAYS.format(path="pets", text="x", more=", lifespan=life").replace(
        "feature =",
        "import asyncio\nasync def life(app):\n    await asyncio.sleep(9)\n    yield\nfeature =",
    ),
    "no-such-feature": SAYS.format(path="pets", text="x", more=', needs=("nobody",)'),
    "bad-settings": SAYS.format(path="pets", text="x", more=", settings=Model").replace(
        "feature =",
        "from pydantic import BaseModel\nclass Model(BaseModel):\n    a: int\nfeature =",
    ),
    "route-clash": SAYS.format(path="other", text="x", more=""),
}


@pytest.mark.parametrize("kind", BREAKS)
async def test_a_broken_change_is_refused_and_what_served_goes_on(live, kind):
    live.says("other", "other")
    await live.steps()
    before = live.entry("pets")
    live.write("pets", BREAKS[kind])

    assert await live.steps() == {"pets": "refused"}
    assert await live.get("pets") == "one"
    assert await live.get("other") == "other"
    after = live.entry("pets")
    assert (after.state, after.generation) == ("serving", before.generation)
    assert live.why("pets") == [kind]
    assert after.last_error.fix
    assert await live.steps() == {}

    live.says("pets", "mended")
    assert await live.steps() == {"pets": "changed"}
    assert await live.get("pets") == "mended"
    assert live.entry("pets").refused is None


@pytest.mark.parametrize("kind", BREAKS)
async def test_a_broken_newcomer_is_set_aside_and_taken_up_when_it_is_mended(live, kind):
    live.says("other", "other")
    await live.steps()
    live.write("new", BREAKS[kind].replace("/pets", "/new"))

    (step,) = (await live.steps()).values()
    assert step == live.entry("new").state == ("waiting" if kind == "no-such-feature" else "failed")
    assert live.why("new") == [kind]
    assert await live.get("new") == 404
    assert "features.new" not in sys.modules

    live.says("new", "mended")
    assert await live.steps() == {"new": "added"}
    assert await live.get("new") == "mended"


# What needs one another

BASE = """
from petsage import AppKey, Feature, Routes
from .names import NAME
routes = Routes()
KEY = AppKey("KEY", list)

async def lifespan(app):
    app[KEY] = [NAME]
    app[KEY].append("started")
    yield
    app[KEY].append("stopped")

feature = Feature(routes, lifespan=lifespan)
"""
ABOVE = """
from typing import Annotated
from petsage import Feature, FromApp, Routes
from features.base import KEY
from features.base.names import NAME
routes = Routes()

@routes.get("/above")
async def say(names: Annotated[list, FromApp(KEY)]) -> dict[str, str]:
    return {"says": f"{NAME} {names[0]}"}

feature = Feature(routes, needs=("base",))
"""


@pytest.fixture
async def pair(live):
    """Two features, one of which needs the other."""
    live.write("above", ABOVE)
    live.write("base", BASE, names="NAME = 'one'\n")
    assert await live.steps() == {"base": "added", "above": "added"}
    assert await live.get("above") == "one one"
    return live


async def test_what_needs_a_changed_feature_is_restarted_with_it(pair):
    before = pair.entry("pets")
    pair.write("base", BASE, names="NAME = 'two'\n")
    assert await pair.steps("base") == {"base": "changed", "above": "restarted"}
    assert await pair.get("above") == "two two"
    assert pair.entry("above").generation == pair.entry("base").generation
    assert pair.entry("pets") == before


async def test_a_change_that_what_needs_it_does_not_stand_is_refused(pair):
    pair.write("base", BASE.replace("NAME]", "OTHER]").replace("NAME", "OTHER"), names="OTHER = 1")
    assert await pair.steps("base") == {"base": "refused"}
    assert pair.why("base") == ["dependent-fails"]
    assert await pair.get("above") == "one one"

    # Together with what fits it, it is taken up.
    pair.write("above", ABOVE.replace("NAME", "OTHER"))
    assert await pair.steps("above") == {"base": "changed", "above": "changed"}
    assert await pair.get("above") == "1 1"


async def test_a_broken_dependent_keeps_no_change_from_what_it_needs(pair):
    pair.write("base", BASE, names="NAME = 'two'\n")
    pair.write("above", "syntax error")
    assert await pair.steps() == {"base": "changed", "above": "refused"}
    assert await pair.get("above") == "two two"


async def test_what_was_changed_too_early_is_tried_again(pair):
    pair.write("above", ABOVE.replace("import NAME", "import LATER as NAME"))
    assert await pair.steps() == {"above": "refused"}
    pair.write("base", BASE, names="NAME = 'two'\nLATER = 'later'\n")
    assert await pair.steps() == {"base": "changed", "above": "changed"}
    assert await pair.get("above") == "later two"


async def test_what_needs_a_removed_feature_waits_until_it_is_back(pair):
    moved = pair.folder.parent / "moved"
    shutil.move(pair.folder / "base", moved)
    assert await pair.steps() == {"base": "removed", "above": "waiting"}
    assert await pair.get("above") == 404
    entry = pair.entry("above")
    assert (entry.state, entry.waiting_for) == ("waiting", ("base",))

    shutil.move(moved, pair.folder / "base")
    assert await pair.steps() == {"base": "added", "above": "added"}
    assert await pair.get("above") == "one one"


async def test_a_route_that_becomes_free_is_given_to_who_waits_for_it(live):
    live.write("other", SAYS.format(path="pets", text="other", more=""))
    assert await live.steps() == {"other": "failed"}
    live.remove("pets")
    assert await live.steps() == {"pets": "removed", "other": "added"}
    assert await live.get("pets") == "other"


# What is left

WHOLE = """
import logging
from typing import Annotated, Optional
from aiohttp import web
from pydantic import BaseModel
from petsage import AppKey, Body, Check, Feature, FromApp, Problem, Query, Routes

log = logging.getLogger(__name__)
routes = Routes()
KEY = AppKey("KEY", list)

class Pet(BaseModel):
    name: str
    friend: Optional["Pet"] = None

    def loud(self) -> str:
        return self.name.upper()

@web.middleware
async def around(request, handler):
    return await handler(request)

@routes.get("/whole/{number}")
async def get(number: int, names: Annotated[list, FromApp(KEY)]) -> Optional[Pet]:
    if number == 404:
        raise Problem(404, "no")
    if number == 500:
        raise ValueError("no")
    return Pet(name=names[0])

@routes.post("/whole")
async def post(pet: Annotated[Pet, Body()], word: Annotated[str | None, Query()] = None) -> Pet:
    log.info("%s", pet.loud())
    return pet

@routes.get("/whole")
async def plain() -> dict[str, Pet]:
    return {"pet": Pet(name="x")}

async def lifespan(app):
    app[KEY] = ["one"]
    yield

async def probe(app):
    app[KEY]

feature = Feature(
    routes, lifespan=lifespan, middlewares=(MIDDLEWARES), checks=(Check("probe", probe),)
)
"""


async def _collected(traces: Iterable["ref[Any]"]) -> None:
    """Collects garbage, for as long as a thread that has just done its work may take to end."""
    for _ in range(20):
        gc.collect()
        if all(trace() is None for trace in traces):
            return
        await asyncio.sleep(0.01)


async def _retired(live):
    async with asyncio.timeout(10):
        while tasks := list(live.catalog._current.retirement._leaving):
            await asyncio.wait(tasks)


def traces_of(name: str) -> dict[str, "ref[Any]"]:
    """Weak references to all that a feature's module defines, by name."""
    module = sys.modules[name]
    return {
        key: ref(thing)
        for key, thing in vars(module).items()
        if getattr(thing, "__module__", None) == name and not isinstance(thing, str)
    } | {"feature": ref(module.feature)}


@pytest.mark.parametrize("middlewares", ["", "around,"])
@pytest.mark.parametrize("is_removed", [True, False])
async def test_what_served_real_requests_is_garbage_when_it_is_gone(live, middlewares, is_removed):
    source = WHOLE.replace("MIDDLEWARES", middlewares)
    live.write("whole", source)
    await live.steps()
    traces = traces_of("features.whole")
    assert {"Pet", "get", "post", "lifespan", "around", "feature"} <= traces.keys()
    for path, status in (("1", 200), ("404", 404), ("500", 500), ("x", 422)):
        async with live.client.get(f"/api/v1/whole/{path}") as answer:
            assert answer.status == status
    async with live.client.post("/api/v1/whole", json={"name": "x"}) as answer:
        assert answer.status == 200
    for method, status in (("GET", 200), ("HEAD", 200), ("DELETE", 405)):
        async with live.client.request(method, "/api/v1/whole") as answer:
            assert answer.status == status
    async with live.client.get("/readyz?verbose") as answer:
        assert "whole.probe" in await answer.text()
    assert "/api/v1/whole" in await (await live.client.get("/openapi.json")).text()

    if is_removed:
        live.remove("whole")
    else:
        live.write("whole", source.replace('["one"]', '["two"]'))
    await live.steps()
    await _retired(live)
    # The client's connections are still open, and nobody has been asked again.
    for handler in logging.getLogger().handlers:
        getattr(handler, "records", []).clear()  # pytest keeps the traceback of the 500
    await _collected(traces.values())
    assert [key for key, trace in traces.items() if trace() is not None] == []
    assert live.catalog.leaked == ()


async def test_a_model_within_a_generic_one_of_others_is_no_leak(live, log_lines):
    source = """
from pydantic import BaseModel
from petsage import Feature, Routes
from petsage.resources import Page

class Pet(BaseModel):
    name: str

class Pets(Page[Pet]):
    pass

routes = Routes()

@routes.get("/listed")
async def listed() -> Pets:
    return Pets(items=[Pet(name="one")])

feature = Feature(routes)
"""
    live.write("listed", source)
    await live.steps()
    live.write("listed", source.replace('"one"', '"two"'))
    await live.steps()
    await _retired(live)
    live.catalog._current.retirement._collect()
    assert live.catalog.leaked == ()
    assert not any("still in memory" in line["message"] for line in log_lines())


async def test_what_outlives_its_generation_is_counted_and_named(live, log_lines):
    kept = [sys.modules["features.pets"].say]
    live.says("pets", "two")
    await live.steps()
    await _retired(live)
    live.catalog._current.retirement._collect()
    assert live.catalog.leaked == (("pets", 2, "features.pets.say"),)
    line = next(x for x in log_lines() if "still in memory" in x["message"])
    assert line["message"].startswith("Generation 2 of feature pets is still in memory: ")

    kept.clear()
    gc.collect()
    assert live.catalog.leaked == ()


async def test_a_task_that_a_feature_leaves_is_ended_and_named(live, log_lines):
    source = """
    import asyncio
    from petsage import Feature, Routes
    tasks = []

    async def forever():
        await asyncio.Event().wait()

    async def lifespan(app):
        tasks.append(asyncio.create_task(forever(), name="left alone"))
        # What runs is the standard library's, and the feature's only what it waits for.
        tasks.append(asyncio.create_task(asyncio.wait_for(forever(), None), name="left too"))
        yield

    feature = Feature(Routes(), lifespan=lifespan)
    """
    live.write("lazy", source)
    await live.steps()
    tasks = sys.modules["features.lazy"].tasks
    live.remove("lazy")
    await live.steps()
    await _retired(live)
    assert [task.cancelled() for task in tasks] == [True, True]
    assert any("Feature lazy has left task left too" in x["message"] for x in log_lines())
    assert any("Feature lazy has left task left alone" in x["message"] for x in log_lines())


async def test_a_thread_that_a_feature_leaves_is_named(live, log_lines):
    source = """
    import threading
    from petsage import Feature, Routes
    stop = threading.Event()

    def forever():
        stop.wait()

    async def lifespan(app):
        threading.Thread(target=forever, name="left alone").start()
        yield

    feature = Feature(Routes(), lifespan=lifespan)
    """
    live.write("lazy", source)
    await live.steps()
    stop = sys.modules["features.lazy"].stop
    live.remove("lazy")
    await live.steps()
    await _retired(live)
    stop.set()
    assert any("Feature lazy has left thread left alone" in x["message"] for x in log_lines())


async def test_features_that_come_and_go_leave_no_name_behind(live):
    for number in range(20):
        name = f"new{number}"
        log = "import logging\nlogging.getLogger(__name__ + '.below')\n"
        live.write(name, log + SAYS.format(path=name, text="x", more=""))
        await live.steps(name)
        assert await live.get(name) == "x"
        live.remove(name)
        await live.steps(name)
        assert await live.get(name) == 404
    await _retired(live)
    live.catalog._current.retirement._collect()
    assert [x for x in logging.Logger.manager.loggerDict if x.startswith("features.new")] == []
    assert [x for x in sys.modules if x.startswith("features.new")] == []
    assert [x for x in linecache.cache if "/new" in x and str(live.folder) in x] == []
    async with live.client.get("/metrics") as answer:
        after = await answer.text()
    assert "new1" not in after


async def test_a_level_that_was_set_for_a_feature_outlives_it(live):
    logger = logging.getLogger("features.pets")
    logger.setLevel("WARNING")
    try:
        live.remove("pets")
        await live.steps()
        await _retired(live)
        live.says("pets", "back")
        await live.steps()
        assert logging.getLogger("features.pets").level == logging.WARNING
    finally:
        logger.setLevel("NOTSET")


# What happens at the same time


class Events(list[str]):
    """What features say; one can be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self._more = asyncio.Event()

    def append(self, event: str) -> None:
        super().append(event)
        self._more.set()

    async def until(self, wanted: str) -> None:
        async with asyncio.timeout(10):
            while wanted not in self:
                self._more.clear()
                await self._more.wait()


@pytest.fixture
def told(monkeypatch):
    """What features say of themselves, and a gate that they wait at."""
    events = Events()
    gate = asyncio.Event()
    monkeypatch.setattr(builtins, "EVENTS", events, raising=False)
    monkeypatch.setattr(builtins, "GATE", gate, raising=False)
    return events, gate


def slow(name: str, version: str, needs: str = "", rest: str = "") -> str:
    """A feature whose request waits at the gate, and that says when it stops."""
    return f"""
from petsage import Feature, Routes
{rest}
routes = Routes()

@routes.get("/{name}")
async def say() -> dict[str, str]:
    EVENTS.append("{name} {version} begins")
    await GATE.wait()
    return {{"says": "{version}"}}

async def lifespan(app):
    yield
    EVENTS.append("{name} {version} stops")

feature = Feature(routes, lifespan=lifespan, needs=({needs}))
"""


async def test_what_is_needed_ends_behind_a_request_of_an_earlier_generation(live, told):
    events, gate = told
    live.write("db", slow("db", "one"))
    live.write("shop", slow("shop", "one", "'db',"))
    await live.steps()
    waiting = asyncio.create_task(live.get("shop"))
    await events.until("shop one begins")
    live.write("shop", slow("shop", "two", "'db',"))
    await live.steps()  # the request goes on in shop one
    live.write("db", slow("db", "two"))
    assert await live.steps() == {"db": "changed", "shop": "restarted"}
    await events.until("shop two stops")
    assert "db one stops" not in events
    gate.set()
    assert await waiting == "one"
    await _retired(live)
    assert events[-2:] == ["shop one stops", "db one stops"]


async def test_a_slow_request_keeps_no_other_feature_running(live, told):
    events, gate = told
    for version in ("one", "two"):
        live.write("job", slow("job", version))
        live.write("slow", slow("slow", version))
        await live.steps()
        if version == "one":
            waiting = asyncio.create_task(live.get("slow"))
            await events.until("slow one begins")
    await events.until("job one stops")
    assert "slow one stops" not in events
    gate.set()
    assert await waiting == "one"


async def test_a_restart_forgets_no_refusal(pair):
    pair.write("above", "def")
    assert await pair.steps() == {"above": "refused"}
    pair.write("base", BASE, names="NAME = 'two'\n")
    assert await pair.steps() == {"base": "changed", "above": "restarted"}
    assert pair.why("above") == ["syntax-error"]
    changes = await pair.catalog.refresh(again=True)
    assert [(each.name, each.step) for each in changes] == [("above", "refused")]


async def test_what_cannot_be_checked_is_not_imported_beside_what_serves(live, monkeypatch):
    class Unable:
        async def check(self, *_: object, **__: object) -> dict[str, Any]:
            raise CheckFailed("it cannot", fix="wait")

    monkeypatch.setattr(live.catalog._maker, "_checker", Unable())
    live.says("pets", "two")
    for _ in range(2):  # and it is tried again, since it was not
        with pytest.raises(CheckFailed):
            await live.steps()
        assert await live.get("pets") == "one"
    monkeypatch.setattr(live.catalog._maker, "_checker", None)
    assert await live.steps() == {"pets": "changed"}


async def test_a_change_that_is_cut_leaves_nothing_running(live, told, monkeypatch):
    events, _ = told
    live.write("job", slow("job", "one"))
    building = asyncio.Event()
    loop = asyncio.get_running_loop()
    go = threading.Event()

    def slowly(serving: Any) -> Any:
        loop.call_soon_threadsafe(building.set)
        go.wait(10)
        return table_of(serving)

    table_of = current_module._table_of
    monkeypatch.setattr(current_module, "_table_of", slowly)
    refresh = asyncio.create_task(live.catalog.refresh())
    await building.wait()
    ending = asyncio.create_task(live.catalog.end_changes())
    await asyncio.sleep(0)
    go.set()
    await ending
    assert events == ["job one stops"]
    assert "features.job" not in sys.modules
    assert await live.get("job") == 404
    assert await live.steps() == {}
    refresh.cancel()
    await asyncio.wait([refresh])


async def test_a_type_that_cannot_be_asked_keeps_no_other_from_its_change(live):
    live.write(
        "odd",
        """
        from typing import Annotated
        from petsage import AppKey, Feature, FromApp, Routes
        class Meta(type):
            def __instancecheck__(cls, value):
                raise ValueError("no")
        class Odd(metaclass=Meta):
            pass
        KEY = AppKey("KEY", Odd)
        routes = Routes()
        @routes.get("/odd")
        async def say(odd: Annotated[Odd, FromApp(KEY)]) -> dict[str, str]:
            return {"says": odd}
        async def lifespan(app):
            app[KEY] = "odd"
            yield
        feature = Feature(routes, lifespan=lifespan)
        """,
    )
    live.says("pets", "two")
    assert await live.steps() == {"odd": "added", "pets": "changed"}
    assert await live.get("odd") == "odd"


async def test_a_newcomer_takes_no_route_from_who_has_it_and_changes(live):
    live.says("pets", "two")
    live.write("aaa", SAYS.format(path="pets", text="aaa", more=""))
    assert await live.steps() == {"pets": "changed", "aaa": "failed"}
    assert live.why("aaa") == ["route-clash"]
    assert await live.get("pets") == "two"


async def test_what_a_refused_lifespan_has_begun_is_ended(live):
    source = SAYS.format(path="pets", text="x", more=", lifespan=life").replace(
        "feature =",
        "import asyncio\nasync def forever():\n    await asyncio.Event().wait()\n"
        "async def life(app):\n    asyncio.create_task(forever(), name='left alone')\n"
        "    raise OSError('no')\n    yield\nfeature =",
    )
    live.write("pets", source)
    assert await live.steps() == {"pets": "refused"}
    assert [task for task in asyncio.all_tasks() if task.get_name() == "left alone"] == []


async def test_what_needs_a_failed_feature_is_told_to_mend_that_one(live):
    live.write("base", "feature = 1\n")
    await live.steps()
    live.says("above", "x", ", needs=('base',)")
    assert await live.steps() == {"above": "waiting"}
    assert live.why("above") == ["need-failed"]
    live.says("base", "base")
    assert await live.steps() == {"base": "added", "above": "added"}


async def test_what_waits_is_not_tried_again_for_what_it_does_not_need(live, told):
    events, _ = told
    for name, needs in (("first", "nobody"), ("second", "first")):
        live.write(
            name,
            "EVENTS.append(__name__)\n"
            + SAYS.format(path=name, text=name, more=f", needs=('{needs}',)"),
        )
    await live.steps()
    assert len(events) == 2
    live.says("pets", "two")
    assert await live.steps() == {"pets": "changed"}
    assert len(events) == 2
    live.says("nobody", "x")
    assert await live.steps() == {"nobody": "added", "first": "added", "second": "added"}


async def test_of_two_changes_below_one_feature_the_right_one_is_taken_up(live):
    for name in ("left", "right"):
        live.write(name, SAYS.format(path=name, text="one", more="") + "NAME = 1\n")
    live.write(
        "top",
        "from features.left import NAME as LEFT\nfrom features.right import NAME\n"
        + SAYS.format(path="top", text="top", more=", needs=('left', 'right')"),
    )
    await live.steps()
    live.write("left", SAYS.format(path="left", text="two", more="") + "NAME = 1\n")
    live.write("right", SAYS.format(path="right", text="two", more=""))
    assert await live.steps() == {"left": "changed", "top": "restarted", "right": "refused"}
    assert await live.get("left") == "two"
    assert await live.get("right") == "one"


async def test_a_broken_edit_that_is_undone_restarts_nothing(live):
    before = live.entry("pets")
    source = (live.folder / "pets" / "__init__.py").read_text()
    live.write("pets", "def")
    assert await live.steps() == {"pets": "refused"}
    live.write("pets", source)
    assert await live.steps() == {}
    after = live.entry("pets")
    assert (after.generation, after.refused) == (before.generation, None)


async def test_an_edit_of_the_readme_or_of_tests_restarts_nothing(live):
    folder = live.folder / "pets"
    (folder / "tests").mkdir()
    (folder / "README.md").write_text("words")
    (folder / "tests" / "test_pets.py").write_text("def")
    assert await live.steps() == {}
    (folder / "template.html").write_text("data")
    assert await live.steps() == {"pets": "changed"}


async def test_a_refused_change_is_tried_again_when_what_it_needs_is_restarted(live):
    live.write("low", "NAME = 1\n" + SAYS.format(path="low", text="x", more=""))
    star = "from features.low import *\n"
    live.write("mid", star + SAYS.format(path="mid", text="x", more=", needs=('low',)"))
    live.says("top", "one", ", needs=('mid',)")
    await live.steps()
    top = SAYS.format(path="top", text="two", more=", needs=('mid',)")
    live.write("top", "from features.mid import LATER\n" + top)
    assert await live.steps() == {"top": "refused"}
    live.write("low", "LATER = 1\n" + SAYS.format(path="low", text="x", more=""))
    steps = await live.steps()
    assert steps == {"low": "changed", "mid": "restarted", "top": "changed"}
    assert await live.get("top") == "two"


async def test_what_is_refused_spoils_no_right_change_of_others(live):
    live.says("low", "one")
    live.says("mid", "one", ", needs=('low',)")
    live.says("top", "one", ", needs=('mid',)")
    await live.steps()
    live.says("low", "two", ", needs=('top',)")
    assert await live.steps() == {"low": "refused"}
    assert live.why("low") == ["needs-cycle"]
    live.says("top", "two", ", needs=('mid',)")
    assert await live.steps() == {"top": "changed"}
    live.says("mid", "two", ", needs=('low',)")
    assert await live.steps() == {"mid": "changed", "top": "restarted"}
    assert live.why("low") == ["needs-cycle"]
    live.says("top", "three")
    live.says("mid", "three")
    assert await live.steps() == {"mid": "changed", "top": "changed", "low": "changed"}


async def test_a_disabled_folder_is_shown_as_long_as_it_is_there(live):
    settings = live.catalog._reader._settings
    catalog = settings.catalog.model_copy(update={"disabled": ["off"]})
    live.catalog._reader._settings = settings.model_copy(update={"catalog": catalog})
    live.says("off", "x")
    assert await live.steps() == {}
    assert live.entry("off").state == "disabled"
    live.remove("off")
    await live.steps()
    assert [each.name for each in live.catalog.entries() if not each.system] == ["pets"]


# What goes while another change hangs


class Gate:
    """A file that whoever opens it waits at, until it is opened by `open`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.line = f"import pathlib; pathlib.Path({str(path)!r}).read_text()"
        os.mkfifo(path)

    async def reached(self) -> Any:
        """Returns when somebody waits; what it returns lets nobody pass before it is closed."""
        return await asyncio.to_thread(self.path.open, "w")

    def open(self, held: Any) -> None:
        """Lets pass who waits, and whoever comes later."""
        self.path.unlink()
        self.path.touch()
        held.close()


@pytest.fixture(scope="module")
def checker():
    """The child process that checks features; pytest has threads, and must not fork."""
    child = CheckProcess.launch()
    assert child is not None
    yield child
    asyncio.run(child.stop())
    assert child.restarts == 0


@pytest.fixture
def checked(live, checker):
    """The application, its features checked in a child process, as a server's are."""
    live.catalog._maker._checker = checker
    return live


def next_swap(live: Live) -> asyncio.Event:
    """Is set when what is served has changed."""
    tell, is_changed = live.catalog.changed, asyncio.Event()

    def changed() -> None:
        tell()
        is_changed.set()

    live.catalog.changed = changed
    return is_changed


class Hanging:
    """A change that waits in its check."""

    def __init__(self, live: Live, gate: Gate, held: Any) -> None:
        self._gate, self._held = gate, held
        self._refresh = asyncio.create_task(live.steps())

    @classmethod
    async def begin(cls, live: Live, name: str, source: str) -> "Hanging":
        """Writes a feature whose check hangs; it does."""
        gate = Gate(live.folder.parent / "gate")
        live.write(name, f"{gate.line}\n{textwrap.dedent(source)}")
        hanging = cls(live, gate, None)
        hanging._held = await gate.reached()
        return hanging

    async def end(self) -> dict[str, str]:
        """Lets it go on; what it has changed."""
        assert not self._refresh.done()
        self._gate.open(self._held)
        return await self._refresh


async def test_what_is_gone_is_gone_while_another_hangs_in_its_check(checked, told):
    events, gate = told
    gate.set()
    checked.write("job", slow("job", "one"))
    await checked.steps()
    generation = checked.catalog.generation
    hanging = await Hanging.begin(checked, "other", SAYS.format(path="other", text="x", more=""))

    checked.remove("job")
    await checked.catalog.take_away(["job", "pets"])
    assert await checked.get("job") == 404
    assert await checked.get("pets") == "one"
    assert checked.catalog.why_absent("job") == "there is no such feature"
    assert checked.catalog.changes["removed"] == 1
    await events.until("job one stops")

    assert await hanging.end() == {"other": "added"}
    assert await checked.steps() == {"job": "removed"}
    assert await checked.steps() == {}
    assert checked.catalog.changes["removed"] == 1
    assert checked.entry("other").generation == checked.catalog.generation == generation + 2
    assert [await checked.get(name) for name in ("job", "other", "pets")] == [404, "x", "one"]


async def test_who_asks_for_a_change_while_another_hangs_has_what_is_gone_gone(checked):
    hanging = await Hanging.begin(checked, "other", SAYS.format(path="other", text="x", more=""))
    is_changed = next_swap(checked)
    checked.remove("pets")
    refresh = asyncio.create_task(checked.steps())
    await is_changed.wait()
    assert await checked.get("pets") == 404
    assert await hanging.end() == {"other": "added"}
    assert await refresh == {"pets": "removed"}


async def test_what_is_made_does_not_stand_on_what_has_gone_meanwhile(checked):
    checked.write("base", BASE, names="NAME = 'one'\n")
    assert await checked.steps() == {"base": "added"}
    hanging = await Hanging.begin(checked, "above", ABOVE)

    checked.remove("base")
    await checked.catalog.take_away(["base"])
    assert "base" not in {each.name for each in checked.catalog.entries() if not each.draining}
    assert await hanging.end() == {"above": "waiting"}
    assert await checked.get("above") == 404
    assert checked.entry("above").waiting_for == ("base",)

    checked.write("base", BASE, names="NAME = 'two'\n")
    assert await checked.steps() == {"base": "added", "above": "added"}
    assert await checked.get("above") == "two two"


async def test_what_others_rest_on_loses_its_routes_and_ends_behind_them(checked):
    checked.write(
        "base",
        BASE + SAYS.format(path="base", text="b", more=", lifespan=lifespan"),
        names="NAME = 'one'\n",
    )
    checked.write("above", ABOVE)
    assert await checked.steps() == {"base": "added", "above": "added"}
    hanging = await Hanging.begin(checked, "above", ABOVE)

    moved = checked.folder.parent / "moved"
    shutil.move(checked.folder / "base", moved)
    await checked.catalog.take_away()
    assert await checked.get("base") == 404
    assert checked.entry("base").state == "draining"
    assert checked.catalog.why_absent("base") == "there is no such feature"
    assert await checked.get("above") == "one one"

    shutil.move(moved, checked.folder / "base")
    await checked.catalog.take_away()
    assert await checked.get("base") == "b"
    assert checked.entry("base").state == "serving"

    shutil.move(checked.folder / "base", moved)
    await checked.catalog.take_away()
    assert await hanging.end() == {"base": "removed", "above": "waiting"}
    assert [await checked.get(name) for name in ("base", "above")] == [404, 404]
    assert await checked.steps() == {}


async def test_what_others_rest_on_has_its_routes_again_when_it_is_back_as_it_was(checked):
    source = BASE + SAYS.format(path="base", text="b", more=", lifespan=lifespan")
    checked.write("base", source, names="NAME = 'one'\n")
    checked.write("above", ABOVE)
    await checked.steps()
    before = [checked.entry(name).generation for name in ("above", "base")]
    hanging = await Hanging.begin(checked, "other", SAYS.format(path="other", text="x", more=""))
    moved = (checked.folder / "base").rename(checked.folder.parent / "moved")
    await checked.catalog.take_away()
    assert await checked.get("base") == 404

    moved.rename(checked.folder / "base")
    assert await hanging.end() == {"other": "added"}
    assert await checked.get("base") == 404
    assert await checked.steps("base") == {}
    assert await checked.get("base") == "b"
    assert [checked.entry(name).generation for name in ("above", "base")] == before


async def test_what_goes_and_comes_back_while_another_hangs_is_taken_up_behind_it(checked):
    hanging = await Hanging.begin(checked, "other", SAYS.format(path="other", text="x", more=""))
    checked.remove("pets")
    await checked.catalog.take_away(["pets"])
    checked.says("pets", "one")
    await checked.catalog.take_away(["pets"])
    assert await checked.get("pets") == 404

    assert await hanging.end() == {"other": "added"}
    assert await checked.steps() == {"pets": "added"}
    assert await checked.get("pets") == "one"


@pytest.mark.parametrize("name", ["pets", "new"])
async def test_what_goes_while_it_is_checked_itself_is_not_served_when_it_passes(checked, name):
    source = SAYS.format(path=name, text="two", more="")
    hanging = await Hanging.begin(checked, name, source)
    folder = checked.folder / name
    moved = folder.rename(folder.parent.parent / "moved")
    await checked.catalog.take_away([name])
    assert await checked.get(name) == 404

    steps = await hanging.end()
    assert steps | await checked.steps() == {name: "removed"}
    assert await checked.get(name) == 404
    assert f"features.{name}" not in sys.modules

    moved.rename(folder)  # as it was when it was tried
    assert await checked.steps() == {name: "added"}
    assert await checked.get(name) == "two"


async def test_what_goes_when_it_has_been_refused_leaves_nothing_behind(checked):
    checked.says("pets", "two")
    (checked.folder / "pets" / "__init__.py").chmod(0o666)
    hanging = await Hanging.begin(checked, "other", SAYS.format(path="other", text="x", more=""))
    checked.remove("pets")
    await checked.catalog.take_away(["pets"])
    assert await hanging.end() == {"other": "added"}
    assert await checked.steps() == {"pets": "removed"}
    assert [each.name for each in checked.catalog.entries() if not each.system] == ["other"]


async def test_what_fails_beside_what_has_gone_is_not_checked_once_more(checked):
    gate = Gate(checked.folder.parent / "once")
    checked.write("base", BASE, names="NAME = 'one'\n")
    await checked.steps()
    checked.write("broken", f"{gate.line}\n1 / 0")
    checked.write("above", ABOVE)
    refresh = asyncio.create_task(checked.steps())
    held = await gate.reached()
    checked.remove("base")
    await checked.catalog.take_away(["base"])
    held.close()  # and whoever opens it once more waits for ever
    assert await refresh == {"broken": "failed", "above": "waiting"}
    assert checked.why("broken") == ["import-failed"]


async def test_what_is_gone_is_gone_while_a_lifespan_hangs_at_its_start(live, told):
    events, gate = told
    live.write("job", slow("job", "one"))
    await live.steps()
    hangs = """
        EVENTS.append("other starts")
        await GATE.wait()
        yield
        """
    source = SAYS.format(path="other", text="x", more=", lifespan=life").replace(
        "feature =", f"async def life(app):{textwrap.indent(hangs, '')}\nfeature ="
    )
    live.write("other", source)
    refresh = asyncio.create_task(live.steps())
    await events.until("other starts")
    live.remove("job")
    await live.catalog.take_away(["job"])
    assert await live.get("job") == 404
    await events.until("job one stops")
    gate.set()
    assert await refresh == {"other": "added"}
    assert await live.steps() == {"job": "removed"}


async def test_a_folder_that_is_renamed_serves_its_routes_without_a_gap(checked):
    gate = Gate(checked.folder.parent / "gate")
    gate.path.unlink()
    gate.path.touch()
    checked.write("pets", f"{gate.line}\n{SAYS.format(path='pets', text='two', more='')}")
    assert await checked.steps() == {"pets": "changed"}
    gate.path.unlink()
    os.mkfifo(gate.path)
    (checked.folder / "pets").rename(checked.folder / "animals")
    refresh = asyncio.create_task(checked.steps())
    held = await gate.reached()
    await asyncio.sleep(departures._TOGETHER_S * 1.5)
    assert await checked.get("pets") == "two"
    gate.open(held)
    said = set()
    while not refresh.done():
        said.add(await checked.get("pets"))
    assert await refresh == {"pets": "removed", "animals": "added"}
    assert said | {await checked.get("pets")} == {"two"}


@pytest.mark.parametrize("is_renamed", [False, True])
async def test_what_is_gone_waits_only_so_long_for_what_comes_with_it(
    checked, monkeypatch, is_renamed
):
    monkeypatch.setattr(departures, "_RENAMED_S", 0.1)
    to = checked.folder if is_renamed else checked.folder.parent
    (checked.folder / "pets").rename(to / "animals")
    is_changed = next_swap(checked)
    hanging = await Hanging.begin(checked, "new", SAYS.format(path="new", text="x", more=""))
    await is_changed.wait()
    assert await checked.get("pets") == 404
    assert (await hanging.end())["pets"] == "removed"
    assert await checked.get("pets") == ("one" if is_renamed else 404)


async def test_what_comes_back_behind_another_change_and_is_wrong_is_told_of(checked):
    hanging = await Hanging.begin(checked, "other", SAYS.format(path="other", text="x", more=""))
    checked.remove("pets")
    await checked.catalog.take_away(["pets"])
    checked.says("pets", "two")
    (checked.folder / "pets" / "__init__.py").chmod(0o666)
    assert await hanging.end() == {"other": "added"}
    changes = [(each.name, each.step) for each in await checked.catalog.refresh()]
    assert changes == [("pets", "removed"), ("pets", "failed")]
    assert checked.why("pets") == ["unsafe-permissions"]


CLASHES = SAYS.format(path="base", text="rival", more="")


async def test_a_route_of_what_goes_while_it_is_needed_is_given_to_who_waits_for_it(checked):
    source = BASE + SAYS.format(path="base", text="b", more=", lifespan=lifespan")
    checked.write("base", source, names="NAME = 'one'\n")
    checked.write("above", ABOVE)
    await checked.steps()
    checked.write("rival", CLASHES)
    assert await checked.steps() == {"rival": "failed"}
    hanging = await Hanging.begin(checked, "above", ABOVE)
    checked.remove("base")
    await checked.catalog.take_away(["base"])
    steps = {"base": "removed", "above": "waiting", "rival": "added"}
    assert await hanging.end() == steps
    assert await checked.get("base") == "rival"


async def test_a_route_of_what_goes_while_it_is_checked_is_given_to_who_comes_with_it(checked):
    checked.write("rival", CLASHES)
    hanging = await Hanging.begin(checked, "base", SAYS.format(path="base", text="b", more=""))
    checked.remove("base")
    await checked.catalog.take_away(["base"])
    steps = await hanging.end()
    assert steps | await checked.steps() == {"base": "removed", "rival": "added"}
    assert await checked.get("base") == "rival"


async def test_what_cannot_be_read_and_rests_on_what_goes_is_told_of_as_that(pair):
    (pair.folder / "above" / "__init__.py").chmod(0o666)
    moved = (pair.folder / "base").rename(pair.folder.parent / "moved")
    assert await pair.steps() == {"base": "removed", "above": "failed"}
    moved.rename(pair.folder / "base")
    assert await pair.steps() == {"base": "added"}
    assert await pair.get("above") == 404
    assert pair.why("above") == ["unsafe-permissions"]


async def test_what_was_refused_before_what_it_needs_goes_is_told_of_as_that(pair):
    file = pair.folder / "above" / "__init__.py"
    file.chmod(0o666)
    assert await pair.steps() == {"above": "refused"}
    moved = (pair.folder / "base").rename(pair.folder.parent / "moved")
    assert await pair.steps() == {"base": "removed", "above": "waiting"}
    assert pair.why("above") == ["unsafe-permissions"]
    moved.rename(pair.folder / "base")
    assert await pair.steps() == {"base": "added"}
    assert await pair.get("above") == 404
    file.chmod(0o644)
    assert await pair.steps() == {"above": "added"}


async def test_a_right_change_beside_a_broken_one_of_what_it_needs_is_taken_up(pair):
    pair.write("base", "def")
    pair.write("above", ABOVE + "# more\n")
    assert await pair.steps() == {"base": "refused", "above": "changed"}
    assert await pair.get("above") == "one one"


async def test_a_right_change_beside_a_refused_one_of_what_it_needs_is_taken_up(pair):
    pair.write("base", BASE, names="OTHER = 'two'\n")
    pair.write("above", ABOVE + "# more\n")
    assert await pair.steps() == {"base": "refused", "above": "changed"}
    assert await pair.get("above") == "one one"


async def test_who_has_a_route_and_changes_keeps_it_from_another_that_changes(live):
    live.says("aside", "a")
    assert await live.steps() == {"aside": "added"}
    live.write("aside", SAYS.format(path="pets", text="taken", more=""))
    live.says("pets", "two")
    assert await live.steps() == {"aside": "refused", "pets": "changed"}
    assert [await live.get(name) for name in ("pets", "aside")] == ["two", "a"]


async def test_what_waits_shows_what_has_not_ended_of_it(pair, monkeypatch):
    release = asyncio.Event()
    monkeypatch.setattr(builtins, "RELEASE", release, raising=False)
    ending = """async def lifespan(app):
    yield
    await RELEASE.wait()
"""
    source = ABOVE.replace("feature =", ending + "\nfeature =")
    pair.write("above", source.replace("(routes,", "(routes, lifespan=lifespan,"))
    assert await pair.steps() == {"above": "changed"}
    number = pair.entry("above").generation
    pair.remove("base")
    assert await pair.steps() == {"base": "removed", "above": "waiting"}
    assert [each.generation for each in pair.entry("above").draining] == [number]
    release.set()
    await _retired(pair)
    assert pair.entry("above").draining == ()
    assert pair.entry("above").state == "waiting"


async def test_what_goes_ahead_of_a_change_is_garbage_behind_it(checked, log_lines):
    hanging = await Hanging.begin(checked, "other", SAYS.format(path="other", text="x", more=""))
    traces = {"feature": ref(sys.modules["features.pets"].feature)}
    checked.remove("pets")
    await checked.catalog.take_away(["pets"])
    await _retired(checked)
    checked.catalog._current.retirement._collect()
    assert checked.catalog.leaked == ()
    await hanging.end()
    await _collected(traces.values())
    assert traces["feature"]() is None
    assert [x for x in log_lines() if "still in memory" in x["message"]] == []


# Whatever happens, in whatever order


class Churn:
    """Changes four folders at random, beside changes that hang, and knows what must be served.

    Attributes:
        done: what was done, for whoever has to find out why it went wrong.
    """

    NEEDS: Final = {"aa": (), "bb": ("aa",), "cc": ("bb", "aa"), "dd": ()}
    SOURCE: Final = """
        from petsage import Feature, Routes
        {imports}
        WORD = "{word}"
        routes = Routes()

        @routes.get("/{name}")
        async def say() -> dict[str, list[str]]:
            return {{"says": [WORD{words}]}}

        async def lifespan(app):
            if "{name}" in HELD:
                REACHED.set()
                await HELD["{name}"].wait()
            {then}
            RUNNING.append(WORD)
            yield
            RUNNING.remove(WORD)

        feature = Feature(routes, needs={needs}, lifespan=lifespan)
        """

    def __init__(self, live: Live, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[Any] = [seed]
        self.held: dict[str, asyncio.Event] = {}
        self.reached = asyncio.Event()
        self.running: list[str] = []
        for name, value in (("HELD", self.held), ("REACHED", self.reached)):
            monkeypatch.setattr(builtins, name, value, raising=False)
        monkeypatch.setattr(builtins, "RUNNING", self.running, raising=False)
        self._live = live
        self._random = random.Random(seed)
        self._there: dict[str, tuple[str, bool]] = {}  # the word, and whether it is right
        self._pending: set[str] = set()
        self._went: set[str] = set()
        self._standing: set[str] = set()
        self._words: dict[str, set[str]] = {name: set() for name in self.NEEDS}  # may be served

    async def round(self) -> None:
        """Some changes, one of which may hang while others are made; then all is held true."""
        for _ in range(self._random.choice((1, 1, 2, 4))):
            self._change()
        if self._random.random() < 0.6:
            await self._hang()
        while self._pending:
            names, self._pending = self._pending, set()
            await self._live.catalog.refresh(names)
        assert await self._live.steps() == {}
        await self._hold()

    def _change(self) -> None:
        name = self._random.choice([*self.NEEDS])
        if name in self._there and self._random.random() < 0.4:
            self._live.remove(name)
            del self._there[name]
            self._went.add(name)
            self.done.append(f"remove {name}")
        else:
            self._write(name, self._random.choice(("right", "right", "raises", "falls", "unsafe")))
        self._pending.add(name)

    def _write(self, name: str, kind: str) -> None:
        word = f"w{len(self.done)}"
        source = textwrap.dedent(self.SOURCE).format(
            name=name,
            word=word,
            needs=self.NEEDS[name],
            imports="\n".join(f"from features.{x} import WORD as {x}" for x in self.NEEDS[name]),
            words="".join(f", {need}" for need in self.NEEDS[name]),
            then="1 / 0" if kind == "falls" else "",
        )
        self._live.write(name, source + ("1 / 0\n" if kind == "raises" else ""))
        file = self._live.folder / name / "__init__.py"
        file.chmod(0o666 if kind == "unsafe" else 0o644)
        self._there[name] = word, kind == "right"
        if kind == "right":
            self._words[name].add(word)
        self.done.append(f"write {name} {word} {kind}")

    async def _hang(self) -> None:
        """A change that waits in a lifespan, and others beside it."""
        catalog, name = self._live.catalog, self._random.choice([*self.NEEDS])
        self._write(name, "right")
        release = self.held[name] = asyncio.Event()
        self.reached.clear()
        names, self._pending = {*self._pending, name}, set()
        hanging = asyncio.create_task(catalog.refresh(names))
        reached = asyncio.create_task(self.reached.wait())
        await asyncio.wait((hanging, reached), return_when=asyncio.FIRST_COMPLETED)
        reached.cancel()
        self.done.append(f"hang {name}")
        for _ in range(self._random.randint(1, 4)):
            self._change()
            if self._random.random() < 0.6:
                await catalog.take_away(self._pending)
                gone = self._pending - names - self._there.keys()
                assert {await self._live.get(each) for each in gone} <= {404}, self.done
        del self.held[name]
        release.set()
        await hanging

    async def _hold(self) -> None:
        said = {name: await self._live.get(name) for name in self.NEEDS}
        entries = [each for each in self._live.catalog.entries() if not each.system]
        draining = {each.name for each in entries if each.draining}
        shown = {each.name: each.state for each in entries if each.state != "draining"}
        assert shown.keys() - {"pets"} == self._there.keys(), self.done
        for name, needs in self.NEEDS.items():
            context = name, said, self.done
            stands = said[name] != 404
            assert stands == (shown.get(name) == "serving"), context
            if stands or name not in draining:  # the modules leave with what drains
                assert stands == (f"features.{name}" in sys.modules), context
            if name not in self._there:
                continue
            word, is_right = self._there[name]
            if all(said[need] != 404 for need in needs):
                words = [word, *(said[need][0] for need in needs)]
                below = {name, *needs, *(each for need in needs for each in self.NEEDS[need])}
                goes_on = name in self._standing and not below & self._went
                has_to_stand = is_right or goes_on
                assert not is_right or said[name] == words, context
            else:
                has_to_stand = False
                assert not stands, context
            if stands:
                assert said[name][1:] == [said[need][0] for need in needs], context
                assert said[name][0] in self._words[name], context
            assert stands or not has_to_stand, context
        await _retired(self._live)
        assert sorted(self.running) == sorted(x[0] for x in said.values() if x != 404), self.done
        # What is right, and waits, may be served before what is written behind it is looked at.
        right = {name: word for name, (word, is_right) in self._there.items() if is_right}
        self._words = {name: {right[name]} if name in right else set() for name in said}
        for name, x in said.items():
            self._words[name] |= {x[0]} if x != 404 else set()
        self._standing = {name for name, x in said.items() if x != 404}
        self._went.clear()


@pytest.mark.parametrize("seed", [1, 26])
async def test_what_is_served_is_what_the_folders_hold_whatever_happened(monkeypatch, live, seed):
    churn = Churn(live, seed, monkeypatch)
    for _ in range(30):
        await churn.round()
    for handler in logging.getLogger().handlers:
        getattr(handler, "records", []).clear()  # pytest keeps the tracebacks
    await _collected(trace.thing for trace in live.catalog._current.retirement._traces)
    assert live.catalog.leaked == ()
