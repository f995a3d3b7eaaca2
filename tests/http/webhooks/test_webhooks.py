"""`/v1/webhook-endpoints` and `tranche webhooks`, over real HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import asyncpg
import msgspec
import pytest

from app.auth import service
from app.settings import Settings
from jobs.worker import working
from tests.http.conftest import Answer, Api, aiohttp_session, person, serve
from tests.http.made_jobs import make_job

Db: TypeAlias = "asyncpg.Connection[Any]"
BASE = "/v1/webhook-endpoints"
HOOK = "https://example.com/hooks"


@pytest.fixture
async def api(settings: Settings, api_key: str) -> AsyncIterator[Api]:
    networked = msgspec.structs.replace(settings, webhook_private="127.0.0.0/8")
    async with serve(networked) as url, aiohttp_session() as session:
        yield Api(session, url, api_key)


async def send(api: Api, method: str, path: str, body: Any = None) -> Answer:
    data = body if isinstance(body, bytes) or body is None else msgspec.json.encode(body)
    return await api.request(method, BASE + path, data=data)


async def add(api: Api, **changes: Any) -> dict[str, Any]:
    answer = await send(api, "POST", "", {"url": HOOK} | changes)
    assert answer.status == 201, answer.body
    made: dict[str, Any] = answer.json()
    return made


async def emit(db: Db, count: int = 1) -> None:
    await db.execute(
        """SELECT emit_event(t.tenant_id, 'job.finished', jsonb_build_object('n', n))
        FROM tenants t, generate_series(1, $1) n WHERE t.name = 'acme'""",
        count,
    )


async def test_a_secret_is_shown_once_and_kept_encrypted(api: Api, db: Db) -> None:
    answer = await send(api, "POST", "", {"url": HOOK, "events": ["item.dead"]})
    made = answer.json()
    assert (answer.status, answer.headers["Cache-Control"]) == (201, "no-store")
    assert made["secret"].startswith("whsec_")
    assert (made["events"], made["state"], made["detail"]) == (["item.dead"], "active", None)
    shown = await api.get(answer.headers["Location"])
    assert shown.json() == {name: value for name, value in made.items() if name != "secret"}
    listed = (await api.get(BASE)).json()["endpoints"]
    assert listed == [shown.json()]
    stored = await db.fetchval("SELECT secret FROM webhook_endpoints")
    assert made["secret"].encode() not in stored
    assert len(stored) > 40


async def test_an_endpoint_is_told_of_everything_unless_it_says_so(api: Api) -> None:
    everything = ["circuit.closed", "circuit.opened", "item.dead", "job.finished", "webhook.disabled"]
    assert (await add(api))["events"] == everything
    assert (await add(api, events=None))["events"] == everything
    assert (await add(api, events=["item.dead", "item.dead"]))["events"] == ["item.dead"]


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({"url": "http://example.com/"}, 400, "https://"),
        ({"url": "https://10.0.0.1/"}, 400, "TRANCHE_WEBHOOK_PRIVATE"),
        ({"url": "https://u:hidden@example.com/"}, 400, "signature"),
        ({"url": "https://example.com/" + "x" * 2_001}, 400, "2000"),
        ({"url": HOOK, "events": []}, 400, "job.finished"),
        ({"url": HOOK, "events": ["job.begun"]}, 400, "$.events[0]"),
        ({"url": HOOK, "secret": "mine"}, 400, "secret"),
        ({"events": ["item.dead"]}, 400, "url"),
        ({"url": 7}, 400, "$.url"),
        ([], 400, "object"),
        (b"{", 400, "JSON"),
        (b"", 400, "JSON"),
        (b'{"url":"\xff"}', 400, "JSON"),
    ],
)
async def test_what_cannot_be_added_is_told(api: Api, body: Any, status: int, told: str) -> None:
    answer = await send(api, "POST", "", body)
    assert answer.status == status
    assert told in answer.json()["detail"]
    assert "hidden" not in answer.body.decode()
    assert (await api.get(BASE)).json() == {"endpoints": []}


async def test_http_is_for_addresses_that_the_operator_named(api: Api) -> None:
    assert (await add(api, url="http://127.0.0.1:9000/x"))["url"] == "http://127.0.0.1:9000/x"


async def test_a_tenant_has_so_many_endpoints_and_no_more(api: Api) -> None:
    """Also when all of them are added at once."""
    answers = await asyncio.gather(*(send(api, "POST", "", {"url": HOOK}) for _ in range(25)))
    assert sorted(a.status for a in answers) == [201] * 20 + [400] * 5
    one = next(a.json()["endpoint_id"] for a in answers if a.status == 201)
    assert (await send(api, "DELETE", f"/{one}")).status == 204
    await add(api)


async def test_endpoints_are_for_administrators_of_their_tenant(api: Api, db: Db) -> None:
    made = await add(api)
    await emit(db)
    (message,) = (await api.get(f"{BASE}/{made['endpoint_id']}/messages")).json()["messages"]
    importer = api.as_key(await service.create_key(db, "acme", ["import", "read"]))
    other = api.as_key(await service.create_key(db, "other", ["admin"]))
    one = f"/{made['endpoint_id']}"
    calls: list[tuple[str, str, Any]] = [
        ("GET", one, None),
        ("PATCH", one, {"url": "https://evil.example/"}),
        ("POST", one + "/rotate", {}),
        ("POST", one + "/test", None),
        ("POST", one + "/replay", {"state": "dead"}),
        ("GET", one + "/messages", None),
        ("GET", f"{one}/messages/{message['message_id']}", None),
        ("POST", f"{one}/messages/{message['message_id']}/replay", None),
        ("DELETE", one, None),
    ]
    for method, path, body in calls:
        assert (await send(importer, method, path, body)).status == 403, path
        assert (await send(other, method, path, body)).status == 404, path
    assert (await send(importer, "GET", "")).status == 403
    assert (await send(api.as_key(None), "GET", "")).status == 401
    assert (await send(other, "GET", "")).json() == {"endpoints": []}
    shown = (await api.get(BASE + one)).json()
    assert (shown["url"], shown["state"], shown["previous_until"]) == (HOOK, "active", None)


async def test_an_endpoint_can_be_changed(api: Api, db: Db) -> None:
    one = f"/{(await add(api))['endpoint_id']}"
    changed = await send(api, "PATCH", one, {"url": HOOK + "2", "events": ["item.dead"]})
    assert (changed.json()["url"], changed.json()["events"]) == (HOOK + "2", ["item.dead"])
    await emit(db)
    assert (await api.get(BASE + one + "/messages")).json()["messages"] == []
    for body in ({"state": "removed"}, {"state": None}, {"url": "http://x.example/"}, {"events": []}, {"x": 1}):
        assert (await send(api, "PATCH", one, body)).status == 400, body
    assert (await send(api, "PATCH", one, {})).json() == changed.json()


async def test_a_disabled_endpoint_is_told_of_nothing(api: Api, db: Db) -> None:
    one = f"/{(await add(api))['endpoint_id']}"
    await emit(db)
    assert (await send(api, "PATCH", one, {"state": "disabled"})).json()["state"] == "disabled"
    (message,) = (await api.get(BASE + one + "/messages?state=failed")).json()["messages"]
    assert message["attempts"][-1]["detail"] == "the endpoint was disabled"
    await emit(db)
    for path, body in (
        ("/test", None),
        ("/replay", {"state": "failed"}),
        (f"/messages/{message['message_id']}/replay", None),
    ):
        refused = await send(api, "POST", one + path, body)
        assert (refused.status, refused.json()["code"]) == (409, "WEBHOOK_ENDPOINT_DISABLED")
    assert (await send(api, "PATCH", one, {"state": "active"})).json()["state"] == "active"
    assert (await send(api, "POST", one + "/replay", {"state": "failed"})).json() == {"replayed": 1}
    assert len((await api.get(BASE + one + "/messages?state=pending")).json()["messages"]) == 1


async def test_a_rotated_secret_signs_on_for_as_long_as_told(api: Api) -> None:
    made = await add(api)
    one = f"/{made['endpoint_id']}"
    first = await send(api, "POST", one + "/rotate")
    assert first.status == 200
    assert first.json()["secret"] != made["secret"]
    assert first.json()["previous_until"] is not None
    at_once = (await send(api, "POST", one + "/rotate", {"keep_seconds": 0})).json()
    assert at_once["previous_until"] is None
    assert "secret" not in (await api.get(BASE + one)).json()
    for body in ({"keep_seconds": -1}, {"keep_seconds": 1e9}, {"keep": 1}, b"["):
        assert (await send(api, "POST", one + "/rotate", body)).status == 400, body


async def test_messages_are_listed_page_by_page(api: Api, db: Db) -> None:
    one = f"/{(await add(api))['endpoint_id']}"
    await emit(db, 5)
    await db.execute("UPDATE webhook_messages SET state = 'dead', finished_at = now() WHERE message_id % 2 = 0")
    seen: list[int] = []
    path = BASE + one + "/messages?limit=2"
    while True:
        page = await api.get(path)
        seen += [m["payload"]["data"]["n"] for m in page.json()["messages"]]
        cursor = page.json()["next_cursor"]
        if cursor is None:
            break
        assert 'rel="next"' in page.headers["Link"]
        path = f"{BASE}{one}/messages?limit=2&cursor={cursor}"
    assert seen == [5, 4, 3, 2, 1]
    dead = (await api.get(BASE + one + "/messages?state=dead")).json()["messages"]
    assert {m["state"] for m in dead} == {"dead"}
    assert all(m["next_attempt_at"] is None for m in dead)
    alone = await api.get(f"{BASE}{one}/messages/{dead[0]['message_id']}")
    assert alone.json() == dead[0]
    again = await send(api, "POST", f"{one}/messages/{dead[0]['message_id']}/replay")
    assert (again.json()["state"], again.json()["event_id"]) == ("pending", dead[0]["event_id"])
    for query in ("state=lost", "limit=0", "cursor=x", "cursor=WzEsImpvYnMiLDFd", "page=2"):
        assert (await api.get(f"{BASE}{one}/messages?{query}")).status == 400, query


@pytest.mark.parametrize(
    "path",
    ["/0", "/x", "/1e3", "/9999999999999999999999", "/2147483648", "/%31%00", "/99", "/99/messages", "/99/messages/1"],
)
async def test_what_is_not_there_is_not_found(api: Api, path: str) -> None:
    assert (await api.get(BASE + path)).status == 404


async def test_messages_of_one_endpoint_are_not_those_of_another(api: Api, db: Db) -> None:
    first, second = (await add(api), await add(api))
    await emit(db)
    (message,) = (await api.get(f"{BASE}/{first['endpoint_id']}/messages")).json()["messages"]
    other = f"/{second['endpoint_id']}/messages/{message['message_id']}"
    assert (await api.get(BASE + other)).status == 404
    assert (await send(api, "POST", other + "/replay")).status == 404


async def test_jobs_that_end_over_http_are_told(api: Api, db: Db) -> None:
    """At once, and by being canceled; a replayed answer is no second end."""
    one = f"/{(await add(api))['endpoint_id']}"
    pushed = await api.push([person(1), person(2, email="no")], key="k")
    assert (await api.push([person(1), person(2, email="no")], key="k")).body == pushed.body
    running = await make_job(db)
    for _ in range(2):
        assert (await api.request("POST", f"/v1/jobs/{running}/cancel")).status == 200
    found = (await api.get(BASE + one + "/messages")).json()["messages"]
    told = [(m["payload"]["data"]["job_id"], m["payload"]["data"]["state"]) for m in found]
    assert told == [(str(running), "canceled"), (pushed.json()["job_id"], "completed_with_failures")]
    assert found[1]["payload"]["data"]["summary"] == {"total": 2, "succeeded": 1, "failed": 1, "retry": 0}


async def test_files_are_told_when_their_last_item_is_decided(api: Api, settings: Settings) -> None:
    """And uploads that cannot be read to their end; what was refused before there was a job is nobody's event."""
    one = f"/{(await add(api))['endpoint_id']}"
    later = {"Prefer": "respond-async"}
    queued = await api.push([person(1), person(2, email="no")], headers=later)
    assert queued.status == 202
    assert (await api.get(BASE + one + "/messages")).json()["messages"] == []
    broken = b"id,email\n" + b"c,c@example.com\n" * 400_000 + "c,é\n".encode("cp1252")
    assert (await api.push(broken, headers={"Content-Type": "text/csv"})).status == 400
    assert (await api.push(b"[" * 4_000, headers=later)).status == 400
    async with working(settings), asyncio.timeout(60):
        while len(found := (await api.get(BASE + one + "/messages")).json()["messages"]) < 2:
            await asyncio.sleep(0.1)
    told = {m["payload"]["data"]["job_id"]: m["payload"]["data"] for m in found}
    whole = told.pop(queued.json()["job_id"])
    assert whole["state"] == "completed_with_failures"
    assert whole["summary"] == {"total": 2, "succeeded": 1, "failed": 1, "retry": 0}
    assert [data["state"] for data in told.values()] == ["failed"]


async def test_without_a_key_to_encrypt_with_nothing_is_added(settings: Settings, api_key: str) -> None:
    async with serve(msgspec.structs.replace(settings, secret_key="")) as url, aiohttp_session() as session:
        answer = await send(Api(session, url, api_key), "POST", "", {"url": HOOK})
    assert (answer.status, answer.json()["code"]) == (503, "SECRET_KEY_MISSING")


async def run(api: Api, *arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "app.cli.main",
        "webhooks",
        *arguments,
        env=os.environ | {"TRANCHE_URL": api.url, "TRANCHE_API_KEY": api.key or ""},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_the_command_line_does_all_of_it(api: Api, db: Db) -> None:
    code, out, _ = await run(api, "add", HOOK, "--event", "job.finished", "--json")
    made = json.loads(out)
    one = str(made["endpoint_id"])
    assert (code, made["events"]) == (0, ["job.finished"])
    _, out, _ = await run(api, "list")
    assert HOOK in out
    assert made["secret"] not in out
    await emit(db, 3)
    await db.execute("UPDATE webhook_messages SET state = 'dead', finished_at = now() WHERE message_id % 2 = 1")
    _, out, _ = await run(api, "messages", one, "--state", "dead", "--json")
    dead = [json.loads(line) for line in out.splitlines()]
    assert {m["state"] for m in dead} == {"dead"}
    _, out, _ = await run(api, "replay", one)
    assert out == f"sending {len(dead)} messages again\n"
    _, out, _ = await run(api, "rotate", one, "--keep", "0")
    assert "whsec_" in out
    code, out, _ = await run(api, "disable", one)
    assert "disabled" in out
    code, _, err = await run(api, "test", one)
    assert code != 0
    assert "WEBHOOK_ENDPOINT_DISABLED" in err
    _, out, _ = await run(api, "enable", one, "--json")
    assert json.loads(out)["state"] == "active"
    assert (await run(api, "remove", one))[1] == f"removed endpoint {one}\n"
    code, _, err = await run(api, "show", one)
    assert code == 2
    assert "no such webhook endpoint" in err
