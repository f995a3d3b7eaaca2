"""Workers are killed in the middle of an undo: whoever comes next goes on, and nothing is done twice or left out."""

from __future__ import annotations

import asyncio

from tests.acceptance.harness import Installation, people, until

COUNT = 10_000


async def test_workers_killed_between_ranges_and_in_them(tranche: Installation) -> None:
    """Two at a time, killed again and again, until all of a large import is taken back here and at the CRM."""
    await tranche.start_both()
    for start in range(0, COUNT, 1_000):
        last = await tranche.imported(people(1_000, start, first_name="old"))
    await tranche.finished(last, seconds=60)
    answer = await tranche.ask(
        "POST",
        "/v1/contacts:bulk",
        headers={"Idempotency-Key": "new", "Prefer": "respond-async"},
        json={"items": people(COUNT, first_name="new")},
    )
    assert answer.status == 202, answer
    imported = answer.json()["job_id"]
    await tranche.finished(imported, seconds=60)
    changed = await tranche.imported(people(100, first_name="late"))
    await tranche.finished(changed)

    asked = await tranche.ask("POST", f"/v1/jobs/{imported}/undo")
    assert asked.status == 202, asked
    undo = asked.json()["job_id"]
    kills = 0

    async def applied() -> int:
        return int((await tranche.job(undo))["progress"]["processed"])

    worker = await tranche.start_worker()
    before = await applied()
    while (done := await applied()) < COUNT and kills < 8:
        if done > before:  # it has begun, and is somewhere in a range
            await worker.child.kill()
            kills += 1
            worker, before = await tranche.start_worker(), done
        await asyncio.sleep(0.01)

    async def finished() -> bool:
        return bool((await tranche.job(undo))["finished_at"])

    await until(finished, 90)
    job = await tranche.job(undo)
    assert job["summary"] == {"total": COUNT, "succeeded": COUNT - 100, "failed": 100, "retry": 0}
    count = "SELECT sum(cardinality(indexes))::int AS n FROM record_versions WHERE job_id = $1"
    (row,) = await tranche.rows(count, undo)
    assert row["n"] == COUNT - 100
    expected = {f"c{n:05}": "late" if n < 100 else "old" for n in range(COUNT)}
    stored = await tranche.rows("SELECT record_id AS record_id, document ->> 'first_name' AS first_name FROM records")
    assert {row["record_id"]: row["first_name"] for row in stored} == expected
    held = await tranche.sandbox.contacts()
    assert {id_: contact["properties"]["firstname"] for id_, contact in held.items()} == expected
