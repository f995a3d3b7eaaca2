"""One round: clients and faults at once, then everything is whole again, comes to rest, and is held to account."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec

from tests import stored
from tests.chaos import actions, checker, evidence, faults, neighbour, salesman
from tests.chaos.client import Round
from tests.chaos.evidence import PASSING, Evidence, Finding
from tests.chaos.journal import Journal
from tests.chaos.plan import CLIENTS, LENGTH, Action, Plan
from tests.chaos.stage import CRMS, Stage, Tenant

REST_SECONDS: Final = 30.0
ROUND_SECONDS: Final = 150.0
_TABLES: Final = (
    "jobs",
    "deliveries",
    "effects",
    "record_syncs",
    "dead_letters",
    "sagas",
    "webhook_messages",
    "chaos_moves",
)
_OPEN: Final = """SELECT
    (SELECT count(*) FROM jobs j WHERE j.tenant_id = $1 AND j.finished_at IS NULL)
    + (SELECT count(*) FROM deliveries d WHERE d.tenant_id = $1 AND d.state <> 'done')
    + (SELECT count(*) FROM sagas s WHERE s.tenant_id = $1 AND s.finished_at IS NULL)"""

_UNTOLD: Final = "SELECT count(*) FROM webhook_messages m WHERE m.tenant_id = $1 AND m.state = 'pending'"
_DUE_AT_ONCE: Final = """UPDATE webhook_messages m SET next_attempt_at = now()
    WHERE m.tenant_id = $1 AND m.state = 'pending'"""
_KEYS: Final = """SELECT substring(k.route FROM '/v1/(.*):bulk') || '/' || k.key AS key, k.job_id::text, k.status
    FROM idempotency_keys k WHERE k.tenant_id = $1"""
_TYPES: Final = """SELECT t.type_id, t.name FROM resource_types t WHERE t.tenant_id = $1
    UNION VALUES (1, 'contacts'), (2, 'companies')"""
_TELLING: Final = 1.5
"""Seconds that a message may take when nothing is broken: its longest wait, a look for it and a call."""


class Result(msgspec.Struct, kw_only=True):
    """What a round came to."""

    plan: Plan
    findings: list[Finding]
    folder: Path
    seconds: float
    rest: float
    """Seconds from the end of the faults until everything was settled."""
    counts: dict[str, int]


async def play_plan(stage: Stage, plan: Plan, folder: Path) -> Result:
    """Play a plan. Whatever goes wrong in it is a finding; only a broken stage is an error."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    began = time.monotonic()
    said = stage.log_sizes()
    await stage.set_kinds(plan.crms)
    tenant = await stage.new_tenant(plan.seed, plan.types)
    near = neighbour.Next(stage, plan.neighbour) if plan.neighbour else None
    if near is not None:
        await near.move_in(tenant)
    for proxy in stage.proxies.values():
        proxy.seed(plan.seed)
    journal = Journal(folder / "journal.jsonl")
    stage.receiver.attend(tenant.name, journal, plan.seed)
    found = Evidence(
        destinations=tenant.destinations,
        kinds=dict(stage.kinds),
        secret=tenant.secret,
        faults=[msgspec.to_builtins(fault) for fault in plan.faults],
    )
    rest = ROUND_SECONDS
    try:
        async with asyncio.timeout(ROUND_SECONDS):
            rest = await _play(stage, plan, tenant, near, journal, found)
    except TimeoutError:
        found.restless = ROUND_SECONDS
        await stage.heal()
    finally:
        stage.receiver.leave(tenant.name)
        journal.close()
    if near is not None:
        await near.move_out()
    found.tables |= await neighbour.evidence(stage, tenant, near)
    found.surprises = stage.surprises(said)
    await _write(stage, tenant, folder, found)
    told = evidence.load(folder)
    return Result(
        plan=plan,
        findings=checker.check(told),
        folder=folder,
        seconds=time.monotonic() - began,
        rest=rest,
        counts=_count(told),
    )


async def _play(
    stage: Stage, plan: Plan, tenant: Tenant, near: neighbour.Next | None, journal: Journal, found: Evidence
) -> float:
    """Seconds until everything was settled."""
    round_ = Round(stage, tenant, journal, await _routes(stage))
    await salesman.make_records(stage, tenant, plan)
    began = time.monotonic()
    polling = asyncio.create_task(round_.poll())
    try:
        async with asyncio.TaskGroup() as group:
            for client in range(CLIENTS):
                mine = [action for action in plan.actions if action.client == client]
                group.create_task(_client(round_, mine, began))
            for fault in plan.faults:
                group.create_task(faults.inflict(stage, fault, began=began))
            group.create_task(salesman.work(stage, tenant, plan, began))
            if near is not None:
                group.create_task(near.misbehave(began))
        await stage.heal()
        stage.receiver.behave(tenant.name)
        whole = time.monotonic()
        round_.over = True
        answered = {(r["key"], r["sha256"]) for r in _definite(journal)}
        open_ = [r for r in round_.requests if (r.name, r.sha256) not in answered]
        found.unanswered = await round_.settle(open_)
        found.restless = await _rest(stage, tenant)
        rest = time.monotonic() - whole
    finally:
        polling.cancel()
        with suppress(asyncio.CancelledError):
            await polling
    await _retry(round_, stage, tenant)
    await round_.settle(round_.requests)
    for job_id in round_.jobs:
        await round_.look(job_id)
        await round_.list_items(job_id)
    again = await _rest(stage, tenant)
    for one in plan.types:
        await round_.read(one.name, [f"s{n:02}" for n in range(actions.SHARED)])
    found.restless = again if found.restless is None else found.restless
    await _tell(stage, tenant)
    return rest


async def _tell(stage: Stage, tenant: Tenant) -> None:
    """Wait until every webhook is told or given up. One that a killed worker had in its hand would wait for the end of
    its lease, which is longer than a round: after a while it is due all the same, and may be told twice."""
    began = time.monotonic()
    async with stage.database() as connection:
        while (waited := time.monotonic() - began) < REST_SECONDS:
            if not await connection.fetchval(_UNTOLD, tenant.tenant_id):
                return
            if waited > _TELLING:
                await connection.execute(_DUE_AT_ONCE, tenant.tenant_id)
            await asyncio.sleep(0.03 if waited < _TELLING else 1.0)


async def _retry(round_: Round, stage: Stage, tenant: Tenant) -> None:
    """What failed while things were broken is tried again, where the API offers it: asked twice, and for its dead
    letters as well, done once."""
    if not round_.can("POST", "/v1/jobs/{job_id}/retry"):
        return
    for job_id in list(round_.jobs):
        if await round_.look(job_id) == "completed_with_failures":
            asked = [round_.act("retry", job_id), round_.act("retry", job_id)]
            if round_.can("POST", "/v1/dead-letters/replay"):
                asked.append(round_.replay())
            await asyncio.gather(*asked)
    await _rest(stage, tenant)


def _definite(journal: Journal) -> list[dict[str, Any]]:
    lines = [msgspec.json.decode(line) for line in journal.path.read_bytes().splitlines()]
    return [r for r in lines if r["row"] == "answer" and r["status"] not in PASSING]


async def _client(round_: Round, mine: list[Action], began: float) -> None:
    # It gives up soon after the faults, so that nothing is insisted on for ever; later it is asked once more.
    until = began + LENGTH + 3.0
    for action in mine:
        await actions.do(round_, action, began=began, until=until)


async def _routes(stage: Stage) -> set[tuple[str, str]]:
    """What the running API says it can do."""
    async with stage.session.get(f"{stage.url}/openapi.json") as answer:
        document = await answer.json()
    return {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}


async def _rest(stage: Stage, tenant: Tenant) -> float | None:
    """Wait until nothing is left to be done; the seconds that were waited in vain."""
    limit = time.monotonic() + REST_SECONDS
    async with stage.database() as connection:
        while await connection.fetchval(_OPEN, tenant.tenant_id):
            if time.monotonic() > limit:
                return REST_SECONDS
            await asyncio.sleep(0.03)
    return None


async def _write(stage: Stage, tenant: Tenant, folder: Path, found: Evidence) -> None:
    async with stage.database() as connection:
        for table in _TABLES:
            rows = await connection.fetch(
                f"SELECT to_jsonb(t)::text AS row FROM {table} t WHERE t.tenant_id = $1", tenant.tenant_id
            )
            found.tables[table] = [msgspec.json.decode(row["row"]) for row in rows]
        for name, read in (("records", stored.contacts), ("ledger", stored.history)):
            found.tables[name] = msgspec.to_builtins(await read(connection, "tenant_id = $1", tenant.tenant_id))
        found.tables["idempotency_keys"] = [dict(r) for r in await connection.fetch(_KEYS, tenant.tenant_id)]
        types = {row["type_id"]: row["name"] for row in await connection.fetch(_TYPES, tenant.tenant_id)}
    for name in ("records", "deliveries", "record_syncs", "dead_letters"):
        for row in found.tables[name]:
            row["type"] = types[row["type_id"]]
    # A version is of its job's type. That this is the type of the request is checked.
    of_job = {row["job_id"]: row["type"] for row in found.tables["jobs"]}
    for row in found.tables["ledger"]:
        row["type"] = of_job[row["job_id"]]
    for row in (*found.tables["records"], *found.tables["ledger"]):
        row["fields"] = {name: value for name, value in row["fields"].items() if value is not None}
    (folder / "evidence.json").write_bytes(msgspec.json.encode(found))
    for crm in CRMS:
        lines = stage.ledger(crm).read_bytes().splitlines(keepends=True)
        other = f"+{neighbour.ACCOUNT}".encode()
        mine = [line for line in lines if tenant.name.encode() in line and other not in line]
        (folder / f"ledger-{crm}.jsonl").write_bytes(b"".join(mine))


def _count(e: Evidence) -> dict[str, int]:
    dead_letters: Counter[str] = Counter()
    for delivery in e.table("deliveries"):
        dead_letters.update(delivery["states"])
    return {
        "requests": len(e.requests),
        "sent": len(e.rows("answer")) + len(e.rows("broken")),
        "jobs": len(e.jobs),
        "undos": sum(job["kind"] == "undo" for job in e.jobs.values()),
        "resent": sum(job["kind"] in ("retry", "replay") for job in e.jobs.values()),
        "items": sum(len(request["items"]) for request in e.requests.values()),
        "versions": len(e.table("ledger")),
        "effects": sum(map(len, e.effects.values())),
        "calls": sum(map(len, e.calls.values())),
        "given_up": dead_letters["f"] + dead_letters["d"],
        "events": len(e.table("webhook_messages")),
        "told": len(e.rows("hook")),
    }


async def clean(stage: Stage) -> None:
    """Before a round: the sandboxes' ledgers begin anew."""
    try:
        await stage.forget_effects()
    except (aiohttp.ClientError, OSError):
        await stage.all_ready()
        await stage.forget_effects()
