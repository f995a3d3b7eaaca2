"""Who calls."""

from datetime import datetime

import msgspec

from app.limits.policies import NO_LIMITS, Limits


class Principal(msgspec.Struct, frozen=True):
    """The holder of an API key of a tenant."""

    tenant_id: int
    key_id: str
    scopes: frozenset[str]
    expires_at: datetime | None = None
    """When the key does."""
    limits: Limits = NO_LIMITS
    """Of the key, where they differ from the service's."""
    tenant_limits: Limits = NO_LIMITS
    weight: float = 1.0
    """Of its tenant beside others that wait as well."""
