"""Another tenant at the same CRM, whose calls fail by no fault of the CRM: nobody else may feel it."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any, Final

import aiohttp
import msgspec

from app.auth import service as auth_service
from app.destinations import service as destination_service
from app.kit.encryption import Vault
from tests.chaos.plan import Neighbour
from tests.chaos.stage import OPTIONS, Stage, Tenant
from tests.conftest import LOOPBACK

ACCOUNT: Final = "neighbour"
"""At the sandbox, by its token."""
DESTINATIONS: Final = 4
"""Each with a circuit of its own, so that many of its calls fail before they are held back."""
_BURST: Final = 3
"""Imports at a time, each of one contact."""

_CALLS: Final = """SELECT d.destination_id, extract(epoch FROM c.sent_at)::float8 AS sent_at, c.status
    FROM delivery_calls c JOIN deliveries d USING (tenant_id, delivery_id)
    WHERE c.tenant_id = $1"""
_SHARED: Final = """SELECT c.destination_id, extract(epoch FROM c.at)::float8 AS at
    FROM circuit_changes c WHERE c.tenant_id = ANY ($1::int[]) AND c.circuit = 'crm' AND c.after = 'open'"""


class Next:
    """The neighbour of a round's tenant."""

    def __init__(self, stage: Stage, plan: Neighbour) -> None:
        self._stage = stage
        self._plan = plan
        self._key = ""
        self.tenant_id = 0

    async def move_in(self, tenant: Tenant) -> None:
        """At the very address of this tenant's destination, with an account of its own."""
        stage, crm = self._stage, self._plan.crm
        async with stage.database() as connection:
            name = f"next-to-{tenant.name}"[:63]
            self._key = await auth_service.create_key(connection, name, list(auth_service.SCOPES))
            self.tenant_id = await auth_service.find_tenant(connection, name)
            base_url = await connection.fetchval(
                "SELECT base_url FROM destinations WHERE tenant_id = $1 AND destination_id = $2",
                tenant.tenant_id,
                tenant.destinations[crm],
            )
            vault = Vault(stage.settings.secret_key)
            for number in range(DESTINATIONS):
                new = destination_service.NewDestination(
                    name=f"n{number}",
                    kind=stage.kinds[crm],
                    options=OPTIONS[stage.kinds[crm]],
                    base_url=base_url,
                    token=f"pat-chaos@{ACCOUNT}",
                )
                await destination_service.add_destination(connection, vault, self.tenant_id, new, private=LOOPBACK)

    async def misbehave(self, began: float) -> None:
        """Import into an account that is broken, and open and close circuits, at the times of the plan."""
        await self._stage.misbehave(self._plan.crm, "broken_account", {"account": ACCOUNT})
        deeds = [(at, "import") for at in self._plan.bursts] + [(at, "order") for at in self._plan.orders]
        for at, deed in sorted(deeds):
            await asyncio.sleep(max(0.0, began + at - time.monotonic()))
            with suppress(aiohttp.ClientError, OSError):
                await (self._import(at) if deed == "import" else self._order())

    async def _import(self, at: float) -> None:
        for n in range(_BURST):
            item = {"id": f"n{at}-{n}", "email": f"n{n}@example.com"}
            await self._ask("contacts:bulk", {"items": [item]}, {"Idempotency-Key": f"next-{at}-{n}"})

    async def _order(self) -> None:
        for state in ("open", "closed"):
            await self._ask("destinations/n0/circuit", {"state": state}, {})

    async def _ask(self, path: str, body: Any, headers: dict[str, str]) -> None:
        sent = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"} | headers
        url = f"{self._stage.url}/v1/{path}"
        async with self._stage.session.post(url, data=msgspec.json.encode(body), headers=sent) as answer:
            await answer.read()

    async def move_out(self) -> None:
        """Nothing of it is left to be done in the next round."""
        async with self._stage.database() as connection:
            for number in range(DESTINATIONS):
                await destination_service.set_destination_state(connection, self.tenant_id, f"n{number}", "removed")


async def evidence(stage: Stage, tenant: Tenant, near: Next | None) -> dict[str, list[dict[str, Any]]]:
    """What opened the circuits that tenants share, and the calls of this tenant that did not end well."""
    tenants = [tenant.tenant_id, *([near.tenant_id] if near else [])]
    async with stage.database() as connection:
        return {
            "shared_openings": [dict(row) for row in await connection.fetch(_SHARED, tenants)],
            "bad_calls": [dict(row) for row in await connection.fetch(_CALLS, tenant.tenant_id)],
        }
