"""Contacts and their ledger become records: one document each, and one row of history for a chunk of a job."""

from app.migrations.sql import run_beside

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    run_beside(__file__)
