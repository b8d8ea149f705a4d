"""An update of what serves: nobody is refused, and what was kept is there."""

import json
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from functools import partial

import pytest

from petsage.builder.building import draft
from petsage.builder.data import Data
from petsage.builder.events import BuildError
from petsage.builder.removal import remove_feature
from petsage.builder.request_reader import read_request
from petsage.builder.workspace import README, open_workspace
from petsage.letting_go import require_unserved
from petsage.settings import DatabaseSettings, ServerSettings, Settings
from tests.conftest import clean_environment

pytestmark = pytest.mark.usefixtures("bytecode_of_tools")

FIELDS = ["name:str", "species:dog|cat", "note:str?"]
TAKEN_UP_S = 5.0  # a second, where the machine has nothing else to do


class Client:
    """Reads and writes until it is stopped; what it was answered, by status, with the bodies."""

    def __init__(self, url):
        self._url = url
        self._ends = threading.Event()
        self.statuses = set()
        self.kept = {}
        self.errors = []
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(3)]
        for thread in self._threads:
            thread.start()

    def _run(self, number):
        count = 0
        while not self._ends.wait(0.02):
            count += 1
            try:
                pet = self._ask("POST", "", {"name": f"{number}-{count}", "species": "dog"})
                self.kept[pet["id"]] = pet["name"]
                assert self._ask("GET", f"/{pet['id']}")["name"] == pet["name"]
                self._ask("GET", "?limit=3")
            except (OSError, AssertionError, KeyError, ValueError) as error:
                self.errors.append(repr(error))

    def _ask(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self._url}{path}", data, {"Content-Type": "application/json"}, method=method
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            self.statuses.add(answer.status)
            return json.loads(answer.read())

    def end(self):
        self._ends.set()
        for thread in self._threads:
            thread.join()


def petsage(project, *arguments, **settings):
    ended = subprocess.run(
        [sys.executable, "-m", "petsage", *arguments, "--json"], cwd=project, text=True,
        env={**clean_environment(), **settings}, capture_output=True, timeout=300, check=False,
    )  # fmt: skip
    assert ended.stderr == ""
    return ended.returncode, [json.loads(line) for line in ended.stdout.splitlines()]


@pytest.fixture
def pets(project):
    features = project / "features"
    files = draft(read_request("pets", {"description": "The pets we know", "fields": FIELDS}))
    with open_workspace(features, "pets") as workspace:
        workspace.write(files)
        workspace.publish(project / "docs" / "features" / "pets.md")
    return features / "pets"


def test_an_update_of_what_serves_refuses_nobody_and_undo_drops_what_it_kept(
    project, pets, start_server
):
    server = start_server()
    url = f"{server.address}/api/v1/pets"
    client = Client(url)
    try:
        code, told = petsage(
            project, "build", "--update", "pets", "--field", "color:str?", "--field", "legs:int=4"
        )
        assert code == 0, told
        until = time.monotonic() + TAKEN_UP_S
        while "color" not in server.get("/api/v1/pets?limit=1")[1]["items"][0]:
            assert time.monotonic() < until
            time.sleep(0.02)
        time.sleep(0.3)  # what was in hand is answered by the code before
    finally:
        client.end()

    assert client.errors == []
    assert client.statuses == {200, 201}
    for key, name in client.kept.items():
        status, pet = server.get(f"/api/v1/pets/{key}")
        assert (status, pet["name"], pet["color"], pet["legs"]) == (200, name, None, 4)
    assert not [line for line in server.lines if line["level"] == "ERROR"]
    labels = [event["event"] for event in told]
    assert labels.index("added") < labels.index("files") < labels.index("probed")
    page = project / "docs" / "features" / "pets.md"
    assert page.read_bytes() == (pets / README).read_bytes()
    assert b"color" in page.read_bytes()
    assert [each.name for each in pets.parent.iterdir() if each.name[0] == "."] == []

    code, told = petsage(project, "build", "--update", "pets")
    assert (code, told[-2]["text"]) == (0, "NOTHING TO UPDATE")

    port = server.address.rpartition(":")[2]
    xdg = str(project.parent)
    code, told = petsage(
        project, "build", "--undo", "pets", "--drop-data",
        PETSAGE_SERVER__PORT=port, XDG_RUNTIME_DIR=xdg,
    )  # fmt: skip
    assert code == 0, told
    assert told[-1]["tables"] == ["pets"]
    assert not (project / "docs").exists()
    assert server.get("/api/v1/pets")[0] == 404


def test_an_update_that_fails_leaves_everything_and_says_what_to_do(project, pets):
    store = pets / "store.py"
    store.write_text(store.read_text().replace("def add_pet", "# mine\ndef add_pet"))
    before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}

    code, told = petsage(project, "build", "--update", "pets", "--field", "color:str?")

    assert code == 1
    by_label = {event["event"]: event for event in told}
    assert '+    Column("color", Text(255)),' in by_label["left"]["difference"]
    assert by_label["fix"]["text"].startswith("make the changes that are shown above in store.py")
    shutil.rmtree(project / "data", ignore_errors=True)
    after = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    assert after == before


def test_undo_keeps_what_is_kept_and_says_how_it_is_dropped(project, pets):
    code, told = petsage(project, "build", "--undo", "pets")
    assert code == 0
    assert told[-1]["command"] == "petsage build --undo pets --drop-data"
    code, told = petsage(project, "build", "--undo", "pets", "--drop-data")
    assert (code, told[-2]["text"]) == (1, f"there is no feature pets in {pets.parent}")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--update", "pets", "--undo", "pets"),
        ("pets", "--update", "pets"),
        ("--update", "pets", "--item", "pet"),
        ("--drop-data",),
        ("--update", "pets", "--force"),
    ],
)
def test_options_that_do_not_go_together_are_refused(petsage, arguments):
    ended = petsage("build", *arguments)
    assert ended.returncode == 2, ended.stderr


def kept_as_it_is(pets, data, problem):
    """Asks for the feature and its tables to be dropped, which has to change nothing."""
    before = {path: path.read_bytes() for path in pets.rglob("*") if path.is_file()}
    with pytest.raises(BuildError, match=problem):
        remove_feature(
            pets.parent, "pets", page_folder=None, force=False, tell=lambda _: None, data=data
        )
    after = {path: path.read_bytes() for path in pets.rglob("*") if path.is_file()}
    assert after == before
    assert [each.name for each in pets.parent.iterdir() if each.name[0] == "."] == []


def test_what_a_server_goes_on_serving_is_not_dropped(project, pets, start_server, monkeypatch):
    server = start_server(env={"PETSAGE_CATALOG__WATCH": "false"})
    monkeypatch.setattr("petsage.letting_go._WAIT_S", 0.3)
    settings = Settings(server=ServerSettings(port=int(server.address.rpartition(":")[2])))
    database = DatabaseSettings(url=f"sqlite:///{project / 'data' / 'petsage.db'}")
    data = Data(database, partial(require_unserved, settings))
    kept_as_it_is(pets, data, "still serves pets, 0.3 s after its folder was gone")
    status, _ = server.get("/api/v1/pets")
    assert status == 200


def test_where_the_database_is_away_the_feature_stays_too(pets, unused_tcp_port):
    url = f"postgresql://nobody@127.0.0.1:{unused_tcp_port}/none"
    data = Data(DatabaseSettings(url=url), lambda _: None)
    kept_as_it_is(pets, data, "no connection")
