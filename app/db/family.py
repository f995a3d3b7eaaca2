"""The queries of a job's lineage (its retries, and replays of its dead letters), typed."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from app.db.query import Query

if TYPE_CHECKING:
    pass


class LettersRow(msgspec.Struct, frozen=True):
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


class AttemptRow(msgspec.Struct, frozen=True):
    job_id: uuid.UUID
    kind: str
    state: str
    created_at: datetime
    destinations: list[str]


read_letters = Query[[int, uuid.UUID], list[LettersRow]]("read_outcome_of_letters")
read_effects = Query[[int, uuid.UUID], list[EffectsRow]]("read_own_effects")
read_attempts = Query[[int, uuid.UUID, Sequence[uuid.UUID]], list[AttemptRow]]("read_attempts")
"""(tenant_id, job_id, replays) Oldest first; the job itself is one."""
