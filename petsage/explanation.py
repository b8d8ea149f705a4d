"""What an error that a feature's code raised means, and what mends it."""

import sys
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from petsage.errors import did_you_mean, is_a, words_of
from petsage.signature import Flaw
from petsage.snapshot import PACKAGE, Snapshot

_PACKAGES: Final[Mapping[str, str]] = {
    "PIL": "pillow",
    "alembic": "'petsage[db]'",
    "asyncpg": "'petsage[postgres]'",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python",
    "dateutil": "python-dateutil",
    "dotenv": "python-dotenv",
    "email_validator": "'petsage[db]'",
    "jwt": "PyJWT",
    "sklearn": "scikit-learn",
    "sqlalchemy": "'petsage[db]'",
    "yaml": "PyYAML",
}
"""What is installed under another name than it is imported, and often is."""

_SHORTEST_SECRET: Final = 4


def import_flaw(error: BaseException, snapshot: Snapshot, features: Container[str]) -> Flaw:
    """The flaw of an import that raised.

    Args:
        error: what it raised.
        snapshot: the feature's.
        features: the names of all features that there are.
    """
    if is_a(error, ModuleNotFoundError) and error.name:
        return _missing_module(error.name, snapshot, features)
    if is_a(error, SystemExit):
        problem = f"the import calls sys.exit({said(error)})"
        return Flaw("import-failed", problem, "take that call out; raise an error instead")
    name = type(error).__name__
    problem = f"the import raised {name}: {said(error)}" if said(error) else f"it raised {name}"
    return Flaw("import-failed", problem, "mend that line; the traceback is in the log")


def _missing_module(name: str, snapshot: Snapshot, features: Container[str]) -> Flaw:
    """The flaw of an import that found no module `name`."""
    top, _, rest = name.partition(".")
    own = snapshot.modules()
    if name.startswith(f"{snapshot.module}."):
        fix = did_you_mean(name.removeprefix(f"{snapshot.module}."), own)
        return Flaw("import-failed", f"there is no module {name}", fix)
    if top == PACKAGE:
        fix = f"look up what the feature `{rest.partition('.')[0]}` has"
        return Flaw("import-failed", f"there is no module {name}", fix)
    if top in own:
        fix = f"it is the feature's own: write `from .{top} import …`"
        return Flaw("import-failed", f"there is no module {name} outside of the feature", fix)
    if top in features:
        fix = f"write `from .{rest or next(iter(own), 'routes')} import …` for its own modules"
        if top != snapshot.name:
            fix = f"write `from features.{name} import …`, and name `{top}` in `needs`"
        return Flaw("import-failed", f"there is no module {name} outside of features", fix)
    if rest and top in sys.modules:
        problem = f"the package `{top}` has no module `{name}`"
        return Flaw("import-failed", problem, "look its name up, or install another version of it")
    fix = f"install it beside PetSage: `pip install {_PACKAGES.get(top, top)}`"
    return Flaw("missing-package", f"the package `{top}` is not installed", fix)


def said(error: BaseException) -> str:
    """What an error says, in one line of some length; an error's own `__str__` may fail."""
    try:
        return " ".join(words_of(error).split())[:500]
    except BaseException as second:  # noqa: BLE001 - any code may be in there
        return f"(its text cannot be had: {type(second).__name__})"


def without_values(text: str, settings: Mapping[str, Any]) -> str:
    """A text in which no value of a feature's settings stands any more: it may be a secret.

    Args:
        text: what a validator says, which may well quote what it was given.
        settings: the feature's own; what is shorter than four letters is no secret worth the name.
    """
    values = {each for each in map(str, _leaves(settings)) if len(each) >= _SHORTEST_SECRET}
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, "…")
    return text


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for each in value.values():
            yield from _leaves(each)
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for each in value:
            yield from _leaves(each)
    elif not isinstance(value, bool) and value is not None:
        yield value


def settings_flaw(
    error: ErrorDetails, table: str, model: type[BaseModel], settings: Mapping[str, Any]
) -> Flaw:
    """The flaw of settings that a model refuses; it never shows a value, which may be a secret.

    Args:
        error: one of pydantic's.
        table: the settings' table, as it is written in TOML.
        model: the feature's settings model.
        settings: what it was given.
    """
    keys = [str(part) for part in error["loc"]]
    key = ".".join(keys)
    if error["type"] == "extra_forbidden":
        fix = did_you_mean(key, list(model.model_fields)) if len(keys) == 1 else "take it out"
        return Flaw("bad-settings", f"{table} has no key `{key}`", fix)
    if error["type"] == "missing":
        fix = f"set `{key}` in {table}, or give it a default in the model"
        return Flaw("bad-settings", f"{table} lacks `{key}`", fix)
    where = f"{table}: `{key}`" if key else table
    problem = f"{where}: {without_values(error['msg'], settings)}"
    return Flaw("bad-settings", problem, f"change {f'`{key}`' if key else 'it'}")
