"""What became of one line: the receipt that `prove` gives."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from petsage.logs.proofs import Proof, SinkState
from petsage.logs.sinks import Sink


@dataclass(slots=True)  # not frozen: that makes each three times as dear, and there is one a call
class SinkReceipt:
    """What became of one line in one sink."""

    name: Annotated[str, Field(description="The sink's name in the settings.")]
    required: Annotated[bool, Field(description="Whether a proof fails when this sink does.")]
    state: Annotated[
        SinkState,
        Field(
            description="`written`: the sink has the line; `failed`: it could not be written; "
            "`dropped`: there was no room for it; `filtered`: a level or a filter left it out; "
            "`timeout`: nothing was heard of it in time."
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
            if sink.required and sink.state != "written":
                return sink
        return None


def receipt_of(marker: str, proof: Proof, sinks: Iterable[Sink]) -> Receipt:
    """What has become of the line that bears `marker`, in each of `sinks`."""
    receipts = []
    for sink in sinks:
        state, error, took_ms = proof.outcome(sink.name)
        receipts.append(SinkReceipt(sink.name, sink.required, state, error, took_ms))
    return Receipt(marker, tuple(receipts))
