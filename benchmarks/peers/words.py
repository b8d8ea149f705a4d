"""What every server logs and answers, word for word."""

LINE = "Smoke test endpoint executed successfully. Verifying logging pipeline."
MESSAGE = "PetSage service is healthy. Log verification message generated."
