"""The queries of destinations as an administrator sees them, typed."""

from datetime import datetime
from typing import Any

import msgspec

from app.kit.postgres.query import Json, Query


class DestinationRow(msgspec.Struct, frozen=True):
    name: str
    kind: str
    base_url: str
    options: Json[dict[str, Any]]
    types: list[str] | None
    state: str
    created_at: datetime
    blocked_code: str | None
    blocked_detail: str | None
    blocked_for: float
    """Seconds; 0: it is not."""
    credentials: bytes
    """Sealed."""
    credentials_type: str
    access_expires_at: datetime | None
    verified_at: datetime | None
    unknown: int
    """Items whose answer was lost."""
    unknown_for: int
    """Seconds since the first of them became unknown."""
    pending: int
    """Items that wait to be sent."""
    pending_for: int
    """Seconds since the oldest of their deliveries was written."""
    more_pending: bool
    """There are more than were counted."""


class LockedDestination(msgspec.Struct, frozen=True):
    kind: str
    base_url: str
    options: Json[dict[str, Any]]
    types: list[str] | None


count_destinations = Query[[int], int]("count_destinations")
insert_destination = Query[[int, str, str, str, bytes, str, list[str] | None, str], None]("insert_destination")
"""(tenant_id, name, kind, base_url, credentials, options, types, credentials_type) `options`: JSON.

Raises:
    asyncpg.UniqueViolationError: the tenant has one of this name.
"""
list_destinations = Query[[int], list[DestinationRow]]("list_destinations")
lock_destination = Query[[int, str], LockedDestination | None]("lock_destination_options")
"""(tenant_id, name)"""
change_destination = Query[[int, str, bytes | None, str | None, str, bool, list[str] | None, str | None], int](
    "change_destination"
)
"""(tenant_id, name, credentials, options, actor, change_types, types, credentials_type)

Its id; `None` leaves credentials or options as they are.
"""
hasten_deliveries = Query[[int, int, bool], None]("hasten_deliveries")
"""(tenant_id, destination_id, untried)

What waits after an attempt is due now; with `untried` what nobody has tried as well.
"""
destination_kinds = Query[[int, list[str]], list[tuple[str, str]]]("destination_kinds")
"""(tenant_id, names) Names and kinds of those that there are."""
set_destination_state = Query[[int, str, str], int | None]("set_destination_state")
"""(tenant_id, name, state) Its id; `None`: there is no such destination."""
