"""The spine: tenants, keys, contacts and their ledger, jobs, deliveries."""

from app.migrations.sql import run_beside

revision = "0001"
down_revision = None


def upgrade() -> None:
    run_beside(__file__)
