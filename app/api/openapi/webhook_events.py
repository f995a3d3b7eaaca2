"""The events that webhook endpoints receive: the section `webhooks` of the document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from app.api.openapi.parts import TEXT
from app.http.headers import JSON
from app.vocabulary.states import EventType, JobKind, JobState

TAG: Final = "webhooks"

_MEANINGS: Final = {
    EventType.JOB_FINISHED: "A job is finished: every item is decided, every effect at destinations settled.",
    EventType.ITEM_DEAD: "Items ended without arriving at a destination; there is a dead letter for each.",
    EventType.CIRCUIT_OPENED: "Calls to a destination are suspended for a while; nothing is lost.",
    EventType.CIRCUIT_CLOSED: "Calls to a destination are allowed again.",
    EventType.WEBHOOK_DISABLED: "Another endpoint is disabled, because it answered 410 or failed for too long.",
}


def make_webhooks(examples: Mapping[str, Any]) -> dict[str, Any]:
    """What endpoints are sent, as OpenAPI's own section of the document has it; `examples` of the data by event."""
    return {event.value: {"post": _describe(event, examples[event])} for event in EventType}


def _describe(event: EventType, data: Any) -> dict[str, Any]:
    schema = {
        "type": "object",
        "required": ["type", "timestamp", "data"],
        "properties": {
            "type": {"const": event.value},
            "timestamp": {"type": "string", "format": "date-time", "description": "When it happened."},
            "data": _SCHEMAS[event],
        },
    }
    example = {"type": event.value, "timestamp": "2026-01-14T08:00:02.123456Z", "data": data}
    return {
        "tags": [TAG],
        "operationId": "on" + "".join(word.capitalize() for word in event.value.split(".")),
        "summary": event.value,
        "description": f"{_MEANINGS[event]} Sent at least once, in no promised order, to each endpoint that listens; "
        "signed as Standard Webhooks specifies.",
        "parameters": _PARAMETERS,
        "requestBody": {"required": True, "content": {JSON: {"schema": schema, "example": example}}},
        "security": [],
        "responses": {
            "2XX": {"description": "It has received the event."},
            "410": {"description": "Never again: the endpoint is disabled."},
            "4XX": {
                "description": "It refuses the event for good; only 408 and 429 are retried. An endpoint with "
                "the policy `standard` gets retries after any other answer."
            },
            "5XX": {"description": "The event is retried."},
        },
    }


def _header(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": True, "description": description, "schema": schema}


_PARAMETERS: Final = [
    _header(
        "webhook-id",
        "The event's id, the same over all attempts: a receiver recognizes repetitions by it. `X-Event-ID` "
        "says the same.",
        {"type": "string", "format": "uuid"},
    ),
    _header(
        "webhook-timestamp",
        "When this attempt was made, in seconds since 1970; refuse one that is minutes old.",
        {"type": "integer"},
    ),
    _header(
        "webhook-signature",
        "`v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`; one for each valid secret, separated by spaces.",
        TEXT,
    ),
]


_WHOLE: Final = {"type": "integer", "minimum": 0}
_UUID: Final = {"type": "string", "format": "uuid"}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


_CIRCUIT: Final = _object(
    destination=TEXT,
    circuit={"enum": ["connection"], "description": "That of this tenant's connection to it."},
    before=TEXT,
    after=TEXT,
    opens=_WHOLE,
    retry_after_seconds=_WHOLE,
    detail=TEXT,
)
_SCHEMAS: Final = {
    EventType.JOB_FINISHED: _object(
        job_id=_UUID,
        kind={"enum": [kind.value for kind in JobKind]},
        root_job_id=_UUID,
        state={"enum": [state.value for state in JobState]},
        summary=_object(total=_WHOLE, succeeded=_WHOLE, failed=_WHOLE, retry=_WHOLE),
    ),
    EventType.ITEM_DEAD: _object(
        destination=TEXT,
        job_id=_UUID,
        root_job_id=_UUID,
        count=_WHOLE,
        items_url={"type": "string", "description": "Where all of them are."},
        items={
            "type": "array",
            "description": "The first ones: an event is smaller than 20 kB. `count` says how many there are.",
            "items": _object(
                index=_WHOLE,
                id=TEXT,
                version=_WHOLE,
                state={"enum": ["failed", "dead"]},
                code=TEXT,
                detail=TEXT,
                dead_letter_id=_WHOLE,
            ),
        },
    ),
    EventType.CIRCUIT_OPENED: _CIRCUIT,
    EventType.CIRCUIT_CLOSED: _CIRCUIT,
    EventType.WEBHOOK_DISABLED: _object(
        endpoint_id=_WHOLE, url=TEXT, failing_since={"type": ["string", "null"], "format": "date-time"}, detail=TEXT
    ),
}
