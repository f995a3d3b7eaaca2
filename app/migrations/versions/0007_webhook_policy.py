"""How patient a webhook endpoint wants us to be, and since when it fails."""

from app.migrations.sql import run_beside

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    run_beside(__file__)
