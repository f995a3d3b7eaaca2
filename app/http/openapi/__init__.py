"""The OpenAPI document: shapes from the structs that are really sent, words and statuses by hand."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import msgspec

from app.http.openapi import (
    access,
    circuits,
    data,
    destination_tests,
    letters,
    parts,
    schemas,
    service,
    undo,
    webhook_events,
    webhooks,
)
from app.http.openapi.yaml import dump
from app.settings import Settings


def make_document(settings: Settings) -> dict[str, Any]:
    """The document for a service with these limits."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tranche",
            "summary": "A bulk import API that tells the truth about every item.",
            "description": _DESCRIPTION,
            "version": _version(),
            "contact": {"name": "The Tranche authors"},
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"apiKey": []}],
        "tags": _TAGS,
        "paths": data.make_paths(settings)
        | letters.make_paths(settings)
        | undo.make_paths()
        | service.make_paths()
        | circuits.make_paths()
        | access.make_paths()
        | destination_tests.make_paths()
        | webhooks.make_paths(settings),
        "webhooks": webhook_events.make_webhooks(),
        "components": {
            "securitySchemes": {
                "apiKey": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "trn_…",
                    "description": "An API key of one tenant, made with `tranche keys create`. Its scopes are `import` "
                    "(send contacts, follow its jobs), `read` and `admin` (destinations, webhooks).",
                },
                "streamToken": {
                    "type": "apiKey",
                    "in": "query",
                    "name": "token",
                    "description": "A token for the events of one job, from `POST /v1/jobs/{job_id}/stream-token`.",
                },
            },
            "schemas": schemas.make_schemas(schemas.STRUCTS),
            "headers": parts.HEADERS,
            "responses": parts.PROBLEMS,
        },
    }


def make_pointers() -> dict[str, str]:
    """What a program finds at the root."""
    return {
        "name": "Tranche",
        "version": _version(),
        "documentation": "/docs",
        "openapi": "/openapi.json",
        "health": "/health",
    }


_TAGS: Final = [
    {"name": "contacts", "description": "Send contacts, and see where each stands."},
    {"name": "jobs", "description": "What became of what was sent."},
    {"name": "dead letters", "description": "What was given up on, and what a human decides about it."},
    {"name": "destinations", "description": "Where contacts are synced."},
    {"name": "webhooks", "description": "Be told of events; signed, and repeated until they arrive."},
    {"name": "keys", "description": "Who may do what: API keys, and the tenants that they belong to."},
    {"name": "audit", "description": "Who did what, when."},
    {"name": "health", "description": "What works and what does not; open to everybody."},
    {"name": "documents", "description": "This description; open to everybody."},
]

_DESCRIPTION: Final = (
    "Send contacts in batches; every item gets its own honest outcome, and what is accepted is synced to every "
    "destination of the tenant. Errors are `application/problem+json` (RFC 9457) with a `code` that never changes "
    "its meaning. Every answer carries `X-Request-ID`, and the header fields that tell browsers and caches what not to "
    "do with it. Pages of the origins that an operator named "
    "(`TRANCHE_CORS_ORIGINS`) may call all of it from a browser."
)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("tranche")
    except PackageNotFoundError:
        return "0"


@lru_cache(maxsize=4)
def as_json(settings: Settings) -> bytes:
    return msgspec.json.format(msgspec.json.encode(make_document(settings)), indent=2)


@lru_cache(maxsize=4)
def as_yaml(settings: Settings) -> bytes:
    return dump(make_document(settings)).encode()
