"""Undo, histories and the audit log."""

from __future__ import annotations

from typing import Any, Final

from app.http import history
from app.http.openapi import examples
from app.http.openapi.parts import READING, TEXT, answer_of, headers, operation, path, problems_of, query
from app.http.openapi.schemas import ref

_CURSOR: Final = query("cursor", "`next_cursor` of the page before; without it, the first page.", TEXT)
_LIMIT: Final = query(
    "limit",
    "Most entries of one page.",
    {"type": "integer", "minimum": 1, "maximum": history.MOST, "default": history.PAGE},
)


def make_paths() -> dict[str, Any]:
    return {
        "/v1/jobs/{job_id}/undo": {"post": _undo()},
        "/v1/contacts/{contact_id}/history": {"get": _history()},
        "/v1/audit-log": {"get": _audit()},
    }


def _undo() -> dict[str, Any]:
    return operation(
        "jobs",
        "undoJob",
        "Take back what a job changed",
        "Each contact that the job changed gets back what stood before, as a new version, and one that it created is "
        "taken away; destinations follow. A contact that somebody changed since is left as it is: its item fails with "
        "`VERSION_CONFLICT` and tells by whom. No history is deleted. Asking again answers with the same undo job, and "
        "lets one that failed go on; to have the changes again, undo it. A job that is still at work, a dry run, a "
        "retry and a replay have nothing to take back (409). A body of this request is ignored. Needs the scope "
        "`import`.",
        {
            "202": answer_of(
                "The undo job.",
                ref("Job"),
                examples.UNDO_JOB,
                headers(
                    Location="Location",
                    Retry_After="RetryAfter",
                    ETag="ETag",
                    Cache_Control="CacheControl",
                ),
            ),
            **problems_of(404, 409, *READING),
        },
        [path("job_id", "The job.", {"type": "string", "format": "uuid"}, examples.JOB_ID)],
    )


def _history() -> dict[str, Any]:
    return operation(
        "contacts",
        "readContactHistory",
        "Every version of a contact",
        "Newest first: who changed what, when, and whether it was undone. Also of a contact whose creation was undone. "
        "Needs the scope `read`.",
        {
            "200": answer_of(
                "A page of versions.",
                ref("ContactHistory"),
                examples.HISTORY,
                headers(Link="Link", Cache_Control="CacheControl"),
            ),
            **problems_of(404, *READING),
        },
        [
            path(
                "contact_id",
                "The business key; percent-encode it, slashes too.",
                {"type": "string", "minLength": 1, "maxLength": 255},
                "c1",
            ),
            _LIMIT,
            _CURSOR,
        ],
    )


def _audit() -> dict[str, Any]:
    return operation(
        "audit",
        "readAuditLog",
        "Who did what, when",
        "Newest first: the steps of undos and compensations, and what humans decided. Needs the scope `read` or "
        "`admin`.",
        {
            "200": answer_of("A page of entries.", ref("AuditLog"), examples.AUDIT, headers(Link="Link")),
            **problems_of(*READING),
        },
        [
            query(
                "subject",
                "Only what concerns this one.",
                {"type": "string", "examples": [f"job:{examples.JOB_ID}"]},
            ),
            _LIMIT,
            _CURSOR,
        ],
    )
