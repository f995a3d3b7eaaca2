"""The queries of what is encrypted at rest, typed."""

from collections.abc import Awaitable, Callable

import msgspec

from app.kit.postgres.database import Connection
from app.kit.postgres.query import Affected, Query

Replace = Callable[[Connection, int, int, bytes, bytes], Awaitable[int]]
"""(connection, tenant, row, what was read, what it becomes): 0 if it is not any more what was read."""


class DestinationSecret(msgspec.Struct, frozen=True):
    destination_id: int
    name: str
    base_url: str
    credentials: bytes


class EndpointSecrets(msgspec.Struct, frozen=True):
    endpoint_id: int
    secret: bytes
    """Empty before its own is made."""
    previous_secret: bytes | None


sealed_destinations = Query[[int], list[DestinationSecret]]("sealed_destinations")
sealed_endpoints = Query[[int], list[EndpointSecrets]]("sealed_endpoints")
sealed_erasure_key = Query[[int], bytes | None]("sealed_erasure_key")
reseal_erasure_key = Query[[int, int, bytes, bytes], Affected]("reseal_erasure_key")
reseal_destination = Query[[int, int, bytes, bytes], Affected]("reseal_destination")
"""(tenant_id, destination_id, sealed, anew)"""
reseal_endpoint = Query[[int, int, bytes, bytes], Affected]("reseal_endpoint")
"""(tenant_id, endpoint_id, sealed, anew)"""
reseal_endpoint_before = Query[[int, int, bytes, bytes], Affected]("reseal_endpoint_before")
"""(tenant_id, endpoint_id, sealed, anew)"""
