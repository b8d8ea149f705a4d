"""The core's rooms, one after another: a module imports only from rows above its own."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent / "petsage"

# Each row may import from those above it, and from itself where it is a package.
ROWS = [
    # What is set up before anything else is imported.
    *("client_side", "signals"),
    # What every row below may know of: the request, errors, settings, counts, the log, checks.
    *("context", "errors", "aiohttp_inside", "sources", "settings", "metrics", "logs", "health"),
    "troubles",  # what operators are told that features have done
    # A typed handler, from its signature to the bytes of its answer.
    *(
        "collisions",
        "bounding",
        "signature",
        "serializing",
        "shapes",
        "backtracking",
        "signature_reader",
        "refusals",
        "texts",
        "binding",
        "arguments",
        "response",
        "endpoint",
    ),
    # A feature, and what is documented of it.
    *("path_template", "feature", "openapi", "generation"),
    "shared_database",  # who keeps no data knows this much of it
    "",  # the package's root: the public names
    # What features are made of that keep data.
    *("storage", "resources"),
    # From a path to an endpoint.
    *("framing", "answers", "routing"),
    # From a folder to a feature that serves.
    *("listing", "ownership", "snapshot", "inspection", "candidate", "ordering", "explanation"),
    *("stacks", "strays", "steady", "patches", "side_effects", "loader"),
    *("worker", "check_messages", "check_attempt", "check_process", "checking"),
    # From a feature to what serves, and to its end.
    *("entry", "setback", "feature_report", "lifespan", "leavings", "making", "retirement"),
    *("current", "news", "unmatched", "ledger", "folder_reader", "outcome", "taking_up"),
    *("departures", "catalog_view", "catalog"),
    # What operators ask, and the features of the core that answer.
    *("watchdog", "token_file", "management", "readiness", "system"),
    # The application, its connections, the process.
    *(
        "app",
        "protocol",
        "proxies",
        "holding",
        "unpacking",
        "parsing",
        "heads",
        "short_way",
        "direct",
        "wheel",
        "timed",
        "connection",
    ),
    *("sockets", "accepting", "descriptors", "ending", "changes", "watch"),
    *("essentials", "upkeep", "server"),
    # The log, read again.
    *("log_reader", "log_search"),
    # The pytest plugin.
    *("surroundings", "leftovers", "broken_sinks", "proof_reading", "fresh_database", "testing"),
    # From a request to a feature's folder.
    "builder",
    # The command line.
    *(
        "terminal",
        "running_server",
        "letting_go",
        "survey",
        "features_command",
        "logger_command",
        "build_display",
        "build_command",
        "serve_command",
        "commands",
        "cli",
    ),
    "__main__",
]
# Inside a package, too: a file imports only from those above it.
PACKAGES = {
    "logs": [
        "",
        "cleaning",
        "tracebacks",
        "formatter",
        "targets",
        "proofs",
        "sinks",
        "receipts",
        "stand_ins",
        "pipeline",
        "levels",
        "printed",
        "access",
    ],
    "storage": [
        "columns",
        "operations",
        "faults",
        "migrating",
        "comparing",
        "caches",
        "sqlite_file",
        "sqlite_seat",
        "sqlite",
        "postgresql",
        "database",
        "dropping",
        "",
    ],
    "builder": [
        "",
        "events",
        "lines",
        "faults",
        "words",
        "patterns",
        "fields",
        "values",
        "examples",
        "field_names",
        "field_rules",
        "resource_names",
        "request",
        "request_faults",
        "short_form",
        "request_reader",
        "resource_plan",
        "plan",
        "quoting",
        "expressions",
        "importing",
        "field_code",
        "field_strategies",
        "resource_code",
        "resource_words",
        "growth",
        "migration_code",
        "rendering",
        "formatting",
        "record",
        "built",
        "update_reader",
        "amendment",
        "comparison",
        "disk",
        "exchange",
        "workspace",
        "guard",
        "children",
        "toolbox",
        "verification",
        "caller",
        "resource_probing",
        "probing",
        "interruption",
        "building",
        "updating",
        "data",
        "removal",
    ],
    "resources": [
        "fields",
        "patching",
        "conditions",
        "pages",
        "cursors",
        "scans",
        "paging",
        "",
    ],
    "system": ["welcome", "docs", "health", "samples", "metrics", "management", ""],
}
PUBLIC = ROWS.index("")


def _imports(file: Path) -> list[tuple[int, str]]:
    """Every module of the core that a file imports, at import time or later, with its line."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: the core imports by full names"
            module = node.module or ""
            # `from petsage.system import docs` imports a module, and not a name.
            found += [
                (node.lineno, f"{module}.{alias.name}")
                if (ROOT.parent / module.replace(".", "/") / f"{alias.name}.py").exists()
                else (node.lineno, module)
                for alias in node.names
            ]
    return [(line, name) for line, name in found if name.partition(".")[0] == "petsage"]


def _name(file: Path) -> str:
    """A file's name below the root: "logs.formatter", "" for the root's own `__init__`."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def _files() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def test_every_module_has_its_row() -> None:
    assert {_name(file).partition(".")[0] for file in _files()} == set(ROWS)


def test_every_file_of_a_package_has_its_place() -> None:
    for package, order in PACKAGES.items():
        names = {_name(file).partition(".")[2] for file in (ROOT / package).rglob("*.py")}
        assert names == set(order), package


def test_a_module_imports_only_from_rows_above_its_own() -> None:
    wrong = []
    for file in _files():
        row, _, inner = _name(file).partition(".")
        for line, module in _imports(file):
            other, _, other_inner = module.removeprefix("petsage").removeprefix(".").partition(".")
            if other == row and row in PACKAGES:
                order = PACKAGES[row]
                right = order.index(other_inner) < order.index(inner)
            else:
                right = ROWS.index(other) < ROWS.index(row)
            if not right:
                wrong.append(f"{file.relative_to(ROOT)}:{line} imports {module}")
    assert wrong == []


def test_what_stands_above_the_public_names_never_imports_them() -> None:
    above = ROWS[:PUBLIC]
    wrong = [
        f"{file.relative_to(ROOT)}:{line}"
        for file in _files()
        if _name(file).partition(".")[0] in above
        for line, module in _imports(file)
        if module == "petsage"
    ]
    assert wrong == []


def test_what_is_long_says_why() -> None:
    told = re.compile(r"\blong(er)?\b|\b300 lines", re.IGNORECASE)
    silent = []
    for file in _files():
        if "templates" in file.parts:
            continue
        text = file.read_text()
        tree = ast.parse(text)
        if text.count("\n") > 300 and not told.search(ast.get_docstring(tree) or ""):
            silent.append(str(file.relative_to(ROOT)))
        for each in ast.walk(tree):
            if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
                docstring = ast.get_docstring(each) or ""
                lines = (each.end_lineno or 0) - each.lineno + 1 - len(docstring.splitlines())
                if lines > 40 and not told.search(docstring):
                    silent.append(f"{file.relative_to(ROOT)}:{each.lineno} {each.name}")
    assert silent == []


def test_there_is_no_room_for_leftovers() -> None:
    names = {file.stem for file in _files()}
    assert not names & {"utils", "helpers", "base", "common", "misc"}
