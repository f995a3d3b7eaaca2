"""Destinations have credentials that renew themselves."""

from app.migrations.sql import run_beside

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    run_beside(__file__)
