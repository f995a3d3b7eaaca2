"""Large imports: bodies spooled while they arrive, chunks processed by workers, failures counted by delivery."""

from app.migrations.sql import run_beside

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    run_beside(__file__)
