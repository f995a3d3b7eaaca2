"""Contacts on their whole way to destinations of every kind, through one worker."""

from __future__ import annotations

import aiohttp
import msgspec
import pytest

from app.destinations import service
from app.kit.encryption import Vault
from app.sandbox import ANY, KINDS, open_sandbox
from jobs.worker import working
from tests.conftest import LOOPBACK
from tests.jobs.conftest import Sandbox, World, people


@pytest.mark.parametrize("kind", sorted(KINDS))
async def test_a_batch_arrives_once_although_an_answer_is_lost_and_a_limit_met(world: World, kind: str) -> None:
    async with open_sandbox(kind, fields=[ANY]) as url, aiohttp.ClientSession() as session:
        sandbox = Sandbox(url, session)
        async with world.database.connection() as connection:
            await service.set_destination_state(connection, world.tenant_id, "hubspot", "removed")
            await service.add_destination(
                connection,
                Vault(world.settings.secret_key),
                world.tenant_id,
                service.NewDestination(
                    name="crm",
                    kind=kind,
                    base_url=url,
                    token="good",
                    options={**KINDS[kind]().options, "batch_size": 20, "fields": {"company": None}},
                ),
                private=LOOPBACK,
            )
        world.settings = msgspec.structs.replace(world.settings, chunk_size=50, reconcile_grace=0.2)
        await sandbox.misbehave(
            accept_then_drop={"times": 1, "on": "write"}, rate_limit={"times": 1, "retry_after": 0.5}
        )
        async with working(world.settings):
            answer = await world.push(people(120, last_name="Łovelace", company="stays at home"))
            assert await world.finished(answer.job_id) == "completed"

        effects = await sandbox.effects()
        assert {e["key"] for e in effects} == {f"c{i:05}" for i in range(120)}
        assert len([e for e in effects if e["changed"]]) == 120, "a contact was written twice"
        assert "stays at home" not in str(effects)
        assert max(c["n"] for c in await sandbox.calls()) == 20
