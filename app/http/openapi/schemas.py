"""JSON Schemas of everything that goes over the wire, made from the structs and completed where those fall short."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from app import admin, circuits, destination_tests, keys, letter_views, spool, status, stream_tokens
from app import webhooks as endpoints
from app.db.webhooks import WebhookEndpoint, WebhookMessage
from app.domain import answers, outcomes
from app.domain.rows import Item
from app.domain.webhooks import MAX_URL
from app.http import (
    api_keys,
    dead_letters,
    destinations,
    health,
    history,
    items,
    jobs,
    problems,
    tenants,
    webhooks,
)
from app.http.openapi import examples

_STRUCTS: Final = (
    Item,
    answers.ImportAnswer,
    spool.QueuedAnswer,
    answers.ItemOutcome,
    status.Job,
    jobs.JobList,
    items.ItemList,
    stream_tokens.StreamToken,
    status.KeyState,
    status.Contact,
    history.ContactHistory,
    history.AuditLog,
    keys.Key,
    keys.NewKey,
    keys.KeyChange,
    api_keys.KeyList,
    api_keys.KeySecret,
    api_keys.KeyRotation,
    keys.Tenant,
    tenants.TenantList,
    tenants.NewTenant,
    tenants.TenantChange,
    admin.NewDestination,
    admin.DestinationChange,
    destinations.DestinationList,
    circuits.CircuitOrder,
    circuits.CircuitHistory,
    destination_tests.DestinationTestRequest,
    destination_tests.DestinationTest,
    endpoints.NewWebhookEndpoint,
    endpoints.WebhookEndpointChange,
    endpoints.WebhookSecret,
    WebhookEndpoint,
    WebhookMessage,
    webhooks.WebhookEndpointList,
    webhooks.WebhookMessageList,
    webhooks.WebhookRotation,
    webhooks.WebhookReplay,
    webhooks.WebhooksReplayed,
    jobs.RetryRequest,
    dead_letters.AttemptAnswer,
    dead_letters.ReplayRequest,
    dead_letters.ReplayAnswer,
    dead_letters.NothingTaken,
    dead_letters.PreviewAnswer,
    dead_letters.DropRequest,
    dead_letters.SettleRequest,
    dead_letters.DecisionAnswer,
    dead_letters.LetterList,
    dead_letters.ClusterList,
    letter_views.LetterDetail,
    health.Health,
    problems.Problem,
    outcomes.ErrorCode,
)
TEMPLATE: Final = "#/components/schemas/{name}"


def ref(name: str) -> dict[str, str]:
    return {"$ref": TEMPLATE.format(name=name)}


def make_schemas() -> dict[str, Any]:
    _, schemas = msgspec.json.schema_components(_STRUCTS, ref_template=TEMPLATE)
    for name, description in _DESCRIPTIONS.items():
        schemas[name]["description"] = description
    for schema in schemas.values():
        schema.pop("title", None)
        if "description" in schema:
            schema["description"] = " ".join(schema["description"].split())
    for path, change in _COMPLETIONS.items():
        name, field = path.split(".")
        schemas[name]["properties"][field] |= change
    for schema in schemas.values():
        _complete_arrays(schema)
    # These go out as bytes that were encoded before.
    schemas["WebhookMessage"]["properties"]["payload"] = {"type": "object"}
    schemas["Payload"]["properties"]["attributes"] = {"type": "object"}
    for name in ("Contact", "ContactFields"):
        schemas[name]["properties"]["attributes"] = {"type": "object"}
    schemas["AuditEntry"]["properties"]["detail"] = {"type": "object"}
    schemas["ImportAnswer"]["properties"]["items"] = {"type": "array", "items": ref("ItemOutcome")}
    return dict(sorted(schemas.items()))


def _complete_arrays(schema: Any) -> None:
    """`list[Any]` becomes `{"type": "array"}`; some generators drop every schema that has such an array."""
    if isinstance(schema, dict):
        if schema.get("type") == "array":
            schema.setdefault("items", {})
        for member in schema.values():
            _complete_arrays(member)
    elif isinstance(schema, list):
        for member in schema:
            _complete_arrays(member)


_DESCRIPTIONS: Final = {
    "Item": "A contact as it is sent. Absent leaves a field as it is, null clears it; an unknown field fails the item.",
    "ItemOutcome": "What became of one item here. `retry` means: send it again, not before `retry_after_seconds`.",
    "JobItem": "An item's outcome here and at every destination it was owed to.",
    "Effects": "How many of a job's items are in which state at one destination.",
    "ErrorCode": "Why an item is not `ok`. Codes are never removed.",
    "Merged": "A job's items at one destination over all attempts: `total` is the sum of the other counts.",
    "Filter": "Which open letters; what is left out does not matter.",
    "Skipped": "Letters that were asked for and left alone: ended before, or for a destination that is removed.",
    "FieldError": "One fault of an item; `pointer` is a JSON pointer (RFC 6901) into the item.",
}

_COMPLETIONS: Final[dict[str, dict[str, Any]]] = {
    "Progress.items": {"description": "Of the request; null while its body arrives."},
    "Progress.not_processed": {
        "description": "Those that are left, or were when the job was canceled or failed."
    },
    "Progress.bytes_received": {"description": "Of the body, inflated."},
    "Progress.items_per_second": {"description": "Since the first of them; null before it."},
    "Progress.expected_seconds": {
        "description": "Until all of them are processed; null unless the job is running."
    },
    "Problem.code": {"enum": sorted(problems.KINDS)},
    "Problem.type": {"format": "uri-reference", "examples": ["urn:tranche:problem:idempotency-key-reused"]},
    "KeyState.state": {"enum": ["completed", "running", "expired"]},
    "ImportAnswer.effects": {
        "description": "A word for the database and for each destination: `pending` while anything is still open."
    },
    "NewDestination.name": {"pattern": "^[a-z0-9][a-z0-9_-]{0,62}$"},
    "NewDestination.kind": {"enum": list(admin.KINDS)},
    "NewDestination.base_url": {
        "pattern": "^https?://",
        "examples": ["https://api.hubapi.com"],
    },
    "NewDestination.token": {
        "writeOnly": True,
        "minLength": 1,
        "pattern": "^[ -~]+$",
        "description": "Kept encrypted and never shown again.",
    },
    "NewDestination.options": {
        "description": "Of its kind: a wrong one is refused with its name. All of them: `tranche destinations kinds`."
    },
    "DestinationChange.token": {
        "writeOnly": True,
        "minLength": 1,
        "pattern": "^[ -~]+$",
        "description": "Kept encrypted and never shown again.",
    },
    "DestinationChange.options": {
        "description": "Those that are named change, the others stay as they are; null stands for the default."
    },
    "Destination.kind": {"enum": list(admin.KINDS)},
    "Destination.state": {"enum": ["active", "paused"]},
    "NewWebhookEndpoint.url": {
        "format": "uri",
        "maxLength": MAX_URL,
        "description": "https://, unless its address is in a network that the operator named.",
    },
    "WebhookEndpointChange.url": {"format": "uri", "maxLength": MAX_URL},
    "NewWebhookEndpoint.policy": {
        "description": "`short`: five retries in 75 minutes, and a 4xx that no retry mends is final. `standard`: all "
        "but 2xx and 410 is tried again, over three days, calls may take 15 s, and an endpoint that fails for five "
        "days is disabled."
    },
    "WebhookEndpoint.failing_since": {
        "description": "The first failed attempt after the last that went well; null: the last one went well."
    },
    "WebhookEndpointChange.state": {"enum": ["active", "disabled"]},
    "WebhookSecret.secret": {"pattern": "^whsec_", "description": "Signs messages; shown this once."},
    "WebhookMessage.payload": {"type": "object", "description": "What is sent."},
    "WebhookMessageList.next_cursor": {"description": "Opaque; null on the last page."},
    "Job.attempts": {
        "description": "The first one, its retries and replays of its letters; told where there is one."
    },
    "Job.merged": {
        "description": "What the items have come to over all attempts, by destination: told once the job is finished "
        "and some had failed, or it was retried."
    },
    "StreamToken.token": {"description": "Shows the events of this job, and nothing else."},
    "StreamToken.events_url": {
        "description": "With the token: for `new EventSource(…)`, which may come again until the token expires."
    },
    "Merged.ok": {"description": "The destination holds the version that the item made, or a newer one."},
    "Merged.open": {"description": "An attempt that is not finished has them."},
    "Merged.failed": {"description": "A dead letter waits for a human."},
    "Merged.dropped": {
        "description": "A human said that they are not worth sending, or another destination refused them and all were "
        "to have them or none."
    },
    "Merged.skipped": {"description": "There was nothing to send, or the destination was removed."},
    "DestinationOutcome.dead_letter_id": {"description": "Of an item that is `failed` or `dead` there."},
    "DestinationOutcome.resolution": {"description": "How that letter came to its end."},
    "DestinationOutcome.replayed_by": {"description": "The job that has sent it again since."},
    "DestinationOutcome.not_restored": {
        "description": "Of an undo: fields that were left there as they are, because nobody knows what they held "
        "before; attributes as `attributes.KEY`. `detail` says why. With `email` among them, the whole record was left."
    },
    "ContactSync.created": {
        "description": "Whether a call of Tranche made the record there; absent: not known, or there is none. An undo "
        "archives no other."
    },
    "ContactSync.not_restored": {
        "description": "Fields that undos left there as they were, because nobody knows what they held before."
    },
    "Job.not_restored": {
        "description": "Of an undo: by destination, how many of its items left something there as it is; the items "
        "name the fields."
    },
    "DeadLetter.chain_id": {
        "description": "The first letter of this item here; replays that fail again add to its chain."
    },
    "DeadLetter.resolution": {"description": "How it came to its end; null while it waits for a human."},
    "LetterDetail.choices": {"description": "What makes sense now."},
    "LetterDetail.payload": {
        "description": "The contact as a replay would send it now; null: its creation was undone."
    },
    "LetterDetail.failed_version": {
        "description": "The version that the letter is about, and the item that made it."
    },
    "LetterDetail.headers": {
        "description": "That went along with the calls, to find them in logs and at the CRM."
    },
    "LetterDetail.calls": {"description": "Calls that did not end well for the item, the last one first."},
    "LetterDetail.chain": {"description": "Letters of the same item, oldest first."},
    "ReplayRequest.all": {"description": "Every open letter: instead of a condition."},
    "ReplayRequest.preview": {"description": "Tell what would be taken, and change nothing."},
    "ReplayRequest.rate": {
        "description": "Items a second that become due at a destination; null: the setting `replay_rate`."
    },
    "DropRequest.all": {"description": "Every open letter: instead of a condition."},
    "AttemptAnswer.taken": {
        "description": "Letters that this request took; 0: an attempt under way has them."
    },
    "AttemptAnswer.due": {"description": "Items that waited for their next attempt, and wait no more."},
    "AttemptAnswer.remaining": {"description": "Open letters that are left for the next request."},
    "ReplayAnswer.jobs": {"description": "Jobs that have letters of this selection, earlier ones too."},
    "ItemList.next_cursor": {"description": "Opaque; null on the last page."},
    "LetterList.next_cursor": {"description": "Opaque; null on the last page."},
    "ContactHistory.next_cursor": {"description": "Opaque; null on the last page."},
    "AuditLog.next_cursor": {"description": "Opaque; null on the last page."},
    "AuditEntry.actor": {"description": "The API key that did it or had it done; `tranche`: nobody asked."},
    "AuditEntry.subject": {"examples": [f"job:{examples.JOB_ID}", "destination:hubspot"]},
    "Version.key_id": {"description": "The API key that asked for it."},
    "Version.deleted": {"description": "The creation of the contact was undone by this change."},
    "Version.before": {"description": "Null: there was no contact."},
    "Version.after": {"description": "Null: there is none any more."},
    "Version.undone_by": {"description": "The job that took this change back."},
    "Job.undo_of": {"description": "The job whose changes this one takes back."},
    "Job.undone_by": {"description": "The job that takes back the changes of this one."},
    "Job.compensated_by": {
        "description": "The job that takes back the items that some destination refused "
        "(`consistency=all_destinations`)."
    },
    "JobList.next_cursor": {"description": "Opaque; null on the last page."},
}
