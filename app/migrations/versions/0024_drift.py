"""Syncs that compare what a destination holds with what is here."""

from app.migrations.sql import run_beside

revision = "0024"
down_revision = "0023"


def upgrade() -> None:
    run_beside(__file__)
