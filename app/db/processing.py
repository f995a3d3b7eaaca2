"""The queries of processing spooled imports, typed. Each is for the caller's transaction."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta
from typing import Final

import msgspec

from app.db.pool import Connection
from app.db.sql import QUERIES
from app.db.strokes import in_strokes
from app.domain.answers import Summary

LONG_SECONDS: Final = 600
_LONG_MEMORY: Final = "64MB"


class Processing(msgspec.Struct, frozen=True):
    """An import that is being processed."""

    step: str
    request_id: str
    options: str


class SpooledChunk(msgspec.Struct, frozen=True):
    first_index: int
    item_count: int
    attempts: int
    repeated: bool
    rows: bytes


class Repeat(msgspec.Struct, frozen=True):
    """An item whose id, or at least its hash, stands in the file more than once."""

    item_index: int
    contact_id: str | None
    verdict: str | None
    leader: int | None
    members: int | None
    others: list[int] | None
    outcome: str | None
    """The leader's, as JSON."""


async def working_imports(connection: Connection) -> list[tuple[int, uuid.UUID]]:
    return [(row["tenant_id"], row["job_id"]) for row in await connection.fetch(QUERIES["working_imports"])]


async def read_processing(connection: Connection, tenant_id: int, job_id: uuid.UUID) -> Processing | None:
    row = await connection.fetchrow(QUERIES["read_processing"], tenant_id, job_id)
    return None if row is None else Processing(*row)


async def claim_chunk(
    connection: Connection, tenant_id: int, job_id: uuid.UUID, step: str
) -> SpooledChunk | None:
    row = await connection.fetchrow(QUERIES["claim_chunk"], tenant_id, job_id, step)
    return None if row is None else SpooledChunk(*row)


async def claim_job(connection: Connection, tenant_id: int, job_id: uuid.UUID) -> tuple[int, int] | None:
    """The first index that is still spooled, and the attempts spent; `None`: not to be had now."""
    row = await connection.fetchrow(QUERIES["claim_job"], tenant_id, job_id)
    return None if row is None else (row["first_index"], row["attempts"])


async def read_spool(
    connection: Connection, tenant_id: int, job_id: uuid.UUID
) -> AsyncIterator[tuple[int, int, bytes]]:
    """First index, item count and rows of every chunk, a few at a time."""
    start = 0
    while True:
        found = await connection.fetch(QUERIES["read_spool"], tenant_id, job_id, start)
        for row in found:
            yield row["first_index"], row["item_count"], row["rows"]
        if not found:
            return
        start = found[-1]["first_index"] + 1


async def allow_long(connection: Connection) -> None:
    """This transaction goes over a whole file: let it take its time, and memory for a large sort."""
    for name, value in (("statement_timeout", f"{LONG_SECONDS}s"), ("work_mem", _LONG_MEMORY)):
        await connection.execute("SELECT set_config($1, $2, true)", name, value)
    if connection.get_server_version().major >= 17:
        # A running timer is only replaced by way of none at all.
        for value in ("0", f"{LONG_SECONDS}s"):
            await connection.execute("SELECT set_config('transaction_timeout', $1, true)", value)


async def has_repeats(connection: Connection, tenant_id: int, job_id: uuid.UUID) -> bool:
    return bool(await connection.fetchval(QUERIES["has_repeats"], tenant_id, job_id, timeout=LONG_SECONDS))


async def find_repeats(connection: Connection, tenant_id: int, job_id: uuid.UUID) -> int:
    """Note the items that may repeat an id; returns how many."""
    found: int = await connection.fetchval(QUERIES["find_repeats"], tenant_id, job_id, timeout=LONG_SECONDS)
    return found


async def chunk_repeats(
    connection: Connection, tenant_id: int, job_id: uuid.UUID, chunk: SpooledChunk
) -> list[Repeat]:
    last = chunk.first_index + chunk.item_count - 1
    rows = await connection.fetch(QUERIES["chunk_repeats"], tenant_id, job_id, chunk.first_index, last)
    return [Repeat(*row) for row in rows]


async def collect_repeats(
    connection: Connection,
    tenant_id: int,
    job_id: uuid.UUID,
    indexes: Sequence[int],
    contact_ids: Sequence[str],
    digests: Sequence[bytes],
) -> None:
    await connection.execute(QUERIES["collect_repeats"], tenant_id, job_id, indexes, contact_ids, digests)


async def settle_repeats(
    connection: Connection, tenant_id: int, job_id: uuid.UUID, *, last_wins: bool
) -> None:
    await connection.execute(QUERIES["settle_repeats"], tenant_id, job_id, last_wins, timeout=LONG_SECONDS)


async def tell_leaders(
    connection: Connection, tenant_id: int, job_id: uuid.UUID, outcomes: Mapping[int, str]
) -> None:
    await connection.execute(
        QUERIES["tell_leaders"], tenant_id, job_id, list(outcomes), list(outcomes.values())
    )


async def count_items(
    connection: Connection, tenant_id: int, job_id: uuid.UUID, summary: Summary, results: str
) -> bool:
    """False: the job was canceled meanwhile."""
    s = summary
    counted = await connection.fetchval(
        QUERIES["count_items"], tenant_id, job_id, s.total, s.succeeded, s.failed, s.retry, results
    )
    return counted is not None


async def move_chunk(
    connection: Connection, tenant_id: int, job_id: uuid.UUID, first_index: int, step: str
) -> None:
    await connection.execute(QUERIES["move_chunk"], tenant_id, job_id, first_index, step)


async def postpone_chunk(
    connection: Connection, tenant_id: int, job_id: uuid.UUID, first_index: int, seconds: float
) -> None:
    await connection.execute(
        QUERIES["postpone_chunk"], tenant_id, job_id, first_index, timedelta(seconds=seconds)
    )


async def drop_chunks(
    connection: Connection, tenant_id: int, job_id: uuid.UUID, first: int, last: int
) -> None:
    await connection.execute(QUERIES["drop_chunks"], tenant_id, job_id, first, last)


async def lock_import(connection: Connection, tenant_id: int, job_id: uuid.UUID) -> str | None:
    """The step the job is at; `None`: it is being processed no longer."""
    step: str | None = await connection.fetchval(QUERIES["lock_import"], tenant_id, job_id)
    return step


async def lock_undo(connection: Connection, tenant_id: int, job_id: uuid.UUID) -> bool:
    """The same for a job that takes something back; false: all of its items are decided."""
    return await connection.fetchval(QUERIES["lock_undo"], tenant_id, job_id) is not None


async def steps_left(connection: Connection, tenant_id: int, job_id: uuid.UUID) -> set[str]:
    return {row["step"] for row in await connection.fetch(QUERIES["steps_left"], tenant_id, job_id)}


async def say_waiting(connection: Connection, tenant_id: int, job_id: uuid.UUID, waiting: str) -> None:
    """`waiting`: JSON, what keeps the job from going on. It is gone with the next chunk."""
    await connection.execute(QUERIES["say_waiting"], tenant_id, job_id, waiting)


async def fail_import(connection: Connection, tenant_id: int, job_id: uuid.UUID, error: str) -> None:
    """End a job that cannot be processed; what is spooled of it is for the sweepers."""
    await connection.execute(QUERIES["fail_import"], tenant_id, job_id, error)


async def take_step(connection: Connection, tenant_id: int, job_id: uuid.UUID, step: str) -> None:
    await connection.execute(QUERIES["take_step"], tenant_id, job_id, step)


async def end_import(connection: Connection, tenant_id: int, job_id: uuid.UUID) -> str | None:
    """The state it goes on in."""
    state: str | None = await connection.fetchval(QUERIES["end_import"], tenant_id, job_id)
    return state


async def read_outcomes(
    connection: Connection, tenant_id: int, job_id: uuid.UUID, first_index: int
) -> tuple[bytes, bytes | None]:
    """Outcomes and sources of a chunk that was applied, both packed."""
    row = await connection.fetchrow(QUERIES["read_outcomes"], tenant_id, job_id, first_index)
    assert row is not None
    return row["outcomes"], row["sources"]


async def rewrite_outcomes(
    connection: Connection,
    tenant_id: int,
    job_id: uuid.UUID,
    first_index: int,
    *,
    failures: str,
    outcomes: bytes,
    sources: bytes | None,
) -> None:
    await connection.execute(
        QUERIES["rewrite_outcomes"], tenant_id, job_id, first_index, failures, outcomes, sources
    )


async def owing_destinations(connection: Connection, tenant_id: int) -> list[int]:
    rows = await connection.fetch(QUERIES["owing_destinations"], tenant_id)
    return [row["destination_id"] for row in rows]


async def tenants_with_silent_uploads(connection: Connection) -> list[int]:
    rows = await connection.fetch(QUERIES["tenants_with_silent_uploads"])
    return [row["tenant_id"] for row in rows]


async def trim_jobs(connection: Connection, tenant_id: int, retention: float) -> int:
    """Drop the outcomes of jobs that ended `retention` seconds ago; how many jobs, a bounded number a call."""
    trimmed = 0
    for row in await connection.fetch(QUERIES["expired_jobs"], tenant_id, timedelta(seconds=retention)):
        job_id = row["job_id"]
        for query in (QUERIES["trim_outcomes"], QUERIES["trim_deliveries"]):
            await in_strokes(connection, query, tenant_id, job_id)
        trimmed += await connection.fetchval(QUERIES["mark_trimmed"], tenant_id, job_id) is not None
    return trimmed
