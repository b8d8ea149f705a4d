"""A build as it is told: to people on a terminal, in plain lines, or to machines as JSON."""

import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import astuple, dataclass
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Final, Literal, Protocol, Self, cast

from petsage.builder.events import Event
from petsage.errors import printable
from petsage.terminal import counted, give_up_output, harmless

if TYPE_CHECKING:
    from rich.progress import TaskID
    from rich.text import Text

# Only a terminal needs rich, which takes 100 ms.
# ruff: noqa: PLC0415

_RUNNING: Final[Mapping[str, Mapping[str, str]]] = {
    "ACTION: INITIATING FEATURE BUILD": {"FILES": "writing its files"},
    "ACTION: INITIATING FEATURE UPDATE": {"FILES": "looking at its files"},
    "FILES": {
        "CHECKED": "checking: petsage check, ruff, mypy",
        "TESTED": "testing",
        "PROBED": "probing: each endpoint of a server",
    },
}
"""What runs once a line is told, by the label of the line that tells of its end."""


class Output:
    """Standard output, until it takes no more: what is built is not to end halfway for that.

    Attributes:
        is_lost: whether something was lost that somebody wanted.
    """

    def __init__(self) -> None:
        self.is_lost = False
        self._is_open = True
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # some terminals know ASCII alone

    @property
    def encoding(self) -> str:
        """What it writes text as."""
        return sys.stdout.encoding

    def isatty(self) -> bool:
        """Whether a person may be looking."""
        return sys.stdout.isatty()

    def fileno(self) -> int:
        """Its descriptor."""
        return sys.stdout.fileno()

    def write(self, text: str) -> int:
        """Takes a text; drops it where standard output has failed."""
        if self._is_open:
            try:
                sys.stdout.write(text)
            except OSError as error:
                self._give_up(error)
        return len(text)

    def flush(self) -> None:
        """Has it written."""
        if self._is_open:
            try:
                sys.stdout.flush()
            except OSError as error:
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._is_open = False
        self.is_lost = give_up_output(error)


class Display(Protocol):
    """Where a build is told."""

    def tell(self, event: Event) -> None:
        """Prints an event, at once."""

    def __enter__(self) -> Self:
        """Begins."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Takes away what is not to stay."""


def open_display(output: Output, *, as_json: bool) -> Display:
    """The display that suits whoever reads standard output."""
    if as_json:
        return _Lines(output, _json_of)
    guides = _Guides() if _can_write(output, "".join(astuple(_Guides()))) else _ASCII
    if output.isatty() and os.environ.get("TERM", "dumb") not in {"dumb", "unknown"}:
        return _Terminal(output, guides)
    return _Lines(output, lambda event: "\n".join(_lines_of(event, guides)))


@dataclass(frozen=True)
class _Guides:
    """What a tree is drawn with."""

    inner: str = "├── "
    last: str = "└── "
    down: str = "│   "


_ASCII: Final = _Guides("|-- ", "`-- ", "|   ")


def _can_write(output: Output, text: str) -> bool:
    try:
        text.encode(output.encoding)
    except UnicodeEncodeError:
        return False
    return True


class _Lines:
    """Prints each event as text, and nothing else."""

    def __init__(self, output: Output, text_of: Callable[[Event], str]) -> None:
        self._output = output
        self._text_of = text_of

    def tell(self, event: Event) -> None:
        self._output.write(f"{self._text_of(event)}\n")
        self._output.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class _Terminal:
    """Prints each event, and below the last one what is running, for how long."""

    def __init__(self, output: Output, guides: _Guides) -> None:
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn

        self._guides = guides
        self._running: dict[str, TaskID] = {}
        # Without a system of colours rich writes no styles at all.
        system: Literal["auto"] | None = None if "NO_COLOR" in os.environ else "auto"
        self._console = Console(
            file=cast("IO[str]", output),
            force_terminal=True,
            color_system=system,
            markup=False,
            highlight=False,
            emoji=False,
        )
        spinner = "dots" if guides is not _ASCII else "line"
        self._progress = Progress(
            SpinnerColumn(spinner),
            TextColumn("{task.description}, {task.elapsed:.1f} s", markup=False),
            console=self._console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def tell(self, event: Event) -> None:
        ended = {event.label, *(self._running if event.label == "STATUS" else ())}
        for label in ended & self._running.keys():
            self._progress.remove_task(self._running.pop(label))
            self._progress.refresh()
        if not self._running:
            self._progress.stop()  # what it draws anew would hide what is typed
        text = "\n".join(_lines_of(event, self._guides))
        self._console.print(_styled(event, text), soft_wrap=True)
        for key in (event.label, f"{event.label}: {event.text}"):
            for label, words in _RUNNING.get(key, {}).items():
                self._progress.start()
                self._running[label] = self._progress.add_task(words, total=None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def _styled(event: Event, text: str) -> "Text":
    from rich.text import Text

    styled = Text(text)
    if text.startswith(event.label):
        styled.stylize("bold", 0, len(event.label))
    if event.label == "STATUS":
        colour = {"COMPLETE": "bold green", "FAILED": "bold red"}
        styled.stylize(colour.get(event.text.rpartition(" ")[2], ""), len(event.label) + 2)
    return styled


def _json_of(event: Event) -> str:
    """One object; ASCII alone, so that nothing in it can be more than text."""
    name = event.label.lower().replace(" ", "_")
    more = {key: value for key, value in event.data.items() if key not in {"event", "text"}}
    return json.dumps(_printable({"event": name, "text": event.text, **more}), default=str)


def _printable(value: Any) -> Any:
    """A JSON value without lone surrogates, which many readers of JSON refuse."""
    match value:
        case str():
            return printable(value)
        case Mapping():
            return {key: _printable(each) for key, each in value.items()}
        case list() | tuple():
            return [_printable(each) for each in value]
    return value


def _lines_of(event: Event, guides: _Guides) -> Iterator[str]:
    """An event for people: its line, and what belongs below it; each harmless to a terminal."""
    if event.label == "DETAIL":
        yield f"    {_expanded(event.text)}"
        return
    yield harmless(f"{event.label}: {event.text}" if event.text else event.label)
    if event.label == "FILE":
        yield from (_expanded(line) for line in event.data["content"].splitlines())
    elif event.label == "LEFT":
        yield from (_expanded(line) for line in event.data["difference"].splitlines())
    elif event.label == "FILES":
        files = {str(file["path"]): int(file["lines"]) for file in event.data["files"]}
        yield harmless(f"{event.data['folder']}/")
        yield from _tree(files, guides)


def _expanded(line: str) -> str:
    """A line that a tool or a file has, for a terminal."""
    return harmless(line.rstrip("\r\n").expandtabs())


def _tree(files: Mapping[str, int], guides: _Guides) -> Iterator[str]:
    """A line for each file and folder; files are given by path, with how many lines they have."""
    folders: dict[str, dict[str, int]] = {}
    for path, lines in files.items():
        name, _, within = path.partition("/")
        folders.setdefault(name, {}).update({within: lines} if within else {})
    for number, (name, inside) in enumerate(folders.items(), 1):
        is_last = number == len(folders)
        count = "/" if inside else f"  {counted(files[name], 'line')}"
        yield harmless(f"{guides.last if is_last else guides.inner}{name}{count}")
        below = " " * len(guides.down) if is_last else guides.down
        yield from (f"{below}{line}" for line in _tree(inside, guides))
