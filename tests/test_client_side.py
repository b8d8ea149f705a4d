"""aiohttp's client side: absent until somebody asks for it, and complete then."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.conftest import ROOT, clean_environment, write_feature

CLIENT_SIDE = ROOT / "petsage" / "client_side.py"

# What `-m petsage` does first, with a question asked behind it instead of a command; the package
# itself, imported by somebody else's process, has all of aiohttp.
BEGIN = f"""
import importlib.util, ssl, sys, threading
from types import ModuleType
spec = importlib.util.spec_from_file_location("client_side", {str(CLIENT_SIDE)!r})
client_side = importlib.util.module_from_spec(spec)
spec.loader.exec_module(client_side)
client_side.postpone_client()
"""
USES = {
    "an attribute": "import aiohttp; aiohttp.ClientSession",
    "a name": "from aiohttp import ClientSession",
    "another name": "import aiohttp as a; a.ClientSession",
    "everything": "from aiohttp import *; ClientSession",
    "a list of names": "import aiohttp; assert 'ClientSession' in dir(aiohttp)",
    "the module alone": "import aiohttp; assert aiohttp.connector.TCPConnector",
    "a module of it": "import aiohttp.client; aiohttp.client.ClientSession; aiohttp.TCPConnector",
    "a reload": "import aiohttp, importlib; importlib.reload(aiohttp); aiohttp.ClientSession",
}
FEATURE = """
    {imports}
    from petsage import Feature, Routes

    routes = Routes()

    @routes.get("/loaded")
    async def loaded() -> list[str]:
        '''What of aiohttp there is.'''
        return sorted(name for name in sys.modules if name.startswith("aiohttp."))

    @routes.get("/ask")
    async def ask(url: str = "") -> int:
        '''The status of an answer.'''
        async with {session}() as session, session.get(url) as answer:
            return answer.status

    feature = Feature(routes)
"""


def _run(source: str, begin: str = BEGIN) -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", begin + textwrap.dedent(source)],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr


def test_a_server_that_asks_nobody_has_no_client(project, start_server) -> None:
    write_feature(project, "hello", FEATURE.format(imports="import sys", session="print"))
    loaded = start_server().get("/api/v1/loaded")[1]
    assert "aiohttp.web" in loaded
    assert "aiohttp.client" not in loaded
    assert "aiohttp.connector" not in loaded


@pytest.mark.parametrize(
    ("imports", "session"),
    [
        ("import sys, aiohttp", "aiohttp.ClientSession"),
        ("import sys\n    import aiohttp as http", "http.ClientSession"),
        ("import sys\n    from aiohttp import ClientSession", "ClientSession"),
        ("import sys\n    from aiohttp import *", "ClientSession"),
        ("import sys, aiohttp.client", "aiohttp.client.ClientSession"),
    ],
)
def test_a_feature_that_asks_others_has_it_when_it_is_imported(
    project, start_server, imports, session
) -> None:
    write_feature(project, "asks", FEATURE.format(imports=imports, session=session))
    server = start_server()
    assert "aiohttp.connector" in server.get("/api/v1/loaded")[1]
    assert server.get(f"/api/v1/ask?url={server.address}/livez") == (200, 200)


def test_a_feature_has_it_where_a_library_of_its_own_only_names_aiohttp(
    project, start_server
) -> None:
    (project / "some_client.py").write_text("import aiohttp\n", encoding="utf-8")
    imports = "import sys\n    import some_client"
    write_feature(project, "asks", FEATURE.format(imports=imports, session="print"))
    server = start_server(env={"PYTHONPATH": str(project)})
    assert "aiohttp.connector" in server.get("/api/v1/loaded")[1]


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_every_way_to_ask_for_it_makes_an_ordinary_module(use: str) -> None:
    _run(f"""
        assert "aiohttp.web" in sys.modules and "aiohttp.connector" not in sys.modules
        {use}
        import aiohttp, aiohttp.connector
        assert not hasattr(aiohttp, "no_such_name")
        assert aiohttp.ClientSession and type(aiohttp) is ModuleType
        assert aiohttp.web is sys.modules["aiohttp.web"]
        assert aiohttp.connector._SSL_CONTEXT_VERIFIED.verify_mode is ssl.CERT_REQUIRED
        assert aiohttp.__version__ == __import__("importlib.metadata").metadata.version("aiohttp")
    """)


def test_what_it_has_not_is_an_ordinary_error() -> None:
    _run("""
        import aiohttp
        try:
            from aiohttp import no_such_name
        except ImportError as error:
            assert "cannot import name 'no_such_name'" in str(error), error
        else:
            raise SystemExit("it was imported")
        assert isinstance(aiohttp, ModuleType) and aiohttp.ClientSession
    """)


def test_many_threads_that_ask_at_once_all_have_it_and_it_runs_once() -> None:
    _run("""
        import aiohttp
        sys.setswitchinterval(1e-6)
        begin, got, runs = threading.Barrier(8), [], []
        loader = aiohttp.__spec__.loader
        run = loader.exec_module
        loader.exec_module = lambda module: (runs.append(module), run(module))

        def ask(number):
            begin.wait()
            if number % 2:
                from aiohttp import ClientSession, TCPConnector
                got.append(ClientSession)
            else:
                import aiohttp.test_utils
                got.append(aiohttp.ClientSession)

        threads = [threading.Thread(target=ask, args=(each,), daemon=True) for each in range(8)]
        for each in threads: each.start()
        for each in threads: each.join(30)
        assert len(got) == 8 and len(set(got)) == 1, got
        assert len(runs) == 1
    """)


def test_an_error_is_the_askers_and_the_next_one_tries_again() -> None:
    _run("""
        import aiohttp
        sys.modules["aiohttp.connector"] = None
        try:
            from aiohttp import ClientSession
        except ImportError:
            del sys.modules["aiohttp.connector"]
        else:
            raise SystemExit("it was imported")
        from aiohttp import ClientSession
        assert type(aiohttp) is ModuleType
    """)


def test_an_aiohttp_that_does_not_let_itself_be_imported_so_is_imported_as_ever(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "aiohttp"
    folder.mkdir()
    (folder / "__init__.py").write_text("state = []\nfrom . import web\n", encoding="utf-8")
    (folder / "web.py").write_text(
        "import sys\n"
        "if type(sys.modules['aiohttp']).__name__ != 'module':\n"
        "    raise ImportError('odd')\n",
        encoding="utf-8",
    )
    odd = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
"""
    asked = """
        import aiohttp
        assert type(aiohttp) is ModuleType and aiohttp.state == []
        assert aiohttp.__file__.startswith(sys.path[0])
    """
    _run(asked, begin=odd + BEGIN)


def test_who_merely_uses_the_package_has_aiohttp_as_it_is() -> None:
    _run(
        """
        import gc, sys
        from types import ModuleType
        assert gc.isenabled()
        frozen = gc.get_freeze_count()  # some of its own, in Python 3.12
        import petsage
        assert gc.isenabled() and gc.get_freeze_count() == frozen
        assert type(sys.modules["aiohttp"]) is ModuleType
        assert "aiohttp.connector" in sys.modules
        """,
        begin="",
    )
