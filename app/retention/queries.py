"""The queries that find and remove rows past their time, typed. Each commits by itself.

A removal takes a bounded number of rows, and says whether there may be more.
"""

import uuid
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum

import msgspec

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


class Limits(msgspec.Struct, frozen=True):
    """The ages from which rows are past their time."""

    memory: Seconds
    outcomes: Seconds
    messages: Seconds
    circuits: Seconds

    @classmethod
    def from_settings(cls, settings: Settings) -> "Limits":
        return cls(
            memory=settings.idempotency_memory,
            outcomes=settings.job_retention,
            messages=settings.webhook_retention,
            circuits=settings.circuit_retention,
        )


class Past(msgspec.Struct, frozen=True):
    """Something of a tenant is past its time."""

    kind: Kind
    tenant_id: int


find_past = Query[[list[int], Limits], list[Past]]("find_past")
"""(tenant_ids, limits)"""
_expire_answers = Query[[int], Affected]("expire_answers")
_forget_keys = Query[[int, Seconds], Affected]("forget_keys")
_past_jobs = Query[[int, Seconds], list[uuid.UUID]]("past_jobs")
_trim_outcomes = Query[[int, Sequence[uuid.UUID]], Affected]("trim_outcomes")
_trim_deliveries = Query[[int, Sequence[uuid.UUID]], Affected]("trim_deliveries")
_mark_trimmed = Query[[int, Sequence[uuid.UUID]], Affected]("mark_trimmed")
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


REMOVALS: dict[Kind, Removal] = {
    Kind.ANSWERS: _batch(lambda connection, tenant_id, _: _expire_answers(connection, tenant_id)),
    Kind.KEYS: _batch(lambda connection, tenant_id, limits: _forget_keys(connection, tenant_id, limits.memory)),
    Kind.OUTCOMES: trim_jobs,
    Kind.MESSAGES: _batch(
        lambda connection, tenant_id, limits: _forget_messages(connection, tenant_id, limits.messages)
    ),
    Kind.CIRCUITS: _batch(
        lambda connection, tenant_id, limits: _forget_changes(connection, tenant_id, limits.circuits)
    ),
}
