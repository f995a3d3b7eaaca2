"""Keys and tenants have rate limits; tenants have a share of the workers."""

from app.migrations.sql import run_beside

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    run_beside(__file__)
