"""What the settings say of features that are not there."""

from collections.abc import Collection

from petsage.errors import Finding, Severity, did_you_mean
from petsage.settings import Settings


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
