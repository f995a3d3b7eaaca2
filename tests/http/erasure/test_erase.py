"""`POST /v1/{type}:erase`, as a client sees it; what it leaves is looked for in tests/acceptance."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from app.auth import service
from app.kit.encryption import Vault
from app.secret_rotation.service import rotate
from app.settings import Settings
from tests.conftest import SECRET_KEY
from tests.http.conftest import Api, person
from tests.http.made_jobs import Db, make_job
from tests.http.undo.test_undo import finished, sagas_running


async def erase(api: Api, *ids: str, reason: str = "ticket 4711", type: str = "contacts") -> Any:
    return await post(api, {"ids": list(ids), "reason": reason}, type)


async def post(api: Api, body: dict[str, Any], type: str = "contacts") -> Any:
    sent = {"Content-Type": "application/json"}
    return await api.request("POST", f"/v1/{type}:erase", headers=sent, data=msgspec.json.encode(body))


async def test_an_erased_record_says_so_and_nothing_else(api: Api, settings: Settings, db: Db) -> None:
    pushed = (await api.push([person(1), person(2), {"id": "c1", "email": "no"}])).json()
    await api.push([person(2, first_name="New")])
    answer = await erase(api, "c1", "nobody")
    job = answer.json()
    assert (answer.status, job["kind"], job["state"], job["type"]) == (202, "erase", "queued", "contacts")
    assert answer.headers["Location"] == job["status_url"]
    async with sagas_running(settings):
        done = await finished(api, job["status_url"])
        again = await finished(api, (await erase(api, "c1")).json()["status_url"])
    assert (done["state"], done["summary"]["succeeded"]) == ("completed", 2)
    assert done["results"] == {"unchanged": 1, "deleted": 1}
    assert again["state"] == "completed"
    for path in ("/v1/contacts/c1", "/v1/contacts/c1/history", "/v1/contacts/nobody"):
        gone = await api.get(path)
        assert (gone.status, gone.json()["code"]) == (410, "RECORD_ERASED")
        assert again["job_id"] in gone.json()["detail"] or "nobody" in path
    assert (await api.get("/v1/companies/c1")).status == 404
    items = (await api.get(pushed["items_url"])).json()["items"]
    assert [(item["id"], item["status"]) for item in items] == [(None, "ok"), ("c2", "ok"), (None, "failed")]
    own = (await api.get(job["items_url"])).json()["items"]
    assert [item["id"] for item in own] == [None, None]
    # Others in the same chunks keep what they had.
    assert [v["version"] for v in (await api.get("/v1/contacts/c2/history")).json()["versions"]] == [2, 1]
    assert await db.fetchval("SELECT data FROM sagas WHERE workflow = 'erase' LIMIT 1") == "{}"
    for action, code in (("undo", "JOB_NOT_UNDOABLE"), ("cancel", "JOB_NOT_CANCELABLE")):
        refused = await api.request("POST", f"{job['status_url']}/{action}")
        assert (refused.status, refused.json()["code"]) == (409, code)
    entries = (await api.get(f"/v1/audit-log?subject=job:{job['job_id']}")).json()["entries"]
    assert {"type": "contacts", "records": 2, "reason": "ticket 4711"} in [entry["detail"] for entry in entries]


async def test_a_stored_answer_that_names_it_is_refused_as_expired(api: Api, settings: Settings) -> None:
    """Never run again: that would bring the record back."""
    await api.push([person(1)], key="named")
    other = (await api.push([person(2)], key="other")).body
    async with sagas_running(settings):
        await finished(api, (await erase(api, "c1")).json()["status_url"])
    again = await api.push([person(1)], key="named")
    assert (again.status, again.json()["code"]) == (422, "IDEMPOTENCY_KEY_EXPIRED")
    assert (await api.push([person(2)], key="other")).body == other


async def test_it_waits_for_older_jobs_and_leaves_what_is_imported_later(api: Api, settings: Settings, db: Db) -> None:
    await api.push([person(1), person(2)])
    older = await make_job(db, state="running")
    job = (await erase(api, "c1", "c2")).json()
    async with sagas_running(settings):
        await asyncio.sleep(1)
        assert (await api.get("/v1/contacts/c2")).status == 200
        await api.push([person(1, first_name="Later")])
        await db.execute("UPDATE jobs SET state = 'completed', finished_at = now() WHERE job_id = $1", older)
        assert (await finished(api, job["status_url"]))["state"] == "completed"
    assert (await api.get("/v1/contacts/c2")).status == 410
    found = (await api.get("/v1/contacts/c1")).json()
    assert (found["version"], found["first_name"]) == (2, "Later")
    (version,) = (await api.get("/v1/contacts/c1/history")).json()["versions"]
    assert (version["version"], version["before"], version["before_kept"]) == (2, None, False)


async def test_a_record_of_the_same_id_is_new(api: Api, settings: Settings) -> None:
    await api.push([person(1, first_name="Old")])
    async with sagas_running(settings):
        await finished(api, (await erase(api, "c1")).json()["status_url"])
    made = (await api.push([{"id": "c1", "email": "new@example.com"}])).json()["items"][0]
    assert (made["result"], made["version"]) == ("created", 1)
    assert (await api.get("/v1/contacts/c1")).json()["first_name"] is None
    await api.push([{"id": "c1", "deleted": True}])
    assert (await api.get("/v1/contacts/c1")).status == 404  # deleted, with a history of its own


async def test_a_new_secret_key_still_knows_who_was_erased(api: Api, settings: Settings, db: Db) -> None:
    await api.push([person(1)])
    async with sagas_running(settings):
        await finished(api, (await erase(api, "c1")).json()["status_url"])
    before = await db.fetchval("SELECT sealed FROM erasure_keys")
    new = "bmV3bmV3bmV3bmV3bmV3bmV3bmV3bmV3bmV3bmV3bmU="
    rotated = await rotate(db, Vault(f"{new},{SECRET_KEY}"))
    assert (rotated.rotated, rotated.unreadable) == (1, [])
    assert await db.fetchval("SELECT sealed FROM erasure_keys") != before
    assert Vault(new).open(
        await db.fetchval("SELECT sealed FROM erasure_keys"),
        tenant_id=await db.fetchval("SELECT tenant_id FROM erasure_keys"),
        name="",
        kind="erasure key",
        address="",
    )


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"ids": [], "reason": "r"}, "1 to 1,000 ids"),
        ({"ids": ["c1", "c2", "c1"], "reason": "r"}, r"ids[2] repeats ids[0]"),
        ({"ids": ["c1", ""], "reason": "r"}, r"ids[1] cannot be an id"),
        ({"ids": ["c1"], "reason": " "}, "reason"),
        ({"ids": ["c1"]}, "reason"),
    ],
)
async def test_what_cannot_be_erased_is_refused(api: Api, body: dict[str, Any], said: str) -> None:
    answer = await post(api, body)
    assert (answer.status, answer.json()["code"]) == (400, "INVALID_PARAMETER")
    assert said in answer.json()["detail"]


async def test_erasing_needs_the_scope_admin(api: Api, db: Db) -> None:
    other = await service.create_key(db, "acme", ["import", "read"])
    assert (await erase(api.as_key(other), "c1")).status == 403
    assert (await erase(api, "c1", type="nothings")).status == 404
