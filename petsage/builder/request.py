"""What may be asked of the builder: one model, and its JSON Schema."""

import re
import unicodedata
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

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


def _fold(value: object) -> object:
    return " ".join(value.split()) if isinstance(value, str) else value


def _require_line(value: str) -> str:
    """Refuses what could be more than text where it ends up: control and direction characters."""
    if not value.strip():
        raise ValueError("it is empty")
    for letter in value:
        if not letter.isprintable():
            name = unicodedata.name(letter, "a character without a name")
            raise ValueError(f"U+{ord(letter):04X}, {name}, cannot stand in a line of text")
    return value


_Line = AfterValidator(_require_line)
_SEEN: Final = {
    "minLength": 1,
    "pattern": r"\S",
}  # of what a line may not hold, what a schema knows
Tag = Annotated[str, Field(max_length=50, json_schema_extra=_SEEN), _Line]
Tags = Annotated[list[Tag], Field(min_length=1, max_length=10)]


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
    message: Annotated[str, Field(max_length=1000, json_schema_extra=_SEEN), _Line] | None = Field(
        None,
        description="What each call logs, at INFO.",
        examples=["Queue probe executed successfully. Verifying logging pipeline."],
    )
    summary: Annotated[str, Field(max_length=120, json_schema_extra=_SEEN), _Line] | None = Field(
        None, description="What it does, in a few words.", examples=["Probe the queue"]
    )
    tags: Tags | None = Field(
        None, description="Its tags in the document; those of the request where left out."
    )


Requirement = Probe
"""Whatever the builder can build; a later kind makes this a union, told apart by `kind`."""


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
        str, BeforeValidator(_fold), Field(max_length=1000, json_schema_extra=_SEEN), _Line
    ] = Field(description="What it is for.", examples=["verify logs"])
    tags: Tags = Field(["System"], description="The tags of its endpoints in the document.")
    version: str = Field(
        "1.0.0", pattern=_VERSION, description="The feature's version, MAJOR.MINOR.PATCH."
    )
    requirements: (
        Literal["none"] | Annotated[list[Requirement], Field(min_length=1, max_length=50)]
    ) = Field(
        "none",
        description="What it has to have; `none` is one probe at `/<name-with-dashes>`, and a "
        "receipt of the build at `/<name>` where that is another path.",
    )

    @model_validator(mode="after")
    def _paths_differ(self) -> "FeatureRequest":
        paths: set[str] = set()
        for number, probe in enumerate(self.probes()):
            path = probe.path or self.default_path
            if path in paths:
                raise ValueError(
                    f"requirements[{number}].path: {path} is another requirement's path already"
                )
            paths.add(path)
        return self

    @property
    def default_path(self) -> str:
        """The path of a probe that names none."""
        return f"/{self.feature.replace('_', '-')}"

    def probes(self) -> list[Probe]:
        """Each probe that is asked for, in order."""
        if self.requirements == "none":
            return [Probe(kind="probe")]
        return self.requirements
