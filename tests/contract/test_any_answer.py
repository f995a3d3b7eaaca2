"""Whatever a destination answers, no adapter raises, and every contact has exactly one honest outcome."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from app.vocabulary.states import EffectState
from jobs.crm.port import Health, Timeouts
from tests.contract.conftest import WITH_STAND_IN, Connect, contacts, told
from tests.contract.scripted import Script
from tests.types import sent

STATUSES = (200, 200, 200, 201, 204, 207, 300, 302, 400, 401, 403, 404, 409, 410, 413, 422, 423, 429, 477, 500, 503)
WORDS = (
    *("results", "records", "contacts", "errors", "error", "id", "Id", "ids", "ok", "retry", "success", "created"),
    *("statusCode", "errorCode", "message", "fields", "category", "context", "objectWriteTraceId", "properties"),
    *("tranche_id", "Tranche_Id__c", "totalSize", "done", "missing", "version", "deleted", "remote_id"),
    *("policyName", "title", "detail", "code"),
)
VALUES: tuple[Any, ...] = (
    *("c0", "c1", "0", "1", "", "DAILY", "UNABLE_TO_LOCK_ROW", "REQUEST_LIMIT_EXCEEDED", "INVALID_FIELD", "\0", "é"),
    *(True, False, None, 0, 1, -1, 2.5, 1e300, 10**25, 200, 404, 503),
    "No such column 'Email' on entity 'Contact'",
)
HEADERS: tuple[dict[str, str], ...] = (
    {},
    {"Retry-After": "3"},
    {"Retry-After": "-1"},
    {"Retry-After": "9" * 400},
    {"Retry-After": "Fri, 31 Dec 9999 23:59:59 GMT"},
    {"Sforce-Limit-Info": "api-usage=0/0"},
    {"Sforce-Limit-Info": "api-usage=" + "9" * 50 + "/1"},
)
DEEP = b'{"results":[{"id":"c0","ok":false,"error":' + b"[" * 900 + b"]" * 900 + b"}]}"


@pytest.fixture(params=WITH_STAND_IN)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def anything(rng: random.Random, depth: int = 0) -> Any:
    """JSON of the words that adapters look for, in places where they do and do not belong."""
    shape = rng.random()
    if depth > 4 or shape < 0.25:
        return rng.choice(VALUES)
    if shape < 0.55:
        return [anything(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {rng.choice(WORDS): anything(rng, depth + 1) for _ in range(rng.randrange(6))}


async def test_no_answer_is_too_odd(connect: Connect, script: Script) -> None:
    rng = random.Random(11)
    gone = [sent(f"c{n}", 2, deleted=True, remote_id=f"r{n}") for n in range(2)]
    for turn in range(400):
        script.status, script.headers = rng.choice(STATUSES), rng.choice(HEADERS)
        script.raw = DEEP if turn == 0 else msgspec.json.encode(anything(rng))
        if script.status == 204:
            script.raw = b""
        crm = connect(base_url=script.url, timeouts=Timeouts(2.0, 5.0))
        replies = [await crm.push(contacts(2), told()), await crm.archive(gone, told())]
        back = await crm.read_back(contacts(2), told())

        for reply in replies:
            what = (script.status, script.headers, script.raw[:300])
            assert [o.record_id for o in reply.outcomes] == ["c0", "c1"], what
            for outcome in reply.outcomes:
                assert outcome.state in (EffectState.OK, EffectState.RETRY, EffectState.FAILED, EffectState.UNKNOWN)
                assert (outcome.code is None) == (outcome.state == EffectState.OK), what
                assert outcome.detail or outcome.state == EffectState.OK, what
                assert script.status < 300 or outcome.state != EffectState.OK, what
            if reply.pause is not None:
                assert 0 < reply.pause.seconds <= 90_000, what
                assert {o.state for o in reply.outcomes} == {EffectState.RETRY}, what
            assert reply.health in Health
        assert back.seen is None or back.seen.keys() <= {"c0", "c1"}
        assert script.status < 300 or back.seen is None
