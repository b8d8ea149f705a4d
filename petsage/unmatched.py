"""What the settings say of features that are not there."""

import logging
from collections.abc import Collection

from petsage.errors import Finding, Severity, did_you_mean
from petsage.settings import Settings

_log = logging.getLogger(__name__)


def find_unmatched(settings: Settings, names: Collection[str]) -> list[Finding]:
    """A finding for each name in the settings that no folder of features has.

    Args:
        settings: their `[features.<name>]` tables, `[catalog].disabled` and `[catalog].required`.
        names: what the folders of features are called.

    A name in `[catalog].required` is an error, since the server does not start without it; the
    others are warnings.
    """
    catalog = settings.catalog
    said: list[tuple[str, str, str, Severity]] = [
        *((name, f"[features.{name}]", "a table", "warning") for name in settings.features),
        *((name, "[catalog].disabled", f"{name!r} in", "warning") for name in catalog.disabled),
        *((name, "[catalog].required", f"{name!r} in", "error") for name in catalog.required),
    ]
    return [
        Finding(
            "no-such-feature",
            level,
            place,
            0,
            f"the settings have {how} {place}, and there is no such feature",
            did_you_mean(name, sorted(names)),
        )
        for name, place, how, level in said
        if name not in names
    ]


def warn_of_unmatched(settings: Settings, names: Collection[str]) -> None:
    """Logs what the settings name and is not there: folders of features, and features.

    Args:
        settings: as `find_unmatched`, and `[catalog].folders`.
        names: what the folders of features are called.
    """
    for folder in settings.catalog.folders:
        if not folder.is_dir():
            _log.warning("There is no folder %s to find features in", folder)
    for finding in find_unmatched(settings, names):
        if finding.level == "warning":  # an error ends the start, and says so there
            problem = f"{finding.problem[:1].upper()}{finding.problem[1:]}"
            _log.warning("%s; %s", problem, finding.fix)
