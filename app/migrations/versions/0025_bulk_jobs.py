"""Deliveries whose records a job of the CRM's own writes."""

from app.migrations.sql import run_beside

revision = "0025"
down_revision = "0024"


def upgrade() -> None:
    run_beside(__file__)
