"""What a feature's folder shows without being run: its name, its syntax, what it imports."""

import ast
import keyword
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType
from typing import Final

from petsage.errors import Severity
from petsage.feature import Place
from petsage.signature import Flaw
from petsage.snapshot import PACKAGE, Snapshot, is_test

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
# Readiness has the checks `feature.<name>` and `sink.<name>`; a feature's are `<feature>.<check>`.
_TAKEN: Final = frozenset({"feature", "sink"})


@dataclass
class Inspection:
    """What the sources of a feature show.

    Attributes:
        flaws: what is wrong, each with its place and level.
        imports: the other features that are imported, each with the first place.
        feature_lines: the line of `feature = …` in `__init__.py` under "", and the lines of the
            keyword arguments in it, by their names.
    """

    flaws: list[tuple[Place, Flaw, Severity]] = field(default_factory=list)
    imports: dict[str, Place] = field(default_factory=dict)
    feature_lines: dict[str, int] = field(default_factory=dict)


def name_flaw(name: str) -> Flaw | None:
    """What is wrong with a folder's name, None where a feature can be called so."""
    if _NAME.fullmatch(name) and not keyword.iskeyword(name) and name not in _TAKEN:
        return None
    problem = f"{name!r} cannot be a feature's name: it is a module's, of a-z, 0-9 and `_`"
    if keyword.iskeyword(name):
        problem = f"{name!r} cannot be a feature's name: it is a word of Python's own"
    elif name in _TAKEN:
        problem = f"{name!r} cannot be a feature's name: readiness has checks `{name}.…` of its own"
    odd = next((letter for letter in name if not letter.isascii()), None)
    if odd is not None:
        # It may look just like an ordinary letter.
        problem += f"; {odd!r} is {unicodedata.name(odd, 'a letter without a name')}"
    return Flaw("bad-name", problem, f"rename the folder, to `{better_name(name)}` for example")


def better_name(name: str) -> str:
    """A feature's name that is near to `name`."""
    letters = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    plain = re.sub(r"[^a-z0-9]+", "_", letters).strip("_")[:60].strip("_")
    if keyword.iskeyword(plain) or plain in _TAKEN:
        return f"{plain}_"
    if plain[:1].isdigit():
        return f"n{plain}"
    return plain or "my_feature"


def inspect_sources(snapshot: Snapshot, codes: dict[str, CodeType] | None = None) -> Inspection:
    """All that can be seen in a feature's sources.

    Args:
        snapshot: where they are.
        codes: is given what each file was compiled to, tests left out, by its path in the folder.
    """
    found = Inspection()
    for within, source in snapshot.sources.items():
        file = str(snapshot.folder / within)
        code = _compile(found, file, source, "warning" if is_test(within) else "error")
        if code is None or is_test(within):
            continue
        if codes is not None:
            codes[within] = code
        try:
            tree = ast.parse(source, file)
        except RecursionError:  # nested too deeply to be looked into, and Python all the same
            continue
        _read_imports(found, snapshot, within, tree)
        if within == "__init__.py":
            found.feature_lines = dict(_feature_lines(tree))
    return found


def _compile(found: Inspection, file: str, source: bytes, level: Severity) -> CodeType | None:
    try:
        # The parser alone lets pass what the compiler refuses: `return` outside of a function.
        return compile(source, file, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None) or 1
        reason = getattr(error, "msg", None) or str(error) or type(error).__name__
        name = Path(file).name
        flaw = Flaw("syntax-error", f"{name} is not Python: {reason}", f"mend line {line}")
        found.flaws.append((Place(file, line), flaw, level))
        return None


def _feature_lines(tree: ast.Module) -> Iterator[tuple[str, int]]:
    for statement in tree.body:
        if isinstance(statement, ast.Assign):
            targets, value = statement.targets, statement.value
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            targets, value = [statement.target], statement.value
        else:
            continue
        if any(isinstance(target, ast.Name) and target.id == "feature" for target in targets):
            yield "", statement.lineno
            if isinstance(value, ast.Call):
                yield from ((each.arg, each.value.lineno) for each in value.keywords if each.arg)


def _read_imports(found: Inspection, snapshot: Snapshot, within: str, tree: ast.Module) -> None:
    """Notes which features a file imports, and where it imports a feature's modules too late."""
    package = [PACKAGE, snapshot.name, *within.split("/")[:-1]]
    for node, is_late in sorted(_import_nodes(tree), key=lambda each: each[0].lineno):
        place = Place(str(snapshot.folder / within), node.lineno)
        for module in _imported_modules(node, package):
            parts = module.split(".")
            if parts[0] != PACKAGE or len(parts) == 1:
                continue
            if parts[1] != snapshot.name:
                found.imports.setdefault(parts[1], place)
            if is_late:
                flaw = Flaw(
                    "late-import",
                    f"{module} is imported inside a function, and would be another version's "
                    "after a change",
                    "import it at the top of the file",
                )
                found.flaws.append((place, flaw, "warning"))


def _import_nodes(tree: ast.Module) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Each import that can run, and whether it stands inside a function."""
    # No recursion: a chain of a thousand `elif` is as many levels deep.
    waiting: list[tuple[ast.AST, bool]] = [(tree, False)]
    while waiting:
        node, inside = waiting.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, inside
        elif isinstance(node, ast.If) and _is_for_types(node.test):
            waiting += [(child, inside) for child in node.orelse]
        elif not isinstance(node, ast.expr):
            inside = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            waiting += [(child, inside) for child in ast.iter_child_nodes(node)]


def _is_for_types(condition: ast.expr) -> bool:
    """Whether a condition is `TYPE_CHECKING`: nothing below it is ever run."""
    if isinstance(condition, ast.Attribute):
        return condition.attr == "TYPE_CHECKING"
    return isinstance(condition, ast.Name) and condition.id == "TYPE_CHECKING"


def _imported_modules(node: ast.Import | ast.ImportFrom, package: list[str]) -> list[str]:
    """The modules that an import names, relative ones made absolute from `package`."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    module = node.module or ""
    if node.level:
        outer = package[: max(0, len(package) - node.level + 1)]
        module = ".".join([*outer, module] if module else outer)
    if module == PACKAGE:
        return [f"{PACKAGE}.{alias.name}" for alias in node.names]
    return [module]
