"""Dead letters and retries: the operations of those who decide about what failed."""

from __future__ import annotations

from typing import Any, Final

from app.domain.outcomes import ErrorCode
from app.http import dead_letters
from app.http.headers import JSON
from app.http.openapi import examples
from app.http.openapi.parts import (
    READING,
    TEXT,
    answer_of,
    field,
    headers,
    operation,
    path,
    problems_of,
    query,
)
from app.http.openapi.schemas import ref
from app.letter_choice import MOST
from app.settings import Settings

_JOB_ID: Final = path("job_id", "The job.", {"type": "string", "format": "uuid"}, examples.JOB_ID)
_FILTERS: Final = [
    query("destination", "Only at this destination.", TEXT),
    query(
        "error_code", "Only with this code.", {"type": "string", "enum": [str(code) for code in ErrorCode]}
    ),
    query("state", "Refused for good, or given up.", {"type": "string", "enum": ["failed", "dead"]}),
    query(
        "job_id",
        "Only those that this job began, or ran into.",
        {"type": "string", "format": "uuid"},
    ),
    query("contact_id", "Only of this contact.", TEXT),
]
_POSTING: Final = (400, 401, 403, 404, 406, 408, 413, 415, 429, 503)
_MADE: Final = headers(Location="Location", Retry_After="RetryAfter")


def make_paths(settings: Settings) -> dict[str, Any]:
    return {
        "/v1/jobs/{job_id}/retry": {"post": _retry(settings)},
        "/v1/dead-letters": {"get": _list()},
        "/v1/dead-letters/clusters": {"get": _clusters()},
        "/v1/dead-letters/{letter_id}": {"get": _read()},
        "/v1/dead-letters/replay": {"post": _replay(settings)},
        "/v1/dead-letters/drop": {"post": _drop()},
        "/v1/dead-letters/settle": {"post": _settle()},
    }


def _body(name: str, example: Any, *, required: bool = True) -> dict[str, Any]:
    return {"required": required, "content": {JSON: {"schema": ref(name), "example": example}}}


def _retry(settings: Settings) -> dict[str, Any]:
    return operation(
        "jobs",
        "retryJob",
        "Send again what failed of a job",
        "Open dead letters of the job and of its earlier retries are taken into one new job, at the named destinations "
        "or all; items that wait for their next attempt wait no longer. Contacts go as they stand, "
        f"{settings.replay_rate:g} items a second at a destination. Asking twice is asking once: while a retry is "
        f"under way and nothing new has failed, it is the answer. One job takes {MOST} letters at the most; "
        "`remaining` tells how many are left. A job that takes something back (`undo`, or what an import shows as "
        "`compensated_by`) and failed at it goes on where it ended. Needs the scope `import` or `admin`.",
        {
            "202": answer_of(
                "The job that sends them: a new one, or the one under way.",
                ref("AttemptAnswer"),
                examples.RETRIED,
                _MADE | headers(Idempotency_Key="MaybeIdempotencyKey"),
            ),
            **problems_of(*_POSTING, 409),
        },
        [
            _JOB_ID,
            field("Idempotency-Key", "Echoed; the request is idempotent without it.", TEXT),
        ],
        requestBody=_body("RetryRequest", {"destinations": ["hubspot"]}, required=False),
    )


def _list() -> dict[str, Any]:
    return operation(
        "dead letters",
        "listDeadLetters",
        "Dead letters, newest first",
        "Those that wait for a human, unless `resolution` says otherwise. Needs the scope `read` or `admin`.",
        {
            "200": answer_of(
                "A page of letters. A filtered one may hold fewer than `limit`, even none, and still have a next one.",
                ref("LetterList"),
                {"dead_letters": [examples.LETTER], "next_cursor": None},
                headers(Link="Link"),
            ),
            **problems_of(404, *READING),
        },
        [
            *_FILTERS,
            query(
                "resolution",
                "How they ended.",
                {"type": "string", "enum": [str(r) for r in dead_letters.RESOLUTIONS], "default": "open"},
            ),
            query(
                "limit",
                "Most entries of one page.",
                {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": dead_letters.MOST,
                    "default": dead_letters.PAGE,
                },
            ),
            query("cursor", "`next_cursor` of the page before; without it, the first page.", TEXT),
        ],
    )


def _clusters() -> dict[str, Any]:
    return operation(
        "dead letters",
        "clusterDeadLetters",
        "Open letters by destination and code",
        "The most frequent reason first, each with sample ids. Needs the scope `read` or `admin`.",
        {
            "200": answer_of(
                "What is wrong, and how often.",
                ref("ClusterList"),
                {"clusters": [examples.CLUSTER], "total": 20},
            ),
            **problems_of(404, *READING),
        },
        _FILTERS,
    )


def _read() -> dict[str, Any]:
    return operation(
        "dead letters",
        "readDeadLetter",
        "One letter with all that is needed to decide",
        "Its reason, the calls with times and answers, what a replay would send now, its history, and the choices that "
        "make sense. Needs the scope `read` or `admin`.",
        {
            "200": answer_of("The letter.", ref("LetterDetail"), examples.LETTER_DETAIL),
            **problems_of(404, *READING),
        },
        [path("letter_id", "The letter.", {"type": "integer", "minimum": 1, "maximum": 2**63 - 1}, 4711)],
    )


def _replay(settings: Settings) -> dict[str, Any]:
    previewed = {"would_take": 20, "most": MOST, "clusters": [examples.CLUSTER], "skipped": []}
    nothing = answer_of(
        "With `preview`: what would be taken, and nothing was changed. Else: no letter of the selection is open, so "
        "there is nothing to send; `jobs` have had those that were replayed before.",
        {"anyOf": [ref("PreviewAnswer"), ref("NothingTaken")]},
        examples.NOTHING_TAKEN,
    )
    content = nothing["content"][JSON]
    content["examples"] = {
        "nothing": {"value": content.pop("example")},
        "preview": {"value": previewed},
    }
    return operation(
        "dead letters",
        "replayDeadLetters",
        "Send letters again",
        "By id, by a filter, or all of them. The contacts go as they stand, once for each destination, "
        f"{settings.replay_rate:g} items a second there unless `rate` says otherwise. A letter is taken once, however "
        "often it is asked for; if it fails again there is a new letter in the same chain. One job takes "
        f"{MOST} letters at the most; `remaining` tells how many are left. Needs the scope `admin`.",
        {
            "202": answer_of("The job that sends them.", ref("ReplayAnswer"), examples.REPLAYED, _MADE),
            "200": nothing,
            **problems_of(*_POSTING),
        },
        requestBody=_body(
            "ReplayRequest",
            {"filter": {"destination": "hubspot", "error_code": "DESTINATION_REJECTED"}, "rate": 200},
        ),
    )


def _drop() -> dict[str, Any]:
    return operation(
        "dead letters",
        "dropDeadLetters",
        "Say that letters are not worth sending",
        "Their history stays, with the reason and who gave it. "
        f"At most {MOST} at a time; `remaining` tells how many are left. Needs the scope `admin`.",
        {
            "200": answer_of("They are dropped.", ref("DecisionAnswer"), _decided()),
            **problems_of(*_POSTING),
        },
        requestBody=_body("DropRequest", {"ids": [4711, 4712], "reason": "left the company"}),
    )


def _settle() -> dict[str, Any]:
    return operation(
        "dead letters",
        "settleDeadLetters",
        "Say that what is in doubt has arrived",
        "Only letters with the code `OUTCOME_UNKNOWN`: the destination is then known to hold these versions. Needs the "
        "scope `admin`.",
        {
            "200": answer_of("They are settled.", ref("DecisionAnswer"), _decided()),
            **problems_of(*_POSTING, 409),
        },
        requestBody=_body("SettleRequest", {"ids": [4711], "reason": "seen in the CRM"}),
    )


def _decided() -> dict[str, Any]:
    return {"decided": 1, "remaining": 0, "skipped": []}
