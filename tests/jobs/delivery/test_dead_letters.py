"""Dead letters from end to end: refused, taken again, refused again, mended, delivered; one by one and at once."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
import uuid_utils.compat

from app.dead_letters import selection as dead_letter_selection
from app.dead_letters import service as dead_letter_service
from app.dead_letters import views
from app.dead_letters.queries import Filter
from app.dead_letters.replay import NothingTaken, Taken
from app.dead_letters.selection import Actor, Wanted
from app.dead_letters.service import DecisionAnswer
from app.errors import Conflict, NotFound, NothingToRetry
from app.job_status import service as job_status_service
from app.job_status.items import item_filter
from app.job_status.items import service as item_service
from app.job_status.items.queries import JobRef
from app.resource_types.catalog import Catalog
from jobs.worker import working
from tests.jobs.conftest import World, people


def actor(world: World) -> Actor:
    return Actor(world.tenant_id, "key-1", "request-of-a-human")


async def retry(world: World, job_id: uuid.UUID, destinations: Sequence[str] | None = None) -> Taken:
    return await dead_letter_service.retry(
        world.database, actor(world), job_id, destinations, world.settings, new_id=uuid_utils.compat.uuid7
    )


async def replay(world: World, wanted: Wanted, rate: float | None = None) -> Taken | NothingTaken:
    return await dead_letter_service.replay(
        world.database,
        actor(world),
        wanted,
        world.settings,
        rate=rate,
        catalog=Catalog(),
        new_id=uuid_utils.compat.uuid7,
    )


async def sent(world: World, taken: Taken | NothingTaken) -> uuid.UUID:
    """The job of a retry or replay, finished."""
    assert taken.job_id is not None
    await world.finished(taken.job_id)
    return taken.job_id


async def read(world: World, job_id: uuid.UUID) -> job_status_service.Job:
    async with world.database.connection() as connection:
        return (await job_status_service.read_job(connection, world.tenant_id, job_id)).job


def merged(job: job_status_service.Job) -> dict[str, int]:
    """At the one destination, without the zeros."""
    assert job.merged is not msgspec.UNSET
    return {k: v for k, v in msgspec.structs.asdict(job.merged["hubspot"]).items() if v}


async def all_dead_letters(world: World) -> list[dict[str, Any]]:
    return await world.rows("SELECT * FROM dead_letters ORDER BY dead_letter_id")


async def fail(world: World, count: int, bad: int, start: int = 0) -> uuid.UUID:
    """An import of which the CRM refuses the first `bad` items; workers must be at work."""
    await refuse(world, range(start, start + bad))
    answer = await world.push(people(count, start))
    assert await world.finished(answer.job_id) == "completed_with_failures"
    return answer.job_id


async def refuse(world: World, numbers: Sequence[int]) -> None:
    if numbers:
        await world.sandbox.misbehave(reject={"emails": [f"c{i:05}@example.com" for i in numbers]})
    else:
        await world.sandbox.recover()


async def test_what_failed_is_retried_until_all_is_there(world: World) -> None:
    """The issue's story: 1,000 items, 20 refused; 15 mended, retried; the rest mended, retried: 1,000 of 1,000."""
    async with working(world.settings):
        root = await fail(world, 1_000, 20)
        job = await read(world, root)
        assert job.attempts is msgspec.UNSET
        assert merged(job) == {"total": 1_000, "ok": 980, "failed": 20}
        await refuse(world, range(5))
        second = await sent(world, await retry(world, root))
        assert merged(await read(world, root)) == {"total": 1_000, "ok": 995, "failed": 5}
        await refuse(world, [])
        third = await sent(world, await retry(world, second))
        job = await read(world, root)
    assert merged(job) == {"total": 1_000, "ok": 1_000}
    assert [(a.job_id, a.kind) for a in job.attempts or ()] == [(root, "import"), (second, "retry"), (third, "retry")]
    assert [a.state for a in job.attempts or ()] == ["completed_with_failures"] * 2 + ["completed"]
    # Any attempt tells the same, and is of the same root.
    again = await read(world, second)
    assert (again.root_job_id, again.merged, again.attempts) == (root, job.merged, job.attempts)
    # Nothing was sent twice: each contact left one effect at the CRM.
    effects = [e["key"] for e in await world.sandbox.effects()]
    assert len(effects) == len(set(effects)) == 1_000
    found = await all_dead_letters(world)
    assert len(found) == 25
    assert {x["resolution"] for x in found} == {"replayed"}
    assert {x["root_job_id"] for x in found} == {root}
    assert all(x["chain_id"] for x in found[20:])
    assert {x["resolved_by"] for x in found} == {"key-1"}


async def test_only_what_failed_is_sent_again(world: World) -> None:
    async with working(world.settings):
        root = await fail(world, 50, 3)
        calls = len(await world.sandbox.calls())
        await refuse(world, [])
        taken = await retry(world, root)
        again = await sent(world, taken)
    assert (taken.taken, taken.items, taken.remaining, taken.effects) == (3, 3, 0, {"hubspot": "pending"})
    assert len(await world.sandbox.calls()) == calls + 1
    assert await world.effects(again) == {"ok": 3}
    async with world.database.connection() as connection:
        page = await item_service.read_items(
            JobRef(connection, world.tenant_id, again), item_filter.Filter(), first=0, limit=10
        )
        before = await item_service.read_items(
            JobRef(connection, world.tenant_id, root), item_filter.Filter(), first=0, limit=4
        )
    assert [(i.index, i.id, i.status, i.result, i.version) for i in page.items] == [
        (n, f"c{n:05}", "ok", "unchanged", 1) for n in range(3)
    ]
    assert [i.destinations["hubspot"].replayed_by for i in before.items] == [again] * 3 + [None]
    assert before.items[0].destinations["hubspot"].dead_letter_id is not None


async def test_a_retry_is_made_once_however_often_it_is_asked_for(world: World) -> None:
    """Two at the same moment and one later: one job, and it is everybody's answer."""
    await world.sandbox.misbehave(reject={"emails": ["c00000@example.com"]})
    async with working(world.settings):
        root = await fail(world, 10, 5)
        await refuse(world, [])
    # Nobody works, so the retry stays under way.
    both = await asyncio.gather(retry(world, root), retry(world, root))
    assert sorted(t.taken for t in both) == [0, 5]
    third = await retry(world, root)
    assert {t.job_id for t in both} == {third.job_id}
    assert (third.kind, third.state, third.root_job_id) == ("retry", "syncing", root)
    assert merged(await read(world, root)) == {"total": 10, "ok": 5, "open": 5}
    async with working(world.settings):
        await sent(world, third)
        assert merged(await read(world, root)) == {"total": 10, "ok": 10}
        with pytest.raises(NothingToRetry):
            await retry(world, root)
    assert len(await world.rows("SELECT FROM jobs WHERE kind = 'retry'")) == 1


async def test_what_waits_is_due_at_once(world: World) -> None:
    """A retry of a job whose items wait for their next attempt makes no new job, only an end of the waiting."""
    settings = msgspec.structs.replace(world.settings, delivery_backoff_base=3_600.0, delivery_backoff_cap=3_600.0)
    await world.sandbox.misbehave(status={"code": 503, "times": 1})
    async with working(settings):
        answer = await world.push(people(5))
        async with asyncio.timeout(60):
            while (await world.effects(answer.job_id)) != {"retry": 5}:
                await asyncio.sleep(0.02)
        (waiting,) = await world.rows("SELECT next_attempt_at > now() AS later FROM deliveries")
        taken = await retry(world, answer.job_id)
        if waiting["later"]:
            assert (taken.job_id, taken.kind, taken.due, taken.taken) == (answer.job_id, "import", 5, 0)
        assert await world.finished(answer.job_id) == "completed"


async def test_a_destination_that_is_not_named_is_left_alone(world: World) -> None:
    async with working(world.settings):
        root = await fail(world, 4, 2)
        with pytest.raises(NotFound, match="no destination 'salesforce'; there are: hubspot"):
            await retry(world, root, ["salesforce"])
        await refuse(world, [])
        await sent(world, await retry(world, root, ["hubspot"]))
    with pytest.raises(NotFound):
        await retry(world, uuid.uuid4())


async def test_a_removed_destination_is_told(world: World) -> None:
    async with working(world.settings):
        root = await fail(world, 4, 2)
    await world.rows("UPDATE destinations SET state = 'removed'")
    with pytest.raises(NothingToRetry, match=r"removed destinations \(hubspot\)"):
        await retry(world, root)
    (first, second) = await all_dead_letters(world)
    taken = await replay(world, [first["dead_letter_id"]])
    assert taken.job_id is None
    assert [(s.destination, s.reason, s.count) for s in taken.skipped] == [("hubspot", "destination_removed", 1)]
    taken = await replay(world, Filter(destination="hubspot"))
    assert [(s.reason, s.count) for s in taken.skipped] == [("destination_removed", 2)]
    async with world.database.connection() as connection:
        found = await views.read_dead_letter(connection, world.tenant_id, second["dead_letter_id"], Catalog())
    assert found.choices == ["drop"]


async def test_concurrent_replays_share_the_letters(world: World) -> None:
    """However they overlap, each dead letter is taken by one job, and each contact sent once."""
    async with working(world.settings):
        await fail(world, 60, 60)
        ids = [x["dead_letter_id"] for x in await all_dead_letters(world)]
        await refuse(world, [])
        calls = len(await world.sandbox.effects())
        selections = [ids[:40], ids[20:][::-1], Filter(destination="hubspot")]
        taken = await asyncio.gather(*[replay(world, chosen) for chosen in selections * 2])
        assert sum(t.taken for t in taken) == 60
        for one in taken:
            if one.job_id is not None:
                await world.finished(one.job_id)
    assert len(await world.sandbox.effects()) - calls == 60
    counts = await world.rows("SELECT replay_job_id, count(*) FROM dead_letters GROUP BY 1")
    assert {r["replay_job_id"]: r["count"] for r in counts} == {t.job_id: t.taken for t in taken if t.job_id}
    # Who came too late is told who has them.
    late = await replay(world, ids)
    assert (late.job_id, late.taken) == (None, 0)
    assert set(late.jobs) == {t.job_id for t in taken if t.job_id}


async def test_letters_of_one_contact_are_sent_as_one(world: World) -> None:
    """Two versions were refused, by two imports: the contact goes once, as it stands, and both imports know."""
    async with working(world.settings):
        one = await fail(world, 2, 1)
        two = (await world.push([{"id": "c00000", "email": "c00000@example.com", "first_name": "Ada"}])).job_id
        await world.finished(two)
        still = await sent(world, await replay(world, Filter(record_id="c00000")))
        assert await world.effects(still) == {"failed": 1}
        assert merged(await read(world, one)) == {"total": 2, "ok": 1, "failed": 1}
        assert merged(await read(world, two)) == {"total": 1, "failed": 1}
        await refuse(world, [])
        await sent(world, await replay(world, Filter(error_code="DESTINATION_REJECTED")))
        first, second = await read(world, one), await read(world, two)
    assert merged(first) == {"total": 2, "ok": 2}
    assert merged(second) == {"total": 1, "ok": 1}
    assert [a.kind for a in second.attempts or ()] == ["import", "replay", "replay"]
    assert (await world.sandbox.contacts())["c00000"]["properties"]["firstname"] == "Ada"
    assert len(await world.sandbox.effects()) == 2


async def test_a_large_replay_is_paced(world: World) -> None:
    """1,000 dead letters at 500 a second are not due at once; a single one does not wait behind them."""
    async with working(world.settings):
        await fail(world, 1_000, 1_000)
        await fail(world, 1, 1, start=1_000)
    found = await all_dead_letters(world)
    taken = await replay(world, [x["dead_letter_id"] for x in found[:1_000]], rate=500.0)
    due = await world.rows(
        """SELECT extract(epoch FROM next_attempt_at - created_at)::float8 AS seconds,
            cardinality(dead_letters) AS dead_letters, first_index
        FROM deliveries WHERE job_id = $1 ORDER BY first_index""",
        taken.job_id,
    )
    assert [d["dead_letters"] for d in due] == [100] * 10
    assert [round(d["seconds"], 1) for d in due] == [round(0.2 * n, 1) for n in range(10)]
    single = await replay(world, [found[1_000]["dead_letter_id"]])
    (alone,) = await world.rows(
        "SELECT next_attempt_at <= now() AS due FROM deliveries WHERE job_id = $1", single.job_id
    )
    assert alone["due"]
    await refuse(world, [])
    async with working(world.settings):
        await sent(world, taken)
    assert len(await world.sandbox.effects()) == 1_001


async def test_more_than_one_job_can_take_is_left_for_the_next(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letter_selection, "MOST", 4)
    async with working(world.settings):
        root = await fail(world, 10, 10)
        await refuse(world, [])
        taken = [await retry(world, root) for _ in range(3)]
        assert [(t.taken, t.remaining) for t in taken] == [(4, 6), (4, 2), (2, 0)]
        for one in taken:
            await sent(world, one)
        assert merged(await read(world, root)) == {"total": 10, "ok": 10}


async def test_dropped_letters_are_out_of_the_way(world: World) -> None:
    async with working(world.settings):
        root = await fail(world, 10, 4)
        found = await all_dead_letters(world)
        ids = [x["dead_letter_id"] for x in found[:3]]
        decided = await dead_letter_service.drop(world.database, actor(world), ids, "left the company")
        assert decided == DecisionAnswer(decided=3, remaining=0, skipped=[])
        assert merged(await read(world, root)) == {"total": 10, "ok": 6, "failed": 1, "dropped": 3}
        again = await dead_letter_service.drop(world.database, actor(world), ids, "again")
        assert [(s.reason, s.count) for s in again.skipped] == [("dropped", 3)]
        await refuse(world, [])
        taken = await retry(world, root)
        assert taken.taken == 1
        await sent(world, taken)
        assert merged(await read(world, root)) == {"total": 10, "ok": 7, "dropped": 3}
    audit = await world.rows("SELECT * FROM audit_log WHERE action = 'dead_letters.drop' ORDER BY subject")
    assert [a["subject"] for a in audit] == sorted(f"dead_letter:{i}" for i in ids)
    assert {a["actor"] for a in audit} == {"key-1"}
    assert msgspec.json.decode(audit[0]["detail"]) == {"reason": "left the company"}


async def test_a_doubt_is_settled_by_a_human(world: World) -> None:
    """The CRM took it and never said so, nor can it be read back: somebody looks there, and says that it arrived."""
    async with working(world.settings):
        root = await fail(world, 3, 2)
    doubtful, certain = await all_dead_letters(world)
    await world.rows(
        "UPDATE dead_letters SET error_code = 'OUTCOME_UNKNOWN', state = 'dead' WHERE dead_letter_id = $1",
        doubtful["dead_letter_id"],
    )
    async with world.database.connection() as connection:
        shown = await views.read_dead_letter(connection, world.tenant_id, doubtful["dead_letter_id"], Catalog())
    assert shown.choices == ["replay", "drop", "settle"]
    both = [doubtful["dead_letter_id"], certain["dead_letter_id"]]
    with pytest.raises(Conflict, match=f"not so: {certain['dead_letter_id']}"):
        await dead_letter_service.settle(world.database, actor(world), both, "seen there")
    await dead_letter_service.settle(world.database, actor(world), both[:1], "seen there")
    (sync,) = await world.rows("SELECT * FROM record_syncs WHERE record_id = $1", doubtful["record_id"])
    assert (sync["synced_version"], sync["state"], sync["error_code"]) == (1, "ok", None)
    assert merged(await read(world, root)) == {"total": 3, "ok": 2, "failed": 1}
    dead_letter = (await all_dead_letters(world))[0]
    assert (dead_letter["resolution"], dead_letter["note"]) == ("delivered", "seen there")


async def test_nobody_decides_about_anothers_letters(world: World) -> None:
    async with working(world.settings):
        root = await fail(world, 3, 2)
    ids = [x["dead_letter_id"] for x in await all_dead_letters(world)]
    stranger = Actor(world.tenant_id + 1, "key-2", "r")
    new_id = uuid_utils.compat.uuid7
    with pytest.raises(NotFound):
        await dead_letter_service.retry(world.database, stranger, root, None, world.settings, new_id=new_id)
    for work in (
        dead_letter_service.replay(
            world.database, stranger, ids, world.settings, rate=None, catalog=Catalog(), new_id=new_id
        ),
        dead_letter_service.drop(world.database, stranger, ids, "mine"),
        dead_letter_service.settle(world.database, stranger, ids, "mine"),
    ):
        with pytest.raises(NotFound, match="nothing was changed"):
            await work
    everything = await dead_letter_service.replay(
        world.database, stranger, Filter(), world.settings, rate=None, catalog=Catalog(), new_id=new_id
    )
    assert everything.job_id is None
    assert {x["resolution"] for x in await all_dead_letters(world)} == {None}


async def test_a_letter_tells_all_that_is_needed_to_decide(world: World) -> None:
    async with working(world.settings):
        root = await fail(world, 1, 1)
        second = await sent(world, await retry(world, root))
        await world.push([{"id": "c00000", "email": "c00000@example.com", "first_name": "Ada"}])
    last = (await all_dead_letters(world))[1]
    async with world.database.connection() as connection:
        found = await views.read_dead_letter(connection, world.tenant_id, last["dead_letter_id"], Catalog())
    assert [(x.job_id, x.resolution, x.replay_job_id) for x in found.chain[:2]] == [
        (root, "replayed", second),
        (second, None, None),
    ]
    assert (found.choices, found.root_job_id, found.job_id) == (["replay", "drop"], root, second)
    assert found.payload is not None
    assert found.failed_version is not None
    payload = msgspec.json.decode(found.payload)
    assert (payload["version"], payload["first_name"]) == (2, "Ada")
    assert (found.failed_version.job_id, found.failed_version.item_index) == (root, 0)
    assert found.failed_version.record is not None
    assert "first_name" not in msgspec.json.decode(found.failed_version.record)
    assert found.headers["X-Request-ID"] == ["request-of-a-human"]
