"""PostgreSQL dies: nothing is taken that cannot be kept, and all goes on without a restart once it is back."""

from __future__ import annotations

import asyncio
import itertools
import time

from app.embedded import Engines
from tests.acceptance.harness import Installation, changed_effects, people, until


async def test_killed_and_restarted_under_a_stream_of_imports(fragile: Installation, own_engines: Engines) -> None:
    api, worker = await fragile.start_both()
    await fragile.sandbox.misbehave(latency={"latency": 0.03})
    acknowledged: dict[str, str] = {}
    refusals: list[tuple[int, dict[str, str], dict[str, object], float]] = []
    numbers = itertools.count()
    over = asyncio.Event()

    async def client() -> None:
        while not over.is_set():
            n = next(numbers)
            began = time.monotonic()
            answer = await fragile.push(people(50, start=50 * n), key=f"import-{n}")
            if answer.status == 207:
                assert answer.json()["summary"]["succeeded"] == 50
                acknowledged[f"import-{n}"] = answer.json()["job_id"]
            else:
                refusals.append((answer.status, dict(answer.headers), answer.json(), time.monotonic() - began))
            await asyncio.sleep(0.05)

    clients = [asyncio.create_task(client()) for _ in range(2)]

    async def some() -> bool:
        return len(acknowledged) >= 10

    await until(some)
    await own_engines.postgres.kill()

    async def refused() -> bool:
        return len(refusals) >= 6

    await until(refused)
    health = await fragile.ask("GET", "/health")
    assert health.status == 503
    assert int(health.headers["Retry-After"]) > 0
    assert health.json()["checks"]["database"]["status"] == "fail"
    assert (await fragile.ask("GET", "/health/live")).status == 200
    assert (await fragile.ask("GET", "/health/ready")).status == 503
    before = len(acknowledged)
    await own_engines.restart()

    async def taken_again() -> bool:
        return len(acknowledged) >= before + 5

    await until(taken_again)
    over.set()
    await asyncio.gather(*clients)

    for status, headers, problem, seconds in refusals:
        assert status == 503, problem
        assert headers["Content-Type"] == "application/problem+json"
        assert int(headers["Retry-After"]) > 0
        assert problem["code"] == "DATABASE_UNAVAILABLE"
        assert seconds < fragile.settings.db_acquire_timeout / 2, "nobody waits for what is away"
    assert (await fragile.ask("GET", "/health/ready")).status == 200
    for job_id in acknowledged.values():
        assert (await fragile.finished(job_id))["state"] == "completed"
    await fragile.all_synced()
    await fragile.versions_are_true()
    there = await fragile.sandbox.contacts()
    for key in acknowledged:
        n = int(key.removeprefix("import-"))
        assert there.keys() >= {person["id"] for person in people(50, start=50 * n)}
    assert set(changed_effects(await fragile.sandbox.effects()).values()) == {1}
    assert api.child.returncode is None
    assert worker.child.returncode is None
    # Being away is foreseen: a line each time, no traceback of ours.
    assert '"exception"' not in worker.text()
    assert '"exception"' not in api.text()


async def test_killed_between_the_effect_and_its_record(fragile: Installation, own_engines: Engines) -> None:
    """The CRM answers while PostgreSQL is away: the answer is kept until it can be recorded, not asked for again."""
    _, worker = await fragile.start_both(delivery_lease=120.0)
    await fragile.sandbox.misbehave(slow={"latency": 0.5, "times": 1})
    job_id = await fragile.imported(people(30))

    async def applied() -> bool:
        return len(await fragile.sandbox.effects()) == 30

    await until(applied, every=0.01)
    await own_engines.postgres.kill()
    await asyncio.sleep(1.5)
    await own_engines.restart()
    assert (await fragile.finished(job_id))["state"] == "completed"
    assert [call["path"].rsplit("/", 1)[1] for call in await fragile.sandbox.calls()] == ["upsert"]
    assert worker.child.returncode is None


async def test_started_before_postgres(fragile: Installation, own_engines: Engines) -> None:
    """API and worker may be started first; they wait for their database instead of ending."""
    await own_engines.postgres.stop()
    api = fragile.start("api", "serve", "--port", str(fragile.port))
    worker = fragile.start("worker", "worker")
    await worker.says("worker_waits")

    async def live() -> bool:
        try:
            return (await fragile.ask("GET", "/health/live")).status == 200
        except OSError:
            return False

    await until(live)
    assert (await fragile.push(people(1))).status == 503
    await own_engines.restart()

    async def taken() -> bool:
        return (await fragile.push(people(1))).status == 207

    await until(taken)
    assert api.child.returncode is None
    assert worker.child.returncode is None
