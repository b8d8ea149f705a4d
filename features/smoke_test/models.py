"""What the smoke test answers."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class SinkProof(BaseModel):
    """What became of the smoke test's line in one sink."""

    name: str = Field(description="The sink's name in the settings.", examples=["stdout"])
    state: Literal["queued", "written", "failed", "dropped", "filtered", "timeout"] = Field(
        description="What became of the line.", examples=["queued"]
    )
    error: str | None = Field(description="What went wrong, if anything did.", examples=[None])
    took_ms: float = Field(description="From the call to this state.", examples=[0.02])


class Proof(BaseModel):
    """What became of the line that this very call logged."""

    marker: str = Field(
        description="What this call's log line bears, and no other.",
        examples=["9f86d081884c7d659a2feaa0c55ad015"],
    )
    sinks: list[SinkProof] = Field(description="The line's state in each sink.")


class SmokeTestResponse(BaseModel):
    """The answer of the smoke test."""

    status: Literal["ok", "fail"] = Field(
        description="The operational status of the PetSage service.", examples=["ok"]
    )
    message: str = Field(
        description="A confirmation message.",
        examples=["PetSage service is healthy. Log verification message generated."],
    )
    timestamp: datetime = Field(
        description="The UTC timestamp when the smoke test was performed.",
        examples=["2026-01-01T12:00:00.000000Z"],
    )
    proof: Proof = Field(description="What became of the log line of this call.")


class SmokeTestReceipt(BaseModel):
    """The receipt of the builder's work."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "status": "ok",
                "message": "PetSage Backend is operational.",
                "agent": "PetSage Backend Feature Builder Agent",
                "feature_generated": "smoke_test",
            }
        }
    )

    status: str = Field(description="The operational status of the service.", examples=["ok"])
    message: str = Field(
        description="A human-readable status message.",
        examples=["PetSage Backend is operational."],
    )
    agent: str = Field(
        description="The agent that generated this feature.",
        examples=["PetSage Backend Feature Builder Agent"],
    )
    feature_generated: str = Field(
        description="The name of the generated feature.", examples=["smoke_test"]
    )
