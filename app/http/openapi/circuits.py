"""The circuits on the way to a destination: how they are, and setting them by hand."""

from __future__ import annotations

from typing import Any, Final

from app.circuits import DEFAULT_SECONDS, MOST_SECONDS
from app.http.headers import JSON
from app.http.openapi import examples
from app.http.openapi.parts import READING, answer_of, operation, path, problems_of, query
from app.http.openapi.schemas import ref

_DESTINATION: Final = path("name", "The destination.", {"type": "string", "minLength": 1}, "hubspot")


def make_paths() -> dict[str, Any]:
    return {
        "/v1/destinations/{name}/circuit": {
            "get": operation(
                "destinations",
                "readCircuit",
                "The circuits on the way to a destination",
                "There are two: that of the CRM, which everybody shares who uses it, and that of this tenant's "
                "connection to it. An open one holds calls back, which spends no attempt; a half-open one lets a few "
                "calls try whether it works again. Needs the scope `read` or `admin`.",
                {
                    "200": answer_of(
                        "How they are, and how they changed.", ref("CircuitHistory"), examples.CIRCUIT
                    ),
                    **problems_of(404, *READING),
                },
                [
                    _DESTINATION,
                    query(
                        "limit",
                        "Most changes.",
                        {"type": "integer", "minimum": 1, "maximum": 200, "default": 20},
                    ),
                ],
            ),
            "post": operation(
                "destinations",
                "setCircuit",
                "Open or close them by hand",
                f"`open` sends nothing for `seconds` (default {DEFAULT_SECONDS:g}, at most {MOST_SECONDS:g}) and then "
                "lets a few calls try; `closed` sends at once, whatever was open, the CRM's circuit too. Told "
                "twice, the last word counts. Needs the scope `admin`.",
                {
                    "200": answer_of("The destination.", ref("Destination"), examples.DESTINATION),
                    **problems_of(400, 401, 403, 404, 406, 408, 413, 415, 429, 503),
                },
                [_DESTINATION],
                requestBody={
                    "required": True,
                    "content": {
                        JSON: {"schema": ref("CircuitOrder"), "example": {"state": "open", "seconds": 600}}
                    },
                },
            ),
        }
    }
