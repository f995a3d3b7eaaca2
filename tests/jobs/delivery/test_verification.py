"""Syncs that compare: each difference between a destination and Tranche is named once, and nothing else is."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import pytest

from app import telemetry
from app.deliveries.drift import Drift, DriftKind, FieldDrift, Listing
from app.destinations import service as destination_service
from app.errors import Invalid
from app.job_status.items.item_filter import DRIFT, Filter, JobItem
from app.job_status.items.queries import JobRef
from app.job_status.items.service import read_drifted, read_items
from app.job_status.service import Job, read_job
from app.kit.retry import RetryPolicy
from app.resource_types.catalog import Catalog
from app.syncs import creation
from jobs.crm.hubspot import adapter as hubspot
from jobs.crm.salesforce import adapter as salesforce
from jobs.delivery import listing_attempt, sync_runner
from jobs.delivery.sync_runner import SyncRunner
from jobs.worker import working
from tests.jobs.breaker.test_circuits import until
from tests.jobs.conftest import World
from tests.jobs.delivery.test_matching import OBJECTS, Account, person, push
from tests.jobs.delivery.test_types import open_crm

MORE: dict[str, dict[str, Any]] = {"salesforce": {"fields": {"company": "Title"}}}


@pytest.fixture(params=["hubspot", "salesforce", "http"])
async def account(request: pytest.FixtureRequest, world: World) -> AsyncIterator[Account]:
    async with AsyncExitStack() as stack:
        yield await open_account(stack, world, request.param)


async def open_account(stack: AsyncExitStack, world: World, kind: str, **options: Any) -> Account:
    return Account(await open_crm(stack, world, kind, kind, options=MORE.get(kind, {}) | options), kind, OBJECTS[kind])


async def verify(account: Account, *, repair: bool = False) -> uuid.UUID:
    async with account.world.database.connection() as connection:
        made = await creation.create(
            connection,
            account.world.tenant_id,
            f"{account.kind}-crm",
            creation.SyncRequest(mode="verify", repair=repair),
            catalog=Catalog(),
            request_id="verify-1",
            actor="test",
        )
        assert made.job_id is not None
        return made.job_id


async def document(account: Account, job_id: uuid.UUID) -> Job:
    async with account.world.database.connection() as connection:
        return (await read_job(connection, account.world.tenant_id, job_id)).job


async def compared(account: Account, *, repair: bool = False) -> tuple[Job, list[JobItem]]:
    """The job of a verification that has ended, and what it found."""
    job_id = await verify(account, repair=repair)
    await account.world.finished(job_id)
    async with account.world.database.connection() as connection:
        drifted = await read_drifted(connection, account.world.tenant_id, job_id, 10_000)
    return await document(account, job_id), drifted


def drifts(items: list[JobItem]) -> dict[str, Drift]:
    found = {}
    for item in items:
        (there,) = item.destinations.values()
        assert there.drift is not None
        assert item.id is not None
        found[item.id] = there.drift
    return found


async def ids(account: Account) -> dict[str, str]:
    """Our key → the id there."""
    key = account.names["key"]
    return {properties[key]: there for there, properties in (await account.held()).items() if properties.get(key)}


async def remove(account: Account, remote_id: str) -> None:
    url = f"{account.url}/__sandbox__/contacts/{remote_id}"
    async with account.session.delete(url, params={"object": account.object}) as answer:
        assert (await answer.json())["deleted"], await answer.text()


async def writes(account: Account) -> int:
    return sum(call["on"] == "write" for call in await account.calls())


async def tamper(account: Account) -> dict[str, DriftKind]:
    """Of 60 records that were imported, and of which one was deleted, somebody there changes some."""
    await push(account, [person(n, phone=f"+49 {n}", company="X") for n in range(60)])
    await push(account, [{"id": "c00059", "deleted": True}])
    names, there = account.names, await ids(account)
    assert len(there) == 59
    for n in (1, 2, 3):
        await account.have(f"c{n:05}", by=names["key"], **{names["phone"]: "+1"})
    await account.have("c00003", by=names["key"], **{names["company"]: None})
    for n in (10, 11):
        await remove(account, there[f"c{n:05}"])
    last = {names["last"]: "Theirs"}
    await account.have("c00059", by=names["key"], **last)
    expected = {f"c{n:05}": DriftKind.DIFFERENT for n in (1, 2, 3)} | {
        "c00010": DriftKind.MISSING,
        "c00011": DriftKind.MISSING,
        "c00059": DriftKind.UNKNOWN,
    }
    await account.have("theirs-1", by=names["key"], **last)
    await account.have("nobody@example.com", **last)  # it has no key of ours, and is none of our business
    return expected | {"theirs-1": DriftKind.UNKNOWN}


async def test_each_difference_is_named_and_nothing_is_sent(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    told: Counter[str] = Counter()

    def hook(event: telemetry.Event) -> None:
        if isinstance(event, telemetry.DriftFound):
            told.update(event.counts)

    monkeypatch.setattr(telemetry, "HOOKS", [*telemetry.HOOKS, hook])
    async with working(account.world.settings):
        expected = await tamper(account)
        before = await writes(account)
        job, items = await compared(account)
        assert await writes(account) == before
        assert told == Counter(kind.value for kind in expected.values())
        found = drifts(items)
        assert {key: drift.kind for key, drift in found.items()} == expected
        names = account.names
        assert found["c00001"].fields == [FieldDrift(names["phone"], "+49 1", "+1")]
        assert sorted(found["c00003"].fields, key=lambda f: f.name) == sorted(
            [FieldDrift(names["phone"], "+49 3", "+1"), FieldDrift(names["company"], "X", None)], key=lambda f: f.name
        )
        assert job.state == "completed"
        assert job.drift is not msgspec.UNSET
        assert msgspec.structs.asdict(job.drift) == {kind: Counter(expected.values())[kind] for kind in DriftKind}
        (effects,) = job.effects.values()
        assert (effects.ok, effects.skipped) == (54, len(expected))
        assert job.summary.total == 61
        assert (await account.world.rows("SELECT count(*)::int AS n FROM dead_letters"))[0]["n"] == 0
        # As before: what was found says nothing about what was sent.
        again, _ = await compared(account)
        assert again.drift == job.drift


async def test_what_differs_is_repaired(account: Account) -> None:
    async with working(account.world.settings):
        expected = await tamper(account)
        job, items = await compared(account, repair=True)
        assert {key: drift.kind for key, drift in drifts(items).items()} == expected
        ends = {item.id: next(iter(item.destinations.values())).state for item in items}
        assert ends == {key: "skipped" if key == "theirs-1" else "ok" for key in expected}
        assert job.state == "completed"

        held = {key: (await account.held())[there] for key, there in (await ids(account)).items()}
        names = account.names
        assert len(held) == 60, "theirs-1 is left alone, and what was removed here is gone there"
        assert "c00059" not in held
        for n in (1, 2, 3, 10, 11):
            values = held[f"c{n:05}"]
            assert (values[names["phone"]], values[names["company"]]) == (f"+49 {n}", "X")
        again, items = await compared(account)
        assert set(drifts(items)) == {"theirs-1"}
        assert again.state == "completed"


async def test_what_is_on_its_way_is_not_called_different(account: Account) -> None:
    async with working(account.world.settings):
        await push(account, [person(n, phone="+49") for n in range(5)])
        await account.misbehave(status={"code": 503, "on": "write"})
        await account.world.push([person(1, phone="+1")])
        await until(lambda: _waits(account))
        job_id = await verify(account)

        async def verified() -> bool:
            (effects,) = (await document(account, job_id)).effects.values()
            return effects.skipped == 1 and effects.ok == 4

        await until(verified)
        await account.misbehave()
        await account.world.finished(job_id)
        assert (await document(account, job_id)).drift == msgspec.convert(
            {}, type((await document(account, job_id)).drift)
        )


async def _waits(account: Account) -> bool:
    (row,) = await account.world.rows(
        "SELECT count(*)::int AS n FROM deliveries WHERE state = 'pending' AND attempt > 0"
    )
    return row["n"] > 0


async def test_a_record_that_was_refused_is_missing_there(account: Account) -> None:
    """It is not on its way any more."""
    async with working(account.world.settings):
        await push(account, [person(n) for n in range(3)])
        await account.misbehave(reject={"keys": ["c00003"]})
        await push(account, [person(3)])
        await account.misbehave()
        _, items = await compared(account)
        assert {key: drift.kind for key, drift in drifts(items).items()} == {"c00003": DriftKind.MISSING}
        job, _ = await compared(account, repair=True)
        assert job.state == "completed"
        _, items = await compared(account)
        assert items == []
    (row,) = await account.world.rows("SELECT resolution FROM dead_letters")
    assert row["resolution"] == "superseded"


@pytest.mark.parametrize("kind", ["hubspot", "salesforce"])
async def test_long_lists_are_read_page_by_page(world: World, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubspot, "BATCH_SIZE", 20)
    monkeypatch.setattr(salesforce, "PAGE", 20)
    monkeypatch.setattr(listing_attempt, "_MOST_FOUND", 25)
    async with AsyncExitStack() as stack, working(world.settings):
        account = await open_account(stack, world, kind)
        await push(account, [person(n) for n in range(50)])
        names = account.names
        for n in range(90):
            await account.have(f"theirs-{n}", by=names["key"], **{names["last"]: "Theirs"})
        job, items = await compared(account)
        assert set(drifts(items)) == {f"theirs-{n}" for n in range(90)}
        assert job.summary.total == 140
        rows = await world.rows("SELECT cardinality(record_ids) AS n FROM deliveries WHERE listing IS NOT NULL")
        assert len(rows) > 2, "a delivery has no more than it can hold"
        async with world.database.connection() as connection:
            page = await read_items(
                JobRef(connection, world.tenant_id, job.job_id), Filter(status=DRIFT), first=0, limit=7
            )
        assert len(page.items) == 7
        assert page.position is not None


@pytest.mark.parametrize("repair", [False, True])
async def test_whoever_is_stopped_loses_no_difference(
    world: World, repair: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync_runner, "_MOST_RECORDS", 40)
    monkeypatch.setattr(sync_runner, "_MOST_WAITING", 3)
    world.settings = msgspec.structs.replace(world.settings, chunk_size=10)
    async with AsyncExitStack() as stack:
        account = await open_account(stack, world, "hubspot", concurrency=2, batch_size=10)
        async with working(world.settings):
            await push(account, [person(n, phone="+49") for n in range(200)])
        names, there = account.names, await ids(account)
        for n in range(0, 200, 20):
            await remove(account, there[f"c{n:05}"])
            await account.have(f"c{n + 1:05}", by=names["key"], **{names["phone"]: "+1"})
        await account.misbehave(latency={"latency": 0.05})
        job_id = await verify(account, repair=repair)
        for _ in range(3):
            async with working(world.settings):
                seen = len(await account.calls())

                async def moves(seen: int = seen) -> bool:
                    return len(await account.calls()) > seen + 1

                await until(moves)
        await account.misbehave()
        async with working(world.settings):
            assert await world.finished(job_id) == "completed"
        job = await document(account, job_id)
        assert job.drift is not msgspec.UNSET
        assert (job.drift.missing, job.drift.different, job.drift.unknown) == (10, 10, 0)
        if repair:
            assert len(await ids(account)) == 200


async def test_what_cannot_be_read_is_said(world: World) -> None:
    policy = RetryPolicy(attempts=2, backoff_base=0.05, backoff_cap=0.1)
    more = {f"delivery_{name}": value for name, value in msgspec.structs.asdict(policy).items()}
    world.settings = msgspec.structs.replace(world.settings, **more)
    async with AsyncExitStack() as stack:
        account = await open_account(stack, world, "hubspot")
        async with working(world.settings):
            await push(account, [person(n) for n in range(3)])
            await account.misbehave(omit={"keys": ["c00001"], "on": "read"})
            job, items = await compared(account)
            assert job.state == "completed_with_failures"
            (effects,) = job.effects.values()
            assert (effects.ok, effects.failed) == (2, 1)
            assert items == []
            assert [(f.code, f.count) for f in job.failures] == [("DESTINATION_UNAVAILABLE", 1)]
            assert (await world.rows("SELECT count(*)::int AS n FROM dead_letters"))[0]["n"] == 0
        blind = await open_account(stack, world, "http", read_path=None)
        with pytest.raises(Invalid, match="read_path"):
            await verify(blind)
        with pytest.raises(Invalid, match="repair"):
            async with world.database.connection() as connection:
                await creation.create(
                    connection, world.tenant_id, "http-crm", creation.SyncRequest(repair=True), catalog=Catalog(),
                    request_id="r", actor="test",
                )  # fmt: skip


async def test_a_destination_is_compared_from_time_to_time(world: World) -> None:
    async with AsyncExitStack() as stack:
        account = await open_account(stack, world, "hubspot", verify_every=3600)
        await account.world.push([person(1)])
        runner = SyncRunner(world.database, world.settings, lambda *_: None)
        await runner.begin_due()
        count = "SELECT count(*)::int AS n FROM jobs WHERE kind = 'sync'"
        assert (await world.rows(count))[0]["n"] == 0, "it was added a moment ago"
        await world.rows("UPDATE destinations SET created_at = now() - interval '61 minutes'")
        await runner.begin_due()
        await runner.begin_due()
        assert (await world.rows(count))[0]["n"] == 1
        async with working(world.settings):
            (row,) = await world.rows("SELECT job_id FROM jobs WHERE kind = 'sync'")
            assert await world.finished(row["job_id"]) == "completed"
        assert (await document(account, row["job_id"])).sync is not msgspec.UNSET
        await world.rows("UPDATE destinations SET verified_at = now() - interval '61 minutes'")
        await runner.begin_due()
        assert (await world.rows(count))[0]["n"] == 2


async def test_a_hostile_answer_stops_nobody(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids, cursors and values that PostgreSQL would not store, and keys that cannot be ours."""
    async with AsyncExitStack() as stack, working(world.settings):
        account = await open_account(stack, world, "hubspot")
        await push(account, [person(1, phone="+49")])
        key = account.names["key"]
        await account.have("c00001", by=key, phone="+1\0" + "9" * 1_000_000)
        await account.have("x" * 300, by=key)
        await account.have("theirs", by=key)
        list_keys = hubspot.HubSpot.list_keys
        pages: list[str] = []

        async def bend(self: hubspot.HubSpot, after: str | None, headers: Any) -> Any:
            page = await list_keys(self, None, headers)
            pages.append(str(after))
            keys = dict.fromkeys(page.keys or {}, "1\x00" + "2" * 1000) | {"a\0b": "3"}
            return msgspec.structs.replace(page, keys=keys, after="next" if len(pages) == 1 else None)

        monkeypatch.setattr(hubspot.HubSpot, "list_keys", bend)
        job, items = await compared(account)
        found = drifts(items)
        assert set(found) == {"c00001", "theirs"}
        assert found["theirs"].remote_id is None
        (field,) = found["c00001"].fields
        assert field.there is not None
        assert len(field.there) == 200
        assert job.state == "completed"
        assert pages == ["None", "next"]


@pytest.mark.parametrize("around", [1, 2, 7])
def test_a_list_that_goes_round_is_noticed(around: int) -> None:
    place: Listing | None = Listing()
    for page in range(1_000):
        assert place is not None
        place = place.move(str(5 if page < 5 else page % around))
        if place is None:
            break
        place = msgspec.json.decode(msgspec.json.encode(place), type=Listing)  # as it is kept
    assert page < 50


def test_a_long_list_is_not_taken_for_one_that_goes_round() -> None:
    place: Listing | None = Listing()
    for page in range(5_000):
        assert place is not None
        place = place.move(str(page))


async def test_a_removed_destination_ends_its_list(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubspot, "BATCH_SIZE", 2)
    monkeypatch.setattr(listing_attempt, "_LONGEST", 0.0)  # a delivery for each page
    async with AsyncExitStack() as stack, working(world.settings):
        account = await open_account(stack, world, "hubspot")
        await push(account, [person(n) for n in range(200)])
        await account.misbehave(latency={"latency": 0.05})
        job_id = await verify(account)

        async def listing() -> bool:
            rows = await world.rows("SELECT FROM deliveries WHERE listing ->> 'after' IS NOT NULL")
            return bool(rows)

        await until(listing)
        async with world.database.connection() as connection:
            await destination_service.set_destination_state(connection, world.tenant_id, "hubspot-crm", "removed")
        await world.finished(job_id)


async def test_a_record_that_is_not_ours_any_more_is_not_repaired(world: World) -> None:
    """Its creation was undone between two attempts, and it was there before us."""
    async with AsyncExitStack() as stack:
        account = await open_account(stack, world, "hubspot", match_on="email")
        theirs = await account.have("c00001@example.com", phone="+1")
        async with working(world.settings):
            await push(account, [person(1, phone="+49"), person(2)])
            await account.have("c00001", by=account.names["key"], phone="+2")
            await account.misbehave(status={"code": 503, "on": "write"})
            job_id = await verify(account, repair=True)

            async def noted() -> bool:
                return bool(await world.rows("SELECT FROM deliveries WHERE drift IS NOT NULL AND attempt > 0"))

            await until(noted)
            await world.rows(
                """UPDATE records SET version = version + 1, deleted = true, document = '{}', withdrawn = '{}'
                WHERE record_id = 'c00001'"""
            )
            await world.rows("UPDATE record_syncs SET before_image = NULL, created = false WHERE record_id = 'c00001'")
            await account.misbehave()
            await world.finished(job_id)
        assert theirs in await account.held()
