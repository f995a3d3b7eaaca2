"""Destinations, health and documents: the operations of those who look after the service."""

from __future__ import annotations

from typing import Any, Final

from app.http.headers import JSON
from app.http.openapi import examples
from app.http.openapi.parts import READING, REQUEST_ID, answer_of, headers, operation, path, problems_of
from app.http.openapi.schemas import ref

_DESTINATION: Final = path("name", "The destination.", {"type": "string", "minLength": 1}, "hubspot")


def make_paths() -> dict[str, Any]:
    return {**_destinations(), **_health(), **_metrics(), **_documents()}


def _destinations() -> dict[str, Any]:
    one = answer_of("The destination.", ref("Destination"), examples.DESTINATION)

    def change(operation_id: str, summary: str, description: str) -> dict[str, Any]:
        return {
            "post": operation(
                "destinations",
                operation_id,
                summary,
                description + " Needs the scope `admin`.",
                {"200": one, **problems_of(404, *READING)},
                [_DESTINATION],
            )
        }

    return {
        "/v1/destinations": {
            "get": operation(
                "destinations",
                "listDestinations",
                "The tenant's destinations",
                "Credentials are never shown. Needs the scope `read` or `admin`.",
                {
                    "200": answer_of(
                        "All of them, by name.",
                        ref("DestinationList"),
                        {"destinations": [examples.DESTINATION]},
                    ),
                    **problems_of(*READING),
                },
            ),
            "post": operation(
                "destinations",
                "addDestination",
                "Add a destination",
                "Contacts that change from now on are synced to it. Needs the scope `admin`.",
                {
                    "201": answer_of(
                        "It is there.",
                        ref("Destination"),
                        examples.DESTINATION,
                        headers(Location="Location"),
                    ),
                    **problems_of(400, 401, 403, 406, 408, 409, 413, 415, 429, 503),
                },
                requestBody={
                    "required": True,
                    "content": {JSON: {"schema": ref("NewDestination"), "example": examples.NEW_DESTINATION}},
                },
            ),
        },
        "/v1/destinations/{name}": {
            "get": operation(
                "destinations",
                "readDestination",
                "One destination",
                "Needs the scope `read` or `admin`.",
                {"200": one, **problems_of(404, *READING)},
                [_DESTINATION],
            ),
            "patch": operation(
                "destinations",
                "changeDestination",
                "Change a destination's token or options",
                "What waits goes on with them from the next call on; a new token is tried at once, whatever circuit "
                "the one before opened. What has arrived is not sent again because of other options. Needs the scope "
                "`admin`.",
                {"200": one, **problems_of(400, 401, 403, 404, 406, 408, 413, 415, 429, 503)},
                [_DESTINATION],
                requestBody={
                    "required": True,
                    "content": {
                        JSON: {"schema": ref("DestinationChange"), "example": {"token": "pat-na1-renewed"}}
                    },
                },
            ),
            "delete": operation(
                "destinations",
                "removeDestination",
                "Remove a destination",
                "What was not delivered yet is skipped; history stays. Needs the scope `admin`.",
                {
                    "204": {"description": "It is gone.", "headers": REQUEST_ID},
                    **problems_of(404, *READING),
                },
                [_DESTINATION],
            ),
        },
        "/v1/destinations/{name}/pause": change(
            "pauseDestination", "Pause a destination", "Nothing is sent until it is resumed; nothing is lost."
        ),
        "/v1/destinations/{name}/resume": change(
            "resumeDestination",
            "Resume a destination",
            "What waits is due at once. An open circuit still has its time, unless it is closed by hand.",
        ),
    }


def _health() -> dict[str, Any]:
    kept = headers(Cache_Control="CacheControl")
    failing = answer_of(
        "PostgreSQL is away: nothing works.",
        ref("Health"),
        {"status": "fail", "checks": {"database": {"status": "fail", "output": "connection refused"}}},
        headers(Cache_Control="CacheControl", Retry_After="RetryAfter"),
    )
    well = {"status": "pass", "checks": {"database": {"status": "pass", "milliseconds": 0.9}}}
    return {
        "/health": {
            "get": operation(
                "health",
                "readHealth",
                "Every engine and destination",
                "Without a key: the engines, as they were seen in the last seconds. With one, the destinations of its "
                "tenant have a check each; the operator's token (`TRANCHE_METRICS_TOKEN`) sees all of them counted.",
                {
                    "200": answer_of("All well.", ref("Health"), well, kept),
                    "207": answer_of(
                        "Degraded: imports are taken and kept.", ref("Health"), examples.HEALTH, kept
                    ),
                    "503": failing,
                    **problems_of(400, 401),
                },
                security=[{}, {"apiKey": []}],
            )
        },
        "/health/live": {
            "get": operation(
                "health",
                "readLiveness",
                "Whether the process runs",
                "Looks at nothing else, so that an outage elsewhere restarts no healthy process.",
                {"200": answer_of("It does.", ref("Health"), {"status": "pass", "checks": {}}, kept)}
                | problems_of(400),
                security=[],
            )
        },
        "/health/ready": {
            "get": operation(
                "health",
                "readReadiness",
                "Whether it can take work",
                "PostgreSQL answers and has this release's schema.",
                {
                    "200": answer_of("It can.", ref("Health"), well, kept),
                    "503": failing,
                    **problems_of(400),
                },
                security=[],
            )
        },
    }


def _metrics() -> dict[str, Any]:
    return {
        "/metrics": {
            "get": operation(
                "health",
                "readMetrics",
                "Figures for Prometheus",
                "An API key with the scope `read` or `admin` sees what is open of its own tenant. The operator's token "
                "(`TRANCHE_METRICS_TOKEN`, as a bearer token) sees that of all tenants together, none by name, and the "
                "requests of this service.",
                {
                    "200": {
                        "description": "The figures.",
                        "headers": headers(Cache_Control="CacheControl"),
                        "content": {"text/plain": {"schema": {"type": "string"}, "example": _METRICS}},
                    },
                    **problems_of(400, 401, 403, 503),
                },
            )
        }
    }


_METRICS: Final = """# HELP tranche_deliveries_due Deliveries that could be sent now.
# TYPE tranche_deliveries_due gauge
tranche_deliveries_due 3.0
"""


def _documents() -> dict[str, Any]:
    def document(operation_id: str, summary: str, media_type: str, schema: dict[str, Any]) -> dict[str, Any]:
        return {
            "get": operation(
                "documents",
                operation_id,
                summary,
                "The same for everybody.",
                {
                    "200": {
                        "description": "The document.",
                        "headers": headers(
                            Cache_Control="CacheControl", Content_Security_Policy="SecurityPolicy"
                        ),
                        "content": {media_type: {"schema": schema}},
                    },
                    **problems_of(406),
                },
                security=[],
            )
        }

    varies = headers(Cache_Control="CacheControl", Vary="Vary")
    root = operation(
        "documents",
        "readRoot",
        "Where things are",
        "A browser (`Accept: text/html`) is sent to `/docs`.",
        {
            "200": answer_of(
                "Where the documentation, this document and the health check are.",
                {"type": "object", "additionalProperties": {"type": "string"}},
                {
                    "name": "Tranche",
                    "version": "0.1.0",
                    "documentation": "/docs",
                    "openapi": "/openapi.json",
                    "health": "/health",
                },
                varies,
            ),
            "302": {
                "description": "To the page for people.",
                "headers": varies | headers(Location="Location"),
            },
            **problems_of(406),
        },
        security=[],
    )
    return {
        "/": {"get": root},
        "/openapi.json": document("readOpenapiJson", "This document as JSON", JSON, {"type": "object"}),
        "/openapi.yaml": document(
            "readOpenapiYaml", "This document as YAML", "application/yaml", {"type": "object"}
        ),
        "/docs": document("readDocs", "This document as a page", "text/html", {"type": "string"}),
    }
