"""What is printed, as lines of the log: standard output holds lines of JSON, and nothing else."""

import io
import logging

_log = logging.getLogger("stdout")

# A text without an end must not fill memory: this much of it is a line.
_MAX_LINE = 65_536


class PrintedLines(io.TextIOBase):
    """Stands for `sys.stdout`: each line that is printed is logged at INFO, on `stdout`."""

    def __init__(self) -> None:
        self._begun = ""

    def writable(self) -> bool:
        """True: it is there to be written to."""
        return True

    def write(self, text: str) -> int:
        """Logs each line that `text` ends, and keeps what it begins."""
        *lines, self._begun = (self._begun + text).split("\n")
        if len(self._begun) > _MAX_LINE:
            lines, self._begun = [*lines, self._begun], ""
        for line in lines:
            if line.strip():
                _log.info("%s", line.rstrip("\r"))
        return len(text)
