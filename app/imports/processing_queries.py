"""The queries of processing staged imports, typed. Each is for the caller's transaction."""

import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

import msgspec

from app.destinations.kinds import Reach
from app.imports.batch.file_duplicates import Repeat
from app.kit.postgres.database import Connection
from app.kit.postgres.query import Found, Json, Query, Seconds, query
from app.limits.policies import Limits
from app.vocabulary.outcomes_wire import Summary

LONG_SECONDS: Final = 600
_LONG_MEMORY: Final = "64MB"


class Processing(msgspec.Struct, frozen=True):
    step: str
    request_id: str
    trace_context: str | None
    options: str
    type: str
    key_id: str
    limits: Json[Limits]
    """Of the key that sent it."""
    tenant_limits: Json[Limits]


class StagedChunk(msgspec.Struct, frozen=True):
    first_index: int
    item_count: int
    attempts: int
    repeated: bool
    rows: bytes


working_imports = Query[[], list[tuple[int, uuid.UUID]]]("working_imports")
read_processing = Query[[int, uuid.UUID], Processing | None]("read_processing")
claim_chunk = Query[[int, uuid.UUID, str], StagedChunk | None]("claim_chunk")
"""(tenant_id, job_id, step)"""
claim_job = Query[[int, uuid.UUID], tuple[int, int] | None]("claim_job")
"""The first index that is still staged, and the attempts spent; `None`: not to be had now."""
_read_staged = Query[[int, uuid.UUID, int], list[tuple[int, int, bytes]]]("read_staged")


async def read_staged(
    connection: Connection, tenant_id: int, job_id: uuid.UUID
) -> AsyncIterator[tuple[int, int, bytes]]:
    """First index, item count and rows of every chunk, a few at a time."""
    start = 0
    while found := await _read_staged(connection, tenant_id, job_id, start):
        for chunk in found:
            yield chunk
        start = found[-1][0] + 1


async def allow_long(connection: Connection) -> None:
    """This transaction goes over a whole file: let it take its time, and memory for a large sort."""
    for name, value in (("statement_timeout", f"{LONG_SECONDS}s"), ("work_mem", _LONG_MEMORY)):
        await connection.execute("SELECT set_config($1, $2, true)", name, value)
    if connection.get_server_version().major >= 17:
        # A running timer is only replaced by way of none at all.
        for value in ("0", f"{LONG_SECONDS}s"):
            await connection.execute("SELECT set_config('transaction_timeout', $1, true)", value)


has_repeats = Query[[int, uuid.UUID], bool]("has_repeats", timeout=LONG_SECONDS)
find_repeats = Query[[int, uuid.UUID], int]("find_repeats", timeout=LONG_SECONDS)
"""Note the items that may repeat an id; returns how many."""
_chunk_repeats = Query[[int, uuid.UUID, int, int], list[Repeat]]("chunk_repeats")


async def chunk_repeats(connection: Connection, tenant_id: int, job_id: uuid.UUID, chunk: StagedChunk) -> list[Repeat]:
    last = chunk.first_index + chunk.item_count - 1
    return await _chunk_repeats(connection, tenant_id, job_id, chunk.first_index, last)


collect_repeats = Query[[int, uuid.UUID, Sequence[int], Sequence[str], Sequence[bytes]], None]("collect_repeats")
"""(tenant_id, job_id, indexes, record_ids, digests)"""


@query(timeout=LONG_SECONDS)
async def settle_repeats(connection: Connection, tenant_id: int, job_id: uuid.UUID, *, last_wins: bool) -> None: ...


_report_leaders = Query[[int, uuid.UUID, list[int], list[str]], None]("report_leaders")


async def report_leaders(
    connection: Connection, tenant_id: int, job_id: uuid.UUID, outcomes: Mapping[int, str]
) -> None:
    await _report_leaders(connection, tenant_id, job_id, list(outcomes), list(outcomes.values()))


@query
async def count_items(
    connection: Connection, tenant_id: int, job_id: uuid.UUID, summary: Summary, results: str
) -> Found:
    """False: the job was canceled meanwhile."""


move_chunk = Query[[int, uuid.UUID, int, str], None]("move_chunk")
"""(tenant_id, job_id, first_index, step)"""
postpone_chunk = Query[[int, uuid.UUID, int, Seconds], None]("postpone_chunk")
"""(tenant_id, job_id, first_index, seconds)"""
drop_chunks = Query[[int, uuid.UUID, int, int], None]("drop_chunks")
"""(tenant_id, job_id, first, last)"""
lock_import = Query[[int, uuid.UUID], str | None]("lock_import")
"""The step the job is at; `None`: it is being processed no longer."""
lock_undo = Query[[int, uuid.UUID], Found]("lock_undo")
"""The same for a job that takes something back; false: all of its items are decided."""
steps_left = Query[[int, uuid.UUID], set[str]]("steps_left")
say_waiting = Query[[int, uuid.UUID, str], None]("say_waiting")
"""(tenant_id, job_id, waiting) `waiting`: JSON, what keeps the job from going on. It is gone with the next chunk."""


@query
async def fail_import(connection: Connection, tenant_id: int, job_id: uuid.UUID, error: str) -> None:
    """End a job that cannot be processed; the scheduler removes its staged chunks."""


take_step = Query[[int, uuid.UUID, str], None]("take_step")
"""(tenant_id, job_id, step)"""
end_import = Query[[int, uuid.UUID], str | None]("end_import")
"""The state it goes on in."""
read_outcomes = Query[[int, uuid.UUID, int], tuple[bytes, bytes | None]]("read_outcomes")
"""(tenant_id, job_id, first_index) Outcomes and sources of a chunk that was applied, both packed."""


@query
async def rewrite_outcomes(
    connection: Connection,
    tenant_id: int,
    job_id: uuid.UUID,
    first_index: int,
    *,
    failures: str,
    outcomes: bytes,
    sources: bytes | None,
) -> None: ...


@query
async def pending_destinations(connection: Connection, tenant_id: int, reach: Reach) -> list[int]: ...


tenants_with_silent_uploads = Query[[], list[int]]("tenants_with_silent_uploads")
