"""Every route of the service."""

from __future__ import annotations

from typing import Final

from litestar.handlers import HTTPRouteHandler

from app.http import (
    contacts,
    dead_letters,
    destinations,
    documents,
    events,
    health,
    imports,
    items,
    jobs,
    keys,
)

ROUTES: Final[tuple[HTTPRouteHandler, ...]] = (
    imports.import_contacts,
    jobs.list_jobs,
    jobs.read_job,
    jobs.cancel_job,
    jobs.retry_job,
    events.read_events,
    items.list_items,
    keys.read_key,
    contacts.read_contact,
    destinations.list_destinations,
    destinations.add_destination,
    destinations.read_destination,
    destinations.remove_destination,
    destinations.pause_destination,
    destinations.resume_destination,
    dead_letters.list_letters,
    dead_letters.list_clusters,
    dead_letters.read_letter,
    dead_letters.replay_letters,
    dead_letters.drop_letters,
    dead_letters.settle_letters,
    health.health,
    health.live,
    health.ready,
    documents.openapi_json,
    documents.openapi_yaml,
    documents.docs,
)
