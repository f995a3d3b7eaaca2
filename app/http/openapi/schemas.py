"""JSON Schemas of everything that goes over the wire, made from the structs and completed where those fall short."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from app import admin, spool, status
from app.domain import answers, outcomes
from app.domain.rows import Item
from app.http import destinations, health, history, items, jobs, problems
from app.http.openapi import examples

_STRUCTS: Final = (
    Item,
    answers.ImportAnswer,
    spool.QueuedAnswer,
    answers.ItemOutcome,
    status.Job,
    jobs.JobList,
    items.ItemList,
    status.KeyState,
    status.Contact,
    history.ContactHistory,
    history.AuditLog,
    admin.NewDestination,
    destinations.DestinationList,
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
    # These go out as bytes that were encoded before.
    for name in ("Contact", "ContactFields"):
        schemas[name]["properties"]["attributes"] = {"type": "object"}
    schemas["AuditEntry"]["properties"]["detail"] = {"type": "object"}
    schemas["ImportAnswer"]["properties"]["items"] = {"type": "array", "items": ref("ItemOutcome")}
    return dict(sorted(schemas.items()))


_DESCRIPTIONS: Final = {
    "Item": "A contact as it is sent. Absent leaves a field as it is, null clears it; an unknown field fails the item.",
    "ItemOutcome": "What became of one item here. `retry` means: send it again, not before `retry_after_seconds`.",
    "JobItem": "An item's outcome here and at every destination it was owed to.",
    "Effects": "How many of a job's items are in which state at one destination.",
    "ErrorCode": "Why an item is not `ok`. Codes are never removed.",
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
    "Destination.kind": {"enum": list(admin.KINDS)},
    "Destination.state": {"enum": ["active", "paused"]},
    "ItemList.next_cursor": {"description": "Opaque; null on the last page."},
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
