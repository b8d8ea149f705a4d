"""JSON Merge Patch (RFC 7396)."""

from collections.abc import Mapping
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from petsage.errors import invalid_input
from petsage.refusals import field_problems, untold

M = TypeVar("M", bound=BaseModel)

MERGE_PATCH: Final = ("application/merge-patch+json", "application/json")
"""The content types that a JSON Merge Patch comes in: `Annotated[…, Body(media_type=MERGE_PATCH)]`.

The first is its own; the second is what callers send who know of no other.
"""


def merged(model: type[M], current: BaseModel, changes: Mapping[str, Any]) -> M:
    """What is there with changes, as it takes the place of what is there.

    What `changes` leaves out stays; null takes a field away, which then has its default; objects
    are merged, and anything else takes the place of what was there.

    Args:
        model: of what takes its place; fields of `current` that it does not have are left out.
        current: what is there.
        changes: a validated patch: a `TypedDict`, `total=False`, by the names that JSON has.

    Raises:
        Problem: 422, the whole is no `model`; `errors` names each place.
    """
    whole = current.model_dump(include=set(model.model_fields), by_alias=True)
    patched = _patched(whole, changes)
    try:
        return model.model_validate(patched)
    except ValidationError as error:
        problems = field_problems("body", "", error, patched)
        raise invalid_input(problems, untold(error)) from None


def _patched(target: Any, patch: Any) -> Any:
    """`MergePatch` of RFC 7396, section 2; `target` is ours, and may be changed."""
    if not isinstance(patch, Mapping):
        return patch
    result = target if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = _patched(result.get(name), value)
    return result
