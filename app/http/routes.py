"""Every route of the service."""

from __future__ import annotations

from typing import Final

from litestar.handlers import HTTPRouteHandler

from app.http import health, imports, jobs

ROUTES: Final[tuple[HTTPRouteHandler, ...]] = (
    imports.import_contacts,
    jobs.list_jobs,
    jobs.read_job,
    jobs.list_items,
    health.health,
    health.live,
    health.ready,
)
