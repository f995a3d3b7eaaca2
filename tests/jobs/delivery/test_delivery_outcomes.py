"""Outcomes at CRMs of every kind: tombstones, lost answers that nobody can ask for, evidence and dead letters."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from app.destinations import service
from app.settings import Settings
from app.vocabulary.states import EffectState, ErrorCode
from jobs.crm import ADAPTERS
from jobs.crm.port import Headers, Health, Outcome, ReadBack, Reply, Seen, SentRecord
from jobs.worker import working
from tests.jobs.conftest import World, people


class Scripted:
    """A CRM that keeps its records in memory, and loses answers when told to."""

    batch_size = 100
    updates_apart = False
    learns = False
    bulk = None
    appends = False
    write_test = None

    def __init__(self, *, reads_back: bool, repeatable: bool) -> None:
        self.reads_back = reads_back
        self.repeatable = repeatable
        self.records: dict[str, str] = {}
        self.calls: list[tuple[str, list[str], str]] = []
        self.keys: set[str] = set()
        self.done: list[tuple[str, int]] = []
        self.lose: dict[str, int] = {}
        """Answers to lose by what was asked."""
        self.swallow = False
        """What loses its answer is not done either."""
        self.silent = False
        """Read-backs tell nothing."""

    def __call__(self, **_: Any) -> Scripted:
        return self

    def _write(
        self, asked: str, contacts: list[SentRecord], headers: Headers, do: Callable[[SentRecord], None]
    ) -> Reply:
        self.calls.append((asked, [c.record_id for c in contacts], headers.event_id))
        known = set(self.records)
        lost = self.lose.get(asked, 0) > 0
        if lost:
            self.lose[asked] -= 1
        if not (lost and self.swallow) and headers.event_id not in self.keys:
            self.keys.add(headers.event_id)
            for contact in contacts:
                do(contact)
                self.done.append((contact.record_id, contact.version))
        state = EffectState.UNKNOWN if lost else EffectState.OK
        code = ErrorCode.OUTCOME_UNKNOWN if lost else None
        return Reply(
            outcomes=[
                Outcome(
                    record_id=c.record_id,
                    state=state,
                    code=code,
                    detail="no answer: timed out after 2.0 s" if lost else "",
                    remote_id=None if lost else self.records.get(c.record_id),
                    created=None if lost else c.record_id not in known,
                )
                for c in contacts
            ],
            health=Health.WELL,
            seconds=0.01,
            status=None if lost else 200,
        )

    async def push(self, contacts: list[SentRecord], headers: Headers, _: Any = None) -> Reply:
        assert not any(c.deleted for c in contacts)
        return self._write("push", contacts, headers, self._keep)

    def _keep(self, contact: SentRecord) -> None:
        self.records.setdefault(contact.record_id, f"r{len(self.done)}")

    async def archive(self, contacts: list[SentRecord], headers: Headers) -> Reply:
        assert all(c.deleted and (c.remote_id or not self.reads_back) for c in contacts)
        return self._write(
            "archive", contacts, headers, lambda contact: self.records.pop(contact.record_id, None) and None
        )

    async def read_back(self, contacts: list[SentRecord], headers: Headers, *, by_fields: bool = False) -> ReadBack:
        self.calls.append(("read_back", [c.record_id for c in contacts], headers.event_id))
        if self.silent:
            return ReadBack(seen=None, health=Health.WELL, status=500, detail="busy")
        there = {c.record_id: Seen.DIFFERS if c.deleted else Seen.MATCHES for c in contacts}
        return ReadBack(
            seen={k: seen if k in self.records else Seen.ABSENT for k, seen in there.items()},
            remote_ids={k: self.records[k] for k in there if k in self.records},
            health=Health.WELL,
        )

    @property
    def asked(self) -> list[str]:
        return [asked for asked, _, _ in self.calls]


def scripted(monkeypatch: pytest.MonkeyPatch, *, reads_back: bool = True, repeatable: bool = False) -> Scripted:
    crm = Scripted(reads_back=reads_back, repeatable=repeatable)
    monkeypatch.setitem(ADAPTERS, "hubspot", crm)
    return crm


async def bury_contacts(world: World) -> uuid.UUID:
    """Every contact becomes a tombstone, as an undo of its creation leaves it; the job of the deliveries."""
    (job,) = await world.rows("SELECT * FROM jobs ORDER BY job_id LIMIT 1")
    new = uuid.uuid4()
    await world.rows(
        """INSERT INTO jobs (tenant_id, job_id, kind, type, state, root_job_id, request_id, key_id, total,
            succeeded, failed, retry)
        SELECT tenant_id, $2, 'undo', type, 'syncing', job_id, 'undo', 'k', total, total, 0, 0
        FROM jobs WHERE job_id = $1""",
        job["job_id"],
        new,
    )
    await world.rows("UPDATE records SET version = version + 1, deleted = true, document = '{}', withdrawn = '{}'")
    await world.rows(
        """INSERT INTO effects (tenant_id, job_id, destination_id, pending)
        SELECT d.tenant_id, $1, d.destination_id, (SELECT count(*) FROM records) FROM destinations d""",
        new,
    )
    await world.rows(
        """INSERT INTO deliveries (
            tenant_id, destination_id, type_id, job_id, request_id, first_index, last_index, record_ids, versions,
            indexes,
            states
        )
        SELECT c.tenant_id, d.destination_id, 1, $1, 'undo', 0, max(c.place) - 1,
        array_agg(c.record_id ORDER BY c.place),
            array_agg(c.version ORDER BY c.place), array_agg(c.place - 1 ORDER BY c.place), repeat('p', max(c.place))
        FROM (SELECT x.*, row_number() OVER (ORDER BY x.record_id)::int AS place FROM records x) c
        JOIN destinations d USING (tenant_id) GROUP BY 1, 2""",
        new,
    )
    return new


async def errors(world: World) -> list[dict[str, Any]]:
    rows = await world.rows("SELECT errors FROM deliveries ORDER BY delivery_id")
    return [json.loads(row["errors"]) for row in rows]


async def wait_for(world: World, query: str, seconds: float = 45) -> list[dict[str, Any]]:
    async with asyncio.timeout(seconds):
        while not (rows := await world.rows(query)):
            await asyncio.sleep(0.02)
    return rows


class TestTombstones:
    async def test_a_record_is_archived_and_comes_back(self, world: World, monkeypatch: Any) -> None:
        """Its id there is forgotten; a contact that is imported again gets a new record."""
        crm = scripted(monkeypatch)
        async with working(world.settings):
            await world.finished((await world.push(people(3, attributes={"city": "Ulm"}))).job_id)
            assert await world.finished(await bury_contacts(world)) == "completed"
            assert (crm.asked, crm.records) == (["push", "archive"], {})
            syncs = await world.rows("SELECT synced_version, remote_id, state FROM record_syncs")
            assert syncs == [{"synced_version": 2, "remote_id": None, "state": "ok"}] * 3
            assert await world.finished((await world.push(people(3))).job_id) == "completed"
        assert (crm.asked[-1], len(crm.records)) == ("push", 3)

    async def test_what_never_got_there_costs_no_call(self, world: World, monkeypatch: Any) -> None:
        crm = scripted(monkeypatch)
        first = await world.push(people(2))
        undo = await bury_contacts(world)
        async with working(world.settings):
            assert await world.finished(first.job_id) == "completed"
            assert await world.finished(undo) == "completed"
        assert crm.calls == []

    @pytest.mark.parametrize("there", [True, False])
    async def test_a_record_of_unknown_id_is_looked_up(self, world: World, monkeypatch: Any, there: bool) -> None:
        crm = scripted(monkeypatch)
        async with working(world.settings):
            await world.finished((await world.push(people(2))).job_id)
        await world.rows("UPDATE record_syncs SET remote_id = NULL")
        if not there:
            crm.records.clear()
        undo = await bury_contacts(world)
        async with working(world.settings):
            assert await world.finished(undo) == "completed"
        assert crm.asked[1:] == ["read_back", "archive"] if there else ["read_back"]
        assert crm.records == {}

    @pytest.mark.parametrize("swallowed", [False, True])
    async def test_a_lost_answer_to_an_archiving(self, world: World, monkeypatch: Any, swallowed: bool) -> None:
        """Gone is arrived; still there, twice across the grace, is archived once more."""
        crm = scripted(monkeypatch)
        async with working(world.settings):
            await world.finished((await world.push(people(2))).job_id)
            crm.lose, crm.swallow = {"archive": 1}, swallowed
            assert await world.finished(await bury_contacts(world)) == "completed"
        assert crm.records == {}
        again = ["read_back", "read_back", "archive"] if swallowed else ["read_back"]
        assert crm.asked == ["push", "archive", *again]

    @pytest.mark.parametrize("swallowed", [False, True])
    async def test_a_lost_push_of_what_is_a_tombstone_now(
        self, world: World, monkeypatch: Any, swallowed: bool
    ) -> None:
        """It may be there, and then nobody knows who made it: it is left. Absent once is no proof."""
        crm = scripted(monkeypatch)
        crm.lose, crm.swallow, crm.silent = {"push": 1}, swallowed, True
        async with working(world.settings):
            first = await world.push(people(2))
            await wait_for(world, "SELECT FROM deliveries WHERE states = 'uu' AND state = 'pending'")
            undo = await bury_contacts(world)
            crm.silent = False
            await world.finished(first.job_id)
            await world.finished(undo)
        assert len(crm.records) == (0 if swallowed else 2)
        assert crm.asked.count("push") == 1
        assert "archive" not in crm.asked
        if swallowed:
            assert crm.asked.count("read_back") >= 2


class TestNobodyToAsk:
    async def test_a_human_decides(self, world: World, monkeypatch: Any) -> None:
        """Dead at once, and the dead letter tells when it was sent, what was asked, and both ways out."""
        crm = scripted(monkeypatch, reads_back=False)
        crm.lose = {"push": 1}
        async with working(world.settings):
            answer = await world.push(people(2))
            assert await world.finished(answer.job_id) == "completed_with_failures"
            assert crm.asked == ["push"]
            dead_letters = await world.rows("SELECT * FROM dead_letters")
            assert [(x["state"], x["error_code"]) for x in dead_letters] == [("dead", "OUTCOME_UNKNOWN")] * 2
            told = dead_letters[0]["error_detail"]
            assert told.startswith("upsert of 2 records sent 20")
            assert crm.calls[0][2] in told
            assert "timed out after 2.0 s" in told
            assert "settle" in told
            assert "replay" in told
            # A newer version goes out as usual, and ends the dead letters.
            assert await world.finished((await world.push(people(2, phone="1"))).job_id) == "completed"
        ends = await world.rows("SELECT resolution, resolved_by FROM dead_letters")
        assert ends == [{"resolution": "superseded", "resolved_by": "tranche"}] * 2

    @pytest.mark.parametrize("swallowed", [False, True])
    async def test_the_same_call_is_made_again(self, world: World, monkeypatch: Any, swallowed: bool) -> None:
        """With the same key and the same contacts, so a CRM that keeps its promise does it once."""
        crm = scripted(monkeypatch, reads_back=False, repeatable=True)
        crm.lose, crm.swallow = {"push": 2}, swallowed
        async with working(world.settings):
            answer = await world.push(people(5))
            assert await world.finished(answer.job_id) == "completed"
        assert len(crm.calls) == 3
        assert len({(tuple(ids), key) for _, ids, key in crm.calls}) == 1
        assert sorted(crm.done) == [(f"c{i:05}", 1) for i in range(5)]

    async def test_a_call_whose_contacts_changed_is_not_made_again(self, world: World, monkeypatch: Any) -> None:
        """What changed goes out as it stands; the rest might be done twice, and is left to humans."""
        crm = scripted(monkeypatch, reads_back=False, repeatable=True)
        crm.lose = {"push": 1}
        patient = msgspec.structs.replace(world.settings, reconcile_grace=2.0)
        async with working(patient):
            answer = await world.push(people(2))
            await wait_for(world, "SELECT FROM deliveries WHERE states = 'uu' AND state = 'pending'")
            newer = await world.push(people(1, phone="1"))
            assert await world.finished(newer.job_id) == "completed"
            assert await world.finished(answer.job_id) == "completed_with_failures"
        assert await world.effects(answer.job_id) == {"ok": 1, "dead": 1}
        assert sorted(crm.done) == [("c00000", 1), ("c00000", 2), ("c00001", 1)]


class TestEvidence:
    async def test_every_call_that_did_not_end_well_is_kept(self, world: World, monkeypatch: Any) -> None:
        crm = scripted(monkeypatch)
        crm.lose, crm.swallow = {"push": 1}, True
        async with working(world.settings):
            answer = await world.push(people(3))
            assert await world.finished(answer.job_id) == "completed"
        calls = await world.rows("SELECT * FROM delivery_calls ORDER BY attempt, call")
        assert [c["asked"] for c in calls] == ["push", "read_back", "read_back"]
        assert (calls[0]["event_id"], calls[0]["positions"], calls[0]["status"]) == (crm.calls[0][2], None, None)
        assert "timed out" in calls[0]["detail"]

    async def test_what_went_well_leaves_nothing(self, world: World) -> None:
        async with working(world.settings):
            await world.finished((await world.push(people(3))).job_id)
        assert await world.rows("SELECT FROM delivery_calls") == []

    async def test_halving_is_cut(self, world: World) -> None:
        """A batch full of guilty contacts makes more calls than anybody reads."""
        await world.sandbox.misbehave(reject_batch={"keys": [f"c{i:05}" for i in range(100)]})
        async with working(world.settings):
            answer = await world.push(people(100))
            assert await world.finished(answer.job_id) == "completed_with_failures"
        calls = await world.rows("SELECT detail FROM delivery_calls ORDER BY call")
        assert len(calls) == 50
        assert "149 more calls" in calls[-1]["detail"]


class TestUnknown:
    async def test_it_is_seen_and_settled_soon_after_a_long_outage(
        self, world: World, monkeypatch: Any, settings: Settings
    ) -> None:
        """Read-backs that fail cost no attempt, and their waits do not grow with those of other trouble."""
        crm = scripted(monkeypatch)
        crm.lose, crm.silent = {"push": 1}, True
        few = msgspec.structs.replace(settings, delivery_attempts=2, delivery_backoff_cap=0.3)
        async with working(few):
            answer = await world.push(people(4))
            async with asyncio.timeout(60):
                while crm.asked.count("read_back") < 6:
                    await asyncio.sleep(0.02)
            async with world.database.connection() as connection:
                (shown,) = await service.list_destinations(connection, world.tenant_id)
            assert shown.unknown.count == 4
            assert shown.unknown.oldest_seconds <= 20
            (errors_,) = await errors(world)
            assert errors_["0"]["detail"].startswith("upsert of 4 records sent")
            assert errors_["0"]["detail"].endswith("since then: busy")
            crm.silent = False
            assert await world.finished(answer.job_id, 2) == "completed"
            async with world.database.connection() as connection:
                (shown,) = await service.list_destinations(connection, world.tenant_id)
            assert shown.unknown.count == 0
        assert crm.asked.count("push") == 1


class TestEvents:
    async def test_a_hundred_letters_are_one_small_event(self, world: World) -> None:
        """Standard Webhooks: a body is smaller than 20 kB. What is not listed is counted, and a URL leads to it."""
        await world.rows(
            """INSERT INTO webhook_endpoints (tenant_id, url, events, secret)
            VALUES ($1, 'https://example.com', '{item.dead}', '')""",
            world.tenant_id,
        )
        everybody = [person | {"id": f"{person['id']}-{'ü' * 240}"} for person in people(100)]
        await world.sandbox.misbehave(reject={"emails": [person["email"] for person in everybody]})
        async with working(world.settings):
            answer = await world.push(everybody)
            await world.finished(answer.job_id)
        bodies = [row["body"] for row in await world.rows("SELECT body FROM webhook_messages")]
        assert max(len(body.encode()) for body in bodies) < 20_000
        told = [json.loads(body)["data"] for body in bodies]
        assert sum(data["count"] for data in told) == 100
        assert all(0 < len(data["items"]) <= data["count"] for data in told)
        assert told[0]["items_url"] == f"/v1/dead-letters?job_id={answer.job_id}&destination=hubspot"

    async def test_ends_are_told(self, world: World) -> None:
        """A dead letter and the end of its job, in the transaction that records them."""
        await world.rows(
            """INSERT INTO webhook_endpoints (tenant_id, url, events, secret)
            VALUES ($1, 'https://example.com', '{item.dead,job.finished}', '')""",
            world.tenant_id,
        )
        await world.sandbox.misbehave(reject={"emails": ["c00001@example.com"]})
        async with working(world.settings):
            answer = await world.push(people(3))
            await world.finished(answer.job_id)
        rows = await world.rows("SELECT type, body FROM webhook_messages ORDER BY message_id")
        dead, finished = (json.loads(row["body"]) for row in rows)
        assert (dead["type"], dead["data"]["destination"]) == ("item.dead", "hubspot")
        (item,) = dead["data"]["items"]
        assert (item["index"], item["id"], item["code"]) == (1, "c00001", "DESTINATION_REJECTED")
        assert finished["data"] == {
            "job_id": str(answer.job_id),
            "root_job_id": str(answer.job_id),
            "kind": "import",
            "type": "contacts",
            "state": "completed_with_failures",
            "summary": {"total": 3, "succeeded": 3, "failed": 0, "retry": 0},
        }
