"""Without OpenTelemetry: a client's trace and request id reach every CRM and every receiver of webhooks."""

from __future__ import annotations

import asyncio
import re
import sys
from typing import Any

import pytest
import structlog

from app.errors import SettingsError
from app.settings import Settings
from app.tracing.exporting import check
from tests.http.conftest import Api
from tests.jobs.conftest import Sandbox, people
from tests.jobs.tracing.conftest import Chain, Hook, add_chain

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CLIENT = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=x:1", "X-Request-ID": "order-4711"}


def trace_of(traceparent: str) -> str:
    found = re.fullmatch(r"00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}", traceparent)
    assert found, traceparent
    return found[1]


async def test_a_trace_reaches_the_crm_and_the_webhook(chain: Chain) -> None:
    answer, job_id = await chain.push(people(3), **CLIENT)
    assert answer.headers["X-Request-ID"] == "order-4711"
    calls = await chain.calls("order-4711")
    assert {trace_of(call["traceparent"]) for call in calls} == {TRACE}
    assert SPAN not in "".join(call["traceparent"] for call in calls), "each call is an operation of its own"
    assert len({call["traceparent"] for call in calls}) == len(calls)
    told = await chain.hook.about(job_id)
    assert (trace_of(told["traceparent"]), told["tracestate"]) == (TRACE, "vendor=x:1")
    assert told["x-request-id"] == "order-4711"


@pytest.mark.parametrize("query", ["", "?atomic=true"])
async def test_so_does_that_of_a_file(chain: Chain, query: str) -> None:
    rows = "".join(f"c{i},c{i}@example.com\n" for i in range(1_500))
    answer = await chain.api.request(
        "POST",
        f"/v1/contacts:bulk{query}",
        headers={"Idempotency-Key": "file", "Content-Type": "text/csv", **CLIENT},
        data=b"id,email\n" + rows.encode(),
    )
    assert answer.status == 202
    told = await chain.hook.about(answer.json()["job_id"])
    assert (trace_of(told["traceparent"]), told["x-request-id"]) == (TRACE, "order-4711")
    calls = await chain.calls("order-4711")
    assert len(calls) >= 15
    assert {trace_of(call["traceparent"]) for call in calls} == {TRACE}


@pytest.mark.parametrize(
    "sent", [{}, {"traceparent": "00-" + "0" * 32 + f"-{SPAN}-01"}, {"traceparent": f"00-{TRACE}-{SPAN}-01-x' OR 1=1"}]
)
async def test_one_trace_is_made_for_a_request_that_has_none(chain: Chain, sent: dict[str, str]) -> None:
    answer, job_id = await chain.push(people(150), **sent)
    calls = await chain.calls(answer.headers["X-Request-ID"])
    assert len(calls) >= 2
    traces = {trace_of(call["traceparent"]) for call in calls}
    told = await chain.hook.about(job_id)
    assert traces == {trace_of(told["traceparent"])}
    assert traces != {TRACE}
    assert "tracestate" not in told
    _, other_job = await chain.push(people(1, start=200))
    assert trace_of((await chain.hook.about(other_job))["traceparent"]) not in traces


async def test_undo_and_replay_belong_to_who_asked_for_them(chain: Chain) -> None:
    await chain.sandbox.misbehave(reject={"keys": ["c00001"]})
    _, job_id = await chain.push(people(2), **CLIENT)
    dead = await chain.hook.about(job_id, "item.dead")
    assert (trace_of(dead["traceparent"]), dead["x-request-id"]) == (TRACE, "order-4711")
    await chain.sandbox.recover()
    for number, action in enumerate(("retry", "undo"), start=1):
        other = f"{number}" * 32
        sent = {"traceparent": f"00-{other}-{SPAN}-00", "X-Request-ID": action}
        answer = await chain.api.request("POST", f"/v1/jobs/{job_id}/{action}", headers=sent)
        assert answer.status in (201, 202), answer.body
        told = await chain.hook.about(answer.json()["job_id"])
        assert (told["traceparent"].split("-")[1::2], told["x-request-id"]) == ([other, "00"], action)
        calls = await chain.calls(action)
        assert calls
        assert {trace_of(call["traceparent"]) for call in calls} == {other}


async def test_a_test_of_a_destination_carries_it(chain: Chain) -> None:
    answer = await chain.api.request("POST", "/v1/destinations/hubspot/test", headers=CLIENT)
    assert answer.status == 200, answer.body
    calls = await chain.calls("order-4711")
    assert calls
    assert {trace_of(call["traceparent"]) for call in calls} == {TRACE}


async def test_tenants_that_share_a_trace_share_nothing_else(
    api: Api, settings: Settings, sandbox: Sandbox, hook: Hook
) -> None:
    """Each has its own trace, also while both are served at once."""
    chains = [await add_chain(api, settings, sandbox, hook) for _ in range(2)]
    sent = [f"{letter}" * 32 for letter in "ab"]

    async def push(chain: Chain, trace: str, number: int) -> None:
        request_id = f"{trace[:4]}-{number}"
        headers = {"traceparent": f"00-{trace}-{SPAN}-01", "X-Request-ID": request_id}
        _, job_id = await chain.push(people(3, start=10 * number), **headers)
        told = await hook.about(job_id)
        assert (trace_of(told["traceparent"]), told["x-request-id"]) == (trace, request_id)
        assert {trace_of(call["traceparent"]) for call in await chain.calls(request_id)} == {trace}

    await asyncio.gather(*(push(c, t, n) for c, t in zip(chains, sent, strict=True) for n in range(4)))


async def test_a_message_that_is_given_up_keeps_its_header_fields(chain: Chain) -> None:
    chain.hook.status = 400
    _, job_id = await chain.push(people(1), **CLIENT)
    at = f"/v1/webhook-endpoints/{chain.endpoint_id}/messages"
    async with asyncio.timeout(45):
        while not (found := (await chain.api.get(f"{at}?state=failed")).json()["messages"]):
            await asyncio.sleep(0.05)
    message = (await chain.api.get(f"{at}/{found[-1]['message_id']}")).json()
    [attempt] = message["attempts"]
    received = await chain.hook.about(job_id)
    kept = {name.lower(): value for name, value in attempt["headers"].items()}
    assert kept["x-request-id"] == "order-4711"
    assert kept.pop("webhook-signature") == "(not kept)"
    assert received["webhook-signature"].startswith("v1,")
    assert received["webhook-signature"] not in str(message)
    assert kept.items() <= received.items()
    chain.hook.status = 204
    _, job_id = await chain.push(people(1, start=5))
    async with asyncio.timeout(45):
        while not (well := (await chain.api.get(f"{at}?state=ok")).json()["messages"]):
            await asyncio.sleep(0.05)
    assert well[0]["attempts"][-1]["headers"] is None


async def test_lines_in_the_log_carry_the_ids(chain: Chain) -> None:
    lines: list[dict[str, Any]] = []

    def keep(_: object, __: str, fields: structlog.typing.EventDict) -> structlog.typing.EventDict:
        lines.append(dict(fields))
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, keep],
        wrapper_class=structlog.make_filtering_bound_logger(0),
        cache_logger_on_first_use=False,
    )
    try:
        _, job_id = await chain.push(people(2), **CLIENT)
    finally:
        structlog.configure(**before)
    about = {line["event"]: line for line in lines if line.get("request_id") == "order-4711"}
    assert {"request", "delivery_attempted"} <= set(about)
    assert {line["trace_id"] for line in about.values()} == {TRACE}
    attempted = about["delivery_attempted"]
    assert (attempted["tenant_id"], attempted["job_id"], attempted["kind"]) == (chain.tenant_id, job_id, "hubspot")
    assert attempted["items"] == {"ok": 2}
    assert attempted["seconds"] >= 0
    assert "example.com" not in str(lines)


def test_without_the_extra_only_what_needs_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n == "app.tracing.otlp" or n.split(".")[0] == "opentelemetry"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.delattr("app.tracing.otlp", raising=False)
    check(Settings())
    with pytest.raises(SettingsError, match=r"install tranche\[otel\]"):
        check(Settings(otlp_endpoint="http://127.0.0.1:4318"))


async def test_the_service_and_a_worker_import_nothing_of_opentelemetry() -> None:
    code = "import sys, app.main, jobs.worker; print([n for n in sys.modules if n.startswith('opentelemetry')])"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, error = await process.communicate()
    assert out.decode().strip() == "[]", error.decode()
