"""One attempt at one delivery, as one visible pipeline: load, drop, settle what is unknown, send, conclude, record.

Whatever happens on the way ends as one letter an item (`docs/states.md`) and one recording transaction.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final, Literal, TypeVar

import asyncpg
import structlog

from app.db import delivering, standing
from app.db.delivering import Asked, Claim, Record, Recorded
from app.db.pool import Database
from app.domain import retry
from app.domain.outcomes import OPEN_STATES, STATE_LETTER, EffectState, ErrorCode
from app.domain.retry import GiveUp, GiveUpReason, RetryPolicy
from app.errors import TrancheError
from app.settings import Settings
from jobs import recording, repeating
from jobs.breaker.rules import Permits, Rejected
from jobs.chunk import Chunk
from jobs.crm.port import Contact, Headers, Health, Pause, ReadBack, Reply, Seen
from jobs.evidence import Evidence, Sending
from jobs.line import Line
from jobs.recording import Block
from jobs.windows import Lanes

log = structlog.get_logger()

_LEASE_MARGIN: Final = 2.0
_UNKNOWN_CAP: Final = 30.0
"""Longest wait, in seconds, before an unknown item is looked for again: what is there to be read must be read soon
after a CRM is back, however long it was away. Reading costs no attempt, so a short wait uses none up."""

_UNTRIED: Final = 0.5
"""Seconds before a delivery is taken up again that could not be loaded, or for which there was no memory."""

_Answer = TypeVar("_Answer", Reply, ReadBack)


class Delivery:
    """A claimed delivery on its way through one attempt."""

    def __init__(
        self,
        claim: Claim,
        line: Line,
        database: Database,
        settings: Settings,
        *,
        lanes: Lanes,
        monotonic: Callable[[], float],
        random: Callable[[], float],
        shape: str,
        leased_until: float,
        permits: Permits | None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._claim = claim
        self._line = line
        self._database = database
        self._settings = settings
        self._lanes = lanes
        self._reserved = 0
        """Bytes, in `lanes`."""
        self._monotonic = monotonic
        self._random = random
        self._now = now
        self._permits = permits
        self._shape = shape
        self._leased_until = leased_until
        self._chunk = Chunk(claim)
        self._evidence = Evidence(len(claim.contact_ids))
        self._sending: Sending | None = None
        """The call that is under way: what becomes of its contacts if we are stopped is not known."""
        self._last: Sending | None = None
        self._called = False
        self._spent = False
        """Something was written there, or an attempt is to count for another reason; only reading costs none."""
        self._broke = False
        """By an error of ours, which looking once more does not mend."""
        self._unseen: set[int] = set()
        """Tombstones that could not be looked up, and so not be archived, this time."""
        self._postponed: Pause | None = None
        self._blocked: Block | None = None
        self._absence: Literal["keep", "now", "clear"] = "clear"
        self._absent_wait: float | None = None

    async def run(self) -> Recorded | None:
        """Make the attempt and record it; `None`: the lease was lost and somebody else has it."""
        try:
            return await self._run()
        finally:
            self._lanes.release(self._reserved)

    async def _run(self) -> Recorded | None:
        try:
            if await self._load():
                await self._attempt()
        except asyncio.CancelledError:
            self._interrupt("the worker was stopped during the call")
            await asyncio.shield(self._finish())
            raise
        except (TrancheError, asyncpg.PostgresError) as error:
            # PostgreSQL is in trouble. If nothing was sent it is given back as it was: left to the end of its lease it
            # would count as perhaps sent, and where nobody can be asked humans would have to look.
            log.warning(
                "delivery_given_back",
                delivery_id=self._claim.delivery_id,
                error=error,
            )
        except Exception as error:
            log.exception("delivery_broke_off", delivery_id=self._claim.delivery_id)
            self._break_off(type(error).__name__)
        return await self._finish()

    async def _attempt(self) -> None:
        limit = self._settings.delivery_attempts
        self._drop_overtaken()
        if self._claim.lost >= limit:
            # Else one that ends every worker that sends it would go on for ever.
            self._give_up(EffectState.UNKNOWN, EffectState.RETRY)
        if self._line.crm.reads_back:
            self._doubt()
            await self._read_back()
        else:
            await self._repeat()
        if self._claim.attempt > limit:
            self._give_up(EffectState.RETRY)
        await self._send()

    async def _release(self) -> None:
        if (permits := self._take()) is not None:
            await self._line.release(permits)

    async def _finish(self) -> Recorded | None:
        await self._release()
        return await recording.insist(
            self._database,
            self._claim,
            self._conclude(),
            block=self._blocked,
            called=self._called,
            until=self._leased_until,
            monotonic=self._monotonic,
        )

    # load, drop

    async def _load(self) -> bool:
        """Whether there is memory for it; if not, it waits for other deliveries of the destination to end."""
        claim, chunk = self._claim, self._chunk
        ids = [claim.contact_ids[position] for position in chunk.open()]
        if chunk.within(EffectState.UNKNOWN) and self._line.crm.repeatable:
            ids = claim.contact_ids  # a call is repeated with all that went along
        if ids:
            async with self._database.connection() as connection:
                found = await standing.contacts_to_send(
                    connection, claim.tenant_id, claim.destination_id, ids
                )
            size = sum(each.size for each in found.values())
            if not self._lanes.reserve(size):
                return False
            self._reserved, chunk.standing = size, found
        return True

    def _drop_overtaken(self) -> None:
        """What the destination holds already, or never had and must not have, or is not ours to take away, need not be
        sent."""
        chunk, reads_back = self._chunk, self._line.crm.reads_back
        for position in chunk.open():
            found = chunk.standing.get(self._claim.contact_ids[position])
            unknown = chunk.states[position] is EffectState.UNKNOWN
            if found is None:
                chunk.states[position] = EffectState.SKIPPED
            elif found.deleted and unknown and reads_back:
                continue  # it may have got there by a way that nobody noticed, and must be looked for
            elif found.synced_version >= self._claim.versions[position]:
                chunk.drop(position)
            elif found.left and not (found.doubtful and reads_back):
                chunk.leave(position)

    # settle what is unknown, where the CRM can be asked

    def _doubt(self) -> None:
        """Another delivery of the contact lost its answer: it may have sent what we are about to send, and it may still
        be on its way, to overwrite what we send now."""
        chunk = self._chunk
        for position in chunk.within(EffectState.PENDING) + chunk.within(EffectState.RETRY):
            if chunk.standing_of(position).doubtful:
                chunk.doubt(position, "an earlier delivery may have sent it")

    async def _read_back(self) -> None:
        """Look for what an earlier attempt left unknown, and for records to archive, before anything is sent."""
        chunk = self._chunk
        wanted = [p for p in chunk.open() if chunk.states[p] is EffectState.UNKNOWN or self._must_be_found(p)]
        size = self._line.crm.batch_size
        for start in range(0, len(wanted), size):
            if not await self._look(wanted[start : start + size]):
                # Those of the other batches are not known either.
                self._unseen.update(p for p in wanted if self._must_be_found(p))
                return

    def _must_be_found(self, position: int) -> bool:
        """A tombstone whose record is to be archived, and has no id that we know of."""
        found = self._chunk.standing_of(position)
        return found.archived and found.remote_id is None

    async def _look(self, positions: list[int]) -> bool:
        contacts = [self._chunk.contact(position) for position in positions]
        reply = await self._call("read_back", contacts, self._line.crm.read_back)
        if reply is None:
            return False
        if reply.seen is None:
            for position in positions:
                self._not_told(position, reply.detail or "the read-back told nothing")
            return False
        absent: list[int] = []
        for position, contact in zip(positions, contacts, strict=True):
            seen, remote_id = reply.seen.get(contact.contact_id), reply.remote_ids.get(contact.contact_id)
            if seen is None:
                self._not_told(position, "the read-back did not mention it")
            elif contact.deleted:
                if not self._tombstone_settled(position, seen, remote_id):
                    absent.append(position)
            elif seen is Seen.MATCHES:
                self._chunk.settle(position, EffectState.OK, remote_id=remote_id)
            else:
                absent.append(position)
        if absent:
            self._weigh_absence(absent)
        return True

    def _not_told(self, position: int, detail: str) -> None:
        chunk = self._chunk
        if chunk.states[position] is EffectState.UNKNOWN:
            chunk.doubt(position, detail)
        else:
            self._unseen.add(position)
            self._spent = True
            chunk.states[position] = EffectState.RETRY
            chunk.complain(position, ErrorCode.DESTINATION_UNAVAILABLE, f"it was not looked up: {detail}")

    def _tombstone_settled(self, position: int, seen: Seen, remote_id: str | None) -> bool:
        """Whether this look at a record that should be gone tells what to do; if not, a second one must."""
        chunk = self._chunk
        tombstone = chunk.standing_of(position)
        unknown = chunk.states[position] is EffectState.UNKNOWN
        archived = tombstone.tried_version >= tombstone.version  # it was the archiving whose answer was lost
        if seen is Seen.ABSENT:
            if archived or not (unknown or tombstone.doubtful):
                chunk.forget(position)
                return True
            return False  # the write whose answer was lost may still be on its way
        if tombstone.left:
            chunk.leave(position)
            return True
        if remote_id is None and tombstone.remote_id is None:
            self._not_told(position, "the read-back told no id of the record")
            return True
        if remote_id is not None:
            chunk.remote_ids[tombstone.contact_id] = remote_id
        if unknown and archived:
            return False
        if unknown:
            chunk.states[position] = EffectState.RETRY
        return True

    def _weigh_absence(self, positions: list[int]) -> None:
        """Once is not proof that nothing happened: a first call may still be on its way. Twice across the grace is."""
        chunk = self._chunk
        absent_for = self._absent_for(positions)
        if absent_for is not None and absent_for >= self._settings.reconcile_grace:
            for position in positions:
                contact = chunk.contact(position)
                if contact.deleted and (contact.remote_id is None or chunk.standing_of(position).left):
                    chunk.forget(position)
                else:
                    chunk.states[position] = EffectState.RETRY
            return
        self._absence = "now" if absent_for is None else "keep"
        self._absent_wait = self._settings.reconcile_grace - (absent_for or 0.0)
        for position in positions:
            deleted = chunk.standing_of(position).deleted
            found = "it is looked at" if deleted else "not found there yet; it is looked for"
            chunk.doubt(position, f"{found} once more")

    def _absent_for(self, positions: list[int]) -> float | None:
        """Seconds since the first look that counts: one before another delivery's write was left without an answer says
        nothing about that write."""
        since = self._claim.absent_since
        doubts = [self._chunk.standing_of(position).doubted_at for position in positions]
        if since is None or any(doubted is not None and doubted > since for doubted in doubts):
            return None
        return self._claim.absent_for

    # settle what is unknown, where the CRM cannot be asked

    async def _repeat(self) -> None:
        """The same call again where the CRM promises not to do it twice, else a human."""
        chunk = self._chunk
        if not chunk.within(EffectState.UNKNOWN):
            return
        if not self._line.crm.repeatable:
            repeating.leave_to_humans(chunk)
            return
        async with self._database.connection() as connection:
            calls = await delivering.lost_calls(connection, self._claim)
        size = self._line.crm.batch_size
        for call in repeating.plan(chunk, self._claim, calls, size, self._event_id):
            if not await self._write(call.asked, call.contacts):
                return

    # send

    async def _send(self) -> None:
        chunk = self._chunk
        if chunk.within(EffectState.UNKNOWN) or self._postponed or self._blocked:
            # One absence stands for the whole delivery; what is sent meanwhile would share it.
            return
        contacts = [chunk.contact(position) for position in chunk.open() if position not in self._unseen]
        size = self._line.crm.batch_size
        steps: tuple[tuple[Asked, bool], ...] = (("push", False), ("archive", True))
        for asked, deleted in steps:
            due = [contact for contact in contacts if contact.deleted is deleted]
            for start in range(0, len(due), size):
                if not await self._write(asked, due[start : start + size]):
                    return

    async def _write(self, asked: Asked, contacts: list[Contact]) -> bool:
        """One call, or halves of it where the CRM refused the whole without naming the guilty."""
        crm = self._line.crm
        reply = await self._call(asked, contacts, crm.archive if asked == "archive" else crm.push)
        if reply is None:
            return False
        self._spent = True
        if reply.rejected_whole and len(contacts) > 1:
            middle = len(contacts) // 2
            return await self._write(asked, contacts[:middle]) and await self._write(asked, contacts[middle:])
        sent = str(self._last)
        for contact, outcome in zip(contacts, reply.outcomes, strict=True):
            self._chunk.apply(contact, outcome, sent)
        return self._postponed is None

    # a call as a whole

    async def _call(
        self,
        asked: Asked,
        contacts: list[Contact],
        ask: Callable[[list[Contact], Headers], Awaitable[_Answer]],
    ) -> _Answer | None:
        """The answer, unless nothing was done: no lease, no leave, or the CRM asked for silence."""
        if not await self._ready():
            return None
        headers = Headers(self._claim.request_id, self._event_id(contacts))
        self._sending = self._last = sending = Sending(
            asked=asked,
            event_id=headers.event_id,
            positions=self._chunk.positions(contacts),
            sent_at=self._now(),
            started=self._monotonic(),
        )
        reply = await self._line.call(lambda: ask(contacts, headers), self._take())
        self._sending = None
        if isinstance(reply, Rejected):
            self._blocked = Block(reply.retry_after, reply.code, self._line.explain(reply))
            return None
        self._called = True
        self._evidence.answered(sending, reply)
        if reply.pause is not None:
            self._postponed = reply.pause
            self._blocked = Block(reply.pause.seconds, reply.pause.code, reply.pause.detail)
            # It may concern some contacts alone: what became of the others is in the answer.
            setup = reply.health is Health.SETUP_FAULT
            return reply if setup or _settles(reply) else None
        return reply

    def _event_id(self, contacts: list[Contact]) -> str:
        claim = self._claim
        named = "\0".join(f"{c.contact_id}\0{c.version}" for c in contacts)
        # The key stands for the body, which other names of fields change, and for its answer: whoever has something
        # sent again wants another one.
        again = str(claim.job_id) if claim.resent else ""
        place = ":".join(
            x for x in (f"tranche:{claim.tenant_id}:{claim.destination_id}", self._shape, again) if x
        )
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{place}\0{named}"))

    def _take(self) -> Permits | None:
        permits, self._permits = self._permits, None
        return permits

    async def _ready(self) -> bool:
        """Whether the lease outlasts another call; a call is never made on a lease that may end under it."""
        need = self._settings.crm_total_timeout + _LEASE_MARGIN
        if self._leased_until - self._monotonic() >= need:
            return True
        asked = self._monotonic()
        async with self._database.connection() as connection:
            lease = max(self._settings.delivery_lease, need)
            if not await delivering.renew_lease(connection, self._claim, lease):
                return False
        self._leased_until = asked + lease
        return True

    def _interrupt(self, detail: str) -> None:
        sending, self._sending = self._sending, None
        self._absence, self._absent_wait = "clear", None
        if sending is None:
            return
        self._called = True
        self._evidence.broke_off(sending, self._monotonic() - sending.started, detail)
        if sending.asked == "read_back":
            return
        self._spent = True
        for position in sending.positions:
            if self._chunk.states[position] not in OPEN_STATES:
                continue  # it went along in a repeated call, and was settled before
            self._chunk.settle(
                position,
                EffectState.UNKNOWN,
                code=ErrorCode.OUTCOME_UNKNOWN,
                detail=f"{sending}: {detail}",
            )

    def _break_off(self, error: str) -> None:
        """An error of ours: it costs an attempt like any other, or it would come again at once and for ever."""
        chunk = self._chunk
        self._interrupt(f"Tranche broke off during the call: {error}")
        for position in chunk.within(EffectState.PENDING) + chunk.within(EffectState.RETRY):
            chunk.states[position] = EffectState.RETRY
            chunk.complain(position, ErrorCode.INTERNAL, f"Tranche broke off before the call: {error}")
        self._called = self._spent = self._broke = True

    # conclude, record

    def _conclude(self) -> Record:
        claim, chunk, crm = self._claim, self._chunk, self._line.crm
        # A circuit that would not let us call and a CRM that asked for silence cost no attempt.
        spent = claim.attempt if self._spent and self._postponed is None else claim.attempt - 1
        if not crm.reads_back and not crm.repeatable:
            repeating.leave_to_humans(chunk)
        wait = self._wait(max(spent, 1)) if chunk.open() else None
        return Record(
            states="".join(STATE_LETTER[state] for state in chunk.states),
            errors=chunk.errors,
            attempts=max(spent, 0),
            wait=wait,
            absence=self._absence,
            tried=chunk.tried(),
            letters=chunk.letters(),
            calls=self._evidence.kept(),
            not_restored=chunk.not_restored,
        )

    def _wait(self, spent: int) -> float | None:
        """Seconds before the next attempt; gives up what may not have one, and was tried just now."""
        chunk, settings = self._chunk, self._settings
        if not self._called:
            return 0.0 if self._blocked else _UNTRIED
        if self._postponed is not None or self._absent_wait is not None:
            # The CRM asked for silence, or must be asked once more before anything is sent.
            return max(self._absent_wait or 0.0, 0.0)
        policy = RetryPolicy.from_settings(settings)
        decision = retry.decide(spent, 0.0, self._claim.age, policy, self._random)
        delay = 0.0
        if not isinstance(decision, GiveUp):
            delay = decision.delay
        elif decision.reason is GiveUpReason.BUDGET or self._broke:
            self._give_up(EffectState.RETRY, EffectState.UNKNOWN)
        else:
            # Whether an unknown item arrived can still be found out; that is bounded by time alone.
            self._give_up(EffectState.RETRY)
        if not chunk.open():
            return None
        return self._patience(policy) if chunk.within(EffectState.UNKNOWN) else delay

    def _patience(self, policy: RetryPolicy) -> float:
        """Before another look at unknown items: as long as they are unknown already, with jitter, up to a cap."""
        longest = min(policy.backoff_cap, _UNKNOWN_CAP)
        wait = min(max(self._claim.unknown_for or 0.0, policy.backoff_base), longest)
        wait *= 0.5 + 0.5 * self._random()
        # What cannot be read back is sent again, when the first call has had its time.
        return wait if self._line.crm.reads_back else max(wait, self._settings.reconcile_grace)

    def _give_up(self, *states: EffectState) -> None:
        """Not what never was tried."""
        attempts = min(self._claim.attempt, self._settings.delivery_attempts)
        for state in states:
            self._chunk.give_up(self._chunk.within(state), attempts)

    @property
    def blocked_for(self) -> float | None:
        """Seconds for which the destination was found closed during this attempt."""
        return self._blocked.seconds if self._blocked else None


def _settles(reply: Reply | ReadBack) -> bool:
    """Whether an answer says of some contacts more than that nothing was done."""
    return isinstance(reply, Reply) and any(o.state is not EffectState.RETRY for o in reply.outcomes)
