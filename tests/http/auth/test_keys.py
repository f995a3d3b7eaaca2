"""API keys over HTTP: `import` alone is master of its own jobs; keys end, are rotated and noted when used."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import asyncpg
import msgspec
import pytest

from app.auth import service
from app.settings import Settings
from tests.http.conftest import Api, aiohttp_session, person, serve

Db: TypeAlias = "asyncpg.Connection[Any]"
OPERATOR_TOKEN = "the operator's own token"


async def make(api: Api, db: Db, *scopes: str, tenant: str = "acme") -> Api:
    return api.as_key(await service.create_key(db, tenant, list(scopes)))


async def send(api: Api, method: str, path: str, body: Any = None) -> Any:
    data = None if body is None else msgspec.json.encode(body)
    return await api.request(method, path, headers={"Content-Type": "application/json"}, data=data)


async def audit(api: Api) -> list[tuple[str, str, str]]:
    """(actor, action, subject), oldest first."""
    entries = (await api.get("/v1/audit-log")).json()["entries"]
    return [(e["actor"], e["action"], e["subject"]) for e in reversed(entries)]


async def test_an_import_key_sees_and_changes_its_own_jobs_alone(api: Api, db: Db) -> None:
    importer, other = await make(api, db, "import"), await make(api, db, "import")
    own = (await importer.push([person(1)], key="own")).json()["status_url"]
    foreign = (await other.push([person(2), {"id": "bad"}], key="foreign")).json()["status_url"]
    for path in ("", "/items", "/events"):
        assert (await importer.get(own + path, {"Accept": "*/*"})).status in (200, 204)
        refused = await importer.get(foreign + path, {"Accept": "*/*"})
        assert (refused.status, refused.json()["code"]) == (403, "FORBIDDEN")
        assert "scope read or admin" in refused.json()["detail"]
    assert (await importer.get(foreign + "/items?status=failed", {"Accept": "text/csv"})).status == 403
    for action in ("cancel", "retry", "undo"):
        refused = await importer.request("POST", f"{foreign}/{action}")
        assert (refused.status, refused.json()["code"]) == (403, "FORBIDDEN")
        assert (await importer.request("POST", f"{own}/{action}")).status != 403
    assert (await importer.get("/v1/idempotency-keys/own")).status == 200
    assert (await importer.get("/v1/idempotency-keys/foreign")).status == 403
    listed = {job["status_url"] for job in (await importer.get("/v1/jobs")).json()["jobs"]}
    assert own in listed
    assert foreign not in listed
    missing = await importer.get("/v1/jobs/0190d3a8-0000-7000-8000-000000000000")
    assert missing.status == 404


async def test_the_list_of_an_import_key_has_pages(api: Api, db: Db) -> None:
    importer = await make(api, db, "import")
    mine = [(await importer.push([person(n)])).json()["job_id"] for n in range(3)]
    await api.push([person(9)])
    first = (await importer.get("/v1/jobs?limit=2")).json()
    second = (await importer.get(f"/v1/jobs?limit=2&cursor={first['next_cursor']}")).json()
    assert [j["job_id"] for j in first["jobs"] + second["jobs"]] == mine[::-1]
    assert second["next_cursor"] is None


async def test_others_jobs_need_read_to_see_and_admin_to_change(api: Api, db: Db) -> None:
    job = (await api.push([person(1)])).json()["status_url"]
    reader = await make(api, db, "import", "read")
    assert (await reader.get(job)).status == 200
    assert (await reader.get("/v1/jobs")).json()["jobs"]
    for action in ("cancel", "retry", "undo"):
        assert (await reader.request("POST", f"{job}/{action}")).status == 403
    admin = await make(api, db, "admin")
    assert (await admin.get(job)).status == 200
    assert (await admin.request("POST", f"{job}/undo")).status == 202


async def test_an_import_key_follows_what_others_made_of_its_job(api: Api, db: Db) -> None:
    importer = await make(api, db, "import")
    job = (await importer.push([person(1)])).json()["status_url"]
    undo = (await api.request("POST", f"{job}/undo")).headers["Location"]
    assert (await importer.get(undo)).status == 200


async def test_keys_are_made_listed_changed_and_revoked(api: Api) -> None:
    ends = (datetime.now(UTC) + timedelta(days=30)).isoformat()
    made = await send(api, "POST", "/v1/keys", {"name": "nightly", "scopes": ["read", "import"], "expires_at": ends})
    assert made.status == 201
    assert made.headers["Cache-Control"] == "no-store"
    key = made.json()
    assert key["scopes"] == ["import", "read"]
    where = made.headers["Location"]
    assert where == f"/v1/keys/{key['key_id']}"
    holder = api.as_key(key["key"])
    assert (await holder.get("/v1/jobs")).status == 200
    assert (await holder.get("/v1/keys")).status == 403
    shown = (await api.get(where)).json()
    assert "key" not in shown
    assert shown["name"] == "nightly"
    assert [k["name"] for k in (await api.get("/v1/keys")).json()["keys"]] == ["", "nightly"]
    changed = await send(api, "PATCH", where, {"name": "hourly", "expires_at": None})
    assert (changed.json()["name"], changed.json()["expires_at"]) == ("hourly", None)
    assert changed.json()["limits"] == {}
    limits = {"items": {"quota": 60_000, "window_seconds": 60}}
    assert (await send(api, "PATCH", where, {"limits": limits})).json()["limits"] == limits
    assert (await api.get("/v1/audit-log")).json()["entries"][0]["detail"] == {"limits": limits}
    assert (await send(api, "PATCH", where, {})).status == 400
    assert (await api.request("DELETE", where)).status == 204
    assert (await holder.get("/v1/jobs")).status == 401
    assert (await send(api, "PATCH", where, {"name": "late"})).status == 404
    assert [entry[1:] for entry in await audit(api)][-4:] == [
        ("key.create", f"key:{key['key_id']}"),
        ("key.change", f"key:{key['key_id']}"),
        ("key.change", f"key:{key['key_id']}"),
        ("key.revoke", f"key:{key['key_id']}"),
    ]


@pytest.mark.parametrize(
    "body",
    [
        {"scopes": []},
        {"scopes": ["write"]},
        {"scopes": ["read"], "name": "x" * 101},
        {"scopes": ["read"], "name": "a\u0000b"},
        {"scopes": ["read"], "expires_at": "2020-01-01T00:00:00Z"},
        {"scopes": ["read"], "expires_at": "2099-01-01T00:00:00"},
        {"scopes": ["read"], "level": 1},
        {"scopes": ["read"], "limits": {"items": {"quota": -1, "window_seconds": 60}}},
        {"scopes": ["read"], "limits": {"items": {"quota": 1}}},
        {"scopes": ["read"], "limits": {"calls": {"quota": 1, "window_seconds": 60}}},
        {},
    ],
)
async def test_a_key_that_makes_no_sense_is_refused(api: Api, body: dict[str, Any]) -> None:
    refused = await send(api, "POST", "/v1/keys", body)
    assert (refused.status, refused.json()["code"]) == (400, "INVALID_PARAMETER")


async def test_keys_of_another_tenant_are_out_of_reach(api: Api, db: Db) -> None:
    stranger = await make(api, db, "admin", tenant="other")
    (key,) = (await api.get("/v1/keys")).json()["keys"]
    for path in (f"/v1/keys/{key['key_id']}", "/v1/keys/%00", "/v1/keys/absent"):
        assert (await stranger.get(path)).status == 404
        assert (await stranger.request("DELETE", path)).status == 404
        assert (await send(stranger, "POST", path + "/rotate")).status == 404
    assert [k["tenant"] for k in (await stranger.get("/v1/keys")).json()["keys"]] == ["other"]


async def test_a_rotated_key_keeps_its_jobs_and_its_old_secret_for_a_while(api: Api, db: Db) -> None:
    importer = await make(api, db, "import")
    job = (await importer.push([person(1)])).json()["status_url"]
    key_id = (await api.get("/v1/keys")).json()["keys"][-1]["key_id"]
    rotated = (await send(api, "POST", f"/v1/keys/{key_id}/rotate")).json()
    assert rotated["key_id"] == key_id
    assert rotated["previous_until"] is not None
    renewed = api.as_key(rotated["key"])
    assert (await importer.get(job)).status == 200
    assert (await renewed.get(job)).status == 200
    again = (await send(api, "POST", f"/v1/keys/{key_id}/rotate", {"keep_seconds": 0})).json()
    assert (await api.as_key(again["key"]).push([person(2)])).status == 207
    for gone in (importer, renewed):
        assert (await gone.push([person(3)])).status == 401
    assert (await send(api, "POST", f"/v1/keys/{key_id}/rotate", {"keep_seconds": 1e9})).status == 400


async def test_an_expired_key_is_refused_and_says_so(api: Api, db: Db) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=0.4)
    holder = api.as_key(await service.create_key(db, "acme", ["read"], expires_at=soon))
    await asyncio.sleep(0.5)
    refused = await holder.get("/v1/jobs")
    assert refused.status == 401
    assert "expired" in refused.json()["detail"]


async def test_the_last_use_of_a_key_is_written_down(settings: Settings, db: Db) -> None:
    secret = await service.create_key(db, "acme", ["read"])
    async with serve(settings) as url, aiohttp_session() as session:
        await Api(session, url, secret).get("/v1/jobs")
    (key,) = await service.list_keys(db, await service.find_tenant(db, "acme"))
    assert key.last_used_at is not None
    assert abs((datetime.now(UTC) - key.last_used_at).total_seconds()) < 60


async def test_a_disabled_tenant_is_refused_until_it_is_enabled(api: Api, db: Db) -> None:
    await service.set_tenant_disabled(db, "acme", True)
    refused = await api.push([person(1)])
    assert (refused.status, refused.json()["code"]) == (403, "TENANT_DISABLED")
    await service.set_tenant_disabled(db, "acme", False)
    assert (await api.push([person(1)])).status == 207
    assert [e for e in await audit(api) if e[1].startswith("tenant.")] == [
        ("operator", "tenant.create", "tenant:acme"),
        ("operator", "tenant.disable", "tenant:acme"),
        ("operator", "tenant.enable", "tenant:acme"),
    ]


@pytest.fixture
async def operator(settings: Settings, api_key: str) -> AsyncIterator[Api]:
    """A client with the operator's token."""
    known = msgspec.structs.replace(settings, operator_token=OPERATOR_TOKEN)
    async with serve(known) as url, aiohttp_session() as session:
        yield Api(session, url, OPERATOR_TOKEN)


async def test_the_operator_makes_and_disables_tenants(operator: Api) -> None:
    made = await send(operator, "POST", "/v1/tenants", {"name": "globex"})
    assert (made.status, made.headers["Location"]) == (201, "/v1/tenants/globex")
    assert (await send(operator, "POST", "/v1/tenants", {"name": "globex"})).status == 409
    assert (await send(operator, "POST", "/v1/tenants", {"name": "No Name"})).status == 400
    key = await send(operator, "POST", "/v1/tenants/globex/keys", {"scopes": ["admin"], "name": "first"})
    holder = operator.as_key(key.json()["key"])
    assert (await holder.get("/v1/keys")).status == 200
    listed = (await operator.get("/v1/tenants")).json()["tenants"]
    assert [(t["name"], t["keys"]) for t in listed] == [("acme", 1), ("globex", 1)]
    changed = await send(operator, "PATCH", "/v1/tenants/globex", {"disabled": True})
    assert changed.json()["disabled_at"] is not None
    limits = {"items": {"quota": 5, "window_seconds": 1}, "requests": {"quota": 0, "window_seconds": 1}}
    more = {"limits": limits, "weight": 0.5, "worker_cap": 2}
    changed = await send(operator, "PATCH", "/v1/tenants/globex", more)
    assert {name: changed.json()[name] for name in more} == more
    assert changed.json()["disabled_at"] is not None
    changed = await send(operator, "PATCH", "/v1/tenants/globex", {"limits": {"items": None}, "worker_cap": None})
    assert (changed.json()["limits"], changed.json()["worker_cap"]) == ({"requests": limits["requests"]}, None)
    for nothing in ({}, {"weight": 0}, {"worker_cap": 0}, {"limits": {"calls": None}}):
        assert (await send(operator, "PATCH", "/v1/tenants/globex", nothing)).status == 400
    assert (await holder.get("/v1/keys")).json()["code"] == "TENANT_DISABLED"
    assert (await operator.get("/v1/tenants/nobody")).status == 404


async def test_a_name_that_cannot_be_stored_is_refused(settings: Settings) -> None:
    """The database refuses NUL wherever it is asked; nobody gets a 500 for it."""
    settings = msgspec.structs.replace(settings, operator_token=OPERATOR_TOKEN)
    async with serve(settings) as url, aiohttp_session() as session:
        refused = await send(Api(session, url, OPERATOR_TOKEN), "POST", "/v1/tenants", {"name": "a\0b"})
    assert (refused.status, refused.json()["code"]) == (400, "INVALID_PARAMETER")
    assert "NUL" in refused.json()["detail"]


async def test_tenants_are_for_the_operator_alone(operator: Api, api: Api, api_key: str) -> None:
    for key in (None, "wrong", api_key):
        assert (await operator.as_key(key).get("/v1/tenants")).status == 401
    unset = await api.get("/v1/tenants")
    assert (unset.status, unset.json()["code"]) == (403, "FORBIDDEN")
    assert "TRANCHE_OPERATOR_TOKEN" in unset.json()["detail"]


async def test_whoever_changes_webhooks_destinations_or_jobs_is_in_the_audit_log(api: Api) -> None:
    made = await send(api, "POST", "/v1/webhook-endpoints", {"url": "https://example.com/a"})
    where = f"/v1/webhook-endpoints/{made.json()['endpoint_id']}"
    await send(api, "PATCH", where, {"url": "https://example.org/b"})
    await send(api, "POST", f"{where}/rotate")
    await api.request("DELETE", where)
    queued = await api.push([person(1)], headers={"Prefer": "respond-async"})
    canceled = await api.request("POST", f"{queued.headers['Location']}/cancel")
    assert canceled.status == 200
    (key,) = (await api.get("/v1/keys")).json()["keys"]
    subject = f"webhook_endpoint:{made.json()['endpoint_id']}"
    assert (await audit(api))[-5:] == [
        (key["key_id"], "webhook.add", subject),
        (key["key_id"], "webhook.change", subject),
        (key["key_id"], "webhook.rotate", subject),
        (key["key_id"], "webhook.remove", subject),
        (key["key_id"], "job.cancel", f"job:{queued.json()['job_id']}"),
    ]
    assert "example.org" in (await api.get("/v1/audit-log")).body.decode()
