"""Writes what is printed from the code: `config/default.toml`."""

from pathlib import Path

from petsage.settings import to_toml

ROOT = Path(__file__).parent.parent


def main() -> None:
    """Writes each file; a test compares them with the code."""
    (ROOT / "config" / "default.toml").write_text(to_toml(), encoding="utf-8")


if __name__ == "__main__":
    main()
