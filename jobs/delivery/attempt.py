"""One attempt at one delivery, as one visible pipeline: load, drop, settle doubts, send, conclude, record.

Whatever happens on the way ends as one state for each item (`docs/states.md`) and one recording transaction.
"""

import asyncio
import random
import time
from typing import Final

import asyncpg
import structlog

from app.deliveries import queries, record_states
from app.deliveries.queries import Record, Recorded
from app.errors import TrancheError
from app.kit import retry
from app.kit.postgres.database import Database
from app.kit.retry import GiveUp, GiveUpReason
from app.vocabulary.states import STATE_CODE, EffectState, ErrorCode
from jobs.delivery import resend
from jobs.delivery.attempt_calls import AttemptCalls
from jobs.delivery.attempt_items import batches
from jobs.delivery.bulk_writes import BulkWrites
from jobs.delivery.clients import DestinationContext
from jobs.delivery.reconciliation import Reconciliation
from jobs.delivery.recorder import Recorder
from jobs.delivery.verification import Verification

log = structlog.get_logger()

_IN_DOUBT_CAP: Final = 30.0
"""Longest wait, in seconds, before an item in doubt is looked up again: soon after a CRM is back, however long it was
away. Reading costs no attempt, so a short wait uses none up."""
_NOT_LOADED: Final = 0.5
"""Seconds before the next attempt of a delivery that could not be loaded, or had no room."""


class DeliveryAttempt:
    def __init__(
        self, calls: AttemptCalls, context: DestinationContext, database: Database, recorder: Recorder
    ) -> None:
        self._claim, self._items, self._crm = calls.claim, calls.items, calls.crm
        self._calls = calls
        self._policy = context.policy
        self._database = database
        self._recorder = recorder
        self._reconciliation = Reconciliation(calls, grace=context.policy.reconcile_grace)
        self._bulk = BulkWrites(calls, database, budget=context.policy.retry.budget)
        self._verification = Verification(calls, database, recorder, attempts=context.policy.retry.attempts)
        self._memory = context.state.memory
        self._began = time.monotonic()
        self._loaded = 0
        """Bytes that are reserved in it."""
        self._failed = False
        """By an internal error, which another look-up does not mend."""

    async def run(self) -> Recorded | None:
        """Make the attempt and record it; `None`: the lease was lost to another worker."""
        try:
            return await self._run()
        finally:
            self._memory.release(self._loaded)

    async def _run(self) -> Recorded | None:
        try:
            if await self._load():
                await self._deliver()
        except asyncio.CancelledError:
            self._interrupt("the worker was stopped during the call")
            await asyncio.shield(self._finish())
            raise
        except (TrancheError, asyncpg.PostgresError) as error:
            # PostgreSQL is in trouble. If nothing was sent the delivery is recorded as it was: after the end of its
            # lease it would count as perhaps sent, and where nobody can be asked an operator would have to look.
            log.warning("delivery_postponed", delivery_id=self._claim.delivery_id, error=error)
        except Exception as error:
            log.exception("delivery_failed", delivery_id=self._claim.delivery_id)
            self._fail(type(error).__name__)
        return await self._finish()

    async def _deliver(self) -> None:
        limit = self._policy.retry.attempts
        await self._bulk.resume()
        if self._bulk.running:
            return
        if self._claim.verify:
            await self._verification.run()
            if self._verification.unread or not self._items.open():
                return  # what differs goes when all of it is known: few deliveries have anything of the kind
        else:
            self._drop_overtaken()
        if self._claim.lost >= limit:
            # Else a delivery that crashes every worker that sends it would go on for ever.
            self._exhaust(EffectState.UNKNOWN, EffectState.RETRY)
        if self._crm.reads_back:
            await self._reconciliation.run()
        else:
            await self._resend()
        if self._claim.attempt > limit:
            self._exhaust(EffectState.RETRY)
        await self._send()

    async def _finish(self) -> Recorded | None:
        await self._calls.release()
        return await self._recorder.record(
            self._claim,
            self._calls.resource.name,
            self._conclude(),
            block=self._calls.blocked,
            called=self._called,
            wrote=self._calls.wrote,
            age=self._claim.age + time.monotonic() - self._began,
            until=self._calls.leased_until,
        )

    @property
    def _called(self) -> bool:
        return self._calls.made or self._failed

    async def _load(self) -> bool:
        """Whether there is room for it; else it waits until other attempts of the destination have ended."""
        claim, items = self._claim, self._items
        ids = [claim.record_ids[position] for position in items.open()]
        if items.within(EffectState.UNKNOWN) and self._crm.repeatable:
            ids = claim.record_ids  # a call is repeated with all records that were part of it
        if ids:
            destination = (claim.tenant_id, claim.destination_id, claim.type_id)
            async with self._database.connection() as connection:
                found = await record_states.records_to_send(connection, *destination, ids)
            size = sum(each.size for each in found.values())
            if not self._memory.reserve(size):
                return False
            self._loaded, items.sync_states = size, found
        return True

    def _drop_overtaken(self) -> None:
        """Do not send what the destination holds already, or never had and must not have, or what is not ours to
        archive."""
        items, reads_back = self._items, self._crm.reads_back
        for position in items.open():
            found = items.sync_states.get(self._claim.record_ids[position])
            in_doubt = items.states[position] is EffectState.UNKNOWN
            if found is None:
                items.states[position] = EffectState.SKIPPED
            elif found.deleted and in_doubt and reads_back:
                continue  # it may have arrived unnoticed, and must be looked up
            elif found.synced_version >= self._claim.versions[position] and not self._sends(position):
                items.mark_synced(position)
            elif found.released and found.adopted and not found.doubtful:
                items.mark_absent(position)  # it was found there, and nothing has been written to it
            elif found.left and not (found.doubtful and (reads_back or self._crm.appends)):
                items.keep_record(position)

    def _sends(self, position: int) -> bool:
        """What the destination has already is sent again: a sync of everything. Not what is in doubt, which is read."""
        return self._claim.forced and self._items.states[position] is not EffectState.UNKNOWN

    async def _resend(self) -> None:
        """The same call again where the CRM promises not to apply it twice, else an operator."""
        items = self._items
        if not items.within(EffectState.UNKNOWN):
            return
        if not self._crm.repeatable:
            resend.escalate(items)
            return
        async with self._database.connection() as connection:
            lost = await queries.lost_calls(connection, self._claim)
        for batch in resend.plan(items, self._claim, lost, self._crm, self._calls.event_id):
            if not await self._calls.write(batch):
                return

    async def _send(self) -> None:
        items = self._items
        if items.within(EffectState.UNKNOWN) or self._calls.blocked:
            # One absence counts for the whole delivery; what is sent meanwhile would share it.
            return
        missing = self._reconciliation.not_looked_up
        records = [items.record(position) for position in items.open() if position not in missing]
        if await self._bulk.write(records):
            if self._bulk.running or self._calls.blocked or items.within(EffectState.UNKNOWN):
                return
            records = [items.record(position) for position in items.open() if position not in missing]
        calls = batches(records, self._crm)
        for place, batch in enumerate(calls, start=1):
            if not await self._calls.write(batch, last=place == len(calls)):
                return

    def _interrupt(self, detail: str) -> None:
        self._reconciliation.reset()
        self._calls.interrupt(detail)

    def _fail(self, error: str) -> None:
        """An internal error costs an attempt like any other, or it would come again at once and for ever."""
        items = self._items
        self._interrupt(f"Tranche failed during the call: {error}")
        for position in items.within(EffectState.PENDING, EffectState.RETRY):
            items.states[position] = EffectState.RETRY
            items.set_error(position, ErrorCode.INTERNAL, f"Tranche failed before the call: {error}")
        self._failed = True

    def _conclude(self) -> Record:
        claim, items, calls = self._claim, self._items, self._calls
        # A circuit that rejects and a CRM that asks for silence cost no attempt.
        unread = self._reconciliation.failed or self._verification.failed
        counts = (calls.wrote or unread or self._failed) and not calls.paused
        attempts = claim.attempt if counts else claim.attempt - 1
        if not self._crm.reads_back and not self._crm.repeatable:
            resend.escalate(items)
        wait = self._wait(max(attempts, 1)) if items.open() else None
        return Record(
            states="".join(STATE_CODE[state] for state in items.states),
            errors=items.errors,
            attempts=max(attempts, 0),
            wait=wait,
            absence=self._reconciliation.absence,
            tried=items.results(),
            dead_letters=items.dead_letters(),
            calls=calls.log.kept(),
            not_restored=items.not_restored,
        )

    def _wait(self, attempts: int) -> float | None:
        """Seconds before the next attempt; dead-letters what was tried and may have none."""
        if not self._called:
            return 0.0 if self._calls.blocked else _NOT_LOADED
        second_look = self._reconciliation.wait
        if self._calls.paused or second_look is not None:
            # The CRM asked for silence, or must be read once more before anything is sent.
            return max(second_look or 0.0, 0.0)
        decision = retry.decide(attempts, 0.0, self._claim.age, self._policy.retry, random.random)
        delay = 0.0
        if not isinstance(decision, GiveUp):
            delay = decision.delay
        elif decision.reason is GiveUpReason.BUDGET or self._failed:
            self._exhaust(EffectState.RETRY, EffectState.UNKNOWN)
        else:
            # Whether an item in doubt arrived can still be found out; that is bounded by time alone.
            self._exhaust(EffectState.RETRY)
        if not self._items.open():
            return None
        return self._wait_in_doubt() if self._items.within(EffectState.UNKNOWN) else delay

    def _wait_in_doubt(self) -> float:
        """Before another look at items in doubt: as long as they are in doubt already, with jitter, up to a cap."""
        policy = self._policy.retry
        longest = min(policy.backoff_cap, _IN_DOUBT_CAP)
        wait = min(max(self._claim.unknown_for or 0.0, policy.backoff_base), longest)
        wait *= 0.5 + 0.5 * random.random()  # noqa: S311 - jitter, not a secret
        # What cannot be read back is resent when the first call has had its time.
        return wait if self._crm.reads_back else max(wait, self._policy.reconcile_grace)

    def _exhaust(self, *states: EffectState) -> None:
        """Dead-letter these items, but none that never was tried."""
        attempts = min(self._claim.attempt, self._policy.retry.attempts)
        self._items.exhaust(self._items.within(*states), attempts, unread=self._verification.unread)
