"""`/v1/keys`: the API keys of a tenant. A secret is shown once, when it is made."""

from functools import partial
from typing import Annotated, Final

import msgspec

from app.auth import service
from app.auth.authorization import ADMIN
from app.auth.principals import key_scope
from app.auth.queries import Key
from app.auth.service import KeyChange, NewKey
from app.http.operation import Answer, Path, Reply, operation
from app.http.principal import Principal
from app.kit.postgres.database import Connection
from app.kit.snapshots import Snapshots

PATH: Final = "/v1/keys"
_KEY: Final = PATH + "/{key_id}"
_operation: Final = partial(operation, tag="keys", access=ADMIN)
_NO_STORE: Final = "no-store"

KeyId = Annotated[str, Path(description="The key.", schema={"type": "string", "minLength": 1}, example="3f9a5c01d2e4")]


class KeyList(msgspec.Struct):
    """The keys of the tenant, oldest first; revoked ones too."""

    keys: list[Key]


class KeySecret(Key, frozen=True, kw_only=True):
    """A key with its secret, which is shown this once."""

    key: str


class KeyRotation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a key is renewed."""

    keep_seconds: Annotated[float, msgspec.Meta(ge=0, le=service.MOST_KEEP_SECONDS)] = service.KEEP_SECONDS
    """For how long the secret before is good as well."""


def show_secret(key: Key, secret: str) -> KeySecret:
    return KeySecret(**msgspec.structs.asdict(key), key=secret)


@_operation("GET", PATH, answers=Answer("All of them, oldest first.", cache=_NO_STORE))
async def list_keys(principal: Principal, connection: Connection) -> KeyList:
    """The tenant's API keys.

    Also revoked ones, with their last use to about a minute. Secrets are never shown.
    """
    return KeyList(await service.list_keys(connection, principal.tenant_id))


@_operation("POST", PATH, answers=Answer("The new key.", 201, headers=("Location",), cache=_NO_STORE), keyed=True)
async def create_key(body: NewKey, principal: Principal, connection: Connection) -> Reply[KeySecret]:
    """Create an API key.

    A key with only the scope `import` sees, cancels, retries and undoes the jobs that it requested. `read` allows
    reading everything of the tenant, `admin` changing everything. Only this answer shows the key.
    """
    key_id, secret = await service.add_key(connection, principal.tenant_id, body, actor=principal.key_id)
    made = await service.read_key(connection, principal.tenant_id, key_id)
    return Reply(show_secret(made, secret), 201, {"Location": f"{PATH}/{key_id}"})


@_operation("GET", _KEY, answers=Answer("The key.", cache=_NO_STORE))
async def read_key(key_id: KeyId, principal: Principal, connection: Connection) -> Key:
    """One API key."""
    return await service.read_key(connection, principal.tenant_id, key_id)


@_operation("PATCH", _KEY, answers=Answer("The key.", cache=_NO_STORE))
async def change_key(
    key_id: KeyId, body: KeyChange, principal: Principal, connection: Connection, snapshots: Snapshots
) -> Key:
    """Change a key's name, expiry or limits.

    `expires_at: null`: it never expires. A limit that is null is the default of the service.
    """
    changed = await service.change_key(connection, principal.tenant_id, key_id, body, actor=principal.key_id)
    await snapshots.void(key_scope(principal.tenant_id, key_id))
    return changed


@_operation("DELETE", _KEY, answers=Answer("It is revoked.", 204))
async def revoke_key(key_id: KeyId, principal: Principal, connection: Connection, snapshots: Snapshots) -> None:
    """Revoke an API key.

    It is refused from now on, permanently; its event streams end.
    """
    await service.end_key(connection, principal.tenant_id, key_id, actor=principal.key_id)
    await snapshots.void(key_scope(principal.tenant_id, key_id))


@_operation("POST", _KEY + "/rotate", answers=Answer("The renewed key.", cache=_NO_STORE), keyed=True)
async def rotate_key(
    key_id: KeyId, body: KeyRotation | None, principal: Principal, connection: Connection, snapshots: Snapshots
) -> KeySecret:
    """Renew the secret of an API key.

    The key id, name, scopes and jobs remain. For `keep_seconds` (a day by default) the previous key remains valid, so
    that clients can be changed one after the other.
    """
    keep = (body or KeyRotation()).keep_seconds
    secret = await service.rotate_key(connection, principal.tenant_id, key_id, keep=keep, actor=principal.key_id)
    await snapshots.void(key_scope(principal.tenant_id, key_id))
    return show_secret(await service.read_key(connection, principal.tenant_id, key_id), secret)
