"""Requests that are not imports have idempotency keys, too."""

from app.migrations.sql import run_beside

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    run_beside(__file__)
