"""What sagas do, one module a workflow."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Final

from app.db.pool import Database
from app.settings import Settings
from jobs.saga import Runner, Workflow
from jobs.workflows.consistency import Consistency
from jobs.workflows.undo import Undo

Serve = Callable[[int, int], None]
"""Has a destination of a tenant looked at soon."""


def make_workflows(settings: Settings, serve: Serve, *, new_id: Callable[[], uuid.UUID]) -> list[Workflow]:
    return [Undo(settings, serve), Consistency(settings, serve, new_id=new_id)]


def make_runner(
    database: Database,
    settings: Settings,
    serve: Serve,
    *,
    monotonic: Callable[[], float],
    random: Callable[[], float],
    new_id: Callable[[], uuid.UUID],
) -> Runner:
    """The runner of every workflow there is."""
    workflows = make_workflows(settings, serve, new_id=new_id)
    return Runner(database, workflows, settings, monotonic=monotonic, random=random)


__all__: Final = ["Consistency", "Undo", "make_runner", "make_workflows"]
