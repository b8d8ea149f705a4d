"""What may be asked of the builder: one model, and its JSON Schema."""

import re
from dataclasses import replace
from typing import Annotated, Final, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from petsage.builder.faults import Fault, FaultsError
from petsage.builder.field_names import NAME
from petsage.builder.field_rules import faults_of_fields
from petsage.builder.fields import FieldSchema
from petsage.builder.lines import LINE, SEEN, fold
from petsage.builder.resource_names import clashes_of, long_names_of, names_of
from petsage.inspection import name_flaw

_PATH: Final = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+")
_NAME: Final = r"^[a-z][a-z0-9_]{0,62}$"
_VERSION: Final = r"^(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})$"


def _require_name(value: str) -> str:
    flaw = name_flaw(value)
    if flaw is not None:
        raise ValueError(flaw.problem)
    return value


def _require_path(value: str) -> str:
    if _PATH.fullmatch(value) is None:
        raise ValueError(
            "a path is segments of A-Z, a-z, 0-9, `-`, `_`, `.` and `~`, each behind a `/` and "
            "none with a dot at its front: `/health/queue`"
        )
    return value


Tag = Annotated[str, Field(max_length=50, json_schema_extra=SEEN), LINE]
Tags = Annotated[list[Tag], Field(min_length=1, max_length=10)]


Operation = Literal["list", "create", "read", "replace", "update", "delete"]
OPERATIONS: Final[tuple[Operation, ...]] = get_args(Operation)


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Probe(_Asked):
    """A GET endpoint that logs one line a call, and proves that it is written."""

    kind: Literal["probe"]
    path: (
        Annotated[
            str,
            Field(max_length=200, json_schema_extra={"pattern": f"^{_PATH.pattern}$"}),
            AfterValidator(_require_path),
        ]
        | None
    ) = Field(
        None,
        description="Its path below `/api/v1`; `/<name-with-dashes>` where left out.",
        examples=["/health/queue"],
    )
    message: Annotated[str, Field(max_length=1000, json_schema_extra=SEEN), LINE] | None = Field(
        None,
        description="What each call logs, at INFO.",
        examples=["Queue probe executed successfully. Verifying logging pipeline."],
    )
    summary: Annotated[str, Field(max_length=120, json_schema_extra=SEEN), LINE] | None = Field(
        None, description="What it does, in a few words.", examples=["Probe the queue"]
    )
    tags: Tags | None = Field(
        None, description="Its tags in the document; those of the request where left out."
    )

    def path_in(self, request: "FeatureRequest") -> str:
        """Its path below `/api/v1`."""
        return self.path or request.default_path


_FieldName = Annotated[str, Field(json_schema_extra={"pattern": NAME})]


class Resource(_Asked):
    """What is kept in the database: REST endpoints over a table."""

    kind: Literal["resource"]
    name: Annotated[str, Field(json_schema_extra={"pattern": NAME})] | None = Field(
        None,
        description="What many are called; the feature's name where left out.",
        examples=["pets"],
    )
    item: Annotated[str, Field(json_schema_extra={"pattern": NAME})] | None = Field(
        None, description="What one is called; made from `name` where left out.", examples=["pet"]
    )
    fields: Annotated[dict[_FieldName, FieldSchema], Field(min_length=1)] = Field(
        description="What each of them has, by name.",
        examples=[{"name": {"type": "string"}, "born": {"format": "date", "optional": True}}],
    )
    operations: Annotated[list[Operation], Field(min_length=1)] = Field(
        list(OPERATIONS), description="What can be done with them."
    )
    require_if_match: bool = Field(
        False,
        description="Whether a change has to say by `If-Match` what it changes: 428 without.",
    )
    tags: Tags | None = Field(
        None, description="Their tags in the document; those of the request where left out."
    )

    def path_in(self, request: "FeatureRequest") -> str:
        """The path of all of them, below `/api/v1`."""
        return f"/{(self.name or request.feature).replace('_', '-')}"

    def keys(self) -> list[str]:
        """The fields that have an index, each of which needs a name in the database."""
        return [name for name, each in self.fields.items() if each.is_indexed or each.unique]

    @model_validator(mode="after")
    def _fits(self) -> "Resource":
        faults = faults_of_fields(self.fields, ("fields",))
        for number, operation in enumerate(self.operations):
            if operation in self.operations[:number]:
                within = ("operations", number)
                faults.append(Fault(within, "it is there twice", "leave one out", operation))
        if faults:
            raise FaultsError(tuple(faults))
        return self


Requirement = Probe | Resource
"""Whatever the builder can build, told apart by `kind`."""


class FeatureRequest(_Asked):
    """A feature that is to be built.

    Texts are one line of printable characters each; of the description, white space is folded.
    """

    feature: Annotated[str, AfterValidator(_require_name)] = Field(
        json_schema_extra={"pattern": _NAME},  # which knows no words of Python's own
        description="The feature's name, which is its folder's: a-z, 0-9 and `_`, a letter first.",
        examples=["smoke_test"],
    )
    description: Annotated[
        str, BeforeValidator(fold), Field(max_length=1000, json_schema_extra=SEEN), LINE
    ] = Field(description="What it is for.", examples=["verify logs"])
    tags: Tags = Field(["System"], description="The tags of its endpoints in the document.")
    version: str = Field(
        "1.0.0", pattern=_VERSION, description="The feature's version, MAJOR.MINOR.PATCH."
    )
    requirements: (
        Literal["none"]
        | Annotated[
            list[Annotated[Requirement, Field(discriminator="kind")]],
            Field(min_length=1, max_length=50),
        ]
    ) = Field(
        "none",
        description="What it has to have; `none` is one probe at `/<name-with-dashes>`, and a "
        "receipt of the build at `/<name>` where that is another path.",
    )

    @field_validator("requirements", mode="after")
    @classmethod
    def _name_resources(
        cls, requirements: "Literal['none'] | list[Requirement]", info: ValidationInfo
    ) -> "Literal['none'] | list[Requirement]":
        """Each resource with its names, so that a record has them, too."""
        feature = info.data.get("feature")
        if requirements == "none" or feature is None:
            return requirements
        faults: list[Fault] = []
        named: list[Requirement] = []
        for number, each in enumerate(requirements):
            if isinstance(each, Resource):
                own = names_of(feature, each.name, each.item, set(each.fields))
                faults += [replace(fault, within=(number, *fault.within)) for fault in own.faults]
                update = {"name": own.name, "item": own.item}
                named.append(each.model_copy(update=update))
            else:
                named.append(each)
        resources = {n: each for n, each in enumerate(named) if isinstance(each, Resource)}
        names = {n: (each.name or "", each.item or "") for n, each in resources.items()}
        keys = {n: each.keys() for n, each in resources.items()}
        faults = faults or [*clashes_of(feature, names), *long_names_of(feature, names, keys)]
        if faults:
            raise FaultsError(tuple(faults))
        return named

    @model_validator(mode="after")
    def _paths_differ(self) -> "FeatureRequest":
        faults: list[Fault] = []
        paths: set[str] = set()
        requirements = self.probes() if self.requirements == "none" else self.requirements
        for number, each in enumerate(requirements):
            path = each.path_in(self)
            key = "path" if isinstance(each, Probe) else "name"
            if path in paths:
                problem = "it is another requirement's path already"
                within = ("requirements", number, key)
                faults.append(Fault(within, problem, f"choose another `{key}`", path))
            paths.add(path)
        if faults:
            raise FaultsError(tuple(faults))
        return self

    @property
    def default_path(self) -> str:
        """The path of a probe that names none."""
        return f"/{self.feature.replace('_', '-')}"

    def probes(self) -> list[Probe]:
        """Each probe that is asked for, in order."""
        if self.requirements == "none":
            return [Probe(kind="probe")]
        return [each for each in self.requirements if isinstance(each, Probe)]

    def resources(self) -> list[Resource]:
        """Each resource that is asked for, in order, with its names."""
        if self.requirements == "none":
            return []
        return [each for each in self.requirements if isinstance(each, Resource)]
