"""The feature's own tests; they travel with its folder."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

PATH = "/api/v1/smoke-test"
MESSAGE = "Smoke test endpoint executed successfully. Verifying logging pipeline."
LOGGER = "features.smoke_test.routes"


@pytest.fixture
async def client(feature_client):
    return await feature_client(Path(__file__).parent.parent)


async def test_it_answers_ok_with_the_time_and_the_proof_of_its_line(client, proof_of):
    before = datetime.now(UTC)

    response = await client.get(PATH)

    assert response.status == 200
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Cache-Control"] == "no-store"
    body = await response.json()
    assert list(body) == ["status", "message", "timestamp", "proof"]
    assert body["status"] == "ok"
    assert body["message"] == "PetSage service is healthy. Log verification message generated."
    assert before <= datetime.fromisoformat(body["timestamp"]) <= datetime.now(UTC)
    proof = await proof_of(response)
    assert response.headers["X-Log-Marker"] == proof.marker
    assert [sink.state for sink in proof.sinks] == ["written"]


async def test_it_logs_its_message_once_a_call_on_its_logger_at_info(client, caplog):
    await client.get(PATH)
    await client.head(PATH)

    records = [record for record in caplog.records if record.name == LOGGER]
    assert [(record.levelname, record.getMessage()) for record in records] == [
        ("INFO", MESSAGE)
    ] * 2


async def test_it_answers_503_and_says_why_while_the_log_cannot_be_written(
    client, broken_sink, proof_of
):
    log = broken_sink("directory")

    response = await client.get(PATH)

    assert response.status == 503
    missing = (await proof_of(response)).missing
    body = await response.json()
    assert body["status"] == "fail"
    assert body["message"] == f"The log line is not in the sink {missing.name}: {missing.error}."
    log.mend()
    assert (await client.get(PATH)).status == 200


async def test_the_receipt_is_exact_to_the_byte(client):
    response = await client.get("/api/v1/smoke_test")

    assert response.status == 200
    assert response.headers["Content-Type"] == "application/json"
    assert await response.read() == (
        b'{"status":"ok","message":"PetSage Backend is operational.",'
        b'"agent":"PetSage Backend Feature Builder Agent",'
        b'"feature_generated":"smoke_test"}'
    )
