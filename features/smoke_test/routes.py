"""The smoke test's endpoints."""

import logging
from datetime import UTC, datetime

from petsage import Reply, Routes, prove

from .models import SmokeTestReceipt, SmokeTestResponse

logger = logging.getLogger(__name__)
routes = Routes()

LOG_MESSAGE = "Smoke test endpoint executed successfully. Verifying logging pipeline."
SUMMARY = "Perform a system smoke test"

RECEIPT = SmokeTestReceipt(
    status="ok",
    message="PetSage Backend is operational.",
    agent="PetSage Backend Feature Builder Agent",
    feature_generated="smoke_test",
)


@routes.get(
    "/smoke-test",
    summary=SUMMARY,
    description=(
        "Verifies, for monitors and those on call, that the service answers and that its log is "
        "written: each call logs one line, and answers when every required sink has written that "
        "very line. Answers 503 when one has not, and names it and the cause."
    ),
    tags=["System"],
    answers={503: SmokeTestResponse},
)
async def run_smoke_test() -> Reply[SmokeTestResponse]:
    """Log one line and say whether it is written."""
    receipt = await prove(logger, LOG_MESSAGE)
    missing = receipt.missing
    response = SmokeTestResponse(
        status="ok" if missing is None else "fail",
        message="PetSage service is healthy. Log verification message generated."
        if missing is None
        else f"The log line is not in the sink {missing.name}: {missing.error}.",
        timestamp=datetime.now(UTC),
        proof=receipt,
    )
    headers = {"Cache-Control": "no-store", "X-Log-Marker": receipt.marker}
    return Reply(response, status=None if missing is None else 503, headers=headers)


@routes.get(
    "/smoke_test",
    summary=SUMMARY,
    description=(
        "Returns a success response if the API is running correctly. "
        "Confirms builder functionality."
    ),
    tags=["Health"],
)
async def get_receipt() -> Reply[SmokeTestReceipt]:
    """Say that the API runs, and what the builder made."""
    return Reply(RECEIPT, headers={"Cache-Control": "no-store"})
