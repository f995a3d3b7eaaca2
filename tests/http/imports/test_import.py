"""`POST /v1/contacts:bulk` as the contract says it."""

from __future__ import annotations

import asyncio
import gzip
from typing import Any

import asyncpg
import msgspec
import pytest
import zstandard

from app.auth import service
from app.settings import Settings
from tests.http.conftest import Api, aiohttp_session, person, serve


async def test_each_item_has_its_own_outcome(api: Api) -> None:
    answer = await api.push([person(1), {"id": "c2", "email": "nobody"}, person(3)], key="k1")
    assert answer.status == 207
    body = answer.json()
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Location"] == body["status_url"] == f"/v1/jobs/{body['job_id']}"
    assert answer.headers["Idempotency-Key"] == "k1"
    assert "Idempotency-Replayed" not in answer.headers
    assert body["summary"] == {"total": 3, "succeeded": 2, "failed": 1, "retry": 0}
    assert body["effects"] == {"db": "ok"}
    assert body["items"][0] == {"index": 0, "id": "c1", "status": "ok", "result": "created", "version": 1}
    assert body["items"][1]["error_code"] == "INVALID_EMAIL"
    assert body["items"][1]["errors"][0]["pointer"] == "/email"


def poison() -> dict[int, tuple[bytes, str, str]]:
    """Index → an item that must fail alone, its code and the pointer to its fault."""
    bombs = [
        (b'{"id":"p","email":"\xff\xfe@example.com"}', "INVALID_FIELD", "/email"),
        (b'{"id":"p\\u0000","email":"a@example.com"}', "INVALID_FIELD", "/id"),
        (
            b'{"id":"p","email":"a@example.com","attributes":{"n":1' + b"0" * 400 + b"}}",
            "INVALID_FIELD",
            "/attributes/n",
        ),
        (b'{"id":"p","email":"a@example.com","attributes":' + b'{"d":' * 900 + b"1" + b"}" * 901, "INVALID_FIELD", ""),
        (b'{"id":"p","id":"q","email":"a@example.com"}', "INVALID_FIELD", "/id"),
        (b'{"id":7,"email":"a@example.com"}', "INVALID_FIELD", "/id"),
        (b'{"email":"a@example.com"}', "MISSING_FIELD", "/id"),
        (b'{"id":"p"}', "MISSING_FIELD", "/email"),
        (b'{"id":"p","email":"a@example.com","nick":"x"}', "UNKNOWN_FIELD", "/nick"),
        (b'{"id":"p","email":"a@example.com","phone":"none"}', "INVALID_PHONE", "/phone"),
        (b'{"id":"p","email":"a@example.com","company":"' + b"x" * 70_000 + b'"}', "ITEM_TOO_LARGE", ""),
        (b'{"id":"p","email":"a@example.com","first_name":"\\ud800"}', "INVALID_FIELD", "/first_name"),
        (b"[1,2]", "INVALID_FIELD", ""),
    ]
    return {index * 71 + 5: bomb for index, bomb in enumerate(bombs)}


async def test_thirteen_poisoned_items_of_a_thousand_fail_alone(api: Api, db: asyncpg.Connection[Any]) -> None:
    bombs = poison()
    items = [bombs[i][0] if i in bombs else msgspec.json.encode(person(i)) for i in range(1000)]
    answer = await api.push(b'{"items":[' + b",".join(items) + b"]}")
    assert answer.status == 207
    body = answer.json()
    assert body["summary"] == {"total": 1000, "succeeded": 987, "failed": 13, "retry": 0}
    failed = {item["index"]: item for item in body["items"] if item["status"] != "ok"}
    assert set(failed) == set(bombs)
    for index, (_, code, pointer) in bombs.items():
        assert failed[index]["error_code"] == code, failed[index]
        assert failed[index]["errors"][0]["pointer"].startswith(pointer), failed[index]
    assert await db.fetchval("SELECT count(*) FROM records") == 987


async def test_options_reach_the_import(api: Api) -> None:
    aborted = await api.push([person(1), {"id": "c2"}], query="?atomic=true")
    assert [i["status"] for i in aborted.json()["items"]] == ["failed", "failed"]
    tried = await api.push([person(1)], query="?dry_run=1")
    assert tried.json()["dry_run"] is True
    assert (await api.get("/v1/contacts/c1")).status == 404
    twice = [person(1), person(1, first_name="Other")]
    assert (await api.push(twice)).json()["summary"]["failed"] == 2
    won = await api.push(twice, query="?on_duplicate=last_wins&atomic=false")
    assert [i["result"] for i in won.json()["items"]] == ["superseded", "created"]
    assert (await api.get("/v1/contacts/c1")).json()["first_name"] == "Other"


async def test_minimal_lists_only_what_is_not_ok(api: Api) -> None:
    answer = await api.push([person(1), {"id": "c2"}], headers={"Prefer": "return=minimal, x"})
    assert answer.headers["Preference-Applied"] == "return=minimal"
    assert [item["index"] for item in answer.json()["items"]] == [1]


async def test_compressed_bodies_are_inflated(api: Api) -> None:
    body = msgspec.json.encode({"items": [person(i) for i in range(50)]})
    for encoding, packed in {
        "gzip": gzip.compress(body[:100]) + gzip.compress(body[100:]),
        "GZIP": gzip.compress(body),
        "zstd": zstandard.compress(body[:100]) + zstandard.compress(body[100:]),
        "identity": body,
    }.items():
        answer = await api.push(packed, headers={"Content-Encoding": encoding})
        assert answer.json()["summary"]["succeeded"] == 50, encoding


async def test_a_bomb_is_refused_before_it_goes_off(api: Api) -> None:
    huge = b" " * 200_000_000
    for encoding, packed in (("gzip", gzip.compress(huge)), ("zstd", zstandard.compress(huge))):
        assert len(packed) < 250_000
        answer = await api.push(packed, headers={"Content-Encoding": encoding})
        assert answer.status == 413
        assert answer.json()["code"] == "REQUEST_TOO_LARGE"
        assert "250 times" in answer.json()["detail"]


async def test_too_much_is_refused_with_a_remedy(api: Api) -> None:
    many = await api.push([{}] * 10_001)
    assert many.status == 413
    assert "10000 items" in many.json()["detail"]
    assert "application/x-ndjson" in many.json()["detail"]
    wide = await api.push(b"x" * 64_000_001, query="?atomic=true")
    assert wide.status == 413
    assert "32000000 bytes" in wide.json()["detail"]


async def test_a_chunked_body_is_capped_while_it_arrives(api: Api) -> None:
    async def endless() -> Any:
        for _ in range(1_100):
            yield b" " * 65_536

    answer = await api.request(
        "POST", "/v1/contacts:bulk?atomic=true", headers={"Idempotency-Key": "k"}, data=endless()
    )
    assert answer.status == 413


UNREADABLE: list[tuple[dict[str, str], str, bytes, int, str]] = [
    ({"Content-Encoding": "gzip"}, "", b"no gzip", 400, "MALFORMED_REQUEST"),
    ({"Content-Encoding": "gzip"}, "", gzip.compress(b'{"items":[]}')[:-6], 400, "MALFORMED_REQUEST"),
    ({"Content-Encoding": "gzip"}, "", b"", 400, "MALFORMED_REQUEST"),
    ({"Content-Encoding": "zstd"}, "", b"no zstd", 400, "MALFORMED_REQUEST"),
    ({"Content-Encoding": "zstd"}, "", zstandard.compress(b'{"items":[]}')[:-3], 400, "MALFORMED_REQUEST"),
    ({"Content-Encoding": "zstd"}, "", b"", 400, "MALFORMED_REQUEST"),
    ({"Content-Encoding": "br"}, "", b"{}", 415, "UNSUPPORTED_ENCODING"),
    ({"Content-Encoding": "gzip, zstd"}, "", b"{}", 415, "UNSUPPORTED_ENCODING"),
    ({"Content-Type": "text/plain"}, "", b"id,email", 415, "UNSUPPORTED_MEDIA_TYPE"),
    ({"Content-Type": "application/json; charset=latin1"}, "", b"{}", 415, "UNSUPPORTED_MEDIA_TYPE"),
    ({"Accept": "text/csv"}, "", b"{}", 406, "NOT_ACCEPTABLE"),
    ({"Accept": "application/json;q=0, */*;q=0.1"}, "", b"{}", 406, "NOT_ACCEPTABLE"),
    ({}, "?atomic=maybe", b"{}", 400, "INVALID_PARAMETER"),
    ({}, "?atomic=1&atomic=1", b"{}", 400, "INVALID_PARAMETER"),
    ({}, "?on_duplicate=first_wins", b"{}", 400, "INVALID_PARAMETER"),
    ({}, "?map=Customer%20Id:id", b"{}", 400, "INVALID_PARAMETER"),
    ({}, "?dryrun=true", b"{}", 400, "INVALID_PARAMETER"),
    ({}, "?%ff=1", b"{}", 400, "INVALID_PARAMETER"),
    ({}, "", b"", 400, "MALFORMED_REQUEST"),
    ({}, "", b"[]", 400, "MALFORMED_REQUEST"),
    ({}, "", b'{"items":{}}', 400, "MALFORMED_REQUEST"),
    ({}, "", b'{"items":[', 400, "MALFORMED_REQUEST"),
    ({}, "", b"[" * 100_000, 400, "MALFORMED_REQUEST"),
    ({}, "", b"\xff\xfe{\x00}\x00", 400, "MALFORMED_REQUEST"),
]


async def test_what_cannot_be_read_is_refused_whole(api: Api) -> None:
    for headers, query, body, status, code in UNREADABLE:
        answer = await api.push(body, query=query, headers=headers)
        case = (headers, query, body[:40])
        assert (answer.status, answer.json()["code"]) == (status, code), case
        assert answer.headers["Content-Type"] == "application/problem+json", case
        assert answer.json()["request_id"] == answer.headers["X-Request-ID"], case
        if code == "UNSUPPORTED_ENCODING":
            assert answer.headers["Accept-Encoding"] == "gzip, zstd"
    assert (await api.get("/v1/jobs")).json()["jobs"] == []


async def test_usual_types_are_taken(api: Api) -> None:
    for accept in ("*/*", "application/*;q=0.5", "text/html, application/json", "nonsense", ""):
        for content_type in ("application/json; charset=UTF-8", "application/json", ""):
            answer = await api.push([person(1)], headers={"Accept": accept, "Content-Type": content_type})
            assert answer.status == 207, (accept, content_type)


async def test_keys_open_only_what_their_scopes_allow(api: Api, db: asyncpg.Connection[Any]) -> None:
    reader = api.as_key(await service.create_key(db, "acme", ["read"]))
    refused = await reader.push([person(1)])
    assert refused.status == 403
    assert 'error="insufficient_scope"' in refused.headers["WWW-Authenticate"]
    importer = api.as_key(await service.create_key(db, "acme", ["import"]))
    job = (await importer.push([person(1)])).json()["status_url"]
    assert (await importer.get(job)).status == 200
    assert (await importer.get(job + "/items")).status == 200
    assert (await importer.get("/v1/contacts/c1")).status == 403
    stranger = api.as_key(await service.create_key(db, "other", ["import", "read", "admin"]))
    for path in (job, job + "/items", "/v1/contacts/c1"):
        assert (await stranger.get(path)).status == 404
    assert (await stranger.get("/v1/jobs")).json()["jobs"] == []


async def test_no_key_no_answer(api: Api, db: asyncpg.Connection[Any]) -> None:
    """The body is not even read: an endless one changes nothing."""
    revoked = await service.create_key(db, "acme", ["import"])
    await service.revoke_key(db, revoked)
    wrong = revoked[:-1] + ("A" if revoked[-1] != "A" else "B")
    for bad in (None, "", "trn_x", wrong, revoked, "\u00e9", "a b c"):
        answer = await api.as_key(bad).push(b"x" * 8_000_000)
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    basic = await api.as_key(None).push([], headers={"Authorization": "Basic dTpw"})
    assert basic.status == 401


async def test_a_request_id_is_taken_or_made_and_echoed(api: Api) -> None:
    given = await api.push([person(1)], headers={"X-Request-ID": "order-4711/a"})
    assert given.headers["X-Request-ID"] == "order-4711/a"
    assert (await api.get(given.json()["status_url"])).json()["request_id"] == "order-4711/a"
    for bad in ("has space", "x" * 129, "\u00e9", '"quoted"'):
        made = await api.get("/nowhere", {"X-Request-ID": bad})
        assert made.headers["X-Request-ID"] not in (bad, "")
        assert made.json()["request_id"] == made.headers["X-Request-ID"]


async def test_more_imports_than_allowed_are_turned_away_at_once(settings: Settings, db: Any, api_key: str) -> None:
    """The import in flight waits for a contact that this test holds."""
    tight = msgspec.structs.replace(settings, max_requests=1, db_lock_timeout=60.0, db_statement_timeout=60.0)
    async with serve(tight) as url, aiohttp_session() as session:
        api = Api(session, url, api_key)
        await api.push([person(1)])
        async with db.transaction():
            await db.execute("SELECT FROM records WHERE record_id = 'c1' FOR UPDATE")
            held = asyncio.create_task(api.push([person(1, company="x")]))
            async with asyncio.timeout(45):
                while not await db.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                    await asyncio.sleep(0.01)
            refused = await api.push([person(2)])
            assert (refused.status, refused.json()["code"]) == (503, "OVERLOADED")
            assert int(refused.headers["Retry-After"]) >= 1
        assert (await held).status == 207
        assert (await api.push([person(2)])).status == 207


async def test_contacts_that_stay_locked_are_to_be_sent_again(settings: Settings, db: Any, api_key: str) -> None:
    async with serve(msgspec.structs.replace(settings, db_lock_timeout=0.2)) as url, aiohttp_session() as session:
        api = Api(session, url, api_key)
        await api.push([person(1)])
        async with db.transaction():
            await db.execute("SELECT FROM records WHERE record_id = 'c1' FOR UPDATE")
            answer = await api.push([person(1, company="x"), {"id": "bad"}])
        assert [i["status"] for i in answer.json()["items"]] == ["retry", "failed"]
        assert answer.json()["items"][0]["error_code"] == "LOCK_TIMEOUT"
        assert answer.json()["items"][0]["retry_after_seconds"] >= 1


async def test_an_atomic_batch_that_failed_says_that_nothing_was_written(api: Api) -> None:
    answer = (await api.push([person(1), {"id": "c2", "email": "x"}], query="?atomic=true")).json()
    assert answer["summary"]["failed"] == 2
    assert answer["effects"]["db"] == "skipped"
    answer = (await api.push([person(1)], query="?atomic=true")).json()
    assert answer["effects"]["db"] == "ok"


@pytest.mark.parametrize(("sent", "shown"), [("17", "17"), ("1.5", "1.5"), ("true", "true"), ("[]", None)])
async def test_an_id_that_is_no_string_fails_and_is_still_named(api: Api, sent: str, shown: str | None) -> None:
    body = b'{"items":[{"id":%s,"email":"a@example.com"}]}' % sent.encode()
    (item,) = (await api.push(body)).json()["items"]
    assert (item["id"], item["error_code"]) == (shown, "INVALID_FIELD")
