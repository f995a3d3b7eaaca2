"""Webhook endpoints: the operations of those who want to be told."""

from __future__ import annotations

from typing import Any, Final

from app.domain.outcomes import EventType
from app.domain.webhooks import TEST_EVENT, MessageState
from app.http import webhooks
from app.http.headers import JSON
from app.http.openapi.parts import (
    READING,
    REQUEST_ID,
    TEXT,
    answer_of,
    headers,
    operation,
    path,
    problems_of,
    query,
)
from app.http.openapi.schemas import ref
from app.http.openapi.webhook_events import TAG, example_of
from app.settings import Settings
from app.webhooks import MOST_ENDPOINTS, MOST_KEPT, REPLAYABLE

_WRITING: Final = (400, 401, 403, 406, 408, 413, 415, 429, 503)
_ENDPOINT_ID: Final = path("endpoint_id", "The endpoint.", {"type": "integer", "minimum": 1}, 7)
_MESSAGE_ID: Final = path("message_id", "The message.", {"type": "integer", "minimum": 1}, 4711)

_NEW: Final = {"url": "https://example.com/webhooks", "events": ["job.finished", "item.dead"]}
_ENDPOINT: Final[dict[str, Any]] = {
    "endpoint_id": 7,
    "url": "https://example.com/webhooks",
    "events": ["item.dead", "job.finished"],
    "policy": "short",
    "state": "active",
    "detail": None,
    "failing_since": None,
    "created_at": "2026-01-14T08:00:00Z",
    "previous_until": None,
}
_SECRET: Final = "whsec_" + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY="
_MESSAGE: Final[dict[str, Any]] = {
    "message_id": 4711,
    "event_id": "8b6f6c1e-3f57-4d0e-9d1c-3c2f7f6f8f10",
    "type": "job.finished",
    "state": "pending",
    "attempt": 1,
    "attempts": [
        {"at": "2026-01-14T08:00:02Z", "status": 500, "milliseconds": 31, "detail": "answered 500: oh no"}
    ],
    "payload": example_of(EventType.JOB_FINISHED),
    "created_at": "2026-01-14T08:00:02Z",
    "next_attempt_at": "2026-01-14T08:00:07Z",
    "finished_at": None,
}


def make_paths(settings: Settings) -> dict[str, Any]:
    base = webhooks.PATH
    one = base + "/{endpoint_id}"
    return {
        base: {"get": _list(), "post": _add()},
        one: {"get": _read(), "patch": _change(), "delete": _remove()},
        f"{one}/rotate": {"post": _rotate(settings)},
        f"{one}/test": {"post": _test()},
        f"{one}/replay": {"post": _replay_many()},
        f"{one}/messages": {"get": _messages(settings)},
        f"{one}/messages/{{message_id}}": {"get": _message()},
        f"{one}/messages/{{message_id}}/replay": {"post": _replay()},
    }


def _body(name: str, example: Any, *, required: bool = True) -> dict[str, Any]:
    return {"required": required, "content": {JSON: {"schema": ref(name), "example": example}}}


def _list() -> dict[str, Any]:
    return operation(
        TAG,
        "listWebhookEndpoints",
        "The tenant's webhook endpoints",
        "Needs the scope `admin`.",
        {
            "200": answer_of("All of them.", ref("WebhookEndpointList"), {"endpoints": [_ENDPOINT]}),
            **problems_of(*READING),
        },
    )


def _add() -> dict[str, Any]:
    return operation(
        TAG,
        "addWebhookEndpoint",
        "Add a webhook endpoint",
        f"It is told of what happens from now on, under a secret that this answer alone shows. At most "
        f"{MOST_ENDPOINTS} a tenant. Needs the scope `admin`.",
        {
            "201": answer_of(
                "It is there.",
                ref("WebhookSecret"),
                _ENDPOINT | {"secret": _SECRET},
                headers(Location="Location", Cache_Control="CacheControl"),
            ),
            **problems_of(*_WRITING),
        },
        requestBody=_body("NewWebhookEndpoint", _NEW),
    )


def _read() -> dict[str, Any]:
    return operation(
        TAG,
        "readWebhookEndpoint",
        "One webhook endpoint",
        "Needs the scope `admin`.",
        {"200": answer_of("The endpoint.", ref("WebhookEndpoint"), _ENDPOINT), **problems_of(404, *READING)},
        [_ENDPOINT_ID],
    )


def _change() -> dict[str, Any]:
    return operation(
        TAG,
        "changeWebhookEndpoint",
        "Change, disable or enable a webhook endpoint",
        "A disabled one is told of nothing: what waits for it becomes `failed`, and what happens meanwhile is not kept "
        "for it. Needs the scope `admin`.",
        {"200": answer_of("As it is now.", ref("WebhookEndpoint"), _ENDPOINT), **problems_of(404, *_WRITING)},
        [_ENDPOINT_ID],
        requestBody=_body("WebhookEndpointChange", {"state": "active"}),
    )


def _remove() -> dict[str, Any]:
    return operation(
        TAG,
        "removeWebhookEndpoint",
        "Remove a webhook endpoint",
        "Needs the scope `admin`.",
        {"204": {"description": "It is gone.", "headers": REQUEST_ID}, **problems_of(404, *READING)},
        [_ENDPOINT_ID],
    )


def _rotate(settings: Settings) -> dict[str, Any]:
    return operation(
        TAG,
        "rotateWebhookSecret",
        "Give a webhook endpoint a new secret",
        f"For `keep_seconds` ({settings.webhook_rotation:g} unless told, at most {MOST_KEPT}) the secret before signs "
        "as well, so that receivers can change over; with 0 it is no good at once. Needs the scope `admin`.",
        {
            "200": answer_of(
                "The endpoint with its new secret.",
                ref("WebhookSecret"),
                _ENDPOINT | {"secret": _SECRET, "previous_until": "2026-01-15T08:00:00Z"},
                headers(Cache_Control="CacheControl"),
            ),
            **problems_of(404, *_WRITING),
        },
        [_ENDPOINT_ID],
        requestBody=_body("WebhookRotation", {"keep_seconds": 3600}, required=False),
    )


def _test() -> dict[str, Any]:
    return operation(
        TAG,
        "testWebhookEndpoint",
        "Send a test event",
        f"A `{TEST_EVENT}`, whatever the endpoint listens to; the message tells what became of it. Needs the scope "
        "`admin`.",
        {
            "202": answer_of(
                "It is on its way.", ref("WebhookMessage"), _MESSAGE, headers(Location="Location")
            ),
            **problems_of(404, 409, *READING),
        },
        [_ENDPOINT_ID],
    )


def _messages(settings: Settings) -> dict[str, Any]:
    states: dict[str, Any] = {"type": "string", "enum": [state.value for state in MessageState]}
    limit: dict[str, Any] = {"type": "integer", "minimum": 1, "maximum": webhooks.MOST}
    return operation(
        TAG,
        "listWebhookMessages",
        "What an endpoint was told, newest first",
        "With every attempt. Messages that are settled are kept for "
        f"{settings.webhook_retention / 86_400:g} days. Needs the scope `admin`.",
        {
            "200": answer_of(
                "A page of messages.",
                ref("WebhookMessageList"),
                {"messages": [_MESSAGE], "next_cursor": None},
                headers(Link="Link"),
            ),
            **problems_of(404, *READING),
        },
        [
            _ENDPOINT_ID,
            query("state", "Only messages in this state.", states),
            query("limit", "Most entries of one page.", limit | {"default": webhooks.PAGE}),
            query("cursor", "`next_cursor` of the page before; without it, the first page.", TEXT),
        ],
    )


def _message() -> dict[str, Any]:
    return operation(
        TAG,
        "readWebhookMessage",
        "One message with its attempts",
        "Needs the scope `admin`.",
        {"200": answer_of("The message.", ref("WebhookMessage"), _MESSAGE), **problems_of(404, *READING)},
        [_ENDPOINT_ID, _MESSAGE_ID],
    )


def _replay() -> dict[str, Any]:
    return operation(
        TAG,
        "replayWebhookMessage",
        "Send a message again",
        "Under the same event id, with all attempts anew. One that is pending is left as it is. Needs the "
        "scope `admin`.",
        {
            "200": answer_of("The message.", ref("WebhookMessage"), _MESSAGE),
            **problems_of(404, 409, *READING),
        },
        [_ENDPOINT_ID, _MESSAGE_ID],
    )


def _replay_many() -> dict[str, Any]:
    return operation(
        TAG,
        "replayWebhookMessages",
        "Send again what did not arrive",
        f"All messages of an endpoint that are {' or '.join(f'`{state}`' for state in REPLAYABLE)}, under their event "
        "ids. Of very many only a part is taken: repeat until `replayed` is 0. Needs the scope `admin`.",
        {
            "200": answer_of("How many.", ref("WebhooksReplayed"), {"replayed": 12}),
            **problems_of(404, 409, *_WRITING),
        },
        [_ENDPOINT_ID],
        requestBody=_body("WebhookReplay", {"state": "dead"}),
    )
