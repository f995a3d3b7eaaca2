"""The calls of one attempt: on a lease that outlasts them, by the guarded client, logged and applied to its items."""

import asyncio
import functools
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Final, TypeVar

import asyncpg
import structlog

from app.deliveries import queries
from app.deliveries.before_images import Adoption
from app.deliveries.queries import Asked, Claim
from app.errors import TrancheError
from app.kit.postgres.database import Database
from app.resources.declaration import Resource
from app.resources.types.contacts import CONTACTS
from app.tracing.context import TraceContext
from app.vocabulary.states import OPEN_STATES, EffectState, ErrorCode
from jobs.breaker.rules import Permits, Rejected
from jobs.crm.port import BulkJob, CallResult, Headers, Health, Listing, ReadBack, Reply, SentRecord
from jobs.delivery.attempt_items import AttemptItems, Batch
from jobs.delivery.call_log import READING, CallInProgress, CallLog
from jobs.delivery.clients import DestinationContext
from jobs.delivery.guarded_client import GuardedClient
from jobs.delivery.recorder import Block

log = structlog.get_logger()

_LEASE_MARGIN: Final = 2.0

_Answer = TypeVar("_Answer", bound=CallResult)


class AttemptCalls:
    """Makes calls until one says that no more may follow."""

    def __init__(
        self,
        claim: Claim,
        database: Database,
        context: DestinationContext,
        client: GuardedClient,
        resource: Resource,
        *,
        leased_until: float,
        permits: Permits | None,
        trace: TraceContext | None = None,
    ) -> None:
        self.claim = claim
        self.items = AttemptItems(claim)
        self.resource = resource
        self.crm = client.crm_for(resource)
        self._database = database
        self._context = context
        self._client = client
        self._permits = permits
        self._trace = trace
        self._in_progress: CallInProgress | None = None
        """If the worker is stopped during it, nobody knows what becomes of its records."""
        self._last: CallInProgress | None = None
        self.leased_until = leased_until
        self.log = CallLog(len(claim.record_ids))
        self.made = False
        """The destination was called."""
        self.wrote = False
        """It was sent something; an attempt that only reads does not count."""
        self.paused = False
        """The CRM asked for silence."""
        self.blocked: Block | None = None

    async def write(self, batch: Batch, *, last: bool = True) -> bool:
        """One call, or halves of it where the CRM refused the whole without naming the faulty record; false: no more
        calls. `last`: no other batch follows."""
        records = batch.records
        ask = self.crm.archive if batch.operation == "archive" else self._push
        reply = await self._call(batch.operation, records, ask, last=last)
        if reply is None:
            return False
        self.wrote = True
        if reply.rejected_whole and len(records) > 1:
            middle = len(records) // 2
            first, second = (Batch(batch.operation, half) for half in (records[:middle], records[middle:]))
            return await self.write(first) and await self.write(second)
        for record, outcome in zip(records, reply.outcomes, strict=True):
            self.items.apply(record, outcome, self._last)
        return not self.paused

    async def _push(self, records: list[SentRecord], headers: Headers) -> Reply:
        return await self.crm.push(records, headers, self._keep)

    async def _keep(self, adoptions: Sequence[Adoption]) -> frozenset[str]:
        """Before they are written to, so that an undo knows what was there, whatever becomes of this worker."""
        try:
            async with self._database.connection() as connection:
                return await queries.keep_adoptions(connection, self.claim, adoptions)
        except (TrancheError, asyncpg.PostgresError) as error:
            log.warning("adoptions_not_kept", delivery_id=self.claim.delivery_id, error=error)
            return frozenset()

    async def read_back(self, records: list[SentRecord], *, by_fields: bool = False) -> ReadBack | None:
        """`None`: no call was made, or it says nothing."""
        return await self._call("read_back", records, functools.partial(self.crm.read_back, by_fields=by_fields))

    async def bulk(
        self, ask: Callable[[Headers], Awaitable[BulkJob]], written: list[SentRecord] | None
    ) -> BulkJob | None:
        """A call about a job of the CRM's own; `written`: the records that it lets the job write, if it does.
        `None`: no call was made, or it says nothing."""
        if written is None:
            return await self._call("read_back", [], lambda _, headers: ask(headers))
        job = await self._call("push", written, lambda _, headers: ask(headers))
        self.wrote |= job is not None
        return job

    async def list_keys(self, after: str | None) -> Listing | None:
        """`None`: no call was made, or it says nothing."""
        return await self._call("list", [], lambda _, headers: self.crm.list_keys(after, headers))

    async def _call(
        self,
        operation: Asked,
        records: list[SentRecord],
        ask: Callable[[list[SentRecord], Headers], Awaitable[_Answer]],
        *,
        last: bool = True,
    ) -> _Answer | None:
        """The answer, unless nothing was done: no lease, no permit, or the CRM asked for silence."""
        if not await self._renew_lease():
            return None
        headers = Headers(self.claim.request_id, self.event_id(records), self._trace)
        self._in_progress = self._last = call = CallInProgress(
            operation=operation,
            event_id=headers.event_id,
            positions=self.items.positions(records),
            sent_at=datetime.now(UTC),
            started=time.monotonic(),
        )
        follow = None if last else self._keep_permits
        reply = await self._client.call(operation, lambda: ask(records, headers), self._take_permits(), follow=follow)
        self._in_progress = None
        if isinstance(reply, Rejected):
            self.blocked = Block(reply.retry_after, reply.code, self._client.explain(reply))
            return None
        self.made = True
        self.log.answered(call, reply)
        if reply.pause is not None:
            self.paused = True
            self.blocked = Block(reply.pause.seconds, reply.pause.code, reply.pause.detail)
            # It may concern some records alone: the answer says what became of the others.
            return reply if reply.health is Health.SETUP_FAULT or _settles(reply) else None
        return reply

    def event_id(self, records: list[SentRecord]) -> str:
        """The same for the same records in the same versions under the same options; a job that resends has its own,
        because it asks for another answer."""
        claim = self.claim
        versions = "\0".join(f"{c.record_id}\0{c.version}" for c in records)
        resent_by = str(claim.job_id) if claim.resent else ""
        type_of = "" if claim.type_id == CONTACTS.type_id else self.resource.name
        scope = (f"tranche:{claim.tenant_id}:{claim.destination_id}", type_of, self._context.options_hash, resent_by)
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{':'.join(filter(None, scope))}\0{versions}"))

    async def pause(self, seconds: float) -> bool:
        """Wait before another call, on a lease that outlasts both; false: it was lost."""
        kept = await self._renew_lease(seconds)
        if kept:
            await asyncio.sleep(seconds)
        return kept

    async def _renew_lease(self, before: float = 0.0) -> bool:
        """Whether the lease outlasts another call, `before` seconds from now; a call is never made on a lease that may
        end during it."""
        policy = self._context.policy
        need = before + policy.timeouts.total + _LEASE_MARGIN
        if self.leased_until - time.monotonic() >= need:
            return True
        requested_at = time.monotonic()
        lease = max(policy.lease, need)
        async with self._database.connection() as connection:
            if not await queries.renew_lease(connection, self.claim, lease):
                return False
        self.leased_until = requested_at + lease
        return True

    def _take_permits(self) -> Permits | None:
        permits, self._permits = self._permits, None
        return permits

    def _keep_permits(self, permits: Permits) -> None:
        self._permits = permits

    @property
    def blocked_for(self) -> float | None:
        """Seconds for which the destination was found blocked during this attempt."""
        return self.blocked.seconds if self.blocked else None

    async def release(self) -> None:
        """Return the permits of a call that was not made."""
        if (permits := self._take_permits()) is not None:
            await self._client.release(permits)

    def interrupt(self, detail: str) -> None:
        """The worker stopped during a call: what it was to write is in doubt."""
        call, self._in_progress = self._in_progress, None
        if call is None:
            return
        self.made = True
        self.log.interrupted(call, time.monotonic() - call.started, detail)
        if call.operation in READING:
            return
        self.wrote = True
        for position in call.positions:
            if self.items.states[position] not in OPEN_STATES:
                continue  # it was part of a repeated call, and was settled before
            in_doubt = f"{call}: {detail}"
            self.items.settle(position, EffectState.UNKNOWN, code=ErrorCode.OUTCOME_UNKNOWN, detail=in_doubt)


def _settles(reply: CallResult) -> bool:
    """Whether an answer says of some records more than that nothing was done."""
    return isinstance(reply, Reply) and any(o.state is not EffectState.RETRY for o in reply.outcomes)
