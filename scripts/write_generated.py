"""Writes what is made from something else: the printed settings, and each feature's page."""

from pathlib import Path

from petsage.loader import find_folders
from petsage.settings import to_toml

ROOT = Path(__file__).parent.parent


def main() -> None:
    """Writes each file; tests compare them with what they are made from."""
    (ROOT / "config" / "default.toml").write_text(to_toml(), encoding="utf-8")
    pages = ROOT / "docs" / "features"
    pages.mkdir(parents=True, exist_ok=True)
    for folder in find_folders([ROOT / "features"]):
        readme = folder / "README.md"
        if readme.exists():
            page = pages / f"{folder.name}.md"
            page.write_text(readme.read_text(encoding="utf-8"), encoding="utf-8")


if __name__ == "__main__":
    main()
