"""Contacts on their whole way into a table that is set up as docs/destinations-postgres.md says."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import msgspec
import pytest

from app.destinations import service
from app.destinations.credentials import BasicCredentials
from app.destinations.testing.rules import Verdict
from app.embedded import Engines
from app.kit.encryption import Vault
from jobs.worker import working
from tests.conftest import LOOPBACK, new_database
from tests.contract.postgres import Proxy
from tests.jobs.conftest import World, people
from tests.jobs.delivery.test_destination_tester import run
from tests.jobs.delivery.test_types import declare
from tests.jobs.sagas.test_undo import ask

PAGE = Path(__file__).parents[3] / "docs" / "destinations-postgres.md"
SETUP = re.findall(r"```sql\n(.*?)```", PAGE.read_text(), re.DOTALL)[0]
OPTIONS = dict(re.findall(r"--option (\w+)=([\w.]+)", PAGE.read_text().partition("```\n\nThe test")[0]))


class Target:
    """A database of a tenant's own, behind a proxy that can lose answers."""

    def __init__(self, owner: asyncpg.Connection, proxy: Proxy, database: str) -> None:
        self.owner = owner
        self.proxy = proxy
        self._database = database

    async def rows(self, table: str = "crm.contacts") -> dict[str, dict[str, Any]]:
        found = [dict(row) for row in await self.owner.fetch(f"SELECT * FROM {table}")]
        return {row["id"]: row for row in found}

    async def add(self, world: World, **changes: Any) -> None:
        """In place of the destination that every world has."""
        new = service.NewDestination(
            name="warehouse",
            kind="postgres",
            base_url=f"postgresql://127.0.0.1:{self.proxy.port}/{self._database}",
            credentials=BasicCredentials(username="tranche_sync", password="choose-one"),
            options=OPTIONS | changes.pop("options", {}),
            **changes,
        )
        async with world.database.connection() as connection:
            await service.set_destination_state(connection, world.tenant_id, "hubspot", "removed")
            vault = Vault(world.settings.secret_key)
            await service.add_destination(connection, vault, world.tenant_id, new, private=LOOPBACK)


@asynccontextmanager
async def open_target(engines: Engines) -> AsyncIterator[Target]:
    async with new_database(engines) as url:
        parts = urlsplit(url)
        owner = await asyncpg.connect(url)
        proxy = Proxy(str(parts.hostname), parts.port or 5432)
        await owner.execute(SETUP)
        await proxy.start()
        try:
            yield Target(owner, proxy, parts.path.strip("/"))
        finally:
            await proxy.stop()
            await owner.execute("DROP OWNED BY tranche_sync; DROP ROLE tranche_sync")
            await owner.close()


@pytest.fixture
async def target(engines: Engines) -> AsyncIterator[Target]:
    async with open_target(engines) as target:
        yield target


async def test_a_batch_arrives_once_although_an_answer_is_lost(world: World, target: Target) -> None:
    assert OPTIONS == {"table": "crm.contacts", "attributes_column": "attributes", "version_column": "version"}
    await target.add(world, options={"batch_size": 20})
    world.settings = msgspec.structs.replace(world.settings, chunk_size=50)
    target.proxy.faults = {"accept_then_drop": {"times": 1}, "drop_before": {"times": 1}}
    async with working(world.settings):
        items = people(120, last_name="Łovelace", attributes={"plan": "gold", "seats": 3})
        answer = await world.push(items)
        assert await world.finished(answer.job_id) == "completed"
    rows = await target.rows()
    assert set(rows) == {f"c{i:05}" for i in range(120)}
    assert {row["last_name"] for row in rows.values()} == {"Łovelace"}
    assert {row["attributes"] for row in rows.values()} == {'{"plan": "gold", "seats": 3}'}
    faults = [fault for call in target.proxy.calls for fault in call["faults"]]
    assert sorted(faults) == ["accept_then_drop", "drop_before"]
    assert {call["on"] for call in target.proxy.calls} == {"write", "read"}


async def test_a_bad_row_is_a_dead_letter_in_the_words_of_postgresql(world: World, target: Target) -> None:
    await target.owner.execute("ALTER TABLE crm.contacts ADD CONSTRAINT no_acme CHECK (company <> 'ACME')")
    await target.add(world)
    async with working(world.settings):
        answer = await world.push(people(9, company="Fine") + people(1, start=9, company="ACME"))
        assert await world.finished(answer.job_id) == "completed_with_failures"
    assert len(await target.rows()) == 9
    [letter] = await world.rows("SELECT record_id, error_code, error_detail FROM dead_letters")
    assert (letter["record_id"], letter["error_code"]) == ("c00009", "DESTINATION_REJECTED")
    assert "no_acme" in letter["error_detail"]


async def test_what_is_changed_deleted_and_undone_here_is_so_there(world: World, target: Target) -> None:
    await target.add(world)
    await target.owner.execute("INSERT INTO crm.contacts (id, email, phone) VALUES ('c00000', 'old@x.org', '040')")
    async with working(world.settings):
        first = await world.push(people(3, company="ACME"))
        assert await world.finished(first.job_id) == "completed"
        rows = await target.rows()
        assert (rows["c00000"]["company"], rows["c00000"]["phone"]) == ("ACME", "040")
        gone = await world.push([{"id": "c00002", "deleted": True}])
        assert await world.finished(gone.job_id) == "completed"
        assert set(await target.rows()) == {"c00000", "c00001"}
        undone = await ask(world, first.job_id)
        await world.finished(undone)
    assert set(await target.rows()) == {"c00000"}, "the row that was there before is not ours to remove"


async def test_a_missing_right_holds_the_destination_until_it_is_granted(world: World, target: Target) -> None:
    await target.add(world)
    await target.owner.execute("REVOKE INSERT ON crm.contacts FROM tranche_sync")
    async with working(world.settings):
        answer = await world.push(people(5))
        async with asyncio.timeout(30):
            while True:
                async with world.database.connection() as connection:
                    [found] = [
                        d for d in await service.list_destinations(connection, world.tenant_id) if d.name == "warehouse"
                    ]
                if "GRANT" in (found.circuit.detail or found.detail or ""):
                    break
                await asyncio.sleep(0.05)
        await target.owner.execute("GRANT INSERT ON crm.contacts TO tranche_sync")
        assert await world.finished(answer.job_id) == "completed"
    assert len(await target.rows()) == 5


async def test_a_canary_is_written_read_back_and_taken_away(world: World, target: Target) -> None:
    await target.add(world)
    found = await run(world, name="warehouse")
    assert found.verdict is Verdict.WORKS, found.steps
    steps = ["connect", "table", "columns", "write", "remove", "read", "write", "read back", "take away", "gone"]
    assert [step.name for step in found.steps] == steps
    assert await target.rows() == {}


async def test_each_type_that_goes_there_is_tested(world: World, target: Target) -> None:
    lines = {
        "schema": {"properties": {"title": {"type": "string"}, "due": {"type": "string", "format": "date"}}},
        "destinations": {"warehouse": {"table": "crm.order_lines"}},
    }
    await target.add(world)
    resource, catalog = await declare(world, "order-lines", **lines)
    found = await run(world, name="warehouse")
    assert found.verdict is Verdict.FAILS
    assert 'no table "crm"."order_lines"' in next(s.detail for s in found.steps if s.name == "order-lines: table")
    await target.owner.execute(
        """CREATE TABLE crm.order_lines (id text PRIMARY KEY, title text, due date, attributes jsonb, version bigint);
        GRANT SELECT, INSERT, UPDATE, DELETE ON crm.order_lines TO tranche_sync"""
    )
    found = await run(world, name="warehouse")
    assert found.verdict is Verdict.WORKS, found.steps
    async with working(world.settings):
        answer = await world.push([{"id": "l1", "title": "x", "due": "2026-03-31"}], resource, catalog)
        assert await world.finished(answer.job_id) == "completed"
    assert str((await target.rows("crm.order_lines"))["l1"]["due"]) == "2026-03-31"
