"""Who calls."""

from datetime import datetime

import msgspec


class Principal(msgspec.Struct, frozen=True):
    """The holder of an API key of a tenant."""

    tenant_id: int
    key_id: str
    scopes: frozenset[str]
    expires_at: datetime | None = None
    """When the key does."""
