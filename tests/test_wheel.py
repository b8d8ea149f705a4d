"""The wheel, installed where nothing of the project is at hand."""

import json
import signal
import subprocess
import sys
import urllib.request
import venv
import zipfile
from pathlib import Path

import pytest

from tests.conftest import HELLO, clean_environment, write_feature

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", *build, str(ROOT)], check=True)
    (built,) = folder.glob("petsage-*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel; its dependencies are those of the environment of the tests."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    interpreter = folder / "bin" / "python"
    install = ["install", "--quiet", "--no-deps", "--no-index", "--no-compile", str(wheel)]
    pip = [sys.executable, "-m", "pip", "--python", str(interpreter)]
    subprocess.run([*pip, *install], check=True)
    # A line of a .pth file adds a folder without reading that folder's own .pth files, and so
    # without the editable PetSage of the tests.
    (site,) = folder.glob("lib/python*/site-packages")
    dependencies = next(path for path in sys.path if path.endswith("site-packages"))
    (site / "dependencies.pth").write_text(f"{dependencies}\n")
    return interpreter


def test_an_installed_wheel_serves_a_folder_that_has_features_and_nothing_else(project, python):
    write_feature(project, "hello", HELLO)
    process = subprocess.Popen(
        [python.parent / "petsage", "serve", "--port", "0"],
        cwd=project,
        env=clean_environment(),
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        message = ""
        while not message.startswith("PetSage serves on "):
            message = json.loads(process.stdout.readline())["message"]
        address = message.removeprefix("PetSage serves on ")
        with urllib.request.urlopen(f"{address}/api/v1/hello/Ada") as answer:
            assert json.loads(answer.read()) == {"hello": "Ada"}
        with urllib.request.urlopen(f"{address}/docs/assets/swagger-ui.css") as answer:
            assert answer.status == 200
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert process.returncode == 0


def test_an_installed_wheel_is_imported_from_its_own_environment(project, python):
    code = "import petsage; print(petsage.__file__)"
    found = subprocess.run(
        [python, "-c", code], cwd=project, env=clean_environment(), capture_output=True, check=True
    )
    assert Path(found.stdout.decode().strip()).is_relative_to(python.parent.parent)


def test_the_wheel_carries_pages_with_their_licences_settings_of_tools_and_the_types(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "petsage/py.typed" in names
    assert "petsage/system/assets/redoc.standalone.js" in names
    assert "petsage/builder/tools/ruff.toml" in names
    assert any(name.endswith("licenses/petsage/system/assets/redoc.LICENSE.txt") for name in names)
    assert not any(name.startswith(("tests/", "features/", "benchmarks/")) for name in names)
