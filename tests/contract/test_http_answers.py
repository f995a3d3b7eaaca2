"""Answers of services that were not made for Tranche: expressions, one record's status, rate limits, tasks."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest

from app.vocabulary.states import EffectState, ErrorCode
from jobs.crm.http.adapter import Http
from jobs.crm.port import Health, Seen, Timeouts
from tests.contract.conftest import contacts, told, with_token
from tests.contract.scripted import Script
from tests.stopwatch import stopwatch
from tests.types import CONTACTS, sent

OK, RETRY, FAILED, UNKNOWN = EffectState.OK, EffectState.RETRY, EffectState.FAILED, EffectState.UNKNOWN
NOW = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
Make = Callable[..., Http]


@pytest.fixture
async def make(script: Script) -> AsyncIterator[Make]:
    async with aiohttp.ClientSession() as session:

        def make(total: float = 2.0, **options: Any) -> Http:
            return Http(
                resource=CONTACTS,
                session=session,
                base_url=script.url,
                authorizer=with_token(),
                options=options,
                timeouts=Timeouts(connect=1.0, total=total),
                now=lambda: NOW,
            )

        yield make


async def test_expressions_find_results_wherever_they_are(make: Make, script: Script) -> None:
    crm = make(
        results="required",
        results_field="responses[].create | [?index != null]",
        result_id="ids[?kind=='ours'].value | [0]",
        result_ok="status",
        result_error="error.[type, reason]",
        result_remote_id='"_id"',
    )
    ours = [[{"kind": "theirs", "value": "x"}, {"kind": "ours", "value": f"c{n}"}] for n in range(3)]
    script.body = {
        "responses": [
            {"create": {"index": 1, "ids": ours[1], "status": 400, "error": {"type": "mapper", "reason": "no date"}}},
            {"create": {"index": None, "ids": ours[2], "status": 201}},
            {"create": {"index": 0, "ids": ours[0], "status": 201, "_id": "r0"}},
        ]
    }
    first, second, third = (await crm.push(contacts(3), told())).outcomes
    assert (first.state, first.remote_id, first.created) == (OK, "r0", True)
    assert (second.state, second.detail) == (FAILED, "The destination rejected this record: mapper; no date")
    assert third.state == UNKNOWN


async def test_failures_in_nested_lists_by_an_expression(make: Make, script: Script) -> None:
    crm = make(results="failures", results_field="skipped.*[]", result_id="who")
    script.body = {
        "skipped": {"old": [{"who": "c2", "why": "x", "message": "too old"}], "new": []},
        "fine": [{"who": "c0"}],
    }
    outcomes = (await crm.push(contacts(3), told())).outcomes
    assert [o.state for o in outcomes] == [OK, OK, FAILED]
    assert outcomes[2].detail.endswith("too old")


async def test_an_answer_that_takes_too_long_to_read_is_an_unknown_outcome(make: Make, script: Script) -> None:
    crm = make(results="failures", results_field="[*][*][?@ > `1`][]")
    script.body = [[list(range(30)) for _ in range(100)] for _ in range(100)]
    started = time.process_time()
    reply = await crm.push(contacts(1), told())
    assert reply.outcomes[0].state == UNKNOWN
    assert time.process_time() - started < 5


ONE = {"path": "/contacts", "body": "{record}", "results": "status", "result_remote_id": "data.id"}


@pytest.mark.parametrize(
    ("status", "body", "state", "said"),
    [
        (200, {"data": {"id": 1, "state": "error", "errors": ["a customer's word"]}}, OK, ""),
        (204, None, OK, ""),
        (200, {"ok": False, "error": "no such list"}, FAILED, "no such list"),
        (202, {"id": "t1"}, UNKNOWN, "202 means that it is queued"),
        (400, {"errors": [{"title": "Invalid", "detail": "phone is not E.164"}]}, FAILED, "phone is not E.164"),
        (409, {"errors": {"email": ["is taken"]}}, FAILED, "is taken"),
        (422, {"code": "invalid_parameter", "msg": "bad email"}, FAILED, "bad email"),
        (500, {}, UNKNOWN, ""),
    ],
)
async def test_the_status_of_a_call_with_one_record(
    make: Make, script: Script, status: int, body: Any, state: EffectState, said: str
) -> None:
    script.status, script.body, script.raw = status, body, b"" if body is None else None
    [outcome] = (await make(**ONE).push(contacts(1), told())).outcomes
    assert outcome.state == state, outcome
    assert said in outcome.detail


@pytest.mark.parametrize(
    ("status", "headers", "seconds"),
    [
        (429, {"X-RateLimit-Reset": "1772625637"}, 37),
        (429, {"X-RateLimit-Reset": "1772625637000"}, 37),
        (429, {"X-Rate-Limit-Reset": "12"}, 12),
        (429, {"RateLimit-Reset": "12", "X-RateLimit-Remaining": "5"}, 12),
        (429, {"x-sib-ratelimit-reset": "7"}, 7),
        (429, {"RateLimit": '"default";r=0;t=30'}, 30),
        (429, {"RateLimit": "limit=100, remaining=0, reset=31"}, 31),
        (429, {"X-RateLimit-Reset": "2026-03-04T12:00:20Z"}, 20),
        (429, {"Retry-After": "3", "X-RateLimit-Reset": "1772625637"}, 3),
        (429, {"X-RateLimit-Reset": "soon"}, 10),
        (403, {"Retry-After": "9"}, 9),
        (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1772625637"}, 37),
        (503, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "8"}, 8),
    ],
)
async def test_a_rate_limit_says_when_to_come_back(
    make: Make, script: Script, status: int, headers: dict[str, str], seconds: int
) -> None:
    script.status, script.headers = status, headers
    reply = await make().push(contacts(2), told())
    assert reply.pause is not None
    assert reply.pause.seconds == seconds
    assert {o.state for o in reply.outcomes} == {RETRY}
    if status != 503:
        assert reply.health is Health.WELL
        assert reply.outcomes[0].code == ErrorCode.DESTINATION_RATE_LIMIT


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (403, {}),
        (403, {"X-RateLimit-Remaining": "99", "X-RateLimit-Reset": "1772625637"}),
        (401, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "5"}),
    ],
)
async def test_a_refused_token_is_no_rate_limit(
    make: Make, script: Script, status: int, headers: dict[str, str]
) -> None:
    script.status, script.headers = status, headers
    reply = await make().push(contacts(2), told())
    assert (reply.pause, reply.health) == (None, Health.CONNECTION_FAULT)


async def test_503_with_quota_left_does_not_wait_for_the_end_of_an_hour(make: Make, script: Script) -> None:
    script.status, script.headers = 503, {"X-RateLimit-Remaining": "99", "X-RateLimit-Reset": "3600"}
    assert (await make().push(contacts(2), told())).pause is None


TASK = {"task": {"path": "/imports/{task}", "id": "job_id"}, "results": "failures"}


async def test_the_end_of_a_task_is_awaited(make: Make, script: Script) -> None:
    script.answers = [
        (202, {"job_id": "a/1"}),
        (404, {}),
        (200, {"status": "pending", "job_id": "a/1"}),
        (200, {"status": "Completed", "errors": [{"index": 1, "message": "bad"}]}),
    ]
    outcomes = (await make(total=8.0, **TASK).push(contacts(2), told())).outcomes
    assert [o.state for o in outcomes] == [OK, FAILED]
    assert [(r.method, r.raw_path) for r in script.asked] == [("POST", "/contacts"), *[("GET", "/imports/a%2F1")] * 3]


async def test_a_task_that_does_not_end_in_time_is_an_unknown_outcome(make: Make, script: Script) -> None:
    script.answers, script.body = [(202, {"job_id": 7})], {"status": "pending"}
    async with stopwatch() as watch:
        reply = await make(total=1.0, **TASK).push(contacts(2), told())
    assert {o.state for o in reply.outcomes} == {UNKNOWN}
    assert "queued and not done" in reply.outcomes[0].detail
    assert watch.seconds < 2
    assert reply.seconds < 0.5  # the service answered fast, whatever its work takes


@pytest.mark.parametrize(
    ("count", "repeatable", "state", "whole"),
    [(1, False, FAILED, False), (2, False, UNKNOWN, False), (2, True, RETRY, True)],
)
async def test_a_task_that_failed(
    make: Make, script: Script, count: int, repeatable: bool, state: EffectState, whole: bool
) -> None:
    script.answers = [(202, {"job_id": "t"}), (200, {"status": "failed", "message": "no such field"})]
    reply = await make(repeatable=repeatable, **TASK).push(contacts(count), told())
    assert ({o.state for o in reply.outcomes}, reply.rejected_whole) == ({state}, whole)
    assert "no such field" in reply.outcomes[0].detail


async def test_failures_that_a_task_only_counts_are_found_by_halves_if_that_is_harmless(
    make: Make, script: Script
) -> None:
    answers: list[tuple[int, object]] = [
        (202, {"job_id": "t"}),
        (200, {"status": "completed", "results": {"errored_count": 1, "created_count": 1}}),
    ]
    script.answers = list(answers)
    reply = await make(repeatable=True, **TASK).push(contacts(2), told())
    assert (reply.rejected_whole, {o.state for o in reply.outcomes}) == (True, {RETRY})

    script.answers = list(answers)
    reply = await make(**TASK).push(contacts(2), told())
    assert (reply.rejected_whole, {o.state for o in reply.outcomes}) == (False, {UNKNOWN})

    script.answers = list(answers)
    [one] = (await make(repeatable=True, **TASK).push(contacts(1), told())).outcomes
    assert one.state == FAILED


async def test_reading_a_batch_back_by_expressions(make: Make, script: Script) -> None:
    crm = make(
        item={"external_id": "{id}", "email": "{fields.email}", "custom": "{attributes}"},
        body={"users": "{records}"},
        read={
            "method": "POST",
            "path": "/export",
            "body": {"ids": "{ids}"},
            "records": "users[].user",
            "id": "external_id",
            "remote_id": "_id",
            "missing": "invalid_user_ids",
        },
    )
    script.body = {
        "users": [
            {"user": {"external_id": "k0", "email": "A@X.org", "_id": "r0", "custom": {"tier": "gold", "more": 1}}},
            {"user": {"external_id": "k1", "email": "b@x.org", "_id": "r1", "custom": {"tier": "tin"}}},
        ],
        "invalid_user_ids": ["k2"],
    }
    people = [
        sent("k0", email="a@x.org", attributes={"tier": "gold"}),
        sent("k1", email="b@x.org", attributes={"tier": "gold"}),
        sent("k2", email="c@x.org"),
        sent("k3", email="d@x.org"),
    ]
    back = await crm.read_back(people, told())
    assert back.seen == {"k0": Seen.MATCHES, "k1": Seen.DIFFERS, "k2": Seen.ABSENT}
    assert back.remote_ids == {"k0": "r0", "k1": "r1"}
    assert script.bodies == [{"ids": ["k0", "k1", "k2", "k3"]}]
