"""What the smoke test answers."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from petsage import Receipt


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
    proof: Receipt = Field(description="What became of the log line of this call.")


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
