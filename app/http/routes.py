"""Every route of the service."""

from __future__ import annotations

from typing import Final

from litestar.handlers import HTTPRouteHandler

from app.http import contacts, destinations, documents, events, health, history, imports, items, jobs, keys

ROUTES: Final[tuple[HTTPRouteHandler, ...]] = (
    imports.import_contacts,
    jobs.list_jobs,
    jobs.read_job,
    jobs.cancel_job,
    jobs.undo_job,
    events.read_events,
    items.list_items,
    keys.read_key,
    contacts.read_contact,
    history.read_history,
    history.read_audit_log,
    destinations.list_destinations,
    destinations.add_destination,
    destinations.read_destination,
    destinations.remove_destination,
    destinations.pause_destination,
    destinations.resume_destination,
    health.health,
    health.live,
    health.ready,
    documents.openapi_json,
    documents.openapi_yaml,
    documents.docs,
)
