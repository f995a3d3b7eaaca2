"""The queries of flow control, typed."""

from __future__ import annotations

from app.db.query import Query

lacks_place = Query[[int, int, int], bool]("lacks_place")
"""(tenant_id, destination_id, concurrency)

Something is due, but other workers have as many deliveries under way as the destination may have.
"""
owes = Query[[int, int], bool]("owes")
"""(tenant_id, destination_id) Something is to be sent to the destination, now or later, or is under way."""
