"""Sessions of people who sign in to the console."""

from app.migrations.sql import run_beside

revision = "0027"
down_revision = "0026"


def upgrade() -> None:
    run_beside(__file__)
