"""The queries of a job's lineage (its retries, and replays of its dead letters), typed."""

import uuid
from collections.abc import Sequence
from datetime import datetime

import msgspec

from app.kit.postgres.database import Connection
from app.kit.postgres.query import Query
from app.vocabulary.states import JobKind, JobState


class DeadLettersRow(msgspec.Struct, frozen=True):
    """Dead letters that a job's own deliveries left at one destination, by their current state."""

    destination_id: int
    ok: int
    open: int
    failed: int
    dropped: int
    skipped: int
    replays: list[uuid.UUID]
    """Jobs that claimed any of the job's dead letters; the same in each row."""


class EffectsRow(msgspec.Struct, frozen=True):
    destination_id: int
    name: str
    open: int
    ok: int
    skipped: int
    failed: int


class Attempt(msgspec.Struct, frozen=True):
    """A job that sent items: the first one, a retry, or a replay of dead letters."""

    job_id: uuid.UUID
    kind: JobKind
    state: JobState
    created_at: datetime
    destinations: list[str]
    """The destinations that it was to send to."""


class Relatives(msgspec.Struct, frozen=True):
    undo_of: uuid.UUID | None = None
    undone_by: uuid.UUID | None = None
    compensated_by: uuid.UUID | None = None


read_dead_letters = Query[[int, uuid.UUID], list[DeadLettersRow]]("read_outcome_of_dead_letters")
read_effects = Query[[int, uuid.UUID], list[EffectsRow]]("read_own_effects")
read_attempts = Query[[int, uuid.UUID, Sequence[uuid.UUID]], list[Attempt]]("read_attempts")
"""(tenant_id, job_id, replays) Oldest first; the job itself is one."""
_read_relatives = Query[[int, uuid.UUID], Relatives | None]("read_relatives")


async def read_relatives(connection: Connection, tenant_id: int, job_id: uuid.UUID) -> Relatives:
    return await _read_relatives(connection, tenant_id, job_id) or Relatives()
