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
    metrics,
    webhooks,
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
    destinations.read_circuit,
    destinations.set_circuit,
    webhooks.list_webhook_endpoints,
    webhooks.add_webhook_endpoint,
    webhooks.read_webhook_endpoint,
    webhooks.change_webhook_endpoint,
    webhooks.remove_webhook_endpoint,
    webhooks.rotate_webhook_secret,
    webhooks.test_webhook_endpoint,
    webhooks.list_webhook_messages,
    webhooks.read_webhook_message,
    webhooks.replay_webhook_message,
    webhooks.replay_webhook_messages,
    dead_letters.list_letters,
    dead_letters.list_clusters,
    dead_letters.read_letter,
    dead_letters.replay_letters,
    dead_letters.drop_letters,
    dead_letters.settle_letters,
    health.health,
    health.live,
    health.ready,
    metrics.metrics,
    documents.openapi_json,
    documents.openapi_yaml,
    documents.docs,
)
