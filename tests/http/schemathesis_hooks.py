"""Loaded by schemathesis, which cannot compress a body as the header it makes up would say, nor write files."""

from __future__ import annotations

from typing import Any

import schemathesis


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: Any) -> None:
    if case.headers:
        case.headers.pop("Content-Encoding", None)


@schemathesis.serializer("text/csv", "application/x-ndjson")
def write_file(_context: Any, value: Any) -> bytes:
    """Text as it is; anything else in the words of Python, which is a sorry file."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
