"""`POST /v1/{type}:erase`, as a client sees it; what it leaves is looked for in tests/acceptance."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from app.auth import service
from app.kit.encryption import Vault
from app.secret_rotation.service import rotate
from app.settings import Settings
from tests.conftest import SECRET_KEY
from tests.http.conftest import Api, aiohttp_session, person, serve
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


@asynccontextmanager
async def waiting(db: Db, sending: Awaitable[Any], *, end: str) -> AsyncIterator[asyncio.Task[Any]]:
    """A request that waits for what `db` holds in its transaction."""
    task = asyncio.ensure_future(sending)
    async with asyncio.timeout(30):
        while not await db.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            await asyncio.sleep(0.01)
    yield task
    await db.execute(end)


async def test_an_import_in_flight_at_the_request_leaves_nobody_behind(
    settings: Settings, db: Db, api_key: str
) -> None:
    """It has written the record and cannot end, because it waits for another one, which this test holds."""
    patient = msgspec.structs.replace(settings, db_lock_timeout=60.0, db_statement_timeout=60.0)
    async with serve(patient) as url, aiohttp_session() as session, sagas_running(settings):
        api = Api(session, url, api_key)
        await api.push([person(2)])
        await db.execute("BEGIN")
        await db.execute("SELECT FROM records WHERE record_id = 'c2' FOR UPDATE")
        sending = api.push([person(1), person(2, company="x")])
        async with waiting(db, sending, end="COMMIT") as held:
            job = (await erase(api, "c1")).json()
            await asyncio.sleep(1)
            assert (await api.get(job["status_url"])).json()["finished_at"] is None
        imported = (await held).json()
        assert imported["items"][0]["result"] == "created"
        done = await finished(api, job["status_url"])
        assert (done["state"], done["results"]) == ("completed", {"deleted": 1})
        assert imported["job_id"] < job["job_id"]
        assert (await api.get("/v1/contacts/c1")).status == 410
        assert (await api.get("/v1/contacts/c2")).json()["company"] == "x"


async def test_an_expected_version_is_not_that_of_a_record_that_is_being_removed(api: Api, db: Db) -> None:
    """The item waits for who removes it, and does not make a new record out of its change."""
    await api.push([person(1)])
    await db.execute("BEGIN")
    await db.execute("DELETE FROM records WHERE record_id = 'c1'")
    async with waiting(db, api.push([person(1, company="x") | {"if_version": 1}, person(2)]), end="COMMIT") as held:
        pass
    items = (await held).json()["items"]
    assert [item.get("error_code") or item["result"] for item in items] == ["VERSION_CONFLICT", "created"]
    assert (await api.get("/v1/contacts/c1")).status == 404


async def test_an_undo_goes_on_without_a_record_that_is_being_removed(api: Api, settings: Settings, db: Db) -> None:
    pushed = (await api.push([person(1), person(2)])).json()
    undo = (await api.request("POST", pushed["status_url"] + "/undo")).json()
    await db.execute("BEGIN")
    await db.execute("DELETE FROM records WHERE record_id = 'c1'")
    await db.execute(
        """UPDATE record_versions SET indexes = indexes[2:], versions = ARRAY[convert_to(
            '[["c2",1,null,false,{"email":"c2@example.com"},null]]', 'utf8'
        )]"""
    )
    async with sagas_running(settings):
        async with waiting(db, asyncio.sleep(0), end="COMMIT"):
            pass
        done = await finished(api, undo["status_url"])
    assert (done["state"], done["results"]) == ("completed", {"updated": 1})
    assert await db.fetchval("SELECT error FROM sagas") is None
    assert (await api.get("/v1/contacts/c2")).status == 404


async def test_a_tombstone_that_was_not_archived_is_sent_again(api: Api, settings: Settings, db: Db) -> None:
    """One that was is left alone."""
    new = {"name": "shop", "kind": "http", "base_url": "http://127.0.0.1:9", "token": "t"}
    sent = {"Content-Type": "application/json"}
    assert (await api.request("POST", "/v1/destinations", headers=sent, data=msgspec.json.encode(new))).status == 201
    await api.push([person(1), person(2)])
    deleted = (await api.push([{"id": "c1", "deleted": True}, {"id": "c2", "deleted": True}])).json()
    assert deleted["summary"]["succeeded"] == 2
    await db.execute("UPDATE deliveries SET state = 'done'")
    await db.execute(
        """INSERT INTO record_syncs
            (tenant_id, destination_id, type_id, record_id, synced_version, state, state_version)
        SELECT tenant_id, destination_id, 1, r, CASE r WHEN 'c1' THEN 1 ELSE 2 END, 'ok', 2
        FROM destinations, unnest(ARRAY['c1', 'c2']) r"""
    )
    job = (await erase(api, "c1", "c2")).json()
    async with sagas_running(settings):
        async with asyncio.timeout(30):
            while not await db.fetchval("SELECT count(*) FROM deliveries WHERE job_id = $1", job["job_id"]):
                await asyncio.sleep(0.05)
        rows = await db.fetch("SELECT record_ids, versions FROM deliveries WHERE job_id = $1", job["job_id"])
        assert [tuple(row) for row in rows] == [(["c1"], [2])]
        await db.execute("UPDATE deliveries SET state = 'done', states = 'o'")
        await saga_ended(db)
    assert (await api.get(job["status_url"])).json()["results"] == {"deleted": 1, "unchanged": 1}
    assert (await api.get("/v1/contacts/c1")).status == 410


SAID = 'no "c1-person" (person-1@example.com, +49 30 1234567, not x+49 30 123)'
LEFT = 'no "erased" (erased, erased, not x+49 30 123)'
TEXTS = {
    "circuit_changes": "detail",
    "destinations": "blocked_detail",
    "delivery_calls": "detail",
    "dead_letters": "error_detail || ' ' || note",
    "deliveries": "errors #>> '{1,detail}'",
    "record_syncs": "error_detail",
    "sagas": "error",
    "jobs": "error ->> 'detail'",
    "webhook_messages": "attempts #>> '{0,detail}'",
}


PLANTED = """
CREATE TEMP VIEW d AS SELECT *, '$said'::jsonb AS said, '$said'::jsonb ->> 'detail' AS text
FROM deliveries ORDER BY delivery_id DESC LIMIT 1;
INSERT INTO circuit_changes (tenant_id, destination_id, circuit, before, after, opens, seconds, detail)
SELECT tenant_id, destination_id, 'crm', 'closed', 'open', 1, 1, text FROM d;
UPDATE destinations SET blocked_detail = (SELECT text FROM d);
INSERT INTO record_syncs (tenant_id, destination_id, type_id, record_id, state, state_version, error_detail)
SELECT tenant_id, destination_id, type_id, 'c2', 'failed', 1, text FROM d;
INSERT INTO webhook_messages (tenant_id, endpoint_id, event_id, type, body, attempts)
SELECT tenant_id, 1, gen_random_uuid(), 'job.finished', '{}', jsonb_build_array(said) FROM d;
INSERT INTO sagas (tenant_id, saga_id, workflow, subject, state, actor, error, finished_at)
SELECT tenant_id, gen_random_uuid(), 'undo', gen_random_uuid(), 'failed', '', text, now() FROM d;
INSERT INTO delivery_calls (tenant_id, delivery_id, attempt, call, asked, event_id, sent_at, milliseconds, detail)
SELECT tenant_id, delivery_id + 1000, 1, 0, 'push', '', now(), 1, text FROM d;
INSERT INTO dead_letters (
    tenant_id, destination_id, type_id, record_id, version, job_id, item_index, delivery_id, state, error_code,
    error_detail, attempts, request_id, root_job_id, note
)
SELECT tenant_id, destination_id, type_id, 'c2', 1, job_id, 1, delivery_id, 'dead', '', text, 1, '', job_id, 'kept'
FROM d;
UPDATE jobs SET error = (SELECT said FROM d) WHERE job_id = (SELECT job_id FROM d);
UPDATE deliveries SET errors = jsonb_build_object('1', (SELECT said FROM d))
WHERE delivery_id = (SELECT delivery_id FROM d);
DROP VIEW d;
"""


async def saga_ended(db: Db) -> None:
    """The erasure is done; deliveries that this test settled itself are not counted, so its job is not finished."""
    async with asyncio.timeout(30):
        while not await db.fetchval("SELECT state = 'done' FROM sagas WHERE workflow = 'erase'"):
            await asyncio.sleep(0.05)


async def test_texts_of_others_do_not_repeat_what_was_erased(api: Api, settings: Settings, db: Db) -> None:
    """Also an address that the record had before; what other records' deliveries say beside it stays."""
    new = {"name": "shop", "kind": "http", "base_url": "http://127.0.0.1:9", "token": "t"}
    sent = {"Content-Type": "application/json"}
    assert (await api.request("POST", "/v1/destinations", headers=sent, data=msgspec.json.encode(new))).status == 201
    mine = {"id": "c1-person", "email": "person-1@example.com"}
    await api.push([mine])
    await api.push([mine | {"email": "new@example.com", "phone": "+49 30 1234567"}, person(2)])
    failed = (await api.push([{"email": "person-1@example.com"}, {"email": "person-2@example.com"}])).json()
    await db.execute("UPDATE deliveries SET state = 'done', states = translate(states, 'p', 'o')")
    await db.execute(PLANTED.replace("$said", json.dumps({"detail": SAID})))
    job = (await erase(api, "c1-person")).json()
    async with sagas_running(settings):
        async with asyncio.timeout(30):
            sent_for = "UPDATE deliveries SET state = 'done' WHERE job_id = $1"
            while await db.execute(sent_for, job["job_id"]) == "UPDATE 0":
                await asyncio.sleep(0.05)
        await saga_ended(db)
    for table, text in TEXTS.items():
        found = {row[0] for row in await db.fetch(f"SELECT {text} FROM {table} WHERE {text} IS NOT NULL")}
        assert found == {LEFT + " kept" if table == "dead_letters" else LEFT}, table
    rows = await api.get(f"{failed['items_url']}?status=failed", {"Accept": "text/csv"})
    assert (b"person-1@example.com" in rows.body, b"person-2@example.com" in rows.body) == (False, True)
    assert (await api.get("/v1/contacts/c2")).status == 200


async def test_a_thousand_of_the_longest_ids_fit_into_a_request(api: Api, settings: Settings) -> None:
    """However they are written."""
    ids = [chr(0x1F600) * 251 + f"{n:04}" for n in range(1_000)]
    body = json.dumps({"ids": ids, "reason": "r"}).encode()
    assert len(body) > 3_000_000
    answer = await api.request("POST", "/v1/contacts:erase", headers={"Content-Type": "application/json"}, data=body)
    assert (answer.status, answer.json()["progress"]["items"]) == (202, 1_000)
    async with sagas_running(settings):
        done = await finished(api, answer.json()["status_url"])
    assert (done["state"], done["results"]) == ("completed", {"unchanged": 1_000})


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
