"""Records that a destination had before us are adopted, with what they held."""

from app.migrations.sql import run_beside

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    run_beside(__file__)
