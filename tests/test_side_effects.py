"""What an import changes of the process is told with its line, and put back."""

import json
import logging
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from petsage.loader import load_features, unload
from petsage.side_effects import ProcessState, find_words
from petsage.snapshot import take_snapshot
from tests.conftest import clean_environment

END = "from petsage import Feature, Routes\nfeature = Feature(Routes())\n"

# In a process of its own, in its main thread, where signals may be set. All of them one after the
# other: each has to find what the one before it has changed put back.
PROGRAM = """
import asyncio, builtins, gc, json, locale, logging, os, signal, socket, sys, threading, time
from pydantic import BaseModel
from pathlib import Path
from petsage.loader import load_features
from petsage.side_effects import _ASPECTS

logging.getLogger().addHandler(logging.NullHandler())
stdout = sys.stdout
def look_at_patched():
    return [asyncio.sleep, json.loads, time.monotonic_ns, vars(BaseModel).copy()]
patched = look_at_patched()
before = [aspect.look() for aspect in _ASPECTS]
candidates = load_features([Path(sys.argv[1])], settings={}, strict=True)
after = [aspect.look() for aspect in _ASPECTS]
lasting = [aspect.lasting or aspect.known_only for aspect in _ASPECTS]
left = [
    name
    for was, now, lasts in zip(before, after, lasting)
    for name in (was if lasts else {**was, **now})
    if was.get(name) != now.get(name) and not name.startswith("features.")
]
found = {
    each.name: [[each.id, each.level, each.line, each.problem] for each in each.findings]
    for each in candidates
}
if look_at_patched() != patched:
    left.append("what was patched")
json.dump({"found": found, "left": left}, stdout)
stdout.flush()
os._exit(0)
"""

CHANGES = {
    "path": ("import sys\nsys.path.insert(0, '/x')", "sys.path changed"),
    "other path": ("import sys\nsys.path = ['/x', *sys.path]", "sys.path changed"),
    "finder": (
        "import sys\nsys.meta_path.append(type('F', (), {'find_spec': lambda *_: None})())",
        "sys.meta_path changed",
    ),
    "finders": ("import sys\nsys.path_hooks.clear()", "sys.path_hooks changed"),
    "folder": ("import os\nos.chdir('/')", "the working directory changed"),
    "new variable": ("import os\nos.environ['NEW'] = 'secret'", "the environment (NEW) changed"),
    "variable": ("import os\nos.environ['HOME'] = 'secret'", "the environment (HOME) changed"),
    "no variable": ("import os\ndel os.environ['HOME']", "the environment (HOME) changed"),
    "umask": ("import os\nos.umask(0o007)", "the umask changed"),
    "handlers": (
        "import logging\nlogging.basicConfig(force=True)",
        "the root logger's handlers changed",
    ),
    "level": ("import logging\nlogging.getLogger().setLevel(1)", "the root logger's level changed"),
    "disable": ("import logging\nlogging.disable()", "logging.disable() changed"),
    "loggers": (
        "import logging.config\nlogging.config.dictConfig({'version': 1})",
        "whether these loggers are disabled (",
    ),
    "logger class": (
        "import logging\nlogging.setLoggerClass(type('L', (logging.Logger,), {}))",
        "the class of loggers changed",
    ),
    "factory": (
        "import logging\nlogging.setLogRecordFactory(lambda *a, **k: logging.LogRecord(*a))",
        "the factory of records changed",
    ),
    "raising": (
        "import logging\nlogging.raiseExceptions = False",
        "logging.raiseExceptions changed",
    ),
    "stdout": ("import sys\nsys.stdout = None", "sys.stdout changed"),
    "stderr": ("import sys, io\nsys.stderr = io.StringIO()", "sys.stderr changed"),
    "hook": ("import sys\nsys.excepthook = print", "sys.excepthook changed"),
    "thread hook": (
        "import threading\nthreading.excepthook = print",
        "threading.excepthook changed",
    ),
    "timeout": ("import socket\nsocket.setdefaulttimeout(1)", "socket.setdefaulttimeout() changed"),
    "locale": ("import locale\nlocale.setlocale(locale.LC_ALL, 'C')", "the locale changed"),
    "recursion": ("import sys\nsys.setrecursionlimit(5000)", "sys.setrecursionlimit() changed"),
    "switch": ("import sys\nsys.setswitchinterval(1)", "sys.setswitchinterval() changed"),
    "trace": ("import sys\nsys.settrace(lambda *_: None)", "sys.settrace() changed"),
    "profile": ("import sys\nsys.setprofile(lambda *_: None)", "sys.setprofile() changed"),
    "thread trace": (
        "import threading\nthreading.settrace(lambda *_: None)",
        "threading.settrace() changed",
    ),
    "policy": (
        (
            "import asyncio; usual = asyncio.DefaultEventLoopPolicy\n"
            "asyncio.set_event_loop_policy(type('P', (usual,), {})())"
        ),
        "the event loop's policy changed",
    ),
    "builtin": ("import builtins\nbuiltins.shout = print", "builtins (shout) changed"),
    "replaced": ("import builtins\nbuiltins.print = builtins.repr", "builtins (print) changed"),
    "collector": ("import gc\ngc.disable()", "garbage collection changed"),
    "signal": (
        "import signal\nsignal.signal(signal.SIGUSR1, signal.SIG_IGN)",
        "the handlers of signals (SIGUSR1) changed",
    ),
    "module": (
        "import sys, types\nsys.modules['json'] = types.ModuleType('json')",
        "the modules that others use (json) changed",
    ),
    "module gone": (
        "import sys\ndel sys.modules['email']",
        "the modules that others use (email) changed",
    ),
    "core level": (
        "import logging\nlogging.getLogger('petsage').setLevel(60)",
        "the loggers of the core (petsage) changed",
    ),
    "core filter": (
        "import logging\nlogging.getLogger('petsage.access').addFilter(lambda _: False)",
        "the loggers of the core (petsage.access) changed",
    ),
    "warnings": (
        "import warnings\nwarnings.simplefilter('error')",
        "warnings that are errors everywhere changed",
    ),
    "limit": (
        (
            "import resource as r; hard = r.getrlimit(r.RLIMIT_NOFILE)[1]\n"
            "r.setrlimit(r.RLIMIT_NOFILE, (64, hard))"
        ),
        "the limit RLIMIT_NOFILE",
    ),
    "stack": ("import threading\nthreading.stack_size(65536)", "threading.stack_size() changed"),
    "alarm": ("import signal\nsignal.alarm(60)", "the timer ITIMER_REAL changed"),
    "tracing": ("import tracemalloc\ntracemalloc.start()", "tracemalloc changed"),
    "digits": (
        "import sys\nsys.set_int_max_str_digits(0)",
        "sys.set_int_max_str_digits() changed",
    ),
    "thread": (
        "import threading, time\nthreading.Thread(target=time.sleep, args=(99,), name='t').start()",
        "the import started a thread that runs on: thread t",
    ),
    "raw thread": (
        (
            "import _thread, time; lock = _thread.allocate_lock(); lock.acquire()\n"
            "_thread.start_new_thread(lambda: (lock.release(), time.sleep(99)), ()); lock.acquire()"
        ),
        "the import started a thread that runs on: one of `_thread`",
    ),
    "patched": ("import asyncio\nasyncio.sleep = None", "asyncio.sleep changed"),
    "patched deeper": (
        "import pydantic as p\np.BaseModel.__init__ = None",
        "pydantic.BaseModel.__init__ changed",
    ),
    "patched from": (
        "from pydantic import BaseModel\nBaseModel.model_dump = BaseModel.copy = None",
        "pydantic.BaseModel.model_dump changed",
    ),
    "patched by call": ("import json\nsetattr(json, 'loads', None)", "json.loads changed"),
    "patched away": ("import time\ndel time.monotonic_ns", "time.monotonic_ns changed"),
}
COUNTS = {"patched from": 2}


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What was found in features that make one change each."""
    folder = tmp_path_factory.mktemp("project") / "features"
    for name, (source, _) in CHANGES.items():
        file = folder / name.replace(" ", "_") / "__init__.py"
        file.parent.mkdir(parents=True)
        file.write_text(f"{source}\n{END}", encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)],
        capture_output=True,
        text=True,
        env={**clean_environment(), "HOME": "/root", "LC_ALL": "C.UTF-8"},
        timeout=20,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_an_error_of_its_line(told, name):
    _, said = CHANGES[name]

    (kind, level, line, problem), *more = told["found"][name.replace(" ", "_")]
    assert len(more) == COUNTS.get(name, 1) - 1
    assert (kind, level, line) == ("import-side-effect", "error", 2)
    assert problem.startswith(said)
    assert "secret" not in problem


def test_everything_is_put_back(told):
    assert told["left"] == []


def test_what_is_added_to_a_module_or_set_in_a_features_own_is_no_change(load):
    source = "import logging\nlogging.PETS = 5\nclass Pet:\n    pass\nPet.name = 'Rex'\n"
    files = {"__init__.py": f"{source}from features.pets import names\nnames.ALL = 1\n{END}"}
    files["names.py"] = "ALL = 0\n"
    try:
        assert found(load(files)) == []
    finally:
        delattr(logging, "PETS")


EXITS = """
import sys
from pathlib import Path
from petsage.loader import load_features
candidates = load_features([Path(sys.argv[1])], settings={})
print([each.name for each in candidates if not each.errors])
"""


def test_what_an_import_that_fails_has_registered_is_not_called_at_exit(feature_folder, tmp_path):
    source = "import atexit\natexit.register(print, __name__)\n"
    feature_folder("fails", {"__init__.py": f"{source}1 / 0\n"})
    feature_folder("stands", {"__init__.py": f"{source}{END}"})

    run = subprocess.run(
        [sys.executable, "-c", EXITS, str(tmp_path / "features")],
        capture_output=True,
        text=True,
        env=clean_environment(),
        timeout=20,
        check=False,
    )

    assert (run.stdout, run.stderr) == ("['stands']\nfeatures.stands\n", "")


@pytest.fixture
def load(feature_folder, tmp_path):
    """Call it to load one feature; it is unloaded at the end."""
    loaded = []

    def load(files, *, strict=True):
        feature_folder("pets", files)
        loaded.extend(load_features([tmp_path / "features"], settings={}, strict=strict))
        return loaded[-1]

    yield load
    unload(loaded)


def found(candidate):
    return [(each.id, each.level, Path(each.file).name, each.line) for each in candidate.findings]


def test_in_a_live_process_a_change_is_put_back_and_warned_of(load, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    candidate = load("import os\nos.chdir('/')\n" + END, strict=False)

    assert found(candidate) == [("import-side-effect", "warning", "__init__.py", 2)]
    assert candidate.errors == []
    assert Path.cwd() == tmp_path


def test_a_level_that_an_operator_sets_meanwhile_stays(feature_folder):
    snapshot = take_snapshot("pets", feature_folder("pets", END))
    root, level = logging.getLogger(), logging.getLogger().level
    try:
        state = ProcessState(strict=False)
        root.setLevel(level + 1)

        assert state.undo(snapshot) == []
        assert root.level == level + 1
    finally:
        root.setLevel(level)


def test_a_thread_of_the_servers_own_is_not_the_features(feature_folder):
    snapshot = take_snapshot("pets", feature_folder("pets", END))
    state = ProcessState(strict=False)
    go = threading.Event()
    thread = threading.Thread(target=go.wait)
    thread.start()
    try:
        assert state.undo(snapshot) == []
    finally:
        go.set()
        thread.join()


def test_what_one_import_begins_with_is_what_the_one_before_it_has_left(feature_folder):
    snapshot = take_snapshot("pets", feature_folder("pets", END))
    logger = logging.getLogger("made.by.the.one.before")
    del logging.Logger.manager.loggerDict[logger.name]
    first = ProcessState(strict=True)
    logging.Logger.manager.loggerDict[logger.name] = logger
    try:
        assert first.undo(snapshot) == []
        second = first.following()
        logger.disabled = True

        ((_, flaw),) = second.undo(snapshot)
        assert f"loggers are disabled ({logger.name}) changed" in flaw.problem
        assert not logger.disabled
        assert second.following().undo(snapshot) == []  # looked at anew, once it was put back
    finally:
        del logging.Logger.manager.loggerDict[logger.name]


def test_a_change_by_a_library_is_the_features_that_imports_it(load, monkeypatch, tmp_path):
    library = tmp_path / "site" / "rude_library.py"
    library.parent.mkdir()
    library.write_text("import os\nos.environ['RUDE'] = '1'\n", encoding="utf-8")
    monkeypatch.syspath_prepend(library.parent)

    candidate = load("import rude_library\n" + END)

    assert found(candidate) == [("import-side-effect", "error", "__init__.py", 3)]
    assert "the environment (RUDE) changed" in candidate.findings[0].problem
    assert "set before PetSage starts" in candidate.findings[0].fix


def test_what_a_library_needs_to_be_imported_with_is_no_change(load, monkeypatch, tmp_path):
    library = tmp_path / "site" / "lazy_library.py"
    library.parent.mkdir()
    library.write_text(
        """
import atexit, logging, sys, warnings
class Finder:
    def find_spec(self, *_):
        return None
finder = Finder()
sys.meta_path.append(finder)
atexit.register(print, end="")
atexit.unregister(print)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
logging.getLogger(__name__).addHandler(logging.NullHandler())
logging.basicConfig()
""",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(library.parent)
    finders = list(sys.meta_path)
    try:
        assert found(load("import lazy_library\n" + END)) == []
        assert type(sys.meta_path[-1]).__name__ == "Finder"
    finally:
        sys.meta_path[:] = finders


def test_a_change_while_settings_are_validated_counts_too(load):
    source = """
        import os
        from petsage import Feature, Routes
        from pydantic import BaseModel, model_validator
        class Own(BaseModel):
            @model_validator(mode="after")
            def check(self):
                os.environ["OWN"] = "1"
                return self
        feature = Feature(Routes(), settings=Own)
        """
    assert found(load(source)) == [("import-side-effect", "error", "__init__.py", 8)]


def line_of(place):
    return place.line


def test_the_line_is_one_at_the_top_level_that_names_what_changed(feature_folder):
    source = """
        import os
        def later():
            os.environ["A"] = "1"
        first = os.environ.get("B")
        os.environ["A"] = "2"
        """
    files = {"__init__.py": source, "tests/test_it.py": "import os\nos.environ['A'] = ''\n"}
    snapshot = take_snapshot("pets", feature_folder("pets", files))

    assert line_of(find_words(snapshot, ("environ",), ("A",))) == 6
    assert line_of(find_words(snapshot, ("environ",))) == 5
    assert find_words(snapshot, ("chdir",)) is None
