"""Runs the tests of destinations that users request: harmless calls, and on request one record written and archived.

A test needs no permit and reports to no circuit: its user wants to know whether the destination works now, and a test
is no evidence of how deliveries fare. It makes a handful of calls at most.
"""

import asyncio
import uuid
from collections.abc import Iterable
from typing import Final

import msgspec
import structlog
from msgspec.structs import replace

from app.deliveries import queries
from app.deliveries.queries import Route
from app.destinations.circuits import queries as circuit_queries
from app.destinations.testing import queries as rows
from app.destinations.testing.rules import Step, Verdict, judge
from app.destinations.testing.service import CANARY
from app.errors import SettingsError
from app.kit.postgres.database import Database
from app.resource_types.catalog import Catalog
from app.resources.declaration import Resource
from app.resources.types.companies import COMPANIES
from app.resources.types.contacts import CONTACTS
from app.settings import Settings
from app.tracing import context
from app.vocabulary.states import CircuitState, EffectState
from jobs.crm.answers import step
from jobs.crm.port import Crm, Headers, Reply, Seen, SentRecord
from jobs.delivery.clients import ClientFactory
from jobs.scheduling.fair_queue import Job
from jobs.scheduling.worker_pool import PollingWorkerPool

log = structlog.get_logger()

_WORKERS: Final = 4
_INTERVAL: Final = 0.25
_LONGEST: Final = 120.0
"""Seconds a test may take in all."""
_LEASE: Final = _LONGEST + 10.0
_LATE: Final = 60.0
"""Seconds after which nobody waits for a test any more."""
_SEEN: Final = {
    Seen.MATCHES: "It is there with the values that were sent.",
    Seen.DIFFERS: "It is there, but with other values than were sent.",
    Seen.ABSENT: "It is not there.",
}
_SAMPLES: Final = {
    CONTACTS.name: {"email": "{key}@example.com", "first_name": "Tranche", "last_name": "Canary"},
    COMPANIES.name: {"name": "Tranche Canary"},
}
"""By type of record."""
_UNSHOWN: Final = "The answer says nothing against it, and does not name the record: only a look there shows more."

_encode: Final = msgspec.json.Encoder().encode


class DestinationTester(PollingWorkerPool):
    """Makes whatever tests are asked for, until it is stopped."""

    def __init__(self, database: Database, clients: ClientFactory, settings: Settings) -> None:
        idle = settings.sweep_interval
        super().__init__("destination_test", _WORKERS, database, interval=_INTERVAL, idle=idle)
        self._clients = clients
        self._catalog = Catalog()

    async def find(self) -> Iterable[Job]:
        async with self._database.connection() as connection:
            return await rows.due(connection)

    async def work(self, job: Job) -> None:
        tenant_id, test_id = job
        async with self._database.connection() as connection:
            claimed = await rows.claim(connection, tenant_id, test_id, lease=_LEASE, late=_LATE)
        if claimed is not None:
            steps = await self._test(tenant_id, test_id, claimed)
            async with self._database.connection() as connection:
                await rows.finish(connection, tenant_id, test_id, _encode(steps).decode())
            log.info(
                "destination_tested",
                tenant_id=tenant_id,
                destination_id=claimed.destination_id,
                verdict=judge(steps),
                steps={each.name: each.ok for each in steps},
            )
        self.forget(job)

    async def _test(self, tenant_id: int, test_id: uuid.UUID, claimed: rows.Claimed) -> list[Step]:
        key = f"{CANARY}{test_id.hex}"
        left = f" If it wrote the record {key}, remove it there." if claimed.canary else ""
        if claimed.left:
            return [_failed("test", f"The worker that made it was stopped before it was done.{left}")]
        if claimed.late:
            return [_failed("test", "No worker claimed it in time, so nothing was called.")]
        async with self._database.connection() as connection:
            route = await queries.read_destination(connection, tenant_id, claimed.destination_id)
        if route is None or route.state == "removed":
            return [_failed("test", "The destination was removed.")]
        steps: list[Step] = []
        try:
            async with asyncio.timeout(_LONGEST):
                await self._make(route, claimed, key, steps)
        except TimeoutError:
            steps.append(_failed("test", f"It was canceled after {_LONGEST:g} s.{left}"))
        return steps

    async def _make(self, route: Route, claimed: rows.Claimed, key: str, steps: list[Step]) -> None:
        try:
            client = self._clients.connect(route).client
        except (ValueError, SettingsError) as error:
            steps.append(_failed("set-up", f"It cannot be used: {error}"))
            return
        if client is None:
            return
        steps += await self._blocked_steps(route)
        headers = Headers(claimed.request_id, key, context.read(claimed.trace_context) or context.begin())
        resources = await self._find_types(route)
        for tested in resources:
            found = await client.crm_for(tested).check(headers)
            of = f"{tested.name}: " if len(resources) > 1 else ""
            steps += [replace(each, name=f"{of}{each.name}") for each in found]
        resource = next((tested for tested in resources if tested.name in _SAMPLES), None)
        if claimed.canary and judge(steps) is Verdict.FAILS:
            steps.append(Step(name="canary", ok=None, detail="Not tried after the failure before."))
        elif claimed.canary and client.crm_for(resources[0]).appends:
            write_test = client.crm_for(resources[0]).write_test
            words = "Not tried: what is written there stays."
            canary = [Step(name="canary", ok=None, detail=words)] if write_test is None else await write_test(headers)
            steps += canary
        elif claimed.canary and resource is None:
            words = "Not tried: it would be a contact or a company, and the destination takes neither."
            steps.append(Step(name="canary", ok=None, detail=words))
        elif claimed.canary and resource is not None:
            fields = {name: text.format(key=key) for name, text in _SAMPLES[resource.name].items()}
            await _send_canary(
                client.crm_for(resource), SentRecord(record_id=key, version=1, fields=fields), headers, steps
            )

    async def _find_types(self, route: Route) -> list[Resource]:
        """The types that it lists, or contacts and those that name it."""
        async with self._database.connection() as connection:
            known = await self._catalog.all(connection, route.tenant_id)
        if route.types is not None:
            found = [known[name] for name in route.types if name in known]
        else:
            found = [each for each in known.values() if each.name == CONTACTS.name or route.name in each.destinations]
        return found or [CONTACTS]

    async def _blocked_steps(self, route: Route) -> list[Step]:
        """What holds deliveries back, though not a test."""
        if route.state == "paused":
            words = "It is paused: nothing is sent there until it is resumed."
            return [Step(name="deliveries", ok=None, detail=words)]
        async with self._database.connection() as connection:
            circuit = (await circuit_queries.read_circuits(connection, route.tenant_id)).get(route.name)
        if circuit is None or circuit.state is CircuitState.CLOSED:
            return []
        words = f"Its circuit is {circuit.state.replace('_', '-')}; `tranche destinations close` closes it."
        return [Step(name="deliveries", ok=None, detail=words)]


async def _send_canary(crm: Crm, record: SentRecord, headers: Headers, steps: list[Step]) -> None:
    """Write a record of our own, read it back, archive it, and check that it is gone."""
    if not crm.archives:
        words = "Not tried: the destination cannot remove records, so it would stay there."
        steps.append(Step(name="canary", ok=None, detail=words))
        return
    key = record.record_id
    reply = await crm.push([record], headers)
    [outcome] = reply.outcomes
    well, unshown = f"The record {key} was written.", f"The key is {key}."
    steps.append(_written("write", crm, reply, well, unshown, outcome.detail or reply.detail))
    if outcome.state in (EffectState.FAILED, EffectState.RETRY):
        return
    remote_id = outcome.remote_id
    if crm.reads_back:
        back = await crm.read_back([record], headers)
        remote_id = back.remote_ids.get(key, remote_id)
        seen = None if back.seen is None else back.seen.get(key)
        detail = _SEEN[seen] if seen is not None else back.detail or "The answer does not mention it."
        steps.append(step("read back", seen is Seen.MATCHES, detail, back))
    else:
        words = "It cannot be read back, so the answer to the write is all there is to go by (http: option read_path)."
        steps.append(Step(name="read back", ok=None, detail=words))
    await _archive(crm, key, remote_id, headers, steps)


async def _archive(crm: Crm, key: str, remote_id: str | None, headers: Headers, steps: list[Step]) -> None:
    gone = SentRecord(record_id=key, version=2, deleted=True, remote_id=remote_id)
    archive_headers = Headers(headers.request_id, f"{headers.event_id}-gone", headers.trace)
    reply = await crm.archive([gone], archive_headers)
    [outcome] = reply.outcomes
    failed = f"Remove the record {key} there. {outcome.detail or reply.detail}"
    steps.append(_written("take away", crm, reply, "It was removed.", f"Look for {key}.", failed))
    if outcome.state is not EffectState.OK or not crm.reads_back:
        return
    back = await crm.read_back([gone], archive_headers)
    seen = None if back.seen is None else back.seen.get(key)
    absent = seen is Seen.ABSENT
    detail = f"Remove the record {key} there: it was not found to be gone. {back.detail}"
    if absent:
        detail = "It is gone."
    steps.append(step("gone", absent, detail.strip(), back))


def _written(name: str, crm: Crm, reply: Reply, well: str, unshown: str, failed: str) -> Step:
    """What a write of one record showed; an answer that does not name the record shows less."""
    if reply.outcomes[0].state is not EffectState.OK:
        return step(name, False, failed, reply)
    if reply.vouched or crm.reads_back:
        return step(name, True, well, reply)
    return step(name, None, f"{_UNSHOWN} {unshown}", reply)


def _failed(name: str, detail: str) -> Step:
    return Step(name=name, ok=False, detail=detail)
