"""What operators look at and change while PetSage runs: its features, and levels of loggers."""

import logging
import time
from collections.abc import AsyncIterator, Collection, Iterable
from typing import Annotated, Final, NoReturn

from aiohttp import hdrs, web
from pydantic import BaseModel, ConfigDict, Field

from petsage import Feature, FromApp, Problem, Routes
from petsage.catalog import CATALOG, Catalog
from petsage.entry import Entry
from petsage.errors import PetSageError, StartError, nearest
from petsage.feature_report import (
    ChangesModel,
    FeatureModel,
    describe_change,
    describe_feature,
)
from petsage.health import PROCESS_STATE, ProcessState
from petsage.loader import find_folders
from petsage.logs.levels import ROOT, LevelChanges, LoggerLevel, TooManyLoggersError
from petsage.management import guarded
from petsage.settings import AnyCaseLevel
from petsage.worker import in_thread

_log = logging.getLogger(__name__)

MAX_TTL_S: Final = 86_400.0

routes = Routes(tags=("Management",))


class LoggerModel(BaseModel):
    """A logger as it is now."""

    model_config = ConfigDict(defer_build=True)

    name: str = Field(description="`root` for the root logger.", examples=["features.pets"])
    level: str | None = Field(
        description="Its own level; null where it goes by its parents'.", examples=["DEBUG"]
    )
    effective_level: str = Field(description="The level from which on it logs.", examples=["DEBUG"])
    reverts_to: str | None = Field(
        description="What its level goes back to by itself; null for its parents', or never."
    )
    reverts_in_s: float | None = Field(
        description="In how many seconds that is; null where it does not go back.", examples=[42.5]
    )


class LevelChange(BaseModel):
    """A level that a logger is to have."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    level: AnyCaseLevel | None = Field(
        description="The level; null for that of the logger's parents.", examples=["DEBUG"]
    )
    ttl_s: float | None = Field(
        None,
        gt=0,
        le=MAX_TTL_S,
        description="After so many seconds it goes back by itself; null for when PetSage stops.",
        examples=[60],
    )


class ReloadRequest(BaseModel):
    """What is to be looked at."""

    model_config = ConfigDict(extra="forbid")

    names: list[str] | None = Field(
        None,
        min_length=1,
        max_length=10_000,
        description="The folders of these features; null for all.",
        examples=[["pets"]],
    )


LEVELS: Final = web.AppKey("levels", LevelChanges)


async def lifespan(app: web.Application) -> AsyncIterator[None]:
    """Keeps what is changed, and undoes it when the core stops."""
    app[LEVELS] = LevelChanges()
    yield
    app[LEVELS].revert_all()


@routes.get("/features", summary="List the features")
async def list_features(catalog: Annotated[Catalog, FromApp(CATALOG)]) -> list[FeatureModel]:
    """Every feature: what serves, what was set aside or refused and why, what is not wanted."""
    required, leaked = catalog.required, catalog.leaked
    return [
        describe_feature(entry, required=entry.name in required, leaked=leaked)
        for entry in catalog.entries()
    ]


@routes.get("/features/{name}", summary="Show one feature", answers={404: Problem})
async def get_feature(name: str, catalog: Annotated[Catalog, FromApp(CATALOG)]) -> FeatureModel:
    """One feature, by its folder's name."""
    entries = catalog.entries()
    for entry in entries:
        if entry.name == name:
            return _feature_model(entry, catalog)
    raise _no_feature([name], {entry.name for entry in entries})


@routes.get(
    "/features/reload", summary="Show the feature that is called reload", answers={404: Problem}
)
async def get_feature_called_reload(
    catalog: Annotated[Catalog, FromApp(CATALOG)],
) -> FeatureModel:
    """The feature whose folder is called `reload`, as any other is shown by its name."""
    return await get_feature("reload", catalog)


@routes.post(
    "/features/reload",
    summary="Take up what changed in the folders",
    answers={404: Problem, 503: Problem},
)
async def reload_features(
    catalog: Annotated[Catalog, FromApp(CATALOG)],
    state: Annotated[ProcessState, FromApp(PROCESS_STATE)],
    wanted: ReloadRequest | None = None,
) -> ChangesModel:
    """Looks at the folders, and answers with what changed once that is current.

    What is refused or fails is an answer like another: its findings say why; what was so before is
    tried again. A change goes on to its end though the client goes away; of two reloads, the
    second waits for the first.
    """
    if state.phase != "ready":
        raise Problem(
            503,
            f"PetSage is {state.phase}, and nothing is changed by hand meanwhile",
            headers={hdrs.RETRY_AFTER: "1"},
        )
    started = time.perf_counter()
    named = wanted.names if wanted is not None else None
    names = frozenset(named) if named is not None else None
    await _require_features(names or (), catalog)
    _log.info("Folders are looked at by hand: %s", ", ".join(sorted(names or ())) or "all")
    try:
        changes = await catalog.refresh(names, again=True)
    except PetSageError as error:
        raise Problem(503, str(error)) from error
    return ChangesModel(
        changes=[describe_change(each) for each in changes],
        generation=catalog.generation,
        took_ms=round((time.perf_counter() - started) * 1000, 1),
    )


@routes.get("/loggers", summary="List the loggers")
async def list_loggers(levels: Annotated[LevelChanges, FromApp(LEVELS)]) -> list[LoggerModel]:
    """Every logger with its own level and the one that it goes by."""
    return [_logger_model(each) for each in levels.all()]


@routes.get("/loggers/{name}", summary="Show one logger", answers={404: Problem})
async def get_logger(name: str, levels: Annotated[LevelChanges, FromApp(LEVELS)]) -> LoggerModel:
    """One logger, by its name."""
    return _logger_model(levels.get(name) or _no_logger())


@routes.put(
    "/loggers/{name}", summary="Change a logger's level", answers={404: Problem, 409: Problem}
)
async def change_logger(
    name: Annotated[str, Field(max_length=200, pattern=r"^[\w-]+(\.[\w-]+)*$")],
    change: LevelChange,
    levels: Annotated[LevelChanges, FromApp(LEVELS)],
) -> LoggerModel:
    """Gives a logger a level, for a while or until PetSage stops; the log says so.

    A change that lasts a while takes the place of another such, and goes back to what was before
    both. A logger that is not there is made.
    """
    if name == ROOT and change.level is None:
        raise Problem(422, "The root logger has no parents whose level it could have")
    try:
        return _logger_model(levels.change(name, change.level, change.ttl_s))
    except TooManyLoggersError:
        raise Problem(
            409, "There is no logger of this name, and no more are made; GET /loggers has all"
        ) from None


@routes.delete(
    "/loggers/{name}", summary="Undo the changes of a logger's level", answers={404: Problem}
)
async def revert_logger(name: str, levels: Annotated[LevelChanges, FromApp(LEVELS)]) -> LoggerModel:
    """Gives a logger the level that it had before the first change, at once."""
    return _logger_model(levels.revert(name) or _no_logger())


def _no_logger() -> NoReturn:
    raise Problem(404, "There is no logger of this name")


async def _require_features(names: Collection[str], catalog: Catalog) -> None:
    """Refuses names that neither a folder nor a feature from one has.

    Raises:
        Problem: 404, one of them is wrong; it says which is near. 503, a folder of features
            cannot be read.
    """
    if not names:
        return
    try:
        folders = await in_thread(lambda: list(find_folders(catalog.folders)))
    except StartError as error:
        raise Problem(503, str(error)) from error
    known = {path.name for path in folders}
    known.update(entry.name for entry in catalog.entries() if not entry.system)
    wrong = sorted(name for name in names if name not in known)
    if wrong:
        raise _no_feature(wrong, known)


def _no_feature(names: Iterable[str], known: Collection[str]) -> Problem:
    said = []
    for name in names:
        near = nearest(name, known)
        hint = f"did you mean `{near}`?" if near is not None else "GET /features has all"
        said.append(f"There is no feature `{name}`; {hint}")
    return Problem(404, " ".join(said))


def _feature_model(entry: Entry, catalog: Catalog) -> FeatureModel:
    required = entry.name in catalog.required
    return describe_feature(entry, required=required, leaked=catalog.leaked)


def _logger_model(level: LoggerLevel) -> LoggerModel:
    return LoggerModel(
        name=level.name,
        level=level.level,
        effective_level=level.effective,
        reverts_to=level.reverts_to,
        reverts_in_s=level.reverts_in_s,
    )


feature = Feature(routes, mount="", lifespan=lifespan, middlewares=(guarded,))
