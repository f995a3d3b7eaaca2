"""`GET /v1/version`: which release answers."""

from __future__ import annotations

import msgspec

from app.auth.authorization import FOLLOWING
from app.http.operation import Answer, operation
from app.release import read_version as read_release


class Release(msgspec.Struct):
    """The release of Tranche that answers."""

    version: str


@operation("GET", "/v1/version", tag="health", access=FOLLOWING, answers=Answer("The release of Tranche."))
async def read_version() -> Release:
    """Which release answers."""
    return Release(read_release())
