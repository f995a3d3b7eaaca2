"""The queries that find and remove rows past their time, typed. Each commits by itself.

A removal takes a bounded number of rows, and says whether there may be more.
"""

import uuid
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from typing import Final

import msgspec

from app.history import queries as history
from app.history.removal import remove_versions
from app.history.versions import Place
from app.kit.postgres.batched_delete import BATCH, in_batches
from app.kit.postgres.database import Connection
from app.kit.postgres.query import Affected, Query, Seconds
from app.settings import Settings


class Kind(StrEnum):
    """What is removed."""

    STAGED = "staged"
    ANSWERS = "answers"
    KEYS = "keys"
    OUTCOMES = "outcomes"
    MESSAGES = "messages"
    CIRCUITS = "circuits"
    HISTORY = "history"
    JOBS = "jobs"
    DEAD_LETTERS = "dead_letters"
    AUDIT = "audit"
    SYNCS = "syncs"
    IMAGES = "images"


class Limits(msgspec.Struct, frozen=True):
    """The ages from which rows are past their time; `None`: they are kept for ever."""

    memory: Seconds
    outcomes: Seconds
    messages: Seconds
    circuits: Seconds
    history: Seconds | None
    jobs: Seconds | None
    dead_letters: Seconds | None
    audit: Seconds | None

    @classmethod
    def from_settings(cls, settings: Settings) -> "Limits":
        return cls(
            memory=settings.idempotency_memory,
            outcomes=settings.job_retention,
            messages=settings.webhook_retention,
            circuits=settings.circuit_retention,
            history=settings.history_retention or None,
            jobs=settings.job_summary_retention or None,
            dead_letters=settings.dead_letter_retention or None,
            audit=settings.audit_retention or None,
        )


class Past(msgspec.Struct, frozen=True):
    """Something of a tenant is past its time."""

    kind: Kind
    tenant_id: int


class PastChunk(msgspec.Struct, frozen=True):
    """The versions that a chunk of a job made, and who made those before."""

    job_id: uuid.UUID
    first_index: int
    prev_job_ids: list[uuid.UUID | None]
    prev_item_indexes: list[int | None]

    @property
    def places(self) -> list[Place]:
        pairs = zip(self.prev_job_ids, self.prev_item_indexes, strict=True)
        return [(job_id, index) for job_id, index in pairs if job_id is not None and index is not None]

    @property
    def jobs(self) -> set[uuid.UUID]:
        return {self.job_id, *(job_id for job_id, _ in self.places)}


MOST_VERSIONS: Final = 5_000
"""That one transaction looks for, more or less."""

find_past = Query[[list[int], Limits], list[Past]]("find_past")
"""(tenant_ids, limits)"""
_expire_answers = Query[[int], Affected]("expire_answers")
_forget_keys = Query[[int, Seconds], Affected]("forget_keys")
_past_jobs = Query[[int, Seconds], list[uuid.UUID]]("past_jobs")
_trim_outcomes = Query[[int, Sequence[uuid.UUID]], Affected]("trim_outcomes")
_trim_deliveries = Query[[int, Sequence[uuid.UUID]], Affected]("trim_deliveries")
_mark_trimmed = Query[[int, Sequence[uuid.UUID]], Affected]("mark_trimmed")
_past_chunks = Query[[int, Seconds | None], list[PastChunk]]("past_chunks")
_forget_jobs = Query[[int, Seconds | None], Affected]("forget_jobs")
_forget_dead_letters = Query[[int, Seconds | None], Affected]("forget_dead_letters")
_forget_audit = Query[[int, Seconds | None], Affected]("forget_audit")
_forget_syncs = Query[[int], Affected]("forget_syncs")
_forget_images = Query[[int, Seconds | None], Affected]("forget_images")
_forget_messages = Query[[int, Seconds], Affected]("forget_messages")
_forget_changes = Query[[int, Seconds], Affected]("forget_circuit_changes")

Removal = Callable[[Connection, int, Limits], Awaitable[tuple[int, bool]]]
"""Removes what is past its time of a tenant: how many rows, and whether there may be more."""


def _batch(run: Callable[[Connection, int, Limits], Awaitable[int]]) -> Removal:
    async def remove(connection: Connection, tenant_id: int, limits: Limits) -> tuple[int, bool]:
        rows = await run(connection, tenant_id, limits)
        return rows, rows >= BATCH

    return remove


async def trim_jobs(connection: Connection, tenant_id: int, limits: Limits) -> tuple[int, bool]:
    """Remove the outcomes and deliveries of jobs that ended long ago; counts jobs."""
    job_ids = await _past_jobs(connection, tenant_id, limits.outcomes)
    if not job_ids:
        return 0, False
    rows = 0
    for trim in (_trim_outcomes, _trim_deliveries):
        rows += await in_batches(trim, connection, tenant_id, job_ids)
    trimmed = await _mark_trimmed(connection, tenant_id, job_ids)
    return trimmed, rows + trimmed > 0


async def trim_history(connection: Connection, tenant_id: int, limits: Limits) -> tuple[int, bool]:
    """Remove the versions before those that are past their time; counts chunks whose versions are the oldest now."""
    async with connection.transaction():
        past = await _past_chunks(connection, tenant_id, limits.history)
        held = await history.hold_makers(connection, tenant_id, list(set().union(*(chunk.jobs for chunk in past))))
        done: list[PastChunk] = []
        places: list[Place] = []
        for chunk in past:
            if chunk.jobs <= held and len(places) < MOST_VERSIONS:
                done.append(chunk)
                places += chunk.places
        if not done:
            return 0, False
        rows = [chunk.job_id for chunk in done], [chunk.first_index for chunk in done]
        await history.forget_priors(connection, tenant_id, *rows)
        trimmed = await remove_versions(connection, tenant_id, places)
        await history.note_removals(connection, tenant_id, sorted(trimmed.union(rows[0])), True)
    return len(done), True


REMOVALS: dict[Kind, Removal] = {
    Kind.ANSWERS: _batch(lambda connection, tenant_id, _: _expire_answers(connection, tenant_id)),
    Kind.KEYS: _batch(lambda connection, tenant_id, limits: _forget_keys(connection, tenant_id, limits.memory)),
    Kind.OUTCOMES: trim_jobs,
    Kind.HISTORY: trim_history,
    Kind.JOBS: _batch(lambda connection, tenant_id, limits: _forget_jobs(connection, tenant_id, limits.jobs)),
    Kind.DEAD_LETTERS: _batch(
        lambda connection, tenant_id, limits: _forget_dead_letters(connection, tenant_id, limits.dead_letters)
    ),
    Kind.AUDIT: _batch(lambda connection, tenant_id, limits: _forget_audit(connection, tenant_id, limits.audit)),
    Kind.SYNCS: _batch(lambda connection, tenant_id, _: _forget_syncs(connection, tenant_id)),
    Kind.IMAGES: _batch(lambda connection, tenant_id, limits: _forget_images(connection, tenant_id, limits.history)),
    Kind.MESSAGES: _batch(
        lambda connection, tenant_id, limits: _forget_messages(connection, tenant_id, limits.messages)
    ),
    Kind.CIRCUITS: _batch(
        lambda connection, tenant_id, limits: _forget_changes(connection, tenant_id, limits.circuits)
    ),
}
