"""Copies what revision 0010 set aside to the tables that it made: contacts and their ledger.

A batch is a transaction. Rows are copied in the order of their keys, and a batch begins after the last row that is
copied already: a migration that was ended anywhere continues there.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import asyncpg
import zstandard

Report = Callable[[str, int, int], None]
"""Is called with what is copied, how many rows of it are, and how many there are."""

BATCH: Final = 5_001
"""Rows of a transaction: several full chunks, and one row that shows that the last of them is complete."""
_BLOCK: Final = 128
"""Versions that are packed together, as app.history.versions has them."""

_DOCUMENT: Final = """CASE WHEN o.email = '' THEN '{}' ELSE
    -- A name that is kept as cleared means nothing once it has a value.
    CASE WHEN o.cleared IS NULL THEN '{}' ELSE coalesce((
        SELECT jsonb_object_agg(k.name, NULL) FROM jsonb_object_keys(o.cleared) AS k(name)
    ), '{}') END || jsonb_strip_nulls(jsonb_build_object(
        'email', o.email, 'first_name', o.first_name, 'last_name', o.last_name, 'phone', o.phone, 'company', o.company
    )) || coalesce((
        SELECT jsonb_object_agg('attributes.' || a.key, a.value) FROM jsonb_each(o.attributes) AS a(key, value)
    ), '{}')
END"""
"""The document of a row `o` of the tables before."""


def _statement(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8").replace("{document}", _DOCUMENT)


_COPY_CONTACTS: Final = _statement("copy_contacts.sql")
_READ_LEDGER: Final = _statement("read_ledger.sql")
_compress: Final = zstandard.ZstdCompressor(level=1).compress


async def copy_records(connection: "asyncpg.Connection[Any]", report: Report) -> None:
    if await connection.fetchval("SELECT to_regclass('old_contacts')") is None:
        return
    parts = (
        ("contacts", _copy_contacts, "SELECT count(*) FROM records", "SELECT count(*) FROM old_contacts"),
        (
            "versions of contacts",
            _copy_ledger,
            "SELECT coalesce(sum(cardinality(v.indexes)), 0)::bigint FROM record_versions v",
            "SELECT count(*) FROM old_ledger",
        ),
    )
    for name, copy_batch, count_done, count_all in parts:
        done, total = await connection.fetchval(count_done), await connection.fetchval(count_all)
        report(name, done, total)
        while copied := await copy_batch(connection):
            done += copied
            report(name, done, total)
    await connection.execute("DROP TABLE old_contacts, old_ledger; ANALYZE records, record_versions")


async def _copy_contacts(connection: "asyncpg.Connection[Any]") -> int:
    status: str = await connection.execute(_COPY_CONTACTS, BATCH)
    return int(status.rpartition(" ")[2])


async def _copy_ledger(connection: "asyncpg.Connection[Any]") -> int:
    """The chunks that were read, but for the last one if more rows follow, as it may have some of them."""
    async with connection.transaction():
        rows = await connection.fetch(_READ_LEDGER, BATCH)
        if sum(len(row["indexes"]) for row in rows) == BATCH:
            rows.pop()
        await connection.copy_records_to_table(
            "record_versions", records=[(*row[:-1], _pack(row["versions"])) for row in rows]
        )
    return sum(len(row["indexes"]) for row in rows)


def _pack(versions: list[str]) -> list[bytes]:
    blocks = [versions[at : at + _BLOCK] for at in range(0, len(versions), _BLOCK)]
    return [_compress(f"[{','.join(block)}]".encode()) for block in blocks]
