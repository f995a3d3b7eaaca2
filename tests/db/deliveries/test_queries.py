"""Claiming and recording deliveries: who may send what, and what is known afterwards."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import Counter
from typing import Any

import asyncpg
import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from app.deliveries import queries as delivery_queries
from app.deliveries import record_states
from app.deliveries.queries import Claim, DeadLetter, ItemError, Record, Recorded, Tried
from app.destinations import service
from app.job_status import queries as job_status_queries
from app.kit.postgres.sql import QUERIES
from app.vocabulary.states import CODE_STATE, STATE_CODE
from tests.claims import claim_delivery
from tests.db.conftest import Desk, people, person


class Line:
    """The deliveries of one destination, in chunks of two contacts."""

    def __init__(self, desk: Desk, destination_id: int) -> None:
        self.desk = desk
        self.destination_id = destination_id

    async def owe(self, *names: str, **fields: Any) -> uuid.UUID:
        """One delivery of these contacts for each destination; returns its job."""
        items = [{"id": name, "email": f"{name}@example.com"} | fields for name in names]
        cut = msgspec.structs.replace(self.desk.settings, chunk_size=max(1, len(items)))
        return (await self.desk.push(items, settings=cut)).job_id

    async def claim(self, *, lease: float = 30.0, concurrency: int = 8) -> Claim | None:
        async with self.desk.database.connection() as connection:
            return await claim_delivery(
                connection,
                self.desk.tenant_id,
                self.destination_id,
                token=uuid.uuid4(),
                lease=lease,
                concurrency=concurrency,
            )

    async def claim_some(self, limit: int, *, concurrency: int = 8) -> list[Claim]:
        async with self.desk.database.connection() as connection:
            return await delivery_queries.claim_deliveries(
                connection,
                self.desk.tenant_id,
                self.destination_id,
                token=uuid.uuid4(),
                lease=30.0,
                concurrency=concurrency,
                limit=limit,
            )

    async def take(self, **options: Any) -> Claim:
        """A claim that must be had."""
        claim = await self.claim(**options)
        assert claim is not None
        return claim

    async def record(self, claim: Claim, states: str, **changes: Any) -> Recorded | None:
        async with self.desk.database.connection() as connection:
            return await delivery_queries.record_delivery(
                connection, claim, "contacts", report(claim, states, **changes)
            )

    async def delivery(self, claim: Claim) -> dict[str, Any]:
        (row,) = await self.desk.rows(
            "SELECT * FROM deliveries WHERE tenant_id = $1 AND delivery_id = $2", claim.tenant_id, claim.delivery_id
        )
        return row

    async def job(self, job_id: uuid.UUID) -> tuple[str, bool]:
        """Its state, and whether it is finished."""
        (row,) = await self.desk.rows("SELECT state, finished_at FROM jobs WHERE job_id = $1", job_id)
        return row["state"], row["finished_at"] is not None

    async def block(self, seconds: float, code: str = "CIRCUIT_OPEN") -> None:
        async with self.desk.database.connection() as connection:
            await delivery_queries.block_destination(
                connection, self.desk.tenant_id, self.destination_id, seconds, code, "why"
            )

    async def due(self) -> bool:
        async with self.desk.database.connection() as connection:
            return (self.desk.tenant_id, self.destination_id) in await delivery_queries.due_destinations(connection)

    async def release_lost(self) -> int:
        async with self.desk.database.connection() as connection:
            return await delivery_queries.release_lost(connection)

    async def check_counts(self) -> None:
        """The counters of every effect are the states of its deliveries."""
        states: dict[tuple[Any, ...], Counter[str]] = {}
        for row in await self.desk.rows("SELECT job_id, destination_id, states FROM deliveries"):
            counted = states.setdefault((row["job_id"], row["destination_id"]), Counter())
            counted.update(CODE_STATE[code].value for code in row["states"])
        for row in await self.desk.rows("SELECT * FROM effects"):
            counts = {state.value: row[state.value] for state in STATE_CODE if row[state.value]}
            assert counts == states[row["job_id"], row["destination_id"]]


def report(claim: Claim, states: str, **changes: Any) -> Record:
    """The end of an attempt: every contact tried in its version; another attempt at once if any item is open."""
    tried = [
        Tried(name, CODE_STATE[code], version, version if code == "o" else 0, None, None, None)
        for name, version, code in zip(claim.record_ids, claim.versions, states, strict=True)
        if code != "p"
    ]
    dead_letters = [
        DeadLetter(name, version, index, CODE_STATE[code], "DESTINATION_REJECTED", "no")
        for name, version, index, code in zip(claim.record_ids, claim.versions, claim.indexes, states, strict=True)
        if code in "fd"
    ]
    is_open = any(code in "pru" for code in states)
    fields: dict[str, Any] = {
        "states": states,
        "errors": {},
        "attempts": claim.attempt,
        "wait": 0.0 if is_open else None,
        "absence": "clear",
        "tried": tried,
        "dead_letters": dead_letters,
    }
    return Record(**(fields | changes))


@pytest.fixture
async def line(desk: Desk) -> Line:
    return Line(desk, await desk.add_destination("hubspot"))


class TestClaim:
    async def test_nothing_owed_is_nothing_claimed(self, line: Line) -> None:
        assert await line.claim() is None
        assert not await line.due()

    async def test_a_claim_tells_what_to_send(self, line: Line) -> None:
        job_id = await line.owe("a", "b")
        assert await line.due()
        claim = await line.take()
        assert (claim.job_id, claim.record_ids, claim.versions, claim.indexes) == (job_id, ["a", "b"], [1, 1], [0, 1])
        assert (claim.states, claim.errors, claim.attempt) == ("pp", {}, 1)
        assert claim.absent_for is None
        assert 0 <= claim.age < 60
        assert not await line.due()

    async def test_the_oldest_first(self, line: Line) -> None:
        jobs = [await line.owe(name) for name in "abc"]
        assert [(await line.take()).job_id for _ in jobs] == jobs

    async def test_deliveries_that_share_a_contact_wait_for_each_other(self, line: Line) -> None:
        """The next one that shares none goes first, so versions at the CRM never go backwards."""
        await line.owe("a", "b")
        await line.owe("b", "c", company="New")
        await line.owe("d")
        first = await line.take()
        assert (await line.take()).record_ids == ["d"]
        assert await line.claim() is None
        await line.record(first, "oo")
        assert (await line.take()).record_ids == ["b", "c"]

    async def test_records_that_a_job_of_the_crm_may_write_wait_for_it(self, line: Line) -> None:
        """Though nobody looks after the job at the moment, and its delivery is not due yet."""
        await line.owe("a", "b")
        first = await line.take()
        async with line.desk.database.connection() as connection:
            assert await delivery_queries.note_task(connection, first, "job-1")
        await line.record(first, "uu", wait=30.0)
        await line.owe("b", company="New")
        await line.owe("c")
        assert (await line.take()).record_ids == ["c"]
        assert await line.claim() is None
        await line.desk.rows("UPDATE deliveries SET next_attempt_at = now() WHERE task IS NOT NULL")
        again = await line.take()
        assert (again.delivery_id, again.task) == (first.delivery_id, "job-1")
        async with line.desk.database.connection() as connection:
            assert await delivery_queries.note_task(connection, again, None)
        await line.record(again, "oo")
        assert (await line.take()).record_ids == ["b"]

    async def test_destinations_do_not_wait_for_each_other(self, line: Line) -> None:
        other = Line(line.desk, await line.desk.add_destination("other"))
        await line.owe("a")
        assert (await line.take()).record_ids == ["a"]
        assert (await other.take()).record_ids == ["a"]

    @pytest.mark.parametrize("bound", [1, 3])
    async def test_no_more_in_flight_than_allowed(self, line: Line, bound: int) -> None:
        for name in "abcdef":
            await line.owe(name)
        claims = await asyncio.gather(*(line.claim(concurrency=bound) for _ in range(10)))
        assert sum(claim is not None for claim in claims) == bound

    async def test_many_claimers_never_hold_one_contact_twice(self, line: Line) -> None:
        """Thirty overlapping deliveries, ten claimers at once, again and again until all are done."""
        for number in range(30):
            await line.owe(f"c{number % 7}", f"d{number % 5}", company=f"v{number}")
        done = 0
        while done < 30:
            claims = [c for c in await asyncio.gather(*(line.claim() for _ in range(10))) if c]
            assert claims
            contacts = Counter(name for claim in claims for name in claim.record_ids)
            assert max(contacts.values()) == 1
            await asyncio.gather(*(line.record(claim, "oo") for claim in claims))
            done += len(claims)
        assert await line.claim() is None

    async def test_several_at_once_share_no_contact(self, line: Line) -> None:
        """Neither with one another nor with what is being sent; the oldest of those that do goes first."""
        for names in ("a", "b", "bc", "d", "ce", "f"):
            await line.owe(*names, company=names)
        first = await line.take()
        assert first.record_ids == ["a"]
        await line.owe("a", company="New")
        claims = await line.claim_some(10)
        assert [claim.record_ids for claim in claims] == [["b"], ["d"], ["f"]]
        claims += await line.claim_some(10)
        assert claims[-1].record_ids == ["c", "e"]
        assert await line.claim_some(10) == []
        for claim in (first, *claims):
            await line.record(claim, "o" * len(claim.record_ids))
        assert [claim.record_ids for claim in await line.claim_some(10)] == [["b", "c"], ["a"]]
        await line.check_counts()

    @pytest.mark.parametrize(("limit", "bound", "had"), [(3, 8, [3, 3, 2]), (8, 5, [5, 0, 0]), (8, 8, [8, 0, 0])])
    async def test_several_at_once_keep_the_bounds(self, line: Line, limit: int, bound: int, had: list[int]) -> None:
        for number in range(10):
            await line.owe(f"c{number}")
        counts = [len(await line.claim_some(limit, concurrency=bound)) for _ in had]
        assert counts == had

    async def test_a_delivery_that_waits_is_not_due(self, line: Line) -> None:
        await line.owe("a")
        await line.record(await line.take(), "r", wait=60.0)
        assert not await line.due()
        assert await line.claim() is None


class TestGate:
    async def test_a_blocked_destination_gives_nothing(self, line: Line) -> None:
        """Until its time is over; the claim then says so, that a success may clear it."""
        await line.owe("a")
        await line.block(60.0)
        assert not await line.due()
        assert await line.claim() is None
        await self._over(line)
        assert await line.due()
        assert (await line.take()).blocked_before

    async def test_a_block_is_never_shortened(self, line: Line) -> None:
        await line.block(60.0)
        (before,) = await line.desk.rows("SELECT blocked_until FROM destinations")
        await line.block(1.0, "DESTINATION_RATE_LIMIT")
        (after,) = await line.desk.rows("SELECT blocked_until FROM destinations")
        assert before == after

    async def test_only_a_block_that_is_over_is_lifted(self, line: Line) -> None:
        """A success that began before a circuit opened must not close it."""
        await line.owe("a")
        await line.block(60.0)
        async with line.desk.database.connection() as connection:
            await delivery_queries.unblock_destination(connection, line.desk.tenant_id, line.destination_id)
            assert await line.claim() is None
            await self._over(line)
            await delivery_queries.unblock_destination(connection, line.desk.tenant_id, line.destination_id)
        (row,) = await line.desk.rows("SELECT blocked_until, blocked_code, blocked_detail FROM destinations")
        assert row == {"blocked_until": None, "blocked_code": None, "blocked_detail": None}
        assert not (await line.take()).blocked_before

    @pytest.mark.parametrize(("state", "claimed"), [("paused", False), ("removed", True), ("active", True)])
    async def test_the_state_of_a_destination(self, line: Line, state: str, claimed: bool) -> None:
        """Paused: work waits. Removed: it is claimed, so that it can be skipped."""
        await line.owe("a")
        async with line.desk.database.connection() as connection:
            await service.set_destination_state(connection, line.desk.tenant_id, "hubspot", state)
            route = await delivery_queries.read_destination(connection, line.desk.tenant_id, line.destination_id)
        assert route is not None
        assert route.state == state
        assert await line.due() is claimed
        assert (await line.claim() is not None) is claimed

    @staticmethod
    async def _over(line: Line) -> None:
        await line.desk.execute("UPDATE destinations SET blocked_until = now() - interval '1 second'")


class TestRecord:
    async def test_an_attempt_that_settles_everything(self, line: Line) -> None:
        """The delivery is done, the job finished, the contact known to be there, the refused one buried."""
        job_id = await line.owe("a", "b")
        claim = await line.take()
        recorded = await line.record(claim, "of", errors={"1": ItemError("DESTINATION_REJECTED", "no")}, wait=None)
        assert recorded == Recorded(job_id, "completed_with_failures", None)
        delivery = await line.delivery(claim)
        assert (delivery["state"], delivery["states"]) == ("done", "of")
        assert (delivery["lease_token"], delivery["lease_until"]) == (None, None)
        assert delivery["finished_at"] is not None
        assert json.loads(delivery["errors"]) == {"1": {"code": "DESTINATION_REJECTED", "detail": "no"}}
        assert json.loads(delivery["failures"]) == {"DESTINATION_REJECTED": {"count": 1, "samples": [1]}}
        syncs = await line.desk.rows("SELECT record_id, state, synced_version FROM record_syncs ORDER BY 1")
        assert syncs == [
            {"record_id": "a", "state": "ok", "synced_version": 1},
            {"record_id": "b", "state": "failed", "synced_version": 0},
        ]
        dead_letters = await line.desk.rows(
            "SELECT record_id, item_index, state, error_code, attempts, job_id FROM dead_letters"
        )
        assert dead_letters == [
            {
                "record_id": "b",
                "item_index": 1,
                "state": "failed",
                "error_code": "DESTINATION_REJECTED",
                "attempts": 1,
                "job_id": job_id,
            }
        ]

    async def test_an_attempt_that_leaves_work(self, line: Line) -> None:
        job_id = await line.owe("a", "b")
        claim = await line.take()
        assert await line.record(claim, "or", wait=0.0) == Recorded(job_id, None, 0.0)
        assert await line.job(job_id) == ("syncing", False)
        again = await line.take()
        assert (again.delivery_id, again.states, again.attempt) == (claim.delivery_id, "or", 2)
        assert (await line.record(again, "oo")) == Recorded(job_id, "completed", None)
        assert await line.job(job_id) == ("completed", True)

    async def test_an_attempt_can_be_given_back(self, line: Line) -> None:
        """A 429 or an open circuit spends none."""
        await line.owe("a")
        claim = await line.take()
        await line.record(claim, "p", attempts=0)
        assert (await line.take()).attempt == 1

    async def test_absence_is_counted_from_the_first_look(self, line: Line) -> None:
        await line.owe("a")
        for absence, known in (("keep", False), ("now", True), ("keep", True), ("clear", False)):
            claim = await line.take()
            await line.record(claim, "u", absence=absence)
            assert ((await line.delivery(claim))["absent_since"] is not None) is known

    async def test_a_write_without_an_answer_is_remembered_and_a_look_is_none(self, line: Line) -> None:
        await line.owe("a")
        seen: list[Any] = []
        for absence in ("clear", "now", "keep", "clear"):
            await line.record(await line.take(), "u", absence=absence)
            (row,) = await line.desk.rows("SELECT doubted_at FROM record_syncs")
            seen.append(row["doubted_at"])
        assert seen[0] is not None
        assert seen[0] == seen[1] == seen[2] < seen[3]

    @pytest.mark.parametrize(
        ("held", "tried", "left"),
        [(0, 3, ("unknown", 3)), (0, 1, ("unknown", 1)), (1, 3, ("failed", 3))],
        ids=["a later version was tried", "none was", "it is held already, so it was not sent"],
    )
    async def test_what_a_lost_worker_may_have_sent_is_in_doubt(
        self, line: Line, held: int, tried: int, left: tuple[str, int]
    ) -> None:
        await line.owe("a")
        await line.desk.execute(
            "INSERT INTO record_syncs (tenant_id, destination_id, type_id, record_id, synced_version, state, "
            "state_version) "
            "VALUES ($1, $2, 1, 'a', $3, 'failed', $4)",
            line.desk.tenant_id,
            line.destination_id,
            held,
            tried,
        )
        await line.take(lease=0.0)
        assert await line.release_lost() == 1
        (row,) = await line.desk.rows("SELECT * FROM record_syncs")
        assert (row["state"], row["state_version"]) == left
        assert (row["doubted_at"] is not None) is (left[0] == "unknown")

    async def test_without_the_lease_nothing_is_recorded(self, line: Line) -> None:
        """Neither with a token of nobody, nor with one that was taken away, nor a second time."""
        await line.owe("a", "b")
        lost = await line.take(lease=0.0)
        stranger = msgspec.structs.replace(lost, token=uuid.uuid4())
        assert await line.record(stranger, "oo") is None
        assert await line.release_lost() == 1
        async with line.desk.database.connection() as connection:
            assert not await delivery_queries.renew_lease(connection, lost, 30.0)
        before = await self._everything(line)
        assert await line.record(lost, "of") is None
        assert await self._everything(line) == before
        mine = await line.take()
        assert await line.record(mine, "oo") is not None
        before = await self._everything(line)
        assert await line.record(mine, "oo") is None
        assert await self._everything(line) == before

    async def test_a_renewed_lease_is_not_lost(self, line: Line) -> None:
        await line.owe("a")
        claim = await line.take(lease=0.0)
        async with line.desk.database.connection() as connection:
            assert await delivery_queries.renew_lease(connection, claim, 30.0)
        assert await line.release_lost() == 0
        assert await line.record(claim, "o") is not None

    async def test_a_lost_worker_leaves_unknown_items(self, line: Line) -> None:
        """Open ones become `unknown`, to be read back; settled ones stay. The attempt stays spent."""
        await line.owe("a", "b", "c", "d", "e")
        await line.record(await line.take(), "prouf", absence="now")
        lost = await line.take(lease=0.0)
        assert await line.release_lost() == 1
        assert await line.release_lost() == 0
        delivery = await line.delivery(lost)
        assert (delivery["states"], delivery["state"], delivery["attempt"]) == ("uuouf", "pending", 2)
        assert delivery["absent_since"] is None
        assert {k: v["code"] for k, v in json.loads(delivery["errors"]).items()} == dict.fromkeys(
            "013", "OUTCOME_UNKNOWN"
        )
        assert json.loads(delivery["failures"]) == {"OUTCOME_UNKNOWN": {"count": 3, "samples": [0, 1, 3]}}
        await line.check_counts()
        assert await line.due()

    @pytest.mark.parametrize(
        ("forced", "left"), [(True, "uppof"), (False, "pppof")], ids=["a repair", "a verification"]
    )
    async def test_a_lost_verification_doubts_what_it_can_have_sent(self, line: Line, forced: bool, left: str) -> None:
        """A record is sent after its difference is stored: whatever has none is as it was."""
        await line.owe("a", "b", "c", "d", "e")
        await line.record(await line.take(), "pppof")
        lost = await line.take(lease=0.0)
        await line.desk.execute(
            """UPDATE deliveries SET verify = true, forced = $1, drift = '{"0": {}, "3": {}}' WHERE delivery_id = $2""",
            forced,
            lost.delivery_id,
        )
        assert await line.release_lost() == 1
        delivery = await line.delivery(lost)
        assert delivery["states"] == left
        assert set(json.loads(delivery["errors"])) == {str(p) for p, code in enumerate(left) if code == "u"}
        await line.check_counts()

    async def test_failures_of_all_deliveries_add_up(self, line: Line) -> None:
        """By code, most first, with the five lowest items of a job's whole range."""
        cut = msgspec.structs.replace(line.desk.settings, chunk_size=4)
        job_id = (await line.desk.push(people(24), settings=cut)).job_id
        claims = [await line.take() for _ in range(6)]
        for claim in reversed(claims):
            refused = {str(p): ItemError("DESTINATION_REJECTED", "no") for p in (3, 1)}
            codes = refused | {"2": ItemError("DESTINATION_UNAVAILABLE", "503")}
            await line.record(claim, "ofrf", errors=codes if claim.indexes[0] != 8 else refused)
        async with line.desk.database.connection() as connection:
            found = await job_status_queries.read_destination_failures(connection, line.desk.tenant_id, job_id)
        assert found == [
            job_status_queries.Failure("hubspot", "DESTINATION_REJECTED", 12, [1, 3, 5, 7, 9]),
            job_status_queries.Failure("hubspot", "DESTINATION_UNAVAILABLE", 5, [2, 6, 14, 18, 22]),
        ]

    async def test_an_older_version_never_hides_a_newer_one(self, line: Line) -> None:
        """What a destination holds for certain does not go back, nor does the state of the newest version."""
        await line.owe("a")
        await line.owe("a", company="New")
        old = await line.take()
        ahead = [Tried("a", "ok", 2, 2, "remote", None, None)]  # the contact as it stands is what is sent
        await line.record(old, "o", tried=ahead)
        await line.record(await line.take(), "o", tried=[Tried("a", "retry", 1, 1, None, "X", "late")])
        columns = "synced_version, state, state_version, remote_id, error_code"
        (row,) = await line.desk.rows(f"SELECT {columns} FROM record_syncs")
        assert tuple(row.values()) == (2, "ok", 2, "remote", None)
        await line.owe("a", company="Newer")
        await line.record(await line.take(), "r", tried=[Tried("a", "retry", 3, 0, None, "X", "busy")])
        (row,) = await line.desk.rows(f"SELECT {columns} FROM record_syncs")
        assert tuple(row.values()) == (2, "retry", 3, "remote", "X")

    @hypothesis_settings(
        max_examples=20,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
        phases=(Phase.reuse, Phase.generate, Phase.shrink),
    )
    @given(steps=st.lists(st.none() | st.text("proufds", min_size=3, max_size=3), max_size=8))
    async def test_counters_are_the_letters(self, line: Line, steps: list[str | None]) -> None:
        """Whatever is recorded, and whoever gets lost (None), a status poll may read the counters alone."""
        fresh = uuid.uuid4().hex
        jobs = [await line.owe(*(f"{fresh}-{name}" for name in names)) for names in ("abc", "bc", "de")]
        for step in steps:
            claim = await line.claim(lease=0.0)
            if claim is None:
                break
            if step is None:
                assert await line.release_lost() == 1
            else:
                pairs = zip(claim.states, step, strict=False)
                states = "".join(new if old in "pru" else old for old, new in pairs)
                assert await line.record(claim, states) is not None
            await line.check_counts()
        for job_id in jobs:
            rows = await line.desk.rows("SELECT states FROM deliveries WHERE job_id = $1", job_id)
            is_open = any(code in "pru" for row in rows for code in row["states"])
            assert (await line.job(job_id))[1] is (not is_open)
        # The next example begins with an empty line.
        while (claim := await line.claim()) is not None:
            await line.record(claim, claim.states.translate(str.maketrans("pru", "sss")))

    @staticmethod
    async def _everything(line: Line) -> list[Any]:
        return [
            await line.desk.rows(f"SELECT * FROM {table} ORDER BY 1, 2, 3")
            for table in ("deliveries", "effects", "jobs", "record_syncs", "dead_letters")
        ]


class TestFinish:
    async def test_two_destinations_that_finish_at_once(self, line: Line) -> None:
        """Neither sees the other's end before it commits, yet the job ends, and ends once."""
        other = Line(line.desk, await line.desk.add_destination("other"))
        job_id = await line.owe("a")
        mine, theirs = await line.take(), await other.take()
        first = await asyncpg.connect(line.desk.settings.database_url)
        second = await asyncpg.connect(line.desk.settings.database_url)
        try:
            transaction = first.transaction()
            await transaction.start()
            one = await delivery_queries.record_delivery(first, mine, "contacts", report(mine, "o"))
            late = asyncio.create_task(
                delivery_queries.record_delivery(second, theirs, "contacts", report(theirs, "o"))
            )
            await asyncio.sleep(0.2)
            assert not late.done()
            await transaction.commit()
            two = await late
        finally:
            await first.close()
            await second.close()
        assert (one, two) == (Recorded(job_id, None, None), Recorded(job_id, "completed", None))
        assert await line.job(job_id) == ("completed", True)

    async def test_many_deliveries_that_finish_at_once(self, line: Line) -> None:
        """Of all recordings of a job exactly one ends it."""
        other = Line(line.desk, await line.desk.add_destination("other"))
        cut = msgspec.structs.replace(line.desk.settings, chunk_size=1)
        answer = await line.desk.push(people(8), settings=cut)
        claims = [(place, await place.take()) for place in (line, other) for _ in range(8)]
        ends = await asyncio.gather(*(place.record(claim, "o") for place, claim in claims))
        assert Counter(end.finished for end in ends if end) == {None: 15, "completed": 1}
        assert await line.job(answer.job_id) == ("completed", True)

    @pytest.mark.parametrize(
        ("states", "bad", "ended"),
        [
            ("os", [], "completed"),
            ("od", [], "completed_with_failures"),
            ("of", [], "completed_with_failures"),
            ("oo", [{"id": "bad"}], "completed_with_failures"),
        ],
    )
    async def test_how_a_job_ends(self, line: Line, states: str, bad: list[dict[str, Any]], ended: str) -> None:
        """Well only if every item is ok here and nothing failed anywhere; skipped is no failure."""
        answer = await line.desk.push([*people(2), *bad])
        recorded = await line.record(await line.take(), states)
        assert recorded == Recorded(answer.job_id, ended, None)


class TestPlans:
    async def test_recording_is_planned_once(self, line: Line) -> None:
        """Planning it takes longer than to record a hundred contacts, so no value may make it worth another plan."""
        for start in range(0, 1_200, 100):
            await line.desk.push([person(start + i) for i in range(100)])
        claims = await line.claim_some(20, concurrency=20)
        async with line.desk.database.connection() as connection:
            for claim in claims:
                await delivery_queries.record_delivery(connection, claim, "contacts", report(claim, "o" * 100))
            plans = await connection.fetchrow(
                "SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE statement = $1",
                QUERIES["record_delivery"],
            )
        assert (plans["generic_plans"], plans["custom_plans"]) == (len(claims) - 5, 5)


class TestStanding:
    async def test_keys_that_a_destination_must_clear(self, line: Line) -> None:
        """Every key a contact lost since the version the destination holds, however many versions ago."""
        await line.desk.push([person(0, attributes={"a": 1, "b": 1, "kept": 1})])
        await line.record(await line.take(), "o")
        for attributes in ({"a": None, "brief": 1}, {"brief": None}, {"b": None, "new": 1}, {"b": 2}):
            await line.desk.push([person(0, attributes=attributes)])
        assert await self._standing(line) == (5, 1, {"kept": 1, "new": 1, "b": 2, "a": None, "brief": None})

    async def test_what_was_lost_before_is_not_cleared_again(self, line: Line) -> None:
        await line.desk.push([person(0, attributes={"a": 1, "kept": 1})])
        await line.desk.push([person(0, attributes={"a": None})])
        while (claim := await line.claim()) is not None:
            await line.record(claim, "o", tried=[Tried("c00000", "ok", 2, 2, None, None, None)])
        await line.desk.push([person(0, company="New")])
        assert await self._standing(line) == (3, 2, {"kept": 1})

    async def test_a_destination_that_was_told_nothing_is_told_of_what_was_cleared(self, line: Line) -> None:
        """The record may have been there before us, with a value that somebody typed."""
        await line.desk.push([person(0, attributes={"a": 1})])
        await line.desk.push([person(0, attributes=None)])
        assert await self._standing(line) == (2, 0, {"a": None})

    @staticmethod
    async def _standing(line: Line) -> tuple[int, int, dict[str, Any]]:
        async with line.desk.database.connection() as connection:
            found = await record_states.records_to_send(
                connection, line.desk.tenant_id, line.destination_id, 1, ["c00000", "absent"]
            )
        assert list(found) == ["c00000"]
        contact = found["c00000"]
        return contact.version, contact.synced_version, contact.attributes
