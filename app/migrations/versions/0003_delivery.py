"""Delivery in full: evidence of calls, dead letters with an end, sagas, the audit log, circuits' changes, webhooks."""

from app.migrations.sql import run_beside

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    run_beside(__file__)
