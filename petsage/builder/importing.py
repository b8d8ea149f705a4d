"""The imports of a module that is written, by the names that it uses."""

import ast
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

HERE: Final = "# imports\n"
"""The line of a template that the imports stand in for."""

_STANDARD: Final[Mapping[str, str]] = {
    "datetime": "UTC date datetime",
    "json": "",
    "pathlib": "Path",
    "typing": "Annotated Any Literal",
    "uuid": "UUID",
}
_FOREIGN: Final[Mapping[str, str]] = {
    "alembic": "op",
    "hypothesis": "HealthCheck example given settings",
    "pydantic": "BaseModel ConfigDict Field",
    "pytest": "",
    "sqlalchemy": "BigInteger Boolean Column Connection Date Double Index MetaData Table "
    "UniqueConstraint Uuid bindparam create_engine delete insert literal select update",
    "typing_extensions": "TypedDict",
}
_OURS: Final[Mapping[str, str]] = {
    "petsage": "Body Feature FromApp Problem Query Reply Routes",
    "petsage.resources": "EMAIL MERGE_PATCH NO_NUL URI Created DateTime Found Id IfMatch "
    "IfNoneMatch Integer Listed Number Page PageQuery Tagged between found listed merged one_of "
    "page_of require_condition require_match tagged",
    "petsage.storage": "DATABASE DATABASE_CHECK NAMING Database Json Key Migration Text "
    "UtcDateTime keeps",
    "petsage.storage.comparing": "difference",
    "petsage.storage.migrating": "bring_up_to_date",
}
# What is known by a shorter name.
_SHORT: Final[Mapping[str, tuple[str, str]]] = {"st": ("hypothesis", "strategies")}
_SECTIONS: Final = (_STANDARD, _FOREIGN, _OURS)


def with_imports(source: str, own: Mapping[str, Iterable[str]]) -> str:
    """A module with the imports of what it uses, in the order that ruff wants.

    Args:
        source: the module, with the line `HERE`.
        own: names of the feature's other modules, by how they are reached: ".models".
    """
    tree = ast.parse(source)
    used = {
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    } - set(_defined(tree))
    sections = [
        *({module: names.split() for module, names in section.items()} for section in _SECTIONS),
        {module: list(names) for module, names in own.items()},
    ]
    blocks = (_block(section, used) for section in sections)
    return source.replace(HERE, "\n".join(block for block in blocks if block), 1)


def _defined(tree: ast.Module) -> Iterator[str]:
    """The names that a module gives itself."""
    for node in tree.body:
        if isinstance(node, ast.Assign):
            yield from (each.id for each in node.targets if isinstance(each, ast.Name))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name


def _block(modules: Mapping[str, Iterable[str]], used: set[str]) -> str:
    whole = [
        f"import {module}\n" for module in sorted(modules) if module in used and not modules[module]
    ]
    parts = []
    for module in sorted(modules, key=_place):
        names = sorted(used & {*modules[module]}, key=_rank)
        if names:
            parts.append(f"from {module} import {', '.join(names)}\n")
        parts += [
            f"from {module} import {name} as {short}\n"
            for short, (home, name) in _SHORT.items()
            if home == module and short in used
        ]
    return "".join((*whole, *parts))


def _place(module: str) -> tuple[int, str]:
    """Of the feature's own modules, those that are further away come first."""
    name = module.lstrip(".")
    return len(name) - len(module), name


def _rank(name: str) -> tuple[int, str]:
    """Constants first, then classes, then the others."""
    return (0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2), name
