"""The workflows that there are, and their runner."""

from __future__ import annotations

import uuid
from collections.abc import Callable

from app.kit.postgres.database import Database
from app.settings import Settings
from jobs.sagas.consistency import Consistency
from jobs.sagas.runner import Runner, Workflow
from jobs.sagas.undo import Undo

Serve = Callable[[int, int], None]
"""Has a destination of a tenant served soon."""


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
