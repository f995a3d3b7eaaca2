"""Tests of destinations."""

from __future__ import annotations

from typing import Any, Final

from app.http.headers import JSON
from app.http.openapi import examples
from app.http.openapi.parts import READING, answer_of, field, headers, operation, path, problems_of
from app.http.openapi.schemas import ref

_DESTINATION: Final = path("name", "The destination.", {"type": "string", "minLength": 1}, "hubspot")
_RUNNING: Final = examples.DESTINATION_TEST | {
    "state": "running",
    "verdict": None,
    "steps": [],
    "finished_at": None,
}


def make_paths() -> dict[str, Any]:
    test = ref("DestinationTest")
    return {
        "/v1/destinations/{name}/test": {
            "post": operation(
                "destinations",
                "testDestination",
                "Test a destination",
                "A worker makes one harmless authenticated call or a few, looks at how the account is set up, and says "
                "what it saw, step by step. With `canary` it also writes one record with a key of its own "
                "(`tranche-canary-…`), reads it back and takes it away. Circuits and waits do not hold a test back; "
                "a paused destination gets no canary. `verdict` is `works`, `fails`, or `unclear` where nothing failed "
                "and nothing was shown to work. Needs the scope `admin`.",
                {
                    "200": answer_of("What was seen.", test, examples.DESTINATION_TEST),
                    "202": answer_of(
                        "A worker is still at it; `Location` is where to look.",
                        test,
                        _RUNNING,
                        headers(Location="Location", Retry_After="RetryAfter"),
                    ),
                    **problems_of(400, 401, 403, 404, 406, 408, 409, 413, 415, 503),
                },
                [
                    _DESTINATION,
                    field("Prefer", "`wait=N` holds the answer so many seconds at most.", {"type": "string"}),
                ],
                requestBody={
                    "required": False,
                    "content": {JSON: {"schema": ref("DestinationTestRequest"), "example": {"canary": True}}},
                },
            )
        },
        "/v1/destinations/{name}/tests/{test_id}": {
            "get": operation(
                "destinations",
                "readDestinationTest",
                "A test of a destination",
                "Kept for a day. Needs the scope `admin`.",
                {
                    "200": answer_of("The test.", test, examples.DESTINATION_TEST),
                    **problems_of(404, *READING),
                },
                [
                    _DESTINATION,
                    path(
                        "test_id",
                        "The test.",
                        {"type": "string", "format": "uuid"},
                        str(examples.DESTINATION_TEST["test_id"]),
                    ),
                ],
            )
        },
    }
