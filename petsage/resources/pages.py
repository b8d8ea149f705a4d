"""What a list is asked with, and what it answers."""

from collections.abc import Iterable
from typing import Annotated, Any, Final, Generic, TypeVar
from urllib.parse import urlencode

from pydantic import BaseModel, ConfigDict, Field

from petsage import AnswerHeader, Reply
from petsage.resources.conditions import answer_with

T = TypeVar("T")

MAX_LIMIT: Final = 500


class Page(BaseModel, Generic[T]):
    """Some of a list, and where the next are."""

    items: list[T] = Field(description="In the order that was asked for.")
    next: str | None = Field(
        None, description="The `cursor` of the next page; null where this is the last."
    )


class PageQuery(BaseModel):
    """Which page of a list is asked for; a list's own filters and orders stand in a subclass."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(50, ge=1, le=MAX_LIMIT, description="How many a page holds at most.")
    cursor: str | None = Field(
        None,
        max_length=8_000,
        description="The `next` of the page before; of the same order and filters.",
    )
    sort: str = Field("id", description="The field to go by; descending with a minus.")


P = TypeVar("P", bound=Page[Any])

Listed = Annotated[
    Reply[P | None],
    AnswerHeader("ETag", "A hash of this answer's body, for `If-None-Match`."),
    AnswerHeader("Link", 'Where the next page is, with `rel="next"`; left out of the last.'),
]
"""What `listed` makes, as a return annotation."""


def listed(
    page: P, path: str, query: PageQuery, if_none_match: str | None = None
) -> Reply[P | None]:
    """A page with its `ETag`, and a `Link` to the next where there is one (RFC 8288).

    Args:
        page: what becomes the body; 304 where the caller has it already.
        path: of the list.
        query: what it was asked with; the next page's differs in its cursor alone.
        if_none_match: the header.

    Raises:
        Problem: 400, the condition cannot be read.
    """
    headers = {}
    if page.next is not None:
        headers["Link"] = f'<{path}?{urlencode(list(_members(query, page.next)))}>; rel="next"'
    return answer_with(page, if_none_match, headers)


def _members(query: PageQuery, cursor: str) -> Iterable[tuple[str, Any]]:
    """What the next page is asked with, each name with one value."""
    said = query.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude={"cursor"})
    for name, value in said.items():
        for each in value if isinstance(value, list) else [value]:
            if each is not None:
                yield name, str(each).lower() if isinstance(each, bool) else each
    yield "cursor", cursor
