"""What a feature may say, and each thing that it cannot mean: its id, its fix and its line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from petsage.errors import FINDINGS, Finding
from petsage.loader import load_features, unload
from petsage.testing import FeatureClient, FeatureFolder
from tests.documented import HEAD, TAIL, Server, find_operations


@pytest.fixture
def serve(feature_client: FeatureClient, feature_folder: FeatureFolder) -> Server:
    return Server(feature_client, feature_folder)


class Checker:
    """Writes a feature and gives what is wrong with it."""

    def __init__(self, folder: FeatureFolder) -> None:
        self._folder = folder
        self._candidates: list[Any] = []
        self.source = ""

    def __call__(self, source: str, tail: str = TAIL) -> list[Finding]:
        self.source = f"{HEAD}{source}{tail}"
        path: Path = self._folder("probe", self.source)
        self._candidates = load_features([path.parent], settings={})
        (candidate,) = self._candidates
        return list(candidate.findings)

    def line_of(self, text: str) -> int:
        """The line, from 1, on which a text stands first."""
        return self.source[: self.source.index(text)].count("\n") + 1

    def close(self) -> None:
        unload(self._candidates)


@pytest.fixture
def check(feature_folder: FeatureFolder) -> Iterator[Checker]:
    checker = Checker(feature_folder)
    yield checker
    checker.close()


MODELS = """
class Pet(BaseModel):
    name: str

class Nested(BaseModel):
    pet: Pet

class Open(BaseModel):
    other: "Undefined"

KEY = AppKey("KEY", int)
"""

PLACE, TYPE, ANSWER = "bad-parameter", "bad-annotation", "bad-answer"

# A handler's arguments and annotation, the id of what is wrong, what is said of it, and its fix.
SIGNATURES = {
    "no annotation": ("id", "int", TYPE, "`id` of `h` has no ann", "`id: str`"),
    "not there": ("id: 'Nope'", "int", TYPE, "annotation of `id` of `h`", "import what"),
    "nested not there": ("id: 'list[Nope]' = []", "int", TYPE, "'Nope'", "import what"),
    "not JSON": ("id: object.__init__ = 1", "int", TYPE, "`id` of `h` is none", "From"),
    "an object": ("id: web.Application", "int", TYPE, "none that JSON", "FromApp(KEY)"),
    "undefined model": ("id: Open", "int", TYPE, "not fully defined", "pydantic knows"),
    "stars": ("*ids: int", "int", PLACE, "`*ids`", "each argument by its name"),
    "two stars": ("**ids: int", "int", PLACE, "`**ids`", "each argument by its name"),
    "position": ("id: int = 1, /", "int", PLACE, "by position only", "take the `/` out"),
    "position of request": ("r: Request, /", "int", PLACE, "by position", "take the `/`"),
    "from nowhere": ("id: int", "int", PLACE, "not in the path", "`id: Annotated[…, Q"),
    "list from nowhere": ("id: list[int]", "int", PLACE, "not in the path", "give it a d"),
    "body on GET": ("pet: Pet", "int", PLACE, "a GET has no body", "`Body()` for a body"),
    "body with default": ("pet: Pet | None = None", "int", PLACE, "no body", "`Body()`"),
    "nested query": (
        "n: Annotated[Nested, Query()]", "int", PLACE, "no scalar", "a model of scalars",
    ),
    "model in header": ("n: Annotated[Pet, Header()]", "int", PLACE, "no scalar", "use a"),
    "model in cookie": ("n: Annotated[Pet, Cookie()]", "int", PLACE, "no scalar", "use a"),
    "list in cookie": (
        "n: Annotated[list[int], Cookie()]", "int", PLACE, "a cookie has one", "a scalar",
    ),
    "two bodies": (
        "a: Annotated[Pet, Body()], b: Annotated[Pet, Body()]",
        "int", PLACE, "`a` and `b` of `h` both want the body", "make them one model",
    ),
    "two requests": ("a: Request, b: Request", "int", PLACE, "both are", "take one of"),
    "two markers": (
        "a: Annotated[int, Query(), Header()]", "int", PLACE, "`Query` and `Header`", "keep",
    ),
    "one name twice": (
        "a: Annotated[int, Query('x')], x: int = 1",
        "int", PLACE, "both want the query's 'x'", "give one another name",
    ),
    "one header twice": (
        "a: Annotated[int, Header('X')], x: Annotated[int, Header()]",
        "int", PLACE, "both want the header's 'x'", "another name",
    ),
    "model beside a scalar": (
        "a: Annotated[Pet, Query()], page: int = 1",
        "int", PLACE, "both want all of the query", "a member of the other",
    ),
    "marker as default": (
        "limit: int = Query(5)", "int", PLACE, "is a `Query(…)`", "Annotated[…, Query(…)] =",
    ),
    "field as default": (
        "limit: int = Field(5)", "int", PLACE, "is a `Field(…)`", "Annotated[…, Field(…)] =",
    ),
    "default in the annotation": (
        "limit: Annotated[int, Field(default=5)]",
        "int", PLACE, "stands in its annotation", "`limit: Annotated[…] = default`",
    ),
    "key left out": ("a: Annotated[int, FromApp]", "int", PLACE, "is no key", "AppKey("),
    "key is a string": (
        "a: Annotated[int, FromApp('store')]", "int", PLACE, "'store'", "FromApp(KEY)",
    ),
    "no return annotation": ("id: int = 1", "", TYPE, "no return annotation", "-> dict"),
    "no arguments either": ("", "", TYPE, "no return annotation", "-> dict"),
    "return not there": ("", "'Nope'", TYPE, "the return annotation of `h`", "import what"),
    "return not JSON": ("", "web.Application", ANSWER, "nothing that JSON can", "return a mod"),
    "return a problem": ("", "int | Problem", ANSWER, "nothing that JSON can", "return a mod"),
    "return only a problem": ("", "Problem", ANSWER, "nothing that JSON", "raise the Problem"),
    "return a list of objects": ("", "list[web.View]", ANSWER, "nothing that JSON", "return a mod"),
}  # fmt: skip


@pytest.mark.parametrize("case", SIGNATURES.values(), ids=SIGNATURES)
def test_a_signature_that_means_nothing_is_refused(
    check: Checker, case: tuple[str, str, str, str, str]
) -> None:
    arguments, returns, kind, problem, fix = case
    arrow = f" -> {returns}" if returns else ""
    findings = check(
        f"""{MODELS}
@routes.get("/h")
async def h({arguments}){arrow}:
    return 1
"""
    )
    assert [each.id for each in findings] == [kind], findings
    (finding,) = findings
    assert finding.id in FINDINGS
    assert problem in finding.problem
    assert fix in finding.fix
    assert finding.file.endswith("features/probe/__init__.py")
    assert finding.line == check.line_of('@routes.get("/h")')


ROUTES = {
    "name without argument": ('"/h/{id}"', "path-mismatch", "`{id}`", "add the argument `id`"),
    "regex": (r'"/h/{id:\\d+}"', "bad-path", "no argument's name", "Field(pattern=…)"),
    "part of a segment": ('"/h/a{id}"', "bad-path", "has the segment 'a{id}'", "all of it"),
    "one name twice": ('"/h/{id}/{id}"', "bad-path", "twice", "its own name"),
    "tail in the middle": ('"/h/{id:path}/x"', "bad-path", "goes on after", "at the end"),
    "keyword": ('"/h/{class}"', "bad-path", "word of Python's own", "{class_}"),
    "no slash": ('"h"', "bad-path", "does not begin with a slash", "write '/h'"),
    "empty": ('""', "bad-path", "does not begin with a slash", "write '/'"),
    "slash at the end": ('"/h/"', "bad-path", "ends with a slash", "write '/api/v1/h'"),
    "only a slash": ('"/"', "bad-path", "ends with a slash", "write '/api/v1'"),
    "empty segment": ('"/h//x"', "bad-path", "has the segment ''", "use letters"),
    "dots": ('"/h/../x"', "bad-path", "has the segment '..'", "use letters"),
    "space": ('"/h x"', "bad-path", "has the segment 'h x'", "use letters"),
    "status": ('"/h", status=99', "bad-answer", "the status 99", "200 to 599"),
    "status as text": ('"/h", status="201"', "bad-answer", "the status '201'", "200 to 599"),
    "status as bool": ('"/h", status=True', "bad-answer", "the status True", "200 to 599"),
    "no body": ('"/h", status=204', "bad-answer", "which has no body", "return None"),
    "answers": ('"/h", answers=[503]', "bad-answer", "`answers` of `h`", "{503: Model}"),
    "answers' status": ('"/h", answers={42: int}', "bad-answer", "the status 42", "200 to 599"),
    "answers' name": ('"/h", answers={"a": int}', "bad-answer", "the status 'a'", "200 to 599"),
    "answers' model": ('"/h", answers={503: 5}', "bad-answer", "`answers[503]`", "give a model"),
    "answers' words": ('"/h", answers={503: "No"}', "bad-answer", "`answers[503]`", "give a model"),
    "media": ('"/h", answers={503: Media(5)}', "bad-answer", "content type", "give a model"),
    "no response": (
        '"/h", answers={503: Media({"text/plain": str})}',
        "bad-answer",
        "no response",
        "a model",
    ),
    "no problem": ('"/h", answers={200: Problem}', "bad-answer", "200 is no error", "400 to 599"),
    "summary": ('"/h", summary=5', "bad-answer", "`summary` of `h` is 5", "write a string"),
    "tags": ('"/h", tags=[5]', "bad-answer", "a tag of `h` is 5", "write strings"),
}


@pytest.mark.parametrize("case", ROUTES.values(), ids=ROUTES)
def test_a_route_that_means_nothing_is_refused(
    check: Checker, case: tuple[str, str, str, str]
) -> None:
    arguments, kind, problem, fix = case
    argument = "id: int" if "{id" in arguments and kind == "bad-path" else ""
    findings = check(
        f"""
@routes.get({arguments})
async def h({argument}) -> int:
    return 1
"""
    )
    assert [each.id for each in findings] == [kind], findings
    assert problem in findings[0].problem
    assert fix in findings[0].fix
    assert findings[0].line == check.line_of("@routes.get(")


HANDLERS = {
    "plain": ("def h() -> int:\n    return 1", "no `async def`", "asyncio.to_thread"),
    "generator": ("async def h():\n    yield 1", "is a generator", "web.StreamResponse"),
    "partial": (
        "import functools\nasync def f(x: int) -> int:\n    pass\nh = functools.partial(f, x=1)",
        "is no function", "write an `async def`",
    ),
    "object": (
        "class H:\n    async def __call__(self) -> int:\n        return 1\nh = H()",
        "is no function", "write an `async def`",
    ),
    "class": ("class h(web.View):\n    pass", "is no function", "write an `async def`"),
}  # fmt: skip


@pytest.mark.parametrize("case", HANDLERS.values(), ids=HANDLERS)
def test_a_handler_that_is_no_coroutine_function_is_refused(
    check: Checker, case: tuple[str, str, str]
) -> None:
    source, problem, fix = case
    (finding,) = check(f'{source}\nroutes.get("/h")(h)\n')
    assert finding.id == "handler-not-async"
    assert problem in finding.problem
    assert fix in finding.fix
    assert finding.line > 0


FEATURES = {
    "routes": ('Feature("routes")', "`routes`", "`Routes()`"),
    "no routes": ("Feature(None)", "`routes`", "`Routes()`"),
    "mount": ('Feature(routes, mount="api")', "`mount`", "/api/v1"),
    "mount root": ('Feature(routes, mount="/")', "`mount`", 'write ""'),
    "mount number": ("Feature(routes, mount=5)", "`mount`", "/api/v1"),
    "version": ("Feature(routes, version=1.0)", "`version`", '"1.0.0"'),
    "needs": ("Feature(routes, needs=[5])", "`needs`", 'needs=("pets",)'),
    "needs a number": ("Feature(routes, needs=5)", "`needs`", 'needs=("pets",)'),
    "settings": ("Feature(routes, settings={})", "`settings`", "the class itself"),
    "settings instance": ("Feature(routes, settings=Knobs())", "`settings`", "the class itself"),
    "lifespan": ("Feature(routes, lifespan=probe)", "`lifespan`", "yield"),
    "checks": ("Feature(routes, checks=[probe])", "`checks`", "Check(name, probe)"),
    "check": ('Feature(routes, checks=Check("a", print))', "`checks`", "async def probe"),
    "check's name": (
        'Feature(routes, checks=[Check("a", probe), Check("a", probe)])', "`checks`", "its own",
    ),
    "check's letters": (
        'Feature(routes, checks=[Check("a b", probe)])', "`checks`", "letters, digits",
    ),
    "check's time": ('Feature(routes, checks=[Check("a", probe, 0)])', "`checks`", "more than 0"),
    "middlewares": ("Feature(routes, middlewares=[probe])", "`middlewares`", "@web.middleware"),
    "middleware": ("Feature(routes, middlewares=5)", "`middlewares`", "@web.middleware"),
}  # fmt: skip


@pytest.mark.parametrize("case", FEATURES.values(), ids=FEATURES)
def test_a_feature_that_means_nothing_is_refused(
    check: Checker, case: tuple[str, str, str]
) -> None:
    call, problem, fix = case
    findings = check(
        """
class Knobs(BaseModel):
    pass

async def probe(app) -> None:
    pass

@routes.get("/h")
async def h() -> int:
    return 1
""",
        tail=f"\nfeature = {call}\n",
    )
    assert [each.id for each in findings] == ["bad-feature"], findings
    assert problem in findings[0].problem
    assert fix.replace("its own", "of its own") in findings[0].fix
    assert findings[0].line == check.line_of("feature = ")


def test_a_name_in_the_path_is_none_of_the_applications(check: Checker) -> None:
    (finding,) = check(
        """
KEY = AppKey("KEY", web.Application)
@routes.get("/h/{store}")
async def h(store: Annotated[web.Application, FromApp(KEY)]) -> int:
    return 1
"""
    )
    assert finding.id == "bad-parameter"
    assert "stands in the path, and is taken from an application" in finding.problem


def test_a_decorator_without_its_path_is_refused(check: Checker) -> None:
    (finding,) = check("@routes.get\nasync def h() -> int:\n    return 1\n")
    assert finding.id == "import-failed"
    assert '`@routes.get("/…")`' in finding.problem
    assert finding.line == check.line_of("@routes.get\n")


def test_a_misspelt_option_of_a_route_is_refused(check: Checker) -> None:
    (finding,) = check('@routes.get("/h", sumary="x")\nasync def h() -> int:\n    return 1\n')
    assert finding.id == "import-failed"
    assert "sumary" in finding.problem
    assert finding.line == check.line_of("@routes.get")


def test_a_prefix_without_a_slash_is_refused(check: Checker) -> None:
    findings = check(
        'pets = Routes("pets")\n@pets.get("/h")\nasync def h() -> int:\n    return 1\n',
        tail="\nfeature = Feature(pets)\n",
    )
    assert [(each.id, each.fix) for each in findings] == [("bad-path", "write '/pets'")]


def test_all_that_is_wrong_is_told_at_once(check: Checker) -> None:
    findings = check(
        """
@routes.get("/a/{id}/{name}", status=7, answers={1: int, 503: 5})
async def a(*rest: int, x, y: "Nope", z: int) -> web.Application:
    return 1

@routes.post("b", summary=5)
def b() -> int:
    return 1

@routes.get("/c/{n:int}")
async def c(n: int, m: "Nope") -> "Nope":
    return 1
""",
        tail='\nfeature = Feature(routes, mount="x", version=1)\n',
    )
    assert sorted((each.line, each.id) for each in findings) == sorted(
        [
            *((check.line_of("@routes.get(\"/a"), kind) for kind in [
                "bad-annotation", "bad-annotation", "bad-parameter", "bad-parameter",
                "path-mismatch", "path-mismatch", "bad-answer", "bad-answer", "bad-answer",
                "bad-answer",
            ]),
            *((check.line_of("@routes.post"), kind) for kind in [
                "bad-path", "handler-not-async", "bad-answer",
            ]),
            *((check.line_of("@routes.get(\"/c"), kind) for kind in [
                "bad-path", "bad-annotation", "bad-annotation",
            ]),
            *((check.line_of("feature = "), "bad-feature") for _ in range(2)),
        ]
    )  # fmt: skip
    assert all(each.fix for each in findings)


async def test_paths_are_mount_prefix_and_path(serve: Server) -> None:
    client = await serve(
        """
pets = Routes("/pets", tags="Pets")

@pets.get("")
async def all() -> str:
    return "all"

@pets.get("/{id}", tags=("One",))
async def one(id: int) -> str:
    return "one"

@routes.get("/other")
async def other() -> str:
    return "other"
""",
        tail='\nfeature = Feature([routes, pets], mount="/v2")\n',
    )
    for path, said in (("/v2/pets", "all"), ("/v2/pets/7", "one"), ("/v2/other", "other")):
        assert (await client.get(path)).json == said
    assert find_operations(client.document, "/v2/pets")["get"]["tags"] == ["Pets"]
    assert find_operations(client.document, "/v2/pets/7")["get"]["tags"] == ["Pets", "One"]
    assert find_operations(client.document, "/v2/other")["get"]["tags"] == ["probe"]


async def test_an_empty_mount_is_the_root(serve: Server) -> None:
    client = await serve(
        '@routes.get("/here")\nasync def here() -> int:\n    return 1\n',
        tail='\nfeature = Feature(routes, mount="")\n',
    )
    assert (await client.get("/here")).json == 1


async def test_one_handler_may_answer_several_routes(serve: Server) -> None:
    client = await serve(
        """
@routes.get("/a/{n}")
@routes.post("/b/{n}", status=201)
async def it(n: int) -> int:
    return n
"""
    )
    assert (await client.get("/api/v1/a/7")).json == 7
    assert (await client.request("POST", "/api/v1/b/8")).status == 201


async def test_middlewares_stand_around_each_handler_the_first_outermost(serve: Server) -> None:
    client = await serve(
        """
@web.middleware
async def outer(request, handler):
    response = await handler(request)
    response.headers["X-Order"] = response.headers["X-Order"] + " outer"
    return response

@web.middleware
async def inner(request, handler):
    if request.query.get("stop"):
        raise Problem(403, "Stopped")
    response = await handler(request)
    response.headers["X-Order"] = "inner"
    return response

@routes.get("/it")
async def it(n: int = 1) -> int:
    return n
""",
        tail="\nfeature = Feature(routes, middlewares=[outer, inner])\n",
    )
    answer = await client.get("/api/v1/it")
    assert (answer.json, answer.headers["X-Order"]) == (1, "inner outer")
    assert (await client.get("/api/v1/it?n=x")).status == 422
    assert (await client.get("/api/v1/it?stop=1")).json["detail"] == "Stopped"


async def test_a_lifespan_opens_before_the_first_request_and_closes_after_the_last(
    feature_client: FeatureClient, feature_folder: FeatureFolder, tmp_path: Path
) -> None:
    path = feature_folder(
        "probe",
        f"""{HEAD}
from pathlib import Path
STATE = AppKey("STATE", list)
FILE = Path({str(tmp_path)!r}) / "closed"

async def lifespan(app: web.Application) -> AsyncIterator[None]:
    app[STATE] = ["open"]
    yield
    FILE.write_text("closed")

@routes.get("/it")
async def it(request: Request, state: Annotated[list, FromApp(STATE)]) -> list[str]:
    return [*state, *request.app[STATE], *request.config_dict[STATE]]

feature = Feature(routes, lifespan=lifespan)
""",
    )
    client = await feature_client(path)
    async with client.get("/api/v1/it") as response:
        assert await response.json() == ["open"] * 3
    assert not (tmp_path / "closed").exists()
    await client.close()
    assert (tmp_path / "closed").read_text() == "closed"
