"""Deliveries in the hands of CRMs that do as the test says, when time runs out, workers die or PostgreSQL stumbles."""

from __future__ import annotations

import asyncio
import socket
import threading
import uuid
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import aiohttp
import msgspec
import pytest
from uuid_utils.compat import uuid7

import jobs.worker
from app.dead_letters import service as dead_letter_service
from app.dead_letters.queries import Filter
from app.deliveries import queries, record_states
from app.errors import DatabaseUnavailable, Overloaded
from app.resource_types.catalog import Catalog
from app.undo import service as undo_service
from app.vocabulary.states import EffectState, ErrorCode
from jobs.crm.port import Headers, Health, Outcome, Pause, ReadBack, Reply, Seen, SentRecord
from jobs.delivery import clients, policy
from jobs.outbound.ssrf import open_session
from jobs.worker import working
from tests.claims import claim_delivery
from tests.jobs.conftest import World, people
from tests.jobs.delivery.test_dead_letters import actor, all_dead_letters, fail, read, refuse, replay, retry, sent

Answer = Callable[[list[SentRecord]], Awaitable[Any]]


class Script:
    """What a CRM answers, and what it was asked."""

    def __init__(self, *, reads_back: bool = False, repeatable: bool = False) -> None:
        self.reads_back = reads_back
        self.repeatable = repeatable
        self.asked: list[tuple[str, list[int]]] = []
        """Each call with the versions that it was about."""
        self.events: list[str] = []
        """The key of each writing call."""
        self.push: Answer = well
        self.read: Answer = found(Seen.MATCHES)

    def connect(self, **_: object) -> Any:
        script = self

        class Crm:
            batch_size = 100
            reads_back = script.reads_back
            repeatable = script.repeatable
            updates_apart = False
            learns = False
            bulk = None
            appends = False
            write_test = None

            async def push(self, contacts: list[SentRecord], headers: Headers, _: Any = None) -> Any:
                script.asked.append(("push", [c.version for c in contacts]))
                script.events.append(headers.event_id)
                return await script.push(contacts)

            async def archive(self, contacts: list[SentRecord], _: Headers) -> Any:
                script.asked.append(("archive", [c.version for c in contacts]))
                return await well(contacts)

            async def read_back(self, contacts: list[SentRecord], _: Headers, *, by_fields: bool = False) -> Any:
                script.asked.append(("read", [c.version for c in contacts]))
                return await script.read(contacts)

        return Crm()

    @property
    def calls(self) -> list[str]:
        return [asked for asked, _ in self.asked]


def every(state: EffectState, **more: Any) -> Answer:
    """All contacts have this outcome."""
    codes = {
        EffectState.UNKNOWN: ErrorCode.OUTCOME_UNKNOWN,
        EffectState.RETRY: ErrorCode.DESTINATION_UNAVAILABLE,
        EffectState.FAILED: ErrorCode.DESTINATION_REJECTED,
    }

    async def answer(contacts: list[SentRecord]) -> Reply:
        outcomes = [Outcome(record_id=c.record_id, state=state, code=codes.get(state), detail="so") for c in contacts]
        return Reply(outcomes=outcomes, health=Health.WELL, status=200, **more)

    return answer


well = every(EffectState.OK)


def found(seen: Seen) -> Answer:
    async def answer(contacts: list[SentRecord]) -> ReadBack:
        return ReadBack(seen={c.record_id: seen for c in contacts}, health=Health.WELL, status=200)

    return answer


async def silence(_: list[SentRecord]) -> ReadBack:
    return ReadBack(seen=None, health=Health.WELL, pause=Pause(0.4, "too many"), status=429, detail="too many")


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[[Script], Script]:
    """Let the destination of the world be this one."""

    def begin(script: Script) -> Script:
        monkeypatch.setitem(clients.ADAPTERS, "hubspot", script.connect)
        return script

    return begin


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch, world: World) -> Any:
    """Settings under which a lease is over after a second."""
    monkeypatch.setattr(policy, "LEASE_MARGIN", 0.0)
    return msgspec.structs.replace(
        world.settings, delivery_lease=1.0, sweep_interval=0.2, crm_total_timeout=1.0, crm_connect_timeout=1.0
    )


def patient(world: World) -> Any:
    """Settings under which nothing is tried again by itself."""
    return msgspec.structs.replace(world.settings, delivery_backoff_base=3600.0, delivery_backoff_cap=3600.0)


async def until(world: World, job_id: uuid.UUID, effects: dict[str, int]) -> None:
    async with asyncio.timeout(60):
        while await world.effects(job_id) != effects:
            await asyncio.sleep(0.02)


async def age(world: World) -> None:
    """All of it is a day and an hour old."""
    await world.rows(
        "UPDATE deliveries SET created_at = now() - interval '25 hours', next_attempt_at = now(), "
        "unknown_since = CASE WHEN unknown_since IS NOT NULL THEN now() - interval '25 hours' END"
    )


# PostgreSQL stumbles


@pytest.mark.parametrize("trouble", [DatabaseUnavailable(retry_after=2.0), Overloaded(retry_after=1.0)])
async def test_what_could_not_be_loaded_was_not_sent(
    world: World, play: Callable[[Script], Script], brief: Any, monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    """The CRM can neither be asked nor be told twice: what may have been sent would be a human's."""
    script = play(Script())
    troubles = iter([trouble])
    monkeypatch.setattr(record_states, "records_to_send", once(record_states.records_to_send, troubles))
    pushed = await world.push(people(100))
    async with working(brief):
        assert await world.finished(pushed.job_id) == "completed"
    assert script.calls == ["push"]
    assert await all_dead_letters(world) == []


async def test_what_was_claimed_without_an_answer_was_not_sent(
    world: World, play: Callable[[Script], Script], brief: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = play(Script())
    troubles = iter([DatabaseUnavailable(retry_after=1.0)])
    claim = queries.claim_deliveries

    async def claimed(*words: Any, **options: Any) -> Any:
        found = await claim(*words, **options)
        if found and (trouble := next(troubles, None)) is not None:
            raise trouble
        return found

    monkeypatch.setattr(queries, "claim_deliveries", claimed)
    pushed = await world.push(people(100))
    async with working(msgspec.structs.replace(brief, delivery_lease=20.0)):
        assert await world.finished(pushed.job_id) == "completed"
    assert script.calls == ["push"]
    (row,) = await world.rows("SELECT attempt, lost FROM deliveries")
    assert row == {"attempt": 1, "lost": 0}


async def test_an_answer_outlives_the_lease_while_postgresql_is_away(
    world: World, play: Callable[[Script], Script], brief: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = play(Script())
    troubles = iter([DatabaseUnavailable(retry_after=1.0)] * 5)  # half a second each: longer than the lease
    monkeypatch.setattr(queries, "record_delivery", once(queries.record_delivery, troubles))

    async def away(_: Any) -> int:
        return 0

    monkeypatch.setattr(queries, "release_lost", away)  # nor does a sweeper get an answer
    pushed = await world.push(people(10))
    async with working(brief):
        assert await world.finished(pushed.job_id) == "completed"
    assert script.calls == ["push"]


def once(call: Callable[..., Awaitable[Any]], troubles: Iterator[Exception]) -> Callable[..., Awaitable[Any]]:
    async def stumbling(*words: Any) -> Any:
        if (trouble := next(troubles, None)) is not None:
            raise trouble
        return await call(*words)

    return stumbling


# time runs out


@pytest.mark.parametrize("state", [EffectState.UNKNOWN, EffectState.RETRY])
async def test_who_asks_for_silence_ends_nothing(
    world: World, play: Callable[[Script], Script], state: EffectState
) -> None:
    """Neither what was tried a day ago and waits, nor what may have been sent then."""
    script = play(Script(reads_back=True))
    script.push = every(state)
    pushed = await world.push(people(1))
    async with working(patient(world)):
        await until(world, pushed.job_id, {state.value: 1})
    await age(world)
    script.push, script.read = every(EffectState.RETRY, pause=Pause(0.4, "too many")), silence
    async with working(world.settings):
        await asyncio.sleep(0.8)
        script.push, script.read = well, found(Seen.MATCHES)
        assert await world.finished(pushed.job_id) == "completed"


async def test_what_is_not_found_after_a_long_time_is_looked_for_twice_and_sent(
    world: World, play: Callable[[Script], Script]
) -> None:
    script = play(Script(reads_back=True))
    script.push, script.read = every(EffectState.UNKNOWN), found(Seen.ABSENT)
    pushed = await world.push(people(1))
    async with working(patient(world)):
        await until(world, pushed.job_id, {"unknown": 1})
    await age(world)
    script.push = well
    async with working(world.settings):
        assert await world.finished(pushed.job_id) == "completed"
    assert script.calls == ["push", "read", "read", "push"]


# workers die


async def test_what_a_killed_worker_may_have_sent_is_looked_for_by_every_delivery(
    world: World, play: Callable[[Script], Script]
) -> None:
    """It took up the delivery of the first version, and had the second one in its hand."""
    script = play(Script(reads_back=True))
    script.push = every(EffectState.RETRY)
    first = await world.push(people(1, first_name="Ada"))
    second = await world.push(people(1, first_name="Bob"))
    async with working(patient(world)):
        await until(world, first.job_id, {"retry": 1})
        await until(world, second.job_id, {"retry": 1})
    due = "UPDATE deliveries SET next_attempt_at = now() + ($2 * interval '1 second') WHERE job_id = $1"
    await world.rows(due, first.job_id, -1)
    await world.rows(due, second.job_id, 3600)
    (place,) = await world.rows("SELECT destination_id FROM destinations")
    async with world.database.connection() as connection:
        claim = await claim_delivery(
            connection, world.tenant_id, place["destination_id"], token=uuid.uuid4(), lease=0.0, concurrency=4
        )
        assert claim is not None
        assert claim.job_id == first.job_id
        assert await queries.release_lost(connection) == 1
    await world.rows(due, first.job_id, 2)
    await world.rows(due, second.job_id, -1)
    script.push = well
    script.asked.clear()
    async with working(world.settings):
        assert await world.finished(second.job_id) == "completed"
        assert await world.finished(first.job_id) == "completed"
    assert script.asked == [("read", [2])], "found there, so nothing is sent"


async def test_what_has_arrived_meanwhile_is_not_given_up(world: World, play: Callable[[Script], Script]) -> None:
    """A delivery ended all the workers that took it up; a later one has brought the contact."""
    play(Script(reads_back=True))
    first = await world.push(people(1, first_name="Ada"))
    await world.rows("UPDATE deliveries SET next_attempt_at = now() + interval '1 hour'")
    second = await world.push(people(1, first_name="Bob"))
    async with working(world.settings):
        assert await world.finished(second.job_id) == "completed"
        await world.rows(
            "UPDATE deliveries SET states = 'u', unknown_since = now(), lost = 25, next_attempt_at = now() "
            "WHERE job_id = $1",
            first.job_id,
        )
        await world.rows("UPDATE effects SET pending = 0, unknown = 1 WHERE job_id = $1", first.job_id)
        assert await world.finished(first.job_id) == "completed"
    assert await all_dead_letters(world) == []


async def test_a_repeated_call_that_is_cut_off_leaves_what_was_settled(
    world: World, play: Callable[[Script], Script], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call is repeated with all that went along in it."""
    script = play(Script(repeatable=True))
    monkeypatch.setattr(jobs.worker, "_STOP_MARGIN", 0.0)
    states = [EffectState.OK, EffectState.FAILED, EffectState.UNKNOWN]

    async def mixed(contacts: list[SentRecord]) -> Reply:
        if len(script.calls) > 1:
            await asyncio.sleep(30)
        replies = [(await every(s)([c])).outcomes[0] for c, s in zip(contacts, states, strict=True)]
        return Reply(outcomes=replies, health=Health.WELL, status=207)

    script.push = mixed
    settings = msgspec.structs.replace(
        world.settings, reconcile_grace=0.0, crm_total_timeout=0.5, crm_connect_timeout=0.5
    )
    pushed = await world.push(people(3))
    async with working(settings):
        async with asyncio.timeout(60):
            while len(script.calls) < 2:
                await asyncio.sleep(0.02)
    assert await world.effects(pushed.job_id) == {"ok": 1, "failed": 1, "unknown": 1}


async def test_a_worker_that_stops_gives_a_call_the_time_that_its_destination_has(
    world: World, play: Callable[[Script], Script], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = play(Script())
    monkeypatch.setattr(jobs.worker, "_STOP_MARGIN", 0.3)
    begun = asyncio.Event()

    async def slowly(contacts: list[SentRecord]) -> Reply:
        begun.set()
        await asyncio.sleep(1.5)
        return await well(contacts)  # type: ignore[no-any-return]

    script.push = slowly
    await world.rows("UPDATE destinations SET options = '{\"total_timeout\": 50}'")
    settings = msgspec.structs.replace(world.settings, crm_total_timeout=0.5, crm_connect_timeout=0.5)
    pushed = await world.push(people(1))
    async with working(settings):
        await asyncio.wait_for(begun.wait(), 60)
    assert await world.effects(pushed.job_id) == {"ok": 1}


# what CRMs say


async def test_an_id_that_cannot_be_kept_harms_nobody(world: World, play: Callable[[Script], Script]) -> None:
    script = play(Script())

    async def odd(contacts: list[SentRecord]) -> Reply:
        reply: Reply = await well(contacts)
        ids = ["a\0b", "\ud800", "x" * 10_000, "17"]
        outcomes = [msgspec.structs.replace(o, remote_id=i) for o, i in zip(reply.outcomes, ids, strict=True)]
        return msgspec.structs.replace(reply, outcomes=outcomes)

    script.push = odd
    pushed = await world.push(people(4))
    async with working(world.settings):
        assert await world.finished(pushed.job_id) == "completed"
    rows = await world.rows("SELECT remote_id FROM record_syncs ORDER BY record_id")
    assert [row["remote_id"] for row in rows] == [None, None, None, "17"]


# dead letters


@pytest.mark.parametrize("kind", ["replay", "undo"])
async def test_what_fails_again_can_be_retried_again(world: World, kind: str) -> None:
    """Of a job that did not begin it all: the dead letter's root is another one's."""
    async with working(world.settings):
        if kind == "replay":
            await fail(world, 2, 1)
            job_id = await sent(world, await replay(world, Filter(record_id="c00000")))
        else:
            for name in ("Ada", "Bob"):
                pushed = await world.push(people(1, first_name=name))
                await world.finished(pushed.job_id)
            await refuse(world, range(1))
            asked = await undo_service.undo(
                world.database, world.tenant_id, pushed.job_id, key_id="k", request_id="r", new_id=uuid7
            )
            job_id = asked.job_id
            assert await world.finished(job_id) == "completed_with_failures"
        again = await sent(world, await retry(world, job_id))
        assert await world.effects(again) == {"failed": 1}
        await refuse(world, [])
        taken = await retry(world, job_id)
        assert taken.taken == 1
        assert await world.effects(await sent(world, taken)) == {"ok": 1}


async def test_what_is_settled_ends_earlier_letters_of_the_contact(world: World) -> None:
    async with working(world.settings):
        await fail(world, 1, 1)
        pushed = await world.push(people(1, first_name="Ada"))
        await world.finished(pushed.job_id)
    _, later = await all_dead_letters(world)
    await world.rows(
        "UPDATE dead_letters SET error_code = 'OUTCOME_UNKNOWN' WHERE dead_letter_id = $1", later["dead_letter_id"]
    )
    await dead_letter_service.settle(world.database, actor(world), [later["dead_letter_id"]], "seen there")
    assert [dead_letter["resolution"] for dead_letter in await all_dead_letters(world)] == ["superseded", "delivered"]


async def test_what_a_human_has_sent_again_is_another_call(world: World, play: Callable[[Script], Script]) -> None:
    """A CRM that keeps the answer to a key would give the old refusal for ever."""
    script = play(Script(repeatable=True))
    script.push = every(EffectState.FAILED)
    pushed = await world.push(people(1))
    async with working(world.settings):
        assert await world.finished(pushed.job_id) == "completed_with_failures"
        again = await sent(world, await retry(world, pushed.job_id))
        script.push = well
        assert await world.effects(await sent(world, await retry(world, again))) == {"ok": 1}
    assert len(set(script.events)) == 3


async def test_a_call_whose_body_would_be_another_is_not_repeated(
    world: World, play: Callable[[Script], Script]
) -> None:
    """Under its key the CRM would refuse it, though it may have done the first one: a human must look."""
    script = play(Script(repeatable=True))
    script.push = every(EffectState.UNKNOWN)
    pushed = await world.push(people(1))
    async with working(patient(world)):
        await until(world, pushed.job_id, {"unknown": 1})
    await world.rows('UPDATE destinations SET options = \'{"fields": {"last_name": "surname"}}\'')
    await world.rows("UPDATE deliveries SET next_attempt_at = now()")
    async with working(world.settings):
        assert await world.finished(pushed.job_id) == "completed_with_failures"
    (dead_letter,) = await all_dead_letters(world)
    assert dead_letter["error_code"] == "OUTCOME_UNKNOWN"
    assert len(script.events) == 1


async def test_a_retry_finds_the_replay_that_has_the_letters(world: World) -> None:
    async with working(world.settings):
        job_id = await fail(world, 2, 1)
        await world.rows("UPDATE destinations SET state = 'paused'")
        replayed = await replay(world, Filter(job_id=job_id))
        assert (await retry(world, job_id)).job_id == replayed.job_id


async def test_a_slow_replay_goes_a_few_at_a_time(world: World) -> None:
    async with working(world.settings):
        await fail(world, 10, 10)
        await world.rows("UPDATE destinations SET state = 'paused'")
        await dead_letter_service.replay(
            world.database, actor(world), Filter(), world.settings, rate=2, catalog=Catalog(), new_id=uuid7
        )
    rows = await world.rows("SELECT record_ids FROM deliveries WHERE dead_letters IS NOT NULL")
    assert [len(row["record_ids"]) for row in rows] == [2] * 5


async def test_a_destination_that_was_added_again_has_both_counts(world: World) -> None:
    pushed = await world.push(people(3))
    async with working(world.settings):
        await world.finished(pushed.job_id)
    await world.rows("UPDATE destinations SET state = 'removed'")
    await world.rows(
        "INSERT INTO destinations (tenant_id, name, kind, base_url, credentials) "
        "SELECT tenant_id, name, kind, base_url, credentials FROM destinations"
    )
    await world.rows(
        "INSERT INTO effects (tenant_id, job_id, destination_id, skipped) "
        "SELECT tenant_id, $1, destination_id, 2 FROM destinations WHERE state = 'active'",
        pushed.job_id,
    )
    told = (await read(world, pushed.job_id)).effects["hubspot"]
    assert (told.ok, told.skipped) == (3, 2)


# names


async def test_names_that_nobody_answers_for_hold_up_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """The threads of webhooks are not those of anybody else."""
    look_up = socket.getaddrinfo
    waiting: list[str] = []
    answered = threading.Event()

    def hang(host: Any, *words: Any, **options: Any) -> Any:
        if str(host).endswith(".example"):
            waiting.append(str(host))
            answered.wait(60)
            raise socket.gaierror("nobody answered")
        return look_up(host, *words, **options)

    monkeypatch.setattr(socket, "getaddrinfo", hang)

    async def call(session: aiohttp.ClientSession, number: int) -> None:
        timeout = aiohttp.ClientTimeout(total=0.2)
        with pytest.raises((aiohttp.ClientError, TimeoutError)):
            await session.post(f"http://dead-{number}.example/", timeout=timeout)

    session = open_session((), connections=20)
    try:
        await asyncio.gather(*(call(session, number) for number in range(20)))
        async with asyncio.timeout(30):
            while len(waiting) < 20:
                await asyncio.sleep(0.01)
            await asyncio.get_running_loop().getaddrinfo("localhost", 80)
    finally:
        answered.set()
        await session.close()
