"""Every name and text of a feature that is to be built, derived from its request once."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Final

from petsage.builder.request import FeatureRequest, Probe
from petsage.builder.resource_plan import PlannedResource, planned_resources

_MAX_HANDLER: Final = 70  # its line has to fit, and a feature's whole name does

# What can be performed as it is called.
_PERFORMED: Final = frozenset({"check", "probe", "test"})


@dataclass(frozen=True)
class PlannedProbe:
    """One probe.

    Attributes:
        path: below `/api/v1`, "/smoke-test".
        handler: the function's name, "run_smoke_test"; no two of a feature have the same.
        message: what each call logs.
    """

    path: str
    handler: str
    message: str
    summary: str
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """A feature.

    Attributes:
        name: the folder's, "smoke_test".
        noun: what its name says, "smoke test"; "queue probe" where that is none by itself.
        class_name: what its models' names begin with, "SmokeTest".
        probes: none where resources alone are asked for.
        receipt_path: where the receipt of the build is, "/smoke_test"; None where there is none.
    """

    request: FeatureRequest
    name: str
    noun: str
    class_name: str
    probes: tuple[PlannedProbe, ...]
    receipt_path: str | None
    resources: tuple[PlannedResource, ...] = ()


def plan_of(request: FeatureRequest) -> Plan:
    """What a request comes to."""
    name = request.feature
    receipt_path = f"/{name}" if request.requirements == "none" else None
    words = " ".join(part for part in name.split("_") if part)
    class_name = "".join(part.capitalize() for part in words.split())
    return Plan(
        request=request,
        name=name,
        noun=_noun(words),
        class_name=class_name,
        probes=tuple(_probes(request)),
        receipt_path=receipt_path if receipt_path != request.default_path else None,
        resources=planned_resources(request, (f"{class_name}Response", f"{class_name}Receipt")),
    )


def _probes(request: FeatureRequest) -> Iterator[PlannedProbe]:
    taken: set[str] = set()
    for probe in request.probes():
        planned = _planned(request, probe, taken)
        taken.add(planned.handler)
        yield planned


def _planned(request: FeatureRequest, probe: Probe, taken: set[str]) -> PlannedProbe:
    path = probe.path or request.default_path
    words = " ".join(re.findall(r"[a-z0-9]+", path.lower())) or "probe"
    handler = f"run_{words.replace(' ', '_')}"[:_MAX_HANDLER].rstrip("_")
    free = (handler if number == 1 else f"{handler}_{number}" for number in count(1))
    title = f"{words[:1].upper()}{words[1:]}"
    return PlannedProbe(
        path=path,
        handler=next(each for each in free if each not in taken),
        message=probe.message
        or f"{title} endpoint executed successfully. Verifying logging pipeline.",
        summary=probe.summary or f"Perform a system {_noun(words)}",
        tags=tuple(probe.tags or request.tags),
    )


def _noun(words: str) -> str:
    """What is performed: "smoke test", "queue probe"."""
    return words if words.rsplit(maxsplit=1)[-1] in _PERFORMED else f"{words} probe"
