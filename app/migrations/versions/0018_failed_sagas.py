"""Sagas that failed for good are listed until an operator has decided about them."""

from app.migrations.sql import run_beside

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    run_beside(__file__)
