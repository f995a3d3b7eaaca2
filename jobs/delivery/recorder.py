"""Commits what an attempt brought, and retries until it can: a CRM's answer must not be lost to an outage of ours."""

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final

import asyncpg
import msgspec
import structlog

from app.deliveries import queries
from app.deliveries.drift import Drift, Listing
from app.deliveries.queries import Claim, Record, Recorded
from app.errors import DatabaseUnavailable, Overloaded, StorageFull
from app.kit.postgres.database import Connection, Database
from app.telemetry import DeliveryAttempted, DriftFound, emit
from app.vocabulary.states import CODE_STATE, OPEN_STATES, STATE_CODE, EffectState, ErrorCode

log = structlog.get_logger()

_PAUSE: Final = 0.5
_LONGEST: Final = 600.0
"""Seconds beyond the lease for which it is worth trying."""
_TRANSIENT: Final = (
    DatabaseUnavailable,
    Overloaded,
    StorageFull,
    asyncpg.LockNotAvailableError,
    asyncpg.QueryCanceledError,
    asyncpg.TransactionRollbackError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
)
"""What cannot be done now and may be done in a moment."""


class Block(msgspec.Struct, frozen=True):
    """Nothing may be sent to a destination for so many seconds, and why."""

    seconds: float
    code: ErrorCode
    detail: str


class Recorder(msgspec.Struct, frozen=True):
    database: Database
    kind: str
    """Of the destination."""
    label: str | None = None
    """Its name in metrics, if it has one there."""

    async def record(
        self,
        claim: Claim,
        type: str,
        record: Record,
        *,
        block: Block | None,
        called: bool,
        wrote: bool,
        age: float,
        until: float,
    ) -> Recorded | None:
        """Record the end of an attempt whose lease lasts `until`. After that another worker may have claimed the
        delivery, which its token shows. `type`: of its records.

        `called`: the CRM was reached, so a block that has ended can be cleared; `wrote`: it was sent something. `age`:
        seconds since the commit that caused the delivery. `None`: the lease was lost.
        """
        recorded = await self._commit(
            claim,
            lambda connection: queries.record_delivery(connection, claim, type, record),
            block=block,
            called=called,
            until=until,
        )
        if recorded is None:
            return None
        items = _count_items(claim, record)
        emit(
            DeliveryAttempted(
                kind=self.kind,
                destination=self.label,
                tenant_id=claim.tenant_id,
                destination_id=claim.destination_id,
                delivery_id=claim.delivery_id,
                job_id=str(claim.job_id),
                request_id=claim.request_id,
                attempt=claim.attempt,
                outcome=_outcome(items, wrote=wrote),
                items=items,
                age=round(age, 3),
                seconds=round(age - claim.age, 3),
                wait=record.wait,
                codes=dict(Counter(e.code for e in record.errors.values())),
                status=next((call.status for call in reversed(record.calls) if call.status is not None), None),
                job_state=recorded.finished,
            )
        )
        return recorded

    def report_drift(self, claim: Claim, drifts: Iterable[Drift]) -> None:
        """That a destination was found to differ."""
        counts = Counter(drift.kind.value for drift in drifts)
        if counts:
            emit(
                DriftFound(
                    kind=self.kind,
                    destination=self.label,
                    tenant_id=claim.tenant_id,
                    destination_id=claim.destination_id,
                    job_id=str(claim.job_id),
                    counts=dict(counts),
                )
            )

    async def record_listing(
        self,
        claim: Claim,
        found: Sequence[str],
        drift: Mapping[str, Drift],
        listing: Listing,
        *,
        attempts: int,
        wait: float | None,
        block: Block | None,
        called: bool,
        until: float,
    ) -> Recorded | None:
        """The same of an attempt that only listed what is there."""

        async def write(connection: Connection) -> Recorded | None:
            kept = await queries.record_listing(connection, claim, found, drift, listing, attempts=attempts, wait=wait)
            return Recorded(claim.job_id, None, wait) if kept else None

        recorded = await self._commit(claim, write, block=block, called=called, until=until)
        if recorded is not None:
            self.report_drift(claim, drift.values())
        return recorded

    async def _commit(
        self,
        claim: Claim,
        write: Callable[[Connection], Awaitable[Recorded | None]],
        *,
        block: Block | None,
        called: bool,
        until: float,
    ) -> Recorded | None:
        while True:
            try:
                async with self.database.connection() as connection:
                    # The destination first: a delivery that waits again would be claimed at once otherwise.
                    await _record_block(connection, claim, block, called=called)
                    recorded = await write(connection)
                self.database.storage.note_room()
                break
            except _TRANSIENT:
                if time.monotonic() > until + _LONGEST:
                    raise
                await asyncio.sleep(_PAUSE)
        if recorded is None:
            log.warning("lease_lost", delivery_id=claim.delivery_id, tenant_id=claim.tenant_id)
        return recorded

    async def skip(self, claim: Claim) -> Recorded | None:
        """The destination was removed: nothing more is sent, and open items are skipped."""
        is_open = [CODE_STATE[code] in OPEN_STATES for code in claim.states]
        skipped = STATE_CODE[EffectState.SKIPPED]
        record = Record(
            states="".join(skipped if o else code for code, o in zip(claim.states, is_open, strict=True)),
            errors={place: error for place, error in claim.errors.items() if not is_open[int(place)]},
            attempts=claim.attempt - 1,
            wait=None,
            absence="clear",
            tried=[],
            dead_letters=[],
        )
        async with self.database.connection() as connection:
            return await queries.record_delivery(connection, claim, "", record)

    async def release_claim(self, tenant_id: int, destination_id: int, token: uuid.UUID, *, until: float) -> None:
        """A claim failed, but PostgreSQL may have committed it before it could say so. Nobody sends what it claimed, so
        it is freed here; after the end of its lease it would count as perhaps sent."""
        checks = 2  # a statement that was cut off may still run in PostgreSQL at the first one
        while checks and time.monotonic() < until:
            try:
                async with self.database.connection() as connection:
                    count = await queries.give_back(connection, tenant_id, destination_id, token)
            except (*_TRANSIENT, asyncpg.PostgresError):
                count = None
            if count:
                log.warning("claim_released", tenant_id=tenant_id, destination_id=destination_id, count=count)
                return
            checks -= count is not None
            await asyncio.sleep(_PAUSE)


def _count_items(claim: Claim, record: Record) -> dict[str, int]:
    """Those that were open, by their states now."""
    pairs = zip(claim.states, record.states, strict=True)
    counts = Counter(now for before, now in pairs if CODE_STATE[before] in OPEN_STATES)
    return {CODE_STATE[code].value: count for code, count in counts.items()}


def _outcome(items: Mapping[str, int], *, wrote: bool) -> str:
    if "unknown" in items:
        return "unknown"
    if "retry" in items or "pending" in items:
        return "retry" if wrote else "postponed"
    return "failed" if "failed" in items or "dead" in items else "ok"


async def _record_block(connection: Connection, claim: Claim, block: Block | None, *, called: bool) -> None:
    if block is not None:
        await queries.block_destination(
            connection, claim.tenant_id, claim.destination_id, block.seconds, block.code, block.detail
        )
    elif claim.blocked_before and called:
        await queries.unblock_destination(connection, claim.tenant_id, claim.destination_id)
