"""The events that webhook endpoints are told of: the section `webhooks` of the document."""

from __future__ import annotations

from typing import Any, Final

from app.domain.outcomes import SENTENCES, ErrorCode, EventType, JobKind, JobState
from app.http.headers import JSON
from app.http.openapi import examples
from app.http.openapi.parts import TEXT, field, operation

TAG: Final = "webhooks"

_SUMMARY: Final = {"total": 3, "succeeded": 2, "failed": 1, "retry": 0}
_DATA: Final[dict[str, dict[str, Any]]] = {
    EventType.JOB_FINISHED: {
        "job_id": examples.JOB_ID,
        "kind": "import",
        "root_job_id": examples.JOB_ID,
        "state": "completed_with_failures",
        "summary": _SUMMARY,
    },
    EventType.ITEM_DEAD: {
        "destination": "hubspot",
        "job_id": examples.JOB_ID,
        "root_job_id": examples.JOB_ID,
        "count": 1,
        "items": [
            {
                "index": 1,
                "id": "c2",
                "version": 3,
                "state": "failed",
                "code": "DESTINATION_REJECTED",
                "detail": SENTENCES[ErrorCode.DESTINATION_REJECTED],
                "dead_letter_id": 42,
            }
        ],
        "items_url": f"/v1/dead-letters?job_id={examples.JOB_ID}&destination=hubspot",
    },
    EventType.CIRCUIT_OPENED: {
        "destination": "hubspot",
        "circuit": "connection",
        "before": "closed",
        "after": "open",
        "opens": 1,
        "retry_after_seconds": 5,
        "detail": "too many calls failed or were slow; the last one had no answer",
    },
    EventType.CIRCUIT_CLOSED: {
        "destination": "hubspot",
        "circuit": "connection",
        "before": "half_open",
        "after": "closed",
        "opens": 0,
        "retry_after_seconds": 0,
        "detail": "enough calls went well again",
    },
    EventType.WEBHOOK_DISABLED: {
        "endpoint_id": 8,
        "url": "https://other.example.com/webhooks",
        "failing_since": "2026-01-09T08:00:02.123456+00:00",
        "detail": "no attempt has gone well for 5 days",
    },
}
_TELLS: Final = {
    EventType.JOB_FINISHED: "A job is at its end: every item is decided, every effect at destinations settled.",
    EventType.ITEM_DEAD: "Items came to their end without arriving at a destination; a dead letter waits for each.",
    EventType.CIRCUIT_OPENED: "Calls to a destination are held back for a while; nothing is lost.",
    EventType.CIRCUIT_CLOSED: "Calls to a destination go through again.",
    EventType.WEBHOOK_DISABLED: "Another endpoint is disabled, because it answered 410 or failed for too long.",
}


def example_of(event: EventType) -> dict[str, Any]:
    return {
        "type": event.value,
        "timestamp": "2026-01-14T08:00:02.123456Z",
        "data": _DATA[event],
    }


def make_webhooks() -> dict[str, Any]:
    """What endpoints are sent, as OpenAPI's own section of the document tells it."""
    return {event.value: {"post": _sent(event)} for event in EventType}


def _sent(event: EventType) -> dict[str, Any]:
    schema = {
        "type": "object",
        "required": ["type", "timestamp", "data"],
        "properties": {
            "type": {"const": event.value},
            "timestamp": {"type": "string", "format": "date-time", "description": "When it happened."},
            "data": _SCHEMAS[event],
        },
    }
    return operation(
        TAG,
        "on" + "".join(word.capitalize() for word in event.value.split(".")),
        event.value,
        f"{_TELLS[event]} Sent at least once, in no promised order, to each endpoint that listens; signed as Standard "
        "Webhooks says.",
        {
            "2XX": {"description": "It has it."},
            "410": {"description": "Never again: the endpoint is disabled."},
            "4XX": {
                "description": "It refuses it for good; only 408 and 429 are tried again. An endpoint with the policy "
                "`standard` is tried again whatever it answers."
            },
            "5XX": {"description": "It is tried again."},
        },
        [
            field(
                "webhook-id",
                "The event's id, the same over all attempts: a receiver tells repetitions by it. `X-Event-ID` says the "
                "same.",
                {"type": "string", "format": "uuid"},
                required=True,
            ),
            field(
                "webhook-timestamp",
                "When this attempt was made, in seconds since 1970; refuse what is minutes old.",
                {"type": "integer"},
                required=True,
            ),
            field(
                "webhook-signature",
                "`v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`; one for each valid secret, separated by "
                "spaces.",
                TEXT,
                required=True,
            ),
        ],
        requestBody={"required": True, "content": {JSON: {"schema": schema, "example": example_of(event)}}},
        security=[],
    )


_WHOLE: Final = {"type": "integer", "minimum": 0}
_UUID: Final = {"type": "string", "format": "uuid"}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


_CIRCUIT: Final = _object(
    destination=TEXT,
    circuit={
        "enum": ["connection"],
        "description": "That of this tenant's connection to it.",
    },
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
        endpoint_id=_WHOLE,
        url=TEXT,
        failing_since={"type": ["string", "null"], "format": "date-time"},
        detail=TEXT,
    ),
}
