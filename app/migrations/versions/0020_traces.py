"""Jobs know the trace of the request that they came from."""

from app.migrations.sql import run_beside

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    run_beside(__file__)
