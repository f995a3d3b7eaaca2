"""What a document says of itself that was answered while PostgreSQL was away."""

from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType

Stale = Annotated[
    bool | UnsetType,
    msgspec.Meta(description="`true`: PostgreSQL is away, and this is how it was `age_seconds` ago; absent: current."),
]
AgeSeconds = Annotated[int | UnsetType, msgspec.Meta(description="Only with `stale`: how old this is at the most.")]


class Freshness(msgspec.Struct, frozen=True, kw_only=True):
    """Base of documents that have no other."""

    stale: Stale = UNSET
    age_seconds: AgeSeconds = UNSET
