"""What REST needs beyond a typed handler: conditions, merge patches, pages, kinds of fields."""

try:
    import email_validator
    import sqlalchemy
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"petsage.resources needs the package `{error.name}`; fix: pip install 'petsage[db]'",
        name=error.name,
    ) from None

from petsage.resources.conditions import (
    Created,
    Found,
    IfMatch,
    IfNoneMatch,
    Tagged,
    found,
    require_condition,
    require_match,
    tagged,
)
from petsage.resources.fields import (
    EMAIL,
    NO_NUL,
    URI,
    DateTime,
    Id,
    Integer,
    Number,
    TextCheck,
)
from petsage.resources.pages import Listed, Page, PageQuery, listed
from petsage.resources.paging import between, one_of, page_of
from petsage.resources.patching import MERGE_PATCH, merged

__all__ = [
    "EMAIL",
    "MERGE_PATCH",
    "NO_NUL",
    "URI",
    "Created",
    "DateTime",
    "Found",
    "Id",
    "IfMatch",
    "IfNoneMatch",
    "Integer",
    "Listed",
    "Number",
    "Page",
    "PageQuery",
    "Tagged",
    "TextCheck",
    "between",
    "found",
    "listed",
    "merged",
    "one_of",
    "page_of",
    "require_condition",
    "require_match",
    "tagged",
]

del email_validator, sqlalchemy
