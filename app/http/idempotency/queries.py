"""The queries of stored answers, typed."""

import msgspec

from app.kit.postgres.advisory_locks import lock_number
from app.kit.postgres.database import Connection
from app.kit.postgres.query import Query, Seconds


class RequestClaim(msgspec.Struct, frozen=True):
    """What is stored under an idempotency key."""

    claimed: bool
    """Nobody else is running this key now."""
    fingerprint: bytes | None
    """Of the request that was answered; None: the key is new."""
    status: int | None
    answer: bytes | None
    """Encrypted; None: it is no longer kept."""
    expired: bool


_claim_request = Query[[int, str, str, int], RequestClaim]("claim_request")
store_answer = Query[[int, str, str, bytes, int, bytes, Seconds], None]("store_answer")
"""(tenant_id, route, key, fingerprint, status, answer, retention)"""


async def claim_request(connection: Connection, tenant_id: int, route: str, key: str) -> RequestClaim:
    return await _claim_request(connection, tenant_id, route, key, lock_number(tenant_id, route, key))
