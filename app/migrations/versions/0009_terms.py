"""Tables, columns and functions are named by the terms of docs/glossary.md."""

from app.migrations.sql import run_beside

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    run_beside(__file__)
