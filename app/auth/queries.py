"""The queries of tenants and their API keys, typed."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from app.kit.postgres.database import Connection
from app.kit.postgres.query import Json, Query, query
from app.limits.policies import Limits, LimitsChange


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    created_at: datetime
    disabled_at: datetime | None
    keys: int
    """That are neither revoked nor expired."""
    limits: Json[Limits]
    """What all its keys together may ask for."""
    weight: float
    """Its share of the workers, compared with other tenants', where several wait for them."""
    worker_cap: int | None
    """Most pieces of its work in progress at a time in one worker; null: as many as the worker does."""


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """An API key as it is shown; its secret never is."""

    tenant: str
    key_id: str
    name: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    """To about a minute."""
    revoked_at: datetime | None
    previous_until: datetime | None
    """Until then the secret before the last rotation is good as well."""
    limits: Json[Limits]


class SecretRow(msgspec.Struct, frozen=True):
    """What a key or a session is checked by, unless the key is revoked."""

    secret_hash: bytes
    previous_hash: bytes | None
    """That of the secret before a rotation, while that is good."""
    scopes: list[str]
    expires_at: datetime | None
    expired: bool
    disabled: bool
    """Its tenant is."""
    limits: Json[Limits]
    tenant_limits: Json[Limits]
    weight: float
    """Of its tenant beside others that wait as well."""
    key_id: str
    """The key, or the one that the session was opened with."""


class LockedKey(msgspec.Struct, frozen=True):
    revoked: bool
    expired: bool


find_tenants = Query[[str | None], list[tuple[int, str]]]("find_tenants")
"""(name) Id and name of the tenant of this name, or of all."""
all_tenants = Query[[], list[int]]("all_tenants")
tenant_shares = Query[[], list[tuple[int, float, int | None]]]("tenant_shares")
"""Tenant, weight and cap of those that have another share of the workers than everybody."""
ensure_tenant = Query[[str], int]("ensure_tenant")
"""(name)"""


@query
async def list_tenants(connection: Connection, name: str | None = None) -> list[Tenant]:
    """By name; of one name, or all."""


@query
async def change_tenant(
    connection: Connection,
    name: str,
    disabled: bool | None,
    at: datetime,
    limits: Json[LimitsChange],
    weight: float | None,
    capped: bool,
    worker_cap: int | None,
) -> int | None:
    """Its id; `None`: there is no such tenant.

    `disabled`, `weight`: `None` leaves it; `capped`: whether `worker_cap` is given.
    """


insert_key = Query[[int, str, bytes, Sequence[str], str, datetime | None, Json[LimitsChange]], None]("insert_key")
"""(tenant_id, key_id, secret_hash, scopes, name, expires_at, limits)"""
find_key = Query[[int, str], SecretRow | None]("find_key")
"""(tenant_id, key_id)"""
find_session = Query[[int, str], SecretRow | None]("find_session")
"""(tenant_id, session_id)"""
insert_session = Query[[int, str, str, bytes, datetime], None]("insert_session")
"""(tenant_id, session_id, key_id, secret_hash, expires_at)"""
delete_session = Query[[int, str], str | None]("delete_session")
"""(tenant_id, session_id) The key that it was opened with; `None`: there is no such session."""
delete_expired_sessions = Query[[int], None]("delete_expired_sessions")
"""(tenant_id)"""
_find_good_keys = Query[[list[int], list[str]], set[tuple[int, str]]]("find_good_keys")


async def find_good_keys(connection: Connection, keys: Sequence[tuple[int, str]]) -> set[tuple[int, str]]:
    """Those of `keys` (tenant and key id) that are neither revoked nor expired, and whose tenants are not disabled."""
    return await _find_good_keys(connection, [tenant for tenant, _ in keys], [key for _, key in keys])


@query
async def list_keys(connection: Connection, tenant_id: int | None, key_id: str | None = None) -> list[Key]:
    """Of one tenant, or of all of them; revoked ones too. `key_id`: this one alone."""


find_key_owner = Query[[str], int | None]("find_key_owner")
"""(key_id)"""
lock_key = Query[[int, str], LockedKey | None]("lock_key")
"""(tenant_id, key_id)"""
revoke_key = Query[[int, str, datetime], None]("revoke_key")
"""(tenant_id, key_id, at)"""
change_key = Query[[int, str, str | None, bool, datetime | None, Json[LimitsChange]], None]("change_key")
"""(tenant_id, key_id, name, expires, expires_at, limits)

`name`: `None` leaves it; `expires`: whether `expires_at` is given.
"""
rotate_key = Query[[int, str, bytes, datetime], None]("rotate_key")
"""(tenant_id, key_id, secret_hash, previous_until)"""
note_key_uses = Query[[list[int], list[str], list[datetime]], None]("note_key_uses")
"""(tenant_ids, key_ids, times)"""
