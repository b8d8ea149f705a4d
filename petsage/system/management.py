"""What operators look at and change while PetSage runs: its features, and levels of loggers."""

import dataclasses
from collections.abc import AsyncIterator
from typing import Annotated, Final, NoReturn

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from petsage import Feature, FromApp, Problem, Routes
from petsage.catalog import CATALOG, Catalog
from petsage.entry import Entry, State
from petsage.errors import Severity
from petsage.logs.levels import ROOT, LevelChanges, LoggerLevel, TooManyLoggersError
from petsage.management import guarded
from petsage.settings import AnyCaseLevel

MAX_TTL_S: Final = 86_400.0

routes = Routes(tags=("Management",))


class FindingModel(BaseModel):
    """One thing that is wrong with a feature."""

    id: str = Field(description="Its kind.", examples=["handler-not-async"])
    level: Severity = Field(description="An error sets the feature aside, a warning does not.")
    file: str = Field(description="The file.", examples=["features/pets/routes.py"])
    line: int = Field(description="The line, from 1; 0 for the file or folder as a whole.")
    problem: str = Field(description="What is wrong.", examples=["`feed` is no `async def`"])
    fix: str = Field(description="What mends it.", examples=["write `async def feed`"])


class FeatureModel(BaseModel):
    """A feature, and how it is doing."""

    name: str = Field(description="Its folder's name.", examples=["smoke_test"])
    version: str | None = Field(description="Its own version, where it could be read.")
    state: State = Field(description="Whether it serves, was set aside, or is not wanted.")
    required: bool = Field(description="Whether PetSage is unready without it.")
    system: bool = Field(description="Whether it is a part of the core.")
    routes: list[str] = Field(
        description="Method and path of each route.", examples=[["GET /api/v1/smoke-test"]]
    )
    findings: list[FindingModel] = Field(description="All that is wrong with it.")


class LoggerModel(BaseModel):
    """A logger as it is now."""

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


LEVELS: Final = web.AppKey("levels", LevelChanges)


async def lifespan(app: web.Application) -> AsyncIterator[None]:
    """Keeps what is changed, and undoes it when the core stops."""
    app[LEVELS] = LevelChanges()
    yield
    app[LEVELS].revert_all()


@routes.get("/features", summary="List the features")
async def list_features(catalog: Annotated[Catalog, FromApp(CATALOG)]) -> list[FeatureModel]:
    """Every feature: those that serve, those set aside with their reasons, those not wanted."""
    return [_feature_model(entry, catalog) for entry in catalog.entries()]


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


def _feature_model(entry: Entry, catalog: Catalog) -> FeatureModel:
    return FeatureModel(
        name=entry.name,
        version=entry.version,
        state=entry.state,
        required=entry.name in catalog.required,
        system=entry.system,
        routes=list(entry.routes),
        findings=[FindingModel(**dataclasses.asdict(each)) for each in entry.findings],
    )


def _logger_model(level: LoggerLevel) -> LoggerModel:
    return LoggerModel(
        name=level.name,
        level=level.level,
        effective_level=level.effective,
        reverts_to=level.reverts_to,
        reverts_in_s=level.reverts_in_s,
    )


feature = Feature(routes, mount="", lifespan=lifespan, middlewares=(guarded,))
