"""Who calls."""

import msgspec


class Principal(msgspec.Struct, frozen=True):
    """The holder of an API key of a tenant."""

    tenant_id: int
    key_id: str
    scopes: frozenset[str]
