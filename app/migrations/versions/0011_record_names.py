"""What is synced, delivered and kept as a dead letter is a record, whatever its type."""

from app.migrations.sql import run_beside

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    run_beside(__file__)
