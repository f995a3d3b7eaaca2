"""The numbers of PostgreSQL's advisory locks."""

import hashlib


def lock_number(tenant_id: int, route: str, key: str) -> int:
    """Of a request under an idempotency key."""
    digest = hashlib.blake2b(f"{tenant_id}\0{route}\0{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
