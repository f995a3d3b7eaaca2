"""Serves one destination in one process: claims what is due, a few deliveries at a time, and runs an attempt for each.

The claims of a destination go one after the other, over all workers, so one claimer a worker claims as many deliveries
as its concurrency limit leaves room for.
"""

import asyncio
import math
import random
import time
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Final

import asyncpg
import msgspec
import structlog

from app.deliveries import queries
from app.deliveries.queries import Claim
from app.errors import TrancheError
from app.kit.postgres.database import Database
from app.resource_types.catalog import Catalog
from app.resources.declaration import Resource
from app.tracing import context as tracing
from app.tracing import spans
from app.tracing.spans import Kind
from app.vocabulary.states import ErrorCode
from jobs.breaker.rules import Permits, Rejected
from jobs.delivery.attempt import DeliveryAttempt
from jobs.delivery.attempt_calls import AttemptCalls
from jobs.delivery.clients import DestinationContext
from jobs.delivery.listing_attempt import ListingAttempt
from jobs.delivery.recorder import Recorder

log = structlog.get_logger()

_GATHER: Final = 0.004
"""Seconds for more attempts to end, while most are in flight: one claim then serves them all."""
_CLAIMS: Final = 4
"""Claims that would take all places of a destination: whoever comes first leaves some to other workers."""
_PLACE_WAIT: Final = 0.05
"""Seconds after which a worker that found all places taken by others looks again; doubles each time."""
_PLACE_WAIT_CAP: Final = 1.0


class DestinationWorker(msgspec.Struct, eq=False, kw_only=True):
    """Runs until nothing is due, the destination is blocked, or its time slice is over; its attempts run in `group`."""

    context: DestinationContext
    database: Database
    catalog: Catalog
    recorder: Recorder
    group: asyncio.TaskGroup
    notify_after: Callable[[float], None]
    stopping: Callable[[], bool]
    in_flight: int = 0
    changed: asyncio.Event = msgspec.field(default_factory=asyncio.Event)
    """An attempt ended, or something new is due."""
    closed: bool = False
    half_open: bool = False
    """Whether the circuit of the connection was half-open at the last claim."""

    def notify(self) -> None:
        """Something new may be due."""
        self.changed.set()

    async def run_until(self, end: float) -> bool:
        """Claim and send; true: the time slice ended before the work did."""
        place_wait = _PLACE_WAIT
        while not self.closed and not self.stopping():
            if time.monotonic() >= end:
                return True
            self.changed.clear()
            room = self.context.state.calls - self.in_flight
            if room <= 0:
                await self.changed.wait()
                continue
            if self.in_flight > 4 * room:
                await asyncio.sleep(_GATHER)
                room = self.context.state.calls - self.in_flight
            if await self._claim(room):
                place_wait = _PLACE_WAIT
                continue
            if self.closed:
                break
            if self.in_flight:
                # An attempt that ends may make room, or free a record that something due waits for.
                await self.changed.wait()
            elif await self._lacks_place():
                await asyncio.sleep(place_wait * (0.5 + random.random()))  # noqa: S311 - jitter, not a secret
                place_wait = min(2 * place_wait, _PLACE_WAIT_CAP)
            else:
                await self._settle()
                break
        return False

    async def _settle(self) -> None:
        """Let a half-open circuit close if nothing is left that could probe it."""
        context = self.context
        if context.client is None or not self.half_open:
            return
        async with self.database.connection() as connection:
            has_deliveries = await queries.has_deliveries(connection, *context.key)
        if not has_deliveries:
            await context.client.settle()

    async def _claim(self, room: int) -> bool:
        """Claim up to `room` deliveries and begin to send them; false: none was due."""
        context, client, policy = self.context, self.context.client, self.context.policy
        permits: Permits | None = None
        if client is not None:
            acquired = await client.acquire()
            if isinstance(acquired, Rejected):
                await self._close(acquired.retry_after, acquired.code, client.explain(acquired))
                return False
            permits = acquired
            self.half_open = client.is_half_open(permits)
            if permits.probe or client.rate:
                room = 1  # each of them needs a permit of its own, which is not to be had at once
        claims: list[Claim] = []
        resources: dict[int, Resource] = {}
        leased_until = time.monotonic() + policy.lease
        token = uuid.uuid4()
        try:
            async with self.database.connection() as connection:
                claims = await queries.claim_deliveries(
                    connection,
                    *context.key,
                    token=token,
                    lease=policy.lease,
                    concurrency=policy.concurrency,
                    limit=min(max(1, room), math.ceil(policy.concurrency / _CLAIMS)),
                )
                for type_id in {claim.type_id for claim in claims}:
                    resources[type_id] = await self.catalog.by_id(connection, context.key[0], type_id)
        except (TrancheError, asyncpg.PostgresError):
            self.group.create_task(self._release_claim(token, leased_until))
            raise
        finally:
            if client is not None and permits is not None and (not claims or claims[0].removed):
                await client.release(permits)
                permits = None
        for claim in claims:
            self.in_flight += 1
            self.group.create_task(self._attempt(context, claim, resources[claim.type_id], leased_until, permits))
            permits = None
        return bool(claims)

    async def _release_claim(self, token: uuid.UUID, until: float) -> None:
        tenant_id, destination_id = self.context.key
        try:
            await self.recorder.release_claim(tenant_id, destination_id, token, until=until)
        except Exception:
            log.exception("claim_not_released", tenant_id=tenant_id, destination_id=destination_id)

    async def _attempt(
        self,
        context: DestinationContext,
        claim: Claim,
        resource: Resource,
        leased_until: float,
        permits: Permits | None,
    ) -> None:
        try:
            if context.client is None or claim.removed:
                await self.recorder.skip(claim)
                return
            trace = tracing.read(claim.trace_context)
            attributes = spans.messaging("deliver", "process", len(claim.record_ids)) | {
                "messaging.destination.name": context.destination.kind,
                "tranche.tenant_id": claim.tenant_id,
                "tranche.destination_id": claim.destination_id,
                "tranche.delivery_id": claim.delivery_id,
                "tranche.job_id": str(claim.job_id),
                "tranche.attempt": claim.attempt,
            }
            with spans.span(f"deliver {context.destination.kind}", Kind.CONSUMER, trace, attributes) as span:
                # The task is of this attempt alone, and so is what is bound here for its lines in the log.
                structlog.contextvars.bind_contextvars(
                    tenant_id=claim.tenant_id,
                    destination_id=claim.destination_id,
                    kind=context.destination.kind,
                    delivery_id=claim.delivery_id,
                    job_id=str(claim.job_id),
                    request_id=claim.request_id,
                    trace_id=span.context.trace_id,
                )
                calls = AttemptCalls(
                    claim,
                    self.database,
                    context,
                    context.client,
                    resource,
                    leased_until=leased_until,
                    permits=permits,
                    trace=span.context,
                )
                kind = DeliveryAttempt if claim.listing is None else ListingAttempt
                attempt = kind(calls, context, self.database, self.recorder)
                recorded = await attempt.run()
                _describe(span, calls)
            if calls.blocked_for is not None:
                self.closed = True
                self.notify_after(calls.blocked_for)
            elif recorded is not None and recorded.wait is not None:
                self.notify_after(recorded.wait)
        except (TrancheError, asyncpg.PostgresError) as error:
            # PostgreSQL is in trouble, and the scheduler comes back to the destination. Raised in a group, the error
            # would cancel what the other attempts are sending.
            self.closed = True
            tenant_id, destination_id = context.key
            log.warning("attempt_not_recorded", tenant_id=tenant_id, destination_id=destination_id, error=error)
        except Exception:
            self.closed = True
            log.exception("attempt_failed", delivery_id=claim.delivery_id)
        finally:
            self.in_flight -= 1
            self.changed.set()

    async def _close(self, seconds: float, code: ErrorCode, detail: str) -> None:
        """Nothing of this destination is due for so long."""
        self.closed = True
        async with self.database.connection() as connection:
            await queries.block_destination(connection, *self.context.key, seconds, code, detail)
        self.notify_after(seconds)

    async def _lacks_place(self) -> bool:
        context = self.context
        async with self.database.connection() as connection:
            return await queries.lacks_place(connection, *context.key, context.policy.concurrency)


def _describe(span: spans.Span, calls: AttemptCalls) -> None:
    """What became of the delivery's items."""
    if not span.recorded:
        return
    counts = Counter(calls.items.states)
    span.note({f"tranche.items.{state.value}": count for state, count in counts.items()})
    codes = Counter(error.code for error in calls.items.errors.values())
    if codes:
        span.fail(codes.most_common(1)[0][0])
