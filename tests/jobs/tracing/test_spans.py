"""With OpenTelemetry: what a collector receives, from the request to the webhook."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from typing import Any

import msgspec
import pytest
import structlog
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from app.settings import Settings
from app.tracing.exporting import exporting
from tests.http.conftest import Api
from tests.jobs.conftest import Sandbox, people
from tests.jobs.tracing.conftest import Chain, Hook, add_chain, listening

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CLIENT = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=x:1"}


class Received(msgspec.Struct, frozen=True):
    """A span, as the collector has it."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    links: list[tuple[str, str]]
    attributes: dict[str, Any]
    failed: bool
    state: str
    service: str
    text: str
    """All of it, for who looks for something that must not be there."""


class Collector:
    """Receives spans as OTLP over HTTP."""

    def __init__(self) -> None:
        self.url = ""
        self.spans: list[Received] = []
        self.status = 200
        self.headers: list[dict[str, str]] = []

    async def handle(self, request: web.Request) -> web.Response:
        assert request.path == "/v1/traces"
        body = await request.read()
        self.headers.append(dict(request.headers))
        if self.status == 200:
            self.spans += _read(ExportTraceServiceRequest.FromString(body))
        return web.Response(status=self.status)

    async def trace(self, trace_id: str, *names: str) -> list[Received]:
        """The spans of a trace, once those of these names are among them."""
        async with asyncio.timeout(45):
            while True:
                found = [span for span in self.spans if span.trace_id == trace_id]
                if set(names) <= {span.name for span in found}:
                    return found
                await asyncio.sleep(0.05)


def _read(received: ExportTraceServiceRequest) -> Iterable[Received]:
    for of in received.resource_spans:
        resource = _values(of.resource.attributes)
        for scope in of.scope_spans:
            for span in scope.spans:
                yield Received(
                    name=span.name,
                    kind=span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
                    attributes=_values(span.attributes),
                    failed=span.status.code == 2,
                    state=span.trace_state,
                    service=resource["service.name"],
                    text=str(span) + str(resource),
                )


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


@pytest.fixture
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collector]:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=imports")
    made = Collector()
    async with listening(made.handle) as made.url:
        yield made


@pytest.fixture
def settings(settings: Settings, collector: Collector) -> Settings:
    return msgspec.structs.replace(settings, otlp_endpoint=collector.url)


def by_name(spans: list[Received]) -> dict[str, Received]:
    return {span.name: span for span in spans}


async def test_one_trace_leads_from_the_request_to_the_webhook(chain: Chain, collector: Collector) -> None:
    answer, job_id = await chain.push(people(3), **CLIENT)
    names = ("POST /v1/{type}:bulk", "accept import", "deliver hubspot", "POST", "send webhook")
    spans = by_name(await collector.trace(TRACE, *names))
    request, accept, attempt, call, webhook = (spans[name] for name in names)
    assert request.parent_id == SPAN
    assert [span.kind for span in (request, accept, attempt, call, webhook)] == [
        "server", "producer", "consumer", "client", "client",
    ]  # fmt: skip
    assert {accept.parent_id, attempt.parent_id, webhook.parent_id} == {request.span_id}
    assert attempt.links == [(TRACE, request.span_id)]
    assert call.parent_id == attempt.span_id
    assert {span.state for span in spans.values()} == {"vendor=x:1"}
    assert not any(span.failed for span in spans.values())

    assert request.attributes["http.route"] == "/v1/{type}:bulk"
    assert request.attributes["http.response.status_code"] == 207
    assert request.attributes["tranche.tenant_id"] == chain.tenant_id
    assert accept.attributes["messaging.batch.message_count"] == 3
    assert attempt.attributes["messaging.batch.message_count"] == 3
    assert attempt.attributes["messaging.operation.type"] == "process"
    assert attempt.attributes["messaging.destination.name"] == "hubspot"
    assert (attempt.attributes["tranche.job_id"], attempt.attributes["tranche.items.ok"]) == (job_id, 3)
    assert call.attributes["http.response.status_code"] == 200

    # What others receive continues from the span that called them.
    [made] = await chain.calls(answer.headers["X-Request-ID"])
    assert made["traceparent"] == f"00-{TRACE}-{call.span_id}-01"
    told = await chain.hook.about(job_id)
    assert (told["traceparent"], told["tracestate"]) == (f"00-{TRACE}-{webhook.span_id}-01", "vendor=x:1")
    assert request.service == "tranche-api"
    assert collector.headers[0]["x-team"] == "imports"


async def test_the_pieces_of_a_file_are_linked_to_its_upload(chain: Chain, collector: Collector) -> None:
    rows = "".join(f"c{i},c{i}@example.com\n" for i in range(1_500))
    sent = {"Idempotency-Key": "file", "Content-Type": "text/csv", **CLIENT}
    answer = await chain.api.request("POST", "/v1/contacts:bulk", headers=sent, data=b"id,email\n" + rows.encode())
    job_id = answer.json()["job_id"]
    await chain.hook.about(job_id)
    found = await collector.trace(TRACE, "POST /v1/{type}:bulk", "process import", "deliver hubspot", "send webhook")
    upload = by_name(found)["POST /v1/{type}:bulk"]
    pieces = [span for span in found if span.name == "process import"]
    assert {span.parent_id for span in pieces} == {upload.span_id}
    assert {tuple(span.links) for span in pieces} == {((TRACE, upload.span_id),)}
    applied = [s for s in pieces if s.attributes["tranche.step"] == "apply"]
    assert sum(span.attributes["messaging.batch.message_count"] for span in applied) == 1_500
    assert {span.attributes["tranche.job_id"] for span in pieces} == {job_id}


async def test_a_failure_is_a_code_and_nobodys_data(chain: Chain, collector: Collector) -> None:
    """Whatever was imported, refused or answered: no span has a word of it."""
    secret = "canary-7f3a"
    await chain.sandbox.misbehave(reject={"keys": ["c00000"]})
    chain.hook.status = 400
    person = {"first_name": f"{secret}-name", "company": f"{secret}-firm", "attributes": {f"{secret}-key": secret}}
    items = [*people(2, **person), {"id": f"{secret}-id", "email": f"{secret} is no address"}]
    await chain.push(items, **CLIENT)
    refused = await chain.api.push(
        f'{{"items": [{{"id": "{secret}"'.encode(), query=f"?{secret}=1", headers={"traceparent": CLIENT["traceparent"]}
    )
    assert refused.status == 400
    await chain.api.get(f"/v1/contacts/{secret}-id", {"traceparent": CLIENT["traceparent"]})
    await chain.api.get(f"/{secret}", {"traceparent": CLIENT["traceparent"]})
    found = await collector.trace(
        TRACE, "deliver hubspot", "send webhook", "GET /v1/{type}/{record_id}", "GET (none)", "accept import"
    )
    attempt = by_name(found)["deliver hubspot"]
    assert attempt.failed
    assert attempt.attributes["error.type"] == "DESTINATION_REJECTED"
    assert attempt.attributes["tranche.items.failed"] == 1
    hook = next(s for s in found if s.name == "send webhook")
    assert (hook.failed, hook.attributes["error.type"]) == (True, "400")
    codes = {s.attributes.get("error.type") for s in found if s.kind == "server"}
    assert codes == {None, "INVALID_PARAMETER", "NOT_FOUND"}
    for span in collector.spans:
        assert secret not in span.text
        assert "example.com" not in span.text
        assert "pat-good" not in span.text
        assert not span.attributes.keys() & {"exception.message", "exception.stacktrace"}


async def test_traces_of_two_tenants_do_not_mix(
    api: Api, settings: Settings, sandbox: Sandbox, hook: Hook, collector: Collector
) -> None:
    chains = [await add_chain(api, settings, sandbox, hook) for _ in range(2)]
    # Without a trace of theirs, each request has one of its own.
    await asyncio.gather(*(chain.push(people(2, start=10 * n)) for chain in chains for n in range(3)))
    names = ["POST /v1/{type}:bulk", "deliver hubspot", "send webhook"]
    async with asyncio.timeout(45):
        while any(sum(span.name == name for span in collector.spans) < 6 for name in names):
            await asyncio.sleep(0.05)
    tenants: dict[str, set[int]] = {}
    for span in collector.spans:
        if "tranche.tenant_id" in span.attributes:
            tenants.setdefault(span.trace_id, set()).add(span.attributes["tranche.tenant_id"])
    assert len(tenants) >= 6
    assert {len(found) for found in tenants.values()} == {1}


async def test_what_a_client_does_not_sample_is_not_sent(chain: Chain, collector: Collector) -> None:
    _, job_id = await chain.push(people(1), traceparent=f"00-{TRACE}-{SPAN}-00")
    assert (await chain.hook.about(job_id))["traceparent"].endswith("-00")
    other = "ab" * 16
    await chain.push(people(1, start=1), traceparent=f"00-{other}-{SPAN}-01")
    await collector.trace(other, "send webhook")
    assert not [span for span in collector.spans if span.trace_id == TRACE]


async def test_probes_leave_no_span(chain: Chain, collector: Collector) -> None:
    for path in ("/health", "/health/live", "/metrics"):
        await chain.api.get(path)
    await chain.push(people(1), **CLIENT)
    await collector.trace(TRACE, "send webhook")
    assert not [span for span in collector.spans if "/health" in span.text or "/metrics" in span.text]


async def test_a_collector_that_is_away_holds_nothing_up(settings: Settings) -> None:
    """It is said in one line, and the last spans are not waited for without end."""
    lines: list[dict[str, Any]] = []

    def keep(_: object, __: str, fields: structlog.typing.EventDict) -> structlog.typing.EventDict:
        lines.append(dict(fields))
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[keep], cache_logger_on_first_use=False)
    try:
        began = time.monotonic()
        async with exporting(msgspec.structs.replace(settings, otlp_endpoint="http://127.0.0.1:1"), "tranche-api"):
            from app.tracing import spans

            for _ in range(3):
                with spans.span("work", spans.Kind.CLIENT, None, {}):
                    pass
                await asyncio.sleep(0.3)
        assert time.monotonic() - began < 30
    finally:
        structlog.configure(**before)
    assert [line["event"] for line in lines] == ["traces_not_sent"]


async def test_the_service_answers_without_its_collector(collector: Collector, chain: Chain) -> None:
    collector.status = 503
    answer, _ = await chain.push(people(2), **CLIENT)
    assert answer.status == 207
