"""The SQL that runbooks give an operator fits the schema."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import asyncpg

RUNBOOKS: Final = Path(__file__).parents[2] / "docs" / "runbooks"


async def test_the_sql_of_runbooks_runs(database_url: str) -> None:
    found = [
        (page.name, sql)
        for page in sorted(RUNBOOKS.glob("*.md"))
        for sql in re.findall(r"^```sql\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    ]
    connection = await asyncpg.connect(database_url)
    wrong = []
    for page, sql in found:
        try:
            await connection.fetch(sql)
        except asyncpg.PostgresError as error:
            wrong.append(f"{page}: {error}")
    await connection.close()

    assert len(found) > 10
    assert wrong == []
