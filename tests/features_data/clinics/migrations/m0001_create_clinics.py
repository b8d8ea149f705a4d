"""Creates the table of clinics."""

from alembic import op
from sqlalchemy import BigInteger, Boolean, Column, Double, UniqueConstraint, Uuid

from petsage.storage import Json, Key, Text, UtcDateTime


def upgrade() -> None:
    """From nothing."""
    op.create_table(
        "clinics",
        Column("id", Key, primary_key=True),
        Column("code", Text(255), nullable=False),
        Column("opened_at", UtcDateTime),
        Column("reference", Uuid, nullable=False),
        Column("contact", Text(254)),
        Column("site", Text),
        Column("beds", BigInteger, nullable=False),
        Column("rating", Double),
        Column("is_open", Boolean, nullable=False),
        Column("address", Json),
        Column("tags", Json, nullable=False),
        UniqueConstraint("code"),
        sqlite_autoincrement=True,
    )
    for name in ("opened_at", "reference", "beds", "rating", "is_open"):
        op.create_index(f"ix_clinics_{name}_id", "clinics", [name, "id"])


def downgrade() -> None:
    """Back to nothing."""
    op.drop_table("clinics")
