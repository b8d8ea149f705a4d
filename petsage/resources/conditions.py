"""Conditional requests (RFC 9110, section 13): entity tags, and what has to match them.

A tag is a hash of the JSON that is answered, so it is right whatever changes what is answered.
"""

import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, BeforeValidator, WithJsonSchema

from petsage import AnswerHeader, Header, Problem, Reply
from petsage.serializing import to_json as json_of

M = TypeVar("M", bound=BaseModel)

# One tag and what follows it (RFC 9110, section 8.8.3). obs-text is in it: what is not UTF-8 has
# been refused before.
_TAG: Final = re.compile(r'(?P<weak>W/)?"(?P<opaque>[\x21\x23-\x7E\x80-\U0010FFFF]*)"')
# The same for those who read the API's document, as far as JSON Schema's dialect has it.
_ONE: Final = r'(W/)?"[!#-~]*"'
_TAGS: Final = WithJsonSchema(
    {"type": "string", "pattern": rf"^([*]|{_ONE}( *, *{_ONE})*)$", "examples": ['"abc"']}
)
_GAP: Final = re.compile(r"[ \t]*(?:,[ \t]*)+")


def _joined(value: Any) -> Any:
    """Several lines of a header as the one that they mean (RFC 9110, section 5.3)."""
    return ", ".join(value) if isinstance(value, list) else value


IfMatch = Annotated[
    str | None,
    BeforeValidator(_joined),
    Header(
        "If-Match",
        description="Tags, of which what is changed has to have one; `*` for any. 412 otherwise.",
    ),
    _TAGS,
]
"""The header `If-Match`, None where it is not there; `require_match` reads it."""

IfNoneMatch = Annotated[
    str | None,
    BeforeValidator(_joined),
    Header("If-None-Match", description="Tags of what the caller has already: 304 is enough."),
    _TAGS,
]
"""The header `If-None-Match`, None where it is not there; `found` and `listed` read it."""

_ETAG: Final = AnswerHeader(
    "ETag", "A hash of this answer's body, for `If-Match` and `If-None-Match`."
)

Tagged = Annotated[Reply[M], _ETAG]
"""What `tagged` makes, as a return annotation."""

Created = Annotated[
    Reply[M], _ETAG, AnswerHeader("Location", "Where what was created can be read.")
]
"""What `tagged` makes with a location, as a return annotation."""

Found = Annotated[Reply[M | None], _ETAG]
"""What `found` makes, as a return annotation."""


def to_json(value: BaseModel) -> bytes:
    """The JSON of a model, as a handler that answers with it sends it."""
    return json_of(value.__pydantic_serializer__.to_json, value)


def tag_of(json: bytes) -> str:
    """The entity tag of an answer with this body, a strong one."""
    return f'"{blake2b(json, digest_size=12).hexdigest()}"'


def tagged(value: M, *, location: str | None = None) -> Reply[M]:
    """An answer with its `ETag`.

    Args:
        value: what becomes the body.
        location: of what was created.
    """
    json = to_json(value)
    headers = {"ETag": tag_of(json)}
    if location is not None:
        headers["Location"] = location
    return Reply(value, headers=headers, json=json)


def found(value: M, if_none_match: str | None = None) -> Reply[M | None]:
    """An answer with its `ETag`, or 304 where the caller has it already.

    Raises:
        Problem: 400, the condition cannot be read.
    """
    return answer_with(value, if_none_match, {})


def answer_with(value: M, if_none_match: str | None, headers: Mapping[str, str]) -> Reply[M | None]:
    """As `found`, with further headers."""
    json = to_json(value)
    tag = tag_of(json)
    headers = {"ETag": tag, **headers}
    if if_none_match is not None:
        if if_none_match == tag:  # as most callers have it
            return Reply(None, status=304, headers=headers)
        tags = _read_tags("If-None-Match", if_none_match)
        # The weak comparison (RFC 9110, section 13.1.2).
        if tags is None or tag in tags or f"W/{tag}" in tags:
            return Reply(None, status=304, headers=headers)
    return Reply(value, headers=headers, json=json)


def require_match(current: BaseModel, if_match: str | None) -> None:
    """Refuses to change what is not as the caller has it; nothing is asked for without `if_match`.

    It has to be called within the transaction that changes it, of what other writers cannot
    change meanwhile.

    Args:
        current: what is there, as it is answered.
        if_match: the header.

    Raises:
        Problem: 412, its tag is another one; 400, the condition cannot be read.
    """
    if if_match is None:
        return
    tags = _read_tags("If-Match", if_match)
    # The strong comparison (RFC 9110, section 13.1.1): a weak tag matches nothing.
    if tags is not None and tag_of(to_json(current)) not in tags:
        raise Problem(412, "It has changed meanwhile: `If-Match` has another tag than it has now")


def require_condition(if_match: str | None) -> None:
    """Refuses a change that does not say what it changes.

    Raises:
        Problem: 428, there is no `If-Match`.
    """
    if if_match is None:
        raise Problem(428, "Read it first, and send its `ETag` as `If-Match`")


def _read_tags(name: str, text: str) -> frozenset[str] | None:
    """The tags in a header, weak ones with their `W/`; None for `*`, which is any.

    Raises:
        Problem: 400, it is neither a list of tags nor `*`.
    """
    text = text.strip(" \t")
    if text == "*":
        return None
    tags: set[str] = set()
    place = _skip_gap(text, 0)
    while place < len(text):
        match = _TAG.match(text, place)
        if match is None or (tags and place and text[place - 1] == '"'):
            break
        tags.add(match[0])
        place = _skip_gap(text, match.end())
    else:
        if tags:
            return frozenset(tags)
    raise Problem(400, f'`{name}` is neither `*` nor a list of tags in quotes, as `"abc", "def"`')


def _skip_gap(text: str, place: int) -> int:
    match = _GAP.match(text, place)
    return match.end() if match is not None else place
