"""What an update is to make of a feature: what it was built from, and what is asked for now."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from petsage.builder.built import record_of, require_name
from petsage.builder.growth import Growth, growth_of
from petsage.builder.record import Record
from petsage.builder.request import FeatureRequest
from petsage.builder.request_faults import Asked, decode_error, refuse
from petsage.builder.request_reader import is_document, read_request
from petsage.builder.short_form import fields_of


@dataclass(frozen=True)
class Update:
    """An update that may be made.

    Attributes:
        record: what the feature was built from.
        request: what it is to be.
        growths: what that adds to what is kept.
    """

    record: Record
    request: FeatureRequest
    growths: tuple[Growth, ...]


def read_update(source: str, flags: Mapping[str, Any], folder: Path) -> Update:
    """The update that is asked for.

    Args:
        source: a feature's name, which is the request that it was built from; or a whole request,
            as `read_request` takes it.
        flags: fields of the request, over what the source says. `fields`, in their short form, are
            added to those of the feature's one resource, where a name is given.
        folder: the folder of features that the feature is in.

    Raises:
        BuildError: there is no such feature, it was not built, or it cannot be this; stage
            `decode`.
    """
    if is_document(source):
        request = read_request(source, flags)
        record = record_of(folder / request.feature, "decode")
        asked = Asked("the request" if source == "-" else source, {}, frozenset(flags))
    else:
        require_name(source, "decode")
        record = record_of(folder / source, "decode")
        asked, request = _with_flags(record.request, flags)
    return Update(record, request, growth_of(record.request, request, asked))


def _with_flags(request: FeatureRequest, flags: Mapping[str, Any]) -> tuple[Asked, FeatureRequest]:
    values = request.model_dump(mode="json", exclude_none=True)
    values |= {key: value for key, value in flags.items() if key != "fields"}
    flagged = {"requirements" if key == "fields" else key for key in flags}
    asked = Asked("the command line", values, frozenset(flagged))
    if "fields" in flags:
        _add_fields(values, fields_of(flags["fields"], asked), asked)
    try:
        return asked, FeatureRequest.model_validate(values)
    except ValidationError as error:
        refuse(asked, error.errors(include_url=False))


def _add_fields(values: dict[str, Any], fields: Mapping[str, Any], asked: Asked) -> None:
    """Adds fields to those of the one resource of a request."""
    requirements = values["requirements"]
    there = [each for each in requirements if each["kind"] == "resource"] \
        if isinstance(requirements, list) else []  # fmt: skip
    place = asked.place_of("requirements")
    if len(there) != 1:
        names = ", ".join(each["name"] for each in there)
        problem = f"has {len(there)} resources ({names})" if there else "has no resource"
        fix = "write the whole request into a file, and name that with --update"
        raise decode_error(f"{place}: {values['feature']} {problem}, and a field goes to one", fix)
    known = there[0]["fields"]
    twice = [name for name in fields if name in known]
    if twice:
        raise decode_error(
            f"{place}: there is a field `{twice[0]}` already",
            f"choose another name; to change it, write a migration by hand: "
            f"features/{values['feature']}/migrations/, and change the code with it",
        )
    known.update(fields)
