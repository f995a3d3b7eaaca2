"""Dead letters of undos: records that could not be restored."""

from app.migrations.sql import run_beside

revision = "0026"
down_revision = "0025"


def upgrade() -> None:
    run_beside(__file__)
