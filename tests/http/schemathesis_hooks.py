"""Loaded by schemathesis, which cannot compress a body as the header it makes up would say."""

from __future__ import annotations

from typing import Any

import schemathesis


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: Any) -> None:
    if case.headers:
        case.headers.pop("Content-Encoding", None)
