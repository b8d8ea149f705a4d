"""What operators are told of features and of changes; `petsage features` reads it again."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from petsage.entry import Change, Entry, State, Step
from petsage.errors import Severity, printable
from petsage.troubles import TroubleKind

_HASH: Final = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


def _plain(value: Any) -> Any:
    return printable(value) if isinstance(value, str) else value


Text = Annotated[str, BeforeValidator(_plain)]
"""A text that may have the name of a folder or file in it, which need not be UTF-8."""


class Report(BaseModel):
    """What is told; made ready when somebody asks, since a start is to be short."""

    model_config = ConfigDict(defer_build=True)


class FindingModel(Report):
    """One thing that is wrong with a feature."""

    id: str = Field(description="Its kind.", examples=["handler-not-async"])
    level: Severity = Field(description="An error sets the feature aside, a warning does not.")
    file: Text = Field(description="The file.", examples=["features/pets/routes.py"])
    line: int = Field(description="The line, from 1; 0 for the file or folder as a whole.")
    problem: Text = Field(description="What is wrong.", examples=["`feed` is no `async def`"])
    fix: Text = Field(description="What mends it.", examples=["write `async def feed`"])

    @property
    def place(self) -> str:
        """File and line, as editors take them."""
        return f"{self.file}:{self.line}" if self.line else self.file


class RequestsModel(Report):
    """The requests of a feature's present generation."""

    served: int = Field(description="How many it has answered, failed ones too.", examples=[1204])
    failed: int = Field(description="How many of them were answered 5xx, or cut.", examples=[0])
    in_flight: int = Field(description="How many it has in hand.", examples=[2])


class RefusedModel(Report):
    """What lies in a feature's folder and was not taken up; what served before goes on."""

    content_hash: str | None = Field(
        description="Of the folder as it was then; null where it could not be read.",
        examples=[_HASH],
    )
    at: datetime = Field(
        description="When that was, in UTC.", examples=["2026-03-01T12:00:00.250000Z"]
    )
    findings: list[FindingModel] = Field(description="Why.")


class DrainingModel(Report):
    """A former generation that has not ended."""

    generation: int = Field(description="Its number.", examples=[6])
    requests: int = Field(
        description="How many it has in hand; 0 where its lifespan is ending.", examples=[1]
    )


class LeakedModel(Report):
    """A former generation that ended and stays in memory."""

    generation: int = Field(description="Its number.", examples=[5])
    what: Text = Field(description="What of it is still there.")


class TroubleModel(Report):
    """What a feature has done wrong since it serves."""

    kind: TroubleKind = Field(description="Its kind.", examples=["loop-blocked"])
    count: int = Field(description="How often.", examples=[3])
    at: datetime = Field(
        description="When it was the last time, in UTC.", examples=["2026-03-01T12:00:00.250000Z"]
    )
    problem: Text = Field(
        description="What happened then.",
        examples=["it blocked the event loop, and so every request, for 1.2 s at routes.py:9"],
    )
    fix: Text = Field(description="What mends it.", examples=["await what takes time"])


class FeatureModel(Report):
    """A feature, and how it is doing."""

    name: Text = Field(description="Its folder's name.", examples=["smoke_test"])
    version: Text | None = Field(
        description="Its own version; null where it could not be read.", examples=["1.0.0"]
    )
    state: State = Field(
        description="`serving`: it answers. `starting`: it never did, and is on its way. "
        "`draining`: it is removed, and has requests in hand. `waiting`: it needs features that "
        "do not serve. `failed`: it was set aside. `disabled`: it is not wanted.",
        examples=["serving"],
    )
    state_text: Text = Field(
        description="The state for people: `waiting` says for which features.",
        examples=["waiting for pets, owners"],
    )
    waiting_for: list[Text] = Field(
        description="The features that it needs, and that do not serve.", examples=[["pets"]]
    )
    required: bool = Field(description="Whether PetSage is unready without it.")
    system: bool = Field(description="Whether it is a part of the core.")
    generation: int | None = Field(
        description="The number of the change that made it current: greater is later, and what "
        "changed together has the same; null where it does not serve.",
        examples=[7],
    )
    content_hash: str | None = Field(
        description="SHA-256 over the folder's files as they are served, or were tried; null "
        "where there is no folder, or it could not be read.",
        examples=[_HASH],
    )
    since: datetime | None = Field(
        description="When it came into this state, in UTC; null where that is not known.",
        examples=["2026-03-01T12:00:00.250000Z"],
    )
    routes: list[Text] = Field(
        description="Method and path of each route.", examples=[["GET /api/v1/smoke-test"]]
    )
    load_ms: float | None = Field(
        description="How long it took to read, check, import and start it, in milliseconds; null "
        "where it was not tried.",
        examples=[41.7],
    )
    requests: RequestsModel = Field(description="What its present generation was asked.")
    last_error: FindingModel | None = Field(
        description="What keeps the folder as it is now from being served; null where nothing does."
    )
    findings: list[FindingModel] = Field(
        description="All that is wrong with what serves, or with what does not."
    )
    refused: RefusedModel | None = Field(
        description="What lies in the folder and was not taken up; null where it is what serves."
    )
    draining: list[DrainingModel] = Field(description="Its former generations that have not ended.")
    leaked: list[LeakedModel] = Field(
        description="Its former generations that ended and stay in memory."
    )
    troubles: list[TroubleModel] = Field(
        description="What it has done wrong since it serves, one of each kind, the latest first."
    )


class ChangeModel(Report):
    """What became of one feature that was found different."""

    name: Text = Field(description="Its folder's name.", examples=["pets"])
    step: Step = Field(
        description="`added`, `changed`, `removed`: it is as its folder is. `restarted`: its "
        "folder is the same, and what it needs changed. `refused`: what served before goes on. "
        "`failed`, `waiting`: it does not serve.",
        examples=["changed"],
    )
    generation: int | None = Field(
        description="The number of what serves now; null where nothing does.", examples=[7]
    )
    content_hash: str | None = Field(
        description="Of the folder as it was read; null where it is gone or cannot be read.",
        examples=[_HASH],
    )
    findings: list[FindingModel] = Field(description="What is wrong with it.")


class ChangesModel(Report):
    """What looking at the folders changed."""

    changes: list[ChangeModel] = Field(
        description="Each feature that was found different; empty where none was."
    )
    generation: int = Field(
        description="How many changes were made current, the start among them.", examples=[7]
    )
    took_ms: float = Field(
        description="How long that took, waiting for a change under way included, in milliseconds.",
        examples=[212.4],
    )


Leaked = tuple[str, int, str]
"""A generation that ended and stays in memory: the feature, its number, and what is there."""


def describe_feature(entry: Entry, *, required: bool, leaked: Iterable[Leaked]) -> FeatureModel:
    """A feature, as operators are told of it.

    Args:
        entry: the facts.
        required: whether PetSage is unready without it.
        leaked: the generations of all features that stay in memory.
    """
    return FeatureModel(
        name=entry.name,
        version=entry.version,
        state=entry.state,
        state_text=_state_text(entry),
        waiting_for=list(entry.waiting_for),
        required=required,
        system=entry.system,
        generation=entry.generation,
        content_hash=entry.content_hash,
        since=entry.since,
        routes=list(entry.routes),
        load_ms=None if entry.load_ms is None else round(entry.load_ms, 2),
        requests=_taken(RequestsModel, entry),
        last_error=entry.last_error and _taken(FindingModel, entry.last_error),
        findings=[_taken(FindingModel, each) for each in entry.findings],
        refused=entry.refused and _taken(RefusedModel, entry.refused),
        draining=[_taken(DrainingModel, each) for each in entry.draining],
        leaked=[
            LeakedModel(generation=generation, what=what)
            for name, generation, what in leaked
            if name == entry.name
        ],
        troubles=[_taken(TroubleModel, each) for each in entry.troubles],
    )


def describe_change(change: Change) -> ChangeModel:
    """A change of one feature, as operators are told of it."""
    return _taken(ChangeModel, change)


_Model = TypeVar("_Model", bound=BaseModel)


def _taken(model: type[_Model], facts: object) -> _Model:
    """A model, filled with the attributes that are called as its fields are."""
    return model.model_validate(facts, from_attributes=True)


def _state_text(entry: Entry) -> str:
    if entry.state == "waiting" and entry.waiting_for:
        return f"waiting for {', '.join(entry.waiting_for)}"
    return entry.state
