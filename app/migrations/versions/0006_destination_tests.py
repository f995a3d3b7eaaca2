"""Tests of destinations: asked for by a handler, made by a worker."""

from app.migrations.sql import run_beside

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    run_beside(__file__)
