"""Jobs of Bulk API 2.0: they write what collections would write, and nothing before they are started."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from jobs.crm.port import BulkJob, BulkState, BulkWriter, Health, SentRecord
from tests.contract.conftest import Sandbox, contact, contacts, told
from tests.contract.test_salesforce import salesforce
from tests.types import sent


@pytest.fixture
def kind() -> str:
    return "salesforce"


@pytest.fixture
def bulk(session: aiohttp.ClientSession, sandbox: Sandbox) -> BulkWriter:
    made = salesforce(session, sandbox.url).bulk
    assert made is not None
    return made


async def ended(bulk: BulkWriter, task: str) -> BulkJob:
    async with asyncio.timeout(20):
        while (job := await bulk.look(task, told())).state is BulkState.RUNNING:
            await asyncio.sleep(0.05)
    return job


async def write(bulk: BulkWriter, records: list[SentRecord]) -> BulkJob:
    made = await bulk.create(records, told())
    assert made.task is not None, made.detail
    assert (await bulk.start(made.task, told())).state is BulkState.RUNNING
    assert (await ended(bulk, made.task)).state is BulkState.ENDED
    return await bulk.results(made.task, records, told())


async def test_a_job_writes_what_a_collection_would(
    session: aiohttp.ClientSession, sandbox: Sandbox, bulk: BulkWriter
) -> None:
    crm = salesforce(session, sandbox.url)
    await crm.push([contact("c0", phone="+49"), contact("c1", phone="+49")], told())
    records = [
        contact("c0", phone=None),  # cleared
        sent("c1", 2, email="new@example.org"),  # the phone is left alone
        contact("c2", company='say "hi",\nyou', attributes={"Größe": 3, "Plan": True, "Ratio": 1.5}),
    ]
    job = await write(bulk, records)
    assert {key: outcome.created for key, outcome in job.outcomes.items()} == {"c0": False, "c1": False, "c2": True}
    left = await crm.read_back([sent("c1", 1, phone="+49")], told())
    assert left.seen == {"c1": "matches"}
    back = await crm.read_back(records, told())
    assert back.seen is not None
    assert set(back.seen.values()) == {"matches"}, back.differences
    assert back.remote_ids == {key: outcome.remote_id for key, outcome in job.outcomes.items()}


async def test_who_is_refused_is_not_among_the_results(bulk: BulkWriter, sandbox: Sandbox) -> None:
    await sandbox.faults(reject={"keys": ["c1"]})
    job = await write(bulk, contacts(3))
    assert set(job.outcomes) == {"c0", "c2"}
    nameless = await write(bulk, [sent("n1", 1, email="n1@example.org")])
    assert nameless.outcomes == {}, "LastName is required"


async def test_a_field_that_is_not_there_fails_the_job(bulk: BulkWriter, sandbox: Sandbox) -> None:
    await sandbox.faults(missing_fields={"names": ["Phone"]})
    assert (await write(bulk, contacts(3))).outcomes == {}


async def test_nothing_is_written_before_the_start(bulk: BulkWriter, sandbox: Sandbox) -> None:
    made = await bulk.create(contacts(3), told())
    assert made.task is not None
    assert (await bulk.look(made.task, told())).state is BulkState.OPEN
    await asyncio.sleep(0.5)
    assert (await bulk.abort(made.task, told())).state is BulkState.ENDED
    assert (await bulk.results(made.task, contacts(3), told())).outcomes == {}
    assert await sandbox.effects() == []


async def test_a_call_that_fails_says_why(bulk: BulkWriter, sandbox: Sandbox) -> None:
    assert (await bulk.look("750000000000000AAA", told())).state is BulkState.GONE
    await sandbox.faults(status={"code": 503})
    job = await bulk.create(contacts(3), told())
    assert (job.task, job.state, job.health) == (None, None, Health.CRM_FAULT)
    await sandbox.faults(rate_limit={"retry_after": 7})
    job = await bulk.create(contacts(3), told())
    assert job.pause is not None


@pytest.mark.parametrize(
    ("record", "takes"),
    [
        (contact("c1"), True),
        (contact("c1", phone="#N/A"), False),
        (contact("c1", phone=""), False),
        (sent("c1", 2, deleted=True, remote_id="003"), False),
        (sent("c1", 2, adopted=True, remote_id="003"), False),
    ],
)
def test_what_one_cell_cannot_say_goes_by_a_collection(bulk: BulkWriter, record: SentRecord, takes: bool) -> None:
    assert bulk.takes(record) is takes


async def test_who_is_to_be_looked_for_goes_by_a_collection(session: aiohttp.ClientSession, sandbox: Sandbox) -> None:
    options: dict[str, Any] = {"match_on": "email"}
    bulk = salesforce(session, sandbox.url, **options).bulk
    assert bulk is not None
    assert not bulk.takes(contact("c1"))
    assert bulk.takes(contact("c1", remote_id="003000000000001AAA"))
    never = salesforce(session, sandbox.url, bulk_from=None).bulk
    assert never is not None
    assert never.least is None
