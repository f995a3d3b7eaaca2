"""`/v1/contacts/{id}` and `/v1/destinations`."""

from __future__ import annotations

from typing import Any, TypeAlias
from urllib.parse import quote

import asyncpg
import msgspec

from app.settings import Settings
from tests.http.conftest import Answer, Api, aiohttp_session, person, serve

Db: TypeAlias = "asyncpg.Connection[Any]"
HUBSPOT = {"name": "hubspot", "kind": "hubspot", "base_url": "https://crm.example", "token": "s3cret-token"}


async def add(api: Api, **changes: Any) -> Answer:
    return await api.request("POST", "/v1/destinations", data=msgspec.json.encode(HUBSPOT | changes))


async def test_any_id_that_was_imported_can_be_read(api: Api) -> None:
    ids = [
        "plain",
        "a/b",
        "/",
        "//",
        "a//b/",
        "ü ñ 名",
        "50%",
        "%2F",
        "q?x=1#f",
        "a:b",
        ".",
        "..",
        "x" * 255,
        '"',
        "\\",
    ]
    pushed = await api.push([person(1, id=i) for i in ids])
    assert pushed.json()["summary"]["failed"] == 0
    for record_id in ids:
        path = quote(record_id, safe="").replace(".", "%2E")
        found = await api.get(f"/v1/contacts/{path}")
        assert found.status == 200, record_id
        assert found.json()["id"] == record_id
    for missing in ("nobody", "%00", "%FF", "a%00b"):
        assert (await api.get(f"/v1/contacts/{missing}")).status == 404, missing


async def test_a_contact_shows_all_its_fields(api: Api) -> None:
    sent = person(
        1, last_name="L", phone="001-808-617-6467x12895", attributes={"a": {"b": [1, None]}}, source_version=7
    )
    job_id = (await api.push([sent])).json()["job_id"]
    found = (await api.get("/v1/contacts/c1")).json()
    assert {k: found[k] for k in sent} == sent
    assert (found["company"], found["version"], found["job_id"]) == (None, 1, job_id)
    assert found["destinations"] == {}


async def test_a_contact_shows_where_it_has_arrived(api: Api, db: Db) -> None:
    await api.push([person(1)])
    await add(api)
    skipped = (await api.get("/v1/contacts/c1")).json()["destinations"]["hubspot"]
    assert skipped["state"] == "skipped"
    await api.push([person(1, company="x")])
    assert (await api.get("/v1/contacts/c1")).json()["destinations"] == {"hubspot": {"state": "pending"}}
    await db.execute(
        "INSERT INTO record_syncs (tenant_id, destination_id, type_id, record_id, synced_version, synced_at, "
        "remote_id, "
        "state, state_version) SELECT tenant_id, destination_id, 1, 'c1', 2, now(), '512', 'ok', 2 FROM destinations"
    )
    arrived = (await api.get("/v1/contacts/c1")).json()["destinations"]["hubspot"]
    assert (arrived["state"], arrived["synced_version"], arrived["remote_id"]) == ("ok", 2, "512")
    await api.push([person(1, company="y")])
    behind = (await api.get("/v1/contacts/c1")).json()["destinations"]["hubspot"]
    assert (behind["state"], behind["synced_version"]) == ("pending", 2)


async def test_a_destination_is_added_paused_resumed_and_removed(api: Api) -> None:
    added = await add(api)
    assert (added.status, added.headers["Location"]) == (201, "/v1/destinations/hubspot")
    assert added.json()["state"] == "active"
    assert (await add(api)).status == 409
    path = "/v1/destinations/hubspot"
    assert (await api.request("POST", path + "/pause")).json()["state"] == "paused"
    assert (await api.get(path)).json()["state"] == "paused"
    assert (await api.request("POST", path + "/resume")).json()["state"] == "active"
    listed = await api.get("/v1/destinations")
    assert [d["name"] for d in listed.json()["destinations"]] == ["hubspot"]
    assert b"s3cret" not in added.body + listed.body
    removed = await api.request("DELETE", path)
    assert (removed.status, removed.body) == (204, b"")
    assert (await api.get("/v1/destinations")).json()["destinations"] == []
    for method, tail in (("GET", ""), ("DELETE", ""), ("POST", "/pause"), ("POST", "/resume")):
        assert (await api.request(method, path + tail)).status == 404
    assert (await add(api)).status == 201


async def test_a_destination_that_cannot_work_is_refused(api: Api) -> None:
    bad: list[dict[str, Any]] = [
        {"name": "db"}, {"name": "Upper"}, {"name": ""}, {"name": "a\0"}, {"name": 7}, {"kind": "fax"},
        {"base_url": "ftp://x"}, {"base_url": "https://a\0b"}, {"base_url": "https://a/b\0"}, {"token": ""},
        {"token": "\u00e9"}, {"token": "a\nb"}, {"options": []}, {"options": {"x": "\0"}}, {"surprise": 1},
    ]  # fmt: skip
    for changes in bad:
        assert (await add(api, **changes)).status == 400, changes
    for body in (b"", b"[]", b"{", b"\xff", b'{"options":' + b"[" * 30_000, b"null"):
        answer = await api.request("POST", "/v1/destinations", data=body)
        assert answer.status == 400, body[:20]
    assert (await api.request("POST", "/v1/destinations", data=b" " * 70_000)).status == 413
    for depth in (*range(100, 1300, 50), *range(900, 1010, 3)):
        nested = b"[" * depth + b"]" * depth
        body = msgspec.json.encode(HUBSPOT)[:-1] + b',"options":{"a":' + nested + b"}}"
        answer = await api.request("POST", "/v1/destinations", data=body)
        assert answer.status in (201, 400), (depth, answer.body)
        await api.request("DELETE", "/v1/destinations/hubspot")
    for number in ("1e400", "-1e400", "1" + "0" * 5000, "1e-400", "1E+308"):
        body = msgspec.json.encode(HUBSPOT)[:-1] + f',"options":{{"a":{number}}}}}'.encode()
        answer = await api.request("POST", "/v1/destinations", data=body)
        assert answer.status in (201, 400), (number, answer.body)
        await api.request("DELETE", "/v1/destinations/hubspot")
    odd = await add(api, options={"deep": [[[[1e308, 10**30, -0.0]]]], "": None})
    assert odd.status in (201, 400)


async def test_without_a_secret_key_the_service_runs_and_says_what_is_missing(settings: Settings, api_key: str) -> None:
    async with serve(msgspec.structs.replace(settings, secret_key="")) as url, aiohttp_session() as session:
        api = Api(session, url, api_key)
        assert (await api.push([person(1)])).status == 207
        answer = await add(api)
        assert (answer.status, answer.json()["code"]) == (503, "SECRET_KEY_MISSING")
        assert "TRANCHE_SECRET_KEY" in answer.json()["detail"]
