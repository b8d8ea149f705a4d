"""What is asked beside the smoke test, and of which server."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.peers.pet_models import NEW_PET
from benchmarks.servers import PATH, REPOSITORY, SERVERS, Server

FURTHER = "/api/v1/further"
FASTAPI = Server(
    name="fastapi_further",
    title="FastAPI, async def",
    arguments=("benchmarks.peers.fastapi_further",),
    access_logger="uvicorn.access",
    body_fields=frozenset(),
    logs="ours",
)
SLOW_BYTES_PER_S = 1_000_000
FEW_ROUTES = 10
MANY_ROUTES = 10_000

_FEATURES = REPOSITORY / "benchmarks" / "features"
_SHAPES = 5


@dataclass(frozen=True)
class Operation:
    """What is asked: `name` is one operation's alone.

    Attributes:
        ids: so many numbers are put at the path's end in turn, by chance.
        known: it says what it has already: True, the tag of the answer; False, another one.
    """

    name: str
    title: str
    path: str
    status: int = 200
    connections: int | None = None
    body: str | None = None
    ids: int | None = None
    known: bool | None = None


@dataclass(frozen=True)
class Session:
    """A server that is started once a round, and what it is asked.

    Attributes:
        pipe: PetSage's lines go to a pipe: drained at so many bytes/s, or 0 for as they come.
    """

    title: str
    server: Server
    operations: tuple[Operation, ...]
    features: Mapping[str, Path] = field(default_factory=dict)
    routes: int = FEW_ROUTES
    pipe: int | None = None


_PETSAGE = SERVERS["petsage"]
_FURTHER_FEATURE = {"further": _FEATURES / "further"}
_WIDE_FEATURE = {"wide": _FEATURES / "wide"}
SESSIONS = (
    Session(
        "PetSage",
        _PETSAGE,
        (
            Operation("nothing_one", "proves nothing", f"{FURTHER}/nothing", connections=1),
            Operation("smoke_one", "smoke test", PATH, connections=1),
            Operation("nothing", "proves nothing", f"{FURTHER}/nothing"),
            Operation("missing", "404", f"{FURTHER}/missing", status=404),
            Operation("fresh", "200 to a tag that is old", f"{FURTHER}/known", known=False),
            Operation("known", "304", f"{FURTHER}/known", status=304, known=True),
            Operation("post", "POST of 1 KB", f"{FURTHER}/pets", body=NEW_PET),
            Operation("list", "100 models", f"{FURTHER}/pets"),
            Operation(
                # As many different paths as among the many: what is compared is routes alone.
                *("few_routes", f"one of {FEW_ROUTES} routes", "/api/v1/wide/c1/"),
                ids=MANY_ROUTES // _SHAPES,
            ),
        ),
        features=_FURTHER_FEATURE | _WIDE_FEATURE,
    ),
    Session(
        f"PetSage with {MANY_ROUTES:,} routes",
        _PETSAGE,
        (
            Operation(
                *("many_routes", f"one of {MANY_ROUTES:,} routes", "/api/v1/wide/rex/a"),
                ids=MANY_ROUTES // _SHAPES,
            ),
        ),
        features=_WIDE_FEATURE,
        routes=MANY_ROUTES,
    ),
    Session(
        "FastAPI, async def, PetSage's logs",
        FASTAPI,
        (
            Operation("fastapi_post", "POST of 1 KB", f"{FURTHER}/pets", body=NEW_PET),
            Operation("fastapi_list", "100 models", f"{FURTHER}/pets"),
        ),
    ),
    Session(
        "aiohttp, bare json_response",
        SERVERS["aiohttp_bare"],
        (Operation("aiohttp_one", "the same answer", PATH, connections=1),),
    ),
    Session(
        "PetSage, its lines to a pipe that is read as they come",
        _PETSAGE,
        (Operation("quick_sink", "proves nothing", f"{FURTHER}/nothing"),),
        features=_FURTHER_FEATURE,
        pipe=0,
    ),
    Session(
        "PetSage, its lines to a pipe that is read at 1 MB/s",
        _PETSAGE,
        (Operation("slow_sink", "proves nothing", f"{FURTHER}/nothing"),),
        features=_FURTHER_FEATURE,
        pipe=SLOW_BYTES_PER_S,
    ),
)
