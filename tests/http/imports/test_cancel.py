"""`POST /v1/jobs/{id}/cancel`: what is not applied never will be, what is applied stays."""

from __future__ import annotations

import asyncio
import uuid

import asyncpg
import pytest

from app.auth import service as auth_service
from app.deliveries import queries as delivery_queries
from app.deliveries.queries import Record, Tried
from app.destinations import service as destination_service
from app.imports import processing_queries
from app.imports.cancel import queries as cancel_queries
from app.kit.encryption import Vault
from app.vocabulary.outcomes_wire import Summary
from tests.claims import claim_delivery
from tests.conftest import LOOPBACK, SECRET_KEY
from tests.http.conftest import Answer, Api, person
from tests.http.made_jobs import Db, make_job
from tests.stopwatch import stopwatch


async def cancel(api: Api, job_id: str) -> Answer:
    return await api.request("POST", f"/v1/jobs/{job_id}/cancel")


async def read_staged(db: Db, job_id: str) -> int:
    count: int = await db.fetchval("SELECT count(*) FROM staged_chunks WHERE job_id = $1", job_id)
    return count


@pytest.mark.parametrize(
    ("state", "items", "processed", "left"),
    [("receiving", None, 0, None), ("queued", 5_000, 0, 5_000), ("running", 5_000, 2_000, 3_000)],
)
async def test_a_canceled_job_tells_what_was_not_processed(
    api: Api, db: Db, state: str, items: int | None, processed: int, left: int | None
) -> None:
    since = 5.0 if processed else None
    job_id = await make_job(db, state, items=items, processed=processed, since=since, staged=3)
    other = await make_job(db, state, items=items, processed=processed, staged=2)
    before = await api.get(f"/v1/jobs/{job_id}")
    answer = await cancel(api, job_id)
    job = answer.json()
    assert (answer.status, job["state"]) == (200, "canceled")
    assert job["error"]["code"] == "CANCELED"
    assert job["finished_at"] is not None
    assert (job["progress"]["processed"], job["progress"]["not_processed"]) == (processed, left)
    assert job["summary"]["total"] == processed
    assert "Retry-After" not in answer.headers
    assert answer.headers["ETag"] != before.headers["ETag"]

    shown = await api.get(f"/v1/jobs/{job_id}")
    assert (shown.body, shown.headers["ETag"]) == (answer.body, answer.headers["ETag"])
    again = await cancel(api, job_id)
    assert (again.status, again.body, again.headers["ETag"]) == (200, answer.body, answer.headers["ETag"])
    assert await read_staged(db, job_id) == 0
    assert await read_staged(db, other) == 2
    assert (await api.get(f"/v1/jobs/{other}")).json()["state"] == state


@pytest.mark.parametrize(
    ("state", "word"),
    [("syncing", "pause or remove a destination"), ("completed", "nothing left"), ("failed", "failed already")],
)
async def test_what_is_decided_cannot_be_canceled(api: Api, db: Db, state: str, word: str) -> None:
    job_id = await make_job(db, state, processed=10_000)
    before = await api.get(f"/v1/jobs/{job_id}")
    answer = await cancel(api, job_id)
    assert (answer.status, answer.json()["code"]) == (409, "JOB_NOT_CANCELABLE")
    assert word in answer.json()["detail"]
    assert (await api.get(f"/v1/jobs/{job_id}")).body == before.body


async def test_only_who_imports_or_administers_may_cancel(api: Api, db: Db) -> None:
    job_id = await make_job(db)
    reader = api.as_key(await auth_service.create_key(db, "acme", ["read"]))
    stranger = api.as_key(await auth_service.create_key(db, "other", ["import"]))
    assert (await cancel(reader, job_id)).status == 403
    assert (await cancel(api.as_key(None), job_id)).status == 401
    assert (await cancel(stranger, job_id)).status == 404
    for nothing in ("x", str(uuid.uuid4())):
        assert (await cancel(api, nothing)).status == 404
    assert await db.fetchval("SELECT state FROM jobs") == "running"
    body = await api.request("POST", f"/v1/jobs/{job_id}/cancel", data=b"{" * 10_000)
    assert (body.status, body.json()["state"]) == (200, "canceled")
    assert (await api.get(f"/v1/jobs/{job_id}/cancel")).status == 405


async def test_many_cancel_once(api: Api, db: Db) -> None:
    job_id = await make_job(db, staged=20)

    async def insist() -> Answer:
        while (answer := await cancel(api, job_id)).status == 503:  # on a busy machine its turn may not come in time
            await asyncio.sleep(1.0)
        return answer

    answers = await asyncio.gather(*(insist() for _ in range(20)))
    assert {answer.status for answer in answers} == {200}
    assert len({answer.body for answer in answers}) == 1
    assert await db.fetchval("SELECT revision FROM jobs") == 2


async def test_a_chunk_in_flight_is_neither_waited_for_nor_counted(api: Api, db: Db, database_url: str) -> None:
    """Its worker finds the job canceled, and what it holds is removed once it lets go."""
    job_id = await make_job(db, staged=250)
    tenant_id = await db.fetchval("SELECT tenant_id FROM tenants")
    worker = await asyncpg.connect(database_url)
    chunk = worker.transaction()
    await chunk.start()
    assert await processing_queries.claim_chunk(worker, tenant_id, uuid.UUID(job_id), "apply") is not None
    async with stopwatch() as passed:
        answer = await cancel(api, job_id)
    assert passed.seconds < 1.0
    assert answer.json()["state"] == "canceled"
    assert await read_staged(db, job_id) == 1
    assert await cancel_queries.orphaned_stages(db, tenant_id) == [uuid.UUID(job_id)]
    assert not await cancel_queries.remove_staged(db, tenant_id, uuid.UUID(job_id))
    summary = Summary(1_000, 1_000, 0, 0)
    assert not await processing_queries.count_items(worker, tenant_id, uuid.UUID(job_id), summary, '{"created": 1000}')
    await chunk.rollback()
    await worker.close()
    assert await cancel_queries.remove_staged(db, tenant_id, uuid.UUID(job_id))
    assert await cancel_queries.orphaned_stages(db, tenant_id) == []
    assert (await api.get(f"/v1/jobs/{job_id}")).body == answer.body


async def test_staged_chunks_in_use_are_no_orphans(api: Api, db: Db) -> None:
    tenant_id = await db.fetchval("SELECT tenant_id FROM tenants")
    for state in ("receiving", "queued", "running"):
        await make_job(db, state, staged=2)
    orphans = [await make_job(db, state, staged=3) for state in ("canceled", "failed", "completed")]
    alone = await make_job(db, "canceled")
    await db.execute(
        "INSERT INTO staged_repeats (tenant_id, job_id, item_index) SELECT $1, $2, n FROM generate_series(1, 9) n",
        tenant_id,
        alone,
    )
    assert await cancel_queries.orphaned_stages(db, tenant_id) == [
        uuid.UUID(job_id) for job_id in sorted([*orphans, alone])
    ]
    for job_id in (*orphans, alone):
        assert await cancel_queries.remove_staged(db, tenant_id, uuid.UUID(job_id))
    assert await cancel_queries.orphaned_stages(db, tenant_id) == []
    assert await db.fetchval("SELECT count(*) FROM staged_chunks") == 6


async def test_what_was_applied_goes_on_to_its_destinations(api: Api, db: Db) -> None:
    tenant_id = await db.fetchval("SELECT tenant_id FROM tenants")
    new = destination_service.NewDestination(name="hubspot", kind="hubspot", base_url="http://127.0.0.1:1", token="t")
    await destination_service.add_destination(db, Vault(SECRET_KEY), tenant_id, new, private=LOOPBACK)
    job_id = (await api.push([person(1), person(2)])).json()["job_id"]
    # As if more of its file were still to come.
    await db.execute("UPDATE jobs SET state = 'running', items = 5, applied_at = NULL")
    first = await cancel(api, job_id)
    assert first.json()["progress"]["not_processed"] == 3
    assert first.json()["effects"]["hubspot"]["pending"] == 2

    destination_id = await db.fetchval("SELECT destination_id FROM destinations")
    claim = await claim_delivery(db, tenant_id, destination_id, token=uuid.uuid4(), lease=30.0, concurrency=8)
    assert claim is not None
    tried = [Tried(name, "ok", 1, 1, None, None, None) for name in claim.record_ids]
    done = Record(states="oo", errors={}, attempts=1, wait=None, absence="clear", tried=tried, dead_letters=[])
    recorded = await delivery_queries.record_delivery(db, claim, "contacts", done)
    assert recorded is not None
    assert recorded.finished is None
    later = await api.get(f"/v1/jobs/{job_id}")
    assert later.json()["state"] == "canceled"
    assert later.json()["finished_at"] == first.json()["finished_at"]
    assert later.json()["effects"]["hubspot"]["ok"] == 2
    assert later.headers["ETag"] != first.headers["ETag"]
