"""Sagas that could go neither forward nor back: listed, counted, retried, dropped."""

from __future__ import annotations

from typing import Any, TypeAlias

import asyncpg
import msgspec
import uuid_utils.compat

from app.auth import service
from tests.http.conftest import Answer, Api
from tests.http.made_jobs import make_job
from tests.http.monitoring.test_metrics import read

Db: TypeAlias = "asyncpg.Connection[Any]"
SAGAS = "/v1/dead-letters/sagas"


async def make_failed(db: Db) -> tuple[str, str]:
    """A saga that failed, and its undo job, which nobody works on."""
    job_id = await make_job(db)
    await db.execute("UPDATE jobs SET kind = 'undo' WHERE job_id = $1", job_id)
    saga_id = str(uuid_utils.compat.uuid7())
    await db.execute(
        """INSERT INTO sagas (tenant_id, saga_id, workflow, subject, state, attempts, error, actor, finished_at)
        SELECT tenant_id, $1, 'undo', job_id, 'failed', 20, 'no luck', 'k', now() FROM jobs WHERE job_id = $2""",
        saga_id,
        job_id,
    )
    return saga_id, job_id


async def listed(api: Api) -> list[dict[str, Any]]:
    return list((await api.get(SAGAS)).json()["sagas"])


async def drop(api: Api, saga_id: str, reason: str = "restored manually") -> Answer:
    return await api.request("POST", f"{SAGAS}/{saga_id}/drop", data=msgspec.json.encode({"reason": reason}))


async def test_it_is_listed_and_counted_and_another_tenant_sees_nothing(api: Api, db: Db) -> None:
    other = api.as_key(await service.create_key(db, "other", ["import", "read", "admin"]))
    saga_id, job_id = await make_failed(db)
    (found,) = await listed(api)
    assert (found["id"], found["job_id"], found["workflow"]) == (saga_id, job_id, "undo")
    assert (found["detail"], found["actor"]) == ("no luck", "k")
    assert read((await api.get("/metrics")).body)["tranche_sagas_failed", "workflow=undo"] == 1
    assert await listed(other) == []
    assert read((await other.get("/metrics")).body)["tranche_sagas_failed", "workflow=undo"] == 0
    assert (await drop(other, saga_id)).status == 404
    assert (await other.request("POST", f"{SAGAS}/{saga_id}/retry")).status == 404


async def test_a_retry_makes_it_due_once(api: Api, db: Db) -> None:
    saga_id, _ = await make_failed(db)
    assert (await api.request("POST", f"{SAGAS}/{saga_id}/retry")).json() == {"id": saga_id}
    row = await db.fetchrow("SELECT state, attempts, finished_at, due_at <= now() AS due FROM sagas")
    assert dict(row or {}) == {"state": "compensating", "attempts": 0, "finished_at": None, "due": True}
    assert await listed(api) == []
    assert (await api.request("POST", f"{SAGAS}/{saga_id}/retry")).status == 404
    entries = (await api.get(f"/v1/audit-log?subject=saga:{saga_id}")).json()["entries"]
    assert [entry["action"] for entry in entries] == ["saga.retry"]


async def test_one_that_is_dropped_ends_its_job(api: Api, db: Db) -> None:
    saga_id, job_id = await make_failed(db)
    assert (await drop(api, saga_id, " ")).status == 400
    assert (await drop(api, saga_id)).status == 200
    job = (await api.get(f"/v1/jobs/{job_id}")).json()
    assert (job["state"], "restored manually" in job["error"]["detail"]) == ("failed", True)
    assert await listed(api) == []
    (entry,) = (await api.get(f"/v1/audit-log?subject=saga:{saga_id}")).json()["entries"]
    assert (entry["action"], entry["detail"]) == ("saga.drop", {"reason": "restored manually"})
    assert (await drop(api, saga_id)).status == 404


async def test_only_an_administrator_decides(api: Api, db: Db) -> None:
    reader = api.as_key(await service.create_key(db, "acme", ["read"]))
    saga_id, _ = await make_failed(db)
    assert len(await listed(reader)) == 1
    assert (await drop(reader, saga_id)).status == 403
    assert (await reader.request("POST", f"{SAGAS}/{saga_id}/retry")).status == 403
