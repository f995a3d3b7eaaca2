"""The queries of the versions of records, typed."""

import uuid
from collections.abc import Iterator, Sequence
from datetime import datetime

import msgspec

from app.history.versions import BLOCK, Columns, Place, StoredVersion, read_block
from app.kit.postgres.database import Connection
from app.kit.postgres.query import Query, query


class Chunk(msgspec.Struct, frozen=True):
    """The versions that a chunk of a job made."""

    job_id: uuid.UUID
    first_index: int
    """It was that of the first item; versions may be gone since."""
    indexes: list[int]
    prev_job_ids: list[uuid.UUID | None] | None
    prev_item_indexes: list[int | None] | None
    blocks: list[bytes]

    def read(self) -> Iterator[tuple[int, StoredVersion, Place | None]]:
        """Each item's index, what it made, and who made the version before; the last item first."""
        versions = [version for block in self.blocks for version in read_block(block)]
        for at in range(len(self.indexes) - 1, -1, -1):
            yield self.indexes[at], versions[at], self.before(at)

    def before(self, at: int) -> Place | None:
        """Who made the version before that at this position."""
        job_id = None if self.prev_job_ids is None else self.prev_job_ids[at]
        index = None if self.prev_item_indexes is None else self.prev_item_indexes[at]
        return None if job_id is None or index is None else (job_id, index)


_chunks_with = Query[[int, Sequence[uuid.UUID], Sequence[int]], list[Chunk]]("chunks_with_versions")
chunk_before = Query[[int, uuid.UUID, int], Chunk | None]("chunk_before")
"""(tenant_id, job_id, item_index)"""


async def read_versions(
    connection: Connection, tenant_id: int, places: Sequence[Place]
) -> dict[Place, tuple[StoredVersion, Place | None]]:
    """What was made there, and where the version before was; a place that made nothing is absent."""
    if not places:
        return {}
    wanted = set(places)
    chunks = await _chunks_with(connection, tenant_id, [job_id for job_id, _ in places], [index for _, index in places])
    found: dict[Place, tuple[StoredVersion, Place | None]] = {}
    for chunk in chunks:
        blocks: dict[int, list[StoredVersion]] = {}
        for at, index in enumerate(chunk.indexes):
            if (chunk.job_id, index) in wanted:
                number, place = divmod(at, BLOCK)
                if number not in blocks:
                    blocks[number] = read_block(chunk.blocks[number])
                found[chunk.job_id, index] = blocks[number][place], chunk.before(at)
    return found


hold_chunks = Query[[int, Sequence[uuid.UUID], Sequence[int]], list[Chunk]]("hold_chunks")
"""(tenant_id, job_ids, item_indexes) Chunks with what these items made."""


@query
async def rewrite_chunk(
    connection: Connection, tenant_id: int, job_id: uuid.UUID, first_index: int, kept: Columns
) -> None: ...


drop_chunks = Query[[int, Sequence[uuid.UUID], Sequence[int]], None]("drop_chunks_of_versions")
"""(tenant_id, job_ids, first_indexes)"""
forget_priors = Query[[int, Sequence[uuid.UUID], Sequence[int]], None]("forget_priors")
"""(tenant_id, job_ids, first_indexes)"""
hold_makers = Query[[int, Sequence[uuid.UUID]], set[uuid.UUID]]("hold_makers")
note_removals = Query[[int, Sequence[uuid.UUID], bool], None]("note_removals")
"""(tenant_id, job_ids, trimmed) `trimmed`: the jobs cannot be undone any more."""
count_versions = Query[[int, uuid.UUID], int]("count_versions")


class _PastRow(msgspec.Struct, frozen=True):
    record_id: str
    job_id: uuid.UUID
    item_index: int
    changed_at: datetime
    block: bytes
    place: int


class PastVersion(msgspec.Struct, frozen=True):
    job_id: uuid.UUID
    item_index: int
    changed_at: datetime
    stored: StoredVersion


@query("walk_back")
async def _walk_back(
    connection: Connection, tenant_id: int, type_id: int, record_ids: Sequence[str], oldest: Sequence[int]
) -> list[_PastRow]: ...


async def walk_back(
    connection: Connection, tenant_id: int, type_id: int, record_ids: Sequence[str], oldest: Sequence[int]
) -> dict[str, list[PastVersion]]:
    """The versions of each record, from its current one back to the one of that number, newest first."""
    found: dict[str, list[PastVersion]] = {}
    for row in await _walk_back(connection, tenant_id, type_id, record_ids, oldest):
        stored = read_block(row.block)[row.place]
        found.setdefault(row.record_id, []).append(PastVersion(row.job_id, row.item_index, row.changed_at, stored))
    return found
