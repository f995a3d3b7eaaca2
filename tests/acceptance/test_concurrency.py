"""Many at once: one key, overlapping contacts, and the others who must not wait for either."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

from tests.acceptance.harness import Answer, Installation, people


async def test_a_thousand_requests_with_one_key(tranche: Installation) -> None:
    """One effect, one body; and meanwhile requests with other keys get through."""
    await tranche.start_api(workers=2)
    items = people(20)

    async def other(n: int) -> Answer:
        await asyncio.sleep(0.02 * n)
        return await tranche.push(people(20, start=1000 + 20 * n), key=f"other-{n}")

    others = [asyncio.create_task(other(n)) for n in range(20)]
    answers = await asyncio.gather(*(tranche.push(items, key="the-one") for _ in range(1000)))
    assert {answer.status for answer in answers} <= {207, 409}, Counter(a.status for a in answers)
    assert [answer.status for answer in await asyncio.gather(*others)] == [207] * 20
    bodies = {answer.body for answer in answers if answer.status == 207}
    assert len(bodies) == 1
    busy = [answer for answer in answers if answer.status == 409]
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in busy)
    assert {answer.json()["code"] for answer in busy} <= {"IDEMPOTENCY_KEY_IN_USE"}
    again = await asyncio.gather(*(tranche.insist(items, key="the-one") for _ in range(max(1, len(busy)))))
    assert {(answer.status, answer.body) for answer, _ in again} == {(207, *bodies)}
    first = [a for a in answers if a.status == 207 and "Idempotency-Replayed" not in a.headers]
    assert len(first) == 1
    jobs = (await tranche.get("/v1/jobs?limit=1000"))["jobs"]
    assert len(jobs) == 21
    assert await tranche.rows("SELECT DISTINCT version FROM records") == [{"version": 1}]
    await tranche.versions_are_true()


async def test_writers_on_overlapping_contacts(tranche: Installation) -> None:
    """16 writers, 300 contacts in every order: no error, no deadlock, every item ok, versions without a gap."""
    # On a busy machine, a contact is held for longer than others wait for it by default.
    await asyncio.gather(tranche.start_api(db_lock_timeout=60.0, db_statement_timeout=60.0), tranche.start_worker())

    async def write(number: int) -> None:
        chance = random.Random(number)
        for n in range(5):
            items = chance.sample(people(300, phone=f"{number} {n}"), 100)
            answer = await tranche.push(items, key=f"{number}-{n}")
            assert answer.status == 207, answer
            assert answer.json()["summary"] == {"total": 100, "succeeded": 100, "failed": 0, "retry": 0}

    await asyncio.gather(*(write(number) for number in range(16)))
    (database,) = await tranche.rows("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    assert database["deadlocks"] == 0
    await tranche.versions_are_true()
    (total,) = await tranche.rows("SELECT sum(version)::int AS versions FROM records")
    assert total["versions"] == 16 * 5 * 100
    await tranche.all_synced(60)
    there = await tranche.sandbox.contacts()
    here = await tranche.contacts()
    assert {row["record_id"]: row["phone"] for row in here} == {
        key: contact["properties"]["phone"] for key, contact in there.items()
    }
