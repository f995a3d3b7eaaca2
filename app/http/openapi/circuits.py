"""The circuit of a connection to a destination: how it is, and setting it by hand."""

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
                "The circuit of a destination",
                "That of this tenant's connection to it. An open one holds calls back, which spends no attempt; a "
                "half-open one lets a few calls try whether it works again. When calls of several tenants to one CRM "
                "fail, all calls to it are held back for a while: the destination then shows `CIRCUIT_OPEN` and the "
                "seconds. Needs the scope `read` or `admin`.",
                {
                    "200": answer_of(
                        "How it is, and how it changed.", ref("CircuitHistory"), examples.CIRCUIT
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
                "Open or close it by hand",
                f"`open` sends nothing for `seconds` (default {DEFAULT_SECONDS:g}, at most {MOST_SECONDS:g}) and then "
                "lets a few calls try; `closed` sends at once. It is this tenant's own circuit: what is held back for "
                "all tenants of a CRM is the operator's to release. Asked twice, the last order counts. Needs the "
                "scope `admin`.",
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
