"""What was never named, set, cleared or taken back, and who made a record at a destination."""

from app.migrations.sql import run_beside

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    run_beside(__file__)
