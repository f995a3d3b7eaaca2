"""Removes single versions from the chunks that have them, for the caller's transaction."""

import uuid
from collections.abc import Iterable

from app.history import queries
from app.history.queries import Chunk
from app.history.versions import NewVersion, Place, StoredVersion, columns
from app.kit.postgres.database import Connection


async def remove_versions(connection: Connection, tenant_id: int, places: Iterable[Place]) -> set[uuid.UUID]:
    """Remove what was made there, and all that was before it; the jobs of which something is gone."""
    jobs: set[uuid.UUID] = set()
    wanted = set(places)
    while wanted:
        indexes = [index for _, index in wanted]
        before: set[Place] = set()
        emptied: list[Chunk] = []
        for chunk in await queries.hold_chunks(connection, tenant_id, [job_id for job_id, _ in wanted], indexes):
            kept: list[NewVersion] = []
            for index, stored, place in chunk.read():
                if (chunk.job_id, index) not in wanted:
                    kept.append(_keep(index, stored, place))
                elif place is not None:
                    before.add(place)
            if not kept:
                emptied.append(chunk)
            elif len(kept) < len(chunk.indexes):
                await queries.rewrite_chunk(connection, tenant_id, chunk.job_id, chunk.first_index, columns(kept))
            if len(kept) < len(chunk.indexes):
                jobs.add(chunk.job_id)
        if emptied:
            rows = [chunk.job_id for chunk in emptied], [chunk.first_index for chunk in emptied]
            await queries.drop_chunks(connection, tenant_id, *rows)
        wanted = before
    return jobs


async def forget_before(connection: Connection, tenant_id: int, places: Iterable[Place]) -> None:
    """What was made there began a record: what was before it is not known."""
    wanted = set(places)
    if not wanted:
        return
    indexes = [index for _, index in wanted]
    for chunk in await queries.hold_chunks(connection, tenant_id, [job_id for job_id, _ in wanted], indexes):
        kept = [
            _keep(index, stored, None if (chunk.job_id, index) in wanted else place)
            for index, stored, place in chunk.read()
        ]
        await queries.rewrite_chunk(connection, tenant_id, chunk.job_id, chunk.first_index, columns(kept))


def _keep(index: int, stored: StoredVersion, before: Place | None) -> NewVersion:
    job_id, item_index = (None, None) if before is None else (str(before[0]), before[1])
    return NewVersion(index, stored, job_id, item_index)
