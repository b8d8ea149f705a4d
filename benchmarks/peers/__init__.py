"""The same endpoint, written as each peer's own documentation would write it."""
