"""Delivery in full: evidence of calls, dead letters with an end, sagas, the audit log, circuits' changes, webhooks."""

from app.migrations.sql import run_beside

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_beside(__file__)
