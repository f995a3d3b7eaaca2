"""What an API and a worker count while things happen, seen by whoever scrapes them."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.acceptance.harness import Installation, free_port, people, until

TOKEN = "an-operator's-token"
PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


class Scrapes:
    """The metrics of both processes."""

    def __init__(self, *urls: str) -> None:
        self._urls = urls
        self.texts: list[str] = []

    async def take(self) -> Scrapes:
        self.texts = []
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as session:
            for url in self._urls:
                async with session.get(url + "/metrics") as answer:
                    assert answer.status == 200
                    self.texts.append(await answer.text())
        return self

    def value(self, metric: str, **labels: str) -> float:
        """The sum of the samples that have these labels, over both."""
        return sum(
            sample.value
            for text in self.texts
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == metric and labels.items() <= sample.labels.items()
        )

    def names(self) -> set[str]:
        """Of all metrics, counters with their `_total`."""
        return {
            f"{family.name}_total" if family.type == "counter" else family.name
            for text in self.texts
            for family in text_string_to_metric_families(text)
        }

    async def reaches(self, least: float, metric: str, **labels: str) -> float:
        async def look() -> float:
            found = (await self.take()).value(metric, **labels)
            return found if found >= least else 0.0

        return await until(look, every=0.3)


def documented() -> set[str]:
    names = set(re.findall(r"\btranche_[a-z_]+", PAGE.read_text("utf-8")))
    return {re.sub(r"(_seconds)_(bucket|count|sum)$", r"\1", name) for name in names - {"tranche_app"}}


async def call(tranche: Installation, path: str, status: int, **options: Any) -> Any:
    answer = await tranche.ask("POST", path, **options)
    assert answer.status == status, answer
    return answer.json()


async def test_everything_that_happens_is_counted(tranche: Installation) -> None:
    port = free_port()
    tranche.settings = msgspec.structs.replace(tranche.settings, metrics_token=TOKEN, metrics_destinations=10)
    await tranche.start_both(worker_port=port, breaker_min_calls=3, delivery_attempts=50)
    seen = Scrapes(tranche.url, f"http://127.0.0.1:{port}")
    hubspot = {"kind": "hubspot", "destination": "acme/hubspot"}

    # Items by outcome, and what became of the good ones.
    bad = [{"id": "x1", "email": "nobody"}, {"id": "x2"}]
    mixed = await tranche.push([*people(3), *bad], key="k")
    assert mixed.json()["summary"] == {"total": 5, "succeeded": 3, "failed": 2, "retry": 0}
    await tranche.finished(mixed.json()["job_id"])
    await seen.reaches(3, "tranche_delivery_items_total", state="ok", **hubspot)
    assert seen.value("tranche_items_total", status="ok", code="") == 3
    assert seen.value("tranche_items_total", status="failed", code="INVALID_EMAIL") == 1
    assert seen.value("tranche_items_total", status="failed", code="MISSING_FIELD") == 1
    assert seen.value("tranche_delivery_attempts_total", outcome="ok", **hubspot) == 1
    assert seen.value("tranche_deliveries_completed_total", **hubspot) == 1
    assert seen.value("tranche_commit_to_crm_seconds_count", **hubspot) == 1
    assert seen.value("tranche_crm_call_seconds_count", operation="push", outcome="ok", **hubspot) >= 1
    assert seen.value("tranche_circuit_calls_total", verdict="ok", circuit="crm", **hubspot) >= 1
    assert seen.value("tranche_workers_alive") == 1
    assert seen.value("tranche_db_connections_acquired_total") > 0
    assert seen.value("tranche_event_loop_lag_seconds_count") > 0

    # A file, which the worker decides.
    rows = b"".join(b'{"id":"f%d","email":"f%d@example.com"}\n' % (n, n) for n in range(7))
    headers = {"Idempotency-Key": "file", "Content-Type": "application/x-ndjson", "Prefer": "respond-async"}
    queued = await call(tranche, "/v1/contacts:bulk", 202, headers=headers, data=rows)
    await tranche.finished(queued["job_id"])
    await seen.reaches(10, "tranche_items_total", status="ok")

    # Keys: a replay, another body, and one that is busy.
    again = await tranche.push([*people(3), *bad], key="k")
    assert again.headers["Idempotency-Replayed"] == "true"
    assert (await tranche.push(people(1), key="k")).status == 422
    await tranche.sandbox.misbehave(latency={"latency": 1.9})
    waiting = asyncio.create_task(tranche.push(people(1, start=50), key="busy", wait=20))
    await until(lambda: tranche.rows("SELECT FROM idempotency_keys WHERE key = 'busy'"), every=0.05)
    assert (await tranche.push(people(1, start=50), key="busy")).status == 409
    await waiting
    await tranche.sandbox.recover()
    await seen.reaches(1, "tranche_idempotency_total", outcome="conflict")
    assert seen.value("tranche_idempotency_total", outcome="replayed") == 1
    assert seen.value("tranche_idempotency_total", outcome="mismatch") == 1
    assert seen.value("tranche_idempotency_total", outcome="new") == 3

    # The CRM goes and comes back.
    await tranche.sandbox.misbehave(status={"code": 503})
    jobs = [await tranche.imported(people(5, start=100 + 5 * n)) for n in range(6)]
    await seen.reaches(1, "tranche_circuit_transitions_total", state="open", circuit="connection", **hubspot)
    assert seen.value("tranche_circuit_open_seconds_total", circuit="connection", **hubspot) > 0
    await seen.reaches(3, "tranche_circuit_calls_total", verdict="failed", circuit="connection", **hubspot)
    await seen.reaches(1, "tranche_delivery_attempts_total", outcome="retry", **hubspot)
    assert seen.value("tranche_crm_call_seconds_count", outcome="crm_fault", **hubspot) >= 3
    await seen.reaches(1, "tranche_deliveries_open", state="pending")
    await tranche.sandbox.recover()
    for job in jobs:
        assert (await tranche.finished(job))["state"] == "completed"
    await seen.reaches(1, "tranche_circuit_transitions_total", state="closed", circuit="connection", **hubspot)

    # An answer that comes too late.
    await tranche.sandbox.misbehave(slow={"latency": 4.0, "times": 1, "on": "write"})
    assert (await tranche.finished(await tranche.imported(people(1, start=300))))["state"] == "completed"
    await seen.reaches(1, "tranche_crm_call_seconds_count", outcome="timeout", **hubspot)
    assert seen.value("tranche_delivery_items_total", state="unknown", **hubspot) >= 1

    # A dead letter, an undo.
    await tranche.sandbox.misbehave(reject={"keys": ["p1"]})
    poison = await tranche.imported([{"id": "p1", "email": "p1@example.com"}])
    assert (await tranche.finished(poison))["state"] == "completed_with_failures"
    await seen.reaches(1, "tranche_dead_letters_open", code="DESTINATION_REJECTED")
    assert seen.value("tranche_delivery_items_total", state="failed", **hubspot) == 1
    await tranche.sandbox.recover()
    undo = await call(tranche, f"/v1/jobs/{jobs[0]}/undo", 202)
    await tranche.finished(undo["job_id"])
    await seen.reaches(1, "tranche_sagas_total", workflow="undo", state="done")
    assert seen.value("tranche_sagas_total", workflow="undo", state="began") == 1

    check_names(seen)


def check_names(seen: Scrapes) -> None:
    """The page knows every metric, and no other; names are as Prometheus wants them."""
    assert seen.names() == documented()
    for name in seen.names():
        assert re.fullmatch(r"tranche_[a-z]+(_[a-z]+)*", name)
    lint = shutil.which("promtool")
    if lint is None:
        return
    for text in seen.texts:
        done = subprocess.run([lint, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("token", ["", "wrong"])
async def test_a_worker_shows_nothing_to_others(tranche: Installation, token: str) -> None:
    port = free_port()
    await tranche.start_worker(worker_port=port, metrics_token=TOKEN)
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session:
        async with session.get(f"http://127.0.0.1:{port}/metrics") as answer:
            assert answer.status == 401
        async with session.get(f"http://127.0.0.1:{port}/health/ready") as answer:
            assert answer.status == 200
