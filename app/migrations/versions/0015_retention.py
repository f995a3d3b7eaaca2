"""What is past its time is found by indexes of its own."""

from app.migrations.sql import run_beside

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    run_beside(__file__)
