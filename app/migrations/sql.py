"""Runs the `.sql` file that lies beside a revision.

Its statements are given one by one, for Citus cannot pass several on to its nodes, to the asyncpg connection underneath
SQLAlchemy, whose dialect would prepare them, inside the transaction that Alembic opened.
"""

import re
from pathlib import Path
from typing import Final

from alembic import op
from sqlalchemy.util import await_only

_STATEMENT: Final = re.compile(r"(?>--[^\n]*|\$\$.*?\$\$|'[^']*'|[^;])++;", re.DOTALL)


def run_beside(module_file: str) -> None:
    sql = Path(module_file).with_suffix(".sql").read_text(encoding="utf-8")
    connection = op.get_bind().connection.driver_connection
    assert connection is not None
    for statement in _STATEMENT.findall(sql):
        await_only(connection.execute(statement))
