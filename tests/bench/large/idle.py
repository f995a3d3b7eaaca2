"""What a worker costs while nothing happens, however many tenants there are.

Each of the tenants has a destination, a webhook endpoint, and a finished job with its answer: enough for every question
that is asked about each of them.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import psutil

from tests.bench.large.site import Site
from tests.bench.large.tables import show

GOAL = 3.0
"""Percent of a core."""

_FILL = """
    WITH new AS (
        INSERT INTO tenants (name) SELECT 'idle-' || n FROM generate_series({first}, {last}) n RETURNING tenant_id
    ),
    destination AS (
        INSERT INTO destinations (tenant_id, name, kind, base_url, credentials)
        SELECT tenant_id, 'crm', 'http', 'https://crm.example', '' FROM new
    ),
    endpoint AS (
        INSERT INTO webhook_endpoints (tenant_id, url, events, secret)
        SELECT tenant_id, 'https://hooks.example', '{{job.finished}}', '' FROM new
    ),
    job AS (
        INSERT INTO jobs (
            tenant_id, job_id, kind, type, state, root_job_id, request_id, key_id, total, succeeded, failed, retry,
            finished_at
        )
        SELECT n.tenant_id, i, 'import', 'contacts', 'completed', i, 'r', 'k', 1, 1, 0, 0, now()
        FROM (SELECT tenant_id, gen_random_uuid() AS i FROM new) n
        RETURNING tenant_id, job_id
    )
    INSERT INTO idempotency_keys (tenant_id, route, key, fingerprint, job_id, status, answer, expires_at)
    SELECT tenant_id, 'POST /v1/contacts:bulk', 'k', '', job_id, 207, '', now() + interval '1 day' FROM job
"""


async def measure(site: Site, tenants: list[int], seconds: float) -> None:
    await site.clear()
    lines: list[tuple[int, float, float]] = []
    there = 0
    for count in tenants:
        await site.execute(_FILL.format(first=there + 1, last=count))
        there = count
        await site.execute("VACUUM ANALYZE")
        await site.execute("CHECKPOINT")
        await site.restart()
        await asyncio.sleep(5)
        before = await _spent(site)
        await asyncio.sleep(seconds)
        after = await _spent(site)
        worker, postgres = (100 * (b - a) / seconds for a, b in zip(before, after, strict=True))
        lines.append((count, worker / len(site.workers), postgres / len(site.workers)))
    show(
        f"Idle: processor time of a worker over {seconds:.0f} s",
        ("tenants", "worker, % of a core", "PostgreSQL, % of a core a worker"),
        lines,
        [f"Goal: both together at most {GOAL:.0f} % of a core with 10,000 tenants. The API is idle as well."],
    )


async def _spent(site: Site) -> tuple[float, float]:
    """Processor seconds of all workers, and of the backends that they are connected to."""
    workers = sum(_seconds(worker.pid) for worker in site.workers)
    backends = await site.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'tranche worker'")
    return workers, sum(_seconds(row["pid"]) for row in backends)


def _seconds(pid: int) -> float:
    with suppress(psutil.NoSuchProcess):
        times = psutil.Process(pid).cpu_times()
        return times.user + times.system
    return 0.0
