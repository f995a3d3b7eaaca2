"""A worker dies, is stopped or stalls in the middle of a delivery: nothing is lost, nothing arrives twice."""

from __future__ import annotations

import asyncio
import signal

import asyncpg

from tests.acceptance.harness import Installation, changed_effects, people, until

LEASE = {"delivery_lease": 10.0, "crm_total_timeout": 5.0}


async def _effects(tranche: Installation, count: int) -> None:
    async def look() -> bool:
        return len(await tranche.sandbox.effects()) >= count

    await until(look, every=0.01)


async def _calls(tranche: Installation) -> list[str]:
    return [str(call["path"]).rsplit("/", 1)[1] for call in await tranche.sandbox.calls()]


async def test_killed_between_effect_and_answer(tranche: Installation) -> None:
    """The CRM has the contacts, the worker is gone before it hears so: they are read back, not sent again."""
    _, worker = await tranche.start_both(**LEASE)
    await tranche.sandbox.misbehave(slow={"latency": 4.0, "times": 1, "on": "write"})
    job_id = await tranche.imported(people(50, phone="040 1"))
    await _effects(tranche, 50)
    await worker.child.kill()
    assert (await tranche.job(job_id))["state"] == "syncing"

    # The read-back takes a moment, so that `unknown` can be seen.
    await tranche.sandbox.misbehave(slow={"latency": 3.0, "times": 1, "on": "read"})
    await tranche.start_worker(**LEASE)

    async def unknown() -> bool:
        return await tranche.counts(job_id) == {"unknown": 50}

    await until(unknown)
    (item,) = (await tranche.get(f"/v1/jobs/{job_id}/items?limit=1"))["items"]
    assert item["destinations"]["hubspot"]["error_code"] == "OUTCOME_UNKNOWN"
    assert (await tranche.finished(job_id))["state"] == "completed"
    assert await tranche.counts(job_id) == {"ok": 50}
    assert await _calls(tranche) == ["read", "upsert", "read"]  # a large first batch is looked for as well
    assert set(changed_effects(await tranche.sandbox.effects(), "phone").values()) == {1}
    assert len(await tranche.sandbox.effects()) == 50


async def test_killed_before_the_effect(tranche: Installation) -> None:
    """The CRM never saw the call: looked for twice across the grace, not found, sent once."""
    _, worker = await tranche.start_both(**LEASE)
    await tranche.sandbox.misbehave(drop_before={"times": 1}, latency={"latency": 3.0, "times": 1})
    job_id = await tranche.imported(people(20))

    async def called() -> bool:
        return bool(await tranche.sandbox.calls())

    await until(called, every=0.01)
    await worker.child.kill()
    await tranche.start_worker(**LEASE)
    assert (await tranche.finished(job_id))["state"] == "completed"
    assert await _calls(tranche) == ["upsert", "read", "read", "upsert"]
    assert len(await tranche.sandbox.effects()) == 20


async def test_killed_between_the_look_and_the_write(tranche: Installation) -> None:
    """What was found is kept before it is written to: another worker goes on with it, and an undo gives it back."""
    _, worker = await tranche.start_both(**LEASE)
    sandbox = tranche.sandbox
    for number, person in enumerate(people(60)):
        await sandbox.have(person["email"], phone=f"+1 {number}", lastname="Theirs")
    before = await sandbox.held()
    await sandbox.misbehave(slow={"latency": 4.0, "times": 1, "on": "write", "when": "before"})
    job_id = await tranche.imported(people(80, phone="040 1"))

    async def kept() -> bool:
        (row,) = await tranche.rows("SELECT count(*)::int AS n FROM record_syncs WHERE before_image IS NOT NULL")
        return bool(row["n"] == 60)

    await until(kept, every=0.01)
    await worker.child.kill()
    assert [call for call in await _calls(tranche) if call != "read"] in ([], ["update"])
    await tranche.start_worker(**LEASE)
    assert (await tranche.finished(job_id))["state"] == "completed"
    held = await sandbox.held()
    assert len(held) == 80
    assert {held[there]["phone"] for there in before} == {"040 1"}
    undo = await tranche.ask("POST", f"/v1/jobs/{job_id}/undo")
    assert (await tranche.finished(undo.json()["job_id"]))["state"] == "completed"
    # Whether the worker that is gone or the CRM made the others, nobody knows if the answer was lost; these were there.
    after = await sandbox.held()
    assert {there: after[there] for there in before} == before


async def test_sigterm_lets_the_call_end(tranche: Installation) -> None:
    """A graceful stop in mid-delivery records the answer; the next worker finds nothing to do."""
    _, worker = await tranche.start_both()
    await tranche.sandbox.misbehave(slow={"latency": 1.0, "times": 1})
    job_id = await tranche.imported(people(50))
    await _effects(tranche, 50)
    worker.child.send_signal(signal.SIGTERM)
    assert await worker.ends() == 0
    assert await tranche.counts(job_id) == {"ok": 50}
    assert (await tranche.job(job_id))["state"] == "completed"
    await tranche.start_worker()
    await asyncio.sleep(1)
    assert await _calls(tranche) == ["read", "upsert"]  # a large first batch is looked for


async def test_stalled_past_its_lease_after_the_effect(tranche: Installation) -> None:
    """Another worker settles it and goes on to a newer version; what the late one has to say is refused."""
    _, late = await tranche.start_both(**LEASE)
    await tranche.sandbox.misbehave(slow={"latency": 4.0, "times": 1, "on": "write"})
    first = await tranche.imported(people(30, phone="040 1"))
    await _effects(tranche, 30)
    await asyncio.sleep(0.2)  # it has seen by now that nothing else is due
    late.child.send_signal(signal.SIGSTOP)
    try:
        await tranche.start_worker(**LEASE)
        assert (await tranche.finished(first))["state"] == "completed"
        second = await tranche.imported(people(30, phone="040 2"))
        assert (await tranche.finished(second))["state"] == "completed"
    finally:
        late.child.send_signal(signal.SIGCONT)
    await late.says("lease_lost")
    await asyncio.sleep(0.5)
    assert await tranche.counts(first) == {"ok": 30}
    await tranche.all_synced()
    effects = await tranche.sandbox.effects()
    assert [e["properties"]["phone"] for e in effects] == ["040 1"] * 30 + ["040 2"] * 30
    contact = await tranche.get("/v1/contacts/c00000")
    assert contact["destinations"]["hubspot"]["synced_version"] == 2


async def test_stalled_past_its_lease_before_the_call(tranche: Installation) -> None:
    """It had read version 1 and was about to send it. Meanwhile version 2 went out: version 1 must not follow."""
    _, late = await tranche.start_both(**LEASE)
    first = await tranche.imported(people(10, phone="040 1"))
    await tranche.finished(first)
    gate = await asyncpg.connect(tranche.settings.database_url)
    try:
        async with gate.transaction():
            # It claims, and waits here for what the CRM is known to hold.
            await gate.execute("LOCK TABLE record_syncs IN ACCESS EXCLUSIVE MODE")
            second = await tranche.imported(people(10, phone="040 2"))

            async def waiting() -> bool:
                return bool(
                    await tranche.rows("SELECT FROM pg_locks WHERE relation = 'record_syncs'::regclass AND NOT granted")
                )

            await until(waiting, every=0.01)
            late.child.send_signal(signal.SIGSTOP)
    finally:
        await gate.close()
    try:
        await tranche.start_worker(**LEASE)
        assert (await tranche.finished(second))["state"] == "completed"
        third = await tranche.imported(people(10, phone="040 3"))
        assert (await tranche.finished(third))["state"] == "completed"
        sent = len(await tranche.sandbox.effects())
    finally:
        late.child.send_signal(signal.SIGCONT)

    async def gave_up() -> bool:
        # Stopped for longer than a statement may take, it learns from its connection that it came too late.
        return "lease_lost" in late.text() or "lane_left" in late.text()

    await until(gave_up)
    await asyncio.sleep(0.5)
    effects = await tranche.sandbox.effects()
    assert len(effects) == sent
    assert [e["properties"]["phone"] for e in effects] == ["040 1"] * 10 + ["040 2"] * 10 + ["040 3"] * 10
    await tranche.all_synced()
    await tranche.versions_are_true()


async def test_stalled_with_the_gate_in_its_hand(tranche: Installation) -> None:
    """Stopped in the transaction in which it claims: PostgreSQL ends that, and another worker goes on."""
    _, late = await tranche.start_both(**LEASE, db_idle_in_transaction_timeout=1.0)
    gate = await asyncpg.connect(tranche.settings.database_url)
    try:
        async with gate.transaction():
            await gate.execute("SELECT FROM destinations FOR UPDATE")
            job_id = await tranche.imported(people(10))

            async def waiting() -> bool:
                return bool(await tranche.rows("SELECT FROM pg_locks WHERE NOT granted"))

            await until(waiting, every=0.01)
            late.child.send_signal(signal.SIGSTOP)
    finally:
        await gate.close()
    try:
        await tranche.start_worker(**LEASE)
        assert (await tranche.finished(job_id))["state"] == "completed"
    finally:
        late.child.send_signal(signal.SIGCONT)
    assert len(await tranche.sandbox.effects()) == 10


async def test_trouble_in_one_lane_leaves_the_others_alone(tranche: Installation) -> None:
    """A claim that cannot get its lock in time must not call off what another lane is sending."""
    await tranche.start_both(db_lock_timeout=0.4, crm_total_timeout=5.0, delivery_lease=10.0)
    await tranche.sandbox.misbehave(latency={"latency": 0.6}, slow={"latency": 2.5, "times": 1})
    job_id = await tranche.imported(people(200))
    gate = await asyncpg.connect(tranche.settings.database_url)
    try:

        async def both() -> bool:
            return len(await tranche.sandbox.calls()) == 2

        await until(both, every=0.01)
        async with gate.transaction():
            await gate.execute("SELECT FROM destinations FOR UPDATE")
            await asyncio.sleep(1.5)
    finally:
        await gate.close()
    assert (await tranche.finished(job_id))["state"] == "completed"
    assert sorted(await _calls(tranche)) == ["read", "read", "upsert", "upsert"]
