"""API keys and tenants: the operations of those who decide who may do what."""

from __future__ import annotations

from typing import Any, Final

from app.http import api_keys, tenants
from app.http.headers import JSON
from app.http.openapi.parts import READING, REQUEST_ID, answer_of, headers, operation, path, problems_of
from app.http.openapi.schemas import ref

TAG: Final = "keys"
_WRITING: Final = (400, 401, 403, 406, 408, 413, 415, 503)
_KEY_ID: Final = path("key_id", "The key.", {"type": "string", "minLength": 1}, "3f9a5c01d2e4")
_NAME: Final = path("name", "The tenant.", {"type": "string", "minLength": 1}, "acme")
_ADMIN: Final = " Needs the scope `admin`."
_OPERATOR: Final = " Needs the operator's token (TRANCHE_OPERATOR_TOKEN) in place of an API key."

_KEY: Final[dict[str, Any]] = {
    "tenant": "acme",
    "key_id": "3f9a5c01d2e4",
    "name": "nightly import",
    "scopes": ["import"],
    "created_at": "2026-01-14T08:00:00Z",
    "expires_at": "2027-01-14T00:00:00Z",
    "last_used_at": "2026-01-15T03:00:07Z",
    "revoked_at": None,
    "previous_until": None,
}
_SECRET: Final = _KEY | {"last_used_at": None, "key": "trn_0000aB3xK9mQ2vT7yL4nW8pR5sD1fG6hJ0kZcXvBnM9qWe"}
_NEW: Final = {"name": "nightly import", "scopes": ["import"], "expires_at": "2027-01-14T00:00:00Z"}
_TENANT: Final[dict[str, Any]] = {
    "name": "acme",
    "created_at": "2026-01-14T07:55:00Z",
    "disabled_at": None,
    "keys": 2,
}


def make_paths() -> dict[str, Any]:
    one = api_keys.PATH + "/{key_id}"
    tenant = tenants.PATH + "/{name}"
    return {
        api_keys.PATH: {"get": _list(), "post": _create()},
        one: {"get": _read(), "patch": _change(), "delete": _revoke()},
        f"{one}/rotate": {"post": _rotate()},
        tenants.PATH: {"get": _list_tenants(), "post": _create_tenant()},
        tenant: {"get": _read_tenant(), "patch": _change_tenant()},
        f"{tenant}/keys": {"post": _create_tenant_key()},
    }


def _body(name: str, example: Any, *, required: bool = True) -> dict[str, Any]:
    return {"required": required, "content": {JSON: {"schema": ref(name), "example": example}}}


def _kept(**names: str) -> dict[str, Any]:
    return headers(Cache_Control="CacheControl", **names)


def _list() -> dict[str, Any]:
    return operation(
        TAG,
        "listKeys",
        "The tenant's API keys",
        "Revoked ones too, and when each was last used, to about a minute. Secrets are never shown." + _ADMIN,
        {
            "200": answer_of("All of them, oldest first.", ref("KeyList"), {"keys": [_KEY]}, _kept()),
            **problems_of(*READING),
        },
    )


def _create() -> dict[str, Any]:
    return operation(
        TAG,
        "createKey",
        "Make an API key",
        "A key with the scope `import` alone sees, cancels, retries and undoes only the jobs that it asked for; `read` "
        "lets it see everything of the tenant, `admin` change everything. This answer alone shows the key."
        + _ADMIN,
        {
            "201": answer_of("The new key.", ref("KeySecret"), _SECRET, _kept(Location="Location")),
            **problems_of(*_WRITING),
        },
        requestBody=_body("NewKey", _NEW),
    )


def _read() -> dict[str, Any]:
    return operation(
        TAG,
        "readKey",
        "One API key",
        _ADMIN.strip(),
        {"200": answer_of("The key.", ref("Key"), _KEY, _kept()), **problems_of(404, *READING)},
        [_KEY_ID],
    )


def _change() -> dict[str, Any]:
    return operation(
        TAG,
        "changeKey",
        "Change a key's name or expiry",
        "`expires_at: null`: it never expires." + _ADMIN,
        {"200": answer_of("The key.", ref("Key"), _KEY, _kept()), **problems_of(404, *_WRITING)},
        [_KEY_ID],
        requestBody=_body("KeyChange", {"expires_at": None}),
    )


def _revoke() -> dict[str, Any]:
    return operation(
        TAG,
        "revokeKey",
        "Revoke an API key",
        "It is refused from now on, for good; its event streams end." + _ADMIN,
        {
            "204": {"description": "It is revoked.", "headers": REQUEST_ID},
            **problems_of(404, *READING),
        },
        [_KEY_ID],
    )


def _rotate() -> dict[str, Any]:
    return operation(
        TAG,
        "rotateKey",
        "Renew the secret of an API key",
        "The key id, its name, scopes and jobs stay. For `keep_seconds` (a day by default) the key before is good as "
        "well, so that clients can be changed one after the other." + _ADMIN,
        {
            "200": answer_of("The renewed key.", ref("KeySecret"), _SECRET, _kept()),
            **problems_of(404, *_WRITING),
        },
        [_KEY_ID],
        requestBody=_body("KeyRotation", {"keep_seconds": 3600}, required=False),
    )


def _list_tenants() -> dict[str, Any]:
    return operation(
        TAG,
        "listTenants",
        "All tenants",
        _OPERATOR.strip(),
        {
            "200": answer_of("All of them, by name.", ref("TenantList"), {"tenants": [_TENANT]}, _kept()),
            **problems_of(*READING),
        },
    )


def _create_tenant() -> dict[str, Any]:
    return operation(
        TAG,
        "createTenant",
        "Make a tenant",
        "It has no key yet: make one at `…/keys`." + _OPERATOR,
        {
            "201": answer_of("The new tenant.", ref("Tenant"), _TENANT, _kept(Location="Location")),
            **problems_of(409, *_WRITING),
        },
        requestBody=_body("NewTenant", {"name": "acme"}),
    )


def _read_tenant() -> dict[str, Any]:
    return operation(
        TAG,
        "readTenant",
        "One tenant",
        _OPERATOR.strip(),
        {"200": answer_of("The tenant.", ref("Tenant"), _TENANT, _kept()), **problems_of(404, *READING)},
        [_NAME],
    )


def _change_tenant() -> dict[str, Any]:
    return operation(
        TAG,
        "changeTenant",
        "Disable a tenant, or enable it again",
        "While it is disabled its keys are refused with 403 `TENANT_DISABLED`, and nothing of it is processed or sent. "
        "Nothing is lost: everything goes on once it is enabled." + _OPERATOR,
        {"200": answer_of("The tenant.", ref("Tenant"), _TENANT, _kept()), **problems_of(404, *_WRITING)},
        [_NAME],
        requestBody=_body("TenantChange", {"disabled": True}),
    )


def _create_tenant_key() -> dict[str, Any]:
    return operation(
        TAG,
        "createTenantKey",
        "Make an API key of a tenant",
        "A first one with the scope `admin` can make the others itself." + _OPERATOR,
        {
            "201": answer_of("The new key.", ref("KeySecret"), _SECRET, _kept(Location="Location")),
            **problems_of(404, *_WRITING),
        },
        [_NAME],
        requestBody=_body("NewKey", _NEW),
    )
