"""What every adapter says when the call as a whole goes wrong: retry, unknown, pause, and whose fault it is."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aiohttp
import pytest

from app.vocabulary.states import EffectState, ErrorCode
from jobs.crm.port import Crm, Health, Reply, Seen, Timeouts
from tests.contract.conftest import TOKEN, UNREAD, WITH_STAND_IN, Connect, Sandbox, contacts, told
from tests.stopwatch import stopwatch


def every(reply: Reply) -> tuple[EffectState, ErrorCode | None]:
    """The one verdict that all contacts of a call share, in a reply that is complete and leaks nothing."""
    assert [o.record_id for o in reply.outcomes] == [f"c{n}" for n in range(len(reply.outcomes))]
    [verdict] = {(o.state, o.code) for o in reply.outcomes}
    for words in {o.detail for o in reply.outcomes} | {reply.detail}:
        assert words
        assert len(words) <= 300
        assert TOKEN not in words
    return verdict


RETRY = (EffectState.RETRY, ErrorCode.DESTINATION_UNAVAILABLE)
LIMITED = (EffectState.RETRY, ErrorCode.DESTINATION_RATE_LIMIT)
UNKNOWN = (EffectState.UNKNOWN, ErrorCode.OUTCOME_UNKNOWN)


@pytest.mark.parametrize(
    ("fault", "verdict", "health", "arrived"),
    [
        ({"down": {"on": "write"}}, UNKNOWN, Health.CRM_FAULT, Seen.ABSENT),
        ({"drop_before": {}}, UNKNOWN, Health.CRM_FAULT, Seen.ABSENT),
        ({"accept_then_drop": {}}, UNKNOWN, Health.CRM_FAULT, Seen.MATCHES),
        ({"slow": {"latency": 5, "on": "write"}}, UNKNOWN, Health.CRM_FAULT, Seen.MATCHES),
        ({"status": {"code": 500, "on": "write"}}, UNKNOWN, Health.CRM_FAULT, Seen.ABSENT),
        ({"status": {"code": 500, "on": "write", "apply": True}}, UNKNOWN, Health.CRM_FAULT, Seen.MATCHES),
        ({"status": {"code": 502, "on": "write", "body": "html"}}, UNKNOWN, Health.CRM_FAULT, Seen.ABSENT),
        ({"status": {"code": 504, "on": "write", "apply": True}}, UNKNOWN, Health.CRM_FAULT, Seen.MATCHES),
        ({"status": {"code": 408, "on": "write"}}, UNKNOWN, Health.CRM_FAULT, Seen.ABSENT),
        ({"status": {"code": 503, "on": "write"}}, RETRY, Health.CRM_FAULT, Seen.ABSENT),
        ({"unauthorized": {"on": "write"}}, RETRY, Health.CONNECTION_FAULT, Seen.ABSENT),
        ({"unauthorized": {"code": 403, "on": "write"}}, RETRY, Health.CONNECTION_FAULT, Seen.ABSENT),
        ({"status": {"code": 302, "on": "write"}}, RETRY, Health.CONNECTION_FAULT, Seen.ABSENT),
        ({"status": {"code": 404, "on": "write"}}, RETRY, Health.CONNECTION_FAULT, Seen.ABSENT),
        *(
            ({"garbage": {"mode": mode, "on": "write"}}, UNKNOWN, Health.CRM_FAULT, Seen.MATCHES)
            for mode in ("truncated", "cut", "html", "empty", "shape", "deep", "huge")
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
async def test_a_fault_becomes_the_honest_verdict_and_read_back_settles_it(
    connect: Connect,
    sandbox: Sandbox,
    kind: str,
    fault: dict[str, Any],
    verdict: tuple[EffectState, ErrorCode],
    health: Health,
    arrived: Seen,
) -> None:
    """`UNKNOWN` exactly where the contacts may have arrived, whether or not they did."""
    crm = connect(timeouts=Timeouts(connect=0.5, total=0.6))
    await sandbox.faults(**fault)
    reply = await crm.push(contacts(3), told("r"))

    if kind == "postgres" and arrived is Seen.ABSENT:
        verdict = RETRY  # what was not committed is certainly not there
    assert every(reply) == verdict
    assert reply.health == health
    assert reply.pause is None
    assert reply.rejected_whole is False
    back = await crm.read_back(contacts(3), told("r"))
    assert back.seen == {f"c{n}": arrived for n in range(3)}


@pytest.mark.parametrize(
    "fault",
    [
        {"down": {}},
        {"drop_before": {"on": "read"}},
        {"slow": {"latency": 5}},
        {"status": {"code": 500}},
        {"status": {"code": 503}},
        {"garbage": {"mode": "truncated"}},
        {"garbage": {"mode": "shape"}},
        {"garbage": {"mode": "huge"}},
    ],
    ids=str,
)
async def test_a_read_that_fails_knows_nothing(connect: Connect, sandbox: Sandbox, fault: dict[str, Any]) -> None:
    crm = connect(timeouts=Timeouts(connect=0.5, total=0.6))
    if sandbox.kind in UNREAD:
        pytest.skip("it cannot be read back")
    await crm.push(contacts(2), told("r"))
    await sandbox.faults(**fault)
    back = await crm.read_back(contacts(2), told("r"))

    assert back.seen is None
    assert back.health == Health.CRM_FAULT
    assert back.detail
    assert TOKEN not in back.detail


async def test_a_refused_connection_was_certainly_not_sent(crm: Crm, sandbox: Sandbox) -> None:
    await sandbox.faults(refuse={"seconds": 0.5})
    reply = await crm.push(contacts(2), told("r"))
    assert every(reply) == RETRY
    assert reply.health == Health.CRM_FAULT

    await asyncio.sleep(0.7)
    assert {o.state for o in (await crm.push(contacts(2), told("r"))).outcomes} == {EffectState.OK}


@pytest.mark.parametrize("host", ["http://no-such-host.invalid", "http://127.0.0.1:1", "http://" + "x" * 70 + ".test"])
async def test_an_address_where_nobody_lives_is_a_retry(connect: Connect, kind: str, host: str) -> None:
    own = {"postgres": host.replace("http", "postgresql") + "/db", "kafka": host.replace("http", "kafka")}
    url = own.get(kind, host)
    reply = await connect(base_url=url).push(contacts(1), told("r"))
    assert every(reply) == RETRY
    assert reply.health == Health.CRM_FAULT


@pytest.mark.parametrize("kind", WITH_STAND_IN)
async def test_no_free_connection_within_the_time_is_a_retry(sandbox: Sandbox, connect: Connect) -> None:
    """The call waited in our own pool: nothing was sent, so nothing is unknown."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as narrow:
        crm = connect(session=narrow, timeouts=Timeouts(connect=0.3, total=0.4))
        await sandbox.faults(slow={"latency": 2, "times": 1})
        blocker = asyncio.create_task(
            connect(session=narrow, timeouts=Timeouts(total=3.0)).push(contacts(1), told("r"))
        )
        await asyncio.sleep(0.1)
        assert every(await crm.push(contacts(2), told("r"))) == RETRY
        assert {o.state for o in (await blocker).outcomes} == {EffectState.OK}


async def test_the_total_timeout_holds(connect: Connect, sandbox: Sandbox) -> None:
    await sandbox.faults(slow={"latency": 30})
    started = time.monotonic()
    async with stopwatch() as passed:
        reply = await connect(timeouts=Timeouts(connect=0.2, total=0.4)).push(contacts(1), told("r"))

    took = time.monotonic() - started
    assert took > 0.35
    assert passed.seconds < 1.2
    assert 0.1 < reply.seconds <= took
    assert "timed out" in reply.outcomes[0].detail


async def test_a_cancelled_call_is_cancelled(crm: Crm, sandbox: Sandbox) -> None:
    await sandbox.faults(slow={"latency": 30})
    for call in (crm.push, crm.read_back)[: 1 if sandbox.kind in UNREAD else 2]:
        task = asyncio.create_task(call(contacts(1), told("r")))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 20)  # the answer would come later


async def test_a_rate_limit_pauses_and_is_no_fault(crm: Crm, sandbox: Sandbox) -> None:
    await sandbox.faults(rate_limit={"times": 2})
    reply = await crm.push(contacts(3), told("r"))

    assert every(reply) == LIMITED
    assert reply.health == Health.WELL
    assert reply.pause is not None
    assert reply.pause.seconds > 0
    back = await (crm.push if sandbox.kind in UNREAD else crm.read_back)(contacts(3), told("r"))
    assert (getattr(back, "seen", None), back.health) == (None, Health.WELL)
    assert back.pause is not None
    assert await sandbox.effects() == []
    assert {o.state for o in (await crm.push(contacts(3), told("r"))).outcomes} == {EffectState.OK}


async def test_a_lock_is_no_fault_and_pauses_where_the_whole_call_was_locked(crm: Crm, sandbox: Sandbox) -> None:
    await sandbox.faults(lock={})
    reply = await crm.push(contacts(2), told("r"))

    assert {(o.state, o.code) for o in reply.outcomes} == {RETRY}
    assert all(o.detail for o in reply.outcomes)
    assert reply.health == Health.WELL
    if sandbox.locks_calls:
        assert reply.pause is not None
        assert reply.pause.seconds >= 2
    else:
        assert reply.pause is None, "others of the same call may have been done"
    assert await sandbox.effects() == []


async def test_unavailable_with_retry_after_is_a_fault_and_a_pause(crm: Crm, sandbox: Sandbox) -> None:
    await sandbox.faults(status={"code": 503, "retry_after": 7})
    reply = await crm.push(contacts(2), told("r"))

    assert every(reply) == RETRY
    assert reply.health == Health.CRM_FAULT
    assert reply.pause is not None
    assert reply.pause.seconds == 7


async def test_a_wrong_token_counts_against_the_connection(connect: Connect, sandbox: Sandbox) -> None:
    reply = await connect(token="bad-token").push(contacts(2), told("r"))

    assert every(reply) == RETRY
    assert reply.health == Health.CONNECTION_FAULT
    said = {"postgres": "28P01", "object": "SignatureDoesNotMatch", "kafka": "(58)"}
    assert said.get(sandbox.kind, "401") in reply.detail
    assert "bad-token" not in reply.detail
    assert await sandbox.effects() == []


@pytest.mark.parametrize("kind", WITH_STAND_IN)
async def test_every_call_is_booked_with_its_fault_and_fate(crm: Crm, sandbox: Sandbox) -> None:
    await crm.push(contacts(2), told("one"))
    await sandbox.faults(accept_then_drop={"times": 1})
    await crm.push(contacts(3), told("two"))
    await crm.read_back(contacts(3), told("three"))

    booked = [
        (c["request_id"], c["on"], c["n"], c["status"], c["faults"], c["answered"]) for c in await sandbox.calls()
    ]
    assert booked == [
        ("one", "write", 2, 200, [], True),
        ("two", "write", 3, 200, ["accept_then_drop"], False),
        ("three", "read", 3, 200, [], True),
    ]
    assert [e["call"] for e in await sandbox.effects()] == [1, 1, 2, 2, 2]
