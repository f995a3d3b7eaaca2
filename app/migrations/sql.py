"""Runs the `.sql` file that lies beside a revision.

The file goes to PostgreSQL as one multi-statement query, which the SQLAlchemy dialect cannot send; so it is
given to the asyncpg connection underneath, inside the transaction that Alembic opened.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op
from sqlalchemy.util import await_only


def run_beside(module_file: str) -> None:
    statements = Path(module_file).with_suffix(".sql").read_text(encoding="utf-8")
    connection = op.get_bind().connection.driver_connection
    assert connection is not None
    await_only(connection.execute(statements))
