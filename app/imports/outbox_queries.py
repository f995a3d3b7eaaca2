"""The queries that every import ends with, typed."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import msgspec

from app.kit.postgres.database import Connection
from app.kit.postgres.query import query


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """A run of decided items and their deliveries."""

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
    outbox_ids: str | None
    """Of the contacts to be delivered, in item order, as a column (`app.kit.postgres.column_codec`); their versions and
    item indexes likewise."""
    outbox_versions: str | None
    outbox_indexes: str | None
    separator: str
    null: str
    firsts: Sequence[int]
    """Positions in these columns, from 1, at which a delivery begins; `lasts`: at which it ends."""
    lasts: Sequence[int]


@query
async def record_chunk(connection: Connection, chunk: Chunk) -> None: ...
