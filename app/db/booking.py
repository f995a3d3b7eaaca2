"""The queries that every import ends with, typed."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import msgspec

from app.db.columns import numbers, texts
from app.db.pool import Connection
from app.db.sql import QUERIES


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """A run of decided items and what destinations are owed of them."""

    tenant_id: int
    job_id: uuid.UUID
    request_id: str
    first_index: int
    item_count: int
    """Places of the run; `outcomes` may lack some that wait for others."""
    failures: str
    outcomes: bytes
    sources: bytes | None
    """Of the items that are not `ok`."""
    destination_ids: Sequence[int]
    contact_ids: Sequence[str]
    """Of the items that destinations are owed, in item order; `versions` and `indexes` likewise."""
    versions: Sequence[int]
    indexes: Sequence[int]
    chunk_size: int


async def record_chunk(connection: Connection, chunk: Chunk) -> None:
    c = chunk
    firsts = range(1, len(c.contact_ids) + 1, c.chunk_size)
    lasts = [min(first + c.chunk_size - 1, len(c.contact_ids)) for first in firsts]
    owed = texts([c.contact_ids])
    await connection.execute(
        QUERIES["record_chunk"],
        c.tenant_id,
        c.job_id,
        c.request_id,
        c.first_index,
        c.item_count,
        c.failures,
        c.outcomes,
        c.sources,
        c.destination_ids,
        owed.columns[0],
        numbers(c.versions),
        numbers(c.indexes),
        list(firsts),
        lasts,
        owed.separator,
        owed.null,
    )
