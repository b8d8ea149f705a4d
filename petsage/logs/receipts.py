"""What became of one line: the receipt that `prove` gives."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import Field

from petsage.logs.sinks import Sink

SinkState = Literal["queued", "written", "failed", "dropped", "filtered", "timeout"]

_CAUSES: Final[Mapping[SinkState, str]] = {
    "dropped": "its queue is full",
    "filtered": "a level or a filter leaves the line out",
}


@dataclass(slots=True)  # not frozen: that makes each three times as dear, and there is one a call
class SinkReceipt:
    """What became of one line in one sink."""

    name: Annotated[str, Field(description="The sink's name in the settings.")]
    required: Annotated[bool, Field(description="Whether a proof fails when this sink does.")]
    state: Annotated[
        SinkState,
        Field(
            description="`queued`: the sink took the line; `dropped`: its queue was full; "
            "`filtered`: a level or a filter left the line out."
        ),
    ]
    error: Annotated[
        str | None, Field(description="What went wrong, in the system's words; null if nothing.")
    ]
    took_ms: Annotated[float, Field(description="From the call to this state, in milliseconds.")]


@dataclass(slots=True)
class Receipt:
    """What became of one line: its marker, and its state in each sink."""

    marker: Annotated[str, Field(description="What this very line bears, and no other.")]
    sinks: Annotated[tuple[SinkReceipt, ...], Field(description="The line's state in each sink.")]

    @property
    def missing(self) -> SinkReceipt | None:
        """The first required sink that does not have the line, None where all have it."""
        for sink in self.sinks:
            if sink.required and sink.state not in {"queued", "written"}:
                return sink
        return None


class Proof:
    """Collects what the sinks make of one line; it begins when it is made."""

    __slots__ = ("_receipts", "_started")

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._receipts: list[SinkReceipt] = []

    def note(self, sink: Sink, state: SinkState) -> None:
        """Notes what one sink has made of the line."""
        took_ms = round((time.perf_counter() - self._started) * 1000, 3)
        receipt = SinkReceipt(sink.name, sink.required, state, _CAUSES.get(state), took_ms)
        self._receipts.append(receipt)

    def receipt(self, marker: str, sinks: tuple[Sink, ...]) -> Receipt:
        """What became of the line that bears `marker`, in each of `sinks`."""
        if not self._receipts:
            # A line that no sink has seen was left out by a level or a filter before.
            for sink in sinks:
                self.note(sink, "filtered")
        return Receipt(marker, tuple(self._receipts))
