"""Keys with a name, an end, a last use and a second secret while they are rotated; tenants that can be disabled."""

from app.migrations.sql import run_beside

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    run_beside(__file__)
