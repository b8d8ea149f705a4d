"""What stops a benchmark before it has measured anything."""


class BenchmarkError(Exception):
    """A problem and the next step that mends it."""

    def __init__(self, problem: str, *, fix: str) -> None:
        super().__init__(f"{problem}; {fix}")
