"""Fetches what the pages /docs and /redoc run: Swagger UI and Redoc, from npm.

    python scripts/fetch_docs_ui.py

writes petsage/system/assets/ anew from the releases named below, with manifest.json to say what
is there; a second run changes nothing. It needs `npm`, and takes packages from the registry that
npm is set to. To move to a newer release, change its version here, run, try both pages, commit.
"""

import base64
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ASSETS = Path(__file__).resolve().parent.parent / "petsage" / "system" / "assets"
MANIFEST = ASSETS / "manifest.json"
LARGEST_FILE_BYTES = 8 * 1024 * 1024


class FetchError(Exception):
    """A problem, and how to mend it."""

    def __init__(self, problem: str, *, fix: str) -> None:
        super().__init__(f"{problem}. Fix: {fix}")


@dataclass(frozen=True)
class Edit:
    """A text in a fetched file that the pages must not carry, and what stands there instead."""

    file: str
    find: str
    replace: str
    why: str


@dataclass(frozen=True)
class Package:
    """A release on npm.

    `files` gives for each asset the package's files that it is made of, joined in that order.
    """

    name: str
    version: str
    files: dict[str, tuple[str, ...]]
    edits: tuple[Edit, ...] = ()


PACKAGES = (
    Package(
        "swagger-ui-dist",
        "5.35.0",
        {
            "swagger-ui-bundle.js": ("swagger-ui-bundle.js",),
            "swagger-ui.css": ("swagger-ui.css",),
            "swagger-ui.LICENSE.txt": ("LICENSE", "NOTICE"),
            "swagger-ui-bundle.js.LICENSE.txt": ("swagger-ui-bundle.js.LICENSE.txt",),
        },
        (
            Edit(
                "swagger-ui.css",
                "\n/*# sourceMappingURL=swagger-ui.css.map*/",
                "\n",
                "the source map is not served",
            ),
        ),
    ),
    Package(
        "redoc",
        "3.0.1",
        {
            # What it bundles names its licences in the file itself; the package has no list.
            "redoc.standalone.js": ("bundles/redoc.standalone.js",),
            "redoc.LICENSE.txt": ("LICENSE",),
        },
        (
            # An image that cannot be decoded is left out by Redoc, and pages.css writes its name.
            Edit(
                "redoc.standalone.js",
                "https://cdn.redoc.ly/redoc/logo-mini-full.svg",
                "data:,",
                "no option keeps Redoc from asking another host for this image",
            ),
            Edit(
                "redoc.standalone.js",
                "https://cdn.redoc.ly/redoc/logo-mini.svg",
                "data:,",
                "no option keeps Redoc from asking another host for this image",
            ),
            Edit(
                "redoc.standalone.js",
                "https://otel.cloud.redocly.com/v1/traces",
                "data:,",
                "telemetry has nowhere to go, even where redoc.js did not switch it off",
            ),
        ),
    ),
)


def main() -> None:
    """Write the assets once all of them are in hand, then print each one's size."""
    known = _read_manifest()
    manifest: dict[str, Any] = {}
    contents: dict[str, bytes] = {}
    for package in PACKAGES:
        with tempfile.TemporaryDirectory() as folder:
            tarball, integrity = download(package, Path(folder))
            refuse_changed_release(package, integrity, known)
            files = read_files(package, tarball)
        manifest[package.name] = _describe(package, integrity, files)
        contents |= files
    ASSETS.mkdir(exist_ok=True)
    for name, content in contents.items():
        (ASSETS / name).write_bytes(content)
        print(f"{len(content):>9,} bytes  {name}")
    for name in _file_names(known) - contents.keys():
        (ASSETS / name).unlink(missing_ok=True)
        print(f"  removed        {name}")
    MANIFEST.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def download(package: Package, folder: Path) -> tuple[Path, str]:
    """The package's tarball, put into `folder`, and the integrity that npm states for it."""
    release = f"{package.name}@{package.version}"
    integrity = json.loads(_npm("view", release, "dist.integrity", "--json", folder=folder))
    _npm("pack", release, folder=folder)
    tarball = folder / f"{package.name}-{package.version}.tgz"
    algorithm, _, stated = integrity.partition("-")
    digest = hashlib.new(algorithm, tarball.read_bytes()).digest()
    actual = base64.b64encode(digest).decode("ascii")
    if actual != stated:
        raise FetchError(
            f"{release} arrived as {algorithm}-{actual}, while npm states {integrity}",
            fix="run `npm cache clean --force` and try again",
        )
    return tarball, integrity


def refuse_changed_release(package: Package, integrity: str, known: dict[str, Any]) -> None:
    """Stop where a release is no longer the one that manifest.json names: npm's never change."""
    entry = known.get(package.name, {})
    if entry.get("version") == package.version and entry["integrity"] != integrity:
        raise FetchError(
            f"{package.name} {package.version} is {entry['integrity']} in {MANIFEST.name}, "
            f"and {integrity} on the registry",
            fix="ask npm's own registry, and take no package until both agree",
        )


def read_files(package: Package, tarball: Path) -> dict[str, bytes]:
    """Each asset's content: the package's files joined, its edits made."""
    with tarfile.open(tarball, "r:gz") as archive:
        files = {
            name: b"\n".join(_read_member(archive, source, package) for source in sources)
            for name, sources in package.files.items()
        }
    for edit in package.edits:
        find = edit.find.encode()
        times = files[edit.file].count(find)
        if times != 1:
            raise FetchError(
                f"{edit.find!r} stands {times} times in {edit.file} of {package.name} "
                f"{package.version}, not once",
                fix="read what the release does now, and change the edit in this script",
            )
        files[edit.file] = files[edit.file].replace(find, edit.replace.encode())
    return files


def _read_member(archive: tarfile.TarFile, source: str, package: Package) -> bytes:
    """The content of one of the package's files."""
    try:
        member = archive.getmember(f"package/{source}")
    except KeyError:
        raise FetchError(
            f"{package.name} {package.version} has no file {source}",
            fix="find what the release calls it now, and change `files` in this script",
        ) from None
    stream = archive.extractfile(member)
    if stream is None or member.size > LARGEST_FILE_BYTES:
        raise FetchError(
            f"{source} of {package.name} is no file of at most {LARGEST_FILE_BYTES:,} bytes",
            fix="look at the release before raising LARGEST_FILE_BYTES",
        )
    return stream.read()


def _describe(package: Package, integrity: str, files: dict[str, bytes]) -> dict[str, Any]:
    """The package's entry in manifest.json."""
    return {
        "version": package.version,
        "integrity": integrity,
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        "edits": [
            {"file": edit.file, "removed": edit.find.strip(), "why": edit.why}
            for edit in package.edits
        ],
    }


def _read_manifest() -> dict[str, Any]:
    """What manifest.json says now; nothing before the first run."""
    try:
        manifest: dict[str, Any] = json.loads(MANIFEST.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return manifest


def _file_names(manifest: dict[str, Any]) -> set[str]:
    """The names of all files of all packages."""
    return {name for entry in manifest.values() for name in entry["files"]}


def _npm(*arguments: str, folder: Path) -> str:
    """What npm prints for `arguments`, run in `folder`."""
    npm = shutil.which("npm")
    if npm is None:
        raise FetchError("there is no `npm` on the PATH", fix="install Node.js")
    done = subprocess.run(  # noqa: S603 - npm, with words from here # nosec B603
        [npm, *arguments], check=False, cwd=folder, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise FetchError(
            f"`npm {' '.join(arguments)}` ended with {done.returncode}: {done.stderr.strip()}",
            fix="see that npm reaches its registry and that the version exists",
        )
    return done.stdout


if __name__ == "__main__":
    try:
        main()
    except FetchError as error:
        sys.exit(str(error))
