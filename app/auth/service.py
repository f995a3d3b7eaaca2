"""Tenants and their API keys: what the command line of an operator and the routes of an administrator share.

Every change is an entry of the tenant's audit log, in the same transaction.
"""

import hmac
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import msgspec

from app.audit.queries import OPERATOR, write_audit
from app.auth import queries as rows
from app.auth import tokens
from app.auth.queries import Key, LockedKey, SecretRow, Tenant
from app.errors import Invalid, NotFound, TenantDisabled, Unauthorized
from app.http.principal import Principal
from app.kit.postgres.database import Connection
from app.limits.policies import LimitsChange

SCOPES: Final = ("import", "read", "admin")
KEEP_SECONDS: Final = 86_400.0
"""For which the secret before a rotation stays good unless something else is asked for."""
MOST_KEEP_SECONDS: Final = 30 * 86_400
MOST_CAP: Final = 10_000
"""Pieces of work of a tenant in one worker."""
_TENANT: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_MOST_NAME: Final = 100
_NO_KEY: Final = "There is no such API key."
_EXPIRED: Final = (
    "This API key expired on {at:%Y-%m-%d %H:%M} UTC; an administrator makes another one or gives this one more time."
)
_NO_HASH: Final = bytes(32)
_DEFAULT_LIMITS: Final = LimitsChange()

list_tenants: Final = rows.list_tenants
list_keys: Final = rows.list_keys
find_good_keys: Final = rows.find_good_keys


class NewKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An API key to be made."""

    scopes: list[str]
    name: str = ""
    expires_at: datetime | None = None
    limits: LimitsChange = LimitsChange()


class KeyChange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What is to be different about an API key; absent leaves it as it is."""

    name: str | msgspec.UnsetType = msgspec.UNSET
    expires_at: datetime | msgspec.UnsetType | None = msgspec.UNSET
    """null: it never expires."""
    limits: LimitsChange = LimitsChange()


class TenantChange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What is to be different about a tenant; absent leaves it as it is."""

    disabled: bool | msgspec.UnsetType = msgspec.UNSET
    """While it is, its keys are refused, and nothing goes in or out."""
    limits: LimitsChange = LimitsChange()
    """What all its keys together may ask for."""
    weight: Annotated[float, msgspec.Meta(ge=0.01, le=100)] | msgspec.UnsetType = msgspec.UNSET
    """Its share of the workers, compared with other tenants', where several wait for them: 1 unless it is changed."""
    worker_cap: Annotated[int, msgspec.Meta(ge=1, le=MOST_CAP)] | msgspec.UnsetType | None = msgspec.UNSET
    """Most pieces of its work in progress at a time in one worker; null: as many as the worker does."""


async def ensure_tenant(connection: Connection, name: str, *, actor: str = OPERATOR) -> int:
    """The tenant of this name, made if it does not exist.

    Raises:
        Invalid: no tenant can have this name.
    """
    if not _TENANT.fullmatch(name):
        raise Invalid(f"{name!r} is not a valid tenant name: use a-z, 0-9, '-' and '_', at most 63 characters.")
    found = await rows.find_tenants(connection, name)
    if found:
        return found[0][0]
    async with connection.transaction():
        tenant_id = await rows.ensure_tenant(connection, name)
        await write_audit(connection, tenant_id, actor, "tenant.create", f"tenant:{name}")
    return tenant_id


async def find_tenant(connection: Connection, name: str | None) -> int:
    """The tenant of this name; without a name the only one there is.

    Raises:
        NotFound: there is none.
        Invalid: there are several, and none was named.
    """
    found = await rows.find_tenants(connection, name)
    if len(found) == 1:
        return found[0][0]
    if not found:
        which = "no tenant yet" if name is None else f"no tenant {name!r}"
        raise NotFound(f"There is {which}; make one with: tranche keys create --tenant NAME")
    names = ", ".join(name for _, name in found)
    raise Invalid(f"There are several tenants ({names}); choose one with --tenant.")


async def set_tenant_disabled(connection: Connection, name: str, disabled: bool, *, actor: str = OPERATOR) -> Tenant:
    """Disable a tenant, or enable it again; raises as `change_tenant` does."""
    return await change_tenant(connection, name, TenantChange(disabled=disabled), actor=actor)


async def change_tenant(connection: Connection, name: str, change: TenantChange, *, actor: str = OPERATOR) -> Tenant:
    """Disable a tenant or enable it again, change its limits or its share of the workers.

    While it is disabled its keys are refused, its streams end, and workers do nothing for it: nothing is lost,
    and all work continues once it is enabled.

    Raises:
        Invalid: nothing is to be changed.
        NotFound: there is no such tenant.
    """
    detail = _given(change)
    if not detail:
        raise Invalid("There is nothing to change: give disabled, limits, weight or worker_cap.")
    disabled = detail.pop("disabled", None)
    async with connection.transaction():
        tenant_id = await rows.change_tenant(
            connection,
            name,
            disabled,
            datetime.now(UTC),
            change.limits,
            detail.get("weight"),
            "worker_cap" in detail,
            detail.get("worker_cap"),
        )
        if tenant_id is None:
            raise NotFound(f"There is no tenant {name!r}; `tranche tenants list` shows them.")
        if disabled is not None:
            word = "tenant.disable" if disabled else "tenant.enable"
            await write_audit(connection, tenant_id, actor, word, f"tenant:{name}")
        if detail:
            await write_audit(connection, tenant_id, actor, "tenant.change", f"tenant:{name}", detail)
        return (await rows.list_tenants(connection, name))[0]


async def create_key(
    connection: Connection,
    tenant: str,
    scopes: list[str],
    *,
    name: str = "",
    expires_at: datetime | None = None,
    limits: LimitsChange = _DEFAULT_LIMITS,
    actor: str = OPERATOR,
) -> str:
    """A new API key of the tenant of this name, which is made if it does not exist; the secret is stored nowhere.

    Raises:
        Invalid: a scope, the name or the expiry cannot be used.
    """
    new = NewKey(scopes=scopes, name=name, expires_at=expires_at, limits=limits)
    _check(new)
    tenant_id = await ensure_tenant(connection, tenant, actor=actor)
    _, secret = await add_key(connection, tenant_id, new, actor=actor)
    return secret


async def add_key(connection: Connection, tenant_id: int, new: NewKey, *, actor: str) -> tuple[str, str]:
    """A new API key: its id, and the whole of it, which is stored nowhere.

    Raises:
        Invalid: a scope, the name or the expiry cannot be used.
    """
    _check(new)
    secret, token = tokens.make(tenant_id, os.urandom(tokens.ID_BYTES), os.urandom(tokens.SECRET_BYTES))
    ordered = [scope for scope in SCOPES if scope in new.scopes]
    async with connection.transaction():
        await rows.insert_key(
            connection,
            tenant_id,
            token.key_id,
            token.secret_hash,
            ordered,
            new.name.strip(),
            new.expires_at,
            new.limits,
        )
        detail = {"scopes": ordered, "name": new.name.strip(), "expires_at": new.expires_at, "limits": new.limits}
        await write_audit(connection, tenant_id, actor, "key.create", f"key:{token.key_id}", detail)
    return token.key_id, secret


async def read_key(connection: Connection, tenant_id: int, key_id: str) -> Key:
    """
    Raises:
        NotFound: the tenant has no such key.
    """
    found = await rows.list_keys(connection, tenant_id, key_id)
    if not found:
        raise NotFound(_NO_KEY)
    return found[0]


async def find_key(connection: Connection, key: str) -> tuple[int, str]:
    """Tenant and id of a key that an operator names by its id or by the key itself.

    Raises:
        NotFound: there is no such key.
    """
    parsed = tokens.parse(key)
    key_id = parsed.key_id if parsed else key
    tenant_id = await rows.find_key_owner(connection, key_id)
    if tenant_id is None:
        raise NotFound(f"There is no key {key[:16]!r}; `tranche keys list` shows them.")
    return tenant_id, key_id


async def revoke_key(connection: Connection, key: str) -> str:
    """Revoke a key that an operator names by its id or by itself; returns the id.

    Raises:
        NotFound: there is no such key.
    """
    tenant_id, key_id = await find_key(connection, key)
    await end_key(connection, tenant_id, key_id, actor=OPERATOR)
    return key_id


async def end_key(connection: Connection, tenant_id: int, key_id: str, *, actor: str) -> None:
    """Revoke a key for good; asked twice, the first time counts.

    Raises:
        NotFound: the tenant has no such key.
    """
    async with connection.transaction():
        if (await _lock(connection, tenant_id, key_id)).revoked:
            return
        await rows.revoke_key(connection, tenant_id, key_id, datetime.now(UTC))
        await write_audit(connection, tenant_id, actor, "key.revoke", f"key:{key_id}")


async def change_key(connection: Connection, tenant_id: int, key_id: str, change: KeyChange, *, actor: str) -> Key:
    """Change the name, the expiry or the limits of a key.

    Raises:
        Invalid: a value cannot be used, or nothing is to be changed.
        NotFound: the tenant has no such key, or it is revoked.
    """
    detail = _given(change)
    if not detail:
        raise Invalid("There is nothing to change: give a name, expires_at or limits.")
    name = None if change.name is msgspec.UNSET else _check_name(change.name).strip()
    ends = None if change.expires_at is msgspec.UNSET else _check_expiry(change.expires_at)
    async with connection.transaction():
        if (await _lock(connection, tenant_id, key_id)).revoked:
            raise NotFound("This API key is revoked; make another one.")
        given = change.expires_at is not msgspec.UNSET
        await rows.change_key(connection, tenant_id, key_id, name, given, ends, change.limits)
        await write_audit(connection, tenant_id, actor, "key.change", f"key:{key_id}", detail)
        return await read_key(connection, tenant_id, key_id)


async def rotate_key(
    connection: Connection, tenant_id: int, key_id: str, *, keep: float = KEEP_SECONDS, actor: str
) -> str:
    """Renew a key's secret; returns the new key. For `keep` seconds the one before is good as well.

    The key id stays, and with it name, scopes and the jobs that it may follow.

    Raises:
        Invalid: `keep` makes no sense.
        NotFound: the tenant has no such key, or it is revoked or expired.
    """
    if not 0 <= keep <= MOST_KEEP_SECONDS:
        raise Invalid(f"keep_seconds: must be from 0 to {MOST_KEEP_SECONDS:g} (30 days).")
    async with connection.transaction():
        found = await _lock(connection, tenant_id, key_id)
        if found.revoked or found.expired:
            what = "revoked" if found.revoked else "expired"
            raise NotFound(f"This API key is {what}; make another one.")
        secret, token = tokens.make(tenant_id, bytes.fromhex(key_id), os.urandom(tokens.SECRET_BYTES))
        until = datetime.now(UTC) + timedelta(seconds=keep)
        await rows.rotate_key(connection, tenant_id, key_id, token.secret_hash, until)
        await write_audit(connection, tenant_id, actor, "key.rotate", f"key:{key_id}", {"keep_seconds": keep})
    return secret


async def authenticate(connection: Connection, secret: str) -> Principal | None:
    """Who holds this key, or the key of this session; `None` for an unknown or revoked one.

    Raises:
        Unauthorized: the key has expired.
        TenantDisabled: the key is good, but its tenant is disabled.
    """
    token = tokens.parse(secret)
    if token is None:
        return None
    find = rows.find_session if token.session else rows.find_key
    row = await find(connection, token.tenant_id, token.key_id)
    return _admit(
        token.tenant_id,
        row,
        lambda stored: hmac.compare_digest(stored, token.secret_hash),
        ended="This session has ended; sign in again." if token.session else _EXPIRED,
    )


async def find_principal(
    connection: Connection, tenant_id: int, key_id: str, proves: Callable[[bytes], bool]
) -> Principal | None:
    """The holder of a key, where what was sent `proves` that with the hash of its secret, or of the one before a
    rotation; `None`: there is no such key, or it is revoked, or nothing is proved.

    Raises:
        Unauthorized: the key has expired.
        TenantDisabled: the key is good, but its tenant is disabled.
    """
    return _admit(tenant_id, await rows.find_key(connection, tenant_id, key_id), proves)


def _admit(
    tenant_id: int, row: SecretRow | None, proves: Callable[[bytes], bool], *, ended: str = _EXPIRED
) -> Principal | None:
    # Compared in any case: an id that exists takes no longer than one that does not.
    current = proves(_NO_HASH if row is None else row.secret_hash)
    if row is None:
        return None
    previous = row.previous_hash is not None and proves(row.previous_hash)
    if not current and not previous:
        return None
    if row.expired:
        raise Unauthorized(ended.format(at=row.expires_at))
    if row.disabled:
        raise TenantDisabled()
    return Principal(
        tenant_id, row.key_id, frozenset(row.scopes), row.expires_at, row.limits, row.tenant_limits, row.weight
    )


async def note_uses(connection: Connection, uses: dict[tuple[int, str], datetime]) -> None:
    """Write down when keys (tenant, key id) were last used."""
    ordered = sorted(uses.items())
    await rows.note_key_uses(
        connection,
        [tenant_id for (tenant_id, _), _ in ordered],
        [key_id for (_, key_id), _ in ordered],
        [at for _, at in ordered],
    )


def _given(change: msgspec.Struct) -> dict[str, Any]:
    """What is to be different, by name."""
    return {name: value for name, value in msgspec.to_builtins(change).items() if value != {}}


def _check(new: NewKey) -> None:
    unknown = sorted(set(new.scopes) - set(SCOPES))
    if unknown or not new.scopes:
        raise Invalid(f"Scopes are {', '.join(SCOPES)}; not: {', '.join(unknown) or 'none at all'}.")
    _check_name(new.name)
    _check_expiry(new.expires_at)


def _check_name(name: str) -> str:
    if len(name.strip()) > _MOST_NAME or not (name.isprintable()):
        raise Invalid(f"name: at most {_MOST_NAME} printable characters.")
    return name


def _check_expiry(expires_at: datetime | None) -> datetime | None:
    if expires_at is None:
        return None
    if expires_at.tzinfo is None:
        raise Invalid("expires_at: give a time zone, as in 2027-01-31T00:00:00Z.")
    if expires_at <= datetime.now(UTC):
        raise Invalid("expires_at is in the past; to end a key now, revoke it.")
    return expires_at


async def _lock(connection: Connection, tenant_id: int, key_id: str) -> LockedKey:
    found = await rows.lock_key(connection, tenant_id, key_id)
    if found is None:
        raise NotFound(_NO_KEY)
    return found
