"""A feature that is written by hand into a workspace, and what a folder holds afterwards.

It imports little: scripts of their own, which tests start, use it, too.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from petsage.builder.comparison import differences
from petsage.builder.record import hash_of
from petsage.builder.workspace import Workspace, open_workspace

FILES = {
    "__init__.py": b'''"""Says hello."""

from petsage import Feature, Routes

routes = Routes()


@routes.get("/hello/{name}")
async def hello(name: str) -> dict[str, str]:
    """Greet somebody."""
    return {"hello": name}


feature = Feature(routes)
''',
    "README.md": b"# Hello\n",
    "tests/test_hello.py": b"def test_it():\n    assert True\n",
}


def build(
    folder: Path,
    page: Path | None = None,
    files: Mapping[str, bytes] = FILES,
    meanwhile: Callable[[Workspace], object] = lambda _: None,
) -> Path:
    """Builds the feature `hello` of these files; what is done meanwhile is done unpublished."""
    with open_workspace(folder, "hello") as workspace:
        workspace.write(files)
        meanwhile(workspace)
        place = workspace.publish(page)
    assert place is not None
    return place


def is_complete(feature: Path) -> bool:
    """Whether a folder holds all of `FILES`, and nothing else."""
    return not differences(feature, {within: hash_of(data) for within, data in FILES.items()})


def tree(folder: Path) -> dict[str, bytes | None]:
    """Each file's bytes, and None for each folder, by its path within."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }
