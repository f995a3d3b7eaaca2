"""Jobs that send to a destination what it lacks."""

from app.migrations.sql import run_beside

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    run_beside(__file__)
