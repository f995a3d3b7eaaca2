"""One transaction decides a batch or nothing happened; one key runs once, whatever else goes on."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import msgspec
import pytest

from app.errors import DatabaseUnavailable, KeyBusy, KeyExpired, KeyReused, MalformedRequest, StorageFull
from app.imports import queries
from app.imports.service import Accepted207, Replay
from app.kit.compression import pack
from app.kit.postgres.advisory_locks import lock_number
from app.kit.postgres.database import Database
from app.vocabulary.states import ErrorCode
from tests.db.conftest import ROUTE, Desk, forget_answers, people, person, told

DAY = 86_400.0


@asynccontextmanager
async def holding(desk: Desk, query: str, *arguments: Any) -> AsyncIterator[None]:
    """Somebody else's transaction, open with the locks of one statement."""
    other = await asyncpg.connect(desk.settings.database_url)
    try:
        async with other.transaction():
            await other.execute(query, *arguments)
            yield
    finally:
        await other.close()


async def waiting(desk: Desk, count: int = 1) -> None:
    """Until so many sessions of this database wait for a lock."""
    async with asyncio.timeout(60):
        while await locked(desk) < count:
            await asyncio.sleep(0.01)


async def locked(desk: Desk) -> int:
    """Sessions of this database that wait for a lock now; asked outside the pool under test."""
    connection = await asyncpg.connect(desk.settings.database_url)
    try:
        return int(
            await connection.fetchval(
                """SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND wait_event_type = 'Lock'"""
            )
        )
    finally:
        await connection.close()


class TestKeys:
    async def test_the_same_request_gets_the_same_bytes(self, desk: Desk) -> None:
        """And does nothing a second time, also when it would hold the answer back or wants it short."""
        first = await desk.push(people(3), key="k")
        before = await desk.counts()
        for options in ({}, {"minimal": True}, {"wait": 5.0}):
            again = await desk.send(people(3), key="k", **options)
            assert again == Replay(207, first.body)
        assert await desk.counts() == before

    @pytest.mark.parametrize("options", [{"atomic": True}, {"last_wins": True}, {"dry_run": True}])
    async def test_other_options_are_another_request(self, desk: Desk, options: dict[str, bool]) -> None:
        await desk.push(people(1), key="k")
        with pytest.raises(KeyReused):
            await desk.send(people(1), key="k", **options)

    async def test_another_body_is_another_request(self, desk: Desk) -> None:
        """Byte by byte: even white space makes it another one. The first one is still replayed."""
        first = await desk.push(people(1), key="k")
        body = msgspec.json.encode({"items": people(1)})
        for other in (msgspec.json.encode({"items": people(2)}), body + b" "):
            with pytest.raises(KeyReused):
                await desk.send(other, key="k")
        assert await desk.send(body, key="k") == Replay(207, first.body)
        assert (await desk.counts())["jobs"] == 1

    async def test_keys_of_tenants_are_apart(self, desk: Desk) -> None:
        """Another tenant's request under the same key is its own, and so are its contacts."""
        await desk.push(people(1), key="k")
        (row,) = await desk.rows("INSERT INTO tenants (name) VALUES ('other') RETURNING tenant_id")
        other = Desk(desk.settings, desk.database, row["tenant_id"])
        assert told(await other.push(people(1, company="Else"), key="k")) == [("ok", "created", 1)]

    async def test_an_expired_key_is_refused(self, desk: Desk) -> None:
        """Never run again: not while its answer lies there, and not once the sweeper dropped it."""
        await desk.push(people(1), key="k")
        before = await desk.counts()
        await desk.execute("UPDATE idempotency_keys SET expires_at = now() - interval '1 minute'")
        for body in (people(1), people(2)):
            with pytest.raises(KeyExpired):
                await desk.send(body, key="k")
        await forget_answers(desk, 30 * DAY)
        assert await desk.rows("SELECT answer FROM idempotency_keys") == [{"answer": None}]
        with pytest.raises(KeyExpired):
            await desk.send(people(1), key="k")
        assert await desk.counts() == before

    async def test_a_key_past_its_memory_is_new(self, desk: Desk) -> None:
        await desk.push(people(1), key="old")
        await desk.push(people(1, company="Else"), key="young")
        await desk.execute(
            """UPDATE idempotency_keys
            SET expires_at = now() - interval '29 days' - CASE key WHEN 'old' THEN 2 ELSE 0 END * interval '1 day'"""
        )
        await forget_answers(desk, 30 * DAY)
        assert told(await desk.push(people(2), key="old"))[1] == ("ok", "created", 1)
        with pytest.raises(KeyExpired):
            await desk.send(people(1, company="Else"), key="young")

    async def test_a_live_answer_survives_the_sweeper(self, desk: Desk) -> None:
        first = await desk.push(people(1), key="k")
        await forget_answers(desk, 0)
        assert await desk.send(people(1), key="k") == Replay(207, first.body)

    async def test_an_answer_held_back_is_busy(self, desk: Desk) -> None:
        """Until its time is over, or the final answer took its place."""
        await desk.add_destination("hubspot")
        first = await desk.push(people(1), key="k", wait=30.0)
        with pytest.raises(KeyBusy) as busy:
            await desk.send(people(1), key="k")
        assert 25 < (busy.value.retry_after or 0) <= 30
        await desk.execute("UPDATE idempotency_keys SET answering_until = now()")
        assert await desk.send(people(1), key="k") == Replay(207, first.body)

    async def test_a_settled_answer_takes_the_place_of_the_first(self, desk: Desk) -> None:
        await desk.push(people(1), key="k", wait=30.0)
        async with desk.database.connection() as connection:
            assert await queries.settle_answer(connection, desk.tenant_id, ROUTE, "k", pack(b"settled"))
            assert not await queries.settle_answer(connection, desk.tenant_id, ROUTE, "k", pack(b"late"))
        assert await desk.send(people(1), key="k") == Replay(207, b"settled")

    async def test_a_key_that_is_running_is_busy_at_once(self, desk: Desk) -> None:
        number = lock_number(desk.tenant_id, ROUTE, "k")
        async with holding(desk, "SELECT pg_advisory_xact_lock($1)", number):
            async with patient(desk) as service, asyncio.timeout(service.settings.db_lock_timeout / 2):
                with pytest.raises(KeyBusy) as busy:
                    await service.send(people(1), key="k")
            assert (busy.value.retry_after or 0) > 0
        assert told(await desk.push(people(1), key="k")) == [("ok", "created", 1)]

    async def test_a_body_that_cannot_be_read_leaves_its_key_free(self, desk: Desk) -> None:
        """Nothing was decided, so there is nothing to replay."""
        with pytest.raises(MalformedRequest):
            await desk.send(b"[", key="k")
        assert not any((await desk.counts()).values())
        assert told(await desk.push(people(1), key="k")) == [("ok", "created", 1)]

    async def test_too_many_items_leave_their_key_free(self, desk: Desk) -> None:
        tight = msgspec.structs.replace(desk.settings, max_sync_items=2)
        assert await desk.send(people(3), key="k", settings=tight) is None
        assert not any((await desk.counts()).values())


class TestLocks:
    @pytest.mark.parametrize(("draw", "seconds"), [(0.0, 1), (0.9, 2)])
    async def test_a_locked_contact_makes_every_item_retry(self, desk: Desk, draw: float, seconds: int) -> None:
        """Nothing is written, the seconds are worked out, and the answer stands under its key for good."""
        await desk.push(people(1))
        before = await desk.counts()
        impatient = msgspec.structs.replace(desk.settings, db_lock_timeout=0.6)
        database = Database(impatient, application_name="tests")
        hasty = Desk(impatient, database, desk.tenant_id)
        batch = [{"id": "bad"}, *people(3, company="New")]
        async with holding(desk, "SELECT FROM records FOR UPDATE"):
            answer = await hasty.push(batch, key="k", draw=lambda: draw)
        body = msgspec.json.decode(answer.body)
        assert [(i["status"], i["error_code"], i["retry_after_seconds"]) for i in body["items"]] == [
            ("failed", ErrorCode.MISSING_FIELD, 0),
            *[("retry", ErrorCode.LOCK_TIMEOUT, seconds)] * 3,
        ]
        assert body["summary"] == {"total": 4, "succeeded": 0, "failed": 1, "retry": 3}
        after = await desk.counts()
        assert (after["records"], after["record_versions"]) == (before["records"], before["record_versions"])
        assert await hasty.send(batch, key="k") == Replay(207, answer.body)
        assert told(await hasty.push(people(3, company="New")))[0] == ("ok", "updated", 2)
        await database.close()

    async def test_the_same_new_contacts_in_two_batches(self, desk: Desk) -> None:
        """One batch creates them; the one that had to wait for it finds them there."""
        async with holding(
            desk,
            """INSERT INTO records (tenant_id, type_id, record_id, version, document, job_id, item_index)
            VALUES ($1, 1, 'c00001', 1, '{"email": "c00001@example.com"}', gen_random_uuid(), 0)""",
            desk.tenant_id,
        ):
            late = asyncio.create_task(desk.push([person(0), person(1), person(2, company="New")]))
            await waiting(desk)
        assert told(await late) == [("ok", "created", 1), ("ok", "unchanged", 1), ("ok", "created", 1)]

    async def test_new_contacts_from_everywhere(self, desk: Desk) -> None:
        """Four equal batches at once: each contact is created by one of them and unchanged to the others."""
        batch = people(600)
        answers = await asyncio.gather(*(desk.push(batch) for _ in range(4)))
        outcomes = Counter(outcome for answer in answers for outcome in told(answer))
        assert outcomes == {("ok", "created", 1): 600, ("ok", "unchanged", 1): 1800}
        assert len(await desk.history()) == 600

    @pytest.mark.parametrize(
        "special",
        [{"attributes": {"gone": None, "kept": 1}}, {"if_version": 1}],
        ids=["removes a key", "names its version"],
    )
    async def test_a_contact_that_moves_while_we_wait(self, desk: Desk, special: dict[str, Any]) -> None:
        """What was merged or compared is the contact as it stood when our turn came, not as it stood before."""
        await desk.push([person(0, attributes={"gone": 1})])
        async with holding(
            desk,
            """UPDATE records SET version = 2,
            document = document || '{"company": "Theirs", "attributes.theirs": true}'""",
        ):
            ours = asyncio.create_task(desk.push([person(0, first_name="Ada", **special)]))
            await waiting(desk)
        answer = await ours
        (row,) = await desk.contacts()
        stored = (row["version"], row["first_name"], row["company"], row["attributes"])
        if "if_version" in special:
            assert told(answer) == [("failed", "VERSION_CONFLICT", None)]
            assert stored == (2, None, "Theirs", {"gone": 1, "theirs": True})
        else:
            assert told(answer) == [("ok", "updated", 3)]
            assert stored == (3, "Ada", "Theirs", {"kept": 1, "theirs": True})


class TestTransaction:
    @pytest.mark.parametrize("table", ["idempotency_keys", "deliveries", "record_versions"])
    async def test_a_failure_anywhere_leaves_nothing(self, desk: Desk, table: str) -> None:
        """The disk is full in the last statement: no record, no history, no key; the same key then runs."""
        await desk.add_destination("hubspot")
        await _break(desk, table, "53100")
        with pytest.raises(StorageFull):
            await desk.push(people(3), key="k")
        assert not any((await desk.counts()).values())
        await desk.execute(f"DROP TRIGGER broken ON {table}")
        assert told(await desk.push(people(3), key="k")) == [("ok", "created", 1)] * 3

    async def test_data_that_postgresql_refuses_is_never_called_ok(self, desk: Desk) -> None:
        """Validation should have caught it; if it did not, the sender learns that nothing was stored."""
        await _break(desk, "records", "22P02")
        answer = await desk.push([*people(2), {"id": "bad"}], key="k")
        assert [(status, word) for status, word, _ in told(answer)] == [
            ("retry", "INTERNAL"),
            ("retry", "INTERNAL"),
            ("failed", "MISSING_FIELD"),
        ]
        counts = await desk.counts()
        assert (counts["records"], counts["record_versions"], counts["jobs"]) == (0, 0, 1)

    async def test_a_lost_connection_leaves_nothing(self, desk: Desk) -> None:
        """PostgreSQL ends our session before the commit, as it does when it goes down."""
        await desk.push(people(1))
        before = await desk.counts()
        async with holding(desk, "SELECT FROM records FOR UPDATE"):
            cut = asyncio.create_task(desk.send(people(3, company="New"), key="k"))
            await waiting(desk)
            await desk.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            with pytest.raises(DatabaseUnavailable):
                await cut
        assert await desk.counts() == before
        assert told(await desk.push(people(3, company="New"), key="k"))[0] == ("ok", "updated", 2)

    async def test_unchanged_items_write_nothing(self, desk: Desk) -> None:
        """The very same row versions stand afterwards, and no destination hears of it."""
        await desk.add_destination("hubspot")
        batch = people(3, company="Acme", attributes={"x": 1})
        await desk.push(batch)
        rows = "SELECT record_id, xmin::text, ctid::text, updated_at FROM records ORDER BY record_id"
        before, counted = await desk.rows(rows), await desk.counts()
        answer = await desk.push(batch)
        assert told(answer) == [("ok", "unchanged", 1)] * 3
        assert answer.effects == {"db": "ok", "hubspot": "skipped"}
        assert answer.to_notify == []
        assert await desk.rows(rows) == before
        after = await desk.counts()
        assert {t: after[t] - counted[t] for t in after if after[t] != counted[t]} == {
            "jobs": 1,
            "job_chunks": 1,
            "idempotency_keys": 1,
        }

    @pytest.mark.parametrize("options", [{"dry_run": True}, {"atomic": True}])
    async def test_what_is_not_applied_leaves_no_trace(self, desk: Desk, options: dict[str, bool]) -> None:
        """A dry run, and an atomic batch with one bad item."""
        await desk.add_destination("hubspot")
        answer = await desk.push([*people(2), {"id": "bad"}], **options)
        counts = await desk.counts()
        written = {table: n for table, n in counts.items() if n}
        assert written == {"jobs": 1, "job_chunks": 1, "idempotency_keys": 1}
        assert answer.to_notify == []

    async def test_deliveries_are_cut_into_chunks(self, desk: Desk) -> None:
        """Every changed contact once for each destination, in item order, at most a chunk at a time."""
        ids = [await desk.add_destination(name) for name in ("one", "two")]
        tight = msgspec.structs.replace(desk.settings, chunk_size=2)
        await desk.push(people(5)[::-1], settings=tight)
        rows = await desk.rows(
            "SELECT destination_id, record_ids, indexes, first_index, last_index FROM deliveries ORDER BY delivery_id"
        )
        for destination_id in ids:
            mine = [r for r in rows if r["destination_id"] == destination_id]
            assert [r["record_ids"] for r in mine] == [["c00004", "c00003"], ["c00002", "c00001"], ["c00000"]]
            assert [(r["first_index"], r["last_index"]) for r in mine] == [(0, 1), (2, 3), (4, 4)]
        assert [r["pending"] for r in await desk.rows("SELECT pending FROM effects")] == [5, 5]


async def _break(desk: Desk, table: str, code: str) -> None:
    """From now on an insert into this table fails with this SQLSTATE, at the end of its statement."""
    await desk.execute(
        f"""CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'broken on purpose' USING ERRCODE = '{code}'; END $$;
        CREATE TRIGGER broken AFTER INSERT ON {table} FOR EACH STATEMENT EXECUTE FUNCTION broken()"""
    )


class TestCrowds:
    @pytest.mark.slow
    @pytest.mark.parametrize(("contacts", "of"), [(40, 60), (300, 400)], ids=["small", "in several parts"])
    async def test_overlapping_writers_never_deadlock(self, desk: Desk, contacts: int, of: int) -> None:
        """Sixteen at a time, their contacts in any order: all succeed, and every change is in the history."""
        async with crowd(desk) as sixteen:
            dice = random.Random(11)
            changes: Counter[str] = Counter()
            for round_ in range(4):
                batches = [
                    [person(n, company=f"{writer}-{round_}") for n in dice.sample(range(of), contacts)]
                    for writer in range(16)
                ]
                for answer in await asyncio.gather(*map(sixteen.push, batches)):
                    for item in msgspec.json.decode(answer.body)["items"]:
                        assert item["status"] == "ok", item
                        changes[item["id"]] += item["result"] in ("created", "updated")
        await _check_changes(desk, changes)

    @pytest.mark.slow
    async def test_writers_that_remove_keys_lose_nothing(self, desk: Desk) -> None:
        """Such items are merged with the contact as it stands: every counter is found, every mark is gone."""
        await desk.push([person(n, attributes={"gone": 1}) for n in range(5)])
        async with crowd(desk) as sixteen:
            batches = [
                [person(n, attributes={"gone": None, f"w{writer}": 1}) for n in range(5)] for writer in range(16)
            ]
            answers = await asyncio.gather(*map(sixteen.push, batches))
        done = Counter({f"c{n:05}": 1 for n in range(5)})
        marks: dict[str, dict[str, int]] = {f"c{n:05}": {} for n in range(5)}
        for writer, answer in enumerate(answers):
            for item in msgspec.json.decode(answer.body)["items"]:
                assert item["status"] == "ok"
                done[item["id"]] += 1
                marks[item["id"]][f"w{writer}"] = 1
        await _check_changes(desk, done)
        assert {r["record_id"]: r["attributes"] for r in await desk.contacts()} == marks

    async def test_duplicates_of_a_running_request_pin_no_connection(self, desk: Desk) -> None:
        """While the first request is stuck, 999 like it are turned away and others are served."""
        await desk.push(people(1))
        batch = people(50, company="New")
        async with patient(desk) as service:
            async with holding(desk, "SELECT FROM records FOR UPDATE"):
                first = asyncio.create_task(service.push(batch, key="k"))
                await waiting(desk)
                crowd = asyncio.gather(*(service.send(batch, key="k") for _ in range(999)), return_exceptions=True)
                assert await service.rows("SELECT 1 AS one") == [{"one": 1}]
                assert await locked(desk) == 1
                refused = await crowd
                assert not first.done()
            answer = await first
        assert all(isinstance(error, KeyBusy) for error in refused)
        assert told(answer)[0] == ("ok", "updated", 2)
        assert await desk.send(batch, key="k") == Replay(207, answer.body)

    @pytest.mark.slow
    async def test_a_thousand_at_once_run_once(self, desk: Desk) -> None:
        """One of them runs; every other gets its bytes, or is told to come again, and none waits on a lock."""
        batch = people(100)
        most = 0
        over = asyncio.Event()

        async def watch() -> None:
            nonlocal most
            while not over.is_set():
                most = max(most, await locked(desk))
                await asyncio.sleep(0.01)

        watcher = asyncio.create_task(watch())
        async with patient(desk) as service:
            sent = (service.send(batch, key="k") for _ in range(1_000))
            answers = await asyncio.gather(*sent, return_exceptions=True)
        over.set()
        await watcher
        ran = [a for a in answers if isinstance(a, Accepted207)]
        assert len(ran) == 1
        assert all(a == Replay(207, ran[0].body) for a in answers if isinstance(a, Replay))
        assert [a for a in answers if not isinstance(a, Accepted207 | Replay | KeyBusy)] == []
        assert most <= 2
        counts = await desk.counts()
        assert (counts["records"], counts["record_versions"], counts["jobs"]) == (100, 1, 1)


@asynccontextmanager
async def patient(desk: Desk, **changes: Any) -> AsyncIterator[Desk]:
    """The same desk with a pool of its own, where a busy machine makes nobody give up waiting."""
    waits = dict.fromkeys(
        ("db_acquire_timeout", "db_connect_timeout", "db_lock_timeout", "db_statement_timeout"), 120.0
    )
    settings = msgspec.structs.replace(desk.settings, **(waits | changes))
    database = Database(settings, application_name="tests")
    try:
        yield Desk(settings, database, desk.tenant_id)
    finally:
        await database.close()


@asynccontextmanager
async def crowd(desk: Desk) -> AsyncIterator[Desk]:
    """The same desk with a pool in which sixteen can write at once; afterwards none of them met a deadlock."""
    async with patient(desk, db_pool_size=16) as wide:
        yield wide
    await asyncio.sleep(0.1)  # a session's statistics are complete once it has ended
    (row,) = await desk.rows("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    assert row["deadlocks"] == 0


async def _check_changes(desk: Desk, changes: Counter[str]) -> None:
    """Versions count the changes, and the history has every one of them."""
    assert {r["record_id"]: r["version"] for r in await desk.contacts()} == changes
    found: dict[str, list[int]] = {}
    for row in await desk.history():
        found.setdefault(row["record_id"], []).append(row["version"])
    assert {contact: sorted(versions) for contact, versions in found.items()} == {
        contact: list(range(1, count + 1)) for contact, count in changes.items()
    }
