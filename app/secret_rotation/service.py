"""Which keys encrypt what is stored, and a new key for all of it.

Every secret is replaced by itself, in a transaction of its own and only if nobody changed it meanwhile: the rotation
can run beside the service, be ended at any moment, and be run again.
"""

from collections import Counter
from collections.abc import AsyncIterator
from typing import Final

import msgspec

from app.audit.queries import SYSTEM, write_audit
from app.auth import queries as auth_queries
from app.errors import SettingsError
from app.kit.encryption import DESTINATION, ERASURE_KEY, WEBHOOK_ENDPOINT, Vault
from app.kit.postgres.database import Connection
from app.secret_rotation import queries as rows
from app.secret_rotation.queries import Replace

OLDER: Final = "older form"
"""Of ciphertexts that do not name their key."""
_TRIES: Final = 3


class Unreadable(msgspec.Struct, frozen=True):
    """A secret that no key of ours opens."""

    tenant_id: int
    kind: str
    name: str
    key: str
    """Its id, or that it has the older form."""


class Rotation(msgspec.Struct, kw_only=True):
    """What `rotate` did."""

    key: str
    """The id of the key that encrypts everything now, but what is unreadable."""
    secrets: int = 0
    rotated: int = 0
    unreadable: list[Unreadable] = []


class KeyUse(msgspec.Struct, frozen=True):
    """How much one key encrypts."""

    key: str
    secrets: int
    known: bool
    """Whether `TRANCHE_SECRET_KEY` has it; of the older form that is not known."""
    encrypts: bool
    """Whether what is stored from now on is encrypted with it."""


class _Sealed(msgspec.Struct, frozen=True):
    tenant_id: int
    kind: str
    name: str
    address: str
    number: int
    sealed: bytes
    replace: Replace


async def rotate(connection: Connection, vault: Vault) -> Rotation:
    """Encrypt every secret with the first key."""
    done = Rotation(key=vault.key_ids[0])
    for tenant_id in await auth_queries.all_tenants(connection):
        rotated = 0
        for _ in range(_TRIES):
            left, unreadable, found = 0, [], 0
            async for secret in _sealed(connection, tenant_id):
                found += 1
                if vault.is_current(secret.sealed):
                    continue
                anew = _reseal(vault, secret)
                if anew is None:
                    unreadable.append(secret)
                elif await secret.replace(connection, secret.tenant_id, secret.number, secret.sealed, anew):
                    rotated += 1
                else:
                    left += 1  # somebody gave it another value meanwhile: it is looked at once more
            if not left:
                break
        done.secrets += found
        done.rotated += rotated
        done.unreadable += [Unreadable(x.tenant_id, x.kind, x.name, _key_of(vault, x)) for x in unreadable]
        if rotated:
            detail = {"rotated": rotated, "key": done.key}
            await write_audit(connection, tenant_id, SYSTEM, "secrets.rotate", "secrets", detail)
    return done


async def count(connection: Connection, vault: Vault) -> list[KeyUse]:
    """Every key of ours, the one that encrypts first, and then those that are not ours."""
    used: Counter[str] = Counter()
    for tenant_id in await auth_queries.all_tenants(connection):
        async for secret in _sealed(connection, tenant_id):
            used[_key_of(vault, secret)] += 1
    ours = vault.key_ids
    return [KeyUse(key, used[key], key in ours, key == ours[0]) for key in [*ours, *sorted(used.keys() - set(ours))]]


async def _sealed(connection: Connection, tenant_id: int) -> AsyncIterator[_Sealed]:
    for row in await rows.sealed_destinations(connection, tenant_id):
        place = (row.destination_id, row.credentials, rows.reseal_destination)
        yield _Sealed(tenant_id, DESTINATION, row.name, row.base_url, *place)
    if (sealed := await rows.sealed_erasure_key(connection, tenant_id)) is not None:
        yield _Sealed(tenant_id, ERASURE_KEY, "", "", 0, sealed, rows.reseal_erasure_key)
    for endpoint in await rows.sealed_endpoints(connection, tenant_id):
        number = endpoint.endpoint_id
        for secret, replace in (
            (endpoint.secret, rows.reseal_endpoint),
            (endpoint.previous_secret, rows.reseal_endpoint_before),
        ):
            if secret:
                yield _Sealed(tenant_id, WEBHOOK_ENDPOINT, str(number), "", number, secret, replace)


def _reseal(vault: Vault, secret: _Sealed) -> bytes | None:
    try:
        opened = vault.open(
            secret.sealed, tenant_id=secret.tenant_id, name=secret.name, kind=secret.kind, address=secret.address
        )
    except SettingsError:
        return None
    return vault.seal(opened, tenant_id=secret.tenant_id, name=secret.name, kind=secret.kind, address=secret.address)


def _key_of(vault: Vault, secret: _Sealed) -> str:
    return vault.key_of(secret.sealed) or OLDER
