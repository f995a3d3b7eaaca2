"""Dead letters of undos, as a client, an operator and a receiver of webhooks see them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec

from app.auth import service
from app.settings import Settings
from tests.http.conftest import Api, person
from tests.http.dead_letters.test_dead_letters import DEAD_LETTERS, fail, post
from tests.http.erasure.test_erase import erase
from tests.http.made_jobs import Db, make_job
from tests.http.monitoring.test_metrics import read
from tests.http.records.test_contacts import add
from tests.http.undo.test_undo import finished, run_cli, sagas_running


async def leave(api: Api, settings: Settings, *numbers: int) -> dict[str, Any]:
    """The undo of an import whose records somebody changed since."""
    await api.push([person(n, first_name="Old") for n in numbers])
    pushed = (await api.push([person(n, first_name="New") for n in numbers])).json()
    await api.push([person(n, first_name="Newer") for n in numbers])
    asked = (await api.request("POST", pushed["status_url"] + "/undo")).json()
    async with sagas_running(settings):
        done: dict[str, Any] = await finished(api, asked["status_url"])
    return done


async def listed(api: Api, query: str = "") -> list[dict[str, Any]]:
    return list((await api.get(DEAD_LETTERS + query)).json()["dead_letters"])


async def names(api: Api, *numbers: int) -> list[str]:
    return [(await api.get(f"/v1/contacts/c{n}")).json()["first_name"] for n in numbers]


async def test_they_are_listed_beside_those_of_deliveries(api: Api, settings: Settings, db: Db) -> None:
    await add(api, name="crm")
    await fail(api, db, 9)
    undo = await leave(api, settings, 1, 2)
    assert {(x["kind"], x["destination"]) for x in await listed(api)} == {("delivery", "crm"), ("undo", None)}
    (delivery,) = await listed(api, "?kind=delivery")
    assert (delivery["record_id"], delivery["undone"]) == ("c9", None)
    for query in (
        "?kind=undo",
        f"?job_id={undo['job_id']}",
        "?error_code=VERSION_CONFLICT",
        "?kind=undo&resolution=any",
    ):
        found = await listed(api, query)
        assert [x["record_id"] for x in found] == ["c1", "c2"], query
    (found,) = await listed(api, "?record_id=c1")
    assert (found["job_id"], found["undone"]["job_id"]) == (undo["job_id"], undo["undo_of"])
    assert found["undone"]["changed_by"]["version"] == 3
    assert {x["kind"] for x in await listed(api, "?destination=crm")} == {"delivery"}
    assert (await api.get(DEAD_LETTERS + "?kind=letter")).status == 400
    clusters = (await api.get(DEAD_LETTERS + "/clusters")).json()
    assert [(c["kind"], c["destination"], c["error_code"], c["count"]) for c in clusters["clusters"]] == [
        ("undo", None, "VERSION_CONFLICT", 2),
        ("delivery", "crm", "DESTINATION_REJECTED", 1),
    ]
    assert (await api.get(DEAD_LETTERS + "/clusters?kind=undo")).json()["total"] == 2
    assert undo["left_alone"] == {"open": 2, "restored": 0, "dropped": 0}
    items = (await api.get(undo["items_url"])).json()["items"]
    assert {item["id"]: item["dead_letter_id"] for item in items} == {
        x["record_id"]: x["id"] for x in await listed(api, "?kind=undo")
    }
    metrics = read((await api.get("/metrics")).body)
    assert metrics["tranche_dead_letters_open", "code=VERSION_CONFLICT"] == 2


async def test_the_payload_can_be_pushed_instead(api: Api, settings: Settings) -> None:
    await leave(api, settings, 1)
    (found,) = await listed(api)
    shown = (await api.get(found["url"])).json()
    pushed = await api.push([shown["payload"]])
    assert pushed.json()["items"][0]["result"] == "updated"
    assert await names(api, 1) == ["Old"]
    # It waits for its decision, and a replay of it does not undo the decision that the push was.
    assert len(await listed(api)) == 1
    answer = await post(api, DEAD_LETTERS + "/replay", ids=[found["id"]])
    assert answer.json()["state"] == "completed_with_failures"


async def test_only_a_request_for_them_replays_them(api: Api, settings: Settings, db: Db) -> None:
    undo = await leave(api, settings, 1, 2, 3)
    path = DEAD_LETTERS + "/replay"
    for body in ({"all": True}, {"filter": {"job_id": undo["job_id"]}}, {"filter": {"record_id": "c1"}}):
        answer = await post(api, path, **body)
        assert (answer.status, answer.json()["taken"]) == (200, 0)
    preview = (await post(api, path, filter={"kind": "undo"}, preview=True)).json()
    assert (preview["would_take"], preview["most"], preview["clusters"][0]["destination"]) == (3, 1000, None)
    assert await names(api, 1, 2, 3) == ["Newer"] * 3
    reader = api.as_key(await service.create_key(db, "acme", ["import", "read"]))
    assert (await post(reader, path, filter={"kind": "undo"})).status == 403
    first = (await listed(api, "?record_id=c1"))[0]
    one = await post(api, path, ids=[first["id"]])
    assert (one.status, one.json()["kind"], one.json()["taken"]) == (202, "undo", 1)
    assert one.headers["Location"] == one.json()["status_url"]
    rest = await post(api, path, filter={"kind": "undo", "job_id": undo["job_id"]})
    assert (rest.json()["taken"], rest.json()["remaining"]) == (2, 0)
    assert await names(api, 1, 2, 3) == ["Old"] * 3
    assert (await api.get(undo["status_url"])).json()["left_alone"]["restored"] == 3
    again = (await post(api, path, ids=[first["id"]])).json()
    assert (again["taken"], again["jobs"]) == (0, [one.json()["job_id"]])
    assert again["skipped"] == [{"destination": None, "reason": "replayed", "count": 1}]
    log = (await api.get(f"/v1/audit-log?subject=dead_letter:{first['id']}")).json()["entries"]
    assert [entry["action"] for entry in log] == ["dead_letters.replay"]
    log = (await api.get(f"/v1/audit-log?subject=job:{undo['job_id']}")).json()["entries"]
    assert log[0]["detail"]["count"] == 2
    (item,) = (await api.get(one.json()["items_url"])).json()["items"]
    assert (item["id"], item["result"], item["version"]) == ("c1", "updated", 4)
    items = (await api.get(undo["items_url"])).json()["items"]
    assert {item["resolution"] for item in items} == {"replayed"}


async def test_the_same_key_replays_once(api: Api, settings: Settings) -> None:
    await leave(api, settings, 1)
    body = msgspec.json.encode({"filter": {"kind": "undo"}})
    headers = {"Content-Type": "application/json", "Idempotency-Key": "once"}
    answers = [await api.request("POST", DEAD_LETTERS + "/replay", data=body, headers=headers) for _ in range(2)]
    assert answers[0].body == answers[1].body
    assert (await api.get("/v1/contacts/c1")).json()["version"] == 4


async def test_dropping_keeps_the_reason(api: Api, settings: Settings) -> None:
    await leave(api, settings, 1)
    nothing = await post(api, DEAD_LETTERS + "/drop", all=True, reason="old")
    assert nothing.json()["decided"] == 0
    dropped = await post(api, DEAD_LETTERS + "/drop", filter={"kind": "undo"}, reason="Newer is right")
    assert dropped.json()["decided"] == 1
    (found,) = await listed(api, "?resolution=dropped")
    assert found["note"] == "Newer is right"
    assert await names(api, 1) == ["Newer"]
    settled = await post(api, DEAD_LETTERS + "/settle", ids=[found["id"]], reason="x")
    assert settled.json()["decided"] == 0


async def test_a_webhook_reports_them(api: Api, settings: Settings, db: Db) -> None:
    endpoint = {"url": "https://hooks.example.com/", "events": ["item.dead"]}
    assert (await post(api, "/v1/webhook-endpoints", **endpoint)).status == 201
    undo = await leave(api, settings, 1, 2)
    (body,) = [row["body"] for row in await db.fetch("SELECT body FROM webhook_messages WHERE type = 'item.dead'")]
    data = json.loads(body)["data"]
    assert (data["kind"], data["destination"], data["job_id"], data["count"]) == ("undo", None, undo["job_id"], 2)
    assert {item["dead_letter_id"] for item in data["items"]} == {x["id"] for x in await listed(api)}
    assert {item["code"] for item in data["items"]} == {"VERSION_CONFLICT"}
    assert len(await listed(api, data["items_url"].removeprefix(DEAD_LETTERS))) == 2


async def test_erasing_the_record_erases_what_was_to_be_restored(api: Api, settings: Settings, db: Db) -> None:
    await leave(api, settings, 1, 2)
    before = {x["record_id"]: x["id"] for x in await listed(api)}
    async with sagas_running(settings):
        await finished(api, (await erase(api, "c1")).json()["status_url"])
    (kept,) = await listed(api)
    assert kept["record_id"] == "c2"
    shown = (await api.get(f"{DEAD_LETTERS}/{before['c1']}")).json()
    assert (shown["record_id"], shown["resolution"], shown["payload"], shown["choices"]) == ("", "dropped", None, [])
    text = await db.fetchval("SELECT l::text FROM dead_letters l WHERE dead_letter_id = $1", before["c1"])
    assert "c1@example.com" not in text
    assert "Old" not in text
    answer = await post(api, DEAD_LETTERS + "/replay", ids=[before["c1"]])
    assert (answer.status, answer.json()["skipped"][0]["reason"]) == (200, "dropped")
    assert (await api.get("/v1/contacts/c1")).status == 410


async def test_a_record_that_is_being_erased_is_not_brought_back(api: Api, settings: Settings, db: Db) -> None:
    await leave(api, settings, 1, 2)
    older = await make_job(db, state="running")
    job = (await erase(api, "c1")).json()
    async with sagas_running(settings):
        await asyncio.sleep(0.5)
        answer = (await post(api, DEAD_LETTERS + "/replay", filter={"kind": "undo"})).json()
        assert (answer["taken"], answer["remaining"]) == (1, 0)
        assert answer["skipped"] == [{"destination": None, "reason": "being_erased", "count": 1}]
        await db.execute("UPDATE jobs SET state = 'completed', finished_at = now() WHERE job_id = $1", older)
        await finished(api, job["status_url"])
    assert (await api.get("/v1/contacts/c1")).status == 410
    assert await names(api, 2) == ["Old"]
    assert await db.fetchval("SELECT count(*) FROM dead_letters l WHERE l::text ~ 'c1@example.com'") == 0


async def test_an_undo_that_is_requested_while_a_record_is_erased_keeps_nothing_of_it(
    api: Api, settings: Settings, db: Db
) -> None:
    """Its dead letter is written after the erasure has begun, and has what the record held before."""
    await api.push([person(1, first_name="Old")])
    pushed = (await api.push([person(1, first_name="New")])).json()
    await api.push([person(1, first_name="Newer")])
    older = await make_job(db, state="running")
    job = (await erase(api, "c1")).json()
    async with sagas_running(settings):
        undo = (await api.request("POST", pushed["status_url"] + "/undo")).json()
        await finished(api, undo["status_url"])
        assert await db.fetchval("SELECT count(*) FROM dead_letters l WHERE l::text ~ 'Old'") == 1
        await db.execute("UPDATE jobs SET state = 'completed', finished_at = now() WHERE job_id = $1", older)
        await finished(api, job["status_url"])
    assert await db.fetchval("SELECT count(*) FROM dead_letters l WHERE l::text ~ 'Old|c1'") == 0


async def test_from_the_shell(api: Api, settings: Settings) -> None:
    pushed = (await api.push([person(1, first_name="New")])).json()
    await api.push([person(1, first_name="Newer")])
    async with sagas_running(settings):
        code, out, _ = await run_cli(api, "jobs", "undo", pushed["job_id"], "--wait", "--quiet")
    assert (code, "--kind undo" in out) == (1, True)
    (found,) = await listed(api)
    code, out, err = await run_cli(api, "dead-letters", "list", "--kind", "undo")
    assert (code, err) == (0, "")
    assert ("undo" in out, "c1" in out) == (True, True)
    code, out, err = await run_cli(api, "dead-letters", "show", str(found["id"]))
    assert (code, err) == (0, "")
    for word in ("could not be taken back", "changed since by import job", '"deleted":true', "choices: replay, drop"):
        assert word in out
    code, out, _ = await run_cli(api, "dead-letters", "clusters", "--kind", "undo")
    assert (code, "VERSION_CONFLICT" in out) == (0, True)
    code, out, err = await run_cli(api, "dead-letters", "replay", "--kind", "undo")
    assert (code, err) == (0, "")
    assert "1 item restored or left again for 1 dead letter" in out
    assert (await api.get("/v1/contacts/c1")).status == 404
    code, out, err = await run_cli(api, "dead-letters", "replay", "--kind", "undo", str(found["id"]))
    assert code == 2
    code, out, err = await run_cli(api, "jobs", "not-reached", found["job_id"])
    assert (code, err) == (0, "")


async def test_what_an_undo_has_not_reached_is_listed(api: Api, db: Db) -> None:
    pushed = (await api.push([person(1), person(2), person(3)])).json()
    undo = (await api.request("POST", pushed["status_url"] + "/undo")).json()
    found = (await api.get(undo["status_url"] + "/not-reached?limit=2")).json()
    assert [x["record_id"] for x in found["records"]] == ["c3", "c2"]
    rest = (await api.get(undo["status_url"] + f"/not-reached?limit=2&cursor={found['next_cursor']}")).json()
    assert rest == {
        "records": [{"type": "contacts", "record_id": "c1", "version": 1, "job_id": pushed["job_id"], "item_index": 0}],
        "next_cursor": None,
    }
    assert (await api.get(pushed["status_url"] + "/not-reached")).json() == {"records": [], "next_cursor": None}
    other = api.as_key(await service.create_key(db, "other", ["read"]))
    assert (await other.get(undo["status_url"] + "/not-reached")).status == 404
    await db.execute("UPDATE sagas SET state = 'failed', finished_at = now(), error = 'no luck'")
    (saga,) = (await api.get(DEAD_LETTERS + "/sagas")).json()["sagas"]
    assert (saga["undo_job_id"], saga["not_reached"]) == (undo["job_id"], 3)
    assert (saga["restored"], saga["unchanged"], saga["conflicts"]) == (0, 0, 0)
    code, out, err = await run_cli(api, "dead-letters", "sagas")
    assert (code, err, "not reached" in out) == (0, "", True)
    code, out, err = await run_cli(api, "jobs", "not-reached", undo["job_id"])
    assert (code, err, "c3" in out) == (0, "", True)
