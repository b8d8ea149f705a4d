"""What the product's code never does, read from its source; and what is written on security."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PRODUCT = [
    ROOT / "run.py",
    *sorted((ROOT / "petsage").rglob("*.py")),
    *sorted((ROOT / "features").rglob("*.py")),
]
# What turns text or bytes into code, or hands a text to a shell, or leaves a gap between a name
# and its file. `yaml` is not even a dependency.
NEVER_CALLED = {
    *("eval", "exec", "__import__", "input", "breakpoint"),
    *("os.system", "os.popen", "tempfile.mktemp", "yaml.load", "yaml.unsafe_load"),
    *("subprocess.getoutput", "subprocess.getstatusoutput", "asyncio.create_subprocess_shell"),
    *("ssl._create_unverified_context", "ssl._create_stdlib_context"),
}
NEVER_IMPORTED = {"dill", "jsonpickle", "pickle", "cPickle", "shelve", "telnetlib", "yaml"}
# Each with its reason. A name is counted as often as it is called there.
EXCEPTIONS = {
    # The loader's job is to run features: their sources become code here, and nowhere else; the
    # stdlib's loader runs it.
    ("petsage/inspection.py", "compile"): 1,
    # The server and its own child, over a socket that nobody else has: numbers, texts, bytes, and
    # the code of features, which both of them run. What a child answers has been taken before
    # anything of a feature has run in it, or is plain.
    ("petsage/check_messages.py", "marshal.loads"): 4,
}


def _calls(tree: ast.AST, names: dict[str, str]) -> Iterator[tuple[int, str, ast.Call]]:
    """Every call, by the whole name of what is called as far as the source tells."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            first, _, rest = ast.unparse(node.func).partition(".")
            first = names.get(first, first)
            yield node.lineno, f"{first}.{rest}" if rest else first, node


def _imports(tree: ast.AST) -> dict[str, str]:
    """What each name that is imported stands for."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                shown = alias.asname or alias.name.partition(".")[0]
                names[shown] = alias.name if alias.asname else shown
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def _wrong_in(source: str, file: str) -> list[str]:
    """What stands in a source that may not, but for the exceptions; those are used up."""
    tree = ast.parse(source)
    names = _imports(tree)
    left = {name: count for (where, name), count in EXCEPTIONS.items() if where == file}
    imported = {name for name in names.values() if name.partition(".")[0] in NEVER_IMPORTED}
    wrong = [f"{file}: imports {name}" for name in sorted(imported)]
    for line, name, call in _calls(tree, names):
        named = name.removeprefix("builtins.")
        is_wrong = named in NEVER_CALLED or named in {"compile", "marshal.loads", "marshal.load"}
        for word in call.keywords:
            is_set = not (isinstance(word.value, ast.Constant) and word.value.value is False)
            is_wrong = is_wrong or (word.arg == "shell" and is_set)
        if is_wrong and left.get(named, 0) > 0:
            left[named] -= 1
        elif is_wrong:
            wrong.append(f"{file}:{line}: calls {named}")
    wrong += [f"{file}: no longer calls {name}" for name, count in left.items() if count]
    return wrong


def test_nothing_makes_code_of_data_or_asks_a_shell():
    wrong = []
    for file in PRODUCT:
        text = file.read_text(encoding="utf-8")
        wrong += _wrong_in(text, str(file.relative_to(ROOT)))
    assert wrong == []
    assert {file for file, _ in EXCEPTIONS} <= {str(each.relative_to(ROOT)) for each in PRODUCT}


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import pickle", "imports pickle"),
        ("from pickle import loads as f\nf(b'')", "imports pickle.loads"),
        ("def f():\n    import yaml", "imports yaml"),
        ("eval('1')", "calls eval"),
        ("import builtins as b\nb.exec('1')", "calls exec"),
        ("compile('1', 'a', 'exec')", "calls compile"),
        ("from os import system as run\nrun('ls')", "calls os.system"),
        ("import tempfile as t\nt.mktemp()", "calls tempfile.mktemp"),
        ("import subprocess\nsubprocess.run('ls', shell=True)", "calls subprocess.run"),
        ("from subprocess import Popen\nPopen('ls', shell=maybe)", "calls subprocess.Popen"),
        ("import marshal\nmarshal.loads(b'')", "calls marshal.loads"),
    ],
)
def test_whatever_does_is_found(source, said):
    assert said in " ".join(_wrong_in(source, "petsage/x.py"))


def test_what_only_looks_like_it_is_none():
    plain = "import re, subprocess\nre.compile('a')\nsubprocess.run(['a'], shell=False)\nx.eval()"
    assert _wrong_in(plain, "petsage/x.py") == []


def test_every_exception_has_its_reason_beside_it():
    pragma = re.compile(r"#\s*(?:ruff: )?no(?:qa|sec)\b.*")
    reasonless = []
    folders = ("petsage", "features", "scripts", "benchmarks")
    files = [each for folder in folders for each in sorted((ROOT / folder).rglob("*.py"))]
    for file in files:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            found = pragma.search(line)
            said = found[0] if found is not None else ""
            is_security = re.search(r"noqa: S\d|nosec", said) is not None
            if is_security and not re.search(r" - \w| # nosec|^# nosec B\d+$", said):
                reasonless.append(f"{file.relative_to(ROOT)}:{number}: {said}")
            if "nosec" in said and not re.search(r"nosec B\d{3}$", said):
                reasonless.append(f"{file.relative_to(ROOT)}:{number}: without its id: {said}")
    assert reasonless == []


def test_the_security_rules_are_on_for_all_but_tests():
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    lint = tools["ruff"]["lint"]
    assert "S" in lint["select"]
    assert not any(each.startswith("S") and each[1:].isdecimal() for each in lint["ignore"])
    spared = {place for place, rules in lint["per-file-ignores"].items() if "S" in rules}
    assert spared == {"**/tests/**", "tests/**"}
    assert tools["bandit"]["exclude_dirs"] == ["tests"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"\$\(BIN\)/bandit .*petsage features run\.py scripts benchmarks", makefile)


def _named_tests(text: str) -> list[str]:
    return re.findall(r"`(test_\w+\.py::[\w:]+)`", text)


def _tests_of(file: Path) -> set[str]:
    """The names of a file's tests, those of a class behind its name."""
    found = set()
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in tree.body:
        inside = node.body if isinstance(node, ast.ClassDef) else [node]
        above = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        for each in inside:
            if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
                found.add(f"{above}{each.name}")
    return found


def test_every_promise_of_the_threat_model_names_tests_that_are_there():
    text = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
    named = _named_tests(text)
    missing = []
    for each in named:
        file, _, test = each.partition("::")
        path = ROOT / "tests" / file
        if not path.is_file() or test not in _tests_of(path):
            missing.append(each)
    assert missing == []
    promises = [
        line.split("|")
        for line in text.split("## What is promised")[1].split("\n## ")[0].splitlines()
        if line.startswith("| ") and not line.startswith("| Border")
    ]
    assert len(promises) > 20
    assert [row[2] for row in promises if not _named_tests(row[3])] == []
    assert len(text.split()) < 2000, "one page"


def test_what_is_said_on_security_invents_no_address():
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert "private vulnerability report" in text
    assert "docs/threat-model.md" in text
    assert re.findall(r"\S+@\S+\.\w+|https?://\S+", text) == []


def test_the_token_is_compared_in_constant_time():
    tree = ast.parse((ROOT / "petsage" / "management.py").read_text(encoding="utf-8"))
    compared = [name for _, name, _ in _calls(tree, _imports(tree)) if "compare" in name]
    assert compared == ["hmac.compare_digest"]
    ordinary = [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare)
        and any(isinstance(each, ast.Eq | ast.NotEq | ast.In | ast.NotIn) for each in node.ops)
        and "token" in ast.unparse(node)
    ]
    assert ordinary == []
