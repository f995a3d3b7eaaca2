"""The queries of a job's family (its retries, and replays of its letters), typed."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from app.db.sql import QUERIES

if TYPE_CHECKING:
    from app.db.pool import Connection


class LettersRow(msgspec.Struct, frozen=True):
    """Letters that a job's own deliveries left at one destination, by where they have come to since."""

    destination_id: int
    ok: int
    open: int
    failed: int
    dropped: int
    skipped: int
    replays: list[uuid.UUID]
    """Jobs that took any of the job's letters; the same in each row."""


class EffectsRow(msgspec.Struct, frozen=True):
    destination_id: int
    name: str
    open: int
    ok: int
    skipped: int
    failed: int


class AttemptRow(msgspec.Struct, frozen=True):
    job_id: uuid.UUID
    kind: str
    state: str
    created_at: datetime
    destinations: list[str]


async def read_letters(connection: Connection, tenant_id: int, job_id: uuid.UUID) -> list[LettersRow]:
    rows = await connection.fetch(QUERIES["read_outcome_of_letters"], tenant_id, job_id)
    return [LettersRow(*row) for row in rows]


async def read_effects(connection: Connection, tenant_id: int, job_id: uuid.UUID) -> list[EffectsRow]:
    rows = await connection.fetch(QUERIES["read_own_effects"], tenant_id, job_id)
    return [EffectsRow(*row) for row in rows]


async def read_attempts(
    connection: Connection, tenant_id: int, job_id: uuid.UUID, replays: Sequence[uuid.UUID]
) -> list[AttemptRow]:
    """Oldest first; the job itself is one."""
    rows = await connection.fetch(QUERIES["read_attempts"], tenant_id, job_id, list(replays))
    return [AttemptRow(*row) for row in rows]
