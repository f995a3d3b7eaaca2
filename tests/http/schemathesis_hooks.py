"""Loaded by schemathesis, which cannot compress a body as the header it makes up would say, nor write files.

It takes ids from earlier answers. What would end its own key is therefore sent for another one, or nothing after it
would be tried.
"""

from __future__ import annotations

import os
from typing import Any, Final

import schemathesis

from app.auth import tokens
from app.files.encoding import WORKBOOK

_KEY: Final = os.environ["TRANCHE_API_KEY"]
_PARSED: Final = tokens.parse(_KEY)
_OWN: Final = {"key_id": _PARSED.key_id if _PARSED else "", "name": "acme"}
_OTHER: Final = {"key_id": "0" * 12, "name": "another"}


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: Any) -> None:
    for name, own in _OWN.items():
        if case.path_parameters and case.path_parameters.get(name) == own and case.method != "GET":
            case.path_parameters[name] = _OTHER[name]
    if case.operation.path.startswith("/v1/tenants") and (case.headers or {}).get("Authorization") == f"Bearer {_KEY}":
        case.headers["Authorization"] = f"Bearer {os.environ['TRANCHE_OPERATOR_TOKEN']}"
    if case.headers:
        case.headers.pop("Content-Encoding", None)


@schemathesis.serializer("text/csv", "application/x-ndjson", WORKBOOK)
def write_file(_context: Any, value: Any) -> bytes:
    """Text as it is; anything else in the words of Python, which is a sorry file."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
