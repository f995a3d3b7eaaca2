"""A person is planted wherever the service keeps anything, and erased: nothing of them is found then."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg
from redis.asyncio import Redis

from app.kit.compression import unpack
from tests.acceptance.harness import Installation, free_port, people, until
from tests.acceptance.test_metrics import TOKEN, Scrapes
from tests.acceptance.test_privacy import Echo, echoing

ID = "canary-id@example.com"
PERSON = {
    "id": ID,
    "email": "canary-mail@example.com",
    "first_name": "CanaryFirst",
    "phone": "+4930901820",
    "attributes": {"canary_key": "CanaryValue"},
}
OTHER = {"id": "other", "email": "other@example.com", "first_name": "Other"}
TRACES = ("canary-", "canary_", "canaryf", "canarys", "canaryt", "canaryv", "4930901820")


def _texts(value: Any) -> list[str]:
    """What a value says, packed or not."""
    if isinstance(value, bytes):
        found = [value.decode(errors="replace")]
        with suppress(Exception):  # it is not packed
            found.append(unpack(value).decode(errors="replace"))
        return found
    if isinstance(value, list):
        return [text for one in value for text in _texts(one)]
    return [str(value)]


async def traces(tranche: Installation) -> list[str]:
    """Where something of the person is: table and column, or key in Redis."""
    found: list[str] = []
    connection = await asyncpg.connect(tranche.settings.database_url)
    tables = await connection.fetch(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    )
    for (table,) in tables:
        for row in await connection.fetch(f"SELECT * FROM {table}"):
            for column, value in row.items():
                texts = _texts(value)
                if any(trace in text.lower() for trace in TRACES for text in texts):
                    found.append(f"{table}.{column}")
    await connection.close()
    async with Redis.from_url(tranche.settings.redis_url) as redis:
        async for key in redis.scan_iter("*"):
            kind = await redis.type(key)
            read = {b"string": redis.get, b"hash": redis.hgetall}.get(kind)
            value = await read(key) if read else await redis.zrange(key, 0, -1) if kind == b"zset" else b""
            if any(trace in f"{key!r} {value!r}".lower() for trace in TRACES):
                found.append(f"redis {key!r}")
    return sorted(set(found))


async def snapshots(tranche: Installation) -> set[str]:
    """Kinds of snapshots of the tenant in Redis; they are encrypted, so what they show cannot be looked for."""
    async with Redis.from_url(tranche.settings.redis_url) as redis:
        return {key.decode().split(":")[3] async for key in redis.scan_iter("tranche:snapshots:*:*")}


async def plant(tranche: Installation, echo: Echo) -> str:
    """The person in every table; the id of a file that had them."""
    answer = await tranche.ask("POST", "/v1/webhook-endpoints", json={"url": f"{echo.url}/hook"})
    assert answer.status == 201, answer
    await tranche.sandbox.have(PERSON["email"], firstname="CanaryThere", phone="+4930901820")
    await tranche.finished(await tranche.imported([PERSON, OTHER]))
    changed = await tranche.push([PERSON | {"first_name": "CanarySecond"}, {"id": ID, "email": "canary without at"}])
    await tranche.finished(changed.json()["job_id"])
    good = await tranche.imported([PERSON | {"first_name": "CanaryThird"}])
    await tranche.finished(good)
    undo = await tranche.ask("POST", f"/v1/jobs/{good}/undo")
    await tranche.finished(undo.json()["job_id"])
    file = (
        "id;email;first_name;note\n"
        f"{ID};canary-mail@example.com;CanaryFile;x\n{ID};canary;a;b;c;d\nz;z@example.com;Z;\n"
    )
    answer = await tranche.ask(
        "POST",
        "/v1/contacts:bulk",
        data=file.encode(),
        headers={"Content-Type": "text/csv", "Idempotency-Key": "file", "Prefer": "respond-async"},
    )
    assert answer.status == 202, answer
    job_id = str(answer.json()["job_id"])
    await tranche.finished(job_id)
    new = {"name": "echo", "kind": "http", "base_url": f"{echo.url}/crm", "token": "token-of-echo"}
    answer = await tranche.ask("POST", "/v1/destinations", json=new)
    assert answer.status == 201, answer
    refused = await tranche.imported([PERSON | {"first_name": "CanaryFourth"}])
    await tranche.finished(refused)
    letters = (await tranche.get(f"/v1/dead-letters?job_id={refused}"))["dead_letters"]
    assert any("canary-mail" in letter["detail"] for letter in letters)
    drop = {"ids": [letters[0]["id"]], "reason": f"asked by {ID}"}
    await tranche.ask("POST", "/v1/dead-letters/drop", json=drop)
    await until(lambda: _dead(echo))
    assert (await tranche.get(f"/v1/contacts/{ID}"))["first_name"] == "CanaryFourth"
    assert (await tranche.get(f"/v1/jobs/{refused}/items"))["items"][0]["id"] == ID
    await until(lambda: _kept(tranche))
    return job_id


async def _kept(tranche: Installation) -> bool:
    return {"record", "item"} <= await snapshots(tranche)


async def _dead(echo: Echo) -> list[str]:
    return echo.events("item.dead")


async def test_nothing_of_an_erased_person_is_found(tranche: Installation) -> None:
    async with echoing() as echo:
        port = free_port()
        changes = {"webhook_private": "127.0.0.0/8", "metrics_token": TOKEN, "worker_port": port}
        api = await tranche.start_api(**changes)
        worker = await tranche.start_worker(**changes)
        job_id = await plant(tranche, echo)
        before = await traces(tranche)
        for place in ("records.record_id", "record_versions.versions", "job_chunks.outcomes", "job_chunks.sources",
                      "deliveries.record_ids", "dead_letters.error_detail", "webhook_messages.body",
                      "idempotency_keys.answer", "record_syncs.record_id", "record_syncs.before_image"):  # fmt: skip
            assert place in before, before
        answer = await tranche.ask("POST", "/v1/contacts:erase", json={"ids": [ID, "nobody"], "reason": "ticket 4711"})
        assert answer.status == 202, answer
        erased = await tranche.finished(answer.json()["job_id"])
    assert (erased["kind"], erased["summary"]["total"], erased["progress"]["not_processed"]) == ("erase", 2, 0)
    assert await traces(tranche) == []
    assert not {"record", "item"} & await snapshots(tranche)
    scrapes = await Scrapes(tranche.url, f"http://127.0.0.1:{port}").take()
    assert all(text and not any(trace in text.lower() for trace in TRACES) for text in scrapes.texts)
    for part in (api, worker):
        assert [line for line in part.text().splitlines() if any(trace in line.lower() for trace in TRACES)] == []
    gone = await tranche.ask("GET", f"/v1/contacts/{ID}")
    assert (gone.status, gone.json()["code"]) == (410, "RECORD_ERASED"), gone
    assert (await tranche.ask("GET", f"/v1/contacts/{ID}/history")).status == 410
    assert (await tranche.ask("GET", "/v1/contacts/unknown")).status == 404
    # The CRM that takes calls has archived the person, and nobody else.
    left = await tranche.sandbox.contacts()
    assert (ID in left, "other" in left) == (False, True)
    items = (await tranche.get(f"/v1/jobs/{job_id}/items"))["items"]
    assert [item["id"] for item in items] == [None, None, "z"]
    log = json.dumps(await tranche.get("/v1/audit-log"))
    assert "records.erase" in log
    assert "ticket 4711" in log
    other = await tranche.get("/v1/contacts/other")
    assert other["first_name"] == "Other"
    # A later import of the id is a new record.
    await tranche.imported([PERSON])
    again = await tranche.get(f"/v1/contacts/{ID}")
    assert (again["version"], again["first_name"]) == (1, "CanaryFirst")


async def test_a_worker_killed_in_the_middle_is_followed_by_another(tranche: Installation, tmp_path: Path) -> None:
    """Of 250 records from a file the first hundred are removed; the others must wait for one that this test holds."""
    await tranche.start_api()
    await tranche.imported(people(250))
    await tranche.imported([{"id": "kept", "email": "kept@example.com"}])
    ids = tmp_path / "ids.txt"
    ids.write_text("".join(f"c{n:05}\n" for n in range(249)))
    words = ("records", "erase", "--reason", "ticket 4711", "--file", str(ids), "--json", "c00249")
    code, out = await tranche.command(*words)
    assert code == 0, out
    job_id = json.loads(out)["job_id"]

    async def is_at(phase: str, done: str = "0") -> bool:
        at = "SELECT FROM sagas WHERE data ->> 'phase' = $1 AND data ->> 'done' = $2"
        return bool(await tranche.rows(at, phase, done))

    assert (await tranche.ask("POST", "/v1/destinations/hubspot/pause")).status == 200
    worker = await tranche.start_worker()
    await until(lambda: is_at("deliver"))
    holder = await asyncpg.connect(tranche.owner_url)
    try:
        await holder.execute("BEGIN")
        await holder.execute("SELECT FROM records WHERE record_id = 'c00150' FOR UPDATE")
        assert (await tranche.ask("POST", "/v1/destinations/hubspot/resume")).status == 200
        await until(lambda: is_at("records", "100"))
        await worker.child.kill()
    finally:
        await holder.close()
    (row,) = await tranche.rows("SELECT count(*)::int AS n FROM records")
    assert row["n"] == 151
    await tranche.start_worker()
    job = await tranche.finished(job_id)
    assert (job["state"], job["results"]) == ("completed", {"deleted": 250})
    assert [row["record_id"] for row in await tranche.rows("SELECT record_id FROM records")] == ["kept"]
    (row,) = await tranche.rows("SELECT count(*)::int AS n FROM erased_records")
    assert row["n"] == 250
    assert await tranche.rows("SELECT FROM record_versions WHERE cardinality(indexes) > 1") == []
    assert set(await tranche.sandbox.contacts()) == {"kept"}
    for record_id in ("c00000", "c00150", "c00249"):
        assert (await tranche.ask("GET", f"/v1/contacts/{record_id}")).status == 410


async def test_ids_are_erased_from_the_shell(tranche: Installation) -> None:
    await tranche.start_both()
    await tranche.imported(people(3))
    code, out = await tranche.command("records", "erase", "--reason", "ticket 4711", "c00000", "c00002")
    assert code == 0, out
    await tranche.finished(out.split()[-1])
    left = await tranche.rows("SELECT record_id FROM records")
    assert [row["record_id"] for row in left] == ["c00001"]
    code, out = await tranche.command("records", "erase", "c00001")
    assert (code, "--reason" in out) == (2, True)
    code, out = await tranche.command("records", "erase", "--reason", "ticket 4711")
    assert (code, "Send 1 to 1,000 ids" in out) == (2, True), out
