"""Features start in the order of their needs, serve, and stop; what fails is set aside."""

import asyncio
import logging
import re
import sys
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from petsage.app import create_app
from petsage.catalog import CATALOG
from petsage.errors import StartError
from petsage.snapshot import PACKAGE
from tests.conftest import lines_at

TOP = """
import asyncio, logging
from typing import Annotated, Any, Callable, Literal, Optional, Protocol, TypedDict
from petsage import AppKey, Feature, FromApp, Routes, SETTINGS
routes = Routes()
log = logging.getLogger(__name__)
"""


@pytest.fixture
def petsage_settings(petsage_settings, tmp_path):
    """The settings, with the test's own folder of features and a short limit."""
    catalog = {"folders": [tmp_path / "features"], "start_timeout_s": 0.2}
    return changed(petsage_settings, catalog=catalog)


def changed(settings, *, catalog=None, **tables):
    update = {**tables, "catalog": settings.catalog.model_copy(update=catalog or {})}
    return settings.model_copy(update=update)


@pytest.fixture
async def start(petsage_settings, log_pipeline):
    """Call it to start an application, as the server does, without listening."""
    apps = []

    async def start(settings=petsage_settings, **options):
        app = create_app(settings, **options)
        runner = web.AppRunner(app)
        apps.append(runner)
        await runner.setup()
        return app

    yield start
    for runner in reversed(apps):
        await runner.cleanup()


@pytest.fixture
def write(feature_folder):
    """Call it to write a feature whose lifespan is `start`, `yield`, `stop`."""

    def write(name, start="pass", stop="pass", *, more="", routes="", top=""):
        feature_folder(
            name,
            f"{TOP}{top}\n{routes}\nasync def lifespan(app):\n    {start}\n    yield\n    {stop}\n"
            f"feature = Feature(routes, lifespan=lifespan{more})\n",
        )

    return write


def entry(app, name):
    return next(each for each in app[CATALOG].entries() if each.name == name)


def states(app):
    return {each.name: each.state for each in app[CATALOG].entries() if not each.system}


def messages(log_lines, logger="petsage"):
    return [line["message"] for line in log_lines() if line["logger"].startswith(logger)]


async def answer(app, path) -> Any:
    """What a GET is answered by the application's handler."""
    request = make_mocked_request("GET", path, app=app)
    match, _ = await app[CATALOG].resource.resolve(request)
    request._match_info = match
    return await match.handler(request)


# Lifespans


async def test_lifespans_start_in_the_order_of_needs_and_stop_in_reverse(start, write, log_lines):
    for name, needs in {"a": "('b', 'c')", "b": "('c',)", "c": "()"}.items():
        write(name, "log.info('starts')", "log.info('stops')", more=f", needs={needs}")

    app = await start()
    await app[CATALOG].stop()

    assert [
        (line["logger"], line["message"])
        for line in log_lines()
        if line["logger"].startswith("features.")
    ] == [
        ("features.c", "starts"),
        ("features.b", "starts"),
        ("features.a", "starts"),
        ("features.a", "stops"),
        ("features.b", "stops"),
        ("features.c", "stops"),
    ]


@pytest.mark.parametrize(
    "raised",
    [
        "raise OSError('no disk')",
        "import sys; sys.exit(2)",
        "raise KeyboardInterrupt",
        "raise GeneratorExit",
        "raise asyncio.CancelledError",
        "raise TimeoutError",
        "raise StopAsyncIteration",
        "return",
        "class Odd(Exception):\n        def __str__(self): 1 / 0\n    raise Odd",
    ],
)
async def test_whatever_a_lifespan_raises_sets_its_feature_aside_and_what_needs_it(
    start, write, log_lines, raised
):
    write("bad", raised)
    write("behind", more=", needs=('bad',)")
    write("good")

    app = await start()

    assert states(app) == {"bad": "failed", "behind": "waiting", "good": "serving"}
    (finding,) = entry(app, "bad").findings
    assert finding.id == "lifespan-failed"
    assert entry(app, "behind").why.endswith(
        "need-failed: it needs `bad`, which was set aside; fix: mend `bad` first"
    )
    (line,) = [line for line in log_lines() if line["message"].startswith("Feature bad is set")]
    assert "lifespan" in "".join(line["exc_info"])


@pytest.mark.parametrize(
    "hang",
    [
        "await asyncio.Event().wait()",
        "await asyncio.shield(asyncio.get_running_loop().create_future())",
        # It takes the cancellation for a failure of its own, and goes on.
        "await asyncio.wait([asyncio.create_task(asyncio.sleep(9), name='inner')])",
    ],
)
async def test_a_lifespan_that_hangs_at_its_start_is_cut_and_the_others_serve(start, write, hang):
    write("bad", f"{hang}")
    write("good")

    app = await start()

    assert states(app) == {"bad": "failed", "good": "serving"}
    (finding,) = entry(app, "bad").findings
    assert (finding.id, finding.line) == ("lifespan-timeout", 10)
    for task in asyncio.all_tasks():
        if task.get_name() == "inner":
            task.cancel()


async def test_a_lifespan_that_goes_on_after_it_was_cut_is_stopped_all_the_same(
    start, write, log_lines
):
    write(
        "bad",
        "try:\n        await asyncio.Event().wait()\n"
        "    except asyncio.CancelledError:\n        log.info('goes on')",
        "log.info('stops')",
    )

    app = await start()

    assert entry(app, "bad").findings[0].id == "lifespan-timeout"
    assert messages(log_lines, "features.bad") == ["goes on", "stops"]


@pytest.mark.parametrize(
    ("stop", "said"),
    [
        ("raise OSError('no disk')", "Feature bad did not stop cleanly"),
        ("raise SystemExit", "Feature bad did not stop cleanly"),
        ("raise asyncio.CancelledError", "Feature bad did not stop cleanly"),
        ("yield", "Feature bad did not stop cleanly"),
        ("await asyncio.Event().wait()", "Feature bad did not stop within 0.2 s, and was cut"),
    ],
)
async def test_one_that_does_not_stop_is_named_and_the_others_stop(
    start, write, log_lines, stop, said
):
    write("a_first", stop="log.info('stops')")
    write("bad", stop=stop)
    write("c_last", stop="log.info('stops')")

    app = await start()
    await app[CATALOG].stop()

    assert said in messages(log_lines)
    assert messages(log_lines, "features.") == ["stops", "stops"]


async def test_a_lifespan_starts_and_stops_in_one_task(start, write, log_lines):
    write(
        "pets",
        "async with asyncio.TaskGroup() as group:\n        group.create_task(asyncio.sleep(0))",
    )
    write(
        "held",
        "here = asyncio.current_task()",
        "log.info('same' if asyncio.current_task() is here else 'another')",
    )

    app = await start()
    await asyncio.create_task(app[CATALOG].stop())

    assert messages(log_lines, "features.") == ["same"]


async def test_signals_of_the_application_run_at_its_stop(start, write, log_lines):
    write(
        "pets",
        "async def bye(app):\n        log.info('bye')\n"
        "    app.on_shutdown.append(bye)\n    app.on_cleanup.append(bye)",
        "log.info('stops')",
    )

    app = await start()
    await app[CATALOG].stop()

    assert sorted(messages(log_lines, "features.")) == ["bye", "bye", "stops"]


async def test_a_start_that_is_cancelled_stops_what_has_started(write, petsage_settings, log_lines):
    write("a_first", "log.info('starts')", "log.info('stops')")
    write("b_slow", "log.info('waits')\n    await asyncio.Event().wait()")
    waits = asyncio.Event()
    logger = logging.getLogger("features.b_slow")

    def note(_) -> bool:
        waits.set()
        return True

    logger.addFilter(note)
    runner = web.AppRunner(create_app(changed(petsage_settings, catalog={"start_timeout_s": 60})))
    task = asyncio.create_task(runner.setup())
    await waits.wait()
    logger.removeFilter(note)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert messages(log_lines, "features.") == ["starts", "waits", "stops"]
    assert not [each for each in asyncio.all_tasks() if "lifespan" in each.get_name()]


# Required and disabled features, and settings of none


@pytest.mark.parametrize(
    "said",
    [
        "the required feature 'bad' does not serve: ",
        "names 'god', and there is no such feature; fix: did you mean `good`?",
        "the required feature 'off' does not serve: disabled",
    ],
)
async def test_a_required_feature_that_does_not_serve_stops_the_start_and_all_that_started(
    start, write, petsage_settings, log_lines, said
):
    write("good", "log.info('starts')", "log.info('stops')")
    write("bad", "1 / 0")
    write("off")

    required = said.split("'")[1]
    settings = changed(petsage_settings, catalog={"required": [required], "disabled": ["off"]})

    with pytest.raises(StartError, match=re.escape(said)):
        await start(settings)

    assert messages(log_lines, "features.good") == ["starts", "stops"]
    assert not [name for name in sys.modules if name.startswith(f"{PACKAGE}.good")]


async def test_a_required_feature_that_serves_beside_a_duplicate_lets_the_server_start(
    start, feature_folder, petsage_settings, tmp_path
):
    source = f"{TOP}feature = Feature(routes)"
    feature_folder("pets", source)
    feature_folder("../more/pets", source)
    folders = [tmp_path / "features", tmp_path / "more"]

    app = await start(changed(petsage_settings, catalog={"required": ["pets"], "folders": folders}))

    assert [each.state for each in app[CATALOG].entries() if not each.system] == [
        "serving",
        "failed",
    ]


async def test_names_in_the_settings_that_no_folder_has_are_warned_of(
    start, write, petsage_settings, log_lines, tmp_path
):
    write("pets")
    write("off")
    settings = changed(
        petsage_settings,
        catalog={
            "disabled": ["off", "ofv"],
            "folders": [tmp_path / "features", tmp_path / "missing"],
        },
        features={"pest": {"limit": 1}, "off": {"limit": 1}},
    )

    app = await start(settings)

    assert states(app) == {"pets": "serving", "off": "disabled"}
    missing = "and there is no such feature; did you mean"
    assert [line["message"] for line in lines_at(log_lines(), "WARNING")] == [
        f"There is no folder {tmp_path / 'missing'} to find features in",
        f"The settings have a table [features.pest], {missing} `pets`?",
        f"The settings have 'ofv' in [catalog].disabled, {missing} `off`?",
    ]


async def test_no_warning_is_given_of_features_that_were_not_asked_for(
    start, write, petsage_settings, log_lines
):
    write("pets")
    write("other")
    tables = {"other": {"limit": 1}, "elsewhere": {"limit": 1}}
    settings = changed(petsage_settings, catalog={"required": ["other"]}, features=tables)

    app = await start(settings, only="pets")

    assert states(app) == {"pets": "serving"}
    assert lines_at(log_lines(), "WARNING") == []


# Values


ROUTE = """
KEY = AppKey("KEY", object)
class Walks(Protocol):
    def walk(self) -> None: ...
class Named(TypedDict):
    name: str
@routes.get("/{name}")
async def answer(value: Annotated[{type}, FromApp(KEY)]) -> str:
    return repr(value)
"""


def route(kind, name="pets"):
    return ROUTE.replace("{type}", kind).replace("{name}", name)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("int", "5"),
        ("int | None", "None"),
        ("Optional[int]", "5"),
        ("Any", "'any'"),
        ("list[int]", "[1]"),
        ("Callable[[], None]", "print"),
        ("Literal['a', 'b']", "'a'"),
        ("Walks", "object()"),
        ("Named", "{'name': 'Rex'}"),
        ("None", "None"),
    ],
)
async def test_a_value_of_the_annotated_type_is_given(start, write, kind, value):
    write("pets", f"app[KEY] = {value}", routes=route(kind))

    app = await start()

    assert entry(app, "pets").findings == ()


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [("int", "int"), ("int | None", "int | None"), ("list[int]", "list"), ("Optional[int]", "Opt")],
)
async def test_a_value_of_another_type_is_a_finding_and_the_lifespan_ends(
    start, write, log_lines, kind, wanted
):
    write("pets", "app[KEY] = 'five'", "log.info('stops')", routes=route(kind))

    app = await start()

    (finding,) = entry(app, "pets").findings
    assert finding.id == "no-value"
    assert f"is a str, and `value` wants a {wanted}" in finding.problem.replace("typing.", "")
    assert messages(log_lines, "features.") == ["stops"]


async def test_a_value_comes_from_the_own_application_then_from_those_it_needs(
    start, feature_folder, write
):
    write("owner", "app[KEY] = 'of the owner'", routes=route("str", "owner"))
    borrowed = route("str", "borrower").replace('KEY = AppKey("KEY", object)', "")
    top = "from features.owner import KEY\n"
    write("borrower", more=", needs=('owner',)", top=top, routes=borrowed)
    write(
        "own",
        "app[KEY] = 'its own'",
        more=", needs=('owner',)",
        top=top,
        routes=borrowed.replace("borrower", "own"),
    )

    app = await start()

    assert (await answer(app, "/api/v1/borrower")).body == b"\"'of the owner'\""
    assert (await answer(app, "/api/v1/own")).body == b"\"'its own'\""


# Two catalogs


async def test_two_catalogs_in_one_process_have_their_own_modules_and_give_all_back(
    start, feature_folder, petsage_settings
):
    before = {name for name in sys.modules if name.partition(".")[0] == PACKAGE}
    source = f"{TOP}@routes.get('/n')\nasync def n() -> int:\n    return {{}}\n"
    source += "feature = Feature(routes)"
    feature_folder("pets", source.format(1))
    first = await start()
    module = sys.modules["features.pets"]
    feature_folder("pets", source.format(2))
    second = await start()

    assert sys.modules["features.pets"] is not module
    assert (await answer(first, "/api/v1/n")).body == b"1"
    assert (await answer(second, "/api/v1/n")).body == b"2"

    await second[CATALOG].stop()
    assert sys.modules["features.pets"] is module
    await first[CATALOG].stop()
    assert {name for name in sys.modules if name.partition(".")[0] == PACKAGE} == before


async def test_after_a_stop_nothing_is_served(start, write):
    write("pets")
    app = await start()
    assert app[CATALOG].table.routes != ()

    await app[CATALOG].stop()

    assert app[CATALOG].table.routes == ()
