"""Creates the table of pets; what has run somewhere is not edited any more."""

from alembic import op
from sqlalchemy import Column, Date, Double

from petsage.storage import Key, Text, UtcDateTime


def upgrade() -> None:
    """From nothing."""
    op.create_table(
        "pets",
        Column("id", Key, primary_key=True),
        Column("name", Text(255), nullable=False),
        Column("species", Text, nullable=False),
        Column("born", Date),
        Column("weight_kg", Double, nullable=False),
        Column("created_at", UtcDateTime, nullable=False),
        Column("updated_at", UtcDateTime, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_pets_species_id", "pets", ["species", "id"])
    op.create_index("ix_pets_born_id", "pets", ["born", "id"])


def downgrade() -> None:
    """Back to nothing; the pets are lost."""
    op.drop_table("pets")
