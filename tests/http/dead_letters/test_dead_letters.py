"""`/v1/dead-letters`, `/v1/jobs/{id}/retry` and their commands, over HTTP."""

from __future__ import annotations

import asyncio
import json
import math
import os
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg
import msgspec
import pytest

from app.auth import service
from app.dead_letters.shapes import RESOLUTIONS
from app.job_status.live import job_cache
from tests.http.conftest import Answer, Api, person
from tests.http.made_jobs import make_job
from tests.http.records.test_contacts import add

Db: TypeAlias = "asyncpg.Connection[Any]"
DEAD_LETTERS = "/v1/dead-letters"

_BURY = """
WITH refused AS (
    UPDATE deliveries d
    SET
        state = 'done', finished_at = now(), attempt = 1, states = repeat('f', length(d.states)),
        failures = '{"DESTINATION_REJECTED": {"count": 1, "samples": [0]}}',
        errors = (
            SELECT jsonb_object_agg(n, '{"code": "DESTINATION_REJECTED", "detail": "no"}'::jsonb)
            FROM generate_series(0, length(d.states) - 1) n
        )
    WHERE d.job_id = $1
    RETURNING d.*
),
counted AS (
    UPDATE effects e SET pending = 0, failed = e.pending WHERE e.job_id = $1
),
ended AS (
    UPDATE jobs j SET state = 'completed_with_failures', finished_at = now(), revision = j.revision + 1
    WHERE j.job_id = $1
)
INSERT INTO dead_letters (
    tenant_id, destination_id, type_id, record_id, version, job_id, item_index, delivery_id, state, error_code,
    error_detail,
    attempts, request_id, root_job_id, chain_id
)
SELECT
    r.tenant_id, r.destination_id, r.type_id, i.record_id, i.version, r.job_id, i.item_index, r.delivery_id, 'failed',
    'DESTINATION_REJECTED', 'no', 1, r.request_id, coalesce(b.root_job_id, r.job_id),
    coalesce(b.chain_id, b.dead_letter_id)
FROM refused r
CROSS JOIN unnest(r.record_ids, r.versions, r.indexes, r.dead_letters) AS i(record_id, version, item_index, letter)
LEFT JOIN dead_letters b ON b.dead_letter_id = i.letter
ORDER BY r.destination_id, i.item_index
"""


async def fail(api: Api, db: Db, *numbers: int) -> str:
    """A job of these people, all of whom every destination refused."""
    job_id: str = (await api.push([person(number) for number in numbers])).json()["job_id"]
    await bury(db, job_id)
    return job_id


async def bury(db: Db, job_id: str) -> None:
    """As if every destination had refused all of the job."""
    await db.execute(_BURY, job_id)


async def post(api: Api, path: str, **body: Any) -> Answer:
    return await api.request("POST", path, data=msgspec.json.encode(body), headers={"Content-Type": "application/json"})


async def test_a_retry_answers_like_an_import_that_is_done_later(
    api: Api, db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job that it began with shows it at once, as long as reading that job is cheap."""
    monkeypatch.setattr(job_cache, "DEAR", math.inf)  # to a busy machine every reading is dear
    await add(api)
    job_id = await fail(api, db, 1, 2)
    seen = await api.get(f"/v1/jobs/{job_id}")
    answer = await api.request("POST", f"/v1/jobs/{job_id}/retry", headers={"Idempotency-Key": "again"})
    assert answer.status == 202
    told = answer.json()
    assert answer.headers["Location"] == told["status_url"] == f"/v1/jobs/{told['job_id']}"
    assert answer.headers["Retry-After"] == "1"
    assert answer.headers["Idempotency-Key"] == "again"
    assert (told["kind"], told["state"], told["root_job_id"]) == ("retry", "syncing", job_id)
    assert (told["taken"], told["items"], told["effects"]) == (2, 2, {"hubspot": "pending"})
    # The job it began with tells of it at once, and its old ETag no longer holds.
    now = await api.get(f"/v1/jobs/{job_id}", {"If-None-Match": seen.headers["ETag"]})
    assert now.status == 200
    assert [a["job_id"] for a in now.json()["attempts"]] == [job_id, told["job_id"]]
    assert now.json()["merged"]["hubspot"] == {"total": 2, "ok": 0, "open": 2, "failed": 0, "dropped": 0, "skipped": 0}
    same = await api.get(f"/v1/jobs/{job_id}", {"If-None-Match": now.headers["ETag"]})
    assert same.status == 304
    # What happens in the retry is a change of the first job as well.
    await db.execute(_BURY, told["job_id"])
    later = await api.get(f"/v1/jobs/{job_id}", {"If-None-Match": now.headers["ETag"]})
    assert later.status == 200
    assert later.json()["merged"]["hubspot"]["failed"] == 2


async def test_only_the_named_destination_is_retried(api: Api, db: Db) -> None:
    """An item that two destinations refused is one item of the retry, and each is owed it."""
    for name in ("hubspot", "second"):
        await add(api, name=name)
    job_id = await fail(api, db, 1, 2)
    retry = f"/v1/jobs/{job_id}/retry"
    first = (await post(api, retry, destinations=["second"])).json()
    assert (first["taken"], first["items"], first["effects"]) == (2, 2, {"second": "pending"})
    merged = (await api.get(f"/v1/jobs/{job_id}")).json()["merged"]
    assert (merged["hubspot"]["failed"], merged["second"]["open"]) == (2, 2)
    await db.execute(_BURY, first["job_id"])
    both = (await post(api, retry)).json()
    assert (both["taken"], both["items"], set(both["effects"])) == (4, 2, {"hubspot", "second"})
    items = (await api.get(both["items_url"])).json()["items"]
    assert [(i["index"], i["id"], set(i["destinations"])) for i in items] == [
        (0, "c1", {"hubspot", "second"}),
        (1, "c2", {"hubspot", "second"}),
    ]
    before = (await api.get(f"/v1/jobs/{job_id}/items?destination=second&status=failed")).json()["items"]
    assert [i["destinations"]["second"]["replayed_by"] for i in before] == [first["job_id"]] * 2


async def test_text_that_no_database_holds_is_refused(api: Api, db: Db) -> None:
    await add(api)
    await fail(api, db, 1)
    for raw in (b'{"filter":{"record_id":"\\ud800"}}', b'{"all":true,"reason":"\\ud800"}'):
        for action in ("replay", "drop"):
            answer = await api.request(
                "POST", f"{DEAD_LETTERS}/{action}", data=raw, headers={"Content-Type": "application/json"}
            )
            assert answer.status == 400, (raw, action)


async def test_a_merged_view_is_never_old_for_long(api: Api, db: Db) -> None:
    """What another import's delivery changes is seen though no revision of this job tells of it."""
    await add(api)
    job_id = await fail(api, db, 1)
    seen = await api.get(f"/v1/jobs/{job_id}")
    await db.execute("UPDATE dead_letters SET resolution = 'superseded', resolved_at = now()")
    async with asyncio.timeout(60):
        while (await api.get(f"/v1/jobs/{job_id}", {"If-None-Match": seen.headers["ETag"]})).status == 304:
            await asyncio.sleep(0.05)
    assert (await api.get(f"/v1/jobs/{job_id}")).json()["merged"]["hubspot"]["ok"] == 1


async def test_what_cannot_be_retried_is_refused_clearly(api: Api, db: Db) -> None:
    await add(api)
    good = (await api.push([person(1)])).json()["job_id"]
    await db.execute("UPDATE jobs SET state = 'completed', finished_at = now()")
    await db.execute("UPDATE effects SET pending = 0, ok = 1")
    nothing = await api.request("POST", f"/v1/jobs/{good}/retry")
    assert (nothing.status, nothing.json()["code"]) == (409, "NOTHING_TO_RETRY")
    running = await make_job(db)
    early = await api.request("POST", f"/v1/jobs/{running}/retry")
    assert (early.status, early.json()["code"]) == (409, "JOB_NOT_RETRYABLE")
    failed = f"/v1/jobs/{await fail(api, db, 2)}/retry"
    unknown = await post(api, failed, destinations=["salesforce"])
    assert (unknown.status, unknown.json()["code"]) == (404, "NOT_FOUND")
    assert "hubspot" in unknown.json()["detail"]
    for body in (
        b"[]",
        b"{",
        b'{"destinations":[]}',
        b'{"destinations":"x"}',
        b'{"to":["x"]}',
        b'{"destinations":["\\u0000"]}',
        b"\xff",
    ):
        refused = await api.request("POST", failed, data=body, headers={"Content-Type": "application/json"})
        assert refused.status == 400, body
    assert (await api.request("POST", "/v1/jobs/nonsense/retry")).status == 404
    assert (await api.get(DEAD_LETTERS)).json()["dead_letters"][0]["resolution"] is None


async def test_pages_of_letters_neither_lose_nor_repeat_any(api: Api, db: Db) -> None:
    """While new ones come and old ones are decided about."""
    await add(api)
    await fail(api, db, *range(10))
    whole = [x["id"] for x in (await api.get(DEAD_LETTERS)).json()["dead_letters"]]
    assert whole == sorted(whole, reverse=True)
    assert len(whole) == 10
    page = (await api.get(f"{DEAD_LETTERS}?limit=4")).json()
    seen = [x["id"] for x in page["dead_letters"]]
    await fail(api, db, 20)
    await post(api, f"{DEAD_LETTERS}/drop", ids=[whole[0], whole[5]], reason="gone")
    while page["next_cursor"]:
        page = (await api.get(f"{DEAD_LETTERS}?limit=4&cursor={page['next_cursor']}")).json()
        seen += [x["id"] for x in page["dead_letters"]]
    assert seen == [i for i in whole if i != whole[5]]
    linked = await api.get(f"{DEAD_LETTERS}?limit=4&resolution=any&record_id=c3")
    assert [x["record_id"] for x in linked.json()["dead_letters"]] == ["c3"]
    assert "Link" not in linked.headers
    assert 'rel="next"' in (await api.get(f"{DEAD_LETTERS}?limit=1")).headers["Link"]
    jobs = (await api.get("/v1/jobs?limit=1")).json()["next_cursor"]
    for cursor in (jobs, "x", "", "W10"):
        refused = await api.get(f"{DEAD_LETTERS}?cursor={cursor}")
        assert (refused.status, refused.json()["code"]) == (400, "INVALID_CURSOR"), cursor


async def test_letters_are_found_by_every_condition(api: Api, db: Db) -> None:
    await add(api)
    await add(api, name="second")
    one, _two = await fail(api, db, 1, 2), await fail(api, db, 3)
    await db.execute("UPDATE dead_letters SET error_code = 'OUTCOME_UNKNOWN', state = 'dead' WHERE record_id = 'c2'")
    (dropped,) = [
        x["id"] for x in (await api.get(f"{DEAD_LETTERS}?record_id=c3&destination=second")).json()["dead_letters"]
    ]
    await post(api, f"{DEAD_LETTERS}/drop", ids=[dropped], reason="gone")

    async def count(query: str) -> int:
        return len((await api.get(f"{DEAD_LETTERS}?{query}")).json()["dead_letters"])

    assert await count("") == 5
    assert await count("destination=second") == 2
    assert await count("error_code=OUTCOME_UNKNOWN") == 2
    assert await count("state=failed&destination=hubspot") == 2
    assert await count(f"job_id={one}") == 4
    assert await count(f"job_id={one}&record_id=c2&destination=hubspot") == 1
    assert [await count(f"resolution={r}") for r in RESOLUTIONS] == [5, 0, 0, 1, 0, 0, 6]
    clusters = (await api.get(f"{DEAD_LETTERS}/clusters")).json()
    assert clusters["total"] == 5
    assert [(c["destination"], c["error_code"], c["count"]) for c in clusters["clusters"]] == [
        ("hubspot", "DESTINATION_REJECTED", 2),
        ("hubspot", "OUTCOME_UNKNOWN", 1),
        ("second", "DESTINATION_REJECTED", 1),
        ("second", "OUTCOME_UNKNOWN", 1),
    ]
    assert clusters["clusters"][0]["detail"] == "no"
    assert len(clusters["clusters"][0]["samples"]) == 2
    for query, status in (
        ("destination=nowhere", 404),
        ("job_id=00000000-0000-7000-8000-000000000000", 404),
        ("job_id=x", 400),
        ("state=open", 400),
        ("error_code=X", 400),
        ("resolution=x", 400),
        ("record_id=%00", 400),
        ("limit=0", 400),
        ("color=red", 400),
    ):
        assert (await api.get(f"{DEAD_LETTERS}?{query}")).status == status, query


async def test_a_preview_changes_nothing(api: Api, db: Db) -> None:
    await add(api)
    await fail(api, db, 1, 2, 3)
    ids = [x["id"] for x in (await api.get(DEAD_LETTERS)).json()["dead_letters"]]
    for chosen in ({"ids": ids}, {"all": True}, {"filter": {"destination": "hubspot"}}):
        answer = await post(api, f"{DEAD_LETTERS}/replay", **chosen, preview=True)
        assert answer.status == 200
        assert answer.json()["would_take"] == 3
        assert answer.json()["clusters"][0]["samples"] == sorted(ids)
    assert len((await api.get(DEAD_LETTERS)).json()["dead_letters"]) == 3
    assert await db.fetchval("SELECT count(*) FROM jobs WHERE kind = 'replay'") == 0


async def test_a_replay_is_done_once(api: Api, db: Db) -> None:
    await add(api)
    root = await fail(api, db, 1, 2, 3)
    ids = sorted(x["id"] for x in (await api.get(DEAD_LETTERS)).json()["dead_letters"])
    first = await post(api, f"{DEAD_LETTERS}/replay", ids=ids[:2])
    assert first.status == 202
    job = first.json()["job_id"]
    assert first.json()["jobs"] == [job]
    again = await post(api, f"{DEAD_LETTERS}/replay", ids=ids[:2])
    assert (again.status, again.json()["job_id"], again.json()["jobs"]) == (200, None, [job])
    assert again.json()["skipped"] == [{"destination": "hubspot", "reason": "replayed", "count": 2}]
    third = await post(api, f"{DEAD_LETTERS}/replay", ids=ids)
    assert (third.status, third.json()["taken"]) == (202, 1)
    assert third.json()["jobs"] == [job, third.json()["job_id"]]
    dead_letter = (await api.get(f"{DEAD_LETTERS}/{ids[0]}")).json()
    assert (dead_letter["resolution"], dead_letter["replay_job_id"], dead_letter["choices"]) == ("replayed", job, [])
    attempts = (await api.get(f"/v1/jobs/{root}")).json()["attempts"]
    assert [a["kind"] for a in attempts] == ["import", "replay", "replay"]
    audit = await db.fetch("SELECT * FROM audit_log WHERE action LIKE 'dead_letters.%' ORDER BY audit_id")
    assert [a["subject"] for a in audit] == [f"dead_letter:{i}" for i in ids]
    nothing = await post(api, f"{DEAD_LETTERS}/replay", all=True)
    assert (nothing.status, nothing.json()["taken"], nothing.json()["jobs"]) == (200, 0, [])


async def test_a_request_must_say_which_letters(api: Api, db: Db) -> None:
    await add(api)
    await fail(api, db, 1)
    for body in (
        {},
        {"filter": {}},
        {"ids": []},
        {"ids": [0]},
        {"ids": [2**63]},
        {"ids": ["1"]},
        {"ids": list(range(1, 1_002))},
        {"ids": [1], "all": True},
        {"ids": [1], "filter": {"destination": "hubspot"}},
        {"filter": {"color": "red"}},
        {"filter": {"job_id": "x"}},
        {"filter": {"record_id": "\0"}},
        {"filter": {"created_before": "2026-01-15T09:30:00"}},
        {"all": True, "rate": 0},
        {"all": True, "rate": 1e-300},
        {"filter": {"created_before": "0001-01-01T00:00:00+14:00"}},
        {"filter": {"created_before": "9999-12-31T23:59:59-14:00"}},
    ):
        answer = await post(api, f"{DEAD_LETTERS}/replay", **body)
        assert answer.status == 400, body
        assert answer.json()["code"] == "INVALID_PARAMETER"
    unknown = await post(api, f"{DEAD_LETTERS}/replay", ids=[99, 98])
    assert (unknown.status, unknown.json()["detail"]) == (404, "There is no dead letter 98, 99; nothing was changed.")
    for body in ({"all": True}, {"all": True, "reason": " "}, {"all": True, "reason": "\0"}):
        assert (await post(api, f"{DEAD_LETTERS}/drop", **body)).status == 400, body
    past = {"destination": "hubspot", "created_before": "2020-01-01T00:00:00Z"}
    assert (await post(api, f"{DEAD_LETTERS}/replay", filter=past)).json()["taken"] == 0
    for path in ("0", "x", "9" * 30, "-1", "1.0", str(2**63)):
        assert (await api.get(f"{DEAD_LETTERS}/{path}")).status == 404, path


async def test_who_may_read_may_not_decide(api: Api, db: Db) -> None:
    await add(api)
    job_id = await fail(api, db, 1)
    reader = api.as_key(await service.create_key(db, "acme", ["read"]))
    assert len((await reader.get(DEAD_LETTERS)).json()["dead_letters"]) == 1
    for path, body in (
        ("replay", {"all": True}),
        ("drop", {"all": True, "reason": "x"}),
        ("settle", {"ids": [1], "reason": "x"}),
    ):
        assert (await post(reader, f"{DEAD_LETTERS}/{path}", **body)).status == 403
    assert (await reader.request("POST", f"/v1/jobs/{job_id}/retry")).status == 403
    stranger = api.as_key(await service.create_key(db, "other", ["import", "read", "admin"]))
    dead_letter = (await api.get(DEAD_LETTERS)).json()["dead_letters"][0]
    assert (await stranger.get(DEAD_LETTERS)).json()["dead_letters"] == []
    assert (await stranger.get(dead_letter["url"])).status == 404
    assert (await post(stranger, f"{DEAD_LETTERS}/drop", ids=[dead_letter["id"]], reason="x")).status == 404
    assert (await post(stranger, f"{DEAD_LETTERS}/drop", all=True, reason="x")).json()["decided"] == 0
    assert (await stranger.request("POST", f"/v1/jobs/{job_id}/retry")).status == 404


class Shell:
    """`tranche` against the service."""

    def __init__(self, api: Api, home: Path) -> None:
        self._environ = {n: v for n, v in os.environ.items() if not n.startswith("TRANCHE_")} | {
            "TRANCHE_URL": api.url,
            "TRANCHE_API_KEY": api.key or "",
            "COLUMNS": "250",
        }
        self._home = home

    async def run(self, *arguments: str) -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "app.cli.main",
            *arguments,
            stdout=PIPE,
            stderr=PIPE,
            env=self._environ | {"PYTHONPATH": os.getcwd()},
            cwd=self._home,
        )
        out, err = await process.communicate()
        return process.returncode or 0, out.decode(), err.decode()

    async def ask(self, *arguments: str) -> Any:
        code, out, err = await self.run(*arguments, "--json")
        assert code == 0, err
        return json.loads(out)


@pytest.fixture
def shell(api: Api, tmp_path: Path) -> Shell:
    return Shell(api, tmp_path)


async def test_the_commands_do_what_the_routes_do(api: Api, db: Db, shell: Shell) -> None:
    await add(api)
    job_id = await fail(api, db, *range(6))
    code, out, _ = await shell.run("dead-letters", "list", "--destination", "hubspot", "--limit", "3")
    assert code == 0
    assert out.count("DESTINATION_REJECTED") == 3
    ids = [x["id"] for x in (await api.get(DEAD_LETTERS)).json()["dead_letters"]]
    code, out, _ = await shell.run("dead-letters", "show", str(ids[0]))
    assert "choices: replay, drop" in out
    assert "c5@example.com" in out
    code, out, _ = await shell.run("dead-letters", "clusters")
    assert "DESTINATION_REJECTED" in out
    code, out, _ = await shell.run("dead-letters", "replay", "--all", "--preview")
    assert (code, "6" in out) == (0, True)
    code, out, _ = await shell.run("dead-letters", "drop", str(ids[0]), "--reason", "gone")
    assert out == "1 dead letter dropped\n"
    await db.execute("UPDATE dead_letters SET error_code = 'OUTCOME_UNKNOWN' WHERE dead_letter_id = $1", ids[1])
    settled = await shell.ask("dead-letters", "settle", str(ids[1]), "--reason", "seen")
    assert settled["decided"] == 1
    made = await shell.ask("dead-letters", "replay", str(ids[2]))
    assert made["taken"] == 1
    code, out, _ = await shell.run("jobs", "retry", job_id, "--destination", "hubspot")
    assert (code, "3 items sent again for 3 dead letters" in out) == (0, True)
    code, out, _ = await shell.run("jobs", "show", job_id)
    assert "hubspot: 1 of 6 after 3 attempts, 4 open, 1 dropped" in out
    for wrong in (["replay"], ["replay", "1", "--all"], ["drop", "--all"], ["show", "x"]):
        assert (await shell.run("dead-letters", *wrong))[0] == 2, wrong
    code, _, err = await shell.run("dead-letters", "show", "999")
    assert (code, "404" in err) == (2, True)
