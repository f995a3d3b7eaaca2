"""A person is planted wherever the service keeps anything, and erased: nothing of them is found then."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import asyncpg
from redis.asyncio import Redis

from app.kit.compression import unpack
from tests.acceptance.harness import Installation, until
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


async def plant(tranche: Installation, echo: Echo) -> str:
    """The person in every table; the id of a file that had them."""
    answer = await tranche.ask("POST", "/v1/webhook-endpoints", json={"url": f"{echo.url}/hook"})
    assert answer.status == 201, answer
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
    return job_id


async def _dead(echo: Echo) -> list[str]:
    return echo.events("item.dead")


async def test_nothing_of_an_erased_person_is_found(tranche: Installation) -> None:
    async with echoing() as echo:
        changes = {"webhook_private": "127.0.0.0/8"}
        api = await tranche.start_api(**changes)
        worker = await tranche.start_worker(**changes)
        job_id = await plant(tranche, echo)
        before = await traces(tranche)
        for place in ("records.record_id", "record_versions.versions", "job_chunks.outcomes", "job_chunks.sources",
                      "deliveries.record_ids", "dead_letters.error_detail", "webhook_messages.body",
                      "idempotency_keys.answer", "record_syncs.record_id"):  # fmt: skip
            assert place in before, before
        answer = await tranche.ask("POST", "/v1/contacts:erase", json={"ids": [ID, "nobody"], "reason": "ticket 4711"})
        assert answer.status == 202, answer
        erased = await tranche.finished(answer.json()["job_id"])
    assert (erased["kind"], erased["summary"]["total"], erased["progress"]["not_processed"]) == ("erase", 2, 0)
    assert await traces(tranche) == []
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
