"""A new key for everything that is encrypted, while it is used, and again after it was interrupted."""

from __future__ import annotations

import asyncpg
import pytest

from app.auth import service as auth_service
from app.destinations import service as destination_service
from app.errors import SettingsError
from app.kit.encryption import WEBHOOK_ENDPOINT, Vault
from app.secret_rotation import queries as rotation_queries
from app.secret_rotation import service as secret_rotation_service
from app.webhooks import service as webhook_service
from app.webhooks.rules import EndpointState
from tests.conftest import LOOPBACK
from tests.db.conftest import Desk
from tests.unit.kit.test_encryption import NEW, OLD, seal_older


async def furnish(desk: Desk, tenant: str) -> int:
    """A tenant with two destinations, the second one of an older release, and an endpoint with two secrets."""
    old = Vault(OLD)
    async with desk.database.connection() as connection:
        tenant_id = await auth_service.ensure_tenant(connection, tenant)
        for name in ("one", "two"):
            new = destination_service.NewDestination(
                name=name, kind="hubspot", base_url="http://127.0.0.1:9", token=f"pat-{tenant}-{name}"
            )
            await destination_service.add_destination(connection, old, tenant_id, new, private=LOOPBACK)
    sealed = seal_older(OLD, f"pat-{tenant}-two", tenant_id=tenant_id, name="two")
    await desk.execute(
        "UPDATE destinations SET credentials = $2 WHERE tenant_id = $1 AND name = 'two'", tenant_id, sealed
    )
    endpoint = webhook_service.NewWebhookEndpoint(url="https://example.com/hook")
    made = await webhook_service.add(desk.database, old, desk.settings, tenant_id, endpoint, actor="test")
    await webhook_service.rotate(desk.database, old, tenant_id, made.endpoint_id, keep=1000, actor="test")
    return tenant_id


async def opened(desk: Desk, vault: Vault, tenant_id: int) -> dict[str, str]:
    """Every destination's token."""
    rows = await desk.rows(
        "SELECT name, base_url, credentials FROM destinations WHERE tenant_id = $1 AND state <> 'removed'", tenant_id
    )
    return {
        row["name"]: vault.open(row["credentials"], tenant_id=tenant_id, name=row["name"], address=row["base_url"])
        for row in rows
    }


async def test_everything_is_under_the_new_key_and_says_the_same(desk: Desk) -> None:
    tenants = [await furnish(desk, name) for name in ("a", "b")]
    both, alone = Vault(f"{NEW},{OLD}"), Vault(NEW)
    before = await desk.rows("SELECT tenant_id, endpoint_id, secret, previous_secret FROM webhook_endpoints")
    async with desk.database.connection() as connection:
        uses = await secret_rotation_service.count(connection, both)
        assert [(use.key, use.secrets, use.known, use.encrypts) for use in uses] == [
            (both.key_ids[0], 0, True, True),
            (both.key_ids[1], 6, True, False),
            (secret_rotation_service.OLDER, 2, False, False),
        ]
        done = await secret_rotation_service.rotate(connection, both)
        assert (done.key, done.secrets, done.rotated, done.unreadable) == (alone.key_ids[0], 8, 8, [])
        again = await secret_rotation_service.rotate(connection, both)
        assert (again.secrets, again.rotated) == (8, 0)
    for tenant_id, name in zip(tenants, "ab", strict=True):
        assert await opened(desk, alone, tenant_id) == {"one": f"pat-{name}-one", "two": f"pat-{name}-two"}
    after = await desk.rows("SELECT tenant_id, endpoint_id, secret, previous_secret FROM webhook_endpoints")
    for old, new in zip(before, after, strict=True):
        for column in ("secret", "previous_secret"):
            context = {"tenant_id": old["tenant_id"], "name": str(old["endpoint_id"]), "kind": WEBHOOK_ENDPOINT}
            assert alone.open(new[column], **context, address="") == both.open(old[column], **context, address="")
    entries = await desk.rows("SELECT detail FROM audit_log WHERE action = 'secrets.rotate'")
    assert len(entries) == 2


async def test_what_no_key_opens_is_named_and_left_as_it_is(desk: Desk) -> None:
    tenant_id = await furnish(desk, "a")
    before = await desk.rows("SELECT credentials FROM destinations ORDER BY destination_id")
    async with desk.database.connection() as connection:
        done = await secret_rotation_service.rotate(connection, Vault(NEW))
    assert (done.secrets, done.rotated) == (4, 0)
    assert [(x.tenant_id, x.kind, x.name, x.key) for x in done.unreadable[:2]] == [
        (tenant_id, "destination", "one", Vault(OLD).key_ids[0]),
        (tenant_id, "destination", "two", secret_rotation_service.OLDER),
    ]
    assert await desk.rows("SELECT credentials FROM destinations ORDER BY destination_id") == before


async def test_a_token_that_changes_meanwhile_is_not_overwritten(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service gives it a new one between reading and writing; the new one counts, and gets the new key as well."""
    tenant_id = await furnish(desk, "a")
    both = Vault(f"{NEW},{OLD}")
    replace, changed = rotation_queries.reseal_destination, []

    async def late(connection: asyncpg.Connection, tenant: int, number: int, sealed: bytes, anew: bytes) -> bool:
        if not changed:
            changed.append(number)
            async with desk.database.connection() as other:
                change = destination_service.DestinationChange(token="pat-changed")
                await destination_service.change_destination(other, Vault(OLD), tenant_id, "one", change)
        return await replace(connection, tenant, number, sealed, anew)

    monkeypatch.setattr(rotation_queries, "reseal_destination", late)
    async with desk.database.connection() as connection:
        done = await secret_rotation_service.rotate(connection, both)
    assert (done.secrets, done.rotated, done.unreadable) == (4, 4, [])
    assert (await opened(desk, Vault(NEW), tenant_id))["one"] == "pat-changed"


async def test_a_row_whose_address_was_changed_in_the_database_gives_no_token_away(desk: Desk) -> None:
    tenant_id = await furnish(desk, "a")
    await desk.execute("UPDATE destinations SET base_url = 'https://evil.example' WHERE name = 'one'")
    with pytest.raises(SettingsError, match="another name, tenant or address"):
        await opened(desk, Vault(OLD), tenant_id)


async def test_what_is_removed_keeps_no_credentials(desk: Desk) -> None:
    tenant_id = await furnish(desk, "a")
    async with desk.database.connection() as connection:
        for name in ("one", "two"):
            await destination_service.set_destination_state(connection, tenant_id, name, "removed")
    (endpoint,) = await desk.rows("SELECT endpoint_id FROM webhook_endpoints")
    await webhook_service.remove(desk.database, tenant_id, endpoint["endpoint_id"], actor="test")
    assert await desk.rows("SELECT FROM webhook_endpoints WHERE state <> $1", EndpointState.REMOVED) == []
    async with desk.database.connection() as connection:
        assert (await secret_rotation_service.rotate(connection, Vault(NEW))).secrets == 0
