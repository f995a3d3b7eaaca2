"""Sagas driven by the test, turn by turn."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from uuid_utils.compat import uuid7

from app.kit.postgres.database import Database
from app.settings import Settings
from app.undo import service
from jobs.sagas.runner import Runner, Workflow
from jobs.sagas.workflows import WORKFLOWS
from tests.db.conftest import Desk


def runner_of(
    desk: Desk,
    workflows: Iterable[Workflow] | None = None,
    *,
    random: Callable[[], float] = random.random,
    **changes: Any,
) -> Runner:
    settings: Settings = msgspec.structs.replace(desk.settings, **changes)
    return Runner(desk.database, workflows or WORKFLOWS, settings, lambda *_: None, random=random)


async def due(desk: Desk) -> list[tuple[int, uuid.UUID]]:
    rows = await desk.rows(
        "SELECT tenant_id, saga_id FROM sagas WHERE finished_at IS NULL AND due_at <= now() ORDER BY saga_id"
    )
    return [(row["tenant_id"], row["saga_id"]) for row in rows]


async def drive(desk: Desk, runner: Runner | None = None, *, most: int = 1_000) -> int:
    """Turn after turn until nothing is due; how many turns."""
    runner = runner or runner_of(desk)
    connection_queue = 0
    while connection_queue < most and (found := await due(desk)):
        for saga in found:
            await runner.advance(*saga)
            connection_queue += 1
    return connection_queue


async def hasten(desk: Desk) -> None:
    """Whatever waits need wait no longer."""
    await desk.execute("UPDATE sagas SET due_at = now() WHERE finished_at IS NULL")


async def ask(desk: Desk, job_id: uuid.UUID, database: Database | None = None) -> uuid.UUID:
    """Have a job undone; the undo job."""
    asked = await service.undo(
        database or desk.database, desk.tenant_id, job_id, key_id="undoer", request_id="u-1", new_id=uuid7
    )
    return asked.job_id


async def undo(desk: Desk, job_id: uuid.UUID) -> uuid.UUID:
    """Have a job undone, here at least."""
    undo_id = await ask(desk, job_id)
    await drive(desk)
    return undo_id
