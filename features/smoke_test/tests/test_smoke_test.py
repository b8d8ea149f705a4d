"""The smoke test's own tests; they travel with its folder."""

from datetime import UTC, datetime


async def test_it_answers_ok_with_the_time_and_the_proof_of_its_line(feature_client, log_lines):
    client = await feature_client("smoke_test")
    before = datetime.now(UTC)

    response = await client.get("/api/v1/smoke-test")

    assert response.status == 200
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Cache-Control"] == "no-store"
    body = await response.json()
    assert list(body) == ["status", "message", "timestamp", "proof"]
    assert body["status"] == "ok"
    assert body["message"] == "PetSage service is healthy. Log verification message generated."
    assert before <= datetime.fromisoformat(body["timestamp"]) <= datetime.now(UTC)
    assert [sink["state"] for sink in body["proof"]["sinks"]] == ["written"]
    markers = [line["marker"] for line in log_lines() if "marker" in line]
    assert markers == [body["proof"]["marker"]] == [response.headers["X-Log-Marker"]]


async def test_it_logs_its_message_once_a_call_on_its_logger_at_info(feature_client, caplog):
    client = await feature_client("smoke_test")

    await client.get("/api/v1/smoke-test")
    await client.head("/api/v1/smoke-test")

    records = [record for record in caplog.records if record.name == "features.smoke_test.routes"]
    assert [(record.levelname, record.getMessage()) for record in records] == [
        ("INFO", "Smoke test endpoint executed successfully. Verifying logging pipeline.")
    ] * 2


async def test_the_receipt_is_exact_to_the_byte(feature_client):
    client = await feature_client("smoke_test")

    response = await client.get("/api/v1/smoke_test")

    assert response.status == 200
    assert response.headers["Content-Type"] == "application/json"
    assert await response.read() == (
        b'{"status":"ok","message":"PetSage Backend is operational.",'
        b'"agent":"PetSage Backend Feature Builder Agent","feature_generated":"smoke_test"}'
    )
