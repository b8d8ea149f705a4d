"""A feature as it was built, found by its name."""

import os
from pathlib import Path

from petsage.builder.events import BuildError, Stage
from petsage.builder.record import RECORD, Record, read_record
from petsage.errors import did_you_mean
from petsage.inspection import name_flaw


def require_name(name: str, stage: Stage) -> None:
    """Refuses what may lead elsewhere than to a feature."""
    flaw = name_flaw(name)
    if flaw is not None:
        raise BuildError(flaw.problem, fix="name the feature, and not its folder", stage=stage)


def record_of(feature: Path, stage: Stage) -> Record:
    """What a feature was built from; refuses what the builder has not made, and knows nothing of.

    Raises:
        BuildError: it was not built here.
    """
    if feature.is_symlink():
        way = "remove the link" if stage == "undo" else "change what it leads to"
        raise BuildError(
            f"{feature} is a link to {os.path.realpath(feature)}, and was not built here",
            fix=f"{way} by hand, if that is what you want",
            stage=stage,
        )
    if not feature.is_dir():
        built = [each.parent.name for each in feature.parent.glob(f"[a-z]*/{RECORD}")]
        raise BuildError(
            f"there is no feature {feature.name} in {feature.parent}",
            fix=did_you_mean(feature.name, built),
            stage=stage,
        )
    return read_record(feature, stage)
